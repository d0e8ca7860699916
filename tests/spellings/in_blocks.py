"""Attention put together from blocks that are normalised by themselves, and means step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .attention import (
    SEQUENCE,
    Attention,
    D,
    T,
    attention_group,
    plain,
    scores,
    sums_over_blocks,
)
from .group import EXACT, Group, Params, halves, hold

Blocks = list[tuple[Array, Array]]


def blocks(q: Array, k: Array, v: Array, sizes: tuple[int, ...] = (2, 2)) -> Blocks:
    """Attention to each block of keys, and the log-sum-exp of its logits."""
    found, end = [], 0
    for size in sizes:
        begin, end = end, end + size
        s = scores(q, k[:, begin:end])
        found.append((jax.nn.softmax(s, -1) @ v[:, begin:end], jax.nn.logsumexp(s, -1)))
    return found


def merged_in_python(q: Array, k: Array, v: Array) -> Array:
    """As what several devices have made is put together."""
    (first, total), *others = blocks(q, k, v)
    parts = [(first, total), *others]
    for _, own in others:
        total = jnp.logaddexp(total, own)
    return sum((z * jnp.exp(own - total)[..., None] for z, own in parts), jnp.zeros_like(v))


def merged_unnormalised(q: Array, k: Array, v: Array) -> Array:
    total, parts = None, []
    for i in range(0, T, 2):
        s = scores(q, k[:, i : i + 2])
        own = jax.nn.logsumexp(s, -1)
        parts.append((jnp.exp(s - own[..., None]) @ v[:, i : i + 2], own))
        total = own if total is None else jnp.logaddexp(total, own)
    return sum(z * jnp.exp(own - total)[..., None] for z, own in parts)


def merged_one_by_one(q: Array, k: Array, v: Array) -> Array:
    """Each block into what there is, which stays normalised."""
    z, total = jnp.zeros_like(v), jnp.full(q.shape[:2], -1e9)
    for block, own in blocks(q, k, v, (1,) * T):
        both = jnp.logaddexp(total, own)
        z = z * jnp.exp(total - both)[..., None] + block * jnp.exp(own - both)[..., None]
        total = both
    return z


def split(z: Array) -> Array:
    return jnp.swapaxes(z.reshape(z.shape[0], 2, -1, D), 0, 1)


def merged_in_a_scan(q: Array, k: Array, v: Array) -> Array:
    def turn(carry: tuple[Array, Array], block: tuple[Array, Array]) -> Any:
        z, total = carry
        s = scores(q, block[0])
        own = jax.nn.logsumexp(s, -1)
        both = jnp.logaddexp(total, own)
        new = jax.nn.softmax(s, -1) @ block[1]
        z = z * jnp.exp(total - both)[..., None] + new * jnp.exp(own - both)[..., None]
        return (z, both), None

    start = jnp.zeros_like(v), jnp.full(q.shape[:2], -1e9)
    return lax.scan(turn, start, (split(k), split(v)))[0][0]


def normalised_in_every_turn(q: Array, k: Array, v: Array) -> Array:
    """The first kernels of this kind carried a mean, not its numerator."""

    def turn(carry: tuple[Array, Array, Array], block: tuple[Array, Array]) -> Any:
        top, below, z = carry
        s = scores(q, block[0])
        higher = jnp.maximum(top, s.max(-1))
        old, e = jnp.exp(top - higher), jnp.exp(s - higher[..., None])
        new = below * old + e.sum(-1)
        z = (z * (below * old)[..., None] + e @ block[1]) / new[..., None]
        return (higher, new, z), None

    zeros = jnp.zeros(q.shape[:2])
    start = zeros - 1e9, zeros, jnp.zeros_like(v)
    return lax.scan(turn, start, (split(k), split(v)))[0][2]


def denominators_first(q: Array, k: Array, v: Array) -> Array:
    """Once through the keys for the denominator, once more for the mean."""

    def first(below: Array, block: Array) -> Any:
        return below + jnp.exp(scores(q, block)).sum(-1), None

    below, _ = lax.scan(first, jnp.zeros(q.shape[:2]), split(k))

    def turn(z: Array, block: tuple[Array, Array]) -> Any:
        weights = jnp.exp(scores(q, block[0])) / below[..., None]
        return z + weights @ block[1], None

    return lax.scan(turn, jnp.zeros_like(v), (split(k), split(v)))[0]


def merged_by_weights(q: Array, k: Array, v: Array) -> Array:
    """The shares of the blocks are a softmax of their log-sum-exps."""
    (one, first), (two, second) = blocks(q, k, v)
    share = jax.nn.softmax(jnp.stack([first, second]), 0)
    return share[0][..., None] * one + share[1][..., None] * two


def merged_by_stacks(q: Array, k: Array, v: Array) -> Array:
    means, totals = (jnp.stack(z) for z in zip(*blocks(q, k, v), strict=True))
    return (jax.nn.softmax(totals, 0)[..., None] * means).sum(0)


def merged_by_log_sums(q: Array, k: Array, v: Array) -> Array:
    found = blocks(q, k, v)
    total = jax.nn.logsumexp(jnp.stack([own for _, own in found]), 0)
    return sum((z * jnp.exp(own - total)[..., None] for z, own in found), jnp.zeros_like(v))


def merged_by_sigmoids(q: Array, k: Array, v: Array) -> Array:
    (one, first), (two, second) = blocks(q, k, v)
    share = jax.nn.sigmoid(first - second)[..., None]
    return one * share + two * jax.nn.sigmoid(second - first)[..., None]


Total = Callable[[Array, Array], Array]
LOG_SUMS: dict[str, Total] = {
    "softplus": lambda a, b: a + jax.nn.softplus(b - a),
    "log_sigmoid": lambda a, b: a - jax.nn.log_sigmoid(a - b),
    "log1p": lambda a, b: a + jnp.log1p(jnp.exp(b - a)),
    "log of one more": lambda a, b: jnp.log(1 + jnp.exp(-(a - b))) + a,
    "the larger one": lambda a, b: jnp.maximum(a, b) + jnp.log1p(jnp.exp(-jnp.abs(a - b))),
}


def towards_each(total_of: Total) -> Attention:
    """What there is moves towards each block, as on a ring of devices."""

    def f(q: Array, k: Array, v: Array) -> Array:
        (z, total), *others = blocks(q, k, v, (2, 1, 1))
        for block, own in others:
            z = z - jax.nn.sigmoid(own - total)[..., None] * (z - block)
            total = total_of(total, own)
        return z

    return f


def towards_each_in_a_scan(q: Array, k: Array, v: Array) -> Array:
    def turn(carry: tuple[Array, Array], block: tuple[Array, Array]) -> Any:
        z, total = carry
        s = scores(q, block[0])
        own, new = jax.nn.logsumexp(s, -1), jax.nn.softmax(s, -1) @ block[1]
        z = z - jax.nn.sigmoid(own - total)[..., None] * (z - new)
        return (z, total - jax.nn.log_sigmoid(total - own)), None

    start = jnp.zeros_like(v), jnp.full(q.shape[:2], -1e5)
    return lax.scan(turn, start, (split(k), split(v)))[0][0]


def split_keys(q: Array, k: Array, v: Array) -> Array:
    """All blocks at the same time, as short queries to long caches are answered."""

    def block(k: Array, v: Array) -> tuple[Array, Array]:
        s = scores(q, k)
        return jax.nn.softmax(s, -1) @ v, jax.nn.logsumexp(s, -1)

    means, totals = jax.vmap(block)(split(k), split(v))
    return (means * jnp.exp(totals - jax.nn.logsumexp(totals, 0))[..., None]).sum(0)


def log_sum_in_a_scan(q: Array, k: Array, v: Array) -> Array:
    """The log-sum-exp key by key, then all weights at once."""
    s = scores(q, k)
    start = jnp.full(q.shape[:2], -jnp.inf)
    total, _ = lax.scan(lambda t, row: (jnp.logaddexp(t, row), None), start, jnp.moveaxis(s, -1, 0))
    return jnp.exp(s - total[..., None]) @ v


def blocks_against_zero(q: Array, k: Array, v: Array) -> Array:
    """Divided by no less than next to nothing, as where whole rows may be masked."""
    above, below = sums_over_blocks(q, k, v, -1e30)
    return above / jnp.maximum(below, 1e-30)


IN_BLOCKS: dict[str, Attention] = {
    "at once": plain,
    "merged": merged_in_python,
    "merged, unnormalised": merged_unnormalised,
    "merged one by one": merged_one_by_one,
    "merged in a scan": merged_in_a_scan,
    "merged by weights": merged_by_weights,
    "merged by stacks": merged_by_stacks,
    "merged by log-sum-exps": merged_by_log_sums,
    "merged by sigmoids": merged_by_sigmoids,
    **{f"towards each block, {name}": towards_each(f) for name, f in LOG_SUMS.items()},
    "towards each block in a scan": towards_each_in_a_scan,
    "split keys": split_keys,
    "normalised in every turn": normalised_in_every_turn,
    "denominators first": denominators_first,
    "a log-sum-exp first": log_sum_in_a_scan,
    "divided by no zero": blocks_against_zero,
}


# -- means of all that came before, as in RWKV ----------------------------------------------------


def keys(p: Params, h: Array) -> tuple[Array, Array]:
    return h @ p["key"], h @ p["value"]


def ages() -> np.ndarray:
    """How many steps ago, and 0 for now; below 0 for what is to come."""
    return (np.arange(T)[:, None] - np.arange(T))[..., None]


def at_once(p: Params, h: Array) -> Array:
    k, v = keys(p, h)
    bias = jnp.where(ages() > 0, (1 - ages()) * p["decay"] ** 2, p["bonus"])
    s = jnp.where(ages() < 0, -jnp.inf, k[:, None] + bias)
    return jnp.einsum("btsd,bsd->btd", jax.nn.softmax(s, 2), v)[:, 1:]


def one_step(p: Params, state: tuple[Array, Array], given: tuple[Array, Array]) -> Any:
    above, below = state
    k, v = given
    now, fade = jnp.exp(k + p["bonus"]), jnp.exp(-(p["decay"] ** 2))
    y = (above + now * v) / (below + now)
    return (above * fade + jnp.exp(k) * v, below * fade + jnp.exp(k)), y


def one_safe_step(p: Params, state: tuple[Array, Array, Array], given: tuple[Array, Array]) -> Any:
    above, below, top = state
    k, v = given
    higher = jnp.maximum(top, k + p["bonus"])
    old, now = jnp.exp(top - higher), jnp.exp(k + p["bonus"] - higher)
    y = (old * above + now * v) / (old * below + now)
    faded = top - p["decay"] ** 2
    higher = jnp.maximum(faded, k)
    old, now = jnp.exp(faded - higher), jnp.exp(k - higher)
    return (old * above + now * v, old * below + now, higher), y


def stepped(step: Any, loop: bool, start: float | None = None) -> Callable[[Params, Array], Array]:
    def f(p: Params, h: Array) -> Array:
        k, v = (jnp.swapaxes(z, 0, 1) for z in keys(p, h))
        state: Any = (jnp.zeros_like(k[0]), jnp.zeros_like(k[0]))
        state = state if start is None else (*state, jnp.full_like(k[0], start))
        if loop:
            ys = lax.scan(lambda s, given: step(p, s, given), state, (k, v))[1]
        else:
            rows = []
            for t in range(T):
                state, y = step(p, state, (k[t], v[t]))
                rows.append(y)
            ys = jnp.stack(rows)
        return jnp.swapaxes(ys, 0, 1)[:, 1:]  # a mean of one is that one

    return f


def received(means: Callable[[Params, Array], Array]) -> Callable[[Params, Array], Array]:
    return lambda p, h: jax.nn.sigmoid(h @ p["gate"])[:, 1:] * means(p, h)


def means_by_hand(p: Params, h: Array, gates: bool) -> Array:
    k, v = keys(p, h)
    bias = jnp.where(ages() > 0, (1 - ages()) * p["decay"] ** 2, p["bonus"])
    a = jax.nn.softmax(jnp.where(ages() < 0, -1e30, k[:, None] + bias), 2)
    mean = lambda a, v: jnp.einsum("btsd,bsd->btd", a, v)  # noqa: E731
    return (mean(hold(a), v) if gates else halves(mean, a, v))[:, 1:]


STEP_BY_STEP = {
    "at once": at_once,
    "in Python": stepped(one_step, loop=False),
    "scan": stepped(one_step, loop=True),
    "with a maximum, in Python": stepped(one_safe_step, loop=False, start=-1e38),
    "with a maximum, scan": stepped(one_safe_step, loop=True, start=-1e38),
}

# -- the same without decay, which a running sum computes -----------------------------------------

Mean = Callable[[Array, Array], Array]
TRIANGLE = np.tril(np.ones((T, T)))


def so_far(k: Array, v: Array) -> Array:
    s = jnp.where(TRIANGLE[..., None] > 0, k[:, None], -jnp.inf)
    return jnp.einsum("btsd,bsd->btd", jax.nn.softmax(s, 2), v)


def by_cumsum(k: Array, v: Array) -> Array:
    return jnp.cumsum(jnp.exp(k) * v, 1) / jnp.cumsum(jnp.exp(k), 1)


def by_triangle(k: Array, v: Array) -> Array:
    above, below = (
        jnp.einsum("ts,bsd->btd", jnp.asarray(TRIANGLE), z) for z in (jnp.exp(k) * v, jnp.exp(k))
    )
    return above / below


def by_prefixes(k: Array, v: Array) -> Array:
    rows = range(1, T + 1)
    return jnp.stack([(jax.nn.softmax(k[:, :t], 1) * v[:, :t]).sum(1) for t in rows], 1)


def from_here(k: Array, v: Array) -> Array:
    s = jnp.where(TRIANGLE.T[..., None] > 0, k[:, None], -jnp.inf)
    return jnp.einsum("btsd,bsd->btd", jax.nn.softmax(s, 2), v)


def from_here_by_cumsum(k: Array, v: Array) -> Array:
    e = jnp.exp(k - k.max(1, keepdims=True))
    above, below = (lax.cumsum(z, 1, reverse=True) for z in (v * e, e))
    return above * (1 / below)


SO_FAR: dict[str, Mean] = {
    "softmax": so_far,
    "cumsum": by_cumsum,
    "against zero": lambda k, v: (
        jnp.cumsum(jnp.exp(k) * v, 1) / (jnp.cumsum(jnp.exp(k), 1) + 1e-20)
    ),
    "triangle": by_triangle,
    "prefixes": by_prefixes,
    "vmap": jax.vmap(jax.vmap(lambda k, v: by_cumsum(k[None], v[None])[0], -1, -1)),
    "heads": lambda k, v: (
        jnp.cumsum((jnp.exp(k) * v)[..., None], 1) / jnp.cumsum(jnp.exp(k), 1)[..., None]
    )[..., 0],
}

GROUPS = (
    attention_group("attention in blocks", IN_BLOCKS),
    Group(
        "means so far",
        {name: (lambda p, h, f=f: f(*keys(p, h))) for name, f in SO_FAR.items()},
        {"key": (4, 4), "value": (4, 4)},
        None,
        EXACT,
        SEQUENCE,
    ),
    Group(
        "means from here on",
        {
            "softmax": lambda p, h: from_here(*keys(p, h)),
            "cumsum": lambda p, h: from_here_by_cumsum(*keys(p, h)),
        },
        {"key": (4, 4), "value": (4, 4)},
        None,
        EXACT,
        SEQUENCE,
    ),
    Group(
        "gated means step by step",
        {name: received(f) for name, f in STEP_BY_STEP.items()},
        {"key": (4, 4), "value": (4, 4), "decay": (4,), "bonus": (4,), "gate": (4, 4)},
        None,
        EXACT,
        SEQUENCE,
    ),
    Group(
        "means step by step",
        STEP_BY_STEP,
        {"key": (4, 4), "value": (4, 4), "decay": (4,), "bonus": (4,)},
        means_by_hand,
        EXACT,
        SEQUENCE,
    ),
)
