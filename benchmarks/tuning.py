"""Does a composite that was fitted on some digits beat the presets on others?

    python -m benchmarks.tuning                 # minutes on two cores; trains the network first

The network and the experiment of `examples/choose_composite.py`: the most relevant patches of 2 x 2
pixels are removed first, and the area under the logit's curve is fitted (the lower the better) on
200 held-out digits and reported on 200 others.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import jax

import lrp_jax as lrp
from lrp_jax import evaluation

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

RANGES = {
    "epsilon_first": (0.001, 3.0),
    "gamma": (0.001, 3.0),
    "epsilon": (0.001, 10.0),
    "epsilon_last": (0.001, 10.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=64)
    options = parser.parse_args()

    import choose_composite

    network = choose_composite.digits(quick=False, data=None)
    flip = choose_composite.flipping(network)

    def area(params: Any, x: jax.Array, relevance: jax.Array, target: jax.Array) -> jax.Array:
        return evaluation.area(flip(params, x, relevance=relevance, target=target))

    def make(epsilon_first: Any, gamma: Any, epsilon: Any, epsilon_last: Any) -> Any:
        entries = [
            (lrp.first(lrp.Conv), lrp.Epsilon(epsilon_first)),
            (lrp.Conv, lrp.Gamma(gamma)),
            (lrp.last(lrp.Dense), lrp.Epsilon(epsilon_last)),
            (lrp.Dense, lrp.Epsilon(epsilon)),
        ]
        return lrp.relevance(network.apply, lrp.Composite(entries))

    low, high = network.low, network.high
    presets = {
        "Epsilon(0.1)": lrp.Epsilon(0.1),
        "LRPOverview": lrp.LRPOverview(low, high),
        "EpsilonAlpha2Beta1": lrp.EpsilonAlpha2Beta1(),
        "EpsilonGammaBox": lrp.EpsilonGammaBox(low, high),
        "EpsilonPlus": lrp.EpsilonPlus(),
        "EpsilonPlusFlat": lrp.EpsilonPlusFlat(),
    }
    found = evaluation.tune(
        make,
        RANGES,
        area,
        choose_composite.with_predictions(network, network.choice),
        choose_composite.with_predictions(network, network.confirmation),
        params=network.parameters,
        presets={name: lrp.relevance(network.apply, rule) for name, rule in presets.items()},
        trials=options.trials,
    )
    print(found)


if __name__ == "__main__":
    main()
