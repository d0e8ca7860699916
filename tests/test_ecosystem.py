"""Other people's frameworks: the recipes of the manual run, and give what plain JAX gives."""

from __future__ import annotations

import contextlib
import io
import re
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

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


class Perceptron(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(5, 8, rngs=rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(nnx.relu(self.hidden(x)))


def notes_of(call: Callable[[], Any], error: type[Exception]) -> str:
    with pytest.raises(error) as caught:
        call()
    return "".join(getattr(caught.value, "__notes__", []))


MODELS: dict[str, tuple[Any, str]] = {
    "nnx": (Perceptron(nnx.Rngs(0)), "model(x)"),
    "equinox": (eqx.nn.MLP(5, 3, 8, 1, key=jax.random.key(1)), "jax.vmap(model)(x)"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_is_explained_itself_is_told_the_line_that_works(name: str) -> None:
    model, call = MODELS[name]
    line = f"relevance(lambda model, x: {call}, composite)(model, x)"
    explain = lrp.relevance(model, lrp.Epsilon())
    assert line in notes_of(lambda: explain(X), ValueError)
    assert line in notes_of(lambda: explain(X, target=1), ValueError)
    assert line in notes_of(lambda: explain(model, X), TypeError)
    names = {"model": model, "x": X, "relevance": lrp.relevance, "jax": jax}
    assert eval(line, {**names, "composite": lrp.Epsilon()}).shape == X.shape


def test_a_linen_module_that_is_bound_is_told_the_lines_that_work() -> None:
    unbound = nn.Dense(3)
    bound = unbound.bind(unbound.init(jax.random.key(0), X))
    notes = notes_of(lambda: lrp.relevance(bound, lrp.Epsilon())(X), ValueError)
    assert "module, variables = model.unbind()" in notes
    assert "relevance(module.apply, composite)(variables, x)" in notes
    module, variables = bound.unbind()
    assert lrp.relevance(module.apply, lrp.Epsilon())(variables, X).shape == X.shape


def test_a_function_of_one_example_is_told_to_be_mapped() -> None:
    mlp, _ = MODELS["equinox"]
    explain = lrp.relevance(lambda model, x: model(x), lrp.Epsilon())
    assert "jax.vmap(lambda one: apply_fn(params, one))(x)" in notes_of(
        lambda: explain(mlp, X), TypeError
    )
    assert "takes no batch" not in notes_of(lambda: explain(mlp, X[:, :2]), TypeError)


def test_one_example_without_its_batch_is_told_so() -> None:
    def apply(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        batch, features = x.shape
        return x.reshape(batch, features) @ params["w"]

    explain = lrp.relevance(apply, lrp.Epsilon())
    assert "x[None] for one example" in notes_of(
        lambda: explain({"w": jnp.eye(5)}, X[0]), ValueError
    )


def test_haiku_without_its_random_key() -> None:
    net = hk.transform(lambda x: hk.nets.MLP([8, 3])(x))
    params = net.init(jax.random.key(0), X)
    with pytest.raises(TypeError, match=r"relevance\(model.apply, composite\)\(params, x\)"):
        lrp.relevance(net, lrp.Epsilon())
    explain = lrp.relevance(net.apply, lrp.Epsilon())
    assert "hk.without_apply_rng(net).apply" in notes_of(lambda: explain(params, X), ValueError)
    with pytest.raises(TypeError, match="argument 1 is explained and holds no arrays"):
        explain(params, None, X)


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
    assert kinds == ["Dense"] * 3 + ["MatMul", "Softmax", "Attention", "Dense", "Merge"] + [
        "Dense",
        "Activation",
        "Dense",
    ]


NORMS = {
    "x / s - mean / s": lambda x, m, s, w: x * (w[0] / s) + (w[1] - m * (w[0] / s)),
    "scaled later": lambda x, m, s, w: (x / s - m / s) * w[0] + w[1],
}


@pytest.mark.parametrize("form", NORMS)
@pytest.mark.parametrize("composite", [lrp.AttnLRP(), lrp.CPLRP(), lrp.EpsilonPlus(0.1)],
                         ids=["AttnLRP", "CPLRP", "EpsilonPlus"])  # fmt: skip
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
    kinds = [layer.kind.label for layer in lrp.plan(spread, composite)(w, x).layers]
    assert kinds == ["Normalization", "Dense"]
    np.testing.assert_allclose(found, expected, atol=1e-9 * float(jnp.abs(expected).max()))


def test_two_norms_of_one_value_are_two_norms() -> None:
    def apply(w: Any, x: jax.Array) -> jax.Array:
        s = jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-3)
        return (x * (s * w[0]) + (x * w[1]) * s) @ w[2]

    w = [jnp.ones(5), 2 * jnp.ones(5), jnp.ones((5, 2))]
    kinds = [layer.kind.label for layer in lrp.plan(apply, lrp.AttnLRP())(w, X).layers]
    assert kinds == ["Normalization", "Normalization", "Merge", "Dense"]


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


def test_keras_variables_that_share_a_path_have_names_of_their_own(keras: Any) -> None:
    class Twins(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.halves = [
                keras.Sequential([keras.layers.Dense(3, name="d")], name="s") for _ in "ab"
            ]

        def call(self, x: Any) -> Any:
            return self.halves[0](x) * 2 + self.halves[1](x)

    model = Twins()
    model(X)
    assert len({v.path for v in model.variables}) < len(model.variables)
    names = {id(v): f"{v.path}:{i}" for i, v in enumerate(model.variables)}
    values = {names[id(v)]: v.value for v in model.variables}

    def apply(values: Any, x: jax.Array) -> Any:
        return model.stateless_call([values[names[id(v)]] for v in model.variables], [], x)[0]

    found = lrp.relevance(apply, lrp.Zero())(values, X, target=0)
    kernels = [np.asarray(half.layers[0].kernel) for half in model.halves]
    np.testing.assert_allclose(found, X * (2 * kernels[0] + kernels[1])[:, 0], atol=1e-5)
    labels = [layer.kind.label for layer in lrp.plan(apply, lrp.Zero())(values, X).layers]
    assert labels.count("Dense") == 2


ROW = re.compile(r"^\| ([A-Z][\w ]+) \| `([^|]*)` \| `([^|]*)` \|$", re.M)
LINES = {name: row for name, *row in ROW.findall((PAGES / "frameworks.md").read_text())}


def linen() -> dict[str, Any]:
    model = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(3)])
    return {"model": model, "variables": model.init(jax.random.key(0), X)}


def haiku() -> dict[str, Any]:
    model = hk.transform(lambda x: hk.nets.MLP([8, 3])(x))
    return {"model": model, "hk": hk, "params": model.init(jax.random.key(0), X)}


def keras_3() -> dict[str, Any]:
    keras = pytest.importorskip("keras", reason="not in the extra `test`")
    hidden = keras.layers.Dense(8, activation="relu")
    return {"model": keras.Sequential([keras.Input((5,)), hidden, keras.layers.Dense(3)])}


def hugging_face() -> dict[str, Any]:
    transformers = pytest.importorskip("transformers", reason="only in the extra `guests`")
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=8,
    )  # fmt: skip
    return {"model": transformers.FlaxBertForSequenceClassification(config)}


def penzai() -> dict[str, Any]:
    pytest.importorskip("penzai", reason="not in the extra `test`")
    found = recipe("Penzai")
    return {"frozen": found["frozen"], "pz": found["pz"]}


BUILT: dict[str, Callable[[], dict[str, Any]]] = {
    "Flax Linen": linen, "Flax NNX": lambda: {"model": MODELS["nnx"][0]},
    "Equinox": lambda: {"model": MODELS["equinox"][0]}, "Haiku": haiku, "Keras 3": keras_3,
    "Hugging Face": hugging_face, "Penzai": penzai,
}  # fmt: skip


def test_every_line_of_the_table_is_tried() -> None:
    assert LINES.keys() == BUILT.keys()


@pytest.mark.parametrize("name", BUILT)
def test_one_line_for_each_framework(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a perceptron with ReLU LRP-0 is the input times the gradient."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # their own
        names = {**BUILT[name](), "jax": jax}
        function, parameters = (eval(line, names) for line in LINES[name])
    if name == "Hugging Face":
        ids = jnp.array([[3, 1, 4]])
        relevance = lrp.relevance(function, lrp.AttnLRP())(parameters, ids, target=0)
        assert relevance.shape == ids.shape
        return
    found = lrp.relevance(function, lrp.Zero())(parameters, X, target=1)
    gradient = jax.grad(lambda x: function(parameters, x)[:, 1].sum())(X)
    np.testing.assert_allclose(found, X * gradient, atol=1e-5)
    assert float(jnp.abs(found).max()) > 0


def test_hugging_face_recipe() -> None:
    pytest.importorskip("transformers", reason="only in the extra `guests`")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # their own
        found = recipe("Hugging Face")
    assert found["explain"](found["model"].params, found["ids"], target=0).shape == (1, 5)


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
    np.testing.assert_allclose(output.logits, logits, rtol=1e-5)
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


def test_shap_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("shap")
    monkeypatch.chdir(tmp_path)
    page = (PAGES / "saving.md").read_text()
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with jax.enable_x64(False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for code, _ in FENCE.findall(page):
            exec(compile(code, "saving.md", "exec"), namespace)
    assert min(namespace["agreement"]) > 0


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
