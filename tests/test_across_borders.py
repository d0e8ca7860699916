"""Layers that lie across a border, and loops that begin with constants.

The oracle is the same code without the border, or a Python loop in the place of a loop.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from test_borders import (
    COMPOSITES,
    EXAMPLES,
    TOKENS_X,
    WIDTH,
    P,
    X,
    assert_equal,
    branch,
    explained,
    mapped,
    mean,
    plain,
)

import lrp_jax as lrp
from lrp_jax._reading.equations.units import without_passing_axes

# -- borders inside of one layer ------------------------------------------------------------------


def on_one_device(f: Any, p: Any, h: Any) -> Any:
    auto = (jax.sharding.AxisType.Auto,)
    mesh, rows = jax.make_mesh((1,), ("i",), axis_types=auto), jax.sharding.PartitionSpec("i")

    def shard(p: Any, h: Any) -> Any:
        total = lax.pmean(lax.scan(lambda h, _: (f(p, h), None), h, None, length=1)[0], "i")
        return lax.pcast(total, "i", to="varying") if hasattr(lax, "pcast") else total

    specs = (jax.sharding.PartitionSpec(), rows)
    return jax.shard_map(shard, mesh=mesh, in_specs=specs, out_specs=rows)(p, h)


def alone(f: Any, p: Any, h: Any) -> Any:
    return jax.tree.map(lambda a: a[0], jax.vmap(lambda e: f(p, e))(jax.tree.map(_first, h)))


def each_alone(f: Any, p: Any, h: Any) -> Any:
    made = lax.map(lambda e: f(p, jax.tree.map(_first, e)), h)
    return jax.tree.map(lambda a: a[:, 0], made)


def counting(f: Any, p: Any, h: Any) -> Any:
    """A loop that carries a number and nothing of the explained values."""
    return lax.scan(lambda i, e: (i + 1.0, f(p, e)), 0.0, h)[1]


def _first(a: Any) -> Any:
    return a[None]


def exponentials_over(border: Any) -> Any:
    def f(p: Any, x: Any) -> Any:
        s = x @ p["w0"]
        total = border(lambda p, s: jnp.exp(s).sum(-1, keepdims=True), p, s)
        return jnp.exp(s - jnp.log(total)) @ p["w1"]

    return f


def norm_over(border: Any) -> Any:
    """A division in a border of what weights have made."""

    def f(p: Any, x: Any) -> Any:
        t = x @ p["w0"], (x * x).sum(-1, keepdims=True)
        return border(lambda p, t: t[0] / jnp.sqrt(t[1]), p, t) * p["s"]

    return f


def centred_over(border: Any) -> Any:
    def f(p: Any, x: Any) -> Any:
        h = border(lambda p, h: h - mean(h), p, jnp.tanh(x))
        return h * lax.rsqrt(mean(h * h) + 1e-3) @ p["w0"]

    return f


def scaled_by_norm_over(border: Any) -> Any:
    """Weights that a border makes of parameters are weights."""

    def f(p: Any, x: Any) -> Any:
        kernel = lambda p, h: (h, p["w0"] / jnp.linalg.norm(p["w0"], axis=0))  # noqa: E731
        h, w = border(kernel, p, jnp.tanh(x))
        return (h @ w) * p["s"] + p["b0"]

    return f


@pytest.mark.parametrize(
    ("layer", "border"),
    [
        (exponentials_over, branch),
        (exponentials_over, mapped),
        (norm_over, branch),
        (norm_over, each_alone),
        (centred_over, alone),
        (centred_over, each_alone),
        (centred_over, counting),
        (centred_over, on_one_device),
        (scaled_by_norm_over, branch),
    ],
)
def test_a_border_inside_of_a_layer_changes_nothing(layer: Any, border: Any) -> None:
    assert_equal(explained(layer(border), X, "signs"), explained(layer(plain), X, "signs"))


def test_what_stands_behind_one_device_is_on_none() -> None:
    """A layer with weights that begins on it and ends outside."""

    def apply(border: Any) -> Any:
        def f(p: Any, x: Any) -> Any:
            return jax.nn.relu(border(lambda p, h: h @ p["w0"], p, x) + p["b0"]) @ p["w1"]

        return f

    def shard(f: Any, p: Any, h: Any) -> Any:
        mesh = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
        specs = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec("i")
        return jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=specs[1])(p, h)

    assert_equal(explained(apply(shard), X, "signs"), explained(apply(plain), X, "signs"))


def test_an_axis_of_one_makes_no_second_copy_of_what_is_read_with_it() -> None:
    """Else a norm of one copy has its statistics from the other."""

    def apply(x: Any) -> Any:
        h = jnp.sin(x[None]) + 1
        return h.reshape(3), h @ jnp.ones((3, 2))

    closed = without_passing_axes(jax.make_jaxpr(apply)(jnp.ones(3)))
    assert [e.primitive.name for e in closed.jaxpr.eqns].count("sin") == 1
    assert_equal(jax.core.eval_jaxpr(closed.jaxpr, closed.consts, X[0, :3])[0], apply(X[0, :3])[0])


def scaled_relu(p: Any, h: Any) -> Any:
    return 2 * jax.nn.relu(h @ p["w0"])


def twice(p: Any, h: Any) -> Any:
    return 2 * h


def shifted_by_bias(p: Any, h: Any) -> Any:
    return 2 * h + p["b0"]


def dense_after_scale(p: Any, h: Any) -> Any:
    return (2 * h) @ p["w0"]


@pytest.mark.parametrize(
    "pieces",
    [
        (scaled_relu, dense_after_scale),
        (scaled_relu, twice, dense_after_scale),
        (dense_after_scale, shifted_by_bias),
        (scaled_relu, shifted_by_bias, twice, scaled_relu, dense_after_scale),
    ],
)
def test_a_layer_lies_in_two_branches(pieces: Any) -> None:
    """One branch after the other, and a layer that begins in one and ends in the next."""

    def through(border: Any) -> Any:
        def f(p: Any, x: Any) -> Any:
            h = functools.reduce(lambda h, piece: border(piece, p, h), pieces, x)
            return h @ p["w1"]

        return f

    for composite in ("signs", "halves"):
        expected = explained(through(plain), X, composite)
        assert_equal(explained(through(branch), X, composite), expected)


# -- what a loop begins with ---------------------------------------------------------------------


def gru_cell(p: Any, h: Any, x: Any) -> Any:
    r, z = jax.nn.sigmoid(x @ p["w0"] + h @ p["w1"]), jax.nn.sigmoid(x @ p["w2"] + h @ p["w3"])
    new = jnp.tanh(x @ p["w4"] + r * (h @ p["w1"] + p["b0"]))
    return (1 - z) * new + z * h


def delayed_cell(p: Any, state: Any, x: Any) -> Any:
    """A state that begins a turn later than the one it reads, and a count."""
    h, late, count = state
    return gru_cell(p, h, x), jnp.tanh(late @ p["w2"] + h * late) * count, count + 0.5


def scanned(step: Any, start: Any, xs: Any, reverse: bool = False) -> Any:
    return lax.scan(lambda s, x: (step(s, x), None), start, xs, reverse=reverse)[0]


def counted_steps(step: Any, start: Any, xs: Any, reverse: bool = False) -> Any:
    order = range(len(xs))[:: -1 if reverse else 1]
    return lax.fori_loop(0, len(xs), lambda i, s: step(s, xs[order[0] + order.step * i]), start)


def stepped(step: Any, start: Any, xs: Any, reverse: bool = False) -> Any:
    return functools.reduce(step, xs[::-1] if reverse else xs, start)


def from_zeros(loop: Any, p: Any, x: Any, cell: Any = gru_cell) -> Any:
    return loop(functools.partial(cell, p), jnp.zeros((EXAMPLES, WIDTH)), x)


def from_a_parameter(loop: Any, p: Any, x: Any, cell: Any = gru_cell, parameter: str = "b1") -> Any:
    start = jnp.broadcast_to(p[parameter], (EXAMPLES, WIDTH))
    return loop(functools.partial(cell, p), start, x, True)


def from_constants_and_input(loop: Any, p: Any, x: Any) -> Any:
    start = jnp.broadcast_to(p["b1"], (EXAMPLES, WIDTH)), jnp.ones((EXAMPLES, WIDTH)), 1.0
    h, late, count = loop(functools.partial(delayed_cell, p), start, x)
    return (h + late) * count


def tanh_cell(p: Any, h: Any, x: Any) -> Any:
    return jnp.tanh(x @ p["w0"] + (h @ p["w1"] + p["b0"]))


def lstm_cell(p: Any, state: Any, x: Any) -> Any:
    c, h = state
    i, f, g, o = (
        x @ p[w] + h @ p[u] + p[b]
        for w, u, b in (
            ("w0", "w1", "b0"),
            ("w2", "w3", "b1"),
            ("w4", "w1", "b2"),
            ("w1", "w0", "b1"),
        )
    )
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return c, jax.nn.sigmoid(o) * jnp.tanh(c)


def tanh_from_zeros(loop: Any, p: Any, x: Any) -> Any:
    return from_zeros(loop, p, x, tanh_cell)


def tanh_from_a_parameter(loop: Any, p: Any, x: Any) -> Any:
    return from_a_parameter(loop, p, x, tanh_cell, "b2")


def lstm_from_zeros(loop: Any, p: Any, x: Any) -> Any:
    start = (jnp.zeros((EXAMPLES, WIDTH)),) * 2
    return loop(functools.partial(lstm_cell, p), start, x)[1]


def nested_from_zeros(loop: Any, p: Any, x: Any) -> Any:
    def outer(h: Any, row: Any) -> Any:
        rows = jnp.stack([row, row * p["s"]])
        return h * p["s"] + from_zeros(loop, p, rows)

    return loop(outer, jnp.zeros((EXAMPLES, WIDTH)), x)


@pytest.mark.parametrize(
    ("state", "loop"),
    [
        (from_zeros, counted_steps),
        (from_a_parameter, scanned),
        (from_constants_and_input, counted_steps),
        (nested_from_zeros, scanned),
    ],
)
def test_a_loop_that_begins_with_constants_is_its_turns(state: Any, loop: Any) -> None:
    x, composite = TOKENS_X.swapaxes(0, 1), list(COMPOSITES)[len(state.__name__) % 3]

    def apply(loop: Any) -> Any:
        return lambda p, x: state(loop, p, x) @ p["w5"]

    expected = explained(apply(stepped), x, composite)
    assert_equal(explained(apply(loop), x, composite), expected)


RECURRENT = {
    "z+": lrp.ZPlus(),
    "gamma": lrp.Gamma(0.2),
    "alpha beta": lrp.AlphaBeta(2, 1),
    "epsilon": lrp.Epsilon(0.1),
}


@pytest.mark.parametrize(
    ("state", "loop", "rule"),
    [
        (tanh_from_zeros, scanned, "z+"),
        (tanh_from_zeros, counted_steps, "gamma"),
        (tanh_from_a_parameter, scanned, "alpha beta"),
        (lstm_from_zeros, scanned, "epsilon"),
        (lstm_from_zeros, counted_steps, "alpha beta"),
    ],
)
def test_a_cell_has_one_cut_into_layers_in_all_turns(state: Any, loop: Any, rule: str) -> None:
    x = TOKENS_X.swapaxes(0, 1)

    def apply(loop: Any) -> Any:
        return lambda p, x: state(loop, p, x) @ p["w5"]

    one, other = (
        lrp.relevance(apply(loop), RECURRENT[rule])(P, x, target=1) for loop in (loop, stepped)
    )
    assert_equal(one, other)


@pytest.mark.parametrize("rule", RECURRENT)
def test_the_cut_into_layers_does_not_depend_on_what_is_explained(rule: str) -> None:
    def apply(p: Any, both: Any) -> Any:
        x, t = both
        return jax.nn.relu(x @ p["w0"] - (t @ p["w1"] + p["b0"])) @ p["w5"]

    state = jnp.tanh(X @ P["w3"])
    expected, _ = lrp.relevance(apply, RECURRENT[rule])(P, (X, state), target=1)
    alone = lrp.relevance(lambda p, x: apply(p, (x, p["state"])), RECURRENT[rule])
    assert_equal(alone(P | {"state": state}, X, target=1), expected)


@pytest.mark.parametrize(
    "rows",
    [
        lambda p: jax.nn.one_hot(jnp.arange(EXAMPLES), WIDTH, dtype=X.dtype) @ p["w1"],
        lambda p: jax.image.resize(p["w1"], (EXAMPLES, WIDTH), "linear"),
        lambda p: p["w1"].T[:EXAMPLES] * p["s"] + p["b0"],
    ],
)
def test_what_is_looked_up_for_a_place_is_a_bias(rows: Any) -> None:
    p = P | {"rows": rows(P)}
    one, other = (
        lrp.relevance(f, lrp.ZPlus())(p, X, target=1)
        for f in (
            lambda p, x: jnp.tanh(x @ p["w0"] + rows(p)) @ p["w5"],
            lambda p, x: jnp.tanh(x @ p["w0"] + p["rows"]) @ p["w5"],
        )
    )
    assert_equal(one, other)


@pytest.mark.parametrize(
    "constant",
    [
        lambda p: p["b0"] @ p["w0"] + p["b1"],  # a shift before the layer, folded into it
        lambda p: jnp.ones((EXAMPLES, 1)) @ p["b0"][None],  # a bias by a column of ones
    ],
)
def test_what_the_weights_of_a_layer_make_of_constants_is_its_bias(constant: Any) -> None:
    p = P | {"bias": constant(P)}
    one, other = (
        lrp.relevance(f, lrp.ZPlus())(p, X, target=1)
        for f in (
            lambda p, x: jnp.tanh(x @ p["w0"] + constant(p)) @ p["w5"],
            lambda p, x: jnp.tanh(x @ p["w0"] + p["bias"]) @ p["w5"],
        )
    )
    assert_equal(one, other)


def test_a_cell_of_parts_of_one_kernel_has_a_state() -> None:
    kernel = jnp.concatenate([P["w0"], P["w1"]])
    one, other = (
        lrp.relevance(f, lrp.ZPlus())(P | {"kernel": kernel}, X, target=1)
        for f in (
            lambda p, x: (
                jnp.tanh(x @ p["kernel"][:WIDTH] + jnp.ones_like(x) @ p["kernel"][WIDTH:]) @ p["w5"]
            ),
            lambda p, x: jnp.tanh(x @ p["w0"] + jnp.ones_like(x) @ p["w1"]) @ p["w5"],
        )
    )
    assert_equal(one, other)


def test_what_begins_with_constants_costs_one_turn_more() -> None:
    """However long it is; and the turns are layers of their own."""

    def apply(p: Any, x: Any) -> Any:
        return from_zeros(scanned, p, x) @ p["w5"]

    def size(steps: int) -> tuple[int, int]:
        x = jnp.broadcast_to(X, (steps, EXAMPLES, WIDTH))
        explain = lrp.relevance(apply, lrp.AttnLRP())
        layers = lrp.plan(apply, lrp.AttnLRP())(P, x).layers
        return len(layers), len(str(jax.make_jaxpr(lambda x: explain(P, x, target=1))(x)))

    layers, text = size(100)
    assert layers == size(5)[0]
    assert text < 1.05 * size(5)[1]


def test_a_loop_without_turns_is_what_it_begins_with() -> None:
    def apply(loop: Any) -> Any:
        return lambda p, x: x[0] @ p["w5"] + from_zeros(loop, p, x[:0])

    x = TOKENS_X.swapaxes(0, 1)
    assert_equal(explained(apply(scanned), x), explained(apply(stepped), x))


def test_what_a_loop_or_a_branch_makes_of_constants_is_a_constant() -> None:
    def counts(loop: Any) -> Any:
        def f(p: Any, x: Any) -> Any:
            step = lambda s, row: (jnp.tanh(s[0] + row @ p["w0"]), 0.9 * s[1])  # noqa: E731
            h, scale = loop(step, (X * 0, p["s"]), x)
            return (h * scale) @ p["w5"]

        return f

    x = TOKENS_X.swapaxes(0, 1)
    assert_equal(explained(counts(scanned), x), explained(counts(stepped), x))

    def chosen(p: Any, x: Any) -> Any:
        one, other = (lambda x: (x @ p["w0"], 2 * p["s"])), (lambda x: (x @ p["w1"], p["s"]))
        h, scale = lax.cond(p["s"][0] > -9, one, other, x)
        return h * scale

    assert_equal(explained(chosen, X), explained(lambda p, x: (x @ p["w0"]) * (2 * p["s"]), X))


def test_writing_anew_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be written with fewer borders for ever is explained as it is, and that is said."""

    def turn(carry: Any, row: Any) -> Any:
        above, below = carry
        return (above + jnp.exp(row) * row, below + jnp.exp(row)), None

    def mean(w: Any, x: Any) -> Any:
        zeros = jnp.zeros(x.shape[-1])
        above, below = jax.lax.scan(turn, (zeros, zeros), x @ w)[0]
        return above / below

    plan = lrp.plan(mean, lrp.AttnLRP())(jnp.eye(3), jnp.ones((4, 3)))
    assert "Softmax" in {str(layer.kind).removeprefix("lrp.") for layer in plan.layers}
    monkeypatch.setattr("lrp_jax._reading.reader._MOST_MENDED", 0)
    plan = lrp.plan(mean, lrp.AttnLRP())(jnp.eye(3), jnp.ones((4, 3)))
    assert any("lies on the border" in text for text in plan.warnings)


# -- branches that a batch chooses from ------------------------------------------------------------

CHOSEN = jnp.asarray([True, False, True])


def chosen_in_a_batch(f: Any, p: Any, h: Any) -> Any:
    def one(flag: Any, e: Any) -> Any:
        nothing = lambda e: jax.tree.map(jnp.zeros_like, f(p, e))  # noqa: E731
        return lax.cond(flag, lambda e: f(p, e), nothing, e)

    return jax.vmap(one)(p["chosen"], h)


def chosen_in_a_map(f: Any, p: Any, h: Any) -> Any:
    def one(t: Any) -> Any:
        branches = [lambda e: jax.tree.map(jnp.zeros_like, f(p, e)), lambda e: f(p, e)]
        return lax.switch(t[0].astype(int), branches, t[1])

    return lax.map(one, (p["chosen"], h))


def chosen_behind(f: Any, p: Any, h: Any) -> Any:
    masks = jax.tree.map(lambda a: jnp.expand_dims(p["chosen"], range(1, a.ndim)), h)
    mask = jax.tree.leaves(masks)[0]
    return jax.tree.map(lambda y: jnp.where(mask, y, 0), f(p, h))


@pytest.mark.parametrize("choose", [chosen_in_a_batch, chosen_in_a_map])
@pytest.mark.parametrize(
    "piece",
    [
        lambda p, t: t[0] / jnp.sqrt(t[1]),
        lambda p, t: t[0] * lax.rsqrt(t[1]) * p["s"] + p["b0"],
        lambda p, t: t[0] * jax.nn.sigmoid(t[0] @ p["w1"]) / jnp.sqrt(t[1]),
    ],
)
def test_a_branch_that_a_batch_chooses_is_given_its_operands(choose: Any, piece: Any) -> None:
    """A norm that ends in it."""

    def apply(choose: Any) -> Any:
        def f(p: Any, x: Any) -> Any:
            h = x @ p["w0"]
            return choose(piece, p, (h, mean(h * h) + 1e-3)) @ p["w5"]

        return f

    for composite in ("signs", "halves"):
        explain = lrp.relevance(apply(choose), COMPOSITES[composite])
        expected = lrp.relevance(apply(chosen_behind), COMPOSITES[composite])
        p = P | {"chosen": CHOSEN}
        assert_equal(explain(p, X, target=1), expected(p, X, target=1))


def test_what_is_held_by_hand_stays_so() -> None:
    """In some examples, whoever reads it."""

    def apply(p: Any, x: Any) -> Any:
        held = jnp.where(p["chosen"][:, None], lax.stop_gradient(x), x)
        return held @ p["w0"] @ p["w5"]

    found = lrp.relevance(apply, lrp.Zero())(P | {"chosen": CHOSEN}, X, target=1)
    assert_equal(found, ~CHOSEN[:, None] * X * (P["w0"] @ P["w5"])[:, 1])


def test_a_constant_of_the_input_is_divided_by_its_norm() -> None:
    """Of shapes that the quotient spreads by itself."""
    found, expected = (
        lrp.relevance(
            lambda p, x, constant=constant: (
                (constant(p, x) / jnp.sqrt(mean(x * x) + 1e-3)) @ p["w5"]
            ),
            lrp.EpsilonPlus(),
        )(P | {"x": X}, X, target=1)
        for constant in (lambda p, x: lax.stop_gradient(x), lambda p, x: p["x"])
    )
    assert_equal(found, expected)


@pytest.mark.parametrize("turns", [1, 3])
def test_a_turn_makes_a_number_of_the_code(turns: int) -> None:
    """Beside what it computes."""

    def apply(loop: bool) -> Any:
        def turn(h: Any, row: Any) -> Any:
            h = jnp.tanh(row @ p["w0"] + h)
            return h, (h, 2)

        def f(p: Any, x: Any) -> Any:
            if loop:
                rows, numbers = lax.scan(turn, jnp.ones(WIDTH), x)[1]
                return (rows * numbers[:, None]) @ p["w5"]
            state, made = jnp.ones(WIDTH), []
            for row in x:
                state, (h, number) = turn(state, row)
                made.append(h * number)
            return jnp.stack(made) @ p["w5"]

        p = P
        return f

    x = X[:turns]
    found, expected = (
        lrp.relevance(apply(loop), COMPOSITES["halves"])(P, x, target=1) for loop in (True, False)
    )
    assert_equal(found, expected)
