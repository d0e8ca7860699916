"""Regenerate the relevances of zennit that `tests/test_reference_zennit.py` compares with.

    pip install torch==2.13.0 numpy pillow
    pip install --no-deps zennit==0.5.1
    python tests/reference/generate_zennit.py

Everything is computed in float64 on the CPU from fixed seeds. Each network of `networks.py` becomes
one `zennit_<name>.npz` with its input, labels, input bounds, parameters, output, and one relevance
for each case.
"""

from __future__ import annotations

import sys
import types
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from networks import (
    CASES,
    NETWORKS,
    Activation,
    AvgPool,
    BatchNorm,
    Case,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    Layer,
    MaxPool,
    Network,
    Residual,
)

PINNED = {"torch": "2.13.0", "zennit": "0.5.1"}


def _stand_in_for_torchvision() -> None:
    """zennit imports three classes of torchvision that are not needed here."""
    for name in ("torchvision", "torchvision.models", "torchvision.models.resnet"):
        sys.modules[name] = types.ModuleType(name)
    for block in ("Bottleneck", "BasicBlock"):
        setattr(sys.modules["torchvision.models.resnet"], block, type(block, (), {}))


_stand_in_for_torchvision()

import zennit.composites  # noqa: E402
import zennit.rules  # noqa: E402
from zennit.attribution import Gradient  # noqa: E402
from zennit.canonizers import SequentialMergeBatchNorm  # noqa: E402
from zennit.layer import Sum  # noqa: E402
from zennit.types import (  # noqa: E402
    Activation as ActivationModule,
    BatchNorm as BatchNormModule,
    Linear,
)


class ResidualSum(torch.nn.Module):
    def __init__(self, layer: Residual) -> None:
        super().__init__()
        self.main = build(layer.main)
        self.skip = build(layer.skip)
        self.sum = Sum(dim=-1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.sum(torch.stack([self.main(x), self.skip(x)], dim=-1))


class ExactMergeBatchNorm(SequentialMergeBatchNorm):
    """Merges batch norms such that the output stays the same.

    Release 0.5.1 leaves the small constant under the root of the emptied batch norm, which then
    still divides by sqrt(1 + 1e-5); later releases set it to zero as well.
    """

    def register(self, linears, batch_norm) -> None:
        super().register(linears, batch_norm)
        self.eps, batch_norm.eps = batch_norm.eps, 0.0

    def remove(self) -> None:
        super().remove()
        self.batch_norm.eps = self.eps


ACTIVATIONS = {
    "relu": torch.nn.ReLU,
    "leaky_relu": torch.nn.LeakyReLU,
    "gelu": torch.nn.GELU,
    "sigmoid": torch.nn.Sigmoid,
    "tanh": torch.nn.Tanh,
    "silu": torch.nn.SiLU,
    "softplus": torch.nn.Softplus,
}


def module(layer: Layer) -> torch.nn.Module:
    match layer:
        case Dense():
            return torch.nn.Linear(layer.inputs, layer.outputs, layer.bias)
        case Conv():
            name = f"Conv{'Transpose' * layer.transpose}{len(layer.kernel)}d"
            return getattr(torch.nn, name)(
                layer.inputs,
                layer.outputs,
                layer.kernel,
                stride=layer.stride,
                padding=layer.padding,
                dilation=layer.dilation,
                groups=layer.groups,
                bias=layer.bias,
            )
        case BatchNorm():
            return getattr(torch.nn, f"BatchNorm{layer.rank}d")(layer.features)
        case Activation():
            return ACTIVATIONS[layer.name]()
        case MaxPool():
            kind = getattr(torch.nn, f"MaxPool{len(layer.window)}d")
            return kind(layer.window, layer.stride, layer.padding)
        case AvgPool():
            kind = getattr(torch.nn, f"AvgPool{len(layer.window)}d")
            return kind(
                layer.window, layer.stride, layer.padding, count_include_pad=layer.count_padding
            )
        case GlobalAvgPool():
            return getattr(torch.nn, f"AdaptiveAvgPool{layer.rank}d")(1)
        case Flatten():
            return torch.nn.Flatten()
        case Residual():
            return ResidualSum(layer)


def build(layers: tuple[Layer, ...]) -> torch.nn.Sequential:
    return torch.nn.Sequential(*map(module, layers))


def randomise(model: torch.nn.Module, rng: np.random.Generator) -> None:
    """Weights that keep the scale of the signal, all else far from its default."""
    for name, value in model.state_dict().items():
        kind = name.rsplit(".", 1)[-1]
        shape = tuple(value.shape)
        if kind == "num_batches_tracked":
            continue
        if kind == "running_var":
            array = rng.uniform(0.4, 2.0, shape)
        elif kind == "weight" and len(shape) > 1:
            array = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif kind == "weight":
            array = rng.uniform(0.5, 1.5, shape) * rng.choice([1, 1, 1, -1], shape)
        else:
            array = rng.normal(scale=0.2, size=shape)
        value.copy_(torch.from_numpy(array))


def composite(case: Case, low: torch.Tensor, high: torch.Tensor) -> zennit.core.Composite:
    """The composite of zennit for a case; bounds are shaped like one channels-first input."""
    options = case.options | ({"low": low, "high": high} if case.box else {})
    canonizers = [ExactMergeBatchNorm()]
    if case.name == "ExcitationBackprop":
        # By itself it leaves activations to their gradient, which is right for relu alone.
        options["layer_map"] = [((ActivationModule, BatchNormModule), zennit.rules.Pass())]
    if case.kind == "composite":
        return getattr(zennit.composites, case.name)(canonizers=canonizers, **options)
    zero_params = "bias" if case.ignore_bias else None
    rule = getattr(zennit.rules, case.name)(zero_params=zero_params, **options)
    base = zennit.composites.layer_map_base()
    if case.kind == "first":
        return zennit.composites.SpecialFirstLayerMapComposite(
            layer_map=[*base, (Linear, zennit.rules.Epsilon())],
            first_map=[(Linear, rule)],
            canonizers=canonizers,
        )
    return zennit.composites.LayerMapComposite([*base, (Linear, rule)], canonizers=canonizers)


def explain(network: Network) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(network.seed)
    model = build(network.layers).double().eval()
    randomise(model, rng)
    x = torch.from_numpy(rng.normal(size=(network.batch, *network.input_shape)))
    output = model(x)
    labels = torch.from_numpy(rng.integers(output.shape[-1], size=network.batch))
    one_hot = torch.nn.functional.one_hot(labels, output.shape[-1]).double()
    channels = network.input_shape[0]
    low, high = rng.uniform(-4, -3, channels), rng.uniform(3, 4, channels)
    per_channel = (1, channels, *(1,) * (x.ndim - 2))
    bounds = [torch.from_numpy(bound).reshape(per_channel) for bound in (low, high)]

    parameters = {
        f"parameters/{name}": value.numpy().copy()
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    relevances = {}
    for case in CASES:
        attributor = Gradient(model, composite(case, *bounds), lambda y: one_hot * y)
        explained, relevance = attributor(x)
        torch.testing.assert_close(explained, output, rtol=1e-12, atol=1e-12)
        if not relevance.isfinite().all() or not relevance.flatten(1).any(1).all():
            raise ValueError(f"{case.key}: relevance is zero or not finite, choose another seed")
        relevances[f"relevance/{case.key}"] = relevance.detach().numpy()
    return {
        "input": x.numpy(),
        "labels": labels.numpy(),
        "low": low,
        "high": high,
        "output": output.detach().numpy(),
        **parameters,
        **relevances,
    }


def main() -> None:
    for package, pinned in PINNED.items():
        if (found := version(package).split("+")[0]) != pinned:
            raise SystemExit(f"expected {package} {pinned}, found {found}")
    torch.set_num_threads(1)
    for name, network in NETWORKS.items():
        path = Path(__file__).with_name(f"zennit_{name}.npz")
        arrays = explain(network)
        np.savez_compressed(path, **arrays)
        print(f"{path.name}: {len(arrays)} arrays, {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
