"""Collections of transformers: attnax in NNX, eqx-zoo in Equinox, NanoMoE, Penzai."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .families_equinox import case
from .guest import Case, Guest, drawn, filled, ids

VOCABULARY, TOKENS = 30, 6


def last(y: Any) -> Any:
    return y[:, -1]


def nnx_model(model: Any, name: str, x: Any, run: Callable[[Any, Any], Any]) -> Case:
    """An NNX model with random weights, in float64."""
    from flax import nnx

    model.eval()
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    params, rest = (
        jax.tree.map(lambda v: v.astype(jnp.float64) if v.dtype == jnp.float32 else v, part)
        for part in (params, rest)
    )
    return Case(lambda p, x: run(nnx.merge(graph, p, rest), x), filled(params, name), x)


def attnax(name: str, **options: Any) -> Callable[[], Case]:
    """A decoder's logits of the next token."""

    def build() -> Case:
        from attnax.config import TransformerConfig
        from attnax.transformer import TransformerDecoder
        from flax import nnx

        config = TransformerConfig(
            vocab_size=VOCABULARY, d_model=16, num_heads=2, num_layers=2, d_ff=24, max_len=16,
            **options,
        )  # fmt: skip
        model = TransformerDecoder(nnx.Rngs(0), config)
        x = ids(name, 1, TOKENS, size=VOCABULARY)

        def run(model: Any, x: Any) -> Any:
            found = model(x)
            return last(found[0] if isinstance(found, tuple) else found)

        return nnx_model(model, name, x, run)

    return build


def attnax_vision() -> Case:
    from attnax.config import VisionTransformerConfig
    from attnax.vision import VisionTransformer
    from flax import nnx

    config = VisionTransformerConfig(
        image_size=16, patch_size=8, num_channels=3, num_classes=3, d_model=16, num_heads=2,
        num_layers=2, d_ff=24,
    )  # fmt: skip
    model = VisionTransformer(nnx.Rngs(0), config)
    return nnx_model(model, "vision", drawn("vision", 1, 16, 16, 3), lambda m, x: m(x))


def zoo_decoder(architecture: str, **options: Any) -> Callable[[], Case]:
    def build() -> Case:
        from eqx_zoo.models.causal_lm.config import Config
        from eqx_zoo.models.causal_lm.model import CausalLM

        qwen = architecture.startswith("Qwen")
        config = Config(
            architecture=architecture, vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24,
            num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=8,
            rms_norm_eps=1e-6, rope_theta=1e4, tie_word_embeddings=qwen, rope_scaling=None,
            attention_bias="Qwen2" in architecture, qk_norm="Qwen3" in architecture, **options,
        )  # fmt: skip

        def model() -> Any:
            return CausalLM(config, key=jax.random.PRNGKey(0))

        def run(net: Any, x: Any) -> Any:
            found = net(x)
            return (found[0] if isinstance(found, tuple) else found)[-1]

        x = ids(architecture, 1, TOKENS, size=VOCABULARY)
        # Products with the weights of experts are not implemented for a batch.
        return case(model, x, run, architecture, mapped="Moe" not in architecture)

    return build


def zoo_encoder(architecture: str) -> Callable[[], Case]:
    def build() -> Case:
        from eqx_zoo.models.encoder.config import EncoderConfig
        from eqx_zoo.models.encoder.model import Encoder

        config = EncoderConfig(
            architecture=architecture, vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2,
            num_attention_heads=2, intermediate_size=24, max_position_embeddings=16,
            type_vocab_size=2, layer_norm_eps=1e-6,
        )  # fmt: skip

        def model() -> Any:
            return Encoder(config, pooling="mean", key=jax.random.PRNGKey(0))

        x = ids(architecture, 1, TOKENS, size=VOCABULARY)
        return case(model, x, lambda net, x: net(x).mean(0), architecture)

    return build


def mixture() -> Case:
    from nano_moe.config import NanoMoEConfig
    from nano_moe.model import NanoMoE

    config = NanoMoEConfig(
        vocab_size=VOCABULARY, n_layers=2, n_heads=2, d_model=16, d_ff=24, n_experts=3, top_k=2,
        block_size=TOKENS,
    )  # fmt: skip
    model, x = NanoMoE(config), ids("moe", 1, TOKENS, size=VOCABULARY)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.PRNGKey(0), x), x)
    return Case(lambda p, x: last(model.apply(p, x)[0]), filled(shapes, "moe"), x)


def penzai(name: str) -> Callable[[], Case]:
    """A decoder's logits of the next token."""

    def build() -> Case:
        from penzai import pz
        from penzai.models.transformer.variants import gpt_neox, llamalike_common as llama

        if name == "GPT-NeoX":
            made = gpt_neox.build_gpt_neox_transformer(
                gpt_neox.GPTNeoXTransformerConfig(
                    num_attention_heads=2, embedding_dim=16, projection_dim=8, mlp_hidden_dim=24,
                    num_decoder_blocks=2, vocab_size=VOCABULARY, activation_fn="gelu_exact",
                    rope_subset_size=4, rope_wavelength=1e4, layernorm_epsilon=1e-6,
                    parameter_dtype=jnp.float64, activation_dtype=jnp.float64,
                ),
                init_base_rng=jax.random.key(0),
            )  # fmt: skip
        else:
            gemma = name == "Gemma 2"
            everywhere = llama.AttentionTypeGlobalCausal()
            window = llama.AttentionTypeSlidingWindowCausal(3)
            made = llama.build_llamalike_transformer(
                llama.LlamalikeTransformerConfig(
                    num_kv_heads=1, query_head_multiplier=2, embedding_dim=16, projection_dim=8,
                    mlp_hidden_dim=24, num_decoder_blocks=2, vocab_size=VOCABULARY,
                    mlp_variant="geglu_approx" if gemma else "swiglu",
                    tie_embedder_and_logits=gemma, use_post_attn_norm=gemma,
                    use_post_ffw_norm=gemma,
                    final_logit_softcap=5.0 if gemma else None,
                    attn_logits_soft_cap=5.0 if gemma else None,
                    attention_type=[window, everywhere] if gemma else everywhere,
                    parameter_dtype=jnp.float64, activation_dtype=jnp.float64,
                ),
                init_base_rng=jax.random.key(0),
            )  # fmt: skip
        slots, variables = pz.unbind_params(made)
        named = {v.label: v.value for v in variables}
        arrays = {
            k: v.unwrap(*v.named_axes) if v.named_axes else v.unwrap() for k, v in named.items()
        }

        def function(params: Any, x: Any) -> Any:
            frozen = [
                pz.ParameterValue(label=k, value=pz.nx.wrap(params[k]).tag(*v.named_axes))
                for k, v in named.items()
            ]
            model = pz.bind_variables(slots, frozen)
            tokens = pz.nx.wrap(x).tag("batch", "seq")
            positions = pz.nx.arange("seq", x.shape[1])
            found = model(tokens, token_positions=positions)
            return last(found.unwrap("batch", "seq", "vocabulary"))

        return Case(function, filled(arrays, name), ids(name, 1, TOKENS, size=VOCABULARY))

    return build


FAMILIES: tuple[Guest, ...] = (
    Guest(
        "attnax decoder",
        "attnax",
        attnax("a", pos_emb_type="rope", norm_type="rms", ff_activation="swiglu", num_kv_heads=1),
    ),
    Guest(
        "attnax decoder, ALiBi, window",
        "attnax",
        attnax("b", pos_emb_type="alibi", attention_window=3, use_pre_norm=False),
        tolerance=1e-6,
    ),
    Guest("attnax ViT", "attnax", attnax_vision),
    Guest("eqx-zoo Llama", "eqx-zoo", zoo_decoder("LlamaForCausalLM")),
    Guest("eqx-zoo Qwen2", "eqx-zoo", zoo_decoder("Qwen2ForCausalLM")),
    Guest("eqx-zoo Qwen3", "eqx-zoo", zoo_decoder("Qwen3ForCausalLM")),
    Guest(
        "eqx-zoo Qwen3 MoE",
        "eqx-zoo",
        zoo_decoder(
            "Qwen3MoeForCausalLM",
            num_experts=3,
            num_experts_per_tok=2,
            moe_intermediate_size=12,
            norm_topk_prob=True,
            moe_layers=(0, 1),
        ),
        tolerance=1e-6,  # routers compute in float32
    ),
    Guest("eqx-zoo BERT", "eqx-zoo", zoo_encoder("BertModel")),
    Guest("NanoMoE", "nano-moe-jax", mixture),
    Guest("Penzai GPT-NeoX", "penzai", penzai("GPT-NeoX")),
    Guest("Penzai Llama", "penzai", penzai("Llama")),
    Guest("Penzai Gemma 2", "penzai", penzai("Gemma 2")),
)
