"""What the axes of variables run along: axes of the explained input, features, or neither.

An axis is a row of factors, so that axes can be joined and split again: where examples and heads
have become one axis, it is still known which part of it is which.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from . import compat, primitives as prim
from .compat import Equation

FEATURES, CONSTANT, UNKNOWN = -1, -2, -3
"""What an axis runs along that runs along no axis of the explained input (those are 0, 1, ...):
what weights made, the rows of a constant, or what cannot be told. Nothing: a repeated axis."""


class Part(NamedTuple):
    """A factor of an axis: its length and what it runs along."""

    size: int
    along: frozenset[int] = frozenset()


Axis = tuple[Part, ...]


class Axes(NamedTuple):
    """The axes of a variable, and whether the explained input reaches it."""

    axes: tuple[Axis, ...]
    reached: bool

    def __or__(self, other: "Axes") -> "Axes":
        if not (self.reached and other.reached) or len(self.axes) != len(other.axes):
            return self if self.reached else other
        return Axes(tuple(map(joint, self.axes, other.axes)), True)


def of_constant(shape: Sequence[int]) -> Axes:
    """The axes of what no explained input reaches."""
    return Axes(tuple(_axis(n, CONSTANT) for n in shape), False)


def of_input(shape: Sequence[int], features: bool) -> Axes:
    """The axes of an explained input; of numbers, not ids, the last one holds features."""
    last = len(shape) - 1
    return Axes(
        tuple(_axis(n, FEATURES if features and i == last else i) for i, n in enumerate(shape)),
        True,
    )


def joint(a: Axis, b: Axis) -> Axis:
    """What is known of one axis from two variables: the input first, then features."""
    found: list[Part] = []
    left, right = list(a), list(b)
    while left and right:
        one, other = left.pop(0), right.pop(0)
        size = math.gcd(one.size, other.size)
        if size != min(one.size, other.size):
            return _axis(_length(a), UNKNOWN)
        # The leading part of a factor is the one that varies slowest.
        found.append(Part(size, _stronger(one.along, other.along)))
        if one.size > size:
            left.insert(0, Part(one.size // size, one.along))
        if other.size > size:
            right.insert(0, Part(other.size // size, other.along))
    return _merged(found)


def made_by(eqn: Equation, operands: Sequence[Axes]) -> list[Axes]:
    """The axes of what an equation makes of operands."""
    shapes = [getattr(v.aval, "shape", ()) for v in eqn.outvars]
    if not any(operand.reached for operand in operands):
        return [of_constant(shape) for shape in shapes]
    rule = _RULES.get(eqn.primitive)
    if rule is None:
        return [_number_by_number(operands, shape) for shape in shapes]
    return [Axes(tuple(rule(eqn, operands)), True)] * len(shapes)


# -- one function for each kind of move ----------------------------------------------------------


def _number_by_number(operands: Sequence[Axes], shape: Sequence[int]) -> Axes:
    """Of the operands that have the axes of the result."""
    rank = [o.axes for o in operands if o.reached and len(o.axes) == len(shape)]
    fitting = [axes for axes in rank if [_length(a) for a in axes] == list(shape)] or rank
    if not fitting:
        return Axes(tuple(_axis(n, UNKNOWN) for n in shape), True)
    found = [_of_length(axis, n) for axis, n in zip(fitting[0], shape, strict=True)]
    for axes in fitting[1:]:
        found = [joint(a, _of_length(b, n)) for a, b, n in zip(found, axes, shape, strict=True)]
    constants = [o.axes for o in operands if not o.reached and len(o.axes) == len(shape)]
    for axes in constants:  # only a repeated axis learns from a constant
        if [_length(a) for a in axes] == list(shape):
            found = [joint(a, b) for a, b in zip(found, axes, strict=True)]
    return Axes(tuple(found), True)


def _broadcast(eqn: Equation, operands: Sequence[Axes]) -> list[Axis]:
    where = list(eqn.params["broadcast_dimensions"])
    own = dict(zip(where, operands[0].axes, strict=True))
    return [
        own[i] if i in own and _length(own[i]) == n else _axis(n)
        for i, n in enumerate(eqn.outvars[0].aval.shape)
    ]


def _transpose(eqn: Equation, operands: Sequence[Axes]) -> list[Axis]:
    return [operands[0].axes[i] for i in eqn.params["permutation"]]


def _squeeze(eqn: Equation, operands: Sequence[Axes]) -> list[Axis]:
    gone = {d % len(operands[0].axes) for d in eqn.params["dimensions"]}
    return [axis for i, axis in enumerate(operands[0].axes) if i not in gone]


def _reduced(eqn: Equation, operands: Sequence[Axes]) -> list[Axis]:
    return [axis for i, axis in enumerate(operands[0].axes) if i not in eqn.params["axes"]]


def _reshape(eqn: Equation, operands: Sequence[Axes]) -> list[Axis]:
    shape = eqn.outvars[0].aval.shape
    parts = [part for axis in operands[0].axes for part in axis if part.size != 1]
    found: list[Axis] = []
    for n in shape:
        taken: list[Part] = []
        while n > 1 and parts:
            size = math.gcd(n, parts[0].size)
            if size != min(n, parts[0].size):
                break
            part = parts.pop(0)
            taken.append(Part(size, part.along))
            if part.size > size:
                parts.insert(0, Part(part.size // size, part.along))
            n //= size
        if n > 1:
            return [_axis(size, UNKNOWN) for size in shape]
        found.append(_merged(taken) or _axis(1))
    return found


def _dot(eqn: Equation, operands: Sequence[Axes]) -> list[Axis]:
    contracted, batch = prim.dot_numbers(eqn)
    together = [
        joint(operands[0].axes[i], operands[1].axes[j]) for i, j in zip(*batch, strict=True)
    ]
    found = list(together)
    for side, operand in enumerate(operands):
        # What a contraction with weights makes are features. A constant that is contracted for
        # each head on its own has rows: queries that are parameters.
        makes_features = not operand.reached and not batch[side]
        for i, axis in enumerate(operand.axes):
            if i not in contracted[side] and i not in batch[side]:
                found.append(_axis(_length(axis), FEATURES) if makes_features else axis)
    if len(found) != len(eqn.outvars[0].aval.shape):  # ragged
        return [_axis(n, UNKNOWN) for n in eqn.outvars[0].aval.shape]
    return found


def _convolution(eqn: Equation, operands: Sequence[Axes]) -> list[Axis]:
    numbers = eqn.params["dimension_numbers"]
    shape = eqn.outvars[0].aval.shape
    found = [_axis(n, FEATURES) for n in shape]
    pairs = zip(numbers.lhs_spec, numbers.out_spec, strict=True)
    for number, (i, o) in enumerate(pairs):
        if number != 1:
            found[o] = _of_length(operands[0].axes[i], shape[o])
    return found


def _gather(eqn: Equation, operands: Sequence[Axes]) -> list[Axis]:
    numbers, (table, indices) = eqn.params["dimension_numbers"], operands[:2]
    shape = eqn.outvars[0].aval.shape
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    kept = iter([axis for i, axis in enumerate(table.axes) if i not in gone])
    rows = iter(indices.axes[:-1])
    picked = [table.axes[i] for i in numbers.start_index_map] if table.reached else []
    found: list[Axis] = []
    for i, n in enumerate(shape):
        if i in numbers.offset_dims:
            axis = next(kept)
            found.append(_of_length(axis, n) if table.reached else _axis(n, FEATURES))
            continue
        axis = next(rows)
        for other in picked:
            axis = joint(axis, _of_length(other, n))
        found.append(axis)
    return found


def _joined(eqn: Equation, operands: Sequence[Axes]) -> list[Axis]:
    shape, along = eqn.outvars[0].aval.shape, eqn.params["dimension"]
    found = [o.axes for o in operands if o.reached]
    result = [_of_length(axis, n) for axis, n in zip(found[0], shape, strict=True)]
    for axes in found[1:]:
        other = [_of_length(axis, n) for axis, n in zip(axes, shape, strict=True)]
        result = [joint(a, b) for a, b in zip(result, other, strict=True)]
    if all(_length(axes[along]) == 1 for axes in found):  # a stack has an axis of its own
        stronger = [part.along for axes in found for part in axes[along]]
        result[along] = (Part(shape[along], frozenset().union(*stronger)),)
    return result


def _updated(eqn: Equation, operands: Sequence[Axes]) -> list[Axis]:
    shape = eqn.outvars[0].aval.shape
    whole, update = operands[:2]
    other = Axes(tuple(map(_of_length, update.axes, shape)), update.reached)
    return list((whole | other).axes)


def _scattered(eqn: Equation, operands: Sequence[Axes]) -> list[Axis]:
    numbers, (whole, _, updates) = eqn.params["dimension_numbers"], operands[:3]
    shape = eqn.outvars[0].aval.shape
    if not updates.reached:
        return list(whole.axes)
    gone = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    window = iter([updates.axes[i] for i in numbers.update_window_dims])
    rows = [a for i, a in enumerate(updates.axes) if i not in numbers.update_window_dims]
    found = []
    for i, n in enumerate(shape):
        others = rows if i in gone else [next(window)]
        axis = _of_length(whole.axes[i], n)
        for other in others:
            axis = joint(axis, _of_length(other, n))
        found.append(axis)
    return found


_REDUCTIONS = compat.primitives(
    "reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or argmax argmin"
)
_SCATTERS = compat.primitives("scatter scatter_add scatter_max scatter_min scatter_mul")
_RULES: dict[Any, Any] = {
    prim.BROADCAST: _broadcast,
    compat.primitive("transpose"): _transpose,
    compat.primitive("squeeze"): _squeeze,
    compat.primitive("reshape"): _reshape,
    compat.primitive("gather"): _gather,
    compat.primitive("concatenate"): _joined,
    compat.primitive("dynamic_update_slice"): _updated,
    prim.CONV: _convolution,
    **dict.fromkeys(_REDUCTIONS, _reduced),
    **dict.fromkeys(_SCATTERS, _scattered),
    prim.DOT: _dot,
}


# -- parts ---------------------------------------------------------------------------------------


def _axis(size: int, *along: int) -> Axis:
    return (Part(size, frozenset(along)),)


def _length(axis: Axis) -> int:
    return math.prod(part.size for part in axis)


def _of_length(axis: Axis, size: int) -> Axis:
    """An axis of which some was left out, or which was lengthened."""
    if _length(axis) == size:
        return axis
    along = {part.along for part in axis if part.size != 1} or {axis[0].along}
    either = frozenset[int]().union(*along)
    known = len(along) == 1 or min(either) >= 0
    return (Part(size, either if known else frozenset({UNKNOWN})),)


def _stronger(a: frozenset[int], b: frozenset[int]) -> frozenset[int]:
    either = a | b
    of_input = frozenset(i for i in either if i >= 0)
    return of_input or frozenset({UNKNOWN} & either or sorted(either)[-1:])


def _merged(parts: Sequence[Part]) -> Axis:
    """Neighbours that run along the same are one."""
    found = []
    wide = [part for part in parts if part.size != 1] or list(parts[:1])
    for along, group in itertools.groupby(wide, lambda part: part.along):
        found.append(Part(math.prod(part.size for part in group), along))
    return tuple(found)
