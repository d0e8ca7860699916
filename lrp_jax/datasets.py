"""Explaining a whole data set: batches in, arrays or one HDF5 file out.

The last batch is padded to the size of the first, so that nothing compiles twice; the next batch
is prepared and sent to the device while the current one is computed; with a file as destination
every finished batch is on disk before the next is awaited, and a run that was killed goes on
where it stopped.
"""

import collections
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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
        data continues from them, and does nothing once the file is there. With several processes
        (`jax.distributed`) each writes a file of its own, `all-0-of-2.h5` for `all.h5`.
      channels_first: names whose last axis is moved behind the batch axis in the file; `None` means
        `attribution` and `data` where they have four axes, as ViRelAy expects.
      progress: whether to show a progress bar (needs `tqdm`).
      total: the number of batches, where `len(batches)` does not tell.

    Returns:
      The results with all batches joined, as NumPy arrays; the path where one was given.

    Raises:
      ValueError: batches that grow, disagree in size or do not fit what an earlier run has left
        at `path`; results that lie on several processes.
      ImportError: `h5py` or `tqdm` is needed and missing, by name.

    >>> batches = [np.ones((4, 2), np.float32), np.ones((3, 2), np.float32)]
    >>> explain_dataset(jax.jit(lambda x: 2 * x), batches, progress=False).shape
    (7, 2)
    """
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
    if path.exists():
        return path
    stored = _Parts(path)
    bar = progress_bar(batches, total, progress)
    for index, result in results(fn, bar, skip=stored.done):
        stored.write(index, _named(result, channels_first))
    stored.join(h5py)
    return path


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
        waiting.append((index, count, _call(fn, batch)))
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
                f"result needs the "
                "batch axis in front"
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
            "got the shapes "
            f"{[np.shape(a) for a in jax.tree.leaves(batch)]}"
        )
    return int(sizes.pop()[0])


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


class _Parts:
    """Finished batches beside the file they will be joined into.

    Every part is written under another name and moved into place, so a part that is there is
    whole. It carries a checksum of its input: a batch whose data changed since is refused rather
    than mixed in.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = path.with_name(path.name + ".parts")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.checksums: list[int] = []

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
        partial = self.folder / "writing"
        with open(partial, "wb") as file:
            arrays: dict[str, Any] = {"__checksum__": np.uint32(self.checksums[index]), **named}
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self.part(index))

    def join(self, h5py: Any) -> None:
        count = len(self.checksums)
        if not count:
            raise ValueError("explain_dataset got no batches")
        if self.part(count).exists():
            raise ValueError(
                f"{self.folder} holds more batches than the {count} of this run; remove it to "
                f"start anew"
            )
        partial = self.folder / "joining"
        with h5py.File(partial, "w") as file:
            for index in range(count):
                with np.load(self.part(index)) as part:
                    for name in part.files:
                        if name != "__checksum__":
                            _append(file, name, part[name])
            examples = file[next(iter(file))].shape[0]
            if "index" not in file and "attribution" in file:
                file["index"] = np.arange(examples, dtype=np.uint32)
        os.replace(partial, self.path)
        shutil.rmtree(self.folder)


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
