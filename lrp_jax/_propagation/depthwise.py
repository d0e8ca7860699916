"""Depthwise convolutions, and their transposes, as sums of shifted inputs times weights."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Depthwise:
    """A depthwise convolution; for equal shapes each of its ways is traced and lowered once.

    Attributes:
        numbers: which axes are which.
        strides: of the windows.
        padding: before and after each axis.
        kernel: the size of the windows.
        out: the type of the result; None: that of the input.
    """

    numbers: Any
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    kernel: tuple[int, ...]
    out: Any

    def __call__(self, x: jax.Array, w: jax.Array) -> jax.Array:
        found: jax.Array = _convolve(self, x, w)
        return found

    def transposed(self, cotangent: jax.Array, w: jax.Array, like: Any) -> jax.Array:
        """The cotangent of an input, given an array of its shape and type."""
        dtype = np.dtype(like.dtype)
        found: jax.Array = _transpose(self, tuple(like.shape), dtype, cotangent, w)
        return found

    def taps(self) -> Iterator[tuple[int, tuple[int, ...], tuple[int, ...]]]:
        """Of every weight its number, and block and place in strides of its position."""
        for number, offset in enumerate(np.ndindex(*self.kernel)):
            block, place = zip(*map(divmod, offset, self.strides), strict=True)
            yield number, block, place

    def blocks(self, sizes: Sequence[int]) -> tuple[list[int], list[tuple[int, int]]]:
        """How many strides an input fills along each axis, and with how many zeros around it."""
        padded = [n + sum(p) for n, p in zip(sizes, self.padding, strict=True)]
        blocks = [-(-n // s) for n, s in zip(padded, self.strides, strict=True)]
        return blocks, [
            (low, high + b * s - n)
            for (low, high), b, s, n in zip(self.padding, blocks, self.strides, padded, strict=True)
        ]


@partial(jax.jit, static_argnums=0)
def _convolve(conv: Depthwise, x: jax.Array, w: jax.Array) -> jax.Array:
    out = conv.out or x.dtype
    x, w = map(_in_float32, channels_last(x, w, conv.numbers))
    w = _made_before(w)
    blocks, fill = conv.blocks(x.shape[1:-1])
    counts = [
        (n + sum(p) - k) // s + 1
        for n, p, k, s in zip(x.shape[1:-1], conv.padding, conv.kernel, conv.strides, strict=True)
    ]
    x = _made_before(_padded(x, fill))
    # Each position in a stride by itself, so that no shift has gaps.
    x = x.reshape(x.shape[0], *_pairs(blocks, conv.strides), -1)
    places = {place: _at(x, place) for place in np.ndindex(*conv.strides)}
    w = w.reshape(-1, x.shape[-1])
    total = sum(
        _shifted(places[place], block, counts) * w[number : number + 1]
        for number, block, place in conv.taps()
    )
    return as_specified(jax.lax.optimization_barrier(total), conv.numbers.out_spec).astype(out)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _transpose(
    conv: Depthwise, shape: tuple[int, ...], dtype: Any, cotangent: jax.Array, w: jax.Array
) -> jax.Array:
    inputs, outputs, weights = conv.numbers.lhs_spec, conv.numbers.out_spec, conv.numbers.rhs_spec
    w = _in_float32(jnp.transpose(w, (*weights[2:], weights[1], weights[0])))
    w = _made_before(w)
    y = _in_float32(jnp.transpose(cotangent, (outputs[0], *outputs[2:], outputs[1])))
    blocks, fill = conv.blocks([shape[i] for i in inputs[2:]])
    reach = [(k - 1) // s for k, s in zip(conv.kernel, conv.strides, strict=True)]
    ends = [b - n for b, n in zip(blocks, y.shape[1:-1], strict=True)]
    y = _made_before(_padded(y, list(zip(reach, ends, strict=True))))
    w = w.reshape(-1, y.shape[-1])
    total: dict[tuple[int, ...], Any] = {}
    for number, block, place in conv.taps():
        start = [r - b for r, b in zip(reach, block, strict=True)]
        part = _shifted(y, start, blocks) * w[number : number + 1]
        total[place] = total[place] + part if place in total else part
    zeros = jnp.zeros((y.shape[0], *blocks, y.shape[-1]), y.dtype)
    x = jnp.stack([total.get(place, zeros) for place in np.ndindex(*conv.strides)], -1)
    # From one place of every stride after the other to their order in space.
    rank = len(blocks)
    x = x.reshape(*x.shape[:-1], *conv.strides)
    x = x.transpose(0, *(i for a in range(rank) for i in (1 + a, 2 + rank + a)), 1 + rank)
    x = x.reshape(x.shape[0], *(b * s for b, s in zip(blocks, conv.strides, strict=True)), -1)
    x = _padded(x, [(-low, -high) for low, high in fill])
    return as_specified(jax.lax.optimization_barrier(x), inputs).astype(dtype)


def channels_last(x: jax.Array, w: jax.Array, numbers: Any) -> tuple[jax.Array, jax.Array]:
    """Batch, space, channels; and space, input channels, output channels."""
    inputs, weights = numbers.lhs_spec, numbers.rhs_spec
    x = jnp.transpose(x, (inputs[0], *inputs[2:], inputs[1]))
    return x, jnp.transpose(w, (*weights[2:], weights[1], weights[0]))


def as_specified(y: jax.Array, spec: Sequence[int]) -> jax.Array:
    """From channels last to another order of axes."""
    last = (spec[0], *spec[2:], spec[1])
    return jnp.transpose(y, [last.index(axis) for axis in range(y.ndim)])


def _in_float32(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def _made_before(x: jax.Array) -> jax.Array:
    """An operand that is not computed again for every shift.

    Weights too: compilers make one kernel of layers alike, whichever part of its weights each has.
    """
    return jax.lax.optimization_barrier(x)


def _padded(x: jax.Array, around: Sequence[tuple[int, int]]) -> jax.Array:
    """Zeros before and after each axis of space, or numbers cut away."""
    pads = [(0, 0, 0), *((low, high, 0) for low, high in around), (0, 0, 0)]
    return jax.lax.pad(x, np.zeros((), x.dtype), pads)


def _pairs(first: Sequence[int], second: Sequence[int]) -> list[int]:
    return [n for pair in zip(first, second, strict=True) for n in pair]


def _at(x: jax.Array, place: Sequence[int]) -> jax.Array:
    """Of (batch, blocks, stride, ..., channels) one position in every stride."""
    for axis, index in enumerate(place):
        x = jax.lax.index_in_dim(x, index, 2 + axis, keepdims=False)
    return x


def _shifted(x: jax.Array, start: Sequence[int], sizes: Sequence[int]) -> jax.Array:
    ends = [a + n for a, n in zip(start, sizes, strict=True)]
    return jax.lax.slice(x, (0, *start, 0), (x.shape[0], *ends, x.shape[-1]))
