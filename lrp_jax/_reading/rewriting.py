"""Functions of which some equations are computed in another way as well."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from .._analysis import compat, primitives as prim
from .._analysis.compat import Equation, Var
from .._analysis.graph import Graph
from .._analysis.otherwise import computed_otherwise
from .._analysis.trace import scopes
from .._analysis.unroll import Standing

Read = Callable[[Var], Any]


def rewritten(
    graph: Graph,
    written: Mapping[int, Callable[[Read], Any]],
    same: Mapping[Var, Var],
    calls: Sequence[str],
) -> Any:
    """The function of a graph, products computed in the other way as well, and nothing twice."""
    stands = any(compat.marks_of(e, Standing) for e in graph.eqns)

    def is_other(eqn: Equation) -> bool:
        return id(eqn) in written or any(same.get(v, v) is not v for v in eqn.outvars)

    def way(eqn: Equation, read: Read) -> Any:
        out = eqn.outvars[0]
        first = same.get(out, out)
        if first is not out:
            return read(first)
        own, other_way = read(out), written[id(eqn)]
        with scopes(_standing(eqn, other_way, graph) if stands else []):
            return prim.KEEP.bind(other_way(read), jax.lax.stop_gradient(own))

    return computed_otherwise(graph.closed, is_other, way, calls)


def _standing(eqn: Equation, way: Callable[[Read], Any], graph: Graph) -> list[Standing]:
    """Where all equations stand that a way is instead of."""
    written = compat.without_unused(jax.make_jaxpr(lambda: way(compat.value_of))())
    read = map(compat.is_value_of, compat.open_jaxpr(written).eqns)
    starts = [v for v in read if v is not None]
    inside, _ = graph.between(eqn.outvars[0], [*starts, *graph.jaxpr.invars])
    # Constants, and what hands numbers on, as the state of a turn, stand on no side of a border.
    inside = [e for e in inside if graph.is_live(e) and not prim.changes_no_number(e.primitive)]
    marks = (m for e in inside for m in compat.marks_of(e, Standing))
    return list({id(m): m for m in marks}.values())
