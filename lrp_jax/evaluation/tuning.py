"""The numbers of a composite, fitted on some examples and reported on others.

Source: Pahde et al. 2023, "Optimizing explanations by network canonization and hyperparameter
search" (grids); numbers of rules are traced, so gradients serve too.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .. import _tables
from ..datasets import require
from ..targets import scoring
from .calls import batches_of, made, told
from .flipping import interval
from .studies import Grid, Table, study

FITTED, METRIC = "fitted", "metric"


@dataclass(frozen=True, repr=False)
class Tuned(_tables.Shown):
    """What `tune` found.

    Attributes:
      point: the numbers that were best on the examples to fit by.
      fitted: all points and the presets on the examples to fit by, whose best is flattered.
      reported: the point found and the presets on the other examples.
      best: `"min"` or `"max"`.
    """

    point: dict[str, float]
    fitted: Table
    reported: Table
    best: Literal["min", "max"]

    def margins(self, level: float = 0.95) -> dict[str, tuple[float, float, float]]:
        """By how much the fitted numbers are better than each preset on the other examples.

        Args:
          level: the confidence of the interval, bootstrapped over pairs.

        Returns:
          For each preset the mean difference and its interval; above 0 the fitted ones are better.
        """
        ours = self.reported.values(METRIC, FITTED)
        sign = 1 if self.best == "min" else -1
        found = {}
        for name, _ in self.reported.candidates(METRIC):
            if name != FITTED:
                difference = sign * (self.reported.values(METRIC, name) - ours)
                low, high = interval(difference, level)
                found[name] = (float(difference.mean()), float(low), float(high))
        return found

    def _title(self) -> str:
        return "fitted: " + ", ".join(f"{name}={v:.4g}" for name, v in self.point.items())

    def _table(self) -> _tables.Table:
        rows = tuple(
            (rank.method, f"{rank.mean:.4g} [{rank.interval[0]:.4g}, {rank.interval[1]:.4g}]")
            for rank in self.reported.ranking(METRIC, best=self.best)
        )
        examples = len(self.reported.values(METRIC, FITTED))
        notes = [self._title()]
        for name, (mean, low, high) in self.margins().items():
            word = "beats" if low > 0 else "loses to" if high < 0 else "is not told apart from"
            notes.append(f"fitted {word} {name}: better by {mean:.4g} [{low:.4g}, {high:.4g}]")
        header = ("method", f"on {examples} other examples")
        return _tables.Table(header, rows, frozenset({1}), notes=tuple(notes))


def tune(
    make: Callable[..., Callable[..., Any]],
    ranges: Mapping[str, tuple[float, float]],
    metric: Callable[..., Any],
    fit: Iterable[tuple[Any, Any]],
    report: Iterable[tuple[Any, Any]],
    *,
    params: Any = None,
    presets: Mapping[str, Callable[..., Any]] | None = None,
    search: Literal["random", "grid", "gradient"] = "random",
    trials: int = 32,
    best: Literal["min", "max"] = "min",
    learning_rate: float = 0.1,
    key: Array | None = None,
    progress: bool = True,
) -> Tuned:
    """Fit the numbers of a composite to a metric, and meet the presets on examples not seen.

    The numbers are traced: all trials are one compiled program. What a search finds is the best of
    many on the same examples, so only the report on other ones says whether it is better.

    Args:
      make: `(**numbers) -> explain`, as for `Grid`: `explain` of the form of `relevance`.
      ranges: for each number the lowest and the highest value. They are searched on a logarithmic
        scale where the lowest is above 0.
      metric: `(params, x, relevance=, target=) -> (batch,)`, as `lrp_jax.evaluation` makes (of a
        curve, its `area`).
      fit, report: batches to fit by and batches to report on: pairs of inputs and class indices, as
        for `study`.
      params: the first argument of `explain` and of the metric.
      presets: by name what to compare with, of the form of `relevance`.
      search: `"random"` points; a `"grid"`, the points of all numbers at equal steps; or
        `"gradient"`: steps of Adam from the middle of the ranges, a batch each (needs `optax`, and
        a metric that changes smoothly with relevance; flipping, which sorts it, does not).
      trials: how many points, or steps of Adam. A grid has the largest number of steps for each
        number whose product is at most this.
      best: `"min"` or `"max"`.
      learning_rate: of Adam, as a share of the ranges.
      key: what random points are drawn with; `jax.random.key(0)` if not given.
      progress: whether to show a progress bar (needs `tqdm`).

    Returns:
      `Tuned`, which prints as a ranking with intervals and a sentence for each preset.

    Raises:
      ValueError: for a range that is empty, or a metric without a slope.

    >>> import lrp_jax as lrp
    >>> w = jnp.array([[1.0], [2.0], [-1.0]])
    >>> f = lambda w, x: x @ w
    >>> make = lambda gamma: lrp.relevance(f, lrp.Gamma(gamma))
    >>> error = lambda w, x, relevance, target: ((relevance - 1) ** 2).sum(-1)
    >>> data = [(jnp.ones((4, 3)), jnp.zeros(4, int))]
    >>> grid = {"search": "grid", "trials": 5, "progress": False}
    >>> tune(make, {"gamma": (0.0, 2.0)}, error, data, data, params=w, **grid).point
    {'gamma': 2.0}
    """
    if best not in ("min", "max"):
        raise ValueError(f'best is "min" or "max", not {best!r}')
    if search not in ("random", "grid", "gradient"):
        raise ValueError(f'search is "random", "grid" or "gradient", not {search!r}')
    scoring.require_positive("trials", trials)
    wrong = [
        name for name, both in ranges.items() if np.shape(both) != (2,) or not both[0] < both[1]
    ]
    if wrong or not ranges:
        raise ValueError(
            "ranges needs a pair (low, high), low below high, for each number of make, got "
            f"{dict(ranges)}"
        )
    batches = batches_of(fit)
    places: Sequence[Any]
    if search == "gradient":
        places = _descended(
            make, ranges, metric, batches, params, trials, best, learning_rate, progress
        )
    else:
        places = list(_places(len(ranges), search, trials, key))
    points = [
        {n: float(v) for n, v in _numbers(jnp.asarray(place), ranges).items()} for place in places
    ]
    compared = dict(presets or {})
    if FITTED in compared:
        raise ValueError(f"{FITTED!r} is the name of what is tuned; give the preset another one")
    metrics, options = {METRIC: metric}, {"params": params, "progress": progress}
    fitted = study({FITTED: _Points(make, points)} | compared, metrics, batches, **options)
    ranks = fitted.ranking(METRIC, best=best)
    point = next(rank.point for rank in ranks if rank.method == FITTED)
    found = {FITTED: _Points(make, [point])} | compared
    return Tuned(point, fitted, study(found, metrics, report, **options), best)


class _Points(Grid):
    """A method with parameters, and the points where it is evaluated."""

    def __init__(
        self, make: Callable[..., Callable[..., Any]], points: Sequence[dict[str, float]]
    ) -> None:
        super().__init__(make, **{name: [p[name] for p in points] for name in points[0]})

    def points(self) -> list[dict[str, float]]:
        return [
            dict(zip(self.values, point, strict=True))
            for point in zip(*self.values.values(), strict=True)
        ]


def _places(count: int, search: str, trials: int, key: Array | None) -> np.ndarray:
    """Points of the unit cube, (points, numbers)."""
    if search == "random":
        key = jax.random.key(0) if key is None else key
        return np.asarray(jax.random.uniform(key, (trials, count)))
    steps = int(trials ** (1 / count) + 1e-9)
    along = np.linspace(0, 1, steps) if steps > 1 else np.array([0.5])
    return np.array(list(itertools.product(along, repeat=count)))


def _numbers(place: Array, ranges: Mapping[str, tuple[float, float]]) -> dict[str, Array]:
    """The numbers at a point of the unit cube."""
    return {
        name: low * (high / low) ** u if low > 0 else low + (high - low) * u
        for u, (name, (low, high)) in zip(place, ranges.items(), strict=True)
    }


def _descended(
    make: Callable[..., Callable[..., Any]], ranges: Mapping[str, tuple[float, float]],
    metric: Callable[..., Any], batches: Sequence[tuple[Any, Any]], params: Any, steps: int,
    best: str, learning_rate: float, progress: bool,
) -> list[Array]:  # fmt: skip
    """The middle of the unit cube, and where gradients lead from there."""
    optax = require("optax", "tuning by gradients")
    optimizer = optax.adam(learning_rate)
    sign = 1 if best == "min" else -1

    @jax.jit
    def step(place: Array, moments: Any, params: Any, x: Array, target: Array) -> Any:
        def loss(place: Array) -> Array:
            values = {n: scoring.float_like(v, x) for n, v in _numbers(place, ranges).items()}
            relevance = made(make, values)(params, x, target=target)
            return sign * metric(params, x, relevance=relevance, target=target).mean()

        slope = jax.grad(loss)(place)
        change, moments = optimizer.update(slope, moments, place)
        return jnp.clip(place + change, 0, 1), moments, jnp.abs(slope).sum()

    start = jnp.full(len(ranges), 0.5)
    place, moments, steepness = start, optimizer.init(start), []
    for number in range(steps):
        x, target = batches[number % len(batches)]
        with told(params, x, target):
            place, moments, steep = step(
                place, moments, params, jnp.asarray(x), jnp.asarray(target)
            )
        steepness.append(float(steep))
    if not np.isfinite(steepness).all() or not any(steepness):
        raise ValueError(
            "the metric has no slope with respect to these numbers: it sorts relevance, or does "
            "not depend on them. Search by 'random' or 'grid'."
        )
    return [start, place]
