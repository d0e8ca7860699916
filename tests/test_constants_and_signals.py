"""What a rule makes a constant (`Hold`), who takes all of a product (`Gate`), no stabiliser."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrp_jax as lrp

KEYS = jax.random.split(jax.random.key(0), 8)
W = {n: jax.random.normal(k, (4, 4), jnp.float64) for n, k in zip("abcd", KEYS, strict=False)}
X = jax.random.normal(KEYS[5], (3, 4), jnp.float64)


# -- Hold: the same as stop_gradient around what the layer makes --------------------------------


def _norm(h: jax.Array) -> jax.Array:
    return h * jax.lax.rsqrt((h * h).mean(-1, keepdims=True) + 1e-6)


def _max_pool(h: jax.Array) -> jax.Array:
    return jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, (1, 2), (1, 1), "SAME")


LAYERS: dict[str, tuple[Any, Any]] = {
    "dense": ("b", lambda w, h: h @ w["b"]),
    "activation": (lrp.Activation, jnp.tanh),
    "relu": (lrp.ReLU, jax.nn.relu),
    "merge": (lrp.Merge, lambda h: h + h[:, ::-1]),
    "pool": (lrp.AvgPool, lambda h: jnp.tile(h[None].mean(2, keepdims=True)[0], 4)),
    "max": (lrp.MaxPool, lambda h: _max_pool(h)),
    "norm": (lrp.Normalization, _norm),
    "softmax": (lrp.Softmax, jax.nn.softmax),
    "logsumexp": (lrp.LogSumExp, lambda h: jax.nn.logsumexp(h, -1, keepdims=True) * W["a"][:1]),
    "product": (lrp.Product, lambda h: h * h[:, ::-1]),
    "matmul": (lrp.MatMul, lambda h: (h @ h.T) @ W["c"][:3]),
    "bias": (lrp.Bias, lambda h: jnp.tanh(h[:, ::-1] + W["c"][:3])),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_what_is_held_is_a_constant(name: str) -> None:
    spec, layer = LAYERS[name]

    def apply(w: Any, x: jax.Array, around: Any = lambda v: v) -> jax.Array:
        h = x @ w["a"]
        made = layer(w, h) if name == "dense" else layer(h)
        return (h @ w["c"]) @ w["d"] + around(made) @ w["d"]

    base = [(lrp.Linear, lrp.Epsilon()), (lrp.Dense, lrp.Zero())]
    composite = lrp.Composite([(spec, lrp.Hold()), *base])
    if name == "merge":  # the sum of both ways is one as well
        composite = lrp.Composite([(lrp.first(spec), lrp.Hold()), *base])
    held = lrp.relevance(apply, composite)(W, X, target=1)

    def stopped(w: Any, x: jax.Array) -> jax.Array:
        return apply(w, x, jax.lax.stop_gradient)

    wanted = lrp.relevance(stopped, lrp.Composite([(lrp.Linear, lrp.Epsilon())]))(W, X, target=1)
    # What is a constant by code is a bias of the sum after it, which takes the same share.
    np.testing.assert_allclose(held, wanted, rtol=1e-5, atol=1e-7)
    ledger = lrp.conservation(apply, composite)(W, X, target=1)
    (row,) = [
        r for r, rule in zip(ledger.rows.values(), ledger.rules, strict=True) if rule == "Hold()"
    ]
    assert row["out"] == 0
    assert abs(row["in"]) > 1e-6
    np.testing.assert_allclose(row["rule"], row["in"])
    np.testing.assert_allclose(ledger.elsewhere, 0, atol=1e-8)


def test_nothing_reaches_the_weights_of_what_is_held() -> None:
    apply = lambda w, x: (x @ w["a"] + x @ w["b"]) @ w["d"]  # noqa: E731
    composite = lrp.Composite([("b", lrp.Hold()), (lrp.Linear, lrp.Zero())])
    found = lrp.parameter_relevance(apply, composite)(W, X, target=1)
    assert not found["b"].any()
    assert found["a"].any()


def test_held_values_live_on_in_derivatives_of_the_explanation() -> None:
    """Relevance of a gated value depends on the gate, held or not."""
    apply = lambda w, x: (x @ w["a"]) * jnp.tanh(x @ w["b"])  # noqa: E731
    held = lrp.AttnLRP().override((lrp.Product, lrp.Gate(signal=0)), (lrp.Activation, lrp.Hold()))
    formula = lambda x: x * (jnp.tanh(x @ W["b"])[:, 1:2] * W["a"][:, 1])  # noqa: E731
    explain = lambda x: lrp.relevance(apply, held)(W, x, target=1)  # noqa: E731
    np.testing.assert_allclose(explain(X), formula(X), rtol=1e-10)
    square = lambda f: jax.grad(lambda x: (f(x) ** 2).sum())(X)  # noqa: E731
    np.testing.assert_allclose(square(explain), square(formula), rtol=1e-9)


def test_a_held_root_at_zero_is_no_nan() -> None:
    apply = lambda w, x: (x + jnp.sqrt(x)) @ w["a"]  # noqa: E731
    composite = lrp.Composite([(lrp.Activation, lrp.Hold()), (lrp.Linear, lrp.Zero())])
    assert bool(jnp.isfinite(lrp.relevance(apply, composite)(W, 0 * X)).all())


FACTORS: dict[str, Any] = {
    "gate": lambda signal, held: signal * jax.nn.silu(held),
    "gate first": lambda signal, held: jax.nn.sigmoid(held) * signal,
    "shared out": lambda signal, held: signal / (2 + jnp.tanh(held)),
    "three": lambda signal, held: (signal * held) * jax.nn.sigmoid(held),
    "attention": lambda signal, held: jax.nn.softmax(held @ held.T) @ signal,
    "decay": lambda signal, held: jax.lax.scan(
        lambda h, xs: (jax.nn.sigmoid(xs[1]) * h + xs[0],) * 2, 0 * signal[0], (signal, held)
    )[1],
    "body": lambda signal, held: jax.checkpoint(lambda a, b: jnp.tanh(b) * a)(signal, held),
}  # fmt: skip


@pytest.mark.parametrize("name", FACTORS)
@pytest.mark.parametrize(
    "composite", [lrp.AttnLRP(), lrp.CPLRP(), lrp.Composite([])], ids=["attnlrp", "cplrp", "base"]
)
def test_a_held_factor_leaves_all_to_the_others(name: str, composite: lrp.Composite) -> None:
    """A product with a constant is a scale, whether the code says so or a rule."""

    def apply(w: Any, x: jax.Array, around: Any = lambda v: v) -> jax.Array:
        return FACTORS[name](jnp.tanh(x @ w["a"]), around(x @ w["b"])) @ w["c"]

    composite = composite.override((lrp.Linear, lrp.Zero()))
    held = lrp.relevance(apply, composite.override(("b", lrp.Hold())))(W, X, target=1)
    stopped = lambda w, x: apply(w, x, jax.lax.stop_gradient)  # noqa: E731
    wanted = lrp.relevance(stopped, composite)(W, X, target=1)
    np.testing.assert_allclose(held, wanted, atol=1e-12)
    assert float(jnp.abs(wanted).max()) > 1e-2


# -- Gate ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", [0, 1])
def test_the_signal_takes_all(signal: int) -> None:
    """R = x (gradient with the other factor held), written out."""
    apply = lambda w, x: (x @ w["a"]) * (x @ w["b"])  # noqa: E731
    composite = lrp.AttnLRP().override((lrp.Product, lrp.Gate(signal=signal)))
    names = ("a", "b") if signal == 0 else ("b", "a")
    wanted = X * ((X @ W[names[1]])[:, 2:3] * W[names[0]][:, 2])
    np.testing.assert_allclose(lrp.relevance(apply, composite)(W, X, target=2), wanted, rtol=1e-10)


@pytest.mark.parametrize("signal", [0, 1])
def test_the_signal_of_a_matrix_product(signal: int) -> None:
    apply = lambda w, x: (x @ w["a"]).T @ (x @ w["b"])  # noqa: E731
    composite = lrp.AttnLRP().override((lrp.MatMul, lrp.Gate(signal=signal)))
    stop = jax.lax.stop_gradient

    def one_way(x: jax.Array) -> jax.Array:
        first, second = x @ W["a"], x @ W["b"]
        return (first.T @ stop(second) if signal == 0 else stop(first).T @ second)[:, 1].sum()

    found = lrp.relevance(apply, composite)(W, X, target=1)
    np.testing.assert_allclose(found, X * jax.grad(one_way)(X), rtol=1e-9)


def test_a_signal_overrules_what_looks_like_a_gate() -> None:
    apply = lambda w, x: (x @ w["a"]) * jax.nn.sigmoid(x @ w["b"])  # noqa: E731
    usual = lrp.relevance(apply, lrp.CPLRP())(W, X)
    named = lrp.relevance(apply, lrp.CPLRP().override((lrp.Product, lrp.Gate(signal=0))))(W, X)
    np.testing.assert_allclose(usual, named)
    other = lrp.relevance(apply, lrp.CPLRP().override((lrp.Product, lrp.Gate(signal=1))))(W, X)
    assert float(jnp.abs(other - usual).max()) > 0.01


def test_softmaxes_and_activations_have_one_operand_that_gates() -> None:
    apply = lambda w, x: jax.nn.softmax(x @ w["a"]) @ w["b"] + x @ w["c"]  # noqa: E731
    rules = lambda g: lrp.AttnLRP().override((lrp.Softmax, g))  # noqa: E731
    usual = lrp.relevance(apply, rules(lrp.Gate()))(W, X)
    for signal in (0, 1, 5):
        found = lrp.relevance(apply, rules(lrp.Gate(signal=signal)))(W, X)
        np.testing.assert_array_equal(found, usual)


def test_signals_that_there_are_not() -> None:
    apply = lambda w, x: (x @ w["a"]) * (x @ w["b"])  # noqa: E731
    composite = lrp.AttnLRP().override((lrp.Product, lrp.Gate(signal=2)))
    with pytest.raises(ValueError, match=r"Product.*Gate\(signal=2\).*factors 0 to 1"):
        lrp.plan(apply, composite)(W, X)
    for wrong in (1.0, True, "value"):
        with pytest.raises(TypeError, match="an int"):
            lrp.Gate(signal=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="from 0"):
        lrp.Gate(signal=-1)
    assert repr(lrp.Gate(signal=1)) == "Gate(signal=1)"
    assert lrp.Gate(signal=1) != lrp.Gate()


# -- Zero: no stabiliser anywhere ----------------------------------------------------------------


class Rectified(nn.Module):
    """Residual adds, an average pool, a mean, a max pool, a stand-alone bias."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h = nn.relu(nn.Conv(4, (3, 3), param_dtype=jnp.float64, use_bias=False)(x))
        h = h + nn.relu(nn.Conv(4, (3, 3), param_dtype=jnp.float64, use_bias=False)(h))
        h = nn.avg_pool(h, (2, 2), (2, 2)) + nn.max_pool(h, (2, 2), (2, 2))
        h = h - 0.3 * nn.relu(nn.Conv(4, (3, 3), param_dtype=jnp.float64, use_bias=False)(h))
        return nn.Dense(5, param_dtype=jnp.float64, use_bias=False)(h.mean((1, 2)))


@pytest.mark.parametrize(
    "composite",
    [
        lrp.Zero(),
        lrp.Composite([(lrp.Linear, lrp.Zero())]),
        lrp.Composite([(lrp.Dense, lrp.Zero())]),
        lrp.Composite([(lrp.Linear, lrp.Epsilon(0.0))]),
        lrp.Composite([("*", lrp.Norm(stabilizer=0.0))]),
    ],
    ids=repr,
)
def test_without_a_stabiliser_it_is_gradient_times_input(composite: Any) -> None:
    x = jax.random.normal(KEYS[6], (2, 8, 8, 2), jnp.float64)
    model = Rectified()
    params = model.init(jax.random.key(3), x)
    found = lrp.relevance(model.apply, composite)(params, x, target=2)
    gradient = jax.grad(lambda x: model.apply(params, x)[:, 2].sum())(x)  # type: ignore[index]
    np.testing.assert_allclose(found, x * gradient, rtol=1e-12, atol=1e-14)
    shown = {layer.rule for layer in lrp.plan(model.apply, composite)(params, x).layers}
    assert "Norm()" not in shown
    lrp.conservation(model.apply, composite)(params, x, target=2).assert_conserved(1e-12)


@pytest.mark.parametrize(
    "composite",
    [
        lrp.Epsilon(),
        lrp.EpsilonPlus(),
        lrp.Relative(),
        lrp.Composite([]),
        lrp.Composite([(lrp.last(lrp.Linear), lrp.Zero()), (lrp.Conv, lrp.ZPlus(0.0))]),
        lrp.Composite([(lrp.Activation, lrp.Pass())]),
    ],
    ids=repr,
)
def test_other_composites_keep_the_stabiliser_of_merges(composite: Any) -> None:
    apply = lambda w, x: (x + jax.nn.relu(x @ w["a"])) @ w["b"]  # noqa: E731
    assert "Norm()" in {layer.rule for layer in lrp.plan(apply, composite)(W, X).layers}


def test_what_is_chosen_by_an_argument_is_no_weight() -> None:
    """A mask or one-hot rows made of explained numbers select; a learned shift among them, as in
    routers that balance their load, makes no layer with weights of them."""

    def routed(params, x, chosen):  # type: ignore[no-untyped-def]
        gates = jax.nn.sigmoid(x @ params["router"])
        weights = chosen(gates, gates + params["shift"])
        return jnp.einsum("be,bed->bd", weights, jnp.einsum("bf,efd->bed", x, params["experts"]))

    def by_index(gates, shifted):  # type: ignore[no-untyped-def]
        _, chosen = jax.lax.top_k(shifted, 2)
        largest = jnp.take_along_axis(gates, chosen, -1)
        return jnp.einsum("bk,bke->be", largest, jax.nn.one_hot(chosen, 4))

    def by_mask(gates, shifted):  # type: ignore[no-untyped-def]
        return gates * (shifted >= jnp.sort(shifted)[:, 2:3])

    one_hot, masked = (functools.partial(routed, chosen=c) for c in (by_index, by_mask))

    rng = np.random.default_rng(0)
    shapes = {"router": (5, 4), "shift": (4,), "experts": (4, 5, 3)}
    params = {name: jnp.asarray(rng.standard_normal(shape)) for name, shape in shapes.items()}
    x = jnp.asarray(rng.standard_normal((2, 5)))
    np.testing.assert_allclose(one_hot(params, x), masked(params, x), rtol=1e-5)
    for composite in (lrp.AttnLRP(), lrp.CPLRP(), lrp.EpsilonPlus()):
        found, wanted = (lrp.relevance(f, composite)(params, x) for f in (one_hot, masked))
        np.testing.assert_allclose(found, wanted, atol=1e-4)
    weighted = [layer.weights for layer in lrp.plan(one_hot, lrp.AttnLRP())(params, x).layers]
    assert not any("shift" in name for names in weighted for name in names)
