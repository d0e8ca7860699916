"""Equimo: vision, sound and tables in Equinox."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .families_equinox import case
from .guest import ATTENTION, Case, Guest, drawn

PACKAGE = "equimo"
VIT = dict(
    img_size=16,
    in_channels=3,
    dim=16,
    patch_size=8,
    num_heads=2,
    depths=[1, 1],
    num_classes=3,
    mlp_ratio=1.5,
)


def seen(
    module: str, name: str, *positional: Any, size: int = 16, **options: Any
) -> Callable[[], Case]:
    """The logits of pictures, channels first."""

    def build() -> Case:
        import importlib

        made = getattr(importlib.import_module(f"equimo.vision.models.{module}"), name)

        def model() -> Any:
            return made(*positional, key=jax.random.PRNGKey(0), **options)

        x = drawn(name, 1, 3, size, size)
        return case(
            model, x, lambda net, x: net(x, key=jax.random.PRNGKey(0), inference=True), name
        )

    return build


def sound() -> Case:
    from equimo.audio.models.ast import AudioSpectrogramTransformer

    def model() -> Any:
        return AudioSpectrogramTransformer(
            8, 16, 16, 8, 4, 4, 2, [2], num_classes=3, mlp_ratio=1.5, key=jax.random.PRNGKey(0)
        )

    return case(model, drawn("ast", 1, 16, 8), lambda net, x: net(x, inference=True), "ast")


def table() -> Case:
    from equimo.tabular.models.tabpfn import TabPFN

    def model() -> Any:
        return TabPFN(
            num_classes=3, dim=16, depths=(1, 1, 1), num_heads=(2, 2, 2), num_inducing_points=4,
            num_cls_tokens=2, decoder_head_dim=8, decoder_num_heads=2, scaling_mlp_hidden_dim=8,
            use_nan_indicators=False, key=jax.random.PRNGKey(0),
        )  # fmt: skip

    labels = jnp.asarray(np.arange(6) % 3)

    def run(net: Any, x: Any) -> Any:
        return net(x, labels, 4, inference=True)

    return case(model, drawn("table", 1, 6, 5), run, "table")


def text() -> Case:
    from equimo.language.models import TransformerEncoderStack

    def model() -> Any:
        return TransformerEncoderStack(16, 2, 2, 1.5, key=jax.random.PRNGKey(0))

    return case(
        model, drawn("text", 1, 5, 16), lambda net, x: net(x, inference=True).mean(0), "text"
    )


def guest(name: str, build: Callable[[], Case], **more: Any) -> Guest:
    return Guest(f"Equimo {name}", PACKAGE, build, **more)


MIXED = dict(composites=ATTENTION[:2])

FAMILIES: tuple[Guest, ...] = (
    guest("ViT", seen("vit", "VisionTransformer", **VIT)),
    guest(
        "ViT with layer scale, SwiGLU and norms of q and k",
        seen("vit", "VisionTransformer", **VIT, init_values=0.3, ffn_layer="swiglu", qk_norm=True),
    ),
    guest(
        "DINOv3",
        seen(
            "vit",
            "VisionTransformer",
            **VIT,
            use_global_pos_embed=False,
            use_local_pos_embed=True,
            norm_layer="rmsnorm",
            init_values=0.3,
        ),
    ),
    guest(
        "ConvNeXt",
        seen("convnext", "ConvNeXt", depths=[1, 1], dims=[8, 12], num_classes=3),
        tolerance=1e-6,
        **MIXED,
    ),
    guest(
        "ConvNeXt v2",
        seen("convnext", "ConvNeXt", depths=[1, 1], dims=[8, 12], num_classes=3, use_grn=True),
        tolerance=1e-6,
        **MIXED,
    ),
    guest(
        "MLLA",
        seen(
            "mlla",
            "Mlla",
            16,
            3,
            dim=8,
            patch_size=4,
            depths=[1, 1],
            num_heads=[2, 2],
            num_classes=3,
        ),
        **MIXED,
    ),
    guest(
        "LowFormer",
        seen(
            "lowformer",
            "LowFormer",
            3,
            [8, 8, 16],
            [1, 1, 1],
            [1, 1, 1],
            ["conv", "conv", "attention"],
            attention_type="softmax",
            num_classes=3,
            size=32,
        ),
        **MIXED,
    ),
    guest("AST", sound),
    guest("text encoder", text),
    guest(
        "VSSD",
        seen(
            "vssd",
            "Vssd",
            16,
            3,
            dim=8,
            depths=[1, 1],
            num_heads=[2, 2],
            num_classes=3,
            attentions_layers=("mamba2mixer", "attention"),
        ),
        **MIXED,
    ),
    guest("TabPFN v3", table, **MIXED),  # CP-LRP has nothing for what only attends to labels
    guest(
        "MobileNetV3",
        seen(
            "mobilenet",
            "MobileNetv3",
            3,
            [
                (8, 8, 3, 2, True, "relu"),
                (8, 12, 3, 1, False, "relu"),
                (8, 12, 5, 2, True, "hard_swish"),
            ],
            last_channels=64,  # in groups of two: one number alone is nothing without its mean
            num_classes=3,
            size=32,
        ),
        **MIXED,
    ),
    guest(
        "AttNet",
        seen(
            "attnet",
            "AttNet",
            3,
            dims=[32, 64],
            depths=[1, 1],
            exp_rates=[2, 2],
            kernel_sizes=[3, 3],
            num_classes=3,
            size=32,
        ),
        tolerance=1e-6,
        **MIXED,
    ),
    guest(
        "PartialFormer",
        seen(
            "partialformer",
            "PartialFormer",
            64,
            3,
            8,
            [2, 2],
            [1, 1],
            (0.5, 0.5),
            patch_size=4,
            num_classes=3,
            size=64,
        ),
        tolerance=1e-6,
        **MIXED,
    ),
    guest(
        "iFormer",
        seen(
            "iformer",
            "iformer_t",
            dims=[8, 8, 8, 8, 8, 16],
            depths=[1] * 6,
            num_classes=3,
            size=64,
        ),
        tolerance=1e-6,
        **MIXED,
    ),
)

APART: tuple[Guest, ...] = (
    guest(
        "ReduceFormer",
        seen(
            "reduceformer",
            "ReduceFormer",
            3,
            [8, 8, 64],
            [1, 1, 1],
            ["conv", "conv", "attention"],
            head_dim=8,
            num_classes=3,
            size=64,
        ),
        tolerance=1e-6,
        **MIXED,
    ),
)
"""Not among the families: relevance is another one than the oracle's."""
