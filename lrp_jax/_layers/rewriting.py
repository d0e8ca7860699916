"""Functions of which some equations are computed in another way as well."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from .._analysis import compat, primitives as prim
from .._analysis.compat import Equation, Var, is_literal
from .._analysis.graph import Graph
from .._analysis.trace import in_place_of, inline, scopes
from .._analysis.unroll import Standing

Read = Callable[[Var], Any]


def rewritten(
    closed_jaxpr: Any,
    written: Mapping[int, Callable[[Read], Any]],
    same: Mapping[Var, Var],
    calls: Sequence[str],
    graph: Graph,
) -> Any:
    """The jaxpr with the products computed in the other way as well, and nothing twice."""
    jaxpr = compat.open_jaxpr(closed_jaxpr)

    def function(*values: Any) -> list[Any]:
        env: dict[Var, Any] = dict(zip(jaxpr.constvars, closed_jaxpr.consts, strict=True))
        env.update(zip(jaxpr.invars, values, strict=True))

        def apart(eqn: Equation) -> bool:
            return id(eqn) in written or any(same.get(v, v) is not v for v in eqn.outvars)

        for other, group in itertools.groupby(jaxpr.eqns, apart):
            eqns = list(group)
            if not other:
                env.update(compat.evaluate(jaxpr, eqns, env))
                continue
            for eqn in eqns:
                out = eqn.outvars[0]
                first = same.get(out, out)
                if first is not out:
                    env[out] = env[first]
                    continue
                env.update(compat.evaluate(jaxpr, [eqn], env))
                own = env[out]
                other_way = written[id(eqn)]
                with in_place_of(eqn), scopes(_standing(eqn, other_way, graph, env)):
                    way = other_way(env.__getitem__)
                    env[out] = prim.KEEP.bind(way, jax.lax.stop_gradient(own))
        return [a.val if is_literal(a) else env[a] for a in jaxpr.outvars]

    return inline(compat.traced_on(function, jaxpr.invars), calls)


def _standing(
    eqn: Equation, way: Callable[[Read], Any], graph: Graph, env: Mapping[Var, Any]
) -> list[Standing]:
    """Where all equations stand that a way is instead of, where they remember it."""
    if not any(compat.marks_of(e, Standing) for e in graph.eqns):
        return []
    read: dict[Var, None] = {}

    def noted(var: Var) -> Any:
        read[var] = None
        return env[var]

    jax.make_jaxpr(lambda: way(noted))()
    written = compat.traced_on(
        lambda *values: [way(dict(zip(read, values, strict=True)).__getitem__)], read
    )
    jaxpr = compat.open_jaxpr(compat.without_unused(written))
    atoms = [*(a for e in jaxpr.eqns for a in e.invars), *jaxpr.outvars]
    used = {a for a in atoms if not is_literal(a)}
    starts = [v for v, own in zip(read, jaxpr.invars, strict=True) if own in used]
    inside, _ = graph.between(eqn.outvars[0], [*starts, *graph.jaxpr.invars])
    marks = (m for e in inside for m in compat.marks_of(e, Standing))
    return list({id(m): m for m in marks}.values())
