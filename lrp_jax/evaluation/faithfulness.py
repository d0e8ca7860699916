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

from .._forward import forward
from ..targets import scoring
from .correlations import flat, key_or_default, pearson, ratio

Array = jax.Array


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
        explained = scoring.score(model(x), weights)
        if baseline is not None:
            explained -= scoring.score(model(scoring.baseline(baseline, x)), weights)
        return flat(_shaped(relevance, x)).sum(-1) - explained

    def evaluate(*args: Any, relevance: Any, target: Any = None) -> Array:
        result: Array = run(
            args, jnp.asarray(relevance), scoring.checked_target(shapes, args, target)
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
        x = scoring.require_array(scoring.pick(args, argnums), "sensitivity_n")
        moved = scoring.spatial_axes(x.shape, axes)
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
            scoring.checked_target(shapes, args, target),
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
            scoring.checked_target(shapes, args, target),
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
        whole = scoring.score(model(x), weights)

        def error(item: Array) -> Array:
            if masks is None:
                change = noise * jax.random.normal(item, x.shape, x.dtype)
            else:
                change = jnp.where(item, x - scoring.baseline(fill, x), 0)
            drop = whole - scoring.score(model(x - change), weights)
            return (flat(slope * change).sum(-1) - drop) ** 2

        items = jax.random.split(key, runs) if masks is None else masks
        result: Array = jax.lax.map(error, items, batch_size=min(chunk, len(items))).mean(0)
        return result

    def evaluate(*args: Any, relevance: Any, target: Any = None, key: Array | None = None) -> Array:
        given = None if masks is None else jnp.asarray(masks, bool)
        result: Array = run(
            args,
            jnp.asarray(relevance),
            scoring.checked_target(shapes, args, target),
            key_or_default(key),
            given,
        )
        return result

    return evaluate


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
    cover = scoring.baseline(fill, x)
    whole = scoring.score(model(x), weights)

    def one(item: Array) -> tuple[Array, Array]:
        removed = jnp.broadcast_to(mask_of(item), x.shape)
        drop = whole - scoring.score(model(jnp.where(removed, cover, x)), weights)
        return flat(jnp.where(removed, relevance, 0)).sum(-1), drop

    sums, drops = jax.lax.map(one, items, batch_size=min(chunk, len(items)))
    return sums.T, drops.T


def _question(
    f: Callable[..., Any], argnums: int, args: tuple[Any, ...], target: Any
) -> tuple[Array, Callable[[Array], Any], Any]:
    """The explained argument, the model as a function of it, and the weights of the score."""
    x = scoring.require_array(scoring.pick(args, argnums), "this metric")

    def model(x: Array) -> Any:
        return forward(f)(*scoring.replace(args, argnums, x))

    return x, model, scoring.weights(model(x), target)


def _shaped(relevance: Array, x: Array) -> Array:
    if relevance.shape != x.shape:
        raise ValueError(f"relevance has the shape {relevance.shape}, the input {x.shape}")
    return relevance
