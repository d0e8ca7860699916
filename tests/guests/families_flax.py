"""Guests that need flax alone: its own modules, put together as its examples are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from .guest import ATTENTION, IMAGES, Case, Guest, drawn, filled

PACKAGE = "flax"


class Encoder(nn.Module):
    """A block of flax's machine translation example, and a mean over tokens."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=2)(y, y)
        y = nn.gelu(nn.Dense(24)(nn.LayerNorm()(x)))
        return nn.Dense(3)(nn.LayerNorm()(x + nn.Dense(x.shape[-1])(y)).mean(1))


class ResNet(nn.Module):
    """A residual block of flax's ImageNet example, between its ends."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        def norm(x: Any) -> Any:
            return nn.BatchNorm(use_running_average=True)(x)

        x = nn.relu(norm(nn.Conv(6, (3, 3), use_bias=False)(x)))
        x = nn.max_pool(x, (2, 2), (2, 2))
        y = nn.relu(norm(nn.Conv(6, (3, 3), use_bias=False)(x)))
        y = norm(nn.Conv(6, (3, 3), use_bias=False)(y))
        return nn.Dense(3)(nn.relu(x + y).mean((1, 2)))


class Gated(nn.Module):
    """A decoder's MLP with a gate, behind an RMS norm."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        y = nn.RMSNorm()(x)
        return nn.Dense(3)((x + nn.Dense(8)(nn.silu(nn.Dense(12)(y)) * nn.Dense(12)(y))).mean(1))


def built(model: nn.Module, *shape: int) -> Callable[[], Case]:
    def build() -> Case:
        name = type(model).__name__
        x = drawn(name, *shape)
        shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))
        return Case(lambda params, x: model.apply(params, x), filled(shapes, name), x)

    return build


FAMILIES = (
    Guest("Flax encoder", PACKAGE, built(Encoder(), 2, 5, 8), ATTENTION),
    Guest("Flax gated MLP", PACKAGE, built(Gated(), 2, 5, 8), ATTENTION),
    Guest("Flax ResNet", PACKAGE, built(ResNet(), 2, 8, 8, 3), IMAGES),
)
