"""Products of a value with itself of which only the diagonal is read: sums of squares."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import compat, primitives as prim
from .compat import Equation, Var, is_literal
from .graph import is_complex
from .indices import Known
from .primitives import Family, family
from .signs import stretches

_GATHER, _TRANSPOSE = compat.primitives("gather"), compat.primitives("transpose")
Labels = tuple[int, ...]


class Grams:
    """What is on the diagonals of products of values with themselves.

    Args:
        maker: the equations that make variables.
        known: what the code knows of them.
        same: for each variable the first one that is computed in the same way.
    """

    def __init__(
        self, maker: Mapping[Var, Equation], known: Known, same: Mapping[Var, Var]
    ) -> None:
        self._maker, self._known, self._same = maker, known, same

    def makes_squares(self, eqn: Equation) -> bool:
        """Whether all that an equation makes of a product of a value with itself are sums of
        squares, times numbers that are not negative."""
        if eqn.primitive in _GATHER:
            pairs = self._picked(eqn)
            return bool(pairs) and self._is_gram(eqn.invars[0], pairs)
        if eqn.primitive is prim.MUL:
            for value, mask in (eqn.invars, eqn.invars[::-1]):
                numbers = None if is_literal(value) else self._known.numbers(mask)
                if numbers is not None and (numbers >= 0).all():
                    return self._is_gram(value, _diagonals(numbers != 0))
        if eqn.primitive is prim.SELECT and len(eqn.invars) == 3:
            chosen = self._known.numbers(eqn.invars[0])
            for case in (0, 1):
                value, zero = eqn.invars[1 + case], eqn.invars[2 - case]
                if chosen is not None and not is_literal(value) and self._known.is_zero(zero):
                    return self._is_gram(value, _diagonals(chosen == case))
        return False

    def _picked(self, eqn: Equation) -> set[tuple[int, int]]:
        """The pairs of axes along which a gather takes the same places, one at a time."""
        numbers, places = eqn.params["dimension_numbers"], self._known.indices(eqn.invars[1])
        axes, sizes = numbers.start_index_map, eqn.params["slice_sizes"]
        if places is None:
            return set()
        rows = {a: places[..., i] for i, a in enumerate(axes) if sizes[a] == 1}
        return {(a, b) for a in rows for b in rows if a < b and np.array_equal(rows[a], rows[b])}

    def _is_gram(self, atom: Any, pairs: set[tuple[int, int]]) -> bool:
        """Whether a variable is the product of a value with itself along pairs of axes."""
        var = atom
        while (eqn := self._maker.get(var)) is not None and eqn.primitive is not prim.DOT:
            passes = family(eqn.primitive) is Family.NEUTRAL or stretches(eqn)
            values = [a for a in eqn.invars if not is_literal(a)]
            if not passes or len(values) != 1:
                return False
            (var,) = values
        if eqn is None or is_complex(eqn.outvars[0]):
            return False
        contracted, batch = prim.dot_numbers(eqn)
        fresh = iter(range(len(batch[0]), 64))
        free: list[list[int]] = []
        sides: list[dict[int, int]] = [
            dict(zip(axes, range(len(axes)), strict=True)) for axes in batch
        ]
        for left, right in zip(*contracted, strict=True):
            sides[0][left] = sides[1][right] = -1 - left
        for side, operand in zip(sides, eqn.invars, strict=True):
            free.append([a for a in range(len(operand.aval.shape)) if a not in side])
            side.update({a: next(fresh) for a in free[-1]})
        merged = {b: a for a, b in pairs}
        one, other = (
            self._base(operand, tuple(merged.get(side[a], side[a]) for a in sorted(side)))
            for side, operand in zip(sides, eqn.invars, strict=True)
        )
        return len(free[0]) == len(free[1]) and one == other

    def _base(self, atom: Any, labels: Labels) -> tuple[Any, Labels]:
        """A value before its axes were exchanged, with the labels that it had."""
        while not is_literal(atom) and (eqn := self._maker.get(atom)) is not None:
            if eqn.primitive in _TRANSPOSE:
                order = eqn.params["permutation"]
                labels = tuple(labels[order.index(i)] for i in range(len(order)))
            elif family(eqn.primitive) is not Family.NEUTRAL:
                break
            atom = eqn.invars[0]
        return (id(atom) if is_literal(atom) else self._same.get(atom, atom)), labels


def _diagonals(chosen: np.ndarray) -> set[tuple[int, int]]:
    """The pairs of axes along which only equal places are chosen."""
    places = np.nonzero(np.atleast_1d(chosen))
    axes = [a for a in range(chosen.ndim) if chosen.shape[a] > 1]
    return {(a, b) for a in axes for b in axes if a < b and np.array_equal(places[a], places[b])}
