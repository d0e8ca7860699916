"""Flipping: remove parts of the input in the order of their relevance and watch the score.

If an explanation is right, removing the most relevant parts first (MoRF) makes the score fall
early, and removing the least relevant first (LeRF) leaves it standing; the area between both
curves is a number for it.

    flip = pixel_flipping(apply_fn, patch=8, steps=28, fill=fills.blur())
    curves = flip(params, x, relevance=explain(params, x), target=labels)
    area(curves).mean(), interval(area(curves))
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .._tables import Shown, Table
from ..targets import scoring
from . import fills
from .correlations import key_or_default


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Curves(Shown):
    """The score while the input is removed.

    Attributes:
      fraction: the part of the patches that is removed at each step, `(steps + 1,)`, from 0 on.
      score: the score of each example there, `(batch, steps + 1)`.
    """

    fraction: Array
    score: Array

    def _table(self) -> Table:
        removed = np.asarray(self.fraction)
        means = np.asarray(self.score).reshape(-1, removed.size).mean(0)
        rows = tuple((f"{part:.3f}", f"{m:.4g}") for part, m in zip(removed, means, strict=True))
        return Table(("removed", "score, the mean of examples"), rows, frozenset({0, 1}))


def pixel_flipping(
    f: Callable[..., Any],
    argnums: int = 1,
    *,
    order: str = "morf",
    patch: int | tuple[int, ...] = 1,
    axes: tuple[int, ...] | None = None,
    steps: int = 28,
    schedule: str | Sequence[int] = "linear",
    fill: fills.Fill | None = None,
    score: str | Callable[[Any], Any] = "logit",
    chunk: int = 1,
) -> Callable[..., Curves]:
    """The curve of a model's score while patches of its input are removed (pixel flipping,
    region perturbation).

    A patch's relevance is the sum over its elements. Tokens are patches of size 1: `(batch,
    tokens)` integers with `fill=fills.constant(mask_token)`, or embeddings `(batch, tokens,
    features)` with zeros.

    Args:
      f: function `(*args) -> output` with outputs `(batch, ..., classes)`.
      argnums: the argument explained and perturbed, an array with the batch in front.
      order: `"morf"` (most relevant first), `"lerf"` (least relevant first) or `"random"`.
      patch: the patch size, one for all `axes` or one each; patches at the far border may be
        smaller.
      axes: the axes cut into patches; a patch covers the others whole. `None` is all but the
        batch and, from three axes on, the last: channels flip together. Name the channel axis
        too, with a patch of 1, to flip channels on their own.
      steps: number of evaluations after the first one, which removes nothing.
      schedule: how many patches are gone at step k of n: `"linear"`, k P / n; `"quadratic"`, P (k
        / n)^2 (each step removes 2 more than the last one: 2k - 1 for n^2 patches); or the rising
        counts of removed patches, which then say the number of steps.
      fill: what replaces removed elements, zeros by default (`lrp_jax.evaluation.fills`).
      score: `"logit"`, `"probability"` (softmax), `"accuracy"` (1 where the target is the largest
        output), or a function of the output that keeps its shape.
      chunk: how many steps are evaluated together.

    Returns:
      A function `(*args, relevance, target=None, key=None) -> Curves`. `relevance` has the
      input's shape (or that without the axes that patches cover whole), `target` is as in
      `relevance`, `key` serves the random order and random fills. NaN in an example's relevance
      makes a curve of NaN.

    Raises:
      ValueError: a setting that does not fit, or relevance of another shape than the input's.
      TypeError: a `fill` that is none.

    Sources: Bach et al., PLoS ONE 2015 (pixel flipping); Samek et al., "Evaluating the
      Visualization of What a Deep Neural Network Has Learned", TNNLS 2017 (regions).

    >>> f = lambda w, x: x @ w
    >>> w, x = jnp.array([[3.0], [1.0]]), jnp.ones((1, 2))
    >>> pixel_flipping(f, steps=2)(w, x, relevance=x * w.T).score
    Array([[4., 1., 0.]], dtype=float32)
    """
    if order not in ("morf", "lerf", "random"):
        raise ValueError(f'order is "morf", "lerf" or "random", not {order!r}')
    replace = fills.constant() if fill is None else fill
    if not isinstance(replace, fills.Fill):
        raise TypeError(
            f"fill is made by lrp_jax.evaluation.fills, such as fills.constant(0.5), not {fill!r}"
        )
    readout = _readout(score)

    @jax.jit
    def run(
        args: tuple[Any, ...], relevance: Array, target: Any, key: Array | None = None
    ) -> Curves:
        x, model, weights = scoring.question(f, argnums, args, target, "pixel_flipping")
        moved = scoring.spatial_axes(x.shape, axes)
        sizes = scoring.per_axis("patch", patch, moved)
        labels, count = patch_labels(x.shape, moved, sizes)
        if count == 1 and any(size > x.shape[a] for size, a in zip(sizes, moved, strict=True)):
            raise ValueError(
                f"patch={patch} is larger than an input {x.shape}: one patch has no order"
            )
        counts = flip_counts(schedule, steps, count)
        fill_key, order_key = jax.random.split(key_or_default(key))
        sums = _patch_sums(relevance, x, moved, labels, count)
        rank = _ranks(sums, order, order_key)
        place = jnp.expand_dims(rank[:, labels], [a for a in range(1, x.ndim) if a not in moved])
        substitute = None if replace.uses_removed else replace.function(fill_key, x, None)

        def at(flipped: Array) -> Array:
            removed = jnp.broadcast_to(place < flipped, x.shape)
            values = replace.function(fill_key, x, removed) if substitute is None else substitute
            output = readout(model(jnp.where(removed, values.astype(x.dtype), x)))
            return scoring.score(output, weights)

        scores = jax.lax.map(at, jnp.asarray(counts), batch_size=min(chunk, len(counts)))
        # NaN sorts somewhere, and a curve of that order would look like any other.
        unordered = jnp.isnan(sums).any(-1) & (order != "random")
        scores = jnp.where(unordered, jnp.nan, scores)
        return Curves(jnp.asarray(counts / count, scores.dtype), scores.T)

    return scoring.measure(f, run)


def area(curves: Curves) -> Array:
    """The area under each example's curve by the trapezoidal rule: AUC `(batch,)`.

        sum_k (t_k - t_{k-1}) (y_k + y_{k-1}) / 2,   t the fraction removed

    Of curves made with `score="accuracy"` it is the area under the accuracy curve (AUAC).

    Args:
      curves: what `pixel_flipping` returned.

    Returns:
      One number for each example.

    >>> area(Curves(jnp.array([0.0, 1.0]), jnp.array([[4.0, 0.0]])))
    Array([2.], dtype=float32)
    """
    if not isinstance(curves, Curves):
        raise TypeError(f"curves are what pixel_flipping returned, got {type(curves).__name__}")
    return jnp.trapezoid(curves.score, curves.fraction, axis=-1)


def area_between(lerf: Curves, morf: Curves) -> Array:
    """The area between the least and the most relevant first curves (ABPC), higher is better.

    Args:
      lerf, morf: curves of the same examples in the two orders.

    Returns:
      One number for each example.

    Source: Schulz et al., "Restricting the Flow", ICLR 2020.
    """
    return area(lerf) - area(morf)


def area_of_squares(curves: Curves) -> Array:
    """The area under the squared change of the score (AU-MSE); of LeRF curves lower is better.

    area((y - y_0)^2)

    Args:
      curves: what `pixel_flipping` returned.

    Returns:
      One number for each example.
    """
    return area(Curves(curves.fraction, (curves.score - curves.score[:, :1]) ** 2))


def interval(
    values: Any, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The bootstrap percentile interval of the mean over examples.

    Args:
      values: `(examples, ...)`: areas, or the scores of curves for a band around the mean curve.
      level: the confidence.
      resamples: how often the examples are drawn anew.
      seed: of the draws; the same seed draws the same examples, so that differences of paired
        values are intervals of paired differences.

    Returns:
      The lower and the upper bounds, of the shape of one example.

    Source: Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979.

    >>> low, high = interval(np.array([1.0, 1.0, 1.0]))
    >>> float(low), float(high)
    (1.0, 1.0)
    """
    values = np.asarray(values)
    if values.ndim == 0 or len(values) == 0:
        raise ValueError(
            f"interval needs values of at least one example, got the shape {values.shape}"
        )
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    draws = np.random.default_rng(seed).multinomial(
        len(values), np.full(len(values), 1 / len(values)), size=resamples
    )
    means = np.tensordot(draws / len(values), values, 1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def flip_counts(schedule: str | Sequence[int], steps: int, patches: int) -> np.ndarray:
    """How many patches are removed after each step, from 0 on.

    Args:
      schedule: a name or the counts themselves, as `pixel_flipping`.
      steps: how many steps a named schedule has.
      patches: how many patches there are.

    Returns:
      Increasing integers.

    >>> flip_counts("quadratic", 4, 16), flip_counts([1, 5], 0, 16)
    (array([ 0,  1,  4,  9, 16]), array([0, 1, 5]))
    """
    if isinstance(schedule, str):
        scoring.require_positive("steps", steps)
        time = np.arange(steps + 1) / steps
        if schedule == "linear":
            return np.round(time * patches).astype(int)
        if schedule == "quadratic":
            return np.round(time**2 * patches).astype(int)
        raise ValueError(f'schedule is "linear", "quadratic" or counts, not {schedule!r}')
    counts = np.asarray(schedule)
    if counts.ndim != 1 or not len(counts) or not np.issubdtype(counts.dtype, np.integer):
        raise ValueError(f"a schedule is a sequence of patch counts, got {schedule!r}")
    counts = counts if counts[0] == 0 else np.concatenate([[0], counts])
    if counts.min() < 0 or counts.max() > patches or (np.diff(counts) < 0).any():
        raise ValueError(
            f"a schedule rises from 0 to at most the {patches} patches there are, got {schedule!r}"
        )
    return counts


def patch_labels(
    shape: tuple[int, ...], axes: tuple[int, ...], sizes: tuple[int, ...]
) -> tuple[np.ndarray, int]:
    """The number of the patch that each position belongs to, and how many there are.

    Args:
      shape: of the input.
      axes: its positions.
      sizes: of a patch, along each of `axes`.

    Returns:
      The numbers, an array over `axes`, and their count.

    >>> patch_labels((1, 3, 2), (1, 2), (2, 2))
    (array([[0, 0],
           [0, 0],
           [1, 1]]), 2)
    """
    labels, count = np.zeros([shape[a] for a in axes], int), 1
    for i, (axis, size) in enumerate(zip(axes, sizes, strict=True)):
        along = -(-shape[axis] // size)
        place = np.arange(shape[axis]) // size
        labels = labels * along + place.reshape([-1 if j == i else 1 for j in range(len(axes))])
        count *= along
    return labels, count


def _patch_sums(
    relevance: Array, x: Array, axes: tuple[int, ...], labels: np.ndarray, count: int
) -> Array:
    positions = (x.shape[0], *(x.shape[a] for a in axes))
    if relevance.shape == x.shape:
        relevance = relevance.sum([a for a in range(1, x.ndim) if a not in axes])
    elif relevance.shape != positions:
        raise ValueError(
            f"relevance of shape {relevance.shape} belongs to no input of shape {x.shape}: give it "
            f"that shape or {positions}"
        )
    flat = relevance.reshape(len(x), -1)
    return jnp.zeros((len(x), count), flat.dtype).at[:, labels.reshape(-1)].add(flat)


def _ranks(sums: Array, order: str, key: Array) -> Array:
    """When each patch is removed: 0 for the first."""
    if order == "random":
        sums = jax.random.uniform(key, sums.shape)
    sorted_ = jnp.argsort(sums, axis=-1, descending=order == "morf")
    return jnp.argsort(sorted_, axis=-1)


def _readout(score: str | Callable[[Any], Any]) -> Callable[[Any], Any]:
    if callable(score):
        return score
    if score == "logit":
        return lambda output: output
    if score == "probability":
        return jax.nn.softmax
    if score == "accuracy":
        return lambda output: jax.nn.one_hot(
            jnp.argmax(output, -1), output.shape[-1], dtype=output.dtype
        )
    raise ValueError(f'score is "logit", "probability", "accuracy" or a function, not {score!r}')
