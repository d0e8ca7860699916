"""The backward passes: every one a `jax.custom_vjp` whose forward is the user's own computation.

What travels backwards at a variable x is either relevance R ("R") or its multiplier c with
R = x * c ("C"). Everything a backward pass reads is an argument of its function, so that
explanations can be differentiated again.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _compat
from . import _primitives as prim
from ._chains import Read, at_least_float32, divide, run_chain
from ._compat import is_literal
from ._layers import Contraction, Pointwise, Step
from ._linear import ContractionLayer
from ._primitives import family
from ._rule import Rule
from ._sums import SumLayer
from .rules import Relative, Zero

Backward = Callable[..., Any]


def _on_the_way_back(change: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """An identity whose backward pass is `change(cotangent, value, *parameters)`."""

    @jax.custom_vjp
    def identity(value: jax.Array, *parameters: Any) -> jax.Array:
        return value

    def forward(value: jax.Array, *parameters: Any) -> tuple[jax.Array, Any]:
        return value, (value, parameters)

    def backward(saved: Any, cotangent: jax.Array) -> tuple[Any, ...]:
        value, parameters = saved
        changed = change(cotangent, value, *parameters)
        return (changed.astype(cotangent.dtype), *(None for _ in parameters))

    identity.defvjp(forward, backward)
    return identity


def times_value(c: jax.Array, value: jax.Array) -> jax.Array:
    """R = x * c, of a complex weight its real part."""
    if jnp.iscomplexobj(value):
        return (c * value).real
    # A logit masked with -inf has no relevance. Linear in c, as everything here.
    return c * jnp.where(jnp.isneginf(value), 0, value)


to_relevance = _on_the_way_back(times_value)
"""Below it relevance travels, above it multipliers: R = x * c."""


def to_multiplier_value(relevance: jax.Array, value: jax.Array) -> jax.Array:
    """c = R / x, and 0 where x is 0."""
    return divide(at_least_float32(relevance), at_least_float32(value), 0.0).astype(value.dtype)


to_multiplier = _on_the_way_back(to_multiplier_value)
"""Below it multipliers travel, above it relevance: c = R / x, and 0 where x is 0."""

hold = _on_the_way_back(lambda c, value: jnp.zeros_like(c))
"""A constant of the explanation that stays alive for derivatives of the explanation."""

halve = _on_the_way_back(lambda c, value: c / 2)
"""Half of the relevance for each of the two factors that follow."""

negate = _on_the_way_back(lambda c, value: -c)
"""A divisor takes its part of the relevance with the sign of a factor."""


@jax.custom_vjp
def tap(value: jax.Array, probe: jax.Array) -> jax.Array:
    """`value`; what comes back to it is also the cotangent of `probe`."""
    return value


tap.defvjp(lambda value, probe: (value, None), lambda _, cotangent: (cotangent, cotangent))


def _stabilized(form: str) -> Callable[..., jax.Array]:
    def change(cotangent: jax.Array, z: jax.Array, epsilon: Any) -> jax.Array:
        z, cotangent = at_least_float32(z), at_least_float32(cotangent)
        if form == "R":
            return divide(cotangent, z, epsilon)
        z = jnp.where(jnp.isneginf(z), 0, z)  # a logit masked by adding -inf has no relevance
        return cotangent * divide(z, z, epsilon)

    return _on_the_way_back(change)


stabilized = {form: _stabilized(form) for form in "RC"}
"""Epsilon's factor at a linear layer's output: R / S(z), or c * z / S(z)."""


def share_out(value: jax.Array, rule: Rule, form: str) -> jax.Array:
    """At the output of a linear layer left native: what its input's multiplier is made from."""
    if isinstance(rule, Relative):
        return to_relevance(value) if form == "C" else value
    epsilon = _epsilon(rule)
    if form == "C" and isinstance(epsilon, int | float) and epsilon == 0:
        return value
    return stabilized[form](value, epsilon)


def _epsilon(rule: Any) -> Any:
    if isinstance(rule, Zero):
        return 0.0
    return rule.epsilon if hasattr(rule, "epsilon") else rule.stabilizer


def relevance_of(cotangent: jax.Array, value: jax.Array, form: str) -> jax.Array:
    """Relevance at a variable from what travels there, in at least float32."""
    cotangent, value = at_least_float32(cotangent), at_least_float32(value)
    return cotangent if form == "R" else times_value(cotangent, value)


def linear_layer(
    jaxpr: Any, step: Step, form: str, run: Callable[..., Any], probe: bool, parameters: str
) -> Callable[..., jax.Array]:
    """A linear layer under a rule that has its own backward pass.

    Args:
        jaxpr: the jaxpr of the step.
        step: a contraction or a sum.
        form: what arrives at the output, "R" or "C".
        run: the step's own computation, from values of its inputs and constants.
        probe: whether the cotangent of the last argument reports what was absorbed: by the bias, by
            stabilisers, by zero denominators.
        parameters: what the constants' cotangents are: the "multipliers" of the parameters, or the
            relevance that goes through "zeros" among them; nothing where it is empty.

    Returns:
        A function of (inputs, constants, rule, probe).
    """

    def view_of(xs: Any, constants: Any, rule: Any, y: jax.Array, cotangent: jax.Array) -> Any:
        relevance = relevance_of(cotangent, y, form)
        policy = getattr(rule, "bias", "absorb")
        if not isinstance(step.what, Contraction):
            return SumLayer(lambda *v: run(v, constants), step, xs, y, relevance, policy)
        read = _reader(step.constants, constants)
        only_positive = step.before_relu and form == "C"
        return ContractionLayer(jaxpr, step, xs[0], y, read, relevance, policy, only_positive)

    @jax.custom_vjp
    def layer(xs: Any, constants: Any, rule: Any, absorbed: Any) -> jax.Array:
        return run(xs, constants)

    def forward(xs: Any, constants: Any, rule: Any, absorbed: Any) -> tuple[jax.Array, Any]:
        y = run(xs, constants)
        return y, (xs, constants, rule, y, absorbed)

    def backward(saved: Any, cotangent: jax.Array) -> tuple[Any, ...]:
        xs, constants, rule, y, absorbed = saved
        view = view_of(xs, constants, rule, y, cotangent)
        by_bias: Any = jnp.zeros((), view.relevance.dtype)
        found = None
        if hasattr(rule, "input_relevance"):
            result = rule.input_relevance(view)
            if isinstance(view, ContractionLayer):
                by_bias = by_bias + jnp.sum(view.through_bias)
                if parameters:
                    pair = view.own_multipliers() if parameters != "zeros" else view.through_zeros()
                    found = _parameter_multipliers(view, *pair, step, constants)
        else:
            terms = rule.checked_terms(view)
            result = view.multiplier(terms)
            if rule.makes_relevance:
                results = result if isinstance(result, tuple) else (result,)
                result = tuple(times_value(c, x) for c, x in zip(results, xs, strict=True))
            has_bias = not isinstance(view.bias, float)
            if has_bias and rule.makes_relevance:
                share = view.bias_share(terms)
                result = (result[0] + view.spread_evenly(share),)
                by_bias = jnp.sum(view.kept(share))
            elif has_bias and probe:
                by_bias = jnp.sum(view.bias_share(terms))
            if parameters == "multipliers" and isinstance(view, ContractionLayer):
                pair = view.weight_multiplier(terms), view.bias_multiplier(terms)
                found = _parameter_multipliers(view, *pair, step, constants)
        results = result if isinstance(result, tuple) else (result,)
        results = tuple(r.astype(x.dtype) for r, x in zip(results, xs, strict=True))
        report = jnp.stack([by_bias, *view.losses()]).astype(absorbed.dtype) if probe else None
        return results, found, None, report

    layer.defvjp(forward, backward)
    return layer


def _parameter_multipliers(
    view: ContractionLayer, weight: jax.Array, bias: Any, step: Step, constants: Sequence[Any]
) -> Any:
    eqn, position = view.what.eqn, view.what.position
    found = {} if isinstance(view.bias, float) else view.bias_back(bias)
    found[eqn.invars[1 - position]] = weight
    return tuple(
        found[v].astype(c.dtype) if v in found else _no_cotangent(c)
        for v, c in zip(step.constants, constants, strict=True)
    )


def _no_cotangent(value: Any) -> Any:
    if jnp.issubdtype(jnp.result_type(value), jnp.inexact):
        return jnp.zeros_like(value)
    return np.zeros(jnp.shape(value), jax.dtypes.float0)


def _reader(names: Sequence[Any], values: Sequence[Any]) -> Read:
    env = dict(zip(names, values, strict=True))
    return lambda atom: atom.val if is_literal(atom) else env[atom]


def shift_layer(step: Step, form: str, run: Callable[..., Any]) -> Callable[..., jax.Array]:
    """A stand-alone scale and shift that hands relevance on unchanged, number by number."""
    chain = step.what.chain

    @jax.custom_vjp
    def layer(x: jax.Array, constants: Any) -> jax.Array:
        return run((x,), constants)

    def forward(x: jax.Array, constants: Any) -> tuple[jax.Array, Any]:
        y = run((x,), constants)
        return y, (x, y, constants)

    def backward(saved: Any, cotangent: jax.Array) -> tuple[Any, ...]:
        x, y, constants = saved
        relevance = relevance_of(cotangent, y, form)
        read = _reader(step.constants, constants)
        move = jax.linear_transpose(lambda v: run_chain(chain, v, read, "structural"), x)
        (moved,) = move(relevance.astype(y.dtype))
        return moved.astype(x.dtype), None

    layer.defvjp(forward, backward)
    return layer


def pass_layer(form: str, run: Callable[..., Any]) -> Callable[..., jax.Array]:
    """Any function of one variable that hands relevance on unchanged."""

    @jax.custom_vjp
    def layer(x: jax.Array, constants: Any) -> jax.Array:
        return run((x,), constants)

    def forward(x: jax.Array, constants: Any) -> tuple[jax.Array, Any]:
        y = run((x,), constants)
        # A relevance that only passes needs nothing of the forward pass.
        return y, (y if form == "C" else None, jnp.zeros((), x.dtype))

    def backward(saved: Any, cotangent: jax.Array) -> tuple[Any, ...]:
        y, like = saved
        relevance = cotangent if form == "R" else relevance_of(cotangent, y, form)
        return relevance.astype(like.dtype), None

    layer.defvjp(forward, backward)
    return layer


def activation(step: Step, run: Callable[..., Any]) -> Callable[..., jax.Array]:
    """An elementwise function under the identity rule, in multiplier form: c_x = c_y f(x) / x."""
    what: Pointwise = step.what

    @jax.custom_vjp
    def layer(x: jax.Array, constants: Any) -> jax.Array:
        return run((x,), constants)

    def forward(x: jax.Array, constants: Any) -> tuple[jax.Array, Any]:
        return run((x,), constants), (x, constants)

    def backward(saved: Any, cotangent: jax.Array) -> tuple[Any, ...]:
        x, constants = saved
        factor = slope(what, step, x, constants)
        changed = at_least_float32(cotangent) * factor
        return changed.astype(x.dtype), None

    layer.defvjp(forward, backward)
    return layer


def modified_gradient(run: Callable[..., Any]) -> Callable[..., jax.Array]:
    """An activation under a rule of the gradient family."""

    @jax.custom_vjp
    def layer(x: jax.Array, constants: Any, rule: Any) -> jax.Array:
        return run((x,), constants)

    def forward(x: jax.Array, constants: Any, rule: Any) -> tuple[jax.Array, Any]:
        return run((x,), constants), (x, constants, rule)

    def backward(saved: Any, cotangent: jax.Array) -> tuple[Any, ...]:
        x, constants, rule = saved
        _, pull = jax.vjp(lambda v: run((v,), constants), x)
        (gradient,) = pull(cotangent)
        return rule.cotangent(x, gradient, cotangent).astype(x.dtype), None, None

    layer.defvjp(forward, backward)
    return layer


# -- f(x) / x ---------------------------------------------------------------------------------


def slope(what: Pointwise, step: Step, x: jax.Array, constants: Sequence[Any]) -> jax.Array:
    """`f(x) / x` for an elementwise f with f(0) = 0, by slopes, finite everywhere.

    Every intermediate value v of f is carried with its own v / x where it has one: x itself has 1,
    a product has one factor's slope times the other factor. So silu gives sigmoid(x), gelu Phi(x),
    relu [x > 0], without a division.
    """
    start, end = step.inputs[0], step.outputs[0]
    env: dict[Any, tuple[Any, Any]] = {start: (x, jnp.ones_like(x))}
    env.update({var: (value, None) for var, value in zip(step.constants, constants, strict=True)})
    _slopes(what.eqns, env)
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
    body = _compat.plain_call(eqn)
    body = body if body is not None else _compat.custom_call(eqn)
    if body is not None:
        jaxpr = _compat.open_jaxpr(body)
        env = dict(zip(jaxpr.invars, operands, strict=True))
        env.update({v: (c, None) for v, c in zip(jaxpr.constvars, body.consts, strict=True)})
        _slopes(jaxpr.eqns, env)
        out = jaxpr.outvars[0]
        return (out.val, None) if is_literal(out) else env[out]
    values = [v for v, _ in operands]
    slopes = [s for _, s in operands]
    result = eqn.primitive.bind(*values, **eqn.params)
    primitive = eqn.primitive
    if all(s is None for s in slopes):
        return result, None
    if primitive is prim.MUL:
        first = 0 if slopes[0] is not None else 1
        return result, slopes[first] * values[1 - first]
    if primitive is prim.DIV:
        return result, None if slopes[0] is None else slopes[0] / values[1]
    if primitive is prim.NEG:
        return result, -slopes[0]
    if (primitive in prim.ADD or primitive is prim.SUB) and None not in slopes:
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
    if primitive is _INTEGER_POW and eqn.params["y"] >= 1:
        return result, slopes[0] * values[0] ** (eqn.params["y"] - 1)
    if primitive is _SQUARE:
        return result, slopes[0] * values[0]
    if family(primitive) is prim.Family.NEUTRAL:
        return result, slopes[0].astype(result.dtype) if hasattr(slopes[0], "astype") else slopes[0]
    inner = [i for i, s in enumerate(slopes) if s is not None and not isinstance(s, float)]
    if len(inner) != 1 or not _vanishes_at_zero(eqn, operands, inner[0]):
        return result, None
    return result, slopes[inner[0]] * _quotient(eqn, values, inner[0], result)


def _vanishes_at_zero(eqn: Any, operands: list[tuple[Any, Any]], position: int) -> bool:
    from ._signs import _scalar, literal_value

    values: list[float | None] = []
    for i, a in enumerate(eqn.invars):
        values.append(0.0 if i == position else literal_value(a))
    at_zero = _scalar(eqn, values)
    return at_zero is not None and abs(at_zero) < 1e-12


def _quotient(eqn: Any, values: list[Any], position: int, result: jax.Array) -> jax.Array:
    """h(u) / u for one primitive with h(0) = 0, and h'(0) at 0."""
    u = values[position]

    def h(v: jax.Array) -> jax.Array:
        operands = [*values[:position], v, *values[position + 1 :]]
        return eqn.primitive.bind(*operands, **eqn.params)

    zero = jnp.zeros_like(u)
    _, at_zero = jax.jvp(h, (zero,), (jnp.ones_like(u),))
    at_zero = jnp.where(jnp.isfinite(at_zero), at_zero, 0)
    return jnp.where(u == 0, at_zero, result / jnp.where(u == 0, 1, u))


_INTEGER_POW = _compat.primitive("integer_pow")
_SQUARE = _compat.primitive("square")
