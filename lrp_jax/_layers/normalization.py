"""Normalisations: a product or quotient of a value and a statistic of the same tensor.

The second operand reaches the input only through a reduction of what the first is made of; it needs
neither a class, nor a name, nor an order of equations.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from .._analysis import compat, primitives as prim
from .._analysis.compat import Equation, Var
from .._analysis.graph import Graph
from .._analysis.primitives import Family, family, is_reduction
from .arithmetic import hold, of_one
from .reading import Reading
from .step import Backward, Found, Step, Visit, Way

_MOVES = (Family.STRUCTURAL, Family.NEUTRAL)


@dataclass(frozen=True, eq=False, kw_only=True)
class Statistic(Found):
    """`product` of a value and a statistic of `root`, which is operand `position`."""

    product: Equation
    position: int
    batch_axis: bool

    takes_affine = True


@dataclass(frozen=True, eq=False, kw_only=True)
class Normalization(Step):
    """A normalisation with the affine equations after it.

    Attributes:
        found: its product, and which operand is the statistic.
    """

    found: Statistic

    named_by_weights = True

    @classmethod
    def search(cls, graph: Graph, known: Any) -> Mapping[Var, Found]:
        found: dict[Var, Found] = {}
        for eqn in graph.eqns:
            if eqn.primitive not in (prim.MUL, prim.DIV) or not graph.is_live(eqn):
                continue
            out = eqn.outvars[0]
            if graph.explained_operands(eqn) != [0, 1] or out in known:
                continue
            for position in (1, 0) if eqn.primitive is prim.MUL else (1,):
                root = _statistic_root(graph, eqn, position) or _statistic_root(
                    graph, eqn, position, of_mean=True
                )
                if root is not None:
                    found[out] = Statistic(
                        root=root[0], product=eqn, position=position, batch_axis=root[1]
                    )
                    break
        return found

    @classmethod
    def recognise(cls, reading: Reading, var: Var) -> Self | None:
        tail = reading.tail(var)
        found = None if tail is None or tail.core is None else tail.core.layer
        if tail is None or not isinstance(found, Statistic):
            return None
        chain, start = tail.chain, tail.start
        eqns, outside = reading.graph.between(start, [found.root])
        assert not outside, "a normalisation has one root"
        return reading.step(
            cls, [*eqns, *chain], [found.root], [var], "Normalization",
            found=found, mixes_examples=found.batch_axis,
        )  # fmt: skip

    def backward(self, rule: Any, out: str) -> Backward:
        return Backward("C", self._held, True) if rule.way is Way.IDENTITY else of_one(rule)

    def _held(self, visit: Visit) -> list[Any]:
        """The normalisation with its statistic a constant of the explanation."""
        product = self.found.product
        where = self.eqns.index(product)
        before, after = self.eqns[:where], self.eqns[where + 1 :]
        invars = [*self.inputs, *self.constants]
        # Equations may come later than the product and still be read by it only through `after`.
        # The statistic is computed from held inputs, and not held itself: on the way back a zero
        # would meet the derivative of a root, which is infinite at a variance of zero.
        held = [hold(x) for x in visit.inputs]
        factors: list[Any] = []
        for position, atom in enumerate(product.invars):
            given = held if position == self.found.position else visit.inputs
            factors += visit.place.part(before, invars, [atom])(*given, *visit.constants)
        y = product.primitive.bind(*factors, **product.params)
        read = [product.outvars[0], *self.constants]
        return visit.place.part(after, read, self.outputs)(y, *visit.constants)


def _statistic_root(
    graph: Graph, eqn: Equation, position: int, of_mean: bool = False
) -> tuple[Var, bool] | None:
    """The tensor whose statistic an operand is, or None.

    With `of_mean` the value itself may be a sum of that tensor: a layer norm that is written as
    x / s - mean(x) / s. Only a root makes a statistic then: other quotients of two sums are shares.
    """
    value, statistic = eqn.invars[1 - position], eqn.invars[position]
    divides = eqn.primitive is prim.DIV
    found = is_statistic(graph, value, statistic, {}, divides=divides, of_mean=of_mean)
    if found is None:
        return None
    hits, batch_axis = found
    root = min(hits, key=lambda v: graph.position[v])
    if len(hits) == 1:
        root = _centred_from(graph, root) or root
    _, outside = graph.between(eqn.outvars[0], [root])
    return None if outside else (root, batch_axis)


def is_statistic(
    graph: Graph, value: Var, statistic: Var, same: Mapping[Var, Var], *,
    divides: bool, of_mean: bool = False,
) -> tuple[list[Var], bool] | None:  # fmt: skip
    """What of a value some variable is a statistic of, and whether of many examples; or None.

    A statistic is made of powers, sums and contractions alone, with a root or a division on the
    way; an exponential or a sigmoid there makes a gate.

    Args:
        graph: the graph.
        value: the value.
        statistic: the variable.
        same: for each variable the first one that is computed in the same way.
        divides: whether the value is divided by it.
        of_mean: see `_statistic_root`.
    """
    family_tree = {same.get(v, v) for v in _made_elementwise_of(graph, value, of_mean)}
    lowest = min(graph.position[v] for v in family_tree)
    seen: set[tuple[Var, bool, bool, bool]] = set()
    hits: dict[Var, None] = {}
    todo = [(statistic, False, False, divides and not of_mean)]
    batch_axis = False
    while todo:
        var, reduced, added, rooted = todo.pop()
        var = same.get(var, var)
        if (var, reduced, added, rooted) in seen:
            continue
        seen.add((var, reduced, added, rooted))
        if reduced and var in family_tree:
            hits[var] = None
            continue
        maker = graph.maker.get(var)
        if maker is None or graph.position[var] < lowest:
            return None
        operands = graph.explained_operands(maker)
        reduces = _reduces(maker, added)
        rooted = rooted or _roots(maker, operands, of_mean)
        # What is reduced before any root or division is no statistic but a factor like others.
        if not (_keeps(maker) or (reduces and rooted)):
            return None
        if family(maker.primitive) is Family.SUM and "axes" in maker.params:
            batch_axis = batch_axis or _over_batch(maker)
        adds = maker.primitive in prim.ADD and len(operands) == 2
        todo.extend((maker.invars[i], reduced or reduces, added or adds, rooted) for i in operands)
    return ([*hits], batch_axis) if hits else None


def _roots(eqn: Equation, operands: list[int], of_mean: bool) -> bool:
    """Whether an equation takes a root or a reciprocal."""
    if eqn.primitive in prim.ROOTS:
        return bool(eqn.params.get("y", -1) < 0)
    return eqn.primitive is prim.DIV and operands == [1] and not of_mean


def _reduces(eqn: Equation, added: bool) -> bool:
    """Whether an equation makes a number of many others."""
    kind = family(eqn.primitive)
    if kind in (Family.SUM, Family.CONTRACTION) or is_reduction(eqn):
        return True
    # A sum of numbers that were moved is a sum over a window.
    return added and kind is Family.STRUCTURAL and eqn.primitive not in prim.SHAPE_ONLY


def _keeps(eqn: Equation) -> bool:
    """Whether an equation may stand on the way of a statistic."""
    kind = family(eqn.primitive)
    if kind is Family.ELEMENTWISE:
        return eqn.primitive in _POWERS
    body = compat.custom_call(eqn)
    if body is not None:
        return all(map(_keeps, compat.open_jaxpr(body).eqns))
    return compat.plain_call(eqn) is not None or kind in prim.POINTWISE or kind in _MOVES


_POWERS = compat.primitives(
    "sqrt rsqrt cbrt square integer_pow pow abs sign clamp floor ceil round"
)


def _made_elementwise_of(graph: Graph, value: Var, sums: bool = False) -> set[Var]:
    """`value` and what it is made of by centring, scaling and reshaping (and summing)."""
    found, todo = set(), [value]
    while todo:
        var = todo.pop()
        if var in found:
            continue
        found.add(var)
        maker = graph.maker.get(var)
        if maker is None:
            continue
        kind = family(maker.primitive)
        passes = kind in (Family.AFFINE, Family.NEUTRAL) or maker.primitive in prim.SHAPE_ONLY
        if passes or (sums and kind is Family.SUM):
            operands = graph.explained_operands(maker)
            if maker.primitive is prim.SUB or len(operands) == 1:
                todo.append(maker.invars[operands[0]])
    return found


def _centred_from(graph: Graph, var: Var) -> Var | None:
    """`x` where `var = x - mean(x)`, else None."""
    eqn = graph.maker.get(var)
    if eqn is None or eqn.primitive is not prim.SUB or graph.explained_operands(eqn) != [0, 1]:
        return None
    base = eqn.invars[0]
    seen, todo = set(), [(eqn.invars[1], False)]
    while todo:
        node, reduced = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        if reduced and node is base:
            continue
        maker = graph.maker.get(node)
        if maker is None:
            return None
        kind = family(maker.primitive)
        if not (kind is Family.SUM or kind is Family.AFFINE or kind in _MOVES):
            return None
        todo.extend(
            (maker.invars[i], reduced or kind is Family.SUM)
            for i in graph.explained_operands(maker)
        )
    return base


def _over_batch(eqn: Equation) -> bool:
    """Whether a statistic mixes the leading axis but keeps the last, as batch norm in training."""
    rank = len(eqn.invars[0].aval.shape)
    axes = set(eqn.params["axes"])
    return rank > 1 and 0 in axes and rank - 1 not in axes
