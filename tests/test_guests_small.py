"""Pieces of models that others wrote, against oracles that know nothing of the library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrp_jax as lrp
from lrp_jax.testing import ExplicitLayer, assert_close, signed_start

Chain = Callable[[jax.Array], jax.Array]


def _draw(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


# -- What leads from a rectifier to a contraction ------------------------------------------------

_S = _draw(6, seed=1)
ENDS = ((0, 0), (1, 2), (0, 0))
CHAINS: dict[str, Chain] = {
    "none": lambda h: h,
    "pad": lambda h: jnp.pad(h, ENDS),
    "pad_inside": lambda h: jax.lax.pad(h, 0.0, ((0, 0, 0), (1, 0, 1), (0, 0, 0))),
    "crop": lambda h: jax.lax.pad(h, 0.0, ((0, 0, 0), (-1, 2, 0), (0, 0, 0))),
    "pad_twice": lambda h: jnp.pad(jnp.pad(h, ENDS), ((0, 0), (0, 1), (1, 1))),
    "transpose_pad_reshape": lambda h: jnp.pad(h.swapaxes(1, 2), ENDS).reshape(len(h), 3, 18),
    "times_pad": lambda h: jnp.pad(h * _S, ENDS),
    "pad_times": lambda h: jnp.pad(h, ENDS) * _S,
    "pad_negative": lambda h: -jnp.pad(h, ENDS),
    "pad_over": lambda h: jnp.pad(h, ENDS) / 3.0,
    "shifted_pad": lambda h: jnp.pad(h * _S + 2.0, ENDS),
    "slice_pad": lambda h: jnp.pad(h[:, :5:2], ENDS),
    "gather_pad": lambda h: jnp.pad(h[:, jnp.array([5, 0, 3])], ENDS),
    "flip_pad": lambda h: jnp.pad(h[:, ::-1], ENDS),
}

RULES: dict[str, Any] = {
    "gamma": lrp.Gamma(0.3, bias="distribute"),
    "zplus": lrp.ZPlus(),
    "alpha2beta1": lrp.AlphaBeta(2, 1),
    "zbox": lrp.ZBox(-4.0, 4.0),
    "wsquare": lrp.WSquare(),
    "flat": lrp.Flat(),
}


def _convolve(weights: dict[str, jax.Array], h: jax.Array) -> jax.Array:
    numbers = ("NWC", "WIO", "NWC")
    return jax.lax.conv_general_dilated(
        h, weights["k"], (1,), "VALID", dimension_numbers=numbers
    ) + weights["b"]  # fmt: skip


@pytest.mark.parametrize(
    ("chain", "rectified"), [*((name, True) for name in CHAINS), ("pad_twice", False)]
)
def test_chains_before_a_contraction(chain: str, rectified: bool) -> None:
    before = CHAINS[chain]
    x = _draw(2, 6, 6, seed=4)
    h = jax.nn.relu(x) if rectified else x
    weights = {"k": _draw(2, before(x).shape[-1], 5, seed=2), "b": _draw(5, seed=3)}

    def apply(weights: Any, x: jax.Array) -> jax.Array:
        return _convolve(weights, before(jax.nn.relu(x) if rectified else x))

    start = signed_start(apply, weights, x)
    written_out = ExplicitLayer.of(lambda w, h: _convolve(w, before(h)), weights, x)
    for name, rule in RULES.items():
        found = lrp.relevance(apply, rule)(weights, x, target=lambda _: start)
        assert_close(found, written_out.propagate(rule, h, start), 1e-9, name)
