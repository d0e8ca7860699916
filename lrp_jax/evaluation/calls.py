"""What a study hands to methods and metrics, and what is wrong where they refuse it."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ..targets import scoring


def batches_of(batches: Iterable[Any]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The batches of a study, as pairs of inputs and targets.

    Args:
      batches: as `study`.

    Returns:
      A list of pairs of NumPy arrays.

    Raises:
      TypeError: for a batch that is no pair.
    """
    found = []
    for index, batch in enumerate(batches):
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise TypeError(
                "batches is a list of pairs (inputs, targets), such as [(x, labels)], got "
                f"{type(batch).__name__} as batch {index}"
            )
        found.append((np.asarray(batch[0]), np.asarray(batch[1])))
    return found


def made(make: Callable[..., Any], numbers: Any) -> Callable[..., Any]:
    """The explanation that a method with parameters makes."""
    try:
        explain = make(**numbers)
    except TypeError as error:
        if "argument" in str(error):
            names = ", ".join(numbers)
            error.add_note(f"lrp_jax: the numbers are handed on by name: make({names}).")
        raise
    return scoring.explaining(explain, "make(...)")


@contextlib.contextmanager
def told(params: Any, x: Any, target: Any) -> Iterator[None]:
    """Add to the errors of methods and metrics what a study handed to them."""
    try:
        yield
    except Exception as error:
        if params is None:
            error.add_note(
                "lrp_jax: methods and metrics were called with params=None in front: "
                "study(..., params=params) hands on others."
            )
        if np.issubdtype(target.dtype, np.floating) and not np.issubdtype(x.dtype, np.floating):
            error.add_note("lrp_jax: batches are pairs (inputs, labels). Are they exchanged?")
        if isinstance(error, TypeError) and "argument" in str(error):
            error.add_note(
                "lrp_jax: a metric is called as metric(params, x, relevance=, target=): "
                "completeness(apply_fn) is one; of relevance alone make one by "
                "lambda params, x, relevance, target: complexity(relevance)."
            )
        raise
