"""Sums that are written out: `e[0] + e[1:3].sum() + e[3]` is the sum of e along its axis.

What is added is told apart by its places: numbers of one variable from one place each along an
axis. Where every place is met equally often, their sum is that of the variable.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ..._analysis import primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.graph import Graph
from ..._analysis.indices import known_in
from ..._analysis.places import Place, itself, made_by
from ..._analysis.value_numbers import value_numbers

Counts = tuple[int, ...]


class Total(NamedTuple):
    """A sum over places along an axis of a variable.

    Attributes:
        place: of the sum, its numbers taken from any one place along the axis.
        axis: of the variable.
        counts: how often each place is added.
    """

    place: Place
    axis: int
    counts: Counts

    @property
    def is_whole(self) -> bool:
        """Whether all places are met, and equally often, and all others are as they were."""
        shape = self.place.var.aval.shape
        plain = all(a is None or row == range(shape[a]) for a, row in self.place.axes)
        kept = {a for a, _ in self.place.axes} | {self.axis}
        all_kept = all(n == 1 or a in kept for a, n in enumerate(shape))
        return plain and all_kept and self.counts[0] > 0 and len({*self.counts}) == 1


def totals(graph: Graph) -> tuple[Mapping[Var, Total], Mapping[Var, Place]]:
    """The sums of a graph that are written otherwise than as one over an axis, and the places of
    what is moved in it."""
    known, same = known_in(graph), graph.once(value_numbers)
    places: dict[Var, Place] = {}
    sums: dict[Var, Total] = {}
    exponentials = {
        same.get(e.invars[0], e.invars[0]): e.outvars[0]
        for e in reversed(graph.eqns)
        if e.primitive is prim.EXP and not is_literal(e.invars[0])
    }

    def of(var: Var) -> Place:
        return sums[var].place if var in sums else places.get(var) or itself(same.get(var, var))

    for eqn in graph.eqns:
        if not graph.is_live(eqn) or len(eqn.outvars) != 1:
            continue
        (out,), explained = eqn.outvars, graph.explained_operands(eqn)
        place = made_by(eqn, known, of)
        if place is not None:
            inner = [sums[a] for a in eqn.invars if not is_literal(a) and a in sums]
            if not inner:
                places[out] = place
            elif len(explained) == 1:
                sums[out] = inner[0]._replace(place=place)
        elif eqn.primitive is prim.EXP and (before := places.get(eqn.invars[0])) is not None:
            made = exponentials.get(before.var)
            if made is not None and graph.position[made] < graph.position[out]:
                places[out] = before._replace(var=made)
        elif eqn.primitive is prim.REDUCE_SUM:
            total = _along(eqn, of(eqn.invars[0]), sums.get(eqn.invars[0]))
            sums |= {} if total is None else {out: total}
        elif eqn.primitive in prim.ADD and len(explained) == 1:
            value = eqn.invars[explained[0]]
            starts = known.is_zero(eqn.invars[1 - explained[0]])  # as `sum` does
            if starts and value.aval.shape == out.aval.shape:
                if value in sums:
                    sums[out] = sums[value]
                else:
                    places[out] = of(value)
        elif eqn.primitive in prim.ADD and explained == [0, 1]:
            total = _added(eqn.invars, of, sums)
            sums |= {} if total is None else {out: total}
    return {v: total for v, total in sums.items() if total.is_whole}, places


def _along(eqn: Equation, place: Place, inner: Total | None) -> Total | None:
    """A sum over axes: one of the variable, and others along which numbers are repeated."""
    summed = eqn.params["axes"]
    own = [(a, row) for i, (a, row) in enumerate(place.axes) if i in summed and a is not None]
    kept = tuple(pair for i, pair in enumerate(place.axes) if i not in summed)
    times = 1
    for i in summed:
        times *= len(place.axes[i][1]) if place.axes[i][0] is None else 1
    if inner is not None:
        counts = tuple(times * n for n in inner.counts)
        return None if own else Total(place._replace(axes=kept), inner.axis, counts)
    if len(own) != 1:
        return None
    ((axis, row),) = own
    counts_of = [0] * place.var.aval.shape[axis]
    for index in row:
        if index >= 0:
            counts_of[index] += times
    fixed = {**place.fixed, axis: 0}
    return Total(place._replace(axes=kept, fixed=fixed), axis, tuple(counts_of))


def _added(
    atoms: Sequence[Var], of: Callable[[Var], Place], sums: Mapping[Var, Total]
) -> Total | None:
    """A sum of two that have other places along one axis, or are sums along it."""
    one, two = map(single, map(of, atoms))
    axes = {sums[a].axis for a in atoms if a in sums} or {
        a for a in one.fixed if one.fixed[a] != two.fixed.get(a)
    }
    if one.var is not two.var or one.axes != two.axes or len(axes) != 1:
        return None
    (axis,) = axes
    if not all(axis in p.fixed for p in (one, two)):
        return None
    if {**one.fixed, axis: 0} != {**two.fixed, axis: 0}:
        return None
    counts = [
        sums[a].counts if a in sums else _once(p.fixed[axis], p.var.aval.shape[axis])
        for a, p in zip(atoms, (one, two), strict=True)
    ]
    return Total(
        one._replace(fixed={**one.fixed, axis: 0}),
        axis,
        tuple(a + b for a, b in zip(*counts, strict=True)),
    )


def single(place: Place) -> Place:
    """A place with what is the only number along an axis fixed."""
    fixed = {a: row[0] for a, row in place.axes if a is not None and len(row) == 1}
    axes = tuple((None, range(1)) if a in fixed else (a, row) for a, row in place.axes)
    return place._replace(axes=axes, fixed={**place.fixed, **fixed})


def _once(index: int, size: int) -> Counts:
    return tuple(int(i == index) for i in range(size))
