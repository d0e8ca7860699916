"""Plain functions of a tree of arrays: every call that a layer can be wrapped in."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ._model import Parts, model, models_of, normal

Builder = Callable[[np.random.Generator], Parts]


def dense(params: dict[str, Array], name: str, x: Array) -> Array:
    return x @ params[f"{name}_w"] + params[f"{name}_b"]


def plain(
    *shape: int, widths: tuple[int, ...] = (5, 6, 4)
) -> Callable[[Callable[[Any, Any], Any]], Builder]:
    """Make a builder out of `function(params, x)` with weights `0_w, 0_b, 1_w` ...."""

    def builder(function: Callable[[Any, Any], Any]) -> Builder:
        def make(rng: np.random.Generator) -> Parts:
            params: dict[str, Array] = {}
            for i, (n, m) in enumerate(pairwise(widths)):
                params[f"{i}_w"] = normal(rng, n, m, scale=n**-0.5)
                params[f"{i}_b"] = normal(rng, m, scale=0.3)
            return Parts(function, params, normal(rng, *shape))

        make.__name__ = function.__name__
        return make

    return builder


# Ways to call -------------------------------------------------------------------------------------


@model("plain", "piecewise_linear")
@plain(3, 5)
def mlp_plain(p, x):
    return dense(p, "1", jnp.maximum(dense(p, "0", x), 0))


@model("plain", "piecewise_linear", "calls")
@plain(3, 5)
def jit_nested(p, x):
    @jax.jit
    def hidden(x):
        return jax.jit(lambda x: jax.nn.relu(dense(p, "0", x)))(x)

    return jax.jit(dense, static_argnums=1)(p, "1", hidden(x))


@model("plain", "piecewise_linear", "calls", "gradient")
@plain(3, 5)
def checkpointed(p, x):
    hidden = jax.checkpoint(lambda p, x: jax.nn.relu(dense(p, "0", x)))(p, x)
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return jax.checkpoint(lambda p, x: dense(p, "1", x), policy=policy)(p, hidden)


@model("plain", "piecewise_linear", "calls", "gradient")
@plain(3, 5)
def weight_twice(p, x):
    """The weights of the first layer also read what they wrote."""
    hidden = jax.nn.relu(dense(p, "0", x))
    return dense(p, "1", hidden + jax.nn.relu((hidden @ p["0_w"].T) @ p["0_w"]))


@model("plain", "piecewise_linear", "calls")
@plain(3, 5)
def inner_vmap(p, x):
    single = jax.vmap(lambda row: jax.nn.relu(p["0_w"].T @ row + p["0_b"]))
    return jax.vmap(lambda row: row @ p["1_w"] + p["1_b"])(single(x))


@jax.custom_jvp
def straight(x):
    return x * jax.nn.sigmoid(1.5 * x)


@straight.defjvp
def _straight_jvp(primals, tangents):
    (x,), (t,) = primals, tangents
    gate = jax.nn.sigmoid(1.5 * x)
    return x * gate, t * gate * (1 + 1.5 * x * (1 - gate))


@jax.custom_vjp
def saturating(x):
    return x / (1 + jnp.abs(x))


saturating.defvjp(
    lambda x: (x / (1 + jnp.abs(x)), x), lambda x, g: (g / jnp.square(1 + jnp.abs(x)),)
)


@model("plain", "activation", "calls", "gradient")
@plain(3, 5, widths=(5, 6, 6, 4))
def custom_derivatives(p, x):
    return dense(p, "2", saturating(dense(p, "1", straight(dense(p, "0", x)))))


# Hand-written activations -------------------------------------------------------------------------


def gelu_by_hand(x):
    return 0.5 * x * (1 + jnp.tanh(0.7978845608 * (x + 0.044715 * x**3)))


def hard_swish_by_hand(x):
    return x * jnp.clip(x + 3, 0, 6) / 6


@model("plain", "activation", "gradient")
@plain(3, 5, widths=(5, 6, 6, 6, 6, 4))
def activations_by_hand(p, x):
    x = gelu_by_hand(dense(p, "0", x))
    x = dense(p, "1", x)
    x = dense(p, "2", x / (1 + jnp.exp(-x)))
    x = dense(p, "3", hard_swish_by_hand(x))
    return dense(p, "4", jnp.where(x > 0, x, 0.1 * x))


@model("plain", "activation")
@plain(3, 5, widths=(5, 6, 6, 4))
def activation_with_skip(p, x):
    """An activation that reads its input twice is still a function of one value."""
    x = dense(p, "0", x)
    x = dense(p, "1", x + jax.nn.relu(x))
    return dense(p, "2", x * x - jnp.sin(x))


# Moving numbers around ----------------------------------------------------------------------------


@model("plain", "piecewise_linear", "structural", "gradient")
@plain(3, 5, widths=(5, 6, 4))
def structural(p, x):
    x = jax.nn.relu(dense(p, "0", x))
    x = x[:, jnp.array([2, 0, 1, 1, 5, 3])] + jnp.flip(x, 1) + jnp.roll(x, 2, axis=1)
    x = jnp.pad(x, ((0, 0), (1, 2)))[:, 1:-2].reshape(-1, 2, 3).transpose(0, 2, 1).reshape(-1, 6)
    x = jnp.where(jnp.array([True, True, False, True, True, True]), x, 0.0)
    first, second = jnp.split(x, 2, axis=1)
    return dense(p, "1", jnp.stack([first, second[:, ::-1]], axis=2).reshape(-1, 6))


@model("plain", "piecewise_linear", "structural")
@plain(3, 5, widths=(5, 6, 4))
def sums(p, x):
    x = jax.nn.relu(dense(p, "0", x))
    x = jnp.cumsum(x, axis=1) - x.mean(1, keepdims=True) + jnp.tile(x[:, :3], (1, 2))
    scattered = jnp.zeros_like(x).at[:, jnp.array([0, 2, 2])].add(x[:, 1:4])
    return dense(p, "1", scattered + jnp.repeat(x[:, ::2], 2, axis=1))


@model("plain", "piecewise_linear", "structural", "dtype")
@plain(3, 5)
def casts(p, x):
    hidden = jax.nn.relu(dense(p, "0", x).astype(jnp.float32)).astype(x.dtype)
    return lax.optimization_barrier(dense(p, "1", hidden))


# Inputs and outputs -------------------------------------------------------------------------------


@model("plain", "piecewise_linear", "inputs", "gradient")
def several_inputs(rng):
    params = {
        "left": normal(rng, 4, 5),
        "right": normal(rng, 3, 5),
        "out": normal(rng, 5, 4),
    }

    def apply(p, x):
        hidden = x["left"] @ p["left"] + x["nested"][0] @ p["right"]
        return jax.nn.relu(hidden) @ p["out"]

    x = {"left": normal(rng, 3, 4), "nested": (normal(rng, 3, 3),)}
    return Parts(apply, params, x)


@model("plain", "piecewise_linear", "outputs")
@plain(3, 5)
def several_outputs(p, x):
    hidden = jax.nn.relu(dense(p, "0", x))
    return {"logits": dense(p, "1", hidden), "hidden": (hidden[:, :2], 2 * hidden)}


# Convolutions with explicit dimension numbers -----------------------------------------------------


@model("plain", "piecewise_linear", "conv", "gradient")
def conv_channels_first(rng):
    params = {
        "first": {"kernel": normal(rng, 4, 2, 3, 2), "bias": normal(rng, 4)},
        "second": {"kernel": normal(rng, 6, 2, 2, 2)},
        "head": normal(rng, 6, 4),
    }

    def apply(p, x):
        numbers = ("NCHW", "OIHW", "NCHW")
        x = lax.conv_general_dilated(
            x, p["first"]["kernel"], (2, 1), [(1, 0), (1, 2)], dimension_numbers=numbers
        )
        x = jax.nn.relu(x + p["first"]["bias"][:, None, None])
        x = lax.conv_general_dilated(
            *(x, p["second"]["kernel"], (1, 2), "VALID"),
            rhs_dilation=(1, 2),
            feature_group_count=2,
            dimension_numbers=numbers,
        )
        return jax.nn.relu(x).mean((2, 3)) @ p["head"]

    return Parts(apply, params, normal(rng, 2, 2, 7, 6))


MODELS = models_of(globals())
