"""Sums, means, norms, largest numbers: from many values to one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .group import EVERY, EXACT, Group, Params, function, hold

T = 3


def loop_sum(x: Array) -> Array:
    return lax.fori_loop(0, T, lambda i, y: y + x[:, i], jnp.zeros_like(x[:, 0]))


def running_mean(x: Array) -> Array:
    y = x[:, 0]
    for i in range(1, T):
        y = y + (x[:, i] - y) / (i + 1)
    return y


def variance(x: Array) -> Array:
    d = x - x.mean(1, keepdims=True)
    return (d * hold(d)).mean(1)


def root(x: Array) -> Array:
    return function(jnp.sqrt, x)


def absolute(x: Array) -> Array:
    return function(jnp.abs, x)


def squares(x: Array) -> Array:
    return x * hold(x)


WEIGHTS = np.asarray([0.2, 0.5, 0.3])[:, None]
KEEP = np.asarray([1.0, 0.0, 1.0])[:, None]
REDUCTIONS = {
    "a mean": {
        "mean": lambda x: x.mean(1),
        "sum over n": lambda x: x.sum(1) / T,
        "times 1/n": lambda x: x.sum(1) * (1 / T),
        "einsum": lambda x: jnp.einsum("btf->bf", x) / T,
        "average": lambda x: jnp.average(x, axis=1),
        "transposed": lambda x: jnp.swapaxes(x, 1, 2).mean(-1),
        "vmap": lambda x: jax.vmap(lambda z: z.mean(0))(x),
        "vmap of vectors": lambda x: jax.vmap(jax.vmap(jnp.mean), 2, 1)(x),
        "keepdims": lambda x: x.mean(1, keepdims=True)[:, 0],
        "pool": lambda x: lax.reduce_window(
            x, 0.0, lax.add, (1, T, 1), (1, 1, 1), "VALID"
        )[:, 0] / T,
        "checkpoint": lambda x: jax.checkpoint(lambda x: x.sum(1))(x) / T,
        "jit": lambda x: jax.jit(lambda x: x.sum(1))(x) / T,
    },
    "a mean by other sums": {
        "mean": lambda x: x.mean(1),
        "dot": lambda x: jnp.full((T,), 1 / T) @ x,
        "einsum": lambda x: jnp.einsum("btf,t->bf", x, np.full(T, 1 / T)),
        "scaled first": lambda x: (x / T).sum(1),
        "added up": lambda x: (x[:, 0] + x[:, 1] + x[:, 2]) / T,
        "loop": lambda x: loop_sum(x) / T,
        "running mean": running_mean,
        "cumsum": lambda x: jnp.cumsum(x, 1)[:, -1] / T,
        "scan": lambda x: lax.scan(
            lambda c, row: (c + row / T, None), jnp.zeros_like(x[:, 0]), jnp.swapaxes(x, 0, 1)
        )[0],
        "nan-safe": lambda x: jnp.nanmean(x, 1),
        "where": lambda x: jnp.where(x == x, x, 0).sum(1) / T,
    },
    "a mean over two axes": {
        "axes": lambda x: x.mean((1, 2)),
        "flat": lambda x: x.reshape(x.shape[0], -1).mean(-1),
        "in turn": lambda x: x.mean(1).mean(-1),
        "other order": lambda x: x.mean(-1).mean(-1),
        "sum over n": lambda x: x.sum((1, 2)) / 12,
        "einsum": lambda x: jnp.einsum("btf->b", x) / 12,
        "vmap": lambda x: jax.vmap(jnp.mean)(x),
    },
    "a weighted mean": {
        "multiplied": lambda x: (x * WEIGHTS).sum(1),
        "einsum": lambda x: jnp.einsum("btf,t->bf", x, WEIGHTS[:, 0]),
        "average": lambda x: jnp.average(x, axis=1, weights=WEIGHTS[:, 0]),
        "matmul": lambda x: (WEIGHTS.T @ x)[:, 0],
        "normalised": lambda x: (x * 5 * WEIGHTS).sum(1) / (5 * WEIGHTS).sum(),
        "tensordot": lambda x: jnp.tensordot(x, WEIGHTS[:, 0], ((1,), (0,))),
    },
    "a masked mean": {
        "where=": lambda x: x.mean(1, where=KEEP > 0),
        "mask": lambda x: (x * KEEP).sum(1) / KEEP.sum(),
        "chosen": lambda x: jnp.where(KEEP > 0, x, 0).sum(1) / 2,
        "rows": lambda x: x[:, np.asarray([0, 2])].mean(1),
        "two rows": lambda x: (x[:, 0] + x[:, 2]) / 2,
        "slice": lambda x: x[:, ::2].mean(1),
        "dot": lambda x: (KEEP[:, 0] / 2) @ x,
    },
    "a variance": {
        "var": lambda x: x.var(1),
        "written out": lambda x: jnp.square(x - x.mean(1, keepdims=True)).mean(1),
        "products": lambda x: (
            ((x - x.mean(1, keepdims=True)) * (x - x.mean(1, keepdims=True))).mean(1)
        ),
        "moments": lambda x: (x**2).mean(1) - x.mean(1) ** 2,
        "einsum": lambda x: jnp.einsum(
            "btf,btf->bf", x - x.mean(1, keepdims=True), x - x.mean(1, keepdims=True)
        ) / T,
        "std squared": lambda x: x.std(1) ** 2,
        "vmap": lambda x: jax.vmap(lambda z: z.var(0))(x),
    },
    "a standard deviation": {
        "std": lambda x: x.std(1),
        "root": lambda x: jnp.sqrt(x.var(1)),
        "written out": lambda x: jnp.sqrt(jnp.square(x - x.mean(1, keepdims=True)).mean(1)),
        "power": lambda x: x.var(1) ** 0.5,
        "norm": lambda x: jnp.linalg.norm(x - x.mean(1, keepdims=True), axis=1) / np.sqrt(T),
    },
    "a Euclidean norm": {
        "norm": lambda x: jnp.linalg.norm(x, axis=-1),
        "root": lambda x: jnp.sqrt((x**2).sum(-1)),
        "einsum": lambda x: jnp.sqrt(jnp.einsum("btf,btf->bt", x, x)),
        "power": lambda x: (x * x).sum(-1) ** 0.5,
        "mean": lambda x: jnp.sqrt((x * x).mean(-1) * 4),
        "vmap": lambda x: jax.vmap(jax.vmap(lambda v: jnp.sqrt(v @ v)))(x),
        "matmul": lambda x: jnp.sqrt((x[..., None, :] @ x[..., None])[..., 0, 0]),
        "absolute": lambda x: jnp.sqrt((jnp.abs(x) ** 2).sum(-1)),
        "quotient": lambda x: (x * x).sum(-1) / jnp.sqrt((x * x).sum(-1)),
    },
    "a mean of absolute values": {
        "abs": lambda x: jnp.abs(x).mean(1),
        "sum": lambda x: jnp.abs(x).sum(1) / T,
        "norm": lambda x: jnp.linalg.norm(x, 1, axis=1) / T,
        "roots": lambda x: jnp.sqrt(x * x).mean(1),
        "relus": lambda x: jnp.maximum(x, -x).mean(1),
        "signs": lambda x: (x * jnp.sign(x)).mean(1),
    },
    "the largest": {
        "max": lambda x: x.max(1),
        "sort": lambda x: jnp.sort(x, 1)[:, -1],
        "top_k": lambda x: lax.top_k(jnp.swapaxes(x, 1, 2), 1)[0][..., 0],
        "argmax": lambda x: jnp.take_along_axis(x, x.argmax(1, keepdims=True), 1)[:, 0],
        "maximum": lambda x: jnp.maximum(jnp.maximum(x[:, 0], x[:, 1]), x[:, 2]),
        "reduce_window": lambda x: lax.reduce_window(
            x, -jnp.inf, lax.max, (1, T, 1), (1, 1, 1), "VALID"
        )[:, 0],
        "minus the least": lambda x: -(-x).min(1),
        "cummax": lambda x: lax.cummax(x, 1)[:, -1],
        "one-hot": lambda x: (x * (x == x.max(1, keepdims=True))).sum(1),
        "scan": lambda x: lax.scan(
            lambda c, row: (jnp.maximum(c, row), None), x[:, 0], jnp.swapaxes(x, 0, 1)[1:]
        )[0],
        "where": lambda x: jnp.where(
            x[:, 0] > jnp.maximum(x[:, 1], x[:, 2]), x[:, 0], jnp.maximum(x[:, 1], x[:, 2])
        ),
        "amax": lambda x: jax.vmap(lambda z: jnp.amax(z, 0))(x),
    },
    "running sums": {
        "cumsum": lambda x: jnp.cumsum(x, 1),
        "triangle": lambda x: jnp.einsum("ts,bsf->btf", np.tril(np.ones((T, T))), x),
        "scan": lambda x: jnp.swapaxes(
            lax.scan(
                lambda c, row: (c + row, c + row), jnp.zeros_like(x[:, 0]), jnp.swapaxes(x, 0, 1)
            )[1], 0, 1,
        ),
        "associative": lambda x: lax.associative_scan(jnp.add, x, axis=1),
        "prefixes": lambda x: jnp.stack([x[:, : i + 1].sum(1) for i in range(T)], 1),
        "python loop": lambda x: jnp.stack([x[:, 0], x[:, 0] + x[:, 1],
                                            x[:, 0] + x[:, 1] + x[:, 2]], 1),
    },
    "a difference of neighbours": {
        "slices": lambda x: x[:, 1:] - x[:, :-1],
        "diff": lambda x: jnp.diff(x, axis=1),
        "matrix": lambda x: jnp.einsum("st,btf->bsf", np.eye(T)[1:] - np.eye(T)[:-1], x),
        "minus first": lambda x: -x[:, :-1] + x[:, 1:],
        "roll": lambda x: (x - jnp.roll(x, 1, 1))[:, 1:],
        "vmap": lambda x: jax.vmap(lambda z: z[1:] - z[:-1])(x),
        "convolution": lambda x: lax.conv_general_dilated(
            jnp.swapaxes(x, 1, 2).reshape(-1, T, 1), np.asarray([-1.0, 1.0])[:, None, None],
            (1,), "VALID", dimension_numbers=("NTC", "TIO", "NTC"),
        ).reshape(x.shape[0], 4, 2).swapaxes(1, 2),
    },
    "centred": {
        "mean": lambda x: x - x.mean(-1, keepdims=True),
        "matrix": lambda x: x @ (np.eye(4) - 0.25),
        "sum": lambda x: x - x.sum(-1, keepdims=True) / 4,
        "minus first": lambda x: -x.mean(-1, keepdims=True) + x,
        "vmap": lambda x: jax.vmap(jax.vmap(lambda v: v - v.mean()))(x),
        "checkpoint": lambda x: x - jax.checkpoint(lambda x: x.mean(-1, keepdims=True))(x),
    },
}  # fmt: skip

POSITIVE = {
    "a harmonic mean": {
        "reciprocals": lambda x: T / (1 / x).sum(1),
        "mean": lambda x: 1 / (1 / x).mean(1),
        "powers": lambda x: (x**-1.0).mean(1) ** -1.0,
        "einsum": lambda x: T / jnp.einsum("btf->bf", 1 / x),
        "reciprocal": lambda x: jnp.reciprocal(jnp.reciprocal(x).mean(1)),
    },
    "a root of a mean": {
        "sqrt": lambda x: jnp.sqrt(x).mean(1) ** 2,
        "square": lambda x: jnp.square((x**0.5).mean(1)),
        "product": lambda x: jnp.sqrt(x).mean(1) * jnp.sqrt(x).mean(1),
        "power": lambda x: (x**0.5).sum(1) ** 2 / T**2,
        "einsum": lambda x: (jnp.einsum("btf->bf", jnp.sqrt(x)) / T) ** 2,
    },
}

HAND = {
    "a variance": variance,
    "a standard deviation": lambda x: root(variance(x)),
    "a Euclidean norm": lambda x: root(squares(x).sum(-1)),
    "a mean of absolute values": lambda x: absolute(x).mean(1),
    "a harmonic mean": lambda x: function(lambda m: 1 / m, function(lambda u: 1 / u, x).mean(1)),
    "a root of a mean": lambda x: function(jnp.square, root(x).mean(1)),
}
SAME_CUT = ("a mean", "a mean of absolute values")


def group(name: str, spelled, positive: bool) -> Group:  # type: ignore[no-untyped-def]
    by_hand = HAND.get(name, next(iter(spelled.values())))

    def reference(p: Params, h: Array, gates: bool) -> Array:
        return by_hand(h)

    return Group(
        name,
        {how: (lambda p, h, f=f: f(h)) for how, f in spelled.items()},
        reference=reference,
        composites=EVERY if name in SAME_CUT else EXACT,
        positive=positive,
    )


GROUPS = tuple(
    group(name, spelled, table is POSITIVE)
    for table in (REDUCTIONS, POSITIVE)
    for name, spelled in table.items()
)
