"""Mistakes in what is drawn: refused by name, where a picture of something else would come out."""

from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

import lrp_jax as lrp
from lrp_jax import plot

X = np.random.default_rng(0).normal(size=(2, 8, 8, 1))
R = X * 0.5
PLAN = lrp.plan(lambda w, x: x @ w["a"], lrp.Zero())({"a": jnp.ones((4, 2))}, jnp.ones((1, 4)))


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (8, 8, 3), (8, 8, 4)])
@pytest.mark.parametrize("overlaid", [False, True])
def test_one_picture_is_one_row(shape: tuple[int, ...], overlaid: bool) -> None:
    image = np.random.default_rng(1).uniform(size=shape)
    figure = plot.grid(image, {"a": image, "b": np.ones((8, 8))}, overlaid=overlaid)
    assert len(figure.axes) == 3
    assert all(len(ax.images[0].get_array()) == 8 for ax in figure.axes)
    assert len(plot.grid(X, {"a": R}).axes) == 4  # a batch stays one


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: plot.grid(np.ones((2, 3, 8, 8)), {"a": R}), r"channels last.*\(3, 8, 8\).*moveax"),
        (lambda: plot.heatmap(np.ones((3, 32, 32))), "channels last"),
        (lambda: plot.heatmap(np.ones((1, 32, 32))), r"picture\[0\]"),
        (lambda: plot.rgb(np.ones((2, 3, 32, 32))), "channels last"),
        (lambda: plot.grid(X, [R, R]), r"by name where it is of several methods; got \(2, 2, 8"),
        (lambda: plot.grid(X, {"a": R[0]}), "same number of examples"),
        (lambda: plot.heatmap(R[0], plt.figure()), r"plt\.subplots\(\), got Figure"),
        (lambda: plot.gallery(X), "given by name.*got ndarray"),
        (lambda: plot.gallery({"a": X[:0]}), "at least one example"),
        (lambda: plot.curves({}), "curves are given by name.*got nothing"),
        (lambda: plot.curves({"a": np.ones(3)}), "pixel_flipping returned, got ndarray"),
        (lambda: plot.heads({}), "layers are given by name.*got nothing"),
        (lambda: plot.heads(np.ones((2, 3))), "got ndarray"),
        (lambda: plot.neurons([np.ones(3)]), "got list"),
        (lambda: plot.token_layers({}, ["a"]), "got nothing"),
        (lambda: plot.page("title", [R]), "sections of a page are given by name.*got list"),
        (lambda: plot.page("title", {"a": R}), r"'a' is made by lrp_jax\.plot\.sections"),
        (lambda: plot.surface(None, "a", "b"), "what a study returned, got NoneType"),
        (lambda: plot.ranking([]), "got none"),
        (lambda: plot.concept_graph({}), "concept_graph returned, got dict"),
        (lambda: plot.time_series(np.ones(8), np.ones(8), times=np.ones(3)), r"\(3,\) for 8 steps"),
        (lambda: plot.plan(PLAN, relevance={"b": 1.0}), "'b': the plan has no layer"),
    ],
)
def test_what_cannot_be_drawn(make: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_relevance_of_layers_widens_the_lines_of_a_plan() -> None:
    one, other = (
        plot.plan(PLAN, relevance={"input": given}).patches[0].get_linewidth()
        for given in (np.ones((1, 4)), 4.0)
    )
    assert one == other > 1


def test_ids_are_tokens_too() -> None:
    assert ">12</span>" in plot.text_html(np.array([12, 7]), np.ones(2))
    assert plot.words(jnp.array([12, 7]), np.ones(2))[0] == ["12", "7"]
