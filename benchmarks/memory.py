"""The memory of explaining long contexts: counted by the compiler, the same on every machine.

    python -m benchmarks.memory                     512 to 8,192 tokens; a few minutes on two cores
    python -m benchmarks.memory --tokens 512 1024

A causal decoder of 4 layers and width 256 with 4 heads, one sequence, the last token's logit of a
vocabulary of 1,024; float32. Figures are the temporary bytes of the compiled program (XLA's memory
analysis), for the gradient with respect to the embedded tokens and for AttnLRP of the ids. Nothing
is run.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

import lrp_jax as lrp


@dataclass(frozen=True)
class Sizes:
    """The sizes of a decoder, and of the blocks of queries or keys."""

    layers: int = 4
    width: int = 256
    heads: int = 4
    hidden: int = 1024
    vocabulary: int = 1024
    block: int = 128


@dataclass(frozen=True)
class Recipe:
    """How a decoder is written.

    Attributes:
        attention: by blocks of "queries" or of "keys", or "" for all weights at once.
        layers: whether each layer is computed anew on the way back.
    """

    attention: str = ""
    layers: bool = True


RECIPES = {
    "nothing": Recipe(layers=False),
    "checkpointed layers": Recipe(),
    "checkpointed layers, blocks of queries": Recipe("queries"),
    "checkpointed layers, blocks of keys": Recipe("keys"),
}


def whole(q: jax.Array, k: jax.Array, v: jax.Array, block: int) -> jax.Array:
    """Attention of (heads, tokens, features) with all weights at once."""
    return _attend(q, jnp.arange(q.shape[1]), k, v)


def by_queries(q: jax.Array, k: jax.Array, v: jax.Array, block: int) -> jax.Array:
    """Attention by blocks of queries, whose weights are computed anew on the way back."""
    heads, tokens, size = q.shape
    blocks = jnp.moveaxis(q.reshape(heads, -1, block, size), 1, 0)
    places = jnp.arange(tokens).reshape(-1, block)
    one = jax.checkpoint(lambda given: _attend(*given, k, v))
    return jnp.moveaxis(lax.map(one, (blocks, places)), 0, 1).reshape(heads, tokens, -1)


def by_keys(q: jax.Array, k: jax.Array, v: jax.Array, block: int) -> jax.Array:
    """Attention by blocks of keys with a running maximum and sum, as kernels write it."""
    heads, tokens, size = q.shape
    split = lambda a: jnp.moveaxis(a.reshape(heads, -1, block, a.shape[-1]), 1, 0)  # noqa: E731
    places = jnp.arange(tokens)

    @jax.checkpoint
    def turn(carry: Any, given: Any) -> Any:
        largest, total, z = carry
        k, v, keys = given
        s = jnp.where(places[:, None] >= keys, q @ jnp.swapaxes(k, 1, 2) / size**0.5, -1e9)
        new = jnp.maximum(largest, s.max(-1))
        old, e = jnp.exp(largest - new), jnp.exp(s - new[..., None])
        return (new, total * old + e.sum(-1), z * old[..., None] + e @ v), None

    zeros = jnp.zeros((heads, tokens))
    start = (zeros - 1e9, zeros, jnp.zeros_like(v))
    (_, total, z), _ = lax.scan(turn, start, (split(k), split(v), places.reshape(-1, block)))
    return z / total[..., None]


ATTENTION = {"": whole, "queries": by_queries, "keys": by_keys}


def _attend(q: jax.Array, places: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    s = q @ jnp.swapaxes(k, 1, 2) / q.shape[-1] ** 0.5
    causal = places[:, None] >= jnp.arange(k.shape[1])
    return jax.nn.softmax(jnp.where(causal, s, -1e9)) @ v


def decoder(recipe: Recipe, sizes: Sizes, params: Any, h: jax.Array) -> jax.Array:
    """The logits of the last token, from embedded tokens."""
    attend = ATTENTION[recipe.attention]

    def layer(w: Any, h: jax.Array) -> jax.Array:
        x = _norm(h)
        q, k, v = (jnp.einsum("td,dhk->htk", x, w[name]) for name in ("q", "k", "v"))
        h = h + jnp.einsum("htk,hkd->td", attend(q, k, v, sizes.block), w["o"])
        x = _norm(h)
        return h + (jax.nn.silu(x @ w["gate"]) * (x @ w["up"])) @ w["down"]

    one = jax.checkpoint(layer) if recipe.layers else layer
    h, _ = lax.scan(lambda h, w: (one(w, h), None), h, params["layers"])
    return _norm(h[-1]) @ params["head"]


def _norm(h: jax.Array) -> jax.Array:
    return h * lax.rsqrt((h**2).mean(-1, keepdims=True) + 1e-6)


def shapes(sizes: Sizes) -> Any:
    """The parameters' shapes."""
    width, hidden, heads = sizes.width, sizes.hidden, sizes.heads
    project = (width, heads, width // heads)
    kernels = {
        "q": project, "k": project, "v": project, "o": (*project[1:], width),
        "gate": (width, hidden), "up": (width, hidden), "down": (hidden, width),
    }  # fmt: skip
    floats = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)  # noqa: E731
    return {
        "table": floats(sizes.vocabulary, width),
        "layers": {name: floats(sizes.layers, *shape) for name, shape in kernels.items()},
        "head": floats(width, sizes.vocabulary),
    }


def temporaries(recipe: Recipe, tokens: int, explains: bool, sizes: Sizes = Sizes()) -> int:
    """Temporary bytes of the gradient, or of AttnLRP, for so many tokens."""
    net = partial(decoder, recipe, sizes)
    explain = lrp.relevance(lambda w, ids: net(w, w["table"][ids]), lrp.AttnLRP())

    def gradient(w: Any, ids: Any) -> Any:
        return jax.grad(lambda h: net(w, h)[7])(w["table"][ids])

    function = partial(explain, target=7) if explains else gradient
    ids = jax.ShapeDtypeStruct((tokens,), jnp.int32)
    lowered = jax.jit(function).lower(shapes(sizes), ids)
    try:  # what a library's kernel keeps to itself is not counted
        compiled = lowered.compile({"xla_cpu_experimental_ynn_fusion_type": ""})
    except jax.errors.JaxRuntimeError:  # a release without such kernels
        compiled = lowered.compile()
    return int(compiled.memory_analysis().temp_size_in_bytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Formatter)
    parser.add_argument("--tokens", nargs="+", type=int, default=[512, 1024, 2048, 4096, 8192])
    options = parser.parse_args()
    print("| MiB | of | " + " | ".join(f"{n:,} tokens" for n in options.tokens) + " |")
    print("| --- | --- |" + " ---: |" * len(options.tokens))
    for name, recipe in RECIPES.items():
        for of, explains in (("the gradient", False), ("AttnLRP", True)):
            cells = [f"{temporaries(recipe, n, explains) / 2**20:,.0f}" for n in options.tokens]
            print(f"| {name} | {of} | {' | '.join(cells)} |", flush=True)


class _Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    pass


if __name__ == "__main__":
    main()
