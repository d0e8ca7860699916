"""What is cut after it was computed, computed of what was cut: `sigmoid(z)[:4]` beside `z[:4]` is
`sigmoid(z[:4])`, and `(x @ w)[:2] / norm(x)[:2]` is the quotient of both for `x[:2]`.

A function of a part, or a norm of some rows, is recognised where the part is cut first. Constant
rows that were put beside explained ones, as a class token is, are constants where they are cut out
again behind such a function.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.factors import link
from ..._analysis.graph import Graph
from ..._analysis.indices import Known, known_in
from ..._analysis.places import CUTS, Place, Row, itself, made_by
from ..._analysis.primitives import POINTWISE, Family, family, is_reduction
from ..._analysis.value_numbers import rectifier

Read = Callable[[Any], Any]
Rows = Mapping[int, Row]
"""The places that are kept along some axes of a variable."""
_CONCATENATE = compat.primitive("concatenate")
_DEEPEST = 32
_OF_WHOLES = (prim.EXP, prim.LOG)
"""Of a part they are the part of a whole, which may be a softmax or its logarithm (`wholes`)."""


def cut_first(graph: Graph) -> dict[int, Callable[[Read], Any]]:
    """How such parts are computed of what was cut, by the `id` of what cuts them."""
    known = known_in(graph)
    cuts = {e.outvars[0]: p for e in graph.eqns if (p := _cut(e, graph, known)) is not None}
    also_cut = {_key(p.var, rows_of(p)) for p in cuts.values()}
    found: dict[int, Callable[[Read], Any]] = {}

    def look(outs: list[Var], ends: Callable[[Var, Rows], bool], sums: bool) -> None:
        stop = _meeting({cuts[v].var: rows_of(cuts[v]) for v in outs}, graph, ends, sums)
        for v in outs:
            if stop is not None and cuts[v].var is not stop:
                found[id(graph.maker[v])] = _way(cuts[v], stop, graph)

    for out, place in cuts.items():
        if _is_of_constants(place, graph):
            found[id(graph.maker[out])] = _way(place, None, graph)
            continue
        look([out], lambda v, rows: _key(v, rows) in also_cut, _is_multiplied(out, graph))
    for eqn in graph.eqns:
        if eqn.primitive in (prim.MUL, prim.DIV) and graph.explained_operands(eqn) == [0, 1]:
            two = [before_links(a, graph) for a in eqn.invars]
            if len({cuts[v].var for v in two if v in cuts}) == 2:
                look(two, lambda v, rows: bool(rows), sums=True)
    return found


def _is_of_constants(place: Place, graph: Graph) -> bool:
    """Whether what is cut is a function of constant rows beside explained ones."""
    open_: dict[Any, Rows] = {place.var: rows_of(place)}
    for _ in range(_DEEPEST):
        last = max(open_, key=lambda v: graph.position[v])
        rows = open_.pop(last)
        parts = _operands(_maker(last, graph), rows)
        for atom, own in parts:
            explained = not is_literal(atom) and atom in graph.live
            if explained and (not own or open_.setdefault(atom, own) != own):
                return False
        if not parts or not open_:
            return bool(parts)
    return False


def _operands(eqn: Equation | None, rows: Rows) -> list[tuple[Any, Rows]]:
    """The operands of which rows of a result are made, and their rows; none where all numbers are
    needed along such an axis."""
    if eqn is not None and eqn.primitive is _CONCATENATE:
        return _part(eqn, rows)
    found = None if eqn is None else operand_rows(eqn, rows)
    return [] if eqn is None or found is None else [*zip(eqn.invars, found, strict=True)]


def _part(eqn: Equation, rows: Rows) -> list[tuple[Any, Rows]]:
    """The one operand out of which rows of what was put side by side are."""
    along, end = eqn.params["dimension"], 0
    row = rows.get(along, ())
    for atom in eqn.invars:
        begin, end = end, end + atom.aval.shape[along]
        if row and begin <= min(row) and max(row) < end:
            return [(atom, {**rows, along: [i - begin for i in row]})]
    return []


def _is_multiplied(var: Var, graph: Graph) -> bool:
    """Whether a product reads a variable, perhaps after its axes were spread out."""
    readers = [e for e in graph.readers.get(var, ()) if e is not None and graph.is_live(e)]
    return any(
        e.primitive in (prim.MUL, prim.DIV)
        or (link(e) is not None and _is_multiplied(e.outvars[0], graph))
        for e in readers
    )


def _cut(eqn: Equation, graph: Graph, known: Known) -> Place | None:
    """Numbers that an equation cuts out of a variable, in their order."""
    if eqn.primitive not in CUTS or graph.explained_operands(eqn) != [0] or not graph.is_live(eqn):
        return None
    place = made_by(eqn, known, itself)
    if place is None or place.has_zeros or not place.cut:
        return None
    axes = [a for a, _ in place.axes if a is not None]
    return place if axes == sorted(axes) else None


def rows_of(place: Place) -> dict[int, Row]:
    """The places along the axes that are cut."""
    own = {a: row for a, row in place.axes if a in place.cut and a is not None}
    return {**own, **{a: range(i, i + 1) for a, i in place.fixed.items()}}


def _key(var: Var, rows: Rows) -> Any:
    return var, *sorted((axis, tuple(row)) for axis, row in rows.items())


def before_links(atom: Any, graph: Graph) -> Any:
    """A variable before its axes were spread out or put in another order."""
    while (eqn := graph.maker.get(atom)) is not None and link(eqn) is not None:
        atom = eqn.invars[0]
    return atom


def _meeting(
    starts: Mapping[Var, Rows], graph: Graph, ends: Callable[[Var, Rows], bool], sums: bool
) -> Var | None:
    """The one value of which some parts are made, of the same rows; None where there is none.

    Args:
        starts: what is cut, and where.
        graph: its graph.
        ends: whether what is left is such a value.
        sums: whether the ways there have contractions, and sums or the like, which have to be.
    """
    open_, has_sum, only_functions = dict(starts), False, True
    for _ in range(_DEEPEST):
        last = max(open_, key=lambda v: graph.position[v])
        rows = open_.pop(last)
        met = not open_ and [*starts] != [last]
        if met and ends(last, rows):
            return last if only_functions or has_sum else None
        eqn = _maker(last, graph)
        parts = None if eqn is None else operand_rows(eqn, rows)
        if eqn is None or parts is None or eqn.primitive in _OF_WHOLES:
            return None
        pointwise = family(eqn.primitive) in POINTWISE or link(eqn) is not None
        contracts = family(eqn.primitive) is Family.CONTRACTION
        if not pointwise and not (sums and (not contracts or graph.read_once(last))):
            return None
        has_sum, only_functions = (
            has_sum or not (pointwise or contracts),
            only_functions and pointwise,
        )
        for atom, own in zip(eqn.invars, parts, strict=True):
            explained = not is_literal(atom) and atom in graph.live
            if explained and open_.setdefault(atom, own) != own:
                return None
    return None


def _maker(var: Var, graph: Graph) -> Equation | None:
    eqn = graph.maker.get(var)
    return eqn and (rectifier(eqn) or eqn)


def _way(place: Place, stop: Var | None, graph: Graph) -> Callable[[Read], Any]:
    rows = rows_of(place)
    axes = tuple((a, range(len(row)) if a in rows else row) for a, row in place.axes)
    cut = place._replace(axes=axes, fixed=dict.fromkeys(place.fixed, 0))
    return lambda read: cut.of(rows_made(place.var, rows, stop, graph, read))


# -- rows of what an equation makes ---------------------------------------------------------------


def rows_made(atom: Any, rows: Rows, stop: Var | None, graph: Graph, read: Read) -> Any:
    """Rows of a variable, computed of rows of another variable, if any, and of constants."""
    made: dict[Any, Any] = {}

    def value(atom: Any, rows: Rows) -> Any:
        if is_literal(atom):
            return atom.val
        if not rows:
            return read(atom)
        key = _key(atom, rows)
        if key not in made:
            eqn = None if atom is stop or atom not in graph.live else _maker(atom, graph)
            made[key] = _picked(read(atom), rows) if eqn is None else computed(eqn, rows)
        return made[key]

    def computed(eqn: Equation, rows: Rows) -> Any:
        operands = [value(a, own) for a, own in _operands(eqn, rows)]
        assert operands, "asked for before"
        if eqn.primitive is _CONCATENATE:
            return operands[0]
        axes = link(eqn)
        if axes is None or family(eqn.primitive) in POINTWISE:
            return compat.applied(eqn, *operands)
        shape = [len(rows.get(i, range(n))) for i, n in enumerate(eqn.outvars[0].aval.shape)]
        moved = jax.lax.squeeze(operands[0], [i for i, a in enumerate(axes) if a is None])
        kept = [a for a in axes if a is not None]
        moved = jax.lax.transpose(moved, [kept.index(a) for a in sorted(kept)])
        return jax.lax.broadcast_in_dim(moved, shape, sorted(kept))

    return value(atom, rows)


def _picked(value: Any, rows: Rows) -> Any:
    for axis, row in rows.items():
        if isinstance(row, range) and row.step > 0:
            value = jax.lax.slice_in_dim(value, row.start, row.stop, row.step, axis)
        else:
            value = value[(*[slice(None)] * axis, np.asarray(row))]
    return value


def operand_rows(eqn: Equation, rows: Rows) -> list[Rows] | None:
    """The rows of the operands of which rows of a result are made; None where all numbers are
    needed along such an axis."""
    shapes = [() if is_literal(a) else a.aval.shape for a in eqn.invars]
    out = eqn.outvars[0].aval.shape
    axes = link(eqn)
    if family(eqn.primitive) in POINTWISE or eqn.primitive is prim.SELECT:
        axes = range(len(out))  # type: ignore[assignment]
    if axes is not None:
        return [
            {
                i: rows[a]
                for i, (n, a) in enumerate(zip(shape, axes, strict=False))
                if a is not None and a in rows and n == out[a]
            }
            for shape in shapes
        ]
    if eqn.primitive is prim.REDUCE_SUM or is_reduction(eqn):
        kept = [i for i in range(len(shapes[0])) if i not in eqn.params["axes"]]
        return [{kept[a]: row for a, row in rows.items()}]
    if eqn.primitive not in (prim.DOT, prim.CONV):
        return None
    places = operand_axes(eqn)
    if any(places[a] is None for a in rows):
        return None
    found: list[dict[int, Row]] = [{}, {}]
    for a, row in rows.items():
        for side, axis in places[a] or ():
            found[side][axis] = row
    return list(found)


def operand_axes(eqn: Equation) -> list[tuple[tuple[int, int], ...] | None]:
    """For each axis of a contraction's result, the operands that have it, and their axes."""
    if eqn.primitive is prim.CONV:
        numbers = eqn.params["dimension_numbers"]
        plain = eqn.params["feature_group_count"] == eqn.params["batch_group_count"] == 1
        channels = ((1, numbers.rhs_spec[0]),) if plain else None
        return [
            channels if i == numbers.out_spec[1] else None for i in range(len(numbers.out_spec))
        ]
    contracted, batch = prim.dot_numbers(eqn)
    found: list[tuple[tuple[int, int], ...] | None] = [
        ((0, i), (1, j)) for i, j in zip(*batch, strict=True)
    ]
    for side, atom in enumerate(eqn.invars):
        taken = (*contracted[side], *batch[side])
        found += [((side, i),) for i in range(len(atom.aval.shape)) if i not in taken]
    return found
