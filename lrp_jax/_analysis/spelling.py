"""One spelling for one operation: equations that a flat jaxpr writes in other words.

What is recognised in a jaxpr then has to be known in one spelling only.
"""

import itertools
import math
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
    if (called := _CALLED.get(compat.called_name(eqn))) is not None:
        return called(eqn)
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


def _relative(eqn: Equation) -> Callable[..., list[jax.Array]] | None:
    """x log(x / y) as the product that it is elsewhere; its values are kept."""
    body = compat.custom_call(eqn)
    if body is None:
        return None
    least = jnp.finfo(eqn.outvars[0].aval.dtype).tiny

    def multiply(x: jax.Array, y: jax.Array) -> list[jax.Array]:
        (own,) = jax.core.eval_jaxpr(compat.open_jaxpr(body), body.consts, x, y)
        product = x * (jnp.log(jnp.maximum(x, least)) - jnp.log(jnp.maximum(y, least)))
        return [prim.KEEP.bind(product, jax.lax.stop_gradient(own))]

    return multiply


def _reduced(eqn: Equation) -> Callable[..., list[jax.Array]] | None:
    """A reduction by a function that adds, multiplies or chooses, as the one that has this name."""
    inner = compat.open_jaxpr(eqn.params["jaxpr"])
    operator = _MONOIDS.get(inner.eqns[-1].primitive) if len(inner.eqns) == 1 else None
    of_both = operator is not None and {*inner.eqns[-1].invars} == {*inner.invars}
    if operator is None or not of_both or len(eqn.invars) != 2:
        return None
    params, axes = dict(eqn.params), eqn.params.get("dimensions")

    def reduce(x: jax.Array, begin: Any) -> list[jax.Array]:
        if axes is not None:
            return [jax.lax.reduce(x, begin, operator, axes)]
        sizes = params["window_dimensions"], params["window_strides"], params["padding"]
        dilations = params["base_dilation"], params["window_dilation"]
        return [jax.lax.reduce_window(x, begin, operator, *sizes, *dilations)]

    return reduce


_MONOIDS: dict[Any, Any] = {
    compat.primitive(name): getattr(jax.lax, name) for name in ("add", "mul", "max", "min")
}


def _base_two(eqn: Equation) -> Callable[..., list[jax.Array]] | None:
    """`jnp.logaddexp2` by `jnp.logaddexp`."""
    if compat.custom_call(eqn) is None:
        return None
    unit = math.log(2)
    return lambda a, b: [jnp.logaddexp(a * unit, b * unit) / unit]


def _less_one(eqn: Equation) -> Callable[..., list[jax.Array]]:
    """`expm1(x)` as `exp(x) - 1`, `log1p(x)` as `log(1 + x)`; their values are kept."""
    is_log = eqn.primitive is compat.primitive("log1p")

    def write(x: jax.Array) -> list[jax.Array]:
        own = eqn.primitive.bind(x, **eqn.params)
        other = jax.lax.log(1 + x) if is_log else jax.lax.exp(x) - 1
        return [prim.KEEP.bind(other, jax.lax.stop_gradient(own))]

    return write


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
_CALLED: dict[str, Callable[[Equation], Callable[..., Any] | None]] = {
    "_rel_entr": _relative, "logaddexp2": _base_two,
}  # fmt: skip
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
    compat.primitive("expm1"): _less_one,
    compat.primitive("log1p"): _less_one,
    compat.primitive("reduce"): _reduced,
    compat.primitive("reduce_window"): _reduced,
}
"""Ways to put arrays together and to take them apart, as concatenations and slices; barriers; what
is one; sums."""
