"""What is computed twice, in code that does not keep it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

from .group import EXACT, Group, Params


def kept_softmax(p: Params, h: Array) -> Array:
    e = jnp.exp(h)
    return e / e.sum(-1, keepdims=True)


def kept_norm(p: Params, h: Array) -> Array:
    d = h - h.mean(-1, keepdims=True)
    return d / jnp.sqrt((d * d).mean(-1, keepdims=True) + 1e-5)


def kept_silu(p: Params, h: Array) -> Array:
    u = h @ p["w"]
    return u * jax.nn.sigmoid(u)


def kept_gate(p: Params, h: Array) -> Array:
    u, g = h @ p["w"], jax.nn.sigmoid(h @ p["v"])
    return g * u + (1 - g) * h


def kept_relu(p: Params, h: Array) -> Array:
    r = jax.nn.relu(h)
    return r / (r.sum(-1, keepdims=True) + 0.01)


def dense(p: Params, h: Array) -> Array:
    return h @ p["w"]


def gate(p: Params, h: Array) -> Array:
    return jax.nn.sigmoid(h @ p["v"])


SOFTMAX = {
    "kept": kept_softmax,
    "twice": lambda p, h: jnp.exp(h) / jnp.exp(h).sum(-1, keepdims=True),
    "twice, shifted": lambda p, h: (
        jnp.exp(h - h.max(-1, keepdims=True))
        / jnp.exp(h - h.max(-1, keepdims=True)).sum(-1, keepdims=True)
    ),
    "logits twice": lambda p, h: jnp.exp(2 * h / 2) / jnp.exp(2 * h / 2).sum(-1, keepdims=True),
    "once in a checkpoint": lambda p, h: (
        jnp.exp(h) / jax.checkpoint(lambda h: jnp.exp(h).sum(-1, keepdims=True))(h)
    ),
    "once in a map": lambda p, h: (
        jnp.exp(h) / lax.map(lambda z: jnp.exp(z).sum(-1, keepdims=True), h)
    ),
}
NORM = {
    "kept": kept_norm,
    "centred twice": lambda p, h: (
        (h - h.mean(-1, keepdims=True))
        / jnp.sqrt(((h - h.mean(-1, keepdims=True)) ** 2).mean(-1, keepdims=True) + 1e-5)
    ),
    "mean twice": lambda p, h: (
        (h - h.mean(-1, keepdims=True))
        * lax.rsqrt((h * h).mean(-1, keepdims=True) - h.mean(-1, keepdims=True) ** 2 + 1e-5)
    ),
    "statistic in a checkpoint": lambda p, h: (
        (h - h.mean(-1, keepdims=True))
        / jax.checkpoint(lambda h: jnp.sqrt(h.var(-1, keepdims=True) + 1e-5))(h)
    ),
    "statistic in a map": lambda p, h: (
        (h - h.mean(-1, keepdims=True))
        / lax.map(lambda z: jnp.sqrt(z.var(-1, keepdims=True) + 1e-5), h)
    ),
}
SILU = {
    "kept": kept_silu,
    "dense twice": lambda p, h: dense(p, h) * jax.nn.sigmoid(dense(p, h)),
    "einsum and matmul": lambda p, h: (
        jnp.einsum("btf,fo->bto", h, p["w"]) * jax.nn.sigmoid(dense(p, h))
    ),
    "once in a checkpoint": lambda p, h: (
        dense(p, h) * jax.nn.sigmoid(jax.checkpoint(lambda h: h @ p["w"])(h))
    ),
    "once in a jit": lambda p, h: jax.jit(lambda h: h @ p["w"])(h) * jax.nn.sigmoid(dense(p, h)),
}
HIGHWAY = {
    "kept": kept_gate,
    "gate twice": lambda p, h: gate(p, h) * dense(p, h) + (1 - gate(p, h)) * h,
    "the other of -u": lambda p, h: gate(p, h) * dense(p, h) + jax.nn.sigmoid(-h @ p["v"]) * h,
    "checkpoints": lambda p, h: (
        jax.checkpoint(gate)(p, h) * dense(p, h)
        + jax.checkpoint(lambda p, h: 1 - gate(p, h))(p, h) * h
    ),
    "rest first": lambda p, h: (1 - gate(p, h)) * h + gate(p, h) * dense(p, h),
}
SHARE = {
    "kept": kept_relu,
    "relu twice": lambda p, h: jax.nn.relu(h) / (jax.nn.relu(h).sum(-1, keepdims=True) + 0.01),
    "maximum twice": lambda p, h: (
        jnp.maximum(h, 0) / (jnp.maximum(h, 0).sum(-1, keepdims=True) + 0.01)
    ),
    "two spellings": lambda p, h: (
        jax.nn.relu(h) / (jnp.maximum(h, 0).sum(-1, keepdims=True) + 0.01)
    ),
    "sum in a checkpoint": lambda p, h: (
        jax.nn.relu(h) / jax.checkpoint(lambda h: jax.nn.relu(h).sum(-1, keepdims=True) + 0.01)(h)
    ),
    "mask": lambda p, h: h * (h > 0) / ((h * (h > 0)).sum(-1, keepdims=True) + 0.01),
}

WEIGHTS = {"w": (4, 4), "v": (4, 4)}
GROUPS = (
    Group("softmax, computed twice", SOFTMAX, {}, None, EXACT, merged=False),
    Group("layer norm, computed twice", NORM, {}, None, EXACT, merged=False),
    Group("silu, computed twice", SILU, {"w": (4, 4)}, None, EXACT, merged=False),
    Group("a highway, computed twice", HIGHWAY, WEIGHTS, None, EXACT, merged=False),
    Group("relu shares, computed twice", SHARE, {}, None, EXACT, merged=False),
)
