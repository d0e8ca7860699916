"""Normalisations: a product or quotient of a value and a statistic of the same tensor.

The second operand reaches the input only through a reduction of what the first is made of; it needs
neither a class, nor a name, nor an order of equations.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from .._analysis import compat, primitives as prim
from .._analysis.compat import Equation, Var
from .._analysis.graph import Graph
from .._analysis.primitives import Family, family, is_reduction
from .arithmetic import UNCHANGED, hold, of_one
from .reading import Reading
from .step import Backward, Found, Step, Visit, Way

_MOVES = (Family.STRUCTURAL, Family.NEUTRAL)


@dataclass(frozen=True, eq=False, kw_only=True)
class Statistic(Found):
    """Products of a value and statistics of `root`: each with the operand that is one.

    Attributes:
        others: values of whose statistics an operand is made too.
    """

    products: tuple[tuple[Equation, int], ...]
    batch_axis: bool
    others: tuple[Var, ...] = ()

    takes_affine = True

    @property
    def roots(self) -> tuple[Var, ...]:
        return (self.root, *self.others)


@dataclass(frozen=True, eq=False, kw_only=True)
class Normalization(Step):
    """A normalisation with the affine equations after it.

    Attributes:
        found: its products, and which operands are statistics.
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
                root = _statistic_root(graph, eqn, position, found) or _statistic_root(
                    graph, eqn, position, found, of_mean=True
                )
                if root is not None:
                    inner = _products_between(graph, eqn.invars[1 - position], root[0], found)
                    found[out] = Statistic(
                        root=root[0], products=(*inner, (eqn, position)), batch_axis=root[1]
                    )
                    break
        for eqn in graph.eqns:
            whole = _of_two_parts(graph, eqn, found) or _by_several(graph, eqn, found)
            if whole is not None and eqn.outvars[0] not in known:
                found[eqn.outvars[0]] = whole
        return found

    @classmethod
    def recognise(cls, reading: Reading, var: Var) -> Self | None:
        tail = reading.tail(var)
        found = None if tail is None or tail.core is None else tail.core.layer
        if tail is None or not isinstance(found, Statistic):
            return None
        chain, start = tail.chain, tail.start
        eqns, outside = reading.graph.between(start, found.roots)
        assert not outside, "a normalisation is one of its roots"
        return reading.step(
            cls, [*eqns, *chain], found.roots, [var], "Normalization",
            found=found, mixes_examples=found.batch_axis,
        )  # fmt: skip

    def backward(self, rule: Any, out: str) -> Backward:
        if rule.way is Way.UNCHANGED and self.found.others:
            return Backward("R", self._unchanged)
        return Backward("C", self._held, True) if rule.way is Way.IDENTITY else of_one(rule)

    def _unchanged(self, visit: Visit) -> list[Any]:
        """The normalisation, whose root alone gets the relevance of it."""
        (root, *others), constants = visit.inputs, visit.constants
        one = replace(visit, inputs=[root], constants=[*map(hold, others), *constants])
        return UNCHANGED.outputs(one)

    def _held(self, visit: Visit) -> list[Any]:
        """The normalisation with its statistics constants of the explanation."""
        invars = [*self.inputs, *self.constants]
        # The statistics are computed from held inputs, and not held themselves: on the way back a
        # zero would meet the derivative of a root, which is infinite at a variance of zero.
        held = [hold(x) for x in visit.inputs]
        done: dict[Var, Any] = {}
        for product, position in self.found.products:
            # Equations may come later and still be read by the product only through `after`.
            before = self.eqns[: self.eqns.index(product)]
            rest = [eqn for eqn in before if eqn.outvars[0] not in done]
            factors: list[Any] = []
            for i, atom in enumerate(product.invars):
                if i == position:
                    factors += visit.place.part(before, invars, [atom])(*held, *visit.constants)
                else:
                    part = visit.place.part(rest, [*invars, *done], [atom])
                    factors += part(*visit.inputs, *visit.constants, *done.values())
            done[product.outvars[0]] = product.primitive.bind(*factors, **product.params)
        wanted, after = set(self.outputs), list[Equation]()
        for eqn in reversed(self.eqns):
            if eqn.outvars[0] not in done and not wanted.isdisjoint(eqn.outvars):
                after.insert(0, eqn)
                wanted.update(a for a in eqn.invars if not compat.is_literal(a))
        function = visit.place.part(after, [*done, *self.constants], self.outputs)
        return function(*done.values(), *visit.constants)


def _of_two_parts(graph: Graph, eqn: Equation, found: Mapping[Var, Found]) -> Statistic | None:
    """A norm that is written as a sum of two: x s + (b - mean(x) s), with a statistic s of x."""
    sums = eqn.primitive in prim.SUMS
    if not sums or graph.explained_operands(eqn) != [0, 1]:
        return None
    first, second = (_norm_before(graph, var, found) for var in eqn.invars)
    if first is None or second is None or first.root is not second.root:
        return None
    if _is_of_mean(graph, first, found) == _is_of_mean(graph, second, found):
        return None  # two norms of one value, added
    products = dict.fromkeys((*first.products, *second.products))
    ordered = sorted(products, key=lambda p: graph.position[p[0].outvars[0]])
    batch_axis = first.batch_axis or second.batch_axis
    return Statistic(root=first.root, products=tuple(ordered), batch_axis=batch_axis)


def _by_several(graph: Graph, eqn: Equation, found: Mapping[Var, Found]) -> Statistic | None:
    """A value times what is known to be made of statistics of the values that norms before it
    divide."""
    if eqn.primitive is not prim.MUL or graph.explained_operands(eqn) != [0, 1]:
        return None
    value, statistic = eqn.invars
    maker = graph.maker.get(statistic)
    if maker is None or maker.primitive is not prim.STATISTIC:
        return None
    roots = {norm.root for norm in found.values() if isinstance(norm, Statistic)}
    eqns, outside = graph.between(statistic, roots)
    read = dict.fromkeys(eqn.invars[i] for eqn in eqns for i in graph.explained_operands(eqn))
    others = (statistic,) if outside else tuple(v for v in read if v in roots)
    return Statistic(root=value, products=((eqn, 1),), batch_axis=False, others=others)


def _is_of_mean(graph: Graph, norm: Statistic, found: Mapping[Var, Found]) -> bool:
    """Whether a statistic is beside a mean of the root, and not beside the root itself."""
    product, position = norm.products[0]
    return norm.root not in _made_elementwise_of(graph, product.invars[1 - position], found=found)


def _norm_before(graph: Graph, var: Var, found: Mapping[Var, Found]) -> Statistic | None:
    """The norm that a variable is, scaled and shifted, where nobody else reads it."""
    while graph.read_once(var):
        norm = found.get(var)
        if isinstance(norm, Statistic):
            return norm
        eqn = graph.maker.get(var)
        if eqn is None or len(operands := graph.explained_operands(eqn)) != 1:
            return None
        affine = family(eqn.primitive) is Family.AFFINE
        if not (affine or prim.changes_no_number(eqn.primitive)):
            return None
        var = eqn.invars[operands[0]]
    return None


def _products_between(
    graph: Graph, value: Var, root: Var, found: Mapping[Var, Found]
) -> tuple[tuple[Equation, int], ...]:
    """The products with statistics of the same root that a value is made by."""
    made = _made_elementwise_of(graph, value, found=found)
    for var in sorted(made, key=lambda v: -graph.position[v]):
        inner = found.get(var)
        if isinstance(inner, Statistic) and inner.root is root:
            return inner.products
    return ()


def _statistic_root(
    graph: Graph, eqn: Equation, position: int, found: Mapping[Var, Found], of_mean: bool = False
) -> tuple[Var, bool] | None:
    """The tensor whose statistic an operand is, or None.

    With `of_mean` the value itself may be a sum of that tensor: a layer norm that is written as
    x / s - mean(x) / s. Only a root makes a statistic then: other quotients of two sums are shares.
    """
    value, statistic = eqn.invars[1 - position], eqn.invars[position]
    divides = eqn.primitive is prim.DIV
    hit = is_statistic(graph, value, statistic, {}, divides=divides, of_mean=of_mean, found=found)
    if hit is None:
        return None
    hits, batch_axis = hit
    root = min(hits, key=lambda v: graph.position[v])
    if len(hits) == 1:
        root = _centred_from(graph, root) or root
    _, outside = graph.between(eqn.outvars[0], [root])
    return None if outside else (root, batch_axis)


def is_statistic(
    graph: Graph, value: Var, statistic: Var, same: Mapping[Var, Var], *,
    divides: bool, of_mean: bool = False, found: Mapping[Var, Found] | None = None,
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
        found: norms that the value may be made by.
    """
    family_tree = {same.get(v, v) for v in _made_elementwise_of(graph, value, of_mean, found or {})}
    lowest = min(graph.position[v] for v in family_tree)
    seen: set[tuple[Var, bool, bool, bool]] = set()
    hits: dict[Var, None] = {}
    todo = [(statistic, False, False, divides and not of_mean)]
    batch_axis = of_many = False
    while todo:
        var, reduced, added, rooted = todo.pop()
        var = same.get(var, var)
        if (var, reduced, added, rooted) in seen:
            continue
        seen.add((var, reduced, added, rooted))
        # A number itself is in its window too.
        if (reduced or (added and rooted)) and var in family_tree:
            hits[var] = None
            of_many = of_many or reduced
            continue
        maker = graph.maker.get(var)
        if maker is None or graph.position[var] < lowest:
            return None
        operands = graph.explained_operands(maker)
        reduces = _reduces(maker, operands, added)
        rooted = rooted or _roots(graph, maker, operands, of_mean)
        # What is reduced before any root or division is no statistic but a factor like others.
        if not (_keeps(maker) or (reduces and rooted)):
            return None
        if family(maker.primitive) is Family.SUM and "axes" in maker.params:
            batch_axis = batch_axis or _over_batch(maker)
        adds = maker.primitive in prim.ADD and len(operands) == 2
        divisor = 1 if maker.primitive is prim.DIV and not of_mean else None
        todo.extend(
            (maker.invars[i], reduced or reduces, added or adds, rooted or i == divisor)
            for i in operands
        )
    return ([*hits], batch_axis) if of_many else None


def _roots(graph: Graph, eqn: Equation, operands: list[int], of_mean: bool) -> bool:
    """Whether an equation takes a root or a reciprocal."""
    if eqn.primitive in prim.ROOTS:
        return bool(eqn.params.get("y", -1) < 0)
    if eqn.primitive is prim.DIV and operands == [0, 1]:
        return not of_mean and _is_function_of_one(graph, eqn)
    return eqn.primitive is prim.DIV and operands == [1] and not of_mean


def _is_function_of_one(graph: Graph, eqn: Equation) -> bool:
    """Whether both operands of a quotient are functions, number by number, of one value."""
    roots: list[set[Var]] = []
    for operand in eqn.invars:
        found, todo = set[Var](), [operand]
        while todo:
            var = todo.pop()
            maker = graph.maker.get(var)
            passes = maker is not None and (
                family(maker.primitive) in prim.POINTWISE or maker.primitive in prim.SHAPE_ONLY
            )
            if maker is None or not passes:
                found.add(var)
            else:
                todo += [maker.invars[i] for i in graph.explained_operands(maker)]
        roots.append(found)
    return roots[0] == roots[1] and len(roots[0]) == 1


def _reduces(eqn: Equation, operands: list[int], added: bool) -> bool:
    """Whether an equation makes a number of many others."""
    kind = family(eqn.primitive)
    if kind in (Family.SUM, Family.CONTRACTION) or is_reduction(eqn):
        return True
    if _sums_segments(eqn, operands):
        return True
    # A sum of numbers that were moved is a sum over a window.
    return added and kind is Family.STRUCTURAL and eqn.primitive not in prim.SHAPE_ONLY


def _sums_segments(eqn: Equation, operands: list[int]) -> bool:
    """Whether an equation adds explained numbers where indices say, to nothing explained."""
    return family(eqn.primitive) is Family.SCATTER_SUM and operands == [2]


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


def _made_elementwise_of(
    graph: Graph, value: Var, sums: bool = False, found: Mapping[Var, Found] | None = None
) -> set[Var]:
    """`value` and what it is made of by centring, scaling, norms and reshaping (and summing)."""
    made, todo = set[Var](), [value]
    while todo:
        var = todo.pop()
        if var in made:
            continue
        made.add(var)
        maker = graph.maker.get(var)
        if maker is None:
            continue
        norm = (found or {}).get(var)
        if isinstance(norm, Statistic):
            product, position = norm.products[-1]
            todo.append(product.invars[1 - position])
            continue
        kind = family(maker.primitive)
        passes = kind is Family.AFFINE or prim.changes_no_number(maker.primitive)
        if passes or (sums and kind is Family.SUM):
            operands = graph.explained_operands(maker)
            if maker.primitive is prim.SUB or len(operands) == 1:
                todo.append(maker.invars[operands[0]])
    return made


def _centred_from(graph: Graph, var: Var) -> Var | None:
    """`x` where `var = x - mean(x)`, each perhaps in another shape, else None."""
    eqn = graph.maker.get(var)
    if eqn is None or eqn.primitive is not prim.SUB or graph.explained_operands(eqn) != [0, 1]:
        return None
    base, mean = eqn.invars
    while not _is_sum_of(graph, mean, base):
        moved = graph.maker.get(base)
        if moved is None or not prim.changes_no_number(moved.primitive):
            return None
        base = moved.invars[0]
    return base


def _is_sum_of(graph: Graph, mean: Var, base: Var) -> bool:
    """Whether a variable is nothing but scaled sums of another one."""
    seen, todo = set[Any](), [(mean, False)]
    while todo:
        node, reduced = todo.pop()
        if node in seen or (reduced and node is base):
            continue
        seen.add(node)
        maker = graph.maker.get(node)
        if maker is None:
            return False
        kind, operands = family(maker.primitive), graph.explained_operands(maker)
        sums = kind is Family.SUM or _sums_segments(maker, operands)
        if not (sums or kind is Family.AFFINE or kind in _MOVES):
            return False
        todo.extend((maker.invars[i], reduced or sums) for i in operands)
    return True


def _over_batch(eqn: Equation) -> bool:
    """Whether a statistic mixes the leading axis but keeps the last, as batch norm in training."""
    rank = len(eqn.invars[0].aval.shape)
    axes = set(eqn.params["axes"])
    return rank > 1 and 0 in axes and rank - 1 not in axes
