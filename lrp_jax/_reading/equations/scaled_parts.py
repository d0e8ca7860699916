"""Parts that are scaled in place: `x.at[i].multiply(v)` is `x * ones.at[i].set(v)`."""

from typing import Any

import jax
import jax.numpy as jnp

from ..._analysis import compat
from ..._analysis.compat import Equation
from ..._analysis.graph import Graph
from ..._analysis.otherwise import computed_otherwise

_SCATTER_MUL: Any
_SCATTER: Any
_SCATTER_MUL, _SCATTER = compat.primitive("scatter_mul"), compat.primitive("scatter")


def with_scaled_parts(
    closed_jaxpr: Any, explained: tuple[bool, ...], outputs: tuple[bool, ...] | None
) -> Any:
    """The same function, where what is scaled in place is a product as a whole.

    Args:
        closed_jaxpr: a flat jaxpr.
        explained: for each input whether it is explained.
        outputs: for each output whether it is explained; None: all of them.
    """
    jaxpr = compat.open_jaxpr(closed_jaxpr)
    if not any(e.primitive is _SCATTER_MUL for e in jaxpr.eqns):
        return closed_jaxpr
    graph = Graph(closed_jaxpr, explained, outputs)

    def is_scaled(eqn: Equation) -> bool:
        if eqn.primitive is not _SCATTER_MUL or not graph.is_live(eqn):
            return False
        return graph.explained_operands(eqn) == [0] or eqn.params["unique_indices"]

    def way(eqn: Equation, read: Any) -> Any:
        x, indices, factors = map(read, eqn.invars)
        ones = jnp.ones(eqn.outvars[0].aval.shape, eqn.outvars[0].aval.dtype)
        if eqn.params["unique_indices"]:
            params = {**eqn.params, "update_jaxpr": None}
            return jax.lax.mul(x, _SCATTER.bind(ones, indices, factors, **params))
        return jax.lax.mul(x, compat.applied(eqn, ones, indices, factors))

    found = {id(eqn) for eqn in jaxpr.eqns if is_scaled(eqn)}
    return (
        computed_otherwise(closed_jaxpr, lambda e: id(e) in found, way) if found else closed_jaxpr
    )
