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
    PRODUCT = "product"  # multiplies numbers of one operand
    LOGSUMEXP = "log-sum-exp"  # a soft maximum of numbers of one operand
    SOLVE = "solve"  # linear in a right-hand side, given a matrix
    COMPLEX = "complex"  # linear, to, from or between complex numbers
    ELEMENTWISE = "elementwise"  # any other function applied number by number
    WINNER = "winner"  # keeps the largest or smallest of several operands
    CONTROL = "control"  # has a body that the analysis enters
    COMPARISON = "comparison"  # a truth value, number by number
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
    Family.PRODUCT: "reduce_prod cumprod",
    Family.LOGSUMEXP: "cumlogsumexp",
    Family.SOLVE: "linear_solve triangular_solve tridiagonal_solve",
    Family.COMPLEX: "real imag complex conj fft",
    Family.ELEMENTWISE: """exp exp2 expm1 log log1p log2 tanh sin cos tan asin acos atan sinh cosh
        asinh acosh atanh logistic one_minus_square polynomial erf erfc erf_inv sqrt rsqrt cbrt
        square integer_pow pow abs sign floor ceil round lgamma digamma bessel_i0e bessel_i1e clamp
        is_finite rem atan2 nextafter""",
    Family.WINNER: "max min",
    Family.CONTROL: "scan while cond remat",
    Family.COMPARISON: "eq ne lt le gt ge and or not xor eq_to lt_to le_to",
    Family.DETACH: "stop_gradient argmax argmin",
}


FAMILIES: dict[Primitive, Family] = {
    primitive: family for family, names in _NAMES.items() for primitive in compat.primitives(names)
} | {
    compat.remat_p: Family.CONTROL,
    compat.keep_p: Family.NEUTRAL,
    compat.statistic_p: Family.NEUTRAL,
}
"""The family of every primitive that a relevance path may pass."""

_UNNAMED = {
    "shard_map": Family.CONTROL,
    "psum": Family.SUM,
    "vary": Family.NEUTRAL,
    "ragged_dot_general": Family.CONTRACTION,
}

SHAPE_ONLY = compat.primitives("reshape transpose squeeze broadcast_in_dim")
"""Primitives that rearrange one operand without dropping any of its numbers."""

POINTWISE = {
    Family.AFFINE, Family.NEUTRAL, Family.ELEMENTWISE, Family.WINNER, Family.COMPARISON,
}  # fmt: skip
"""Families that compute number by number."""

ADD = compat.primitives("add add_jaxvals")
SUB, MUL, DIV, NEG = (compat.primitive(name) for name in ("sub", "mul", "div", "neg"))
SUMS = frozenset((*ADD, SUB))
"""What adds or subtracts two numbers."""
DOT, CONV = (compat.primitive(name) for name in ("dot_general", "conv_general_dilated"))
EXP, LOG, SELECT = (compat.primitive(name) for name in ("exp", "log", "select_n"))
ABS, MAX, MIN = (compat.primitive(name) for name in ("abs", "max", "min"))
WINNERS = compat.primitives("max min reduce_max reduce_min cummax cummin")
REDUCE_PROD, LINEAR_SOLVE, TRIDIAGONAL_SOLVE = (
    compat.primitive(name) for name in ("reduce_prod", "linear_solve", "tridiagonal_solve")
)
REDUCE_SUM, BROADCAST = (compat.primitive(name) for name in ("reduce_sum", "broadcast_in_dim"))
POOL_SUM, POOL_MAX = (compat.primitive(n) for n in ("reduce_window_sum", "reduce_window_max"))
SCAN, WHILE, COND = (compat.primitive(name) for name in ("scan", "while", "cond"))
REMAT = compat.remat_p
KEEP, STATISTIC = compat.keep_p, compat.statistic_p
ROOTS = compat.primitives("sqrt rsqrt pow integer_pow")
NONNEGATIVE = compat.primitives("exp exp2 logistic abs square sqrt rsqrt")
"""Elementwise functions whose values are never negative."""


def family(primitive: Primitive) -> Family | None:
    """The family of a primitive, or None for one that no rule knows."""
    found = FAMILIES.get(primitive)
    if found is None:
        unnamed = compat.unnamed_primitives()
        found = next((_UNNAMED[name] for name, p in unnamed.items() if p is primitive), None)
    return found


def changes_no_number(primitive: Primitive) -> bool:
    """Whether a primitive hands on all numbers of its operand, as casts, copies and reshapes do."""
    return primitive in SHAPE_ONLY or family(primitive) is Family.NEUTRAL


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
