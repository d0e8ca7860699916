"""What is added: to logits as a mask, in place, to one part alone; and what a sum merges again."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .group import EVERY, EXACT, Group, Params, Piece

AT = np.arange(3)
LABELS = np.asarray([1, 3, 0])


def mask(p: Params) -> Array:
    """Of zeros and ones, an argument as in published code."""
    return (jnp.arange(4) != 2) * p["mask"] / p["mask"]


def masked(add) -> dict[str, Piece]:  # type: ignore[no-untyped-def]
    """Attention over features with numbers added to its logits, in words and written out."""

    def logits(p: Params, h: Array) -> Array:
        return add(h @ p["w"], mask(p))

    def quotient(z: Array) -> Array:
        e = jnp.exp(z - z.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    def after(p: Params, h: Array) -> Array:
        z = logits(p, h)
        e = jnp.exp(z - jax.lax.stop_gradient(z.max(-1, keepdims=True)))
        return (h * e).sum(-1, keepdims=True) / e.sum(-1, keepdims=True)

    def mean(weights) -> Piece:  # type: ignore[no-untyped-def]
        return lambda p, h: (h * weights(logits(p, h))).sum(-1, keepdims=True)

    return {
        "softmax": mean(jax.nn.softmax),
        "exp of log_softmax": mean(lambda z: jnp.exp(jax.nn.log_softmax(z))),
        "quotient": mean(quotient),
        "normalised after": after,
        "less its log-sum-exp": mean(
            lambda z: jnp.exp(z - jax.nn.logsumexp(z, axis=-1, keepdims=True))
        ),
    }


MASKS = {
    "less a billion": lambda z, m: z - 1e9 * (1 - m),
    "the least number": lambda z, m: z + (1 - m) * -1e30,
    "scaled": lambda z, m: z * m + (m - 1) * 1e30,
}

IN_PLACE = {
    "a bias": lambda p, h: jnp.tanh(h @ p["w"] + p["b"]),
    "added": lambda p, h: jnp.tanh((h @ p["w"]).at[:].add(p["b"])),
    "added by indices": lambda p, h: jnp.tanh((h @ p["w"]).at[:, AT].add(p["b"])),
    "added to it": lambda p, h: jnp.tanh(jnp.broadcast_to(p["b"], h.shape).at[:].add(h @ p["w"])),
    "added to zeros": lambda p, h: jnp.tanh(jnp.zeros_like(h).at[:].add(h @ p["w"]) + p["b"]),
    "part by part": lambda p, h: jnp.tanh(
        (h @ p["w"]).at[..., :2].add(p["b"][:2]).at[..., 2:].add(p["b"][2:])
    ),
}

SOME_ROWS = {
    "zeros": lambda p, h: jnp.tanh(h @ p["w"] + jnp.concatenate([p["c"], jnp.zeros((1, 4))])),
    "added": lambda p, h: jnp.tanh((h @ p["w"]).at[:, :2].add(p["c"])),
    "side by side": lambda p, h: jnp.tanh(
        jnp.concatenate([(h @ p["w"])[:, :2] + p["c"], (h @ p["w"])[:, 2:]], 1)
    ),
    "set": lambda p, h: jnp.tanh((h @ p["w"]).at[:, :2].set((h @ p["w"])[:, :2] + p["c"])),
}


def one_part(f) -> dict[str, Piece]:  # type: ignore[no-untyped-def]
    def packed(p: Params, h: Array) -> Array:
        z = h @ p["w"]
        return f(z[..., :2], z[..., 2:], p["b"])

    def split(p: Params, h: Array) -> Array:
        z = jnp.split(h @ p["w"], 2, axis=-1)
        return f(*z, p["b"])

    return {
        "two layers": lambda p, h: f(h @ p["w"][:, :2], h @ p["w"][:, 2:], p["b"]),
        "one layer": packed,
        "split": split,
    }


ONE_PART = {
    "a bias of one part": lambda a, b, c: jnp.tanh(a + c) * b,
    "one added to a gate": lambda a, b, _: jax.nn.sigmoid(a + 1) * jnp.tanh(b),
    "one added to a scale": lambda a, b, _: (1 + a) * jax.nn.relu(b),
    "one less a part": lambda a, b, _: (1 - a) * jnp.tanh(b),
}


def picked(pick, z: Array) -> Array:  # type: ignore[no-untyped-def]
    return jnp.log(jax.vmap(pick)(jax.nn.softmax(z)))


PICKED = {
    "log_softmax": lambda p, h: jax.nn.log_softmax(h @ p["w"])[:, AT, LABELS],
    "indices": lambda p, h: jnp.log(jax.nn.softmax(h @ p["w"])[:, AT, LABELS]),
    "take_along_axis": lambda p, h: jnp.log(
        jnp.take_along_axis(jax.nn.softmax(h @ p["w"]), LABELS[None, :, None], 2)[..., 0]
    ),
    "vmap": lambda p, h: picked(lambda rows: jax.vmap(lambda r, i: r[i])(rows, LABELS), h @ p["w"]),
    "flat": lambda p, h: picked(lambda rows: rows.ravel()[AT * 4 + LABELS], h @ p["w"]),
    "one by one": lambda p, h: jnp.stack(
        [jnp.log(jax.nn.softmax(h[:, i] @ p["w"])[:, LABELS[i]]) for i in range(3)], 1
    ),
}


def merged(merge) -> Piece:  # type: ignore[no-untyped-def]
    """Attention over features in two blocks, each with its own softmax."""

    def apply(p: Params, h: Array) -> Array:
        z = (h @ p["w"]).reshape(*h.shape[:-1], 2, 2)
        v = h.reshape(z.shape)
        return merge(jax.nn.logsumexp(z, axis=-1), (jax.nn.softmax(z) * v).sum(-1))[..., None]

    return apply


BLOCKS = {
    "whole": lambda p, h: (jax.nn.softmax(h @ p["w"]) * h).sum(-1, keepdims=True),
    "sum": merged(lambda n, y: (jax.nn.softmax(n) * y).sum(-1)),
    "einsum": merged(lambda n, y: jnp.einsum("btk,btk->bt", jax.nn.softmax(n), y)),
    "matmul": merged(lambda n, y: (jax.nn.softmax(n)[:, :, None] @ y[..., None])[..., 0, 0]),
}


def updated(update) -> Piece:  # type: ignore[no-untyped-def]
    """A gated unit whose state begins as a number."""
    return lambda p, h: update(jax.nn.sigmoid(h @ p["w"]), jnp.tanh(h @ p["u"]))


def begun(start: float) -> dict[str, Piece]:
    return {
        "as it is": updated(lambda z, n: (1 - z) * n + z * start),
        "less": updated(lambda z, n: n - z * n + z * start),
        "last": updated(lambda z, n: z * start + n - z * n),
    }


GROUPS = (
    *(
        Group(
            f"a mask that is added, {name}", masked(add), {"w": (4, 4), "mask": (4,)}, None, EXACT
        )
        for name, add in MASKS.items()
    ),
    Group("a bias that is added in place", IN_PLACE, {"w": (4, 4), "b": (4,)}, None, EVERY),
    Group("a bias of some rows", SOME_ROWS, {"w": (4, 4), "c": (2, 4)}, None, EVERY),
    *(
        Group(name, one_part(f), {"w": (4, 4), "b": (2,)}, None, EVERY)
        for name, f in ONE_PART.items()
    ),
    Group("logarithms of picked probabilities", PICKED, {"w": (4, 4)}, None, EXACT),
    Group("blocks that a softmax merges", BLOCKS, {"w": (4, 4)}, None, EXACT),
    *(
        Group(f"a state that begins as {n}", begun(n), {"w": (4, 4), "u": (4, 4)}, None, EXACT)
        for n in (0.0, 0.3)
    ),
)
