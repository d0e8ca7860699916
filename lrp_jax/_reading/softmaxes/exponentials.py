"""Sums of products of exponentials: what softmaxes and weighted means are made of.

In a `Term`, exp(a + b - c) is kept as its exponent and exp(log y) is y, and what carries no bound
label of a sum stands before it; so a shift by any maximum cancels.
"""

import contextlib
import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.factors import (
    Factor,
    Index,
    constant,
    joined,
    link,
    masked_by,
    number_of,
    power_of,
    product_operands,
    through,
)
from ..._analysis.monomials import Monomials
from ..equations.parts import CONCATENATE, part_of_contraction, piece_of, sizes_of_pieces
from .exponential_terms import Term, collected, negated
from .inside_exponentials import (
    LOGARITHMS,
    above_floor,
    base_of,
    but_nan,
    is_least,
    is_logaddexp,
    variables,
)
from .totals import Total, totals

_EQUAL, _UNEQUAL = compat.primitive("eq"), compat.primitive("ne")
_DEEPEST, _MOST_TERMS, _MOST_WORK = 160, 64, 1 << 15


class Exponentials:
    """The variables of a graph as sums of products of exponentials.

    Args:
        monomials: the graph's products.
    """

    def __init__(self, monomials: Monomials) -> None:
        self.monomials, self.graph = monomials, monomials.graph
        self.totals, self.places = self.graph.once(totals)
        self.inside, self.normalised, self.logarithms = variables(
            self.graph, monomials.whole, self.totals
        )
        self.settled: set[Var] = set()
        self.named: list[tuple[Factor, Term]] = []
        self._fresh = itertools.count(-1, -1)
        self._depth = self._work = 0
        self.is_joined = any(
            e.primitive is CONCATENATE and len(self.graph.explained_operands(e)) > 1
            for e in self.graph.eqns
        )
        self._in_pieces = False
        self._chosen: dict[int, tuple[int, tuple[int, ...], int | None]] = {}

    @contextlib.contextmanager
    def nothing_settled(self) -> Iterator[None]:
        """Look into what is known to be a softmax, too."""
        before = self.settled
        self.settled = set()
        yield
        self.settled |= before

    @contextlib.contextmanager
    def in_pieces(self) -> Iterator[None]:
        """Take sums along what is put together from pieces piece by piece."""
        before = self._in_pieces
        self._in_pieces = True
        yield
        self._in_pieces = before

    def new_label(self) -> int:
        return next(self._fresh)

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
        if (piece := self._piece(eqn, index)) is not None:
            return self.terms(*piece, anew)
        if eqn is None or (var in self.settled and not anew) or self._depth > _DEEPEST:
            return opaque
        axes = link(eqn)
        if axes is not None:
            return self.terms(eqn.invars[0], through(eqn.invars[0], axes, index), anew)
        if var not in self.graph.live and eqn.primitive is prim.EXP:
            return [Term(exponent=self.unlinked({Factor(self.rep(eqn.invars[0]), index): 1.0}))]
        if (whole := but_nan(eqn, self.graph)) is not None:
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
        base = base_of(eqn, self.graph)
        if base is not None:
            term = self.exponent(invars[-1], through(invars[-1], None, index))
            raised = term.raised(math.log(base))
            return None if raised is None else [raised]
        if primitive in prim.SUMS:
            first, second = (self.terms(a, through(a, None, index)) for a in invars)
            both = first + (second if primitive in prim.ADD else negated(second))
            return [term for term in collected(both) if term.number] or [Term(0.0)]
        if primitive is prim.REDUCE_SUM:
            return self._summed(invars[0], *self.summed(eqn, index))
        if primitive is prim.DOT:
            return self._contracted(eqn, eqn.invars, index)
        if (above := above_floor(eqn, self.graph)) is not None:
            found = self.terms(above, through(above, None, index))
            return found if all(map(self._is_positive, found)) else None
        if (part := part_of_contraction(eqn, self.graph)) is not None:
            return self._contracted(*part, index)
        if self._in_pieces and (one := piece_of(eqn, self.graph)) is not None:
            axis, number, sizes = one
            label = next(self._fresh)
            inner = (*index[:axis], label, *index[axis + 1 :])
            return self._of_piece([(invars[0], inner)], label, (number, sizes, index[axis]))
        if primitive is prim.ABS:
            return self.terms(invars[0], index)
        if primitive in LOGARITHMS:
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
            sums = len(parts) > 1 or parts[0].bound
            if sums and self._divide(result) and not self._divide(parts):
                parts = [self._of_factors(operand, axes, index)]
            if len(parts) > 1 and len(result) > 1:
                return None
            result = [a.times(b, power) for a in result for b in parts]
        return [self._unmasked(term) for term in result]

    # -- pieces ---------------------------------------------------------------------------------

    def _piece(self, eqn: Equation | None, index: Index) -> tuple[Any, Index] | None:
        """The piece that is looked at of what an equation puts together, and its labels."""
        if eqn is None or eqn.primitive is not CONCATENATE or not self._chosen:
            return None
        axis = eqn.params["dimension"]
        label = index[axis]
        if label not in self._chosen or label is None:
            return None
        number, sizes, new = self._chosen[label]
        if tuple(a.aval.shape[axis] for a in eqn.invars) != sizes:
            return None
        return eqn.invars[number], (*index[:axis], new, *index[axis + 1 :])

    def _of_piece(
        self, factors: Sequence[tuple[Any, Index]], label: int, choice: Any
    ) -> list[Term] | None:
        """The terms of one piece along an axis; None where something is not made of pieces."""
        self._chosen[label] = choice
        found = self._multiplied([self.terms(*factor) for factor in factors])
        del self._chosen[label]
        whole = (f for t in found or () for f in (*t.powers, *t.exponent) if label in f.labels)
        return None if any(whole) else found

    def _summed_pieces(
        self, factors: Sequence[tuple[Any, Index]], bound: frozenset[int]
    ) -> list[Term] | None:
        """A sum of a product along an axis, piece by piece."""
        for atom, index in factors:
            for axis, label in enumerate(index):
                sizes = sizes_of_pieces(atom, axis, self.graph) if label in bound else None
                if sizes is None or label is None:
                    continue
                found: list[Term] = []
                for number, n in enumerate(sizes):
                    new = None if n == 1 else next(self._fresh)
                    terms = self._of_piece(factors, label, (number, sizes, new))
                    if terms is None:
                        return None
                    rest = bound - {label} | ({new} if new is not None else set())
                    found += [replace(t, bound=t.bound | rest) for t in terms]
                return found
        return None

    def _multiplied(self, parts: Sequence[list[Term]]) -> list[Term] | None:
        """A product of terms; None of two sums."""
        if sum(len(part) > 1 for part in parts) > 1:
            return None
        return [functools.reduce(Term.times, terms) for terms in itertools.product(*parts)]

    def _divide(self, terms: list[Term]) -> bool:
        """Whether terms are divided by sums of exponentials."""
        return any(p < 0 and f.var in self.inside for t in terms for f, p in t.powers.items())

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
        terms = self._summed(total.place.var, tuple(inner), frozenset({label}))
        return [replace(t, number=t.number * total.counts[0]) for t in terms]

    def _summed(self, atom: Any, index: Index, bound: frozenset[int]) -> list[Term]:
        """The terms of a sum over some labels."""
        pieces = self._summed_pieces([(atom, index)], bound) if self._in_pieces else None
        return pieces or [replace(t, bound=t.bound | bound) for t in self.terms(atom, index)]

    def _is_positive(self, term: Term) -> bool:
        return term.number > 0 and all(
            f.case is not None or f.var in self.monomials.nonnegative for f in term.powers
        )

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
        factors = list(zip(operands, indices, strict=True))
        if self._in_pieces and (pieces := self._summed_pieces(factors, bound)):
            return pieces
        terms = self._multiplied([self.terms(*f) for f in factors])
        return terms and [replace(t, bound=t.bound | bound) for t in terms]

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
        if (piece := self._piece(eqn, index)) is not None:
            return self.exponent(*piece)
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
        if (whole := but_nan(eqn, self.graph)) is not None:
            return self.exponent(whole, through(whole, None, index))
        masked = masked_by(eqn, self.graph, -math.inf) if primitive is prim.SELECT else None
        if masked is not None:
            mask, operand = masked
            kept = self.exponent(operand, through(operand, None, index))
            return kept.times(Term(powers={self.monomials.mask(mask, index): 1}))
        if is_logaddexp(eqn):  # with what is as good as minus infinity
            for atom, other in itertools.permutations(invars):
                if is_least(self.graph, atom) and other.aval == eqn.outvars[0].aval:
                    return self.exponent(other, index)
        if primitive not in (*prim.SUMS, prim.NEG, prim.MUL, prim.DIV, *LOGARITHMS):
            return None
        inner = [through(a, None, index) for a in invars]
        if primitive in prim.SUMS:
            first, second = (self.exponent(a, i) for a, i in zip(invars, inner, strict=True))
            if primitive is prim.SUB and not second.number:
                return None  # less -1e9
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
        if primitive in LOGARITHMS:
            if self.rep(invars[0]) not in self.inside:
                return None
            per = 1 / math.log(LOGARITHMS[primitive])
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
