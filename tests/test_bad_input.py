"""Mistakes: each is a clear error or a documented warning that names what is wrong and where."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrp_jax as lrp
import lrp_jax.baselines
import lrp_jax.evaluation

WEIGHTS = {"lower": jnp.ones((4, 3)), "upper": jnp.ones((3, 5))}
X = jnp.arange(8.0).reshape(2, 4)


def mlp(w: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return jax.nn.relu(x @ w["lower"]) @ w["upper"]


# Composites


@pytest.mark.parametrize("entry", [42, None, nn.Conv, lrp.Epsilon(), ("Dense", "Conv")], ids=repr)
def test_what_is_not_a_match(entry: Any) -> None:
    with pytest.raises(TypeError, match="Dense"):  # the message lists what can be used
        lrp.Composite([(entry, lrp.Epsilon())])


@pytest.mark.parametrize("rule", ["Epsilon", lrp.Epsilon, 1e-6, None], ids=repr)
def test_what_is_not_a_rule(rule: Any) -> None:
    with pytest.raises(TypeError, match=r"(?i)rule"):
        lrp.Composite([(lrp.Dense, rule)])


@pytest.mark.parametrize("entries", [[lrp.Epsilon()], [(lrp.Dense,)], lrp.Dense], ids=repr)
def test_entries_are_pairs(entries: Any) -> None:
    with pytest.raises(TypeError, match=r"\(match, rule\)"):
        lrp.Composite(entries)


@pytest.mark.parametrize(
    "composite", ["EpsilonPlus", None, lrp.EpsilonPlus], ids=["name", "none", "function"]
)
def test_what_is_not_a_composite(composite: Any) -> None:
    with pytest.raises(TypeError, match="Composite"):
        lrp.relevance(mlp, composite)


@pytest.mark.parametrize("bounds", [(0.7, 0.3), (0.5, 0.5), (-0.1, 0.5)])
def test_a_depth_that_is_no_range(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="depth"):
        lrp.depth(*bounds)


@pytest.mark.parametrize(
    ("match", "rule", "name"),
    [
        (lrp.Activation, lrp.ZBox(0.0, 1.0), "ZBox"),
        (lrp.Activation, lrp.Gamma(), "Gamma"),
        (lrp.Dense, lrp.Gate(), "Gate"),
    ],
    ids=["box", "gamma", "gate"],
)
def test_a_rule_that_cannot_serve_a_layer(match: Any, rule: lrp.Rule, name: str) -> None:
    composite = lrp.EpsilonPlus().override((match, rule))
    with pytest.raises((TypeError, ValueError), match=f"(?s){name}.*(Dense|ReLU|Activation)"):
        lrp.plan(mlp, composite)(WEIGHTS, X)


def test_relevance_and_modified_gradients_do_not_mix() -> None:
    with pytest.raises(ValueError, match=r"relevance.*GuidedBackprop"):
        lrp.EpsilonPlus().override((lrp.ReLU, lrp.GuidedBackprop()))


def test_a_layer_that_no_entry_matches_is_visible_in_the_plan() -> None:
    plan = lrp.plan(mlp, lrp.Composite([("lower", lrp.Gamma())]))(WEIGHTS, X)
    (upper,) = [layer for layer in plan.layers if layer.path == "upper"]
    assert (upper.rule, upper.chosen_by) == ("Epsilon()", "base")


# Rules


@pytest.mark.parametrize(
    "make",
    [
        lambda: lrp.ZBox(),
        lambda: lrp.ZBox(None, None),
        lambda: lrp.EpsilonGammaBox(),
        lambda: lrp.LRPOverview(),
        lambda: lrp.DeepTaylor(low=0.0),
    ],
)
def test_a_box_without_bounds(make: Callable[[], Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=r"low|bounds"):
        make()


def test_a_box_upside_down() -> None:
    with pytest.raises(ValueError, match=r"low.*high"):
        lrp.ZBox(1.0, 0.0)


def test_bounds_that_do_not_fit_the_input() -> None:
    composite = lrp.EpsilonPlus().override(("lower", lrp.ZBox(np.zeros(3), np.ones(3))))
    with pytest.raises(ValueError, match=r"(?s)(lower|ZBox).*\(3,\)"):
        lrp.relevance(mlp, composite)(WEIGHTS, X)


@pytest.mark.parametrize(
    "make",
    [
        lambda: lrp.Epsilon(-1e-6),
        lambda: lrp.Gamma(-0.5),
        lambda: lrp.Gamma(stabilizer=-1.0),
        lambda: lrp.Epsilon(bias="keep"),
        lambda: lrp.AlphaBeta(0.5, -0.5),
        lambda: lrp.AlphaBeta(2.0, 2.0),
        lambda: lrp.Flat(-1.0),
    ],
)
def test_wrong_numbers_in_rules(make: Callable[[], lrp.Rule]) -> None:
    with pytest.raises(ValueError, match=r"Epsilon|Gamma|AlphaBeta|Flat"):
        make()


@pytest.mark.parametrize(
    "composite", [[(lrp.Dense, lrp.Epsilon())], (lrp.Dense, lrp.Epsilon()), {"a": lrp.Epsilon()}]
)
def test_a_plain_collection_is_told_to_be_a_composite(composite: Any) -> None:
    with pytest.raises(TypeError, match=r"Composite\(\[\(match, rule\)"):
        lrp.relevance(mlp, composite)


def test_what_is_no_composite_is_shown_in_short() -> None:
    with pytest.raises(TypeError) as error:
        lrp.plan(mlp, {str(i): np.ones((50, 50)) for i in range(50)})
    assert len(str(error.value)) < 400


# Rules of one's own


def shared(layer: Any) -> jax.Array:
    return layer.divide(layer.relevance, layer.output, 1e-6)


def test_a_rule_without_its_decorator() -> None:
    class Bare(lrp.Rule):
        gamma: float = 0.5

        def terms(self, layer: Any) -> list[lrp.Term]:
            return [lrp.Term(shared(layer), 1, 1)]

    class More(lrp.Epsilon):
        gamma: float = 0.5

    @dataclass(eq=False, repr=False)
    class Thawed(lrp.Rule):
        gamma: float = 0.5

    makes: list[Callable[[], Any]] = [Bare, lambda: Bare(gamma=1.0), More, Thawed]
    for make in makes:
        with pytest.raises(TypeError, match=r"@dataclass\(frozen=True, eq=False, repr=False\)"):
            lrp.Composite([(lrp.Dense, make())])


def test_a_rule_that_changes_a_method_alone_needs_no_decorator() -> None:
    class Half(lrp.Epsilon):
        def terms(self, layer: Any) -> list[lrp.Term]:
            return [lrp.Term(shared(layer) / 2, 1, 1)]

    one = lrp.relevance(lambda w, x: x @ w["lower"], lrp.Epsilon())(WEIGHTS, X, target=0)
    half = lrp.relevance(lambda w, x: x @ w["lower"], Half())(WEIGHTS, X, target=0)
    np.testing.assert_allclose(half, one / 2)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (lambda layer: lrp.Term(shared(layer), 1, 1), r"Own.terms returns a list"),
        (lambda layer: shared(layer), r"Own.terms returns a list"),
        (lambda layer: None, r"Own.terms returns a list of lrp.Term, not NoneType"),
        (lambda layer: [shared(layer)], r"Own.terms.*lrp.Term\(share, positive=1, negative=1\)"),
        (lambda layer: [lrp.Term(shared(layer).sum(), 1, 1)], r"Own.terms.*shape \(\) .*\(2, 5\)"),
        (lambda layer: [lrp.Term(shared(layer)[0], 1, 1)], r"Own.terms.*shape \(5,\) .*\(2, 5\)"),
    ],
    ids=["one term", "array", "nothing", "list of arrays", "scalar", "row"],
)
def test_terms_that_are_none(terms: Any, message: str) -> None:
    @dataclass(frozen=True, eq=False, repr=False)
    class Own(lrp.Rule):
        def terms(self, layer: Any) -> Any:
            return terms(layer)

    with pytest.raises((TypeError, ValueError), match=message):
        lrp.relevance(mlp, Own())(WEIGHTS, X)


def test_a_rule_that_says_nothing_or_too_much() -> None:
    @dataclass(frozen=True, eq=False, repr=False)
    class Mute(lrp.Rule):
        gamma: float = 0.5

    @dataclass(frozen=True, eq=False, repr=False)
    class Greedy(lrp.Epsilon):
        serves = lrp.Linear | lrp.Softmax

    @dataclass(frozen=True, eq=False, repr=False)
    class Misspelt(lrp.Epsilon):
        bias: Any = "asborb"

        def __post_init__(self) -> None:
            """Checks nothing."""

    with pytest.raises(TypeError, match=r"Mute .* no `terms\(self, layer\)`"):
        lrp.plan(mlp, Mute())
    with pytest.raises(TypeError, match=r"Greedy.serves is Linear \| Softmax"):
        lrp.Composite([(lrp.Dense, Greedy())])
    with pytest.raises(ValueError, match=r"Misspelt\(bias='asborb'\)"):
        lrp.Composite([(lrp.Dense, Misspelt())])


# Arguments


def test_swapped_arguments_are_noticed_where_the_model_fails() -> None:
    with pytest.raises(TypeError) as error:
        lrp.relevance(mlp, lrp.Epsilon())(X, WEIGHTS)
    assert "swapped? argnums=1" in "".join(error.value.__notes__)
    with pytest.raises(KeyError) as error_of_model:
        lrp.relevance(lambda w, x: x @ w["absent"], lrp.Epsilon())(WEIGHTS, X)
    assert "swapped" not in "".join(getattr(error_of_model.value, "__notes__", []))


def notes_of(call: Callable[[], Any], error: type[Exception] = TypeError) -> str:
    with pytest.raises(error) as caught:
        call()
    return "".join(getattr(caught.value, "__notes__", []))


def matrix(w: jax.Array, x: jax.Array) -> jax.Array:
    return x @ w


def test_swapped_arguments_are_found_by_trying() -> None:
    swapped = notes_of(lambda: lrp.relevance(matrix, lrp.Epsilon())(X, WEIGHTS["lower"]))
    assert "swapped? argnums=1 counts from 0: explain(params, x)" in swapped
    first = lrp.relevance(lambda x, w: x @ w, lrp.Epsilon(), argnums=0)
    assert "argnums=0 counts from 0: explain(x, params)" in notes_of(
        lambda: first(WEIGHTS["lower"], X)
    )
    # parameters with a counter are refused before the function is called
    counted = WEIGHTS | {"steps": jnp.arange(3)}
    assert "swapped?" in notes_of(lambda: lrp.relevance(mlp, lrp.Epsilon())(X, counted))
    inputs = {"x": X}
    both = lrp.relevance(lambda w, x: mlp(w, x["x"]), lrp.Epsilon())
    assert "swapped?" in notes_of(lambda: both(inputs, WEIGHTS), KeyError)
    wrong = lrp.relevance(matrix, lrp.Epsilon())
    assert "lrp_jax" not in notes_of(lambda: wrong(WEIGHTS["lower"], jnp.ones((2, 7))))


MAKERS: list[Callable[..., Any]] = [
    lrp.relevance,
    lrp.value_and_relevance,
    lrp.lrp_transform,
    lrp.plan,
    lrp.conservation,
    lrp.layer_relevances,
    lrp.parameter_relevance,
    lrp.relevance_matrix,
    lrp.concept_scores,
    lrp.concept_relevance,
]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_a_target_where_the_explanation_is_made(make: Callable[..., Any]) -> None:
    name = make.__name__
    with pytest.raises(TypeError, match=rf"{name}\(apply_fn, composite\)\(params, x, target="):
        make(mlp, lrp.Epsilon(), target=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'argnum'"):
        make(mlp, lrp.Epsilon(), argnum=0)


def test_a_target_where_none_is_taken() -> None:
    for make in (lrp.lrp_transform, lrp.plan, lrp.relevance_matrix):
        notes = notes_of(lambda make=make: make(mlp, lrp.Epsilon())(WEIGHTS, X, target=3))
        assert "relevance(apply_fn, composite)(params, x, target=...) takes one" in notes
        assert "cotangent" in notes


@pytest.mark.parametrize(
    "target",
    [3, np.array([0, 1]), [0, 1], lambda y: y, lrp.targets.top_k(1)],
    ids=["an index", "an array", "a list", "a function", "a helper"],
)
def test_a_target_without_its_name(target: Any) -> None:
    notes = notes_of(lambda: lrp.relevance(mlp, lrp.Epsilon())(WEIGHTS, X, target))
    assert "passed by its name: explain(params, x, target=...)" in notes
    net = nn.Dense(5)
    params = net.init(jax.random.key(0), X)
    notes = notes_of(lambda: lrp.relevance(net.apply, lrp.Epsilon())(params, X, target))
    assert "passed by its name" in notes


def test_a_target_in_the_place_of_argnums() -> None:
    with pytest.raises(ValueError, match=r"argnums=3 .*\(params, x, target=...\)"):
        lrp.relevance(mlp, lrp.Epsilon(), 3)(WEIGHTS, X)


def test_a_keyword_that_the_function_does_not_take() -> None:
    explain = lrp.relevance(mlp, lrp.Epsilon())
    notes = notes_of(lambda: explain(WEIGHTS, X, targets=3))
    assert "without targets= the function runs" in notes
    assert "explain(params, x, target=...)" in notes


def test_a_module_in_the_place_of_its_function() -> None:
    net = nn.Dense(2)
    with pytest.raises(Exception, match=r"unbound") as error:
        lrp.relevance(net, lrp.Epsilon())(net.init(jax.random.key(0), X), X)
    assert "explain the function model.apply" in "".join(error.value.__notes__)


def test_a_keras_model_in_the_place_of_a_function() -> None:
    class Model:
        def __call__(self, x: Any) -> Any:
            return x @ WEIGHTS

        def stateless_call(self) -> None: ...

    notes = notes_of(lambda: lrp.relevance(Model(), lrp.Epsilon())(WEIGHTS, X))
    assert "model.stateless_call(*v, x, training=False)[0], called with v = (" in notes


def test_an_argument_forgotten() -> None:
    with pytest.raises(ValueError, match=r"lambda model, x: model\(x\)"):
        lrp.relevance(mlp, lrp.Epsilon())(X)


def test_lists_of_python_ints_are_named() -> None:
    with pytest.raises(TypeError, match=r"floating-point arrays, got int\."):
        lrp.relevance(mlp, lrp.Epsilon())(WEIGHTS, [[1, 2, 3, 4]])


def test_a_fill_that_is_a_number() -> None:
    with pytest.raises(TypeError, match=r"fills.constant\(0.5\), not 0.0"):
        lrp_jax.evaluation.pixel_flipping(mlp, fill=0.0)  # type: ignore[arg-type]


def test_integer_inputs() -> None:
    with pytest.raises(lrp.UnsupportedOperation, match=r"int\d+.*x\.astype\(jnp\.float32\)"):
        lrp.relevance(mlp, lrp.Epsilon())(WEIGHTS, jnp.ones((2, 4), int))


@pytest.mark.parametrize("argnums", [2, 5, -3, (1, 2)])
def test_argnums_out_of_range(argnums: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="argnums"):
        lrp.relevance(mlp, lrp.Epsilon(), argnums=argnums)(WEIGHTS, X)


@pytest.mark.parametrize("argnums", ["x", 1.0, (1, 1)], ids=repr)
def test_argnums_that_name_nothing(argnums: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="argnums"):
        lrp.relevance(mlp, lrp.Epsilon(), argnums=argnums)(WEIGHTS, X)


@pytest.mark.parametrize(
    "target", [5, -1, np.array([0, 7]), jnp.array([0, 5])], ids=["5", "-1", "numpy", "jax"]
)
def test_a_class_out_of_range(target: Any) -> None:
    with pytest.raises(ValueError, match=r"out of range.*\(2, 5\)"):
        lrp.relevance(mlp, lrp.Epsilon())(WEIGHTS, X, target=target)


@pytest.mark.parametrize(
    ("target", "shape"),
    [
        (np.array([0, 1, 2]), r"\(3,\)"),
        (np.ones((2, 4)), r"\(2, 4\)"),
        (np.ones(5), r"\(5,\)"),
        (lambda output: output[0], r"\(5,\)"),
    ],
    ids=["classes", "weighting", "no batch", "callable"],
)
def test_a_target_of_the_wrong_shape_names_both_shapes(target: Any, shape: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){shape}.*2, 5|2, 5.*{shape}"):
        lrp.relevance(mlp, lrp.Epsilon())(WEIGHTS, X, target=target)


@pytest.mark.parametrize("target", ["cat", True], ids=repr)
def test_a_target_of_the_wrong_type(target: Any) -> None:
    with pytest.raises(TypeError, match="target"):
        lrp.relevance(mlp, lrp.Epsilon())(WEIGHTS, X, target=target)


# Models


def test_a_closed_over_model_is_told_how_to_pass_its_weights() -> None:
    def closure(x: jax.Array) -> jax.Array:
        return mlp(WEIGHTS, x)

    (warning,) = lrp.plan(closure, lrp.Epsilon(), argnums=0)(X).warnings
    assert "(4, 3)" in warning
    assert "as an argument" in warning
    np.testing.assert_allclose(
        lrp.relevance(closure, lrp.Epsilon(), argnums=0)(X),
        lrp.relevance(mlp, lrp.Epsilon())(WEIGHTS, X),
        rtol=1e-12,
    )


def test_batch_norm_in_training_mode() -> None:
    class Network(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            x = nn.BatchNorm(use_running_average=False)(nn.Dense(3)(x))
            return nn.Dense(2)(nn.relu(x))

    params = Network().init(jax.random.key(0), X)

    def apply_fn(params: Any, x: jax.Array) -> Any:
        return Network().apply(params, x, mutable=["batch_stats"])

    with pytest.raises(ValueError, match=r"(?s)BatchNorm.*(running|training|inference)"):
        lrp.relevance(apply_fn, lrp.EpsilonPlus(), has_aux=True)(params, X)


def test_a_model_that_ends_in_a_softmax_is_told_to_return_its_logits() -> None:
    plan = lrp.plan(lambda w, x: nn.softmax(mlp(w, x)), lrp.Epsilon())(WEIGHTS, X)
    (warning,) = plan.warnings
    assert "softmax" in warning
    assert "logits" in warning


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_a_warning_points_at_the_line_of_the_caller(wrap: Callable[..., Any]) -> None:
    methods = [
        lrp.relevance(mlp, lrp.Composite([("absent", lrp.Zero()), (lrp.Dense, lrp.Epsilon())])),
        lrp.relevance(lambda w, x: jnp.stack([mlp(w, x)] * 2, 1), lrp.Epsilon()),
        lrp_jax.baselines.gradient(lambda w, x: jnp.stack([mlp(w, x)] * 2, 1)),
    ]
    for method in map(wrap, methods):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            method(WEIGHTS, X)
        assert {warning.filename for warning in caught} == {__file__}


def test_nan_passes_through() -> None:
    x = X.at[0, 1].set(jnp.nan)
    relevance = lrp.relevance(mlp, lrp.EpsilonPlus())(WEIGHTS, x, target=0)
    assert np.isnan(relevance[0]).any()
    assert np.isfinite(relevance[1]).all()


@pytest.mark.parametrize(
    ("operation", "primitive"),
    [
        (lambda x: jax.scipy.special.gammainc(x, 2.0), "igamma"),
        (lambda x: jnp.linalg.qr(x)[0], "qr"),
        (lambda x: jax.lax.while_loop(lambda x: x.max() > 1, lambda x: x / 2, x), "while"),
    ],
    ids=["igamma", "qr", "while"],
)
def test_what_cannot_be_explained_is_named_with_its_place(
    operation: Callable[[jax.Array], jax.Array], primitive: str
) -> None:
    def apply_fn(w: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        return operation(x @ w["lower"] + 1.0)

    with pytest.raises(lrp.UnsupportedOperation, match=f"`{primitive}`") as caught:
        lrp.plan(apply_fn, lrp.Epsilon())(WEIGHTS, X)
    assert "test_bad_input.py" in str(caught.value)
    assert "stop_gradient" in str(caught.value)


def test_an_unsupported_operation_names_its_layer() -> None:
    class Network(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return Product(name="inner")(nn.Dense(3)(x))

    class Product(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return jnp.linalg.qr(x)[0]

    params = Network().init(jax.random.key(0), X)
    with pytest.raises(lrp.UnsupportedOperation, match="inner"):
        lrp.relevance(Network().apply, lrp.Epsilon())(params, X)


def test_an_output_that_does_not_depend_on_the_input_has_no_relevance_for_it() -> None:
    explain = lrp.relevance(lambda w, x: w["upper"], lrp.Epsilon())
    with pytest.warns(UserWarning, match="no output depends"):
        relevance = explain(WEIGHTS, X)
    np.testing.assert_array_equal(relevance, jnp.zeros_like(X))


def test_right_use_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lrp.relevance(mlp, lrp.EpsilonPlus())(WEIGHTS, X)
        str(lrp.plan(mlp, lrp.EpsilonPlus())(WEIGHTS, X))


def test_numbers_of_64_bits_are_no_matter_of_their_own() -> None:
    """Where JAX has none, trying other calls of a model that fails says nothing about them."""
    with jax.enable_x64(False), pytest.raises(TypeError, match="contracting"):
        lrp.relevance(lambda w, x: x @ w, lrp.Zero())(np.ones((4, 2)), np.ones((3, 5)))


@pytest.mark.parametrize(
    ("module", "name", "here"),
    [
        (lrp, "Gradient", "lrp.relevance"),
        (lrp, "SequentialMergeBatchNorm", "no canonizers"),
        (lrp.composites, "GuidedBackprop", r"composites\.guided_backprop\(\)"),
        (lrp_jax.baselines, "IntegratedGradients", "integrated_gradients"),
        (lrp, "nothing_like_it", "has no attribute 'nothing_like_it'$"),
    ],
)
def test_names_of_other_libraries_say_what_is_written_here(
    module: Any, name: str, here: str
) -> None:
    with pytest.raises(AttributeError, match=here):
        getattr(module, name)


@pytest.mark.parametrize(("shape", "remedy"), [((2, 3, 8, 8), "last"), ((2, 8, 8, 3), "first")])
def test_channels_on_the_other_side_are_found_by_trying(
    shape: tuple[int, ...], remedy: str
) -> None:
    layout = ("NHWC", "HWIO", "NHWC") if remedy == "last" else ("NCHW", "HWIO", "NCHW")

    def apply(w: jax.Array, x: jax.Array) -> jax.Array:
        out = jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=layout)
        return out.reshape(len(out), -1)

    with pytest.raises((TypeError, ValueError)) as error:
        lrp.relevance(apply, lrp.Zero())(jnp.ones((3, 3, 3, 2)), jnp.ones(shape))
    assert f"channels {remedy} the function runs" in "".join(error.value.__notes__)


def test_a_scope_in_the_place_of_its_layers() -> None:
    def apply(w: Any, x: jax.Array) -> jax.Array:
        return x @ w["block"]["a"] @ w["block"]["b"]

    w = {"block": {"a": jnp.ones((4, 2)), "b": jnp.ones((2, 2))}}
    with pytest.raises(ValueError, match=r"'block'; inside of it are block/a, block/b"):
        lrp.layer_relevances(apply, lrp.Zero(), "block")(w, jnp.ones((1, 4)))
