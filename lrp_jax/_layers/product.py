"""Products and quotients of explained values: attention, gates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from .._analysis import compat, primitives as prim
from .._analysis.compat import Var, is_literal
from .._analysis.primitives import Family, family
from .arithmetic import halve, negate, weigh
from .reading import Reading
from .step import Backward, Step, Visit


@dataclass(frozen=True, eq=False, kw_only=True)
class Product(Step):
    """A product, or quotient, of explained values, each a factor as a whole.

    Attributes:
        powers: +1 or -1 for each of its inputs.
        gates: the inputs that gate, where some do and some do not.
    """

    powers: tuple[int, ...]
    gates: frozenset[int]

    @classmethod
    def recognise(cls, reading: Reading, var: Var) -> Self | None:
        eqn = reading.graph.maker[var]
        operands = reading.graph.explained_operands(eqn)
        contracts = family(eqn.primitive) is Family.CONTRACTION
        if len(operands) != 2 or not (contracts or eqn.primitive in (prim.MUL, prim.DIV)):
            return None
        own = [(eqn.invars[i], -1 if eqn.primitive is prim.DIV and i else 1) for i in operands]
        factors = own if contracts else (_factors(reading, var) or own)
        operands = [v for v, _ in factors]
        eqns, outside = reading.graph.between(var, operands)
        assert not outside, "a product is made of its factors"
        return reading.step(
            cls, eqns, operands, eqn.outvars, "MatMul" if contracts else "Product",
            powers=tuple(p for _, p in factors), gates=_gates(reading, operands),
        )  # fmt: skip

    def divisors(self) -> tuple[Var, ...]:
        return tuple(v for v, p in zip(self.inputs, self.powers, strict=False) if p < 0)

    def check(self, rule: Any) -> None:
        rule.shares(len(self.powers), self.gates)

    def backward(self, rule: Any, out: str) -> Backward:
        return Backward("C", self._shared, True)

    def _shared(self, visit: Visit) -> list[Any]:
        """The product with its own gradient, a share of it for each factor.

        A divisor gets its share with the sign of a factor.
        """
        shares = visit.rule.shares(len(self.powers), self.gates)
        if visit.place.held and len(self.inputs) == len(self.powers):
            shares = _of_the_others(shares, len(self.powers), visit.place.held)
        eqns, values = self.eqns, dict(
            zip((*self.inputs, *self.constants), (*visit.inputs, *visit.constants), strict=True)
        )  # fmt: skip
        operands = list(values)
        if len(self.inputs) < len(self.powers):  # one variable twice
            own, operands = compat.by_position(self.eqns[0])
            eqns = (own,)
            given = [a.val if is_literal(a) else values[a] for a in self.eqns[0].invars]
        else:
            given = [values[a] for a in operands]
        if shares is None:
            return visit.place.part(eqns, operands, self.outputs)(*given)
        common = _common(shares)
        for i, (power, share) in enumerate(zip(self.powers, shares, strict=True)):
            given[i] = weigh(given[i], share if common is None else float(share != 0))
            given[i] = negate(given[i]) if power < 0 else given[i]
        made = visit.place.part(eqns, operands, self.outputs)(*given)
        if common is None or common == 1:
            return made
        return [halve(y) if common == 0.5 else weigh(y, common) for y in made]


def _of_the_others(
    shares: Sequence[float] | None, count: int, held: frozenset[int]
) -> tuple[float, ...]:
    """The shares where some factors are constants, which take nothing and leave theirs behind."""
    if shares is None:
        return tuple(float(i not in held) for i in range(count))
    own = [0.0 if i in held else share for i, share in enumerate(shares)]
    if not sum(own):  # whoever would have taken all is held
        own = [float(i not in held) for i in range(count)]
    return tuple(share / (sum(own) or 1) for share in own)


def _common(shares: Sequence[Any]) -> Any | None:
    """The share of every factor that has one, where it is the same for all."""
    some = {share for share in shares if share != 0}
    return some.pop() if len(some) == 1 else None


def _factors(reading: Reading, var: Var) -> list[tuple[Var, int]] | None:
    """The factors of a product of products, each read in one place."""
    monomials = reading.monomials
    parts = monomials.parts(var, monomials.factors(var)[1])
    if parts is None or len(parts) < 2 or len({v for v, _ in parts}) < len(parts):
        return None
    return parts


def _gates(reading: Reading, operands: list[Var]) -> frozenset[int]:
    """The factors that look more like a gate than another one does."""
    ranks = [gate_rank(reading, v) for v in operands]
    return frozenset(i for i, rank in enumerate(ranks) if rank > min(ranks))


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
