"""One program cut in two: what some of its inputs alone decide, and the rest."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .._analysis import compat, primitives as prim
from .._analysis.compat import Equation, Var, is_literal
from .._analysis.graph import without_dead
from .._analysis.primitives import POINTWISE, family


@dataclass(frozen=True)
class Split:
    """A program as what is done once, and the rest, which reads that.

    Attributes:
        once: from the known inputs to the operands of `rest`.
        rest: from those operands and the other inputs to the outputs.
    """

    once: Callable[..., list[Any]]
    rest: Callable[[list[Any], list[Any]], list[Any]]


def split(closed: Any, known: Sequence[bool]) -> Split:
    """A flat program, given which of its inputs are known before the others."""
    jaxpr = compat.open_jaxpr(closed)
    inputs = [v for v, flag in zip(jaxpr.invars, known, strict=True) if flag]
    others = [v for v, flag in zip(jaxpr.invars, known, strict=True) if not flag]
    unknown: set[Var] = set(others)
    # From how many known numbers a variable is cheap to make again: a bias from its features, not
    # from the activations that it is spread over.
    price = {v: v.aval.size for v in inputs} | dict.fromkeys(jaxpr.constvars, 0)
    early: dict[Var, Equation] = {}
    late, again = [], set()
    for eqn in without_dead(jaxpr):
        operands = {a for a in eqn.invars if not is_literal(a)}
        if eqn.effects or operands & unknown:
            unknown.update(eqn.outvars)
            late.append(eqn)
            continue
        early.update(dict.fromkeys(eqn.outvars, eqn))
        for var in eqn.outvars:
            cost = sum(price[a] for a in operands) if _is_cheap(eqn) else var.aval.size
            price[var] = min(cost, var.aval.size)
            if cost < var.aval.size:
                again.add(var)

    def sources(wanted: Iterable[Any], through: Callable[[Var], bool]) -> tuple[Any, Any]:
        """Variables that `wanted` comes from, and the early equations in between."""
        todo, seen, found = list(wanted), set(), dict[Var, None]()
        while todo:
            atom = todo.pop()
            if is_literal(atom) or atom in seen or atom in unknown:
                continue
            seen.add(atom)
            if atom in early and through(atom):
                todo.extend(early[atom].invars)
            elif atom in early or atom in inputs:
                found[atom] = None
        made = {id(early[a]) for a in seen if a in early and a not in found}
        return list(found), made

    read = [a for eqn in late for a in eqn.invars] + list(jaxpr.outvars)
    rest = {id(eqn) for eqn in late}
    handed, redone = sources(read, again.__contains__)
    _, once = sources(handed, lambda var: True)
    done_once = [e for e in jaxpr.eqns if id(e) in once]
    done_later = [e for e in jaxpr.eqns if id(e) in redone | rest]
    constants = list(jaxpr.constvars)
    first = compat.as_function(jaxpr, done_once, [*constants, *inputs], handed)
    second = compat.as_function(jaxpr, done_later, [*constants, *handed, *others], jaxpr.outvars)
    return Split(
        lambda *arrays: first(*closed.consts, *arrays),
        lambda weights, values: second(*closed.consts, *weights, *values),
    )


_MOVES = {*prim.SHAPE_ONLY, prim.SELECT, compat.primitive("iota")}


def _is_cheap(eqn: Equation) -> bool:
    return family(eqn.primitive) in POINTWISE or eqn.primitive in _MOVES
