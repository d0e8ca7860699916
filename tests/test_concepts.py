"""Concepts: relevance through units of hidden layers, their scores, references and graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from zoo import ZOO

import lrp_jax as lrp
from lrp_jax import plot
from lrp_jax.questions import (
    References,
    Subspaces,
    concept_graph,
    receptive_window,
    reference_relevance,
    reference_samples,
)

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
EXACT = lrp.AttnLRP()  # LRP-0 in layers and sums alike


@pytest.fixture(scope="module", autouse=True)
def _compile_quickly() -> Iterator[None]:
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def weights(*shapes: tuple[int, int], seed: int = 0) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=s)) for name, s in zip("abcd", shapes, strict=False)}


# Hand-computed cases: without biases and with LRP-0, relevance is a sum over paths ----------------


def chain(w: Any, x: Any) -> Any:
    return x @ w["a"] @ w["b"] @ w["c"]


CHAIN = weights((3, 4), (4, 3), (3, 1))
CHAIN_X = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3)))


def test_masks_one_after_the_other_are_sums_over_paths() -> None:
    found = lrp.concept_relevance(chain, lrp.Zero(), {"a": [0, [1, 3]], "b": [2, [0, 1]]})(
        CHAIN, CHAIN_X
    )
    a_masks = np.array([[1, 0, 0, 0], [0, 1, 0, 1]])
    b_masks = np.array([[0, 0, 1], [1, 1, 0]])
    expected = np.einsum(
        "ni,ij,cj,jk,ck,kl->cni", CHAIN_X, CHAIN["a"], a_masks, CHAIN["b"], b_masks, CHAIN["c"]
    )
    assert_allclose(found, expected, **CLOSE)


def test_one_condition_meets_many() -> None:
    explain = lrp.concept_relevance(chain, lrp.Zero(), {"b": [1], "a": [0, 1, 2, 3]})
    through_b = lrp.concept_relevance(chain, lrp.Zero(), "b", [1])(CHAIN, CHAIN_X)
    assert_allclose(explain(CHAIN, CHAIN_X).sum(0), through_b[0], **CLOSE)
    with pytest.raises(ValueError, match=r"one number of concepts.*\[3, 2\]"):
        lrp.concept_relevance(chain, lrp.Zero(), {"b": [0, 1, 2], "a": [0, 1]})(CHAIN, CHAIN_X)


def branches(w: Any, x: Any) -> Any:
    """Two layers side by side, the first one again below a third."""
    hidden = x @ w["a"]
    return (hidden @ w["b"] + x @ w["c"]) @ w["d"]


BRANCHES = weights((3, 4), (4, 2), (3, 2), (2, 1), seed=2)
BY_A = np.einsum("ni,ij,jk,kl->nji", CHAIN_X, *(BRANCHES[n] for n in "abd"))
BY_C = np.einsum("ni,ik,kl->nki", CHAIN_X, BRANCHES["c"], BRANCHES["d"])
BY_A_AND_B = np.einsum("ni,ij,jk,kl->njki", CHAIN_X, *(BRANCHES[n] for n in "abd"))


def test_branches_around_a_layer_are_left_out_or_kept() -> None:
    explain = lrp.concept_relevance(branches, EXACT, "a", [1, [0, 2]])
    assert_allclose(explain(BRANCHES, CHAIN_X), [BY_A[:, 1], BY_A[:, 0] + BY_A[:, 2]], **CLOSE)
    beside = lrp.concept_relevance(branches, EXACT, "a", [1, []], parallel=True)
    around = BY_C.sum(1)
    assert_allclose(beside(BRANCHES, CHAIN_X), [BY_A[:, 1] + around, around], **CLOSE)


def test_masks_on_layers_side_by_side_act_in_one_pass() -> None:
    conditions = {"a": [2], "c": [0]}
    found = lrp.concept_relevance(branches, EXACT, conditions, parallel=True)
    assert_allclose(found(BRANCHES, CHAIN_X)[0], BY_A[:, 2] + BY_C[:, 0], **CLOSE)
    with pytest.raises(ValueError, match="side by side"):
        lrp.concept_relevance(branches, EXACT, conditions)(BRANCHES, CHAIN_X)


def test_masks_one_after_the_other_with_a_branch_around_both() -> None:
    conditions = {"a": [2, 3], "b": [1, 0]}
    found = lrp.concept_relevance(branches, EXACT, conditions, parallel=True)
    expected = np.add([BY_A_AND_B[:, 2, 1], BY_A_AND_B[:, 3, 0]], BY_C.sum(1))
    assert_allclose(found(BRANCHES, CHAIN_X), expected, **CLOSE)


def loop(w: Any, x: Any) -> Any:
    """h <- h + h A, twice; then one output."""
    return jax.lax.scan(lambda h, _: (h + h @ w["a"], None), x, length=2)[0] @ w["b"]


LOOP = weights((3, 3), (3, 1), seed=3)


def test_paths_that_meet_a_layer_twice_count_once() -> None:
    a, b, x = (np.asarray(v) for v in (LOOP["a"], LOOP["b"], CHAIN_X))
    # Paths from the output: through unit u in the last turn (and then anything), or around it and
    # through u in the first.
    last = np.einsum("ni,ij,ju,ul->nui", x, np.eye(3) + a, a, b)
    first = np.einsum("ni,iu,ul->nui", x, a, b)
    units = lrp.concept_relevance(loop, EXACT, "a", [0, 1, 2])(LOOP, CHAIN_X)
    assert_allclose(units, np.moveaxis(last + first, 1, 0), **CLOSE)
    # A mask may name the turn: then all that reaches it counts.
    masks = np.zeros((2, 2, 1, 3))
    masks[0, 0, 0, 1] = masks[1, 1, 0, 1] = 1
    turns = lrp.concept_relevance(loop, EXACT, "a", masks)(LOOP, CHAIN_X)
    both = np.einsum("ni,iu,um,ml->nui", x, a, np.eye(3) + a, b)
    assert_allclose(turns, [both[:, 1], last[:, 1]], **CLOSE)
    # Around the layer in both turns there is the identity alone.
    beside = lrp.concept_relevance(loop, EXACT, "a", [[]], parallel=True)(LOOP, CHAIN_X)
    assert_allclose(beside[0], x * b[:, 0], **CLOSE)


# Sums over all concepts ---------------------------------------------------------------------------

PLACES = [
    ("cnn_average_pool", "Conv_0", None, "all"),
    ("cnn_average_pool", "Conv_0", 1, "all"),
    ("resnet", "Conv_1", None, "some"),
    ("llama_plain", "MatMul:1", 1, "some"),  # heads
    ("llama_plain", "layer_1/mlp_norm", 1, "some"),  # tokens
    ("llama_scan", "layers/mlp/down", None, "some"),
    ("lstm_linen", "OptimizedLSTMCell_0/Product:2", None, "all"),
]


@pytest.mark.parametrize(("name", "layer", "axis", "passes"), PLACES)
def test_concepts_add_up(name: str, layer: str, axis: int | None, passes: str) -> None:
    """All units together, and what passes the layer by, are the whole relevance."""
    apply, params, x = ZOO[name].build()
    composite = lrp.AttnLRP() if "llama" in name else lrp.EpsilonPlus()
    hidden = lrp.layer_relevances(apply, composite, lambda found: found.path == layer)
    (output,) = jax.tree.leaves(jax.eval_shape(hidden, params, x))
    default = output.ndim - 1
    units = range(output.shape[default if axis is None else axis])

    @jax.jit
    def everything(params: Any, x: Any) -> Any:
        option = {"axis": axis}
        through = lrp.concept_relevance(apply, composite, layer, units, **option)(params, x)
        beside = lrp.concept_relevance(
            apply, composite, layer, [[], list(units)], parallel=True, **option
        )(params, x)
        return lrp.relevance(apply, composite)(params, x), through, beside

    whole, through, (around, again) = everything(params, x)
    assert through.shape == (len(units), *x.shape)
    assert_allclose(through.sum(0) + around, whole, **CLOSE)
    assert_allclose(again, whole, **CLOSE)
    assert np.abs(through).max() > 1e-3
    if passes == "all":
        assert_allclose(around, 0, atol=1e-9)
    else:
        assert np.abs(around).max() > 1e-3


# Ways to name concepts ----------------------------------------------------------------------------


def test_subspaces() -> None:
    rng = np.random.default_rng(4)
    units = Subspaces(np.eye(4)[:, :, None])
    by_unit = lrp.concept_relevance(chain, lrp.Zero(), "a", range(4))(CHAIN, CHAIN_X)
    explain = lrp.concept_relevance(chain, lrp.Zero(), "a", units)
    assert_allclose(explain(CHAIN, CHAIN_X), by_unit, **CLOSE)
    # Any basis of a subspace and of its complement: no rest; and as a layer of its own.
    basis = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    bases = np.stack([basis[:, :2] @ rng.normal(size=(2, 2)), basis[:, 2:]])
    found = lrp.concept_relevance(chain, lrp.Zero(), "a", Subspaces(bases))(CHAIN, CHAIN_X)
    c = np.einsum("jk,kl->j", CHAIN["b"], CHAIN["c"])
    projected = [basis[:, half] @ basis[:, half].T @ c for half in (slice(2), slice(2, 4))]
    expected = np.einsum("ni,ij,cj->cni", CHAIN_X, CHAIN["a"], projected)
    assert_allclose(found, expected, **CLOSE)
    with pytest.raises(ValueError, match=r"\(concepts, units, rank\) and the layer has 4 units"):
        lrp.concept_relevance(chain, lrp.Zero(), "a", Subspaces(np.eye(4)))(CHAIN, CHAIN_X)


def test_subspaces_are_the_same_where_relevance_itself_travels() -> None:
    bases = Subspaces(np.random.default_rng(5).normal(size=(2, 4, 2)))
    by_weight = lrp.concept_relevance(chain, lrp.Zero(), "b", [0])(CHAIN, CHAIN_X)
    rules = [("c", lrp.Flat()), ("*", lrp.Zero())]  # Flat makes relevance, which travels as it is
    plain = lrp.concept_relevance(chain, lrp.Composite(rules), "b", [0])
    assert plain(CHAIN, CHAIN_X).shape == by_weight.shape
    found = lrp.concept_relevance(chain, lrp.Composite(rules), "a", bases)(CHAIN, CHAIN_X)
    hidden = CHAIN_X @ CHAIN["a"]
    flat = (hidden @ CHAIN["b"] @ CHAIN["c"]) / 3  # to each unit of b
    c = np.einsum("nl,jk,nk->nj", flat, CHAIN["b"], 1 / (hidden @ CHAIN["b"]))
    projections = [b @ np.linalg.pinv(b) for b in bases.bases]
    expected = [CHAIN_X * ((c @ p) @ CHAIN["a"].T) for p in projections]
    assert_allclose(found, expected, rtol=1e-4, atol=1e-5)  # Flat's stabiliser


def tiny(w: Any, x: Any) -> Any:
    form = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(x, w["conv"], (1, 1), "VALID", dimension_numbers=form)
    return jax.nn.relu(x).reshape(len(x), -1) @ w["dense"]


RNG = np.random.default_rng(9)
TINY = {"conv": RNG.normal(size=(2, 2, 1, 4)), "dense": RNG.normal(size=(64, 3))}
IMAGES = RNG.normal(size=(3, 5, 5, 1))


def test_masks() -> None:
    x, shape = IMAGES, (3, 4, 4, 4)

    def explain(concepts: Any, **options: Any) -> Any:
        return lrp.concept_relevance(tiny, lrp.Epsilon(), "conv", concepts, **options)(TINY, x)

    by_unit = explain([0, 1, 2, 3])
    assert_allclose(explain(np.eye(4, dtype=bool)), by_unit, **CLOSE)
    assert_allclose(explain(np.arange(4)), by_unit, **CLOSE)
    pairs = by_unit.reshape(2, 2, *x.shape).sum(1)
    assert_allclose(explain(jnp.array([[0, 1], [2, 3]])), pairs, **CLOSE)
    # Another unit for each example.
    own = np.eye(4)[[2, 0, 3]].reshape(1, 3, 1, 1, 4)
    assert_allclose(explain(own)[0], by_unit[[2, 0, 3], [0, 1, 2]], **CLOSE)
    halves = np.zeros((2, *shape))
    halves[0, :, :2], halves[1, :, 2:] = 1, 1
    assert_allclose(explain(halves).sum(0), by_unit.sum(0), **CLOSE)
    for wrong, message in (
        ([4], r"concept \[4\] is out of range: the layer has 4 units"),
        ([-1], "out of range"),
        (np.ones((1, 5)), r"masks of shape \(1, 5\).*does not broadcast.*\(3, 4, 4, 4\)"),
        ([], "none to ask for"),
    ):
        with pytest.raises(ValueError, match=message):
            explain(wrong)
    with pytest.raises(ValueError, match="axis=4 is out of range"):
        explain([0], axis=4)


@pytest.mark.parametrize("parallel", [False, True])
def test_chunks_jit_and_vmap(parallel: bool) -> None:
    def explain(x: Any, chunk: int | None = None) -> Any:
        options = {"parallel": parallel, "chunk": chunk}
        return lrp.concept_relevance(branches, EXACT, "a", range(4), **options)(BRANCHES, x)

    expected = explain(CHAIN_X)
    assert_allclose(jax.jit(lambda x: explain(x, chunk=3))(CHAIN_X), expected, **CLOSE)
    batched = jax.vmap(lambda x: explain(x[None])[:, 0], out_axes=1)(CHAIN_X)
    assert_allclose(batched, expected, **CLOSE)


def test_a_unit_may_be_traced() -> None:
    def through(unit: Any) -> Any:
        return lrp.concept_relevance(chain, lrp.Zero(), "a", unit[None])(CHAIN, CHAIN_X)

    units = jnp.array([3, 1])
    expected = lrp.concept_relevance(chain, lrp.Zero(), "a", [3, 1])(CHAIN, CHAIN_X)
    assert_allclose(jax.vmap(through)(units)[:, 0], expected, **CLOSE)


def test_many_concepts_share_one_forward_pass() -> None:
    apply, params, x = ZOO["cnn_max_pool"].build()

    def cost(function: Any) -> float:
        return jax.jit(function).lower(params, x).compile().cost_analysis()["flops"]

    def through(count: int) -> Any:
        masks = np.random.default_rng(0).random((count, 4))
        return lrp.concept_relevance(apply, lrp.Epsilon(), "Conv_0", masks)

    whole = cost(lrp.relevance(apply, lrp.Epsilon(), has_aux=False))
    each = (cost(through(65)) - cost(through(1))) / 64
    assert 0 < each < 0.6 * whole


def test_what_cannot_be_asked() -> None:
    def explain(*asked: Any, composite: Any = EXACT, **options: Any) -> Any:
        return lrp.concept_relevance(chain, composite, *asked, **options)(CHAIN, CHAIN_X)

    with pytest.raises(ValueError, match=r"'\[ab\]' matches 2 layers \(a, b\); name one"):
        explain("[ab]", [0])
    with pytest.raises(ValueError, match="no layer matches 'nothing'"):
        explain("nothing", [0])
    with pytest.raises(ValueError, match="needs a layer and the concepts"):
        explain("a")
    with pytest.raises(TypeError, match=r"concepts=0: it has an entry for each result, as \[0\]"):
        explain("a", 0)
    with pytest.raises(ValueError, match="chunk=0"):
        explain("a", [0], chunk=0)
    with pytest.raises(ValueError, match="a is named twice"):
        explain({"a": [0], "*a": [1]})
    with pytest.raises(ValueError, match="modified gradients are not linear"):
        explain("a", [0], parallel=True, composite=lrp.composites.guided_backprop())


# Scores and the graph -----------------------------------------------------------------------------


def test_scores() -> None:
    def scores(**options: Any) -> Any:
        return lrp.concept_scores(tiny, lrp.Epsilon(), "conv", **options)(TINY, IMAGES)

    found = lrp.layer_relevances(tiny, lrp.Epsilon(), "conv")(TINY, IMAGES)["conv"]
    assert_allclose(scores(normalize=False), found.sum((1, 2)), **CLOSE)
    assert_allclose(scores(normalize=False, pool="max"), found.max((1, 2)), **CLOSE)
    assert_allclose(np.abs(scores()).sum(1), 1, **CLOSE)
    assert_allclose(scores(axis=1, normalize=False), found.sum((2, 3)), **CLOSE)
    form = ("NHWC", "HWIO", "NHWC")
    values = jax.lax.conv_general_dilated(
        IMAGES, TINY["conv"], (1, 1), "VALID", dimension_numbers=form
    )
    assert_allclose(scores(by="activation", pool="max"), values.max((1, 2)), **CLOSE)
    assert_allclose(scores(by="activation", axis=2), values.sum((1, 3)), **CLOSE)
    with pytest.raises(ValueError, match="by='size'"):
        scores(by="size")


def test_scores_in_a_loop_have_its_turns_in_front() -> None:
    found = lrp.layer_relevances(loop, EXACT, "a")(LOOP, CHAIN_X)["a"]
    scores = lrp.concept_scores(loop, EXACT, "a", normalize=False)(LOOP, CHAIN_X)
    assert scores.shape == (2, 2, 3)
    assert_allclose(scores, found, **CLOSE)


def test_the_graph_of_a_chain_is_a_sum_over_paths(tmp_path: Any) -> None:
    graph = jax.jit(concept_graph(chain, lrp.Zero(), ["a", "b", "c"], chunk=2))(CHAIN, CHAIN_X)
    assert graph.layers == ("c", "b", "a")
    paths = np.einsum("ni,ij,jk,kl->nlkj", CHAIN_X, CHAIN["a"], CHAIN["b"], CHAIN["c"])
    assert_allclose(graph.edges[0], paths.sum(3), **CLOSE)
    assert_allclose(graph.edges[1], paths.sum(1), **CLOSE)
    for score, axes in zip(graph.scores, ((2, 3), (1, 3), (1, 2)), strict=True):
        assert_allclose(score, paths.sum(axes), **CLOSE)
    strongest = graph.strongest(example=1, k=2)
    assert_array_equal(strongest[2], np.argsort(-np.abs(paths[1].sum((0, 1))))[:2])
    ax = plot.concept_graph(graph, example=1, k=2)
    assert len(ax.lines) == 2 + 4
    assert [t.get_text() for t in ax.texts] == [str(u) for row in strongest for u in row]
    ax.figure.savefig(tmp_path / "graph.png")


def test_the_graph_ties_in_with_convolutions() -> None:
    apply, params, x = ZOO["cnn_max_pool"].build()
    asked = concept_graph(apply, lrp.EpsilonPlus(), ["Conv_0", "Conv_1"])
    graph = asked(params, x)
    assert graph.edges[0].shape == (3, 4, 4)
    # A chain: all that the lower layer gets comes from the upper one.
    assert_allclose(graph.edges[0].sum(1), graph.scores[1], **CLOSE)


def test_graphs_that_are_none() -> None:
    with pytest.raises(ValueError, match="at least two layers"):
        concept_graph(chain, lrp.Zero(), ["a"])
    with pytest.raises(ValueError, match="side by side"):
        concept_graph(branches, lrp.Zero(), ["a", "c"])(BRANCHES, CHAIN_X)
    with pytest.raises(ValueError, match="in a loop"):
        concept_graph(loop, lrp.Zero(), ["a", "b"])(LOOP, CHAIN_X)


# Reference samples --------------------------------------------------------------------------------

DATA = np.random.default_rng(6).normal(size=(23, 3))
LABELS = np.random.default_rng(7).integers(0, 3, 23)


def classes(w: Any, x: Any) -> Any:
    return jax.nn.relu(x @ w["a"]) @ w["b"]


def batched(*arrays: np.ndarray, size: int = 5) -> list[Any]:
    cut = [tuple(a[i : i + size] for a in arrays) for i in range(0, len(arrays[0]), size)]
    return cut if len(arrays) > 1 else [batch for (batch,) in cut]


@pytest.mark.parametrize("by", ["relevance", "activation"])
def test_references_are_the_best_of_all(by: Any) -> None:
    w = weights((3, 4), (4, 3), seed=8)
    find = reference_samples(classes, lrp.Epsilon(), "a", k=6, by=by)
    found = find(w, batched(DATA, LABELS), progress=False)
    scores = lrp.concept_scores(classes, lrp.Epsilon(), "a", by=by)(w, DATA, target=LABELS)
    order = np.argsort(-np.asarray(scores), 0, kind="stable")[:6].T
    assert_array_equal(found.indices, order)
    assert_allclose(found.scores, np.take_along_axis(np.asarray(scores).T, order, 1), **CLOSE)


def test_a_short_batch_compiles_nothing_and_few_examples_are_all_kept(capfd: Any) -> None:
    traces = []

    def counted(w: Any, x: Any) -> Any:
        traces.append(x.shape)
        return classes(w, x)

    w = weights((3, 4), (4, 3), seed=8)
    found = reference_samples(counted, lrp.Epsilon(), "a", k=100)(w, batched(DATA))
    assert "5/5" in capfd.readouterr().err  # the progress bar
    assert set(traces) == {(5, 3)}
    assert_array_equal(np.sort(found.indices), [np.arange(23)] * 4)


def test_a_killed_search_goes_on(tmp_path: Any) -> None:
    w = weights((3, 4), (4, 3), seed=8)
    path = tmp_path / "best.npz"
    seen: list[int] = []

    def watched(stop: int | None) -> Iterator[Any]:
        for i, batch in enumerate(batched(DATA)):
            if i == stop:
                raise KeyboardInterrupt
            seen.append(i)
            yield batch

    def search(batches: Any, k: int = 3, **options: Any) -> References:
        find = reference_samples(classes, lrp.Epsilon(), "a", k=k, **options)
        return find(w, batches, path=path, progress=False)

    with pytest.raises(KeyboardInterrupt):
        search(watched(3))
    with np.load(path) as state:
        assert len(state["batches"]) == 2  # the third was under way
    whole = reference_samples(classes, lrp.Epsilon(), "a", k=3)(w, batched(DATA), progress=False)
    for _ in range(2):  # the second time from the file alone
        found = search(watched(None))
        assert_array_equal(found.indices, whole.indices)
        assert_allclose(found.scores, whole.scores, **CLOSE)
    with pytest.raises(ValueError, match="batch 1 is not the one"):
        search(batched(np.concatenate([DATA[:5], DATA[::-1]])))
    with pytest.raises(ValueError, match="answers another question"):
        search(batched(DATA), k=4)
    with pytest.raises(ValueError, match="answers another question"):
        search(batched(DATA), by="activation")
    with pytest.raises(ValueError, match="more batches than this run"):
        search(batched(DATA)[:2])


def test_bad_searches() -> None:
    w = weights((3, 4), (4, 3), seed=8)
    with pytest.raises(ValueError, match="k=0"):
        reference_samples(classes, lrp.Epsilon(), "a", k=0)
    find = reference_samples(classes, lrp.Epsilon(), "a")
    with pytest.raises(ValueError, match="no batches"):
        find(w, [], progress=False)
    with pytest.raises(ValueError, match="batch 1 are not finite"):
        find(w, [DATA[:2], np.full((2, 3), np.nan)], progress=False)


def test_references_in_a_loop_are_of_each_turn() -> None:
    found = reference_samples(loop, EXACT, "a", k=1)(LOOP, [CHAIN_X], progress=False)
    scores = lrp.concept_scores(loop, EXACT, "a")(LOOP, CHAIN_X)
    assert_array_equal(found.indices[..., 0], scores.argmax(1))


def test_each_example_through_its_own_unit(tmp_path: Any) -> None:
    params, x = TINY, IMAGES
    units, targets = jnp.array([2, 0, 3]), jnp.array([1, 1, 0])
    explain = reference_relevance(tiny, lrp.Epsilon(), "conv")
    every = lrp.concept_relevance(tiny, lrp.Epsilon(), "conv", range(4))
    expected = every(params, x, target=targets)[units, jnp.arange(3)]
    assert_allclose(explain(params, x, units, targets), expected, **CLOSE)
    one = every(params, x, target=2)[units, jnp.arange(3)]
    assert_allclose(explain(params, x, units, 2), one, **CLOSE)
    relevance = explain(params, x, units)
    figure = plot.gallery({"2": x[:2], "0": x[:1]}, {"2": relevance[:2], "0": relevance[:1]})
    assert [len(ax.images) for ax in figure.axes] == [1, 1, 1, 0]
    figure.savefig(tmp_path / "gallery.png")
    assert len(plot.gallery({"2": x}).axes) == 3
    with pytest.raises(ValueError, match="same names"):
        plot.gallery({"2": x}, {"3": x})


@settings(max_examples=60)
@given(
    st.integers(1, 7), st.integers(1, 9), st.floats(0.05, 1.0), st.integers(0, 10**6), st.booleans()
)
def test_windows_are_the_smallest(
    height: int, width: int, fraction: float, seed: int, sparse: bool
) -> None:
    rng = np.random.default_rng(seed)
    chosen = rng.random((height, width)) < (0.2 if sparse else 1)
    relevance = rng.normal(size=(height, width)) * chosen
    size = np.abs(relevance)
    wanted = fraction * size.sum()
    rows, columns = receptive_window(relevance, fraction)
    assert size[rows, columns].sum() >= wanted * (1 - 1e-6)
    side = max(rows.stop - rows.start, columns.stop - columns.start)
    smaller = [
        size[i : i + side - 1, j : j + side - 1].sum() for i in range(height) for j in range(width)
    ]
    assert side == 1 or max(smaller) < wanted * (1 + 1e-6) or not size.any()


def test_windows_of_bad_input() -> None:
    with pytest.raises(ValueError, match="fraction from 0 to 1"):
        receptive_window(np.ones((2, 2)), 0.0)
    with pytest.raises(ValueError, match="not finite"):
        receptive_window(np.full((2, 2), np.nan))
    assert receptive_window(np.zeros((2, 3))) == (slice(0, 1), slice(0, 1))
