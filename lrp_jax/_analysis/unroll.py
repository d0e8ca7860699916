"""Loops and branches written out: turn after turn, and with what stands beside a branch in it."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from . import compat, primitives as prim
from .compat import Equation, Var, is_literal
from .inside import bodies_of
from .splice import insert, splice, traced
from .trace import evaluate_inlined, inline, scopes

_TURNS_SEEN = 3
"""The first one, one between others, and the last one."""
_MOST_COPIES = 32
"""So often a branch may be written: what stands beside one is written in each of its branches."""


class Standing(compat.Mark):
    """A scope that remembers where its equations stand."""


class Inside(Standing):
    """A scope that remembers the turn or the branch that was written out there.

    Attributes:
        outvars: what the loop, or the branch, makes.
        number: of the turn in order of execution, or of the branch.
    """

    outvars: tuple[Var, ...]
    number: int

    @classmethod
    def of(cls, eqn: Equation, number: int) -> "Inside":
        mark = cls("inside")
        mark.outvars, mark.number = tuple(eqn.outvars), number
        return mark


class Beside(Standing):
    """What an equation that stands outside of all loops and branches makes."""

    outvars: tuple[Var, ...]

    @classmethod
    def of(cls, eqn: Equation) -> "Beside":
        mark = cls("beside")
        mark.outvars = tuple(eqn.outvars)
        return mark


def look(closed_jaxpr: Any, bodies: Mapping[int, Callable[..., list[Any]]]) -> Any:
    """A function with loops and branches written out, in which every equation remembers where it
    stands.

    Args:
        closed_jaxpr: the function.
        bodies: by the `id` of a loop or branch, what is written in its place.
    """
    eqns = compat.open_jaxpr(closed_jaxpr).eqns
    told = [e if id(e) in bodies else compat.marked(e, Beside.of(e)) for e in eqns]
    outvars = compat.open_jaxpr(closed_jaxpr).outvars
    return splice(compat.with_equations(closed_jaxpr, told, outvars), bodies)


def is_map(eqn: Equation) -> bool:
    """Whether a loop carries nothing: its turns are examples of one batch."""
    return eqn.primitive is prim.SCAN and compat.scan_arity(eqn)[1] == 0


def written_out(
    eqn: Equation,
    calls: Sequence[str],
    turns: int | None = None,
    body: Any = None,
    told: bool = True,
) -> Callable[..., list[Any]]:
    """A `scan` as a function of its operands: all turns side by side, or one after another.

    Args:
        eqn: the loop.
        calls: globs of the names of called functions that stay whole.
        turns: how many turns, marked, for a look: where there are fewer the last one is repeated,
            where there are more their results are the last one's.
        body: an equal function of what a turn reads, which stands for the turn.
        told: whether turns for a look are marked.
    """
    length = eqn.params["length"]
    constants, carries = compat.scan_arity(eqn)
    body = body or compat.closed(eqn.params["jaxpr"])

    def one(number: int, values: Sequence[Any]) -> list[Any]:
        with scopes([Inside.of(eqn, number)] if told and turns is not None else []):
            return evaluate_inlined(body, values, calls)

    def of_examples(*operands: Any) -> list[Any]:
        held = operands[:constants]
        side_by_side = jax.vmap(lambda xs: one(0, [*held, *xs]), axis_size=length)
        return list(side_by_side(list(operands[constants:])))

    def in_turn(*operands: Any) -> list[Any]:
        held, carry = operands[:constants], list(operands[constants : constants + carries])
        made = []
        for number in range(length if turns is None else turns):
            place = min(number, length - 1)
            where = length - 1 - place if eqn.params["reverse"] else place
            outs = one(
                number, [*held, *carry, *(x[where] for x in operands[constants + carries :])]
            )
            carry = outs[:carries]
            made.append(outs[carries:])
        return [*carry, *(_stacked(ys[:length], length, eqn) for ys in zip(*made, strict=True))]

    def function(*operands: Any) -> list[Any]:
        with scopes(compat.around(eqn)):
            return (of_examples if is_map(eqn) else in_turn)(*operands)

    return function


def _stacked(ys: Sequence[jax.Array], length: int, eqn: Equation) -> jax.Array:
    rest = jnp.broadcast_to(ys[-1], (length - len(ys) + 1, *jnp.shape(ys[-1])))
    parts = [*(jnp.expand_dims(y, 0) for y in ys[:-1]), rest]
    return jnp.concatenate(parts[::-1] if eqn.params["reverse"] else parts)


def branch(
    eqn: Equation, calls: Sequence[str], number: int, body: Any = None, told: bool = True
) -> Callable[..., list[Any]]:
    """One branch of a `cond` in its place, as a function of the operands (see `written_out`)."""
    body = body or own_body(eqn, number)

    def function(index: Any, *operands: Any) -> list[Any]:
        with scopes([*compat.around(eqn), *([Inside.of(eqn, number)] if told else [])]):
            return evaluate_inlined(body, operands, calls)

    return function


def for_a_look(
    eqn: Equation, calls: Sequence[str], number: int, body: Any = None, told: bool = True
) -> Callable[..., list[Any]]:
    """Some turns of a loop, or one branch of a `cond`, in its place (see `written_out`)."""
    if eqn.primitive is prim.SCAN:
        return written_out(eqn, calls, _TURNS_SEEN, body, told)
    return branch(eqn, calls, number, body, told)


def entered(closed_jaxpr: Any, calls: Sequence[str], number: int) -> Any:
    """A body with all loops and branches inside of it written out, for a look.

    Args:
        closed_jaxpr: the body.
        calls: globs of the names of called functions that stay whole.
        number: of the branches.
    """
    flat = inline(closed_jaxpr, calls)
    eqns = compat.open_jaxpr(flat).eqns
    bodies = {}
    for eqn in eqns:
        if eqn.primitive in (prim.SCAN, prim.COND):
            inside = entered(own_body(eqn, number), calls, number)
            bodies[id(eqn)] = for_a_look(eqn, calls, number, inside, told=False)
    return splice(flat, bodies) if bodies else flat


def own_body(eqn: Equation, number: int) -> Any:
    """A turn of a loop, or a branch of a `cond`."""
    if eqn.primitive is prim.SCAN:
        return compat.closed(eqn.params["jaxpr"])
    branches = eqn.params["branches"]
    return compat.closed(branches[min(number, len(branches) - 1)])


def with_neighbours(
    closed_jaxpr: Any, eqn: Equation, beside: Collection[Var], calls: Sequence[str]
) -> Any | None:
    """The same function with equations beside a `cond` in its branches; None where that cannot be.

    Args:
        closed_jaxpr: the function.
        eqn: the `cond`.
        beside: what the equations make that every branch shall compute.
        calls: globs of the names of called functions that stay whole.
    """
    jaxpr = compat.open_jaxpr(closed_jaxpr)
    region = with_between(
        jaxpr.eqns, [e for e in jaxpr.eqns if e is eqn or any(v in beside for v in e.outvars)]
    )
    if math.prod(1 + _conds(e) for e in region) > _MOST_COPIES:
        return None
    later = set(eqn.outvars)
    before: list[Equation] = []
    after: list[Equation] = []
    for other in region:
        if other is eqn:
            continue
        follows = any(a in later for a in other.invars if not is_literal(a))
        (after if follows else before).append(other)
        later.update(other.outvars if follows else ())
    made = {v for e in region for v in e.outvars}
    read = dict.fromkeys(a for e in region for a in e.invars if not is_literal(a) and a not in made)
    read |= {a: None for a in eqn.invars[:1] if not is_literal(a)}  # what decides, made outside
    outside = [e for e in jaxpr.eqns if all(e is not r for r in (eqn, *after))]
    wanted = {a for e in outside for a in e.invars if not is_literal(a)}
    wanted |= {a for a in jaxpr.outvars if not is_literal(a)}
    results = [v for e in (eqn, *after) for v in e.outvars if v in wanted]

    def run(body: Any, *values: Any) -> list[Any]:
        env = dict(zip(read, values, strict=True))
        env.update(compat.evaluate(jaxpr, before, env))
        operands = [a.val if is_literal(a) else env[a] for a in eqn.invars[1:]]
        with scopes(compat.around(eqn)):
            outs = evaluate_inlined(compat.closed(body), operands, calls)
        env.update(zip(eqn.outvars, outs, strict=True))
        env.update(compat.evaluate(jaxpr, after, env))
        return [env[v] for v in results]

    def function(*values: Any) -> list[Any]:
        env = dict(zip(read, values, strict=True))
        index = eqn.invars[0].val if is_literal(eqn.invars[0]) else env[eqn.invars[0]]
        branches = [partial(run, body) for body in eqn.params["branches"]]
        return list(jax.lax.switch(jnp.asarray(index, jnp.int32), branches, *values))

    written = traced(function, list(read))
    return insert(closed_jaxpr, outside, written, list(read), results)


def _conds(eqn: Equation) -> int:
    """How many branchings an equation is or has inside."""
    bodies = bodies_of(eqn)
    jaxprs = [] if bodies is None else bodies.jaxprs
    return int(eqn.primitive is prim.COND) + sum(_conds(e) for j in jaxprs for e in j.eqns)


def with_between(eqns: Sequence[Equation], chosen: Sequence[Equation]) -> list[Equation]:
    """Some of all equations and what lies between two of them, in order."""
    after = {v for e in chosen for v in e.outvars}
    follows = set()
    for e in eqns:
        if any(a in after for a in e.invars if not is_literal(a)):
            follows.add(id(e))
            after.update(e.outvars)
    before = {a for e in chosen for a in e.invars if not is_literal(a)}
    found = {id(e) for e in chosen}
    for e in reversed(eqns):
        if any(v in before for v in e.outvars):
            before.update(a for a in e.invars if not is_literal(a))
            found |= {id(e)} & follows
    return [e for e in eqns if id(e) in found]
