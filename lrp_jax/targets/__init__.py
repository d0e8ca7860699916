"""What an explanation explains: how `target=` becomes the relevance at the output.

Read `starts` (what a target is), `usual` (targets for the questions asked most) and `scoring` (a
target as the score of a model that is asked again and again).
"""

from .starts import check as check
from .starts import is_weighting as is_weighting
from .starts import start as start
from .starts import weighting as weighting
from .usual import clrp as clrp
from .usual import contrast as contrast
from .usual import mask as mask
from .usual import regression as regression
from .usual import softmax as softmax
from .usual import token as token
from .usual import top_k as top_k
