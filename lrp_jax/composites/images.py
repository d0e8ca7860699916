"""Presets for networks of images, with the names and maps of the literature."""

from typing import Any

from .. import kinds
from ..kinds import first
from ..rules import AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZBox, Zero, ZPlus
from .composite import Composite, preset


def EpsilonGammaBox(
    low: Any, high: Any, epsilon: Any = 1e-6, gamma: Any = 0.25, stabilizer: Any = 1e-6
) -> Composite:
    """Z^B in the first convolution, gamma in the others, epsilon in dense layers.

    Args:
        low: lowest possible input, scalar or broadcasting from the right.
        high: highest possible input, likewise.
        epsilon: of the dense layers.
        gamma: of the convolutions.
        stabilizer: of the z^B and gamma denominators.

    Source: zennit's `epsilon_gamma_box`; Montavon et al. 2019.
    """
    return preset(
        (first(kinds.Conv), ZBox(low, high, stabilizer)),
        (kinds.Conv, Gamma(gamma, stabilizer)),
        (kinds.Dense, Epsilon(epsilon)),
    )


def EpsilonPlus(epsilon: Any = 1e-6, stabilizer: Any = 1e-6) -> Composite:
    """z+ in convolutions, epsilon in dense layers.

    Args:
        epsilon: of the dense layers.
        stabilizer: of the z+ denominators.

    Source: zennit's `epsilon_plus`; Kohlbrenner et al. 2020.
    """
    return preset((kinds.Conv, ZPlus(stabilizer)), (kinds.Dense, Epsilon(epsilon)))


def EpsilonPlusFlat(epsilon: Any = 1e-6, stabilizer: Any = 1e-6) -> Composite:
    """As `EpsilonPlus`, with the flat rule in the first layer that has weights.

    Args:
        epsilon: of the dense layers.
        stabilizer: of the flat and z+ denominators.

    Source: zennit's `epsilon_plus_flat`.
    """
    flat = (first(kinds.Linear), Flat(stabilizer))
    return preset(flat, *EpsilonPlus(epsilon, stabilizer).entries)


def EpsilonAlpha2Beta1(epsilon: Any = 1e-6, stabilizer: Any = 1e-6) -> Composite:
    """alpha 2, beta 1 in convolutions, epsilon in dense layers.

    Args:
        epsilon: of the dense layers.
        stabilizer: of the alpha-beta denominators.

    Source: zennit's `epsilon_alpha2_beta1`; Kohlbrenner et al. 2020.
    """
    convolutions = AlphaBeta(2.0, 1.0, stabilizer)
    return preset((kinds.Conv, convolutions), (kinds.Dense, Epsilon(epsilon)))


def EpsilonAlpha2Beta1Flat(epsilon: Any = 1e-6, stabilizer: Any = 1e-6) -> Composite:
    """As `EpsilonAlpha2Beta1`, with the flat rule in the first layer that has weights.

    Args:
        epsilon: of the dense layers.
        stabilizer: of the flat and alpha-beta denominators.

    Source: zennit's `epsilon_alpha2_beta1_flat`.
    """
    flat = (first(kinds.Linear), Flat(stabilizer))
    return preset(flat, *EpsilonAlpha2Beta1(epsilon, stabilizer).entries)


def ExcitationBackprop(stabilizer: Any = 1e-6) -> Composite:
    """z+ in every layer with weights.

    Args:
        stabilizer: of the denominators.

    Source: Zhang et al. 2016; zennit's `excitation_backprop`.
    """
    return preset((kinds.Linear, ZPlus(stabilizer)))


def DeepTaylor(low: Any = None, high: Any = None, stabilizer: Any = 1e-6) -> Composite:
    """Deep Taylor decomposition: z+ everywhere, z^B (or w^2) in the first layer with weights.

    Args:
        low: lowest possible input; without bounds the first layer follows w^2.
        high: highest possible input.
        stabilizer: of the denominators.

    Raises:
        ValueError: where only one of the bounds is given.

    Source: Montavon et al. 2017.
    """
    if (low is None) != (high is None):
        raise ValueError("DeepTaylor needs both bounds of the input, or neither.")
    entry = WSquare(stabilizer) if low is None else ZBox(low, high, stabilizer)
    plus = ZPlus(stabilizer, bias="ignore")
    return preset((first(kinds.Linear), entry), (kinds.Linear, plus))


def LRPOverview(low: Any, high: Any, gamma: Any = 0.25, epsilon: Any = 0.25) -> Composite:
    """The tutorial preset: z^B first, gamma in the lower third, epsilon in the middle, then LRP-0.

    Args:
        low: lowest possible input.
        high: highest possible input.
        gamma: of the lower third.
        epsilon: of the middle third.

    Source: Montavon et al. 2019, section 10.3.
    """
    return preset(
        (first(kinds.Linear), ZBox(low, high)),
        (kinds.depth(0.0, 1 / 3), Gamma(gamma)),
        (kinds.depth(1 / 3, 2 / 3), Epsilon(epsilon)),
        (kinds.Linear, Zero()),
    )
