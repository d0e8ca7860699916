"""Baselines against analytic answers and slow loops, all in the call form of `relevance`."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrp_jax as lrp
from lrp_jax import baselines, targets

RNG = np.random.default_rng(0)
W1, W2 = RNG.normal(size=(6, 8)), RNG.normal(size=(8, 3))
X = RNG.normal(size=(4, 6))
LABELS = np.array([2, 0, 1, 1])


def smooth(params, x):
    return jnp.tanh(x @ params[0]) @ params[1]


def rectified(params, x):
    return jax.nn.relu(x @ params[0]) @ params[1]


def slope(x, labels, h=1e-6):
    """The gradient of the chosen outputs of `smooth` by central differences."""
    out = np.zeros_like(x)
    for i in range(x.shape[1]):
        step = np.zeros_like(x)
        step[:, i] = h
        for sign in (1, -1):
            y = np.tanh((x + sign * step) @ W1) @ W2
            out[:, i] += sign * y[np.arange(len(x)), labels] / (2 * h)
    return out


PARAMS = (W1, W2)
KEY = jax.random.key(3)
METHODS = {
    "gradient": baselines.gradient,
    "input_x_gradient": baselines.input_x_gradient,
    "smoothgrad": lambda f, argnums=1, **k: baselines.smoothgrad(f, argnums, key=KEY, **k),
    "integrated_gradients": baselines.integrated_gradients,
    "occlusion": lambda f, argnums=1, **k: baselines.occlusion(f, argnums, window=2, **k),
    "guided_backprop": baselines.guided_backprop,
    "lrp0": baselines.lrp0,
    "random": lambda f, argnums=1, **k: baselines.random(f, argnums, key=KEY, **k),
}


@pytest.mark.parametrize("name", METHODS)
def test_one_call_form(name):
    explain = METHODS[name](rectified)
    expected = explain(PARAMS, X, target=LABELS)
    assert expected.shape == X.shape
    compiled = jax.jit(lambda p, x, t: explain(p, x, target=t))
    np.testing.assert_allclose(compiled(PARAMS, X, LABELS), expected, atol=1e-12)
    weights = np.eye(3)[LABELS]
    np.testing.assert_allclose(explain(PARAMS, X, target=weights), expected, atol=1e-12)
    predicted = np.maximum(X @ W1, 0) @ W2
    np.testing.assert_allclose(
        explain(PARAMS, X), explain(PARAMS, X, target=predicted.argmax(-1)), atol=1e-12
    )
    relevance, aux = METHODS[name](lambda p, x: (rectified(p, x), x.sum()), has_aux=True)(
        PARAMS, X, target=LABELS
    )
    np.testing.assert_allclose(relevance, expected, atol=1e-12)
    np.testing.assert_allclose(aux, X.sum())


@pytest.mark.parametrize("name", ["gradient", "input_x_gradient", "integrated_gradients", "lrp0"])
def test_several_arguments_and_keywords(name):
    def f(params, a, b, *, scale):
        return rectified(params, scale * (a + 2 * b))

    r = METHODS[name](f, argnums=(1, 2))(PARAMS, X, X[::-1], target=1, scale=2.0)
    assert [part.shape for part in r] == [X.shape, X.shape]
    alone = METHODS[name](f)(PARAMS, X, X[::-1], target=1, scale=2.0)
    if name != "integrated_gradients":  # its path moves both arguments
        # The stabiliser of a sum acts on its value, which only LRP's two paths share.
        np.testing.assert_allclose(r[0], alone, atol=1e-4 if name == "lrp0" else 1e-12)


def test_gradient_and_its_product():
    expected = slope(X, LABELS)
    actual = baselines.gradient(smooth)(PARAMS, X, target=LABELS)
    np.testing.assert_allclose(actual, expected, atol=1e-8)
    actual = baselines.input_x_gradient(smooth)(PARAMS, X, target=LABELS)
    np.testing.assert_allclose(actual, X * expected, atol=1e-8)


def test_callable_targets_are_weights_at_the_input():
    chosen = baselines.gradient(smooth)(PARAMS, X, target=1)
    start = baselines.gradient(smooth)(PARAMS, X, target=lambda y: y * jnp.eye(3)[1])
    np.testing.assert_allclose(start, chosen, atol=1e-12)
    r = baselines.input_x_gradient(rectified)(PARAMS, X, target=targets.regression(0.5))
    # Without biases a relu net's gradient times input adds up to the start.
    np.testing.assert_allclose(r.sum(-1), (np.maximum(X @ W1, 0) @ W2 - 0.5).sum(-1), atol=1e-10)


def test_lrp0_is_gradient_times_input_of_a_relu_net_without_biases():
    np.testing.assert_allclose(
        baselines.lrp0(rectified)(PARAMS, X, target=LABELS),
        baselines.input_x_gradient(rectified)(PARAMS, X, target=LABELS),
        atol=1e-9,
    )


def test_guided_backprop_by_hand():
    hidden = X @ W1
    back = W2[:, LABELS].T
    expected = (back * (back > 0) * (hidden > 0)) @ W1.T
    actual = baselines.guided_backprop(rectified)(
        PARAMS, X, target=targets_weights(np.eye(3)[LABELS])
    )
    np.testing.assert_allclose(actual, expected, atol=1e-10)


def targets_weights(cotangent):
    """A start that is the cotangent itself, whatever the output."""
    return lambda y: jnp.asarray(cotangent)


@pytest.mark.parametrize("chunk", [None, 1, 3])
def test_smoothgrad_is_a_mean_over_noise_with_a_clean_last_sample(chunk):
    explain = baselines.smoothgrad(smooth, key=KEY, samples=7, noise_level=0.3, chunk=chunk)
    expected = np.zeros_like(X)
    for n, key in enumerate(jax.random.split(KEY, 7)):
        noise = np.asarray(jax.random.normal(jax.random.split(key, 1)[0], X.shape))
        spread = 0.3 * (X.max(1) - X.min(1))[:, None] * (n < 6)
        expected += slope(X + spread * noise, LABELS) / 7
    np.testing.assert_allclose(explain(PARAMS, X, target=LABELS), expected, atol=1e-7)


def test_smoothgrad_of_one_sample_is_the_gradient():
    np.testing.assert_allclose(
        baselines.smoothgrad(smooth, key=KEY, samples=1)(PARAMS, X, target=0),
        baselines.gradient(smooth)(PARAMS, X, target=0),
        atol=1e-12,
    )


def test_integrated_gradients_are_complete():
    """To 1e-6 on a smooth net with the default settings, and the gap says so."""
    y = np.tanh(X @ W1) @ W2
    start = np.full(6, 0.1)
    y0 = np.tanh(start @ W1) @ W2
    explain = baselines.integrated_gradients(smooth, baseline=start, gap=True)
    r, gap = explain(PARAMS, X, target=LABELS)
    difference = (y - y0)[np.arange(4), LABELS]
    np.testing.assert_allclose(r.sum(-1), difference, atol=1e-6)
    np.testing.assert_allclose(gap, r.sum(-1) - difference, atol=1e-12)
    r, gap = baselines.integrated_gradients(smooth, steps=2, quadrature="right", gap=True)(
        PARAMS, X, target=LABELS
    )
    np.testing.assert_allclose(gap, r.sum(-1) - y[np.arange(4), LABELS], atol=1e-10)
    assert np.abs(gap).max() > 1e-2  # two steps are not enough, and the gap shows it


@pytest.mark.parametrize("chunk", [None, 1, 4])
def test_integrated_gradients_as_a_sum_over_the_path(chunk):
    expected = sum(X * slope(X * (k + 1) / 10, LABELS) / 10 for k in range(10))
    explain = baselines.integrated_gradients(smooth, steps=10, quadrature="right", chunk=chunk)
    np.testing.assert_allclose(explain(PARAMS, X, target=LABELS), expected, atol=1e-7)


def test_integrated_gradients_of_one_step_are_input_x_gradient():
    np.testing.assert_allclose(
        baselines.integrated_gradients(smooth, steps=1, quadrature="right")(PARAMS, X, target=0),
        baselines.input_x_gradient(smooth)(PARAMS, X, target=0),
        atol=1e-12,
    )


def test_the_class_is_that_of_the_input_along_the_whole_path():
    def two(_, x):
        return jnp.concatenate([1.0 - x, 2 * x], -1)  # the arg-max changes on the way

    r = baselines.integrated_gradients(two)(None, np.array([[1.0]]))
    np.testing.assert_allclose(r, [[2.0]], atol=1e-12)


@pytest.mark.parametrize(("keep", "chunk"), [(False, None), (True, 2)])
@pytest.mark.parametrize(("window", "stride"), [(2, 2), (3, 2), ((2, 3), (1, 2))])
def test_occlusion_as_a_loop_over_windows(window, stride, chunk, keep):
    x = RNG.normal(size=(2, 5, 4, 3))
    w = RNG.normal(size=(60, 2))

    def f(w, x):
        return jnp.tanh(x.reshape(len(x), -1)) @ w

    def score(x):
        return (np.tanh(x.reshape(2, -1)) @ w)[np.arange(2), [1, 0]]

    (wh, ww), (sh, sw) = ((v, v) if isinstance(v, int) else v for v in (window, stride))
    expected = np.zeros_like(x)
    for top in range(0, 5, sh):
        for left in range(0, 4, sw):
            inside = np.zeros((5, 4, 3), bool)
            inside[top : top + wh, left : left + ww] = True
            covered = np.where(inside ^ keep, 0.5, x)
            value = score(covered) if keep else (score(x) - score(covered)) / inside.sum()
            expected += inside * value[:, None, None, None]
    explain = baselines.occlusion(f, window=window, stride=stride, fill=0.5, keep=keep, chunk=chunk)
    np.testing.assert_allclose(explain(w, x, target=np.array([1, 0])), expected, atol=1e-10)


def test_disjoint_windows_of_a_linear_model_add_up():
    f = lambda w, x: x @ w  # noqa: E731
    r = baselines.occlusion(f, window=4)(W1[:, :3], X, target=LABELS)
    np.testing.assert_allclose(r.sum(-1), (X @ W1[:, :3])[np.arange(4), LABELS], atol=1e-10)


def test_grad_cam_by_hand():
    x = RNG.normal(size=(2, 6, 6, 3))
    kernel, head = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 2))
    features = lambda p, x: jnp.maximum(x[:, ::2, ::2] @ p[0], 0)  # noqa: E731
    explain = baselines.grad_cam(features, lambda p, a: a.mean((1, 2)) @ p[1])
    r = explain((kernel, head), x, target=1)
    maps = np.maximum(x[:, ::2, ::2] @ kernel, 0)
    cam = np.maximum(maps @ (head[:, 1] / 9), 0)
    expected = jax.image.resize(cam, (2, 6, 6), "linear")
    assert r.shape == x.shape
    np.testing.assert_allclose(r.sum(-1), expected, atol=1e-12)


def test_grad_cam_of_a_layer_of_the_plan():
    """By its path, the layer need not be cut out: the same map, and called as all others."""
    x = RNG.normal(size=(2, 6, 6, 3))
    params = {"a": RNG.normal(size=(3, 4)), "b": RNG.normal(size=(4, 2))}
    top = lambda p, a: jnp.tanh(a.mean((1, 2))) @ p["b"]  # noqa: E731
    model = lambda p, x: top(p, jax.nn.gelu(x[:, ::2, ::2] @ p["a"]))  # noqa: E731
    layers = {
        "a": lambda p, x: x[:, ::2, ::2] @ p["a"],
        "Activation": lambda p, x: jax.nn.gelu(x[:, ::2, ::2] @ p["a"]),
    }
    heads = [lambda p, a: top(p, jax.nn.gelu(a)), top]
    for (layer, features), head in zip(layers.items(), heads, strict=True):
        explain = baselines.grad_cam(model, layer)
        cut = baselines.grad_cam(features, head)
        for target in (None, 1, np.array([1, 0]), lambda y: y * np.array([1.0, -1.0])):
            expected = cut(params, x, target=target)
            found = explain(params, x, target=target)
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
            assert float(jnp.abs(found).max()) > 0
        compiled = jax.jit(lambda p, x, explain=explain: explain(p, x, target=1))
        np.testing.assert_allclose(compiled(params, x), cut(params, x, target=1), atol=1e-12)
    with pytest.raises(ValueError, match="no layer matches 'c'"):
        baselines.grad_cam(model, "c")(params, x)
    with pytest.raises(ValueError, match="positions"):
        baselines.grad_cam(model, "b")(params, x)


def test_sobel_by_hand():
    x = RNG.normal(size=(1, 5, 6, 2))
    wide = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    kernel = np.array([[1, 2, 1], [0, 0, 0], [-1, -2, -1]])
    expected = np.zeros_like(x)
    for i in range(5):
        for j in range(6):
            block = wide[0, i : i + 3, j : j + 3]
            v, h = (np.tensordot(k, block, 2) for k in (kernel, kernel.T))
            expected[0, i, j] = np.hypot(v, h)
    explain = baselines.sobel(lambda w, x: x.mean((1, 2)))
    np.testing.assert_allclose(explain(None, x), expected, atol=1e-12)


def test_random_knows_nothing_of_the_model_and_repeats():
    first = baselines.random(smooth, key=KEY)(PARAMS, X, target=0)
    np.testing.assert_array_equal(first, baselines.random(rectified, key=KEY)(PARAMS, X, target=1))
    assert abs(float(first.mean())) < 1
    assert float(first.std()) > 0.3


def test_the_memory_bound_holds():
    """In chunks the temporaries are those of a few copies, not of all."""
    x = np.ones((1, 512))
    w = (np.ones((512, 512)), np.ones((512, 2)))

    def bytes_of(chunk):
        explain = baselines.smoothgrad(smooth, key=KEY, samples=64, chunk=chunk)
        compiled = jax.jit(lambda w, x: explain(w, x, target=0)).lower(w, x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert bytes_of(4) < bytes_of(None) / 4


# zennit (see `reference/generate_baselines.py`).

with np.load(Path(__file__).parent / "reference" / "zennit_baselines.npz") as arrays:
    ZENNIT = dict(arrays)
IMAGES = np.moveaxis(ZENNIT["input"], 1, -1)
NOISE = np.moveaxis(ZENNIT["noise"], 2, -1)
START = np.moveaxis(ZENNIT["baseline"], 0, -1)
WEIGHTS = {key: ZENNIT[f"parameters/{key}"] for key in ("0.weight", "3.weight", "6.weight")}
WEIGHTS |= {key: ZENNIT[f"parameters/{key}"] for key in ("0.bias", "3.bias", "6.bias")}


def zennits_network(activation):
    """The network of the generator: channels last, the weights as PyTorch stores them."""

    def f(p, x):
        for name, pool in (("0", 2), ("3", 1)):
            kernel = jnp.transpose(p[f"{name}.weight"], (2, 3, 1, 0))
            numbers = ("NHWC", "HWIO", "NHWC")
            x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
            x = activation(x + p[f"{name}.bias"])
            n, height, width, channels = x.shape
            x = x.reshape(n, height // pool, pool, width // pool, pool, channels).mean((2, 4))
        return jnp.moveaxis(x, -1, 1).reshape(len(x), -1) @ p["6.weight"].T + p["6.bias"]

    return f


NETWORKS = {"relu": jax.nn.relu, "softplus": jax.nn.softplus}
OURS = {
    "gradient": baselines.gradient,
    "integrated_gradients": lambda f: baselines.integrated_gradients(
        f, steps=7, quadrature="right"
    ),
    "integrated_gradients_from_baseline": lambda f: baselines.integrated_gradients(
        f, steps=7, quadrature="right", baseline=START, chunk=3
    ),
    "occlusion": lambda f: baselines.occlusion(f, window=(2, 3), keep=True),
    "occlusion_of_overlapping_windows": lambda f: baselines.occlusion(
        f, window=(4, 2), stride=(2, 1), keep=True
    ),
}


def explained_like_zennit(name, method, explain):
    f = zennits_network(NETWORKS[name])
    np.testing.assert_allclose(f(WEIGHTS, IMAGES), ZENNIT[f"{name}/output"], atol=1e-10)
    found = explain(f)(WEIGHTS, IMAGES, target=ZENNIT["labels"])
    return found, np.moveaxis(ZENNIT[f"{name}/{method}"], 1, -1)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("method", OURS)
def test_the_numbers_are_those_of_zennit(method, name):
    found, expected = explained_like_zennit(name, method, OURS[method])
    if "overlapping" in method:
        # A window that leaves the image is cut off here and comes in again at the other side there.
        found, expected = found[:, 2:-2, 1:-1], expected[:, 2:-2, 1:-1]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_smoothgrad_is_zennits_on_the_same_noise(name, monkeypatch):
    """Drawn one copy after the other, the last of them without noise."""
    draws = iter(NOISE)
    monkeypatch.setattr(jax.random, "normal", lambda key, shape, dtype: next(draws))
    explain = lambda f: baselines.smoothgrad(  # noqa: E731
        f, key=KEY, noise_level=0.2, samples=len(NOISE), chunk=1
    )
    with jax.disable_jit():
        found, expected = explained_like_zennit(name, "smoothgrad", explain)
    assert next(draws, None) is None
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_input_times_zennits_gradient(name):
    """It has no attributor of that name: one step of integrated gradients is it."""
    found, slope = explained_like_zennit(name, "gradient", baselines.input_x_gradient)
    np.testing.assert_allclose(found, IMAGES * slope, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_occlusion_of_the_inside_is_the_fall_of_zennits_score(name):
    """zennit's is the score of what is left; ours is what the window took, for each element."""
    explain = lambda f: baselines.occlusion(f, window=(2, 3), fill=0.5)  # noqa: E731
    found, left = explained_like_zennit(name, "occlusion_of_the_inside", explain)
    whole = ZENNIT[f"{name}/output"][np.arange(3), ZENNIT["labels"]]
    elements = 2 * 3 * IMAGES.shape[-1]
    expected = (whole[:, None, None, None] - left) / elements
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet"])
def test_modified_gradients_are_those_of_zennit(method):
    composite = getattr(lrp.composites, method)()
    start = targets_weights(np.eye(4)[ZENNIT["labels"]])
    f = zennits_network(jax.nn.relu)
    found = lrp.relevance(f, composite)(WEIGHTS, IMAGES, target=start)
    expected = np.moveaxis(ZENNIT[f"relu/{method}"], 1, -1)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    if method == "guided_backprop":
        again = baselines.guided_backprop(f)(WEIGHTS, IMAGES, target=start)
        np.testing.assert_allclose(again, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: baselines.gradient(smooth, 4)(PARAMS, X), ValueError, "argnums=4"),
        (
            lambda: baselines.gradient(smooth)(PARAMS, X.astype(int)),
            lrp.UnsupportedOperation,
            "look up rows",
        ),
        (lambda: baselines.gradient(smooth)(PARAMS, X, target=9), ValueError, "out of range"),
        (lambda: baselines.smoothgrad(smooth, key=KEY, samples=0), ValueError, "samples"),
        (lambda: baselines.integrated_gradients(smooth, steps=0), ValueError, "steps"),
        (lambda: baselines.integrated_gradients(smooth, quadrature="x"), ValueError, "gauss"),
        (lambda: baselines.occlusion(smooth, (0, 1)), TypeError, "one argument"),
        (lambda: baselines.occlusion(smooth, axes=(3,))(PARAMS, X), ValueError, "axes"),
        (lambda: baselines.occlusion(smooth, window=(1, 2))(PARAMS, X), ValueError, "window"),
        (lambda: baselines.occlusion(smooth, window=99)(PARAMS, X), ValueError, "larger than an"),
        (lambda: baselines.occlusion(smooth, window=1, stride=2)(PARAMS, X), ValueError, "gaps"),
        (lambda: baselines.sobel(smooth)(PARAMS, X), ValueError, "images"),
        (lambda: baselines.grad_cam(smooth, smooth)(PARAMS, X), ValueError, "positions"),
    ],
)
def test_mistakes_are_named(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_planted_truth():
    """Three pixels decide: every method that asks the model finds them, noise does not."""
    x = RNG.normal(size=(16, 36)) + 3
    known = np.array([4, 17, 30])

    def f(_, x):
        evidence = jax.nn.relu(x[:, 4]) * 2 + jax.nn.relu(x[:, 17]) + jax.nn.relu(x[:, 30])
        return jnp.stack([evidence, jnp.zeros_like(evidence)], -1)

    for name, make in METHODS.items():
        if name in ("guided_backprop", "lrp0"):
            continue  # indexing a pixel is no layer with weights; see the test below
        method = baselines.occlusion(f, window=1) if name == "occlusion" else make(f)
        top = np.argsort(-np.abs(method(None, x, target=0)), -1)[:, :3]
        hits = np.isin(top, known).mean()
        assert hits == 1 if name != "random" else hits < 0.3, name


def test_planted_truth_in_weights():
    w1 = np.zeros((36, 3))
    w1[[4, 17, 30], range(3)] = [2, 1, 1]
    x = RNG.normal(size=(16, 36)) + 3
    params = (w1, np.array([[1.0, 0], [1, 0], [1, 0]]))
    for method in (baselines.lrp0(rectified), lrp.relevance(rectified, lrp.EpsilonPlus())):
        top = np.argsort(-np.abs(method(params, x, target=0)), -1)[:, :3]
        assert np.isin(top, [4, 17, 30]).all()
