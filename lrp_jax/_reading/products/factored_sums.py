"""Sums and contractions of products with a factor that they do not run over: (g a) @ b is
g (a @ b), where g is the same for all that is added.

A product is of all its factors, so what a sum does not run over stands before it. Of one value that
is summed with weights this is only asked where the result is multiplied further.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.factors import Factor, link
from ..._analysis.graph import Graph
from ..._analysis.monomials import Monomials
from ..equations.cut_first import operand_axes
from ..softmaxes.softmax_forms import multiplied

Read = Callable[[Var], Any]


def factored(graph: Graph, monomials: Monomials) -> dict[int, Callable[[Read], Any]]:
    """How such sums are computed with these factors after them, by the `id` of their equations.

    Args:
        graph: a graph.
        monomials: its products.
    """
    found: dict[int, Callable[[Read], Any]] = {}
    for eqn in graph.eqns:
        if eqn.primitive not in (prim.REDUCE_SUM, prim.DOT) or not graph.is_live(eqn):
            continue
        explained = graph.explained_operands(eqn)
        if len(explained) < 2 and not _is_multiplied(eqn.outvars[0], graph):
            continue
        apart = {i: parts for i in explained if (parts := _apart(eqn, i, monomials)) is not None}
        if apart:
            found[id(eqn)] = _way(eqn, apart)
    return found


def _is_multiplied(var: Var, graph: Graph) -> bool:
    """Whether somebody multiplies a value with another explained one."""
    for reader in graph.readers.get(var, ()):
        if reader is None or not graph.is_live(reader):
            continue
        several = len(graph.explained_operands(reader)) > 1
        if reader.primitive in (prim.MUL, prim.DIV) and several:
            return True
        scales = reader.primitive in (prim.MUL, prim.DIV, prim.NEG) and not several
        if (link(reader) is not None or scales) and _is_multiplied(reader.outvars[0], graph):
            return True
    return False


Parts = tuple[float, Mapping[Factor, Any], Mapping[Factor, Any]]
"""A number, the factors that a sum runs over, and those that it does not."""


def _apart(eqn: Equation, position: int, monomials: Monomials) -> Parts | None:
    """The factors of an operand; None where a sum runs over all of them."""
    operand = eqn.invars[position]
    number, powers = monomials.factors(operand)
    bound = _bound(eqn, position)
    outer = {f: p for f, p in powers.items() if monomials.explained(f) and not f.labels & bound}
    inner = {f: p for f, p in powers.items() if f not in outer}
    runs_over = any(monomials.explained(f) for f in inner)
    return (number, inner, outer) if outer and runs_over and bound else None


def _bound(eqn: Equation, position: int) -> frozenset[int]:
    """The axes of an operand that are summed over."""
    sums = eqn.primitive is prim.REDUCE_SUM
    summed = eqn.params["axes"] if sums else prim.dot_numbers(eqn)[0][position]
    return frozenset(i for i in summed if eqn.invars[position].aval.shape[i] > 1)


def _way(eqn: Equation, apart: Mapping[int, Parts]) -> Callable[[Read], Any]:
    if eqn.primitive is prim.REDUCE_SUM:
        rest = [i for i in range(eqn.invars[0].aval.ndim) if i not in eqn.params["axes"]]
        places: list[tuple[tuple[int, int], ...]] = [((0, i),) for i in rest]
    else:
        places = [axes or () for axes in operand_axes(eqn)]

    def way(read: Read) -> Any:
        operands = [a.val if is_literal(a) else read(a) for a in eqn.invars]
        for i, (number, inner, _) in apart.items():
            aval = eqn.invars[i].aval
            value = multiplied(inner, read, range(aval.ndim))
            value = value if number == 1 else value * number
            operands[i] = jnp.broadcast_to(value, aval.shape).astype(aval.dtype)
        result = compat.applied(eqn, *operands)
        for i, (_, _, outer) in apart.items():
            own = [next((axis for side, axis in place if side == i), None) for place in places]
            value = multiplied(outer, read, [axis for axis in own if axis is not None])
            missing = [axis for axis, place in enumerate(own) if place is None]
            result = result * jnp.expand_dims(value, missing).astype(result.dtype)
        return result

    return way
