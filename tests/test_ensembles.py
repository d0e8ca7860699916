"""Relevance over an ensemble: the variance identity, percentiles, members one by one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrp_jax as lrp
from lrp_jax.questions import ensemble_relevance

KEYS = jax.random.split(jax.random.key(0), 3)
MEMBERS = {
    "a": jax.random.normal(KEYS[0], (7, 5, 6), jnp.float64),
    "b": jax.random.normal(KEYS[1], (7, 6, 3), jnp.float64),
}
X = jax.random.normal(KEYS[2], (4, 5), jnp.float64)


def net(w: Any, x: jax.Array) -> jax.Array:
    return jax.nn.relu(x @ w["a"]) @ w["b"]


@pytest.mark.parametrize("chunk", [None, 2])
def test_members_are_those_of_single_explanations(chunk: int | None) -> None:
    found = ensemble_relevance(net, lrp.Epsilon(0.1), chunk=chunk)(MEMBERS, X, target=1)
    single = lrp.relevance(net, lrp.Epsilon(0.1))
    for i in range(7):
        member = jax.tree.map(lambda leaf, i=i: leaf[i], MEMBERS)
        np.testing.assert_allclose(found.members[i], single(member, X, target=1), atol=1e-12)
        np.testing.assert_allclose(found.outputs[i], net(member, X), atol=1e-12)


def test_covariances_add_up_to_the_variance_of_the_output() -> None:
    """CovLRP's identity; LRP-0 of a net without biases conserves relevance."""
    found = ensemble_relevance(net, lrp.Zero())(MEMBERS, X, target=2)
    variance = found.outputs[:, :, 2].var(0)
    np.testing.assert_allclose(found.covariance.sum((1, 2)), variance, rtol=1e-9)
    np.testing.assert_allclose(found.of_variance.sum(-1), variance, rtol=1e-9)
    np.testing.assert_allclose(found.of_variance, found.covariance.sum(-1), atol=1e-9)
    rows = np.asarray(found.members)[:, 0]
    by_hand = np.cov(rows.T, bias=True)
    np.testing.assert_allclose(found.covariance[0], by_hand, atol=1e-9)


def test_without_a_target_all_members_explain_one_class() -> None:
    found = ensemble_relevance(net, lrp.Zero())(MEMBERS, X)
    named = found.outputs.mean(0).argmax(-1)
    same = ensemble_relevance(net, lrp.Zero())(MEMBERS, X, target=named)
    np.testing.assert_array_equal(found.members, same.members)


def test_percentiles_cover_a_known_posterior() -> None:
    """A linear model's relevance is Gaussian where its weights are: 90 % lie between 5 and 95."""
    samples = 2.0 + jax.random.normal(jax.random.key(5), (4000, 5, 1), jnp.float64)
    found = ensemble_relevance(lambda w, x: x @ w, lrp.Zero())(samples, X, target=0)
    low, high = found.percentile(5), found.percentile(95)
    fresh = 2.0 + jax.random.normal(jax.random.key(6), (4000, 1, 5), jnp.float64)
    inside = (X * fresh > low) & (X * fresh < high)
    assert abs(float(inside.mean()) - 0.9) < 0.02
    np.testing.assert_allclose(found.mean, 2 * X, atol=0.1)
    np.testing.assert_allclose(found.std, jnp.abs(X), rtol=0.1)


def test_agreement_is_the_share_of_members_with_the_sign_of_the_mean() -> None:
    w = jnp.array([[[1.0], [1.0]], [[3.0], [-1.0]], [[2.0], [-2.0]]])
    found = ensemble_relevance(lambda w, x: x @ w, lrp.Zero())(w, jnp.ones((1, 2)), target=0)
    np.testing.assert_allclose(found.agreement, [[1.0, 2 / 3]])


def test_it_is_a_jax_function() -> None:
    explain = ensemble_relevance(net, lrp.Zero())
    compiled = jax.jit(lambda w, x: explain(w, x, target=0).of_variance)
    np.testing.assert_allclose(
        compiled(MEMBERS, X), explain(MEMBERS, X, target=0).of_variance, atol=1e-12
    )
