"""Rules of linear layers: what each one changes in one generic propagation.

Notation: a layer computes z_j = sum_i x_i w_ij + b_j. The number k_ij = x_i w_ij is the
*contribution* of input i to output j; k+ and k- are its positive and negative parts. Every rule of
this module shares the relevance R_j of an output among the contributions that made it.
S(z) = z + eps * sgn(z), with sgn(0) = +1, is the stabiliser.

A rule is a frozen dataclass and a pytree: its numbers may be traced, so a grid of them is one
`jax.vmap`. To write a rule, subclass `Rule` and define `terms` (see `Gamma`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import kinds
from .._layers.step import Way
from .base import (
    LINEAR_AND_SUMS,
    PROPORTIONAL,
    Bias,
    Number,
    Rule,
    Sharing,
    Term,
    check_bias,
    check_nonnegative,
    is_known,
)


@dataclass(frozen=True, eq=False, repr=False)
class Epsilon(Sharing):
    """LRP-epsilon: R_i = x_i sum_j w_ij R_j / S(z_j).

    Args:
        epsilon: the stabiliser, in units of the layer's output.
        bias: "absorb" | "ignore" | "distribute".

    Raises:
        ValueError: for a negative epsilon or an unknown bias policy.

    Example:
        >>> import lrp_jax as lrp
        >>> lrp.Epsilon(0.25)
        Epsilon(epsilon=0.25)

    Source: Bach et al. 2015, eq. 58.
    """

    epsilon: Number = 1e-6
    bias: Bias = "absorb"
    serves = PROPORTIONAL
    way = Way.PROPORTION

    def terms(self, layer: Any) -> Sequence[Term]:
        return [Term(layer.divide(layer.relevance, layer.output, self.epsilon), 1, 1)]


@dataclass(frozen=True, eq=False, repr=False)
class Zero(Sharing):
    """LRP-0: R_i = x_i sum_j w_ij R_j / z_j, and nothing from an output that is exactly zero.

    Costs one gradient: carried as a multiplier of the input it has no division at all. Where no
    entry of a composite has a stabiliser, the base rules of sums and pools have none either:
    `Zero()` alone is gradient times input in a rectified network.

    Args:
        bias: "absorb" | "ignore" | "distribute".

    Source: Bach et al. 2015, eq. 56; Montavon et al. 2019.
    """

    bias: Bias = "absorb"
    serves = PROPORTIONAL
    way = Way.PROPORTION

    def terms(self, layer: Any) -> Sequence[Term]:
        return [Term(layer.divide(layer.relevance, layer.output, 0.0), 1, 1)]


@dataclass(frozen=True, eq=False, repr=False)
class Norm(Sharing):
    """Epsilon's formula on the layer as it stands: R_i = x_i sum_j w_ij R_j / S(z_j).

    The rule of sums: residual adds, average pools, means. `stabilizer=0` is a plain proportional
    split, which needs no division at all.

    Args:
        stabilizer: the stabiliser of the sum.
        bias: "absorb" | "ignore" | "distribute".

    Source: zennit's `Norm`.
    """

    stabilizer: Number = 1e-6
    bias: Bias = "absorb"
    serves = PROPORTIONAL
    way = Way.PROPORTION

    def terms(self, layer: Any) -> Sequence[Term]:
        return [Term(layer.divide(layer.relevance, layer.output, self.stabilizer), 1, 1)]


@dataclass(frozen=True, eq=False, repr=False)
class Gamma(Sharing):
    """LRP-gamma, generalised to signed inputs: contributions of the output's sign weigh 1 + gamma.

    For z_j > 0, R_i = sum_j (k_ij + gamma k+_ij) R_j / S(D_j), with the denominator
    D_j = sum_i (k_ij + gamma k+_ij) + b_j + gamma b+_j;
    for z_j < 0 the same with k- and b-; z_j = 0 passes nothing on. The sign is that of the layer's
    own output, also where the bias is ignored (as zennit's `zero_params`).

    Args:
        gamma: how much more contributions of the output's own sign weigh.
        stabilizer: the stabiliser of the denominators.
        bias: "absorb" | "ignore" | "distribute".

    Example:
        >>> import lrp_jax as lrp
        >>> lrp.Gamma(0.5)
        Gamma(gamma=0.5)

    Source: Montavon et al. 2019 (inputs >= 0); Andeol et al. 2021 and zennit for any sign.
    """

    gamma: Number = 0.25
    stabilizer: Number = 1e-6
    bias: Bias = "absorb"
    serves = LINEAR_AND_SUMS

    def terms(self, layer: Any) -> Sequence[Term]:
        heavy = 1 + self.gamma
        z, b = layer.output, layer.bias

        def share(sums: Any, bias_part: Any, chosen: Any) -> jax.Array:
            denominator = z + self.gamma * (sums + bias_part)
            return layer.divide(jnp.where(chosen, layer.relevance, 0), denominator, self.stabilizer)

        up = Term(share(layer.positive, jnp.maximum(b, 0), layer.value > 0), heavy, 1)
        if layer.only_positive:
            return [up]
        return [up, Term(share(layer.negative, jnp.minimum(b, 0), layer.value < 0), 1, heavy)]


@dataclass(frozen=True, eq=False, repr=False)
class ZPlus(Sharing):
    """LRP-z+: R_i = sum_j k+_ij R_j / S(sum_i k+_ij + b+_j).

    Args:
        stabilizer: the stabiliser of the denominators.
        bias: "absorb" | "ignore" | "distribute".

    Source: Montavon et al. 2017 (deep Taylor decomposition).
    """

    stabilizer: Number = 1e-6
    bias: Bias = "absorb"
    serves = LINEAR_AND_SUMS

    def terms(self, layer: Any) -> Sequence[Term]:
        total = layer.positive + jnp.maximum(layer.bias, 0)
        return [Term(layer.divide(layer.relevance, total, self.stabilizer), 1, 0)]


@dataclass(frozen=True, eq=False, repr=False)
class AlphaBeta(Sharing):
    """LRP-alpha-beta: R_i = sum_j (alpha k+_ij / S(z+_j) - beta k-_ij / S(z-_j)) R_j.

    z+_j = sum_i k+_ij + b+_j and z-_j = sum_i k-_ij + b-_j. Where one sign is absent from a neuron,
    its share is lost (the ledger reports it).

    Args:
        alpha: weight of the positive contributions.
        beta: weight of the negative contributions; alpha - beta = 1.
        stabilizer: the stabiliser of the denominators.
        bias: "absorb" | "ignore" | "distribute".

    Raises:
        ValueError: for negative values, or unless alpha - beta = 1 up to rounding.

    Source: Bach et al. 2015, eq. 60.
    """

    alpha: Number = 2.0
    beta: Number = 1.0
    stabilizer: Number = 1e-6
    bias: Bias = "absorb"
    serves = LINEAR_AND_SUMS

    def __post_init__(self) -> None:
        super().__post_init__()
        known = is_known(self.alpha) and is_known(self.beta)
        if known and (self.alpha < 0 or abs(self.alpha - self.beta - 1) > 1e-6):
            raise ValueError(
                f"AlphaBeta(alpha={self.alpha}, beta={self.beta}): alpha - beta must be 1 "
                f"(here {self.alpha - self.beta:g}) and both must be >= 0."
            )

    def terms(self, layer: Any) -> Sequence[Term]:
        def share(sums: Any, weight: Any) -> jax.Array:
            return layer.divide(weight * layer.relevance, sums, self.stabilizer)

        up = share(layer.positive + jnp.maximum(layer.bias, 0), self.alpha)
        down = share(layer.negative + jnp.minimum(layer.bias, 0), -self.beta)
        if is_known(self.beta) and self.beta == 0:
            return [Term(up, 1, 0)]
        return [Term(up, 1, 0), Term(down, 0, 1)]


@dataclass(frozen=True, eq=False, repr=False)
class Relative(Rule):
    """Relative LRP: R_i = x_i sum_j w_ij R_j, the division gone.

    Conservation holds up to a factor per example; merges still divide.

    Source: Gu et al., Relative-LRP (forward-pass formulation of LRP).
    """

    serves = PROPORTIONAL
    way = Way.PROPORTION
    divisor = None

    def terms(self, layer: Any) -> Sequence[Term]:
        return [Term(layer.relevance, 1, 1)]


@dataclass(frozen=True, eq=False, repr=False)
class ZBox(Rule):
    """z^B, for inputs in a box: R_i = x_i (w s)_i - l_i (w+ s)_i - h_i (w- s)_i.

    Here s = R / S(xw - l w+ - h w-).

    Args:
        low: lowest possible input; a scalar or an array that broadcasts from the right.
        high: highest possible input, likewise.
        stabilizer: the stabiliser of the denominators.
        bias: without effect: the bias cancels in this rule.

    Raises:
        ValueError: where low exceeds high.

    Source: Montavon et al. 2017.
    """

    low: Number
    high: Number
    stabilizer: Number = 1e-6
    bias: Bias = "absorb"
    serves = kinds.Linear
    makes_relevance = True

    def __post_init__(self) -> None:
        check_nonnegative(self, "stabilizer")
        check_bias(self)
        bounds = (self.low, self.high)
        if any(isinstance(b, jax.core.Tracer) for b in bounds) or type(self.low) is object:
            return
        if any(b is None or isinstance(b, str) for b in bounds):
            raise ValueError("ZBox needs numbers for low and high: the range of the layer's input.")
        if np.any(np.asarray(self.low) > np.asarray(self.high)):
            raise ValueError(f"ZBox(low={self.low}, high={self.high}): low exceeds high.")

    def input_relevance(self, layer: Any) -> jax.Array:
        """Relevance of the layer's input (see `_layers.ways_back.ContractionLayer`)."""
        return layer.box_relevance(self.low, self.high, self.stabilizer)


@dataclass(frozen=True, eq=False, repr=False)
class WSquare(Rule):
    """w^2, for inputs without a natural zero: R_i = sum_j w_ij^2 R_j / S(sum_i w_ij^2 + b_j^2).

    Args:
        stabilizer: the stabiliser of the denominators.
        bias: "absorb" | "ignore" | "distribute".

    Source: Montavon et al. 2017; the bias as in zennit.
    """

    stabilizer: Number = 1e-6
    bias: Bias = "absorb"
    serves = kinds.Linear
    makes_relevance = True

    def __post_init__(self) -> None:
        check_nonnegative(self, "stabilizer")
        check_bias(self)

    def input_relevance(self, layer: Any) -> jax.Array:
        """Relevance of the layer's input."""
        return layer.squared_relevance(self.stabilizer, self.bias)


@dataclass(frozen=True, eq=False, repr=False)
class Flat(Rule):
    """Flat: R_i = sum_j R_j / S(n_j), n_j the number of real (unpadded) inputs of neuron j.

    Args:
        stabilizer: the stabiliser of the denominators.
        bias: without effect: this rule looks at no parameter.

    Source: Lapuschkin et al. 2019.
    """

    stabilizer: Number = 1e-6
    bias: Bias = "absorb"
    serves = LINEAR_AND_SUMS
    makes_relevance = True

    def __post_init__(self) -> None:
        check_nonnegative(self, "stabilizer")
        check_bias(self)

    def input_relevance(self, layer: Any) -> jax.Array:
        """Relevance of the layer's input."""
        return layer.flat_relevance(self.stabilizer)
