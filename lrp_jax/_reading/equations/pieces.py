"""What is put together along an axis: side by side, by a mask that the code knows, by an update at
indices that it knows, by a sum in which each number comes from one summand.

`where(arange(3) < 2, a, b)`, `b.at[:2].set(a[:2])`, `m * a + (1 - m) * b` with a constant mask `m`
and `concatenate([a[:2], b[2:]])` are one function.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, is_literal
from ..._analysis.indices import Known
from ..._analysis.places import overwritten

_CONCATENATE, _PAD = compat.primitive("concatenate"), compat.primitive("pad")
_SCATTER = compat.primitive("scatter")
UPDATES = frozenset((compat.primitive("dynamic_update_slice"), _SCATTER))
"""Primitives that write into an array."""
JOINS = frozenset((_CONCATENATE, _PAD, prim.SELECT, *UPDATES, *prim.SUMS))
"""Primitives that may put a value together."""
Terms = dict[Any, Any]
"""For each summand, or None for constants, by what it is multiplied along the axis."""


class Run(NamedTuple):
    """Numbers of one source, one after another."""

    source: int
    begin: int
    size: int
    step: int


class Together(NamedTuple):
    """A value of which every number along an axis comes from one source.

    Attributes:
        axis: the axis.
        sources: operands in the shape of the value, but for this axis; None: zeros.
        owner: along the axis the number of the source.
        place: the place along its axis.
        ways: for each source how it gets that shape; None: it has it.
    """

    axis: int
    sources: Sequence[Any]
    owner: np.ndarray
    place: np.ndarray
    ways: Sequence[Callable[[Array], Array] | None]

    def after(self, below: "Together") -> "Together":
        """An update, its first source what another one along the same axis has made."""
        kept = self.owner == 0
        return Together(
            self.axis,
            [*below.sources, *self.sources[1:]],
            np.where(kept, below.owner[self.place], self.owner - 1 + len(below.sources)),
            np.where(kept, below.place[self.place], self.place),
            [*below.ways, *self.ways[1:]],
        )

    def cut(self, rows: Any) -> "Together":
        return self._replace(owner=self.owner[rows], place=self.place[rows])

    def runs(self) -> list[Run]:
        found: list[Run] = []
        for own, at in zip(self.owner.tolist(), self.place.tolist(), strict=True):
            if found and found[-1].source == own:
                _, begin, size, step = found[-1]
                ahead = at - begin - (size - 1) * step
                if ahead > 0 and (size == 1 or ahead == step):
                    found[-1] = Run(own, begin, size + 1, ahead)
                    continue
            found.append(Run(own, at, 1, 1))
        return found

    def values(self, read: Callable[[Any], Any], like: Any) -> list[Array]:
        """The runs one after another.

        Args:
            read: reads operands.
            like: the shape and type of the value.
        """
        found = []
        for run in self.runs():
            atom, way, shape = self.sources[run.source], self.ways[run.source], list(like.shape)
            shape[self.axis] = run.size
            value = jnp.zeros((), like.dtype) if atom is None else read(atom)
            if not value.shape and like.shape:
                found.append(jnp.full(shape, value, like.dtype))
                continue
            value = value if way is None else way(value)
            stop = run.begin + (run.size - 1) * run.step + 1
            found.append(lax.slice_in_dim(value, run.begin, stop, run.step, self.axis))
        return found


def put_together(eqn: Equation, known: Known) -> Together | None:
    """How an equation puts its result together along an axis; None where it does not.

    Args:
        eqn: the equation.
        known: what the code knows.
    """
    if len(eqn.outvars) != 1 or not eqn.outvars[0].aval.shape:
        return None
    if eqn.primitive is _CONCATENATE:
        axis = eqn.params["dimension"]
        sizes = [a.aval.shape[axis] for a in eqn.invars]
        return _side_by_side(axis, eqn.invars, [range(n) for n in sizes])
    if eqn.primitive is _PAD:
        return _padded(eqn, known)
    if eqn.primitive is prim.SELECT:
        mask = known.along(eqn.invars[0])
        if mask is None or is_literal(eqn.invars[0]):
            return None
        axis, row = mask
        owner = row.astype(int)
        cases = [None if known.is_zero(a) else a for a in eqn.invars[1:]]
        return Together(axis, cases, owner, np.arange(len(owner)), [None] * len(cases))
    if eqn.primitive in UPDATES:
        return _updated(eqn, known)
    if eqn.primitive in prim.SUMS:
        return _summed(eqn, known) or _disjoint(eqn, known)
    return None


def _side_by_side(axis: int, sources: Sequence[Any], rows: Sequence[Iterable[int]]) -> Together:
    places = [np.fromiter(row, int) for row in rows]
    owner = np.repeat(np.arange(len(sources)), [len(row) for row in places])
    return Together(axis, sources, owner, np.concatenate(places), [None] * len(sources))


def _padded(eqn: Equation, known: Known) -> Together | None:
    (operand, value), sides = eqn.invars, eqn.params["padding_config"]
    axes = [i for i, side in enumerate(sides) if any(side)]
    if len(axes) != 1 or is_literal(operand) or any(n < 0 for n in sides[axes[0]]):
        return None
    (axis,) = axes
    low, high, between = sides[axis]
    size, value = operand.aval.shape[axis], None if known.is_zero(value) else value
    owner, place = (np.zeros(eqn.outvars[0].aval.shape[axis], int) for _ in range(2))
    own = slice(low, len(owner) - high, between + 1)
    if len(range(len(owner))[own]) != size:
        return None
    owner[own], place[own] = 1, np.arange(size)
    return Together(axis, [value, operand], owner, place, [None, None])


def update_of(eqn: Equation) -> int:
    """Which operand an update writes."""
    return 2 if eqn.primitive is _SCATTER else 1


def _updated(eqn: Equation, known: Known) -> Together | None:
    found = overwritten(known, eqn)
    if found is None:
        return None
    axis, written, order = found
    below, update = eqn.invars[0], eqn.invars[update_of(eqn)]
    size = eqn.outvars[0].aval.shape[axis]
    owner, place = np.zeros(size, int), np.arange(size)
    owner[written], place[written] = 1, np.arange(len(written))
    shape = [*eqn.outvars[0].aval.shape]
    shape[axis] = len(written)
    kept = [i for i in order if i is not None]

    def spread(value: Array) -> Array:
        gone = [i for i in range(value.ndim) if i not in kept]
        value = lax.squeeze(value, gone)
        value = lax.transpose(value, [sorted(kept).index(i) for i in kept])
        return lax.reshape(value, shape)

    same = order == tuple(range(len(order))) and update.aval.shape == tuple(shape)
    base = None if known.is_zero(below) else below
    return Together(axis, [base, update], owner, place, [None, None if same else spread])


# -- sums in which each number comes from one summand ---------------------------------------------


def _summed(eqn: Equation, known: Known) -> Together | None:
    """A sum of operands that masks of the code multiply."""
    axes: set[int] = set()
    terms = _terms(eqn.outvars[0], known, axes)
    if terms is None or len(axes) != 1:
        return None
    (axis,) = axes
    shape = eqn.outvars[0].aval.shape
    rows = {a: np.broadcast_to(row, shape[axis]) for a, row in terms.items()}
    constant = rows.pop(None, None)
    sources = [*rows]
    if any(a.aval.shape != shape for a in sources) or len(sources) > _MOST_SUMMANDS:
        return None
    owner = np.full(shape[axis], -1)
    for i, row in enumerate(rows.values()):
        if not np.isin(row, (0, 1)).all() or (owner[row == 1] >= 0).any():
            return None
        owner[row == 1] = i
    numbers: list[Any] = []
    for i in np.flatnonzero(owner < 0).tolist():
        number = 0 if constant is None else constant[i]
        if number not in numbers:
            numbers.append(number)
        owner[i] = len(sources) + numbers.index(number)
    if constant is not None and constant[owner < len(sources)].any():
        return None
    dtype = eqn.outvars[0].aval.dtype
    made = [None if n == 0 else _number(n, dtype) for n in numbers]
    sources += made
    return Together(axis, sources, owner, np.arange(len(owner)), [None] * len(sources))


_MOST_SUMMANDS = 8


def _disjoint(eqn: Equation, known: Known) -> Together | None:
    """A sum of two values of which one is zero wherever the other one is not."""
    if eqn.primitive is prim.SUB or any(map(is_literal, eqn.invars)):
        return None
    makers = [known.maker.get(a) for a in eqn.invars]
    parts = [None if e is None or e.primitive in prim.SUMS else put_together(e, known)
             for e in makers]  # fmt: skip
    a, b = parts
    if a is None or b is None or a.axis != b.axis or len(a.owner) != len(b.owner):
        return None
    filled = [np.asarray([x is not None for x in t.sources])[t.owner] for t in (a, b)]
    if (filled[0] & filled[1]).any():
        return None
    first, others = filled[0], len(a.sources)
    return Together(
        a.axis,
        [*a.sources, *b.sources],
        np.where(first, a.owner, b.owner + others),
        np.where(first, a.place, b.place),
        [*a.ways, *b.ways],
    )


def _number(value: Any, dtype: Any) -> Any:
    number = np.asarray(value, dtype)[()]
    return compat.literal(number, jax.typeof(number))


def _terms(atom: Any, known: Known, axes: set[int]) -> Terms | None:
    """The summands of a sum with masks; None of anything else."""
    eqn = None if is_literal(atom) else known.maker.get(atom)
    if eqn is None:
        return None
    if eqn.primitive in prim.SUMS:
        operands = [_terms(a, known, axes) for a in eqn.invars]
        constants = [_row(a, known, axes) for a in eqn.invars]
        if all(t is None for t in operands):
            return None
        total: Terms = {}
        for i, (a, terms, row) in enumerate(zip(eqn.invars, operands, constants, strict=True)):
            if is_literal(a) and row is None:
                return None
            own = terms if terms is not None else {a: 1.0} if row is None else {None: row}
            sign = -1 if i and eqn.primitive is prim.SUB else 1
            for key, factor in own.items():
                total[key] = total.get(key, 0) + sign * factor
        return total
    if eqn.primitive is prim.SELECT:
        return _chosen(eqn, known, axes)
    if eqn.primitive is not prim.MUL:
        return None
    for mask, other in (eqn.invars, eqn.invars[::-1]):
        row = None if is_literal(mask) or is_literal(other) else _mask(mask, known, axes)
        if row is None:
            continue
        inner = known.maker.get(other)
        if inner is not None and inner.primitive in prim.SUMS and not any(
            map(is_literal, inner.invars)
        ):  # fmt: skip
            (a, b), sign = inner.invars, -1 if inner.primitive is prim.SUB else 1
            return {a: row, b: sign * row} if a is not b else None
        return {other: row}
    return None


def _chosen(eqn: Equation, known: Known, axes: set[int]) -> Terms | None:
    """An operand where a mask of the code says so, elsewhere zeros."""
    zeros = [known.is_zero(a) for a in eqn.invars[1:]]
    if zeros not in ([True, False], [False, True]):
        return None
    row = _mask(eqn.invars[0], known, axes)
    if row is None:
        return None
    return {eqn.invars[2]: row} if zeros[0] else {eqn.invars[1]: 1 - row}


def _mask(atom: Any, known: Known, axes: set[int]) -> Any | None:
    """A mask of the code along one axis: zeros and ones."""
    found = known.along(atom)
    if found is None or set(found[1].tolist()) != {0, 1}:
        return None
    axes.add(found[0])
    return found[1].astype(float)


def _row(atom: Any, known: Known, axes: set[int]) -> Any | None:
    """Numbers of the code along one axis, or one number."""
    if is_literal(atom):
        return None if np.ndim(atom.val) else float(atom.val)
    found = known.along(atom)
    if found is None:
        return None
    axes.add(found[0])
    return found[1].astype(float)
