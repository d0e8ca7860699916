"""LXT's and autolrp's AttnLRP on the same transformers and weights, where they are installed.

    pip install torch --index-url https://download.pytorch.org/whl/cpu
    pip install --no-deps lxt autolrp

LXT's efficient rules (its `lxt.efficient.rules`) are put into the model by hand, as its own patches
do for the classes of Hugging Face.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .contestants import Build, batches_of
from .measure import Contestant
from .networks import Network
from .torch_systems import device, timed


def systems(name: str, network: Network, size: int, params: Any, threads: int) -> dict[str, Build]:
    """torch's gradient and LXT's AttnLRP for the ViT and the Llama; none without torch."""
    rebuild = {"ViT-Ti/16": _ViT, "Llama, 6 layers": _Llama}.get(name)
    if rebuild is None or importlib.util.find_spec("torch") is None:
        return {}
    import torch

    torch.set_num_threads(threads)
    weights = {
        path: torch.from_numpy(np.array(value)).to(device())
        for path, value in _flat(params["params"]).items()
    }
    batches = [
        tuple(torch.from_numpy(np.array(v)).to(device()) for v in (x, np.asarray(labels, np.int64)))
        for x, labels in batches_of(network, size)
    ]
    found: dict[str, tuple[Callable[..., Any], str]] = {
        "torch gradient": (_gradient(rebuild(weights, _Plain())), "")
    }
    if importlib.util.find_spec("lxt") is not None:
        found["LXT AttnLRP"] = (_times_input(rebuild(weights, _AttnLRP())), "AttnLRP")
    # It shares sums and products by magnitude: other numbers, of the same kind of explanation.
    if size == 1 and importlib.util.find_spec("autolrp") is not None:
        found["autolrp AttnLRP"] = (_autolrp(rebuild(weights, _Plain())), "")
    return {
        label: functools.partial(_contestant, label, explain, batches, explains)
        for label, (explain, explains) in found.items()
    }


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
    if not hasattr(tree, "items"):
        return {path: tree}
    return {k: v for name, sub in tree.items() for k, v in _flat(sub, f"{path}/{name}").items()}


def _contestant(name: str, explain: Callable[..., Any], batches: Any, explains: str) -> Contestant:
    def of_round(number: int) -> Any:
        x, labels = batches[number % len(batches)]
        return explain(x.clone().requires_grad_(), labels).detach()

    return timed(name, of_round, explains)


def _gradient(model: Callable[..., Any]) -> Callable[..., Any]:
    import torch

    def gradient(x: Any, labels: Any) -> Any:
        return torch.autograd.grad(model(x).gather(1, labels[:, None]).sum(), x)[0]

    return gradient


def _times_input(model: Callable[..., Any]) -> Callable[..., Any]:
    gradient = _gradient(model)
    return lambda x, labels: x.detach() * gradient(x, labels)


def _autolrp(model: Callable[..., Any]) -> Callable[..., Any]:
    import autolrp

    config = autolrp.LRPConfig(rule={**autolrp.BASE, **autolrp.ATTNLRP})

    def explain(x: Any, labels: Any) -> Any:
        x = autolrp.tensor(x.detach())
        model(x)[0, labels[0]].lrp(config=config)
        return x.relevance

    return explain


class _Plain:
    """The model's own derivatives."""

    def activation(self, function: Callable[..., Any], x: Any) -> Any:
        return function(x)

    def half(self, x: Any) -> Any:
        return x

    def constant(self, x: Any) -> Any:
        return x


class _AttnLRP:
    """LXT's: activations by the identity rule, products by halves, statistics held constant."""

    def __init__(self) -> None:
        # The package imports every model it patches; the rules need torch alone.
        places = importlib.util.find_spec("lxt").submodule_search_locations
        path = Path(places[0]) / "efficient" / "rules.py"
        spec = importlib.util.spec_from_file_location("lxt_rules", path)
        self._rules = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self._rules)

    def activation(self, function: Callable[..., Any], x: Any) -> Any:
        return self._rules.identity_rule_implicit(function, x)

    def half(self, x: Any) -> Any:
        return self._rules.divide_gradient(x, 2)

    def constant(self, x: Any) -> Any:
        return self._rules.stop_gradient(x)


class _Model:
    """What both networks are made of; weights by their numbers in the Flax model."""

    def __init__(self, weights: dict[str, Any], rules: Any) -> None:
        self.weights, self.rules = weights, rules

    def dense(self, number: int, x: Any) -> Any:
        y = x @ self.weights[f"/Dense_{number}/kernel"]
        bias = self.weights.get(f"/Dense_{number}/bias")
        return y if bias is None else y + bias

    def layer_norm(self, number: int, x: Any) -> Any:
        path = f"/LayerNorm_{number}"
        centred = x - x.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        y = centred / self.rules.constant(deviation)
        return y * self.weights[path + "/scale"] + self.weights[path + "/bias"]

    def rms_norm(self, number: int, x: Any) -> Any:
        scale = (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
        return x * self.rules.constant(scale) * self.weights[f"/RMSNorm_{number}/scale"]

    def attention(self, q: Any, k: Any, v: Any, mask: Any = None) -> Any:
        scores = self.rules.half(q @ k.transpose(-1, -2)) / q.shape[-1] ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, -1e9)
        y = self.rules.half(scores.softmax(-1) @ v)
        return y.transpose(1, 2).flatten(2)


# Flax numbers modules as they are made: the layer around an expression before those inside.


class _ViT(_Model):
    def __call__(self, x: Any) -> Any:
        import torch
        from torch.nn import functional

        kernel = self.weights["/Conv_0/kernel"].permute(3, 2, 0, 1)
        x = functional.conv2d(x.permute(0, 3, 1, 2), kernel, self.weights["/Conv_0/bias"], 16)
        x = x.flatten(2).transpose(1, 2)
        token = self.weights["/class"].expand(len(x), 1, -1)
        x = torch.cat([token, x], 1) + self.weights["/positions"]
        for block in range(12):
            qkv = self.dense(4 * block + 1, self.layer_norm(2 * block, x))
            q, k, v = qkv.unflatten(-1, (3, 3, -1)).permute(2, 0, 3, 1, 4)
            x = x + self.dense(4 * block, self.attention(q, k, v))
            y = self.dense(4 * block + 2, self.layer_norm(2 * block + 1, x))
            x = x + self.dense(4 * block + 3, self.rules.activation(functional.gelu, y))
        return self.dense(48, self.layer_norm(24, x)[:, 0])


class _Llama(_Model):
    def __call__(self, x: Any) -> Any:
        import torch
        from torch.nn import functional

        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        for block in range(6):
            qkv = self.dense(5 * block, self.rms_norm(2 * block, x))
            q, k, v = qkv.unflatten(-1, (3, 8, -1)).permute(2, 0, 3, 1, 4)
            x = x + self.dense(5 * block + 1, self.attention(_rotate(q), _rotate(k), v, mask))
            y = self.rms_norm(2 * block + 1, x)
            gate = self.rules.activation(functional.silu, self.dense(5 * block + 3, y))
            y = self.rules.half(gate * self.dense(5 * block + 4, y))
            x = x + self.dense(5 * block + 2, y)
        return self.dense(30, self.rms_norm(12, x)[:, -1])


def _rotate(x: Any) -> Any:
    import torch

    half = x.shape[-1] // 2
    frequencies = 10000.0 ** (-torch.arange(half, device=x.device) / half)
    angles = torch.arange(x.shape[-2], device=x.device)[:, None] * frequencies
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1)
