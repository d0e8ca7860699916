"""Operations that move numbers without mixing them: JAX's own derivative routes relevance."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from .._analysis import compat, primitives as prim
from .._analysis.compat import Var
from .._analysis.primitives import Family, family
from .reading import Reading
from .step import Step, UnsupportedOperation

_MOVES = (Family.STRUCTURAL, Family.WINNER, Family.NEUTRAL)


@dataclass(frozen=True, eq=False, kw_only=True)
class Move(Step):
    """Reshapes, slices, gathers, max pools (the winner takes all); and equations of constants."""

    @classmethod
    def recognise(cls, reading: Reading, var: Var) -> Self:
        """The step that moves numbers to `var`.

        Raises:
            UnsupportedOperation: for any other equation; no family knows it.
        """
        eqn = reading.graph.maker[var]
        if family(eqn.primitive) not in _MOVES:
            raise UnsupportedOperation(reading.refusal(eqn))
        inputs = [eqn.invars[i] for i in reading.graph.explained_operands(eqn)]
        kind = "MaxPool" if eqn.primitive is prim.POOL_MAX else ""
        return reading.step(cls, [eqn], inputs, eqn.outvars, kind)

    def gradient_shares(self, rule: Any) -> Sequence[Any] | None:
        wins = any(e.primitive in prim.WINNERS for e in self.eqns)
        return None if self.kind or wins else [1.0] * len(self.inputs)


def with_splits(steps: Sequence[Step]) -> list[Step]:
    """Steps in which slices that are all of a value are one split.

    The way back of a slice is padded to the whole value, and added to that of the others; that of a
    split puts all of them side by side.
    """
    found: dict[tuple[Var, int], list[tuple[int, int, Step]]] = {}
    for step in steps:
        cut = _cut(step)
        if cut is not None:
            axis, begin, end = cut
            found.setdefault((step.inputs[0], axis), []).append((begin, end, step))
    whole: dict[Step, Step] = {}
    gone: set[Step] = set()
    for (var, axis), cuts in found.items():
        cuts.sort(key=lambda cut: cut[:2])
        begins, ends, parts = zip(*cuts, strict=True)
        if len(parts) > 1 and [*begins, var.aval.shape[axis]] == [0, *ends]:
            first = min(parts, key=lambda step: step.position)
            whole[first] = _together(parts, first, axis)
            gone.update(parts)
    return [whole.get(step, step) for step in steps if step in whole or step not in gone]


def _cut(step: Step) -> tuple[int, int, int] | None:
    """The axis that a step takes a part of, and the ends of the part."""
    if not isinstance(step, Move) or len(step.eqns) != 1 or len(step.inputs) != 1:
        return None
    (eqn,) = step.eqns
    if eqn.primitive is not _SLICE or eqn.params["strides"] is not None:
        return None
    (before,), (after,) = ([v.aval.shape for v in vs] for vs in (eqn.invars, eqn.outvars))
    axes = [i for i, n in enumerate(before) if n != after[i]]
    if len(axes) != 1:
        return None
    (axis,) = axes
    return axis, eqn.params["start_indices"][axis], eqn.params["limit_indices"][axis]


def _together(parts: Sequence[Step], first: Step, axis: int) -> Step:
    outputs = [v for step in parts for v in step.outputs]
    split = first.eqns[0].replace(
        primitive=compat.primitive("split"),
        outvars=outputs,
        params={"sizes": tuple(v.aval.shape[axis] for v in outputs), "axis": axis},
    )
    return dataclasses.replace(first, eqns=(split,), outputs=tuple(outputs))


_SLICE = compat.primitive("slice")
