"""Choices that are known: branches that the code chooses by what it computes from its own indices,
as those of blocks that a causal mask leaves out, and values by a sign that only one of them has."""

from typing import Any

import numpy as np

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, is_literal
from ..._analysis.draft import Draft
from ..._analysis.factors import constant
from ..._analysis.facts import nonnegative_variables
from ..._analysis.graph import Graph
from ..._analysis.indices import Known
from ..._analysis.otherwise import Read
from ..._analysis.trace import inline

_IS_TRUE, _IS_FALSE = compat.primitive("ge"), compat.primitive("lt")
"""Of what is not negative and zero."""


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


def with_known_signs(draft: Draft) -> Draft:
    """The same function, what is chosen by `t >= 0` chosen where t cannot be negative: so is the
    gradient of `logsumexp`, by the sign of a sum of exponentials."""
    if not any(eqn.primitive in (_IS_TRUE, _IS_FALSE) for eqn in draft.eqns):
        return draft
    graph = draft.graph
    chosen: dict[int, Any] = {}
    zeros: set[Any] = set()  # that are chosen, and what is added to them is what is left
    for eqn in graph.eqns:
        operands = [a for a in eqn.invars if not is_literal(a)]
        nothing = [a for a in operands if a in zeros]
        if (made := _by_sign(eqn, graph)) is not None:
            chosen[id(eqn)] = made
            zeros.update(eqn.outvars if constant(graph, made) == 0 else ())
        elif nothing and eqn.primitive is prim.NEG:
            zeros.update(eqn.outvars)
        elif len(nothing) == 1 and len(operands) == 2 and eqn.primitive in prim.ADD:
            (chosen[id(eqn)],) = (a for a in operands if a not in zeros)

    def way(eqn: Equation, read: Read) -> Any:
        return read(chosen[id(eqn)])

    return draft.otherwise(lambda eqn: id(eqn) in chosen, way) if chosen else draft


def _by_sign(eqn: Equation, graph: Graph) -> Any | None:
    """What is chosen by a sign that is known; None of any other."""
    if eqn.primitive is not prim.SELECT or len(eqn.invars) != 3 or not graph.is_live(eqn):
        return None
    mask = None if is_literal(eqn.invars[0]) else graph.maker.get(eqn.invars[0])
    if mask is None or mask.primitive not in (_IS_TRUE, _IS_FALSE):
        return None
    value, bound = mask.invars
    if constant(graph, bound) != 0 or value not in graph.once(nonnegative_variables):
        return None
    found = eqn.invars[2 if mask.primitive is _IS_TRUE else 1]
    return None if is_literal(found) else found
