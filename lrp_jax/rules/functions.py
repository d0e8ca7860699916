"""Rules of functions that are not linear: activations, normalisations, softmaxes, products."""

from dataclasses import dataclass

from .. import kinds
from .._layers.step import Way
from .base import Rule


@dataclass(frozen=True, eq=False, repr=False)
class Pass(Rule):
    """Hands relevance on unchanged: R_i = R_i (elementwise layers, stand-alone batch norms).

    Source: Bach et al. 2015 for activations.
    """

    serves = (
        kinds.Activation | kinds.BatchNorm | kinds.Bias | kinds.Normalization | kinds.Softmax
        | kinds.Linear
    )  # fmt: skip
    way = Way.UNCHANGED
    makes_relevance = True


@dataclass(frozen=True, eq=False, repr=False)
class Identity(Rule):
    """The identity rule: activations hand relevance on; a norm's statistics are constants.

    Source: Achtibat et al. 2024 (AttnLRP), section 3.2; Ali et al. 2022.
    """

    serves = kinds.Activation | kinds.Normalization
    way = Way.IDENTITY


@dataclass(frozen=True, eq=False, repr=False)
class Taylor(Rule):
    """First order around zero with everything live; for a softmax R_i = x_i (R_i - s_i sum_j R_j).

    Source: Achtibat et al. 2024 (AttnLRP), proposition 3.1.
    """

    serves = (
        kinds.Activation | kinds.Softmax | kinds.LogSumExp | kinds.Normalization | kinds.Bilinear
    )
    way = Way.FUNCTION


@dataclass(frozen=True, eq=False, repr=False)
class Uniform(Rule):
    """Half of a product's relevance to each of its two factors.

    Source: Achtibat et al. 2024 (AttnLRP), section 3.3.
    """

    serves = kinds.Bilinear
    way = Way.FUNCTION

    def shares(self, operands: int, gate: int | None) -> tuple[float, ...]:
        return (1 / operands,) * operands


@dataclass(frozen=True, eq=False, repr=False)
class Gate(Rule):
    """All of a product's relevance to the signal, none to the gate; a softmax only gates.

    The gate is the factor that comes from a softmax, else from a sigmoid, else from another
    activation; where neither or both do, each factor gets half.

    Source: Arras et al. 2017 (LSTM); Ali et al. 2022 (CP-LRP).
    """

    serves = kinds.Bilinear | kinds.Softmax | kinds.LogSumExp | kinds.Activation
    way = Way.FUNCTION

    def shares(self, operands: int, gate: int | None) -> tuple[float, ...]:
        if gate is None:
            return (1 / operands,) * operands
        return tuple(0.0 if i == gate else 1.0 for i in range(operands))
