"""What an explanation explains: how `target=` becomes the relevance at the output.

Read `starts` (what a target is), `usual` (targets for the questions asked most) and `scoring` (a
target as the score of a model that is asked again and again).
"""

from .starts import (
    check as check,
    is_weighting as is_weighting,
    start as start,
    weighting as weighting,
)
from .usual import (
    clrp as clrp,
    contrast as contrast,
    mask as mask,
    regression as regression,
    softmax as softmax,
    token as token,
    top_k as top_k,
)
