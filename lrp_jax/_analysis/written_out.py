"""Products that are multiplied further part by part, written out as the products of each part.

`jnp.prod(x) * g` has one factor more than `x` has numbers, and the weights of volume rendering,
`cumprod(1 - a) * a`, have each one factor more than the one before, as loops over them say it;
`concatenate([a * b, c]) * g` has parts of three factors and of two.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from . import compat, primitives as prim
from .compat import Equation, Var, is_literal
from .factors import link
from .graph import Graph
from .indices import Known, known_in
from .numbers import with_numbers
from .otherwise import Read, computed_otherwise
from .pieces import JOINS, Together, put_together
from .primitives import Family, family
from .splice import tidied

_MOST = 32
"""More numbers stay one product."""
_REDUCE, _CUMULATIVE = compat.primitive("reduce_prod"), compat.primitive("cumprod")
_SLICE, _CONCATENATE = compat.primitive("slice"), compat.primitive("concatenate")
_PAD, _RESHAPE = compat.primitive("pad"), compat.primitive("reshape")
_REV = compat.primitive("rev")
_CUTS = compat.primitives("slice split unstack")
_MASKED = (*prim.SUMS, prim.MUL, prim.SELECT, _PAD, _CONCATENATE)


class Parts(NamedTuple):
    """A value as its parts along an axis."""

    axis: int
    values: list[Array]

    @property
    def sizes(self) -> list[int]:
        return [y.shape[self.axis] for y in self.values]

    def whole(self) -> Array:
        return jnp.concatenate(self.values, self.axis)

    def split_as(self, other: "Parts") -> "Parts":
        """Parts that end wherever those of another value of the same size end."""
        found, ends = [], {*itertools.accumulate(other.sizes)}
        for y, end in zip(self.values, itertools.accumulate(self.sizes), strict=True):
            start = end - y.shape[self.axis]
            cuts = [start, *sorted(i for i in ends if start < i < end), end]
            for low, high in itertools.pairwise(cuts):
                own = lax.slice_in_dim(y, low - start, high - start, axis=self.axis)
                found.append(y if len(cuts) == 2 else own)
        return Parts(self.axis, found)


def with_factors(
    closed_jaxpr: Any, explained: tuple[bool, ...], outputs: tuple[bool, ...] | None
) -> Any:
    """The same function with products along an axis written out, where they are multiplied further.

    Args:
        closed_jaxpr: a flat jaxpr.
        explained: for each input whether it is explained.
        outputs: for each output whether it is explained; None: all of them.
    """
    jaxpr = compat.open_jaxpr(closed_jaxpr)
    maker = compat.makers(jaxpr)
    leads = _leads(jaxpr.eqns)
    found = [e for e in jaxpr.eqns if _numbers(e) or _joined(e, maker) or _puts(e, leads, maker)]
    if not found:
        return closed_jaxpr
    graph = Graph(closed_jaxpr, explained, outputs)
    known = known_in(graph)
    starts = {id(e) for e in found if _joins(e, graph) and is_multiplied(e.outvars[0], graph)}
    together = {
        id(e): own
        for e in found
        if e.primitive in JOINS and (own := _pieces(e, leads, graph, known)) is not None
    }
    long = {e.outvars[0]: t for e in found if (t := together.get(id(e))) and len(t.runs()) > _MOST}
    starts |= {i for i, t in together.items() if len(t.runs()) <= _MOST}
    starts |= _of_parts(jaxpr.eqns, {e.outvars[0] for e in found if id(e) in together})
    if not starts and not long:
        return closed_jaxpr

    parts: dict[Var, Parts] = {}

    def is_other(eqn: Equation) -> bool:
        return id(eqn) in starts or any(
            not is_literal(a) and (a in parts or a in long) for a in eqn.invars
        )

    def way(eqn: Equation, read: Read) -> Any:
        if id(eqn) in starts and eqn.primitive is _REDUCE:
            return _product(read(eqn.invars[0]), eqn.params["axes"])
        own = _part_by_part(eqn, parts, read, graph)
        if own is None and id(eqn) in starts:
            own = _begun(eqn, together.get(id(eqn)), read)
        if own is None and eqn.primitive is _SLICE and eqn.invars[0] in long:
            own = _picked(eqn, long[eqn.invars[0]], read)
        if own is None:
            return None
        parts[eqn.outvars[0]] = own
        return own.whole()

    written = computed_otherwise(closed_jaxpr, is_other, way)
    return with_numbers(tidied(written)) if parts else written


def _leads(eqns: Sequence[Equation]) -> dict[Var, frozenset[str]]:
    """To what variables lead by moves and products: to "cuts", to "products" with others."""
    leads: dict[Var, frozenset[str]] = {}
    for eqn in reversed(eqns):
        on: frozenset[str] = frozenset().union(*(leads.get(v, ()) for v in eqn.outvars))
        if eqn.primitive in (prim.MUL, prim.DIV):
            on |= frozenset() if any(map(is_literal, eqn.invars)) else {"products"}
        elif family(eqn.primitive) is Family.PRODUCT:
            on |= {"products"}
        elif eqn.primitive in _CUTS:
            on |= {"cuts"}
        elif family(eqn.primitive) not in (Family.STRUCTURAL, Family.NEUTRAL):
            continue
        for atom in eqn.invars if on else ():
            if not is_literal(atom):
                leads[atom] = leads.get(atom, frozenset()) | on
    return leads


def _puts(
    eqn: Equation, leads: Mapping[Var, frozenset[str]], maker: Mapping[Var, Equation]
) -> bool:
    """Whether an equation may put together what is cut or multiplied afterwards."""
    if eqn.primitive not in JOINS or not leads.get(eqn.outvars[0]):
        return False
    if eqn.primitive in prim.SUMS:
        makers = [maker.get(a) for a in eqn.invars if not is_literal(a)]
        return any(e is not None and e.primitive in _MASKED for e in makers)
    return eqn.primitive is not prim.SELECT or not is_literal(eqn.invars[0])


def _pieces(
    eqn: Equation, leads: Mapping[Var, frozenset[str]], graph: Graph, known: Known
) -> Together | None:
    """How an equation puts together explained values that are cut again, or some and constants that
    are multiplied further."""
    if not graph.is_live(eqn):
        return None
    (out,) = eqn.outvars
    cut, multiplied = "cuts" in leads.get(out, ()), is_multiplied(out, graph)
    found = put_together(eqn, known) if cut or multiplied else None
    if found is None:
        return None
    sources = [a for a in found.sources if a is not None]
    own = [a for a in sources if not is_literal(a) and a in graph.live]
    makers = (_maker(a, graph.maker) for a in own)
    products = any(e is not None and multiplies(e, graph) for e in makers)
    if (cut and len(own) > 1) or (multiplied and own and (products or len(own) < len(sources))):
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
        product = multiplies(eqn, graph) or family(eqn.primitive) is Family.PRODUCT
        if product or (passes and not found.isdisjoint(eqn.outvars)):
            found.update(a for a in eqn.invars if not is_literal(a))
    return found


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


def _part_by_part(
    eqn: Equation, parts: Mapping[Var, Parts], read: Read, graph: Graph
) -> Parts | None:
    """What is made of parts by moves and products, part by part."""
    own = next((parts[a] for a in eqn.invars if not is_literal(a) and a in parts), None)
    if own is None:
        return None
    if len(eqn.outvars) != 1:
        return None
    (axis, values), (out,) = own, eqn.outvars
    same = axis < out.aval.ndim and out.aval.shape[axis] == sum(own.sizes)
    if eqn.primitive in (prim.MUL, prim.DIV) or family(eqn.primitive) is Family.NEUTRAL:
        return _computed(eqn, own, parts, read, graph) if same else None
    if eqn.primitive in prim.SHAPE_ONLY:
        return _reshaped(eqn, own)
    if eqn.primitive is _REV:
        turned = [compat.applied(eqn, y) for y in values]
        return Parts(axis, turned[::-1] if axis in eqn.params["dimensions"] else turned)
    if eqn.primitive is _PAD:
        return _padded(eqn, own, read)
    if eqn.primitive is _CONCATENATE and eqn.params["dimension"] == axis:
        found = (parts.get(a) if not is_literal(a) else None for a in eqn.invars)
        several = [
            [read(a)] if known is None or known.axis != axis else known.values
            for a, known in zip(eqn.invars, found, strict=True)
        ]
        return Parts(axis, [*itertools.chain(*several)])
    return _cut(eqn, own) if eqn.primitive is _SLICE else None


def _cut(eqn: Equation, own: Parts) -> Parts | None:
    """What a slice leaves of parts."""
    begin, end = list(eqn.params["start_indices"]), list(eqn.params["limit_indices"])
    steps = list(eqn.params["strides"] or [1] * len(begin))
    first, last, step = begin[own.axis], end[own.axis], steps[own.axis]
    kept = []
    for y, stop in zip(own.values, itertools.accumulate(own.sizes), strict=True):
        start = stop - y.shape[own.axis]
        inside = [i for i in range(first, last, step) if start <= i < stop]
        if inside:
            begin[own.axis], end[own.axis] = inside[0] - start, inside[-1] + 1 - start
            kept.append(lax.slice(y, begin, end, steps))
    return Parts(own.axis, kept) if kept else None


def _computed(
    eqn: Equation, like: Parts, parts: Mapping[Var, Parts], read: Read, graph: Graph
) -> Parts:
    for atom in eqn.invars:  # where one of them begins, all of them do
        own = None if is_literal(atom) else parts.get(atom)
        if own is not None and own.axis == like.axis:
            like = like.split_as(own)
    operands = [_parts_of(atom, like, parts, read, graph) for atom in eqn.invars]
    both = zip(*operands, strict=True)
    return Parts(like.axis, [compat.applied(eqn, *part) for part in both])


def _reshaped(eqn: Equation, own: Parts) -> Parts | None:
    """Parts with other axes beside theirs, or with theirs joined with what is inside of it."""
    if eqn.primitive is _RESHAPE and eqn.params["dimensions"] is None:
        return _regrouped(own, eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape)
    to, shape = link(eqn), list(eqn.outvars[0].aval.shape)
    axis = None if to is None else to[own.axis]
    if axis is None or shape[axis] != sum(own.sizes):
        return None
    made = []
    for y, size in zip(own.values, own.sizes, strict=True):
        shape[axis] = size
        if eqn.primitive is prim.BROADCAST:
            made.append(lax.broadcast_in_dim(y, shape, eqn.params["broadcast_dimensions"]))
        else:
            made.append(compat.applied(eqn, y))
    return Parts(axis, made)


def _regrouped(own: Parts, before: Sequence[int], after: Sequence[int]) -> Parts | None:
    """Parts that lie one after another in another shape too, in whole rows of it."""
    outer = math.prod(before[: own.axis])
    axes = [i for i in range(len(after)) if math.prod(after[:i]) == outer]
    if not axes:
        return None
    axis, inside = axes[-1], math.prod(before[own.axis + 1 :])
    row = math.prod(after[axis + 1 :])
    if not row or any(n * inside % row for n in own.sizes):
        return None
    made = [
        lax.reshape(y, (*after[:axis], n * inside // row, *after[axis + 1 :]))
        for y, n in zip(own.values, own.sizes, strict=True)
    ]
    return Parts(axis, made)


def _padded(eqn: Equation, own: Parts, read: Read) -> Parts | None:
    """Parts with a filled one before and after them."""
    sides = eqn.params["padding_config"]
    low, high, between = sides[own.axis]
    if between or min(low, high) < 0 or any(any(s) for i, s in enumerate(sides) if i != own.axis):
        return None
    value, shape = read(eqn.invars[1]), list(own.values[0].shape)

    def filled(size: int) -> list[Array]:
        shape[own.axis] = size
        return [jnp.full(shape, value)] if size else []

    return Parts(own.axis, [*filled(low), *own.values, *filled(high)])


def _parts_of(
    atom: Any, like: Parts, parts: Mapping[Var, Parts], read: Read, graph: Graph
) -> list[Any]:
    """The parts of an operand beside those of another one: of a product, its factors' parts."""
    known = None if is_literal(atom) else parts.get(atom)
    if known is not None and known.axis == like.axis and sum(known.sizes) == sum(like.sizes):
        return known.split_as(like).values
    eqn = None if is_literal(atom) else graph.maker.get(atom)
    if eqn is not None and multiplies(eqn, graph) and graph.read_once(atom):
        return _computed(eqn, like, parts, read, graph).values
    value, ends = read(atom), [*itertools.accumulate(like.sizes)]
    if not atom.aval.shape or atom.aval.shape[like.axis] != ends[-1]:
        return [value] * len(ends)
    begins = (end - n for end, n in zip(ends, like.sizes, strict=True))
    return [
        lax.slice_in_dim(value, a, b, axis=like.axis) for a, b in zip(begins, ends, strict=True)
    ]


def multiplies(eqn: Equation, graph: Graph) -> bool:
    return eqn.primitive in (prim.MUL, prim.DIV) and graph.explained_operands(eqn) == [0, 1]
