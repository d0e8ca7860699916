"""Constants among the numbers of a product over an axis, taken out of it: they are no factors.

`cumprod(concatenate([ones, b]))` is `concatenate([ones, cumprod(b)])`, and the product of
`where(mask, b, 1)` is the product of those numbers of `b` that the mask leaves.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, is_literal
from ..._analysis.draft import Draft
from ..._analysis.graph import Graph
from ..._analysis.indices import Known, known_in
from ..._analysis.otherwise import Read
from ..._analysis.primitives import Family, family
from .pieces import JOINS, Together, put_together


def without_constant_factors(draft: Draft) -> Draft:
    """The same function, products over an axis without the constants among their numbers."""
    products = [e for e in draft.eqns if family(e.primitive) is Family.PRODUCT]
    if not products:
        return draft
    graph = draft.graph
    known = known_in(graph)
    ways = {
        id(e): _apart(put_together(own, known), e, graph)
        for e in products
        if (own := graph.maker.get(e.invars[0])) is not None and own.primitive in JOINS
    }

    def way(eqn: Equation, read: Read) -> Any:
        together = ways[id(eqn)]
        assert together is not None, "asked for others only"
        return _written(eqn, *together, read, known)

    return draft.otherwise(lambda e: ways.get(id(e)) is not None, way)


def _apart(
    together: Together | None, eqn: Equation, graph: Graph
) -> tuple[Together, Together] | None:
    """The constants of a product and the others; None where there are none of one kind, or where
    they stand between the others of a cumulative product."""
    if together is None or not graph.is_live(eqn):
        return None
    reduces = eqn.primitive is prim.REDUCE_PROD
    if together.axis not in (eqn.params["axes"] if reduces else [eqn.params["axis"]]):
        return None
    constant = np.asarray([a is None or is_literal(a) or a not in graph.live
                           for a in together.sources])[together.owner]  # fmt: skip
    if constant.all() or not constant.any():
        return None
    if reduces:
        return together.cut(constant), together.cut(~constant)
    turn = slice(None, None, -1 if eqn.params["reverse"] else 1)
    count = int(constant[turn].argmin())
    if not count:
        return None
    first, last = slice(None, count), slice(count, None)
    if eqn.params["reverse"]:
        first, last = slice(-count, None), slice(None, -count)
    return together.cut(first), together.cut(last)


def _written(
    eqn: Equation, constants: Together, others: Together, read: Read, known: Known
) -> Array:
    like, axis = eqn.invars[0].aval, constants.axis
    before, after = (jnp.concatenate(t.values(read, like), axis) for t in (constants, others))
    ones = all(known.is_one(constants.sources[i]) for i in set(constants.owner.tolist()))
    if eqn.primitive is prim.REDUCE_PROD:
        axes = eqn.params["axes"]
        product = _reduced(eqn, after, axes)
        return product if ones else product * compat.applied(eqn, before)
    begun, rest = before, after if after.shape[axis] == 1 else compat.applied(eqn, after)
    if not ones:
        begun = compat.applied(eqn, before)
        last = 0 if eqn.params["reverse"] else before.shape[axis] - 1
        rest = rest * lax.slice_in_dim(begun, last, last + 1, axis=axis)
    return jnp.concatenate([rest, begun] if eqn.params["reverse"] else [begun, rest], axis)


def _reduced(eqn: Equation, values: Array, axes: Sequence[int]) -> Array:
    if all(values.shape[i] == 1 for i in axes):
        return lax.squeeze(values, axes)
    return compat.applied(eqn, values)  # type: ignore[no-any-return]
