"""Logits to which numbers are added, perhaps before moves: softmax(1 - h) is softmax(-h)."""

from collections.abc import Callable
from typing import Any

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.factors import is_by_numbers
from ..._analysis.graph import Graph
from ..._analysis.primitives import Family, family
from ..._layers.step import Found

Read = Callable[[Var], Any]


def without_numbers(softmax: Found, out: Var, graph: Graph) -> Callable[[Read], Any] | None:
    """How a softmax is computed of its logits before numbers are added; None where none are."""
    chain: list[Equation] = []
    last, var = 0, softmax.root
    while (eqn := graph.maker.get(var)) is not None and _is_of_numbers(eqn, graph):
        chain.append(eqn)
        last = len(chain) if eqn.primitive in prim.SUMS else last
        (position,) = graph.explained_operands(eqn)
        var = eqn.invars[position]
    if not last:
        return None
    chain = chain[:last]
    (position,) = graph.explained_operands(chain[-1])
    start = chain[-1].invars[position]
    eqns, _ = graph.between(out, [softmax.root], constants=True)

    def way(read: Read) -> Any:
        value = read(start)
        for eqn in reversed(chain):
            (position,) = graph.explained_operands(eqn)
            if eqn.primitive in prim.SUMS:
                turns = position == 1 and eqn.primitive not in prim.ADD
                value = -value if turns else value
            else:
                value = compat.applied(eqn, *_operands(eqn, {eqn.invars[position]: value}, read))
        known = {softmax.root: value}
        for eqn in eqns:
            if eqn.primitive is prim.KEEP:  # the values before would be those of other logits
                known[eqn.outvars[0]] = _operands(eqn, known, read)[0]
            elif any(a in known for a in eqn.invars if not is_literal(a)):
                known[eqn.outvars[0]] = compat.applied(eqn, *_operands(eqn, known, read))
        return known[out]

    return way


def _operands(eqn: Equation, known: dict[Var, Any], read: Read) -> list[Any]:
    return [a.val if is_literal(a) else known[a] if a in known else read(a) for a in eqn.invars]


def _is_of_numbers(eqn: Equation, graph: Graph) -> bool:
    """Whether an equation moves one explained value as a whole, or adds a number to it or scales it
    by one."""
    operands = graph.explained_operands(eqn)
    if len(operands) != 1 or len(eqn.outvars) != 1:
        return False
    if eqn.primitive in (*prim.SUMS, prim.MUL, prim.DIV):
        divides = eqn.primitive is prim.DIV and operands == [1]
        return not divides and is_by_numbers(eqn, graph)
    moves = family(eqn.primitive) in (Family.STRUCTURAL, Family.NEUTRAL)
    return eqn.primitive is prim.NEG or (moves and len(eqn.invars) == 1)
