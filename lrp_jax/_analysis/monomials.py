"""Products in a normal form: every explained value as powers of factors, told apart by their axes.

A factor is a variable with a label for each of its axes, as in an einsum: broadcasts, transposes
and reshapes only rename labels, a product joins factors, a sum or contraction binds labels. What
carries no bound label of a sum stands before it.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from . import primitives as prim
from .compat import Equation, Var, is_literal
from .factors import (
    Factor,
    Index,
    constant,
    is_outer,
    joined,
    link,
    number_of,
    own_index,
    power_of,
    product_operands,
    raised,
    renamed,
    through,
)
from .facts import nonnegative_variables
from .graph import Graph
from .primitives import Family, family
from .value_numbers import value_numbers

_OF_LOGARITHMS = (*prim.SUMS, prim.NEG, prim.MUL, prim.DIV)


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
            result *= raised(part, power) if part else 0.0
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
        if form is None:
            return None
        return self._raised((self._of_no_sign(e.invars[0], i), p) for e, i, p in form)

    def _of_no_sign(self, atom: Any, index: Index) -> tuple[float, dict[Factor, Any]]:
        """The factors of a value, or itself where some may be negative."""
        number, inner = self.factors(atom, index)
        if number > 0 and all(f.var in self.nonnegative for f in inner):
            return number, inner
        return 1.0, {Factor(self.same.get(atom, atom), index): 1}

    def _raised(self, parts: Iterable[Any]) -> tuple[float, dict[Factor, Any]]:
        number, powers = 1.0, dict[Factor, Any]()
        for (inner, factors), power in parts:
            number *= raised(inner, power)
            powers = joined(powers, {f: n * power for f, n in factors.items()})
        return number, powers

    def logarithms(
        self, atom: Any, index: Index, too: Callable[[Equation], bool] = lambda eqn: False
    ) -> list[tuple[Equation, Index, float]] | None:
        """A sum of multiples of logarithms: each of them, its labels, and how often it is there;
        `too` says which other equations are logarithms."""
        eqn = None if is_literal(atom) else self.graph.maker.get(atom)
        if eqn is None or eqn.outvars[0] not in self.graph.live:
            return None
        axes, invars, primitive = link(eqn), eqn.invars, eqn.primitive
        if primitive is prim.LOG or too(eqn):
            return [(eqn, index, 1.0)]
        if axes is None and primitive not in _OF_LOGARITHMS:
            return None
        inner = [through(a, axes, index) for a in invars]
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
            scale = raised(numbers[position] or 0.0, -1 if primitive is prim.DIV else 1)
            parts = [(invars[1 - position], inner[1 - position], 1.0)]
        found: list[tuple[Equation, Index, float]] = []
        for operand, place, sign in parts:
            form = self.logarithms(operand, place, too)
            if form is None:
                return None
            found += [(e, i, scale * sign * p) for e, i, p in form]
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
