"""Which layer gets which rule: matches, composites and presets."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrp_jax as lrp
from lrp_jax.testing import assert_close

Assignment = dict[str, str]


class Network(nn.Module):
    """Three convolutions, one of them in a block, and two dense layers."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(3, (3,))(x))
        x = Block(name="block")(x)
        x = nn.avg_pool(x, (2,), (2,))
        x = nn.relu(nn.Dense(5)(x.reshape(x.shape[0], -1)))
        return nn.Dense(4, name="head")(x)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.relu(nn.Conv(3, (3,))(x))
        return nn.relu(x + nn.Conv(3, (1,))(y))


X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 2)))
PARAMS = Network().init(jax.random.key(0), X)
CONVS = ["Conv_0", "block/Conv_0", "block/Conv_1"]
DENSES = ["Dense_0", "head"]


def assigned(composite: Any, apply_fn: Any = None, params: Any = PARAMS, x: Any = X) -> Assignment:
    """The rule of every layer, as it prints, by the layer's path."""
    plan = lrp.plan(apply_fn or Network().apply, composite)(params, x)
    return {layer.path: layer.rule for layer in plan.layers}


def matched(match: Any, **model: Any) -> list[str]:
    """The paths of the layers of `Network` that a match speaks of."""
    marked = lrp.Composite([(match, lrp.Gamma(7.0)), (lrp.Linear, lrp.Epsilon())])
    return [path for path, rule in assigned(marked, **model).items() if "7.0" in rule]


@pytest.mark.parametrize(
    ("match", "paths"),
    [
        (lrp.Conv, CONVS),
        (lrp.Dense, DENSES),
        (lrp.Linear, [*CONVS, *DENSES]),
        (lrp.Conv | lrp.Dense, [*CONVS, *DENSES]),
        ("head", ["head"]),
        ("*Conv_0", ["Conv_0", "block/Conv_0"]),
        ("*/Conv_0", ["Conv_0", "block/Conv_0"]),
        ("block/Conv_0", ["block/Conv_0"]),
        ("block/*", ["block/Conv_0", "block/Conv_1", "block/Merge"]),
        ("*Conv_?", CONVS),
        (lrp.Conv & "block/*", ["block/Conv_0", "block/Conv_1"]),
        ("block/*" & lrp.Conv, ["block/Conv_0", "block/Conv_1"]),
        ("head" | lrp.Conv, [*CONVS, "head"]),
        (lrp.Linear & ~lrp.Conv, DENSES),
        (lrp.Linear & ~(lrp.Conv & "block/*"), ["Conv_0", *DENSES]),
        (lrp.first(lrp.Conv), ["Conv_0"]),
        (lrp.first(lrp.Dense), ["Dense_0"]),
        (lrp.first(lrp.Linear), ["Conv_0"]),
        (lrp.last(lrp.Conv), ["block/Conv_1"]),
        (lrp.last(lrp.Linear), ["head"]),
        (lrp.first("block/*"), ["block/Conv_0"]),
        (lrp.first(lrp.Conv & "block/*"), ["block/Conv_0"]),
        (lrp.Dense & ~lrp.last(lrp.Dense), ["Dense_0"]),
        (lrp.depth(0.0, 0.5) & lrp.Dense, []),
        (lrp.depth(0.0, 1.0), [*CONVS, *DENSES]),
        (lrp.Linear & (lambda layer: layer.path.endswith("_1")), ["block/Conv_1"]),
        (lambda layer: layer.kind <= lrp.Dense, DENSES),
    ],
    ids=lambda value: getattr(value, "__name__", None) or str(value),
)
def test_matches(match: Any, paths: list[str]) -> None:
    assert sorted(matched(match)) == sorted(paths)


def test_depth_divides_the_layers_without_gap_or_overlap() -> None:
    lower, middle, upper = (
        matched(lrp.depth(low, high)) for low, high in ((0.0, 0.3), (0.3, 0.7), (0.7, 1.0))
    )
    assert sorted([*lower, *middle, *upper]) == sorted([*CONVS, *DENSES])
    assert "Conv_0" in lower
    assert "head" in upper


def test_first_follows_the_dataflow_and_not_the_order_of_definition() -> None:
    def apply_fn(w: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        return jax.nn.relu(x @ w["defined_last"]) @ w["a_defined_first"]

    w = {"a_defined_first": jnp.ones((3, 2)), "defined_last": jnp.ones((4, 3))}
    model = dict(apply_fn=apply_fn, params=w, x=jnp.ones((1, 4)))
    assert matched(lrp.first(lrp.Dense), **model) == ["defined_last"]
    assert matched(lrp.last(lrp.Dense), **model) == ["a_defined_first"]


def test_parallel_branches_both_come_first() -> None:
    def apply_fn(w: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        return (jax.nn.relu(x @ w["left"]) + jax.nn.relu(x @ w["right"])) @ w["top"]

    w = {"left": jnp.ones((4, 3)), "right": jnp.ones((4, 3)), "top": jnp.ones((3, 2))}
    model = dict(apply_fn=apply_fn, params=w, x=jnp.ones((1, 4)))
    assert sorted(matched(lrp.first(lrp.Dense), **model)) == ["left", "right"]


def test_the_first_matching_entry_wins() -> None:
    composite = lrp.Composite(
        [("head", lrp.Zero()), (lrp.Dense, lrp.ZPlus()), (lrp.Linear, lrp.Gamma(0.5))]
    )
    rules = assigned(composite)
    assert rules["head"] == "Zero()"
    assert rules["Dense_0"] == "ZPlus()"
    assert rules["Conv_0"] == "Gamma(gamma=0.5)"


def test_override_goes_first_and_leaves_the_original_alone() -> None:
    original = lrp.EpsilonPlus()
    before = assigned(original)
    changed = original.override(("head", lrp.Zero()), ("block/*" & lrp.Conv, lrp.Flat()))
    assert assigned(original) == before
    assert original == lrp.EpsilonPlus()
    assert changed != original
    expected = before | {"head": "Zero()", "block/Conv_0": "Flat()", "block/Conv_1": "Flat()"}
    assert assigned(changed) == expected


def test_a_later_override_wins() -> None:
    composite = lrp.EpsilonPlus().override(("head", lrp.Zero())).override(("head", lrp.Flat()))
    assert assigned(composite)["head"] == "Flat()"


def test_a_single_rule_is_for_every_layer_with_weights() -> None:
    rules = assigned(lrp.Gamma(0.5))
    assert {rules[path] for path in [*CONVS, *DENSES]} == {"Gamma(gamma=0.5)"}
    others = {rule for path, rule in rules.items() if path not in [*CONVS, *DENSES]}
    assert others <= {"Norm()", "Pass()", "Identity()"}


# Presets


PRESETS = [
    (lrp.EpsilonPlus(), ["ZPlus()", "ZPlus()", "Epsilon()"]),
    (lrp.EpsilonPlus(epsilon=0.5), ["ZPlus()", "ZPlus()", "Epsilon(epsilon=0.5)"]),
    (lrp.EpsilonPlusFlat(), ["Flat()", "ZPlus()", "Epsilon()"]),
    (lrp.EpsilonAlpha2Beta1(), ["AlphaBeta()", "AlphaBeta()", "Epsilon()"]),
    (lrp.EpsilonAlpha2Beta1Flat(), ["Flat()", "AlphaBeta()", "Epsilon()"]),
    (
        lrp.EpsilonGammaBox(low=-3.0, high=3.0),
        ["ZBox(low=-3.0, high=3.0)", "Gamma()", "Epsilon()"],
    ),
    (lrp.ExcitationBackprop(), ["ZPlus()", "ZPlus()", "ZPlus()"]),
    (lrp.DeepTaylor(), ["WSquare()", "ZPlus(bias='ignore')", "ZPlus(bias='ignore')"]),
    (
        lrp.DeepTaylor(-3.0, 3.0),
        ["ZBox(low=-3.0, high=3.0)", "ZPlus(bias='ignore')", "ZPlus(bias='ignore')"],
    ),
]


@pytest.mark.parametrize(("composite", "expected"), PRESETS, ids=repr)
def test_presets_map_the_layers(composite: lrp.Composite, expected: list[str]) -> None:
    rules = assigned(composite)
    assert [rules[path] for path in ("Conv_0", "block/Conv_1", "head")] == expected
    assert rules["block/Conv_0"] == rules["block/Conv_1"]
    assert rules["Dense_0"] == rules["head"]


@pytest.mark.parametrize(
    ("composite", "first_rule"),
    [
        (lrp.EpsilonPlusFlat(), "Flat()"),
        (lrp.EpsilonAlpha2Beta1Flat(), "Flat()"),
        (lrp.EpsilonGammaBox(0.0, 1.0), "Epsilon()"),  # the box is for a first convolution
    ],
    ids=repr,
)
def test_presets_on_a_network_without_convolutions(
    composite: lrp.Composite, first_rule: str
) -> None:
    w = {"lower": jnp.ones((4, 3)), "upper": jnp.ones((3, 2))}
    rules = assigned(
        composite, lambda w, x: jax.nn.relu(x @ w["lower"]) @ w["upper"], w, jnp.ones((1, 4))
    )
    assert rules["lower"] == first_rule
    assert rules["upper"] == "Epsilon()"


def test_the_overview_preset_goes_from_box_to_zero() -> None:
    def deep(w: list[jax.Array], x: jax.Array) -> jax.Array:
        for matrix in w:
            x = jax.nn.relu(x @ matrix)
        return x

    rules = list(
        assigned(lrp.LRPOverview(0.0, 1.0), deep, [jnp.eye(2)] * 12, jnp.ones((1, 2))).values()
    )
    linear = [rule.split("(")[0] for rule in rules if rule not in ("Pass()", "Identity()")]
    assert linear[0] == "ZBox"
    assert linear[-1] == "Zero"
    order = ["ZBox", "Gamma", "Epsilon", "Zero"]
    assert linear == sorted(linear, key=order.index)
    assert set(linear) == set(order)


def mlp(w: list[jax.Array], x: jax.Array) -> jax.Array:
    return jax.nn.relu(jax.nn.relu(x @ w[0]) @ w[1]) @ w[2]


@pytest.fixture
def mlp_case() -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    weights = [rng.normal(size=shape) for shape in ((4, 6), (6, 5), (5, 3))]
    return weights, rng.normal(size=(2, 4)), rng.normal(size=(2, 3))


@pytest.mark.parametrize("name", ["guided_backprop", "deconvnet", "beta_smooth"])
def test_modified_gradients(name: str, mlp_case: Any) -> None:
    """The start is the cotangent, each relu changes it, and the result is not multiplied by x."""
    w, x, start = mlp_case

    def through_relu(z: np.ndarray, g: np.ndarray) -> np.ndarray:
        if name == "guided_backprop":
            return g * (z > 0) * (g > 0)
        if name == "deconvnet":
            return np.maximum(g, 0)
        return g / (1 + np.exp(-10 * z))

    first = x @ w[0]
    second = np.maximum(first, 0) @ w[1]
    g = through_relu(second, start @ w[2].T)
    expected = through_relu(first, g @ w[1].T) @ w[0].T
    composite = getattr(lrp.composites, name)()
    assert_close(lrp.relevance(mlp, composite)(w, x, target=lambda _: start), expected, 1e-12)


def test_beta_smooth_takes_its_sharpness(mlp_case: Any) -> None:
    w, x, start = mlp_case
    sharp = lrp.relevance(mlp, lrp.composites.beta_smooth(beta=1e6))(w, x, target=lambda _: start)
    _, pullback = jax.vjp(lambda x: mlp(w, x), x)
    assert_close(sharp, pullback(start)[0], 1e-9)


# Composites are values that print as the code that makes them


COMPOSITES = [
    *(composite for composite, _ in PRESETS),
    lrp.LRPOverview(0.0, 1.0),
    lrp.composites.guided_backprop(),
    lrp.composites.deconvnet(),
    lrp.composites.beta_smooth(),
    lrp.Composite(
        [
            (lrp.first(lrp.Conv), lrp.Flat()),
            ("*/Conv_0", lrp.Gamma(0.5, bias="distribute")),
            (lrp.Dense & ~lrp.last(lrp.Dense), lrp.ZPlus()),
            (("a/*" | lrp.Dense) & ~(lrp.Conv | "b"), lrp.Epsilon()),
            (lrp.depth(0.0, 0.5), lrp.ZBox(np.zeros(2), np.ones(2))),
            (lrp.Dense | lrp.Conv, lrp.Epsilon()),
        ]
    ),
]


@pytest.mark.parametrize("composite", COMPOSITES, ids=repr)
def test_composites_print_as_the_code_that_makes_them(composite: lrp.Composite) -> None:
    again = eval(repr(composite), {**vars(lrp), "lrp": lrp, "np": np})
    assert again == composite
    assert repr(again) == repr(composite)
    assert hash(again) == hash(composite)


def test_a_long_composite_prints_one_entry_a_line() -> None:
    text = repr(COMPOSITES[-1])
    assert len([line for line in text.splitlines() if "lrp." in line or "(" in line]) >= 6
    assert max(map(len, text.splitlines())) <= 100


def test_different_composites_differ() -> None:
    assert len(set(COMPOSITES)) == len(COMPOSITES)
    assert lrp.EpsilonPlus() == lrp.EpsilonPlus()
    assert lrp.EpsilonPlus() != lrp.EpsilonPlus(epsilon=0.5)
