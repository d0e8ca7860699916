"""What rules lose in half precision, on a network with published weights.

    python -m benchmarks.precision                        some minutes on two cores
    python -m benchmarks.precision --only Epsilon

EfficientNet-Lite0 on photos of scikit-image (see `examples/efficientnet_lite0.py` for what it takes
to install). A loss is |R - R32| / |R32|, absolute values summed over photos. R32 is computed in
float32 from the half network's own weights and pixels, so that the arithmetic alone differs. A
gradient times its input stands beside the rules: what it loses, the forward pass has lost.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import lrp_jax as lrp
from lrp_jax import baselines

EXAMPLES = Path(__file__).parents[1] / "examples"
TYPES = (jnp.bfloat16, jnp.float16)


def methods(apply: Callable[..., Any], low: float, high: float) -> dict[str, Callable[..., Any]]:
    """What is compared, by the names of the table."""
    composites = {
        "LRP-0": lrp.Zero(),
        "Epsilon": lrp.Epsilon(),
        "Epsilon(0.1)": lrp.Epsilon(0.1),
        "EpsilonPlus": lrp.EpsilonPlus(),
        "EpsilonGammaBox": lrp.EpsilonGammaBox(low, high),
        "EpsilonPlusFlat": lrp.EpsilonPlusFlat(),
        "EpsilonAlpha2Beta1": lrp.EpsilonAlpha2Beta1(),
    }
    explained = {name: lrp.relevance(apply, composite) for name, composite in composites.items()}
    return {"gradient x input": baselines.input_x_gradient(apply), **explained}


def losses(
    explain: Callable[..., Any], variables: Any, x: np.ndarray, target: np.ndarray
) -> list[float]:
    """The loss in each of the half types."""
    found, compiled = [], jax.jit(explain)
    for dtype in TYPES:
        half = jax.tree.map(lambda a, dtype=dtype: jnp.asarray(a, dtype), (variables, x))
        full = jax.tree.map(lambda a: a.astype(jnp.float32), half)
        ours, exact = (np.asarray(compiled(*v, target=target), float) for v in (half, full))
        found.append(float(np.abs(ours - exact).sum() / np.abs(exact).sum()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Formatter)
    parser.add_argument("--side", type=int, default=112, help="pixels of a photo's side")
    parser.add_argument("--only", help="methods whose names contain this")
    options = parser.parse_args()
    sys.path.insert(0, str(EXAMPLES))
    import efficientnet_lite0 as network
    from skimage import data
    from skimage.transform import resize

    crops = [network.crop(photo) for photo in (data.chelsea(), data.coffee(), data.rocket())]
    shape = (options.side, options.side)
    x = network.prepare([255 * resize(photo, shape, anti_aliasing=True) for photo in crops])
    model, variables = network.EfficientNetLite0(), network.load_variables()
    target = np.asarray(jax.jit(model.apply)(variables, x)).argmax(-1)
    print(f"| | {' | '.join(dtype.__name__ for dtype in TYPES)} |\n|---|{'---|' * len(TYPES)}")
    for name, explain in methods(model.apply, network.LOW, network.HIGH).items():
        if options.only is None or options.only in name:
            cells = (f"{loss:.3f}" for loss in losses(explain, variables, x, target))
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


class _Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    pass


if __name__ == "__main__":
    main()
