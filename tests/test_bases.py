"""Relevance in another basis: sums, planted frequencies, brute force."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrp_jax as lrp
from lrp_jax import questions
from lrp_jax.questions import Basis, in_basis

SIZE = 16
X = jax.random.normal(jax.random.key(0), (3, SIZE), jnp.float64)
BASES: dict[str, Callable[[int], Basis]] = {
    "fourier": questions.fourier,
    "cosines": questions.cosines,
    "tiles": lambda size: questions.tiles(size, 4),
    "haar": questions.haar,
    "components": lambda size: questions.components(
        np.random.default_rng(0).normal(size=(50, size))
    ),
}


def net(w: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return jax.nn.relu(x @ w["a"]) @ w["b"]


KEYS = jax.random.split(jax.random.key(1))
W = {
    "a": jax.random.normal(KEYS[0], (SIZE, 8), jnp.float64),
    "b": jax.random.normal(KEYS[1], (8, 2), jnp.float64),
}


@pytest.mark.parametrize("name", BASES)
def test_a_basis_is_orthonormal_and_leads_back(name: str) -> None:
    for size in (SIZE,) if name in ("tiles", "haar") else (SIZE, 15):
        basis = BASES[name](size)
        np.testing.assert_allclose(basis.vectors @ basis.vectors.T, np.eye(size), atol=1e-12)
    basis = BASES[name](SIZE)
    np.testing.assert_allclose(basis.synthesise(basis.analyse(X)), X, atol=1e-12)


@pytest.mark.parametrize("name", BASES)
def test_relevance_of_coefficients_is_gradient_times_coefficient(name: str) -> None:
    """LRP-0 on a rectified net, by brute force; and the same sum as at the input."""
    basis = BASES[name](SIZE)
    z = basis.analyse(X)
    found = lrp.relevance(in_basis(net, basis), lrp.Zero())(W, z, target=1)
    by_hand = jax.grad(lambda z: net(W, z @ jnp.asarray(basis.vectors))[:, 1].sum())(z) * z
    np.testing.assert_allclose(found, by_hand, atol=1e-10)
    for rule in (lrp.Zero(), lrp.Epsilon(0.01), lrp.Composite([(lrp.Linear, lrp.Epsilon())])):
        found = lrp.relevance(in_basis(net, basis), rule)(W, z, target=1)
        plain = lrp.relevance(net, rule)(W, X, target=1)
        np.testing.assert_allclose(found.sum(-1), plain.sum(-1), rtol=1e-4)


def test_the_basis_is_no_layer_with_weights() -> None:
    basis = questions.fourier(SIZE)
    composite = lrp.Composite([(lrp.first(lrp.Linear), lrp.Flat()), (lrp.Linear, lrp.Epsilon())])
    plan = lrp.plan(in_basis(net, basis), composite)(W, basis.analyse(X))
    assert {x.path: x.rule for x in plan.layers}["a"] == "Flat()"


def test_a_planted_frequency_is_found() -> None:
    time = jnp.arange(64.0)
    listens = jnp.stack([jnp.cos(2 * jnp.pi * 5 * time / 64), -jnp.ones(64)], 1)
    x = sum(jnp.sin(2 * jnp.pi * f * time / 64 + 0.5) for f in (2, 5, 9))[None]
    basis = questions.fourier(64)
    power = lambda w, x: jax.nn.relu(x @ w)  # noqa: E731
    found = lrp.relevance(in_basis(power, basis), lrp.Zero())(listens, basis.analyse(x), target=0)
    by_frequency = np.abs(basis.summed(found)[0])
    assert by_frequency.argmax() == 5
    assert by_frequency[5] > 0.999 * by_frequency.sum()


def test_two_axes_and_every_query() -> None:
    image = jax.random.normal(jax.random.key(3), (2, 8, 8, 1), jnp.float64)
    rows, columns = questions.cosines(8, 1), questions.haar(8, 2)
    flat = lambda w, x: net(w, x.reshape(len(x), -1)[:, :SIZE])  # noqa: E731
    f = in_basis(flat, rows, columns)
    z = columns.analyse(rows.analyse(image))
    np.testing.assert_allclose(f(W, z), flat(W, image), atol=1e-10)
    found = lrp.relevance(f, lrp.Zero())(W, z, target=0)
    whole = lrp.relevance(flat, lrp.Zero())(W, image, target=0)
    np.testing.assert_allclose(found.sum((1, 2, 3)), whole.sum((1, 2, 3)), atol=1e-9)
    assert "a" in lrp.layer_relevances(f, lrp.Zero())(W, z)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"8 vectors.* has 16"):
        questions.fourier(8).analyse(X)
    with pytest.raises(ValueError, match="power of two"):
        questions.haar(12)
    with pytest.raises(ValueError, match="do not divide"):
        questions.tiles(16, 5)
    with pytest.raises(TypeError, match="one argument"):
        in_basis(net, questions.fourier(8), argnums=(1, 2))
