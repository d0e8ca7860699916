"""Scores of concepts, and the examples of a data set that score highest for each.

By relevance that is RelMax, by activation ActMax.

Source: Achtibat et al. 2023, "From attribution maps to human-understandable explanations through
Concept Relevance Propagation".
"""

import os
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from .._calls.arguments import ArgNums
from .._calls.call import Start
from .._calls.explained import Explained
from .._calls.hints import no_target
from .._files import replacing, writable
from .._tables import Shown, Table, counted
from ..composites import Composite
from ..datasets import checksum_of, progress_bar, results
from .flow import Flow, key_of, pooled
from .sites import one


@no_target
def concept_scores(
    apply_fn: Callable[..., Any],
    composite: Any,
    layer: Any,
    argnums: ArgNums = 1,
    *,
    axis: int | None = None,
    by: Literal["relevance", "activation"] = "relevance",
    pool: Literal["sum", "max"] = "sum",
    normalize: bool | None = None,
    has_aux: bool = False,
) -> Callable[..., jax.Array]:
    """A function from a call of `apply_fn` to the score of each concept of a layer.

    The relevance (or the value) at the layer's output, summed over positions (or its maximum), for
    each example and unit; divided by the sum of the absolute scores with `normalize`.

    Args:
        apply_fn: the function to explain.
        composite: a composite, or one rule for every layer with weights.
        layer: a path glob or another match of one layer.
        argnums: the explained positional arguments.
        axis: the axis of units (default: the features).
        by: "relevance" or "activation".
        pool: "sum" or "max" over positions.
        normalize: whether scores are fractions of the total absolute score of an example (default:
            relevance is, activations are not).
        has_aux: whether `apply_fn` returns `(output, aux)`.

    Returns:
        A function of the arguments of `apply_fn` and `target=None`, to an array (examples, units);
        the turns of a loop around the layer lead.

    Raises:
        ValueError: for a layer that is not there or not one, or another `by` or `pool`.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> f = lambda w, x: (x @ w["a"]) @ w["b"]
        >>> w = {"a": jnp.eye(2), "b": jnp.ones((2, 1))}
        >>> print(lrp.concept_scores(f, lrp.Zero(), "a")(w, jnp.array([[1.0, 3.0]])))
        [[0.25 0.75]]
    """
    if by not in ("relevance", "activation") or pool not in ("sum", "max"):
        raise ValueError(f"by={by!r}, pool={pool!r}: 'relevance' or 'activation', 'sum' or 'max'.")
    explained = Explained(apply_fn, composite, argnums, has_aux)

    def scores(*args: Any, target: Any = None, **kwargs: Any) -> jax.Array:
        call, leaves = explained.prepare(args, kwargs)
        site = one(call, layer)

        def evaluate(begin: Start, composite: Composite, leaves: Any, target: Any) -> Any:
            flow = Flow(call, begin, composite, leaves, target, [site], axis)
            relevant = by == "relevance"
            found = flow.relevance(site, flow.arrived) if relevant else flow.values[key_of(site)]
            summed = pooled(found, site, axis, jnp.sum if pool == "sum" else jnp.max)
            if relevant if normalize is None else normalize:
                total = jnp.abs(summed).sum(-1, keepdims=True)
                summed = summed / jnp.where(total == 0, 1, total)
            return summed

        return explained.run(call, "scores", evaluate, leaves, target)

    return scores


@dataclass(frozen=True, repr=False)
class References(Shown):
    """The examples of a data set that score highest for each concept, the best first.

    Attributes:
        indices: their positions in the data set, (units, k).
        scores: their scores, (units, k).
    """

    indices: np.ndarray
    scores: np.ndarray

    def _table(self) -> Table:
        first = self.scores[..., 0]
        order = np.argsort(-first, None, kind="stable")[:_PRINTED]
        rows = []
        for unit in zip(*np.unravel_index(order, first.shape), strict=True):
            best = zip(self.indices[unit], self.scores[unit], strict=True)
            told = ", ".join(f"{i} ({score:.3g})" for i, score in best)
            rows.append((", ".join(map(str, unit)), told))
        notes = (f"and {first.size - _PRINTED} more units",) if first.size > _PRINTED else ()
        return Table(("unit", "examples, the best first"), tuple(rows), notes=notes)

    def _title(self) -> str:
        count = int(np.prod(self.scores.shape[:-1]))
        return f"The best examples of {counted(count, 'unit')}"


_PRINTED = 20
"""Units of references that are shown, those with the best examples."""


def reference_samples(
    apply_fn: Callable[..., Any],
    composite: Any,
    layer: Any,
    argnums: ArgNums = 1,
    *,
    k: int = 8,
    axis: int | None = None,
    by: Literal["relevance", "activation"] = "relevance",
    pool: Literal["sum", "max"] = "sum",
    normalize: bool | None = None,
) -> Callable[..., References]:
    """A function from parameters and batches to the `k` best examples of each concept of a layer.

    Batches are scored by one compiled function (`concept_scores`), the last short one padded to the
    size of the first; only the best so far are kept.

    Args:
        apply_fn: `apply_fn(params, x)`, the function to explain.
        composite: a composite, or one rule for every layer with weights.
        layer: a path glob or another match of one layer.
        argnums: the explained positional arguments.
        k: how many examples of each concept.
        axis: the axis of units (default: the features).
        by: "relevance" (RelMax) or "activation" (ActMax).
        pool: "sum" or "max" over positions.
        normalize: whether scores are fractions of the total absolute score of an example (default:
            relevance is, activations are not).

    Returns:
        A function of `(params, batches, *, path=None, progress=True, total=None)` to `References`.
        A batch is an array of inputs, or a tuple `(inputs, target)`. With a `path` (an `.npz` file)
        the best so far are saved after every batch, and a run that was killed goes on from there;
        it must be given the same batches. `progress` shows a bar (needs `tqdm`), whose length is
        `total` where `len(batches)` does not tell.

    Raises:
        OSError: for a path that cannot be written, before the first batch.
        ValueError: for `k` below 1, scores that are not finite, a function without a batch axis, or
            batches that are not those of the run to be continued.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> f = lambda w, x: x @ w["a"] @ w["b"]
        >>> w = {"a": jnp.eye(2), "b": jnp.ones((2, 1))}
        >>> find = lrp.questions.reference_samples(f, lrp.Zero(), "a", k=1, normalize=False)
        >>> batches = [jnp.array([[1.0, 2.0], [3.0, 0.0]]), jnp.array([[0.0, 5.0]])]
        >>> find(w, batches, progress=False).indices.tolist()
        [[1], [2]]
    """
    if k < 1:
        raise ValueError(f"k={k}: it is a number of examples, at least 1.")
    scores = concept_scores(
        apply_fn, composite, layer, argnums, axis=axis, by=by, pool=pool, normalize=normalize
    )

    def score(params: Any, x: Any, target: Any = None) -> jax.Array:
        found = scores(params, x, target=target)
        if found.ndim < 2:
            raise ValueError("reference samples need a function of batches: examples leading.")
        return jnp.moveaxis(found, -2, 0)  # a loop's turns behind the examples

    compiled = jax.jit(score)

    def find(
        params: Any,
        batches: Iterable[Any],
        *,
        path: str | os.PathLike[str] | None = None,
        progress: bool = True,
        total: int | None = None,
    ) -> References:
        if total is None and isinstance(batches, Sized):
            total = len(batches)
        best = _Best(k)
        if path is not None:
            writable(Path(path))
            question = f"{layer!r} of {composite!r} by {by}, {pool}, {axis=}, {normalize=}, {k=}"
            best.resume(Path(path), f"{question}, parameters {_checksum(params):08x}")
        bar = progress_bar(batches, total, progress)

        def scored(*batch: Any, **named: Any) -> jax.Array:
            return compiled(params, *batch, **named)

        for index, found in results(scored, bar, best.done):
            best.add(index, found)
        return best.references()

    return find


class _Best:
    """The best examples so far, in a file where one is named."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.path: Path | None = None
        self.question = ""
        self.offsets = [0]
        self.checksums: list[int] = []
        self.saved: list[int] = []
        self.found: References | None = None

    def resume(self, path: Path, question: str) -> None:
        """Save to a file from now on, and go on from what is in it."""
        self.path, self.question = path, question
        if not path.exists():
            return
        with np.load(path) as state:
            if str(state["question"]) != question:
                raise ValueError(
                    f"{path} answers another question ({state['question']}) than this one "
                    f"({question}); remove it to start anew"
                )
            self.found = References(state["indices"], state["scores"])
            self.saved = state["batches"].tolist()

    def done(self, index: int, batch: Any) -> bool:
        """Whether a batch is among the best already; batches come in order."""
        self.offsets.append(self.offsets[-1] + len(jax.tree.leaves(batch)[0]))
        if self.path is None:
            return False
        self.checksums.append(_checksum(batch))
        if index >= len(self.saved):
            return False
        if self.saved[index] != self.checksums[index]:
            raise ValueError(
                f"batch {index} is not the one that an earlier run has put into {self.path}; "
                "remove that file to start anew"
            )
        return True

    def add(self, index: int, scores: np.ndarray) -> None:
        """Merge the scores (examples, *units) of one batch."""
        if not np.isfinite(scores).all():
            raise ValueError(f"scores of batch {index} are not finite; conservation() says where.")
        scores = np.moveaxis(scores, 0, -1)
        indices = np.broadcast_to(self.offsets[index] + np.arange(scores.shape[-1]), scores.shape)
        if self.found is not None:
            scores = np.concatenate([self.found.scores, scores], -1)
            indices = np.concatenate([self.found.indices, indices], -1)
        # A stable sort: among equals the earlier example wins, whatever the batches were.
        order = np.argsort(-scores, -1, kind="stable")[..., : self.k]
        self.found = References(
            np.take_along_axis(indices, order, -1), np.take_along_axis(scores, order, -1)
        )
        if self.path is not None:
            self._save(self.path, self.found, self.checksums[: index + 1])

    def _save(self, path: Path, found: References, batches: list[int]) -> None:
        with replacing(path) as partial, open(partial, "wb") as file:
            np.savez(file, **vars(found), batches=batches, question=self.question)

    def references(self) -> References:
        """What was found."""
        if self.found is None:
            raise ValueError("reference_samples got no batches")
        if len(self.saved) > len(self.offsets) - 1:
            raise ValueError(f"{self.path} is of more batches than this run has; remove it.")
        return self.found


def _checksum(tree: Any) -> int:
    return checksum_of(leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype"))


def receptive_window(relevance: Any, fraction: float = 0.9) -> tuple[slice, slice]:
    """The smallest square window of a picture that holds a fraction of its absolute relevance.

    Args:
        relevance: `(height, width)`, or `(height, width, channels)`: channels are summed.
        fraction: of the sum of |R|, above 0 and at most 1.

    Returns:
        Slices of rows and columns; of the whole picture where there is no relevance. The square is
        cut where the picture is not as high or wide.

    Raises:
        ValueError: for another shape or fraction.

    Example:
        >>> relevance = np.zeros((6, 6))
        >>> relevance[2, 3] = relevance[3, 4] = 1.0
        >>> receptive_window(relevance)
        (slice(2, 4, None), slice(3, 5, None))
    """
    size = np.asarray(relevance, float)
    size = np.abs(size.sum(-1) if size.ndim == 3 else size)
    if size.ndim != 2 or not 0 < fraction <= 1:
        raise ValueError(
            f"relevance (height, width) or (height, width, channels) and a fraction from 0 to 1 "
            f"are needed, got the shape {np.shape(relevance)} and {fraction}"
        )
    if not np.isfinite(size).all():
        raise ValueError("relevance is not finite")
    integral = np.zeros((size.shape[0] + 1, size.shape[1] + 1))
    integral[1:, 1:] = size.cumsum(0).cumsum(1)
    # Rounding of the sums must not ask for more than there is.
    wanted = fraction * integral[-1, -1] * (1 - 1e-9)
    low, high = 0, max(size.shape)
    while low + 1 < high:  # the largest mass of a window grows with its side
        middle = (low + high) // 2
        low, high = (low, middle) if _masses(integral, middle).max() >= wanted else (middle, high)
    masses = _masses(integral, high)
    top, left = np.unravel_index(int(np.argmax(masses)), masses.shape)
    return (
        slice(int(top), min(int(top) + high, size.shape[0])),
        slice(int(left), min(int(left) + high, size.shape[1])),
    )


def _masses(integral: np.ndarray, side: int) -> np.ndarray:
    """Sums over all windows of a side."""
    rows, columns = (min(side, n - 1) for n in integral.shape)
    return (
        integral[rows:, columns:]
        - integral[:-rows, columns:]
        - integral[rows:, :-columns]
        + integral[:-rows, :-columns]
    )
