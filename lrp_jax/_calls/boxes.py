"""Inputs far outside of the box that a composite says they lie in: of images scaled otherwise."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from .._layers.step import Frame
from ..composites import Composite
from ..rules import ZBox
from .resolve import Resolved

OUTSIDE = (
    "the explained input holds values from {:.4g} to {:.4g}, outside of the box of {} at {}: low "
    "and high are the lowest and highest values of the data as the network sees them, so after it "
    "is scaled; arrays give each channel its own."
)

_SLACK = 0.5  # of its width: a box is often a guess, such as three standard deviations


def outside_of_boxes(
    frame: Frame, resolved: Resolved, composite: Composite, leaves: Sequence[Any]
) -> Iterator[str]:
    """What is to be said of a call whose inputs, where they can be read, leave a layer's box.

    Args:
        frame: the analysed function.
        resolved: which rule each layer has.
        composite: the rules.
        leaves: the array arguments.
    """
    places = {var: i for i, var in enumerate(frame.invars)}
    for step, entry in resolved.entries.items():
        rule = composite.rules[entry]
        read = [leaves[places[var]] for var in step.inputs if var in places]
        if not isinstance(rule, ZBox) or not read:
            continue
        numbers = (rule.low, rule.high, read[0])
        if any(isinstance(n, jax.core.Tracer | jax.ShapeDtypeStruct) for n in numbers):
            continue
        low, high, value = map(np.asarray, numbers)
        slack = _SLACK * (high - low)
        try:
            outside = np.any(value < low - slack) or np.any(value > high + slack)
        except ValueError:  # of another shape, which the rule refuses
            continue
        if outside:
            name = resolved.plan.layers[resolved.indices[step]].name
            yield OUTSIDE.format(value.min(), value.max(), rule, name)
