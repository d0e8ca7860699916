"""Running sums of exponentials, as sums over what came before: cumsum(e v) / cumsum(e) is a softmax
over the past in front of a contraction. One that is summed step by step begins with zeros."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.factors import Factor, Index, constant, link, own_index, product_operands, through
from ..._analysis.graph import Graph
from ..._analysis.monomials import Monomials
from .softmax_forms import multiplied

Read = Callable[[Var], Any]
_CUMSUM = compat.primitive("cumsum")
_MOST = 1 << 24
"""Of so many weights at most: each position has one for each before it."""


def running_sums(graph: Graph, monomials: Monomials) -> dict[int, Callable[[Read], Any]]:
    """How running sums of exponentials, and of products with them, are computed as contractions
    with a triangle, where one divides; by the `id` of their equations.

    Args:
        graph: a graph.
        monomials: its products.
    """
    sums = [e for e in graph.eqns if e.primitive is _CUMSUM and graph.is_live(e)]
    below = {_divisor(e.invars[1], graph) for e in graph.eqns if e.primitive is prim.DIV}
    divisors = [_summed(e, graph, monomials) for e in sums if e.outvars[0] in below]
    found = {
        id(eqn): _by_triangle(eqn)
        for eqn in sums
        if any(inner and inner <= _summed(eqn, graph, monomials) for inner in divisors)
    }
    for eqn in graph.eqns:
        if eqn.primitive in prim.ADD and graph.is_live(eqn):
            first = [a for a in eqn.invars if not _is_zero(a, graph)]
            if len(first) != 1 or not _in_quotient(eqn.outvars[0], graph):
                continue
            if _exponentials(first[0], graph, monomials):
                found[id(eqn)] = functools.partial(_first, first[0], eqn.outvars[0].aval.shape)
        elif eqn.primitive is prim.DIV and graph.explained_operands(eqn) == [0, 1]:
            mean = _mean_of_one(eqn, graph, monomials)
            found |= {} if mean is None else {id(eqn): mean}
    return found


def _in_quotient(var: Var, graph: Graph) -> bool:
    """Whether a value is divided, or divides, perhaps after it is multiplied."""
    readers = [e for e in graph.readers.get(var, ()) if e is not None and graph.is_live(e)]
    return any(
        e.primitive is prim.DIV
        or ((e.primitive is prim.MUL or link(e) is not None) and _in_quotient(e.outvars[0], graph))
        for e in readers
    )


def _first(var: Var, shape: Sequence[int], read: Read) -> Any:
    return jnp.broadcast_to(read(var), shape)


def _mean_of_one(eqn: Equation, graph: Graph, monomials: Monomials) -> Callable[[Read], Any] | None:
    """How e v / e is a mean of one value, as the others after it are of several; None of anything
    else."""
    (above, powers), (below, divisor) = (monomials.factors(a) for a in eqn.invars)
    explained = [f for f in divisor if monomials.explained(f)]
    if len(explained) != 1 or below <= 0 or any(powers.get(f) != p for f, p in divisor.items()):
        return None
    (exponential,), number = explained, above / below
    maker = graph.maker.get(exponential.var)
    if maker is None or maker.primitive is not prim.EXP or divisor[exponential] != 1:
        return None
    value = _beside(divisor, eqn.invars[0], own_index(eqn.invars[0]), monomials)
    before = {f: p for f, p in powers.items() if f not in divisor and f not in value}
    aval = eqn.outvars[0].aval
    logits = Factor(maker.invars[0], exponential.axes)

    def product(powers: Mapping[Factor, Any], read: Read) -> Any:
        return jnp.broadcast_to(multiplied(powers, read, range(len(aval.shape))), aval.shape)

    def way(read: Read) -> Any:
        u = product({logits: 1}, read)[..., None]
        mean = jnp.einsum("...k,...k->...", jax.nn.softmax(u), product(value, read)[..., None])
        mean = mean if number == 1 else mean * number
        return (mean * product(before, read) if before else mean).astype(aval.dtype)

    return way if value else None


def _beside(
    divisor: Mapping[Factor, Any], atom: Any, index: Index, monomials: Monomials
) -> Mapping[Factor, Any]:
    """What is multiplied by an exponential with its numbers first, in a product with them."""
    eqn = monomials.graph.maker.get(atom)
    operands = product_operands(eqn, monomials.graph) if eqn is not None else None
    for operand, axes, _ in operands or ():
        if isinstance(operand, Factor) or is_literal(operand):
            continue
        inner = through(operand, axes, index)
        if divisor.keys() < monomials.factors(operand, inner)[1].keys():
            return _beside(divisor, operand, inner, monomials)
    return {f: p for f, p in monomials.factors(atom, index)[1].items() if f not in divisor}


def _is_zero(atom: Any, graph: Graph) -> bool:
    """Whether a value is zero, or zero times another."""
    eqn = None if is_literal(atom) else graph.maker.get(atom)
    if eqn is None or not (eqn.primitive is prim.MUL or link(eqn) is not None):
        return constant(graph, atom) == 0
    return any(_is_zero(a, graph) for a in eqn.invars)


def _exponentials(atom: Any, graph: Graph, monomials: Monomials) -> list[Factor]:
    """The exponentials in a product."""
    if is_literal(atom):
        return []
    makers = ((f, graph.maker.get(f.var)) for f in monomials.factors(atom)[1])
    return [f for f, maker in makers if maker is not None and maker.primitive is prim.EXP]


def _divisor(atom: Any, graph: Graph) -> Any:
    """What something is divided by, before it is spread out or a number is added to it."""
    while not is_literal(atom) and (eqn := graph.maker.get(atom)) is not None:
        operands = graph.explained_operands(eqn)
        if not (link(eqn) is not None or (eqn.primitive in prim.SUMS and len(operands) == 1)):
            break
        atom = eqn.invars[operands[0] if operands else 0]
    return None if is_literal(atom) else atom


def _summed(eqn: Equation, graph: Graph, monomials: Monomials) -> set[tuple[Var, int, bool]]:
    """The exponentials in what an equation sums, the axis of each that it sums along, and whether
    backwards; none where that are too many numbers."""
    operand, axis, backwards = eqn.invars[0], eqn.params["axis"], eqn.params["reverse"]
    if operand.aval.size * operand.aval.shape[axis] > _MOST:
        return set()
    return {
        (factor.var, factor.axes.index(axis), backwards)
        for factor in _exponentials(operand, graph, monomials)
        if axis in factor.axes
    }


def _by_triangle(eqn: Equation) -> Callable[[Read], Any]:
    operand, axis = eqn.invars[0], eqn.params["axis"]

    def way(read: Read) -> Any:
        x = read(operand)
        ones = jnp.ones((x.shape[axis], x.shape[axis]), x.dtype)
        triangle = jnp.triu(ones) if eqn.params["reverse"] else jnp.tril(ones)
        y = jax.lax.dot_general(triangle, x, (([1], [axis]), ([], [])))
        return jnp.moveaxis(y, 0, axis)

    return way
