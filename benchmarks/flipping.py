"""Pixel flipping of photos: what it adds to the forward passes, and against another library.

    python -m benchmarks.flipping                       100 images, as published results have it
    python -m benchmarks.flipping --images 16 --rounds 3

EfficientNet-Lite0 with random weights, 28 quadratic steps over patches of 8 x 8 pixels. Where
`torch` is installed (and `opencv-python-headless`, for inpainting), the loop of rodrigobdz/lrp runs
on the same network too. Times are of the processor, all threads together, and of the clock.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from lrp_jax import evaluation
from lrp_jax.evaluation import fills

from .measure import Contestant, race, spread
from .networks import NETWORKS, EfficientNetLite0

SIDE, PATCH, STEPS, CLASS = 224, 8, 28, 7
BARE = "bare forward passes"


def contestants(count: int, batch: int) -> list[Contestant]:
    """Everything that can run here, on `count` images, `batch` of them at a time."""
    network = NETWORKS["EfficientNet-Lite0"]
    variables = network.init(jax.random.key(0))
    generator = np.random.default_rng(0)
    # The range of photos, normalised as those of ImageNet are: inpainting wants pixels.
    images = generator.random((count, SIDE, SIDE, 3), np.float32)
    images = (images - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    images = images.astype(np.float32)
    relevance = generator.normal(size=images.shape).astype(np.float32)
    parts = [slice(i, i + batch) for i in range(0, count, batch)]
    apply = jax.jit(network.apply)

    def bare(_: int) -> Any:
        outputs = [apply(variables, images[part]) for part in parts for _ in range(STEPS + 1)]
        return jax.block_until_ready(outputs[-1])

    def flipping(fill: fills.Fill) -> Callable[[int], Any]:
        flip = evaluation.pixel_flipping(
            network.apply, patch=PATCH, steps=STEPS, schedule="quadratic", fill=fill
        )

        def call(_: int) -> Any:
            found = [
                flip(variables, images[part], relevance=relevance[part], target=CLASS).score
                for part in parts
            ]
            return jax.block_until_ready(found)

        return call

    made = {BARE: bare, "pixel_flipping, mean": flipping(fills.mean())}
    made["pixel_flipping, blur"] = flipping(fills.blur(8.0))
    inpainting = importlib.util.find_spec("cv2") is not None
    if inpainting:
        made["pixel_flipping, inpainting"] = flipping(fills.inpaint())
    if importlib.util.find_spec("torch") is not None:
        made |= _in_torch(variables, images, relevance, parts, inpainting)
    return [Contestant(name, call) for name, call in made.items()]


def _in_torch(
    variables: Any, images: np.ndarray, relevance: np.ndarray, parts: list[slice], inpainting: bool
) -> dict[str, Callable[[int], Any]]:
    import torch

    from . import flipping_torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))

    forward = flipping_torch.network(variables, EfficientNetLite0.stages)
    x, r = (
        torch.from_numpy(np.ascontiguousarray(np.moveaxis(a, -1, 1))) for a in (images, relevance)
    )
    ours = np.asarray(NETWORKS["EfficientNet-Lite0"].apply(variables, images[:1]))
    if not np.allclose(forward(x[:1]), ours, rtol=1e-3, atol=1e-3 * np.abs(ours).max()):
        raise AssertionError("the networks of the two systems compute different outputs")

    def bare(_: int) -> Any:
        return [forward(x[part]) for part in parts for _ in range(STEPS + 1)][-1]

    def loop(inpaint: bool) -> Callable[[int], Any]:
        score = lambda x: forward(x)[:, CLASS]  # noqa: E731
        return lambda _: [
            flipping_torch.flip(x[part], r[part], score, PATCH, inpaint) for part in parts
        ]

    made = {"torch, bare forward passes": bare, "rodrigobdz/lrp, one number": loop(False)}
    return made | ({"rodrigobdz/lrp, inpainting": loop(True)} if inpainting else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--batch", type=int, default=0, help="0: all images at a time")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="processor cores; 0: all")
    options = parser.parse_args()
    if options.threads:  # frameworks start as many threads as there are cores for the process
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    racing = contestants(options.images, options.batch or options.images)
    race(racing, seconds=0.0, fewest=options.rounds, most=options.rounds)
    floor = next(c for c in racing if c.name == BARE)
    cores = len(os.sched_getaffinity(0))
    batch = options.batch or options.images
    print(f"{options.images} images, {batch} at a time, {STEPS} steps, {cores} cores")
    print("\n| | processor s | clock s | to bare passes |\n|---|---|---|---|")
    for contestant in racing:
        (cpu, _), (wall, _) = (spread(v) for v in (contestant.cpu_seconds, contestant.seconds))
        ratio, _ = spread(
            [a / b for a, b in zip(contestant.cpu_seconds, floor.cpu_seconds, strict=True)]
        )
        print(f"| {contestant.name} | {cpu:.1f} | {wall:.1f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
