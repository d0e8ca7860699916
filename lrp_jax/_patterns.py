"""Normalisations and softmaxes, found by what their numbers depend on.

A *normalisation* is a product or quotient of a value and a statistic of the same tensor: the
second operand reaches the input only through a reduction of what the first is made of. A *softmax*
is a quotient of `exp(u)` by its own sum. Neither needs a class, a name or an order of equations.
"""

from collections.abc import Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import _compat
from . import _primitives as prim
from ._compat import Equation, Var, is_literal
from ._primitives import Family, family

if TYPE_CHECKING:
    from ._graph import Graph

_SEGMENTS = _compat.primitive("scatter_max")
_SUMS = (Family.SUM, Family.SCATTER_SUM)
_MOVES = (Family.STRUCTURAL, Family.NEUTRAL)
_POINTWISE = (Family.AFFINE, Family.NEUTRAL, Family.ELEMENTWISE, Family.WINNER)


@dataclass(frozen=True, eq=False)
class Normalization:
    """`product` of a value and a statistic of `root`, which is operand `position`."""

    product: Equation
    position: int
    root: Var
    batch_axis: bool


def find_normalizations(graph: "Graph", known: Set[Var]) -> dict[Var, Normalization]:
    """The normalisations of a graph by their output variable, where it is not `known` otherwise."""
    found: dict[Var, Normalization] = {}
    for eqn in graph.eqns:
        if eqn.primitive not in (prim.MUL, prim.DIV) or not graph.is_live(eqn):
            continue
        out = eqn.outvars[0]
        if graph.explained_operands(eqn) != [0, 1] or out in known:
            continue
        for position in (1, 0) if eqn.primitive is prim.MUL else (1,):
            root = _statistic_root(graph, eqn, position) or _statistic_root(
                graph, eqn, position, of_mean=True
            )
            if root is not None:
                found[out] = Normalization(eqn, position, *root)
                break
    return found


def _statistic_root(
    graph: "Graph", eqn: Equation, position: int, of_mean: bool = False
) -> tuple[Var, bool] | None:
    """The tensor whose statistic an operand is, or None.

    With `of_mean` the value itself may be a sum of that tensor: a layer norm that is written as
    x / s - mean(x) / s. Only a root makes a statistic then: other quotients of two sums are shares.
    """
    value, statistic = eqn.invars[1 - position], eqn.invars[position]
    family_tree = _made_elementwise_of(graph, value, of_mean)
    seen: set[tuple[Var, bool]] = set()
    hits: dict[Var, None] = {}
    todo = [(statistic, False)]
    rooted = eqn.primitive is prim.DIV and not of_mean
    batch_axis = False
    while todo:
        var, reduced = todo.pop()
        if (var, reduced) in seen:
            continue
        seen.add((var, reduced))
        if reduced and var in family_tree:
            hits[var] = None
            continue
        maker = graph.maker.get(var)
        if maker is None:
            return None
        kind = family(maker.primitive)
        operands = graph.explained_operands(maker)
        reduces = kind is Family.SUM or _is_reduction(maker)
        custom = _compat.custom_call(maker) is not None
        if not (reduces or custom or kind in _POINTWISE or kind in _MOVES):
            return None
        rooted = (
            rooted
            or (maker.primitive in prim.ROOTS and not (of_mean and maker.params.get("y", -1) > 0))
            or (maker.primitive is prim.DIV and operands == [1] and not of_mean)
        )
        if reduces and "axes" in maker.params:
            batch_axis = batch_axis or _over_batch(maker)
        todo.extend((maker.invars[i], reduced or reduces) for i in operands)
    if not hits or not rooted:
        return None
    root = min(hits, key=lambda v: graph.position[v])
    if len(hits) == 1:
        root = _centred_from(graph, root) or root
    _, outside = graph.between(eqn.outvars[0], [root])
    return None if outside else (root, batch_axis)


def _made_elementwise_of(graph: "Graph", value: Var, sums: bool = False) -> set[Var]:
    """`value` and what it is made of by centring, scaling and reshaping (and summing)."""
    found, todo = set(), [value]
    while todo:
        var = todo.pop()
        if var in found:
            continue
        found.add(var)
        maker = graph.maker.get(var)
        if maker is None:
            continue
        kind = family(maker.primitive)
        passes = kind in (Family.AFFINE, Family.NEUTRAL) or maker.primitive in prim.SHAPE_ONLY
        if passes or (sums and kind is Family.SUM):
            operands = graph.explained_operands(maker)
            if maker.primitive is prim.SUB or len(operands) == 1:
                todo.append(maker.invars[operands[0]])
    return found


def _centred_from(graph: "Graph", var: Var) -> Var | None:
    """`x` where `var = x - mean(x)`, else None."""
    eqn = graph.maker.get(var)
    if eqn is None or eqn.primitive is not prim.SUB or graph.explained_operands(eqn) != [0, 1]:
        return None
    base = eqn.invars[0]
    seen, todo = set(), [(eqn.invars[1], False)]
    while todo:
        node, reduced = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        if reduced and node is base:
            continue
        maker = graph.maker.get(node)
        if maker is None:
            return None
        kind = family(maker.primitive)
        if not (kind is Family.SUM or kind is Family.AFFINE or kind in _MOVES):
            return None
        todo.extend(
            (maker.invars[i], reduced or kind is Family.SUM)
            for i in graph.explained_operands(maker)
        )
    return base


def _is_reduction(eqn: Equation) -> bool:
    return (
        family(eqn.primitive) is Family.STRUCTURAL
        and "axes" in eqn.params
        and (len(eqn.outvars[0].aval.shape) < len(eqn.invars[0].aval.shape))
    )


def _over_batch(eqn: Equation) -> bool:
    """Whether a statistic mixes the leading axis but keeps the last, as batch norm in training."""
    rank = len(eqn.invars[0].aval.shape)
    axes = set(eqn.params["axes"])
    return rank > 1 and 0 in axes and rank - 1 not in axes


def find_softmaxes(graph: "Graph") -> dict[Var, Var]:
    """For each softmax, and each logarithm of a sum of exponentials, the logits it is one of."""
    found: dict[Var, Var] = {}
    for eqn in graph.eqns:
        operands = graph.explained_operands(eqn)
        divides = eqn.primitive is prim.DIV and operands == [0, 1]
        if not (divides or eqn.primitive is prim.LOG) or not graph.is_live(eqn):
            continue
        total = _walk(graph, eqn.invars[-1], lambda e: family(e.primitive) in _SUMS)
        if total is None:
            continue
        summed = total.invars[graph.explained_operands(total)[0]]
        if divides and not _same(graph, eqn.invars[0], summed):
            continue
        exponential = _walk(graph, summed, lambda e: e.primitive is prim.EXP)
        if exponential is None:
            continue
        logits = _unshifted(graph, exponential.invars[0])
        out = eqn.outvars[0] if divides else _shifted_back(graph, eqn.outvars[0], logits)
        _, outside = graph.between(out, [logits])
        if not outside:
            found[out] = logits
    return found


def _shifted_back(graph: "Graph", logarithm: Var, logits: Var) -> Var:
    """The logarithm of a sum of exponentials after the maximum was added again."""
    reader = graph.readers[logarithm][0]
    if not graph.read_once(logarithm) or reader is None or reader.primitive not in prim.ADD:
        return logarithm
    shifted: Var = reader.outvars[0]
    todo = [a for a in reader.invars if a is not logarithm]
    while todo:
        atom = todo.pop()
        maker = None if is_literal(atom) else graph.maker.get(atom)
        if maker is None:
            continue
        if _is_maximum_of(logits, maker):
            return shifted
        if family(maker.primitive) in (*_MOVES, Family.WINNER, Family.DETACH):
            todo.extend(maker.invars)
    return logarithm


def _unshifted(graph: "Graph", logits: Var) -> Var:
    """The logits before their maximum was subtracted."""
    above = graph.maker.get(logits)
    if above is None or above.primitive is not prim.SUB:
        return logits
    operands = graph.explained_operands(above)
    if operands == [0]:
        return above.invars[0]
    if operands == [0, 1]:  # minus a maximum that was not detached
        before: Var = above.invars[0]
        if _walk(graph, above.invars[1], lambda e: _is_maximum_of(before, e)) is not None:
            return before
    return logits


def _is_maximum_of(var: Var, eqn: Equation) -> bool:
    """Whether an equation reduces a variable, over axes or over segments."""
    reduces = _is_reduction(eqn) or eqn.primitive is _SEGMENTS
    return reduces and any(atom is var for atom in eqn.invars)


def _walk(graph: "Graph", var: Var, wanted: "object") -> Equation | None:
    """The nearest wanted equation above `var`, through moves and constants."""
    assert callable(wanted)
    while not is_literal(var):
        eqn = graph.maker.get(var)
        if eqn is None:
            return None
        if wanted(eqn):
            return eqn
        operands = graph.explained_operands(eqn)
        passes = family(eqn.primitive) in (*_MOVES, Family.AFFINE, Family.WINNER)
        passes = passes or eqn.primitive is prim.ABS
        if not passes or len(operands) != 1:
            return None
        var = eqn.invars[operands[0]]
    return None


def _same(graph: "Graph", a: Var, b: Var) -> bool:
    """Whether two variables are the same numbers up to casts and reshapes."""

    def origin(var: Var) -> Var:
        eqn = graph.maker.get(var)
        while eqn is not None and (
            family(eqn.primitive) is Family.NEUTRAL or eqn.primitive in prim.SHAPE_ONLY
        ):
            var = eqn.invars[0]
            eqn = graph.maker.get(var)
        return var

    return origin(a) is origin(b)
