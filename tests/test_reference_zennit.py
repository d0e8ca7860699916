"""Relevances of whole networks equal those of zennit (see `reference/generate_zennit.py`)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from reference.networks import (
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
    Residual,
    named_layers,
)

import lrp_jax as lrp

BATCH_NORM_EPSILON = 1e-5
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
}

Leaf = Callable[[str, Any, jax.Array], jax.Array]


def evaluate(
    layers: tuple[Layer, ...], x: jax.Array, leaf: Leaf, channel_axis: int = -1, prefix: str = ""
) -> jax.Array:
    """Apply the layers; `leaf(path, layer, x)` does those with parameters or windows."""
    for index, layer in enumerate(layers):
        path = f"{prefix}{index}"
        match layer:
            case Activation():
                x = ACTIVATIONS[layer.name](x)
            case GlobalAvgPool():
                positions = tuple({*range(1, x.ndim)} - {channel_axis % x.ndim})
                x = x.mean(positions, keepdims=True)
            case Flatten():
                x = jnp.moveaxis(x, channel_axis, 1).reshape(len(x), -1)
            case Residual():
                main = evaluate(layer.main, x, leaf, channel_axis, f"{path}.main.")
                x = main + evaluate(layer.skip, x, leaf, channel_axis, f"{path}.skip.")
            case _:
                x = leaf(path, layer, x)
    return x


# --- plain JAX, any layout, parameters as PyTorch stores them ---


def plain(name: str, arrays: dict[str, np.ndarray], channel_axis: int) -> tuple[Callable, Any]:
    def leaf(path: str, layer: Any, x: jax.Array, parameters: dict[str, Any]) -> jax.Array:
        own = parameters.get(path, {})

        def per_channel(array: jax.Array) -> jax.Array:
            shape = [1] * x.ndim
            shape[channel_axis] = array.size
            return array.reshape(shape)

        def window(values: tuple[int, ...], default: int) -> list[int]:
            window = [default, *values]
            window.insert(channel_axis % x.ndim, default)
            return window

        def pool(operation: Callable, start: float, x: jax.Array) -> jax.Array:
            rank = len(layer.window)
            padding = window((layer.padding,) * rank, 0)
            return jax.lax.reduce_window(
                x,
                start,
                operation,
                window(layer.window, 1),
                window((layer.stride,) * rank, 1),
                [(p, p) for p in padding],
            )

        match layer:
            case Dense():
                x = x @ own["weight"].T
                return x + own["bias"] if layer.bias else x
            case Conv():
                x = convolve(layer, x, own["weight"], channel_axis)
                return x + per_channel(own["bias"]) if layer.bias else x
            case BatchNorm():
                deviation = jnp.sqrt(own["running_var"] + BATCH_NORM_EPSILON)
                x = (x - per_channel(own["running_mean"])) / per_channel(deviation)
                return x * per_channel(own["weight"]) + per_channel(own["bias"])
            case MaxPool():
                return pool(jax.lax.max, -jnp.inf, x)
            case AvgPool():
                if layer.count_padding:
                    return pool(jax.lax.add, 0.0, x) / np.prod(layer.window)
                return pool(jax.lax.add, 0.0, x) / pool(jax.lax.add, 0.0, jnp.ones(x.shape))
        raise TypeError(layer)

    def apply(parameters: dict[str, Any], x: jax.Array) -> jax.Array:
        bound = functools.partial(leaf, parameters=parameters)
        return evaluate(NETWORKS[name].layers, x, bound, channel_axis)

    parameters: dict[str, dict[str, jax.Array]] = {}
    for path, _ in named_layers(NETWORKS[name].layers):
        if own := parameters_of(arrays, path):
            parameters[path] = own
    return apply, parameters


def convolve(layer: Conv, x: jax.Array, weight: jax.Array, channel_axis: int) -> jax.Array:
    rank = len(layer.kernel)
    space = "DHW"[-rank:]
    data = f"NC{space}" if channel_axis == 1 else f"N{space}C"
    if not layer.transpose:
        return jax.lax.conv_general_dilated(
            x,
            weight,
            (layer.stride,) * rank,
            [(layer.padding, layer.padding)] * rank,
            rhs_dilation=(layer.dilation,) * rank,
            dimension_numbers=(data, f"OI{space}", data),
            feature_group_count=layer.groups,
        )
    return jax.lax.conv_general_dilated(
        x,
        jnp.flip(weight, range(2, 2 + rank)),
        (1,) * rank,
        [(size - 1 - layer.padding,) * 2 for size in layer.kernel],
        lhs_dilation=(layer.stride,) * rank,
        dimension_numbers=(data, f"IO{space}", data),
    )


def parameters_of(arrays: dict[str, np.ndarray], path: str) -> dict[str, jax.Array]:
    prefix = f"parameters/{path}."
    return {
        name.removeprefix(prefix): jnp.asarray(array)
        for name, array in arrays.items()
        if name.startswith(prefix) and "." not in name.removeprefix(prefix)
    }


# --- Flax, channels last ---


def flax_parameters(layer: Layer, own: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The parameters of one layer under Flax's names and with its axes."""
    if isinstance(layer, BatchNorm):
        names = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
        return {names[name]: array for name, array in own.items()}
    weight = own["weight"]
    positions = range(2, weight.ndim)
    if isinstance(layer, Conv) and layer.transpose:
        kernel = jnp.flip(weight, positions).transpose(*positions, 0, 1)
    else:
        kernel = weight.transpose(*positions, 1, 0)
    return {"kernel": kernel} | {name: own[name] for name in ("bias",) if name in own}


def flax_convolution_options(layer: Conv) -> dict[str, Any]:
    rank = len(layer.kernel)
    options: dict[str, Any] = {"strides": (layer.stride,) * rank, "use_bias": layer.bias}
    if layer.transpose:
        return options | {"padding": [(size - 1 - layer.padding,) * 2 for size in layer.kernel]}
    return options | {
        "padding": [(layer.padding, layer.padding)] * rank,
        "kernel_dilation": (layer.dilation,) * rank,
        "feature_group_count": layer.groups,
    }


def flax_pool(layer: MaxPool | AvgPool, x: jax.Array) -> jax.Array:
    rank = len(layer.window)
    strides, padding = (layer.stride,) * rank, ((layer.padding, layer.padding),) * rank
    if isinstance(layer, MaxPool):
        return linen.max_pool(x, layer.window, strides, padding)
    return linen.avg_pool(x, layer.window, strides, padding, layer.count_padding)


def identifier(path: str) -> str:
    return f"layer_{path.replace('.', '_')}"


class LinenNetwork(linen.Module):
    layers: tuple[Layer, ...]

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def leaf(path: str, layer: Any, x: jax.Array) -> jax.Array:
            name = identifier(path)
            match layer:
                case Dense():
                    return linen.Dense(layer.outputs, layer.bias, name=name)(x)
                case Conv():
                    kind = linen.ConvTranspose if layer.transpose else linen.Conv
                    options = flax_convolution_options(layer)
                    return kind(layer.outputs, layer.kernel, **options, name=name)(x)
                case BatchNorm():
                    return linen.BatchNorm(True, epsilon=BATCH_NORM_EPSILON, name=name)(x)
                case _:
                    return flax_pool(layer, x)

        return evaluate(self.layers, x, leaf)


def linen_network(name: str, arrays: dict[str, np.ndarray]) -> tuple[Callable, Any]:
    variables: dict[str, dict[str, Any]] = {"params": {}, "batch_stats": {}}
    for path, layer in named_layers(NETWORKS[name].layers):
        if own := parameters_of(arrays, path):
            for parameter, array in flax_parameters(layer, own).items():
                collection = "batch_stats" if parameter in ("mean", "var") else "params"
                variables[collection].setdefault(identifier(path), {})[parameter] = array
    return LinenNetwork(NETWORKS[name].layers).apply, variables


class NNXNetwork(nnx.Module):
    def __init__(self, layers: tuple[Layer, ...], arrays: dict[str, np.ndarray]) -> None:
        self.layers = nnx.static(layers)
        rngs = nnx.Rngs(0)
        for path, layer in named_layers(layers):
            match layer:
                case Dense():
                    module = nnx.Linear(layer.inputs, layer.outputs, use_bias=layer.bias, rngs=rngs)
                case Conv():
                    kind = nnx.ConvTranspose if layer.transpose else nnx.Conv
                    options = flax_convolution_options(layer)
                    module = kind(layer.inputs, layer.outputs, layer.kernel, **options, rngs=rngs)
                case BatchNorm():
                    module = nnx.BatchNorm(
                        layer.features,
                        use_running_average=True,
                        epsilon=BATCH_NORM_EPSILON,
                        rngs=rngs,
                    )
                case _:
                    continue
            for name, array in flax_parameters(layer, parameters_of(arrays, path)).items():
                setattr(module, name, type(getattr(module, name))(array))
            setattr(self, identifier(path), module)

    def __call__(self, x: jax.Array) -> jax.Array:
        def leaf(path: str, layer: Any, x: jax.Array) -> jax.Array:
            if isinstance(layer, MaxPool | AvgPool):
                return flax_pool(layer, x)
            return getattr(self, identifier(path))(x)

        return evaluate(self.layers, x, leaf)


def nnx_network(name: str, arrays: dict[str, np.ndarray]) -> tuple[Callable, Any]:
    return lambda model, x: model(x), NNXNetwork(NETWORKS[name].layers, arrays)


# --- the comparison ---

FLAVOURS: dict[str, Callable[[str, dict[str, np.ndarray]], tuple[Callable, Any]]] = {
    "linen": linen_network,
    "nnx": nnx_network,
    "nhwc": functools.partial(plain, channel_axis=-1),
    "nchw": functools.partial(plain, channel_axis=1),
}


@functools.cache
def reference(name: str) -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "reference" / f"zennit_{name}.npz") as arrays:
        return dict(arrays)


@functools.cache
def network(name: str, flavour: str) -> tuple[Callable, Any]:
    return FLAVOURS[flavour](name, reference(name))


def to_flavour(channels_first: np.ndarray, flavour: str) -> np.ndarray:
    return channels_first if flavour == "nchw" else np.moveaxis(channels_first, 1, -1)


def composite(case: Case, arrays: dict[str, np.ndarray], flavour: str) -> Any:
    options: dict[str, Any] = dict(case.options)
    if case.ignore_bias:
        options["bias"] = "ignore"
    if case.box:
        positions = arrays["input"].ndim - 2 if flavour == "nchw" else 0
        for bound in ("low", "high"):
            options[bound] = arrays[bound].reshape(-1, *(1,) * positions)
    modified_gradients = {
        "GuidedBackprop": lrp.composites.guided_backprop,
        "DeconvNet": lrp.composites.deconvnet,
        "BetaSmooth": lrp.composites.beta_smooth,
    }
    if case.kind == "composite":
        return modified_gradients.get(case.name, getattr(lrp, case.name))(**options)
    rule = getattr(lrp, case.name)(**options)
    if case.kind == "first":
        weighted = lrp.Dense | lrp.Conv
        return lrp.Composite([(lrp.first(weighted), rule), (weighted, lrp.Epsilon())])
    return rule


def check(name: str, flavour: str, case: Case) -> None:
    arrays = reference(name)
    apply, parameters = network(name, flavour)
    x = to_flavour(arrays["input"], flavour)
    explain = jax.jit(lrp.relevance(apply, composite(case, arrays, flavour)))
    relevance = explain(parameters, x, target=arrays["labels"])
    expected = to_flavour(arrays[f"relevance/{case.key}"], flavour)
    np.testing.assert_allclose(relevance, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("name", NETWORKS)
def test_network_is_the_same(name: str, flavour: str) -> None:
    arrays = reference(name)
    apply, parameters = network(name, flavour)
    output = jax.jit(apply)(parameters, to_flavour(arrays["input"], flavour))
    np.testing.assert_allclose(output, arrays["output"], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
@pytest.mark.parametrize("name", NETWORKS)
def test_relevance_equals_zennit(name: str, case: Case) -> None:
    check(name, "linen", case)


SOME_CASES = [
    Case("rule", "Gamma", {"gamma": 0.25}),
    Case("rule", "AlphaBeta", {"alpha": 2.0, "beta": 1.0}, ignore_bias=True),
    Case("rule", "Flat"),
    Case("composite", "EpsilonGammaBox", box=True),
]


@pytest.mark.parametrize("case", SOME_CASES, ids=lambda case: case.key)
@pytest.mark.parametrize("flavour", ["nnx", "nhwc", "nchw"])
@pytest.mark.parametrize("name", ["vgg", "resnet", "series", "upsampling"])
def test_way_of_writing_makes_no_difference(name: str, flavour: str, case: Case) -> None:
    check(name, flavour, case)
