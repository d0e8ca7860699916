"""Some equations of a jaxpr written in another way, all other variables as they are."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import jax

from . import compat, primitives as prim
from .compat import Equation, Var, is_literal
from .inside import bodies_of


def splice(closed_jaxpr: Any, others: Mapping[int, Callable[..., list[Any]]]) -> Any:
    """The same function with other equations in the place of some.

    Args:
        closed_jaxpr: a jaxpr.
        others: by the `id` of an equation, a function of the same operands with the same results.
    """
    jaxpr = compat.open_jaxpr(closed_jaxpr)
    constants = dict(zip(jaxpr.constvars, closed_jaxpr.consts, strict=True))
    renamed: dict[Var, Any] = {}
    eqns: list[Equation] = []

    def now(atom: Any) -> Any:
        return atom if is_literal(atom) else renamed.get(atom, atom)

    for eqn in jaxpr.eqns:
        operands = [now(a) for a in eqn.invars]
        other = others.get(id(eqn))
        if other is None:
            moved = any(a is not b for a, b in zip(operands, eqn.invars, strict=True))
            eqns.append(eqn.replace(invars=operands) if moved else eqn)
            continue
        written, values = traced(other, operands)
        own = dict(zip(written.invars, (a for a in operands if not is_literal(a)), strict=True))
        constants.update(zip(written.constvars, values, strict=True))
        for inner in written.eqns:
            invars = [a if is_literal(a) else own.get(a, a) for a in inner.invars]
            eqns.append(inner.replace(invars=invars))
        for var, atom in zip(eqn.outvars, written.outvars, strict=True):
            renamed[var] = atom if is_literal(atom) else own.get(atom, atom)
    return compat.rewritten(closed_jaxpr, constants, list(map(now, jaxpr.outvars)), eqns)


def without_derivative(closed_jaxpr: Any, stopped: Collection[Any]) -> Any:
    """The same function with the results of some primitives as constants, in its bodies too.

    Args:
        closed_jaxpr: a jaxpr.
        stopped: the primitives.
    """
    jaxpr = compat.open_jaxpr(closed_jaxpr)
    eqns, others = [], {}

    def held(eqn: Equation, *operands: Any) -> list[Any]:
        return [jax.lax.stop_gradient(eqn.primitive.bind(*operands, **eqn.params))]

    for eqn in jaxpr.eqns:
        body = eqn.params.get("jaxpr")
        enters = eqn.primitive in (prim.SCAN, prim.REMAT) or compat.plain_call(eqn) is not None
        if enters and body is not None:
            inner = without_derivative(compat.closed(body), stopped)
            inner = inner if hasattr(body, "consts") else compat.open_jaxpr(inner)
            eqn = eqn.replace(params={**eqn.params, "jaxpr": inner})
        elif eqn.primitive in stopped:
            others[id(eqn)] = partial(held, eqn)
        eqns.append(eqn)
    return splice(compat.with_equations(closed_jaxpr, eqns, jaxpr.outvars), others)


def has_own_derivative(jaxpr: Any) -> bool:
    """Whether a function calls one whose derivative its author wrote, in its bodies too."""
    for eqn in jaxpr.eqns:
        if compat.custom_call(eqn) is not None:
            return True
        bodies = bodies_of(eqn)
        if bodies is not None and any(map(has_own_derivative, bodies.jaxprs)):
            return True
    return False


def insert(
    closed_jaxpr: Any,
    kept: Sequence[Equation],
    written: tuple[Any, Any],
    inputs: Sequence[Var],
    outputs: Sequence[Var],
) -> Any | None:
    """Some equations of a jaxpr with one piece in the place of the others; None for a circle.

    Args:
        closed_jaxpr: the jaxpr.
        kept: its equations that stay.
        written: the piece, as `traced` makes it.
        inputs: what the piece reads.
        outputs: what it makes.
    """
    jaxpr = compat.open_jaxpr(closed_jaxpr)
    piece, values = written
    constants = dict(zip(jaxpr.constvars, closed_jaxpr.consts, strict=True))
    constants.update(zip(piece.constvars, values, strict=True))
    own = dict(zip(piece.invars, inputs, strict=True))
    inner = [
        e.replace(invars=[a if is_literal(a) else own.get(a, a) for a in e.invars])
        for e in piece.eqns
    ]
    renamed = {
        var: atom if is_literal(atom) else own.get(atom, atom)
        for var, atom in zip(outputs, piece.outvars, strict=True)
    }

    def now(atom: Any) -> Any:
        return atom if is_literal(atom) else renamed.get(atom, atom)

    pending = [*inner, *(e.replace(invars=list(map(now, e.invars))) for e in kept)]
    made = {v for e in pending for v in e.outvars}
    ready = {*constants, *jaxpr.invars}
    order: list[Equation] = []
    while pending:  # as written, and what waits for something after that
        waiting = []
        for eqn in pending:
            missing = [a for a in eqn.invars if not is_literal(a) and a in made and a not in ready]
            if missing:
                waiting.append(eqn)
            else:
                order.append(eqn)
                ready.update(eqn.outvars)
        if len(waiting) == len(pending):
            return None
        pending = waiting
    return compat.rewritten(closed_jaxpr, constants, list(map(now, jaxpr.outvars)), order)


def traced(function: Callable[..., list[Any]], operands: Sequence[Any]) -> tuple[Any, Any]:
    """A function of some operands, literals as they are, as a jaxpr and its constants."""

    def of_variables(*values: Any) -> list[Any]:
        given = iter(values)
        return function(*(a.val if is_literal(a) else next(given) for a in operands))

    variables = [a for a in operands if not is_literal(a)]
    closed_jaxpr = compat.traced_on(of_variables, variables)
    return compat.open_jaxpr(closed_jaxpr), closed_jaxpr.consts


def tidied(closed_jaxpr: Any) -> Any:
    """The same function without moves that the next ones undo: changes of shape, parts of what was
    put side by side or is a part itself, and what is overwritten as a whole.

    Args:
        closed_jaxpr: a jaxpr.
    """
    jaxpr = compat.open_jaxpr(closed_jaxpr)
    renamed: dict[Var, Var] = {}
    origins: dict[Var, list[Var]] = {}
    joined: dict[Var, Equation] = {}
    eqns: list[Equation] = []

    def now(atom: Any) -> Any:
        return atom if is_literal(atom) else renamed.get(atom, atom)

    for eqn in map(_as_plain_slice, jaxpr.eqns):
        operands = list(map(now, eqn.invars))
        moved = any(a is not b for a, b in zip(operands, eqn.invars, strict=True))
        while eqn.primitive is _SLICE and (part := _part_of(eqn, joined.get(operands[0]))):
            eqn, moved = part, False
            operands = list(part.invars)
        if (written := _all_that_is_written(eqn)) is not None:
            renamed[eqn.outvars[0]] = operands[written]
            continue
        if eqn.primitive in (_CONCATENATE, _SLICE):
            joined[eqn.outvars[0]] = eqn.replace(invars=operands)
        if _keeps_order(eqn):
            (out,) = eqn.outvars
            above = [*origins.get(operands[0], []), operands[0]]
            same = next((v for v in above if v.aval == out.aval), None)
            if same is not None:
                renamed[out] = same
                continue
            origins[out] = above
        eqns.append(eqn.replace(invars=operands) if moved else eqn)
    if not renamed and all(a is b for a, b in zip(eqns, jaxpr.eqns, strict=True)):
        return closed_jaxpr
    constants = dict(zip(jaxpr.constvars, closed_jaxpr.consts, strict=True))
    return compat.rewritten(closed_jaxpr, constants, list(map(now, jaxpr.outvars)), eqns)


def _all_that_is_written(eqn: Equation) -> int | None:
    """The position of an operand that an equation writes over all of another one."""
    if eqn.primitive is _UPDATE_SLICE:
        position = 1
    elif eqn.primitive is _SCATTER and not eqn.invars[1].aval.size:  # no index that lies outside
        position = 2
    else:
        return None
    atom = eqn.invars[position]
    whole = not is_literal(atom) and atom.aval == eqn.outvars[0].aval
    return position if whole else None


def _as_plain_slice(eqn: Equation) -> Equation:
    """A slice without strides, also a dynamic one that starts at numbers of the code; or any other
    equation as it is."""
    if eqn.primitive is _SLICE and set(eqn.params["strides"] or ()) == {1}:
        return eqn.replace(params={**eqn.params, "strides": None})
    if eqn.primitive is not _DYNAMIC_SLICE or not all(map(is_literal, eqn.invars[1:])):
        return eqn
    (operand, *starts), sizes = eqn.invars, eqn.params["slice_sizes"]
    room = [n - size for n, size in zip(operand.aval.shape, sizes, strict=True)]
    low = tuple(min(max(int(a.val), 0), n) for a, n in zip(starts, room, strict=True))
    high = tuple(a + size for a, size in zip(low, sizes, strict=True))
    params = {"start_indices": low, "limit_indices": high, "strides": None}
    return eqn.replace(primitive=_SLICE, invars=[operand], params=params)


def _part_of(eqn: Equation, joined: Equation | None) -> Equation | None:
    """A slice of arrays side by side as a slice of the one that it lies in, and of a slice as one
    of what that is cut from; None for several."""
    if joined is None:
        return None
    if joined.primitive is _SLICE:
        if joined.params["strides"] or eqn.params["strides"]:
            return None
        start = joined.params["start_indices"]
        bounds = {
            name: tuple(a + b for a, b in zip(eqn.params[name], start, strict=True))
            for name in ("start_indices", "limit_indices")
        }
        return eqn.replace(invars=joined.invars, params={**eqn.params, **bounds})
    axis, begin = joined.params["dimension"], 0
    low, high = (list(eqn.params[name]) for name in ("start_indices", "limit_indices"))
    for operand in joined.invars:
        end = begin + operand.aval.shape[axis]
        if begin <= low[axis] and high[axis] <= end and not is_literal(operand):
            low[axis], high[axis] = low[axis] - begin, high[axis] - begin
            params = {**eqn.params, "start_indices": tuple(low), "limit_indices": tuple(high)}
            return eqn.replace(invars=[operand], params=params)
        begin = end
    return None


def _keeps_order(eqn: Equation) -> bool:
    """Whether an equation changes the shape of its operand and neither its numbers nor order."""
    if len(eqn.invars) != 1 or len(eqn.outvars) != 1 or is_literal(eqn.invars[0]):
        return False
    if eqn.primitive is _SQUEEZE:
        return True
    if eqn.primitive is _RESHAPE:
        return eqn.params["dimensions"] is None
    before, after = eqn.invars[0].aval, eqn.outvars[0].aval
    if eqn.primitive is prim.BROADCAST:
        axes = list(eqn.params["broadcast_dimensions"])
        return bool(before.size == after.size) and axes == sorted(axes)
    return eqn.primitive is _SLICE and bool(before.shape == after.shape)


_SLICE, _SQUEEZE, _RESHAPE, _CONCATENATE = (
    compat.primitive(name) for name in ("slice", "squeeze", "reshape", "concatenate")
)
_DYNAMIC_SLICE, _UPDATE_SLICE, _SCATTER = (
    compat.primitive(name) for name in ("dynamic_slice", "dynamic_update_slice", "scatter")
)
