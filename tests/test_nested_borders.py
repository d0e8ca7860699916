"""Layers that lie on two borders, one inside of the other, and numbers that borders hand on.

The oracle is the same code in Python.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from test_borders import TOKENS_X, WIDTH, P, X, assert_equal, explained, mean, plain

import lrp_jax as lrp

# -- loops that may end early, and turns that may be left out -------------------------------------


def in_python(turn: Any, start: Any, p: Any, turns: int = 3) -> Any:
    return functools.reduce(lambda carry, i: turn(i, carry), range(turns), start)


def until(turn: Any, start: Any, p: Any, turns: int = 3) -> Any:
    """A loop that may end before its last turn, which nobody knows."""

    def goes_on(c: Any) -> Any:
        return (c[0] < turns) & (c[1] < 9)

    def step(c: Any) -> Any:
        return c[0] + 1, c[1] + p["s"][0] / turns, turn(c[0], c[2])

    return lax.while_loop(goes_on, step, (0, 0.0 * p["s"][0], start))[2]


def statistic(loop: Any, p: Any, x: Any) -> Any:
    """A statistic that a loop makes, of a norm outside of it."""
    h = x @ p["w0"]
    total = loop(lambda i, c: mean(h * h), jnp.zeros((len(x), 1)), p)
    return h * lax.rsqrt(total + 1e-3)


def equilibrium(loop: Any, p: Any, x: Any) -> Any:
    step = lambda i, z: jnp.tanh(z @ p["w0"] + x @ p["w1"] + p["b0"])  # noqa: E731
    return loop(step, jnp.zeros_like(x), p)


def late_bias(loop: Any, p: Any, x: Any) -> Any:
    """A layer that begins in one turn and ends in the next one."""
    return loop(lambda i, h: jnp.tanh(h + p["b0"]) @ p["w0"], x @ p["w1"], p) + p["b1"]


@pytest.mark.parametrize("composite", ["signs", "halves"])
@pytest.mark.parametrize("piece", [statistic, equilibrium, late_bias])
def test_a_loop_that_may_end_early_is_its_turns(piece: Any, composite: str) -> None:
    def apply(loop: Any) -> Any:
        return lambda p, x: piece(loop, p, x) @ p["w5"]

    assert_equal(explained(apply(until), X, composite), explained(apply(in_python), X, composite))


def blocks_of_keys(p: Any, x: Any, number: int, chosen: Any) -> Any:
    """Causal attention by blocks of keys, those left out that come later."""
    q, k, v = (x @ p[n] for n in ("w0", "w1", "w2"))
    size, tokens = x.shape[1] // number, jnp.arange(x.shape[1])

    def turn(carry: Any, block: Any) -> Any:
        keys, values = (lax.dynamic_slice_in_dim(a, block * size, size, 1) for a in (k, v))

        def attended(carry: Any) -> Any:
            largest, total, out = carry
            seen = tokens[:, None] >= block * size + jnp.arange(size)
            s = jnp.where(seen, jnp.einsum("bqd,bkd->bqk", q, keys), -1e30)
            new = jnp.maximum(largest, s.max(-1))
            e, old = jnp.exp(s - new[..., None]), jnp.exp(largest - new)
            added = jnp.einsum("bqk,bkd->bqd", e, values)
            return new, total * old + e.sum(-1), out * old[..., None] + added

        return lax.cond(chosen(p, block), attended, lambda carry: carry, carry), None

    shape = x.shape[:2]
    start = jnp.full(shape, -1e30), jnp.zeros(shape), jnp.zeros_like(v)
    _, total, out = lax.scan(turn, start, jnp.arange(number))[0]
    return out / total[..., None] @ p["w3"]


def attention(p: Any, x: Any) -> Any:
    q, k, v = (x @ p[n] for n in ("w0", "w1", "w2"))
    s = jnp.where(jnp.tril(jnp.ones((x.shape[1],) * 2, bool)), q @ k.swapaxes(1, 2), -1e30)
    return jax.nn.softmax(s) @ v @ p["w3"]


def known(p: Any, block: Any) -> Any:
    return block < 9


def unknown(p: Any, block: Any) -> Any:
    return block < 9 + p["s"][0]


@pytest.mark.parametrize("chosen", [known, unknown])
def test_blocks_of_keys_may_be_left_out(chosen: Any) -> None:
    x = jnp.concatenate([TOKENS_X, TOKENS_X[::-1]], 1)
    blocks = functools.partial(blocks_of_keys, number=3, chosen=chosen)
    found, expected = (lrp.relevance(f, lrp.AttnLRP())(P, x, target=1) for f in (blocks, attention))
    assert_equal(found, expected)


def test_many_blocks_are_written_once() -> None:
    """Also those whose choice nobody knows, which is said."""
    x = jnp.concatenate([TOKENS_X] * 4, 1)

    def planned(chosen: Any, number: int) -> Any:
        blocks = functools.partial(blocks_of_keys, number=number, chosen=chosen)
        return lrp.plan(blocks, lrp.AttnLRP())(P, x)

    assert not planned(known, 12).warnings
    assert len(planned(known, 12).layers) <= len(planned(known, 6).layers) + 6
    assert any("lies on the border" in text for text in planned(unknown, 12).warnings)
    assert len(planned(unknown, 12).layers) < 200


# -- numbers --------------------------------------------------------------------------------------


def chosen(f: Any, p: Any, *operands: Any) -> Any:
    def nothing(*operands: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, f(*operands))

    return lax.cond(p["s"][0] > -9, f, nothing, *operands)


def again(f: Any, p: Any, *operands: Any) -> Any:
    """A loop over nothing but its turns."""
    return lax.scan(lambda _, __: (None, f(*operands)), None, None, length=2)[1][1]


NUMBERS = {
    "one less": (lambda h, c: c - h, lambda: jnp.ones(WIDTH)),
    "a scalar": (lambda h, c: c - h, lambda: 1.0),
    "a floor": (lambda h, c: jnp.maximum(h, c), lambda: jnp.full(WIDTH, 0.5)),
    "a power": (lambda h, c: h**c, lambda: 2.5),
}


@pytest.mark.parametrize("border", [chosen, again])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_one_inside_of_a_border(name: str, border: Any) -> None:
    function, number = NUMBERS[name]

    def apply(border: Any) -> Any:
        def f(p: Any, x: Any) -> Any:
            c = number()
            inside = lambda h: function(h, c)  # noqa: E731
            return border(inside, p, jax.nn.sigmoid(x @ p["w0"])) @ p["w5"]

        return f

    expected = explained(apply(lambda f, p, h: plain(lambda p, h: f(h), p, h)), X, "signs")
    assert_equal(explained(apply(border), X, "signs"), expected)


@pytest.mark.parametrize("place", [0, 2])
def test_one_truth_value_of_the_code_chooses(place: int) -> None:
    """An array as a whole, by one number of a mask."""

    def apply(p: Any, x: Any) -> Any:
        h = jax.nn.relu(x @ p["w0"])
        return lax.select(jnp.arange(3)[place] < 2, h, jnp.zeros_like(h)) @ p["w5"]

    expected = explained(lambda p, x: (place < 2) * jax.nn.relu(x @ p["w0"]) @ p["w5"], X)
    assert_equal(explained(apply, X), expected)


# -- integers -------------------------------------------------------------------------------------

SCALE = 0.05
INTEGERS = jnp.round(P["w1"] / 0.02).astype(jnp.int8)


def quantised(h: Any) -> Any:
    """A layer in integers, its scale a number of the code: nothing passes it but integers."""
    u = jnp.clip(jnp.round(h / SCALE), -127, 127).astype(jnp.int8)
    made = jnp.matmul(u, INTEGERS, preferred_element_type=jnp.int32)
    return made.astype(h.dtype) * (SCALE * 0.02)


def mapped_twice(f: Any, p: Any, h: Any) -> Any:
    return lax.map(f, jnp.stack([h, h]))[1]


def looped(f: Any, p: Any, h: Any) -> Any:
    return lax.fori_loop(0, 2, lambda _, __: f(h), jnp.zeros_like(h))


@pytest.mark.parametrize("composite", ["signs", "halves"])
@pytest.mark.parametrize("border", [chosen, mapped_twice, looped])
def test_integers_carry_relevance_inside_of_a_border(border: Any, composite: str) -> None:
    """Also where floats pass outside of it, so that something is explained without them."""

    def apply(border: Any) -> Any:
        def f(p: Any, x: Any) -> Any:
            h = jax.nn.relu(border(quantised, p, x @ p["w0"]) + p["b0"])
            return (x + h) @ p["w5"]

        return f

    expected = explained(apply(lambda f, p, h: f(h)), X, composite)
    assert_equal(explained(apply(border), X, composite), expected)


def test_a_function_that_says_how_it_is_batched_is_what_it_computes() -> None:
    @jax.custom_batching.sequential_vmap
    def scaled(h: Any) -> Any:
        return h * lax.rsqrt(mean(h * h) + 1e-3)

    def apply(norm: Any) -> Any:
        return lambda p, x: norm(x @ p["w0"]) * p["s"] @ p["w5"]

    expected = explained(apply(lambda h: h * lax.rsqrt(mean(h * h) + 1e-3)), X, "signs")
    assert_equal(explained(apply(scaled), X, "signs"), expected)
    assert_equal(explained(apply(jax.vmap(scaled)), X, "signs"), expected)
