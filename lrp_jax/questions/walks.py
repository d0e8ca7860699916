"""Walks: relevance through one node of each of several layers, and through all that stay in a set.

A node is what lies on one axis of a layer's output: a node of a graph, a token, a patch, a step of
time, a channel, a unit. Relevance is followed from the output to the first layer, restricted to the
walk's node there, followed on to the next one, and read at the last.

Source: Schnake et al. 2022, "Higher-order explanations of graph neural networks via relevant walks"
(GNN-LRP); Xiong et al. 2022, "Efficient computation of higher-order subgraph attribution via
message passing" (sets of nodes in linear time).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from .._calls.arguments import ArgNums
from .._calls.call import Call, Start
from .._calls.explained import Explained
from .._calls.hints import no_target
from .._propagation.loop import Taps
from .._propagation.many import over
from ..composites import Composite
from .flow import Flow, check_flow, key_of, named_turns, turns_of
from .sites import Site, one, path_of

INPUT = "input"  # the explained argument, among the layers of a walk


@no_target
def walk_relevance(
    apply_fn: Callable[..., Any],
    composite: Any,
    layers: Sequence[Any],
    walks: Sequence[Sequence[Any]],
    argnums: ArgNums = 1,
    *,
    axis: int | Sequence[int] = -2,
    chunk: int | None = None,
    has_aux: bool = False,
) -> Callable[..., jax.Array]:
    """A function from a call of `apply_fn` to the relevance of walks through named nodes.

        R(n_1, ..., n_L) = sum_i R_i at the layer nearest to the input, of the relevance that flows
        through node n_l of every layer l

    The walks through all nodes add up to the relevance that flows through all the layers. Relevance
    that goes around a layer is in no walk: behind a skip connection name the sum, not its branch.

    Args:
        apply_fn: the function to explain.
        composite: a composite, or one rule for every layer with weights.
        layers: matches of one layer each, in the order of a walk's nodes; `"input"` is the
            explained argument itself.
        walks: each with one entry for a layer: a node, a list of nodes (any of them), or None (any
            node).
        argnums: the explained positional arguments (one array, where `"input"` is a layer).
        axis: the axis of nodes in the layers' outputs, or one for each layer (default: the one
            before the features). In a loop its turns lead and are an axis like any other.
        chunk: how many walks at a time, to bound memory (default: as many as fit a processor's
            caches).
        has_aux: whether `apply_fn` returns `(output, aux)`.

    Returns:
        A function of the arguments of `apply_fn` and `target=None`, to an array (walks, examples),
        or (walks,) where nodes are the first axis and there are no examples.

    Raises:
        ValueError: for a layer that is not there or not one, layers without a path through all of
            them, a walk of another length or a node out of range.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> f = lambda w, x: (edges @ (edges @ x @ w["a"]) @ w["b"]).sum(0)
        >>> edges = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])  # 0 - 1 - 2
        >>> w, x = {"a": jnp.ones((1, 1)), "b": jnp.ones((1, 1))}, jnp.array([[1.0], [2.0], [4.0]])
        >>> walks = [(0, 0), (0, 1), (0, 2)]
        >>> print(lrp.walk_relevance(f, lrp.Zero(), ["input", "a"], walks)(w, x))
        [2. 3. 0.]

    Source: Schnake et al. 2022.
    """

    def masks(sizes: Sequence[int]) -> list[np.ndarray]:
        if any(not isinstance(walk, Iterable) for walk in walks):
            raise TypeError(f"walks={walks!r}: a list of walks, and each is a list of nodes.")
        rows = [[*walk] for walk in walks]
        if not rows or any(len(row) != len(sizes) for row in rows):
            lengths = sorted({len(row) for row in rows})
            raise ValueError(f"walks need a node for each of {len(sizes)} layers, got {lengths}.")
        columns = zip(*rows, strict=True)
        return [_masks(column, n) for column, n in zip(columns, sizes, strict=True)]

    return flows(apply_fn, composite, layers, masks, argnums, axis, chunk, has_aux)


@no_target
def group_relevance(
    apply_fn: Callable[..., Any],
    composite: Any,
    layers: Sequence[Any],
    groups: Sequence[Any],
    argnums: ArgNums = 1,
    *,
    axis: int | Sequence[int] = -2,
    chunk: int | None = None,
    has_aux: bool = False,
) -> Callable[..., jax.Array]:
    """A function from a call of `apply_fn` to the relevance of all walks that stay inside a set.

        R(S) = sum over n_1, ..., n_L in S of R(n_1, ..., n_L)

    That is the relevance of a subgraph. Masks on all layers in one backward pass give the sum over
    |S|^L walks.

    Args:
        apply_fn, composite, layers, argnums, axis, chunk, has_aux: as `walk_relevance`.
        groups: lists of nodes.

    Returns:
        A function of the arguments of `apply_fn` and `target=None`, to an array (groups, examples),
        or (groups,).

    Raises:
        ValueError: as `walk_relevance`.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> f = lambda w, x: (edges @ (edges @ x @ w["a"]) @ w["b"]).sum(0)
        >>> edges = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])  # 0 - 1 - 2
        >>> w, x = {"a": jnp.ones((1, 1)), "b": jnp.ones((1, 1))}, jnp.array([[1.0], [2.0], [4.0]])
        >>> groups = [[0, 1], [2], [0, 1, 2]]
        >>> print(lrp.group_relevance(f, lrp.Zero(), ["input", "a"], groups)(w, x))
        [15.  8. 39.]

    Source: Xiong et al. 2022.
    """

    def masks(sizes: Sequence[int]) -> list[np.ndarray]:
        if not len(groups):
            raise ValueError("group_relevance needs at least one group.")
        return [_masks(groups, n) for n in sizes]

    return flows(apply_fn, composite, layers, masks, argnums, axis, chunk, has_aux)


def flows(
    apply_fn: Callable[..., Any], composite: Any, layers: Sequence[Any],
    masks_of: Callable[[Sequence[int]], list[np.ndarray]], argnums: ArgNums,
    axis: int | Sequence[int], chunk: int | None, has_aux: bool,
) -> Callable[..., jax.Array]:  # fmt: skip
    """Relevance that flows through masks on the nodes of layers, a sum for each mask.

    `masks_of` makes them, an array (masks, nodes) for each layer, of the layers' numbers of nodes.
    """
    explained = Explained(apply_fn, composite, argnums, has_aux)
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk={chunk}: it is a number of walks, at least 1.")

    def relevances(*args: Any, target: Any = None, **kwargs: Any) -> jax.Array:
        call, leaves = explained.prepare(args, kwargs)
        named = stages_of(call, layers, axis)
        chosen = dict(zip(named, masks_of([stage.nodes for stage in named]), strict=True))
        way = from_output(call, named)
        given = [np.stack([stage.spread(row[None]) for row in chosen[stage]]) for stage in way]
        turns = [s.turns(mask) for s, mask in zip(way, given, strict=True)]

        def evaluate(
            begin: Start, composite: Composite, leaves: Any, target: Any, given: Any
        ) -> Any:
            flow = Flow(call, begin, composite, leaves, target, sites_of(way), None)

            def through(masks: Sequence[jax.Array]) -> jax.Array:
                came, result = flow.arrived, flow.whole
                for stage, mask, rounds in zip(way, masks, turns, strict=True):
                    kept = stage.kept(flow, came, result, mask, rounds)
                    if stage is not way[-1]:
                        result, came = flow.send({key_of(stage.site): kept})
                return stage.at_nodes(stage.relevance(flow, kept)).sum(-1)

            return over(through, given, chunk)

        found = explained.run(call, ("walks", *turns), evaluate, leaves, target, given)
        return found if way[-1].examples is not None else found[..., 0]

    return relevances


@dataclass(frozen=True, eq=False)
class Stage:
    """A layer of a walk.

    Attributes:
        site: where it is; of the explained argument there is none.
        shape: of its output, the turns of loops in front.
        loops: how many of these there are.
        axis: where its nodes lie.
    """

    site: Any
    shape: tuple[int, ...]
    loops: int
    axis: int

    @property
    def nodes(self) -> int:
        return self.shape[self.axis]

    @property
    def examples(self) -> int | None:
        """The axis of examples: the first one behind the loops, where it holds no nodes."""
        return self.loops if self.axis != self.loops and self.loops < len(self.shape) else None

    def at_nodes(self, found: jax.Array) -> jax.Array:
        """Sums over all but (examples, nodes), with one example where there is no axis of them."""
        kept = (self.axis, self.examples)
        summed = found.sum([a for a in range(found.ndim) if a not in kept])
        if self.examples is None:
            return summed[None]
        return summed if self.examples < self.axis else summed.T

    def spread(self, values: Any) -> Any:
        """(examples or 1, nodes) as an array that broadcasts against the layer's output."""
        wide = [1] * len(self.shape)
        wide[self.axis] = self.nodes
        if self.examples is not None:
            wide[self.examples] = len(values)
            values = values if self.examples < self.axis else values.T
        return values.reshape(wide)

    def turns(self, masks: np.ndarray) -> int:
        """How many turns of its loops one of the masks speaks of."""
        return 1 if self.site is None else turns_of(masks, self.site)

    def kept(self, flow: Flow, came: Taps, result: Any, mask: Any, turns: int) -> jax.Array:
        """What arrives, under a mask, in the form in which it travels."""
        if self.site is None:
            return result[0] * mask
        first = flow.first(self.site, came, turns, named_turns(mask, self.site))
        return flow.keep(self.site, mask, first)

    def relevance(self, flow: Flow, kept: jax.Array) -> jax.Array:
        """The relevance of what travels."""
        return kept if self.site is None else flow.relevance(self.site, {key_of(self.site): kept})


def stages_of(call: Call, layers: Sequence[Any], axis: int | Sequence[int]) -> list[Stage]:
    """The layers of a walk in the order in which they are named."""
    if isinstance(layers, str) or not len(layers):
        raise ValueError(f"a walk needs a list of layers, got {layers!r}.")
    axes = [axis] * len(layers) if isinstance(axis, int) else list(axis)
    if len(axes) != len(layers):
        raise ValueError(f"{len(layers)} layers need one axis or one each, got axis={axis!r}.")
    return [_stage(call, spec, number) for spec, number in zip(layers, axes, strict=True)]


def from_output(call: Call, stages: Sequence[Stage]) -> list[Stage]:
    """The layers of a walk as relevance meets them."""
    if call.composite.gradient:
        raise ValueError("modified gradients are not linear: walks do not add up to them.")
    way = sorted(stages, key=lambda s: math.inf if s.site is None else -s.site.index)
    check_flow(call, sites_of(way), parallel=False)
    if sum(stage.site is None for stage in way) > 1:
        raise ValueError(f"{INPUT!r} is named twice.")
    counts = [1 if s.examples is None else s.shape[s.examples] for s in stages]
    if len(set(counts)) > 1:
        raise ValueError(
            f"the layers named have {counts} examples: in all of them the first axis (behind the "
            "turns of loops) holds examples, or it holds the nodes."
        )
    return way


def sites_of(stages: Sequence[Stage]) -> list[Site]:
    """The hidden layers among them."""
    return [stage.site for stage in stages if stage.site is not None]


def _stage(call: Call, spec: Any, axis: int) -> Stage:
    if isinstance(spec, str) and spec == INPUT:
        if len(call.explained) != 1:
            raise ValueError(
                f"{INPUT!r} is one explained array; here are {len(call.explained)} of them."
            )
        site, loops = None, 0
        shape, name = call.frame.invars[call.explained[0]].aval.shape, INPUT
    else:
        site = one(call, spec)
        loops, name = len(site.loops), path_of(call, site)
        shape = (*site.loops, *site.step.outputs[0].aval.shape)
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"axis={axis} is out of range for {name}, which has the shape {shape}.")
    return Stage(site, shape, loops, axis % len(shape))


def _masks(sets: Sequence[Any], nodes: int) -> np.ndarray:
    """(sets, nodes), one where a node is in a set."""
    masks = np.zeros((len(sets), nodes))
    for row, chosen in zip(masks, sets, strict=True):
        group = np.arange(nodes) if chosen is None else np.atleast_1d(np.asarray(chosen, int))
        wrong = group[(group < 0) | (group >= nodes)].tolist()
        if wrong:
            raise ValueError(f"nodes {wrong} are out of range: there are {nodes} of them.")
        row[group] = 1
    return masks
