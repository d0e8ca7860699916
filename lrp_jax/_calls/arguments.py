"""The arguments of a call: which are explained, and what is wrong with them."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._analysis.trace import is_array
from .._tables import counted

ArgNums = int | Sequence[int]


def argument_numbers(argnums: ArgNums) -> tuple[int, ...]:
    numbers = tuple(argnums) if isinstance(argnums, tuple | list) else (argnums,)
    if not numbers or not all(isinstance(n, int | np.integer) for n in numbers):
        raise TypeError(f"argnums is an int or a tuple of ints, got {argnums!r}.")
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"argnums={argnums!r} names an argument twice.")
    return tuple(int(n) for n in numbers)


def belongs_to(path: Any, numbers: Sequence[int]) -> bool:
    return path[0].idx == 0 and len(path) > 1 and path[1].idx in numbers


def _explained_leaf(number: int, leaf: Any) -> Any:
    value = leaf if is_array(leaf) else np.asarray(leaf) if np.isscalar(leaf) else leaf
    dtype = getattr(value, "dtype", None)
    written = isinstance(leaf, bool | int)  # an int written in Python, perhaps in a list
    real = dtype is not None and any(
        jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer)
    )
    if written or not real:
        shown = f"dtype {dtype}" if dtype is not None and not written else type(leaf).__name__
        raise TypeError(
            f"argument {number} is explained and must hold floating-point arrays, got {shown}. "
            "Cast images with x.astype(jnp.float32). Integers, such as token ids, are explained as "
            "arrays where they look up rows of tables. Truth values, such as a mask beside the "
            "data, are an argument of their own, or integers."
        )
    return jnp.asarray(value) if isinstance(value, np.ndarray | np.generic) else value


def checked(
    args: tuple[Any, ...], numbers: Sequence[int]
) -> tuple[tuple[Any, ...], tuple[int, ...]]:
    """The arguments with arrays where they are explained, and which those are, counted from 0."""
    for number in numbers:
        if not -len(args) <= number < len(args):
            raise ValueError(
                f"argnums={number} is out of range: the call has "
                f"{counted(len(args), 'positional argument')} (argnums counts them from 0, as in "
                "jax.grad; the default is 1, for apply_fn(params, x)). Pass the parameters, or the "
                "model, as an argument: relevance(lambda model, x: model(x), composite)(model, x). "
                "A class to explain is the call's target: (params, x, target=...)."
            )
    numbers = tuple(n % len(args) for n in numbers)
    converted = list(args)
    if not jax.tree.leaves([args[number] for number in numbers]):
        shown = ", ".join(str(number) for number in numbers)
        raise TypeError(
            f"argument {shown} is explained and holds no arrays. argnums says which arguments are "
            "explained, counted from 0: is it right for this call?"
        )
    for number in numbers:
        converted[number] = jax.tree.map(partial(_explained_leaf, number), args[number])
    return tuple(converted), numbers
