"""Contractions whose parts are scaled and shifted each by itself: `(x @ w)[:2] + a` beside
`(x @ w)[2:] + b` is `x @ w[:, :2] + a`.

Each neuron is explained by itself, so a layer whose output is cut is as many layers as parts.
"""

from collections.abc import Callable
from typing import Any

from ..._analysis import primitives as prim
from ..._analysis.compat import Equation, Var
from ..._analysis.graph import Graph
from ..._layers.chains import SHIFTING, is_literal_link
from ..equations.cut_first import operand_rows, rows_made
from .past_moves import goes_one_way, is_affine

Read = Callable[[Any], Any]


def cut_contractions(graph: Graph) -> dict[int, Callable[[Read], Any]]:
    """How such parts are computed of parts of the weights, by the `id` of what cuts them."""
    found: dict[int, Callable[[Read], Any]] = {}
    for eqn in graph.eqns:
        operands = graph.explained_operands(eqn)
        if eqn.primitive not in (prim.DOT, prim.CONV) or len(operands) != 1:
            continue
        out = eqn.outvars[0]
        while (reader := _only_reader(out, graph)) is not None and is_affine(reader, graph):
            out = reader.outvars[0]  # a bias before the cut
        parts = [e for e in graph.readers[out] if e is None or graph.is_live(e)]
        if len(parts) < 2 or not goes_one_way(out, graph):
            continue
        start = eqn.invars[operands[0]]
        ways = {id(e): _way(out, start, eqn, e, graph) for e in parts if e is not None}
        shifted = any(_is_shifted(e, graph) for e in parts if e is not None)
        if shifted and None not in ways.values():
            found.update((i, way) for i, way in ways.items() if way is not None)
    return found


def _only_reader(var: Var, graph: Graph) -> Equation | None:
    if not graph.read_once(var):
        return None
    return next(e for e in graph.readers[var] if e is not None and graph.is_live(e))


def _is_shifted(part: Equation, graph: Graph) -> bool:
    """Whether arrays scale a part or anything shifts it, before more is made of it."""
    var = part.outvars[0]
    while (reader := _only_reader(var, graph)) is not None:
        affine = is_affine(reader, graph)
        if affine and (reader.primitive in SHIFTING or not is_literal_link(reader)):
            return True
        if not affine and reader.primitive not in prim.SHAPE_ONLY:
            return False
        var = reader.outvars[0]
    return False


def _way(
    out: Var, start: Var, eqn: Equation, part: Equation, graph: Graph
) -> Callable[[Read], Any] | None:
    """The part that a slice cuts out of a contraction with its bias; None where that is no part of
    operands."""
    bounds = zip(part.params["start_indices"], part.params["limit_indices"], strict=True)
    rows = {i: range(*ends) for i, ends in enumerate(bounds) if ends != (0, out.aval.shape[i])}
    if operand_rows(eqn, rows) is None:
        return None
    return lambda read: rows_made(out, rows, start, graph, read)
