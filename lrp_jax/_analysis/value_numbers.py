"""Variables that are computed in the same way from the same operands."""

from typing import Any

import jax
import numpy as np

from . import compat, primitives as prim
from .compat import Equation, Var, is_literal
from .graph import Graph
from .primitives import Family, family
from .signs import is_relu

_LARGEST = 1 << 20
"""Arrays of more numbers are not compared."""


def value_numbers(graph: Graph) -> dict[Var, Var]:
    """For each variable the first one that is computed in the same way from the same operands."""
    first: dict[Any, Var] = {}
    same = _equal_constants(graph)
    for eqn in graph.eqns:
        if eqn.effects or len(eqn.outvars) != 1 or family(eqn.primitive) is Family.CONTROL:
            continue
        eqn = rectifier(eqn) or eqn
        operands = tuple(
            (str(a.aval), np.asarray(a.val).tobytes()) if is_literal(a) else same.get(a, a)
            for a in eqn.invars
        )
        # What is computed for a constant alone carries no relevance, though it is the same.
        key = (eqn.primitive, operands, _parameters(eqn), graph.is_live(eqn))
        same[eqn.outvars[0]] = first.setdefault(key, eqn.outvars[0])
    return same


def _equal_constants(graph: Graph) -> dict[Var, Var]:
    """The arrays of the code that are one: each time it is used, the same array is traced anew."""
    alike: dict[Any, list[tuple[Var, Any]]] = {}
    for var, value in zip(graph.jaxpr.constvars, graph.closed.consts, strict=True):
        if not isinstance(value, jax.core.Tracer) and isinstance(value.dtype, np.dtype):
            alike.setdefault((value.shape, value.dtype), []).append((var, value))
    same: dict[Var, Var] = {}
    for group in alike.values():
        first: dict[Any, Var] = {}
        for var, value in group if len(group) > 1 and group[0][1].size <= _LARGEST else ():
            same[var] = first.setdefault(np.asarray(value).tobytes(), var)
    return same


def rectifier(eqn: Equation) -> Equation | None:
    """A called rectifier as the maximum with zero that it is."""
    of_one = len(eqn.invars) == len(eqn.outvars) == 1 and not is_literal(eqn.invars[0])
    if compat.custom_call(eqn) is None or not of_one:
        return None
    if not is_relu([eqn], eqn.invars[0], eqn.outvars[0]):
        return None
    inner = eqn
    while (body := compat.custom_call(inner) or compat.plain_call(inner)) is not None:
        (inner, *others) = compat.open_jaxpr(body).eqns
        if others:
            return None
    if inner.primitive is not prim.MAX:
        return None
    operands = [a if is_literal(a) else eqn.invars[0] for a in inner.invars]
    return inner.replace(invars=operands, outvars=eqn.outvars)


def _parameters(eqn: Equation) -> Any:
    body = compat.custom_call(eqn) or compat.plain_call(eqn)
    if body is not None:
        return compat.called_name(eqn), str(compat.open_jaxpr(body))
    params = eqn.params
    if set(params.get("strides") or ()) == {1}:  # as `slice_in_dim` says
        params = {**params, "strides": None}
    return tuple((name, str(value)) for name, value in sorted(params.items()))
