"""Regenerate the explanations of zennit that `tests/test_baselines.py` compares with.

    pip install torch==2.13.0 numpy pillow
    pip install --no-deps zennit==0.5.1
    python tests/reference/generate_baselines.py

Two small convolutional networks, of relu and of softplus, with one set of weights; everything is
in float64 on the CPU from fixed seeds. The arrays are channels first, as PyTorch has them.
"""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from generate_zennit import PINNED, randomise
from zennit.attribution import (
    Gradient,
    IntegratedGradients,
    Occlusion,
    SmoothGrad,
    occlude_independent,
)
from zennit.composites import DeconvNet, GuidedBackprop

INPUT = (2, 8, 6)
BATCH, CLASSES, SAMPLES = 3, 4, 6


def network(activation: type[torch.nn.Module]) -> torch.nn.Sequential:
    """Two convolutions, an average pool and a dense layer; the weights depend on the seed alone."""
    model = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1),
        activation(),
        torch.nn.AvgPool2d(2),
        torch.nn.Conv2d(4, 5, 3, padding=1),
        activation(),
        torch.nn.Flatten(),
        torch.nn.Linear(5 * 4 * 3, CLASSES),
    ).eval()
    randomise(model, np.random.default_rng(2))
    return model


def explain(name: str, activation: type[torch.nn.Module]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    model = network(activation)
    x = torch.from_numpy(rng.normal(size=(BATCH, *INPUT)))
    labels = torch.from_numpy(rng.integers(CLASSES, size=BATCH))
    one_hot = torch.nn.functional.one_hot(labels, CLASSES).double()
    baseline = torch.from_numpy(rng.normal(size=INPUT))

    # The copies of SmoothGrad take this noise one after the other; the last copy has none.
    noise = torch.from_numpy(rng.normal(size=(SAMPLES, BATCH, *INPUT)))
    noise[-1] = 0.0
    draws = iter(noise)
    torch.randn_like = lambda x: next(draws)

    covered = partial(occlude_independent, fill_fn=lambda x: torch.full_like(x, 0.5), invert=True)
    score = {"model": model, "attr_output": lambda output: one_hot * output}
    slope = {"model": model, "attr_output": one_hot}
    attributors = {
        "gradient": Gradient(**slope),
        "smoothgrad": SmoothGrad(**slope, noise_level=0.2, n_iter=SAMPLES),
        "integrated_gradients": IntegratedGradients(**slope, n_iter=7),
        "integrated_gradients_from_baseline": IntegratedGradients(
            **slope, n_iter=7, baseline_fn=lambda x: baseline.expand_as(x)
        ),
        "occlusion": Occlusion(**score, window=(2, 3), stride=(2, 3)),
        "occlusion_of_overlapping_windows": Occlusion(**score, window=(4, 2), stride=(2, 1)),
        "occlusion_of_the_inside": Occlusion(
            **score, window=(2, 3), stride=(2, 3), occlusion_fn=covered
        ),
    }
    if activation is torch.nn.ReLU:  # the rules of both composites are for relu alone
        attributors["guided_backprop"] = Gradient(**slope, composite=GuidedBackprop())
        attributors["deconvnet"] = Gradient(**slope, composite=DeconvNet())
    found = {f"{name}/{key}": make(x)[1].detach().numpy() for key, make in attributors.items()}
    parameters = {f"parameters/{k}": v.numpy() for k, v in model.state_dict().items()}
    inputs = {"input": x, "labels": labels, "baseline": baseline, "noise": noise}
    inputs = {key: value.detach().numpy() for key, value in inputs.items()}
    return {**parameters, **inputs, **found, f"{name}/output": model(x).detach().numpy()}


def main() -> None:
    for package, pinned in PINNED.items():
        if (found := version(package).split("+")[0]) != pinned:
            raise SystemExit(f"expected {package} {pinned}, found {found}")
    torch.set_num_threads(1)
    # The points of a path are computed in the default type, whatever that of the input.
    torch.set_default_dtype(torch.float64)
    path = Path(__file__).with_name("zennit_baselines.npz")
    arrays = explain("relu", torch.nn.ReLU) | explain("softplus", torch.nn.Softplus)
    np.savez_compressed(path, **arrays)
    print(f"{path.name}: {len(arrays)} arrays, {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
