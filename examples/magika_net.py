"""Magika's classifier of files, in Flax with its published weights.

Fratantonio et al., "Magika: AI-Powered Content-Type Detection", ICSE 2025. It sees the first and
the last 1024 bytes of a file: four neighbours become one position, every feature is normalised over
the positions, a convolution looks for patterns, and their strongest matches decide. The weights
come from the package magika.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

END, PADDING = 1024, 256
"""Bytes from each end of a file, and what stands where there are none."""
_BLOCK, _MODEL = 4096, "standard_v3_3"
_EPSILON = 1e-6


class Magika(nn.Module):
    """From bytes (batch, 2048), numbers from 0 to 256, to logits of 214 types."""

    types: int = 214

    def setup(self) -> None:
        self.bytes = nn.Embed(PADDING + 1, 64)
        self.bias = self.param("bias", nn.initializers.zeros, (64,))
        self.positions = nn.LayerNorm(_EPSILON, reduction_axes=1, feature_axes=1)
        self.patterns = nn.Conv(512, (5,), padding="VALID")
        self.strongest = nn.LayerNorm(_EPSILON)
        self.logits = nn.Dense(self.types)

    def __call__(self, ids: jax.Array) -> jax.Array:
        return self.of_rows(self.bytes(ids))

    def of_rows(self, rows: jax.Array) -> jax.Array:
        """The logits from the rows of the table that the bytes look up."""
        x = nn.gelu(rows + self.bias)
        x = self.positions(x.reshape(len(x), -1, 4 * 64))
        x = nn.gelu(self.patterns(x)).max(1)
        return self.logits(self.strongest(x))


@dataclass(frozen=True)
class Classifier:
    """The network with its weights.

    Attributes:
        apply: from weights and bytes (batch, 2048) to logits (batch, types).
        variables: the weights.
        types: the names of the types.
    """

    apply: Callable[..., Any]
    variables: Any
    types: tuple[str, ...]


def load() -> Classifier:
    """Read the network out of the package magika."""
    package = importlib.util.find_spec("magika")
    if package is None or package.origin is None:
        raise SystemExit("the weights are missing: pip install --no-deps magika==1.0.3")
    folder = Path(package.origin).parent / "models" / _MODEL
    types = json.loads((folder / "config.min.json").read_text())["target_labels_space"]
    return Classifier(Magika(len(types)).apply, {"params": _weights(folder)}, tuple(types))


def _weights(folder: Path) -> dict[str, Any]:
    import onnx
    from onnx import numpy_helper

    stored = onnx.load(folder / "model.onnx").graph.initializer
    arrays = {one.name.split("get_logits_/")[-1]: numpy_helper.to_array(one) for one in stored}
    kernel = arrays["MagikaV2/Conv_0/transpose_3:0"][..., 0]  # out, in, place
    norms = [
        {
            "scale": jnp.asarray(arrays[f"MagikaV2/LayerNorm_{i}/Reshape_2:0"].ravel()),
            "bias": jnp.asarray(arrays[f"MagikaV2/LayerNorm_{i}/Reshape_3:0"].ravel()),
        }
        for i in range(2)
    ]
    return {
        "bytes": {"embedding": jnp.asarray(arrays["Const:0"])},
        "bias": jnp.asarray(arrays["MagikaV2/Dense_0/Reshape:0"].ravel()),
        "positions": norms[0],
        "patterns": {
            "kernel": jnp.asarray(kernel.transpose(2, 1, 0)),
            "bias": jnp.asarray(arrays["const_fold_opt__209"].ravel()),
        },
        "strongest": norms[1],
        "logits": {
            "kernel": jnp.asarray(arrays["Const_24:0"]),
            "bias": jnp.asarray(arrays["MagikaV2/Dense_1/Reshape:0"].ravel()),
        },
    }


def seen(content: bytes) -> np.ndarray:
    """What the network sees of a file: the bytes of both ends without the space around them."""
    begin, end = content[:_BLOCK].lstrip(), content[-_BLOCK:].rstrip()
    if len(content) <= _BLOCK:
        begin, end = begin.rstrip(), end.lstrip()
    begin, end = begin[:END], end[-END:]
    ids = np.full(2 * END, PADDING, np.int32)
    ids[: len(begin)] = list(begin)
    ids[2 * END - len(end) :] = list(end)
    return ids
