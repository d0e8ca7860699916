"""Sums of numbers that are all one: the sum of x repeated n times is n x."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from ..._analysis import primitives as prim
from ..._analysis.compat import Var
from ..._analysis.graph import Graph
from ..._analysis.indices import known_in
from ..._analysis.places import Place, itself, made_by

Read = Callable[[Var], Any]


def repetitions(graph: Graph) -> Mapping[int, Callable[[Read], Any]]:
    """How sums of repeated numbers are multiples of them, by the `id` of their equations."""
    known = known_in(graph)
    places: dict[Var, Place] = {}
    found: dict[int, Callable[[Read], Any]] = {}
    for eqn in graph.eqns:
        if not graph.is_live(eqn) or len(eqn.outvars) != 1:
            continue
        (out,) = eqn.outvars
        if eqn.primitive is prim.REDUCE_SUM:
            place = places.get(eqn.invars[0])
            summed = eqn.params["axes"]
            if place is None or any(place.axes[i][0] is not None for i in summed):
                continue
            kept = tuple(pair for i, pair in enumerate(place.axes) if i not in summed)
            count = math.prod(eqn.invars[0].aval.shape[i] for i in summed)
            if count > 1:
                found[id(eqn)] = _multiple(place._replace(axes=kept), count)
            continue
        place = made_by(eqn, known, lambda v: places.get(v) or itself(v))
        if place is not None:
            places[out] = place
    return found


def _multiple(place: Place, count: int) -> Callable[[Read], Any]:
    return lambda read: place.of(read(place.var)) * count
