"""Unusual settings of JAX, threads, extreme values: equal numbers, or a name for what is wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import lrp_jax as lrp

RNG = np.random.default_rng(5)
PARAMS = {
    "conv": RNG.normal(size=(2, 2, 2, 4)) / 3,
    "shift": RNG.normal(size=4) / 3,
    "query": RNG.normal(size=(4, 4)) / 2,
    "out": RNG.normal(size=(4, 3)) / 2,
    "bias": RNG.normal(size=3) / 3,
}
X = RNG.normal(size=(3, 4, 4, 2))
MASK = np.tril(np.ones((9, 9), bool))


def network(p: dict[str, Any], x: Any) -> Any:
    """Convolution, pooling, a norm, masked attention, a residual, a head: ranks are made equal."""
    x = jax.lax.conv_general_dilated(
        x, p["conv"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = jax.nn.relu(x + p["shift"][None, None, None, :]).reshape(x.shape[0], 9, 4)
    spread = jnp.sqrt(jnp.square(x).mean(-1, keepdims=True) + jnp.asarray(1e-3, x.dtype))
    x = x / spread
    scores = jnp.einsum("bif,bjf->bij", x @ p["query"], x)
    scores = jnp.where(MASK[None], scores, jnp.asarray(-jnp.inf, x.dtype))
    x = x + jnp.einsum("bij,bjf->bif", jax.nn.softmax(scores, axis=-1), jax.nn.gelu(x))
    return x.mean(1) @ p["out"] + p["bias"][None]


COMPOSITES: dict[str, Callable[[], Any]] = {
    "AttnLRP": lrp.AttnLRP,
    "EpsilonPlusFlat": lrp.EpsilonPlusFlat,
    "shares": lambda: lrp.Composite(
        [
            (lrp.first(lrp.Conv), lrp.ZBox(-4.0, 4.0)),
            (lrp.last(lrp.Dense), lrp.AlphaBeta()),
            (lrp.Dense, lrp.Gamma(bias="distribute")),
        ]
    ),
}
SETTINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "debug_nans": lambda: jax.debug_nans(True),
    "debug_infs": lambda: jax.debug_infs(True),
    "rank_promotion": lambda: jax.numpy_rank_promotion("raise"),
    "dtype_promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "tracer_leaks": jax.checking_leaks,
}


def cast(dtype: str) -> tuple[dict[str, jax.Array], jax.Array]:
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), (PARAMS, X))


# Settings of JAX ----------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", COMPOSITES)
def test_settings_change_nothing(name: str, setting: str) -> None:
    params, x = cast("float32")
    expected = lrp.relevance(network, COMPOSITES[name]())(params, x, target=1)
    with SETTINGS[setting]():
        found = lrp.relevance(network, COMPOSITES[name]())(params, x, target=1)
    assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize("setting", ["rank_promotion", "dtype_promotion"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_queries_under_strict_promotion(dtype: str, setting: str) -> None:
    params, x = cast(dtype)
    with SETTINGS[setting]():
        ledger = lrp.conservation(network, lrp.EpsilonPlusFlat())(params, x, target=1)
        weights = lrp.parameter_relevance(network, lrp.EpsilonPlus())(params, x, target=1)
    assert np.isfinite(ledger.table).all()
    assert all(np.isfinite(leaf.astype(np.float64)).all() for leaf in jax.tree.leaves(weights))


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_depthwise_convolutions_and_targets_under_strict_promotion(dtype: str) -> None:
    def apply(p: dict[str, Any], x: Any) -> Any:
        x = jax.lax.conv_general_dilated(
            x,
            p["conv"].reshape(2, 2, 1, 8),
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=2,
        )
        return x.mean((1, 2))

    params, x = cast(dtype)
    with jax.numpy_dtype_promotion("strict"):
        found = lrp.relevance(apply, lrp.Gamma())(params, x, target=lrp.targets.softmax(1))
    assert found.dtype == x.dtype
    assert np.abs(found.astype(np.float64)).max() > 0


@pytest.mark.parametrize("name", COMPOSITES)
def test_without_float64(name: str) -> None:
    expected = lrp.relevance(network, COMPOSITES[name]())(*cast("float64"), target=1)
    with jax.enable_x64(False):
        found = lrp.relevance(network, COMPOSITES[name]())(PARAMS, X, target=1)
    assert found.dtype == jnp.float32
    assert_allclose(found, expected, atol=1e-3 * float(jnp.abs(expected).max()))


# Threads ------------------------------------------------------------------------------------------


def test_eight_threads_share_one_explanation_that_is_new() -> None:
    explain = lrp.relevance(network, lrp.EpsilonPlus())
    shapes = [X[:1], X[:2], X]
    together = threading.Barrier(8)

    def call(number: int) -> np.ndarray:
        together.wait(60)
        return np.asarray(explain(PARAMS, shapes[number % 3], target=1))

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(call, range(8)))
    fresh = lrp.relevance(network, lrp.EpsilonPlus())
    for number, relevance in enumerate(found):
        np.testing.assert_array_equal(relevance, fresh(PARAMS, shapes[number % 3], target=1))


# Extreme values -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMPOSITES)
@pytest.mark.parametrize("scale", [0.0, 1e-310, 1e-30, 1e30])
def test_extreme_inputs_have_finite_relevance(scale: float, name: str) -> None:
    def apply(p: dict[str, Any], x: Any) -> Any:
        return jax.nn.relu(x @ p["query"]) @ p["out"] + p["bias"]

    x = scale * RNG.normal(size=(3, 4))
    output, found = lrp.value_and_relevance(apply, COMPOSITES[name]())(PARAMS, x, target=1)
    assert np.isfinite(output).all()
    assert np.isfinite(found).all()


@pytest.mark.filterwarnings("ignore:.*speaks of softmaxes, and there is none")
@pytest.mark.parametrize("form", ["where", "added", "constant"])
@pytest.mark.parametrize("name", [*COMPOSITES, "EpsilonPlus"])
def test_logits_masked_with_minus_infinity(name: str, form: str) -> None:
    """Relevance, the ledger and hidden layers are finite, and masked positions have none."""
    mask = np.array([True, True, False])

    def apply(p: dict[str, Any], x: Any) -> Any:
        scores = jnp.einsum("bif,bjf->bij", x @ p["query"], x)
        if form == "where":
            scores = jnp.where(mask, scores, -jnp.inf)
        else:
            shift = np.where(mask, 0.0, -np.inf)
            scores = scores + (jnp.asarray(shift) if form == "added" else shift)
        weights = jnp.exp(jax.nn.log_softmax(scores, -1))
        return jnp.einsum("bij,bjf->bif", weights, x)[:, 0] @ p["out"]

    composite = COMPOSITES.get(name, lrp.EpsilonPlus)()
    x = RNG.normal(size=(2, 3, 4))
    found = lrp.relevance(apply, composite)(PARAMS, x, target=1)
    assert np.isfinite(found).all()
    assert_allclose(found[:, 2], 0, atol=1e-12)
    ledger = lrp.conservation(apply, composite)(PARAMS, x, target=1)
    assert np.isfinite(ledger.table).all(), str(ledger)
    assert ledger.first_nonfinite is None
    hidden = lrp.layer_relevances(apply, composite, "*")(PARAMS, x, target=1)
    assert all(np.isfinite(r).all() for r in hidden.values())


def test_everything_masked_is_finite() -> None:
    def apply(p: dict[str, Any], x: Any) -> Any:
        scores = jnp.where(False, jnp.einsum("bif,bjf->bij", x, x), -1e30)
        return (jax.nn.softmax(scores, -1) @ x)[:, 0] @ p["out"]

    found = lrp.relevance(apply, lrp.AttnLRP())(PARAMS, RNG.normal(size=(2, 3, 4)), target=1)
    assert np.isfinite(found).all()
    assert np.abs(found).max() > 0


def test_a_nan_is_traced_to_the_layer_that_made_it() -> None:
    def apply(p: dict[str, Any], x: Any) -> Any:
        return jnp.log(jax.nn.relu(x @ p["query"]) - 1.0) @ p["out"]

    ledger = lrp.conservation(apply, lrp.Epsilon())(PARAMS, RNG.normal(size=(2, 4)), target=1)
    assert ledger.first_nonfinite is not None
    assert ledger.first_nonfinite.startswith("Activation")
    with pytest.raises(AssertionError, match="Activation"):
        ledger.assert_conserved()


# Accounts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule", [lrp.Epsilon(0.1), lrp.Zero(), lrp.Norm(0.1), lrp.Relative()], ids=repr
)
def test_a_layer_that_is_asked_for_an_account_does_the_same(rule: lrp.Rule) -> None:
    """The ledger has the shares made one by one; relevance takes them from a gradient."""

    def apply(p: dict[str, Any], x: Any) -> Any:
        return (jax.nn.relu(x @ p["query"]) + x) @ p["out"] + p["bias"]

    composite = lrp.Composite([(lrp.Linear | lrp.Merge, rule)])
    x = RNG.normal(size=(1, 4))
    ledger = lrp.conservation(apply, composite)(PARAMS, x, target=1)
    found = lrp.relevance(apply, composite)(PARAMS, x, target=1)
    assert abs(float(found.sum())) > 1e-3
    assert_allclose(ledger.received, found.sum(), rtol=1e-9)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [(lrp.ZPlus(), [1, 0, 2, 6]), (lrp.AlphaBeta(), [2, -6, 4, 12])],
    ids=["zplus", "alpha-beta"],
)
def test_a_sum_whose_signs_are_told_apart(rule: lrp.Rule, expected: list[float]) -> None:
    """1 + 2 and -3 + 1, with the relevances 3 and 6."""
    composite = lrp.Composite([(lrp.Merge, rule)])
    explain = lrp.relevance(lambda x: x[:, :2] + x[:, 2:], composite, argnums=0)
    found = explain(np.array([[1.0, -3.0, 2.0, 1.0]]), target=lambda _: jnp.array([[3.0, 6.0]]))
    assert_allclose(found, [expected], rtol=1e-5)


@pytest.mark.parametrize(
    "after", [lambda z: z, lambda z: jax.nn.softmax(z) @ jnp.eye(3), jax.nn.silu]
)
def test_numbers_whose_quotients_are_no_floats_are_as_the_function_has_them(after: Any) -> None:
    """1e-320 is zero where subnormal numbers are flushed; 1 / 1e-320 is no float in either case."""
    w, x = jnp.ones((4, 3)), jnp.ones((2, 4))

    def apply(w: jax.Array, x: jax.Array) -> jax.Array:
        return after(x @ w / 1e-320 * 1e-320)

    assert not np.isfinite(apply(w, x)).any()
    assert not np.isfinite(lrp.relevance(apply, lrp.AttnLRP())(w, x, target=0)).any()


def test_a_quotient_gives_half_to_its_divisor() -> None:
    composite = lrp.Composite([(lrp.Bilinear, lrp.Uniform())])
    explain = lrp.relevance(lambda x: x[:, :2] / x[:, 2:], composite, argnums=0)
    found = explain(np.array([[1.0, -3.0, 2.0, 4.0]]), target=lambda _: jnp.array([[3.0, 6.0]]))
    assert_allclose(found, [[1.5, 3.0, 1.5, 3.0]], rtol=1e-9)


def test_the_largest_number_takes_all_however_a_compiler_rounds() -> None:
    """JAX's derivative of `max` divides 0 by 0 where its operand is computed twice, differently."""

    def apply(w: Any, x: Any) -> Any:
        x = jax.lax.conv_general_dilated(
            x[:, :, None], w, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
        )
        return (x + 0.3).min(1) + x.max((1, 2), keepdims=True)[:, 0]

    w = np.array([[[0.7, -1.1, 0.3, 1.9]]])
    x = RNG.normal(size=(3, 6))
    found = lrp.relevance(apply, lrp.Zero())(w, x, target=lambda y: jnp.ones_like(y))
    assert np.isfinite(found).all()
    assert ((found != 0).sum(1) <= 5).all()
    tied = lrp.relevance(lambda x: x.max(1, keepdims=True), lrp.Zero(), argnums=0)
    np.testing.assert_array_equal(tied(np.array([[2.0, 3.0, 3.0]])), [[0.0, 3.0, 0.0]])


# Branches -----------------------------------------------------------------------------------------


def test_layers_of_either_branch_can_be_asked_about() -> None:
    """The ledger and hidden layers of a `cond`: the branch not taken has no relevance."""

    def apply(p: dict[str, Any], x: Any) -> Any:
        taken = lambda x: jax.nn.relu(x @ p["query"])  # noqa: E731
        other = lambda x: jnp.tanh(x @ p["query"].T + 1.0)  # noqa: E731
        return jax.lax.cond(p["bias"][0] > -10, taken, other, x) @ p["out"]

    def plain(p: dict[str, Any], x: Any) -> Any:
        return jax.nn.relu(x @ p["query"]) @ p["out"]

    x = RNG.normal(size=(2, 4))
    ledger = lrp.conservation(apply, lrp.EpsilonPlus())(PARAMS, x, target=1)
    expected = lrp.conservation(plain, lrp.EpsilonPlus())(PARAMS, x, target=1)
    assert_allclose(ledger.received, expected.received, rtol=1e-9)
    rows, wanted = ledger.rows, expected.rows
    assert_allclose(list(rows["out"].values()), list(wanted["out"].values()), atol=1e-9)
    hidden = lrp.layer_relevances(apply, lrp.EpsilonPlus(), lrp.Dense)(PARAMS, x, target=1)
    without = [name for name, r in hidden.items() if not np.any(r)]
    assert len(hidden) == 3
    assert len(without) == 1
