"""Networks rewritten by identities (`tests/fuzz/twins.py`): equal functions, equal relevance."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fuzz.checks import NAMES as COMPOSITES, TARGETS
from fuzz.identities import IDENTITIES, Identity, Site
from fuzz.networks import Op, Program, draw
from fuzz.shrink import shrink
from fuzz.twins import (
    NAMES,
    Comparison,
    Different,
    Network,
    Rewriting,
    check_twins,
    failure_like,
    known,
)
from jax import Array, lax


def everything(p: dict[str, Array], x: Array) -> Array:
    """A network with something for every identity, of examples of shape (2, 4)."""
    h = jax.nn.relu(x @ p["kernel"] + 1.0) - lax.max(x, 0.0)
    h = h + jnp.tanh(h) * jax.nn.sigmoid(-x) + jnp.square(h) + h**3 - jnp.minimum(h, x)
    h = jnp.maximum(h, x) + jnp.abs(h) + jnp.where(x > 0, h, 2 * x)
    u = jnp.exp(x / 4) + 1.0
    h = h / (jnp.log(u) + jnp.sqrt(u) * jnp.exp(h / 40)) + u / jnp.exp(x) * lax.rsqrt(u)
    e = jnp.exp(h - lax.stop_gradient(h.max(-1, keepdims=True)))
    h = h + e / e.sum(-1, keepdims=True)
    h = jnp.concatenate([h, jnp.cumsum(x, 1)], 1).reshape(2, 2, 4).transpose(0, 2, 1)
    spec = ("NTC", "TIO", "NTC")
    y = lax.conv_general_dilated(h, p["window"], (1,), "SAME", dimension_numbers=spec)
    y = lax.scan(lambda c, row: (c + row, c * row), h[:, 0], jnp.swapaxes(y, 0, 1))[1]
    y = lax.cond(p["kernel"].sum() < 1e9, jnp.sin, jnp.cos, y)
    y = jax.checkpoint(lambda y: jnp.sin(y) * 2)(y)
    return jnp.stack([y.sum((0, 2)), y.max((0, 2))], -1)[:, :3]


@pytest.fixture(scope="module")
def network() -> Comparison:
    with jax.enable_x64(True):
        rng = np.random.default_rng(3)
        params = {
            "kernel": jnp.asarray(rng.standard_normal((4, 4)) / 2),
            "window": jnp.asarray(rng.standard_normal((3, 2, 2)) / 2),
        }
        x = jnp.asarray(rng.standard_normal((2, 4)))
        return Comparison(Network(everything, params, x), params, x, None, everything, {})


@pytest.mark.parametrize("name", NAMES)
def test_an_identity_applies_and_keeps_values(name: str, network: Comparison) -> None:
    places = network.network.places(name)
    assert any(network.is_equal(network.network.rewritten([place])) for place in places)


def test_there_are_many_identities() -> None:
    assert len(NAMES) >= 40
    assert known() <= {*NAMES}


def plain(*ops: Op, seed: int = 0) -> Program:
    return Program(seed, "vector", "float64", 0, 1, ops)


@pytest.mark.parametrize("seed", range(20))
def test_random_networks_have_twins(seed: int) -> None:
    check_twins(draw(seed, len(COMPOSITES), len(TARGETS), 3), 1)


def test_a_wrong_twin_is_found_and_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an identity loses is a finding, of that identity, at the smallest network."""
    right = IDENTITIES["x y = y x"]

    def half_held(site: Site, x: Array, w: Array) -> Array:
        y = site.as_it_is(x, w)[0]
        return lax.stop_gradient(y) * 0.5 + y * 0.5

    wrong = Identity("x w = held", ("dot_general",), half_held)
    monkeypatch.setitem(IDENTITIES, wrong.name, wrong)
    program = plain(Op("dense", 1, 0, 1), Op("relu", 2), Op("jit", 0, 0, 0, 0, (Op("scalar"),)))
    comparison = Comparison.of(program)
    dot = comparison.network.places(wrong.name)[0]
    swap = Rewriting(right.name, *next(iter(comparison.network.places(right.name)))[1:])
    with pytest.raises(Different) as caught:
        comparison.checks([swap, dot], ["Zero"])
    assert caught.value.rewritings == [dot]
    smaller, error = shrink(program, caught.value, failure_like(caught.value))
    assert len(smaller.ops) <= 1
    assert str(error).startswith("x w = held at dot_general, Zero: off by")


def test_bodies_are_told_apart_from_borders() -> None:
    """Values behind a border are those of the equations, whatever the range."""
    program = plain(Op("dense", 0, 0, 1), Op("softmax"), Op("norm"), seed=4)
    network: Any = Comparison.of(program)
    last = len(network.network.jaxpr.eqns)
    for name in ("in a jit", "in a scan of one turn", "in a branch that is taken"):
        for start in (0, last // 2):
            twin = network.network.rewritten([Rewriting(name, start, last)])
            assert network.is_equal(twin)


def test_bodies_inside_of_what_is_written_out_are_no_loops_that_were() -> None:
    """They stand where a loop did, and have other inputs."""
    branch = Op("branch", 0, 0, 0, 0, (Op("bilinear"),))
    ops = (Op("recurrent", 13, 17), branch, Op("recurrent", 0, 21, 15), Op("scalar", 16, 3, 22, 1))
    check_twins(Program(3000151, "sequence", "float64", 20, 1, ops), 2)
