"""Sigmoids of log-sum-exps: sigmoid(a - b) is exp(a) / (exp(a) + exp(b)).

So the means of two blocks are merged, and a mean and a sink, where each block knows only its own
log-sum-exp.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from .._analysis import compat, primitives as prim
from .._analysis.compat import Equation, Var, is_literal
from .._analysis.graph import Graph
from .._analysis.monomials import link
from .._analysis.signs import literal_value
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
        return not is_literal(atom)

    ways: dict[int, Callable[[Read], Any]] = {}
    for eqn in graph.eqns if log_sums else ():
        if not graph.is_live(eqn) or (found_odds := _odds(eqn, graph)) is None:
            continue
        odds, turned = found_odds
        maker = graph.maker.get(odds)
        if is_log_sum(odds):
            ways[id(eqn)] = _way(odds, None, turned=turned)
        elif maker is not None and any(map(is_log_sum, maker.invars)):
            if maker.primitive is prim.SUB:
                one, other = maker.invars
                swapped = _comes_later(one, other, graph)
                ways[id(eqn)] = _way(one, other, swapped=swapped, turned=turned)
            elif maker.primitive in prim.ADD and not all(map(is_log_sum, maker.invars)):
                one, other = sorted(maker.invars, key=is_log_sum, reverse=True)
                ways[id(eqn)] = _way(one, other, sign=-1, turned=turned)
    return ways


def _odds(eqn: Equation, graph: Graph) -> tuple[Var, bool] | None:
    """What an equation makes a sigmoid of, or one minus a sigmoid (True)."""
    turned = eqn.primitive is prim.SUB and literal_value(eqn.invars[0]) == 1.0
    maker = graph.maker.get(eqn.invars[1]) if turned and not is_literal(eqn.invars[1]) else eqn
    if maker is None or maker.primitive is not _LOGISTIC:
        return None
    odds = maker.invars[0]
    while (above := graph.maker.get(odds)) is not None and above.primitive is prim.NEG:
        odds, turned = above.invars[0], not turned
    return odds, turned


def _comes_later(one: Any, other: Any, graph: Graph) -> bool:
    return (
        not (is_literal(one) or is_literal(other)) and graph.position[one] > graph.position[other]
    )


def _way(
    one: Any, other: Any, sign: int = 1, swapped: bool = False, turned: bool = False
) -> Callable[[Read], Any]:
    """sigmoid(a - b), or sigmoid(b - a) where it is `turned`, with one order of their sum."""

    def way(read: Read) -> Any:
        values = (0.0 if v is None else v.val if is_literal(v) else read(v) for v in (one, other))
        a, b = values
        both = jnp.broadcast_arrays(a, b if sign > 0 else -b)
        both = both[::-1] if swapped else both
        largest = jax.lax.stop_gradient(jnp.maximum(*both))
        e = [jnp.exp(z - largest) for z in both]
        return e[swapped != turned] / (e[0] + e[1])

    return way
