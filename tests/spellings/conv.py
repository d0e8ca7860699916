"""Convolutions and pools, and what else computes them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .group import ANY_KIND, EXACT, Group, Params

NTC = ("NTC", "TIO", "NTC")
L, C, O = 6, 3, 4  # noqa: E741


def conv(x: Array, w: Array, stride: int = 1, padding: object = "VALID", **more: object) -> Array:
    return lax.conv_general_dilated(x, w, (stride,), padding, dimension_numbers=NTC, **more)  # type: ignore[arg-type]


def windows(x: Array, size: int, stride: int = 1, dilation: int = 1) -> Array:
    """(batch, position, window, channel)."""
    many = (x.shape[1] - dilation * (size - 1) - 1) // stride + 1
    index = stride * np.arange(many)[:, None] + dilation * np.arange(size)
    return x[:, index]


def channels_first(x: Array, w: Array) -> Array:
    y = lax.conv(jnp.swapaxes(x, 1, 2), jnp.transpose(w, (2, 1, 0)), (1,), "VALID")
    return jnp.swapaxes(y, 1, 2)


def as_image(x: Array, w: Array) -> Array:
    y = lax.conv_general_dilated(
        x[:, :, None], w[:, None], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y[:, :, 0]


def patches(x: Array, w: Array) -> Array:
    y = lax.conv_general_dilated_patches(x, (3,), (1,), "VALID", dimension_numbers=NTC)
    return y @ jnp.swapaxes(w, 0, 1).reshape(-1, O)


def toeplitz(x: Array, w: Array) -> Array:
    """The convolution as a dense layer of all positions."""
    dense = np.zeros((L, L - 2, 3))
    for t in range(L - 2):
        for i in range(3):
            dense[t + i, t, i] = 1
    return jnp.einsum("bsc,sctO->btO", x, jnp.einsum("stk,kcO->sctO", dense, w))


PLAIN = {
    "convolution": lambda p, x: conv(x, p["w"]) + p["b"],
    "channels first": lambda p, x: channels_first(x, p["w"]) + p["b"],
    "image": lambda p, x: as_image(x, p["w"]) + p["b"],
    "patches": lambda p, x: patches(x, p["w"]) + p["b"],
    "windows": lambda p, x: jnp.einsum("btkc,kco->bto", windows(x, 3), p["w"]) + p["b"],
    "flat windows": lambda p, x: (
        windows(x, 3).reshape(2, L - 2, -1) @ p["w"].reshape(-1, O) + p["b"]
    ),
    "stacked slices": lambda p, x: (
        jnp.concatenate([x[:, i : i + L - 2] for i in range(3)], -1) @ p["w"].reshape(-1, O)
        + p["b"]
    ),
    "Toeplitz": lambda p, x: toeplitz(x, p["w"]) + p["b"],
    "vmap": lambda p, x: jax.vmap(lambda z: conv(z[None], p["w"])[0] + p["b"])(x),
    "bias outside of a checkpoint": lambda p, x: jax.checkpoint(conv)(x, p["w"]) + p["b"],
    "dilated by zeros": lambda p, x: conv(
        x, p["w"], rhs_dilation=(1,), lhs_dilation=(1,)
    ) - (-p["b"]),
    "zeros in the kernel": lambda p, x: (
        conv(x, jnp.pad(p["w"], ((0, 1), (0, 0), (0, 0))), padding=((0, 1),)) + p["b"]
    ),
    "reversed": lambda p, x: (
        jnp.flip(conv(jnp.flip(x, 1), jnp.flip(p["w"], 0)), 1) + p["b"]
    ),
    "a position at a time": lambda p, x: jnp.stack(
        [jnp.einsum("bkc,kco->bo", x[:, t : t + 3], p["w"]) + p["b"] for t in range(L - 2)], 1
    ),
    "map over positions": lambda p, x: jnp.swapaxes(
        lax.map(
            lambda t: jnp.einsum("bkc,kco->bo", lax.dynamic_slice_in_dim(x, t, 3, 1), p["w"])
            + p["b"],
            jnp.arange(L - 2),
        ), 0, 1,
    ),
}  # fmt: skip

SHIFTED = {
    "convolution": lambda p, x: conv(x, p["w"]),
    "shifted and added": lambda p, x: sum(x[:, i : i + L - 2] @ p["w"][i] for i in range(3)),
    "rolled and added": lambda p, x: sum(
        jnp.roll(x, -i, 1) @ p["w"][i] for i in range(3)
    )[:, : L - 2],
    "multiplied, rolled": lambda p, x: sum(
        jnp.roll(x @ p["w"][i], -i, 1) for i in range(3)
    )[:, : L - 2],
    "loop": lambda p, x: lax.fori_loop(
        0, 3,
        lambda i, y: y + lax.dynamic_slice_in_dim(x, i, L - 2, 1) @ p["w"][i],
        jnp.zeros((2, L - 2, O)),
    ),
    "scan": lambda p, x: lax.scan(
        lambda y, z: (y + z[0] @ z[1], None),
        jnp.zeros((2, L - 2, O)),
        (jnp.stack([x[:, i : i + L - 2] for i in range(3)]), p["w"]),
    )[0],
}  # fmt: skip

SAME = {
    "SAME": lambda p, x: conv(x, p["w"], padding="SAME") + p["b"],
    "pairs": lambda p, x: conv(x, p["w"], padding=((1, 1),)) + p["b"],
    "padded": lambda p, x: conv(jnp.pad(x, ((0, 0), (1, 1), (0, 0))), p["w"]) + p["b"],
    "concatenated": lambda p, x: (
        conv(jnp.concatenate([jnp.zeros((2, 1, C)), x, jnp.zeros((2, 1, C))], 1), p["w"]) + p["b"]
    ),
    "windows": lambda p, x: (
        jnp.einsum("btkc,kco->bto", windows(jnp.pad(x, ((0, 0), (1, 1), (0, 0))), 3), p["w"])
        + p["b"]
    ),
    "wider": lambda p, x: conv(x, p["w"], padding=((2, 2),))[:, 1:-1] + p["b"],
}

STRIDED = {
    "convolution": lambda p, x: conv(x, p["w"], 3),
    "reshaped": lambda p, x: x.reshape(2, 2, -1) @ p["w"].reshape(-1, O),
    "einsum": lambda p, x: jnp.einsum("btkc,kco->bto", x.reshape(2, 2, 3, C), p["w"]),
    "windows": lambda p, x: jnp.einsum("btkc,kco->bto", windows(x, 3, 3), p["w"]),
    "every third": lambda p, x: conv(x, p["w"])[:, ::3],
    "split": lambda p, x: jnp.stack(
        [z.reshape(2, -1) @ p["w"].reshape(-1, O) for z in jnp.split(x, 2, 1)], 1
    ),
}

DILATED = {
    "dilated": lambda p, x: conv(x, p["w"], rhs_dilation=(2,)),
    "zeros in the kernel": lambda p, x: conv(x, jnp.zeros((5, C, O)).at[::2].set(p["w"])),
    "padded kernel": lambda p, x: conv(x, lax.pad(p["w"], 0.0, ((0, 0, 1), (0, 0, 0), (0, 0, 0)))),
    "windows": lambda p, x: jnp.einsum("btkc,kco->bto", windows(x, 3, 1, 2), p["w"]),
    "two phases": lambda p, x: jnp.stack([conv(x[:, i::2], p["w"]) for i in range(2)], 2).reshape(
        2, 2, O
    ),
}

DEPTHWISE = {
    "groups": lambda p, x: conv(x, p["w"], feature_group_count=C),
    "windows": lambda p, x: jnp.einsum("btkc,kc->btc", windows(x, 3), p["w"][:, 0]),
    "multiplied and summed": lambda p, x: (windows(x, 3) * p["w"][:, 0]).sum(2),
    "each channel": lambda p, x: jnp.concatenate(
        [conv(x[..., i : i + 1], p["w"][..., i : i + 1]) for i in range(C)], -1
    ),
    "vmap": lambda p, x: jax.vmap(lambda z, w: conv(z[..., None], w[..., None])[..., 0], (2, 2), 2)(
        x, p["w"]
    ),
    "a diagonal kernel": lambda p, x: conv(x, p["w"] * np.eye(C)),
}

SINGLE = {
    "dense": lambda p, x: x @ p["w"][0] + p["b"],
    "convolution": lambda p, x: conv(x, p["w"]) + p["b"],
    "channels first": lambda p, x: jnp.swapaxes(
        lax.conv(jnp.swapaxes(x, 1, 2), jnp.transpose(p["w"], (2, 1, 0)), (1,), "VALID")
        + p["b"][:, None],
        1, 2,
    ),
    "SAME": lambda p, x: conv(x, p["w"], padding="SAME") + p["b"],
    "einsum": lambda p, x: jnp.einsum("btc,co->bto", x, p["w"][0]) + p["b"],
    "a wide kernel": lambda p, x: conv(
        x, jnp.pad(p["w"], ((1, 1), (0, 0), (0, 0))), padding="SAME"
    ) + p["b"],
}  # fmt: skip


def inserted(x: Array) -> Array:
    return lax.pad(x, 0.0, ((0, 0, 0), (0, 0, 1), (0, 0, 0)))


TRANSPOSED = {
    "dilated input": lambda p, x: conv(x, p["w"], padding=((2, 2),), lhs_dilation=(2,)),
    "conv_transpose": lambda p, x: lax.conv_transpose(
        x, p["w"], (2,), "VALID", dimension_numbers=NTC
    ),
    "zeros inserted": lambda p, x: conv(inserted(x), p["w"], padding=((2, 2),)),
    "set": lambda p, x: conv(
        jnp.zeros((2, 2 * L - 1, C)).at[:, ::2].set(x), p["w"], padding=((2, 2),)
    ),
    "stacked zeros": lambda p, x: conv(
        jnp.stack([x, jnp.zeros_like(x)], 2).reshape(2, 2 * L, C)[:, :-1],
        p["w"], padding=((2, 2),),
    ),
}  # fmt: skip

MEAN_POOL = {
    "reduce_window": lambda p, x: (
        lax.reduce_window(x, 0.0, lax.add, (1, 2, 1), (1, 2, 1), "VALID") / 2
    ),
    "reshaped": lambda p, x: x.reshape(2, L // 2, 2, C).mean(2),
    "slices": lambda p, x: (x[:, ::2] + x[:, 1::2]) / 2,
    "convolution": lambda p, x: conv(x, np.full((2, 1, C), 0.5), 2, feature_group_count=C),
    "windows": lambda p, x: windows(x, 2, 2).mean(2),
    "matrix": lambda p, x: jnp.einsum("ts,bsc->btc", np.kron(np.eye(L // 2), [[0.5, 0.5]]), x),
    "every second": lambda p, x: ((x[:, :-1] + x[:, 1:]) / 2)[:, ::2],
}

MAX_POOL = {
    "reduce_window": lambda p, x: lax.reduce_window(
        x, -jnp.inf, lax.max, (1, 2, 1), (1, 2, 1), "VALID"
    ),
    "reshaped": lambda p, x: x.reshape(2, L // 2, 2, C).max(2),
    "slices": lambda p, x: jnp.maximum(x[:, ::2], x[:, 1::2]),
    "windows": lambda p, x: windows(x, 2, 2).max(2),
    "minus the least": lambda p, x: (
        -lax.reduce_window(-x, jnp.inf, lax.min, (1, 2, 1), (1, 2, 1), "VALID")
    ),
    "where": lambda p, x: jnp.where(x[:, ::2] > x[:, 1::2], x[:, ::2], x[:, 1::2]),
    "vmap": lambda p, x: jax.vmap(lambda z: z.reshape(L // 2, 2, C).max(1))(x),
}

SEPARABLE = {
    "in turn": lambda p, x: conv(conv(x, p["w"], feature_group_count=C), p["v"]),
    "one kernel": lambda p, x: conv(x, jnp.swapaxes(p["w"], 1, 2) * p["v"]),
    "dense": lambda p, x: conv(x, p["w"], feature_group_count=C) @ p["v"][0],
    "windows": lambda p, x: jnp.einsum("btkc,kc,co->bto", windows(x, 3), p["w"][:, 0], p["v"][0]),
    "multiplied": lambda p, x: (windows(x, 3) * p["w"][:, 0]).sum(2) @ p["v"][0],
}


def itself(spelled):  # type: ignore[no-untyped-def]
    f = next(iter(spelled.values()))

    def reference(p: Params, h: Array, gates: bool) -> Array:
        return f(p, h)

    return reference


KERNEL, BIAS, SHAPE = {"w": (3, C, O)}, {"b": (O,)}, (2, L, C)
EVERYWHERE = {
    "a convolution": (PLAIN, {**KERNEL, **BIAS}),
    "a padded convolution": (SAME, {**KERNEL, **BIAS}),
    "a strided convolution": (STRIDED, KERNEL),
    "a dilated convolution": (DILATED, KERNEL),
    "a depthwise convolution": (DEPTHWISE, {"w": (3, 1, C)}),
    "a convolution of one": (SINGLE, {"w": (1, C, O), **BIAS}),
    "a transposed convolution": (TRANSPOSED, KERNEL),
    "a maximum pool": (MAX_POOL, {}),
}
LINEARLY = {
    "a convolution by shifts": (SHIFTED, KERNEL),
    "a mean pool": (MEAN_POOL, {}),
    "a separable convolution": (SEPARABLE, {"w": (3, 1, C), "v": (1, C, O)}),
}
GROUPS = (
    *(Group(n, s, p, itself(s), ANY_KIND, shape=SHAPE) for n, (s, p) in EVERYWHERE.items()),
    *(Group(n, s, p, itself(s), EXACT, shape=SHAPE) for n, (s, p) in LINEARLY.items()),
)
