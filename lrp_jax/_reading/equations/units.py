"""Axes of one that are there for a while: `squeeze(f(x[None]))` is `f(x)`.

`jax.vmap` of one example makes them, and `lax.map` over examples that are batches of one. Layers
are recognised by shapes, so what stands between such axes and their end is computed without them.
"""

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from itertools import islice
from math import prod
from typing import Any, NamedTuple

import jax

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.otherwise import Read, computed_otherwise
from ..._analysis.primitives import POINTWISE, Family, family, is_reduction

Bare = Callable[[Read, Read], Any]
"""A value in the shape that it has otherwise, from a function that reads variables, and one that
reads variables in that shape."""


class Spread(NamedTuple):
    """A variable as another value with more axes of one.

    Attributes:
        axes: those of the variable's axes.
        bare: the value without them.
    """

    axes: tuple[int, ...]
    bare: Bare


def without_passing_axes(closed_jaxpr: Any) -> Any:
    """The same function without axes of one that are added and taken away again.

    Args:
        closed_jaxpr: a flat jaxpr.
    """
    jaxpr = compat.open_jaxpr(closed_jaxpr)
    spread: dict[Var, Spread] = {}
    ended: dict[int, Spread] = {}
    starts: set[Var] = set()
    for eqn in jaxpr.eqns:
        found = _kept(eqn, spread)
        if found is None and (found := _added(eqn)) is not None:
            starts.add(eqn.outvars[0])
        if found is not None and found.axes:
            spread[eqn.outvars[0]] = found
        elif found is not None:
            ended[id(eqn)] = found
    if not ended:
        return closed_jaxpr

    def back(var: Var, value: Any) -> Any:
        kept = [i for i in range(var.aval.ndim) if i not in spread[var].axes]
        return jax.lax.broadcast_in_dim(value, var.aval.shape, kept)

    bare = {v: s.bare for v, s in spread.items()}
    ends = {i: s.bare for i, s in ended.items()}
    return computed_bare(closed_jaxpr, bare, ends, starts, back)


def computed_bare(
    closed_jaxpr: Any,
    bare: Mapping[Var, Bare],
    ended: Mapping[int, Bare],
    starts: Collection[Var],
    back: Callable[[Var, Any], Any],
) -> Any:
    """The same function with some variables computed in another shape.

    Args:
        closed_jaxpr: a flat jaxpr.
        bare: variables that can be.
        ended: by `id`, equations that make what they make of such variables.
        starts: where the other shape begins.
        back: the value of a variable, from that in the other shape.
    """
    bared = _bared(compat.open_jaxpr(closed_jaxpr).eqns, bare.keys(), ended.keys(), starts)
    found: dict[Var, Any] = {}

    def is_other(eqn: Equation) -> bool:
        return id(eqn) in ended or any(v in bared and v not in starts for v in eqn.outvars)

    def way(eqn: Equation, read: Read) -> Any:
        def read_bare(var: Var) -> Any:
            if var not in found:  # nothing is computed twice
                found[var] = bare[var](read, read_bare)
            return found[var]

        out, end = eqn.outvars[0], ended.get(id(eqn))
        return end(read, read_bare) if end else back(out, read_bare(out))

    return compat.without_unused(computed_otherwise(closed_jaxpr, is_other, way))


def _bared(
    eqns: Sequence[Equation], spread: Set[Var], ended: Set[int], starts: Collection[Var]
) -> set[Var]:
    """The variables that are computed in another shape, on the way to where it ends."""
    found: set[Var] = set()
    for eqn in reversed(eqns):
        if id(eqn) in ended or any(v in found and v not in starts for v in eqn.outvars):
            found.update(a for a in eqn.invars if not is_literal(a) and a in spread)
    return found


def _added(eqn: Equation) -> Spread | None:
    """What only adds axes of one."""
    if eqn.primitive is not prim.BROADCAST or is_literal(eqn.invars[0]):
        return None
    operand, out = eqn.invars[0], eqn.outvars[0].aval
    axes = [int(i) for i in eqn.params["broadcast_dimensions"]]
    if not operand.aval.shape or operand.aval.size != out.size or axes != sorted(axes):
        return None
    added = tuple(i for i in range(len(out.shape)) if i not in axes)
    return Spread(added, lambda read, bare: read(operand)) if added else None


def _kept(eqn: Equation, spread: Mapping[Var, Spread]) -> Spread | None:
    """What does the same to a value with more axes of one, or takes such axes away."""
    operands = [a for a in eqn.invars if not is_literal(a) and a in spread]
    if not operands or len(eqn.outvars) != 1:
        return None
    (value, *_), (out,) = operands, eqn.outvars
    axes = spread[value].axes
    if family(eqn.primitive) in (*POINTWISE, Family.DETACH) or eqn.primitive is prim.SELECT:
        return _number_by_number(eqn, spread, axes)
    left = [i for i in range(len(value.aval.shape)) if i not in axes]
    if eqn.primitive is prim.REDUCE_SUM or is_reduction(eqn):
        reduced = set(eqn.params["axes"])
        if reduced & {*axes}:
            return None
        inner = tuple(i for i, axis in enumerate(left) if axis in reduced)
        kept = tuple(axis - sum(r < axis for r in reduced) for axis in axes)
        return Spread(kept, lambda read, bare: compat.applied(eqn, bare(value), axes=inner))
    if eqn.primitive is prim.BROADCAST:
        to = [int(i) for i in eqn.params["broadcast_dimensions"]]
        gone = tuple(to[i] for i in axes)
        if any(out.aval.shape[i] > 1 for i in gone):
            return None
        rest = [i for i in range(len(out.aval.shape)) if i not in gone]
        shape, places = [out.aval.shape[i] for i in rest], [rest.index(to[i]) for i in left]
        return Spread(gone, lambda read, bare: jax.lax.broadcast_in_dim(bare(value), shape, places))
    if eqn.primitive is _SQUEEZE:
        taken = {int(i) for i in eqn.params["dimensions"]}
        own = [i for i, axis in enumerate(left) if axis in taken]
        kept = tuple(axis - sum(t < axis for t in taken) for axis in axes if axis not in taken)
        return Spread(kept, lambda read, bare: jax.lax.squeeze(bare(value), own))
    if eqn.primitive is _SLICE and out.aval.size:
        cut: Any = {
            name: end and [end[i] for i in left]
            for name, end in eqn.params.items()  # from where to where, and in which steps
        }
        return Spread(axes, lambda read, bare: jax.lax.slice(bare(value), **cut))
    if eqn.primitive is _RESHAPE and eqn.params["dimensions"] is None:
        return _reshaped(value, axes, out.aval.shape)
    return None


def _reshaped(value: Var, axes: tuple[int, ...], shape: tuple[int, ...]) -> Spread | None:
    """A reshape that has the axes of one where they were, or nowhere."""
    before = value.aval.shape
    rest = tuple(n for i, n in enumerate(before) if i not in axes)
    if shape == rest:
        return Spread((), lambda read, bare: bare(value))
    kept: list[int] = []
    for axis in axes:
        places = (
            i
            for i, n in enumerate(shape)
            if n == 1 and i not in kept and prod(shape[:i]) == prod(before[:axis])
        )
        kept += list(islice(places, 1))
    if len(kept) < len(axes):
        return None
    others = [n for i, n in enumerate(shape) if i not in kept]
    return Spread(tuple(sorted(kept)), lambda read, bare: jax.lax.reshape(bare(value), others))


def _number_by_number(
    eqn: Equation, spread: Mapping[Var, Spread], axes: tuple[int, ...]
) -> Spread | None:
    shape = eqn.outvars[0].aval.shape
    rank = len(shape)
    if any(shape[i] > 1 for i in axes):
        return None
    for atom in eqn.invars:
        own = axes if is_literal(atom) or atom not in spread else spread[atom].axes
        if own != axes or len(atom.aval.shape) not in (0, rank):
            return None

    def computed(read: Read, bare: Read) -> Any:
        def operand(atom: Any) -> Any:
            if not is_literal(atom) and atom in spread:
                return bare(atom)
            return jax.lax.squeeze(read(atom), axes) if atom.aval.shape else read(atom)

        return compat.applied(eqn, *map(operand, eqn.invars))

    return Spread(axes, computed)


_SQUEEZE, _RESHAPE = compat.primitive("squeeze"), compat.primitive("reshape")
_SLICE = compat.primitive("slice")
