"""What the measures share: correlations, quotients that are 0 where nothing is divided."""

import jax
import jax.numpy as jnp
from jax import Array

from ..targets import scoring


def pearson(a: Array, b: Array) -> Array:
    """The correlation of `a` and `b` along the last axis, 0 where one of them does not vary.

    Args:
      a, b: arrays of one shape; pictures are flattened, `a.reshape(len(a), -1)`.

    Returns:
      The correlations, without the last axis.

    Raises:
      ValueError: for different shapes, and for pictures whose last axis is one channel.

    >>> pearson(jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 2.0, 3.0])).round(4)
    Array(1., dtype=float32)
    """
    if a.shape != b.shape or (a.ndim > 2 and a.shape[-1] == 1):
        raise ValueError(
            f"a correlation is taken along the last axis of two arrays of one shape, got {a.shape} "
            f"and {b.shape}; that of pictures is of a.reshape(len(a), -1)"
        )
    a, b = (v - v.mean(-1, keepdims=True) for v in (a, b))
    # Each side is scaled first: squares of small relevance would underflow.
    a, b = (ratio(v, jnp.abs(v).max(-1, keepdims=True)) for v in (a, b))
    return ratio((a * b).sum(-1), jnp.sqrt((a * a).sum(-1) * (b * b).sum(-1)))


def spearman(a: Array, b: Array) -> Array:
    """The correlation of ranks of `a` and `b` along the last axis, ties sharing their mean rank.

    Args:
      a, b: arrays of one shape, as for `pearson`.

    Returns:
      The correlations, without the last axis.

    Raises:
      ValueError: as `pearson`.

    >>> spearman(jnp.array([1.0, 2.0, 9.0]), jnp.array([1.0, 4.0, 5.0])).round(4)
    Array(1., dtype=float32)
    """
    return pearson(_ranks(a), _ranks(b))


def _ranks(values: Array) -> Array:
    flat = values.reshape(-1, values.shape[-1])

    def one(row: Array) -> Array:
        ordered = jnp.sort(row)
        below = jnp.searchsorted(ordered, row, side="left")
        upto = jnp.searchsorted(ordered, row, side="right")
        # NaN sorts somewhere, and its rank would look like any other.
        return jnp.where(jnp.isnan(row).any(), jnp.nan, below + upto).astype(row.dtype)

    return jax.vmap(one)(flat).reshape(values.shape)


def flat(values: Array) -> Array:
    """`(batch, elements)`."""
    values = jnp.asarray(values)
    if values.ndim < 2:
        raise ValueError(
            f"relevance has the examples in front, (batch, ...), got {values.shape}: of one "
            "example it is relevance[None]"
        )
    return values.reshape(values.shape[0], -1)


def ratio(a: Array, b: Array) -> Array:
    """`a / b`, and 0 where b is 0."""
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))


def key_or_default(key: Array | None) -> Array:
    if key is None:
        return jax.random.key(0)
    scoring.require_key(key)
    return key
