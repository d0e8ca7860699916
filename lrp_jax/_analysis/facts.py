"""What is known of a variable: its name, what it is an elementwise function of, its sign."""

from collections.abc import Collection, Iterable
from typing import Any

from . import compat, primitives as prim
from .compat import Equation, Var, is_literal
from .grams import Grams
from .graph import Graph, is_complex, is_float
from .indices import known_in
from .primitives import Family, family
from .signs import is_nonnegative, nonnegative_results
from .value_numbers import value_numbers


def names_of(graph: Graph, names: Iterable[str]) -> dict[Var, str]:
    """Tree paths of the inputs, and of what is computed from parameters alone."""
    found = {v: n for v, n in zip(graph.jaxpr.invars, names, strict=True) if n}
    for eqn in graph.eqns:
        constants = [
            v
            for v in eqn.outvars
            if v not in graph.live and (is_float(v) or v not in graph.touched)
        ]
        named = next((found[a] for a in eqn.invars if not is_literal(a) and a in found), None)
        if named is not None:
            found.update((v, named) for v in constants)
    return found


def nonnegative_variables(graph: Graph, inputs: Iterable[bool] | None = None) -> set[Var]:
    """Variables that cannot be negative, given which inputs cannot."""
    known = {v for v, flag in zip(graph.jaxpr.invars, inputs or (), strict=False) if flag}
    grams = graph.once(_grams)
    for eqn in graph.eqns:
        signs = nonnegative_results(eqn, lambda a: is_nonnegative(a, known))
        if not all(signs) and graph.is_live(eqn) and grams.makes_squares(eqn):
            signs = [True]
        known.update(v for v, flag in zip(eqn.outvars, signs, strict=True) if flag)
    return known


def _grams(graph: Graph) -> Grams:
    return Grams(graph.maker, known_in(graph), graph.once(value_numbers))


def dominators(graph: Graph, sums: Collection[Var] = ()) -> dict[Var, Var]:
    """For each variable the last other one of which it is an elementwise function.

    Args:
        graph: the graph.
        sums: variables that are none, as layers are summed there.
    """
    dominator: dict[Var, Var] = {}
    depth: dict[Var, int] = {}
    for eqn in graph.eqns:
        if not graph.is_live(eqn):
            continue
        out = eqn.outvars[0]
        operands = [eqn.invars[i] for i in graph.explained_operands(eqn)]
        if operands and out not in sums and _is_pointwise(eqn, graph):
            common: Var | None = operands[0]
            for other in operands[1:]:
                common = _meet(common, other, dominator, depth)
            if common is not None and eqn.primitive is prim.SELECT:
                common = _with_condition(common, eqn.invars[0], graph, dominator, depth)
            if common is not None:
                dominator[out] = common
                depth[out] = depth.get(common, 0) + 1
    return dominator


def _with_condition(
    common: Var, condition: Any, graph: Graph, dominator: dict[Var, Var], depth: dict[Var, int]
) -> Var:
    """What both the cases of a choice and its condition are elementwise functions of; the first
    where the condition comes from elsewhere."""
    found: Var | None = common
    for source in sources(condition, graph):
        found = _meet(found, source, dominator, depth)
    return common if found is None else found


def sources(constant: Any, graph: Graph) -> set[Var]:
    """The explained values that a mask or another constant of the explanation is computed from."""
    found, seen, todo = set[Var](), set[Var](), [constant]
    while todo:
        atom = todo.pop()
        if is_literal(atom) or atom not in graph.touched or atom in seen:
            continue
        seen.add(atom)
        if atom in graph.live:
            found.add(atom)
        elif atom in graph.maker and family(graph.maker[atom].primitive) is not Family.DETACH:
            todo += graph.maker[atom].invars
    return found


def _is_pointwise(eqn: Equation, graph: Graph) -> bool:
    """Whether the equation computes its output number by number from its explained operands."""
    kind = family(eqn.primitive)
    custom = compat.custom_call(eqn) is not None
    pointwise = kind in prim.POINTWISE
    if not (pointwise or custom or eqn.primitive is prim.SELECT):
        return False
    if len(eqn.outvars) != 1 or any(map(is_complex, (*eqn.invars, *eqn.outvars))):
        return False
    if not all(is_float(eqn.invars[i]) for i in graph.explained_operands(eqn)):
        return False
    condition = eqn.invars[0]
    constant = is_literal(condition) or condition not in graph.touched
    if eqn.primitive is prim.SELECT and constant:
        return False  # a constant mask moves numbers, it does not compute with them
    shape = eqn.outvars[0].aval.shape
    return all(eqn.invars[i].aval.shape == shape for i in graph.explained_operands(eqn))


def _meet(a: Var | None, b: Var, dominator: dict[Var, Var], depth: dict[Var, int]) -> Var | None:
    """The nearest variable of which both `a` and `b` are elementwise functions."""
    while a is not None and a is not b:
        if depth.get(a, 0) >= depth.get(b, 0):
            a = dominator.get(a)
        else:
            above = dominator.get(b)
            if above is None:
                return None
            b = above
    return a
