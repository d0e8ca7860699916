"""Composites: which layer gets which rule, as ordered (match, rule) pairs.

The first pair that matches a layer, and whose rule can serve it, decides. Layers that no pair
speaks of follow `BASE`, so activations, merges and norms need no entries of their own.
"""

import reprlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import jax

from .. import kinds
from .._layers.step import Way
from .._tables import Table, brief, counted
from ..kinds import Called, Match, MatchLike, match, parts
from ..rules import (
    Epsilon,
    Identity,
    Norm,
    Pass,
    Taylor,
    Uniform,
    Zero,
)  # fmt: skip
from ..rules.base import PROPORTIONAL, Rule, check_bias, check_class


@dataclass(frozen=True, eq=False)
class Composite:
    """Ordered (match, rule) pairs; the first that matches and can serve a layer decides.

    Args:
        entries: pairs of a match (a layer kind, a path glob, `first(...)`, `last(...)`,
            `depth(...)`, `call(...)`, a predicate, or a combination) and a rule.
        strict: whether what a plan warns of is an error.

    Raises:
        TypeError: for an entry that is not such a pair.
        ValueError: where relevance rules and modified gradients are mixed.

    Example:
        >>> import lrp_jax as lrp
        >>> lrp.Composite([(lrp.Conv, lrp.Gamma(0.25)), (lrp.Dense, lrp.Epsilon())])
        lrp.Composite([
            (lrp.Conv, lrp.Gamma()),
            (lrp.Dense, lrp.Epsilon()),
        ])
    """

    entries: tuple[tuple[Match, Rule], ...]
    strict: bool = False
    usual: int = field(default=0, init=False)
    """How many of the last entries are a preset's own, of which a plan misses none."""

    def __init__(self, entries: Iterable[tuple[MatchLike, Rule]], *, strict: bool = False) -> None:
        if not isinstance(entries, Iterable):
            raise TypeError(f"a composite is a list of pairs (match, rule), not {entries!r}.")
        object.__setattr__(self, "entries", tuple(_entry(e) for e in entries))
        object.__setattr__(self, "strict", bool(strict))
        gradient = {rule.gradient for _, rule in self.entries}
        if len(gradient) > 1:
            raise ValueError(
                "a composite of relevance rules and modified gradients (GuidedBackprop, DeconvNet, "
                "BetaSmooth) has no meaning: one carries relevance, the other a gradient."
            )

    @property
    def gradient(self) -> bool:
        """Whether the explanation is a modified gradient: no relevance, no input factor."""
        return any(rule.gradient for _, rule in self.entries)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules of all entries and of `base`, in order."""
        return tuple(rule for _, rule in (*self.entries, *self.base))

    @property
    def base(self) -> tuple[tuple[Match, Rule], ...]:
        """What layers follow that no entry speaks of: `BASE`, with no stabiliser in it where the
        entries divide and none of them has one, as `Zero()` alone."""
        dividing = [r for _, r in self.entries if r.way in _DIVIDING and not r.gradient]
        return EXACT_BASE if dividing and all(map(_divides_exactly, dividing)) else BASE

    @property
    def calls(self) -> tuple[str, ...]:
        """Globs of the names of called functions that entries speak of."""
        simple = (part for spec, _ in self.entries for part in parts(spec))
        return tuple(dict.fromkeys(part.pattern for part in simple if isinstance(part, Called)))

    def override(self, *entries: tuple[MatchLike, Rule]) -> "Composite":
        """The composite with more entries in front, which therefore win.

        Args:
            entries: (match, rule) pairs.
        """
        made = Composite([*entries, *self.entries], strict=self.strict)
        object.__setattr__(made, "usual", self.usual)
        return made

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, Composite):
            return False
        return self.entries == other.entries and self.strict == other.strict

    def __hash__(self) -> int:
        return hash((self.entries, self.strict))

    def __repr__(self) -> str:
        lines = [f"    ({spec!r}, lrp.{rule!r})," for spec, rule in self.entries]
        return "\n".join(["lrp.Composite([", *lines, "], strict=True)" if self.strict else "])"])

    def _repr_html_(self) -> str:
        rows = tuple((repr(spec), brief(repr(rule))) for spec, rule in self.entries)
        return Table(("match", "rule"), rows).page(counted(len(rows), "entry", "entries"))


def _composite_flatten(c: Composite) -> tuple[tuple[Rule, ...], tuple[Any, ...]]:
    return tuple(rule for _, rule in c.entries), (tuple(m for m, _ in c.entries), c.strict, c.usual)


def _composite_unflatten(known: tuple[Any, ...], rules: Any) -> Composite:
    matches, strict, usual = known
    made = object.__new__(Composite)
    object.__setattr__(made, "entries", tuple(zip(matches, rules, strict=True)))
    object.__setattr__(made, "strict", strict)
    object.__setattr__(made, "usual", usual)
    return made


def preset(*entries: tuple[MatchLike, Rule]) -> Composite:
    """A composite that serves many networks, none of which has everything that it speaks of."""
    made = Composite(entries)
    object.__setattr__(made, "usual", len(made.entries))
    return made


jax.tree_util.register_pytree_node(Composite, _composite_flatten, _composite_unflatten)


def _check(rule: Rule) -> None:
    """What a rule that somebody wrote may lack, said before anything is traced.

    Args:
        rule: any rule.

    Raises:
        TypeError: where the rule cannot serve what it says it serves.
        ValueError: for an unknown bias policy.
    """
    check_class(type(rule))
    name, shares = type(rule).__name__, type(rule).terms is not Rule.terms
    if hasattr(rule, "bias"):
        check_bias(rule)
    able = PROPORTIONAL  # of these, calls only take the proportional rules (see `plan`)
    if shares and not rule.serves <= able:
        raise TypeError(
            f"{name}.serves is {rule.serves.label}, but `terms` shares the contributions of sums: "
            f"it can serve {able.label}."
        )
    weights = bool(rule.serves.basic & kinds.Linear.basic)
    whole = rule.way in (Way.UNCHANGED, Way.NOTHING)
    if weights and not (shares or hasattr(rule, "input_relevance") or whole):
        raise TypeError(f"{name} serves layers with weights but defines no `terms(self, layer)`.")


def _entry(entry: Any) -> tuple[Match, Rule]:
    if not isinstance(entry, tuple | list) or len(entry) != 2:
        raise TypeError(f"a composite's entry is a pair (match, rule), not {entry!r}.")
    spec, rule = entry
    if isinstance(rule, type) and issubclass(rule, Rule):
        raise TypeError(f"{rule.__name__} is a rule's class: write {rule.__name__}(...).")
    if not isinstance(rule, Rule):
        raise TypeError(f"{rule!r} is not a rule (entry {entry!r}).")
    _check(rule)
    return match(spec), rule


def as_composite(spec: Any) -> Composite:
    """A composite from a composite, or from a single rule for every layer with weights.

    Args:
        spec: a `Composite` or a `Rule`.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(spec, Composite):
        return spec
    if isinstance(spec, Rule):
        _check(spec)
        if spec.gradient:
            return Composite([(kinds.ReLU, spec)])
        if not kinds.Linear <= spec.serves:
            raise TypeError(
                f"{spec!r} cannot serve layers with weights, so it is no composite by itself: "
                f"write Composite([({spec.serves!r}, {spec!r}), ...])."
            )
        return Composite([(kinds.Linear, spec)])
    name = getattr(spec, "__name__", reprlib.repr(spec))
    hint = f" Call it: {name}(...)." if callable(spec) else ""
    if isinstance(spec, list | tuple | dict):
        hint = " Write lrp.Composite([(match, rule), ...])."
    raise TypeError(f"expected a Composite or a rule, got {name}.{hint}")


BASE: tuple[tuple[Match, Rule], ...] = (
    (kinds.Linear, Epsilon()),
    (kinds.AvgPool | kinds.Merge | kinds.Bias, Norm()),
    (kinds.Activation | kinds.BatchNorm, Pass()),
    (kinds.Normalization, Identity()),
    (kinds.Softmax | kinds.LogSumExp, Taylor()),
    (kinds.Bilinear, Uniform()),
)
"""What layers follow that no entry of a composite speaks of."""

EXACT_BASE = ((kinds.Linear, Zero()), (BASE[1][0], Norm(stabilizer=0.0)), *BASE[2:])
"""The same where a composite asks for no stabiliser anywhere."""

_DIVIDING = (Way.PROPORTION, Way.CONTRIBUTIONS, Way.OWN)


def _divides_exactly(rule: Rule) -> bool:
    """Whether a rule is known to divide by a sum as it is."""
    divisor = rule.divisor
    return rule.way is Way.PROPORTION and isinstance(divisor, int | float) and divisor == 0
