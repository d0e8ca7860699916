"""One function, one form: products that are written apart, as the layers that they are.

Where a product is no layer as it stands, but is one in the normal form of `_analysis.monomials`, it
is computed a second time in the way that the families recognise. The user's own equations give the
value and the second way the derivative (`keep`), so only what is recognised changes.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from .._analysis import primitives as prim
from .._analysis.compat import Equation, Var, is_literal
from .._analysis.factors import (
    Factor,
    constant,
    joined,
    link,
    number_of,
    own_index,
    powers_of,
    product_operands,
    raised,
    through,
)
from .._analysis.graph import Graph, is_float
from .._analysis.monomials import Monomials
from .._analysis.primitives import Family, family
from .._layers.step import SOFTMAX, Found
from .products.combinations import combined
from .products.negations import undone
from .products.normalised import normalised
from .products.past_moves import past_moves
from .rewriting import rewritten
from .softmaxes.exponentials import Exponentials
from .softmaxes.log_shares import log_of_sum, log_share
from .softmaxes.log_sums import logarithm
from .softmaxes.shifted_logits import without_numbers
from .softmaxes.softmax_forms import Made, aligned, times
from .softmaxes.weighted_mean import found_in

Read = Callable[[Var], Any]


def normal_form(
    graph: Graph,
    dominator: Mapping[Var, Var],
    found: Mapping[Var, Found],
    weights: Collection[Var],
    calls: Sequence[str],
) -> Any | None:
    """The same function in its normal form, or None where it is written in it.

    Args:
        graph: of the function.
        dominator: what each variable is an elementwise function of.
        found: layers that are recognised as they stand.
        weights: constants that are weights.
        calls: globs of the names of called functions that stay whole.
    """
    view = _View.of(graph, dominator, found)
    monomials, exponentials = view.monomials, view.exponentials
    written: dict[int, Callable[[Read], Any]] = {}
    negated_twice = undone(graph)
    norms = {v for v, layer in found.items() if layer.takes_affine}
    roots = {layer.root for layer in found.values()}
    inside = {v: [id(e) for e in graph.between(v, layer.roots)[0]] for v, layer in found.items()}
    recognised = {i for v, ids in inside.items() if v in monomials.whole for i in ids}
    # What makes the statistics of a norm by several is as the first writing left it.
    settled = {i for v, ids in inside.items() if len(found[v].roots) > 1 for i in ids}
    for eqn in graph.eqns:
        if id(eqn) in settled:
            continue
        way = None
        out = eqn.outvars[0] if len(eqn.outvars) == 1 else None
        if out in view.softmaxes:
            way = view.softmax(out)
        elif _ends_product(eqn, graph, monomials, exponentials):
            way = view.product(out)
        elif _ends_sum(eqn, graph, view.parts):
            way = view.mean(out)
        elif eqn.primitive is prim.REDUCE_SUM and graph.is_live(eqn) and id(eqn) not in recognised:
            way = _contraction(eqn, monomials, weights) or view.mean_of_means(eqn)
        elif eqn.primitive is prim.DOT and graph.explained_operands(eqn) == [0, 1]:
            way = _products_summed(eqn, exponentials) or view.mean_of_means(eqn)
        elif eqn.primitive is prim.DOT and graph.is_live(eqn) and id(eqn) not in recognised:
            way = _contraction(eqn, monomials, weights)
        elif graph.is_live(eqn):
            way = log_of_sum(eqn, view.softmaxes, monomials) or logarithm(eqn, exponentials, found)
        if way is None and out in graph.live and id(eqn) not in recognised:
            way = combined(eqn, monomials, roots) or negated_twice.get(id(eqn))
            way = way or past_moves(eqn, graph, norms, roots)
        if way is not None:
            written[id(eqn)] = way
    twice = any(v in graph.live and first is not v for v, first in monomials.same.items())
    if not written and not twice:
        return None
    return rewritten(graph, written, monomials.same, calls)


class _View(NamedTuple):
    """A graph with its softmaxes as factors of products, and as what they are made of.

    Attributes:
        softmaxes: those that are recognised as they stand.
        monomials: products in which they are factors.
        exponentials: sums of exponentials, likewise.
        parts: sums of exponentials in which they are opened.
    """

    softmaxes: Mapping[Var, Found]
    monomials: Monomials
    exponentials: Exponentials
    parts: Exponentials

    @classmethod
    def of(cls, graph: Graph, dominator: Mapping[Var, Var], found: Mapping[Var, Found]) -> "_View":
        # A norm of exponentials may be a softmax, which is one factor as it stands.
        exponentials = Exponentials(Monomials(graph, dominator, found))
        inside = exponentials.inside
        whole = [v for v, layer in found.items() if not (layer.takes_affine and v in inside)]
        if len(whole) < len(found):
            exponentials = Exponentials(Monomials(graph, dominator, whole))
        softmaxes = {v: layer for v, layer in found.items() if layer.gate == SOFTMAX}
        rest = [v for v in whole if v not in softmaxes]
        parts = Exponentials(Monomials(graph, dominator, rest)) if softmaxes else exponentials
        return cls(softmaxes, exponentials.monomials, exponentials, parts)

    def softmax(self, out: Var) -> Callable[[Read], Any] | None:
        """How a softmax that is recognised as it stands is computed otherwise."""
        found, parts = self.softmaxes[out], self.parts
        share = log_share(found, out, parts)
        if share is None and _is_shifted(found, out, parts):
            return _other_way(out, parts, opened=True)
        return share or without_numbers(found, out, parts.graph)

    def product(self, out: Var) -> Callable[[Read], Any] | None:
        """How a product is computed otherwise."""
        exponentials, parts = self.exponentials, self.parts
        factors = [f.var for f in self.monomials.factors(out)[1] if f.var in self.softmaxes]
        way = _other_way(out, parts, opened=True) if len(factors) > 1 else None
        way = way or _other_way(out, exponentials, whole=bool(factors))
        opens = (self.softmaxes or exponentials.settled) and out not in exponentials.settled
        if opens and _divides_by_sum(out, exponentials):
            way = self.mean(out, whole=bool(factors)) or way
        return way

    def mean(self, out: Var, whole: bool = False) -> Callable[[Read], Any] | None:
        """How a mean of means is computed as one, all softmaxes opened."""
        with self.parts.nothing_settled():
            return _other_way(out, self.parts, opened=True, whole=whole)

    def mean_of_means(self, eqn: Equation) -> Callable[[Read], Any] | None:
        """How a sum of products of exponentials with means that are weighted by others is computed
        as one mean, piece by piece."""
        factors = [f for a in eqn.invars for f in self.monomials.factors(a)[1]]
        if sum(f.var in self.parts.inside for f in factors) < 2:
            return None
        with self.parts.in_pieces():
            return self.mean(eqn.outvars[0])


def _ends_product(
    eqn: Equation, graph: Graph, monomials: Monomials, exponentials: Exponentials
) -> bool:
    """Whether somebody reads a product as a whole."""
    out = eqn.outvars[0] if len(eqn.outvars) == 1 else None
    if out is None or out not in graph.live or not is_float(out):
        return False
    logarithms = monomials.is_exp_of_logarithms(eqn)
    if not (monomials.is_product(eqn) or logarithms or out in exponentials.normalised):
        return False
    readers = [r for r in graph.readers.get(out, ()) if r is None or graph.is_live(r)]
    return any(r is None or not monomials.is_product(r) for r in readers)


def _divides_by_sum(var: Var, exponentials: Exponentials) -> bool:
    """Whether a product has a sum of exponentials below the line."""
    powers = exponentials.monomials.factors(var, finest=True)[1]
    return any(p < 0 and f.var in exponentials.inside for f, p in powers.items())


def _ends_sum(eqn: Equation, graph: Graph, exponentials: Exponentials) -> bool:
    """Whether somebody reads a sum of exponentials, each of which may be normalised."""
    if eqn.primitive not in prim.ADD or not graph.is_live(eqn):
        return False
    (out,) = eqn.outvars
    if out not in exponentials.inside:
        return False
    readers = [r for r in graph.readers.get(out, ()) if r is None or graph.is_live(r)]
    return any(r is None or r.primitive not in (*prim.ADD, prim.MUL, prim.DIV) for r in readers)


def _is_shifted(softmax: Found, out: Var, exponentials: Exponentials) -> bool:
    """Whether what is added to the logits of a softmax is the same for all that it sums."""
    logits, graph = softmax.root, exponentials.graph
    maker = graph.maker.get(logits)
    while maker is not None and maker.primitive not in (*prim.SUMS, prim.LOG):
        operands = graph.explained_operands(maker)
        affine = family(maker.primitive) is Family.AFFINE or link(maker)
        if not affine or len(operands) != 1:
            return False
        maker = graph.maker.get(maker.invars[operands[0]])
    if maker is None:
        return False
    sums = (e for e in graph.between(out, [logits])[0] if e.primitive is prim.REDUCE_SUM)
    total = next(sums, None)
    if total is None or total.invars[0].aval.shape != logits.aval.shape:
        return False
    summed = set(total.params["axes"])
    added = exponentials.exponent(logits, own_index(logits))
    by_number = added.number not in (0, 1)
    return by_number or any(not f.labels & summed for f in (*added.exponent, *added.powers))


def _other_way(
    var: Var, exponentials: Exponentials, opened: bool = False, whole: bool = False
) -> Callable[[Read], Any] | None:
    """How a product is computed in its normal form, where it is written otherwise.

    Args:
        var: the product.
        exponentials: of its graph.
        opened: whether it is only asked for as a softmax.
        whole: whether a factor is a softmax as it stands. Normed along another axis it stays that
            layer, and the norm is one after it.
    """
    monomials = exponentials.monomials
    number, powers = monomials.factors(var)
    explained = [f for f in powers if monomials.explained(f)]
    made: list[Made] = []
    suspect = (
        opened
        or var in exponentials.normalised
        or any(
            (powers[f] < 0 and f.var in exponentials.inside) or f.var in exponentials.normalised
            for f in explained
        )
    )
    if suspect and (found := found_in(var, exponentials)) is not None:
        layer, own, rest = found
        if not (whole and any(p < 0 and f.var in exponentials.inside for f, p in rest.items())):
            number, powers = own, rest
            made.append(layer)
            exponentials.settled.add(var)
    if opened and not made:
        return None
    norms, held, number, powers = normalised(var, number, powers, exponentials)
    made += norms
    if not made and not _apart(var, powers, monomials):
        return None
    groups = list(monomials.groups(powers).values())
    constants = {f: p for f, p in powers.items() if not monomials.explained(f)}
    aval = var.aval

    def way(read: Read) -> Any:
        order = range(len(aval.shape))
        values = [(layer(read, order), 1) for layer in made]
        values += [_group(group, read, order, monomials) for group in groups]
        values += [_joined(constants, read, order)] if constants else []
        product = _product(values)
        product = product if number == 1 else product * jnp.asarray(number, product.dtype)
        product = jnp.broadcast_to(product, aval.shape).astype(aval.dtype)
        for factor in held:
            scale = jnp.broadcast_to(factor(read, order), aval.shape).astype(aval.dtype)
            product = product * prim.STATISTIC.bind(scale)
        return product

    return way


def _contraction(
    eqn: Equation, monomials: Monomials, weights: Collection[Var]
) -> Callable[[Read], Any] | None:
    """How a sum of one value times weights is computed as a contraction."""
    position, bound, scale = _sum_of(eqn, monomials.graph)
    summed, out = eqn.invars[position], eqn.outvars[0].aval
    if not bound:
        return None
    found = _times_weights(summed, monomials, lambda f: f.var in weights and f.labels & bound)
    if found is None or not found[1].labels & bound:
        return None
    number, value, constants = found
    own = sorted(value.labels)
    others = sorted({label for f in constants for label in f.labels})
    rest = [label for label in range(len(summed.aval.shape)) if label not in bound]
    kept = [label for label in rest if label in own or label in others]
    spread = range(len(out.shape) - len(rest)) if position else range(len(rest), len(out.shape))

    def way(read: Read) -> Any:
        kernel, sign = _joined(constants, read, others)
        kernel = 1 / kernel if sign < 0 else kernel
        x = times(value, read, own)
        y = jnp.einsum(x, own, kernel.astype(x.dtype), others, kept)
        y = y if number * scale == 1 else y * jnp.asarray(number * scale, y.dtype)
        y = jnp.expand_dims(aligned(y, kept, rest), tuple(spread))
        return jnp.broadcast_to(y, out.shape).astype(out.dtype)

    return way


def _times_weights(
    product: Var, monomials: Monomials, weighs: Callable[[Factor], Any]
) -> tuple[float, Factor, dict[Factor, float]] | None:
    """A value times weights as a number, that value and constants, the last of which are weights;
    None of what is no such product."""
    graph = monomials.graph
    var, index, number = product, own_index(product), 1.0
    constants: dict[Factor, float] = {}
    while (eqn := graph.maker.get(var)) is not None and var not in monomials.whole:
        operands = product_operands(eqn, graph) or []
        masks = {monomials.mask(a, index): 1.0 for a, *_ in operands if isinstance(a, Factor)}
        parts = [
            (a, through(a, axes, index), p) for a, axes, p in operands if not isinstance(a, Factor)
        ]
        values = [(a, i, p) for a, i, p in parts if not is_literal(a) and a in graph.live]
        if len(values) != 1 or values[0][2] != 1:
            return None
        constants = joined(constants, masks)
        number *= number_of(eqn)
        for atom, axes, power in parts:
            if atom is not values[0][0]:
                own, inner = monomials.factors(atom, axes)
                number *= raised(own, power)
                constants = joined(constants, inner, power)
        var, index, _ = values[0]
        if any(map(weighs, constants)):
            return number, Factor(var, index), constants
    return None


def _sum_of(eqn: Equation, graph: Graph) -> tuple[int, frozenset[int], float]:
    """Which operand a sum, or a product with a matrix of one number, sums over which axes, and that
    number; no axes where an equation is neither."""
    if eqn.primitive is prim.REDUCE_SUM:
        return 0, frozenset(eqn.params["axes"]), 1.0
    (position,) = graph.explained_operands(eqn)
    contracting, batch = prim.dot_numbers(eqn)
    number = None if batch[0] else constant(graph, eqn.invars[1 - position])
    return position, frozenset(contracting[position] if number else ()), number or 1.0


def _products_summed(eqn: Equation, exponentials: Exponentials) -> Callable[[Read], Any] | None:
    """How a matrix product that multiplies number by number, as the einsum "ij,ij->i", is a sum of
    products of three factors and more; None for one of two, and for any other."""
    monomials, out = exponentials.monomials, eqn.outvars[0].aval
    contracted, batch = prim.dot_numbers(eqn)
    free = any(
        len(a.aval.shape) > len(c) + len(b)
        for a, c, b in zip(eqn.invars, contracted, batch, strict=True)
    )
    if free or not contracted[0]:
        return None
    indices, bound = exponentials.contraction(eqn, own_index(eqn.outvars[0]))
    number, powers = 1.0, dict[Factor, Any]()
    for atom, index in zip(eqn.invars, indices, strict=True):
        scale, factors = monomials.factors(atom, index)
        number, powers = number * scale, joined(powers, factors)
    groups = list(monomials.groups(powers).values())
    if len(groups) < 3:
        return None
    constants = {f: p for f, p in powers.items() if not monomials.explained(f)}
    rest = range(len(out.shape))
    order = [*rest, *sorted(bound)]

    def way(read: Read) -> Any:
        values = [_group(group, read, order, monomials) for group in groups]
        values += [_joined(constants, read, order)] if constants else []
        y = jnp.sum(_product(values), range(len(rest), len(order)))
        y = y if number == 1 else y * jnp.asarray(number, y.dtype)
        return jnp.broadcast_to(y, out.shape).astype(out.dtype)

    return way


def _apart(var: Var, powers: Mapping[Factor, float], monomials: Monomials) -> bool:
    """Whether the factors of a group stand apart, or not all are multiplied number by number."""
    parts = monomials.parts(var, powers)
    if parts is None or monomials.holds_other(var):
        return True
    if len(parts) > 1 and any(_is_scaled(v, monomials) for v, _ in parts):
        return True
    return len(parts) > 1 and any(power < 0 and monomials.is_function(v) for v, power in parts)


def _is_scaled(var: Var, monomials: Monomials) -> bool:
    """Whether a factor is a number times a value that is no function of another: the number stands
    beside the product, wherever it is written."""
    number, inner = monomials.factors(var)
    return number != 1 and all(
        p == 1 and f.var not in monomials.dominator for f, p in inner.items()
    )


def _divides_by_function(group: Mapping[Factor, float], monomials: Monomials) -> bool:
    """Whether a product is divided by a function of one value, whose reciprocal is one as well."""
    return all(p < 0 and monomials.is_function(factor.var) for factor, p in group.items())


def _joined(group: Mapping[Factor, float], read: Read, order: Sequence[int]) -> tuple[Any, int]:
    """The product of some factors, and whether it multiplies or divides."""
    sign = 1 if any(power > 0 for power in group.values()) else -1
    values = [
        (value, sign * (1 if power > 0 else -1))
        for factor, power in group.items()
        for value in powers_of(times(factor, read, order), abs(power))
    ]
    return _product(values), sign


def _group(
    group: Mapping[Factor, float], read: Read, order: Sequence[int], monomials: Monomials
) -> tuple[Any, int]:
    """What a group of factors is in a product."""
    value, sign = _joined(group, read, order)
    return (1 / value, 1) if _divides_by_function(group, monomials) else (value, sign)


def _product(values: Sequence[tuple[Any, int]]) -> Any:
    """A product, what multiplies first."""
    ordered = sorted(values, key=lambda pair: -pair[1])
    result, sign = ordered[0]
    result = result if sign > 0 else 1 / result
    for value, power in ordered[1:]:
        result = result * value if power > 0 else result / value
    return result
