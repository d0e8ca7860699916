"""Another basis: relevance of frequencies, wavelets, tiles of time and frequency, components.

An orthogonal map is put in front of the network, and its coefficients are explained: a virtual
inspection layer, which every query takes. The network stays as it is.

Source: Vielhaben et al. 2024, "Explainable AI for time series via virtual inspection layers".
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._calls.arguments import ArgNums


@dataclass(frozen=True, eq=False, repr=False)
class Basis:
    """An orthonormal basis for one axis of an input.

    Attributes:
        vectors: an array (size, size), a vector of the basis in each row.
        group: for each vector the number of what it belongs to, such as its frequency.
        axis: the axis of the input.
    """

    vectors: np.ndarray
    group: np.ndarray
    axis: int = -1

    def __repr__(self) -> str:
        groups = len(np.unique(self.group))
        return f"Basis({len(self.vectors)} vectors in {groups} groups, axis={self.axis})"

    def analyse(self, x: jax.Array) -> jax.Array:
        """The coefficients of an input, of its shape."""
        return self._mapped(x, self.vectors.T)

    def synthesise(self, coefficients: jax.Array) -> jax.Array:
        """The input that has these coefficients."""
        return self._mapped(coefficients, self.vectors)

    def summed(self, relevance: jax.Array) -> jax.Array:
        """Relevance of coefficients summed over each group, such as cosine and sine."""
        inside = (self.group[:, None] == np.arange(self.group.max() + 1)).astype(float)
        return self._mapped(relevance, inside)

    def _mapped(self, x: jax.Array, matrix: np.ndarray) -> jax.Array:
        x = jnp.asarray(x)
        size = x.shape[self.axis] if -x.ndim <= self.axis < x.ndim else None
        if size is None:
            raise ValueError(f"the basis is of axis {self.axis}, and an input {x.shape} has none.")
        if size != len(self.vectors):
            raise ValueError(
                f"the basis has {len(self.vectors)} vectors, and axis {self.axis} of an input "
                f"{x.shape} has {size}."
            )
        last = jnp.moveaxis(x, self.axis, -1) @ jnp.asarray(matrix, x.dtype)
        return jnp.moveaxis(last, -1, self.axis)


def in_basis(
    apply_fn: Callable[..., Any], *bases: Basis, argnums: ArgNums = 1
) -> Callable[..., Any]:
    """The function of the coefficients of its input, for any query.

        f(params, z_1 b_1 + z_2 b_2 + ...)

    Args:
        apply_fn: the function to explain.
        bases: one for each axis that is written in another basis.
        argnums: the argument that is written so.

    Returns:
        The same function with coefficients in place of that argument. Its relevance is that of the
        coefficients, and adds up to what arrives at the input itself.

    Raises:
        TypeError: for several arguments, and for anything but a function and bases.
        ValueError: when called, for an axis of another size.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> from lrp_jax.questions import fourier, in_basis
        >>> f = lambda w, x: x @ w  # listens to the frequency 2 of 8 samples
        >>> w = jnp.cos(2 * jnp.pi * 2 * jnp.arange(8) / 8)[:, None]
        >>> basis = fourier(8)
        >>> x = w[:, 0][None] + 5.0
        >>> found = lrp.relevance(in_basis(f, basis), lrp.Zero())(w, basis.analyse(x))
        >>> print(basis.summed(found).round(3))
        [[0. 0. 4. 0. 0.]]
    """
    if not isinstance(argnums, int):
        raise TypeError(f"in_basis writes one argument in another basis, not {argnums!r}.")
    if not callable(apply_fn) or not all(isinstance(basis, Basis) for basis in bases):
        given = ", ".join(type(value).__name__ for value in (apply_fn, *bases))
        raise TypeError(f"in_basis takes a function, and behind it bases, got {given}.")

    @functools.wraps(apply_fn)
    def apply(*args: Any, **kwargs: Any) -> Any:
        written = list(args)
        for basis in bases:
            written[argnums] = basis.synthesise(written[argnums])
        return apply_fn(*written, **kwargs)

    return apply


def fourier(size: int, axis: int = -1) -> Basis:
    """Cosines and sines; a group is a frequency, in periods per input.

    Args:
        size: of the axis.
        axis: of the input.

    Raises:
        ValueError: for a size below 1.
    """
    _require_size(size)
    time = 2 * np.pi * np.arange(size) / size
    rows, group = [np.full(size, size**-0.5)], [0]
    for frequency in range(1, size // 2 + 1):
        rows.append(np.cos(frequency * time))
        group.append(frequency)
        if 2 * frequency < size:
            rows.append(np.sin(frequency * time))
            group.append(frequency)
    vectors = np.stack(rows)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Basis(vectors, np.array(group), axis)


def cosines(size: int, axis: int = -1) -> Basis:
    """The orthonormal discrete cosine transform, each vector a group.

    Args:
        size: of the axis.
        axis: of the input.

    Raises:
        ValueError: for a size below 1.
    """
    _require_size(size)
    vectors = np.cos(np.pi * np.arange(size)[:, None] * (np.arange(size) + 0.5) / size)
    vectors *= np.where(np.arange(size) == 0, size**-0.5, (2 / size) ** 0.5)[:, None]
    return Basis(vectors, np.arange(size), axis)


def tiles(size: int, width: int, axis: int = -1) -> Basis:
    """Cosines of stretches of an axis: each vector is one frequency at one time.

    Coefficients reshaped to (stretches, width) are a map of time and frequency.

    Args:
        size: of the axis.
        width: of a stretch; it divides the size.
        axis: of the input.

    Raises:
        ValueError: for a width that does not divide the size.
    """
    if width < 1 or size % width:
        raise ValueError(f"stretches of {width} do not divide an axis of {size}.")
    vectors = np.kron(np.eye(size // width), cosines(width).vectors)
    return Basis(vectors, np.arange(size), axis)


def haar(size: int, axis: int = -1) -> Basis:
    """Haar wavelets; a group is a scale, the coarsest first.

    Args:
        size: of the axis, a power of two.
        axis: of the input.

    Raises:
        ValueError: for a size that is no power of two.
    """
    if size < 1 or size & (size - 1):
        raise ValueError(f"Haar wavelets need an axis of a power of two, got {size}.")
    rows, group, scale = [np.full(size, size**-0.5)], [0], 1
    width = size
    while width > 1:
        wave = np.repeat([1.0, -1.0], width // 2) / width**0.5
        for start in range(0, size, width):
            row = np.zeros(size)
            row[start : start + width] = wave
            rows.append(row)
            group.append(scale)
        width, scale = width // 2, scale + 1
    return Basis(np.stack(rows), np.array(group), axis)


def components(data: Any, axis: int = -1) -> Basis:
    """Principal components of some inputs, the strongest first, each a group.

    Args:
        data: inputs; all axes but the one named are examples.
        axis: of the input.
    """
    rows = np.moveaxis(np.asarray(data, float), axis, -1)
    if not np.isfinite(rows).all():
        raise ValueError("components are of finite data, and here are NaN or infinities.")
    rows = rows.reshape(-1, rows.shape[-1])
    centred = rows - rows.mean(0)
    vectors = np.linalg.eigh(centred.T @ centred)[1].T[::-1]
    return Basis(np.ascontiguousarray(vectors), np.arange(len(vectors)), axis)


def _require_size(size: int) -> None:
    if not isinstance(size, int | np.integer) or size < 1:
        raise ValueError(f"size={size!r}: it is that of an axis, an integer of at least 1.")
