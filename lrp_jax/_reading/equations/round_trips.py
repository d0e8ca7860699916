"""Moves at whose end every number is back in its place, roots that are raised again, and choices
that the code has made."""

import operator
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.draft import Draft
from ..._analysis.factors import power_of
from ..._analysis.indices import Known
from ..._analysis.otherwise import Read
from ..._analysis.places import Place, itself, made_by

_RESHAPE, _CONVERT = compat.primitive("reshape"), compat.primitive("convert_element_type")


def with_integers(closed_jaxpr: Any) -> Any:
    """The same function without integers that are floats for a while, as token ids where a library
    has all of its inputs be floats: such floats hold more integers than a table has rows.

    Args:
        closed_jaxpr: a flat jaxpr.
    """
    jaxpr = compat.open_jaxpr(closed_jaxpr)
    integers: dict[Any, Any] = {}
    eqns = []
    for eqn in jaxpr.eqns:
        if eqn.primitive is _CONVERT and not is_literal(eqn.invars[0]):
            (before,), new = eqn.invars, jnp.dtype(eqn.params["new_dtype"])
            is_whole, is_wide = jnp.issubdtype(before.aval.dtype, jnp.integer), new.itemsize >= 4
            if is_whole and is_wide and jnp.issubdtype(new, jnp.floating):
                integers[eqn.outvars[0]] = before
            elif before in integers and is_wide and jnp.issubdtype(new, jnp.signedinteger):
                eqn = eqn.replace(invars=[integers[before]])
        eqns.append(eqn)
    return compat.with_equations(closed_jaxpr, eqns, jaxpr.outvars) if integers else closed_jaxpr


def without_raised_roots(draft: Draft) -> Draft:
    """The same function, with what is below a root in the place of its power, `sqrt(v) ** 2`."""
    if not any(0 < (power_of(eqn) or 0) < 1 for eqn in draft.eqns):
        return draft
    makers = draft.graph.maker
    found = {id(e): v for e in draft.eqns if (v := _below_root(e, makers)) is not None}

    def way(eqn: Equation, read: Read) -> Any:
        return prim.KEEP.bind(read(found[id(eqn)]), jax.lax.stop_gradient(read(eqn.outvars[0])))

    return draft.otherwise(lambda eqn: id(eqn) in found, way) if found else draft


def _below_root(eqn: Equation, makers: Mapping[Var, Equation]) -> Var | None:
    """What an equation raises a root of to the power that undoes it; None of any other."""
    squares = eqn.primitive is prim.MUL and eqn.invars[0] is eqn.invars[1]
    power = 2.0 if squares else power_of(eqn)
    root = None if power is None or is_literal(eqn.invars[0]) else makers.get(eqn.invars[0])
    inner = None if root is None else power_of(root)
    if root is None or not power or not inner or power * inner != 1 or inner > 1:
        return None
    below: Var = root.invars[0]
    return None if is_literal(below) or below.aval != eqn.outvars[0].aval else below


def without_round_trips(closed_jaxpr: Any) -> Any:
    """The same function without moves at whose end every number is back in its place or where a
    move before has brought it, nor choices by a mask that the code knows and that is the same
    everywhere.

    Args:
        closed_jaxpr: a flat jaxpr.
    """
    jaxpr = compat.open_jaxpr(closed_jaxpr)
    known = Known.of(closed_jaxpr)
    places: dict[Var, Place] = {}
    first: dict[Any, Var] = {}
    renamed: dict[Var, Var] = {}
    eqns: list[Equation] = []
    for eqn in jaxpr.eqns:
        operands = [a if is_literal(a) else renamed.get(a, a) for a in eqn.invars]
        if any(a is not b for a, b in zip(operands, eqn.invars, strict=True)):
            eqn = eqn.replace(invars=operands)
        if not compat.kept(eqn.outvars):  # nobody reads it, and nobody can
            eqns.append(eqn)
            continue
        same = _handed_on(eqn, known)
        if same is not None:
            renamed[eqn.outvars[0]] = same
            continue
        place = made_by(eqn, known, lambda v: places.get(v) or itself(v))
        if place is not None:
            (out,) = eqn.outvars
            if place.var.aval == out.aval and place.axes == itself(out).axes:
                renamed[out] = place.var
                continue
            numbers = _numbers(place, out)
            before = first.setdefault(numbers, out)
            if before.aval.shape == out.aval.shape and before is not out:
                renamed[out] = before
                continue
            if numbers == _numbers(itself(place.var), place.var):
                before = place.var
            if before is not out and eqn.primitive not in prim.SHAPE_ONLY:
                eqn = _in_shape(before, eqn)
            places[out] = place
        eqns.append(eqn)
    if len(eqns) == len(jaxpr.eqns) and all(map(operator.is_, eqns, jaxpr.eqns)):
        return closed_jaxpr
    outvars = [a if is_literal(a) else renamed.get(a, a) for a in jaxpr.outvars]
    return compat.with_equations(closed_jaxpr, eqns, outvars)


def _numbers(place: Place, out: Var) -> Any:
    """Which numbers are in a place, in their order, whatever axes of one they have."""
    wide = tuple((axis, row) for axis, row in place.axes if len(row) != 1)
    alone = {axis: row[0] for axis, row in place.axes if axis is not None and len(row) == 1}
    return place.var, out.aval.dtype, wide, tuple(sorted({**place.fixed, **alone}.items()))


def _in_shape(before: Var, eqn: Equation) -> Equation:
    """A variable in the shape of what an equation makes, by new axes of one where that is all."""
    shape, axes = eqn.outvars[0].aval.shape, list[int]()
    for size in before.aval.shape:
        begin = axes[-1] + 1 if axes else 0
        axes += [i for i in range(begin, len(shape)) if shape[i] == size][:1]
    if len(axes) == before.aval.ndim:
        params = {"shape": shape, "broadcast_dimensions": tuple(axes), "sharding": None}
        return eqn.replace(primitive=prim.BROADCAST, invars=[before], params=params)
    params = {"new_sizes": shape, "dimensions": None, "sharding": None}
    return eqn.replace(primitive=_RESHAPE, invars=[before], params=params)


def _handed_on(eqn: Equation, known: Known) -> Any | None:
    """The operand that an equation hands on: a choice whose mask the code knows, a sum of one."""
    operand = None
    if "axes" in eqn.params and not eqn.params["axes"] and len(eqn.invars) == 1:
        (operand,) = eqn.invars  # a sum over no axis
    elif eqn.primitive is prim.SELECT and not is_literal(eqn.invars[0]):
        mask = known.at_hand(eqn.invars[0])
        if mask is not None and mask.size and (mask == mask.flat[0]).all():
            operand = eqn.invars[1 + int(mask.flat[0])]
    same = operand is not None and operand.aval == eqn.outvars[0].aval
    return operand if same and not is_literal(operand) else None
