"""Values with the gradient of another one: `f(h, q)` that is q, with a derivative of its own for h,
is `h + stop_gradient(q - h)`.

So codes are looked up and one of several is chosen, and what is below them is trained and explained
as if nothing had happened (van den Oord et al. 2017).
"""

from typing import Any

import jax

from ..._analysis import compat
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.draft import Draft
from ..._analysis.graph import Graph
from ..._analysis.otherwise import Read


def with_straight_through(draft: Draft) -> Draft:
    """The same function, calls whose value does not depend on what they are explained by as sums.

    `jax.custom_vjp` and `jax.custom_jvp` functions alone can pass a derivative on to such operands.
    """
    calls = [e for e in draft.eqns if len(e.invars) > 1 and compat.custom_call(e) is not None]
    found = {id(e): h for e in calls if (h := _handed_on(e, draft.graph)) is not None}

    def way(eqn: Equation, read: Read) -> Any:
        h, q = read(found[id(eqn)]), read(eqn.outvars[0])
        return h + jax.lax.stop_gradient(q - h)

    return draft.otherwise(lambda eqn: id(eqn) in found, way) if found else draft


def _handed_on(eqn: Equation, graph: Graph) -> Var | None:
    """The one explained operand of a call of which its value is not made; None of any other."""
    body, operands = compat.custom_call(eqn), graph.explained_operands(eqn)
    if len(operands) != 1 or len(eqn.outvars) != 1:
        return None
    h, (out,) = eqn.invars[operands[0]], compat.open_jaxpr(body).outvars
    if not graph.is_live(eqn) or h.aval != eqn.outvars[0].aval:
        return None
    inside = Graph(body, tuple(i in operands for i in range(len(eqn.invars))), None)
    return None if not is_literal(out) and out in inside.reached else h
