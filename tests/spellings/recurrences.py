"""Recurrences whose inputs are products: as loops, and as scans of pairs that are merged."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from .group import EXACT, Group, Params


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

GROUPS = (
    Group(
        "a recurrence of gated inputs",
        RECURRENCES,
        {"gate": (4, 4), "input": (4, 4)},
        None,
        EXACT,
    ),
)
