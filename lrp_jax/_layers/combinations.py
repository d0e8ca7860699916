"""Sums in which one value stands several times: 3 y - 2 y is y, and v + v tanh(u) a product.

What is added is told apart by its factors (`_analysis.monomials`); multiples of the same product
are one summand.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from .._analysis import primitives as prim
from .._analysis.compat import Equation, Var, is_literal
from .._analysis.monomials import Factor, Index, Monomials, constant, link, own_index, through
from .softmax_forms import times

Read = Callable[[Var], Any]
_MOST = 32


class Summand(NamedTuple):
    """A number times a variable with labels; `turned` where more than a difference negates it."""

    number: float
    atom: Any
    labels: Index
    turned: bool = False


def combined(eqn: Equation, monomials: Monomials) -> Callable[[Read], Any] | None:
    """How a sum is computed without repetitions, or a common factor of all that is added; None
    where an equation is no sum with some."""
    out = eqn.outvars[0]
    is_real = jnp.issubdtype(out.aval.dtype, jnp.floating)
    if not (is_real and eqn.primitive in prim.SUMS) or _goes_on(out, monomials):
        return None
    for shifts in (False, True):  # a bias belongs to what it is added to, unless it cancels
        summands = _summands(out, own_index(out), 1.0, monomials, shifts=shifts, top=True)
        if not 1 < len(summands) <= _MOST:
            continue
        forms = [monomials.factors(s.atom, s.labels) for s in summands]
        way = _without_repetition(out, summands, forms, monomials, shifts)
        if way is None and not shifts:
            numbers = [s.number * own for s, (own, _) in zip(summands, forms, strict=True)]
            way = _with_common_factor(out, numbers, [powers for _, powers in forms], monomials)
        if way is not None:
            return way
    return None


def _without_repetition(
    out: Var, summands: Sequence[Summand], forms: Sequence[Any], monomials: Monomials, shifts: bool
) -> Callable[[Read], Any] | None:
    """A sum in which multiples of one value are one summand, and what is negated is subtracted."""
    found: dict[Any, Summand] = {}
    first: dict[Any, float] = {}
    repeats = False
    for summand, (own, powers) in zip(summands, forms, strict=True):
        key: Any = frozenset(powers.items()) if own else len(found)  # zeros are not multiples
        before = found.get(key)
        if before is None:
            found[key], first[key] = summand, own
            continue
        repeats = repeats or any(map(monomials.explained, powers))
        found[key] = before._replace(number=before.number + summand.number * own / first[key])
    left = sorted((s for s in found.values() if s.number), key=lambda s: s.number < 0)
    explained = [s for s in left if not is_literal(s.atom) and s.atom in monomials.graph.live]
    turned = len(explained) > 1 and left[0].number > 0 and any(s.turned for s in explained)
    if not explained or not (repeats or (turned and not shifts)):
        return None
    if len(explained) > 1 and out in monomials.dominator:
        return None  # one function of one value, as it is
    order = range(len(out.aval.shape))

    def way(read: Read) -> Any:
        total: Any = None
        for number, atom, index, _ in left:
            value = atom.val if is_literal(atom) else times(Factor(atom, index), read, order)
            value = jnp.asarray(value, out.aval.dtype)
            size = number if total is None else abs(number)
            value = value if size == 1 else value * size
            total = value if total is None else total - value if number < 0 else total + value
        return jnp.broadcast_to(total, out.aval.shape)

    return way


def _with_common_factor(
    out: Var, numbers: Sequence[float], forms: Sequence[Mapping[Factor, Any]], monomials: Monomials
) -> Callable[[Read], Any] | None:
    """A sum of products as one product, where what is left is a function of one other value: a sum
    v + v tanh(u) is v (1 + tanh(u))."""
    groups = [monomials.groups(powers) for powers in forms]
    common = {
        root: group
        for root, group in groups[0].items()
        if all(g.get(root) == group for g in groups) and all(p > 0 for p in group.values())
    }
    others = {root for g in groups for root in g} - common.keys()
    functions = {f.var for p in forms for f in p if monomials.explained(f)} & {*monomials.dominator}
    if not common or len(others) != 1 or not functions or out in monomials.dominator:
        return None
    rest = [
        {f: p for f, p in powers.items() if not any(f in group for group in common.values())}
        for powers in forms
    ]
    if not any(f.var in functions for powers in rest for f in powers):
        return None  # a sum of values
    if any(not monomials.explained(f) for powers in rest for f in powers):
        return None
    (root,) = others
    order = range(len(out.aval.shape))
    if len(root.labels) < len({label for g in common.values() for f in g for label in f.labels}):
        return None

    def product(powers: Mapping[Factor, Any], read: Read) -> Any:
        value = None
        for factor, power in powers.items():
            own = times(factor, read, order)
            own = own if power == 1 else own**power
            value = own if value is None else value * own
        return value

    def way(read: Read) -> Any:
        total: Any = None
        for number, powers in zip(numbers, rest, strict=True):
            value = product(powers, read)
            value = number if value is None else value if number == 1 else value * number
            total = value if total is None else total + value
        for group in common.values():
            total = product(group, read) * total
        return jnp.broadcast_to(total, out.aval.shape).astype(out.aval.dtype)

    return way


def _goes_on(var: Var, monomials: Monomials) -> bool:
    """Whether a larger sum takes this one in."""
    graph = monomials.graph
    while graph.read_once(var):
        reader = next(r for r in graph.readers[var] if r is not None and graph.is_live(r))
        if reader.primitive in prim.SUMS:
            return True
        if link(reader) is None and reader.primitive is not prim.NEG:
            return False
        var = reader.outvars[0]
    return False


def _summands(
    atom: Any, index: Index, number: float, monomials: Monomials, *, shifts: bool,
    turned: bool = False, top: bool = False, alone: bool = True,
) -> list[Summand]:  # fmt: skip
    """What is added in a sum that nobody else reads, nor what was moved of it (`alone`); with
    `shifts`, in shifts by constants too."""
    graph = monomials.graph
    own = [Summand(number, atom, index, turned)]
    eqn = None if is_literal(atom) else graph.maker.get(atom)
    if eqn is None or atom not in graph.live or atom in monomials.whole:
        return own
    several = len(graph.explained_operands(eqn)) > 1
    alone = alone and (top or graph.read_once(atom))
    if several and not alone:
        return own
    axes, invars = link(eqn), eqn.invars
    parts: list[tuple[Any, float]] = []
    if axes is not None:
        parts = [(invars[0], 1.0)]
    elif eqn.primitive in prim.SUMS and (several or shifts):
        parts = [(invars[0], 1.0), (invars[1], 1.0 if eqn.primitive in prim.ADD else -1.0)]
    elif eqn.primitive is prim.NEG:
        parts, turned = [(invars[0], -1.0)], True
    elif eqn.primitive in (prim.MUL, prim.DIV):
        divides = eqn.primitive is prim.DIV
        scales = ((p, constant(graph, invars[p])) for p in ((1,) if divides else (0, 1)))
        position, scale = next(((p, n) for p, n in scales if n), (0, None))
        if scale:
            parts = [(invars[1 - position], 1 / scale if divides else scale)]
            turned = turned or scale < 0
    if not parts:
        return own
    return [
        summand
        for operand, sign in parts
        for summand in _summands(
            operand,
            through(operand, axes, index),
            sign * number,
            monomials,
            shifts=shifts,
            turned=turned,
            alone=alone,
        )
    ]
