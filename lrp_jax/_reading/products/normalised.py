"""Norms whose statistic stands apart from what it divides: it is moved there.

A value times powers of its own statistics is a normalisation, and a factor without a label that a
contraction sums over passes through the contraction: (x @ w) r(x) is (x r(x)) @ w.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.factors import (
    Factor,
    Index,
    joined,
    link,
    own_index,
    power_of,
    powers_of,
    product_operands,
    through,
)
from ..._layers.normalization import is_statistic
from ..softmaxes.exponentials import Exponentials
from ..softmaxes.softmax_forms import Made, Read, aligned, times
from .sums_of_products import axes_summed

_DEEPEST = 16


class Moved(NamedTuple):
    """A statistic, and the way from a factor to the value that it is a statistic of.

    Attributes:
        way: equations, and the operand of each.
        axes: the labels of the value.
        statistic: the statistic.
        power: its power.
        summed: the axes of the value over which it is its sum, where it is made otherwise.
        floor: whether it divides where it is zero too, as its zero divides nothing in the product.
    """

    way: tuple[tuple[Equation, int], ...]
    axes: Index
    statistic: Factor
    power: float
    summed: tuple[int, ...] = ()
    floor: bool = False


def normalised(
    var: Var, number: float, powers: Mapping[Factor, Any], exponentials: Exponentials
) -> tuple[list[Made], list[Made], float, dict[Factor, Any]]:
    """The norms in a product, statistics that hold it, and the number and the factors beside them.

    Args:
        var: the product.
        number, powers: what it is.
        exponentials: of its graph.
    """
    monomials = exponentials.monomials
    explained = [f for f in powers if monomials.explained(f)]
    moved: dict[Factor, list[Moved]] = {}
    gone: set[Factor] = set()
    rest = dict(powers)
    scales: list[Made] = []
    held: list[Made] = []
    for statistic in explained:
        if statistic in gone:
            place = several = None
        else:
            place = _nearest(statistic, powers[statistic], powers, exponentials)
            several = _of_several(statistic, powers, exponentials, place is None)
        if several is not None:
            for value, found in several.places:
                moved.setdefault(value, []).append(found)
                gone |= {statistic, value}
            scales += [_power(f, p) for f, p in several.constants.items()]
            held.append(_rest(statistic, powers[statistic], several))
        elif place is not None:
            value, found = place
            moved.setdefault(value, []).append(found)
            gone |= {statistic, value}
        if statistic not in gone and len(explained) > 2:
            whole = _of_a_product(var, statistic, rest, exponentials)
            if whole is not None:
                factor, scale, inner, others = whole
                number, rest = number / scale, joined(others, inner, -1)
                moved[factor] = [Moved((), factor.axes, statistic, powers[statistic])]
                gone |= {statistic, *inner}
    for value, items in moved.items():  # a function that is normed as a whole is not opened
        if value.var in monomials.dominator and not all(m.way for m in items):
            gone -= {m.statistic for m in items if m.way}
            items[:] = [m for m in items if not m.way]
    _same_statistics(powers, moved, gone, exponentials)
    values = set(moved)
    if values & _stats(moved):
        return [], [], number, dict(powers)
    made = [_made(value, items) for value, items in moved.items()]
    return [*made, *scales], held, number, {f: p for f, p in rest.items() if f not in gone}


def _nearest(
    statistic: Factor, power: float, powers: Mapping[Factor, Any], exponentials: Exponentials
) -> tuple[Factor, Moved] | None:
    """The factor in whose making a statistic belongs, and where; what is nearest: a norm of x @ a
    divides x @ a rather than x @ b."""
    monomials, places = exponentials.monomials, []
    for value in filter(monomials.explained, powers):
        if powers[value] != 1 or _root(value, exponentials) == _root(statistic, exponentials):
            continue
        found = _place(value.var, value.axes, statistic, power, exponentials, 0)
        places += [(value, found)] if found is not None else []
    position = monomials.graph.position
    return max(places, key=lambda p: position[_at(p[0].var, p[1])], default=None)


class Several(NamedTuple):
    """What a divisor would be without what keeps it from zero: a product of statistics.

    Attributes:
        places: a factor in the making of which each statistic belongs, and where.
        constants: the powers of constants beside the statistics.
    """

    places: list[tuple[Factor, Moved]]
    constants: dict[Factor, float]


def _of_several(
    statistic: Factor, powers: Mapping[Factor, Any], exponentials: Exponentials, alone: bool
) -> Several | None:
    """A divisor that is a function of a product of statistics, each of another value.

    Args:
        statistic: the divisor.
        powers: of the product in which it is.
        exponentials: of its graph.
        alone: whether the divisor is a statistic of no value as it stands.
    """
    monomials = exponentials.monomials
    places: list[tuple[Factor, Moved]] = []
    constants: dict[Factor, float] = {}
    for factor, power in _inside(statistic, powers[statistic], exponentials).items():
        known = factor.case is None and factor.var in monomials.nonnegative
        if not monomials.explained(factor):
            constants |= {factor: power} if known else {}
            continue
        found = _nearest(factor, power, powers, exponentials) if known and power < 0 else None
        if found is None:
            return None
        places.append((found[0], found[1]._replace(floor=True)))
    several = len({_at(value.var, found) for value, found in places}) > 1
    return Several(places, constants) if several or (alone and places) else None


def _inside(statistic: Factor, power: float, exponentials: Exponentials) -> dict[Factor, float]:
    """The powers of which a divisor is a function: what is inside of roots, and without what is
    added to it or is its least value."""
    monomials, graph = exponentials.monomials, exponentials.graph
    found: dict[Factor, float] = {statistic: power}
    for _ in range(_DEEPEST):
        if len(found) != 1:
            break
        ((factor, power),) = found.items()
        eqn = graph.maker.get(factor.var)
        operands = [] if eqn is None else graph.explained_operands(eqn)
        if eqn is None or len(operands) != 1 or factor.var in monomials.whole:
            break
        raised = power_of(eqn)
        if raised is None and eqn.primitive not in _STABILISERS:
            break
        inner = through(eqn.invars[operands[0]], None, factor.axes)
        _, parts = monomials.factors(eqn.invars[operands[0]], inner, finest=True)
        found = {f: p * power * (1.0 if raised is None else raised) for f, p in parts.items()}
    return found if factor is not statistic or len(found) > 1 else {}


_STABILISERS = frozenset((*prim.ADD, prim.MAX, compat.primitive("clamp")))


def _power(factor: Factor, power: float) -> Made:
    return lambda read, order: _raised(_above_zero(times(factor, read, order)), power)


def _raised(value: Any, power: float) -> Any:
    first, *others = powers_of(value, abs(power))
    raised = math.prod(others, start=first)
    return raised if power > 0 else 1 / raised


def _above_zero(value: Any) -> Any:
    return jnp.maximum(value, jnp.finfo(value.dtype).tiny)


def _rest(statistic: Factor, power: float, several: Several) -> Made:
    """A divisor over the product of statistics that is in it."""
    inside = [(m.statistic, m.power) for _, m in several.places]
    inside += several.constants.items()

    def made(read: Read, order: Sequence[int]) -> Any:
        first, *others = (_power(f, -p)(read, order) for f, p in inside)
        whole = math.prod(others, start=first)
        divisor = times(statistic, read, order)
        return whole / divisor if power == -1 else whole * _raised(divisor, power)

    return made


def _at(value: Var, moved: Moved) -> Var:
    """What a statistic is moved to, in the making of a value."""
    if not moved.way:
        return value
    eqn, position = moved.way[-1]
    return eqn.invars[position]


def _of_a_product(
    var: Var, statistic: Factor, powers: Mapping[Factor, Any], exponentials: Exponentials
) -> tuple[Factor, float, dict[Factor, Any], dict[Factor, Any]] | None:
    """The product of some factors beside a statistic of it; with the number that it has more than
    they have, its finest powers, and those of all factors beside the statistic."""
    monomials = exponentials.monomials
    graph = monomials.graph
    divides = powers.get(statistic, 0) < 0
    own, powers = monomials.finest({f: p for f, p in powers.items() if f is not statistic})
    seen: set[Var] = set()
    todo = [statistic.var]
    while todo:
        above = todo.pop()
        eqn = graph.maker.get(above)
        if above in seen or eqn is None:
            continue
        seen.add(above)
        todo += [eqn.invars[i] for i in graph.explained_operands(eqn)]
        if above.aval.shape != var.aval.shape or not monomials.is_product(eqn):
            continue
        number, inner = monomials.factors(above, finest=True)
        several = sum(map(monomials.explained, inner)) > 1
        if not (several and all(powers.get(f) == p for f, p in inner.items())):
            continue
        if is_statistic(graph, above, statistic.var, monomials.same, divides=divides):
            return Factor(above, own_index(above)), number / own, inner, powers
    return None


def _same_statistics(
    powers: Mapping[Factor, Any], moved: dict[Factor, list[Moved]], gone: set[Factor],
    exponentials: Exponentials,
) -> None:  # fmt: skip
    """Other functions of a statistic that is moved: they go where it goes."""
    for factor, power in powers.items():
        if factor in gone or not exponentials.monomials.explained(factor):
            continue
        root = _root(factor, exponentials)
        for items in moved.values():
            known = next((m for m in items if _root(m.statistic, exponentials) == root), None)
            if known is not None:
                items.append(known._replace(statistic=factor, power=power))
                gone.add(factor)
                break


def _root(factor: Factor, exponentials: Exponentials) -> Factor:
    """What a factor is a function of, number by number, before it was cast or spread out."""
    (root,) = exponentials.unlinked({exponentials.monomials.tree(factor): 1})
    return root


def _stats(moved: Mapping[Factor, list[Moved]]) -> set[Factor]:
    return {m.statistic for items in moved.values() for m in items}


def _place(
    var: Var, axes: Index, statistic: Factor, power: float, exponentials: Exponentials, depth: int
) -> Moved | None:
    """Where in the making of a factor a statistic belongs."""
    monomials = exponentials.monomials
    graph = monomials.graph
    fits = statistic.labels <= {a for a in axes if a is not None}
    if not fits or depth > _DEEPEST:
        return None
    if is_statistic(graph, var, statistic.var, monomials.same, divides=power < 0) is not None:
        return Moved((), axes, statistic, power)
    divisors = list(monomials.finest({statistic: power})[1].items())
    if len(divisors) == 1 and divisors[0][1] == -1:
        summed = axes_summed(var, axes, divisors[0][0], exponentials)
        if summed is not None:
            return Moved((), axes, statistic, -1, summed)
    eqn = graph.maker.get(var)
    if eqn is None:
        return None
    places: list[Moved] = []
    for position, inner in _operands(eqn, axes, exponentials):
        atom = monomials.same.get(eqn.invars[position], eqn.invars[position])
        found = _place(atom, inner, statistic, power, exponentials, depth + 1)
        if found is not None:
            places.append(found._replace(way=((eqn, position), *found.way)))
    return max(places, key=lambda m: graph.position[_at(var, m)], default=None)


def _is_power_of_more(eqn: Equation) -> bool:
    power = power_of(eqn)
    return power is not None and power > 1 and power == int(power)


def _operands(eqn: Equation, axes: Index, exponentials: Exponentials) -> list[tuple[int, Index]]:
    """The explained operands in which an equation is linear, with their labels."""
    graph = exponentials.graph
    explained = graph.explained_operands(eqn)
    if eqn.primitive is prim.DOT:
        indices, _ = exponentials.contraction(eqn, axes)
        return [(i, indices[i]) for i in explained]
    if eqn.primitive is prim.REDUCE_SUM:
        return [(0, exponentials.summed(eqn, axes)[0])]
    shape = link(eqn)
    if shape is not None:
        return [(0, through(eqn.invars[0], shape, axes))]
    if _is_power_of_more(eqn):  # x^n is a product with x
        return [(0, axes)]
    if product_operands(eqn, graph) is None:
        return []
    divisor = 1 if eqn.primitive is prim.DIV else None
    return [(i, through(eqn.invars[i], None, axes)) for i in explained if i != divisor]


def _made(value: Factor, moved: Sequence[Moved]) -> Made:
    def made(read: Read, order: Sequence[int]) -> Any:
        return aligned(_normalised(value.var, moved, read), value.axes, order)

    return made


def _normalised(var: Var, moved: Sequence[Moved], read: Read) -> Any:
    """A variable with the statistics where they belong."""
    inside = [m for m in moved if m.way]
    value = read(var)
    if inside:
        eqn = inside[0].way[0][0]
        operands = [a.val if is_literal(a) else read(a) for a in eqn.invars]
        for position in {m.way[0][1] for m in inside}:
            mine = [m._replace(way=m.way[1:]) for m in inside if m.way[0][1] == position]
            operands[position] = _normalised(eqn.invars[position], mine, read)
        if _is_power_of_more(eqn):
            value = operands[0] * read(eqn.invars[0]) ** (int(power_of(eqn) or 0) - 1)
        else:
            value = compat.applied(eqn, *operands)
    here = [m for m in moved if not m.way]
    if not here:
        return value
    order = [-1000 - i if a is None else a for i, a in enumerate(here[0].axes)]
    statistic, sign = None, 1 if any(m.power > 0 for m in here) else -1
    for m in sorted(here, key=lambda m: -m.power * sign):
        own = (
            times(m.statistic, read, order) if not m.summed else value.sum(m.summed, keepdims=True)
        )
        own = _above_zero(own) if m.floor else own
        for factor in powers_of(own, abs(m.power)):
            if statistic is None:
                statistic = factor
            else:
                same_way = (m.power > 0) == (sign > 0)
                statistic = statistic * factor if same_way else statistic / factor
    return (value * statistic if sign > 0 else value / statistic).astype(value.dtype)
