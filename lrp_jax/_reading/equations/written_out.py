"""Products that are multiplied further part by part, written out as the products of each part.

`jnp.prod(x) * g` has one factor more than `x` has numbers, and the weights of volume rendering,
`cumprod(1 - a) * a`, have each one factor more than the one before, as loops over them say it;
`concatenate([a * b, c]) * g` has parts of three factors and of two.
"""

import itertools
import math
from collections.abc import Container, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.draft import Draft
from ..._analysis.factors import link
from ..._analysis.graph import Graph
from ..._analysis.indices import Known, known_in
from ..._analysis.numbers import with_numbers
from ..._analysis.otherwise import Read
from ..._analysis.primitives import Family, family
from ..._analysis.splice import tidied
from .part_by_part import Parts, multiplies, part_by_part
from .pieces import JOINS, Together, put_together

_MOST = 32
"""More numbers stay one product."""
_REDUCE, _CUMULATIVE = compat.primitive("reduce_prod"), compat.primitive("cumprod")
_SLICE, _CONCATENATE = compat.primitive("slice"), compat.primitive("concatenate")
_PAD = compat.primitive("pad")
_IN_PLACE = compat.primitives("concatenate pad rev select_n dynamic_update_slice scatter")
Lead = int
"""An axis that is cut, or one of these."""
_PRODUCTS, _SOMEWHERE = -1, -2
"""Products with others; cuts of axes that nobody followed."""
_MASKED = (*prim.SUMS, prim.MUL, prim.SELECT, _PAD, _CONCATENATE)


def with_factors(draft: Draft) -> Draft:
    """The same function, products along an axis written out where they are multiplied further."""
    eqns, maker = draft.eqns, compat.makers(compat.open_jaxpr(draft.closed))
    leads = _leads(eqns)
    found = [e for e in eqns if _numbers(e) or _joined(e, maker) or _puts(e, leads, maker)]
    if not found:
        return draft
    graph = draft.graph
    known = known_in(graph)
    starts = {id(e) for e in found if _joins(e, graph) and is_multiplied(e.outvars[0], graph)}
    together: dict[int, Together] = {}
    for eqn in found:
        if eqn.primitive in JOINS and (own := _pieces(eqn, leads, graph, known, together)):
            together[id(eqn)] = own
    long = {e.outvars[0]: t for e in found if (t := together.get(id(e))) and len(t.runs()) > _MOST}
    starts |= {i for i, t in together.items() if len(t.runs()) <= _MOST}
    starts |= _of_parts(eqns, {e.outvars[0] for e in found if id(e) in together})
    if not starts and not long:
        return draft

    parts: dict[Var, Parts] = {}

    def is_other(eqn: Equation) -> bool:
        return id(eqn) in starts or any(
            not is_literal(a) and (a in parts or a in long) for a in eqn.invars
        )

    def way(eqn: Equation, read: Read) -> Any:
        if id(eqn) in starts and eqn.primitive is _REDUCE:
            return _product(read(eqn.invars[0]), eqn.params["axes"])
        if _is_square(eqn) and not is_multiplied(eqn.outvars[0], graph):
            return None  # in a statistic, other things are made of the whole too
        own = part_by_part(eqn, parts, read, graph)
        if own is None and id(eqn) in starts:
            own = _begun(eqn, together.get(id(eqn)), read)
        if own is None and eqn.primitive is _SLICE and eqn.invars[0] in long:
            own = _picked(eqn, long[eqn.invars[0]], read)
        if own is None:
            return None
        parts[eqn.outvars[0]] = own
        return own.whole()

    written = draft.otherwise(is_other, way)
    return written.written(with_numbers(tidied(written.closed))) if parts else written


def _leads(eqns: Sequence[Equation]) -> dict[Var, frozenset[Lead]]:
    """To what variables lead by moves and products: to products with others, to cuts of an axis."""
    leads: dict[Var, frozenset[Lead]] = {}
    for eqn in reversed(eqns):
        on = frozenset[Lead]().union(*(leads.get(v, ()) for v in eqn.outvars))
        if eqn.primitive in (prim.MUL, prim.DIV):
            on |= frozenset() if any(map(is_literal, eqn.invars)) else {_PRODUCTS}
        elif family(eqn.primitive) is Family.PRODUCT:
            on = _before(eqn, on) | {_PRODUCTS}
        elif family(eqn.primitive) in (Family.STRUCTURAL, Family.NEUTRAL):
            on = _before(eqn, on)
        else:
            continue
        for atom in eqn.invars if on else ():
            if not is_literal(atom):
                leads[atom] = leads.get(atom, frozenset()) | on
    return leads


def _before(eqn: Equation, leads: frozenset[Lead]) -> frozenset[Lead]:
    """To what a move leads: the axes that are cut are those of what is moved."""
    if eqn.primitive is _SLICE:
        shapes = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
        return leads | {i for i, (n, m) in enumerate(zip(*shapes, strict=True)) if n != m}
    if eqn.primitive in _IN_PLACE or family(eqn.primitive) is Family.NEUTRAL:
        return leads
    to = link(eqn) if eqn.primitive in prim.SHAPE_ONLY else None
    if to is None:
        return frozenset(lead if lead == _PRODUCTS else _SOMEWHERE for lead in leads)
    places = {place: axis for axis, place in enumerate(to) if place is not None}
    return frozenset(places.get(lead, lead) for lead in leads if lead < 0 or lead in places)


def _puts(
    eqn: Equation, leads: Mapping[Var, frozenset[Lead]], maker: Mapping[Var, Equation]
) -> bool:
    """Whether an equation may put together what is cut or multiplied afterwards, or adds what was
    padded."""
    if eqn.primitive not in JOINS:
        return False
    if eqn.primitive in prim.SUMS:
        makers = [maker.get(a) for a in eqn.invars if not is_literal(a)]
        kinds = _MASKED if leads.get(eqn.outvars[0]) else (_PAD,)
        return any(e is not None and e.primitive in kinds for e in makers)
    if not leads.get(eqn.outvars[0]):
        return False
    return eqn.primitive is not prim.SELECT or not is_literal(eqn.invars[0])


def _pieces(
    eqn: Equation,
    leads: Mapping[Var, frozenset[Lead]],
    graph: Graph,
    known: Known,
    before: Container[int],
) -> Together | None:
    """How an equation puts together explained values that are cut again, or some and constants that
    are multiplied further.

    Args:
        eqn: the equation.
        leads: see `_leads`.
        graph: the function.
        known: what the code knows.
        before: the `id` of those found before it.
    """
    if not graph.is_live(eqn):
        return None
    (out,) = eqn.outvars
    on, multiplied = leads.get(out, frozenset()), is_multiplied(out, graph)
    sums = eqn.primitive in prim.SUMS
    found = put_together(eqn, known) if on - {_PRODUCTS} or multiplied or sums else None
    if found is None:
        return None
    cut = not on.isdisjoint((found.axis, _SOMEWHERE))
    sources = [a for a in found.sources if a is not None]
    own = [a for a in sources if not is_literal(a) and a in graph.live]
    makers = (_maker(a, graph.maker) for a in own)
    products = any(e is not None and (multiplies(e, graph) or id(e) in before) for e in makers)
    if ((cut or sums) and len(own) > 1) or (
        multiplied and own and (products or len(own) < len(sources))
    ):
        return found
    return None


def _of_parts(eqns: Sequence[Equation], apart: set[Var]) -> set[int]:
    """By `id` what multiplies numbers of values that are put together, or of what they move to."""
    found = set()
    for eqn in eqns if apart else ():
        if apart.isdisjoint(a for a in eqn.invars if not is_literal(a)):
            continue
        if _numbers(eqn):
            found.add(id(eqn))
        elif family(eqn.primitive) in (Family.STRUCTURAL, Family.NEUTRAL):
            apart.update(eqn.outvars)
    return found


def _numbers(eqn: Equation) -> bool:
    """Whether an equation multiplies some numbers along axes."""
    if eqn.primitive not in (_REDUCE, _CUMULATIVE):
        return False
    shape, axis = eqn.invars[0].aval.shape, eqn.params.get("axis")
    axes = eqn.params["axes"] if axis is None else [axis]
    return 1 < math.prod(shape[i] for i in axes) <= _MOST


def _joined(eqn: Equation, maker: Mapping[Var, Equation]) -> list[Equation]:
    """The products that are put side by side, or beside something else."""
    if eqn.primitive is not _CONCATENATE or len(eqn.invars) > _MOST:
        return []
    makers = (None if is_literal(a) else _maker(a, maker) for a in eqn.invars)
    return [e for e in makers if e is not None and e.primitive in (prim.MUL, prim.DIV)]


def _maker(var: Var, maker: Mapping[Var, Equation]) -> Equation | None:
    """What makes a variable, before its shape or type changes."""
    eqn = maker.get(var)
    while eqn is not None and prim.changes_no_number(eqn.primitive):
        if is_literal(eqn.invars[0]):
            return None
        eqn = maker.get(eqn.invars[0])
    return eqn


def _joins(eqn: Equation, graph: Graph) -> bool:
    """Whether an equation multiplies numbers, or joins products that nobody else reads."""
    products = _joined(eqn, graph.maker)
    return _numbers(eqn) or any(
        multiplies(e, graph) and graph.read_once(e.outvars[0]) for e in products
    )


def is_multiplied(var: Var, graph: Graph) -> bool:
    """Whether a variable, or parts of it, are factors of a larger product."""
    return var in graph.once(_multiplied)


def _multiplied(graph: Graph) -> set[Var]:
    found: set[Var] = set()
    for eqn in reversed(graph.eqns):
        if not graph.is_live(eqn):
            continue
        passes = eqn.primitive in (prim.MUL, prim.DIV) or family(eqn.primitive) in (
            Family.STRUCTURAL, Family.NEUTRAL
        )  # fmt: skip
        product = multiplies(eqn, graph) and not _is_square(eqn)
        product = product or family(eqn.primitive) is Family.PRODUCT
        if product or (passes and not found.isdisjoint(eqn.outvars)):
            found.update(a for a in eqn.invars if not is_literal(a))
    return found


def _is_square(eqn: Equation) -> bool:
    """Whether an equation is a function of one value, written as a product."""
    return eqn.primitive is prim.MUL and eqn.invars[0] is eqn.invars[1]


def _product(x: Array, axes: tuple[int, ...]) -> Any:
    """A product of slices."""
    total: Any = None
    for place in itertools.product(*(range(x.shape[axis]) for axis in axes)):
        part = x
        for axis, i in zip(axes, place, strict=True):
            part = lax.slice_in_dim(part, i, i + 1, axis=axis)
        total = part if total is None else total * part
    return lax.squeeze(total, axes)


def _begun(eqn: Equation, together: Together | None, read: Read) -> Parts:
    """The numbers of a cumulative product, or what is put together."""
    if together is not None:
        return Parts(together.axis, together.values(read, eqn.outvars[0].aval))
    if eqn.primitive is _CONCATENATE:
        return Parts(eqn.params["dimension"], [read(a) for a in eqn.invars])
    (x,), axis = map(read, eqn.invars), eqn.params["axis"]
    numbers = [lax.slice_in_dim(x, i, i + 1, axis=axis) for i in range(x.shape[axis])]
    if eqn.params["reverse"]:
        return Parts(axis, [*itertools.accumulate(numbers[::-1], jnp.multiply)][::-1])
    return Parts(axis, [*itertools.accumulate(numbers, jnp.multiply)])


def _picked(eqn: Equation, together: Together, read: Read) -> Parts | None:
    """A slice that lies in one of the values that are put together in turns."""
    low, high = (list(eqn.params[name]) for name in ("start_indices", "limit_indices"))
    steps = list(eqn.params["strides"] or [1] * len(low))
    axis = together.axis
    cut = together.cut(slice(low[axis], high[axis], steps[axis]))
    if len(cut.runs()) > 1:
        return None
    (value,) = cut.values(read, eqn.invars[0].aval)
    low[axis], high[axis], steps[axis] = 0, value.shape[axis], 1
    return Parts(axis, [lax.slice(value, low, high, steps)])
