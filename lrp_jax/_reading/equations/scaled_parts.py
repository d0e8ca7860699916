"""Parts that are scaled or shifted in place: `x.at[i].multiply(v)` is `x * ones.at[i].set(v)`, and
`x.at[i].add(v)` is `x + zeros.at[i].add(v)` where one of both is a constant."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._analysis import compat
from ..._analysis.compat import Equation
from ..._analysis.draft import Draft
from ..._analysis.indices import Known, known_in

_SCATTER_MUL: Any
_SCATTER_ADD: Any
_SCATTER: Any
_SCATTER_MUL, _SCATTER_ADD, _SCATTER = map(
    compat.primitive, ("scatter_mul", "scatter_add", "scatter")
)


def with_scaled_parts(draft: Draft) -> Draft:
    """The same function, where what is scaled in place is a product as a whole, and what is
    shifted in place a sum."""
    if not any(e.primitive in (_SCATTER_MUL, _SCATTER_ADD) for e in draft.eqns):
        return draft
    graph, known = draft.graph, known_in(draft.graph)

    def is_apart(eqn: Equation) -> bool:
        if eqn.primitive not in (_SCATTER_MUL, _SCATTER_ADD) or not graph.is_live(eqn):
            return False
        into = graph.explained_operands(eqn)
        if eqn.primitive is _SCATTER_ADD and into == [2]:
            return not known.is_zero(eqn.invars[0]) or _is_set(eqn, known)
        return into == [0] or (eqn.primitive is _SCATTER_MUL and eqn.params["unique_indices"])

    def way(eqn: Equation, read: Any) -> Any:
        x, indices, updates = map(read, eqn.invars)
        adds, like = eqn.primitive is _SCATTER_ADD, eqn.outvars[0].aval
        rest = jnp.full(like.shape, 0 if adds else 1, like.dtype)
        if _is_set(eqn, known):
            part = _SCATTER.bind(rest, indices, updates, **{**eqn.params, "update_jaxpr": None})
        else:
            part = compat.applied(eqn, rest, indices, updates)
        if adds and known.is_zero(eqn.invars[0]):
            return part
        return jax.lax.add(x, part) if adds else jax.lax.mul(x, part)

    found = {id(eqn) for eqn in draft.eqns if is_apart(eqn)}
    return draft.otherwise(lambda e: id(e) in found, way) if found else draft


def _is_set(eqn: Equation, known: Known) -> bool:
    """Whether a scatter meets every place once at most."""
    if eqn.params["unique_indices"]:
        return True
    *rows, coordinates = eqn.invars[1].aval.shape
    if math.prod(rows) == 1:
        return True
    numbers, at = eqn.params["dimension_numbers"], known.indices(eqn.invars[1])
    if at is None or not {*numbers.scatter_dims_to_operand_dims} <= {*numbers.inserted_window_dims}:
        return False
    return len(np.unique(at.reshape(-1, coordinates), axis=0)) == math.prod(rows)
