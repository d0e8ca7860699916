"""Sums of explained values as the rules see them: every operand added or subtracted as it is."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from ._chains import at_least_float32
from ._layers import Step, UnsupportedOperation
from ._linear import LinearLayer, equal, total_of
from ._rule import Term


class SumLayer(LinearLayer):
    """A fixed linear map of explained values whose weights are +1 or -1, up to a scale.

    Of maps whose single weights are not known (`Sum.signs` is None) there are only the outputs.
    """

    def __init__(
        self,
        function: Callable[..., jax.Array],
        step: Step,
        xs: Sequence[jax.Array],
        y: jax.Array,
        relevance: jax.Array,
        bias_policy: str,
    ) -> None:
        self._function = function
        self._step = step
        self.xs = tuple(xs)
        self.absorbed = []
        self.relevance = relevance
        self.value = self.output = at_least_float32(y)
        self.bias = 0.0
        self.only_positive = False
        if step.what.shifted:
            _, linear = jax.jvp(function, self.xs, self.xs)
            if bias_policy == "ignore":
                self.output = at_least_float32(linear)
            else:
                self.bias = self.value - linear

    @cached_property
    def _signs(self) -> tuple[int, ...]:
        signs: tuple[int, ...] | None = self._step.what.signs
        if signs is None:
            raise UnsupportedOperation(
                f"the linear map of complex numbers in {self._step.name} ({self._step.source}) has "
                "no contributions of one sign or count of inputs, which its rule asks for: give "
                "it Norm(), Epsilon() or Zero()."
            )
        return signs

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
        return (
            jnp.where(self._counted < 0, swapped, straight) if self._step.what.turns else straight
        )

    @cached_property
    def positive(self) -> jax.Array:
        return self._by_turn(self._of_sign(1), self._of_sign(-1))

    @cached_property
    def negative(self) -> jax.Array:
        return self._by_turn(self._of_sign(-1), self._of_sign(1))

    def multiplier(self, terms: Sequence[Term]) -> tuple[jax.Array, ...]:
        """The multipliers c of every operand, with R = x * c."""
        if all(equal(t.positive, t.negative) for t in terms):
            return self._backward(total_of([t.share * t.positive for t in terms]))
        up = total_of([t.share * t.positive for t in terms])
        down = total_of([t.share * t.negative for t in terms])
        above = self._backward(self._by_turn(up, down))
        below = self._backward(self._by_turn(down, up))
        return tuple(
            jnp.where(s * x > 0, a, jnp.where(s * x < 0, b, 0))
            for s, x, a, b in zip(self._signs, self.xs, above, below, strict=True)
        )

    def bias_share(self, terms: Sequence[Term]) -> jax.Array:
        """What the constants that are added on the way receive."""
        share: jax.Array = total_of([t.share * t.positive for t in terms])
        return share * self.bias

    def spread_evenly(self, share: jax.Array) -> jax.Array:
        """Not for a map of complex numbers, and no other sum has a bias."""
        return share * self._signs[0]

    def flat_relevance(self, stabilizer: Any) -> tuple[jax.Array, ...]:
        """Equal shares to everything that was added or subtracted."""
        # A mean counts as its sum: an element's own weight cancels against the total.
        share = self.divide(self.relevance, jnp.abs(self._counted), stabilizer)
        share = self._by_turn(share, -share)
        return tuple(s * r for s, r in zip(self._signs, self._backward(share), strict=True))
