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
    except _Unknown:
        return functools.partial(body, place)


@dataclasses.dataclass(frozen=True)
class _Alike:
    """A place that equals all places where the same is computed."""

    key: Any
    place: Place = dataclasses.field(compare=False)


@functools.lru_cache(_KEPT)
def _jitted(body: Callable[..., Any], alike: _Alike) -> Callable[..., Any]:
    return jax.jit(functools.partial(body, alike.place))


class _Unknown(Exception):
    """There is no telling what something computes."""


def _key(place: Place) -> Any:
    numbers: dict[Any, int] = {}

    def described(value: Any) -> Any:
        if isinstance(value, compat.Var):
            return numbers.setdefault(value, len(numbers)), value.aval
        if isinstance(value, compat.Equation):
            operands, results = described([*value.invars]), described([*value.outvars])
            return value.primitive, value.ctx, described(value.params), operands, results
        if is_literal(value):
            return value.aval, np.asarray(value.val).tobytes()
        if isinstance(value, list | tuple):
            return type(value), *map(described, value)
        if isinstance(value, dict):
            return tuple((name, described(value[name])) for name in sorted(value))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = (f.name for f in dataclasses.fields(value) if f.name not in _NOT_COMPUTED)
            return type(value), *((name, described(getattr(value, name))) for name in fields)
        try:
            hash(value)
        except TypeError:
            raise _Unknown from None
        return type(value), value

    step = place.step
    operands = described([*step.inputs, *step.constants])
    return operands, described(step), place.out, place.exposed, place.parameters, place.held
