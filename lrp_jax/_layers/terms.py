"""Terms: how a rule shares relevance among the positive and the negative contributions."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax


class Term(NamedTuple):
    """`R_i += sum_j (positive * k+_ij + negative * k-_ij) * share_j`.

    Attributes:
        share: of the output's shape.
        positive: weight of the positive contributions.
        negative: weight of the negative contributions.
    """

    share: jax.Array
    positive: Any
    negative: Any


def equal(a: Any, b: Any) -> bool:
    """Whether two weights of a term are the same number, known before any value is."""
    return a is b or (isinstance(a, int | float) and isinstance(b, int | float) and a == b)


def shared_alike(terms: Sequence[Term]) -> Any | None:
    """The share of every contribution, where the terms tell no signs apart; else None."""
    if all(equal(t.positive, t.negative) for t in terms):
        return total_of([t.share * t.positive for t in terms])
    return None


def even_and_odd(terms: Sequence[Term]) -> tuple[Any, Any]:
    """The share of k_ij, and that of |k_ij|."""
    even = total_of([t.share * ((t.positive + t.negative) / 2) for t in terms])
    return even, total_of([t.share * ((t.positive - t.negative) / 2) for t in terms])


def total_of(parts: Sequence[Any]) -> Any:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
