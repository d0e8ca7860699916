"""Maps over one device: what devices would tell each other is what the one has."""

from typing import Any

from . import compat
from .compat import Equation, Var, is_literal
from .primitives import Family, family

_UNCHANGED = compat.primitives("psum pmax pmin ppermute pcast all_gather all_to_all")


class _Unknown(Exception):
    """Devices tell each other what nobody here understands."""


def is_alone(eqn: Equation) -> bool:
    """Whether an equation is a `shard_map` over one device that can be opened."""
    if family(eqn.primitive) is not Family.CONTROL or "mesh" not in eqn.params:
        return False
    try:
        return eqn.params["mesh"].size == 1 and on_one_device(eqn) is not None
    except _Unknown:
        return False


def on_one_device(eqn: Equation) -> Any:
    """The body of a `shard_map` over one device, for use without it."""
    return _alone(compat.closed(eqn.params["jaxpr"]), eqn.ctx)


def _alone(closed_jaxpr: Any, around: Any) -> Any:
    """A body as it stands outside, in the context that is `around` it: its own has the devices."""
    jaxpr = compat.open_jaxpr(closed_jaxpr)
    known: dict[Var, Any] = {}

    def now(atom: Any) -> Any:
        if is_literal(atom) or compat.is_dropped(atom):
            return atom
        if atom not in known:
            known[atom] = compat.of_one_device(atom)
        return known[atom]

    def inside(value: Any) -> Any:
        if type(value) is tuple:
            return tuple(map(inside, value))
        return _alone(value, around) if hasattr(compat.open_jaxpr(value), "eqns") else value

    eqns = []
    for eqn in jaxpr.eqns:
        if _speaks(eqn):
            if not _keeps(eqn):
                raise _Unknown
            known.update(zip(eqn.outvars, map(now, eqn.invars), strict=True))
            continue
        params = {name: inside(value) for name, value in eqn.params.items()}
        operands, results = list(map(now, eqn.invars)), list(map(now, eqn.outvars))
        eqns.append(eqn.replace(invars=operands, outvars=results, params=params, ctx=around))
    variables = {
        name: list(map(now, getattr(jaxpr, name))) for name in ("constvars", "invars", "outvars")
    }
    bare = jaxpr.replace(eqns=eqns, **variables)
    return bare if jaxpr is closed_jaxpr else closed_jaxpr.replace(jaxpr=bare)


def _speaks(eqn: Equation) -> bool:
    """Whether an equation speaks of the devices."""
    axes = eqn.params.get("axes", eqn.params.get("axis_name", ()))
    axes = axes if isinstance(axes, tuple) else (axes,)
    return any(isinstance(axis, str) for axis in axes)


def _keeps(eqn: Equation) -> bool:
    """Whether an equation that speaks of the devices makes what it reads, where there is one."""
    unnamed = compat.unnamed_primitives()
    known = eqn.primitive in (*_UNCHANGED, unnamed["psum"], unnamed["vary"])
    return known and bool(eqn.params.get("tiled", True))
