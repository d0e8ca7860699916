"""Some equations of a jaxpr computed in another way, from any variables before them.

Only what is written in another way is traced; all other equations are taken as they are.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from . import compat
from .compat import Equation, Var, is_literal
from .trace import in_place_of, inline

Read = Callable[[Any], Any]


def computed_otherwise(
    closed_jaxpr: Any,
    is_other: Callable[[Equation], bool],
    way: Callable[[Equation, Read], Any],
    calls: Sequence[str] = (),
) -> Any:
    """The same function with some equations computed in another way.

    Args:
        closed_jaxpr: a flat jaxpr.
        is_other: which equations may be, asked when all before them are computed or left.
        way: from such an equation, and a function that reads variables, to its result; None where
            it stays as it is. It may read the equation's own result too.
        calls: globs of the names of called functions that stay whole.
    """
    jaxpr = compat.open_jaxpr(closed_jaxpr)
    made: dict[Var, Any] = {}
    read: dict[Var, Any] = {}

    def value_of(atom: Any) -> Any:
        if is_literal(atom):
            return atom.val
        if atom in made:
            return made[atom]
        if atom not in read:
            read[atom] = compat.value_of(atom)
        return read[atom]

    def others() -> list[Any]:
        for eqn in jaxpr.eqns:
            if is_other(eqn):
                with in_place_of(eqn):
                    value = way(eqn, value_of)
                if value is not None:
                    made[eqn.outvars[0]] = value
        return [*made.values()]

    written = inline(jax.make_jaxpr(others)(), calls)
    piece = compat.open_jaxpr(written)
    outer = {e.outvars[0]: v for e in piece.eqns if (v := compat.is_value_of(e)) is not None}
    ends = dict(zip(made, piece.outvars, strict=True))
    position = {v: i for i, e in enumerate(piece.eqns) for v in e.outvars}
    renamed: dict[Var, Any] = {}
    eqns: list[Equation] = []

    def add(eqn: Equation, names: dict[Var, Any]) -> None:
        operands = [a if is_literal(a) else names.get(a, a) for a in eqn.invars]
        moved = any(a is not b for a, b in zip(operands, eqn.invars, strict=True))
        eqns.append(eqn.replace(invars=operands) if moved else eqn)

    done = 0
    for eqn in jaxpr.eqns:
        out = eqn.outvars[0] if eqn.outvars else None
        if out not in ends or out in read:
            add(eqn, renamed)
        if out in ends:
            end = ends[out]
            last = -1 if is_literal(end) else position.get(end, -1)
            for inner in piece.eqns[done : last + 1]:
                if inner.outvars[0] not in outer:
                    add(inner, outer)
            done = max(done, last + 1)
            renamed[out] = end if is_literal(end) else outer.get(end, end)
    constants = dict(zip(jaxpr.constvars, closed_jaxpr.consts, strict=True))
    constants.update(zip(piece.constvars, written.consts, strict=True))
    outvars = [a if is_literal(a) else renamed.get(a, a) for a in jaxpr.outvars]
    return compat.rewritten(closed_jaxpr, constants, outvars, eqns)
