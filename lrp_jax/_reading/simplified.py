"""Equations written otherwise, one identity after the other, before anything is a layer."""

from .._analysis import splice
from .._analysis.draft import Draft
from .._analysis.numbers import with_numbers
from .._layers.reading import refusal
from .._layers.step import UnsupportedOperation
from .equations.batches_of_one import with_batches_of_one
from .equations.cases import with_cases
from .equations.chosen import with_chosen_branches, with_known_signs
from .equations.constant_factors import without_constant_factors
from .equations.filled import with_rows_of_loops, without_updates
from .equations.float_twins import as_floats
from .equations.held_operands import without_held_operands
from .equations.loops import with_bounded_loops
from .equations.masked import with_masks
from .equations.regrouped import without_passing_shapes
from .equations.round_trips import with_integers, without_raised_roots, without_round_trips
from .equations.scaled_parts import with_scaled_parts
from .equations.spread import spread_out
from .equations.straight_through import with_straight_through
from .equations.turns import with_like_turns
from .equations.units import without_passing_axes
from .equations.written_out import with_factors

_MOST_STACKS = 2
"""So often products over a stack are written out: they make others."""


def simplified(draft: Draft) -> Draft:
    """The same function in fewer words.

    Raises:
        UnsupportedOperation: where integers are made of integers that carry relevance.
    """
    draft = draft.written(with_integers(draft.closed))
    rewrites = (
        with_bounded_loops, with_rows_of_loops, with_like_turns, with_chosen_branches,
        with_known_signs, tidied, with_straight_through, without_raised_roots,
    )  # fmt: skip
    for rewrite in rewrites:
        draft = rewrite(draft)
    draft, lost = as_floats(draft)
    if lost is not None:
        raise UnsupportedOperation(
            f"{refusal(lost)} It makes integers of integers that carry relevance: known are "
            "rounding, casts, and products, sums, differences and moves of what casts have made, "
            "in one body."
        )
    draft = spread_out(draft)
    apart = with_scaled_parts(draft)
    draft = draft if apart is draft else tidied(apart)
    rewrites_of_floats = (
        without_passing_shapes, without_constant_factors,
        *[with_factors] * _MOST_STACKS, with_cases, spread_out, with_masks,
    )  # fmt: skip
    for rewrite in rewrites_of_floats:
        draft = rewrite(draft)
    return draft


def tidied(draft: Draft) -> Draft:
    """The same function without moves that end where they began, and its numbers written out."""
    closed = without_updates(without_held_operands(draft.closed))
    closed = without_round_trips(closed)
    closed = with_batches_of_one(splice.tidied(closed))
    return draft.written(with_numbers(without_passing_axes(closed)))
