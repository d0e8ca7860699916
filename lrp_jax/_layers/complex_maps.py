"""Complex numbers on the way of relevance: linear maps from real numbers to real numbers.

Fourier layers, and state spaces with complex modes, take real numbers to real numbers by complex
ones. Relevance is real: such a stretch is one linear map, R_i = x_i sum_j J_ij R_j / S(z_j), and so
is a magnitude |u| at its end, which grows in proportion to its input.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import jax

from .._analysis import compat, primitives as prim
from .._analysis.compat import Equation, Var, is_literal
from .._analysis.graph import Graph, is_complex, is_float
from .._analysis.primitives import Family, family
from .._analysis.trace import inline
from .linear import Linear, LinearLayer
from .reading import Reading
from .step import Place, UnsupportedOperation
from .sums import first_of
from .whole_map import WholeMap

_LINEAR = (
    Family.COMPLEX,
    Family.NEUTRAL,
    Family.STRUCTURAL,
    Family.SUM,
    Family.SCATTER_SUM,
)  # fmt: skip


@dataclass(frozen=True, eq=False, kw_only=True)
class ComplexMap(Linear):
    """A linear map from real numbers to real numbers, by way of complex ones.

    Attributes:
        shifted: whether complex constants may be added on the way.
    """

    shifted: bool

    @classmethod
    def recognise(cls, reading: Reading, var: Var) -> Self | None:
        region = _between_reals(reading.graph, var)
        if region is None:
            return None
        eqns, inputs, refused = region
        if refused is not None:
            raise UnsupportedOperation(
                f"{reading.refusal(refused)} Of complex numbers there are linear operations "
                "between real ones, and magnitudes: write others with real and imaginary parts as "
                "two arrays."
            )
        shifted = any(_adds_constant(e, reading.graph) for e in eqns)
        return reading.step(cls, eqns, inputs, [var], "Merge", shifted=shifted)

    def view(
        self, place: Place, xs: Sequence[Any], constants: Sequence[Any], y: jax.Array,
        relevance: jax.Array, bias: str,
    ) -> LinearLayer:  # fmt: skip
        view = WholeMap(partial(first_of, place.native, constants), xs, y, relevance)
        view.what = f"the linear map of complex numbers in {self.name} ({self.source})"
        if self.shifted:
            view.shift(bias)
        return view


def _between_reals(
    graph: Graph, var: Var
) -> tuple[list[Equation], list[Var], Equation | None] | None:
    """The stretch of complex numbers that ends at `var`, or None where none does.

    Returns:
        Its equations in order, the real variables it starts from, and an equation that is not
        linear, if there is one (with complex numbers that nothing makes, their reader).
    """
    last = graph.maker[var]
    if not (is_complex(var) or _reads_complex(graph, last)):
        return None
    found: dict[int, Equation] = {}
    starts: dict[Var, None] = {}
    refused = last if is_complex(var) else None  # nobody can hand it real relevance
    todo = [last]
    while todo:
        eqn = todo.pop()
        where = next(graph.position[v] for v in eqn.outvars if not compat.is_dropped(v))
        if where in found:
            continue
        found[where] = eqn
        operands = graph.explained_operands(eqn)
        magnitude = eqn is last and eqn.primitive is prim.ABS
        if not (magnitude or _is_linear(eqn, operands)):
            refused = eqn
        for atom in (eqn.invars[i] for i in operands):
            if not is_complex(atom):
                starts[atom] = None
            elif atom in graph.maker:
                todo.append(graph.maker[atom])
            else:
                refused = eqn
    return [found[i] for i in sorted(found)], list(starts), refused


def _adds_constant(eqn: Equation, graph: Graph) -> bool:
    """Whether an equation may add constants, as the bias of a layer does."""
    if eqn.primitive in (prim.MUL, prim.DIV) or family(eqn.primitive) is Family.CONTRACTION:
        return False
    explained = graph.explained_operands(eqn)
    others = [a for i, a in enumerate(eqn.invars) if i not in explained]
    return any(map(is_float, others))


def _reads_complex(graph: Graph, eqn: Equation) -> bool:
    if any(is_complex(eqn.invars[i]) for i in graph.explained_operands(eqn)):
        return True
    if eqn.primitive is not prim.SCAN:
        return False
    constants, carries = compat.scan_arity(eqn)
    return any(is_complex(a) for a in eqn.invars[constants : constants + carries]) and _is_linear(
        eqn, graph.explained_operands(eqn)
    )


def _is_linear(eqn: Equation, operands: Sequence[int]) -> bool:
    """Whether an equation is linear (or affine) in some of its operands together."""
    kind, primitive = family(eqn.primitive), eqn.primitive
    if primitive in prim.SUMS or primitive is prim.NEG or kind in _LINEAR:
        return True
    if primitive is prim.DIV:
        return list(operands) == [0]
    if primitive is prim.MUL or kind is Family.CONTRACTION:
        return len(operands) == 1
    return kind is Family.CONTROL and _is_linear_body(eqn, operands)


def _is_linear_body(eqn: Equation, operands: Sequence[int]) -> bool:
    if eqn.primitive not in (prim.SCAN, prim.REMAT):
        return False
    jaxpr = compat.open_jaxpr(inline(compat.closed(eqn.params["jaxpr"])))
    constants, carries = compat.scan_arity(eqn) if eqn.primitive is prim.SCAN else (0, 0)
    explained = {jaxpr.invars[i] for i in operands}
    while True:  # what a step explains, the next step's carry brings in
        reached = set(explained)
        for inner in jaxpr.eqns:
            own = [i for i, a in enumerate(inner.invars) if not is_literal(a) and a in reached]
            if own and family(inner.primitive) is not Family.DETACH:
                if not _is_linear(inner, own):
                    return False
                reached.update(inner.outvars)
        carried = zip(jaxpr.invars[constants : constants + carries], jaxpr.outvars, strict=False)
        fresh = {v for v, a in carried if not is_literal(a) and a in reached} - explained
        if not fresh:
            return True
        explained |= fresh
