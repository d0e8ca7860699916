"""Logarithms of sums that are undone: exp(logsumexp(u) + a) is exp(a) times a sum of exp(u)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

from .group import EXACT, Group, Params

lse = jax.nn.logsumexp


def apart(h: Array) -> Array:
    """Of one row, the largest number apart."""
    largest = lax.stop_gradient(h.max(1, keepdims=True))
    return largest + jnp.log(jnp.exp(h - largest).sum(1, keepdims=True))


def running(p: Params, h: Array) -> Array:
    rows = [jnp.exp(h[:, 0])]
    for i in range(1, h.shape[1]):
        rows.append(rows[-1] + jnp.exp(h[:, i]))
    return jnp.stack(rows, 1)


ONE = {
    "a sum": lambda p, h: jnp.exp(h).sum(1, keepdims=True),
    "logsumexp": lambda p, h: jnp.exp(lse(h, 1, keepdims=True)),
    "spread out afterwards": lambda p, h: jnp.exp(lse(h, 1))[:, None],
    "a logarithm": lambda p, h: jnp.exp(jnp.log(jnp.exp(h).sum(1, keepdims=True))),
    "the largest apart": lambda p, h: jnp.exp(apart(h)),
    "logsumexp of logsumexps": lambda p, h: jnp.exp(
        lse(jnp.stack([lse(h[:, :2], 1), lse(h[:, 2:], 1)]), 0)
    )[:, None],
}
TWO = {
    "a sum": lambda p, h: jnp.exp(h @ p["a"]) + jnp.exp(h @ p["b"]),
    "logaddexp": lambda p, h: jnp.exp(jnp.logaddexp(h @ p["a"], h @ p["b"])),
    "logsumexp": lambda p, h: jnp.exp(lse(jnp.stack([h @ p["a"], h @ p["b"]]), 0)),
}
WITH_A_FACTOR = {
    "a product": lambda p, h: jnp.exp(h @ p["a"]).sum(1, keepdims=True) * jnp.exp(h @ p["b"]),
    "a sum of logarithms": lambda p, h: jnp.exp(lse(h @ p["a"], 1, keepdims=True) + h @ p["b"]),
    "a difference": lambda p, h: jnp.exp(lse(h @ p["a"], 1, keepdims=True) - h @ -p["b"]),
    "two exponentials": lambda p, h: (
        jnp.exp(lse(h @ p["a"], 1, keepdims=True)) * jnp.exp(h @ p["b"])
    ),
}
OF_TWO_SUMS = {
    "a product": lambda p, h: jnp.exp(h @ p["a"]).sum(1) * jnp.exp(h @ p["b"]).sum(1),
    "a sum of logarithms": lambda p, h: jnp.exp(lse(h @ p["a"], 1) + lse(h @ p["b"], 1)),
    "two exponentials": lambda p, h: jnp.exp(lse(h @ p["a"], 1)) * jnp.exp(lse(h @ p["b"], 1)),
}
RUNNING = {
    "a loop": running,
    "cumsum": lambda p, h: jnp.cumsum(jnp.exp(h), 1),
    "cumlogsumexp": lambda p, h: jnp.exp(lax.cumlogsumexp(h, 1)),
}
GROUPS = tuple(
    Group(f"log-sum-exps undone, {name}", spelled, {"a": (4, 4), "b": (4, 4)}, composites=EXACT)
    for name, spelled in {
        "one": ONE, "two": TWO, "with a factor": WITH_A_FACTOR, "of two sums": OF_TWO_SUMS,
        "running": RUNNING,
    }.items()
)  # fmt: skip
