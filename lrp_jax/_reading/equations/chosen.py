"""Branches that the code chooses by what it computes from its own indices, as those of blocks that
a causal mask leaves out."""

import numpy as np

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, is_literal
from ..._analysis.draft import Draft
from ..._analysis.indices import Known
from ..._analysis.trace import inline


def with_chosen_branches(draft: Draft) -> Draft:
    """The same function with a branch in the place of each `cond` whose choice is known."""
    if not any(eqn.primitive is prim.COND for eqn in draft.eqns):
        return draft
    known = Known.of(draft.closed)
    eqns = [_chosen(eqn, known) for eqn in draft.eqns]
    if all(a is b for a, b in zip(eqns, draft.eqns, strict=True)):
        return draft
    outvars = compat.open_jaxpr(draft.closed).outvars
    return draft.written(inline(compat.with_equations(draft.closed, eqns, outvars), draft.calls))


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
