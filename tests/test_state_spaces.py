"""Selective state spaces and gated cells: presets against their formulas, written out."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrp_jax as lrp

STEPS, WIDTH, STATES = 7, 4, 3
stop = jax.lax.stop_gradient


def parameters() -> dict[str, Any]:
    shapes = {
        "in_proj": (WIDTH, 2 * WIDTH),
        "conv": (3, 1, WIDTH),
        "x_proj": (WIDTH, 1 + 2 * STATES),
        "dt": (1, WIDTH),
        "A_log": (WIDTH, STATES),
        "D": (WIDTH,),
        "out_proj": (WIDTH, 5),
        "scale": (WIDTH,),
    }
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return {
        name: {"kernel": jax.random.normal(key, shape, jnp.float64)}
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


P = parameters()
X = jax.random.normal(jax.random.key(1), (STEPS, WIDTH), jnp.float64)


def by_scan(decay: jax.Array, brought: jax.Array) -> jax.Array:
    def turn(h: jax.Array, step: Any) -> tuple[jax.Array, jax.Array]:
        h = step[0] * h + step[1]
        return h, h

    return jax.lax.scan(turn, jnp.zeros_like(decay[0]), (decay, brought))[1]


def by_associative_scan(decay: jax.Array, brought: jax.Array) -> jax.Array:
    def join(a: Any, b: Any) -> Any:
        return a[0] * b[0], b[0] * a[1] + b[1]

    return jax.lax.associative_scan(join, (decay, brought))[1]


def by_turns(decay: jax.Array, brought: jax.Array) -> jax.Array:
    states = [brought[0]]
    for a, b in zip(decay[1:], brought[1:], strict=True):
        states.append(a * states[-1] + b)
    return jnp.stack(states)


def plain(x: Any) -> Any:
    return x


def block(
    p: Any,
    x: jax.Array,
    recur: Any = by_turns,
    silu: Any = jax.nn.silu,
    held: Any = plain,
    halved: Any = plain,
    statistic: Any = plain,
) -> jax.Array:
    """A Mamba block with its norm, residual and read-out."""
    kernel = {name: leaf["kernel"] for name, leaf in p.items()}
    root = jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6)
    u, z = jnp.split((x * statistic(root) * kernel["scale"]) @ kernel["in_proj"], 2, -1)
    u = jax.lax.conv_general_dilated(
        u[None], kernel["conv"], (1,), [(2, 0)], dimension_numbers=("NTC", "TIO", "NTC"),
        feature_group_count=WIDTH,
    )[0]  # fmt: skip
    u = silu(u)
    chosen = held(u @ kernel["x_proj"])
    step = jax.nn.softplus(chosen[:, :1] @ kernel["dt"])
    b, c = chosen[:, 1 : 1 + STATES], chosen[:, 1 + STATES :]
    decay = jnp.exp(step[..., None] * -jnp.exp(kernel["A_log"]))
    state = recur(decay, (step * u)[..., None] * b[:, None])
    y = (state * c[:, None]).sum(-1) + kernel["D"] * u
    return (x + halved(y * silu(z)))[-1] @ kernel["out_proj"]


def silu_held(x: jax.Array) -> jax.Array:
    return x * stop(jax.nn.sigmoid(x))


def halved(y: jax.Array) -> jax.Array:
    return y / 2 + stop(y / 2)


def formula(p: Any, x: jax.Array, target: int) -> jax.Array:
    """Gradient times input of the block with what MambaLRP holds held."""
    held: Any = {"silu": silu_held, "held": stop, "halved": halved, "statistic": stop}
    return x * jax.grad(lambda x: block(p, x, **held)[target])(x)


@pytest.mark.parametrize("recur", [by_scan, by_associative_scan, by_turns])
def test_mamba_equals_its_formula(recur: Any) -> None:
    explain = lrp.relevance(lambda p, x: block(p, x, recur)[None], lrp.composites.MambaLRP())
    np.testing.assert_allclose(explain(P, X, target=2), formula(P, X, 2), atol=1e-10)


def test_a_selection_that_is_not_there_is_named() -> None:
    composite = lrp.composites.MambaLRP(selection="*selector*")
    with (
        pytest.warns(UserWarning, match="selector.* matches no layer"),
        pytest.warns(UserWarning, match="belongs to no known layer"),
    ):
        lrp.relevance(lambda p, x: block(p, x)[None], composite)(P, X)


# -- an xLSTM cell: gates held, the state carries ------------------------------------------------


def cell(p: Any, x: jax.Array, held: Any = plain, signal: Any = jnp.tanh) -> jax.Array:
    """sLSTM with exponential input gate and its normaliser (Beck et al. 2024)."""

    def turn(carry: Any, x: jax.Array) -> tuple[Any, None]:
        c, n = carry
        i, f, o = (held(x @ p[name]) for name in ("i", "f", "o"))
        f, i = jax.nn.sigmoid(f), jnp.exp(i)
        c, n = f * c + i * signal(x @ p["z"]), f * n + i
        return (c, n), jax.nn.sigmoid(o) * (c / n)

    zeros = jnp.zeros(WIDTH, x.dtype)
    _, hidden = jax.lax.scan(turn, (zeros, zeros + 1), x)
    return (hidden[-1] @ p["out"])[None]


def test_an_xlstm_cell_equals_its_formula() -> None:
    keys = jax.random.split(jax.random.key(2), 5)
    p = {
        name: jax.random.normal(key, (WIDTH, WIDTH), jnp.float64) / 2
        for key, name in zip(keys, ("i", "f", "o", "z", "out"), strict=True)
    }
    gates = [(name, lrp.Hold()) for name in ("i", "f", "o")]
    explain = lrp.relevance(cell, lrp.AttnLRP().override(*gates))
    slope = lambda v: v * stop(jnp.tanh(v) / v)  # noqa: E731
    wanted = X * jax.grad(lambda x: cell(p, x, stop, slope)[0, 1])(X)
    np.testing.assert_allclose(explain(p, X, target=1), wanted, atol=1e-10)


# -- RelP ----------------------------------------------------------------------------------------


def test_relp_equals_its_formula() -> None:
    keys = jax.random.split(jax.random.key(3), 7)
    names = ("q", "k", "v", "o", "up", "gate", "down")
    p = {
        name: jax.random.normal(key, (WIDTH, WIDTH), jnp.float64)
        for key, name in zip(keys, names, strict=True)
    }

    def net(p: Any, x: jax.Array, held: Any = plain, silu: Any = jax.nn.silu) -> jax.Array:
        weights = held(jax.nn.softmax((x @ p["q"]) @ (x @ p["k"]).T))
        x = x + weights @ (x @ p["v"]) @ p["o"]
        norm = x * held(jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6))
        gated = (norm @ p["up"]) * silu(norm @ p["gate"])
        gated = gated if silu is jax.nn.silu else halved(gated)
        return (x + gated @ p["down"])[-1:]

    found = lrp.relevance(net, lrp.composites.RelP())(p, X, target=1)
    wanted = X * jax.grad(lambda x: net(p, x, stop, silu_held)[0, 1])(X)
    np.testing.assert_allclose(found, wanted, atol=1e-10)
