"""Feed-forward networks written with Linen, one way of building networks each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ._model import Parts, filled, model, models_of, normal

Builder = Callable[[np.random.Generator], Parts]


class Net(nn.Module):
    """A compact Linen module whose body is a function that builds its layers as it goes."""

    body: Callable[[Any], Any]

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return self.body(x)


def linen(module: nn.Module, rng: np.random.Generator, x: Any) -> Parts:
    return Parts(module.apply, filled(jax.eval_shape(module.init, jax.random.key(0), x), rng), x)


def body(*shape: int) -> Callable[[Callable[[Any], Any]], Builder]:
    """Make a builder out of a compact body and the shape of its input."""

    def builder(function: Callable[[Any], Any]) -> Builder:
        def make(rng: np.random.Generator) -> Parts:
            return linen(Net(function), rng, normal(rng, *shape))

        make.__name__ = function.__name__
        return make

    return builder


def flat(x: Array) -> Array:
    return x.reshape(x.shape[0], -1)


def batch_norm(x: Array) -> Array:
    return nn.BatchNorm(use_running_average=True)(x)


# Ways to write a module ---------------------------------------------------------------------------


class SetupMLP(nn.Module):
    def setup(self) -> None:
        self.hidden = [nn.Dense(7), nn.Dense(6)]
        self.head = nn.Dense(4)

    def __call__(self, x: Array) -> Array:
        for layer in self.hidden:
            x = nn.relu(layer(x))
        return self.head(x)


class Block(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.relu(nn.Dense(self.width)(x))


class Nested(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        for width in (7, 6):
            x = Block(width)(x)
        return nn.Dense(4, name="head")(x)


@model("linen", "piecewise_linear", "gradient")
@body(3, 5)
def mlp_compact(x):
    return nn.Dense(4)(nn.relu(nn.Dense(8)(x)))


@model("linen", "piecewise_linear")
def mlp_setup(rng):
    return linen(SetupMLP(), rng, normal(rng, 3, 5))


@model("linen", "piecewise_linear")
def mlp_sequential(rng):
    return linen(
        nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(6), nn.relu, nn.Dense(4)]),
        rng,
        normal(rng, 3, 5),
    )


@model("linen", "piecewise_linear")
def mlp_nested(rng):
    return linen(Nested(), rng, normal(rng, 3, 5))


@model("linen", "piecewise_linear", "bias_free")
@body(3, 5)
def mlp_bias_free(x):
    x = nn.relu(nn.Dense(8, use_bias=False)(x))
    return nn.Dense(4, use_bias=False)(nn.relu(nn.Dense(6, use_bias=False)(x)))


@model("linen", "has_aux", "piecewise_linear")
def mlp_mutable(rng):
    """`mutable=` makes apply return `(output, state)`: to be explained with `has_aux=True`."""

    def network(x):
        return nn.Dense(4)(nn.relu(batch_norm(nn.Dense(8)(x))))

    module = Net(network)
    _, variables, x = linen(module, rng, normal(rng, 3, 5))
    return Parts(lambda v, x: module.apply(v, x, mutable=["batch_stats"]), variables, x)


# Contractions -------------------------------------------------------------------------------------


@model("linen", "piecewise_linear")
@body(3, 4, 5)
def dense_general(x):
    x = nn.relu(nn.DenseGeneral((2, 3), axis=-1)(x))
    x = nn.relu(nn.DenseGeneral(6, axis=(-2, -1))(x))
    return nn.DenseGeneral(4, axis=(1, 2))(x)


@model("linen", "piecewise_linear")
@body(3, 4, 5)
def einsum_layers(x):
    x = nn.relu(nn.Einsum((4, 5, 6), "btd,tdf->btf")(x))
    return nn.Einsum((6, 4, 3), "bti,itc->bc", use_bias=False)(x)


@model("linen", "piecewise_linear", "conv", "gradient")
@body(3, 8, 8, 2)
def cnn_max_pool(x):
    x = nn.max_pool(nn.relu(nn.Conv(4, (3, 3))(x)), (2, 2), (2, 2))
    x = nn.relu(nn.Conv(4, (3, 3), padding="VALID")(x))
    return nn.Dense(4)(flat(x))


@model("linen", "piecewise_linear", "conv", "gradient")
@body(3, 8, 8, 2)
def cnn_average_pool(x):
    x = nn.avg_pool(nn.relu(nn.Conv(4, (3, 3), (2, 2))(x)), (2, 2), (2, 2))
    return nn.Dense(4)(flat(x))


@model("linen", "piecewise_linear", "conv")
@body(2, 7, 7, 2)
def average_pool_padded(x):
    dtype = x.dtype
    x = nn.avg_pool(nn.relu(nn.Conv(3, (3, 3))(x)), (3, 3), (2, 2), "SAME", count_include_pad=False)
    x = x.astype(dtype)
    x = nn.avg_pool(nn.relu(nn.Conv(3, (2, 2))(x)), (3, 3), (2, 2), "SAME", count_include_pad=True)
    return nn.Dense(4)(flat(x))


@model("linen", "piecewise_linear", "conv")
@body(2, 6, 6, 2)
def cnn_global_pool(x):
    x = nn.relu(nn.Conv(5, (3, 3))(x))
    return nn.Dense(4)(x.mean((1, 2))) + nn.Dense(4)(x.max((1, 2)))


@model("linen", "piecewise_linear", "conv")
@body(2, 11, 2)
def conv_1d(x):
    x = nn.relu(nn.Conv(4, (3,), padding="SAME", kernel_dilation=(2,))(x))
    x = nn.relu(nn.Conv(6, (3,), (2,), feature_group_count=2)(x))
    x = nn.relu(nn.Conv(6, (3,), feature_group_count=6, padding=[(2, 0)])(x))
    return nn.Dense(4)(flat(x))


@model("linen", "piecewise_linear", "conv")
@body(2, 4, 5, 4, 2)
def conv_3d(x):
    x = nn.relu(nn.Conv(3, (3, 2, 3), (1, 2, 1))(x))
    return nn.Dense(4)(nn.max_pool(x, (2, 2, 2), (2, 1, 2)).reshape(x.shape[0], -1))


@model("linen", "piecewise_linear", "conv")
@body(2, 4, 4, 3)
def conv_transpose(x):
    x = nn.relu(nn.ConvTranspose(4, (3, 3), (2, 2))(x))
    x = nn.ConvTranspose(2, (2, 2), (2, 2), padding="VALID", transpose_kernel=False)(x)
    return nn.Dense(4)(flat(x))


@model("linen", "piecewise_linear", "conv", "gradient")
@body(2, 6, 6, 4)
def conv_varied(x):
    x = nn.relu(nn.Conv(4, (3, 3), kernel_dilation=(2, 2))(x))
    x = nn.relu(nn.Conv(4, (3, 3), feature_group_count=2)(x))
    x = nn.relu(nn.Conv(8, (3, 3), feature_group_count=4, padding="CIRCULAR")(x))
    x = nn.relu(nn.Conv(4, (3, 3), input_dilation=(2, 2), padding=((1, 1), (1, 2)))(x))
    return nn.Dense(4)(flat(x))


# Batch norms --------------------------------------------------------------------------------------


@model("linen", "piecewise_linear", "conv", "gradient")
@body(2, 8, 8, 2)
def vgg_batch_norm(x):
    for width in (4, 6):
        x = nn.relu(batch_norm(nn.Conv(width, (3, 3))(x)))
        x = nn.max_pool(x, (2, 2), (2, 2))
    x = nn.Dropout(0.5, deterministic=True)(nn.relu(nn.Dense(8)(flat(x))))
    return nn.Dense(4)(x)


@model("linen", "piecewise_linear", "conv", "gradient")
@body(2, 6, 6, 2)
def batch_norm_before(x):
    """The padding of the convolution comes after the shift of the norm."""
    x = nn.relu(nn.Conv(4, (3, 3))(batch_norm(x)))
    x = nn.relu(nn.Conv(4, (3, 3), (2, 2), use_bias=False)(batch_norm(x)))
    return nn.Dense(4)(flat(x))


@model("linen", "conv", "gradient")
@body(2, 6, 6, 2)
def batch_norm_alone(x):
    """Between two rectifications the norm belongs to no contraction."""
    x = nn.relu(nn.Conv(4, (3, 3))(x))
    x = nn.relu(batch_norm(x))
    return nn.Dense(4)(nn.max_pool(x, (2, 2), (2, 2)).reshape(x.shape[0], -1))


@model("linen", "piecewise_linear", "conv")
@body(2, 6, 6, 3)
def standardised_input(x):
    mean, deviation = jnp.array([0.2, -0.1, 0.4], x.dtype), jnp.array([0.5, 1.5, 0.8], x.dtype)
    x = nn.relu(nn.Conv(4, (3, 3))((x - mean) / deviation))
    return nn.Dense(4)(flat(x))


# Branches -----------------------------------------------------------------------------------------


def residual(x, width, strides):
    y = nn.relu(batch_norm(nn.Conv(width, (3, 3), strides, use_bias=False)(x)))
    y = batch_norm(nn.Conv(width, (3, 3), use_bias=False)(y))
    if x.shape != y.shape:
        x = batch_norm(nn.Conv(width, (1, 1), strides, use_bias=False)(x))
    return nn.relu(x + y)


@model("linen", "piecewise_linear", "conv", "gradient")
@body(2, 8, 8, 2)
def resnet(x):
    x = nn.relu(nn.Conv(4, (3, 3))(x))
    x = residual(residual(x, 4, (1, 1)), 6, (2, 2))
    return nn.Dense(4)(x.mean((1, 2)))


@model("linen", "piecewise_linear", "conv", "gradient")
@body(2, 6, 6, 2)
def inception(x):
    branches = [
        nn.relu(nn.Conv(3, (1, 1))(x)),
        nn.relu(nn.Conv(3, (3, 3))(x)),
        nn.max_pool(x, (3, 3), padding="SAME"),
    ]
    return nn.Dense(4)(flat(jnp.concatenate(branches, axis=-1)))


@model("linen", "piecewise_linear", "conv")
@body(2, 6, 6, 2)
def densenet(x):
    for _ in range(3):
        x = jnp.concatenate([x, nn.Conv(2, (3, 3))(nn.relu(batch_norm(x)))], axis=-1)
    return nn.Dense(4)(nn.relu(x).mean((1, 2)))


@model("linen", "conv", "resize")
@body(2, 8, 8, 2)
def unet(x):
    skip = nn.relu(nn.Conv(3, (3, 3))(x))
    low = nn.relu(nn.Conv(4, (3, 3))(nn.avg_pool(skip, (2, 2), (2, 2))))
    up = jax.image.resize(low, (*skip.shape[:3], 4), "bilinear")
    near = jax.image.resize(low, (*skip.shape[:3], 4), "nearest")
    return nn.Conv(3, (3, 3))(jnp.concatenate([skip, up, near], axis=-1)).mean((1, 2))


@model("linen", "piecewise_linear", "gradient")
@body(3, 5)
def module_twice(x):
    shared = nn.Dense(5)
    return nn.Dense(4)(nn.relu(shared(nn.relu(shared(x)))) + shared(x))


class Doubling(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.relu(nn.Dense(6)(x))


@model("linen", "piecewise_linear", "calls")
@body(3, 5)
def linen_jit(x):
    return nn.Dense(4)(nn.jit(Doubling)()(x))


@model("linen", "piecewise_linear", "calls", "gradient")
@body(3, 5)
def linen_remat(x):
    x = nn.remat(Doubling)()(x)
    return nn.Dense(4)(nn.remat(Doubling)()(x) + x)


class Tanh(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        return jnp.tanh(nn.Dense(5)(x))


@model("linen", "activation")
@body(3, 4, 5)
def linen_vmap(x):
    """One dense layer for each of four positions."""
    mapped = nn.vmap(Tanh, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=1)
    return nn.Dense(4)(mapped()(x).sum(0))


@model("linen", "activation", "gradient")
@body(3, 5)
def activations(x):
    """Every activation of the framework, each after its own layer."""
    functions = (
        *(nn.relu, nn.gelu, nn.silu, nn.elu, nn.selu, nn.celu, nn.leaky_relu, nn.softplus),
        *(
            nn.hard_swish,
            nn.hard_tanh,
            nn.sigmoid,
            nn.soft_sign,
            nn.log_sigmoid,
            nn.relu6,
            jnp.tanh,
        ),
        *(lambda x: nn.gelu(x, approximate=False), jnp.sin, jnp.square, jnp.abs, jnp.expm1),
    )
    return nn.Dense(4)(sum(function(nn.Dense(6)(x)) for function in functions))


MODELS = models_of(globals())
