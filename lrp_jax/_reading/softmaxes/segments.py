"""Sums over segments that are divided by sums over the same segments: what is added to each node of
a graph is divided by the node's sum before it is added, as a softmax over its neighbours has it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.factors import constant, link
from ..._analysis.graph import Graph
from ..._analysis.monomials import Monomials
from .softmax_forms import aligned, times

Read = Callable[[Var], Any]
_SCATTER, _CAST = (compat.primitive(name) for name in ("scatter_add", "convert_element_type"))


def divided_segments(graph: Graph, monomials: Monomials) -> dict[int, Callable[[Read], Any]]:
    """How quotients of sums over segments are sums of quotients, by the `id` of their equations.

    Args:
        graph: a graph.
        monomials: its products.
    """
    found: dict[int, Callable[[Read], Any]] = {}
    for eqn in graph.eqns:
        if eqn.primitive is not prim.DIV or graph.explained_operands(eqn) != [0, 1]:
            continue
        above = graph.maker.get(_before_casts(eqn.invars[0], graph))
        below, number = _summed(eqn.invars[1], graph)
        if above is not None and _is_sum(above, graph) and below is not None:
            way = _way(above, below, number, monomials, graph)
            found |= {} if way is None else {id(eqn): _cast(way, eqn.outvars[0].aval.dtype)}
    return found


def _is_sum(eqn: Equation, graph: Graph) -> bool:
    return eqn.primitive is _SCATTER and graph.explained_operands(eqn) == [2]


def _summed(atom: Any, graph: Graph) -> tuple[Equation | None, float]:
    """The sum over segments that a value is, perhaps spread out, and a number that is added."""
    number = 0.0
    while not is_literal(atom) and (eqn := graph.maker.get(atom)) is not None:
        if _is_sum(eqn, graph):
            return eqn, number
        operands = graph.explained_operands(eqn)
        added = constant(graph, eqn.invars[1 - operands[0]]) if eqn.primitive in prim.ADD else None
        if len(operands) != 1 or (link(eqn) is None and added is None):
            break
        number += added or 0.0
        atom = eqn.invars[operands[0]]
    return None, number


def _way(
    above: Equation, below: Equation, added: float, monomials: Monomials, graph: Graph
) -> Callable[[Read], Any] | None:
    """How values times weights, over a sum of the weights, are added as values times shares."""
    same = monomials.same
    (weights, _), (to_weights, to_values) = (
        [same.get(e.invars[i], e.invars[i]) for e in (below, above)] for i in (2, 1)
    )
    number, powers = monomials.factors(above.invars[2])
    inner = same.get(_before_casts(weights, graph), _before_casts(weights, graph))
    weight = next((f for f, p in powers.items() if f.var is inner and p == 1), None)
    if to_values is not to_weights or weight is None:
        return None
    rest = {f: p for f, p in powers.items() if f is not weight}
    shape, dtype = above.invars[2].aval.shape, above.invars[2].aval.dtype

    def adds(eqn: Equation, read: Read) -> Callable[[Any], Any]:
        zeros = jnp.zeros(eqn.invars[0].aval.shape, eqn.outvars[0].aval.dtype)
        return lambda values: compat.applied(eqn, zeros, read(eqn.invars[1]), values)

    def way(read: Read) -> Any:
        e, order = read(weights), range(len(shape))
        (total,) = jax.linear_transpose(adds(below, read), e)(read(below.outvars[0]))
        share = e / (total + added if added else total)
        values = aligned(share, weight.axes, order) * number
        for factor, power in rest.items():
            values = values * times(factor, read, order) ** power
        return adds(above, read)(jnp.broadcast_to(values, shape).astype(dtype))

    return way


def _cast(way: Callable[[Read], Any], dtype: Any) -> Callable[[Read], Any]:
    return lambda read: way(read).astype(dtype)


def _before_casts(var: Var, graph: Graph) -> Var:
    """What a value is before it was cast, as sums are made in a wider type."""
    while (eqn := graph.maker.get(var)) is not None and eqn.primitive is _CAST:
        var = eqn.invars[0]
    return var
