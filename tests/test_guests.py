"""The guest house: guests that need no more than the tests do, and that the oracle can fail.

All guests: `python -m tests.guests`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from guests import guest as house, oracle
from guests.families_flax import FAMILIES
from guests.tape import record

import lrp_jax as lrp
from lrp_jax.testing import assert_close


@pytest.mark.parametrize("name", [g.name for g in FAMILIES])
def test_light_guests(name: str) -> None:
    (guest,) = (g for g in FAMILIES if g.name == name)
    report = house.examine(guest, priced=False)
    assert not report.failures
    assert report.differences.keys() == {*guest.composites}
    assert report.recognised["Dense"] > 0


def _moebius(x: jax.Array, y: jax.Array) -> jax.Array:
    both = 1 + 2 * jnp.dot(x, y)
    sum_ = (both + jnp.dot(y, y)) * x + (1 - jnp.dot(x, x)) * y
    return sum_ / (both + jnp.dot(x, x) * jnp.dot(y, y))


Piece = Callable[[Any, jax.Array, jax.Array, jax.Array], jax.Array]
PIECES: dict[str, Piece] = {
    "a number added to a product of matrices": lambda w, q, k, v: (1 + k @ q.T) @ v,
    "a quotient by a sum and a number": lambda w, q, k, v: (
        jnp.cosh(q) @ (jnp.cosh(k).T @ v) / (0.5 + jnp.cosh(q) @ jnp.cosh(k).sum(0))[:, None]
    ),
    "a number added to a function that weights scale": lambda w, q, k, v: (
        (jnp.cosh(q * w) - 2) / w * k * v
    ),
    "a number added to what weights scaled": lambda w, q, k, v: (2 - jnp.tanh(q) * w) * v,
    "a power over a norm": lambda w, q, k, v: q**3 / jnp.sqrt(1 + jnp.vecdot(q, q))[:, None],
    "a function of what a norm is of": lambda w, q, k, v: (
        jnp.tanh(q) / jnp.sqrt(1 + jnp.vecdot(q, q))[:, None]
    ),
    "two functions of one value that is written twice": lambda w, q, k, v: (
        lambda x: jnp.tanh(k @ jnp.diag(w)) * x
    )(k @ jnp.diag(w) * v),
    "a product that is read twice": lambda w, q, k, v: (lambda x: (1 + x @ w)[:, None] * x)(q * v),
    "a Moebius sum": lambda w, q, k, v: jax.vmap(lambda x: _moebius(x, w))(q / 4),
}
"""Small things that families do, of three dense layers."""


@pytest.mark.filterwarnings("ignore:.*(quotient|no known layer):UserWarning")
@pytest.mark.parametrize("piece", PIECES)
def test_pieces_of_families(piece: str) -> None:
    w = jnp.asarray(np.random.default_rng(5).normal(size=(4, 4, 3)))

    def apply(w: jax.Array, x: jax.Array) -> jax.Array:
        return PIECES[piece](w[3, 0], *(x @ one for one in w[:3]))

    x = jnp.asarray(np.random.default_rng(6).normal(size=(2, 4)))
    start = jnp.zeros((2, 3)).at[..., 1].set(1)
    for composite, gate in ((lrp.AttnLRP(), False), (lrp.CPLRP(), True)):
        found = lrp.relevance(apply, composite)(w, x, target=start)
        expected = oracle.attention_relevance(record(apply, w, x), start, gate)
        assert_close(found, expected, 1e-9)


def test_another_explanation_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention weights that get relevance are no CP-LRP, and a gamma of another size is told."""
    encoder, _, resnet = (dataclasses.replace(g) for g in FAMILIES)
    wrong = {
        "CP-LRP": (lrp.AttnLRP(), True),
        "EpsilonGammaBox": (lrp.EpsilonGammaBox(house.LOW, house.HIGH, gamma=0.2),
                            house.COMPOSITES["EpsilonGammaBox"][1]),
    }  # fmt: skip
    monkeypatch.setattr(house, "COMPOSITES", wrong)
    for guest, name in ((encoder, "CP-LRP"), (resnet, "EpsilonGammaBox")):
        report = house.examine(dataclasses.replace(guest, composites=(name,)), priced=False)
        assert len(report.failures) == 1
        assert report.failures[0].startswith(f"{name}: off by")


def test_random_weights_leave_no_statistic_negative() -> None:
    params = {"bn": {"moving_variance": jnp.zeros(50), "gamma": jnp.zeros(50)}}
    assert (house.filled(params)["bn"]["moving_variance"] > 0).all()


def halved(params: Any, x: jax.Array) -> jax.Array:
    return jax.lax.while_loop(lambda v: jnp.abs(v).max() > 1, lambda v: v / 2, x @ params)


def test_what_has_to_be_refused_is() -> None:
    case = house.Case(halved, jnp.eye(2), 5 * jnp.ones((1, 2)))
    guest = house.Guest("loop", "jax", lambda: case, refused="through `while`")
    assert not house.examine(guest).failures
    wrong = dataclasses.replace(guest, build=lambda: case._replace(function=lambda p, x: x @ p))
    assert house.examine(wrong).failures == (
        "not refused by 'through `while`': the plan says nothing",
    )


def test_numbers_that_the_input_does_not_reach_are_constants() -> None:
    """Of a class token that was joined with the tokens, cut out again, relevance is nobody's."""

    def attend(params: Any, x: jax.Array) -> jax.Array:
        tokens = jnp.concatenate([params, x], 1)
        tokens = tokens / jnp.sqrt((tokens**2).sum(-1, keepdims=True))
        return (tokens[:, :1] * tokens[:, 1:]).sum(-1)

    token, x = jnp.ones((1, 1, 2)), jnp.array([[[3.0, 4.0]]])
    tape = record(attend, token, x)
    relevance = oracle.attention_relevance(tape, jnp.ones((1, 1)))
    assert jnp.allclose(relevance, jnp.array([0.6, 0.8]) / jnp.sqrt(2))
    assert oracle.Facts(tape).held
