"""Branches that the code chooses by what it computes from its own indices, as those of blocks that
a causal mask leaves out."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, is_literal
from ..._analysis.indices import Known
from ..._analysis.trace import inline


def with_chosen_branches(closed_jaxpr: Any, calls: Sequence[str]) -> Any:
    """The same function with a branch in the place of each `cond` whose choice is known.

    Args:
        closed_jaxpr: a flat jaxpr.
        calls: globs of the names of called functions that stay whole.
    """
    jaxpr = compat.open_jaxpr(closed_jaxpr)
    if not any(eqn.primitive is prim.COND for eqn in jaxpr.eqns):
        return closed_jaxpr
    known = Known.of(closed_jaxpr)
    eqns = [_chosen(eqn, known) for eqn in jaxpr.eqns]
    if all(a is b for a, b in zip(eqns, jaxpr.eqns, strict=True)):
        return closed_jaxpr
    return inline(compat.with_equations(closed_jaxpr, eqns, jaxpr.outvars), calls)


def _chosen(eqn: Equation, known: Known) -> Equation:
    """A branch with a number for what decides, where that is known."""
    if eqn.primitive is not prim.COND or is_literal(eqn.invars[0]):
        return eqn
    index = known.indices(eqn.invars[0])
    if index is None:
        return eqn
    aval = eqn.invars[0].aval
    number = compat.literal(np.asarray(index).astype(aval.dtype)[()], aval)
    return eqn.replace(invars=[number, *eqn.invars[1:]])
