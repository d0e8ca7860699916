"""Choices between a value and zeros, as products with a mask: `where(m, h, 0)` is `m h`.

Where the mask comes from an argument, as a padding mask does or the choice of a branch of which
`jax.vmap` made a select. Masks that the code knows put values together (`pieces`), and those that
are made of the explained input are part of functions, as rectifiers are.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, is_literal
from ..._analysis.graph import Graph
from ..._analysis.indices import known_in
from ..._analysis.otherwise import Read, computed_otherwise


def with_masks(
    closed_jaxpr: Any, explained: tuple[bool, ...], outputs: Sequence[bool] | None
) -> Any:
    """The same function with such choices as products, whose values they keep.

    Args:
        closed_jaxpr: a flat jaxpr.
        explained: for each input whether it is explained.
        outputs: for each output whether it is explained; None: all of them.
    """
    jaxpr = compat.open_jaxpr(closed_jaxpr)
    selects = [e for e in jaxpr.eqns if e.primitive is prim.SELECT and len(e.invars) == 3]
    if not selects:
        return closed_jaxpr
    graph = Graph(closed_jaxpr, explained, outputs)
    known = known_in(graph)
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

    if not chosen:
        return closed_jaxpr
    return computed_otherwise(closed_jaxpr, lambda eqn: id(eqn) in chosen, way)
