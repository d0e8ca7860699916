"""Numbers that pass through integers: what a cast made of them, and what is not understood.

A quantised network rounds explained numbers, casts them to integers, multiplies and adds those, and
casts them back. Such integers *carry* relevance; indices, comparisons and arg-maxima do not.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.flow import Flow, bodies, casts_to_integers
from ..._analysis.graph import Graph
from ..._analysis.ids import CONVERT, is_integer
from ..._analysis.primitives import Family, family

ROUND, CLAMP = (compat.primitive(name) for name in ("round", "clamp"))
ROUNDING = compat.primitives("round floor ceil")


def hands_out_integers(eqn: Equation) -> bool:
    """Whether an equation has integer results, of a body that casts floats."""
    if not any(map(is_integer, eqn.outvars)):
        return False
    inside = [e for body in bodies(eqn) for e in compat.open_jaxpr(body).eqns]
    return any(casts_to_integers(e) or hands_out_integers(e) for e in inside)


# -- which scales a quantiser takes from the numbers themselves ----------------------------------


def quantisers(graph: Graph, flow: Flow) -> list[Var]:
    """The explained numbers that are rounded, or cast to integers that carry them."""
    found = []
    for eqn in graph.eqns:
        casts = casts_to_integers(eqn) and eqn.outvars[0] in flow.carried
        if (casts or eqn.primitive is ROUND) and eqn.invars[0] in flow.reached:
            found.append(eqn.invars[0])
    return found


def scales_of_calls(graph: Graph, flow: Flow) -> set[Var]:
    """The reductions of its other operands that a function which rounds is called with."""
    found: set[Var] = set()
    for eqn in graph.eqns:
        if compat.custom_call(eqn) is None or not may_quantise(eqn):
            continue
        operands = [a for a in eqn.invars if not is_literal(a) and a in flow.reached]
        for numbers in operands:
            for scale in operands:
                if scale is not numbers:
                    found |= _statistics(graph, flow, scale, numbers)
    return found


def may_quantise(eqn: Equation) -> bool:
    """Whether an equation rounds explained numbers, or hands out integers made of them."""
    body = compat.custom_call(eqn)
    if body is not None:
        return any(map(may_quantise, compat.open_jaxpr(body).eqns))
    inside = compat.plain_call(eqn)
    if inside is not None and any(map(may_quantise, compat.open_jaxpr(inside).eqns)):
        return True
    return eqn.primitive is ROUND or casts_to_integers(eqn) or hands_out_integers(eqn)


def scales(graph: Graph, flow: Flow, start: Var) -> set[Var]:
    """The reductions from which the scale and the shift of a quantiser are made."""
    found: set[Var] = set()
    var = start
    while (eqn := graph.maker.get(var)) is not None:
        operands = [i for i, a in enumerate(eqn.invars) if not is_literal(a) and a in flow.reached]
        pointwise = family(eqn.primitive) in prim.POINTWISE or eqn.primitive in prim.SHAPE_ONLY
        if not pointwise or not operands:
            break
        main, others = operands[0], []
        if len(operands) == 2:
            pairs = [(0, 1)] if eqn.primitive is prim.DIV else [(0, 1), (1, 0)]
            for numbers, scale in pairs:
                reductions = _statistics(graph, flow, eqn.invars[scale], eqn.invars[numbers])
                if reductions:
                    main, others = numbers, [*reductions]
                    break
            else:
                break
        found.update(others)
        if others and eqn.primitive in (prim.DIV, prim.MUL):
            break
        var = eqn.invars[main]
    return found


def _statistics(graph: Graph, flow: Flow, scale: Var, numbers: Var) -> set[Var]:
    """The reductions of some numbers that another value is made of; none if it is no statistic."""
    origin = _made_of(graph, flow, numbers)
    found: set[Var] = set()
    todo, seen = [(scale, False)], set()
    while todo:
        var, reduced = todo.pop()
        if (var, reduced) in seen:
            continue
        seen.add((var, reduced))
        if var in origin:
            if not reduced:
                return set()
            continue
        eqn = graph.maker.get(var)
        if eqn is None:
            return set()
        reduces = family(eqn.primitive) is Family.SUM or prim.is_reduction(eqn)
        kinds = (*prim.POINTWISE, Family.STRUCTURAL)
        if not (reduces or family(eqn.primitive) in kinds or compat.custom_call(eqn) is not None):
            return set()
        if reduces and not reduced:
            found.add(var)
        todo += [
            (a, reduced or reduces)
            for a in eqn.invars
            if not is_literal(a) and (a in flow.reached or a in flow.carried)
        ]
    return found


def _made_of(graph: Graph, flow: Flow, var: Var) -> set[Var]:
    """A value, and what it is made of number by number."""
    found, todo = set(), [var]
    while todo:
        current = todo.pop()
        if current in found:
            continue
        found.add(current)
        eqn = graph.maker.get(current)
        if eqn is None:
            continue
        pointwise = family(eqn.primitive) in prim.POINTWISE or eqn.primitive in prim.SHAPE_ONLY
        operands = [a for a in eqn.invars if not is_literal(a) and a in flow.reached]
        if pointwise and operands and (len(operands) == 1 or eqn.primitive is not prim.MUL):
            todo.append(operands[0])
    return found


def straight_through(graph: Graph) -> dict[int, Var]:
    """By the identity of an addition: the detached operand of x + stop_gradient(q(x) - x), whose
    value is q(x), where q rounds. Its operand in the code is the value of the mapping."""
    found: dict[int, Var] = {}
    for eqn in graph.eqns:
        if eqn.primitive not in prim.SUMS or len(eqn.invars) != 2:
            continue
        for here, there in ((0, 1), (1, 0)):
            numbers, detached = eqn.invars[here], eqn.invars[there]
            if is_literal(numbers) or is_literal(detached):
                continue
            stop = graph.maker.get(detached)
            if stop is None or family(stop.primitive) is not Family.DETACH:
                continue
            change = graph.maker.get(stop.invars[0]) if not is_literal(stop.invars[0]) else None
            if change is None or change.primitive is not prim.SUB or not graph.read_once(detached):
                continue
            rounded, original = change.invars
            if eqn.primitive is prim.SUB:
                rounded, original = original, rounded
                if here == 1:
                    continue
            if original is numbers and not is_literal(rounded) and _rounds(graph, rounded, numbers):
                found[id(eqn)] = detached
    return found


def _rounds(graph: Graph, var: Var, root: Var) -> bool:
    """Whether a value is made of a root by rounding, or by a cast to integers."""
    eqns, todo, seen = [], [var], set()
    while todo:
        current = todo.pop()
        eqn = graph.maker.get(current)
        if current in seen or current is root or eqn is None:
            continue
        seen.add(current)
        eqns.append(eqn)
        todo += [a for a in eqn.invars if not is_literal(a)]
    return any(
        eqn.primitive in ROUNDING or (eqn.primitive is CONVERT and is_integer(eqn.outvars[0]))
        for eqn in eqns
    )


# -- how large integers can be ---------------------------------------------------------------------

Interval = tuple[float, float]
ANY: Interval = (-math.inf, math.inf)


def range_of(atom: Any) -> Interval:
    """The integers of a literal, or of a variable's dtype."""
    info = jnp.iinfo(atom.aval.dtype)
    return literal_interval(atom) or (float(info.min), float(info.max))


def interval(eqn: Equation, operands: Sequence[Interval]) -> Interval:
    """Where the results of an equation of integers lie, computed without overflow."""
    primitive, kind = eqn.primitive, family(eqn.primitive)
    if primitive in prim.ADD:
        return operands[0][0] + operands[1][0], operands[0][1] + operands[1][1]
    if primitive is prim.SUB:
        return operands[0][0] - operands[1][1], operands[0][1] - operands[1][0]
    if primitive is prim.NEG:
        return -operands[0][1], -operands[0][0]
    if primitive is prim.MAX:
        return max(o[0] for o in operands), max(o[1] for o in operands)
    if primitive is prim.MIN:
        return min(o[0] for o in operands), min(o[1] for o in operands)
    if primitive is CLAMP:
        low, value, high = operands
        return max(low[0], min(value[0], high[0])), min(high[1], max(value[1], low[1]))
    if primitive is prim.MUL or kind is Family.CONTRACTION:
        products = [_times(a, b) for a in operands[0] for b in operands[1]]
        terms = _terms(eqn)
        return terms * min(products), terms * max(products)
    lowest, highest = min(o[0] for o in operands), max(o[1] for o in operands)
    if kind in (Family.SUM, Family.SCATTER_SUM):
        count = max(1, eqn.invars[0].aval.size)
        return min(lowest, count * lowest), max(highest, count * highest)
    if kind in (Family.STRUCTURAL, Family.NEUTRAL):
        return min(lowest, 0.0), max(highest, 0.0)  # what is filled up is zero
    if primitive is prim.ABS:
        return 0.0, max(abs(operands[0][0]), abs(operands[0][1]))
    return ANY


def _times(a: float, b: float) -> float:
    return 0.0 if a == 0 or b == 0 else a * b


def _terms(eqn: Equation) -> int:
    """How many products a number of a contraction adds."""
    if family(eqn.primitive) is not Family.CONTRACTION:
        return 1
    if eqn.primitive is prim.CONV:
        shape, numbers = eqn.invars[1].aval.shape, eqn.params["dimension_numbers"]
        return math.prod(shape) // max(1, shape[numbers.rhs_spec[0]])
    contracted = prim.dot_numbers(eqn)[0][0]
    return math.prod(eqn.invars[0].aval.shape[i] for i in contracted)


def literal_interval(atom: Any) -> Interval | None:
    """The range of a literal."""
    if not is_literal(atom):
        return None
    value = np.asarray(atom.val)
    return float(value.min()), float(value.max())
