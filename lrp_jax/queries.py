"""What else can be asked: hidden layers, parameters, every output at once.

Each query is a function of the same arguments as `relevance`, pure, and works under `jax.jit` and
`jax.vmap`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from . import _primitives as prim
from . import targets
from ._forms import Forms, made_form
from ._hints import no_target
from ._interpreter import Taps, key
from ._layers import Body, Frame, Step
from ._propagate import relevance_of, times_value, to_multiplier_value
from .composites import Composite
from .kinds import match
from .transform import ArgNums, Call, Explained, Start


@dataclass(frozen=True, eq=False)
class Site:
    """Where a layer's relevance can be read.

    Attributes:
        index: the layer's number in the plan.
        step: the layer.
        loops: lengths of the loops around it, which lead its arrays.
        output_form: the form of what arrives at its output.
        input_form: the form of what it sends to its inputs.
    """

    index: int
    step: Step
    loops: tuple[int, ...]
    output_form: str
    input_form: str

    def probe(self, var: Any) -> jax.Array:
        """Zeros of a variable's shape, one for every turn of the loops."""
        return jnp.zeros((*self.loops, *var.aval.shape), var.aval.dtype)


def sites(call: Call, form: str) -> list[Site]:
    """Every layer of a call with the forms that relevance has around it."""
    return list(_sites(call, call.frame, call.forms(form), ()))


def _sites(call: Call, frame: Frame, forms: Forms, loops: tuple[int, ...]) -> Iterator[Site]:
    rules = call.composite.rules
    for step in frame.steps:
        if isinstance(step.what, Body):
            eqn = step.what.eqn
            inner = (*loops, eqn.params["length"]) if eqn.primitive is prim.SCAN else loops
            for body, inside in zip(step.what.frames, forms.bodies[step], strict=True):
                yield from _sites(call, body, inside, inner)
        elif step in call.resolved.indices:
            entry = call.resolved.entries.get(step)
            out = "R" if "R" in [forms.of.get(v, "C") for v in step.outputs] else "C"
            rule = None if entry is None or call.composite.gradient else rules[entry]
            made = out if call.composite.gradient else made_form(step, rule, out)
            yield Site(call.resolved.indices[step], step, loops, out, made)


def select(call: Call, spec: Any, form: str) -> list[Site]:
    """The layers that a match, a glob or a predicate speaks of.

    Raises:
        ValueError: where there is none, with the names that there are.
    """
    layers = call.resolved.plan.layers
    chosen = match(spec)
    wanted = {x.index for x in layers if chosen.matches(x, layers)}
    if not wanted:
        names = ", ".join(x.path for x in layers[:12])
        raise ValueError(
            f"no layer matches {spec!r}; there are {names}{', ...' if len(layers) > 12 else ''}."
        )
    return [site for site in sites(call, form) if site.index in wanted]


def one(call: Call, spec: Any, form: str = "C") -> Site:
    """The one layer that a match speaks of; a layer's whole path always names it alone.

    Raises:
        ValueError: where there is none or more than one, with their names.
    """
    found = select(call, spec, form)
    exact = [site for site in found if path_of(call, site) == spec]
    if len(exact or found) > 1:
        names = ", ".join(path_of(call, site) for site in found[:6])
        raise ValueError(f"{spec!r} matches {len(found)} layers ({names}); name one.")
    return (exact or found)[0]


def path_of(call: Call, site: Site) -> str:
    """The unique path of a layer."""
    return call.resolved.plan.layers[site.index].path


def pull_taps(
    call: Call, form: str, composite: Composite, leaves: Sequence[Any], taps: Taps,
    exposed: frozenset[int], stopped: frozenset[int] = frozenset(),
) -> tuple[Any, Taps, Callable[[Any, Taps], tuple[list[Any], Taps]]]:  # fmt: skip
    """Output, exposed values, and the pullback to the explained leaves and the taps."""

    def explain(explained: list[Any], taps: Taps) -> tuple[Any, Taps]:
        merged = call.with_explained(leaves, explained)
        output, _, exposures = call.evaluate(
            form, composite, merged, taps, exposed, stopped=stopped
        )
        return output, exposures

    explained = [leaves[i] for i in call.explained]
    (output, exposures), pullback = jax.vjp(explain, explained, taps)
    return output, exposures, lambda seed, exposed_seed: pullback((seed, exposed_seed))


def zeros_like(tree: Any) -> Any:
    """Zero cotangents for a tree of arrays."""
    return jax.tree.map(jnp.zeros_like, tree)


def _reducer(reduce: Any) -> Callable[[jax.Array, int], Any]:
    """A function of a relevance array and of the number of loops that lead in it."""
    named: dict[Any, Callable[[jax.Array, int], Any]] = {
        None: lambda r, loops: r,
        "channels": lambda r, loops: r.sum(-1),
        "space": lambda r, loops: r.sum(tuple(range(loops + 1, r.ndim - 1))),
    }
    if callable(reduce):
        return lambda r, loops: reduce(r)
    if isinstance(reduce, int) and not isinstance(reduce, bool) and reduce > 0:
        return lambda r, loops: _largest(r.reshape(*r.shape[: loops + 1], -1), reduce)
    if reduce not in named:
        raise ValueError(
            f"reduce={reduce!r}: it is None, 'channels' (sum over the last axis), 'space' (sum "
            "over all axes but the first and the last), a number of values to keep of each "
            "example, or a function of one relevance array."
        )
    return named[reduce]


def _largest(relevance: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The `k` values of the largest size along the last axis, and their positions."""
    _, positions = jax.lax.top_k(jnp.abs(relevance), min(k, relevance.shape[-1]))
    return jnp.take_along_axis(relevance, positions, -1), positions


@no_target
def layer_relevances(
    apply_fn: Callable[..., Any],
    composite: Any,
    layers: Any = "*",
    argnums: ArgNums = 1,
    *,
    reduce: Any = None,
    start: tuple[Any, Any] | None = None,
    stop: Any = None,
    has_aux: bool = False,
) -> Callable[..., dict[str, Any]]:
    """A function from a call of `apply_fn` to the relevance at the output of hidden layers.

    One backward pass serves all of them. A layer in a loop has the loop's turns as leading axis.

    Args:
        apply_fn: the function to explain.
        composite: a composite, or one rule for every layer with weights.
        layers: which layers: a path glob, a kind, or another match.
        argnums: the explained positional arguments.
        reduce: what to keep, to bound memory: None (all), "channels" (the sum over the last axis),
            "space" (the sum over all axes between the examples and the last one), an int k (of each
            example the k values of the largest size and their positions in its flat array, as a
            pair), or a function of one relevance array.
        start: `(path, relevance)`: begin at this hidden layer with this relevance, a function of
            the layer's output or an array of its shape, and not at the output.
        stop: end at these layers, any match: they hand no relevance on, and below them is what
            flows around them. What nobody asks for is not computed, with or without a stop.
        has_aux: whether `apply_fn` returns `(output, aux)`.

    Returns:
        A function of the arguments of `apply_fn` and `target=None`, to `{path: relevance}`.

    Raises:
        ValueError: where no layer matches, with the names that there are.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> f = lambda w, x: (x @ w["a"]) @ w["b"]
        >>> w = {"a": jnp.eye(2), "b": jnp.ones((2, 1))}
        >>> print(lrp.layer_relevances(f, lrp.Zero(), "a")(w, jnp.array([[1.0, 2.0]]))["a"])
        [[1. 2.]]
    """
    explained = Explained(apply_fn, composite, argnums, has_aux)
    reducer = _reducer(reduce)
    if start is not None and (isinstance(start, str) or len(start) != 2):
        raise ValueError(f"start={start!r}: it is a pair of a layer and its relevance.")

    def relevances(*args: Any, target: Any = None, **kwargs: Any) -> dict[str, Any]:
        call, leaves = explained.prepare(args, kwargs)

        def evaluate(begin: Start, composite: Composite, leaves: Any, target: Any) -> Any:
            chosen = select(call, layers, begin.form)
            first = [one(call, start[0], begin.form)] if start is not None else []
            taps = {key("out", s.index): s.probe(s.step.outputs[0]) for s in chosen}
            last = select(call, stop, begin.form) if stop is not None else []
            exposed = frozenset(s.index for s in [*chosen, *first])
            stopped = frozenset(s.index for s in last)
            output, values, pullback = pull_taps(
                call, begin.form, composite, leaves, taps, exposed, stopped
            )
            if start is None:
                seed, inner = begin.seed(output, target), zeros_like(values)
            else:
                seed, inner = zeros_like(output), zeros_like(values)
                name = key("out", first[0].index)
                value = values[name]
                given = (
                    start[1](value) if callable(start[1]) else jnp.asarray(start[1], value.dtype)
                )
                inner[name] = _seed(jnp.broadcast_to(given, value.shape), value, first[0])
            _, found = pullback(seed, inner)
            return {
                path_of(call, s): reducer(_at_output(call, s, found, values), len(s.loops))
                for s in chosen
            }

        return explained.run(call, ("layers", start is None), evaluate, leaves, target)

    return relevances


def _at_output(call: Call, site: Site, found: Taps, values: Taps) -> jax.Array:
    name = key("out", site.index)
    if call.composite.gradient:
        return found[name]
    return relevance_of(found[name], values[name], site.output_form).astype(values[name].dtype)


def _seed(relevance: jax.Array, value: jax.Array, site: Site) -> jax.Array:
    """What to send into a layer's output so that it is `relevance`."""
    return relevance if site.output_form == "R" else to_multiplier_value(relevance, value)


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
            if any(hasattr(rule, "input_relevance") for rule in chosen):
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


@no_target
def relevance_matrix(
    apply_fn: Callable[..., Any],
    composite: Any,
    argnums: int = 1,
    *,
    mode: Literal["reverse", "forward"] = "reverse",
    has_aux: bool = False,
) -> Callable[..., jax.Array]:
    """A function from a call of `apply_fn` to the relevance of every output for every input.

    M[j, i] is the relevance of input i when output j is explained. Reverse mode pulls every output
    back; forward mode pushes every input forward through the transposed layers, which is the
    forward-pass formulation of LRP: cheaper where there are fewer inputs than outputs.

    Args:
        apply_fn: the function to explain, with one output array.
        composite: a composite, or one rule for every layer with weights.
        argnums: the explained argument, one array.
        mode: "reverse" or "forward".
        has_aux: whether `apply_fn` returns `(output, aux)`.

    Returns:
        A function of the arguments of `apply_fn` to an array of shape output + input.

    Raises:
        ValueError: for another mode, several outputs or several inputs, or forward mode of a
            modified gradient, which is not linear.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> f = lambda w, x: x @ w
        >>> print(lrp.relevance_matrix(f, lrp.Zero())(jnp.eye(2), jnp.array([1.0, 3.0])))
        [[1. 0.]
         [0. 3.]]
    """
    if mode not in ("reverse", "forward"):
        raise ValueError(f"mode={mode!r}: it is 'reverse' or 'forward'.")
    explained = Explained(apply_fn, composite, argnums, has_aux)
    if mode == "forward" and explained.composite.gradient:
        raise ValueError("modified gradients are not linear: only mode='reverse' has a meaning.")

    def matrix(*args: Any, **kwargs: Any) -> jax.Array:
        call, leaves = explained.prepare(args, kwargs)
        shapes = jax.tree.leaves(call.output_shapes)
        if len(shapes) != 1 or len(call.explained) != 1:
            raise ValueError(
                f"a relevance matrix has one output and one input array; here are {len(shapes)} "
                f"outputs and {len(call.explained)} explained inputs."
            )

        def evaluate(composite: Composite, leaves: Any) -> jax.Array:
            x = leaves[call.explained[0]]
            output, pullback, _ = call.pulled("C", composite, leaves)
            shape, tree = shapes[0], jax.tree.structure(output)

            def pull(seed: jax.Array) -> jax.Array:
                return pullback(jax.tree.unflatten(tree, [seed]))[0]

            if mode == "reverse":
                basis = jnp.eye(shape.size, dtype=shape.dtype).reshape(-1, *shape.shape)
                return jax.vmap(pull)(basis).reshape(*shape.shape, *x.shape)
            push = jax.linear_transpose(pull, shape)
            basis = jnp.eye(x.size, dtype=x.dtype).reshape(-1, *x.shape)
            columns = jax.vmap(lambda e: push(e)[0])(basis)
            return jnp.moveaxis(columns, 0, -1).reshape(*shape.shape, *x.shape)

        return explained.compiled(call, ("matrix", mode), evaluate)(explained.composite, leaves)

    return matrix


def bilrp(
    apply_fn: Callable[..., Any], composite: Any, *, reduce: Any = None
) -> Callable[..., jax.Array]:
    """A function to the relevance of pairs of inputs for the similarity of two embeddings.

    The similarity is phi(x) . phi(y); R[i, j] = sum_k R_k,i(x) R_k,j(y), with R_k the relevance for
    the k-th feature. The pairs sum to the similarity as far as the rules conserve.

    Args:
        apply_fn: `apply_fn(params, x)`, the embedding phi of one input, or of a batch.
        composite: a composite, or one rule for every layer with weights.
        reduce: a function of one relevance array of an input (such as a sum over channels and
            patches), to keep the matrix of pairs small.

    Returns:
        A function of `(params, x, y)` to an array of shape x + y (after `reduce`).

    Source: Eberle et al. 2020, "Building and interpreting deep similarity models".
    """
    matrix = relevance_matrix(apply_fn, composite)
    keep = _reducer(reduce)

    def pairs(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        def features(value: jax.Array) -> jax.Array:
            found = matrix(params, value)
            return jax.vmap(lambda r: keep(r, 0))(found.reshape(-1, *value.shape))

        return jnp.tensordot(features(x), features(y), axes=(0, 0))

    return pairs
