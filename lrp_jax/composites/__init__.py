"""Composites: which layer gets which rule.

Read `composite` (ordered pairs of a match and a rule), then the presets of the literature:
`images`, `sequences`, `gradients`.
"""

from .. import _elsewhere
from .composite import BASE as BASE, Composite as Composite, as_composite as as_composite
from .gradients import (
    beta_smooth as beta_smooth,
    deconvnet as deconvnet,
    guided_backprop as guided_backprop,
)
from .images import (
    DeepTaylor as DeepTaylor,
    EpsilonAlpha2Beta1 as EpsilonAlpha2Beta1,
    EpsilonAlpha2Beta1Flat as EpsilonAlpha2Beta1Flat,
    EpsilonGammaBox as EpsilonGammaBox,
    EpsilonPlus as EpsilonPlus,
    EpsilonPlusFlat as EpsilonPlusFlat,
    ExcitationBackprop as ExcitationBackprop,
    LRPOverview as LRPOverview,
)
from .sequences import CPLRP as CPLRP, AttnLRP as AttnLRP, MambaLRP as MambaLRP, RelP as RelP

__getattr__ = _elsewhere.attribute_of(__name__)
