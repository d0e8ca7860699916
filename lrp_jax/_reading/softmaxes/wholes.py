"""Parts of norms and softmaxes: `exp(s[0]) / exp(s).sum()` is `softmax(s)[0]`.

A part that is divided by a statistic of the whole is a part of the whole divided by it. So what is
written for one number, or one column after another, is read as the layer that it is a part of.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from ..._analysis import primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.factors import link
from ..._analysis.graph import Graph
from ..._analysis.indices import Known, known_in
from ..._analysis.places import CUTS, Place, itself, made_by
from ..._analysis.primitives import Family, family
from ..._layers.normalization import is_statistic
from ..._layers.softmax import unshifted
from ..._layers.step import Found
from ..equations.parts import CONCATENATE

Read = Callable[[Var], Any]


class Part(NamedTuple):
    """A variable as moved numbers of a larger one.

    Attributes:
        whole: computes the larger one.
        place: its numbers, of the variable of the graph that the larger one is, or is an affine
            function of.
        changed: whether a statistic of the whole, or a logarithm, was moved into it.
        logarithm: whether it is the logarithm of a probability.
    """

    whole: Callable[[Read], Any]
    place: Place
    changed: bool = False
    logarithm: bool = False

    @property
    def like(self) -> Var:
        return self.place.var


def wholes(
    graph: Graph, same: Mapping[Var, Var], layers: Mapping[Var, Found]
) -> dict[int, Callable[[Read], Any]]:
    """How parts are computed of their wholes, by the `id` of the equations that make them.

    Args:
        graph: a graph.
        same: for each variable the first one that is computed in the same way.
        layers: what is recognised as it stands.
    """
    log_sums = log_sums_of(graph, layers)
    parts: dict[Var, Part] = {}
    found: dict[int, Callable[[Read], Any]] = {}
    exponentials = {
        same.get(e.invars[0], e.invars[0]): e.outvars[0]
        for e in graph.eqns
        if e.primitive is prim.EXP and not is_literal(e.invars[0])
    }
    known = known_in(graph)
    for eqn in graph.eqns:
        if not graph.is_live(eqn) or len(eqn.outvars) != 1:
            continue
        part = _moved(eqn, known, parts, same)
        moves = part is not None
        part = part or _part(eqn, parts, exponentials, graph, same, log_sums)
        if part is None:
            quotient = _logarithm_of_quotient(eqn, parts, graph)
            found |= {} if quotient is None else {id(eqn): quotient}
            continue
        (out,) = eqn.outvars
        if moves and eqn.primitive is CONCATENATE and not part.changed and _holds_all(part.place):
            continue  # another whole, whose statistics follow
        parts[out] = part
        is_made = graph.position[part.like] < graph.position[out]
        if part.changed and is_made and not moves:
            found[id(eqn)] = _way(part)
    return found


def _holds_all(place: Place) -> bool:
    """Whether a place has all numbers of a variable, each once, in another order."""
    shape = place.var.aval.shape
    rows = {axis: row for axis, row in place.axes if axis is not None}
    whole = (n == 1 or sorted(rows.get(axis, ())) == list(range(n)) for axis, n in enumerate(shape))
    return not place.fixed and all(whole)


def _way(part: Part) -> Callable[[Read], Any]:
    return lambda read: part.place.of(part.whole(read))


def _moved(
    eqn: Equation, known: Known, parts: Mapping[Var, Part], same: Mapping[Var, Var]
) -> Part | None:
    """What a move makes of parts of one whole."""
    above = [parts[a] for a in eqn.invars if not is_literal(a) and a in parts]
    if not above and eqn.primitive not in CUTS:
        return None
    place = made_by(eqn, known, lambda v: parts[v].place if v in parts else itself(same.get(v, v)))
    if place is None or place.has_zeros or (any(p.changed for p in above) and len(above) > 1):
        return None
    return above[0]._replace(place=place) if above else _itself(place.var)._replace(place=place)


def _part(
    eqn: Equation, parts: Mapping[Var, Part], exponentials: Mapping[Var, Var], graph: Graph,
    same: Mapping[Var, Var], log_sums: Mapping[Var, Var],
) -> Part | None:  # fmt: skip
    """What an equation that is no move makes as a part of something, if it is one."""
    operands = graph.explained_operands(eqn)
    (first, *_), primitive = eqn.invars, eqn.primitive
    part = None if is_literal(first) else parts.get(first)
    if part is None:
        return None
    if primitive is prim.EXP and (part.logarithm or _is_logarithm(part.like, graph, log_sums)):
        return part._replace(
            whole=lambda read: jax.lax.exp(part.whole(read)), changed=True, logarithm=False
        )
    if primitive is prim.EXP and not part.changed:
        made = exponentials.get(part.like)
        return None if made is None else _itself(made)._replace(
            place=part.place._replace(var=made)
        )  # fmt: skip
    if primitive is prim.LOG and is_of_exponentials(part.like, graph):
        return _as_logarithm(part)
    is_spread = first.aval.shape != eqn.outvars[0].aval.shape  # a number times an array
    if primitive not in (prim.SUB, prim.MUL, prim.DIV) or operands != [0, 1] or is_spread:
        return None
    return _with_statistic(eqn, part, graph, same, log_sums)


def _as_logarithm(part: Part) -> Part:
    return part._replace(
        whole=lambda read: jax.lax.log(part.whole(read)), changed=True, logarithm=True
    )


def _itself(var: Var) -> Part:
    return Part(lambda read: read(var), itself(var))


def is_of_exponentials(var: Var, graph: Graph) -> bool:
    """Whether a variable is an exponential, masked, scaled or divided: its logarithm is known."""
    while (eqn := graph.maker.get(var)) is not None and eqn.primitive is not prim.EXP:
        passes = eqn.primitive in (prim.DIV, prim.MUL, prim.SELECT) or link(eqn) is not None
        operands = graph.explained_operands(eqn)
        if not passes or not operands:
            return False
        var = eqn.invars[operands[0]]
    return eqn is not None


def _logarithm_of_quotient(
    eqn: Equation, parts: Mapping[Var, Part], graph: Graph
) -> Callable[[Read], Any] | None:
    """The logarithm of a quotient of two parts of exponentials as a difference."""
    divides = graph.maker.get(eqn.invars[0]) if eqn.primitive is prim.LOG else None
    if divides is None or divides.primitive is not prim.DIV:
        return None
    if graph.explained_operands(divides) != [0, 1]:
        return None
    two = [parts[a] for a in divides.invars if a in parts]
    made = (graph.position[part.like] < graph.position[eqn.outvars[0]] for part in two)
    if len(two) < 2 or not all(made):
        return None
    if not all(is_of_exponentials(part.like, graph) for part in two):
        return None
    one, other = map(_as_logarithm, two)
    return lambda read: _way(one)(read) - _way(other)(read)


def log_sums_of(graph: Graph, layers: Mapping[Var, Found]) -> dict[Var, Var]:
    """The log-sum-exps among layers, and their logits."""
    makes = (prim.LOG, *prim.ADD)
    return {
        v: layer.root
        for v, layer in layers.items()
        if not (layer.gate or layer.takes_affine) and graph.maker[v].primitive in makes
    }


def _is_logarithm(var: Var, graph: Graph, log_sums: Mapping[Var, Var]) -> bool:
    """Whether a variable is logits minus their own log-sum-exp."""
    eqn = graph.maker.get(var)
    if eqn is None or eqn.primitive is not prim.SUB or graph.explained_operands(eqn) != [0, 1]:
        return False
    return _is_log_sum_of(eqn.invars[1], eqn.invars[0], graph, log_sums)


def _is_log_sum_of(var: Var, root: Var, graph: Graph, log_sums: Mapping[Var, Var]) -> bool:
    """Whether a variable is the log-sum-exp of another, spread out."""
    while var not in log_sums and (eqn := graph.maker.get(var)) is not None and link(eqn):
        var = eqn.invars[0]
    return log_sums.get(var) in (root, unshifted(graph, root))


def _with_statistic(
    eqn: Equation, part: Part, graph: Graph, same: Mapping[Var, Var], log_sums: Mapping[Var, Var]
) -> Part | None:
    """A part and a statistic of its whole, as a part of the whole with the statistic."""
    other = eqn.invars[1]

    def is_of(value: Var) -> bool:
        if eqn.primitive is prim.SUB:
            return _is_mean(other, value, graph, same)
        divides = eqn.primitive is prim.DIV
        return is_statistic(graph, value, other, same, divides=divides) is not None

    subtracts = eqn.primitive is prim.SUB and not part.changed
    logarithm = subtracts and _is_log_sum_of(other, part.like, graph, log_sums)
    fits = logarithm or (
        is_of(part.like) and not any(map(is_of, _in_other_shapes(eqn, graph, same)))
    )
    maker = graph.maker.get(other)
    own = [axis for axis, _ in part.place.axes]
    spread, where = other, list(range(len(own)))
    if maker is not None and maker.primitive is prim.BROADCAST:
        spread, where = maker.invars[0], list(maker.params["broadcast_dimensions"])
    shape = other.aval.shape if is_literal(spread) else spread.aval.shape
    wide = [i for i, n in enumerate(shape) if n > 1]
    axes = [own[where[i]] for i in wide]
    if not fits or any(a is None or a in part.place.cut for a in axes):
        return None

    def whole(read: Read) -> Any:
        value = part.whole(read)
        statistic = jax.lax.squeeze(read(spread), [i for i, n in enumerate(shape) if n == 1])
        there = [a for a in axes if a is not None]
        statistic = jax.lax.transpose(statistic, [there.index(a) for a in sorted(there)])
        statistic = jax.lax.broadcast_in_dim(statistic, value.shape, sorted(there))
        return eqn.primitive.bind(value, statistic, **eqn.params)

    return part._replace(whole=whole, changed=True, logarithm=logarithm)


def _in_other_shapes(eqn: Equation, graph: Graph, same: Mapping[Var, Var]) -> list[Var]:
    """What an equation reads first, and the same numbers in other shapes before it."""
    found, atom = list[Var](), eqn.invars[0]
    while not is_literal(atom):
        found.append(same.get(atom, atom))
        maker = graph.maker.get(atom)
        if maker is None or maker.primitive not in prim.SHAPE_ONLY:
            break
        atom = maker.invars[0]
    return found


def _is_mean(var: Var, root: Var, graph: Graph, same: Mapping[Var, Var]) -> bool:
    """Whether a variable is a sum over axes of another, or of a part of it, scaled and moved."""
    while (eqn := graph.maker.get(var)) is not None:
        kind, operands = family(eqn.primitive), graph.explained_operands(eqn)
        if len(operands) != 1:
            return False
        var = eqn.invars[operands[0]]
        if eqn.primitive is prim.REDUCE_SUM:
            while same.get(var, var) is not root and (cut := graph.maker.get(var)) is not None:
                if cut.primitive not in CUTS or graph.explained_operands(cut) != [0]:
                    return False
                var = cut.invars[0]
            return same.get(var, var) is root
        if not (kind is Family.AFFINE or prim.changes_no_number(eqn.primitive)):
            return False
    return False
