"""Linear layers as the rules see them: contributions, their sums, and the way back.

A layer is `after(contract(before(x), w))`, `before` and `after` affine number by number. Because a
contribution k_ij = x_i w_ij does not change when a factor moves from the weight to the input, a
batch norm needs no new weights: its scale acts outside of the contraction, by its absolute value
where absolute weights are asked for, and its shift is part of the bias.
"""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from . import _lowerings
from . import _primitives as prim
from ._chains import Read, at_least_float32, divide, run_chain
from ._compat import is_literal
from ._layers import Chain, Contraction, Step
from ._primitives import Family, family
from ._rule import Term


class LinearLayer:
    """What a rule is given: sums of contributions at the output of a linear layer.

    Attributes:
        relevance: R_j, in at least float32.
        value: z_j as it is, which decides the signs.
        output: z_j as the bias policy sees it.
        bias: b_j as the bias policy sees it (0.0 where there is none).
        only_positive: whether outputs <= 0 carry no relevance.
    """

    relevance: jax.Array
    value: jax.Array
    output: jax.Array
    bias: Any
    only_positive: bool
    positive: Any
    negative: Any
    absorbed: list[tuple[jax.Array, jax.Array]]

    def divide(self, relevance: Any, value: Any, epsilon: Any) -> jax.Array:
        """R / S(z), keeping account of what the stabiliser and zero denominators take."""
        share = divide(relevance, value, epsilon)
        passed = jnp.where(share == 0, 0, value * share)  # a masked logit is -inf
        self.absorbed.append((relevance, relevance - passed))
        return share

    def losses(self) -> tuple[jax.Array, jax.Array]:
        """What stabilisers absorbed, and what met a denominator that is exactly zero."""
        zero = jnp.zeros((), self.relevance.dtype)
        stabilized, dropped = zero, self.relevance.sum()
        for given, lost in self.absorbed:
            dropped = dropped - jnp.sum(given)
            dead = given == lost
            stabilized = stabilized + jnp.sum(jnp.where(dead, 0, lost))
            dropped = dropped + jnp.sum(jnp.where(dead, lost, 0))
        return stabilized, dropped if self.absorbed else zero


FEW_INPUTS = 64


class ContractionLayer(LinearLayer):
    """One contraction with weights at one input.

    Attributes:
        through_weights: what passes each weight, of rules that make relevance by themselves.
        through_bias: what the bias of each output absorbs of it.
    """

    through_weights: Callable[[], jax.Array]
    through_bias: Any

    def __init__(
        self,
        jaxpr: Any,
        step: Step,
        x: jax.Array,
        y: jax.Array,
        read: Read,
        relevance: jax.Array,
        bias_policy: str,
        only_positive: bool,
    ) -> None:
        self.what: Contraction = step.what
        eqn, position = self.what.eqn, self.what.position
        self._read = read
        self._weight = read(eqn.invars[1 - position])
        run = _lowerings.as_function(jaxpr, [eqn], _distinct(eqn.invars), eqn.outvars)
        groups = [read(atom) for atom in eqn.invars[2:]]  # of a ragged product
        self._contract = (
            (lambda u, w: run(u, w, *groups)[0])
            if position == 0
            else (lambda u, w: run(w, u, *groups)[0])
        )
        self.x = x
        self.absorbed = []
        self.relevance = relevance
        self.only_positive = only_positive
        self.value = z = at_least_float32(y)
        bias = self._bias()
        self.bias = 0.0 if bias_policy == "ignore" else bias
        self.through_bias = self.bias * 0.0
        self.output = z - bias if bias_policy == "ignore" and not _is_zero(bias) else z
        self._linear_output = z if _is_zero(bias) else z - bias
        before = [e for e in self.what.before.eqns if family(e.primitive) is Family.AFFINE]
        self._foldable = not self.what.after.scales or self.what.feature_scales
        self._one_sign = step.nonnegative and not before and self._foldable
        # A neuron of few inputs may have next to no contribution of one sign, and what is left of a
        # difference is then noise, which a small denominator makes large: sum each sign apart.
        self._few = _fan_in(eqn, position) <= FEW_INPUTS
        summed = any(prim.is_psum(e.primitive) for e in self.what.after.eqns)
        self._apart = not self._one_sign and self._few and (self._foldable or not summed)

    # -- the pieces -----------------------------------------------------------------------------

    def _before(self, x: jax.Array, mode: str) -> jax.Array:
        return run_chain(self.what.before, x, self._read, mode)

    def _after(self, z: jax.Array, mode: str) -> jax.Array:
        return at_least_float32(run_chain(self.what.after, z, self._read, mode))

    @cached_property
    def _u(self) -> jax.Array:
        """What enters the contraction, without the shift that a chain before it adds."""
        return self._before(self.x, "linear")

    def _bias(self) -> Any:
        shifts_before = any(
            e.primitive in prim.ADD or e.primitive is prim.SUB for e in self.what.before.eqns
        )
        shifts_after = any(
            e.primitive in prim.ADD or e.primitive is prim.SUB for e in self.what.after.eqns
        )
        if not (shifts_before or shifts_after):
            return 0.0
        z = self.what.after.start.aval
        if shifts_before:
            at_zero = self._before(jnp.zeros_like(self.x), "exact")
            value = self._contract(at_zero, self._weight)
        else:
            value = jnp.zeros(z.shape, z.dtype)
        return self._after(value, "exact" if shifts_before else "zero")

    def forward(self, u: jax.Array, w: jax.Array, mode: str) -> jax.Array:
        """`after(contract(u, w))` with the scales of `mode`, no shifts."""
        return self._after(self._contract(u, w), mode)

    def backward(self, share: jax.Array, w: jax.Array, mode: str) -> jax.Array:
        """The transpose of `forward` in its first argument."""
        z, transposed = jax.vjp(lambda u: self.forward(u, w, mode), self._u)
        (result,) = transposed(share.astype(z.dtype))
        return result

    # -- sums of contributions ------------------------------------------------------------------

    @cached_property
    def _signed_weight(self) -> jax.Array:
        """The weight times the sign of a scale after the contraction that has one per feature."""
        if not (self.what.after.scales and self._foldable):
            return self._weight
        ones = [1] * len(self.what.after.start.aval.shape)
        assert self.what.features is not None, "a scale per feature knows the features"
        feature, axis = self.what.features
        ones[feature] = self.what.after.start.aval.shape[feature]
        scale = run_chain(self.what.after, jnp.ones(ones, self._weight.dtype), self._read, "linear")
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
        z = self.what.after.start.aval
        return run_chain(self.what.after, jnp.ones(z.shape, z.dtype), self._read, "linear") < 0

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
            return self.forward(self.x, self._up, "absolute")
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
        return self.forward(self.x, self._down, "absolute")

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
        if all(equal(t.positive, t.negative) for t in terms):
            c = self.backward(
                total_of([t.share * t.positive for t in terms]), self._weight, "linear"
            )
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
            even = total_of([t.share * ((t.positive + t.negative) / 2) for t in terms])
            odd = total_of([t.share * ((t.positive - t.negative) / 2) for t in terms])
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

    def _through_before(self, c: jax.Array, mode: str) -> jax.Array:
        if not self.what.before.eqns:
            return c
        transposed = jax.linear_transpose(lambda x: self._before(x, mode), self.x)
        (result,) = transposed(c)
        return result

    def bias_share(self, terms: Sequence[Term]) -> jax.Array:
        """What the bias of each output receives, treated as one more contribution."""
        b = self.bias
        up, down = jnp.maximum(b, 0), jnp.minimum(b, 0)
        return total_of([t.share * (t.positive * up + t.negative * down) for t in terms])

    def spread_evenly(self, share: jax.Array) -> jax.Array:
        """`share_j / n_j` to every real input of j, summed over j; see `kept`."""
        return self._even(divide(share, self._count, 0.0))

    def kept(self, share: jax.Array) -> jax.Array:
        """What cannot be spread evenly: that of outputs without a real input."""
        return jnp.where(self._count == 0, share, 0)

    @cached_property
    def _count(self) -> jax.Array:
        ones = _filled_like(self._weight, 1)
        real = self._before(_filled_like(self.x, 1), "structural")
        return self.forward(real, ones, "structural")

    def _even(self, share: jax.Array) -> jax.Array:
        even = self.backward(share, _filled_like(self._weight, 1), "structural")
        return self._through_before(even, "structural")

    def flat_relevance(self, stabilizer: Any) -> jax.Array:
        """Flat: R_j / S(n_j) to every real input."""
        share = self.divide(self.relevance, self._count, stabilizer)
        real = self._before(_filled_like(self.x, 1), "structural")
        ones = _filled_like(self._weight, 1)
        self.through_weights = lambda: self._through(real, ones, share, "structural")
        return self._even(share)

    def squared_relevance(self, stabilizer: Any, bias_policy: str) -> jax.Array:
        """w^2: in proportion to squared weights."""
        w2 = self._weight * self._weight
        scale = self._before(_filled_like(self.x, 1), "squared")
        bias = self.bias * self.bias
        share = self.divide(self.relevance, self.forward(scale, w2, "squared") + bias, stabilizer)
        relevance = scale * self.backward(share, w2, "squared").astype(scale.dtype)
        relevance = self._through_before(relevance, "structural")
        self.through_weights = lambda: self._through(scale, w2, share, "squared")
        self.through_bias = share * bias
        if bias_policy == "distribute":
            relevance = relevance + self.spread_evenly(self.through_bias)
            self.through_bias = self.kept(self.through_bias)
        return relevance

    def box_relevance(self, low: Any, high: Any, stabilizer: Any) -> jax.Array:
        """z^B: contributions measured from the corner of the box that lowers the output most."""
        a, b = (_broadcast_bound(v, self.x, self.what) for v in (low, high))
        a, b = self._before(a, "linear"), self._before(b, "linear")
        low, high = jnp.minimum(a, b), jnp.maximum(a, b)
        w, size = self._weight, jnp.abs(self._weight)
        # l w+ + h w- = ((l + h) w + (l - h) |w|) / 2
        corner = self.forward(low + high, w, "linear") + self.forward(low - high, size, "absolute")
        share = self.divide(self.relevance, self._linear_output - corner / 2, stabilizer)
        even, odd = self.backward(share, w, "linear"), self.backward(share, size, "absolute")
        relevance = self._u * even - ((low + high) * even + (low - high) * odd) / 2
        self.through_weights = lambda: (
            self._through(self._u - (low + high) / 2, w, share, "linear")
            - self._through(
                jnp.broadcast_to((low - high) / 2, self._u.shape), size, share, "absolute"
            )
        )
        return self._through_before(relevance, "structural")

    def _through(self, u: jax.Array, w: jax.Array, share: jax.Array, mode: str) -> jax.Array:
        """What passes through each weight of `forward(u, w, mode)`."""
        z, back = jax.vjp(lambda v: self.forward(u, v, mode), w)
        return w * back(share.astype(z.dtype))[0]

    def own_multipliers(self) -> tuple[jax.Array, jax.Array]:
        """c of every weight and of every output's bias, of rules that make relevance themselves."""
        weights = divide(self.through_weights(), self._weight, 0.0)
        return weights, divide(self.through_bias, self.bias, 0.0)

    def through_zeros(self) -> tuple[jax.Array, jax.Array]:
        """Relevance through weights that are zero, of rules that do not look at weights."""
        through = self.through_weights()
        return jnp.where(self._weight == 0, through, 0), jnp.zeros_like(self.through_bias)

    def weight_multiplier(self, terms: Sequence[Term]) -> jax.Array:
        """c of every weight, with R_ij = w_ij c_ij the contributions sent through it."""
        w = self._weight

        def pull(u: jax.Array, share: jax.Array, mode: str) -> jax.Array:
            z, back = jax.vjp(lambda v: self.forward(u, v, mode), w)
            return back(share.astype(z.dtype))[0]

        even = total_of([t.share * ((t.positive + t.negative) / 2) for t in terms])
        c = pull(self._u, even, "linear")
        if all(equal(t.positive, t.negative) for t in terms):
            return c
        odd = total_of([t.share * ((t.positive - t.negative) / 2) for t in terms])
        return c + jnp.sign(w) * pull(jnp.abs(self._u), odd, "absolute")

    def bias_multiplier(self, terms: Sequence[Term]) -> jax.Array:
        """c of every output's bias, with R = b c what it absorbed."""
        up = total_of([t.share * t.positive for t in terms])
        down = total_of([t.share * t.negative for t in terms])
        return jnp.where(self.bias > 0, up, down)

    def bias_back(self, share: jax.Array) -> dict[Any, jax.Array]:
        """Multipliers of the constants that are added after the contraction."""
        after = self.what.after
        added = []
        var = after.start
        for eqn in after.eqns:
            position = next(i for i, a in enumerate(eqn.invars) if a is var)
            if eqn.primitive in prim.ADD or eqn.primitive is prim.SUB:
                added += [
                    a for i, a in enumerate(eqn.invars) if i != position and not is_literal(a)
                ]
            var = eqn.outvars[0]
        added = list(dict.fromkeys(added))
        zeros = jnp.zeros(after.start.aval.shape, after.start.aval.dtype)

        def shifted(*values: jax.Array) -> jax.Array:
            new = dict(zip(added, values, strict=True))
            read = lambda a: new[a] if not is_literal(a) and a in new else self._read(a)  # noqa: E731
            return self._chain_with(after, zeros, read)

        z, back = jax.vjp(shifted, *(self._read(a) for a in added))
        return dict(zip(added, back(share.astype(z.dtype)), strict=True))

    def _chain_with(self, chain: Chain, x: jax.Array, read: Read) -> jax.Array:
        return at_least_float32(run_chain(chain, x, read, "zero"))


def _more_than_rounding(part: jax.Array, whole: jax.Array) -> jax.Array:
    """A part of a sum got by subtraction, 0 where only rounding is left of it."""
    return jnp.where(part > 4 * jnp.finfo(part.dtype).eps * whole, part, 0)


def _fan_in(eqn: Any, position: int) -> int:
    """How many inputs a neuron of a contraction has."""
    weight = eqn.invars[1 - position].aval
    if eqn.primitive is prim.CONV:
        numbers = eqn.params["dimension_numbers"]
        return int(weight.size) // int(weight.shape[numbers.rhs_spec[0]])
    contracted: int = math.prod(weight.shape[i] for i in prim.dot_numbers(eqn)[0][1 - position])
    return contracted


def _example_axes(eqn: Any, position: int, rank: int) -> list[int]:
    """Axes of a contraction's input along which it does the same again and again."""
    if eqn.primitive is prim.CONV:
        return [eqn.params["dimension_numbers"].lhs_spec[0]]
    if len(eqn.invars) > 2:  # a ragged product has other weights for other rows
        return []
    contracted, batch = prim.dot_numbers(eqn)
    return [i for i in range(rank) if i not in (*contracted[position], *batch[position])]


def _filled_like(value: jax.Array, number: float) -> jax.Array:
    """An array of one number that lies on the devices that `value` lies on."""
    filled = jnp.full_like(value, number)
    return jnp.where(value == value, filled, filled)


def _distinct(invars: Sequence[Any]) -> list[Any]:
    assert not any(is_literal(a) for a in invars), "contractions have array operands"
    return list(invars)


def _is_zero(value: Any) -> bool:
    return isinstance(value, float) and value == 0.0


def equal(a: Any, b: Any) -> bool:
    """Whether two weights of a term are the same number, known before any value is."""
    return a is b or (isinstance(a, int | float) and isinstance(b, int | float) and a == b)


def total_of(parts: Sequence[Any]) -> Any:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _broadcast_bound(bound: Any, x: jax.Array, what: Contraction) -> jax.Array:
    """A bound as an input of the contraction, once for all examples where it is the same."""
    bound = jnp.asarray(bound, x.dtype)
    shape = list(x.shape)
    if not what.before.eqns and all(family(e.primitive) is Family.AFFINE for e in what.after.eqns):
        own = (1,) * (x.ndim - bound.ndim) + bound.shape
        for axis in _example_axes(what.eqn, what.position, x.ndim):
            shape[axis] = own[axis]
    try:
        jnp.broadcast_to(bound, x.shape)
        return jnp.broadcast_to(bound, shape)
    except (ValueError, IndexError):
        raise ValueError(
            f"ZBox bounds of shape {bound.shape} do not broadcast against the layer's input of "
            f"shape {x.shape}: give scalars, or arrays that broadcast from the right (for channels "
            "that are not last, of shape (channels, 1, 1))."
        ) from None
