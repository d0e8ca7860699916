"""Functions inside of branches, with derivatives of their own, and derivatives themselves."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from .group import EXACT, Group, Params

PAIR = {"value": (4, 4), "gate": (4, 4)}
Function = Callable[[Array], Array]


def with_own_jvp(f: Function) -> Function:
    g = jax.custom_jvp(f)
    g.defjvp(lambda primals, tangents: jax.jvp(f, primals, tangents))
    return g


def with_own_vjp(f: Function) -> Function:
    g = jax.custom_vjp(f)
    g.defvjp(lambda x: (f(x), x), lambda x, c: jax.vjp(f, x)[1](c))
    return g


def bent(u: Array) -> Array:
    return jnp.where(u > 0, jnp.log1p(jnp.where(u > 0, u, 0)), jnp.tanh(u))


BENT = {
    "plain": bent,
    "its own jvp": with_own_jvp(bent),
    "its own vjp": with_own_vjp(bent),
    "in a vmap": jax.vmap(with_own_jvp(bent)),
    "a mask": lambda u: (u > 0) * jnp.log1p(jnp.maximum(u, 0)) + (u <= 0) * jnp.tanh(u),
}
RECTIFIED = {
    "relu": jax.nn.relu,
    "a choice": with_own_jvp(lambda u: jnp.where(u > 0, u, 0)),
    "a mask": with_own_jvp(lambda u: (u > 0) * u),
    "a mask's type": with_own_vjp(lambda u: (u > 0).astype(u.dtype) * u),
}
NORMED = {
    "always": lambda h: h / jnp.sqrt((h**2).sum()),
    "unless it is zero": lambda h: (lambda n: lax.cond(n > 1e-9, lambda z: z / n, lambda z: z, h))(
        jnp.sqrt((h**2).sum())
    ),
}
SCALED = {
    "always": lambda y: 2 * y,
    "where it is small": lambda y: lax.cond(y.sum() < 1e9, lambda z: 2 * z, lambda z: z, y),
    "where it is large": lambda y: lax.cond(y.sum() > 1e9, lambda z: z, lambda z: 2 * z, y),
    "by a switch": lambda y: lax.switch(
        (y.sum() < 1e9).astype(int), [lambda z: z, lambda z: 2 * z], y
    ),
}
GATED = {
    "plain": jax.nn.sigmoid,
    "chosen by code": lambda u: lax.cond(True, jax.nn.sigmoid, lambda z: z, u),
    "the other": lambda u: lax.cond(False, lambda z: z, jax.nn.sigmoid, u),
    "in a function": jax.jit(lambda u: lax.cond(True, jax.nn.sigmoid, jnp.sin, u)),
}


def times_value(spelled: dict[str, Function]):  # type: ignore[no-untyped-def]
    return {
        name: (lambda p, h, f=f: f(h @ p["gate"]) * (h @ p["value"])) for name, f in spelled.items()
    }


def energy(p: Params, h: Array) -> Array:
    u = h @ p["value"]
    return (jnp.tanh(u) + jax.nn.softplus(h @ p["gate"])).sum()


def mixed_energy(p: Params, h: Array) -> Array:
    return (h + jax.nn.sigmoid(h @ p["gate"]) * (jnp.tanh(h) - h)).sum()


FORCE = {
    "by hand": lambda p, h: (
        (1 - jnp.tanh(h @ p["value"]) ** 2) @ p["value"].T
        + jax.nn.sigmoid(h @ p["gate"]) @ p["gate"].T
    ),
    "grad": lambda p, h: jax.grad(energy, 1)(p, h),
    "vjp": lambda p, h: jax.vjp(lambda x: energy(p, x), h)[1](jnp.ones(()))[0],
    "linearized": lambda p, h: jax.linear_transpose(jax.linearize(lambda x: energy(p, x), h)[1], h)(
        jnp.ones(())
    )[0],
    "for each": lambda p, h: jax.vmap(jax.vmap(jax.grad(lambda x: energy(p, x))))(h),
}
SOFTMAX_FORCE = {
    "grad": lambda p, h: jax.grad(lambda x: (jax.nn.softmax(x, -1) * p["value"][:3]).sum())(h),
    "vjp": lambda p, h: jax.vjp(lambda x: (jax.nn.softmax(x, -1) * p["value"][:3]).sum(), h)[1](
        jnp.ones(())
    )[0],
}
MIXED_FORCE = {
    "grad": lambda p, h: jax.grad(mixed_energy, 1)(p, h),
    "vjp": lambda p, h: jax.vjp(lambda x: mixed_energy(p, x), h)[1](jnp.ones(()))[0],
    "in jit": lambda p, h: jax.jit(jax.grad(mixed_energy, 1))(p, h),
}

NAMED = {
    "an axis": lambda y: y * y.sum(1, keepdims=True) + (y - y.mean(1, keepdims=True)),
    "its name": jax.vmap(
        jax.vmap(lambda r: r * lax.psum(r, "rows") + (r - lax.pmean(r, "rows")), axis_name="rows")
    ),
    "named from outside": jax.vmap(
        lambda r: r * lax.psum(r, "rows") + (r - lax.pmean(r, "rows")), 1, 1, axis_name="rows"
    ),
}
LARGEST = {
    "an axis": lambda y: jnp.tanh(y.max(1)) - y.min(1),
    "its name": lambda y: jax.vmap(
        lambda z: jax.vmap(
            lambda r: jnp.tanh(lax.pmax(r, "rows")) - lax.pmin(r, "rows"), axis_name="rows"
        )(z)[0]
    )(y),
}

GROUPS = (
    *(
        Group(
            name,
            {how: (lambda p, h, f=f: f(h @ p["value"])) for how, f in spelled.items()},
            {"value": (4, 4)},
            None,
            EXACT,
        )
        for name, spelled in (("a sum by name", NAMED), ("a maximum by name", LARGEST))
    ),
    Group("a force", FORCE, PAIR, None, EXACT),
    Group("the force of a softmax", SOFTMAX_FORCE, PAIR, None, EXACT),
    Group("the force of a mean", MIXED_FORCE, PAIR, None, EXACT),
    Group("a bent function", times_value(BENT), PAIR, None, EXACT),
    Group("a rectifier of one's own", times_value(RECTIFIED), PAIR, None, EXACT),
    Group(
        "a norm unless it is zero",
        {name: (lambda p, h, f=f: f(h) @ p["value"]) for name, f in NORMED.items()},
        {"value": (4, 4)},
        None,
        EXACT,
    ),
    Group(
        "a branch by its own operand",
        {name: (lambda p, h, f=f: jnp.tanh(f(h @ p["value"]))) for name, f in SCALED.items()},
        {"value": (4, 4)},
        None,
        EXACT,
    ),
    Group("a gate in a branch", times_value(GATED), PAIR, None, EXACT),
)
