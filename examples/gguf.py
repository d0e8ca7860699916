"""Reads GGUF files, in which quantised language models are published, with NumPy alone.

Such a file holds names with values (the sizes of the model, its vocabulary) and tensors. Numbers of
a quantised tensor lie in blocks of 32 with a scale, and for some types an offset, of their own.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_BLOCK = 32
_TEXT, _LIST = 8, 9
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}


@dataclass(frozen=True)
class Gguf:
    """What a file holds.

    Attributes:
        values: numbers, texts and lists by name.
        tensors: float32 arrays by name; the last axis is the one that the file names first.
    """

    values: dict[str, Any]
    tensors: dict[str, np.ndarray]


def read_gguf(path: Path) -> Gguf:
    """Return the values and the tensors of a GGUF file.

    Raises:
        ValueError: where the file is cut or no GGUF file, and for types of numbers other than F32,
            Q4_1 and Q8_0.
    """
    reader = _Reader(path.read_bytes())
    try:
        return _read(reader)
    except (struct.error, UnicodeDecodeError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: not a GGUF file that can be read here ({error})") from error


def _read(reader: _Reader) -> Gguf:
    if reader.take(4) != b"GGUF" or reader.number("I") not in (2, 3):
        raise ValueError("it does not start as version 2 or 3 does")
    tensors, values = reader.number("Q"), reader.number("Q")
    found = {reader.text(): reader.value(reader.number("I")) for _ in range(values)}
    places = [reader.place() for _ in range(tensors)]
    alignment = found.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise ValueError(f"alignment {alignment!r}")
    start = -(-reader.position // alignment) * alignment
    return Gguf(found, {name: reader.tensor(start + at, *how) for name, at, *how in places})


class _Reader:
    def __init__(self, content: bytes) -> None:
        self.content, self.position = content, 0

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self.content):
            raise ValueError(f"it ends at byte {len(self.content)}, and {end} are promised")
        taken = self.content[self.position : end]
        self.position = end
        return taken

    def number(self, form: str) -> Any:
        (found,) = struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))
        return found

    def text(self) -> str:
        return self.take(self.number("Q")).decode()

    def value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind == _LIST:
            kind, count = self.number("I"), self.number("Q")
            if kind == _LIST:
                raise ValueError("a list of lists")
            return [self.value(kind) for _ in range(count)]
        if kind not in _SCALARS:
            raise ValueError(f"a value of the unknown type {kind}")
        return self.number(_SCALARS[kind])

    def place(self) -> tuple[str, int, int, tuple[int, ...]]:
        """Name, place, type and shape of a tensor."""
        name = self.text()
        shape = tuple(self.number("Q") for _ in range(self.number("I")))
        kind, at = self.number("I"), self.number("Q")
        return name, at, kind, shape[::-1]

    def tensor(self, at: int, kind: int, shape: tuple[int, ...]) -> np.ndarray:
        if kind not in _NUMBERS:
            raise ValueError(f"numbers of the type {kind}; F32, Q4_1 and Q8_0 can be read")
        size, dtype, decode = _NUMBERS[kind]
        count = math.prod(shape)
        if count % size or (size > 1 and shape[-1] % size):
            raise ValueError(f"shape {shape} in blocks of {size}")
        self.position = at
        blocks = np.frombuffer(self.take(count // size * dtype.itemsize), dtype)
        return decode(blocks).reshape(shape)


def _plain(blocks: np.ndarray) -> np.ndarray:
    return blocks.astype(np.float32)


def _q4_1(blocks: np.ndarray) -> np.ndarray:
    """Sixteen bytes hold the first half of a block in their lower bits, the second in the upper."""
    levels = np.concatenate([blocks["levels"] & 15, blocks["levels"] >> 4], -1)
    return levels * blocks["scale"].astype(np.float32) + blocks["offset"].astype(np.float32)


def _q8_0(blocks: np.ndarray) -> np.ndarray:
    return blocks["levels"] * blocks["scale"].astype(np.float32)


# By the number of a type: how many numbers a block has, how it is stored, how it is read.
_NUMBERS: dict[int, tuple[int, np.dtype, Callable[[np.ndarray], np.ndarray]]] = {
    0: (1, np.dtype("<f4"), _plain),
    3: (_BLOCK, np.dtype([("scale", "<f2", 1), ("offset", "<f2", 1), ("levels", "u1", 16)]), _q4_1),
    8: (_BLOCK, np.dtype([("scale", "<f2", 1), ("levels", "i1", _BLOCK)]), _q8_0),
}
