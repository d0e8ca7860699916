"""Elementwise functions of one explained value: activations, whatever they compute."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from .._analysis import compat, primitives as prim
from .._analysis.compat import Equation, Var, is_literal
from .._analysis.primitives import Family, family
from .._analysis.signs import is_homogeneous, is_relu, scalar, stretches, zero_at_zero
from .arithmetic import UNCHANGED, at_least_float32, custom, divide, of_one
from .chains import is_literal_link
from .reading import Reading
from .step import Backward, Step, Visit, Way


@dataclass(frozen=True, eq=False, kw_only=True)
class Elementwise(Step):
    """An elementwise function of one explained variable.

    Attributes:
        zero_at_zero: f(0) = 0 whatever the constants are.
    """

    zero_at_zero: bool

    @classmethod
    def recognise(cls, reading: Reading, var: Var) -> Self | None:
        eqn = reading.graph.maker[var]
        operands = reading.graph.explained_operands(eqn)
        if var in reading.dominator:
            root = _longest_run(reading, var)
            if root is not None:
                eqns, _ = reading.graph.between(var, [root])
                whole, _ = reading.graph.between(var, [root], constants=True)
                kind = "ReLU" if is_relu(whole, root, var) else "Activation"
                zero = zero_at_zero(whole, root, var)
                return reading.step(cls, eqns, [root], [var], kind, zero_at_zero=zero)
        if eqn.primitive is prim.DIV and operands == [1]:
            return cls.written_out(reading, [eqn], eqn.invars[1], var)
        return None

    @classmethod
    def written_out(cls, reading: Reading, eqns: list[Equation], start: Var, end: Var) -> Self:
        """An affine function with numbers in the code, such as 1 - z."""
        return reading.step(cls, eqns, [start], [end], "Activation", zero_at_zero=False)

    def backward(self, rule: Any, out: str) -> Backward:
        if rule.way not in (Way.UNCHANGED, Way.IDENTITY):
            return of_one(rule)
        return Backward("C", _activation) if out == "C" and self.zero_at_zero else UNCHANGED


def _longest_run(reading: Reading, var: Var) -> Var | None:
    """The start of the longest elementwise function that ends at `var` and is one activation."""
    best: Var | None = None
    nonlinear = False
    current = var
    while True:
        above = reading.dominator.get(current)
        if above is None:
            return best
        link = reading.graph.maker[current]
        is_affine = reading.is_link(link)
        if is_affine and not is_literal_link(link):
            return best
        nonlinear = nonlinear or not is_affine
        current = above
        if nonlinear:
            best = current
        if not _is_interior(reading, current):
            return None if best is None else _before_scale(reading, best, var)


def _before_scale(reading: Reading, start: Var, end: Var) -> Var:
    """The start of a function whose code scales what enters it: no neuron is turned or stretched.

    So 1 / (1 + exp(-u)) and (1 + tanh(u / 2)) / 2 are the function of u that a sigmoid is. A number
    before a rectifier belongs to the weights before it.
    """
    graph = reading.graph
    current = start
    while current in reading.dominator:
        eqn, inside = graph.maker[current], graph.between(end, [current])[0]
        readers = [r for r in graph.readers[current] if r is None or graph.is_live(r)]
        scales = eqn.primitive in (prim.MUL, prim.DIV, prim.NEG) and is_literal_link(eqn)
        passes = scales or family(eqn.primitive) is Family.NEUTRAL
        if not (passes and reading.is_link(eqn) and all(r in inside for r in readers)):
            break
        whole = graph.between(end, [current], constants=True)[0] if stretches(eqn) else []
        if whole and is_homogeneous(whole, current, end):
            break
        current = reading.dominator[current]
        start = current if scales else start
    return start


def _is_interior(reading: Reading, var: Var) -> bool:
    """Whether a run may pass over `var`: only the run itself reads it."""
    whole = var in reading.found or reading.behind(reading.chain_up(var)[1]) is not None
    return reading.graph.read_once(var) and not whole


def _activation(visit: Visit) -> list[Any]:
    """The identity rule in multiplier form: c_x = c_y f(x) / x."""

    step = visit.place.step

    def back(cotangent: jax.Array, saved: Any) -> jax.Array:
        return at_least_float32(cotangent) * slope(step, *saved)

    return [custom(visit, back, lambda x, y, constants, rule: (x, constants))]


# -- f(x) / x ---------------------------------------------------------------------------------


def slope(step: Step, x: jax.Array, constants: Sequence[Any]) -> jax.Array:
    """`f(x) / x` for an elementwise f with f(0) = 0, by slopes, finite everywhere.

    Every intermediate value v of f is carried with its own v / x where it has one: x itself has 1,
    a product has one factor's slope times the other factor. So silu gives sigmoid(x), gelu Phi(x),
    relu [x > 0], without a division.
    """
    start, end = step.inputs[0], step.outputs[0]
    env: dict[Any, tuple[Any, Any]] = {start: (x, jnp.ones_like(x))}
    env.update({var: (value, None) for var, value in zip(step.constants, constants, strict=True)})
    _slopes(step.eqns, env)
    value, ratio = env[end]
    if ratio is None:  # f(0) = 0 only through cancellation
        ratio = divide(at_least_float32(value), at_least_float32(x), 0.0)
    return at_least_float32(ratio)


def _slopes(eqns: Sequence[Any], env: dict[Any, tuple[Any, Any]]) -> None:
    for eqn in eqns:
        operands = [
            (a.val, 0.0 if _is_zero_literal(a) else None) if is_literal(a) else env[a]
            for a in eqn.invars
        ]
        env[eqn.outvars[0]] = _slope_of(eqn, operands)


def _is_zero_literal(atom: Any) -> bool:
    return jnp.ndim(atom.val) == 0 and bool(atom.val == 0)


def _slope_of(eqn: Any, operands: list[tuple[Any, Any]]) -> tuple[Any, Any]:
    body = compat.plain_call(eqn)
    body = body if body is not None else compat.custom_call(eqn)
    if body is not None:
        jaxpr = compat.open_jaxpr(body)
        env = dict(zip(jaxpr.invars, operands, strict=True))
        env.update({v: (c, None) for v, c in zip(jaxpr.constvars, body.consts, strict=True)})
        _slopes(jaxpr.eqns, env)
        out = jaxpr.outvars[0]
        return (out.val, None) if is_literal(out) else env[out]
    values = [v for v, _ in operands]
    slopes = [s for _, s in operands]
    if eqn.primitive is _CONVERT and _number(values[0]) is not None:
        return np.asarray(values[0]).astype(eqn.outvars[0].aval.dtype), None
    result = compat.applied(eqn, *values)
    primitive = eqn.primitive
    casts = family(primitive) is Family.NEUTRAL
    decides = not (casts or jnp.issubdtype(result.dtype, jnp.inexact))  # as comparisons do
    if decides or all(s is None for s in slopes):
        return result, None
    if primitive is prim.MUL:
        first = 0 if slopes[0] is not None else 1
        return result, slopes[first] * values[1 - first]
    if primitive is prim.DIV:
        return result, None if slopes[0] is None else slopes[0] / values[1]
    if primitive is prim.NEG:
        return result, -slopes[0]
    if primitive in prim.SUMS and None not in slopes:
        return result, slopes[0] + slopes[1] if primitive in prim.ADD else slopes[0] - slopes[1]
    if primitive in (prim.MAX, prim.MIN) and None not in slopes:
        larger = values[0] > values[1] if primitive is prim.MAX else values[0] < values[1]
        return result, jnp.where(larger, slopes[0], slopes[1])
    if primitive is prim.SELECT:
        if None in slopes[1:]:
            return result, None
        shape = jnp.shape(result)
        cases = [jnp.broadcast_to(jnp.asarray(s, result.dtype), shape) for s in slopes[1:]]
        return result, jax.lax.select_n(values[0], *cases)
    if primitive in _ROUNDING:  # what is rounded counts as the number that it stands for
        return result, slopes[0]
    if primitive is _INTEGER_POW and eqn.params["y"] >= 1:
        return result, slopes[0] * values[0] ** (eqn.params["y"] - 1)
    if primitive is _SQUARE:
        return result, slopes[0] * values[0]
    if family(primitive) is Family.NEUTRAL:
        keeps = not hasattr(slopes[0], "astype") or not jnp.issubdtype(result.dtype, jnp.inexact)
        return result, slopes[0] if keeps else slopes[0].astype(result.dtype)
    inner = [i for i, s in enumerate(slopes) if s is not None and not isinstance(s, float)]
    if len(inner) != 1 or not _vanishes_at_zero(eqn, operands, inner[0]):
        return result, None
    return result, slopes[inner[0]] * _quotient(eqn, values, inner[0], result)


def _vanishes_at_zero(eqn: Any, operands: list[tuple[Any, Any]], position: int) -> bool:
    values: list[float | None] = []
    for i, (value, _) in enumerate(operands):
        values.append(0.0 if i == position else _number(value))
    at_zero = scalar(eqn, values)
    return at_zero is not None and abs(at_zero) < 1e-12


def _number(value: Any) -> float | None:
    """A number that is known before any value is: of the code, perhaps cast."""
    known = not isinstance(value, jax.core.Tracer) and np.ndim(value) == 0
    return float(value) if known and np.isreal(value) else None


def _quotient(eqn: Any, values: list[Any], position: int, result: jax.Array) -> jax.Array:
    """h(u) / u for one primitive with h(0) = 0, and h'(0) at 0."""
    u = values[position]

    def h(v: jax.Array) -> jax.Array:
        operands = [*values[:position], v, *values[position + 1 :]]
        return compat.applied(eqn, *operands)

    zero = jnp.zeros_like(u)
    _, at_zero = jax.jvp(h, (zero,), (jnp.ones_like(u),))
    at_zero = jnp.where(jnp.isfinite(at_zero), at_zero, 0)
    return jnp.where(u == 0, at_zero, result / jnp.where(u == 0, 1, u))


_INTEGER_POW = compat.primitive("integer_pow")
_SQUARE = compat.primitive("square")
_CONVERT = compat.primitive("convert_element_type")
_ROUNDING = compat.primitives("round floor ceil")
