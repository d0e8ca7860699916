"""Hugging Face's models in Flax, the last ones that were published."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from .guest import IMAGES, Case, Guest, drawn, filled, ids

PACKAGE = "transformers"
VOCABULARY, TOKENS = 40, 7
ROUNDED = 1e-6

ENCODER = dict(
    vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=24, max_position_embeddings=24, pad_token_id=0,
)  # fmt: skip
DECODER = ENCODER | dict(num_key_value_heads=1)
SEQ2SEQ = dict(
    vocab_size=VOCABULARY, d_model=16, encoder_layers=1, decoder_layers=1,
    encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24,
    max_position_embeddings=24, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    decoder_start_token_id=2,
)  # fmt: skip
T5 = dict(
    vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_decoder_layers=1,
    num_heads=2, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
)  # fmt: skip
VISION = dict(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
    image_size=16, patch_size=8, num_labels=3,
)  # fmt: skip


class _Older:
    """`jax.numpy` with the names of the arguments that T5 was written for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(jnp, name)

    @staticmethod
    def clip(x: Any, a_min: Any = None, a_max: Any = None) -> Any:
        return jnp.clip(x, a_min, a_max)


def made(model: str, config: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """A model of a configuration, in float64, and parameters."""
    import transformers

    settings = getattr(transformers, config)(**options)
    module = sys.modules[getattr(transformers, model).__module__]
    for name in ("t5.modeling_flax_t5", "longt5.modeling_flax_longt5"):
        if name in module.__name__ or (name.startswith("t5") and "mt5" in module.__name__):
            importlib.import_module(f"transformers.models.{name}").jnp = _Older()
    found = getattr(transformers, model)(settings, dtype=jnp.float64, _do_init=False)
    return found, filled(found.params_shape_tree, model)


def logits(model: str, config: str, **options: Any) -> Callable[[], Case]:
    """The logits of a sequence of tokens; of a language model, of the last one."""

    def build() -> Case:
        net, params = made(model, config, options)

        def function(params: Any, x: Any) -> Any:
            found = net(x, params=params)
            y = found.logits if hasattr(found, "logits") else found.last_hidden_state
            return y[:, -1] if y.ndim == 3 else y

        return Case(function, params, ids(model, 2, TOKENS, size=VOCABULARY))

    return build


def translated(model: str, config: str, **options: Any) -> Callable[[], Case]:
    """The logits of the next token of a translation, explained by the source."""

    def build() -> Case:
        net, params = made(model, config, options)
        begun = ids(model + "begun", 2, 4, size=VOCABULARY)

        def function(params: Any, x: Any) -> Any:
            return net(x, decoder_input_ids=begun, params=params).logits[:, -1]

        return Case(function, params, ids(model, 2, TOKENS, size=VOCABULARY))

    return build


def asked(model: str, config: str, **options: Any) -> Callable[[], Case]:
    """Where the answer begins; a decoder reads the same tokens, one later."""

    def build() -> Case:
        net, params = made(model, config, options)
        x = ids(model, 2, TOKENS, size=VOCABULARY)
        return Case(lambda params, x: net(x, params=params).start_logits, params, x)

    return build


def seen(model: str, config: str, *shape: int, **options: Any) -> Callable[[], Case]:
    """The logits of pictures, channels first."""

    def build() -> Case:
        net, params = made(model, config, options)

        def function(params: Any, x: Any) -> Any:
            found = net(x, params=params)
            return found.logits if hasattr(found, "logits") else found.pooler_output

        return Case(function, params, drawn(model, *(shape or (2, 3, 16, 16))))

    return build


def heard(model: str, config: str, *shape: int, **options: Any) -> Callable[[], Case]:
    """Logits of sound: of a waveform, or the next token of what is said in a spectrogram."""

    def build() -> Case:
        net, params = made(model, config, options)
        begun = ids(model + "begun", shape[0], 4, size=VOCABULARY)

        def function(params: Any, x: Any) -> Any:
            if "Whisper" in model:
                return net(x, decoder_input_ids=begun, params=params).logits[:, -1]
            return net(x, params=params).logits.mean(1)

        return Case(function, params, drawn(model, *shape))

    return build


def guest(name: str, build: Callable[[], Case], **more: Any) -> Guest:
    return Guest(f"HF {name}", PACKAGE, build, **more)


CLASSIFIER = "ForSequenceClassification"


def classifier(name: str, prefix: str, more: dict[str, Any] | None = None, **about: Any) -> Guest:
    build = logits(f"Flax{prefix}{CLASSIFIER}", f"{prefix}Config", **(ENCODER | (more or {})))
    return guest(name, build, **about)


def language_model(
    name: str, prefix: str, options: dict[str, Any], head: str = "ForCausalLM"
) -> Guest:
    return guest(name, logits(f"Flax{prefix}{head}", f"{prefix}Config", **options))


def translator(
    name: str, prefix: str, options: dict[str, Any], head: str = "ForConditionalGeneration"
) -> Guest:
    return guest(name, translated(f"Flax{prefix}{head}", f"{prefix}Config", **options))


FAMILIES: tuple[Guest, ...] = (
    classifier("BERT", "Bert"),
    classifier("RoBERTa", "Roberta"),
    classifier("RoBERTa-PreLayerNorm", "RobertaPreLayerNorm"),
    classifier("XLM-RoBERTa", "XLMRoberta"),
    classifier("ELECTRA", "Electra", dict(embedding_size=12)),
    classifier("RoFormer", "RoFormer", dict(embedding_size=16)),
    classifier("ALBERT", "Albert", dict(embedding_size=12)),
    classifier("BigBird", "BigBird", dict(attention_type="original_full")),
    guest(
        "DistilBERT",
        logits(
            f"FlaxDistilBert{CLASSIFIER}",
            "DistilBertConfig",
            vocab_size=VOCABULARY,
            dim=16,
            n_layers=2,
            n_heads=2,
            hidden_dim=24,
            max_position_embeddings=24,
        ),
    ),
    language_model(
        "GPT-2",
        "GPT2",
        dict(vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=24),
        "LMHeadModel",
    ),
    language_model(
        "GPT-Neo",
        "GPTNeo",
        dict(
            vocab_size=VOCABULARY,
            hidden_size=16,
            num_layers=2,
            num_heads=2,
            attention_types=[[["global", "local"], 1]],
            window_size=4,
            max_position_embeddings=24,
        ),
    ),
    language_model(
        "GPT-J",
        "GPTJ",
        dict(vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=24, rotary_dim=4),
    ),
    language_model(
        "OPT",
        "OPT",
        dict(
            vocab_size=VOCABULARY,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            ffn_dim=24,
            max_position_embeddings=24,
            word_embed_proj_dim=16,
        ),
    ),
    language_model("Llama", "Llama", DECODER),
    language_model("Mistral", "Mistral", DECODER),
    language_model("Gemma", "Gemma", DECODER | dict(head_dim=8)),
    language_model(
        "Bloom", "Bloom", dict(vocab_size=VOCABULARY, hidden_size=16, n_layer=2, n_head=2)
    ),
    language_model(
        "XGLM",
        "XGLM",
        dict(
            vocab_size=VOCABULARY,
            d_model=16,
            num_layers=2,
            attention_heads=2,
            ffn_dim=24,
            max_position_embeddings=24,
        ),
    ),
    translator("T5", "T5", T5),
    translator(
        "T5 v1.1", "T5", T5 | dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    ),
    translator("mT5", "MT5", T5 | dict(feed_forward_proj="gated-gelu")),
    translator("LongT5", "LongT5", T5 | dict(local_radius=3, encoder_attention_type="local")),
    translator("BART", "Bart", SEQ2SEQ),
    guest("BART, questions", asked("FlaxBartForQuestionAnswering", "BartConfig", **SEQ2SEQ)),
    guest("BERT, questions", asked("FlaxBertForQuestionAnswering", "BertConfig", **ENCODER)),
    translator("mBART", "MBart", SEQ2SEQ | dict(scale_embedding=True)),
    translator("Pegasus", "Pegasus", SEQ2SEQ | dict(scale_embedding=True)),
    translator(
        "Marian",
        "Marian",
        SEQ2SEQ | dict(scale_embedding=True, decoder_vocab_size=VOCABULARY),
        "MTModel",
    ),
    translator("Blenderbot", "Blenderbot", SEQ2SEQ | dict(scale_embedding=True)),
    translator("Blenderbot small", "BlenderbotSmall", SEQ2SEQ | dict(scale_embedding=True)),
    guest("ViT", seen("FlaxViTForImageClassification", "ViTConfig", **VISION)),
    guest(
        "BEiT",
        seen(
            "FlaxBeitForImageClassification",
            "BeitConfig",
            use_relative_position_bias=True,
            use_mask_token=False,
            **VISION,
        ),
    ),
    guest("DINOv2", seen("FlaxDinov2ForImageClassification", "Dinov2Config", **VISION)),
    guest(
        "CLIP text",
        logits(
            "FlaxCLIPTextModel",
            "CLIPTextConfig",
            **{k: v for k, v in ENCODER.items() if k != "pad_token_id"},
            eos_token_id=2,
        ),
    ),
    guest(
        "Whisper",
        heard(
            "FlaxWhisperForConditionalGeneration",
            "WhisperConfig",
            1,
            8,
            16,
            **SEQ2SEQ,
            num_mel_bins=8,
            max_source_positions=8,
            max_target_positions=8,
        ),
    ),
    guest(
        "Wav2Vec2",
        heard(
            "FlaxWav2Vec2ForCTC",
            "Wav2Vec2Config",
            1,
            400,
            vocab_size=VOCABULARY,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            conv_dim=(8, 8),
            conv_stride=(5, 4),
            conv_kernel=(10, 5),
            feat_extract_norm="layer",
            do_stable_layer_norm=True,
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
            num_feat_extract_layers=2,
        ),
    ),
    guest("CLIP vision", seen("FlaxCLIPVisionModel", "CLIPVisionConfig", **VISION)),
    guest(
        "ResNet",
        seen(
            "FlaxResNetForImageClassification",
            "ResNetConfig",
            2,
            3,
            32,
            32,
            embedding_size=8,
            hidden_sizes=[8, 16],
            depths=[1, 1],
            layer_type="basic",
            num_labels=3,
        ),
        composites=IMAGES,
        tolerance=ROUNDED,
    ),
    guest(
        "RegNet",
        seen(
            "FlaxRegNetForImageClassification",
            "RegNetConfig",
            2,
            3,
            32,
            32,
            embedding_size=8,
            hidden_sizes=[8, 16],
            depths=[1, 1],
            groups_width=4,
            num_labels=3,
        ),
        composites=IMAGES,
        tolerance=ROUNDED,
    ),
)
