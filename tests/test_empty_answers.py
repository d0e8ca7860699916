"""Questions whose answer would be empty, or zero whatever the network is: refused, with why."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrp_jax as lrp
from lrp_jax.questions import components, drsa, ensemble_relevance

W = {"a": jnp.arange(12.0).reshape(4, 3) - 5, "b": jnp.arange(15.0).reshape(3, 5) - 7}
X = jnp.arange(8.0).reshape(2, 4) - 3


def mlp(w: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return jax.nn.relu(x @ w["a"]) @ w["b"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lrp.patching(mlp, lrp.Zero(), "b", to="a")(W, X, X + 1), r"to= \(a\) reads .* b "),
        (lambda: lrp.patching(mlp, lrp.Zero(), "b", to="b")(W, X, X + 1), "towards the output"),
        (
            lambda: lrp.layer_relevances(mlp, lrp.Zero(), "b", start=("a", abs))(W, X),
            "starts at a goes towards the input and does not come to b",
        ),
        (lambda: lrp.layer_relevances(mlp, lrp.Zero(), [])(W, X), r"layers=\[\] names no layer"),
        (lambda: lrp.layer_relevances(mlp, lrp.Zero(), ["a", "c"])(W, X), "no layer matches 'c'"),
        (lambda: lrp.concept_relevance(mlp, lrp.Zero(), "a", [])(W, X), "there are none to ask"),
        (
            lambda: lrp.concept_relevance(mlp, lrp.Zero(), "a", jnp.array([True, False, True]))(
                W, X
            ),
            r"one mask of units is masks\[None\]",
        ),
        (lambda: lrp.concept_relevance(mlp, lrp.Zero(), [0], "a")(W, X), "0 is not a match"),
        (lambda: lrp.patching(mlp, lrp.Zero(), "a", axes=-1)(W, X, X), r"a tuple, \(-1,\)"),  # type: ignore[arg-type]
        (lambda: lrp.activation_patching(mlp, lrp.Zero(), "a"), "no rules"),  # type: ignore[arg-type]
        (
            lambda: ensemble_relevance(mlp, lrp.Zero(), params_argnum=1)(W, X),
            "argument 1 is explained",
        ),
        (lambda: components(X.at[0, 0].set(jnp.nan)), "finite data"),
        (lambda: drsa(mlp, lrp.Zero(), "a", 1, 1, key=0)(W, [X]), r"jax\.random\.key\(0\)"),  # type: ignore[arg-type]
    ],
)
def test_questions_without_an_answer(make: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_a_list_names_several_layers() -> None:
    both = lrp.layer_relevances(mlp, lrp.Zero(), ["b", lrp.first(lrp.Dense)])(W, X)
    every = lrp.layer_relevances(mlp, lrp.Zero())(W, X)
    assert list(both) == ["a", "b"]
    for path, relevance in both.items():
        np.testing.assert_array_equal(relevance, every[path])
    assert list(lrp.activation_patching(mlp, ["a", "b"])(W, X, X + 1)) == ["a", "b"]


def test_what_lies_on_the_way_is_answered() -> None:
    found = lrp.layer_relevances(mlp, lrp.Zero(), start=("a", jnp.ones((2, 3))))(W, X)
    assert set(found) == {"a", "ReLU", "b"}
    edges = lrp.patching(mlp, lrp.Zero(), "*", to="b")(W, X, X + 1)
    assert set(edges["ReLU"]) == {"b"}
    one = lrp.concept_relevance(mlp, lrp.Zero(), "a", jnp.array([[True, False, True]]))(W, X)
    same = lrp.concept_relevance(mlp, lrp.Zero(), "a", [[0, 2]])(W, X)
    np.testing.assert_allclose(one, same)
