"""Operations that move numbers without mixing them: JAX's own derivative routes relevance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from .._analysis import primitives as prim
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
