"""Mistakes in what is asked of a network: each names what is wrong, where, and what to write."""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrp_jax as lrp
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
