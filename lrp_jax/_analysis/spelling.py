"""One spelling for one operation: equations that a flat jaxpr writes in other words.

What is recognised in a jaxpr then has to be known in one spelling only.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from . import compat, primitives as prim
from .compat import Equation


def respelled(eqn: Equation) -> Callable[..., Any] | None:
    """A function of the operands that writes an equation in other words, or None.

    It returns what the equation makes, as a list.
    """
    if eqn.primitive in _PARTS:
        return _PARTS[eqn.primitive](eqn)
    if eqn.primitive in _OVER_NAMES and not any(isinstance(a, str) for a in eqn.params["axes"]):
        return _over_axes(eqn)
    if (logarithm := _LOGARITHMS.get(compat.called_name(eqn))) is not None:
        return _times_logarithm(eqn, logarithm)
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

    def multiply(a: jax.Array, b: jax.Array) -> list[jax.Array]:
        return [factor(a, 0) * factor(b, 1)]

    return multiply


def _over_axes(eqn: Equation) -> Callable[..., list[jax.Array]]:
    """A sum or maximum over an axis that `jax.vmap` named, as one over the axis that it is."""
    reduce, axes = _OVER_NAMES[eqn.primitive], tuple(int(a) for a in eqn.params["axes"])
    return lambda *xs: [reduce(x, axis=axes) for x in xs]


def _times_logarithm(
    eqn: Equation, logarithm: Callable[[jax.Array], jax.Array]
) -> Callable[..., list[jax.Array]] | None:
    """x log(y) with 0 where x is 0, as the product that it is elsewhere; its values are kept."""
    if compat.custom_call(eqn) is None or len(eqn.outvars) != 1:
        return None
    dtype = eqn.outvars[0].aval.dtype
    least = jnp.finfo(dtype).tiny if logarithm is jnp.log else jnp.finfo(dtype).eps - 1

    def multiply(*xs: jax.Array) -> list[jax.Array]:
        x, y = xs[0], xs[-1]
        own = jnp.where((x != 0) | (y != y), x * logarithm(y), 0)
        product = x * logarithm(jnp.maximum(y, least))
        return [prim.KEEP.bind(product, jax.lax.stop_gradient(own))]

    return multiply


def _stacked(eqn: Equation) -> Callable[..., list[jax.Array]]:
    """Arrays on top of each other, as arrays side by side."""
    axis = eqn.params["axis"]

    def stack(*xs: jax.Array) -> list[jax.Array]:
        return [jax.lax.concatenate([jax.lax.expand_dims(x, [axis]) for x in xs], axis)]

    return stack


def _split(eqn: Equation) -> Callable[..., list[jax.Array]]:
    """The parts of an array, as slices."""
    axis = eqn.params["axis"]
    ends = list(itertools.accumulate(map(int, eqn.params["sizes"])))

    def split(x: jax.Array) -> list[jax.Array]:
        pairs = zip([0, *ends], ends, strict=False)
        return [jax.lax.slice_in_dim(x, begin, end, axis=axis) for begin, end in pairs]

    return split


def _unstacked(eqn: Equation) -> Callable[..., list[jax.Array]]:
    """The layers of a stack, as slices."""
    axis = eqn.params["axis"]

    def unstack(x: jax.Array) -> list[jax.Array]:
        layers = (jax.lax.slice_in_dim(x, i, i + 1, axis=axis) for i in range(x.shape[axis]))
        return [jax.lax.squeeze(layer, [axis]) for layer in layers]

    return unstack


def _one_by_one(eqn: Equation) -> Callable[..., list[jax.Array]] | None:
    """A barrier around several arrays, as one around each."""
    if len(eqn.invars) == 1:
        return None
    return lambda *xs: [jax.lax.optimization_barrier(x) for x in xs]


def _to_the_zeroth(eqn: Equation) -> Callable[..., list[jax.Array]] | None:
    """Ones, whatever is raised: they depend on nothing."""
    return None if eqn.params["y"] else lambda x: [jnp.ones_like(x)]


def _added(eqn: Equation) -> Callable[..., list[jax.Array]]:
    """What derivatives add, whose operands are no numbers, as any sum."""
    return lambda a, b: [jax.lax.add(a, b)]


_LOGARITHMS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "xlogy": jnp.log, "_xlogx": jnp.log, "xlog1py": jnp.log1p,
}  # fmt: skip
"""Functions of `jax.scipy.special`."""
_OVER_NAMES: dict[Any, Callable[..., jax.Array]] = {
    compat.primitive("psum"): jnp.sum,
    compat.primitive("pmax"): jnp.max,
    compat.primitive("pmin"): jnp.min,
}
_PARTS: dict[Any, Callable[[Equation], Callable[..., Any] | None]] = {
    compat.primitive("stack"): _stacked,
    compat.primitive("split"): _split,
    compat.primitive("unstack"): _unstacked,
    compat.primitive("optimization_barrier"): _one_by_one,
    compat.primitive("integer_pow"): _to_the_zeroth,
    compat.primitive("add_jaxvals"): _added,
}
"""Ways to put arrays together and to take them apart, as concatenations and slices; barriers; what
is one; sums."""
