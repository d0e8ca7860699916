"""The flow of relevance from the output and from hidden layers, whole or restricted to concepts."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._calls.call import Call, Start
from .._layers.arithmetic import relevance_of, times_value, to_multiplier_value
from .._propagation.loop import Taps, key
from .._tables import Shown, Table, arrays
from ..composites import Composite
from .sites import Site, path_of, pull_taps, sites, zeros_like

Concepts = Any  # ints, lists of ints, masks with the concepts leading, or Subspaces


@partial(jax.tree_util.register_dataclass, data_fields=["bases"], meta_fields=[])
@dataclass(frozen=True, repr=False)
class Subspaces(Shown):
    """Concepts that are linear subspaces of a layer's units.

    With h the layer's output, R = h * c its relevance and P the orthogonal projection on the
    subspace, the relevance through it is h * (P c): that of a layer h -> B (pinv(B) h) put in, with
    LRP-0 above and below. Subspaces whose projections add up to one split relevance without a rest.

    Attributes:
        bases: an array (concepts, units, rank); its columns span the subspaces and need not be
            orthogonal. Columns of zeros fill up subspaces of a smaller rank.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> from lrp_jax.questions import Subspaces
        >>> f = lambda w, x: (x @ w["a"]) @ w["b"]
        >>> w = {"a": jnp.eye(2), "b": jnp.array([[1.0], [3.0]])}
        >>> both = Subspaces(jnp.array([[[1.0], [1.0]], [[1.0], [-1.0]]]))  # (1, 1) and (1, -1)
        >>> explain = lrp.concept_relevance(f, lrp.Zero(), "a", both)
        >>> print(explain(w, jnp.array([1.0, 2.0])).round(3))
        [[ 2.  4.]
         [-1.  2.]]

    Source: Chormai et al. 2024, "Disentangled Explanations of Neural Network Predictions by Finding
    Relevant Subspaces".
    """

    bases: jax.Array

    def _table(self) -> Table:
        return arrays({"bases": self.bases})


@partial(jax.tree_util.register_dataclass, data_fields=["numbers"], meta_fields=["axis", "size"])
@dataclass(frozen=True)
class Units:
    """Concepts of one unit each, by their numbers on an axis that no loop has made."""

    numbers: Any
    axis: int
    size: int

    def mask(self, rank: int) -> jax.Array:
        """Of one concept."""
        wide = [self.size if i == self.axis else 1 for i in range(rank)]
        return jax.nn.one_hot(self.numbers, self.size).reshape(wide)


class Flow:
    """One forward pass and its backward passes: from the output, and from hidden layers."""

    def __init__(
        self, call: Call, begin: Start, composite: Composite, leaves: Any, target: Any,
        found: Sequence[Site], axis: int | None,
    ) -> None:  # fmt: skip
        taps = {key_of(s): s.probe(s.step.outputs[0]) for s in found}
        exposed = frozenset(s.index for s in found)
        output, values, self._pullback = pull_taps(
            call, begin.form, composite, leaves, taps, exposed
        )
        self.values = values
        self._forms = {s.index: s.output_form for s in sites(call, begin.form)}
        self._gradient = call.composite.gradient
        self._axis = axis
        self._output = output
        self.whole, self.arrived = self._pullback(begin.seed(output, target), zeros_like(values))

    def send(self, kept: Taps) -> tuple[Any, Taps]:
        """What the inputs, and the layers (with what is kept there), get from hidden layers."""
        # Zeros that are made here are known to be zeros.
        return self._pullback(zeros_like(self._output), {**zeros_like(self.values), **kept})

    def settle(self, choose: Callable[[Taps], Taps], arrived: Taps, places: int) -> Taps:
        """Relevance chosen at up to `places` places one after the other, each bit of it once.

        The solution of g = choose(arrived - what g itself sends to the same places).
        """

        def turn(_: Any, kept: Taps) -> Taps:
            _, came = self.send(kept)
            return choose({name: arrived[name] - (came[name] - kept[name]) for name in kept})

        first = choose(arrived)
        return jax.lax.fori_loop(0, places - 1, turn, first) if places > 1 else first

    def first(self, site: Site, arrived: Taps, turns: int, named: Any) -> jax.Array:
        """What arrives at a layer for the first time, in the turns named."""
        name = key_of(site)
        return self.settle(lambda came: {name: came[name] * named}, arrived, turns)[name]

    def keep(self, site: Site, restriction: Any, came: jax.Array) -> jax.Array:
        """What is left at a layer's output under a mask or in a subspace."""
        if isinstance(restriction, Units):
            return came * restriction.mask(came.ndim).astype(came.dtype)
        if not isinstance(restriction, Subspaces):
            return came * restriction.astype(came.dtype)
        c = self.multipliers(site, came)
        basis = restriction.bases.astype(came.dtype)
        projected = (
            jnp.moveaxis(c, unit_axis(site, self._axis), -1) @ jnp.linalg.pinv(basis).T @ basis.T
        )
        c = jnp.moveaxis(projected, -1, unit_axis(site, self._axis))
        return times_value(c, self.values[key_of(site)]) if self._is_relevance(site) else c

    def multipliers(self, site: Site, came: jax.Array) -> jax.Array:
        """The multipliers of what arrives at a layer's output."""
        if not self._is_relevance(site):
            return came
        return to_multiplier_value(came, self.values[key_of(site)])

    def _is_relevance(self, site: Site) -> bool:
        return self._forms[site.index] == "R" and not self._gradient

    def relevance(self, site: Site, came: Taps) -> jax.Array:
        """Relevance at a layer's output (the cotangent itself of a modified gradient)."""
        name = key_of(site)
        if self._gradient:
            return came[name]
        return relevance_of(came[name], self.values[name], self._forms[site.index])


def key_of(site: Site) -> str:
    return key("out", site.index)


def check_flow(call: Call, found: Sequence[Site], parallel: bool) -> None:
    """`found`, from the output on, must lie on one way, and be linear where that is needed."""
    layers = call.resolved.plan.layers
    for upper, lower in pairwise(found):
        if upper.index == lower.index:
            raise ValueError(f"{path_of(call, upper)} is named twice.")
        if not parallel and lower.index not in layers[upper.index].above:
            raise ValueError(
                f"no relevance flows through both {path_of(call, upper)} and "
                f"{path_of(call, lower)}: they lie side by side. With parallel=True both masks "
                "act in one pass."
            )
    if call.composite.gradient and (parallel or any(site.loops for site in found)):
        raise ValueError(
            "modified gradients are not linear: their concepts cannot be told apart from what "
            "flows beside the layer or through it in another turn of a loop."
        )


def unit_axis(site: Site, axis: int | None) -> int:
    rank = len(site.loops) + len(site.step.outputs[0].aval.shape)
    if axis is not None:
        if not -rank <= axis < rank:
            raise ValueError(f"axis={axis} is out of range for a layer output of rank {rank}.")
        return axis % rank
    units = site.step.unit_axis()
    if units is None:
        raise ValueError(
            f"a product of two explained values has no axis that is its units: say axis= for its "
            f"output of shape {site.step.outputs[0].aval.shape}, or, for the heads of attention, "
            'axis="heads" in lrp.concept_relevance.'
        )
    return len(site.loops) + units


def pooled(
    found: jax.Array, site: Site, axis: int | None, pool: Callable[..., jax.Array]
) -> jax.Array:
    """(turns, examples, ..., units, ...) to (turns, examples, units)."""
    units, batch = unit_axis(site, axis), len(site.loops)
    positions = tuple(i for i in range(batch + 1, found.ndim) if i != units)
    return pool(found, axis=positions) if positions else found


def restriction_of(concepts: Concepts, site: Site, axis: int | None) -> Any:
    """Masks, subspaces or units, with the concepts leading."""
    shape = (*site.loops, *site.step.outputs[0].aval.shape)
    dtype = getattr(concepts, "dtype", None)
    if dtype is not None and not jnp.issubdtype(dtype, jnp.integer):
        return _fitting_masks(concepts, shape)
    units = unit_axis(site, axis)
    if isinstance(concepts, Subspaces):
        got = jnp.shape(concepts.bases)
        if len(got) != 3 or got[1] != shape[units]:
            raise ValueError(
                f"bases have the shape (concepts, units, rank) and the layer has {shape[units]} "
                f"units along axis {units} of its output {shape}, got {got}."
            )
        return Subspaces(jnp.asarray(concepts.bases))
    wide = [1] * len(shape)
    wide[units] = shape[units]
    in_loop = units < len(site.loops)
    if isinstance(concepts, jax.core.Tracer) and concepts.ndim == 1 and not in_loop:
        return Units(concepts, units, shape[units])
    if isinstance(concepts, jax.core.Tracer):
        chosen = jax.nn.one_hot(concepts, shape[units])
        masks = chosen if chosen.ndim == 2 else chosen.max(-2)
        return masks.reshape(-1, *wide)
    if isinstance(concepts, int | np.integer):
        raise TypeError(f"concepts={concepts}: it has an entry for each result, as [{concepts}].")
    groups = [np.atleast_1d(np.asarray(c, int) if np.size(c) == 0 else c) for c in concepts]
    if not all(np.issubdtype(group.dtype, np.integer) for group in groups):
        raise TypeError(
            f"concepts={concepts!r}: the numbers of units, one or a list of them for each result, "
            "or a float array of masks."
        )
    fixed = np.zeros((len(groups), shape[units]))
    for row, group in zip(fixed, groups, strict=True):
        if group.size and not (group.min() >= 0 and group.max() < shape[units]):
            raise ValueError(
                f"concept {group.tolist()} is out of range: the layer has {shape[units]} units "
                f"along axis {units} of its output {shape}."
            )
        row[group] = 1
    if groups and not in_loop and all(group.size == 1 for group in groups):
        return Units(np.concatenate(groups), units, shape[units])
    return fixed.reshape(len(groups), *wide)


def _fitting_masks(given: Any, shape: tuple[int, ...]) -> Any:
    masks = given if isinstance(given, jax.core.Tracer) else np.asarray(given)
    if masks.ndim == 1 and shape:
        raise ValueError(
            f"masks of shape {masks.shape} have the concepts leading, so here a number is a whole "
            "mask: one mask of units is masks[None]."
        )
    if not (masks.ndim > 0 and fits(masks.shape[1:], shape)):
        raise ValueError(
            f"masks of shape {masks.shape} have the concepts leading, and {masks.shape[1:]} does "
            f"not broadcast to the layer's output {shape}."
        )
    return masks.reshape(masks.shape[0], *[1] * (len(shape) + 1 - masks.ndim), *masks.shape[1:])


def fits(given: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether one shape broadcasts to the other."""
    try:
        return np.broadcast_shapes(given, shape) == shape
    except ValueError:
        return False


def same_number(given: list[Any]) -> list[Any]:
    sizes = [jax.tree.leaves(restriction)[0].shape[0] for restriction in given]
    count = max(sizes)
    if not count:
        raise ValueError("concepts=[]: there are none to ask for.")
    if any(size not in (1, count) for size in sizes):
        raise ValueError(f"the layers need one number of concepts (or one concept), got {sizes}.")
    return [jax.tree.map(lambda m: jnp.broadcast_to(m, (count, *m.shape[1:])), r) for r in given]


def named_turns(restriction: Any, site: Site) -> Any:
    """Which turns of the loops around a layer a mask speaks of, as an array that broadcasts."""
    if isinstance(restriction, Subspaces | Units) or not site.loops:
        return 1
    loops = len(site.loops)
    if restriction.shape[:loops] == (1,) * loops:
        return 1
    inside = tuple(range(loops, restriction.ndim))
    return (restriction != 0).any(inside, keepdims=True)


def turns_of(restriction: Any, site: Site) -> int:
    """The largest number of turns of its loops that one mask of a layer speaks of."""
    every = math.prod(site.loops)
    if every == 1 or not isinstance(restriction, np.ndarray):
        return every
    inside = tuple(range(1 + len(site.loops), restriction.ndim))
    named = np.any(restriction != 0, axis=inside)
    named = np.broadcast_to(named, (len(named), *site.loops)).reshape(len(named), -1)
    return max(1, int(np.max(named.sum(1))))
