"""Which variables are sums and products of exponentials, and which their logarithms."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var
from ..._analysis.factors import STABILISER, constant, link, masked_by, power_of, product_operands
from ..._analysis.graph import Graph
from ..equations.parts import CONCATENATE, part_of_contraction, piece_of
from .totals import Total

_EXP2, _POW = compat.primitive("exp2"), compat.primitive("pow")
LOGARITHMS = {prim.LOG: math.e, compat.primitive("log2"): 2.0}
"""Their bases."""
_LEAST = -700.0
"""The exponential of less is zero in float64."""


def is_least(graph: Graph, atom: Any, coefficient: float = 1) -> bool:
    """Whether the exponential of a number, with which maxima and log-sum-exps begin, is 0."""
    number = constant(graph, atom)
    return number is not None and coefficient * number < _LEAST


def is_logaddexp(eqn: Equation) -> bool:
    """Whether an equation is a call of `jnp.logaddexp`."""
    return compat.custom_call(eqn) is not None and compat.called_name(eqn) == "logaddexp"


def softplus_of(eqn: Equation | None, graph: Graph) -> tuple[Var, float] | None:
    """The value and the number of which an equation is `jnp.logaddexp`; None of any other."""
    if eqn is None or not is_logaddexp(eqn):
        return None
    for value, other in itertools.permutations(eqn.invars):
        number = constant(graph, other)
        if number is not None and value in graph.live and value.aval == eqn.outvars[0].aval:
            return value, number
    return None


def base_of(eqn: Equation, graph: Graph) -> float | None:
    """The number of which an equation is a power to an explained exponent; None for another."""
    if eqn.primitive is prim.EXP:
        return math.e
    if eqn.primitive is _POW and graph.explained_operands(eqn) == [1]:
        base = constant(graph, eqn.invars[0])
        return base if base is not None and base > 0 else None
    return 2.0 if eqn.primitive is _EXP2 else None


def but_nan(eqn: Equation, graph: Graph) -> Any | None:
    """What an equation hands on unless it is no number, as the logarithm of a negative sum."""
    if eqn.primitive is not prim.SELECT or len(eqn.invars) != 3:
        return None
    for operand, other in itertools.permutations(eqn.invars[1:]):
        number = constant(graph, other)
        if number is not None and math.isnan(number) and operand.aval == eqn.outvars[0].aval:
            return operand
    return None


def above_floor(eqn: Equation, graph: Graph) -> Any | None:
    """What a maximum with next to nothing keeps from being zero; None of anything else."""
    if eqn.primitive is not prim.MAX:
        return None
    for operand, other in itertools.permutations(eqn.invars):
        number = constant(graph, other)
        if number is not None and 0 < number < STABILISER and operand in graph.live:
            return operand
    return None


def variables(
    graph: Graph, whole: set[Var], written_out: Mapping[Var, Total]
) -> tuple[set[Var], set[Var], set[Var]]:
    """Variables that are sums and products of exponentials, exponentials with logarithms of such
    sums, and what has such logarithms."""
    made: set[Var] = set()
    logs: set[Var] = set()
    normalised: set[Var] = set()
    closed = set(whole)
    for eqn in graph.eqns:
        operands = [eqn.invars[i] for i in graph.explained_operands(eqn)]
        if not graph.is_live(eqn) or not operands or len(eqn.outvars) != 1:
            continue
        out, primitive = eqn.outvars[0], eqn.primitive
        log, inside = any(a in logs for a in operands), any(a in made for a in operands)
        moves = link(eqn) is not None or but_nan(eqn, graph) is not None
        if primitive is prim.SELECT and masked_by(eqn, graph, -math.inf) is not None:
            moves = log
        if moves and operands[0] in closed:
            closed.add(out)
        if primitive in (prim.MUL, prim.DIV) and log and len(operands) == 1:
            logs.add(out)
        if base_of(eqn, graph) is not None:
            made.add(out)
            normalised |= {out} if log else set()
        elif out in written_out and written_out[out].place.var in made:
            made.add(out)
        elif is_logaddexp(eqn) or (primitive is CONCATENATE and log):
            logs.add(out)
        elif primitive is CONCATENATE and all(a in made for a in operands):
            made.add(out)
        elif primitive in LOGARITHMS:
            logs |= {out} if inside else set()
        elif moves or primitive in (*prim.ADD, prim.SUB, prim.NEG):
            # A residual stream is no sum of exponentials, though attention is added to it.
            made |= {out} if all(a in made for a in operands) else set()
            logs |= {out} if log else set()
        elif inside:
            opens = above_floor(eqn, graph) is not None
            opens = opens or (primitive is prim.DOT and not any(a in closed for a in operands))
            opens = opens or part_of_contraction(eqn, graph) is not None
            opens = opens or piece_of(eqn, graph) is not None
            opens = opens or primitive in (prim.REDUCE_SUM, prim.ABS) or power_of(eqn) is not None
            if opens or product_operands(eqn, graph) is not None:
                made.add(out)
    return made, normalised, logs
