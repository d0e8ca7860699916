"""How far the relevance of a spelling is from that of the first one of its group."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import lrp_jax as lrp
from lrp_jax._analysis import compat
from lrp_jax._layers.step import UnsupportedOperation

from .group import Group, Piece
from .surroundings import BETWEEN_LAYERS, Place

COMPOSITES: dict[str, Callable[[], Any]] = {
    "Zero": lrp.Zero,
    "Epsilon": lambda: lrp.Epsilon(0.01),
    "AttnLRP": lrp.AttnLRP,
    "CPLRP": lrp.CPLRP,
    "ZPlus": lrp.ZPlus,
    "Gamma": lambda: lrp.Gamma(0.25),
    "AlphaBeta": lrp.AlphaBeta,
    "EpsilonPlus": lambda: lrp.EpsilonPlus(0.01),
}
TOLERANCE = 1e-6
"""Of relevance, where values agree to 1e-9."""
BY_HAND = {"Zero": False, "AttnLRP": False, "CPLRP": True}
"""Composites whose relevance a group's reference gives, and whether they hold gates."""
KNOWN = Path(__file__).with_name("known.txt")


@dataclass(frozen=True)
class Outcome:
    """What came of one spelling under one composite.

    Attributes:
        group, spelling, composite: names.
        deviation: of relevance, relative to the largest; infinite where nothing came.
        refused: whether the library said that it cannot.
        warned: whether it warned.
        error: what was raised, if anything.
        tolerance: what `deviation` may be.
    """

    group: str
    spelling: str
    composite: str
    deviation: float
    refused: bool = False
    warned: bool = False
    error: str = ""
    tolerance: float = TOLERANCE

    @property
    def agrees(self) -> bool:
        return self.refused or self.deviation <= self.tolerance

    def __str__(self) -> str:
        found = self.error if self.error else f"{self.deviation:.2g}"
        return f"{found} (warned)" if self.warned else found


def step_by_step(function: Callable[..., Array], *args: Any) -> Array:
    """The value of a function, operation by operation: little is compiled more than once."""
    closed = jax.make_jaxpr(function)(*args)
    return _run(closed, jax.tree.leaves(args))[0]


def _run(closed: Any, values: Sequence[Any]) -> list[Any]:
    jaxpr = compat.open_jaxpr(closed)
    env = dict(zip(jaxpr.invars, values, strict=True))
    env.update(zip(jaxpr.constvars, closed.consts, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if compat.is_literal(atom) else env[atom]

    for eqn in jaxpr.eqns:
        operands = [read(a) for a in eqn.invars]
        body = compat.plain_call(eqn)
        body = compat.custom_call(eqn) if body is None else body
        if body is not None:
            results = _run(body, operands)
        else:
            made = eqn.primitive.bind(*operands, **eqn.params)
            results = made if eqn.primitive.multiple_results else [made]
        env.update(zip(eqn.outvars, results, strict=True))
    return [read(a) for a in jaxpr.outvars]


def relevance(group: Group, piece: Piece, composite: str, place: Place = BETWEEN_LAYERS) -> Array:
    """Relevance of the input under a composite of `COMPOSITES`."""
    params, x, weighting = group.example()
    explain = lrp.relevance(group.network(piece, place=place), COMPOSITES[composite]())
    return step_by_step(lambda p, x: explain(p, x, target=weighting), params, x)


def values(group: Group, piece: Piece) -> Array:
    params, x, _ = group.example()
    return step_by_step(group.network(piece), params, x)


def by_hand(group: Group, gates: bool) -> Array | None:
    """The gradient of the group's reference times the input; None where it has no word on it."""
    if group.reference is None:
        return None
    params, x, weighting = group.example()
    network = group.network(lambda p, h: group.reference(p, h, gates), by_hand=True)  # type: ignore

    def output(p: Any, x: Array) -> Array:
        return (weighting * network(p, x)).sum()

    try:
        return x * step_by_step(jax.grad(output, 1), params, x)
    except AttributeError:  # the reference is None for gates
        return None


def deviation(actual: Array, expected: Array) -> float:
    """The largest difference relative to the largest number of both."""
    a, b = np.asarray(actual), np.asarray(expected)
    if a.shape != b.shape or not np.isfinite(a).all():
        return float("inf")
    return float(np.abs(a - b).max() / max(np.abs(a).max(), np.abs(b).max(), 1e-12))


def outcome(
    group: Group, spelling: str, composite: str, expected: Array, place: Place = BETWEEN_LAYERS
) -> Outcome:
    """One spelling under one composite."""
    piece = group.spellings[spelling]
    return compared(
        (group.name, spelling, composite),
        lambda: relevance(group, piece, composite, place),
        expected,
        1e3 * group.rounding,
    )


def compared(
    names: tuple[str, str, str], explain: Callable[[], Array], expected: Array, tolerance: float
) -> Outcome:
    """What comes of an explanation."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            found = explain()
        except UnsupportedOperation as error:
            return Outcome(*names, float("inf"), refused=True, error=f"refused: {error}")
        except Exception as error:
            return Outcome(*names, float("inf"), error=f"{type(error).__name__}: {error}")
    return Outcome(*names, deviation(found, expected), warned=bool(heard), tolerance=tolerance)


def outcomes(
    group: Group, composites: Sequence[str] = tuple(COMPOSITES), place: Place = BETWEEN_LAYERS
) -> Iterator[Outcome]:
    """Every spelling under every composite that the group is to agree under; the standard's own
    line says how far it is from the relevance that is known by hand."""
    for composite in group.composites:
        if composite not in composites:
            continue
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            try:
                expected = relevance(group, group.spellings[group.standard], composite, place)
            except Exception as error:
                refused = isinstance(error, UnsupportedOperation)
                yield Outcome(
                    group.name, group.standard, composite, float("inf"), refused,
                    error=f"{type(error).__name__}: {error}",
                )  # fmt: skip
                continue
        is_known = composite in BY_HAND and place is BETWEEN_LAYERS
        hand = by_hand(group, BY_HAND[composite]) if is_known else None
        away = deviation(expected, expected if hand is None else hand)
        yield Outcome(group.name, group.standard, composite, away, warned=bool(heard))
        for spelling in list(group.spellings)[1:]:
            yield outcome(group, spelling, composite, expected, place)


def different_values(group: Group) -> dict[str, float]:
    """Spellings that are not the same function."""
    expected = values(group, group.spellings[group.standard])
    away = {
        name: deviation(values(group, piece), expected) for name, piece in group.spellings.items()
    }
    return {name: d for name, d in away.items() if not d <= group.rounding}


def of_one(group: Group) -> Group:
    """A group whose batch is one example, of the spellings that compute each example by itself."""
    one = dataclasses.replace(group, shape=(1, *group.shape[1:]))
    params, x, _ = group.example()

    def is_by_itself(piece: Piece) -> bool:
        network = group.network(piece)
        try:
            alone = step_by_step(network, params, x[:1])
        except (TypeError, ValueError):  # numbers of a batch are part of what it says
            return False
        return deviation(alone, step_by_step(network, params, x)[:1]) <= group.rounding

    kept = {name: piece for name, piece in one.spellings.items() if is_by_itself(piece)}
    reference = group.reference if group.standard in kept else None
    return dataclasses.replace(one, spellings=kept, reference=reference)


WAYS: dict[str, Callable[[Piece], Piece]] = {
    "alone": lambda network: lambda p, x: network(p, x[0])[None],
    "in a vmap": lambda network: jax.vmap(network, (None, 0)),
    "in a vmap of the last axis": lambda network: (
        lambda p, x: jax.vmap(network, (None, -1), out_axes=-1)(p, jnp.moveaxis(x, 0, -1)).T
    ),
    "in a vmap, of one": lambda network: jax.vmap(lambda p, x: network(p, x[None])[0], (None, 0)),
}
"""Functions of one example, without an axis of a batch, as functions of a batch."""


def without_batch(group: Group, way: str, composites: Sequence[str]) -> Iterator[Outcome]:
    """Spellings that are functions of an example alone, against the standard of a batch."""
    params, x, weighting = group.example()
    # The last one: the first may be what another example reads.
    some = slice(-1, None) if way == "alone" else slice(None)
    x, weighting = x[some], weighting[some]
    whole = step_by_step(group.network(group.spellings[group.standard]), *group.example()[:2])
    networks = {}
    for name, piece in group.spellings.items():
        network = WAYS[way](group.network(piece))
        try:
            if deviation(step_by_step(network, params, x), whole[some]) <= group.rounding:
                networks[name] = network
        except Exception:  # axes that are not there are part of what it says
            continue
    for composite in composites if networks else ():
        if composite not in group.composites:
            continue
        expected = relevance(group, group.spellings[group.standard], composite)[some]
        for name, network in networks.items():
            explain = lrp.relevance(network, COMPOSITES[composite]())
            yield compared(
                (group.name, name, composite),
                lambda explain=explain: step_by_step(
                    lambda p, x: explain(p, x, target=weighting), params, x
                ),
                expected,
                1e3 * group.rounding,
            )


def known() -> frozenset[tuple[str, str, str]]:
    """The group, spelling and composite of what is known to deviate."""
    found = set()
    for line in KNOWN.read_text().splitlines():
        if line and not line.startswith("#"):
            group, spelling, composites = (part.strip() for part in line.split("|"))
            found |= {(group, spelling, composite) for composite in composites.split()}
    return frozenset(found)


__all__ = [
    "COMPOSITES", "KNOWN", "TOLERANCE", "WAYS", "Outcome", "by_hand", "deviation",
    "different_values", "known", "of_one", "outcome", "outcomes", "relevance", "step_by_step",
    "values", "without_batch",
]  # fmt: skip
