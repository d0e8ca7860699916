"""Products that are moved before they are multiplied further: (a b)[i] c is a[i] b[i] c.

A part of a product, or a product in another order, is the product of the same parts of its factors:
so what is multiplied before and after a move is one product.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.factors import link
from ..._analysis.graph import Graph
from ..._analysis.indices import known_in
from ..._analysis.monomials import Monomials
from ..._analysis.places import CUTS, itself, made_by
from ..equations.cut_first import before_links
from ..equations.parts import part_of_contraction

Read = Callable[[Var], Any]
_SCALES = (prim.MUL, prim.DIV, prim.NEG)


def moved_products(graph: Graph, monomials: Monomials) -> Mapping[int, Callable[[Read], Any]]:
    """How products are moved factor by factor, by the `id` of the equations that move them.

    Args:
        graph: a graph.
        monomials: its products.
    """
    return {
        id(eqn): _way(eqn, graph, monomials)
        for eqn in graph.eqns
        if (eqn.primitive in CUTS or _regroups(eqn))
        and graph.explained_operands(eqn) == [0]
        and _is_product(eqn.invars[0], graph, monomials)
        and _is_multiplied(eqn.outvars[0], graph, monomials)
        and (_regroups(eqn) or made_by(eqn, known_in(graph), itself) is not None)
        and not _is_share(eqn.invars[0], graph, monomials)
    }


def _is_share(var: Var, graph: Graph, monomials: Monomials) -> bool:
    """Whether a product is divided by a sum of what is above the line: a softmax or a norm, a part
    of which is no product of parts."""
    powers = monomials.factors(var)[1]
    above = {f.var for f, power in powers.items() if power > 0}
    for factor in (f for f, power in powers.items() if power < 0 and monomials.explained(f)):
        eqn = graph.maker.get(before_links(factor.var, graph))
        if eqn is not None and eqn.primitive is prim.REDUCE_SUM:
            summed = monomials.factors(eqn.invars[0])[1]
            if any(f.var in above for f, power in summed.items() if power > 0):
                return True
    return False


def _regroups(eqn: Equation) -> bool:
    """Whether an equation joins or splits axes."""
    return eqn.primitive in prim.SHAPE_ONLY and link(eqn) is None


def parts_of_matrix_products(graph: Graph) -> Mapping[int, Callable[[Read], Any]]:
    """How parts of matrix products are made of parts of an operand, by the `id` of the equations
    that cut them: the values, where a column of ones beside them makes a denominator."""
    found: dict[int, Callable[[Read], Any]] = {}
    for eqn in graph.eqns:
        part = part_of_contraction(eqn, graph) if graph.is_live(eqn) else None
        if part is None:
            continue
        dot, operands = part
        changed = (a for a, b in zip(dot.invars, operands, strict=True) if a is not b)
        joined = [graph.maker[a] for a in changed]
        if any(0 < len(graph.explained_operands(e)) < len(e.invars) for e in joined):
            found[id(eqn)] = _part(dot, operands)
    return found


def _part(dot: Equation, operands: list[Any]) -> Callable[[Read], Any]:
    return lambda read: dot.primitive.bind(
        *(a.val if is_literal(a) else read(a) for a in operands), **dot.params
    )


def _is_product(var: Var, graph: Graph, monomials: Monomials) -> bool:
    """Whether a variable is a product of several values, number by number, with its axes in
    another order perhaps."""
    eqn = graph.maker.get(var)
    if eqn is not None and link(eqn) is not None:
        return not is_literal(eqn.invars[0]) and _is_product(eqn.invars[0], graph, monomials)
    if eqn is None or eqn.primitive not in _SCALES:
        return False
    is_product = graph.is_live(eqn) and monomials.is_product(eqn)
    return is_product and len(monomials.groups(monomials.factors(var)[1])) > 1


def _is_multiplied(var: Var, graph: Graph, monomials: Monomials) -> bool:
    """Whether all who read a variable multiply it, perhaps after moves and scales. What is added
    elsewhere, as the inputs of an associative scan, is one factor."""
    for eqn in graph.readers.get(var, ()):
        if eqn is None:
            return False
        if not graph.is_live(eqn):
            continue
        (out, *_) = eqn.outvars
        scales = eqn.primitive in _SCALES and len(graph.explained_operands(eqn)) == 1
        passes = link(eqn) is not None or eqn.primitive in CUTS or scales or _regroups(eqn)
        follows = _is_multiplied if passes else _is_product
        if not follows(out, graph, monomials):
            return False
    return True


def _way(move: Equation, graph: Graph, monomials: Monomials) -> Callable[[Read], Any]:
    def moved(atom: Any, moves: list[Equation], read: Read) -> Any:
        """What moves, in order, make of a factor."""
        if is_literal(atom):
            return atom.val
        if _is_product(atom, graph, monomials):
            eqn = graph.maker[atom]
            if eqn.primitive not in _SCALES:
                return moved(eqn.invars[0], [eqn, *moves], read)
            return compat.applied(eqn, *(moved(a, moves, read) for a in eqn.invars))
        value = read(atom)
        for eqn in moves:  # of a factor that others spread, too
            others = (a.val if is_literal(a) else read(a) for a in eqn.invars[1:])
            whole = jnp.broadcast_to(value, eqn.invars[0].aval.shape)
            value = compat.applied(eqn, whole, *others)
        return value

    return lambda read: moved(move.invars[0], [move], read)
