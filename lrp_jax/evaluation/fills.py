"""What stands in for the parts of an input that are removed.

A fill says what replaces removed elements; the functions of this module make the usual ones. How
far a perturbed image is from what the model has seen changes the outcome of flipping experiments,
so results of different fills are not comparable.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..datasets import require


@dataclasses.dataclass(frozen=True)
class Fill:
    """A named replacement `function(key, x, removed) -> array of x's shape`.

    Attributes:
      name: for tables and legends.
      function: gets a random key, the inputs `(batch, ...)` and the booleans of what is removed,
        of their shape.
      uses_removed: whether the values depend on what is removed; otherwise they are computed once
        for all steps, with `removed=None`.
    """

    name: str
    function: Callable[[Array, Array, Any], Array]
    uses_removed: bool = False


def constant(value: Any = 0.0) -> Fill:
    """One value (a number, a mask token, or an array that broadcasts to the input).

    Args:
      value: what every removed element becomes.

    >>> constant(0.5).function(jax.random.key(0), jnp.ones((1, 2)), None)
    Array([[0.5, 0.5]], dtype=float32)
    """
    return Fill(
        "constant", lambda key, x, removed: jnp.broadcast_to(jnp.asarray(value, x.dtype), x.shape)
    )


def mean() -> Fill:
    """The mean of each example, of each of its channels where it has at least three axes.

    >>> mean().function(jax.random.key(0), jnp.array([[1.0, 3.0]]), None)
    Array([[2., 2.]], dtype=float32)
    """

    def function(key: Array, x: Array, removed: Any) -> Array:
        axes = tuple(range(1, max(x.ndim - 1, 2)))
        return jnp.broadcast_to(x.mean(axes, keepdims=True), x.shape)

    return Fill("mean", function)


def noise(low: Any = None, high: Any = None) -> Fill:
    """Uniform noise between `low` and `high`, by default the extremes of each example.

    Args:
      low, high: the bounds, numbers or arrays that broadcast to the input.

    >>> noise(0.0, 1.0).function(jax.random.key(0), jnp.zeros((1, 2)), None).shape
    (1, 2)
    """

    def function(key: Array, x: Array, removed: Any) -> Array:
        axes = tuple(range(1, x.ndim))
        least = x.min(axes, keepdims=True) if low is None else jnp.asarray(low, x.dtype)
        most = x.max(axes, keepdims=True) if high is None else jnp.asarray(high, x.dtype)
        return least + (most - least) * jax.random.uniform(key, x.shape, x.dtype)

    return Fill("noise", function)


def blur(sigma: float = 3.0) -> Fill:
    """The input under a Gaussian of width `sigma` along its positions, the border repeated.

    Args:
      sigma: standard deviation in elements; the kernel ends at three of them.

    >>> float(blur(1.0).function(jax.random.key(0), jnp.ones((1, 4, 4, 1)), None).min().round(5))
    1.0
    """
    if sigma <= 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    reach = max(1, round(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()

    def along(x: Array, axis: int) -> Array:
        size = x.shape[axis]
        padding = [(reach, reach) if a == axis else (0, 0) for a in range(x.ndim)]
        wide = jnp.pad(x, padding, mode="edge")
        parts = (
            weight * jax.lax.slice_in_dim(wide, i, i + size, axis=axis)
            for i, weight in enumerate(kernel.tolist())
        )
        return sum(parts, jnp.zeros_like(x))

    def function(key: Array, x: Array, removed: Any) -> Array:
        for axis in range(1, max(x.ndim - 1, 2)):
            x = along(x, axis)
        return x

    return Fill("blur", function)


def inpaint(method: str = "telea", radius: float = 3.0) -> Fill:
    """What is left, continued into what is removed, by an image library on the host.

    Args:
      method: `"telea"` (OpenCV, package `opencv-python-headless`; 8 bits per channel between the
        extremes of each image) or `"biharmonic"` (scikit-image; smooth and slow).
      radius: the neighbourhood of Telea's method, in pixels.

    Source: Telea, "An Image Inpainting Technique Based on the Fast Marching Method", 2004.
    """
    if method not in ("telea", "biharmonic"):
        raise ValueError(f'method is "telea" or "biharmonic", not {method!r}')

    def telea(image: np.ndarray, removed: np.ndarray) -> np.ndarray:
        cv2 = require("cv2", "Telea's inpainting (package opencv-python-headless)")
        low, high = image.min(), image.max()
        scale = (high - low) / 255 or 1
        mask = removed.any(-1).astype(np.uint8)
        bytes_ = np.round((image - low) / scale).astype(np.uint8)
        # It takes one channel or three, which share the search for the order of filling.
        together = 3 if bytes_.shape[-1] % 3 == 0 else 1
        filled = []
        for i in range(0, bytes_.shape[-1], together):
            part = np.ascontiguousarray(bytes_[..., i : i + together])
            done = cv2.inpaint(part, mask, radius, cv2.INPAINT_TELEA)
            filled.append(done.reshape(*mask.shape, together))
        return np.concatenate(filled, -1) * scale + low

    def biharmonic(image: np.ndarray, removed: np.ndarray) -> np.ndarray:
        require("skimage", "biharmonic inpainting (package scikit-image)")
        from skimage.restoration import inpaint_biharmonic

        return inpaint_biharmonic(image, removed.any(-1), channel_axis=-1)

    one = telea if method == "telea" else biharmonic

    def host(x: np.ndarray, removed: np.ndarray) -> np.ndarray:
        x, removed = np.asarray(x), np.asarray(removed)
        done = [
            # Nothing is known of an image that is removed whole: its mean is the neutral answer.
            one(image, gone) if gone.any() and not gone.all() else np.full_like(image, image.mean())
            for image, gone in zip(x, removed, strict=True)
        ]
        return np.stack(done).astype(x.dtype)

    def function(key: Array, x: Array, removed: Any) -> Array:
        if x.ndim != 4:
            raise ValueError(
                f"inpainting needs images (batch, height, width, channels), got {x.shape}"
            )
        shape = jax.eval_shape(lambda: x)
        return jax.pure_callback(host, shape, x, removed, vmap_method="sequential")

    return Fill(method, function, uses_removed=True)


def conditional(references: Any, patch: int = 4, border: int = 2, ridge: float = 1e-3) -> Fill:
    """Patches drawn anew given their surroundings, from a Gaussian fitted to reference images.

        x_in | x_out ~ N(m_in + A (x_out - m_out), S_in - A S_out,in),   A = S_in,out S_out^-1

    Every patch of a regular grid is drawn given the `border` elements around it in the original
    image, so what is removed looks like the data without saying what was there.

    Args:
      references: images `(count, height, width, channels)` of the data's distribution.
      patch: the patch size, best that of the flipping.
      border: the width of the frame that is known.
      ridge: added to the covariance's diagonal, relative to its mean.

    Source: Zintgraf et al., "Visualizing Deep Neural Network Decisions: Prediction Difference
    Analysis", ICLR 2017.
    """
    references = np.asarray(references, np.float64)
    window = patch + 2 * border
    if references.ndim != 4 or min(references.shape[1:3]) < window:
        raise ValueError(
            f"references must be images (count, height, width, channels) of at least {window} x "
            f"{window} for patch={patch} and border={border}, got {references.shape}"
        )
    channels = references.shape[-1]
    views = np.lib.stride_tricks.sliding_window_view(references, (window, window), axis=(1, 2))
    samples = np.moveaxis(views[:, ::border, ::border], 3, -1).reshape(
        -1, window * window * channels
    )
    inner = np.zeros((window, window, channels), bool)
    inner[border : border + patch, border : border + patch] = True
    inside, outside = np.flatnonzero(inner), np.flatnonzero(~inner)
    centre, spread = samples.mean(0), np.cov(samples, rowvar=False)
    spread += ridge * np.trace(spread) / len(spread) * np.eye(len(spread))
    slope = np.linalg.solve(spread[np.ix_(outside, outside)], spread[np.ix_(outside, inside)]).T
    rest = spread[np.ix_(inside, inside)] - slope @ spread[np.ix_(outside, inside)]
    factor = np.linalg.cholesky((rest + rest.T) / 2)

    def function(key: Array, x: Array, removed: Any) -> Array:
        if x.ndim != 4 or x.shape[-1] != channels:
            raise ValueError(
                f"the references have {channels} channels, the input has the shape {x.shape}"
            )
        count, height, width, _ = x.shape
        rows, columns = -(-height // patch), -(-width // patch)
        far = [border + rows * patch - height, border + columns * patch - width]
        wide = jnp.pad(x, ((0, 0), (border, far[0]), (border, far[1]), (0, 0)), mode="edge")
        corners = [(r * patch, c * patch) for r in range(rows) for c in range(columns)]
        frames = [wide[:, r : r + window, c : c + window].reshape(count, -1) for r, c in corners]
        known = jnp.stack(frames, 1)[..., outside] - jnp.asarray(centre[outside], x.dtype)
        drawn = jax.random.normal(key, (*known.shape[:-1], len(inside)), x.dtype)
        values = (
            jnp.asarray(centre[inside], x.dtype)
            + known @ jnp.asarray(slope.T, x.dtype)
            + drawn @ jnp.asarray(factor.T, x.dtype)
        )
        values = values.reshape(count, rows, columns, patch, patch, channels)
        whole = values.transpose(0, 1, 3, 2, 4, 5).reshape(
            count, rows * patch, columns * patch, channels
        )
        return whole[:, :height, :width]

    return Fill("conditional", function)
