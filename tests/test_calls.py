"""Called functions as one layer: kernels, callbacks, and code that the reader cannot change."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl

import lrp_jax as lrp

KEYS = jax.random.split(jax.random.key(0), 8)
W = {n: jax.random.normal(k, (4, 4), jnp.float64) for n, k in zip("qkvo", KEYS, strict=False)}
X = jax.random.normal(KEYS[5], (5, 4), jnp.float64)


def written(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    return jax.nn.softmax(q @ k.T) @ v


def _forward(q: jax.Array, k: jax.Array, v: jax.Array) -> Any:
    return written(q, k, v), (q, k, v)


def _backward(saved: Any, g: jax.Array) -> Any:
    return jax.vjp(written, *saved)[1](g)


def _kernel(q: Any, k: Any, v: Any, out: Any) -> None:
    out[...] = written(q[...], k[...], v[...])


def _pallas(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    shape = jax.ShapeDtypeStruct(q.shape, q.dtype)
    run: Any = pl.pallas_call(_kernel, out_shape=shape, interpret=True, name="inner_kernel")
    result: jax.Array = run(q, k, v)
    return result


@jax.custom_vjp
def flash_attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    return _pallas(q, k, v)


flash_attention.defvjp(lambda q, k, v: (_pallas(q, k, v), (q, k, v)), _backward)


def _on_host(q: Any, k: Any, v: Any) -> Any:
    s = np.asarray(q) @ np.asarray(k).T
    e = np.exp(s - s.max(-1, keepdims=True))
    return (e / e.sum(-1, keepdims=True)) @ np.asarray(v)


def _callback(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    shape = jax.ShapeDtypeStruct(q.shape, q.dtype)
    result: jax.Array = jax.pure_callback(_on_host, shape, q, k, v, vmap_method="sequential")
    return result


@jax.custom_vjp
def host_attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    return _callback(q, k, v)


host_attention.defvjp(lambda q, k, v: (_callback(q, k, v), (q, k, v)), _backward)

KERNELS: dict[str, Callable[..., jax.Array]] = {
    "flash_attention": flash_attention,
    "host_attention": host_attention,
    "named": lrp.as_layer(written, name="named"),
    "jitted": jax.jit(lambda q, k, v: written(q, k, v)),
}
GLOBS = {**{name: name for name in KERNELS}, "jitted": "<lambda>"}


def net(attend: Any) -> Any:
    def apply(w: Any, x: jax.Array) -> jax.Array:
        h = x + attend(x @ w["q"], x @ w["k"], x @ w["v"])
        return jax.nn.relu(h @ w["o"])[-1:]

    return apply


@pytest.mark.parametrize("make", [lrp.AttnLRP, lrp.CPLRP])
@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_is_explained_as_if_it_were_written_out(name: str, make: Any) -> None:
    called = lrp.relevance(net(KERNELS[name]), make(attention=GLOBS[name]))(W, X, target=1)
    plain = lrp.relevance(net(written), make())(W, X, target=1)
    np.testing.assert_allclose(called, plain, rtol=1e-10, atol=1e-12)


def test_the_shares_are_those_of_the_kernels_own_gradient() -> None:
    """The formula written out: c_x = 1/4 dq + 1/4 dk + 1/2 dv, for a kernel alone."""
    weights = (0.3, -0.2, 0.7)
    f = lambda w, q, k, v: flash_attention(q, k, v)  # noqa: E731
    composite = lrp.Composite([(lrp.call("flash*"), lrp.Weighted(*weights))])
    operands = [X @ W[n] for n in "qkv"]
    g = jax.random.normal(KEYS[6], (5, 4))
    _, back = jax.vjp(written, *operands)
    found = lrp.relevance(f, composite, argnums=(1, 2, 3))(W, *operands, target=lambda y: y * g)
    for share, x, gradient, r in zip(weights, operands, back(g), found, strict=True):
        np.testing.assert_allclose(r, share * x * gradient, rtol=1e-10)
    plain = lrp.Composite([(lrp.call("flash*"), lrp.Weighted())])
    found = lrp.relevance(f, plain, argnums=(1, 2, 3))(W, *operands, target=lambda y: y * g)
    for x, gradient, r in zip(operands, back(g), found, strict=True):
        np.testing.assert_allclose(r, x * gradient, rtol=1e-10)


def test_operands_that_are_one_variable_keep_their_own_weights() -> None:
    composite = lrp.Composite([(lrp.call("flash*"), lrp.Weighted(0.1, 0.2, 0.7))])
    f = lambda w, x: flash_attention(x, x, x)  # noqa: E731
    g = jax.random.normal(KEYS[6], (5, 4))
    gradients = jax.vjp(written, X, X, X)[1](g)
    wanted = X * sum(s * d for s, d in zip((0.1, 0.2, 0.7), gradients, strict=True))
    found = lrp.relevance(f, composite)(W, X, target=lambda y: y * g)
    np.testing.assert_allclose(found, wanted, rtol=1e-10)


def test_constants_are_no_explained_operands() -> None:
    memory = jax.random.normal(KEYS[7], (5, 4))
    f = lambda w, x: flash_attention(x, memory, memory)  # noqa: E731
    composite = lrp.Composite([(lrp.call("flash*"), lrp.Weighted(1.0))])
    g = jnp.ones((5, 4))
    wanted = X * jax.vjp(lambda q: written(q, memory, memory), X)[1](g)[0]
    found = lrp.relevance(f, composite)(W, X, target=lambda y: y * g)
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    with pytest.raises(ValueError, match=r"3 weights.*flash_attention.*1 explained.*float64\[5, 4"):
        lrp.plan(f, lrp.AttnLRP(attention="flash*"))(W, X)


def test_jax_own_attention_under_a_name() -> None:
    """Of shape (batch, time, heads, depth), with static arguments and a mask of its own."""
    x = jax.random.normal(KEYS[5], (2, 5, 3, 4))

    def apply(attend: Any, w: Any, x: jax.Array) -> jax.Array:
        h = attend(x @ w["q"], x @ w["k"], x @ w["v"], is_causal=True, implementation="xla")
        return h.reshape(2, 5, 12)[:, -1]

    kernel = lrp.as_layer(jax.nn.dot_product_attention, name="attention")
    composite = lrp.AttnLRP(attention="attention")
    called = lrp.relevance(partial(apply, kernel), composite)(W, x, target=3)
    plain = lrp.relevance(partial(apply, jax.nn.dot_product_attention), lrp.AttnLRP())(
        W, x, target=3
    )
    np.testing.assert_allclose(called, plain, rtol=1e-6, atol=1e-8)
    kinds = [y.kind.label for y in lrp.plan(partial(apply, kernel), composite)(W, x).layers]
    assert "Call" in kinds
    assert "Softmax" not in kinds


# -- where a call stands ----------------------------------------------------------------------


def _in_scan(attend: Any) -> Any:
    def apply(w: Any, x: jax.Array) -> jax.Array:
        stacked = jax.tree.map(lambda a: jnp.stack([a, a / 2]), w)
        step = lambda h, w: (net(attend)(w, h) + h, None)  # noqa: E731
        return jax.lax.scan(step, x, stacked)[0][-1:]

    return apply


def _in_checkpoint(attend: Any) -> Any:
    return lambda w, x: jax.checkpoint(net(attend))(w, x) @ w["q"]


def _in_branch(attend: Any) -> Any:
    return lambda w, x: jax.lax.cond(
        w["q"].sum() > 0, net(attend), lambda w, x: net(attend)(w, 2 * x), w, x
    )


def _in_vmap(attend: Any) -> Any:
    return lambda w, x: jax.vmap(net(attend), (None, 0))(w, jnp.stack([x, 2 * x])).sum(0)


@pytest.mark.parametrize("place", [_in_scan, _in_checkpoint, _in_branch, _in_vmap])
@pytest.mark.parametrize("name", ["flash_attention", "host_attention", "named"])
def test_calls_inside_of_bodies(name: str, place: Any) -> None:
    composite = lrp.AttnLRP(attention=name)
    called = lrp.relevance(place(KERNELS[name]), composite)(W, X, target=1)
    plain = lrp.relevance(place(written), lrp.AttnLRP())(W, X, target=1)
    np.testing.assert_allclose(called, plain, rtol=1e-9, atol=1e-11)


def test_all_questions_speak_of_calls() -> None:
    f, composite = net(flash_attention), lrp.AttnLRP(attention="flash*")
    plan = lrp.plan(f, composite)(W, X)
    (layer,) = [y for y in plan.layers if y.kind <= lrp.Call]
    assert (layer.path, layer.rule) == ("flash_attention", "Weighted(0.25, 0.25, 0.5)")
    assert layer.chosen_by == "lrp.call('flash*')"
    assert lrp.Plan.from_json(plan.to_json()) == plan
    hidden = lrp.layer_relevances(f, composite)(W, X, target=1)
    written_out = lrp.layer_relevances(net(written), lrp.AttnLRP())(W, X, target=1)
    np.testing.assert_allclose(hidden["flash_attention"], written_out["MatMul:1"], rtol=1e-9)
    (chosen,) = lrp.layer_relevances(f, composite, lrp.call("flash*"))(W, X)
    assert chosen == "flash_attention"
    ledger = lrp.conservation(f, composite)(W, X, target=1)
    row = ledger.rows["flash_attention"]
    np.testing.assert_allclose(row["in"], hidden["flash_attention"].sum(), rtol=1e-9)
    np.testing.assert_allclose(ledger.elsewhere, 0, atol=1e-9)
    concepts = lrp.concept_relevance(f, composite, "flash_attention", [0, 1, 2, 3])(W, X, target=1)
    others = lrp.concept_relevance(net(written), lrp.AttnLRP(), "MatMul:1", range(4), axis=-1)(
        W, X, target=1
    )
    np.testing.assert_allclose(concepts, others, rtol=1e-9, atol=1e-12)
    weights = lrp.parameter_relevance(f, composite)(W, X, target=1)
    for name, r in lrp.parameter_relevance(net(written), lrp.AttnLRP())(W, X, target=1).items():
        np.testing.assert_allclose(weights[name], r, rtol=1e-9, atol=1e-12)


def test_explanations_of_calls_are_jax_functions() -> None:
    explain = lrp.relevance(net(KERNELS["named"]), lrp.AttnLRP(attention="named"))
    plain = lrp.relevance(net(written), lrp.AttnLRP())
    ask = lambda e: lambda x: e(W, x, target=1)  # noqa: E731
    np.testing.assert_allclose(jax.jit(ask(explain))(X), ask(plain)(X), rtol=1e-9)
    both = jnp.stack([X, 2 * X])
    np.testing.assert_allclose(jax.vmap(ask(explain))(both), jax.vmap(ask(plain))(both), rtol=1e-9)
    grad = lambda e: jax.grad(lambda x: (ask(e)(x) ** 2).sum())(X)  # noqa: E731
    np.testing.assert_allclose(grad(explain), grad(plain), rtol=1e-8, atol=1e-10)


# -- calls of one operand -----------------------------------------------------------------------


def _host_tanh(x: jax.Array) -> jax.Array:
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    result: jax.Array = jax.pure_callback(np.tanh, shape, x, vmap_method="sequential")
    return result


@jax.custom_vjp
def host_tanh(x: jax.Array) -> jax.Array:
    return _host_tanh(x)


host_tanh.defvjp(lambda x: (_host_tanh(x), x), lambda x, g: (g * (1 - jnp.tanh(x) ** 2),))


def test_an_elementwise_kernel_passes() -> None:
    called = lambda w, x: host_tanh(x @ w["q"]) @ w["o"]  # noqa: E731
    plain = lambda w, x: jnp.tanh(x @ w["q"]) @ w["o"]  # noqa: E731
    composite = lrp.EpsilonPlus().override((lrp.call("host_tanh"), lrp.Pass()))
    np.testing.assert_allclose(
        lrp.relevance(called, composite)(W, X),
        lrp.relevance(plain, lrp.EpsilonPlus())(W, X),
        rtol=1e-9,
    )


def test_pass_needs_no_derivative() -> None:
    kernel = lrp.as_layer(_host_tanh, name="kernel")
    called = lambda w, x: kernel(x @ w["q"]) @ w["o"]  # noqa: E731
    plain = lambda w, x: jnp.tanh(x @ w["q"]) @ w["o"]  # noqa: E731
    composite = lrp.EpsilonPlus().override((lrp.call("kernel"), lrp.Pass()))
    np.testing.assert_allclose(
        lrp.relevance(called, composite)(W, X),
        lrp.relevance(plain, lrp.EpsilonPlus())(W, X),
        rtol=1e-9,
    )
    other = lrp.EpsilonPlus().override((lrp.call("kernel"), lrp.Epsilon()))
    with pytest.raises(lrp.UnsupportedOperation, match=r"kernel.*no derivative.*custom_vjp"):
        lrp.plan(called, other)(W, X)


@pytest.mark.parametrize("rule", [lrp.Epsilon(0.1), lrp.Zero(), lrp.Norm(0.2), lrp.Relative()])
@pytest.mark.parametrize("below", [lrp.Epsilon(), lrp.Flat()])
def test_a_linear_kernel_follows_the_rules_of_linear_layers(rule: Any, below: Any) -> None:
    kernel = lrp.as_layer(lambda x, w: jnp.cumsum(x, 0) @ w, name="kernel")
    called = lambda w, x: jax.nn.relu(kernel(x @ w["q"], w["v"])) @ w["o"]  # noqa: E731
    fixed = jnp.tril(jnp.ones((5, 5)))
    plain = lambda w, x: jax.nn.relu((fixed @ (x @ w["q"])) @ w["v"]) @ w["o"]  # noqa: E731
    weights = {**W, "whole": jnp.einsum("ij,kl->ikjl", fixed, W["v"].T)}

    def dense(w: Any, x: jax.Array) -> jax.Array:
        h = jnp.einsum("ikjl,jl->ik", w["whole"], x @ w["q"])
        return jax.nn.relu(h) @ w["o"]

    np.testing.assert_allclose(called(W, X), plain(W, X))
    composite = lrp.Composite([(lrp.call("kernel"), rule), (lrp.first(lrp.Dense), below)])
    other = lrp.Composite(
        [(lrp.first(lrp.Dense), below), (lrp.last(lrp.Dense), lrp.Epsilon()), (lrp.Dense, rule)]
    )
    np.testing.assert_allclose(
        lrp.relevance(called, composite)(W, X), lrp.relevance(dense, other)(weights, X), rtol=1e-8
    )
    ledger = lrp.conservation(called, composite)(W, X)
    np.testing.assert_allclose(ledger.elsewhere, 0, atol=1e-9)
    if isinstance(rule, lrp.Epsilon):
        assert abs(ledger.rows["kernel"]["stabiliser"]) > 1e-4
        np.testing.assert_allclose(ledger.rows["kernel"]["rule"], 0, atol=1e-9)


def test_rules_of_one_operand_refuse_more() -> None:
    for rule in (lrp.Epsilon(), lrp.Zero(), lrp.Pass()):
        composite = lrp.AttnLRP().override((lrp.call("flash*"), rule))
        with pytest.raises(ValueError, match=r"one explained operand.*3 explained.*Weighted"):
            lrp.plan(net(flash_attention), composite)(W, X)


def test_rules_of_contributions_do_not_serve_calls() -> None:
    composite = lrp.AttnLRP().override((lrp.call("flash*"), lrp.Gamma()))
    with pytest.raises(TypeError, match=r"flash_attention \(Call\)"):
        lrp.plan(net(flash_attention), composite)(W, X)


# -- several outputs -----------------------------------------------------------------------------


def test_other_outputs_may_be_there_if_they_carry_no_relevance() -> None:
    def both(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
        s = q @ k.T
        return s.argmax(-1), written(q, k, v), jax.nn.logsumexp(s, -1)

    kernel = lrp.as_layer(both, name="kernel")

    def apply(w: Any, x: jax.Array) -> jax.Array:
        chosen, h, total = kernel(x @ w["q"], x @ w["k"], x @ w["v"])
        mask = (jax.lax.stop_gradient(total) > 0) & (chosen >= 0)
        return jax.nn.relu(jnp.where(mask[:, None], h, 0) @ w["o"])[-1:]

    def plain(w: Any, x: jax.Array) -> jax.Array:
        q, k, v = (x @ w[n] for n in "qkv")
        mask = jax.lax.stop_gradient(jax.nn.logsumexp(q @ k.T, -1)) > 0
        return jax.nn.relu(jnp.where(mask[:, None], written(q, k, v), 0) @ w["o"])[-1:]

    found = lrp.relevance(apply, lrp.AttnLRP(attention="kernel"))(W, X, target=1)
    np.testing.assert_allclose(
        found, lrp.relevance(plain, lrp.AttnLRP())(W, X, target=1), rtol=1e-9, atol=1e-12
    )

    single = lrp.as_layer(lambda x: (x.argmax(-1), 2 * x, x.max(-1)), name="kernel")

    def one(w: Any, x: jax.Array) -> jax.Array:
        chosen, h, top = single(x)
        return (h * (chosen[:, None] >= 0) * (jax.lax.stop_gradient(top)[:, None] > -99)) @ w["o"]

    for rule in (lrp.Pass(), lrp.Epsilon(0.1), lrp.Weighted(1.0), lrp.Hold()):
        composite = lrp.EpsilonPlus().override((lrp.call("kernel"), rule))
        plain_rule = lrp.EpsilonPlus()
        got = lrp.relevance(one, composite)(W, X)
        wanted = lrp.relevance(lambda w, x: (2 * x) @ w["o"], plain_rule)(W, X)
        if isinstance(rule, lrp.Epsilon):
            z = 2 * X
            wanted = wanted * z / (z + 0.1 * jnp.where(z >= 0, 1, -1))
        wanted = jnp.zeros_like(X) if isinstance(rule, lrp.Hold) else wanted
        np.testing.assert_allclose(got, wanted, rtol=1e-8)


def test_two_outputs_that_carry_relevance_are_refused() -> None:
    kernel = lrp.as_layer(lambda x: (x, 2 * x), name="kernel")
    f = lambda w, x: sum(kernel(x)) @ w["o"]  # noqa: E731
    assert lrp.relevance(f, lrp.Zero())(W, X).shape == X.shape
    composite = lrp.AttnLRP().override((lrp.call("kernel"), lrp.Weighted()))
    with pytest.raises(lrp.UnsupportedOperation, match="2 outputs of the called function `kernel`"):
        lrp.plan(f, composite)(W, X)


# -- names, and what is refused -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["flash_attention", "host_attention"])
def test_an_opaque_call_without_an_entry_is_refused_with_the_remedy(name: str) -> None:
    with pytest.raises(lrp.UnsupportedOperation) as error:
        lrp.plan(net(KERNELS[name]), lrp.AttnLRP())(W, X)
    assert f'(lrp.call("{name}"), lrp.Weighted(...))' in str(error.value)
    with pytest.raises(lrp.UnsupportedOperation, match=r"as_layer.*lrp.call|lrp.as_layer"):
        lrp.plan(lambda w, x: _host_tanh(x), lrp.Zero())(W, X)


def test_a_function_that_is_refused_may_be_named_by_its_own_name() -> None:
    prod = jax.jit(lambda x: jnp.ones((len(x), 1)).at[:, jnp.zeros(4, int)].multiply(x))
    prod.__wrapped__.__name__ = "prod"
    f = lambda w, x: prod(x @ w["q"])  # noqa: E731
    with pytest.raises(lrp.UnsupportedOperation, match=r'lrp.call\("prod"\)'):
        lrp.plan(f, lrp.Zero())(W, X)
    composite = lrp.Composite([(lrp.call("prod"), lrp.Hold()), (lrp.Dense, lrp.Zero())])
    found = lrp.relevance(f, composite)(W, X, target=lambda y: y)
    np.testing.assert_array_equal(found, 0)


def test_a_pallas_kernel_by_its_own_name() -> None:
    composite = lrp.AttnLRP(attention="inner_kernel")
    with pytest.raises(lrp.UnsupportedOperation, match=r"`inner_kernel`.*no derivative"):
        lrp.plan(net(_pallas), composite)(W, X)
    held = lrp.AttnLRP().override((lrp.call("inner_kernel"), lrp.Hold()))
    found = lrp.relevance(net(_pallas), held)(W, X, target=1)
    kept = lambda *qkv: jax.lax.stop_gradient(written(*qkv))  # noqa: E731
    wanted = lrp.relevance(net(kept), lrp.AttnLRP())(W, X, target=1)
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


def test_a_composite_that_does_not_speak_of_a_name_sees_the_code_inside() -> None:
    kernel = KERNELS["named"]
    labels = [y.kind.label for y in lrp.plan(net(kernel), lrp.AttnLRP())(W, X).layers]
    assert labels == [y.kind.label for y in lrp.plan(net(written), lrp.AttnLRP())(W, X).layers]
    np.testing.assert_allclose(
        lrp.relevance(net(kernel), lrp.AttnLRP())(W, X),
        lrp.relevance(net(written), lrp.AttnLRP())(W, X),
        rtol=1e-12,
    )


def test_as_layer_changes_no_value() -> None:
    calls: list[int] = []

    def function(x: jax.Array, scale: float, *, flip: bool = False, note: str = "") -> Any:
        calls.append(1)
        return {"a": -x * scale if flip else x * scale, "note": None}

    named = lrp.as_layer(function, name="f")
    assert named.__name__ == "function"
    for f in (named, jax.jit(named, static_argnames=("flip", "note", "scale"))):
        np.testing.assert_array_equal(f(X, 2.0, flip=True, note="x")["a"], -2 * X)
    np.testing.assert_array_equal(jax.vmap(lambda x: named(x, 3.0)["a"])(X), 3 * X)
    np.testing.assert_array_equal(jax.grad(lambda x: named(x, 3.0)["a"].sum())(X), 3 + 0 * X)
    closed = lambda y: lrp.as_layer(lambda x: x * y, name="f")(X).sum()  # noqa: E731
    np.testing.assert_allclose(jax.grad(closed)(2.0), X.sum())


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: lrp.as_layer(3, name="f"), TypeError, "takes a function"),  # type: ignore[arg-type]
        (lambda: lrp.as_layer(written, name=3), TypeError, "a string"),  # type: ignore[arg-type]
        (lambda: lrp.as_layer(written, name=""), ValueError, "not empty"),
        (lambda: lrp.as_layer(written, name="a/b"), ValueError, "without '/'"),
        (lambda: lrp.call(written), TypeError, "as_layer"),  # type: ignore[arg-type]
        (lambda: lrp.call(""), ValueError, "empty"),
        (lambda: lrp.Weighted([0.5, 0.5]), TypeError, "one number"),
        (lambda: lrp.Weighted(True), TypeError, "one number"),
        (lambda: lrp.Weighted("half"), TypeError, "one number"),
    ],
)
def test_mistakes_are_named(make: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        make()


def test_a_name_that_nobody_calls_is_reported() -> None:
    composite = lrp.AttnLRP(attention="flsh*")
    assert "lrp.call('flsh*')" in str(lrp.plan(net(written), composite)(W, X))
    with pytest.warns(UserWarning, match="matches no layer.*as_layer"):
        lrp.relevance(net(written), composite)(W, X)


def test_an_entry_that_speaks_of_some_calls_only() -> None:
    twice = lambda w, x: net(flash_attention)(w, net(flash_attention)(w, x) + x)  # noqa: E731
    spec = lrp.first(lrp.call("flash*"))
    with pytest.raises(lrp.UnsupportedOperation, match=r"flash_attention:1.*no entry serves it"):
        lrp.plan(twice, lrp.AttnLRP().override((spec, lrp.Weighted())))(W, X)
    other = lrp.AttnLRP(attention="flash*").override((spec, lrp.Hold()))
    rules = [y.rule for y in lrp.plan(twice, other)(W, X).layers if y.kind <= lrp.Call]
    assert rules == ["Hold()", "Weighted(0.25, 0.25, 0.5)"]


def test_weights_may_be_traced() -> None:
    f = net(flash_attention)

    def explain(a: jax.Array) -> jax.Array:
        rule = lrp.Weighted(a, a, 1 - 2 * a)
        found: jax.Array = lrp.relevance(f, lrp.AttnLRP().override((lrp.call("flash*"), rule)))(
            W, X, target=1
        )
        return found

    grid = jnp.array([0.25, 0.0])
    for r, make in zip(jax.vmap(explain)(grid), (lrp.AttnLRP, lrp.CPLRP), strict=True):
        wanted = lrp.relevance(f, make(attention="flash*"))(W, X, target=1)
        np.testing.assert_allclose(r, wanted, rtol=1e-8, atol=1e-11)


def test_half_precision() -> None:
    w = jax.tree.map(lambda a: a.astype(jnp.bfloat16), W)
    x = X.astype(jnp.bfloat16)
    found = lrp.relevance(net(flash_attention), lrp.AttnLRP(attention="flash*"))(w, x, target=1)
    wanted = lrp.relevance(net(written), lrp.AttnLRP())(w, x, target=1)
    assert found.dtype == jnp.bfloat16
    assert float(jnp.abs(found - wanted).max()) < 0.1 * float(jnp.abs(wanted).max())
