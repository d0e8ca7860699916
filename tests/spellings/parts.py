"""Layers in parts: halves with a bias each, numbers out of arrays, neighbours, powers."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .group import EVERY, EXACT, Group, Params

NODES = {"w": (4, 4), "sent": (4, 1), "received": (4, 1)}
AFFINE = {"w": (4, 4), "scale": (4,), "bias": (4,)}
HALVES = slice(None, 2), slice(2, None)
relu = jax.nn.relu


def by_halves(
    scaled: bool, cut: Callable[[Array], list[Array]]
) -> Callable[[Params, Array], Array]:
    def f(p: Params, h: Array) -> Array:
        ys = cut(h @ p["w"])
        ys = [y * p["scale"][s] for y, s in zip(ys, HALVES, strict=True)] if scaled else ys
        rows = zip(ys, HALVES, strict=True)
        return jnp.concatenate([relu(y + p["bias"][s]) for y, s in rows], -1)

    return f


def at_once(scaled: bool) -> Callable[[Params, Array], Array]:
    return lambda p, h: relu((h @ p["w"]) * (p["scale"] if scaled else 1) + p["bias"])


def apart(scaled: bool) -> Callable[[Params, Array], Array]:
    def f(p: Params, h: Array) -> Array:
        ys = [(h @ p["w"][:, s]) * (p["scale"][s] if scaled else 1) + p["bias"][s] for s in HALVES]
        return jnp.concatenate([relu(y) for y in ys], -1)

    return f


def in_halves(scaled: bool) -> dict[str, Callable[[Params, Array], Array]]:
    return {
        "at once": at_once(scaled),
        "apart": apart(scaled),
        "slices": by_halves(scaled, lambda y: [y[..., s] for s in HALVES]),
        "split": by_halves(scaled, lambda y: jnp.split(y, 2, -1)),
    }


def rows_by_step(p: Params, h: Array) -> Array:
    y = h @ p["w"]
    return jnp.stack([relu(y[:, t] * p["scale"] + p["bias"]) for t in range(3)], 1)


# -- numbers of an array as weights of others -----------------------------------------------------


def router(p: Params, h: Array) -> Array:
    return jax.nn.softmax(h.mean((0, 1)) @ p["router"])


MIXED = {
    "in an array": lambda p, h: jnp.einsum(
        "k,kbtf->btf", router(p, h), jnp.stack([h, relu(h @ p["w"])])
    ),
    "number by number": lambda p, h: router(p, h)[0] * h + router(p, h)[1] * relu(h @ p["w"]),
    "unpacked": lambda p, h: sum(
        (w * y for w, y in zip(router(p, h), (h, relu(h @ p["w"])), strict=True)),
        jnp.zeros_like(h),
    ),
    "kept axes": lambda p, h: (
        router(p, h)[:1] * h + router(p, h)[1:].reshape(1, 1, 1) * relu(h @ p["w"])
    ),
}
FIRST_NUMBER = {
    "spread": lambda p, h: jnp.broadcast_to(h[:1, :1, :1], h.shape) * (h @ p["w"]),
    "one number": lambda p, h: h[0, 0, 0] * (h @ p["w"]),
    "one axis": lambda p, h: h[:1, :1, :1] * (h @ p["w"]),
    "dynamic": lambda p, h: lax.dynamic_index_in_dim(h.ravel(), 0, 0, False) * (h @ p["w"]),
}

# -- sums over neighbours, each divided by a root of its degree -----------------------------------

NEIGHBOURS = np.asarray([[1, 1, 0], [1, 1, 1], [0, 1, 1]], float)
DEGREES = NEIGHBOURS.sum(1)[:, None]
TO, FROM = (np.asarray(i) for i in np.nonzero(NEIGHBOURS))


def to_nodes(messages: Array) -> Array:
    return jax.vmap(lambda m: jax.ops.segment_sum(m, TO, 3))(messages)


GRAPH = {
    "a matrix": lambda p, h: relu(
        (NEIGHBOURS / np.sqrt(DEGREES * DEGREES.T)) @ (h @ p["w"]) + p["bias"]
    ),
    "edges": lambda p, h: relu(
        to_nodes((h @ p["w"])[:, FROM] / np.sqrt(DEGREES[FROM] * DEGREES[TO])) + p["bias"]
    ),
    "nodes": lambda p, h: relu(
        to_nodes(((h @ p["w"]) / np.sqrt(DEGREES))[:, FROM]) / np.sqrt(DEGREES) + p["bias"]
    ),
}

# -- means over neighbours, weighted by exponentials or gates -------------------------------------


def scores(p: Params, h: Array) -> tuple[Array, Array]:
    y = h @ p["w"]
    sent, received = (y @ p[name] for name in ("sent", "received"))
    return y, jax.nn.leaky_relu(sent[:, FROM] + received[:, TO], 0.2)[..., 0]


def among_all(p: Params, h: Array) -> Array:
    y = h @ p["w"]
    s = jax.nn.leaky_relu((y @ p["sent"])[:, None, :, 0] + y @ p["received"], 0.2)
    return jax.nn.softmax(jnp.where(NEIGHBOURS > 0, s, -jnp.inf), -1) @ y


def shares_first(weights: Callable[[Array], Array], stabiliser: float = 0.0):  # type: ignore
    def f(p: Params, h: Array) -> Array:
        y, s = scores(p, h)
        e = weights(s)
        share = e / (to_nodes(e)[:, TO] + stabiliser)
        return to_nodes(share[..., None] * y[:, FROM])

    return f


def divided_last(weights: Callable[[Array], Array], stabiliser: float = 0.0):  # type: ignore
    def f(p: Params, h: Array) -> Array:
        y, s = scores(p, h)
        e = weights(s)
        return to_nodes(e[..., None] * y[:, FROM]) / (to_nodes(e) + stabiliser)[..., None]

    return f


def in_place(weights: Callable[[Array], Array]) -> Callable[[Params, Array], Array]:
    def f(p: Params, h: Array) -> Array:
        y, s = scores(p, h)
        e = weights(s)
        below = jnp.zeros(h.shape[:2]).at[:, TO].add(e)
        return jnp.zeros_like(y).at[:, TO].add(e[..., None] * y[:, FROM]) / below[..., None]

    return f


def from_the_largest(s: Array) -> Array:
    largest = jax.vmap(lambda row: jax.ops.segment_max(row, TO, 3))(s)
    return jnp.exp(s - largest[:, TO])


ATTENDED = {
    "among all": among_all,
    "shares first": shares_first(jnp.exp),
    "from the largest": shares_first(from_the_largest),
    "divided last": divided_last(jnp.exp),
    "divided last, from the largest": divided_last(from_the_largest),
    "in place": in_place(jnp.exp),
}
GATED = {
    "shares first": shares_first(jax.nn.sigmoid, 1e-6),
    "divided last": divided_last(jax.nn.sigmoid, 1e-6),
}

OVER_SUMS = {
    "spread": lambda p, h: p["w"][:3] / jnp.broadcast_to(h.sum(-1, keepdims=True), h.shape),
    "axes of one": lambda p, h: p["w"][:3] / h.sum(-1, keepdims=True),
    "reciprocal": lambda p, h: p["w"][:3] * (1 / h.sum(-1, keepdims=True)),
    "vmap": lambda p, h: jax.vmap(lambda r: p["w"][:3] / r.sum(-1, keepdims=True))(h),
}
TO_POWERS = {
    "spread": lambda p, h: (p["w"][:3] ** 2) ** jnp.broadcast_to(h[..., :1], h.shape),
    "axes of one": lambda p, h: (p["w"][:3] ** 2) ** h[..., :1],
}
ANGLES = {
    "spread": lambda p, h: jnp.arctan2(p["w"][:3], jnp.broadcast_to(h[..., :1], h.shape)),
    "axes of one": lambda p, h: jnp.arctan2(p["w"][:3], h[..., :1]),
}

POWERS = {
    "ones": lambda p, h: jnp.stack([jnp.ones_like(h), h, h**2], -1),
    "to the zeroth": lambda p, h: jnp.stack([h**k for k in range(3)], -1),
    "from the highest": lambda p, h: jnp.stack([h ** (2 - k) for k in range(3)], -1)[..., ::-1],
}

GROUPS = (
    Group("constants over sums", OVER_SUMS, {"w": (4, 4)}, None, EXACT),
    Group("constants to powers", TO_POWERS, {"w": (4, 4)}, None, EXACT),
    Group("angles with constants", ANGLES, {"w": (4, 4)}, None, EXACT),
    Group("powers", POWERS, {}, None, EXACT),
    Group("halves with a bias each", in_halves(scaled=False), AFFINE, None, EVERY),
    Group("halves with a batch norm each", in_halves(scaled=True), AFFINE, None, EVERY),
    Group(
        "steps with a batch norm each",
        {
            "at once": at_once(scaled=True),
            "by rows": rows_by_step,
            "map": lambda p, h: jnp.swapaxes(
                lax.map(lambda row: at_once(True)(p, row), jnp.swapaxes(h, 0, 1)), 0, 1
            ),
        },
        AFFINE,
        None,
        EVERY,
    ),
    Group("numbers of a softmax", MIXED, {"router": (4, 2), "w": (4, 4)}, None, EXACT),
    Group("the first number", FIRST_NUMBER, {"w": (4, 4)}, None, EXACT),
    Group("attention to neighbours", ATTENDED, NODES, None, EXACT),
    Group("gated neighbours", GATED, NODES, None, EXACT),
    Group("degrees of a graph", GRAPH, {"w": (4, 4), "bias": (4,)}, None, EXACT),
)
