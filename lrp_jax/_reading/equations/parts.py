"""Parts of what is put together from parts: of a matrix product, of functions number by number."""

import itertools
from typing import Any

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.factors import link
from ..._analysis.graph import Graph
from ..._analysis.primitives import family

_SLICE, CONCATENATE = compat.primitive("slice"), compat.primitive("concatenate")


def sizes_of_pieces(var: Var, axis: int, graph: Graph) -> tuple[int, ...] | None:
    """The sizes of the pieces from which a value is put together along an axis, before functions
    that act number by number; None where it is not."""
    seen: set[tuple[Var, int]] = set()
    todo: list[tuple[Any, int]] = [(var, axis)]
    while todo:
        atom, axis = todo.pop()
        if is_literal(atom) or (atom, axis) in seen or atom.aval.shape[axis] == 1:
            continue
        seen.add((atom, axis))
        eqn = graph.maker.get(atom)
        if eqn is None or not graph.is_live(eqn):
            continue
        if eqn.primitive is CONCATENATE and eqn.params["dimension"] == axis:
            return tuple(a.aval.shape[axis] for a in eqn.invars)
        axes = link(eqn)
        if axes is not None:
            todo += [(eqn.invars[0], i) for i, a in enumerate(axes) if a == axis]
        elif family(eqn.primitive) in prim.POINTWISE:
            same = (a for a in eqn.invars if not is_literal(a))
            todo += [(a, axis) for a in same if a.aval.ndim == eqn.outvars[0].aval.ndim]
    return None


def piece_of(eqn: Equation, graph: Graph) -> tuple[int, int, tuple[int, ...]] | None:
    """The axis along which a slice is one piece of what is put together, which one, and the sizes
    of all; None of anything else."""
    if eqn.primitive is not _SLICE or eqn.params["strides"] is not None:
        return None
    shape = eqn.invars[0].aval.shape
    bounds = list(zip(eqn.params["start_indices"], eqn.params["limit_indices"], strict=True))
    cut = [i for i, n in enumerate(shape) if bounds[i] != (0, n)]
    sizes = sizes_of_pieces(eqn.invars[0], cut[0], graph) if len(cut) == 1 else None
    ends = list(itertools.accumulate(sizes or ()))
    for i, end in enumerate(ends):
        if sizes and bounds[cut[0]] == (end - sizes[i], end):
            return cut[0], i, sizes
    return None


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
        if joined is None or joined.primitive is not CONCATENATE:
            return None
        begin, along = 0, joined.params["dimension"]
        for part in joined.invars if along == free[axis] else ():
            end = begin + part.aval.shape[along]
            if (begin, end) == (low[cut[0]], high[cut[0]]):
                return dot, [part if i == position else a for i, a in enumerate(dot.invars)]
            begin = end
        return None
    return None
