"""Targets for the questions asked most: callables for `target=`.

They are pytrees whose arrays are leaves, so they pass through `jax.jit` and `jax.vmap` like any
other argument.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .starts import Classes, Computed, as_array, check, is_array, structure, weighting


def top_k(k: int) -> Computed:
    """The `k` largest outputs together: `R_j = output_j` where it is among them, else 0.

    Args:
      k: how many.

    >>> top_k(2)(jnp.array([[1.0, 3.0, 2.0]]))
    Array([[0., 3., 2.]], dtype=float32)
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise ValueError(f"k must be a positive integer, got {k!r}")
    return Computed(_top_k, _check_top_k, (), (int(k),))


def contrast(class_: Classes, others: Classes | list[int] = None) -> Computed:
    """A class against others: the difference of its logit and their mean logit.

        R_c = output_c,   R_o = -output_o / |others|,   so   sum R = output_c - mean_o output_o

    Args:
      class_: the class explained; `None`, an int, or an int array as in `target=`.
      others: the classes it is compared with: an int, a list of ints for all examples, or an int
        array of the output's shape without its last axis (one rival per example); `None` means
        all other classes.

    Returns:
      A callable for `target=`.

    >>> contrast(0, [1, 2])(jnp.array([[4.0, 2.0, 6.0]]))
    Array([[ 4., -1., -3.]], dtype=float32)
    """
    if isinstance(others, list | tuple):
        return Computed(
            _contrast_set, _check_contrast_set, (class_,), (tuple(int(o) for o in others),)
        )
    return Computed(_contrast, _check_contrast, (class_, others), ())


def clrp(class_: Classes = None) -> Computed:
    """Contrastive LRP: the class's logit against the same amount spread over all other classes.

        R_c = output_c,   R_o = -output_c / (C - 1)

    The published map is the positive part of the result: `jnp.maximum(relevance, 0)`.

    Args:
      class_: `None`, an int, or an int array as in `target=`.

    Source: Gu, Yang, Tresp, "Understanding Individual Decisions of CNNs via Contrastive
    Backpropagation", ACCV 2018 (CLRP1).

    >>> clrp(0)(jnp.array([[4.0, 2.0, 6.0]]))
    Array([[ 4., -2., -2.]], dtype=float32)
    """
    return Computed(_clrp, _check_clrp, (class_,), (), weights=False)


def regression(reference: Any) -> Computed:
    """A prediction relative to a reference value: `R = output - reference`.

    Source: Letzgus et al., "Toward Explainable AI for Regression Models", IEEE Signal Processing
    Magazine 2022.

    Args:
      reference: a number or an array that broadcasts to the output's shape.

    >>> regression(20.0)(jnp.array([[21.5]]))
    Array([[1.5]], dtype=float32)
    """
    return Computed(_regression, _check_regression, (reference,), (), weights=False)


def mask(mask: Any, class_: Classes = None) -> Computed:
    """The chosen positions of a dense output, as of a segmentation.

        R_pc = mask_p output_pc   where c is the class at position p, else 0

    Args:
      mask: booleans or numbers that broadcast to the output's shape without its last axis.
      class_: the class at each position; `None` is the predicted one.

    >>> mask(jnp.array([True, False]))(jnp.array([[[1.0, 2.0], [4.0, 3.0]]]))
    Array([[[0., 2.],
            [0., 0.]]], dtype=float32)
    """
    return Computed(_mask, _check_mask, (mask, class_), ())


def token(position: Any, token: Classes = None, contrast: Classes = None) -> Computed:
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

    >>> token(-1, 0, contrast=1)(jnp.array([[1.0, 2.0], [5.0, 3.0]]))[-1]
    Array([ 5., -3.], dtype=float32)
    """
    return Computed(_token, _check_token, (position, token, contrast), ())


def softmax(class_: Classes = None, temperature: Any = 1.0) -> Computed:
    """The class's probability under a softmax of the logits, carried to the logits.

        R_j = output_j dp_c/doutput_j = output_j p_c ([j = c] - p_j) / T,   p = softmax(output / T)

    This is the softmax rule of AttnLRP applied to a softmax behind the model. A high temperature
    compares the class with all others, a low one with its nearest rival. (Softmax-gradient LRP,
    Iwana et al. 2019, is the same start without the factor output_j / T.)

    Source: Achtibat et al., "AttnLRP", ICML 2024, proposition 3.1.

    Args:
      class_: `None`, an int, or an int array as in `target=`.
      temperature: a positive number.

    >>> softmax(0)(jnp.array([[2.0, 2.0]]))
    Array([[ 0.5, -0.5]], dtype=float32)
    """
    if not isinstance(temperature, jax.core.Tracer) and not np.all(np.asarray(temperature) > 0):
        raise ValueError(f"the temperature must be positive, got {temperature}")
    return Computed(_softmax, _check_softmax, (class_, temperature), ())


# -- the formulas, and what each refuses -----------------------------------------------------------


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
    position = as_array(position)
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


def _check_classes(output: Any, *classes: Classes) -> None:
    _require_axes(output, 1)
    for class_ in classes:
        check(output, class_)


def _weights(output: Array, class_: Classes) -> Array:
    return jnp.asarray(weighting(output, class_))


def _require_axes(output: Any, axes: int) -> None:
    if not is_array(output) or len(output.shape) < axes:
        got = output.shape if is_array(output) else structure(output)
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
