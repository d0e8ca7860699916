"""Sums of products of exponentials: what softmaxes and weighted means are made of.

In a `Term`, exp(a + b - c) is kept as its exponent and exp(log y) is y, and what carries no bound
label of a sum stands before it; so a shift by any maximum cancels.
"""

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from . import compat, primitives as prim
from .compat import Equation, Var, is_literal
from .exponential_terms import Term, collected, negated
from .graph import Graph
from .monomials import (
    Factor,
    Index,
    Monomials,
    constant,
    joined,
    link,
    masked_by,
    number_of,
    power_of,
    product_operands,
    through,
)
from .parts import part_of_contraction
from .totals import Total, totals

_EXP2, _POW, _EXPM1 = (compat.primitive(name) for name in ("exp2", "pow", "expm1"))
_LOGARITHMS = {prim.LOG: math.e, compat.primitive("log2"): 2.0}
"""Their bases."""
_EQUAL, _UNEQUAL = compat.primitive("eq"), compat.primitive("ne")
_DEEPEST, _MOST_TERMS, _MOST_WORK = 160, 64, 1 << 15
_LEAST = -700.0
"""The exponential of less is zero in float64."""


class Exponentials:
    """The variables of a graph as sums of products of exponentials.

    Args:
        monomials: the graph's products.
    """

    def __init__(self, monomials: Monomials) -> None:
        self.monomials, self.graph = monomials, monomials.graph
        self.totals = totals(self.graph, monomials.same)
        self.inside, self.normalised = _exponentials(self.graph, monomials.whole, self.totals)
        self.settled: set[Var] = set()
        self.named: list[tuple[Factor, Term]] = []
        self._fresh = itertools.count(-1, -1)
        self._depth = self._work = 0

    @contextlib.contextmanager
    def nothing_settled(self) -> Iterator[None]:
        """Look into what is known to be a softmax, too."""
        before = self.settled
        self.settled = set()
        yield
        self.settled |= before

    def rep(self, atom: Any) -> Any:
        """The first variable that is computed in the same way."""
        return atom if is_literal(atom) else self.monomials.same.get(atom, atom)

    def terms(self, atom: Any, index: Index, anew: bool = False) -> list[Term]:
        """A variable as a sum of terms, opened as far as exponentials are inside; `anew` also where
        it is settled what it is."""
        number = constant(self.graph, atom)
        if number is not None:
            return [Term(number)]
        var = self.rep(atom)
        eqn = self.graph.maker.get(var)
        opaque = [Term(powers={Factor(var, index): 1})]
        if eqn is None or (var in self.settled and not anew) or self._depth > _DEEPEST:
            return opaque
        axes = link(eqn)
        if axes is not None:
            return self.terms(eqn.invars[0], through(eqn.invars[0], axes, index), anew)
        if var not in self.graph.live and eqn.primitive is prim.EXP:
            return [Term(exponent=self.unlinked({Factor(self.rep(eqn.invars[0]), index): 1.0}))]
        if (whole := _but_nan(eqn, self.graph)) is not None:
            return self.terms(whole, through(whole, None, index))
        if var not in self.inside:
            return opaque
        self._work = self._work + 1 if self._depth else 0
        if self._work > _MOST_WORK:
            return opaque
        self._depth += 1
        try:
            found = self._opened(eqn, index)
        finally:
            self._depth -= 1
        return opaque if found is None or len(found) > _MOST_TERMS else found

    def _opened(self, eqn: Equation, index: Index) -> list[Term] | None:
        primitive, invars = eqn.primitive, eqn.invars
        if (total := self.totals.get(eqn.outvars[0])) is not None:
            return self._total(total, index)
        if primitive is _EXPM1:
            return [self.exponent(invars[0], through(invars[0], None, index)), Term(-1.0)]
        base = _base_of(eqn, self.graph)
        if base is not None:
            term = self.exponent(invars[-1], through(invars[-1], None, index))
            raised = term.raised(math.log(base))
            return None if raised is None else [raised]
        if primitive in prim.SUMS:
            first, second = (self.terms(a, through(a, None, index)) for a in invars)
            both = first + (second if primitive in prim.ADD else negated(second))
            return [term for term in collected(both) if term.number] or [Term(0.0)]
        if primitive is prim.REDUCE_SUM:
            inner, bound = self.summed(eqn, index)
            return [
                Term(t.number, t.powers, t.exponent, t.bound | bound)
                for t in self.terms(invars[0], inner)
            ]
        if primitive is prim.DOT:
            return self._contracted(eqn, eqn.invars, index)
        if (part := part_of_contraction(eqn, self.graph)) is not None:
            return self._contracted(*part, index)
        if primitive is prim.ABS:
            return self.terms(invars[0], index)
        if primitive in _LOGARITHMS:
            return None
        power = power_of(eqn)
        if power is not None:
            return self._raised(invars[0], through(invars[0], None, index), power)
        operands = product_operands(eqn, self.graph)
        if operands is None:
            return None
        result = [Term(number_of(eqn))]
        for operand, axes, power in operands:
            if isinstance(operand, Factor):
                mask = self.monomials.mask(operand, index)
                parts = [Term(powers={mask: 1})]
            else:
                inner = through(operand, axes, index)
                parts = self.terms(operand, inner)
                if power < 0 and (len(parts) > 1 or parts[0].bound):
                    parts = [Term(powers={Factor(self.rep(operand), inner): 1})]
                    parts = [Term(powers=self.unlinked(parts[0].powers))]
            if (len(parts) > 1 or parts[0].bound) and any(
                f.var in self.inside for t in result for f, p in t.powers.items() if p < 0
            ):
                parts = [self._of_factors(operand, axes, index)]
            if len(parts) > 1 and len(result) > 1:
                return None
            result = [a.times(b, power) for a in result for b in parts]
        return [self._unmasked(term) for term in result]

    def _of_factors(self, operand: Any, axes: Any, index: Index) -> Term:
        """A product as one term, in which sums are factors."""
        inner = through(operand, axes, index)
        var = self.rep(operand)
        eqn = self.graph.maker.get(var)
        if eqn is not None and link(eqn) is not None:
            return self._of_factors(eqn.invars[0], link(eqn), inner)
        operands = None if eqn is None else product_operands(eqn, self.graph)
        if eqn is None or operands is None or any(isinstance(o, Factor) for o, *_ in operands):
            return Term(powers={Factor(var, inner): 1})
        result = Term(number_of(eqn))
        for own, own_axes, power in operands:
            parts = self.terms(own, through(own, own_axes, inner))
            sums = len(parts) > 1 or parts[0].bound
            term = self._of_factors(own, own_axes, inner) if sums else parts[0]
            result = result.times(term, power)
        return result

    def _total(self, total: Total, index: Index) -> list[Term]:
        """A sum that is written out as one over an axis."""
        shape = total.place.var.aval.shape
        inner: list[int | None] = [None] * len(shape)
        for label, (axis, _) in zip(index, total.place.axes, strict=True):
            if axis is not None:
                inner[axis] = label
        inner[total.axis] = label = next(self._fresh)
        count, bound = total.counts[0], frozenset({label})
        return [
            Term(t.number * count, t.powers, t.exponent, t.bound | bound)
            for t in self.terms(total.place.var, tuple(inner))
        ]

    def _unmasked(self, term: Term) -> Term:
        """A term without the masks of what is not zero, where that is a factor of it."""
        implied = [f for f in term.powers if f.case is not None and self._is_implied(f, term)]
        return term.times(Term(powers=dict.fromkeys(implied, 1)), -1) if implied else term

    def _is_implied(self, mask: Factor, term: Term) -> bool:
        eqn = self.graph.maker.get(mask.var)
        index = mask.axes
        while eqn is not None and eqn.primitive in prim.SHAPE_ONLY:
            if eqn.primitive is not prim.BROADCAST:
                return False
            index = through(eqn.invars[0], tuple(eqn.params["broadcast_dimensions"]), index)
            eqn = self.graph.maker.get(eqn.invars[0])
        unequal = eqn is not None and eqn.primitive is (_UNEQUAL if mask.case else _EQUAL)
        if eqn is None or not unequal or constant(self.graph, eqn.invars[1]) != 0:
            return False
        inside = self.terms(eqn.invars[0], through(eqn.invars[0], None, index))
        if len(inside) > 1 or inside[0].bound:
            return False
        return all(term.powers.get(f, 0) >= p for f, p in inside[0].powers.items()) and all(
            term.exponent.get(f, 0) >= c for f, c in inside[0].exponent.items()
        )

    def _raised(self, atom: Any, index: Index, power: float) -> list[Term] | None:
        """A power of a term; what is a sum is one factor."""
        parts = self.terms(atom, index)
        if len(parts) > 1 or parts[0].bound:
            parts = [Term(powers=self.unlinked({Factor(self.rep(atom), index): 1}))]
        term = parts[0].raised(power)
        return None if term is None else [term]

    def expanded(self, term: Term) -> list[Term]:
        """A term without factors that are sums of exponentials themselves."""
        for factor, power in term.powers.items():
            if power != 1 or factor.var not in self.inside:
                continue
            rest = term.times(Term(powers={factor: 1}), -1)
            inner = self.terms(factor.var, factor.axes)
            if inner != [Term(powers={factor: 1})]:
                return [t for part in inner for t in self.expanded(part.times(rest))]
        return [term]

    def of_log_sum(self, factor: Factor) -> list[Term] | None:
        """exp of what `jnp.logaddexp` makes, as a sum of terms; None of anything else."""
        eqn = self.graph.maker.get(factor.var)
        if eqn is None or not is_logaddexp(eqn):
            return None
        found: list[Term] = []
        for atom in eqn.invars:
            term = self.exponent(atom, through(atom, None, factor.axes))
            alone = [f for f, c in term.exponent.items() if c == 1]
            inner = self.of_log_sum(alone[0]) if len(alone) == len(term.exponent) == 1 else None
            rest = Term(term.number, term.powers)
            found += [term] if inner is None else [t.times(rest) for t in inner]
        return found

    def is_least(self, atom: Any, coefficient: float = 1) -> bool:
        """Whether the exponential of a number, with which maxima and log-sum-exps begin, is 0."""
        number = constant(self.graph, atom)
        return number is not None and coefficient * number < _LEAST

    def unlinked(self, powers: Mapping[Factor, float]) -> dict[Factor, float]:
        """Factors without the broadcasts and casts that made them."""
        found: dict[Factor, float] = {}
        for factor, power in powers.items():
            var, index = factor.var, factor.axes
            while (eqn := self.graph.maker.get(var)) is not None and (
                axes := link(eqn)
            ) is not None:
                index = through(eqn.invars[0], axes, index)
                var = self.rep(eqn.invars[0])
            found = joined(found, {Factor(var, index): power})
        return found

    def summed(self, eqn: Equation, index: Index) -> tuple[Index, frozenset[int]]:
        """The labels of a sum's operand, and those that it sums over."""
        rest, new = iter(index), []
        summed, labels = set(eqn.params["axes"]), set[int]()
        for axis, size in enumerate(eqn.invars[0].aval.shape):
            label = next(self._fresh) if axis in summed else next(rest)
            labels |= {label} if axis in summed and size > 1 and label is not None else set()
            new.append(label if size > 1 else None)
        return tuple(new), frozenset(labels)

    def _contracted(self, eqn: Equation, operands: list[Any], index: Index) -> list[Term] | None:
        indices, bound = self.contraction(eqn, index)
        parts = [self.terms(a, i) for a, i in zip(operands, indices, strict=True)]
        if min(map(len, parts)) > 1:
            return None
        return [
            Term(t.number, t.powers, t.exponent, t.bound | bound)
            for t in (a.times(b) for a in parts[0] for b in parts[1])
        ]

    def contraction(
        self, eqn: Equation, index: Index
    ) -> tuple[tuple[Index, Index], frozenset[int]]:
        """The labels of a matrix product's operands, and those that it sums over."""
        contracting, batch = prim.dot_numbers(eqn)
        new: list[dict[int, int | None]] = [{}, {}]
        bound: set[int] = set()
        for i, j in zip(*contracting, strict=True):
            label = next(self._fresh) if eqn.invars[0].aval.shape[i] > 1 else None
            new[0][i], new[1][j] = label, label
            bound |= set() if label is None else {label}
        for label, i, j in zip(index, *batch, strict=False):
            new[0][i], new[1][j] = label, label
        rest = iter(index[len(batch[0]) :])
        for side, atom in zip(new, eqn.invars, strict=True):
            for axis in range(len(atom.aval.shape)):
                if axis not in side:
                    side[axis] = next(rest)
        found = [tuple(side[a] for a in sorted(side)) for side in new]
        return (found[0], found[1]), frozenset(bound)

    def exponent(self, atom: Any, index: Index) -> Term:
        """exp of a variable as a term: a linear form, and powers where it has logarithms."""
        number = constant(self.graph, atom)
        if number is not None and (abs(number) < 50 or number == -math.inf or is_literal(atom)):
            return Term(math.exp(number) if number < 700 else math.inf)
        var = self.rep(atom)
        opaque = Term(exponent={Factor(var, index): 1.0})
        eqn = None if is_literal(atom) else self.graph.maker.get(var)
        if eqn is None or self._depth > _DEEPEST:
            return opaque
        self._depth += 1
        try:
            found = self._linear(eqn, index) or opaque
        finally:
            self._depth -= 1
        self.named.append((Factor(var, index), found))
        return found

    def _linear(self, eqn: Equation, index: Index) -> Term | None:
        axes, invars, primitive = link(eqn), eqn.invars, eqn.primitive
        if axes is not None:
            return self.exponent(invars[0], through(invars[0], axes, index))
        if (whole := _but_nan(eqn, self.graph)) is not None:
            return self.exponent(whole, through(whole, None, index))
        masked = masked_by(eqn, self.graph, -math.inf) if primitive is prim.SELECT else None
        if masked is not None:
            mask, operand = masked
            kept = self.exponent(operand, through(operand, None, index))
            return kept.times(Term(powers={self.monomials.mask(mask, index): 1}))
        if is_logaddexp(eqn):  # with what is as good as minus infinity
            for atom, other in itertools.permutations(invars):
                if self.is_least(atom) and other.aval == eqn.outvars[0].aval:
                    return self.exponent(other, index)
        if primitive not in (*prim.SUMS, prim.NEG, prim.MUL, prim.DIV, *_LOGARITHMS):
            return None
        inner = [through(a, None, index) for a in invars]
        if primitive in prim.SUMS:
            first, second = (self.exponent(a, i) for a, i in zip(invars, inner, strict=True))
            return first.times(second, 1 if primitive in prim.ADD else -1)
        if primitive is prim.NEG:
            return Term().times(self.exponent(invars[0], inner[0]), -1)
        if primitive in (prim.MUL, prim.DIV):
            numbers = [constant(self.graph, a) for a in invars]
            for position, scale in enumerate(numbers):
                if scale is None or (primitive is prim.DIV and position == 0) or scale == 0:
                    continue
                term = self.exponent(invars[1 - position], inner[1 - position])
                return term.raised(1 / scale if primitive is prim.DIV else scale)
        if primitive in _LOGARITHMS:
            if self.rep(invars[0]) not in self.inside:
                return None
            per = 1 / math.log(_LOGARITHMS[primitive])
            parts = self.terms(invars[0], inner[0])
            if len(parts) == 1 and not parts[0].bound:
                return parts[0] if per == 1 else parts[0].raised(per)
            var, place = invars[0], inner[0]
            while (maker := self.graph.maker.get(var)) is not None and (
                maker.primitive is prim.ABS or link(maker) is not None
            ):
                place = through(maker.invars[0], link(maker), place)
                var = maker.invars[0]
            return Term(powers={Factor(self.rep(var), place): per})
        return None


def is_logaddexp(eqn: Equation) -> bool:
    """Whether an equation is a call of `jnp.logaddexp`."""
    return compat.custom_call(eqn) is not None and compat.called_name(eqn) == "logaddexp"


def _base_of(eqn: Equation, graph: Graph) -> float | None:
    """The number of which an equation is a power to an explained exponent; None for another."""
    if eqn.primitive is prim.EXP:
        return math.e
    if eqn.primitive is _POW and graph.explained_operands(eqn) == [1]:
        base = constant(graph, eqn.invars[0])
        return base if base is not None and base > 0 else None
    return 2.0 if eqn.primitive is _EXP2 else None


def _but_nan(eqn: Equation, graph: Graph) -> Any | None:
    """What an equation hands on unless it is no number, as the logarithm of a negative sum."""
    if eqn.primitive is not prim.SELECT or len(eqn.invars) != 3:
        return None
    for operand, other in itertools.permutations(eqn.invars[1:]):
        number = constant(graph, other)
        if number is not None and math.isnan(number) and operand.aval == eqn.outvars[0].aval:
            return operand
    return None


def _exponentials(
    graph: Graph, whole: set[Var], written_out: Mapping[Var, Total]
) -> tuple[set[Var], set[Var]]:
    """Variables that are sums and products of exponentials, and exponentials with logarithms."""
    made: set[Var] = set()
    logs: set[Var] = set()
    normalised: set[Var] = set()
    closed = set(whole)
    for eqn in graph.eqns:
        operands = [eqn.invars[i] for i in graph.explained_operands(eqn)]
        if not graph.is_live(eqn) or not operands or len(eqn.outvars) != 1:
            continue
        out, primitive = eqn.outvars[0], eqn.primitive
        log, inside = any(a in logs for a in operands), any(a in made for a in operands)
        moves = link(eqn) is not None or _but_nan(eqn, graph) is not None
        if primitive is prim.SELECT and masked_by(eqn, graph, -math.inf) is not None:
            moves = log
        if moves and operands[0] in closed:
            closed.add(out)
        if primitive in (prim.MUL, prim.DIV) and log and len(operands) == 1:
            logs.add(out)
        if _base_of(eqn, graph) is not None:
            made.add(out)
            normalised |= {out} if log else set()
        elif primitive is _EXPM1 or (out in written_out and written_out[out].place.var in made):
            made.add(out)
        elif primitive in _LOGARITHMS:
            logs |= {out} if inside else set()
        elif moves or primitive in (*prim.ADD, prim.SUB, prim.NEG):
            # A residual stream is no sum of exponentials, though attention is added to it.
            made |= {out} if all(a in made for a in operands) else set()
            logs |= {out} if log else set()
        elif inside:
            opens = primitive is prim.DOT and not any(a in closed for a in operands)
            opens = opens or part_of_contraction(eqn, graph) is not None
            opens = opens or primitive in (prim.REDUCE_SUM, prim.ABS) or power_of(eqn) is not None
            if opens or product_operands(eqn, graph) is not None:
                made.add(out)
    return made, normalised
