"""Warnings that point at the line of the user's code, however deep inside they come up."""

import sys
import warnings
from pathlib import Path

import jax

_INSIDE = tuple(f"{Path(module).parent}/" for module in (__file__, str(jax.__file__)))


def warn(text: str) -> None:
    """Warn, with the innermost line that is neither in this package nor in JAX as the place.

    Args:
        text: the warning.
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INSIDE):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level)
