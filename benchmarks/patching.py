"""Estimated against measured patching of a language model, and what rows of a generation cost.

    python -m benchmarks.patching                  patching: some minutes on two cores
    python -m benchmarks.patching --only rows      what many targets cost

SmolLM2-135M-Instruct, see `examples/smollm2.py` for what it takes to install. Patching: sentences
that end where one of two names is due, corrupted by exchanging who is named twice; units are the
positions of every block's residual stream, attention and feed-forward part.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

import lrp_jax as lrp
from lrp_jax import baselines, composites, evaluation, targets

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from smollm2 import Chat, load

# Who receives, who gives, and the corrupted giver: the answer is the name that is not repeated.
TEMPLATE = "When{a} and{b} went to the store,{c} gave a drink to"
NAMES = ((" Mary", " John"), (" Paul", " Anna"), (" James", " Sarah"), (" Peter", " Emma"))
SITES = {
    "residual": lrp.Merge & ~lrp.kinds.match("*/attention/Merge*") | lrp.kinds.match("*/Merge:4"),
    "attention": lrp.kinds.match("*/attention/out"),
    "feed-forward": lrp.kinds.match("*/feed_forward/down"),
}
METHODS: dict[str, Callable[..., Any]] = {
    "attribution patching": lambda f, sites: baselines.attribution_patching(f, sites, axes=(0,)),
    "RelP": lambda f, sites: lrp.patching(f, composites.RelP(), sites, axes=(0,)),
    "AttnLRP": lambda f, sites: lrp.patching(f, lrp.AttnLRP(), sites, axes=(0,)),
    "CP-LRP": lambda f, sites: lrp.patching(f, lrp.CPLRP(), sites, axes=(0,)),
}


def patching(chat: Chat, apply: Callable[..., Any], weights: Any, pairs: int) -> None:
    """Pearson's correlation of estimated with measured effects, over all sites and positions."""
    sites = SITES["residual"] | SITES["attention"] | SITES["feed-forward"]
    ask = {name: jax.jit(make(apply, sites)) for name, make in METHODS.items()}
    measure = jax.jit(lrp.activation_patching(apply, sites, axes=(0,), chunk=16))
    effects: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in [*ask, "measured"]}
    for first, second in [p for pair in NAMES for p in (pair, pair[::-1])][:pairs]:
        clean, corrupted = (
            np.array(chat.tokenizer.encode(TEMPLATE.format(a=first, b=second, c=giver)).ids)
            for giver in (second, first)
        )
        own, other = (chat.tokenizer.encode(name).ids[0] for name in (first, second))
        target = targets.token(-1, own, contrast=other)
        for name, f in {**ask, "measured": measure}.items():
            found = f(weights, clean, corrupted, target=target)
            effects[name].append({path: np.asarray(e) for path, e in found.items()})
        print(f"{first},{second}: {len(clean)} tokens", file=sys.stderr, flush=True)
    layers = lrp.plan(apply, lrp.AttnLRP())(weights, clean).layers
    print(f"| | {' | '.join(SITES)} |\n|---|{'---|' * len(SITES)}")
    for name in ask:
        cells = []
        for match in SITES.values():
            paths = [x.path for x in layers if match.matches(x, layers)]
            estimated, true = (
                np.concatenate([one[path] for one in effects[which] for path in paths])
                for which in (name, "measured")
            )
            cells.append(f"{float(evaluation.pearson(estimated[None], true[None])[0]):.3f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def rows(apply: Callable[..., Any], weights: Any) -> None:
    """Processor time of generations of 48 tokens' prompt and answer, in single explanations."""
    explain = lrp.explain_generation(apply, lrp.AttnLRP())
    single = lrp.relevance(apply, lrp.AttnLRP())
    ids = np.arange(112) * 97 % 49152
    print("| rows | tokens | explanations |\n|---|---|---|")
    for count, size in ((8, 48), (64, 112)):
        token = targets.token(size - 2, 5)
        one = seconds(lambda w, i, target=token: single(w, i, target=target), weights, ids[:size])
        prompt, answer = ids[: size - count], ids[size - count : size]
        many = seconds(lambda w, p, a: explain(w, p, a).relevance, weights, prompt, answer)
        print(f"| {count} | {size} | {many / one:.1f} |", flush=True)


def seconds(f: Callable[..., Any], *args: Any) -> float:
    """Processor seconds of a call, the least of three."""
    compiled = jax.jit(f).lower(*args).compile()
    jax.block_until_ready(compiled(*args))
    times = []
    for _ in range(3):
        begin = time.process_time()
        jax.block_until_ready(compiled(*args))
        times.append(time.process_time() - begin)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("patching", "rows"))
    parser.add_argument("--pairs", type=int, default=8, help="of prompts, at most 8")
    options = parser.parse_args()
    chat = load()
    graph, weights = nnx.split(chat.model)

    def apply(weights: Any, ids: Any) -> Any:
        return nnx.merge(graph, weights)(ids)

    if options.only != "rows":
        patching(chat, apply, weights, options.pairs)
    if options.only != "patching":
        rows(apply, weights)


if __name__ == "__main__":
    main()
