"""Numbers for explanations: do they say what the model does, how short are they, and where?

Metrics of relevance alone take arrays: `sparseness(relevance)`. Metrics that ask the model take
its function first: `infidelity(apply_fn)(params, x, relevance=r, target=t)`. All return one number
for each example, are compiled once for each shape, and go over a data set with
`lrp_jax.explain_dataset`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _explained
from ._forward import forward

Array = jax.Array


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


def completeness(
    f: Callable[..., Any], argnums: int = 1, *, baseline: Any = None
) -> Callable[..., Array]:
    """What the relevance lacks of the explained score: `sum_i R_i - (score(x) - score(baseline))`.

    Args:
      f: function `(*args) -> output`.
      argnums: the explained argument.
      baseline: a number or an array that broadcasts to it; `None` stands for a score of zero,
        which is the conservation LRP aims at.

    Returns:
      A function `(*args, relevance, target=None) -> (batch,)`.

    >>> f = lambda w, x: x @ w
    >>> completeness(f)(jnp.ones((2, 1)), jnp.ones((1, 2)), relevance=jnp.array([[1.0, 0.5]]))
    Array([-0.5], dtype=float32)
    """

    shapes = jax.jit(f)

    @jax.jit
    def run(args: tuple[Any, ...], relevance: Array, target: Any) -> Array:
        x, model, weights = _question(f, argnums, args, target)
        explained = _explained.score(model(x), weights)
        if baseline is not None:
            explained -= _explained.score(model(_explained.baseline(baseline, x)), weights)
        return flat(_shaped(relevance, x)).sum(-1) - explained

    def evaluate(*args: Any, relevance: Any, target: Any = None) -> Array:
        result: Array = run(
            args, jnp.asarray(relevance), _explained.checked_target(shapes, args, target)
        )
        return result

    return evaluate


def sensitivity_n(
    f: Callable[..., Any],
    argnums: int = 1,
    *,
    sizes: Sequence[int] = (1, 4, 16, 64),
    runs: int = 100,
    axes: tuple[int, ...] | None = None,
    fill: Any = 0.0,
    chunk: int = 1,
) -> Callable[..., Array]:
    """For each n, does the relevance of n removed elements tell the fall of the score?

        corr_S(sum_{i in S} R_i, score(x) - score(x without S)),   S random of size n

    Args:
      f, argnums: as `completeness`.
      sizes: the sizes n of the random sets.
      runs: how many sets of each size, drawn for each example.
      axes: the axes whose positions are removed (the others whole); `None` is all but the batch
        and, from three axes on, the last (channels).
      fill: what replaces removed elements: a number or an array that broadcasts.
      chunk: how many sets are evaluated together.

    Returns:
      A function `(*args, relevance, target=None, key=None) -> (batch, len(sizes))` of Pearson
      correlations, 0 where one side does not vary.

    Source: Ancona et al., "Towards better understanding of gradient-based attribution methods",
      ICLR 2018.
    Quantus' metric of this name is another: it correlates over examples, along their own orders.

    >>> f, w, x = lambda w, x: x @ w, jnp.array([[3.0], [1.0], [2.0]]), jnp.ones((1, 3))
    >>> sensitivity_n(f, sizes=(1,))(w, x, relevance=w.T * x).round(4)
    Array([[1.]], dtype=float32)
    """

    shapes = jax.jit(f)

    @jax.jit
    def run(args: tuple[Any, ...], relevance: Array, target: Any, key: Array) -> Array:
        x = _explained.require_array(_explained.pick(args, argnums), "sensitivity_n")
        moved = _explained.spatial_axes(x.shape, axes)
        shape = [s if a == 0 or a in moved else 1 for a, s in enumerate(x.shape)]
        positions = int(np.prod(shape[1:]))
        if min(sizes) < 1 or max(sizes) > positions:
            raise ValueError(f"sizes {sizes} must be between 1 and the {positions} positions")

        def draw(key: Array, size: int) -> Array:
            noise = jax.random.uniform(key, (len(x), positions))
            return (jnp.argsort(noise, -1) < size).reshape(shape)

        columns = []
        for size, size_key in zip(sizes, jax.random.split(key, len(sizes)), strict=True):
            keys = jax.random.split(size_key, runs)
            sums, drops = _removals(
                f,
                argnums,
                args,
                relevance,
                target,
                keys,
                functools.partial(draw, size=size),
                fill,
                chunk,
            )
            columns.append(pearson(sums, drops))
        return jnp.stack(columns, -1)

    def evaluate(*args: Any, relevance: Any, target: Any = None, key: Array | None = None) -> Array:
        result: Array = run(
            args,
            jnp.asarray(relevance),
            _explained.checked_target(shapes, args, target),
            key_or_default(key),
        )
        return result

    return evaluate


def faithfulness_correlation(
    f: Callable[..., Any],
    argnums: int = 1,
    *,
    masks: Any,
    fill: Any = 0.0,
    chunk: int = 1,
) -> Callable[..., Array]:
    """The correlation of `sensitivity_n` over given sets of removed elements.

    Args:
      f, argnums, fill, chunk: as `sensitivity_n`.
      masks: booleans `(runs, ...)` that broadcast to `(runs, *x.shape)`: what each run removes.

    Returns:
      A function `(*args, relevance, target=None) -> (batch,)`.

    Source: Bhatt et al., "Evaluating and Aggregating Feature-based Model Explanations", IJCAI 2020.

    >>> f, w, x = lambda w, x: x @ w, jnp.array([[3.0], [1.0], [2.0]]), jnp.ones((1, 3))
    >>> masks = jnp.eye(3, dtype=bool)[:, None]
    >>> faithfulness_correlation(f, masks=masks)(w, x, relevance=w.T * x).round(4)
    Array([1.], dtype=float32)
    """

    shapes = jax.jit(f)

    @jax.jit
    def run(args: tuple[Any, ...], relevance: Array, target: Any, masks: Array) -> Array:
        sums, drops = _removals(
            f, argnums, args, relevance, target, masks, lambda mask: mask, fill, chunk
        )
        return pearson(sums, drops)

    def evaluate(*args: Any, relevance: Any, target: Any = None) -> Array:
        result: Array = run(
            args,
            jnp.asarray(relevance),
            _explained.checked_target(shapes, args, target),
            jnp.asarray(masks, bool),
        )
        return result

    return evaluate


def infidelity(
    f: Callable[..., Any],
    argnums: int = 1,
    *,
    noise: float = 0.2,
    runs: int = 100,
    masks: Any = None,
    fill: Any = 0.0,
    multiplied: bool = True,
    chunk: int = 1,
) -> Callable[..., Array]:
    """How badly the relevance predicts the change of the score under a perturbation I of the input.

        mean_I (I . phi - (score(x) - score(x - I)))^2

    Args:
      f, argnums: as `completeness`.
      noise: the standard deviation of the Gaussian perturbations I.
      runs: their number.
      masks: booleans `(runs, ...)` that broadcast to `(runs, *x.shape)`: perturb by replacing these
        elements with `fill`, I = x - fill there, instead of noise.
      fill: see `masks`.
      multiplied: whether the relevance holds the input as a factor, as that of LRP does: phi is
        then R / x (0 where x is 0); a gradient is phi itself.
      chunk: how many perturbations are evaluated together.

    Returns:
      A function `(*args, relevance, target=None, key=None) -> (batch,)`.

    Source: Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019.

    >>> f, w, x = lambda w, x: x @ w, jnp.array([[3.0], [1.0]]), jnp.ones((1, 2))
    >>> infidelity(f)(w, x, relevance=w.T * x).round(4)
    Array([0.], dtype=float32)
    """

    shapes = jax.jit(f)

    @jax.jit
    def run(args: tuple[Any, ...], relevance: Array, target: Any, key: Array, masks: Any) -> Array:
        x, model, weights = _question(f, argnums, args, target)
        relevance = _shaped(relevance, x)
        slope = ratio(relevance, x) if multiplied else relevance
        whole = _explained.score(model(x), weights)

        def error(item: Array) -> Array:
            if masks is None:
                change = noise * jax.random.normal(item, x.shape, x.dtype)
            else:
                change = jnp.where(item, x - _explained.baseline(fill, x), 0)
            drop = whole - _explained.score(model(x - change), weights)
            return (flat(slope * change).sum(-1) - drop) ** 2

        items = jax.random.split(key, runs) if masks is None else masks
        result: Array = jax.lax.map(error, items, batch_size=min(chunk, len(items))).mean(0)
        return result

    def evaluate(*args: Any, relevance: Any, target: Any = None, key: Array | None = None) -> Array:
        given = None if masks is None else jnp.asarray(masks, bool)
        result: Array = run(
            args,
            jnp.asarray(relevance),
            _explained.checked_target(shapes, args, target),
            key_or_default(key),
            given,
        )
        return result

    return evaluate


def pearson(a: Array, b: Array) -> Array:
    """The correlation of `a` and `b` along the last axis, 0 where one of them does not vary.

    Args:
      a, b: arrays of one shape.

    Returns:
      The correlations, without the last axis.

    >>> pearson(jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 2.0, 3.0])).round(4)
    Array(1., dtype=float32)
    """
    a, b = (v - v.mean(-1, keepdims=True) for v in (a, b))
    # Each side is scaled first: squares of small relevance would underflow.
    a, b = (ratio(v, jnp.abs(v).max(-1, keepdims=True)) for v in (a, b))
    return ratio((a * b).sum(-1), jnp.sqrt((a * a).sum(-1) * (b * b).sum(-1)))


def spearman(a: Array, b: Array) -> Array:
    """The correlation of ranks of `a` and `b` along the last axis, ties sharing their mean rank.

    Args:
      a, b: arrays of one shape.

    Returns:
      The correlations, without the last axis.

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
        return (below + upto).astype(row.dtype)

    return jax.vmap(one)(flat).reshape(values.shape)


def _removals(
    f: Callable[..., Any],
    argnums: int,
    args: tuple[Any, ...],
    relevance: Array,
    target: Any,
    items: Array,
    mask_of: Callable[[Array], Array],
    fill: Any,
    chunk: int,
) -> tuple[Array, Array]:
    """For each removal, the relevance removed and the fall of the score, each `(batch, runs)`."""
    x, model, weights = _question(f, argnums, args, target)
    relevance = _shaped(relevance, x)
    cover = _explained.baseline(fill, x)
    whole = _explained.score(model(x), weights)

    def one(item: Array) -> tuple[Array, Array]:
        removed = jnp.broadcast_to(mask_of(item), x.shape)
        drop = whole - _explained.score(model(jnp.where(removed, cover, x)), weights)
        return flat(jnp.where(removed, relevance, 0)).sum(-1), drop

    sums, drops = jax.lax.map(one, items, batch_size=min(chunk, len(items)))
    return sums.T, drops.T


def _question(
    f: Callable[..., Any], argnums: int, args: tuple[Any, ...], target: Any
) -> tuple[Array, Callable[[Array], Any], Any]:
    """The explained argument, the model as a function of it, and the weights of the score."""
    x = _explained.require_array(_explained.pick(args, argnums), "this metric")

    def model(x: Array) -> Any:
        return forward(f)(*_explained.replace(args, argnums, x))

    return x, model, _explained.weights(model(x), target, f, args, argnums)


def _shaped(relevance: Array, x: Array) -> Array:
    if relevance.shape != x.shape:
        raise ValueError(f"relevance has the shape {relevance.shape}, the input {x.shape}")
    return relevance


def _placed(relevance: Array, mask: Array) -> tuple[Array, Array]:
    if mask.ndim < 2 or relevance.shape[: mask.ndim] != mask.shape:
        raise ValueError(
            f"the mask needs the shape {relevance.shape} of the relevance, or that without its "
            f"last axes, got "
            f"{mask.shape}"
        )
    relevance = relevance.sum(tuple(range(mask.ndim, relevance.ndim)))
    return flat(relevance), flat(mask).astype(bool)


def _where_marked(mask: Array, value: Array) -> Array:
    return jnp.where(mask.any(-1), value, jnp.nan)


def flat(values: Array) -> Array:
    return values.reshape(values.shape[0], -1)


def ratio(a: Array, b: Array) -> Array:
    """`a / b`, and 0 where b is 0."""
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))


def key_or_default(key: Array | None) -> Array:
    return jax.random.key(0) if key is None else key
