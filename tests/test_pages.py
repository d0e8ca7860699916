"""Pages in one file: what they say without a script, and what a browser makes of them."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from browser import PROGRAM, Tab, browser

import lrp_jax as lrp
from lrp_jax import plot
from lrp_jax.plot import sections
from lrp_jax.plot.pages import LEVELS, level, number

RNG = np.random.default_rng(0)
W = {"a": jnp.asarray(RNG.normal(size=(5, 4))), "b": jnp.asarray(RNG.normal(size=(4, 3)))}
BIAS = jnp.array([0.5, 1.0, -0.5, 2.0])
X = jnp.asarray(RNG.random((2, 5)))
TOKENS = ["Ġ<b>", "Ċ", "Ġof", "Ġit", "Ġ&", "Ġend"]
ROWS = np.array([[1.0, -0.5, 0.25, 0.0, 0.0, 0.0], [0.5, 0, 2.0, -1.0, 0, 0], [0, 0, 0, 0, 3.0, 0]])
FOUND = lrp.Generation(jnp.asarray(ROWS), jnp.array([1.0, 4.0, 3.5]), 3)


def net(w: Any, x: jax.Array) -> jax.Array:
    return jax.nn.relu(x @ w["a"] + BIAS) @ w["b"]


def whole() -> plot.Page:
    graph = lrp.questions.concept_graph(net, lrp.EpsilonPlus(), ["a", "b"])(W, X)
    maps = {"first": ROWS[:, :4], "second": -2 * ROWS[:, :4], "third": np.eye(3, 4)}
    return plot.page(
        "All & <everything>",
        {
            "Text": "One <i>.\n\nTwo.",
            "Answer": sections.answers({"logit": FOUND, "contrast": FOUND}, TOKENS, chosen=1),
            "Maps": sections.heatmaps(maps, image=RNG.random((3, 4, 3))),
            "Table": sections.matrix(ROWS, ["x", "y", "z"], [f"c{i}" for i in range(6)]),
            "Concepts": sections.concepts(graph, k=3),
            "Flow": sections.flow(lrp.conservation(net, lrp.EpsilonPlus())(W, X)),
        },
    )


PAGE = whole()


class Elements(HTMLParser):
    """The elements of a page; an error for a tag that is not closed in order."""

    VOID = ("meta", "input", "br", "img")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, Any]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in self.open:
            self.texts.setdefault(tag, []).append(data)

    def text(self, tag: str) -> str:
        return "".join(self.texts[tag])


def test_a_page_is_whole_and_asks_for_nothing() -> None:
    page = Elements(PAGE.html)
    assert page.texts["title"][0] == "All & <everything>"
    for tag, attributes in page.found:
        assert tag not in ("link", "iframe")
        for name in ("src", "href"):
            assert str(attributes.get(name, "data:")).startswith("data:")
    assert "http" not in PAGE.html.replace("http-equiv", "")
    assert "url(" not in PAGE.html
    names = [a["id"] for _, a in page.found if "id" in a]
    assert len(names) == len(set(names))
    groups = {a["name"] for _, a in page.found if a.get("type") == "radio"}
    assert len(groups) == 2  # the answer's and the signs'


def test_a_page_is_saved_and_shows_itself(tmp_path: Path) -> None:
    path = PAGE.save(tmp_path / "page.html")
    assert path.read_text("utf-8") == PAGE.html
    (frame,) = Elements(PAGE._repr_html_()).found
    assert frame[1]["srcdoc"] == PAGE.html
    assert repr(PAGE).startswith("Page('All & <everything>', ")


def test_a_large_page_stays_below_a_megabyte() -> None:
    count, size = 32, 100
    found = lrp.Generation(jnp.asarray(RNG.normal(size=(count, size))), jnp.ones(count), 68)
    tokens = [f"Ġword{i}" for i in range(size)]
    part = sections.answers({"logit": found, "contrast": found}, tokens)
    table = sections.matrix(RNG.normal(size=(31, size)), [str(i) for i in range(31)], tokens)
    assert len(plot.page("large", {"a": part, "b": table}).html.encode()) < 1_000_000


def test_an_answer_says_every_number() -> None:
    page = plot.page("answer", {"a": sections.answers(FOUND, TOKENS)}).html
    rows = re.findall(r'<div class="chosen q\d">(.*?)</div>', page, re.DOTALL)
    assert len(rows) == 3
    for i, row in enumerate(rows):
        told = [float(v) for v in re.findall(r"<b>(.*?)</b>", row)]
        assert told == list(ROWS[i, : 3 + i])
    assert "score +4 = prompt +2.5, answer so far -1, absorbed by layers +2.5" in rows[1]
    assert "absorbed by layers +0.5" in rows[2]
    text = Elements(page)
    assert "".join(text.texts["legend"]).startswith("the answer")
    assert " <b>⏎ of" in re.sub(r"[+-]?\d+(\.\d+)?", "", text.text("i"))
    assert re.findall(r'type="radio" name="s0" class="r(\d)"( checked)?', page) == [
        ("0", " checked"), ("1", ""), ("2", ""),
    ]  # fmt: skip
    for i in range(3):
        assert f".choose:has(.r{i}:checked) .q{i}{{display:block}}" in page


def test_a_batch_of_one_is_one_example() -> None:
    batch = jax.tree.map(lambda a: a[None], FOUND)
    pages = [plot.page("a", {"a": sections.answers(found, TOKENS)}) for found in (FOUND, batch)]
    assert pages[0] == pages[1]


def test_later_tokens_are_shown_where_they_have_relevance() -> None:
    seen = lrp.Generation(jnp.ones((3, 6)), jnp.ones(3), 3)
    page = plot.page("answer", {"a": sections.answers(seen, TOKENS)}).html
    first = re.findall(r'<div class="chosen q0">(.*?)</div>', page, re.DOTALL)[0]
    assert first.count("<i ") == 6


def test_signs_are_told_without_colours() -> None:
    page = plot.page("answer", {"a": sections.answers(FOUND, TOKENS)}).html
    assert '<i class="v n5">⏎<b>-0.5</b></i><br>' in page
    assert "<td class=n3><b>-1</b></td>" in page  # of the largest, 3
    for selector in ('.v[class*=" n"]', ".map td[class^=n]", 'svg .v[class*=" n"] rect'):
        assert re.search(re.escape(selector) + r" \{[^}]*(dotted|gradient|dasharray)", page)


def test_levels_are_shares_of_the_largest() -> None:
    assert [level(x) for x in (1, -1, 0, 0.04, 0.06, -0.5, 2, np.nan)] == [
        "p10", "n10", "z", "z", "p1", "n5", "p10", "x",
    ]  # fmt: skip
    assert len({level(x) for x in np.linspace(-1, 1, 201)}) == 2 * LEVELS + 1
    assert [number(x) for x in (0.0, 1.0, -0.00012345)] == ["0", "+1", "-0.000123"]


@pytest.mark.parametrize("ground", ["light", "dark"])
def test_text_is_readable_on_every_colour(ground: str) -> None:
    """The contrast is at least 4.5 to 1 (WCAG AA)."""

    def luminance(colour: str) -> float:
        part = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    rules = re.findall(r"\.(\w\d*)\{--b:(#\w{6});--i:(#\w{6})\}", PAGE.html)
    half = len(rules) // 2
    chosen = rules[:half] if ground == "light" else rules[half:]
    assert {name for name, *_ in chosen} >= {f"{s}{i}" for s in "pn" for i in range(1, LEVELS + 1)}
    for _, back, ink in chosen:
        low, high = sorted([luminance(back), luminance(ink)])
        assert (high + 0.05) / (low + 0.05) >= 4.5


def test_heatmaps_are_pictures_of_each_sign() -> None:
    image = pytest.importorskip("PIL.Image")
    values = np.array([[1.0, -2.0, 0.0], [0.5, np.nan, 0.0]])
    page = plot.page("maps", {"a": sections.heatmaps({"<one>": values}, np.ones((2, 3)))})
    pictures = [
        np.asarray(image.open(io.BytesIO(base64.b64decode(code))))
        for code in re.findall(r"data:image/png;base64,([\w+/=]+)", page.html)
    ]
    assert [p.shape for p in pictures] == [(2, 3), (2, 3, 4), (2, 3, 4)]
    plus, minus = (p[..., 3] for p in pictures[1:])
    np.testing.assert_array_equal(plus > 0, [[True, False, False], [True, False, False]])
    np.testing.assert_array_equal(minus > 0, [[False, True, False], [False, False, False]])
    assert minus.max() == 255 > plus[0, 0] > plus[1, 0]
    told = Elements(page.html).text("figcaption")
    assert told == "<one>: sum -0.5, positive +1.5, negative -2, largest -2 at row 0, column 1"


def test_a_graph_tells_what_every_concept_hands_on() -> None:
    graph = lrp.questions.ConceptGraph(
        ("top", "low"),
        (jnp.array([[3.0, -1.0]]), jnp.array([[1.0, 0.5, 0.0]])),
        (jnp.array([[[2.0, 1.0, 0.0], [-0.5, 0.0, -0.5]]]),),
    )
    page = plot.page("graph", {"a": sections.concepts(graph, k=2)}).html
    told = Elements(page).texts["title"][1:]
    assert told == [
        "unit 0 of top to unit 0 of low: +2", "unit 0 of top to unit 1 of low: +1",
        "unit 1 of top to unit 0 of low: -0.5", "unit 1 of top to unit 1 of low: 0",
        "unit 0 of top: +3", "unit 1 of top: -1", "unit 0 of low: +1", "unit 1 of low: +0.5",
    ]  # fmt: skip
    assert page.count('class="edge n"') == 1
    assert "<td>unit 1 of top to unit 0 of low</td><td>-0.5</td>" in page


def test_a_flow_names_what_took_most_and_adds_up() -> None:
    ledger = lrp.conservation(net, lrp.EpsilonPlus())(W, X)
    page = Elements(plot.page("flow", {"a": sections.flow(ledger, top=1)}).html)
    told = page.texts["text"]
    assert told[0] == f"the output gives {number(float(ledger.start))}"
    assert told[-1] == f"the input gets {number(float(ledger.received))}"
    lines = [re.fullmatch(r"([+-]) (\S+)  (.*)", line) for line in told[1:-1]]
    assert all(lines)
    taken = sum(-float(m[1] + m[2]) for m in lines if m)
    np.testing.assert_allclose(float(ledger.start) - taken, float(ledger.received), atol=0.02)
    assert [m[3] for m in lines if m] == [
        "a, by the bias", "2 other layers", "constants outside of layers",
    ]  # fmt: skip


def test_a_flow_through_places() -> None:
    there = {"logit": 8.0, "block 1": np.array([5.0, 1.0]), "block 0": 6.5, "tokens": 6.5}
    page = Elements(plot.page("flow", {"a": sections.flow(there)}).html)
    assert page.texts["text"] == [
        "the output gives +8", "- 2  block 1", "+ 0.5  block 0", "- 0  1 other layer",
        "the input gets +6.5",
    ]  # fmt: skip
    assert page.texts["td"][:4] == ["logit", "+8", "block 1", "+6"]


def test_a_branch_is_as_wide_as_what_it_carries() -> None:
    there = {"logit": 2.0, "turns": -1.0, "grows": -4.0, "takes": -1.0}
    page = plot.page("flow", {"a": sections.flow(there)}).html
    ends = re.findall(r"Q\S+ (\S+) \d+ \S+V(\S+)Q", page)
    assert [abs(float(a) - float(b)) / 30 for a, b in ends] == [3, 3, 3]  # 120 are 4
    river = re.findall(r'class="(river[ \w]*)" d="M\S+ \S+h(\S+)v', page)
    assert river == [("river minus", "30.0"), ("river minus", "30.0")]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sections.answers(FOUND, TOKENS[:4]), "4 tokens with a prompt of 3"),
        (lambda: sections.answers(FOUND, TOKENS, chosen=3), "the answer has 3 tokens"),
        (
            lambda: sections.answers(
                lrp.Generation(jnp.ones((2, 3, 6)), jnp.ones((2, 3)), 3), TOKENS
            ),
            "one example of 2",
        ),
        (lambda: sections.matrix(ROWS, ["x"], TOKENS), "1 rows and 6 columns"),
        (lambda: sections.flow({"logit": 1.0}), "two places"),
        (lambda: sections.heatmaps({}), "no heatmaps"),
        (lambda: sections.heatmaps({"a": ROWS}, np.ones((3, 3))), "several sizes"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# In a browser.


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    if PROGRAM is None:
        pytest.skip("no Chromium is installed")
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return PAGE.save(tmp_path_factory.mktemp("pages") / "page.html")


def shown(tab: Tab, what: str) -> bool:
    return bool(tab.value(f"document.querySelector('{what}').checkVisibility()"))


@pytest.mark.parametrize("script", [True, False])
@pytest.mark.parametrize("dark", [True, False])
def test_a_browser_has_nothing_to_complain_of(
    tab: Tab, file: Path, dark: bool, script: bool
) -> None:
    tab.open(file, dark=dark, script=script)
    assert tab.complaints() == []
    assert [r for r in tab.requests() if not r.startswith("data:")] == [file.as_uri()]
    ground = tab.value("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(17, 17, 17)" if dark else "rgb(255, 255, 255)")


@pytest.mark.parametrize("script", [True, False])
def test_tokens_are_chosen_with_the_keyboard(tab: Tab, file: Path, script: bool) -> None:
    tab.open(file, script=script)
    assert [shown(tab, f".q{i}") for i in range(3)] == [False, True, False]
    tab.press("Tab")
    tab.press("ArrowRight")
    assert [shown(tab, f".q{i}") for i in range(3)] == [False, False, True]
    assert not shown(tab, ".q2 b")
    tab.press("Tab")
    tab.press(" ")
    assert shown(tab, ".q2 b")  # the numbers


def test_without_a_script_every_heatmap_is_shown(tab: Tab, file: Path) -> None:
    tab.open(file, script=False)
    assert tab.value(
        "[...document.querySelectorAll('.slides figure')].every(f => f.checkVisibility())"
    )
    assert not shown(tab, "[type=range]")


def test_the_slider_goes_through_the_heatmaps(tab: Tab, file: Path) -> None:
    tab.open(file)
    visible = (
        "[...document.querySelectorAll('.slides figure')].filter(f => f.checkVisibility())"
        ".map(f => f.dataset.name).join()"
    )
    assert tab.value(visible) == "first"
    tab.value("document.querySelector('[type=range]').focus()")
    tab.press("ArrowRight")
    assert tab.value(visible) == "second"
    assert tab.value("document.querySelector('.slides output').textContent") == "second"
    assert shown(tab, ".slides figure:nth-child(2) .minus")


def test_the_arrows_go_through_a_table(tab: Tab, file: Path) -> None:
    tab.open(file)
    tab.value("document.querySelectorAll('.map')[1].querySelector('td').focus()")
    tab.press("ArrowDown")
    tab.press("ArrowRight", times=2)
    said = (
        "document.querySelectorAll('.map')[1].closest('figure').querySelector('output').textContent"
    )
    assert tab.value(said) == "y ← c2: +2"
    tab.press("ArrowRight", times=9)  # no further than the row
    tab.press("ArrowDown", times=9)
    assert tab.value(said) == "z ← c5: 0"


def test_concepts_are_chosen_with_the_keyboard(tab: Tab, file: Path) -> None:
    tab.open(file)
    tab.value("document.querySelector('.node').focus()")
    tab.press("ArrowRight")
    tab.press("Enter")
    said = (
        "document.querySelector('svg.graph').closest('figure').querySelector('output').textContent"
    )
    name = tab.value("document.activeElement.querySelector('title').textContent")
    assert tab.value(said).startswith(name + "; unit ")
    assert tab.value("document.querySelectorAll('.edge.on').length") == 3
    tab.press("Enter")
    assert tab.value(said) == ""
    assert tab.complaints() == []
