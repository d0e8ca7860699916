"""Arrays that code fills, row by row: what it puts side by side is one value.

The oracle is the same function of all rows at once.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from test_borders import WIDTH, P, assert_equal

import lrp_jax as lrp

ROWS = 6
X = jnp.asarray(np.random.default_rng(2).normal(size=(ROWS, 2, WIDTH)))
ORDER = jnp.asarray(np.random.default_rng(3).permutation(ROWS))
Fill = Callable[[Callable[[Any], Any], Any], Any]


def at_once(f: Any, x: Any) -> Any:
    return f(x)


def by_count(f: Any, x: Any) -> Any:
    return lax.fori_loop(0, len(x), lambda i, o: o.at[i].set(f(x[i])), jnp.zeros_like(x))


def from_the_end(f: Any, x: Any) -> Any:
    def turn(i: Any, o: Any) -> Any:
        i = len(x) - 1 - i
        return lax.dynamic_update_index_in_dim(o, f(x[i]), i, 0)

    return lax.fori_loop(0, len(x), turn, jnp.zeros_like(x))


def while_loop(f: Any, x: Any) -> Any:
    def turn(c: Any) -> Any:
        return c[0] + 1, c[1].at[c[0]].set(f(x[c[0]]))

    return lax.while_loop(lambda c: c[0] < len(x), turn, (0, jnp.zeros_like(x)))[1]


def over_indices(f: Any, x: Any) -> Any:
    xs = jnp.arange(len(x)), x
    turn = lambda o, t: (o.at[t[0]].set(f(t[1])), None)  # noqa: E731
    return lax.scan(turn, jnp.zeros_like(x), xs, reverse=True)[0]


def columns(f: Any, x: Any) -> Any:
    turn = lambda i, o: o.at[:, i].set(f(x[:, i]))  # noqa: E731
    return lax.fori_loop(0, x.shape[1], turn, jnp.zeros_like(x))


def two_rows_each(f: Any, x: Any) -> Any:
    def turn(i: Any, o: Any) -> Any:
        rows = lax.dynamic_slice_in_dim(x, 2 * i, 2)
        return lax.dynamic_update_slice_in_dim(o, f(rows), 2 * i, 0)

    return lax.fori_loop(0, len(x) // 2, turn, jnp.zeros_like(x))


def in_an_order(f: Any, x: Any) -> Any:
    turn = lambda i, o: o.at[ORDER[i]].set(f(x[ORDER[i]]))  # noqa: E731
    return lax.fori_loop(0, len(x), turn, jnp.zeros_like(x))


def the_others(f: Any, x: Any) -> Any:
    start = jnp.zeros_like(x).at[0].set(f(x[0]))
    return lax.fori_loop(1, len(x), lambda i, o: o.at[i].set(f(x[i])), start)


def beside_a_sum(f: Any, x: Any) -> Any:
    def turn(i: Any, c: Any) -> Any:
        return c[0].at[i].set(f(x[i])), c[1] + f(x[i])

    return lax.fori_loop(0, len(x), turn, (jnp.zeros_like(x), jnp.zeros_like(x[0])))[0]


def of_a_batch(f: Any, x: Any) -> Any:
    return jax.vmap(lambda x: by_count(f, x), 1, 1)(x)


def in_python(f: Any, x: Any) -> Any:
    made = jnp.zeros_like(x)
    for i in reversed(range(len(x))):
        made = made.at[i].set(f(x[i]))
    return made


def in_slices(f: Any, x: Any) -> Any:
    made = lax.dynamic_update_slice(jnp.zeros_like(x), f(x[:4]), (0, 0, 0))
    return made.at[4:].set(f(x[4:]))


LOOPS: list[Fill] = [
    by_count, from_the_end, while_loop, over_indices, columns, two_rows_each, in_an_order,
    the_others, beside_a_sum, of_a_batch,
]  # fmt: skip


def network(fill: Fill) -> Any:
    """A layer whose bias stands behind the array that is filled."""

    def apply(p: Any, x: Any) -> Any:
        h = fill(lambda row: row @ p["w0"], jnp.tanh(x)) + p["b0"]
        return jax.nn.relu(h) @ p["w5"]

    return apply


def norm(fill: Fill) -> Any:
    """A statistic that a loop makes, of what stands outside."""

    def apply(p: Any, x: Any) -> Any:
        h = x @ p["w0"]
        mean = fill(lambda row: 0 * row + (row * row).mean(-1, keepdims=True), h)
        return (h * lax.rsqrt(mean + 1e-3)) @ p["w5"]

    return apply


@pytest.mark.parametrize("rule", [lrp.AlphaBeta(2, 1), lrp.Epsilon(0.1)])
@pytest.mark.parametrize("fill", [*LOOPS, in_python, in_slices])
def test_an_array_that_is_filled_is_what_it_is_filled_with(fill: Fill, rule: Any) -> None:
    found, expected = (lrp.relevance(network(f), rule)(P, X, target=1) for f in (fill, at_once))
    assert_equal(found, expected)


@pytest.mark.parametrize("fill", [by_count, while_loop, in_python])
def test_a_norm_lies_in_and_beside_a_loop_that_fills(fill: Fill) -> None:
    found, expected = (
        lrp.relevance(norm(f), lrp.AttnLRP())(P, X, target=1) for f in (fill, at_once)
    )
    assert_equal(found, expected)


@pytest.mark.parametrize("fill", [by_count, while_loop])
def test_a_long_loop_that_fills_is_one_batch(fill: Fill) -> None:
    x = jnp.concatenate([X] * 20)
    kinds = [
        [layer.kind for layer in lrp.plan(network(f), lrp.Epsilon())(P, x).layers]
        for f in (fill, at_once)
    ]
    assert kinds[0] == kinds[1]


def test_a_norm_whose_moments_are_filled_from_the_end() -> None:
    def moments(row: Any) -> Any:
        mean = row.mean(-1, keepdims=True)
        return row - mean, ((row - mean) ** 2).mean(-1, keepdims=True)

    def apply(filled: bool) -> Any:
        def f(p: Any, x: Any) -> Any:
            h = x @ p["w0"] + p["b0"]

            def turn(i: Any, arrays: Any) -> Any:
                i = len(x) - 1 - i
                pairs = zip(arrays, moments(h[i]), strict=True)
                return tuple(lax.dynamic_update_index_in_dim(o, y, i, 0) for o, y in pairs)

            start = jnp.zeros_like(h), jnp.zeros_like(h[..., :1])
            made = lax.fori_loop(0, len(x), turn, start) if filled else moments(h)
            return made[0] / jnp.sqrt(made[1] + 1e-3) * p["s"] @ p["w5"]

        return f

    found, expected = (
        lrp.relevance(apply(filled), lrp.AttnLRP())(P, X, target=1) for filled in (True, False)
    )
    assert_equal(found, expected)


def test_what_was_in_an_array_stays_there_where_nobody_writes() -> None:
    """And every other number, which would be as many pieces."""

    def apply(fill: Any) -> Any:
        return lambda p, x: (fill(x, x @ p["w0"]) + p["b0"]) @ p["w5"]

    def row(x: Any, h: Any) -> Any:
        return lax.fori_loop(1, 3, lambda i, o: o.at[i].set(h[i]), x)

    def others(x: Any, h: Any) -> Any:
        return x.at[::2].set(h[::2])

    def joined(x: Any, h: Any) -> Any:
        return jnp.concatenate([x[:1], h[1:3], x[3:]])

    def masked(x: Any, h: Any) -> Any:
        return jnp.where((jnp.arange(ROWS) % 2 == 0)[:, None, None], h, x)

    for one, other in ((row, joined), (others, masked)):
        found, expected = (
            lrp.relevance(apply(f), lrp.AlphaBeta())(P, X, target=1) for f in (one, other)
        )
        assert_equal(found, expected)


# -- rows that are read by a count ----------------------------------------------------------------


def row(i: Any, values: Any) -> Any:
    return jax.tree.map(lambda a: a[i], values)


def empty(f: Any, values: Any) -> Any:
    shapes = jax.eval_shape(f, values)
    return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)


def read_and_written(f: Any, values: Any) -> Any:
    def turn(i: Any, made: Any) -> Any:
        return jax.tree.map(lambda o, y: o.at[i].set(y), made, f(row(i, values)))

    return lax.fori_loop(0, ROWS, turn, empty(f, values))


def blocks_of_one(f: Any, values: Any) -> Any:
    def turn(i: Any, made: Any) -> Any:
        block = jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, i, 1), values)
        update = functools.partial(lax.dynamic_update_slice_in_dim, start_index=i, axis=0)
        return jax.tree.map(update, made, f(block))

    return lax.fori_loop(0, ROWS, turn, empty(f, values))


def mapped_numbers(f: Any, values: Any) -> Any:
    return lax.map(lambda i: f(row(i, values)), jnp.arange(ROWS))


def batch_of_numbers(f: Any, values: Any) -> Any:
    def one(i: Any) -> Any:
        block = jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, i, 1), values)
        return jax.tree.map(lambda a: a[0], f(block))

    return jax.vmap(one)(jnp.arange(ROWS))


def counted(f: Any, values: Any) -> Any:
    def turn(i: Any, _: Any) -> Any:
        read = functools.partial(lax.dynamic_index_in_dim, index=i, keepdims=False)
        return i + 1, f(jax.tree.map(read, values))

    return lax.scan(turn, 0, None, length=ROWS)[1]


def checkpointed(f: Any, values: Any) -> Any:
    """A loop of another library: it counts, and writes what it makes, inside of its own calls."""
    turn = lambda c, x: (c, f(x))  # noqa: E731
    return eqxi.scan(turn, jnp.asarray(0), values, kind="checkpointed", checkpoints="all")[1]


def moments_inside(read: Any, p: Any, h: Any) -> Any:
    """A norm of which a part is computed row by row."""
    mean = h.mean(-1, keepdims=True)
    moments = lambda t: (t[0] - t[1], (t[0] ** 2).mean(-1, keepdims=True) - t[1] ** 2)  # noqa: E731
    centred, variance = read(moments, (h, mean))
    return centred * lax.rsqrt(variance + 1e-3) * p["s"]


def spread_inside(read: Any, p: Any, h: Any) -> Any:
    centred = h - h.mean(-1, keepdims=True)
    divided = lambda t: t[0] / (t[1].std(-1, keepdims=True) + 1e-3)  # noqa: E731
    return read(divided, (centred, h)) * p["s"]


def gated_inside(read: Any, p: Any, h: Any) -> Any:
    """A gated mean, written as a step, that is taken row by row."""
    step = jax.nn.sigmoid(h @ p["w1"]) * (jnp.tanh(h @ p["w2"]) - h)
    return read(lambda t: t[0] + t[1], (h, step))


READ = [
    read_and_written, blocks_of_one, mapped_numbers, batch_of_numbers, counted, checkpointed,
]  # fmt: skip


@pytest.mark.parametrize("piece", [moments_inside, spread_inside, gated_inside])
@pytest.mark.parametrize("read", READ)
def test_rows_that_are_read_by_a_count_are_the_array(read: Any, piece: Any) -> None:
    def apply(read: Any) -> Any:
        return lambda p, x: piece(read, p, x @ p["w0"] + p["b0"]) @ p["w5"] + p["b1"]

    composite = lrp.Composite([(lrp.Linear, lrp.AlphaBeta(2, 1)), *lrp.AttnLRP().entries])
    found, expected = (
        lrp.relevance(apply(r), composite)(P, X, target=1) for r in (read, lambda f, x: f(x))
    )
    assert_equal(found, expected)
