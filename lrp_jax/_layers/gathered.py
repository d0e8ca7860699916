"""Sums in which a value stands several times, times functions of another: v + v tanh(u) is
v (1 + tanh(u)), and b + g (a - b) is (1 - g) b + g a.

What multiplies a value is one function, wherever in a sum the value stands. So a state that moves
towards another as far as a gate is open is a gated mean of both, as most cells write it.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from .._analysis import primitives as prim
from .._analysis.compat import Var, is_literal
from .._analysis.factors import Factor, joined, link, own_index
from .._analysis.graph import Graph
from .._analysis.monomials import Monomials
from .._analysis.primitives import Family, family
from .combinations import MOST, Summand, is_sum, is_whole, summands
from .softmax_forms import multiplied

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
        if out is None or out in monomials.dominator or not is_whole(out, graph, roots):
            continue
        # A bias belongs to what it is added to, unless it stands there several times.
        parts = _parts(out, monomials, shifts=False) or _parts(out, monomials, shifts=True)
        if parts is not None:
            found[id(eqn)] = _way(out, parts)
    return found


def _way(out: Var, parts: Sequence[Multiple]) -> Callable[[Read], Any]:
    order = range(len(out.aval.shape))

    def product(term: Multiple, read: Read) -> Any:
        value = multiplied(term.powers, read, order) if term.powers else None
        return value * total(term.functions, read) if term.functions else value

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
    terms = _products(found, monomials)
    terms = [inner for term in terms for inner in _opened(term, terms, monomials, shifts)]
    left, parts = terms, list[Multiple]()
    while left:
        first, *others = left
        together, left, shared = [first], [], None
        for other in others:
            both = _shared([*together, other], monomials)
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
        found = summands(factor.var, factor.axes, term.number, monomials, shifts=shifts, top=True)
        inner = _products(found, monomials)
        more = [part for part in inner if part.number]  # a state begins with zeros
        if len(more) > 1 and factor.var in monomials.dominator:
            continue  # one function, as 1 - g
        if any(a.powers == b.powers for a in more for b in terms if a.powers and b.number):
            return [Multiple(a.number, joined(a.powers, gate)) for a in inner]
    return [term]


def _is_function(powers: Powers, monomials: Monomials) -> bool:
    """Whether a product is a function of one explained value, perhaps one that was moved."""
    return (
        len(monomials.groups(powers)) == 1
        and all(map(monomials.explained, powers))
        and any(monomials.is_function(_before_moves(f.var, monomials.graph)) for f in powers)
    )


def _before_moves(var: Var, graph: Graph) -> Var:
    moves = (Family.NEUTRAL, Family.STRUCTURAL)
    while (eqn := graph.maker.get(var)) is not None and family(eqn.primitive) in moves:
        operands = graph.explained_operands(eqn)
        if len(operands) != 1:
            break
        var = eqn.invars[operands[0]]
    return var


def _shared(terms: Sequence[Multiple], monomials: Monomials) -> Multiple | None:
    """Terms as what they share times a sum of functions of one other value; None where they are
    no such terms."""
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
    if not value or not _is_function(together, monomials):
        return None
    functions = (Multiple(t.number, rest) for t, rest in zip(terms, rests, strict=True))
    return Multiple(1.0, value, tuple(functions))
