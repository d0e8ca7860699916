"""What the queries cost beside full explanations: `python -m benchmarks.queries`.

    python -m benchmarks.queries --only concepts --threads 1

Prints three tables: concepts of one layer, from one forward pass, against a loop of explanations;
the two modes of the relevance matrix; and a grid of rules' numbers.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

import lrp_jax as lrp

from .__main__ import use_cores
from .measure import of_jax, race, spread
from .networks import NETWORKS, Network, chain, head

COMPOSITE = lrp.EpsilonPlus()
CONCEPTS = 512
# Network, pixels, the first layer of 512 channels.
PLACES = (
    ("ResNet-18", 112, "Conv_15"),
    ("ResNet-18", 224, "Conv_15"),
    ("VGG16", 64, "7"),
)


def _sized(name: str, pixels: int) -> tuple[Network, Any, jax.Array]:
    network = NETWORKS[name]
    shape = (pixels, pixels, 3)
    if network.layers:
        network = chain(shape, network.layers, network.family)
    x = jax.random.normal(jax.random.key(1), (1, *shape))
    return network, network.init(jax.random.key(0)), x


def concepts(chunks: tuple[int, ...], seconds: float) -> None:
    """Milliseconds for a full explanation, and for each of 512 concepts."""
    print(f"| network, pixels, layer | explanation ms | {CONCEPTS} concepts by | each ms | ratio |")
    print("|---|---|---|---|---|")
    for name, pixels, layer in PLACES:
        network, params, x = _sized(name, pixels)
        full = of_jax("full", lrp.relevance(network.apply, COMPOSITE), params, [(x,)], "")
        race([full], seconds, fewest=5, most=50)
        one = spread(full.cpu_seconds)[0]
        for chunk in chunks:
            asked = lrp.concept_relevance(
                network.apply, COMPOSITE, layer, range(CONCEPTS), chunk=chunk
            )
            compiled = jax.jit(asked).lower(params, x).compile()
            start = time.process_time()
            shape = jax.block_until_ready(compiled(params, x)).shape
            each = (time.process_time() - start) / shape[0]
            print(
                f"| {name}, {pixels}, {layer} | {1e3 * one:.0f} | {chunk} | {1e3 * each:.1f} "
                f"| {each / one:.3f} |",
                flush=True,
            )


def _dense(*widths: int) -> Network:
    return chain(widths[:1], head(*widths[1:])[1:], "plain")


def _convolutions(pixels: int, outputs: int) -> Network:
    layers = [("conv", 16), ("relu",), ("conv", 32), ("relu",), *head(64, outputs)]
    return chain((pixels, pixels, 1), layers, "conv")


MATRICES: dict[str, Network] = {
    "dense 16, 512, 512, 1000": _dense(16, 512, 512, 1000),
    "dense 784, 512, 512, 10": _dense(784, 512, 512, 10),
    "dense 256, 512, 512, 256": _dense(256, 512, 512, 256),
    "convolutions 8 x 8, 1000 outputs": _convolutions(8, 1000),
    "convolutions 28 x 28, 10 outputs": _convolutions(28, 10),
}


def matrices(seconds: float) -> None:
    """Milliseconds for the whole matrix in both modes."""
    print("| network | inputs | outputs | reverse ms | forward ms | reverse / forward |")
    print("|---|---|---|---|---|---|")
    for name, network in MATRICES.items():
        params = network.init(jax.random.key(0))
        x = jax.random.normal(jax.random.key(1), (1, *network.shape))

        def matrix(mode: Any, network: Network = network) -> Callable[..., jax.Array]:
            return lrp.relevance_matrix(network.apply, COMPOSITE, mode=mode)

        racing = [
            of_jax(mode, matrix(mode), params, [(x,)], "same") for mode in ("reverse", "forward")
        ]
        race(racing, seconds, fewest=5, most=200)
        reverse, forward = (1e3 * spread(c.cpu_seconds)[0] for c in racing)
        outputs = jax.eval_shape(network.apply, params, x).size
        print(
            f"| {name} | {x.size} | {outputs} | {reverse:.2f} | {forward:.2f} "
            f"| {reverse / forward:.2f} |",
            flush=True,
        )


def grids(seconds: float) -> None:
    """What one point of a grid of gamma and epsilon takes, in explanations."""
    gammas, epsilons = jnp.meshgrid(
        jnp.array([0.05, 0.1, 0.25, 0.5]), jnp.array([1e-3, 0.01, 0.1, 1])
    )
    points = jnp.stack([gammas.ravel(), epsilons.ravel()], axis=1)
    print("| network, batch | explanation ms | jax.lax.map | jax.vmap |")
    print("|---|---|---|---|")
    for batch in (1, 8):
        network = NETWORKS["MNIST CNN"]
        params = network.init(jax.random.key(0))
        x = jax.random.normal(jax.random.key(1), (batch, *network.shape))

        def at(point: jax.Array, params: Any, x: Any, network: Network = network) -> jax.Array:
            rules = lrp.Composite(
                [(lrp.Conv, lrp.Gamma(point[0])), (lrp.Linear, lrp.Epsilon(point[1]))]
            )
            return lrp.relevance(network.apply, rules)(params, x, target=0)

        def by(
            over: Callable[..., Any], at: Callable[..., jax.Array] = at
        ) -> Callable[..., jax.Array]:
            return lambda p, inputs: over(partial(at, params=p, x=inputs), points)

        racing = [
            of_jax("one", partial(at, points[5]), params, [(x,)], ""),
            of_jax("map", by(jax.lax.map), params, [(x,)], "same"),
            of_jax("vmap", by(lambda f, of: jax.vmap(f)(of)), params, [(x,)], "same"),
        ]
        race(racing, seconds, fewest=5, most=200)
        one, mapped, batched = (spread(c.cpu_seconds)[0] for c in racing)
        count = len(points)
        print(
            f"| MNIST CNN, {batch} | {1e3 * one:.1f} | {mapped / count / one:.2f} "
            f"| {batched / count / one:.2f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("concepts", "matrix", "grid"))
    parser.add_argument("--chunks", type=int, nargs="+", default=[16])
    parser.add_argument("--seconds", type=float, default=3.0, help="of rounds for each case")
    parser.add_argument("--threads", type=int, default=1, help="processor cores; 0: all")
    options = parser.parse_args()
    use_cores(options.threads)
    if options.only in (None, "concepts"):
        concepts(tuple(options.chunks), options.seconds)
    if options.only in (None, "matrix"):
        matrices(options.seconds)
    if options.only in (None, "grid"):
        grids(options.seconds)


if __name__ == "__main__":
    main()
