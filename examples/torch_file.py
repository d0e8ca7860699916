"""Reads the arrays of an old-style PyTorch `.pth` file without PyTorch.

Such a file is a pickle that describes tensors, followed by their raw numbers. A pickle can name
any function of any installed package and have it called, so this reader resolves exactly the
names that a dictionary of tensors needs and refuses every other.
"""

from __future__ import annotations

import collections
import os
import pickle
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    size: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an old-style `.pth` file by name.

    Raises:
        ValueError: where the file is anything but a dictionary of float32 and int64 tensors.
    """
    with path.open("rb") as stream:
        try:
            return _read(stream)
        except (
            pickle.UnpicklingError,
            EOFError,
            struct.error,
            AttributeError,
            TypeError,
            ValueError,
        ) as error:
            raise ValueError(f"{path}: not a plain dictionary of tensors ({error})") from error


def _read(stream: BinaryIO) -> dict[str, np.ndarray]:
    magic, protocol = _Unpickler(stream).load(), _Unpickler(stream).load()
    if magic != _MAGIC or protocol != _PROTOCOL:
        raise ValueError("it does not start as an old-style .pth file does")
    system, tensors = _Unpickler(stream).load(), _Unpickler(stream).load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("its numbers are not stored with the lowest byte first")
    if not isinstance(tensors, dict) or not all(isinstance(t, _Tensor) for t in tensors.values()):
        raise ValueError("its content is not a dictionary of tensors")
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    numbers = {key: _numbers(stream, storages[key]) for key in _storage_keys(stream, storages)}
    return {name: _array(tensor, numbers[tensor.storage.key]) for name, tensor in tensors.items()}


def _storage_keys(stream: BinaryIO, known: dict[str, _Storage]) -> list[str]:
    keys = _Unpickler(stream).load()
    if not isinstance(keys, list) or sorted(keys) != sorted(known):
        raise ValueError("its list of storages does not fit its tensors")
    return keys


def _numbers(stream: BinaryIO, storage: _Storage) -> np.ndarray:
    (size,) = struct.unpack("<q", stream.read(8))
    here = stream.tell()
    there = stream.seek(0, os.SEEK_END) - here
    stream.seek(here)
    # Before anything is read: memory is taken for as much as is asked for.
    if size != storage.size or there < storage.size * storage.dtype.itemsize:
        raise ValueError(f"storage {storage.key} should hold {storage.size} numbers")
    return np.frombuffer(stream.read(storage.size * storage.dtype.itemsize), storage.dtype)


def _array(tensor: _Tensor, numbers: np.ndarray) -> np.ndarray:
    # Checked here and not on creation: a pickle may change an object after it was made.
    shape, strides = tensor.shape, tensor.strides
    if len(shape) != len(strides) or min((tensor.offset, *shape, *strides), default=0) < 0:
        raise ValueError(f"a tensor of shape {shape} with strides {strides}")
    last = tensor.offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if 0 in shape or last >= numbers.size:
        raise ValueError(f"a tensor of shape {shape} reaches beyond its storage")
    steps = [step * numbers.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], shape, steps, writeable=False)


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


_ALLOWED: Mapping[tuple[str, str], Callable[..., Any] | str] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch", "FloatStorage"): "<f4",
    ("torch", "LongStorage"): "<i8",
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module_name}.{global_name}, which no dictionary of tensors needs"
            ) from None

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", str(dtype), str(key), str(), int(size), None) if size >= 0:
                return _Storage(key, np.dtype(dtype), size)
        raise pickle.UnpicklingError(f"a reference that is not a storage: {pid!r}")
