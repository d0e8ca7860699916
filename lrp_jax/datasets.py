"""Explaining a whole data set: batches in, arrays or one HDF5 file out.

The last batch is padded to the size of the first, so that nothing compiles twice; the next batch
is prepared and sent to the device while the current one is computed; with a file as destination
every finished batch is on disk before the next is awaited, and a run that was killed goes on
where it stopped. It goes on only with the function, the parameters and the data that it began with.
"""

import collections
import itertools
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._analysis.identity import program_of
from ._files import UNFINISHED, differences, locked, replacing

Tree = Any


def explain_dataset(
    fn: Callable[..., Tree],
    batches: Iterable[Any],
    *,
    path: str | os.PathLike[str] | None = None,
    channels_first: Sequence[str] | None = None,
    progress: bool = True,
    total: int | None = None,
) -> Tree:
    """Apply a function to every batch of a data set and collect what it returns.

    Args:
      fn: a (jitted) function of one batch, returning arrays, or a dict or other pytree of
        arrays, with the batch axis in front. A tuple batch is passed as positional arguments, a
        dict as keyword arguments, anything else as the one argument.
      batches: an iterable of batches of arrays with the batch axis in front. Later batches may
        be smaller than the first (they are padded by repeating their last example and the result
        is cut), not larger. With several processes each is given its own, such as
        `batches[jax.process_index() :: jax.process_count()]`.
      path: where results go. `None` returns arrays. A path ending in `.h5` or `.hdf5` makes an
        HDF5 file (needs `h5py`) with one data set for each name: for a dict its keys, for one
        array `attribution`. With the keys `attribution`, `prediction`, `label` it is an
        attribution database of ViRelAy and CoRelAy, with `data` and `label` an input database.
        While it is made, finished batches lie in `<path>.parts`; a second call with the same
        function and data continues from them, and returns the path once the file is there.
        Another function (its rules are part of it), other parameters, other data are refused: of
        a finished file by its first batch and the number of batches. A function that JAX cannot
        trace is known by its results for the first batch. One process at a time writes a path
        (`<path>.lock`). With several processes (`jax.distributed`) each writes a file of its own,
        `all-0-of-2.h5` for `all.h5`.
      channels_first: names whose last axis is moved behind the batch axis in the file; `None` means
        `attribution` and `data` where they have four axes, as ViRelAy expects.
      progress: whether to show a progress bar (needs `tqdm`).
      total: the number of batches, where `len(batches)` does not tell.

    Returns:
      The results with all batches joined, as NumPy arrays; the path where one was given.

    Raises:
      ValueError: batches that grow, disagree in size or do not fit what an earlier run has left
        at `path`, which another function, composite or parameters may have begun; results that lie
        on several processes.
      RuntimeError: another process is writing `path`.
      OSError: `path` cannot be written, which is tried first.
      ImportError: `h5py` or `tqdm` is needed and missing, by name.

    >>> batches = [np.ones((4, 2), np.float32), np.ones((3, 2), np.float32)]
    >>> explain_dataset(jax.jit(lambda x: 2 * x), batches, progress=False).shape
    (7, 2)
    """
    if not callable(fn):
        raise TypeError(f"explain_dataset(fn, batches): fn is a function, got {type(fn).__name__}")
    if total is None and isinstance(batches, Sized):
        total = len(batches)
    if path is None:
        bar = progress_bar(batches, total, progress)
        parts = [result for _, result in results(fn, bar, skip=lambda index, batch: False)]
        if not parts:
            raise ValueError("explain_dataset got no batches")
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    path = Path(path)
    if path.suffix not in (".h5", ".hdf5"):
        raise ValueError(
            f"path must end in .h5 or .hdf5, got {str(path)!r}; without a path arrays are returned"
        )
    h5py = require("h5py", "writing HDF5 files")
    if jax.process_count() > 1:
        number = f"{jax.process_index()}-of-{jax.process_count()}"
        path = path.with_name(f"{path.stem}-{number}{path.suffix}")
    batches, first = _first(batches)
    stored = _Parts(path, fn, first, channels_first, total)
    if stored.finished(h5py):
        return path
    with locked(path):
        if stored.finished(h5py):  # by the process that had the lock
            return path
        stored.begin()
        bar = progress_bar(batches, total, progress)
        for index, result in results(fn, bar, skip=stored.done):
            stored.write(index, _named(result, channels_first))
        stored.join(h5py)
    return path


def _first(batches: Iterable[Any]) -> tuple[Iterable[Any], Any]:
    """The batches, and the first of them."""
    rest = iter(batches)
    for first in rest:
        return itertools.chain([first], rest), first
    raise ValueError("explain_dataset got no batches")


def progress_bar(items: Iterable[Any], total: int | None, progress: bool) -> Iterable[Any]:
    """The items, behind a progress bar where one is wanted.

    Args:
      items: any iterable.
      total: how many there are, where it is known.
      progress: whether a bar is wanted (needs `tqdm`).

    Returns:
      An iterable of the same items.
    """
    if not progress:
        return items
    result: Iterable[Any] = require("tqdm", "the progress bar (progress=False does without)").tqdm(
        items, total=total
    )
    return result


def require(module: str, purpose: str) -> Any:
    """Import an optional package, or say what it is needed for and how to get it.

    Args:
      module: what is imported.
      purpose: what it is needed for, as the message says it.

    Returns:
      The module.

    Raises:
      ImportError: where it is missing.
    """
    try:
        return __import__(module)
    except ImportError as error:
        raise ImportError(f"{module} is needed for {purpose}: pip install {module}") from error


def results(
    fn: Callable[..., Tree], batches: Iterable[Any], skip: Callable[[int, Any], bool]
) -> Iterator[tuple[int, Tree]]:
    """Results of all batches but those skipped, in order, one batch ahead of the device.

    Args:
      fn, batches: as `explain_dataset`.
      skip: from the index of a batch and the batch to whether it is left out.

    Returns:
      Pairs of the index of a batch and its result, without the padding.
    """
    size = None
    waiting: collections.deque[tuple[int, int, Tree]] = collections.deque()
    for index, batch in enumerate(batches):
        count = _batch_size(batch)
        size = count if size is None else size
        if count > size:
            raise ValueError(
                f"batch {index} has {count} examples but the first had {size}: the first must be "
                "the largest"
            )
        if skip(index, batch):
            continue
        batch = jax.device_put(jax.tree.map(lambda a, n=size - count: _pad(a, n), batch))
        # A call returns before its result is there: the next batch is loaded while this one runs.
        try:
            waiting.append((index, count, _call(fn, batch)))
        except Exception as error:
            error.add_note(
                f"lrp_jax: batch {index} holds arrays of the shapes {_shapes(batch)}, the examples "
                "in front. A list of batches is needed: [x] for a single one."
            )
            raise
        if len(waiting) > 1:
            yield _take(waiting.popleft(), size)
    while waiting:
        assert size is not None
        yield _take(waiting.popleft(), size)


def _call(fn: Callable[..., Tree], batch: Any) -> Tree:
    if isinstance(batch, tuple):
        return fn(*batch)
    if isinstance(batch, dict):
        return fn(**batch)
    return fn(batch)


def _take(entry: tuple[int, int, Tree], size: int) -> tuple[int, Tree]:
    index, count, result = entry
    if not jax.tree.leaves(result):
        raise TypeError(f"the function returned {result!r}, no array, for batch {index}")

    def cut(a: Any) -> np.ndarray:
        if isinstance(a, jax.Array) and not a.is_fully_addressable:
            raise ValueError(
                "the function returned an array that lies on several processes; let it compute "
                "on the devices of its own process (jax.local_devices())"
            )
        a = np.asarray(a)
        if a.ndim == 0 or a.shape[0] != size:
            raise ValueError(
                f"the function returned shape {a.shape} for a batch of {size} examples; every "
                "result needs the batch axis in front"
            )
        result: np.ndarray = a[:count]
        return result

    return index, jax.tree.map(cut, result)


def _pad(a: Any, count: int) -> Any:
    return np.concatenate([np.asarray(a), np.repeat(np.asarray(a[-1:]), count, 0)]) if count else a


def _batch_size(batch: Any) -> int:
    sizes = {np.shape(a)[:1] for a in jax.tree.leaves(batch)}
    if len(sizes) != 1 or () in sizes or (0,) in sizes:
        raise ValueError(
            "every array of a batch needs the same number (at least one) of examples in front, "
            f"got {_shapes(batch)}; a list of numbers is an array first"
        )
    return int(sizes.pop()[0])


def _shapes(batch: Any) -> str:
    return ", ".join(str(np.shape(a)) for a in jax.tree.leaves(batch)[:8])


def _named(result: Tree, channels_first: Sequence[str] | None) -> dict[str, np.ndarray]:
    """Results under the names, axis order and types of their data sets."""
    named = result if isinstance(result, dict) else {"attribution": result}
    for name, value in named.items():
        if not isinstance(value, np.ndarray):
            raise ValueError(
                f"an HDF5 file takes an array or a dict of arrays, but {name!r} is "
                f"{jax.tree.structure(value)}"
            )
    if channels_first is None:
        channels_first = [n for n in ("attribution", "data") if n in named and named[n].ndim == 4]
    for name in channels_first:
        if name not in named or named[name].ndim < 3:
            raise ValueError(
                f"channels_first names {name!r}, which is no array with a channel axis"
            )
    return {
        name: _plain(np.moveaxis(value, -1, 1) if name in channels_first else value)
        for name, value in named.items()
    }


def _plain(value: np.ndarray) -> np.ndarray:
    """bfloat16 and its like have no HDF5 type."""
    return (
        value.astype(np.float32)
        if jnp.issubdtype(value.dtype, jnp.floating) and value.itemsize < 4
        else value
    )


_WORDS = {
    "data": "the data (the first batch)",
    "batches": "the number of batches",
    "function": "the function or its composite",
    "arrays": "the parameters (arrays that the function holds)",
    "name": "the function",
    "channels_first": "channels_first",
}


class _Parts:
    """Finished batches beside the file they will be joined into.

    Every part is written under another name and moved into place, so a part that is there is
    whole. It carries a checksum of its input: a batch whose data changed since is refused rather
    than mixed in. `run.json` says which function and parameters began.
    """

    def __init__(
        self,
        path: Path,
        fn: Callable[..., Tree],
        first: Any,
        channels_first: Sequence[str] | None,
        total: int | None,
    ) -> None:
        self.path = path
        self.folder = path.with_name(path.name + ".parts")
        self.checksums: list[int] = []
        self.total = total
        program = program_of(lambda batch: _call(fn, batch), first)
        self.identity: dict[str, Any] = {
            "data": checksum_of(jax.tree.leaves(first)),
            "channels_first": None if channels_first is None else list(channels_first),
            **(program or {"name": getattr(fn, "__qualname__", type(fn).__qualname__)}),
        }
        self.again = None if program else lambda: _again(fn, first, channels_first)

    def finished(self, h5py: Any) -> bool:
        """Whether the file is there; one of another run is refused."""
        if not self.path.is_file():
            return False
        try:
            with h5py.File(self.path) as file:
                stored = json.loads(file.attrs["lrp_jax"])
                rows = {name: file[name][: stored["size"]] for name in file if name != "index"}
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(
                f"{self.path} is there and does not say which run wrote it, as files of "
                f"explain_dataset do since 0.2 ({error}); give another path, or remove it"
            ) from error
        now = {"batches": stored["batches"] if self.total is None else self.total, **self.identity}
        self._compare(stored, now, rows, f"the results in {self.path}", "it")
        return True

    def begin(self) -> None:
        """Make the folder of parts, or go on with that of an earlier run of the same kind."""
        self.folder.mkdir(exist_ok=True)
        for left in self.folder.glob(f".*{UNFINISHED}"):
            left.unlink()
        about = self.folder / "run.json"
        if any(self.folder.glob("*.npz")):
            stored = json.loads(about.read_text()) if about.exists() else {}
            rows = None
            if self.part(0).exists():
                with np.load(self.part(0)) as part:
                    rows = {name: part[name] for name in part.files if name != "__checksum__"}
            self._compare(
                stored, self.identity, rows, f"the batches in {self.folder}", "that folder"
            )
            return
        with replacing(about) as partial:
            partial.write_text(json.dumps(self.identity))

    def _compare(self, stored: Any, now: Any, rows: Any, what: str, them: str) -> None:
        found = differences(stored, now, _WORDS)
        if not found and self.again is not None and rows is not None:
            found = "" if _equal(rows, self.again()) else "what the function returns"
        if found:
            why = f"are of another run, which differs in {found}"
            if not stored:
                why = "do not say which run wrote them, as they do since 0.2"
            raise ValueError(f"{what} {why}: give another path, or remove {them} to start anew")

    def part(self, index: int) -> Path:
        return self.folder / f"{index:08d}.npz"

    def done(self, index: int, batch: Any) -> bool:
        checksum = checksum_of(jax.tree.leaves(batch))
        self.checksums.append(checksum)
        if not self.part(index).exists():
            return False
        with np.load(self.part(index)) as part:
            if int(part["__checksum__"]) != checksum:
                raise ValueError(
                    f"batch {index} is not the one an earlier run has explained in "
                    f"{self.folder}; remove that "
                    "folder to start anew"
                )
        return True

    def write(self, index: int, named: dict[str, np.ndarray]) -> None:
        arrays: dict[str, Any] = {"__checksum__": np.uint32(self.checksums[index]), **named}
        with replacing(self.part(index)) as partial, open(partial, "wb") as file:
            np.savez(file, **arrays)

    def join(self, h5py: Any) -> None:
        count = len(self.checksums)
        if self.part(count).exists():
            raise ValueError(
                f"{self.folder} holds more batches than the {count} of this run; remove it to "
                f"start anew"
            )
        with replacing(self.path) as partial, h5py.File(partial, "w") as file:
            for index in range(count):
                with np.load(self.part(index)) as part:
                    for name in part.files:
                        if name != "__checksum__":
                            _append(file, name, part[name])
                if not index:
                    size = file[next(iter(file))].shape[0]
            examples = file[next(iter(file))].shape[0]
            if "index" not in file and "attribution" in file:
                file["index"] = np.arange(examples, dtype=np.uint32)
            about = {**self.identity, "batches": count, "size": size}
            file.attrs["lrp_jax"] = json.dumps(about, sort_keys=True)
        shutil.rmtree(self.folder)


def _again(
    fn: Callable[..., Tree], batch: Any, channels_first: Sequence[str] | None
) -> dict[str, np.ndarray]:
    """The results of one batch, as the file has them."""
    ((_, result),) = results(fn, [batch], skip=lambda index, batch: False)
    return _named(result, channels_first)


def _equal(stored: dict[str, np.ndarray], now: dict[str, np.ndarray]) -> bool:
    """Whether results are the same but for rounding."""
    if stored.keys() != now.keys():
        return False
    return all(
        a.shape == now[name].shape
        and np.allclose(a, now[name], 1e-4, 1e-5 * np.abs(a).max(initial=0.0), equal_nan=True)
        for name, a in stored.items()
    )


def _append(file: Any, name: str, value: np.ndarray) -> None:
    if name not in file:
        file.create_dataset(name, data=value, maxshape=(None, *value.shape[1:]), chunks=True)
        return
    data = file[name]
    data.resize(data.shape[0] + len(value), axis=0)
    data[-len(value) :] = value


def checksum_of(arrays: Iterable[Any]) -> int:
    """A checksum of the bytes of some arrays, by which an interrupted run knows its data again.

    Args:
        arrays: the arrays, in order.

    Returns:
        A CRC-32.
    """
    checksum = 0
    for array in arrays:
        checksum = zlib.crc32(np.ascontiguousarray(array).tobytes(), checksum)
    return checksum
