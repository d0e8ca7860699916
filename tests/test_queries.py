"""What can be asked: hidden layers, parameters, matrices, pairs, sweeps, starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from zoo import ZOO

import lrp_jax as lrp
from lrp_jax import targets

CLOSE = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture(scope="module", autouse=True)
def _compile_quickly() -> Iterator[None]:
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def close(actual: Any, expected: Any) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: assert_allclose(a, b, **CLOSE), actual, expected)


# Every query on every kind of network -------------------------------------------------------------

NETWORKS = {
    "cnn_average_pool": (lrp.EpsilonPlus(), "Conv_0"),
    "resnet": (lrp.EpsilonPlus(), "Conv_1"),
    "llama_scan": (lrp.AttnLRP(), "layers/mlp/down"),
    "lstm_linen": (lrp.EpsilonPlus(), "OptimizedLSTMCell_0/ii"),
}
# Which parameters make up a layer, where they are more than those under its path.
PARTS = {
    "OptimizedLSTMCell_0/hi": [f"OptimizedLSTMCell_0/h{g}" for g in "ifgo"],
    "OptimizedLSTMCell_0/ii": [f"OptimizedLSTMCell_0/i{g}" for g in "ifgo"],
}


def queries(apply: Any, composite: Any, layer: str) -> Any:
    few = lambda r: r.reshape(-1)[:5]  # noqa: E731

    def ask(params: Any, x: Any) -> Any:
        start = (layer, jnp.ones_like)
        return {
            "relevance": lrp.relevance(apply, composite)(params, x),
            "layers": lrp.layer_relevances(apply, composite)(params, x),
            "from": lrp.layer_relevances(apply, composite, layer, start=start)(params, x),
            "stopped": lrp.layer_relevances(apply, composite, stop=layer)(params, x),
            "ledger": lrp.conservation(apply, composite)(params, x),
            "parameters": lrp.parameter_relevance(apply, composite)(params, x),
            "concepts": lrp.concept_relevance(apply, composite, layer, [0, [1, 2]])(params, x),
            "scores": lrp.concept_scores(apply, composite, layer)(params, x),
            "matrix": lrp.relevance_matrix(apply, composite)(params, x[:1]),
            "forward": lrp.relevance_matrix(apply, composite, mode="forward")(params, x[:1]),
            "pairs": lrp.bilrp(apply, composite, reduce=few)(params, x[:1], x[1:2]),
        }

    return ask


@pytest.mark.parametrize("name", NETWORKS)
def test_every_query_under_jit_and_vmap_ties_in_with_the_ledger(name: str) -> None:
    apply, params, x = ZOO[name].build()
    composite, layer = NETWORKS[name]
    several = jax.jit(jax.vmap(queries(apply, composite, layer), (None, 0)))
    both = several(params, jnp.stack([x, 2 * x[::-1]]))
    explain = jax.jit(lrp.relevance(apply, composite))
    assert_allclose(both["relevance"][0], explain(params, x), **CLOSE)
    assert_allclose(both["relevance"][1], explain(params, 2 * x[::-1]), **CLOSE)
    for i in range(2):
        check_sums(name, jax.tree.map(lambda leaf, i=i: leaf[i], both))


def check_sums(name: str, found: Any) -> None:
    """Everything adds up to what the ledger says."""
    ledger = found["ledger"]
    assert_allclose(found["relevance"].sum(), ledger.received, **CLOSE)
    for path, relevance in found["layers"].items():
        assert_allclose(relevance.sum(), ledger.rows[path]["in"], err_msg=path, **CLOSE)
    # In a loop the earlier turns have what the later ones send on beside their own start.
    assert_allclose(found["from"][NETWORKS[name][1]][-1], 1, **CLOSE)
    last = list(ledger.layers)[-1]
    assert_allclose(found["stopped"][last], found["layers"][last], **CLOSE)
    # All units; and the start of the first example, one class, in either mode.
    assert_allclose(found["forward"], found["matrix"], **CLOSE)
    rows = found["matrix"].reshape(-1, found["relevance"][0].size)
    explained = rows - found["relevance"][:1].reshape(1, -1)
    assert np.abs(explained).max(1).min() < 1e-9
    scores = np.abs(found["scores"])
    assert_allclose(scores.sum(-1)[scores.sum(-1) > 0], 1, **CLOSE)
    sums = {
        "/".join(k.key for k in path if k.key != "params"): float(leaf.sum())
        for path, leaf in jax.tree_util.tree_leaves_with_path(found["parameters"])
    }
    named = 0
    for path, row in ledger.rows.items():
        prefixes = tuple(f"{p}/" for p in PARTS.get(path, [path]))
        mine = {p: s for p, s in sums.items() if p.startswith(prefixes)}
        if not mine:
            continue
        named += 1
        weights = sum(s for p, s in mine.items() if not p.endswith("bias"))
        assert_allclose(weights, row["out"], err_msg=path, **CLOSE)
        if name != "resnet":  # there a batch norm adds its own shift
            bias = sum(s for p, s in mine.items() if p.endswith("bias"))
            assert_allclose(bias, row["bias"], err_msg=path, **CLOSE)
    assert named >= 2


def test_eager_jit_and_vmap_give_the_same_answers() -> None:
    apply, params, x = ZOO["mlp_plain"].build()
    ask = queries(apply, lrp.Epsilon(), "0_w")
    expected = ask(params, x)
    close(jax.jit(ask)(params, x), expected)
    several = jax.vmap(ask, (None, 0))(params, jnp.stack([x, 2 * x[::-1]]))
    close(jax.tree.map(lambda leaf: leaf[0], several), expected)


# Hidden layers ------------------------------------------------------------------------------------


def chain(w: Any, x: Any) -> Any:
    return jax.nn.relu(x @ w["a"]) @ w["b"]


RNG = np.random.default_rng(0)
W = {"a": jnp.asarray(RNG.normal(size=(4, 5))), "b": jnp.asarray(RNG.normal(size=(5, 3)))}
X = jnp.asarray(RNG.normal(size=(2, 4)))
HIDDEN = jax.nn.relu(X @ W["a"])


def test_hidden_relevance_is_what_the_layers_above_send() -> None:
    found = lrp.layer_relevances(chain, lrp.Zero())(W, X, target=1)
    assert set(found) == {"a", "ReLU", "b"} or set(found) == {"a", "Activation", "b"}
    expected = HIDDEN * W["b"][:, 1]
    assert_allclose(found["a"], expected, **CLOSE)
    assert_allclose(found["b"], (HIDDEN @ W["b"]) * jnp.eye(3)[1], **CLOSE)


def test_globs_and_kinds_choose_layers() -> None:
    assert set(lrp.layer_relevances(chain, lrp.Zero(), lrp.Dense)(W, X)) == {"a", "b"}
    assert set(lrp.layer_relevances(chain, lrp.Zero(), "[bc]")(W, X)) == {"b"}
    with pytest.raises(ValueError, match=r"no layer matches 'c'; there are a, "):
        lrp.layer_relevances(chain, lrp.Zero(), "c")(W, X)


def test_reduce_bounds_what_is_kept() -> None:
    apply, params, x = ZOO["cnn_max_pool"].build()

    def hidden(reduce: Any) -> Any:
        return lrp.layer_relevances(apply, lrp.Epsilon(), "Conv_0", reduce=reduce)(params, x)

    (full,) = hidden(None).values()
    assert full.shape == (3, 8, 8, 4)
    assert_allclose(hidden("channels")["Conv_0"], full.sum(-1), **CLOSE)
    assert_allclose(hidden("space")["Conv_0"], full.sum((1, 2)), **CLOSE)
    values, _ = hidden(lambda r: jax.lax.top_k(r.reshape(len(r), -1), 5))["Conv_0"]
    assert_allclose(values, np.sort(full.reshape(3, -1))[:, :-6:-1], **CLOSE)
    sizes = np.abs(full.reshape(3, -1))
    largest, places = hidden(7)["Conv_0"]
    assert_allclose(np.abs(largest), np.sort(sizes)[:, :-8:-1], **CLOSE)
    assert_allclose(np.take_along_axis(full.reshape(3, -1), places, 1), largest, **CLOSE)
    assert hidden(10**6)["Conv_0"][0].shape == sizes.shape
    for wrong in ("rows", 0, True):
        with pytest.raises(ValueError, match=f"reduce={wrong!r}"):
            lrp.layer_relevances(apply, lrp.Epsilon(), reduce=wrong)


def test_reduce_leaves_the_turns_of_a_loop_apart() -> None:
    def loop(w: Any, x: Any) -> Any:
        return jax.lax.scan(lambda h, _: (h @ w, None), x, length=3)[0][..., :1].sum(1)

    x, w = RNG.normal(size=(2, 6, 4)), RNG.normal(size=(4, 4))

    def hidden(reduce: Any) -> Any:
        (found,) = lrp.layer_relevances(loop, lrp.Zero(), lrp.Dense, reduce=reduce)(w, x).values()
        return found

    full = hidden(None)
    assert full.shape == (3, 2, 6, 4)
    assert_allclose(hidden("space"), full.sum(2), **CLOSE)
    assert_allclose(hidden(1)[0][..., 0], np.abs(full).max((2, 3)) * np.sign(hidden(1)[0][..., 0]))


def test_a_start_at_a_hidden_layer() -> None:
    given = jnp.asarray(RNG.normal(size=(2, 5)))
    for begin in (given, lambda value: given + 0 * value):
        found = lrp.layer_relevances(chain, lrp.Zero(), start=("a", begin))(W, X)
        assert_allclose(found["a"], given, **CLOSE)
        assert_allclose(found["b"], 0)
    # What the output's relevance is there gives back the same below.
    apply, params, x = ZOO["cnn_max_pool"].build()
    whole = lrp.layer_relevances(apply, lrp.EpsilonPlus())(params, x)
    start = ("Conv_1", whole["Conv_1"])
    again = lrp.layer_relevances(apply, lrp.EpsilonPlus(), "Conv_*", start=start)(params, x)
    close(again, {path: whole[path] for path in ("Conv_0", "Conv_1")})


def test_a_stop_leaves_what_flows_around() -> None:
    def branches(w: Any, x: Any) -> Any:
        return (x @ w["a"] @ w["b"] + x @ w["c"]) @ w["d"]

    shapes = {"a": (4, 5), "b": (5, 3), "c": (4, 3), "d": (3, 2)}
    w = {name: RNG.normal(size=shape) for name, shape in shapes.items()}
    rules = lrp.AttnLRP()  # LRP-0 everywhere
    whole = lrp.layer_relevances(branches, rules)(w, X, target=0)
    for layer, below in (("b", {"a"}), ("d", {"a", "b", "c", "Merge"})):
        stopped = lrp.layer_relevances(branches, rules, stop=layer)(w, X, target=0)
        for path, relevance in stopped.items():
            expected = 0 * whole[path] if path in below else whole[path]
            assert_allclose(relevance, expected, err_msg=path, **CLOSE)
    # The input's first layer in one branch alone.
    through_c = lambda w, x: lrp.layer_relevances(  # noqa: E731
        lambda w, x: branches(w, x @ w["first"]), rules, "first", stop="b"
    )(w, x, target=0)["first"]
    found = jax.jit(through_c)(w | {"first": np.eye(4)}, X)
    assert_allclose(found, X * (w["c"] @ w["d"][:, 0]), **CLOSE)
    with pytest.raises(ValueError, match="no layer matches 'e'"):
        lrp.layer_relevances(branches, rules, stop="e")(w, X)


def test_a_start_names_one_layer() -> None:
    with pytest.raises(ValueError, match="it is a pair"):
        lrp.layer_relevances(chain, lrp.Zero(), start="a")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'\*' matches 3 layers"):
        lrp.layer_relevances(chain, lrp.Zero(), start=("*", 1.0))(W, X)
    with pytest.raises((ValueError, TypeError), match="broadcast"):
        lrp.layer_relevances(chain, lrp.Zero(), start=("a", np.ones((2, 6))))(W, X)


def test_the_turns_of_a_loop_lead() -> None:
    apply, params, x = ZOO["linen_scan"].build()
    found = lrp.layer_relevances(apply, lrp.Epsilon())(params, x)
    turns = {path: r.shape for path, r in found.items() if r.shape[0] == 3 and r.ndim == 3}
    assert turns
    assert set(turns.values()) == {(3, *x.shape)}


# Parameters ---------------------------------------------------------------------------------------

EPS = 1e-6


def stabilised(z: np.ndarray, epsilon: float = EPS) -> np.ndarray:
    return z + np.where(z >= 0, epsilon, -epsilon)


def contributions(rule: lrp.Rule, x: Any, w: Any, b: Any) -> tuple[np.ndarray, np.ndarray]:
    """The formulas of the rules: what each weight and bias carries for R = z, (n, i, j), (n, j)."""
    k = x[:, :, None] * w
    z = k.sum(1) + b
    r = z.copy()
    up, down = np.maximum, np.minimum
    match rule:
        case lrp.Epsilon() | lrp.Norm():
            share = r / stabilised(z, getattr(rule, "epsilon", EPS))
            return k * share[:, None], b * share
        case lrp.Zero():
            return k, b * r / z
        case lrp.Relative():
            return k * r[:, None], b * r
        case lrp.ZPlus():
            share = r / stabilised(up(k, 0).sum(1) + up(b, 0))
            return up(k, 0) * share[:, None], up(b, 0) * share
        case lrp.AlphaBeta(alpha=alpha, beta=beta):
            plus = alpha * r / stabilised(up(k, 0).sum(1) + up(b, 0))
            minus = beta * r / stabilised(down(k, 0).sum(1) + down(b, 0))
            weights = up(k, 0) * plus[:, None] - down(k, 0) * minus[:, None]
            return weights, up(b, 0) * plus - down(b, 0) * minus
        case lrp.Gamma(gamma=gamma):
            kept = (z > 0)[:, None]
            favoured = np.where(kept, up(k, 0), down(k, 0))
            b_favoured = np.where(z > 0, up(b, 0), down(b, 0))
            heavy, b_heavy = k + gamma * favoured, b + gamma * b_favoured
            share = r / stabilised(heavy.sum(1) + b_heavy)
            return heavy * share[:, None], b_heavy * share
        case lrp.WSquare():
            share = r / stabilised((w * w).sum(0) + b * b)
            return w * w * share[:, None], b * b * share
        case lrp.Flat():
            share = np.broadcast_to((r / stabilised(np.full(z.shape, len(w))))[:, None], k.shape)
            return share, 0 * z
        case lrp.ZBox(low=low, high=high):
            boxed = k - low * up(w, 0) - high * down(w, 0)
            return boxed * (r / stabilised(boxed.sum(1)))[:, None], 0 * z
        case _:
            raise AssertionError(rule)


@pytest.mark.parametrize(
    "rule",
    [
        lrp.Epsilon(0.25),
        lrp.Zero(),
        lrp.Norm(),
        lrp.Relative(),
        lrp.ZPlus(),
        lrp.AlphaBeta(2.0, 1.0),
        lrp.AlphaBeta(1.0, 0.0),
        lrp.Gamma(0.5),
        lrp.WSquare(),
        lrp.Flat(),
        lrp.ZBox(-4.0, 4.0),
    ],
    ids=repr,
)
def test_parameters_carry_the_contributions_of_their_rule(rule: lrp.Rule) -> None:
    rng = np.random.default_rng(1)
    x, w, b = rng.normal(size=(3, 5)), rng.normal(size=(5, 4)), rng.normal(size=4)
    apply = lambda p, x: x @ p["w"] + p["b"]  # noqa: E731
    explain = lrp.parameter_relevance(apply, rule)
    found = explain({"w": w, "b": b}, x, target=np.ones((3, 4)))
    weights, bias = contributions(rule, x, w, b)
    assert_allclose(found["w"], weights.sum(0), **CLOSE)
    assert_allclose(found["b"], bias.sum(0), **CLOSE)
    # The same contributions, summed over the other side, are the explanation.
    relevance = lrp.relevance(apply, rule)({"w": w, "b": b}, x, target=np.ones((3, 4)))
    assert_allclose(relevance, weights.sum(2), **CLOSE)


def test_weights_of_convolutions_carry_what_passes_at_all_places() -> None:
    rng = np.random.default_rng(2)
    x, w = rng.normal(size=(2, 6, 3)), rng.normal(size=(3, 3, 2))
    apply = lambda w, x: jax.lax.conv_general_dilated(  # noqa: E731
        x, w, (2,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
    )
    found = lrp.parameter_relevance(apply, lrp.ZPlus())(w, x, target=np.ones((2, 2, 2)))
    patches = np.stack([x[:, i : i + 3] for i in (0, 2)], 1)
    k = patches[..., None] * w  # (n, place, width, in, out)
    share = k.sum((2, 3)) / stabilised(np.maximum(k, 0).sum((2, 3)))
    expected = (np.maximum(k, 0) * share[:, :, None, None]).sum((0, 1))
    assert_allclose(found, expected, **CLOSE)


def test_a_weight_used_twice_carries_both() -> None:
    apply = lambda p, x: (x @ p["w"]) @ p["w"]  # noqa: E731
    w = RNG.normal(size=(4, 4))
    found = lrp.parameter_relevance(apply, lrp.Zero())({"w": w}, X, target=0)["w"]
    hidden = np.asarray(X @ w)
    first = np.einsum("ni,ij,j->ij", X, w, w[:, 0])
    second = np.zeros((4, 4))
    second[:, 0] = (hidden * w[:, 0]).sum(0)
    assert_allclose(found, first + second, **CLOSE)


@pytest.mark.parametrize("below", [lrp.Zero(), lrp.Flat()])
def test_flat_counts_weights_of_zero(below: lrp.Rule) -> None:
    """Each connection has the same part, so that the sum is still what the layer sends."""
    rng = np.random.default_rng(3)
    w = {"a": rng.normal(size=(5, 4)), "b": rng.normal(size=(3, 4)), "unused": np.zeros(2)}
    w["a"][1], w["b"][:, 2], w["b"][0] = 0, 0, 0
    apply = lambda w, x: jax.nn.relu(x @ w["a"]) @ w["b"].T  # noqa: E731
    rules = lrp.Composite([("a", below), ("b", lrp.Flat())])
    x = rng.normal(size=(6, 5))
    found = lrp.parameter_relevance(apply, rules)(w, x, target=1)
    logits = apply(w, x)[:, 1]
    part = logits.sum() / stabilised(np.array(4.0))
    assert_allclose(found["b"], np.outer([0, 1, 0], np.full(4, part)), **CLOSE)
    ledger = lrp.conservation(apply, rules)(w, x, target=1)
    for name in "ab":
        assert_allclose(found[name].sum(), ledger.rows[name]["out"], **CLOSE)
    assert not np.asarray(found["unused"]).any()
    if isinstance(below, lrp.Zero):
        assert not np.asarray(found["a"][1]).any()


def test_what_is_no_weight_carries_nothing() -> None:
    apply = lambda p, x: x @ p["w"] * p["n"]  # noqa: E731
    found = lrp.parameter_relevance(apply, lrp.Zero())({"w": W["a"], "n": jnp.array(2)}, X)
    assert float(found["n"]) == 0
    with pytest.raises(ValueError, match="argument 1 is explained"):
        lrp.parameter_relevance(chain, lrp.Zero(), params_argnum=1)


# The matrix of all outputs and inputs -------------------------------------------------------------

MATRICES = {
    "mlp_plain": lrp.Composite([("0_w", lrp.Gamma(0.3)), ("*", lrp.Epsilon())]),
    "cnn_max_pool": lrp.EpsilonPlusFlat(),
    "resnet": lrp.EpsilonAlpha2Beta1(),
    "norms_linen": lrp.AttnLRP(),
}


@pytest.mark.parametrize("name", MATRICES)
def test_forward_mode_is_reverse_mode(name: str) -> None:
    apply, params, x = ZOO[name].build()
    x = x[:1, :4, :4] if x.ndim == 4 and name == "resnet" else x[:1]

    @jax.jit
    def everything(params: Any, x: Any) -> Any:
        matrices = [
            lrp.relevance_matrix(apply, MATRICES[name], mode=mode)(params, x)
            for mode in ("forward", "reverse")
        ]
        return *matrices, lrp.relevance(apply, MATRICES[name])(params, x, target=1)

    forward, reverse, row = everything(params, x)
    assert_allclose(forward, reverse, **CLOSE)
    assert np.abs(reverse).max() > 1e-3
    assert_allclose(reverse[0, 1], row, **CLOSE)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_the_relative_rule_gives_a_matrix_too(mode: Any) -> None:
    rules = lrp.Composite([(lrp.Linear, lrp.Relative())])
    found = lrp.relevance_matrix(chain, rules, mode=mode)(W, X[0])
    z = np.asarray(HIDDEN[0] @ W["b"])
    # R_j = z_j at the output; then x_i w_ij R_j in each layer, the relu passes.
    hidden = np.asarray(HIDDEN[0])[None] * np.asarray(W["b"]).T * z[:, None]
    expected = hidden @ np.asarray(W["a"]).T * np.asarray(X[0])
    assert_allclose(found, expected, **CLOSE)


def test_matrices_that_are_none() -> None:
    with pytest.raises(ValueError, match="mode='sideways'"):
        lrp.relevance_matrix(chain, lrp.Zero(), mode="sideways")  # type: ignore[arg-type]
    gradient = lrp.composites.guided_backprop()
    with pytest.raises(ValueError, match="not linear"):
        lrp.relevance_matrix(chain, gradient, mode="forward")
    several, params, x = ZOO["several_outputs"].build()
    with pytest.raises(ValueError, match="one output and one input"):
        lrp.relevance_matrix(several, lrp.Zero())(params, x)


# Pairs --------------------------------------------------------------------------------------------


def test_pairs_sum_to_the_similarity() -> None:
    y = X[1]
    pairs = jax.jit(lrp.bilrp(chain, lrp.Zero()))(W, X[0], y)
    assert pairs.shape == (4, 4)
    similarity = chain(W, X[0]) @ chain(W, y)
    assert_allclose(pairs.sum(), similarity, **CLOSE)
    one, two = (lrp.relevance_matrix(chain, lrp.Zero())(W, v) for v in (X[0], y))
    assert_allclose(pairs, one.T @ two, **CLOSE)


def test_pairs_of_images_by_patches() -> None:
    kernel, dense = RNG.normal(size=(3, 3, 2, 3)), RNG.normal(size=(48, 5))

    def embed(w: Any, x: Any) -> Any:
        form = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, w["k"], (1, 1), "SAME", dimension_numbers=form)
        return jax.nn.relu(x).reshape(len(x), -1) @ w["d"]

    x, y = RNG.normal(size=(2, 1, 4, 4, 2))
    patches = lambda r: r.reshape(2, 2, 2, 2, 2).sum((1, 3, 4))  # noqa: E731
    w = {"k": kernel, "d": dense}
    found = lrp.bilrp(embed, lrp.Zero(), reduce=patches)(w, x, y)
    assert found.shape == (2, 2, 2, 2)
    assert_allclose(found.sum(), (embed(w, x) * embed(w, y)).sum(), **CLOSE)


# Sweeps and derivatives ---------------------------------------------------------------------------


def test_a_sweep_over_gammas_is_one_compilation() -> None:
    traces = []

    def counted(w: Any, x: Any) -> Any:
        traces.append(1)
        return chain(w, x)

    sweep = jax.jit(jax.vmap(lambda gamma: lrp.relevance(counted, lrp.Gamma(gamma))(W, X)))
    gammas = jnp.array([0.0, 0.1, 0.5, 2.0])
    found = sweep(gammas)
    for gamma, relevance in zip(gammas, found, strict=True):
        assert_allclose(relevance, lrp.relevance(chain, lrp.Gamma(float(gamma)))(W, X), **CLOSE)
    assert len(traces) <= 2
    before = len(traces)
    sweep(gammas + 1)
    assert len(traces) == before


@pytest.mark.parametrize("rule", [lrp.Gamma, lrp.Epsilon, lambda v: lrp.AlphaBeta(1 + v, v)])
def test_derivatives_by_the_numbers_of_rules(rule: Any) -> None:
    weights = jnp.asarray(RNG.normal(size=X.shape))

    def score(value: Any) -> Any:
        composite = lrp.Composite([("a", rule(value)), ("b", lrp.Epsilon(0.1))])
        return (weights * lrp.relevance(chain, composite)(W, X)).sum()

    at, step = 0.4, 1e-5
    derivative = jax.jit(jax.grad(score))(at)
    difference = (score(at + step) - score(at - step)) / (2 * step)
    assert abs(difference) > 1e-3
    assert_allclose(derivative, difference, rtol=1e-6)


def test_a_penalty_on_relevance_has_the_right_derivative() -> None:
    explain = lrp.relevance(chain, lrp.Gamma(0.3, stabilizer=0.1))

    def penalty(w: Any) -> Any:
        return jnp.abs(explain(w, X)[:, :2]).sum()

    gradient = jax.jit(jax.grad(penalty))(W)
    direction = jax.tree.map(lambda a: jnp.asarray(RNG.normal(size=a.shape)), W)
    step = 1e-6
    moved = [
        penalty(jax.tree.map(lambda a, d, s=s: a + s * d, W, direction)) for s in (step, -step)
    ]
    along = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction)))
    assert_allclose(along, (moved[0] - moved[1]) / (2 * step), rtol=1e-5)


# Starts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        targets.top_k(2),
        targets.contrast(0),
        targets.contrast(0, 2),
        targets.clrp(1),
        targets.softmax(2),
        targets.regression(0.5),
    ],
    ids=["top_k", "contrast", "class against class", "clrp", "softmax", "regression"],
)
def test_every_query_takes_every_start(target: Any) -> None:
    start = targets.start(chain(W, X), target)
    matrix = lrp.relevance_matrix(chain, lrp.Zero())(W, X)
    output = np.asarray(chain(W, X))
    rows = np.einsum("njmi->nji", matrix * np.eye(2)[:, None, :, None])
    expected = np.einsum("nj,nji->ni", start / output, rows)
    assert_allclose(lrp.relevance(chain, lrp.Zero())(W, X, target=target), expected, **CLOSE)
    ledger = lrp.conservation(chain, lrp.Zero())(W, X, target=target)
    assert_allclose([ledger.start, ledger.received], start.sum(), **CLOSE)
    concepts = lrp.concept_relevance(chain, lrp.Zero(), "a", range(5))(W, X, target=target)
    assert_allclose(concepts.sum(0), expected, **CLOSE)
    parameters = lrp.parameter_relevance(chain, lrp.Zero())(W, X, target=target)
    assert_allclose(parameters["a"].sum(), expected.sum(), **CLOSE)
