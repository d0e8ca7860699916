"""Along what the axes around every layer run: examples, positions, features."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from .._analysis.axes import Axes, Axis, made_by, of_constant, of_input
from .._analysis.compat import Equation, Var, is_literal
from .._analysis.graph import is_float
from .step import Frame, Step


class Around(NamedTuple):
    """What is known at a layer.

    Attributes:
        inputs: the axes of its explained inputs.
        output: the axes of its output.
        loops: for each loop around it what its turns run along, None where they are layers: where
            only weights differ from turn to turn.
    """

    inputs: tuple[tuple[Axis, ...], ...]
    output: tuple[Axis, ...]
    loops: tuple[Axis | None, ...]


def along(frame: Frame, explained: Sequence[bool]) -> dict[Step, Around]:
    """What is known at every layer of an analysed function.

    Args:
        frame: the function.
        explained: which inputs are explained.
    """
    found: dict[Step, Around] = {}
    given = [
        of_input(v.aval.shape, is_float(v)) if flag else of_constant(v.aval.shape)
        for v, flag in zip(frame.invars, explained, strict=True)
    ]
    _walk(frame, given, (), found)
    return found


def _walk(
    frame: Frame,
    inputs: Sequence[Axes],
    loops: tuple[Axis | None, ...],
    found: dict[Step, Around],
) -> list[Axes]:
    known: dict[Var, Axes] = dict(zip(frame.invars, inputs, strict=True))

    def read(atom: Any) -> Axes:
        if is_literal(atom) or atom not in known:
            return of_constant(getattr(atom.aval, "shape", ()))
        return known[atom]

    def make(eqn: Equation) -> None:
        known.update(zip(eqn.outvars, made_by(eqn, list(map(read, eqn.invars))), strict=True))

    for step in frame.steps:
        if step.frames:
            known.update(_through(step, list(map(read, step.arguments())), loops, found))
            continue
        for eqn in step.eqns:
            make(eqn)
        if step.kind:
            explained = tuple(read(v).axes for v in step.inputs)
            found[step] = Around(explained, read(step.outputs[0]).axes, loops)
    return list(map(read, frame.outvars))


def _through(
    step: Step, operands: list[Axes], loops: tuple[Axis | None, ...], found: dict[Step, Around]
) -> dict[Var, Axes]:
    """The axes of what a step with bodies makes."""
    turns: list[Axis] = []

    def inside(frame: Frame, given: list[Axes]) -> list[Axes]:
        fitted = []
        for var, axes in zip(frame.invars, given, strict=True):
            rank = len(var.aval.shape)
            if len(axes.axes) > rank and axes.reached:  # one slice for each turn
                turns.append(axes.axes[0])
            fitted.append(axes._replace(axes=axes.axes[len(axes.axes) - rank :]))
        own = ((turns[0] if turns else None),) if step.turns else ()
        return _walk(frame, fitted, (*loops, *own), found)

    made = step.follow(operands, inside)
    results = {}
    for var, axes in zip(step.results(), made, strict=True):
        shape = getattr(var.aval, "shape", ())
        if len(axes.axes) < len(shape):  # one for each turn
            of_constants = of_constant(shape[:1]).axes[0]
            axes = axes._replace(axes=(turns[0] if turns else of_constants, *axes.axes))
        results[var] = axes
    return results
