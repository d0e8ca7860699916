"""Softmaxes, and means weighted by them, computed in the form in which they are recognised."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._analysis.compat import Var
from ..._analysis.factors import Factor, Index
from ..._analysis.monomials import Monomials
from .exponential_terms import Term
from .exponentials import Exponentials
from .inside_exponentials import softplus_of

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


def times(factor: Factor, read: Read, order: Sequence[int], dtype: Any = None) -> Any:
    """A factor's value with the axes of some labels, one wide where it has none."""
    value = read(factor.var)
    if factor.case is not None:
        value = (value == factor.case).astype(dtype or jnp.result_type(float))
    return aligned(value, factor.axes, order)


def multiplied(powers: Mapping[Factor, Any], read: Read, order: Sequence[int]) -> Any:
    """The product of powers of some factors, with the axes of some labels; at least one factor."""
    values = [(times(factor, read, order), power) for factor, power in powers.items()]
    first, *others = (value if power == 1 else value**power for value, power in values)
    return math.prod(others, start=first)


def aligned(x: Any, axes: Sequence[int | None], order: Sequence[int]) -> Any:
    """An array with the axes of some labels, one wide where it has none."""
    in_place = [label is None or label == own for label, own in zip(axes, order, strict=False)]
    if len(axes) == len(order) and all(in_place):
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
    """The logits of some weights: multiples of arrays, which are added, and their labels."""

    parts: Mapping[Factor, float]
    term: Term

    @property
    def alone(self) -> Factor | None:
        """The array that they are, where they are one."""
        return next(iter(self.parts)) if [*self.parts.values()] == [1] else None

    def labels(self) -> list[int]:
        """The labels of the logits, in the order of their own axes."""
        factors = [*self.parts, *self.term.powers]
        return list(dict.fromkeys(a for f in factors for a in f.axes if a is not None))

    def value(self, read: Read, order: Sequence[int]) -> Any:
        parts = [
            times(f, read, order) if c == 1 else times(f, read, order) * c
            for f, c in self.parts.items()
        ]
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
    """The logits as sums of variables that were seen on the way to the term, the largest first."""
    left, parts = dict(term.exponent), dict[Factor, float]()
    for factor, form in reversed(exponentials.named):
        own = form.exponent
        if form.powers or form.number != 1 or not own or not term.bound & factor.labels:
            continue
        if len(own) == 1 and factor in own:
            continue
        scales = {left[f] / c if f in left else 0.0 for f, c in own.items()}
        if len(scales) == 1 and (scale := scales.pop()):
            parts[factor] = scale
            left = {f: c for f, c in left.items() if f not in own}
    return Logits({**parts, **left}, term)


def exponential_of(
    var: Var, index: Index, monomials: Monomials
) -> Callable[[Read, Sequence[int]], Any] | None:
    """How the exponential of a sum of logarithms is what is inside of them; one of a softplus is
    one over a sigmoid."""
    graph = monomials.graph
    form = monomials.logarithms(var, index, lambda eqn: softplus_of(eqn, graph) is not None)
    if form is None:
        return None

    def power(read: Read, order: Sequence[int]) -> Any:
        value: Any = None
        for eqn, axes, exponent in form:
            if (softplus := softplus_of(eqn, graph)) is None:
                own = times(Factor(eqn.invars[0], axes), read, order)
            else:
                inner, floor = softplus
                own = jax.nn.sigmoid(floor - times(Factor(inner, axes), read, order))
                own, exponent = own * math.exp(-floor), -exponent
            own = own if exponent == 1 else own**exponent
            value = own if value is None else value * own
        return value

    return power


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
            value = value * jax.lax.stop_gradient(times(factor, read, order, dtype)) ** power
        exponent = jnp.zeros((), dtype)
        for factor, coefficient in term.exponent.items():
            exponent = exponent + times(factor, read, order) * coefficient
        value = value * jnp.exp(exponent) if term.exponent else value
        total = value if total is None else total + value
    return total


def softmax(
    weight: Weight, others: Sequence[Term], normaliser: Normaliser, exponentials: Exponentials
) -> Made:
    """A softmax with the axes of its logits; of some of them, where there are others."""
    logits = logits_of(weight.term, exponentials)
    blocks = [logits, *(logits_of(term, exponentials) for term in others)]
    own = logits.labels()
    factor = logits.alone
    power = factor and exponential_of(factor.var, factor.axes, exponentials.monomials)

    def part(read: Read, order: Sequence[int]) -> Any:
        rows, u, mask = blocks_of(blocks, read)
        (bound,) = _bounds([logits])
        rest = rest_of(normaliser, read, [*rows, 10**6], u.dtype)
        p = _normalised(u, mask, rest, (u.ndim - 1,))
        sizes = logits.value(read, [*rows, *bound]).shape[len(rows) :]
        p = jax.lax.slice_in_dim(p, 0, math.prod(sizes), axis=u.ndim - 1)
        p = p.reshape(*p.shape[:-1], *sizes)
        return aligned(p, [*rows, *(weight.labels[b] for b in bound)], order)

    def made(read: Read, order: Sequence[int]) -> Any:
        if others:
            return part(read, order)
        u = logits.value(read, own)
        axes = tuple(i for i, label in enumerate(own) if label in weight.term.bound)
        rest = rest_of(normaliser, read, own, u.dtype)
        mask = logits.mask(read, own, u.dtype)
        if power is not None:  # softmax(log a) is a / sum a
            e = jnp.broadcast_to(power(read, own), u.shape)
            e = e if mask is None else e * mask
            total = jnp.sum(e, axes, keepdims=True)
            p = e / (total if rest is None else total + rest)
        else:
            p = _normalised(u, mask, rest, axes)
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
