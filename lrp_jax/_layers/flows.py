"""Which layers lie between a layer and the explained input, which on every way to the output, and
what is held on the way."""

import functools
import operator
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from .._analysis.compat import Var, is_literal
from .step import Frame, Step


class Flow(NamedTuple):
    """The layers between a variable and the explained input, the last of them (-1: none), and
    those between it and the input in the first turns of the loops around it."""

    met: frozenset[int] = frozenset()
    last: frozenset[int] = frozenset()
    early: frozenset[int] | None = None

    def __or__(self, other: "Flow") -> "Flow":
        early = other.early if self.early is None else self.early
        return Flow(self.met | other.met, self.last | other.last, early)


def flow_to_layers(frame: Frame, indices: Mapping[Step, int]) -> list[Flow]:
    """What reaches each layer; of those in a loop, what it makes in an earlier turn too."""
    reached = [Flow()] * len(indices)
    _flow_frame(frame, [Flow(last=frozenset({-1}))] * len(frame.invars), indices, reached)
    return reached


def _flow_frame(
    frame: Frame, inputs: Sequence[Flow], indices: Mapping[Step, int], reached: list[Flow]
) -> list[Flow]:
    passed: dict[Var, Flow] = dict(zip(frame.invars, inputs, strict=True))

    def read(atom: Any) -> Flow:
        return Flow() if is_literal(atom) or atom not in frame.live else passed.get(atom, Flow())

    for step in frame.steps:
        if step.frames:
            outs = step.follow(
                list(map(read, step.arguments())),
                lambda f, ins: _flow_frame(f, ins, indices, reached),
            )
            passed.update(zip(step.results(), outs, strict=True))
            continue
        flow = functools.reduce(operator.or_, map(read, step.inputs), Flow())
        index = indices.get(step)
        if index is not None:
            own = frozenset({index})
            reached[index] |= flow._replace(early=flow.met)
            flow = Flow(flow.met | own, own)
        for var in step.outputs:
            passed[var] = flow
    return [read(atom) for atom in frame.outvars]


class Passed(NamedTuple):
    """The layers on every way to a variable; None where no way leads there."""

    all: frozenset[int] | None = None

    def __or__(self, other: "Passed") -> "Passed":
        if self.all is None or other.all is None:
            return other if self.all is None else self
        return Passed(self.all & other.all)


def always_passed(frame: Frame, indices: Mapping[Step, int]) -> frozenset[int]:
    """The layers that every way from the explained input to the output passes.

    Args:
        frame: the analysed function.
        indices: a number for each layer.
    """
    start = [Passed(frozenset()) if flag else Passed() for flag in frame.explained]
    ends = _pass_frame(frame, start, indices)
    return functools.reduce(operator.or_, ends, Passed()).all or frozenset()


def _pass_frame(
    frame: Frame, inputs: Sequence[Passed], indices: Mapping[Step, int]
) -> list[Passed]:
    passed: dict[Var, Passed] = dict(zip(frame.invars, inputs, strict=True))

    def read(atom: Any) -> Passed:
        return Passed() if is_literal(atom) or atom not in frame.live else passed[atom]

    for step in frame.steps:
        if step.frames:
            operands = list(map(read, step.arguments()))
            outs = step.follow(operands, lambda f, ins: _pass_frame(f, ins, indices))
            passed.update(zip(step.results(), outs, strict=True))
            continue
        met = functools.reduce(operator.or_, map(read, step.inputs), Passed())
        if step in indices and met.all is not None:
            met = Passed(met.all | {indices[step]})
        passed.update(dict.fromkeys(step.outputs, met))
    return [read(atom) for atom in frame.outvars]


def held_inputs(frame: Frame, held: Collection[Step]) -> dict[Step, frozenset[int]]:
    """The inputs of each step that are constants of the explanation, by their positions.

    Args:
        frame: the analysed function.
        held: the layers whose rule makes a constant of what they make.

    Returns:
        Nothing for steps none of whose inputs are constants.
    """
    found: dict[Step, frozenset[int]] = {}
    if held:
        _carry(frame, frame.explained, held, found)
    return {step: positions for step, positions in found.items() if positions}


def _carry(
    frame: Frame,
    inputs: Sequence[bool],
    held: Collection[Step],
    found: dict[Step, frozenset[int]],
) -> list[bool]:
    """Which outputs carry relevance on to the explained input, given which inputs do."""
    carries: dict[Var, bool] = dict(zip(frame.invars, inputs, strict=True))

    def read(atom: Any) -> bool:
        return not is_literal(atom) and atom in frame.live and carries.get(atom, False)

    for step in frame.steps:
        if step.frames:
            outs = step.follow(
                list(map(read, step.arguments())), lambda f, ins: _carry(f, ins, held, found)
            )
            carries.update(zip(step.results(), outs, strict=True))
            continue
        own = list(map(read, step.inputs))
        constants = frozenset(i for i, flag in enumerate(own) if not flag)
        # A later turn of a loop may bring relevance where the first one brought none.
        found[step] = found.get(step, constants) & constants
        carries.update(dict.fromkeys(step.outputs, any(own) and step not in held))
    return [read(atom) for atom in frame.outvars]
