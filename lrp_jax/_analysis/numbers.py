"""Numbers of the code: scalars that are computed from numbers in the code alone are such numbers.

`x * 2.0`, `x * jnp.sqrt(4.0)`, `x * jnp.full((3,), 2.0)` and `x * TWO`, an array that was made
before, are one function: in a flat jaxpr all of them are `mul x 2.0`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import compat, primitives as prim
from .compat import Equation, Var, is_literal
from .primitives import Family, family

_BINARY = (Family.AFFINE, Family.ELEMENTWISE, Family.WINNER, Family.COMPARISON)

_NEUTRAL = {**dict.fromkeys((*prim.ADD, prim.SUB), 0.0), prim.MUL: 1.0, prim.DIV: 1.0}
"""What changes nothing where it is added, subtracted, multiplied or divided by."""
_MOVES = prim.SHAPE_ONLY | compat.primitives("slice rev")
"""What makes of an array that is filled with a number another one that is."""


def with_numbers(closed_jaxpr: Any) -> Any:
    """The same flat jaxpr with its numbers written into the equations that read them.

    Args:
        closed_jaxpr: a flat jaxpr.
    """
    jaxpr = compat.open_jaxpr(closed_jaxpr)
    known: dict[Var, Any] = {}  # or the variable that it is, by a truth value or a number
    filled: dict[Var, Any] = {}
    for var, value in zip(jaxpr.constvars, closed_jaxpr.consts, strict=True):
        if var.aval.size == 1 and is_float(var) and is_at_hand(value):
            number = _scalar(np.asarray(value).reshape(())[()], var.aval.dtype)
            (filled if var.aval.shape else known)[var] = number
    eqns: list[Equation] = []
    for eqn in jaxpr.eqns:
        own, eqn = eqn, _reading(eqn, known, filled)
        # A state that begins with an array of zeros is a state.
        number = _folded(eqn) or _chosen(eqn) or _unchanged(own, known)
        if number is not None:
            known[eqn.outvars[0]] = number
            continue
        fills = _fills(eqn, filled)
        if fills is not None:
            filled[eqn.outvars[0]] = fills
        eqns.append(eqn)
    if not (known or filled):
        return closed_jaxpr
    outvars = [_number_or_self(a, known) for a in jaxpr.outvars]
    return compat.with_equations(closed_jaxpr, eqns, outvars)


def _number_or_self(atom: Any, numbers: Mapping[Var, Any]) -> Any:
    return atom if is_literal(atom) else numbers.get(atom, atom)


def is_float(atom: Any) -> bool:
    return bool(jnp.issubdtype(atom.aval.dtype, jnp.floating))


def is_at_hand(value: Any) -> bool:
    """Whether a closed-over value may be looked at while a function is traced."""
    if isinstance(value, jax.core.Tracer):
        return False
    return not isinstance(value, jax.Array) or value.is_fully_addressable


def _scalar(value: Any, dtype: Any) -> Any:
    """A number as an operand of an equation."""
    value = np.asarray(value).astype(dtype)[()]
    return compat.literal(value, jax.typeof(value))


def _reading(eqn: Equation, known: Mapping[Var, Any], filled: Mapping[Var, Any]) -> Equation:
    """The equation with numbers for the variables that are known to hold them."""
    if not known and not filled:
        return eqn
    found = [_number_or_self(a, known) for a in eqn.invars]
    if len(found) == 2 and family(eqn.primitive) in _BINARY:
        for own, other in ((0, 1), (1, 0)):
            array = not is_literal(found[other]) and found[other] not in filled
            if array and found[other].aval.shape == eqn.outvars[0].aval.shape:
                found[own] = _number_or_self(found[own], filled)
    changed = any(a is not b for a, b in zip(found, eqn.invars, strict=True))
    return eqn.replace(invars=found) if changed else eqn


def _folded(eqn: Equation) -> Any | None:
    """The number that an equation makes of numbers, or None."""
    if len(eqn.outvars) != 1 or eqn.outvars[0].aval.shape != ():
        return None
    if not is_float(eqn.outvars[0]) and family(eqn.primitive) is not Family.COMPARISON:
        return None
    return _computed(eqn, eqn.invars)


def _computed(eqn: Equation, operands: Sequence[Any]) -> Any | None:
    """What an equation makes, number by number, of operands that are numbers, or None."""
    if family(eqn.primitive) not in prim.POINTWISE or not all(map(is_literal, operands)):
        return None
    with jax.ensure_compile_time_eval():
        value = compat.applied(eqn, *(a.val for a in operands))
    return _scalar(value, eqn.outvars[0].aval.dtype) if np.isfinite(value) else None


def _chosen(eqn: Equation) -> Any | None:
    """What an equation chooses by a truth value that is known, or None."""
    if eqn.primitive is not prim.SELECT or not is_literal(eqn.invars[0]):
        return None
    return eqn.invars[1 + int(eqn.invars[0].val)] if np.ndim(eqn.invars[0].val) == 0 else None


def _unchanged(eqn: Equation, known: Mapping[Var, Any]) -> Any | None:
    """What an equation adds zero to, or multiplies by one; None of any other."""
    neutral = _NEUTRAL.get(eqn.primitive)
    if neutral is None or len(eqn.outvars) != 1:
        return None
    for own, other in ((0, 1), (1, 0)):
        value, number = eqn.invars[own], eqn.invars[other]
        commutes = own == 0 or eqn.primitive in (*prim.ADD, prim.MUL)
        is_neutral = is_literal(number) and np.ndim(number.val) == 0 and number.val == neutral
        if commutes and is_neutral and not is_literal(value) and _are_alike(value, eqn.outvars[0]):
            return _number_or_self(value, known)
    return None


def _are_alike(a: Any, b: Any) -> bool:
    return bool(is_float(a) and a.aval.shape == b.aval.shape and a.aval.dtype == b.aval.dtype)


def _fills(eqn: Equation, filled: Mapping[Var, Any]) -> Any | None:
    """The number that an equation fills an array with, or None."""
    if len(eqn.outvars) != 1:
        return None
    if family(eqn.primitive) in _BINARY and is_float(eqn.outvars[0]):
        return _computed(eqn, [_number_or_self(a, filled) for a in eqn.invars])
    if family(eqn.primitive) is not Family.NEUTRAL and eqn.primitive not in _MOVES:
        return None
    (source, *_), (out,) = eqn.invars, eqn.outvars
    number = _number_or_self(source, filled)
    known = is_literal(number) and is_float(out)
    return _scalar(number.val, out.aval.dtype) if known else None
