"""The ledger: it adds up, and it names what was planted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from zoo import ZOO

import lrp_jax as lrp
from lrp_jax.questions.ledger import COLUMNS

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
CAUSES = COLUMNS[2:]
MODELS = ("cnn_average_pool", "resnet", "llama_plain", "lstm_linen")


@pytest.fixture(scope="module", autouse=True)
def _compile_quickly() -> Iterator[None]:
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def two_layers(p: Any, x: Any) -> Any:
    return jax.nn.relu(x @ p["a"] + p["b"]) @ p["c"]


POSITIVE = {"a": jnp.ones((2, 2)), "b": jnp.zeros(2), "c": jnp.ones((2, 1))}
X = jnp.array([[1.0, 2.0]])
EXACT = lrp.Zero()


def losses(row: dict[str, float]) -> dict[str, float]:
    """The causes that took or made anything."""
    return {cause: row[cause] for cause in CAUSES if abs(row[cause]) > 1e-9}


# Planted faults -----------------------------------------------------------------------------------


def test_nothing_is_lost_where_nothing_is_planted() -> None:
    ledger = lrp.conservation(two_layers, EXACT)(POSITIVE, X)
    ledger.assert_conserved(1e-12)
    assert not any(losses(row) for row in ledger.rows.values())
    assert ledger.first_nonfinite is None
    assert_allclose([ledger.start, ledger.received], 6.0, **CLOSE)


def test_a_bias_that_eats_half() -> None:
    params = POSITIVE | {"b": jnp.array([3.0, 3.0])}
    ledger = lrp.conservation(two_layers, EXACT)(params, X)
    assert losses(ledger.rows["a"]) == pytest.approx({"bias": 6.0})
    assert losses(ledger.rows["c"]) == {}
    with pytest.raises(AssertionError, match=r"12 started and 6 arrived.*took most are a \(bias 6"):
        ledger.assert_conserved(0.1)
    ledger.assert_conserved(0.51)
    for policy in ("ignore", "distribute"):
        found = lrp.conservation(two_layers, lrp.Epsilon(1e-12, bias=policy))(params, X)
        assert_allclose(found.received, 12.0, **CLOSE)
        found.assert_conserved(1e-9)


def test_an_epsilon_of_one() -> None:
    composite = lrp.Composite([("a", lrp.Epsilon(1.0)), ("c", EXACT)])
    ledger = lrp.conservation(two_layers, composite)(POSITIVE, X)
    # z = 3 and S(z) = 4 at both units, which have 3 each.
    assert losses(ledger.rows["a"]) == pytest.approx({"stabiliser": 1.5})
    with pytest.raises(AssertionError, match=r"a \(stabiliser 1.5\)"):
        ledger.assert_conserved(0.1)


@dataclass(frozen=True)
class Leaky(lrp.Rule):
    """LRP-0 that forgets a quarter."""

    serves = lrp.Linear

    def terms(self, layer: Any) -> Sequence[lrp.Term]:
        return [lrp.Term(0.75 * layer.divide(layer.relevance, layer.output, 0.0), 1, 1)]


def test_a_rule_that_loses_relevance() -> None:
    composite = lrp.Composite([("a", Leaky()), ("c", EXACT)])
    ledger = lrp.conservation(two_layers, composite)(POSITIVE, X)
    assert losses(ledger.rows["a"]) == pytest.approx({"rule": 1.5})
    with pytest.raises(AssertionError, match=r"a \(rule 1.5\)"):
        ledger.assert_conserved(0.1)


def test_alpha_beta_with_one_sign_missing() -> None:
    composite = lrp.Composite([("a", lrp.AlphaBeta(2.0, 1.0, stabilizer=0.0)), ("c", EXACT)])
    ledger = lrp.conservation(two_layers, composite)(POSITIVE, X)
    row = ledger.rows["a"]
    assert_allclose([row["in"], row["out"]], [6.0, 12.0], **CLOSE)
    # Nothing negative takes its part of -6: it is dropped, and 12 are left.
    assert losses(row) == pytest.approx({"dropped": -6.0})


def test_a_dead_unit_drops_its_relevance() -> None:
    params = POSITIVE | {"a": jnp.array([[1.0, 2.0], [1.0, -1.0]])}  # the second unit has z = 0
    begin = lambda y: jnp.ones_like(y)  # noqa: E731
    composite = lrp.Composite([("a", lrp.ZPlus(stabilizer=0.0)), ("c", lrp.Flat(stabilizer=0.0))])
    ledger = lrp.conservation(two_layers, composite)(params, X, target=begin)
    assert_allclose(ledger.rows["c"]["out"], 1.0, **CLOSE)
    assert_allclose(ledger.received + sum(ledger.rows["a"][c] for c in CAUSES), 1.0, **CLOSE)
    none = lrp.conservation(lambda w, x: x @ w, lrp.ZPlus(stabilizer=0.0))(
        -jnp.ones((2, 1)), X, target=begin
    )
    (row,) = none.rows.values()
    assert losses(row) == pytest.approx({"dropped": 1.0})


def test_the_softmax_is_named() -> None:
    def attend(w: Any, x: Any) -> Any:
        return (jax.nn.softmax(x @ w, -1) * jnp.arange(1.0, 4.0)).sum(-1, keepdims=True)

    w = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3)))
    ledger = lrp.conservation(attend, lrp.AttnLRP())(w, X)
    (row,) = (row for path, row in ledger.rows.items() if "Softmax" in path)
    assert set(losses(row)) == {"rule"}


# NaN and Inf --------------------------------------------------------------------------------------


def three(p: Any, x: Any) -> Any:
    return jnp.expm1(x @ p["a"]) @ p["b"] @ p["c"]


def test_an_overflow_is_traced_to_the_layer_that_made_it() -> None:
    params = {"a": 2.0 * jnp.eye(2), "b": jnp.eye(2), "c": jnp.ones((2, 1))}
    ledger = lrp.conservation(three, EXACT)(params, X)
    assert ledger.first_nonfinite is None
    overflowing = params | {"a": 1e3 * jnp.eye(2)}  # finite, but its exponential is not
    ledger = lrp.conservation(three, EXACT)(overflowing, X)
    (activation,) = (path for path in ledger.layers if "Activation" in path)
    assert ledger.first_nonfinite == activation
    with pytest.raises(AssertionError, match=f"not finite: the first .* {activation}"):
        ledger.assert_conserved(1e9)
    huge = params | {"b": 1e308 * jnp.eye(2)}
    assert lrp.conservation(three, EXACT)(huge, X).first_nonfinite == "b"
    broken = params | {"c": jnp.full((2, 1), jnp.nan)}
    assert lrp.conservation(three, EXACT)(broken, X).first_nonfinite == "c"


@dataclass(frozen=True)
class Exploding(lrp.Rule):
    serves = lrp.Linear

    def terms(self, layer: Any) -> Sequence[lrp.Term]:
        return [lrp.Term(layer.relevance * 1e200 * 1e200, 1, 1)]


def test_relevance_that_overflows_is_traced_from_the_output_on() -> None:
    params = {"a": jnp.eye(2), "b": jnp.eye(2), "c": jnp.ones((2, 1))}
    composite = lrp.Composite([("b", Exploding()), (lrp.Linear, EXACT)])
    ledger = lrp.conservation(three, composite)(params, X)
    assert ledger.first_nonfinite == "b"


def test_a_masked_logit_is_no_overflow() -> None:
    def masked(w: Any, x: Any) -> Any:
        logits = jnp.where(jnp.array([True, False, True]), x @ w, -jnp.inf)
        return jax.nn.softmax(logits, -1) @ jnp.arange(1.0, 4.0)[:, None]

    ledger = lrp.conservation(masked, lrp.AttnLRP())(jnp.ones((2, 3)), X)
    assert ledger.first_nonfinite is None
    assert np.isfinite(ledger.table).all()


# It adds up ---------------------------------------------------------------------------------------


def test_every_rule_is_accounted_for() -> None:
    rng = np.random.default_rng(1)
    x, w, b = (jnp.asarray(rng.normal(size=s)) for s in ((3, 5), (5, 4), (4,)))
    rules = [
        rule(bias=policy)
        for rule in (
            lrp.Epsilon,
            lrp.Zero,
            lrp.Gamma,
            lrp.ZPlus,
            lrp.AlphaBeta,
            lrp.WSquare,
            lambda bias: lrp.Epsilon(0.5, bias=bias),
        )
        for policy in ("absorb", "ignore", "distribute")
    ]
    rules += [lrp.Flat(), lrp.ZBox(-3.0, 3.0), lrp.Norm()]
    apply = lambda p, x: x @ p["w"] + p["b"]  # noqa: E731
    asked = jax.jit(lambda p: [lrp.conservation(apply, rule)(p, x) for rule in rules])
    for rule, ledger in zip(rules, asked({"w": w, "b": b}), strict=True):
        (row,) = ledger.rows.values()
        assert abs(row["rule"]) < 1e-9, (rule, row)
        assert_allclose(row["in"], sum(row[c] for c in ("out", *CAUSES)), err_msg=repr(rule))
        assert (abs(row["bias"]) > 1e-6) == (
            getattr(rule, "bias", "") == "absorb" and not isinstance(rule, lrp.Flat | lrp.ZBox)
        ), (rule, row)


@pytest.mark.parametrize("name", MODELS)
def test_the_ledger_ties_in_with_relevance_and_layers(name: str) -> None:
    apply, params, x = ZOO[name].build()
    composite = lrp.AttnLRP() if "llama" in name else lrp.EpsilonPlus()

    @jax.jit
    def everything(params: Any, x: Any) -> Any:
        return (
            lrp.conservation(apply, composite)(params, x),
            lrp.relevance(apply, composite)(params, x),
            lrp.layer_relevances(apply, composite)(params, x),
        )

    ledger, relevance, layers = everything(params, x)
    assert_allclose(ledger.start, jnp.max(apply(params, x), -1).sum(), **CLOSE)
    assert_allclose(ledger.received, relevance.sum(), **CLOSE)
    assert_allclose(ledger.elsewhere, 0, atol=1e-9)
    assert set(ledger.layers) == set(layers)
    for (path, row), kind in zip(ledger.rows.items(), ledger.kinds, strict=True):
        assert_allclose(row["in"], layers[path].sum(), **CLOSE)
        assert_allclose(row["in"], sum(row[c] for c in ("out", *CAUSES)), **CLOSE)
        assert kind == "Softmax" or abs(row["rule"]) < 1e-9, path
    lost = sum(row[cause] for row in ledger.rows.values() for cause in CAUSES)
    assert_allclose(ledger.start - lost, ledger.received, **CLOSE)


def test_constants_beside_the_layers_take_their_part() -> None:
    def with_token(p: Any, x: Any) -> Any:
        tokens = jnp.concatenate([p["token"][None].repeat(len(x), 0), x], 1)
        return tokens.reshape(len(x), -1) @ p["head"]

    params = {"token": jnp.ones((1, 2)), "head": jnp.ones((6, 1))}
    x = jnp.arange(4.0).reshape(1, 2, 2)
    ledger = lrp.conservation(with_token, EXACT)(params, x)
    assert_allclose(ledger.elsewhere, 2.0, **CLOSE)
    assert "constants elsewhere 2" in str(ledger)


def test_a_bias_that_is_added_at_some_places() -> None:
    """What `x.at[i].add(b)` keeps is the bias's part, and not lost by a rule."""

    def in_place(p: Any, x: Any) -> Any:
        return x.at[:, :1].add(p["b"]) @ p["w"]

    params = {"b": jnp.array([0.5]), "w": jnp.array([[1.0], [2.0]])}
    ledger = lrp.conservation(in_place, lrp.AttnLRP())(params, jnp.array([[1.0, 2.0]]))
    assert losses(ledger.rows["w"]) == pytest.approx({"bias": 0.5})
    assert_allclose([ledger.start, ledger.received], [5.5, 5.0], **CLOSE)


def test_a_ledger_for_each_example() -> None:
    params = POSITIVE | {"b": jnp.array([1.0, -0.5])}
    x = jnp.array([[1.0, 2.0], [0.0, 1.0], [3.0, 1.0]])
    explain = lrp.conservation(two_layers, lrp.Epsilon())
    batched = jax.jit(jax.vmap(lambda x: explain(params, x[None])))(x)
    assert batched.table.shape == (3, len(batched.layers), len(COLUMNS))
    assert_allclose(batched.elsewhere, 0, atol=1e-9)
    for i in range(3):
        one = explain(params, x[i : i + 1])
        mine = jax.tree.map(lambda leaf, i=i: leaf[i], batched)
        assert_allclose(mine.table, one.table, **CLOSE)
        assert mine.rows.keys() == one.rows.keys()
    assert_allclose(batched.table.sum(0), explain(params, x).table, **CLOSE)


def test_it_prints_as_a_table() -> None:
    text = str(lrp.conservation(two_layers, EXACT)(POSITIVE, X))
    assert all(word in text for word in (*COLUMNS, "Zero()", "Dense", "start 6, received 6"))


def test_modified_gradients_have_none() -> None:
    with pytest.raises(ValueError, match="nothing to conserve"):
        lrp.conservation(two_layers, lrp.composites.guided_backprop())
