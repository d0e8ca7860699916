"""Where numbers come from: variables as numbers of another one, picked along each of its axes.

Slices, gathers and scatters by indices of the code, pads, reversals, repetitions and what is put
side by side again only change the places of numbers. What all of them do together is told here axis
by axis, so that what brings every number back to its place is known to do nothing.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from . import compat, primitives as prim
from .compat import Equation, Var, is_literal
from .indices import MOST, Known

Row = Sequence[int]
"""The places along an axis, -1 for a zero; a range wherever they are one."""


class Place(NamedTuple):
    """A variable as numbers of another one.

    Attributes:
        var: the other one.
        axes: for each axis the axis of `var` (None: one along which numbers are repeated, as an
            axis of one is) and the places there.
        fixed: the places along axes of `var` that are gone.
    """

    var: Var
    axes: tuple[tuple[int | None, Row], ...]
    fixed: Mapping[int, int]

    @property
    def cut(self) -> frozenset[int]:
        """The axes of `var` that are there with other numbers or in another order."""
        shape = self.var.aval.shape
        picked = (a for a, row in self.axes if a is not None and row != range(shape[a]))
        return frozenset((*self.fixed, *picked))

    @property
    def has_zeros(self) -> bool:
        return any(-1 in row for a, row in self.axes if a is not None)

    def of(self, value: Any) -> Any:
        """The numbers of a value of the shape of `var`."""
        for gone, index in self.fixed.items():
            value = jax.lax.slice_in_dim(value, index, index + 1, axis=gone)
        kept = [a for a, _ in self.axes if a is not None]
        for axis, row in self.axes:
            if axis is None or row == range(value.shape[axis]):
                continue
            if isinstance(row, range) and row.step > 0:
                value = jax.lax.slice_in_dim(value, row.start, row.stop, row.step, axis)
            else:
                value = value[(*[slice(None)] * axis, np.asarray(row))]
        value = jax.lax.squeeze(value, [i for i in range(value.ndim) if i not in kept])
        value = jax.lax.transpose(value, [sorted(kept).index(a) for a in kept])
        where = [i for i, (a, _) in enumerate(self.axes) if a is not None]
        return jax.lax.broadcast_in_dim(value, [len(row) for _, row in self.axes], where)


def itself(var: Var) -> Place:
    shape = enumerate(var.aval.shape)
    return Place(var, tuple((i if n > 1 else None, range(n)) for i, n in shape), {})


def made_by(eqn: Equation, known: Known, of: Callable[[Var], Place]) -> Place | None:
    """The place of what an equation makes; None of what is no move of the numbers of one variable
    by indices of the code.

    Args:
        eqn: the equation.
        known: what the code knows.
        of: the places of its operands.
    """
    rule = _RULES.get(eqn.primitive)
    if rule is None or len(eqn.outvars) != 1:
        return None
    places = [None if is_literal(a) or known.is_zero(a) else of(a) for a in eqn.invars]
    return rule(known, eqn, places)


# -- by primitive -------------------------------------------------------------------------------


def _slice(known: Known, eqn: Equation, places: Sequence[Any]) -> Place | None:
    low, high = eqn.params["start_indices"], eqn.params["limit_indices"]
    steps = eqn.params["strides"] or [1] * len(low)
    return _each(places[0], [slice(*bounds) for bounds in zip(low, high, steps, strict=True)])


def _rev(known: Known, eqn: Equation, places: Sequence[Any]) -> Place | None:
    turned = eqn.params["dimensions"]
    axes = range(len(eqn.outvars[0].aval.shape))
    return _each(places[0], [slice(None, None, -1 if i in turned else 1) for i in axes])


def _transpose(known: Known, eqn: Equation, places: Sequence[Any]) -> Place | None:
    (place,) = places
    order = eqn.params["permutation"]
    return place and place._replace(axes=tuple(place.axes[i] for i in order))


def _squeeze(known: Known, eqn: Equation, places: Sequence[Any]) -> Place | None:
    gone = eqn.params["dimensions"]
    kept = [i for i in range(len(eqn.invars[0].aval.shape)) if i not in gone]
    return _dropped(places[0], kept)


def _broadcast(known: Known, eqn: Equation, places: Sequence[Any]) -> Place | None:
    (place, *_), out = places, eqn.outvars[0].aval.shape
    where = list(eqn.params["broadcast_dimensions"])
    axes: list[tuple[int | None, Row]] = [(None, range(n)) for n in out]
    for (axis, row), i in zip(place.axes if place else (), where, strict=False):
        if axis is not None:
            axes[i] = (axis, row if len(row) == out[i] else _row([row[0]] * out[i]))
    return place and place._replace(axes=tuple(axes))


def _reshape(known: Known, eqn: Equation, places: Sequence[Any]) -> Place | None:
    (place, *_), out = places, eqn.outvars[0].aval
    if place is None or eqn.params.get("dimensions") is not None or not out.size:
        return None
    wide = [i for i, (_, row) in enumerate(place.axes) if len(row) > 1]
    place = _dropped(place, wide)
    found = None if place is None else _regrouped(place.axes, [n for n in out.shape if n > 1])
    if place is None or found is None:
        return None
    rest = iter(found)
    one: tuple[None, Row] = (None, range(1))
    return place._replace(axes=tuple(next(rest) if n > 1 else one for n in out.shape))


def _tile(known: Known, eqn: Equation, places: Sequence[Any]) -> Place | None:
    (place,) = places
    return place and place._replace(
        axes=tuple(
            (a, range(len(row) * n) if a is None else _row([*row] * n))
            for (a, row), n in zip(place.axes, eqn.params["reps"], strict=True)
        )
    )


def _pad(known: Known, eqn: Equation, places: Sequence[Any]) -> Place | None:
    place, value = places[0], eqn.invars[1]
    if place is None or not known.is_zero(value):
        return None
    axes, shape = [], place.var.aval.shape
    sides = eqn.params["padding_config"]
    for i, ((axis, row), (low, high, inside)) in enumerate(zip(place.axes, sides, strict=True)):
        if (low, high, inside) == (0, 0, 0):
            axes.append((axis, row))
            continue
        if axis is None and shape[i : i + 1] == (1,) and len(place.axes) == len(shape):
            axis = i
        if axis is None:
            return None
        spread = [x for index in row for x in (index, *[-1] * inside)]
        spread = spread[: len(spread) - inside] if spread else spread
        spread = [-1] * low + spread[max(-low, 0) :] + [-1] * high
        axes.append((axis, _row(spread[: len(spread) + min(high, 0)])))
    return place._replace(axes=tuple(axes))


def _concatenate(known: Known, eqn: Equation, places: Sequence[Any]) -> Place | None:
    along = eqn.params["dimension"]
    sizes = [a.aval.shape[along] for a in eqn.invars]
    if any(p is None and not known.is_zero(a) for p, a in zip(places, eqn.invars, strict=True)):
        return None
    parts = [(p, [-1] * n) for p, n in zip(places, sizes, strict=True)]
    return _joined(parts, along, lambda rows: [i for row in rows for i in row])


def _gather(known: Known, eqn: Equation, places: Sequence[Any]) -> Place | None:
    place, numbers, sizes = (
        places[0],
        eqn.params["dimension_numbers"],
        eqn.params["slice_sizes"],
    )
    found = _cut_axis(known, eqn, numbers.start_index_map, sizes, 1)
    if place is None or found is None or numbers.operand_batching_dims:
        return None
    axis, starts = found
    if len(starts) > 1 and sizes[axis] > 1:
        return None
    kept = [i for i in range(len(sizes)) if i not in numbers.collapsed_slice_dims]
    own, row = place.axes[axis]
    picked = (own, _row([row[j] for i in starts for j in range(i, i + sizes[axis])]))
    axes: list[tuple[int | None, Row]] = [(None, range(n)) for n in eqn.outvars[0].aval.shape]
    for where, i in zip(numbers.offset_dims, kept, strict=True):
        axes[where] = place.axes[i] if i != axis else picked
    if len(starts) > 1:
        wide = [i for i, (_, r) in enumerate(axes) if i not in numbers.offset_dims and len(r) > 1]
        if len(wide) != 1:
            return None
        axes[wide[0]] = picked
        if axis in kept:
            axes[numbers.offset_dims[kept.index(axis)]] = (None, range(1))
    elif axis not in kept:
        return _dropped(place._replace(axes=(*axes, picked)), range(len(axes)))
    return place._replace(axes=tuple(axes))


def _scatter(known: Known, eqn: Equation, places: Sequence[Any]) -> Place | None:
    found, update = overwritten(known, eqn), places[2]
    if found is None or update is None:
        return None
    axis, written, order = found
    one: tuple[None, Row] = (None, range(1))
    axes = tuple(one if i is None else update.axes[i] for i in order)
    return _written(known, eqn, places[0], update._replace(axes=axes), axis, written)


def _update_slice(known: Known, eqn: Equation, places: Sequence[Any]) -> Place | None:
    found = overwritten(known, eqn)
    if found is None or places[1] is None:
        return None
    axis, written, _ = found
    return _written(known, eqn, places[0], places[1], axis, written)


def overwritten(
    known: Known, eqn: Equation
) -> tuple[int, Sequence[int], tuple[int | None, ...]] | None:
    """For an update at indices that the code knows: the axis, the places along it that are written,
    and for each axis that of the update (None: one number)."""
    shape = list(eqn.invars[0].aval.shape)
    if eqn.primitive is not _SCATTER:
        places, size = [known.indices(a) for a in eqn.invars[2:]], eqn.invars[1].aval.shape
        cut = [i for i, n in enumerate(size) if n != shape[i]]
        if any(i is None for i in places) or len(cut) != 1:
            return None
        (axis,) = cut
        room = shape[axis] - size[axis]
        first = min(max(int(places[axis]), 0), room)  # type: ignore[arg-type]
        return axis, range(first, first + size[axis]), tuple(range(len(shape)))
    numbers = eqn.params["dimension_numbers"]
    given = eqn.invars[2].aval.shape
    kept = [i for i in range(len(shape)) if i not in numbers.inserted_window_dims]
    sizes = [1] * len(shape)
    for where, i in zip(numbers.update_window_dims, kept, strict=False):
        sizes[i] = given[where]
    applies = eqn.params["update_jaxpr"]  # another function of what was there
    if applies is not None and applies.outvars[0] is not applies.invars[1]:
        return None
    if numbers.operand_batching_dims or len(kept) != len(numbers.update_window_dims):
        return None
    found = _cut_axis(known, eqn, numbers.scatter_dims_to_operand_dims, sizes, 1)
    if found is None:
        return None
    axis, starts = found
    outer = [i for i in range(len(given)) if i not in numbers.update_window_dims]
    if len(starts) > 1 and (sizes[axis] > 1 or len(outer) != 1):
        return None
    order = [numbers.update_window_dims[kept.index(i)] if i in kept else None
             for i in range(len(shape))]  # fmt: skip
    if len(starts) > 1 or axis not in kept:
        if len(outer) > 1:
            return None
        order[axis] = outer[0] if outer else None
    written = [j for i in starts for j in range(i, i + sizes[axis])]
    return (axis, written, tuple(order)) if len(set(written)) == len(written) else None


def _cut_axis(
    known: Known, eqn: Equation, index_map: Sequence[int], sizes: Sequence[int], position: int
) -> tuple[int, list[int]] | None:
    """The one axis of which a gather or scatter picks places, and where these begin."""
    shape, indices = eqn.invars[0].aval.shape, known.indices(eqn.invars[position])
    cut = [i for i, n in enumerate(shape) if sizes[i] != n]
    cut = cut or [index_map[0]] if len(index_map) else cut
    if indices is None or len(cut) != 1 or cut[0] not in index_map:
        return None
    columns = indices.reshape(-1, indices.shape[-1])
    starts = columns[:, list(index_map).index(cut[0])].tolist()
    if not all(0 <= i <= shape[cut[0]] - sizes[cut[0]] for i in starts):
        return None
    others = [i for i, a in enumerate(index_map) if a != cut[0]]
    return (cut[0], starts) if not columns[:, others].any() else None


def _written(
    known: Known, eqn: Equation, below: Place | None, update: Place, axis: int, written: Row
) -> Place | None:
    """Numbers that are written over others along an axis."""
    size = eqn.outvars[0].aval.shape[axis]
    if below is None and not known.is_zero(eqn.invars[0]):
        return None

    def over(rows: Sequence[Row]) -> list[int]:
        found = list(rows[0])
        for i, j in zip(written, rows[1], strict=True):
            found[i] = j
        return found

    return _joined([(below, [-1] * size), (update, [-1] * len(written))], axis, over)


def _row(places: Iterable[int]) -> Row:
    """Places as a range where they are one that goes up or down."""
    if isinstance(places, range):
        return places
    found = tuple(map(int, places))
    step = found[1] - found[0] if len(found) > 1 else 1
    if not step or not found:
        return found
    whole = range(found[0], found[-1] + (1 if step > 0 else -1), step)
    return whole if -1 not in found and tuple(whole) == found else found


def _each(place: Place | None, cuts: Sequence[slice]) -> Place | None:
    """A part of each axis."""
    if place is None:
        return None
    cut = [(a, row[own]) for (a, row), own in zip(place.axes, cuts, strict=True)]
    shape, all_of_one = place.var.aval.shape, [range(1), (0,), [0]]
    alone = [a is None or (shape[a] == 1 and row in all_of_one) for a, row in cut]
    axes = tuple(
        (None, range(len(row))) if one else (a, _row(row))
        for (a, row), one in zip(cut, alone, strict=True)
    )
    return place._replace(axes=axes)


def _dropped(place: Place | None, kept: Iterable[int]) -> Place | None:
    """A place without some axes of one."""
    if place is None:
        return None
    kept = list(kept)
    gone = [place.axes[i] for i in range(len(place.axes)) if i not in kept]
    fixed = {a: row[0] for a, row in gone if a is not None}
    if -1 in fixed.values():
        return None
    return place._replace(axes=tuple(place.axes[i] for i in kept), fixed={**place.fixed, **fixed})


def _regrouped(
    axes: Sequence[tuple[int | None, Row]], sizes: Sequence[int]
) -> list[tuple[int | None, Row]] | None:
    """Wide axes in other sizes, where numbers are only repeated along what is joined or split."""
    found: list[tuple[int | None, Row]] = []
    old, new = list(axes), list(sizes)
    while old and new:
        mine, others = [old.pop(0)], [new.pop(0)]
        while (n := math.prod(len(r) for _, r in mine)) != (m := math.prod(others)):
            if n < m:
                mine.append(old.pop(0))
            else:
                others.append(new.pop(0))
        if len(mine) == len(others) == 1:
            found += mine
            continue
        own = [(i, a, row) for i, (a, row) in enumerate(mine) if a is not None]
        if len(own) > 1:
            return None
        if not own:
            found += [(None, range(k)) for k in others]
            continue
        ((i, axis, row),) = own
        split = _split(row, i, [len(r) for _, r in mine], others)
        if split is None:
            return None
        k, places = split
        found += [(axis, places) if j == k else (None, range(n)) for j, n in enumerate(others)]
    return found


def _split(row: Row, own: int, before: Sequence[int], after: Sequence[int]) -> Any | None:
    """Which of some axes holds the places of an axis that is split, or joined with others along
    which numbers are repeated; and those places. None where several do."""
    alone = len(before) == 1 and isinstance(row, range)  # it runs along all that it is split into
    if alone or math.prod(before) > MOST:
        return None
    places = np.asarray(row)[np.indices(before)[own]].reshape(after)
    for k in range(len(after)):
        line = places[tuple(slice(None) if j == k else slice(1) for j in range(len(after)))]
        if (places == line).all():
            return k, _row(line.ravel())
    return None


def _joined(
    parts: Sequence[tuple[Place | None, Row]], along: int,
    order: Callable[[Sequence[Row]], Iterable[int]],
) -> Place | None:  # fmt: skip
    """What is put together along an axis from parts of one variable, and from zeros (None, with
    places that say so)."""
    known = [p for p, _ in parts if p is not None]
    if not known or any(p.var is not known[0].var for p in known):
        return None
    # What is the only number along an axis has its axis only in what is fixed.
    owners = {a for p in known for a in (p.axes[along][0],) if a is not None}
    owners = owners or {a for p in known for a in p.fixed if p.fixed[a] != known[0].fixed.get(a)}
    if not owners and len(parts) == len(known):
        if all(p == known[0] for p in known) and len(known[0].axes[along][1]) == 1:  # repeated
            axes = [*known[0].axes]
            axes[along] = (None, range(len(parts)))
            return known[0]._replace(axes=tuple(axes))
        owners = set(known[0].fixed)
    if len(owners) != 1:
        return None
    (axis,) = owners
    rows: list[Row] = []
    rest: Any = None
    for place, zeros in parts:
        if place is None:
            rows.append(zeros)
            continue
        own, row = place.axes[along]
        fixed = dict(place.fixed)
        if own is None:
            if axis not in fixed:
                return None
            row = [fixed.pop(axis)] * len(row)
        others = tuple((a, tuple(r)) for i, (a, r) in enumerate(place.axes) if i != along)
        if rest is not None and rest != (others, fixed):
            return None
        rest = (others, fixed)
        rows.append(row)
    axes = list(known[0].axes)
    axes[along] = (axis, _row(order(rows)))
    return Place(known[0].var, tuple(axes), rest[1])


_SCATTER = compat.primitive("scatter")
_RULES: dict[Any, Callable[[Known, Equation, Sequence[Any]], Place | None]] = {
    compat.primitive(name): rule
    for name, rule in {
        "slice": _slice, "rev": _rev, "transpose": _transpose,
        "squeeze": _squeeze, "broadcast_in_dim": _broadcast,
        "reshape": _reshape, "tile": _tile, "pad": _pad,
        "concatenate": _concatenate, "gather": _gather, "scatter": _scatter,
        "dynamic_update_slice": _update_slice,
    }.items()
}  # fmt: skip


MOVES = frozenset(_RULES)
"""Primitives that change places."""
CUTS = MOVES - prim.SHAPE_ONLY
"""And perhaps leave some numbers out, or change their order along an axis."""
