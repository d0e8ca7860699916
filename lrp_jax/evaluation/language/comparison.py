"""Methods side by side on prompts of which it is known what makes the answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ... import targets
from ..._tables import Shown, Table
from ...questions.generation import require_known
from ..correlations import pearson
from ..fills import constant
from ..flipping import area_between, interval, pixel_flipping
from .encoding import Encoded


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """How well methods find what makes an answer; prints as a table with bootstrap intervals.

    Attributes:
        accuracy: of all prompts, for how many the model prefers the right continuation.
        values: by method and measure a number for each prompt that the model is right on. The
            measures are "above" (the reason has more relevance than every other part), "first"
            (the token with the most relevance lies in it), "share" (how much of the positive
            relevance lies in it), "left out" (correlation of the relevance of removable parts with
            the fall of the score without them) and "flipping" (area between the curves of flipping
            the least and the most relevant tokens first).
    """

    accuracy: float
    values: Mapping[str, Mapping[str, np.ndarray]]

    def mean(self, method: str, measure: str) -> float:
        """The mean over prompts."""
        return float(self.values[method][measure].mean())

    def interval(self, method: str, measure: str, level: float = 0.95) -> tuple[float, float]:
        """The bootstrap interval of the mean, the same draws for every method."""
        low, high = interval(self.values[method][measure], level)
        return float(low), float(high)

    def rows(self, level: float = 0.95) -> list[tuple[str, ...]]:
        """A row for each method: its name, and for each measure the mean and its interval."""

        def cell(method: str, measure: str) -> str:
            low, high = self.interval(method, measure, level)
            return f"{self.mean(method, measure):.2f} [{low:.2f}, {high:.2f}]"

        return [(m, *(cell(m, name) for name in found)) for m, found in self.values.items()]

    def _table(self) -> Table:
        measures = next(iter(self.values.values()))
        count = len(next(iter(measures.values())))
        note = f"{count} prompts on which the model is right, {self.accuracy:.0%} of all"
        return Table(("method", *measures), tuple(self.rows()), notes=(note,))


def compare(
    apply_fn: Callable[..., Any],
    methods: Mapping[str, Callable[..., Any]],
    *,
    batch: int = 8,
    fill: int | None = None,
    steps: int = 8,
) -> Callable[[Any, Encoded], Comparison]:
    """A function from parameters and prompts to how well methods find what makes the answers.

    Explained is how far the logit of the right continuation is above that of the wrong one; only
    prompts on which the model is right count.

    Args:
        apply_fn: `apply_fn(params, ids)`, from ids (batch, tokens) to logits (batch, tokens,
            vocabulary). It must be causal: prompts are filled up behind.
        methods: by name a function of `(params, ids, target=...)` to relevance of the shape of
            the ids, such as `lrp.relevance(apply_fn, lrp.AttnLRP())` or those of
            `lrp_jax.baselines`.
        batch: how many prompts are explained together.
        fill: the id that tokens are flipped to; None measures no flipping.
        steps: of the flipping.

    Returns:
        A function of the parameters and of `encode`'s result, to a `Comparison`.

    Raises:
        ValueError: where the model is right on no prompt, where a method gives relevance to what
            stands behind a prompt (the model is not causal) or of another shape.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> from lrp_jax.evaluation import language
        >>> def tokenize(text):  # a word's number of letters
        ...     return [len(word) for word in text.split()]
        >>> def apply(w, ids):  # a short subject goes on with "is"
        ...     e = jax.nn.one_hot(ids[:, :2], 9)[:, 1] @ w["head"]
        ...     return jnp.broadcast_to(e[:, None], (*ids.shape, 9))
        >>> w = {"head": jnp.ones((9, 9)).at[:, 3].set(jnp.arange(9)).at[:, 2].set(5.5)}
        >>> methods = {"LRP-0": lrp.relevance(apply, lrp.Zero())}
        >>> prompts = language.encode(language.agreement()[:4], tokenize)
        >>> found = language.compare(apply, methods)(w, prompts)
        >>> found.mean("LRP-0", "above"), found.mean("LRP-0", "first")
        (1.0, 1.0)
    """
    if batch < 1:
        raise ValueError(f"batch={batch}: at least one prompt is explained together.")
    flips = [
        pixel_flipping(apply_fn, order=order, steps=steps, fill=constant(fill or 0))
        for order in ("lerf", "morf")
    ]

    @jax.jit
    def margins(params: Any, ids: Any, last: Any, right: Any, wrong: Any) -> Any:
        rows = jnp.arange(len(ids))
        logits = apply_fn(params, ids)[rows, last]
        return logits[rows, right] - logits[rows, wrong]

    def compared(params: Any, encoded: Encoded) -> Comparison:
        def margin(*arrays: np.ndarray) -> np.ndarray:
            return _in_batches(partial(margins, params), arrays, batch)

        vocabulary = jax.eval_shape(apply_fn, params, jnp.asarray(encoded.ids[:1])).shape[-1]
        for name, ids in (("right", encoded.right), ("wrong", encoded.wrong)):
            require_known(name, ids, vocabulary)
        questions = (encoded.lengths - 1, encoded.right, encoded.wrong)
        correct = margin(encoded.ids, *questions) > 0
        if not correct.any():
            raise ValueError("the model is right on no prompt: nothing is known of its reasons.")
        (kept,) = np.nonzero(correct)
        asked = tuple(a[kept] for a in (encoded.ids, *questions))
        spans = [encoded.spans[i] for i in kept]
        reasons = [encoded.prompts[i].reason for i in kept]
        falls = _falls([encoded.shorter[i] for i in kept], margin, asked)
        values: dict[str, dict[str, np.ndarray]] = {}
        for name, method in methods.items():
            explain = partial(_explained, method, params)
            relevance = _in_batches(explain, asked, batch)
            _check(name, relevance, encoded.ids[kept], encoded.lengths[kept])
            found = _places(relevance, encoded.lengths[kept], spans, reasons)
            if falls is not None:
                found["left out"] = _agreement(relevance, spans, falls)
            if fill is not None:
                areas = partial(_areas, flips, params)
                found["flipping"] = _in_batches(areas, (*asked, relevance), batch)
            values[name] = found
        return Comparison(float(correct.mean()), values)

    return compared


def _explained(
    method: Callable[..., Any], params: Any, ids: Any, last: Any, right: Any, wrong: Any
) -> Any:
    return method(params, ids, target=targets.token(last, right, contrast=wrong))


def _areas(
    flips: Sequence[Callable[..., Any]], params: Any, ids: Any, last: Any, right: Any, wrong: Any,
    relevance: Any,
) -> Any:  # fmt: skip
    target = targets.token(last, right, contrast=wrong)
    lerf, morf = (flip(params, ids, relevance=relevance, target=target) for flip in flips)
    return area_between(lerf, morf)


def _in_batches(
    function: Callable[..., Any], arrays: Sequence[np.ndarray], batch: int
) -> np.ndarray:
    """A function of examples, called on as many at a time; the last ones are filled up."""
    count = len(arrays[0])
    found = []
    for start in range(0, count, batch):
        rows = np.minimum(np.arange(start, start + batch), count - 1)
        found.append(np.asarray(function(*(jnp.asarray(a[rows]) for a in arrays))))
    return np.concatenate(found)[:count]


def _check(name: str, relevance: np.ndarray, ids: np.ndarray, lengths: np.ndarray) -> None:
    if relevance.shape != ids.shape:
        raise ValueError(f"{name} gives {relevance.shape} for ids {ids.shape}: one for each token.")
    behind = np.arange(ids.shape[1]) >= lengths[:, None]
    if np.abs(relevance[behind]).max(initial=0) > 1e-6 * np.abs(relevance).max():
        raise ValueError(
            f"{name} gives relevance to what stands behind a prompt: the model is not causal. Ask "
            "for prompts of one length at a time."
        )


def _places(
    relevance: np.ndarray,
    lengths: np.ndarray,
    masks: Sequence[Mapping[str, np.ndarray]],
    reasons: Sequence[str],
) -> dict[str, np.ndarray]:
    """What the places of relevance say."""
    above, first, share = [], [], []
    for row, length, spans, reason in zip(relevance, lengths, masks, reasons, strict=True):
        sums = {name: row[mask].sum() for name, mask in spans.items()}
        own = sums.pop(reason)
        above.append(float(all(own > other for other in sums.values())))
        first.append(float(spans[reason][np.argmax(row[:length])]))
        positive = np.maximum(row, 0)
        share.append(positive[spans[reason]].sum() / (positive.sum() or 1))
    return {"above": np.array(above), "first": np.array(first), "share": np.array(share)}


def _falls(
    shorter: Sequence[Mapping[str, tuple[np.ndarray, int]]],
    margin: Callable[..., np.ndarray],
    questions: tuple[np.ndarray, ...],
) -> list[dict[str, float]] | None:
    """How much the score falls without each removable part; None where there are fewer than two."""
    if min(map(len, shorter)) < 2:
        return None
    *_, right, wrong = questions
    whole = margin(*questions)
    places = [(i, name) for i, each in enumerate(shorter) for name in each]
    rows = [i for i, _ in places]
    parts = [shorter[i][name] for i, name in places]
    after = margin(
        np.stack([p for p, _ in parts]),
        np.array([length - 1 for _, length in parts]),
        right[rows],
        wrong[rows],
    )
    found: list[dict[str, float]] = [{} for _ in shorter]
    for (i, name), score in zip(places, after, strict=True):
        found[i][name] = float(whole[i] - score)
    return found


def _agreement(
    relevance: np.ndarray,
    masks: Sequence[Mapping[str, np.ndarray]],
    falls: Sequence[Mapping[str, float]],
) -> np.ndarray:
    """The correlation of the relevance of parts with the fall of the score without them."""
    found = []
    for row, spans, fall in zip(relevance, masks, falls, strict=True):
        parts = np.array([row[spans[name]].sum() for name in fall])
        found.append(float(pearson(jnp.asarray(parts), jnp.asarray(list(fall.values())))))
    return np.array(found)
