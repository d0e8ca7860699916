"""Log-sum-exps of two values that are written out: a + log(1 + exp(b - a)) is logaddexp(a, b).

So what comes in blocks carries its log-sum-exp from one to the next, by a softplus of the
difference, the logarithm of a sigmoid, or the larger one and the rest.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.factors import constant
from ..._analysis.graph import Graph
from .inside_exponentials import is_least, is_logaddexp, softplus_of

Read = Callable[[Var], Any]
_LOGISTIC = compat.primitive("logistic")


def sums_of_two(
    graph: Graph, same: Mapping[Var, Var], dominator: Mapping[Var, Var]
) -> dict[int, Callable[[Read], Any]]:
    """How such sums are computed by `jnp.logaddexp`, by the `id` of their equations.

    Args:
        graph: a graph.
        same: for each variable the first one that is computed in the same way.
        dominator: what each variable is an elementwise function of.
    """
    found: dict[int, Callable[[Read], Any]] = {}
    for eqn in graph.eqns:
        two = _logits(eqn, graph, same) if eqn.primitive in prim.SUMS else None
        if two is None or not graph.is_live(eqn):
            continue
        more = [a for a in two if not is_least(graph, a)]  # a running sum begins with nothing
        if len(more) == 1 or (
            eqn.outvars[0] not in dominator and graph.explained_operands(eqn) == [0, 1]
        ):
            found[id(eqn)] = _way(more)
    return found


def _way(logits: Sequence[Var]) -> Callable[[Read], Any]:
    return lambda read: functools.reduce(jnp.logaddexp, map(read, logits))


def _logits(eqn: Equation, graph: Graph, same: Mapping[Var, Var]) -> tuple[Any, Any] | None:
    """Two values of which an equation makes the log-sum-exp; None of any other."""
    added = eqn.primitive in prim.ADD
    for first, second in list(itertools.permutations(eqn.invars))[: 1 + added]:
        softplus = _softplus(second, 1 if added else -1, graph)
        two = None if softplus is None else _both(first, *softplus, graph, same)
        if two is not None:
            return two
    return None


def _softplus(atom: Any, sign: int, graph: Graph) -> tuple[Any, int] | None:
    """What a value is the softplus of, and with which sign; None where it is none, or less one."""
    eqn = None if is_literal(atom) else graph.maker.get(atom)
    if eqn is None or not graph.is_live(eqn):
        return None
    operand = eqn.invars[0]
    if eqn.primitive is prim.KEEP:
        return _softplus(operand, sign, graph)
    if eqn.primitive is prim.NEG:
        return _softplus(operand, -sign, graph)
    above = None if is_literal(operand) else graph.maker.get(operand)
    if eqn.primitive is prim.LOG and above is not None and above.primitive is _LOGISTIC:
        return (above.invars[0], -1) if sign < 0 else None
    exponential = None
    if eqn.primitive is prim.LOG and above is not None and above.primitive in prim.ADD:
        rest = [a for a in above.invars if constant(graph, a) != 1]
        exponential = graph.maker.get(rest[0]) if len(rest) == 1 else None
    elif is_logaddexp(eqn):
        softplus = softplus_of(eqn, graph)
        return (softplus[0], 1) if softplus and softplus[1] == 0 and sign > 0 else None
    is_exponential = exponential is not None and exponential.primitive is prim.EXP
    return (exponential.invars[0], 1) if exponential and is_exponential and sign > 0 else None


def _both(
    first: Any, difference: Any, sign: int, graph: Graph, same: Mapping[Var, Var]
) -> tuple[Any, Any] | None:
    """A value to which the softplus of a difference is added, and what it differs from."""

    def name(atom: Any) -> Any:
        number = constant(graph, atom)
        return number if number is not None else same.get(atom, atom)

    eqn = None if is_literal(difference) else graph.maker.get(difference)
    if eqn is not None and eqn.primitive is prim.NEG:
        return _both(first, eqn.invars[0], -sign, graph, same)
    if eqn is not None and eqn.primitive is prim.SUB:
        other, subtracted = eqn.invars[::sign]
        return (first, other) if name(subtracted) == name(first) else None
    larger = None if is_literal(first) else graph.maker.get(first)
    inner = (
        graph.maker.get(eqn.invars[0]) if eqn is not None and eqn.primitive is prim.ABS else None
    )
    if sign > 0 or larger is None or inner is None or larger.primitive is not prim.MAX:
        return None
    alike = inner.primitive is prim.SUB and {*map(name, larger.invars)} == {
        *map(name, inner.invars)
    }
    return (larger.invars[0], larger.invars[1]) if alike else None
