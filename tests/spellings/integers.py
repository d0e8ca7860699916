"""Integers on the way: quantised numbers, indices, comparisons."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .group import EXACT, Group, Params, hold

STEP = 0.05


def ste(x: Array, y: Array) -> Array:
    """The value of y with the gradient of x."""
    return x + hold(y - x)


@jax.custom_vjp
def straight_through(x: Array) -> Array:
    return jnp.round(x)


straight_through.defvjp(lambda x: (jnp.round(x), None), lambda _, g: (g,))

ROUNDED = {
    "round": lambda p, x: jnp.round(x / STEP) * STEP,
    "int8": lambda p, x: (x / STEP).round().astype(jnp.int8).astype(x.dtype) * STEP,
    "int32": lambda p, x: jnp.round(x / STEP).astype(jnp.int32) * STEP,
    "rint": lambda p, x: jnp.rint(x / STEP) * STEP,
    "lax": lambda p, x: lax.round(x / STEP, lax.RoundingMethod.TO_NEAREST_EVEN) * STEP,
    "straight through": lambda p, x: straight_through(x / STEP) * STEP,
    "stop_gradient": lambda p, x: x + lax.stop_gradient(jnp.round(x / STEP) * STEP - x),
    "floor of a half more": lambda p, x: jnp.floor(x / STEP + 0.5) * STEP,
    "clipped": lambda p, x: jnp.clip(jnp.round(x / STEP), -127, 127) * STEP,
    "clipped int8": lambda p, x: (
        jnp.clip(jnp.round(x / STEP), -127, 127).astype(jnp.int8).astype(x.dtype) * STEP
    ),
}

FLOORED = {
    "floor": lambda p, x: jnp.floor(x / STEP) * STEP,
    "int16": lambda p, x: jnp.floor(x / STEP).astype(jnp.int16).astype(x.dtype) * STEP,
    "minus the ceiling": lambda p, x: -jnp.ceil(-x / STEP) * STEP,
    "the remainder held": lambda p, x: x - lax.stop_gradient(x - jnp.floor(x / STEP) * STEP),
    "a quotient of integers": lambda p, x: jnp.floor_divide(x, STEP) * STEP,
}


def weights8(p: Params) -> tuple[Array, Array]:
    scale = jnp.abs(p["w"]).max(0) / 127
    return jnp.round(p["w"] / scale).astype(jnp.int8), scale


WEIGHT_ONLY = {
    "scaled weights": lambda p, x: x @ (weights8(p)[0].astype(x.dtype) * weights8(p)[1]),
    "scaled after": lambda p, x: (x @ weights8(p)[0].astype(x.dtype)) * weights8(p)[1],
    "float weights": lambda p, x: x @ (jnp.round(p["w"] / weights8(p)[1]) * weights8(p)[1]),
    "mixed dot": lambda p, x: (
        lax.dot_general(x, weights8(p)[0].astype(x.dtype), (((2,), (0,)), ((), ())))
        * weights8(p)[1]
    ),
    "einsum": lambda p, x: jnp.einsum("btf,fo,o->bto", x, *weights8(p)),
    "table": lambda p, x: (
        x
        @ (
            jnp.linspace(-127.0, 127.0, 255)[weights8(p)[0].astype(jnp.int32) + 127]
            * weights8(p)[1]
        )
    ),
}


def scale_of(x: Array) -> Array:
    return jnp.abs(x).max(-1, keepdims=True) / 127


def dynamic(p: Params, x: Array) -> Array:
    """int8 activations and weights, an int32 product."""
    s, (w, t) = scale_of(x), weights8(p)
    q = jnp.round(x / s).astype(jnp.int8)
    y = lax.dot_general(q, w, (((2,), (0,)), ((), ())), preferred_element_type=jnp.int32)
    return y.astype(x.dtype) * s * t


def dynamic_floats(p: Params, x: Array) -> Array:
    s, (w, t) = scale_of(x), weights8(p)
    return (jnp.round(x / s) @ w.astype(x.dtype)) * s * t


def dynamic_wide(p: Params, x: Array) -> Array:
    s, (w, t) = scale_of(x), weights8(p)
    q = jnp.round(x / s).astype(jnp.int8).astype(jnp.int32)
    return (q @ w.astype(jnp.int32)) * (s * t)


def dynamic_back_first(p: Params, x: Array) -> Array:
    s, (w, t) = scale_of(x), weights8(p)
    return (jnp.round(x / s).astype(jnp.int8) * s) @ (w * t)


def dynamic_held_scale(p: Params, x: Array) -> Array:
    s, (w, t) = lax.stop_gradient(scale_of(x)), weights8(p)
    q = jnp.round(x / s).astype(jnp.int8)
    return (q.astype(jnp.int32) @ w.astype(jnp.int32)).astype(x.dtype) * s * t


def dynamic_clipped(p: Params, x: Array) -> Array:
    s, (w, t) = scale_of(x), weights8(p)
    q = jnp.clip(jnp.round(x / s), -128, 127).astype(jnp.int8)
    y = jnp.einsum("bti,io->bto", q, w, preferred_element_type=jnp.int32)
    return y * s * t


def dynamic_einsum(p: Params, x: Array) -> Array:
    s, (w, t) = scale_of(x), weights8(p)
    return jnp.einsum("bti,io,o->bto", jnp.round(x / s) * s, w.astype(x.dtype), t)


DYNAMIC = {
    "int8": dynamic,
    "floats": dynamic_floats,
    "int32": dynamic_wide,
    "back to floats first": dynamic_back_first,
    "the scale held": dynamic_held_scale,
    "clipped": dynamic_clipped,
    "einsum": dynamic_einsum,
}


def dynamic_by_hand(p: Params, x: Array, gates: bool) -> Array:
    """The float network that it stands for: the scale cancels."""
    w, t = weights8(p)
    s = scale_of(x)
    return ste(x, jnp.round(x / s) * s) @ (w * t)


IDS = np.asarray([2, 0, 1])
LOOKUP = {
    "index": lambda p, x: x + p["table"][IDS],
    "take": lambda p, x: x + jnp.take(p["table"], IDS, axis=0),
    "one-hot": lambda p, x: x + jax.nn.one_hot(IDS, 5) @ p["table"],
    "gathered": lambda p, x: x + jnp.take_along_axis(p["table"], IDS[:, None], 0),
    "stack": lambda p, x: x + jnp.stack([p["table"][i] for i in IDS]),
    "traced index": lambda p, x: x + p["table"][(jnp.asarray(IDS) + 5) % 5],
}

BEST = {
    "argmax": lambda p, x: jnp.take_along_axis(x, x.argmax(-1)[..., None], -1)[..., 0],
    "max": lambda p, x: x.max(-1),
    "top_k": lambda p, x: lax.top_k(x, 1)[0][..., 0],
    "argsort": lambda p, x: jnp.take_along_axis(x, jnp.argsort(x, -1)[..., -1:], -1)[..., 0],
    "one-hot": lambda p, x: (x * jax.nn.one_hot(x.argmax(-1), 4)).sum(-1),
    "vmap": lambda p, x: jax.vmap(jax.vmap(lambda v: v[v.argmax()]))(x),
    "einsum": lambda p, x: jnp.einsum("btf,btf->bt", x, jax.nn.one_hot(x.argmax(-1), 4)),
}

SORTED = {
    "sort": lambda p, x: jnp.sort(x, -1),
    "argsort": lambda p, x: jnp.take_along_axis(x, jnp.argsort(x, -1), -1),
    "top_k": lambda p, x: jnp.flip(lax.top_k(x, 4)[0], -1),
    "negated": lambda p, x: -jnp.flip(jnp.sort(-x, -1), -1),
    "vmap": lambda p, x: jax.vmap(jax.vmap(lambda v: v[jnp.argsort(v)]))(x),
    "one-hot": lambda p, x: jnp.einsum("btf,btgf->btg", x, jax.nn.one_hot(jnp.argsort(x, -1), 4)),
}


def top_two(x: Array) -> Array:
    return lax.top_k(x, 2)[0][..., -1:]


ROUTED = {
    "where": lambda p, x: jnp.where(x >= top_two(x), x, 0),
    "mask": lambda p, x: x * (x >= top_two(x)),
    "cast mask": lambda p, x: x * (x >= top_two(x)).astype(jnp.int32),
    "ranks": lambda p, x: x * (jnp.argsort(jnp.argsort(-x, -1), -1) < 2),
    "one-hot": lambda p, x: x * jax.nn.one_hot(lax.top_k(x, 2)[1], 4).sum(-2),
    "set": lambda p, x: jax.vmap(
        jax.vmap(lambda v: jnp.zeros(4).at[lax.top_k(v, 2)[1]].set(lax.top_k(v, 2)[0]))
    )(x),
}


# -- straight through -----------------------------------------------------------------------------


@jax.custom_vjp
def value_of_the_other(x: Array, q: Array) -> Array:
    return q


value_of_the_other.defvjp(lambda x, q: (q, None), lambda _, g: (g, jnp.zeros_like(g)))


def code(p: Params, x: Array) -> Array:
    """The nearest row of a table."""
    distances = ((x[..., None, :] - p["codes"]) ** 2).sum(-1)
    return p["codes"][distances.argmin(-1)]


def choice(p: Params, x: Array) -> Array:
    return jax.nn.one_hot(x.argmax(-1), x.shape[-1])


def handed_on(value):  # type: ignore[no-untyped-def]
    """Ways to give a value the gradient of another one."""
    return {
        "what is missing": lambda p, x: x + lax.stop_gradient(value(p, x) - x),
        "what is too much": lambda p, x: x - lax.stop_gradient(x - value(p, x)),
        "a zero": lambda p, x: lax.stop_gradient(value(p, x)) + (x - lax.stop_gradient(x)),
        "a zero, not detached": lambda p, x: value(p, x) + (x - lax.stop_gradient(x)),
        "in order": lambda p, x: value(p, x) - lax.stop_gradient(x) + x,
        "each detached": lambda p, x: x + (lax.stop_gradient(value(p, x)) - lax.stop_gradient(x)),
        "custom_vjp": lambda p, x: value_of_the_other(x, value(p, x)),
    }


CODES, CHOICE = handed_on(code), handed_on(choice)


def own(spelled, name=None):  # type: ignore[no-untyped-def]
    f = spelled[name or next(iter(spelled))]
    return lambda p, h, gates: f(p, h)


GROUPS = (
    Group("rounded", ROUNDED, {}, own(ROUNDED, "stop_gradient"), EXACT),
    Group("rounded down", FLOORED, {}, own(FLOORED, "the remainder held"), EXACT),
    Group("codes", CODES, {"codes": (5, 4)}, own(CODES), EXACT),
    Group("a choice", CHOICE, {}, own(CHOICE), EXACT),
    Group("int8 weights", WEIGHT_ONLY, {"w": (4, 3)}, own(WEIGHT_ONLY)),
    Group("dynamic int8", DYNAMIC, {"w": (4, 3)}, dynamic_by_hand, EXACT),
    Group("rows of a table", LOOKUP, {"table": (5, 4)}, own(LOOKUP), EXACT),
    Group("the best unit", BEST, {}, own(BEST), EXACT),
    Group("sorted", SORTED, {}, own(SORTED), EXACT),
    Group("the best two", ROUTED, {}, own(ROUTED), EXACT),
)
