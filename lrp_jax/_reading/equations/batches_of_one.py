"""Matrix products of a batch of one, as those of any batch.

`jnp.matmul` takes axes of one away from both operands and adds them to the product. Layers are
recognised by axes, so one example is multiplied as it would be beside others.
"""

from collections.abc import Callable
from typing import Any

import jax

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.otherwise import Read, computed_otherwise

_SQUEEZE, _SPREAD = compat.primitive("squeeze"), prim.BROADCAST
Wide = Callable[[Read], Any]
"""A value with an axis of one more, in front."""


def with_batches_of_one(closed_jaxpr: Any) -> Any:
    """The same function, products of what had an axis of one in front with that axis.

    Args:
        closed_jaxpr: a flat jaxpr.
    """
    jaxpr = compat.open_jaxpr(closed_jaxpr)
    if not any(map(_narrows, jaxpr.eqns)):
        return closed_jaxpr
    readers: dict[Any, list[Equation | None]] = {}
    for eqn in jaxpr.eqns:
        for atom in dict.fromkeys(a for a in eqn.invars if not is_literal(a)):
            readers.setdefault(atom, []).append(eqn)
    for atom in (a for a in jaxpr.outvars if not is_literal(a)):
        readers.setdefault(atom, []).append(None)
    products: set[Any] = {e.outvars[0] for e in jaxpr.eqns if e.primitive is prim.DOT}
    while True:
        wide = _wide(jaxpr, products)
        kept = {
            v
            for v in products
            if v in wide and all(r is not None and _keeps(r, v, wide) for r in readers.get(v, ()))
        }
        if kept == products:
            break
        products = kept

    def way(eqn: Equation, read: Read) -> Any:
        value, out = wide[eqn.invars[0]](read), eqn.outvars[0].aval
        axes = eqn.params["broadcast_dimensions"]
        return jax.lax.broadcast_in_dim(value, out.shape, (0, *axes))

    def ends(eqn: Equation) -> bool:
        return _spreads(eqn) and eqn.invars[0] in products

    return computed_otherwise(closed_jaxpr, ends, way) if products else closed_jaxpr


def _wide(jaxpr: Any, products: set[Any]) -> dict[Any, Wide]:
    """What has an axis of one more otherwise, products only where they may have it."""
    wide: dict[Any, Wide] = {}
    # What has that axis from an input: axes that are there for a while are taken away (`units`).
    own = {v for v in (*jaxpr.invars, *jaxpr.constvars) if v.aval.shape[:1] == (1,)}
    for eqn in jaxpr.eqns:
        atoms = [a for a in eqn.invars if not is_literal(a)]
        out = eqn.outvars[0] if eqn.outvars else None
        if _narrows(eqn):
            if atoms[0] in own:
                wide[out] = _before(eqn)
        elif out in products:
            operands = [wide.get(a) for a in atoms]
            if None not in operands:
                wide[out] = _multiplied(eqn, operands)
        elif _spreads(eqn):
            own.update(eqn.outvars if atoms[0] in products and atoms[0] in wide else ())
            continue
        if any(a in own for a in atoms):
            own.update(v for v in eqn.outvars if v.aval.shape[:1] == (1,))
    return wide


def _narrows(eqn: Equation) -> bool:
    """Whether an equation takes an axis of one away in front, and perhaps others."""
    is_squeeze = eqn.primitive is _SQUEEZE and 0 in eqn.params["dimensions"]
    return is_squeeze and not is_literal(eqn.invars[0])


def _spreads(eqn: Equation) -> bool:
    """Whether an equation adds an axis of one in front, and perhaps others."""
    if eqn.primitive is not _SPREAD or len(eqn.invars) != 1:
        return False
    (operand,), (out,), axes = eqn.invars, eqn.outvars, eqn.params["broadcast_dimensions"]
    adds = not is_literal(operand) and out.aval.size == operand.aval.size
    return adds and 0 not in axes and bool(axes)


def _keeps(eqn: Equation, var: Var, wide: dict[Any, Wide]) -> bool:
    """Whether a reader of a product has use of its axis."""
    return _spreads(eqn) or (eqn.primitive is prim.DOT and eqn.outvars[0] in wide)


def _before(eqn: Equation) -> Wide:
    rest = [axis for axis in eqn.params["dimensions"] if axis]
    return lambda read: jax.lax.squeeze(read(eqn.invars[0]), rest)


def _multiplied(eqn: Equation, operands: list[Any]) -> Wide:
    contracted, batch = prim.dot_numbers(eqn)
    later = tuple(tuple(axis + 1 for axis in axes) for axes in contracted)
    batches = tuple((0, *(axis + 1 for axis in axes)) for axes in batch)
    params = {**eqn.params, "dimension_numbers": (later, batches)}
    return lambda read: eqn.primitive.bind(*(wide(read) for wide in operands), **params)
