"""Who makes and who reads each variable of a flat jaxpr, and what depends on the input."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence, Set as AbstractSet
from typing import Any, TypeVar

from . import compat, ids, primitives as prim
from .compat import Equation, Var, is_literal
from .flow import Flow, casts_inside
from .ids import is_complex as is_complex, is_float as is_float
from .inside import Bodies, bodies_of, through
from .primitives import Family, family

T = TypeVar("T")


class Graph:
    """Who makes and who reads each variable of a flat jaxpr, and what depends on the input."""

    def __init__(self, closed_jaxpr: Any, explained: tuple[bool, ...], outputs: Any) -> None:
        self.closed = closed_jaxpr
        self.jaxpr = compat.open_jaxpr(closed_jaxpr)
        self.eqns = without_dead(self.jaxpr)
        self.maker: dict[Var, Equation] = {}
        self.position: dict[Var, int] = dict.fromkeys(
            [*self.jaxpr.constvars, *self.jaxpr.invars], -1
        )
        self.readers: dict[Var, list[Equation | None]] = {}
        for index, eqn in enumerate(self.eqns):
            for var in eqn.outvars:
                self.maker[var] = eqn
                self.position[var] = index
            for var in dict.fromkeys(a for a in eqn.invars if not is_literal(a)):
                self.readers.setdefault(var, []).append(eqn)
        for atom in self.jaxpr.outvars:
            if not is_literal(atom):
                self.readers.setdefault(atom, []).append(None)
        self.one_hots: dict[Var, ids.OneHot] = {}
        reached = self._reached(explained)
        self.reached = frozenset(reached)
        self.touched = self._touched(reached)
        self.outputs = tuple(
            (not is_literal(a)) and a in reached and (outputs is None or flag)
            for a, flag in zip(
                self.jaxpr.outvars, outputs or [True] * len(self.jaxpr.outvars), strict=True
            )
        )
        self._carriers: dict[int, list[int]] = {}
        self._explained: dict[int, tuple[Equation, list[int]]] = {}
        self._found: dict[Callable[[Graph], Any], Any] = {}
        self._rank: dict[Var, int] = {}

    def _reached(self, explained: tuple[bool, ...]) -> set[Var]:
        reached = {
            v
            for v, flag in zip(self.jaxpr.invars, explained, strict=True)
            if flag and (is_float(v) or ids.is_integer(v))
        }
        for eqn in self.eqns:
            if family(eqn.primitive) is Family.DETACH:
                continue
            positions = ids.carrying(eqn, reached, self.one_hots.keys())
            carriers = [eqn.invars[i] for i in positions]
            nothing = not any(a.aval.size for a in carriers)
            if not carriers or (nothing and any(v.aval.size for v in eqn.outvars)):
                continue  # a product of no factors is a constant
            bodies = bodies_of(eqn)
            if bodies is not None:
                _, flags = through(bodies, _flags(positions, eqn), _reaches)
                reached.update(v for v, flag in zip(eqn.outvars, flags, strict=True) if flag)
                continue
            reached.update(v for v in eqn.outvars if is_float(v))
            if any(map(ids.is_integer, carriers)):
                reached.update(v for v in eqn.outvars if ids.is_integer(v))
            self._find_one_hot(eqn, reached)
        return reached

    def _find_one_hot(self, eqn: Equation, reached: set[Var]) -> None:
        if not eqn.outvars:  # it only looks at values, as a print does
            return
        out, first = eqn.outvars[0], eqn.invars[0]
        hot = ids.one_hot(eqn, self.maker, reached)
        if hot is not None and ids.is_cast(self.readers.get(out, [])):
            self.one_hots[out] = hot
            reached.add(out)
        elif eqn.primitive is ids.CONVERT and not is_literal(first) and first in self.one_hots:
            found = self.one_hots[first]
            self.one_hots[out] = found._replace(eqns=(*found.eqns, eqn))

    def _touched(self, reached: set[Var]) -> set[Var]:
        """Everything computed from explained numbers, integers and predicates included; a mask
        made of explained integers, be they cast, is a constant."""
        casts = (e for e in self.eqns if e.primitive is ids.CONVERT)
        cast = {e.outvars[0] for e in casts if ids.is_integer(e.invars[0])}
        touched = {v for v in reached if is_float(v) and v not in cast}
        for eqn in self.eqns:
            if any(a in touched for a in eqn.invars if not is_literal(a)):
                touched.update(eqn.outvars)
        return touched

    @functools.cached_property
    def live(self) -> frozenset[Var]:
        """What lies on a way of relevance from an output that is asked for."""
        reached = self.reached
        wanted = {a for a, flag in zip(self.jaxpr.outvars, self.outputs, strict=True) if flag}
        for eqn in reversed(self.eqns):
            if any(v in wanted for v in eqn.outvars):
                carriers = ids.carrying(eqn, reached, self.one_hots.keys())
                bodies = bodies_of(eqn)
                if bodies is not None:
                    asked = [v in wanted for v in eqn.outvars]
                    needed = _needed(bodies, _flags(carriers, eqn), asked)
                    reading = range(len(eqn.invars))[bodies.inputs]
                    used = {i for i, flag in zip(reading, needed, strict=True) if flag}
                    self._carriers[id(eqn)] = carriers = [i for i in carriers if i in used]
                wanted.update(eqn.invars[i] for i in carriers)
        return frozenset(wanted & reached)

    def explained_operands(self, eqn: Equation) -> list[int]:
        """Positions of the operands that carry relevance."""
        live = self.live
        if id(eqn) not in self._explained:
            found = ids.carrying(eqn, live, self.one_hots.keys())
            self._explained[id(eqn)] = (eqn, self._carriers.get(id(eqn), found))
        return self._explained[id(eqn)][1]

    def once(self, compute: Callable[[Graph], T]) -> T:
        """What is computed of the graph alone, computed once."""
        if compute not in self._found:
            self._found[compute] = compute(self)
        found: T = self._found[compute]
        return found

    def explained_flags(self, eqn: Equation) -> list[bool]:
        """For each operand whether it carries relevance."""
        return _flags(self.explained_operands(eqn), eqn)

    def carried(self, eqn: Equation) -> list[tuple[bool, bool]]:
        """For each value that a loop carries on the way of relevance: whether it is explained when
        the first turn begins, and when any turn does."""
        bodies = bodies_of(eqn)
        if bodies is None or not self.is_live(eqn):
            return []
        given = self.explained_flags(eqn)
        inputs, _ = through(bodies, given, _reaches)
        needed = _needed(bodies, given, [v in self.live for v in eqn.outvars])
        rows = list(zip(given[bodies.inputs], inputs, needed, strict=True))[bodies.carry]
        return [(first, ever and used) for first, ever, used in rows]

    def rows_by_one_hot(self, eqn: Equation) -> ids.OneHot | None:
        """The one-hot vectors of which an equation makes rows of a table of constants."""
        operands = self.explained_operands(eqn) if eqn.primitive is prim.DOT else []
        hot = self.one_hots.get(eqn.invars[operands[0]]) if len(operands) == 1 else None
        if hot is None or tuple(prim.dot_numbers(eqn)[0][operands[0]]) != (hot.axis,):
            return None
        return hot

    def is_live(self, eqn: Equation) -> bool:
        return not self.live.isdisjoint(eqn.outvars)

    def read_once(self, var: Var) -> bool:
        """Whether exactly one equation reads the variable and it is no output.

        Equations of constants do not count: no relevance comes from them.
        """
        readers = [r for r in self.readers.get(var, ()) if r is None or self._carries(r, var)]
        return len(readers) == 1 and readers[0] is not None

    def _carries(self, eqn: Equation, var: Var) -> bool:
        """Whether relevance may come to a variable from an equation that reads it."""
        if not self.is_live(eqn):
            return False
        carriers = self._carriers.get(id(eqn))
        return carriers is None or any(eqn.invars[i] is var for i in carriers)

    def between(
        self, end: Var, starts: Iterable[Var], constants: bool = False
    ) -> tuple[list[Equation], set[Var]]:
        """The explained equations from `starts` to `end`, and explained variables met outside; with
        `constants` those of masks and other constants as well."""
        stop, seen, outside = set(starts), set(), set()
        todo, found = [end], {}
        while todo:
            var = todo.pop()
            if var in seen or var in stop:
                continue
            seen.add(var)
            eqn = self.maker.get(var)
            if eqn is None:
                outside.add(var)
                continue
            found[self.position[var]] = eqn
            read = range(len(eqn.invars)) if constants else self.explained_operands(eqn)
            todo.extend(eqn.invars[i] for i in read if not is_literal(eqn.invars[i]))
        return [found[i] for i in sorted(found)], outside


@functools.lru_cache(512)
def _inside(jaxpr: Any, explained: tuple[bool, ...], outputs: tuple[bool, ...] | None) -> Graph:
    return Graph(jaxpr, explained, outputs)


def _flags(positions: Sequence[int], eqn: Equation) -> list[bool]:
    return [i in positions for i in range(len(eqn.invars))]


def _reaches(jaxpr: Any, explained: Sequence[bool]) -> Sequence[bool]:
    """Which outputs of a body relevance reaches from its explained inputs."""
    outputs = _inside(jaxpr, tuple(explained), None).outputs
    if not casts_inside(jaxpr):
        return outputs
    known = _flow(jaxpr, explained).reached
    pairs = zip(jaxpr.outvars, outputs, strict=True)
    return [flag or (not is_literal(a) and a in known) for a, flag in pairs]


def _flow(jaxpr: Any, explained: Sequence[bool]) -> Flow:
    """What depends on the explained inputs of a body by floats, or by integers made of them."""
    given = {v for v, flag in zip(jaxpr.invars, explained, strict=True) if flag and is_float(v)}
    return Flow(given).follow(jaxpr.eqns)


def _live(jaxpr: Any, explained: Sequence[bool], outputs: Sequence[bool]) -> AbstractSet[Var]:
    """What of a body relevance comes to from the outputs that are asked for."""
    live = _inside(jaxpr, tuple(explained), tuple(outputs)).live
    if not casts_inside(jaxpr):
        return live
    flags = zip(jaxpr.outvars, outputs, strict=True)
    wanted = {a for a, flag in flags if flag and not is_literal(a) and is_float(a)}
    return live | _flow(jaxpr, explained).live(jaxpr.eqns, wanted)


def _needed(bodies: Bodies, explained: Sequence[bool], wanted: Sequence[bool]) -> list[bool]:
    """Which inputs of bodies relevance comes to from the results that are asked for."""
    inputs, _ = through(bodies, explained, _reaches)
    wanted = list(wanted)
    while True:
        live = [_live(body, inputs, wanted) for body in bodies.jaxprs]
        needed = [
            any(v in found for found, v in zip(live, column, strict=True))
            for column in zip(*(body.invars for body in bodies.jaxprs), strict=True)
        ]
        turned = needed[bodies.carry]
        grown = [a or b for a, b in zip(wanted, turned, strict=False)] + wanted[len(turned) :]
        if grown == wanted:
            return needed
        wanted = grown


def without_dead(jaxpr: Any) -> list[Equation]:
    """The equations that an output depends on, or that have an effect."""
    wanted = {a for a in jaxpr.outvars if not is_literal(a)}
    kept = []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or any(v in wanted for v in eqn.outvars):
            kept.append(eqn)
            wanted.update(a for a in eqn.invars if not is_literal(a))
    return kept[::-1]
