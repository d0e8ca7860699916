"""The walks of the largest relevance, found without going through all of them.

Source: Xiong et al. 2023, "Relevant walk search for explaining graph neural networks".
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._calls.arguments import ArgNums
from .._calls.call import Call, Start
from .._calls.explained import Explained
from .._calls.hints import no_target
from .._propagation.loop import Taps
from .._propagation.many import over
from .._tables import Shown, Table, counted
from ..composites import Composite
from .flow import Flow, key_of
from .sites import path_of
from .walks import Stage, from_output, sites_of, stages_of


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["nodes", "relevance", "missed"],
    meta_fields=[],
)
@dataclass(frozen=True, repr=False)
class Walks(Shown):
    """The strongest walks, of either sign, the strongest first; examples lead where there are any.

    Attributes:
        nodes: (k, layers), in the order in which the layers were named.
        relevance: of each walk, (k,), exact.
        missed: no other walk has a larger absolute relevance; infinite where that is not known.
    """

    nodes: jax.Array
    relevance: jax.Array
    missed: jax.Array

    @property
    def proved(self) -> jax.Array:
        """Whether these are certainly the strongest (for each example)."""
        return self.missed <= jnp.abs(self.relevance).min(-1) * (1 + 1e-6)

    def _table(self) -> Table:
        nodes, relevance = np.asarray(self.nodes), np.asarray(self.relevance)
        rows = tuple(
            (*map(str, place[:-1]), ", ".join(map(str, nodes[place])), f"{relevance[place]:.4g}")
            for place in np.ndindex(relevance.shape)
        )
        batch = relevance.ndim - 1
        most = float(jnp.max(self.missed))
        known = f"no other walk has more than {most:.4g}, of either sign"
        missed = known if np.isfinite(most) else "stronger walks may have been missed"
        header = (*["example"] * batch, "nodes", "relevance")
        return Table(header, rows, frozenset({batch + 1}), keep=batch + 1, notes=(missed,))

    def _title(self) -> str:
        return counted(np.size(self.relevance), "walk")


@no_target
def strongest_walks(
    apply_fn: Callable[..., Any],
    composite: Any,
    layers: Sequence[Any],
    k: int,
    argnums: ArgNums = 1,
    *,
    axis: int | Sequence[int] = -2,
    width: int = 64,
    prove: bool = True,
    chunk: int | None = None,
    has_aux: bool = False,
) -> Callable[..., Walks]:
    """A function from a call of `apply_fn` to the `k` walks of the largest absolute relevance.

        |R(n_1, ..., n_L)| <= sum_(i in n_L) |R_i| b_i^L,
        b_i^l = max_n sum_(j in n) |R_(j <- i)| b_j^(l-1)

    Walks grow from the output on. Of all that could be the beginning of a strong walk the `width`
    of the largest bound are kept, which a max-product from the input on gives. Where a node is a
    single number the bound is met, and `width >= k` finds the strongest walks; elsewhere `missed`
    says what may have been left out, and a larger `width` makes it smaller.

    Args:
        apply_fn, composite, layers, argnums, axis, has_aux: as `walk_relevance`.
        k: how many walks.
        width: how many beginnings of walks are kept, at least `k`.
        prove: whether to compute the bounds. It takes a pass from a layer to the next one for every
            number of each layer; without it, beginnings are judged by their own relevance,
            sum_i |R_i|, and nothing is known of what is missed.
        chunk: how many of these passes at a time (default: as `walk_relevance`).

    Returns:
        A function of the arguments of `apply_fn` and `target=None`, to `Walks`.

    Raises:
        ValueError: as `walk_relevance`; for `k` below 1 or above `width`; for nodes that are turns
            of one of several loops around a layer.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> f = lambda w, x: (edges @ (edges @ x @ w["a"]) @ w["b"]).sum(0)
        >>> edges = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])  # 0 - 1 - 2
        >>> w, x = {"a": jnp.ones((1, 1)), "b": jnp.ones((1, 1))}, jnp.array([[1.0], [2.0], [4.0]])
        >>> found = lrp.strongest_walks(f, lrp.Zero(), ["input", "a"], 2)(w, x)
        >>> found.nodes.tolist(), found.relevance.tolist(), bool(found.proved)
        ([[2, 1], [2, 2]], [12.0, 8.0], True)

    Source: Xiong et al. 2023.
    """
    explained = Explained(apply_fn, composite, argnums, has_aux)
    if not 1 <= k <= width:
        raise ValueError(f"k={k}, width={width}: k is at least 1 and at most width.")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk={chunk}: it is a number of passes, at least 1.")

    def strongest(*args: Any, target: Any = None, **kwargs: Any) -> Walks:
        call, leaves = explained.prepare(args, kwargs)
        named = stages_of(call, layers, axis)
        way = from_output(call, named)
        _refuse_nested_turns(call, way)

        def evaluate(begin: Start, composite: Composite, leaves: Any, target: Any) -> Walks:
            flow = Flow(call, begin, composite, leaves, target, sites_of(way), None)
            found = _search(flow, way, k, width, prove, chunk)
            order = jnp.array([way.index(stage) for stage in named])
            found = Walks(found.nodes[..., order], found.relevance, found.missed)
            single = way[-1].examples is None
            return jax.tree.map(lambda a: a[0], found) if single else found

        return explained.run(call, "strongest walks", evaluate, leaves, target)

    return strongest


def _search(
    flow: Flow, way: Sequence[Stage], k: int, width: int, prove: bool, chunk: int | None
) -> Walks:
    """The strongest walks of each example, their nodes from the output on."""
    came = _arrived(flow, way[0], flow.whole, flow.arrived)[None]
    *bounds, last = _bounds(flow, way, prove, chunk)
    examples = last.shape[way[-1].examples] if way[-1].examples is not None else 1
    nodes = jnp.zeros((examples, 1, 0), int)
    missed = jnp.full(examples, 0 if prove else jnp.inf, came.dtype)

    def chosen(scores: jax.Array, stage: Stage, count: int) -> tuple[jax.Array, ...]:
        """Of the scores (beginnings, examples, nodes) the largest: which, and the next score."""
        flat = jnp.moveaxis(scores, 0, 1).reshape(examples, -1)
        count = min(count, flat.shape[1])
        best, place = jax.lax.top_k(flat, min(count + 1, flat.shape[1]))
        left_out = best[:, count] if best.shape[1] > count else jnp.zeros_like(missed)
        return (*jnp.divmod(place[:, :count], stage.nodes), left_out)

    for (stage, following), bound in zip(pairwise(way), bounds, strict=True):
        scores = jax.vmap(stage.at_nodes)(jnp.abs(came) * bound)
        begun, node, left_out = chosen(scores, stage, width)
        nodes, missed = _longer(nodes, begun, node), jnp.maximum(missed, left_out)
        kept = _kept(stage, came, begun, node)
        came = over(partial(_next, flow, stage, following), kept, chunk)
    relevance = jax.vmap(lambda t: way[-1].at_nodes(way[-1].relevance(flow, t)))(came)
    begun, node, left_out = chosen(jnp.abs(relevance), way[-1], k)
    found = relevance[begun, jnp.arange(examples)[:, None], node]
    return Walks(_longer(nodes, begun, node), found, jnp.maximum(missed, left_out))


def _bounds(flow: Flow, way: Sequence[Stage], prove: bool, chunk: int | None) -> list[jax.Array]:
    """For each layer, the largest absolute relevance of a walk per unit of what travels there."""

    def own(stage: Stage) -> jax.Array:
        value = flow.whole[0] if stage.site is None else flow.values[key_of(stage.site)]
        return jnp.abs(stage.relevance(flow, jnp.ones_like(value)))

    if not prove:
        return [own(stage) for stage in way]
    bounds = [own(way[-1])]
    for stage, following in reversed(list(pairwise(way))):
        bounds.insert(0, _one_up(flow, stage, following, bounds[0], chunk))
    return bounds


def _one_up(
    flow: Flow, stage: Stage, following: Stage, bound: jax.Array, chunk: int | None
) -> jax.Array:
    """The bounds of a layer from those of the next one."""
    value = flow.values[key_of(stage.site)]
    shape = [n for axis, n in enumerate(value.shape) if axis != stage.examples]
    count = math.prod(shape)

    def row(number: jax.Array) -> jax.Array:
        one = jax.nn.one_hot(number, count, dtype=value.dtype).reshape(shape)
        # Examples do not mix: a pass serves all of them.
        one = one if stage.examples is None else jnp.expand_dims(one, stage.examples)
        found = _next(flow, stage, following, jnp.broadcast_to(one, value.shape))
        return following.at_nodes(jnp.abs(found) * bound).max(-1)

    rows = over(row, jnp.arange(count), chunk).reshape(*shape, -1)
    return rows[..., 0] if stage.examples is None else jnp.moveaxis(rows, -1, stage.examples)


def _next(flow: Flow, stage: Stage, following: Stage, kept: jax.Array) -> jax.Array:
    """What arrives at the next layer of what is kept at one."""
    return _arrived(flow, following, *flow.send({key_of(stage.site): kept}))


def _arrived(flow: Flow, stage: Stage, result: Any, came: Taps) -> jax.Array:
    """What arrives at a layer, for all of its nodes, in the form in which it travels."""
    if stage.site is None:
        return result[0]
    turns = 1 if stage.axis < stage.loops else math.prod(stage.site.loops)
    return flow.first(stage.site, came, turns, 1)


def _kept(stage: Stage, came: jax.Array, begun: jax.Array, node: jax.Array) -> jax.Array:
    """Of what arrived for each beginning, that of the chosen ones at the chosen nodes."""
    if stage.examples is None:
        own = came[begun[0]]
    else:
        axis = stage.examples + 1
        own = jax.vmap(lambda rows, chosen: rows[chosen], (axis, 0), axis)(came, begun)
    masks = jax.nn.one_hot(node, stage.nodes, dtype=came.dtype)
    return own * jax.vmap(stage.spread, 1)(masks)


def _longer(nodes: jax.Array, begun: jax.Array, node: jax.Array) -> jax.Array:
    """Beginnings of walks with one more node."""
    return jnp.concatenate([jnp.take_along_axis(nodes, begun[..., None], 1), node[..., None]], -1)


def _refuse_nested_turns(call: Call, way: Sequence[Stage]) -> None:
    for stage in way:
        if stage.axis < stage.loops and stage.loops > 1:
            raise ValueError(
                f"{path_of(call, stage.site)} lies in {stage.loops} loops, and the nodes are turns "
                "of one of them: unroll a loop, or name its walks to walk_relevance."
            )
