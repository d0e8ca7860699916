"""What `jax.vmap` holds of the operands of a branch where another branch is chosen.

Of a `cond` that differs from example to example it makes a select of what all branches compute, and
hands a branch `where(m, x, stop_gradient(x))`, so that nothing comes back where another one is
chosen. Nothing does anyhow: what the branch makes is chosen by `m`.
"""

from collections.abc import Mapping
from typing import Any

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal

_STOP, _EQ = compat.primitive("stop_gradient"), compat.primitive("eq")
Choice = tuple[Any, int]
"""What decides among cases, and which of them is taken."""


def without_held_operands(closed_jaxpr: Any) -> Any:
    """The same function, branches that a batch chooses from given their operands themselves.

    Args:
        closed_jaxpr: a flat jaxpr.
    """
    jaxpr = compat.open_jaxpr(closed_jaxpr)
    makers = compat.makers(jaxpr)
    choices = {e.outvars[0]: own for e in jaxpr.eqns if (own := _held_elsewhere(e, makers))}
    if not choices:
        return closed_jaxpr
    readers: dict[Any, list[Equation | None]] = {}
    for eqn in jaxpr.eqns:
        for atom in dict.fromkeys(a for a in eqn.invars if not is_literal(a)):
            readers.setdefault(atom, []).append(eqn)
    for atom in (a for a in jaxpr.outvars if not is_literal(a)):
        readers.setdefault(atom, []).append(None)

    def ends(eqn: Equation, var: Var, choice: Choice) -> bool:
        """Whether an equation takes a value only where it was chosen before."""
        if eqn.primitive is not prim.SELECT or eqn.invars[0] is var:
            return False
        key, index = _decided_by(eqn.invars[0], makers)
        cases = [i for i, a in enumerate(eqn.invars[1:]) if a is var]
        return key is choice[0] and index is None and cases == [choice[1]]

    def is_chosen(var: Var, choice: Choice) -> bool:
        """Whether a value is read only where it was chosen, whatever is made of it."""
        todo, seen = [var], {var}
        while todo:
            var = todo.pop()
            for eqn in readers.get(var, ()):
                if eqn is None:
                    return False
                made = [v for v in eqn.outvars if v not in seen]
                if made and not ends(eqn, var, choice):
                    seen.update(made)
                    todo += made
        return True

    renamed = {v: x for v, (x, choice) in choices.items() if is_chosen(v, choice)}
    if not renamed:
        return closed_jaxpr

    def now(atom: Any) -> Any:
        while not is_literal(atom) and atom in renamed:
            atom = renamed[atom]
        return atom

    eqns = [
        e.replace(invars=list(map(now, e.invars)))
        for e in jaxpr.eqns
        if not any(v in renamed for v in e.outvars)
    ]
    return compat.with_equations(closed_jaxpr, eqns, list(map(now, jaxpr.outvars)))


def _held_elsewhere(eqn: Equation, makers: Mapping[Var, Equation]) -> tuple[Var, Choice] | None:
    """What a choice between a value and itself as a constant is, and where it is none."""
    if eqn.primitive is not prim.SELECT or len(eqn.invars) != 3 or is_literal(eqn.invars[0]):
        return None
    cases = eqn.invars[1:]
    for place, (own, other) in enumerate((cases, cases[::-1])):
        held = None if is_literal(other) else makers.get(other)
        if held is not None and held.primitive is _STOP and held.invars[0] is own:
            key, index = _decided_by(eqn.invars[0], makers)
            if index is None:
                return own, (key, place)
            return (own, (key, index)) if place else None
    return None


def _decided_by(mask: Any, makers: Mapping[Var, Equation]) -> tuple[Any, int | None]:
    """What a mask is in another shape and type, and the number that it is where the mask is true,
    if it is compared with one."""
    index = None
    while not is_literal(mask) and (eqn := makers.get(mask)) is not None:
        if eqn.primitive is _EQ and index is None and is_literal(eqn.invars[1]):
            index = int(eqn.invars[1].val)
        elif not prim.changes_no_number(eqn.primitive):
            break
        mask = eqn.invars[0]
    return mask, index
