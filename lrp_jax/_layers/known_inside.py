"""What the code knows outside of a body, known inside of it too."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._analysis import compat
from .._analysis.compat import is_literal
from .._analysis.graph import Graph
from .._analysis.indices import Known, known_in


def with_known(body: Any, operands: Sequence[Any], graph: Graph) -> Any:
    """A body that has the masks and indices of the code as its own, which are the same in all of
    its turns.

    Args:
        body: a flat jaxpr.
        operands: what its first inputs are given.
        graph: of these.
    """
    known = known_in(graph)
    jaxpr = compat.open_jaxpr(body)
    read = {a for eqn in jaxpr.eqns for a in eqn.invars if not is_literal(a)}
    given = zip(jaxpr.invars, operands, strict=False)
    values = {v: x for v, a in given if v in read and (x := _value(a, known)) is not None}
    if not values:
        return body
    own = {v: compat.renewed(v) for v in values}
    eqns = []
    for eqn in jaxpr.eqns:
        invars = [a if is_literal(a) else own.get(a, a) for a in eqn.invars]
        moved = any(a is not b for a, b in zip(invars, eqn.invars, strict=True))
        eqns.append(eqn.replace(invars=invars) if moved else eqn)
    constants = dict(zip(jaxpr.constvars, body.consts, strict=True))
    constants |= {own[v]: x for v, x in values.items()}
    outvars = [a if is_literal(a) else own.get(a, a) for a in jaxpr.outvars]
    return compat.rewritten(body, constants, outvars, eqns)


def _value(atom: Any, known: Known) -> np.ndarray | None:
    """Truth values or integers of the code, or a mask of zeros and ones."""
    if is_literal(atom) or not atom.aval.shape:
        return None
    if not jnp.issubdtype(atom.aval.dtype, jnp.floating):
        return known.indices(atom)
    found = known.numbers(atom)
    return found if found is not None and set(np.unique(found).tolist()) == {0, 1} else None
