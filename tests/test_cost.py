"""The price of an explanation, in facts of its program that no noise can blur."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import lrp_jax as lrp

LOW, HIGH = -3.0, 3.0


class CNN(nn.Module):
    """Two stages of convolution and pooling, a third convolution, two dense layers."""

    widths: tuple[int, int, int] = (8, 8, 24)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for width in self.widths[:2]:
            x = nn.max_pool(nn.relu(nn.Conv(width, (3, 3))(x)), (2, 2), (2, 2))
        x = nn.relu(nn.Conv(self.widths[2], (3, 3))(x))
        x = nn.relu(nn.Dense(72)(x.reshape(x.shape[0], -1)))
        return nn.Dense(5)(x)


class Attention(nn.Module):
    """A transformer block: 2 dense layers around 2 attention products, 2 more behind."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        q, k, v = jnp.split(nn.Dense(24)(nn.LayerNorm()(x)), 3, -1)
        x = x + nn.Dense(8)(nn.softmax(q @ jnp.swapaxes(k, -1, -2)) @ v)
        x = x + nn.Dense(8)(nn.gelu(nn.Dense(16)(nn.LayerNorm()(x))))
        return nn.Dense(5)(x.mean(1))


def program(model: nn.Module, shape: tuple[int, ...], composite: Any = None) -> Any:
    """The lowered explanation of labels, or gradient where there is no composite."""
    explain = None if composite is None else lrp.relevance(model.apply, composite)

    def chosen(v: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
        return jnp.take_along_axis(model.apply(v, x), labels[:, None], -1).sum()

    def explanation(v: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
        if explain is None:
            return jax.grad(chosen, argnums=1)(v, x, labels)
        return explain(v, x, target=labels)

    with jax.enable_x64(False):
        x = jax.ShapeDtypeStruct(shape, jnp.float32)
        labels = jax.ShapeDtypeStruct(shape[:1], jnp.int32)
        variables = jax.eval_shape(model.init, jax.random.key(0), x)
        return jax.jit(explanation).trace(variables, x, labels).lower(lowering_platforms=("cpu",))


def contractions(text: str) -> tuple[int, int]:
    return text.count("stablehlo.convolution"), text.count("stablehlo.dot_general")


SMALL = (2, 8, 8, 3)
# Forward, denominators, back. The inputs of the first layer have both signs, and a neuron so few
# of them that each sign is summed by itself; all other inputs are >= 0.
# The last layer's own output is not needed where nothing divides by it.
PRICES: dict[str, tuple[Callable[[], Any], tuple[int, int]]] = {
    "LRP-0": (lrp.Zero, (3 + 0 + 3, 1 + 0 + 2)),
    "Epsilon": (lrp.Epsilon, (3 + 0 + 3, 2 + 0 + 2)),
    "EpsilonPlus": (lrp.EpsilonPlus, (3 + 4 + 4, 2 + 0 + 2)),
    # The last layer is not rectified: outputs of both signs.
    "Gamma": (lambda: lrp.Composite([(lrp.Linear, lrp.Gamma())]), (3 + 4 + 4, 2 + 2 + 3)),
    "EpsilonGammaBox": (lambda: lrp.EpsilonGammaBox(LOW, HIGH), (3 + 4 + 4, 2 + 0 + 2)),
    # Both signs: the negative sums are what the positive ones leave.
    "EpsilonAlpha2Beta1": (lrp.EpsilonAlpha2Beta1, (3 + 6 + 8, 2 + 0 + 2)),
}


@pytest.mark.parametrize("name", PRICES)
def test_contractions_are_forward_denominators_and_back(name: str) -> None:
    composite, expected = PRICES[name]
    assert contractions(program(CNN(), SMALL, composite()).as_text()) == expected


def test_the_gradient_has_as_many_contractions_as_lrp_0() -> None:
    assert contractions(program(CNN(), SMALL).as_text()) == PRICES["LRP-0"][1]


@pytest.mark.parametrize("composite", [lrp.AttnLRP, lrp.CPLRP])
def test_transformers_need_no_more_products_than_the_gradient(
    composite: Callable[[], Any],
) -> None:
    shape = (2, 6, 8)
    ours = contractions(program(Attention(), shape, composite()).as_text())
    gradient = contractions(program(Attention(), shape).as_text())
    assert ours[0] == gradient[0] == 0
    assert ours[1] <= gradient[1]


def test_nothing_is_scattered_by_plain_pools() -> None:
    assert "select_and_scatter" in program(CNN(), SMALL).as_text()
    for composite, _ in PRICES.values():
        assert "select_and_scatter" not in program(CNN(), SMALL, composite()).as_text()


def test_divisions_stay_out_of_lrp_0() -> None:
    assert "stablehlo.divide" not in program(CNN(), SMALL, lrp.Zero()).as_text()


@pytest.mark.parametrize("name", ["LRP-0", "Epsilon", "EpsilonPlus", "EpsilonGammaBox"])
def test_temporary_memory_is_at_most_the_gradients(name: str) -> None:
    digits = CNN((8, 16, 16)), (8, 28, 28, 1)
    ours, gradient = (
        program(*digits, composite).compile().memory_analysis().temp_size_in_bytes
        for composite in (PRICES[name][0](), None)
    )
    assert ours <= gradient


@pytest.mark.parametrize("form", ["scan", "checkpoint"])
def test_loops_and_checkpoints_need_no_more_memory_than_in_the_gradient(form: str) -> None:
    depth, width = 12, 64

    def block(x: jax.Array, w: jax.Array) -> jax.Array:
        return x + jax.nn.gelu(x @ w) @ w.T

    def apply(ws: jax.Array, x: jax.Array) -> jax.Array:
        if form == "scan":
            return jax.lax.scan(lambda x, w: (jax.checkpoint(block)(x, w), None), x, ws)[0]
        for w in ws:
            x = jax.checkpoint(block)(x, w)
        return x

    def temporary(function: Any) -> int:
        ws = jax.ShapeDtypeStruct((depth, width, width), jnp.float32)
        x = jax.ShapeDtypeStruct((512, width), jnp.float32)
        analysis = jax.jit(function).lower(ws, x).compile().memory_analysis()
        return int(analysis.temp_size_in_bytes)

    with jax.enable_x64(False):
        explain = lrp.relevance(apply, lrp.AttnLRP())
        ours = temporary(lambda ws, x: explain(ws, x, target=0))
        gradient = temporary(jax.grad(lambda ws, x: apply(ws, x)[:, 0].sum(), argnums=1))
        assert ours <= gradient
