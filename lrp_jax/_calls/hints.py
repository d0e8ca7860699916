"""What is probably wrong with a call that failed: another call is tried, on shapes alone."""

import functools
from collections.abc import Callable, Iterator, Sequence
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
    for text in _found(function, argnums, args, kwargs):
        error.add_note(f"lrp_jax: {text}")


def _found(
    function: Callable[..., Any],
    argnums: Sequence[int],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Iterator[str]:
    if hasattr(function, "init") and hasattr(function, "apply"):
        yield "explain the function model.apply, not the module itself."
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


def _runs(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call can be traced."""
    leaves, tree = jax.tree.flatten((args, kwargs))
    arrays = [is_array(leaf) for leaf in leaves]

    def run(*values: Any) -> None:
        given = iter(values)
        merged = [next(given) if a else leaf for leaf, a in zip(leaves, arrays, strict=True)]
        positional, named = jax.tree.unflatten(tree, merged)
        function(*positional, **named)

    shapes = [
        jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype)
        for leaf, a in zip(leaves, arrays, strict=True)
        if a
    ]
    try:
        jax.eval_shape(run, *shapes)
    except Exception:  # whatever a model raises
        return False
    return True
