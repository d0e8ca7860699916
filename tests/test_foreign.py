"""Primitives of other libraries, and loops that are written with them.

The oracle is the same function in the primitives of JAX, or a Python loop whose turns are counted
by hand for each example.
"""

from typing import Any

import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.extend import core
from jax.interpreters import mlir

import lrp_jax as lrp
from lrp_jax import Composite

COMPOSITES: list[Composite] = [
    lrp.AttnLRP(), lrp.CPLRP(), lrp.EpsilonPlus(), lrp.Composite([(lrp.Dense, lrp.Epsilon(0.1))]),
]  # fmt: skip
KINDS = ("bounded", "checkpointed")
P = {
    "w": jax.random.normal(jax.random.key(0), (4, 4)) / 2,
    "b": jnp.array([0.1, -0.2, 0.3, 0.0]),
    "out": jax.random.normal(jax.random.key(1), (4, 3)),
}
X = jnp.array([[0.3, -1.2, 0.8, 0.1], [1.5, 0.4, -0.3, 0.9], [0.2, 0.1, -0.1, 0.3]])
FAR = 1.7
"""A state goes on until it is as far as this: after 3, 0 and 5 turns."""
MOST = 5


def turn(p: Any, h: Array) -> Array:
    return h + jax.nn.gelu(h @ p["w"] + p["b"])


def is_near(h: Array) -> Array:
    return jnp.abs(h).sum() < 2 * FAR


def looped(kind: str) -> Any:
    def apply(p: Any, x: Array) -> Array:
        def step(carry: Any) -> Any:
            h, number = carry
            return turn(p, h), number + 1

        end, _ = eqxi.while_loop(
            lambda carry: is_near(carry[0]), step, (x, 0), max_steps=MOST, kind=kind,
            checkpoints=MOST if kind == "checkpointed" else None,
        )  # fmt: skip
        return end @ p["out"]

    return apply


def by_hand(turns: int) -> Any:
    def apply(p: Any, x: Array) -> Array:
        for _ in range(turns):
            x = turn(p, x)
        return x @ p["out"]

    return apply


def turns_of(x: Array) -> int:
    turns = 0
    while is_near(x) and turns < MOST:
        x, turns = turn(P, x), turns + 1
    return turns


def test_examples_take_different_turns() -> None:
    assert len({turns_of(x) for x in X}) == len(X)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("composite", COMPOSITES, ids=str)
def test_a_bounded_loop_of_equinox_is_its_turns(kind: str, composite: Composite) -> None:
    explain = lrp.value_and_relevance(looped(kind), composite)
    for x in X:
        found = jax.jit(lambda x: explain(P, x, target=1))(x)
        expected = lrp.value_and_relevance(by_hand(turns_of(x)), composite)(P, x, target=1)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_each_example_of_a_batch_takes_its_own_turns(kind: str) -> None:
    function, composite = looped(kind), lrp.AttnLRP()
    expected = [lrp.relevance(by_hand(turns_of(x)), composite)(P, x, target=1) for x in X]
    outside = jax.vmap(lambda x: lrp.relevance(function, composite)(P, x, target=1))(X)
    batched = jax.vmap(function, (None, 0))
    inside = lrp.relevance(batched, composite)(P, X, target=1)
    for found in (outside, inside):
        np.testing.assert_allclose(found, jnp.stack(expected), rtol=1e-10, atol=1e-12)


def made(name: str, run: Any) -> core.Primitive:
    """A primitive of another library."""
    own = core.Primitive(name)
    own.def_impl(run)
    own.def_abstract_eval(lambda x: x)
    mlir.register_lowering(own, mlir.lower_fun(lambda x: jnp.tanh(x) * x, multiple_results=False))
    return own


def test_a_primitive_is_what_implements_it() -> None:
    own = made("tanh_times", lambda x: jnp.tanh(x) * x)
    found = lrp.relevance(lambda p, x: own.bind(x @ p["w"]) @ p["out"], lrp.AttnLRP())
    expected = lrp.relevance(
        lambda p, x: (jnp.tanh(x @ p["w"]) * (x @ p["w"])) @ p["out"], lrp.AttnLRP()
    )
    np.testing.assert_allclose(found(P, X, target=0), expected(P, X, target=0), rtol=1e-12)


@pytest.mark.parametrize(
    "run", [lambda x: np.tanh(np.asarray(x)), lambda x: x[None]], ids=["numpy", "another shape"]
)
def test_what_no_jax_code_implements_is_refused_by_name(run: Any) -> None:
    own = made("kernel_of_theirs", run)
    with pytest.raises(lrp.UnsupportedOperation, match="kernel_of_theirs"):
        lrp.plan(lambda p, x: own.bind(x @ p["w"]) @ p["out"], lrp.AttnLRP())(P, X)
