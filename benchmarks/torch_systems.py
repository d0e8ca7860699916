"""zennit and captum on the same networks with the same weights, where they are installed.

    pip install torch --index-url https://download.pytorch.org/whl/cpu
    pip install zennit captum

Only chains of layers are rebuilt: dense, convolution, relu, max pooling.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from .contestants import HIGH, LOW, Build, batches_of
from .measure import Contestant
from .networks import Network


def systems(network: Network, size: int, params: Any, threads: int) -> dict[str, Build]:
    """torch's gradient and every installed system's explanations; none without torch."""
    if not network.layers or not _installed("torch"):
        return {}
    import torch

    torch.set_num_threads(threads)
    model = _rebuild(network, params).to(device())
    batches = [_as_torch(x, labels) for x, labels in batches_of(network, size)]
    found = {"torch gradient": (_gradient(model), "")}
    if _installed("zennit"):
        for label, composite in _zennit_composites(network).items():
            found[f"zennit {label}"] = (_zennit(model, composite), label)
    if _installed("captum"):
        found["captum Epsilon"] = (_captum(model), "Epsilon")
    return {
        name: functools.partial(_contestant, name, explain, batches, explains)
        for name, (explain, explains) in found.items()
    }


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def device() -> str:
    """torch's name of the device that JAX computes on."""
    return "cuda" if jax.default_backend() in ("gpu", "cuda", "rocm") else "cpu"


def timed(name: str, explain: Callable[[int], Any], explains: str) -> Contestant:
    """A torch explanation, by the number of a round, that is finished when it is returned."""
    import torch

    def call(number: int) -> Any:
        found = explain(number)
        if device() == "cuda":
            torch.cuda.synchronize()
        return found

    return Contestant(name, call, explains, read=lambda found: found.cpu().numpy())


def _as_torch(x: Any, labels: Any) -> tuple[Any, Any]:
    import torch

    values = torch.from_numpy(np.array(x))
    if values.ndim == 4:
        values = values.permute(0, 3, 1, 2).contiguous()
    return values.to(device()), torch.from_numpy(np.array(labels)).long().to(device())


def _contestant(
    name: str, explain: Callable[..., Any], batches: Sequence[Any], explains: str
) -> Contestant:
    def of_round(number: int) -> Any:
        x, labels = batches[number % len(batches)]
        found = explain(x.clone().requires_grad_(), labels).detach()
        return found.permute(0, 2, 3, 1) if found.ndim == 4 else found

    return timed(name, of_round, explains)


def _rebuild(network: Network, params: Any) -> Any:
    """The chain as a `torch.nn.Sequential`, its weights in torch's orders of axes."""
    import torch
    from torch import nn

    weights, modules = iter(params), []
    shape: tuple[int, ...] = network.shape
    flattened: tuple[int, ...] = ()
    for kind, *width in network.layers:
        if kind in ("conv", "dense"):
            w, b = (np.asarray(v) for v in next(weights))
            if kind == "conv":
                layer: Any = nn.Conv2d(shape[-1], *width, 3, padding=1)
                w = w.transpose(3, 2, 0, 1)
            else:
                layer = nn.Linear(w.shape[0], *width)
                if flattened:  # channels come first there
                    w = w.reshape(*flattened, -1).transpose(2, 0, 1, 3).reshape(w.shape)
                    flattened = ()
                w = w.T
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(w)))
                layer.bias.copy_(torch.from_numpy(b.copy()))
            modules.append(layer)
            shape = (*shape[:-1], *width)
        elif kind == "relu":
            modules.append(nn.ReLU())
        elif kind == "pool":
            modules.append(nn.MaxPool2d(2))
            shape = (shape[0] // 2, shape[1] // 2, shape[2])
        else:
            modules.append(nn.Flatten())
            flattened = shape
    return nn.Sequential(*modules).eval().requires_grad_(False)


def _gradient(model: Any) -> Callable[..., Any]:
    import torch

    def gradient(x: Any, labels: Any) -> Any:
        chosen = model(x).gather(1, labels[:, None]).sum()
        return torch.autograd.grad(chosen, x)[0]

    return gradient


def _zennit_composites(network: Network) -> dict[str, Any]:
    from zennit import composites, rules, types

    everywhere = composites.LayerMapComposite(
        [(types.Activation, rules.Pass()), (types.Linear, rules.Epsilon())]
    )
    if network.family == "plain":
        return {"Epsilon": everywhere}
    return {
        "Epsilon": everywhere,
        "EpsilonPlus": composites.EpsilonPlus(),
        "EpsilonGammaBox": composites.EpsilonGammaBox(low=LOW, high=HIGH),
        "EpsilonPlusFlat": composites.EpsilonPlusFlat(),
        "EpsilonAlpha2Beta1": composites.EpsilonAlpha2Beta1(),
    }


def _zennit(model: Any, composite: Any) -> Callable[..., Any]:
    import torch

    def explain(x: Any, labels: Any) -> Any:
        with composite.context(model) as modified:
            logits = modified(x)
            start = torch.zeros_like(logits).scatter(1, labels[:, None], 1.0) * logits.detach()
            return torch.autograd.grad(logits, x, start)[0]

    return explain


def _captum(model: Any) -> Callable[..., Any]:
    import torch
    from captum.attr import LRP
    from captum.attr._utils.lrp_rules import EpsilonRule

    def explain(x: Any, labels: Any) -> Any:
        for module in model:
            if not isinstance(module, torch.nn.ReLU):
                module.rule = EpsilonRule(1e-6)
        return LRP(model).attribute(x, target=labels)

    return explain
