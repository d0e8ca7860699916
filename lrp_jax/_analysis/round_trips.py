"""Moves at whose end every number is back in its place."""

from typing import Any

from . import compat
from .compat import Equation, Var, is_literal
from .indices import Known
from .places import Place, itself, made_by


def without_round_trips(closed_jaxpr: Any) -> Any:
    """The same function without moves at whose end every number is back in its place.

    Args:
        closed_jaxpr: a flat jaxpr.
    """
    jaxpr = compat.open_jaxpr(closed_jaxpr)
    known = Known.of(closed_jaxpr)
    places: dict[Var, Place] = {}
    renamed: dict[Var, Var] = {}
    eqns: list[Equation] = []
    for eqn in jaxpr.eqns:
        operands = [a if is_literal(a) else renamed.get(a, a) for a in eqn.invars]
        if any(a is not b for a, b in zip(operands, eqn.invars, strict=True)):
            eqn = eqn.replace(invars=operands)
        place = made_by(eqn, known, lambda v: places.get(v) or itself(v))
        if place is not None:
            (out,) = eqn.outvars
            if place.var.aval == out.aval and place.axes == itself(out).axes:
                renamed[out] = place.var
                continue
            places[out] = place
        eqns.append(eqn)
    if not renamed:
        return closed_jaxpr
    outvars = [a if is_literal(a) else renamed.get(a, a) for a in jaxpr.outvars]
    return compat.with_equations(closed_jaxpr, eqns, outvars)
