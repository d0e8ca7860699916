"""By what a run knows a function again: its program, and the numbers that it holds."""

import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .compat import open_jaxpr
from .inside import held_in

_VOLATILE = re.compile(r"0x[0-9a-f]+|name=\S+")
_SET = re.compile(r"frozenset\(\{(.*?)\}\)")


def program_of(function: Callable[..., Any], *args: Any) -> dict[str, int] | None:
    """Checksums of a function's program and of the arrays that it holds.

    Rules and their numbers are part of the program, parameters that it closes over are arrays.
    Nothing is computed: the function is traced, as `jax.jit` does.

    Args:
        function: any JAX function.
        *args: what it is called with; only shapes matter.

    Returns:
        `{"function": checksum, "arrays": checksum}`; `None` where JAX cannot trace the function.
    """
    try:
        traced = jax.make_jaxpr(function)(*args)
    except Exception:
        return None
    text = _SET.sub(_in_order, _VOLATILE.sub("", str(traced)))
    return {"function": zlib.crc32(text.encode()), "arrays": checksum_of_any(_constants(traced))}


def _in_order(found: re.Match[str]) -> str:
    """A set of names, whose order changes from process to process."""
    return f"{{{sorted(found[1].split(', '))}}}"


def _constants(jaxpr: Any) -> Iterator[Any]:
    """Arrays that a program holds, those of its inner programs too."""
    yield from getattr(jaxpr, "consts", ())
    for eqn in open_jaxpr(jaxpr).eqns:
        for atom in eqn.invars:
            if np.ndim(getattr(atom, "val", 0)):
                yield atom.val
        for inner in held_in(eqn):
            yield from _constants(inner)


def checksum_of_any(leaves: Iterable[Any]) -> int:
    """A CRC-32 of the leaves of a tree: arrays, keys, numbers and other settings.

    Args:
        leaves: in their order.

    Returns:
        The checksum.
    """
    checksum = 0
    for leaf in leaves:
        checksum = zlib.crc32(_bytes(leaf), checksum)
    return checksum


def _bytes(leaf: Any) -> bytes:
    dtype = getattr(leaf, "dtype", None)
    if dtype is None:
        return _VOLATILE.sub("", repr(leaf)).encode()
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        parts = [np.asarray(shard.data).tobytes() for shard in leaf.addressable_shards]
        return b"".join(parts)
    return str((dtype, np.shape(leaf))).encode() + np.ascontiguousarray(leaf).tobytes()
