"""Networks and explanations that are compared with zennit, described as data.

The generator builds each network in PyTorch and the tests build it in JAX, both from the same
description, so the two can't drift apart. Nothing here imports either framework.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Dense:
    inputs: int
    outputs: int
    bias: bool = True


@dataclass(frozen=True)
class Conv:
    inputs: int
    outputs: int
    kernel: tuple[int, ...]
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    bias: bool = True
    transpose: bool = False


@dataclass(frozen=True)
class BatchNorm:
    features: int
    rank: int


@dataclass(frozen=True)
class Activation:
    name: Literal["relu", "leaky_relu", "gelu", "sigmoid", "tanh", "silu", "softplus"]


@dataclass(frozen=True)
class MaxPool:
    window: tuple[int, ...]
    stride: int
    padding: int = 0


@dataclass(frozen=True)
class AvgPool:
    window: tuple[int, ...]
    stride: int
    padding: int = 0
    count_padding: bool = True


@dataclass(frozen=True)
class GlobalAvgPool:
    rank: int


@dataclass(frozen=True)
class Flatten:
    """Joins channels and positions, channels varying slowest (the order of PyTorch)."""


@dataclass(frozen=True)
class Residual:
    """The sum of two branches; an empty skip is the identity."""

    main: tuple[Layer, ...]
    skip: tuple[Layer, ...] = ()


Layer = (
    Dense | Conv | BatchNorm | Activation | MaxPool | AvgPool | GlobalAvgPool | Flatten | Residual
)


@dataclass(frozen=True)
class Network:
    """A feed-forward network; `input_shape` is channels first and without the batch."""

    input_shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    batch: int = 2
    seed: int = 0


def branches(layer: Layer) -> dict[str, tuple[Layer, ...]]:
    """The named sequences inside a layer; empty for a layer that has none."""
    if isinstance(layer, Residual):
        return {"main": layer.main, "skip": layer.skip}
    return {}


def named_layers(layers: tuple[Layer, ...], prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """Every layer with its path, which is the one that PyTorch gives to its parameters."""
    for index, layer in enumerate(layers):
        path = f"{prefix}{index}"
        yield path, layer
        for name, inner in branches(layer).items():
            yield from named_layers(inner, f"{path}.{name}.")


relu = Activation("relu")


def _conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> tuple[Layer, ...]:
    return (
        Conv(inputs, outputs, (kernel, kernel), stride, kernel // 2, bias=False),
        BatchNorm(outputs, 2),
    )


NETWORKS: dict[str, Network] = {
    "mlp": Network((7,), (Dense(7, 9), relu, Dense(9, 8), relu, Dense(8, 4)), batch=3, seed=1),
    "cnn": Network(
        (2, 10, 9),
        (
            Conv(2, 5, (3, 3), padding=1),
            relu,
            MaxPool((2, 2), 2),
            Conv(5, 6, (3, 2), stride=2, padding=1),
            relu,
            AvgPool((2, 2), 1),
            Flatten(),
            Dense(6 * 2 * 2, 4),
        ),
    ),
    "vgg": Network(
        (3, 8, 8),
        (
            Conv(3, 4, (3, 3), padding=1),
            BatchNorm(4, 2),
            relu,
            Conv(4, 4, (3, 3), padding=1),
            BatchNorm(4, 2),
            relu,
            MaxPool((3, 3), 2, padding=1),
            Conv(4, 6, (3, 3), padding=1, bias=False),
            BatchNorm(6, 2),
            relu,
            MaxPool((2, 2), 2),
            Flatten(),
            Dense(6 * 2 * 2, 7),
            BatchNorm(7, 1),
            relu,
            Dense(7, 4),
        ),
    ),
    "resnet": Network(
        (2, 8, 8),
        (
            *_conv_norm(2, 4, 3),
            relu,
            Residual(main=(*_conv_norm(4, 4, 3), relu, *_conv_norm(4, 4, 3))),
            relu,
            Residual(
                main=(*_conv_norm(4, 6, 3, stride=2), relu, *_conv_norm(6, 6, 3)),
                skip=_conv_norm(4, 6, 1, stride=2),
            ),
            relu,
            GlobalAvgPool(2),
            Flatten(),
            Dense(6, 4),
        ),
    ),
    "series": Network(
        (4, 24),
        (
            Conv(4, 6, (3,), padding=2, dilation=2),
            relu,
            Conv(6, 6, (3,), padding=1, groups=3),
            relu,
            AvgPool((3,), 2, padding=1, count_padding=False),
            Conv(6, 12, (4,), stride=2, padding=1, groups=6),
            relu,
            AvgPool((3,), 2, padding=1),
            Conv(12, 5, (1,)),
            relu,
            GlobalAvgPool(1),
            Flatten(),
            Dense(5, 3),
        ),
    ),
    "upsampling": Network(
        (3, 4, 4),
        (
            Conv(3, 4, (3, 3), stride=2, padding=1, transpose=True),
            relu,
            Conv(4, 3, (4, 4), stride=2, padding=1, transpose=True),
            BatchNorm(3, 2),
            relu,
            Conv(3, 3, (3, 3), stride=2),
            relu,
            GlobalAvgPool(2),
            Flatten(),
            Dense(3, 4),
        ),
    ),
    "volume": Network(
        (2, 5, 4, 6),
        (
            Conv(2, 3, (3, 2, 3), padding=1),
            relu,
            AvgPool((2, 2, 2), 2),
            Conv(3, 4, (2, 2, 2)),
            relu,
            GlobalAvgPool(3),
            Flatten(),
            Dense(4, 3),
        ),
        seed=2,
    ),
    "activations": Network(
        (2, 7, 7),
        (
            Conv(2, 4, (3, 3)),
            Activation("gelu"),
            Conv(4, 4, (3, 3), padding=1),
            Activation("silu"),
            Conv(4, 4, (2, 2), stride=2),
            Activation("leaky_relu"),
            Flatten(),
            Dense(4 * 2 * 2, 8),
            Activation("tanh"),
            BatchNorm(8, 1),
            Activation("sigmoid"),
            Dense(8, 6),
            Activation("softplus"),
            Dense(6, 12),
            relu,
            Dense(12, 3),
        ),
    ),
}


@dataclass(frozen=True)
class Case:
    """One explanation: a rule for every layer with weights, or a composite.

    `box` says that the rule or composite is given the stored bounds of the input.
    """

    kind: Literal["rule", "first", "composite"]
    name: str
    options: dict[str, float] = field(default_factory=dict)
    ignore_bias: bool = False
    box: bool = False

    @property
    def key(self) -> str:
        options = [f"{name}={value:g}" for name, value in self.options.items()]
        return f"{self.name}({', '.join([*options, *['ignore'] * self.ignore_bias])})"


CASES: tuple[Case, ...] = (
    Case("rule", "Epsilon", {"epsilon": 1e-6}),
    Case("rule", "Epsilon", {"epsilon": 0.25}),
    Case("rule", "Epsilon", {"epsilon": 1e-6}, ignore_bias=True),
    Case("rule", "Epsilon", {"epsilon": 0.25}, ignore_bias=True),
    Case("rule", "Gamma", {"gamma": 0.25}),
    Case("rule", "Gamma", {"gamma": 1.0}),
    Case("rule", "Gamma", {"gamma": 0.25, "stabilizer": 0.1}),
    Case("rule", "Gamma", {"gamma": 0.25}, ignore_bias=True),  # the bias still decides the branch
    Case("rule", "ZPlus"),
    Case("rule", "ZPlus", {"stabilizer": 0.1}),
    Case("rule", "ZPlus", ignore_bias=True),
    Case("rule", "AlphaBeta", {"alpha": 2.0, "beta": 1.0}),
    Case("rule", "AlphaBeta", {"alpha": 1.0, "beta": 0.0}),
    Case("rule", "AlphaBeta", {"alpha": 2.0, "beta": 1.0}, ignore_bias=True),
    Case("rule", "AlphaBeta", {"alpha": 1.0, "beta": 0.0}, ignore_bias=True),
    Case("rule", "WSquare"),
    Case("rule", "WSquare", {"stabilizer": 0.1}),
    Case("rule", "WSquare", ignore_bias=True),
    Case("rule", "Flat"),
    Case("first", "ZBox", box=True),
    Case("first", "ZBox", {"stabilizer": 0.1}, box=True),
    Case("composite", "EpsilonGammaBox", box=True),
    Case("composite", "EpsilonPlus"),
    Case("composite", "EpsilonPlusFlat"),
    Case("composite", "EpsilonAlpha2Beta1"),
    Case("composite", "EpsilonAlpha2Beta1Flat"),
    Case("composite", "ExcitationBackprop"),
    Case("composite", "GuidedBackprop"),
    Case("composite", "DeconvNet"),
    Case("composite", "BetaSmooth"),
)
