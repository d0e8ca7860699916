"""Negations that one another undo, with linear maps and pools between them.

`-max_pool(-x)` is the least of every window, `-concatenate([-a, -b])` is `concatenate([a, b])`: a
negation on the way there and back turns no neuron around.
"""

from collections.abc import Callable, Container
from operator import methodcaller
from typing import Any

import jax

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.graph import Graph, is_float
from ..._analysis.primitives import Family, family
from ..._analysis.signs import literal_value

Read = Callable[[Var], Any]

_LINEAR = (Family.STRUCTURAL, Family.NEUTRAL, Family.SUM, Family.CONTRACTION)
_SCALES = (prim.MUL, prim.DIV)
_OTHERS = {
    compat.primitive(one): compat.primitive(other)
    for pair in ("min max", "reduce_min reduce_max", "cummin cummax",
                 "reduce_window_min reduce_window_max")
    for one, other in (pair.split(), reversed(pair.split()))
}  # fmt: skip
"""What keeps the largest, and what keeps the least in its place."""
_SORT = compat.primitive("sort")
_ORDERED = {_SORT} | compat.primitives(
    "top_k approx_top_k scatter_max scatter_min select_and_gather_add"
)
"""What asks for the order of numbers in another way."""


def undone(graph: Graph) -> dict[int, Callable[[Read], Any]]:
    """How what a second negation makes is computed without both, by the `id` of its equation."""
    if sum(eqn.primitive is prim.NEG and graph.is_live(eqn) for eqn in graph.eqns) < 2:
        return {}
    opposites: dict[Var, Callable[[Read], Any]] = {}
    above: dict[Var, set[Var]] = {}
    ends: list[Equation] = []
    for eqn in graph.eqns:
        if not graph.is_live(eqn) or len(eqn.outvars) != 1 or not is_float(eqn.outvars[0]):
            continue
        (out,) = eqn.outvars
        if eqn.primitive is prim.NEG:
            (operand,) = eqn.invars
            if operand in above:
                ends.append(eqn)
            else:
                opposites[out] = methodcaller("__call__", operand)
        elif (way := _past(eqn, graph, opposites)) is not None:
            opposites[out] = way
            operands = [eqn.invars[i] for i in graph.explained_operands(eqn)]
            above[out] = {*operands, *(v for a in operands for v in above.get(a, ()))}
    kept = _read_by_others(graph, opposites)
    turned = (e for e in ends if kept.isdisjoint({e.invars[0]} | above[e.invars[0]]))
    return {id(e): opposites[e.invars[0]] for e in turned}


def _read_by_others(graph: Graph, opposites: Container[Var]) -> set[Var]:
    """Negated values that somebody reads as they are: without them they would be there twice."""
    found: set[Var] = set()
    for eqn in reversed(graph.eqns):
        out = eqn.outvars[0] if eqn.outvars else None
        if out not in opposites:
            continue
        for reader in graph.readers.get(out, ()):
            if reader is None or not graph.is_live(reader):
                as_it_is = reader is None
            else:
                after = reader.outvars[0]
                turns = reader.primitive is prim.NEG and after not in opposites
                as_it_is = not turns and (after not in opposites or after in found)
            if as_it_is:
                found.add(out)
    return found


def _past(
    eqn: Equation, graph: Graph, opposites: dict[Var, Callable[[Read], Any]]
) -> Callable[[Read], Any] | None:
    """The opposite of what an equation makes of opposites, or None."""
    explained = [eqn.invars[i] for i in graph.explained_operands(eqn)]
    if not explained or not all(a in opposites for a in explained):
        return None
    rest = [a for a in eqn.invars if a not in explained]
    primitive = _OTHERS.get(eqn.primitive)
    keeps = primitive is not None or family(eqn.primitive) is Family.STRUCTURAL
    if keeps and any(is_float(a) and literal_value(a) != 0 for a in rest):
        return None  # a bound, or what a pad is filled with
    adds = eqn.primitive in prim.SUMS and len(explained) == 2
    scales = eqn.primitive in _SCALES and explained == eqn.invars[:1]
    linear = family(eqn.primitive) in _LINEAR and not (
        family(eqn.primitive) is Family.CONTRACTION and len(explained) > 1
    )
    sorts = eqn.primitive is _SORT and len(eqn.invars) == 1
    if eqn.primitive in _ORDERED and not sorts:
        return None
    if primitive is None and not (adds or scales or linear):
        return None

    def way(read: Read) -> Any:
        operands = [
            a.val if is_literal(a) else opposites[a](read) if a in opposites else read(a)
            for a in eqn.invars
        ]
        if sorts:  # the other way round
            axis = eqn.params["dimension"]
            return jax.lax.rev(jax.lax.sort(operands[0], axis), (axis,))
        own = eqn if primitive is None else eqn.replace(primitive=primitive)
        return compat.applied(own, *operands)

    return way
