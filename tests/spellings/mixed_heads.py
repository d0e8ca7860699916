"""Softmaxes that parameters mix: talking heads, and weights chosen by a router."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from .group import EXACT, Group, Params, halves, hold

HEADS = dict.fromkeys(("query", "key", "value"), (4, 4)) | {"before": (2, 2), "after": (2, 2)}
EXPERTS = {"router": (4, 3), "experts": (3, 4, 4)}


def heads(p: Params, h: Array) -> tuple[Array, Array, Array]:
    q, k, v = (h @ p[name] for name in ("query", "key", "value"))
    return tuple(z.reshape(*z.shape[:2], 2, 2) for z in (q, k, v))  # type: ignore[return-value]


def by_einsum(p: Params, h: Array) -> Array:
    q, k, v = heads(p, h)
    s = jnp.einsum("bhqk,hg->bgqk", jnp.einsum("bqhd,bkhd->bhqk", q, k), p["before"])
    a = jnp.einsum("bgqk,gf->bfqk", jax.nn.softmax(s, -1), p["after"])
    return jnp.einsum("bfqk,bkfd->bqfd", a, v)


def by_matmul(p: Params, h: Array) -> Array:
    q, k, v = heads(p, h)
    s = jnp.einsum("bqhd,bkhd->bqkh", q, k) @ p["before"]
    return jnp.einsum("bqkf,bkfd->bqfd", jax.nn.softmax(s, 2) @ p["after"], v)


def head_by_head(p: Params, h: Array) -> Array:
    q, k, v = heads(p, h)
    s = [q[:, :, i] @ jnp.swapaxes(k[:, :, i], 1, 2) for i in range(2)]
    mixed = [s[0] * p["before"][0, g] + s[1] * p["before"][1, g] for g in range(2)]
    a = [jax.nn.softmax(one, -1) for one in mixed]
    mixed = [a[0] * p["after"][0, f] + a[1] * p["after"][1, f] for f in range(2)]
    return jnp.stack([one @ v[:, :, f] for f, one in enumerate(mixed)], 2)


def mixed_heads_by_hand(p: Params, h: Array, gates: bool) -> Array:
    q, k, v = heads(p, h)
    scores = halves(lambda q, k: jnp.einsum("bqhd,bkhd->bhqk", q, k), q, k)
    a = jax.nn.softmax(jnp.einsum("bhqk,hg->bgqk", scores, p["before"]), -1)
    a = jnp.einsum("bgqk,gf->bfqk", a, p["after"])
    mean = lambda a, v: jnp.einsum("bfqk,bkfd->bqfd", a, v)  # noqa: E731
    return mean(hold(a), v) if gates else halves(mean, a, v)


def routed(p: Params, h: Array) -> Array:
    return jax.nn.softmax(h.mean(1) @ p["router"], -1)


ROUTED: dict[str, Callable[[Params, Array], Array]] = {
    "weights first": lambda p, h: h @ jnp.einsum("be,efg->bfg", routed(p, h), p["experts"]),
    "one einsum": lambda p, h: jnp.einsum(
        "btf,bfg->btg", h, jnp.tensordot(routed(p, h), p["experts"], 1)
    ),
    "each expert": lambda p, h: (
        h @ sum(routed(p, h)[:, i, None, None] * p["experts"][i] for i in range(3))
    ),
    "vmap": lambda p, h: jax.vmap(lambda r, x: x @ jnp.tensordot(r, p["experts"], 1))(
        routed(p, h), h
    ),
}

GROUPS = (
    Group(
        "talking heads",
        {"einsum": by_einsum, "matmul": by_matmul, "head by head": head_by_head},
        HEADS,
        mixed_heads_by_hand,
        EXACT,
    ),
    Group("weights by a router", ROUTED, EXPERTS, None, EXACT),
)
