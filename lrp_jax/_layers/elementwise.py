"""Elementwise functions of one explained value: activations, whatever they compute."""

from dataclasses import dataclass
from typing import Any, Self

import jax

from .._analysis import primitives as prim
from .._analysis.compat import Equation, Var
from .._analysis.signs import is_relu, zero_at_zero
from .arithmetic import UNCHANGED, at_least_float32, custom, of_one
from .chains import is_literal_link
from .reading import Reading
from .slopes import slope
from .step import Backward, Step, Visit, Way


@dataclass(frozen=True, eq=False, kw_only=True)
class Elementwise(Step):
    """An elementwise function of one explained variable.

    Attributes:
        zero_at_zero: f(0) = 0 whatever the constants are.
    """

    zero_at_zero: bool

    @classmethod
    def recognise(cls, reading: Reading, var: Var) -> Self | None:
        eqn = reading.graph.maker[var]
        operands = reading.graph.explained_operands(eqn)
        if var in reading.dominator:
            root = _longest_run(reading, var)
            if root is not None:
                eqns, _ = reading.graph.between(var, [root])
                kind = "ReLU" if is_relu(eqns, root) else "Activation"
                zero = zero_at_zero(eqns, root, var)
                return reading.step(cls, eqns, [root], [var], kind, zero_at_zero=zero)
        if eqn.primitive is prim.DIV and operands == [1]:
            return cls.written_out(reading, [eqn], eqn.invars[1], var)
        return None

    @classmethod
    def written_out(cls, reading: Reading, eqns: list[Equation], start: Var, end: Var) -> Self:
        """An affine function with numbers in the code, such as 1 - z."""
        return reading.step(cls, eqns, [start], [end], "Activation", zero_at_zero=False)

    def backward(self, rule: Any, out: str) -> Backward:
        if rule.way not in (Way.UNCHANGED, Way.IDENTITY):
            return of_one(rule)
        return Backward("C", _activation) if out == "C" and self.zero_at_zero else UNCHANGED


def _longest_run(reading: Reading, var: Var) -> Var | None:
    """The start of the longest elementwise function that ends at `var` and is one activation."""
    best: Var | None = None
    nonlinear = False
    current = var
    while True:
        above = reading.dominator.get(current)
        if above is None:
            return best
        link = reading.graph.maker[current]
        is_affine = reading.is_link(link)
        if is_affine and not is_literal_link(link):
            return best
        nonlinear = nonlinear or not is_affine
        current = above
        if nonlinear:
            best = current
        if not _is_interior(reading, current):
            return best


def _is_interior(reading: Reading, var: Var) -> bool:
    """Whether a run may pass over `var`: only the run itself reads it."""
    return reading.graph.read_once(var) and reading.core(reading.chain_up(var)[1]) is None


def _activation(visit: Visit) -> list[Any]:
    """The identity rule in multiplier form: c_x = c_y f(x) / x."""

    def back(cotangent: jax.Array, saved: Any) -> jax.Array:
        return at_least_float32(cotangent) * slope(visit.step, *saved)

    return [custom(visit, back, lambda x, y, constants, rule: (x, constants))]
