"""The price of an explanation, in facts of its program that no noise can blur."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import lrp_jax as lrp
from lrp_jax import targets
from lrp_jax._layers import product
from lrp_jax._layers.arithmetic import divide
from lrp_jax._propagation.many import over

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import memory

LOW, HIGH = -3.0, 3.0


class CNN(nn.Module):
    """Two stages of convolution and pooling, a third convolution, two dense layers."""

    widths: tuple[int, int, int] = (8, 8, 24)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for width in self.widths[:2]:
            x = nn.max_pool(nn.relu(nn.Conv(width, (3, 3))(x)), (2, 2), (2, 2))
        x = nn.relu(nn.Conv(self.widths[2], (3, 3))(x))
        x = nn.relu(nn.Dense(72)(x.reshape(x.shape[0], -1)))
        return nn.Dense(5)(x)


class Attention(nn.Module):
    """A transformer block: 2 dense layers around 2 attention products, 2 more behind."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        q, k, v = jnp.split(nn.Dense(24)(nn.LayerNorm()(x)), 3, -1)
        x = x + nn.Dense(8)(nn.softmax(q @ jnp.swapaxes(k, -1, -2)) @ v)
        x = x + nn.Dense(8)(nn.gelu(nn.Dense(16)(nn.LayerNorm()(x))))
        return nn.Dense(5)(x.mean(1))


def program(model: nn.Module, shape: tuple[int, ...], composite: Any = None) -> Any:
    """The lowered explanation of labels, or gradient where there is no composite."""
    explain = None if composite is None else lrp.relevance(model.apply, composite)

    def chosen(v: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
        return jnp.take_along_axis(model.apply(v, x), labels[:, None], -1).sum()

    def explanation(v: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
        if explain is None:
            return jax.grad(chosen, argnums=1)(v, x, labels)
        return explain(v, x, target=labels)

    with jax.enable_x64(False):
        x = jax.ShapeDtypeStruct(shape, jnp.float32)
        labels = jax.ShapeDtypeStruct(shape[:1], jnp.int32)
        variables = jax.eval_shape(model.init, jax.random.key(0), x)
        return jax.jit(explanation).trace(variables, x, labels).lower(lowering_platforms=("cpu",))


def contractions(text: str) -> tuple[int, int]:
    return text.count("stablehlo.convolution"), text.count("stablehlo.dot_general")


SMALL = (2, 8, 8, 3)
# Forward, denominators, back. The inputs of the first layer have both signs, and a neuron so few
# of them that each sign is summed by itself; all other inputs are >= 0.
# The last layer's own output is not needed where nothing divides by it.
PRICES: dict[str, tuple[Callable[[], Any], tuple[int, int]]] = {
    "LRP-0": (lrp.Zero, (3 + 0 + 3, 1 + 0 + 2)),
    "Epsilon": (lrp.Epsilon, (3 + 0 + 3, 2 + 0 + 2)),
    "EpsilonPlus": (lrp.EpsilonPlus, (3 + 4 + 4, 2 + 0 + 2)),
    # The last layer is not rectified: outputs of both signs.
    "Gamma": (lambda: lrp.Composite([(lrp.Linear, lrp.Gamma())]), (3 + 4 + 4, 2 + 2 + 3)),
    "EpsilonGammaBox": (lambda: lrp.EpsilonGammaBox(LOW, HIGH), (3 + 4 + 4, 2 + 0 + 2)),
    # Both signs: the negative sums are what the positive ones leave.
    "EpsilonAlpha2Beta1": (lrp.EpsilonAlpha2Beta1, (3 + 6 + 8, 2 + 0 + 2)),
}


@pytest.mark.parametrize("name", PRICES)
def test_contractions_are_forward_denominators_and_back(name: str) -> None:
    composite, expected = PRICES[name]
    assert contractions(program(CNN(), SMALL, composite()).as_text()) == expected


def test_the_gradient_has_as_many_contractions_as_lrp_0() -> None:
    assert contractions(program(CNN(), SMALL).as_text()) == PRICES["LRP-0"][1]


@pytest.mark.parametrize("composite", [lrp.AttnLRP, lrp.CPLRP])
def test_transformers_need_no_more_products_than_the_gradient(
    composite: Callable[[], Any],
) -> None:
    shape = (2, 6, 8)
    ours = contractions(program(Attention(), shape, composite()).as_text())
    gradient = contractions(program(Attention(), shape).as_text())
    assert ours[0] == gradient[0] == 0
    assert ours[1] <= gradient[1]


def test_nothing_is_scattered_by_plain_pools() -> None:
    assert "select_and_scatter" in program(CNN(), SMALL).as_text()
    for composite, _ in PRICES.values():
        assert "select_and_scatter" not in program(CNN(), SMALL, composite()).as_text()


def test_divisions_stay_out_of_lrp_0() -> None:
    assert "stablehlo.divide" not in program(CNN(), SMALL, lrp.Zero()).as_text()


@pytest.mark.parametrize("name", ["LRP-0", "Epsilon", "EpsilonPlus", "EpsilonGammaBox"])
def test_temporary_memory_is_at_most_the_gradients(name: str) -> None:
    digits = CNN((8, 16, 16)), (8, 28, 28, 1)
    ours, gradient = (
        program(*digits, composite).compile().memory_analysis().temp_size_in_bytes
        for composite in (PRICES[name][0](), None)
    )
    assert ours <= gradient


@pytest.mark.parametrize("form", ["scan", "checkpoint"])
def test_loops_and_checkpoints_need_no_more_memory_than_in_the_gradient(form: str) -> None:
    depth, width = 12, 64

    def block(x: jax.Array, w: jax.Array) -> jax.Array:
        return x + jax.nn.gelu(x @ w) @ w.T

    def apply(ws: jax.Array, x: jax.Array) -> jax.Array:
        if form == "scan":
            return jax.lax.scan(lambda x, w: (jax.checkpoint(block)(x, w), None), x, ws)[0]
        for w in ws:
            x = jax.checkpoint(block)(x, w)
        return x

    def temporary(function: Any) -> int:
        ws = jax.ShapeDtypeStruct((depth, width, width), jnp.float32)
        x = jax.ShapeDtypeStruct((512, width), jnp.float32)
        analysis = jax.jit(function).lower(ws, x).compile().memory_analysis()
        return int(analysis.temp_size_in_bytes)

    with jax.enable_x64(False):
        explain = lrp.relevance(apply, lrp.AttnLRP())
        ours = temporary(lambda ws, x: explain(ws, x, target=0))
        gradient = temporary(jax.grad(lambda ws, x: apply(ws, x)[:, 0].sum(), argnums=1))
        assert ours <= gradient


def temporaries(recipe: str, tokens: int, explains: bool) -> int:
    small = memory.Sizes(layers=2, width=16, heads=2, hidden=32, vocabulary=16, block=16)
    with jax.enable_x64(False):
        return memory.temporaries(memory.RECIPES[recipe], tokens, explains, small)


@pytest.mark.parametrize("of", ["queries", "keys"])
def test_long_contexts_need_memory_linear_in_the_tokens(of: str) -> None:
    """By blocks what the gradient needs; without them as much as all weights need."""
    blocks = f"checkpointed layers, blocks of {of}"
    short, long = (temporaries(blocks, tokens, True) for tokens in (128, 256))
    assert long <= 1.05 * temporaries(blocks, 256, False)
    assert long < 2.1 * short
    assert 4 * long < temporaries("nothing", 256, True)


# -- first calls --------------------------------------------------------------------------------


def equations(jaxpr: Any) -> tuple[int, int]:
    """Equations that JAX traced, and those that it would have without sharing."""
    own: dict[int, int] = {}

    def inside(value: Any) -> list[Any]:
        if isinstance(value, list | tuple):
            return [j for item in value for j in inside(item)]
        value = getattr(value, "jaxpr", value)
        return [value] if hasattr(value, "eqns") else []

    def whole(jaxpr: Any) -> int:
        own[id(jaxpr)] = len(jaxpr.eqns)
        bodies = (j for eqn in jaxpr.eqns for v in eqn.params.values() for j in inside(v))
        return len(jaxpr.eqns) + sum(map(whole, bodies))

    total = whole(getattr(jaxpr, "jaxpr", jaxpr))
    return sum(own.values()), total


def traced(depth: int, composite: Any, kind: str = "conv") -> Any:
    """The jaxpr of an explanation of `depth` layers of one shape."""
    shape = {"conv": (3, 3, 8, 8), "depthwise": (3, 3, 1, 8), "dense": (8, 8)}[kind]
    groups = 8 if kind == "depthwise" else 1

    def apply(ws: list[jax.Array], x: jax.Array) -> jax.Array:
        for w in ws:
            y = x @ w if kind == "dense" else jax.lax.conv_general_dilated(
                x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=groups,
            )  # fmt: skip
            x = jax.nn.relu(y)
        return x.mean((1, 2))

    ws = [jax.ShapeDtypeStruct(shape, jnp.float32)] * depth
    x = jax.ShapeDtypeStruct((1, 6, 6, 8), jnp.float32)
    explain = lrp.relevance(apply, composite)
    with jax.enable_x64(False):
        return jax.make_jaxpr(lambda ws, x: explain(ws, x, target=0))(ws, x)


@pytest.mark.parametrize("kind", ["conv", "depthwise", "dense"])
@pytest.mark.parametrize("name", ["EpsilonPlus", "Gamma", "EpsilonAlpha2Beta1"])
def test_layers_of_one_kind_and_shape_are_traced_once(name: str, kind: str) -> None:
    composite = lrp.Composite([(lrp.Linear, RULES[name])])
    few, many = (equations(traced(depth, composite, kind)) for depth in (4, 12))
    added, would_have = (b - a for a, b in zip(few, many, strict=True))
    assert added <= 8 * 12  # the layer itself, forward, and the calls that bring it back
    assert added < would_have / 2


class Deep(nn.Module):
    """Blocks of attention and of two dense layers."""

    depth: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(self.depth):
            q, k, v = jnp.split(nn.Dense(24)(nn.LayerNorm()(x)), 3, -1)
            x = x + nn.Dense(8)(nn.softmax(q @ jnp.swapaxes(k, -1, -2)) @ v)
            x = x + nn.Dense(8)(nn.silu(nn.Dense(16)(nn.RMSNorm()(x))))
        return nn.Dense(5)(x.mean(1))


@pytest.mark.parametrize("composite", [lrp.AttnLRP, lrp.Epsilon])
def test_blocks_that_a_network_repeats_are_traced_once(composite: Callable[[], Any]) -> None:
    def explained(depth: int) -> tuple[int, int]:
        with jax.enable_x64(False):
            x = jax.ShapeDtypeStruct((1, 6, 8), jnp.float32)
            model = Deep(depth)
            variables = jax.eval_shape(model.init, jax.random.key(0), x)
            explain = lrp.relevance(model.apply, composite())
            return equations(jax.make_jaxpr(lambda v, x: explain(v, x, target=0))(variables, x))

    (few, _), (many, all_of_them) = explained(4), explained(12)
    assert many - few <= 8 * 4  # a call there and a call back, and what they hand on
    assert many < all_of_them / 4


def test_planning_asks_what_looks_like_a_gate_in_proportion_to_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    looks_like = product.looks_like
    monkeypatch.setattr(product, "looks_like", lambda *of: asked.append(of) or looks_like(*of))

    def apply(layers: list[list[jax.Array]], x: jax.Array) -> jax.Array:
        for q, k, up, down in layers:
            x = x + jax.nn.softmax((x @ q) @ (x @ k).swapaxes(1, 2)) @ x
            x = x + jax.nn.gelu(x @ up) @ down
        return x.mean(1)

    def count(depth: int) -> int:
        asked.clear()
        lrp.plan(apply, lrp.AttnLRP())([[jnp.ones((4, 4))] * 4] * depth, jnp.ones((2, 3, 4)))
        return len(asked)

    few, some, many = map(count, (4, 8, 12))
    assert many - some <= some - few


@pytest.mark.parametrize("name", ["LRP-0", "Epsilon", "EpsilonPlus", "EpsilonAlpha2Beta1"])
def test_what_comes_back_to_both_operands_of_a_sum_is_computed_once(name: str) -> None:
    depth = 3

    def apply(ws: list[jax.Array], x: jax.Array) -> jax.Array:
        for w in ws:
            x = jax.nn.relu(x + x @ w)
        return x

    with jax.enable_x64(False):
        ws, x = [jnp.ones((4, 4))] * depth, jnp.ones((2, 4))
        explain = lrp.relevance(apply, PRICES[name][0]())
        text = jax.jit(lambda ws, x: explain(ws, x, target=0)).lower(ws, x).as_text()
    assert text.count("stablehlo.optimization_barrier") == depth


RULES: dict[str, lrp.Rule] = {
    "EpsilonPlus": lrp.ZPlus(),
    "Gamma": lrp.Gamma(),
    "EpsilonAlpha2Beta1": lrp.AlphaBeta(2.0, 1.0),
}


def test_a_known_stabiliser_needs_no_guard_against_zero() -> None:
    def divisions(epsilon: Any) -> str:
        return str(jax.make_jaxpr(lambda r, z: divide(r, z, epsilon))(1.0, 1.0))

    assert " eq " in divisions(0.0)
    assert " eq " not in divisions(1e-6)


# -- many questions -----------------------------------------------------------------------------


def loops(jaxpr: Any, name: str) -> int:
    """How many equations of a primitive the bodies of loops hold."""

    def count(jaxpr: Any, inside: bool) -> int:
        found = 0
        for eqn in jaxpr.eqns:
            found += inside and eqn.primitive.name == name
            for value in jax.tree.leaves([*eqn.params.values()], is_leaf=_is_jaxpr):
                if _is_jaxpr(value):
                    body = getattr(value, "jaxpr", value)
                    found += count(body, inside or eqn.primitive.name == "scan")
        return found

    return count(getattr(jaxpr, "jaxpr", jaxpr), False)


def test_what_is_split_is_put_side_by_side_on_the_way_back() -> None:
    model = nn.RNN(nn.OptimizedLSTMCell(4))
    with jax.enable_x64(False):
        x = jnp.ones((2, 3, 4))
        v = model.init(jax.random.key(0), x)
        last = lambda v, x: model.apply(v, x)[:, -1]  # noqa: E731
        explained = jax.make_jaxpr(lrp.relevance(last, lrp.AttnLRP()))(v, x)
        gradient = jax.make_jaxpr(jax.grad(lambda x: last(v, x).sum()))(x)
    assert loops(gradient, "dot_general") > 0
    assert loops(explained, "dot_general") > 0
    assert loops(gradient, "pad") == loops(explained, "pad") == 0


def _is_jaxpr(value: Any) -> bool:
    return hasattr(getattr(value, "jaxpr", value), "eqns")


@pytest.mark.parametrize("name", ["Epsilon", "EpsilonPlus"])
def test_concepts_by_chunks_share_denominators(name: str) -> None:
    ask = lrp.concept_relevance(CNN().apply, PRICES[name][0](), "Conv_1", range(8), chunk=2)
    with jax.enable_x64(False):
        x = jax.ShapeDtypeStruct(SMALL, jnp.float32)
        variables = jax.eval_shape(CNN().init, jax.random.key(0), x)
        made = jax.make_jaxpr(lambda v, x: ask(v, x, target=0))(variables, x)
    # Two convolutions lie below the layer, its own among them; the first tells signs apart. Of the
    # other one a concept reads one channel of the kernel, as a product of matrices.
    first = 1 if name == "Epsilon" else 2
    branches = 2  # for this platform, and for the others
    assert loops(made, "conv_general_dilated") == branches * first
    assert loops(made, "dot_general") == branches


def multiplications(jaxpr: Any) -> int:
    """Of matrix products, all turns of loops counted."""
    found = 0
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if eqn.primitive.name == "dot_general":
            left = eqn.invars[0].aval.shape
            summed = math.prod(left[i] for i in eqn.params["dimension_numbers"][0][0])
            found += summed * eqn.outvars[0].aval.size
        for value in jax.tree.leaves([*eqn.params.values()], is_leaf=_is_jaxpr):
            if _is_jaxpr(value):
                found += eqn.params.get("length", 1) * multiplications(value)
    return found


@pytest.mark.parametrize("form", ["each", "generation"])
def test_a_row_of_a_language_model_pays_for_its_layers_and_not_for_its_vocabulary(
    form: str,
) -> None:
    tokens, width, vocabulary, rows, layers = 12, 8, 4096, 5, 3

    def apply(w: Any, ids: jax.Array) -> jax.Array:
        x = w["table"][ids]
        for q, v, up, down in w["layers"]:
            y = x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)
            scores = jnp.where(jnp.tril(jnp.ones((tokens, tokens), bool)), y @ q @ y.T, -1e9)
            x = x + jax.nn.softmax(scores) @ (y @ v)
            x = x + jax.nn.silu(x @ up) @ down
        return x @ w["table"].T

    square, wide = (width, width), (width, 4 * width)
    layer = [jax.ShapeDtypeStruct(s, jnp.float32) for s in (square, square, wide, wide[::-1])]
    table = jax.ShapeDtypeStruct((vocabulary, width), jnp.float32)
    w = {"table": table, "layers": [layer] * layers}
    ids = [jax.ShapeDtypeStruct((n,), jnp.int32) for n in (tokens, tokens - rows, rows)]
    single = lrp.relevance(apply, lrp.AttnLRP())
    each = targets.each([targets.token(tokens - 2 - i, i) for i in range(rows)])
    with jax.enable_x64(False):
        forward = multiplications(jax.make_jaxpr(apply)(w, ids[0]))
        if form == "each":
            explain = jax.make_jaxpr(lambda w, ids: single(w, ids, target=each))(w, ids[0])
        else:
            generation = lrp.explain_generation(apply, lrp.AttnLRP())
            explain = jax.make_jaxpr(generation)(w, *ids[1:])
    head = tokens * width * vocabulary
    row = (multiplications(explain) - forward) / rows
    # Each of the two contractions of attention is one for each of its operands on the way back.
    attention = layers * 2 * tokens * tokens * width
    # Of the last layer all but keys and values has one row: its way to those is less than a layer.
    assert row < forward - head + attention
    assert row < 0.2 * head


def test_rows_by_chunks_are_all_of_them_and_no_more() -> None:
    assert over(lambda i: i * 2.0, jnp.arange(7.0), 3).tolist() == [2.0 * i for i in range(7)]
