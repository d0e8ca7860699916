"""The bodies of loops, branches and calls, and what passes them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from . import compat, primitives as prim
from .compat import Equation
from .primitives import Family, family


class Bodies(NamedTuple):
    """What an equation computes, inside.

    Attributes:
        jaxprs: its bodies, one for each branch.
        inputs: those of its operands that the bodies read, in order.
        carry: those of a body's inputs that its first outputs are, a turn later.
    """

    jaxprs: list[Any]
    inputs: slice
    carry: slice = slice(0)


def bodies_of(eqn: Equation) -> Bodies | None:
    """The bodies of a loop, a branch or a call; None for another equation."""
    if eqn.primitive is prim.SCAN:
        constants, carries = compat.scan_arity(eqn)
        carry = slice(constants, constants + carries)
        return Bodies([compat.open_jaxpr(eqn.params["jaxpr"])], slice(None), carry)
    if eqn.primitive is prim.WHILE:
        skipped, constants = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        body = compat.open_jaxpr(eqn.params["body_jaxpr"])
        return Bodies([body], slice(skipped, None), slice(constants, len(body.invars)))
    if eqn.primitive is prim.COND:
        return Bodies(list(map(compat.open_jaxpr, eqn.params["branches"])), slice(1, None))
    called = compat.plain_call(eqn)
    if called is None and family(eqn.primitive) is Family.CONTROL:
        called = eqn.params["jaxpr"]
    return None if called is None else Bodies([compat.open_jaxpr(called)], slice(None))


def equations_in(jaxpr: Any) -> Iterator[Equation]:
    """All equations of a jaxpr, and of whatever its equations hold."""
    for eqn in compat.open_jaxpr(jaxpr).eqns:
        yield eqn
        for body in held_in(eqn):
            yield from equations_in(body)


def held_in(eqn: Equation) -> Iterator[Any]:
    """The jaxprs among the parameters of an equation, whatever they are for."""
    for value in eqn.params.values():
        for body in value if isinstance(value, tuple | list) else (value,):
            if hasattr(body, "eqns"):
                yield body


def through(
    bodies: Bodies, given: Sequence[Any], follow: Callable[[Any, list[Any]], Sequence[Any]]
) -> tuple[list[Any], list[Any]]:
    """What reaches the inputs of bodies, in any turn, and what reaches the results.

    Args:
        bodies: those of an equation.
        given: what reaches its operands; values are joined by `|`.
        follow: from a jaxpr and what reaches its inputs to what reaches its outputs.
    """
    inputs = list(given[bodies.inputs])
    while True:
        made = [follow(jaxpr, inputs) for jaxpr in bodies.jaxprs]
        results = [_joined(column) for column in zip(*made, strict=True)]
        turned = inputs[bodies.carry]
        grown = [a | b for a, b in zip(turned, results, strict=False)]
        if grown == turned:
            return inputs, results
        inputs[bodies.carry] = grown  # what one turn made, the next one's carry brings in


def _joined(values: Sequence[Any]) -> Any:
    found, *others = values
    for value in others:
        found = found | value
    return found
