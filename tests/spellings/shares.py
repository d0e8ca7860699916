"""Shares of what is no exponential: functions that are normalised, however they are written."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

from .group import EXACT, Group, function
from .renormalised import Function, again, softmax


def sigmoid_written_out(s: Array) -> Array:
    return 1 / (1 + jnp.exp(-s))


def sigmoid_of_exponentials(s: Array) -> Array:
    return jnp.exp(s) / (1 + jnp.exp(s))


SIGMOID_SHARE: dict[str, Function] = {
    "quotient": lambda s: again(jax.nn.sigmoid(s)),
    "written out": lambda s: again(sigmoid_written_out(s)),
    "of exponentials": lambda s: again(sigmoid_of_exponentials(s)),
    "of a tanh": lambda s: again(0.5 + 0.5 * jnp.tanh(s / 2)),
    "exp of log_sigmoid": lambda s: again(jnp.exp(jax.nn.log_sigmoid(s))),
    "softmax of log_sigmoid": lambda s: softmax(jax.nn.log_sigmoid(s)),
    "softmax of a softplus": lambda s: softmax(-jax.nn.softplus(-s)),
    "softmax of a logarithm": lambda s: softmax(jnp.log(sigmoid_written_out(s))),
}

SIGMOID_SHARE_BESIDE: dict[str, Function] = {
    name: lambda s, f=f: f(s) / (0.5 + f(s).sum(-1, keepdims=True))
    for name, f in {
        "sigmoid": jax.nn.sigmoid,
        "written out": sigmoid_written_out,
        "of exponentials": sigmoid_of_exponentials,
        "exp of log_sigmoid": lambda s: jnp.exp(jax.nn.log_sigmoid(s)),
    }.items()
}

ONE_MORE_SHARE: dict[str, Function] = {
    "sum": lambda s: again(1 + jnp.exp(s)),
    "softmax of a softplus": lambda s: softmax(jax.nn.softplus(s)),
    "exp of logaddexp": lambda s: again(jnp.exp(jnp.logaddexp(s, 0.0))),
    "softmax of a logarithm": lambda s: softmax(jnp.log1p(jnp.exp(s))),
}


def into_zeros(s: Array) -> Array:
    """The two largest, normalised, where they were, of all rows in one array."""
    rows = s.reshape(-1, s.shape[-1])
    places = (jnp.arange(len(rows))[:, None], lax.top_k(rows, 2)[1])
    return jnp.zeros_like(rows).at[places].set(again(rows[places])).reshape(s.shape)


def only_two(s: Array) -> Array:
    return jnp.where(s >= lax.top_k(s, 2)[0][..., 1:], s, 0)


BEST_SIGMOIDS: dict[str, Function] = {
    "mask": lambda s: again(only_two(jax.nn.sigmoid(s))),
    "written out": lambda s: again(only_two(sigmoid_written_out(s))),
    "into zeros": lambda s: into_zeros(jax.nn.sigmoid(s)),
    "written out, into zeros": lambda s: into_zeros(sigmoid_written_out(s)),
    "one-hot": lambda s: again(
        sigmoid_written_out(s) * jax.nn.one_hot(lax.top_k(s, 2)[1], s.shape[-1]).sum(-2)
    ),
}


SPELLED: dict[str, dict[str, Function]] = {
    "share of a sigmoid": SIGMOID_SHARE,
    "share of a sigmoid beside a number": SIGMOID_SHARE_BESIDE,
    "share of one and an exponential": ONE_MORE_SHARE,
    "shares of the best two sigmoids": BEST_SIGMOIDS,
}


def group(name: str, spelled: dict[str, Function]) -> Group:
    first = next(iter(spelled.values()))
    pieces = {n: (lambda p, h, f=f: f(h)) for n, f in spelled.items()}
    return Group(name, pieces, {}, lambda p, h, gates: function(first, h), EXACT)


GROUPS = tuple(group(name, spelled) for name, spelled in SPELLED.items())
