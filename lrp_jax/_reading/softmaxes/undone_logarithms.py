"""Exponentials of log-sum-exps: exp(logsumexp(u) + a) is exp(a) times the sum of exp(u).

So a state that is kept as its logarithm is the state.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.factors import link
from ..._analysis.graph import Graph
from ..._analysis.primitives import Family, family
from ..._layers.step import Found
from .inside_exponentials import is_logaddexp
from .wholes import log_sums_of

Read = Callable[[Var], Any]
_CONCATENATE = compat.primitive("concatenate")


class LogSum(NamedTuple):
    """A log-sum-exp, and how it is moved.

    Attributes:
        out: what makes it.
        moves: the equations after it.
    """

    out: Var
    moves: list[Equation]


def undone_logarithms(graph: Graph, found: Mapping[Var, Found]) -> dict[int, Callable[[Read], Any]]:
    """How such exponentials are computed as sums, by the `id` of their equations.

    Args:
        graph: a graph.
        found: layers that are recognised as they stand.
    """
    log_sums = log_sums_of(graph, found)

    def log_sum(atom: Any) -> LogSum | None:
        moves: list[Equation] = []
        while not is_literal(atom) and (eqn := graph.maker.get(atom)) is not None:
            sums = atom in log_sums or family(eqn.primitive) is Family.LOGSUMEXP
            if sums or (is_logaddexp(eqn) and graph.explained_operands(eqn) == [0, 1]):
                return LogSum(atom, moves[::-1])
            if link(eqn) is None:
                return None
            moves.append(eqn)
            atom = eqn.invars[0]
        return None

    ways: dict[int, Callable[[Read], Any]] = {}
    for eqn in graph.eqns:
        if eqn.primitive is not prim.EXP or not graph.is_live(eqn) or eqn.outvars[0] in found:
            continue
        parts: list[tuple[Any, int]] = [(eqn.invars[0], 1)]
        adds = None if is_literal(eqn.invars[0]) else graph.maker.get(eqn.invars[0])
        if adds is not None and adds.primitive is _CONCATENATE and any(map(log_sum, adds.invars)):
            ways[id(eqn)] = _side_by_side(adds)
            continue
        if adds is not None and adds.primitive in prim.SUMS and adds.outvars[0] not in log_sums:
            a, b = adds.invars
            parts = [(a, 1), (b, -1 if adds.primitive is prim.SUB else 1)]
        sums = [own for a, sign in parts if sign > 0 and (own := log_sum(a)) is not None]
        others = [(a, sign) for a, sign in parts if sign < 0 or log_sum(a) is None]
        if sums and not any(
            _compares(a, graph, log_sum) or any(_reads(a, own.out, graph) for own in sums)
            for a, _ in others
        ):
            ways[id(eqn)] = _way(eqn, sums, others, graph, log_sums)
    return ways


def _side_by_side(joins: Equation) -> Callable[[Read], Any]:
    """Exponentials of what is put side by side, one by one."""

    def way(read: Read) -> Any:
        parts = [a.val if is_literal(a) else read(a) for a in joins.invars]
        return jnp.concatenate([jnp.exp(y) for y in parts], joins.params["dimension"])

    return way


def _compares(atom: Any, graph: Graph, log_sum: Callable[[Any], Any]) -> bool:
    """Whether an operand is a maximum or a log-sum-exp, with which others are compared."""
    if log_sum(atom) is not None:
        return True
    eqn = None if is_literal(atom) else graph.maker.get(atom)
    while eqn is not None and link(eqn) is not None:
        eqn = None if is_literal(eqn.invars[0]) else graph.maker.get(eqn.invars[0])
    return eqn is not None and (
        family(eqn.primitive) in (Family.WINNER, Family.DETACH) or eqn.primitive in prim.WINNERS
    )


def _reads(atom: Any, var: Var, graph: Graph) -> bool:
    """Whether an operand is computed from a variable, as what normalises it is."""
    todo, seen, first = [atom], set[Var](), graph.position[var]
    while todo:
        atom = todo.pop()
        if atom is var:
            return True
        if is_literal(atom) or atom in seen or graph.position.get(atom, -1) < first:
            continue
        seen.add(atom)
        todo += graph.maker[atom].invars
    return False


def _way(
    eqn: Equation,
    sums: list[LogSum],
    others: list[tuple[Any, int]],
    graph: Graph,
    log_sums: Mapping[Var, Var],
) -> Callable[[Read], Any]:
    def value(atom: Any, read: Read) -> Any:
        return atom.val if is_literal(atom) else read(atom)

    def way(read: Read) -> Any:
        total: Any = 1
        for own in sums:
            factor = _sum(own.out, read, graph, log_sums)
            for move in own.moves:
                factor = compat.applied(move, factor)
            total = total * factor
        for atom, sign in others:
            total = total * jnp.exp(sign * value(atom, read))
        kept = jnp.exp(value(eqn.invars[0], read))
        return prim.KEEP.bind(total.astype(kept.dtype), jax.lax.stop_gradient(kept))

    return way


def _sum(out: Var, read: Read, graph: Graph, log_sums: Mapping[Var, Var]) -> Any:
    """The sum of which a variable is the logarithm."""
    eqn = graph.maker[out]
    if out not in log_sums:
        values = [jnp.exp(read(a)) for a in eqn.invars]
        if family(eqn.primitive) is not Family.LOGSUMEXP:
            return values[0] + values[1]
        return jax.lax.cumsum(values[0], **eqn.params)
    root = log_sums[out]
    made: dict[Var, Any] = {root: read(root)}
    for inner in graph.between(out, [root])[0]:
        if inner.primitive is prim.LOG:
            return made[inner.invars[0]]
        if inner.primitive is prim.SUB and inner.invars[0] is root:  # of the maximum
            made[inner.outvars[0]] = made[root]
            continue
        operands = (
            a.val if is_literal(a) else made[a] if a in made else read(a) for a in inner.invars
        )
        made[inner.outvars[0]] = compat.applied(inner, *operands)
    raise AssertionError("a log-sum-exp has a logarithm")
