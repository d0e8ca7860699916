"""Values as their parts along an axis, and what is made of them part by part."""

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.factors import link
from ..._analysis.graph import Graph
from ..._analysis.otherwise import Read
from ..._analysis.primitives import Family, family

_SLICE, _CONCATENATE = compat.primitive("slice"), compat.primitive("concatenate")
_PAD, _RESHAPE = compat.primitive("pad"), compat.primitive("reshape")
_REV, _TRANSPOSE = compat.primitive("rev"), compat.primitives("transpose")
_OVER_AXES = compat.primitives("reduce_sum reduce_max reduce_min reduce_prod")


class Parts(NamedTuple):
    """A value as its parts along an axis."""

    axis: int
    values: list[Array]

    @property
    def sizes(self) -> list[int]:
        return [y.shape[self.axis] for y in self.values]

    def whole(self) -> Array:
        return jnp.concatenate(self.values, self.axis)

    def split_as(self, other: "Parts") -> "Parts":
        """Parts that end wherever those of another value of the same size end."""
        return self.split_at({*itertools.accumulate(other.sizes)})

    def split_at(self, ends: Collection[int]) -> "Parts":
        """Parts that end at some places too."""
        found = []
        for y, end in zip(self.values, itertools.accumulate(self.sizes), strict=True):
            start = end - y.shape[self.axis]
            cuts = [start, *sorted(i for i in ends if start < i < end), end]
            for low, high in itertools.pairwise(cuts):
                own = lax.slice_in_dim(y, low - start, high - start, axis=self.axis)
                found.append(y if len(cuts) == 2 else own)
        return Parts(self.axis, found)


def part_by_part(
    eqn: Equation, parts: Mapping[Var, Parts], read: Read, graph: Graph
) -> Parts | None:
    """What is made of parts by moves and products, part by part."""
    own = next((parts[a] for a in eqn.invars if not is_literal(a) and a in parts), None)
    if own is None:
        return None
    if len(eqn.outvars) != 1:
        return None
    (axis, values), (out,) = own, eqn.outvars
    same = axis < out.aval.ndim and out.aval.shape[axis] == sum(own.sizes)
    if eqn.primitive in (prim.MUL, prim.DIV) or family(eqn.primitive) is Family.NEUTRAL:
        return _computed(eqn, own, parts, read, graph) if same else None
    if eqn.primitive in prim.SHAPE_ONLY:
        return _reshaped(eqn, own)
    if eqn.primitive is prim.REDUCE_SUM:
        return _summed(eqn, own, graph)
    if eqn.primitive is _REV:
        turned = [compat.applied(eqn, y) for y in values]
        return Parts(axis, turned[::-1] if axis in eqn.params["dimensions"] else turned)
    if eqn.primitive is _PAD:
        return _padded(eqn, own, read)
    if eqn.primitive is _CONCATENATE and eqn.params["dimension"] == axis:
        found = (parts.get(a) if not is_literal(a) else None for a in eqn.invars)
        several = [
            [read(a)] if known is None or known.axis != axis else known.values
            for a, known in zip(eqn.invars, found, strict=True)
        ]
        return Parts(axis, [*itertools.chain(*several)])
    return _cut(eqn, own) if eqn.primitive is _SLICE else None


def _cut(eqn: Equation, own: Parts) -> Parts | None:
    """What a slice leaves of parts."""
    begin, end = list(eqn.params["start_indices"]), list(eqn.params["limit_indices"])
    steps = list(eqn.params["strides"] or [1] * len(begin))
    first, last, step = begin[own.axis], end[own.axis], steps[own.axis]
    kept = []
    for y, stop in zip(own.values, itertools.accumulate(own.sizes), strict=True):
        start = stop - y.shape[own.axis]
        inside = [i for i in range(first, last, step) if start <= i < stop]
        if inside:
            begin[own.axis], end[own.axis] = inside[0] - start, inside[-1] + 1 - start
            kept.append(lax.slice(y, begin, end, steps))
    return Parts(own.axis, kept) if kept else None


def _computed(
    eqn: Equation, like: Parts, parts: Mapping[Var, Parts], read: Read, graph: Graph
) -> Parts:
    for atom in eqn.invars:  # where one of them begins, all of them do
        own = None if is_literal(atom) else parts.get(atom)
        if own is not None and own.axis == like.axis:
            like = like.split_as(own)
    operands = [_parts_of(atom, like, parts, read, graph) for atom in eqn.invars]
    both = zip(*operands, strict=True)
    return Parts(like.axis, [compat.applied(eqn, *part) for part in both])


def _reshaped(eqn: Equation, own: Parts) -> Parts | None:
    """Parts with other axes beside theirs, or with theirs joined with what is inside of it."""
    if eqn.primitive is _RESHAPE and eqn.params["dimensions"] is None:
        return _regrouped(own, eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape)
    to = link(eqn)
    axis = None if to is None else to[own.axis]
    if axis is None or eqn.outvars[0].aval.shape[axis] != sum(own.sizes):
        return None
    both = zip(own.values, own.sizes, strict=True)
    return Parts(axis, [_of_size(eqn, axis, size, y) for y, size in both])


def _of_size(eqn: Equation, axis: int, size: int, *operands: Any) -> Any:
    """What an equation makes of operands that have fewer rows along an axis of its result."""
    shape = [*eqn.outvars[0].aval.shape]
    shape[axis] = size
    if eqn.primitive is prim.BROADCAST:
        return lax.broadcast_in_dim(operands[0], shape, eqn.params["broadcast_dimensions"])
    if eqn.primitive is _RESHAPE:
        return lax.reshape(operands[0], shape)
    return compat.applied(eqn, *operands)


def _summed(eqn: Equation, own: Parts, graph: Graph) -> Parts | None:
    """Sums of products over other axes, part by part: of each its factors may stand apart."""
    maker = graph.maker.get(eqn.invars[0])
    if own.axis in eqn.params["axes"] or maker is None or not multiplies(maker, graph):
        return None
    axis = own.axis - sum(i < own.axis for i in eqn.params["axes"])
    return Parts(axis, [compat.applied(eqn, y) for y in own.values])


def _regrouped(own: Parts, before: Sequence[int], after: Sequence[int]) -> Parts | None:
    """Parts that lie one after another in another shape too, in whole rows of it."""
    outer = math.prod(before[: own.axis])
    axes = [i for i in range(len(after)) if math.prod(after[:i]) == outer]
    if not axes:
        return None
    axis, inside = axes[-1], math.prod(before[own.axis + 1 :])
    row = math.prod(after[axis + 1 :])
    if not row or any(n * inside % row for n in own.sizes):
        return None
    made = [
        lax.reshape(y, (*after[:axis], n * inside // row, *after[axis + 1 :]))
        for y, n in zip(own.values, own.sizes, strict=True)
    ]
    return Parts(axis, made)


def _padded(eqn: Equation, own: Parts, read: Read) -> Parts | None:
    """Parts with a filled one before and after them."""
    sides = eqn.params["padding_config"]
    low, high, between = sides[own.axis]
    if between or min(low, high) < 0 or any(any(s) for i, s in enumerate(sides) if i != own.axis):
        return None
    value, shape = read(eqn.invars[1]), list(own.values[0].shape)

    def filled(size: int) -> list[Array]:
        shape[own.axis] = size
        return [jnp.full(shape, value)] if size else []

    return Parts(own.axis, [*filled(low), *own.values, *filled(high)])


def _parts_of(
    atom: Any, like: Parts, parts: Mapping[Var, Parts], read: Read, graph: Graph
) -> list[Any]:
    """The parts of an operand beside those of another one: of a product, its factors' parts, of
    what is made of parts row by row, what is made of each."""
    known = None if is_literal(atom) else parts.get(atom)
    if known is not None and known.axis == like.axis and sum(known.sizes) == sum(like.sizes):
        return known.split_as(like).values
    eqn = None if is_literal(atom) else graph.maker.get(atom)
    if eqn is not None and multiplies(eqn, graph) and graph.read_once(atom):
        return _computed(eqn, like, parts, read, graph).values
    followed = _Followed(like.sizes, parts, read, graph).of(atom, like.axis)
    return _sliced(read(atom), like.sizes, like.axis) if followed is None else followed


def _sliced(value: Any, sizes: Sequence[int], axis: int | None) -> list[Any]:
    ends = [*itertools.accumulate(sizes)]
    if axis is None or not jnp.ndim(value) or value.shape[axis] != ends[-1]:
        return [value] * len(ends)
    return [
        lax.slice_in_dim(value, end - n, end, axis=axis) for end, n in zip(ends, sizes, strict=True)
    ]


class _Followed:
    """What functions, sums and moves that leave rows apart make of parts: a norm of a value beside
    others is the norm of that value.

    Args:
        sizes: of the parts.
        parts: what is known as parts.
        read: reads variables.
        graph: the function.
    """

    def __init__(
        self, sizes: list[int], parts: Mapping[Var, Parts], read: Read, graph: Graph
    ) -> None:
        self._sizes, self._parts, self._read, self._graph = sizes, parts, read, graph
        self._found: dict[tuple[Var, int], list[Any] | None] = {}

    def of(self, atom: Any, axis: int | None) -> list[Any] | None:
        """The parts of a value along an axis, where it is made of parts; else None."""
        if is_literal(atom) or axis is None or atom.aval.shape[axis] != sum(self._sizes):
            return None
        known = self._parts.get(atom)
        if known is not None:
            ends = {*itertools.accumulate(self._sizes)}
            fits = known.axis == axis and ends.issuperset(itertools.accumulate(known.sizes))
            return known.split_at(ends).values if fits else None
        if (atom, axis) not in self._found:
            self._found[atom, axis] = self._made(atom, axis)
        return self._found[atom, axis]

    def _made(self, var: Var, axis: int) -> list[Any] | None:
        eqn = self._graph.maker.get(var)
        if eqn is None or len(eqn.outvars) != 1 or var not in self._graph.live:
            return None
        axes = [_axis_of(eqn, a, axis) for a in eqn.invars]
        if all(a is None for a in axes):
            return None
        followed = [self.of(a, own) for a, own in zip(eqn.invars, axes, strict=True)]
        if all(f is None for f in followed):
            return None
        operands = [
            _sliced(self._read(a), self._sizes, own) if f is None else f
            for a, own, f in zip(eqn.invars, axes, followed, strict=True)
        ]
        return [
            _of_size(eqn, axis, size, *part)
            for size, *part in zip(self._sizes, *operands, strict=True)
        ]


def _axis_of(eqn: Equation, atom: Any, axis: int) -> int | None:
    """The axis of an operand that an axis of the result is, row by row; None where there is none,
    or where rows are mixed."""
    if is_literal(atom) or not atom.aval.shape:
        return None
    if eqn.primitive in _OVER_AXES:
        rest = [i for i in range(len(atom.aval.shape)) if i not in eqn.params["axes"]]
        return rest[axis]
    if family(eqn.primitive) in prim.POINTWISE or eqn.primitive is prim.SELECT:
        return axis
    to = link(eqn)
    if to is None or axis not in to or eqn.primitive in _TRANSPOSE:
        return None
    return to.index(axis)


def multiplies(eqn: Equation, graph: Graph) -> bool:
    """Whether an equation multiplies explained values."""
    return eqn.primitive in (prim.MUL, prim.DIV) and graph.explained_operands(eqn) == [0, 1]
