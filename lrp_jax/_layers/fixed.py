"""Contractions with constants that are no weights: resizes, filter banks, changes of colours."""

from dataclasses import dataclass
from typing import Self

from .._analysis.compat import Equation, Var
from .._analysis.primitives import Family, family
from .chains import Chain, is_mean_factor
from .contraction import Contraction, contracted
from .reading import Reading


@dataclass(frozen=True, eq=False, kw_only=True)
class FixedMap(Contraction):
    """A weighted sum of explained numbers whose weights nobody has learned: a merge."""

    takes_affine = False
    named_by_weights = False

    @classmethod
    def is_core(cls, reading: Reading, eqn: Equation) -> bool:
        operands = reading.graph.explained_operands(eqn)
        if family(eqn.primitive) is not Family.CONTRACTION or len(operands) != 1:
            return False
        return eqn.invars[1 - operands[0]] not in reading.weights

    @classmethod
    def recognise(cls, reading: Reading, var: Var) -> Self | None:
        tail = reading.tail(var)
        if tail is None or tail.core is None or tail.core.layer is not FixedMap:
            return None
        graph, core = reading.graph, tail.core.eqn
        if not all(is_mean_factor(graph, eqn) for eqn in tail.chain):
            return None
        (position,) = graph.explained_operands(core)
        operand = core.invars[position]
        before, after = Chain((), operand, operand), Chain(tuple(tail.chain), tail.start, var)
        parts = contracted(graph, before, core, position, after)
        return reading.step(cls, [core, *tail.chain], [operand], [var], "Merge", core, map=parts)
