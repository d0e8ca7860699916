"""One spelling for one operation: equations that a flat jaxpr writes in other words.

What is recognised in a jaxpr then has to be known in one spelling only.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from . import primitives as prim
from .compat import Equation


def respelled(eqn: Equation) -> Callable[..., Any] | None:
    """A function of the operands that writes an equation in other words, or None."""
    contracts_nothing = eqn.primitive is prim.DOT and not prim.dot_numbers(eqn)[0][0]
    if contracts_nothing and eqn.params.get("out_sharding") is None:
        return _product_number_by_number(eqn)
    return None


def _product_number_by_number(eqn: Equation) -> Callable[..., Any]:
    """A contraction that contracts nothing, as a product: a scale where one factor is constant."""
    _, batch = prim.dot_numbers(eqn)
    out = eqn.outvars[0].aval

    def factor(x: jax.Array, position: int) -> jax.Array:
        """An operand with its axes where they are in the result, in the result's type."""
        free = [i for i in range(jnp.ndim(x)) if i not in batch[position]]
        x = jnp.transpose(x, (*batch[position], *free))
        at = len(batch[0]) if position == 0 else out.ndim - len(free)
        others = [i for i in range(len(batch[0]), out.ndim) if not at <= i < at + len(free)]
        return jax.lax.expand_dims(x, others).astype(out.dtype)

    def multiply(a: jax.Array, b: jax.Array) -> jax.Array:
        return factor(a, 0) * factor(b, 1)

    return multiply
