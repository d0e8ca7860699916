"""Concept relevance (CRP): relevance that flows through chosen units of hidden layers.

A concept is a channel of a convolution, a unit of a dense layer, a head, a token, or any mask or
linear subspace of a layer's output. Relevance is followed to the layer, restricted to the concept
and followed on: from one forward pass for all concepts.

Source: Achtibat et al. 2023, "From attribution maps to human-understandable explanations through
Concept Relevance Propagation".
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from .._calls.arguments import ArgNums
from .._calls.call import Call, Start
from .._calls.explained import Explained
from .._calls.hints import no_target
from .._propagation.loop import Taps
from .._propagation.many import over
from .._tables import Shown, Table, strongest
from ..composites import Composite
from .flow import (
    Concepts,
    Flow,
    check_flow,
    key_of,
    named_turns,
    pooled,
    restriction_of,
    same_number,
    turns_of,
    unit_axis,
)
from .roles import Roles
from .sites import Site, one, path_of


@no_target
def concept_relevance(
    apply_fn: Callable[..., Any],
    composite: Any,
    layer: Any,
    concepts: Concepts = None,
    argnums: ArgNums = 1,
    *,
    axis: int | Literal["heads"] | None = None,
    parallel: bool = False,
    chunk: int | None = None,
    has_aux: bool = False,
) -> Callable[..., Any]:
    """A function from a call of `apply_fn` to the relevance of its inputs through each concept.

    With R^l the relevance at the layer's output and m_c the mask of concept c, the result is
    what m_c * R^l sends to the inputs. Where the masks of all concepts add up to one, the results
    add up to what flows through the layer. In a loop, R^l is the relevance that meets the layer
    for the first time on its way from the output, at the turns that a mask names (all, where it
    names none): nothing counts twice.

    Args:
        apply_fn: the function to explain.
        composite: a composite, or one rule for every layer with weights.
        layer: a path glob or another match of one layer; or a mapping `{layer: concepts, ...}`,
            one condition on several layers: relevance flows through all of them.
        concepts: per result an int (a unit), a list of ints (taken together), or, as an array of
            floats or booleans with the concepts leading, a mask that broadcasts against the layer's
            output (in a loop, its turns lead); or `Subspaces`.
        argnums: the explained positional arguments.
        axis: the axis of the layer's output that units lie on (default: the features of a
            convolution or dense layer, else the last; there is none for a matrix product of two
            explained values). Tokens are units of their axis. "heads" are the heads of attention,
            wherever they lie, see `lrp_jax.head_relevance`.
        parallel: whether relevance that passes the layers by counts too (branches around them).
        chunk: how many concepts at a time (default: as many as leave the largest array of a layer
            at 4 MiB, which is fastest on processors); memory grows with it.
        has_aux: whether `apply_fn` returns `(output, aux)`.

    Returns:
        A function of the arguments of `apply_fn` and `target=None`, to relevances with one leading
        axis for the concepts.

    Raises:
        ValueError: for a layer that is not there or not one, layers without a path through all of
            them, a unit out of range or a mask that does not fit.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> f = lambda w, x: (x @ w["a"]) @ w["b"]
        >>> w = {"a": jnp.eye(2), "b": jnp.ones((2, 1))}
        >>> explain = lrp.concept_relevance(f, lrp.Zero(), "a", [0, 1])
        >>> print(explain(w, jnp.array([1.0, 2.0])))
        [[1. 0.]
         [0. 2.]]
    """
    explained = Explained(apply_fn, composite, argnums, has_aux)
    conditions = list(layer.items()) if isinstance(layer, Mapping) else [(layer, concepts)]
    if not conditions or any(c is None for _, c in conditions):
        raise ValueError("concept_relevance needs a layer and the concepts of each layer.")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk={chunk}: it is a number of concepts, at least 1.")

    def relevances(*args: Any, target: Any = None, **kwargs: Any) -> Any:
        call, leaves = explained.prepare(args, kwargs)
        # From the output on, as relevance meets them.
        pairs = [(one(call, spec), given) for spec, given in conditions]
        pairs.sort(key=lambda pair: -pair[0].index)
        found = [site for site, _ in pairs]
        check_flow(call, found, parallel)
        given = [_restriction(call, given, site, axis) for site, given in pairs]
        turns = [turns_of(r, site) for r, site in zip(given, found, strict=True)]
        given = same_number(given)

        def evaluate(
            begin: Start, composite: Composite, leaves: Any, target: Any, given: Any
        ) -> Any:
            units = None if axis == "heads" else axis
            flow = Flow(call, begin, composite, leaves, target, found, units)

            def through(given: Sequence[Any]) -> Any:
                came, result = flow.arrived, flow.whole
                for site, restriction, rounds in zip(found, given, turns, strict=True):
                    first = flow.first(site, came, rounds, named_turns(restriction, site))
                    result, came = flow.send({key_of(site): flow.keep(site, restriction, first)})
                return result

            def beside(given: Sequence[Any]) -> Any:
                def taken_away(came: Taps) -> Taps:
                    return {
                        key_of(s): came[key_of(s)] - flow.keep(s, restriction, came[key_of(s)])
                        for s, restriction in zip(found, given, strict=True)
                    }

                places = sum(math.prod(s.loops) for s in found)
                gone, _ = flow.send(flow.settle(taken_away, flow.arrived, places))
                return jax.tree.map(jnp.subtract, flow.whole, gone)

            restricted = beside if parallel else through
            return over(restricted, given, chunk)

        result = explained.run(call, ("concepts", *turns), evaluate, leaves, target, given)
        return explained.rebuild_explained(args, result)

    return relevances


def _restriction(
    call: Call, concepts: Concepts, site: Site, axis: int | Literal["heads"] | None
) -> Any:
    if axis != "heads":
        return restriction_of(concepts, site, axis)
    roles = Roles(call)
    parts = roles.of_heads(site)
    if parts is None or not roles.fit(parts):
        raise ValueError(
            f"{path_of(call, site)} has no heads that can be told: axis= takes the number of an "
            f"axis of its output of shape {site.step.outputs[0].aval.shape} too."
        )
    return restriction_of(roles.masks(site, parts, concepts).astype(float), site, None)


def reference_relevance(
    apply_fn: Callable[..., Any],
    composite: Any,
    layer: Any,
    argnums: ArgNums = 1,
    *,
    axis: int | None = None,
) -> Callable[..., jax.Array]:
    """A function to the relevance of each example through its own unit of a layer.

    It shows what in an example made it a reference of a concept: as a heatmap, and as a crop with
    `receptive_window` (`lrp_jax.plot.gallery`).

    Args:
        apply_fn: `apply_fn(params, x)`, the function to explain.
        composite: a composite, or one rule for every layer with weights.
        layer: a path glob or another match of one layer.
        argnums: the explained argument, one array.
        axis: the axis of units (default: the features).

    Returns:
        A function of `(params, x, units, target=None)`, examples leading in `x` and, one for each,
        in `units` and an array `target`, to relevance of the shape of `x`.

    Raises:
        ValueError: for another number of units than of examples, and a unit that is not there.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> f = lambda w, x: (x @ w["a"]) @ w["b"]
        >>> w = {"a": jnp.eye(2), "b": jnp.ones((2, 1))}
        >>> explain = lrp.questions.reference_relevance(f, lrp.Zero(), "a")
        >>> print(explain(w, jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([0, 1])))
        [[1. 0.]
         [0. 4.]]
    """

    explained = Explained(apply_fn, composite, argnums, False)

    def explain(params: Any, x: jax.Array, units: jax.Array, target: Any = None) -> jax.Array:
        units = jnp.asarray(units)
        if units.shape != np.shape(x)[:1] or not jnp.issubdtype(units.dtype, jnp.integer):
            raise ValueError(
                f"units needs an integer for each of the examples of x {np.shape(x)}, got "
                f"{units.dtype} of shape {units.shape}."
            )
        if units.size and not isinstance(units, jax.core.Tracer):
            site = one(explained.prepare((params, jnp.asarray(x)[:1]), {})[0], layer)
            restriction_of(np.unique(units), site, axis)
        return through_units(params, x, units, target)

    @jax.jit
    def through_units(params: Any, x: jax.Array, units: jax.Array, target: Any) -> jax.Array:
        def single(x: jax.Array, unit: jax.Array, target: Any) -> jax.Array:
            through = concept_relevance(apply_fn, composite, layer, unit[None], argnums, axis=axis)
            return through(params, x[None], target=target)[0, 0]

        per_example = None if target is None or jnp.ndim(target) == 0 else 0
        return jax.vmap(single, (0, 0, per_example))(
            x, units, target if per_example is None else target[:, None]
        )

    return explain


@partial(jax.tree_util.register_dataclass, data_fields=["scores", "edges"], meta_fields=["layers"])
@dataclass(frozen=True, repr=False)
class ConceptGraph(Shown):
    """How relevance flows between the concepts of layers, from the output on.

    Attributes:
        layers: paths of the layers, the one nearest to the output first.
        scores: for each layer the relevance of its units, (examples, units).
        edges: for each layer but the last, what each of its units hands to each unit of the next,
            (examples, units, units of the next).
    """

    layers: tuple[str, ...]
    scores: tuple[jax.Array, ...]
    edges: tuple[jax.Array, ...]

    def strongest(self, example: int, k: int) -> tuple[np.ndarray, ...]:
        """For each layer the `k` units of the largest absolute relevance, strongest first."""
        return tuple(np.argsort(-np.abs(np.asarray(s[example])))[:k] for s in self.scores)

    def _table(self) -> Table:
        sums = [np.asarray(scores).sum(0) for scores in self.scores]
        rows = tuple(
            (layer, str(len(units)), strongest(units, [str(i) for i in range(len(units))]))
            for layer, units in zip(self.layers, sums, strict=True)
        )
        header = ("layer", "units", "strongest, summed over examples")
        return Table(header, rows, frozenset({1}))

    def _title(self) -> str:
        return f"Concepts of {', '.join(self.layers)}"


def concept_graph(
    apply_fn: Callable[..., Any],
    composite: Any,
    layers: Sequence[Any],
    argnums: ArgNums = 1,
    *,
    axis: int | None = None,
    chunk: int | None = None,
    has_aux: bool = False,
) -> Callable[..., ConceptGraph]:
    """A function from a call of `apply_fn` to the flow of relevance between concepts of layers.

    The edge from unit j of a layer to unit i of the next one towards the input is what the
    relevance of j sends there: R_(i <- j). Summed over j it is the relevance of i that flows
    through the upper layer, summed over i what the way between them leaves of the relevance of j.

    Args:
        apply_fn: the function to explain.
        composite: a composite, or one rule for every layer with weights.
        layers: matches of one layer each; their order does not matter.
        argnums: the explained positional arguments.
        axis: the axis of units in every layer (default: the features).
        chunk: how many units at a time (default: as in `concept_relevance`).
        has_aux: whether `apply_fn` returns `(output, aux)`.

    Returns:
        A function of the arguments of `apply_fn` and `target=None`, to a `ConceptGraph`.

    Raises:
        ValueError: for fewer than two layers, for layers without a path through all of them or in a
            loop, and as `concept_relevance`.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> f = lambda w, x: (x @ w["a"]) @ w["b"]
        >>> w = {"a": jnp.eye(2), "b": jnp.array([[1.0, 1.0], [1.0, 0.0]])}
        >>> graph = lrp.questions.concept_graph(f, lrp.Zero(), ["a", "b"])(w, jnp.ones((1, 2)))
        >>> graph.layers, graph.edges[0][0].tolist()
        (('b', 'a'), [[1.0, 1.0], [0.0, 0.0]])

    Source: Achtibat et al. 2023.
    """
    explained = Explained(apply_fn, composite, argnums, has_aux)
    if isinstance(layers, str) or len(layers) < 2:
        raise ValueError(f"a graph needs a list of at least two layers, got {layers!r}.")

    def graph(*args: Any, target: Any = None, **kwargs: Any) -> ConceptGraph:
        call, leaves = explained.prepare(args, kwargs)
        found = sorted((one(call, spec) for spec in layers), key=lambda site: -site.index)
        check_flow(call, found, parallel=False)
        if any(site.loops for site in found):
            raise ValueError("a layer in a loop has no one place in a graph; unroll the loop.")

        def evaluate(begin: Start, composite: Composite, leaves: Any, target: Any) -> Any:
            flow = Flow(call, begin, composite, leaves, target, found, axis)

            def score(site: Site, came: Taps) -> jax.Array:
                return pooled(flow.relevance(site, came), site, axis, jnp.sum)

            def edges(upper: Site, lower: Site) -> jax.Array:
                def row(unit: Any) -> jax.Array:
                    kept = flow.keep(upper, unit, flow.arrived[key_of(upper)])
                    return score(lower, flow.send({key_of(upper): kept})[1])

                units = range(upper.step.outputs[0].aval.shape[unit_axis(upper, axis)])
                rows = over(row, restriction_of(units, upper, axis), chunk)
                return jnp.moveaxis(rows, 0, -2)

            return (
                tuple(score(site, flow.arrived) for site in found),
                tuple(edges(*pair) for pair in pairwise(found)),
            )

        scores, edges = explained.run(call, "graph", evaluate, leaves, target)
        return ConceptGraph(tuple(path_of(call, site) for site in found), scores, edges)

    return graph
