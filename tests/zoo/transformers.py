"""Small transformers of the published families, from embeddings or images to logits.

Embeddings are (batch, position, feature). The parameters of a family are one tree for its forms:
the plain function, the Linen module, and the scan over stacked layers under `jax.checkpoint`
(`stacked` turns the first tree into that of the scan).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ._model import Model, Parts, filled, normal

LAYERS, TOKENS, WIDTH, HEADS, HEAD, HIDDEN, CLASSES = 2, 5, 12, 4, 4, 16, 7
KV_HEADS = 2


@dataclass(frozen=True)
class Decoder:
    """What tells the families of decoders apart."""

    qkv_bias: bool = False
    qk_norm: bool = False
    gemma: bool = False


DECODERS = {
    "llama": Decoder(),
    "qwen2": Decoder(qkv_bias=True),
    "qwen3": Decoder(qk_norm=True),
    "gemma3": Decoder(qk_norm=True, gemma=True),
}

# Parameters ---------------------------------------------------------------------------------------


def floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def linear(*shape: int, bias: tuple[int, ...] | None = None) -> dict[str, Any]:
    return {"kernel": floats(*shape)} | ({} if bias is None else {"bias": floats(*bias)})


def layer_norm_shapes() -> dict[str, Any]:
    return {"scale": floats(WIDTH), "bias": floats(WIDTH)}


def decoder_layer(kind: Decoder) -> dict[str, Any]:
    def project(heads: int) -> dict[str, Any]:
        return linear(WIDTH, heads, HEAD, bias=(heads, HEAD) if kind.qkv_bias else None)

    norm = {"scale": floats(WIDTH)}
    attention = {"q": project(HEADS), "k": project(KV_HEADS), "v": project(KV_HEADS)}
    attention |= {"o": linear(HEADS, HEAD, WIDTH)}
    if kind.qk_norm:
        attention |= {"q_norm": {"scale": floats(HEAD)}, "k_norm": {"scale": floats(HEAD)}}
    mlp = {
        "gate": linear(WIDTH, HIDDEN),
        "up": linear(WIDTH, HIDDEN),
        "down": linear(HIDDEN, WIDTH),
    }
    post = {"attn_post_norm": norm, "mlp_post_norm": norm} if kind.gemma else {}
    return {"attn_norm": norm, "attn": attention, "mlp_norm": norm, "mlp": mlp} | post


def attention_shapes() -> dict[str, Any]:
    """The tree of Linen's multi-head attention."""
    project = linear(WIDTH, HEADS, WIDTH // HEADS, bias=(HEADS, WIDTH // HEADS))
    out = linear(HEADS, WIDTH // HEADS, WIDTH, bias=(WIDTH,))
    return {"query": project, "key": project, "value": project, "out": out}


def mlp_shapes() -> dict[str, Any]:
    return {
        "fc1": linear(WIDTH, HIDDEN, bias=(HIDDEN,)),
        "fc2": linear(HIDDEN, WIDTH, bias=(WIDTH,)),
    }


def shapes(family: str) -> dict[str, Any]:
    norm = layer_norm_shapes()
    if family in DECODERS:
        layer = decoder_layer(DECODERS[family])
        rest = {"final_norm": {"scale": floats(WIDTH)}, "lm_head": linear(WIDTH, CLASSES)}
    elif family == "gpt2":
        attention = {
            "c_attn": linear(WIDTH, 3 * WIDTH, bias=(3 * WIDTH,)),
            "c_proj": linear(WIDTH, WIDTH, bias=(WIDTH,)),
        }
        layer = {"ln_1": norm, "attn": attention, "ln_2": norm, "mlp": mlp_shapes()}
        rest = {"wpe": floats(TOKENS, WIDTH), "ln_f": norm, "lm_head": linear(WIDTH, CLASSES)}
    elif family == "bert":
        layer = {"attention": attention_shapes(), "ln_1": norm, "mlp": mlp_shapes(), "ln_2": norm}
        rest = {
            "position": floats(TOKENS, WIDTH),
            "token_type": floats(WIDTH),
            "ln": norm,
            "pooler": linear(WIDTH, WIDTH, bias=(WIDTH,)),
            "classifier": linear(WIDTH, CLASSES, bias=(CLASSES,)),
        }
    else:
        layer = {"ln_1": norm, "attention": attention_shapes(), "ln_2": norm, "mlp": mlp_shapes()}
        rest = {
            "patch_embedding": linear(4, 4, 2, WIDTH, bias=(WIDTH,)),
            "class_token": floats(WIDTH),
            "position": floats(5, WIDTH),
            "ln": norm,
            "head": linear(WIDTH, CLASSES, bias=(CLASSES,)),
        }
    return {f"layer_{i}": layer for i in range(LAYERS)} | rest


def parameters(family: str, rng: np.random.Generator) -> Any:
    return filled(shapes(family), rng)


def layers_of(params: Any) -> list[Any]:
    return [params[f"layer_{i}"] for i in range(LAYERS)]


def stacked(params: Any) -> Any:
    """The same parameters with those of all layers stacked along a leading axis, under "layers"."""
    rest = {name: value for name, value in params.items() if not name.startswith("layer_")}
    return rest | {"layers": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers_of(params))}


# Shared pieces, plain -----------------------------------------------------------------------------


def wide(x: Array) -> Array:
    """At least float32, as models of half precision compute their norms and softmaxes."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def apply_linear(p: Any, x: Array) -> Array:
    """Contract the last axis of `x` with the first of the kernel."""
    y = jnp.tensordot(x, p["kernel"], 1)
    return y + p["bias"] if "bias" in p else y


def rms_norm(p: Any, x: Array, gemma: bool = False) -> Array:
    y = wide(x) * lax.rsqrt(jnp.square(wide(x)).mean(-1, keepdims=True) + 1e-6)
    return (y * wide(1 + p["scale"] if gemma else p["scale"])).astype(x.dtype)


def layer_norm(p: Any, x: Array, epsilon: float) -> Array:
    centred = wide(x) - wide(x).mean(-1, keepdims=True)
    y = centred / jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + epsilon)
    return (y * p["scale"] + p["bias"]).astype(x.dtype)


def rotate(x: Array) -> Array:
    """Rotary positions of (batch, position, head, feature), the features paired by halves."""
    half = x.shape[-1] // 2
    angle = jnp.arange(x.shape[1])[:, None] * 10000.0 ** (-jnp.arange(half) / half)
    cos, sin = (jnp.tile(f(angle), 2)[:, None].astype(x.dtype) for f in (jnp.cos, jnp.sin))
    turned = jnp.concatenate([-x[..., half:], x[..., :half]], axis=-1)
    return x * cos + turned * sin


def attend(q: Array, k: Array, v: Array, mask: Array | None) -> Array:
    scores = jnp.einsum("bthd,bshd->bhts", q, k) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    weights = jax.nn.softmax(wide(scores), axis=-1).astype(q.dtype)
    return jnp.einsum("bhts,bshd->bthd", weights, v)


def causal(tokens: int) -> Array:
    return jnp.tril(jnp.ones((tokens, tokens), bool))


# Families, plain ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """A transformer as three parts, from which the loop and the scan over layers are built."""

    prepare: Callable[[Any, Array], Array]
    layer: Callable[[Any, Array], Array]
    finish: Callable[[Any, Array], Array]

    def loop(self, params: Any, x: Array) -> Array:
        x = self.prepare(params, x)
        for p in layers_of(params):
            x = self.layer(p, x)
        return self.finish(params, x)

    def scan(self, params: Any, x: Array) -> Array:
        body = jax.checkpoint(lambda x, p: (self.layer(p, x), None))
        x, _ = lax.scan(body, self.prepare(params, x), params["layers"])
        return self.finish(params, x)


def decoder(kind: Decoder) -> Family:
    def norm(p: Any, x: Array) -> Array:
        return rms_norm(p, x, kind.gemma)

    def attention(p: Any, x: Array) -> Array:
        q, k, v = (apply_linear(p[name], x) for name in "qkv")
        if kind.qk_norm:
            q, k = norm(p["q_norm"], q), norm(p["k_norm"], k)
        k, v = (jnp.repeat(a, HEADS // KV_HEADS, axis=2) for a in (rotate(k), v))
        return jnp.tensordot(attend(rotate(q), k, v, causal(x.shape[1])), p["o"]["kernel"], 2)

    def mlp(p: Any, x: Array) -> Array:
        activation = jax.nn.gelu if kind.gemma else jax.nn.silu
        gate = activation(apply_linear(p["gate"], x))
        return apply_linear(p["down"], gate * apply_linear(p["up"], x))

    def layer(p: Any, x: Array) -> Array:
        y = attention(p["attn"], norm(p["attn_norm"], x))
        x = x + (norm(p["attn_post_norm"], y) if kind.gemma else y)
        y = mlp(p["mlp"], norm(p["mlp_norm"], x))
        return x + (norm(p["mlp_post_norm"], y) if kind.gemma else y)

    return Family(
        prepare=lambda p, x: x * jnp.asarray(WIDTH**0.5, x.dtype) if kind.gemma else x,
        layer=layer,
        finish=lambda p, x: apply_linear(p["lm_head"], norm(p["final_norm"], x)[:, -1]),
    )


def gpt2_layer(p: Any, x: Array) -> Array:
    fused = apply_linear(p["attn"]["c_attn"], layer_norm(p["ln_1"], x, 1e-5))
    q, k, v = (a.reshape(*x.shape[:2], HEADS, -1) for a in jnp.split(fused, 3, axis=-1))
    mixed = attend(q, k, v, causal(x.shape[1])).reshape(x.shape)
    x = x + apply_linear(p["attn"]["c_proj"], mixed)
    hidden = apply_linear(p["mlp"]["fc1"], layer_norm(p["ln_2"], x, 1e-5))
    return x + apply_linear(p["mlp"]["fc2"], jax.nn.gelu(hidden, approximate=True))


def self_attention(p: Any, x: Array, mask: Array | None = None) -> Array:
    q, k, v = (
        jnp.einsum("btd,dhk->bthk", x, p[name]["kernel"]) + p[name]["bias"]
        for name in ("query", "key", "value")
    )
    mixed = attend(q, k, v, mask)
    return jnp.einsum("bthk,hkd->btd", mixed, p["out"]["kernel"]) + p["out"]["bias"]


def gelu_mlp(p: Any, x: Array) -> Array:
    return apply_linear(p["fc2"], jax.nn.gelu(apply_linear(p["fc1"], x), approximate=False))


def last_is_padding() -> Array:
    """BERT's last token is padding: nothing may attend to it."""
    return jnp.arange(TOKENS) < TOKENS - 1


def bert_layer(p: Any, x: Array) -> Array:
    x = layer_norm(p["ln_1"], x + self_attention(p["attention"], x, last_is_padding()), 1e-12)
    return layer_norm(p["ln_2"], x + gelu_mlp(p["mlp"], x), 1e-12)


def bert_finish(p: Any, x: Array) -> Array:
    return apply_linear(p["classifier"], jnp.tanh(apply_linear(p["pooler"], x[:, 0])))


def vit_layer(p: Any, x: Array) -> Array:
    x = x + self_attention(p["attention"], layer_norm(p["ln_1"], x, 1e-6))
    return x + gelu_mlp(p["mlp"], layer_norm(p["ln_2"], x, 1e-6))


def vit_prepare(p: Any, image: Array) -> Array:
    patches = lax.conv_general_dilated(
        *(image, p["patch_embedding"]["kernel"], (4, 4), "VALID"),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    patches = (patches + p["patch_embedding"]["bias"]).reshape(image.shape[0], -1, WIDTH)
    token = jnp.broadcast_to(p["class_token"], (image.shape[0], 1, WIDTH))
    return jnp.concatenate([token, patches], axis=1) + p["position"]


FAMILIES = {name: decoder(kind) for name, kind in DECODERS.items()} | {
    "gpt2": Family(
        prepare=lambda p, x: x + p["wpe"],
        layer=gpt2_layer,
        finish=lambda p, x: apply_linear(p["lm_head"], layer_norm(p["ln_f"], x, 1e-5)[:, -1]),
    ),
    "bert": Family(
        prepare=lambda p, x: layer_norm(p["ln"], x + p["position"] + p["token_type"], 1e-12),
        layer=bert_layer,
        finish=bert_finish,
    ),
    "vit": Family(
        prepare=vit_prepare,
        layer=vit_layer,
        finish=lambda p, x: apply_linear(p["head"], layer_norm(p["ln"], x, 1e-6)[:, 0]),
    ),
}

# Linen --------------------------------------------------------------------------------------------


class LlamaAttention(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        heads = {"q": HEADS, "k": KV_HEADS, "v": KV_HEADS}
        q, k, v = (
            nn.DenseGeneral((count, HEAD), use_bias=False, name=name)(x)
            for name, count in heads.items()
        )
        k, v = (jnp.repeat(a, HEADS // KV_HEADS, axis=2) for a in (rotate(k), v))
        mask = nn.make_causal_mask(jnp.ones(x.shape[:2]))
        mixed = nn.dot_product_attention(rotate(q), k, v, mask=mask)
        return nn.DenseGeneral(WIDTH, axis=(-2, -1), use_bias=False, name="o")(mixed)


class LlamaMLP(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        gate = nn.silu(nn.Dense(HIDDEN, use_bias=False, name="gate")(x))
        up = nn.Dense(HIDDEN, use_bias=False, name="up")(x)
        return nn.Dense(WIDTH, use_bias=False, name="down")(gate * up)


class LlamaLayer(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = x + LlamaAttention(name="attn")(nn.RMSNorm(name="attn_norm")(x))
        return x + LlamaMLP(name="mlp")(nn.RMSNorm(name="mlp_norm")(x))


class Llama(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        for i in range(LAYERS):
            x = nn.remat(LlamaLayer)(name=f"layer_{i}")(x)
        x = nn.RMSNorm(name="final_norm")(x)[:, -1]
        return nn.Dense(CLASSES, use_bias=False, name="lm_head")(x)


class MLP(nn.Module):
    approximate: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        hidden = nn.gelu(nn.Dense(HIDDEN, name="fc1")(x), approximate=self.approximate)
        return nn.Dense(WIDTH, name="fc2")(hidden)


class Gpt2Attention(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        fused = nn.Dense(3 * WIDTH, name="c_attn")(x)
        q, k, v = (a.reshape(*x.shape[:2], HEADS, -1) for a in jnp.split(fused, 3, axis=-1))
        mask = nn.make_causal_mask(jnp.ones(x.shape[:2]))
        mixed = nn.dot_product_attention(q, k, v, mask=mask)
        return nn.Dense(WIDTH, name="c_proj")(mixed.reshape(x.shape))


class Gpt2Layer(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = x + Gpt2Attention(name="attn")(nn.LayerNorm(epsilon=1e-5, name="ln_1")(x))
        return x + MLP(True, name="mlp")(nn.LayerNorm(epsilon=1e-5, name="ln_2")(x))


class Gpt2(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = x + self.param("wpe", nn.initializers.normal(), (TOKENS, WIDTH))
        for i in range(LAYERS):
            x = Gpt2Layer(name=f"layer_{i}")(x)
        x = nn.LayerNorm(epsilon=1e-5, name="ln_f")(x)[:, -1]
        return nn.Dense(CLASSES, use_bias=False, name="lm_head")(x)


class BertLayer(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = nn.MultiHeadDotProductAttention(HEADS, name="attention")(x, mask=last_is_padding())
        x = nn.LayerNorm(epsilon=1e-12, name="ln_1")(x + y)
        return nn.LayerNorm(epsilon=1e-12, name="ln_2")(x + MLP(False, name="mlp")(x))


class Bert(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = x + self.param("position", nn.initializers.normal(), (TOKENS, WIDTH))
        x = x + self.param("token_type", nn.initializers.normal(), (WIDTH,))
        x = nn.LayerNorm(epsilon=1e-12, name="ln")(x)
        for i in range(LAYERS):
            x = BertLayer(name=f"layer_{i}")(x)
        pooled = jnp.tanh(nn.Dense(WIDTH, name="pooler")(x[:, 0]))
        return nn.Dense(CLASSES, name="classifier")(pooled)


class VitLayer(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = nn.LayerNorm(name="ln_1")(x)
        x = x + nn.MultiHeadDotProductAttention(HEADS, name="attention")(y)
        return x + MLP(False, name="mlp")(nn.LayerNorm(name="ln_2")(x))


class Vit(nn.Module):
    @nn.compact
    def __call__(self, image: Array) -> Array:
        x = nn.Conv(WIDTH, (4, 4), (4, 4), padding="VALID", name="patch_embedding")(image)
        x = x.reshape(image.shape[0], -1, WIDTH)
        token = self.param("class_token", nn.initializers.normal(), (WIDTH,))
        x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, WIDTH)), x], axis=1)
        x = x + self.param("position", nn.initializers.normal(), (x.shape[1], WIDTH))
        for i in range(LAYERS):
            x = VitLayer(name=f"layer_{i}")(x)
        return nn.Dense(CLASSES, name="head")(nn.LayerNorm(name="ln")(x)[:, 0])


LINEN: dict[str, nn.Module] = {"llama": Llama(), "gpt2": Gpt2(), "bert": Bert(), "vit": Vit()}

# Entries ------------------------------------------------------------------------------------------


DIFFERENTIATED = {("llama", "scan"), ("gemma3", "plain"), ("bert", "plain"), ("vit", "linen")}


def inputs(family: str, rng: np.random.Generator) -> Array:
    return normal(rng, *((2, 8, 8, 2) if family == "vit" else (2, TOKENS, WIDTH)))


def entry(family: str, form: str) -> Model:
    def make(rng: np.random.Generator) -> Parts:
        params, x = parameters(family, np.random.default_rng(7)), inputs(family, rng)
        if form == "linen":
            return Parts(LINEN[family].apply, {"params": params}, x)
        if form == "scan":
            return Parts(FAMILIES[family].scan, stacked(params), x)
        return Parts(FAMILIES[family].loop, params, x)

    tags = {"transformer", family, form} | (
        {"gradient"} if (family, form) in DIFFERENTIATED else set()
    )
    return Model(f"{family}_{form}", make, frozenset(tags))


MODELS = tuple(
    entry(family, form)
    for family in FAMILIES
    for form in ("plain", "scan", "linen")
    if form != "linen" or family in LINEN
)
