"""Sigmoids of log-sum-exps: sigmoid(a - b) is exp(a) / (exp(a) + exp(b)).

So the means of two blocks are merged, and a mean and a sink, where each block knows only its own
log-sum-exp.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from .._analysis import compat, primitives as prim
from .._analysis.compat import Var, is_literal
from .._analysis.graph import Graph
from .._analysis.monomials import link
from .step import Found
from .wholes import log_sums_of

Read = Callable[[Var], Any]
_LOGISTIC = compat.primitive("logistic")


def log_odds(graph: Graph, found: Mapping[Var, Found]) -> Mapping[int, Callable[[Read], Any]]:
    """How sigmoids of log-sum-exps are quotients of exponentials, by the `id` of their equations.

    Args:
        graph: a graph.
        found: layers that are recognised as they stand.
    """
    log_sums = log_sums_of(graph, found)

    def is_log_sum(atom: Any) -> bool:
        while not is_literal(atom) and atom not in log_sums:
            eqn = graph.maker.get(atom)
            if eqn is None or link(eqn) is None:
                return False
            atom = eqn.invars[0]
        return atom in log_sums

    ways: dict[int, Callable[[Read], Any]] = {}
    for eqn in graph.eqns if log_sums else ():
        if eqn.primitive is not _LOGISTIC or not graph.is_live(eqn):
            continue
        odds = eqn.invars[0]
        maker = graph.maker.get(odds)
        if is_log_sum(odds):
            ways[id(eqn)] = _way(odds, None)
        elif maker is not None and any(map(is_log_sum, maker.invars)):
            if maker.primitive is prim.SUB:
                one, other = maker.invars
                ways[id(eqn)] = _way(one, other, swapped=_comes_later(one, other, graph))
            elif maker.primitive in prim.ADD and not all(map(is_log_sum, maker.invars)):
                one, other = sorted(maker.invars, key=is_log_sum, reverse=True)
                ways[id(eqn)] = _way(one, other, sign=-1)
    return ways


def _comes_later(one: Any, other: Any, graph: Graph) -> bool:
    return (
        not (is_literal(one) or is_literal(other)) and graph.position[one] > graph.position[other]
    )


def _way(one: Any, other: Any, sign: int = 1, swapped: bool = False) -> Callable[[Read], Any]:
    """sigmoid(a - b), the sum in the same order as that of sigmoid(b - a)."""

    def way(read: Read) -> Any:
        values = (0.0 if v is None else v.val if is_literal(v) else read(v) for v in (one, other))
        a, b = values
        both = jnp.broadcast_arrays(a, b if sign > 0 else -b)
        both = both[::-1] if swapped else both
        largest = jax.lax.stop_gradient(jnp.maximum(*both))
        e = [jnp.exp(z - largest) for z in both]
        return e[swapped] / (e[0] + e[1])

    return way
