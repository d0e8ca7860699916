"""Explained integers, such as token ids: what carries their relevance, and what only looks at them.

Integers have no contributions. They are explained where they say which rows of a table are looked
up: what arrives at a looked-up vector is theirs. Comparisons and masks made of them are constants,
with one exception: a comparison with every entry of a table, cast to numbers, is a one-hot vector.
"""

import functools
from collections.abc import Mapping, Sequence, Set as AbstractSet
from typing import Any, NamedTuple

import jax.numpy as jnp

from . import compat, primitives as prim
from .compat import Equation, Var, is_literal
from .primitives import Family, family

CONVERT, EQUAL, IOTA = (compat.primitive(n) for n in ("convert_element_type", "eq", "iota"))
_VALUES = {
    compat.primitive(name): values
    for name, values in {
        "gather": slice(0, 1),
        "dynamic_slice": slice(0, 1),
        "dynamic_update_slice": slice(0, 2),
        "select_n": slice(1, None),
        "cond": slice(1, None),
        "scatter": slice(0, None, 2),
        "scatter_add": slice(0, None, 2),
    }.items()
}
"""Which operands are values; the others say where."""


def is_float(atom: Any) -> bool:
    """Whether relevance can be attached to a variable."""
    dtype = getattr(atom.aval, "dtype", None)
    return dtype is not None and _is_a(dtype, jnp.inexact)


@functools.cache
def _is_a(dtype: Any, kind: Any) -> bool:
    return bool(jnp.issubdtype(dtype, kind))


def is_complex(atom: Any) -> bool:
    """Whether a variable or literal holds complex numbers."""
    dtype = getattr(atom.aval, "dtype", None)
    return dtype is not None and _is_a(dtype, jnp.complexfloating)


def is_integer(atom: Any) -> bool:
    """Whether a variable or literal holds integers, and no truth values."""
    dtype = getattr(atom.aval, "dtype", None)
    return dtype is not None and bool(jnp.issubdtype(dtype, jnp.integer))


def values_of(eqn: Equation) -> list[int]:
    """Positions of the operands that are values and not indices or conditions."""
    return list(range(len(eqn.invars)))[_VALUES.get(eqn.primitive, slice(None))]


def carrying(eqn: Equation, reached: AbstractSet[Var], hot: AbstractSet[Var]) -> list[int]:
    """Positions of the operands that get the relevance of an equation's results.

    Values come first: what only says where explained values come from is a constant. Where there
    are none the indices themselves are explained; a condition never is.

    Args:
        eqn: the equation.
        reached: what depends on the explained input.
        hot: the one-hot vectors among that, which say where in a product.
    """
    found = [i for i, a in enumerate(eqn.invars) if not is_literal(a) and a in reached]
    if not found or eqn.primitive in (prim.SELECT, prim.COND):
        return [i for i in found if i]
    values = values_of(eqn)
    if family(eqn.primitive) is Family.CONTRACTION or eqn.primitive is prim.MUL:
        values = [i for i in values if is_literal(eqn.invars[i]) or eqn.invars[i] not in hot]
    return [i for i in found if i in values] or found


class OneHot(NamedTuple):
    """A comparison of integers with every entry of a table.

    Attributes:
        eqns: what makes it of the integers.
        source: the integers.
        axes: of the comparison, one for each axis of the integers.
        axis: the axis of entries.
    """

    eqns: tuple[Equation, ...]
    source: Var
    axes: tuple[int, ...]
    axis: int


def one_hot(
    eqn: Equation, maker: Mapping[Var, Equation], reached: AbstractSet[Var]
) -> OneHot | None:
    """The one-hot vector that an equation makes of some integers, or None."""
    if eqn.primitive is not EQUAL:
        return None
    positions = [
        i for i, a in enumerate(eqn.invars) if not is_literal(a) and a in reached and is_integer(a)
    ]
    other = eqn.invars[1 - positions[0]] if len(positions) == 1 else None
    if other is None or is_literal(other):
        return None
    axis = _counting_axis(other, maker)
    source = eqn.invars[positions[0]]
    if axis is None or eqn.outvars[0].aval.shape[axis] < 2:
        return None
    if source.aval.shape[axis] == 1:
        return OneHot((eqn,), source, tuple(range(len(source.aval.shape))), axis)
    spread = maker.get(source)
    if spread is None or spread.primitive is not prim.BROADCAST:
        return None
    (operand, *_), axes = spread.invars, tuple(map(int, spread.params["broadcast_dimensions"]))
    if is_literal(operand) or (axis in axes and operand.aval.shape[axes.index(axis)] > 1):
        return None
    return OneHot((spread, eqn), operand, axes, axis)


def _counting_axis(atom: Any, maker: Mapping[Var, Equation]) -> int | None:
    """The axis along which a variable is 0, 1, 2, ..., where it varies along no other one."""
    eqn = None if is_literal(atom) else maker.get(atom)
    if eqn is None:
        return None
    if eqn.primitive is IOTA:
        axis: int = eqn.params["dimension"]
        return axis
    if eqn.primitive is CONVERT:
        return _counting_axis(eqn.invars[0], maker)
    if eqn.primitive is prim.BROADCAST:
        inner = _counting_axis(eqn.invars[0], maker)
        return None if inner is None else int(eqn.params["broadcast_dimensions"][inner])
    if eqn.primitive is _RESHAPE:
        inner = _counting_axis(eqn.invars[0], maker)
        shape = eqn.invars[0].aval.shape
        wide = [i for i, n in enumerate(eqn.outvars[0].aval.shape) if n > 1]
        return wide[0] if inner is not None and len(shape) == 1 and len(wide) == 1 else None
    return None


_RESHAPE = compat.primitive("reshape")


def is_cast(readers: Sequence[Equation | None]) -> bool:
    """Whether truth values are only ever read as numbers."""
    return bool(readers) and all(
        eqn is not None
        and eqn.primitive is CONVERT
        and bool(jnp.issubdtype(eqn.params["new_dtype"], jnp.inexact))
        for eqn in readers
    )
