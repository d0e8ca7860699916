"""Mistakes in what is asked of a network: each names what is wrong, where, and what to write."""

import operator
from collections.abc import Callable
from typing import Any

import pytest

import lrp_jax as lrp
from lrp_jax.questions import visits

# Words of Python that would keep one side of what they join


@pytest.mark.parametrize("part", [lrp.Dense, lrp.first(lrp.Conv), visits(0)], ids=repr)
@pytest.mark.parametrize("joined", [lambda a: a and a, lambda a: a or a, operator.not_])
def test_and_or_not_in_the_place_of_operators(part: Any, joined: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match=r"&, \| and ~"):
        joined(part)


def test_one_statement_in_the_place_of_a_list() -> None:
    with pytest.raises(ValueError, match=r"a list of statements.*got Query"):
        lrp.query_relevance(lambda w, x: x @ w, lrp.Zero(), ["input"], visits(0))  # type: ignore[arg-type]
