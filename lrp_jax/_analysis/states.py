"""Sums of layers, one of which is given a constant state: the first turn of a cell, written out, or
a network another input of which is not explained.

`x @ w + h @ u` is a sum of two layers, whatever is known of `h`: how a function is cut into layers
does not depend on what of it is explained.
"""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from . import compat, primitives as prim
from .compat import Equation, Var, is_literal
from .factors import constant
from .graph import Graph
from .numbers import is_at_hand
from .primitives import Family, family

_CUTS = compat.primitives("slice dynamic_slice gather split")


def states_in_sums(graph: Graph, weights: Collection[Var]) -> dict[Var, Var]:
    """By the sum of an explained value and what weights make of a state, the latter.

    A bias is what no contraction made, or one of parameters with what is computed from nothing, as
    one-hot rows and the matrix of a resize are; so is what the weights of the explained value make
    of a shift that was folded into them, and a product with a column of ones.

    Args:
        graph: the graph.
        weights: the constants that are weights.
    """
    found = {}
    for eqn in graph.eqns:
        operands = graph.explained_operands(eqn) if eqn.primitive in prim.SUMS else ()
        if len(operands) == 1 and graph.is_live(eqn):
            explained, other = (eqn.invars[i] for i in (operands[0], 1 - operands[0]))
            if any(
                _has_a_state(graph, made, explained, weights)
                for made in _contractions(graph, other)
            ):
                found[eqn.outvars[0]] = other
    return found


def _kernel(graph: Graph, atom: Any, weights: Collection[Var]) -> set[Var]:
    """The weights of the contraction that makes an explained value, biases and moves aside."""
    while (eqn := graph.maker.get(atom)) is not None:
        operands = graph.explained_operands(eqn)
        if family(eqn.primitive) is Family.CONTRACTION:
            constants = (a for i, a in enumerate(eqn.invars[:2]) if i not in operands)
            return {v for a in constants for v in _sources(graph, a, weights)}
        passes = eqn.primitive in prim.SUMS or prim.changes_no_number(eqn.primitive)
        if len(operands) != 1 or not passes:
            break
        atom = eqn.invars[operands[0]]
    return set()


def _contractions(graph: Graph, atom: Any) -> Iterator[Equation]:
    """What a constant is a sum of, biases and moves aside."""
    eqn = None if is_literal(atom) else graph.maker.get(atom)
    if eqn is None:
        return
    if family(eqn.primitive) is Family.CONTRACTION:
        yield eqn
    elif eqn.primitive in prim.SUMS or prim.changes_no_number(eqn.primitive):
        for operand in eqn.invars if eqn.primitive in prim.SUMS else eqn.invars[:1]:
            yield from _contractions(graph, operand)


def _has_a_state(graph: Graph, eqn: Equation, explained: Any, weights: Collection[Var]) -> bool:
    """Whether a contraction of constants is one of a state, by other weights than those of the
    explained value beside it."""
    pair = eqn.invars[:2]
    given = [_sources(graph, a, weights) for a in pair]
    filled = [_is_filled(graph, a) for a in pair]
    if not any(given) or not all(map(any, zip(given, filled, strict=True))) or _repeats(eqn):
        return False
    return set.union(*given).isdisjoint(_kernel(graph, explained, weights))


def _repeats(eqn: Equation) -> bool:
    """Whether a matrix product has one number to add, as that with a column of ones has."""
    if eqn.primitive is not prim.DOT:
        return False
    shape, contracted = eqn.invars[0].aval.shape, prim.dot_numbers(eqn)[0][0]
    return all(shape[i] == 1 for i in contracted)


def _sources(graph: Graph, atom: Any, weights: Collection[Var]) -> set[Var]:
    """The weights that a constant depends on; parts that are cut from one are told apart."""
    todo, seen, found = [atom], set[Var](), set[Var]()
    while todo:
        if is_literal(atom := todo.pop()) or atom in seen:
            continue
        seen.add(atom)
        eqn = graph.maker.get(atom)
        if eqn is None:
            found |= {atom} if atom in weights else set()
        elif eqn.primitive in _CUTS:
            found |= {atom} if _sources(graph, eqn.invars[0], weights) else set()
        else:
            todo += eqn.invars
    return found


def _is_filled(graph: Graph, atom: Any) -> bool:
    """Whether a constant is an array of one number, as states begin."""
    if not is_literal(atom) and atom in graph.jaxpr.constvars:
        value = graph.closed.consts[graph.jaxpr.constvars.index(atom)]
        return is_at_hand(value) and np.ptp(np.asarray(value)) == 0
    return constant(graph, atom) is not None
