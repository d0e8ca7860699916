"""Mistakes in what is asked of a network: each names what is wrong, where, and what to write."""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrp_jax as lrp
from lrp_jax import baselines, evaluation, plot, targets
from lrp_jax.questions import (
    concept_graph,
    cosines,
    ensemble_relevance,
    fourier,
    in_basis,
    reference_relevance,
    reference_samples,
    visits,
)

W = {"lower": jnp.arange(12.0).reshape(4, 3), "upper": jnp.arange(15.0).reshape(3, 5)}
X = jnp.arange(8.0).reshape(2, 4)


def mlp(w: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return jax.nn.relu(x @ w["lower"]) @ w["upper"]


# Words of Python that would keep one side of what they join


@pytest.mark.parametrize("part", [lrp.Dense, lrp.first(lrp.Conv), visits(0)], ids=repr)
@pytest.mark.parametrize("joined", [lambda a: a and a, lambda a: a or a, operator.not_])
def test_and_or_not_in_the_place_of_operators(part: Any, joined: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match=r"&, \| and ~"):
        joined(part)


def test_one_statement_in_the_place_of_a_list() -> None:
    with pytest.raises(ValueError, match=r"a list of statements.*got Query"):
        lrp.query_relevance(lambda w, x: x @ w, lrp.Zero(), ["input"], visits(0))  # type: ignore[arg-type]


# Language models

MODEL = {"table": jnp.eye(3), "head": 2 * jnp.eye(3)}
PROMPT, ANSWER = jnp.array([0, 2, 1]), jnp.array([2, 1])


def copy(w: dict[str, jax.Array], ids: jax.Array) -> jax.Array:
    e = w["table"][ids]
    return jnp.concatenate([e[:1], e[:-1]]) @ w["head"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((MODEL, PROMPT), r"\(params, prompt, answer\).*2 arguments"),
        ((MODEL,), r"\(params, prompt, answer\).*1 argument\."),
        ((PROMPT, MODEL, ANSWER), r"prompt holds ids.*got dict"),
        ((MODEL, "to be", "or not"), r"prompt holds ids.*got <U5.*tokenizer"),
        ((MODEL, PROMPT, [[1], [1, 2]]), r"answer holds ids.*got list"),
        ((MODEL, PROMPT, ANSWER / 2), r"answer holds ids.*got float"),
    ],
)
def test_a_prompt_or_an_answer_that_is_none(args: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        lrp.explain_generation(copy, lrp.Zero())(*args)


@pytest.mark.parametrize("wrong", [-1, 3])
def test_an_answer_that_the_model_cannot_give(wrong: int) -> None:
    explain = lrp.explain_generation(copy, lrp.Zero())
    with pytest.raises(ValueError, match=rf"answer holds the id {wrong}, .* 3 logits: .*0 to 2"):
        explain(MODEL, PROMPT, jnp.array([2, wrong]))
    with pytest.raises(ValueError, match=rf"against holds the id {wrong}"):
        explain(MODEL, PROMPT, ANSWER, against=[0, wrong])


def test_one_span_in_the_place_of_a_list() -> None:
    found = lrp.explain_generation(copy, lrp.Zero())(MODEL, [0, 2, 1], ANSWER)
    with pytest.raises(TypeError, match=r"write \[slice\(0, 2, None\)\]"):
        found.spans(slice(0, 2))  # type: ignore[arg-type]


# Hidden layers and concepts


def test_a_target_beside_a_start() -> None:
    explain = lrp.layer_relevances(mlp, lrp.Zero(), "lower", start=("upper", abs))
    assert explain(W, X)["lower"].shape == (2, 3)
    with pytest.raises(ValueError, match=r"target=1 starts at the output.*'upper'.*one of them"):
        explain(W, X, target=1)


def test_a_start_of_another_shape() -> None:
    start = ("lower", jnp.ones((2, 4)))
    with pytest.raises(
        ValueError, match=r"lower has the shape \(2, 3\).*\(2, 4\) does not broadcast"
    ):
        lrp.layer_relevances(mlp, lrp.Zero(), start=start)(W, X)


@pytest.mark.parametrize("concepts", [["a"], [0.5], "lower"], ids=repr)
def test_what_is_no_concept(concepts: Any) -> None:
    with pytest.raises(TypeError, match=r"the numbers of units"):
        lrp.concept_relevance(mlp, lrp.Zero(), "lower", concepts)(W, X)


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (jnp.array([0, 3]), r"\[.*3\] is out of range.*3 units"),
        (jnp.array([0]), r"each of the examples of x \(2, 4\), got int\d+ of shape \(1,\)"),
        (jnp.array([0.0, 1.0]), r"an integer for each.*got float"),
    ],
)
def test_units_that_do_not_belong_to_the_examples(units: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reference_relevance(mlp, lrp.Zero(), "lower")(W, X, units)


def test_references_that_cannot_be_kept_are_refused_before_the_work(tmp_path: Any) -> None:
    def batches() -> Any:
        raise AssertionError("asked for a batch")
        yield

    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot be written.*best\.npz"):
        reference_samples(mlp, lrp.Zero(), "lower")(W, batches(), path=tmp_path / "file/best.npz")


def test_a_graph_of_one_layer() -> None:
    with pytest.raises(ValueError, match=r"a list of at least two layers, got 'lower'"):
        concept_graph(mlp, lrp.Zero(), "lower")


# Globs inside of other matches, models in another mode


@pytest.mark.parametrize(
    "match",
    [lrp.first("Lower"), lrp.Dense & ~lrp.last("Lower"), "lower" | lrp.first("Lower")],
    ids=repr,
)
def test_a_glob_inside_of_a_match_that_matches_nothing(match: Any) -> None:
    composite = lrp.Composite([(match, lrp.Flat())])
    with pytest.warns(UserWarning, match=r"'Lower' in the entry .* matches no layer.*lower"):
        lrp.relevance(mlp, composite)(W, X)
    with pytest.raises(ValueError, match="'Lower' in the entry"):
        lrp.plan(mlp, composite, strict=True)(W, X)


@pytest.mark.parametrize(("name", "value"), [("train", False), ("deterministic", True)])
def test_a_model_that_does_not_predict_yet(name: str, value: bool) -> None:
    def model(w: Any, x: jax.Array, **mode: bool) -> jax.Array:
        if mode != {name: value}:
            raise ValueError("a random key is needed")
        return mlp(w, x)

    for explain in (lrp.relevance(model, lrp.Zero()), baselines.gradient(model)):
        with pytest.raises(ValueError, match="a random key is needed") as error:
            explain(W, X)
        assert f"explain(params, x, {name}={value})" in "".join(error.value.__notes__)


@pytest.mark.parametrize(
    "model", [lambda w, x: mlp(w, x) if x.sum() > 0 else x, lambda w, x: np.asarray(x) @ w["lower"]]
)
def test_a_model_that_asks_for_values(model: Any) -> None:
    with pytest.raises(Exception, match=r"(?i)trace") as error:
        lrp.relevance(model, lrp.Zero())(W, X)
    assert "traced, as by jax.jit" in "".join(error.value.__notes__)


def test_a_path_in_the_place_of_a_plan() -> None:
    with pytest.raises(ValueError, match=r"got 'plan\.json'; of a file.*read_text"):
        lrp.Plan.from_json("plan.json")


# Two inputs, many members, another basis


def test_similarities_of_different_numbers_of_examples() -> None:
    with pytest.raises(ValueError, match=r"\(2, 5\) of x and \(1, 5\) of y"):
        lrp.bilrp(mlp, lrp.Zero())(W, X, X[:1])


def test_a_corrupted_input_that_is_not_there() -> None:
    with pytest.raises(TypeError, match=r"\(params, clean, corrupted\).*2 arguments"):
        lrp.patching(mlp, lrp.Zero())(W, X)


def test_members_that_are_not_stacked() -> None:
    explain = ensemble_relevance(mlp, lrp.Zero())
    with pytest.raises(ValueError, match=r"members in front.*stack.*\(4, 3\), \(3, 5\)"):
        explain(W, X)
    with pytest.raises(ValueError, match=r"params_argnum=2"):
        ensemble_relevance(mlp, lrp.Zero(), params_argnum=2)(W, X)
    with pytest.raises(ValueError, match=r"chunk must be at least 1"):
        ensemble_relevance(mlp, lrp.Zero(), chunk=0)


def test_an_ensemble_of_regressions_explains_every_example() -> None:
    members = jnp.array([[[1.0], [2.0]], [[3.0], [1.0]]])
    x = jnp.array([[1.0, 1.0], [2.0, 2.0], [0.0, 1.0]])
    found = ensemble_relevance(lambda w, x: (x @ w)[:, 0], lrp.Zero())(members, x)
    np.testing.assert_allclose(found.mean, x * jnp.array([2.0, 1.5]))
    with pytest.raises(ValueError, match=r"from 0 to 100, got 150"):
        found.percentile(150)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: in_basis(fourier(4), mlp), r"a function, and behind it bases, got Basis, func"),  # type: ignore[arg-type]
        (lambda: fourier(4, axis=3).analyse(X), r"axis 3.*\(2, 4\) has none"),
        (lambda: fourier(0), r"size=0"),
        (lambda: cosines(2.5), r"size=2.5"),  # type: ignore[arg-type]
    ],
)
def test_bases_that_do_not_fit(make: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_one_walk_in_the_place_of_a_list() -> None:
    explain = lrp.walk_relevance(mlp, lrp.Zero(), ["input", "lower"], (0, 1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"each is a list of nodes"):
        explain(W, X)


# Weights that are prepared


@pytest.mark.parametrize(
    "target",
    [5, jnp.array([0, 5]), [0, 5], targets.contrast(0, 5)],
    ids=["one", "an array", "a list", "a contrast"],
)
def test_a_class_that_is_not_there_is_refused_when_weights_are_prepared(target: Any) -> None:
    for make in (lambda: lrp.relevance(mlp, lrp.Zero()), lambda: baselines.gradient(mlp)):
        explain = lrp.prepare(make(), W)
        assert explain(X, target=jax.tree.map(lambda t: t * 0, target)).shape == X.shape
        with pytest.raises(ValueError, match=r"target 5 is out of range.*classes are 0 to 4"):
            explain(X, target=target)


def test_a_target_of_ones_own_is_not_checked_for_another_output() -> None:
    def explain(w: Any, x: jax.Array, target: jax.Array) -> jax.Array:
        return lrp.relevance(mlp, lrp.Zero())(w, x, target=target // 10)

    assert lrp.prepare(explain, W)(X, target=40).shape == X.shape
    with pytest.raises(TypeError, match="got Composite"):
        lrp.prepare(lrp.EpsilonPlus(), W)


# Numbers of rules


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lrp.Epsilon("small"), "epsilon is a number"),  # type: ignore[arg-type]
        (lambda: lrp.Gamma(np.inf), "gamma must be finite"),
        (lambda: lrp.ZBox(0.0, 1.0, stabilizer=np.inf), "stabilizer must be finite"),
    ],
)
def test_what_is_no_number_of_a_rule(make: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()


# Targets


@pytest.mark.parametrize("helper", [targets.contrast, targets.clrp, targets.softmax])
def test_a_target_that_was_not_made(helper: Any) -> None:
    with pytest.raises(TypeError, match=rf"write target={helper.__name__}\(\.\.\.\)"):
        lrp.relevance(mlp, lrp.Zero())(W, X, target=helper)


def test_one_target_in_the_place_of_several() -> None:
    with pytest.raises(TypeError, match="a list of targets, got 3"):
        targets.each(3)  # type: ignore[arg-type]


# Baselines, measures and data sets


def test_baselines_say_what_is_probably_wrong() -> None:
    explain = baselines.gradient(mlp)
    with pytest.raises(TypeError) as swapped:
        explain(X, W)
    assert "Are they swapped?" in "".join(swapped.value.__notes__)
    with pytest.raises(TypeError) as single:
        baselines.integrated_gradients(lambda w, x: mlp(w, x.reshape(len(x), 4)))(W, X[0])
    assert "x[None]" in "".join(single.value.__notes__)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: baselines.smoothgrad(mlp, key=0), r"jax\.random\.key\(0\), got 0"),  # type: ignore[arg-type]
        (lambda: baselines.random(mlp, key=None), r"jax\.random\.key\(0\), got None"),  # type: ignore[arg-type]
        (lambda: baselines.integrated_gradients(mlp, baseline="black")(W, X), "got 'black'"),
        (
            lambda: baselines.integrated_gradients(mlp, baseline=jnp.ones(3))(W, X),
            r"of shape \(2, 4\).*got an array \(3,\)",
        ),
        (lambda: evaluation.infidelity(mlp, runs=0), "runs must be at least 1"),
        (lambda: evaluation.sensitivity_n(mlp, runs=0), "runs must be at least 1"),
        (lambda: evaluation.max_sensitivity(abs, radius=-1.0), "radius=-1.0"),
        (lambda: evaluation.max_sensitivity(abs, samples=0), "samples must be at least 1"),
        (lambda: evaluation.area(np.ones((2, 3))), "pixel_flipping returned, got ndarray"),  # type: ignore[arg-type]
        (
            lambda: evaluation.pixel_flipping(mlp, patch=40)(W, X, relevance=X),
            r"patch=40 is larger than an input \(2, 4\)",
        ),
        (
            lambda: evaluation.pixel_flipping(mlp)(W, X, relevance=lrp.relevance(mlp, lrp.Zero())),
            r"relevance=explain\(\*args\)",
        ),
        (lambda: evaluation.pearson(X, X[:1]), r"\(2, 4\) and \(1, 4\)"),
        (lambda: evaluation.spearman(X[..., None], X[..., None]), r"a\.reshape\(len\(a\), -1\)"),
    ],
)
def test_measures_and_baselines_of_nothing(make: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_relevance_that_is_nan_has_no_order() -> None:
    relevance = X.at[0, 1].set(jnp.nan)
    flip = evaluation.pixel_flipping(mlp, steps=4)
    np.testing.assert_array_equal(
        jnp.isnan(flip(W, X, relevance=relevance).score).all(-1), [True, False]
    )
    draw = evaluation.pixel_flipping(mlp, steps=4, order="random")
    assert jnp.isfinite(draw(W, X, relevance=relevance).score).all()


def test_a_batch_that_fails_is_named() -> None:
    def explain(x: jax.Array) -> jax.Array:
        return x.reshape(-1, 4) @ W["lower"]

    with pytest.raises(TypeError) as error:
        lrp.explain_dataset(explain, X[:, :3], progress=False)
    assert "batch 0 holds arrays of the shapes (3,)" in "".join(error.value.__notes__)
    with pytest.raises(TypeError, match="fn is a function, got list"):
        lrp.explain_dataset([X], explain)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="returned None, no array, for batch 0"):
        lrp.explain_dataset(lambda x: None, [X], progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": [lrp.relevance(mlp, lrp.Zero())]}, "by name.*got list and dict"),
        ({"metrics": evaluation.completeness(mlp)}, "by name.*got dict and function"),
        ({"batches": [X]}, r"\[\(x, labels\)\], got ArrayImpl as batch 0"),
        ({"batches": X}, "got ArrayImpl as batch 0"),
    ],
)
def test_studies_of_nothing(options: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {
        "methods": {"LRP-0": lrp.relevance(mlp, lrp.Zero())},
        "metrics": {"rest": evaluation.completeness(mlp)},
        "batches": [(X, jnp.array([0, 1]))],
    }
    with pytest.raises(TypeError, match=message):
        evaluation.study(**given | options, params=W, progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"best": "most"}, "best is"),
        ({"search": "bayes"}, 'search is "random", "grid" or "gradient", not \'bayes\''),
        ({"trials": 0}, "trials must be at least 1"),
        ({"ranges": {}}, "for each number of make"),
        ({"ranges": {"epsilon": 0.1}}, r"a pair \(low, high\).*\{'epsilon': 0.1\}"),
        ({"ranges": {"epsilon": (1.0, 0.1)}}, "low below high"),
    ],
)
def test_tuning_of_nothing(options: dict[str, Any], message: str) -> None:
    data = [(X, jnp.array([0, 1]))]
    given: dict[str, Any] = {
        "make": lambda epsilon: lrp.relevance(mlp, lrp.Epsilon(epsilon)),
        "ranges": {"epsilon": (0.1, 1.0)},
        "metric": evaluation.completeness(mlp),
    }
    with pytest.raises(ValueError, match=message):
        evaluation.tune(**given | options, fit=data, report=data, params=W, progress=False)


# Pictures


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plot.grid({"LRP": X[None]}, X[None]), r"grid\(x, \{name: relevance\}\)"),
        (lambda: plot.curves(X), r"by name.*got ArrayImpl"),  # type: ignore[arg-type]
        (lambda: plot.curves({"LRP": X}), r"what pixel_flipping returned"),  # type: ignore[dict-item]
        (lambda: plot.ledger(lrp.plan(mlp, lrp.Zero())(W, X)), "conservation returned, got Plan"),
        (lambda: plot.plan(lrp.conservation(mlp, lrp.Zero())(W, X)), "returned, got Ledger"),
        (lambda: plot.uncertainty(X, level=90), "share of the members.*got 90"),
    ],
)
def test_pictures_of_something_else(draw: Callable[[], Any], message: str) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises((TypeError, ValueError), match=message):
        draw()


def test_rounding_does_not_look_like_a_loss() -> None:
    pytest.importorskip("matplotlib")
    ledger = lrp.conservation(mlp, lrp.Epsilon(1e-9))(W, X)
    low, high = plot.ledger(ledger).get_xlim()
    assert low < 0 < float(ledger.rows["lower"]["in"]) / 101 < high
