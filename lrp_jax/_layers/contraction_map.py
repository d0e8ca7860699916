"""One contraction with its weights at one input: forwards, back, its bias, its counts.

A layer is `after(contract(before(x), w))`, `before` and `after` affine number by number. Because a
contribution k_ij = x_i w_ij does not change when a factor moves from the weight to the input, a
batch norm needs no new weights: its scale acts outside of the contraction, by its absolute value
where absolute weights are asked for, and its shift is part of the bias.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from .._analysis import primitives as prim
from .._analysis.compat import Equation, is_literal
from .arithmetic import at_least_float32, divide
from .chains import Chain, Read, run_chain
from .linear import LinearLayer
from .step import Place


@dataclass(frozen=True, eq=False)
class Contracted:
    """`after(contract(before(x), w))`: one linear map with its weights and biases.

    Attributes:
        before: what scales, shifts and pads the input.
        eqn: the contraction.
        position: which operand of it is explained.
        after: what scales and shifts its result.
        features: an output axis that one axis of the weights makes, and that axis.
        feature_scales: whether the scales after it vary along that axis alone.
    """

    before: Chain
    eqn: Equation
    position: int
    after: Chain
    features: tuple[int, int] | None
    feature_scales: bool

    @property
    def weight(self) -> Any:
        return self.eqn.invars[1 - self.position]

    @property
    def fan_in(self) -> int:
        """How many inputs a neuron has."""
        weight = self.weight.aval
        if self.eqn.primitive is prim.CONV:
            numbers = self.eqn.params["dimension_numbers"]
            return int(weight.size) // int(weight.shape[numbers.rhs_spec[0]])
        contracted = prim.dot_numbers(self.eqn)[0][1 - self.position]
        return math.prod(weight.shape[i] for i in contracted)

    def example_axes(self, rank: int) -> list[int]:
        """Axes of the input along which it does the same again and again."""
        if self.eqn.primitive is prim.CONV:
            return [self.eqn.params["dimension_numbers"].lhs_spec[0]]
        if len(self.eqn.invars) > 2:  # a ragged product has other weights for other rows
            return []
        contracted, batch = prim.dot_numbers(self.eqn)
        bound = (*contracted[self.position], *batch[self.position])
        return [i for i in range(rank) if i not in bound]


class ContractionMap(LinearLayer):
    """What is linear algebra in a contraction layer, before any sign is looked at."""

    def __init__(
        self, of: Contracted, place: Place, x: jax.Array, y: jax.Array, read: Read,
        relevance: jax.Array, bias_policy: str,
    ) -> None:  # fmt: skip
        self._of = of
        eqn = of.eqn
        self._read = read
        self._weight = read(of.weight)
        assert not any(map(is_literal, eqn.invars)), "contractions have array operands"
        run = place.part([eqn], list(eqn.invars), eqn.outvars)
        groups = [read(atom) for atom in eqn.invars[2:]]  # of a ragged product
        self._contract = (
            (lambda u, w: run(u, w, *groups)[0])
            if of.position == 0
            else (lambda u, w: run(w, u, *groups)[0])
        )
        self.x = x
        self.absorbed = []
        self.relevance = relevance
        self.value = z = at_least_float32(y)
        bias = self._bias()
        ignored = bias_policy == "ignore"
        self.bias = 0.0 if ignored else bias
        self.output = z - bias if ignored and not _is_zero(bias) else z
        self._linear_output = z if _is_zero(bias) else z - bias

    def _before(self, x: jax.Array, mode: str) -> jax.Array:
        return run_chain(self._of.before, x, self._read, mode)

    def _after(self, z: jax.Array, mode: str) -> jax.Array:
        return at_least_float32(run_chain(self._of.after, z, self._read, mode))

    @cached_property
    def _u(self) -> jax.Array:
        """What enters the contraction, without the shift that a chain before it adds."""
        return self._before(self.x, "linear")

    def _bias(self) -> Any:
        shifts_before = self._of.before.shifts
        if not (shifts_before or self._of.after.shifts):
            return 0.0
        z = self._of.after.start.aval
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

    def _through_before(self, c: jax.Array, mode: str) -> jax.Array:
        if not self._of.before.eqns:
            return c
        transposed = jax.linear_transpose(lambda x: self._before(x, mode), self.x)
        (result,) = transposed(c)
        return result

    def spread_evenly(self, share: jax.Array) -> jax.Array:
        """`share_j / n_j` to every real input of j, summed over j; see `kept`."""
        return self._even(divide(share, self._count, 0.0))

    def kept(self, share: jax.Array) -> jax.Array:
        """What cannot be spread evenly: that of outputs without a real input."""
        return jnp.where(self._count == 0, share, 0)

    @cached_property
    def _count(self) -> jax.Array:
        ones = filled_like(self._weight, 1)
        real = self._before(filled_like(self.x, 1), "structural")
        return self.forward(real, ones, "structural")

    def _even(self, share: jax.Array) -> jax.Array:
        even = self.backward(share, filled_like(self._weight, 1), "structural")
        return self._through_before(even, "structural")


def filled_like(value: jax.Array, number: float) -> jax.Array:
    """An array of one number that lies on the devices that `value` lies on."""
    filled = jnp.full_like(value, number)
    return jnp.where(value == value, filled, filled)


def _is_zero(value: Any) -> bool:
    return isinstance(value, float) and value == 0.0
