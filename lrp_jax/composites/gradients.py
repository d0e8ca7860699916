"""Presets of modified gradients, which are no relevances."""

from typing import Any

from .. import kinds
from ..rules import BetaSmooth, DeconvNet, GuidedBackprop
from .composite import Composite, preset


def guided_backprop() -> Composite:
    """Guided backpropagation in every relu, the gradient elsewhere (Springenberg et al. 2015)."""
    return preset((kinds.ReLU, GuidedBackprop()))


def deconvnet() -> Composite:
    """The deconvolution network in every relu, the gradient elsewhere (Zeiler and Fergus 2014)."""
    return preset((kinds.ReLU, DeconvNet()))


def beta_smooth(beta: Any = 10.0) -> Composite:
    """A softplus' gradient in every relu, the gradient elsewhere (Dombrowski et al. 2019).

    Args:
        beta: sharpness of the softplus.
    """
    return preset((kinds.ReLU, BetaSmooth(beta)))
