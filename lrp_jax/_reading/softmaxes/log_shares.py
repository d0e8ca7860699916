"""Softmaxes of logarithms: softmax(log a) is a / sum a, which has no exponential. And logarithms
of sums of softmaxes: log(p + q) is the log-sum-exp of log p and log q; and of what is picked of
them, which is picked of the logarithm."""

import math
from collections.abc import Callable, Container, Sequence
from typing import Any

import jax.numpy as jnp

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.factors import link, own_index
from ..._analysis.graph import Graph
from ..._analysis.monomials import Monomials
from ..._layers.step import Found
from ..equations.cut_first import before_links
from .exponentials import Exponentials
from .softmax_forms import exponential_of, shifted_exponentials
from .weighted_mean import exponential_softmax, found_in, softmax_alone
from .wholes import is_of_exponentials

Read = Callable[[Var], Any]
_CHOICES = (prim.MUL, prim.SELECT)
_PICKS = compat.primitives("gather slice dynamic_slice rev")


def log_share(softmax: Found, out: Var, exponentials: Exponentials) -> Callable[[Read], Any] | None:
    """How a softmax of logarithms is computed as a share; None of any other.

    Args:
        softmax: a softmax that is recognised as it stands.
        out: what it makes.
        exponentials: of its graph.
    """
    graph, logits = exponentials.graph, softmax.root
    eqns = graph.between(out, [logits])[0]
    total = next((e for e in eqns if e.primitive is prim.REDUCE_SUM), None)
    if total is None or total.invars[0].aval.shape != logits.aval.shape:
        return None
    power = exponential_of(logits, own_index(logits), exponentials.monomials)
    power = power or exponential_softmax(logits, exponentials)
    inside = {e.primitive for e in eqns if graph.is_live(e)}
    if power is None or inside & {*_CHOICES}:
        return None
    order = range(len(logits.aval.shape))
    if inside & {*prim.ADD}:  # something stands beside the sum
        whole = softmax_alone(found_in(out, exponentials))
        return whole and (lambda read: whole(read, order))

    def way(read: Read) -> Any:
        value = jnp.broadcast_to(power(read, order), logits.aval.shape)
        return value / jnp.sum(value, total.params["axes"], keepdims=True)

    return way


def log_of_sum(
    eqn: Equation, softmaxes: Container[Var], monomials: Monomials
) -> Callable[[Read], Any] | None:
    """How the logarithm of a sum or a mean of softmaxes, as of an ensemble's members, is computed
    as a log-sum-exp of their logarithms; None of any other."""
    graph, out = monomials.graph, eqn.outvars[0].aval
    number, powers = monomials.factors(eqn.invars[0]) if eqn.primitive is prim.LOG else (0, {})
    total = next(iter(powers), None)
    if number <= 0 or total is None or powers != {total: 1} or total.var.aval.size != out.size:
        return None
    maker = graph.maker.get(total.var)
    labels = [a for a in total.axes if a is not None]
    if maker is None or labels != sorted(labels):
        return None
    along = maker.primitive is prim.REDUCE_SUM
    summed = [maker.invars[0]] if along else _summed(total.var, graph)
    axes = maker.params["axes"] if along else (0,)
    one = not along and len(summed) < 2
    if one or any(before_links(a, graph) not in softmaxes for a in summed):
        return None

    def way(read: Read) -> Any:
        logs = [jnp.log(read(a)) for a in summed]
        u = logs[0] if along else jnp.stack(logs)
        e, largest = shifted_exponentials(u, None, tuple(axes))
        y = jnp.squeeze(jnp.log(jnp.sum(e, axes, keepdims=True)) + largest, axes)
        y = y if number == 1 else y + math.log(number)
        return jnp.reshape(y, out.shape).astype(out.dtype)

    return way


def logarithms_of_picked(graph: Graph) -> dict[int, Callable[[Read], Any]]:
    """How logarithms of what is picked of exponentials, by indices of whatever kind, are picked of
    their logarithms, by the `id` of their equations."""
    found: dict[int, Callable[[Read], Any]] = {}
    for eqn in graph.eqns:
        moves: list[Equation] = []
        whole = eqn.invars[0] if eqn.primitive is prim.LOG and graph.is_live(eqn) else None
        while (move := graph.maker.get(whole)) is not None and _only_moves(move, graph):
            moves.append(move)
            whole = move.invars[0]
        picks = any(e.primitive in _PICKS for e in moves) and not _is_undone(eqn.outvars[0], graph)
        if picks and is_of_exponentials(whole, graph):
            found[id(eqn)] = _picked_logarithm(eqn, whole, moves[::-1])
    return found


def _is_undone(logarithm: Var, graph: Graph) -> bool:
    """Whether a reader takes the exponential of a logarithm again, perhaps moved."""
    readers = [e for e in graph.readers.get(logarithm, ()) if e is not None and graph.is_live(e)]
    return any(
        e.primitive is prim.EXP or (link(e) is not None and _is_undone(e.outvars[0], graph))
        for e in readers
    )


def _only_moves(eqn: Equation, graph: Graph) -> bool:
    """Whether an equation leaves out and moves numbers of one value, and brings no others."""
    if graph.explained_operands(eqn) != [0]:
        return False
    fill = eqn.params.get("fill_value")
    return (
        link(eqn) is not None
        or eqn.primitive in prim.SHAPE_ONLY
        or (eqn.primitive in _PICKS and (fill is None or fill != fill))
    )


def _picked_logarithm(
    eqn: Equation, whole: Var, moves: Sequence[Equation]
) -> Callable[[Read], Any]:
    def way(read: Read) -> Any:
        value = eqn.primitive.bind(read(whole), **eqn.params)
        for move in moves:
            rest = (a.val if is_literal(a) else read(a) for a in move.invars[1:])
            value = compat.applied(move, value, *rest)
        return value

    return way


def _summed(atom: Any, graph: Graph) -> list[Any]:
    eqn = graph.maker.get(atom)
    if eqn is None or eqn.primitive not in prim.ADD or graph.explained_operands(eqn) != [0, 1]:
        return [atom]
    return [leaf for a in eqn.invars for leaf in _summed(a, graph)]
