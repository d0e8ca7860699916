"""AttnLRP and CP-LRP of seven families of transformers, written from the formulas.

Both are Gradient x Input through a forward pass whose derivative is edited at four kinds of places:

- an activation f hands its relevance on unchanged: its derivative becomes f(x) / x;
- a product of two explained values gives half to each: what leaves it is halved on the way back;
- the statistics of a norm (the root mean square, the deviation, not the mean) are constants;
- AttnLRP keeps the softmax as it is; CP-LRP holds the attention weights and the gates of the MLP
  instead, so that values and up-projections get everything, and nothing is halved.

Linear layers, biases, residual adds, rotary positions and scales keep their own derivative (LRP-0),
except where a gamma is given. The forward passes share no code with the models under test. First
derivatives only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient as hold
from jax.scipy.special import erf


def halve(x: Array) -> Array:
    """The value of x, half of its derivative."""
    return x / 2 + hold(x / 2)


def identity_rule(x: Array, ratio: Array) -> Array:
    """An activation x * ratio(x) through which relevance passes unchanged."""
    return x * hold(ratio)


def silu(x: Array) -> Array:
    return identity_rule(x, 1 / (1 + jnp.exp(-x)))


def gelu(x: Array) -> Array:
    return identity_rule(x, (1 + erf(x / sqrt(2))) / 2)


def gelu_new(x: Array) -> Array:
    return identity_rule(x, (1 + jnp.tanh(sqrt(2 / jnp.pi) * (x + 0.044715 * x**3))) / 2)


def tanh(x: Array) -> Array:
    return identity_rule(x, jnp.where(x == 0, 1.0, jnp.tanh(x) / jnp.where(x == 0, 1.0, x)))


def rms(x: Array, weight: Array, epsilon: float) -> Array:
    return weight * x / hold(jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + epsilon))


def layer_norm(x: Array, p: Any, epsilon: float) -> Array:
    centred = x - jnp.mean(x, -1, keepdims=True)
    deviation = jnp.sqrt(jnp.mean(centred**2, -1, keepdims=True) + epsilon)
    return centred / hold(deviation) * p["scale"] + p["bias"]


def affine(x: Array, kernel: Array, bias: Array | float = 0.0) -> Array:
    return x @ kernel + bias


def gamma_affine(gamma: float, stabilizer: float = 1e-6) -> Callable[..., Array]:
    r"""A linear layer \(z = x w + b\) with the generalised gamma rule.

    With \(s_i\) the sign of \(x_i\), \(v_{ij} = w_{ij} + \gamma w^{s_i}_{ij}\), where \(z_j > 0\):
    \(R_i = x_i \sum_j v_{ij} R_j / D_j\), \(D_j = \sum_i x_i v_{ij} + b_j + \gamma b^+_j\); where
    \(z_j < 0\), with the signs swapped.
    """

    def linear(x: Array, w: Array, b: Array | float = 0.0) -> Array:
        up, down = w + gamma * jnp.maximum(w, 0), w + gamma * jnp.minimum(w, 0)
        positive, negative = jnp.maximum(x, 0.0), jnp.minimum(x, 0.0)
        bias = jnp.asarray(b)
        z = x @ w + b
        favoured = positive @ up + negative @ down + bias + gamma * jnp.maximum(bias, 0)
        opposed = positive @ down + negative @ up + bias + gamma * jnp.minimum(bias, 0)
        d = jnp.where(z > 0, favoured, opposed)
        stable = d + jnp.where(d < 0, -stabilizer, stabilizer)
        return hold(z) + hold(z / stable) * (d - hold(d))

    return linear


@dataclass(frozen=True)
class Method:
    """Which parts of a forward pass are held, halved or generalised."""

    attention: Callable[[Array], Array] = lambda weights: weights
    gate: Callable[[Array], Array] = lambda gate: gate
    product: Callable[[Array], Array] = lambda product: product
    patches: Callable[..., Array] = affine
    mlp: Callable[..., Array] = affine


ATTN_LRP = Method(product=halve)
CP_LRP = Method(attention=hold, gate=hold)


def softmax(scores: Array) -> Array:
    exponentials = jnp.exp(scores - hold(jnp.max(scores, -1, keepdims=True)))
    return exponentials / jnp.sum(exponentials, -1, keepdims=True)


def attention(q: Array, k: Array, v: Array, allowed: Array, method: Method) -> Array:
    """Attention head by head; q, k, v are (head, token, feature)."""
    mixed = []
    for head in range(q.shape[0]):
        scores = method.product(q[head] @ k[head].T) / sqrt(q.shape[-1])
        weights = method.attention(softmax(scores + jnp.where(allowed, 0.0, -1e30)))
        mixed.append(method.product(weights @ v[head]))
    return jnp.concatenate(mixed, axis=-1)


def heads(x: Array, p: Any) -> Array:
    """Project (token, feature) to (head, token, feature) by a kernel (feature, head, feature)."""
    y = jnp.moveaxis(jnp.tensordot(x, p["kernel"], 1), 1, 0)
    return y + p["bias"][:, None] if "bias" in p else y


def rotary(x: Array) -> Array:
    """Turn the pair (i, i + half) of the token at position t by the angle t / 10000^(i / half)."""
    half = x.shape[-1] // 2
    angles = jnp.arange(x.shape[1])[:, None] / 10000.0 ** (jnp.arange(half) / half)
    real, imaginary = x[..., :half], x[..., half:]
    return jnp.concatenate(
        [
            real * jnp.cos(angles) - imaginary * jnp.sin(angles),
            imaginary * jnp.cos(angles) + real * jnp.sin(angles),
        ],
        axis=-1,
    )


def layers(params: Any) -> list[Any]:
    count = sum(name.startswith("layer_") for name in params)
    return [params[f"layer_{i}"] for i in range(count)]


def decoder(params: Any, x: Array, method: Method, gemma: bool = False) -> Array:
    """Llama, Qwen2, Qwen3 and Gemma 3: what is in the parameters tells which."""

    def norm(p: Any, x: Array) -> Array:
        return rms(x, p["scale"] + 1 if gemma else p["scale"], 1e-6)

    def unchanged(p: Any, x: Array) -> Array:
        return x

    allowed = jnp.tri(x.shape[0], dtype=bool)
    if gemma:
        x = x * sqrt(x.shape[-1])
    for p in layers(params):
        after = norm if gemma else unchanged
        p_attention, p_mlp = p["attn"], p["mlp"]
        y = norm(p["attn_norm"], x)
        q, k, v = (heads(y, p_attention[name]) for name in "qkv")
        if "q_norm" in p_attention:
            q, k = norm(p_attention["q_norm"], q), norm(p_attention["k_norm"], k)
        of_head = jnp.arange(q.shape[0]) * k.shape[0] // q.shape[0]
        mixed = attention(rotary(q), rotary(k)[of_head], v[of_head], allowed, method)
        out = p_attention["o"]["kernel"]
        x = x + after(p.get("attn_post_norm"), mixed @ out.reshape(-1, out.shape[-1]))
        y = norm(p["mlp_norm"], x)
        activation = gelu_new if gemma else silu
        gate = method.gate(activation(method.mlp(y, p_mlp["gate"]["kernel"])))
        hidden = method.product(gate * method.mlp(y, p_mlp["up"]["kernel"]))
        x = x + after(p.get("mlp_post_norm"), method.mlp(hidden, p_mlp["down"]["kernel"]))
    return norm(params["final_norm"], x)[-1] @ params["lm_head"]["kernel"]


def mlp(p: Any, x: Array, method: Method, activation: Callable[[Array], Array]) -> Array:
    hidden = activation(method.mlp(x, p["fc1"]["kernel"], p["fc1"]["bias"]))
    return method.mlp(hidden, p["fc2"]["kernel"], p["fc2"]["bias"])


def gpt2(params: Any, x: Array, method: Method) -> Array:
    x = x + params["wpe"]
    for p in layers(params):
        y = layer_norm(x, p["ln_1"], 1e-5)
        fused = affine(y, p["attn"]["c_attn"]["kernel"], p["attn"]["c_attn"]["bias"])
        q, k, v = fused.reshape(x.shape[0], 3, 4, -1).transpose(1, 2, 0, 3)
        mixed = attention(q, k, v, jnp.tri(x.shape[0], dtype=bool), method)
        x = x + affine(mixed, p["attn"]["c_proj"]["kernel"], p["attn"]["c_proj"]["bias"])
        x = x + mlp(p["mlp"], layer_norm(x, p["ln_2"], 1e-5), method, gelu_new)
    return layer_norm(x, params["ln_f"], 1e-5)[-1] @ params["lm_head"]["kernel"]


def self_attention(p: Any, x: Array, allowed: Array, method: Method) -> Array:
    q, k, v = (heads(x, p[name]) for name in ("query", "key", "value"))
    out = p["out"]["kernel"]
    return affine(
        attention(q, k, v, allowed, method), out.reshape(-1, out.shape[-1]), p["out"]["bias"]
    )


def bert(params: Any, x: Array, method: Method) -> Array:
    """The last token is padding."""
    allowed = jnp.arange(x.shape[0])[None, :] < x.shape[0] - 1
    x = layer_norm(x + params["position"] + params["token_type"], params["ln"], 1e-12)
    for p in layers(params):
        x = layer_norm(x + self_attention(p["attention"], x, allowed, method), p["ln_1"], 1e-12)
        x = layer_norm(x + mlp(p["mlp"], x, method, gelu), p["ln_2"], 1e-12)
    pooled = tanh(affine(x[0], params["pooler"]["kernel"], params["pooler"]["bias"]))
    return affine(pooled, params["classifier"]["kernel"], params["classifier"]["bias"])


def vit(params: Any, image: Array, method: Method) -> Array:
    kernel = params["patch_embedding"]["kernel"]
    size = kernel.shape[0]
    patches = [
        image[i : i + size, j : j + size].reshape(-1)
        for i in range(0, image.shape[0], size)
        for j in range(0, image.shape[1], size)
    ]
    flat = kernel.reshape(-1, kernel.shape[-1])
    embedded = method.patches(jnp.stack(patches), flat, params["patch_embedding"]["bias"])
    x = jnp.concatenate([params["class_token"][None], embedded]) + params["position"]
    for p in layers(params):
        y = layer_norm(x, p["ln_1"], 1e-6)
        x = x + self_attention(p["attention"], y, jnp.array(True), method)
        x = x + mlp(p["mlp"], layer_norm(x, p["ln_2"], 1e-6), method, gelu)
    return affine(
        layer_norm(x, params["ln"], 1e-6)[0], params["head"]["kernel"], params["head"]["bias"]
    )


FORWARD: dict[str, Callable[[Any, Array, Method], Array]] = {
    "llama": decoder,
    "qwen2": decoder,
    "qwen3": decoder,
    "gemma3": lambda params, x, method: decoder(params, x, method, gemma=True),
    "gpt2": gpt2,
    "bert": bert,
    "vit": vit,
}


def logits(family: str, params: Any, x: Array) -> Array:
    """The logits (batch, class) of embeddings (batch, token, feature) or images."""
    return jax.vmap(lambda one: FORWARD[family](params, one, ATTN_LRP))(x)


def relevance(family: str, params: Any, x: Array, target: int, method: Method) -> Array:
    """The relevance of every number of x, an array (batch, ...), for the logit `target`."""

    def explain(one: Array) -> Array:
        return one * jax.grad(lambda one: FORWARD[family](params, one, method)[target])(one)

    return jax.jit(jax.vmap(explain))(x)
