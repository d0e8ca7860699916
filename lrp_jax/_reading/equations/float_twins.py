"""A function of integers that carry relevance, written with floats in their place.

The rewritten function has the same values: where the floats could differ from the integers, the
integers' own value is put in when they are cast back.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.draft import Draft
from ..._analysis.flow import Flow
from ..._analysis.graph import Graph, is_float
from ..._analysis.ids import CONVERT, is_integer, values_of
from ..._analysis.primitives import Family, family
from ..._analysis.trace import in_place_of
from . import integers
from .integers import CLAMP, Interval


def as_floats(draft: Draft) -> tuple[Draft, Equation | None]:
    """The function with floats where integers carry relevance.

    Returns:
        The same draft where no numbers are rounded or cast, else an equal one; and the equation
        that makes of such integers what nobody understands, if relevance would come to it.
    """
    if not any(map(integers.may_quantise, draft.eqns)):
        return draft, None
    graph = draft.graph
    jaxpr = graph.jaxpr
    direct = integers.straight_through(graph)
    stops = [graph.maker[var] for var in direct.values()]
    inputs = zip(jaxpr.invars, draft.explained, strict=True)
    given = {v for v, flag in inputs if flag and is_float(v)}
    flow = Flow(given).follow(graph.eqns, stops)
    flags = draft.outputs or [True] * len(jaxpr.outvars)
    wanted = {
        a
        for a, flag in zip(jaxpr.outvars, flags, strict=True)
        if flag and not is_literal(a) and is_float(a)
    }
    live = flow.live(graph.eqns, wanted)
    lost = next((eqn for var, eqn in flow.lost.items() if var in live), None)
    if lost is not None:
        return draft, lost
    held = integers.scales_of_calls(graph, flow)
    for var in integers.quantisers(graph, flow):
        held |= integers.scales(graph, flow, var)
    if not (held or direct or any(v in flow.carried for v in live)):
        return draft, None
    run = lambda *values: _Twins(graph, flow.carried & live, held, direct).run(values)  # noqa: E731
    return draft.written(compat.traced_on(run, jaxpr.invars)), None


class _Twins:
    """One evaluation: values as they are, and floats equal to the integers that carry."""

    def __init__(
        self, graph: Graph, carried: set[Var], held: set[Var], direct: dict[int, Var]
    ) -> None:
        self.graph, self.carried, self.held, self.direct = graph, carried, held, direct
        self.env: dict[Var, Any] = {}
        self.twins: dict[Var, tuple[jax.Array, jax.Array]] = {}  # and a detached one beside it
        self.ranges: dict[Var, Interval] = {}

    def run(self, values: Sequence[Any]) -> list[Any]:
        jaxpr = self.graph.jaxpr
        self.env.update(zip(jaxpr.constvars, self.graph.closed.consts, strict=True))
        self.env.update(zip(jaxpr.invars, values, strict=True))
        for eqn in self.graph.eqns:
            self._evaluate(eqn)
        return [a.val if is_literal(a) else self.env[a] for a in jaxpr.outvars]

    def _evaluate(self, eqn: Equation) -> None:
        env = self.env
        if id(eqn) in self.direct:  # x + (q(x) - x), a function of x
            stop = self.graph.maker[self.direct[id(eqn)]]
            env = {a: env[a] for a in eqn.invars if not is_literal(a)}
            env[stop.outvars[0]] = self.env[stop.invars[0]]
        self.env.update(compat.evaluate(self.graph.jaxpr, [eqn], env))
        operands = [eqn.invars[i] for i in values_of(eqn)]
        twinned = any(not is_literal(a) and a in self.twins for a in operands)
        out = eqn.outvars[0]
        with in_place_of(eqn):
            if eqn.primitive is CONVERT and out in self.carried and not twinned:
                self._cast(eqn)
            elif twinned and is_float(out) and eqn.primitive is CONVERT:
                self._cast_back(eqn)
            elif twinned and (out in self.carried or is_float(out)):
                self._compute(eqn)
            for var in eqn.outvars:
                if var in self.held:
                    self.env[var] = jax.lax.stop_gradient(self.env[var])

    def _cast(self, eqn: Equation) -> None:
        """The float that a cast makes an integer of."""
        (var,) = eqn.outvars
        x = self.env[eqn.invars[0]]
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        whole, (low, high) = self._known(eqn.invars[0])
        if not whole:
            x = jax.lax.select(x < 0, jax.lax.ceil(x), jax.lax.floor(x))
        smallest, largest = integers.range_of(var)
        if low < smallest or high > largest:
            if jnp.finfo(x.dtype).nmant < jnp.iinfo(var.aval.dtype).bits - 1:
                low, high = integers.ANY  # the bound itself is no float
            else:
                x = jax.lax.clamp(_like(smallest, x), x, _like(largest, x))
                low, high = max(low, smallest), min(high, largest)
        self.twins[var], self.ranges[var] = (x, jax.lax.stop_gradient(x)), (low, high)

    def _known(self, atom: Any) -> tuple[bool, Interval]:
        """Whether a float is a whole number, and where it lies, as far as the code says it."""
        low, high = integers.ANY
        while (eqn := self.graph.maker.get(atom)) is not None:
            if eqn.primitive in integers.ROUNDING:
                return True, (low, high)
            bounds = [self._constant(a) for a in eqn.invars]
            if eqn.primitive is CLAMP and bounds[0] and bounds[2]:
                low, high, atom = max(low, bounds[0][0]), min(high, bounds[2][1]), eqn.invars[1]
            elif eqn.primitive in (prim.MAX, prim.MIN) and any(bounds):
                where = next(i for i, b in enumerate(bounds) if b)
                bound = bounds[where]
                assert bound is not None, "it was asked for"
                if eqn.primitive is prim.MAX:
                    low = max(low, bound[0])
                else:
                    high = min(high, bound[1])
                atom = eqn.invars[1 - where]
            elif family(eqn.primitive) is Family.NEUTRAL or eqn.primitive in prim.SHAPE_ONLY:
                atom = eqn.invars[0]
                if is_integer(atom):
                    break
            else:
                break
            if is_literal(atom):
                break
        return False, (low, high)

    def _constant(self, atom: Any) -> Interval | None:
        """The value of a bound that is a number in the code, cast or spread out."""
        while not is_literal(atom):
            eqn = self.graph.maker.get(atom)
            spreads = eqn is not None and (
                family(eqn.primitive) is Family.NEUTRAL or eqn.primitive in prim.SHAPE_ONLY
            )
            if eqn is None or not spreads:
                return None
            atom = eqn.invars[0]
        return integers.literal_interval(atom)

    def _compute(self, eqn: Equation) -> None:
        """What an equation makes of the floats."""
        values = values_of(eqn)
        twins = [self.twins[a][0] for a in eqn.invars if not is_literal(a) and a in self.twins]
        dtype = jnp.result_type(*twins)
        pairs, ranges = [], []
        for i, atom in enumerate(eqn.invars):
            value = atom.val if is_literal(atom) else self.env[atom]
            if i not in values:
                pairs.append((value, value))
            elif not is_literal(atom) and atom in self.twins:
                twin, shadow = self.twins[atom]
                pairs.append((twin.astype(dtype), shadow.astype(dtype)))
                ranges.append(self.ranges[atom])
            else:
                value = jnp.asarray(value).astype(dtype)
                pairs.append((value, value))
                ranges.append(integers.range_of(atom))
        params = dict(eqn.params)
        for name in ("preferred_element_type", "new_dtype"):
            if params.get(name) is not None:
                params[name] = dtype

        def made(operands: Sequence[Any]) -> list[Any]:
            if eqn.primitive is CONVERT:
                return [operands[0]]
            results = eqn.primitive.bind(*operands, **params)
            return list(results) if eqn.primitive.multiple_results else [results]

        found = integers.interval(eqn, ranges)
        both = zip(made([p[0] for p in pairs]), made([p[1] for p in pairs]), strict=True)
        for var, (twin, shadow) in zip(eqn.outvars, both, strict=True):
            if var in self.carried:
                self.twins[var], self.ranges[var] = (twin, shadow), self._within(var, found)
            elif is_float(var):
                self.env[var] = _exact(twin, shadow, self.env[var], found)

    def _within(self, var: Var, found: Interval) -> Interval:
        """Where the floats lie; anywhere, once the integers may have overflowed."""
        low, high = integers.range_of(var)
        return found if low <= found[0] and found[1] <= high else integers.ANY

    def _cast_back(self, eqn: Equation) -> None:
        (var,), atom = eqn.outvars, eqn.invars[0]
        self.env[var] = _exact(*self.twins[atom], self.env[var], self.ranges[atom])


def _exact(twin: jax.Array, shadow: jax.Array, value: jax.Array, known: Interval) -> jax.Array:
    """The float twin with exactly the value that the integers have."""
    largest = 2.0 ** (jnp.finfo(twin.dtype).nmant + 1)
    cast = twin.astype(value.dtype)
    if -largest <= known[0] and known[1] <= largest:
        return cast
    # Where floats round or integers overflow, the value is put in: as a bias, the rest.
    return value + (cast - shadow.astype(value.dtype))


def _like(number: float, x: jax.Array) -> jax.Array:
    return jnp.asarray(number, x.dtype)
