"""Checkpoints: what lies inside of one is computed again on the way back, layer by layer.

Their bodies were opened before layers were recognised (`_analysis.opening`), so a layer may lie on
both sides of a border; it is computed inside then. Steps of one checkpoint become one step again.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, TypeVar

import jax

from .._analysis import compat
from .._analysis.compat import Var, is_literal
from .._analysis.opening import Checkpointed
from .bodies import Body
from .step import Frame, Step


@dataclass(frozen=True, eq=False, kw_only=True)
class Group(Body):
    """Some steps of a frame as one."""

    holds_checkpoints: ClassVar[bool] = False  # it lies in those alone that hold all of it

    def arguments(self) -> Sequence[Any]:
        return self.frames[0].invars

    def results(self) -> Sequence[Any]:
        return self.frames[0].outvars


@dataclass(frozen=True, eq=False, kw_only=True)
class Checkpoint(Group):
    """`jax.checkpoint` around some steps.

    Attributes:
        options: those of `jax.checkpoint`.
    """

    options: dict[str, Any] = field(default_factory=dict)

    def call(self, evaluation: Any, bodies: Any, values: Any, taps: Any) -> Any:
        return jax.checkpoint(bodies[0], **self.options)(values, taps)


_Group = TypeVar("_Group", bound=Group)


def flat(steps: Iterable[Step]) -> Iterator[Step]:
    """Steps, with those of groups in the place of these."""
    for step in steps:
        if isinstance(step, Group):
            yield from flat(step.frames[0].steps)
        else:
            yield step


def mark_of(step: Step, depth: int = 0) -> Checkpointed | None:
    """The checkpoint that a step is computed in, inside of so many others."""
    around = [compat.marks_of(eqn, Checkpointed) for eqn in reversed(step.eqns)]
    if isinstance(step, Group) and step.holds_checkpoints:
        around = [min(around, key=len)]
    return next((marks[depth] for marks in around if len(marks) > depth), None)


def checkpointed(frame: Frame, depth: int = 0) -> Frame:
    """A frame with the steps of each checkpoint as one step."""
    steps = _without_strangers(frame.steps, depth)
    marked = [(mark_of(step, depth), step) for step in steps]
    if all(mark is None for mark, _ in marked):
        return frame
    runs = [
        (run[0][0], tuple(step for _, step in run))
        for _, group in itertools.groupby(marked, lambda pair: id(pair[0]))
        for run in [list(group)]
    ]
    read = _read_later(runs, frame.outvars)
    found: list[Step] = []
    for (mark, run), later in zip(runs, read, strict=True):
        if mark is None or not any(step.inputs for step in run):
            found += run
        else:
            inside = partial(checkpointed, depth=depth + 1)
            found.append(one_step(Checkpoint, frame, run, later, inside, options=mark.options))
    return replace(frame, steps=tuple(found))


def one_step(
    group: type[_Group],
    frame: Frame,
    run: Sequence[Step],
    later: set[Var],
    within: Callable[[Frame], Frame],
    **own: Any,
) -> _Group:
    """Some steps of a frame as one.

    Args:
        group: its family.
        frame: the frame.
        run: the steps.
        later: what is read after them.
        within: what becomes of the frame that they are.
        own: what is particular to the family.
    """
    made = dict.fromkeys(v for step in run for v in step.outputs)
    read = dict.fromkeys(v for step in run for v in (*step.inputs, *step.constants))
    outer = [v for v in read if v not in made]
    outputs = [v for v in made if v in later]
    eqns = tuple(eqn for step in run for eqn in step.eqns)
    jaxpr = compat.part(frame.jaxpr, eqns, outer, outputs)
    explained, wanted = ([v in frame.live for v in variables] for variables in (outer, outputs))
    inside = Frame(jaxpr, tuple(run), tuple(explained), tuple(wanted), frame.live, frame.reached)
    return group(
        eqns=eqns,
        inputs=tuple(v for v in outer if v in frame.live),
        constants=tuple(v for v in outer if v not in frame.live),
        outputs=tuple(outputs),
        position=max(step.position for step in run),
        frames=(within(inside),),
        **own,
    )


def _without_strangers(steps: Sequence[Step], depth: int) -> list[Step]:
    """The steps, constants from outside of a checkpoint before what is inside of it."""
    found: list[Step] = []
    for step in steps:
        where = len(found)
        if not step.inputs and mark_of(step, depth) is None:
            needed = set(step.constants)
            while where and mark_of(found[where - 1], depth) is not None:
                if needed & set(found[where - 1].outputs):
                    break
                where -= 1
        found.insert(where, step)
    return found


def _read_later(
    runs: Sequence[tuple[Any, Iterable[Step]]], outvars: Sequence[Any]
) -> list[set[Var]]:
    """What is read after each of some runs of steps."""
    later = {a for a in outvars if not is_literal(a)}
    found = []
    for _, run in reversed(runs):
        found.append(set(later))
        later.update(v for step in run for v in (*step.inputs, *step.constants))
    return found[::-1]
