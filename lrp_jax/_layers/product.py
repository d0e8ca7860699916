"""Products and quotients of explained values: attention, gates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from .._analysis import compat, primitives as prim
from .._analysis.compat import Equation, Var, is_literal
from .._analysis.factors import is_outer
from .._analysis.primitives import Family, family
from .._analysis.signs import looks_like
from .arithmetic import halve, negate, weigh
from .mixed_weights import mixing
from .reading import Reading
from .step import SOFTMAX, Backward, Step, Visit, Way, WeightedMean


@dataclass(frozen=True, eq=False, kw_only=True)
class Product(Step):
    """A product, or quotient, of explained values, each a factor as a whole.

    However it is nested, a product number by number has all its factors: (a * b) * c has three. A
    matrix product has two, as in the published rules of attention (Achtibat et al. 2024).

    Attributes:
        powers: +1 or -1 for each of its factors: its inputs, one of them twice in x @ x.
        gates: the factors that gate, where some do and some do not.
        softmax: of attention, the operand that is a softmax; the other one holds the values.
    """

    powers: tuple[int, ...]
    gates: frozenset[int]
    softmax: int | None = None

    @classmethod
    def is_core(cls, reading: Reading, eqn: Equation) -> bool:
        contracts = family(eqn.primitive) is Family.CONTRACTION and not is_outer(eqn)
        return contracts and len(reading.graph.explained_operands(eqn)) == 2

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
        called = "MatMul" if contracts else "Product"
        softmax = _softmax(reading, operands, eqns)
        return reading.step(
            cls, eqns, operands, eqn.outvars, called if softmax is None else "Attention",
            called=called, powers=tuple(p for _, p in factors),
            gates=_gates(reading, operands, eqns), softmax=softmax,
        )  # fmt: skip

    def divisors(self) -> tuple[Var, ...]:
        return tuple(v for v, p in zip(self.inputs, self.powers, strict=False) if p < 0)

    def unit_axis(self) -> int | None:
        contracts = family(self.eqns[-1].primitive) is Family.CONTRACTION
        return None if contracts else super().unit_axis()

    def weighted_mean(self) -> WeightedMean | None:
        if self.softmax is None:
            return None
        (eqn,) = self.eqns
        contracted, batch = prim.dot_numbers(eqn)
        free = [
            len(a.aval.shape) - len(c) - len(b)
            for a, c, b in zip(eqn.invars, contracted, batch, strict=True)
        ]
        start = len(batch[0]) + (free[0] if self.softmax == 0 else 0)
        features = range(start, start + free[1 - self.softmax])
        return WeightedMean(self.softmax, tuple(contracted[self.softmax]), features)

    def check(self, rule: Any) -> None:
        rule.shares(len(self.powers), self.gates)

    def backward(self, rule: Any, out: str) -> Backward:
        return Backward("C", self._shared, True)

    def gradient_shares(self, rule: Any) -> Sequence[Any] | None:
        alone = len(self.inputs) == len(self.powers) and min(self.powers) > 0
        if rule.way is Way.NOTHING or not alone:
            return None
        return rule.shares(len(self.powers), self.gates) or [1.0] * len(self.powers)

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


def _softmax(reading: Reading, operands: list[Var], eqns: Sequence[Equation]) -> int | None:
    """The operand of a matrix product that alone is a softmax."""
    if len(eqns) > 1 or eqns[0].primitive is not prim.DOT:
        return None
    softmaxes = [i for i, v in enumerate(operands) if gate_rank(reading, v) >= SOFTMAX]
    return softmaxes[0] if len(softmaxes) == 1 else None


def _gates(reading: Reading, operands: list[Var], eqns: Sequence[Equation]) -> frozenset[int]:
    """The factors that look more like a gate than another one does."""
    switched = _switched(reading, eqns)
    ranks = [max(gate_rank(reading, v), int(v in switched)) for v in operands]
    if family(eqns[-1].primitive) is Family.CONTRACTION and len(eqns) == 1:
        mixed = [mixing(reading, eqns[0], eqns[0].invars.index(v)) for v in operands]
        ranks = [rank if v is None else max(rank, gate_rank(reading, v))
                 for rank, v in zip(ranks, mixed, strict=True)]  # fmt: skip
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
        if var in reading.dominator:
            look, root = _look(reading, var)
            if look == "gate":
                return 2
            if look == "power":
                var = root
                continue
            if look:
                return 1
            if not is_link:
                inner, _ = reading.graph.between(var, [reading.dominator[var]])
                return 2 if inner[-1].primitive is _SIGMOID else 1
        adds = eqn.primitive in prim.SUMS
        if adds and len(operands) == 2:  # a sum gates where all that is added does
            position = reading.graph.position
            last, first = sorted(eqn.invars, key=lambda a: position[a], reverse=True)
            # In a residual network the stream is the longer way to what is rarely a gate.
            rank = gate_rank(reading, last)
            return min(rank, gate_rank(reading, first)) if rank else 0
        if not operands:
            return 0
        var = eqn.invars[operands[0]]
        if family(eqn.primitive) is Family.CONTRACTION and _is_learned(reading, eqn, operands):
            # Heads that are mixed: where softmaxes are constants, so is what is made of them alone.
            rank = gate_rank(reading, var) if len(operands) == 1 else 0
            return rank if rank == SOFTMAX else 0
        if not (is_link or _keeps_gates(eqn)):
            return 0
    return 0


def _is_learned(reading: Reading, eqn: Equation, operands: Sequence[int]) -> bool:
    """Whether a contraction is of more than one explained value and numbers of the code."""
    return len(operands) > 1 or eqn.invars[1 - operands[0]] in reading.weights


def _keeps_gates(eqn: Equation) -> bool:
    """Whether an equation makes gates of gates: moves, sums and products of them."""
    kinds = (Family.STRUCTURAL, Family.NEUTRAL, Family.SUM, Family.PRODUCT, Family.CONTRACTION)
    return family(eqn.primitive) in kinds


def _switched(reading: Reading, eqns: Sequence[Equation]) -> set[Var]:
    """Values by which a product is switched off, number by number: a b (b > 0) is a relu(b)."""
    graph, eqns = reading.graph, [*eqns]
    while graph.read_once(eqns[-1].outvars[0]):  # what scales the product too
        reader = next(e for e in graph.readers[eqns[-1].outvars[0]] if e and graph.is_live(e))
        if not (reading.is_link(reader) or reader.primitive is prim.SELECT):
            break
        eqns.append(reader)
    constants = {a for e in eqns for a in e.invars if not is_literal(a) and a not in graph.live}
    todo, found = [a for a in constants if a in graph.touched], set[Var]()
    while todo:
        eqn = graph.maker.get(todo.pop())
        kind = None if eqn is None else family(eqn.primitive)
        if eqn is not None and (kind is Family.NEUTRAL or kind is Family.COMPARISON):
            inputs = [a for a in eqn.invars if not is_literal(a) and a in graph.touched]
            found |= {a for a in inputs if a in graph.live}
            todo += [a for a in inputs if a not in graph.live]
    return found


def _look(reading: Reading, var: Var) -> tuple[str, Var]:
    """What the longest function of one value that ends at a variable looks like; and its root."""
    root, nonlinear = var, False
    while reading.gate_of(root) is None:
        eqn = reading.graph.maker[root]
        moves = eqn.primitive in (*_CUTS, *prim.SHAPE_ONLY)
        if root not in reading.dominator and not moves:
            break
        nonlinear = nonlinear or not (moves or reading.is_link(eqn))
        above = eqn.invars[0] if moves else reading.dominator[root]
        if reading.core(reading.chain_up(root)[1]) is not None:
            break
        root = above
    if not nonlinear:
        return "", root
    return looks_like(reading.graph.between(var, [root])[0], root, var), root


_CUTS = compat.primitives("slice rev")
_SIGMOID = compat.primitive("logistic")
