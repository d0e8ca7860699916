"""Means of values that are weighted by a softmax or by gates, normalised before or after."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

from .group import EXACT, Group, Params, hold, shares, signal

# -- pooling by attention -------------------------------------------------------------------------


def pool_by_hand(p: Params, h: Array, gates: bool) -> Array:
    a = jax.nn.softmax(h @ p["query"], 1)
    return signal(a[..., None], h, gates).sum(1)


def pooled_after(p: Params, h: Array) -> Array:
    e = jnp.exp(h @ p["query"])
    return jnp.einsum("bt,btf->bf", e, h) / e.sum(1, keepdims=True)


def pooled_sum_after(p: Params, h: Array) -> Array:
    e = jnp.exp(h @ p["query"])[..., None]
    return (e * h).sum(1) / e.sum(1)


def pooled_scan(p: Params, h: Array) -> Array:
    def turn(carry: tuple[Array, Array], row: Array):  # type: ignore[no-untyped-def]
        e = jnp.exp(row @ p["query"])[:, None]
        return (carry[0] + e * row, carry[1] + e), None

    start = (jnp.zeros((h.shape[0], h.shape[2])), jnp.zeros((h.shape[0], 1)))
    (above, below), _ = lax.scan(turn, start, jnp.swapaxes(h, 0, 1))
    return above / below


POOL = {
    "einsum": lambda p, h: jnp.einsum("bt,btf->bf", jax.nn.softmax(h @ p["query"], 1), h),
    "multiplied and summed": lambda p, h: (jax.nn.softmax(h @ p["query"], 1)[..., None] * h).sum(1),
    "matmul": lambda p, h: (jax.nn.softmax(h @ p["query"], 1)[:, None] @ h)[:, 0],
    "vmap": lambda p, h: jax.vmap(lambda z: jax.nn.softmax(z @ p["query"]) @ z)(h),
    "np.average": lambda p, h: jax.vmap(
        lambda z: jnp.average(z, axis=0, weights=jnp.exp(z @ p["query"]))
    )(h),
    "normalised after": pooled_after,
    "summed, normalised after": pooled_sum_after,
    "scan": pooled_scan,
    "logsumexp": lambda p, h: jnp.einsum(
        "bt,btf->bf",
        jnp.exp(h @ p["query"] - jax.nn.logsumexp(h @ p["query"], 1, keepdims=True)),
        h,
    ),
}


# -- weights that are no softmax ------------------------------------------------------------------


def gated_mean_by_hand(p: Params, h: Array, gates: bool) -> Array:
    g = jax.nn.sigmoid(h @ p["gate"])
    scale = hold(1 / g.sum(1, keepdims=True))
    live = (h @ p["gate"]) * hold(g / (h @ p["gate"]))
    return signal(live, h @ p["value"], gates).sum(1) * scale[:, 0]


def gated(p: Params, h: Array) -> tuple[Array, Array]:
    return jax.nn.sigmoid(h @ p["gate"]), h @ p["value"]


GATED_MEAN = {
    "normalised before": lambda p, h: (
        (gated(p, h)[0] / gated(p, h)[0].sum(1, keepdims=True)) * gated(p, h)[1]
    ).sum(1),
    "normalised after": lambda p, h: (
        (gated(p, h)[0] * gated(p, h)[1]).sum(1) / gated(p, h)[0].sum(1)
    ),
    "mean over mean": lambda p, h: (
        (gated(p, h)[0] * gated(p, h)[1]).mean(1) / gated(p, h)[0].mean(1)
    ),
    "times the reciprocal": lambda p, h: (
        jnp.einsum("btf,btf->bf", *gated(p, h)) * (1 / gated(p, h)[0].sum(1))
    ),
    "values scaled": lambda p, h: (
        gated(p, h)[0] * (gated(p, h)[1] / gated(p, h)[0].sum(1, keepdims=True))
    ).sum(1),
}


def gated_weights(p: Params, h: Array) -> tuple[Array, Array, Array]:
    return jax.nn.softmax(h @ p["query"], 1), jax.nn.sigmoid(h @ p["gate"]), h @ p["value"]


def gated_weights_by_hand(p: Params, h: Array, gates: bool) -> Array:
    a, g, v = gated_weights(p, h)
    u = h @ p["gate"]
    if gates:
        return (hold(a * g) * v).sum(1)
    return shares(jnp.broadcast_to(a, v.shape), u * hold(g / u), v).sum(1)


GATED_ATTENTION = {
    "weights gated": lambda p, h: (
        gated_weights(p, h)[0] * gated_weights(p, h)[1] * gated_weights(p, h)[2]
    ).sum(1),
    "values gated": lambda p, h: (
        gated_weights(p, h)[0] * (gated_weights(p, h)[1] * gated_weights(p, h)[2])
    ).sum(1),
    "gated last": lambda p, h: (
        gated_weights(p, h)[0] * gated_weights(p, h)[2] * gated_weights(p, h)[1]
    ).sum(1),
    "einsum": lambda p, h: jnp.einsum(
        "btf,btf,btf->bf",
        *(jnp.broadcast_to(z, (*h.shape[:2], 4)) for z in gated_weights(p, h)),
    ),
    "divided": lambda p, h: (
        gated_weights(p, h)[0] * gated_weights(p, h)[2] / (1 + jnp.exp(-(h @ p["gate"])))
    ).sum(1),
}

# -- linear attention ------------------------------------------------------------------------------


def linear(p: Params, h: Array) -> tuple[Array, Array, Array]:
    return jax.nn.elu(h @ p["query"]) + 1, jax.nn.elu(h @ p["key"]) + 1, h @ p["value"]


def scores(p: Params, h: Array) -> Array:
    q, k, _ = linear(p, h)
    return jnp.einsum("btf,bsf->bts", q, k)


def sums(p: Params, h: Array) -> Array:
    q, k, _ = linear(p, h)
    return jnp.einsum("btf,bf->bt", q, k.sum(1))[..., None]


LINEAR = {
    "normalised before": lambda p, h: (
        (scores(p, h) / scores(p, h).sum(-1, keepdims=True)) @ linear(p, h)[2]
    ),
    "normalised after": lambda p, h: (
        (scores(p, h) @ linear(p, h)[2]) / scores(p, h).sum(-1, keepdims=True)
    ),
    "before, by the sum of keys": lambda p, h: (scores(p, h) * (1 / sums(p, h))) @ linear(p, h)[2],
    "after, by the sum of keys": lambda p, h: (scores(p, h) @ linear(p, h)[2]) * (1 / sums(p, h)),
    "divided by the sum of keys": lambda p, h: (scores(p, h) @ linear(p, h)[2]) / sums(p, h),
}


def with_ones(p: Params, h: Array) -> Array:
    v = linear(p, h)[2]
    both = scores(p, h) @ jnp.concatenate([v, jnp.ones_like(v[..., :1])], -1)
    return both[..., :-1] / both[..., -1:]


LINEAR["a column of ones"] = with_ones


def features(p: Params, h: Array) -> tuple[Array, Array]:
    """Scores that are sums over positive features, and values."""
    q, k = jnp.exp(h @ p["query"]), jnp.exp(h @ p["key"])
    return jnp.einsum("btf,bsf->bts", q, k), h @ p["value"]


def normalised_first(p: Params, h: Array) -> Array:
    a, v = features(p, h)
    return (a / a.sum(-1, keepdims=True)) @ v


def normalised_last(p: Params, h: Array) -> Array:
    a, v = features(p, h)
    return (a @ v) / a.sum(-1, keepdims=True)


FEATURES = {
    "normalised before": normalised_first,
    "normalised after": normalised_last,
    "vmap": lambda p, h: jax.vmap(lambda x: normalised_last(p, x[None])[0])(h),
}

GROUPS = (
    Group(
        "attention by exponential features",
        FEATURES,
        {"query": (4, 4), "key": (4, 4), "value": (4, 4)},
        None,
        EXACT,
    ),
    Group(
        "linear attention", LINEAR, {"query": (4, 4), "key": (4, 4), "value": (4, 4)}, None, EXACT
    ),
    Group("pooling by attention", POOL, {"query": (4,)}, pool_by_hand, EXACT),
    Group("a gated mean", GATED_MEAN, {"gate": (4, 4), "value": (4, 4)}, gated_mean_by_hand, EXACT),
    Group(
        "gated attention",
        GATED_ATTENTION,
        {"query": (4, 1), "gate": (4, 4), "value": (4, 4)},
        gated_weights_by_hand,
        EXACT,
    ),
)
