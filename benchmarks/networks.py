"""The networks that are measured, with random He weights: the time does not depend on them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Spec = Sequence[tuple[Any, ...]]


@dataclass(frozen=True)
class Network:
    """A network of one input.

    Attributes:
        apply: from parameters and a batch of inputs to logits.
        init: from a key to parameters.
        shape: of one input.
        family: "plain" (dense), "conv" or "attention": which composites fit.
        layers: for chains of layers what they are, so that other frameworks can rebuild them.
    """

    apply: Callable[[Any, jax.Array], jax.Array]
    init: Callable[[jax.Array], Any]
    shape: tuple[int, ...]
    family: str
    layers: Spec = ()


# -- chains of layers -------------------------------------------------------------------------

_DIGITS = (32, 64, "pool", 64, "pool")
_LAST = (*(512,) * 3, "pool")
_VGG16 = (64, 64, "pool", 128, 128, "pool", *(256,) * 3, "pool", *_LAST, *_LAST)


def _stages(*widths: Any) -> list[tuple[Any, ...]]:
    layers: list[tuple[Any, ...]] = []
    for width in widths:
        layers += [("pool",)] if width == "pool" else [("conv", width), ("relu",)]
    return layers


def head(*widths: int) -> list[tuple[Any, ...]]:
    hidden = [layer for width in widths[:-1] for layer in (("dense", width), ("relu",))]
    return [("flatten",), *hidden, ("dense", widths[-1])]


def _apply_chain(layers: Spec, params: Sequence[Any], x: jax.Array) -> jax.Array:
    weights = iter(params)
    for kind, *_ in layers:
        if kind == "conv":
            w, b = next(weights)
            numbers = ("NHWC", "HWIO", "NHWC")
            x = jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers) + b
        elif kind == "dense":
            w, b = next(weights)
            x = x @ w + b
        elif kind == "relu":
            x = jax.nn.relu(x)
        elif kind == "pool":
            x = nn.max_pool(x, (2, 2), (2, 2))
        else:
            x = x.reshape(x.shape[0], -1)
    return x


def _init_chain(layers: Spec, shape: tuple[int, ...], key: jax.Array) -> list[Any]:
    params = []
    for kind, *width in layers:
        if kind in ("conv", "dense"):
            key, for_weights, for_biases = jax.random.split(key, 3)
            window = (3, 3) if kind == "conv" else ()
            make = jax.nn.initializers.he_normal()
            weights = make(for_weights, (*window, shape[-1], *width))
            params.append((weights, 0.01 * jax.random.normal(for_biases, tuple(width))))
            shape = (*shape[:-1], *width)
        elif kind == "pool":
            shape = (shape[0] // 2, shape[1] // 2, shape[2])
        elif kind == "flatten":
            shape = (functools.reduce(lambda a, b: a * b, shape),)
    return params


def chain(shape: tuple[int, ...], layers: Spec, family: str) -> Network:
    return Network(
        functools.partial(_apply_chain, layers),
        functools.partial(_init_chain, layers, shape),
        shape,
        family,
        layers,
    )


# -- residual and depthwise -------------------------------------------------------------------

_Conv = functools.partial(nn.Conv, use_bias=False, kernel_init=nn.initializers.he_normal())
_Norm = functools.partial(nn.BatchNorm, use_running_average=True)


class ResNet(nn.Module):
    """ResNet-18 (two 3x3 convolutions a block) or ResNet-50 (bottlenecks)."""

    blocks: tuple[int, ...]
    bottleneck: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(_Norm()(_Conv(64, (7, 7), (2, 2), padding=3)(x)))
        x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        for stage, blocks in enumerate(self.blocks):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                x = self._block(x, 64 * 2**stage, stride)
        return nn.Dense(1000)(x.mean((1, 2)))

    def _block(self, x: jax.Array, width: int, stride: int) -> jax.Array:
        out = 4 * width if self.bottleneck else width
        if self.bottleneck:
            y = nn.relu(_Norm()(_Conv(width, (1, 1))(x)))
            y = nn.relu(_Norm()(_Conv(width, (3, 3), (stride, stride))(y)))
            y = _Norm()(_Conv(out, (1, 1))(y))
        else:
            y = nn.relu(_Norm()(_Conv(width, (3, 3), (stride, stride))(x)))
            y = _Norm()(_Conv(width, (3, 3))(y))
        if x.shape != y.shape:
            x = _Norm()(_Conv(out, (1, 1), (stride, stride))(x))
        return nn.relu(x + y)


class EfficientNetLite0(nn.Module):
    """Inverted bottlenecks with depthwise convolutions."""

    # repeats, kernel, stride of the first, expansion, features
    stages: tuple[tuple[int, ...], ...] = (
        (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
    )  # fmt: skip

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu6(_Norm()(_Conv(32, (3, 3), 2)(x)))
        for repeats, kernel, stride, expansion, features in self.stages:
            for block in range(repeats):
                y, width = x, expansion * x.shape[-1]
                if expansion > 1:
                    y = nn.relu6(_Norm()(_Conv(width, (1, 1))(y)))
                step = stride if block == 0 else 1
                y = _Conv(width, (kernel, kernel), step, feature_group_count=width)(y)
                y = _Norm()(_Conv(features, (1, 1))(nn.relu6(_Norm()(y))))
                x = x + y if x.shape == y.shape else y
        x = nn.relu6(_Norm()(_Conv(1280, (1, 1))(x)))
        return nn.Dense(1000)(x.mean((1, 2)))


# -- sequences --------------------------------------------------------------------------------


class ViT(nn.Module):
    """A vision transformer on 16x16 patches, its attention written out."""

    width: int
    depth: int
    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(self.width, (16, 16), (16, 16), padding="VALID")(x)
        x = x.reshape(x.shape[0], -1, self.width)
        token = self.param("class", nn.initializers.normal(0.02), (1, 1, self.width))
        x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, self.width)), x], 1)
        x = x + self.param("positions", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        for _ in range(self.depth):
            x = x + nn.Dense(self.width)(_attend(nn.Dense(3 * self.width)(_layer_norm(x)), self))
            y = nn.gelu(nn.Dense(4 * self.width)(_layer_norm(x)), approximate=False)
            x = x + nn.Dense(self.width)(y)
        return nn.Dense(1000)(_layer_norm(x)[:, 0])


def _layer_norm(x: jax.Array) -> jax.Array:
    return nn.LayerNorm(epsilon=1e-6)(x)


def _attend(qkv: jax.Array, model: Any) -> jax.Array:
    n, length, _ = qkv.shape
    q, k, v = jnp.moveaxis(qkv.reshape(n, length, 3, model.heads, -1), (2, 3), (0, 2))
    weights = nn.softmax(q @ jnp.swapaxes(k, -1, -2) / q.shape[-1] ** 0.5)
    return jnp.swapaxes(weights @ v, 1, 2).reshape(n, length, -1)


class Llama(nn.Module):
    """Blocks of a Llama on embedded tokens: RMS norms, rotary positions, SwiGLU."""

    width: int = 512
    depth: int = 6
    heads: int = 8

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dense = functools.partial(nn.Dense, use_bias=False)
        n, length, _ = x.shape
        hidden = 8 * self.width // 3 // 64 * 64
        causal = jnp.tril(jnp.ones((length, length), bool))
        for _ in range(self.depth):
            qkv = dense(3 * self.width)(nn.RMSNorm()(x))
            q, k, v = jnp.moveaxis(qkv.reshape(n, length, 3, self.heads, -1), (2, 3), (0, 2))
            scores = _rotate(q) @ jnp.swapaxes(_rotate(k), -1, -2) / q.shape[-1] ** 0.5
            y = nn.softmax(jnp.where(causal, scores, -1e9)) @ v
            x = x + dense(self.width)(jnp.swapaxes(y, 1, 2).reshape(n, length, -1))
            y = nn.RMSNorm()(x)
            x = x + dense(self.width)(nn.silu(dense(hidden)(y)) * dense(hidden)(y))
        return dense(1000)(nn.RMSNorm()(x)[:, -1])


def _rotate(x: jax.Array) -> jax.Array:
    half = x.shape[-1] // 2
    frequencies = 10000.0 ** (-jnp.arange(half) / half)
    angles = jnp.arange(x.shape[-2])[:, None] * frequencies
    a, b = x[..., :half], x[..., half:]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1)


class LSTM(nn.Module):
    """A recurrent classifier of sequences."""

    width: int = 128

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(10)(nn.RNN(nn.OptimizedLSTMCell(self.width))(x)[:, -1])


def linen(model: nn.Module, shape: tuple[int, ...], family: str) -> Network:
    """A Linen module as a network."""

    def init(key: jax.Array) -> Any:
        return jax.jit(model.init)(key, jnp.zeros((1, *shape)))

    return Network(model.apply, init, shape, family)


_IMAGE = (224, 224, 3)

NETWORKS: dict[str, Network] = {
    "MLP": chain((784,), head(512, 512, 512, 10)[1:], "plain"),
    "MNIST CNN": chain((28, 28, 1), [*_stages(*_DIGITS), *head(128, 10)], "conv"),
    "VGG16": chain(_IMAGE, [*_stages(*_VGG16), *head(4096, 4096, 1000)], "conv"),
    "ResNet-18": linen(ResNet((2, 2, 2, 2), False), _IMAGE, "conv"),
    "ResNet-50": linen(ResNet((3, 4, 6, 3), True), _IMAGE, "conv"),
    "EfficientNet-Lite0": linen(EfficientNetLite0(), _IMAGE, "conv"),
    "ViT-Ti/16": linen(ViT(192, 12, 3), _IMAGE, "attention"),
    "Llama, 6 layers": linen(Llama(), (128, 512), "attention"),
    "LSTM": linen(LSTM(), (64, 32), "attention"),
}  # fmt: skip
