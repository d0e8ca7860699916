"""Recurrences whose inputs are products: as loops, as scans of pairs that are merged, and as
products along an axis."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from .group import EXACT, Group, Params, shares


def gated(p: Params, h: Array) -> tuple[Array, Array]:
    """How much of the state is left, and what is added to it."""
    z = jax.nn.sigmoid(h @ p["gate"])
    return 1 - z, z * (h @ p["input"])


def by_loop(p: Params, h: Array) -> Array:
    a, b = gated(p, h)
    state, rows = jnp.zeros_like(b[:, 0]), []
    for t in range(h.shape[1]):
        state = a[:, t] * state + b[:, t]
        rows.append(state)
    return jnp.stack(rows, 1)


def by_scan(p: Params, h: Array) -> Array:
    a, b = (jnp.swapaxes(z, 0, 1) for z in gated(p, h))
    turn = lambda s, z: (z[0] * s + z[1], z[0] * s + z[1])  # noqa: E731
    return jnp.swapaxes(lax.scan(turn, jnp.zeros_like(b[0]), (a, b))[1], 0, 1)


def by_rows(p: Params, h: Array) -> Array:
    def turn(state: Array, row: Array) -> tuple[Array, Array]:
        a, b = gated(p, row)
        return a * state + b, a * state + b

    start = jnp.zeros((h.shape[0], p["gate"].shape[1]))
    return jnp.swapaxes(lax.scan(turn, start, jnp.swapaxes(h, 0, 1))[1], 0, 1)


Pair = tuple[Array, Array]


def merged(one: Pair, two: Pair) -> Pair:
    return one[0] * two[0], two[0] * one[1] + two[1]


def in_parallel(gates: Callable[[Params, Array], Pair]) -> Callable[[Params, Array], Array]:
    return lambda p, h: lax.associative_scan(merged, gates(p, h), axis=1)[1]


def negated(p: Params, h: Array) -> Pair:
    return jax.nn.sigmoid(-(h @ p["gate"])), gated(p, h)[1]


RECURRENCES = {
    "loop": by_loop,
    "scan": by_scan,
    "scan, gates inside": by_rows,
    "associative scan": in_parallel(gated),
    "associative scan, gates negated": in_parallel(negated),
    "vmap": lambda p, h: jax.vmap(lambda row: by_scan(p, row[None])[0])(h),
}


def rows(a: Array) -> list[Array]:
    return [a[:, t] for t in range(a.shape[1])]


PRODUCT = {
    "factors": lambda a, g: a[:, 0] * a[:, 1] * a[:, 2] * g,
    "prod": lambda a, g: jnp.prod(a, 1) * g,
    "g first": lambda a, g: g * jnp.prod(a, 1),
    "kept axis": lambda a, g: (a.prod(1, keepdims=True) * g[:, None])[:, 0],
    "reduce": lambda a, g: lax.reduce(a, 1.0, lax.mul, (1,)) * g,
    "cumprod": lambda a, g: jnp.cumprod(a, 1)[:, -1] * g,
    "reversed": lambda a, g: lax.cumprod(a, axis=1, reverse=True)[:, 0] * g,
    "loop": lambda a, g: lax.fori_loop(0, 3, lambda t, y: y * a[:, t], g),
    "scan": lambda a, g: lax.scan(lambda y, x: (y * x, None), g, jnp.swapaxes(a, 0, 1))[0],
    "einsum": lambda a, g: jnp.einsum("bf,bf,bf,bf->bf", *rows(a), g),
    "vmap": jax.vmap(lambda a, g: jnp.prod(a, 0) * g),
    "divided": lambda a, g: jnp.prod(a, 1) / (1 / g),
}


def rendered_by_loop(a: Array, c: Array) -> Array:
    left, out = jnp.ones_like(a[:, 0]), jnp.zeros_like(c[:, 0])
    for alpha, colour in zip(rows(a), rows(c), strict=True):
        out, left = out + left * alpha * colour, left * (1 - alpha)
    return out


def rendered_by_scan(a: Array, c: Array) -> Array:
    def turn(left: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        return left * (1 - row[0]), left * row[0] * row[1]

    over = tuple(jnp.swapaxes(z, 0, 1) for z in (a, c))
    return lax.scan(turn, jnp.ones_like(a[:, 0]), over)[1].sum(0)


def left_before(a: Array) -> Array:
    return jnp.concatenate([jnp.ones_like(a[:, :1]), jnp.cumprod(1 - a, 1)[:, :-1]], 1)


RENDERED = {
    "loop": rendered_by_loop,
    "scan": rendered_by_scan,
    "cumprod": lambda a, c: (left_before(a) * a * c).sum(1),
    "cumprod of the rest": lambda a, c: (left_before(a) * (a * c)).sum(1),
    "padded": lambda a, c: (
        jnp.pad(jnp.cumprod(1 - a[:, :-1], 1), ((0, 0), (1, 0), (0, 0)), constant_values=1) * a * c
    ).sum(1),
    "parts": lambda a, c: (
        a[:, 0] * c[:, 0]
        + (1 - a[:, 0]) * a[:, 1] * c[:, 1]
        + (1 - a[:, 0]) * (1 - a[:, 1]) * a[:, 2] * c[:, 2]
    ),
    "vmap": jax.vmap(lambda a, c: (left_before(a[None])[0] * a * c).sum(0)),
}

JOINED = {
    "part by part": lambda a, b, c: jnp.concatenate(
        [a[:, :2] * b[:, :2] * c[:, :2], a[:, 2:] * c[:, 2:]], 1
    ),
    "joined, then multiplied": lambda a, b, c: (
        jnp.concatenate([a[:, :2] * b[:, :2], a[:, 2:]], 1) * c
    ),
    "c first": lambda a, b, c: c * jnp.concatenate([a[:, :2] * b[:, :2], a[:, 2:]], 1),
    "stacked": lambda a, b, c: (
        jnp.stack([a[:, 0] * b[:, 0], a[:, 1] * b[:, 1], a[:, 2]], 1) * c
    ),
    "rows": lambda a, b, c: jnp.stack(
        [a[:, 0] * b[:, 0] * c[:, 0], a[:, 1] * b[:, 1] * c[:, 1], a[:, 2] * c[:, 2]], 1
    ),
    "c in halves": lambda a, b, c: jnp.concatenate(
        [jnp.concatenate([a[:, :1] * b[:, :1], a[:, 1:2] * b[:, 1:2]], 1) * c[:, :2],
         a[:, 2:] * c[:, 2:]], 1
    ),
}  # fmt: skip

FACTORS = {"a": (4, 4), "b": (4, 4), "c": (4, 4)}

GROUPS = (
    Group(
        "a product along an axis and a factor",
        {n: (lambda p, h, f=f: f(h @ p["a"], h[:, 0] @ p["b"])) for n, f in PRODUCT.items()},
        {"a": (4, 4), "b": (4, 4)},
        lambda p, h, gates: shares(*rows(h @ p["a"]), h[:, 0] @ p["b"]),
        EXACT,
    ),
    Group(
        "light that is left",
        {
            n: (lambda p, h, f=f: f(jax.nn.sigmoid(h @ p["a"]), h @ p["b"]))
            for n, f in RENDERED.items()
        },
        {"a": (4, 4), "b": (4, 4)},
        None,
        EXACT,
    ),
    Group(
        "products beside something else, and a factor",
        {n: (lambda p, h, f=f: f(h @ p["a"], h @ p["b"], h @ p["c"])) for n, f in JOINED.items()},
        FACTORS,
        lambda p, h, gates: (
            lambda a, b, c: jnp.concatenate(
                [shares(a[:, :2], b[:, :2], c[:, :2]), shares(a[:, 2:], c[:, 2:])], 1
            )
        )(h @ p["a"], h @ p["b"], h @ p["c"]),
        EXACT,
    ),
    Group(
        "a recurrence of gated inputs",
        RECURRENCES,
        {"gate": (4, 4), "input": (4, 4)},
        None,
        EXACT,
    ),
)
