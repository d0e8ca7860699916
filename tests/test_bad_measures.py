"""Mistakes in what explanations are measured by: each names what is wrong and what to write."""

import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrp_jax as lrp
from lrp_jax import baselines, evaluation
from lrp_jax.evaluation import language

W = {"lower": jnp.arange(12.0).reshape(4, 3) - 6, "upper": jnp.arange(15.0).reshape(3, 5) - 7}
X = jnp.arange(8.0).reshape(2, 4) - 3
LABELS = jnp.array([0, 1])
BATCHES = [(X, LABELS)]


def mlp(w: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return jax.nn.relu(x @ w["lower"]) @ w["upper"]


EXPLAIN = lrp.relevance(mlp, lrp.Zero())
MODULE = nn.Dense(5)
VARIABLES = MODULE.init(jax.random.key(0), X)


def study(**options: Any) -> Any:
    given: dict[str, Any] = {
        "methods": {"LRP-0": EXPLAIN},
        "metrics": {"rest": evaluation.completeness(mlp)},
        "batches": BATCHES,
        "params": W,
    }
    return evaluation.study(**given | options, progress=False)


def tune(make: Any, **options: Any) -> Any:
    given: dict[str, Any] = {"params": W, "trials": 2, "progress": False}
    rest = evaluation.completeness(mlp)
    return evaluation.tune(make, {"gamma": (0.0, 1.0)}, rest, BATCHES, BATCHES, **given | options)


@pytest.mark.parametrize(
    ("function", "params"), [(mlp, W), (MODULE.apply, VARIABLES)], ids=["a function", "Flax"]
)
@pytest.mark.parametrize(
    "measure",
    [
        lambda f, w: evaluation.max_sensitivity(f)(w, X),
        lambda f, w: evaluation.parameter_randomisation(f)(w, X),
        lambda f, w: evaluation.random_logit(f, classes=5)(w, X, target=LABELS),
        lambda f, w: study(methods={"f": f}, params=w),
        lambda f, w: tune(lambda gamma: f, params=w),
        lambda f, w: tune(lambda gamma: f, params=w, search="gradient"),
    ],
    ids=["max_sensitivity", "randomisation", "random_logit", "study", "tune", "tune by gradients"],
)
def test_the_function_in_the_place_of_its_explanation(
    measure: Any, function: Any, params: Any
) -> None:
    with pytest.raises(TypeError, match=r"takes an explanation.*lrp\.relevance.*got .*no target"):
        measure(function, params)


@pytest.mark.parametrize("explain", [EXPLAIN, jax.jit(EXPLAIN), baselines.gradient(mlp)])
@pytest.mark.parametrize("name", ["pixel_flipping", "infidelity", "completeness", "sensitivity_n"])
def test_the_explanation_in_the_place_of_its_function(name: str, explain: Any) -> None:
    measure = getattr(evaluation, name)
    with pytest.raises(TypeError, match=rf"{name} asks the function.*{name}\(apply_fn\)"):
        measure(explain)


def test_functions_that_are_made_of_others_are_functions() -> None:
    relevance = EXPLAIN(W, X)
    expected = evaluation.completeness(mlp)(W, X, relevance=relevance)
    same = evaluation.completeness(lrp.lrp_transform(mlp, lrp.Zero()))
    fixed = evaluation.completeness(lrp.prepare(mlp, W), argnums=0)
    np.testing.assert_allclose(same(W, X, relevance=relevance), expected, atol=1e-5)
    np.testing.assert_allclose(fixed(X, relevance=relevance), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: evaluation.pixel_flipping(mlp)(W, X), r"pixel_flipping\(f\)\(\) missing.*releva"),
        (lambda: evaluation.sensitivity_n(mlp, sizes=())(W, X, relevance=X), r"sizes \(\) must be"),
        (
            lambda: evaluation.faithfulness_correlation(mlp, masks=3)(W, X, relevance=X),
            r"masks are booleans \(runs, \.\.\.\).*\(2, 4\)\), got the shape \(\)",
        ),
        (
            lambda: evaluation.infidelity(mlp, masks=jnp.ones((3, 5)))(W, X, relevance=X),
            r"masks are booleans.*got the shape \(3, 5\)",
        ),
        (lambda: evaluation.infidelity(mlp)(W, X, relevance=X, key=0), r"jax\.random\.key\(0\)"),
        (lambda: evaluation.complexity(X[0]), r"relevance\[None\]"),
        (
            lambda: evaluation.random_logit(EXPLAIN, classes=7)(W, X, target=LABELS),
            r"classes=7, and the explained output has the shape \(2, 5\)",
        ),
        (
            lambda: evaluation.random_logit(EXPLAIN, classes=5)(W, X, target=LABELS + 4),
            "target 5 is out of range",
        ),
        (lambda: study(methods={"LRP": lrp.EpsilonPlus()}), "takes an explanation.*got Composite"),
        (lambda: tune(lambda gamma: lrp.Gamma(gamma)), r"make\(\.\.\.\) takes.*got Gamma"),
        (
            lambda: study(metrics={"curve": evaluation.pixel_flipping(mlp)}),
            "one number for each.*their area",
        ),
        (
            lambda: language.encode(language.agreement()[:1], str.split),  # type: ignore[arg-type]
            r"'The author near the ' it gives \['The', .*\['input_ids'\]",
        ),
    ],
)
def test_measures_that_are_asked_wrongly(make: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: study(params=None), r"params=None in front: study\(\.\.\., params=params\)"),
        (lambda: tune(lambda gamma: EXPLAIN, params=None), "params=None in front"),
        (
            lambda: tune(lambda gamma: EXPLAIN, params=None, search="gradient"),
            "params=None in front",
        ),
        (lambda: study(batches=[(LABELS, X)]), r"pairs \(inputs, labels\)\. Are they exchanged"),
        (lambda: study(metrics={"c": evaluation.complexity}), "lambda params, x, relevance, targe"),
        (lambda: study(metrics={"c": evaluation.completeness}), r"completeness\(apply_fn\) is one"),
        (lambda: tune(lambda g: EXPLAIN), r"handed on by name: make\(gamma\)"),
    ],
)
def test_a_study_says_what_it_handed_on(make: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, KeyError, ValueError), match=r".+") as error:
        make()
    assert any(re.search(message, note) for note in error.value.__notes__)


def test_several_points_of_a_grid_are_not_one() -> None:
    grid = evaluation.Grid(lambda gamma: lrp.relevance(mlp, lrp.Gamma(gamma)), gamma=[0.0, 1.0])
    table = study(methods={"gamma": grid})
    assert table.values("rest", "gamma", gamma=1.0).shape == (2,)
    with pytest.raises(KeyError, match="several points"):
        table.values("rest", "gamma")


def test_nan_is_never_the_best() -> None:
    def rest(w: Any, x: jax.Array, relevance: jax.Array, target: Any) -> jax.Array:
        return relevance.sum(-1)

    methods = {"nan": lambda w, x, target: x * jnp.nan, "b": lambda w, x, target: x}
    for best in ("min", "max"):
        ranks = study(methods=methods, metrics={"rest": rest}).ranking("rest", best=best)
        assert [rank.method for rank in ranks] == ["b", "nan"]
    assert np.isnan(evaluation.spearman(X.at[0, 0].set(jnp.nan), X)).tolist() == [True, False]


def test_continuations_that_the_model_does_not_have() -> None:
    encoded = language.encode(language.agreement()[:2], lambda text: list(map(ord, text)))

    def model(w: Any, ids: jax.Array) -> jax.Array:
        return jnp.zeros((*ids.shape, 5)) + w

    with pytest.raises(ValueError, match=r"right holds the id .*the model has 5 logits"):
        language.compare(model, {"x": EXPLAIN})(jnp.zeros(()), encoded)
