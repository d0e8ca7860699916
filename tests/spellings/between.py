"""Values between two others, by gates: (1 - g) b + g a is b + g (a - b)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from .gates import GRU_PARAMS, gru_loop, start
from .group import EXACT, Group, Params, function, signal

THREE = {"gate": (4, 4), "one": (4, 4), "other": (4, 4)}
Between = Callable[[Array, Array, Array], Array]


def sigmoid(u: Array) -> Array:
    return jax.nn.sigmoid(u)


def three(p: Params, h: Array) -> tuple[Array, Array, Array]:
    return h @ p["gate"], h @ p["one"], h @ p["other"]


def on_three(spelled: dict[str, Between]) -> dict[str, Callable[[Params, Array], Array]]:
    return {name: (lambda p, h, f=f: f(*three(p, h))) for name, f in spelled.items()}


BETWEEN: dict[str, Between] = {
    "two gates": lambda u, a, b: sigmoid(u) * a + (1 - sigmoid(u)) * b,
    "towards a": lambda u, a, b: b + sigmoid(u) * (a - b),
    "away from a": lambda u, a, b: a - (1 - sigmoid(u)) * (a - b),
    "towards b": lambda u, a, b: a + sigmoid(-u) * (b - a),
    "distributed": lambda u, a, b: b - sigmoid(u) * b + a * sigmoid(u),
    "a difference negated": lambda u, a, b: b - (b - a) * sigmoid(u),
    "halves of tanh": lambda u, a, b: b + (jnp.tanh(u / 2) / 2 + 0.5) * (a - b),
    "divided": lambda u, a, b: b + (a - b) / (1 + jnp.exp(-u)),
    "stacked": lambda u, a, b: (jnp.stack([sigmoid(u), 1 - sigmoid(u)]) * jnp.stack([a, b])).sum(0),
    "a checkpoint's": jax.checkpoint(lambda u, a, b: b + sigmoid(u) * (a - b)),
    "a map's": lambda u, a, b: lax.map(lambda r: r[2] + sigmoid(r[0]) * (r[1] - r[2]), (u, a, b)),
}
WITH_MORE: dict[str, Between] = {
    "two gates": lambda u, a, b: (1 + jnp.tanh(u)) * a + b,
    "distributed": lambda u, a, b: a + jnp.tanh(u) * a + b,
    "another order": lambda u, a, b: a + (b + a * jnp.tanh(u)),
    "subtracted": lambda u, a, b: b - (-a - jnp.tanh(u) * a),
}
OF_CHANNELS: dict[str, Between] = {
    "two gates": lambda u, a, b: sigmoid(u[:, :1]) * a + (1 - sigmoid(u[:, :1])) * b,
    "towards a": lambda u, a, b: b + sigmoid(u[:, :1]) * (a - b),
    "distributed": lambda u, a, b: b + sigmoid(u[:, :1]) * a - sigmoid(u[:, :1]) * b,
    "spread out": lambda u, a, b: b + jnp.broadcast_to(sigmoid(u[:, :1]), a.shape) * (a - b),
}
EXCITED: dict[str, Between] = {
    "times one more": lambda u, a, b: a * (1 + sigmoid(u.mean(1, keepdims=True))) + b,
    "added": lambda u, a, b: a + a * sigmoid(u.mean(1, keepdims=True)) + b,
}


def towards_new(p: Params, h: Array, row: Array) -> Array:
    """The cell as some write it: the state moves towards the new one."""
    r, u = jnp.split(sigmoid(row @ p["w"] + h @ p["u"] + p["b"]), 2, -1)
    n = jnp.tanh(row @ p["wn"] + r * (h @ p["un"]))
    return n + u * (h - n)


def towards_new_in_python(p: Params, x: Array) -> Array:
    h = start(x)[0]
    for t in range(x.shape[1]):
        h = towards_new(p, h, x[:, t])
    return h


GRUS = {
    "a mean": gru_loop,
    "towards the new one": towards_new_in_python,
    "towards the new one, scan": lambda p, x: lax.scan(
        lambda h, row: (towards_new(p, h, row), None), start(x)[0], jnp.swapaxes(x, 0, 1)
    )[0],
}


def between_by_hand(p: Params, h: Array, gates: bool) -> Array:
    u, a, b = three(p, h)
    g, rest = function(sigmoid, u), function(lambda u: sigmoid(-u), u)
    return signal(g, a, gates) + signal(rest, b, gates)


GROUPS = (
    Group("between two values", on_three(BETWEEN), THREE, between_by_hand, EXACT),
    Group("a gate beside more", on_three(WITH_MORE), THREE, None, EXACT),
    Group("between two values, by channels", on_three(OF_CHANNELS), THREE, None, EXACT),
    Group("an excitation beside more", on_three(EXCITED), THREE, None, EXACT),
    Group("a GRU that moves towards its new state", GRUS, GRU_PARAMS, None, EXACT),
)
