"""What an explanation explains: how `target=` becomes the relevance that starts the backward pass.

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
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Classes = Any  # None, an int, or an int array of the output's shape without its last axis
Target = Any  # Classes, a float array of the output's shape, a callable, or a pytree of these


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
    if isinstance(target, _Each | _One):
        for one in target.targets:
            check(output, one)
        return
    if not _is_array(output):
        _check_tree(output, target)
        return
    shape = tuple(output.shape)
    if not jnp.issubdtype(output.dtype, jnp.floating):
        raise TypeError(
            f"the output has dtype {output.dtype}, but only floating point outputs have relevance: "
            "return the logits (or cast a count to float) instead of the predicted class"
        )
    if callable(target):
        if isinstance(target, _Start):
            target.check(output)
        return
    if target is None:
        if shape and shape[-1] == 0:
            raise ValueError(
                f"target=None takes the arg-max over an empty last axis: output {shape}"
            )
        return
    target = _as_array(target)
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
    if isinstance(target, _One):
        weights = [weighting(output, one) for one in target.targets]
        return None if any(w is None for w in weights) else target.chosen(weights)
    if isinstance(target, _Each):
        raise TypeError(EACH)
    if isinstance(target, _Start):
        return target.value(output) if target.weights else None
    if callable(target):
        return None
    if not _is_array(output):
        # What `check` accepts here is a tree of the output's structure, without callables.
        return jax.tree.map(weighting, output, target)
    if not output.shape and target is None:
        return jnp.ones_like(output)
    if target is None:
        return jax.nn.one_hot(jnp.argmax(output, -1), output.shape[-1], dtype=output.dtype)
    target = jnp.asarray(_as_array(target))
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

    >>> is_weighting(contrast(0, 1)), is_weighting(abs)
    (True, False)
    """
    if isinstance(target, _Each):
        return all(map(is_weighting, target.targets))
    return target.weights if isinstance(target, _Start) else not callable(target)


def is_helper(target: Target) -> bool:
    """Whether a target is a callable made by this module, so that `check` can look into it.

    Args:
      target: see the module's text.

    Returns:
      Whether it was.

    >>> is_helper(top_k(2)), is_helper(abs)
    (True, False)
    """
    return isinstance(target, _Start)


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
    if isinstance(target, _One):
        return target.chosen([start(output, one) for one in target.targets])
    relevance = target(output)
    if _structure(relevance) != _structure(output):
        raise ValueError(
            f"the target callable returned {_structure(relevance)} for an output of structure "
            f"{_structure(output)}; it must return one relevance for each output"
        )
    return jax.tree.map(_like_output, relevance, output)


def top_k(k: int) -> "_Start":
    """The `k` largest outputs together: `R_j = output_j` where it is among them, else 0.

    Args:
      k: how many.

    >>> start(jnp.array([[1.0, 3.0, 2.0]]), top_k(2))
    Array([[0., 3., 2.]], dtype=float32)
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise ValueError(f"k must be a positive integer, got {k!r}")
    return _Start(_top_k, (), (int(k),))


def contrast(class_: Classes, others: Classes | list[int] = None) -> "_Start":
    """A class against others: the difference of its logit and their mean logit.

        R_c = output_c,   R_o = -output_o / |others|,   so   sum R = output_c - mean_o output_o

    Args:
      class_: the class explained; `None`, an int, or an int array as in `target=`.
      others: the classes it is compared with: an int, a list of ints for all examples, or an int
        array of the output's shape without its last axis (one rival per example); `None` means
        all other classes.

    Returns:
      A callable for `target=`.

    >>> start(jnp.array([[4.0, 2.0, 6.0]]), contrast(0, [1, 2]))
    Array([[ 4., -1., -3.]], dtype=float32)
    """
    if isinstance(others, list | tuple):
        return _Start(_contrast_set, (class_,), (tuple(int(o) for o in others),))
    return _Start(_contrast, (class_, others), ())


def clrp(class_: Classes = None) -> "_Start":
    """Contrastive LRP: the class's logit against the same amount spread over all other classes.

        R_c = output_c,   R_o = -output_c / (C - 1)

    The published map is the positive part of the result: `jnp.maximum(relevance, 0)`.

    Args:
      class_: `None`, an int, or an int array as in `target=`.

    Source: Gu, Yang, Tresp, "Understanding Individual Decisions of CNNs via Contrastive
    Backpropagation", ACCV 2018 (CLRP1).

    >>> start(jnp.array([[4.0, 2.0, 6.0]]), clrp(0))
    Array([[ 4., -2., -2.]], dtype=float32)
    """
    return _Start(_clrp, (class_,), (), weights=False)


def regression(reference: Any) -> "_Start":
    """A prediction relative to a reference value: `R = output - reference`.

    Source: Letzgus et al., "Toward Explainable AI for Regression Models", IEEE Signal Processing
    Magazine 2022.

    Args:
      reference: a number or an array that broadcasts to the output's shape.

    >>> start(jnp.array([[21.5]]), regression(20.0))
    Array([[1.5]], dtype=float32)
    """
    return _Start(_regression, (reference,), (), weights=False)


def mask(mask: Any, class_: Classes = None) -> "_Start":
    """The chosen positions of a dense output, as of a segmentation.

        R_pc = mask_p output_pc   where c is the class at position p, else 0

    Args:
      mask: booleans or numbers that broadcast to the output's shape without its last axis.
      class_: the class at each position; `None` is the predicted one.

    >>> start(jnp.array([[[1.0, 2.0], [4.0, 3.0]]]), mask(jnp.array([True, False])))
    Array([[[0., 2.],
            [0., 0.]]], dtype=float32)
    """
    return _Start(_mask, (mask, class_), ())


def token(position: Any, token: Classes = None, contrast: Classes = None) -> "_Start":
    """One token's logit at one position, less that of another token if asked.

        R_pt = output_pt,   R_pu = -output_pu,   so   sum R = output_pt - output_pu

    Source of the contrast: Yin, Neubig, "Interpreting Language Models with Contrastive
    Explanations", EMNLP 2022.

    Args:
      position: an int, or one for each sequence of the batch; -1 is the last position.
      token: the vocabulary index explained, or one for each sequence; `None` is the predicted one.
      contrast: the vocabulary index subtracted, or one for each sequence; `None` subtracts nothing.

    Returns:
      A callable for `target=`, for outputs `(..., positions, vocabulary)`.

    >>> start(jnp.array([[1.0, 2.0], [5.0, 3.0]]), token(-1, 0, contrast=1))[-1]
    Array([ 5., -3.], dtype=float32)
    """
    return _Start(_token, (position, token, contrast), ())


def softmax(class_: Classes = None, temperature: Any = 1.0) -> "_Start":
    """The class's probability under a softmax of the logits, carried to the logits.

        R_j = output_j dp_c/doutput_j = output_j p_c ([j = c] - p_j) / T,   p = softmax(output / T)

    This is the softmax rule of AttnLRP applied to a softmax behind the model. A high temperature
    compares the class with all others, a low one with its nearest rival. (Softmax-gradient LRP,
    Iwana et al. 2019, is the same start without the factor output_j / T.)

    Source: Achtibat et al., "AttnLRP", ICML 2024, proposition 3.1.

    Args:
      class_: `None`, an int, or an int array as in `target=`.
      temperature: a positive number.

    >>> start(jnp.array([[2.0, 2.0]]), softmax(0))
    Array([[ 0.5, -0.5]], dtype=float32)
    """
    if not isinstance(temperature, jax.core.Tracer) and not np.all(np.asarray(temperature) > 0):
        raise ValueError(f"the temperature must be positive, got {temperature}")
    return _Start(_softmax, (class_, temperature), ())


def each(targets: Sequence[Target]) -> "_Each":
    """Several targets for one call: every result has one leading axis for them.

    There is one forward pass, and their backward passes are computed together. What `relevance`
    and the queries return (the output that `value_and_relevance` returns beside it too) is stacked:
    `jax.tree.map(lambda a: a[0], result)` is that of the first target.

    Args:
      targets: anything that `target=` takes, several of it; kinds may differ.

    Returns:
      Something for `target=` of `relevance`, `value_and_relevance` and the queries of this package;
      baselines and metrics take one target at a time.

    Raises:
      ValueError: there is none, or one of them is `each` again.

    >>> import lrp_jax as lrp
    >>> explain = lrp.relevance(lambda w, x: x @ w, lrp.Zero())
    >>> w, x = jnp.array([[1.0, -1.0], [0.0, 2.0]]), jnp.array([[2.0, 1.5]])
    >>> print(explain(w, x, target=each([0, 1, contrast(0, 1)]))[:, 0])
    [[ 2.  0.]
     [-2.  3.]
     [ 4. -3.]]
    """
    several = tuple(targets)
    if not several or any(isinstance(one, _Each) for one in several):
        raise ValueError(f"each takes at least one target, and none made by each: {targets!r}")
    return _Each(several)


EACH = (
    "targets.each is for relevance, value_and_relevance and the queries of lrp_jax; here call the "
    "function once for each target"
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class _Each:
    """Several targets."""

    targets: tuple[Any, ...]

    def over(self, function: Callable[["_One"], Any]) -> Any:
        """A function of one of the targets for all of them, results stacked."""
        # What does not depend on the number, such as the forward pass, is computed once.
        return jax.vmap(lambda number: function(_One(self.targets, number)))(
            jnp.arange(len(self.targets))
        )


@dataclasses.dataclass(frozen=True, eq=False)
class _One:
    """One of several targets, by its (traced) number."""

    targets: tuple[Any, ...]
    number: Array

    def chosen(self, starts: Sequence[Any]) -> Any:
        return jax.tree.map(lambda *each: jnp.stack(each)[self.number], *starts)


def is_each(target: Target) -> bool:
    """Whether a target was made by `each`, or is one of those.

    Args:
      target: see the module's text.

    Returns:
      Whether it is.

    >>> is_each(each([0, 1])), is_each([0, 1])
    (True, False)
    """
    return isinstance(target, _Each | _One)


def leading(target: Target) -> tuple[int, ...]:
    """The axes that a target puts before every result.

    Args:
      target: see the module's text.

    Returns:
      `()`, or `(n,)` for the n targets of `each`.

    >>> leading(each([0, 1])), leading(0)
    ((2,), ())
    """
    return (len(target.targets),) if isinstance(target, _Each) else ()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class _Start:
    """A target that is computed from the output: `function(output, *operands, *options)`.

    With `weights` the function returns weights of the output, otherwise relevance itself. Operands
    are traced values, the rest is static, so two targets of one kind share a compilation.
    """

    function: Callable[..., Array] = dataclasses.field(metadata={"static": True})
    operands: tuple[Any, ...]
    options: tuple[Any, ...] = dataclasses.field(metadata={"static": True})
    weights: bool = dataclasses.field(default=True, metadata={"static": True})

    def check(self, output: Any) -> None:
        """Refuse an output that does not fit; shapes and concrete values are read."""
        name = self.function.__name__.lstrip("_").removesuffix("_set")
        try:
            _CHECKS[self.function](output, *self.operands, *self.options)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from None

    def value(self, output: Array) -> Array:
        self.check(output)
        return self.function(output, *self.operands, *self.options)

    def __call__(self, output: Array) -> Array:
        return self.value(output) * output if self.weights else self.value(output)


# -- the formulas of the helpers, and what each refuses ------------------------------------------


def _top_k(output: Array, k: int) -> Array:
    _, indices = jax.lax.top_k(output, k)
    return jax.nn.one_hot(indices, output.shape[-1], dtype=output.dtype).sum(-2)


def _check_top_k(output: Any, k: int) -> None:
    _require_axes(output, 1)
    if k > output.shape[-1]:
        raise ValueError(f"top_k({k}) of an output with {output.shape[-1]} classes")


def _contrast(output: Array, class_: Classes, others: Classes) -> Array:
    chosen = _weights(output, class_)
    if others is None:
        return chosen - (1 - chosen) / (output.shape[-1] - 1)
    return chosen - _weights(output, others)


def _check_contrast(output: Any, class_: Classes, others: Classes) -> None:
    _check_classes(output, class_, others)
    if others is None:
        _require_rivals(output)


def _contrast_set(output: Array, class_: Classes, others: tuple[int, ...]) -> Array:
    rivals = sum(_weights(output, other) for other in others) / len(others)
    return _weights(output, class_) - rivals


def _check_contrast_set(output: Any, class_: Classes, others: tuple[int, ...]) -> None:
    if not others:
        raise ValueError("at least one other class is needed")
    _check_classes(output, class_, *others)


def _clrp(output: Array, class_: Classes) -> Array:
    chosen = _weights(output, class_)
    logit = (chosen * output).sum(-1, keepdims=True)
    return logit * (chosen - (1 - chosen) / (output.shape[-1] - 1))


def _check_clrp(output: Any, class_: Classes) -> None:
    _check_classes(output, class_)
    _require_rivals(output)


def _regression(output: Array, reference: Any) -> Array:
    return output - jnp.asarray(reference, output.dtype)


def _check_regression(output: Any, reference: Any) -> None:
    _require_axes(output, 0)
    _require_broadcast("reference", np.shape(reference), output.shape)


def _mask(output: Array, mask: Any, class_: Classes) -> Array:
    return jnp.asarray(mask, output.dtype)[..., None] * _weights(output, class_)


def _check_mask(output: Any, mask: Any, class_: Classes) -> None:
    _check_classes(output, class_)
    _require_broadcast("mask", np.shape(mask), output.shape[:-1])


def _token(output: Array, position: Any, token: Classes, contrast: Classes) -> Array:
    *batch, positions, _ = output.shape
    asked = jnp.broadcast_to(jnp.asarray(position), tuple(batch))
    here = asked % positions
    logits = jnp.take_along_axis(output, here[..., None, None], axis=-2)[..., 0, :]
    weights = _weights(logits, token)
    if contrast is not None:
        weights = weights - _weights(logits, contrast)
    # A traced position is not checked: one out of range selects nothing, as a class does.
    exists = (asked >= -positions) & (asked < positions)
    there = jax.nn.one_hot(jnp.where(exists, here, -1), positions, dtype=output.dtype)
    return there[..., None] * weights[..., None, :]


def _check_token(output: Any, position: Any, token: Classes, contrast: Classes) -> None:
    _require_axes(output, 2)
    *batch, positions, vocabulary = output.shape
    _require_broadcast("position", np.shape(position), tuple(batch))
    position = _as_array(position)
    if not jnp.issubdtype(position.dtype, jnp.integer):
        raise TypeError(f"position must be an integer, got {position.dtype}")
    if not isinstance(position, jax.core.Tracer):
        values = np.asarray(position)
        if values.size and (values.min() < -positions or values.max() >= positions):
            wrong = int(values.min() if values.min() < -positions else values.max())
            raise ValueError(
                f"position {wrong} is out of range for {positions} positions: they are 0 to "
                f"{positions - 1}, or -{positions} to -1 from the end"
            )
    _check_classes(jax.ShapeDtypeStruct((*batch, vocabulary), output.dtype), token, contrast)


def _softmax(output: Array, class_: Classes, temperature: Any) -> Array:
    wide = output.astype(jnp.float32) if jnp.finfo(output.dtype).bits < 32 else output
    heat = jnp.asarray(temperature, wide.dtype)
    probability = jnp.asarray(jax.nn.softmax(wide / heat))
    chosen = _weights(wide, class_)
    of_class = (chosen * probability).sum(-1, keepdims=True)
    return (of_class * (chosen - probability) / heat).astype(output.dtype)


def _check_softmax(output: Any, class_: Classes, temperature: Any) -> None:
    _check_classes(output, class_)


_CHECKS: dict[Callable[..., Array], Callable[..., None]] = {
    _top_k: _check_top_k,
    _contrast: _check_contrast,
    _contrast_set: _check_contrast_set,
    _clrp: _check_clrp,
    _regression: _check_regression,
    _mask: _check_mask,
    _token: _check_token,
    _softmax: _check_softmax,
}


def _check_classes(output: Any, *classes: Classes) -> None:
    _require_axes(output, 1)
    for class_ in classes:
        check(output, class_)


def _weights(output: Array, class_: Classes) -> Array:
    return jnp.asarray(weighting(output, class_))


def _is_array(output: Any) -> bool:
    return hasattr(output, "shape") and hasattr(output, "dtype")


def _as_array(target: Any) -> Any:
    """An array from a number or a list, concrete wherever its entries are."""
    if _is_array(target):
        return target
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(target))
    return jnp.asarray(target) if traced else np.asarray(target)


def _structure(tree: Any) -> Any:
    return jax.tree.structure(tree)


def _check_tree(output: Any, target: Target) -> None:
    """A pytree of outputs takes a callable or one target for each leaf."""
    if isinstance(target, _Start):
        target.check(output)
    if callable(target):
        return
    wanted = _structure(output)
    if wanted.num_leaves == 0:
        raise TypeError(f"the model returned {output!r}, which holds no arrays to explain")
    if target is None or _structure(target) != wanted:
        raise TypeError(
            f"the model returns {wanted.num_leaves} arrays in the structure {wanted}; pass a "
            "callable output -> relevance, or a target of the same structure (zeros where nothing "
            "starts), or explain a function that returns one of them (has_aux=True where the rest "
            "of a pair, such as new batch statistics, is not to be explained)"
        )
    jax.tree.map(_check_leaf, output, target)


def _check_leaf(output: Any, target: Target) -> None:
    if not _is_array(output):
        raise TypeError(f"the model returned {output!r} among its outputs, which is not an array")
    if callable(target):
        raise TypeError("inside a target pytree only arrays and class indices are possible")
    check(output, target)


def _like_output(relevance: Any, output: Array) -> Array:
    if np.shape(relevance) != output.shape:
        raise ValueError(
            f"the target callable returned shape {np.shape(relevance)} for an output of shape "
            f"{output.shape}; it must return one relevance for each output"
        )
    if not jnp.issubdtype(jnp.result_type(relevance), jnp.floating):
        raise TypeError(
            f"the target callable returned dtype {jnp.result_type(relevance)}, not a floating one"
        )
    return jnp.asarray(relevance, output.dtype)


def _require_axes(output: Any, axes: int) -> None:
    if not _is_array(output) or len(output.shape) < axes:
        got = output.shape if _is_array(output) else _structure(output)
        raise ValueError(f"one output array with at least {axes} axes is needed, got {got}")


def _require_rivals(output: Any) -> None:
    if output.shape[-1] < 2:
        raise ValueError(f"classes are compared, but the output {output.shape} has only one")


def _require_broadcast(name: str, given: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    try:
        fits = np.broadcast_shapes(given, wanted) == wanted
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{name} of shape {given} does not broadcast to {wanted}")
