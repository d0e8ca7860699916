"""Backward passes that begin at one index of an axis, without the zeros beside it.

A target picks the position of a token, a concept is a channel: what arrives is zero at all other
indices of that axis, and stays so through all that is done number by number. Here such an array is
its part at the index. A product with weights has one row then in place of one for each position,
and where the axis itself is summed over, one row of the weights is read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._analysis import compat, primitives as prim
from .._analysis.compat import Equation
from .._analysis.ids import CONVERT
from .._analysis.primitives import POINTWISE, family
from .depthwise import as_specified, channels_last
from .inlining import entered, inlined


@dataclass(frozen=True, eq=False)
class Index:
    """An index of an axis: a traced integer in its range, and its length (at least two)."""

    number: Any
    size: int


At = Mapping[int, Index]
"""The indices on some axes."""


@dataclass(frozen=True, eq=False)
class Sparse:
    """An array that is zero but at one index of some axes.

    Attributes:
        part: what is there; these axes have length one.
        at: the index on each of them.
    """

    part: Any
    at: At

    def along(self, kept: At) -> Any:
        """The array, of other axes than those kept with the zeros."""
        x = self.part
        for axis, index in self.at.items():
            if kept.get(axis) is not index:
                shape = [index.size if i == axis else 1 for i in range(x.ndim)]
                here = jax.lax.broadcasted_iota(np.int32, shape, axis) == index.number
                x = jnp.where(here, x, jnp.zeros((), x.dtype))
        return x


@dataclass(frozen=True, eq=False)
class Uniform:
    """An array of one number."""

    number: Any
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Counted:
    """The indices of an axis."""

    numbers: jax.Array
    axis: int


def without_zeros(closed: Any, values: Sequence[Any], constants: Sequence[Any]) -> list[Any]:
    """Evaluate a jaxpr, and of arrays that are zero but at one index only what is there.

    Args:
        closed: the jaxpr.
        values: of its inputs.
        constants: in place of its own constants.
    """
    return [_whole(x) for x in inlined(closed, values, constants, _instead, _whole)]


def _instead(eqn: Equation, operands: list[Any]) -> Any:
    known = not all(map(_is_plain, operands))
    body = compat.plain_call(eqn)
    if body is not None:
        begins = any(e.primitive is _IOTA for e in compat.open_jaxpr(body).eqns)
        return entered(eqn, operands) if known or begins else None
    if any(eqn.params.get(name) is not None for name in ("sharding", "out_sharding")):
        return None
    linear_in = operands[: _LINEAR.get(eqn.primitive, 0)]
    if linear_in and all(map(_is_zero, linear_in)):
        return _zeros(eqn)
    if known or eqn.primitive in (_IOTA, prim.BROADCAST, CONVERT):
        handler = _HANDLERS.get(eqn.primitive)
        if handler is not None:
            return handler(eqn, operands)
        if family(eqn.primitive) in POINTWISE or eqn.primitive is prim.SELECT:
            return _pointwise(eqn, operands)
    return None


# -- operands -----------------------------------------------------------------------------------


def _whole(value: Any) -> Any:
    match value:
        case Sparse():
            return value.along({})
        case Uniform():
            return jnp.broadcast_to(value.number, value.shape)
        case Counted():
            return value.numbers
    return value


def _is_plain(value: Any) -> bool:
    return not isinstance(value, Sparse | Uniform | Counted)


def _at(value: Any) -> At:
    return value.at if isinstance(value, Sparse) else {}


def _part(value: Any, at: At) -> Any:
    """What an operand is at an index of some axes."""
    x = value.along(at) if isinstance(value, Sparse) else _whole(value)
    for axis, index in at.items():
        if np.ndim(x) and x.shape[axis] == index.size:
            x = jax.lax.dynamic_slice_in_dim(x, index.number, 1, axis)
    return x


def _is_zero(value: Any) -> bool:
    number = value.number if isinstance(value, Uniform) else value
    if not _is_plain(number) or isinstance(number, jax.Array) or np.ndim(number):
        return False
    return bool(number == 0)


def _zeros(eqn: Equation) -> list[Any]:
    return [Uniform(np.zeros((), v.aval.dtype), v.aval.shape) for v in eqn.outvars]


def _sparse(part: Any, at: At) -> list[Any]:
    return [Sparse(part, at) if at else part]


# -- number by number ---------------------------------------------------------------------------


def _pointwise(eqn: Equation, operands: list[Any]) -> list[Any] | None:
    vanishes = _VANISHES.get(eqn.primitive)
    if vanishes is not None and vanishes([_is_zero(x) for x in operands]):
        return _zeros(eqn)
    if all(isinstance(x, Uniform) or (_is_plain(x) and np.ndim(x) == 0) for x in operands):
        numbers = [x.number if isinstance(x, Uniform) else x for x in operands]
        return [Uniform(compat.applied(eqn, *numbers), eqn.outvars[0].aval.shape)]
    if eqn.primitive is _EQ:
        return _compared(eqn, operands)
    return None if vanishes is None else _together(eqn, operands, vanishes)


def _converted(eqn: Equation, operands: list[Any]) -> list[Any] | None:
    (x,) = operands
    if not _is_plain(x):
        return _pointwise(eqn, operands)
    written = np.ndim(x) == 0 and not isinstance(x, jax.Array)
    return [Uniform(np.asarray(x, eqn.outvars[0].aval.dtype), ())] if written else None


def _held_back(eqn: Equation, operands: list[Any]) -> list[Any] | None:
    """A barrier for compilers, of one array."""
    return _pointwise(eqn, operands) if len(operands) == 1 else None


def _compared(eqn: Equation, operands: list[Any]) -> list[Any] | None:
    """The indices of an axis compared with one number: true at one index at most."""
    counted = [x for x in operands if isinstance(x, Counted)]
    others = [x for x in operands if not isinstance(x, Counted)]
    if len(counted) != 1 or isinstance(others[0], Sparse):
        return None
    number = others[0].number if isinstance(others[0], Uniform) else others[0]
    axis, shape = counted[0].axis, eqn.outvars[0].aval.shape
    size = counted[0].numbers.shape[axis]
    counts = jnp.issubdtype(counted[0].numbers.dtype, jnp.integer)
    if np.size(number) != 1 or size == 1 or not counts:
        return None
    number = jnp.reshape(number, ())
    exists = (number >= 0) & (number < size)
    part = jnp.broadcast_to(exists, [1 if i == axis else n for i, n in enumerate(shape)])
    return [Sparse(part, {axis: Index(jnp.clip(number, 0, size - 1), size)})]


def _together(
    eqn: Equation, operands: list[Any], vanishes: Callable[[list[bool]], bool]
) -> list[Any] | None:
    """What computes number by number, at an index where it is zero elsewhere."""
    at = {axis: index for x in operands for axis, index in _at(x).items()}
    at = {
        axis: index
        for axis, index in at.items()
        if vanishes([_is_zero(x) or _at(x).get(axis) is index for x in operands])
    }
    return _sparse(compat.applied(eqn, *(_part(x, at) for x in operands)), at) if at else None


def _select(zero: list[bool]) -> bool:
    condition, *cases = zero
    return all(cases) or (condition and cases[0])


_EQ, _IOTA = compat.primitive("eq"), compat.primitive("iota")
_VANISHES: dict[Any, Callable[[list[bool]], bool]] = {
    **dict.fromkeys(compat.primitives("mul and"), any),
    **dict.fromkeys(compat.primitives("div"), lambda zero: zero[0]),
    **dict.fromkeys(
        compat.primitives(
            """add add_jaxvals sub or max min neg abs sign sqrt square real imag
            convert_element_type copy reduce_precision optimization_barrier"""
        ),
        all,
    ),
    prim.SELECT: _select,
}
"""Whether a function is zero, given which of its operands are."""


# -- moves --------------------------------------------------------------------------------------


def _iota(eqn: Equation, _: list[Any]) -> list[Any]:
    return [Counted(compat.applied(eqn), eqn.params["dimension"])]


def _broadcast(eqn: Equation, operands: list[Any]) -> list[Any] | None:
    x, *sizes = operands
    shape, axes = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    if sizes:
        return None
    match x:
        case Sparse():
            at = {axes[axis]: index for axis, index in x.at.items()}
            shape = [1 if i in at else n for i, n in enumerate(shape)]
            return [Sparse(jax.lax.broadcast_in_dim(x.part, shape, axes), at)]
        case Counted():
            return [Counted(compat.applied(eqn, x.numbers), axes[x.axis])]
        case Uniform():
            return [Uniform(x.number, shape)]
    if np.size(x) != 1:
        return None
    # What no tracer holds stays so: whether it is zero is asked.
    number = x if isinstance(x, jax.Array) else np.asarray(x, eqn.outvars[0].aval.dtype)
    return [Uniform(number.reshape(()), shape)]


def _reshape(eqn: Equation, operands: list[Any]) -> list[Any] | None:
    x, shape = operands[0], eqn.outvars[0].aval.shape
    if isinstance(x, Uniform):
        return [Uniform(x.number, shape)]
    if not isinstance(x, Sparse) or len(operands) > 1:
        return None
    old = eqn.invars[0].aval.shape
    at = {}
    for axis, index in x.at.items():
        for new, size in enumerate(shape):
            if size == index.size and prod(shape[:new]) == prod(old[:axis]):
                at[new] = index
    part = x.along({axis: i for axis, i in x.at.items() if i in at.values()})
    return _sparse(part.reshape([1 if i in at else n for i, n in enumerate(shape)]), at)


def _transpose(eqn: Equation, operands: list[Any]) -> list[Any] | None:
    (x,), order = operands, eqn.params["permutation"]
    if not isinstance(x, Sparse):
        return None
    return [Sparse(compat.applied(eqn, x.part), {order.index(axis): i for axis, i in x.at.items()})]


def _sum(eqn: Equation, operands: list[Any]) -> list[Any] | None:
    (x,), axes = operands, eqn.params["axes"]
    if not isinstance(x, Sparse):
        return None
    at = {axis - sum(a < axis for a in axes): i for axis, i in x.at.items() if axis not in axes}
    return _sparse(compat.applied(eqn, x.part), at)


def _joined(eqn: Equation, operands: list[Any]) -> list[Any] | None:
    dimension = eqn.params["dimension"]
    beside = [
        Sparse(x.along(at), at) if isinstance(x, Sparse) else x
        for x in operands
        for at in [{axis: i for axis, i in _at(x).items() if axis != dimension}]
    ]
    return _together(eqn, beside, all)


def _padded(eqn: Equation, operands: list[Any]) -> list[Any] | None:
    (x, filling), sides = operands, eqn.params["padding_config"]
    if not isinstance(x, Sparse) or not _is_zero(filling):
        return None
    at = {axis: i for axis, i in x.at.items() if tuple(sides[axis]) == (0, 0, 0)}
    return _sparse(compat.applied(eqn, x.along(at), _whole(filling)), at)


def _cut(eqn: Equation, operands: list[Any]) -> list[Any] | None:
    (x,), out = operands, eqn.outvars[0].aval.shape
    if not isinstance(x, Sparse):
        return None
    at = {axis: i for axis, i in x.at.items() if out[axis] == i.size}
    end = [1 if i in at else n for i, n in enumerate(eqn.params["limit_indices"])]
    start, strides = eqn.params["start_indices"], eqn.params["strides"]
    return _sparse(jax.lax.slice(x.along(at), start, end, strides), at)


# -- products -----------------------------------------------------------------------------------


def _product(eqn: Equation, operands: list[Any]) -> list[Any]:
    if any(map(_is_zero, operands)):
        return _zeros(eqn)
    contracted, batch = prim.dot_numbers(eqn)
    left, right = (dict(_at(x)) for x in operands)
    for i, j in zip((*contracted[0], *batch[0]), (*contracted[1], *batch[1]), strict=True):
        index = left.get(i, right.get(j))
        if index is not None:
            left[i] = right[j] = index
    y = compat.applied(eqn, _part(operands[0], left), _part(operands[1], right))
    order: list[Index | None] = [left.get(i) for i in batch[0]]
    for side, (at, a) in enumerate(zip((left, right), eqn.invars, strict=True)):
        bound = (*contracted[side], *batch[side])
        order += [at.get(i) for i in range(len(a.aval.shape)) if i not in bound]
    return _sparse(y, {axis: index for axis, index in enumerate(order) if index is not None})


def _convolution(eqn: Equation, operands: list[Any]) -> list[Any] | None:
    """A convolution of one channel reads what one channel of the kernel has to say."""
    (x, w), params = operands, eqn.params
    if any(map(_is_zero, operands)):
        return _zeros(eqn)
    numbers = params["dimension_numbers"]
    batch, channels = numbers.lhs_spec[:2]
    one_group = params["feature_group_count"] == params["batch_group_count"] == 1
    if not isinstance(x, Sparse) or not one_group:
        return None
    at = {axis: index for axis, index in x.at.items() if axis in (batch, channels)}
    if channels in at:
        kernel = _part(w, {numbers.rhs_spec[1]: at[channels]})
        y = _of_one_channel(eqn, x.along(at), kernel)
    else:
        y = compat.applied(eqn, x.along(at), _whole(w))
    return _sparse(y, {numbers.out_spec[0]: at[batch]} if batch in at else {})


def _of_one_channel(eqn: Equation, x: jax.Array, w: jax.Array) -> jax.Array:
    """A convolution as a product of windows, which are small, with the kernel."""
    params, out = eqn.params, eqn.outvars[0].aval
    numbers, strides = params["dimension_numbers"], params["window_strides"]
    x, w = channels_last(x, w, numbers)
    sides = zip(params["padding"], params["lhs_dilation"], strict=True)
    sizes = [out.shape[i] for i in numbers.out_spec[2:]]
    x = jax.lax.pad(
        x, np.zeros((), x.dtype), [(0, 0, 0), *((*p, d - 1) for p, d in sides), (0, 0, 0)]
    )
    windows = []
    for place in np.ndindex(*w.shape[:-2]):
        start = [i * d for i, d in zip(place, params["rhs_dilation"], strict=True)]
        end = [a + (n - 1) * s + 1 for a, n, s in zip(start, sizes, strides, strict=True)]
        windows.append(jax.lax.slice(x, (0, *start, 0), (x.shape[0], *end, 1), (1, *strides, 1)))
    y = jax.lax.dot_general(
        jnp.concatenate(windows, -1), w.reshape(-1, w.shape[-1]),
        (((x.ndim - 1,), (0,)), ((), ())), precision=params["precision"],
        preferred_element_type=out.dtype,
    )  # fmt: skip
    return as_specified(y, numbers.out_spec)


def _of_platform(eqn: Equation, operands: list[Any]) -> list[Any] | None:
    """What each platform computes in its own way, each in the way of this file."""
    platforms, (_, *given) = eqn.params.get("branches_platforms"), operands
    if platforms is None:
        return None

    def evaluated(body: Any) -> list[Any]:
        return inlined(compat.closed(body), given, None, _instead, _whole)

    ways: dict[str, Callable[[], list[Any]]] = {}
    for names, body in zip(platforms, eqn.params["branches"], strict=True):
        if any(map(_is_zero, given)) and all(map(_is_zero, evaluated(body))):
            return _zeros(eqn)
        for name in names or ("default",):
            ways[name] = lambda body=body: [_whole(x) for x in evaluated(body)]  # type: ignore[misc]
    return list(jax.lax.platform_dependent(**ways))


_HANDLERS: dict[Any, Callable[[Equation, list[Any]], list[Any] | None]] = {
    _IOTA: _iota,
    CONVERT: _converted,
    compat.primitive("optimization_barrier"): _held_back,
    prim.BROADCAST: _broadcast,
    **dict.fromkeys(compat.primitives("reshape squeeze"), _reshape),
    compat.primitive("transpose"): _transpose,
    prim.REDUCE_SUM: _sum,
    compat.primitive("concatenate"): _joined,
    compat.primitive("pad"): _padded,
    compat.primitive("slice"): _cut,
    prim.DOT: _product,
    prim.CONV: _convolution,
    prim.COND: _of_platform,
}
_LINEAR: dict[Any, int | None] = {
    **dict.fromkeys(compat.primitives("concatenate pad"), None),
    **dict.fromkeys(
        compat.primitives(
            """reshape squeeze transpose reduce_sum slice rev cumsum reduce_window_sum dynamic_slice
            select_and_scatter_add"""
        ),
        1,
    ),
}
"""In how many of its operands a function is linear (None: in all), beside what computes number by
number and products."""
