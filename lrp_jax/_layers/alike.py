"""Layers that compute the same, of whatever network: each kind and shape is traced once.

A network repeats its layers. What a layer does is told by its equations with their variables
numbered; layers of one such key share one jitted function, which JAX traces and lowers once for all
of them, in all explanations, and which compilers inline.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from .._analysis import compat
from .._analysis.compat import is_literal
from .step import Place

_KEPT = 512
_NOT_COMPUTED = {"position", "name", "weights", "source"}
"""Fields of a step that do not change what it computes."""


def once(body: Callable[..., Any], place: Place) -> Callable[..., Any]:
    """`body(place, *operands)` as a function of its operands, traced once for places alike.

    Args:
        body: a function of this package; its results depend on the place and operands alone.
        place: where it is evaluated.
    """
    try:
        return _jitted(body, _Alike(_key(place), place))
    except Unknown:
        return functools.partial(body, place)


@dataclasses.dataclass(frozen=True)
class _Alike:
    """A place that equals all places where the same is computed."""

    key: Any
    place: Place = dataclasses.field(compare=False)


@functools.lru_cache(_KEPT)
def _jitted(body: Callable[..., Any], alike: _Alike) -> Callable[..., Any]:
    return jax.jit(functools.partial(body, alike.place))


class Unknown(Exception):
    """There is no telling what something computes."""


def _key(place: Place) -> Any:
    step = place.step
    key, _ = described([*step.inputs, *step.constants], step)
    return key, place.out, place.exposed, place.parameters, place.held


def described(*values: Any) -> tuple[Any, list[Any]]:
    """What some values say of a computation, their variables numbered; and these variables.

    Raises:
        Unknown: where there is no telling.
    """
    numbers: dict[Any, int] = {}

    def of(value: Any) -> Any:
        if isinstance(value, compat.Var):
            return numbers.setdefault(value, len(numbers)), value.aval
        if isinstance(value, list | tuple):
            return type(value), *map(of, value)
        if isinstance(value, compat.Equation):
            if id(value) in numbers:  # a step speaks of its equations more than once
                return numbers[id(value)]
            numbers[id(value)] = len(numbers)
            what = value.primitive, value.ctx, _hashable(*value.params.items())
            return *what, of(value.invars), of(value.outvars)
        if is_literal(value):
            return value.aval, np.asarray(value.val).tobytes()
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return type(value), *(of(getattr(value, name)) for name in _fields(type(value)))
        if isinstance(value, dict):
            return tuple((name, of(value[name])) for name in sorted(value))
        return _hashable((value,))

    key = of(values)
    return key, [v for v in numbers if isinstance(v, compat.Var)]


def _hashable(*values: tuple[Any, ...]) -> Any:
    """Values that are compared as they are, with their types: 1 is not True."""
    key = values, tuple(type(value[-1]) for value in values)
    try:
        hash(key)
    except TypeError:
        raise Unknown from None
    return key


@functools.cache
def _fields(kind: type) -> list[str]:
    return [f.name for f in dataclasses.fields(kind) if f.name not in _NOT_COMPUTED]
