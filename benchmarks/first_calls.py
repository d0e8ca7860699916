"""What the first call costs beside that of the gradient: `python -m benchmarks.first_calls`.

    python -m benchmarks.first_calls --only "MLP,ResNet*" --rounds 3

Tracing, lowering and compiling are timed in turn with those of the gradient, in one process, every
cache of JAX cleared before each. Beside the times stand counts that do not depend on the machine:
calls of Python functions while tracing and lowering, and operations in the lowered program.
"""

from __future__ import annotations

import argparse
import fnmatch
import gc
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

import lrp_jax as lrp

from .__main__ import use_cores
from .contestants import HIGH, LOW
from .networks import NETWORKS, Network, ViT, chain, head, linen

CONV = {
    "Epsilon": lrp.Epsilon(),
    "EpsilonPlus": lrp.EpsilonPlus(),
    "EpsilonGammaBox": lrp.EpsilonGammaBox(LOW, HIGH),
    "EpsilonAlpha2Beta1": lrp.EpsilonAlpha2Beta1(),
}
DENSE = {name: CONV[name] for name in ("Epsilon", "EpsilonPlus", "EpsilonAlpha2Beta1")}
ATTENTION = {"AttnLRP": lrp.AttnLRP(), "CPLRP": lrp.CPLRP(), "Epsilon": lrp.Epsilon()}


class Separable(nn.Module):
    """Blocks of a depthwise and a pointwise convolution, between sums."""

    window: int
    width: int = 48
    blocks: int = 8

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(self.width, (3, 3), (2, 2))(x))
        for _ in range(self.blocks):
            size = (self.window, self.window)
            y = nn.Conv(self.width, size, feature_group_count=self.width, use_bias=False)(x)
            y = nn.relu(nn.BatchNorm(use_running_average=True)(y))
            x = x + nn.relu(nn.Conv(self.width, (1, 1))(y))
        return nn.Dense(10)(x.mean((1, 2)))


_PLAIN = [layer for width in (32, 32, 64, 64, 128) for layer in (("conv", width), ("relu",))]

CASES: dict[str, tuple[Network, dict[str, Any]]] = {
    "MLP": (NETWORKS["MLP"], DENSE),
    "CNN": (chain((48, 48, 3), [*_PLAIN, ("pool",), *head(64, 10)], "conv"), CONV),
    "VGG16": (NETWORKS["VGG16"], CONV),
    "ResNet-18": (NETWORKS["ResNet-18"], CONV),
    "ViT, 6 layers": (linen(ViT(192, 6, 3), (64, 64, 3), "attention"), ATTENTION),
    "Llama, 6 layers": (NETWORKS["Llama, 6 layers"], ATTENTION),
    "separable 3 x 3": (linen(Separable(3), (32, 32, 3), "conv"), CONV),
    "separable 7 x 7": (linen(Separable(7), (32, 32, 3), "conv"), CONV),
    "EfficientNet-Lite0": (NETWORKS["EfficientNet-Lite0"], CONV),
}


@dataclass
class First:
    """The first calls of one function.

    Attributes:
        make: makes the function anew.
        seconds: of tracing, lowering and compiling, one list each.
        counts: Python calls of tracing and of lowering, equations, operations, bytes.
    """

    make: Callable[[], Callable[..., Any]]
    seconds: dict[str, list[float]] = field(
        default_factory=lambda: {"trace": [], "lower": [], "compile": []}
    )
    counts: dict[str, float] = field(default_factory=dict)

    def call(self, operands: tuple[Any, ...], compiles: bool) -> None:
        """One first call."""
        forget()
        function, marks = self.make(), [time.process_time()]
        traced = jax.jit(function).trace(*operands)
        marks.append(time.process_time())
        lowered = traced.lower()
        marks.append(time.process_time())
        if compiles:
            compiled = lowered.compile()
            marks.append(time.process_time())
            memory = compiled.memory_analysis()
            self.counts["temporary bytes"] = memory.temp_size_in_bytes
            self.counts["flops"] = compiled.cost_analysis()["flops"]
        for name, start, end in zip(self.seconds, marks, marks[1:], strict=False):
            self.seconds[name].append(end - start)

    def count(self, operands: tuple[Any, ...]) -> None:
        """What does not depend on the machine."""
        forget()
        function = self.make()
        traced, calls = counted(lambda: jax.jit(function).trace(*operands))
        self.counts["calls to trace"] = calls
        lowered, calls = counted(traced.lower)
        self.counts["calls to lower"] = calls
        self.counts["equations"] = sum(len(j.eqns) for j in jaxprs(traced.jaxpr))
        text = lowered.as_text()
        self.counts["operations"] = len(re.findall(r"^\s+(%\S+ = )", text, re.MULTILINE))

    def median(self, *names: str) -> float:
        return sum(statistics.median(self.seconds[name]) for name in names)


def forget() -> None:
    """Empty every cache of JAX."""
    jax.clear_caches()
    gc.collect()


def counted(function: Callable[[], Any]) -> tuple[Any, int]:
    """A result, and how many Python functions were called for it."""
    calls = 0

    def see(frame: Any, event: str, arg: Any) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(see)
    try:
        result = function()
    finally:
        sys.setprofile(None)
    return result, calls


def jaxprs(jaxpr: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """A jaxpr and the different ones that it calls."""
    seen = set() if seen is None else seen
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    if id(jaxpr) in seen:
        return
    seen.add(id(jaxpr))
    yield jaxpr
    for inner in _inside(jaxpr):
        yield from jaxprs(inner, seen)


def _inside(jaxpr: Any) -> Iterator[Any]:
    for eqn in jaxpr.eqns:
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(value):
                yield value


def _is_jaxpr(value: Any) -> bool:
    return hasattr(getattr(value, "jaxpr", value), "eqns")


def functions(network: Network, composites: dict[str, Any]) -> dict[str, First]:
    """The gradient and every explanation, to be made anew for each call."""

    def gradient() -> Callable[..., Any]:
        def chosen(params: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
            logits = network.apply(params, x)
            return jnp.take_along_axis(logits, labels[:, None], -1).sum()

        return jax.grad(chosen, argnums=1)

    def explanation(composite: Any) -> Callable[[], Callable[..., Any]]:
        def make() -> Callable[..., Any]:
            explain = lrp.relevance(lambda params, x: network.apply(params, x), composite)
            return lambda params, x, labels: explain(params, x, target=labels)

        return make

    found = {name: First(explanation(composite)) for name, composite in composites.items()}
    return {"jax.grad": First(gradient), **found}


def measure(name: str, rounds: int, compiles: bool) -> dict[str, First]:
    network, composites = CASES[name]
    params = jax.eval_shape(network.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((1, *network.shape), jnp.float32)
    operands = (params, x, jax.ShapeDtypeStruct((1,), jnp.int32))
    found = functions(network, composites)
    for first in found.values():
        first.call(operands, False)  # imports, and what is set up once in a process
        first.seconds = First(first.make).seconds
    for first in found.values():
        first.count(operands)
    for _ in range(rounds):
        for first in found.values():
            first.call(operands, compiles)
    return found


COUNTS = ("calls to trace", "calls to lower", "equations", "operations", "flops", "temporary bytes")


def lines(name: str, found: dict[str, First], compiles: bool) -> list[str]:
    """A row of a table for each function: everything as a ratio to the gradient."""
    floor = found["jax.grad"]
    steps = ("trace", "lower", "compile") if compiles else ("trace", "lower")
    rows = []
    for label, first in found.items():
        ratios = [first.median(step) / floor.median(step) for step in steps]
        ratios.append(first.median(*steps) / floor.median(*steps))
        ratios += [first.counts[c] / floor.counts[c] for c in COUNTS if c in first.counts]
        cells = [f"{name}, {label}", *(f"{ratio:.2f}" for ratio in ratios)]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="*", metavar="GLOB,...")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="processor cores; 0: all")
    parser.add_argument("--without-compiling", action="store_true")
    options = parser.parse_args()
    use_cores(options.threads)
    compiles = not options.without_compiling
    steps = ["trace", "lower", *(["compile"] if compiles else []), "all"]
    counts = COUNTS if compiles else COUNTS[:-2]
    print("| in gradients | " + " | ".join([*steps, *counts]) + " |")
    print("|---" * (1 + len(steps) + len(counts)) + "|")
    for name in CASES:
        if any(fnmatch.fnmatch(name, glob) for glob in options.only.split(",")):
            found = measure(name, options.rounds, compiles)
            print("\n".join(lines(name, found, compiles)), flush=True)


if __name__ == "__main__":
    main()
