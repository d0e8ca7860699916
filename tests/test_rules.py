"""Every rule on every kind of affine layer against the slow oracle, and cases to do by hand."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrp_jax as lrp
from lrp_jax.testing import ExplicitLayer, assert_close, signed_start

POLICIES = ("absorb", "ignore", "distribute")

RULES = [
    *(lrp.Epsilon(epsilon=0.25, bias=policy) for policy in POLICIES),
    *(lrp.Zero(bias=policy) for policy in POLICIES),
    *(lrp.Gamma(gamma=0.5, bias=policy) for policy in POLICIES),
    *(lrp.ZPlus(bias=policy) for policy in POLICIES),
    *(lrp.AlphaBeta(alpha=2.0, beta=1.0, bias=policy) for policy in POLICIES),
    lrp.ZBox(low=-3.0, high=2.0),
    lrp.WSquare(),
    lrp.Flat(),
    lrp.Norm(),
    lrp.Relative(),
]
RULES_FOR_NO_BIAS = [rule for rule in RULES if getattr(rule, "bias", "absorb") == "absorb"]
FAST_TO_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


class Layer(NamedTuple):
    """A model of one affine layer, ready to be explained."""

    apply_fn: Callable[..., jax.Array]
    params: Any
    x: jax.Array


def linen(module: nn.Module, *shape: int) -> Layer:
    """A Linen module with signed random parameters (positive where they are variances)."""
    rng = np.random.default_rng(len(shape))
    x = jnp.asarray(rng.normal(size=shape))
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        value = rng.normal(size=leaf.shape)
        return jnp.asarray(np.abs(value) + 0.5 if path[-1].key == "var" else value)

    return Layer(module.apply, jax.tree_util.tree_map_with_path(draw, shapes), x)


def plain(apply_fn: Callable[..., jax.Array], x_shape: tuple[int, ...], **shapes: Any) -> Layer:
    """A plain function with a dictionary of signed random weights."""
    rng = np.random.default_rng(len(x_shape))
    weights = {name: jnp.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}
    return Layer(apply_fn, weights, jnp.asarray(rng.normal(size=x_shape)))


def with_bias(contraction: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Add the bias where the weights have one."""

    def apply_fn(w: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        return contraction(w, x) + w["bias"] if "bias" in w else contraction(w, x)

    return apply_fn


def maybe(bias: bool, *shape: int) -> dict[str, tuple[int, ...]]:
    return {"bias": shape} if bias else {}


@with_bias
def channels_first(w: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    dims = ("NCHW", "OIHW", "NCHW")
    padding = ((1, 0), (0, 2))
    return jax.lax.conv_general_dilated(x, w["kernel"], (1, 2), padding, dimension_numbers=dims)


@with_bias
def stretched(w: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    dims = ("NWC", "WIO", "NWC")
    return jax.lax.conv_general_dilated(
        x, w["kernel"], (1,), ((2, 1),), lhs_dilation=(2,), dimension_numbers=dims
    )


@with_bias
def standardised(w: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    x = (x - jnp.array([0.4, -0.3])) / jnp.array([0.2, 1.7])
    dims = ("NWC", "WIO", "NWC")
    return jax.lax.conv_general_dilated(x, w["kernel"], (1,), "SAME", dimension_numbers=dims)


def norm() -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=True)


LAYERS: dict[str, Callable[[bool], Layer]] = {
    "dense": lambda b: linen(nn.Dense(3, use_bias=b), 3, 5),
    "dense_positions": lambda b: linen(nn.Dense(3, use_bias=b), 2, 3, 4),
    "dense_general": lambda b: linen(nn.DenseGeneral((2, 3), (-2, -1), use_bias=b), 2, 3, 4),
    "nn_einsum": lambda b: linen(nn.Einsum((4, 2, 3), "...d,dhk->...hk", use_bias=b), 2, 2, 4),
    "einsum": lambda b: plain(
        with_bias(lambda w, x: jnp.einsum("oki,bij->bkoj", w["w"], x)),
        (2, 3, 2),
        w=(2, 4, 3),
        **maybe(b, 4, 2, 1),
    ),
    "matmul": lambda b: plain(with_bias(lambda w, x: x @ w["w"]), (2, 4), w=(4, 3), **maybe(b, 3)),
    "weights_on_the_left": lambda b: plain(
        with_bias(lambda w, x: (w["w"] @ x.T).T), (2, 4), w=(3, 4), **maybe(b, 3)
    ),
    "scaled": lambda b: plain(
        with_bias(lambda w, x: (x @ w["w"]) * 0.5), (2, 4), w=(4, 3), **maybe(b, 3)
    ),
    "scaled_by_position": lambda b: plain(
        with_bias(lambda w, x: (x @ w["w"]) * w["scale"]),
        (2, 3, 4),
        w=(4, 3),
        scale=(3, 3),
        **maybe(b, 3),
    ),
    "scaled_in_two_ways": lambda b: plain(
        with_bias(lambda w, x: (x @ w["w"])[:, None] * w["scale"]),
        (2, 4),
        w=(4, 3),
        scale=(2, 3),
        **maybe(b, 3),
    ),
    "subtracted": lambda b: plain(
        lambda w, x: w["bias"] - x @ w["w"] if b else -(x @ w["w"]),
        (2, 4),
        w=(4, 3),
        **maybe(b, 3),
    ),
    "conv_1d": lambda b: linen(nn.Conv(3, (3,), use_bias=b), 2, 6, 2),
    "conv_2d": lambda b: linen(nn.Conv(3, (3, 2), use_bias=b), 2, 4, 5, 2),
    "conv_3d": lambda b: linen(nn.Conv(2, (2, 2, 2), use_bias=b), 2, 3, 2, 3, 2),
    "strided": lambda b: linen(nn.Conv(3, (3, 3), (2, 1), use_bias=b), 2, 5, 4, 2),
    "dilated": lambda b: linen(nn.Conv(2, (3,), kernel_dilation=2, use_bias=b), 2, 8, 2),
    "grouped": lambda b: linen(nn.Conv(4, (3,), feature_group_count=2, use_bias=b), 2, 5, 4),
    "depthwise": lambda b: linen(nn.Conv(6, (3,), feature_group_count=3, use_bias=b), 2, 5, 3),
    "one_by_one": lambda b: linen(nn.Conv(3, (1, 1), (2, 2), use_bias=b), 2, 4, 4, 2),
    "valid": lambda b: linen(nn.Conv(3, (3, 2), padding="VALID", use_bias=b), 2, 4, 4, 2),
    "circular": lambda b: linen(nn.Conv(3, (3,), padding="CIRCULAR", use_bias=b), 2, 6, 2),
    "causal": lambda b: linen(nn.Conv(3, (3,), padding="CAUSAL", use_bias=b), 2, 6, 2),
    "padded": lambda b: linen(nn.Conv(3, (3,), padding=((3, 1),), use_bias=b), 2, 5, 2),
    "input_dilated": lambda b: linen(
        nn.Conv(3, (3,), input_dilation=2, padding=((2, 1),), use_bias=b), 2, 4, 2
    ),
    "transposed": lambda b: linen(nn.ConvTranspose(3, (3, 2), (2, 1), use_bias=b), 2, 3, 3, 2),
    "transposed_with_gaps": lambda b: linen(
        nn.ConvTranspose(2, (2,), (3,), padding=((2, 3),), use_bias=b), 2, 4, 2
    ),
    "stretched": lambda b: plain(stretched, (2, 4, 2), kernel=(3, 2, 3), **maybe(b, 3)),
    "channels_first": lambda b: plain(
        channels_first, (2, 2, 4, 5), kernel=(3, 2, 3, 2), **maybe(b, 3, 1, 1)
    ),
    "standardised_input": lambda b: plain(standardised, (2, 5, 2), kernel=(3, 2, 3), **maybe(b, 3)),
    "norm_after_dense": lambda b: linen(nn.Sequential([nn.Dense(3, use_bias=b), norm()]), 3, 4),
    "norm_before_dense": lambda b: linen(nn.Sequential([norm(), nn.Dense(3, use_bias=b)]), 3, 4),
    "norm_after_conv": lambda b: linen(
        nn.Sequential([nn.Conv(3, (3,), use_bias=b), norm()]), 2, 5, 2
    ),
    "norm_before_padded_conv": lambda b: linen(
        nn.Sequential([norm(), nn.Conv(3, (3,), use_bias=b)]), 2, 5, 2
    ),
    "norm_on_both_sides": lambda b: linen(
        nn.Sequential([norm(), nn.Conv(3, (3,), use_bias=b), norm()]), 2, 5, 2
    ),
    "norm_after_transposed": lambda b: linen(
        nn.Sequential([nn.ConvTranspose(3, (3,), (2,), use_bias=b), norm()]), 2, 4, 2
    ),
    "two_norms": lambda b: linen(
        nn.Sequential([nn.Conv(3, (3,), use_bias=b), norm(), norm()]), 2, 5, 2
    ),
}


def explain_all(model: Layer, composites: Sequence[Any], start: jax.Array) -> list[jax.Array]:
    """The relevance of the model's input by each composite, compiled together to save time."""

    def explain(params: Any, x: jax.Array, start: jax.Array) -> list[jax.Array]:
        return [
            lrp.relevance(model.apply_fn, composite)(params, x, target=lambda _: start)
            for composite in composites
        ]

    compiled = jax.jit(explain, compiler_options=FAST_TO_COMPILE)
    return compiled(model.params, model.x, start)


def assert_all(rules: list[lrp.Rule], actual: list[Any], expected: list[Any]) -> None:
    """Compare rule by rule and name every rule that differs, not only the first."""
    failures = []
    for rule, one, other in zip(rules, actual, expected, strict=True):
        try:
            assert_close(one, other, 1e-9, repr(rule))
        except AssertionError as error:
            failures.append(str(error))
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("bias", [False, True], ids=["no_bias", "bias"])
@pytest.mark.parametrize("name", LAYERS)
def test_every_rule_matches_the_oracle(name: str, bias: bool) -> None:
    layer = LAYERS[name](bias)
    start = signed_start(layer.apply_fn, layer.params, layer.x)
    explicit = ExplicitLayer.of(*layer)
    rules = RULES if explicit.bias.any() else RULES_FOR_NO_BIAS
    expected = [explicit.propagate(rule, layer.x, start) for rule in rules]
    assert_all(rules, explain_all(layer, rules, start), expected)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "softplus": nn.softplus,
    "sigmoid": nn.sigmoid,
    "tanh": jnp.tanh,
    "leaky_relu": nn.leaky_relu,
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_knowing_the_sign_of_an_input_changes_nothing(activation: str) -> None:
    function = ACTIVATIONS[activation]
    inner = LAYERS["dense"](True)
    layer = inner._replace(apply_fn=lambda p, x: inner.apply_fn(p, function(x)))
    start = signed_start(*layer)
    hidden = function(inner.x)
    explicit = ExplicitLayer.of(inner.apply_fn, inner.params, hidden)
    expected = [explicit.propagate(rule, hidden, start) for rule in RULES]
    assert_all(RULES, explain_all(layer, RULES, start), expected)


@pytest.mark.parametrize(
    "name", ["conv_2d", "grouped", "transposed", "norm_before_padded_conv", "subtracted"]
)
def test_non_negative_inputs_of_other_layers(name: str) -> None:
    inner = LAYERS[name](True)
    layer = inner._replace(apply_fn=lambda p, x: inner.apply_fn(p, nn.relu(x)))
    start = signed_start(*layer)
    hidden = nn.relu(inner.x)
    explicit = ExplicitLayer.of(inner.apply_fn, inner.params, hidden)
    expected = [explicit.propagate(rule, hidden, start) for rule in RULES]
    assert_all(RULES, explain_all(layer, RULES, start), expected)


@pytest.mark.parametrize("name", ["dense", "conv_1d"])
def test_an_output_that_feeds_a_relu(name: str) -> None:
    """An activation hands on all it gets, also to a neuron it has switched off."""
    inner = LAYERS[name](True)
    layer = inner._replace(apply_fn=lambda p, x: nn.relu(inner.apply_fn(p, x)))
    start = signed_start(*layer)
    explicit = ExplicitLayer.of(*inner)
    expected = [explicit.propagate(rule, inner.x, start) for rule in RULES]
    assert_all(RULES, explain_all(layer, RULES, start), expected)


# A rule passes on either a relevance or a multiplier of its input: every rule above every other.
STACKED = [
    lrp.Epsilon(0.25),
    lrp.Gamma(),
    lrp.Gamma(bias="ignore"),
    lrp.ZPlus(bias="ignore"),
    lrp.AlphaBeta(2.0, 1.0, bias="distribute"),
    lrp.ZBox(-3.0, 2.0),
    lrp.WSquare(),
    lrp.Flat(),
    lrp.Relative(),
]


@pytest.mark.parametrize("upper", STACKED, ids=repr)
def test_every_rule_below_every_other(upper: lrp.Rule) -> None:
    rng = np.random.default_rng(7)
    lower_params, upper_params = (
        {
            "kernel": jnp.asarray(rng.normal(size=shape)),
            "bias": jnp.asarray(rng.normal(size=shape[1])),
        }
        for shape in ((4, 5), (5, 3))
    )
    x, start = jnp.asarray(rng.normal(size=(2, 4))), jnp.asarray(rng.normal(size=(2, 3)))

    def dense(p: Any, x: jax.Array) -> jax.Array:
        return x @ p["kernel"] + p["bias"]

    def apply_fn(p: Any, x: jax.Array) -> jax.Array:
        return dense(p["upper"], nn.relu(dense(p["lower"], x)))

    hidden = nn.relu(dense(lower_params, x))
    at_hidden = ExplicitLayer.of(dense, upper_params, hidden).propagate(upper, hidden, start)
    lower = ExplicitLayer.of(dense, lower_params, x)
    expected = [lower.propagate(rule, x, at_hidden) for rule in STACKED]
    composites = [lrp.Composite([("upper", upper), ("lower", rule)]) for rule in STACKED]
    model = Layer(apply_fn, {"lower": lower_params, "upper": upper_params}, x)
    assert_all(STACKED, explain_all(model, composites, start), expected)


@pytest.mark.parametrize("rule", RULES_FOR_NO_BIAS, ids=repr)
@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "scaled"])
@pytest.mark.parametrize("inputs", [3, 9, 100])
def test_single_precision_is_precise(inputs: int, scaled: bool, rule: lrp.Rule) -> None:
    """Also for neurons that have no contribution of one sign, or hardly any."""
    rng = np.random.default_rng(0)
    w, x, start, scale = (
        rng.normal(size=shape).astype(np.float32)
        for shape in ((inputs, 40), (4, 2, inputs), (4, 2, 40), (2, 40))
    )
    scale = scale if scaled else np.ones_like(scale)

    def dense(w: jax.Array, x: jax.Array) -> jax.Array:
        return (x @ w) * scale if scaled else x @ w

    # A neuron that nearly cancels is ill-conditioned for any algorithm: nothing starts there.
    contributions = x[..., None].astype(np.float64) * w * scale[:, None]
    start = start * (np.abs(contributions.sum(-2)) > 0.05 * np.abs(contributions).sum(-2))
    expected = ExplicitLayer.of(dense, w.astype(np.float64), x).propagate(rule, x, start)
    actual = lrp.relevance(dense, rule)(w, x, target=lambda _: jnp.asarray(start, jnp.float32))
    assert actual.dtype == jnp.float32
    assert_close(actual, expected, 1e-5)


# Small enough to do by hand.


def neuron(
    rule: lrp.Rule, *, x: list[float], w: list[float], b: float = 0.0, r: float = 1.0
) -> Any:
    """What the inputs of a single neuron receive when the neuron has relevance ``r``."""
    params = {"w": jnp.array(w, float)[:, None], "b": jnp.array([b])}
    explain = lrp.relevance(lambda p, x: x @ p["w"] + p["b"], rule)
    relevance = explain(params, jnp.array([x], float), target=lambda _: jnp.array([[r]], float))
    return pytest.approx(np.asarray(relevance[0]), abs=1e-12)


@pytest.mark.parametrize(
    ("rule", "neuron_is", "expected"),
    [
        # z = 1*3 - 2*1 + 1 = 2, each contribution divided by z
        (lrp.Epsilon(0.0), dict(x=[1, 2], w=[3, -1], b=1, r=4), [6, -4]),
        (lrp.Zero(), dict(x=[1, 2], w=[3, -1], b=1, r=4), [6, -4]),
        (lrp.Epsilon(2.0), dict(x=[1, 2], w=[3, -1], b=1, r=4), [3, -2]),
        (lrp.Norm(stabilizer=2.0), dict(x=[1, 2], w=[3, -1], b=1, r=4), [3, -2]),
        # without the bias z = 1; distributed, each input gets half of the bias's 1/2
        (lrp.Epsilon(0.0, bias="ignore"), dict(x=[1, 2], w=[3, -1], b=1, r=4), [12, -8]),
        (lrp.Epsilon(0.0, bias="distribute"), dict(x=[1, 2], w=[3, -1], b=1, r=4), [7, -3]),
        # z = -2 moves away from zero: S(z) = -2.5
        (lrp.Epsilon(0.5), dict(x=[1], w=[-2], r=5), [4]),
        # z = 0 counts as positive; without a stabiliser nothing can be shared
        (lrp.Epsilon(0.5), dict(x=[1, 1], w=[1, -1]), [2, -2]),
        (lrp.Epsilon(0.0), dict(x=[1, 1], w=[1, -1]), [0, 0]),
        (lrp.Zero(), dict(x=[1, 1], w=[1, -1]), [0, 0]),
        (lrp.Gamma(1.0), dict(x=[1, 1], w=[1, -1]), [0, 0]),
        # z = 1 > 0: positive contributions count twice, 6 - 2 = 4
        (lrp.Gamma(1.0, stabilizer=0.0), dict(x=[1, 2], w=[3, -1], r=4), [6, -2]),
        # z = -1 < 0: negative contributions count twice, 2 - 6 = -4
        (lrp.Gamma(1.0, stabilizer=0.0), dict(x=[1, 3], w=[2, -1], r=4), [-2, 6]),
        # negative inputs: (-1)(-3) counts twice, 2(-1) does not
        (lrp.Gamma(1.0, stabilizer=0.0), dict(x=[-1, 2], w=[-3, -1], r=4), [6, -2]),
        # the bias is one more contribution, counted twice where it has the sign of z
        (lrp.Gamma(1.0, stabilizer=0.0), dict(x=[1], w=[1], b=1, r=4), [2]),
        (lrp.Gamma(1.0, stabilizer=0.0, bias="ignore"), dict(x=[1], w=[1], b=1, r=4), [4]),
        (lrp.Gamma(1.0, stabilizer=0.0, bias="distribute"), dict(x=[1], w=[1], b=1, r=4), [4]),
        # z = 2 - 1/2 - 2 < 0: the bias decides the sign, also where it is left out of the sums
        (lrp.Gamma(1.0, stabilizer=0.0), dict(x=[1, 1], w=[2, -0.5], b=-2, r=3), [-2, 1]),
        (
            lrp.Gamma(1.0, stabilizer=0.0, bias="ignore"),
            dict(x=[1, 1], w=[2, -0.5], b=-2, r=3),
            [6, -3],
        ),
        # two negatives make a positive contribution
        (lrp.ZPlus(stabilizer=0.0), dict(x=[1, -2], w=[1, -1], r=3), [1, 2]),
        (lrp.ZPlus(stabilizer=0.0), dict(x=[1, -2], w=[1, -1], b=3, r=4), [2 / 3, 4 / 3]),
        (lrp.ZPlus(stabilizer=0.0), dict(x=[1, -2], w=[1, -1], b=-3, r=3), [1, 2]),
        (
            lrp.ZPlus(stabilizer=0.0, bias="distribute"),
            dict(x=[1, -2], w=[1, -1], b=3, r=4),
            [5 / 3, 7 / 3],
        ),
        (lrp.ZPlus(stabilizer=0.0), dict(x=[1, 1], w=[-1, -1], r=3), [0, 0]),
        # the published example for a negative bias
        (lrp.AlphaBeta(1.0, 0.0, stabilizer=0.0), dict(x=[1, 1], w=[1, -1], b=-1, r=-1), [-1, 0]),
        (lrp.AlphaBeta(2.0, 1.0, stabilizer=0.0), dict(x=[1, 1], w=[1, -1], b=-1, r=-1), [-2, 0.5]),
        (
            lrp.AlphaBeta(2.0, 1.0, stabilizer=0.0, bias="ignore"),
            dict(x=[1, 1], w=[1, -1], b=-1, r=-1),
            [-2, 1],
        ),
        (
            lrp.AlphaBeta(2.0, 1.0, stabilizer=0.0, bias="distribute"),
            dict(x=[1, 1], w=[1, -1], b=-1, r=-1),
            [-1.75, 0.75],
        ),
        # an input of zero is relevant when the box reaches further: 1*2 + 1*2 and 0 + 1*1
        (lrp.ZBox(-1.0, 1.0, stabilizer=0.0), dict(x=[1, 0], w=[2, -1], r=5), [4, 1]),
        (lrp.ZBox(-1.0, 1.0, stabilizer=0.0), dict(x=[1, 0], w=[2, -1], b=7, r=5), [4, 1]),
        (
            lrp.ZBox(0.0, np.array([1.0, 3.0]), stabilizer=0.0),
            dict(x=[1, 0], w=[2, -1], r=5),
            [2, 3],
        ),
        (lrp.WSquare(stabilizer=0.0), dict(x=[0, 9], w=[1, -2], r=5), [1, 4]),
        (lrp.WSquare(stabilizer=0.0), dict(x=[0, 9], w=[1, -2], b=2, r=9), [1, 4]),
        (lrp.Flat(stabilizer=0.0), dict(x=[0, 9], w=[0, 5], b=3, r=4), [2, 2]),
        (lrp.Flat(stabilizer=2.0), dict(x=[0, 9], w=[0, 5], r=4), [1, 1]),
        (lrp.Relative(), dict(x=[2, 3], w=[1, -1], b=5, r=2), [4, -6]),
    ],
)
def test_one_neuron_by_hand(rule: lrp.Rule, neuron_is: Any, expected: list[float]) -> None:
    assert expected == neuron(rule, **neuron_is)


@pytest.mark.parametrize("rule", RULES_FOR_NO_BIAS, ids=repr)
def test_zero_inputs_and_zero_weights_stay_finite(rule: lrp.Rule) -> None:
    params = {"w": jnp.zeros((3, 2)), "b": jnp.zeros(2)}
    explain = lrp.relevance(lambda p, x: x @ p["w"] + p["b"], rule)
    relevance = explain(params, jnp.zeros((1, 3)), target=jnp.ones_like)
    one_third_each = rule == lrp.Flat()
    assert np.asarray(relevance) == pytest.approx(2 / 3 if one_third_each else 0.0, abs=1e-6)


def stabilised(z: Any, by: float = 1e-6) -> np.ndarray:
    z = np.asarray(z, float)
    return z + by * np.where(z < 0, -1.0, 1.0)


def without_weights(layer: Callable[[jax.Array], jax.Array], x: Any, start: Any) -> np.ndarray:
    """The relevance through a layer that has no weights, given to it as ``layer(x)``."""
    explain = lrp.relevance(lambda _, x: layer(x), lrp.Epsilon())
    return np.asarray(
        explain({}, jnp.asarray(x, float), target=lambda _: jnp.asarray(start, float))
    )


def test_max_pooling_gives_all_to_the_winner() -> None:
    x = np.array([1.0, 3.0, 2.0, -5.0]).reshape(1, 4, 1)
    start = np.array([10.0, -20.0]).reshape(1, 2, 1)
    relevance = without_weights(lambda x: nn.max_pool(x, (2,), (2,)), x, start)
    assert relevance.ravel().tolist() == [0, 10, -20, 0]


def test_average_pooling_shares_in_proportion() -> None:
    x = np.array([1.0, 3.0, 2.0, -5.0]).reshape(1, 4, 1)
    start = np.array([10.0, -20.0]).reshape(1, 2, 1)
    relevance = without_weights(lambda x: nn.avg_pool(x, (2,), (2,)), x, start)
    means = stabilised([2.0, 2.0, -1.5, -1.5])
    assert_close(relevance.ravel(), x.ravel() / 2 * [10, 10, -20, -20] / means, 1e-12)


@pytest.mark.parametrize("counted", [True, False])
def test_average_pooling_counts_the_padding_or_not(counted: bool) -> None:
    x = np.array([2.0, 4.0, 6.0]).reshape(1, 3, 1)
    start = np.array([8.0, 5.0]).reshape(1, 2, 1)

    def pool(x: jax.Array) -> jax.Array:
        return nn.avg_pool(x, (2,), (2,), ((1, 0),), count_include_pad=counted)

    window = 2 if counted else 1
    expected = [
        2 / window * 8 / stabilised(2 / window),
        4 / 2 * 5 / stabilised(5.0),
        6 / 2 * 5 / stabilised(5.0),
    ]
    assert_close(without_weights(pool, x, start).ravel(), expected, 1e-12)


@pytest.mark.parametrize(("reduction", "parts"), [(jnp.mean, 2), (jnp.sum, 1)], ids=["mean", "sum"])
def test_the_stabiliser_of_a_mean_acts_on_the_mean(reduction: Any, parts: int) -> None:
    relevance = without_weights(lambda x: reduction(x, -1), [[1.0, -1.0]], [3.0])
    assert_close(relevance, [[3e6 / parts, -3e6 / parts]], 1e-9)


def test_global_average_of_an_image() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 2))
    start = np.array([[1.0, 2.0], [-3.0, 4.0]])
    relevance = without_weights(lambda x: jnp.mean(x, (1, 2)), x, start)
    share = x / 9 / stabilised(x.mean((1, 2), keepdims=True))
    assert_close(relevance, share * start[:, None, None], 1e-9)


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["x + f(x)", "x - f(x)"])
def test_a_residual_connection_shares_in_proportion(sign: float) -> None:
    w = np.array([[1.0, 2.0], [0.5, -3.0]])
    x, start = np.array([[1.0, 2.0]]), np.array([[2.0, 4.0]])

    def model(w: jax.Array, x: jax.Array) -> jax.Array:
        return x + x @ w if sign > 0 else x - x @ w

    relevance = lrp.relevance(model, lrp.Epsilon(0.1))(w, x, target=lambda _: start)
    branch = x @ w
    multiplier = start / stabilised(x + sign * branch)
    below = sign * branch * multiplier / stabilised(branch, 0.1)
    assert_close(relevance, x * multiplier + x * (below @ w.T), 1e-9)


SUMS: dict[str, tuple[Any, list[int]]] = {
    "difference": (lambda p, x: x[:, :3] - x[:, 3:], [1, -1]),
    "half of a difference": (lambda p, x: (x[:, :3] - x[:, 3:]) / 2, [1, -1]),
    "sum over a number": (lambda p, x: (x[:, :3] + x[:, 3:]) / p, [1, 1]),
    "difference over a number": (lambda p, x: (x[:, :3] - x[:, 3:]) / p, [1, -1]),
}


@pytest.mark.parametrize(
    "rule", [lrp.ZPlus(), lrp.Gamma(0.5), lrp.AlphaBeta(), lrp.Norm()], ids=repr
)
@pytest.mark.parametrize("name", SUMS)
def test_sums_by_the_sign_of_what_is_added(name: str, rule: lrp.Rule) -> None:
    """A sum is the dense layer whose weights are its signs, over what divides it."""
    function, signs = SUMS[name]
    p = jnp.array([-0.5, 2.0, -3.0])
    x = jnp.array([[1.0, 2.0, -3.0, 5.0, -1.0, 2.0], [-2.0, 1.0, 1.5, 4.0, 3.0, -1.0]])
    factor = p if "over" in name else 2.0 if "half" in name else 1.0
    weights = jnp.concatenate([s * jnp.eye(3) for s in signs]) / factor
    start = lambda y: jnp.array([[1.0, -2.0, 3.0], [2.0, 1.0, -1.0]])  # noqa: E731
    found = lrp.relevance(function, lrp.Composite([(lrp.Merge, rule)]))(p, x, target=start)
    plain = lrp.Epsilon(rule.stabilizer) if isinstance(rule, lrp.Norm) else rule
    assert_close(found, lrp.relevance(lambda w, x: x @ w, plain)(weights, x, target=start), 1e-9)


@pytest.mark.parametrize("name", SUMS)
def test_flat_gives_equal_shares_to_what_is_added(name: str) -> None:
    start = jnp.array([[1.0, -2.0, 3.0]])
    explain = lrp.relevance(SUMS[name][0], lrp.Composite([(lrp.Merge, lrp.Flat(0.0))]))
    found = explain(jnp.array([-0.5, 2.0, -3.0]), jnp.arange(6.0)[None], target=lambda _: start)
    assert_close(found, jnp.tile(start / 2, 2), 1e-12)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_a_grouped_product_has_the_weights_of_each_row_s_group(rule: lrp.Rule) -> None:
    """`ragged_dot` is the layer with the weights written out for every row."""
    rng = np.random.default_rng(0)
    w, scale, bias = (rng.normal(size=shape) for shape in ((3, 5, 4), (4,), (4,)))
    x, group = rng.normal(size=(6, 5)), np.array([0, 0, 2, 2, 2, 2])
    sizes = jnp.array([2, 0, 4])
    forms = (
        lambda w, x: jax.lax.ragged_dot(x, w[0], sizes) * w[1] + w[2],
        lambda w, x: jnp.einsum("rk,rkn->rn", x, w[0][group]) * w[1] + w[2],
    )
    grouped, written_out = (
        lrp.relevance(form, rule)((w, scale, bias), x, target=2) for form in forms
    )
    assert_close(grouped, written_out, 1e-9)


@pytest.mark.parametrize("detached", [False, True])
def test_a_softmax_over_segments_is_one(detached: bool) -> None:
    segments = np.array([0, 0, 0, 1, 1])
    logits = np.array([0.5, -1.0, 2.0, 300.0, 301.0])

    def weights(_: Any, x: jax.Array) -> jax.Array:
        top = jax.ops.segment_max(x, segments, 2)
        e = jnp.exp(x - (jax.lax.stop_gradient(top) if detached else top)[segments])
        return e / jax.ops.segment_sum(e, segments, 2)[segments]

    assert [x.kind for x in lrp.plan(weights, lrp.Epsilon())(None, logits).layers] == [lrp.Softmax]
    start = np.array([1.0, -2.0, 3.0, 1.0, 2.0])
    with pytest.warns(UserWarning, match="ends in a softmax"):
        relevance = lrp.relevance(weights, lrp.Epsilon())(None, logits, target=lambda _: start)
    by_hand = [nn.softmax(logits[segments == i]) for i in (0, 1)]
    sums = [start[segments == i].sum() for i in (0, 1)]
    expected = logits * (start - np.concatenate(by_hand) * np.array(sums)[segments])
    assert_close(relevance, expected, 1e-9)


@pytest.mark.parametrize("centred", [False, True])
def test_a_norm_over_segments_is_a_norm(centred: bool) -> None:
    segments = np.array([0, 0, 0, 1, 1])
    x = np.array([[1.0, -2.0], [3.0, 0.5], [-1.0, 4.0], [2.0, 1.0], [0.5, -3.0]])

    def means(x: jax.Array) -> jax.Array:
        counts = jax.ops.segment_sum(jnp.ones((5, 1)), segments, 2)
        return (jax.ops.segment_sum(x, segments, 2) / counts)[segments]

    def normed(_: Any, x: jax.Array) -> jax.Array:
        x = x - means(x) if centred else x
        return x * jax.lax.rsqrt(means(x * x) + 0.1)

    def held(_: Any, x: jax.Array) -> jax.Array:
        centre = x - means(x) if centred else x
        return centre * jax.lax.stop_gradient(jax.lax.rsqrt(means(centre * centre) + 0.1))

    plan = lrp.plan(normed, lrp.AttnLRP())(None, x)
    assert [layer.kind for layer in plan.layers] == [lrp.Normalization]
    start = np.arange(10.0).reshape(5, 2) - 3
    relevance, expected = (
        lrp.relevance(f, lrp.AttnLRP())(None, x, target=lambda _: start) for f in (normed, held)
    )
    assert_close(relevance, expected, 1e-9)


@pytest.mark.parametrize("summed_in", [np.float64, np.float32])
def test_means_over_segments_by_gates_hold_the_sums_of_gates(summed_in: Any) -> None:
    segments = np.array([0, 0, 0, 1, 1])
    values, logits = np.array([1.0, -2.0, 3.0, 0.5, 4.0]), np.array([0.5, -1.0, 2.0, 1.0, 0.2])
    precision = 1e-9 if summed_in is np.float64 else 1e-6

    def sums(x: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(x.astype(summed_in), segments, 2).astype(x.dtype)

    def mean(_: Any, x: tuple[jax.Array, jax.Array], hold: Any = lambda x: x) -> jax.Array:
        gates = nn.sigmoid(x[1])
        total = sums(gates) + 0.1
        return sums(gates * x[0]) / hold(total)

    def held(_: Any, x: tuple[jax.Array, jax.Array]) -> jax.Array:
        return mean(None, x, jax.lax.stop_gradient)

    relevance, expected = (
        lrp.relevance(f, lrp.CPLRP())(None, (values, logits), target=np.ones(2))
        for f in (mean, held)
    )
    assert_close(relevance[0], expected[0], precision)
    assert_close(relevance[0].sum(), mean(None, (values, logits)).sum(), precision)


def test_a_logarithm_of_segments_is_one_function() -> None:
    segments, logits = np.array([0, 0, 1, 1]), np.array([0.5, -1.0, 300.0, 301.0])

    def pooled(_: Any, x: jax.Array) -> jax.Array:
        top = jax.lax.stop_gradient(jax.ops.segment_max(x, segments, 2))
        return jnp.log(jax.ops.segment_sum(jnp.exp(x - top[segments]), segments, 2)) + top

    plan = lrp.plan(pooled, lrp.Epsilon())(None, logits)
    assert [layer.kind for layer in plan.layers] == [lrp.LogSumExp]
    relevance = lrp.relevance(pooled, lrp.Epsilon())(None, logits, target=np.ones(2))
    weights = np.concatenate([nn.softmax(logits[:2]), nn.softmax(logits[2:])])
    assert_close(relevance, logits * weights, 1e-9)


@pytest.mark.parametrize("shift", [0.0, 5.0, -300.0])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_logarithm_of_a_sum_of_exponentials_is_one_function(shift: float, scaled: bool) -> None:
    """The maximum that is subtracted within it and added again is no bias of the network."""
    logits = np.array([[0.5, -1.0, 2.0]]) + shift

    def pooled(_: Any, x: jax.Array) -> jax.Array:
        y = jax.nn.logsumexp(x, axis=-1, keepdims=True)
        return y * jnp.array([1.0, -2.0]) if scaled else y

    assert lrp.plan(pooled, lrp.Epsilon())(None, logits).layers[0].kind == lrp.LogSumExp
    relevance = lrp.relevance(pooled, lrp.Epsilon())(None, logits, target=0)
    assert_close(relevance, logits * nn.softmax(logits), 1e-9)


def test_a_sum_of_functions_of_one_value_is_one_function_of_it() -> None:
    relevance = without_weights(lambda x: x + x + nn.relu(x), [[1.0, -2.0]], [[3.0, 5.0]])
    assert relevance.tolist() == [[3.0, 5.0]]


def test_a_batch_norm_alone_hands_everything_on() -> None:
    layer = linen(nn.Sequential([nn.relu, norm(), nn.relu]), 2, 3)
    start = signed_start(*layer)
    explain = lrp.relevance(layer.apply_fn, lrp.Epsilon())
    assert_close(explain(layer.params, layer.x, target=lambda _: start), start, 1e-12)


@pytest.mark.parametrize(("alpha", "beta"), [(2.0, 0.5), (1.0, 1.0), (2.0, 1.001)])
def test_alpha_minus_beta_must_be_one(alpha: float, beta: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        lrp.AlphaBeta(alpha, beta)


def test_alpha_minus_beta_may_be_one_up_to_rounding() -> None:
    assert lrp.AlphaBeta(2.3, 1.3).alpha - lrp.AlphaBeta(2.3, 1.3).beta != 1.0
