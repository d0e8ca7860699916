"""Files that a long run leaves: whole or absent, one process at a time, tried before the work."""

import contextlib
import errno
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ._warnings import warn

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

UNFINISHED = ".writing"
"""What the names of files end in that are not whole yet."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to, moved into place once the block is done.

    Where the block fails nothing is left, and what was at `path` before is still there.

    Args:
        path: the file that is made.

    Yields:
        The name to write to.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def writable(path: Path) -> None:
    """Make the folder of a file, or say why the file cannot be written there.

    Args:
        path: a file that is to be written.

    Raises:
        OSError: with a message that names the path.
    """
    if path.is_dir():
        raise OSError(errno.EISDIR, "is a folder; a path names the file to write", str(path))
    with _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            open(path, "ab").close()
        with tempfile.TemporaryFile(dir=path.parent) as file:
            file.write(b"tried")


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"cannot be written ({error.strerror})", str(path)) from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Write a file (and what lies beside it) alone.

    The lock belongs to an open file `<path>.lock`, and the system gives it back when the process
    ends, however it ends: there are no stale locks. Where the file system has no locks, a warning
    says so.

    Args:
        path: the file that is made.

    Raises:
        RuntimeError: another process, or another thread of this one, is writing it.
        OSError: it cannot be written.
    """
    writable(path)
    lock = path.with_name(path.name + ".lock")
    while True:
        with _named(path):
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _hold(descriptor)
        except BlockingIOError:
            holder = _read(descriptor)
            os.close(descriptor)
            raise RuntimeError(
                f"{holder or 'another process'} is writing {path}: wait for it, or give another "
                "path (several processes share a data set as batches[i::n], each with a path of "
                "its own)"
            ) from None
        except OSError as error:
            warn(
                f"{path.parent} has no file locks ({error.strerror}): see to it that one process "
                "alone writes there"
            )
        # The one before may have removed the file between our opening and locking it.
        if _is_there(descriptor, lock):
            break
        os.close(descriptor)
    try:
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {platform.node()}".encode())
        yield
    finally:
        if sys.platform == "win32":  # an open file cannot be removed there
            os.close(descriptor)
            with contextlib.suppress(OSError):
                lock.unlink()
        else:
            lock.unlink(missing_ok=True)
            os.close(descriptor)


def _hold(descriptor: int) -> None:
    """Lock an open file, or raise `BlockingIOError` where it is locked."""
    if sys.platform == "win32":
        try:
            os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # not the bytes that say who holds it
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _read(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return os.read(descriptor, 200).decode(errors="replace")


def _is_there(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def differences(stored: Mapping[str, Any], now: Mapping[str, Any], words: Mapping[str, str]) -> str:
    """What differs between the run that began a file and this one, in words.

    Args:
        stored: what the first run said about itself.
        now: what this run says.
        words: how each entry is called, the ones that explain others first.

    Returns:
        The names of what differs, joined; empty where nothing does.
    """
    plain = json.loads(json.dumps(dict(now)))
    different = [text for key, text in words.items() if stored.get(key) != plain.get(key)]
    return ", ".join(different)
