"""What is cut before or after it is computed: functions of parts, norms of rows, layers in halves
whose bias stands before the cut; products that a loop takes step by step."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .group import EVERY, EXACT, SUMS, Group, Params

Piece = Callable[[Params, Array], Array]
WEIGHTS = {"w": (4, 4)}
sigmoid = jax.nn.sigmoid


def of_dense(spelled: dict[str, Callable[[Array], Array]]) -> dict[str, Piece]:
    return {name: (lambda p, h, f=f: f(h @ p["w"])) for name, f in spelled.items()}


SILU: dict[str, Callable[[Array], Array]] = {
    "of the part": lambda z: jax.nn.silu(z[..., :2]),
    "the part of it": lambda z: jax.nn.silu(z)[..., :2],
    "parts of both factors": lambda z: z[..., :2] * sigmoid(z)[..., :2],
    "by another slice": lambda z: z[..., :2] * lax.slice_in_dim(sigmoid(z), 0, 2, axis=-1),
    "split": lambda z: jnp.split(z, 2, -1)[0] * jnp.split(sigmoid(z), 2, -1)[0],
    "picked": lambda z: z[..., :2] * jnp.take(sigmoid(z), np.arange(2), -1),
}
RELU: dict[str, Callable[[Array], Array]] = {
    "of the part": lambda z: jax.nn.relu(z[..., :2]) ** 2,
    "parts of both factors": lambda z: z[..., :2] * jax.nn.relu(z)[..., :2],
    "the part of it": lambda z: (z * jax.nn.relu(z))[..., :2],
}
TURNED: dict[str, Callable[[Array], Array]] = {
    "before": lambda z: z[..., ::-2] * jnp.tanh(z[..., ::-2]),
    "both after": lambda z: z[..., ::-2] * jnp.tanh(z)[..., ::-2],
    "after": lambda z: (z * jnp.tanh(z))[..., ::-2],
}
GATED: dict[str, Callable[[Array], Array]] = {
    "parts": lambda z: jax.nn.silu(z[..., :4]) * z[..., 4:],
    "a part of the gates": lambda z: z[..., :4] * sigmoid(z)[..., :4] * z[..., 4:],
    "a part of the gates first": lambda z: sigmoid(z)[..., :4] * z[..., :4] * z[..., 4:],
    "the other factor between": lambda z: sigmoid(z)[..., :4] * z[..., 4:] * z[..., :4],
    "a part of the silu": lambda z: z[..., 4:] * (z * sigmoid(z))[..., :4],
}


def length(x: Array) -> Array:
    return jnp.sqrt((x * x).sum(-1, keepdims=True) + 1e-3)


ROWS: dict[str, Piece] = {
    "cut first": lambda p, h: (h[:, :2] @ p["w"]) / length(h[:, :2]),
    "cut last": lambda p, h: ((h @ p["w"]) / length(h))[:, :2],
    "both cut": lambda p, h: (h @ p["w"])[:, :2] / length(h)[:, :2],
    "the length cut": lambda p, h: (h[:, :2] @ p["w"]) / length(h)[:, :2],
    "picked": lambda p, h: (h @ p["w"])[:, np.arange(2)] / length(h)[:, np.arange(2)],
    "the norm cut": lambda p, h: (h / length(h))[:, :2] @ p["w"],
}
FIRST_ROW: dict[str, Piece] = {
    "cut first": lambda p, h: (h[:, 0] @ p["w"]) / length(h[:, 0]),
    "both cut": lambda p, h: (h @ p["w"])[:, 0] / length(h)[:, 0],
    "a reciprocal": lambda p, h: (h @ p["w"])[:, 0] * (1 / length(h))[:, 0],
    "the norm cut": lambda p, h: ((h @ p["w"]) / length(h))[:, 0],
}

NORMED = {"w": (4, 4), "b": (4,), "mean": (4,), "scale": (4,), "bias": (4,)}


def by_halves(f: Callable[[Array, slice], Array]) -> Callable[[Array], Array]:
    parts = slice(0, 2), slice(2, 4)
    return lambda z: jnp.concatenate([f(z[..., own], own) for own in parts], -1)


BIASED: dict[str, Piece] = {
    "at once": lambda p, h: (h @ p["w"] + p["b"] - p["mean"]) * p["scale"] + p["bias"],
    "in halves": lambda p, h: by_halves(
        lambda z, i: (z - p["mean"][i]) * p["scale"][i] + p["bias"][i]
    )(h @ p["w"] + p["b"]),
    "scale and shift in halves": lambda p, h: by_halves(
        lambda z, i: z * p["scale"][i] + (p["bias"] - p["mean"] * p["scale"])[i]
    )(h @ p["w"] + p["b"]),
    "scale in halves, centred before": lambda p, h: by_halves(
        lambda z, i: z * p["scale"][i] + p["bias"][i]
    )(h @ p["w"] + p["b"] - p["mean"]),
}


# -- gates that are products, step by step --------------------------------------------------------


def recurrence(f: Callable[[Array, Array], Array], how: str) -> Piece:
    def run(p: Params, h: Array) -> Array:
        a, b = f(h @ p["forget"], h @ p["input"]), h @ p["w"]
        state = jnp.zeros_like(b[:, 0])
        if how == "loop":
            for t in range(h.shape[1]):
                state = a[:, t] * state + b[:, t]
            return state
        rows = jnp.swapaxes(a, 0, 1), jnp.swapaxes(b, 0, 1)
        if how == "moveaxis":
            rows = jnp.moveaxis(a, 1, 0), jnp.moveaxis(b, 1, 0)
        return lax.scan(lambda s, row: (row[0] * s + row[1], None), state, rows)[0]

    return run


GATES: dict[str, Callable[[Array, Array], Array]] = {
    "shares": lambda f, i: sigmoid(f) / (sigmoid(f) + sigmoid(i)),
    "products": lambda f, i: f * i,
}

LOG_SUM: dict[str, Callable[[Array], Array]] = {
    "logsumexp": lambda s: jax.nn.logsumexp(jnp.stack([s[..., :2], s[..., 2:]]), 0) - 1,
    "logaddexp": lambda s: jnp.logaddexp(s[..., :2], s[..., 2:]) - 1,
    "log of the sum": lambda s: jnp.log(jnp.exp(s[..., :2]) + jnp.exp(s[..., 2:])) - 1,
}

GROUPS = (
    Group("a function of a part", of_dense(SILU), WEIGHTS, None, EVERY),
    Group("a squared relu of a part", of_dense(RELU), WEIGHTS, None, EVERY),
    Group("a function of every second number", of_dense(TURNED), WEIGHTS, None, EVERY),
    Group("a silu gate, a part of whose sigmoid is taken", of_dense(GATED), {"w": (4, 8)}, None,
          SUMS),
    Group("some rows of a norm", ROWS, WEIGHTS, None, EXACT),
    Group("the first row of a norm", FIRST_ROW, WEIGHTS, None, EXACT),
    Group("halves after a bias", BIASED, NORMED, None, EVERY),
    *(
        Group(
            f"a recurrence whose gates are {name}",
            {how: recurrence(f, how) for how in ("loop", "scan", "moveaxis")},
            WEIGHTS | {"forget": (4, 4), "input": (4, 4)},
            None,
            EXACT,
        )
        for name, f in GATES.items()
    ),
    Group("a log-sum-exp less a number", of_dense(LOG_SUM), WEIGHTS, None, EXACT),
)  # fmt: skip
