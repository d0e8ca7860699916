"""Logarithms of sums of exponentials, in whatever way they are written.

log(a b^p sum exp(u)) is log a + p log b + logsumexp(u): so the logarithm of a softmax is its logits
minus their log-sum-exp, and what is common to all exponentials stands before the sum.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from ..._analysis import primitives as prim
from ..._analysis.compat import Equation, Var
from ..._analysis.factors import Factor, Index, own_index
from ..._layers.step import Found
from .exponential_terms import Term, rounded
from .exponentials import Exponentials
from .inside_exponentials import is_logaddexp
from .softmax_forms import (
    Logits,
    Normaliser,
    blocks_of,
    logits_of,
    rest_of,
    shifted_exponentials,
    times,
)
from .weighted_mean import normaliser_of

Read = Callable[[Var], Any]


def logarithm(
    eqn: Equation, exponentials: Exponentials, found: Mapping[Var, Found]
) -> Callable[[Read], Any] | None:
    """How a logarithm of exponentials is computed as a sum of logits and log-sum-exps; None where
    an equation is no such logarithm, or is written so."""
    out = eqn.outvars[0]
    if eqn.primitive is not prim.LOG:
        return _of_two(eqn, exponentials) or _without_shift(eqn, exponentials)
    inside = exponentials.rep(eqn.invars[0]) in exponentials.inside
    if not inside or _is_known(eqn, exponentials, found):
        return None
    exponentials.named.clear()
    form = _form(eqn.invars[0], own_index(out), exponentials)
    return None if form is None else _as_sum(out, form, exponentials)


def _without_shift(eqn: Equation, exponentials: Exponentials) -> Callable[[Read], Any] | None:
    """How logits minus their own log-sum-exp are computed, where both were shifted alike: the shift
    is no bias of a layer before it."""
    out, graph = eqn.outvars[0], exponentials.graph
    if eqn.primitive is not prim.SUB or graph.explained_operands(eqn) != [0, 1]:
        return None
    logits, total = eqn.invars
    if total not in exponentials.logarithms or out in exponentials.monomials.dominator:
        return None
    exponentials.named.clear()
    own = exponentials.exponent(logits, own_index(logits))
    form = _form_of(exponentials.exponent(out, own_index(out)), exponentials)
    if form is None or own.number <= 0:
        return None
    linear, logs, sums = form
    more = own.powers or own.exponent.keys() > linear.exponent.keys()
    shifted = more or math.log(own.number) != linear.number
    once = [power for _, power in sums] == [-1]
    if not (shifted and once) or logs or not linear.exponent:
        return None
    return _as_sum(out, (replace(linear, number=rounded(linear.number)), logs, sums), exponentials)


def _as_sum(out: Var, form: Any, exponentials: Exponentials) -> Callable[[Read], Any]:
    """How a form that `_form` makes is computed."""
    linear, logs, sums = form
    logits = logits_of(Term(exponent=linear.exponent), exponentials)
    axis = None if logs else _own_axis(out, linear, sums)
    if axis is not None:

        def log_softmax(read: Read) -> Any:
            u = jnp.broadcast_to(logits.value(read, range(len(out.aval.shape))), out.aval.shape)
            e, largest = shifted_exponentials(u, None, (axis,))
            y = u - (jnp.log(jnp.sum(e, axis, keepdims=True)) + largest)
            return (y + linear.number if linear.number else y).astype(out.aval.dtype)

        return log_softmax
    blocks = [[logits_of(term, exponentials) for term in n.summed] for n, _ in sums]
    order = range(len(out.aval.shape))

    def way(read: Read) -> Any:
        total = jnp.asarray(linear.number, out.aval.dtype)
        if linear.exponent:
            total = total + logits.value(read, order)
        for factor, power in logs.items():
            total = total + power * jnp.log(times(factor, read, order))
        for own, (normaliser, power) in zip(blocks, sums, strict=True):
            y = _log_sum(own, normaliser, read, list(order))
            total = total + (y if power == 1 else power * y)
        return jnp.broadcast_to(total, out.aval.shape).astype(out.aval.dtype)

    return way


def _own_axis(out: Var, linear: Term, sums: list[tuple[Normaliser, float]]) -> int | None:
    """The axis of the one log-sum-exp that logits are reduced by, where it is of just them."""
    if [power for _, power in sums] != [-1] or not linear.exponent:
        return None
    ((normaliser, _),) = sums
    if len(normaliser.summed) != 1 or normaliser.rest:
        return None
    (term,) = normaliser.summed
    if term.powers or term.number != 1 or len(term.bound) != 1:
        return None
    for axis in range(len(out.aval.shape)):
        own = {
            f._replace(axes=tuple(axis if a in term.bound else a for a in f.axes)): c
            for f, c in term.exponent.items()
        }
        if own == linear.exponent:
            return axis
    return None


def _is_known(eqn: Equation, exponentials: Exponentials, found: Mapping[Var, Found]) -> bool:
    """Whether a logarithm is a layer as it stands, or the part of one before a shift."""
    out, graph = eqn.outvars[0], exponentials.graph
    readers = [r for r in graph.readers.get(out, ()) if r is not None]
    return out in found or any(v in found for r in readers for v in r.outvars)


def _form(atom: Any, index: Index, exponentials: Exponentials) -> Any:
    """A logarithm as a linear form, other logarithms, and log-sum-exps with their coefficients."""
    terms = exponentials.terms(atom, index, anew=True)
    if len(terms) == 1 and not terms[0].bound:
        return _form_of(terms[0], exponentials)
    return _form_of(Term(powers={Factor(exponentials.rep(atom), index): 1}), exponentials)


def _form_of(term: Term, exponentials: Exponentials) -> Any:
    """The logarithm of a term, likewise."""
    sums: list[tuple[Normaliser, float]] = []
    if term.number <= 0:
        return None
    number, exponent = math.log(term.number), dict(term.exponent)
    logs: dict[Factor, float] = {}
    todo = [(f, float(p)) for f, p in term.powers.items()]
    while todo:
        factor, power = todo.pop()
        normaliser = None
        if factor.var in exponentials.inside:
            normaliser = normaliser_of(factor, exponentials)
        if normaliser is None:
            if exponentials.monomials.explained(factor) and factor.var in exponentials.inside:
                return None
            if factor.case is None:  # the logarithm of a mask is nothing, where it is finite
                logs[factor] = logs.get(factor, 0) + power
            continue
        sums.append((normaliser._replace(before=Term()), power))
        before = normaliser.before
        if before.number <= 0:
            return None
        number += power * math.log(before.number)
        for f, c in before.exponent.items():
            exponent[f] = exponent.get(f, 0) + power * c
        todo += [(f, p * power) for f, p in before.powers.items()]
    sums = _together(sums)
    if not sums and (logs or not exponent):
        return None
    return Term(number, {}, {f: c for f, c in exponent.items() if c}), logs, sums


def _together(sums: list[tuple[Normaliser, float]]) -> list[tuple[Normaliser, float]]:
    """Each log-sum-exp once."""
    found: dict[Any, tuple[Normaliser, float]] = {}
    for normaliser, power in sums:
        key: Any = (
            id(normaliser) if normaliser.rest else None,
            *map(_without_names, normaliser.summed),
        )
        found[key] = (normaliser, found.get(key, (normaliser, 0.0))[1] + power)
    return [(normaliser, power) for normaliser, power in found.values() if power]


def _without_names(term: Term) -> Any:
    """A term whatever the axes are called that it is summed over."""
    names: dict[Any, Any] = {}

    def named(factor: Factor) -> Factor:
        axes = factor.axes
        own = (names.setdefault(a, ("bound", len(names))) if a in term.bound else a for a in axes)
        return factor._replace(axes=tuple(own))

    both = [
        frozenset((named(f), p) for f, p in sorted(part.items(), key=lambda i: id(i[0].var)))
        for part in (term.powers, term.exponent)
    ]
    return term.number, *both


def _log_sum(logits: list[Logits], normaliser: Normaliser, read: Read, order: list[int]) -> Any:
    """A log-sum-exp in the form in which it is recognised."""
    rows, u, mask = blocks_of(logits, read)
    e, largest = shifted_exponentials(u, mask, (u.ndim - 1,))
    total = jnp.sum(e, -1, keepdims=True)
    rest = rest_of(normaliser, read, [*rows, 10**6], u.dtype)
    if rest is not None:
        total = total + rest * jnp.exp(-largest)
    y = jax.lax.squeeze(jnp.log(total) + largest, [u.ndim - 1])
    shape = [y.shape[rows.index(label)] if label in rows else 1 for label in order]
    kept = sorted(range(len(rows)), key=lambda i: order.index(rows[i]))
    return jnp.transpose(y, kept).reshape(shape)


def _of_two(eqn: Equation, exponentials: Exponentials) -> Callable[[Read], Any] | None:
    """`jnp.logaddexp` of two values, as a log-sum-exp of both on top of each other."""
    if not is_logaddexp(eqn):
        return None
    a, b = eqn.invars
    graph = exponentials.graph
    if (
        graph.explained_operands(eqn) != [0, 1]
        or eqn.outvars[0] in exponentials.monomials.dominator
    ):
        return None
    shape, dtype = eqn.outvars[0].aval.shape, eqn.outvars[0].aval.dtype

    def way(read: Read) -> Any:
        u = jnp.stack([jnp.broadcast_to(read(v), shape) for v in (a, b)], -1)
        e, largest = shifted_exponentials(u, None, (u.ndim - 1,))
        y = jnp.log(jnp.sum(e, -1, keepdims=True)) + largest
        return jax.lax.squeeze(y, [u.ndim - 1]).astype(dtype)

    return way
