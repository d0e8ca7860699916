"""Three classifiers of digits in Flax and one training loop for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from mnist_data import CLASSES, SIDE, Digits
from tqdm import tqdm

BATCH = 50
PEAK_LEARNING_RATE = 3e-3
LARGEST_SHIFT = 1
DROPOUT = 0.25


@dataclass(frozen=True)
class Classifier:
    """A network as two functions of its parameters: one to use it, one to train it.

    `apply(parameters, images)` returns logits; `apply_train(parameters, images, key)` the same
    with dropout. What the parameters are is the network's own business: a tree of arrays for
    Linen, the module itself for NNX.
    """

    parameters: Any
    apply: Callable[..., Any]
    apply_train: Callable[..., Any]


class CNN(nn.Module):
    """Three convolutions and two dense layers."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.relu(nn.Conv(16, (3, 3))(x))
        x = nn.avg_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Conv(32, (3, 3))(x))
        x = nn.avg_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Conv(64, (3, 3))(x))
        x = x.reshape(x.shape[0], -1)
        x = nn.Dropout(DROPOUT, deterministic=not train)(x)
        x = nn.relu(nn.Dense(128)(x))
        x = nn.Dropout(DROPOUT, deterministic=not train)(x)
        return nn.Dense(CLASSES)(x)


class MLP(nn.Module):
    """Three dense layers."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(512)(x))
        x = nn.Dropout(DROPOUT, deterministic=not train)(x)
        x = nn.relu(nn.Dense(256)(x))
        x = nn.Dropout(DROPOUT, deterministic=not train)(x)
        return nn.Dense(CLASSES)(x)


class NNXNet(nnx.Module):
    """The same convolutions with max pooling, as an NNX module."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(1, 16, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(16, 32, (3, 3), rngs=rngs)
        self.conv3 = nnx.Conv(32, 64, (3, 3), rngs=rngs)
        self.hidden = nnx.Linear(64 * (SIDE // 4) ** 2, 128, rngs=rngs)
        self.logits = nnx.Linear(128, CLASSES, rngs=rngs)
        self.dropout = nnx.Dropout(DROPOUT)

    def __call__(self, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
        def drop(x: jax.Array) -> jax.Array:
            return x if key is None else self.dropout(x, deterministic=False, rngs=rngs)

        rngs = None if key is None else nnx.Rngs(dropout=key)
        x = nnx.max_pool(nnx.relu(self.conv1(x)), (2, 2), (2, 2))
        x = nnx.max_pool(nnx.relu(self.conv2(x)), (2, 2), (2, 2))
        x = nnx.relu(self.conv3(x))
        x = drop(x.reshape(x.shape[0], -1))
        x = drop(nnx.relu(self.hidden(x)))
        return self.logits(x)


def _linen(module: nn.Module, key: jax.Array) -> Classifier:
    def apply_train(variables: Any, x: jax.Array, key: jax.Array) -> Any:
        return module.apply(variables, x, train=True, rngs={"dropout": key})

    return Classifier(module.init(key, jnp.zeros((1, SIDE, SIDE, 1))), module.apply, apply_train)


def _nnx(key: jax.Array) -> Classifier:
    def apply(model: NNXNet, x: jax.Array) -> jax.Array:
        return model(x)

    def apply_train(model: NNXNet, x: jax.Array, key: jax.Array) -> jax.Array:
        return model(x, key)

    return Classifier(NNXNet(nnx.Rngs(key)), apply, apply_train)


CLASSIFIERS: dict[str, Callable[[jax.Array], Classifier]] = {
    "cnn": lambda key: _linen(CNN(), key),
    "mlp": lambda key: _linen(MLP(), key),
    "nnx": _nnx,
}


def default_epochs(examples: int) -> int:
    """Return so many passes that a small and a large training set cost about the same."""
    return max(3, round(100_000 / examples))


def train(classifier: Classifier, digits: Digits, epochs: int, seed: int = 0) -> Any:
    """Return parameters fitted to the digits, each shifted at random whenever it is shown."""
    steps_per_epoch = max(1, len(digits) // BATCH)
    schedule = optax.cosine_onecycle_schedule(epochs * steps_per_epoch, PEAK_LEARNING_RATE)
    optimizer = optax.adamw(schedule, weight_decay=1e-2)

    def loss(parameters: Any, x: jax.Array, y: jax.Array, key: jax.Array) -> jax.Array:
        logits = classifier.apply_train(parameters, x, key)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def step(parameters: Any, state: Any, x: jax.Array, y: jax.Array, key: jax.Array) -> Any:
        shift_key, dropout_key = jax.random.split(key)
        x = random_shifts(shift_key, x)
        value, gradient = jax.value_and_grad(loss)(parameters, x, y, dropout_key)
        updates, state = optimizer.update(gradient, state, parameters)
        return optax.apply_updates(parameters, updates), state, value

    generator, key = np.random.default_rng(seed), jax.random.key(seed)
    parameters = classifier.parameters
    state = optimizer.init(parameters)
    with tqdm(total=epochs * steps_per_epoch, desc="training", unit="step") as progress:
        for epoch in range(epochs):
            order = generator.permutation(len(digits))[: steps_per_epoch * BATCH]
            for chosen in np.array_split(order, steps_per_epoch):
                key, step_key = jax.random.split(key)
                x, y = digits.images[chosen], digits.labels[chosen]
                parameters, state, value = step(parameters, state, x, y, step_key)
                progress.update()
            progress.set_postfix(epoch=f"{epoch + 1}/{epochs}", loss=f"{value:.3f}")
    return parameters


def random_shifts(key: jax.Array, images: jax.Array) -> jax.Array:
    """Return the images, each moved by up to one pixel along both axes."""
    margin = LARGEST_SHIFT
    padded = jnp.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    offsets = jax.random.randint(key, (len(images), 2), 0, 2 * margin + 1)

    def crop(image: jax.Array, offset: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), images.shape[1:])

    return jax.vmap(crop)(padded, offsets)


def logits_of(classifier: Classifier, parameters: Any, digits: Digits) -> np.ndarray:
    """Return the logits of all digits, computed in batches."""
    apply = jax.jit(classifier.apply)
    starts = range(0, len(digits), 500)
    return np.concatenate(
        [apply(parameters, digits.images[i : i + 500]) for i in tqdm(starts, desc="testing")]
    )
