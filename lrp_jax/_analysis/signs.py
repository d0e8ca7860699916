"""What can be said of values before there are any: signs, and functions that vanish at zero."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from . import compat, primitives as prim
from .compat import Equation, Var, is_literal
from .primitives import Family, family


def literal_value(atom: Any) -> float | None:
    """The number of a scalar literal, else None."""
    if not is_literal(atom) or np.ndim(atom.val) != 0:
        return None
    try:
        return float(atom.val)
    except TypeError:
        return None


def is_nonnegative(atom: Any, known: set[Var]) -> bool:
    """Whether an operand is known to be >= 0."""
    if is_literal(atom):
        return np.ndim(atom.val) == 0 and np.isreal(atom.val) and bool(np.real(atom.val) >= 0)
    return atom in known


_KEEPS_SIGN = (
    Family.STRUCTURAL, Family.NEUTRAL, Family.SUM, Family.SCATTER_SUM, Family.PRODUCT,
)  # fmt: skip
_MOVES = compat.primitives("slice rev")
_INDEX_OPERANDS = compat.primitives("gather dynamic_slice")


def nonnegative_results(eqn: Equation, known: Callable[[Any], bool]) -> list[bool]:
    """Which outputs of an equation are >= 0, given what is known of its operands."""
    flags = [bool(known(a)) for a in eqn.invars]
    if eqn.primitive is prim.COND:
        branches = [compat.closed(b) for b in eqn.params["branches"]]
        made = [_through(b, flags[1:]) for b in branches]
        return [all(column) for column in zip(*made, strict=True)]
    if eqn.primitive is prim.SCAN:
        constants, carries = compat.scan_arity(eqn)
        body, carry = compat.closed(eqn.params["jaxpr"]), slice(constants, constants + carries)
        while True:  # what a turn loses, all turns lose
            outs = _through(body, flags)
            kept = [a and b for a, b in zip(flags[carry], outs[:carries], strict=True)]
            if kept == flags[carry]:
                return [*kept, *outs[carries:]]
            flags[carry] = kept
    body = compat.plain_call(eqn) or compat.custom_call(eqn)
    if eqn.primitive is prim.REMAT:
        body = compat.closed(eqn.params["jaxpr"])
    if body is not None:
        return _through(body, flags)
    return [_makes_nonnegative(eqn, known)] * len(eqn.outvars)


def _through(closed_jaxpr: Any, flags: Sequence[bool]) -> list[bool]:
    """Which outputs of a body are >= 0, given which inputs are."""
    jaxpr = compat.open_jaxpr(closed_jaxpr)
    known = {v for v, flag in zip(jaxpr.invars, flags, strict=True) if flag}
    for eqn in jaxpr.eqns:
        signs = nonnegative_results(eqn, lambda a: is_nonnegative(a, known))
        known.update(v for v, flag in zip(eqn.outvars, signs, strict=True) if flag)
    return [is_nonnegative(a, known) for a in jaxpr.outvars]


def _makes_nonnegative(eqn: Equation, known: Callable[[Any], bool]) -> bool:
    """Whether the outputs of an equation without a body are >= 0."""
    operands: Sequence[Any] = eqn.invars
    primitive = eqn.primitive
    if primitive in prim.NONNEGATIVE:
        return True
    if primitive is compat.primitive("integer_pow"):
        return eqn.params["y"] % 2 == 0 or known(operands[0])
    if primitive is prim.MAX:
        return any(known(a) for a in operands)
    if (
        primitive is prim.MIN
        or primitive in prim.ADD
        or primitive is prim.MUL
        or primitive is prim.DIV
    ):
        same = primitive is prim.MUL and operands[0] is operands[1]
        return same or all(known(a) for a in operands)
    if primitive is prim.DOT and operands[0] is operands[1]:
        contracted, batch = prim.dot_numbers(eqn)
        alone = len(eqn.outvars[0].aval.shape) == len(batch[0])
        return alone and (contracted[0], batch[0]) == (contracted[1], batch[1])
    if primitive is compat.primitive("clamp"):
        return known(operands[0])
    if family(primitive) is Family.NEUTRAL and operands[0].aval.dtype == bool:
        return True
    if primitive is prim.SELECT:
        return all(known(a) for a in operands[1:])
    if primitive in _INDEX_OPERANDS:
        return known(operands[0])
    if family(primitive) in _KEEPS_SIGN:
        floats = [a for a in operands if is_literal(a) or jnp.issubdtype(a.aval.dtype, jnp.inexact)]
        return bool(floats) and all(known(a) for a in floats)
    return False


def is_relu(eqns: Sequence[Equation], start: Var, end: Any) -> bool:
    """Whether equations compute max(start, 0), perhaps of a positive multiple, however written."""
    one, other = (_value_of(eqns, {start: x}, end) for x in (1.0, -1.0))
    return bool(one and one > 0) and other == 0 and is_homogeneous(eqns, start, end)


def stretches(eqn: Equation) -> bool:
    """Whether an equation multiplies by a positive number of the code."""
    divides = eqn.primitive is prim.DIV
    numbers = [literal_value(a) for a in eqn.invars[divides:]]
    return (divides or eqn.primitive is prim.MUL) and any(n is not None and n > 0 for n in numbers)


def zero_at_zero(eqns: Sequence[Equation], start: Var, end: Any) -> bool:
    """Whether a pointwise function is 0 at 0 whatever its array constants are."""
    value = _value_of(eqns, {start: 0.0}, end)
    return value is not None and abs(value) < 1e-12


def is_homogeneous(eqns: Sequence[Equation], start: Var, end: Any) -> bool:
    """Whether f(2 x) = 2 f(x) for a pointwise function, as for rectifiers: a scale before it is one
    behind it."""
    sizes = (1.0, 2.0, 1e3)
    for sign in (1.0, -1.0):
        values = [_value_of(eqns, {start: sign * x}, end) for x in sizes]
        first = values[0]
        for x, value in zip(sizes, values, strict=True):
            if first is None or value is None or not abs(value - x * first) < 1e-9 * x:
                return False
    return True


def is_reciprocal(eqns: Sequence[Equation], start: Var, end: Any) -> bool:
    """Whether a pointwise function is one over its argument, up to a factor."""
    one, two, five = (_value_of(eqns, {start: x}, end) for x in (1.0, 2.0, -5.0))
    if not one or two is None or five is None:
        return False
    return abs(two - one / 2) + abs(five + one / 5) < 1e-9 * abs(one)


def looks_like(eqns: Sequence[Equation], start: Var, end: Any) -> str:
    """What a pointwise function is by a few of its values: a "gate", which is bounded and never
    negative, a "power" up to a factor, or "another"; "" where its values are not known."""

    def at(x: float) -> float | None:
        return _value_of(eqns, {start: x}, end)

    one, two = at(1.0), at(2.0)
    if one is None or two is None:
        return ""
    ends = [at(x) for x in (-4e2, -3e2, -3.0, -1.0, 0.5, 3.0, 3e2, 4e2)]
    if all(v is not None and v >= 0 for v in ends):
        low, lower, *_, high, higher = (float(v or 0) for v in ends)
        if abs(low - lower) + abs(high - higher) < 1e-9:
            return "gate"
    if one and two:
        for x in (0.5, 3.0, -1.0, -3.0):
            value, wanted = at(x), abs(one) * (abs(two / one) ** math.log2(abs(x)))
            if value is None and x < 0:
                continue  # a root of a negative number
            if value is None or abs(abs(value) - wanted) > 1e-9 * wanted:
                return "another"
        return "power"
    return "another"


def _value_of(eqns: Sequence[Equation], known: dict[Any, float | None], end: Any) -> float | None:
    """What some equations make of known numbers; None where that takes more."""

    def read(atom: Any) -> float | None:
        return literal_value(atom) if is_literal(atom) else known.get(atom)

    for eqn in eqns:
        values = [read(a) for a in eqn.invars]
        if len(eqn.outvars) == 1:
            known[eqn.outvars[0]] = scalar(eqn, values)
    return read(end)


def scalar(eqn: Equation, values: list[float | None]) -> float | None:
    """One equation on numbers, some of them unknown (None)."""
    primitive = eqn.primitive
    if primitive is prim.MUL and 0.0 in values:
        return 0.0
    if primitive is prim.DIV and values[0] == 0.0 and values[1] != 0.0:
        return 0.0
    body = compat.plain_call(eqn) or compat.custom_call(eqn)
    if body is not None:
        jaxpr = compat.open_jaxpr(body)
        inner = dict(zip(jaxpr.invars, values, strict=True))
        return _value_of(jaxpr.eqns, inner, jaxpr.outvars[0])
    if primitive is prim.SELECT:
        cases = set(values[1:])
        if values[0] is not None:
            return values[1 + int(values[0])]
        return cases.pop() if len(cases) == 1 else None
    if primitive in (*_MOVES, *prim.SHAPE_ONLY) or family(primitive) is Family.NEUTRAL:
        return values[0]
    if any(v is None for v in values):
        return None
    return _evaluate(eqn, [float(v) for v in values if v is not None])


_NUMPY = """abs add add_jaxvals:add asinh:arcsinh atan:arctan cbrt ceil cos cosh div:divide eq:equal
    exp exp2 expm1 floor ge:greater_equal gt:greater le:less_equal log log1p lt:less max:maximum
    min:minimum mul:multiply ne:not_equal neg:negative pow:power round:rint sign sin sinh sqrt
    square sub:subtract tan tanh"""
_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    compat.primitive(ours): getattr(np, theirs or ours)
    for ours, _, theirs in (name.partition(":") for name in _NUMPY.split())
} | {
    compat.primitive("logistic"): lambda a: 1 / (1 + np.exp(-a)),
    compat.primitive("erf"): math.erf,
    compat.primitive("erfc"): math.erfc,
    compat.primitive("rsqrt"): lambda a: 1 / np.sqrt(a),
    compat.primitive("clamp"): lambda low, a, high: min(max(low, a), high),
}


def _evaluate(eqn: Equation, values: list[float]) -> float | None:
    """One equation on scalars; None for what is unknown, infinite or no number."""
    function = _FUNCTIONS.get(eqn.primitive)
    if eqn.primitive is compat.primitive("integer_pow"):
        function = lambda a: a ** float(eqn.params["y"])  # noqa: E731
    with np.errstate(all="ignore"):
        result = math.nan if function is None else float(function(*map(np.float64, values)))
    return result if math.isfinite(result) else None
