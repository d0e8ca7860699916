"""Primitives of other libraries: calls of what implements them, where that is JAX code.

Equinox writes its bounded loops with such primitives. Under `jax.vmap` they hold the examples of a
batch together, for loops that have no reverse pass; to one example they are selects and identities.
One whose implementation leaves JAX (a kernel, a callback) stays as it is.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from . import compat
from .compat import Equation
from .primitives import family
from .splice import splice


def of_numbers(eqn: Equation) -> Any | None:
    """The closed body of a primitive of another library that makes real or complex numbers."""
    body = _implementation(eqn)
    made = () if body is None else compat.open_jaxpr(body).outvars
    return body if any(jnp.issubdtype(v.aval.dtype, jnp.inexact) for v in made) else None


def of_one_example(closed_jaxpr: Any) -> Any:
    """A flat function for one example: what holds those of a batch together is opened."""
    bodies = {id(e): _implementation(e) for e in compat.open_jaxpr(closed_jaxpr).eqns}
    others = {
        eqn: functools.partial(jax.core.eval_jaxpr, compat.open_jaxpr(body), body.consts)
        for eqn, body in bodies.items()
        if body is not None
    }
    return splice(closed_jaxpr, others) if others else closed_jaxpr


def _implementation(eqn: Equation) -> Any | None:
    """The closed body that a primitive of another library computes, else None."""
    known = family(eqn.primitive) is not None or eqn.effects
    if known or _home(eqn.primitive.impl) in _OWN or compat.is_value_of(eqn):
        return None
    try:
        made = compat.traced_on(functools.partial(eqn.primitive.impl, **eqn.params), eqn.invars)
    except (TypeError, NotImplementedError):  # it looks at its operands, or has no implementation
        return None
    found, expected = ([(v.aval.shape, v.aval.dtype) for v in vs]
                       for vs in (compat.open_jaxpr(made).outvars, eqn.outvars))  # fmt: skip
    return made if found == expected else None


def _home(run: Any) -> str:
    """The package that a function is of."""
    while isinstance(run, functools.partial):
        run = run.func
    return str(getattr(run, "__module__", None) or "jax").partition(".")[0]


_OWN = ("jax", "jaxlib")
