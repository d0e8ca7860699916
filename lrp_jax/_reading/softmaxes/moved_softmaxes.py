"""Parts of softmaxes that are normalised again: p[i] / p[i].sum() is a softmax of s[i].

Routers take the largest of all probabilities and divide them by their sum. An exponential of what
was moved is the moved exponential, so a quotient of exponentials is moved piece by piece.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.factors import link, power_of
from ..._analysis.graph import Graph
from ..._analysis.indices import known_in
from ..._analysis.places import CUTS, Place, itself, made_by
from ..._analysis.primitives import Family, family
from .picks import Picked, maker_of, picked_by, placed

Read = Callable[[Var], Any]
_CONCATENATE = compat.primitive("concatenate")


def moved_softmaxes(graph: Graph, same: Mapping[Var, Var]) -> Mapping[int, Callable[[Read], Any]]:
    """How parts of softmaxes that are divided by their own sum are made of parts of the logits, by
    the `id` of the equations that pick them.

    Args:
        graph: a graph.
        same: for each variable the first one that is computed in the same way.
    """
    if not any(e.primitive is prim.EXP and graph.is_live(e) for e in graph.eqns):
        return {}
    known = known_in(graph)
    places: dict[Var, Place] = {}
    found: dict[int, Callable[[Read], Any]] = {}
    for eqn in graph.eqns:
        if not graph.is_live(eqn):
            continue
        (out, *_) = eqn.outvars
        joined = _side_by_side(eqn, graph, same)
        if joined is not None and _divides(out, graph):
            found[id(eqn)] = joined
            continue
        place = made_by(eqn, known, lambda v: places.get(v) or itself(same.get(v, v)))
        if place is None:
            picked = picked_by(eqn, graph, known)
        else:
            places[out] = place
            picked = placed(place) if eqn.primitive in CUTS else None
        if picked is None or not _is_of_exponentials(picked.var, picked.axis, graph):
            continue
        if _divides(out, graph):
            found[id(eqn)] = _way(picked, out, graph)
    return found


def _way(picked: Picked, out: Var, graph: Graph) -> Callable[[Read], Any]:
    return lambda read: _Picking(picked, out.aval.shape, graph, read).moved(picked.var)


def _side_by_side(
    eqn: Equation, graph: Graph, same: Mapping[Var, Var]
) -> Callable[[Read], Any] | None:
    """How exponentials, perhaps over one sum, are put side by side as their logits."""
    if eqn.primitive is not _CONCATENATE:
        return None
    pieces = [_piece(atom, graph, same) for atom in eqn.invars]
    whole = [piece for piece in pieces if piece is not None]
    if len(whole) < len(pieces) or len({piece.divisor for piece in whole}) > 1:
        return None

    def moved(read: Read) -> Any:
        e = jnp.exp(
            eqn.primitive.bind(*(_along(p.links, read(p.logits)) for p in whole), **eqn.params)
        )
        first = whole[0]
        return e if first.divisor is None else e / _along(first.links, read(first.divisor))

    return moved


class _Piece(NamedTuple):
    """What is put beside others: links, and below them an exponential, perhaps divided."""

    links: list[Equation]
    logits: Var
    divisor: Var | None


def _piece(atom: Any, graph: Graph, same: Mapping[Var, Var]) -> _Piece | None:
    links: list[Equation] = []
    divisor: Var | None = None
    while (eqn := maker_of(atom, graph)) is not None and atom in graph.live:
        if eqn.primitive is prim.EXP:
            return _Piece(links, eqn.invars[0], divisor)
        if eqn.primitive is prim.DIV and graph.explained_operands(eqn) == [0, 1]:
            if divisor is not None or eqn.invars[0].aval.shape != eqn.invars[1].aval.shape:
                return None
            divisor = same.get(eqn.invars[1], eqn.invars[1])
        elif link(eqn) is None or (divisor is not None and eqn.primitive is not prim.KEEP):
            return None
        else:
            links.insert(0, eqn)
        atom = eqn.invars[0]
    return None


def _along(links: list[Equation], value: Any) -> Any:
    """A value through casts and changes of shape."""
    for eqn in links:
        value = value if eqn.primitive is prim.KEEP else compat.applied(eqn, value)
    return value


# -- what it is picked of -------------------------------------------------------------------------


def _is_of_exponentials(var: Var, axis: int, graph: Graph) -> bool:
    """Whether a variable is an exponential, perhaps divided by what is one along an axis."""
    while (eqn := maker_of(var, graph)) is not None:
        if eqn.primitive is prim.EXP:
            return True
        operands = graph.explained_operands(eqn)
        if operands == [0, 1]:
            passes = eqn.primitive is prim.DIV and _is_one(eqn.invars[1], axis, graph)
        else:
            passes = operands == [0] and _goes_through(eqn)
        if not passes:
            return False
        var = eqn.invars[0]
    return False


def _goes_through(eqn: Equation) -> bool:
    """Whether an equation scales or masks by constants, in its place."""
    scales = eqn.primitive in (prim.MUL, prim.DIV)
    return family(eqn.primitive) is Family.NEUTRAL or scales


def _is_one(atom: Any, axis: int, graph: Graph) -> bool:
    """Whether a value is the same along an axis."""
    if is_literal(atom) or not atom.aval.shape or atom.aval.shape[axis] == 1:
        return True
    eqn = graph.maker.get(atom)
    if eqn is None or eqn.primitive is not prim.BROADCAST:
        return False
    where = list(eqn.params["broadcast_dimensions"])
    return axis not in where or eqn.invars[0].aval.shape[where.index(axis)] == 1


class _Picking(NamedTuple):
    """How what is picked of a value is made in the way that exponentials and quotients are."""

    picked: Picked
    shape: tuple[int, ...]
    graph: Graph
    read: Read

    def moved(self, atom: Any) -> Any:
        """What is picked of a value."""
        if is_literal(atom):
            return atom.val
        if _is_one(atom, self.picked.axis, self.graph):
            return self._spread(atom)
        eqn = self.graph.maker.get(atom) if atom in self.graph.live else None
        if eqn is not None and eqn.primitive is prim.EXP:
            return jnp.exp(self._shifted(eqn.invars[0]))
        if eqn is not None and _goes_through(eqn):
            return compat.applied(eqn, *map(self.moved, eqn.invars))
        return self._of(atom)

    def _shifted(self, atom: Any) -> Any:
        """What is picked of logits, shifted as they are."""
        eqn = maker_of(atom, self.graph)
        shifts = eqn is not None and eqn.primitive is prim.SUB and not is_literal(eqn.invars[1])
        if eqn is None or not shifts or not _is_one(eqn.invars[1], self.picked.axis, self.graph):
            return self._of(atom)
        return self._shifted(eqn.invars[0]) - self._spread(eqn.invars[1])

    def _of(self, atom: Var) -> Any:
        value = jnp.broadcast_to(self.read(atom), self.picked.var.aval.shape)
        return self.picked.of(value, self.read)

    def _spread(self, atom: Any) -> Any:
        """A value that is one along the axis, spread out as what is picked."""
        where = list(range(len(atom.aval.shape)))
        if where and atom.aval.shape[self.picked.axis] > 1:
            eqn = self.graph.maker[atom]
            where, atom = list(eqn.params["broadcast_dimensions"]), eqn.invars[0]
        value = jnp.asarray(atom.val if is_literal(atom) else self.read(atom))
        there = [self.picked.axes.index(where[i]) for i, n in enumerate(value.shape) if n > 1]
        value = jax.lax.squeeze(value, [i for i, n in enumerate(value.shape) if n == 1])
        value = jax.lax.transpose(value, sorted(range(len(there)), key=lambda k: there[k]))
        return jax.lax.broadcast_in_dim(value, self.shape, sorted(there))


# -- whether it is normalised again ---------------------------------------------------------------


def _divides(var: Var, graph: Graph) -> bool:
    """Whether a variable is in a product or a quotient, and something is divided by a sum of it."""
    seen: set[tuple[Var, bool]] = set()
    todo = [(var, False)]
    divides = multiplied = False
    while todo:
        var, summed = todo.pop()
        if (var, summed) in seen:
            continue
        seen.add((var, summed))
        for eqn in graph.readers.get(var, ()):
            if eqn is None or not graph.is_live(eqn) or len(eqn.outvars) != 1:
                continue
            operands = graph.explained_operands(eqn)
            power = power_of(eqn)
            below = eqn.primitive is prim.DIV and eqn.invars[1] is var
            divides = divides or (summed and (below or (power is not None and power < 0)))
            several = len(operands) == 2 and eqn.primitive in (prim.MUL, prim.DIV, prim.DOT)
            multiplied = multiplied or (several and not below and not summed)
            adds = eqn.primitive is prim.REDUCE_SUM
            adds = adds or (eqn.primitive in prim.ADD and len(operands) == 2)
            scales = eqn.primitive in (*prim.SUMS, prim.MUL, prim.DIV) and len(operands) == 1
            moves = link(eqn) is not None or eqn.primitive in CUTS
            if adds or moves or (scales and not below):
                todo.append((eqn.outvars[0], summed or adds))
    return divides and multiplied
