"""Negations that one another undo turn no neuron around, whatever lies between."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import lrp_jax as lrp

Piece = Callable[[jax.Array], jax.Array]
ORDER = np.array([3, 1])


def windows(h: jax.Array, start: float, combine: Callable[..., jax.Array]) -> jax.Array:
    return lax.reduce_window(h, start, combine, (1, 2, 1), (1, 2, 1), "VALID")  # type: ignore[arg-type]


def kernel() -> jax.Array:
    return jax.random.normal(jax.random.key(3), (4, 4))


PIECES: dict[str, tuple[Piece, Piece]] = {
    "side by side": (
        lambda h: jnp.concatenate([h[:, 2:], h[:, :2]], 1),
        lambda h: -jnp.concatenate([-h[:, 2:], -h[:, :2]], 1),
    ),
    "picked": (lambda h: h[:, ORDER], lambda h: -((-h)[:, ORDER])),
    "padded": (
        lambda h: jnp.pad(h, ((0, 0), (1, 1), (0, 0))),
        lambda h: -jnp.pad(-h, ((0, 0), (1, 1), (0, 0))),
    ),
    "windows": (lambda h: windows(h, -jnp.inf, lax.max), lambda h: -windows(-h, jnp.inf, lax.min)),
    "least windows": (
        lambda h: windows(h, jnp.inf, lax.min),
        lambda h: -windows(-h, -jnp.inf, lax.max),
    ),
    "an axis": (lambda h: h.max(1, keepdims=True), lambda h: -(-h).min(1, keepdims=True)),
    "so far": (lambda h: lax.cummax(h, 1), lambda h: -lax.cummin(-h, 1)),
    "sorted": (lambda h: jnp.sort(h, 1), lambda h: -jnp.sort(-h, 1)[:, ::-1]),
    "a mean": (lambda h: h.mean(1, keepdims=True), lambda h: -(-h).mean(1, keepdims=True)),
    "a mean of windows": (
        lambda h: windows(h, 0.0, lax.add) / 2,
        lambda h: -(windows(-h, 0.0, lax.add) / 2),
    ),
    "a layer": (lambda h: h @ kernel(), lambda h: -((-h) @ kernel())),
    "a rectifier after windows": (
        lambda h: jax.nn.relu(windows(h, -jnp.inf, lax.max)),
        lambda h: -jnp.minimum(windows(-h, jnp.inf, lax.min), 0),
    ),
    "of two": (
        lambda h: jnp.maximum(h[:, :2], h[:, 2:]),
        lambda h: -jnp.minimum(-h[:, :2], -h[:, 2:]),
    ),
}


@pytest.mark.parametrize("name", PIECES)
@pytest.mark.parametrize("rule", [lrp.ZPlus(), lrp.AlphaBeta(), lrp.Gamma(0.5), lrp.Epsilon(0.1)])
def test_what_is_negated_twice_is_what_it_was(name: str, rule: lrp.Rule) -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    params = [jax.random.normal(key, (4, 4)) for key in keys[:2]]
    x = jax.random.normal(keys[2], (2, 4, 4))

    def net(piece: Piece) -> Callable[..., jax.Array]:
        return lambda params, x: jax.nn.relu(piece(x @ params[0])).sum(1) @ params[1]

    one, other = (lrp.relevance(net(f), rule)(params, x, target=1) for f in PIECES[name])
    np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-12)


def test_a_bound_is_not_turned_around() -> None:
    """`-max(-h, 2)` is `min(h, -2)`, and a pad with ones is none with zeros."""
    w, x = jnp.eye(3), jnp.arange(6.0).reshape(2, 3) - 4
    for f in (
        lambda w, x: -jnp.maximum(-(x @ w), 2.0),
        lambda w, x: -jnp.pad(-(x @ w), ((0, 0), (1, 0)), constant_values=1.0),
    ):
        output, _ = lrp.value_and_relevance(f, lrp.ZPlus())(w, x, target=1)
        np.testing.assert_array_equal(output, f(w, x))
        found = lrp.relevance(f, lrp.Zero())(w, x, target=1)
        slope = jax.grad(lambda x, f=f: f(w, x)[:, 1].sum())(x)
        assert np.all((np.asarray(found) == 0) | (np.asarray(slope) != 0))
