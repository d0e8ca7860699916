"""Operations that XLA compiles poorly for CPUs, written in operations that it compiles well.

Each is exact, and chosen for CPUs alone (`jax.lax.platform_dependent`): elsewhere the operation
stays as it is. What comes forward is always the operation itself, except for depthwise convolutions
on CPUs, where it is the same products added in another order. Pools with gaps, of which JAX has no
derivative, get one everywhere.

On one core, forward and back, against XLA's own: max pooling 8 to 9 times faster (4 times where
windows overlap), the cotangent of patch embeddings 30 times, depthwise convolutions 25 to 45 times,
the cotangent of any other convolution 5 to 9 times inside of a loop (outside of it the same).
`python -m benchmarks.lowerings` measures them.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._analysis import compat, primitives as prim
from .._analysis.compat import Equation, Var, is_literal
from .depthwise import Depthwise, as_specified, channels_last

_POOL_MIN = compat.primitive("reduce_window_min")
_LARGEST_WINDOW = 64  # above it, one slice a position is no longer small


def as_function(
    jaxpr: Any, eqns: Iterable[Equation], invars: Sequence[Var], outvars: Sequence[Any]
) -> Callable[..., list[Any]]:
    """`compat.as_function`, every operation in the form that suits the platform."""
    eqns = list(eqns)
    found = {id(eqn): lowered for eqn in eqns if (lowered := lowering(eqn)) is not None}
    if not found:
        return compat.as_function(jaxpr, eqns, invars, outvars)

    def function(*values: Any) -> list[Any]:
        env = dict(zip(invars, values, strict=True))
        for eqn in eqns:
            if id(eqn) in found:
                env[eqn.outvars[0]] = found[id(eqn)](*(env[a] for a in eqn.invars))
            else:
                env.update(compat.evaluate(jaxpr, [eqn], env))
        return [a.val if is_literal(a) else env[a] for a in outvars]

    return function


def lowering(eqn: Equation) -> Callable[..., jax.Array] | None:
    """An equation as a function of its operands, or None where it is best as it is."""
    if any(is_literal(a) for a in eqn.invars):
        return None
    if eqn.primitive is prim.POOL_MAX:
        return _max_pool(eqn)
    if eqn.primitive is _POOL_MIN and {*eqn.params["window_dilation"]} != {1}:
        return _dilated_extreme(eqn)
    if eqn.primitive in _EXTREMES:
        return _extreme(eqn)
    if eqn.primitive is prim.CONV:
        return _convolution(eqn)
    return None


_EXTREMES = {
    compat.primitive("reduce_max"): jax.lax.argmax,
    compat.primitive("reduce_min"): jax.lax.argmin,
}


def _extreme(eqn: Equation) -> Callable[..., jax.Array] | None:
    """A largest or smallest element, whose backward pass gives all to the first of them.

    JAX's own compares with the result and divides by the number of equals: a compiler that
    computes the operand twice, rounding differently, makes that 0 / 0.
    """
    operand, axes = eqn.invars[0].aval, eqn.params["axes"]
    if not jnp.issubdtype(operand.dtype, jnp.floating) or not axes or operand.size == 0:
        return None
    find = _EXTREMES[eqn.primitive]
    order = [*(i for i in range(operand.ndim) if i not in axes), *axes]
    shape = [operand.shape[i] for i in order]
    back = [order.index(i) for i in range(operand.ndim)]

    def backward(x: jax.Array, _: jax.Array, cotangent: jax.Array) -> jax.Array:
        flat = jnp.transpose(x, order).reshape(*cotangent.shape, -1)
        last = flat.ndim - 1
        winner = jnp.expand_dims(find(flat, last, np.int32), last)
        chosen = winner == jax.lax.broadcasted_iota(np.int32, flat.shape, last)
        spread = jnp.where(chosen, jnp.expand_dims(cotangent, last), 0)
        return jnp.transpose(spread.reshape(shape), back)

    return _with_backward(_native(eqn), backward)


def _with_backward(
    native: Callable[..., jax.Array], back: Callable[..., jax.Array]
) -> Callable[..., jax.Array]:
    """A function of one array whose cotangent is `back(x, y, cotangent)`."""

    @jax.custom_vjp
    def function(x: jax.Array) -> jax.Array:
        return native(x)

    def forward(x: jax.Array) -> tuple[jax.Array, Any]:
        y = native(x)
        return y, (x, y)

    function.defvjp(forward, lambda saved, cotangent: (back(*saved, cotangent),))
    return function


def _native(eqn: Equation) -> Callable[..., jax.Array]:
    return lambda *operands: eqn.primitive.bind(*operands, **eqn.params)


# -- max pooling ------------------------------------------------------------------------------


def _max_pool(eqn: Equation) -> Callable[..., jax.Array] | None:
    """Max pooling whose backward pass compares and selects instead of scattering."""
    params = eqn.params
    window, strides = params["window_dimensions"], params["window_strides"]
    if {*params["base_dilation"], *params["window_dilation"]} != {1}:
        return _dilated_extreme(eqn)
    negative = any(n < 0 for pair in params["padding"] for n in pair)
    if negative or not 1 < prod(window) <= _LARGEST_WINDOW:
        return None
    native = _native(eqn)
    padding = params["padding"]

    def on_cpu(x: jax.Array, y: jax.Array, cotangent: jax.Array) -> jax.Array:
        return _to_winners(x, y, cotangent, window, strides, padding)

    def elsewhere(x: jax.Array, y: jax.Array, cotangent: jax.Array) -> jax.Array:
        return jax.vjp(native, x)[1](cotangent)[0]

    def backward(*operands: jax.Array) -> jax.Array:
        return jax.lax.platform_dependent(*operands, cpu=on_cpu, default=elsewhere)

    return _with_backward(native, backward)


def _dilated_extreme(eqn: Equation) -> Callable[..., jax.Array]:
    """Max (min) pooling with gaps, which JAX has no derivative of: the first winner takes all."""
    params, sign = eqn.params, -1 if eqn.primitive is _POOL_MIN else 1
    window, strides, gaps = (
        params[name] for name in ("window_dimensions", "window_strides", "window_dilation")
    )
    fill = [
        (low, high, dilation - 1)
        for (low, high), dilation in zip(params["padding"], params["base_dilation"], strict=True)
    ]

    def backward(x: jax.Array, y: jax.Array, cotangent: jax.Array) -> jax.Array:
        span = [(n - 1) * s + 1 for n, s in zip(y.shape, strides, strict=True)]

        def slices(x: jax.Array, padding: float) -> jax.Array:
            padded = jax.lax.pad(x, np.array(padding, x.dtype), fill)
            starts = np.array([*np.ndindex(*window)]) * gaps
            parts = [jax.lax.slice(padded, start, start + span, strides) for start in starts]
            return jnp.stack(parts)

        winner = jax.lax.argmax(slices(sign * x, -np.inf), 0, np.int32)
        chosen = winner == jax.lax.broadcasted_iota(np.int32, (prod(window), *y.shape), 0)
        (back,) = jax.linear_transpose(lambda v: slices(v, 0.0), x)(jnp.where(chosen, cotangent, 0))
        return back

    return _with_backward(_native(eqn), backward)


def _to_winners(
    x: jax.Array, y: jax.Array, cotangent: jax.Array,
    window: Sequence[int], strides: Sequence[int], padding: Sequence[tuple[int, int]],
) -> jax.Array:  # fmt: skip
    """Each cotangent at the first maximum of its window.

    The input is cut into blocks as large as the strides. A window covers one block, or where
    windows overlap a few; for each of those, every cotangent is spread over the block and kept
    where its winner is.
    """
    winner = _winners(x, y, window, strides, padding)
    covered = [-(-k // s) for k, s in zip(window, strides, strict=True)]
    total: Any = 0.0
    for block in product(*map(range, covered)):
        shift = [(b, c - 1 - b, 0) for b, c in zip(block, covered, strict=True)]
        place = _places(block, window, strides)
        won = _spread(jax.lax.pad(winner, np.uint8(255), shift)) == place
        given = _spread(jax.lax.pad(cotangent, np.zeros((), cotangent.dtype), shift))
        total = total + jnp.where(won, given, 0)
    merged = total.reshape(
        [blocks * s for blocks, s in zip(total.shape[::2], strides, strict=True)]
    )
    cut = [
        (-low, n + low - m, 0)
        for (low, _), n, m in zip(padding, x.shape, merged.shape, strict=True)
    ]
    return jax.lax.pad(merged, np.zeros((), merged.dtype), cut)


def _winners(
    x: jax.Array, y: jax.Array,
    window: Sequence[int], strides: Sequence[int], padding: Sequence[tuple[int, int]],
) -> jax.Array:  # fmt: skip
    """For each output the position of its first maximum in the window, in row-major order."""
    span = [(n - 1) * s + 1 for n, s in zip(y.shape, strides, strict=True)]
    fill = [
        (low, r + k - 1 - low - n, 0)
        for (low, _), r, k, n in zip(padding, span, window, x.shape, strict=True)
    ]
    padded = jax.lax.pad(x, np.array(-np.inf, x.dtype), fill)
    # Numbers are compared with each other, and not with the maximum: a compiler that computes them
    # twice, once for each, may round them otherwise.
    best: Any = None
    winner: Any = np.zeros(y.shape, np.uint8)
    for place, offset in enumerate(np.ndindex(*window)):
        end = [o + r for o, r in zip(offset, span, strict=True)]
        part = jax.lax.slice(padded, offset, end, strides)
        if best is not None:
            winner = jnp.where(part > best, np.uint8(place), winner)
        best = part if best is None else jnp.maximum(best, part)
    return winner


def _places(block: Sequence[int], window: Sequence[int], strides: Sequence[int]) -> jax.Array:
    """Positions in the window of one block's elements, 254 for those outside of it."""
    axes = [b * s + np.arange(s) for b, s in zip(block, strides, strict=True)]
    grid = np.meshgrid(*axes, indexing="ij")
    inside = np.all([g < k for g, k in zip(grid, window, strict=True)], axis=0)
    flat = np.ravel_multi_index(grid, window, mode="clip")
    shape = [n for s in strides for n in (1, s)]
    return jnp.asarray(np.where(inside, flat, 254).astype(np.uint8).reshape(shape))


def _spread(x: jax.Array) -> jax.Array:
    """An axis of length one after every axis."""
    return x.reshape([n for size in x.shape for n in (size, 1)])


# -- convolutions -----------------------------------------------------------------------------


def _convolution(eqn: Equation) -> Callable[..., jax.Array] | None:
    params = eqn.params
    numbers = params["dimension_numbers"]
    x, w = (a.aval.shape for a in eqn.invars)
    dilated = any(d != 1 for d in (*params["lhs_dilation"], *params["rhs_dilation"]))
    cropped = any(n < 0 for pair in params["padding"] for n in pair)
    if dilated or cropped or params["batch_group_count"] != 1 or len(w) == 2:
        return None
    kernel = [w[i] for i in numbers.rhs_spec[2:]]
    groups = params["feature_group_count"]
    channels, outputs = x[numbers.lhs_spec[1]], w[numbers.rhs_spec[0]]
    if groups == channels == outputs > 1 and prod(kernel) <= _LARGEST_WINDOW:
        strides, padding = tuple(params["window_strides"]), tuple(map(tuple, params["padding"]))
        conv = Depthwise(numbers, strides, padding, tuple(kernel), params["preferred_element_type"])
        return _chosen(_native(eqn), conv, forward_too=True, back=conv.transposed)
    apart = all(k <= s for k, s in zip(kernel, params["window_strides"], strict=True))
    unpadded = all(n == 0 for pair in params["padding"] for n in pair)
    if groups == 1 and apart and unpadded and prod(kernel) > 1:
        return _chosen(_native(eqn), _patches(params, kernel), forward_too=False)
    if groups == 1:
        return _chosen(_native(eqn), _output_channels_first(params), False, inputs_only=True)
    return None


def _chosen(
    native: Callable[..., jax.Array],
    on_cpu: Callable[..., jax.Array],
    forward_too: bool,
    inputs_only: bool = False,
    back: Callable[..., jax.Array] | None = None,
) -> Callable[..., jax.Array]:
    """A bilinear function whose transposes on CPUs, or also itself, are those of another.

    With `inputs_only` that is the transpose in the first argument alone; `back` is a better one,
    from a cotangent, the second argument and a shape.
    """

    def run(x: jax.Array, w: jax.Array) -> jax.Array:
        if not forward_too:
            return native(x, w)
        return jax.lax.platform_dependent(x, w, cpu=on_cpu, default=native)

    def transposed(cotangent: jax.Array, other: Any, like: Any, argument: int) -> jax.Array:
        """The transpose in one argument; the other one is all that it reads."""

        def pull(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
            def of(cotangent: jax.Array, other: jax.Array) -> jax.Array:
                fixed = (lambda v: function(v, other)) if argument == 0 else (
                    lambda v: function(other, v)
                )  # fmt: skip
                return jax.linear_transpose(fixed, like)(cotangent)[0]

            return of

        if inputs_only and argument == 1:
            return pull(native)(cotangent, other)
        there = pull(on_cpu)
        if back is not None and argument == 0:
            there = lambda cotangent, w: back(cotangent, w, like)  # noqa: E731
        return jax.lax.platform_dependent(cotangent, other, cpu=there, default=pull(native))

    @jax.custom_vjp
    def layer(x: jax.Array, w: jax.Array) -> jax.Array:
        return run(x, w)

    def forward(x: Any, w: Any) -> tuple[jax.Array, Any]:
        # A transpose reads the other operand; the one that nobody asks for is not even traced.
        needed = (w.value if x.perturbed else None, x.value if w.perturbed else None)
        return run(x.value, w.value), (*needed, _shape_alone(x.value), _shape_alone(w.value))

    def backward(saved: Any, cotangent: Any) -> tuple[Any, ...]:
        by_x, by_w, x, w = saved
        if isinstance(cotangent, jax.custom_derivatives.SymbolicZero):
            return None, None
        return (
            None if by_x is None else transposed(cotangent, by_x, _like(x), argument=0),
            None if by_w is None else transposed(cotangent, by_w, _like(w), argument=1),
        )

    layer.defvjp(forward, backward, symbolic_zeros=True)
    return layer


def _shape_alone(x: jax.Array) -> jax.Array:
    """An array of no numbers that has the shape and type of another after its first axis."""
    return jnp.zeros((0, *x.shape), x.dtype)


def _like(shape_alone: jax.Array) -> Any:
    return jax.ShapeDtypeStruct(shape_alone.shape[1:], shape_alone.dtype)


def _output_channels_first(params: Any) -> Callable[..., jax.Array]:
    """A convolution whose transpose in its input has the one form of kernel that is fast on CPUs.

    XLA brings other forms into it itself, but not in the body of a loop, where they are computed
    element by element.
    """
    numbers, rank = params["dimension_numbers"], len(params["window_strides"])
    data, space = (0, rank + 1, *range(1, rank + 1)), tuple(range(rank))

    def convolve(x: jax.Array, w: jax.Array) -> jax.Array:
        x, w = channels_last(x, w, numbers)
        y = jax.lax.conv_general_dilated(
            x, jnp.swapaxes(w, -1, -2), params["window_strides"], params["padding"],
            dimension_numbers=jax.lax.ConvDimensionNumbers(data, (rank, rank + 1, *space), data),
            precision=params["precision"], preferred_element_type=params["preferred_element_type"],
        )  # fmt: skip
        return as_specified(y, numbers.out_spec)

    return convolve


def _patches(params: Any, kernel: Sequence[int]) -> Callable[..., jax.Array]:
    """A convolution whose windows do not overlap, as one product of matrices."""
    numbers, strides = params["dimension_numbers"], params["window_strides"]
    rank = len(kernel)

    def convolve(x: jax.Array, w: jax.Array) -> jax.Array:
        x, w = channels_last(x, w, numbers)
        counts = [(n - k) // s + 1 for n, k, s in zip(x.shape[1:-1], kernel, strides, strict=True)]
        # The last block may lack what its kernel does not read.
        cut = [(0, c * s - n, 0) for c, s, n in zip(counts, strides, x.shape[1:-1], strict=True)]
        x = jax.lax.pad(x, np.zeros((), x.dtype), [(0, 0, 0), *cut, (0, 0, 0)])
        blocks = [n for c, s in zip(counts, strides, strict=True) for n in (c, s)]
        x = x.reshape(x.shape[0], *blocks, x.shape[-1])
        for axis, k in enumerate(kernel):
            x = jax.lax.slice_in_dim(x, 0, k, axis=2 + 2 * axis)
        inside = (*range(2, 2 * rank + 1, 2), 2 * rank + 1)
        contract = (inside, tuple(range(rank + 1)))
        y = jax.lax.dot_general(
            x, w, (contract, ((), ())), precision=params["precision"],
            preferred_element_type=params["preferred_element_type"],
        )  # fmt: skip
        return as_specified(y, numbers.out_spec)

    return convolve
