"""The relevance of parameters."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .. import targets
from .._calls.arguments import ArgNums
from .._calls.call import Start
from .._calls.explained import Explained
from .._calls.hints import no_target
from .._layers.arithmetic import times_value
from .._layers.step import Way
from ..composites import Composite


@no_target
def parameter_relevance(
    apply_fn: Callable[..., Any],
    composite: Any,
    argnums: ArgNums = 1,
    params_argnum: int = 0,
    *,
    has_aux: bool = False,
) -> Callable[..., Any]:
    """A function from a call of `apply_fn` to the relevance of every parameter.

    R_ij = sum over positions and examples of the contribution x_i w_ij that the rules of the
    input's explanation send through the weight w_ij; a bias has what it absorbed. The
    explanation itself is not changed by asking. The weights of a layer together have what the
    layer sends to its inputs; under Flat, which does not look at weights, zero weights have a part.

    Args:
        apply_fn: the function to explain.
        composite: a composite, or one rule for every layer with weights.
        argnums: the explained positional arguments.
        params_argnum: the argument that holds the parameters.
        has_aux: whether `apply_fn` returns `(output, aux)`.

    Returns:
        A function of the arguments of `apply_fn` and `target=None`, to relevances in the structure
        and shapes of the parameters.

    Raises:
        ValueError: where the parameters are explained themselves.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> f = lambda w, x: x @ w
        >>> print(lrp.parameter_relevance(f, lrp.Zero())(jnp.eye(2), jnp.array([[1.0, 3.0]])))
        [[0. 0.]
         [0. 3.]]
    """
    explained = Explained(apply_fn, composite, argnums, has_aux)
    if params_argnum in explained.argnums:
        raise ValueError(f"argument {params_argnum} is explained; the parameters are another one.")

    def relevances(*args: Any, target: Any = None, **kwargs: Any) -> Any:
        call, leaves = explained.prepare(args, kwargs)
        positions = explained.leaves_of(args, kwargs, params_argnum)
        floats = [i for i in positions if jnp.issubdtype(leaves[i].dtype, jnp.inexact)]

        def evaluate(begin: Start, composite: Composite, leaves: Any, target: Any) -> Any:
            def explain(what: str, parameters: list[Any]) -> Any:
                merged = list(leaves)
                for position, value in zip(floats, parameters, strict=True):
                    merged[position] = value
                return call.evaluate(begin.form, composite, merged, parameters=what)[0]

            def pulled(what: str) -> list[Any]:
                output, pullback = jax.vjp(partial(explain, what), parameters)
                found: list[Any] = pullback(begin.seed(output, target))[0]
                return found

            parameters = [leaves[i] for i in floats]
            multipliers = pulled("multipliers")
            found = [times_value(c, p) for c, p in zip(multipliers, parameters, strict=True)]
            chosen = [composite.rules[entry] for entry in call.resolved.entries.values()]
            if any(rule.way is Way.OWN for rule in chosen):
                zeros = map(jnp.real, pulled("zeros"))
                found = [r + z for r, z in zip(found, zeros, strict=True)]
            return found

        found = dict(
            zip(floats, explained.run(call, "parameters", evaluate, leaves, target), strict=True)
        )
        lead = targets.leading(target)
        values = [found.get(i, jnp.zeros((*lead, *jnp.shape(leaves[i])))) for i in positions]
        return explained.rebuild(args[params_argnum], values)

    return relevances
