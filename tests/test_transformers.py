"""AttnLRP and CP-LRP of whole transformers, against the formulas and against LXT."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformer_reference as reference
from jax import Array
from numpy.testing import assert_allclose
from transformer_reference import ATTN_LRP, CP_LRP, Method
from zoo import ZOO, models
from zoo.transformers import FAMILIES, TOKENS

import lrp_jax as lrp

TARGET = 2
METHODS = {"attn": (ATTN_LRP, lrp.AttnLRP), "cp": (CP_LRP, lrp.CPLRP)}
FORMS = [model.name for model in models("transformer")]
LXT = np.load(Path(__file__).parent / "reference" / "lxt_transformers.npz")


@pytest.fixture(scope="module", autouse=True)
def _compile_quickly() -> Iterator[None]:
    """Tiny arrays: compiling is nearly all of the time, and optimising gains nothing."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def plain(family: str, dtype: Any = jnp.float64) -> tuple[Any, Array]:
    """The family's parameters, as the reference reads them, and its input."""
    _, params, x = ZOO[f"{family}_plain"].build(dtype)
    return params, x


def without_biases(params: Any) -> Any:
    """Every additive constant zero: biases, positions and class tokens."""
    constants = ("bias", "wpe", "position", "token_type", "class_token")

    def leaf(path: Any, value: Array) -> Array:
        return jnp.zeros_like(value) if any(c in str(path) for c in constants) else value

    return jax.tree_util.tree_map_with_path(leaf, params)


def close(actual: Any, expected: Any, tolerance: float) -> None:
    assert actual.shape == expected.shape
    assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


# The reference itself -----------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_reference_computes_the_same_logits(family: str) -> None:
    params, x = plain(family)
    logits = jax.jit(reference.logits, static_argnums=0)(family, params, x)
    assert_allclose(logits, jax.jit(FAMILIES[family].loop)(params, x), rtol=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
def test_reference_conserves_without_biases(family: str) -> None:
    params, x = plain(family)
    params = without_biases(params)
    logit = jax.jit(reference.logits, static_argnums=0)(family, params, x)[:, TARGET]
    relevance = reference.relevance(family, params, x, TARGET, CP_LRP)
    assert_allclose(relevance.reshape(len(x), -1).sum(1), logit, rtol=1e-10)


@pytest.mark.parametrize(
    "case", [name.removesuffix("_logit") for name in LXT.files if "logit" in name]
)
def test_reference_agrees_with_lxt(case: str) -> None:
    """LXT computes in float32."""
    family, method = case.split("_")
    params, x = plain(family)
    logit = jax.jit(reference.logits, static_argnums=0)(family, params, x)[:, TARGET]
    assert_allclose(LXT[f"{case}_logit"], logit, rtol=1e-5)
    close(LXT[f"{case}_relevance"], expected(family, method), 1e-6)


# Every form of every family -----------------------------------------------------------------------


@functools.cache
def expected(family: str, method: str) -> Array:
    return reference.relevance(family, *plain(family), TARGET, METHODS[method][0])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", FORMS)
def test_relevance_of_embeddings(name: str, method: str) -> None:
    family = name.split("_")[0]
    apply, params, _ = ZOO[name].build()
    actual = lrp.relevance(apply, METHODS[method][1]())(params, plain(family)[1], target=TARGET)
    close(actual, expected(family, method), 1e-10)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_relevance_in_float32(family: str, method: str) -> None:
    apply, params, x = ZOO[f"{family}_plain"].build(jnp.float32)
    actual = lrp.relevance(apply, METHODS[method][1]())(params, x, target=TARGET)
    assert actual.dtype == jnp.float32
    close(actual, expected(family, method), 1e-5)


@pytest.mark.parametrize("name", ["llama_plain", "llama_linen", "qwen3_scan", "gemma3_plain"])
def test_cp_lrp_conserves_without_biases(name: str) -> None:
    apply, params, x = ZOO[name].build(jnp.float32)
    logits, relevance = lrp.value_and_relevance(apply, lrp.CPLRP())(params, x, target=TARGET)
    assert_allclose(relevance.sum((1, 2)), logits[:, TARGET], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["vit_plain", "vit_scan", "vit_linen"])
@pytest.mark.parametrize("attention", METHODS)
def test_gamma_in_patch_embedding_and_mlp(name: str, attention: str) -> None:
    method, composite = METHODS[attention]
    method = Method(
        attention=method.attention,
        gate=method.gate,
        product=method.product,
        patches=reference.gamma_affine(0.25),
        mlp=reference.gamma_affine(0.05),
    )
    apply, params, x = ZOO[name].build()
    reference_relevance = reference.relevance("vit", plain("vit")[0], x, TARGET, method)
    gamma = composite().override((lrp.Conv, lrp.Gamma(0.25)), ("*fc[12]", lrp.Gamma(0.05)))
    close(lrp.relevance(apply, gamma)(params, x, target=TARGET), reference_relevance, 1e-10)


# What must not matter -----------------------------------------------------------------------------


def test_padding_gets_nothing() -> None:
    for composite in (lrp.AttnLRP(), lrp.CPLRP(), lrp.EpsilonPlus()):
        apply, params, x = ZOO["bert_plain"].build()
        relevance = lrp.relevance(apply, composite)(params, x)
        assert (relevance[:, -1] == 0).all()
        assert (jnp.abs(relevance[:, :-1]).sum((1, 2)) > 0).all()


@pytest.mark.parametrize("mask", [-jnp.inf, -1e9, "added", "finfo"])
def test_masked_logits_are_finite_and_equal(mask: Any) -> None:
    """However the future is masked, it gets exactly nothing and the rest gets the same."""
    rng = np.random.default_rng(0)
    params = {name: jnp.asarray(rng.standard_normal((4, 4))) for name in ("q", "k", "v", "o")}
    x = jnp.asarray(rng.standard_normal((TOKENS, 4)))
    allowed = jnp.tril(jnp.ones((TOKENS, TOKENS), bool))

    def attend(p: Any, x: Array, mask: Any) -> Array:
        scores = (x @ p["q"]) @ (x @ p["k"]).T
        if mask == "added":
            scores = scores + jnp.where(allowed, 0.0, -1e9)
        elif mask == "finfo":
            scores = jnp.where(allowed, scores, jnp.finfo(scores.dtype).min)
        else:
            scores = jnp.where(allowed, scores, mask)
        return (jax.nn.softmax(scores) @ (x @ p["v"]) @ p["o"])[2]

    for composite in (lrp.AttnLRP(), lrp.CPLRP()):
        actual = lrp.relevance(lambda p, x: attend(p, x, mask), composite)(params, x, target=1)
        usual = lrp.relevance(lambda p, x: attend(p, x, -1e30), composite)(params, x, target=1)
        assert (actual[3:] == 0).all()
        close(actual, usual, 1e-12)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_future_gets_nothing(family: str) -> None:
    """Relevance of a logit read at the second position."""
    params, x = plain(family)
    model = FAMILIES[family]

    def second(params: Any, x: Array) -> Array:
        prefix = model.prepare(params, x)
        for i in range(2):
            prefix = model.layer(params[f"layer_{i}"], prefix)
        return model.finish(params, prefix[:, :2])

    for composite in (lrp.AttnLRP(), lrp.CPLRP()):
        relevance = lrp.relevance(second, composite)(params, x, target=TARGET)
        assert (relevance[:, 2:] == 0).all()
        assert (jnp.abs(relevance[:, :2]).sum(-1) > 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_scale_of_the_gate_does_not_matter(method: str) -> None:
    """Up-projections times ten and down-projections by ten: same function, same relevance."""
    params, x = plain("llama")
    scaled = jax.tree.map(lambda a: a, params)
    for i in range(2):
        mlp = scaled[f"layer_{i}"]["mlp"]
        mlp["up"]["kernel"], mlp["down"]["kernel"] = (
            mlp["up"]["kernel"] * 10,
            mlp["down"]["kernel"] / 10,
        )
    explain = lrp.relevance(FAMILIES["llama"].loop, METHODS[method][1]())
    close(explain(scaled, x, target=TARGET), explain(params, x, target=TARGET), 1e-10)


# Precision ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama_plain", "llama_scan", "llama_linen"])
@pytest.mark.parametrize("method", METHODS)
def test_half_precision(name: str, method: str) -> None:
    """bfloat16 stays within 2 % of what float32 gives for the same numbers; float16 is finite."""
    composite = METHODS[method][1]()
    apply, params, x = ZOO[name].build(jnp.bfloat16)
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), (params, x))
    full = lrp.relevance(apply, composite)(*wide, target=TARGET)
    actual = lrp.relevance(apply, composite)(params, x, target=TARGET)
    close(actual.astype(jnp.float32), full, 0.02)
    apply, params, x = ZOO[name].build(jnp.float16)
    assert jnp.isfinite(lrp.relevance(apply, composite)(params, x, target=TARGET)).all()


@pytest.mark.parametrize("family", ["llama", "gemma3", "bert", "vit"])
def test_zero_and_huge_embeddings_are_finite(family: str) -> None:
    apply, params, x = ZOO[f"{family}_plain"].build(jnp.float32)
    attn, cp = lrp.relevance(apply, lrp.AttnLRP()), lrp.relevance(apply, lrp.CPLRP())
    explain = jax.jit(lambda p, x: (attn(p, x), cp(p, x)))
    for inputs in (jnp.zeros_like(x), 1e6 * x, x.at[:, 1].set(0)):
        for relevance in explain(params, inputs):
            assert jnp.isfinite(relevance).all()
