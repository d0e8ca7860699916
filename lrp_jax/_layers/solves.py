"""Solutions of linear equations with a constant matrix: linear maps of their right-hand side."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import jax

from .._analysis import primitives as prim
from .._analysis.compat import Equation, Var
from .._analysis.primitives import Family, family
from .linear import Linear, LinearLayer
from .reading import Reading
from .step import Place, UnsupportedOperation
from .sums import first_of
from .whole_map import WholeMap


@dataclass(frozen=True, eq=False, kw_only=True)
class Solve(Linear):
    """x with A x = b, as a function of b alone."""

    @classmethod
    def recognise(cls, reading: Reading, var: Var) -> Self | None:
        eqn = reading.graph.maker[var]
        if family(eqn.primitive) is not Family.SOLVE:
            return None
        operands = reading.graph.explained_operands(eqn)
        if min(operands) < _right_hand_side(eqn) or len(eqn.outvars) > 1:
            raise UnsupportedOperation(
                f"{reading.refusal(eqn)} A solution is explained by one right-hand side, given a "
                "matrix that is constant."
            )
        return reading.step(cls, [eqn], [eqn.invars[i] for i in operands], [var], "Merge")

    def view(
        self, place: Place, xs: Sequence[Any], constants: Sequence[Any], y: jax.Array,
        relevance: jax.Array, bias: str,
    ) -> LinearLayer:  # fmt: skip
        view = WholeMap(partial(first_of, place.native, constants), xs, y, relevance)
        view.what = f"the linear system in {self.name} ({self.source})"
        return view


def _right_hand_side(eqn: Equation) -> int:
    """The position of the first operand that is no part of the matrix."""
    if eqn.primitive is prim.LINEAR_SOLVE:  # what its solver reads besides is not differentiated
        return int(eqn.params["const_lengths"].matvec)
    return 3 if eqn.primitive is prim.TRIDIAGONAL_SOLVE else 1
