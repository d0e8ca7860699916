"""How a target becomes the relevance that starts the backward pass.

A target is one of

- `None`: the largest output of each example (arg-max over the last axis; of an output
  `(batch, time, classes)` therefore the largest at every time, all together); where an output
  `(batch,)` has one number for each example, that number,
- an int, or an int array of the output's shape without its last axis: class indices,
- a float array of the output's shape: a weighting; the start is `weighting * output`,
- a callable `output -> relevance` of the output's shape.

The helpers of this module (`top_k`, `contrast`, `clrp`, `regression`, `mask`, `token`, `softmax`)
build callables for the questions asked most, and `each` stands for several targets at once. They
are pytrees whose arrays are leaves, so they pass through `jax.jit` and `jax.vmap` like any other
argument.

Class indices count from zero. Negative ones are refused: data sets mark missing labels by -1 or
-100, and explaining the last class instead would be a silent mistake. Under `jit` the values of an
index array are unknown; an index out of range then selects nothing and its relevance is zero.
The same holds for the classes and positions of the helpers.

An output `(n,)` may be the numbers of n examples or the n classes of one. It is the numbers of
examples where an explained argument has n entries on its first axis too and the function, asked on
shapes, returns n + 1 numbers for n + 1 of them. `start` and `weighting` see the output alone and
take its last axis for classes.
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .several import EACH, Each, One

Classes = Any  # None, an int, or an int array of the output's shape without its last axis
Target = Any  # Classes, a float array of the output's shape, a callable, or a pytree of these


ASKED: ContextVar[list[tuple[Any, Target]] | None] = ContextVar("asked", default=None)
"""Where it holds a list, `check` adds what it was asked: who traces a call can check it again."""


@contextmanager
def asked() -> Iterator[list[tuple[Any, Target]]]:
    """The list of what `check` is asked for, output and target, meanwhile."""
    found: list[tuple[Any, Target]] = []
    before = ASKED.set(found)
    try:
        yield found
    finally:
        ASKED.reset(before)


def check(output: Any, target: Target) -> None:
    """Raise a clear error where `target` cannot start an explanation of `output`.

    Only shapes, dtypes and concrete values are read, so `output` may be a `jax.ShapeDtypeStruct`.
    Call it before entering `jit`, where values of class indices can still be checked.

    Args:
      output: what the model returns, or its shape and dtype.
      target: see the module's text.

    Raises:
      TypeError: a dtype or a kind of target that has no meaning.
      ValueError: a shape that does not fit, or a class index out of range.

    >>> check(jax.ShapeDtypeStruct((2, 10), jnp.float32), [3, 9])
    """
    listening = ASKED.get()
    if listening is not None:
        listening.append((output, target))
    if isinstance(target, Each | One):
        for one in target.targets:
            check(output, one)
        return
    if not is_array(output):
        _check_tree(output, target)
        return
    shape = tuple(output.shape)
    if not jnp.issubdtype(output.dtype, jnp.floating):
        raise TypeError(
            f"the output has dtype {output.dtype}, but only floating point outputs have relevance: "
            "return the logits (or cast a count to float) instead of the predicted class"
        )
    if callable(target):
        if isinstance(target, Computed):
            target.check(output)
        return
    if target is None:
        if shape and shape[-1] == 0:
            raise ValueError(
                f"target=None takes the arg-max over an empty last axis: output {shape}"
            )
        return
    target = as_array(target)
    given, dtype = tuple(target.shape), jnp.dtype(target.dtype)
    if jnp.issubdtype(dtype, jnp.bool_) or jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(
            f"target has dtype {dtype}; pass integers to name classes or floats to weight outputs "
            "(a mask: mask.astype(float))"
        )
    if jnp.issubdtype(dtype, jnp.floating):
        if given != shape:
            raise ValueError(
                f"a float target weights the outputs and needs their shape {shape}, got {given}; "
                "pass integers to name classes"
            )
        return
    if not jnp.issubdtype(dtype, jnp.integer):
        raise TypeError(f"target has dtype {dtype}, neither class indices nor a weighting")
    if not shape:
        raise ValueError(
            "the output is a single number without a class axis: use target=None, a float weight "
            "or a callable"
        )
    if given not in ((), shape[:-1]):
        remedy = " (a one-hot weighting must be floating point)" if given == shape else ""
        raise ValueError(
            f"an integer target names one class per example and needs the shape {shape[:-1]} of "
            f"the output {shape} without its last axis, got {given}{remedy}"
        )
    if not isinstance(target, jax.core.Tracer):
        values = np.asarray(target)
        if values.size and (values.min() < 0 or values.max() >= shape[-1]):
            wrong = int(values.min() if values.min() < 0 else values.max())
            raise ValueError(
                f"target {wrong} is out of range for an output of shape {shape}: "
                f"classes are 0 to {shape[-1] - 1}"
            )


def weighting(output: Any, target: Target) -> Any:
    """The weights `w` of a start `w * output`, or `None` where the target is not of that form.

        w = one_hot(argmax_j output_j)     for None
        w = one_hot(target)                for class indices
        w = target                         for a float array

    Args:
      output: array `(..., classes)`, or a pytree of arrays.
      target: see the module's text; a pytree of targets for a pytree of outputs.

    Returns:
      The weights in the output's shape and dtype; `None` for a callable that is not a weighting.

    Raises:
      TypeError, ValueError: as `check`.

    >>> weighting(jnp.array([[1.0, 3.0], [5.0, 2.0]]), None)
    Array([[0., 1.],
           [1., 0.]], dtype=float32)
    """
    check(output, target)
    if isinstance(target, One):
        weights = [weighting(output, one) for one in target.targets]
        return None if any(w is None for w in weights) else target.chosen(weights)
    if isinstance(target, Each):
        raise TypeError(EACH)
    if isinstance(target, Computed):
        return target.value(output) if target.weights else None
    if callable(target):
        return None
    if not is_array(output):
        # What `check` accepts here is a tree of the output's structure, without callables.
        return jax.tree.map(weighting, output, target)
    if not output.shape and target is None:
        return jnp.ones_like(output)
    if target is None:
        return jax.nn.one_hot(jnp.argmax(output, -1), output.shape[-1], dtype=output.dtype)
    target = jnp.asarray(as_array(target))
    if jnp.issubdtype(target.dtype, jnp.floating):
        return target.astype(output.dtype)
    return jax.nn.one_hot(
        jnp.broadcast_to(target, output.shape[:-1]), output.shape[-1], dtype=output.dtype
    )


def is_weighting(target: Target) -> bool:
    """Whether a target weighs the outputs, so that zero outputs count too.

    Args:
      target: see the module's text.

    Returns:
      Whether it does.

    >>> from lrp_jax.targets import contrast
    >>> is_weighting(contrast(0, 1)), is_weighting(abs)
    (True, False)
    """
    if isinstance(target, Each):
        return all(map(is_weighting, target.targets))
    return target.weights if isinstance(target, Computed) else not callable(target)


def is_helper(target: Target) -> bool:
    """Whether a target is a callable made by this package, so that `check` can look into it.

    Args:
      target: see the module's text.

    Returns:
      Whether it was.

    >>> from lrp_jax.targets import top_k
    >>> is_helper(top_k(2)), is_helper(abs)
    (True, False)
    """
    return isinstance(target, Computed)


def start(output: Any, target: Target) -> Any:
    """The relevance of the output that starts the backward pass.

        R = weighting(output, target) * output,   or   R = target(output)

    Args:
      output: array `(..., classes)`, or a pytree of arrays.
      target: see the module's text.

    Returns:
      Relevance in the output's structure, shape and dtype.

    Raises:
      TypeError, ValueError: as `check`, or a callable that returns another shape than the output's.

    >>> start(jnp.array([[1.0, 3.0], [5.0, 2.0]]), 0)
    Array([[1., 0.],
           [5., 0.]], dtype=float32)
    """
    weights = weighting(output, target)
    if weights is not None:
        return jax.tree.map(jnp.multiply, weights, output)
    if isinstance(target, One):
        return target.chosen([start(output, one) for one in target.targets])
    relevance = target(output)
    if isinstance(relevance, Computed | Each):
        name = getattr(target, "__name__", "it")
        raise TypeError(f"target={name} makes a target of its arguments: write target={name}(...)")
    if structure(relevance) != structure(output):
        raise ValueError(
            f"the target callable returned {structure(relevance)} for an output of structure "
            f"{structure(output)}; it must return one relevance for each output"
        )
    return jax.tree.map(_like_output, relevance, output)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Computed:
    """A target that is computed from the output: `function(output, *operands, *options)`.

    Operands are traced values, the rest is static, so two targets of one kind share a compilation.

    Attributes:
        function: of the output, the operands and the options.
        refuse: raises for an output that does not fit; shapes and concrete values are read.
        operands, options: what the target is made with.
        weights: whether the function returns weights of the output, or relevance itself.
    """

    function: Callable[..., Array] = dataclasses.field(metadata={"static": True})
    refuse: Callable[..., None] = dataclasses.field(metadata={"static": True})
    operands: tuple[Any, ...]
    options: tuple[Any, ...] = dataclasses.field(metadata={"static": True})
    weights: bool = dataclasses.field(default=True, metadata={"static": True})

    def check(self, output: Any) -> None:
        """Refuse an output that does not fit; shapes and concrete values are read."""
        try:
            self.refuse(output, *self.operands, *self.options)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{self._name}: {error}") from None

    @property
    def _name(self) -> str:
        return str(self.function.__name__).lstrip("_").removesuffix("_set")

    def __repr__(self) -> str:
        given = [a for a in (*self.operands, *self.options) if a is not None]
        told = (
            f"array of shape {a.shape}" if np.ndim(a) and is_array(a) else str(a) for a in given
        )
        return f"targets.{self._name}({', '.join(told)})"

    def value(self, output: Array) -> Array:
        self.check(output)
        return self.function(output, *self.operands, *self.options)

    def __call__(self, output: Array) -> Array:
        return self.value(output) * output if self.weights else self.value(output)


def _told(operand: Any) -> str:
    is_one = not is_array(operand) or not operand.ndim
    return str(operand) if is_one else f"array of shape {operand.shape}"


def is_array(output: Any) -> bool:
    return hasattr(output, "shape") and hasattr(output, "dtype")


def as_array(target: Any) -> Any:
    """An array from a number or a list, concrete wherever its entries are."""
    if is_array(target):
        return target
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(target))
    return jnp.asarray(target) if traced else np.asarray(target)


def structure(tree: Any) -> Any:
    return jax.tree.structure(tree)


def _check_tree(output: Any, target: Target) -> None:
    """A pytree of outputs takes a callable or one target for each leaf."""
    if isinstance(target, Computed):
        target.check(output)
    if callable(target):
        return
    wanted = structure(output)
    if wanted.num_leaves == 0:
        raise TypeError(f"the model returned {output!r}, which holds no arrays to explain")
    if target is None or structure(target) != wanted:
        raise TypeError(
            f"the model returns {wanted.num_leaves} arrays in the structure {wanted}; pass a "
            "callable output -> relevance, or a target of the same structure (zeros where nothing "
            "starts), or explain a function that returns one of them (has_aux=True where the rest "
            "of a pair, such as new batch statistics, is not to be explained)"
        )
    jax.tree.map(_check_leaf, output, target)


def _check_leaf(output: Any, target: Target) -> None:
    if not is_array(output):
        raise TypeError(f"the model returned {output!r} among its outputs, which is not an array")
    if callable(target):
        raise TypeError("inside a target pytree only arrays and class indices are possible")
    check(output, target)


def _like_output(relevance: Any, output: Array) -> Array:
    if np.shape(relevance) != np.shape(output):
        raise ValueError(
            f"the target callable returned shape {np.shape(relevance)} for an output of shape "
            f"{np.shape(output)}; it must return one relevance for each output"
        )
    if not jnp.issubdtype(jnp.result_type(relevance), jnp.floating):
        raise TypeError(
            f"the target callable returned dtype {jnp.result_type(relevance)}, not a floating one"
        )
    return jnp.asarray(relevance, jnp.result_type(output))
