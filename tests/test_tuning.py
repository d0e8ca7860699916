"""Fitting the numbers of composites: the right ones are found, and told on other examples."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import lrp_jax as lrp
from lrp_jax import evaluation
from lrp_jax.evaluation import tune

RNG = np.random.default_rng(0)
W = {"a": RNG.normal(size=(6, 8)), "b": RNG.normal(size=(8, 3))}
X = RNG.normal(size=(24, 6))
Y = RNG.integers(3, size=24)
FIT = [(X[:6], Y[:6]), (X[6:12], Y[6:12])]
REPORT = [(X[12:18], Y[12:18]), (X[18:], Y[18:])]
RIGHT = {"gamma": 0.7, "epsilon": 0.2}
RANGES = {"gamma": (0.0, 2.0), "epsilon": (1e-2, 4.0)}


def net(w: Any, x: jax.Array) -> jax.Array:
    return jax.nn.relu(x @ w["a"]) @ w["b"]


def composite(gamma: Any, epsilon: Any) -> lrp.Composite:
    return lrp.Composite([("a", lrp.Gamma(gamma)), ("b", lrp.Epsilon(epsilon))])


class Counted:
    """`make`, counting how often it is traced."""

    def __init__(self) -> None:
        self.traces = 0

    def __call__(self, gamma: Any, epsilon: Any) -> Any:
        self.traces += 1
        return lrp.relevance(net, composite(gamma, epsilon))


RIGHT_ONE = jax.jit(lrp.relevance(net, composite(**RIGHT)))


@jax.jit
def explained(gamma: Any, epsilon: Any, x: Any, target: Any) -> jax.Array:
    return lrp.relevance(net, composite(gamma, epsilon))(W, x, target=target)


@jax.jit
def distance(w: Any, x: Any, relevance: jax.Array, target: Any) -> jax.Array:
    """From the relevance by the right numbers."""
    right = RIGHT_ONE(w, x, target=target)
    return ((relevance - right) ** 2).sum(-1)


PRESETS = {
    "right": RIGHT_ONE,
    "EpsilonPlus": lrp.relevance(net, lrp.EpsilonPlus()),
}


def tuned(search: Any, trials: int, **options: Any) -> evaluation.Tuned:
    make = options.pop("make", Counted())
    given = {"params": W, "presets": PRESETS, "progress": False, **options}
    return tune(make, RANGES, distance, FIT, REPORT, search=search, trials=trials, **given)


def test_gradients_find_the_right_numbers() -> None:
    found = tuned("gradient", 150, learning_rate=0.05)
    for name, value in RIGHT.items():
        assert found.point[name] == pytest.approx(value, rel=0.05)
    assert found.margins()["EpsilonPlus"][1] > 0
    assert found.margins()["right"][2] <= 0
    assert "fitted beats EpsilonPlus" in repr(found)
    assert "fitted loses to right" in repr(found)
    assert "on 12 other examples" in repr(found)


@pytest.mark.parametrize("search", ["random", "grid"])
def test_all_trials_are_one_program_and_the_best_one_is_taken(search: Any) -> None:
    make = Counted()
    found = tuned(search, 27, make=make)
    assert make.traces == 1  # on the examples to fit by and on the others
    points = [p for m, p in found.fitted.candidates("metric") if m == "fitted"]
    assert len(points) == (27 if search == "random" else 25)
    for name, (low, high) in RANGES.items():
        values = [p[name] for p in points]
        assert min(values) >= low * (1 - 1e-6)
        assert max(values) <= high * (1 + 1e-6)
    means = []
    for point in points:
        values = [distance(W, x, explained(**point, x=x, target=y), y) for x, y in FIT]
        means.append(np.concatenate(values).mean())
    assert found.point == points[int(np.argmin(means))]
    assert_allclose(found.fitted.values("metric", "fitted", **found.point).mean(), min(means))
    there = [distance(W, x, explained(**found.point, x=x, target=y), y) for x, y in REPORT]
    assert_allclose(found.reported.values("metric", "fitted"), np.concatenate(there))


def test_grids_step_evenly_and_by_factors() -> None:
    found = tuned("grid", 9)
    points = [p for m, p in found.fitted.candidates("metric") if m == "fitted"]
    assert_allclose(sorted({p["gamma"] for p in points}), [0, 1, 2])
    assert_allclose(sorted({p["epsilon"] for p in points}), [0.01, 0.2, 4], rtol=1e-6)


def test_the_largest_can_be_the_best() -> None:
    def size(w: Any, x: Any, relevance: jax.Array, target: Any) -> jax.Array:
        return jnp.abs(relevance).sum(-1)

    given = {"params": W, "search": "grid", "trials": 9, "best": "max", "progress": False}
    found = tune(Counted(), RANGES, size, FIT, REPORT, **given)
    assert found.point["epsilon"] == pytest.approx(0.01)  # absorbs the least
    assert found.margins() == {}


def test_mistakes_are_named() -> None:
    flip = evaluation.pixel_flipping(net, steps=3)

    def area(w: Any, x: Any, relevance: Any, target: Any) -> Any:
        return evaluation.area(flip(w, x, relevance=relevance, target=target))

    def ask(metric: Any = distance, ranges: Any = RANGES, **options: Any) -> None:
        given = {"params": W, "progress": False, "trials": 2, **options}
        tune(Counted(), ranges, metric, FIT, REPORT, **given)

    for wrong, message in (
        (lambda: ask(ranges={"gamma": (1.0, 1.0)}), "ranges"),
        (lambda: ask(ranges={}), "ranges"),
        (lambda: ask(trials=0), "trial"),
        (lambda: ask(search="guess"), "search is .*'guess'"),
        (lambda: ask(best="most"), "best is .*'most'"),
        (lambda: ask(area, search="gradient"), "no slope"),
        (lambda: ask(presets={"fitted": PRESETS["right"]}), "another one"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            wrong()
