"""Softmaxes and means weighted by them, in whatever order they are normalised.

m exp(u) / sum m exp(u) is a softmax of u, m >= 0 a constant; sum m exp(u) v / sum m exp(u) is it in
front of a contraction with v, in one sum or in several over blocks.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._analysis.compat import Var
from .._analysis.exponential_terms import Term
from .._analysis.exponentials import Exponentials
from .._analysis.monomials import Factor, joined, own_index

Read = Callable[[Var], Any]
Made = Callable[[Read, Sequence[int]], Any]
"""From the values of variables and an order of labels to an array with these axes."""


class Normaliser(NamedTuple):
    """A sum of exponentials that divides.

    Attributes:
        before: what stands before the sum.
        summed: the exponentials, each with the labels that it is summed over.
        rest: constants beside them.
    """

    before: Term
    summed: list[Term]
    rest: list[Term]


class Weight(NamedTuple):
    """A weight of a mean, and the labels that its own summed labels have there."""

    term: Term
    labels: Mapping[int, int]


def found_in(
    var: Var, exponentials: Exponentials
) -> tuple[Made, float, dict[Factor, float]] | None:
    """The softmax, or mean weighted by one, in a product; and the number and factors beside it."""
    exponentials.named.clear()
    best = None
    terms = [_cancelled(t, exponentials) for t in exponentials.terms(var, own_index(var))]
    for divisor, power in terms[0].powers.items():
        if power >= 0 or not exponentials.monomials.explained(divisor):
            continue
        if any(term.powers.get(divisor) != power for term in terms):
            continue
        normaliser = normaliser_of(divisor, exponentials)
        if normaliser is None:
            continue
        once = Term(powers={divisor: 1}).times(normaliser.before, -1)
        found = _matched([term.times(once) for term in terms], normaliser, exponentials)
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
            found = _matched([term.times(once) for term in terms], normaliser, exponentials)
            if found is not None:
                return found
    return None


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
    return Normaliser(before, inner, rest)


def _is_nothing(term: Term, exponentials: Exponentials) -> bool:
    """Whether a term is exp(-1e9), with which a running maximum or log-sum-exp begins."""
    return any(exponentials.is_least(f.var, c) for f, c in term.exponent.items())


def _shared(terms: Sequence[Term]) -> Term:
    """The exponentials that all terms have, as that of a maximum which shifts them."""
    first, *others = terms
    exponent = {
        f: c for f, c in first.exponent.items() if all(t.exponent.get(f) == c for t in others)
    }
    return Term(exponent=exponent)


def _matched(
    terms: list[Term], normaliser: Normaliser, exponentials: Exponentials
) -> tuple[Made, float, dict[Factor, float]] | None:
    """Terms as weights times values, each weight one that the normaliser sums."""
    left = list(normaliser.summed)
    if len(left) != len(terms):
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
        return softmax(weight, normaliser, exponentials), rest.number, dict(rest.powers)
    if any(set(w.labels.values()) != term.bound for w, term in zip(weights, terms, strict=True)):
        return None
    whole = next((rest for _, rest in pairs if rest.bound), Term())
    beside = whole.part(bound=False)
    if any(rest.bound and rest.part(bound=False) != beside for _, rest in pairs):
        return None
    # A block of one has no label.
    values = [r.part(bound=True) if r.bound else r.times(beside, -1) for _, r in pairs]
    if not all(value.powers for value in values):
        return None
    return weighted(weights, values, normaliser, exponentials), 1.0, dict(beside.powers)


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
        unmasked = any(f.case is not None and power < 0 for f, power in powers.items())
        if exponent or unmasked:
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


# -- computing them -----------------------------------------------------------------------------


def times(factor: Factor, read: Read, order: Sequence[int], dtype: Any = None) -> Any:
    """A factor's value with the axes of some labels, one wide where it has none."""
    value = read(factor.var)
    if factor.case is not None:
        value = (value == factor.case).astype(dtype or jnp.result_type(float))
    return aligned(value, factor.axes, order)


def aligned(x: Any, axes: Sequence[int | None], order: Sequence[int]) -> Any:
    """An array with the axes of some labels, one wide where it has none."""
    if tuple(axes) == tuple(order):
        return x
    labels = [label for label in axes if label is not None]
    x = jax.lax.squeeze(x, [i for i, label in enumerate(axes) if label is None])
    by = sorted(range(len(labels)), key=lambda i: list(order).index(labels[i]))
    if by != list(range(len(by))):
        x = jax.lax.transpose(x, by)
    if len(labels) == len(order):
        return x
    sizes = {labels[i]: n for i, n in zip(by, x.shape, strict=True)}
    where = [i for i, label in enumerate(order) if label in sizes]
    return jax.lax.broadcast_in_dim(x, [sizes.get(label, 1) for label in order], where)


class Logits(NamedTuple):
    """The logits of some weights: arrays and their labels."""

    factor: Factor | None
    term: Term

    def labels(self) -> list[int]:
        """The labels of the logits, in the order of their own axes."""
        factors = [*([self.factor] if self.factor else self.term.exponent), *self.term.powers]
        return list(dict.fromkeys(a for f in factors for a in f.axes if a is not None))

    def value(self, read: Read, order: Sequence[int]) -> Any:
        if self.factor is not None:
            return times(self.factor, read, order)
        parts = [times(f, read, order) * c for f, c in self.term.exponent.items()]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def mask(self, read: Read, order: Sequence[int], dtype: Any) -> Any | None:
        """What multiplies the exponentials."""
        mask = None
        for factor, power in self.term.powers.items():
            value = times(factor, read, order, dtype).astype(dtype) ** power
            mask = value if mask is None else mask * value
        if self.term.number != 1:
            number = jnp.asarray(self.term.number, dtype)
            mask = number if mask is None else mask * number
        return mask


def logits_of(term: Term, exponentials: Exponentials) -> Logits:
    """The logits as the variable that they are, where one was seen on the way to the term."""
    for factor, form in reversed(exponentials.named):
        named = not form.powers and form.number == 1 and form.exponent == term.exponent
        if named and term.bound <= factor.labels:
            return Logits(factor, term)
    return Logits(None, term)


def shifted_exponentials(u: Any, mask: Any | None, axes: tuple[int, ...]) -> tuple[Any, Any]:
    """Exponentials of logits minus the largest of those that no mask leaves out, and that one."""
    u = u if mask is None else jnp.where(mask > 0, u, -jnp.inf)
    largest = jax.lax.stop_gradient(jnp.max(u, axes, keepdims=True))
    largest = jnp.where(jnp.isfinite(largest), largest, 0)
    e = jnp.exp(u - largest)
    return (e if mask is None else e * mask), largest


def _normalised(u: Any, mask: Any | None, rest: Any | None, axes: tuple[int, ...]) -> Any:
    """A softmax in the form in which it is recognised."""
    e, largest = shifted_exponentials(u, mask, axes)
    total = jnp.sum(e, axes, keepdims=True)
    return e / (total if rest is None else total + rest * jnp.exp(-largest))


def rest_of(normaliser: Normaliser, read: Read, order: Sequence[int], dtype: Any) -> Any | None:
    """The constants that are summed beside the exponentials."""
    total = None
    for term in normaliser.rest:
        value = jnp.asarray(term.number, dtype)
        for factor, power in term.powers.items():
            value = value * times(factor, read, order, dtype) ** power
        exponent = jnp.zeros((), dtype)
        for factor, coefficient in term.exponent.items():
            exponent = exponent + times(factor, read, order) * coefficient
        value = value * jnp.exp(exponent) if term.exponent else value
        total = value if total is None else total + value
    return total


def softmax(weight: Weight, normaliser: Normaliser, exponentials: Exponentials) -> Made:
    """A softmax with the axes of its logits."""
    logits = logits_of(weight.term, exponentials)
    own = logits.labels()

    def made(read: Read, order: Sequence[int]) -> Any:
        u = logits.value(read, own)
        axes = tuple(i for i, label in enumerate(own) if label in weight.term.bound)
        rest = rest_of(normaliser, read, own, u.dtype)
        p = _normalised(u, logits.mask(read, own, u.dtype), rest, axes)
        return aligned(p, [weight.labels.get(label, label) for label in own], order)

    return made


def weighted(
    weights: list[Weight], values: list[Term], normaliser: Normaliser, exponentials: Exponentials
) -> Made:
    """A mean of values by a softmax: one over all blocks, in front of one contraction."""
    logits = [logits_of(weight.term, exponentials) for weight in weights]
    columns = _union(
        [a for f in value.powers for a in f.axes if a is not None and a not in value.bound]
        for value in values
    )

    def made(read: Read, order: Sequence[int]) -> Any:
        rows, u, mask = blocks_of(logits, read)
        bounds = _bounds(logits)
        vs = []
        for bound, weight, value in zip(bounds, weights, values, strict=True):
            there = [*columns, *(weight.labels[b] for b in bound)]
            v: Any = None
            for factor, power in value.powers.items():
                x = times(factor, read, there, u.dtype)
                x = x if power == 1 else x**power
                v = x if v is None else v * x
            v = v if value.number == 1 else v * jnp.asarray(value.number, v.dtype)
            vs.append(_flat(v, len(columns)))
        v = _side_by_side(vs)
        rest = rest_of(normaliser, read, [*rows, 10**6], u.dtype)
        p = _normalised(u, mask, rest, (u.ndim - 1,))
        letters = {label: i for i, label in enumerate(dict.fromkeys([*rows, *columns]))}
        last = len(letters)
        kept = [label for label in order if label in letters]
        y = jnp.einsum(
            p, [*(letters[r] for r in rows), last], v, [*(letters[c] for c in columns), last],
            [letters[label] for label in kept],
        )  # fmt: skip
        return aligned(y, kept, order)

    return made


def _bounds(logits: Sequence[Logits]) -> list[list[int]]:
    return [[b for b in own.labels() if b in own.term.bound] for own in logits]


def blocks_of(logits: Sequence[Logits], read: Read) -> tuple[list[int], Any, Any | None]:
    """Blocks of exponentials as one: the labels of its rows, logits along the last axis, a mask."""
    rows = _union(
        [label for label in own.labels() if label not in own.term.bound] for own in logits
    )
    us, masks = [], []
    for own, bound in zip(logits, _bounds(logits), strict=True):
        u = own.value(read, [*rows, *bound])
        mask = own.mask(read, [*rows, *bound], u.dtype)
        if mask is not None:
            u, mask = jnp.broadcast_arrays(u, mask)
        us.append(_flat(u, len(rows)))
        masks.append(None if mask is None else _flat(mask, len(rows)))
    if any(mask is not None for mask in masks):
        masks = [jnp.ones_like(u) if m is None else m for u, m in zip(us, masks, strict=True)]
    mask = None if masks[0] is None else _side_by_side(masks)
    return rows, _side_by_side(us), mask


def _union(lists: Any) -> list[int]:
    return list(dict.fromkeys(label for labels in lists for label in labels))


def _flat(x: Any, rows: int) -> Any:
    """The axes after the first ones as one."""
    return x if x.ndim == rows + 1 else x.reshape(*x.shape[:rows], -1)


def _side_by_side(xs: list[Any]) -> Any:
    if len(xs) == 1:
        return xs[0]
    shape = jnp.broadcast_shapes(*(x.shape[:-1] for x in xs))
    return jnp.concatenate([jnp.broadcast_to(x, (*shape, x.shape[-1])) for x in xs], -1)
