"""Decoders that carry keys and values, and embeddings of other libraries, explained by ids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import lrp_jax as lrp
from lrp_jax import targets

TOKENS, WIDTH, HEADS, SIZE, VOCABULARY, LAYERS = 5, 6, 2, 3, 7, 2
SHAPES = {
    "table": (VOCABULARY, WIDTH), "q": (LAYERS, WIDTH, HEADS, SIZE),
    "k": (LAYERS, WIDTH, HEADS, SIZE), "v": (LAYERS, WIDTH, HEADS, SIZE),
    "o": (LAYERS, HEADS, SIZE, WIDTH), "up": (LAYERS, WIDTH, 8), "down": (LAYERS, 8, WIDTH),
}  # fmt: skip
KEYS = dict(zip(SHAPES, jax.random.split(jax.random.key(2), len(SHAPES)), strict=True))
W = {name: jax.random.normal(KEYS[name], shape) / 2 for name, shape in SHAPES.items()}
IDS = jnp.array([3, 1, 6, 1, 4])
COMPOSITES = {"AttnLRP": lrp.AttnLRP(), "CP-LRP": lrp.CPLRP(), "EpsilonPlus": lrp.EpsilonPlus()}


@pytest.fixture(scope="module", autouse=True)
def _compile_quickly() -> Iterator[None]:
    """Tiny arrays: compiling is nearly all of the time, and optimising gains nothing."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def norm(x: Any) -> Any:
    return x * lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-6)


def block(w: Any, i: int, h: Any, attend: Any) -> Any:
    """A block on (..., width); `attend` mixes queries with what it knows of keys and values."""
    x = norm(h)
    q, k, v = (jnp.einsum("...d,dhk->...hk", x, w[name][i]) for name in "qkv")
    h = h + jnp.einsum("...hk,hkd->...d", attend(q, k, v), w["o"][i])
    return h + jax.nn.silu(norm(h) @ w["up"][i]) @ w["down"][i]


def uncached(w: Any, ids: Any) -> Any:
    """All tokens at once."""
    h = w["table"][ids]
    causal = jnp.tril(jnp.ones((len(ids), len(ids)), bool))

    def attend(q: Any, k: Any, v: Any) -> Any:
        s = jnp.where(causal, jnp.einsum("thk,shk->hts", q, k), -1e9)
        return jnp.einsum("hts,shk->thk", jax.nn.softmax(s), v)

    for i in range(LAYERS):
        h = block(w, i, h, attend)
    return norm(h) @ w["table"].T


def step(w: Any, cache: Any, id_: Any, place: Any) -> tuple[Any, Any]:
    """One token: its keys and values go into the cache, and it sees what is there."""
    h, made = w["table"][id_], []
    for i, kept in enumerate(cache):

        def attend(q: Any, k: Any, v: Any, kept: Any = kept) -> Any:
            keys, values = (
                lax.dynamic_update_slice(old, new[None], (place, 0, 0))
                for old, new in zip(kept, (k, v), strict=True)
            )
            made.append((keys, values))
            s = jnp.where(jnp.arange(TOKENS) <= place, jnp.einsum("hk,shk->hs", q, keys), -1e9)
            return jnp.einsum("hs,shk->hk", jax.nn.softmax(s), values)

        h = block(w, i, h, attend)
    return made, norm(h) @ w["table"].T


def empty() -> Any:
    return [(jnp.zeros((TOKENS, HEADS, SIZE)),) * 2 for _ in range(LAYERS)]


def cached(w: Any, ids: Any) -> Any:
    """One token after the other, in Python."""
    cache, logits = empty(), []
    for place in range(TOKENS):
        cache, out = step(w, cache, ids[place], place)
        logits.append(out)
    return jnp.stack(logits)


def scanned(w: Any, ids: Any) -> Any:
    """One token after the other, in a loop that carries the cache."""

    def turn(cache: Any, given: Any) -> Any:
        return step(w, cache, *given)

    return lax.scan(turn, empty(), (ids, jnp.arange(TOKENS)))[1]


def prefilled(w: Any, ids: Any) -> Any:
    """A prompt at once, then a loop: its cache begins with numbers that are explained."""
    cache, logits = empty(), []
    for place in range(2):
        cache, out = step(w, cache, ids[place], place)
        logits.append(out)
    rest = (ids[2:], jnp.arange(2, TOKENS))
    _, later = lax.scan(lambda cache, given: step(w, cache, *given), cache, rest)
    return jnp.concatenate([jnp.stack(logits), later])


def close(found: Any, wanted: Any) -> None:
    assert found.shape == np.shape(wanted)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9 * np.abs(wanted).max())


CASES = [*((scanned, name) for name in COMPOSITES), (cached, "AttnLRP"), (prefilled, "AttnLRP")]


@pytest.mark.parametrize(("decoder", "composite"), CASES)
def test_a_cached_decoder_is_explained_as_the_uncached_one(decoder: Any, composite: str) -> None:
    rules = COMPOSITES[composite]
    target = targets.token(position=-1, token=2)
    close(decoder(W, IDS), uncached(W, IDS))
    wanted = lrp.relevance(uncached, rules)(W, IDS, target=target)
    close(lrp.relevance(decoder, rules)(W, IDS, target=target), wanted)


def test_a_generation_by_a_cache() -> None:
    prompt, answer = IDS[:3], IDS[3:]
    wanted = lrp.explain_generation(uncached, lrp.AttnLRP())(W, prompt, answer)
    found = lrp.explain_generation(scanned, lrp.AttnLRP())(W, prompt, answer)
    close(found.relevance, wanted.relevance)
    close(found.scores, wanted.scores)


class Equinox(eqx.Module):
    embed: eqx.nn.Embedding
    attention: eqx.nn.MultiheadAttention
    out: eqx.nn.Linear

    def __call__(self, ids: Any) -> Any:
        h = jax.vmap(self.embed)(ids)
        return self.out((h + self.attention(h, h, h)).mean(0))

    def embedded(self, h: Any) -> Any:
        return self.out((h + self.attention(h, h, h)).mean(0))


def test_equinox() -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    model = Equinox(
        eqx.nn.Embedding(VOCABULARY, WIDTH, key=keys[0]),
        eqx.nn.MultiheadAttention(HEADS, WIDTH, key=keys[1]),
        eqx.nn.Linear(WIDTH, 3, key=keys[2]),
    )
    wanted = lrp.relevance(lambda m, h: m.embedded(h), lrp.AttnLRP())(
        model, model.embed.weight[IDS], target=1
    )
    found = lrp.relevance(lambda m, ids: m(ids), lrp.AttnLRP())(model, IDS, target=1)
    close(found, wanted.sum(-1))
    (heads,) = lrp.head_relevance(lambda m, ids: m(ids), lrp.AttnLRP())(
        model, IDS, target=1
    ).values()
    hidden = lrp.layer_relevances(lambda m, ids: m(ids), lrp.AttnLRP(), lrp.Attention)
    (z,) = hidden(model, IDS, target=1).values()
    assert heads.shape == (HEADS,)
    close(heads, z.sum([a for a, n in enumerate(z.shape) if n != HEADS]))


@pytest.mark.parametrize("style", ["ARRAY_INDEX", "ONE_HOT"])
def test_haiku(style: str) -> None:
    def head(h: Any) -> Any:
        attention = hk.MultiHeadAttention(HEADS, SIZE, w_init=hk.initializers.RandomNormal())
        return hk.Linear(3)((h + hk.Linear(WIDTH)(attention(h, h, h))).mean(-2))

    embedded = lambda ids: hk.Embed(VOCABULARY, WIDTH, lookup_style=style)(ids)  # noqa: E731
    whole = hk.without_apply_rng(hk.transform(lambda ids: head(embedded(ids))))
    rest = hk.without_apply_rng(hk.transform(head))
    params = whole.init(jax.random.key(0), IDS)
    h = params["embed"]["embeddings"][IDS]
    wanted = lrp.relevance(rest.apply, lrp.AttnLRP())(params, h, target=1)
    found = lrp.relevance(whole.apply, lrp.AttnLRP())(params, IDS, target=1)
    np.testing.assert_allclose(found, wanted.sum(-1), rtol=1e-5, atol=1e-6)
    heads = lrp.head_relevance(whole.apply, lrp.AttnLRP())(params, IDS, target=1)
    assert [r.shape for r in heads.values()] == [(HEADS,)]
