"""Whether the numbers of an output (n,) are n examples or the n classes of one example.

The output alone does not say. A function that maps examples takes any number of them: it is asked,
on shapes, for one more. Where its output grows with its input the numbers are examples.
"""

import enum
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._analysis.trace import is_array
from . import several, starts


class Reading(enum.Enum):
    """What the axis of an output with one axis holds."""

    CLASSES = "one example's classes, or an output with other axes"
    EXAMPLES = "one number for each example"
    PERHAPS_EXAMPLES = "the output grows with the one axis of the input"
    PERHAPS_CLASSES = "as long as the input, and the function takes no other length"


def reading(
    function: Callable[[Sequence[Any]], Any],
    leaves: Sequence[Any],
    explained: Sequence[bool],
    output: Any,
) -> Reading:
    """What the axis of an output with one axis holds; nothing is computed.

    Args:
        function: from array leaves to the output.
        leaves: the array leaves of the call.
        explained: which of them are explained.
        output: the output of the call, or its shapes.
    """
    shape: tuple[int, ...] = tuple(getattr(output, "shape", ()))
    if len(shape) != 1 or shape[0] < 2:
        return Reading.CLASSES
    leading = [np.shape(leaf)[:1] == shape for leaf in leaves]
    ours = [flag and lead for flag, lead in zip(explained, leading, strict=True)]
    if not any(ours):
        return Reading.CLASSES
    vectors = all(np.ndim(leaf) == 1 for leaf, our in zip(leaves, ours, strict=True) if our)
    # With one example more, alone and together with what else may have one entry for each.
    for longer in (ours, leading):
        shapes = [_longer(leaf, flag) for leaf, flag in zip(leaves, longer, strict=True)]
        try:
            found = jax.eval_shape(lambda *values: function(values), *shapes)
        except Exception:  # whatever a model raises for a shape that it does not take
            continue
        if np.shape(found) == shape:
            return Reading.CLASSES
        if np.shape(found) == (shape[0] + 1,):
            return Reading.PERHAPS_EXAMPLES if vectors else Reading.EXAMPLES
    return Reading.CLASSES if vectors else Reading.PERHAPS_CLASSES


def reading_of_call(
    f: Callable[..., Any], args: tuple[Any, ...], argnums: Any, output: Any
) -> Reading:
    """`reading` of the call `f(*args)`, whose leaves that are no arrays are left as they are.

    Args:
        f: the function called.
        args: its arguments.
        argnums: the explained ones: a number, or a tuple of numbers.
        output: the output of the call, or its shapes.
    """
    numbers = {n % len(args) for n in (argnums if isinstance(argnums, tuple) else (argnums,))}
    flags = [n in numbers for n, arg in enumerate(args) for _ in jax.tree.leaves(arg)]
    leaves, tree = jax.tree.flatten(args)
    arrays = [is_array(leaf) for leaf in leaves]

    def function(values: Sequence[Any]) -> Any:
        given = iter(values)
        merged = [next(given) if a else leaf for leaf, a in zip(leaves, arrays, strict=True)]
        return f(*jax.tree.unflatten(tree, merged))

    chosen = [(leaf, flag) for leaf, flag, a in zip(leaves, flags, arrays, strict=True) if a]
    return reading(function, [leaf for leaf, _ in chosen], [flag for _, flag in chosen], output)


def _longer(leaf: Any, flag: bool) -> Any:
    shape = np.shape(leaf)
    return jax.ShapeDtypeStruct((shape[0] + 1, *shape[1:]) if flag else shape, leaf.dtype)


def settled(output: Any, target: Any, reading: Reading) -> tuple[Any, str]:
    """The target that `target` means for such an output, and what the caller should know.

    Args:
        output: the output of the call, or its shapes.
        target: see `lrp_jax.targets`.
        reading: what the output's axis holds.

    Returns:
        The target, and a warning or "".
    """
    if several.is_each(target):
        both = [settled(output, one, reading) for one in target.targets]
        return several.each([one for one, _ in both]), next((n for _, n in both if n), "")
    if reading is Reading.CLASSES:
        return target, _of_every_position(output) if target is None else ""
    n = output.shape[0]
    if target is None:
        if reading is Reading.PERHAPS_CLASSES:
            return None, (
                f"the output ({n},) is as long as the explained input's first axis, and the "
                "function takes no other length: it is read as the classes of one example, and "
                "the largest is explained. For one number for each example write "
                f"target=jnp.ones({n}); for the largest write target=targets.top_k(1)."
            )
        every = jnp.ones(n, output.dtype)
        if reading is Reading.EXAMPLES:
            return every, ""
        return every, (
            f"the output ({n},) grows with the explained input's one axis: it is read as one "
            f"number for each of {n} examples, and each is explained. To say so write "
            f"target=jnp.ones({n}); for the largest of {n} classes write target=targets.top_k(1)."
        )
    if reading is Reading.EXAMPLES and _names_classes(target):
        return target, (
            f"the output ({n},) has one number for each example and no class axis, so this "
            "target chooses among examples. target=None explains each example's number; if they "
            "are the classes of one example, explain a function that returns output[None]."
        )
    return target, ""


def _of_every_position(output: Any) -> str:
    shape: tuple[int, ...] = tuple(getattr(output, "shape", ()))
    positions = math.prod(shape[1:-1])
    if len(shape) < 3 or positions < 2 or shape[-1] < 2:
        return ""
    return (
        f"target=None explains the largest class at each of the {positions} positions of the "
        f"output {shape}, all of them together. For one position write target=targets.token(i), "
        "for some targets.mask(positions); to say that all are meant, targets.top_k(1)."
    )


def _names_classes(target: Any) -> bool:
    if starts.is_helper(target):
        return starts.is_weighting(target)
    return not callable(target) and jnp.issubdtype(jnp.result_type(target), jnp.integer)
