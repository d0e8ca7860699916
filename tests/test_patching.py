"""Patching: the estimate equals the truth where a function is linear, the truth is what it says."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrp_jax as lrp
from lrp_jax import baselines, targets

KEYS = jax.random.split(jax.random.key(3), 6)
W = {
    "a": {"kernel": jax.random.normal(KEYS[0], (4, 5)), "bias": jnp.array([5.0, -9, 5, 5, -9])},
    "b": {"kernel": jax.random.normal(KEYS[1], (5, 3))},
    "table": jax.random.normal(KEYS[2], (7, 4)),
}
CLEAN, CORRUPTED = jax.random.normal(KEYS[3], (2, 2, 4)) / 2


def net(w: Any, x: Any) -> Any:
    h = jax.nn.relu(x @ w["a"]["kernel"] + w["a"]["bias"])
    return (h + h @ jnp.eye(5)[::-1]) @ w["b"]["kernel"]


def close(found: Any, wanted: Any, tolerance: float = 1e-10) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


def test_a_case_by_hand() -> None:
    w = {"a": jnp.array([[1.0, 0.0], [1.0, 1.0]]), "b": jnp.array([[2.0], [-1.0]])}
    f = lambda w, x: jax.nn.relu(x @ w["a"]) @ w["b"]  # noqa: E731
    clean, corrupted = jnp.array([[1.0, 2.0]]), jnp.array([[1.0, -3.0]])
    # a: (3, 2) and (-2, -3); relu: (3, 2) and (0, 0); b: 4 and 0.
    measured = lrp.activation_patching(f)(w, clean, corrupted)
    assert measured["a"].tolist() == [[6.0, -2.0]]
    assert measured["ReLU"].tolist() == [[6.0, -2.0]]
    assert measured["b"].tolist() == [[4.0]]
    estimated = lrp.patching(f, lrp.Zero())(w, clean, corrupted)
    assert estimated["a"].tolist() == [[0.0, 0.0]]  # the relus are off in the corrupted run
    assert estimated["ReLU"].tolist() == [[6.0, -2.0]]  # a multiplier of units that are zero
    back = lrp.patching(f, lrp.Zero())(w, corrupted, clean)
    assert back["a"].tolist() == [[-10.0, 5.0]]


@pytest.mark.parametrize("target", [None, 1, jnp.array([2, 0]), targets.contrast(0, 1)])
def test_in_one_linear_region_the_estimate_is_the_truth(target: Any) -> None:
    measured = lrp.activation_patching(net)(W, CLEAN, CORRUPTED, target=target)
    for estimate in (lrp.patching(net, lrp.Zero()), baselines.attribution_patching(net)):
        estimated = estimate(W, CLEAN, CORRUPTED, target=target)
        assert estimated.keys() == measured.keys()
        for name, effect in measured.items():
            close(estimated[name], effect)


def test_the_truth_is_what_a_run_with_another_value_gives() -> None:
    measured = lrp.activation_patching(net, "ReLU", chunk=3)(W, CLEAN, CORRUPTED, target=1)["ReLU"]
    hidden = lambda x: jax.nn.relu(x @ W["a"]["kernel"] + W["a"]["bias"])  # noqa: E731
    rest = lambda h: ((h + h[:, ::-1]) @ W["b"]["kernel"])[:, 1].sum()  # noqa: E731
    h, other = hidden(CORRUPTED), hidden(CLEAN)
    for index in np.ndindex(measured.shape):
        close(measured[index], rest(h.at[index].set(other[index])) - rest(h), 1e-9)


def test_examples_can_be_mapped_over() -> None:
    measure = lrp.activation_patching(net, "a")
    whole = measure(W, CLEAN, CORRUPTED, target=1)["a"]
    mapped = jax.vmap(lambda a, b: measure(W, a, b, target=1)["a"])(CLEAN, CORRUPTED)
    close(mapped, whole)


@pytest.mark.parametrize("axes", [(0,), (-1,), ()])
def test_units_of_several_numbers(axes: tuple[int, ...]) -> None:
    estimated = lrp.patching(net, lrp.Zero(), axes=axes)(W, CLEAN, CORRUPTED, target=1)
    measured = lrp.activation_patching(net, axes=axes)(W, CLEAN, CORRUPTED, target=1)
    for name, effect in measured.items():
        close(estimated[name], effect)
    if not axes:  # a whole layer through which all runs
        score = lambda x: net(W, x)[:, 1].sum()  # noqa: E731
        close(measured["a"], score(CLEAN) - score(CORRUPTED))


def test_ids() -> None:
    clean, corrupted = jnp.array([[1, 4, 2]]), jnp.array([[1, 5, 2]])
    f = lambda w, ids: net(w, w["table"][ids] / 4)  # noqa: E731
    target = targets.token(position=1, token=2)
    estimated = lrp.patching(f, lrp.Zero())(W, clean, corrupted, target=target)
    measured = lrp.activation_patching(f)(W, clean, corrupted, target=target)
    assert (measured["table"][0, [0, 2]] == 0).all()
    for name, effect in measured.items():
        close(estimated[name], effect)
    close(measured["table"].sum(), (f(W, clean) - f(W, corrupted))[0, 1, 2])


def test_layers_in_a_loop() -> None:
    """A patched turn changes what the turns after it make."""

    def turn(w: Any, h: Any) -> Any:
        return jax.nn.relu(h @ w["kernel"] + 3.0)

    def looped(w: Any, x: Any) -> Any:
        return jax.lax.scan(lambda h, _: (turn(w, h), None), x, length=3)[0]

    w = {"kernel": jax.random.normal(KEYS[4], (4, 4)) / 8}
    estimated = lrp.patching(looped, lrp.Zero())(w, CLEAN, CORRUPTED, target=2)
    measured = lrp.activation_patching(looped)(w, CLEAN, CORRUPTED, target=2)
    assert measured["ReLU"].shape == (3, 2, 4)
    hidden = [[x] for x in (CLEAN, CORRUPTED)]
    for values in hidden:
        values += [turn(w, values[-1])]
        values += [turn(w, values[-1])]
    patched = hidden[1][2].at[0, 1].set(hidden[0][2][0, 1])
    change = (turn(w, patched) - turn(w, hidden[1][2]))[:, 2].sum()
    close(measured["ReLU"][1, 0, 1], change, 1e-9)
    for name, effect in measured.items():
        close(estimated[name], effect)


def test_gradients_and_relp_differ_where_the_function_bends() -> None:
    f = lambda w, x: jax.nn.gelu(x @ w["a"]["kernel"]) @ w["b"]["kernel"]  # noqa: E731
    clean, corrupted = jnp.ones((1, 4)), jnp.full((1, 4), 0.5)
    hidden = corrupted @ W["a"]["kernel"]
    slopes = jax.nn.gelu(hidden) / hidden
    wanted = (clean - corrupted) @ W["a"]["kernel"] * slopes * W["b"]["kernel"][:, 0]
    close(lrp.patching(f, lrp.AttnLRP(), "a")(W, clean, corrupted, target=0)["a"], wanted)
    gradient = jax.grad(lambda h: (jax.nn.gelu(h) @ W["b"]["kernel"])[0, 0])(hidden)
    wanted = (clean - corrupted) @ W["a"]["kernel"] * gradient
    found = baselines.attribution_patching(f, "a")(W, clean, corrupted, target=0)["a"]
    close(found, wanted)


def test_several_targets_and_jit() -> None:
    estimate = lrp.patching(net, lrp.Zero(), "a")
    each = estimate(W, CLEAN, CORRUPTED, target=targets.each([0, 2]))["a"]
    for found, one in zip(each, (0, 2), strict=True):
        compiled = jax.jit(lambda a, b, t=one: estimate(W, a, b, target=t)["a"])
        close(found, compiled(CLEAN, CORRUPTED))


def test_bad_calls() -> None:
    estimate = lrp.patching(net, lrp.Zero())
    with pytest.raises(ValueError, match="one structure, shape and dtype"):
        estimate(W, CLEAN, CORRUPTED[:1])
    with pytest.raises(ValueError, match="no layer matches 'z'"):
        lrp.activation_patching(net, "z")(W, CLEAN, CORRUPTED)
    with pytest.raises(ValueError, match=r"axes=\(3,\)"):
        lrp.patching(net, lrp.Zero(), axes=(3,))(W, CLEAN, CORRUPTED)
    with pytest.raises(ValueError, match="chunk"):
        lrp.activation_patching(net, chunk=0)


# Edges --------------------------------------------------------------------------------------------

NODES = ("a", "b", "c")
EDGES = {"b": ("a",), "c": ("a", "b"), "out": ("a", "b", "c")}
SIZE = 4
NET = {n: jax.random.normal(k, (SIZE, SIZE)) / 4 for n, k in zip("abc", KEYS[:3], strict=True)}
NET["out"] = jax.random.normal(KEYS[3], (SIZE, 3))


def stream(w: Any, x: Any, patches: Any = None) -> Any:
    """Layers that read the sum of all before them; on an edge may lie another value."""
    patches, made = patches or {}, {}

    def read(name: str) -> Any:
        return x + sum(patches.get((n, name), made[n]) for n in EDGES.get(name, ()))

    for name in NODES:
        made[name] = jax.nn.relu(read(name) + 3.0) @ w[name]
    return read("out") @ w["out"], made


def test_edges_are_what_one_reader_sees() -> None:
    clean, corrupted = jax.random.normal(KEYS[4], (2, 2, SIZE)) / 4
    f = lambda w, x: stream(w, x)[0]  # noqa: E731
    found = lrp.patching(f, lrp.Zero(), axes=(0, 1), layers="[abc]", to="*")
    assert set(found(NET, clean, corrupted, target=1)["a"]) > {"b", "c", "out"}
    readers = lrp.patching(f, lrp.Zero(), "[abc]", to=lrp.Dense)(NET, clean, corrupted, target=1)
    assert {(u, d) for u, ends in readers.items() for d in ends} == {
        (u, d) for d, before in EDGES.items() for u in before
    }
    _, values = stream(NET, clean)
    logits, before = stream(NET, corrupted)
    for start, ends in readers.items():
        for end, effect in ends.items():
            for place in np.ndindex(2, SIZE):
                value = before[start].at[place].set(values[start][place])
                patched, _ = stream(NET, corrupted, {(start, end): value})
                close(effect[place], (patched - logits)[:, 1].sum(), 1e-8)
    whole = lrp.patching(f, lrp.Zero(), "[abc]")(NET, clean, corrupted, target=1)
    for start, ends in readers.items():
        close(sum(ends.values()), whole[start])


def test_edges_of_attention_and_bad_edges() -> None:
    """From the values of tokens to what reads them: queries, keys and values of the next layer."""
    w = {n: jax.random.normal(k, (3, 3)) / 2 for n, k in zip("opqkv", KEYS, strict=False)}

    def attention(w: Any, x: Any) -> Any:
        h = x + x @ w["o"]
        q, k, v = (h @ w[n] for n in "qkv")
        return (h + jax.nn.softmax(q @ k.T) @ v) @ w["p"]

    clean, corrupted = jax.random.normal(KEYS[5], (2, 4, 3))
    ask = lambda **more: lrp.patching(attention, lrp.AttnLRP(), "o", **more)  # noqa: E731
    target = targets.token(-1, 1)
    edges = ask(to="[qkvp]")(w, clean, corrupted, target=target)["o"]
    assert sorted(edges) == ["k", "p", "q", "v"]
    close(sum(edges.values()), ask()(w, clean, corrupted, target=target)["o"], 1e-9)
    assert all(np.abs(edge).max() > 0 for edge in edges.values())
    looped = lambda w, x: jax.lax.scan(lambda h, _: (h @ w["o"], None), x, length=3)[0]  # noqa: E731
    with pytest.raises(ValueError, match="loop"):
        lrp.patching(looped, lrp.Zero(), "o", to="o")(w, clean, corrupted)
