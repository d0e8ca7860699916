"""Arrays, checkpoints and images from files, which are data: nothing in them is run.

No pickle is read, declared sizes are checked against the file before memory is taken, and files are
written into the folder asked for and nowhere else.
"""

import importlib
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

IMAGES = (".png", ".jpg", ".jpeg")
PIXELS = 100_000_000
"""The largest image that is decoded."""


class InputError(ValueError):
    """Something the user gave that cannot be used: shown without a traceback."""


def tree(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries from arrays named by their path.

    Args:
        arrays: `{"a/b": array}`, or with dots where no name has a slash.

    Returns:
        The same arrays as a tree.

    Raises:
        InputError: where one name is the beginning of another.

    Example:
        >>> tree({"layer.kernel": 1, "layer.bias": 2})
        {'layer': {'kernel': 1, 'bias': 2}}
    """
    separator = "/" if any("/" in name for name in arrays) else "."
    nested: dict[str, Any] = {}
    for name, value in arrays.items():
        *path, last = name.split(separator)
        place = nested
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise InputError(f"the checkpoint has {name!r} inside of another array.")
        if last in place:
            raise InputError(f"the checkpoint has {name!r} twice, or arrays inside of it.")
        place[last] = value
    return nested


def inputs(options: Any) -> tuple[list[str], np.ndarray]:
    """A name for each example, and the batch."""
    files: list[Path] = options.inputs
    if all(file.suffix.lower() in IMAGES for file in files):
        pictures = [_image(file, options) for file in files]
        if len({picture.shape for picture in pictures}) > 1:
            raise InputError("the images differ in size or channels: give --size HEIGHT WIDTH.")
        names = [f"{i:05d}-{_plain(file.stem)}" for i, file in enumerate(files)]
        return names, np.stack(pictures)
    if len(files) > 1:
        raise InputError("inputs are either images or one .npy or .npz file.")
    arrays = read_arrays(files[0], options.limit)
    if len(arrays) > 1 and "x" not in arrays:
        raise InputError(f"{files[0]} has the arrays {', '.join(arrays)}, and none is called x.")
    x = np.asarray(arrays["x"] if "x" in arrays else next(iter(arrays.values())))
    if not x.ndim or not len(x) or not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(
            f"{files[0]} holds {x.dtype} of shape {x.shape}; the input is a floating-point array "
            "with the batch in front."
        )
    return [f"{i:05d}" for i in range(len(x))], x


def _plain(stem: str) -> str:
    return re.sub(r"[^\w-]", "_", stem, flags=re.ASCII)[:80]


def _image(file: Path, options: Any) -> np.ndarray:
    pillow = optional("PIL.Image", "pillow", "reading images")
    try:
        with pillow.open(file, formats=("PNG", "JPEG")) as picture:
            if math.prod(picture.size) > PIXELS:
                raise InputError(f"{file} has {math.prod(picture.size)} pixels: too many to read.")
            picture = picture.convert("L" if picture.mode in ("1", "L") else "RGB")
            if options.size:
                picture = picture.resize(options.size[::-1], pillow.Resampling.BILINEAR)
            pixels = np.asarray(picture, np.float32) / 255
    except (OSError, pillow.DecompressionBombError) as error:
        raise InputError(f"{file} cannot be read as an image: {error}") from error
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    for name, values in (("--mean", options.mean), ("--std", options.std)):
        if len(values) not in (1, pixels.shape[-1]):
            raise InputError(f"{name} has {len(values)} numbers for {pixels.shape[-1]} channels.")
    scaled: np.ndarray = (pixels - np.float32(options.mean)) / np.float32(options.std)
    return scaled


def read_arrays(file: Path, limit: float = 4.0) -> dict[str, Any]:
    """The arrays of a file by name, without running anything that is in it.

    Args:
        file: a .npy, .npz or .safetensors file.
        limit: how many GiB it may unpack to.

    Returns:
        `{name: array}`; the one array of a .npy file is called "".

    Raises:
        InputError: for another kind of file, one that is broken, holds Python objects or is larger
            than the limit.
    """
    readers = {".npy": _read_npy, ".npz": _read_npz, ".safetensors": _read_safetensors}
    if file.suffix not in readers:
        raise InputError(f"{file} is none of {', '.join([*readers, *IMAGES])}.")
    try:
        return readers[file.suffix](file, int(limit * 2**30))
    except (OSError, EOFError, zipfile.BadZipFile, ValueError) as error:
        raise InputError(f"{file}: {error}") from error


def _read_npy(file: Path, limit: int) -> dict[str, Any]:
    size = file.stat().st_size
    _check_size(size, limit)
    with open(file, "rb") as stream:
        _check_header(stream, size)
    return {"": np.load(file, allow_pickle=False)}


def _read_npz(file: Path, limit: int) -> dict[str, Any]:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        _check_size(sum(member.file_size for member in members), limit)
        for member in members:
            with archive.open(member) as stream:
                _check_header(stream, member.file_size)
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def _read_safetensors(file: Path, limit: int) -> dict[str, Any]:
    flax = optional("safetensors.flax", "safetensors", "reading .safetensors files")
    _check_size(file.stat().st_size, limit)
    try:
        arrays: dict[str, Any] = flax.load_file(file)
    except importlib.import_module("safetensors").SafetensorError as error:
        raise ValueError(str(error)) from error
    return arrays


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise ValueError(f"{size / 2**30:.3g} GiB is more than --limit {limit / 2**30:g}.")


def _check_header(stream: Any, size: int) -> None:
    """Refuse an array whose header promises another size than the file has."""
    headers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(stream)
    if version not in headers:
        raise ValueError(f"arrays of format {version} are not read.")
    shape, _, dtype = headers[version](stream)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not read.")
    promised, there = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if promised != there:
        raise ValueError(f"its header promises {promised} bytes and {there} are there.")


def optional(module: str, package: str, purpose: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{package} is needed for {purpose}: pip install {package}") from error


class Folder:
    """A folder that files are written into, and never past it."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path.resolve()

    def file(self, name: str) -> Path:
        found = (self.path / name).resolve()
        if found.parent != self.path:
            raise InputError(f"{name} would be written outside of {self.path}, at {found}.")
        return found
