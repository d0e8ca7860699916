"""One table: primitive -> what it does to numbers.

The families are mathematical, not historical. What a layer is follows from them and from the
dataflow; no function, module or activation is known by name.
"""

import enum
from typing import Any

from jax.extend.core import Primitive

from . import compat


class Family(enum.Enum):
    """What a primitive does to its floating-point operands."""

    CONTRACTION = "contraction"  # linear in each of two operands: products, convolutions
    AFFINE = "affine"  # elementwise and affine in one operand: add, mul by a constant
    NEUTRAL = "neutral"  # hands every number on as it is, in place: casts, copies
    STRUCTURAL = "structural"  # moves or selects numbers without mixing them
    SUM = "sum"  # adds numbers of one operand
    SCATTER_SUM = "scatter-sum"  # adds numbers of its operands
    COMPLEX = "complex"  # linear, to, from or between complex numbers
    ELEMENTWISE = "elementwise"  # any other function applied number by number
    WINNER = "winner"  # keeps the largest or smallest of several operands
    CONTROL = "control"  # has a body that the analysis enters
    DETACH = "detach"  # what comes out is a constant of the explanation


_NAMES: dict[Family, str] = {
    Family.CONTRACTION: "dot_general conv_general_dilated ragged_dot_general",
    Family.AFFINE: "add add_jaxvals sub mul div neg",
    Family.NEUTRAL: """convert_element_type copy reduce_precision sharding_constraint device_put
        optimization_barrier name""",
    Family.STRUCTURAL: """reshape transpose squeeze broadcast_in_dim slice dynamic_slice
        dynamic_update_slice gather concatenate pad rev split stack unstack tile select_n scatter
        scatter_max scatter_min reduce_max reduce_min reduce_window_max reduce_window_min cummax
        cummin sort top_k approx_top_k select_and_gather_add all_gather all_to_all
        ppermute""",
    Family.SUM: "reduce_sum cumsum reduce_window_sum psum",
    Family.SCATTER_SUM: "scatter_add",
    Family.COMPLEX: "real imag complex conj fft",
    Family.ELEMENTWISE: """exp exp2 expm1 log log1p log2 tanh sin cos tan asin acos atan sinh cosh
        asinh acosh atanh logistic one_minus_square polynomial erf erfc erf_inv sqrt rsqrt cbrt
        square integer_pow pow abs sign floor ceil round lgamma digamma bessel_i0e bessel_i1e clamp
        is_finite rem atan2 nextafter""",
    Family.WINNER: "max min",
    Family.CONTROL: "scan while cond remat",
    Family.DETACH: "stop_gradient argmax argmin",
}


def _table() -> dict[Primitive, Family]:
    table: dict[Primitive, Family] = {}
    for family, names in _NAMES.items():
        for name in names.split():
            found: Any = compat.primitive(name)
            if found is not None:
                table[found] = family
    table[compat.remat_p] = Family.CONTROL
    return table


FAMILIES: dict[Primitive, Family] = _table()
"""The family of every primitive that a relevance path may pass."""

SHAPE_ONLY = frozenset(
    p
    for p in map(
        compat.primitive,
        ["reshape", "transpose", "squeeze", "broadcast_in_dim"],
    )
    if p is not None
)
"""Primitives that rearrange one operand without dropping any of its numbers."""

ADD = frozenset(p for p in map(compat.primitive, ("add", "add_jaxvals")) if p is not None)
SUB, MUL, DIV, NEG = (compat.primitive(name) for name in ("sub", "mul", "div", "neg"))
DOT, CONV = (compat.primitive(name) for name in ("dot_general", "conv_general_dilated"))
EXP, LOG, SELECT = (compat.primitive(name) for name in ("exp", "log", "select_n"))
ABS = compat.primitive("abs")
MAX, MIN = (compat.primitive(name) for name in ("max", "min"))
REDUCE_SUM = compat.primitive("reduce_sum")
POOL_SUM, POOL_MAX = (compat.primitive(n) for n in ("reduce_window_sum", "reduce_window_max"))
SCAN, WHILE, COND, REMAT = (
    compat.primitive("scan"),
    compat.primitive("while"),
    compat.primitive("cond"),
    compat.remat_p,
)
ROOTS = frozenset(
    p for p in map(compat.primitive, ("sqrt", "rsqrt", "pow", "integer_pow")) if p is not None
)
NONNEGATIVE = frozenset(
    p
    for p in map(compat.primitive, ("exp", "exp2", "logistic", "abs", "square", "sqrt", "rsqrt"))
    if p is not None
)
"""Elementwise functions whose values are never negative."""


def family(primitive: Primitive) -> Family | None:
    """The family of a primitive, or None for one that no rule knows."""
    found = FAMILIES.get(primitive)
    if found is None and primitive in compat.unnamed_primitives().values():
        families = {
            "shard_map": Family.CONTROL,
            "psum": Family.SUM,
            "vary": Family.NEUTRAL,
            "ragged_dot_general": Family.CONTRACTION,
        }
        unnamed = compat.unnamed_primitives()
        found = next(families[name] for name, p in unnamed.items() if p is primitive)
    return found


def dot_numbers(eqn: Any) -> Any:
    """Contracted and batch axes of a (ragged) matrix product."""
    ragged = eqn.params.get("ragged_dot_dimension_numbers")
    return eqn.params["dimension_numbers"] if ragged is None else ragged.dot_dimension_numbers


def is_psum(primitive: Primitive) -> bool:
    """Whether a primitive adds over devices."""
    return primitive is _PSUM or (
        primitive not in FAMILIES and primitive is compat.unnamed_primitives()["psum"]
    )


_PSUM = compat.primitive("psum")


def is_reduction(eqn: Any) -> bool:
    """Whether an equation keeps one number of many along some axes: a maximum, a minimum."""
    return (
        family(eqn.primitive) is Family.STRUCTURAL
        and "axes" in eqn.params
        and len(eqn.outvars[0].aval.shape) < len(eqn.invars[0].aval.shape)
    )
