"""Prompts as ids of a tokenizer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..._tables import Shown, Table, counted
from .tasks import Prompt

Tokenize = Callable[[str], Sequence[int]]


@dataclass(frozen=True, repr=False)
class Encoded(Shown):
    """Prompts as ids, filled up behind to one length.

    Attributes:
        prompts: the prompts.
        ids: (prompts, tokens).
        lengths: how many tokens each prompt has, (prompts,).
        right, wrong: the id that goes on with the right and with the wrong text, (prompts,).
        spans: for each prompt by name a mask of its tokens, (tokens,).
        shorter: for each prompt, by the name of what is left out, its ids and their number.
    """

    prompts: tuple[Prompt, ...]
    ids: np.ndarray
    lengths: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    spans: tuple[dict[str, np.ndarray], ...]
    shorter: tuple[dict[str, tuple[np.ndarray, int]], ...]

    def _table(self) -> Table:
        rows = tuple(
            (p.text, str(length), repr(p.right), repr(p.wrong))
            for p, length in zip(self.prompts, self.lengths, strict=True)
        )
        return Table(("prompt", "tokens", "right", "wrong"), rows, frozenset({1}), keep=0)

    def _title(self) -> str:
        return f"{counted(len(self.prompts), 'prompt')} as ids"


def encode(
    prompts: Sequence[Prompt],
    tokenize: Tokenize,
    *,
    start: Sequence[int] = (),
    pad: int = 0,
    width: int = 0,
) -> Encoded:
    """Prompts as ids of a tokenizer.

    A token that lies on the border of a span belongs to what it begins in. Where right and wrong
    texts begin with the same tokens, these are put behind the prompt.

    Args:
        prompts: what the functions of `lrp_jax.evaluation.language` make, or others.
        tokenize: from a text to its ids, without marks of begin and end. What comes later in a text
            must not change the ids of what is before, up to a token on the border.
        start: ids to put before each prompt.
        pad: the id that fills up shorter prompts. It stands behind, where a causal model does not
            see it.
        width: how many tokens there are at least, so that several tasks have one shape.

    Raises:
        TypeError: for a tokenizer that returns no ids.
        ValueError: where the right and the wrong text have the same ids, and for no prompts.

    Example:
        >>> from lrp_jax.evaluation import language
        >>> letters = lambda text: [ord(letter) for letter in text]
        >>> encoded = language.encode(language.agreement(), letters)
        >>> encoded.ids.shape, chr(encoded.right[0]), encoded.spans[0]["subject"].nonzero()[0]
        ((72, 31), 'i', array([3, 4, 5, 6, 7, 8, 9]))
    """
    if not prompts:
        raise ValueError("there are no prompts.")
    tokenize = partial(_ids, tokenize)
    texts = [list(tokenize(p.text)) for p in prompts]
    ends = [_continuations(p, ids, tokenize) for p, ids in zip(prompts, texts, strict=True)]
    whole = [[*start, *ids, *end[0]] for ids, end in zip(texts, ends, strict=True)]
    shorter = [
        {name: [*start, *tokenize(p.without(name)), *end[0]] for name in p.removable}
        for p, end in zip(prompts, ends, strict=True)
    ]
    width = max(width, *map(len, whole))
    spans = []
    for prompt in prompts:
        places = {
            name: [len(start) + _tokens_before(prompt.text[:n], tokenize) for n in span]
            for name, span in prompt.spans.items()
        }
        order = np.arange(width)
        spans.append({n: (order >= a) & (order < b) for n, (a, b) in places.items()})

    def filled(ids: Sequence[int]) -> np.ndarray:
        return np.array([*ids, *[pad] * (width - len(ids))], np.int32)

    return Encoded(
        tuple(prompts),
        np.stack(list(map(filled, whole))),
        np.array(list(map(len, whole))),
        np.array([end[1] for end in ends]),
        np.array([end[2] for end in ends]),
        tuple(spans),
        tuple({n: (filled(ids), len(ids)) for n, ids in each.items()} for each in shorter),
    )


def _ids(tokenize: Tokenize, text: str) -> list[int]:
    found: list[Any] = list(tokenize(text))
    if not all(isinstance(i, int | np.integer) for i in found):
        raise TypeError(
            f"tokenize gives the ids of a text, a list of ints; of {text[:20]!r} it gives "
            f"{found[:3]}. Of a tokenizer of Hugging Face that is "
            "lambda text: tokenizer(text, add_special_tokens=False)['input_ids']."
        )
    return found


def _tokens_before(text: str, tokenize: Tokenize) -> int:
    return len(tokenize(text)) if text else 0


def _continuations(
    prompt: Prompt, ids: Sequence[int], tokenize: Tokenize
) -> tuple[list[int], int, int]:
    """What both continuations begin with, and the ids that tell them apart."""
    right, wrong = (list(tokenize(prompt.text + t)) for t in (prompt.right, prompt.wrong))
    count = len(ids)
    if right[:count] != list(ids) or wrong[:count] != list(ids):
        raise ValueError(
            f"the tokenizer changes the ids of {prompt.text!r} when {prompt.right!r} follows."
        )
    common: list[Any] = []
    for one, other in zip(right[count:], wrong[count:], strict=False):
        if one != other:
            return common, one, other
        common.append(one)
    raise ValueError(f"{prompt.right!r} and {prompt.wrong!r} have the same ids {common}.")
