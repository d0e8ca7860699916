"""Contractions: dense layers, convolutions and einsums with weights."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import jax

from .._analysis import primitives as prim
from .._analysis.compat import Equation, Var, is_literal
from .._analysis.graph import Graph
from .._analysis.primitives import Family, family
from .chains import (
    SCALING,
    SHIFTING,
    Chain,
    is_literal_link,
    is_mean_factor,
    pads_with_zeros,
    scales_by_one_number,
)
from .contraction_map import Contracted
from .linear import Linear
from .reading import Reading
from .step import Place
from .ways_back import ContractionLayer


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Contraction(Linear):
    """A product of one explained value with weights, and the affine equations around it."""

    map: Contracted

    takes_affine = True
    named_by_weights = True
    feeds_relu = True

    @classmethod
    def is_core(cls, reading: Reading, eqn: Equation) -> bool:
        is_product = family(eqn.primitive) is Family.CONTRACTION
        if not is_product or reading.graph.rows_by_one_hot(eqn) is not None:
            return False
        return len(reading.graph.explained_operands(eqn)) == 1

    @classmethod
    def recognise(cls, reading: Reading, var: Var) -> Self | None:
        tail = reading.tail(var)
        if tail is None or tail.core is None or tail.core.layer is not Contraction:
            return None
        chain, start, core = tail.chain, tail.start, tail.core.eqn
        position = reading.graph.explained_operands(core)[0]
        operand = core.invars[position]
        before: list[Equation] = []
        top = operand
        if reading.graph.read_once(operand) or _only_contracted(reading, operand):
            before, top = _trim(reading, *reading.chain_up(operand, padded=True))
        parts = contracted(
            reading.graph, Chain(tuple(before), top, operand), core, position,
            Chain(tuple(chain), start, var),
        )  # fmt: skip
        kind = "Conv" if core.primitive is prim.CONV else "Dense"
        if kind == "Conv" and any(d != 1 for d in core.params["lhs_dilation"]):
            kind = "ConvTranspose"
        return reading.step(cls, [*before, core, *chain], [top], [var], kind, core, map=parts)

    def view(
        self, place: Place, xs: Sequence[Any], constants: Sequence[Any], y: jax.Array,
        relevance: jax.Array, bias: str,
    ) -> ContractionLayer:  # fmt: skip
        env = dict(zip(self.constants, constants, strict=True))
        # What starts here may speak of outputs <= 0 too.
        only_positive = self.before_relu and not place.exposed and place.out == "C"
        return ContractionLayer(
            self.map, place, xs[0], y, lambda a: a.val if is_literal(a) else env[a], relevance,
            bias, nonnegative=self.nonnegative, only_positive=only_positive,
        )  # fmt: skip

    def unit_axis(self) -> int | None:
        same = len(self.map.after.start.aval.shape) == len(self.outputs[0].aval.shape)
        return self.map.features[0] if self.map.features and same else super().unit_axis()


def contracted(
    graph: Graph, before: Chain, core: Equation, position: int, after: Chain
) -> Contracted:
    """A contraction between two chains, with what scales its features."""
    features = _feature_axes(core, position)
    scales = features is not None and _scales_along(
        graph, list(after.eqns), after.start, features[0]
    )
    return Contracted(before, core, position, after, features, scales)


def _only_contracted(reading: Reading, var: Var) -> bool:
    """Whether a value that numbers of the code scale and shift is read by contractions alone: each
    takes that for itself, as a wide one in their place does."""
    graph, chain = reading.graph, reading.chain_up(var)[0]
    if not any(e.primitive in SHIFTING for e in chain) or not all(map(is_literal_link, chain)):
        return False
    readers = [r for r in graph.readers[var] if r is None or graph.is_live(r)]
    return all(
        r is not None
        and family(r.primitive) is Family.CONTRACTION
        and len(graph.explained_operands(r)) == 1
        for r in readers
    )


def _trim(reading: Reading, chain: list[Equation], top: Var) -> tuple[list[Equation], Var]:
    """Keep what belongs to the contraction after it: input scaling, batch norm, padding."""
    core, graph = reading.core(top), reading.graph
    if core is not None and core.takes_affine and graph.read_once(top):
        return [], chain[-1].outvars[0] if chain else top
    after_activation = top in graph.maker and top in reading.dominator
    after_sum = core is not None and not core.takes_affine
    while chain:
        eqn = chain[0]
        one = is_literal_link(eqn) or scales_by_one_number(graph, eqn)
        others = (after_activation and one) or (after_sum and is_mean_factor(graph, eqn))
        if (family(eqn.primitive) is Family.AFFINE and not others) or pads_with_zeros(eqn):
            break
        top = eqn.outvars[0]
        chain = chain[1:]
    return chain, top


def _feature_axes(eqn: Equation, position: int) -> tuple[int, int] | None:
    """An axis of a contraction's output that is made by one axis of its weights alone."""
    if eqn.primitive is prim.CONV:
        numbers = eqn.params["dimension_numbers"]
        return (numbers.out_spec[1], numbers.rhs_spec[0]) if position == 0 else None
    contracting, batch = prim.dot_numbers(eqn)
    weight = eqn.invars[1 - position]
    bound = (*contracting[1 - position], *batch[1 - position])
    free = [i for i in range(len(weight.aval.shape)) if i not in bound]
    if len(free) != 1:
        return None
    rank = len(eqn.outvars[0].aval.shape)
    return (rank - 1 if position == 0 else len(batch[0])), free[0]


def _scales_along(graph: Graph, chain: list[Equation], start: Var, axis: int) -> bool:
    """Whether what multiplies in a chain varies along one axis of its start alone."""
    shape = start.aval.shape
    for number, eqn in enumerate(chain):
        if eqn.primitive in prim.SHAPE_ONLY:
            # Past a change of shape the axis is lost; only shifts may follow.
            return not any(e.primitive in SCALING for e in chain[number:])
        if eqn.primitive not in (prim.MUL, prim.DIV):
            continue
        operand = eqn.invars[1 - graph.explained_operands(eqn)[0]]
        if not _varies_along(graph, operand, axis, shape):
            return False
    return True


def _varies_along(graph: Graph, atom: Any, axis: int, shape: tuple[int, ...]) -> bool:
    if is_literal(atom) or atom.aval.shape == ():
        return True
    wide = {i for i, n in enumerate(atom.aval.shape) if n > 1}
    if len(atom.aval.shape) == len(shape) and wide <= {axis}:
        return True
    eqn = graph.maker.get(atom)
    if eqn is None or eqn.primitive is not prim.BROADCAST:
        return False
    source, dims = eqn.invars[0], eqn.params["broadcast_dimensions"]
    return all(n == 1 or d == axis for n, d in zip(source.aval.shape, dims, strict=True))
