"""Products and quotients of two explained values: attention, gates."""

from dataclasses import dataclass
from typing import Any, Self

from .._analysis import compat, primitives as prim
from .._analysis.compat import Equation, Var, is_literal
from .._analysis.primitives import Family, family
from .arithmetic import halve, hold, negate
from .reading import Reading
from .step import Backward, Step, Visit


@dataclass(frozen=True, eq=False, kw_only=True)
class Product(Step):
    """A product, or quotient, of two explained values.

    Attributes:
        gate: the operand that gates, where one does.
    """

    gate: int | None

    @classmethod
    def recognise(cls, reading: Reading, var: Var) -> Self | None:
        eqn = reading.graph.maker[var]
        operands = reading.graph.explained_operands(eqn)
        contracts = family(eqn.primitive) is Family.CONTRACTION
        if len(operands) != 2 or not (contracts or eqn.primitive in (prim.MUL, prim.DIV)):
            return None
        factors = [eqn.invars[i] for i in operands]
        kind = "MatMul" if contracts else "Product"
        return reading.step(cls, [eqn], factors, eqn.outvars, kind, gate=_gate(reading, factors))

    def check(self, rule: Any) -> None:
        rule.shares(2, self.gate)

    def backward(self, rule: Any, out: str) -> Backward:
        return Backward("C", self._shared, True)

    def _shared(self, visit: Visit) -> list[Any]:
        (eqn,) = self.eqns
        values = dict(
            zip((*self.inputs, *self.constants), (*visit.inputs, *visit.constants), strict=True)
        )
        factors = [a.val if is_literal(a) else values[a] for a in eqn.invars]
        shares = visit.rule.shares(2, self.gate)
        if shares is None:
            return [_bind(eqn, factors)]
        factors = [hold(f) if share == 0 else f for f, share in zip(factors, shares, strict=True)]
        if eqn.primitive is prim.DIV:
            factors[1] = negate(factors[1])
        y = _bind(eqn, factors)
        return [halve(y) if shares == (0.5, 0.5) else y]


def _bind(eqn: Equation, factors: list[Any]) -> Any:
    return eqn.primitive.bind(*factors, **eqn.params)


def _gate(reading: Reading, operands: list[Var]) -> int | None:
    first, second = (gate_rank(reading, v) for v in operands)
    if first == second:
        return None
    return 0 if first > second else 1


def gate_rank(reading: Reading, var: Var) -> int:
    """How much a value looks like a gate: softmax > sigmoid > another activation > none."""
    for _ in range(64):
        known = reading.gate_of(var)
        if known is not None:
            return known
        eqn = reading.graph.maker[var]
        found = reading.found.get(var)
        if found is not None:
            if found.gate is not None:
                return found.gate
            var = found.root
            continue
        operands = reading.graph.explained_operands(eqn)
        if eqn.primitive is _SIGMOID:
            return 2
        is_link = reading.is_link(eqn)
        if var in reading.dominator and not is_link:
            inner, _ = reading.graph.between(var, [reading.dominator[var]])
            return 2 if inner[-1].primitive is _SIGMOID else 1
        moves = family(eqn.primitive) in (Family.STRUCTURAL, Family.NEUTRAL, Family.SUM)
        if not (moves or is_link) or not operands:
            return 0
        var = eqn.invars[operands[0]]
    return 0


_SIGMOID = compat.primitive("logistic")
