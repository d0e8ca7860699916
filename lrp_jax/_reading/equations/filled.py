"""Arrays that are filled part by part, at indices that the code knows.

`zeros.at[0].set(a).at[1].set(b)` is `stack([a, b])`, however many updates fill it; and a loop that
writes a row of an array in each turn, `out.at[i].set(f(x[i]))`, makes these rows one by one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.draft import Draft
from ..._analysis.foreign import of_one_example
from ..._analysis.indices import Known
from ..._analysis.inside import equations_in
from ..._analysis.numbers import is_float
from ..._analysis.otherwise import Read, computed_otherwise
from ..._analysis.splice import splice
from ..._analysis.trace import in_place_of, inline
from .pieces import UPDATES, Together, put_together, update_of

_MOST_TURNS = 1024
"""Of longer loops nobody looks where they write."""
_COUNTED = frozenset(map(compat.primitive, ("dynamic_slice", "gather")))
"""What may read a row by the count of a loop."""


def without_updates(closed_jaxpr: Any) -> Any:
    """The same function, what updates fill put together at once.

    Args:
        closed_jaxpr: a flat jaxpr.
    """
    jaxpr = compat.open_jaxpr(closed_jaxpr)
    if not any(map(_updates, jaxpr.eqns)):
        return closed_jaxpr
    known = Known.of(closed_jaxpr)
    filled: dict[Var, Together] = {}
    read = {a for a in jaxpr.outvars if not is_literal(a)}
    for eqn in jaxpr.eqns:
        operands = [a for a in eqn.invars if not is_literal(a)]
        own = put_together(eqn, known) if _updates(eqn) else None
        if own is not None:
            below = None if is_literal(eqn.invars[0]) else filled.get(eqn.invars[0])
            if below is not None and below.axis == own.axis:
                own, operands = own.after(below), operands[1:]
            filled[eqn.outvars[0]] = own
        read.update(operands)
    whole = {v: t for v, t in filled.items() if v in read and _in_pieces(t)}
    if not whole:
        return closed_jaxpr

    def way(eqn: Equation, read: Read) -> Any:
        (out,) = eqn.outvars
        return jnp.concatenate(whole[out].values(read, out.aval), whole[out].axis)

    return computed_otherwise(closed_jaxpr, lambda e: any(v in whole for v in e.outvars), way)


def _in_pieces(together: Together) -> bool:
    """Whether each update writes one piece: every other number, or another order, would be as many
    pieces as numbers."""
    written = [run.source for run in together.runs() if run.source]
    return len(written) == len(set(written))


def _updates(eqn: Equation) -> bool:
    return eqn.primitive in UPDATES and is_float(eqn.outvars[0])


# -- loops that fill ------------------------------------------------------------------------------


class _Rows(NamedTuple):
    """What a loop writes into an array that it carries and does not read.

    Attributes:
        eqn: the update.
        axis: along which rows are written.
        begin: the first one.
        order: in which the turns write rows, from there.
        shaped: brings an update into the array's shape, but for that axis.
    """

    eqn: Equation
    axis: int
    begin: int
    order: list[int]
    shaped: Callable[[jax.Array], jax.Array] | None

    def turn(self, update: jax.Array) -> jax.Array:
        return update if self.shaped is None else self.shaped(update)

    def array(self, start: jax.Array, rows: jax.Array) -> jax.Array:
        """The array with the rows of all turns.

        Args:
            start: what the loop begins with.
            rows: of the turns.
        """
        rows = _in_order(rows, np.argsort(self.order))
        shape = list(start.shape)
        shape[self.axis] = -1
        rows = jnp.moveaxis(rows, 0, self.axis).reshape(shape)
        ends = [self.begin, self.begin + rows.shape[self.axis]]
        before, _, after = jnp.split(start, ends, self.axis)
        parts = [y for y in (before, rows, after) if y.size]
        return jnp.concatenate(parts, self.axis) if len(parts) > 1 else rows


def _in_order(rows: Any, places: np.ndarray) -> Any:
    """Rows at some places, each once."""
    forth = np.arange(len(places))
    if (places == forth).all():
        return rows
    return rows[::-1] if (places == forth[::-1]).all() else rows[places]


def with_rows_of_loops(draft: Draft) -> Draft:
    """The same function with loops that make the rows of arrays where they filled these, and maps
    where loops only count, to read or to write rows."""
    scans = (e for e in draft.eqns if e.primitive is prim.SCAN)
    loops = [
        e
        for e in scans
        if any(_updates(i) or i.primitive in _COUNTED for i in equations_in(e.params["jaxpr"]))
    ]
    known, calls = Known.of(draft.closed) if loops else None, draft.calls
    others = {id(e): other for e in loops if (other := _by_rows(e, known, calls)) is not None}
    if not others:
        return draft
    return draft.written(compat.without_unused(inline(splice(draft.closed, others), calls)))


def _by_rows(eqn: Equation, known: Any, calls: Sequence[str]) -> Callable[..., list[Any]] | None:
    """A loop with rows for the arrays that it fills, and numbers for what it counts."""
    constants, carries = compat.scan_arity(eqn)
    held, length = constants + carries, eqn.params["length"]
    if not (carries and 1 < length <= _MOST_TURNS):
        return None
    body = of_one_example(inline(compat.closed(eqn.params["jaxpr"]), calls))
    jaxpr = compat.open_jaxpr(body)
    if any(map(is_float, eqn.outvars[:carries])) and not any(map(_updates, jaxpr.eqns)):
        return None  # a state
    makers = compat.makers(jaxpr)
    carried = dict(zip(jaxpr.invars[constants:held], jaxpr.outvars, strict=False))
    fixed: dict[Var, Any] = dict(zip(jaxpr.constvars, body.consts, strict=True))
    for var, operand in zip(jaxpr.invars[:constants], eqn.invars[:constants], strict=True):
        fixed[var] = known.indices(operand)
    given = {
        var: numbers
        for var, operand in zip(jaxpr.invars[held:], eqn.invars[held:], strict=True)
        if not var.aval.shape and (numbers := known.indices(operand)) is not None
    }
    order = range(length)[:: -1 if eqn.params["reverse"] else 1]
    of_turns = [fixed | {v: numbers[i] for v, numbers in given.items()} for i in order]
    begun = zip(carried, map(known.indices, eqn.invars[constants:held]), strict=True)
    start = {v: n.astype(v.aval.dtype) for v, n in begun if n is not None and not v.aval.shape}
    turns, ends = _counted(start, carried, makers, of_turns)
    turns = [turns[i] for i in order]
    filled = {v: r for v, out in carried.items() if (r := _rows(v, out, jaxpr, makers, turns))}
    rest = [v for v in carried if v not in filled and v not in ends]
    if not filled and rest:
        return None
    counts = {v: np.stack([known.indices(v) for known in turns]) for v in ends}
    places = np.arange(length)
    orders = {tuple(rows.order) for rows in filled.values()}
    if not rest and len(orders) == 1 and len(jaxpr.outvars) == carries:
        # No turn reads another one: they come in the order of their rows.
        places = np.argsort(orders.pop())
        filled = {v: rows._replace(order=[*range(length)]) for v, rows in filled.items()}
    whole = compat.as_function(
        jaxpr,
        [e for e in jaxpr.eqns if all(e is not r.eqn for r in filled.values())],
        [*jaxpr.constvars, *jaxpr.invars[:constants], *rest, *ends, *jaxpr.invars[held:]],
        [
            *(carried[v] for v in rest),
            *(r.eqn.invars[update_of(r.eqn)] for r in filled.values()),
            *jaxpr.outvars[carries:],
        ],
    )

    def written(*operands: Any) -> list[Any]:
        begun = dict(zip(carried, operands[constants:held], strict=True))

        def turn(carry: list[Any], xs: list[Any]) -> tuple[list[Any], list[Any]]:
            made = whole(*body.consts, *operands[:constants], *carry, *xs)
            now, ys = made[: len(rest)], made[len(rest) :]
            return now, [*map(_Rows.turn, filled.values(), ys), *ys[len(filled) :]]

        params = {name: eqn.params[name] for name in ("length", "reverse", "unroll")}
        with in_place_of(eqn):
            xs = [_in_order(x, places) for x in (*(counts[v] for v in ends), *operands[held:])]
            last, ys = jax.lax.scan(turn, [begun[v] for v in rest], xs, **params)
            made = {**ends, **dict(zip(rest, last, strict=True))}
            for (var, rows), made_in_turns in zip(filled.items(), ys, strict=False):
                made[var] = rows.array(begun[var], made_in_turns)
        return [*(jnp.asarray(made[v]) for v in carried), *ys[len(filled) :]]

    return written


def _counted(
    start: Mapping[Var, Any],
    carried: Mapping[Var, Any],
    makers: Mapping[Var, Equation],
    of_turns: Sequence[Mapping[Var, Any]],
) -> tuple[list[Known], Mapping[Var, Any]]:
    """What the code knows in each turn, and the last numbers of what a loop counts.

    Args:
        start: numbers that a loop begins with.
        carried: what a turn makes of what it carries.
        makers: of what a turn makes.
        of_turns: what is known besides in each turn, in the order of execution.
    """
    turns, now = [], start
    for given in of_turns:
        turns.append(Known(makers, {**given, **now}))
        after = {v: turns[-1].indices(carried[v]) for v in now}
        now = {v: n.astype(v.aval.dtype) for v, n in after.items() if n is not None}
        if len(now) < len(after):
            return _counted({v: start[v] for v in now}, carried, makers, of_turns)
    return turns, now


def _rows(
    var: Var, out: Any, jaxpr: Any, makers: Mapping[Var, Equation], turns: Sequence[Known]
) -> _Rows | None:
    """What turns write into one array of the carry."""
    eqn = None if is_literal(out) else makers.get(out)
    if eqn is None or not _updates(eqn) or eqn.invars[0] is not var:
        return None
    read = [a for e in jaxpr.eqns for a in e.invars] + list(jaxpr.outvars)
    if sum(a is var for a in read) > 1 or sum(a is out for a in read) > 1:
        return None
    found = [t for known in turns if (t := put_together(eqn, known)) is not None]
    if len(found) < len(turns) or any(t.axis != found[0].axis for t in found):
        return None
    places = [np.flatnonzero(t.owner) for t in found]
    begin, size = min(p[0] for p in places), len(places[0])
    order, rest = zip(*(divmod(int(p[0] - begin), size) for p in places), strict=True)
    in_rows = all((np.diff(p) == 1).all() for p in places) and not any(rest)
    if not in_rows or sorted(order) != [*range(len(turns))]:
        return None
    return _Rows(eqn, found[0].axis, int(begin), list(order), found[0].ways[1])
