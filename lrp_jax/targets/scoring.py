"""The explained argument of a call, the score that a target names, sums over copies of the input.

For what asks the model again and again: the baselines and the measures.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .._propagation.forward import forward
from .._warnings import warn
from . import several, starts
from .examples import reading_of_call, settled


def pick(args: tuple[Any, ...], argnums: Any) -> Any:
    wanted = argnums if isinstance(argnums, tuple) else (argnums,)
    for n in wanted:
        if not -len(args) <= n < len(args):
            raise ValueError(
                f"argnums={argnums} names an argument that is not there: {len(args)} were given"
            )
    return tuple(args[n] for n in argnums) if isinstance(argnums, tuple) else args[argnums]


def replace(args: tuple[Any, ...], argnums: Any, values: Any) -> tuple[Any, ...]:
    replaced = list(args)
    if isinstance(argnums, tuple):
        for n, value in zip(argnums, values, strict=True):
            replaced[n] = value
    else:
        replaced[argnums] = values
    return tuple(replaced)


def floating(x: Any) -> Array:
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"an explained argument has dtype {x.dtype}, only floating point inputs can be "
            "explained here; cast counts and pixels to float"
        )
    return x


def require_array(x: Any, name: str) -> Array:
    if not hasattr(x, "shape"):
        raise TypeError(f"{name} explains one array, got {jax.tree.structure(x)}")
    return jnp.asarray(x)


def require_floats(x: Array, name: str, remedy: str) -> None:
    """Refuse token ids where numbers are needed that can be changed a little."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name} changes its input by numbers, which has dtype {x.dtype}; {remedy}")


def float_like(values: Any, x: Array) -> Array:
    """Numbers in the dtype of an input, as floats where that holds integers."""
    return jnp.asarray(values, x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else float)


_MAKES_EXPLANATIONS = ("lrp_jax.transform", "lrp_jax.baselines")


def require_key(key: Any) -> None:
    """Refuse what is no random key, such as the number that one is made of."""
    dtype = getattr(key, "dtype", None)
    if dtype is None or not (jnp.issubdtype(dtype, jax.dtypes.prng_key) or dtype == jnp.uint32):
        raise TypeError(f"key is a random key of JAX, such as jax.random.key(0), got {key!r}")


def require_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")


def require_function(f: Any, name: str) -> None:
    """Refuse an explanation in the place of the function that it explains."""
    if not callable(f):
        raise TypeError(f"{name} takes the function that was explained, got {type(f).__name__}")
    made = inspect.unwrap(f)
    maker = str(getattr(made, "__qualname__", "")).partition(".")[0]
    module = str(getattr(made, "__module__", ""))
    if module.startswith(_MAKES_EXPLANATIONS) and maker != "lrp_transform":
        raise TypeError(
            f"{name} asks the function that was explained, and got an explanation: write "
            f"{name}(apply_fn)(params, x, relevance=explain(params, x))"
        )


def explaining(explain: Any, name: str) -> Callable[..., Any]:
    """An explanation that says so where it is none, but the function to explain."""
    remedy = (
        f"{name} takes an explanation, a function of (params, x, target=...) such as "
        "lrp.relevance(apply_fn, composite); got "
    )
    if not callable(explain):
        raise TypeError(f"{remedy}{type(explain).__name__}")

    def asked(*args: Any, target: Any) -> Any:
        try:
            return explain(*args, target=target)
        except TypeError as error:
            if "unexpected keyword argument 'target'" not in str(error):
                raise
            shown = getattr(explain, "__qualname__", type(explain).__name__)
            raise TypeError(f"{remedy}{shown}, which takes no target") from error

    return asked


def require_one(target: Any) -> None:
    """Refuse several targets where one score is needed."""
    if several.is_each(target):
        raise TypeError(several.EACH)


def weights(
    output: Any, target: Any, f: Callable[..., Any] | None = None, args: Any = (), argnums: Any = 1
) -> Any:
    """The weights of the explained score of `f(*args)`, constant from here on."""
    require_one(target)
    if f is not None:
        target, note = settled(output, target, reading_of_call(f, args, argnums, output))
        if note:
            warn(note)
    weights = starts.weighting(output, target)
    if weights is None:
        relevance = starts.start(output, target)
        weights = jax.tree.map(
            lambda r, y: jnp.where(y == 0, 0, r / jnp.where(y == 0, 1, y)), relevance, output
        )
    return jax.lax.stop_gradient(weights)


def gradient(model: Callable[[Any], Any], x: Any, weights: Any) -> Any:
    _, pullback = jax.vjp(model, x)
    return pullback(weights)[0]


def score(output: Any, weights: Any) -> Array:
    """The explained score of each example (of the whole where there is no batch axis)."""
    scores = [
        (w * y).sum(tuple(range(1, y.ndim)))
        for w, y in zip(jax.tree.leaves(weights), jax.tree.leaves(output), strict=True)
    ]
    return sum(scores[1:], scores[0])


def sum_examples(relevance: Any, shape: tuple[int, ...]) -> Array:
    leaves = jax.tree.leaves(relevance)
    if len(shape) == 1 and all(r.ndim and r.shape[0] == shape[0] for r in leaves):
        result: Array = sum(r.sum(tuple(range(1, r.ndim))) for r in leaves)
        return result
    raise ValueError(
        "the completeness gap needs inputs and outputs with one batch axis in front, got "
        f"{[r.shape for r in leaves]} and {shape}"
    )


def baseline(baseline: Any, x: Any) -> Any:
    if callable(baseline):
        baseline = baseline(x)
    if baseline is None:
        return jax.tree.map(jnp.zeros_like, x)

    def like(value: Any, leaf: Array) -> Array:
        try:
            return jnp.broadcast_to(jnp.asarray(value, leaf.dtype), leaf.shape)
        except (TypeError, ValueError):
            shown = repr(value) if np.ndim(value) == 0 else f"an array {np.shape(value)}"
            raise ValueError(
                "a baseline is a number, an array that broadcasts to the input, of shape "
                f"{leaf.shape}, or a function of it; got {shown}"
            ) from None

    structure: Any = jax.tree.structure(x)
    if jax.tree.structure(baseline) != structure:
        return jax.tree.map(lambda leaf: like(baseline, leaf), x)
    return jax.tree.map(like, baseline, x)


def per_axis(name: str, value: int | tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    values = (value,) * len(axes) if isinstance(value, int) else tuple(value)
    if len(values) != len(axes) or min(values) < 1:
        raise ValueError(
            f"{name}={value} must hold {len(axes)} positive sizes, one for each axis {axes}"
        )
    return values


def sum_of(one: Callable[[Any], Any], items: Any, count: int, chunk: int | None) -> Any:
    """`sum_k one(items[k])`, at most `chunk` of them alive at a time."""
    size = count if chunk is None else min(chunk, count)
    require_positive("chunk", size)

    def together(part: Any) -> Any:
        return jax.tree.map(lambda r: r.sum(0), jax.vmap(one)(part))

    whole = count // size * size
    head = jax.tree.map(lambda a: a[:whole].reshape(-1, size, *a.shape[1:]), items)
    rest = jax.tree.map(lambda a: a[whole:], items)
    first = jax.tree.map(lambda a: a[0], head)
    total = together(first)
    if whole > size:
        total, _ = jax.lax.scan(
            lambda sofar, part: (jax.tree.map(jnp.add, sofar, together(part)), None),
            total,
            jax.tree.map(lambda a: a[1:], head),
        )
    if whole < count:
        total = jax.tree.map(jnp.add, total, together(rest))
    return total


def spatial_axes(shape: tuple[int, ...], axes: tuple[int, ...] | None) -> tuple[int, ...]:
    """The axes that hold positions: all but the batch and, from three axes on, the channels.

    >>> spatial_axes((2, 28, 28, 3), None), spatial_axes((2, 10), None)
    ((1, 2), (1,))
    """
    ndim = len(shape)
    if axes is None:
        if ndim < 2:
            raise ValueError(
                f"a batch axis and at least one more are needed, got the shape {shape}"
            )
        return tuple(range(1, max(ndim - 1, 2)))
    if not axes or any(not 0 < a < ndim for a in axes) or len(set(axes)) != len(axes):
        raise ValueError(f"axes {axes} must be distinct axes 1 to {ndim - 1} of the shape {shape}")
    return tuple(sorted(axes))


def question(
    f: Callable[..., Any], argnums: int, args: tuple[Any, ...], target: Any, name: str
) -> tuple[Array, Callable[[Array], Any], Any]:
    """The explained argument, the model as a function of it, and the weights of the score."""
    x = require_array(pick(args, argnums), name)

    def model(x: Array) -> Any:
        return forward(f)(*replace(args, argnums, x))

    return x, model, weights(model(x), target, f, args, argnums)


def measure(f: Callable[..., Any], run: Callable[..., Any]) -> Callable[..., Any]:
    """A compiled `run(args, relevance, target, ...)` as `(*args, relevance, target=None, ...)`."""
    name = getattr(run, "func", run).__qualname__.partition(".")[0]
    require_function(f, name)
    shapes = jax.jit(f)

    def evaluate(*args: Any, relevance: Any, target: Any = None, **named: Any) -> Any:
        if callable(relevance):
            raise TypeError(
                "relevance is an array, what the explanation returned: relevance=explain(*args)"
            )
        return run(args, jnp.asarray(relevance), checked_target(shapes, args, target), **named)

    evaluate.__qualname__ = f"{name}(f)"  # what Python says where an argument is missing
    return evaluate


def as_argument(target: Any) -> Any:
    """A target that `jit` takes as an argument: plain functions become part of the compiled key."""
    # The targets that this package makes are trees of arrays already, a plain function is a leaf.
    if callable(target) and jax.tree_util.all_leaves([target]):
        return jax.tree_util.Partial(target)  # type: ignore[no-untyped-call]
    return target


def checked_target(f: Callable[..., Any], args: tuple[Any, ...], target: Any) -> Any:
    """A target as an argument of `jit`, its class indices checked while they can be seen.

    `f` is a function made by `jax.jit`, which remembers the shape of its output.
    """
    if target is not None and (not callable(target) or starts.is_helper(target)):
        starts.check(jax.eval_shape(f, *args), target)
    return as_argument(target)
