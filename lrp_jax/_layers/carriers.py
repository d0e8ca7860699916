"""What relevance travels to at explained integers: zeros beside them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp


@partial(jax.tree_util.register_dataclass, data_fields=["numbers", "carrier"], meta_fields=[])
@dataclass(frozen=True)
class Ids:
    """Explained integers.

    Attributes:
        numbers: the integers.
        carrier: floats of their shape; only what comes back to them matters.
    """

    numbers: jax.Array
    carrier: jax.Array


def plain(value: Any) -> Any:
    """A value as a constant sees it."""
    return value.numbers if isinstance(value, Ids) else value


def explained(value: Any, dtype: Any) -> Any:
    """Integers that relevance can travel to; where nobody asked for it, it ends here."""
    return value if isinstance(value, Ids) else Ids(value, jnp.zeros(jnp.shape(value), dtype))


def on_carrier(change: Callable[[jax.Array], jax.Array], value: Any) -> Any:
    """`value` with a change of what relevance travels to."""
    if isinstance(value, Ids):
        return Ids(value.numbers, change(value.carrier))
    return change(value)


def travels_to(value: Any) -> jax.Array:
    """The array that relevance travels to."""
    found: jax.Array = value.carrier if isinstance(value, Ids) else value
    return found
