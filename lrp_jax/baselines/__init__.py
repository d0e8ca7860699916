"""Explanations to compare with, all in the call form of `relevance`.

Read `gradients` (which says what is explained), `layers` (that look inside of the model) and
`blind` (that see its outputs alone, or nothing).
"""

from .. import _elsewhere
from .blind import occlusion as occlusion, random as random, sobel as sobel
from .gradients import (
    gradient as gradient,
    input_x_gradient as input_x_gradient,
    integrated_gradients as integrated_gradients,
    smoothgrad as smoothgrad,
)
from .layers import (
    attribution_patching as attribution_patching,
    grad_cam as grad_cam,
    guided_backprop as guided_backprop,
    lrp0 as lrp0,
)

__getattr__ = _elsewhere.attribute_of(__name__)
