"""Networks in NNX, Equinox and Haiku, whose modules or trees are the argument with the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import Array

from ._model import Parts, filled, model, models_of, normal


def call(module: Any, x: Any) -> Any:
    return module(x)


class NnxMLP(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List([nnx.Linear(5, 8, rngs=rngs), nnx.Linear(8, 6, rngs=rngs)])
        self.head = nnx.Linear(6, 4, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.head(x)


class NnxCNN(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
        self.project = nnx.Conv(4, 4, (1, 1), strides=2, use_bias=False, rngs=rngs)
        self.branch = nnx.Conv(4, 4, (3, 3), strides=2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, deterministic=True)
        self.head = nnx.Linear(4 * 4, 4, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = nnx.relu(self.norm(self.conv(x)))
        x = nnx.relu(self.project(x) + self.branch(x))
        x = nnx.avg_pool(x, (2, 2), (2, 2))
        return self.head(self.dropout(x.reshape(x.shape[0], -1)))


def nnx_parts(
    module: Callable[[nnx.Rngs], nnx.Module], rng: np.random.Generator, *shape: int
) -> Parts:
    shapes = nnx.eval_shape(lambda: module(nnx.Rngs(0)))
    return Parts(call, filled(shapes, rng), normal(rng, *shape))


@model("nnx", "piecewise_linear")
def mlp_nnx(rng):
    return nnx_parts(NnxMLP, rng, 3, 5)


@model("nnx", "piecewise_linear", "conv", "gradient")
def cnn_nnx(rng):
    return nnx_parts(NnxCNN, rng, 2, 8, 8, 2)


@model("nnx", "activation")
def mlp_nnx_sequential(rng):
    def module(rngs):
        first, second = nnx.Linear(5, 6, rngs=rngs), nnx.Linear(6, 6, rngs=rngs)
        return nnx.Sequential(first, nnx.silu, second, nnx.gelu, nnx.Linear(6, 4, rngs=rngs))

    return nnx_parts(module, rng, 3, 5)


@model("equinox", "piecewise_linear", "conv", requires=("equinox",))
def cnn_equinox(rng):
    import equinox as eqx

    class Network(eqx.Module):
        conv: eqx.nn.Conv2d
        head: eqx.nn.Linear

        def __call__(self, x: Array) -> Array:
            x = jax.nn.relu(self.conv(x))
            return self.head(x.reshape(-1))

    def make(key: Array) -> Network:
        return Network(eqx.nn.Conv2d(2, 3, 3, 2, 1, key=key), eqx.nn.Linear(27, 4, key=key))

    module = filled(eqx.filter_eval_shape(make, jax.random.key(0)), rng)
    return Parts(lambda m, x: jax.vmap(m)(x), module, normal(rng, 3, 2, 6, 6))


@model("equinox", "piecewise_linear", requires=("equinox",))
def mlp_equinox(rng):
    """A module with functions among its leaves is split into arrays and the rest."""
    import equinox as eqx

    arrays, rest = eqx.partition(eqx.nn.MLP(5, 4, 6, 2, key=jax.random.key(0)), eqx.is_array)
    return Parts(
        lambda m, x: jax.vmap(eqx.combine(m, rest))(x), filled(arrays, rng), normal(rng, 3, 5)
    )


@model("haiku", "piecewise_linear", "conv", requires=("haiku",))
def cnn_haiku(rng):
    import haiku as hk

    def network(x: Array) -> Array:
        x = jax.nn.relu(hk.Conv2D(3, 3, stride=2)(x))
        x = hk.avg_pool(x, (2, 2), (1, 1), "VALID")
        return hk.nets.MLP([6, 4])(hk.Flatten()(x))

    network_fn = hk.without_apply_rng(hk.transform(network))
    x = normal(rng, 3, 8, 8, 2)
    shapes = jax.eval_shape(network_fn.init, jax.random.key(0), x)
    return Parts(network_fn.apply, filled(shapes, rng), x)


MODELS = models_of(globals())
