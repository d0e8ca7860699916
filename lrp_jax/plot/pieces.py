"""The pieces of a tokenizer as a reader wants them: without their marks, joined to words."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def clean(tokens: Sequence[str]) -> list[str]:
    """Tokens as text: the marks of tokenizers for spaces, line ends and inner pieces read.

    Args:
      tokens: pieces of byte-level BPE (`Ġthe`), of SentencePiece (`▁the`), of WordPiece (`##ing`,
        where a space goes before the pieces without a mark), or text.

    Returns:
      One string for each, which make the text together.

    >>> clean(["Hel", "lo", "Ġw", "Ã©"]), clean(["play", "##ing", "now"])
    (['Hel', 'lo', ' w', 'é'], ['play', 'ing', ' now'])
    """
    tokens = [str(token) for token in tokens]  # ids show as numbers
    if any(mark in token for token in tokens for mark in "ĠĊ"):
        return [_from_bytes(token) for token in tokens]
    if any(_continues(token) for token in tokens):
        return [
            token[2:] if _continues(token) else token if i == 0 else " " + token
            for i, token in enumerate(tokens)
        ]
    return [token.replace("▁", " ") for token in tokens]


def words(tokens: Sequence[str], relevance: Any) -> tuple[list[str], np.ndarray]:
    """Whole words, each with the sum of the relevance of its pieces.

    Args:
      tokens: as `clean`. A word begins where a piece begins with a space or a line; where none
        does, every token is a word.
      relevance: `(tokens,)`, or `(tokens, features)`: features are summed.

    Returns:
      The words, with their spaces, and their relevance.

    >>> words(["Hel", "lo", "Ġyou"], [1.0, 2.0, 5.0])
    (['Hello', ' you'], array([3., 5.]))
    """
    values = np.asarray(relevance, float)
    values = values.sum(-1) if values.ndim == 2 else values
    if values.shape != (len(tokens),):
        raise ValueError(f"{len(tokens)} tokens need as many relevances, got {values.shape}")
    pieces = clean(tokens)
    spaced = any(piece[:1].isspace() for piece in pieces[1:])
    starts = [i for i, p in enumerate(pieces) if i == 0 or not spaced or p[:1].isspace()]
    ends = [*starts[1:], len(pieces)]
    joined = ["".join(pieces[a:b]) for a, b in zip(starts, ends, strict=True)]
    return joined, np.add.reduceat(values, starts) if starts else values


def _continues(token: str) -> bool:
    return len(token) > 2 and token.startswith("##") and token[2] not in "# "


def _from_bytes(token: str) -> str:
    """Text of a piece of byte-level BPE, whose letters stand for bytes."""
    if not all(letter in _BYTES for letter in token):
        return token  # a special token, such as one for the end of the text
    return bytes(_BYTES[letter] for letter in token).decode("utf-8", errors="replace")


def _letters_of_bytes() -> dict[str, int]:
    """GPT-2's letter for each byte: itself where it prints, else one from 256 on."""
    prints = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in prints]
    return {chr(b): b for b in prints} | {chr(256 + i): b for i, b in enumerate(others)}


_BYTES = _letters_of_bytes()
