"""Numbers that are picked along an axis, by indices of the code or of the function.

A sum of numbers times a one-hot vector picks one too, where the vector comes from the place of the
largest number, as of a router that was written for matrix units.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.graph import Graph
from ..._analysis.indices import Known
from ..._analysis.places import Place
from ..._analysis.primitives import Family, family

Read = Callable[[Var], Any]
_TOP_K, _SORT, _GATHER, _SLICE, _EQUAL, _CONCATENATE = map(
    compat.primitive, ("top_k", "sort", "gather", "dynamic_slice", "eq", "concatenate")
)
_PICKS = frozenset((_TOP_K, _SORT, _GATHER, _SLICE))
"""Primitives that pick numbers by indices which are computed."""
_PLACES = compat.primitives("argmax argmin top_k sort")
"""And those that make indices, which are never out of bounds."""
_MOVES = (Family.STRUCTURAL, Family.NEUTRAL, Family.DETACH)


class Picked(NamedTuple):
    """Numbers of a variable that are picked along one of its axes.

    Attributes:
        var: the variable.
        axis: of it.
        axes: for each axis of what is picked the axis of the variable, None where it has none.
        of: the same numbers of another value of the shape of the variable.
    """

    var: Var
    axis: int
    axes: tuple[int | None, ...]
    of: Callable[[Any, Read], Any]


def placed(place: Place) -> Picked | None:
    """What indices of the code pick along one axis."""
    if len(place.cut) != 1 or place.has_zeros:
        return None
    (axis,) = place.cut
    return Picked(
        place.var, axis, tuple(a for a, _ in place.axes), lambda value, read: place.of(value)
    )


def picked_by(eqn: Equation, graph: Graph, known: Known) -> Picked | None:
    """What computed indices pick along one axis, or the largest numbers in their order."""
    if eqn.primitive in (prim.REDUCE_SUM, prim.DOT):
        return _by_one_hot(eqn, graph, known)
    if eqn.primitive not in _PICKS or is_literal(eqn.invars[0]):
        return None
    var, (out, *_) = eqn.invars[0], eqn.outvars
    shape, own = var.aval.shape, tuple(range(len(var.aval.shape)))
    if eqn.primitive is _TOP_K:
        axis = eqn.params.get("axis", len(shape) - 1)

        def largest(value: Any, read: Read) -> Any:
            _, indices = eqn.primitive.bind(read(var), **eqn.params)
            return jnp.take_along_axis(value, indices, axis)

        return Picked(var, axis, own, largest)
    if eqn.primitive is _SORT:
        axis = eqn.params["dimension"]
        return Picked(
            var, axis, own,
            lambda v, read: jnp.take_along_axis(v, jnp.argsort(read(var), axis), axis),
        ) if len(eqn.invars) == 1 else None  # fmt: skip

    def again(value: Any, read: Read) -> Any:
        indices = (a.val if is_literal(a) else read(a) for a in eqn.invars[1:])
        return eqn.primitive.bind(value, *indices, **eqn.params)

    sizes = eqn.params["slice_sizes"]
    if eqn.primitive is _SLICE:
        cut = [i for i in own if sizes[i] != shape[i]]
        return Picked(var, cut[0], own, again) if len(cut) == 1 else None
    numbers, fill = eqn.params["dimension_numbers"], eqn.params["fill_value"]
    if fill is not None and fill == fill:  # a number in place of what is out of bounds
        return None
    cut = [i for i in own if sizes[i] != shape[i] and i not in numbers.operand_batching_dims]
    if len(cut) != 1 or tuple(numbers.start_index_map) != tuple(cut):
        return None
    axes: list[int | None] = [None] * len(out.aval.shape)
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    for where, i in zip(numbers.offset_dims, (i for i in own if i not in gone), strict=True):
        axes[where] = i
    batch = [i for i in range(len(axes)) if i not in numbers.offset_dims]
    pairs = zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True)
    for i, where in pairs:
        axes[batch[where]] = i
    return Picked(var, cut[0], tuple(axes), again)


# -- one-hot vectors ------------------------------------------------------------------------------


def _by_one_hot(eqn: Equation, graph: Graph, known: Known) -> Picked | None:
    """What a sum over an axis picks that multiplies by one-hot vectors."""
    if eqn.primitive is prim.DOT:
        return _by_product(eqn, graph, known)
    product, axes = graph.maker.get(eqn.invars[0]), eqn.params["axes"]
    if product is None or product.primitive is not prim.MUL or len(axes) != 1:
        return None
    explained, (axis,) = graph.explained_operands(product), axes
    if len(explained) != 1:
        return None
    x, hot = product.invars[explained[0]], product.invars[1 - explained[0]]
    indices = _indices(hot, axis, graph, known)
    if indices is None or x.aval.shape != product.outvars[0].aval.shape:
        return None

    def of(value: Any, read: Read) -> Any:
        shape = [1 if i == axis else n for i, n in enumerate(value.shape)]
        where = jnp.broadcast_to(indices(read), shape)
        return jax.lax.squeeze(jnp.take_along_axis(value, where, axis), [axis])

    return Picked(x, axis, tuple(i for i in range(x.aval.ndim) if i != axis), of)


def _by_product(eqn: Equation, graph: Graph, known: Known) -> Picked | None:
    """What a matrix product with one-hot vectors picks."""
    if graph.explained_operands(eqn) != [0]:
        return None
    (contracted, batch), (x, hot) = prim.dot_numbers(eqn), eqn.invars
    if len(contracted[0]) != 1 or len(batch[0]) + 1 < x.aval.ndim:
        return None
    (axis,), (along,) = contracted
    indices = _indices(hot, along, graph, known)
    if indices is None:
        return None
    free = [i for i in range(hot.aval.ndim) if i not in (along, *batch[1])]

    def chosen(value: Any, read: Read) -> Any:
        where = jnp.broadcast_to(
            indices(read), [1 if i == along else n for i, n in enumerate(hot.aval.shape)]
        )
        where = jax.lax.transpose(where, [*batch[1], *free, along])
        rows = jax.lax.transpose(value, [*batch[0], axis])
        flat = where.reshape(*rows.shape[:-1], -1)
        return jnp.take_along_axis(rows, flat, rows.ndim - 1).reshape(where.shape[:-1])

    return Picked(x, axis, (*batch[0], *[None] * len(free)), chosen)


def _indices(hot: Any, axis: int, graph: Graph, known: Known) -> Callable[[Read], Any] | None:
    """The indices of one-hot vectors along an axis, of size one there; None of anything else."""
    while (eqn := maker_of(hot, graph)) is not None and family(eqn.primitive) is Family.NEUTRAL:
        hot = eqn.invars[0]
    if eqn is None:
        return None
    if eqn.primitive is prim.BROADCAST and axis in eqn.params["broadcast_dimensions"]:
        where = [int(i) for i in eqn.params["broadcast_dimensions"]]
        before = _indices(eqn.invars[0], where.index(axis), graph, known)
        shape = [1 if i == axis else n for i, n in enumerate(eqn.outvars[0].aval.shape)]
        return before and _spread(before, shape, where)
    if eqn.primitive is _CONCATENATE and (along := eqn.params["dimension"]) != axis:
        parts = [_indices(a, axis, graph, known) for a in eqn.invars]
        whole = [part for part in parts if part is not None]
        if len(whole) < len(parts):
            return None
        return lambda read: jax.lax.concatenate([part(read) for part in whole], along)
    if eqn.primitive is not _EQUAL:
        return None
    for indices, counted in (eqn.invars, eqn.invars[::-1]):
        row = known.indices(counted)
        if row is None or is_literal(indices) or indices.aval.ndim != row.ndim:
            continue
        line = [-1 if i == axis else 1 for i in range(row.ndim)]
        counts = row.shape[axis] > 1 and (row == np.arange(row.shape[axis]).reshape(line)).all()
        if counts and indices.aval.shape[axis] == 1 and _is_a_place(indices, graph):
            return lambda read, indices=indices: read(indices)  # type: ignore[misc]
    return None


def _spread(
    indices: Callable[[Read], Any], shape: list[int], where: list[int]
) -> Callable[[Read], Any]:
    return lambda read: jax.lax.broadcast_in_dim(indices(read), shape, where)


def _is_a_place(var: Any, graph: Graph) -> bool:
    """Whether indices are the places of largest numbers, moved."""
    while (eqn := maker_of(var, graph)) is not None and eqn.primitive not in _PLACES:
        if family(eqn.primitive) not in _MOVES:
            return False
        var = eqn.invars[0]
    return eqn is not None


def maker_of(var: Any, graph: Graph) -> Equation | None:
    return None if is_literal(var) else graph.maker.get(var)
