"""Softmaxes, norms and products with moves by constant indices between their parts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .group import SUMS, Group, function, hold, shares, signal
from .softmaxes import WIDE, held, of


def permutation(n: int) -> np.ndarray:
    return np.random.default_rng(n).permutation(n)


def permuted(x: Array) -> Array:
    return x[..., permutation(x.shape[-1])]


def back(x: Array) -> Array:
    return jnp.take(x, np.argsort(permutation(x.shape[-1])), -1)


def scattered(x: Array) -> Array:
    return jnp.zeros_like(x).at[..., np.argsort(permutation(x.shape[-1]))].set(x)


def in_halves(x: Array) -> Array:
    y = jnp.zeros_like(x).at[..., :2].set(x[..., :2])
    return y.at[..., 2:].set(x[..., 2:])


def updated(x: Array) -> Array:
    first = lax.dynamic_update_slice(jnp.zeros_like(x), x[..., :1], (0, 0, 0))
    return lax.dynamic_update_slice(first, x[..., 1:], (0, 0, 1))


def padded(x: Array) -> Array:
    return jnp.pad(x, ((0, 0), (0, 0), (1, 2)))[..., 1:-2]


def tiled(x: Array) -> Array:
    return jnp.tile(x, (1, 1, 2))[..., : x.shape[-1]]


def window(x: Array) -> Array:
    cut = jax.vmap(lambda i: lax.dynamic_slice_in_dim(x, i, 1, -1)[..., 0], out_axes=-1)
    return cut(np.arange(x.shape[-1]))


ROUND_TRIPS = {
    "permuted and back": lambda x: back(permuted(x)),
    "scattered and back": lambda x: back(scattered(x)),
    "set in halves": in_halves,
    "updated in two": updated,
    "padded and cut": padded,
    "tiled and cut": tiled,
    "repeated and cut": lambda x: jnp.repeat(x, 2, -1)[..., ::2],
    "a slice at a time": window,
    "stacked columns": lambda x: jnp.stack([x[..., i] for i in range(x.shape[-1])], -1),
    "rolled and back": lambda x: jnp.roll(jnp.roll(x, 1, -1), -1, -1),
}
"""Moves at whose end every number is back in its place."""


def total(e: Array) -> Array:
    return e.sum(-1, keepdims=True)


def columns_added(e: Array) -> Array:
    return sum(e[..., i : i + 1] for i in range(e.shape[-1]))  # type: ignore[return-value]


SOFTMAX = {
    "jax.nn": jax.nn.softmax,
    **{
        name: (lambda s, m=m: m(jnp.exp(s)) / total(jnp.exp(s)))  # type: ignore[misc]
        for name, m in ROUND_TRIPS.items()
    },
    "logits permuted": lambda s: back(jnp.exp(permuted(s)) / total(jnp.exp(s))),
    "weights permuted": lambda s: back(permuted(jnp.exp(s)) / total(jnp.exp(s))),
    "weights scattered": lambda s: back(scattered(jnp.exp(s)) / total(jnp.exp(s))),
    "sum of permuted": lambda s: jnp.exp(s) / total(permuted(jnp.exp(s))),
    "sum of scattered": lambda s: jnp.exp(s) / total(scattered(jnp.exp(s))),
    "sum of tiled": lambda s: jnp.exp(s) / (total(jnp.tile(jnp.exp(s), 2)) / 2),
    "sum of padded": lambda s: jnp.exp(s) / total(jnp.pad(jnp.exp(s), ((0, 0), (0, 0), (1, 2)))),
    "sum of halves": lambda s: (lambda e: e / (total(e[..., :2]) + total(e[..., 2:])))(jnp.exp(s)),
    "sum written out": lambda s: jnp.exp(s) / columns_added(jnp.exp(s)),
    "sum of columns of logits": lambda s: (
        jnp.exp(s) / sum(jnp.exp(s[..., i : i + 1]) for i in range(s.shape[-1]))
    ),
    "expm1 and one": lambda s: (jnp.expm1(s) + 1) / total(jnp.expm1(s) + 1),
}

ONE = {
    "jax.nn": lambda s: jax.nn.softmax(s)[..., 1],
    "exponentials": lambda s: (lambda e: e[..., 1] / e.sum(-1))(jnp.exp(s)),
    "exp of a difference": lambda s: jnp.exp(s[..., 1] - jax.nn.logsumexp(s, -1)),
    "exp of log": lambda s: jnp.exp(jnp.log(jax.nn.softmax(s)[..., 1])),
    "exp of log_softmax": lambda s: jnp.exp(jax.nn.log_softmax(s)[..., 1]),
    "exp of all logs": lambda s: jnp.exp(jnp.log(jax.nn.softmax(s)))[..., 1],
}

ODDS = {
    "difference": lambda s: s[..., :1] - s[..., 1:2],
    "log of a quotient": lambda s: jnp.log(
        jax.nn.softmax(s)[..., :1] / jax.nn.softmax(s)[..., 1:2]
    ),
    "difference of logs": lambda s: (
        jnp.log(jax.nn.softmax(s)[..., :1]) - jnp.log(jax.nn.softmax(s)[..., 1:2])
    ),
    "of log_softmax": lambda s: jax.nn.log_softmax(s)[..., :1] - jax.nn.log_softmax(s)[..., 1:2],
    "log of exponentials": lambda s: jnp.log(jnp.exp(s[..., :1]) / jnp.exp(s[..., 1:2])),
}


def root(x: Array) -> Array:
    return jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-3)


NORM = {
    "plain": lambda p, x: x / root(x),
    **{name: (lambda p, x, m=m: m(x) / root(x)) for name, m in ROUND_TRIPS.items()},  # type: ignore[misc]
    "permuted": lambda p, x: back(permuted(x) / root(x)),
    "scattered": lambda p, x: back(scattered(x) / root(x)),
    "root of permuted": lambda p, x: x / root(permuted(x)),
}


def two(p, x):  # type: ignore[no-untyped-def]
    return (x @ p["w"]) * (x @ p["v"])


PRODUCT = {
    "plain": lambda p, x: two(p, x) * x,
    **{name: (lambda p, x, m=m: m(two(p, x)) * x) for name, m in ROUND_TRIPS.items()},  # type: ignore[misc]
    "permuted": lambda p, x: back(permuted(two(p, x)) * permuted(x)),
    "reversed": lambda p, x: jnp.flip(jnp.flip(two(p, x), -1) * x[..., ::-1], -1),
    "negated before": lambda p, x: back(permuted(-((-(x @ p["w"])) * (x @ p["v"]))) * permuted(x)),
    "negated after": lambda p, x: back(-(-permuted(two(p, x)) * permuted(x))),
    "scaled": lambda p, x: back(0.5 * (permuted(2 * two(p, x)) * permuted(x))),
    "in halves": lambda p, x: jnp.concatenate(
        [two(p, x)[..., :2] * x[..., :2], two(p, x)[..., 2:] * x[..., 2:]], -1
    ),
}

GATE = {
    "plain": lambda p, x: jax.nn.sigmoid(x) * (x @ p["w"]),
    **{
        name: (lambda p, x, m=m: m(jax.nn.sigmoid(x)) * (x @ p["w"]))  # type: ignore[misc]
        for name, m in ROUND_TRIPS.items()
    },
    "permuted": lambda p, x: back(permuted(jax.nn.sigmoid(x)) * permuted(x @ p["w"])),
}

SQUARE = {"w": (4, 4), "v": (4, 4)}
GROUPS = (
    Group("a softmax with moves inside", of(SOFTMAX), WIDE, held(SOFTMAX), SUMS, rounding=1e-8),
    Group("a probability of one", of(ONE), WIDE, held(ONE), SUMS),
    Group(
        "log odds",
        of(ODDS),
        WIDE,
        lambda p, h, gates: ODDS["difference"](h @ p["kernel"]),
        ("Zero", "AttnLRP", "CPLRP"),
    ),
    Group("a norm with moves inside", NORM, {}, lambda p, h, gates: h / hold(root(h)), SUMS),
    Group(
        "a product with moves inside",
        PRODUCT,
        SQUARE,
        lambda p, h, gates: None if gates else shares(h @ p["w"], h @ p["v"], h),
        SUMS,
    ),
    Group(
        "a gate with moves inside",
        GATE,
        {"w": (4, 4)},
        lambda p, h, gates: signal(function(jax.nn.sigmoid, h), h @ p["w"], gates),
        SUMS,
    ),
)  # fmt: skip
