"""Values that are put together, by masks and updates, and taken apart again; factors that are one
in part."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .group import EXACT, Group, Params, function, signal

sigmoid, tanh = jax.nn.sigmoid, jnp.tanh
Gates = Callable[[Array], Array]
FIRST, MASK = np.arange(8) < 4, np.repeat([1.0, 0.0], 4)


def ends(z: Array, axis: int, low: int, high: int) -> list[tuple[int, int]]:
    return [(low, high) if i == axis % z.ndim else (0, 0) for i in range(z.ndim)]


# -- gates side by side ---------------------------------------------------------------------------

PACKED: dict[str, Gates] = {
    "concatenate": lambda z: jnp.concatenate([sigmoid(z[..., :4]), tanh(z[..., 4:])], -1),
    "where": lambda z: jnp.where(FIRST, sigmoid(z), tanh(z)),
    "where of arange": lambda z: jnp.where(jnp.arange(8) >= 4, tanh(z), sigmoid(z)),
    "set": lambda z: tanh(z).at[..., :4].set(sigmoid(z[..., :4])),
    "set by indices": lambda z: tanh(z).at[..., np.arange(4)].set(sigmoid(z[..., :4])),
    "set twice": lambda z: (
        jnp.zeros_like(z).at[..., :4].set(sigmoid(z[..., :4])).at[..., 4:].set(tanh(z[..., 4:]))
    ),
    "a mask": lambda z: MASK * sigmoid(z) + (1 - MASK) * tanh(z),
    "a mask of the difference": lambda z: tanh(z) + MASK * (sigmoid(z) - tanh(z)),
    "a mask of truth values": lambda z: (jnp.arange(8) < 4) * sigmoid(z) + ~FIRST * tanh(z),
    "cases added": lambda z: jnp.where(FIRST, sigmoid(z), 0) + jnp.where(FIRST, 0, tanh(z)),
    "pads added": lambda z: (
        jnp.pad(sigmoid(z[..., :4]), ends(z, -1, 0, 4))
        + jnp.pad(tanh(z[..., 4:]), ends(z, -1, 4, 0))
    ),
    "updated": lambda z: lax.dynamic_update_slice(tanh(z), sigmoid(z[..., :4]), (0,) * z.ndim),
}


def halves(gates: Gates) -> Callable[[Params, Array], Array]:
    def f(p: Params, h: Array) -> Array:
        y = gates(h @ p["w"])
        return y[..., :4] * y[..., 4:]

    return f


def rows(gates: Gates) -> Callable[[Params, Array], Array]:
    def f(p: Params, h: Array) -> Array:
        y = gates(h @ p["w"]).reshape(*h.shape[:-1], 2, 4)
        return y[..., 0, :] * y[..., 1, :]

    return f


def gated_by_hand(p: Params, h: Array, gates: bool) -> Array:
    z = h @ p["w"]
    return signal(function(sigmoid, z[..., :4]), function(tanh, z[..., 4:]), gates)


TAKEN_APART = {
    "apart": lambda p, h: sigmoid(h @ p["w"][:, :4]) * tanh(h @ p["w"][:, 4:]),
    **{name: halves(gates) for name, gates in PACKED.items()},
    "rows": rows(PACKED["concatenate"]),
    "rows of where": rows(PACKED["where"]),
    "turned": lambda p, h: halves(lambda z: jnp.roll(PACKED["where"](z), 4, -1))(p, h),
    "in a map": lambda p, h: lax.map(lambda row: halves(PACKED["where"])(p, row), h),
    "in a branch": lambda p, h: lax.cond(
        p["w"][0, 0] < 1e9, halves(PACKED["where"]), halves(jnp.sin), p, h
    ),
    "scaled": lambda p, h: halves(lambda z: 2 * PACKED["where"](z))(p, h) / 4,
}


def cell(gates: Gates, loop: bool) -> Callable[[Params, Array], Array]:
    """An LSTM with the inner and outer gates side by side; the state forgets nothing."""

    def step(c: Array, x: Array) -> tuple[Array, Array]:
        y = gates(x)
        c = c + y[..., :4] * y[..., 4:]
        return c, c

    def f(p: Params, h: Array) -> Array:
        def turn(state, x):  # type: ignore[no-untyped-def]
            c, y = state
            c, _ = step(c, x @ p["w"] + y @ p["u"])
            y = tanh(c)
            return (c, y), y

        start = (jnp.zeros((h.shape[0], 4)),) * 2
        if not loop:
            return lax.scan(turn, start, jnp.swapaxes(h, 0, 1))[0][1]
        for t in range(h.shape[1]):
            start, _ = turn(start, h[:, t])
        return start[1]

    return f


CELLS = {
    f"{name}, {how}": cell(PACKED[name], how == "loop")
    for name in ("concatenate", "where", "set", "a mask", "updated")
    for how in ("loop", "scan")
}

SEVEN = np.arange(7) < 3


def attended(packed: Gates) -> Callable[[Params, Array], Array]:
    def f(p: Params, h: Array) -> Array:
        y = packed(h @ p["w"])
        return y[..., :3] @ y[..., 3:]

    return f


def among_three(z: Array) -> Array:
    return jax.nn.softmax(jnp.where(SEVEN, z, -jnp.inf), -1)


ATTENTION = {
    "apart": lambda p, h: jax.nn.softmax(h @ p["w"][:, :3], -1) @ (h @ p["w"][:, 3:]),
    "where": attended(lambda z: jnp.where(SEVEN, among_three(z), z)),
    "set": attended(lambda z: z.at[..., :3].set(jax.nn.softmax(z[..., :3], -1))),
    "updated": attended(
        lambda z: lax.dynamic_update_slice(z, jax.nn.softmax(z[..., :3], -1), (0, 0, 0))
    ),
    "a mask": attended(lambda z: SEVEN * among_three(z) + ~SEVEN * z),
}

# -- factors that are one in part -----------------------------------------------------------------

LATER = np.arange(3)[:, None] > 0
IN_PART: dict[str, Callable[[Array, Array], Array]] = {
    "part by part": lambda a, c: jnp.concatenate([a[:, :1], a[:, 1:] * c[:, 1:]], 1),
    "ones beside it": lambda a, c: a * jnp.concatenate([jnp.ones_like(a[:, :1]), c[:, 1:]], 1),
    "padded": lambda a, c: a * jnp.pad(c[:, 1:], ends(c, 1, 1, 0), constant_values=1),
    "set in ones": lambda a, c: a * jnp.ones_like(a).at[:, 1:].set(c[:, 1:]),
    "one set": lambda a, c: c.at[:, 0].set(1.0) * a,
    "the product set": lambda a, c: a.at[:, 1:].set(a[:, 1:] * c[:, 1:]),
    "where it is a product": lambda a, c: jnp.where(LATER, a * c, a),
    "where": lambda a, c: a * jnp.where(LATER, c, 1),
    "a mask": lambda a, c: a * (LATER * c + (1 - LATER)),
    "updated": lambda a, c: a * lax.dynamic_update_slice(jnp.ones_like(a), c[:, 1:], (0, 1, 0)),
    "divided": lambda a, c: a / jnp.concatenate([jnp.ones_like(a[:, :1]), 1 / c[:, 1:]], 1),
    "stacked": lambda a, c: a * jnp.stack([jnp.ones_like(a[:, 0]), c[:, 1], c[:, 2]], 1),
    "product of a stack": lambda a, c: jnp.stack([a, jnp.where(LATER, c, 1)]).prod(0),
}
SOMEWHERE = np.asarray([[1, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 1]]) > 0
BY_ANY_MASK: dict[str, Callable[[Array, Array, Array], Array]] = {
    "the product": lambda a, c, m: jnp.where(m, a * c, a),
    "the factor": lambda a, c, m: a * jnp.where(m, c, 1),
    "the factor first": lambda a, c, m: jnp.where(m, c, 1) * a,
    "the other case": lambda a, c, m: jnp.where(~m, 1, c) * a,
}


def of_two(spelled):  # type: ignore[no-untyped-def]
    return {name: (lambda p, h, f=f: f(h @ p["a"], h @ p["b"])) for name, f in spelled.items()}


def of_three(spelled):  # type: ignore[no-untyped-def]
    return {
        name: (lambda p, h, f=f: f(h @ p["a"], h @ p["b"]) * (h @ p["c"]))
        for name, f in spelled.items()
    }


def by_mask(spelled, mask):  # type: ignore[no-untyped-def]
    return {
        name: (lambda p, h, f=f: f(h @ p["a"], sigmoid(h @ p["b"]), mask(p)))
        for name, f in spelled.items()
    }


def in_part_by_hand(p: Params, h: Array, gates: bool) -> Array:
    a, c = h @ p["a"], h @ p["b"]
    return jnp.concatenate([a[:, :1], signal(c, a, False)[:, 1:]], 1)


# -- products of what came before -----------------------------------------------------------------


def ones(a: Array) -> Array:
    return jnp.ones_like(a[:, :1])


TRANSMITTANCE: dict[str, Gates] = {
    "ones beside the product": lambda a: jnp.concatenate(
        [ones(a), jnp.cumprod(1 - a, 1)[:, :-1]], 1
    ),
    "product of ones beside": lambda a: jnp.cumprod(jnp.concatenate([ones(a), 1 - a], 1), 1)[
        :, :-1
    ],
    "cut before": lambda a: jnp.cumprod(jnp.concatenate([ones(a), 1 - a[:, :-1]], 1), 1),
    "padded before": lambda a: jnp.cumprod(
        jnp.pad(1 - a[:, :-1], ends(a, 1, 1, 0), constant_values=1), 1
    ),
    "padded after": lambda a: jnp.pad(
        jnp.cumprod(1 - a[:, :-1], 1), ends(a, 1, 1, 0), constant_values=1
    ),
    "turned and set": lambda a: jnp.cumprod(jnp.roll(1 - a, 1, 1).at[:, 0].set(1.0), 1),
}
FEW: dict[str, Gates] = {
    **TRANSMITTANCE,
    "from the other end": lambda a: jnp.flip(
        lax.cumprod(
            jnp.flip(jnp.concatenate([ones(a), 1 - a[:, :-1]], 1), 1), axis=1, reverse=True
        ),
        1,
    ),
    "a loop": lambda a: jnp.stack(
        [jnp.ones_like(a[:, 0]), 1 - a[:, 0], (1 - a[:, 0]) * (1 - a[:, 1])], 1
    ),
    "associative": lambda a: lax.associative_scan(
        jnp.multiply, jnp.concatenate([ones(a), 1 - a], 1), axis=1
    )[:, :-1],
}


def rendered(spelled):  # type: ignore[no-untyped-def]
    def f(through: Gates, p: Params, h: Array) -> Array:
        a, colour = sigmoid(h @ p["a"]), h @ p["b"]
        return (a * through(a) * colour).sum(1)

    return {name: (lambda p, h, g=g: f(g, p, h)) for name, g in spelled.items()}


def one_after(z: Array) -> Array:
    return jnp.pad(z, ends(z, -1, 0, 1), constant_values=1)


def one_before(z: Array) -> Array:
    return jnp.pad(z, ends(z, -1, 1, 0), constant_values=1)


def broken(v: Array) -> Array:
    """Number by number."""
    left, made = jnp.ones_like(v[..., 0]), []
    for i in range(v.shape[-1]):
        made.append(v[..., i] * left if i else v[..., i])
        left = left * (1 - v[..., i]) if i else 1 - v[..., i]
    return jnp.stack([*made, left], -1)


STICKS: dict[str, Gates] = {
    "concatenate": lambda v: (
        jnp.concatenate([v, jnp.ones_like(v[..., :1])], -1)
        * jnp.concatenate([jnp.ones_like(v[..., :1]), jnp.cumprod(1 - v, -1)], -1)
    ),
    "pads": lambda v: one_after(v) * one_before(jnp.cumprod(1 - v, -1)),
    "product of a pad": lambda v: one_after(v) * jnp.cumprod(one_before(1 - v), -1),
    "number by number": broken,
}
MASKED = {
    "the others": lambda p, h: jnp.prod((h @ p["a"])[:, 1:], 1),
    "where": lambda p, h: jnp.prod(jnp.where(LATER, h @ p["a"], 1), 1),
    "where=": lambda p, h: jnp.prod(h @ p["a"], 1, where=np.broadcast_to(LATER, (3, 4))),
    "padded": lambda p, h: jnp.prod(
        jnp.pad((h @ p["a"])[:, 1:], ends(h, 1, 1, 0), constant_values=1), 1
    ),
    "set": lambda p, h: jnp.prod((h @ p["a"]).at[:, 0].set(1.0), 1),
}

# -- weights that are mixed -----------------------------------------------------------------------


MIXED_BY: dict[str, Gates] = {
    "softmax": jax.nn.softmax, "sigmoid": sigmoid, "relu": jax.nn.relu
}  # fmt: skip


def mixture(act: Gates, spelled: Callable[[Array, Array, Array], Array]):  # type: ignore[no-untyped-def]
    return lambda p, h: spelled(act(h.mean(1) @ p["router"]), h, p["experts"])


MIXTURES: dict[str, Callable[[Array, Array, Array], Array]] = {
    "outputs": lambda r, h, w: sum(r[:, i, None, None] * (h @ w[i]) for i in range(3)),  # type: ignore
    "outputs by einsum": lambda r, h, w: jnp.einsum(
        "be,bteg->btg", r, jnp.einsum("btf,efg->bteg", h, w)
    ),
    "weights": lambda r, h, w: h @ jnp.tensordot(r, w, 1),
    "weights summed": lambda r, h, w: h @ (r[:, :, None, None] * w).sum(1),
    "weights made by a layer": lambda r, h, w: h @ (r @ w.reshape(3, 16)).reshape(-1, 4, 4),
    "weights one by one": lambda r, h, w: jax.vmap(
        lambda own, x: x @ jnp.einsum("e,efg->fg", own, w)
    )(r, h),
    "at once": lambda r, h, w: jnp.einsum("be,btf,efg->btg", r, h, w),
}


def along(x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    )


CONVOLUTIONS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "outputs": lambda r, h, w: sum(r[:, i, None, None] * along(h, w[i]) for i in range(3)),  # type: ignore
    "outputs by einsum": lambda r, h, w: jnp.einsum(
        "be,ebtf->btf", r, jnp.stack([along(h, own) for own in w])
    ),
    "weights": lambda r, h, w: jax.vmap(lambda x, own: along(x[None], own)[0])(
        h, jnp.tensordot(r, w, 1)
    ),
    "one by one": lambda r, h, w: jnp.concatenate(
        [along(h[i : i + 1], jnp.tensordot(r, w, 1)[i]) for i in range(2)]
    ),
}

THREE = {"a": (4, 4), "b": (4, 4), "c": (4, 4)}
GROUPS = (
    Group("packed gates", TAKEN_APART, {"w": (4, 8)}, gated_by_hand, EXACT),
    Group("a cell with packed gates", CELLS, {"w": (4, 8), "u": (4, 8)}, None, EXACT),
    Group("packed attention", ATTENTION, {"w": (4, 7)}, None, EXACT),
    Group("a factor that is one in part", of_two(IN_PART), THREE, in_part_by_hand, EXACT),
    Group("three factors, one in part", of_three(IN_PART), THREE, None, EXACT),
    Group("a gate that is one somewhere", by_mask(BY_ANY_MASK, lambda p: SOMEWHERE), THREE, None,
          EXACT),
    Group(
        "a gate that is one where an argument says so",
        by_mask(BY_ANY_MASK, lambda p: p["m"] > 0), {**THREE, "m": (3, 4)}, None, EXACT,
    ),
    Group("transmittance", rendered(FEW), THREE, None, EXACT),
    Group(
        "transmittance along a long ray", rendered(TRANSMITTANCE), THREE, None, EXACT, (2, 40, 4)
    ),
    Group(
        "broken sticks",
        {name: (lambda p, h, f=f: f(sigmoid(h @ p["a"]))) for name, f in STICKS.items()},
        THREE, None, EXACT,
    ),
    Group("products without what is masked", MASKED, THREE, None, EXACT),
    *(
        Group(
            f"weights mixed by a {name}",
            {how: mixture(act, f) for how, f in MIXTURES.items()},
            {"router": (4, 3), "experts": (3, 4, 4)}, None, EXACT,
        )
        for name, act in MIXED_BY.items()
    ),
    Group(
        "kernels mixed by a sigmoid",
        {how: mixture(sigmoid, f) for how, f in CONVOLUTIONS.items()},
        {"router": (4, 3), "experts": (3, 3, 4, 4)}, None, EXACT,
    ),
)  # fmt: skip
