"""Sums of explained values: residual adds, means, pools. Every operand counts as it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Self

import jax
import jax.numpy as jnp

from .._analysis import primitives as prim
from .._analysis.compat import Equation, Var
from .._analysis.primitives import Family, family
from .._analysis.signs import literal_value
from .arithmetic import at_least_float32
from .chains import is_mean_factor
from .linear import Linear, LinearLayer
from .reading import Reading
from .step import Place
from .terms import Term, shared_alike, total_of


@dataclass(frozen=True, eq=False, kw_only=True)
class Sum(Linear):
    """A fixed sum of explained numbers, with the division that makes it a mean.

    Attributes:
        signs: +1 or -1 for every operand.
        may_turn: whether the division may change the sign.
        state: a constant that is an operand all the same, as weights made it of a state.
    """

    signs: tuple[int, ...]
    may_turn: bool
    state: Var | None

    @property
    def rest_is_bias(self) -> bool:
        """Constants are added, at some places of a value or a value at some of theirs."""
        scatters = family(self.eqns[0].primitive) is Family.SCATTER_SUM and len(self.inputs) == 1
        return scatters or self.state is not None

    @classmethod
    def is_core(cls, reading: Reading, eqn: Equation) -> bool:
        sums = family(eqn.primitive) in (Family.SUM, Family.SCATTER_SUM)
        if sums or eqn.outvars[0] in reading.states:
            return True
        adds = eqn.primitive in prim.SUMS
        operands = reading.graph.explained_operands(eqn)
        return adds and len(operands) == 2 and eqn.outvars[0] not in reading.dominator

    @classmethod
    def recognise(cls, reading: Reading, var: Var) -> Self | None:
        tail = reading.tail(var)
        if tail is None or tail.core is None or tail.core.layer is not Sum:
            return None
        chain, core = tail.chain, tail.core.eqn
        if not all(is_mean_factor(reading.graph, eqn) for eqn in chain):
            return None
        operands = reading.graph.explained_operands(core)
        state = reading.states.get(core.outvars[0])
        summed = operands if state is None else (operands[0], 1 - operands[0])
        kind = "AvgPool" if core.primitive is prim.POOL_SUM else "Merge"
        shape = core.invars[0].aval.shape
        spatial = core.primitive is prim.REDUCE_SUM and len(shape) >= 3
        if spatial and chain and set(core.params["axes"]) < set(range(len(shape))):
            kind = "AvgPool"
        return reading.step(
            cls,
            [core, *chain],
            [core.invars[i] for i in operands],
            [var],
            kind,
            signs=tuple(-1 if core.primitive is prim.SUB and i == 1 else 1 for i in summed),
            may_turn=any(map(_may_turn, chain)),
            state=state,
        )

    def view(
        self, place: Place, xs: Sequence[Any], constants: Sequence[Any], y: jax.Array,
        relevance: jax.Array, bias: str,
    ) -> LinearLayer:  # fmt: skip
        function = partial(first_of, place.native, constants)
        if self.state is None:
            return SumLayer(function, xs, y, relevance, self.signs, self.may_turn)
        at = self.constants.index(self.state)

        def with_state(x: jax.Array, state: jax.Array) -> jax.Array:
            return first_of(place.native, [*constants[:at], state, *constants[at + 1 :]], x)

        both = (*xs, constants[at])
        return SumLayer(with_state, both, y, relevance, self.signs, self.may_turn, explained=1)


def _may_turn(eqn: Equation) -> bool:
    """Whether a division or product may change the sign of a sum."""
    if eqn.primitive not in (prim.MUL, prim.DIV):
        return False
    factors = [literal_value(a) for a in eqn.invars]
    return not any(value is not None and value > 0 for value in factors)


def first_of(native: Callable[..., list[Any]], constants: Sequence[Any], *xs: Any) -> Any:
    return native(*xs, *constants)[0]


class SumLayer(LinearLayer):
    """A fixed linear map of explained values whose weights are +1 or -1, up to a scale.

    Args:
        function: the map.
        xs: its operands.
        y: its value.
        relevance: of its output.
        signs: +1 or -1 for every operand.
        may_turn: whether the scale may be negative.
        explained: how many of the operands carry relevance (default: all).
    """

    def __init__(
        self, function: Callable[..., jax.Array], xs: Sequence[jax.Array], y: jax.Array,
        relevance: jax.Array, signs: tuple[int, ...] = (), may_turn: bool = False,
        explained: int | None = None,
    ) -> None:  # fmt: skip
        self._explained = slice(explained)
        self._function, self._signs, self._may_turn = function, signs, may_turn
        self.xs = tuple(xs)
        self.absorbed = []
        self.relevance = relevance
        self.value = self.output = at_least_float32(y)
        self.bias = 0.0
        self.only_positive = False

    def _forward(self, xs: Sequence[jax.Array]) -> jax.Array:
        return at_least_float32(self._function(*xs))

    def _backward(self, share: jax.Array) -> tuple[jax.Array, ...]:
        y, pull = jax.vjp(self._function, *self.xs)
        return pull(share.astype(y.dtype))

    def _of_sign(self, sign: int) -> jax.Array:
        """The sum of what is positive (or negative) before the scale."""
        part = {1: jnp.maximum, -1: jnp.minimum}
        return self._forward(
            [part[sign * s](x, 0) for s, x in zip(self._signs, self.xs, strict=True)]
        )

    @cached_property
    def _counted(self) -> jax.Array:
        """How much an output is of ones: the number of its inputs times its scale."""
        return self._forward(
            [jnp.full_like(x, s) for s, x in zip(self._signs, self.xs, strict=True)]
        )

    def _by_turn(self, straight: Any, swapped: Any) -> Any:
        """One of two values of each output, the second where its scale is negative."""
        return jnp.where(self._counted < 0, swapped, straight) if self._may_turn else straight

    @cached_property
    def positive(self) -> jax.Array:
        return self._by_turn(self._of_sign(1), self._of_sign(-1))

    @cached_property
    def negative(self) -> jax.Array:
        return self._by_turn(self._of_sign(-1), self._of_sign(1))

    def multiplier(self, terms: Sequence[Term]) -> tuple[jax.Array, ...]:
        """The multipliers c of every operand, with R = x * c."""
        alike = shared_alike(terms)
        found = self._by_sign(terms) if alike is None else self._backward(alike)
        return found[self._explained]

    def _by_sign(self, terms: Sequence[Term]) -> tuple[jax.Array, ...]:
        up = total_of([t.share * t.positive for t in terms])
        down = total_of([t.share * t.negative for t in terms])
        above = self._backward(self._by_turn(up, down))
        below = self._backward(self._by_turn(down, up))
        return tuple(
            jnp.where(s * x > 0, a, jnp.where(s * x < 0, b, 0))
            for s, x, a, b in zip(self._signs, self.xs, above, below, strict=True)
        )

    def flat_relevance(self, stabilizer: Any) -> tuple[jax.Array, ...]:
        """Equal shares to everything that was added or subtracted."""
        # A mean counts as its sum: an element's own weight cancels against the total.
        share = self.divide(self.relevance, jnp.abs(self._counted), stabilizer)
        share = self._by_turn(share, -share)
        found = tuple(s * r for s, r in zip(self._signs, self._backward(share), strict=True))
        return found[self._explained]
