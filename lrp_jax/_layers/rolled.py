"""Loops that were written out to be explained, and run as loops all the same.

A layer that lies on the border of a loop is recognised where the loop is written out (`torn`).
Where every rule inside is a share of the function's own derivative, as under AttnLRP, all of them
together are shares of the derivative of what was written: attention by blocks of keys costs the
memory of its author's own loop, and is compiled once for all turns.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax

from .._analysis import compat, primitives as prim
from .._analysis.compat import Equation, Var, is_literal
from .._analysis.graph import Graph, is_float
from .._analysis.primitives import Family, family
from .._analysis.splice import has_own_derivative, without_derivative
from .._analysis.unroll import with_between
from .arithmetic import hold, to_multiplier, weigh
from .checkpoints import Group, checkpointed, flat, one_step
from .step import Frame, Step, Visit

_MOVES = (Family.STRUCTURAL, Family.NEUTRAL)


class Operand(compat.Mark):
    """A scope that remembers that a loop that was written out reads what is made there.

    Attributes:
        number: of the result that is read.
        aval: its shape and type.
    """

    number: int
    aval: Any

    @classmethod
    def of(cls, maker: Equation, var: Var) -> "Operand":
        mark = cls("operand")
        mark.number, mark.aval = list(maker.outvars).index(var), var.aval
        return mark


class Written(compat.Mark):
    """A scope that remembers what was written where a loop was written out.

    Attributes:
        function: the piece, from values of `operands` to that of its result.
        operands: what it reads: the numbers of inputs of the whole, and the marks of others.
    """

    function: Callable[..., list[Any]]
    operands: tuple[int | Operand, ...]

    @classmethod
    def of(cls, function: Callable[..., list[Any]], operands: Sequence[int | Operand]) -> "Written":
        mark = cls("written")
        mark.function, mark.operands = function, tuple(operands)
        return mark


@dataclass(frozen=True, eq=False, kw_only=True)
class Rolled(Group):
    """The steps of a loop that was written out, and of the layer on its border.

    Attributes:
        function: what its author wrote, from values of `operands` to that of its output.
        operands: what that reads.
    """

    function: Callable[..., list[Any]]
    operands: tuple[Var, ...]

    holds_checkpoints = True

    def call(self, evaluation: Any, bodies: Any, values: Any, taps: Any) -> Any:
        return bodies[0](values, taps)

    def _rebuilt(self, visit: Visit) -> list[Any]:
        evaluation = visit.evaluation
        shares = self._shares(evaluation)
        if shares is None:
            return super()._rebuilt(visit)
        values = [
            weigh(evaluation.read(v, "C"), shares[v]) if v in shares
            else hold(evaluation.read(v, "")) if is_float(v)
            else evaluation.read(v, "")
            for v in self.operands
        ]  # fmt: skip
        outs = self.function(*values)
        arrives_as_relevance = evaluation.forms.at(self) == "R"
        return list(map(to_multiplier, outs)) if arrives_as_relevance else outs

    def _shares(self, evaluation: Any) -> Mapping[Var, float] | None:
        """The share of its own derivative that each input gets; None where a rule is no share, or
        where somebody looks inside."""
        program, (forms,) = evaluation.program, evaluation.forms.bodies[self]
        steps = list(flat(self.frames[0].steps))
        numbers = {program.indices[s] for s in steps if s in program.indices}
        looked_at = program.gradient or program.parameters or evaluation.taps_inside(self)
        if looked_at or numbers & (program.exposed | program.stopped):
            return None
        # Moves hand on relevance too, up to the layer that makes multipliers of it.
        demanded = [forms.of.get(v, "C") for s in steps if s.kind for v in s.inputs]
        if "R" in (*demanded, *forms.inputs) or any(program.held.get(s) for s in steps):
            return None
        shares: dict[Var, float] = dict.fromkeys(self.outputs, 1.0)
        for step in reversed(steps):
            if not step.inputs:
                continue
            entry = program.entries.get(step)
            own = step.gradient_shares(None if entry is None else evaluation.rules[entry])
            above = {shares[v] for v in step.outputs if v in shares}
            if own is None or len(above) != 1 or not all(isinstance(s, int | float) for s in own):
                return None
            (arriving,) = above
            for var, share in zip(step.inputs, own, strict=True):
                if shares.setdefault(var, arriving * share) != arriving * share:
                    return None
        return {v: shares[v] for v in self.inputs}


def remembered(
    graph: Graph, beside: Mapping[int, Collection[Var]]
) -> tuple[Any, dict[int, Equation], list[Written]]:
    """A function in which loops that are to be written out are marked as what they are.

    Args:
        graph: of the function.
        beside: by the `id` of a loop, what is made outside of it by layers on its border.

    Returns:
        The jaxpr, by the `id` of each loop the loop in it, and the marks.
    """
    written: dict[int, Written] = {}
    now = {id(eqn): eqn for eqn in graph.jaxpr.eqns}
    before = dict(now)
    for loop, made in beside.items():
        for eqn, mark in _marks(graph, before[loop], made):
            now[id(eqn)] = compat.marked(now[id(eqn)], mark)
            if isinstance(mark, Written):
                written[id(mark)] = mark
    jaxpr = compat.with_equations(graph.closed, list(now.values()), graph.jaxpr.outvars)
    return jaxpr, {loop: now[loop] for loop in beside}, list(written.values())


def _marks(
    graph: Graph, loop: Equation, made: Collection[Var]
) -> Iterator[tuple[Equation, compat.Mark]]:
    """What tells a loop, and the layer on its border, from the rest, where that can be."""
    border = [e for e in graph.eqns if e is loop or any(v in made for v in e.outvars)]
    region = {id(e): e for e in with_between(graph.eqns, border)}
    if any(e is not loop and family(e.primitive) is Family.CONTROL for e in region.values()):
        return
    if has_own_derivative(compat.open_jaxpr(loop.params["jaxpr"])):
        return
    needed = {**region}
    todo = [a for e in region.values() for a in e.invars]
    while todo:
        atom = todo.pop()
        maker = None if is_literal(atom) else graph.maker.get(atom)
        if maker is None or id(maker) in needed or family(maker.primitive) is Family.CONTROL:
            continue
        if atom in graph.live:  # moves that nobody else reads belong to the loop
            alone = all(id(reader) in region for reader in graph.readers[atom])
            if not alone or family(maker.primitive) not in _MOVES:
                continue
            region[id(maker)] = maker
        needed[id(maker)] = maker
        todo += maker.invars
    results = [
        v for e in region.values() for v in e.outvars
        if v in graph.live and any(id(r) not in region for r in graph.readers[v])
    ]  # fmt: skip
    if len(results) != 1:
        return
    eqns = [e for e in graph.eqns if id(e) in needed]
    inside = {v for e in eqns for v in e.outvars}
    constants = dict(zip(graph.jaxpr.constvars, graph.closed.consts, strict=True))
    outer = (a for e in eqns for a in e.invars if not is_literal(a) and a not in inside)
    read = [a for a in dict.fromkeys(outer) if a not in constants]
    makers = [graph.maker.get(a) for a in read]
    if any(e is not None and family(e.primitive) is Family.CONTROL for e in makers):
        return
    places: list[int | Operand] = []
    for var, maker in zip(read, makers, strict=True):
        if maker is None:
            places.append(list(graph.jaxpr.invars).index(var))
        else:
            place = Operand.of(maker, var)
            places.append(place)
            yield maker, place
    # Maxima only shift exponentials where products and softmaxes are all that there is.
    written = compat.part(graph.jaxpr, eqns, [*constants, *read], results)
    piece = without_derivative(written, prim.WINNERS)
    function = partial(jax.core.eval_jaxpr, compat.open_jaxpr(piece), piece.consts)
    mark = Written.of(partial(function, *constants.values()), places)
    for eqn in region.values():
        yield eqn, mark


def rolled(frame: Frame, written: Collection[Written]) -> Frame:
    """A frame with the steps of each loop that was written out as one step.

    Args:
        frame: the frame.
        written: the marks of loops that were written out in it: bodies inside have them too.
    """
    marks = (m for s in frame.steps for e in s.eqns for m in compat.marks_of(e, Written))
    own = {id(m) for m in written}
    for mark in {id(m): m for m in marks if id(m) in own}.values():
        frame = _with(frame, mark)
    return frame


def _with(frame: Frame, mark: Written) -> Frame:
    """A frame with the steps of a loop as one, if they can be told from the others."""
    members = [{any(m is mark for m in compat.marks(e)) for e in s.eqns} for s in frame.steps]
    places = [i for i, found in enumerate(members) if True in found]
    run = [frame.steps[i] for i in places]
    last, chosen = places[-1], set(places)
    before = [s for i, s in enumerate(frame.steps[:last]) if i not in chosen]
    after = list(frame.steps[last + 1 :])
    later = {v for s in after for v in (*s.inputs, *s.constants)}
    later |= {a for a in frame.outvars if not is_literal(a)}
    made = {v for s in run for v in s.outputs}
    read_between = {v for s in before for v in (*s.inputs, *s.constants)} & made
    operands = _operands(frame, before, mark)
    if any(len(members[i]) > 1 for i in places) or read_between or operands is None:
        return frame
    if any(s.inputs and type(s).gradient_shares is Step.gradient_shares for s in run):
        return frame
    step = one_step(
        Rolled, frame, run, later, checkpointed, function=mark.function, operands=operands
    )
    results = [v for v in step.outputs if v in frame.live]
    if step.outputs != tuple(results) or len(results) != 1 or not {*step.inputs} <= {*operands}:
        return frame
    others = tuple(v for v in operands if v not in {*step.inputs, *step.constants})
    step = replace(step, constants=(*step.constants, *others))
    return replace(frame, steps=(*before, step, *after))


def _operands(frame: Frame, steps: Iterable[Step], mark: Written) -> tuple[Var, ...] | None:
    """The variables that a loop reads, or None where one of them is no more."""
    marked = {id(m): e for s in steps for e in s.eqns for m in compat.marks_of(e, Operand)}
    found = []
    for place in mark.operands:
        if isinstance(place, int):
            found.append(frame.invars[place])
            continue
        maker = marked.get(id(place))
        outvars = () if maker is None else maker.outvars[place.number :][:1]
        if not outvars or outvars[0].aval != place.aval:
            return None
        found.append(outvars[0])
    return tuple(found)
