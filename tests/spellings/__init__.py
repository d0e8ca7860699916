"""Equal functions, written differently, whose relevance has to be the same.

A *group* (`group.py`) is one small function and its spellings, as people write them; the first one
is the standard. `python -m tests.spellings --help` explains all of them and prints who deviates;
`tests/test_spellings.py` is the quick part of it. Where a group has a `reference`, relevance is
also known by hand: the gradient times the input of the function with its statistics and gates held.
"""

from __future__ import annotations

from . import (
    activations,
    added,
    affine,
    attention,
    between,
    branches,
    conv,
    cosines,
    cut,
    factored,
    gates,
    in_blocks,
    in_words,
    integers,
    joined,
    mixed_heads,
    modulated,
    moves,
    norms,
    packed,
    parts,
    picked,
    products,
    recurrences,
    reductions,
    renormalised,
    routers,
    running_norms,
    shapes,
    shares,
    softmaxes,
    twice,
    undone,
    weighted_means,
)
from .group import Group

MODULES = (
    softmaxes, attention, weighted_means, norms, products, gates, affine, moves, activations,
    cosines, reductions, conv, integers, twice, picked, in_blocks, renormalised, shares, routers,
    running_norms, recurrences, shapes, between,
    parts, branches, mixed_heads, factored, modulated, packed, joined, undone, cut, in_words, added,
)  # fmt: skip
GROUPS: dict[str, Group] = {group.name: group for module in MODULES for group in module.GROUPS}

__all__ = ["GROUPS", "Group"]
