"""Layers that the border of a loop or a branch would tear apart.

Loops and branches are written out once, for a look only: where a layer lies on both sides of a
border, or a turn in its place is read as other layers than the turn by itself, the function is
written in another way. A loop is unrolled (a map, whose turns are examples, is one batch), and a
branch computes what stands beside it.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .._analysis import compat, primitives as prim
from .._analysis.compat import Equation, Var
from .._analysis.flow import casts_inside
from .._analysis.graph import Graph
from .._analysis.inside import bodies_of
from .._analysis.splice import splice
from .._analysis.unroll import (
    Beside,
    Inside,
    Standing,
    entered,
    for_a_look,
    is_map,
    look,
    own_body,
    with_neighbours,
    written_out,
)
from .._layers.checkpoints import flat
from .._layers.rolled import Written, remembered
from .._layers.step import Frame, Step

MOST_TURNS = 64
"""Loops of so many turns are unrolled where a layer lies on the border of a turn."""

Cover = Callable[[Any], Iterable[Step]]
"""The layers of an equal function, bodies unread."""


class Rewritten(NamedTuple):
    """An equal function that tears fewer layers.

    Attributes:
        jaxpr: the function; None where there is nothing to do, or nothing that can be done.
        torn: the lines of loops and branches that tear layers, where it stays as it is.
        written: the marks of loops that are written out there.
    """

    jaxpr: Any | None
    torn: tuple[str, ...] = ()
    written: tuple[Written, ...] = ()


def mended(
    graph: Graph, steps: Sequence[Step], cover: Cover, calls: Sequence[str], unroll: bool = False
) -> Rewritten:
    """The function of a graph without the borders that tear layers.

    Args:
        graph: of the function.
        steps: its steps, bodies read by themselves.
        cover: of a function with the same inputs.
        calls: globs of the names of called functions that stay whole.
        unroll: whether turns are different layers for another reason.
    """
    frames = {id(s.eqns[0]): s.frames for s in steps if s.frames}
    bodies = [e for e in graph.eqns if e.primitive in (prim.SCAN, prim.COND) and id(e) in frames]
    if not bodies:
        return Rewritten(None)
    makers = {tuple(eqn.outvars): eqn for eqn in bodies}
    torn: dict[tuple[Var, ...], set[Var]] = {}
    if unroll:
        torn = {tuple(e.outvars): set() for e in bodies if _is_short(e) and not is_map(e)}
    for number in range(max(map(_branches, bodies))):
        inside = {id(e): _mended(e, frames[id(e)], number) for e in bodies}
        looks = {id(e): for_a_look(e, calls, number, inside[id(e)]) for e in bodies}
        seen = list(cover(look(graph.closed, looks)))
        across = [_across(seen, makers)]
        nested = {i: entered(body, calls, number) for i, body in inside.items() if body is not None}
        if nested:  # a layer may lie on two borders, one inside of the other
            looks |= {
                id(e): for_a_look(e, calls, number, nested[id(e)])
                for e in bodies
                if id(e) in nested
            }
            across.append(_across(cover(look(graph.closed, looks)), makers))
        for outvars, beside in (pair for found in across for pair in found.items()):
            torn.setdefault(outvars, set()).update(beside)
        for eqn in bodies:
            if tuple(eqn.outvars) in torn or not _reads_otherwise(eqn, graph, steps, seen, number):
                continue
            loop = eqn.primitive is prim.SCAN
            torn[tuple(eqn.outvars)] = set() if loop else _made_before(eqn, steps)
        for outvars, beside in _read_otherwise_behind(seen, steps).items():
            if outvars in makers:
                torn.setdefault(outvars, beside)
    short = {id(e): made for e, made in ((makers[v], torn[v]) for v in torn) if _is_short(e)}
    lines = tuple(dict.fromkeys(compat.source_line(makers[outvars]) for outvars in torn))
    if short:
        jaxpr, loops, written = remembered(graph, short)
        unrolled = {id(eqn): written_out(eqn, calls) for eqn in loops.values()}
        return Rewritten(splice(jaxpr, unrolled), lines, tuple(written))
    for outvars, beside in torn.items():
        eqn = makers[outvars]
        if eqn.primitive is prim.COND and beside:
            found = with_neighbours(graph.closed, eqn, beside, calls)
            if found is not None:
                return Rewritten(found, lines)
    return Rewritten(None, lines)


def torn_layers(frame: Frame) -> list[str]:
    """What to warn of: borders that tear layers still, of the bodies inside too."""
    own = [
        f"a layer lies on the border of the loop or branch at {line} and is explained in two "
        "pieces, other than the same code without the border. Move the border; loops of up to "
        f"{MOST_TURNS} turns are unrolled there."
        for line in frame.torn
    ]
    inside = (text for step in frame.steps for body in step.frames for text in torn_layers(body))
    return list(dict.fromkeys([*own, *inside]))


def _is_short(eqn: Equation) -> bool:
    """Whether an equation is a loop that may be written out."""
    return eqn.primitive is prim.SCAN and (is_map(eqn) or eqn.params["length"] <= MOST_TURNS)


def _mended(eqn: Equation, frames: Sequence[Frame], number: int) -> Any | None:
    """What a turn of a loop, or a branch, was written as, where it has loops or branches, or
    integers that carry relevance."""
    frame = frames[min(number, len(frames) - 1) if eqn.primitive is prim.COND else 0]
    body = compat.open_jaxpr(own_body(eqn, number))
    return frame.jaxpr if _has_bodies(body) or casts_inside(body) else None


def _branches(eqn: Equation) -> int:
    """How many branches an equation has, or one inside of it: 1 where there are none."""
    found = bodies_of(eqn)
    jaxprs = [] if found is None else found.jaxprs
    own = len(jaxprs) if eqn.primitive is prim.COND else 1
    return max(own, *(_branches(e) for j in jaxprs for e in j.eqns), 1)


def _has_bodies(jaxpr: Any) -> bool:
    """Whether a body has loops or branches, which are written out by themselves."""
    for inner in jaxpr.eqns:
        found = bodies_of(inner)
        is_call = compat.plain_call(inner) is not None
        if found is not None and (not is_call or any(map(_has_bodies, found.jaxprs))):
            return True
    return False


def _inside(eqn: Equation) -> Inside | None:
    return next(iter(compat.marks_of(eqn, Inside)), None)


def _across(
    steps: Iterable[Step], makers: Mapping[tuple[Var, ...], Equation]
) -> dict[tuple[Var, ...], set[Var]]:
    """What lies on borders: by the results of a body, what is made outside by layers of it. Where
    that is another branch, the earlier one is made in the later one.

    Args:
        steps: the layers.
        makers: the bodies by their results, in order.
    """
    order = {outvars: i for i, outvars in enumerate(makers)}
    found: dict[tuple[Var, ...], set[Var]] = {}
    for step in steps:
        marks = [compat.marks_of(e, Standing) for e in step.eqns]
        inside = {id(m): m for ms in marks for m in ms if isinstance(m, Inside)}
        outside = [m for ms in marks for m in ms if isinstance(m, Beside)]
        if not step.kind or len(inside) + bool(outside) < 2:
            continue
        for mark in inside.values():
            made = {v for m in outside for v in m.outvars}
            earlier = (m for m in inside.values() if order[m.outvars] < order[mark.outvars])
            made.update(v for m in earlier for v in m.outvars)
            found.setdefault(mark.outvars, set()).update(made)
    return found


def _reads_otherwise(
    eqn: Equation, graph: Graph, steps: Sequence[Step], seen: Sequence[Step], number: int
) -> bool:
    """Whether turns of a loop, or branch `number`, are in their place other layers than by
    themselves: what is added to a part of a layer is its bias."""
    frames = next(s.frames for s in steps if s.frames and s.eqns[0] is eqn)
    if eqn.primitive is prim.SCAN and number:
        return False
    body = frames[min(number, len(frames) - 1)]
    if eqn.primitive is prim.COND or is_map(eqn):
        return _kinds(_standing(seen, eqn, number)) != _kinds(body.steps)
    explained = (a for a, flag in zip(eqn.invars, body.explained, strict=True) if flag)
    whole = all(not compat.is_literal(a) and a in graph.live for a in explained)
    expected = _told(body.steps)
    return any(_told(_standing(seen, eqn, turn)) != expected for turn in ([0, 1] if whole else [1]))


def _standing(seen: Sequence[Step], eqn: Equation, number: int) -> list[Step]:
    """The layers that end in a turn or a branch that is written out."""
    marked = ((step, _inside(step.eqns[-1])) for step in seen)
    place = tuple(eqn.outvars), number
    return [s for s, mark in marked if mark and (mark.outvars, mark.number) == place]


def _kinds(steps: Iterable[Step]) -> list[Any]:
    return [(type(step), step.kind) for step in flat(steps) if step.kind]


def _made_before(eqn: Equation, steps: Sequence[Step]) -> set[Var]:
    """What the layers in front of a branch make, and what moves it."""
    makers = {v: step for step in steps if not step.frames for v in step.outputs}
    found: set[Var] = set()
    todo = [a for a in eqn.invars if not compat.is_literal(a)]
    while todo:
        step = makers.get(todo.pop())
        if step is not None:
            found.update(v for e in step.eqns for v in e.outvars)
            todo += [] if step.kind else step.inputs
    return found


def _read_otherwise_behind(
    seen: Sequence[Step], steps: Sequence[Step]
) -> dict[tuple[Var, ...], set[Var]]:
    """By their results the bodies behind which stand other layers than where they are written out,
    and what those make."""
    makers = {v: step for step in steps for e in step.eqns for v in e.outvars}
    found: dict[tuple[Var, ...], set[Var]] = {}
    for step in seen:
        marks = () if _inside(step.eqns[-1]) else compat.marks_of(step.eqns[-1], Beside)
        own = makers.get(marks[0].outvars[0]) if marks else None
        if own is None or not step.kind or _kinds([own]) == _kinds([step]):
            continue
        todo = list(own.inputs)
        while todo:
            above = makers.get(todo.pop())
            if above is not None and above.frames:
                made = found.setdefault(tuple(above.eqns[0].outvars), set())
                made.update(v for e in own.eqns for v in e.outvars)
            elif above is not None and not above.kind:
                todo += above.inputs
    return found


def _told(steps: Iterable[Step]) -> list[Any]:
    """What tells layers apart, in order: all that is known of them but where they stand."""
    return [
        (
            type(step),
            *(
                (f.name, getattr(step, f.name))
                for f in dataclasses.fields(step)
                if f.name not in _OF_THE_PLACE and isinstance(getattr(step, f.name), _PLAIN)
            ),
        )
        for step in flat(steps)
        if step.kind
    ]


_PLAIN = (int, str, bool, frozenset, type(None))
_OF_THE_PLACE = {"position", "name", "source", "nonnegative", "before_relu"}
