"""What is summed in one shape and divided in another: maps of pixels and their rows, groups."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

from .group import ANY_KIND, EXACT, Group, Params, hold


def flat(u: Array) -> Array:
    return u.reshape(u.shape[0], -1)


def one(v: Array) -> Array:
    """A number for each example, beside pixels."""
    return v[:, None, None]


SOFTMAX = {
    "over two axes": lambda u: jax.nn.softmax(u, axis=(1, 2)),
    "over rows": lambda u: jax.nn.softmax(flat(u)).reshape(u.shape),
    "summed in rows": lambda u: jnp.exp(u) / one(jnp.exp(flat(u)).sum(-1)),
    "summed in rows, the exponentials as they are": lambda u: (
        lambda e: e / one(flat(e).sum(-1))
    )(jnp.exp(u)),
    "summed in pixels": lambda u: (
        jnp.exp(flat(u)) / jnp.exp(u).sum((1, 2))[:, None]
    ).reshape(u.shape),
    "exponentials of rows": lambda u: (
        lambda e: e / e.sum((1, 2), keepdims=True)
    )(jnp.exp(flat(u)).reshape(u.shape)),
    "summed in other rows": lambda u: jnp.exp(u) / one(
        jnp.exp(u.reshape(u.shape[0], 2, 6)).sum((1, 2))
    ),
    "shifted in rows": lambda u: (
        lambda e: e / e.sum((1, 2), keepdims=True)
    )(jnp.exp(u - one(flat(u).max(-1)))),
    "by a log-sum-exp of rows": lambda u: jnp.exp(u - one(jax.nn.logsumexp(flat(u), -1))),
    "vmap": jax.vmap(lambda v: jnp.exp(v) / jnp.exp(v.reshape(-1)).sum()),
}  # fmt: skip

MEAN = {
    "over two axes": lambda u: (jax.nn.softmax(u, axis=(1, 2)) * u).sum((1, 2)),
    "over rows": lambda u: (jax.nn.softmax(flat(u)) * flat(u)).sum(-1),
    "weights of rows": lambda u: (jax.nn.softmax(flat(u)).reshape(u.shape) * u).sum((1, 2)),
    "normalised afterwards, in rows": lambda u: (
        (jnp.exp(flat(u)) * flat(u)).sum(-1) / jnp.exp(u).sum((1, 2))
    ),
    "normalised afterwards, in pixels": lambda u: (
        (jnp.exp(flat(u)).reshape(u.shape) * u).sum((1, 2)) / jnp.exp(flat(u)).sum(-1)
    ),
    "einsum": lambda u: jnp.einsum("bk,bk->b", jax.nn.softmax(flat(u)), flat(u)),
}

SHARE = {
    "over two axes": lambda u: (
        lambda r: r / (r.sum((1, 2), keepdims=True) + 0.1)
    )(jax.nn.relu(u)),
    "summed in rows": lambda u: jax.nn.relu(u) / one(jax.nn.relu(flat(u)).sum(-1) + 0.1),
    "rows and back": lambda u: jax.nn.relu(u) / one(
        jax.nn.relu(flat(u)).reshape(u.shape).sum((1, 2)) + 0.1
    ),
    "over rows": lambda u: (
        lambda r: (r / (r.sum(-1, keepdims=True) + 0.1)).reshape(u.shape)
    )(jax.nn.relu(flat(u))),
    "divided in rows": lambda u: (
        jax.nn.relu(flat(u)) / (jax.nn.relu(u).sum((1, 2))[:, None] + 0.1)
    ).reshape(u.shape),
}  # fmt: skip

NORM = {
    "over two axes": lambda u: u * lax.rsqrt((u**2).mean((1, 2), keepdims=True)),
    "squares of rows": lambda u: u * one(lax.rsqrt((flat(u) ** 2).mean(-1))),
    "over rows": lambda u: (
        flat(u) * lax.rsqrt((flat(u) ** 2).mean(-1, keepdims=True))
    ).reshape(u.shape),
    "divided in rows": lambda u: (
        flat(u) / jnp.sqrt((u**2).mean((1, 2)))[:, None]
    ).reshape(u.shape),
    "einsum": lambda u: u / one(jnp.sqrt(jnp.einsum("bk,bk->b", flat(u), flat(u)) / 12)),
}  # fmt: skip

GATED = {
    "over pixels": lambda u: u * one(jax.nn.sigmoid(u[:, 0, 0])),
    "kept axes": lambda u: u * jax.nn.sigmoid(u[:, :1, :1]),
    "in rows": lambda u: (flat(u) * jax.nn.sigmoid(u[:, 0, :1])).reshape(u.shape),
    "a gate in another shape": lambda u: u * jax.nn.sigmoid(u[:, :1, 0]).reshape(-1, 1, 1),
    "a gate in another shape, and rows": lambda u: (
        u * jax.nn.sigmoid(u[:, :1, 0].reshape(-1, 1, 1))
    ).reshape(u.shape[0], 2, 6).reshape(u.shape),
    "vmap": jax.vmap(lambda v: (v.reshape(-1) * jax.nn.sigmoid(v[0, 0])).reshape(v.shape)),
}  # fmt: skip


def centred(t: Array) -> Array:
    return (t - t.mean(-1, keepdims=True)) / jnp.sqrt(t.var(-1, keepdims=True) + 1e-5)


def pairs(t: Array) -> Array:
    return t.reshape(*t.shape[:-1], 2, -1)


def by_repetition(t: Array) -> Array:
    mean, variance = (jnp.repeat(s, 2, -1) for s in (pairs(t).mean(-1), pairs(t).var(-1)))
    return (t - mean) * lax.rsqrt(variance + 1e-5)


GROUPED = {
    "reshaped": lambda t: centred(pairs(t)).reshape(t.shape),
    "split": lambda t: jnp.concatenate([centred(part) for part in jnp.split(t, 2, -1)], -1),
    "repeated statistics": by_repetition,
    "vmap": lambda t: jax.vmap(centred, -2, -2)(pairs(t)).reshape(t.shape),
    "vmap over examples": lambda t: jax.vmap(lambda v: centred(pairs(v)).reshape(v.shape))(t),
    "reversed": lambda t: centred(pairs(t[..., ::-1])).reshape(t.shape)[..., ::-1],
}


def by_hand(t: Array) -> Array:
    parts = pairs(t)
    deviation = jnp.sqrt(parts.var(-1, keepdims=True) + 1e-5)
    return ((parts - parts.mean(-1, keepdims=True)) / hold(deviation)).reshape(t.shape)


def alone(table):  # type: ignore[no-untyped-def]
    return {how: (lambda p, h, f=f: f(h)) for how, f in table.items()}


def affine(p: Params, y: Array) -> Array:
    return y * p["scale"] + p["bias"]


GROUPS = (
    Group("softmax over pixels", alone(SOFTMAX)),
    Group("a gate over pixels", alone(GATED)),
    Group("a mean over pixels", alone(MEAN), composites=EXACT),
    Group(
        "share of pixels",
        alone(SHARE),
        reference=lambda p, u, gates: (
            jax.nn.relu(u) / hold(jax.nn.relu(u).sum((1, 2), keepdims=True) + 0.1)
        ),
    ),
    Group(
        "RMS norm over pixels",
        alone(NORM),
        reference=lambda p, u, gates: u * hold(lax.rsqrt((u**2).mean((1, 2), keepdims=True))),
    ),
    Group(
        "group norm with a bias",
        {how: (lambda p, h, f=f: affine(p, f(h))) for how, f in GROUPED.items()},
        {"scale": (4,), "bias": (4,)},
        lambda p, t, gates: affine(p, by_hand(t)),
        ANY_KIND,
    ),
)
