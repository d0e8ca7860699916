"""What shows itself: tables in a terminal and in a notebook, words of tokens, colours."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

import lrp_jax as lrp
from lrp_jax import evaluation, plot, questions
from lrp_jax._tables import Table, brief
from lrp_jax.evaluation import language, study

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


STUDY = study(
    {"fitted": lrp.relevance(apply, lrp.Zero()), "preset": lrp.relevance(apply, lrp.Zero())},
    {"metric": lambda p, x, relevance, target: jnp.abs(relevance).sum(-1)},
    [(X, jnp.array([0, 1]))],
    params=W,
    progress=False,
)


def shown() -> dict[str, tuple[Any, list[str]]]:
    """Everything that is returned, and what its page has to say."""
    composite = lrp.EpsilonPlus()
    ids = lrp.Generation(jnp.array([[1.0, -2.0, 0.0], [0.5, 0.0, 4.0]]), jnp.array([3.0, 5.0]), 1)
    two = jax.tree.map(lambda a: jnp.stack([a, -a]), ids)
    members = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), W)
    graph = questions.concept_graph(apply, composite, ["block/q", "out"])(W, X)
    samples = questions.reference_samples(apply, composite, "block/q", k=1)
    walks = questions.Walks(jnp.array([[1, 0], [2, 2]]), jnp.array([4.0, -3.0]), jnp.array(2.5))
    prompts = language.agreement()[:1]
    accuracy = {"lrp": {"above": np.array([1.0, 0.0, 1.0])}}
    return {
        "plan": (lrp.plan(apply, composite)(W, X), ["block/q", "Dense", "Epsilon()"]),
        "ledger": (
            lrp.conservation(apply, composite)(W, X), ["block/o", "stabiliser", "12 started"],
        ),
        "composite": (composite, ["lrp.Conv", "ZPlus()"]),
        "rule": (lrp.ZBox(np.array([-1.0, 0.0, 1.0]), np.array([3.0, 3.0, 3.0])), ["ZBox"]),
        "study": (STUDY, ["preset", "metric", "over 2 examples"]),
        "generation": (ids, ["1 (-2), 0 (1)", "2 (4), 0 (0.5)", "first 1 of 3"]),
        "generations": (two, ["example", "1 (2), 0 (-1)"]),
        "concepts": (graph, ["block/q", "strongest", "3"]),
        "references": (samples(W, [X], progress=False), ["examples, the best first", "0 (0.333)"]),
        "walks": (walks, ["2 walks", "1, 0", "-3", "no other walk has more than 2.5"]),
        "ensemble": (
            questions.ensemble_relevance(apply, lrp.Zero())(members, X),
            ["2 members", "agreement", "(2, 3)"],
        ),
        "subspaces": (questions.Subspaces(jnp.ones((2, 5, 1))), ["(2, 5, 1)"]),
        "curves": (evaluation.Curves(jnp.array([0.0, 1.0]), jnp.array([[3.0, 1.0]])), ["1.000"]),
        "randomisation": (
            evaluation.Randomisation(jnp.array([[0.25, 0.75]]), ("out",)), ["out", "0.5000"],
        ),
        "comparison": (language.Comparison(0.5, accuracy), ["0.67", "3 prompts", "50% of all"]),
        "encoded": (
            language.encode(prompts, lambda text: [len(word) for word in text.split()]),
            [prompts[0].text, "1 prompt as ids"],
        ),
        "tuned": (
            evaluation.Tuned({"gamma": 0.25}, STUDY, STUDY, "min"),
            ["gamma=0.25", "on 2 other examples", "fitted is not told apart from preset"],
        ),
    }  # fmt: skip


SHOWN = shown()


@pytest.mark.parametrize("name", SHOWN)
def test_everything_has_a_page_that_says_what_its_text_says(name: str) -> None:
    value, wanted = SHOWN[name]
    page = " ".join(Text(value._repr_html_()).words)
    assert [word for word in wanted if word not in page] == []
    if name not in ("composite", "rule"):
        table = value._table()
        assert repr(value) == str(value) == table.text()
        assert all(cell in page for row in table.rows for cell in row)


def returned() -> list[type]:
    """The classes of objects that functions of the package return."""
    places = [lrp, questions, evaluation, language]
    classes = {c for place in places for c in vars(place).values() if isinstance(c, type)}
    return sorted(filter(dataclasses.is_dataclass, classes), key=lambda c: c.__name__)


def test_nothing_that_is_returned_is_left_out() -> None:
    seen = {type(value) for value, _ in SHOWN.values()}
    others = {"Basis", "Fill", "Layer", "Prompt", "Query", "Rank", "Term", "Site"}
    left = {c.__name__ for c in returned() if c not in seen and not issubclass(c, lrp.Rule)}
    assert left - others == set()


def test_what_is_being_traced_shows_itself_without_numbers() -> None:
    told = []
    found, _ = SHOWN["generation"]
    jax.jit(lambda one: told.append(repr(one)))(found)
    assert told == ["Generation(float64[2, 3], float64[2])"]
    assert repr(jax.tree.map(jnp.ndim, found)) == "Generation(2, 1)"


@pytest.mark.parametrize("name", ["ledger", "walks", "curves", "concepts", "ensemble"])
def test_what_was_mapped_shows_itself_too(name: str) -> None:
    many = jax.tree.map(lambda a: jnp.stack([a] * 3), SHOWN[name][0])
    assert type(many).__name__ in repr(many) or "\n" in repr(many)
    page = many._repr_html_()
    assert page is None or Text(page).words


def test_a_page_escapes_what_it_is_given() -> None:
    page = Table(("<b>",), (("<script>alert(1)</script>",),), notes=("a & b",)).page("<i>")
    assert "<script>" not in page
    assert Text(page).words == ["<i>", "<b>", "<script>alert(1)</script>", "a & b"]


def test_bars_of_the_ledger_are_shares_of_what_flows() -> None:
    """Rounding has none; a bias that takes half has half a cell."""
    page = SHOWN["ledger"][0]._repr_html_()
    assert "%,transparent" not in page.replace(" 0%,transparent 0%", "")
    bias = lambda w, x: x @ w["w"] + w["b"]  # noqa: E731
    weights = {"w": jnp.ones((3, 1)), "b": jnp.full(1, 3.0)}
    page = lrp.conservation(bias, lrp.Epsilon())(weights, X[:1])._repr_html_()
    assert page.count("50%,transparent 50%") == 1


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


def test_what_is_too_wide_is_left_out_before_names_and_numbers() -> None:
    row = ("model/" + "a" * 30, "kind", "r" * 60, "12345", "67890")
    notes = ("warning: " + "word " * 30,)
    table = Table(("layer", "kind", "rule", "in", "out"), (row,), frozenset({3, 4}), notes=notes)
    for width, names in ((80, 5), (55, 5), (45, 4), (36, 3)):
        header, _, line, *notes_ = table.text(width).split("\n")
        assert max(map(len, (header, line, *notes_))) <= width
        assert len(header.split()) == names
        assert line.split()[-2:] == ["12345", "67890"]
    assert line.startswith("…" + "a" * 19)


def test_a_table_of_any_width_is_printed() -> None:
    table = Table(("layer", "rule", "in"), (("a" * 20, "r" * 60, "12345"),), frozenset({2}))
    assert table.text(1).split("\n")[2] == "a" * 20 + "  12345"


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


def test_what_chose_a_rule_is_short() -> None:
    plan = lrp.plan(apply, lrp.AttnLRP().override(("block/q", lrp.Flat())))(W, X)
    assert [line.split("  ")[-1] for line in str(plan).split("\n")[2:]] == [
        "'block/q'", "lrp.Dense", "lrp.Activation", "lrp.Dense",
    ]  # fmt: skip
    merged = lrp.plan(lambda w, x: (x @ w["out"].T).sum(-1), lrp.AttnLRP())(W, jnp.ones((2, 4)))
    assert merged.layers[1].chosen_by == "lrp.AvgPool | lrp.Merge | lrp.Bias | lrp.BatchNorm"
    assert str(merged).endswith("lrp.Merge | ...")


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


@pytest.mark.parametrize("cmap", ["relevance", "relevance_dark"])
def test_weak_relevance_is_seen(cmap: str) -> None:
    """A twentieth of the largest differs from zero by more than a just noticeable difference."""
    weak = plot.rgb(np.array([[-1.0, -0.05, 0.0, 0.05, 1.0]]), cmap=cmap)[0].astype(int)
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
