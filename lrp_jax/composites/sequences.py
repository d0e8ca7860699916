"""Presets for transformers and state spaces, with the names and maps of the literature."""

from typing import Any

from .. import kinds
from ..kinds import call
from ..rules import Gate, Hold, Identity, Taylor, Uniform, Weighted, Zero
from ..rules.base import Rule
from .composite import Composite, preset


def AttnLRP(
    linear: Rule | None = None, *, conv: Rule | None = None, attention: str | None = None
) -> Composite:
    """AttnLRP for transformers: half to each factor, softmax by Taylor, statistics constant.

    Args:
        linear: rule of dense layers (default: LRP-0; for vision transformers `Gamma(0.05)`).
        conv: rule of convolutions, such as a patch embedding (default: as `linear`; for vision
            transformers `Gamma(0.25)`).
        attention: a glob of the names of functions, such as kernels, that compute attention from
            (q, k, v): each is one layer that gives them 1/4, 1/4 and 1/2 of its own gradient
            (see `lrp_jax.call`).

    Source: Achtibat et al. 2024.
    """
    kernels = _kernels(attention, Weighted(0.25, 0.25, 0.5))
    return preset(*kernels, *_attention(linear, conv, Taylor(), Uniform()))


def CPLRP(
    linear: Rule | None = None, *, conv: Rule | None = None, attention: str | None = None
) -> Composite:
    """CP-LRP for transformers: attention weights and gates are constants, the signal takes all.

    Args:
        linear: rule of dense layers (default: LRP-0).
        conv: rule of convolutions (default: as `linear`).
        attention: a glob of the names of functions that compute attention from (q, k, v): each is
            one layer that gives all of its own gradient to v (see `lrp_jax.call`).

    Source: Ali et al. 2022.
    """
    kernels = _kernels(attention, Weighted(0.0, 0.0, 1.0))
    return preset(*kernels, *_attention(linear, conv, Gate(), Gate()))


def RelP(linear: Rule | None = None, *, conv: Rule | None = None) -> Composite:
    """RelP: attention weights are constants, half to each factor of a gate, statistics constant.

    Made for `lrp_jax.patching`, where it comes closer to activation patching than the gradient.

    Args:
        linear: rule of dense layers (default: LRP-0).
        conv: rule of convolutions (default: as `linear`).

    Source: Rezaei Jafari et al. 2025 (arXiv 2508.21258).
    """
    return preset(*_attention(linear, conv, Hold(), Uniform()))


def MambaLRP(
    linear: Rule | None = None, *, conv: Rule | None = None, selection: Any = "*x_proj*"
) -> Composite:
    """MambaLRP for selective state spaces: A, B and C are constants, half to each side of a gate.

    Args:
        linear: rule of dense layers (default: LRP-0).
        conv: rule of convolutions (default: as `linear`).
        selection: a match of the layers that compute the step, B and C of each token from it.

    Source: Rezaei Jafari et al. 2024 (arXiv 2406.07592).
    """
    return preset((selection, Hold()), *_attention(linear, conv, Taylor(), Uniform()))


def _kernels(attention: str | None, rule: Rule) -> list[tuple[Any, Rule]]:
    return [] if attention is None else [(call(attention), rule)]


def _attention(
    linear: Rule | None, conv: Rule | None, softmax: Rule, bilinear: Rule
) -> list[tuple[Any, Rule]]:
    linear = linear or Zero()
    return [
        (kinds.Dense, linear),
        (kinds.Conv, conv or linear),
        (kinds.AvgPool | kinds.Merge | kinds.Bias | kinds.BatchNorm, Zero()),
        (kinds.Activation, Identity()),
        (kinds.Normalization, Identity()),
        (kinds.Softmax, softmax),
        (kinds.Bilinear, bilinear),
    ]
