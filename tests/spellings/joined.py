"""What is put side by side and then normed, gated or summed: each part by itself, or all of it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .group import EXACT, SUMS, Group, Params, Piece

Join = Callable[[list[Array]], Array]
Cut = Callable[[Params, Array], list[Array]]


def updated(parts: list[Array]) -> Array:
    out, at = jnp.zeros_like(jnp.concatenate(parts, 1)), 0
    for part in parts:
        out = out.at[:, at : at + part.shape[1]].set(part)
        at += part.shape[1]
    return out


def padded(parts: list[Array]) -> Array:
    ends = np.cumsum([0, *(part.shape[1] for part in parts)])
    sides = [((0, 0), (low, ends[-1] - high), (0, 0)) for low, high in itertools.pairwise(ends)]
    return functools.reduce(jnp.add, map(jnp.pad, parts, sides))


JOINS: dict[str, Join] = {
    "concatenate": lambda parts: jnp.concatenate(parts, 1),
    "set": updated,
    "pads added": padded,
    "a stack of rows": lambda parts: jnp.stack(
        [part[:, i] for part in parts for i in range(part.shape[1])], 1
    ),
}


def shifted_and_scaled(s: Array, mean: Array, squares: Array) -> Array:
    return s * (scale := lax.rsqrt(squares - mean * mean + 1e-3)) - mean * scale


NORMS: dict[str, Callable[[Array], Array]] = {
    "shares": lambda s: s / jnp.abs(s).sum(-1, keepdims=True),
    "an RMS norm": lambda s: s * lax.rsqrt((s * s).mean(-1, keepdims=True) + 1e-3),
    "a layer norm": lambda s: (
        (s - s.mean(-1, keepdims=True)) * lax.rsqrt(s.var(-1, keepdims=True) + 1e-3)
    ),
    "a layer norm by squares": lambda s: shifted_and_scaled(
        s, s.mean(-1, keepdims=True), (s * s).mean(-1, keepdims=True)
    ),
    "a maximum": lambda s: s / (jnp.abs(s).max(-1, keepdims=True) + 1e-3),
}
GATES: dict[str, Callable[[Array], Array]] = {
    "a gate": lambda s: s * jax.nn.sigmoid(s),
    "a gate of the first": lambda s: s * jax.nn.sigmoid(s[..., :1]),
}
CUTS: dict[str, Cut] = {
    "a token": lambda p, h: [jnp.broadcast_to(p["token"], (h.shape[0], 1, 4)), h],
    "zeros": lambda p, h: [h, jnp.zeros((h.shape[0], 1, 4))],
    "a product": lambda p, h: [h[:, :1] * h[:, 1:2], h[:, 2:]],
    "a gated row": lambda p, h: [h[:, :1] * jax.nn.sigmoid(h[:, 1:2]), h[:, 2:]],
    "the larger": lambda p, h: [jnp.maximum(h[:, :1], h[:, 1:2]), h[:, 2:] * p["token"]],
}


def whole(function: Callable[[Array], Array], cut: Cut, join: Join) -> Piece:
    return lambda p, h: function(join(cut(p, h)))


def each(function: Callable[[Array], Array], cut: Cut) -> Piece:
    return lambda p, h: jnp.concatenate([function(part) for part in cut(p, h)], 1)


def spellings(function: Callable[[Array], Array], cut: Cut) -> dict[str, Piece]:
    joined = {name: whole(function, cut, join) for name, join in JOINS.items()}
    return {"each part": each(function, cut), **joined}


# -- a factor of all rows, beside what is put together --------------------------------------------


def over_a_gate(sign: int) -> dict[str, Piece]:
    def gate(p: Params, h: Array) -> Array:
        return jax.nn.sigmoid(h @ p["g"]) ** sign

    def parts(p: Params, h: Array) -> Array:
        g = gate(p, h)
        first = jnp.broadcast_to(p["token"], (h.shape[0], 1, 4)) * g[:, :1]
        return jnp.concatenate([first, h[:, 1:] * g[:, 1:]], 1)

    def joined(join: Join) -> Piece:
        return lambda p, h: (
            join([jnp.broadcast_to(p["token"], (h.shape[0], 1, 4)), h[:, 1:]]) * gate(p, h)
        )

    return {"each part": parts, **{name: joined(join) for name, join in JOINS.items()}}


# -- a query of rows that are constants beside explained ones -------------------------------------


def attended(query: Callable[[Params, Array, Array], Array]) -> Piece:
    """Attention of a class token over itself and the others, in front of which a function is."""

    def piece(p: Params, h: Array) -> Array:
        token = jnp.broadcast_to(p["token"], (h.shape[0], 1, 4))
        q = query(p, token, h) @ p["q"]
        rows = in_front(p, jnp.concatenate([token, h], 1))
        return jax.nn.softmax(q @ (rows @ p["k"]).mT) @ rows

    return piece


def in_front(p: Params, s: Array) -> Array:
    return jax.nn.gelu(NORMS["a layer norm by squares"](s) @ p["f"])


QUERIES = {
    "by itself": attended(lambda p, token, h: in_front(p, token)),
    "cut": attended(lambda p, token, h: in_front(p, jnp.concatenate([token, h], 1))[:, :1]),
    "picked": attended(
        lambda p, token, h: in_front(p, jnp.concatenate([token, h], 1))[:, jnp.array([0])]
    ),
    "behind others": attended(
        lambda p, token, h: in_front(p, jnp.concatenate([h[:, 1:], token, h[:, :1]], 1))[:, 2:3]
    ),
}


def scales(p: Params, h: Array) -> tuple[Array, Array, Array]:
    """Queries, keys and values of two scales, side by side."""
    both = [(h @ p[name]).reshape(*h.shape[:-1], 3, 2) for name in ("near", "far")]
    q, k, v = jnp.moveaxis(jnp.concatenate(both, -1), -2, 0)
    return jax.nn.softplus(q), jax.nn.softplus(k), v


def total(x: Array) -> Array:
    return x.sum(1, keepdims=True)


def by_sums(p: Params, h: Array) -> Array:
    q, k, v = scales(p, h)
    return q / q.sum(-1, keepdims=True) * total(k) * total(v)


def by_products(p: Params, h: Array) -> Array:
    q, k, v = scales(p, h)
    own = total(k)
    return q * total(k * total(v * own)) / (q.sum(-1, keepdims=True) * own)


GROUPS = [
    *(
        Group(f"{name} of what is joined, {what}", spellings(norm, cut), {"token": (4,)},
              composites=EXACT if name.startswith("a layer norm") else SUMS)
        for name, norm in NORMS.items() for what, cut in CUTS.items()
        if (name, what) not in {("a layer norm", "a product"), ("shares", "zeros")}
    ),
    *(
        Group(f"{name} of what is joined, {what}", spellings(gate, cut), {"token": (4,)},
              composites=EXACT)
        for name, gate in GATES.items() for what, cut in CUTS.items()
    ),
    Group("a gate beside a token", over_a_gate(1), {"token": (4,), "g": (4, 1)}, composites=EXACT),
    Group("a token over a gate", over_a_gate(-1), {"token": (4,), "g": (4, 1)}, composites=EXACT),
    Group(
        "a query of a class token", QUERIES,
        {"token": (4,), "f": (4, 4), "q": (4, 4), "k": (4, 4)}, composites=EXACT,
    ),
    Group(
        "attention by sums, of two scales", {"sums": by_sums, "products": by_products},
        {"near": (4, 6), "far": (4, 6)}, composites=EXACT,
    ),
]  # fmt: skip
