"""Contractions whose parts are scaled and shifted each by itself: `(x @ w)[:2] + a` beside
`(x @ w)[2:] + b` is `x @ w[:, :2] + a`.

Each neuron is explained by itself, so a layer whose output is cut is as many layers as parts.
"""

from collections.abc import Callable
from typing import Any

import jax

from .._analysis import compat, primitives as prim
from .._analysis.compat import Equation, is_literal
from .._analysis.graph import Graph
from .chains import is_literal_link
from .past_moves import goes_one_way, is_affine

Read = Callable[[Any], Any]
_SLICE, _CONV = compat.primitive("slice"), compat.primitive("conv_general_dilated")


def cut_contractions(graph: Graph) -> dict[int, Callable[[Read], Any]]:
    """How such parts are computed of parts of the weights, by the `id` of what cuts them."""
    found: dict[int, Callable[[Read], Any]] = {}
    for eqn in graph.eqns:
        if eqn.primitive not in (prim.DOT, _CONV) or len(graph.explained_operands(eqn)) != 1:
            continue
        (out,) = eqn.outvars
        parts = [e for e in graph.readers[out] if e is None or graph.is_live(e)]
        if len(parts) < 2 or not goes_one_way(out, graph):
            continue
        ways = {id(e): _way(eqn, e) for e in parts if e is not None}
        shifted = all(_is_shifted(e, graph) for e in parts if e is not None)
        if shifted and None not in ways.values():
            found.update((i, way) for i, way in ways.items() if way is not None)
    return found


def _is_shifted(part: Equation, graph: Graph) -> bool:
    """Whether arrays scale or shift a part, before anything else is made of it."""
    var = part.outvars[0]
    while graph.read_once(var):
        reader = next(e for e in graph.readers[var] if e is not None and graph.is_live(e))
        if is_affine(reader, graph):
            return not is_literal_link(reader)
        if reader.primitive not in prim.SHAPE_ONLY:
            return False
        var = reader.outvars[0]
    return False


def _way(eqn: Equation, part: Equation) -> Callable[[Read], Any] | None:
    """The part that a slice cuts out of a contraction; None where that is no part of operands."""
    starts, ends = part.params["start_indices"], part.params["limit_indices"]
    shape = eqn.outvars[0].aval.shape
    places = operand_axes(eqn)
    cut = [i for i, n in enumerate(shape) if (starts[i], ends[i]) != (0, n)]
    if any(places[i] is None for i in cut):
        return None

    def way(read: Read) -> Any:
        operands = [a.val if is_literal(a) else read(a) for a in eqn.invars]
        for i in cut:
            for side, axis in places[i] or ():
                operands[side] = jax.lax.slice_in_dim(operands[side], starts[i], ends[i], axis=axis)
        return compat.applied(eqn, *operands)

    return way


def operand_axes(eqn: Equation) -> list[tuple[tuple[int, int], ...] | None]:
    """For each axis of a contraction's result, the operands that have it, and their axes."""
    if eqn.primitive is _CONV:
        numbers = eqn.params["dimension_numbers"]
        plain = eqn.params["feature_group_count"] == eqn.params["batch_group_count"] == 1
        channels = ((1, numbers.rhs_spec[0]),) if plain else None
        return [
            channels if i == numbers.out_spec[1] else None for i in range(len(numbers.out_spec))
        ]
    contracted, batch = prim.dot_numbers(eqn)
    found: list[tuple[tuple[int, int], ...] | None] = [
        ((0, i), (1, j)) for i, j in zip(*batch, strict=True)
    ]
    for side, atom in enumerate(eqn.invars):
        taken = (*contracted[side], *batch[side])
        found += [((side, i),) for i in range(len(atom.aval.shape)) if i not in taken]
    return found
