"""Norms by what came so far, and of values that are repeated on the way."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .group import EXACT, Group
from .norms import RMS, N, mean, over, without

COUNTS = (np.arange(3) + 1.0)[:, None] * N


def so_far_by_cumsum(x: Array) -> Array:
    m = jnp.cumsum(x.sum(-1, keepdims=True), 1) / COUNTS
    return (x - m) / jnp.sqrt(jnp.cumsum((x * x).sum(-1, keepdims=True), 1) / COUNTS - m * m + 1e-5)


def so_far_by_prefixes(x: Array) -> Array:
    """Each position among those before it."""
    rows = []
    for t in range(x.shape[1]):
        seen = x[:, : t + 1]
        m, v = seen.mean((1, 2)), seen.var((1, 2))
        rows.append((x[:, t] - m[:, None]) / jnp.sqrt(v[:, None] + 1e-5))
    return jnp.stack(rows, 1)


def so_far_by_matrix(x: Array) -> Array:
    means = np.tril(np.ones((3, 3))) / COUNTS
    m, s = (jnp.einsum("ts,bsf->bt", means, z)[..., None] for z in (x, x * x))
    return (x - m) * lax.rsqrt(s - m**2 + 1e-5)


SO_FAR = {
    "cumsum": so_far_by_cumsum,
    "prefixes": so_far_by_prefixes,
    "matrix": so_far_by_matrix,
    "vmap": lambda x: jax.vmap(lambda row: so_far_by_cumsum(row[None])[0])(x),
    "checkpoint": jax.checkpoint(so_far_by_cumsum),
}

REPEATED = {
    "once": lambda y: y,
    "stack": lambda y: jnp.stack([y, y, y]).mean(0),
    "repeat": lambda y: jnp.repeat(y, 2, -1).reshape(*y.shape, 2).mean(-1),
    "broadcast": lambda y: jnp.broadcast_to(y[..., None], (*y.shape, 4)).sum(-1) / 4,
    "concatenate": lambda y: jnp.concatenate([y[None], y[None]]).sum(0) * 0.5,
    "tile": lambda y: jnp.tile(y[None], (3, 1, 1, 1)).mean(0),
}

GROUPS = (
    Group("layer norm so far", without(SO_FAR), {}, None, EXACT),
    Group(
        "RMS norm of repeated values",
        {
            name: (lambda p, x, f=f: f(x) / jnp.sqrt(f(mean(f(x) ** 2)) + 1e-5))
            for name, f in REPEATED.items()
        },
        {},
        over(RMS["rsqrt"]),
        EXACT,
    ),
)
