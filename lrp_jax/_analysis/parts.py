"""Parts of a matrix product that has an operand which is put together from parts."""

from typing import Any

from . import compat, primitives as prim
from .compat import Equation, is_literal
from .graph import Graph

_SLICE, _CONCATENATE = compat.primitive("slice"), compat.primitive("concatenate")


def part_of_contraction(eqn: Equation, graph: Graph) -> tuple[Equation, list[Any]] | None:
    """A matrix product and the operands by which it makes what a slice leaves of it, where one of
    its operands is put together from parts: values and a column of ones."""
    dot = graph.maker.get(eqn.invars[0]) if eqn.primitive is _SLICE else None
    if dot is None or dot.primitive is not prim.DOT or eqn.params["strides"] is not None:
        return None
    shape = dot.outvars[0].aval.shape
    low, high = eqn.params["start_indices"], eqn.params["limit_indices"]
    cut = [i for i, n in enumerate(shape) if (low[i], high[i]) != (0, n)]
    contracted, batch = prim.dot_numbers(dot)
    axis = cut[0] - len(batch[0]) if len(cut) == 1 else -1
    for position, atom in enumerate(dot.invars):
        rank = len(atom.aval.shape)
        free = [i for i in range(rank) if i not in (*contracted[position], *batch[position])]
        if not 0 <= axis < len(free):
            axis -= len(free)
            continue
        joined = None if is_literal(atom) else graph.maker.get(atom)
        if joined is None or joined.primitive is not _CONCATENATE:
            return None
        begin, along = 0, joined.params["dimension"]
        for part in joined.invars if along == free[axis] else ():
            end = begin + part.aval.shape[along]
            if (begin, end) == (low[cut[0]], high[cut[0]]):
                return dot, [part if i == position else a for i, a in enumerate(dot.invars)]
            begin = end
        return None
    return None
