"""Cosines of which the whole product is divided once: by lengths with one stabiliser, by roots of
diagonals."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

from .group import EXACT, SUMS, Group, Params, Piece, halves, hold
from .norms import PAIR, length, pair, products, row_lengths, two_lengths

SMALL = 0.3
"""What keeps a divisor from zero, large enough to be seen."""


def of_two(f: object) -> Piece:
    return lambda p, x: f(*pair(p, x))  # type: ignore[operator]


def lengths(a: Array, b: Array) -> Array:
    return length(a) * jnp.swapaxes(length(b), 1, 2)


def squares(a: Array, b: Array) -> Array:
    return (a * a).sum(-1)[:, :, None] * (b * b).sum(-1)[:, None]


def row_by_row(a: Array, b: Array) -> Array:
    return (a @ b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b) + SMALL)


of_all_rows = jax.vmap(jax.vmap(jax.vmap(row_by_row, (None, 0)), (0, None)))

ADDED = {
    "added": of_two(lambda a, b: products(a, b) / (lengths(a, b) + SMALL)),
    "added first": of_two(lambda a, b: products(a, b) / (SMALL + lengths(a, b))),
    "einsum": of_two(
        lambda a, b: (
            products(a, b) / (jnp.einsum("bq,bk->bqk", row_lengths(a), row_lengths(b)) + SMALL)
        )
    ),
    "reciprocal": of_two(lambda a, b: products(a, b) * (1 / (lengths(a, b) + SMALL))),
    "power": of_two(lambda a, b: products(a, b) * (lengths(a, b) + SMALL) ** -1),
    "one root": of_two(lambda a, b: products(a, b) / (jnp.sqrt(squares(a, b)) + SMALL)),
    "rows": of_two(of_all_rows),
    "matmul": of_two(lambda a, b: (a @ jnp.swapaxes(b, 1, 2)) / (lengths(a, b) + SMALL)),
}

LEAST = {
    "largest": of_two(lambda a, b: products(a, b) / jnp.maximum(lengths(a, b), SMALL)),
    "clipped": of_two(lambda a, b: products(a, b) / jnp.clip(lengths(a, b), min=SMALL)),
    "rsqrt": of_two(lambda a, b: products(a, b) * lax.rsqrt(jnp.maximum(squares(a, b), SMALL**2))),
    "root": of_two(lambda a, b: products(a, b) / jnp.sqrt(jnp.maximum(squares(a, b), SMALL**2))),
    "reciprocal": of_two(lambda a, b: products(a, b) * (1 / jnp.maximum(lengths(a, b), SMALL))),
}

ROWS = {
    "added": of_two(lambda a, b: (a * b).sum(-1) / (row_lengths(a) * row_lengths(b) + SMALL)),
    "einsum": of_two(
        lambda a, b: jnp.einsum("btf,btf->bt", a, b) / (row_lengths(a) * row_lengths(b) + SMALL)
    ),
    "reciprocal": of_two(
        lambda a, b: (a * b).sum(-1) * (1 / (row_lengths(a) * row_lengths(b) + SMALL))
    ),
    "divided before": of_two(
        lambda a, b: (a * b / (length(a) * length(b) + SMALL)).sum(-1)
    ),
    "vectors": of_two(jax.vmap(jax.vmap(row_by_row))),
}  # fmt: skip


def columns(p: Params) -> Array:
    return jnp.linalg.norm(p["kernel"], axis=0)


WEIGHTS = {
    "added": lambda p, x: (x @ p["kernel"]) / (length(x) * columns(p) + SMALL),
    "einsum": lambda p, x: (
        jnp.einsum("btf,fo->bto", x, p["kernel"])
        / (jnp.einsum("bt,o->bto", row_lengths(x), columns(p)) + SMALL)
    ),
    "reciprocal": lambda p, x: (x @ p["kernel"]) * (1 / (length(x) * columns(p) + SMALL)),
    "one root": lambda p, x: (
        (x @ p["kernel"])
        / (jnp.sqrt((x * x).sum(-1, keepdims=True) * (p["kernel"] ** 2).sum(0)) + SMALL)
    ),
    "vectors": lambda p, x: jax.vmap(
        jax.vmap(jax.vmap(row_by_row, (None, 1)), (0, None)), (0, None)
    )(x, p["kernel"]),
}


def two_by_hand(p: Params, x: Array, gates: bool) -> Array:
    return halves(products, *pair(p, x)) * hold(1 / (two_lengths(p, x) + SMALL))


def weights_by_hand(p: Params, x: Array, gates: bool) -> Array:
    return (x @ p["kernel"]) * hold(1 / (length(x) * columns(p) + SMALL))


def gram(x: Array) -> Array:
    return x @ jnp.swapaxes(x, 1, 2)


def diagonal(k: Array) -> Array:
    return jnp.diagonal(k, axis1=1, axis2=2)


def both(d: Array) -> Array:
    return d[:, :, None] * d[:, None]


AT = jnp.arange(3)

CORRELATION = {
    "rows of length one": lambda p, x: gram(x / length(x)),
    "two roots": lambda p, x: gram(x) / both(jnp.sqrt(diagonal(gram(x)))),
    "one root": lambda p, x: gram(x) / jnp.sqrt(both(diagonal(gram(x)))),
    "rsqrt": lambda p, x: gram(x) * lax.rsqrt(both(diagonal(gram(x)))),
    "indices": lambda p, x: gram(x) / jnp.sqrt(both(gram(x)[:, AT, AT])),
    "einsum": lambda p, x: (
        lambda k: k / jnp.sqrt(both(jnp.einsum("bii->bi", k)))
    )(jnp.einsum("bif,bjf->bij", x, x)),
    "mask": lambda p, x: gram(x) / jnp.sqrt(both((gram(x) * jnp.eye(3)).sum(-1))),
    "where": lambda p, x: (
        gram(x) / jnp.sqrt(both(jnp.where(jnp.eye(3) > 0, gram(x), 0).sum(1)))
    ),
    "each": lambda p, x: jax.vmap(
        lambda k: k / jnp.sqrt(jnp.outer(jnp.diag(k), jnp.diag(k)))
    )(gram(x)),
    "sums of squares": lambda p, x: gram(x) / jnp.sqrt(both((x * x).sum(-1))),
}  # fmt: skip


GROUPS = (
    Group("cosine with one stabiliser", ADDED, PAIR, two_by_hand, SUMS),
    Group("cosine with a least divisor", LEAST, PAIR, None, SUMS),
    Group("cosine of rows with one stabiliser", ROWS, PAIR, None, EXACT),
    Group(
        "cosine with weights and one stabiliser", WEIGHTS, {"kernel": (4, 3)}, weights_by_hand, SUMS
    ),
    Group("correlation from a Gram matrix", CORRELATION, {}, None, EXACT),
)
