"""Arithmetic of propagation: stabilised division, and affine chains followed number by number."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from . import _compat
from . import _primitives as prim
from ._layers import Chain
from ._primitives import Family, family

Read = Callable[[Any], Any]
"""The value of a variable or a literal."""


def divide(relevance: Any, value: Any, epsilon: Any) -> jax.Array:
    """`relevance / S(value)`, S(z) = z + epsilon * sgn(z), sgn(0) = +1; 0 where S(z) = 0."""
    stabilized = value + jnp.where(value >= 0, epsilon, -epsilon)
    zero = stabilized == 0
    return jnp.where(zero, 0, relevance / jnp.where(zero, 1, stabilized))


def at_least_float32(x: jax.Array) -> jax.Array:
    """Half types as float32: stabilisers and shares are formed there."""
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def run_chain(chain: Chain, x: jax.Array, read: Read, mode: str) -> jax.Array:
    """Follow `x` through a chain of affine equations.

    Args:
        chain: the equations.
        x: value of the chain's start.
        read: values of the chain's constants.
        mode: "exact"; "linear", without the shifts; "absolute", with |scales|; "squared", with
            squared scales; "structural", without scales; or "zero", exact for an `x` of zeros.
    """
    var = chain.start
    for eqn in chain.eqns:
        position = next(i for i, a in enumerate(eqn.invars) if a is var)
        others = [read(a) for i, a in enumerate(eqn.invars) if i != position]
        x = _link(eqn, position, x, others, mode)
        var = eqn.outvars[0]
    return x


def _link(eqn: Any, position: int, x: jax.Array, others: list[Any], mode: str) -> jax.Array:
    primitive = eqn.primitive
    if family(primitive) is not Family.AFFINE:
        if mode == "zero" and prim.is_psum(primitive):
            return x
        return _bind(eqn, x)
    exact = mode in ("exact", "zero")
    if primitive is prim.NEG:
        return -x if exact or mode == "linear" else x
    (constant,) = others
    shape = eqn.outvars[0].aval.shape
    if primitive in (prim.MUL, prim.DIV):
        if mode == "structural":
            return jnp.broadcast_to(x, shape)
        if mode == "absolute":
            constant = jnp.abs(constant)
        elif mode == "squared":
            constant = constant * constant
        return x * constant if primitive is prim.MUL else x / constant
    flipped = primitive is prim.SUB and position == 1
    x = jnp.broadcast_to(x, shape)
    if not exact:
        return -x if flipped and mode == "linear" else x
    if primitive is prim.SUB:
        return constant - x if flipped else x - constant
    return x + constant


def _bind(eqn: Any, x: jax.Array) -> jax.Array:
    """An equation of one operand, or a padding, at another value."""
    if eqn.primitive is _CONVERT and x.dtype == eqn.outvars[0].aval.dtype:
        return x
    others = [a.val for a in eqn.invars[1:]]  # the zero that pads
    result = eqn.primitive.bind(x, *others, **eqn.params)
    return result[0] if eqn.primitive.multiple_results else result


_CONVERT = _compat.primitive("convert_element_type")
