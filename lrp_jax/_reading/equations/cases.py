"""Products with what is a constant in one of two cases, case by case: there it is no factor.

`a * where(mask, c, 1)` is `where(mask, a * c, a)`, where the mask is a constant of the explanation;
so is what multiplies that further.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jax import Array, lax

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.draft import Draft
from ..._analysis.factors import link
from ..._analysis.graph import Graph
from ..._analysis.indices import Known
from ..._analysis.otherwise import Read
from .part_by_part import multiplies
from .written_out import is_multiplied

_SLICE = compat.primitive("slice")


class Cases(NamedTuple):
    """A value that is one of two, number by number, by a mask."""

    mask: Array
    values: tuple[Array, Array]

    def whole(self) -> Array:
        return lax.select_n(self.mask, *self.values)


def with_cases(draft: Draft) -> Draft:
    """The same function, products with what is a constant in one of two cases written for each."""
    found = [e for e in draft.eqns if _chooses(e)]
    if not found or not any(e.primitive in (prim.MUL, prim.DIV) for e in draft.eqns):
        return draft
    graph = draft.graph
    known = Known(graph.maker, {})
    starts = {id(e) for e in found if _begins(e, graph, known)}
    if not starts:
        return draft
    cases: dict[Var, Cases] = {}

    def is_other(eqn: Equation) -> bool:
        return id(eqn) in starts or any(not is_literal(a) and a in cases for a in eqn.invars)

    def way(eqn: Equation, read: Read) -> Any:
        if id(eqn) in starts:
            mask, *values = map(read, eqn.invars)
            constant = [not flag for flag in graph.explained_flags(eqn)[1:]]
            # Where it is not chosen, a value may be infinite: the whole is not.
            own = read(eqn.outvars[0]) if any(constant) else None
            both = (y if own is None or flag else own
                    for y, flag in zip(values, constant, strict=True))  # fmt: skip
            cases[eqn.outvars[0]] = Cases(mask, tuple(both))  # type: ignore[arg-type]
            return None
        made = _case_by_case(eqn, cases, read, graph)
        if made is None:
            return None
        cases[eqn.outvars[0]] = made
        return made.whole()

    return draft.otherwise(is_other, way)


def _chooses(eqn: Equation) -> bool:
    return eqn.primitive is prim.SELECT and len(eqn.invars) == 3 and not is_literal(eqn.invars[0])


def _begins(eqn: Equation, graph: Graph, known: Known) -> bool:
    """Whether an equation chooses, by a constant mask, between an explained value and constants
    that are not zero, or a product, and is multiplied further."""
    mask, *cases = eqn.invars
    if not graph.is_live(eqn) or mask in graph.touched or mask.aval.shape != cases[0].aval.shape:
        return False
    explained = [i > 0 for i in range(3) if i in graph.explained_operands(eqn)]
    if len(explained) == 1:
        constant = next(a for a in cases if is_literal(a) or a not in graph.live)
        begins = not known.is_zero(constant)
    else:
        makers = (graph.maker.get(a) for a in cases if not is_literal(a))
        begins = any(e is not None and multiplies(e, graph) for e in makers)
    return begins and is_multiplied(eqn.outvars[0], graph)


def _case_by_case(
    eqn: Equation, cases: Mapping[Var, Cases], read: Read, graph: Graph
) -> Cases | None:
    """What is made of cases by moves and products."""
    own = next(cases[a] for a in eqn.invars if not is_literal(a) and a in cases)
    if eqn.primitive in (prim.MUL, prim.DIV):
        if own.mask.shape != eqn.outvars[0].aval.shape:
            return None

        def case(atom: Any, i: int) -> Any:
            known = None if is_literal(atom) else cases.get(atom)
            if known is not None and known.mask is own.mask:
                return known.values[i]
            inner = None if is_literal(atom) else graph.maker.get(atom)
            if inner is not None and multiplies(inner, graph) and graph.read_once(atom):
                return compat.applied(inner, *(case(a, i) for a in inner.invars))
            return read(atom)

        made = [compat.applied(eqn, *(case(a, i) for a in eqn.invars)) for i in range(2)]
        return Cases(own.mask, (made[0], made[1]))
    if (link(eqn) is not None and eqn.primitive in prim.SHAPE_ONLY) or eqn.primitive is _SLICE:
        mask, *made = (compat.applied(eqn, y) for y in (own.mask, *own.values))
        return Cases(mask, (made[0], made[1]))
    return None
