"""Arrays, checkpoints and images from files, which are data: nothing in them is run.

No pickle is read, declared sizes are checked against the file before memory is taken, and files are
written into the folder asked for and nowhere else.
"""

import contextlib
import importlib
import math
import re
import sys
import traceback
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._files import replacing, writable
from .._tables import counted

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
    for file in files:
        _require_file(file)
    if all(file.suffix.lower() in IMAGES for file in files):
        pictures = [_image(file, options) for file in files]
        if len({picture.shape for picture in pictures}) > 1:
            raise InputError("the images differ in size or channels: give --size HEIGHT WIDTH.")
        names = [f"{i:05d}-{_plain(file.stem)}" for i, file in enumerate(files)]
        return names, np.stack(pictures)
    if files[0].suffix.lower() not in (*READERS, *IMAGES):
        raise InputError(f"{files[0]} is none of {', '.join([*READERS, *IMAGES])}.")
    if len(files) > 1:
        raise InputError("inputs are either images or one .npy or .npz file.")
    arrays = read_arrays(files[0], options.limit)
    if len(arrays) > 1 and "x" not in arrays:
        raise InputError(f"{files[0]} has the arrays {', '.join(arrays)}, and none is called x.")
    x = np.asarray(arrays["x"] if "x" in arrays else next(iter(arrays.values())))
    numbers = any(jnp.issubdtype(x.dtype, kind) for kind in (jnp.floating, jnp.integer))
    if not x.ndim or not len(x) or not numbers:
        raise InputError(
            f"{files[0]} holds {x.dtype} of shape {x.shape}; the input is an array of "
            "floating-point numbers, or of token ids, with the batch in front."
        )
    bad = np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(1))
    if len(bad):
        raise InputError(
            f"{files[0]} has NaN or infinite numbers in example {bad[0]} ({len(bad)} of {len(x)})."
        )
    return [f"{i:05d}" for i in range(len(x))], x


def _require_file(file: Path) -> None:
    if file.is_dir():
        raise InputError(f"{file} is a folder: name the files in it, such as {file / '*.png'}.")
    if not file.exists():
        raise InputError(f"there is no file {file}.")


def _plain(stem: str) -> str:
    return re.sub(r"[^\w-]", "_", stem, flags=re.ASCII)[:80]


def _image(file: Path, options: Any) -> np.ndarray:
    pillow = optional("PIL.Image", "pillow", "reading images")
    try:
        with pillow.open(file, formats=("PNG", "JPEG")) as picture:
            if math.prod(picture.size) > PIXELS:
                raise InputError(f"{file} has {math.prod(picture.size)} pixels: too many to read.")
            # Stored as the camera was held; viewers turn it, and so do data sets.
            picture = optional("PIL.ImageOps", "pillow", "reading images").exif_transpose(picture)
            whole = 255
            if picture.mode.startswith("I"):  # 16 bits, which a conversion to "L" would cut off
                picture, whole = pillow.fromarray(np.asarray(picture, np.float32)), 65535
            else:
                picture = picture.convert("L" if picture.mode in ("1", "L") else "RGB")
            if options.size:
                picture = picture.resize(options.size[::-1], pillow.Resampling.BILINEAR)
            pixels = np.asarray(picture, np.float32) / whole
    except InputError:
        raise
    except Exception as error:  # of a broken file a decoder raises what it likes
        raise InputError(f"{file} cannot be read as an image: {said(error)}") from error
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    for name, values in (("--mean", options.mean), ("--std", options.std)):
        if len(values) not in (1, pixels.shape[-1]):
            channels = counted(pixels.shape[-1], "channel")
            raise InputError(f"{name} has {counted(len(values), 'number')} for {channels}.")
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
    _require_file(file)
    suffix = file.suffix.lower()
    if suffix not in READERS:
        raise InputError(
            f"{file} is none of {', '.join(READERS)}. Pickles and checkpoints of other kinds can "
            "hold code: load them in Python and write np.savez(file, **arrays)."
        )
    if not file.stat().st_size:
        raise InputError(f"{file} is empty.")
    try:
        return READERS[suffix](file, int(limit * 2**30))
    except InputError:
        raise
    except Exception as error:  # of a broken file a reader raises what it likes
        raise InputError(f"{file} cannot be read as {suffix}: {error}") from error


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


READERS = {".npy": _read_npy, ".npz": _read_npz, ".safetensors": _read_safetensors}


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


def said(error: BaseException) -> str:
    """An error on one line, with the place in the user's code that it comes from."""
    text = str(error).strip().splitlines() or [""]
    here = Path(__file__).parent.parent
    others = (here, Path(sys.prefix), Path(sys.base_prefix))
    places = [
        f"{frame.filename}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<")
        and not any(other in Path(frame.filename).parents for other in others)
    ]
    if isinstance(error, SyntaxError):
        places.append(f"{error.filename}:{error.lineno}")
        text = [error.msg]
    where = f" ({places[-1]})" if places else ""
    return f"{type(error).__name__}: {text[0][:400]}{where}"


def optional(module: str, package: str, purpose: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{package} is needed for {purpose}: pip install {package}") from error


class Folder:
    """A folder that files are written into, and never past it."""

    def __init__(self, path: Path) -> None:
        if path.exists() and not path.is_dir():
            raise InputError(f"--out {path} is a file; name a folder to write into.")
        self.path = path.resolve()
        try:
            writable(self._inside("relevance.npy"))
        except OSError as error:
            raise InputError(f"--out: {error.filename} {error.strerror}.") from error

    def _inside(self, name: str) -> Path:
        found = (self.path / name).resolve()
        if found.parent != self.path:
            raise InputError(f"{name} would be written outside of {self.path}, at {found}.")
        return found

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """A name to write to, moved to its place once it is whole."""
        found = self._inside(name)
        try:
            with replacing(found) as partial:
                yield partial
        except OSError as error:
            raise InputError(f"{found} cannot be written: {error}.") from error
