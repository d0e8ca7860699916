"""Softmaxes of which parts are taken and normalised again, and softmaxes beside something."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .group import EVERY, EXACT, Group, Params, halves, hold

CHOSEN = np.asarray([2, 0, 3])
Function = Callable[[Array], Array]


def softmax(s: Array) -> Array:
    return jax.nn.softmax(s, -1)


def again(p: Array) -> Array:
    return p / p.sum(-1, keepdims=True)


def along(s: Array, indices: Array) -> Array:
    return jnp.take_along_axis(s, indices, -1)


FIRST: dict[str, Function] = {
    "of the logits": lambda s: softmax(s[..., :3]),
    "slice": lambda s: again(softmax(s)[..., :3]),
    "split": lambda s: again(jnp.split(softmax(s), [3], -1)[0]),
    "dynamic": lambda s: again(lax.dynamic_slice_in_dim(softmax(s), 0, 3, 2)),
    "of log_softmax": lambda s: softmax(jax.nn.log_softmax(s, -1)[..., :3]),
    "exp of log_softmax": lambda s: again(jnp.exp(jax.nn.log_softmax(s, -1))[..., :3]),
    "exp of its part": lambda s: again(jnp.exp(jax.nn.log_softmax(s, -1)[..., :3])),
    "exponentials": lambda s: again(jnp.exp(s)[..., :3]),
    "times the reciprocal": lambda s: (lambda p: p * (1 / p.sum(-1, keepdims=True)))(
        softmax(s)[..., :3]
    ),
    "twice": lambda s: again(again(softmax(s)[..., :3])),
    "with a stabiliser": lambda s: (lambda p: p / (p.sum(-1, keepdims=True) + 1e-20))(
        softmax(s)[..., :3]
    ),
    "vmap": jax.vmap(jax.vmap(lambda row: again(jax.nn.softmax(row)[:3]))),
}

BY_INDEX: dict[str, Function] = {
    "of the logits": lambda s: softmax(s[..., CHOSEN]),
    "index": lambda s: again(softmax(s)[..., CHOSEN]),
    "take": lambda s: again(jnp.take(softmax(s), CHOSEN, axis=-1)),
    "take_along_axis": lambda s: again(along(softmax(s), jnp.broadcast_to(CHOSEN, (2, 3, 3)))),
    "stack": lambda s: again(jnp.stack([softmax(s)[..., i] for i in CHOSEN], -1)),
    "concatenate": lambda s: again(
        jnp.concatenate([softmax(s)[..., i : i + 1] for i in CHOSEN], -1)
    ),
}


def largest(s: Array) -> Array:
    return lax.top_k(s, 2)[0]


def which(s: Array) -> Array:
    return lax.top_k(s, 2)[1]


def hots(s: Array) -> list[Array]:
    """The place of the largest, and of the largest of the rest."""
    first = jax.nn.one_hot(jnp.argmax(s, -1), 4)
    return [first, jax.nn.one_hot(jnp.argmax(jnp.where(first > 0, -jnp.inf, s), -1), 4)]


def every_row(f: Callable[..., Array]) -> Callable[..., Array]:
    return jax.vmap(jax.vmap(f))


ROUTER: dict[str, Function] = {
    "of the logits": lambda s: softmax(largest(s)),
    "top_k": lambda s: again(largest(softmax(s))),
    "take_along_axis": lambda s: again(along(softmax(s), which(s))),
    "logits along": lambda s: softmax(along(s, which(s))),
    "argsort": lambda s: again(along(softmax(s), jnp.argsort(-s, -1)[..., :2])),
    "sort": lambda s: again(jnp.sort(softmax(s), -1)[..., ::-1][..., :2]),
    "vmap": every_row(lambda row: again(lax.top_k(jax.nn.softmax(row), 2)[0])),
    "vmap of an index": lambda s: every_row(lambda row, i: again(jax.nn.softmax(row)[i]))(
        s, which(s)
    ),
    "of log_softmax": lambda s: softmax(largest(jax.nn.log_softmax(s, -1))),
    "exponentials": lambda s: again(jnp.exp(largest(s))),
    "with a stabiliser": lambda s: (lambda p: p / (p.sum(-1, keepdims=True) + 1e-20))(
        largest(softmax(s))
    ),
    "one-hot": lambda s: again(jnp.stack([(softmax(s) * hot).sum(-1) for hot in hots(s)], -1)),
    "einsum": lambda s: again(jnp.einsum("bte,btke->btk", softmax(s), jnp.stack(hots(s), 2))),
    "einsum of all": lambda s: again(
        jnp.einsum("bte,btke->btk", softmax(s), jax.nn.one_hot(which(s), 4))
    ),
}


# -- of two values --------------------------------------------------------------------------------


def two(p: Params, h: Array) -> tuple[Array, Array]:
    return h @ p["one"], h @ p["other"]


def on_two(spelled):  # type: ignore[no-untyped-def]
    return {name: (lambda p, h, f=f: f(*two(p, h))) for name, f in spelled.items()}


def over_both(a: Array, b: Array) -> Array:
    return jnp.exp(a) / (jnp.exp(a) + jnp.exp(b))


TWO = {
    "stack": lambda a, b: softmax(jnp.stack([a, b], -1))[..., 0],
    "quotient": over_both,
    "shifted": lambda a, b: over_both(a - jnp.maximum(a, b), b - jnp.maximum(a, b)),
    "logaddexp": lambda a, b: jnp.exp(a - jnp.logaddexp(a, b)),
    "logsumexp": lambda a, b: jnp.exp(a - jax.nn.logsumexp(jnp.stack([a, b]), 0)),
}


def mixed_stack(e: Array, u: Array, h: Array) -> Array:
    return (e / e.sum(0) * jnp.stack([u, h])).sum(0)


MIXED = {
    "softmax": lambda a, b, u, h: (
        lambda q: q[..., 0] * u + q[..., 1] * h
    )(softmax(jnp.stack([a, b], -1))),
    "normalised after": lambda a, b, u, h: (
        (jnp.exp(a) * u + jnp.exp(b) * h) / (jnp.exp(a) + jnp.exp(b))
    ),
    "apart": lambda a, b, u, h: over_both(a, b) * u + over_both(b, a) * h,
    "exponentials stacked": lambda a, b, u, h: mixed_stack(
        jnp.stack([jnp.exp(a), jnp.exp(b)]), u, h
    ),
    "quotients stacked": lambda a, b, u, h: (
        jnp.stack([over_both(a, b), over_both(b, a)]) * jnp.stack([u, h])
    ).sum(0),
}  # fmt: skip


# -- of logarithms --------------------------------------------------------------------------------

SHARE: dict[str, Function] = {
    "quotient": lambda a: again(a),
    "softmax": lambda a: softmax(jnp.log(a)),
    "exp of a difference": lambda a: jnp.exp(jnp.log(a) - all_of(jnp.log(a))),
    "exp of log_softmax": lambda a: jnp.exp(jax.nn.log_softmax(jnp.log(a), -1)),
    "of a square": lambda a: softmax(2 * jnp.log(jnp.sqrt(a))),
    "of a product": lambda a: softmax(jnp.log(a * a) - jnp.log(a)),
}


# -- beside something -----------------------------------------------------------------------------


def one_more(s: Array) -> Array:
    return jnp.concatenate([s, jnp.zeros((*s.shape[:-1], 1))], -1)


def all_of(s: Array) -> Array:
    return jax.nn.logsumexp(s, -1, keepdims=True)


OFF_BY_ONE: dict[str, Function] = {
    "a logit more": lambda s: softmax(one_more(s))[..., :-1],
    "plus one": lambda s: jnp.exp(s) / (1 + jnp.exp(s).sum(-1, keepdims=True)),
    "logaddexp": lambda s: jnp.exp(s - jnp.logaddexp(all_of(s), 0.0)),
    "times a sigmoid": lambda s: softmax(s) * jax.nn.sigmoid(all_of(s)),
    "padded": lambda s: softmax(jnp.pad(s, ((0, 0), (0, 0), (0, 1))))[..., :-1],
    "times one minus a sigmoid": lambda s: softmax(s) * (1 - jax.nn.sigmoid(-all_of(s))),
    "a number less": lambda s: softmax(s) * jax.nn.sigmoid(-(0.0 - all_of(s))),
}

OF_A_NUMBER: dict[str, Function] = {
    "a sum": lambda s: jnp.exp(s) / (np.exp(1.5) + jnp.exp(s).sum(-1, keepdims=True)),
    "a number less": lambda s: softmax(s) * jax.nn.sigmoid(all_of(s) - 1.5),
    "a number more": lambda s: softmax(s) * jax.nn.sigmoid(-1.5 + all_of(s)),
    "less than a number": lambda s: softmax(s) * jax.nn.sigmoid(-(1.5 - all_of(s))),
    "one minus a sigmoid": lambda s: softmax(s) * (1 - jax.nn.sigmoid(1.5 - all_of(s))),
    "logaddexp": lambda s: jnp.exp(s - jnp.logaddexp(all_of(s), 1.5)),
}


def sink(p: Params, s: Array) -> Array:
    return jnp.concatenate([s, jnp.broadcast_to(p["sink"], (*s.shape[:-1], 1))], -1)


SINK = {
    "a logit more": lambda p, s, v: softmax(sink(p, s))[..., :-1] @ v,
    "normalised after": lambda p, s, v: (
        (jnp.exp(s) @ v) / (jnp.exp(p["sink"]) + jnp.exp(s).sum(-1, keepdims=True))
    ),
    "a value of zeros": lambda p, s, v: (
        softmax(sink(p, s)) @ jnp.concatenate([v, jnp.zeros_like(v[:, :1])], 1)
    ),
    "a sigmoid": lambda p, s, v: (softmax(s) @ v) * jax.nn.sigmoid(all_of(s) - p["sink"]),
    "divided": lambda p, s, v: (softmax(s) @ v) / (1 + jnp.exp(p["sink"] - all_of(s))),
}


def sink_by_hand(p: Params, h: Array, gates: bool) -> Array:
    s = halves(lambda q, k: q @ jnp.swapaxes(k, 1, 2), *two(p, h))
    a = softmax(sink(p, s))[..., :-1]
    return hold(a) @ h if gates else halves(jnp.matmul, a, h)


def on_scores(spelled):  # type: ignore[no-untyped-def]
    def scores(p: Params, h: Array) -> Array:
        q, k = two(p, h)
        return q @ jnp.swapaxes(k, 1, 2)

    return {name: (lambda p, h, f=f: f(p, scores(p, h), h)) for name, f in spelled.items()}


# -- over slots, then over positions --------------------------------------------------------------

SLOTS = {
    "normalised before": lambda a, v: jnp.einsum("bts,btd->bsd", a / a.sum(1, keepdims=True), v),
    "normalised after": lambda a, v: jnp.einsum("bts,btd->bsd", a, v) / a.sum(1)[..., None],
    "transposed": lambda a, v: jnp.swapaxes(a / a.sum(1, keepdims=True), 1, 2) @ v,
    "times the reciprocal": lambda a, v: (
        jnp.einsum("bts,btd->bsd", a, v) * (1 / a.sum(1))[..., None]
    ),
    "vmap": lambda a, v: jax.vmap(lambda a, v: (a / a.sum(0)).T @ v)(a, v),
}


def over_columns(p: Array) -> Array:
    return p / p.sum(-2, keepdims=True)


BALANCED: dict[str, Function] = {
    "quotient": lambda s: over_columns(softmax(s)),
    "of exponentials": lambda s: over_columns(again(jnp.exp(s))),
    "softmax of logarithms": lambda s: jax.nn.softmax(jnp.log(softmax(s)), -2),
    "softmax of log_softmax": lambda s: jax.nn.softmax(jax.nn.log_softmax(s, -1), -2),
    "vmap": jax.vmap(lambda s: over_columns(softmax(s))),
}
"""One step of balancing rows and columns."""


def slots_by_hand(p: Params, h: Array, gates: bool) -> Array:
    a = softmax(h @ p["one"])
    a = a * hold(1 / a.sum(1, keepdims=True))
    mean = lambda a, v: jnp.einsum("bts,btd->bsd", a, v)  # noqa: E731
    return mean(hold(a), h @ p["other"]) if gates else halves(mean, a, h @ p["other"])


# -- masks that are made of the input, as of rows of padding --------------------------------------


def filled(h: Array) -> Array:
    """Rows that count as keys."""
    return (jnp.abs(h).sum(-1) > 1)[:, None]


def zeroed(s: Array, h: Array) -> Array:
    return jnp.exp(s) * filled(h)


PADDED = {
    "jnp.where": lambda s, h: softmax(jnp.where(filled(h), s, -1e9)) @ h,
    "added": lambda s, h: softmax(s + jnp.where(filled(h), 0, -1e9)) @ h,
    "where=": lambda s, h: jax.nn.softmax(s, -1, where=jnp.broadcast_to(filled(h), s.shape)) @ h,
    "normalised after": lambda s, h: (zeroed(s, h) @ h) / zeroed(s, h).sum(-1, keepdims=True),
    "chosen exponentials": lambda s, h: again(jnp.where(filled(h), jnp.exp(s), 0)) @ h,
}


def padded_by_hand(p: Params, h: Array, gates: bool) -> Array:
    s = halves(lambda q, k: q @ jnp.swapaxes(k, 1, 2), *two(p, h))
    a = softmax(jnp.where(filled(h), s, -1e9))
    return hold(a) @ h if gates else halves(jnp.matmul, a, h)


PAIR = {"one": (4, 4), "other": (4, 4)}


def exact(name: str, spelled: dict[str, Function]) -> Group:
    first = next(iter(spelled.values()))

    def by_hand(p: Params, h: Array, gates: bool) -> Array | None:
        return None if gates else first(h)

    return Group(
        name, {n: (lambda p, h, f=f: f(h)) for n, f in spelled.items()}, {}, by_hand, EXACT
    )


def log_softmax(s: Array) -> Array:
    return jax.nn.log_softmax(s, -1)


BIASED = {
    "of the logits": lambda s, b: softmax(s + b),
    "of log_softmax": lambda s, b: softmax(log_softmax(s) + b),
    "of the logarithm": lambda s, b: softmax(jnp.log(softmax(s)) + b),
    "of a scaled logarithm": lambda s, b: softmax(2 * (0.5 * log_softmax(s) + b / 2)),
    "of less the largest": lambda s, b: softmax(s - s.max(-1, keepdims=True) + b),
    "of less the mean": lambda s, b: softmax(b + (s - s.mean(-1, keepdims=True))),
    "weights": lambda s, b: again(softmax(s) * jnp.exp(b)),
}

LOG_BIASED = {
    "of the logits": lambda s, b: log_softmax(2 * s + b),
    "of log_softmax": lambda s, b: log_softmax(2 * log_softmax(s) + b),
    "of the logarithm": lambda s, b: log_softmax(2 * jnp.log(softmax(s)) + b),
    "halves": lambda s, b: log_softmax(2 * (log_softmax(s) + b / 2)),
    "of less the largest": lambda s, b: log_softmax(2 * (s - s.max(-1, keepdims=True)) + b),
    "logarithm": lambda s, b: jnp.log(softmax(2 * log_softmax(s) + b)),
}

GROUPS = (
    *(
        Group(
            f"{name} of shifted logits and a bias",
            {n: (lambda p, h, f=f: f(h, p["bias"])) for n, f in table.items()},
            {"bias": (4,)},
            composites=EVERY,
        )
        for name, table in (("softmax", BIASED), ("log_softmax", LOG_BIASED))
    ),
    exact("the first of a softmax", FIRST),
    exact("some of a softmax", BY_INDEX),
    exact("the largest of a softmax", ROUTER),
    Group(
        "softmax of two values",
        on_two(TWO),
        PAIR,
        lambda p, h, gates: None if gates else TWO["stack"](*two(p, h)),
        EXACT,
    ),
    Group(
        "a mean of two values",
        {n: (lambda p, h, f=f: f(*two(p, h), h @ p["value"], h)) for n, f in MIXED.items()},
        {**PAIR, "value": (4, 4)},
        None,
        EXACT,
    ),
    exact("softmax off by one", OFF_BY_ONE),
    exact("softmax off by a number", OF_A_NUMBER),
    Group(
        "softmax of logarithms",
        {n: (lambda p, h, f=f: f(h)) for n, f in SHARE.items()},
        {},
        lambda p, h, gates: h * hold(1 / h.sum(-1, keepdims=True)),
        EXACT,
        positive=True,
    ),
    Group("attention with a sink", on_scores(SINK), {**PAIR, "sink": (1,)}, sink_by_hand, EXACT),
    Group(
        "attention to rows that are filled",
        on_scores({n: (lambda p, s, h, f=f: f(s, h)) for n, f in PADDED.items()}),
        PAIR,
        padded_by_hand,
        EXACT,
    ),
    Group(
        "over rows, then over columns",
        {n: (lambda p, h, f=f: f(h)) for n, f in BALANCED.items()},
        {},
        lambda p, h, gates: (
            None if gates else softmax(h) * hold(1 / softmax(h).sum(-2, keepdims=True))
        ),
        EXACT,
    ),
    Group(
        "slots",
        {n: (lambda p, h, f=f: f(softmax(h @ p["one"]), h @ p["other"])) for n, f in SLOTS.items()},
        PAIR,
        slots_by_hand,
        EXACT,
    ),
)
