"""Numbers that ask the model: does an explanation say what the model does?

They take its function first: `infidelity(apply_fn)(params, x, relevance=r, target=t)`. All return
one number for each example (`sensitivity_n` one for each size), are compiled once for each shape,
and go over a data set with `lrp_jax.explain_dataset`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..targets import scoring
from .correlations import flat, key_or_default, pearson, ratio


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

    @jax.jit
    def run(args: tuple[Any, ...], relevance: Array, target: Any) -> Array:
        x, model, weights = scoring.question(f, argnums, args, target, "completeness")
        explained = scoring.score(model(x), weights)
        if baseline is not None:
            explained -= scoring.score(model(scoring.baseline(baseline, x)), weights)
        return flat(_shaped(relevance, x)).sum(-1) - explained

    return scoring.measure(f, run)


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

    scoring.require_positive("runs", runs)

    @jax.jit
    def run(
        args: tuple[Any, ...], relevance: Array, target: Any, key: Array | None = None
    ) -> Array:
        x, *_ = asked = scoring.question(f, argnums, args, target, "sensitivity_n")
        moved = scoring.spatial_axes(x.shape, axes)
        shape = [s if a == 0 or a in moved else 1 for a, s in enumerate(x.shape)]
        positions = int(np.prod(shape[1:]))
        if not sizes or min(sizes) < 1 or max(sizes) > positions:
            raise ValueError(f"sizes {sizes} must be between 1 and the {positions} positions")

        def draw(key: Array, size: int) -> Array:
            noise = jax.random.uniform(key, (len(x), positions))
            return (jnp.argsort(noise, -1) < size).reshape(shape)

        columns = []
        keys = jax.random.split(key_or_default(key), len(sizes))
        for size, size_key in zip(sizes, keys, strict=True):
            sets, chosen = jax.random.split(size_key, runs), functools.partial(draw, size=size)
            columns.append(pearson(*_removals(asked, relevance, sets, chosen, fill, chunk)))
        return jnp.stack(columns, -1)

    return scoring.measure(f, run)


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
    given = jnp.asarray(masks, bool)

    @jax.jit
    def run(args: tuple[Any, ...], relevance: Array, target: Any, masks: Array) -> Array:
        x, *_ = asked = scoring.question(f, argnums, args, target, "faithfulness_correlation")
        _require_masks(masks, x)
        return pearson(*_removals(asked, relevance, masks, lambda mask: mask, fill, chunk))

    return scoring.measure(f, functools.partial(run, masks=given))


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
    scoring.require_positive("runs", runs)
    given = None if masks is None else jnp.asarray(masks, bool)

    @jax.jit
    def run(
        args: tuple[Any, ...], relevance: Array, target: Any, key: Any = None, masks: Any = None
    ) -> Array:
        x, model, weights = scoring.question(f, argnums, args, target, "infidelity")
        relevance = _shaped(relevance, x)
        if masks is not None:
            _require_masks(masks, x)
        remedy = "for token ids there are faithfulness_correlation, sensitivity_n, pixel_flipping"
        scoring.require_floats(x, "infidelity", remedy)
        slope = ratio(relevance, x) if multiplied else relevance
        whole = scoring.score(model(x), weights)

        def error(item: Array) -> Array:
            if masks is None:
                change = noise * jax.random.normal(item, x.shape, x.dtype)
            else:
                change = jnp.where(item, x - scoring.baseline(fill, x), 0)
            drop = whole - scoring.score(model(x - change), weights)
            return (flat(slope * change).sum(-1) - drop) ** 2

        items = jax.random.split(key_or_default(key), runs) if masks is None else masks
        return jax.lax.map(error, items, batch_size=min(chunk, len(items))).mean(0)

    return scoring.measure(f, functools.partial(run, masks=given))


def _removals(
    asked: Any, relevance: Array, items: Array, mask_of: Callable[..., Array], fill: Any, chunk: int
) -> tuple[Array, Array]:
    """For each removal, the relevance removed and the fall of the score, each `(batch, runs)`."""
    x, model, weights = asked
    relevance = _shaped(relevance, x)
    cover = scoring.baseline(fill, x)
    whole = scoring.score(model(x), weights)

    def one(item: Array) -> tuple[Array, Array]:
        removed = jnp.broadcast_to(mask_of(item), x.shape)
        drop = whole - scoring.score(model(jnp.where(removed, cover, x)), weights)
        return flat(jnp.where(removed, relevance, 0)).sum(-1), drop

    sums, drops = jax.lax.map(one, items, batch_size=min(chunk, len(items)))
    return sums.T, drops.T


def _require_masks(masks: Array, x: Array) -> None:
    tail = masks.shape[1:]
    fits = len(tail) <= x.ndim and all(
        n in (1, m) for n, m in zip(tail[::-1], x.shape[::-1], strict=False)
    )
    if not masks.ndim or not len(masks) or not fits:
        raise ValueError(
            f"masks are booleans (runs, ...) that broadcast to (runs, *{x.shape}), got the shape "
            f"{masks.shape}"
        )


def _shaped(relevance: Array, x: Array) -> Array:
    if relevance.shape != x.shape:
        raise ValueError(f"relevance has the shape {relevance.shape}, the input {x.shape}")
    return relevance
