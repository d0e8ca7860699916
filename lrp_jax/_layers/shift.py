"""Stand-alone affine functions, number by number: a batch norm or a bias beside no contraction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import jax

from .._analysis import primitives as prim
from .._analysis.compat import Equation, Var, is_literal
from .._analysis.primitives import Family, family
from .arithmetic import custom, is_nothing, relevance_of, share_out
from .chains import SCALING, SHIFTING, Chain, is_literal_link, run_chain, scales_by_one_number
from .elementwise import Elementwise
from .reading import Reading
from .step import Backward, Step, Visit, Way


@dataclass(frozen=True, eq=False, kw_only=True)
class Shift(Step):
    """A scale and shift with constants; without a shift it is no layer (`kind` is empty).

    A scale by one number makes no batch norm of a shift: `2 x + b` is `2 (x + b / 2)`.
    """

    chain: Chain

    named_by_weights = True

    @property
    def rest_is_bias(self) -> bool:
        return True

    @classmethod
    def recognise(cls, reading: Reading, var: Var) -> Step | None:  # type: ignore[override]
        tail = reading.tail(var)
        if tail is None or not tail.chain:
            return None
        return _alone(reading, var, tail.chain, tail.start)

    @classmethod
    def of(
        cls, reading: Reading, chain: list[Equation], start: Var, end: Var, kind: str = ""
    ) -> Self:
        # A bias is called by what it adds.
        adds = next((e for e in chain if kind == "Bias" and e.primitive in SHIFTING), None)
        links = Chain(tuple(chain), start, end)
        return reading.step(cls, chain, [start], [end], kind, adds, chain=links)

    def backward(self, rule: Any, out: str) -> Backward:
        if self.kind and rule.way is not Way.UNCHANGED:
            return Backward("C", _proportional)
        return super().backward(rule, out) if out == "C" and not self.kind else _UNCHANGED

    def gradient_shares(self, rule: Any) -> Sequence[Any] | None:
        if not self.kind:
            return [1.0]
        adds = rule.way not in (Way.NOTHING, Way.UNCHANGED)
        return [1.0] if adds and is_nothing(rule.divisor) else None


def _alone(reading: Reading, var: Var, chain: list[Equation], start: Var) -> Step | None:
    graph = reading.graph
    maker = graph.maker.get(start)
    function = start in reading.dominator and start not in reading.found
    nonlinear = maker is not None and function and not reading.is_link(maker)
    if nonlinear and graph.read_once(start) and all(map(is_literal_link, chain)):
        moved = any(e.primitive in prim.SHAPE_ONLY for e in chain)
        if var in reading.dominator and not moved:
            return None  # the end of a hand-written activation
        eqn = chain[-1]  # past a change of shape it stands alone
        operand = eqn.invars[graph.explained_operands(eqn)[0]]
        if eqn.primitive in SHIFTING and operand.aval.shape == var.aval.shape:
            return Elementwise.written_out(reading, [eqn], operand, var)
        kind = "" if eqn.primitive in SCALING else "Bias"
        return Shift.of(reading, [eqn], operand, var, kind)
    affine = [e for e in chain if family(e.primitive) is Family.AFFINE]
    whole = reading.found.get(start)
    after_layer = reading.behind(start) is not None or (whole is not None and whole.gate == 0)
    # A chain of shape changes at the top is somebody else's.
    while chain and family(chain[0].primitive) is not Family.AFFINE:
        start = chain[0].outvars[0]
        chain = chain[1:]
    shifts = [e for e in affine if e.primitive in SHIFTING]
    if not shifts:
        return Shift.of(reading, chain, start, var)
    # 1 - z is a function of z, computed by hand; a number added to what a layer or a sum makes, or
    # to a part of it, or to a logarithm of exponentials, is its bias.
    if all(map(is_literal_link, shifts)) and not after_layer:
        if not all(map(is_literal_link, affine)):  # arrays that scale beside it are no layer
            last = max(i for i, e in enumerate(chain) if e.primitive in SHIFTING)
            if chain[last + 1 :]:
                return Shift.of(reading, chain[last + 1 :], chain[last].outvars[0], var)
            chain, start = chain[last:], chain[last - 1].outvars[0]
        moved = any(e.primitive in prim.SHAPE_ONLY for e in chain)
        if not moved and start.aval.shape == var.aval.shape:
            return Elementwise.written_out(reading, chain, start, var)
    # What comes from no argument, as the degrees of a graph, normalises no batch.
    scaling = (e for e in affine if e.primitive in (prim.MUL, prim.DIV))
    scales = any(
        not scales_by_one_number(graph, e) and any(a in reading.weights for a in e.invars)
        for e in scaling
    )
    return Shift.of(reading, chain, start, var, "BatchNorm" if scales else "Bias")


def _proportional(visit: Visit) -> list[Any]:
    (y,) = visit.as_it_is()
    return [share_out(y, visit.rule.divisor, visit.place.out)]


def _unchanged(visit: Visit) -> list[Any]:
    """The shift with relevance handed on unchanged, number by number."""
    step, out = visit.place.step, visit.place.out
    assert isinstance(step, Shift)

    def back(cotangent: jax.Array, saved: Any) -> jax.Array:
        x, y, constants = saved
        relevance = relevance_of(cotangent, y, out)
        env = dict(zip(step.constants, constants, strict=True))

        def follow(v: jax.Array) -> jax.Array:
            read = lambda a: a.val if is_literal(a) else env[a]  # noqa: E731
            return run_chain(step.chain, v, read, "passing")

        (moved,) = jax.linear_transpose(follow, x)(relevance.astype(y.dtype))
        return moved

    return [custom(visit, back, lambda x, y, constants, rule: (x, y, constants))]


_UNCHANGED = Backward("R", _unchanged)
