"""Axes of one that an equation spreads by itself: `c / s` of shapes (3, 4) and (3, 1) spreads `s`.

JAX writes them so, or as broadcasts. Where such a value is the one that carries relevance of a
function of several operands, it is spread first, as the function is one number by number.
"""

from typing import Any

import jax.numpy as jnp

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.draft import Draft
from ..._analysis.primitives import Family, family


def spread_out(draft: Draft) -> Draft:
    """The same function, such values spread by equations of their own."""
    if not any(map(_narrow, draft.eqns)):
        return draft
    invars = compat.open_jaxpr(draft.closed).invars
    carries = {v for v, flag in zip(invars, draft.explained, strict=True) if flag}
    found: set[int] = set()
    for eqn in draft.eqns:
        live = [a for a in eqn.invars if not is_literal(a) and a in carries]
        detached = family(eqn.primitive) is Family.DETACH
        carries.update(eqn.outvars if live and not detached else ())
        alone = eqn.primitive is not prim.DIV or live == eqn.invars[1:]
        if alone and any(a in live for a in _narrow(eqn)):
            found.add(id(eqn))

    def way(eqn: Equation, read: Any) -> Any:
        shape = eqn.outvars[0].aval.shape
        narrow = _narrow(eqn)

        def wide(atom: Any) -> Any:
            if is_literal(atom) or atom not in narrow:
                return read(atom)
            return jnp.broadcast_to(read(atom), shape)

        return compat.applied(eqn, *map(wide, eqn.invars))

    return draft.otherwise(lambda eqn: id(eqn) in found, way) if found else draft


def _narrow(eqn: Equation) -> list[Var]:
    """The operands that a function of several spreads along axes of one."""
    if len(eqn.outvars) != 1 or len(eqn.invars) < 2:
        return []
    if eqn.primitive is not prim.DIV and family(eqn.primitive) is not Family.ELEMENTWISE:
        return []
    shape = eqn.outvars[0].aval.shape
    own = [a for a in eqn.invars if not is_literal(a)]
    return [a for a in own if a.aval.shape != shape and len(a.aval.shape) == len(shape)]
