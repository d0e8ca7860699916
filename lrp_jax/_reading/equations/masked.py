"""Choices between a value and zeros, as products with a mask: `where(m, h, 0)` is `m h`.

Where the mask comes from an argument, as a padding mask does or the choice of a branch of which
`jax.vmap` made a select. Masks that the code knows put values together (`pieces`), and those that
are made of the explained input are part of functions, as rectifiers are.
"""

from typing import Any

import jax
import jax.numpy as jnp

from ..._analysis import primitives as prim
from ..._analysis.compat import Equation, is_literal
from ..._analysis.draft import Draft
from ..._analysis.indices import known_in
from ..._analysis.otherwise import Read


def with_masks(draft: Draft) -> Draft:
    """The same function with such choices as products, whose values they keep."""
    selects = [e for e in draft.eqns if e.primitive is prim.SELECT and len(e.invars) == 3]
    if not selects:
        return draft
    graph, known = draft.graph, known_in(draft.graph)
    chosen: dict[int, int] = {}
    for eqn in selects:
        mask, *cases = eqn.invars
        zeros = [known.is_zero(a) for a in cases]
        if sum(zeros) != 1 or not graph.is_live(eqn) or is_literal(mask) or mask in graph.touched:
            continue
        if known.indices(mask) is None:  # asked last: it computes masks
            chosen[id(eqn)] = zeros.index(False)

    def way(eqn: Equation, read: Read) -> Any:
        case = chosen[id(eqn)]
        mask, value = read(eqn.invars[0]), read(eqn.invars[1 + case])
        kept = jax.lax.select_n(*(a.val if is_literal(a) else read(a) for a in eqn.invars))
        factor = (mask if case else ~mask).astype(value.dtype)
        product = value * jnp.broadcast_to(factor, value.shape)
        return prim.KEEP.bind(product, jax.lax.stop_gradient(kept))

    return draft.otherwise(lambda eqn: id(eqn) in chosen, way) if chosen else draft
