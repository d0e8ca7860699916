"""Products of exponentials, and sums of them: what a `Term` is.

exp(a + b - c) is kept as its exponent and exp(log y) is y.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..._analysis.factors import Factor, joined, raised

NONE: frozenset[int] = frozenset()
_LARGEST = 700.0
"""The exponential of more is no number in float64."""


@dataclass(frozen=True)
class Term:
    """number * prod factor^power * exp(sum coefficient * factor), summed over the bound labels."""

    number: float = 1.0
    powers: Mapping[Factor, float] = field(default_factory=dict)
    exponent: Mapping[Factor, float] = field(default_factory=dict)
    bound: frozenset[int] = frozenset()

    def times(self, other: "Term", sign: float = 1) -> "Term":
        return Term(
            self.number * other.number**sign,
            joined(self.powers, other.powers, sign),
            joined(self.exponent, other.exponent, sign),
            self.bound | other.bound,
        )

    def raised(self, power: float) -> "Term | None":
        """A power of a term that is no sum; None of what may be negative, or as exp(-1e9), with
        which masks are added, is no number."""
        log = math.log(self.number) * power if 0 < self.number < math.inf else math.inf
        if self.bound or abs(log) > _LARGEST:
            return None
        powers, exponent = (
            {f: rounded(n * power) for f, n in own.items()} for own in (self.powers, self.exponent)
        )
        return Term(raised(self.number, power), powers, exponent)

    def part(self, bound: bool) -> "Term":
        """The factors that have bound labels, or those that have none."""

        def kept(factors: Mapping[Factor, Any]) -> dict[Factor, Any]:
            return {f: n for f, n in factors.items() if bool(f.labels & self.bound) == bound}

        number = self.number if bound else 1.0
        return Term(number, kept(self.powers), kept(self.exponent), self.bound if bound else NONE)


def rounded(number: float) -> float:
    """A whole number where only rounding makes none of it: 2 ** (s / log(2)) is exp(s)."""
    if not math.isfinite(number):
        return number
    return round(number) if abs(number - round(number)) < 1e-12 else number


def collected(terms: Iterable[Term]) -> list[Term]:
    """Terms in which multiples of one, which is no sum, are added up: expm1(s) + 1 is exp(s)."""
    found: list[Term] = []
    for term in terms:
        own = (term.powers, term.exponent, NONE)
        at = next((i for i, t in enumerate(found) if (t.powers, t.exponent, t.bound) == own), None)
        if at is None or term.bound:
            found.append(term)
        else:
            found[at] = replace(term, number=found[at].number + term.number)
    return found


def negated(terms: Iterable[Term]) -> list[Term]:
    return [Term(-t.number, t.powers, t.exponent, t.bound) for t in terms]
