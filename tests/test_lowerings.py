"""Each lowering against XLA's own operation, forward, back, twice and transposed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import lrp_jax as lrp
from lrp_jax._propagation import lowerings as _lowerings
from lrp_jax._propagation.many import over
from lrp_jax._propagation.sparse import without_zeros
from lrp_jax.testing import assert_close

Function = Callable[..., jax.Array]


def lowered(function: Function, *operands: jax.Array) -> Function:
    """The lowering of the last equation of `function`."""
    eqn = jax.make_jaxpr(function)(*operands).eqns[-1]
    found = _lowerings.lowering(eqn)
    assert found is not None
    return found


def pull(function: Function, *operands: jax.Array) -> Function:
    return jax.jit(lambda ct: jax.vjp(function, *operands)[1](ct))


def max_pool(window: Any, strides: Any, padding: Any) -> Function:
    return lambda x: lax.reduce_window(x, -jnp.inf, lax.max, window, strides, padding)


def conv(strides: Any, padding: Any, groups: int = 1, layout: Any = None) -> Function:
    numbers = layout or ("NHWC", "HWIO", "NHWC")
    return lambda x, w: lax.conv_general_dilated(
        x, w, strides, padding, dimension_numbers=numbers, feature_group_count=groups
    )


def numbers(seed: int, *shape: int, dtype: Any = jnp.float64) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape, dtype)


POOLS = {
    "2x2": ((2, 7, 8, 3), (1, 2, 2, 1), (1, 2, 2, 1), "VALID"),
    "2x2 same": ((1, 7, 5, 2), (1, 2, 2, 1), (1, 2, 2, 1), "SAME"),
    "3x3 / 2 padded": ((2, 9, 8, 2), (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))),
    "3x3 / 1": ((1, 6, 6, 2), (1, 3, 3, 1), (1, 1, 1, 1), "SAME"),
    "3x2 / 2x3, gaps": ((1, 9, 10, 2), (1, 3, 2, 1), (1, 2, 3, 1), "VALID"),
    "2 / 5, gaps": ((2, 13), (1, 2), (1, 5), "VALID"),
    "channels too": ((2, 4, 6), (2, 2, 3), (2, 2, 3), "VALID"),
    "all": ((1, 7, 7, 4), (1, 7, 7, 1), (1, 7, 7, 1), "VALID"),
}


@pytest.mark.parametrize("name", POOLS)
def test_max_pool_hands_on_to_the_first_winner(name: str) -> None:
    shape, *form = POOLS[name]
    native = max_pool(*form)
    x = jnp.round(numbers(0, *shape))  # many ties
    ours = lowered(native, x)
    y = native(x)
    np.testing.assert_array_equal(jax.jit(ours)(x), y)
    cotangent = numbers(1, *y.shape)
    expected = pull(native, x)(cotangent)[0]
    np.testing.assert_allclose(pull(ours, x)(cotangent)[0], expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_max_pool_keeps_its_dtype(dtype: Any) -> None:
    x = numbers(0, 1, 4, 4, 2, dtype=dtype)
    native = max_pool(*POOLS["2x2"][1:])
    found = pull(lowered(native, x), x)(native(x))[0]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, pull(native, x)(native(x))[0])


def test_max_pool_twice_differentiated_is_native() -> None:
    native = max_pool(*POOLS["3x3 / 2 padded"][1:])
    x = numbers(0, *POOLS["3x3 / 2 padded"][0])
    ours = lowered(native, x)

    def explained(pool: Function, x: jax.Array) -> jax.Array:
        y, back = jax.vjp(lambda v: pool(v * v), x)
        return jnp.sum(back(jnp.sin(y))[0] ** 2)

    expected = jax.grad(lambda x: explained(native, x))(x)
    found = jax.jit(jax.grad(lambda x: explained(ours, x)))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_max_pool_pullback_transposes_and_batches() -> None:
    native = max_pool(*POOLS["2x2"][1:])
    x = numbers(0, *POOLS["2x2"][0])
    y = native(x)
    ours = pull(lowered(native, x), x)
    transpose = jax.linear_transpose(lambda ct: ours(ct)[0], y)
    np.testing.assert_allclose(transpose(x)[0], y, atol=1e-14)  # a winner gives its own value
    several = numbers(1, 3, *y.shape)
    expected = jnp.stack([ours(ct)[0] for ct in several])
    np.testing.assert_allclose(jax.vmap(ours)(several)[0], expected, atol=1e-14)


CONVOLUTIONS = {
    "patches": ((2, 8, 12, 3), (4, 4, 3, 5), conv((4, 4), "VALID")),
    "patches, remainder": ((1, 9, 11, 2), (2, 3, 2, 4), conv((2, 3), "VALID")),
    "smaller than strides": ((1, 8, 9, 2), (2, 1, 2, 3), conv((3, 2), "VALID")),
    "patches of sequences": ((2, 12, 3), (3, 3, 4), conv((3,), "VALID", 1, ("NWC", "WIO", "NWC"))),
    "channels first": (
        (2, 3, 8, 6),
        (5, 3, 2, 2),
        conv((2, 2), "VALID", 1, ("NCHW", "OIHW", "NCHW")),
    ),
    "depthwise": ((2, 6, 7, 4), (3, 3, 1, 4), conv((1, 1), "SAME", 4)),
    "depthwise / 2": ((2, 8, 7, 3), (5, 3, 1, 3), conv((2, 2), "SAME", 3)),
    "depthwise, no padding": ((1, 6, 7, 2), (2, 3, 1, 2), conv((1, 2), "VALID", 2)),
    "depthwise, channels first": (
        (2, 3, 6, 6),
        (3, 1, 3, 3),
        conv((1, 1), "SAME", 3, ("NCHW", "OIHW", "NCHW")),
    ),
    "overlapping": ((2, 7, 8, 3), (3, 3, 3, 4), conv((1, 1), "SAME")),
    "overlapping / 2": ((2, 8, 9, 3), (3, 2, 3, 4), conv((2, 1), "SAME")),
    "1x1 / 2": ((1, 8, 8, 2), (1, 1, 2, 4), conv((2, 2), "VALID")),
    "overlapping, channels first": (
        (2, 3, 6, 7),
        (4, 3, 3, 3),
        conv((1, 2), "SAME", 1, ("NCHW", "OIHW", "NCHW")),
    ),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_are_exact_in_both_operands(name: str) -> None:
    x_shape, w_shape, native = CONVOLUTIONS[name]
    x, w = numbers(0, *x_shape), numbers(1, *w_shape)
    ours = lowered(native, x, w)
    y = native(x, w)
    np.testing.assert_allclose(jax.jit(ours)(x, w), y, rtol=0, atol=1e-13)
    cotangent = numbers(2, *y.shape)
    for found, expected in zip(
        pull(ours, x, w)(cotangent), pull(native, x, w)(cotangent), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


def test_the_way_back_in_a_loop_needs_no_other_kernel() -> None:
    """In a loop's body XLA's CPU backend is fast with kernels (space, input, output) alone."""
    x, w = numbers(0, 1, 6, 6, 3), numbers(1, 3, 3, 3, 4)
    ours = lowered(conv((1, 1), "SAME"), x, w)

    def each(cotangents: jax.Array) -> jax.Array:
        return lax.map(lambda ct: pull(ours, x, w)(ct)[0], cotangents)

    text = jax.jit(each).lower(numbers(2, 5, 1, 6, 6, 4)).compile().as_text()
    kernels = re.findall(r"dim_labels=b01f_(\w+)->b01f", text)
    assert kernels
    assert set(kernels) == {"01io"}


def test_patches_leave_the_forward_pass_alone() -> None:
    x, w = numbers(0, 1, 8, 8, 3), numbers(1, 4, 4, 3, 5)
    native = conv((4, 4), "VALID")
    np.testing.assert_array_equal(lowered(native, x, w)(x, w), native(x, w))


def test_depthwise_adds_half_types_in_float32() -> None:
    x, w = (v.astype(jnp.bfloat16) for v in (numbers(0, 1, 9, 9, 4), numbers(1, 7, 7, 1, 4)))
    native = conv((1, 1), "SAME", 4)
    found = lowered(native, x, w)(x, w)
    assert found.dtype == jnp.bfloat16
    exact = native(x.astype(jnp.float32), w.astype(jnp.float32))
    np.testing.assert_allclose(found.astype(jnp.float32), exact, rtol=0.005, atol=0.01)


def test_depthwise_convolutions_of_one_shape_are_lowered_once() -> None:
    """A block more costs the same lines whatever the kernel is: its shifts are written once."""

    def lines(kernel: int, blocks: int) -> int:
        w = [numbers(i, kernel, kernel, 1, 4) for i in range(blocks)]

        def apply(w: Any, x: jax.Array) -> jax.Array:
            for one in w:
                x = jax.nn.relu(conv((1, 1), "SAME", 4)(x, one))
            return x.mean((1, 2))

        explain = jax.jit(lambda w, x: lrp.relevance(apply, lrp.ZPlus())(w, x, target=1))
        return explain.lower(w, numbers(9, 1, 8, 8, 4)).as_text().count("\n")

    assert lines(3, 4) - lines(3, 3) == lines(5, 4) - lines(5, 3)


def test_what_nobody_differentiates_by_is_not_transposed() -> None:
    x_shape, w_shape, native = CONVOLUTIONS["depthwise"]
    x, w = numbers(0, *x_shape), numbers(1, *w_shape)
    ours = lowered(native, x, w)
    by_x = jax.make_jaxpr(jax.grad(lambda x: ours(x, w).sum()))(x)
    by_both = jax.make_jaxpr(jax.grad(lambda x, w: ours(x, w).sum(), (0, 1)))(x, w)
    assert len(str(by_x)) < 0.6 * len(str(by_both))


def test_convolution_pullback_differentiates_and_transposes() -> None:
    x_shape, w_shape, native = CONVOLUTIONS["depthwise / 2"]
    x, w = numbers(0, *x_shape), numbers(1, *w_shape)
    ours = lowered(native, x, w)

    def explained(function: Function, w: jax.Array) -> jax.Array:
        y, back = jax.vjp(lambda v: function(v, w), x)
        return jnp.sum(back(jnp.tanh(y))[0] ** 2)

    expected = jax.grad(lambda w: explained(native, w))(w)
    found = jax.grad(lambda w: explained(ours, w))(w)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    y = native(x, w)
    transpose = jax.linear_transpose(lambda ct: pull(ours, x, w)(ct)[0], y)
    np.testing.assert_allclose(transpose(x)[0], y, rtol=0, atol=1e-13)


LEFT_ALONE = {
    "one element": ((1, 4, 4, 2), max_pool((1, 1, 1, 1), (1, 2, 2, 1), "VALID")),
    "large window": ((1, 32, 32, 1), max_pool((1, 32, 32, 1), (1, 1, 1, 1), "VALID")),
    "grouped": ((1, 8, 8, 4), lambda x: conv((1, 1), "SAME", 2)(x, jnp.ones((3, 3, 2, 4)))),
    "transposed": (
        (1, 4, 4, 2),
        lambda x: lax.conv_transpose(x, jnp.ones((2, 2, 2, 3)), (2, 2), "VALID"),
    ),
}


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_other_operations_are_left_alone(name: str) -> None:
    shape, function = LEFT_ALONE[name]
    eqn = jax.make_jaxpr(function)(jnp.ones(shape)).eqns[-1]
    assert _lowerings.lowering(eqn) is None


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_accelerators_keep_their_own_operations(platform: str) -> None:
    def f(w: jax.Array, x: jax.Array) -> jax.Array:
        return max_pool(*POOLS["2x2"][1:])(conv((1, 1), "SAME", 3)(x, w)).sum((1, 2))

    x, w = numbers(0, 2, 7, 8, 3), numbers(1, 3, 3, 1, 3)
    explain = jax.jit(lrp.relevance(f, lrp.Epsilon()))
    text = explain.trace(w, x).lower(lowering_platforms=(platform,)).as_text()
    assert "select_and_scatter" in text
    assert text.count("stablehlo.convolution") == 2
    on_cpu = explain.trace(w, x).lower(lowering_platforms=("cpu",)).as_text()
    assert "select_and_scatter" not in on_cpu
    assert "stablehlo.convolution" not in on_cpu


def test_explanations_are_those_of_the_native_operations() -> None:
    """Epsilon through both lowerings, against the explicit formula on XLA's own gradients."""

    def f(w: Any, x: jax.Array) -> jax.Array:
        h = jax.nn.relu(conv((2, 2), "VALID")(x, w[0]))
        return max_pool((1, 2, 2, 1), (1, 2, 2, 1), "VALID")(h).reshape(1, -1) @ w[1]

    w = (numbers(0, 2, 2, 3, 4), numbers(1, 16, 5))
    x = numbers(2, 1, 8, 8, 3)
    found = lrp.relevance(f, lrp.Zero())(w, x, target=3)
    expected = x * jax.grad(lambda x: f(w, x)[0, 3])(x)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("composite", [lrp.Zero(), lrp.EpsilonPlus()])
def test_a_lowered_convolution_may_be_scaled_by_a_written_number(composite: Any) -> None:
    """The number is an operand that has no name."""

    def scaled(w: jax.Array, x: jax.Array) -> jax.Array:
        return jax.nn.relu(conv((1, 1), "SAME", 3)(x, w) * 2.0).mean((1, 2))

    def plain(w: jax.Array, x: jax.Array) -> jax.Array:
        return jax.nn.relu(conv((1, 1), "SAME", 3)(x, 2.0 * w)).mean((1, 2))

    x, w = numbers(0, 2, 7, 8, 3), numbers(1, 3, 3, 1, 3)
    found, expected = (lrp.relevance(f, composite)(w, x, target=1) for f in (scaled, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


# -- arrays that are zero but at one index --------------------------------------------------------

X, TABLE = (np.random.default_rng(8).normal(size=(4, n)) for n in (6, 5))
HOT = [lambda i: jax.nn.one_hot(i, 4)[:, None] * X, lambda i: jnp.where(i == jnp.arange(6), X, 0)]
FROM_HOT: dict[str, Callable[[jax.Array], Any]] = {
    "rows": lambda x: -x @ jnp.cos(X.T),
    "features": lambda x: jnp.cos(X) @ x.T,
    "both": lambda x: (x.T @ x, x @ x.T),
    "batch": lambda x: jnp.einsum("tf,tk->tfk", x, TABLE),
    "of itself": lambda x: jnp.einsum("tf,tf->t", x, x),
    "moves": lambda x: jnp.expand_dims(x.T.reshape(2, 3, 4), 1).transpose(3, 0, 2, 1),
    "joined axes": lambda x: x.reshape(2, 12),
    "sums": lambda x: (x.sum(0), x.sum(1), x.sum()),
    "side by side": lambda x: jnp.concatenate([x[:, :3] * 2, jnp.zeros((4, 2)), x[:, 3:]], 1),
    "one behind the other": lambda x: jnp.concatenate([x, x]),
    "padded": lambda x: (jnp.pad(x, ((0, 0), (1, 2))), jnp.pad(x, ((1, 2), (0, 0)))),
    "padded with ones": lambda x: jnp.pad(x, ((0, 0), (1, 2)), constant_values=1),
    "cut": lambda x: (x[:, 1:5:2], x[1:3], x[::2, ::-1]),
    "chosen": lambda x: (jnp.where(X > 0, x, 0), jnp.where(X > 0, 1, x)),
    "divided": lambda x: (x / X, X / (1 + x * x), x / 2 + 0 * X),
    "added": lambda x: (x + x * x, x + X, 2 - x, jnp.maximum(x, 0)),
    "functions": lambda x: (jnp.exp(x), jnp.sign(x), jnp.cumsum(x, 0)),
    "floating indices": lambda x: x * (jnp.arange(6.0) == x.sum() - x.sum() + 2),
    "another index": lambda x: x * jax.nn.one_hot(1, 4)[:, None] + x * jax.nn.one_hot(0, 6),
}  # fmt: skip


@pytest.mark.parametrize(("hot", "chunk"), [(HOT[0], 6), (HOT[1], 4)], ids=["row", "column"])
def test_what_is_beside_one_index_is_left_out_and_comes_back(hot: Any, chunk: int) -> None:
    items = jnp.array([2, 0, -1, 3, 9, 1])  # two of them do not exist

    def all_of(i: jax.Array) -> dict[str, Any]:
        return {name: function(hot(i)) for name, function in FROM_HOT.items()}

    wanted = jax.jit(jax.vmap(all_of))(items)
    found = jax.jit(lambda items: over(all_of, items, chunk))(items)
    for name in FROM_HOT:
        for a, b in zip(*map(jax.tree.leaves, (found[name], wanted[name])), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12, err_msg=name)


PICTURE, KERNEL = (np.random.default_rng(9).normal(size=s) for s in ((2, 5, 6, 4), (3, 2, 4, 3)))
OF_ONE_CHANNEL: dict[str, dict[str, Any]] = {
    "same": {"padding": "SAME"},
    "strides": {"window_strides": (2, 1), "padding": [(1, 0), (2, 1)]},
    "the way back of strides": {"padding": [(2, -1), (1, 1)], "lhs_dilation": (2, 3)},
    "gaps": {"padding": "VALID", "rhs_dilation": (2, 1)},
}


def test_convolutions_of_one_channel_read_one_channel_of_the_kernel() -> None:
    def all_of(i: jax.Array) -> dict[str, Any]:
        one, example = (
            PICTURE * jax.nn.one_hot(i, 4),
            PICTURE * jax.nn.one_hot(i, 2)[:, None, None, None],
        )
        found: dict[str, Any] = {}
        for name, options in OF_ONE_CHANNEL.items():
            y = lambda x, o=options: lax.conv_general_dilated(  # noqa: E731
                x, KERNEL, **{"window_strides": (1, 1), **o},
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )  # fmt: skip
            by_platform = lambda x, y=y: lax.platform_dependent(x, cpu=y, default=y)  # noqa: E731
            found[name] = (y(one), by_platform(one), y(example), y(0 * example + one))
        return found

    items = jnp.array([1, 0, 3, -1])
    ours, wanted = (jax.jit(lambda i, f=f: f(all_of, i))(items) for f in (over, _vmapped))
    for name in OF_ONE_CHANNEL:
        for a, b in zip(ours[name], wanted[name], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12, err_msg=name)


def _vmapped(function: Callable[[Any], Any], items: Any) -> Any:
    return jax.vmap(function)(items)


def test_products_have_one_row_for_one_index() -> None:
    """From a one-hot vector on; several axes can have an index, and sums remove them."""

    def shapes(function: Callable[[jax.Array], Any]) -> list[tuple[int, ...]]:
        closed = jax.make_jaxpr(function)(1)
        made = jax.make_jaxpr(lambda i: without_zeros(closed, [i], closed.consts))(1)
        dots = [e for e in made.jaxpr.eqns if e.primitive.name == "dot_general"]
        return [v.aval.shape for e in dots for v in e.invars]

    rows, features = HOT
    assert shapes(lambda i: rows(i) @ X.T) == [(1, 6), (6, 4)]
    assert shapes(lambda i: features(i) @ X.T) == [(4, 1), (1, 4)]
    assert shapes(lambda i: rows(i).T @ TABLE) == [(6, 1), (1, 5)]
    assert shapes(lambda i: (rows(i) * jax.nn.one_hot(2, 6)) @ X.T @ TABLE) == [
        (1, 1), (1, 4), (1, 4), (4, 5)
    ]  # fmt: skip


def test_winners_of_what_is_computed_twice_are_those_of_the_maxima() -> None:
    """Compiled without optimisations, what a pool reads is rounded in two ways."""
    x = np.random.default_rng(1).normal(size=(1, 6, 6, 4))

    def pooled(w: Any, x: jax.Array) -> jax.Array:
        h = jnp.pad(x * w[0] + w[1], ((0, 0), (0, 1), (0, 1), (0, 0)))
        largest = jax.lax.reduce_window(
            h, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "VALID"
        )
        return largest.reshape(1, -1)

    w = (jnp.asarray(0.7), jnp.asarray(0.4))
    explain = jax.jit(lambda w, x: lrp.relevance(pooled, lrp.Zero())(w, x, target=lambda y: y))
    compiled = explain.lower(w, x).compile({"xla_backend_optimization_level": 0})
    gradient = jax.grad(lambda x: pooled(w, x).sum())(jnp.asarray(x))
    assert_close(compiled(w, x), x * gradient, 1e-9)
