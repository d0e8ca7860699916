"""Numbers that only change their places."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .group import ANY_KIND, EXACT, Group

ORDER = np.asarray([2, 0, 3, 1])
INVERSE = np.argsort(ORDER)
KEEP = np.asarray([True, False, True, True])


def picked(x: Array) -> Array:
    return jnp.take_along_axis(x, jnp.broadcast_to(ORDER, x.shape), -1)


def mlp(p, x):  # type: ignore[no-untyped-def]
    return jax.nn.relu(x @ p["w"] + p["b"]) @ p["v"]


ANGLES = np.outer(np.arange(3), [1.0, 0.1])
COS, SIN = np.repeat(np.cos(ANGLES), 2, -1), np.repeat(np.sin(ANGLES), 2, -1)
ROTATIONS = np.zeros((3, 4, 4))
for _t in range(3):
    for _i in range(2):
        _c, _s = np.cos(ANGLES[_t, _i]), np.sin(ANGLES[_t, _i])
        ROTATIONS[_t, 2 * _i : 2 * _i + 2, 2 * _i : 2 * _i + 2] = [[_c, _s], [-_s, _c]]


def rotated_pairs(x: Array) -> Array:
    a, b = x[..., ::2], x[..., 1::2]
    c, s = np.cos(ANGLES), np.sin(ANGLES)
    y = jnp.zeros_like(x).at[..., ::2].set(a * c - b * s)
    return y.at[..., 1::2].set(b * c + a * s)


def rotated_stack(x: Array) -> Array:
    a, b = jnp.moveaxis(x.reshape(*x.shape[:2], 2, 2), -1, 0)
    c, s = np.cos(ANGLES), np.sin(ANGLES)
    return jnp.stack([a * c - b * s, b * c + a * s], -1).reshape(x.shape)


def turned(x: Array) -> Array:
    pairs = x.reshape(*x.shape[:-1], 2, 2)
    return jnp.stack([-pairs[..., 1], pairs[..., 0]], -1).reshape(x.shape)


def rotated_complex(x: Array) -> Array:
    pairs = x.reshape(*x.shape[:2], 2, 2)
    z = lax.complex(pairs[..., 0], pairs[..., 1]) * np.exp(1j * ANGLES)
    return jnp.stack([z.real, z.imag], -1).reshape(x.shape)


MOVES = {
    "reversed": {
        "slice": lambda p, x: x[..., ::-1],
        "flip": lambda p, x: jnp.flip(x, -1),
        "take": lambda p, x: jnp.take(x, np.arange(3, -1, -1), axis=-1),
        "rev": lambda p, x: lax.rev(x, (2,)),
        "stack": lambda p, x: jnp.stack([x[..., i] for i in (3, 2, 1, 0)], -1),
        "vmap": lambda p, x: jax.vmap(jax.vmap(lambda v: v[::-1]))(x),
        "scatter": lambda p, x: jnp.zeros_like(x).at[..., np.arange(3, -1, -1)].set(x),
        "loop": lambda p, x: lax.fori_loop(
            0, 4, lambda i, y: y.at[..., 3 - i].set(x[..., i]), jnp.zeros_like(x)
        ),
    },
    "permuted": {
        "index": lambda p, x: x[..., ORDER],
        "take": lambda p, x: jnp.take(x, ORDER, axis=-1),
        "concatenated": lambda p, x: jnp.concatenate([x[..., i : i + 1] for i in ORDER], -1),
        "take_along_axis": lambda p, x: picked(x),
        "scatter": lambda p, x: jnp.zeros_like(x).at[..., INVERSE].set(x),
        "added": lambda p, x: jnp.zeros_like(x).at[..., INVERSE].add(x),
        "gathered rows": lambda p, x: jnp.moveaxis(jnp.moveaxis(x, -1, 0)[ORDER], 0, -1),
    },
    "shifted by one": {
        "pad and slice": lambda p, x: jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1],
        "concatenated": lambda p, x: jnp.concatenate([jnp.zeros_like(x[:, :1]), x[:, :-1]], 1),
        "roll and mask": lambda p, x: jnp.roll(x, 1, 1) * (np.arange(3) > 0)[:, None],
        "set": lambda p, x: jnp.zeros_like(x).at[:, 1:].set(x[:, :-1]),
        "roll and set": lambda p, x: jnp.roll(x, 1, 1).at[:, 0].set(0),
        "where": lambda p, x: jnp.where((np.arange(3) > 0)[:, None], jnp.roll(x, 1, 1), 0),
        "update slice": lambda p, x: lax.dynamic_update_slice(
            jnp.zeros_like(x), x[:, :-1], (0, 1, 0)
        ),
        "negative pad": lambda p, x: lax.pad(x, 0.0, ((0, 0, 0), (1, -1, 0), (0, 0, 0))),
        "scan": lambda p, x: jnp.swapaxes(
            lax.scan(lambda c, row: (row, c), jnp.zeros_like(x[:, 0]), jnp.swapaxes(x, 0, 1))[1],
            0, 1,
        ),
    },
    "rolled": {
        "roll": lambda p, x: jnp.roll(x, 1, -1),
        "concatenated": lambda p, x: jnp.concatenate([x[..., -1:], x[..., :-1]], -1),
        "index": lambda p, x: x[..., (np.arange(4) - 1) % 4],
        "tiled": lambda p, x: jnp.tile(x, 2)[..., 3:7],
        "split": lambda p, x: jnp.concatenate(jnp.split(x, [3], -1)[::-1], -1),
        "dynamic": lambda p, x: lax.dynamic_slice_in_dim(jnp.concatenate([x, x], -1), 3, 4, 2),
    },
    "the last position": {
        "index": lambda p, x: x[:, -1],
        "slice": lambda p, x: x[:, 2:].reshape(x.shape[0], -1),
        "take": lambda p, x: jnp.take(x, 2, axis=1),
        "one-hot sum": lambda p, x: (x * (np.arange(3) == 2)[:, None]).sum(1),
        "gathered": lambda p, x: jnp.take_along_axis(
            x, np.full((x.shape[0], 1, 1), 2), 1
        )[:, 0],
        "scan": lambda p, x: lax.scan(
            lambda c, row: (row, None), x[:, 0], jnp.swapaxes(x, 0, 1)
        )[0],
        "split": lambda p, x: jnp.split(x, 3, 1)[2][:, 0],
        "vmap": lambda p, x: jax.vmap(lambda z: z[-1])(x),
    },
    "dropped features": {
        "mask": lambda p, x: x * KEEP,
        "where": lambda p, x: jnp.where(KEEP, x, 0),
        "set": lambda p, x: x.at[..., 1].set(0),
        "multiplied": lambda p, x: x.at[..., 1].multiply(0),
        "concatenated": lambda p, x: jnp.concatenate(
            [x[..., :1], jnp.zeros_like(x[..., :1]), x[..., 2:]], -1
        ),
        "select": lambda p, x: lax.select(jnp.broadcast_to(KEEP, x.shape), x, jnp.zeros_like(x)),
        "minus": lambda p, x: x - jnp.where(KEEP, 0, x),
    },
    "interleaved": {
        "stack": lambda p, x: jnp.stack([x, x[..., ::-1]], -1).reshape(*x.shape[:2], 8),
        "repeat": lambda p, x: jnp.where(
            np.arange(8) % 2 == 0, jnp.repeat(x, 2, -1), jnp.repeat(x[..., ::-1], 2, -1)
        ),
        "set": lambda p, x: (
            jnp.zeros((*x.shape[:2], 8)).at[..., ::2].set(x).at[..., 1::2].set(x[..., ::-1])
        ),
        "index": lambda p, x: jnp.concatenate([x, x[..., ::-1]], -1)[
            ..., np.arange(8).reshape(2, 4).T.ravel()
        ],
        "pad": lambda p, x: (
            lax.pad(x, 0.0, ((0, 0, 0), (0, 0, 0), (0, 1, 1)))
            + lax.pad(x[..., ::-1], 0.0, ((0, 0, 0), (0, 0, 0), (1, 0, 1)))
        ),
    },
    "repeated": {
        "repeat": lambda p, x: jnp.repeat(x, 2, -1),
        "broadcast": lambda p, x: jnp.broadcast_to(x[..., None], (*x.shape, 2)).reshape(
            *x.shape[:2], 8
        ),
        "stack": lambda p, x: jnp.stack([x, x], -1).reshape(*x.shape[:2], 8),
        "index": lambda p, x: x[..., np.arange(8) // 2],
        "tile": lambda p, x: jnp.tile(x[..., None], 2).reshape(*x.shape[:2], 8),
        "times ones": lambda p, x: (x[..., None] * np.ones(2)).reshape(*x.shape[:2], 8),
    },
    "patches": {
        "reshape": lambda p, x: (
            x.reshape(2, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(2, 4, 4) @ p["w"]
        ),
        "einsum": lambda p, x: jnp.einsum(
            "bhiwj,ijo->bhwo", x.reshape(2, 2, 2, 2, 2), p["w"].reshape(2, 2, -1)
        ).reshape(2, 4, -1),
        "slices": lambda p, x: jnp.stack(
            [
                x[:, i : i + 2, j : j + 2].reshape(2, 4) @ p["w"]
                for i in (0, 2) for j in (0, 2)
            ],
            1,
        ),
        "convolution": lambda p, x: lax.conv_general_dilated(
            x[..., None], p["w"].reshape(2, 2, 1, -1), (2, 2), "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        ).reshape(2, 4, -1),
        "vmap": lambda p, x: jax.vmap(
            lambda z: z.reshape(2, 2, 2, 2).swapaxes(1, 2).reshape(4, 4) @ p["w"]
        )(x),
    },
    "rows of a table of values": {
        "index": lambda p, x: x[:, np.asarray([1, 1, 0])],
        "take": lambda p, x: jnp.take(x, np.asarray([1, 1, 0]), axis=1),
        "vmap": lambda p, x: jax.vmap(lambda z: z[np.asarray([1, 1, 0])])(x),
        "stack": lambda p, x: jnp.stack([x[:, 1], x[:, 1], x[:, 0]], 1),
        "dynamic": lambda p, x: jnp.concatenate(
            [lax.dynamic_slice_in_dim(x, i, 1, 1) for i in (1, 1, 0)], 1
        ),
        "map": lambda p, x: jnp.swapaxes(
            lax.map(lambda i: x[:, i], jnp.asarray([1, 1, 0])), 0, 1
        ),
    },
    "transposed network": {
        "rows": mlp,
        "columns": lambda p, x: jnp.moveaxis(
            p["v"].T @ jax.nn.relu(p["w"].T @ jnp.moveaxis(x, -1, 1) + p["b"][:, None]), 1, -1
        ),
        "vmap": lambda p, x: jax.vmap(lambda z: mlp(p, z))(x),
        "vmap of vectors": lambda p, x: jax.vmap(jax.vmap(lambda z: mlp(p, z)))(x),
        "flat": lambda p, x: mlp(p, x.reshape(-1, 4)).reshape(*x.shape[:2], -1),
        "positions first": lambda p, x: jnp.swapaxes(mlp(p, jnp.swapaxes(x, 0, 1)), 0, 1),
        "map": lambda p, x: lax.map(lambda z: mlp(p, z), x),
        "scan": lambda p, x: lax.scan(lambda c, z: (c, mlp(p, z)), 0, x)[1],
        "loop": lambda p, x: jnp.stack([mlp(p, z) for z in x]),
        "in the last place": lambda p, x: jax.vmap(lambda z: mlp(p, z), 1, 1)(x),
        "jit": lambda p, x: jax.jit(mlp)(p, x),
        "checkpoint": lambda p, x: jax.checkpoint(mlp)(p, x),
        "branch": lambda p, x: lax.cond(p["b"].sum() < 1e9, mlp, lambda p, x: -mlp(p, x), p, x),
    },
    "padded rows": {
        "mlp": mlp,
        "zero rows": lambda p, x: mlp(p, jnp.pad(x, ((0, 0), (0, 2), (0, 0))))[:, :3],
        "double rows": lambda p, x: mlp(p, jnp.concatenate([x, x], 1))[:, :3],
        "a row at a time": lambda p, x: jnp.concatenate(
            [mlp(p, x[:, i : i + 1]) for i in range(3)], 1
        ),
        "reversed twice": lambda p, x: mlp(p, x[:, ::-1])[:, ::-1],
        "more units": lambda p, x: (
            jax.nn.relu(
                jnp.concatenate([x @ p["w"] + p["b"], x @ p["w"]], -1)
            )[..., :5] @ p["v"]
        ),
    },
    "rotary positions": {
        "pairs": lambda p, x: rotated_pairs(x),
        "stack": lambda p, x: rotated_stack(x),
        "matrix": lambda p, x: jnp.einsum("btf,tfg->btg", x, ROTATIONS),
        "turned": lambda p, x: x * COS + turned(x) * SIN,
        "vmap": lambda p, x: jax.vmap(lambda z: z * COS + turned(z) * SIN)(x),
        "complex": lambda p, x: rotated_complex(x),
    },
}  # fmt: skip


def moved(spelled):  # type: ignore[no-untyped-def]
    f = next(iter(spelled.values()))
    return lambda p, h, gates: f(p, h)


MLP = {"w": (4, 5), "b": (5,), "v": (5, 4)}
PARAMS = {"patches": {"w": (4, 3)}, "transposed network": MLP, "padded rows": MLP}
SHAPES = {"patches": (2, 4, 4)}
SUMS_DIFFER = ("the last position", "dropped features", "interleaved", "rotary positions")
GROUPS = tuple(
    Group(
        name,
        spelled,
        PARAMS.get(name, {}),
        moved(spelled),
        shape=SHAPES.get(name, (2, 3, 4)),
        composites=EXACT if name in SUMS_DIFFER else ANY_KIND,
    )
    for name, spelled in MOVES.items()
)
