"""Concept relevance (CRP): relevance that flows through chosen units of hidden layers.

A concept is a channel of a convolution, a unit of a dense layer, a head, a token, or any mask or
linear subspace of a layer's output. Relevance is followed to the layer, restricted to the concept
and followed on: from one forward pass for all concepts.

Source: Achtibat et al. 2023, "From attribution maps to human-understandable explanations".
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._interpreter import key
from ._layers import Contraction
from ._propagate import relevance_of
from .composites import Composite
from .queries import Site, pull_taps, select, zeros_like
from .transform import ArgNums, Call, Explained, Start

Concepts = Any  # a sequence of ints or of lists of ints, or an array of masks (concepts leading)


def concept_relevance(
    apply_fn: Callable[..., Any],
    composite: Any,
    layer: Any,
    concepts: Concepts = None,
    argnums: ArgNums = 1,
    *,
    axis: int | None = None,
    parallel: bool = False,
    chunk: int | None = None,
    has_aux: bool = False,
) -> Callable[..., Any]:
    """A function from a call of `apply_fn` to the relevance of its inputs through each concept.

    With R^l the relevance at the layer's output and m_c the mask of concept c, the result is
    what m_c * R^l sends to the inputs. Where the masks of all concepts add up to one, the results
    add up to what flows through the layer.

    Args:
        apply_fn: the function to explain.
        composite: a composite, or one rule for every layer with weights.
        layer: a path glob or another match of one layer; or a mapping `{layer: concepts, ...}`,
            one condition on several layers: relevance flows through all of them.
        concepts: per result an int (a unit), a list of ints (taken together), or, as an array with
            the concepts leading, a mask that broadcasts against the layer's output.
        argnums: the explained positional arguments.
        axis: the axis of the layer's output that the ints index (default: the features of a
            convolution or dense layer, else the last).
        parallel: whether relevance that passes the layer by counts too (branches around it).
        chunk: how many concepts at a time, to bound memory (default: all).
        has_aux: whether `apply_fn` returns `(output, aux)`.

    Returns:
        A function of the arguments of `apply_fn` and `target=None`, to relevances with one leading
        axis for the concepts.

    Raises:
        ValueError: for a layer that is not there or not one, or a unit out of range.

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
    conditions = dict(layer) if isinstance(layer, Mapping) else {layer: concepts}
    if any(c is None for c in conditions.values()):
        raise ValueError("concept_relevance needs the concepts of each layer.")

    def relevances(*args: Any, target: Any = None, **kwargs: Any) -> Any:
        call, leaves = explained.prepare(args, kwargs)
        found = [(_one(call, spec), given) for spec, given in conditions.items()]
        found.sort(key=lambda pair: -pair[0].index)
        masks = [_masks(given, site, axis) for site, given in found]
        count = max(m.shape[0] for m in masks)
        if any(m.shape[0] not in (1, count) for m in masks):
            sizes = [m.shape[0] for m in masks]
            raise ValueError(f"the layers have different numbers of concepts: {sizes}.")
        masks = [jnp.broadcast_to(m, (count, *m.shape[1:])) for m in masks]

        def evaluate(
            begin: Start, composite: Composite, leaves: Any, target: Any, masks: Any
        ) -> Any:
            indices = [site.index for site, _ in found]
            taps = {key("out", s.index): s.probe(s.step.outputs[0]) for s, _ in found}
            output, values, pullback = pull_taps(
                call, begin.form, composite, leaves, taps, frozenset(indices)
            )
            seed = begin.seed(output, target)
            nothing, silent = zeros_like(output), zeros_like(values)
            whole, arrived = pullback(seed, silent)

            def through(masks: Sequence[jax.Array]) -> Any:
                came, result = arrived, whole
                for index, mask in zip(indices, masks, strict=True):
                    name = key("out", index)
                    kept = came[name] * mask.astype(came[name].dtype)
                    result, came = pullback(nothing, {**silent, name: kept})
                return result

            def restricted(masks: Sequence[jax.Array]) -> Any:
                if not parallel:
                    return through(masks)
                # What the mask takes away flows through the layer; all else stays.
                gone = through([1 - m for m in masks])
                return jax.tree.map(jnp.subtract, whole, gone)

            return (
                jax.lax.map(restricted, masks, batch_size=chunk)
                if chunk
                else jax.vmap(restricted)(masks)
            )

        if parallel and len(found) > 1:
            raise ValueError("parallel=True speaks of one layer at a time.")
        purpose = ("concepts", tuple(m.shape for m in masks))
        result = explained.run(call, purpose, evaluate, leaves, target, masks)
        return explained.rebuild_explained(args, result)

    return relevances


def concept_scores(
    apply_fn: Callable[..., Any],
    composite: Any,
    layer: Any,
    argnums: ArgNums = 1,
    *,
    axis: int | None = None,
    normalize: bool = True,
    has_aux: bool = False,
) -> Callable[..., jax.Array]:
    """A function from a call of `apply_fn` to the relevance of each concept of a layer.

    The relevance at the layer's output, summed over positions, for each example and unit; divided
    by the sum of its absolute values with `normalize`.

    Args:
        apply_fn: the function to explain.
        composite: a composite, or one rule for every layer with weights.
        layer: a path glob or another match of one layer.
        argnums: the explained positional arguments.
        axis: the axis of units (default: the features).
        normalize: whether scores are fractions of the total absolute relevance.
        has_aux: whether `apply_fn` returns `(output, aux)`.

    Returns:
        A function of the arguments of `apply_fn` and `target=None`, to an array (examples, units).
    """
    explained = Explained(apply_fn, composite, argnums, has_aux)

    def scores(*args: Any, target: Any = None, **kwargs: Any) -> jax.Array:
        call, leaves = explained.prepare(args, kwargs)
        site = _one(call, layer)

        def evaluate(begin: Start, composite: Composite, leaves: Any, target: Any) -> Any:
            name = key("out", site.index)
            taps = {name: site.probe(site.step.outputs[0])}
            output, values, pullback = pull_taps(
                call, begin.form, composite, leaves, taps, frozenset([site.index])
            )
            _, arrived = pullback(begin.seed(output, target), zeros_like(values))
            here = select(call, layer, begin.form)[0]
            relevance = relevance_of(arrived[name], values[name], here.output_form)
            units = _axis(site, axis)
            others = tuple(i for i in range(1, relevance.ndim) if i != units)
            summed = jnp.sum(relevance, axis=others)
            if normalize:
                total = jnp.abs(summed).sum(-1, keepdims=True)
                summed = summed / jnp.where(total == 0, 1, total)
            return summed

        return explained.run(call, "scores", evaluate, leaves, target)

    return scores


def _one(call: Call, spec: Any) -> Site:
    found = select(call, spec, "C")
    if len(found) > 1:
        names = ", ".join(call.resolved.plan.layers[s.index].path for s in found[:6])
        raise ValueError(f"{spec!r} matches {len(found)} layers ({names}); name one.")
    return found[0]


def _axis(site: Site, axis: int | None) -> int:
    rank = len(site.loops) + len(site.step.outputs[0].aval.shape)
    if axis is not None:
        if not -rank <= axis < rank:
            raise ValueError(f"axis={axis} is out of range for a layer output of rank {rank}.")
        return axis % rank
    what = site.step.what
    if isinstance(what, Contraction) and what.features is not None:
        same = len(what.after.start.aval.shape) == len(site.step.outputs[0].aval.shape)
        if same:
            return len(site.loops) + what.features[0]
    return rank - 1


def _masks(concepts: Concepts, site: Site, axis: int | None) -> jax.Array:
    shape = (*site.loops, *site.step.outputs[0].aval.shape)
    if hasattr(concepts, "ndim") and jnp.issubdtype(concepts.dtype, jnp.floating):
        return jnp.asarray(concepts)
    units = _axis(site, axis)
    groups = [np.atleast_1d(np.asarray(c, int)) for c in concepts]
    masks = np.zeros((len(groups), shape[units]))
    for row, group in zip(masks, groups, strict=True):
        if group.size and not (group.min() >= 0 and group.max() < shape[units]):
            raise ValueError(
                f"concept {group.tolist()} is out of range: the layer has {shape[units]} units "
                f"along axis {units} of its output {shape}."
            )
        row[group] = 1
    wide = [1] * len(shape)
    wide[units] = shape[units]
    return jnp.asarray(masks.reshape(len(groups), *wide))
