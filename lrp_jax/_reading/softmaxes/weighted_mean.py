"""Softmaxes and means weighted by them, in whatever order they are normalised.

m exp(u) / sum m exp(u) is a softmax of u, m >= 0 a constant; sum m exp(u) v / sum m exp(u) is it in
front of a contraction with v, in one sum or in several over blocks.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..._analysis.compat import Var
from ..._analysis.factors import STABILISER, Factor, joined, own_index
from ..._analysis.places import itself
from .exponential_terms import Term
from .exponentials import Exponentials
from .inside_exponentials import is_least
from .softmax_forms import Made, Normaliser, Weight, softmax, weighted
from .totals import single


def found_in(
    var: Var, exponentials: Exponentials
) -> tuple[Made, float, dict[Factor, float]] | None:
    """The softmax, or mean weighted by one, in a product; and the number and factors beside it."""
    index = own_index(var)
    exponentials.named.clear()
    found = _found_in(exponentials.terms(var, index), exponentials)
    if found is None and exponentials.is_joined:
        exponentials.named.clear()
        with exponentials.in_pieces():
            found = _found_in(exponentials.terms(var, index), exponentials)
    return found


def exponential_softmax(logits: Var, exponentials: Exponentials) -> Made | None:
    """The softmax that the exponential of a variable is, as of what log_softmax makes."""
    exponentials.named.clear()
    return softmax_alone(
        _found_in([exponentials.exponent(logits, own_index(logits))], exponentials)
    )


def softmax_alone(found: tuple[Made, float, dict[Factor, float]] | None) -> Made | None:
    """What is found in a product, where nothing is beside it."""
    return found[0] if found is not None and found[1:] == (1.0, {}) else None


def _found_in(
    terms: list[Term], exponentials: Exponentials
) -> tuple[Made, float, dict[Factor, float]] | None:
    best = None
    terms = [_cancelled(term, exponentials) for term in terms]
    for divisor, power in terms[0].powers.items():
        if power >= 0 or not exponentials.monomials.explained(divisor):
            continue
        if any(term.powers.get(divisor) != power for term in terms):
            continue
        normaliser = normaliser_of(divisor, exponentials)
        if normaliser is None:
            continue
        once = Term(powers={divisor: 1}).times(normaliser.before, -1)
        left = [_cancelled(term.times(once), exponentials) for term in terms]
        found = _matched(left, normaliser, exponentials)
        if found is not None and (best is None or len(found[2]) < len(best[2])):
            best = found
    return best or _over_log_sum(terms, exponentials)


def _over_log_sum(
    terms: list[Term], exponentials: Exponentials
) -> tuple[Made, float, dict[Factor, float]] | None:
    """The softmax, or mean weighted by one, in terms that all have exp(-log(exp a + exp b))."""
    for factor in terms[0].exponent:
        if any(term.exponent.get(factor) != -1 for term in terms):
            continue
        summed = exponentials.of_log_sum(factor)
        normaliser = None if summed is None else normaliser_of(factor, exponentials, summed)
        if normaliser is not None:
            once = Term(exponent={factor: 1}).times(normaliser.before, -1)
            left = [term.times(once) for term in terms]
            whole = _of_columns(normaliser, exponentials)
            found = _matched(left, normaliser, exponentials)
            found = found or (whole and _matched(left, whole, exponentials))
            if found is not None:
                return found
    return None


def _of_columns(normaliser: Normaliser, exponentials: Exponentials) -> Normaliser | None:
    """Exponentials of all columns of one value, one by one, as those of the value; or None."""
    found: set[tuple[Any, int]] = set()
    columns: list[int] = []
    for term in normaliser.summed:
        ((factor, coefficient), *others) = term.exponent.items()
        place = exponentials.places.get(factor.var)
        if term.bound or term.powers or term.number != 1 or others or place is None:
            return None
        place = single(place)
        if coefficient != 1 or place.cut != {*place.fixed} or len(place.cut) != 1:
            return None
        ((axis, column),) = place.fixed.items()
        axes = [a for a, _ in itself(place.var).axes]
        labels = dict(zip((a for a, _ in place.axes), factor.axes, strict=True))
        row = tuple(-1 if i == axis else labels.get(a) for i, a in enumerate(axes))
        found.add((Factor(place.var, row), axis))
        columns.append(column)
    ((whole, axis),) = found if len(found) == 1 else ((None, 0),)
    if whole is None or sorted(columns) != [*range(whole.var.aval.shape[axis])]:
        return None
    label = exponentials.new_label()
    row = tuple(label if i == axis else a for i, a in enumerate(whole.axes))
    term = exponentials.exponent(whole.var, row)
    return normaliser._replace(summed=[replace(term, bound=frozenset({label}))])


def _cancelled(term: Term, exponentials: Exponentials) -> Term:
    """A term without a sum of exponentials that is divided by the same one, shifted otherwise."""
    up, down = (
        [f for f, p in term.powers.items() if p * sign > 0 and f.var in exponentials.inside]
        for sign in (1, -1)
    )
    for a, b in itertools.product(up, down):
        if term.powers.get(a, 0) != -term.powers.get(b, 0):
            continue
        first, second = normaliser_of(a, exponentials), normaliser_of(b, exponentials)
        if first is None or second is None or not _are_one(first, second):
            continue
        power = term.powers[a]
        term = term.times(Term(powers={a: 1, b: -1}), -power)
        term = term.times(first.before, power).times(second.before, -power)
    return term


def _are_one(first: Normaliser, second: Normaliser) -> bool:
    """Whether two sums sum the same, whatever stands before them."""
    if first.rest or second.rest or len(first.summed) != 1 or len(second.summed) != 1:
        return False
    (a,), (b,) = first.summed, second.summed
    if a.number != b.number or len(a.exponent) != len(b.exponent):
        return False
    ways = labelled(list(a.exponent.items()), b.exponent, {}, a.bound)
    return any(
        set(labels.values()) == b.bound
        and {_relabelled(f, labels): p for f, p in a.powers.items()} == dict(b.powers)
        for labels in ways
    )


def normaliser_of(
    divisor: Factor, exponentials: Exponentials, summed: list[Term] | None = None
) -> Normaliser | None:
    """What divides as a sum of exponentials, or None; `summed` where that is known."""
    explained = exponentials.monomials.explained
    inside = summed or exponentials.terms(divisor.var, divisor.axes)
    terms = [part for term in inside for part in exponentials.expanded(term)]
    terms, below = _over_one(terms, exponentials)
    terms = [term for term in terms if not _is_nothing(term, exponentials)]
    first = next((term for term in terms if term.bound), None)
    if first is None and len(terms) < 2:
        return None
    # Where nothing is bound all are blocks of one, and what they share stands before them.
    before = _shared(terms) if first is None else first.part(bound=False)
    inner: list[Term] = []
    rest: list[Term] = []
    for term in terms:
        if term.bound and term.part(bound=False) != before:
            return None
        if not term.bound and 0 <= term.number < STABILISER and not term.exponent:
            rest.append(term.times(before, -1))
            continue
        term = term.part(bound=True) if term.bound else term.times(before, -1)
        if any(map(explained, term.powers)):
            return None
        (inner if any(map(explained, term.exponent)) else rest).append(term)
    if first is not None and first.part(bound=True) not in inner:
        return None
    if (first is None and len(inner) < 2) or any(term.bound for term in rest):
        return None
    if any(term.number <= 0 for term in (*inner, *rest)):
        return None
    before = before.times(below)
    numbers = {term.number for term in inner}
    if len(numbers) == 1:  # that stands before the sum, too
        once = Term(numbers.pop())
        before = before.times(once)
        inner, rest = ([t.times(once, -1) for t in own] for own in (inner, rest))
    return Normaliser(before, inner, rest)


def _over_one(terms: list[Term], exponentials: Exponentials) -> tuple[list[Term], Term]:
    """Terms over the sum that some of them are divided by, and what then stands before all: one
    plus exp(c) over a sum is the sum plus exp(c), over it."""
    sums = {
        f for t in terms for f, p in t.powers.items()
        if p == -1 and f.var in exponentials.inside and exponentials.monomials.explained(f)
        and not f.labels & t.bound
    }  # fmt: skip
    if len(sums) != 1 or all(sums <= t.powers.keys() for t in terms):
        return terms, Term()
    (total,) = sums
    once = Term(powers={total: 1})
    inner = exponentials.terms(total.var, total.axes)
    found: list[Term] = []
    for term in terms:
        divided = term.powers.get(total) == -1
        found += [term.times(once)] if divided else [term.times(part) for part in inner]
    return found, Term(powers={total: -1})


def _is_nothing(term: Term, exponentials: Exponentials) -> bool:
    """Whether a term is exp(-1e9), with which a running maximum or log-sum-exp begins."""
    return any(is_least(exponentials.graph, f.var, c) for f, c in term.exponent.items())


def _shared(terms: Sequence[Term]) -> Term:
    """The exponentials that all terms have, as that of a maximum which shifts them."""
    first, *others = terms
    powers, exponent = (
        {f: c for f, c in own[0].items() if all(there.get(f) == c for there in own[1:])}
        for own in (
            [first.powers, *(t.powers for t in others)],
            [first.exponent, *(t.exponent for t in others)],
        )
    )
    return Term(powers=powers, exponent=exponent)


def _matched(
    terms: list[Term], normaliser: Normaliser, exponentials: Exponentials
) -> tuple[Made, float, dict[Factor, float]] | None:
    """Terms as weights times values, each weight one that the normaliser sums."""
    left = list(normaliser.summed)
    if len(left) < len(terms):
        return None
    pairs: list[tuple[Weight, Term]] = []
    for term in terms:
        found = next(
            ((w, rest) for inner in left for w, rest in _weights(inner, term, exponentials)), None
        )
        if found is None:
            return None
        left.remove(found[0].term)
        pairs.append(found)
    weights = [weight for weight, _ in pairs]
    if len(terms) == 1 and not terms[0].bound:
        ((weight, rest),) = pairs
        return softmax(weight, left, normaliser, exponentials), rest.number, dict(rest.powers)
    if any(set(w.labels.values()) != term.bound for w, term in zip(weights, terms, strict=True)):
        return None
    if any(not rest.bound <= _labels(rest) for _, rest in pairs):
        return None  # more is summed than the values have, as features of linear attention
    whole = next((rest for _, rest in pairs if rest.bound), None)
    beside = _common([rest for _, rest in pairs]) if whole is None else whole.part(bound=False)
    if any(rest.bound and rest.part(bound=False) != beside for _, rest in pairs):
        return None
    # A block of one has no label.
    values = [r.part(bound=True) if r.bound else r.times(beside, -1) for _, r in pairs]
    if left or not all(value.powers for value in values):
        return None
    return weighted(weights, values, normaliser, exponentials), 1.0, dict(beside.powers)


def _labels(term: Term) -> frozenset[int]:
    return frozenset(label for factor in term.powers for label in factor.labels)


def _common(values: Sequence[Term]) -> Term:
    """What all values of a mean are multiplied by, where each is something beside that."""
    shared = Term(powers=_shared(values).powers)
    return shared if all(value.powers.keys() - shared.powers for value in values) else Term()


def _weights(inner: Term, term: Term, exponentials: Exponentials) -> Iterator[tuple[Weight, Term]]:
    """The ways in which one term holds a weight, and what is beside it."""
    explained = exponentials.monomials.explained
    bound = sorted(inner.bound)
    for labels in labelled(list(inner.exponent.items()), term.exponent, {}, inner.bound):
        if len(labels) < len(bound) or len(set(labels.values())) < len(bound):
            continue

        def there(factors: Mapping[Factor, Any], labels: Mapping[int, int] = labels) -> Any:
            return {_relabelled(f, labels): n for f, n in factors.items()}

        exponent = joined(term.exponent, there(inner.exponent), -1)
        powers = joined(term.powers, there(inner.powers), -1)
        # What the numerator lacks may be zero, as a mask is.
        if exponent or any(p < 0 <= term.powers.get(f, 0) for f, p in powers.items()):
            continue
        rest = Term(term.number / inner.number, powers, {}, term.bound)
        if any(explained(f) and p < 0 and f.labels & term.bound for f, p in powers.items()):
            continue
        yield Weight(inner, labels), rest


def labelled(
    wanted: list[tuple[Factor, float]],
    there: Mapping[Factor, float],
    labels: dict[int, int],
    bound: frozenset[int],
) -> Iterator[dict[int, int]]:
    """The labels by which all wanted factors are there."""
    if not wanted:
        yield labels
        return
    (factor, coefficient), *others = wanted
    for other, number in there.items():
        if other.var is not factor.var or abs(number - coefficient) > 1e-12 * abs(number):
            continue
        new = dict(labels)
        for a, b in zip(factor.axes, other.axes, strict=True):
            if a in bound and b is not None:
                if new.setdefault(a, b) != b:
                    break
            elif a != b:
                break
        else:
            yield from labelled(others, there, new, bound)


def _relabelled(factor: Factor, labels: Mapping[int, int]) -> Factor:
    return factor._replace(axes=tuple(None if a is None else labels.get(a, a) for a in factor.axes))
