"""The plan: which layer gets which rule and why, as a table, as a value, as JSON."""

import json
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import lrp_jax as lrp


class Network(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(3, (3, 3))(x)))
        x = nn.max_pool(x + nn.Conv(3, (3, 3), name="side")(x), (2, 2), (2, 2))
        return nn.Dense(5, name="head")(x.reshape(x.shape[0], -1))


APPLY = Network().apply
X = jnp.ones((2, 4, 4, 2))
PARAMS = Network().init(jax.random.key(0), X)


def plan_of(composite: Any, x: Any = X) -> lrp.Plan:
    return lrp.plan(APPLY, composite)(PARAMS, x)


def line_of(plan: lrp.Plan, path: str) -> str:
    (line,) = [line for line in str(plan).splitlines() if path in line.split()]
    return line


def test_the_table_says_which_rule_and_why() -> None:
    plan = plan_of(lrp.Composite([("head", lrp.Zero()), (lrp.Conv, lrp.Gamma(0.5))]))
    assert "Dense" in line_of(plan, "head")
    assert "Zero()" in line_of(plan, "head")
    assert "'head'" in line_of(plan, "head")
    assert "Conv" in line_of(plan, "side")
    assert "Gamma(gamma=0.5)" in line_of(plan, "side")
    assert "(2, 4, 4, 3)" in line_of(plan, "side")


def test_the_table_holds_layers_without_weights_too() -> None:
    rules = {(layer.kind.label, layer.rule) for layer in plan_of(lrp.EpsilonPlus()).layers}
    assert ("Merge", "Norm()") in rules
    assert ("ReLU", "Pass()") in rules


def test_the_table_is_narrow_enough_for_a_page() -> None:
    assert max(map(len, str(plan_of(lrp.EpsilonGammaBox(-3.0, 3.0))).splitlines())) <= 120


def test_a_norm_that_is_folded_belongs_to_its_layer() -> None:
    paths = [layer.path for layer in plan_of(lrp.EpsilonPlus()).layers]
    assert "Conv_0" in paths
    assert "BatchNorm_0" not in paths


def test_layers_come_in_the_order_of_evaluation() -> None:
    paths = [layer.path for layer in plan_of(lrp.EpsilonPlus()).layers]
    assert [path for path in paths if path in PARAMS["params"]] == ["Conv_0", "side", "head"]


def test_an_unmatched_glob_is_reported_with_the_nearest_names() -> None:
    composite = lrp.EpsilonPlus().override(("haed", lrp.Zero()))
    text = str(plan_of(composite))
    assert "haed" in text
    assert "head" in text.split("haed", 1)[1]
    with pytest.warns(UserWarning, match=r"'haed'.* matches no layer.*nearest names are head"):
        lrp.relevance(APPLY, composite)(PARAMS, X)


def test_an_unmatched_kind_is_reported() -> None:
    text = str(plan_of(lrp.EpsilonPlus().override((lrp.Softmax, lrp.Pass()))))
    assert "Softmax" in text


def test_a_shadowed_entry_is_reported() -> None:
    used = str(plan_of(lrp.Composite([(lrp.Linear, lrp.Epsilon())])))
    text = str(plan_of(lrp.Composite([(lrp.Linear, lrp.Epsilon()), (lrp.Dense, lrp.Zero())])))
    assert "shadowed" in text
    assert "Zero()" in text
    assert "shadowed" not in used


def test_plans_compare() -> None:
    plan = plan_of(lrp.EpsilonPlus())
    assert plan == plan_of(lrp.EpsilonPlus())
    assert plan != plan_of(lrp.EpsilonPlusFlat())
    assert plan != plan_of(lrp.EpsilonPlus(epsilon=0.5))
    assert plan != plan_of(lrp.EpsilonPlus(), jnp.ones((3, 4, 4, 2)))


@pytest.mark.parametrize(
    "composite",
    [
        lrp.EpsilonGammaBox(-3.0, 3.0),
        lrp.EpsilonGammaBox(jnp.zeros(2), jnp.ones(2)),
        lrp.Composite([("head", lrp.Zero()), (lrp.Linear, lrp.AlphaBeta(1.0, 0.0, bias="ignore"))]),
        lrp.composites.guided_backprop(),
        lrp.EpsilonPlus().override(("haed", lrp.Zero())),
    ],
    ids=["box", "arrays", "glob", "gradient", "unmatched"],
)
def test_json_there_and_back(composite: lrp.Composite) -> None:
    plan = plan_of(composite)
    again = lrp.Plan.from_json(plan.to_json())
    assert again == plan
    assert str(again) == str(plan)
    assert again.to_json() == plan.to_json()
    assert isinstance(plan.to_json(), str)


def test_no_arrays_are_needed() -> None:
    shapes = jax.eval_shape(lambda: (PARAMS, X))
    assert lrp.plan(APPLY, lrp.EpsilonPlus())(*shapes) == plan_of(lrp.EpsilonPlus())


def test_nested_paths_of_plain_trees() -> None:
    def apply_fn(w: Any, x: jax.Array) -> jax.Array:
        for layer in w["encoder"]["layers"]:
            x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
        return x

    layer = {"kernel": jnp.ones((3, 3)), "bias": jnp.ones(3)}
    plan = lrp.plan(apply_fn, lrp.Epsilon())({"encoder": {"layers": [layer] * 2}}, jnp.ones((1, 3)))
    paths = [layer.path for layer in plan.layers]
    assert "encoder/layers/0" in paths
    assert "encoder/layers/1" in paths


def test_a_module_called_twice_is_two_layers() -> None:
    def apply_fn(w: Any, x: jax.Array) -> jax.Array:
        return jax.nn.relu(x @ w["shared"]) @ w["shared"]

    plan = lrp.plan(apply_fn, lrp.Epsilon())({"shared": jnp.eye(3)}, jnp.ones((1, 3)))
    paths = [layer.path for layer in plan.layers if layer.name == "shared"]
    assert len(paths) == 2
    assert len(set(paths)) == 2


def test_parents_are_the_layers_that_a_layer_reads_from() -> None:
    def parents_of(function: Any, *args: Any) -> list[tuple[int, ...]]:
        plan = lrp.plan(function, lrp.AttnLRP())(*args)
        assert lrp.Plan.from_json(plan.to_json()) == plan
        return [layer.parents for layer in plan.layers]

    # conv, relu, side, merge, max pool, head: the merge reads from the relu, past the side.
    assert parents_of(APPLY, PARAMS, X) == [(-1,), (0,), (1,), (1, 2), (3,), (4,)]

    w, x = jnp.ones((3, 3)), jnp.ones((2, 3))

    def steps(w: Any, x: Any) -> Any:
        return jax.lax.scan(lambda h, _: (jnp.tanh(h @ w), None), x, None, length=3)[0]

    # What one step leaves, the next one reads.
    assert parents_of(steps, w, x) == [(-1, 1), (0,)]

    def branches(w: Any, x: Any) -> Any:
        y = jax.lax.cond(w[0, 0] > 0, lambda x: x @ w, lambda x: x, x)
        return jnp.tanh(y) @ w

    assert parents_of(branches, w, x) == [(-1,), (-1, 0), (1,)]


def test_plans_of_older_releases_are_read() -> None:
    content = json.loads(plan_of(lrp.EpsilonPlus()).to_json())
    for layer in content["layers"]:
        del layer["parents"]
    layers = lrp.Plan.from_json(json.dumps(content)).layers
    assert [layer.path for layer in layers] == [x["path"] for x in content["layers"]]
    assert not any(layer.parents for layer in layers)


def test_scopes_named_as_the_weights_stay_whole_beside_them() -> None:
    def apply_fn(w: Any, x: Any) -> Any:
        for index, block in enumerate(w["blocks"]):
            with jax.named_scope(f"blocks/{index}"):
                x = jax.nn.relu(x @ block)
        return x @ w["head"]

    w = {"blocks": [jnp.eye(3), jnp.eye(3)], "head": jnp.eye(3)}
    plan = lrp.plan(apply_fn, lrp.Epsilon())(w, jnp.ones((1, 3)))
    paths = [layer.path for layer in plan.layers]
    assert paths == ["blocks/0", "blocks/0/ReLU", "blocks/1", "blocks/1/ReLU", "head"]
