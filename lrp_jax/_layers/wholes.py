"""Parts of norms and softmaxes: `exp(s[0]) / exp(s).sum()` is `softmax(s)[0]`.

A part that is divided by a statistic of the whole is a part of the whole divided by it. So what is
written for one number, or one column after another, is read as the layer that it is a part of.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from .._analysis import compat, primitives as prim
from .._analysis.compat import Equation, Var, is_literal
from .._analysis.graph import Graph
from .._analysis.monomials import link
from .._analysis.primitives import Family, family
from .normalization import is_statistic

Read = Callable[[Var], Any]
_SLICE, _SQUEEZE = compat.primitive("slice"), compat.primitive("squeeze")


class Part(NamedTuple):
    """A variable as moves of a larger one.

    Attributes:
        whole: computes the larger one.
        like: the variable of the graph that it is, or is an affine function of.
        moves: slices and axes that are dropped, in order.
        axes: the axis of the whole that each axis of the part is.
        cut: the axes of the whole of which the part has less.
        changed: whether a statistic of the whole, or a logarithm, was moved into it.
    """

    whole: Callable[[Read], Any]
    like: Var
    moves: tuple[Equation, ...]
    axes: tuple[int, ...]
    cut: frozenset[int]
    changed: bool = False


def wholes(graph: Graph, same: Mapping[Var, Var]) -> dict[int, Callable[[Read], Any]]:
    """How parts are computed of their wholes, by the `id` of the equations that make them.

    Args:
        graph: a graph.
        same: for each variable the first one that is computed in the same way.
    """
    parts: dict[Var, Part] = {}
    found: dict[int, Callable[[Read], Any]] = {}
    exponentials = {
        same.get(e.invars[0], e.invars[0]): e.outvars[0]
        for e in graph.eqns
        if e.primitive is prim.EXP and not is_literal(e.invars[0])
    }
    for eqn in graph.eqns:
        if not graph.is_live(eqn) or len(eqn.outvars) != 1:
            continue
        part = _part(eqn, parts, exponentials, graph, same)
        if part is None:
            continue
        (out,) = eqn.outvars
        parts[out] = part
        is_made = graph.position[part.like] < graph.position[out]
        if part.changed and is_made and eqn.primitive not in (_SLICE, _SQUEEZE):
            found[id(eqn)] = _moved(part)
    return found


def _moved(part: Part) -> Callable[[Read], Any]:
    def way(read: Read) -> Any:
        value = part.whole(read)
        for move in part.moves:
            value = move.primitive.bind(value, **move.params)
        return value

    return way


def _part(
    eqn: Equation, parts: Mapping[Var, Part], exponentials: Mapping[Var, Var], graph: Graph,
    same: Mapping[Var, Var],
) -> Part | None:  # fmt: skip
    """What an equation makes as a part of something, if it is one."""
    operands = graph.explained_operands(eqn)
    (first, *_), primitive = eqn.invars, eqn.primitive
    part = None if is_literal(first) else parts.get(first)
    if primitive is _SLICE:
        part = part or _itself(same.get(first, first))
        shape = first.aval.shape
        low, high = eqn.params["start_indices"], eqn.params["limit_indices"]
        cut = {part.axes[i] for i, n in enumerate(shape) if (low[i], high[i]) != (0, n)}
        return part._replace(moves=(*part.moves, eqn), cut=part.cut | cut)
    if part is None:
        return None
    if primitive is _SQUEEZE:
        gone = eqn.params["dimensions"]
        axes = tuple(a for i, a in enumerate(part.axes) if i not in gone)
        return part._replace(moves=(*part.moves, eqn), axes=axes)
    if primitive is prim.EXP and not part.changed:
        made = exponentials.get(part.like)
        return None if made is None else _itself(made)._replace(
            moves=part.moves, axes=part.axes, cut=part.cut
        )  # fmt: skip
    if primitive is prim.LOG and _is_of_exponentials(part.like, graph):
        return part._replace(whole=lambda read: jax.lax.log(part.whole(read)), changed=True)
    if primitive not in (prim.SUB, prim.MUL, prim.DIV) or operands != [0, 1]:
        return None
    return _with_statistic(eqn, part, graph, same)


def _itself(var: Var) -> Part:
    return Part(lambda read: read(var), var, (), tuple(range(len(var.aval.shape))), frozenset())


def _is_of_exponentials(var: Var, graph: Graph) -> bool:
    """Whether a variable is an exponential, masked, scaled or divided: its logarithm is known."""
    while (eqn := graph.maker.get(var)) is not None and eqn.primitive is not prim.EXP:
        passes = eqn.primitive in (prim.DIV, prim.MUL, prim.SELECT) or link(eqn) is not None
        operands = graph.explained_operands(eqn)
        if not passes or not operands:
            return False
        var = eqn.invars[operands[0]]
    return eqn is not None


def _with_statistic(
    eqn: Equation, part: Part, graph: Graph, same: Mapping[Var, Var]
) -> Part | None:
    """A part and a statistic of its whole, as a part of the whole with the statistic."""
    other, divides = eqn.invars[1], eqn.primitive is prim.DIV
    if eqn.primitive is prim.SUB:
        fits = _is_mean(other, part.like, graph, same)
    else:
        fits = is_statistic(graph, part.like, other, same, divides=divides) is not None
    maker = graph.maker.get(other)
    axes, spread = part.axes, other
    if maker is not None and maker.primitive is prim.BROADCAST:
        spread = maker.invars[0]
        axes = tuple(part.axes[i] for i in maker.params["broadcast_dimensions"])
    shape = other.aval.shape if is_literal(spread) else spread.aval.shape
    if not fits or any(a in part.cut and n > 1 for a, n in zip(axes, shape, strict=True)):
        return None

    def whole(read: Read) -> Any:
        value = part.whole(read)
        statistic = jax.lax.broadcast_in_dim(read(spread), value.shape, axes)
        return eqn.primitive.bind(value, statistic, **eqn.params)

    return part._replace(whole=whole, changed=True)


def _is_mean(var: Var, root: Var, graph: Graph, same: Mapping[Var, Var]) -> bool:
    """Whether a variable is a sum over some axes of another, scaled and moved."""
    while (eqn := graph.maker.get(var)) is not None:
        kind, operands = family(eqn.primitive), graph.explained_operands(eqn)
        if len(operands) != 1:
            return False
        var = eqn.invars[operands[0]]
        if eqn.primitive is prim.REDUCE_SUM:
            return same.get(var, var) is root
        if not (kind is Family.AFFINE or prim.changes_no_number(eqn.primitive)):
            return False
    return False
