"""Prompts of which it is known what makes the answer, and how well explanations find it.

Read `tasks` (the prompts), `encoding` (as ids of a tokenizer), then `comparison` (methods side by
side).
"""

from .comparison import Comparison as Comparison, compare as compare
from .encoding import Encoded as Encoded, encode as encode
from .tasks import (
    Prompt as Prompt,
    agreement as agreement,
    indirect_objects as indirect_objects,
    needles as needles,
    passages as passages,
)
