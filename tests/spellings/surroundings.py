"""What may stand before a piece of a network, and after it: moves, scales, gates, norms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

Front = Callable[[Mapping[str, Any], Array], Array]


def dense(p: Mapping[str, Any], x: Array) -> Array:
    return x @ p["entry"] + p["entry_bias"]


def second(p: Mapping[str, Any], x: Array) -> Array:
    return x @ p["second"]


def moved(p: Mapping[str, Any], x: Array) -> Array:
    h, k = dense(p, x), x.shape[-1] // 2
    return jnp.concatenate([h[..., k:], h[..., :k]], -1)


def cut(p: Mapping[str, Any], x: Array) -> Array:
    both, k = x @ jnp.concatenate([p["entry"], p["second"]], 1), x.shape[-1] // 2
    return both[..., k : k + x.shape[-1]]


def beside(p: Mapping[str, Any], x: Array) -> Array:
    k = x.shape[-1] // 2
    return jnp.concatenate([dense(p, x)[..., :k], second(p, x)[..., k:]], -1)


def turned(p: Mapping[str, Any], x: Array) -> Array:
    h = dense(p, x)
    return jnp.swapaxes(h.reshape(*h.shape[:-1], -1, 1), -1, -2).reshape(h.shape)[..., ::-1]


def picked(p: Mapping[str, Any], x: Array) -> Array:
    last = x.shape[-1] - 1
    return dense(p, x)[..., jnp.asarray([last, *range(last)])]


def rms(h: Array) -> Array:
    return h * jax.lax.rsqrt((h * h).mean(-1, keepdims=True) + 1e-3)


FRONTS: dict[str, Front] = {
    "dense": dense,
    "moved": moved,
    "cut": cut,
    "beside": beside,
    "beside, a bias": lambda p, x: beside(p, x) + p["entry_bias"],
    "turned": turned,
    "picked": picked,
    "negated": lambda p, x: -dense(p, x),
    "from one": lambda p, x: 1 - dense(p, x),
    "divided": lambda p, x: dense(p, x) / 1.7,
    "less a number": lambda p, x: dense(p, x) - 0.5,
    "gated": lambda p, x: dense(p, x) * jax.nn.sigmoid(second(p, x)),
    "rectified": lambda p, x: jax.nn.relu(dense(p, x)),
    "a residual": lambda p, x: x + dense(p, x),
    "halves": lambda p, x: dense(p, x) / 2 + dense(p, x) / 2,
    "normed": lambda p, x: rms(dense(p, x)),
    "the larger": lambda p, x: jnp.maximum(dense(p, x), second(p, x)),
    "so far": lambda p, x: jnp.cumsum(dense(p, x), -1),
    "a checkpoint": lambda p, x: jax.checkpoint(dense)(dict(p), x),
}


Back = Callable[[Array], Array]


def halves_swapped(y: Array) -> Array:
    k = y.shape[-1] // 2
    return jnp.concatenate([y[..., k:], y[..., :k]], -1)


BACKS: dict[str, Back] = {
    "nothing": lambda y: y,
    "swapped": halves_swapped,
    "negated": lambda y: -y,
    "from one": lambda y: 1 - y,
    "scaled": lambda y: y * 1.7,
    "less a number": lambda y: y - 0.3,
    "twice": lambda y: y + y,
    "in parts": lambda y: jnp.concatenate([y[..., i : i + 1] for i in range(y.shape[-1])], -1),
    "a residual": lambda y: y + jnp.tanh(y),
    "squared": lambda y: y * y,
    "rectified": jax.nn.relu,
    "a mean": lambda y: y.mean(-1, keepdims=True) + jnp.zeros_like(y),
    "normed": rms,
    "so far": lambda y: jnp.cumsum(y, -1),
    "a checkpoint": jax.checkpoint(jnp.sin),
}


class Place(NamedTuple):
    """What stands before a piece, and what after it."""

    front: Front = dense
    back: Back = BACKS["nothing"]


BETWEEN_LAYERS = Place()
