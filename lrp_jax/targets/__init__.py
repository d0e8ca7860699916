"""What an explanation explains: how `target=` becomes the relevance at the output.

Read `starts` (what a target is), `usual` (targets for the questions asked most), `several` (more
than one of them), `examples` (whether an output's numbers are classes or examples) and `scoring` (a
target as the score of a model that is asked again and again).
"""

from .several import EACH as EACH, each as each, is_each as is_each, leading as leading
from .starts import (
    check as check,
    is_helper as is_helper,
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
