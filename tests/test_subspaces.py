"""PRCA and DRSA: planted subspaces are found, and they are concepts like any other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import lrp_jax as lrp
from lrp_jax.questions import Subspaces, drsa, prca

COUNT, RANK, UNITS = 3, 2, 10


def draw(*shape: int, seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


# Planted subspaces: three detectors listen to two directions each, one of them at a time --------


def planted(examples: int = 6000) -> tuple[Any, jax.Array, np.ndarray]:
    """A net, inputs and the bases (count, units, rank) of what it listens to.

    Each detector answers to strong signals in one of five ways in its plane; there is one in each
    input, weak ones beside it, and noise in the directions that nobody listens to.
    """
    rng = np.random.default_rng(0)
    whole = np.linalg.qr(rng.normal(size=(UNITS, UNITS)))[0]
    bases = np.moveaxis(whole[:, : COUNT * RANK].reshape(UNITS, COUNT, RANK), 1, 0)
    angles = 2 * np.pi * np.arange(5) / 5
    ways = np.stack([np.cos(angles), np.sin(angles)], 1)
    detectors = np.einsum("kur,wr->ukw", bases, ways).reshape(UNITS, -1)
    strength = 0.05 * rng.random((examples, COUNT))
    strength[np.arange(examples), rng.integers(COUNT, size=examples)] += 1 + rng.random(examples)
    turn = rng.uniform(0, 2 * np.pi, (examples, COUNT))
    inside = strength[..., None] * np.stack([np.cos(turn), np.sin(turn)], -1)
    hidden = np.einsum("nkr,kur->nu", inside, bases)
    hidden += rng.normal(size=(examples, UNITS - COUNT * RANK)) @ whole[:, COUNT * RANK :].T
    mix = rng.normal(size=(UNITS, UNITS))
    params = {"mix": jnp.asarray(mix), "detectors": jnp.asarray(detectors)}
    return params, jnp.asarray(hidden @ np.linalg.inv(mix)), bases


def dense(w: Any, x: jax.Array) -> jax.Array:
    return jax.nn.relu(x @ w["mix"] @ w["detectors"] - 0.3).sum(-1, keepdims=True)


def conv(w: Any, x: jax.Array) -> jax.Array:
    """The same net on pictures of one pixel to eight, which a batch is cut into."""
    form = ("NHWC", "HWIO", "NHWC")
    h = jax.lax.conv_general_dilated(
        x.reshape(-1, 2, 4, UNITS), w["mix"][None, None], (1, 1), "SAME", dimension_numbers=form
    )
    return jax.nn.relu(h @ w["detectors"] - 0.3).sum((1, 2, 3))[:, None]


def cosine(found: Any, planted: np.ndarray) -> np.ndarray:
    """(found, planted) cosines of the largest angle between subspaces."""
    q = np.linalg.qr(np.asarray(found))[0]
    return np.array([[np.linalg.svd(a.T @ b, compute_uv=False).min() for b in planted] for a in q])


@pytest.mark.parametrize("net", [dense, conv])
def test_planted_subspaces_are_found(net: Callable[..., Any]) -> None:
    params, x, bases = planted()
    batches = [x[:3000], x[3000:]]
    whole = prca(net, lrp.Zero(), "mix", COUNT * RANK)(params, batches).bases
    union = np.concatenate(bases, 1)[None]
    assert cosine(whole, union)[0, 0] > 0.99
    found = drsa(net, lrp.Zero(), "mix", COUNT, RANK)(params, batches).bases
    assert found.shape == (COUNT, UNITS, RANK)
    angles = cosine(found, bases)
    assert sorted(angles.argmax(1)) == [0, 1, 2]
    assert angles.max(1).min() > 0.99
    flat = np.concatenate(found, 1)
    assert_allclose(flat.T @ flat, np.eye(COUNT * RANK), atol=1e-9)
    # PRCA alone mixes them.
    assert cosine(np.moveaxis(whole[0].reshape(UNITS, COUNT, RANK), 1, 0), bases).max(1).min() < 0.9


def test_principal_components_find_the_noise_instead() -> None:
    params, x, bases = planted()
    hidden = np.asarray(x @ params["mix"])
    first = np.linalg.eigh(np.cov(hidden.T))[1][:, ::-1][:, : UNITS - COUNT * RANK]
    assert np.linalg.norm(first.T @ np.concatenate(bases, 1)) < 0.5


def test_they_are_concepts_of_every_query() -> None:
    params, x, bases = planted()
    found = drsa(dense, lrp.Zero(), "mix", COUNT, RANK, samples=4000)(params, [x])
    x = x[:20]
    by_plane = lrp.concept_relevance(dense, lrp.Zero(), "mix", found)(params, x)
    whole = lrp.relevance(dense, lrp.Zero())(params, x)
    # What the noise carries is the rest, and it is as good as nothing.
    assert_allclose(by_plane.sum((0, 2)), whole.sum(1), rtol=0.3)
    planted_ones = lrp.concept_relevance(dense, lrp.Zero(), "mix", Subspaces(jnp.asarray(bases)))
    scores = planted_ones(params, x).sum(2)
    assert (by_plane.sum(2).max(0) > 0.8 * scores.max(0)).all()


def test_random_samples_and_starts_are_those_of_the_key() -> None:
    params, x, _ = planted(60)

    def learned(seed: int) -> jax.Array:
        learn = drsa(
            dense,
            lrp.Zero(),
            "mix",
            2,
            2,
            samples=20,
            steps=5,
            restarts=1,
            key=jax.random.key(seed),
        )
        return learn(params, [x]).bases

    assert_allclose(learned(1), learned(1))
    assert np.abs(learned(1) - learned(2)).max() > 0.1


# PRCA against Jacobians --------------------------------------------------------------------------


def attention(w: Any, x: jax.Array) -> jax.Array:
    weights = jax.lax.stop_gradient(jax.nn.softmax((x @ w["q"]) @ (x @ w["k"]).mT))
    return (jax.nn.relu(weights @ (x @ w["v"])) @ w["out"]).sum(1)


def recurrent(w: Any, x: jax.Array) -> jax.Array:
    def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, None]:
        return jax.nn.relu(x @ w["v"] + h @ w["k"]), None

    return jax.lax.scan(step, jnp.zeros((len(x), 4)), x.swapaxes(0, 1))[0] @ w["out"]


@pytest.mark.parametrize("net", [attention, recurrent])
def test_prca_is_made_of_values_and_their_multipliers(net: Callable[..., Any]) -> None:
    """The multipliers of LRP-0 are the gradients with respect to the hidden layer."""
    w = {name: draw(4, 4, seed=i) for i, name in enumerate("qkv")} | {"out": draw(4, 2, seed=4)}
    x = draw(5, 3, 4, seed=5)
    found = prca(net, lrp.CPLRP(), "v", 2)(w, [(x[:3], 1), (x[3:], 1)]).bases[0]
    values = x @ w["v"]
    slopes = jax.grad(lambda shift: _shifted(net, w, x, shift)[:, 1].sum())(jnp.zeros_like(values))
    a, c = (np.asarray(v).reshape(-1, 4) for v in (values, slopes))
    covariance = a.T @ c + c.T @ a
    expected = np.linalg.eigh(covariance)[1][:, ::-1][:, :2]
    assert_allclose(np.abs(np.sum(found * expected, 0)), 1, atol=1e-9)


def _shifted(net: Callable[..., Any], w: Any, x: jax.Array, shift: jax.Array) -> jax.Array:
    """The net with something added to what its layer v makes, by an identity beside it."""
    wide = jnp.concatenate([x, shift], -1)
    eye, nothing = jnp.eye(4), jnp.zeros((4, 4))
    stacked = w | {"v": jnp.concatenate([w["v"], eye])}
    stacked |= {} if net is recurrent else {n: jnp.concatenate([w[n], nothing]) for n in "qk"}
    return net(stacked, wide)


def test_it_is_the_same_where_relevance_itself_travels() -> None:
    """Flat below the layer makes relevance of it; the multipliers are R / a."""
    w = {"a": draw(4, 4, seed=0), "b": draw(4, 3, seed=1), "c": draw(3, 1, seed=2)}
    x = draw(20, 4, seed=3)

    def net(w: Any, x: jax.Array) -> jax.Array:
        return x @ w["a"] @ w["b"] @ w["c"]

    rules = lrp.Composite([("a", lrp.Flat()), ("*", lrp.Zero())])
    found = prca(net, rules, "a", 1)(w, [x]).bases
    assert_allclose(np.abs(np.sum(found * prca(net, lrp.Zero(), "a", 1)(w, [x]).bases)), 1)


def test_mistakes_are_named() -> None:
    params, x, _ = planted(20)
    for wrong, message in (
        (lambda: prca(dense, lrp.Zero(), "mix", 11)(params, [x]), "1 subspaces of rank 11 do not"),
        (lambda: drsa(dense, lrp.Zero(), "mix", 6, 2)(params, [x]), "6 subspaces of rank 2 do not"),
        (lambda: prca(dense, lrp.Zero(), "mix", 1)(params, []), "at least one batch"),
        (lambda: prca(dense, lrp.Zero(), "nowhere", 1)(params, [x]), "no layer matches"),
        (lambda: prca(dense, lrp.composites.deconvnet(), "mix", 1), "no multipliers"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            wrong()
