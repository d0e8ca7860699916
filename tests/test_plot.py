"""Pictures: colours where they should be, and every figure drawn without a warning."""

import html.parser
import itertools
import re
import sys

import jax
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, strategies as st

import lrp_jax as lrp
from lrp_jax import evaluation, plot
from lrp_jax.plot import colormaps

RNG = np.random.default_rng(0)
R = RNG.normal(size=(6, 7))
ZERO_COLOUR = {"relevance": (255, 255, 255), "relevance_dark": (0, 0, 0)}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def drawn(ax, tmp_path, kind="png"):
    path = tmp_path / f"figure.{kind}"
    ax.figure.savefig(path)
    return path.read_bytes()


# Colours.


@pytest.mark.parametrize("name", colormaps.STOPS)
def test_numpy_and_matplotlib_show_the_same_colours(name):
    values = np.linspace(0, 1, 256)
    ours = colormaps.colours(values, name).astype(int)
    theirs = np.round(255 * plot.colormap(name)(values)[:, :3]).astype(int)
    assert np.abs(ours - theirs).max() <= 3


@pytest.mark.parametrize(
    ("name", "index", "colour"),
    [
        ("coldnhot", 0, (0, 255, 255)),
        ("coldnhot", 64, (0, 0, 255)),
        ("coldnhot", 128, (0, 0, 0)),
        ("coldnhot", 255, (255, 255, 255)),
        ("hot", 85, (255, 0, 0)),
        ("hot", 170, (255, 255, 0)),
        ("bwr", 128, (255, 255, 255)),
        ("seismic", 0, (0, 0, 208)),
        ("coleus", 255, (208, 0, 208)),
        ("france", 255, (239, 65, 53)),
    ],
)
def test_zennits_colours(name, index, colour):
    np.testing.assert_array_equal(colormaps.colours(np.array(index / 255), name), colour)


@pytest.mark.parametrize("name", ZERO_COLOUR)
def test_zero_is_the_middle_and_lightness_tells_only_the_size(name):
    """Both signs of one size differ little in lightness, so neither looks stronger."""
    np.testing.assert_array_equal(colormaps.colours(np.array(0.5), name), ZERO_COLOUR[name])
    grey = colormaps.colours(np.linspace(0, 1, 21), name) @ [0.2126, 0.7152, 0.0722]
    assert np.abs(grey - grey[::-1]).max() < 50
    steps = np.diff(grey[10:])
    assert (steps <= 0).all() or (steps >= 0).all()


# What eyes without one kind of cone see of linear red, green and blue (Machado et al. 2009).
BLIND = {
    "red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998]],
    "green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
              [-0.011820, 0.042940, 0.968881]],
    "blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
             [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


@pytest.mark.parametrize("missing", BLIND)
@pytest.mark.parametrize("name", ZERO_COLOUR)
def test_signs_are_told_apart_without_a_kind_of_cone(name, missing):
    def seen(shares):
        part = colormaps.colours(np.array(shares) / 2 + 0.5, name) / 255
        linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
        linear = np.clip(linear @ np.array(BLIND[missing]).T, 0, 1)
        return 255 * np.where(
            linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
        )

    shares = np.array([0.05, 0.1, 0.2, 0.5, 1.0])
    apart = np.abs(seen(shares) - seen(-shares)).sum(-1)
    assert (apart > [25, 50, 75, 100, 100]).all()


def test_unknown_names_are_named():
    with pytest.raises(ValueError, match="relevance_dark"):
        colormaps.colours(R, "rainbow")


# Scales and plain arrays.


@given(st.floats(-1e30, 1e30), st.sampled_from(["max", "mean_cubed", "p99", "p0"]))
def test_constant_maps_have_a_scale(value, scale):
    limit = plot.bound(np.full((3, 3), value), scale)
    assert limit > 0
    assert np.isfinite(limit)
    assert np.isfinite(plot.rgb(np.full((3, 3), value), scale=scale)).all()


def test_scales():
    assert plot.bound(R) == np.abs(R).max()
    np.testing.assert_allclose(plot.bound(R, "mean_cubed"), 10 * np.mean(np.abs(R) ** 3) ** (1 / 3))
    assert plot.bound(R, "p90") == np.percentile(np.abs(R), 90)
    assert plot.bound(R, 3) == 3.0
    assert plot.bound(np.array([np.nan, np.inf, -2.0])) == 2
    assert plot.bound(np.array([np.nan])) == 1
    for bad in ("mean", "p101", 0, -1):
        with pytest.raises(ValueError, match="scale"):
            plot.bound(R, bad)


def test_rgb():
    picture = plot.rgb(R)
    assert picture.shape == (6, 7, 3)
    assert picture.dtype == np.uint8
    place = np.unravel_index(np.abs(R).argmax(), R.shape)
    end = 1.0 if R[place] > 0 else 0.0
    np.testing.assert_array_equal(picture[place], colormaps.colours(np.array(end)))
    batch = plot.rgb(np.stack([R, 5 * R])[..., None])
    np.testing.assert_array_equal(batch[0], batch[1])
    parts = np.stack([R / 2, R / 4, R / 4], -1)
    np.testing.assert_array_equal(plot.rgb(parts), picture)
    assert (plot.rgb(np.zeros((2, 2))) == 255).all()
    broken = R.copy()
    broken[0, 0], broken[1, 1] = np.nan, -np.inf
    np.testing.assert_array_equal(plot.rgb(broken)[[0, 1], [0, 1]], 2 * [colormaps.MISSING])
    with pytest.raises(ValueError, match=r"\(5,\)"):
        plot.rgb(np.zeros(5))


def test_an_overlay_is_grey_without_relevance_and_coloured_with_it():
    image = RNG.random((6, 7, 3))
    r = np.zeros((6, 7))
    r[2, 3] = 1
    picture = plot.overlay(image, r)
    assert picture.shape == (6, 7, 3)
    assert np.ptp(np.delete(picture.reshape(-1, 3), 2 * 7 + 3, 0), axis=1).max() < 1e-12
    np.testing.assert_allclose(picture[2, 3], plot.colormap()(1.0)[:3], atol=1e-9)
    with pytest.raises(ValueError, match="sizes"):
        plot.overlay(image[:3], r)


# Figures.


@pytest.mark.parametrize("style", ["default", "dark_background"])
@pytest.mark.parametrize("kind", ["png", "pdf"])
def test_every_figure_is_drawn(tmp_path, style, kind):
    cmap = "relevance" if style == "default" else "relevance_dark"
    images = RNG.random((2, 6, 7, 3))
    with plt.style.context(style):
        axes = [
            plot.heatmap(R, cmap=cmap, colorbar=True, title="title"),
            plot.heatmap(np.stack([R] * 3, -1), image=images[0], colorbar=True, cmap="PuOr"),
            plot.heatmap(np.full((3, 3), np.nan)),
            plot.grid(
                images, {"a": RNG.normal(size=(2, 6, 7)), "b": images}, labels=["x", "y"]
            ).axes[0],
            plot.grid(None, {"a": R[None]}, colorbars=True).axes[0],
            plot.time_series(R, R**2, cmap=cmap),
            plot.time_series(R[0], R[1]),
            plot.uncertainty(R, labels=[f"unit {i}" for i in range(7)], cmap=cmap),
            plot.uncertainty(images, cmap=cmap),
            plot.text(["a", " long", " text\n", "\nline"], np.array([1, -2, 0, np.nan]), width=1),
        ]
        for ax in axes:
            assert len(drawn(ax, tmp_path, kind)) > 1000


def test_heatmaps_show_zero_in_the_middle_whatever_is_drawn():
    (image,) = plot.heatmap(np.abs(R) + 1).images
    low, high = image.get_clim()
    assert low == -high


def test_uncertainty_of_features_is_the_range_of_the_central_members():
    members = np.stack([np.arange(101.0), -2 * np.arange(101.0)], 1)
    ax = plot.uncertainty(members, level=0.8)
    bars = [bar.get_height() for bar in ax.patches]
    np.testing.assert_allclose(bars, [50, -100])
    ranges = [line[:, 1] for line in ax.collections[0].get_segments()]
    np.testing.assert_allclose(ranges, [[10, 90], [-180, -20]])
    with pytest.raises(ValueError, match="3 labels for 2 features"):
        plot.uncertainty(members, labels="abc")


def test_a_pixel_fades_the_more_members_disagree():
    maps = np.ones((4, 1, 3))
    maps[0, 0, 1] = -0.5  # one of four
    maps[:2, 0, 2] = -0.5  # half of them
    (image,) = plot.uncertainty(np.stack([maps, 0 * maps], -1)).images
    np.testing.assert_allclose(image.get_array(), [[1, 0.625 * 0.5, 0]])
    assert image.get_clim() == (-1, 1)
    with pytest.raises(ValueError, match="one example"):
        plot.uncertainty(np.ones((2, 3, 4, 5, 6)))


def test_grid_has_one_picture_each():
    figure = plot.grid(np.zeros((3, 4, 4)), {"a": np.zeros((3, 4, 4)), "b": np.ones((3, 4, 4))})
    assert len(figure.axes) == 9
    assert [ax.get_title() for ax in figure.axes[:3]] == ["input", "a", "b"]
    with pytest.raises(ValueError, match="same number"):
        plot.grid(np.zeros((3, 4, 4)), {"a": np.zeros((2, 4, 4))})
    with pytest.raises(ValueError, match="1 labels for 3 rows"):
        plot.grid(np.zeros((3, 4, 4)), {}, labels=["x"])


def test_time_series_needs_relevance_of_the_signal():
    with pytest.raises(ValueError, match="one shape"):
        plot.time_series(R, R[0])


def test_curves_show_means_in_their_bands():
    fraction = np.linspace(0, 1, 5)
    scores = RNG.normal(size=(30, 5)) + 3
    ax = plot.curves({"LRP": evaluation.Curves(fraction, scores)}, score="logit")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), scores.mean(0))
    low, high = evaluation.interval(scores)
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([band.min(), band.max()], [low.min(), high.max()])


def test_many_curves_are_told_apart_without_colours(tmp_path):
    curve = evaluation.Curves(np.linspace(0, 1, 5), RNG.normal(size=(4, 5)))
    ax = plot.curves({f"method {i}": curve for i in range(7)})
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == [f"method {i}" for i in range(7)]
    looks = {(str(line._dash_pattern), line.get_color()) for line in ax.lines}
    assert len(looks) == 7
    assert len({str(line._dash_pattern) for line in ax.lines}) == 5
    drawn(ax, tmp_path)


def table():
    def make(gamma, epsilon):
        return lambda p, x, target=None: x + (gamma - 0.1) ** 2 + (epsilon - 1) ** 2

    grid = evaluation.Grid(make, gamma=[0, 0.1, 1, 2], epsilon=[0.0, 0.1, 1.0])
    data = [(RNG.normal(size=(9, 4)), np.zeros(9, int))]
    return evaluation.study(
        {"grid": grid, "plain": lambda p, x, target=None: x + 0.5},
        {"auc": lambda p, x, relevance, target: relevance.mean(-1)},
        data,
        progress=False,
    )


def test_surface_marks_the_best_point(tmp_path):
    ax = plot.surface(table(), "auc", "grid")
    star = ax.lines[0]
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (1.0, 0.1)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epsilon", "gamma")
    drawn(ax, tmp_path)
    with pytest.raises(KeyError, match="no grid"):
        plot.surface(table(), "auc", "plain")


def test_ranking_lists_the_best_on_top(tmp_path):
    ranks = table().ranking("auc")
    ax = plot.ranking(ranks, metric="auc")
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[0] == "grid, gamma 0.1, epsilon 1"
    assert "plain" in labels
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    drawn(ax, tmp_path)


def test_the_plan_is_a_graph(tmp_path):
    params = {"a": np.ones((3, 4)), "b": np.ones((4, 2))}

    def net(p, x):
        return jax.nn.relu(x @ p["a"]) @ p["b"]

    made = lrp.plan(net, lrp.EpsilonPlus())(params, np.ones((1, 3)))
    ax = plot.plan(made, relevance={layer.path: 1.0 for layer in made.layers})
    shown = "\n".join(text.get_text() for text in ax.texts)
    for layer in made.layers:
        assert layer.path in shown
    assert len(ax.patches) == len(made.layers)  # one line each: a chain from the input on
    widths = [line.get_linewidth() for line in ax.patches]
    assert widths[0] < 1 < min(widths[1:])  # nothing was said of the input
    drawn(ax, tmp_path)


def test_lines_of_skip_connections_run_beside_the_layers(tmp_path):
    params = {"a": np.ones((3, 3)), "b": np.ones((3, 3)), "c": np.ones((3, 2))}

    def net(p, x):
        h = jax.nn.relu(x @ p["a"])
        return (x + h @ p["b"]) @ p["c"]

    made = lrp.plan(net, lrp.EpsilonPlus())(params, np.ones((1, 3)))
    assert [layer.parents for layer in made.layers] == [(-1,), (0,), (1,), (-1, 2), (3,)]
    ax = plot.plan(made)
    assert len(ax.patches) == 6
    right = [line.get_path().vertices[:, 0].max() for line in ax.patches]
    assert sum(x > 0.4 for x in right) == 1
    assert ax.get_xlim()[1] > max(right)
    drawn(ax, tmp_path)


def test_the_ledger_has_a_bar_for_each_cause(tmp_path):
    params = {"a": RNG.normal(size=(3, 4)), "b": np.array([2.0, -1.0, 0.5, 1.0])}

    def net(p, x):
        return jax.nn.relu(x @ p["a"] + p["b"])

    made = lrp.conservation(net, lrp.Epsilon(0.1))(params, np.ones((2, 3)))
    ax = plot.ledger(made)
    causes = [text.get_text() for text in ax.get_legend().get_texts()]
    assert causes == ["bias", "stabiliser", "dropped", "rule"]
    assert [text.get_text() for text in ax.get_yticklabels()] == list(made.rows)
    widths = [bar.get_width() for bar in ax.patches]
    expected = [row[cause] for row in made.rows.values() for cause in causes]
    np.testing.assert_allclose(widths, expected, atol=1e-12)
    assert max(np.abs(widths)) > 0.1
    hatches = {handle.get_hatch() for handle in ax.get_legend().legend_handles}
    assert len(hatches) == len(causes)  # told apart without colours
    drawn(ax, tmp_path)


def test_vector_files_hold_text_as_text(tmp_path):
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        ax = plot.text(["relevant", " words"], np.array([1.0, -1.0]))
        assert b"relevant" in drawn(ax, tmp_path, "svg")


# Text.


class Spans(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        if tag == "span":
            self.found.append([dict(attrs), ""])

    def handle_data(self, data):
        self.found[-1][1] += data


@given(st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=5))
def test_html_keeps_every_token(tokens):
    tokens = [t.replace("\r", " ") for t in tokens]
    parser = Spans()
    parser.feed(plot.text_html(tokens, np.linspace(-1, 1, len(tokens))))
    parser.close()
    assert [text for _, text in parser.found] == tokens


@pytest.mark.parametrize("cmap", ["relevance", "relevance_dark", "seismic"])
def test_text_is_readable_on_every_colour(cmap):
    """The contrast is at least 4.5 to 1 (WCAG AA)."""

    def luminance(colour):
        part = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    text = plot.text_html(["w"] * 41, np.linspace(-1, 1, 41), cmap=cmap)
    pairs = re.findall(r"background:(#\w{6});color:(#\w{6})", text)
    assert len(pairs) == 41
    for back, ink in pairs:
        low, high = sorted([luminance(back), luminance(ink)])
        assert (high + 0.05) / (low + 0.05) >= 4.5


def test_the_terminal_shows_the_same_colours():
    text = plot.text_terminal(["a", "b"], np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert re.findall(r"48;2;([\d;]+)m", text) == ["139;26;0", "255;255;255"]
    assert re.sub(r"\x1b\[[\d;]*m", "", text) == "ab"


def test_tokens_need_their_relevance():
    with pytest.raises(ValueError, match="2 tokens"):
        plot.text_html(["a", "b"], np.zeros(3))


def test_a_missing_matplotlib_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="matplotlib is needed for plots"):
        plot.heatmap(R)


def test_titles_do_not_run_into_each_other(tmp_path):
    names = ["EpsilonGammaBox(low=-3, high=3)", "gradient times input, averaged", "short"]
    figure = plot.grid(None, dict.fromkeys(names, R[None, :4, :4]))
    figure.savefig(tmp_path / "grid.png")
    boxes = [ax.title.get_window_extent() for ax in figure.axes]
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))
    assert figure.axes[2].title.get_fontsize() == 10


# Layers, heads, tokens, neurons.


def cells(ax):
    return np.ma.filled(ax.collections[0].get_array(), np.nan)


def labels(axis):
    return [text.get_text() for text in axis.get_ticklabels()]


def test_heads_of_layers_and_of_turns(tmp_path):
    apart = {"a": R[0, :3], "b": R[1, :2]}
    ax = plot.heads(apart)
    np.testing.assert_array_equal(cells(ax), [[*R[1, :2], np.nan], R[0, :3]])
    assert labels(ax.yaxis) == ["b", "a"]
    assert drawn(ax, tmp_path)
    ax = plot.heads({"a": R[:2], "b": R[2:4], "c": R[4]})
    np.testing.assert_array_equal(cells(ax)[::-1], R[[0, 2, 1, 3, 4]])
    assert labels(ax.yaxis)[::-1] == ["a [0]", "b [0]", "a [1]", "b [1]", "c"]


def test_names_may_be_an_array():
    names = np.array(["a", "b"])
    assert labels(plot.matrix(R[:2, :2], names, names).yaxis) == ["a", "b"]


def test_long_names_leave_room_for_the_cells(tmp_path):
    name = "transformer/block/attention/MatMul"
    ax = plot.matrix(R[:2, :2], [name, name + ":1"], [name, name + ":1"])
    assert drawn(ax, tmp_path)
    assert ax.get_window_extent().width > 30


def test_tokens_of_layers(tmp_path):
    ax = plot.token_layers({"x": R[0], "y": R[1]}, ["Ġthe", "Ċ", *"abcde"])
    np.testing.assert_array_equal(cells(ax), R[1::-1])
    assert labels(ax.xaxis)[:3] == ["the", "\\n", "a"]
    assert drawn(ax, tmp_path)
    with pytest.raises(ValueError, match="named"):
        plot.token_layers({"x": R[0]}, ["a"])
    with pytest.raises(ValueError, match="one example"):
        plot.token_layers({"x": R[None, None]}, ["a"])


def test_the_strongest_neurons(tmp_path):
    ax = plot.neurons({"up": np.array([0.5, -3.0, 0.0]), "deep": np.array([[1.0], [2.0]])}, k=3)
    assert labels(ax.yaxis) == ["up · 1", "deep [1] · 0", "deep [0] · 0"]
    assert [bar.get_width() for bar in ax.patches] == [-3, 2, 1]
    assert drawn(ax, tmp_path)


def test_a_matrix_of_tokens(tmp_path):
    ax = plot.matrix(R, columns=list("abcdefg"))
    assert ax.collections[0].get_clim() == (-np.abs(R).max(), np.abs(R).max())
    assert drawn(ax, tmp_path)


def test_walks_are_lines_between_layers_or_on_their_graph():
    nodes, relevance = np.array([[0, 0, 1], [2, 1, 0]]), np.array([1.0, -0.5])
    ax = plot.walks(nodes, relevance, labels=list("abc"), layers=["x", "y", "z"])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "b", "c"]
    weak, strong = ax.get_lines()
    assert np.round(weak.get_xdata()).tolist() == nodes[1].tolist()
    assert weak.get_linewidth() < strong.get_linewidth()
    assert weak.get_color()[2] > weak.get_color()[0]  # blue is negative
    ax = plot.walks(nodes, relevance, positions=[[0, 0], [1, 0], [1, 1]], edges=[(0, 1), (1, 2)])
    assert len(ax.get_lines()) == 2 + 2 + 1  # edges, walks, and the circle of one that stays
    with pytest.raises(ValueError, match=r"walks \(walks, layers\)"):
        plot.walks(nodes, relevance[:1])
