"""This library and the gradient on each network; other systems are in `torch_systems.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

import lrp_jax as lrp

from .measure import Contestant, of_jax
from .networks import Network

FLOOR = "jax.grad"
LOW, HIGH = -3.0, 3.0

COMPOSITES: dict[str, dict[str, Any]] = {
    "plain": {"LRP-0": lrp.Zero(), "Epsilon": lrp.Epsilon()},
    "conv": {
        "LRP-0": lrp.Zero(),
        "Epsilon": lrp.Epsilon(),
        "EpsilonPlus": lrp.EpsilonPlus(),
        "EpsilonGammaBox": lrp.EpsilonGammaBox(LOW, HIGH),
        "EpsilonPlusFlat": lrp.EpsilonPlusFlat(),
        "EpsilonAlpha2Beta1": lrp.EpsilonAlpha2Beta1(),
    },
    "attention": {"AttnLRP": lrp.AttnLRP(), "CPLRP": lrp.CPLRP()},
}
SEVERAL_TARGETS = {"MNIST CNN": 10, "VGG16": 4}


def batches_of(network: Network, size: int) -> list[tuple[jax.Array, jax.Array]]:
    """Three batches of inputs and labels."""
    found = []
    for number in range(3):
        x = jax.random.normal(jax.random.key(number), (size, *network.shape))
        found.append((x.clip(LOW, HIGH), jnp.arange(size) % 10))
    return found


def contestants(name: str, network: Network, size: int, params: Any) -> Iterator[Contestant]:
    """The gradient, every composite that fits, and one of them with several targets."""
    batches = batches_of(network, size)

    def chosen(params: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
        logits = network.apply(params, x)
        return jnp.take_along_axis(logits, labels[:, None], -1).sum()

    yield of_jax(FLOOR, jax.grad(chosen, argnums=1), params, batches, "")

    def gradient_x_input(params: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
        return x * jax.grad(chosen, argnums=1)(params, x, labels)

    # A network of rectifiers is linear around its input: LRP-0 is gradient x input there.
    rectified = bool(network.layers)
    if rectified:
        yield of_jax("jax.grad x input", gradient_x_input, params, batches, "LRP-0")
    for label, composite in COMPOSITES[network.family].items():
        explain = lrp.relevance(network.apply, composite)

        def relevance(params: Any, x: jax.Array, labels: jax.Array, explain: Any = explain) -> Any:
            return explain(params, x, target=labels)

        compared = label if rectified else ""
        yield of_jax(label, relevance, params, batches, compared)
    if name in SEVERAL_TARGETS:
        yield _several_targets(network, SEVERAL_TARGETS[name], params, batches)


def _several_targets(network: Network, count: int, params: Any, batches: Any) -> Contestant:
    """Epsilon for several classes: one forward pass, one set of denominators."""
    explained = lrp.lrp_transform(network.apply, lrp.Epsilon())

    def relevances(params: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
        logits, pullback = jax.vjp(lambda x: explained(params, x), x)
        starts = jax.nn.one_hot(labels + jnp.arange(count)[:, None], logits.shape[-1]) * logits
        return jax.vmap(pullback)(starts)[0]

    return of_jax(f"Epsilon, {count} targets", relevances, params, batches, "")
