"""Sums of a matrix product over one of its axes, in whatever order they are taken.

The sum of a row of q k^T is q times the sum of k: linear attention divides by the latter.
"""

from collections.abc import Mapping
from typing import Any

from ..._analysis import primitives as prim
from ..._analysis.compat import is_literal
from ..._analysis.factors import Factor, Index, joined, link, through
from ..softmaxes.exponentials import Exponentials
from ..softmaxes.weighted_mean import labelled

_DEEPEST = 12
Product = tuple[dict[Factor, Any], frozenset[int]]
"""Powers of factors, and the labels that they are summed over."""


def axes_summed(
    atom: Any, axes: Index, total: Factor, exponentials: Exponentials
) -> tuple[int, ...] | None:
    """The axes of a matrix product over which a variable is its sum, or None.

    Args:
        atom: the matrix product.
        axes: its labels.
        total: the variable.
        exponentials: of their graph.
    """
    eqn = None if is_literal(atom) else exponentials.graph.maker.get(atom)
    if eqn is None or eqn.primitive is not prim.DOT or None in axes:
        return None
    own = _opened(atom, axes, exponentials, 0)
    whole = _opened(total.var, total.axes, exponentials, 0)
    summed = {a for a in axes if a is not None} - total.labels
    bound = own[1] | summed
    if not summed or len(own[0]) != len(whole[0]) or len(bound) != len(whole[1]):
        return None
    for labels in labelled(list(own[0].items()), whole[0], {}, bound):
        if set(labels.values()) == whole[1]:
            return tuple(i for i, a in enumerate(axes) if a in summed)
    return None


def _opened(atom: Any, index: Index, exponentials: Exponentials, depth: int) -> Product:
    """A variable as a sum of products of explained values, as far as it is one."""
    graph, var = exponentials.graph, exponentials.rep(atom)
    opaque: Product = ({Factor(var, index): 1}, frozenset())
    eqn = None if is_literal(atom) else graph.maker.get(var)
    if eqn is None or depth > _DEEPEST:
        return opaque
    axes = link(eqn)
    if axes is not None:
        inner = through(eqn.invars[0], axes, index)
        return _opened(eqn.invars[0], inner, exponentials, depth + 1)
    if eqn.primitive is prim.REDUCE_SUM:
        inner, bound = exponentials.summed(eqn, index)
        powers, more = _opened(eqn.invars[0], inner, exponentials, depth + 1)
        return powers, more | bound
    if graph.explained_operands(eqn) != [0, 1] or eqn.primitive not in (prim.DOT, prim.MUL):
        return opaque
    if eqn.primitive is prim.DOT:
        indices, bound = exponentials.contraction(eqn, index)
    else:
        first, second = (through(a, None, index) for a in eqn.invars)
        indices, bound = (first, second), frozenset()
    product: Mapping[Factor, Any] = {}
    for operand, inner in zip(eqn.invars, indices, strict=True):
        found, more = _opened(operand, inner, exponentials, depth + 1)
        product, bound = joined(product, found), bound | more
    return dict(product), bound
