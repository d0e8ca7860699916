"""Explanations for weights that stay the same: what depends on them alone is computed once.

Absolute, one-signed and flipped weights, the bounds of a z-box sent through the first layer: none
of it depends on the input. `jit` cannot know that the weights of the next call are those of the
last one, so it computes them in every call. Here the traced explanation is cut in two: a part that
only reads the fixed arguments, run once, and the rest.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ._analysis import compat, primitives as prim
from ._analysis.compat import Equation
from ._analysis.trace import Static, is_array
from ._propagation.inlining import entered, inlined
from ._propagation.split import split
from .targets import starts


def prepare(function: Callable[..., Any], *fixed: Any) -> Callable[..., Any]:
    """`functools.partial(function, *fixed)`, computing what depends on `fixed` alone only once.

    Meant for explanations of one trained model: `prepare(explain, params)(x)` has the numbers of
    `explain(params, x)`. It is compiled inside. The prepared arrays are kept for each shape of the
    remaining arguments, beside the weights: once to four times their memory.

    Args:
        function: what `relevance`, `value_and_relevance` or a query returned, or any other JAX
            function.
        *fixed: its first positional arguments; their arrays must not be traced.

    Returns:
        A function of the remaining arguments of `function`.

    Raises:
        TypeError: where an array of `fixed` is traced, as inside of `jit` over the weights, and
            for what is no function.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> explain = lrp.relevance(lambda w, x: x @ w, lrp.ZPlus())
        >>> explain = lrp.prepare(explain, jnp.array([[1.0], [-1.0]]))
        >>> print(explain(jnp.array([[3.0, 1.0]]), target=0).round(3))
        [[2. 0.]]
    """
    if not callable(function):
        raise TypeError(f"prepare takes what explains, a function, got {type(function).__name__}.")
    fixed_leaves, fixed_tree = jax.tree.flatten(fixed)
    traced = [leaf for leaf in fixed_leaves if isinstance(leaf, jax.core.Tracer)]
    if traced:
        raise TypeError(
            f"prepare got a traced array of shape {traced[0].shape}: call it outside of jit, vmap "
            "and grad over the weights, or do without it there."
        )
    arrays = [leaf for leaf in fixed_leaves if is_array(leaf)]
    programs: dict[Any, tuple[Callable[..., Any], list[Any], list[Any]]] = {}
    outputs: dict[Any, list[Any]] = {}
    lock = threading.RLock()

    @functools.wraps(function)
    def prepared(*args: Any, **kwargs: Any) -> Any:
        leaves, tree = jax.tree.flatten((args, kwargs))
        mask = [is_array(leaf) or isinstance(leaf, bool | int | float) for leaf in leaves]
        static = tuple(None if m else Static(v) for m, v in zip(mask, leaves, strict=True))
        values = [jnp.asarray(v) for m, v in zip(mask, leaves, strict=True) if m]
        key = (tree, static, tuple(map(jax.typeof, values)))

        def flat(*both: Any) -> Any:
            first, rest = iter(both[: len(arrays)]), iter(both[len(arrays) :])
            known = [next(first) if is_array(v) else v for v in fixed_leaves]
            given = [next(rest) if m else v for m, v in zip(mask, leaves, strict=True)]
            args, kwargs = jax.tree.unflatten(tree, given)
            call = functools.partial(function, *jax.tree.unflatten(fixed_tree, known), *args)
            result, outputs[key] = _explained_outputs(call, kwargs)
            return result

        with lock:
            if key not in programs:
                programs[key] = _program(flat, arrays, values)
            rest, weights, trees = programs[key]
        for output in outputs[key]:  # inside of the program a target's numbers are unknown
            starts.check(output, kwargs["target"])
        return jax.tree.unflatten(trees[0], rest(weights, values))

    return prepared


def _explained_outputs(
    call: Callable[..., Any], kwargs: dict[str, Any]
) -> tuple[Any, list[jax.ShapeDtypeStruct]]:
    """The result of a call, and the shapes of the outputs that its `target=` was checked for."""
    with starts.asked() as asked:
        result = call(**kwargs)
    target = list(map(id, jax.tree.leaves(kwargs.get("target"))))
    same = [output for output, one in asked if list(map(id, jax.tree.leaves(one))) == target]
    return result, [
        jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), output)
        for output in same
        if target
    ]


def _program(
    flat: Callable[..., Any], arrays: list[Any], values: list[Any]
) -> tuple[Callable[..., Any], list[Any], list[Any]]:
    """The rest of the program, compiled; its prepared operands; the structure of the result."""
    trees: list[Any] = []

    def function(*both: Any) -> list[Any]:
        leaves, tree = jax.tree.flatten(flat(*both))
        trees.append(tree)
        return leaves

    operands = [jax.typeof(v) for v in (*arrays, *values)]
    closed = jax.make_jaxpr(function)(*operands)
    closed = jax.make_jaxpr(lambda *v: inlined(closed, v, instead=_in_order))(*operands)
    parts = split(closed, [True] * len(arrays) + [False] * len(values))
    with jax.ensure_compile_time_eval():
        weights = jax.jit(parts.once)(*arrays)
    return jax.jit(parts.rest), weights, trees


# -- one flat jaxpr ---------------------------------------------------------------------------


def _in_order(eqn: Equation, operands: list[Any]) -> Any:
    """Calls entered, and kernels in the order that is never copied."""
    if eqn.primitive is prim.CONV:
        return [_kernel_in_order(eqn, *operands)]
    return entered(eqn, operands) or _branch_here(eqn, operands)


def _branch_here(eqn: Equation, operands: list[Any]) -> tuple[Any, list[Any]] | None:
    """What `jax.lax.platform_dependent` chooses on a CPU where that is a convolution.

    All else is left to the compiler: the slices of a depthwise kernel are no faster apart.
    """
    platforms = eqn.params.get("branches_platforms") if eqn.primitive is prim.COND else None
    if platforms is None or jax.default_backend() != "cpu":
        return None
    chosen = next(i for i, names in enumerate(platforms) if names is None or "cpu" in names)
    body = compat.closed(eqn.params["branches"][chosen])
    if not any(e.primitive is prim.CONV for e in compat.open_jaxpr(body).eqns):
        return None
    return body, operands[1:]


def _kernel_in_order(eqn: Equation, x: Any, w: Any) -> Any:
    """A convolution that reads its kernel as (space, inputs, outputs)."""
    numbers = eqn.params["dimension_numbers"]
    outputs, inputs, *space = numbers.rhs_spec
    order = (*space, inputs, outputs)
    rank = len(order)
    spec = (rank - 1, rank - 2, *range(rank - 2))
    params = {**eqn.params, "dimension_numbers": numbers._replace(rhs_spec=spec)}
    if order != tuple(range(rank)):
        w = jax.lax.transpose(w, order)
    return eqn.primitive.bind(x, w, **params)
