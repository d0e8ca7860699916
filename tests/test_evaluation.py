"""Metrics against slow, obvious loops; planted truth; studies that survive a kill."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

import lrp_jax as lrp
from lrp_jax import baselines, evaluation, targets
from lrp_jax._propagation.forward import forward
from lrp_jax.evaluation import fills
from lrp_jax.evaluation.flipping import flip_counts, patch_labels

RNG = np.random.default_rng(1)
X = RNG.normal(size=(3, 5, 4, 2))
W = RNG.normal(size=(40, 3))
R = RNG.normal(size=X.shape)
LABELS = np.array([0, 2, 1])


def model(w, x):
    return jnp.tanh(x.reshape(len(x), -1)) @ w


def logits(x):
    return np.tanh(x.reshape(len(x), -1)) @ W


def chosen(y):
    return y[np.arange(len(y)), LABELS]


# Flipping.


def slow_flipping(order, patch, counts, fill, readout):
    """Patch by patch, example by example."""
    curves = []
    for x, r, label in zip(X, R, LABELS, strict=True):
        corners = [(i, j) for i in range(0, 5, patch[0]) for j in range(0, 4, patch[1])]
        sums = [r[i : i + patch[0], j : j + patch[1]].sum() for i, j in corners]
        ranked = np.argsort(sums if order == "lerf" else -np.array(sums), kind="stable")
        scores = []
        for count in counts:
            flipped = x.copy()
            for n in ranked[:count]:
                i, j = corners[n]
                flipped[i : i + patch[0], j : j + patch[1]] = fill(x)[
                    i : i + patch[0], j : j + patch[1]
                ]
            scores.append(readout(logits(flipped[None])[0])[label])
        curves.append(scores)
    return np.array(curves)


SOFTMAX = lambda y: np.exp(y) / np.exp(y).sum()  # noqa: E731
ACCURACY = lambda y: np.eye(3)[y.argmax()]  # noqa: E731


@pytest.mark.parametrize(
    ("order", "patch", "schedule", "steps", "fill", "score", "readout", "chunk"),
    [
        ("morf", (1, 1), "linear", 5, None, "logit", lambda y: y, 1),
        ("lerf", (2, 3), "quadratic", 3, "mean", "probability", SOFTMAX, 2),
        ("morf", (2, 2), [1, 2, 6], 0, "mean", "accuracy", ACCURACY, 4),
        ("lerf", (5, 4), "linear", 1, None, jax.nn.softmax, SOFTMAX, 1),
    ],
)
def test_flipping_as_a_loop(order, patch, schedule, steps, fill, score, readout, chunk):
    labels, count = patch_labels(X.shape, (1, 2), patch)
    counts = flip_counts(schedule, steps, count)
    flip = evaluation.pixel_flipping(
        model,
        order=order,
        patch=patch,
        schedule=schedule,
        steps=steps,
        fill=fills.mean() if fill else None,
        score=score,
        chunk=chunk,
    )
    curves = flip(W, X, relevance=R, target=LABELS)
    mean = lambda x: np.broadcast_to(x.mean((0, 1)) if fill else 0, x.shape)  # noqa: E731
    expected = slow_flipping(order, patch, counts, mean, readout)
    np.testing.assert_allclose(curves.score, expected, atol=1e-10)
    np.testing.assert_allclose(curves.fraction, counts / count)
    assert labels.max() + 1 == count


def test_channels_flip_alone_where_their_axis_is_named():
    flip = evaluation.pixel_flipping(model, patch=1, axes=(1, 2, 3), steps=40)
    scores = flip(W, X, relevance=R, target=LABELS).score
    for k in (1, 17):
        flipped = X.reshape(3, -1).copy()
        for row, r in zip(flipped, R.reshape(3, -1), strict=True):
            row[np.argsort(-r)[:k]] = 0
        np.testing.assert_allclose(scores[:, k], chosen(logits(flipped)), atol=1e-10)


def test_tokens_flip_to_a_mask_token():
    table = RNG.normal(size=(10, 3))
    tokens = RNG.integers(1, 10, (2, 6))
    relevance = RNG.normal(size=(2, 6))
    flip = evaluation.pixel_flipping(lambda e, t: e[t].sum(1), steps=6, fill=fills.constant(0))
    scores = flip(table, tokens, relevance=relevance, target=1).score
    masked = tokens.copy()
    for row, r in zip(masked, relevance, strict=True):
        row[np.argsort(-r)[:2]] = 0
    np.testing.assert_allclose(scores[:, 2], table[masked].sum(1)[:, 1])


def test_embeddings_flip_to_zero_and_take_relevance_of_tokens():
    x = RNG.normal(size=(2, 6, 4))
    f = lambda w, x: (x @ w).sum(1)  # noqa: E731
    w = RNG.normal(size=(4, 2))
    full = RNG.normal(size=x.shape)
    a, b = (
        evaluation.pixel_flipping(f, steps=3)(w, x, relevance=r, target=0).score
        for r in (full, full.sum(-1))
    )
    np.testing.assert_allclose(a, b)


def test_random_order_follows_its_key():
    flip = evaluation.pixel_flipping(model, order="random", steps=4)
    a, b, c = (flip(W, X, relevance=R, target=0, key=jax.random.key(k)).score for k in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c)[:, 1:-1].max() > 1e-3
    np.testing.assert_allclose(a[:, [0, -1]], c[:, [0, -1]])


def test_the_class_is_that_of_the_whole_input():
    curves = evaluation.pixel_flipping(model, steps=3)(W, X, relevance=R)
    predicted = logits(X).argmax(-1)
    given = evaluation.pixel_flipping(model, steps=3)(W, X, relevance=R, target=predicted)
    np.testing.assert_array_equal(curves.score, given.score)


def test_flipping_costs_its_forward_passes_only():
    calls = []

    def counted(w, x):
        jax.debug.callback(lambda: calls.append(1))
        return model(w, x)

    evaluation.pixel_flipping(counted, steps=9)(W, X, relevance=R, target=0)
    jax.effects_barrier()
    # One for each step from 0 on, and one for the class.
    assert len(calls) <= 11


def test_the_model_runs_in_the_form_that_suits_the_platform():
    """Depthwise convolutions, in a call of their own, are none of XLA's slow ones on CPUs."""
    kernel = RNG.normal(size=(3, 3, 1, 8))
    numbers = ("NHWC", "HWIO", "NHWC")

    @jax.jit
    def depthwise(x, w):
        y = jax.lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=numbers, feature_group_count=8
        )
        return jax.nn.relu(y), y

    def f(params, x):
        return {"out": depthwise(x, params["kernel"])[0].mean((1, 2)) + jnp.asarray(kernel).sum()}

    params, x = {"kernel": kernel}, RNG.normal(size=(2, 6, 6, 8))
    fast = jax.jit(forward(f))
    np.testing.assert_allclose(fast(params, x)["out"], f(params, x)["out"], atol=1e-12)
    text = fast.lower(params, x).compile().as_text()
    assert ("convolution(" in text) == (jax.default_backend() != "cpu")
    flip = evaluation.pixel_flipping(lambda p, x: f(p, x)["out"], steps=4, chunk=2)
    scores = flip(params, x, relevance=x, target=3).score
    np.testing.assert_allclose(scores[:, 0], f(params, x)["out"][:, 3], atol=1e-12)


def test_areas():
    curves = evaluation.Curves(jnp.array([0, 0.5, 1]), jnp.array([[4.0, 2, 0], [1, 1, 1]]))
    np.testing.assert_allclose(evaluation.area(curves), [2, 1])
    np.testing.assert_allclose(evaluation.area_of_squares(curves), [0.25 * 4 + 0.25 * 20, 0])
    np.testing.assert_allclose(evaluation.area_between(curves, curves), 0)


def test_schedules():
    np.testing.assert_array_equal(np.diff(flip_counts("quadratic", 28, 784)), range(1, 56, 2))
    np.testing.assert_array_equal(flip_counts("linear", 4, 10), [0, 2, 5, 8, 10])
    for bad in ([3, 1], [0, 99], [-1, 2], [[1]], [0.5], "cubic", []):
        with pytest.raises(ValueError, match="schedule"):
            flip_counts(bad, 4, 10)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(1, 4))
def test_patches_cover_everything_once(height, width, ph, pw):
    labels, count = patch_labels((1, height, width), (1, 2), (ph, pw))
    sizes = np.bincount(labels.ravel(), minlength=count)
    assert sizes.min() >= 1
    assert sizes.max() <= ph * pw
    assert sizes.sum() == height * width


def test_the_interval_is_that_of_the_mean():
    values = RNG.exponential(size=(400, 2)) * [1, 3]
    low, high = evaluation.interval(values, 0.9)
    spread = 1.645 * values.std(0) / 20
    np.testing.assert_allclose(low, values.mean(0) - spread, atol=0.2 * spread.max())
    np.testing.assert_allclose(high, values.mean(0) + spread, atol=0.2 * spread.max())
    with pytest.raises(ValueError, match="one example"):
        evaluation.interval([])
    with pytest.raises(ValueError, match="level"):
        evaluation.interval([1.0], level=1)


@pytest.mark.parametrize(
    ("options", "call", "words"),
    [
        ({"order": "best"}, {}, "morf"),
        ({"score": "loss"}, {}, "probability"),
        ({"patch": 0}, {}, "patch"),
        ({"axes": (0,)}, {}, "axes"),
        ({"steps": 0}, {}, "steps"),
        ({}, {"relevance": R[:, :, :, :1]}, "no input of shape"),
        ({}, {"target": 7}, "out of range"),
    ],
)
def test_mistakes_in_flipping_are_named(options, call, words):
    with pytest.raises(ValueError, match=words):
        evaluation.pixel_flipping(model, **options)(W, X, **{"relevance": R, **call})


# Fills.


def test_blur_is_a_gaussian_average():
    x = np.zeros((1, 15, 15, 1))
    x[0, 7, 7] = 1
    out = np.asarray(fills.blur(1.5).function(jax.random.key(0), jnp.asarray(x), None))
    np.testing.assert_allclose(out.sum(), 1, atol=1e-6)
    np.testing.assert_allclose(out[0, 7, 8] / out[0, 7, 7], np.exp(-0.5 / 1.5**2), atol=1e-6)


def test_noise_stays_between_the_extremes():
    out = fills.noise().function(jax.random.key(0), jnp.asarray(X), None)
    assert (out >= X.min((1, 2, 3), keepdims=True)).all()
    assert (out <= X.max((1, 2, 3), keepdims=True)).all()
    assert out.std() > 0.1


def test_conditional_fill_knows_its_surroundings():
    """Smooth random images: drawing a patch anew given its frame beats drawing it from the mean."""
    smooth = fills.blur(2.0).function
    references = np.asarray(
        smooth(jax.random.key(0), jnp.asarray(RNG.normal(size=(80, 14, 14, 1))), None)
    )
    test = jnp.asarray(references[:8])
    fill = fills.conditional(references[8:], patch=2, border=2)
    drawn = fill.function(jax.random.key(1), test, None)
    assert drawn.shape == test.shape
    assert float(((drawn - test) ** 2).mean()) < 0.5 * float(test.var())
    again = fill.function(jax.random.key(2), test, None)
    assert float(jnp.abs(drawn - again).max()) > 0  # it is drawn, not copied
    with pytest.raises(ValueError, match="references"):
        fills.conditional(np.zeros((2, 3, 3, 1)), patch=4)


@pytest.mark.parametrize(("method", "module"), [("telea", "cv2"), ("biharmonic", "skimage")])
def test_inpainting_continues_a_gradient(method, module):
    pytest.importorskip(module)
    ramp = np.linspace(0, 1, 12)[None, None, :, None] * np.ones((1, 12, 1, 2))
    removed = np.zeros(ramp.shape, bool)
    removed[:, 4:7, 4:7] = True
    fill = fills.inpaint(method)
    out = np.asarray(fill.function(jax.random.key(0), jnp.asarray(ramp), jnp.asarray(removed)))
    assert np.abs(out - ramp)[removed].max() < 0.12
    flip = evaluation.pixel_flipping(model, steps=2, fill=fill, patch=2)
    assert np.isfinite(flip(W, X, relevance=R, target=0).score).all()


def test_inpainting_without_its_library_says_which(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    from lrp_jax.datasets import require

    with pytest.raises(ImportError, match="opencv"):
        require("cv2", "Telea's inpainting (package opencv-python-headless)")
    with pytest.raises(ValueError, match="telea"):
        fills.inpaint("magic")


# Metrics of relevance alone.

maps = hnp.arrays(np.float64, (2, 12), elements=st.floats(-5, 5).map(lambda v: round(v, 3)))


@given(maps)
def test_sparseness_and_complexity(r):
    for row, gini, entropy in zip(
        r, evaluation.sparseness(r), evaluation.complexity(r), strict=True
    ):
        a = np.abs(row)
        if a.sum() == 0:
            assert gini == 0
            assert entropy == 0
            continue
        differences = np.abs(a[:, None] - a[None]).sum() / (2 * len(a) * a.sum())
        np.testing.assert_allclose(gini, differences, atol=1e-9)
        np.testing.assert_allclose(entropy, scipy.stats.entropy(a), atol=1e-9)


@given(maps, hnp.arrays(bool, (2, 12)))
def test_places(r, mask):
    hit = evaluation.pointing_game(r, mask)
    mass = evaluation.relevance_mass_accuracy(r, mask)
    rank = evaluation.relevance_rank_accuracy(r, mask)
    for i in range(2):
        if not mask[i].any():
            assert np.isnan([hit[i], mass[i], rank[i]]).all()
            continue
        assert hit[i] == any(mask[i, j] for j in range(12) if r[i, j] == r[i].max())
        if r[i].sum() != 0:
            np.testing.assert_allclose(mass[i], r[i][mask[i]].sum() / r[i].sum(), atol=1e-9)
        top = np.argsort(-r[i], kind="stable")[: mask[i].sum()]
        np.testing.assert_allclose(rank[i], mask[i][top].mean())


def test_channels_are_summed_under_a_mask_of_positions():
    mask = np.zeros((3, 5, 4), bool)
    mask[:, 1, 2] = True
    np.testing.assert_allclose(
        evaluation.relevance_mass_accuracy(R, mask), R[:, 1, 2].sum(-1) / R.sum((1, 2, 3))
    )
    with pytest.raises(ValueError, match="mask"):
        evaluation.pointing_game(R, mask[:, :2])


@given(maps)
def test_correlations(r):
    for ours, theirs in (
        (evaluation.pearson, scipy.stats.pearsonr),
        (evaluation.spearman, scipy.stats.spearmanr),
    ):
        value = float(ours(jnp.asarray(r[0]), jnp.asarray(r[1])))
        if np.ptp(r[0]) < 1e-9 or np.ptp(r[1]) < 1e-9:
            assert abs(value) <= 1
            continue
        np.testing.assert_allclose(value, theirs(r[0], r[1]).statistic, atol=1e-6)


# Metrics that ask the model.


def test_completeness():
    actual = evaluation.completeness(model)(W, X, relevance=R, target=LABELS)
    np.testing.assert_allclose(actual, R.sum((1, 2, 3)) - chosen(logits(X)), atol=1e-10)
    actual = evaluation.completeness(model, baseline=0.5)(W, X, relevance=R, target=LABELS)
    gap = chosen(logits(X)) - chosen(logits(np.full_like(X, 0.5)))
    np.testing.assert_allclose(actual, R.sum((1, 2, 3)) - gap, atol=1e-10)
    integrated = baselines.integrated_gradients(model, baseline=0.5)(W, X, target=LABELS)
    gap = evaluation.completeness(model, baseline=0.5)(W, X, relevance=integrated, target=LABELS)
    np.testing.assert_allclose(gap, 0, atol=1e-6)


def test_faithfulness_correlation():
    masks = RNG.random((7, *X.shape)) < 0.3
    fill = 0.25
    sums, drops = [], []
    for mask in masks:
        sums.append((R * mask).sum((1, 2, 3)))
        drops.append(chosen(logits(X)) - chosen(logits(np.where(mask, fill, X))))
    expected = [
        np.corrcoef(a, b)[0, 1] for a, b in zip(np.array(sums).T, np.array(drops).T, strict=True)
    ]
    actual = evaluation.faithfulness_correlation(model, masks=masks, fill=fill, chunk=3)(
        W, X, relevance=R, target=LABELS
    )
    np.testing.assert_allclose(actual, expected, atol=1e-9)


def test_sensitivity_n_of_a_linear_model_is_one():
    f = lambda w, x: x.reshape(len(x), -1) @ w  # noqa: E731
    r = X * W.T[LABELS].reshape(X.shape)
    actual = evaluation.sensitivity_n(f, sizes=(1, 3, 10), runs=20)(
        W, X, relevance=r, target=LABELS
    )
    assert actual.shape == (3, 3)
    np.testing.assert_allclose(actual, 1, atol=1e-6)
    other = evaluation.sensitivity_n(f, sizes=(3,), runs=50)(W, X, relevance=R, target=LABELS)
    assert np.abs(other).max() < 0.8
    with pytest.raises(ValueError, match="20 positions"):
        evaluation.sensitivity_n(f, sizes=(21,))(W, X, relevance=R)


def test_sensitivity_n_as_a_loop():
    sizes, runs = (2, 7), 9
    actual = evaluation.sensitivity_n(model, sizes=sizes, runs=runs, fill=0.5, chunk=4)(
        W, X, relevance=R, target=LABELS, key=jax.random.key(3)
    )
    for column, (size, size_key) in enumerate(
        zip(sizes, jax.random.split(jax.random.key(3), len(sizes)), strict=True)
    ):
        sums, drops = np.zeros((runs, 3)), np.zeros((runs, 3))
        for run, key in enumerate(jax.random.split(size_key, runs)):
            noise = np.asarray(jax.random.uniform(key, (3, 20)))
            for i in range(3):
                # The places of the smallest numbers, as a permutation puts them.
                gone = np.flatnonzero(np.argsort(noise[i]) < size)
                x = X[i].reshape(20, 2).copy()
                x[gone] = 0.5
                sums[run, i] = R[i].reshape(20, 2)[gone].sum()
                after = logits(x.reshape(1, 5, 4, 2))[0, LABELS[i]]
                drops[run, i] = chosen(logits(X))[i] - after
        expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(sums.T, drops.T, strict=True)]
        np.testing.assert_allclose(actual[:, column], expected, atol=1e-9)


def test_infidelity_of_noise_as_a_loop():
    key = jax.random.key(4)
    actual = evaluation.infidelity(model, noise=0.3, runs=6, chunk=4)(
        W, X, relevance=R, target=LABELS, key=key
    )
    errors = []
    for k in jax.random.split(key, 6):
        change = 0.3 * np.asarray(jax.random.normal(k, X.shape))
        drop = chosen(logits(X)) - chosen(logits(X - change))
        errors.append(((R / X * change).sum((1, 2, 3)) - drop) ** 2)
    np.testing.assert_allclose(actual, np.mean(errors, 0), rtol=1e-9)


@pytest.mark.parametrize("multiplied", [True, False])
def test_infidelity_of_removals(multiplied):
    masks = RNG.random((5, *X.shape)) < 0.4
    change = np.where(masks, X - 0.5, 0)
    slope = R / X if multiplied else R
    expected = np.mean(
        [
            ((slope * c).sum((1, 2, 3)) - (chosen(logits(X)) - chosen(logits(X - c)))) ** 2
            for c in change
        ],
        0,
    )
    actual = evaluation.infidelity(model, masks=masks, fill=0.5, multiplied=multiplied)(
        W, X, relevance=R, target=LABELS
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-9)


def test_infidelity_under_small_noise_prefers_the_gradient():
    evaluate = evaluation.infidelity(model, noise=1e-3, multiplied=False)
    good = baselines.gradient(model)(W, X, target=LABELS)
    assert float(evaluate(W, X, relevance=good, target=LABELS).max()) < 1e-9
    assert float(evaluate(W, X, relevance=R, target=LABELS).min()) > 1e-7


def test_max_sensitivity_as_a_loop():
    explain = baselines.input_x_gradient(model)
    key = jax.random.key(5)
    actual = evaluation.max_sensitivity(explain, radius=0.1, samples=4, chunk=2)(
        W, X, target=LABELS, key=key
    )
    first = np.asarray(explain(W, X, target=LABELS)).reshape(3, -1)
    worst = np.zeros(3)
    for k in jax.random.split(key, 4):
        near = X + np.asarray(jax.random.uniform(k, X.shape, minval=-0.1, maxval=0.1))
        again = np.asarray(explain(W, near, target=LABELS)).reshape(3, -1)
        worst = np.maximum(
            worst, np.linalg.norm(again - first, axis=1) / np.linalg.norm(first, axis=1)
        )
    np.testing.assert_allclose(actual, worst, rtol=1e-6)


def test_random_logit_compares_with_another_class():
    explain = baselines.gradient(model)
    actual = evaluation.random_logit(explain, 3)(W, X, target=LABELS)
    first, *others = (
        np.asarray(explain(W, X, target=(LABELS + k) % 3)).reshape(3, -1) for k in range(3)
    )
    possible = np.array(
        [[np.corrcoef(a, b)[0, 1] for a, b in zip(first, o, strict=True)] for o in others]
    )
    assert (np.abs(possible - np.asarray(actual)).min(0) < 1e-9).all()
    with pytest.raises(ValueError, match="classes=1"):
        evaluation.random_logit(explain, 1)


# Randomisation.


def deep(params, x):
    h = jnp.tanh(x.reshape(len(x), -1) @ params["in"]["w"] + params["in"]["b"])
    for name in ("zeta", "alpha"):  # the order of use is not that of names
        h = jnp.tanh(h @ params[name]["w"])
    return h @ params["out"]["w"]


DEEP = {
    "in": {"w": RNG.normal(size=(40, 8)), "b": RNG.normal(size=8)},
    "zeta": {"w": RNG.normal(size=(8, 8))},
    "alpha": {"w": RNG.normal(size=(8, 8))},
    "out": {"w": RNG.normal(size=(8, 3))},
}


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_layers_are_randomised_from_the_output_down(wrap):
    test = evaluation.parameter_randomisation(baselines.gradient(wrap(deep)))
    result = test(DEEP, X, target=LABELS)
    assert result.layers == ("out", "alpha", "zeta", "in")
    assert result.similarity.shape == (4, 3)
    assert float(jnp.abs(result.similarity[-1]).mean()) < 0.6


def test_what_does_not_ask_the_model_stays_the_same():
    test = evaluation.parameter_randomisation(
        baselines.random(deep, key=jax.random.key(0)), layers=["out/*", "in/*"]
    )
    result = test(DEEP, X, target=0)
    assert result.layers == ("out/*", "in/*")
    np.testing.assert_allclose(result.similarity, 1, atol=1e-9)


def test_cascading_or_one_at_a_time():
    zero = lambda key, p: jnp.zeros_like(p)  # noqa: E731
    explain = lambda p, x, target=None: jnp.stack(  # noqa: E731
        [jnp.full(len(x), v) for v in (p["a"], p["b"], 1.0)], -1
    )
    seen = []

    def similarity(a, b):
        jax.debug.callback(lambda b: seen.append(np.asarray(b[0])), b)
        return a.sum(-1)

    params = {"a": jnp.array(5.0), "b": jnp.array(7.0)}
    for cascading in (True, False):
        test = evaluation.parameter_randomisation(
            explain, layers=["a", "b"], cascading=cascading, randomise=zero, similarity=similarity
        )
        test(params, X)
        jax.effects_barrier()
    np.testing.assert_array_equal(seen, [[0, 7, 1], [0, 0, 1], [0, 7, 1], [5, 0, 1]])
    with pytest.raises(ValueError, match=r"nothing.*matches none"):
        evaluation.parameter_randomisation(explain, layers=["nothing"])(params, X)


# Studies.


def gamma_like(gamma, epsilon):
    def explain(params, x, target=None):
        truth = baselines.input_x_gradient(model)(params, x, target=target)
        return truth + gamma * R + epsilon * R[::-1]

    return explain


METHODS = {
    "grid": evaluation.Grid(gamma_like, gamma=[0.0, 1.0], epsilon=[0.0, 0.5, 2.0]),
    "gradient": baselines.gradient(model),
    "random": baselines.random(model, key=jax.random.key(0)),
}
FLIP = evaluation.pixel_flipping(model, steps=10)
METRICS = {
    "auc": lambda p, x, relevance, target: evaluation.area(
        FLIP(p, x, relevance=relevance, target=target)
    ),
    "gini": lambda p, x, relevance, target: evaluation.sparseness(relevance),
}


def batches():
    return [(X, LABELS), (X[::-1].copy(), LABELS[::-1].copy())]


def test_a_study_is_a_tidy_table():
    table = evaluation.study(METHODS, METRICS, batches(), params=W, progress=False)
    assert set(table.columns) == {"method", "gamma", "epsilon", "example", "metric", "value"}
    assert len(table.columns["value"]) == (6 + 2) * 6 * 2
    expected = evaluation.area(
        FLIP(W, X, relevance=gamma_like(1.0, 0.5)(W, X, LABELS), target=LABELS)
    )
    np.testing.assert_allclose(
        table.values("auc", "grid", gamma=1.0, epsilon=0.5)[:3], expected, rtol=1e-9
    )
    axes, means = table.surface("auc", "grid")
    assert list(axes) == ["gamma", "epsilon"]
    assert means.shape == (2, 3)
    np.testing.assert_allclose(
        means[1, 2], table.values("auc", "grid", gamma=1.0, epsilon=2.0).mean()
    )
    ranks = table.ranking("auc")
    means = [rank.mean for rank in ranks]
    assert len(ranks) == 8
    assert means == sorted(means)
    assert ranks[0].method == "grid"
    assert ranks[0].behind == (0, 0)
    assert all(r.interval[0] <= r.mean <= r.interval[1] for r in ranks)
    assert "grid(gamma=0" in str(ranks[0])
    assert [r.mean for r in table.ranking("auc", best="max")] == means[::-1]
    frame = table.to_pandas()
    assert frame.groupby("method")["value"].count()["grid"] == 6 * 6 * 2
    with pytest.raises(KeyError, match="'nothing'"):
        table.values("auc", "nothing")


def test_a_grid_is_one_compilation():
    traces = []

    def make(gamma):
        traces.append(1)
        return gamma_like(gamma, 0.0)

    grid = evaluation.Grid(make, gamma=np.linspace(0, 1, 7))
    evaluation.study({"g": grid}, METRICS, batches(), params=W, progress=False)
    assert len(traces) == 1
    # Nor does the grid's best point compile, on other examples.
    best = evaluation.Grid(make, gamma=[0.5])
    evaluation.study({"g": best}, METRICS, [(X + 1, LABELS)], params=W, progress=False)
    assert len(traces) == 1


def test_a_study_goes_on_where_it_stopped(tmp_path):
    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    run = lambda path: evaluation.study(  # noqa: E731
        METHODS, METRICS, batches(), params=W, path=path, progress=False
    )
    expected = run(whole)
    text = whole.read_bytes()
    part.write_bytes(text[: len(text) // 2])  # in the middle of a line, as a kill leaves it
    table = run(part)
    assert part.read_bytes() == text
    np.testing.assert_array_equal(table.columns["value"], expected.columns["value"])
    again = run(part)  # nothing is left to do
    np.testing.assert_array_equal(again.columns["value"], expected.columns["value"])
    (tmp_path / "begun.jsonl").write_bytes(text[:20])
    run(tmp_path / "begun.jsonl")
    assert (tmp_path / "begun.jsonl").read_bytes() == text
    assert not list(tmp_path.glob("*.lock"))


def small_study(path, rule=None, w=W, scale=1.0, x=X, metrics=("sum",), grid=(0.0, 1.0), weights=1):
    rule = lrp.Epsilon() if rule is None else rule
    methods = {
        "lrp": lrp.relevance(lambda w, x: model(w, weights * x), rule),
        "grid": evaluation.Grid(lambda gamma: lambda p, x, target=None: gamma * x, gamma=grid),
    }
    measure = lambda p, x, relevance, target: scale * relevance.sum((1, 2, 3))  # noqa: E731
    return evaluation.study(
        methods, dict.fromkeys(metrics, measure), [(x, LABELS)], params=w, path=path, progress=False
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rule": lrp.Gamma(0.5)}, r"what method 'lrp' computes \(its function or composite\)"),
        ({"rule": lrp.Epsilon(1e-5)}, "what method 'lrp' computes"),
        ({"weights": 2.0}, "what method 'lrp' computes"),
        ({"w": jax.tree.map(lambda a: a + 1e-3, W)}, "the parameters"),
        ({"scale": 2.0}, "what metric 'sum' computes"),
        ({"x": X + 1}, "the data"),
        ({"metrics": ("sum", "more")}, "the metrics"),
        ({"grid": (0.0, 2.0)}, "the methods or their grids"),
    ],
    ids=["composite", "rule", "function", "parameters", "metric", "data", "metrics", "grid"],
)
def test_another_study_is_not_continued(tmp_path, change, words):
    path = tmp_path / "study.jsonl"
    small_study(path)
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(ValueError, match=f"holds another study, which differs in {words}.*remove"):
        small_study(path, **change)
    small_study(path)
    assert path.read_bytes().count(b"\n") == 4


def test_what_is_no_study_is_not_overwritten(tmp_path):
    path = tmp_path / "study.jsonl"
    for text in ("notes", "notes\n", "[1]\n", "3\n{}\n"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"study\.jsonl is not the file of a study"):
            small_study(path)
        assert path.read_text() == text


def test_a_study_tries_its_path_first_and_alone(tmp_path):
    called = []

    def explain(p, x, target=None):
        called.append(1)
        return x

    def run(path, metric=lambda p, x, relevance, target: relevance.sum((1, 2, 3))):
        methods = {"input": explain}
        evaluation.study(methods, {"m": metric}, [(X, LABELS)], path=path, params=W, progress=False)

    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "s.jsonl"):
        with pytest.raises(OSError, match=str(path)):
            run(path)
    assert not called

    def metric(p, x, relevance, target):
        if not isinstance(x, jax.core.Tracer):
            with pytest.raises(RuntimeError, match=f"process {os.getpid()} .* is writing"):
                run(tmp_path / "s.jsonl")
        return relevance.sum((1, 2, 3))

    run(tmp_path / "s.jsonl", metric)


def test_a_killed_study_ends_with_the_same_file(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent("""
        import sys, time
        import jax.numpy as jnp, numpy as np
        from lrp_jax import evaluation

        def slow(p, x, relevance, target):
            time.sleep(float(sys.argv[2]))
            return relevance.sum(-1)

        grid = evaluation.Grid(lambda a: lambda p, x, target=None: a * x, a=list(range(12)))
        batches = [(np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros(2, int))]
        evaluation.study({"g": grid}, {"s": slow}, batches, path=sys.argv[1], progress=False)
        """)
    )
    root = str(Path(__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": root, "JAX_PLATFORMS": "cpu"}
    killed, clean = tmp_path / "killed.jsonl", tmp_path / "clean.jsonl"
    process = subprocess.Popen([sys.executable, str(script), str(killed), "0.2"], env=env)
    while not killed.exists() or killed.read_bytes().count(b"\n") < 4:
        time.sleep(0.02)
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 4 <= killed.read_bytes().count(b"\n") < 13
    for path in (killed, clean):
        subprocess.run([sys.executable, str(script), str(path), "0"], env=env, check=True)
    assert killed.read_bytes() == clean.read_bytes()
    assert len([json.loads(line) for line in killed.read_text().splitlines()]) == 13


def test_mistakes_in_studies_are_named():
    with pytest.raises(ValueError, match="parameters"):
        evaluation.Grid(gamma_like)
    with pytest.raises(ValueError, match="methods"):
        evaluation.study({}, METRICS, batches())
    with pytest.raises(ValueError, match="one number for each"):
        evaluation.study(
            {"g": METHODS["gradient"]},
            {"bad": lambda p, x, relevance, target: relevance},
            batches(),
            params=W,
            progress=False,
        )


def test_classes_of_helpers_are_checked():
    for evaluate in (FLIP, evaluation.completeness(model)):
        with pytest.raises(ValueError, match="contrast: target 3 is out of range"):
            evaluate(W, X, relevance=R, target=targets.contrast(0, 3))
    with pytest.raises(ValueError, match="softmax: target 3 is out of range"):
        baselines.gradient(model)(W, X, target=targets.softmax(3))


# Planted truth: the whole chain.


def test_planted_pixels_are_found_and_noise_is_not():
    known = np.array([5, 17, 30])
    x = np.abs(RNG.normal(size=(24, 36))) + 1

    def f(_, x):
        evidence = x[:, 5] * x[:, 17] + x[:, 30]
        return jnp.stack([evidence, jnp.zeros_like(evidence)], -1)

    mask = np.zeros((24, 36), bool)
    mask[:, known] = True
    flip = evaluation.pixel_flipping(f, steps=36)
    lerf = evaluation.pixel_flipping(f, steps=36, order="lerf")
    scores, falls = {}, {}
    for name, explain in {
        "gradient": baselines.input_x_gradient(f),
        "integrated": baselines.integrated_gradients(f),
        "occlusion": baselines.occlusion(f, window=1),
        "random": baselines.random(f, key=jax.random.key(0)),
    }.items():
        r = explain(None, x, target=0)
        down, up = (run(None, x, relevance=r, target=0) for run in (flip, lerf))
        falls[name] = np.asarray(evaluation.area(down))
        scores[name] = (
            float(evaluation.pointing_game(r, mask).mean()),
            float(evaluation.relevance_mass_accuracy(np.abs(r), mask).mean()),
            float(evaluation.relevance_rank_accuracy(r, mask).mean()),
            float(evaluation.area_between(up, down).mean() / f(None, x)[:, 0].mean()),
        )
    for name, (hit, mass, rank, between) in scores.items():
        if name == "random":
            assert hit < 0.5
            assert mass < 0.2
            assert rank < 0.4
            assert abs(between) < 0.2
        else:
            assert (hit, rank) == (1, 1), name
            assert min(mass / 0.999, between / 0.85) > 1, name
            # More than chance: an interval of pairs of the same input.
            assert evaluation.interval(falls["random"] - falls[name])[0] > 0, name


def trained_on_a_watermark():
    """A small network that learned to tell the classes by a mark in a corner, and test images."""
    rng = np.random.default_rng(0)

    def images(count):
        x, labels = rng.normal(size=(count, 8, 8, 1)), rng.integers(0, 2, count)
        x[labels == 1, :2, :2] += 3
        return x, labels

    def net(params, x):
        return jax.nn.relu(x.reshape(len(x), -1) @ params["in"]) @ params["out"]

    x, labels = images(400)
    params = {"in": 0.1 * rng.normal(size=(64, 16)), "out": 0.1 * rng.normal(size=(16, 2))}

    def loss(params):
        score = jax.nn.log_softmax(net(params, x))
        decay = sum((p**2).sum() for p in params.values())
        return 0.01 * decay - jnp.take_along_axis(score, labels[:, None], -1).mean()

    @jax.jit
    def train(params):
        def step(_, params):
            return jax.tree.map(lambda p, g: p - 0.5 * g, params, jax.grad(loss)(params))

        return jax.lax.fori_loop(0, 300, step, params)

    params = train(params)
    x, labels = images(200)
    assert (np.asarray(net(params, x)).argmax(-1) == labels).mean() > 0.9
    return net, params, x[labels == 1]


def test_a_watermark_is_found_and_by_more_than_chance():
    net, params, x = trained_on_a_watermark()
    mask = np.zeros(x.shape[:3], bool)
    mask[:, :2, :2] = True
    share = 4 / 64  # what an explanation that knows nothing puts there
    contrast = targets.contrast(1)
    methods = {
        "LRP": lrp.relevance(net, lrp.Epsilon(0.1)),
        "z+": lrp.relevance(net, lrp.EpsilonPlus()),
        "gradient": baselines.input_x_gradient(net),
        "integrated": baselines.integrated_gradients(net),
        "random": baselines.random(net, key=jax.random.key(0)),
    }
    flip = evaluation.pixel_flipping(net, patch=2, steps=8)
    mass, area = {}, {}
    for name, explain in methods.items():
        r = explain(params, x, target=contrast)
        positive = jnp.maximum(r, 0)
        mass[name] = np.asarray(evaluation.relevance_mass_accuracy(positive, mask))
        area[name] = np.asarray(evaluation.area(flip(params, x, relevance=r, target=1)))
    low, high = evaluation.interval(mass["random"])
    assert low < share < high
    for name in set(methods) - {"random"}:
        assert evaluation.interval(mass[name])[0] > 5 * share, name
        # Pairs of the same image: the lower end of what is gained against chance.
        assert evaluation.interval(area["random"] - area[name])[0] > 0.5, name
