"""Functions of JAX that say in one word what others write out: in place, by functions, near one."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .group import EVERY, EXACT, Group

Function = Callable[[Array], Array]
IN_PLACE: dict[str, Function] = {"tanh": jnp.tanh, "silu": jax.nn.silu, "relu": jax.nn.relu}
REDUCTIONS = {
    "sum": (jnp.sum, jnp.add, lax.add, 0.0),
    "maximum": (jnp.max, jnp.maximum, lax.max, -np.inf),
    "product": (jnp.prod, jnp.multiply, lax.mul, 1.0),
}


def in_place(f: Function) -> dict[str, Function]:
    return {
        "side by side": lambda z: jnp.concatenate([f(z[..., :2]), z[..., 2:]], -1),
        "apply": lambda z: z.at[..., :2].apply(f),
        "apply, picked": lambda z: z.at[..., np.arange(2)].apply(f),
        "set": lambda z: z.at[..., :2].set(f(z[..., :2])),
        "where": lambda z: jnp.where(np.arange(4) < 2, f(z), z),
    }


def reduced(whole, of_two, operator, start: float) -> dict[str, Function]:  # type: ignore[no-untyped-def]
    return {
        "its name": lambda z: whole(z, 1),
        "by a function": lambda z: lax.reduce(z, start, of_two, (1,)),
        "by its operator": lambda z: lax.reduce(z, start, operator, (1,)),
        "by one's own": lambda z: lax.reduce(z, start, lambda a, b: of_two(b, a), (1,)),
    }


def windows(of_two, operator, start: float) -> dict[str, Function]:  # type: ignore[no-untyped-def]
    def pooled(f) -> Function:  # type: ignore[no-untyped-def]
        return lambda z: lax.reduce_window(z, start, f, (1, 2, 1), (1, 1, 1), "SAME")

    return {
        "by its operator": pooled(operator),
        "by a function": pooled(of_two),
        "by one's own": pooled(lambda a, b: of_two(b, a)),
    }


BASE_TWO: dict[str, Function] = {
    "logaddexp": lambda z: (
        jnp.logaddexp(z[..., :2] * np.log(2), z[..., 2:] * np.log(2)) / np.log(2)
    ),
    "logaddexp2": lambda z: jnp.logaddexp2(z[..., :2], z[..., 2:]),
}
RELATIVE: dict[str, Function] = {
    "a product": lambda z: (lambda p: (p * (jnp.log(p) - np.log(0.25))).sum(-1))(jax.nn.softmax(z)),
    "log_softmax": lambda z: (jax.nn.softmax(z) * (jax.nn.log_softmax(z) - np.log(0.25))).sum(-1),
}
if jax.__version_info__ >= (0, 12):  # before, it chooses by the signs of both
    RELATIVE["rel_entr"] = lambda z: jax.scipy.special.rel_entr(jax.nn.softmax(z), 0.25).sum(-1)


def first_log(z: Array) -> Array:
    return jax.nn.log_softmax(z)[..., 0]


NOT_THE_FIRST: dict[str, Function] = {
    "less": lambda z: 1 - jax.nn.softmax(z)[..., 0],
    "exp": lambda z: 1 - jnp.exp(first_log(z)),
    "expm1": lambda z: -jnp.expm1(first_log(z)),
}
ITS_LOGARITHM: dict[str, Function] = {
    "less": lambda z: jnp.log(1 - jax.nn.softmax(z)[..., 0]),
    "expm1": lambda z: jnp.log(-jnp.expm1(first_log(z))),
    "log1p": lambda z: jnp.log1p(-jax.nn.softmax(z)[..., 0]),
    "log1p of exp": lambda z: jnp.log1p(-jnp.exp(first_log(z))),
}
FOCAL: dict[str, Function] = {
    "a square": lambda z: -((1 - jax.nn.softmax(z)[..., 0]) ** 2) * first_log(z),
    "of one softmax": lambda z: (lambda p: -jnp.square(1 - p) * jnp.log(p))(
        jax.nn.softmax(z)[..., 0]
    ),
    "exp": lambda z: -first_log(z) * (1 - jnp.exp(first_log(z))) ** 2,
    "expm1": lambda z: -first_log(z) * jnp.expm1(first_log(z)) ** 2,
}


def shares(q: Array) -> Array:
    return q / q.sum(-1, keepdims=True)


STUDENT: dict[str, Function] = {
    "shares": lambda z: shares(1 / (1 + z * z)),
    "powers": lambda z: shares((1 + z**2) ** -1.0),
    "softmax of logarithms": lambda z: jax.nn.softmax(-jnp.log(1 + z * z)),
    "softmax of log1p": lambda z: jax.nn.softmax(-jnp.log1p(z * z)),
    "exp of log_softmax": lambda z: jnp.exp(jax.nn.log_softmax(-jnp.log1p(z * z))),
}  # fmt: skip


def members(z: Array) -> Array:
    return z.reshape(*z.shape[:-1], 2, 2)


ENSEMBLE: dict[str, Function] = {
    "logsumexp of log_softmax": lambda z: (
        jax.nn.logsumexp(jax.nn.log_softmax(members(z)), 2) - np.log(2)
    ),
    "log of the mean": lambda z: jnp.log(jax.nn.softmax(members(z)).mean(2)),
    "log of the sum": lambda z: jnp.log(jax.nn.softmax(members(z)).sum(2)) - np.log(2),
    "exp of log_softmax": lambda z: (
        jnp.log(jnp.exp(jax.nn.log_softmax(members(z))).sum(2)) - np.log(2)
    ),
    "quotients": lambda z: jnp.log(
        (jnp.exp(members(z)) / jnp.exp(members(z)).sum(-1, keepdims=True)).mean(2)
    ),
    "logaddexp": lambda z: (
        jnp.logaddexp(jax.nn.log_softmax(z[..., :2]), jax.nn.log_softmax(z[..., 2:])) - np.log(2)
    ),
    "two": lambda z: jnp.log((jax.nn.softmax(z[..., :2]) + jax.nn.softmax(z[..., 2:])) / 2),
}


def group(name: str, spelled: dict[str, Function], **more) -> Group:  # type: ignore[no-untyped-def]
    pieces = {how: (lambda p, h, f=f: f(h @ p["w"])) for how, f in spelled.items()}
    return Group(name, pieces, {"w": (4, 4)}, None, **more)


GROUPS = (
    *(group(f"{name} of a part, in place", in_place(f)) for name, f in IN_PLACE.items()),
    *(group(f"a {name} by a function", reduced(*own)) for name, own in REDUCTIONS.items()),
    *(
        group(f"a {name} of windows by a function", windows(*REDUCTIONS[name][1:]))
        for name in ("sum", "maximum")
    ),
    group("a log-sum-exp in base two", BASE_TWO, composites=EXACT),
    group("a relative entropy", RELATIVE, composites=EVERY, rounding=1e-8),
    group("one less a probability", NOT_THE_FIRST, composites=EXACT),
    group("the logarithm of one less a probability", ITS_LOGARITHM, composites=EXACT),
    group("a focal loss", FOCAL, composites=EXACT),
    group("the logarithm of a mean of softmaxes", ENSEMBLE, composites=EXACT),
    group("Student shares", STUDENT, composites=EXACT),
)
