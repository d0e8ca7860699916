"""Keras 3 on JAX: its applications, small and with random weights, without the last softmax."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from .guest import ATTENTION, IMAGES, Case, Guest, drawn, filled, ids

PACKAGE = "keras"


def apply_of(model: Any) -> Callable[[Any, Any], Any]:
    """A model as a function of its variables, by path, and input."""
    import keras

    counted = [f"{i:04d}/{v.path}" for i, v in enumerate(model.variables)]
    place = {id(v): name for v, name in zip(model.variables, counted, strict=True)}

    def function(values: Any, x: Any) -> Any:
        trainable = [values[place[id(v)]] for v in model.trainable_variables]
        fixed = [values[place[id(v)]] for v in model.non_trainable_variables]
        with in_float64(keras.src.backend):
            return model.stateless_call(trainable, fixed, x, training=False)[0]

    return function


def values_of(model: Any, name: str) -> Any:
    """Random values for the variables, by path."""
    shapes = {
        f"{i:04d}/{v.path}": jax.ShapeDtypeStruct(v.shape, v.dtype)
        for i, v in enumerate(model.variables)
    }
    return filled(shapes, name)


@contextmanager
def in_float64(backend: Any) -> Iterator[None]:
    """Norms and means are of the wider one of float64 and float32; Keras has it be float32."""
    usual = backend.result_type

    def result_type(*types: Any) -> Any:
        return "float64" if "float64" in map(str, types) else usual(*types)

    with (
        mock.patch.object(backend, "result_type", result_type),
        mock.patch.object(backend.common.dtypes, "result_type", result_type),
    ):
        yield


def _empty(variable: Any, initializer: Any) -> None:
    """Drawing weights that are not used compiles a program for each of their shapes."""
    variable._initialize(np.zeros(variable.shape, variable.dtype))


Factory = Callable[..., Any]


def application(name: str, size: int, factory: Factory) -> Callable[[], Case]:
    """A classifier of pictures into three classes; its name, their size, and who makes it."""

    def build() -> Case:
        import keras

        keras.config.set_floatx("float64")
        shape = (size, size, 3)
        common = dict(weights=None, input_shape=shape, classes=3, classifier_activation=None)
        with mock.patch.object(keras.Variable, "_initialize_with_initializer", _empty):
            model = factory(**common)
        return Case(apply_of(model), values_of(model, name), drawn(name, 1, *shape))

    return build


def published(name: str, **options: Any) -> Factory:
    """An application as it is."""

    def factory(**common: Any) -> Any:
        import keras

        return getattr(keras.applications, name)(**common, **options)

    return factory


Layers = Callable[[Any, Any], Any]
"""Of `keras.layers` and an input, an output."""


def layers(name: str, of: Layers, *shape: int, words: int = 0) -> Callable[[], Case]:
    """A functional model of Keras' layers; its input is numbers, or ids of so many words."""

    def build() -> Case:
        import keras

        keras.config.set_floatx("float64")
        x = keras.Input(shape)
        model = keras.Model(x, of(keras.layers, x))
        values = values_of(model, name)
        for key, value in values.items():
            if not isinstance(value, jax.Array):
                values[key] = jnp.zeros(value.shape, value.dtype)  # seeds that nobody asks
        given = ids(name, 2, *shape, size=words) if words else drawn(name, 2, *shape)
        return Case(apply_of(model), values, given)

    return build


def _words(layers: Any, x: Any) -> Any:
    return layers.Dense(3)(layers.GRU(4)(layers.Embedding(20, 6, mask_zero=True)(x)))


def _both_ways(layers: Any, x: Any) -> Any:
    x = layers.TimeDistributed(layers.Dense(4, "relu"))(x)
    return layers.Dense(3)(layers.Bidirectional(layers.LSTM(4))(x))


def _frames(layers: Any, x: Any) -> Any:
    return layers.Dense(3)(layers.Flatten()(layers.ConvLSTM2D(3, 3, padding="same")(x)))


def _attention(layers: Any, x: Any) -> Any:
    x = layers.LayerNormalization()(x + layers.GroupQueryAttention(4, 4, 2)(x, x))
    return layers.Dense(3)(layers.GlobalAveragePooling1D()(x))


# The published builders of whole families, with fewer blocks.


def _resnet(version: int) -> Factory:
    def factory(**common: Any) -> Any:
        from keras.src.applications import resnet

        stack = resnet.stack_residual_blocks_v1 if version == 1 else resnet.stack_residual_blocks_v2

        def blocks(x: Any) -> Any:
            return stack(stack(x, 8, 2, name="conv2"), 16, 2, name="conv3")

        return resnet.ResNet(
            blocks, version == 2, True, weights_name="resnet", name="resnet", **common
        )

    return factory


def _densenet(**common: Any) -> Any:
    from keras.src.applications import densenet

    return densenet.DenseNet([2, 2, 2, 2], **common)


def _efficientnet(**common: Any) -> Any:
    from keras.src.applications import efficientnet

    return efficientnet.EfficientNet(0.25, 0.1, 32, name="b", weights_name="b0", **common)


def _convnext(**common: Any) -> Any:
    from keras.src.applications import convnext

    return convnext.ConvNeXt([1, 1, 1, 1], [8, 16, 24, 32], weights_name="tiny", **common)


def _nasnet(**common: Any) -> Any:
    from keras.src.applications import nasnet

    return nasnet.NASNet(
        penultimate_filters=96, num_blocks=1, stem_block_filters=8, skip_reduction=False,
        default_size=32, **common,
    )  # fmt: skip


def guest(name: str, size: int, factory: Factory, **more: Any) -> Guest:
    build = application(name, size, factory)
    return Guest(f"Keras {name}", PACKAGE, build, **{"composites": IMAGES, **more})


def of_layers(name: str, *about: Any, **more: Any) -> Guest:
    build = layers(name, *about, **more)
    return Guest(f"Keras {name}", PACKAGE, build, composites=ATTENTION, loops=True)


FAMILIES: tuple[Guest, ...] = (
    of_layers("GRU of masked words", _words, 5, words=20),
    of_layers("bidirectional LSTM", _both_ways, 5, 3),
    of_layers("convolutional LSTM", _frames, 3, 5, 5, 2),
    of_layers("grouped-query attention", _attention, 5, 8),
    guest("ResNet", 32, _resnet(1)),
    guest("ResNetV2", 32, _resnet(2)),
    guest("EfficientNet", 32, _efficientnet),
    guest("ConvNeXt", 32, _convnext),
    guest("DenseNet", 32, _densenet),
    # It adds a pool to itself, which is twice the pool here, and a sum with a stabiliser there.
    guest("NASNet", 32, _nasnet, tolerance=1e-6),
    guest("VGG16", 32, published("VGG16")),
    guest("MobileNet", 32, published("MobileNet", alpha=0.25)),
    guest("MobileNetV2", 32, published("MobileNetV2", alpha=0.35)),
    guest("MobileNetV3Small", 32, published("MobileNetV3Small", alpha=0.35)),
    guest("Xception", 71, published("Xception")),
    guest("InceptionV3", 75, published("InceptionV3")),
    *(
        guest(
            f"{name} as published",
            size,
            published(name),
            composites=("EpsilonPlus",),
            explained=("EpsilonGammaBox", "EpsilonAlpha2Beta1"),
            published=True,
            tolerance=1e-4 if name == "NASNetMobile" else 1e-9,
        )
        for name, size in (
            ("MobileNetV2", 64),
            ("ResNet50V2", 64),
            ("EfficientNetB0", 64),
            ("ConvNeXtTiny", 64),
            ("Xception", 71),
            ("InceptionV3", 75),
            ("DenseNet121", 64),
            ("NASNetMobile", 64),
        )
    ),
)
