"""What an entry of the zoo is, and the few helpers that building one takes."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.tree_util import keystr

Apply = Callable[[Any, Any], Any]


class Parts(NamedTuple):
    """A model ready to be called as `apply(params, x)`; every leaf of `x` leads with the batch."""

    apply: Apply
    params: Any
    x: Any


@dataclass(frozen=True)
class Model:
    """A named small model: `build(dtype)` makes it, the same numbers on every call."""

    name: str
    make: Callable[[np.random.Generator], Parts]
    tags: frozenset[str]
    requires: tuple[str, ...] = ()

    def build(self, dtype: Any = jnp.float64) -> Parts:
        for package in self.requires:
            pytest.importorskip(package)
        apply, params, x = self.make(np.random.default_rng(zlib.crc32(self.name.encode())))
        return Parts(apply, cast(params, dtype), cast(x, dtype))


def model(*tags: str, requires: tuple[str, ...] = ()) -> Callable[[Callable[[Any], Any]], Model]:
    """Turn `make(rng) -> (apply, params, x)` into an entry that is called as the function is."""

    def entry(make: Callable[[Any], Any]) -> Model:
        return Model(make.__name__, make, frozenset(tags), requires)

    return entry


def models_of(namespace: dict[str, Any]) -> tuple[Model, ...]:
    """The entries among a module's globals, in the order they were written."""
    return tuple(value for value in namespace.values() if isinstance(value, Model))


def is_floating(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)


def cast(tree: Any, dtype: Any) -> Any:
    """Give every floating leaf this dtype and leave the others as they are."""
    return jax.tree.map(lambda a: jnp.asarray(a, dtype) if is_floating(a) else a, tree)


def normal(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Array:
    return jnp.asarray(scale * rng.standard_normal(shape))


_FILLINGS: tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...] = (
    (r"\bvar\b", lambda noise: 0.5 + np.abs(noise)),
    (r"\bmean\b", lambda noise: 0.4 * noise),
    (r"\bscale\b", lambda noise: 1 + 0.3 * noise),
    (r"\b(bias|b|offset)\b", lambda noise: 0.3 * noise),
)


def filled(shapes: Any, rng: np.random.Generator) -> Any:
    """Fill a tree of shapes with random numbers: kernels scaled by their fan-in, and, unlike an
    initialiser, biases, scales and statistics too."""

    def leaf(path: Any, value: Any) -> Any:
        if not is_floating(value):
            return value
        name = re.sub(r"[^a-z]+", " ", keystr(path).lower())
        noise = rng.standard_normal(value.shape)
        for pattern, fill in _FILLINGS:
            if re.search(pattern, name):
                return jnp.asarray(fill(noise))
        return jnp.asarray(noise / np.sqrt(np.prod(value.shape[:-1])))

    return jax.tree_util.tree_map_with_path(leaf, shapes)
