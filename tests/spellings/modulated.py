"""What numbers and constants are added to: parts of layers, gated means with a default, states."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from .between import Between
from .group import EXACT, Group, Params

TWO = {"gate": (4, 4), "one": (4, 4), "default": (4,)}
MODULATION = {"scale": (4, 4), "shift": (4, 4)}


def side_by_side(p: Params) -> Array:
    return jnp.concatenate([p["scale"], p["shift"]], 1)


def sigmoid(u: Array) -> Array:
    return jax.nn.sigmoid(u)


ADAPTIVE: dict[str, Callable[[Params, Array], Array]] = {
    "two layers": lambda p, h: h * (1 + h @ p["scale"]) + h @ p["shift"],
    "packed": lambda p, h: (lambda s: h * (1 + s[..., :4]) + s[..., 4:])(h @ side_by_side(p)),
    "split": lambda p, h: (
        lambda scale, shift: h * (scale + 1) + shift
    )(*jnp.split(h @ side_by_side(p), 2, -1)),
    "a bias": lambda p, h: (lambda s: h * s[..., :4] + s[..., 4:])(
        h @ side_by_side(p) + jnp.repeat(jnp.asarray([1.0, 0.0]), 4)
    ),
    "picked": lambda p, h: (
        lambda s: h * (1 + s[..., jnp.arange(4)]) + s[..., jnp.arange(4, 8)]
    )(h @ side_by_side(p)),
}  # fmt: skip

FORGET: dict[str, Callable[[Params, Array], Array]] = {
    "a bias": lambda p, h: sigmoid(h @ p["scale"] + 1) * jnp.tanh(h @ p["shift"]),
    "added to a part": lambda p, h: (
        lambda z: sigmoid(z[..., :4] + 1.0) * jnp.tanh(z[..., 4:])
    )(h @ side_by_side(p)),
    "added in place": lambda p, h: (
        lambda z: sigmoid(z[..., :4]) * jnp.tanh(z[..., 4:])
    )((h @ side_by_side(p)).at[..., :4].add(1.0)),
    "split": lambda p, h: (
        lambda f, c: sigmoid(1 + f) * jnp.tanh(c)
    )(*jnp.split(h @ side_by_side(p), 2, -1)),
}  # fmt: skip

TO_DEFAULT: dict[str, Between] = {
    "a mean": lambda u, w, d: sigmoid(u) * w + (1 - sigmoid(u)) * d,
    "towards": lambda u, w, d: d + sigmoid(u) * (w - d),
    "lerp": lambda u, w, d: w + (1 - sigmoid(u)) * (d - w),
    "distributed": lambda u, w, d: sigmoid(u) * w + d - d * sigmoid(u),
}

STEPS: dict[str, Between] = {
    "a mean": lambda g, s, c: g * s + (1 - g) * c,
    "towards": lambda g, s, c: s + (1 - g) * (c - s),
    "away": lambda g, s, c: c + g * (s - c),
    "less": lambda g, s, c: s - (1 - g) * (s - c),
}


def to_default(number: float | None) -> dict[str, Callable[[Params, Array], Array]]:
    def spelled(f: Between) -> Callable[[Params, Array], Array]:
        return lambda p, h: f(
            h @ p["gate"], jnp.tanh(h @ p["one"]), p["default"] if number is None else number
        )

    return {name: spelled(f) for name, f in TO_DEFAULT.items()}


def leaky(zeros: bool) -> dict[str, Callable[[Params, Array], Array]]:
    """A state whose gates see the input alone."""

    def parts(p: Params, h: Array) -> tuple[Array, Array, Array]:
        start = jnp.zeros_like(h[:, 0]) if zeros else h[:, 2] @ p["start"]
        return sigmoid(h @ p["gate"]), h @ p["one"], start

    def by_hand(step: Between) -> Callable[[Params, Array], Array]:
        def f(p: Params, h: Array) -> Array:
            g, c, s = parts(p, h)
            for t in range(h.shape[1]):
                s = step(g[:, t], s, c[:, t])
            return s

        return f

    def by_scan(step: Between) -> Callable[[Params, Array], Array]:
        def f(p: Params, h: Array) -> Array:
            g, c, s = parts(p, h)
            rows = jnp.swapaxes(g, 0, 1), jnp.swapaxes(c, 0, 1)
            return lax.scan(lambda s, row: (step(row[0], s, row[1]), None), s, rows)[0]

        return f

    written = {name: by_hand(step) for name, step in STEPS.items()}
    return written | {f"{name}, scan": by_scan(step) for name, step in STEPS.items()}


ENTROPY: dict[str, Callable[[Array], Array]] = {
    "a product": lambda q: -(q * jnp.log(q)).sum(-1),
    "xlogy": lambda q: -jax.scipy.special.xlogy(q, q).sum(-1),
    "entr": lambda q: jax.scipy.special.entr(q).sum(-1),
    "a masked logarithm": lambda q: -(q * jnp.log(jnp.maximum(q, 1e-30))).sum(-1),
}

OF_NOTHING: dict[str, Callable[[Params, Array], Array]] = {
    "without": lambda p, h: h @ p["one"],
    "a product of nothing": lambda p, h: (
        h @ p["one"] * jnp.prod((h @ p["gate"])[:, :0], 1)[:, None]
    ),
    "products so far": lambda p, h: jnp.stack(
        [(h @ p["one"])[:, t] * jnp.prod((h @ p["gate"])[:, t:t], 1) for t in range(3)], 1
    ),
}


def chebyshev(u: Array) -> Array:
    t = jnp.tanh(u)
    return jnp.stack([jnp.ones_like(t), t, 2 * t * t - 1, 4 * t**3 - 3 * t], -1)


COLUMNS: dict[str, Callable[[Array], Array]] = {
    "stacked": lambda u: jnp.cos(
        jnp.stack([jnp.zeros_like(u), *(n * jnp.arccos(jnp.tanh(u)) for n in (1, 2, 3))], -1)
    ),
    "polynomials": chebyshev,
    "angles": lambda u: jnp.cos(jnp.arccos(jnp.tanh(u))[..., None] * jnp.arange(4)),
    "angles, the other way": lambda u: jnp.cos(
        jnp.arange(4.0) * jnp.arccos(jnp.tanh(u)[..., None])
    ),
}


DEVIATION: dict[str, Callable[[Array], Array]] = {
    "variance": lambda h: jnp.sqrt(h.var(1, keepdims=True) + 0.1),
    "squared": lambda h: jnp.sqrt(h.std(1, keepdims=True) ** 2 + 0.1),
    "times itself": lambda h: (lambda s: jnp.sqrt(s * s + 0.1))(h.std(1, keepdims=True)),
    "jnp.square": lambda h: jnp.sqrt(jnp.square(jnp.std(h, 1, keepdims=True)) + 0.1),
    "power": lambda h: (jnp.power(h.std(1, keepdims=True), 2.0) + 0.1) ** 0.5,
}


def reversible(p: Params, h: Array, deviation: Callable[[Array], Array]) -> Array:
    """Normalised, through a layer, and back (Kim et al. 2022)."""
    mean, s = h.mean(1, keepdims=True), deviation(h)
    return ((h - mean) / s) @ p["one"] * s + mean


GROUPS = (
    Group(
        "a normalisation that is undone",
        {n: (lambda p, h, f=f: reversible(p, h, f)) for n, f in DEVIATION.items()},
        TWO,
        None,
        EXACT,
    ),
    Group(
        "a scale by a deviation",
        {n: (lambda p, h, f=f: h @ p["one"] * f(h)) for n, f in DEVIATION.items()},
        TWO,
        None,
        EXACT,
    ),
    Group("a layer norm's scale by a layer", ADAPTIVE, MODULATION, None, EXACT),
    Group("a number added to a part", FORGET, MODULATION, None, EXACT),
    Group("a mean with a default", to_default(None), TWO, None, EXACT),
    Group("a mean with a number", to_default(0.25), TWO, None, EXACT),
    Group("a leaky state from zeros", leaky(zeros=True), TWO | {"start": (4, 4)}, None, EXACT),
    Group("a leaky state from a value", leaky(zeros=False), TWO | {"start": (4, 4)}, None, EXACT),
    Group(
        "an entropy",
        {n: (lambda p, h, f=f: f(jax.nn.softmax(h @ p["gate"]))) for n, f in ENTROPY.items()},
        TWO,
        None,
        EXACT,
        rounding=3e-8,
    ),
    Group(
        "columns of a function, one of which is constant",
        {n: (lambda p, h, f=f: f(h @ p["gate"])) for n, f in COLUMNS.items()},
        TWO,
        None,
        EXACT,
        rounding=1e-8,
    ),
    Group("products of nothing", OF_NOTHING, TWO, None, EXACT),
)
