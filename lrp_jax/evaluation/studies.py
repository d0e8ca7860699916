"""A study: many explanations of the same examples, measured in the same way, as one table.

methods = {
    "gamma-epsilon": Grid(lambda gamma, epsilon: relevance(f, my_composite(gamma, epsilon)),
                          gamma=[0, 0.1, 1], epsilon=[0, 0.1, 1]),
    "gradient": baselines.gradient(f),
}
table = study(methods, {"auc": lambda p, x, relevance, target: area(flip(...))}, batches)
table.ranking("auc")
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .. import _tables
from .._analysis.identity import checksum_of_any, program_of
from .._files import differences, locked
from ..datasets import checksum_of, progress_bar, require
from ..targets import scoring
from .calls import batches_of, made, told
from .flipping import interval


class Grid:
    """A method with parameters, and the values they take: all combinations are evaluated.

    The parameters are traced values, so the whole grid is one compilation.

    Args:
      make: `(**parameters) -> explain`, with `explain` of the form of `relevance`.
      values: for each parameter the numbers it takes.

    >>> Grid(lambda gamma: None, gamma=[0.0, 1.0]).points()
    [{'gamma': 0.0}, {'gamma': 1.0}]
    """

    def __init__(self, make: Callable[..., Callable[..., Any]], **values: Sequence[float]) -> None:
        if not values or not all(len(v) for v in values.values()):
            raise ValueError("a grid needs parameters, each with at least one value")
        self.make = make
        self.values = {name: [float(v) for v in numbers] for name, numbers in values.items()}

    def points(self) -> list[dict[str, float]]:
        """All combinations of the values, the last parameter running fastest."""
        return [
            dict(zip(self.values, point, strict=True))
            for point in itertools.product(*self.values.values())
        ]


@dataclasses.dataclass(frozen=True, repr=False)
class Table(_tables.Shown):
    """One row for each method, point of its grid, example and metric.

    Attributes:
      columns: `method`, the parameters of all grids (NaN where a method has none of that name),
        `example`, `metric` and `value`, arrays of equal length.
    """

    columns: dict[str, np.ndarray]

    def _title(self) -> str:
        examples = len(set(self.columns["example"].tolist()))
        return f"Means over {_tables.counted(examples, 'example')}"

    def _table(self) -> _tables.Table:
        """Means over the examples, with 95 % intervals: a row for each method and point."""
        metrics = list(dict.fromkeys(self.columns["metric"].tolist()))
        found: dict[tuple[str, ...], dict[str, str]] = {}
        for metric in metrics:
            for method, point in self.candidates(metric):
                values = self.values(metric, method, **point)
                low, high = interval(values, 0.95)
                text = f"{values.mean():.4g} [{low:.4g}, {high:.4g}]"
                numbers = (f"{point[n]:g}" if n in point else "" for n in self.parameters)
                found.setdefault((method, *numbers), {})[metric] = text
        rows = tuple((*key, *(cells.get(m, "") for m in metrics)) for key, cells in found.items())
        header = ("method", *self.parameters, *metrics)
        return _tables.Table(header, rows, frozenset(range(1, len(header))))

    def to_pandas(self) -> Any:
        """The table as a `pandas.DataFrame`."""
        return require("pandas", "data frames").DataFrame(self.columns)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the grids' parameters."""
        fixed = ("method", "example", "metric", "value")
        return tuple(name for name in self.columns if name not in fixed)

    def values(self, metric: str, method: str, **point: float) -> np.ndarray:
        """The values of one method at one point of its grid, one for each example (in their order).

        Raises:
          KeyError: nothing of that name was measured.
        """
        chosen = (self.columns["metric"] == metric) & (self.columns["method"] == method)
        for name, value in point.items():
            chosen &= self.columns[name] == value
        if not chosen.any():
            raise KeyError(f"no values of {metric!r} for {method!r} at {point}")
        examples = self.columns["example"][chosen]
        if len(set(examples.tolist())) < len(examples):
            raise KeyError(f"{method!r} has several points: name one, {self.candidates(metric)}")
        return self.columns["value"][chosen][np.argsort(examples)]

    def candidates(self, metric: str) -> list[tuple[str, dict[str, float]]]:
        """All methods, with each point of their grids, in the order of the table."""
        chosen = self.columns["metric"] == metric
        names = self.parameters
        rows = zip(
            self.columns["method"][chosen], *(self.columns[n][chosen] for n in names), strict=True
        )
        found = {}
        for method, *point in rows:
            known = {n: float(p) for n, p in zip(names, point, strict=True) if not np.isnan(p)}
            found[str(method), tuple(known.items())] = (str(method), known)
        if not found:
            raise KeyError(
                f"no metric {metric!r} in this table: {sorted(set(self.columns['metric']))}"
            )
        return list(found.values())

    def surface(self, metric: str, method: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The means over examples on a method's grid: each parameter's values, and the array."""
        points = [p for m, p in self.candidates(metric) if m == method and p]
        if not points:
            raise KeyError(f"{method!r} has no grid in this table")
        axes = {name: np.array(sorted({p[name] for p in points})) for name in points[0]}
        means = np.full([len(a) for a in axes.values()], np.nan)
        for point in points:
            place = tuple(int(np.searchsorted(axes[n], v)) for n, v in point.items())
            means[place] = self.values(metric, method, **point).mean()
        return axes, means

    def ranking(self, metric: str, *, best: str = "min", level: float = 0.95) -> "list[Rank]":
        """All candidates from best to worst, with intervals of means and distances to the best.

        Intervals are bootstrapped over examples, those of distances over pairs. The best of a
        grid was chosen on the same examples and is flattered by it: confirm it on others.

        Args:
          metric: the name of a metric.
          best: `"min"` or `"max"`.
          level: the confidence of the intervals.

        Returns:
          One `Rank` for each method and point.
        """
        if best not in ("min", "max"):
            raise ValueError(f'best is "min" or "max", not {best!r}')
        entries = [(m, p, self.values(metric, m, **p)) for m, p in self.candidates(metric)]
        sign = 1 if best == "min" else -1
        entries.sort(key=lambda e: (np.isnan(e[2].mean()), sign * e[2].mean()))
        top = entries[0][2]

        def bounds(values: np.ndarray) -> tuple[float, float]:
            low, high = interval(values, level)
            return float(low), float(high)

        return [Rank(m, p, float(v.mean()), bounds(v), bounds(v - top)) for m, p, v in entries]


@dataclasses.dataclass(frozen=True)
class Rank:
    """A candidate's place.

    Attributes:
      method, point: what it is.
      mean: over examples.
      interval: of the mean.
      behind: interval of the mean difference to the best candidate; if it holds 0, the difference
        is not significant.
    """

    method: str
    point: dict[str, float]
    mean: float
    interval: tuple[float, float]
    behind: tuple[float, float]

    def __str__(self) -> str:
        point = ", ".join(f"{n}={v:g}" for n, v in self.point.items())
        name = f"{self.method}({point})" if point else self.method
        low, high = self.interval
        tied = self.behind[0] <= 0 <= self.behind[1]
        tie = "  (not significantly behind the best)" if tied else ""
        return f"{name:40s} {self.mean:9.4f}  [{low:.4f}, {high:.4f}]{tie}"


def study(
    methods: Mapping[str, Any],
    metrics: Mapping[str, Callable[..., Any]],
    batches: Iterable[tuple[Any, Any]],
    *,
    params: Any = None,
    path: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Table:
    """Measure explanations: methods and points of their grids x metrics x examples.

    Args:
      methods: by name an explanation of the form of `relevance` (LRP, or one of
        `lrp_jax.baselines`), or a `Grid` of them.
      metrics: by name a function `(params, x, relevance=, target=) -> (batch,)`, as
        `lrp_jax.evaluation` makes (of a curve, its `area`).
      batches: pairs of inputs and class indices with the batch axis in front, of equal sizes (the
        last may be smaller and compiles once more). They are read once and kept.
      params: the first argument of `explain` and of the metrics.
      path: a file (JSON lines) that receives each result as it is ready. A call with the same
        methods, metrics, parameters and data continues it: what they compute is compared, not
        their names alone (a metric that JAX cannot trace is known by its name). One process at a
        time writes it.
      progress: whether to show a progress bar (needs `tqdm`).

    Returns:
      The `Table`.

    Raises:
      ValueError: `path` holds another study, or something else.
      RuntimeError: another process is writing `path`.
      OSError: `path` cannot be written, which is tried first.

    >>> explain = lambda params, x, target=None: x
    >>> total = lambda params, x, relevance, target: relevance.sum(-1)
    >>> batches = [(jnp.ones((2, 3)), jnp.zeros(2, int))]
    >>> table = study({"input": explain}, {"sum": total}, batches, progress=False)
    >>> table.values("sum", "input")
    array([3., 3.])
    """
    if not isinstance(methods, Mapping) or not isinstance(metrics, Mapping):
        raise TypeError(
            "a study takes methods and metrics by name, as {'LRP': lrp.relevance(...)}, got "
            f"{type(methods).__name__} and {type(metrics).__name__}"
        )
    data = batches_of(batches)
    if not data or not methods or not metrics:
        raise ValueError("a study needs methods, metrics and batches")
    cells = [
        (name, point, index)
        for name, method in methods.items()
        for point in (method.points() if isinstance(method, Grid) else [{}])
        for index in range(len(data))
    ]
    file = None if path is None else Path(path)
    with contextlib.nullcontext() if file is None else locked(file):
        log = None if file is None else _Log(file, _fingerprint(methods, metrics, data, params))
        measures = {name: _measure(method, metrics) for name, method in methods.items()}
        records = [] if log is None else list(log.records)
        if [_cell(r) for r in records] != cells[: len(records)]:
            raise ValueError(f"{path} is not the beginning of this study; give another path")
        for name, point, index in progress_bar(cells[len(records) :], None, progress):
            x, target = data[index]
            with told(params, x, target):
                values = measures[name](point, params, jnp.asarray(x), jnp.asarray(target))
            record = {
                "method": name,
                "point": point,
                "batch": index,
                "values": {m: np.asarray(v, np.float64).tolist() for m, v in values.items()},
            }
            if log is not None:
                log.append(record)
            records.append(record)
    return _table(records, [len(y) for _, y in data])


def _measure(method: Any, metrics: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """From a method's point, the parameters and a batch to its metrics."""
    explained = _explanation(method)

    def measure(point: dict[str, float], params: Any, x: Array, target: Array) -> dict[str, Any]:
        values = {n: scoring.float_like(v, x) for n, v in point.items()}
        relevance = explained(values, params, x, target)
        results = {m: f(params, x, relevance=relevance, target=target) for m, f in metrics.items()}
        for name, value in results.items():
            if np.shape(value) != (len(x),):
                raise ValueError(
                    f"metric {name!r} returned the shape {np.shape(value)} for {len(x)} "
                    "examples; a study needs one number for each (of curves, their area)"
                )
        return results

    return measure


def _explanation(method: Any) -> Callable[..., Any]:
    is_grid = isinstance(method, Grid)
    return _compiled(_Identity(method.make if is_grid else method), is_grid)


class _Identity:
    """A function as a key, equal to itself alone: not all functions can be hashed."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __hash__(self) -> int:
        return id(self.function)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.function is other.function


@functools.lru_cache(maxsize=32)
def _compiled(method: _Identity, is_grid: bool) -> Callable[..., Any]:
    """One compiled function of a point, the parameters and a batch.

    It is remembered: a second study of the same methods, on other examples, compiles nothing.
    """

    @jax.jit
    def explained(point: dict[str, Array], params: Any, x: Array, target: Array) -> Any:
        function = method.function
        explain = made(function, point) if is_grid else scoring.explaining(function, "a study")
        return explain(params, x, target=target)

    return explained


class _Log:
    """The file of a study: a first line that says which, then one line for each finished cell."""

    def __init__(self, path: Path, fingerprint: dict[str, Any]) -> None:
        self.path = path
        self.records: list[dict[str, Any]] = []
        text = path.read_bytes() if path.exists() else b""
        whole = [line for line in text.splitlines(keepends=True) if line.endswith(b"\n")]
        first = _line(fingerprint)
        if not whole and first.startswith(text):  # new, or killed while it was made
            path.write_bytes(first)
            return
        try:
            head, *records = (json.loads(line) for line in whole)
            found = differences(head, fingerprint, _words(fingerprint))
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{path} is not the file of a study; give another path") from error
        if found:
            raise ValueError(
                f"{path} holds another study, which differs in {found}: give another path, or "
                "remove it to start anew"
            )
        self.records = records
        # A line that was cut short by a kill is done again.
        with open(path, "r+b") as file:
            file.truncate(sum(len(line) for line in whole))

    def append(self, record: dict[str, Any]) -> None:
        with open(self.path, "ab") as file:
            file.write(_line(record))
            file.flush()
            os.fsync(file.fileno())


def _line(record: dict[str, Any]) -> bytes:
    return (json.dumps(record) + "\n").encode()


def _cell(record: dict[str, Any]) -> tuple[str, dict[str, float], int]:
    return record["method"], record["point"], record["batch"]


def _fingerprint(
    methods: Mapping[str, Any],
    metrics: Mapping[str, Any],
    data: list[tuple[np.ndarray, np.ndarray]],
    params: Any,
) -> dict[str, Any]:
    """What a study computes: names and numbers, and the programs of methods and metrics."""
    given: dict[str, Any] = {
        "methods": {n: m.values if isinstance(m, Grid) else {} for n, m in methods.items()},
        "metrics": list(metrics),
        "examples": [len(y) for _, y in data],
        "checksum": checksum_of(array for batch in data for array in batch),
        "parameters": checksum_of_any(jax.tree.leaves(params)),
    }
    x, target = map(jnp.asarray, data[0])
    relevance: Any = x
    for name, method in methods.items():
        point = method.points()[0] if isinstance(method, Grid) else {}
        values = {n: scoring.float_like(v, x) for n, v in point.items()}
        explained = _explanation(method)
        given[f"method {name!r}"] = program_of(explained, values, params, x, target)
        if given[f"method {name!r}"] is not None:
            relevance = jax.eval_shape(explained, values, params, x, target)
    for name, metric in metrics.items():

        def measured(params: Any, x: Any, relevance: Any, target: Any, metric: Any = metric) -> Any:
            return metric(params, x, relevance=relevance, target=target)

        given[f"metric {name!r}"] = program_of(measured, params, x, relevance, target)
    return given


def _words(fingerprint: dict[str, Any]) -> dict[str, str]:
    named = {
        "methods": "the methods or their grids",
        "metrics": "the metrics",
        "examples": "the sizes of batches",
        "checksum": "the data",
        "parameters": "the parameters",
    }
    programs = {
        key: f"what {key} computes"
        + (" (its function or composite)" if key.startswith("method ") else "")
        for key in fingerprint
        if key not in named
    }
    return named | programs


def _table(records: list[dict[str, Any]], sizes: list[int]) -> Table:
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    names = list(dict.fromkeys(name for r in records for name in r["point"]))

    def rows() -> Iterator[tuple[Any, ...]]:
        for r in records:
            point = [r["point"].get(name, np.nan) for name in names]
            for metric, values in r["values"].items():
                for i, value in enumerate(values):
                    yield (r["method"], *point, int(offsets[r["batch"]]) + i, metric, value)

    columns = zip(*rows(), strict=True)
    keys = ["method", *names, "example", "metric", "value"]
    return Table({k: np.array(c) for k, c in zip(keys, columns, strict=True)})
