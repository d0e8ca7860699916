"""The contributions k_ij = x_i w_ij of a contraction: their sums by sign, and what terms make."""

import itertools
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from .._analysis import primitives as prim
from .._analysis.primitives import Family, family
from .chains import Chain, run_chain
from .contraction_map import Contracted, ContractionMap
from .step import Place
from .terms import Term, equal, even_and_odd, shared_alike, total_of

FEW_INPUTS = 64


class Contributions(ContractionMap):
    """A contraction whose contributions are told apart by their signs."""

    def __init__(
        self, of: Contracted, place: Place, *values: Any, nonnegative: bool, only_positive: bool
    ) -> None:
        super().__init__(of, place, *values)
        self.only_positive = only_positive
        before = [e for e in of.before.eqns if family(e.primitive) is Family.AFFINE]
        self._foldable = not of.after.scales or of.feature_scales
        self._one_sign = nonnegative and not before and self._foldable
        # A neuron of few inputs may have next to no contribution of one sign, and what is left of a
        # difference is then noise, which a small denominator makes large: sum each sign apart.
        self._few = of.fan_in <= FEW_INPUTS
        summed = any(prim.is_psum(e.primitive) for e in of.after.eqns)
        self._apart = not self._one_sign and self._few and (self._foldable or not summed)

    # -- sums of contributions ------------------------------------------------------------------

    @cached_property
    def _signed_weight(self) -> jax.Array:
        """The weight times the sign of a scale after the contraction that has one per feature."""
        if not (self._of.after.scales and self._foldable):
            return self._weight
        ones = [1] * len(self._of.after.start.aval.shape)
        assert self._of.features is not None, "a scale per feature knows the features"
        feature, axis = self._of.features
        ones[feature] = self._of.after.start.aval.shape[feature]
        after = self._of.after  # past a change of shape nothing scales
        eqns = tuple(itertools.takewhile(lambda e: e.primitive not in prim.SHAPE_ONLY, after.eqns))
        scales = Chain(eqns, after.start, after.start)
        scale = run_chain(scales, jnp.ones(ones, self._weight.dtype), self._read, "linear")
        index = tuple(slice(None) if i == feature else 0 for i in range(scale.ndim))
        sign = jnp.where(scale[index] < 0, -1, 1).astype(self._weight.dtype)
        shape = [1] * self._weight.ndim
        shape[axis] = sign.shape[0]
        return self._weight * sign.reshape(shape)

    @cached_property
    def _turned(self) -> Any:
        """Where a scale after the contraction is negative that the weights do not know of."""
        if self._foldable:
            return False
        z = self._of.after.start.aval
        return run_chain(self._of.after, jnp.ones(z.shape, z.dtype), self._read, "linear") < 0

    @cached_property
    def _absolute_sum(self) -> jax.Array:
        """sum_i |k_ij|."""
        return self.forward(jnp.abs(self._u), jnp.abs(self._weight), "absolute")

    def _half(self, sign: int) -> jax.Array:
        """(sum_i |k_ij| + sign * sum_i k_ij) / 2, exact zeros where only rounding is left."""
        half = (self._absolute_sum + sign * self._linear_output) / 2
        return _more_than_rounding(half, self._absolute_sum)

    @cached_property
    def positive(self) -> jax.Array:
        if self._one_sign:
            return self.forward(self._u, self._up, "absolute")
        return self._sum_apart(+1) if self._apart else self._half(+1)

    @cached_property
    def negative(self) -> jax.Array:
        if self._apart:
            return self._sum_apart(-1)
        if not self._one_sign:
            return -self._half(-1)
        if "positive" in self.__dict__ and not self._few:  # what is left needs no contraction
            rest = self.positive - self._linear_output
            return -_more_than_rounding(rest, self.positive + rest)
        return self.forward(self._u, self._down, "absolute")

    @cached_property
    def _up(self) -> jax.Array:
        return jnp.maximum(self._signed_weight, 0)

    @cached_property
    def _down(self) -> jax.Array:
        return jnp.minimum(self._signed_weight, 0)

    def _sum_apart(self, sign: int) -> jax.Array:
        """Contributions of one sign, summed without those of the other sign."""

        def total(of_positive: jax.Array, of_negative: jax.Array) -> jax.Array:
            above = self.forward(jnp.maximum(self._u, 0), of_positive, "absolute")
            return above + self.forward(jnp.minimum(self._u, 0), of_negative, "absolute")

        same, other = (self._up, self._down)[::sign], (self._down, self._up)[::sign]
        if self._turned is False:
            return total(*same)
        return jnp.where(self._turned, -total(*other), total(*same))

    # -- relevance of the input -----------------------------------------------------------------

    def multiplier(self, terms: Sequence[Term]) -> jax.Array:
        """c_i, with R_i = x_i c_i, for the sum of some terms."""
        alike = shared_alike(terms)
        if alike is not None:
            c = self.backward(alike, self._weight, "linear")
        elif self._one_sign:
            c = total_of([self._one_signed(t) for t in terms])
        elif self._apart:
            terms = self._by_turn(terms)
            above = total_of([self._one_signed(t) for t in terms])
            below = total_of(
                [self._one_signed(Term(t.share, t.negative, t.positive)) for t in terms]
            )
            c = jnp.where(self._u > 0, above, jnp.where(self._u < 0, below, 0))
        else:
            even, odd = even_and_odd(terms)
            c = self.backward(even, self._weight, "linear")
            sign = jnp.sign(self._u).astype(c.dtype)
            c = c + sign * self.backward(odd, jnp.abs(self._weight), "absolute")
        return self._through_before(c, "linear")

    def _by_turn(self, terms: Sequence[Term]) -> list[Term]:
        """The terms as they are before the scale, which swaps the signs where it is negative."""
        if self._turned is False:
            return [*terms]
        straight = [t._replace(share=jnp.where(self._turned, 0, t.share)) for t in terms]
        swapped = [
            Term(jnp.where(self._turned, -t.share, 0), t.negative, t.positive) for t in terms
        ]
        return straight + swapped

    def _one_signed(self, term: Term) -> jax.Array:
        w = self._signed_weight
        up, down = self._up, self._down
        if equal(term.positive, 1) and equal(term.negative, 0):
            weight = up
        elif equal(term.positive, 0) and equal(term.negative, 1):
            weight = down
        elif equal(term.negative, 1):
            weight = w + (jnp.asarray(term.positive, w.dtype) - 1) * up
        else:
            weight = jnp.asarray(term.positive, w.dtype) * up
            weight = weight + jnp.asarray(term.negative, w.dtype) * down
        return self.backward(term.share, weight, "absolute")

    def bias_share(self, terms: Sequence[Term]) -> jax.Array:
        """What the bias of each output receives, treated as one more contribution."""
        b = self.bias
        up, down = jnp.maximum(b, 0), jnp.minimum(b, 0)
        return total_of([t.share * (t.positive * up + t.negative * down) for t in terms])


def _more_than_rounding(part: jax.Array, whole: jax.Array) -> jax.Array:
    """A part of a sum got by subtraction, 0 where only rounding is left of it."""
    return jnp.where(part > 4 * jnp.finfo(part.dtype).eps * whole, part, 0)
