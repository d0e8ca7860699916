"""Other people's frameworks: the recipes of the manual run, and give what plain JAX gives."""

from __future__ import annotations

import contextlib
import io
import re
import textwrap
import warnings
from pathlib import Path
from typing import Any

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrp_jax as lrp
from lrp_jax import plot

PAGES = Path(__file__).parents[1] / "docs" / "how-to"
FENCE = re.compile(r"^```(?:python|py)\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", re.M | re.S)
X = jax.random.normal(jax.random.key(0), (2, 5))


def recipe(heading: str, **names: Any) -> dict[str, Any]:
    """Run the code below a heading of the page on frameworks, and compare what it prints."""
    text = (PAGES / "frameworks.md").read_text()
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    namespace: dict[str, Any] = {"__name__": "__main__", "jax": jax, "jnp": jnp, "lrp": lrp, "x": X}
    namespace.update(names)
    for code, printed in FENCE.findall(section):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(textwrap.dedent(code), heading, "exec"), namespace)
        if printed:
            assert output.getvalue().split() == printed.split()
    return namespace


def same_as_plain(relevance: jax.Array, weights: list[Any], biases: list[Any], x: Any) -> None:
    """The relevance of a two-layer perceptron, computed from its weights alone."""

    def plain(params: Any, x: jax.Array) -> jax.Array:
        hidden = jax.nn.relu(x @ params[0][0] + params[1][0])
        return hidden @ params[0][1] + params[1][1]

    expected = lrp.relevance(plain, lrp.Epsilon())((weights, biases), x, target=1)
    scale = float(jnp.abs(expected).max())
    assert scale > 0
    np.testing.assert_allclose(relevance, expected, atol=1e-6 * scale)


def test_equinox() -> None:
    mlp = eqx.nn.MLP(5, 3, width_size=8, depth=1, key=jax.random.key(1))
    explain = lrp.relevance(lambda model, x: jax.vmap(model)(x), lrp.Epsilon())
    weights = [layer.weight.T for layer in mlp.layers]
    same_as_plain(explain(mlp, X, target=1), weights, [layer.bias for layer in mlp.layers], X)


def test_haiku() -> None:
    net = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([8, 3])(x)))
    params = net.init(jax.random.key(0), X)
    layers = list(params.values())
    found = lrp.relevance(net.apply, lrp.Epsilon())(params, X, target=1)
    same_as_plain(found, [p["w"] for p in layers], [p["b"] for p in layers], X)


def test_haiku_with_state_and_a_random_key() -> None:
    def net(x: jax.Array, train: bool = False) -> jax.Array:
        norm = hk.BatchNorm(True, True, 0.9)
        return hk.Linear(3)(norm(hk.Linear(4)(x), is_training=train))

    model = hk.transform_with_state(net)
    params, state = model.init(jax.random.key(0), X, train=True)

    def apply(params: Any, x: jax.Array) -> Any:
        return model.apply(params, state, None, x)

    relevance, new_state = lrp.relevance(apply, lrp.Zero(), has_aux=True)(params, X, target=0)
    assert relevance.shape == X.shape
    assert jax.tree.structure(new_state) == jax.tree.structure(state)
    gradient = jax.grad(lambda x: apply(params, x)[0][:, 0].sum())(X)
    np.testing.assert_allclose(relevance, X * gradient, atol=1e-6)  # the network is linear


@pytest.fixture
def keras(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own
        return pytest.importorskip("keras", reason="not in the extra `test`")


def keras_apply(model: Any) -> Any:
    def apply(values: Any, x: jax.Array) -> Any:
        trainable = [values[v.path] for v in model.trainable_variables]
        fixed = [values[v.path] for v in model.non_trainable_variables]
        return model.stateless_call(trainable, fixed, x, training=False)[0]

    return apply


def test_keras_recipe(keras: Any) -> None:
    found = recipe("Keras 3")
    apply, model, values, images = (found[n] for n in ("apply", "model", "values", "images"))
    output = apply(values, images)
    np.testing.assert_allclose(output, model(images, training=False), atol=1e-5)
    relevance = lrp.relevance(apply, lrp.Zero())(values, images, target=0)
    np.testing.assert_allclose(relevance.sum((1, 2, 3)), output[:, 0], rtol=1e-3)


def test_keras_equals_plain_jax(keras: Any) -> None:
    layers = [keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((5,)), *layers])
    values = {v.path: v.value for v in model.variables}
    found = lrp.relevance(keras_apply(model), lrp.Epsilon())(values, X, target=1)
    weights, biases = [v.kernel.value for v in layers], [v.bias.value for v in layers]
    same_as_plain(found, weights, biases, X)


def test_keras_attention(keras: Any) -> None:
    entry = keras.Input((5, 8))
    attended = keras.layers.MultiHeadAttention(2, 4)(entry, entry)
    hidden = keras.layers.Dense(6, activation="gelu")(keras.layers.Add()([entry, attended]))
    model = keras.Model(entry, keras.layers.Dense(2)(hidden))
    values = {v.path: v.value for v in model.variables}
    x = jax.random.normal(jax.random.key(2), (2, 5, 8))
    plan = lrp.plan(keras_apply(model), lrp.AttnLRP())(values, x)
    kinds = [layer.kind.label for layer in plan.layers]
    assert kinds == ["Dense"] * 3 + ["MatMul", "Softmax", "MatMul", "Dense", "Merge"] + [
        "Dense",
        "Activation",
        "Dense",
    ]


NORMS = {
    "x / s - mean / s": lambda x, m, s, w: x * (w[0] / s) + (w[1] - m * (w[0] / s)),
    "scaled later": lambda x, m, s, w: (x / s - m / s) * w[0] + w[1],
}


@pytest.mark.parametrize("form", NORMS)
@pytest.mark.parametrize("composite", [lrp.AttnLRP(), lrp.CPLRP()], ids=["AttnLRP", "CPLRP"])
def test_a_layer_norm_as_keras_writes_it_is_one(form: str, composite: lrp.Composite) -> None:
    """Its statistics are constants: none of its relevance goes through them."""

    def statistics(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean = x.mean(-1, keepdims=True)
        return mean, jnp.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-3)

    def usual(w: Any, x: jax.Array) -> jax.Array:
        mean, deviation = statistics(x)
        return ((x - mean) / deviation * w[0] + w[1]) @ w[2]

    def spread(w: Any, x: jax.Array) -> jax.Array:
        return NORMS[form](x, *statistics(x), w) @ w[2]

    keys = jax.random.split(jax.random.key(3), 4)
    w = [jax.random.normal(k, s) for k, s in zip(keys, [(5,), (5,), (5, 2)], strict=False)]
    x = 2 * jax.random.normal(keys[3], (3, 5)) + 1
    expected = lrp.relevance(usual, composite)(w, x, target=0)
    found = lrp.relevance(spread, composite)(w, x, target=0)
    np.testing.assert_allclose(found, expected, atol=1e-9 * float(jnp.abs(expected).max()))


def test_a_product_of_two_means_is_no_norm() -> None:
    def apply(w: Any, x: jax.Array) -> jax.Array:
        return x.mean(-1, keepdims=True) * (x**2).mean(-1, keepdims=True)

    kinds = [layer.kind.label for layer in lrp.plan(apply, lrp.AttnLRP())(None, X).layers]
    assert "Product" in kinds
    assert "Normalization" not in kinds


def test_keras_layer_norm_equals_that_of_flax(keras: Any) -> None:
    layer = keras.layers.LayerNormalization(epsilon=1e-6)
    model = keras.Sequential([keras.Input((4, 5)), layer, keras.layers.Dense(2)])
    for variable in model.variables:
        variable.assign(np.random.default_rng(0).normal(size=variable.shape))
    values = {v.path: v.value for v in model.variables}
    x = np.random.default_rng(1).normal(size=(2, 4, 5)).astype(np.float32)

    def flax(w: Any, x: jax.Array) -> jax.Array:
        return nn.LayerNorm(epsilon=1e-6).apply(w[0], x) @ w[1] + w[2]

    norm = {"params": {"scale": layer.gamma.value, "bias": layer.beta.value}}
    dense = model.layers[-1]
    w = (norm, dense.kernel.value, dense.bias.value)
    expected = lrp.relevance(flax, lrp.AttnLRP())(w, x, target=0)
    found = lrp.relevance(keras_apply(model), lrp.AttnLRP())(values, x, target=0)
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(jnp.abs(expected).max()))


def test_penzai_recipe() -> None:
    pytest.importorskip("penzai", reason="not in the extra `test`")
    found = recipe("Penzai")
    weights = [p.value for p in found["parameters"]]
    apply, frozen = found["apply"], found["frozen"]
    relevance = lrp.relevance(apply, lrp.Epsilon())(frozen, X, target=1)
    matrices = [w.unwrap(*w.named_axes) if hasattr(w, "named_axes") else w for w in weights]
    wide = [m for m in matrices if m.ndim == 2]
    biases = [m for m in matrices if m.ndim == 1] or [0.0, 0.0]
    same_as_plain(relevance, wide, biases, X)


def test_models_in_the_style_of_hugging_face() -> None:
    found = recipe("Models in the style of Hugging Face")
    model, ids = found["classifier"], found["ids"]
    embedded = model.embed_tokens(ids)
    logits = model(ids).logits
    np.testing.assert_allclose(model(inputs_embeds=embedded).logits, logits)

    def both(model: Any, e: jax.Array) -> Any:
        output = model(inputs_embeds=e)
        return output.logits, output

    relevance, output = lrp.relevance(both, lrp.AttnLRP(), has_aux=True)(model, embedded, target=1)
    by_ids = found["explain"](model, ids, target=1)
    np.testing.assert_allclose(by_ids, relevance.sum(-1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(output.logits, logits)
    assert len(output.hidden_states) == 2


def test_an_output_of_several_arrays_is_told_how_to_ask() -> None:
    model = nn.Dense(2)
    variables = model.init(jax.random.key(0), X)

    def several(variables: Any, x: jax.Array) -> Any:
        return {"logits": model.apply(variables, x), "embedding": x}

    with pytest.raises(TypeError, match="explain a function that returns one of them"):
        lrp.relevance(several, lrp.Epsilon())(variables, X)


def test_orbax_checkpoints_of_nnx(tmp_path: Path) -> None:
    nnx = pytest.importorskip("flax.nnx")
    ocp = pytest.importorskip("orbax.checkpoint")
    model, other = nnx.Linear(5, 3, rngs=nnx.Rngs(0)), nnx.Linear(5, 3, rngs=nnx.Rngs(1))
    explain = lrp.relevance(lambda model, x: model(x), lrp.Epsilon())
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "saved", nnx.state(model))
    assert not np.allclose(explain(model, X), explain(other, X))
    with ocp.StandardCheckpointer() as checkpointer:
        nnx.update(other, checkpointer.restore(tmp_path / "saved", nnx.state(other)))
    np.testing.assert_array_equal(explain(model, X), explain(other, X))


def test_pictures_are_plain_arrays_that_loggers_take(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    colours = plot.rgb(np.linspace(-1, 1, 64).reshape(8, 8))
    assert (colours.dtype, colours.shape) == (np.uint8, (8, 8, 3))
    assert colours.flags.c_contiguous
    image.fromarray(colours).save(tmp_path / "relevance.png")
    with image.open(tmp_path / "relevance.png") as read:
        np.testing.assert_array_equal(np.asarray(read), colours)


def test_tensorboard_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboardX", reason="not in the extra `test`")
    monkeypatch.chdir(tmp_path)
    recipe("Log to TensorBoard")
    (events,) = (tmp_path / "runs").iterdir()
    assert b"PNG" in events.read_bytes()


def test_weights_and_biases_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="not in the extra `test`")
    monkeypatch.chdir(tmp_path)
    for home in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(home, str(tmp_path))
    found = recipe("Log to Weights & Biases")
    one, figure = sorted(
        tmp_path.glob("wandb/offline-run-*/files/media/images/*.png"), reverse=True
    )
    image = pytest.importorskip("PIL.Image")
    with image.open(one) as read:
        np.testing.assert_array_equal(np.asarray(read)[..., :3], plot.rgb(found["relevance"]))
    assert figure.name.startswith("figure")
