"""Which layers lie between a layer and the explained input."""

import functools
import operator
from collections.abc import Mapping, Sequence
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
