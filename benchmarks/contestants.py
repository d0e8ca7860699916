"""This library and the gradient on each network; other systems are in `torch_systems.py`."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import lrp_jax as lrp

from .measure import Contestant, of_jax
from .networks import Network

Build = Callable[[], Contestant]
FLOOR, GRADIENT_X_INPUT = "jax.grad", "jax.grad x input"
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
PREPARED = ("Epsilon", "EpsilonPlus", "EpsilonGammaBox", "EpsilonAlpha2Beta1")
SEVERAL_TARGETS = {"MNIST CNN": 10, "VGG16": 4}


def batches_of(network: Network, size: int) -> list[tuple[jax.Array, jax.Array]]:
    """Three batches of inputs and labels."""
    found = []
    for number in range(3):
        x = jax.random.normal(jax.random.key(number), (size, *network.shape))
        found.append((x.clip(LOW, HIGH), jnp.arange(size) % 10))
    return found


def systems(name: str, network: Network, size: int, params: Any) -> dict[str, Build]:
    """The gradient, every composite that fits, and one of them with several targets."""
    batches = batches_of(network, size)

    def chosen(params: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
        logits = network.apply(params, x)
        return jnp.take_along_axis(logits, labels[:, None], -1).sum()

    def gradient_x_input(params: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
        return x * jax.grad(chosen, argnums=1)(params, x, labels)

    found = {FLOOR: jax.grad(chosen, argnums=1)}
    # A network of rectifiers is linear around its input: LRP-0 is gradient x input there.
    rectified = bool(network.layers)
    if rectified:
        found[GRADIENT_X_INPUT] = gradient_x_input
    for label, composite in COMPOSITES[network.family].items():
        found[label] = _explanation(network, composite)
    if name in SEVERAL_TARGETS:
        count = SEVERAL_TARGETS[name]
        found[f"Epsilon, {count} targets"] = _several_targets(network, count)
    # Other frameworks rebuild the networks of rectifiers alone.
    explains = {label: label for label in COMPOSITES[network.family]} if rectified else {}
    explains[GRADIENT_X_INPUT] = "LRP-0"
    builds: dict[str, Build] = {
        label: functools.partial(of_jax, label, function, params, batches, explains.get(label, ""))
        for label, function in found.items()
    }
    if network.family == "conv":
        for label in PREPARED:
            name = f"{label}, prepared"
            explain = found[label]
            builds[name] = functools.partial(_prepared, name, explain, params, batches, label)
    return builds


def _explanation(network: Network, composite: Any) -> Callable[..., jax.Array]:
    explain = lrp.relevance(network.apply, composite)
    return lambda params, x, labels: explain(params, x, target=labels)


def _prepared(
    name: str, explain: Callable[..., jax.Array], params: Any, batches: Any, explains: str
) -> Contestant:
    """What depends on the weights alone is computed before the first round."""
    prepared = lrp.prepare(explain, params)
    start = time.perf_counter()
    jax.block_until_ready(prepared(*batches[0]))
    facts = {"compile_seconds": time.perf_counter() - start}

    def call(number: int) -> Any:
        return jax.block_until_ready(prepared(*batches[number % len(batches)]))

    return Contestant(name, call, explains, facts)


def _several_targets(network: Network, count: int) -> Callable[..., jax.Array]:
    """Epsilon for several classes: one forward pass, one set of denominators."""
    explained = lrp.lrp_transform(network.apply, lrp.Epsilon())

    def relevances(params: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
        logits, pullback = jax.vjp(lambda x: explained(params, x), x)
        starts = jax.nn.one_hot(labels + jnp.arange(count)[:, None], logits.shape[-1]) * logits
        return jax.vmap(pullback)(starts)[0]

    return relevances
