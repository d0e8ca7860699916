"""Layers across the border of a loop that is written out to be read, and run as a loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import lrp_jax as lrp
from lrp_jax import composites

HEADS, SIZE, WIDTH = 2, 4, 6
COMPOSITES = {
    "AttnLRP": lrp.AttnLRP(),
    "CPLRP": lrp.CPLRP(),
    "EpsilonPlus": lrp.EpsilonPlus(),
    "AlphaBeta": composites.EpsilonAlpha2Beta1(),
    "Zero": lrp.Zero(),
    "no share": lrp.Composite([(lrp.Softmax, lrp.Pass()), (lrp.Linear, lrp.Zero())]),
    "held": lrp.Composite([(lrp.Bilinear, lrp.Hold()), (lrp.Linear, lrp.Zero())]),
}
"""In some of these all inside is a share of the function's derivative, in others not."""

Attend = Callable[[Any, Any, Any, Any], jax.Array]


def split(x: jax.Array, blocks: int) -> jax.Array:
    """Axis 1 as blocks in front."""
    return jnp.moveaxis(x.reshape(x.shape[0], blocks, -1, *x.shape[2:]), 1, 0)


def at_once(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array) -> jax.Array:
    return jax.nn.softmax(q @ jnp.swapaxes(k, 1, 2) / SIZE**0.5 + bias) @ v


def by_keys(blocks: int, wrap: Any = lambda f: f, start: float = -1e9) -> Attend:
    """Attention with a running maximum and sum."""

    def attend(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array) -> jax.Array:
        @wrap
        def turn(carry: Any, given: Any) -> Any:
            largest, total, z = carry
            k, v, bias = given
            s = q @ jnp.swapaxes(k, 1, 2) / SIZE**0.5 + bias
            new = jnp.maximum(largest, s.max(-1))
            old, e = jnp.exp(largest - new), jnp.exp(s - new[..., None])
            return (new, total * old + e.sum(-1), z * old[..., None] + e @ v), None

        zeros = jnp.zeros(q.shape[:2])
        columns = jnp.moveaxis(bias.reshape(bias.shape[0], blocks, -1), 1, 0)
        given = split(k, blocks), split(v, blocks), columns
        (_, total, z), _ = jax.lax.scan(turn, (zeros + start, zeros, jnp.zeros_like(q)), given)
        return z / total[..., None]

    return attend


def by_queries_and_keys(blocks: int) -> Attend:
    """A map over blocks of queries around a scan over blocks of keys."""
    inner = by_keys(blocks, jax.checkpoint)

    def attend(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array) -> jax.Array:
        rows = bias.reshape(blocks, -1, bias.shape[-1])
        found = jax.lax.map(lambda given: inner(given[0], k, v, given[1]), (split(q, blocks), rows))
        return jnp.moveaxis(found, 0, 1).reshape(q.shape)

    return attend


def net(attend: Attend, layers: int = 1) -> Callable[..., jax.Array]:
    """Attention of (tokens, width) between projections, as a scan over layers."""

    def layer(h: jax.Array, w: Any) -> tuple[jax.Array, None]:
        q, k, v = (jnp.einsum("td,dhk->htk", h, w[name]) for name in "qkv")
        bias = jnp.where(jnp.tri(len(h)) > 0, 0.0, -jnp.inf)
        return h + jnp.einsum("htk,hkd->td", attend(q, k, v, bias), w["o"]), None

    def apply(params: Any, x: jax.Array) -> jax.Array:
        h, _ = jax.lax.scan(jax.checkpoint(layer), x, params)
        return h[-1]

    return apply


def parameters(layers: int = 1) -> Any:
    shapes = dict.fromkeys("qkv", (layers, WIDTH, HEADS, SIZE))
    shapes["o"] = (layers, HEADS, SIZE, WIDTH)
    keys = jax.random.split(jax.random.key(0), 4)
    return {n: jax.random.normal(k, s) / 2 for k, (n, s) in zip(keys, shapes.items(), strict=True)}


def tokens(count: int) -> jax.Array:
    return jax.random.normal(jax.random.key(1), (count, WIDTH))


SPELLINGS = {
    "blocks of keys": by_keys(4),
    "checkpointed turns": by_keys(4, jax.checkpoint),
    "one token each": by_keys(16),
    "from a large number": by_keys(2, start=-1e30),
    "blocks of both": by_queries_and_keys(4),
}


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("name", SPELLINGS)
def test_attention_by_blocks_is_attention(name: str, composite: str) -> None:
    params, x = parameters(2), tokens(16)
    one, other = (
        lrp.relevance(net(attend), COMPOSITES[composite])(params, x, target=2)
        for attend in (at_once, SPELLINGS[name])
    )
    assert jnp.allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("blocks", [24, 48, 64])
def test_many_blocks_are_one_layer(blocks: int) -> None:
    params, x = parameters(), tokens(64 if blocks == 64 else 48)
    plan = lrp.plan(net(by_keys(blocks)), lrp.AttnLRP())(params, x)
    assert [layer.kind for layer in plan.layers].count(lrp.Softmax) == 1
    one, other = (
        lrp.relevance(net(attend), lrp.AttnLRP())(params, x, target=0)
        for attend in (at_once, by_keys(blocks))
    )
    assert jnp.allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("composite", ["AttnLRP", "CPLRP"])
def test_the_program_does_not_grow_with_the_turns(composite: str) -> None:
    params = jax.eval_shape(parameters)

    def products(blocks: int) -> int:
        explain = lrp.relevance(net(by_keys(blocks, jax.checkpoint)), COMPOSITES[composite])
        x = jax.ShapeDtypeStruct((48, WIDTH), jnp.result_type(float))
        traced = jax.make_jaxpr(lambda p, x: explain(p, x, target=0))(params, x)
        return str(traced).count("dot_general")

    assert products(4) == products(16)


def test_what_looks_inside_sees_the_layers() -> None:
    params, x = parameters(), tokens(16)
    one, other = (
        lrp.layer_relevances(net(attend), lrp.AttnLRP(), lrp.Softmax)(params, x, target=0)
        for attend in (at_once, by_keys(4))
    )
    (whole,), (blocks,) = one.values(), other.values()
    assert jnp.allclose(whole, blocks, rtol=1e-9, atol=1e-12)
    heads = lrp.head_relevance(net(by_keys(4)), lrp.AttnLRP())(params, x, target=0)
    expected = lrp.head_relevance(net(at_once), lrp.AttnLRP())(params, x, target=0)
    assert jnp.allclose(*(next(iter(h.values())) for h in (heads, expected)), rtol=1e-9)


def test_a_maximum_that_is_explained_is_no_shift() -> None:
    """What is pooled inside of the loop by a maximum takes relevance."""

    def pooled(attend: Attend) -> Callable[..., jax.Array]:
        def apply(params: Any, x: jax.Array) -> jax.Array:
            k = x.reshape(16, 2, -1)
            return attend(x[None, :4, :SIZE], k, k, jnp.zeros((4, 16)))[0, -1]

        return apply

    def turns(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array) -> jax.Array:
        def turn(carry: Any, block: jax.Array) -> Any:
            total, z = carry
            best = block.max(1)[:, :SIZE]
            e = jnp.exp(q[0] @ best.T)
            return (total + e.sum(-1), z + e @ best), None

        start = jnp.zeros(4), jnp.zeros((4, SIZE))
        (total, z), _ = jax.lax.scan(turn, start, k.reshape(4, 4, *k.shape[1:]))
        return (z / total[:, None])[None]

    def whole(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array) -> jax.Array:
        best = k.max(1)[:, :SIZE]
        return (jax.nn.softmax(q[0] @ best.T) @ best)[None]

    x = jax.random.normal(jax.random.key(2), (32, WIDTH))
    one, other = (
        lrp.relevance(pooled(attend), lrp.AttnLRP())(None, x, target=1) for attend in (whole, turns)
    )
    assert jnp.allclose(one, other, rtol=1e-9, atol=1e-12)


def test_explanations_through_loops_are_differentiated() -> None:
    params, x = parameters(), tokens(8)
    one, other = (
        jax.grad(lambda x, f=f: (lrp.relevance(f, lrp.AttnLRP())(params, x, target=0) ** 2).sum())(
            x
        )
        for f in (net(at_once), net(by_keys(2)))
    )
    assert jnp.allclose(one, other, rtol=1e-8, atol=1e-11)
