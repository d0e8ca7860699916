"""Normalisations: a value divided by a statistic of itself, which is held."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .group import EXACT, Group, Params, function, halves, hold, shares

N = 4


def mean(x: Array) -> Array:
    return x.mean(-1, keepdims=True)


def root_mean_square(x: Array) -> Array:
    return jnp.sqrt(mean(x * x) + 1e-5)


RMS = {
    "rsqrt": lambda p, x: x * lax.rsqrt(mean(x**2) + 1e-5),
    "sqrt": lambda p, x: x / jnp.sqrt(mean(x * x) + 1e-5),
    "square": lambda p, x: x / jnp.sqrt(mean(jnp.square(x)) + 1e-5),
    "einsum": lambda p, x: x / jnp.sqrt(jnp.einsum("...i,...i->...", x, x)[..., None] / N + 1e-5),
    "power": lambda p, x: x * (mean(x**2) + 1e-5) ** -0.5,
    "reciprocal": lambda p, x: x * (1 / jnp.sqrt(mean(x**2) + 1e-5)),
    "exp of log": lambda p, x: x * jnp.exp(-0.5 * jnp.log(mean(x**2) + 1e-5)),
    "dot with ones": lambda p, x: x * lax.rsqrt((x * x) @ jnp.ones((N, N)) / N + 1e-5),
    "vmap of vdot": lambda p, x: (
        x / jnp.sqrt(jax.vmap(jax.vmap(jnp.vdot))(x, x)[..., None] / N + 1e-5)
    ),
    "scaled": lambda p, x: np.sqrt(N) * x / jnp.sqrt((x * x).sum(-1, keepdims=True) + N * 1e-5),
    "statistic first": lambda p, x: lax.rsqrt(mean(x**2) + 1e-5) * x,
    "vmap": lambda p, x: jax.vmap(lambda z: z * lax.rsqrt((z**2).mean(-1)[:, None] + 1e-5))(x),
    "checkpoint": lambda p, x: jax.checkpoint(root_mean_square)(x) ** -1 * x,
    "map": lambda p, x: lax.map(lambda z: z / root_mean_square(z), x),
    "absolute": lambda p, x: x * lax.rsqrt(mean(jnp.abs(x) ** 2) + 1e-5),
}


def inverse_rms(x: Array) -> Array:
    return lax.rsqrt(mean(x**2) + 1e-5)


PART = {
    "after": lambda p, x: (x * inverse_rms(x))[..., :2],
    "before": lambda p, x: x[..., :2] * inverse_rms(x),
    "divided": lambda p, x: x[..., :2] / root_mean_square(x),
    "columns": lambda p, x: jnp.stack(
        [x[..., i] * lax.rsqrt((x**2).mean(-1) + 1e-5) for i in range(2)], -1
    ),
    "split": lambda p, x: jnp.split(x, 2, -1)[0] / root_mean_square(x),
}


RMS_DENSE = {
    "norm, gain, dense": lambda p, x: (x * inverse_rms(x) * p["gain"]) @ p["kernel"],
    "gain folded": lambda p, x: (x * inverse_rms(x)) @ (p["gain"][:, None] * p["kernel"]),
    "norm last": lambda p, x: (x @ (p["gain"][:, None] * p["kernel"])) * inverse_rms(x),
    "gain first": lambda p, x: ((x * p["gain"]) * inverse_rms(x)) @ p["kernel"],
    "divided last": lambda p, x: ((x * p["gain"]) @ p["kernel"]) / root_mean_square(x),
    "einsum": lambda p, x: jnp.einsum(
        "bti,bt,i,io->bto", x, inverse_rms(x)[..., 0], p["gain"], p["kernel"]
    ),
}


def length(x: Array) -> Array:
    return jnp.linalg.norm(x, axis=-1, keepdims=True)


L2 = {
    "norm": lambda p, x: x / length(x),
    "sqrt": lambda p, x: x / jnp.sqrt((x**2).sum(-1, keepdims=True)),
    "rsqrt": lambda p, x: x * lax.rsqrt(jnp.sum(x * x, -1, keepdims=True)),
    "power": lambda p, x: x * ((x * x).sum(-1, keepdims=True)) ** -0.5,
    "einsum": lambda p, x: x / jnp.sqrt(jnp.einsum("btf,btf->bt", x, x))[..., None],
    "dot": lambda p, x: jax.vmap(jax.vmap(lambda v: v / jnp.sqrt(v @ v)))(x),
    "hypot": lambda p, x: (
        x / jnp.hypot(jnp.hypot(x[..., :1], x[..., 1:2]), jnp.hypot(x[..., 2:3], x[..., 3:]))
    ),
    "scaled by the largest": lambda p, x: (
        (x / jnp.abs(x).max(-1, keepdims=True)) / length(x / jnp.abs(x).max(-1, keepdims=True))
    ),
    "twice": lambda p, x: (x / length(x)) / length(x / length(x)),
    "matmul": lambda p, x: x / jnp.sqrt((x[..., None, :] @ x[..., None])[..., 0]),
}


def moments(x: Array) -> Array:
    m = mean(x)
    return (x - m) * lax.rsqrt(mean(x * x) - m * m + 1e-5)


def centred_by_matrix(x: Array) -> Array:
    d = x @ (jnp.eye(N) - 1 / N)
    return d / jnp.sqrt(mean(d * d) + 1e-5)


def split_mean(x: Array) -> Array:
    s = jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x / s - mean(x) / s


LAYER = {
    "mean and var": lambda x: (x - mean(x)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5),
    "moments": moments,
    "standardize": lambda x: jax.nn.standardize(x, epsilon=1e-5),
    "rsqrt": lambda x: (x - mean(x)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-5),
    "centred first": lambda x: (x - mean(x)) / root_mean_square(x - mean(x)),
    "matrix": centred_by_matrix,
    "mean subtracted last": split_mean,
    "einsum": lambda x: (
        (x - mean(x))
        / jnp.sqrt(jnp.einsum("btf,btf->bt", x - mean(x), x - mean(x))[..., None] / N + 1e-5)
    ),
    "vmap": lambda x: jax.vmap(jax.vmap(lambda v: (v - v.mean()) / jnp.sqrt(v.var() + 1e-5)))(x),
    "std": lambda x: (x - mean(x)) / jnp.sqrt(x.std(-1, keepdims=True) ** 2 + 1e-5),
    "sums": lambda x: (
        (x - x.sum(-1, keepdims=True) / N)
        / jnp.sqrt((x * x).sum(-1, keepdims=True) / N - (x.sum(-1, keepdims=True) / N) ** 2 + 1e-5)
    ),
}


def layer(x: Array) -> Array:
    return (x - mean(x)) * hold(lax.rsqrt(x.var(-1, keepdims=True) + 1e-5))


PART_OF_LAYER = {
    "after": lambda x: layer(x)[..., :2],
    "before": lambda x: (x[..., :2] - mean(x)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-5),
    "columns": lambda x: jnp.stack(
        [(x[..., i] - x.mean(-1)) / jnp.sqrt(x.var(-1) + 1e-5) for i in range(2)], -1
    ),
    "centred before": lambda x: (lambda d: d[..., :2] / jnp.sqrt(mean(d * d) + 1e-5))(x - mean(x)),
    "split": lambda x: (
        (jnp.split(x, 2, -1)[0] - mean(x)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
    ),
}

SCALED_LAYER = {
    "scale and bias": lambda p, x: LAYER["mean and var"](x) * p["scale"] + p["bias"],
    "bias first": lambda p, x: p["bias"] + p["scale"] * LAYER["moments"](x),
    "scale with the statistic": lambda p, x: (
        (x - mean(x)) * (lax.rsqrt(x.var(-1, keepdims=True) + 1e-5) * p["scale"]) + p["bias"]
    ),
    "folded": lambda p, x: (
        x * (lax.rsqrt(x.var(-1, keepdims=True) + 1e-5) * p["scale"])
        + (p["bias"] - mean(x) * (lax.rsqrt(x.var(-1, keepdims=True) + 1e-5) * p["scale"]))
    ),
    "einsum": lambda p, x: jnp.einsum("btf,f->btf", LAYER["rsqrt"](x), p["scale"]) - (-p["bias"]),
}


def groups(x: Array) -> Array:
    return x.reshape(*x.shape[:-1], 2, -1)


GROUP = {
    "reshaped": lambda p, x: LAYER["mean and var"](groups(x)).reshape(x.shape),
    "split": lambda p, x: jnp.concatenate(
        [jax.nn.standardize(part, epsilon=1e-5) for part in jnp.split(x, 2, -1)], -1
    ),
    "vmap": lambda p, x: jax.vmap(
        lambda v: jax.nn.standardize(v, epsilon=1e-5), 2, 2
    )(groups(x)).reshape(x.shape),
    "moments": lambda p, x: moments(groups(x)).reshape(x.shape),
    "repeated statistics": lambda p, x: (
        (x - jnp.repeat(groups(x).mean(-1), 2, -1))
        / jnp.sqrt(jnp.repeat(groups(x).var(-1), 2, -1) + 1e-5)
    ),
}  # fmt: skip

COSINE = {
    "both normalised": lambda p, x: (
        (x / length(x)) @ (p["kernel"] / jnp.linalg.norm(p["kernel"], axis=0))
    ),
    "divided by the product": lambda p, x: (
        (x @ p["kernel"]) / (length(x) * jnp.linalg.norm(p["kernel"], axis=0))
    ),
    "divided in turn": lambda p, x: (
        (x @ p["kernel"]) / length(x) / jnp.linalg.norm(p["kernel"], axis=0)
    ),
    "rsqrt": lambda p, x: (
        x @ p["kernel"] * lax.rsqrt((x**2).sum(-1, keepdims=True) * (p["kernel"] ** 2).sum(0))
    ),
    "einsum": lambda p, x: jnp.einsum(
        "btf,fo->bto", x / length(x), p["kernel"] / jnp.linalg.norm(p["kernel"], axis=0)
    ),
    "root of the product": lambda p, x: (
        x @ p["kernel"] / jnp.sqrt((x**2).sum(-1, keepdims=True) * (p["kernel"] ** 2).sum(0))
    ),
}


def cosine_by_hand(p: Params, x: Array, gates: bool) -> Array:
    return (x * hold(1 / length(x))) @ (p["kernel"] / jnp.linalg.norm(p["kernel"], axis=0))


def pair(p: Params, x: Array) -> tuple[Array, Array]:
    return x @ p["query"], x @ p["key"]


def products(a: Array, b: Array) -> Array:
    return jnp.einsum("bqd,bkd->bqk", a, b)


def two_lengths(p: Params, x: Array) -> Array:
    return length(pair(p, x)[0]) * jnp.swapaxes(length(pair(p, x)[1]), 1, 2)


SIMILARITY = {
    "both normalised": lambda p, x: products(*(z / length(z) for z in pair(p, x))),
    "divided by both": lambda p, x: products(*pair(p, x)) / two_lengths(p, x),
    "queries first": lambda p, x: (
        products(pair(p, x)[0] / length(pair(p, x)[0]), pair(p, x)[1])
        / jnp.swapaxes(length(pair(p, x)[1]), 1, 2)
    ),
    "rsqrt": lambda p, x: products(
        *(z * lax.rsqrt(jnp.einsum("btd,btd->bt", z, z))[..., None] for z in pair(p, x))
    ),
    "vmap": lambda p, x: jax.vmap(
        lambda q, k: (q / length(q)) @ (k / length(k)).T
    )(*pair(p, x)),
    "times a reciprocal": lambda p, x: products(*pair(p, x)) * (1 / two_lengths(p, x)),
}  # fmt: skip


def row_lengths(x: Array) -> Array:
    return jnp.sqrt((x * x).sum(-1))


dots = jax.vmap(jax.vmap(jnp.dot))

ROW_SIMILARITY = {
    "both normalised": lambda p, x: (
        lambda a, b: ((a / length(a)) * (b / length(b))).sum(-1)
    )(*pair(p, x)),
    "divided by both": lambda p, x: (
        lambda a, b: (a * b).sum(-1) / (row_lengths(a) * row_lengths(b))
    )(*pair(p, x)),
    "einsum": lambda p, x: (
        lambda a, b: jnp.einsum("btf,btf->bt", a, b) / row_lengths(a) / row_lengths(b)
    )(*pair(p, x)),
    "one normalised": lambda p, x: (
        lambda a, b: (a / length(a) * b).sum(-1) / row_lengths(b)
    )(*pair(p, x)),
    "one root": lambda p, x: (
        lambda a, b: (a * b).sum(-1) * lax.rsqrt((a * a).sum(-1) * (b * b).sum(-1))
    )(*pair(p, x)),
    "one root of dots": lambda p, x: (
        lambda a, b: dots(a, b) / jnp.sqrt(dots(a, a) * dots(b, b))
    )(*pair(p, x)),
}  # fmt: skip


def similarity_by_hand(p: Params, x: Array, gates: bool) -> Array:
    return halves(products, *(z * hold(1 / length(z)) for z in pair(p, x)))


ONE = {
    "absolute": lambda p, x: x / jnp.abs(x).sum(-1, keepdims=True),
    "linalg": lambda p, x: x / jnp.linalg.norm(x, 1, axis=-1, keepdims=True),
    "mean": lambda p, x: x / (N * mean(jnp.abs(x))),
    "roots": lambda p, x: x / jnp.sqrt(x * x).sum(-1, keepdims=True),
    "reciprocal": lambda p, x: x * (1 / jnp.abs(x).sum(-1, keepdims=True)),
    "dot": lambda p, x: x / (jnp.abs(x) @ jnp.ones(N))[..., None],
    "twice": lambda p, x: (2 * x) / jnp.abs(2 * x).sum(-1, keepdims=True),
}

LARGEST = {
    "max": lambda p, x: x / jnp.abs(x).max(-1, keepdims=True),
    "reciprocal": lambda p, x: x * (1 / jnp.abs(x).max(-1, keepdims=True)),
    "linalg": lambda p, x: x / jnp.linalg.norm(x, jnp.inf, axis=-1, keepdims=True),
    "power": lambda p, x: x * jnp.abs(x).max(-1, keepdims=True) ** -1.0,
    "of both signs": lambda p, x: (
        x / jnp.maximum(x.max(-1, keepdims=True), -x.min(-1, keepdims=True))
    ),
}


def relu_share(x: Array) -> Array:
    r = jax.nn.relu(x)
    return r / r.sum(-1, keepdims=True)


RELU_SHARE = {
    "relu": lambda p, x: relu_share(x),
    "maximum": lambda p, x: jnp.maximum(x, 0) / jnp.maximum(x, 0).sum(-1, keepdims=True),
    "reciprocal": lambda p, x: jax.nn.relu(x) * (1 / jax.nn.relu(x).sum(-1, keepdims=True)),
    "mean": lambda p, x: jax.nn.relu(x) / (N * mean(jax.nn.relu(x))),
    "dot": lambda p, x: jax.nn.relu(x) / (jax.nn.relu(x) @ jnp.ones((N, 1))),
    "vmap": lambda p, x: jax.vmap(relu_share)(x),
    "power": lambda p, x: jax.nn.relu(x) * jax.nn.relu(x).sum(-1, keepdims=True) ** -1,
    "where": lambda p, x: jnp.where(x > 0, x / jax.nn.relu(x).sum(-1, keepdims=True), 0),
}


def squared(x: Array) -> Array:
    return (x * x).sum(-1, keepdims=True)


def squash(row: Array) -> Array:
    return (row @ row) / (1 + row @ row) * (row / jnp.sqrt(row @ row))


SQUASH = {
    "published": lambda p, x: squared(x) / (1 + squared(x)) * x / jnp.sqrt(squared(x)),
    "root": lambda p, x: x * jnp.sqrt(squared(x)) / (1 + squared(x)),
    "unit vector": lambda p, x: (x / length(x)) * (squared(x) / (1 + squared(x))),
    "factor first": lambda p, x: (squared(x) / ((1 + squared(x)) * jnp.sqrt(squared(x)))) * x,
    "length": lambda p, x: x * (length(x) / (1 + length(x) ** 2)),
    "square first": lambda p, x: squared(x) * x / ((1 + squared(x)) * jnp.sqrt(squared(x))),
    "vectors": lambda p, x: jax.vmap(jax.vmap(squash))(x),
}


def window(x: Array) -> Array:
    padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1)))
    return padded[..., :-2] + padded[..., 1:-1] + padded[..., 2:]


def window_by_conv(x: Array) -> Array:
    flat = x.reshape(-1, 1, N)
    return lax.conv(flat, jnp.ones((1, 1, 3)), (1,), "SAME").reshape(x.shape)


def window_by_pool(x: Array) -> Array:
    return lax.reduce_window(x, 0.0, lax.add, (1, 1, 3), (1, 1, 1), "SAME")


def window_by_roll(x: Array) -> Array:
    at = jnp.arange(N)
    before = jnp.where(at > 0, jnp.roll(x, 1, -1), 0)
    return x + before + jnp.where(at < N - 1, jnp.roll(x, -1, -1), 0)


def channel(x: Array, i: int) -> Array:
    near = sum(x[..., j] ** 2 for j in range(max(0, i - 1), min(N, i + 2)))
    return x[..., i] / (1 + 0.5 * near) ** 0.75


LOCAL = {
    "pool": lambda p, x: x / (1 + 0.5 * window_by_pool(x * x)) ** 0.75,
    "power": lambda p, x: x * (1 + 0.5 * window_by_pool(x**2)) ** -0.75,
    "slices": lambda p, x: x / (1 + 0.5 * window(x * x)) ** 0.75,
    "rolled": lambda p, x: x / (1 + 0.5 * window_by_roll(x * x)) ** 0.75,
    "channels": lambda p, x: jnp.stack([channel(x, i) for i in range(N)], -1),
    "convolution": lambda p, x: x / (1 + 0.5 * window_by_conv(jnp.square(x))) ** 0.75,
    "exp of log": lambda p, x: x * jnp.exp(-0.75 * jnp.log(1 + 0.5 * window_by_pool(x * x))),
    "matrix": lambda p, x: (
        x / (1 + 0.5 * ((x * x) @ (jnp.eye(N) + jnp.eye(N, k=1) + jnp.eye(N, k=-1)))) ** 0.75
    ),
}

DIVISIVE = {
    "weights": lambda p, x: x**2 / (0.5 + (x**2) @ p["pool"] ** 2),
    "einsum": lambda p, x: x**2 / (0.5 + jnp.einsum("bti,ij->btj", x**2, p["pool"] ** 2)),
    "reciprocal": lambda p, x: (x * x) * (1 / (0.5 + (x * x) @ p["pool"] ** 2)),
    "square": lambda p, x: jnp.square(x) / (jnp.square(x) @ p["pool"] ** 2 + 0.5),
    "power": lambda p, x: x**2 * (0.5 + (x**2) @ p["pool"] ** 2) ** -1,
}


def divisive_by_hand(p: Params, x: Array, gates: bool) -> Array:
    return (x * hold(x)) * hold(1 / (0.5 + (x**2) @ p["pool"] ** 2))


def gated_norm_by_hand(p: Params, x: Array, gates: bool) -> Array:
    a, b = pair(p, x)
    g = function(jax.nn.silu, b)
    y = a * hold(g) if gates else shares(a, g)
    return y * hold(lax.rsqrt(mean(y**2) + 1e-5))


def gated_product(p: Params, x: Array) -> Array:
    a, b = pair(p, x)
    return a * jax.nn.silu(b)


GATED_NORM = {
    "norm of the product": lambda p, x: (
        gated_product(p, x) * lax.rsqrt(mean(gated_product(p, x) ** 2) + 1e-5)
    ),
    "sqrt": lambda p, x: gated_product(p, x) / root_mean_square(gated_product(p, x)),
    "value scaled": lambda p, x: (
        pair(p, x)[0] * inverse_rms(gated_product(p, x)) * jax.nn.silu(pair(p, x)[1])
    ),
    "gate scaled": lambda p, x: (
        pair(p, x)[0] * (jax.nn.silu(pair(p, x)[1]) * inverse_rms(gated_product(p, x)))
    ),
    "written out": lambda p, x: (
        pair(p, x)[0] * pair(p, x)[1] * jax.nn.sigmoid(pair(p, x)[1])
        * inverse_rms(gated_product(p, x))
    ),
}  # fmt: skip


def total_length(x: Array) -> Array:
    return jnp.sqrt((x * x).sum(1, keepdims=True))


GLOBAL_RESPONSE = {
    "lengths over their mean": lambda p, x: x * (total_length(x) / (mean(total_length(x)) + 1e-6)),
    "divided last": lambda p, x: (x * total_length(x)) / (mean(total_length(x)) + 1e-6),
    "divided first": lambda p, x: (x / (mean(total_length(x)) + 1e-6)) * total_length(x),
    "norm": lambda p, x: (
        jnp.linalg.norm(x, axis=1, keepdims=True) * x / (mean(total_length(x)) + 1e-6)
    ),
    "reciprocal": lambda p, x: x * total_length(x) * (1 / (mean(total_length(x)) + 1e-6)),
}


def over(f):  # type: ignore[no-untyped-def]
    """A reference whose factor is held."""
    return lambda p, x, gates: x * hold(f(p, x) / x)


def without(spelled: dict) -> dict:  # type: ignore[type-arg]
    return {name: (lambda p, x, f=f: f(x)) for name, f in spelled.items()}


PAIR = {"query": (4, 4), "key": (4, 4)}
GAIN = {"gain": (4,), "kernel": (4, 3)}
GROUPS = (
    Group("RMS norm", RMS, {}, over(RMS["rsqrt"]), EXACT),
    Group(
        "RMS norm before a dense layer",
        RMS_DENSE,
        GAIN,
        lambda p, x, gates: (x * hold(inverse_rms(x)) * p["gain"]) @ p["kernel"],
        EXACT,
    ),
    Group(
        "a part of an RMS norm",
        PART,
        {},
        lambda p, x, gates: (x * hold(inverse_rms(x)))[..., :2],
        EXACT,
    ),
    Group("L2 norm", L2, {}, over(L2["norm"]), EXACT),
    Group(
        "a part of a layer norm",
        without(PART_OF_LAYER),
        {},
        lambda p, x, gates: layer(x)[..., :2],
        EXACT,
    ),
    Group("layer norm", without(LAYER), {}, lambda p, x, gates: layer(x), EXACT),
    Group(
        "layer norm with a bias",
        SCALED_LAYER,
        {"scale": (4,), "bias": (4,)},
        lambda p, x, gates: layer(x) * p["scale"] + p["bias"],
        EXACT,
    ),
    Group("group norm", GROUP, {}, lambda p, x, gates: layer(groups(x)).reshape(x.shape), EXACT),
    Group("cosine with weights", COSINE, {"kernel": (4, 3)}, cosine_by_hand, EXACT),
    Group("cosine of two values", SIMILARITY, PAIR, similarity_by_hand, EXACT),
    Group("cosine of rows", ROW_SIMILARITY, PAIR, None, EXACT),
    Group("L1 norm", ONE, {}, over(ONE["absolute"]), EXACT),
    Group("divided by the largest", LARGEST, {}, over(LARGEST["max"]), EXACT),
    Group("share of a relu", RELU_SHARE, {}, over(RELU_SHARE["relu"]), EXACT),
    Group("squash", SQUASH, {}, over(SQUASH["root"]), EXACT),
    Group("local response norm", LOCAL, {}, over(LOCAL["pool"]), EXACT),
    Group("divisive normalisation", DIVISIVE, {"pool": (4, 4)}, divisive_by_hand, EXACT),
    Group(
        "global response norm",
        GLOBAL_RESPONSE,
        {},
        over(GLOBAL_RESPONSE["lengths over their mean"]),
        EXACT,
    ),
    Group("norm of a gated value", GATED_NORM, PAIR, gated_norm_by_hand, EXACT),
)
