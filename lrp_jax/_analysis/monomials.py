"""Products in a normal form: every explained value as powers of factors, told apart by their axes.

A factor is a variable with a label for each of its axes, as in an einsum: broadcasts, transposes
and reshapes only rename labels, a product joins factors, a sum or contraction binds labels. What
carries no bound label of a sum stands before it.
"""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from . import compat, primitives as prim
from .compat import Equation, Var, is_literal
from .facts import nonnegative_variables, sources
from .graph import Graph, is_complex, is_float
from .primitives import Family, family
from .signs import literal_value
from .value_numbers import value_numbers

Index = tuple[int | None, ...]
_INTEGER_POW, _POW = compat.primitive("integer_pow"), compat.primitive("pow")
_POWERS = {
    compat.primitive("sqrt"): 0.5, compat.primitive("rsqrt"): -0.5, compat.primitive("cbrt"): 1 / 3,
    compat.primitive("square"): 2.0,
}  # fmt: skip
_TRANSPOSE, _CONCATENATE = compat.primitive("transpose"), compat.primitive("concatenate")
_MOST_FACTORS = 16
_OF_LOGARITHMS = (*prim.SUMS, prim.NEG, prim.MUL, prim.DIV, prim.LOG)


class Factor(NamedTuple):
    """A variable and the label of each of its axes (None: an axis of one).

    `case` is set where the factor is a mask: 1.0 where the variable is that truth value, else 0.0.
    """

    var: Var
    axes: Index
    case: bool | None = None

    @property
    def labels(self) -> frozenset[int]:
        return frozenset(label for label in self.axes if label is not None)


def joined(a: Mapping[Factor, Any], b: Mapping[Factor, Any], sign: float = 1) -> dict[Factor, Any]:
    """The powers of a product (or quotient)."""
    found = dict(a)
    for factor, power in b.items():
        found[factor] = found.get(factor, 0) + sign * power
    return {factor: power for factor, power in found.items() if power}


class Monomials:
    """The normal forms of a graph's variables.

    Args:
        graph: the graph.
        dominator: what each variable is an elementwise function of (`facts.dominators`).
        whole: variables that known layers make: factors of products as they are.
    """

    def __init__(self, graph: Graph, dominator: Mapping[Var, Var], whole: Iterable[Var]) -> None:
        self.graph, self.dominator, self.whole = graph, dominator, set(whole)
        self.same = graph.once(value_numbers)
        self.nonnegative = graph.once(nonnegative_variables)

    def explained(self, factor: Factor) -> bool:
        return factor.var in self.graph.live

    # -- products -------------------------------------------------------------------------------

    def factors(
        self, atom: Any, index: Index | None = None, finest: bool = False
    ) -> tuple[float, dict[Factor, Any]]:
        """A number and the powers of factors whose product a variable is; the `finest` ones have
        no product of functions of one value among them."""
        index = own_index(atom) if index is None else index
        number = constant(self.graph, atom)
        if number is not None:
            return number, {}
        eqn = self.graph.maker.get(atom)
        operands = self._operands(eqn, atom, finest)
        if eqn is None or operands is None:
            opened = None if eqn is None or atom in self.whole else self._powers(eqn, index)
            return opened or (1.0, {Factor(self.same.get(atom, atom), index): 1})
        result, sign = number_of(eqn), 1
        powers: dict[Factor, float] = {}
        for operand, axes, power in operands:
            if isinstance(operand, Factor):
                powers = joined(powers, {self.mask(operand, index): 1})
                continue
            part, inner = self.factors(operand, through(operand, axes, index), finest)
            result *= part**power if part else 0.0
            powers = joined(powers, inner, sign * power)
        return result, powers

    def _powers(self, eqn: Equation, index: Index) -> tuple[float, dict[Factor, Any]] | None:
        """A product of powers that a root of a product is, or an exponential of logarithms."""
        operand = eqn.invars[0] if eqn.invars else None
        if operand is None or is_literal(operand) or operand not in self.graph.live:
            return None
        power = power_of(eqn)
        if power is None and eqn.primitive is not prim.EXP:
            return None
        inner = through(operand, None, index)
        if power is not None:
            found = self._of_no_sign(operand, inner)
            return self._raised([(found, power)]) if len(found[1]) > 1 else None
        form = self.logarithms(operand, inner)
        return self._raised([(self._of_no_sign(a, i), p) for a, i, p in form]) if form else None

    def _of_no_sign(self, atom: Any, index: Index) -> tuple[float, dict[Factor, Any]]:
        """The factors of a value, or itself where some may be negative."""
        number, inner = self.factors(atom, index)
        if number > 0 and all(f.var in self.nonnegative for f in inner):
            return number, inner
        return 1.0, {Factor(self.same.get(atom, atom), index): 1}

    def _raised(self, parts: Iterable[Any]) -> tuple[float, dict[Factor, Any]]:
        number, powers = 1.0, dict[Factor, Any]()
        for (inner, factors), power in parts:
            number *= inner**power
            powers = joined(powers, {f: n * power for f, n in factors.items()})
        return number, powers

    def logarithms(self, atom: Any, index: Index) -> list[tuple[Any, Index, float]] | None:
        """A sum of multiples of logarithms: what is inside of each, and how often it is there."""
        eqn = None if is_literal(atom) else self.graph.maker.get(atom)
        if eqn is None or eqn.outvars[0] not in self.graph.live:
            return None
        axes, invars, primitive = link(eqn), eqn.invars, eqn.primitive
        if axes is None and primitive not in _OF_LOGARITHMS:
            return None
        inner = [through(a, axes, index) for a in invars]
        if primitive is prim.LOG:
            return [(invars[0], inner[0], 1.0)]
        if axes is not None or primitive is prim.NEG:
            scale, parts = -1.0 if primitive is prim.NEG else 1.0, [(invars[0], inner[0], 1.0)]
        elif primitive in prim.SUMS:
            signs = (1.0, 1.0 if primitive in prim.ADD else -1.0)
            scale, parts = 1.0, list(zip(invars, inner, signs, strict=True))
        else:
            numbers = [constant(self.graph, a) for a in invars]
            position = next((i for i, n in enumerate(numbers) if n), None)
            if position is None or (primitive is prim.DIV and position == 0):
                return None
            scale = float(numbers[position] or 0) ** (-1 if primitive is prim.DIV else 1)
            parts = [(invars[1 - position], inner[1 - position], 1.0)]
        found: list[tuple[Any, Index, float]] = []
        for operand, place, sign in parts:
            form = self.logarithms(operand, place)
            if form is None:
                return None
            found += [(a, i, scale * sign * p) for a, i, p in form]
        return found

    def mask(self, factor: Factor, index: Index) -> Factor:
        """A mask as a factor of a product with some labels."""
        return Factor(
            self.same.get(factor.var, factor.var), renamed(factor.axes, index), factor.case
        )

    def finest(self, powers: Mapping[Factor, Any]) -> tuple[float, dict[Factor, Any]]:
        """The same product in its finest factors, and the number beside it."""
        return self._raised(
            ((1.0, {f: 1}) if f.case is not None else self.factors(f.var, f.axes, True), power)
            for f, power in powers.items()
        )

    def _operands(
        self, eqn: Equation | None, var: Var, finest: bool = False
    ) -> list[tuple[Any, Any, int]] | None:
        """Operands with their axes in the product and their powers, if it is one that is opened."""
        if eqn is None or var in self.whole:
            return None
        if var not in self.graph.live:
            axes = link(eqn)
            return None if axes is None else [(eqn.invars[0], axes, 1)]
        explained = self.graph.explained_operands(eqn)
        if len(explained) > 1 and var in self.dominator and not finest:
            return None  # a function of one value
        return product_operands(eqn, self.graph)

    def is_product(self, eqn: Equation) -> bool:
        """Whether an equation's one output is a product that is opened by the reader of it."""
        return len(eqn.outvars) == 1 and self._operands(eqn, eqn.outvars[0]) is not None

    def is_exp_of_logarithms(self, eqn: Equation) -> bool:
        """Whether an equation is an exponential that makes a product of several values."""
        if eqn.primitive is not prim.EXP or eqn.outvars[0] in self.whole:
            return False
        opened = self._powers(eqn, own_index(eqn.outvars[0]))
        return opened is not None and len(self.groups(opened[1])) > 1

    def holds_other(self, atom: Any) -> bool:
        """Whether a product has a product in it that is not one of two numbers each: a matrix
        product that contracts nothing, or one over an axis."""
        eqn = None if is_literal(atom) else self.graph.maker.get(atom)
        operands = self._operands(eqn, atom)
        if eqn is None or operands is None or atom not in self.graph.live:
            return False
        inner = [a for a, _, _ in operands if not isinstance(a, Factor)]
        other = is_outer(eqn) or eqn.primitive is prim.REDUCE_PROD
        return other or any(map(self.holds_other, inner))

    def tree(self, factor: Factor) -> Factor:
        """What a factor is, in the end, an elementwise function of."""
        var = self.same.get(factor.var, factor.var)
        while var in self.dominator:
            var = self.same.get(self.dominator[var], self.dominator[var])
        return Factor(var, factor.axes)

    def is_function(self, var: Var) -> bool:
        """Whether a value is a function of another one, and no scale or shift of it."""
        while var in self.dominator:
            eqn = self.graph.maker[var]
            operands = self.graph.explained_operands(eqn)
            divides = eqn.primitive is prim.DIV and operands == [1]
            passes = family(eqn.primitive) in (Family.AFFINE, Family.NEUTRAL) and not divides
            if not passes or len(operands) != 1:
                return True
            var = eqn.invars[operands[0]]
        return False

    def groups(self, powers: Mapping[Factor, float]) -> dict[Factor, dict[Factor, float]]:
        """The explained factors by what they are elementwise functions of."""
        found: dict[Factor, dict[Factor, float]] = {}
        for factor, power in powers.items():
            if self.explained(factor):
                found.setdefault(self.tree(factor), {})[factor] = power
        return found

    def parts(self, var: Var, powers: Mapping[Factor, float]) -> list[tuple[Var, int]] | None:
        """The variables in a product, each one group of factors, with their powers; None where the
        factors of a group are multiplied apart from each other."""
        groups = self.groups(powers)
        found: dict[Factor, tuple[Var, int]] = {}
        todo: list[tuple[Any, Index, int]] = [(var, own_index(var), 1)]
        while todo:
            atom, index, power = todo.pop()
            inner = self.factors(atom, index)[1]
            mine = [f for f in inner if self.explained(f)]
            keys = {self.tree(f) for f in mine}
            if not keys:
                continue
            if len(keys) == 1:
                (key,) = keys
                if key in found or key not in groups or set(mine) != set(groups[key]):
                    return None
                if self._cancels(atom, index, key):
                    return None
                found[key] = (atom, power)
                continue
            operands = self._operands(self.graph.maker[atom], atom) or []
            todo += [
                (a, through(a, axes, index), power * p)
                for a, axes, p in reversed(operands)
                if not isinstance(a, Factor)
            ]
        return list(found.values()) if len(found) == len(groups) else None

    def _cancels(self, atom: Any, index: Index, kept: Factor) -> bool:
        """Whether a product of one value has others in it, as e in e v / e."""
        factors = [f for f in self.factors(atom, index)[1] if self.explained(f)]
        operands = (
            self._operands(self.graph.maker.get(atom), atom) if atom in self.graph.live else None
        )
        return any(self.tree(f) != kept for f in factors) or any(
            self._cancels(a, through(a, axes, index), kept)
            for a, axes, _ in operands or []
            if not isinstance(a, Factor) and not is_literal(a)
        )


def own_index(atom: Any) -> Index:
    """A variable's axes as labels of themselves."""
    return tuple(
        i if n > 1 else None
        for i, n in enumerate(np.shape(atom.val) if is_literal(atom) else atom.aval.shape)
    )


def through(operand: Any, axes: Any, index: Index) -> Index:
    """The labels of an operand, given those of the result and which of its axes each one is."""
    shape = np.shape(operand.val) if is_literal(operand) else operand.aval.shape
    if axes is None:  # number by number; an axis of one is spread
        axes = range(len(shape))
    return tuple(
        None if n == 1 or a is None else index[a] for n, a in zip(shape, axes, strict=True)
    )


def renamed(axes: Index, index: Index) -> Index:
    return tuple(None if a is None else index[a] for a in axes)


def link(eqn: Equation) -> tuple[int | None, ...] | None:
    """For a cast, broadcast, transpose or reshape: which axis each axis of its operand becomes."""
    if len(eqn.outvars) != 1 or not is_float(eqn.outvars[0]):
        return None
    primitive, atom = eqn.primitive, eqn.invars[0] if eqn.invars else None
    if is_literal(atom) or atom is None or not is_float(atom):
        return None
    shape = atom.aval.shape
    if family(primitive) is Family.NEUTRAL:
        return tuple(range(len(shape)))
    if primitive is _TRANSPOSE:
        order = list(eqn.params["permutation"])
        return tuple(order.index(i) for i in range(len(shape)))
    if primitive is prim.BROADCAST:
        return tuple(eqn.params["broadcast_dimensions"])
    if primitive in prim.SHAPE_ONLY:  # where no axes are joined or split
        out = eqn.outvars[0].aval.shape
        wide = [i for i, n in enumerate(out) if n > 1]
        if [out[i] for i in wide] != [n for n in shape if n > 1]:
            return None
        rest = iter(wide)
        return tuple(next(rest) if n > 1 else None for n in shape)
    return None


def product_operands(eqn: Equation, graph: Graph) -> list[tuple[Any, Any, int]] | None:
    """The operands of a product as (atom, its axes in the product, power); None if it is none."""
    if len(eqn.outvars) != 1 or not is_float(eqn.outvars[0]):
        return None
    primitive, invars = eqn.primitive, eqn.invars
    axes = link(eqn)
    if axes is not None:
        return [(invars[0], axes, 1)]
    if any(map(is_complex, (*invars, *eqn.outvars))):
        return None
    if primitive is prim.MUL:
        return [(a, None, 1) for a in invars]
    if primitive is prim.DIV:
        return [(invars[0], None, 1), (invars[1], None, -1)]
    if primitive is prim.NEG:
        return [(invars[0], None, 1)]
    if power_of(eqn) in (1, -1):
        return [(invars[0], None, int(power_of(eqn) or 0))]
    if is_outer(eqn):
        return [(a, a_axes, 1) for a, a_axes in zip(invars, _outer(eqn), strict=True)]
    if primitive is prim.REDUCE_PROD:
        return _stacked(eqn, graph)
    masked = masked_by(eqn, graph, 0.0) if primitive is prim.SELECT else None
    return masked and [(masked[0], None, 1), (masked[1], None, 1)]


def power_of(eqn: Equation) -> float | None:
    """The number to which an equation raises its operand, or None."""
    if eqn.primitive is _INTEGER_POW:
        return float(eqn.params["y"])
    if eqn.primitive is _POW:
        return literal_value(eqn.invars[1])
    return _POWERS.get(eqn.primitive)


def powers_of(value: Any, power: float) -> list[Any]:
    """Factors whose product is a value to a positive power: itself, and a root of it."""
    whole = int(power)
    return [value] * whole + ([value ** (power - whole)] if power > whole else [])


def masked_by(eqn: Equation, graph: Graph, other: float) -> tuple[Factor, Any] | None:
    """The mask and the operand of a choice between that and a number, by constants; or None."""
    mask = eqn.invars[0]
    if is_literal(mask) or mask.aval.shape != eqn.outvars[0].aval.shape:
        return None
    if mask.aval.dtype != bool or len(eqn.invars) != 3:
        return None
    for case in (0, 1):
        operand = eqn.invars[2 - case]
        if constant(graph, eqn.invars[1 + case]) == other and not _switches(mask, operand, graph):
            return Factor(mask, own_index(mask), case == 0), operand
    return None


def _switches(mask: Var, operand: Any, graph: Graph) -> bool:
    """Whether a mask is what a function of the masked numbers themselves chooses by, as a
    rectifier does."""
    if mask not in graph.touched:
        return False
    return bool(_above(sources(mask, graph), graph) & _above([operand], graph))


def _above(atoms: Iterable[Any], graph: Graph) -> set[Var]:
    """Variables and what they are made of, number by number."""
    found, todo = set[Var](), [*atoms]
    while todo:
        var = todo.pop()
        if is_literal(var) or var in found or var not in graph.live:
            continue
        found.add(var)
        eqn = graph.maker.get(var)
        if eqn is not None and (family(eqn.primitive) in prim.POINTWISE or link(eqn) is not None):
            todo += eqn.invars
    return found


def is_outer(eqn: Equation) -> bool:
    """Whether an equation is a matrix product that contracts nothing."""
    return eqn.primitive is prim.DOT and not prim.dot_numbers(eqn)[0][0]


def _outer(eqn: Equation) -> list[tuple[int, ...]]:
    """The axes of the operands of a matrix product that contracts nothing, in the product."""
    _, batch = prim.dot_numbers(eqn)
    rest = itertools.count(len(batch[0]))
    found = []
    for side, atom in zip(batch, eqn.invars, strict=True):
        found.append(
            tuple(
                list(side).index(a) if a in side else next(rest)
                for a in range(len(atom.aval.shape))
            )
        )
    return found


def _stacked(eqn: Equation, graph: Graph) -> list[tuple[Any, Any, int]] | None:
    """The factors of a product over an axis along which they are put side by side."""
    joined = graph.maker.get(eqn.invars[0])
    if joined is None or joined.primitive is not _CONCATENATE or len(eqn.params["axes"]) != 1:
        return None
    (axis,) = eqn.params["axes"]
    wide = any(a.aval.shape[axis] > 1 for a in joined.invars)
    if wide or joined.params["dimension"] != axis or len(joined.invars) > _MOST_FACTORS:
        return None
    rank = len(eqn.invars[0].aval.shape)
    axes = tuple(None if i == axis else i - (i > axis) for i in range(rank))
    return [(a, axes, 1) for a in joined.invars]


def number_of(eqn: Equation) -> float:
    return -1.0 if eqn.primitive is prim.NEG else 1.0


def constant(graph: Graph, atom: Any) -> float | None:
    """The number of a literal, cast or spread out; that of constants times zero is zero."""
    while not is_literal(atom):
        eqn = graph.maker.get(atom)
        if eqn is not None and eqn.primitive is prim.MUL and atom not in graph.live:
            return 0.0 if any(constant(graph, a) == 0 for a in eqn.invars) else None
        spreads = eqn is not None and (
            family(eqn.primitive) is Family.NEUTRAL or eqn.primitive in prim.SHAPE_ONLY
        )
        if eqn is None or not spreads or eqn.primitive is prim.KEEP:
            return None
        atom = eqn.invars[0]
    return literal_value(atom)
