"""What the axes of layers hold: turns of loops, examples, tokens, units.

Read from the function, see `_layers.along`.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from .._analysis.axes import CONSTANT, UNKNOWN, Axis
from .._analysis.graph import is_float
from .._calls.call import Call
from .._layers.along import along
from .sites import Site

Parts = list[tuple[int, str]]
"""The lengths of the parts of a layer's axes, and what each of them is."""

_ORDER = ("turns", "examples", "tokens", "units")


class Roles:
    """What the axes of the layers of a call hold."""

    def __init__(self, call: Call) -> None:
        inputs = [call.frame.invars[i] for i in call.explained]
        shapes = [v.aval.shape[: len(v.aval.shape) - is_float(v)] for v in inputs]
        shape = max(shapes, key=len)
        self._batch = shape[0] if len(shape) > 1 else None
        self._around = along(call.frame, call.traced.explained)

    def of_heads(self, site: Site) -> Parts | None:
        """Of attention, the heads as its units; None for another layer."""
        mean, around = site.step.weighted_mean(), self._around[site.step]
        if mean is None:
            return None
        weights = around.inputs[mean.weights]
        summed = {role for i in mean.summed for _, role in self._parts(weights[i], "units")}
        if {"tokens", "units"} <= summed:  # the product sums over heads as well
            return None
        output = enumerate(around.output)
        inner = [self._parts(axis, "" if i in mean.features else "units") for i, axis in output]
        return [*self._of_loops(site, "units"), *itertools.chain(*inner)]

    def of_output(self, site: Site) -> Parts:
        """Of a layer whose last axis holds its units."""
        *others, last = self._around[site.step].output or ((),)
        inner = [*map(self._parts, others), self._parts(last, "units")]
        return [*self._of_loops(site, ""), *itertools.chain(*inner)]

    def fit(self, parts: Parts | None) -> bool:
        """Whether it is known what every part is, and no example is missing."""
        if not parts or any(role == "?" for _, role in parts):
            return False
        batch = [size for size, role in parts if role == "examples"]
        return math.prod(batch) == (self._batch or 1)

    def masks(self, site: Site, parts: Parts, concepts: Sequence[Any]) -> np.ndarray:
        """Masks of some of a layer's units, which may lie on several axes.

        Args:
            site: the layer.
            parts: what its axes hold.
            concepts: for each mask the number of a unit, or a list of them.

        Raises:
            ValueError: for a unit that is not there.
        """
        sizes = [size if role == "units" else 1 for size, role in parts]
        count = math.prod(sizes)
        groups = [np.atleast_1d(np.asarray(c, int)) for c in concepts]
        for group in groups:
            if group.size and not (group.min() >= 0 and group.max() < count):
                raise ValueError(f"{group.tolist()} is out of range: there are {count} heads.")
        chosen = np.stack([np.isin(np.arange(count), group) for group in groups])
        spread = np.broadcast_to(
            chosen.reshape(-1, *sizes), (len(groups), *(size for size, _ in parts))
        )
        return spread.reshape(len(groups), *site.loops, *site.step.outputs[0].aval.shape)

    def keep(self, relevance: jax.Array, parts: Parts, kept: Sequence[str]) -> jax.Array:
        """The sum over all parts but those kept, one axis for each kind of part."""
        kept = ("turns", *(("examples",) if self._batch else ()), *kept)
        array = relevance.reshape([size for size, _ in parts])
        array = array.sum([i for i, (_, role) in enumerate(parts) if role not in kept])
        left = [(size, role) for size, role in parts if role in kept]
        order = sorted(range(len(left)), key=lambda i: _ORDER.index(left[i][1]))
        turns = [size for size, role in left if role == "turns"]
        sizes = [math.prod(size for size, r in left if r == role) for role in kept[1:]]
        return array.transpose(order).reshape(*turns, *sizes)

    def _of_loops(self, site: Site, role: str) -> Parts:
        found: Parts = []
        for turns, axis in zip(site.loops, self._around[site.step].loops, strict=True):
            found += [(turns, "turns")] if axis is None else self._parts(axis, role)
        return found

    def _parts(self, axis: Axis, role: str = "") -> Parts:
        return [(part.size, self._role(part.along, role)) for part in axis]

    def _role(self, along: frozenset[int], role: str) -> str:
        if UNKNOWN in along or (self._batch and 0 in along and len(along) > 1):
            return "?"
        if along and min(along) >= 0:
            return "examples" if self._batch and 0 in along else "tokens"
        return "" if CONSTANT in along else role
