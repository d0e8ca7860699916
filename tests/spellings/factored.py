"""Factors that a sum does not run over, before it and after it."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from .group import EXACT, Group, Params, halves, shares

WEIGHTS = dict.fromkeys(("scale", "one", "other", "dense"), (4, 4))
Function = Callable[[Array, Array, Array], Array]


def parts(p: Params, h: Array) -> tuple[Array, Array, Array]:
    """A factor for each row, and two matrices."""
    return (h @ p["scale"])[..., :1], h @ p["one"], h @ p["other"]


def on_parts(spelled: dict[str, Function]) -> dict[str, Callable[[Params, Array], Array]]:
    return {name: (lambda p, h, f=f: f(*parts(p, h))) for name, f in spelled.items()}


def scores(a: Array, b: Array) -> Array:
    return jnp.einsum("bqd,bkd->bqk", a, b)


MATMUL: dict[str, Function] = {
    "after": lambda g, a, b: g * scores(a, b),
    "before": lambda g, a, b: scores(g * a, b),
    "divided": lambda g, a, b: scores(a / (1 / g), b),
    "einsum": lambda g, a, b: jnp.einsum("bqk,bq->bqk", scores(a, b), g[..., 0]),
    "matmul": lambda g, a, b: (g * a) @ jnp.swapaxes(b, 1, 2),
    "a row": lambda g, a, b: jax.vmap(jax.vmap(lambda g, a, b: b @ (g * a), (0, 0, None)))(g, a, b),
    "map": lambda g, a, b: lax.map(lambda r: (r[0] * r[1]) @ r[2].T, (g, a, b)),
}


def on_dense(spelled: dict[str, Callable[..., Array]]) -> dict[str, Callable[..., Array]]:
    def with_dense(f: Callable[..., Array]) -> Callable[[Params, Array], Array]:
        return lambda p, h: f(*parts(p, h), p["dense"])

    return {name: with_dense(f) for name, f in spelled.items()}


DENSE = on_dense(
    {
        "after": lambda g, a, b, w: b * (g * (a @ w)),
        "before": lambda g, a, b, w: b * ((g * a) @ w),
        "weights first": lambda g, a, b, w: b * ((a * g) @ (2 * w) / 2),
        "einsum": lambda g, a, b, w: b * jnp.einsum("btf,fk->btk", g * a, w),
        "a checkpoint's": lambda g, a, b, w: b * jax.checkpoint(lambda g, a: (g * a) @ w)(g, a),
    }
)
SUMMED: dict[str, Function] = {
    "after": lambda g, a, b: (g * a.sum(-1, keepdims=True)) * b,
    "before": lambda g, a, b: (g * a).sum(-1, keepdims=True) * b,
    "a mean": lambda g, a, b: (g * a).mean(-1, keepdims=True) * (4 * b),
    "ones": lambda g, a, b: ((g * a) @ jnp.ones((4, 1))) * b,
    "einsum": lambda g, a, b: jnp.einsum("btf->bt", g * a)[..., None] * b,
}
QUERIES: dict[str, Function] = {
    "normalised last": lambda g, a, b: (
        (jnp.exp(a) @ (jnp.swapaxes(jnp.exp(b), 1, 2) @ (a * b)))
        / (jnp.exp(a) * jnp.exp(b).sum(1, keepdims=True)).sum(-1, keepdims=True)
    ),
    "normalised first": lambda g, a, b: (
        (jnp.exp(a) / (jnp.exp(a) * jnp.exp(b).sum(1, keepdims=True)).sum(-1, keepdims=True))
        @ (jnp.swapaxes(jnp.exp(b), 1, 2) @ (a * b))
    ),
}

GROUPS = (
    Group(
        "a factor of rows",
        on_parts(MATMUL),
        WEIGHTS,
        lambda p, h, gates: shares(parts(p, h)[0], halves(scores, *parts(p, h)[1:])),
        EXACT,
    ),
    Group("a factor before a dense layer", DENSE, WEIGHTS, None, EXACT),
    Group("a factor of what is summed", on_parts(SUMMED), WEIGHTS, None, EXACT),
    Group("queries that are normalised first", on_parts(QUERIES), WEIGHTS, None, EXACT),
)
