"""Explanations for weights that stay the same: what depends on them alone is computed once.

Absolute, one-signed and flipped weights, the bounds of a z-box sent through the first layer: none
of it depends on the input. `jit` cannot know that the weights of the next call are those of the
last one, so it computes them in every call. Here the traced explanation is cut in two: a part that
only reads the fixed arguments, run once, and the rest.
"""

import functools
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ._analysis import compat, primitives as prim
from ._analysis.compat import Equation, Var, is_literal
from ._analysis.graph import without_dead
from ._analysis.primitives import POINTWISE, family
from ._analysis.trace import Static, is_array


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
        TypeError: where an array of `fixed` is traced, as inside of `jit` over the weights.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> explain = lrp.relevance(lambda w, x: x @ w, lrp.ZPlus())
        >>> explain = lrp.prepare(explain, jnp.array([[1.0], [-1.0]]))
        >>> print(explain(jnp.array([[3.0, 1.0]]), target=0).round(3))
        [[2. 0.]]
    """
    fixed_leaves, fixed_tree = jax.tree.flatten(fixed)
    traced = [leaf for leaf in fixed_leaves if isinstance(leaf, jax.core.Tracer)]
    if traced:
        raise TypeError(
            f"prepare got a traced array of shape {traced[0].shape}: call it outside of jit, vmap "
            "and grad over the weights, or do without it there."
        )
    arrays = [leaf for leaf in fixed_leaves if is_array(leaf)]
    programs: dict[Any, tuple[Callable[..., Any], list[Any], list[Any]]] = {}
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
            return function(*jax.tree.unflatten(fixed_tree, known), *args, **kwargs)

        with lock:
            if key not in programs:
                programs[key] = _program(flat, arrays, values)
            rest, weights, trees = programs[key]
        return jax.tree.unflatten(trees[0], rest(weights, values))

    return prepared


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
    closed = jax.make_jaxpr(lambda *v: _inlined(closed, v))(*operands)
    split = _split(closed, [True] * len(arrays) + [False] * len(values))
    with jax.ensure_compile_time_eval():
        weights = jax.jit(split.once)(*arrays)
    return jax.jit(split.rest), weights, trees


# -- one flat jaxpr ---------------------------------------------------------------------------


def _inlined(closed: Any, values: Sequence[Any]) -> list[Any]:
    """Evaluate a jaxpr without its calls, and with kernels in the order that is never copied."""
    jaxpr = compat.open_jaxpr(closed)
    env: dict[Var, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    env.update(zip(jaxpr.invars, values, strict=True))
    for eqn in jaxpr.eqns:
        operands = [a.val if is_literal(a) else env[a] for a in eqn.invars]
        body = compat.plain_call(eqn)
        if body is None:
            body, operands = _branch_here(eqn, operands)
        if body is not None:
            results = _inlined(body, operands)
        elif eqn.primitive is prim.CONV:
            results = [_kernel_in_order(eqn, *operands)]
        else:
            env.update(compat.evaluate(jaxpr, [eqn], env))
            continue
        env.update(zip(eqn.outvars, results, strict=True))
    return [a.val if is_literal(a) else env[a] for a in jaxpr.outvars]


def _branch_here(eqn: Equation, operands: list[Any]) -> tuple[Any | None, list[Any]]:
    """What `jax.lax.platform_dependent` chooses on a CPU where that is a convolution.

    All else is left to the compiler: the slices of a depthwise kernel are no faster apart.
    """
    platforms = eqn.params.get("branches_platforms") if eqn.primitive is prim.COND else None
    if platforms is None or jax.default_backend() != "cpu":
        return None, operands
    chosen = next(i for i, names in enumerate(platforms) if names is None or "cpu" in names)
    body = compat.closed(eqn.params["branches"][chosen])
    if not any(e.primitive is prim.CONV for e in compat.open_jaxpr(body).eqns):
        return None, operands
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


# -- cut in two -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Split:
    """A program as what is done once, and the rest, which reads that.

    Attributes:
        once: from the known inputs to the operands of `rest`.
        rest: from those operands and the other inputs to the outputs.
    """

    once: Callable[..., list[Any]]
    rest: Callable[[list[Any], list[Any]], list[Any]]


def _split(closed: Any, known: Sequence[bool]) -> _Split:
    jaxpr = compat.open_jaxpr(closed)
    inputs = [v for v, flag in zip(jaxpr.invars, known, strict=True) if flag]
    others = [v for v, flag in zip(jaxpr.invars, known, strict=True) if not flag]
    unknown: set[Var] = set(others)
    # From how many known numbers a variable is cheap to make again: a bias from its features, not
    # from the activations that it is spread over.
    price = {v: v.aval.size for v in inputs} | dict.fromkeys(jaxpr.constvars, 0)
    early: dict[Var, Equation] = {}
    late, again = [], set()
    for eqn in without_dead(jaxpr):
        operands = {a for a in eqn.invars if not is_literal(a)}
        if eqn.effects or operands & unknown:
            unknown.update(eqn.outvars)
            late.append(eqn)
            continue
        early.update(dict.fromkeys(eqn.outvars, eqn))
        for var in eqn.outvars:
            cost = sum(price[a] for a in operands) if _is_cheap(eqn) else var.aval.size
            price[var] = min(cost, var.aval.size)
            if cost < var.aval.size:
                again.add(var)

    def sources(wanted: Iterable[Any], through: Callable[[Var], bool]) -> tuple[Any, Any]:
        """Variables that `wanted` comes from, and the early equations in between."""
        todo, seen, found = list(wanted), set(), dict[Var, None]()
        while todo:
            atom = todo.pop()
            if is_literal(atom) or atom in seen or atom in unknown:
                continue
            seen.add(atom)
            if atom in early and through(atom):
                todo.extend(early[atom].invars)
            elif atom in early or atom in inputs:
                found[atom] = None
        made = {id(early[a]) for a in seen if a in early and a not in found}
        return list(found), made

    read = [a for eqn in late for a in eqn.invars] + list(jaxpr.outvars)
    rest = {id(eqn) for eqn in late}
    handed, redone = sources(read, again.__contains__)
    _, once = sources(handed, lambda var: True)
    done_once = [e for e in jaxpr.eqns if id(e) in once]
    done_later = [e for e in jaxpr.eqns if id(e) in redone | rest]
    constants = list(jaxpr.constvars)
    first = compat.as_function(jaxpr, done_once, [*constants, *inputs], handed)
    second = compat.as_function(jaxpr, done_later, [*constants, *handed, *others], jaxpr.outvars)
    return _Split(
        lambda *arrays: first(*closed.consts, *arrays),
        lambda weights, values: second(*closed.consts, *weights, *values),
    )


_MOVES = {*prim.SHAPE_ONLY, prim.SELECT, compat.primitive("iota")}


def _is_cheap(eqn: Equation) -> bool:
    return family(eqn.primitive) in POINTWISE or eqn.primitive in _MOVES
