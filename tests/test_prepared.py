"""What depends on the weights alone is computed once, and changes no number."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

import lrp_jax as lrp
from lrp_jax import prepared


class CNN(nn.Module):
    """Convolutions with batch norm, strides and a residual sum; a dense head."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        norm = lambda y: nn.BatchNorm(use_running_average=True)(y)  # noqa: E731
        x = nn.max_pool(nn.relu(norm(nn.Conv(24, (3, 3))(x))), (2, 2), (2, 2))
        x = nn.relu(x + norm(nn.Conv(24, (3, 3))(nn.relu(nn.Conv(24, (3, 3))(x)))))
        x = nn.relu(nn.Conv(24, (3, 3), 2, feature_group_count=2)(x))
        return nn.Dense(7)(x.mean((1, 2)))


class Recurrent(nn.Module):
    """A scanned cell behind an attention block."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x))
        return nn.Dense(7)(nn.RNN(nn.LSTMCell(9, param_dtype=jnp.float64))(x)[:, -1])


COMPOSITES: dict[str, tuple[Callable[[], Any], nn.Module, tuple[int, ...]]] = {
    "Epsilon": (lrp.Epsilon, CNN(), (3, 8, 8, 2)),
    "EpsilonPlus": (lrp.EpsilonPlus, CNN(), (3, 8, 8, 2)),
    "EpsilonPlusFlat": (lrp.EpsilonPlusFlat, CNN(), (3, 8, 8, 2)),
    "EpsilonGammaBox": (lambda: lrp.EpsilonGammaBox(-3.0, 3.0), CNN(), (3, 8, 8, 2)),
    "EpsilonAlpha2Beta1": (lrp.EpsilonAlpha2Beta1, CNN(), (3, 8, 8, 2)),
    "AttnLRP": (lrp.AttnLRP, Recurrent(), (3, 5, 8)),
}


def network(model: nn.Module, shape: tuple[int, ...]) -> tuple[Any, jax.Array]:
    x = jax.random.normal(jax.random.key(0), shape)
    variables = model.init(jax.random.key(1), x)
    keys = iter(jax.random.split(jax.random.key(2), 100))
    return jax.tree.map(lambda v: v + 0.1 * jax.random.uniform(next(keys), v.shape), variables), x


@pytest.mark.parametrize("name", [*COMPOSITES][2:])
def test_the_numbers_are_those_of_the_function(name: str) -> None:
    composite, model, shape = COMPOSITES[name]
    variables, x = network(model, shape)
    explain = lrp.value_and_relevance(model.apply, composite())
    fast = lrp.prepare(explain, variables)
    for target in (None, jnp.array([0, 5, 2])):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-13),
            fast(x, target=target),
            explain(variables, x, target=target),
        )


def test_it_composes_with_jit_vmap_and_grad() -> None:
    composite, model, shape = COMPOSITES["EpsilonPlus"]
    variables, x = network(model, shape)
    explain = lrp.relevance(model.apply, composite())
    fast = lrp.prepare(explain, variables)
    expected = explain(variables, x, target=1)
    np.testing.assert_allclose(jax.jit(lambda x: fast(x, target=1))(x), expected, rtol=1e-9)
    np.testing.assert_allclose(fast(x[:1], target=1), expected[:1], rtol=1e-9)
    one_by_one = jax.vmap(lambda x: fast(x[None], target=1)[0])(x)
    np.testing.assert_allclose(one_by_one, expected, rtol=1e-9)
    slope = jax.grad(lambda x: (fast(x, target=1) ** 2).sum())(x)
    as_before = jax.grad(lambda x: (explain(variables, x, target=1) ** 2).sum())(x)
    np.testing.assert_allclose(slope, as_before, rtol=1e-8, atol=1e-12)


def test_other_queries_functions_and_models_are_prepared_too() -> None:
    composite, model, shape = COMPOSITES["EpsilonGammaBox"]
    variables, x = network(model, shape)
    query = lrp.layer_relevances(model.apply, composite(), "*")
    found = lrp.prepare(query, variables)(x, target=lambda y: y)
    for path, expected in query(variables, x, target=lambda y: y).items():
        np.testing.assert_allclose(found[path], expected, rtol=1e-9, atol=1e-13)

    def scaled(w: jax.Array, x: jax.Array, power: int, name: str = "times") -> jax.Array:
        return x * w**power if name == "times" else x + w**power

    fast = lrp.prepare(scaled, jnp.float64(3.0))
    assert fast(jnp.float64(2.0), 2) == 18
    assert fast(jnp.float64(2.0), 2, name="plus") == 11


def test_a_transformed_function_keeps_its_pullback() -> None:
    composite, model, shape = COMPOSITES["EpsilonPlus"]
    variables, x = network(model, shape)
    transformed = lrp.lrp_transform(model.apply, composite())
    start = jnp.ones((3, 7))
    expected = jax.vjp(lambda x: transformed(variables, x), x)[1](start)[0]
    fast = lrp.prepare(transformed, variables)
    np.testing.assert_allclose(jax.vjp(fast, x)[1](start)[0], expected, rtol=1e-9, atol=1e-13)


def test_what_the_weights_decide_is_computed_once() -> None:
    calls = []

    def count(w: np.ndarray) -> np.ndarray:
        calls.append(0)
        return np.asarray(w) * 2

    def function(w: jax.Array, x: jax.Array) -> jax.Array:
        doubled = jax.pure_callback(count, jax.ShapeDtypeStruct(w.shape, w.dtype), w)
        return x @ doubled

    fast = lrp.prepare(function, jnp.eye(3))
    for scale in (1.0, 2.0, 3.0):
        np.testing.assert_array_equal(fast(scale * jnp.ones((1, 3))), 2 * scale * np.ones((1, 3)))
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["EpsilonPlus", "EpsilonGammaBox", "EpsilonAlpha2Beta1"])
def test_no_weights_are_turned_or_copied_in_the_prepared_program(name: str) -> None:
    composite, _, _ = COMPOSITES[name]

    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            for _ in range(3):
                x = nn.relu(nn.Conv(24, (3, 3))(x))
            return nn.Dense(7)(x.mean((1, 2)))

    with jax.enable_x64(False):
        x = jax.random.normal(jax.random.key(0), (2, 8, 8, 2))
        variables = Plain().init(jax.random.key(1), x)
        explain = lrp.relevance(Plain().apply, composite())
        values = [x, jnp.array([1, 2])]
        flat = lambda w, x, t: explain(w, x, target=t)  # noqa: E731
        leaves, tree = jax.tree.flatten(variables)
        rest, weights, _ = prepared._program(
            lambda *v: flat(jax.tree.unflatten(tree, v[:-2]), *v[-2:]), leaves, values
        )
        text = rest.lower(weights, values).compile().as_text()
        whole = jax.jit(flat).lower(variables, *values).compile().as_text()
    moved = r"= f32\[3,3,(?:24,24|2,24|24,2)\]\S* (?:transpose|reverse|copy|maximum|minimum|abs)\("
    assert re.search(moved, whole)
    assert not re.search(moved, text)


def test_traced_weights_are_refused() -> None:
    explain = lrp.relevance(lambda w, x: x @ w, lrp.Epsilon())
    with pytest.raises(TypeError, match="outside of jit"):
        jax.jit(lambda w, x: lrp.prepare(explain, w)(x))(jnp.eye(2), jnp.ones((1, 2)))


def test_prepared_explanations_are_kept_by_the_persistent_cache(tmp_path: Path) -> None:
    def explain_anew() -> tuple[int, Any]:
        jax.clear_caches()
        explain = lrp.relevance(lambda w, x: jax.nn.relu(x @ w) @ w.T, lrp.ZPlus())
        found = lrp.prepare(explain, jnp.eye(3))(jnp.ones((1, 3)), target=0)
        return len(list(tmp_path.glob("*-cache"))), np.asarray(found)

    options = {
        "jax_compilation_cache_dir": str(tmp_path),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in options}
    try:
        for name, value in options.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        (kept, first), (still, second) = explain_anew(), explain_anew()
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
    assert 0 < kept == still
    assert (first == second).all()
