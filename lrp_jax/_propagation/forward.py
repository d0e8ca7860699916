"""Functions that are called often and never differentiated, as fast as the platform allows."""

from collections.abc import Callable
from typing import Any

import jax

from .._analysis import compat, trace
from . import lowerings


def forward(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f` with its operations in the form that suits the platform, for use inside `jit`.

    The values are those of `f` up to rounding. Derivatives are not to be taken: a custom one of a
    whole layer is lost.

    Args:
      f: function of any pytrees of arrays.
    """

    def run(*args: Any) -> Any:
        leaves, tree = jax.tree.flatten(args)
        trees = []

        def flat(*leaves: Any) -> list[Any]:
            outputs, structure = jax.tree.flatten(f(*jax.tree.unflatten(tree, leaves)))
            trees.append(structure)
            return outputs

        closed = trace.inline(jax.make_jaxpr(flat)(*leaves))
        jaxpr = compat.open_jaxpr(closed)
        inputs = [*jaxpr.constvars, *jaxpr.invars]
        function = lowerings.as_function(jaxpr, jaxpr.eqns, inputs, jaxpr.outvars)
        return jax.tree.unflatten(trees[-1], function(*closed.consts, *leaves))

    return run
