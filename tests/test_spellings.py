"""One function, one relevance: equal functions written differently (`tests/spellings`).

`python -m tests.spellings` explains all of them under all composites; here each group is explained
under one, in turn. What is known to deviate is listed in `tests/spellings/known.txt`.
"""

from __future__ import annotations

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from spellings import GROUPS
from spellings.checks import (
    KNOWN,
    WAYS,
    Outcome,
    by_hand,
    deviation,
    different_values,
    known,
    of_one,
    outcomes,
    without_batch,
)  # fmt: skip
from spellings.group import function, halves, hold, shares, signal
from spellings.surroundings import BACKS, FRONTS, Place

LISTED = known()
MATMULS = ["attention", "linear attention", "correlation from a Gram matrix"]
"""Groups with products that `jnp.matmul` writes otherwise for one example."""
AFFINE = ("from one", "scaled", "less a number", "twice")
"""After numbers that are repeated these are of no layer, and where a layer makes them all of it."""


def unlisted(found: Iterable[Outcome]) -> list[Outcome]:
    """What is not known to deviate."""
    return [o for o in found if (o.group, o.spelling, o.composite) not in LISTED]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", GROUPS)
def test_equal_functions_have_one_relevance(name: str) -> None:
    group = GROUPS[name]
    found = list(outcomes(group, ["AttnLRP"]))
    assert len(found) == len(group.spellings)
    wrong = [o for o in found if not o.agrees]
    new = unlisted(wrong)
    assert not new, "\n".join(f"{o.spelling}: {o}" for o in new)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("front", FRONTS)
def test_what_stands_before_makes_no_difference(front: str) -> None:
    """Some groups after each front; `python -m tests.spellings --after FRONT` takes all."""
    no_difference(Place(front=FRONTS[front]), list(FRONTS).index(front), len(FRONTS))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("back", [b for b in BACKS if b not in AFFINE])
def test_what_stands_after_makes_no_difference(back: str) -> None:
    """Some groups before each; `python -m tests.spellings --before BACK` takes all."""
    no_difference(Place(back=BACKS[back]), list(BACKS).index(back), len(BACKS))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", dict.fromkeys([*MATMULS, *list(GROUPS)[::64]]))
def test_spellings_of_one_example_agree(name: str) -> None:
    """Of some groups; `python -m tests.spellings --one` takes all."""
    group = of_one(GROUPS[name])
    assert len(group.spellings) > 1
    found = [o for o in outcomes(group, ["Epsilon"]) if not o.agrees]
    new = unlisted(found)
    assert not new, "\n".join(f"{o.spelling}: {o}" for o in new)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("way", WAYS)
def test_functions_of_one_example_agree_with_those_of_a_batch(way: str) -> None:
    """Of some groups; `python -m tests.spellings --unbatched WAY` takes all."""
    agree_without_batch(list(GROUPS)[list(WAYS).index(way) :: 90], way)


@pytest.mark.xfail(strict=True, reason="a column of ones beside values, squeezed under a vmap")
@pytest.mark.filterwarnings("default")
def test_a_column_of_ones_in_a_vmap_of_one() -> None:
    agree_without_batch(["attention"], "in a vmap, of one")


def agree_without_batch(names: list[str], way: str) -> None:
    found = [o for name in names for o in without_batch(GROUPS[name], way, ["AttnLRP"])]
    new = unlisted(o for o in found if not o.agrees)
    assert found
    assert not new, "\n".join(f"{o.group}, {o.spelling}: {o}" for o in new)


def no_difference(place: Place, first: int, step: int) -> None:
    names = [name for name, g in GROUPS.items() if g.entry and "Epsilon" in g.composites]
    for name in names[first::step]:
        found = outcomes(GROUPS[name], ["Epsilon"], place)
        wrong = [o for o in found if not o.agrees]
        new = unlisted(wrong)
        assert not new, "\n".join(f"{o.group}, {o.spelling}: {o}" for o in new)


def test_spellings_are_one_function() -> None:
    """Of some groups; the command line compares all."""
    names = list(GROUPS)[::16]
    assert {name: different_values(GROUPS[name]) for name in names} == {name: {} for name in names}


def test_there_are_groups_of_every_kind() -> None:
    assert len(GROUPS) >= 60
    assert all(len(group.spellings) >= 2 for group in GROUPS.values())


def test_what_is_listed_exists() -> None:
    for line in KNOWN.read_text().splitlines():
        if not line.startswith("#"):
            name, spelling, composites = (part.strip() for part in line.split("|"))
            assert spelling in GROUPS[name].spellings
            assert {*composites.split()} <= {*GROUPS[name].composites}


def test_relevance_by_hand() -> None:
    """The pieces of the references on numbers that can be followed."""
    a, b, c = (np.asarray([z]) for z in (2.0, 3.0, 5.0))

    def relevance(f, *at):  # type: ignore[no-untyped-def]
        grads = jax.grad(lambda *z: f(*z).sum(), tuple(range(len(at))))(*at)
        return [float(g[0] * z[0]) for g, z in zip(grads, at, strict=True)]

    assert relevance(shares, a, b, c) == pytest.approx([10, 10, 10])
    assert relevance(lambda a, b: halves(jnp.multiply, a, b), a, b) == pytest.approx([3, 3])
    assert relevance(lambda a, b: signal(a, b, True), a, b) == pytest.approx([0, 6])
    assert relevance(lambda a, b: signal(a, b, False), a, b) == pytest.approx([3, 3])
    assert relevance(lambda a: function(lambda u: u**3, a), a) == pytest.approx([8])
    assert relevance(lambda a: a * hold(1 / a), a) == pytest.approx([1])


def test_a_deviation_is_seen() -> None:
    assert deviation(np.asarray([1.0, 2.0]), np.asarray([1.0, 2.5])) == pytest.approx(0.2)
    assert deviation(np.asarray([np.nan]), np.asarray([1.0])) == np.inf
    assert by_hand(GROUPS["a GRU"], True) is None
