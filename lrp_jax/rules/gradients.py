"""Modified gradients: the start is used as it is, the result is not multiplied by the input."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from .. import kinds
from .base import Number, Rule, check_nonnegative


@dataclass(frozen=True, eq=False, repr=False)
class GuidedBackprop(Rule):
    """Guided backpropagation through a relu: the gradient where it and the input are positive.

    A modified gradient: the start is used as it is and the result is not multiplied by the input.

    Source: Springenberg et al. 2015.
    """

    serves = kinds.Activation
    gradient = True

    def cotangent(self, x: jax.Array, gradient: jax.Array, incoming: jax.Array) -> jax.Array:
        """The cotangent of the activation's input."""
        return jnp.where(incoming > 0, gradient, 0)


@dataclass(frozen=True, eq=False, repr=False)
class DeconvNet(Rule):
    """Deconvolution networks: the positive part of what comes back, whatever the input was.

    A modified gradient, see `GuidedBackprop`.

    Source: Zeiler and Fergus 2014.
    """

    serves = kinds.Activation
    gradient = True

    def cotangent(self, x: jax.Array, gradient: jax.Array, incoming: jax.Array) -> jax.Array:
        """The cotangent of the activation's input."""
        return jnp.maximum(incoming, 0)


@dataclass(frozen=True, eq=False, repr=False)
class BetaSmooth(Rule):
    """The gradient of a softplus in place of a relu's: sigmoid(beta x) times what comes back.

    A modified gradient, see `GuidedBackprop`.

    Args:
        beta: sharpness of the softplus.

    Source: Dombrowski et al. 2019.
    """

    beta: Number = 10.0
    serves = kinds.Activation
    gradient = True

    def __post_init__(self) -> None:
        check_nonnegative(self, "beta")

    def cotangent(self, x: jax.Array, gradient: jax.Array, incoming: jax.Array) -> jax.Array:
        """The cotangent of the activation's input."""
        return incoming * jax.nn.sigmoid(self.beta * x)
