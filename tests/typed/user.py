"""What a user writes, in types: mypy and pyright accept it in their strict modes, and it runs.

Lines that are wrong carry `type: ignore`, and a checker that finds nothing to ignore there fails.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

import lrp_jax as lrp
from lrp_jax import baselines, composites, evaluation, plot, targets
from lrp_jax.kinds import Kind
from lrp_jax.questions import concept_graph, fourier, in_basis

Params = dict[str, jax.Array]


def apply(params: Params, x: jax.Array) -> jax.Array:
    return jax.nn.relu(x @ params["hidden"]) @ params["head"]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Favour(lrp.Rule):
    """A rule of one's own."""

    gamma: float = 0.5

    def terms(self, layer: Any) -> list[lrp.Term]:
        total = layer.output + self.gamma * layer.positive
        share = layer.divide(layer.relevance, total, 1e-6)
        return [lrp.Term(share, positive=1 + self.gamma, negative=1)]


def main() -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        "hidden": jax.random.normal(keys[0], (4, 5)),
        "head": jax.random.normal(keys[1], (5, 3)),
    }
    x = jax.random.normal(keys[2], (2, 4))

    weights: Kind = lrp.Dense | lrp.Conv
    composite: lrp.Composite = lrp.Composite(
        [
            (lrp.first(lrp.Dense), lrp.ZBox(low=-3.0, high=3.0)),
            ("head", lrp.Zero()),
            (weights & ~lrp.last(lrp.Dense), lrp.Gamma(0.25)),
            (lambda layer: layer.depth > 0.5, Favour()),
        ]
    )
    composite = composite.override((lrp.depth(0.0, 0.5) | "hidden", lrp.Epsilon(0.1)))
    relevance: jax.Array = lrp.relevance(apply, composite)(params, x, target=np.array([0, 2]))
    output, again = lrp.value_and_relevance(apply, Favour())(params, x, target=1)
    total = float((output - again.sum()).sum())

    plan: lrp.Plan = lrp.plan(apply, lrp.EpsilonPlus())(params, x)
    paths: list[str] = [layer.path for layer in plan.layers if layer.kind <= weights]
    ledger: lrp.Ledger = lrp.conservation(apply, lrp.Epsilon())(params, x)
    ledger.assert_conserved(1e-3)
    hidden: dict[str, Any] = lrp.layer_relevances(apply, lrp.Epsilon(), "head")(params, x)
    both = targets.each([targets.contrast(0, 1), targets.top_k(2), None])
    several: jax.Array = lrp.relevance(apply, composites.RelP())(params, x, target=both)
    spectrum: jax.Array = lrp.relevance(in_basis(apply, fourier(4)), lrp.Zero())(params, x)

    gradient: jax.Array = baselines.gradient(apply)(params, x, target=0)
    flip = evaluation.pixel_flipping(apply, order="morf", steps=2)
    area: jax.Array = evaluation.area(flip(params, x, relevance=relevance))
    colours: np.ndarray = plot.rgb(np.asarray(relevance))
    graph = concept_graph(apply, lrp.Epsilon(), ["hidden", "head"])(params, x)
    print(total, paths, hidden, several, spectrum, gradient, area, colours, graph.layers)


def wrong() -> None:
    lrp.Composite([(lrp.Dense, 0.25)])  # type: ignore[list-item]
    lrp.Composite([(3, lrp.Epsilon())])  # type: ignore[list-item]
    lrp.EpsilonPlus().override(lrp.Epsilon())  # type: ignore[arg-type]
    lrp.relevance("apply", lrp.Epsilon())  # type: ignore[arg-type]
    lrp.depth("a", "b")  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
