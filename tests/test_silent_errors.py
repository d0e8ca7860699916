"""Where relevance is easily wrong without any message: each case against an independent answer."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrp_jax as lrp
from lrp_jax.testing import ExplicitLayer, assert_close, signed_start

RNG = np.random.default_rng(11)
X = RNG.normal(size=(3, 4))
W = {
    "a": jnp.asarray(RNG.normal(size=(4, 4))),
    "b": jnp.asarray(RNG.normal(size=(4, 4))),
    "top": jnp.asarray(RNG.normal(size=(8, 2))),
}


def dense(w: jax.Array, x: Any) -> jax.Array:
    return x @ w


def below(rule: lrp.Rule, w: jax.Array, x: Any, relevance: Any) -> np.ndarray:
    """The oracle's relevance of the input of a dense layer."""
    return ExplicitLayer.of(dense, w, x).propagate(rule, x, relevance)


def shares(parts: list[np.ndarray], relevance: Any, epsilon: float = 1e-6) -> list[np.ndarray]:
    """The proportional split of a sum among its parts."""
    total = sum(parts)
    total = total + epsilon * np.where(total < 0, -1.0, 1.0)
    return [np.asarray(part) * relevance / total for part in parts]


@pytest.mark.parametrize("rule", [lrp.Epsilon(0.1), lrp.ZPlus(), lrp.WSquare()], ids=repr)
def test_a_sum_written_as_an_operator(rule: lrp.Rule) -> None:
    start = signed_start(dense, W["a"], X)
    relevance = lrp.relevance(lambda w, x: x + x @ w, rule)(W["a"], X, target=lambda _: start)
    skip, branch = shares([X, X @ np.asarray(W["a"])], start)
    assert_close(relevance, skip + below(rule, W["a"], X, branch), 1e-9)


def test_a_concatenation() -> None:
    def model(w: Any, x: jax.Array) -> jax.Array:
        return jnp.concatenate([x @ w["a"], nn.relu(x @ w["b"])], -1) @ w["top"]

    rule = lrp.Gamma(0.5)
    start = signed_start(model, W, X)
    hidden = np.concatenate([X @ W["a"], np.maximum(X @ W["b"], 0)], -1)
    at_hidden = below(rule, W["top"], hidden, start)
    expected = below(rule, W["a"], X, at_hidden[:, :4]) + below(rule, W["b"], X, at_hidden[:, 4:])
    assert_close(lrp.relevance(model, rule)(W, X, target=lambda _: start), expected, 1e-9)


@pytest.mark.parametrize(
    "activation",
    [
        jax.nn.gelu,
        lambda x: jax.nn.gelu(x, approximate=False),
        jax.nn.silu,
        lambda x: x * jax.nn.sigmoid(x),
        lambda x: 0.5 * x * (1 + jnp.tanh(0.8 * (x + 0.04 * x**3))),
        lambda x: jnp.where(x > 0, x, jnp.expm1(x)),
        lambda x: jnp.maximum(x, 0.1 * x),
        lambda x: x**2,
        jnp.tanh,
        jax.nn.sigmoid,
    ],
)
def test_an_activation_hands_on_what_it_gets(activation: Any) -> None:
    """Not its gradient: gelu is no layer of its own in many libraries."""

    def model(w: Any, x: jax.Array) -> jax.Array:
        return activation(x @ w["a"]) @ w["b"]

    rule = lrp.Epsilon(0.1)
    start = signed_start(model, W, X)
    hidden = np.asarray(activation(X @ W["a"]))
    expected = below(rule, W["a"], X, below(rule, W["b"], hidden, start))
    assert_close(lrp.relevance(model, rule)(W, X, target=lambda _: start), expected, 1e-9)


@pytest.mark.parametrize("rule", [lrp.Epsilon(0.1), lrp.Flat(), lrp.Gamma()], ids=repr)
def test_a_module_used_twice(rule: lrp.Rule) -> None:
    def model(w: Any, x: jax.Array) -> jax.Array:
        return nn.relu(x @ w) @ w

    start = signed_start(dense, W["a"], X)
    hidden = np.maximum(X @ W["a"], 0)
    expected = below(rule, W["a"], X, below(rule, W["a"], hidden, start))
    assert_close(lrp.relevance(model, rule)(W["a"], X, target=lambda _: start), expected, 1e-9)


def test_batch_norm_defined_in_another_order_than_it_is_called() -> None:
    class Network(nn.Module):
        def setup(self) -> None:
            self.norm = nn.BatchNorm(use_running_average=True)
            self.dense = nn.Dense(3)

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.norm(self.dense(x))

    shapes = jax.eval_shape(Network().init, jax.random.key(0), X)
    params = jax.tree.map(lambda leaf: jnp.asarray(RNG.uniform(0.5, 2, leaf.shape)), shapes)
    rule = lrp.ZPlus()
    start = signed_start(Network().apply, params, X)
    expected = ExplicitLayer.of(Network().apply, params, X).propagate(rule, X, start)
    actual = lrp.relevance(Network().apply, rule)(params, X, target=lambda _: start)
    assert_close(actual, expected, 1e-9)


def test_a_norm_followed_by_relu_and_dense_is_not_folded_into_the_dense() -> None:
    class Network(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return nn.Dense(2)(nn.relu(nn.BatchNorm(use_running_average=True)(x)))

    shapes = jax.eval_shape(Network().init, jax.random.key(0), X)
    params = jax.tree.map(lambda leaf: jnp.asarray(RNG.uniform(0.5, 2, leaf.shape)), shapes)
    norm, kernel = params["params"]["BatchNorm_0"], params["params"]["Dense_0"]
    stats = params["batch_stats"]["BatchNorm_0"]
    scaled = (X - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * norm["scale"] + norm["bias"]
    start = signed_start(Network().apply, params, X)

    def top(p: Any, h: jax.Array) -> jax.Array:
        return h @ p["kernel"] + p["bias"]

    hidden = np.maximum(scaled, 0)
    expected = ExplicitLayer.of(top, kernel, hidden).propagate(lrp.Flat(), hidden, start)
    actual = lrp.relevance(Network().apply, lrp.Flat())(params, X, target=lambda _: start)
    assert_close(actual, expected, 1e-9)


def model(w: Any, x: jax.Array) -> jax.Array:
    return jnp.concatenate([x, nn.relu(x @ w["a"]) + x @ w["b"]], -1) @ w["top"]


def test_the_second_call_is_like_the_first() -> None:
    explain = lrp.relevance(model, lrp.EpsilonPlus())
    first = explain(W, X)
    other = explain(jax.tree.map(lambda leaf: 2 * leaf, W), -X[:1])
    np.testing.assert_array_equal(explain(W, X), first)
    assert other.shape == (1, 4)


def test_a_composite_serves_several_models() -> None:
    composite = lrp.EpsilonPlusFlat()
    first = lrp.relevance(model, composite)(W, X)
    lrp.relevance(dense, composite)(W["a"], X)
    np.testing.assert_array_equal(lrp.relevance(model, composite)(W, X), first)


def test_weights_are_left_as_they_were() -> None:
    before = jax.tree.map(np.array, W)
    lrp.relevance(model, lrp.AlphaBeta(2.0, 1.0))(W, X)
    jax.tree.map(np.testing.assert_array_equal, before, W)


@pytest.mark.slow
def test_threads_do_not_disturb_each_other() -> None:
    rules = [lrp.Epsilon(), lrp.Gamma(), lrp.ZPlus(), lrp.Flat(), lrp.AlphaBeta(2.0, 1.0)]

    def explain(rule: lrp.Rule) -> np.ndarray:
        return np.asarray(lrp.relevance(model, rule)(W, X))

    expected = [explain(rule) for rule in rules]
    with ThreadPoolExecutor(4) as pool:
        for actual, wanted in zip(pool.map(explain, rules * 4), expected * 4, strict=True):
            np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("layout", ["scalar", "channels", "pixels", "batch"])
def test_bounds_align_from_the_right(batch: int, layout: str) -> None:
    """Three channels and three examples: bounds per channel must not land on the examples."""
    x = RNG.uniform(-1, 1, size=(batch, 5, 5, 3))
    low, high = {
        "scalar": (-1.5, 1.5),
        "channels": (np.array([-3.0, -2.0, -1.0]), np.array([1.0, 2.0, 3.0])),
        "pixels": (x[0] - 1.0, x[0] + 3.0),
        "batch": (x - 1.0, x + 2.0),
    }[layout]
    conv = nn.Conv(2, (3, 3))
    params = conv.init(jax.random.key(0), x)
    start = signed_start(conv.apply, params, x)
    explicit = ExplicitLayer.of(conv.apply, params, x)
    bounds = [np.broadcast_to(bound, x.shape) for bound in (low, high)]
    expected = [
        explicit.propagate(lrp.ZBox(*bound), x[i : i + 1], start[i : i + 1])[0]
        for i, bound in enumerate(zip(*bounds, strict=True))
    ]
    explain = lrp.relevance(conv.apply, lrp.ZBox(low, high))
    assert_close(explain(params, x, target=lambda _: start), np.stack(expected), 1e-9)


def test_several_inputs_share_the_relevance() -> None:
    """Not each the whole of it."""

    def apply_fn(w: Any, a: jax.Array, b: jax.Array) -> jax.Array:
        return a @ w["a"] + b @ w["b"]

    a, b = X, RNG.normal(size=(3, 4))
    start = signed_start(dense, W["a"], X)
    explain = lrp.relevance(apply_fn, lrp.Zero(), argnums=(1, 2))
    of_a, of_b = explain(W, a, b, target=lambda _: start)
    part_a, part_b = shares([a @ W["a"], b @ W["b"]], start, 0.0)
    assert_close(of_a, below(lrp.Zero(), W["a"], a, part_a), 1e-9)
    assert_close(of_b, below(lrp.Zero(), W["b"], b, part_b), 1e-9)


def test_values_may_be_looked_at_on_the_way() -> None:
    """`jax.debug` prints and callbacks have no results, in a body neither."""

    def apply(w: Any, x: jax.Array) -> jax.Array:
        h = x @ w
        jax.debug.callback(lambda *values: None, h, h.mean())

        def turn(h: jax.Array, _: None) -> tuple[jax.Array, None]:
            jax.debug.callback(lambda value: None, h)
            return jax.nn.relu(h @ w), None

        h, _ = jax.lax.scan(turn, jax.nn.relu(h), None, length=3)
        return jax.checkpoint(lambda h: [jax.debug.callback(lambda v: None, h), h @ w][1])(h)

    def silent(w: Any, x: jax.Array) -> jax.Array:
        h = jax.nn.relu(x @ w)
        for _ in range(3):
            h = jax.nn.relu(h @ w)
        return h @ w

    w, x = jax.random.normal(jax.random.key(0), (4, 4)), jnp.ones((2, 4))
    for rule in (lrp.Epsilon(), lrp.ZPlus(), lrp.AttnLRP()):
        found = lrp.relevance(apply, rule)(w, x, target=1)
        np.testing.assert_allclose(found, lrp.relevance(silent, rule)(w, x, target=1), atol=1e-9)
