"""What makes a language model's answer: composites and baselines on prompts of known truth.

    python -m benchmarks.language                     about half an hour on two cores
    python -m benchmarks.language --every 6           a look: every sixth prompt

SmolLM2-135M-Instruct, see `examples/smollm2.py` for what it takes to install. Only prompts that the
model goes on with rightly count. Prints tables of Markdown with bootstrap intervals of 95 %.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import jax

import lrp_jax as lrp
from lrp_jax import baselines, composites
from lrp_jax.evaluation import language

TASKS = {
    "agreement": language.agreement(),
    "indirect objects": language.indirect_objects(),
    "passages": language.passages(),
    "needles": language.needles(sentences=12),
}
SHORT = 40  # tokens: one shape for all tasks but the needles


def apply(model: Any, ids: jax.Array) -> jax.Array:
    """Logits of a batch."""
    return jax.vmap(model)(ids)


def methods() -> dict[str, Any]:
    """What is compared, by the names of the table."""
    relevance = lambda composite: jax.jit(lrp.relevance(apply, composite))  # noqa: E731
    return {
        "AttnLRP": relevance(lrp.AttnLRP()),
        "CPLRP": relevance(lrp.CPLRP()),
        "RelP": relevance(composites.RelP()),
        "gradient x input": jax.jit(baselines.input_x_gradient(apply)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Formatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--every", type=int, default=1, help="of how many prompts to take one")
    parser.add_argument("--flipping", action="store_true", help="measure token flipping as well")
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
    import smollm2

    chat = smollm2.load()
    tokenize = lambda text: chat.tokenizer.encode(text).ids  # noqa: E731
    fill = tokenize(".")[0] if options.flipping else None
    asked = methods()
    for task in options.tasks:
        width = SHORT if task != "needles" else 0
        prompts = TASKS[task][:: options.every]
        # The mark that begins a text: attention rests on it where there is nothing to attend to.
        encoded = language.encode(prompts, tokenize, start=[0], width=width)
        found = language.compare(apply, asked, batch=6, fill=fill)(chat.model, encoded)
        print(markdown(task, found), flush=True)


def markdown(task: str, found: language.Comparison) -> str:
    """A table with a row for each method."""
    measures = list(next(iter(found.values.values())))
    lines = [["method", *measures], ["---"] * (1 + len(measures)), *map(list, found.rows())]
    count = len(next(iter(found.values.values()))["above"])
    head = f"### {task}: {count} prompts, the model is right on {found.accuracy:.0%}\n"
    return "\n".join([head, *(f"| {' | '.join(line)} |" for line in lines), ""])


class _Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    pass


if __name__ == "__main__":
    main()
