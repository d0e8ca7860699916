"""Mixtures of the best experts: their weights are normalised again, and read in many ways."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

from .group import EXACT, Group, Params
from .renormalised import again, softmax

EXPERTS, BEST = 4, 2


def routed(p: Params, h: Array) -> tuple[Array, Array]:
    """The weights of the best experts, and which they are."""
    weights, which = lax.top_k(softmax(h @ p["router"]), BEST)
    return again(weights), which


def routed_by_logits(p: Params, h: Array) -> tuple[Array, Array]:
    logits, which = lax.top_k(h @ p["router"], BEST)
    return softmax(logits), which


def routed_in_rows(p: Params, h: Array) -> tuple[Array, Array]:
    """Of all tokens in one array, as published code has it."""
    shares = softmax(h.reshape(-1, h.shape[-1]) @ p["router"])
    weights, which = lax.top_k(shares, BEST)
    return again(weights).reshape(*h.shape[:-1], BEST), which.reshape(*h.shape[:-1], BEST)


def each(p: Params, h: Array) -> Array:
    """What every expert makes."""
    return jnp.einsum("btd,edo->bteo", h, p["experts"])


def chosen(y: Array, which: Array) -> Array:
    return jnp.take_along_axis(y, which[..., None], -2)


def by_one_hot(p: Params, h: Array, route=routed) -> Array:  # type: ignore[no-untyped-def]
    weights, which = route(p, h)
    mask = (jax.nn.one_hot(which, EXPERTS) * weights[..., None]).sum(-2)
    return jnp.einsum("bteo,bte->bto", each(p, h), mask)


def together(p: Params, h: Array, route=routed) -> Array:  # type: ignore[no-untyped-def]
    weights, which = route(p, h)
    return jnp.einsum("btk,btko->bto", weights, chosen(each(p, h), which))


def one_by_one(p: Params, h: Array, route=routed) -> Array:  # type: ignore[no-untyped-def]
    weights, which = route(p, h)
    y = chosen(each(p, h), which)
    return sum((weights[..., k : k + 1] * y[..., k, :] for k in range(BEST)), jnp.zeros_like(h))


def each_token(p: Params, h: Array, route=routed) -> Array:  # type: ignore[no-untyped-def]
    def token(x: Array, weights: Array, which: Array) -> Array:
        return sum(weights[k] * (x @ p["experts"][which[k]]) for k in range(BEST))  # type: ignore[return-value]

    return jax.vmap(jax.vmap(token))(h, *route(p, h))


def expert_by_expert(p: Params, h: Array, route=routed) -> Array:  # type: ignore[no-untyped-def]
    weights, which = route(p, h)
    y = jnp.zeros_like(h)
    for e in range(EXPERTS):
        weight = jnp.where(which == e, weights, 0).sum(-1, keepdims=True)
        y = y + weight * (h @ p["experts"][e])
    return y


def dispatched(p: Params, h: Array, route=routed) -> Array:  # type: ignore[no-untyped-def]
    """Tokens sorted by their experts, as for grouped matrix products."""
    weights, which = (a.reshape(-1) for a in route(p, h))
    rows = h.reshape(-1, h.shape[-1])
    order = jnp.argsort(which)
    tokens = order // BEST
    y = jnp.einsum("rd,rdo->ro", rows[tokens], p["experts"][which[order]])
    y = jnp.zeros_like(rows).at[tokens].add(y * weights[order][:, None])
    return y.reshape(h.shape)


WAYS = {
    "one-hot": by_one_hot,
    "together": together,
    "one by one": one_by_one,
    "each token": each_token,
    "expert by expert": expert_by_expert,
    "sorted": dispatched,
}
SPELLED = {
    **WAYS,
    "of logits": lambda p, h: together(p, h, routed_by_logits),
    "of logits, one by one": lambda p, h: one_by_one(p, h, routed_by_logits),
    "of logits, sorted": lambda p, h: dispatched(p, h, routed_by_logits),
    "in rows": lambda p, h: together(p, h, routed_in_rows),
    "in rows, one by one": lambda p, h: one_by_one(p, h, routed_in_rows),
    "in rows, sorted": lambda p, h: dispatched(p, h, routed_in_rows),
}

GROUPS = (
    Group(
        "the best experts", SPELLED, {"router": (4, EXPERTS), "experts": (EXPERTS, 4, 4)},
        None, EXACT,
    ),
)  # fmt: skip
