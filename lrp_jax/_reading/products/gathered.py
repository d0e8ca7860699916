"""Sums in which a value stands several times, times functions of another: v + v tanh(u) is
v (1 + tanh(u)), and b + g (a - b) is (1 - g) b + g a.

What multiplies a value is one function, wherever in a sum the value stands. So a state that moves
towards another as far as a gate is open is a gated mean of both, as most cells write it.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from ..._analysis import primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.factors import Factor, is_by_numbers, joined, link, own_index
from ..._analysis.graph import Graph
from ..._analysis.monomials import Monomials
from ..._analysis.primitives import Family, family
from ..softmaxes.softmax_forms import multiplied
from .combinations import MOST, Summand, is_sum, is_whole, summands

Read = Callable[[Var], Any]
Powers = Mapping[Factor, Any]


class Multiple(NamedTuple):
    """A number times a product of powers, times a sum of such where there is one."""

    number: float
    powers: Powers
    functions: "tuple[Multiple, ...]" = ()


def gathered(
    graph: Graph, monomials: Monomials, roots: Container[Var]
) -> dict[int, Callable[[Read], Any]]:
    """How sums are computed with each value once, by the `id` of their equations.

    Args:
        graph: a graph.
        monomials: its products.
        roots: what layers are functions of, whatever they do with it.
    """
    found: dict[int, Callable[[Read], Any]] = {}
    for eqn in graph.eqns:
        out = eqn.outvars[0] if is_sum(eqn) and graph.is_live(eqn) else None
        if out is None or _is_one_function(eqn, monomials) or not is_whole(out, graph, roots):
            continue
        # A bias belongs to what it is added to, unless it stands there several times.
        parts = _parts(out, monomials, shifts=False) or _parts(out, monomials, shifts=True)
        if parts is not None:
            found[id(eqn)] = _way(out, parts)
    return found


def _is_one_function(eqn: Equation, monomials: Monomials) -> bool:
    """Whether a sum is an elementwise function of one value; what a constant is added to may not
    be one."""
    dominator, graph = monomials.dominator, monomials.graph
    added = [eqn.invars[i] for i in graph.explained_operands(eqn)]
    return eqn.outvars[0] in dominator and (len(added) > 1 or added[0] in dominator)


def _way(out: Var, parts: Sequence[Multiple]) -> Callable[[Read], Any]:
    order = range(len(out.aval.shape))

    def product(term: Multiple, read: Read) -> Any:
        value = multiplied(term.powers, read, order) if term.powers else None
        if not term.functions:
            return value
        functions = total(term.functions, read)
        return functions if value is None else value * functions

    def total(terms: Iterable[Multiple], read: Read) -> Any:
        result: Any = None
        for term in sorted(terms, key=lambda term: (term.number < 0, len(term.powers))):
            value = product(term, read)
            size = term.number if result is None else abs(term.number)
            value = size if value is None else value if size == 1 else value * size
            less = result is not None and term.number < 0
            result = value if result is None else result - value if less else result + value
        return result

    return lambda read: jnp.broadcast_to(total(parts, read), out.aval.shape).astype(out.aval.dtype)


def _parts(out: Var, monomials: Monomials, *, shifts: bool) -> list[Multiple] | None:
    """A sum with each value once; None where it is written so."""
    found = summands(out, own_index(out), 1.0, monomials, shifts=shifts, top=True)
    if not 1 < len(found) <= MOST or not any(_multiplies(s.atom, monomials.graph) for s in found):
        return None
    closed = _products(found, monomials)
    terms = [inner for term in closed for inner in _opened(term, closed, monomials, shifts)]
    numbers = len(terms) > len(closed)
    # d - d g is a function before g w - g d is one, also where w is a number, as a first state
    terms.sort(key=lambda t: (bool(t.powers), not t.number, abs(t.number) != 1))
    left, parts = terms, list[Multiple]()
    while left:
        first, *others = left
        together, left, shared = [first], [], None
        for other in others:
            both = _shared([*together, other], monomials, numbers)
            shared = both or shared
            (left if both is None else together).append(other)
        parts.append(shared or first)
    return parts if len(parts) < len(terms) else None


def _multiplies(atom: Any, graph: Graph) -> bool:
    """Whether what is added is a product of two explained values."""
    while not is_literal(atom) and (eqn := graph.maker.get(atom)) is not None:
        if link(eqn) is None:
            several = len(graph.explained_operands(eqn)) > 1
            return eqn.primitive in (prim.MUL, prim.DIV) and several
        atom = eqn.invars[0]
    return False


def _products(found: Sequence[Summand], monomials: Monomials) -> list[Multiple]:
    """What is added in a sum, each in its factors."""
    forms = [(s.number, *monomials.factors(s.atom, s.labels)) for s in found]
    return [Multiple(number * own, powers) for number, own, powers in forms]


def _opened(
    term: Multiple, terms: Sequence[Multiple], monomials: Monomials, shifts: bool
) -> list[Multiple]:
    """A function times a sum, as a sum of products where what is added stands beside it too."""
    for factor, power in term.powers.items():
        gate = {f: p for f, p in term.powers.items() if f is not factor}
        eqn = monomials.graph.maker.get(factor.var)
        if power != 1 or eqn is None or not (is_sum(eqn) and monomials.graph.is_live(eqn)):
            continue
        if not _is_function(gate, monomials):
            continue
        for deepest in (1, MOST):  # a state before is one value, however it was made
            found = summands(
                factor.var, factor.axes, term.number, monomials, shifts=shifts, top=True,
                deepest=deepest,
            )  # fmt: skip
            inner = _products(found, monomials)
            more = [part for part in inner if part.number]  # a state begins with zeros
            ones = [abs(part.number) == 1 and not part.powers for part in more]
            if factor.var in monomials.dominator and any(ones):
                continue  # 1 - g is a function
            if any(_is_multiple(a, b) for a in more for b in terms):
                return [Multiple(a.number, joined(a.powers, gate)) for a in inner]
    return [term]


def _is_multiple(part: Multiple, term: Multiple) -> bool:
    """Whether a part of a sum is a multiple of a term, or the same number."""
    same = part.powers == term.powers and term.number
    return bool(same) and (bool(part.powers) or abs(part.number) == abs(term.number))


def _is_function(powers: Powers, monomials: Monomials) -> bool:
    """Whether a product is a function of one explained value, perhaps one that was moved."""
    return (
        len(monomials.groups(powers)) == 1
        and all(map(monomials.explained, powers))
        and any(_is_moved_function(f.var, monomials) for f in powers)
    )


def _is_moved_function(var: Var, monomials: Monomials) -> bool:
    """Whether a variable is a function, or moved from one, numbers added to it or scaling it."""
    graph = monomials.graph
    while not monomials.is_function(var):
        eqn = graph.maker.get(var)
        operands = [] if eqn is None else graph.explained_operands(eqn)
        if eqn is None or len(operands) != 1:
            return False
        moves = family(eqn.primitive) in (Family.NEUTRAL, Family.STRUCTURAL)
        affine = family(eqn.primitive) is Family.AFFINE
        if not moves and not (affine and is_by_numbers(eqn, graph)):
            return False
        var = eqn.invars[operands[0]]
    return True


def _shared(terms: Sequence[Multiple], monomials: Monomials, numbers: bool) -> Multiple | None:
    """Terms as what they share times a sum of functions of one other value; None where they are
    no such terms. With `numbers`, they may share a number alone."""
    groups = [monomials.groups(term.powers) for term in terms]
    value = {
        factor: power
        for root, group in groups[0].items()
        if all(own.get(root) == group for own in groups) and min(group.values()) > 0
        for factor, power in group.items()
    }
    value |= {
        factor: power
        for factor, power in terms[0].powers.items()
        if not monomials.explained(factor)
        and power > 0
        and all(term.powers.get(factor) == power for term in terms)
    }
    rests = [{f: p for f, p in term.powers.items() if f not in value} for term in terms]
    together = {f: p for rest in rests for f, p in rest.items()}
    of_numbers = numbers and not all(rests)
    if not (value or of_numbers) or not _is_function(together, monomials):
        return None
    functions = (Multiple(t.number, rest) for t, rest in zip(terms, rests, strict=True))
    return Multiple(1.0, value, tuple(functions))
