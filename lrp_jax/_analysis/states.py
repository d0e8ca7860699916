"""Sums of layers, one of which is given a constant state: the first turn of a cell, written out, or
a network another input of which is not explained.

`x @ w + h @ u` is a sum of two layers, whatever is known of `h`: how a function is cut into layers
does not depend on what of it is explained.
"""

from collections.abc import Collection
from typing import Any

import numpy as np

from . import primitives as prim
from .compat import Var, is_literal
from .graph import Graph
from .monomials import constant
from .numbers import is_at_hand
from .primitives import Family, family


def states_in_sums(graph: Graph, weights: Collection[Var]) -> dict[Var, Var]:
    """By the sum of an explained value and what weights make of a state, the latter.

    A bias is what no contraction made, or one of parameters with what is computed from nothing, as
    one-hot rows and the matrix of a resize are.

    Args:
        graph: the graph.
        weights: the constants that are weights.
    """
    found = {}
    for eqn in graph.eqns:
        operands = graph.explained_operands(eqn) if eqn.primitive in prim.SUMS else ()
        if len(operands) == 1 and graph.is_live(eqn):
            other = eqn.invars[1 - operands[0]]
            if _is_made_of_a_state(graph, other, weights):
                found[eqn.outvars[0]] = other
    return found


def _is_made_of_a_state(graph: Graph, atom: Any, weights: Collection[Var]) -> bool:
    """Whether a constant is a contraction of a state, biases and moves aside."""
    eqn = None if is_literal(atom) else graph.maker.get(atom)
    if eqn is None:
        return False
    if family(eqn.primitive) is Family.CONTRACTION:
        pair = eqn.invars[:2]
        given = [_comes_from(graph, a, weights) for a in pair]
        filled = [_is_filled(graph, a) for a in pair]
        return any(given) and all(map(any, zip(given, filled, strict=True)))
    if eqn.primitive in prim.SUMS:
        return any(_is_made_of_a_state(graph, a, weights) for a in eqn.invars)
    moves = eqn.primitive in prim.SHAPE_ONLY or family(eqn.primitive) is Family.NEUTRAL
    return moves and _is_made_of_a_state(graph, eqn.invars[0], weights)


def _comes_from(graph: Graph, atom: Any, weights: Collection[Var]) -> bool:
    """Whether a constant depends on weights."""
    todo, seen = [atom], set[Var]()
    while todo:
        if is_literal(atom := todo.pop()) or atom in seen:
            continue
        if atom in weights:
            return True
        seen.add(atom)
        if atom in graph.maker:
            todo += graph.maker[atom].invars
    return False


def _is_filled(graph: Graph, atom: Any) -> bool:
    """Whether a constant is an array of one number, as states begin."""
    if not is_literal(atom) and atom in graph.jaxpr.constvars:
        value = graph.closed.consts[graph.jaxpr.constvars.index(atom)]
        return is_at_hand(value) and np.ptp(np.asarray(value)) == 0
    return constant(graph, atom) is not None
