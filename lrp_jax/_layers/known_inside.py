"""What the code knows outside of a body, known inside of it too."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._analysis import compat
from .._analysis.compat import is_literal
from .._analysis.factors import constant
from .._analysis.graph import Graph
from .._analysis.indices import Known, known_in


def with_known(body: Any, operands: Sequence[Any], graph: Graph) -> Any:
    """A body that has the numbers, masks and indices of the code as its own, which are the same in
    all of its turns.

    Args:
        body: a flat jaxpr.
        operands: what its first inputs are given.
        graph: of these.
    """
    known = known_in(graph)
    jaxpr = compat.open_jaxpr(body)
    read = {a for eqn in jaxpr.eqns for a in eqn.invars if not is_literal(a)}
    given = [(v, a) for v, a in zip(jaxpr.invars, operands, strict=False) if v in read]
    numbers = {v: x for v, a in given if (x := _number(a, graph)) is not None}
    values = {v: x for v, a in given if v not in numbers and (x := _value(a, known)) is not None}
    if not (values or numbers):
        return body
    own: dict[Any, Any] = {v: compat.renewed(v) for v in values}
    eqns = []
    for var, number in numbers.items():
        filled = compat.open_jaxpr(jax.make_jaxpr(_filling(var, number))())
        eqns += filled.eqns
        (own[var],) = filled.outvars
    for eqn in jaxpr.eqns:
        invars = [a if is_literal(a) else own.get(a, a) for a in eqn.invars]
        moved = any(a is not b for a, b in zip(invars, eqn.invars, strict=True))
        eqns.append(eqn.replace(invars=invars) if moved else eqn)
    constants = dict(zip(jaxpr.constvars, body.consts, strict=True))
    constants |= {own[v]: x for v, x in values.items()}
    outvars = [a if is_literal(a) else own.get(a, a) for a in jaxpr.outvars]
    return compat.rewritten(body, constants, outvars, eqns)


def _number(atom: Any, graph: Graph) -> Any | None:
    """The number that an operand is, or is filled with."""
    if not jnp.issubdtype(atom.aval.dtype, jnp.floating):
        return None
    return constant(graph, atom) if is_literal(atom) or atom not in graph.live else None


def _filling(var: Any, number: Any) -> Callable[[], Any]:
    return lambda: jnp.full(var.aval.shape, number, var.aval.dtype)


def _value(atom: Any, known: Known) -> np.ndarray | None:
    """Truth values or integers of the code, or a mask of zeros and ones."""
    if is_literal(atom) or not atom.aval.shape:
        return None
    if not jnp.issubdtype(atom.aval.dtype, jnp.floating):
        return known.indices(atom)
    found = known.numbers(atom)
    return found if found is not None and set(np.unique(found).tolist()) == {0, 1} else None
