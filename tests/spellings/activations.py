"""Elementwise functions: each has one contribution, which takes all."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.special import erf

from .group import BY_SIGN, Group, function

Elementwise = Callable[[Array], Array]
sigmoid = jax.nn.sigmoid
C = float(np.sqrt(2 / np.pi))

FUNCTIONS: dict[str, dict[str, Elementwise]] = {
    "relu": {
        "jax.nn": jax.nn.relu,
        "maximum": lambda u: jnp.maximum(u, 0),
        "where": lambda u: jnp.where(u > 0, u, 0),
        "mask": lambda u: u * (u > 0),
        "absolute": lambda u: (u + jnp.abs(u)) / 2,
        "clip": lambda u: jnp.clip(u, 0),
        "minimum": lambda u: -jnp.minimum(-u, 0),
        "rest": lambda u: u - jnp.minimum(u, 0),
        "heaviside": lambda u: u * jnp.heaviside(u, 0),
        "select": lambda u: lax.select(u < 0, jnp.zeros_like(u), u),
        "root": lambda u: (u + jnp.sqrt(u * u)) / 2,
        "max": lambda u: jnp.stack([u, jnp.zeros_like(u)]).max(0),
        "map": lambda u: lax.map(jax.nn.relu, u),
        "sign": lambda u: u * (1 + jnp.sign(u)) / 2,
    },
    "leaky relu": {
        "jax.nn": lambda u: jax.nn.leaky_relu(u, 0.1),
        "where": lambda u: jnp.where(u > 0, u, 0.1 * u),
        "maximum": lambda u: jnp.maximum(u, 0.1 * u),
        "two relus": lambda u: jax.nn.relu(u) - 0.1 * jax.nn.relu(-u),
        "slope": lambda u: u * jnp.where(u >= 0, 1.0, 0.1),
        "sum": lambda u: 0.1 * u + 0.9 * jax.nn.relu(u),
        "absolute": lambda u: 0.55 * u + 0.45 * jnp.abs(u),
    },
    "gelu by tanh": {
        "jax.nn": jax.nn.gelu,
        "written out": lambda u: 0.5 * u * (1 + jnp.tanh(C * (u + 0.044715 * u**3))),
        "products": lambda u: u * (0.5 + 0.5 * jnp.tanh(C * u * (1 + 0.044715 * u * u))),
        "sigmoid": lambda u: u * sigmoid(2 * C * (u + 0.044715 * u**3)),
        "sum": lambda u: u / 2 + u / 2 * jnp.tanh(C * (u + 0.044715 * u * u * u)),
        "divided": lambda u: u / (1 + jnp.exp(-2 * C * (u + 0.044715 * u**3))),
    },
    "gelu": {
        "jax.nn": lambda u: jax.nn.gelu(u, approximate=False),
        "erf": lambda u: u * (1 + erf(u / np.sqrt(2))) / 2,
        "erfc": lambda u: 0.5 * u * jax.scipy.special.erfc(-u / np.sqrt(2)),
        "cdf": lambda u: u * jax.scipy.stats.norm.cdf(u),
        "sum": lambda u: u / 2 + u / 2 * erf(u * np.sqrt(0.5)),
        "checkpoint": jax.checkpoint(lambda u: u * jax.scipy.special.ndtr(u)),
    },
    "silu": {
        "jax.nn": jax.nn.silu,
        "product": lambda u: u * sigmoid(u),
        "divided": lambda u: u / (1 + jnp.exp(-u)),
        "tanh": lambda u: u * (1 + jnp.tanh(u / 2)) / 2,
        "exp": lambda u: u * jnp.exp(u) / (jnp.exp(u) + 1),
        "rest": lambda u: u - u * sigmoid(-u),
        "expit": lambda u: jax.scipy.special.expit(u) * u,
        "sigmoid from a map": lambda u: u * lax.map(sigmoid, u),
        "sigmoid from a checkpoint": lambda u: u * jax.checkpoint(sigmoid)(u),
        "scan": lambda u: lax.scan(lambda c, z: (c, z * sigmoid(z)), 0.0, u)[1],
    },
    "softplus": {
        "jax.nn": jax.nn.softplus,
        "log": lambda u: jnp.log(1 + jnp.exp(u)),
        "log1p": lambda u: jnp.log1p(jnp.exp(u)),
        "logaddexp": lambda u: jnp.logaddexp(u, 0),
        "stable": lambda u: jnp.maximum(u, 0) + jnp.log1p(jnp.exp(-jnp.abs(u))),
        "log_sigmoid": lambda u: -jax.nn.log_sigmoid(-u),
        "minus the log": lambda u: -jnp.log(sigmoid(-u)),
    },
    "sigmoid": {
        "jax.nn": sigmoid,
        "divided": lambda u: 1 / (1 + jnp.exp(-u)),
        "exp": lambda u: jnp.exp(u) / (1 + jnp.exp(u)),
        "tanh": lambda u: 0.5 * (jnp.tanh(0.5 * u) + 1),
        "rest": lambda u: 1 - sigmoid(-u),
        "reciprocal": lambda u: jnp.reciprocal(1 + jnp.exp(-u)),
        "exp of log_sigmoid": lambda u: jnp.exp(jax.nn.log_sigmoid(u)),
        "loop": lambda u: lax.fori_loop(0, 1, lambda i, v: sigmoid(v), u),
        "power": lambda u: (1 + jnp.exp(-u)) ** -1,
    },
    "tanh": {
        "jnp": jnp.tanh,
        "sigmoid": lambda u: 2 * sigmoid(2 * u) - 1,
        "exponentials": lambda u: (
            (jnp.exp(u) - jnp.exp(-u)) / (jnp.exp(u) + jnp.exp(-u))
        ),
        "sinh / cosh": lambda u: jnp.sinh(u) / jnp.cosh(u),
        "one exponential": lambda u: 1 - 2 / (jnp.exp(2 * u) + 1),
        "odd": lambda u: -jnp.tanh(-u),
        "expm1": lambda u: jnp.expm1(2 * u) / (jnp.exp(2 * u) + 1),
    },
    "elu": {
        "jax.nn": jax.nn.elu,
        "where": lambda u: jnp.where(u > 0, u, jnp.exp(jnp.minimum(u, 0)) - 1),
        "expm1": lambda u: jnp.where(u > 0, u, jnp.expm1(u)),
        "sum": lambda u: jax.nn.relu(u) + jnp.expm1(jnp.minimum(u, 0)),
        "celu": lambda u: jax.nn.celu(u, 1.0),
        "relu and exp": lambda u: jax.nn.relu(u) - jax.nn.relu(1 - jnp.exp(u)),
    },
    "mish": {
        "jax.nn": jax.nn.mish,
        "product": lambda u: u * jnp.tanh(jax.nn.softplus(u)),
        "log1p": lambda u: u * jnp.tanh(jnp.log1p(jnp.exp(u))),
        "squares": lambda u: u * ((1 + jnp.exp(u)) ** 2 - 1) / ((1 + jnp.exp(u)) ** 2 + 1),
        "checkpoint": jax.checkpoint(lambda u: jnp.tanh(jax.nn.softplus(u)) * u),
    },
    "hard swish": {
        "jax.nn": jax.nn.hard_swish,
        "relu6": lambda u: u * jax.nn.relu6(u + 3) / 6,
        "clip": lambda u: u * jnp.clip(u / 6 + 0.5, 0, 1),
        "minimum": lambda u: u * jnp.minimum(jnp.maximum(u + 3, 0), 6) / 6,
        "hard sigmoid": lambda u: u * jax.nn.hard_sigmoid(u),
    },
    "relu6": {
        "jax.nn": jax.nn.relu6,
        "clip": lambda u: jnp.clip(u, 0, 6),
        "minimum": lambda u: jnp.minimum(jax.nn.relu(u), 6),
        "maximum": lambda u: jnp.maximum(jnp.minimum(u, 6), 0),
        "difference": lambda u: jax.nn.relu(u) - jax.nn.relu(u - 6),
        "where": lambda u: jnp.where(u > 0, jnp.where(u < 6, u, 6), 0),
    },
    "squared relu": {
        "square": lambda u: jnp.square(jax.nn.relu(u)),
        "power": lambda u: jax.nn.relu(u) ** 2,
        "product": lambda u: u * jax.nn.relu(u),
        "twice": lambda u: jax.nn.relu(u) * jax.nn.relu(u),
        "where": lambda u: jnp.where(u > 0, u * u, 0),
        "einsum": lambda u: jnp.einsum("btf,btf->btf", jax.nn.relu(u), u),
    },
    "absolute value": {
        "abs": jnp.abs,
        "sign": lambda u: u * jnp.sign(u),
        "root": lambda u: jnp.sqrt(u * u),
        "where": lambda u: jnp.where(u > 0, u, -u),
        "relus": lambda u: jax.nn.relu(u) + jax.nn.relu(-u),
        "maximum": lambda u: jnp.maximum(u, -u),
    },
    "softsign": {
        "jax.nn": jax.nn.soft_sign,
        "divided": lambda u: u / (1 + jnp.abs(u)),
        "reciprocal": lambda u: u * (1 / (1 + jnp.abs(u))),
        "power": lambda u: u * (1 + jnp.abs(u)) ** -1,
        "root": lambda u: u / (1 + jnp.sqrt(u**2)),
    },
    "quick gelu": {
        "product": lambda u: u * sigmoid(1.702 * u),
        "divided": lambda u: u / (1 + jnp.exp(-1.702 * u)),
        "silu": lambda u: jax.nn.silu(1.702 * u) / 1.702,
        "tanh": lambda u: u * (0.5 + 0.5 * jnp.tanh(0.851 * u)),
        "vmap": lambda u: jax.vmap(lambda v: sigmoid(v * 1.702) * v)(u),
    },
    "selu": {
        "jax.nn": jax.nn.selu,
        "elu": lambda u: 1.0507009873554804934193349852946
        * jax.nn.elu(u, 1.6732632423543772848170429916717),
        "where": lambda u: 1.0507009873554804934193349852946 * jnp.where(
            u > 0, u, 1.6732632423543772848170429916717 * jnp.expm1(u)
        ),
        "scaled inside": lambda u: jnp.where(
            u > 0,
            1.0507009873554804934193349852946 * u,
            (1.0507009873554804934193349852946 * 1.6732632423543772848170429916717)
            * (jnp.exp(u) - 1),
        ),
        "sum": lambda u: 1.0507009873554804934193349852946 * (
            jax.nn.relu(u) + 1.6732632423543772848170429916717 * jnp.expm1(jnp.minimum(u, 0))
        ),
    },
    "exponential": {
        "exp": jnp.exp,
        "exp2": lambda u: jnp.exp2(u / np.log(2)),
        "reciprocal": lambda u: 1 / jnp.exp(-u),
        "square": lambda u: jnp.exp(u / 2) ** 2,
        "expm1": lambda u: jnp.expm1(u) + 1,
        "power": lambda u: jnp.power(np.e, u),
    },
    "a polynomial": {
        "powers": lambda u: u**3 + 2 * u**2 + u,
        "horner": lambda u: u * (1 + u * (2 + u)),
        "factored": lambda u: u * (u + 1) ** 2,
        "products": lambda u: u * u * u + 2 * u * u + u,
        "polyval": lambda u: jnp.polyval(jnp.asarray([1.0, 2.0, 1.0, 0.0]), u),
    },
    "tanh of twice": {
        "scaled": lambda u: jnp.tanh(2 * u),
        "added": lambda u: jnp.tanh(u + u),
        "subtracted": lambda u: jnp.tanh(5 * u - 3 * u),
        "divided": lambda u: jnp.tanh(u / 0.5),
        "a sigmoid": lambda u: 2 * sigmoid(4 * u) - 1,
    },
    "a bump": {
        "exp": lambda u: jnp.exp(-(u**2)),
        "reciprocal": lambda u: 1 / jnp.exp(u * u),
        "square": lambda u: jnp.exp(-u * u / 2) ** 2,
        "power": lambda u: jnp.exp(u) ** -u,
        "exp2": lambda u: jnp.exp2(-jnp.square(u) / np.log(2)),
    },
}  # fmt: skip


def hand(f: Elementwise):  # type: ignore[no-untyped-def]
    return lambda p, h, gates: function(f, h)


GROUPS = tuple(
    Group(
        name,
        {how: (lambda p, h, f=f: f(h)) for how, f in spelled.items()},
        reference=hand(next(iter(spelled.values()))),
        composites=BY_SIGN,
    )
    for name, spelled in FUNCTIONS.items()
)
