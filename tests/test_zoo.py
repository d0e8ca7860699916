"""Properties that hold for every network, tested on the zoo of models."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from numpy.testing import assert_allclose
from zoo import ZOO, Model, models

import lrp_jax as lrp

COMPOSITES: dict[str, Callable[[], lrp.Composite]] = {
    "EpsilonAlpha2Beta1Flat": lrp.EpsilonAlpha2Beta1Flat,
    "LRPOverview": lambda: lrp.LRPOverview(low=-4.0, high=4.0),
    "CPLRP": lrp.CPLRP,
}
OTHERS: dict[str, Callable[[], Any]] = {
    "Epsilon": lambda: lrp.Epsilon(0.1, bias="distribute"),
    "EpsilonGammaBox": lambda: lrp.EpsilonGammaBox(low=-4.0, high=4.0),
    "EpsilonPlusFlat": lrp.EpsilonPlusFlat,
    "ExcitationBackprop": lrp.ExcitationBackprop,
    "DeepTaylor": lambda: lrp.DeepTaylor(low=-4.0, high=4.0),
    "WSquare": lrp.WSquare,
    "Relative": lrp.Relative,
    "guided_backprop": lrp.composites.guided_backprop,
    "deconvnet": lrp.composites.deconvnet,
    "beta_smooth": lrp.composites.beta_smooth,
}
SMOOTH: dict[str, Callable[[], lrp.Composite]] = {
    # Stabilisers so large that the relevance is smooth on the scale of a finite difference.
    "shares": lambda: lrp.Composite(
        [
            (lrp.first(lrp.Conv), lrp.ZBox(-4.0, 4.0, stabilizer=0.3)),
            (lrp.first(lrp.Dense), lrp.Gamma(0.5, stabilizer=0.3)),
            (lrp.last(lrp.Dense), lrp.AlphaBeta(2.0, 1.0, stabilizer=0.3)),
            (lrp.Conv, lrp.ZPlus(stabilizer=0.3)),
            (lrp.Dense, lrp.Epsilon(0.3)),
            (lrp.AvgPool | lrp.Merge | lrp.Bias, lrp.Norm(stabilizer=0.3)),
        ]
    ),
    "AttnLRP": lrp.AttnLRP,
}


@pytest.fixture(scope="module", autouse=True)
def _compile_quickly() -> Iterator[None]:
    """Tiny arrays: compiling is nearly all of the time, and optimising gains nothing."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def named(selected: list[Model]) -> Any:
    return pytest.mark.parametrize("model", selected, ids=lambda m: m.name)


def start_of(output: Any) -> Any:
    """A start for outputs of any structure: every number times another weight."""
    return jax.tree.map(
        lambda y: y * jnp.cos(1.0 + jnp.arange(y.shape[-1])).astype(y.dtype), output
    )


def function_of(model: Model, apply: Callable[..., Any]) -> Callable[..., Any]:
    """The model without its auxiliary output."""
    return (lambda p, x: apply(p, x)[0]) if "has_aux" in model.tags else apply


def explainer(apply: Callable[..., Any], composite: Any, **options: Any) -> Callable[..., Any]:
    """`(params, x) -> (output, relevance)`, through the transform itself."""
    transformed = lrp.lrp_transform(apply, composite, **options)

    def explain(params: Any, x: Any) -> Any:
        output, pullback = jax.vjp(lambda x: transformed(params, x), x)
        return output, pullback(start_of(output))[0]

    return explain


def close(actual: Any, expected: Any, tolerance: float = 1e-10) -> None:
    """Equal up to a fraction of the largest number, leaf by leaf."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert_allclose(a, b, rtol=0, atol=tolerance * max(np.abs(b).max(), 1e-30))


def usual(model: Model) -> lrp.Composite:
    return lrp.AttnLRP() if "transformer" in model.tags else lrp.EpsilonPlus()


# Values and shapes --------------------------------------------------------------------------------


def check_composites(model: Model, composites: dict[str, Callable[[], Any]]) -> None:
    apply, params, x = model.build()
    apply = function_of(model, apply)

    @jax.jit
    def everything(params: Any, x: Any) -> Any:
        found = {n: explainer(apply, make())(params, x) for n, make in composites.items()}
        return apply(params, x), found

    expected, found = everything(params, x)
    for name, (output, relevance) in found.items():
        close(output, expected, 1e-13)
        assert jax.tree.structure(relevance) == jax.tree.structure(x), name
        for r, leaf in zip(jax.tree.leaves(relevance), jax.tree.leaves(x), strict=True):
            assert r.shape == leaf.shape, name
            assert r.dtype == leaf.dtype, name
            assert jnp.isfinite(r).all(), name
            assert (r != 0).any(), name


@named([*models(without=("transformer",)), *models("transformer", "gradient")])
def test_output_is_kept_and_relevance_is_finite(model: Model) -> None:
    check_composites(model, COMPOSITES)


@pytest.mark.parametrize("other", OTHERS)
@named([ZOO[name] for name in ("cnn_average_pool", "resnet", "conv_1d", "vgg_batch_norm")])
def test_every_other_composite(model: Model, other: str) -> None:
    check_composites(model, {other: OTHERS[other]})


@named(
    [ZOO[n] for n in ("cnn_max_pool", "batch_norm_before", "cnn_nnx", "norms_linen", "lstm_linen")]
)
def test_float32_is_close_to_float64(model: Model) -> None:
    explain = [
        jax.jit(explainer(apply, lrp.EpsilonPlus()))(params, x)
        for apply, params, x in (model.build(jnp.float32), model.build(jnp.float64))
    ]
    close(jax.tree.map(lambda a: a.astype(jnp.float64), explain[0]), explain[1], 1e-3)


def test_auxiliary_output_passes_through() -> None:
    apply, params, x = ZOO["mlp_mutable"].build()
    transformed = lrp.lrp_transform(apply, lrp.Epsilon(), has_aux=True)
    output, pullback, aux = jax.vjp(lambda x: transformed(params, x), x, has_aux=True)
    expected_output, expected_aux = apply(params, x)
    close(output, expected_output, 1e-13)
    close(aux, expected_aux, 0)
    (value, aux), relevance = lrp.value_and_relevance(apply, lrp.Epsilon(), has_aux=True)(params, x)
    close(value, expected_output, 1e-13)
    close(aux, expected_aux, 0)
    best = jax.nn.one_hot(output.argmax(-1), output.shape[-1]) * output
    close(relevance, pullback(best)[0])


# Gradient x input ---------------------------------------------------------------------------------


@named(models("piecewise_linear", without=("outputs",)))
def test_lrp_0_is_gradient_times_input_where_all_is_piecewise_linear(model: Model) -> None:
    apply, params, x = model.build()
    apply = function_of(model, apply)
    output, pullback = jax.vjp(lambda x: apply(params, x), x)
    scale = jnp.cos(1.0 + jnp.arange(output.shape[-1]))
    (gradient,) = pullback(jnp.broadcast_to(scale, output.shape))
    expected = jax.tree.map(jnp.multiply, x, gradient)
    _, zero = jax.jit(explainer(apply, lrp.AttnLRP()))(params, x)
    close(zero, expected, 1e-9)


@named(models("bias_free"))
def test_tiny_epsilon_is_gradient_times_input(model: Model) -> None:
    apply, params, x = model.build()
    expected = x * jax.grad(lambda x: apply(params, x)[:, 1].sum())(x)
    relevance = lrp.relevance(apply, lrp.Epsilon(1e-13))(params, x, target=1)
    close(relevance, expected, 1e-10)
    assert_allclose(relevance.sum(1), apply(params, x)[:, 1], rtol=1e-9)


# Transformations ----------------------------------------------------------------------------------

Mode = Callable[[Callable[..., Any]], Callable[..., Any]]


def singly(explain: Callable[..., Any]) -> Callable[..., Any]:
    """An explanation of a batch as one of a single example."""

    def single(params: Any, x: Any) -> Any:
        explained = explain(params, jax.tree.map(lambda a: a[None], x))
        return jax.tree.map(lambda a: a[0], explained)

    return single


MODES: dict[str, Mode] = {
    "jit": jax.jit,
    "vmap of jit": lambda e: jax.vmap(jax.jit(singly(e)), in_axes=(None, 0)),
    "jit of vmap": lambda e: jax.jit(jax.vmap(singly(e), in_axes=(None, 0))),
    "checkpoint": lambda e: jax.jit(jax.checkpoint(e)),
    "example by example": lambda e: by_example(jax.jit(e)),
}
CORE = (
    "cnn_max_pool",
    "resnet",
    "batch_norm_before",
    "norms_linen",
    "llama_scan",
    "lstm_linen",
    "cnn_nnx",
)


def by_example(explain: Callable[..., Any]) -> Callable[..., Any]:
    def explain_each(params: Any, x: Any) -> Any:
        count = len(jax.tree.leaves(x)[0])
        parts = [
            explain(params, jax.tree.map(lambda a, i=i: a[i : i + 1], x)) for i in range(count)
        ]
        return jax.tree.map(lambda *rows: jnp.concatenate(rows), *parts)

    return explain_each


@named(models(without=("not_mapped",)))
def test_jit_of_vmap_and_second_call(model: Model) -> None:
    """Eagerly twice, and mapped over the examples under jit."""
    apply, params, x = model.build()
    explain = explainer(function_of(model, apply), usual(model))
    first = explain(params, x)
    close(explain(params, x), first, 0)
    close(MODES["jit of vmap"](explain)(params, x), first)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "jit of vmap"])
@pytest.mark.parametrize("name", CORE)
def test_transformations_change_nothing(name: str, mode: str) -> None:
    model = ZOO[name]
    apply, params, x = model.build()
    explain = explainer(apply, usual(model))
    close(MODES[mode](explain)(params, x), explain(params, x))


@pytest.mark.parametrize("name", CORE)
def test_a_checkpointed_model_is_the_model(name: str) -> None:
    model = ZOO[name]
    apply, params, x = model.build()
    expected = explainer(apply, usual(model))(params, x)
    close(explainer(jax.checkpoint(apply), usual(model))(params, x), expected)
    close(explainer(jax.jit(apply), usual(model))(params, x), expected)


@pytest.mark.slow
def test_threads_do_not_meet() -> None:
    """Four models with their own composites, explained at once and again."""
    jobs = []
    makes = (lrp.EpsilonPlus, lrp.AttnLRP, lrp.DeepTaylor, lrp.EpsilonAlpha2Beta1)
    for name, make in zip(("cnn_max_pool", "mlp_nested", "resnet", "conv_1d"), makes, strict=True):
        apply, params, x = ZOO[name].build()
        jobs.append((explainer(apply, make()), params, x))
    expected = [explain(params, x) for explain, params, x in jobs]

    def fresh(index: int) -> Any:
        explain, params, x = jobs[index % len(jobs)]
        return jax.jit(lambda p, x: explain(p, x))(params, x)

    with ThreadPoolExecutor(4) as pool:
        for index, found in enumerate(pool.map(fresh, range(8))):
            close(found, expected[index % len(jobs)])


# Derivatives of relevance -------------------------------------------------------------------------


def floating(tree: Any) -> tuple[list[Array], Callable[[list[Array]], Any]]:
    """The floating leaves of a tree and the way back."""
    leaves, structure = jax.tree.flatten(tree)
    where = [i for i, a in enumerate(leaves) if jnp.issubdtype(a.dtype, jnp.floating)]

    def back(values: list[Array]) -> Any:
        changed = list(leaves)
        for i, value in zip(where, values, strict=True):
            changed[i] = value
        return jax.tree.unflatten(structure, changed)

    return [leaves[i] for i in where], back


def check_gradient(model: Model, explain: Callable[[Any, Any], Any]) -> None:
    """Against central differences, along one direction in the parameters and one in the inputs."""
    _, params, x = model.build()
    rng = np.random.default_rng(1)
    leaves, backs = zip(floating(params), floating(x), strict=True)
    weights = [rng.standard_normal(a.shape) for a in leaves[1]]

    def loss(*point: list[Array]) -> Array:
        relevance = jax.tree.leaves(
            explain(*(back(a) for back, a in zip(backs, point, strict=True)))
        )
        terms = [(w * r).sum() for w, r in zip(weights, relevance, strict=True)]
        return functools.reduce(jnp.add, terms)

    value = jax.jit(loss)
    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(*leaves)
    for which in (0, 1):
        direction = [rng.standard_normal(a.shape) for a in leaves[which]]

        def along(step: float, which: int = which, direction: Any = direction) -> Array:
            moved = list(leaves)
            moved[which] = [a + step * d for a, d in zip(leaves[which], direction, strict=True)]
            return value(*moved)

        differences = (along(1e-6) - along(-1e-6)) / 2e-6
        actual = sum((g * d).sum() for g, d in zip(gradients[which], direction, strict=True))
        assert_allclose(actual, differences, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("model", "composite"),
    [
        pytest.param(model, composite, id=f"{model.name}-{composite}")
        for model in models("gradient")
        for composite in (SMOOTH if "transformer" not in model.tags else ["AttnLRP"])
    ],
)
def test_gradient_of_relevance(model: Model, composite: str) -> None:
    apply = function_of(model, model.build().apply)
    relevance = lrp.relevance(apply, SMOOTH[composite]())
    check_gradient(model, functools.partial(relevance, target=start_of))


@named([ZOO[name] for name in ("mlp_compact", "cnn_nnx", "linen_remat", "gated", "lstm_linen")])
def test_gradient_of_a_pullback(model: Model) -> None:
    """The transform's own pullback depends on the parameters too."""
    explain = explainer(model.build().apply, SMOOTH["shares"]())
    check_gradient(model, lambda params, x: explain(params, x)[1])
