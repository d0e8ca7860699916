"""The relevance of hidden layers."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._calls.arguments import ArgNums
from .._calls.call import Call, Start
from .._calls.explained import Explained
from .._calls.hints import no_target
from .._layers.arithmetic import relevance_of, to_multiplier_value
from .._propagation.loop import Taps, key
from ..composites import Composite
from .flow import fits
from .sites import Site, one, path_of, pull_taps, select, zeros_like


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
        layers: which layers: a path glob, a kind, another match, or a list of these.
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
        ValueError: where no layer matches, with the names that there are; for a start of another
            shape, and for a target beside it.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> f = lambda w, x: (x @ w["a"]) @ w["b"]
        >>> w = {"a": jnp.eye(2), "b": jnp.ones((2, 1))}
        >>> print(lrp.layer_relevances(f, lrp.Zero(), "a")(w, jnp.array([[1.0, 2.0]]))["a"])
        [[1. 2.]]
    """
    explained = Explained(apply_fn, composite, argnums, has_aux)
    keep = reducer(reduce)
    if start is not None and (isinstance(start, str) or len(start) != 2):
        raise ValueError(f"start={start!r}: it is a pair of a layer and its relevance.")

    def relevances(*args: Any, target: Any = None, **kwargs: Any) -> dict[str, Any]:
        if start is not None and target is not None:
            raise ValueError(
                f"target={target!r} starts at the output, and start= at the layer {start[0]!r}: "
                "give one of them."
            )
        call, leaves = explained.prepare(args, kwargs)

        def evaluate(begin: Start, composite: Composite, leaves: Any, target: Any) -> Any:
            chosen = select(call, layers, begin.form)
            first = [one(call, start[0], begin.form)] if start is not None else []
            last = select(call, stop, begin.form) if stop is not None else []
            if first:
                _require_reached(call, first[0], chosen)

            def seeds(output: Any, values: Taps) -> tuple[Any, Taps]:
                if start is None:
                    return begin.seed(output, target), zeros_like(values)
                name, given = key("out", first[0].index), start[1]
                value = values[name]
                given = given(value) if callable(given) else jnp.asarray(given, value.dtype)
                if not fits(np.shape(given), value.shape):
                    raise ValueError(
                        f"start: the relevance of {path_of(call, first[0])} has the shape "
                        f"{value.shape} of its output, and {np.shape(given)} does not broadcast "
                        "to it."
                    )
                inner = _seed(jnp.broadcast_to(given, value.shape), value, first[0])
                return zeros_like(output), {**zeros_like(values), name: inner}

            found = relevances_at(call, begin, composite, leaves, chosen, seeds, first, last)
            return {
                path_of(call, s): keep(r, len(s.loops)) for s, r in zip(chosen, found, strict=True)
            }

        return explained.run(call, ("layers", start is None), evaluate, leaves, target)

    return relevances


def _require_reached(call: Call, start: Site, chosen: Sequence[Site]) -> None:
    """Refuse a start from which no relevance comes to what is asked for."""
    reached = call.resolved.plan.layers[start.index].above | {start.index}
    if not any(site.index in reached for site in chosen):
        raise ValueError(
            f"relevance that starts at {path_of(call, start)} goes towards the input and does not "
            f"come to {', '.join(path_of(call, site) for site in chosen[:6])}."
        )


def relevances_at(
    call: Call,
    begin: Start,
    composite: Composite,
    leaves: Any,
    chosen: Sequence[Site],
    seeds: Callable[[Any, Taps], tuple[Any, Taps]],
    first: Sequence[Site] = (),
    last: Sequence[Site] = (),
) -> list[jax.Array]:
    """The relevance at the outputs of some layers.

    Args:
        seeds: from the output and the values of layers to what is sent into them.
        first: layers that something is sent into.
        last: layers that hand nothing on.
    """
    taps = {key("out", s.index): s.probe(s.step.outputs[0]) for s in chosen}
    exposed = frozenset(s.index for s in [*chosen, *first])
    stopped = frozenset(s.index for s in last)
    output, values, pullback = pull_taps(
        call, begin.form, composite, leaves, taps, exposed, stopped
    )
    _, found = pullback(*seeds(output, values))
    return [_at_output(call, s, found, values) for s in chosen]


def reducer(reduce: Any) -> Callable[[jax.Array, int], Any]:
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


def _at_output(call: Call, site: Site, found: Taps, values: Taps) -> jax.Array:
    name = key("out", site.index)
    if call.composite.gradient:
        return found[name]
    return relevance_of(found[name], values[name], site.output_form).astype(values[name].dtype)


def _seed(relevance: jax.Array, value: jax.Array, site: Site) -> jax.Array:
    """What to send into a layer's output so that it is `relevance`."""
    return relevance if site.output_form == "R" else to_multiplier_value(relevance, value)
