"""Explanations to compare with, all in the call form of `relevance`.

Read `gradients` (which says what is explained), `layers` (that look inside of the model) and
`blind` (that see its outputs alone, or nothing).
"""

from .blind import occlusion as occlusion
from .blind import random as random
from .blind import sobel as sobel
from .gradients import gradient as gradient
from .gradients import input_x_gradient as input_x_gradient
from .gradients import integrated_gradients as integrated_gradients
from .gradients import smoothgrad as smoothgrad
from .layers import grad_cam as grad_cam
from .layers import guided_backprop as guided_backprop
from .layers import lrp0 as lrp0
