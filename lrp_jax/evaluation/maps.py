"""Numbers of relevance alone: how short is an explanation, and where does it lie?

They take arrays, `sparseness(relevance)`, and return one number for each example.
"""

import jax
import jax.numpy as jnp
from jax import Array

from .correlations import flat, ratio


@jax.jit
def sparseness(relevance: Array) -> Array:
    """The Gini index of `|R|`: 0 for relevance spread evenly, near 1 for a single element.

        G = sum_k (2 k - n - 1) a_k / (n sum_k a_k),   a_1 <= ... <= a_n the sorted |R|

    Args:
      relevance: `(batch, ...)`.

    Returns:
      `(batch,)`; 0 where all relevance is zero.

    Source: Chalasani et al., "Concise Explanations of Neural Networks using Adversarial
      Training", ICML 2020.

    >>> sparseness(jnp.array([[0.0, 0.0, 0.0, 5.0], [1.0, -1.0, 1.0, 1.0]]))
    Array([0.75, 0.  ], dtype=float32)
    """
    size = jnp.sort(jnp.abs(flat(relevance)), -1)
    n = size.shape[-1]
    rank = jnp.arange(1, n + 1, dtype=size.dtype)
    return ratio(((2 * rank - n - 1) * size).sum(-1), n * size.sum(-1))


@jax.jit
def complexity(relevance: Array) -> Array:
    """The entropy of the shares `|R_i| / sum |R|`: 0 for one element, log n for an even spread.

    Args:
      relevance: `(batch, ...)`.

    Returns:
      `(batch,)`; 0 where all relevance is zero.

    Source: Bhatt et al., "Evaluating and Aggregating Feature-based Model Explanations", IJCAI 2020.

    >>> complexity(jnp.array([[0.0, 0.0, 5.0], [1.0, -1.0, 1.0]])).round(4)
    Array([0.    , 1.0986], dtype=float32)
    """
    size = jnp.abs(flat(relevance))
    share = ratio(size, size.sum(-1, keepdims=True))
    return jax.scipy.special.entr(share).sum(-1)


@jax.jit
def pointing_game(relevance: Array, mask: Array) -> Array:
    """Whether the most relevant position lies in the mask: 1 or 0.

    Args:
      relevance: `(batch, ...)`; axes that the mask lacks at the end (channels) are summed.
      mask: `(batch, ...)` booleans of where the evidence is.

    Returns:
      `(batch,)`; NaN where the mask is empty, so that `jnp.nanmean` leaves these examples out.

    Source: Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016.

    >>> pointing_game(jnp.array([[1.0, 3.0]]), jnp.array([[False, True]]))
    Array([1.], dtype=float32)
    """
    relevance, mask = _placed(relevance, mask)
    best = relevance == relevance.max(-1, keepdims=True)
    return _where_marked(mask, (best & mask).any(-1).astype(relevance.dtype))


@jax.jit
def relevance_mass_accuracy(relevance: Array, mask: Array) -> Array:
    """The share of the relevance that lies in the mask: `sum_mask R / sum R`.

    It is a share where relevance is not negative: give `jnp.maximum(R, 0)` or `jnp.abs(R)`
    otherwise.

    Args, Returns: as `pointing_game`; 0 where the whole relevance is zero.

    Source: Arras et al., "CLEVR-XAI", Information Fusion 2022.

    >>> relevance_mass_accuracy(jnp.array([[1.0, 3.0]]), jnp.array([[False, True]]))
    Array([0.75], dtype=float32)
    """
    relevance, mask = _placed(relevance, mask)
    return _where_marked(mask, ratio((relevance * mask).sum(-1), relevance.sum(-1)))


@jax.jit
def relevance_rank_accuracy(relevance: Array, mask: Array) -> Array:
    """The share of the K most relevant positions that lie in the mask of K positions.

    Args, Returns: as `pointing_game`.

    Source: Arras et al., "CLEVR-XAI", Information Fusion 2022.

    >>> relevance_rank_accuracy(jnp.array([[1.0, 3.0, 2.0]]), jnp.array([[True, True, False]]))
    Array([0.5], dtype=float32)
    """
    relevance, mask = _placed(relevance, mask)
    order = jnp.argsort(relevance, -1, descending=True)
    size = mask.sum(-1)
    top = jnp.arange(mask.shape[-1]) < size[:, None]
    hits = (jnp.take_along_axis(mask, order, -1) & top).sum(-1)
    return _where_marked(mask, hits.astype(relevance.dtype) / jnp.maximum(size, 1))


def _placed(relevance: Array, mask: Array) -> tuple[Array, Array]:
    if mask.ndim < 2 or relevance.shape[: mask.ndim] != mask.shape:
        raise ValueError(
            f"the mask needs the shape {relevance.shape} of the relevance, or that without its "
            f"last axes, got {mask.shape}"
        )
    relevance = relevance.sum(tuple(range(mask.ndim, relevance.ndim)))
    return flat(relevance), flat(mask).astype(bool)


def _where_marked(mask: Array, value: Array) -> Array:
    return jnp.where(mask.any(-1), value, jnp.nan)
