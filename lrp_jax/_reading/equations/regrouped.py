"""Values that have other axes for a while: `f(x.reshape(n, -1)).reshape(x.shape)` is `f(x)`, and a
sum over an axis that was joined from others is a sum over these.

A softmax over the pixels of a map may sum its exponentials in one shape and divide in the other.
Layers are recognised by axes, so what is computed in another shape only to be summed, or brought
back, is computed in the shape that it comes from, or in the one that it is brought to.
"""

from collections.abc import Collection, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import jax

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.draft import Draft
from ..._analysis.graph import Graph
from ..._analysis.otherwise import Read
from ..._analysis.primitives import POINTWISE, Family, family, is_reduction
from ..._analysis.value_numbers import rectifier, value_numbers
from .units import Bare, computed_bare

_RESHAPE = compat.primitive("reshape")
Groups = tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
"""Axes of one shape and those of another one that hold the same numbers."""


class Regrouped(NamedTuple):
    """A variable as a reshape of another value.

    Attributes:
        shape: of that value.
        groups: axes of that value, and of the variable.
        other: the variable of its shape that it begins with.
        bare: that value.
        computed: whether it is computed number by number, and not only moved or summed.
    """

    shape: tuple[int, ...]
    groups: Groups
    other: Var
    bare: Bare
    computed: bool


def without_passing_shapes(draft: Draft) -> Draft:
    """The same function without shapes that values have for a while."""
    if not any(map(_regroups, draft.eqns)):
        return draft
    for brought_to in (False, True):
        graph, starts = draft.graph, {}
        for eqn in filter(_regroups, graph.eqns):
            before, after = eqn.invars[0], eqn.outvars[0]
            if after in graph.live:
                var, other = (before, after) if brought_to else (after, before)
                starts[var] = _start(before, var, other)
        spread, ended = _followed(graph, starts)
        begin = {v for v, start in starts.items() if spread[v] is start}
        if ended := _only_for_ends(graph, spread, ended, begin) if ended else {}:
            bare = {v: s.bare for v, s in spread.items()}
            draft = draft.written(computed_bare(graph.closed, bare, ended, begin, _back))
    return draft


def _regroups(eqn: Equation) -> bool:
    """Whether an equation joins or splits axes of a variable."""
    if eqn.primitive is not _RESHAPE or eqn.params["dimensions"] is not None:
        return False
    (operand,), (out,) = eqn.invars, eqn.outvars
    if is_literal(operand) or not out.aval.size:
        return False
    return any(not _alike(group) for group in _groups(operand.aval.shape, out.aval.shape))


def _start(operand: Var, var: Var, other: Var) -> Regrouped:
    """One side of a reshape as the other side."""
    shape = tuple(other.aval.shape)
    return Regrouped(
        shape, _groups(shape, var.aval.shape), other,
        lambda read, bare: jax.lax.reshape(read(operand), shape), computed=False,
    )  # fmt: skip


def _groups(before: Sequence[int], after: Sequence[int]) -> Groups:
    """The smallest groups of neighbouring axes that hold the same numbers."""
    assert prod(before) == prod(after)
    found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        first, second = i, j
        i, j = min(i + 1, len(before)), min(j + 1, len(after))
        while (n := prod(before[first:i])) != (m := prod(after[second:j])):
            i, j = (i + 1, j) if n < m else (i, j + 1)
        found.append((tuple(range(first, i)), tuple(range(second, j))))
    return tuple(found)


def _alike(group: tuple[tuple[int, ...], tuple[int, ...]]) -> bool:
    return len(group[0]) == len(group[1]) == 1


def _followed(
    graph: Graph, starts: Mapping[Var, Regrouped]
) -> tuple[dict[Var, Regrouped], dict[int, Bare]]:
    """What is computed from values in another shape, number by number or in sums over all axes of
    a group; and how it ends."""
    spread, ended = dict(starts), dict[int, Bare]()
    for whole in graph.eqns:
        eqn = rectifier(whole) or whole
        operands = [a for a in eqn.invars if not is_literal(a) and a in spread]
        if not operands or len(eqn.outvars) != 1:
            continue
        (out,) = eqn.outvars
        value = next((spread[a] for a in operands if a.aval.shape == out.aval.shape), None)
        value = spread[operands[0]] if value is None else value
        found: Regrouped | None = None
        if family(eqn.primitive) in (*POINTWISE, Family.DETACH) or eqn.primitive is prim.SELECT:
            found = _number_by_number(eqn, value, spread, graph)
        elif eqn.primitive is prim.REDUCE_SUM or is_reduction(eqn):
            found = _reduced(eqn, value)
        elif eqn.primitive is _RESHAPE and eqn.params["dimensions"] is None:
            found = _reshaped(eqn, value)
        if out in starts and (found is None or found.shape != starts[out].shape):
            continue
        if found is not None and found.shape != out.aval.shape:
            spread.pop(out, None)  # it is in the order of equations
            spread[out] = found
        elif found is not None and found.computed:
            ended[id(whole)] = found.bare
    return spread, ended


def _number_by_number(
    eqn: Equation, value: Regrouped, spread: Mapping[Var, Regrouped], graph: Graph
) -> Regrouped | None:
    whole = eqn.outvars[0].aval.shape
    shapes = [_own_shape(atom.aval.shape, whole, value) for atom in eqn.invars]
    if None in shapes or prod(whole) != prod(value.shape):
        return None

    def computed(read: Read, bare: Read) -> Any:
        def operand(atom: Any, shape: Any) -> Any:
            own = None if is_literal(atom) else spread.get(atom)
            if own is not None and own.shape == value.shape:
                return bare(atom)
            if not shape:
                return read(atom)
            repeated = _repeated(atom, value, read, graph) if shape == value.shape else None
            return jax.lax.reshape(read(atom), shape) if repeated is None else repeated

        return compat.applied(eqn, *map(operand, eqn.invars, shapes))

    return value._replace(bare=computed, computed=True)


def _own_shape(
    shape: tuple[int, ...], whole: tuple[int, ...], value: Regrouped
) -> tuple[int, ...] | None:
    """The shape of an operand beside a value, where it is whole or of one along each group."""
    if not shape:
        return shape
    if len(shape) != len(whole):
        return None
    found = [1] * len(value.shape)
    for before, after in value.groups:
        own = [shape[i] for i in after]
        if own == [whole[i] for i in after]:
            for i in before:
                found[i] = value.shape[i]
        elif any(n > 1 for n in own):
            return None
    return tuple(found)


def _repeated(atom: Any, value: Regrouped, read: Read, graph: Graph) -> Any | None:
    """Another variable in the shape of a value, where it is repeated along the axes of groups."""
    eqn = None if is_literal(atom) else graph.maker.get(atom)
    if eqn is None or eqn.primitive is not prim.BROADCAST or is_literal(eqn.invars[0]):
        return None
    source, to = eqn.invars[0], [int(i) for i in eqn.params["broadcast_dimensions"]]
    lone = {after[0]: before[0] for before, after in value.groups if _alike((before, after))}
    wide = [k for k, n in enumerate(source.aval.shape) if n > 1]
    if any(to[k] not in lone for k in wide):
        return None
    narrow = jax.lax.squeeze(read(source), [k for k in range(len(to)) if k not in wide])
    return jax.lax.broadcast_in_dim(narrow, value.shape, [lone[to[k]] for k in wide])


def _reduced(eqn: Equation, value: Regrouped) -> Regrouped | None:
    """A sum, or the like, over all axes of some groups."""
    axes = {*eqn.params["axes"]}
    gone = [group for group in value.groups if axes & {*group[1]}]
    if any(not axes >= {*after} for _, after in gone) or all(map(_alike, gone)):
        return None
    own = sorted(i for before, _ in gone for i in before)
    (operand,) = eqn.invars
    shape = tuple(n for i, n in enumerate(value.shape) if i not in own)
    return value._replace(
        shape=shape,
        groups=_groups(shape, eqn.outvars[0].aval.shape),
        bare=lambda read, bare: compat.applied(eqn, bare(operand), axes=tuple(own)),
    )


def _reshaped(eqn: Equation, value: Regrouped) -> Regrouped:
    (operand,), (out,) = eqn.invars, eqn.outvars
    groups = _groups(value.shape, out.aval.shape)
    return value._replace(groups=groups, bare=lambda read, bare: bare(operand))


def _only_for_ends(
    graph: Graph,
    spread: Mapping[Var, Regrouped],
    ended: Mapping[int, Bare],
    starts: Collection[Var],
) -> dict[int, Bare]:
    """The ends whose values nobody else reads, of what is read in the other shape as well."""
    same = graph.once(value_numbers)
    readers: dict[Var, list[Equation | None]] = {}
    for var, own in graph.readers.items():
        live = [e for e in own if e is None or graph.is_live(e)]
        readers.setdefault(same.get(var, var), []).extend(live)

    def is_read_there(start: Regrouped) -> bool:
        own = readers.get(same.get(start.other, start.other), ())
        return any(e is None or not _regroups(e) for e in own)

    def is_alone(end: Equation, inside: Collection[Var]) -> bool:
        """Whether nobody else reads what an end is computed from."""
        joins, seen, todo = end.primitive is _RESHAPE, set[Var](), [end]
        while todo:
            for var in todo.pop().invars:
                if is_literal(var) or var not in spread or var in seen:
                    continue
                seen.add(var)
                if var in starts:
                    joins = joins or is_read_there(spread[var])
                elif var in inside:
                    todo.append(graph.maker[var])
                else:
                    return False
        return joins

    found = [e for e in graph.eqns if id(e) in ended]
    while True:
        inside = {e.outvars[0] for e in found}
        for out in reversed(spread):
            if out not in starts:
                goes = readers.get(same.get(out, out), ())
                if all(e is not None and e.outvars[0] in inside for e in goes):
                    inside.add(out)
        kept = [e for e in found if is_alone(e, inside)]
        if len(kept) == len(found):
            return {id(e): ended[id(e)] for e in kept}
        found = kept


def _back(var: Var, value: Any) -> Any:
    return jax.lax.reshape(value, var.aval.shape)
