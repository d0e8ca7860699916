"""What a plan warns of, what explanations repeat of it, and what `strict` makes of it."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrp_jax as lrp

KEYS = jax.random.split(jax.random.key(0), 6)
W = {n: jax.random.normal(k, (4, 4), jnp.float64) for n, k in zip("abc", KEYS, strict=False)}
X = jax.random.normal(KEYS[5], (3, 4), jnp.float64)
HIDDEN = jnp.asarray(W["b"])


def dense(w: Any, x: jax.Array) -> jax.Array:
    return jax.nn.relu(x @ w["a"]) @ w["b"]


def odd_softmax(w: Any, x: jax.Array) -> jax.Array:
    """Of the powers of e, normalised by their squares: no softmax."""
    e = jnp.exp(x @ w["a"])
    return (e * jax.lax.rsqrt((e * e).sum())) @ w["b"]


def lone_exponential(w: Any, x: jax.Array) -> jax.Array:
    return (2 * jnp.exp(x @ w["a"])).reshape(-1)[None] @ jnp.ones((12, 4))


def lone_root(w: Any, x: jax.Array) -> jax.Array:
    return jnp.sqrt(jax.nn.relu(x @ w["a"])) @ w["b"]


def detached(w: Any, x: jax.Array) -> jax.Array:
    return jax.lax.stop_gradient(x) @ w["a"]


def ends_in_softmax(w: Any, x: jax.Array) -> jax.Array:
    return jax.nn.softmax(x @ w["a"])


def closes_over(w: Any, x: jax.Array) -> jax.Array:
    return x @ HIDDEN


def linear_attention(w: Any, x: jax.Array) -> jax.Array:
    q, k = (jax.nn.softplus(x @ w[n]) for n in "ab")
    return (q @ (k.T @ x)) / (q @ k.sum(0)[:, None])


def one_of_many(w: Any, x: jax.Array) -> jax.Array:
    """A probability with no exponential above the line."""
    s = x @ w["a"]
    return (1 / jnp.exp(s - s[:, 1:2]).sum(-1, keepdims=True)) @ w["b"][:1]


SUSPICIONS: dict[str, tuple[Any, Any, str]] = {
    "glob": (dense, lrp.EpsilonPlus().override(("aa", lrp.Zero())), "'aa'.*matches no layer"),
    "call": (dense, lrp.AttnLRP(attention="flash"), r"lrp.call\('flash'\).*matches no layer"),
    "shadowed": (
        dense,
        lrp.Composite([(lrp.Linear, lrp.Zero()), (lrp.Dense, lrp.Epsilon())]),
        "shadowed",
    ),
    "divided": (linear_attention, lrp.Epsilon(), "divides by a sum over explained values"),
    "reciprocal": (one_of_many, lrp.Epsilon(), "divides by a sum over explained values"),
    "softmax": (ends_in_softmax, lrp.AttnLRP(), "ends in a softmax"),
    "anonymous": (closes_over, lrp.Epsilon(), "no names"),
    "nothing": (detached, lrp.Epsilon(), "no output depends on the explained argument"),
    "exp": (lone_exponential, lrp.AttnLRP(), r"lrp.Softmax.*`exp`.*lone_exponential"),
    "sqrt": (lone_root, lrp.CPLRP(), r"lrp.Normalization.*`sqrt`.*lone_root.*a root"),
}
REPEATED = set(SUSPICIONS) - {"shadowed", "anonymous"}


@pytest.mark.parametrize("name", SUSPICIONS)
def test_a_suspicion_is_a_warning_and_an_error_where_asked_for(name: str) -> None:
    function, composite, text = SUSPICIONS[name]
    (warning,) = lrp.plan(function, composite)(W, X).warnings
    strict = lrp.Composite(lrp.composites.as_composite(composite).entries, strict=True)
    with pytest.raises(ValueError, match=r"(?s)strict=True.*" + text) as error:
        lrp.plan(function, composite, strict=True)(W, X)
    assert warning in str(error.value)
    for ask in (lrp.plan, lrp.relevance, lrp.lrp_transform, lrp.conservation):
        with pytest.raises(ValueError, match=r"(?s)strict=True.*" + text):
            ask(function, strict)(W, X)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        lrp.relevance(function, composite)(W, X)
    assert [str(w.message) for w in found] == ([warning] if name in REPEATED else [])


def test_all_suspicions_are_listed() -> None:
    composite = lrp.AttnLRP().override(("aa", lrp.Zero()), ("bb", lrp.Zero()))
    with pytest.raises(ValueError, match=r"(?s)- .*'aa'.*- .*'bb'.*- .*softmax"):
        lrp.plan(ends_in_softmax, composite, strict=True)(W, X)


def gated(w: Any, x: jax.Array) -> jax.Array:
    return ((x @ w["a"]) * jax.nn.sigmoid(x @ w["b"])) @ w["c"]


def attends(w: Any, x: jax.Array) -> jax.Array:
    h = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6)
    return jax.nn.softmax(h @ w["a"] @ h.T) @ h @ w["c"]


@pytest.mark.parametrize("make", [lrp.AttnLRP, lrp.CPLRP, lrp.EpsilonPlus, lrp.Epsilon, lrp.Zero])
@pytest.mark.parametrize(
    "function",
    [
        dense,
        gated,
        attends,
        *(
            lambda w, x, f=f: f(x @ w["a"]) @ w["b"]
            for f in (jax.nn.gelu, jax.nn.elu, jax.nn.softplus, jax.nn.silu, jax.nn.selu)
        ),
        lambda w, x: (1 / (1 + jnp.exp(-(x @ w["a"])))) @ w["b"],
        lambda w, x: jnp.where(x > 0, x, jnp.exp(x) - 1) @ w["b"],
        lambda w, x: x @ w["a"] * jnp.exp(w["b"][0]) / jnp.sqrt(jnp.abs(w["c"][0])),
    ],
)
def test_networks_without_suspicions_pass(function: Any, make: Any) -> None:
    plan = lrp.plan(function, make(), strict=True)(W, X)
    assert plan.warnings == ()
    strict = lrp.Composite(lrp.composites.as_composite(make()).entries, strict=True)
    np.testing.assert_array_equal(
        lrp.relevance(function, strict)(W, X), lrp.relevance(function, make())(W, X)
    )


def test_an_unrecognised_softmax_speaks() -> None:
    (text,) = lrp.plan(odd_softmax, lrp.AttnLRP())(W, X).warnings
    assert "`exp`" in text
    inside = lambda w, x: jax.checkpoint(lone_exponential)(w, x)  # noqa: E731
    (text,) = lrp.plan(inside, lrp.AttnLRP())(W, X).warnings
    assert "`exp`" in text


def test_strict_is_part_of_a_composite() -> None:
    entries = [(lrp.Dense, lrp.Zero())]
    strict = lrp.Composite(entries, strict=True)
    assert strict != lrp.Composite(entries)
    assert strict == lrp.Composite(entries, strict=True)
    assert hash(strict) == hash(lrp.Composite(entries, strict=True))
    assert repr(strict).endswith("], strict=True)")
    assert strict.override((lrp.Conv, lrp.Zero())).strict
    leaves, tree = jax.tree.flatten(strict)
    assert jax.tree.unflatten(tree, leaves) == strict
