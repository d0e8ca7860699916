"""Regenerate the numbers of Quantus that `tests/test_quantus.py` compares with.

    pip install torch==2.13.0 quantus==0.6.0
    python tests/reference/generate_quantus.py

The network, inputs and explanations are in float64 from fixed seeds; Quantus runs them through
`lrp_jax.evaluation.quantus`.
"""

from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch

jax.config.update("jax_enable_x64", True)
torch.set_default_dtype(torch.float64)

import quantus  # noqa: E402

import lrp_jax.evaluation.quantus as adapter  # noqa: E402
from lrp_jax import baselines  # noqa: E402

PINNED = {"torch": "2.13.0", "quantus": "0.6.0"}
RNG = np.random.default_rng(0)
PARAMS = {"w1": RNG.normal(size=(72, 10)) / 4, "w2": RNG.normal(size=(10, 3))}
X = RNG.normal(size=(4, 6, 6, 2))
LABELS = np.array([0, 2, 1, 2])
MASK = RNG.random((4, 6, 6)) < 0.3
NOISE = np.stack(
    [
        jax.random.uniform(k, X.shape, minval=-0.2, maxval=0.2)
        for k in jax.random.split(jax.random.key(0), 5)
    ]
)


def apply(params, x):
    return jnp.tanh(x.reshape(len(x), -1) @ params["w1"]) @ params["w2"]


EXPLAIN = baselines.input_x_gradient(apply)
R = np.asarray(EXPLAIN(PARAMS, X, target=LABELS))
PLAIN = {"abs": False, "normalise": False, "disable_warnings": True, "display_progressbar": False}


def evaluate(metric, relevance=R, **more):
    """One Quantus metric, on our model through the adapter."""
    return np.array(evaluate_layers(metric, relevance, **more), float)


def evaluate_layers(metric, relevance=R, **more):
    """The same as Quantus returns it: metrics of randomisation have a list for each layer."""
    return metric(
        model=adapter.as_torch(apply, PARAMS),
        x_batch=adapter.channels_first(X).copy(),
        y_batch=LABELS,
        a_batch=adapter.channels_first(relevance).copy(),
        explain_func=adapter.explain_func(EXPLAIN),
        softmax=False,
        channel_first=True,
        device="cpu",
        **more,
    )


def subsets(runs, size):
    """The subsets that FaithfulnessCorrelation draws, as masks over the input."""
    masks = np.zeros((runs, 4, 72), bool)
    for run in masks:
        for row in run:
            row[np.random.choice(72, size, replace=False)] = True
    return np.moveaxis(masks.reshape(runs, 4, 2, 6, 6), 2, -1)


def main():
    for package, wanted in PINNED.items():
        if version(package).split("+")[0] != wanted:
            raise SystemExit(f"{package} {wanted} is needed, {version(package)} is installed")
    masked = {"s_batch": MASK[:, None]}
    summed = R.sum(-1, keepdims=True)
    result = {
        "sparseness": evaluate(quantus.Sparseness(**PLAIN | {"abs": True})),
        "complexity": evaluate(quantus.Complexity(**PLAIN | {"abs": True})),
        "pointing_game": evaluate(quantus.PointingGame(**PLAIN), summed, **masked),
        "relevance_mass": evaluate(quantus.RelevanceMassAccuracy(**PLAIN), summed, **masked),
        "relevance_rank": evaluate(quantus.RelevanceRankAccuracy(**PLAIN), summed, **masked),
        "pixel_flipping": evaluate(
            quantus.PixelFlipping(features_in_step=9, perturb_baseline=0.0, **PLAIN)
        ),
    }
    for order in ("morf", "lerf"):
        result[f"regions_{order}"] = evaluate(
            quantus.RegionPerturbation(
                patch_size=2, order=order, regions_evaluation=9, perturb_baseline=0.0, **PLAIN
            )
        )
    np.random.seed(7)
    result["faithfulness"] = evaluate(
        quantus.FaithfulnessCorrelation(
            nr_runs=12, subset_size=20, perturb_baseline=0.0, return_aggregate=False, **PLAIN
        )
    )
    np.random.seed(7)
    result["faithfulness_masks"] = subsets(12, 20)
    result["infidelity"] = evaluate(
        quantus.Infidelity(
            perturb_patch_sizes=[2], n_perturb_samples=1, perturb_baseline=0.0, **PLAIN
        )
    )
    noise = iter(NOISE)
    result["max_sensitivity"] = evaluate(
        quantus.MaxSensitivity(
            nr_samples=5,
            perturb_func=lambda arr, indices, **_: (
                arr + adapter.channels_first(next(noise)).reshape(arr.shape)
            ),
            **PLAIN,
        )
    )
    np.random.seed(0)
    result["random_logit"] = evaluate(
        quantus.RandomLogit(
            num_classes=3, similarity_func=quantus.similarity_func.correlation_pearson, **PLAIN
        )
    )
    for order in ("top_down", "independent"):
        found = quantus.MPRT(
            layer_order=order,
            similarity_func=quantus.similarity_func.correlation_pearson,
            **PLAIN,
        )
        scores = evaluate_layers(found)
        result[f"mprt_{order}"] = np.stack([scores[f"leaves.{i}"] for i in (1, 0)])
    # What it puts in the place of each array: it sets the same seed before each.
    module = adapter.as_torch(apply, PARAMS)
    for leaf in module.leaves:
        torch.manual_seed(43)
        leaf.reset_parameters()
    result |= {f"mprt_{name}": np.asarray(value) for name, value in module.params().items()}
    inputs = {"x": X, "labels": LABELS, "mask": MASK, "relevance": R, **PARAMS}
    np.savez_compressed(Path(__file__).with_name("quantus.npz"), **inputs, **result)
    for name, value in result.items():
        print(name, value.shape)


if __name__ == "__main__":
    main()
