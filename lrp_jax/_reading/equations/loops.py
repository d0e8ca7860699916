"""Loops that count to a number of the code, written as scans, which have a reverse pass.

`while i < n and ...: ...; i += step` takes at most as many turns as i takes to n, known before
anything runs. A turn that the condition leaves out hands its carry on.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.draft import Draft
from ..._analysis.foreign import of_one_example
from ..._analysis.opening import MOST_TURNS
from ..._analysis.primitives import Family, family
from ..._analysis.trace import in_place_of, inline


def with_bounded_loops(draft: Draft) -> Draft:
    """The same function with scans for the loops of known bound that relevance passes."""
    if not any(eqn.primitive is prim.WHILE for eqn in draft.eqns):
        return draft
    graph, jaxpr = draft.graph, draft.graph.jaxpr
    turns = {
        id(eqn): bound
        for eqn in graph.eqns
        if eqn.primitive is prim.WHILE and graph.is_live(eqn)
        if (bound := _most_turns(eqn)) is not None
    }
    if not turns:
        return draft

    def run(*values: Any) -> list[Any]:
        env: dict[Var, Any] = dict(zip(jaxpr.constvars, graph.closed.consts, strict=True))
        env.update(zip(jaxpr.invars, values, strict=True))
        for eqn in jaxpr.eqns:
            if id(eqn) not in turns:
                env.update(compat.evaluate(jaxpr, [eqn], env))
                continue
            operands = [a.val if is_literal(a) else env[a] for a in eqn.invars]
            with in_place_of(eqn):
                made = _as_scan(eqn, turns[id(eqn)], operands)
            env.update(zip(eqn.outvars, made, strict=True))
        return [a.val if is_literal(a) else env[a] for a in jaxpr.outvars]

    return draft.written(compat.traced_on(run, jaxpr.invars))


def _as_scan(eqn: Equation, turns: int, operands: list[Any]) -> list[Any]:
    condition, body = _condition(eqn), compat.closed(eqn.params["body_jaxpr"])
    start = eqn.params["cond_nconsts"]
    end = start + eqn.params["body_nconsts"]
    of_condition, of_body, carry = operands[:start], operands[start:end], operands[end:]

    def run(function: Any, *values: Any) -> list[Any]:
        return jax.core.eval_jaxpr(compat.open_jaxpr(function), function.consts, *values)

    only_counts = len(compat.open_jaxpr(condition).eqns) == 1

    def turn(carry: list[Any], _: None) -> tuple[list[Any], None]:
        if only_counts:
            return run(body, *of_body, *carry), None
        (goes_on,) = run(condition, *of_condition, *carry)
        return jax.lax.cond(
            goes_on, lambda *carry: run(body, *of_body, *carry), lambda *carry: [*carry], *carry
        ), None

    typed = [jax.numpy.asarray(c, v.aval.dtype) for c, v in zip(carry, eqn.outvars, strict=True)]
    return jax.lax.scan(turn, typed, None, length=turns)[0]


def _condition(eqn: Equation) -> Any:
    """Whether a loop goes on for one example."""
    return of_one_example(inline(compat.closed(eqn.params["cond_jaxpr"])))


def _most_turns(eqn: Equation) -> int | None:
    """How many turns a loop takes at most, or None where nobody knows."""
    jaxpr = compat.open_jaxpr(_condition(eqn))
    made = compat.makers(jaxpr)
    bounds: list[int] = []
    todo = list(jaxpr.outvars)
    while todo:
        atom = todo.pop()
        test = None if is_literal(atom) else made.get(atom)
        if test is None:
            continue
        if test.primitive is _AND or family(test.primitive) is Family.NEUTRAL:
            todo += test.invars
        elif test.primitive in _COMPARISONS:
            bounds += [b for own in (0, 1) if (b := _bound(eqn, jaxpr, test, own)) is not None]
    best = min(bounds, default=None)
    return best if best is not None and best <= MOST_TURNS else None


def _bound(eqn: Equation, jaxpr: Any, test: Equation, own: int) -> int | None:
    """The turns until operand `own` of a comparison, a counter, is past the other, a number."""
    counter, limit = test.invars[own], test.invars[1 - own]
    constants = eqn.params["cond_nconsts"]
    if is_literal(counter) or counter not in jaxpr.invars[constants:]:
        return None
    if not is_literal(limit) and limit in jaxpr.invars[:constants]:
        limit = eqn.invars[jaxpr.invars.index(limit)]
    place = jaxpr.invars.index(counter) - constants
    begin = eqn.invars[constants + eqn.params["body_nconsts"] + place]
    step = _step(eqn, place)
    if step is None or not (is_literal(limit) and is_literal(begin)):
        return None
    direction, inclusive = _COMPARISONS[test.primitive]
    direction *= -1 if own else 1
    if direction * step <= 0:
        return None
    way = direction * (int(limit.val) - int(begin.val)) + inclusive
    return max(0, math.ceil(way / (direction * step)))


def _step(eqn: Equation, place: int) -> int | None:
    """By how much one turn changes a counter of the carry, where that is a number of the code."""
    body = compat.open_jaxpr(inline(compat.closed(eqn.params["body_jaxpr"])))
    counter = body.invars[eqn.params["body_nconsts"] + place]
    return counted_by(counter, body.outvars[place], compat.makers(body))


def counted_by(counter: Var, after: Any, makers: Mapping[Var, Equation]) -> int | None:
    """By how much a turn changes a counter, where that is a number of the code; None of all else.

    Args:
        counter: before the turn.
        after: the same after it.
        makers: of what the turn makes.
    """
    last = None if is_literal(after) else makers.get(after)
    if last is None or not np.issubdtype(counter.aval.dtype, np.integer):
        return None
    if last.primitive not in prim.SUMS:
        return None
    literals = [a for a in last.invars if is_literal(a)]
    others = [a for a in last.invars if not is_literal(a)]
    if len(literals) != 1 or others != [counter]:
        return None
    if last.primitive is prim.SUB and last.invars[0] is not counter:
        return None
    return int(literals[0].val) * (-1 if last.primitive is prim.SUB else 1)


_AND = compat.primitive("and")
_COMPARISONS = {
    compat.primitive("lt"): (1, 0), compat.primitive("le"): (1, 1),
    compat.primitive("gt"): (-1, 0), compat.primitive("ge"): (-1, 1),
}  # fmt: skip
"""Which way a counter on the left runs to its limit, and whether the limit is a turn too."""
