"""The propagation rules, and the base that every rule stands on.

Read `base` (what a rule is), `sharing` (rules of linear layers), `functions` (activations, norms,
softmaxes, products) and `gradients` (modified gradients).
"""

from .base import Rule as Rule, Term as Term
from .functions import (
    Gate as Gate,
    Hold as Hold,
    Identity as Identity,
    Pass as Pass,
    Taylor as Taylor,
    Uniform as Uniform,
    Weighted as Weighted,
)
from .gradients import (
    BetaSmooth as BetaSmooth,
    DeconvNet as DeconvNet,
    GuidedBackprop as GuidedBackprop,
)
from .sharing import (
    AlphaBeta as AlphaBeta,
    Epsilon as Epsilon,
    Flat as Flat,
    Gamma as Gamma,
    Norm as Norm,
    Relative as Relative,
    WSquare as WSquare,
    ZBox as ZBox,
    Zero as Zero,
    ZPlus as ZPlus,
)

RULES: dict[str, type[Rule]] = {
    rule.__name__: rule
    for rule in (
        Epsilon, Zero, Gamma, ZPlus, AlphaBeta, ZBox, WSquare, Flat, Norm, Pass, Relative,
        GuidedBackprop, DeconvNet, BetaSmooth, Identity, Taylor, Uniform, Gate,
        Hold, Weighted,
    )
}  # fmt: skip
"""Every rule by its name."""
