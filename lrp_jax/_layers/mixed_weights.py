"""Weights that are mixed before they meet a value: `h @ (r @ W)` is a mixture of `h @ W[e]` by `r`.

As with experts whose outputs are mixed, `r` may gate; so in conditional convolutions, and where
another network makes the weights.
"""

import math
from collections.abc import Sequence

from .._analysis import compat, primitives as prim
from .._analysis.compat import Equation, Var, is_literal
from .._analysis.factors import link
from .._analysis.primitives import Family, family
from .reading import Reading

_SLICE, _RESHAPE = compat.primitive("slice"), compat.primitive("reshape")


def mixing(reading: Reading, eqn: Equation, position: int) -> Var | None:
    """What mixes the weights that an operand of a contraction is; None where it is no such thing:
    of weights all axes are their own that are contracted, or stay.

    Args:
        reading: a reading.
        eqn: a contraction of two explained values.
        position: of the operand.
    """
    moves, var = list[Equation](), eqn.invars[position]
    while (maker := reading.graph.maker.get(var)) is not None and (
        reading.is_link(maker) or maker.primitive is _SLICE
    ):
        moves.append(maker)
        var = maker.invars[reading.graph.explained_operands(maker)[0]]
    if maker is None or maker.primitive is not prim.DOT:
        return None
    operands = reading.graph.explained_operands(maker)
    if len(operands) != 1 or maker.invars[1 - operands[0]] not in reading.weights:
        return None
    own = _axes_of(maker, 1 - operands[0])
    for move in reversed(moves):
        own = _moved(own, move)
    contracted, kept = _contracted(eqn, position)
    stay = eqn.primitive is prim.CONV or (kept and own >= kept)  # queries have axes of their own
    if contracted and own >= contracted and stay:
        found = maker.invars[operands[0]]
        return None if is_literal(found) else found
    return None


def _axes_of(eqn: Equation, position: int) -> set[int]:
    """The axes of a matrix product that are those of one operand alone."""
    contracted, batch = prim.dot_numbers(eqn)
    free = [len(a.aval.shape) - len(c) - len(b)
            for a, c, b in zip(eqn.invars, contracted, batch, strict=True)]  # fmt: skip
    start = len(batch[0]) + (free[0] if position else 0)
    return {*range(start, start + free[position])}


def _contracted(eqn: Equation, position: int) -> tuple[set[int], set[int]]:
    """The axes of an operand that a contraction contracts, and those that only it has."""
    rank = len(eqn.invars[position].aval.shape)
    if eqn.primitive is prim.CONV:
        outputs = eqn.params["dimension_numbers"].rhs_spec[0]
        return ({*range(rank)} - {outputs}, {outputs}) if position else (set(), set())
    if eqn.primitive is not prim.DOT:
        return set(), set()
    contracted, batch = prim.dot_numbers(eqn)
    taken = {*contracted[position]}
    return taken, {*range(rank)} - taken - {*batch[position]}


def _moved(axes: set[int], move: Equation) -> set[int]:
    """Where axes are after a move or a function number by number."""
    if family(move.primitive) is Family.AFFINE or move.primitive is _SLICE:
        return axes
    turns = move.primitive is _RESHAPE and move.params["dimensions"] is not None
    to = None if turns else link(move)
    if to is not None:
        return {i for axis in axes if (i := to[axis]) is not None}
    before, after = move.invars[0].aval.shape, move.outvars[0].aval.shape
    if turns:
        order = move.params["dimensions"]
        before, axes = [before[i] for i in order], {order.index(i) for i in axes}
    found = set()
    for i in range(len(after)):
        from_ = _axes_within(before, math.prod(after[:i]), math.prod(after[: i + 1]))
        if from_ and axes.issuperset(from_):
            found.add(i)
    return found


def _axes_within(shape: Sequence[int], above: int, below: int) -> list[int]:
    """The axes that lie, at least in part, between two products of sizes."""
    found = []
    for i, n in enumerate(shape):
        outer = math.prod(shape[:i])
        if n > 1 and outer < below and outer * n > above:
            found.append(i)
    return found
