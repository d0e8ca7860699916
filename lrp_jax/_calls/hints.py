"""What is probably wrong with a call that failed: another call is tried, on shapes alone."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np

from .._analysis.trace import is_array

P = ParamSpec("P")
R = TypeVar("R")


def no_target(make: Callable[P, R]) -> Callable[P, R]:
    """Let a function that makes an explanation say where `target=` belongs.

    Args:
        make: `make(apply_fn, composite, ...)`, whose result is called with a target.

    Returns:
        The same function, with that message in the place of Python's.
    """

    @functools.wraps(make)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if "target" in kwargs:
            name = getattr(make, "__name__", "explain")
            raise TypeError(
                f"{name}(..., target=...) makes the function that explains; what is explained is "
                f"said where that is called: {name}(apply_fn, composite)(params, x, target=...)"
            )
        return make(*args, **kwargs)

    return checked


def add_to(
    error: Exception,
    function: Callable[..., Any],
    argnums: Sequence[int],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """Add notes to the error of a call that the user's function has refused.

    Args:
        error: what was raised.
        function: the user's function.
        argnums: the explained arguments.
        args: the positional arguments of the call.
        kwargs: its other arguments.
    """
    if isinstance(error, _UNKNOWN):
        error.add_note(
            "lrp_jax: the explained function is traced, as by jax.jit: its values are unknown to "
            "`if`, `while`, float() and NumPy. Write jnp.where, jax.lax.cond, jax.numpy."
        )
        return
    for text in _found(function, argnums, args, kwargs):
        error.add_note(f"lrp_jax: {text}")


def _found(
    function: Callable[..., Any],
    argnums: Sequence[int],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Iterator[str]:
    if not args:
        return
    if hasattr(function, "init") and hasattr(function, "apply"):
        yield from _linen(function)
        return
    if hasattr(function, "stateless_call"):
        yield (
            "a Keras model holds its variables. Explain "
            "lambda v, x: model.stateless_call(*v, x, training=False)[0], called with "
            "v = ([v.value for v in model.trainable_variables], "
            "[v.value for v in model.non_trainable_variables])."
        )
        return
    called = _called_model(function, args, kwargs)
    if called:
        yield called
        return
    explained = {number % len(args) for number in argnums}
    last = len(args) - 1
    if "target" in kwargs:
        yield (
            "this call has the arguments of the explained function alone, and no target. "
            "relevance(apply_fn, composite)(params, x, target=...) takes one; with lrp_transform "
            "the cotangent given to the pullback of jax.vjp says what is explained."
        )
    elif kwargs and _runs(function, args, {}):
        names = ", ".join(f"{name}=" for name in kwargs)
        yield (
            f"without {names} the function runs: keywords are passed on to it, all but target=, "
            "which says what is explained: explain(params, x, target=...)."
        )
    elif mode := next((m for m in _MODES if _runs(function, args, {**kwargs, **m})), None):
        ((name, value),) = mode.items()
        yield (
            f"with {name}={value} the function runs. Explain a model as it predicts: "
            f"explain(params, x, {name}={value})."
        )
    elif last == 1 and _runs(function, (args[0], None, args[1]), kwargs):
        yield (
            "with None between its arguments the function runs: Haiku's apply takes a random key "
            "there. Explain hk.without_apply_rng(net).apply, or say argnums=2 and call "
            "explain(params, None, x)."
        )
    elif (
        last > 0
        and last not in explained
        and _may_be_target(args[last])
        and _runs(function, args[:last], kwargs)
    ):
        yield (
            "without its last argument the function runs. A target is passed by its name: "
            "explain(params, x, target=...)."
        )
    elif _swapped(function, explained, args, kwargs):
        order = "x, params" if argnums[0] == 0 else "params, x"
        yield (
            "the explained argument looks like the parameters. Are they swapped? "
            f"argnums={argnums[0]} counts from 0: explain({order})."
        )
    elif _runs(function, args, kwargs):
        return
    elif _runs(function, _one_example(explained, args), kwargs):
        yield (
            "for one example the function runs: it takes no batch. Explain "
            "lambda params, x: jax.vmap(lambda one: apply_fn(params, one))(x)."
        )
    elif _runs(function, _with_axes(_LAST, explained, args), kwargs):
        yield (
            "with the channels last the function runs: x.transpose(0, 2, 3, 1) of pictures that "
            "have them first."
        )
    elif _runs(function, _with_axes(_FIRST, explained, args), kwargs):
        yield (
            "with the channels first the function runs: x.transpose(0, 3, 1, 2) of pictures that "
            "have them last."
        )
    elif _runs(function, _batch_of_one(explained, args), kwargs):
        yield (
            "for a batch of one the function runs: the explained argument has the batch in front, "
            "x[None] for one example."
        )


_UNKNOWN = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)
"""What JAX raises where code asks for the value of an array that is traced."""

_MODES: Sequence[dict[str, Any]] = (
    {"train": False},
    {"training": False},
    {"is_training": False},
    {"deterministic": True},
    {"use_running_average": True},
    {"inference": True},
)
"""How models are told to predict."""


def _linen(module: Any) -> Iterator[str]:
    if getattr(module, "scope", None) is None:
        yield "explain the function model.apply, not the module itself."
    else:
        yield (
            "the module is bound to its variables, and layers get their names from the arguments. "
            "Take it apart, module, variables = model.unbind(), and explain its function: "
            "relevance(module.apply, composite)(variables, x)."
        )


def _called_model(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> str | None:
    """What to write where the function is a model that holds its parameters."""
    if not any(map(is_array, jax.tree.leaves(function))):
        return None
    inputs = args[1:] if type(args[0]) is type(function) else args
    names = "x" if len(inputs) == 1 else "*inputs"
    for call, given in (
        ("model", inputs),
        ("jax.vmap(model)", _one_example(range(len(inputs)), inputs)),
    ):
        if _runs(function, given, kwargs):
            return (
                "the model itself is an argument of what is explained, so that its layers have "
                "names and its weights may change: "
                f"relevance(lambda model, {names}: {call}({names}), composite)(model, {names})."
            )
    return None


def _one_example(explained: Iterable[int], args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments, of explained ones the shapes without their first axis."""
    return _reshaped(lambda shape: shape[1:], explained, args)


def _batch_of_one(explained: Iterable[int], args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments, of explained ones the shapes with an axis in front."""
    return _reshaped(lambda shape: (1, *shape), explained, args)


_LAST, _FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def _with_axes(
    order: tuple[int, ...], explained: Iterable[int], args: tuple[Any, ...]
) -> tuple[Any, ...]:
    """The arguments, of explained pictures the shapes with axes in another order."""

    def turned(shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(shape[i] for i in order) if len(shape) == 4 else shape

    return _reshaped(turned, explained, args)


def _reshaped(
    change: Callable[[tuple[int, ...]], tuple[int, ...]],
    explained: Iterable[int],
    args: tuple[Any, ...],
) -> tuple[Any, ...]:
    def one(leaf: Any) -> Any:
        if not is_array(leaf):
            return leaf
        return _shaped(leaf, change(np.shape(leaf)))

    numbers = set(explained)
    return tuple(jax.tree.map(one, a) if i in numbers else a for i, a in enumerate(args))


def _may_be_target(value: Any) -> bool:
    return callable(value) or isinstance(value, list) or np.isscalar(value) or is_array(value)


def _swapped(
    function: Callable[..., Any],
    explained: set[int],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> bool:
    others = [n for n in range(len(args)) if n not in explained]
    if not others:
        return False
    held = [not jax.tree_util.all_leaves([args[n]]) for n in explained]
    rest = [not jax.tree_util.all_leaves([args[n]]) for n in others]
    if all(held) and not any(rest):
        return True
    exchanged, ours, other = list(args), min(explained), others[0]
    exchanged[ours], exchanged[other] = args[other], args[ours]
    return _runs(function, tuple(exchanged), kwargs)


def _shaped(leaf: Any, shape: tuple[int, ...]) -> Any:
    """An array's dtype, as JAX would have it, and another shape."""
    return jax.ShapeDtypeStruct(shape, jax.eval_shape(lambda a: a, leaf).dtype)


def _runs(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call can be traced."""
    leaves, tree = jax.tree.flatten((args, kwargs))
    arrays = [is_array(leaf) for leaf in leaves]

    def run(*values: Any) -> None:
        given = iter(values)
        merged = [next(given) if a else leaf for leaf, a in zip(leaves, arrays, strict=True)]
        positional, named = jax.tree.unflatten(tree, merged)
        function(*positional, **named)

    shapes = [_shaped(leaf, np.shape(leaf)) for leaf, a in zip(leaves, arrays, strict=True) if a]
    try:
        jax.eval_shape(run, *shapes)
    except Exception:  # whatever a model raises
        return False
    return True
