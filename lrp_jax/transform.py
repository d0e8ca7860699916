"""The front door: `lrp_transform`, `relevance`, `value_and_relevance`, `plan`."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from ._analysis.trace import is_array
from ._calls.arguments import ArgNums
from ._calls.call import Start
from ._calls.explained import Explained
from ._calls.hints import no_target
from .composites import Composite
from .plan import Plan, refuse_warnings

INTEGER_COTANGENTS = (
    "an explained argument holds integers, to which jax.vjp hands nothing back (float0). "
    "lrp.value_and_relevance(apply_fn, composite)(params, ids, target=...) gives their relevance; "
    "a target that is a function, output -> relevance, takes the place of the pullback's cotangent."
)


@no_target
def lrp_transform(
    apply_fn: Callable[..., Any], composite: Any, argnums: ArgNums = 1, *, has_aux: bool = False
) -> Callable[..., Any]:
    """A function with the same values whose vjp carries relevance instead of gradients.

    `jax.vjp(lambda x: lrp_apply(params, x), x)` gives the outputs and a pullback from the relevance
    of the outputs, R_j, to the relevance of the inputs, R_i. Only `argnums` are explained; every
    other argument is a constant of the explanation, with zero cotangent.

    Args:
        apply_fn: `apply_fn(params_or_model, x, *more, **static)`, any JAX function.
        composite: a `Composite`, or one rule for every layer with weights.
        argnums: the explained positional arguments, as in `jax.grad`.
        has_aux: whether `apply_fn` returns `(output, aux)`.

    Returns:
        A function with the signature and the values of `apply_fn`.

    Raises:
        TypeError: for explained arguments that are not floating point; integers too, which have
            relevance but in JAX no cotangent: see `value_and_relevance`.
        ValueError: for `argnums` out of range.
        lrp_jax.UnsupportedOperation: for an operation without a rule, by name and line.

    Example:
        >>> import jax, jax.numpy as jnp, lrp_jax as lrp
        >>> f = lambda w, x: jax.nn.relu(x @ w)
        >>> g = lrp.lrp_transform(f, lrp.Epsilon())
        >>> w, x = jnp.array([[1.0], [2.0]]), jnp.array([[1.0, 3.0]])
        >>> y, pullback = jax.vjp(lambda x: g(w, x), x)
        >>> print(pullback(y)[0].round(2))
        [[1. 6.]]

    Source: Bach et al. 2015.
    """
    explained = Explained(apply_fn, composite, argnums, has_aux)

    def lrp_apply(*args: Any, **kwargs: Any) -> Any:
        call, leaves = explained.prepare(args, kwargs)
        if call.explains_integers:
            raise TypeError(INTEGER_COTANGENTS)
        explained.warn_of(call, leaves)

        # Constants have no cotangent, but the pullback depends on them: it is differentiable again.
        @jax.custom_vjp
        def evaluate(composite: Composite, leaves: Sequence[Any]) -> tuple[Any, Any]:
            return call.evaluate("R", composite, leaves)[:2]

        def forward(composite: Composite, leaves: Sequence[Any]) -> tuple[Any, Any]:
            output, pullback, aux = call.pulled("R", composite, leaves)
            return (output, aux), pullback

        def backward(pullback: Any, cotangents: Any) -> tuple[Any, Any]:
            found = dict(zip(call.explained, pullback(cotangents[0]), strict=True))
            return None, [found.get(i) for i in range(len(call.traced.explained))]

        evaluate.defvjp(forward, backward)
        compiled = explained.compiled(call, "transform", evaluate)
        output, aux = compiled(explained.composite, leaves)
        return (output, aux) if has_aux else output

    return lrp_apply


@no_target
def value_and_relevance(
    apply_fn: Callable[..., Any], composite: Any, argnums: ArgNums = 1, *, has_aux: bool = False
) -> Callable[..., Any]:
    """A function from a call of `apply_fn` to its output and the relevance of its inputs.

    Args:
        apply_fn: `apply_fn(params_or_model, x, *more, **static)`, any JAX function.
        composite: a `Composite`, or one rule for every layer with weights.
        argnums: the explained positional arguments, as in `jax.grad`.
        has_aux: whether `apply_fn` returns `(output, aux)`; then so does the result.

    Returns:
        A function of the arguments of `apply_fn` and `target=None` (see `lrp_jax.targets`), to
        `(output, relevance)`; relevance has the structure of the explained arguments.

    Raises:
        TypeError, ValueError: as `lrp_transform`, and for a target that does not fit.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> f = lambda w, x: x @ w
        >>> out, r = lrp.value_and_relevance(f, lrp.Zero())(jnp.eye(2), jnp.array([[1.0, 3.0]]))
        >>> print(out, r)
        [[1. 3.]] [[0. 3.]]
    """
    return explaining(Explained(apply_fn, composite, argnums, has_aux))


def explaining(explained: Explained) -> Callable[..., Any]:
    """From an analysed function to what `value_and_relevance` returns."""

    def explain(*args: Any, target: Any = None, **kwargs: Any) -> Any:
        output, relevances, aux = _explain(explained, args, kwargs, target, with_output=True)
        return ((output, aux), relevances) if explained.has_aux else (output, relevances)

    return explain


def _explain(
    explained: Explained, args: tuple[Any, ...], kwargs: Any, target: Any, with_output: bool
) -> tuple[Any, Any, Any]:
    """Output, relevances and auxiliary output of a call."""
    call, leaves = explained.prepare(args, kwargs)

    def evaluate(start: Start, composite: Composite, leaves: Sequence[Any], target: Any) -> Any:
        output, pullback, aux = call.pulled(start.form, composite, leaves)
        return output if with_output else None, pullback(start.seed(output, target)), aux

    purpose = ("relevance", with_output)
    output, found, aux = explained.run(call, purpose, evaluate, leaves, target)
    return output, explained.rebuild_explained(args, found), aux


@no_target
def relevance(
    apply_fn: Callable[..., Any], composite: Any, argnums: ArgNums = 1, *, has_aux: bool = False
) -> Callable[..., Any]:
    """A function from a call of `apply_fn` to the relevance of its inputs; mirrors `jax.grad`.

    Args:
        apply_fn: `apply_fn(params_or_model, x, *more, **static)`, any JAX function.
        composite: a `Composite`, or one rule for every layer with weights.
        argnums: the explained positional arguments, as in `jax.grad`.
        has_aux: whether `apply_fn` returns `(output, aux)`; then the result is `(relevance, aux)`.

    Returns:
        A function of the arguments of `apply_fn` and `target=None` (see `lrp_jax.targets`), to the
        relevance of the explained arguments, in their structure, shapes and dtypes.

    Raises:
        TypeError, ValueError: as `lrp_transform`, and for a target that does not fit.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> explain = lrp.relevance(lambda w, x: x @ w, lrp.ZPlus())
        >>> print(explain(jnp.array([[1.0], [-1.0]]), jnp.array([[3.0, 1.0]])).round(3))
        [[2. 0.]]

    Source: Bach et al. 2015.
    """
    explained = Explained(apply_fn, composite, argnums, has_aux)

    def relevance_of(*args: Any, target: Any = None, **kwargs: Any) -> Any:
        _, found, aux = _explain(explained, args, kwargs, target, with_output=False)
        return (found, aux) if has_aux else found

    return relevance_of


@no_target
def plan(
    apply_fn: Callable[..., Any],
    composite: Any,
    argnums: ArgNums = 1,
    *,
    has_aux: bool = False,
    strict: bool = False,
) -> Callable[..., Plan]:
    """A function from a call of `apply_fn` to the plan: which layer gets which rule, and why.

    Args:
        apply_fn: `apply_fn(params_or_model, x, *more, **static)`, any JAX function.
        composite: a `Composite`, or one rule for every layer with weights.
        argnums: the explained positional arguments, as in `jax.grad`.
        has_aux: whether `apply_fn` returns `(output, aux)`.
        strict: whether what the plan warns of is an error (as in `Composite(..., strict=True)`).

    Returns:
        A function of the arguments of `apply_fn` to a `Plan`; no arrays are computed.

    Raises:
        TypeError, ValueError: as `lrp_transform`; with `strict`, a ValueError that lists warnings.
    """
    explained = Explained(apply_fn, composite, argnums, has_aux)

    def plan_of(*args: Any, **kwargs: Any) -> Plan:
        found = explained.prepare(args, kwargs)[0].resolved.plan
        if strict:
            refuse_warnings(found)
        return found

    return plan_of


def as_layer(function: Callable[..., Any], *, name: str) -> Callable[..., Any]:
    """`function` under a name by which an entry of a composite can speak of it as one layer.

    Its values, and its derivatives, are those of `function`; where no composite speaks of it, it is
    read like any other code. An entry `(lrp.call(name), lrp.Weighted(...))` makes one layer of each
    call: what runs backwards is the function's own derivative.

    Args:
        function: of any pytrees; leaves that are no arrays are static.
        name: without "/".

    Returns:
        A function with the signature of `function`.

    Raises:
        TypeError: for a function that cannot be called, or a name that is no string.
        ValueError: for an empty name, or one with a "/".

    Example:
        >>> import jax, jax.numpy as jnp, lrp_jax as lrp
        >>> attend = lambda q, k, v: jax.nn.softmax(q @ k.T) @ v
        >>> kernel = lrp.as_layer(attend, name="attention")
        >>> x = jnp.eye(2)
        >>> net = lambda w, x: kernel(x, x, x) @ w["head"]
        >>> plan = lrp.plan(net, lrp.AttnLRP(attention="attention"))({"head": x}, x)
        >>> [layer.path for layer in plan.layers]
        ['attention', 'head']
    """
    if not callable(function):
        raise TypeError(f"as_layer takes a function, not {function!r}.")
    if not isinstance(name, str):
        raise TypeError(f"as_layer(..., name={name!r}): the name is a string.")
    if not name or "/" in name:
        raise ValueError(f"as_layer(..., name={name!r}): the name is not empty and without '/'.")

    @functools.wraps(function)
    def named(*args: Any, **kwargs: Any) -> Any:
        leaves, tree = jax.tree.flatten((args, kwargs))
        mask = [is_array(leaf) for leaf in leaves]
        arrays = [leaf for leaf, flag in zip(leaves, mask, strict=True) if flag]
        if not any(isinstance(leaf, jax.core.Tracer) for leaf in arrays):
            return function(*args, **kwargs)  # nobody looks

        def layer(*values: Any) -> Any:
            given = iter(values)
            merged = [
                next(given) if flag else leaf for leaf, flag in zip(leaves, mask, strict=True)
            ]
            inner_args, inner_kwargs = jax.tree.unflatten(tree, merged)
            return function(*inner_args, **inner_kwargs)

        layer.__name__ = name
        # A new function each time: what it closes over may be another tracer in the next call.
        return jax.jit(layer)(*arrays)

    return named
