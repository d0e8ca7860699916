"""Questions about single affine equations: what scales, what shifts, and along which axis."""

from typing import Any

from . import _compat
from . import _primitives as prim
from ._compat import Equation, Var, is_literal
from ._graph import Graph
from ._primitives import Family, family
from ._signs import literal_value

_BROADCAST = _compat.primitive("broadcast_in_dim")
_PAD = _compat.primitive("pad")
SCALING = (prim.MUL, prim.DIV, prim.NEG, prim.SUB)


def is_literal_link(eqn: Equation) -> bool:
    """Whether an affine equation's constants are numbers written in the code."""
    others = [a for a in eqn.invars if literal_value(a) is not None]
    return len(others) >= len(eqn.invars) - 1


def pads_with_zeros(eqn: Equation) -> bool:
    """Whether an equation surrounds a value with zeros, which are no inputs of a layer after it."""
    return eqn.primitive is _PAD and literal_value(eqn.invars[1]) == 0.0


def is_mean_factor(eqn: Equation) -> bool:
    """Whether an equation can be the division that makes a sum a mean."""
    if family(eqn.primitive) is Family.NEUTRAL or eqn.primitive in prim.SHAPE_ONLY:
        return True
    return eqn.primitive is prim.DIV or (eqn.primitive is prim.MUL and is_literal_link(eqn))


def may_turn(eqn: Equation) -> bool:
    """Whether a division or product may change the sign of a sum."""
    if eqn.primitive not in (prim.MUL, prim.DIV):
        return False
    factors = [literal_value(a) for a in eqn.invars]
    return not any(value is not None and value > 0 for value in factors)


def feature_axes(eqn: Equation, position: int) -> tuple[int, int] | None:
    """An axis of a contraction's output that is made by one axis of its weights alone."""
    if eqn.primitive is prim.CONV:
        numbers = eqn.params["dimension_numbers"]
        return (numbers.out_spec[1], numbers.rhs_spec[0]) if position == 0 else None
    contracting, batch = prim.dot_numbers(eqn)
    weight = eqn.invars[1 - position]
    bound = (*contracting[1 - position], *batch[1 - position])
    free = [i for i in range(len(weight.aval.shape)) if i not in bound]
    if len(free) != 1:
        return None
    rank = len(eqn.outvars[0].aval.shape)
    return (rank - 1 if position == 0 else len(batch[0])), free[0]


def scales_along(graph: Graph, chain: list[Equation], start: Var, axis: int) -> bool:
    """Whether what multiplies in a chain varies along one axis of its start alone."""
    shape = start.aval.shape
    for eqn in chain:
        if eqn.primitive in prim.SHAPE_ONLY:
            # Past a change of shape the axis is lost; only shifts may follow.
            rest = chain[chain.index(eqn) :]
            return not any(e.primitive in SCALING for e in rest)
        if eqn.primitive not in (prim.MUL, prim.DIV):
            continue
        operand = eqn.invars[1 - graph.explained_operands(eqn)[0]]
        if not _varies_along(graph, operand, axis, shape):
            return False
    return True


def _varies_along(graph: Graph, atom: Any, axis: int, shape: tuple[int, ...]) -> bool:
    if is_literal(atom) or atom.aval.shape == ():
        return True
    wide = {i for i, n in enumerate(atom.aval.shape) if n > 1}
    if len(atom.aval.shape) == len(shape) and wide <= {axis}:
        return True
    eqn = graph.maker.get(atom)
    if eqn is None or eqn.primitive is not _BROADCAST:
        return False
    source, dims = eqn.invars[0], eqn.params["broadcast_dimensions"]
    return all(n == 1 or d == axis for n, d in zip(source.aval.shape, dims, strict=True))
