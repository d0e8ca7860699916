"""A jaxpr evaluated without its calls, some equations in another way."""

from collections.abc import Callable, Sequence
from typing import Any

from .._analysis import compat
from .._analysis.compat import Equation, Var, is_literal

Instead = Callable[[Equation, list[Any]], Any]
"""From an equation and its operands to a pair (body, operands) to enter, to a list of results, or
to None for the equation as it is."""


def entered(eqn: Equation, operands: list[Any]) -> tuple[Any, list[Any]] | None:
    """The body of a call, to enter it."""
    body = compat.plain_call(eqn)
    return None if body is None else (body, operands)


def inlined(
    closed: Any,
    values: Sequence[Any],
    constants: Sequence[Any] | None = None,
    instead: Instead = entered,
    plain: Callable[[Any], Any] = lambda value: value,
) -> list[Any]:
    """Evaluate a jaxpr without its calls, at other values of its constants too.

    Args:
        closed: the jaxpr.
        values: of its inputs.
        constants: in place of its own constants.
        instead: what is done in place of some equations.
        plain: an operand of all other equations as an array.
    """
    jaxpr = compat.open_jaxpr(closed)
    constants = closed.consts if constants is None else constants
    env: dict[Var, Any] = dict(zip(jaxpr.constvars, constants, strict=True))
    env.update(zip(jaxpr.invars, values, strict=True))
    for eqn in jaxpr.eqns:
        found = instead(eqn, [a.val if is_literal(a) else env[a] for a in eqn.invars])
        if found is None:
            operands = {a: plain(env[a]) for a in eqn.invars if not is_literal(a)}
            env.update(compat.evaluate(jaxpr, [eqn], operands))
            continue
        if isinstance(found, tuple):
            body, operands = found
            found = inlined(body, operands, None, instead, plain)
        env.update(zip(eqn.outvars, found, strict=True))
    return [a.val if is_literal(a) else env[a] for a in jaxpr.outvars]
