"""Heads, tokens and neurons: what each spelling of attention calls a head is found, and its
relevance is that of a gate put before it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import lrp_jax as lrp

TOKENS, WIDTH, HEADS, SIZE, VOCABULARY = 6, 8, 4, 3, 7
KEYS = jax.random.split(jax.random.key(11), 8)
SHAPES = {
    "table": (VOCABULARY, WIDTH), "q": (WIDTH, HEADS, SIZE), "k": (WIDTH, HEADS, SIZE),
    "v": (WIDTH, HEADS, SIZE), "o": (HEADS, SIZE, WIDTH), "up": (WIDTH, 5), "down": (5, WIDTH),
}  # fmt: skip
W = {
    n: jax.random.normal(k, s) / s[0] ** 0.5
    for (n, s), k in zip(SHAPES.items(), KEYS, strict=False)
}
W["head"] = jax.random.normal(KEYS[7], (WIDTH, VOCABULARY))
IDS = jnp.array([[1, 5, 2, 0, 3, 3], [6, 6, 4, 1, 0, 2]])
CAUSAL = jnp.tril(jnp.ones((TOKENS, TOKENS), bool))


def scores(q: Any, k: Any) -> Any:
    return jnp.where(CAUSAL[: q.shape[-2]], q @ jnp.swapaxes(k, -1, -2), -1e9)


def heads_of(w: Any, x: Any) -> tuple[Any, Any, Any]:
    """(..., heads, tokens, features)"""
    return tuple(jnp.einsum("...td,dhk->...htk", x, w[n]) for n in "qkv")  # type: ignore[return-value]


def mixed(w: Any, z: Any) -> Any:
    return jnp.einsum("...htk,hkd->...td", z, w["o"])


def by_matmul(w: Any, x: Any) -> Any:
    q, k, v = heads_of(w, x)
    return mixed(w, jax.nn.softmax(scores(q, k)) @ v)


def by_einsum(w: Any, x: Any) -> Any:
    q, k, v = (jnp.einsum("...td,dhk->...thk", x, w[n]) for n in "qkv")
    s = jnp.where(CAUSAL, jnp.einsum("...thk,...shk->...hts", q, k), -jnp.inf)
    z = jnp.einsum("...hts,...shk->...thk", jax.nn.softmax(s), v)
    return jnp.einsum("...thk,hkd->...td", z, w["o"])


def values_first(w: Any, x: Any) -> Any:
    q, k, v = heads_of(w, x)
    z = jnp.einsum("...hsk,...hts->...hkt", v, jax.nn.softmax(scores(q, k)))
    return jnp.einsum("...hkt,hkd->...td", z, w["o"])


def one_batch(w: Any, x: Any) -> Any:
    """Examples and heads as one axis, as many ports have it."""
    q, k, v = heads_of(w, x)
    flat = [a.reshape(-1, *a.shape[-2:]) for a in (q, k, v)]
    z = lax.batch_matmul(jax.nn.softmax(scores(*flat[:2])), flat[2])
    return mixed(w, z.reshape(v.shape))


def fused(w: Any, x: Any) -> Any:
    """Features are split into heads by a reshape."""
    kernel = jnp.concatenate([w[n].reshape(WIDTH, -1) for n in "qkv"], -1)
    parts = jnp.split(x @ kernel, 3, -1)
    q, k, v = (jnp.swapaxes(a.reshape(*x.shape[:-1], HEADS, SIZE), -2, -3) for a in parts)
    z = jnp.swapaxes(jax.nn.softmax(scores(q, k)) @ v, -2, -3)
    return z.reshape(*x.shape[:-1], -1) @ w["o"].reshape(-1, WIDTH)


def mapped_over_heads(w: Any, x: Any) -> Any:
    def one(q: Any, k: Any, v: Any, o: Any) -> Any:
        return (jax.nn.softmax(scores(x @ q, x @ k)) @ (x @ v)) @ o

    return jax.vmap(one, (1, 1, 1, 0))(w["q"], w["k"], w["v"], w["o"]).sum(0)


def loop_over_heads(w: Any, x: Any) -> Any:
    first = [jnp.moveaxis(a, -3, 0) for a in heads_of(w, x)]
    z = lax.map(lambda qkv: jax.nn.softmax(scores(qkv[0], qkv[1])) @ qkv[2], tuple(first))
    return mixed(w, jnp.moveaxis(z, 0, -3))


def blocks_of_queries(w: Any, x: Any) -> Any:
    q, k, v = heads_of(w, x)
    blocks = jnp.moveaxis(q.reshape(*q.shape[:-2], 3, 2, SIZE), -3, 0)
    masks = CAUSAL.reshape(3, 2, TOKENS)

    @jax.checkpoint
    def block(given: Any) -> Any:
        q, mask = given
        s = jnp.where(mask, q @ jnp.swapaxes(k, -1, -2), -1e9)
        return jax.nn.softmax(s) @ v

    z = jnp.moveaxis(lax.map(block, (blocks, masks)), 0, -3)
    return mixed(w, z.reshape(v.shape))


def blocks_of_keys(w: Any, x: Any) -> Any:
    q, k, v = heads_of(w, x)
    split = lambda a: jnp.moveaxis(a.reshape(*a.shape[:-2], 3, 2, SIZE), -3, 0)  # noqa: E731
    masks = jnp.moveaxis(CAUSAL.reshape(TOKENS, 3, 2), 1, 0)

    def turn(carry: Any, block: Any) -> Any:
        largest, total, z = carry
        k, v, mask = block
        s = jnp.where(mask, q @ jnp.swapaxes(k, -1, -2), -1e9)
        new = jnp.maximum(largest, s.max(-1))
        old, e = jnp.exp(largest - new), jnp.exp(s - new[..., None])
        return (new, total * old + e.sum(-1), z * old[..., None] + e @ v), None

    zeros = jnp.zeros(q.shape[:-1])
    start = (zeros - 1e9, zeros, jnp.zeros(v.shape))
    (_, total, z), _ = lax.scan(turn, start, (split(k), split(v), masks))
    return mixed(w, z / total[..., None])


def by_jax_nn(w: Any, x: Any) -> Any:
    q, k, v = (jnp.einsum("...td,dhk->...thk", x, w[n]) for n in "qkv")
    lead = q.shape[:-3]
    q, k, v = (a.reshape(-1, *a.shape[-3:]) for a in (q, k, v))
    z = jax.nn.dot_product_attention(q, k, v, scale=1.0, is_causal=True)
    return jnp.einsum("...thk,hkd->...td", z.reshape(*lead, *z.shape[1:]), w["o"])


SPELLINGS = [
    by_matmul, by_einsum, values_first, one_batch, fused, mapped_over_heads, loop_over_heads,
    blocks_of_queries, blocks_of_keys, by_jax_nn,
]  # fmt: skip


def net(attention: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def apply(w: Any, ids: Any) -> Any:
        h = w["table"][ids]
        h = h + attention(w, h)
        h = h + jax.nn.relu(h @ w["up"]) @ w["down"]
        return h[..., -1, :] @ w["head"]

    return apply


@pytest.fixture(scope="module", autouse=True)
def _compile_quickly() -> Iterator[None]:
    """Tiny arrays: compiling is nearly all of the time, and optimising gains nothing."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def close(found: Any, wanted: Any, tolerance: float = 1e-9) -> None:
    assert found.shape == np.shape(wanted)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


def gated(w: Any, ids: Any, gates: Any) -> Any:
    """The logit of token 2 with a gate (examples, heads, tokens) on what every head makes; weights
    of attention are constants, as CP-LRP has them."""

    def attention(w: Any, x: Any) -> Any:
        q, k, v = heads_of(w, x)
        return mixed(w, gates[..., None] * (lax.stop_gradient(jax.nn.softmax(scores(q, k))) @ v))

    return net(attention)(w, ids)[:, 2]


def truth() -> Any:
    """In a piecewise linear network the relevance of a gated value is the gate's derivative."""
    ones = jnp.ones((2, HEADS, TOKENS))
    return jax.grad(lambda gates: gated(W, IDS, gates).sum())(ones)


@pytest.mark.parametrize("attention", SPELLINGS, ids=lambda f: f.__name__)
def test_heads_of_every_spelling(attention: Any) -> None:
    wanted = truth()
    apply = net(attention)
    tolerance = 1e-6 if attention is by_jax_nn else 1e-9  # its softmax is of float32
    (found,) = lrp.head_relevance(apply, lrp.CPLRP(), tokens=True)(W, IDS, target=2).values()
    close(found, jnp.swapaxes(wanted, 1, 2), tolerance)
    (found,) = lrp.head_relevance(apply, lrp.CPLRP())(W, IDS[1], target=2).values()
    close(found, wanted[1].sum(-1), tolerance)


@pytest.mark.parametrize("groups", ["axes", "repeated", "one"])
def test_grouped_queries(groups: str) -> None:
    """Two heads of keys and values for four of queries; or one for all."""
    shared = 1 if groups == "one" else 2
    w = W | {n: W[n][:, :shared] for n in "kv"}

    def attention(w: Any, x: Any) -> Any:
        q, k, v = heads_of(w, x)
        if groups == "axes":
            q = q.reshape(*q.shape[:-3], shared, -1, *q.shape[-2:])
            s = jnp.where(CAUSAL, jnp.einsum("...cgtk,...csk->...cgts", q, k), -1e9)
            z = jnp.einsum("...cgts,...csk->...cgtk", jax.nn.softmax(s), v)
            return mixed(w, z.reshape(*x.shape[:-2], HEADS, *z.shape[-2:]))
        if groups == "repeated":
            k, v = (jnp.repeat(a, HEADS // shared, -3) for a in (k, v))
            return mixed(w, jax.nn.softmax(scores(q, k)) @ v)
        s = jnp.where(CAUSAL, jnp.einsum("...htk,...sk->...hts", q, k[..., 0, :, :]), -1e9)
        return mixed(w, jnp.einsum("...hts,...sk->...htk", jax.nn.softmax(s), v[..., 0, :, :]))

    repeated = w | {n: jnp.repeat(w[n], HEADS // shared, 1) for n in "kv"}
    gates = jnp.ones((2, HEADS, TOKENS))
    wanted = jax.grad(lambda gates: gated(repeated, IDS, gates).sum())(gates).sum(-1)
    (found,) = lrp.head_relevance(net(attention), lrp.CPLRP())(w, IDS, target=2).values()
    close(found, wanted)


@pytest.mark.parametrize("attention", [by_einsum, one_batch, loop_over_heads])
def test_heads_are_concepts(attention: Any) -> None:
    """What flows through a head to the input is what the gate of it lets through."""
    apply, explain = net(attention), lrp.concept_relevance
    (path,) = lrp.head_relevance(apply, lrp.CPLRP())(W, IDS)
    each = explain(apply, lrp.CPLRP(), path, [0, 1, 2, [3]], axis="heads")(W, IDS, target=2)
    close(each.sum(-1).T, truth().sum(-1))
    both = explain(apply, lrp.CPLRP(), path, [[1, 3]], axis="heads")(W, IDS, target=2)
    close(both[0], each[1] + each[3])
    with pytest.raises(ValueError, match="there are 4 heads"):
        explain(apply, lrp.CPLRP(), path, [4], axis="heads")(W, IDS)
    with pytest.raises(ValueError, match='axis="heads"'):
        explain(apply, lrp.CPLRP(), path, [0])(W, IDS)
    with pytest.raises(ValueError, match="no heads"):
        explain(apply, lrp.CPLRP(), "up", [0], axis="heads")(W, IDS)


def test_heads_of_groups_are_concepts_across_axes() -> None:
    def attention(w: Any, x: Any) -> Any:
        q, k, v = heads_of(w, x)
        q, k, v = (a.reshape(*a.shape[:-3], 2, 2, *a.shape[-2:]) for a in (q, k, v))
        z = jax.nn.softmax(scores(q, k)) @ v
        return mixed(w, z.reshape(*x.shape[:-2], HEADS, *z.shape[-2:]))

    explain = lrp.concept_relevance(
        net(attention), lrp.CPLRP(), lrp.Attention, [0, 1, 2, 3], axis="heads"
    )
    close(explain(W, IDS, target=2).sum(-1).T, truth().sum(-1))


class Linen(nn.Module):
    @nn.compact
    def __call__(self, ids: Any) -> Any:
        h = nn.Embed(VOCABULARY, WIDTH)(ids)
        for _ in range(2):
            h = h + nn.MultiHeadDotProductAttention(HEADS, use_bias=False)(h)
        return nn.Dense(3)(h.mean(1))


class Nnx(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.embed = nnx.Embed(VOCABULARY, WIDTH, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(HEADS, WIDTH, rngs=rngs, decode=False)
        self.out = nnx.Linear(WIDTH, 3, rngs=rngs)

    def __call__(self, ids: Any) -> Any:
        h = self.embed(ids)
        return self.out((h + self.attention(h)).mean(1))


def test_heads_of_linen_and_nnx() -> None:
    linen = Linen()
    cases = [
        (linen.apply, linen.init(jax.random.key(0), IDS), 2),
        (lambda model, ids: model(ids), Nnx(), 1),
    ]
    for apply, model, layers in cases:
        found = lrp.head_relevance(apply, lrp.AttnLRP())(model, IDS, target=1)
        hidden = lrp.layer_relevances(apply, lrp.AttnLRP(), lrp.Attention)(model, IDS, target=1)
        assert len(found) == layers
        for path, heads in found.items():
            assert hidden[path].shape[:3] == (2, HEADS, WIDTH // HEADS)
            close(heads, hidden[path].reshape(2, HEADS, -1).sum(-1), 1e-6)


def deep(w: Any, ids: Any, layers: int = 3) -> Any:
    def layer(h: Any, w: Any) -> Any:
        h = h + by_matmul(w, h)
        return h + jax.nn.relu(h @ w["up"]) @ w["down"], None

    h = w["table"][ids]
    if isinstance(w["layers"], list):
        for own in w["layers"]:
            h, _ = layer(h, own)
    else:
        h, _ = lax.scan(jax.checkpoint(layer), h, w["layers"])
    return h[..., -1, :] @ w["head"]


def deep_weights(stacked: bool) -> Any:
    names = ("q", "k", "v", "o", "up", "down")
    layers = [{n: jnp.roll(W[n], i, 0) for n in names} for i in range(3)]
    as_one = jax.tree.map(lambda *a: jnp.stack(a), *layers)
    return {"table": W["table"], "head": W["head"], "layers": as_one if stacked else layers}


@pytest.mark.parametrize("query", ["head_relevance", "token_layers", "neuron_relevance"])
def test_layers_in_a_loop_are_layers_one_by_one(query: str) -> None:
    ask = getattr(lrp, query)
    apart = ask(deep, lrp.AttnLRP())(deep_weights(False), IDS, target=2)
    turns = ask(deep, lrp.AttnLRP())(deep_weights(True), IDS, target=2)
    of_turns = [r for r in turns.values() if r.ndim == 3]
    rest = [r for r in turns.values() if r.ndim < 3]
    own = [*rest, *(r[i] for i in range(3) for r in of_turns)]
    for a, b in zip(apart.values(), own, strict=True):
        close(b, a)


def test_the_residual_stream_holds_everything() -> None:
    """CP-LRP conserves without biases: every row has the logit."""
    w = deep_weights(False)
    logits, relevance = lrp.value_and_relevance(deep, lrp.CPLRP())(w, IDS, target=2)
    found = lrp.token_layers(deep, lrp.CPLRP())(w, IDS, target=2)
    assert isinstance(jax.jit(lambda: found)(), OrderedDict)
    assert list(found) == ["table", *(f"Merge{(i and f':{i}') or ''}" for i in range(6))]
    for row in found.values():
        close(row.sum(-1), logits[:, 2])
    close(found["table"], relevance)
    last = np.zeros((2, TOKENS))
    last[:, -1] = logits[:, 2]
    close(found["Merge:5"], last)
    heads = lrp.head_relevance(deep, lrp.CPLRP())(w, IDS, target=2)
    neurons = lrp.neuron_relevance(deep, lrp.CPLRP())(w, IDS, target=2)
    hidden = lrp.layer_relevances(deep, lrp.CPLRP())(w, IDS, target=2)
    assert [r.shape for r in heads.values()] == [(2, HEADS)] * 3
    for i, (path, r) in enumerate(neurons.items()):
        close(r, hidden[path].sum(1))
        close(r.sum(-1), hidden[f"layers/{i}/down"].sum((1, 2)))
    for (path, r), i in zip(heads.items(), range(3), strict=True):
        close(r, hidden[path].sum((2, 3)))
        # What the heads have comes from the weights of the output, and goes to the values.
        close(r.sum(), hidden[f"layers/{i}/o"].sum())
        close(r.sum(), hidden[f"layers/{i}/v"].sum())


def test_layers_by_name_and_numbers_as_input() -> None:
    x = W["table"][IDS]
    w = deep_weights(False)

    def stream(w: Any, h: Any) -> Any:
        for own in w["layers"]:
            h = h + jax.nn.relu(h @ own["up"]) @ own["down"]
            h = h + by_matmul(own, h)
        return h[:, -1] @ w["head"]

    found = lrp.token_layers(stream, lrp.CPLRP(), "*/down")(w, x, target=2)
    hidden = lrp.layer_relevances(stream, lrp.CPLRP(), "*/down")(w, x, target=2)
    assert list(found) == [f"layers/{i}/down" for i in range(3)]
    for path, row in found.items():
        close(row, hidden[path].sum(2))
    assert len(lrp.token_layers(stream, lrp.CPLRP())(w, x)) == 6


def test_queries_that_are_parameters() -> None:
    """Rows of a constant are positions where heads are told apart, and their layers' too."""
    w = W | {"latents": jax.random.normal(KEYS[0], (5, WIDTH))}

    def perceiver(w: Any, ids: Any) -> Any:
        x = w["table"][ids]
        q = jnp.einsum("td,dhk->htk", w["latents"], w["q"])
        _, k, v = heads_of(w, x)
        z = jax.nn.softmax(jnp.einsum("htk,bhsk->bhts", q, k)) @ v
        h = w["latents"] + mixed(w, z)
        q, k, v = heads_of(w, h)
        h = h + mixed(w, jax.nn.softmax(q @ jnp.swapaxes(k, -1, -2)) @ v)
        return h.mean(1) @ w["head"]

    found = lrp.head_relevance(perceiver, lrp.AttnLRP())(w, IDS, target=1)
    hidden = lrp.layer_relevances(perceiver, lrp.AttnLRP(), lrp.Attention)(w, IDS, target=1)
    for path, heads in found.items():
        close(heads, hidden[path].sum((2, 3)))


def test_images_and_windows() -> None:
    """Patches in windows: positions on both sides of the heads."""
    w = W | {"patch": jax.random.normal(KEYS[1], (2, 2, 3, WIDTH)) / 3}

    def swin(w: Any, image: Any) -> Any:
        x = lax.conv_general_dilated(
            image, w["patch"], (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = x.reshape(-1, 2, 2, 2, 2, WIDTH).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 4, 4, WIDTH)
        q, k, v = heads_of(w, x)
        z = jax.nn.softmax(q @ jnp.swapaxes(k, -1, -2)) @ v  # (examples, windows, heads, 4, size)
        return mixed(w, z).mean((1, 2)) @ w["head"]

    image = jax.random.normal(KEYS[2], (2, 8, 8, 3))
    (heads,) = lrp.head_relevance(swin, lrp.AttnLRP())(w, image, target=0).values()
    hidden = lrp.layer_relevances(swin, lrp.AttnLRP(), lrp.Attention)(w, image, target=0)
    (z,) = hidden.values()
    assert z.shape == (2, 4, HEADS, 4, SIZE)
    close(heads, z.sum((1, 3, 4)))
    (heads,) = lrp.head_relevance(swin, lrp.AttnLRP(), tokens=True)(w, image, target=0).values()
    close(heads, z.sum(4).transpose(0, 1, 3, 2).reshape(2, 16, HEADS))


def test_refusals() -> None:
    def summed(w: Any, x: Any) -> Any:
        q, k, v = heads_of(w, x)
        return jnp.einsum("...hts,...hsk->...tk", jax.nn.softmax(scores(q, k)), v) @ w["o"][0]

    with pytest.raises(ValueError, match="no heads"):
        lrp.head_relevance(net(summed), lrp.AttnLRP())(W, IDS)
    with pytest.raises(ValueError, match="no heads"):
        lrp.head_relevance(net(by_matmul), lrp.AttnLRP(), lrp.Dense)(W, IDS)
    with pytest.raises(ValueError, match="no layer matches"):
        lrp.head_relevance(net(lambda w, x: x), lrp.AttnLRP())(W, IDS)
    with pytest.raises(ValueError, match="no residual stream"):
        lrp.token_layers(lambda w, x: x @ w["head"], lrp.Zero())(W, W["table"])
    with pytest.raises(ValueError, match="no neurons"):
        lrp.neuron_relevance(lambda w, x: x @ w["head"], lrp.Zero())(W, W["table"])
    with pytest.raises(ValueError, match="no axis of tokens"):
        lrp.token_layers(net(by_matmul), lrp.Zero(), "head")(W, IDS)
