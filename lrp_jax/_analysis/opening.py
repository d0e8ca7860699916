"""Borders that are none: checkpoints, loops of at most one turn, loops that end after a known
count, branches that code chooses, maps over one device, and functions of parts in place.

What `jax.checkpoint` wraps is opened, so that a layer may lie on both sides of its border; every
equation remembers the checkpoint it came from, and the steps of one are built into one again.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import compat, primitives as prim
from .compat import Equation, Var, is_literal
from .devices import is_alone, on_one_device

_SCATTER: Any = compat.primitive("scatter")
Evaluate = Callable[[Any, Sequence[Any]], list[Any]]
"""From a closed jaxpr and values of its inputs to those of its outputs."""

MOST_TURNS = 4096
"""A `while` loop of more turns counts as one of unknown count: every turn costs memory."""


class Checkpointed(compat.Mark):
    """A scope that remembers the checkpoint that was opened there.

    Attributes:
        options: those of `jax.checkpoint`.
    """

    options: dict[str, Any]

    @classmethod
    def of(cls, eqn: Equation) -> "Checkpointed":
        mark = cls("checkpoint")
        mark.options = {name: eqn.params[name] for name in ("prevent_cse", "policy")}
        return mark


def opens(eqn: Equation) -> bool:
    """Whether an equation's body is to stand in its place, or a `scan`."""
    if eqn.primitive is prim.SCAN:
        return bool(eqn.params["length"] <= 1)
    if eqn.primitive is prim.COND:
        return is_literal(eqn.invars[0])
    if eqn.primitive is _SCATTER:
        body = eqn.params["update_jaxpr"]
        return body is not None and body.outvars[0] is not body.invars[1]
    return eqn.primitive in (prim.REMAT, prim.WHILE) or is_alone(eqn)


def opened(eqn: Equation, operands: Sequence[Any], evaluate: Evaluate) -> list[Any] | None:
    """The results of such an equation; None for a loop whose count is not known.

    Args:
        eqn: the equation.
        operands: their values, those of numbers in the code known.
        evaluate: for bodies.
    """
    if eqn.primitive is prim.REMAT:
        with jax.named_scope(Checkpointed.of(eqn)):
            return evaluate(compat.closed(eqn.params["jaxpr"]), operands)
    if eqn.primitive is prim.SCAN:
        return turn(eqn, operands, evaluate)
    if eqn.primitive is prim.COND:
        index, *given = operands
        branches = eqn.params["branches"]
        return evaluate(compat.closed(branches[np.clip(index, 0, len(branches) - 1)]), given)
    if eqn.primitive is _SCATTER:
        return [_in_place(eqn, operands, evaluate)]
    if eqn.primitive is not prim.WHILE:
        return evaluate(on_one_device(eqn), operands)
    turns = _turns(eqn, operands)
    if turns is None:
        return None
    body = compat.closed(eqn.params["body_jaxpr"])
    of_condition, of_body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    constants, carry = operands[of_condition:][:of_body], operands[of_condition + of_body :]
    if turns <= 1:
        return evaluate(body, [*constants, *carry]) if turns else list(carry)
    made = compat.open_jaxpr(body).outvars
    # A scan's carry has one type; numbers of the code take that of the body.
    carry = [
        c if isinstance(c, jax.Array) else jnp.asarray(c, a.aval.dtype)
        for c, a in zip(carry, made, strict=True)
    ]

    def step(carry: list[Any], _: None) -> tuple[list[Any], None]:
        return evaluate(body, [*constants, *carry]), None

    return list(jax.lax.scan(step, carry, None, length=turns)[0])


def _in_place(eqn: Equation, operands: Sequence[Any], evaluate: Evaluate) -> Any:
    """`x.at[i].apply(f)` as a choice between `f(x)` and `x`."""
    x, indices, updates = operands
    body = compat.closed(eqn.params["update_jaxpr"], eqn.params["update_consts"])

    def f(number: Any) -> Any:
        return evaluate(body, [number, number])[0]

    for _ in range(jnp.ndim(x)):
        f = jax.vmap(f)
    nowhere, there = jnp.zeros(jnp.shape(x), bool), jnp.ones(jnp.shape(updates), bool)
    params = {"update_jaxpr": None, "update_consts": ()}
    return jax.lax.select_n(compat.applied(eqn, nowhere, indices, there, **params), x, f(x))


def turn(eqn: Equation, operands: Sequence[Any], evaluate: Evaluate) -> list[Any]:
    """The results of a `scan` of one turn, or of none."""
    constants, carries = compat.scan_arity(eqn)
    held = constants + carries
    if not eqn.params["length"]:
        made = (v.aval for v in eqn.outvars[carries:])
        return [*operands[constants:held], *(jnp.zeros(a.shape, a.dtype) for a in made)]
    values = [*operands[:held], *(jnp.squeeze(xs, 0) for xs in operands[held:])]
    outs = evaluate(compat.closed(eqn.params["jaxpr"]), values)
    return [*outs[:carries], *(jnp.expand_dims(y, 0) for y in outs[carries:])]


def _turns(eqn: Equation, operands: Sequence[Any]) -> int | None:
    """How often a `while` loop turns, where that follows from numbers in the code alone."""
    condition = compat.closed(eqn.params["cond_jaxpr"])
    body = compat.closed(eqn.params["body_jaxpr"])
    of_condition, of_body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    given = operands[:of_condition], operands[of_condition:][:of_body]
    carry = list(operands[of_condition + of_body :])
    places = [len(given[1]) + i for i in range(len(carry))]
    asked = _needs(condition, [len(given[0]) + i for i in range(len(carry))], range(1))
    while True:  # what decides, and what that is computed from
        wider = sorted({*asked, *_needs(body, places, asked)})
        if wider == asked:
            break
        asked = wider
    goes_on, next_turn = _of_known(condition, range(1)), _of_known(body, asked)
    turns = 0
    with jax.ensure_compile_time_eval():
        while turns <= MOST_TURNS:
            decided = goes_on([*given[0], *carry])
            if decided is None:
                return None
            if not decided[0]:
                return turns
            changed = next_turn([*given[1], *carry])
            if changed is None:
                return None
            for index, value in zip(asked, changed, strict=True):
                carry[index] = value
            turns += 1
    return None


def _part(closed_jaxpr: Any, outputs: Sequence[int]) -> tuple[list[Equation], list[Any], set[Var]]:
    """The equations behind some outputs, those outputs, and all variables met."""
    jaxpr = compat.open_jaxpr(closed_jaxpr)
    outvars = [jaxpr.outvars[i] for i in outputs]
    wanted = {a for a in outvars if not is_literal(a)}
    kept = []
    for eqn in reversed(jaxpr.eqns):
        if any(v in wanted for v in eqn.outvars):
            kept.append(eqn)
            wanted.update(a for a in eqn.invars if not is_literal(a))
    return kept[::-1], outvars, wanted


def _needs(closed_jaxpr: Any, inputs: Sequence[int], outputs: Sequence[int]) -> list[int]:
    """Which of some inputs some outputs depend on, numbered among them."""
    *_, met = _part(closed_jaxpr, outputs)
    invars = compat.open_jaxpr(closed_jaxpr).invars
    return [number for number, i in enumerate(inputs) if invars[i] in met]


def _of_known(
    closed_jaxpr: Any, outputs: Sequence[int]
) -> Callable[[Sequence[Any]], list[Any] | None]:
    """Some outputs where the inputs that they depend on are known, else None."""
    jaxpr = compat.open_jaxpr(closed_jaxpr)
    eqns, outvars, met = _part(closed_jaxpr, outputs)
    inputs = [i for i, v in enumerate(jaxpr.invars) if v in met]
    constants = [
        (v, c) for v, c in zip(jaxpr.constvars, closed_jaxpr.consts, strict=True) if v in met
    ]
    invars = [*(v for v, _ in constants), *(jaxpr.invars[i] for i in inputs)]
    function = compat.as_function(jaxpr, eqns, invars, outvars)

    def known(values: Sequence[Any]) -> list[Any] | None:
        given = [*(c for _, c in constants), *(values[i] for i in inputs)]
        if any(isinstance(v, jax.core.Tracer) or np.size(v) > 1 for v in given):
            return None
        return function(*given)

    return known
