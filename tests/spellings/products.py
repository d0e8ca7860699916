"""Products, quotients and powers of explained values: 1/N of the relevance to each of N factors."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from .group import BY_SIGN, EXACT, SUMS, Group, Params, function, halves, hold, shares


def two(p: Params, h: Array) -> tuple[Array, Array]:
    return h @ p["a"], h @ p["b"]


def three(p: Params, h: Array) -> tuple[Array, Array, Array]:
    return h @ p["a"], h @ p["b"], h @ p["c"]


def on_two(f):  # type: ignore[no-untyped-def]
    return lambda p, h: f(*two(p, h))


def on_three(f):  # type: ignore[no-untyped-def]
    return lambda p, h: f(*three(p, h))


def silu(u: Array) -> Array:
    return u * jax.nn.sigmoid(u)


def spelled(how, functions):  # type: ignore[no-untyped-def]
    return {name: how(f) for name, f in functions.items()}


TWO = {
    "a b": lambda a, b: a * b,
    "b a": lambda a, b: b * a,
    "einsum": lambda a, b: jnp.einsum("btf,btf->btf", a, b),
    "divided by 1/b": lambda a, b: a / (1 / b),
    "two minus signs": lambda a, b: -(-a * b),
    "halved and doubled": lambda a, b: (2 * a) * (b / 2),
    "prod": lambda a, b: jnp.stack([a, b]).prod(0),
    "vmap": lambda a, b: jax.vmap(jnp.multiply)(a, b),
    "diagonal of an outer product": lambda a, b: jnp.diagonal(
        a[..., :, None] * b[..., None, :], axis1=-2, axis2=-1
    ),
    "matmul of one": lambda a, b: (a[..., None, None] @ b[..., None, None])[..., 0, 0],
    "map": lambda a, b: lax.map(lambda z: z[0] * z[1], (a, b)),
    "reduce": lambda a, b: lax.fori_loop(0, 1, lambda i, y: y * b, a),
}

THREE = {
    "(a b) c": lambda a, b, c: (a * b) * c,
    "a (b c)": lambda a, b, c: a * (b * c),
    "(a c) b": lambda a, b, c: (a * c) * b,
    "einsum": lambda a, b, c: jnp.einsum("btf,btf,btf->btf", a, b, c),
    "prod": lambda a, b, c: jnp.stack([a, b, c]).prod(0),
    "quotient": lambda a, b, c: (a * b) / (1 / c),
    "divided by a quotient": lambda a, b, c: a / ((1 / b) / c),
    "scaled": lambda a, b, c: (0.5 * a * b) * (c * 2),
    "scan": lambda a, b, c: lax.scan(
        lambda y, z: (y * z, None), jnp.ones_like(a), jnp.stack([a, b, c])
    )[0],
    "checkpoint": lambda a, b, c: jax.checkpoint(jnp.multiply)(a, b) * c,
}

SILU_LAST = {
    "silu": lambda u, w: jax.nn.silu(u) * w,
    "(u w) sigmoid": lambda u, w: (u * w) * jax.nn.sigmoid(u),
    "u (w sigmoid)": lambda u, w: u * (w * jax.nn.sigmoid(u)),
    "divided": lambda u, w: u * w / (1 + jnp.exp(-u)),
    "u divided": lambda u, w: w * (u / (1 + jnp.exp(-u))),
    "tanh": lambda u, w: (u * w) * (0.5 * (1 + jnp.tanh(u / 2))),
    "einsum": lambda u, w: jnp.einsum("btf,btf,btf->btf", u, jax.nn.sigmoid(u), w),
    "negated": lambda u, w: -(u * -w) * jax.nn.sigmoid(u),
    "sigmoid outside": lambda u, w: jax.nn.sigmoid(u) * jax.checkpoint(jnp.multiply)(u, w),
}

QUOTIENT = {
    "a / b": lambda a, b: a / b,
    "times the reciprocal": lambda a, b: a * (1 / b),
    "power": lambda a, b: a * b**-1.0,
    "reciprocal": lambda a, b: a * jnp.reciprocal(b),
    "scaled": lambda a, b: 2 * a / (b * 2),
    "negated": lambda a, b: -(a / -b),
    "squares": lambda a, b: a * b / (b * b),
    "of the inverse": lambda a, b: 1 / (b / a),
    "integer power": lambda a, b: a * lax.integer_pow(b, -1),
}

POSITIVE = {
    "a b": lambda a, b: a * b,
    "exp of logs": lambda a, b: jnp.exp(jnp.log(a) + jnp.log(b)),
    "root of squares": lambda a, b: jnp.sqrt(a * a * b * b),
    "squares and root": lambda a, b: jnp.sqrt(a**2 * b**2),
    "powers": lambda a, b: (jnp.sqrt(a) * jnp.sqrt(b)) ** 2,
    "quotient": lambda a, b: a**2 * b / a,
    "exp of a difference": lambda a, b: jnp.exp(jnp.log(a) - jnp.log(1 / b)),
}

SQUARES = {
    "u u": lambda u: u * u,
    "power": lambda u: u**2,
    "square": jnp.square,
    "einsum": lambda u: jnp.einsum("btf,btf->btf", u, u),
    "absolute": lambda u: jnp.abs(u) * jnp.abs(u),
    "float power": lambda u: jnp.abs(u) ** 2.0,
    "negated": lambda u: -u * -u,
    "cube over u": lambda u: u**3 / u,
    "prod": lambda u: jnp.stack([u, u]).prod(0),
    "scaled": lambda u: (2 * u) * (u / 2),
    "a checkpoint's": lambda u: jax.checkpoint(jnp.negative)(u) * -u,
}

FIFTH = {
    "power": lambda u: u**5,
    "products": lambda u: u * u * u * u * u,
    "nested": lambda u: (u * (u * u)) * (u * u),
    "squares": lambda u: jnp.square(jnp.square(u)) * u,
    "loop": lambda u: lax.fori_loop(0, 4, lambda i, y: y * u, u),
    "python loop": lambda u: u**2 * u**3,
    "quotient": lambda u: u**7 / u**2,
}

WITH_POWERS = {
    "a b^2": lambda a, b: a * b**2,
    "(a b) b": lambda a, b: (a * b) * b,
    "a (b b)": lambda a, b: a * (b * b),
    "b a b": lambda a, b: b * a * b,
    "einsum": lambda a, b: jnp.einsum("btf,btf,btf->btf", b, a, b),
    "quotient": lambda a, b: a * b**3 / b,
    "prod": lambda a, b: jnp.stack([b, a, b]).prod(0),
}

MATMUL = {
    "matmul": lambda a, b: a @ jnp.swapaxes(b, 1, 2),
    "einsum": lambda a, b: jnp.einsum("bif,bjf->bij", a, b),
    "other way": lambda a, b: jnp.swapaxes(b @ jnp.swapaxes(a, 1, 2), 1, 2),
    "multiplied and summed": lambda a, b: (a[:, :, None] * b[:, None]).sum(-1),
    "vmap": lambda a, b: jax.vmap(lambda a, b: a @ b.T)(a, b),
    "vdot": lambda a, b: jax.vmap(
        jax.vmap(jax.vmap(jnp.vdot, (None, 0)), (0, None))
    )(a, b),
    "tensordot": lambda a, b: jax.vmap(lambda a, b: jnp.tensordot(a, b, ((1,), (1,))))(a, b),
    "scaled": lambda a, b: (a / 2) @ jnp.swapaxes(2 * b, 1, 2),
    "each feature": lambda a, b: sum(
        a[:, :, None, i] * b[:, None, :, i] for i in range(a.shape[-1])
    ),
    "split": lambda a, b: (
        a[..., :2] @ jnp.swapaxes(b[..., :2], 1, 2) + a[..., 2:] @ jnp.swapaxes(b[..., 2:], 1, 2)
    ),
    "map": lambda a, b: lax.map(lambda z: z[0] @ z[1].T, (a, b)),
    "scaled after": lambda a, b: jnp.einsum("bif,bjf->bij", a, b * 4) * 0.25,
}  # fmt: skip

OUTER = {
    "broadcast": lambda a, b: a[..., :, None] * b[..., None, :],
    "einsum": lambda a, b: jnp.einsum("bti,btj->btij", a, b),
    "matmul": lambda a, b: a[..., :, None] @ b[..., None, :],
    "vmap of outer": lambda a, b: jax.vmap(jax.vmap(jnp.outer))(a, b),
    "transposed": lambda a, b: jnp.swapaxes(b[..., :, None] * a[..., None, :], -1, -2),
    "rows": lambda a, b: jnp.stack([a[..., i : i + 1] * b for i in range(a.shape[-1])], -2),
}

GRAM = {
    "einsum": lambda u: jnp.einsum("bif,bjf->bij", u, u),
    "matmul": lambda u: u @ jnp.swapaxes(u, 1, 2),
    "vmap": lambda u: jax.vmap(lambda v: v @ v.T)(u),
    "multiplied and summed": lambda u: (u[:, :, None] * u[:, None]).sum(-1),
    "transposed": lambda u: jnp.swapaxes(jnp.einsum("bif,bjf->bij", u, u), 1, 2),
    "scaled": lambda u: (2 * u) @ jnp.swapaxes(u / 2, 1, 2),
}

# A chain of matrices is what its brackets say: products of two products of two.
FROM_THE_LEFT = {
    "(a b) c": lambda a, b, c: (a @ jnp.swapaxes(b, 1, 2)) @ c,
    "vmap": lambda a, b, c: jax.vmap(lambda a, b, c: a @ b.T @ c)(a, b, c),
    "scaled": lambda a, b, c: ((2 * a) @ jnp.swapaxes(b, 1, 2)) @ (c / 2),
    "einsum in its order": lambda a, b, c: jnp.einsum(
        "bif,bjf,bjg->big", a, b, c, optimize=[(0, 1), (0, 1)]
    ),
    "dot_general": lambda a, b, c: lax.dot_general(
        lax.dot_general(a, b, (((2,), (2,)), ((0,), (0,)))), c, (((2,), (1,)), ((0,), (0,)))
    ),
    "transposed": lambda a, b, c: jnp.swapaxes(
        jnp.swapaxes(c, 1, 2) @ (b @ jnp.swapaxes(a, 1, 2)), 1, 2
    ),
    "in a jit": lambda a, b, c: jax.jit(jnp.matmul)(a @ jnp.swapaxes(b, 1, 2), c),
    "checkpoint": lambda a, b, c: jax.checkpoint(lambda a, b: a @ jnp.swapaxes(b, 1, 2))(a, b) @ c,
}
FROM_THE_RIGHT = {
    "a (b c)": lambda a, b, c: a @ (jnp.swapaxes(b, 1, 2) @ c),
    "vmap": lambda a, b, c: jax.vmap(lambda a, b, c: a @ (b.T @ c))(a, b, c),
    "scaled": lambda a, b, c: (2 * a) @ (jnp.swapaxes(b, 1, 2) @ (c / 2)),
    "einsum in its order": lambda a, b, c: jnp.einsum(
        "bif,bjf,bjg->big", a, b, c, optimize=[(1, 2), (0, 1)]
    ),
    "dot_general": lambda a, b, c: lax.dot_general(
        a, lax.dot_general(b, c, (((1,), (1,)), ((0,), (0,)))), (((2,), (1,)), ((0,), (0,)))
    ),
    "transposed": lambda a, b, c: jnp.swapaxes(
        (jnp.swapaxes(c, 1, 2) @ b) @ jnp.swapaxes(a, 1, 2), 1, 2
    ),
    "in a jit": lambda a, b, c: jax.jit(jnp.matmul)(a, jnp.swapaxes(b, 1, 2) @ c),
    "multiplied and summed": lambda a, b, c: a @ (b[..., None] * c[:, :, None]).sum(1),
}


def chain_by_hand(*shares: float) -> Callable[[Params, Array, bool], Array]:
    def by_hand(p: Params, h: Array, gates: bool) -> Array:
        factors = three(p, h)
        parts = [
            share * jnp.einsum(
                "bif,bjf,bjg->big", *(v if j == i else hold(v) for j, v in enumerate(factors))
            )
            for i, share in enumerate(shares)
        ]  # fmt: skip
        return sum(parts[1:], parts[0])

    return by_hand


FORM = {
    "einsum": lambda p, h: jnp.einsum("bti,ij,btj->bt", *forms(p, h)),
    "weights with the first": lambda p, h: ((forms(p, h)[0] @ p["form"]) * forms(p, h)[2]).sum(-1),
    "weights with the second": lambda p, h: (forms(p, h)[0] * (forms(p, h)[2] @ p["form"].T)).sum(
        -1
    ),
    "outer product": lambda p, h: (
        (forms(p, h)[0][..., None] * forms(p, h)[2][..., None, :]) * p["form"]
    ).sum((-1, -2)),
    "outer product, dense": lambda p, h: (
        (forms(p, h)[0][..., None] * forms(p, h)[2][..., None, :]).reshape(*h.shape[:2], -1)
        @ p["form"].reshape(-1)
    ),
}


def forms(p: Params, h: Array) -> tuple[Array, Array, Array]:
    a, b = two(p, h)
    return a, p["form"], b


def form_by_hand(p: Params, h: Array, gates: bool) -> Array:
    return halves(lambda a, b: jnp.einsum("bti,ij,btj->bt", a, p["form"], b), *two(p, h))


BROADCAST = {
    "summed after": lambda a, b: (a * b[:, :1]).sum(1),
    "summed before": lambda a, b: a.sum(1) * b[:, 0],
    "einsum": lambda a, b: jnp.einsum("btf,bf->bf", a, b[:, 0]),
    "mean times n": lambda a, b: (a.mean(1) * b[:, 0]) * 3,
    "vmap": lambda a, b: jax.vmap(lambda a, b: (a * b[0]).sum(0))(a, b),
}

RATIO = {
    "a b / (c)": lambda a, b, c: a * b / c,
    "a (b / c)": lambda a, b, c: a * (b / c),
    "(a / c) b": lambda a, b, c: (a / c) * b,
    "a / (c / b)": lambda a, b, c: a / (c / b),
    "reciprocal": lambda a, b, c: (1 / c) * a * b,
    "einsum": lambda a, b, c: jnp.einsum("btf,btf,btf->btf", a, b, 1 / c),
}

FACTORS, MORE = {"a": (4, 4), "b": (4, 4)}, {"a": (4, 4), "b": (4, 4), "c": (4, 4)}


def reciprocal(b: Array) -> Array:
    return function(lambda v: 1 / v, b)


def square(b: Array) -> Array:
    return function(jnp.square, b)


GROUPS = (
    Group("two factors", spelled(on_two, TWO), FACTORS,
          lambda p, h, gates: shares(*two(p, h)), SUMS),
    Group("three factors", spelled(on_three, THREE), MORE,
          lambda p, h, gates: shares(*three(p, h)), EXACT),
    Group("two factors of one root and another", spelled(on_two, SILU_LAST), FACTORS,
          lambda p, h, gates: (
              hold(silu(two(p, h)[0])) * two(p, h)[1] if gates
              else shares(function(silu, two(p, h)[0]), two(p, h)[1])
          ), EXACT),
    Group("a quotient", spelled(on_two, QUOTIENT), FACTORS,
          lambda p, h, gates: (
              None if gates else shares(two(p, h)[0], reciprocal(two(p, h)[1]))
          ),
          EXACT),
    Group("a quotient of three", spelled(on_three, RATIO), MORE,
          lambda p, h, gates: (
              None if gates else shares(*three(p, h)[:2], reciprocal(three(p, h)[2]))
          ),
          EXACT),
    Group("a product of positive numbers",
          {name: (lambda p, h, f=f: f(h, jnp.flip(h, 1))) for name, f in POSITIVE.items()}, {},
          lambda p, h, gates: shares(h, jnp.flip(h, 1)), EXACT, positive=True),
    Group("a square", {name: (lambda p, h, f=f: f(h)) for name, f in SQUARES.items()}, {},
          lambda p, h, gates: square(h), BY_SIGN),
    Group("a fifth power", {name: (lambda p, h, f=f: f(h)) for name, f in FIFTH.items()}, {},
          lambda p, h, gates: function(lambda u: u**5, h), BY_SIGN),
    Group("a factor and a square", spelled(on_two, WITH_POWERS), FACTORS,
          lambda p, h, gates: (
              None if gates else shares(two(p, h)[0], square(two(p, h)[1]))
          ), EXACT),
    Group("a product of matrices", spelled(on_two, MATMUL), FACTORS,
          lambda p, h, gates: halves(MATMUL["einsum"], *two(p, h)), EXACT),
    Group("a product of matrices and a number",
          spelled(on_two, {name: (lambda a, b, f=f: 1 - f(a, b)) for name, f in MATMUL.items()}),
          FACTORS, lambda p, h, gates: 1 - halves(MATMUL["einsum"], *two(p, h)), EXACT),
    Group("an outer product", spelled(on_two, OUTER), FACTORS,
          lambda p, h, gates: halves(OUTER["einsum"], *two(p, h)), EXACT),
    Group("a product of a matrix with itself",
          {name: (lambda p, h, f=f: f(h)) for name, f in GRAM.items()}, {},
          lambda p, h, gates: halves(MATMUL["einsum"], h, h), EXACT),
    Group("a chain of matrices from the left", spelled(on_three, FROM_THE_LEFT), MORE,
          chain_by_hand(0.25, 0.25, 0.5), EXACT),
    Group("a chain of matrices from the right", spelled(on_three, FROM_THE_RIGHT), MORE,
          chain_by_hand(0.5, 0.25, 0.25), EXACT),
    Group("a bilinear form", FORM, {**FACTORS, "form": (4, 4)}, form_by_hand, EXACT),
    Group("a factor that a sum passes", spelled(on_two, BROADCAST), FACTORS,
          lambda p, h, gates: halves(BROADCAST["summed after"], *two(p, h)), EXACT),
)  # fmt: skip
