"""What `target=` means, against NumPy written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

import lrp_jax as lrp
from lrp_jax import baselines, evaluation, targets

RNG = np.random.default_rng(0)
Y = np.array([[1.0, 4.0, -2.0], [3.0, 0.5, 2.0]], np.float32)


def one_hot(classes, shape):
    out = np.zeros(shape, np.float32)
    for place, c in np.ndenumerate(np.broadcast_to(classes, shape[:-1])):
        out[(*place, int(c))] = 1
    return out


@settings(deadline=None, max_examples=40)
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4),
        elements=st.floats(-10, 10, width=32, allow_subnormal=False),
    ),
    st.data(),
)
def test_every_form_equals_its_one_hot(y, data):
    classes = np.array(
        data.draw(hnp.arrays(np.int32, y.shape[:-1], elements=st.integers(0, y.shape[-1] - 1)))
    )
    np.testing.assert_array_equal(targets.weighting(y, None), one_hot(y.argmax(-1), y.shape))
    np.testing.assert_array_equal(targets.weighting(y, classes), one_hot(classes, y.shape))
    last = y.shape[-1] - 1
    np.testing.assert_array_equal(targets.weighting(y, last), one_hot(last, y.shape))
    np.testing.assert_array_equal(targets.start(y, classes), one_hot(classes, y.shape) * y)


def test_float_arrays_weight_and_keep_the_dtype():
    weights = np.array([[0.5, 0, 0], [0, 0, 2]], np.float64)
    result = targets.weighting(jnp.asarray(Y, jnp.bfloat16), weights)
    assert result.dtype == jnp.bfloat16
    np.testing.assert_allclose(targets.start(Y, weights), weights * Y)


def test_callables_return_relevance_themselves():
    assert targets.weighting(Y, lambda y: y) is None
    np.testing.assert_array_equal(targets.start(Y, lambda y: 2 * y), 2 * Y)


def test_single_numbers_and_lists():
    np.testing.assert_array_equal(targets.weighting(jnp.float32(3), None), 1.0)
    np.testing.assert_array_equal(targets.weighting(Y, [2, 0]), one_hot([2, 0], Y.shape))
    np.testing.assert_array_equal(targets.weighting(Y, np.int64(1)), one_hot(1, Y.shape))


@pytest.mark.parametrize(
    ("output", "target", "error", "words"),
    [
        (Y, 3, ValueError, "3 is out of range.*0 to 2"),
        (Y, -1, ValueError, "-1 is out of range"),
        (Y, [0, 5], ValueError, "5 is out of range"),
        (Y, np.zeros(3, int), ValueError, r"\(2,\).*\(2, 3\).*got \(3,\)"),
        (Y, np.zeros((2, 3), int), ValueError, "one-hot weighting must be floating"),
        (Y, np.zeros(2), ValueError, r"\(2, 3\), got \(2,\)"),
        (Y, 1.5, ValueError, "pass integers to name classes"),
        (Y, True, TypeError, "bool"),
        (Y, np.zeros((2, 3), bool), TypeError, "bool"),
        (Y, np.zeros((2, 3), complex), TypeError, "complex"),
        (Y.astype(int), None, TypeError, "int.*logits"),
        (Y > 0, None, TypeError, "bool.*logits"),
        (np.float32(1), 0, ValueError, "class axis"),
        (np.zeros((2, 0), np.float32), None, ValueError, "empty"),
        ((Y, Y), None, TypeError, "2 arrays"),
        ((Y, Y), (0,), TypeError, "2 arrays"),
        ((Y, Y), (0, lambda y: y), TypeError, "only arrays"),
        ((Y, "no"), (0, 0), TypeError, "not an array"),
        ((), 0, TypeError, "no arrays"),
    ],
)
def test_mistakes_are_named(output, target, error, words):
    with pytest.raises(error, match=words):
        targets.weighting(output, target)


@pytest.mark.parametrize(
    ("target", "error", "words"),
    [
        (lambda y: y[0], ValueError, r"\(3,\).*\(2, 3\)"),
        (lambda y: (y, y), ValueError, "one relevance for each output"),
        (lambda y: y > 0, TypeError, "bool"),
    ],
)
def test_callables_must_return_relevance_of_the_output(target, error, words):
    with pytest.raises(error, match=words):
        targets.start(Y, target)


def test_check_needs_shapes_only():
    targets.check(jax.ShapeDtypeStruct((2, 3), jnp.float32), [0, 2])
    with pytest.raises(ValueError, match="out of range"):
        targets.check(jax.ShapeDtypeStruct((2, 3), jnp.float32), [0, 3])


def test_a_tree_of_outputs_takes_a_tree_of_targets():
    output = {"a": Y, "b": Y[:, :2]}
    result = targets.start(output, {"a": 1, "b": np.zeros((2, 2), np.float32)})
    np.testing.assert_array_equal(result["a"], one_hot(1, Y.shape) * Y)
    assert not result["b"].any()
    both = targets.start(output, lambda o: jax.tree.map(lambda y: 3 * y, o))
    np.testing.assert_array_equal(both["b"], 3 * Y[:, :2])


CLASSES = np.array([2, 0])
TOKENS = np.arange(24, dtype=np.float32).reshape(2, 4, 3) % 7
SOFT = np.exp(Y / 2) / np.exp(Y / 2).sum(-1, keepdims=True)
HELPERS = {
    "top_k": (Y, targets.top_k(2), [[1, 4, 0], [3, 0, 2]]),
    "contrast": (Y, targets.contrast(CLASSES), [[-0.5, -2, -2], [3, -0.25, -1]]),
    "contrast with one": (Y, targets.contrast(CLASSES, 1), [[0, -4, -2], [3, -0.5, 0]]),
    "contrast with each": (
        Y,
        targets.contrast(None, np.array([0, 2])),
        [[-1, 4, 0], [3, 0, -2]],
    ),
    "contrast with some": (Y, targets.contrast(2, [0, 1]), [[-0.5, -2, -2], [-1.5, -0.25, 2]]),
    "clrp": (Y, targets.clrp(1), [[-2, 4, -2], [-0.25, 0.5, -0.25]]),
    "regression": (Y, targets.regression(np.float32(2)), Y - 2),
    "mask": (TOKENS, targets.mask(np.array([1, 0, 0, 1]), 0), None),
    "token": (TOKENS, targets.token(np.array([1, -1]), 2, contrast=np.array([0, 1])), None),
    "softmax": (
        Y,
        targets.softmax(CLASSES, 2.0),
        Y * SOFT[np.arange(2), CLASSES][:, None] * (one_hot(CLASSES, Y.shape) - SOFT) / 2,
    ),
}
_MASKED = np.zeros_like(TOKENS)
_MASKED[:, [0, 3], 0] = TOKENS[:, [0, 3], 0]
_TOKEN = np.zeros_like(TOKENS)
_TOKEN[0, 1] = [-TOKENS[0, 1, 0], 0, TOKENS[0, 1, 2]]
_TOKEN[1, 3] = [0, -TOKENS[1, 3, 1], TOKENS[1, 3, 2]]
EXPECTED = {"mask": _MASKED, "token": _TOKEN}


@pytest.mark.parametrize("name", HELPERS)
def test_helpers_against_hand_made_numbers(name):
    output, target, expected = HELPERS[name]
    expected = EXPECTED.get(name, expected)
    np.testing.assert_allclose(targets.start(output, target), expected, rtol=1e-5, atol=1e-6)
    weights = targets.weighting(output, target)
    if weights is not None:
        np.testing.assert_allclose(weights * output, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", HELPERS)
def test_helpers_pass_through_jit_as_arguments(name):
    output, target, _ = HELPERS[name]
    compiled = jax.jit(targets.start)
    np.testing.assert_allclose(compiled(output, target), targets.start(output, target), rtol=1e-6)


@pytest.mark.parametrize("k", [1, 2])
def test_targets_of_one_kind_share_a_compilation(k):
    traces = []

    @jax.jit
    def start(y, target):
        traces.append(1)
        return targets.start(y, target)

    for c in range(3):
        start(Y, targets.contrast(c))
        start(Y, targets.top_k(k))
    assert len(traces) == 2


def test_vmap_over_classes_and_examples():
    every = jax.vmap(lambda c: targets.start(jnp.asarray(Y), c))(jnp.arange(3))
    np.testing.assert_array_equal(every.sum(0), Y)
    per_example = jax.vmap(targets.start)(jnp.asarray(Y), jnp.asarray(CLASSES))
    np.testing.assert_array_equal(per_example, targets.start(Y, CLASSES))


def test_a_traced_index_out_of_range_selects_nothing():
    assert not np.asarray(jax.jit(targets.start)(Y, 7)).any()
    for position in (4, -5):
        assert not np.asarray(jax.jit(targets.start)(TOKENS, targets.token(position))).any()
    np.testing.assert_array_equal(
        jax.jit(targets.start)(TOKENS, targets.token(-4)), targets.start(TOKENS, targets.token(0))
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: targets.top_k(0), "positive"),
        (lambda: targets.softmax(0, 0.0), "temperature"),
        (lambda: targets.start(Y, targets.top_k(4)), "3 classes"),
        (lambda: targets.start(Y, targets.contrast(0, [])), "at least one"),
        (lambda: targets.start(Y[:, :1], targets.contrast(0)), "only one"),
        (lambda: targets.start(Y, targets.contrast(5)), "out of range"),
        (lambda: targets.start(Y, targets.regression(np.zeros(4))), r"\(4,\).*\(2, 3\)"),
        (lambda: targets.start(Y, targets.mask(np.ones(5))), "mask"),
        (lambda: targets.start(TOKENS, targets.token(4)), "4 is out of range"),
        (lambda: targets.start(Y[0], targets.token(0)), "2 axes"),
        (lambda: targets.start((Y, Y), targets.top_k(1)), "one output array"),
    ],
)
def test_mistakes_with_helpers_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_sums_are_what_is_explained():
    logit = Y[np.arange(2), CLASSES]
    rest = (Y.sum(-1) - logit) / 2
    contrast = targets.start(Y, targets.contrast(CLASSES)).sum(-1)
    np.testing.assert_allclose(contrast, logit - rest, rtol=1e-6)
    np.testing.assert_allclose(
        np.asarray(targets.start(Y, targets.clrp(CLASSES))).sum(-1), 0, atol=1e-6
    )
    probability = jax.grad(lambda y: jax.nn.softmax(y / 3, -1)[1, 0])(jnp.asarray(Y))
    start = targets.start(Y, targets.softmax(0, 3.0))
    np.testing.assert_allclose(start[1], (probability * Y)[1], rtol=1e-5)


OUT_OF_RANGE = [
    (Y, targets.contrast(3), "contrast: target 3 is out of range.*0 to 2"),
    (Y, targets.contrast(0, 3), "contrast: target 3 is out of range"),
    (Y, targets.contrast(0, [1, -1]), "contrast: target -1 is out of range"),
    (Y, targets.contrast(0, np.array([1, 7])), "contrast: target 7 is out of range"),
    (Y, targets.contrast(jnp.array([0, 4]), 1), "contrast: target 4 is out of range"),
    (Y, targets.clrp(jnp.int32(3)), "clrp: target 3 is out of range"),
    (Y, targets.softmax(-100), "softmax: target -100 is out of range"),
    (Y, targets.softmax([0, 3]), "softmax: target 3 is out of range"),
    (Y, targets.top_k(4), "top_k.4. of an output with 3 classes"),
    (TOKENS, targets.mask(np.ones(4), 3), "mask: target 3 is out of range"),
    (TOKENS, targets.token(4), "token: position 4 is out of range for 4 positions.*0 to 3"),
    (TOKENS, targets.token(-5), "token: position -5 is out of range.*-4 to -1"),
    (TOKENS, targets.token(jnp.array([0, 9])), "token: position 9 is out of range"),
    (TOKENS, targets.token([0, -9]), "token: position -9 is out of range"),
    (TOKENS, targets.token(0, 3), "token: target 3 is out of range"),
    (TOKENS, targets.token(0, 0, contrast=np.array([0, 3])), "token: target 3 is out of range"),
    (TOKENS, targets.token(np.array([0, 1, 2])), r"position of shape \(3,\)"),
]


@pytest.mark.parametrize(("output", "target", "words"), OUT_OF_RANGE)
def test_known_classes_and_positions_of_helpers_are_checked(output, target, words):
    shape = jax.ShapeDtypeStruct(output.shape, output.dtype)
    calls = [
        lambda: targets.check(shape, target),
        lambda: target(jnp.asarray(output)),
        lambda: lrp.relevance(lambda w, x: w * x, lrp.Epsilon())(1.0, output, target=target),
        lambda: jax.jit(lambda y: targets.start(y, target))(output),  # closed over: still known
    ]
    for call in calls:
        with pytest.raises(ValueError, match=words):
            call()


def test_positions_are_integers():
    with pytest.raises(TypeError, match="position must be an integer, got float"):
        targets.check(TOKENS, targets.token(1.0))
    with pytest.raises(TypeError, match="position must be an integer, got bool"):
        targets.check(TOKENS, targets.token(np.array([True, False])))


# Outputs with one axis: examples, or the classes of one example.

PARAMS = {"a": RNG.normal(size=(4, 5)), "b": RNG.normal(size=(5, 1))}
BATCH = RNG.normal(size=(3, 4))


def number(w, x):
    return (jax.nn.relu(x @ w["a"]) @ w["b"])[..., 0]


def test_every_example_has_its_own_number_explained():
    explain = lrp.relevance(number, lrp.EpsilonPlus())
    one_by_one = jax.vmap(lambda x: explain(PARAMS, x))(BATCH)
    assert np.all(np.any(one_by_one, -1))
    for found in (
        explain(PARAMS, BATCH),
        jax.jit(explain)(PARAMS, BATCH),
        explain(PARAMS, BATCH, target=np.ones(3)),
        lrp.value_and_relevance(number, lrp.EpsilonPlus())(PARAMS, BATCH)[1],
    ):
        np.testing.assert_allclose(found, one_by_one, rtol=1e-9)
    conserved = lrp.relevance(number, lrp.Zero())(PARAMS, BATCH).sum(-1)
    np.testing.assert_allclose(conserved, number(PARAMS, BATCH), rtol=1e-9)
    assert float(lrp.conservation(number, lrp.Zero())(PARAMS, BATCH).start) == pytest.approx(
        float(number(PARAMS, BATCH).sum())
    )


def test_other_arguments_with_the_examples_axis_do_not_matter():
    explain = lrp.relevance(lambda w, x, mask: number(w, x * mask[:, None]), lrp.Zero())
    found = explain(PARAMS, BATCH, np.ones(3))
    np.testing.assert_allclose(found, lrp.relevance(number, lrp.Zero())(PARAMS, BATCH))
    both = lrp.relevance(lambda x, y: (x * y).sum(-1), lrp.Epsilon(), argnums=(0, 1))(BATCH, BATCH)
    assert all(np.all(np.any(r, -1)) for r in both)
    with_aux = lrp.relevance(lambda w, x: (number(w, x), {"n": 1}), lrp.Zero(), has_aux=True)
    np.testing.assert_allclose(with_aux(PARAMS, BATCH)[0], found)


def test_logits_of_one_example_are_classes():
    square = RNG.normal(size=(4, 4))
    explain = lrp.relevance(lambda w, x: x @ w, lrp.Zero())
    x = BATCH[0]
    best = int((x @ square).argmax())
    np.testing.assert_allclose(explain(square, x), x * square[:, best], rtol=1e-9)
    np.testing.assert_allclose(explain(square, x, target=best), x * square[:, best], rtol=1e-9)
    # tokens of one sequence, as many as classes: the pooled logits do not grow with them
    pooled = lrp.relevance(lambda w, x: (x @ w).mean(0), lrp.Zero())
    tokens, w = BATCH, RNG.normal(size=(4, 3))
    best = int((tokens @ w).mean(0).argmax())
    np.testing.assert_allclose(pooled(w, tokens), tokens * w[:, best] / 3, rtol=1e-5)


def test_what_cannot_be_told_is_said():
    picture = lrp.relevance(lambda w, x: x.reshape(-1) @ w, lrp.Zero())
    w = RNG.normal(size=(12, 3))
    with pytest.warns(UserWarning, match=r"classes of one example.*target=jnp.ones\(3\)"):
        found = picture(w, BATCH)
    best = int((BATCH.reshape(-1) @ w).argmax())
    np.testing.assert_allclose(found, BATCH * w[:, best].reshape(3, 4), rtol=1e-9)
    np.testing.assert_allclose(picture(w, BATCH, target=targets.top_k(1)), found, rtol=1e-9)
    curve = lrp.relevance(lambda w, x: w * x**2, lrp.Zero())
    with pytest.warns(UserWarning, match=r"each is explained.*jnp.ones\(3\).*top_k\(1\)"):
        found = curve(2.0, CURVE)
    np.testing.assert_allclose(found, curve(2.0, CURVE, target=np.ones(3)), rtol=1e-9)
    assert np.all(found)
    np.testing.assert_array_equal(curve(2.0, CURVE, target=targets.top_k(1)) != 0, [0, 0, 1])


CURVE = np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize("target", [0, targets.softmax(1), targets.top_k(1), np.int32(2)])
def test_a_class_of_an_output_without_classes_is_said(target):
    with pytest.warns(UserWarning, match=r"chooses among examples.*output\[None\]"):
        lrp.relevance(number, lrp.Epsilon())(PARAMS, BATCH, target=target)
    rows = lrp.relevance(lambda w, x: number(w, x)[None], lrp.Epsilon())
    rows(PARAMS, BATCH, target=0)
    lrp.relevance(number, lrp.Epsilon())(PARAMS, BATCH, target=targets.regression(1.0))


def test_baselines_and_metrics_explain_the_same_numbers():
    slopes = jax.vmap(jax.grad(number, 1), (None, 0))(PARAMS, BATCH)
    np.testing.assert_allclose(baselines.gradient(number)(PARAMS, BATCH), slopes, rtol=1e-9)
    relevance = lrp.relevance(number, lrp.Zero())(PARAMS, BATCH)
    gap = evaluation.completeness(number)(PARAMS, BATCH, relevance=relevance)
    np.testing.assert_allclose(gap, 0, atol=1e-9)
    curves = evaluation.pixel_flipping(number, steps=2)(PARAMS, BATCH, relevance=relevance)
    np.testing.assert_allclose(curves.score[:, 0], number(PARAMS, BATCH), rtol=1e-9)
    with_mask = baselines.gradient(lambda w, x, mask, flag: number(w, x) * mask if flag else x)
    np.testing.assert_allclose(with_mask(PARAMS, BATCH, np.ones(3), True), slopes, rtol=1e-9)


def test_dense_outputs_are_explained_at_every_position():
    sequence = RNG.normal(size=(2, 3, 4))
    w = RNG.normal(size=(4, 5))
    explain = lrp.relevance(lambda w, x: x @ w, lrp.Zero())
    with pytest.warns(UserWarning, match=r"each of the 3 positions.*\(2, 3, 5\).*token\(i\)"):
        found = explain(w, sequence)
    np.testing.assert_array_equal(explain(w, sequence, target=targets.top_k(1)), found)
    with pytest.warns(UserWarning, match="3 positions"):
        explain(w, sequence, target=targets.each([None, 1]))
    explain(w, sequence[:, :1])  # one position is no choice
    explain(w[:, :1], sequence)  # nor is one class
    best = (sequence @ w).argmax(-1)
    np.testing.assert_allclose(found, sequence * w.T[best], rtol=1e-9)


# Several targets in one call.

NET = {"a": RNG.normal(size=(4, 5)), "b": RNG.normal(size=(5, 3))}


def net(w, x):
    return jax.nn.relu(x @ w["a"]) @ w["b"]


SEVERAL = {
    "classes": [0, 2, None],
    "classes of examples": [np.array([0, 1, 2]), np.array([2, 2, 0])],
    "kinds": [1, targets.contrast(0, 1), np.full((3, 3), 0.5), targets.softmax(2), [0, 1, 2]],
    "relevance": [None, targets.regression(1.0), targets.clrp(0)],
    "functions": [lambda y: y / 2, 1],
    "one": [targets.top_k(2)],
}
QUERIES = {
    "relevance": lambda composite: lrp.relevance(net, composite),
    "value_and_relevance": lambda composite: lrp.value_and_relevance(net, composite),
    "layer_relevances": lambda composite: lrp.layer_relevances(net, composite),
    "conservation": lambda composite: lrp.conservation(net, composite),
    "parameter_relevance": lambda composite: lrp.parameter_relevance(net, composite),
    "concept_relevance": lambda composite: lrp.concept_relevance(net, composite, "a", [0, 3]),
    "concept_scores": lambda composite: lrp.concept_scores(net, composite, "a"),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_each_is_every_target_by_itself(name):
    several = SEVERAL[name]
    for composite in (lrp.EpsilonPlus(), lrp.composites.guided_backprop()):
        explain = lrp.relevance(net, composite)
        expected = np.stack([explain(NET, BATCH, target=target) for target in several])
        found = explain(NET, BATCH, target=targets.each(several))
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
        if name != "functions":  # these are no arguments of a compiled function
            compiled = jax.jit(explain)(NET, BATCH, target=targets.each(several))
            np.testing.assert_allclose(compiled, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_takes_each(name):
    explain, several = QUERIES[name](lrp.EpsilonPlus()), [0, targets.contrast(1, 2)]
    found = explain(NET, BATCH, target=targets.each(several))
    expected = [explain(NET, BATCH, target=target) for target in several]
    assert jax.tree.structure(found) == jax.tree.structure(expected[0])
    jax.tree.map(
        lambda f, *e: np.testing.assert_allclose(f, np.stack(e), rtol=1e-9, atol=1e-12),
        found,
        *expected,
    )


def test_each_takes_trees_aux_and_numbers_of_examples():
    both = lrp.relevance(lambda w, x: {"p": net(w, x), "q": x}, lrp.Epsilon())
    several = [{"p": 0, "q": np.zeros((3, 4))}, {"p": np.zeros((3, 3)), "q": 1}]
    found = both(NET, BATCH, target=targets.each(several))
    for one, target in zip(found, several, strict=True):
        np.testing.assert_allclose(one, both(NET, BATCH, target=target), rtol=1e-9)
    with_aux = lrp.relevance(lambda w, x: (net(w, x), x.sum()), lrp.Epsilon(), has_aux=True)
    relevance, aux = with_aux(NET, BATCH, target=targets.each([0, 1]))
    assert relevance.shape == (2, 3, 4)
    np.testing.assert_allclose(aux, [BATCH.sum()] * 2)
    numbers = lrp.relevance(number, lrp.Epsilon())
    found = numbers(PARAMS, BATCH, target=targets.each([None, targets.regression(0.5)]))
    np.testing.assert_allclose(found[0], numbers(PARAMS, BATCH), rtol=1e-9)


def test_parameters_without_relevance_are_zeros_for_each_target():
    explain = lrp.parameter_relevance(net, lrp.Epsilon())
    found = explain({**NET, "steps": np.arange(4)}, BATCH, target=targets.each([0, 1]))
    assert {name: r.shape for name, r in found.items()} == {
        "a": (2, 4, 5),
        "b": (2, 5, 3),
        "steps": (2, 4),
    }


def test_each_passes_forward_once():
    explain = lrp.relevance(net, lrp.Gamma(0.25))

    def products(target):
        text = str(jax.make_jaxpr(lambda x: explain(NET, x, target=target))(BATCH))
        return text.count(" dot_general[")

    assert products(targets.each([0] * 5)) == products(0)
    assert products(targets.each([0, targets.contrast(0, 1)])) == products(0)


def test_targets_of_one_kind_are_not_held_as_whole_weightings():
    """Nothing has the targets and the output's axes together but where they differ in kind."""
    deep = lambda w, x: net(w, x)[:, None] * jnp.ones((7, 1))  # noqa: E731
    explain = lrp.relevance(deep, lrp.Epsilon())

    def largest(*several):
        text = str(jax.make_jaxpr(lambda x: explain(NET, x, target=targets.each(several)))(BATCH))
        return f"[{len(several)},3,7,3]" in text

    assert not largest(*(targets.token(i, 1) for i in range(5)))
    assert largest(*(targets.token(i, 1) for i in range(4)), 2)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: targets.each([]), ValueError, "at least one"),
        (lambda: targets.each([0, targets.each([1])]), ValueError, "none made by each"),
        (lambda: targets.check(Y, targets.each([0, 3])), ValueError, "target 3 is out of range"),
        (lambda: targets.start(Y, targets.each([0])), TypeError, "once for each target"),
        (
            lambda: baselines.gradient(net)(NET, BATCH, target=targets.each([0])),
            TypeError,
            "once for each target",
        ),
        (
            lambda: evaluation.completeness(net)(
                NET, BATCH, relevance=BATCH, target=targets.each([0])
            ),
            TypeError,
            "once for each target",
        ),
        (
            lambda: baselines.grad_cam(
                lambda w, x: jax.nn.relu(x * 2).mean((1, 2)) @ w, "Activation"
            )(np.ones((1, 2)), np.ones((1, 4, 4, 1)), target=targets.each([0])),
            TypeError,
            "once for each target",
        ),
    ],
)
def test_mistakes_with_each_are_named(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_targets_are_printed_as_they_are_written() -> None:
    assert repr(targets.contrast(0, 5)) == "targets.contrast(0, 5)"
    assert repr(targets.top_k(3)) == "targets.top_k(3)"
    assert repr(targets.mask(np.ones((2, 3)))) == "targets.mask(array of shape (2, 3))"
