"""Dense layers with all that belongs to them: biases, scales, batch norms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

from .group import ANY_KIND, EXACT, Group, Params


def dot(x: Array, w: Array) -> Array:
    return lax.dot_general(x, w, (((x.ndim - 1,), (0,)), ((), ())))


def ones_column(p: Params, x: Array) -> Array:
    wide = jnp.concatenate([x, jnp.ones((*x.shape[:-1], 1))], -1)
    return wide @ jnp.concatenate([p["w"], p["b"][None]])


def by_conv(p: Params, x: Array) -> Array:
    y = lax.conv_general_dilated(
        x, p["w"][None], (1,), "VALID", dimension_numbers=("NTC", "TIO", "NTC")
    )
    return y + p["b"]


DENSE = {
    "x w + b": lambda p, x: x @ p["w"] + p["b"],
    "b + x w": lambda p, x: p["b"] + x @ p["w"],
    "minus a minus": lambda p, x: x @ p["w"] - (-p["b"]),
    "einsum": lambda p, x: jnp.einsum("btf,fo->bto", x, p["w"]) + p["b"],
    "dot_general": lambda p, x: dot(x, p["w"]) + p["b"],
    "tensordot": lambda p, x: jnp.tensordot(x, p["w"], 1) + p["b"][None, None],
    "weights first": lambda p, x: jnp.moveaxis(
        jnp.einsum("fo,btf->obt", p["w"], x) + p["b"][:, None, None], 0, -1
    ),
    "multiplied and summed": lambda p, x: (x[..., None] * p["w"]).sum(-2) + p["b"],
    "flat rows": lambda p, x: (x.reshape(-1, 4) @ p["w"] + p["b"]).reshape(*x.shape[:2], -1),
    "vmap": lambda p, x: jax.vmap(jax.vmap(lambda v: v @ p["w"] + p["b"]))(x),
    "convolution": by_conv,
    "map": lambda p, x: lax.map(lambda z: z @ p["w"] + p["b"], x),
    "checkpoint, bias outside": lambda p, x: jax.checkpoint(lambda x: x @ p["w"])(x) + p["b"],
    "jit, bias outside": lambda p, x: jax.jit(lambda x: x @ p["w"])(x) + p["b"],
    "branch, bias outside": lambda p, x: (
        lax.cond(True, lambda x: x @ p["w"], lambda x: x @ -p["w"], x) + p["b"]
    ),
    "bias in turn": lambda p, x: (x @ p["w"] + 0.25 * p["b"]) + 0.75 * p["b"],
    "halved and doubled": lambda p, x: (x @ (p["w"] / 2) + p["b"] / 2) * 2,
    "columns": lambda p, x: jnp.concatenate(
        [x @ p["w"][:, :1] + p["b"][:1], x @ p["w"][:, 1:] + p["b"][1:]], -1
    ),
    "negated": lambda p, x: -(x @ -p["w"] - p["b"]),
    "zero weights": lambda p, x: (
        jnp.pad(x, ((0, 0), (0, 0), (0, 2))) @ jnp.pad(p["w"], ((0, 2), (0, 0))) + p["b"]
    ),
}

WITH_ONES = {
    "x w + b": DENSE["x w + b"],
    "a column of ones": ones_column,
    "padded with ones": lambda p, x: (
        jnp.pad(x, ((0, 0), (0, 0), (0, 1)), constant_values=1)
        @ jnp.concatenate([p["w"], p["b"][None]])
    ),
    "ones first": lambda p, x: (
        jnp.concatenate([jnp.ones((*x.shape[:-1], 1)), x], -1)
        @ jnp.concatenate([p["b"][None], p["w"]])
    ),
    "bias as a product": lambda p, x: x @ p["w"] + jnp.ones((1, 1)) @ p["b"][None],
    "a row of a table": lambda p, x: x @ p["w"] + jnp.take(p["b"][None], 0, axis=0),
}

SCALED = {
    "scaled after": lambda p, x: (x @ p["w"]) * p["c"],
    "weights scaled": lambda p, x: x @ (p["w"] * p["c"]),
    "divided": lambda p, x: (x @ p["w"]) / (1 / p["c"]),
    "diagonal": lambda p, x: (x @ p["w"]) * jnp.diagonal(jnp.diag(p["c"])),
    "einsum": lambda p, x: jnp.einsum("bti,io,o->bto", x, p["w"], p["c"]),
    "two factors": lambda p, x: (x @ p["w"]) * 2 * (p["c"] / 2),
    "checkpoint, scaled outside": lambda p, x: jax.checkpoint(lambda x: x @ p["w"])(x) * p["c"],
    "negated": lambda p, x: -(x @ p["w"]) * -p["c"],
    "scan, scaled inside": lambda p, x: lax.scan(lambda n, z: (n, (z @ p["w"]) * p["c"]), 0.0, x)[
        1
    ],
}

MULTIPLES = {
    "once": lambda p, x: x @ p["w"],
    "3 y - 2 y": lambda p, x: 3 * (x @ p["w"]) - 2 * (x @ p["w"]),
    "half of twice": lambda p, x: (x @ p["w"] + x @ p["w"]) / 2,
    "one more than half": lambda p, x: (x @ p["w"]) * 1.5 - (x @ p["w"]) / 2,
    "minus a difference": lambda p, x: -(x @ p["w"] - 2 * (x @ p["w"])),
    "on the other side": lambda p, x: jnp.swapaxes(
        3 * jnp.swapaxes(x @ p["w"], 1, 2) - 2 * jnp.swapaxes(x @ p["w"], 1, 2), 1, 2
    ),
    "one of them in a jit": lambda p, x: 3 * (x @ p["w"]) - jax.jit(lambda y: 2 * y)(x @ p["w"]),
}

DIFFERENCE = {
    "x - y": lambda p, x: x - (x @ p["w"] + p["b"]),
    "x + (-y)": lambda p, x: x + (-(x @ p["w"] + p["b"])),
    "-(y - x)": lambda p, x: -((x @ p["w"] + p["b"]) - x),
    "times minus one": lambda p, x: x + -1.0 * (x @ p["w"] + p["b"]),
    "over minus one": lambda p, x: x + (x @ p["w"] + p["b"]) / -1.0,
}

SCALED_BY_ONE = {
    "after": lambda p, x: (x @ p["w"]) * p["s"],
    "weights": lambda p, x: x @ (p["w"] * p["s"]),
    "input": lambda p, x: (x * p["s"]) @ p["w"],
    "divided": lambda p, x: (x / (1 / p["s"])) @ p["w"],
    "half and half": lambda p, x: (x * (2 * p["s"])) @ p["w"] / 2,
    "negated": lambda p, x: (-x * p["s"]) @ -p["w"],
    "scaled in a checkpoint": lambda p, x: jax.checkpoint(lambda x: x * p["s"])(x) @ p["w"],
    "scaled in a map": lambda p, x: lax.map(lambda x: x * p["s"], x) @ p["w"],
}


def statistics(p: Params) -> tuple[Array, Array]:
    factor = p["scale"] * lax.rsqrt(p["var"] ** 2 + 0.5)
    return factor, p["shift"] - p["mean"] * factor


def norm_after(p: Params, y: Array) -> Array:
    return (y - p["mean"]) / jnp.sqrt(p["var"] ** 2 + 0.5) * p["scale"] + p["shift"]


BATCH_NORM = {
    "norm": lambda p, x: norm_after(p, x @ p["w"] + p["b"]),
    "rsqrt": lambda p, x: (
        (x @ p["w"] + p["b"] - p["mean"]) * lax.rsqrt(p["var"] ** 2 + 0.5) * p["scale"] + p["shift"]
    ),
    "factor first": lambda p, x: (
        (x @ p["w"] + p["b"] - p["mean"]) * (lax.rsqrt(p["var"] ** 2 + 0.5) * p["scale"])
        + p["shift"]
    ),
    "scale and shift": lambda p, x: (x @ p["w"] + p["b"]) * statistics(p)[0] + statistics(p)[1],
    "folded": lambda p, x: (
        x @ (p["w"] * statistics(p)[0]) + (p["b"] * statistics(p)[0] + statistics(p)[1])
    ),
    "checkpoint": lambda p, x: norm_after(p, jax.checkpoint(lambda x: x @ p["w"] + p["b"])(x)),
    "norm in a checkpoint": lambda p, x: jax.checkpoint(lambda y: norm_after(p, y))(
        x @ p["w"] + p["b"]
    ),
    "map": lambda p, x: lax.map(lambda z: norm_after(p, z @ p["w"] + p["b"]), x),
}


def norm_before(p: Params, x: Array) -> Array:
    return (x - p["mean"]) / jnp.sqrt(p["var"] ** 2 + 0.5) * p["scale"] + p["shift"]


NORM_BEFORE = {
    "norm": lambda p, x: norm_before(p, x) @ p["w"] + p["b"],
    "scale and shift": lambda p, x: (x * statistics(p)[0] + statistics(p)[1]) @ p["w"] + p["b"],
    "folded": lambda p, x: (
        x @ (statistics(p)[0][:, None] * p["w"]) + (statistics(p)[1] @ p["w"] + p["b"])
    ),
    "einsum": lambda p, x: jnp.einsum("btf,fo->bto", norm_before(p, x), p["w"]) + p["b"],
    "checkpoint": lambda p, x: jax.checkpoint(lambda x: norm_before(p, x))(x) @ p["w"] + p["b"],
    "jit": lambda p, x: jax.jit(lambda x: norm_before(p, x))(x) @ p["w"] + p["b"],
    "dense in a checkpoint": lambda p, x: (
        jax.checkpoint(lambda z: z @ p["w"])(norm_before(p, x)) + p["b"]
    ),
    "map": lambda p, x: lax.map(lambda z: norm_before(p, z), x) @ p["w"] + p["b"],
}

PIXELS = {
    "standardised": lambda p, x: ((x / 255 - 0.5) / 0.25) @ p["w"],
    "one division": lambda p, x: ((x - 127.5) / 63.75) @ p["w"],
    "scale and shift": lambda p, x: (x * (1 / 63.75) - 2) @ p["w"],
    "folded": lambda p, x: x @ (p["w"] / 63.75) - 2 * p["w"].sum(0),
    "bias afterwards": lambda p, x: ((x / 63.75) @ p["w"]) - 2 * p["w"].sum(0),
    "map": lambda p, x: lax.map(lambda z: (z / 255 - 0.5) / 0.25, x) @ p["w"],
    "vmap": lambda p, x: jax.vmap(lambda z: ((z / 255 - 0.5) / 0.25) @ p["w"])(x),
}

TWO_INPUTS = {
    "concatenated": lambda p, x: jnp.concatenate([x, x**2], -1) @ p["both"] + p["b"],
    "added": lambda p, x: x @ p["both"][:4] + x**2 @ p["both"][4:] + p["b"],
    "bias in one": lambda p, x: (x @ p["both"][:4] + p["b"]) + x**2 @ p["both"][4:],
    "stacked": lambda p, x: (
        jnp.einsum("nbtf,nfo->bto", jnp.stack([x, x**2]), p["both"].reshape(2, 4, -1)) + p["b"]
    ),
    "bias first": lambda p, x: p["b"] + x @ p["both"][:4] + x**2 @ p["both"][4:],
    "other order": lambda p, x: (
        jnp.concatenate([x**2, x], -1) @ jnp.concatenate([p["both"][4:], p["both"][:4]]) + p["b"]
    ),
}

TWO_OUTPUTS = {
    "one matrix": lambda p, x: x @ p["both"],
    "two matrices": lambda p, x: jnp.concatenate(
        [x @ p["both"][:, :2], x @ p["both"][:, 2:]], -1
    ),
    "heads": lambda p, x: jnp.einsum(
        "bti,iho->btho", x, p["both"].reshape(4, 2, -1)
    ).reshape(*x.shape[:2], -1),
    "columns": lambda p, x: jnp.stack([x @ p["both"][:, i] for i in range(6)], -1),
    "vmap over heads": lambda p, x: jax.vmap(
        lambda w: x @ w, 1, 2
    )(p["both"].reshape(4, 2, -1)).reshape(*x.shape[:2], -1),
    "padded": lambda p, x: (
        jnp.pad(x @ p["both"][:, :2], ((0, 0), (0, 0), (0, 4)))
        .at[..., 2:].set(x @ p["both"][:, 2:])
    ),
}  # fmt: skip

COMPOSED = {
    "in turn": lambda p, x: (x @ p["down"]) @ p["up"],
    "weights first": lambda p, x: x @ (p["down"] @ p["up"]),
    "einsum": lambda p, x: jnp.einsum("bti,ir,ro->bto", x, p["down"], p["up"]),
    "multi_dot": lambda p, x: jnp.linalg.multi_dot([x.reshape(-1, 4), p["down"], p["up"]]).reshape(
        *x.shape[:2], -1
    ),
    "transposed": lambda p, x: x @ (p["up"].T @ p["down"].T).T,
}

RESIDUAL = {
    "x + x w": lambda p, x: x + x @ p["w"],
    "x w + x": lambda p, x: x @ p["w"] + x,
    "one matrix": lambda p, x: x @ (p["w"] + jnp.eye(4)),
    "minus": lambda p, x: x - x @ -p["w"],
    "einsum": lambda p, x: jnp.einsum("bti,io->bto", x, jnp.eye(4) + p["w"]),
    "checkpoint": lambda p, x: x + jax.checkpoint(lambda x: x @ p["w"])(x),
    "halves": lambda p, x: 2 * (x / 2 + x @ (p["w"] / 2)),
}

LOW_RANK = {
    "added": lambda p, x: x @ p["w"] + (x @ p["down"]) @ p["up"],
    "merged": lambda p, x: x @ (p["w"] + p["down"] @ p["up"]),
    "scaled": lambda p, x: x @ p["w"] + 0.5 * ((x @ p["down"]) @ (2 * p["up"])),
    "einsum": lambda p, x: (
        jnp.einsum("bti,io->bto", x, p["w"]) + jnp.einsum("bti,ir,ro->bto", x, p["down"], p["up"])
    ),
    "subtracted": lambda p, x: x @ p["w"] - (x @ p["down"]) @ -p["up"],
}

WEIGHT_NORM = {
    "weights normalised": lambda p, x: x @ (p["w"] / jnp.linalg.norm(p["w"], axis=0)) + p["b"],
    "divided after": lambda p, x: (x @ p["w"]) / jnp.linalg.norm(p["w"], axis=0) + p["b"],
    "rsqrt": lambda p, x: (x @ p["w"]) * lax.rsqrt((p["w"] ** 2).sum(0)) + p["b"],
    "scan": lambda p, x: lax.scan(
        lambda n, z: (n, z @ (p["w"] / jnp.linalg.norm(p["w"], axis=0)) + p["b"]), 0.0, x
    )[1],
    "checkpoint": lambda p, x: (
        jax.checkpoint(lambda x: x @ p["w"])(x) / jnp.linalg.norm(p["w"], axis=0) + p["b"]
    ),
}

PRE_ACTIVATION = {
    "loop": lambda p, x: unrolled(p, x),
    "scan": lambda p, x: lax.scan(
        lambda h, w: (h + jax.nn.relu(h * w[0] + w[1]) @ w[2], None),
        x, (p["scales"], p["shifts"], p["kernels"]),
    )[0],
    "checkpointed": lambda p, x: lax.scan(
        jax.checkpoint(lambda h, w: (h + jax.nn.relu(h * w[0] + w[1]) @ w[2], None)),
        x, (p["scales"], p["shifts"], p["kernels"]),
    )[0],
    "unrolled scan": lambda p, x: lax.scan(
        lambda h, w: (h + jax.nn.relu(h * w[0] + w[1]) @ w[2], None),
        x, (p["scales"], p["shifts"], p["kernels"]), unroll=3,
    )[0],
    "fori_loop": lambda p, x: lax.fori_loop(
        0, 3,
        lambda i, h: h + jax.nn.relu(h * p["scales"][i] + p["shifts"][i]) @ p["kernels"][i], x,
    ),
}  # fmt: skip


def unrolled(p: Params, h: Array) -> Array:
    for i in range(3):
        h = h + jax.nn.relu(h * p["scales"][i] + p["shifts"][i]) @ p["kernels"][i]
    return h


def linear(spelled):  # type: ignore[no-untyped-def]
    """An affine function is its own reference."""
    f = next(iter(spelled.values()))
    return lambda p, h, gates: f(p, h)


NORM = {"scale": (4,), "mean": (4,), "var": (4,), "shift": (4,)}
LAYER = {"w": (4, 4), "b": (4,)}
RANK = {"down": (4, 2), "up": (2, 4)}


def cut(y: Array) -> Array:
    """Two layers side by side, one of them rectified."""
    return jax.nn.relu(y[..., :4]) + y[..., 4:]


TWO_OF_PIXELS = {
    "one wide layer": lambda p, x: cut((2 * x - 1) @ p["both"]),
    "two layers": lambda p, x: (lambda h: (
        jax.nn.relu(h @ p["both"][:, :4]) + h @ p["both"][:, 4:]
    ))(2 * x - 1),
    "two layers, apart": lambda p, x: (
        jax.nn.relu((2 * x - 1) @ p["both"][:, :4]) + (2 * x - 1) @ p["both"][:, 4:]
    ),
    "side by side": lambda p, x: (lambda h: cut(jnp.concatenate(
        [h @ p["both"][:, :4], h @ p["both"][:, 4:]], -1
    )))(2 * x - 1),
    "the shift as a bias": lambda p, x: cut(x @ (2 * p["both"]) - p["both"].sum(0)),
    "halves": lambda p, x: cut(2 * ((x - 0.5) @ p["both"])),
    "vmap": lambda p, x: jax.vmap(lambda v: (lambda h: (
        jax.nn.relu(h @ p["both"][:, :4]) + h @ p["both"][:, 4:]
    ))(2 * v - 1))(x),
    "checkpoint": lambda p, x: (lambda h: (
        jax.checkpoint(lambda h: jax.nn.relu(h @ p["both"][:, :4]))(h) + h @ p["both"][:, 4:]
    ))(2 * x - 1),
}  # fmt: skip

GROUPS = (
    Group("dense", DENSE, LAYER, linear(DENSE), ANY_KIND),
    Group("dense with ones", WITH_ONES, LAYER, linear(WITH_ONES)),
    Group("dense, scaled", SCALED, {"w": (4, 4), "c": (4,)}, linear(SCALED)),
    Group("dense, scaled by a number", SCALED_BY_ONE, {"w": (4, 4), "s": ()},
          linear(SCALED_BY_ONE), EXACT),  # by sign, a scale between two layers is of the first one
    Group("multiples of one value", MULTIPLES, {"w": (4, 4)}, linear(MULTIPLES)),
    Group("a difference", DIFFERENCE, LAYER, linear(DIFFERENCE)),
    Group("batch norm after", BATCH_NORM, {**LAYER, **NORM}, linear(BATCH_NORM)),
    Group("batch norm before", NORM_BEFORE, {**LAYER, **NORM}, linear(NORM_BEFORE), entry=False),
    Group("pixels", PIXELS, {"w": (4, 4)}, linear(PIXELS), entry=False),
    Group("two layers of pixels", TWO_OF_PIXELS, {"both": (4, 8)},
          linear(TWO_OF_PIXELS), EXACT, entry=False),
    Group("dense of two inputs", TWO_INPUTS, {"both": (8, 4), "b": (4,)}, None, EXACT),
    Group("dense to two outputs", TWO_OUTPUTS, {"both": (4, 6)}, linear(TWO_OUTPUTS)),
    Group("two dense layers", COMPOSED, RANK, linear(COMPOSED), EXACT),
    Group("a residual", RESIDUAL, {"w": (4, 4)}, linear(RESIDUAL), EXACT),
    Group("low rank", LOW_RANK, {"w": (4, 4), **RANK}, linear(LOW_RANK), EXACT),
    Group("weight norm", WEIGHT_NORM, LAYER, linear(WEIGHT_NORM)),
    Group("pre-activation residuals", PRE_ACTIVATION,
          {"scales": (3, 4), "shifts": (3, 4), "kernels": (3, 4, 4)}, None),
)  # fmt: skip
