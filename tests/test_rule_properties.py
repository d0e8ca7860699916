"""What must hold for every rule, whatever the numbers: hypothesis over the table of rules.

Numbers are multiples of a quarter, so sums are exact: a neuron is zero, or it is far from zero.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st

import lrp_jax as lrp
from lrp_jax.testing import assert_close, assert_conserves, assert_linear

few = settings(max_examples=20, deadline=None)

TINY = 1e-12
KEEPS_ALL = [
    make(bias)
    for bias in ("ignore", "distribute")
    for make in (
        lambda bias: lrp.Epsilon(TINY, bias=bias),
        lambda bias: lrp.Zero(bias=bias),
        lambda bias: lrp.Gamma(0.3141, TINY, bias=bias),
        lambda bias: lrp.ZPlus(TINY, bias=bias),
        lambda bias: lrp.AlphaBeta(2.0, 1.0, TINY, bias=bias),
    )
]
KEEPS_ALL_WITHOUT_A_BIAS = [
    lrp.Epsilon(TINY),
    lrp.Gamma(0.5, TINY),
    lrp.ZPlus(TINY),
    lrp.AlphaBeta(2.0, 1.0, TINY),
    lrp.ZBox(-3.0, 3.0, TINY),
    lrp.WSquare(TINY),
    lrp.Flat(TINY),
    lrp.Norm(TINY),
]
ALL = [
    lrp.Epsilon(0.5, bias="distribute"),
    lrp.Zero(),
    lrp.Gamma(0.25, bias="ignore"),
    lrp.ZPlus(),
    lrp.AlphaBeta(3.0, 2.0),
    lrp.ZBox(-1.0, 2.0),
    lrp.WSquare(),
    lrp.Flat(),
    lrp.Norm(),
    lrp.Relative(),
]


def quarters(*shape: int) -> st.SearchStrategy[np.ndarray]:
    """Multiples of 1/4 from -2 to 2, a quarter of them zero."""

    def fill(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return rng.integers(-8, 9, shape) / 4 * (rng.random(shape) > 0.2)

    return st.integers(0, 2**32 - 1).map(fill)


def networks(*widths: int, bias: bool = True) -> st.SearchStrategy[list[dict[str, np.ndarray]]]:
    return st.tuples(
        *(
            st.fixed_dictionaries(
                {
                    "kernel": quarters(inputs, outputs),
                    "bias": quarters(outputs) if bias else st.just(np.zeros(outputs)),
                }
            )
            for inputs, outputs in itertools.pairwise(widths)
        )
    ).map(list)


def mlp(layers: list[dict[str, jax.Array]], x: jax.Array) -> jax.Array:
    for i, layer in enumerate(layers):
        x = x @ layer["kernel"] + layer["bias"]
        x = jax.nn.relu(x) if i < len(layers) - 1 else x
    return x


@functools.cache
def explain(rule: lrp.Rule) -> Callable[..., jax.Array]:
    """Compiled once for each rule and depth; the target is a function of the output."""
    compiled = jax.jit(
        lambda layers, x, start: lrp.relevance(mlp, rule)(layers, x, target=lambda _: start)
    )

    def explained(layers: Any, x: Any, target: Callable[[jax.Array], Any]) -> jax.Array:
        return compiled(layers, x, target(mlp(layers, x)))

    return explained


def can_share(layer: dict[str, Any], x: Any, with_bias: bool) -> np.ndarray:
    """Where a neuron is not zero and has contributions of both signs, so that no rule loses any."""
    contributions = x[:, :, None] * layer["kernel"]
    total = contributions.sum(1) + with_bias * layer["bias"]
    return (total != 0) & (contributions > 0).any(1) & (contributions < 0).any(1)


@pytest.mark.parametrize("rule", KEEPS_ALL, ids=repr)
@few
@given(layers=networks(4, 3), x=quarters(2, 4), start=quarters(2, 3))
def test_relevance_is_conserved_with_a_bias(
    rule: lrp.Rule, layers: Any, x: Any, start: Any
) -> None:
    start = start * can_share(layers[0], x, rule.bias == "distribute")
    # The sign of the output as it is, its bias included, chooses what gamma favours.
    start = start * (hidden(layers, x) != 0)
    assert_conserves(explain(rule), layers, x, start=start, tol=1e-8)


@pytest.mark.parametrize("rule", KEEPS_ALL_WITHOUT_A_BIAS, ids=repr)
@few
@given(layers=networks(4, 3, bias=False), x=quarters(2, 4), start=quarters(2, 3))
def test_relevance_is_conserved_without(rule: lrp.Rule, layers: Any, x: Any, start: Any) -> None:
    start = start * can_share(layers[0], x, False)
    assert_conserves(explain(rule), layers, x, start=start, tol=1e-8)


def hidden(layers: Any, x: Any) -> np.ndarray:
    return x @ layers[0]["kernel"] + layers[0]["bias"]


@few
@given(layers=networks(4, 5, 3), x=quarters(2, 4))
def test_a_network_conserves_its_logits(layers: Any, x: Any) -> None:
    assume(np.all(hidden(layers, x)))
    rule = lrp.Epsilon(TINY, bias="distribute")
    assert_conserves(explain(rule), layers, x, start=mlp(layers, x), tol=1e-8)


@pytest.mark.parametrize("rule", ALL, ids=repr)
@few
@given(layers=networks(4, 5, 3), x=quarters(2, 4), starts=st.tuples(*2 * [quarters(2, 3)]))
def test_the_explanation_is_linear_in_the_start(
    rule: lrp.Rule, layers: Any, x: Any, starts: Any
) -> None:
    assert_linear(explain(rule), layers, x, starts=starts)


@pytest.mark.parametrize("rule", ALL, ids=repr)
@few
@given(
    layers=networks(4, 5, 3),
    x=quarters(2, 4),
    start=quarters(2, 3),
    order=st.permutations(range(5)),
)
def test_the_order_of_hidden_units_does_not_matter(
    rule: lrp.Rule, layers: Any, x: Any, start: Any, order: list[int]
) -> None:
    lower, upper = layers
    permuted = [
        {"kernel": lower["kernel"][:, order], "bias": lower["bias"][order]},
        {"kernel": upper["kernel"][order], "bias": upper["bias"]},
    ]
    expected = explain(rule)(layers, x, lambda _: start)
    assert_close(explain(rule)(permuted, x, lambda _: start), expected, 1e-9)


@pytest.mark.parametrize("rule", ALL, ids=repr)
@few
@given(
    layers=networks(4, 5, 3),
    x=quarters(2, 4),
    start=quarters(2, 3),
    order=st.permutations(range(4)),
)
def test_the_relevance_follows_the_order_of_the_inputs(
    rule: lrp.Rule, layers: Any, x: Any, start: Any, order: list[int]
) -> None:
    permuted = [{**layers[0], "kernel": layers[0]["kernel"][order]}, layers[1]]
    expected = explain(rule)(layers, x, lambda _: start)[:, order]
    assert_close(explain(rule)(permuted, x[:, order], lambda _: start), expected, 1e-9)


@pytest.mark.parametrize("rule", [lrp.Epsilon(TINY), lrp.Zero()], ids=repr)
@few
@given(layers=networks(4, 5, 3, bias=False), x=quarters(2, 4), weighting=quarters(2, 3))
def test_without_biases_epsilon_tends_to_gradient_times_input(
    rule: lrp.Rule, layers: Any, x: Any, weighting: Any
) -> None:
    weighting = weighting * (mlp(layers, x) != 0)  # no relevance starts at an output of zero
    gradient = jax.grad(lambda x: jnp.sum(weighting * mlp(layers, x)))(x)
    relevance = explain(rule)(layers, x, lambda output: weighting * output)
    assert_close(relevance, gradient * x, 1e-9)


@few
@given(layers=networks(4, 5, 3), x=quarters(2, 4), start=quarters(2, 3))
def test_alpha_one_is_zplus(layers: Any, x: Any, start: Any) -> None:
    alpha_one = explain(lrp.AlphaBeta(1.0, 0.0))(layers, x, lambda _: start)
    assert_close(alpha_one, explain(lrp.ZPlus())(layers, x, lambda _: start), 1e-12)


@pytest.mark.parametrize("bias", ["absorb", "ignore", "distribute"])
@few
@given(layers=networks(4, 5, 3), x=quarters(2, 4), start=quarters(2, 3))
def test_gamma_zero_is_epsilon(bias: str, layers: Any, x: Any, start: Any) -> None:
    """Except that gamma keeps nothing for a neuron that is exactly zero."""
    assume(np.all(hidden(layers, x)))
    start = start * (np.asarray(mlp(layers, x)) != 0)
    gamma = explain(lrp.Gamma(0.0, 0.25, bias=bias))(layers, x, lambda _: start)
    epsilon = explain(lrp.Epsilon(0.25, bias=bias))(layers, x, lambda _: start)
    assert_close(gamma, epsilon, 1e-9)


@few
@given(layers=networks(4, 3), x=quarters(2, 4), weighting=quarters(2, 3))
def test_a_large_gamma_tends_to_zplus_for_positive_outputs(
    layers: Any, x: Any, weighting: Any
) -> None:
    def positive(output: jax.Array) -> jax.Array:
        return weighting * jax.nn.relu(output)

    gamma = explain(lrp.Gamma(1e9, TINY))(layers, x, positive)
    assert_close(gamma, explain(lrp.ZPlus(TINY))(layers, x, positive), 1e-6)


EXTREME = st.sampled_from([0.0, -0.0, 1e-30, -1e-30, 1.0, -1.0, 1e15, -1e15])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rule", [rule for rule in ALL if rule != lrp.Zero()], ids=repr)
@few
@given(data=st.data())
def test_finite_numbers_stay_finite(rule: lrp.Rule, dtype: Any, data: Any) -> None:
    def extremes(*shape: int) -> np.ndarray:
        return data.draw(hnp.arrays(dtype, shape, elements=EXTREME.map(dtype)))

    layers = [{"kernel": extremes(4, 3), "bias": extremes(3)}]
    relevance = explain(rule)(layers, extremes(2, 4), jnp.ones_like)
    assert relevance.dtype == dtype
    assert np.isfinite(relevance).all()


@pytest.mark.parametrize("rule", [*ALL, *KEEPS_ALL, lrp.Pass(), lrp.BetaSmooth(3.0)], ids=repr)
def test_rules_are_values(rule: lrp.Rule) -> None:
    again = eval(repr(rule), {**vars(lrp), "np": np})
    assert again == rule
    assert hash(again) == hash(rule)
    assert {rule: 1}[again] == 1


def test_different_rules_differ() -> None:
    distinct = [*ALL, *KEEPS_ALL, lrp.Epsilon(), lrp.Pass(), lrp.Identity(), lrp.Taylor()]
    assert len(set(distinct)) == len(distinct)
    assert lrp.Epsilon(0.0) != lrp.Zero()


def test_bounds_given_as_arrays_are_values_too() -> None:
    rule = lrp.ZBox(low=jnp.zeros(3), high=np.array([1.0, 2.0, 3.0]))
    assert rule == lrp.ZBox(low=np.zeros(3), high=jnp.array([1.0, 2.0, 3.0]))
    assert rule != lrp.ZBox(low=np.zeros(3), high=np.array([1.0, 2.0, 4.0]))
    assert hash(rule) == hash(lrp.ZBox(low=np.zeros(3), high=np.array([1.0, 2.0, 3.0])))
    assert eval(repr(rule), {**vars(lrp), "np": np}) == rule


@pytest.mark.parametrize("rule", [lrp.Epsilon(), lrp.Gamma(), lrp.ZBox(-1.0, 1.0)], ids=repr)
def test_rules_cannot_be_changed(rule: lrp.Rule) -> None:
    with pytest.raises(AttributeError):
        rule.bias = "ignore"  # type: ignore[attr-defined]


@pytest.mark.parametrize("rule", ALL, ids=repr)
def test_same_under_jit_and_vmap(rule: lrp.Rule) -> None:
    rng = np.random.default_rng(3)
    shapes = [(4, 5), (5, 3)]
    layers = [{"kernel": rng.normal(size=s), "bias": rng.normal(size=s[1])} for s in shapes]
    x, start = rng.normal(size=(3, 4)), rng.normal(size=(3, 3))

    def one(x: Any, start: Any) -> jax.Array:
        return lrp.relevance(mlp, rule)(layers, x, target=lambda _: start)

    expected = one(x, start)
    for transformed in (
        jax.jit(one),
        jax.vmap(one),
        jax.jit(jax.vmap(one)),
        jax.vmap(jax.jit(one)),
    ):
        assert_close(transformed(x, start), expected, 1e-12)


@pytest.mark.parametrize(
    "make", [lrp.Gamma, lrp.Epsilon, lambda beta: lrp.AlphaBeta(1 + beta, beta)]
)
def test_parameters_of_rules_may_be_traced(make: Callable[..., lrp.Rule]) -> None:
    rng = np.random.default_rng(3)
    layers = [{"kernel": rng.normal(size=(4, 3)), "bias": rng.normal(size=3)}]
    x, start = rng.normal(size=(2, 4)), rng.normal(size=(2, 3))

    def by(value: Any) -> jax.Array:
        return lrp.relevance(mlp, make(value))(layers, x, target=lambda _: start)

    values = [0.25, 0.5, 2.0]
    assert_close(jax.vmap(by)(jnp.array(values)), np.stack([by(v) for v in values]), 1e-12)


def test_half_precision_is_stabilised() -> None:
    """1e-6 vanishes beside 1 in bfloat16, so a neuron that cancels needs a larger one."""
    layers = [
        {"kernel": jnp.array([[1.0], [-1.0]], jnp.bfloat16), "bias": jnp.zeros(1, jnp.bfloat16)}
    ]
    relevance = lrp.relevance(mlp, lrp.Epsilon())(
        layers, jnp.ones((1, 2), jnp.bfloat16), target=lambda _: jnp.ones((1, 1), jnp.bfloat16)
    )
    assert relevance.dtype == jnp.bfloat16
    assert jnp.isfinite(relevance).all()
