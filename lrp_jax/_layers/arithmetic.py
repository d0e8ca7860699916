"""What travels backwards, and the identities that change it on its way.

At a variable x travels either relevance R ("R") or its multiplier c with R = x * c ("C"). Every
backward pass is a `jax.custom_vjp` whose forward is the user's own computation, and reads nothing
but its arguments, so that explanations can be differentiated again.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .step import Backward, Visit, Way


def divide(relevance: Any, value: Any, epsilon: Any) -> jax.Array:
    """`relevance / S(value)`, S(z) = z + epsilon * sgn(z), sgn(0) = +1; 0 where S(z) = 0."""
    stabilized = value + jnp.where(value >= 0, epsilon, -epsilon)
    if isinstance(epsilon, int | float) and epsilon >= jnp.finfo(stabilized.dtype).tiny:
        return jnp.asarray(relevance / stabilized)
    zero = stabilized == 0
    return jnp.where(zero, 0, relevance / jnp.where(zero, 1, stabilized))


def at_least_float32(x: jax.Array) -> jax.Array:
    """Half types as float32: stabilisers and shares are formed there."""
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def on_the_way_back(change: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
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


to_relevance = on_the_way_back(times_value)
"""Below it relevance travels, above it multipliers: R = x * c."""


def to_multiplier_value(relevance: jax.Array, value: jax.Array) -> jax.Array:
    """c = R / x, and 0 where x is 0."""
    return divide(at_least_float32(relevance), at_least_float32(value), 0.0).astype(value.dtype)


to_multiplier = on_the_way_back(to_multiplier_value)
"""Below it multipliers travel, above it relevance: c = R / x, and 0 where x is 0."""

hold = on_the_way_back(lambda c, value: jnp.zeros_like(c))
"""A constant of the explanation that stays alive for derivatives of the explanation."""

halve = on_the_way_back(lambda c, value: c / 2)
"""Half of the relevance for each of the two factors that follow."""

_scaled = on_the_way_back(lambda c, value, share: c * share)


def weigh(value: jax.Array, share: Any) -> jax.Array:
    """`value`, of what comes back a share."""
    if isinstance(share, int | float) and share in (0, 1):
        return value if share else hold(value)
    return _scaled(value, share)


made_once = on_the_way_back(lambda c, value: jax.lax.optimization_barrier(c))
"""What comes back is computed once, however many read it: compilers copy what is elementwise into
each of its readers, which makes as many different kernels to compile, and keeps all that it is
computed from."""

negate = on_the_way_back(lambda c, value: -c)
"""A divisor takes its part of the relevance with the sign of a factor."""


@jax.custom_vjp
def tap(value: jax.Array, probe: jax.Array) -> jax.Array:
    """`value`; what comes back to it is also the cotangent of `probe`."""
    return value


tap.defvjp(lambda value, probe: (value, None), lambda _, cotangent: (cotangent, cotangent))


def relevance_of(cotangent: jax.Array, value: jax.Array, form: str) -> jax.Array:
    """Relevance at a variable from what travels there, in at least float32."""
    cotangent, value = at_least_float32(cotangent), at_least_float32(value)
    return cotangent if form == "R" else times_value(cotangent, value)


def _stabilized(form: str) -> Callable[..., jax.Array]:
    def change(cotangent: jax.Array, z: jax.Array, epsilon: Any) -> jax.Array:
        z, cotangent = at_least_float32(z), at_least_float32(cotangent)
        if form == "R":
            return divide(cotangent, z, epsilon)
        z = jnp.where(jnp.isneginf(z), 0, z)  # a logit masked by adding -inf has no relevance
        return cotangent * divide(z, z, epsilon)

    return on_the_way_back(change)


_STABILIZED = {form: _stabilized(form) for form in "RC"}


def is_nothing(epsilon: Any) -> bool:
    """Whether a stabiliser is known to be zero."""
    return isinstance(epsilon, int | float) and epsilon == 0


def share_out(value: jax.Array, epsilon: Any, form: str) -> jax.Array:
    """At a linear layer's output: what its input's multiplier is made from, R / S(z).

    Args:
        value: z.
        epsilon: the stabiliser; None where nothing is divided.
        form: what arrives, R or c = R / z.
    """
    if epsilon is None:
        return to_relevance(value) if form == "C" else value
    if form == "C" and is_nothing(epsilon):
        return value
    return _STABILIZED[form](value, epsilon)


# -- whole backward passes ----------------------------------------------------------------------


def custom(
    visit: Visit, back: Callable[[Any, Any], jax.Array], saves: Callable[..., Any]
) -> jax.Array:
    """The one output of a step of one input, with a backward pass of its own.

    Args:
        visit: of the step.
        back: from the cotangent and what was saved to the cotangent of the input.
        saves: from (x, y, constants, rule) to what the backward pass reads.
    """

    native, dtype = visit.place.native, visit.inputs[0].dtype

    @jax.custom_vjp
    def layer(x: jax.Array, constants: Any, rule: Any) -> jax.Array:
        return native(x, *constants)[0]

    def forward(x: jax.Array, constants: Any, rule: Any) -> tuple[jax.Array, Any]:
        (y,) = native(x, *constants)
        return y, saves(x, y, constants, rule)

    def backward(saved: Any, cotangent: jax.Array) -> tuple[Any, ...]:
        return back(cotangent, saved).astype(dtype), None, None

    layer.defvjp(forward, backward)
    return layer(visit.inputs[0], visit.constants, visit.rule)


def unchanged(visit: Visit) -> list[Any]:
    """Any function of one variable that hands relevance on unchanged."""

    out = visit.place.out

    def back(cotangent: jax.Array, saved: Any) -> jax.Array:
        y, _ = saved
        return cotangent if out == "R" else relevance_of(cotangent, y, out)

    # A relevance that only passes needs nothing of the forward pass.
    return [
        custom(visit, back, lambda x, y, *_: (y if out == "C" else None, jnp.zeros((), x.dtype)))
    ]


UNCHANGED = Backward("R", unchanged)


def modified_gradient(visit: Visit) -> list[Any]:
    """An activation under a rule of the gradient family."""

    native = visit.place.native

    def back(cotangent: jax.Array, saved: Any) -> jax.Array:
        x, constants, rule = saved
        _, pull = jax.vjp(lambda v: native(v, *constants)[0], x)
        (gradient,) = pull(cotangent)
        changed: jax.Array = rule.cotangent(x, gradient, cotangent)
        return changed

    return [custom(visit, back, lambda x, y, constants, rule: (x, constants, rule))]


def held(visit: Visit) -> list[Any]:
    """A step that is a constant of the explanation."""
    return visit.place.native(*map(hold, visit.inputs), *visit.constants)


def of_one(rule: Any) -> Backward:
    """What a rule does to a function of one variable that is a layer as a whole."""
    if rule.way is Way.UNCHANGED:
        return UNCHANGED
    if rule.shares(1, frozenset({0})) == (0,):
        return Backward("C", held)
    return Backward("C", Visit.as_it_is, True)
