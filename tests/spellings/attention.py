"""Attention, normalised before or after the product with the values, whole or in blocks."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .group import EXACT, Group, Params, halves, hold

T, D = 4, 4
CAUSAL = np.tril(np.ones((T, T), bool))


def qkv(p: Params, h: Array) -> tuple[Array, Array, Array]:
    return h @ p["query"], h @ p["key"], h @ p["value"]


Attention = Callable[[Array, Array, Array], Array]


def scores(q: Array, k: Array) -> Array:
    return jnp.einsum("bqd,bkd->bqk", q, k) / 2


def plain(q: Array, k: Array, v: Array) -> Array:
    return jax.nn.softmax(scores(q, k), -1) @ v


def by_einsum(q: Array, k: Array, v: Array) -> Array:
    return jnp.einsum("bqk,bkd->bqd", jax.nn.softmax(scores(q, k), -1), v)


def fused(q: Array, k: Array, v: Array) -> Array:
    one = lambda z: z[:, :, None]  # noqa: E731
    return jax.nn.dot_product_attention(one(q), one(k), one(v), scale=0.5)[:, :, 0]


def scaled_queries(q: Array, k: Array, v: Array) -> Array:
    return jax.nn.softmax((q * 0.5) @ jnp.swapaxes(k, 1, 2), -1) @ v


def normalised_after(q: Array, k: Array, v: Array) -> Array:
    e = jnp.exp(scores(q, k))
    return (e @ v) / e.sum(-1, keepdims=True)


def times_reciprocal_after(q: Array, k: Array, v: Array) -> Array:
    s = scores(q, k)
    e = jnp.exp(s - s.max(-1, keepdims=True))
    return (e @ v) * (1 / e.sum(-1, keepdims=True))


def with_ones(q: Array, k: Array, v: Array) -> Array:
    """The denominator is one more column of values."""
    s = scores(q, k)
    e = jnp.exp(s - lax.stop_gradient(s.max(-1, keepdims=True)))
    both = e @ jnp.concatenate([v, jnp.ones((*v.shape[:-1], 1))], -1)
    return both[..., :-1] / both[..., -1:]


def by_logsumexp(q: Array, k: Array, v: Array) -> Array:
    s = scores(q, k)
    return jnp.exp(s - jax.nn.logsumexp(s, -1, keepdims=True)) @ v


def multiplied_and_summed(q: Array, k: Array, v: Array) -> Array:
    a = jax.nn.softmax((q[:, :, None] * k[:, None]).sum(-1) / 2, -1)
    return (a[..., None] * v[:, None]).sum(2)


def transposed(q: Array, k: Array, v: Array) -> Array:
    a = jax.nn.softmax(jnp.einsum("bkd,bqd->bkq", k, q) / 2, 1)
    return jnp.einsum("bkq,bkd->bqd", a, v)


def each_example(q: Array, k: Array, v: Array) -> Array:
    return jax.vmap(lambda q, k, v: jax.nn.softmax(q @ k.T / 2, -1) @ v)(q, k, v)


def each_query(q: Array, k: Array, v: Array) -> Array:
    def one(row: Array) -> Array:
        return jnp.einsum("bk,bkd->bd", jax.nn.softmax(jnp.einsum("bd,bkd->bk", row, k) / 2), v)

    return jnp.swapaxes(lax.map(one, jnp.swapaxes(q, 0, 1)), 0, 1)


def chunked_queries(q: Array, k: Array, v: Array) -> Array:
    chunks = jnp.swapaxes(q.reshape(q.shape[0], 2, -1, D), 0, 1)
    done = lax.map(jax.checkpoint(lambda chunk: plain(chunk, k, v)), chunks)
    return jnp.swapaxes(done, 0, 1).reshape(v.shape)


def sums_over_blocks(q: Array, k: Array, v: Array, least: float) -> tuple[Array, Array]:
    """Numerator and denominator, by a loop in Python over blocks of keys with a running maximum."""
    top = jnp.full((*q.shape[:2], 1), least)
    below, above = jnp.zeros_like(top), jnp.zeros_like(v)
    for i in range(0, T, 2):
        s = scores(q, k[:, i : i + 2])
        higher = jnp.maximum(top, s.max(-1, keepdims=True))
        old, e = jnp.exp(top - higher), jnp.exp(s - higher)
        below = below * old + e.sum(-1, keepdims=True)
        above = above * old + e @ v[:, i : i + 2]
        top = higher
    return above, below


def blocks_of_keys(q: Array, k: Array, v: Array) -> Array:
    above, below = sums_over_blocks(q, k, v, -jnp.inf)
    return above / below


def scanned_blocks(q: Array, k: Array, v: Array) -> Array:
    """The same as a scan, as code for long contexts has it."""

    def turn(carry: tuple[Array, Array, Array], block: tuple[Array, Array]):  # type: ignore[no-untyped-def]
        top, below, above = carry
        s = scores(q, block[0])
        higher = jnp.maximum(top, s.max(-1))
        old, e = jnp.exp(top - higher), jnp.exp(s - higher[..., None])
        below = below * old + e.sum(-1)
        above = above * old[..., None] + jnp.einsum("bqk,bkd->bqd", e, block[1])
        return (higher, below, above), None

    split = lambda z: jnp.swapaxes(z.reshape(z.shape[0], 2, -1, D), 0, 1)  # noqa: E731
    start = (jnp.full(q.shape[:2], -1e30), jnp.zeros(q.shape[:2]), jnp.zeros_like(v))
    (_, below, above), _ = lax.scan(turn, start, (split(k), split(v)))
    return above / below[..., None]


def blocks_without_maximum(q: Array, k: Array, v: Array) -> Array:
    below, above = 0.0, 0.0
    for i in range(0, T, 2):
        e = jnp.exp(scores(q, k[:, i : i + 2]))
        below = below + e.sum(-1, keepdims=True)
        above = above + e @ v[:, i : i + 2]
    return above / below


ATTENTION: dict[str, Attention] = {
    "softmax": plain,
    "einsum": by_einsum,
    "dot_product_attention": fused,
    "scaled queries": scaled_queries,
    "normalised after": normalised_after,
    "times the reciprocal after": times_reciprocal_after,
    "a column of ones": with_ones,
    "logsumexp": by_logsumexp,
    "multiplied and summed": multiplied_and_summed,
    "transposed": transposed,
    "vmap": each_example,
    "each query": each_query,
    "chunked queries": chunked_queries,
    "blocks of keys": blocks_of_keys,
    "blocks of keys, scan": scanned_blocks,
    "blocks without a maximum": blocks_without_maximum,
}


def causal_before(q: Array, k: Array, v: Array) -> Array:
    return jax.nn.softmax(jnp.where(CAUSAL, scores(q, k), -jnp.inf), -1) @ v


def causal_kernel(q: Array, k: Array, v: Array) -> Array:
    one = lambda z: z[:, :, None]  # noqa: E731
    return jax.nn.dot_product_attention(one(q), one(k), one(v), scale=0.5, is_causal=True)[:, :, 0]


def causal_after(q: Array, k: Array, v: Array) -> Array:
    e = jnp.where(CAUSAL, jnp.exp(scores(q, k)), 0)
    return (e @ v) / e.sum(-1, keepdims=True)


def causal_prefixes(q: Array, k: Array, v: Array) -> Array:
    rows = [plain(q[:, i : i + 1], k[:, : i + 1], v[:, : i + 1]) for i in range(T)]
    return jnp.concatenate(rows, 1)


def causal_where(q: Array, k: Array, v: Array) -> Array:
    return jax.nn.softmax(scores(q, k), -1, where=CAUSAL) @ v


def causal_step_by_step(q: Array, k: Array, v: Array) -> Array:
    """A cache of keys and values, filled one position at a time."""
    keys, values, rows = jnp.zeros_like(k), jnp.zeros_like(v), []
    for i in range(T):
        keys = lax.dynamic_update_slice_in_dim(keys, k[:, i : i + 1], i, 1)
        values = lax.dynamic_update_slice_in_dim(values, v[:, i : i + 1], i, 1)
        s = jnp.where(np.arange(T) <= i, scores(q[:, i : i + 1], keys), -1e30)
        rows.append(jax.nn.softmax(s, -1) @ values)
    return jnp.concatenate(rows, 1)


CAUSALLY: dict[str, Attention] = {
    "masked logits": causal_before,
    "dot_product_attention": causal_kernel,
    "normalised after": causal_after,
    "prefixes": causal_prefixes,
    "where=": causal_where,
    "a cache": causal_step_by_step,
    "added": lambda q, k, v: jax.nn.softmax(scores(q, k) + jnp.where(CAUSAL, 0, -1e9), -1) @ v,
}


def on_qkv(spelled: dict[str, Attention]):  # type: ignore[no-untyped-def]
    return {name: (lambda p, h, f=f: f(*qkv(p, h))) for name, f in spelled.items()}


def attention_by_hand(mask: np.ndarray | None):  # type: ignore[no-untyped-def]
    def reference(p: Params, h: Array, gates: bool) -> Array:
        q, k, v = qkv(p, h)
        s = halves(scores, q, k)
        a = jax.nn.softmax(s if mask is None else jnp.where(mask, s, -1e30), -1)
        return hold(a) @ v if gates else halves(jnp.matmul, a, v)

    return reference


# -- heads ----------------------------------------------------------------------------------------


def heads(z: Array) -> Array:
    return z.reshape(*z.shape[:2], 2, -1)


def weights_of_heads(p: Params, h: Array) -> tuple[Array, Array]:
    q, k, v = (heads(z) for z in qkv(p, h))
    return jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k), -1), v


def mixed(a: Array, v: Array) -> Array:
    return jnp.einsum("bhqk,bkhd->bqhd", a, v)


def one_by_one(p: Params, h: Array) -> Array:
    done = []
    for i in range(2):
        s = slice(2 * i, 2 * i + 2)
        q, k, v = (z[..., s] for z in qkv(p, h))
        done.append((p["heads"][i] * jax.nn.softmax(q @ jnp.swapaxes(k, 1, 2), -1) @ v)[:, :, None])
    return jnp.concatenate(done, 2)


def vmapped_heads(p: Params, h: Array) -> Array:
    q, k, v = (heads(z) for z in qkv(p, h))
    one = lambda q, k, v, m: m * jax.nn.softmax(q @ jnp.swapaxes(k, 1, 2), -1) @ v  # noqa: E731
    return jax.vmap(one, (2, 2, 2, 0), 2)(q, k, v, p["heads"])


def heads_by_hand(p: Params, h: Array, gates: bool) -> Array:
    q, k, v = (heads(z) for z in qkv(p, h))
    a = jax.nn.softmax(halves(lambda q, k: jnp.einsum("bqhd,bkhd->bhqk", q, k), q, k), -1)
    a = a * p["heads"][:, None, None]
    return mixed(hold(a), v) if gates else halves(mixed, a, v)


HEADS = {
    "einsum": lambda p, h: mixed(
        jnp.einsum("...hqk,h->...hqk", weights_of_heads(p, h)[0], p["heads"]),
        weights_of_heads(p, h)[1],
    ),
    "multiplied": lambda p, h: mixed(
        weights_of_heads(p, h)[0] * p["heads"][:, None, None], weights_of_heads(p, h)[1]
    ),
    "one einsum": lambda p, h: jnp.einsum(
        "bhqk,h,bkhd->bqhd", weights_of_heads(p, h)[0], p["heads"], weights_of_heads(p, h)[1]
    ),
    "values masked": lambda p, h: mixed(
        weights_of_heads(p, h)[0], weights_of_heads(p, h)[1] * p["heads"][:, None]
    ),
    "result masked": lambda p, h: mixed(*weights_of_heads(p, h)) * p["heads"][:, None],
    "one by one": one_by_one,
    "vmap": vmapped_heads,
}


# -- learned queries, positions -----------------------------------------------------------------


def fixed_queries_by_hand(p: Params, h: Array, gates: bool) -> Array:
    a = jax.nn.softmax(jnp.einsum("qd,bkd->bqk", p["queries"], h @ p["key"]), -1)
    v = h @ p["value"]
    return hold(a) @ v if gates else halves(jnp.matmul, a, v)


def fixed(p: Params, h: Array) -> tuple[Array, Array, Array]:
    q = jnp.broadcast_to(p["queries"], (h.shape[0], *p["queries"].shape))
    return q, h @ p["key"], h @ p["value"]


FIXED_QUERIES = {
    "einsum": lambda p, h: (
        jax.nn.softmax(jnp.einsum("qd,bkd->bqk", p["queries"], h @ p["key"]), -1) @ (h @ p["value"])
    ),
    "attention": lambda p, h: plain(*(z * s for z, s in zip(fixed(p, h), (2, 1, 1), strict=True))),
    "normalised after": lambda p, h: normalised_after(fixed(p, h)[0] * 2, *fixed(p, h)[1:]),
    "folded keys": lambda p, h: (
        jax.nn.softmax(jnp.einsum("bkf,fq->bqk", h, p["key"] @ p["queries"].T), -1)
        @ (h @ p["value"])
    ),
    "values mapped last": lambda p, h: (
        (jax.nn.softmax(jnp.einsum("qd,bkd->bqk", p["queries"], h @ p["key"]), -1) @ h) @ p["value"]
    ),
    "one query at a time": lambda p, h: jnp.stack(
        [
            jnp.einsum("bk,bkd->bd", jax.nn.softmax(h @ p["key"] @ q, -1), h @ p["value"])
            for q in p["queries"]
        ],
        1,
    ),
}


def relative_by_hand(p: Params, h: Array, gates: bool) -> Array:
    q, k, v = qkv(p, h)
    a = jax.nn.softmax(halves(scores, q, k) + p["relative"], -1)
    return hold(a) @ v if gates else halves(jnp.matmul, a, v)


def kernel_with_bias(p: Params, h: Array) -> Array:
    q, k, v = (z[:, :, None] for z in qkv(p, h))
    y = jax.nn.dot_product_attention(q, k, v, bias=p["relative"][None, None], scale=0.5)
    return y[:, :, 0]


def relative_logits(p: Params, h: Array) -> Array:
    return scores(*qkv(p, h)[:2]) + p["relative"]


RELATIVE = {
    "added": lambda p, h: jax.nn.softmax(relative_logits(p, h), -1) @ qkv(p, h)[2],
    "dot_product_attention": kernel_with_bias,
    "exponentials multiplied": lambda p, h: (
        (jnp.exp(scores(*qkv(p, h)[:2])) * jnp.exp(p["relative"]) @ qkv(p, h)[2])
        / (jnp.exp(scores(*qkv(p, h)[:2])) * jnp.exp(p["relative"])).sum(-1, keepdims=True)
    ),
    "scaled after": lambda p, h: (
        jax.nn.softmax((scores(*qkv(p, h)[:2]) * 2 + 2 * p["relative"]) / 2, -1) @ qkv(p, h)[2]
    ),
    "normalised after": lambda p, h: (
        (jnp.exp(relative_logits(p, h)) @ qkv(p, h)[2])
        / jnp.exp(relative_logits(p, h)).sum(-1, keepdims=True)
    ),
    "a pair at a time": lambda p, h: jnp.einsum(
        "bqk,bkd->bqd",
        jnp.exp(relative_logits(p, h) - jax.nn.logsumexp(relative_logits(p, h), -1, keepdims=True)),
        qkv(p, h)[2],
    ),
}


def two_softmaxes(q: Array, k: Array) -> tuple[Array, Array]:
    one, other = (jax.nn.softmax(scores(q[..., c], k[..., c]), -1) for c in (slice(2), slice(2, 4)))
    return one, other


def differential(q: Array, k: Array, v: Array) -> Array:
    one, other = two_softmaxes(q, k)
    return (one - 0.4 * other) @ v


def differential_apart(q: Array, k: Array, v: Array) -> Array:
    one, other = two_softmaxes(q, k)
    return one @ v - 0.4 * (other @ v)


def differential_by_hand(p: Params, h: Array, gates: bool) -> Array:
    q, k, v = qkv(p, h)
    a = sum(
        c * jax.nn.softmax(halves(scores, q[..., s], k[..., s]), -1)
        for c, s in ((1, slice(2)), (-0.4, slice(2, 4)))
    )
    return hold(a) @ v if gates else halves(jnp.matmul, a, v)


DIFFERENTIAL: dict[str, Attention] = {
    "difference": differential,
    "of the results": differential_apart,
    "einsum": lambda q, k, v: jnp.einsum(
        "bqk,bkd->bqd", two_softmaxes(q, k)[0] - 0.4 * two_softmaxes(q, k)[1], v
    ),
    "stacked": lambda q, k, v: jnp.einsum(
        "n,nbqk,bkd->bqd", jnp.asarray([1, -0.4]), jnp.stack(two_softmaxes(q, k)), v
    ),
    "added": lambda q, k, v: (two_softmaxes(q, k)[1] * -0.4 + two_softmaxes(q, k)[0]) @ v,
    "values scaled": lambda q, k, v: (
        two_softmaxes(q, k)[0] @ v + two_softmaxes(q, k)[1] @ (-0.4 * v)
    ),
}


ATTENTION_PARAMS = {"query": (4, 4), "key": (4, 4), "value": (4, 4)}
SEQUENCE = (2, T, D)


def attention_group(
    name: str, spelled: dict[str, Attention], mask: np.ndarray | None = None
) -> Group:
    """Spellings of attention as functions of queries, keys and values."""
    reference = attention_by_hand(mask)
    return Group(name, on_qkv(spelled), ATTENTION_PARAMS, reference, EXACT, SEQUENCE, rounding=1e-7)


GROUPS = (
    attention_group("attention", ATTENTION),
    attention_group("causal attention", CAUSALLY, CAUSAL),
    Group(
        "differential attention",
        on_qkv(DIFFERENTIAL),
        ATTENTION_PARAMS,
        differential_by_hand,
        EXACT,
        SEQUENCE,
    ),
    Group("a mask of heads", HEADS, {**ATTENTION_PARAMS, "heads": (2,)}, heads_by_hand, EXACT),
    Group(
        "attention of fixed queries",
        FIXED_QUERIES,
        {"queries": (2, 4), "key": (4, 4), "value": (4, 4)},
        fixed_queries_by_hand,
        EXACT,
    ),
    Group(
        "attention with positions",
        RELATIVE,
        {**ATTENTION_PARAMS, "relative": (T, T)},
        relative_by_hand,
        EXACT,
        SEQUENCE,
        rounding=1e-7,
    ),
)
