"""Explanations that see no more of a model than its outputs (occlusion), or nothing at all."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..targets import scoring
from .gradients import Explanation, explanation


def occlusion(
    f: Callable[..., Any],
    argnums: int = 1,
    *,
    window: int | tuple[int, ...] = 8,
    stride: int | tuple[int, ...] | None = None,
    axes: tuple[int, ...] | None = None,
    fill: Any = 0.0,
    keep: bool = False,
    chunk: int | None = 1,
    has_aux: bool = False,
) -> Explanation:
    """How much the score falls when a window of the input is covered.

        R_i = sum over the windows v that hold i of (score(x) - score(x without v)) / |v|

    A window's drop is spread over its elements, so disjoint windows of a linear model add up to
    its score. With `keep=True` everything *outside* the window is covered and each of its
    elements gets the whole score of what is left, as zennit does (its windows cover all channels
    when `window` is an int, and wrap around the border, where these are cut off).

    Args:
      f, has_aux: as `gradient`.
      argnums: the explained argument, an array.
      window: its size along each of `axes`.
      stride: the distance between windows; `None` is the window's size.
      axes: the axes over which the window moves; it covers the others. `None` is all axes but
        the batch and, from three axes on, the last (channels).
      fill: what covers: a number or an array that broadcasts to the input; for token ids an id.
      keep: see above.
      chunk: how many windows are evaluated together; `None` is all of them.

    Returns:
      A function as `gradient` returns.

    Source: Zeiler, Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014.

    >>> f = lambda w, x: x @ w
    >>> explain = occlusion(f, window=1)
    >>> explain(jnp.array([[1.0], [-2.0]]), jnp.array([[3.0, 1.0]]))
    Array([[ 3., -2.]], dtype=float32)
    """
    if not isinstance(argnums, int):
        raise TypeError(f"occlusion explains one argument, argnums must be an int, got {argnums!r}")

    def rule(model: Callable[[Any], Any], x: Any, weights: Any) -> Array:
        x = scoring.require_array(x, "occlusion")
        moved = scoring.spatial_axes(x.shape, axes)
        sizes = scoring.per_axis("window", window, moved)
        strides = scoring.per_axis("stride", window if stride is None else stride, moved)
        lengths = [x.shape[a] for a in moved]
        if all(size > n for size, n in zip(sizes, lengths, strict=True)):
            raise ValueError(
                f"window={window} is larger than an input {x.shape}: one window tells nothing apart"
            )
        if any(s > size for s, size in zip(strides, sizes, strict=True)):
            raise ValueError(f"stride={stride} leaves gaps between windows of {window}")
        along = (range(0, x.shape[a], s) for a, s in zip(moved, strides, strict=True))
        starts = np.array(list(itertools.product(*along)))
        cover = jnp.broadcast_to(jnp.asarray(fill, x.dtype), x.shape)
        whole = scoring.score(model(x), weights)
        dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else whole.dtype

        def one(corner: Array) -> Array:
            inside = jnp.ones((1,) * x.ndim, bool)
            for a, size, first in zip(moved, sizes, corner, strict=True):
                place = jnp.arange(x.shape[a]).reshape([-1 if i == a else 1 for i in range(x.ndim)])
                inside = inside & (place >= first) & (place < first + size)
            covered = jnp.where(inside ^ keep, cover, x)
            score = scoring.score(model(covered), weights)
            whole_axes = (x.shape[a] for a in range(1, x.ndim) if a not in moved)
            elements = inside.sum() * math.prod(whole_axes)
            value = score if keep else (whole - score) / elements.astype(dtype)
            return inside * value.reshape((-1,) + (1,) * (x.ndim - 1)).astype(dtype)

        total = scoring.sum_of(one, jnp.asarray(starts), len(starts), chunk)
        return jnp.broadcast_to(total, x.shape)

    return explanation(rule, f, argnums, has_aux, blind=True)


def random(
    f: Callable[..., Any], argnums: Any = 1, *, key: Array, has_aux: bool = False
) -> Explanation:
    """Standard normal noise, which knows nothing of the model: the floor of every comparison.

    The same key draws the same noise in every call of one shape.

    Args:
      f, argnums, has_aux: as `gradient`; `f` is not called.
      key: of the noise.

    Returns: as `gradient`.

    >>> explain = random(lambda w, x: x @ w, key=jax.random.key(0))
    >>> explain(jnp.ones((2, 1)), jnp.ones((1, 2))).shape
    (1, 2)
    """

    scoring.require_key(key)

    def rule(model: Callable[[Any], Any], x: Any, weights: Any) -> Any:
        leaves, tree = jax.tree.flatten(x)
        keys = jax.random.split(key, len(leaves))
        pairs = zip(keys, leaves, strict=True)
        noise = [
            jax.random.normal(
                k, a.shape, a.dtype if jnp.issubdtype(a.dtype, jnp.floating) else None
            )
            for k, a in pairs
        ]
        return jax.tree.unflatten(tree, noise)

    return explanation(rule, f, argnums, has_aux, blind=True)


def sobel(f: Callable[..., Any], argnums: Any = 1, *, has_aux: bool = False) -> Explanation:
    """The edges of the input, whatever the model: `R = sqrt(G_v^2 + G_h^2)`.

    `G_v` and `G_h` are the 3 x 3 Sobel filters of each channel, the border repeated. An
    explanation that scores no better shows edges, not evidence.

    Args:
      f, has_aux: as `gradient`.
      argnums: images `(batch, height, width, channels)`.

    Returns: as `gradient`.

    Source of the comparison: Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018.

    >>> explain = sobel(lambda w, x: x.mean((1, 2)))
    >>> float(explain(None, jnp.ones((1, 4, 4, 3))).max())
    0.0
    """

    def edges(x: Array) -> Array:
        if x.ndim != 4:
            raise ValueError(f"sobel needs images (batch, height, width, channels), got {x.shape}")
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")

        def smooth(a: Array, axis: int) -> Array:
            size = a.shape[axis]
            part = [jax.lax.slice_in_dim(a, i, size - 2 + i, axis=axis) for i in range(3)]
            return part[0] + 2 * part[1] + part[2]

        def slope(a: Array, axis: int) -> Array:
            size = a.shape[axis]
            low, high = (jax.lax.slice_in_dim(a, i, size - 2 + i, axis=axis) for i in (0, 2))
            return high - low

        return jnp.hypot(slope(smooth(x, 2), 1), slope(smooth(x, 1), 2))

    def rule(model: Callable[[Any], Any], x: Any, weights: Any) -> Any:
        return jax.tree.map(edges, x)

    return explanation(rule, f, argnums, has_aux)
