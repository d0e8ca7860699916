"""Sigmoids of log-sum-exps: sigmoid(a - b) is exp(a) / (exp(a) + exp(b)).

So the means of two blocks are merged, and a mean and a sink, where each block knows only its own
log-sum-exp.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.factors import link
from ..._analysis.graph import Graph
from ..._analysis.signs import literal_value
from ..._layers.step import Found
from .inside_exponentials import is_least, is_logaddexp
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
                return eqn is not None and is_logaddexp(eqn)
            atom = eqn.invars[0]
        return not is_literal(atom)

    ways: dict[int, Callable[[Read], Any]] = {}
    for eqn in graph.eqns:
        if not graph.is_live(eqn) or (found_odds := _odds(eqn, graph)) is None:
            continue
        odds, turned, moves = found_odds
        maker = graph.maker.get(odds)
        two: tuple[Any, Any] | None = (odds, None) if is_log_sum(odds) else None
        sign = 1
        if two is None and maker is not None and any(map(is_log_sum, maker.invars)):
            one, other = maker.invars
            if maker.primitive is prim.SUB and is_least(graph, other):  # all is in one block
                ways[id(eqn)] = _whole(eqn, turned)
            elif maker.primitive is prim.SUB:
                two = one, other
            elif maker.primitive in prim.ADD and not all(map(is_log_sum, maker.invars)):
                two, sign = (one, other) if is_log_sum(one) else (other, one), -1
        if two is not None:
            ways[id(eqn)] = _way(Odds(*two, sign, turned, moves), graph)
    return ways


class Odds(NamedTuple):
    """sigmoid(one - other), or sigmoid(other - one) where it is `turned`, moved in some ways.

    Attributes:
        one, other: of which at least one is a log-sum-exp; None for zero.
        sign: -1 where the other one is added.
        turned, moves: see above.
    """

    one: Any
    other: Any
    sign: int
    turned: bool
    moves: Sequence[Equation]


def _odds(eqn: Equation, graph: Graph) -> tuple[Var, bool, list[Equation]] | None:
    """What an equation makes a sigmoid of, or one minus a sigmoid (True), and how it is moved."""
    turned = eqn.primitive is prim.SUB and literal_value(eqn.invars[0]) == 1.0
    maker, moves = graph.maker.get(eqn.invars[1]) if turned else eqn, list[Equation]()
    while turned and maker is not None and link(maker) is not None:
        moves.insert(0, maker)
        maker = graph.maker.get(maker.invars[0])
    if maker is None or maker.primitive is not _LOGISTIC:
        return None
    odds = maker.invars[0]
    while (above := graph.maker.get(odds)) is not None and above.primitive is prim.NEG:
        odds, turned = above.invars[0], not turned
    return odds, turned, moves


def _whole(eqn: Equation, turned: bool) -> Callable[[Read], Any]:
    """All or nothing, where what a value is compared with is as good as minus infinity."""
    return lambda read: jnp.full(eqn.outvars[0].aval.shape, float(not turned))


def _way(odds: Odds, graph: Graph) -> Callable[[Read], Any]:
    """How such a sigmoid is computed as one of two exponentials over their sum."""
    explained = all(not is_literal(v) and v in graph.live for v in odds[:2] if v is not None)
    blocks = explained and odds.other is not None
    swapped = blocks and graph.position[odds.one] > graph.position[odds.other]

    def value(atom: Any, read: Read) -> Any:
        return 0.0 if atom is None else atom.val if is_literal(atom) else read(atom)

    def way(read: Read) -> Any:
        one, other = value(odds.one, read), value(odds.other, read)
        two = jnp.broadcast_arrays(one, other if odds.sign > 0 else -other)
        if blocks:  # as what is merged one by one
            share = jnp.exp(two[odds.turned] - jnp.logaddexp(*(two[::-1] if swapped else two)))
        else:
            largest = jax.lax.stop_gradient(jnp.maximum(*two))
            e = [jnp.exp(z - largest) for z in two]
            share = e[odds.turned] / (e[0] + e[1])
        for move in odds.moves:
            share = compat.applied(move, share)
        return share

    return way
