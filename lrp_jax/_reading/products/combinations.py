"""Sums in which one value stands several times: 3 y - 2 y is y.

What is added is told apart by its factors (`_analysis.monomials`); multiples of the same product
are one summand.
"""

from collections.abc import Callable, Container, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from ..._analysis import primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.factors import Factor, Index, constant, is_by_numbers, link, own_index, through
from ..._analysis.graph import Graph
from ..._analysis.monomials import Monomials
from ..softmaxes.softmax_forms import times

Read = Callable[[Var], Any]
MOST = 32


class Summand(NamedTuple):
    """A number times a variable with labels.

    Attributes:
        number, atom, labels: both, and the labels of the variable's axes.
        turned: whether more than a difference negates it.
        whole: the same before the variable is taken apart from positive numbers that scale it, if
            it is: a scale belongs to the layer before it.
    """

    number: float
    atom: Any
    labels: Index
    turned: bool = False
    whole: "Summand | None" = None


def combined(
    eqn: Equation, monomials: Monomials, roots: Container[Var]
) -> Callable[[Read], Any] | None:
    """How a sum is computed without repetitions; None where an equation is no sum with some.

    Args:
        eqn: the equation.
        monomials: the graph's products.
        roots: what layers are functions of, whatever they do with it.
    """
    out = eqn.outvars[0]
    if not is_sum(eqn) or not is_whole(out, monomials.graph, roots):
        return None
    for shifts in (False, True):  # a bias belongs to what it is added to, unless it cancels
        found = summands(out, own_index(out), 1.0, monomials, shifts=shifts, top=True)
        if 1 < len(found) <= MOST:
            forms = [monomials.factors(s.atom, s.labels) for s in found]
            way = _without_repetition(out, found, forms, monomials, shifts)
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
        number = before.number + summand.number * own / first[key]
        found[key] = before._replace(number=number, whole=None)
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
        for number, atom, index, *_ in (s.whole or s for s in left):
            value = atom.val if is_literal(atom) else times(Factor(atom, index), read, order)
            value = jnp.asarray(value, out.aval.dtype)
            size = number if total is None else abs(number)
            value = value if size == 1 else value * size
            total = value if total is None else total - value if number < 0 else total + value
        return jnp.broadcast_to(total, out.aval.shape)

    return way


def is_sum(eqn: Equation) -> bool:
    """Whether an equation adds real numbers, or subtracts them."""
    out = eqn.outvars[0].aval if eqn.primitive in prim.SUMS else None
    return out is not None and jnp.issubdtype(out.dtype, jnp.floating)


def is_whole(var: Var, graph: Graph, roots: Container[Var] = ()) -> bool:
    """Whether no larger sum takes this one in, outside of the layers that begin at some roots."""
    while var not in roots and graph.read_once(var):
        reader = next(r for r in graph.readers[var] if r is not None and graph.is_live(r))
        if reader.primitive in prim.SUMS:
            return False
        if link(reader) is None and reader.primitive is not prim.NEG:
            return True
        var = reader.outvars[0]
    return True


def summands(
    atom: Any, index: Index, number: float, monomials: Monomials, *, shifts: bool,
    turned: bool = False, top: bool = False, alone: bool = True, whole: Summand | None = None,
    deepest: int = MOST,
) -> list[Summand]:  # fmt: skip
    """What is added in a sum that nobody else reads, nor what was moved of it (`alone`); with
    `shifts`, in shifts by constants too. Sums in sums are opened as often as `deepest` says."""
    graph = monomials.graph
    one = Summand(number, atom, index, turned)
    own = [one._replace(whole=whole)]
    eqn = None if is_literal(atom) else graph.maker.get(atom)
    if eqn is None or atom not in graph.live or atom in monomials.whole:
        return own
    several = len(graph.explained_operands(eqn)) > 1
    alone = alone and (top or graph.read_once(atom))
    if several and not (alone and deepest):
        return own
    axes, invars = link(eqn), eqn.invars
    parts: list[tuple[Any, float]] = []
    if axes is not None:
        parts = [(invars[0], 1.0)]
    elif eqn.primitive in prim.SUMS and (
        several or (shifts and (top or not _is_function(eqn, monomials)))
    ):
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
            whole = (whole or one) if scale > 0 else None
    if not parts:
        return own
    if axes is None and eqn.primitive not in (prim.MUL, prim.DIV):
        whole = None
    return [
        summand
        for operand, sign in parts
        for summand in summands(
            operand,
            through(operand, axes, index),
            sign * number,
            monomials,
            shifts=shifts,
            turned=turned,
            alone=alone,
            whole=whole,
            deepest=deepest - several,
        )
    ]


def _is_function(eqn: Equation, monomials: Monomials) -> bool:
    """Whether a number is added to a function: 1 - g is one of what g is one of."""
    return is_by_numbers(eqn, monomials.graph) and monomials.is_function(eqn.outvars[0])
