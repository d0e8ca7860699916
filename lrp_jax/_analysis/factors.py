"""Factors of products: which equations multiply, and how their axes and powers are named."""

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from . import compat, primitives as prim
from .compat import Equation, Var, is_literal
from .facts import sources
from .graph import Graph, is_complex, is_float
from .primitives import Family, family
from .signs import literal_value

Index = tuple[int | None, ...]
_INTEGER_POW, _POW = compat.primitive("integer_pow"), compat.primitive("pow")
_POWERS = {
    compat.primitive("sqrt"): 0.5, compat.primitive("rsqrt"): -0.5, compat.primitive("cbrt"): 1 / 3,
    compat.primitive("square"): 2.0,
}  # fmt: skip
_TRANSPOSE, _CONCATENATE = compat.primitive("transpose"), compat.primitive("concatenate")
_MOST_FACTORS = 16
STABILISER = 1e-6
"""What is less than this, where something is divided, is there against zeros."""


class Factor(NamedTuple):
    """A variable and the label of each of its axes (None: an axis of one).

    `case` is set where the factor is a mask: 1.0 where the variable is that truth value, else 0.0.
    """

    var: Var
    axes: Index
    case: bool | None = None

    @property
    def labels(self) -> frozenset[int]:
        return frozenset(label for label in self.axes if label is not None)


def joined(a: Mapping[Factor, Any], b: Mapping[Factor, Any], sign: float = 1) -> dict[Factor, Any]:
    """The powers of a product (or quotient)."""
    found = dict(a)
    for factor, power in b.items():
        found[factor] = found.get(factor, 0) + sign * power
    return {factor: power for factor, power in found.items() if power}


def own_index(atom: Any) -> Index:
    """A variable's axes as labels of themselves."""
    return tuple(
        i if n > 1 else None
        for i, n in enumerate(np.shape(atom.val) if is_literal(atom) else atom.aval.shape)
    )


def through(operand: Any, axes: Any, index: Index) -> Index:
    """The labels of an operand, given those of the result and which of its axes each one is."""
    shape = np.shape(operand.val) if is_literal(operand) else operand.aval.shape
    if axes is None:  # number by number; an axis of one is spread
        axes = range(len(shape))
    return tuple(
        None if n == 1 or a is None else index[a] for n, a in zip(shape, axes, strict=True)
    )


def renamed(axes: Index, index: Index) -> Index:
    return tuple(None if a is None else index[a] for a in axes)


def link(eqn: Equation) -> tuple[int | None, ...] | None:
    """For a cast, broadcast, transpose or reshape: which axis each axis of its operand becomes."""
    if len(eqn.outvars) != 1 or not is_float(eqn.outvars[0]):
        return None
    primitive, atom = eqn.primitive, eqn.invars[0] if eqn.invars else None
    if is_literal(atom) or atom is None or not is_float(atom):
        return None
    shape = atom.aval.shape
    if family(primitive) is Family.NEUTRAL:
        return tuple(range(len(shape)))
    if primitive is _TRANSPOSE:
        order = list(eqn.params["permutation"])
        return tuple(order.index(i) for i in range(len(shape)))
    if primitive is prim.BROADCAST:
        return tuple(eqn.params["broadcast_dimensions"])
    if primitive in prim.SHAPE_ONLY:  # where no axes are joined or split
        out = eqn.outvars[0].aval.shape
        wide = [i for i, n in enumerate(out) if n > 1]
        if [out[i] for i in wide] != [n for n in shape if n > 1]:
            return None
        rest = iter(wide)
        return tuple(next(rest) if n > 1 else None for n in shape)
    return None


def product_operands(eqn: Equation, graph: Graph) -> list[tuple[Any, Any, int]] | None:
    """The operands of a product as (atom, its axes in the product, power); None if it is none."""
    if len(eqn.outvars) != 1 or not is_float(eqn.outvars[0]):
        return None
    primitive, invars = eqn.primitive, eqn.invars
    axes = link(eqn)
    if axes is not None:
        return [(invars[0], axes, 1)]
    if any(map(is_complex, (*invars, *eqn.outvars))):
        return None
    if primitive is prim.MUL:
        return [(a, None, 1) for a in invars]
    if primitive is prim.DIV:
        return [(invars[0], None, 1), (invars[1], None, -1)]
    if primitive is prim.NEG:
        return [(invars[0], None, 1)]
    if power_of(eqn) in (1, -1):
        return [(invars[0], None, int(power_of(eqn) or 0))]
    if is_outer(eqn):
        return [(a, a_axes, 1) for a, a_axes in zip(invars, _outer(eqn), strict=True)]
    if primitive is prim.REDUCE_PROD:
        return _stacked(eqn, graph)
    masked = masked_by(eqn, graph, 0.0) if primitive is prim.SELECT else None
    return masked and [(masked[0], None, 1), (masked[1], None, 1)]


def power_of(eqn: Equation) -> float | None:
    """The number to which an equation raises its operand, or None."""
    if eqn.primitive is _INTEGER_POW:
        return float(eqn.params["y"])
    if eqn.primitive is _POW:
        return literal_value(eqn.invars[1])
    return _POWERS.get(eqn.primitive)


def powers_of(value: Any, power: float) -> list[Any]:
    """Factors whose product is a value to a positive power: itself, and a root of it."""
    whole = int(power)
    return [value] * whole + ([value ** (power - whole)] if power > whole else [])


def masked_by(eqn: Equation, graph: Graph, other: float) -> tuple[Factor, Any] | None:
    """The mask and the operand of a choice between that and a number, by constants; or None."""
    mask = eqn.invars[0]
    if is_literal(mask) or mask.aval.shape != eqn.outvars[0].aval.shape:
        return None
    if mask.aval.dtype != bool or len(eqn.invars) != 3:
        return None
    for case in (0, 1):
        operand = eqn.invars[2 - case]
        if constant(graph, eqn.invars[1 + case]) == other and not _switches(mask, operand, graph):
            return Factor(mask, own_index(mask), case == 0), operand
    return None


def _switches(mask: Var, operand: Any, graph: Graph) -> bool:
    """Whether a mask is what a function of the masked numbers themselves chooses by, as a
    rectifier does."""
    if mask not in graph.touched:
        return False
    return bool(_above(sources(mask, graph), graph) & _above([operand], graph))


def _above(atoms: Iterable[Any], graph: Graph) -> set[Var]:
    """Variables and what they are made of, number by number."""
    found, todo = set[Var](), [*atoms]
    while todo:
        var = todo.pop()
        if is_literal(var) or var in found or var not in graph.live:
            continue
        found.add(var)
        eqn = graph.maker.get(var)
        if eqn is not None and (family(eqn.primitive) in prim.POINTWISE or link(eqn) is not None):
            todo += eqn.invars
    return found


def is_outer(eqn: Equation) -> bool:
    """Whether an equation is a matrix product that contracts nothing."""
    return eqn.primitive is prim.DOT and not prim.dot_numbers(eqn)[0][0]


def _outer(eqn: Equation) -> list[tuple[int, ...]]:
    """The axes of the operands of a matrix product that contracts nothing, in the product."""
    _, batch = prim.dot_numbers(eqn)
    rest = itertools.count(len(batch[0]))
    found = []
    for side, atom in zip(batch, eqn.invars, strict=True):
        found.append(
            tuple(
                list(side).index(a) if a in side else next(rest)
                for a in range(len(atom.aval.shape))
            )
        )
    return found


def _stacked(eqn: Equation, graph: Graph) -> list[tuple[Any, Any, int]] | None:
    """The factors of a product over an axis along which they are put side by side."""
    joined = graph.maker.get(eqn.invars[0])
    if joined is None or joined.primitive is not _CONCATENATE or len(eqn.params["axes"]) != 1:
        return None
    (axis,) = eqn.params["axes"]
    wide = any(a.aval.shape[axis] > 1 for a in joined.invars)
    if wide or joined.params["dimension"] != axis or len(joined.invars) > _MOST_FACTORS:
        return None
    rank = len(eqn.invars[0].aval.shape)
    axes = tuple(None if i == axis else i - (i > axis) for i in range(rank))
    return [(a, axes, 1) for a in joined.invars]


def number_of(eqn: Equation) -> float:
    return -1.0 if eqn.primitive is prim.NEG else 1.0


def raised(number: float, power: float) -> float:
    """A number to a power, infinite where no float is as large."""
    try:
        return float(number**power)
    except OverflowError:
        return math.copysign(math.inf, number)


def is_by_numbers(eqn: Equation, graph: Graph) -> bool:
    """Whether all operands of an equation but the explained ones are numbers of the code."""
    explained = graph.explained_operands(eqn)
    others = (a for i, a in enumerate(eqn.invars) if i not in explained)
    return all(constant(graph, a) is not None for a in others)


def constant(graph: Graph, atom: Any) -> float | None:
    """The number of a literal, cast or spread out; that of constants times zero is zero."""
    while not is_literal(atom):
        eqn = graph.maker.get(atom)
        if eqn is not None and eqn.primitive is prim.MUL and atom not in graph.live:
            return 0.0 if any(constant(graph, a) == 0 for a in eqn.invars) else None
        spreads = eqn is not None and (
            family(eqn.primitive) is Family.NEUTRAL or eqn.primitive in prim.SHAPE_ONLY
        )
        if eqn is None or not spreads or eqn.primitive is prim.KEEP:
            return None
        atom = eqn.invars[0]
    return literal_value(atom)
