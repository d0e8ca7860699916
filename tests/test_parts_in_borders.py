"""Parts of a layer inside of a border: what is added to them there, or behind it, is their bias.

The oracle is the same code without the border, or a Python loop in the place of a loop.
"""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from test_across_borders import counting, each_alone, scanned, stepped
from test_borders import TOKENS_X, WIDTH, P, X, assert_equal, branch, explained, mapped, plain


def parts_with_a_number(border: Any) -> Any:
    """A number that is added to a part of a layer is its bias, whoever adds it."""

    def f(p: Any, x: Any) -> Any:
        both = x @ jnp.concatenate([p["w0"], p["w1"]], 1) + jnp.concatenate([p["b0"], p["b1"]])
        a, b = border(lambda p, t: (t[..., :WIDTH], jnp.tanh(t[..., WIDTH:] - 0.5)), p, both)
        return jax.nn.sigmoid(a + 1) * b @ p["w2"]

    return f


def gates_of_a_cell(border: Any) -> Any:
    """Some gates inside of a border, and another one outside."""

    def gates(p: Any, t: Any) -> Any:
        i, f, g, o = jnp.split(t, 4, -1)
        return jax.nn.sigmoid(i), jax.nn.sigmoid(f + 1), g, o

    def f(p: Any, x: Any) -> Any:
        kernel = jnp.concatenate([p["w0"], p["w1"], p["w2"], p["w3"]], 1)
        h = jnp.tanh(x @ p["w4"])
        i, f, g, o = border(gates, p, x @ kernel)
        return jax.nn.sigmoid(o) * jnp.tanh(f * h + i * jnp.tanh(g))

    return f


@pytest.mark.parametrize("border", [branch, each_alone, mapped, counting])
@pytest.mark.parametrize("layer", [parts_with_a_number, gates_of_a_cell])
def test_a_bias_of_a_part_stands_inside_of_a_border(layer: Any, border: Any) -> None:
    assert_equal(explained(layer(border), X, "signs"), explained(layer(plain), X, "signs"))


def test_a_loop_carries_a_number_of_the_code() -> None:
    def apply(loop: Any) -> Any:
        def turn(state: Any, row: Any) -> Any:
            h, scale = state
            return jnp.tanh(row @ p["w0"] + h * scale), jnp.sqrt(jnp.asarray(2.0))

        p = P
        return lambda p, x: loop(turn, (x[0], x[0, 0, 0]), x)[0] @ p["w5"]

    x = TOKENS_X.swapaxes(0, 1)
    assert_equal(explained(apply(scanned), x), explained(apply(stepped), x))
