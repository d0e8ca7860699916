"""Norms whose statistic stands apart from what it divides: it is moved there.

A value times powers of its own statistics is a normalisation, and a factor without a label that a
contraction sums over passes through the contraction: (x @ w) r(x) is (x r(x)) @ w.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .._analysis import primitives as prim
from .._analysis.compat import Equation, Var, is_literal
from .._analysis.exponentials import Exponentials
from .._analysis.monomials import Factor, Index, link, product_operands, through
from .normalization import is_statistic
from .weighted_mean import Made, Read, aligned, times

_DEEPEST = 16


class Moved(NamedTuple):
    """A statistic, and the way from a factor to the value that it is a statistic of.

    Attributes:
        way: equations, and the operand of each.
        axes: the labels of the value.
        statistic: the statistic.
        power: its power.
    """

    way: tuple[tuple[Equation, int], ...]
    axes: Index
    statistic: Factor
    power: int


def normalised(
    powers: Mapping[Factor, int], exponentials: Exponentials
) -> tuple[list[Made], dict[Factor, int]]:
    """The norms in a product, and the factors beside them."""
    explained = [f for f in powers if exponentials.monomials.explained(f)]
    moved: dict[Factor, list[Moved]] = {}
    for statistic in explained:
        for value in explained:
            if value is statistic or powers[value] != 1 or statistic in moved:
                continue
            found = _place(value.var, value.axes, statistic, powers[statistic], exponentials, 0)
            if found is not None:
                moved.setdefault(value, []).append(found)
                break
    gone = {m.statistic for items in moved.values() for m in items} | set(moved)
    made = [_made(value, items) for value, items in moved.items() if value not in _stats(moved)]
    if len(made) < len(moved):
        return [], dict(powers)
    return made, {f: p for f, p in powers.items() if f not in gone}


def _stats(moved: Mapping[Factor, list[Moved]]) -> set[Factor]:
    return {m.statistic for items in moved.values() for m in items}


def _place(
    var: Var, axes: Index, statistic: Factor, power: int, exponentials: Exponentials, depth: int
) -> Moved | None:
    """Where in the making of a factor a statistic belongs."""
    monomials = exponentials.monomials
    graph = monomials.graph
    fits = statistic.labels <= {a for a in axes if a is not None}
    if not fits or depth > _DEEPEST:
        return None
    if is_statistic(graph, var, statistic.var, monomials.same, divides=power < 0) is not None:
        return Moved((), axes, statistic, power)
    eqn = graph.maker.get(var)
    if eqn is None:
        return None
    for position, inner in _operands(eqn, axes, exponentials):
        atom = monomials.same.get(eqn.invars[position], eqn.invars[position])
        found = _place(atom, inner, statistic, power, exponentials, depth + 1)
        if found is not None:
            return found._replace(way=((eqn, position), *found.way))
    return None


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
    if product_operands(eqn, graph) is None or len(explained) != 1:
        return []
    divides = eqn.primitive is prim.DIV and explained == [1]
    (position,) = explained
    return [] if divides else [(position, through(eqn.invars[position], None, axes))]


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
        value = eqn.primitive.bind(*operands, **eqn.params)
    here = [m for m in moved if not m.way]
    if not here:
        return value
    order = [-1000 - i if a is None else a for i, a in enumerate(here[0].axes)]
    statistic, sign = None, 1 if any(m.power > 0 for m in here) else -1
    for m in sorted(here, key=lambda m: -m.power * sign):
        for _ in range(abs(m.power)):
            factor = times(m.statistic, read, order)
            if statistic is None:
                statistic = factor
            else:
                same_way = (m.power > 0) == (sign > 0)
                statistic = statistic * factor if same_way else statistic / factor
    return (value * statistic if sign > 0 else value / statistic).astype(value.dtype)
