"""What shows itself: tables in a terminal and in a notebook, words of tokens, colours."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

import lrp_jax as lrp
from lrp_jax import plot
from lrp_jax._tables import Table, brief
from lrp_jax.evaluation import study

W = {"block": {"q": jnp.eye(3), "o": jnp.ones((3, 2))}, "out": jnp.ones((2, 4))}
X = jnp.ones((2, 3))


def apply(w: Any, x: jax.Array) -> jax.Array:
    return jax.nn.relu(x @ w["block"]["q"] @ w["block"]["o"]) @ w["out"]


class Text(HTMLParser):
    """The words of a page; an error for a tag that is not closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert tag not in ("script", "link", "img", "iframe")
        assert not any(name in ("src", "href", "onclick") for name, _ in attrs)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def shown() -> dict[str, Any]:
    composite = lrp.EpsilonPlus()
    methods = {"lrp": lrp.relevance(apply, composite), "zero": lrp.relevance(apply, lrp.Zero())}
    size = lambda p, x, relevance, target: jnp.abs(relevance).sum(-1)  # noqa: E731
    return {
        "plan": lrp.plan(apply, composite)(W, X),
        "ledger": lrp.conservation(apply, composite)(W, X),
        "composite": composite,
        "rule": lrp.ZBox(np.array([-1.0, 0.0, 1.0]), np.array([3.0, 3.0, 3.0])),
        "study": study(methods, {"size": size}, [(X, jnp.array([0, 1]))], params=W, progress=False),
    }


def test_everything_has_a_page_that_says_what_its_text_says() -> None:
    for name, value in shown().items():
        words = " ".join(Text(value._repr_html_()).words)
        wanted = {
            "plan": ["block/q", "Dense", "Epsilon()"],
            "ledger": ["block/o", "stabiliser", "12 started"],
            "composite": ["lrp.Conv", "ZPlus()"],
            "rule": ["ZBox"],
            "study": ["zero", "size", "over 2 examples"],
        }[name]
        assert all(word in words for word in wanted), (name, words)


def test_a_page_escapes_what_it_is_given() -> None:
    page = Table(("<b>",), (("<script>alert(1)</script>",),), notes=("a & b",)).page("<i>")
    assert "<script>" not in page
    assert Text(page).words == ["<i>", "<b>", "<script>alert(1)</script>", "a & b"]


def test_long_tables_are_folded() -> None:
    row = ("a",)
    assert "<details open" in Table(("h",), (row,) * 5).page("t")
    assert "<details open" not in Table(("h",), (row,) * 500).page("t")


def test_columns_of_text_are_shortened_to_the_width() -> None:
    table = Table(("layer", "rule", "in"), (("a" * 20, "r" * 60, "12345"),), frozenset({2}))
    lines = table.text(50).split("\n")
    assert max(map(len, lines)) == 50
    assert "a" * 20 in lines[2]
    assert "r…" in lines[2]
    assert lines[2].endswith("12345")
    assert "r" * 60 in table.text()


def test_a_table_of_any_width_is_printed() -> None:
    table = Table(("layer", "rule", "in"), (("a" * 20, "r" * 60, "12345"),), frozenset({2}))
    assert "a" * 20 in table.text(1)


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("ZBox(low=np.array([1., 2., 3.]), high=np.array([3.]))",
         "ZBox(low=array(3,), high=array(1,))"),
        (repr(np.zeros((2, 3, 4))).replace("array", "np.array"), "array(2, 3, 4)"),
        (repr(lrp.ZBox(np.zeros(100), np.ones(100))), "ZBox(low=array(...), high=array(...))"),
        ("Gamma()", "Gamma()"),
    ],
)  # fmt: skip
def test_arrays_by_their_shapes(code: str, wanted: str) -> None:
    assert brief(code) == wanted


def test_the_ledger_has_no_two_columns_of_one_name() -> None:
    header = str(lrp.conservation(apply, lrp.EpsilonPlus())(W, X)).split("\n")[0].split("  ")
    names = [name.strip() for name in header if name.strip()]
    assert len(set(names)) == len(names)


def test_a_preset_does_not_report_its_own_unused_entries() -> None:
    assert "no layer here" not in str(lrp.plan(apply, lrp.EpsilonPlus())(W, X))
    assert "no layer here" not in str(lrp.plan(apply, lrp.AttnLRP())(W, X))
    mine = lrp.EpsilonPlus().override((lrp.Softmax, lrp.Pass()))
    assert "no layer here for (lrp.Softmax" in str(lrp.plan(apply, mine)(W, X))
    through = jax.tree.map(lambda leaf: leaf, mine)  # composites are pytrees
    assert str(lrp.plan(apply, through)(W, X)) == str(lrp.plan(apply, mine)(W, X))


def test_weights_of_one_block_name_their_layers() -> None:
    plan = lrp.plan(apply, lrp.Composite([("block/q", lrp.Zero()), (lrp.Linear, lrp.ZPlus())]))
    rules = {layer.path: layer.rule for layer in plan(W, X).layers}
    assert rules["block/q"] == "Zero()"
    assert rules["block/o"] == "ZPlus()"
    both = lrp.plan(apply, lrp.Composite([("block/*", lrp.Zero())]))(W, X)
    assert [x.rule for x in both.layers if x.path.startswith("block")] == ["Zero()"] * 2
    bias = lambda w, x: x @ w["layer"]["w"] + w["layer"]["b"]  # noqa: E731
    one = lrp.plan(bias, lrp.Zero())({"layer": {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}}, X)
    assert [x.path for x in one.layers] == ["layer"]


# -- pictures --------------------------------------------------------------------------------------


def test_weak_relevance_is_seen_on_white() -> None:
    """A twentieth of the largest differs from zero by more than a just noticeable difference."""
    weak = plot.rgb(np.array([[-1.0, -0.05, 0.0, 0.05, 1.0]]))[0].astype(int)
    assert np.abs(weak[1] - weak[2]).sum() > 30
    assert np.abs(weak[3] - weak[2]).sum() > 30
    assert weak[1][2] > weak[1][0]
    assert weak[3][0] > weak[3][2]


def test_colours_do_not_repeat() -> None:
    class Curves:
        fraction, score = np.linspace(0, 1, 4), np.ones((3, 4))

    for count in (3, 7, 8, 20):
        ax = plot.curves({str(i): Curves() for i in range(count)})  # type: ignore[misc]
        colours = {matplotlib.colors.to_hex(line.get_color()) for line in ax.get_lines()}
        assert len(colours) == count
        plt.close("all")


def test_the_dark_plan_is_dark() -> None:
    plan = lrp.plan(apply, lrp.EpsilonPlus())(W, X)
    for style, dark in (("default", False), ("dark_background", True)):
        with plt.style.context(style):
            ax = plot.plan(plan)
            boxes = [text.get_bbox_patch().get_facecolor()[:3] for text in ax.texts]
            inks = [matplotlib.colors.to_rgb(text.get_color()) for text in ax.texts]
            assert all((np.mean(box) < 0.5) == dark for box in boxes)
            assert all((np.mean(ink) > 0.5) == dark for ink in inks)
            plt.close("all")


def test_rules_in_the_plan_begin_with_their_names() -> None:
    wide = lrp.ZBox(np.full(3, -2.123456), np.full(3, 2.123456))
    plan = lrp.plan(apply, lrp.EpsilonPlus().override((lrp.first(lrp.Linear), wide)))(W, X)
    assert "Dense: ZBox(low=array(3,)" in "".join(text.get_text() for text in plot.plan(plan).texts)
    plt.close("all")


def test_words_keep_the_relevance() -> None:
    tokens, relevance = ["Ġun", "be", "lie", "vable", "!", "ĠĊ", "Ã©t"], np.arange(7.0)
    words, sums = plot.words(tokens, relevance)
    assert words == [" unbelievable!", " \nét"]
    np.testing.assert_array_equal(sums, [10.0, 11.0])
    words, sums = plot.words(["▁a", "b", "▁c"], np.ones((3, 2)))
    assert (words, sums.tolist()) == ([" ab", " c"], [4.0, 2.0])
    assert plot.words(["A", "C", "G"], np.ones(3))[0] == ["A", "C", "G"]
    assert plot.clean(["##", "# A", "<|im_end|>"]) == ["##", "# A", "<|im_end|>"]
    assert plot.clean(["<|im_end|>", "Ġyes"]) == ["<|im_end|>", " yes"]
    with pytest.raises(ValueError, match="3 tokens"):
        plot.words(["a", "b", "c"], np.ones(2))


def test_latex_of_coloured_text() -> None:
    text = plot.text_latex(["a_b", " {50%}\\"], np.array([1.0, -1.0]))
    assert r"a\_b" in text
    assert r"\ \{50\%\}\textbackslash{}" in text
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_a_batch_is_a_grid_without_a_loop() -> None:
    images, relevance = np.ones((2, 4, 4, 3)), np.ones((2, 4, 4, 3))
    figure = plot.grid(images, relevance, overlaid=True)
    assert len(figure.axes) == 4
    with pytest.raises(ValueError, match="overlaid"):
        plot.grid(None, relevance, overlaid=True)
    plt.close("all")
