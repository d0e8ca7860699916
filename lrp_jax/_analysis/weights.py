"""Which constants are weights: arguments, and where no layer has any, closed-over arrays too.

What is computed from nothing (the interpolation of a resize, a table of sines) is no weight.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from . import compat, primitives as prim
from .compat import Equation, Var, is_literal
from .graph import Graph, is_float
from .primitives import Family, family


class Origin(NamedTuple):
    """What a variable depends on: the explained input, other arguments."""

    explained: bool = False
    named: bool = False

    def __or__(self, other: Any) -> "Origin":
        return Origin(self.explained or other.explained, self.named or other.named)


def are_in_arguments(closed_jaxpr: Any, explained: Iterable[bool], names: Iterable[str]) -> bool:
    """Whether an explained value meets, in a contraction anywhere, what comes from an argument.

    Args:
        closed_jaxpr: the function; its calls and bodies are entered.
        explained: which inputs are explained.
        names: tree paths of the inputs, empty for those that come from no argument.
    """
    inputs = [Origin(e, bool(n)) for e, n in zip(explained, names, strict=True)]
    met: list[Equation] = []
    _follow(compat.open_jaxpr(closed_jaxpr), inputs, met)
    return bool(met)


def _follow(jaxpr: Any, inputs: Sequence[Origin], met: list[Equation]) -> list[Origin]:
    """Origins of the outputs; what contracts explained values with arguments is added to `met`."""
    known: dict[Var, Origin] = dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Origin:
        return Origin() if is_literal(atom) else known.get(atom, Origin())

    for eqn in jaxpr.eqns:
        given = [read(a) for a in eqn.invars]
        total = Origin(any(o.explained for o in given), any(o.named for o in given))
        if family(eqn.primitive) is Family.CONTRACTION:
            one = given[0].explained != given[1].explained
            if one and any(o.named and not o.explained for o in given[:2]):
                met.append(eqn)
        made = [total] * len(eqn.outvars)
        for body in _bodies(eqn):
            made = _through(eqn, body, given, met)
        known.update(zip(eqn.outvars, made, strict=True))
    return [read(a) for a in jaxpr.outvars]


def _through(
    eqn: Equation, body: Any, given: Sequence[Origin], met: list[Equation]
) -> list[Origin]:
    operands = list(given[len(given) - len(body.invars) :])
    made = _follow(body, operands, met)
    if eqn.primitive is prim.SCAN:  # what one step made, the next step's carry brings in
        constants, carries = compat.scan_arity(eqn)
        for i in range(carries):
            operands[constants + i] = operands[constants + i] | made[i]
        made = _follow(body, operands, met)
    total = Origin(any(o.explained for o in given), any(o.named for o in given))
    return made if len(made) == len(eqn.outvars) else [total] * len(eqn.outvars)


def _bodies(eqn: Equation) -> Iterator[Any]:
    for value in eqn.params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            body = compat.open_jaxpr(one)
            if hasattr(body, "eqns") and len(body.invars) <= len(eqn.invars):
                yield body


def weights_of(graph: Graph, names: Collection[Var], closed_over: bool) -> set[Var]:
    """The constants of a graph that are weights.

    Args:
        graph: the graph.
        names: variables that come from arguments.
        closed_over: whether arrays from no argument are weights.
    """
    found = set(names)
    if not closed_over:
        return found
    found.update(v for v in (*graph.jaxpr.constvars, *graph.jaxpr.invars))
    for eqn in graph.eqns:
        if any(not is_literal(a) and a in found for a in eqn.invars):
            # What explained numbers pick or count is no weight, whatever was added to them.
            found.update(v for v in eqn.outvars if is_float(v) or v not in graph.touched)
    return found
