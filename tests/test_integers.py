"""Numbers that pass through integers: a quantised network is explained as the float network."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrp_jax as lrp

KEYS = jax.random.split(jax.random.key(0), 8)
W = {
    "a": jax.random.normal(KEYS[0], (6, 16), jnp.float64),
    "b": jax.random.normal(KEYS[1], (16, 5), jnp.float64),
    "bias": 0.1 * jax.random.normal(KEYS[2], (16,), jnp.float64),
}
X = jax.random.normal(KEYS[5], (3, 6), jnp.float64)


def quantised(w: jax.Array, bits: int = 8) -> tuple[jax.Array, jax.Array]:
    """Weights as integers, and one scale for each output."""
    s = jnp.abs(w).max(0) / (2 ** (bits - 1) - 1)
    dtype = {4: jnp.int4, 8: jnp.int8, 12: jnp.int16}[bits]
    return jnp.round(w / s).astype(dtype), s


Q = {n: quantised(W[n], 12) for n in "ab"} | {"bias": W["bias"]}
Q8 = {n: quantised(W[n]) for n in "ab"} | {"bias": W["bias"]}


def product(u: jax.Array, w: jax.Array) -> jax.Array:
    return jax.lax.dot_general(u, w, (((1,), (0,)), ((), ())), preferred_element_type=jnp.int32)


def dynamic(x: jax.Array, q: Any, bits: int = 8, axis: int | None = -1) -> jax.Array:
    """Dynamic quantisation of activations, an integer product, and back."""
    w, sw = q
    top = 2 ** (bits - 1) - 1
    dtype = jnp.int8 if bits == 8 else jnp.int32
    s = jnp.max(jnp.abs(x), axis=axis, keepdims=True) / top
    return product(jnp.round(x / s).astype(dtype), w.astype(dtype)).astype(x.dtype) * s * sw


def clipped(x: jax.Array, q: Any) -> jax.Array:
    """The same with the reciprocal of the scale, a floor for it and a clip."""
    w, sw = q
    inverse = 127 / jnp.maximum(jnp.max(jnp.abs(x), -1, keepdims=True), 1e-6)
    u = jnp.clip(jnp.round(x * inverse), -128, 127).astype(jnp.int8)
    return product(u, w.astype(jnp.int8)).astype(x.dtype) * (sw / inverse)


def asymmetric(x: jax.Array, q: Any) -> jax.Array:
    """uint8 with a zero point that is an integer, taken off in int32."""
    w, sw = q
    low, high = jnp.minimum(x.min(-1, keepdims=True), 0), x.max(-1, keepdims=True)
    s = (high - low) / 255
    zero = jnp.round(-low / s)
    u = jnp.clip(jnp.round(x / s) + zero, 0, 255).astype(jnp.uint8)
    acc = product(u.astype(jnp.int32), w.astype(jnp.int32))
    acc = acc - zero.astype(jnp.int32) * w.astype(jnp.int32).sum(0)
    return acc.astype(x.dtype) * s * sw


def static(x: jax.Array, q: Any) -> jax.Array:
    w, sw = q
    u = jnp.clip(jnp.round(x / 0.05), -128, 127).astype(jnp.int8)
    return product(u, w.astype(jnp.int8)).astype(x.dtype) * (0.05 * sw)


def straight(x: jax.Array, q: Any) -> jax.Array:
    """Fake quantisation with a straight-through estimator, as in training."""
    w, sw = q
    s = jnp.max(jnp.abs(x), -1, keepdims=True) / 127
    h = x + jax.lax.stop_gradient(jnp.round(x / s) * s - x)
    return h @ (w.astype(x.dtype) * sw)


def straight_other_way(x: jax.Array, q: Any) -> jax.Array:
    w, sw = q
    s = jnp.max(jnp.abs(x), -1, keepdims=True) / 127
    h = x - jax.lax.stop_gradient(x - jnp.round(x / s).astype(jnp.int8).astype(x.dtype) * s)
    return h @ (w.astype(x.dtype) * sw)


def fake(x: jax.Array, q: Any) -> jax.Array:
    """Rounded floats, without an estimator."""
    w, sw = q
    s = jnp.max(jnp.abs(x), -1, keepdims=True) / 127
    return (jnp.round(x / s) * s) @ (w.astype(x.dtype) * sw)


@jax.custom_vjp
def _rounded(x: jax.Array, s: jax.Array) -> jax.Array:
    return jnp.clip(jnp.round(x / s), -128, 127).astype(jnp.int8).astype(x.dtype) * s


_rounded.defvjp(lambda x, s: (_rounded(x, s), s), lambda s, g: (g, jnp.zeros_like(s)))


def estimator(x: jax.Array, q: Any) -> jax.Array:
    """A straight-through estimator with a derivative of its own, and one scale for all."""
    w, sw = q
    return _rounded(x, jnp.max(jnp.abs(x)) / 127) @ (w.astype(x.dtype) * sw)


def weights_only(x: jax.Array, q: Any) -> jax.Array:
    w, sw = q
    return x @ (w.astype(x.dtype) * sw)


LAYERS = {
    f.__name__: f
    for f in (
        dynamic, clipped, asymmetric, static, straight, straight_other_way, fake, estimator,
        weights_only,
    )
}  # fmt: skip


def net(layer: Any) -> Any:
    def apply(q: Any, x: jax.Array) -> jax.Array:
        h = jax.nn.gelu(layer(x, q["a"]) + q["bias"])
        return layer(h, q["b"])

    return apply


def floats(q: Any, x: jax.Array) -> jax.Array:
    """The float network that it stands for, with the same weights."""
    (a, sa), (b, sb) = q["a"], q["b"]
    return jax.nn.gelu(x @ (a * sa) + q["bias"]) @ (b * sb)


RULES = [lrp.Zero(), lrp.Epsilon(0.1), lrp.ZPlus(), lrp.Gamma(0.5), lrp.AttnLRP(), lrp.CPLRP()]


CASES = [
    (name, rule)
    for name in LAYERS
    for rule in RULES
    # A zero point is added to the numbers and taken off after the product: rules that ask for signs
    # or for the size of what enters the product see the shifted numbers.
    if name != "asymmetric" or isinstance(rule, lrp.Zero | lrp.Composite)
]


@pytest.mark.parametrize(
    ("name", "rule"), CASES, ids=[f"{name}-{type(rule).__name__}" for name, rule in CASES]
)
def test_a_quantised_network_is_explained_as_the_float_network(name: str, rule: Any) -> None:
    found = lrp.relevance(net(LAYERS[name]), rule)(Q8, X, target=1)
    wanted = lrp.relevance(floats, rule)(Q8, X, target=1)
    scale = float(jnp.abs(wanted).max())
    np.testing.assert_allclose(found, wanted, rtol=0, atol=0.04 * scale)
    output, _ = lrp.value_and_relevance(net(LAYERS[name]), rule)(Q8, X)
    np.testing.assert_allclose(output, net(LAYERS[name])(Q8, X), rtol=1e-14)


@pytest.mark.slow
def test_with_more_bits_it_comes_closer() -> None:
    """12 bits of activations and weights: 16 times closer than 8."""
    fine = lambda x, q: dynamic(x, q, 12)  # noqa: E731
    q = {n: (Q[n][0].astype(jnp.int32), Q[n][1]) for n in "ab"} | {"bias": W["bias"]}
    for rule in RULES:
        found = lrp.relevance(net(fine), rule)(q, X, target=1)
        wanted = lrp.relevance(floats, rule)(q, X, target=1)
        np.testing.assert_allclose(
            found, wanted, rtol=0, atol=2.5e-3 * float(jnp.abs(wanted).max())
        )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16])
@pytest.mark.parametrize("name", LAYERS)
def test_values_are_those_of_the_users_integers(name: str, dtype: Any) -> None:
    q = jax.tree.map(lambda a: a if jnp.issubdtype(a.dtype, jnp.integer) else a.astype(dtype), Q8)
    x = X.astype(dtype)
    output, found = lrp.value_and_relevance(net(LAYERS[name]), lrp.Zero())(q, x, target=1)
    np.testing.assert_array_equal(output, jax.jit(net(LAYERS[name]))(q, x))
    assert found.dtype == dtype
    assert bool(jnp.isfinite(found).all())


def test_long_sums_of_integers_keep_their_bits() -> None:
    """Sums above 2 ** 24, which float32 has no room for; and what overflows int32."""
    w = jax.random.randint(KEYS[3], (4000, 3), -128, 128).astype(jnp.int8)
    u = 127 * jnp.sign(w[:, 0]).astype(jnp.float32)[None] + jnp.arange(4000.0)[None] % 3
    u = jnp.clip(u, -128, 127).astype(jnp.float32)

    def apply(w: jax.Array, x: jax.Array) -> jax.Array:
        return product(jnp.round(x).astype(jnp.int8), w).astype(jnp.float32)

    wrapped = lambda w, x: (  # noqa: E731
        (product(jnp.round(x).astype(jnp.int8), w) * 3000).astype(jnp.float32)
    )
    for f in (apply, wrapped):
        output, found = lrp.value_and_relevance(f, lrp.Zero())(w, u, target=0)
        np.testing.assert_array_equal(output, f(w, u))
        assert bool(jnp.isfinite(found).all())
    found = lrp.relevance(apply, lrp.Zero())(w, u, target=0)
    exact = (u * w[:, 0].astype(jnp.float32)).astype(jnp.float64)
    np.testing.assert_allclose(found, exact, rtol=1e-6)


def test_hand_derived() -> None:
    """What is rounded counts as the number that it stands for: R_i = x_i w_i."""
    x = jnp.array([[1.0, -2.0, 3.9]], jnp.float64)
    w = jnp.array([[2], [1], [-1]], jnp.int8)
    found = lrp.relevance(lambda w, x: dynamic(x, (w, 1.0)), lrp.Zero())(w, x, target=0)
    np.testing.assert_allclose(found, [[2.0, -2.0, -3.9]], rtol=1e-12)


def test_convolutions() -> None:
    x = jax.random.normal(KEYS[6], (2, 3, 8, 8), jnp.float64)
    k = jax.random.normal(KEYS[7], (4, 3, 3, 3), jnp.float64)
    sk = jnp.abs(k).max() / 127
    integer = jnp.round(k / sk).astype(jnp.int8)

    def apply(k: jax.Array, x: jax.Array) -> jax.Array:
        s = jnp.abs(x).max() / 127
        acc = jax.lax.conv_general_dilated(
            jnp.round(x / s).astype(jnp.int8), k, (1, 1), "SAME", preferred_element_type=jnp.int32
        )
        pooled = jax.lax.reduce_window(acc, 0, jax.lax.add, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        return jax.nn.relu(pooled.astype(x.dtype) * (s * sk)).mean((2, 3))

    def plain(k: jax.Array, x: jax.Array) -> jax.Array:
        acc = jax.lax.conv_general_dilated(x, k * sk, (1, 1), "SAME")
        pooled = jax.lax.reduce_window(acc, 0.0, jax.lax.add, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        return jax.nn.relu(pooled).mean((2, 3))

    for rule in (lrp.Zero(), lrp.EpsilonPlus(), lrp.EpsilonAlpha2Beta1()):
        found = lrp.relevance(apply, rule)(integer, x, target=1)
        wanted = lrp.relevance(plain, rule)(integer.astype(jnp.float64), x, target=1)
        close = 0.06 * float(jnp.abs(wanted).max())
        np.testing.assert_allclose(found, wanted, rtol=0, atol=close)
        np.testing.assert_array_equal(
            lrp.value_and_relevance(apply, rule)(integer, x)[0], jax.jit(apply)(integer, x)
        )


def test_integers_move_as_floats_do() -> None:
    def apply(q: Any, x: jax.Array) -> jax.Array:
        s = jnp.abs(x).max() / 127
        u = jnp.round(x / s).astype(jnp.int8)
        u = jnp.concatenate([u, -u[:, ::-1]], 1).astype(jnp.int32)
        u = jnp.maximum(u, 0).reshape(3, 2, 6).transpose(0, 2, 1)[:, jnp.array([0, 2, 1, 3, 5, 4])]
        return (u.sum(-1) * 3).astype(x.dtype) * s @ q

    def plain(q: Any, x: jax.Array) -> jax.Array:
        u = jnp.concatenate([x, -x[:, ::-1]], 1)
        u = jnp.maximum(u, 0).reshape(3, 2, 6).transpose(0, 2, 1)[:, jnp.array([0, 2, 1, 3, 5, 4])]
        return u.sum(-1) * 3 @ q

    found = lrp.relevance(apply, lrp.Zero())(W["a"], X, target=1)
    wanted = lrp.relevance(plain, lrp.Zero())(W["a"], X, target=1)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=0.01 * float(jnp.abs(wanted).max()))


def test_bodies() -> None:
    """A whole quantised layer inside of a loop, a checkpoint, a branch, under vmap."""
    square = {n: quantised(jax.random.normal(k, (6, 6))) for n, k in zip("ab", KEYS, strict=False)}
    stacked = jax.tree.map(lambda a, b: jnp.stack([a, b]), square["a"], square["b"])
    plain = lambda x, q: x @ (q[0] * q[1])  # noqa: E731

    def looped(layer: Any) -> Any:
        return lambda q, x: jax.lax.scan(lambda h, q: (jax.nn.relu(layer(h, q)), None), x, q)[0]

    def checkpointed(layer: Any) -> Any:
        return lambda q, x: jax.checkpoint(lambda x: layer(x, (q[0][0], q[1][0])))(x)

    def branched(layer: Any) -> Any:
        one = lambda q, x: layer(x, (q[0][0], q[1][0]))  # noqa: E731
        return lambda q, x: jax.lax.cond(q[1].sum() > 0, one, lambda q, x: x, q, x)

    def mapped(layer: Any) -> Any:
        return lambda q, x: jax.vmap(lambda x: layer(x[None], (q[0][0], q[1][0]))[0])(x)

    for place in (looped, checkpointed, branched, mapped):
        found = lrp.relevance(place(dynamic), lrp.Zero())(stacked, X, target=1)
        wanted = lrp.relevance(place(plain), lrp.Zero())(stacked, X, target=1)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=0.04 * float(jnp.abs(wanted).max()))


def test_explanations_of_quantised_networks_are_jax_functions() -> None:
    explain = lrp.relevance(net(dynamic), lrp.Epsilon(0.1))
    one = explain(Q8, X, target=1)
    np.testing.assert_allclose(jax.jit(lambda x: explain(Q8, x, target=1))(X), one, rtol=1e-9)
    mapped = jax.vmap(lambda x: explain(Q8, x[None], target=1)[0])(X)
    np.testing.assert_allclose(mapped, one, rtol=1e-9, atol=1e-12)
    ledger = lrp.conservation(net(dynamic), lrp.Epsilon(0.1))(Q8, X, target=1)
    np.testing.assert_allclose(ledger.elsewhere, 0, atol=1e-9)
    names = set(lrp.layer_relevances(net(dynamic), lrp.Epsilon(), lrp.Dense)(Q8, X))
    assert names == {"a", "b"}


# -- what stays a constant, and what is refused ----------------------------------------------------


CONSTANTS = {
    "index": lambda x: W["a"][jnp.clip(jnp.floor(x[:, 0]).astype(jnp.int32), 0, 5)],
    "comparison": lambda x: (x.astype(jnp.int32) > 0).astype(x.dtype) @ W["a"],
    "equality": lambda x: jax.nn.one_hot(jnp.round(x[:, 0]).astype(jnp.int32), 16),
    "argmax": lambda x: x.argmax(-1, keepdims=True).astype(x.dtype) * jnp.ones(16),
    "mask": lambda x: jnp.where(jnp.round(x).astype(jnp.int8) == 0, 0.0, 1.0) @ W["a"],
    "order": lambda x: jnp.argsort(x, -1).astype(x.dtype) @ W["a"],
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_indices_and_comparisons_are_constants(name: str) -> None:
    part = CONSTANTS[name]
    f = lambda w, x: x @ w["a"] + part(x)  # noqa: E731
    g = lambda w, x: x @ w["a"] + jax.lax.stop_gradient(part(x))  # noqa: E731
    np.testing.assert_allclose(
        lrp.relevance(f, lrp.Zero())(W, X, target=1), lrp.relevance(g, lrp.Zero())(W, X, target=1)
    )


REFUSED = {
    "shift_right_arithmetic": lambda u: u >> 1,
    "and": lambda u: u & 3,
    "rem": lambda u: jax.lax.rem(u, jnp.int32(3)),
    "div": lambda u: jax.lax.div(u, jnp.int32(3)),
    "population_count": jax.lax.population_count,
    "scan": lambda u: jax.lax.scan(lambda c, v: (c + v.astype(float).sum(), v), 0.0, u)[0],
    "cond": lambda u: jax.lax.cond(u.sum() > 0, lambda u: 2 * u, lambda u: u, u),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_integer_arithmetic_is_refused_by_name(name: str) -> None:
    def f(w: Any, x: jax.Array) -> jax.Array:
        u = REFUSED[name](jnp.round(8 * x).astype(jnp.int32))
        return u.astype(x.dtype) * jnp.ones((3, 6)) @ w["a"]

    with pytest.raises(lrp.UnsupportedOperation, match=f"`{name}`.*test_integers.*integers"):
        lrp.plan(f, lrp.Zero())(W, X)
    unread = lambda w, x: x @ w["a"] + (f(w, x) > 0)  # noqa: E731
    assert lrp.relevance(unread, lrp.Zero())(W, X).shape == X.shape


def test_integers_may_cross_a_border_as_indices() -> None:
    def f(w: Any, x: jax.Array) -> jax.Array:
        where = jnp.clip(jnp.floor(x).astype(jnp.int32), 0, 5)[:, 0]
        take = lambda c, i: (c, w["a"][i])  # noqa: E731
        return x @ w["a"] + jax.lax.scan(take, 0.0, where)[1]

    assert lrp.relevance(f, lrp.Zero())(W, X).shape == X.shape


def test_integers_that_leave_a_loop_are_refused() -> None:
    def f(w: Any, x: jax.Array) -> jax.Array:
        step = lambda c, row: (c, jnp.round(8 * row).astype(jnp.int8))  # noqa: E731
        _, u = jax.lax.scan(step, 0.0, x)
        return u.astype(x.dtype) @ w["a"]

    with pytest.raises(lrp.UnsupportedOperation, match="`scan`"):
        lrp.plan(f, lrp.Zero())(W, X)


def test_weights_of_four_bits() -> None:
    q = {n: quantised(W[n], 4) for n in "ab"} | {"bias": W["bias"]}
    for rule in RULES:
        found = lrp.relevance(net(weights_only), rule)(q, X, target=1)
        dense = {n: (q[n][0].astype(jnp.float64), q[n][1]) for n in "ab"} | {"bias": W["bias"]}
        np.testing.assert_allclose(
            found, lrp.relevance(floats, rule)(dense, X, target=1), rtol=1e-9
        )
