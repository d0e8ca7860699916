"""One function, one form: products that are written apart, as the layers that they are.

Where a product is no layer as it stands, but is one in the normal form of `_analysis.monomials`, it
is computed a second time in the way that the families recognise. The user's own equations give the
value and the second way the derivative (`keep`), so only what is recognised changes.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .._analysis import compat, primitives as prim
from .._analysis.compat import Equation, Var, is_literal
from .._analysis.exponentials import Exponentials
from .._analysis.graph import Graph, is_float
from .._analysis.monomials import Factor, Monomials
from .._analysis.trace import in_place_of, inline
from .normalised import normalised
from .step import Found
from .weighted_mean import Made, found_in, times

Read = Callable[[Var], Any]


def normal_form(
    closed_jaxpr: Any,
    graph: Graph,
    dominator: Mapping[Var, Var],
    found: Mapping[Var, Found],
    calls: Sequence[str],
) -> Any | None:
    """The same function in its normal form, or None where it is written in it.

    Args:
        closed_jaxpr: a flat jaxpr.
        graph: its graph.
        dominator: what each variable is an elementwise function of.
        found: layers that are recognised as they stand.
        calls: globs of the names of called functions that stay whole.
    """
    # A norm of exponentials may be a softmax, which is one factor as it stands.
    inside = Exponentials(Monomials(graph, dominator, found)).inside
    whole = [v for v, layer in found.items() if not (layer.takes_affine and v in inside)]
    monomials = Monomials(graph, dominator, whole)
    exponentials = Exponentials(monomials)
    written: dict[int, Callable[[Read], Any]] = {}
    for eqn in graph.eqns:
        if not _ends_product(eqn, graph, monomials, exponentials):
            continue
        way = _other_way(eqn.outvars[0], monomials, exponentials)
        if way is not None:
            written[id(eqn)] = way
    twice = any(v in graph.live and first is not v for v, first in monomials.same.items())
    if not written and not twice:
        return None
    return _rewritten(closed_jaxpr, written, monomials.same, calls)


def _ends_product(
    eqn: Equation, graph: Graph, monomials: Monomials, exponentials: Exponentials
) -> bool:
    """Whether somebody reads a product as a whole."""
    out = eqn.outvars[0] if len(eqn.outvars) == 1 else None
    if out is None or out not in graph.live or not is_float(out):
        return False
    if not (monomials.is_product(eqn) or out in exponentials.normalised):
        return False
    readers = [r for r in graph.readers.get(out, ()) if r is None or graph.is_live(r)]
    return any(r is None or not monomials.is_product(r) for r in readers)


def _other_way(
    var: Var, monomials: Monomials, exponentials: Exponentials
) -> Callable[[Read], Any] | None:
    """How a product is computed in its normal form, where it is written otherwise."""
    number, powers = monomials.factors(var)
    explained = [f for f in powers if monomials.explained(f)]
    made: list[Made] = []
    suspect = any(
        (powers[f] < 0 and f.var in exponentials.inside) or f.var in exponentials.normalised
        for f in explained
    )
    if suspect and (found := found_in(var, exponentials)) is not None:
        layer, number, powers = found
        made.append(layer)
        exponentials.settled.add(var)
    norms, powers = normalised(powers, exponentials)
    made += norms
    if not made and not _apart(var, powers, monomials):
        return None
    groups = list(monomials.groups(powers).values())
    constants = {f: p for f, p in powers.items() if not monomials.explained(f)}
    aval = var.aval

    def way(read: Read) -> Any:
        order = range(len(aval.shape))
        values = [(layer(read, order), 1) for layer in made]
        values += [_group(group, read, order, monomials) for group in groups]
        values += [_joined(constants, read, order)] if constants else []
        product = _product(values)
        product = product if number == 1 else product * jnp.asarray(number, product.dtype)
        return jnp.broadcast_to(product, aval.shape).astype(aval.dtype)

    return way


def _apart(var: Var, powers: Mapping[Factor, int], monomials: Monomials) -> bool:
    """Whether the factors of a group stand apart, or a contraction contracts nothing."""
    parts = monomials.parts(var, powers)
    if parts is None or monomials.holds_outer(var):
        return True
    return len(parts) > 1 and any(power < 0 and v in monomials.dominator for v, power in parts)


def _divides_by_function(group: Mapping[Factor, int], monomials: Monomials) -> bool:
    """Whether a product is divided by a function of one value, whose reciprocal is one as well."""
    return all(power < 0 and factor.var in monomials.dominator for factor, power in group.items())


def _joined(group: Mapping[Factor, int], read: Read, order: Sequence[int]) -> tuple[Any, int]:
    """The product of some factors, and whether it multiplies or divides."""
    sign = 1 if any(power > 0 for power in group.values()) else -1
    values = [
        (times(factor, read, order), sign * (1 if power > 0 else -1))
        for factor, power in group.items()
        for _ in range(abs(power))
    ]
    return _product(values), sign


def _group(
    group: Mapping[Factor, int], read: Read, order: Sequence[int], monomials: Monomials
) -> tuple[Any, int]:
    """What a group of factors is in a product."""
    value, sign = _joined(group, read, order)
    return (1 / value, 1) if _divides_by_function(group, monomials) else (value, sign)


def _product(values: Sequence[tuple[Any, int]]) -> Any:
    """A product, what multiplies first."""
    ordered = sorted(values, key=lambda pair: -pair[1])
    result, sign = ordered[0]
    result = result if sign > 0 else 1 / result
    for value, power in ordered[1:]:
        result = result * value if power > 0 else result / value
    return result


def _rewritten(
    closed_jaxpr: Any,
    written: Mapping[int, Callable[[Read], Any]],
    same: Mapping[Var, Var],
    calls: Sequence[str],
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
                (out,) = eqn.outvars
                first = same.get(out, out)
                if first is not out:
                    env[out] = env[first]
                    continue
                (own,) = compat.evaluate(jaxpr, [eqn], env).values()
                with in_place_of(eqn):
                    way = written[id(eqn)](env.__getitem__)
                    env[out] = prim.KEEP.bind(way, jax.lax.stop_gradient(own))
        return [a.val if is_literal(a) else env[a] for a in jaxpr.outvars]

    return inline(compat.traced_on(function, jaxpr.invars), calls)
