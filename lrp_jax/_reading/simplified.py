"""Equations written otherwise, one identity after the other, before anything is a layer."""

from typing import Any

from .._analysis import splice
from .._analysis.numbers import with_numbers
from .._layers.reading import refusal
from .._layers.step import UnsupportedOperation
from .equations.cases import with_cases
from .equations.chosen import with_chosen_branches
from .equations.constant_factors import without_constant_factors
from .equations.filled import with_rows_of_loops, without_updates
from .equations.float_twins import as_floats
from .equations.loops import with_bounded_loops
from .equations.masked import with_masks
from .equations.regrouped import without_passing_shapes
from .equations.round_trips import without_round_trips
from .equations.scaled_parts import with_scaled_parts
from .equations.spread import spread_out
from .equations.turns import with_like_turns
from .equations.units import without_passing_axes
from .equations.written_out import with_factors

_MOST_STACKS = 2
"""So often products over a stack are written out: they make others."""


def simplified(
    closed_jaxpr: Any,
    explained: tuple[bool, ...],
    outputs: tuple[bool, ...] | None,
    calls: tuple[str, ...],
) -> Any:
    """The same function in fewer words.

    Args:
        closed_jaxpr: a flat jaxpr.
        explained: for each input whether it is explained.
        outputs: for each output whether it is explained; None: all of them.
        calls: globs of the names of called functions that stay whole.

    Raises:
        UnsupportedOperation: where integers are made of integers that carry relevance.
    """
    closed_jaxpr = with_bounded_loops(closed_jaxpr, explained, outputs)
    closed_jaxpr = with_rows_of_loops(closed_jaxpr, calls)
    closed_jaxpr = with_like_turns(closed_jaxpr, explained, outputs, calls)
    closed_jaxpr = tidied(with_chosen_branches(closed_jaxpr, calls))
    closed_jaxpr, lost = as_floats(closed_jaxpr, explained, outputs)
    if lost is not None:
        raise UnsupportedOperation(
            f"{refusal(lost)} It makes integers of integers that carry relevance: known are "
            "rounding, casts, and products, sums, differences and moves of what casts have made, "
            "in one body."
        )
    closed_jaxpr = with_scaled_parts(spread_out(closed_jaxpr, explained), explained, outputs)
    closed_jaxpr = without_passing_shapes(closed_jaxpr, explained, outputs)
    closed_jaxpr = without_constant_factors(closed_jaxpr, explained, outputs)
    for _ in range(_MOST_STACKS):
        whole, closed_jaxpr = closed_jaxpr, with_factors(closed_jaxpr, explained, outputs)
        if whole is closed_jaxpr:
            break
    closed_jaxpr = spread_out(with_cases(closed_jaxpr, explained, outputs), explained)
    return with_masks(closed_jaxpr, explained, outputs)


def tidied(closed_jaxpr: Any) -> Any:
    """The same function without moves that end where they began, and its numbers written out."""
    closed_jaxpr = without_round_trips(without_updates(closed_jaxpr))
    return with_numbers(without_passing_axes(splice.tidied(closed_jaxpr)))
