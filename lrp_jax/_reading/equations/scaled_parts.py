"""Parts that are scaled in place: `x.at[i].multiply(v)` is `x * ones.at[i].set(v)`."""

from typing import Any

import jax
import jax.numpy as jnp

from ..._analysis import compat
from ..._analysis.compat import Equation
from ..._analysis.draft import Draft

_SCATTER_MUL: Any
_SCATTER: Any
_SCATTER_MUL, _SCATTER = compat.primitive("scatter_mul"), compat.primitive("scatter")


def with_scaled_parts(draft: Draft) -> Draft:
    """The same function, where what is scaled in place is a product as a whole."""

    def is_scaled(eqn: Equation) -> bool:
        if eqn.primitive is not _SCATTER_MUL or not draft.graph.is_live(eqn):
            return False
        return draft.graph.explained_operands(eqn) == [0] or eqn.params["unique_indices"]

    def way(eqn: Equation, read: Any) -> Any:
        x, indices, factors = map(read, eqn.invars)
        ones = jnp.ones(eqn.outvars[0].aval.shape, eqn.outvars[0].aval.dtype)
        if eqn.params["unique_indices"]:
            params = {**eqn.params, "update_jaxpr": None}
            return jax.lax.mul(x, _SCATTER.bind(ones, indices, factors, **params))
        return jax.lax.mul(x, compat.applied(eqn, ones, indices, factors))

    return draft.otherwise(is_scaled, way) if any(map(is_scaled, draft.eqns)) else draft
