"""A border around a piece of a network changes nothing: calls, checkpoints, loops and branches.

The oracle is the same code without the border, or a Python loop in the place of a loop.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

import lrp_jax as lrp
from lrp_jax._calls.explained import Explained
from lrp_jax._layers.step import Frame

Piece = Sequence[Callable[[Any, Any], Any]]

WIDTH, EXAMPLES, TOKENS = 4, 3, 3
RNG = np.random.default_rng(5)
P = (
    {f"w{i}": jnp.asarray(RNG.normal(size=(WIDTH, WIDTH)) * 0.7) for i in range(6)}
    | {f"b{i}": jnp.asarray(RNG.normal(size=WIDTH) * 0.7) for i in range(3)}
    | {"k": jnp.asarray(RNG.normal(size=(3, WIDTH, WIDTH)) * 0.7)}
    | {"s": jnp.asarray(1 + 0.3 * RNG.normal(size=WIDTH))}
)
X = jnp.asarray(RNG.normal(size=(EXAMPLES, WIDTH)))
TOKENS_X = jnp.asarray(RNG.normal(size=(EXAMPLES, TOKENS, WIDTH)))

COMPOSITES = {
    "signs": lrp.Composite(
        [
            (lrp.first(lrp.Linear), lrp.Flat()),
            (lrp.Linear, lrp.AlphaBeta(2, 1)),
            *lrp.AttnLRP().entries,
        ]
    ),
    "halves": lrp.Composite([(lrp.Linear, lrp.Epsilon(0.1)), *lrp.AttnLRP().entries]),
    "squares": lrp.Composite(
        [(lrp.Dense, lrp.WSquare()), (lrp.Linear, lrp.Gamma(0.2)), *lrp.CPLRP().entries]
    ),
}


def mean(h: Any) -> Any:
    return h.mean(-1, keepdims=True)


PIECES: dict[str, Piece] = {
    "dense": [
        lambda p, h: h @ p["w0"],
        lambda p, h: h + p["b0"],
        lambda p, h: jax.nn.relu(h),
    ],
    "batch norm": [
        lambda p, h: h @ p["w0"] + p["b0"],
        lambda p, h: (h - p["b1"]) * p["s"] + p["b2"],
        lambda p, h: jax.nn.relu(h),
    ],
    "input scaling": [
        lambda p, h: (h - p["b1"]) * p["s"],
        lambda p, h: h @ p["w0"] + p["b0"],
    ],
    "residual": [
        lambda p, h: (h, jax.nn.relu(h @ p["w0"] + p["b0"])),
        lambda p, t: (t[0], t[1] @ p["w1"]),
        lambda p, t: t[0] + t[1],
    ],
    "rms norm": [
        lambda p, h: (h, lax.rsqrt(mean(h * h) + 1e-3)),
        lambda p, t: t[0] * t[1],
        lambda p, h: h * p["s"],
    ],
    "layer norm": [
        lambda p, h: h - mean(h),
        lambda p, h: (h, jnp.sqrt(mean(h * h) + 1e-3)),
        lambda p, t: t[0] / t[1],
        lambda p, h: h * p["s"] + p["b0"],
    ],
    "gate": [
        lambda p, h: (h, jax.nn.sigmoid(h @ p["w0"] + p["b0"])),
        lambda p, t: (t[0] @ p["w1"], t[1]),
        lambda p, t: t[0] * t[1],
    ],
    "gru": [
        lambda p, h: (h, jax.nn.sigmoid(h @ p["w0"] + p["b0"])),
        lambda p, t: (*t, jnp.tanh((t[0] * t[1]) @ p["w1"])),
        lambda p, t: (1 - t[1]) * t[0] + t[1] * t[2],
    ],
    "softmax": [
        lambda p, h: h @ p["w0"],
        lambda p, h: jnp.exp(h - lax.stop_gradient(h.max(-1, keepdims=True))),
        lambda p, h: h / h.sum(-1, keepdims=True),
        lambda p, h: jnp.concatenate([h, h], -1) @ jnp.concatenate([p["w1"], p["w2"]]),
    ],
    "silu": [
        lambda p, h: (h, jax.nn.sigmoid(h)),
        lambda p, t: t[0] * t[1],
        lambda p, h: h @ p["w0"],
    ],
    "pre-activation": [
        lambda p, h: (h, jax.nn.relu(h * p["s"] + p["b0"])),
        lambda p, t: (t[0], jax.nn.relu((t[1] @ p["w0"]) * p["s"] + p["b1"])),
        lambda p, t: t[0] + t[1] @ p["w1"],
    ],
    "lone shift": [
        lambda p, h: jax.nn.relu(h),
        lambda p, h: h * p["s"] + p["b0"],
        lambda p, h: jnp.tanh(h),
    ],
    "numbers": [
        lambda p, h: jax.nn.sigmoid(h),
        lambda p, h: 1 - h,
        lambda p, h: h @ p["w0"],
    ],
    "attention": [
        lambda p, h: (h @ p["w0"], h @ p["w1"], h @ p["w2"]),
        lambda p, t: (jnp.einsum("btd,bsd->bts", t[0], t[1]) / 2, t[2]),
        lambda p, t: (jax.nn.softmax(t[0], -1), t[1]),
        lambda p, t: jnp.einsum("bts,bsd->btd", t[0], t[1]),
        lambda p, h: h @ p["w3"] + p["b0"],
    ],
    "convolution": [
        lambda p, h: lax.conv_general_dilated(
            h, p["k"], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
        ),
        lambda p, h: h * p["s"] + p["b0"],
        lambda p, h: jax.nn.relu(h),
    ],
}


def run(stages: Piece, p: Any, h: Any) -> Any:
    for stage in stages:
        h = stage(p, h)
    return h


def plain(f: Any, p: Any, h: Any) -> Any:
    return f(p, h)


def checkpoint(f: Any, p: Any, h: Any) -> Any:
    return jax.checkpoint(f)(p, jax.jit(lambda h: h)(h))


def one_turn(f: Any, p: Any, h: Any) -> Any:
    stacked = jax.tree.map(lambda a: a[None], h)
    _, ys = lax.scan(lambda c, one: (c, jax.checkpoint(f)(p, one)), 0, stacked)
    return jax.tree.map(lambda a: a[0], ys)


def counted(f: Any, p: Any, h: Any) -> Any:
    shapes = jax.eval_shape(f, p, h)
    if jax.tree.map(jnp.shape, shapes) != jax.tree.map(jnp.shape, h):
        return f(p, h)
    return lax.while_loop(lambda c: c[0] < 1, lambda c: (c[0] + 1, f(p, c[1])), (0, h))[1]


def branch(f: Any, p: Any, h: Any) -> Any:
    def nothing(h: Any) -> Any:
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(f, p, h))

    return lax.cond(p["s"][0] > -9, lambda h: f(p, h), nothing, h)


def mapped(f: Any, p: Any, h: Any) -> Any:
    if all(a.ndim == 2 for a in jax.tree.leaves(h)):
        return lax.map(lambda example: f(p, example), h)

    def one(example: Any) -> Any:
        alone = jax.tree.map(lambda a: a[None], example)
        return jax.tree.map(lambda a: a[0], f(p, alone))

    return lax.map(one, h)


BORDERS = (checkpoint, branch, one_turn, mapped, counted)


def head(p: Any, h: Any) -> Any:
    return h.reshape(EXAMPLES, -1, WIDTH).sum(1) @ p["w5"]


def start_of(name: str) -> jax.Array:
    return TOKENS_X if name in ("attention", "convolution") else X


def explained(f: Any, x: jax.Array, composite: str = "halves") -> np.ndarray:
    """The relevance, compiled in haste."""
    explain = jax.jit(lambda p, x: lrp.relevance(f, COMPOSITES[composite])(p, x, target=1))
    return np.asarray(explain.lower(P, x).compile({"xla_backend_optimization_level": 0})(P, x))


def assert_equal(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def composite_of(name: str) -> str:
    return list(COMPOSITES)[list(PIECES).index(name) % len(COMPOSITES)]


# -- one border after another --------------------------------------------------------------------


def bordered(name: str, half: int, borders: Sequence[Any]) -> Any:
    """The piece once for each border, which stands around one half of it: cut at every place."""
    stages = PIECES[name]

    def apply(p: Any, x: Any) -> Any:
        h = jnp.tanh(x @ p["w4"])
        for number, border in enumerate(borders):
            cut = 1 + number % (len(stages) - 1)
            first, second = stages[:cut], stages[cut:]
            around = [border, plain] if half == 0 else [plain, border]
            for wrap, part in zip(around, (first, second), strict=True):
                h = wrap(functools.partial(run, part), p, h)
        return head(p, h)

    return apply


@pytest.mark.parametrize("name", PIECES)
def test_borders_around_halves_of_a_piece_change_nothing(name: str) -> None:
    half, x, composite = len(name) % 2, start_of(name), composite_of(name)
    found = explained(bordered(name, half, BORDERS), x, composite)
    assert_equal(found, explained(bordered(name, 0, [plain] * len(BORDERS)), x, composite))


def layers_of(apply: Any, x: jax.Array) -> list[Any]:
    plan = lrp.plan(apply, lrp.CPLRP())(P, x)
    assert not plan.warnings
    # A hand-written function may come in pieces, each of which hands relevance on.
    return [(x.kind, x.weights, x.rule) for x in plan.layers if not x.kind <= lrp.Activation]


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("name", PIECES)
def test_layers_are_the_same_with_a_border_around_any_part(name: str, border: Any) -> None:
    x = start_of(name)
    times = [border] * (len(PIECES[name]) - 1)
    expected = layers_of(bordered(name, 0, [plain] * len(times)), x)
    for half in (0, 1):
        assert layers_of(bordered(name, half, times), x) == expected


# -- loops against their turns -------------------------------------------------------------------


def turned(name: str, rotation: int, loop: Any) -> Any:
    """Three turns of a piece; the loop's turns begin in the middle of the piece."""
    stages = PIECES[name]
    body = functools.partial(run, [*stages[rotation:], *stages[:rotation]])

    def apply(p: Any, x: Any) -> Any:
        h = run(stages[:rotation], p, x)
        h = loop(lambda h: body(p, h), h, 2)
        return head(p, run(stages[rotation:], p, h))

    return apply


def in_python(body: Any, h: Any, turns: int) -> Any:
    for _ in range(turns):
        h = body(h)
    return h


def in_scan(body: Any, h: Any, turns: int) -> Any:
    return lax.scan(lambda h, _: (jax.checkpoint(body)(h), None), h, None, length=turns)[0]


def in_fori(body: Any, h: Any, turns: int) -> Any:
    return lax.fori_loop(0, turns, lambda _, h: body(h), h)


@pytest.mark.parametrize("name", PIECES)
def test_a_loop_is_its_turns(name: str) -> None:
    rotation = 1 + len(name) % (len(PIECES[name]) - 1)
    loop = in_scan if len(name) % 2 else in_fori
    x, composite = start_of(name), composite_of(name)
    expected = explained(turned(name, rotation, in_python), x, composite)
    assert_equal(explained(turned(name, rotation, loop), x, composite), expected)


@pytest.mark.parametrize("name", PIECES)
def test_layers_of_a_loop_are_those_of_its_turns(name: str) -> None:
    for rotation in range(1, len(PIECES[name])):
        found, expected = (
            layers_of(turned(name, rotation, loop), start_of(name)) for loop in (in_scan, in_python)
        )
        assert {str(layer) for layer in found} == {str(layer) for layer in expected}


@pytest.mark.parametrize("turns", [1, 2, 5])
def test_what_a_loop_makes_is_asked_for_in_the_form_of_its_body(turns: int) -> None:
    def apply(loop: Any) -> Any:
        return lambda p, x: loop(jax.nn.sigmoid, x @ p["w0"], turns) @ p["w1"]

    assert_equal(explained(apply(in_fori), X), explained(apply(in_python), X))


def test_a_gate_made_outside_of_a_long_loop_is_one_inside() -> None:
    def apply(loop: Any) -> Any:
        def f(p: Any, x: Any) -> Any:
            weights = jax.nn.softmax(x @ p["w0"], -1)
            return loop(lambda h: jnp.tanh(h @ p["w1"]) * weights, x @ p["w2"], 70) @ p["w5"]

        return f

    plan = lrp.plan(apply(in_fori), lrp.CPLRP())(P, X)
    assert not plan.warnings
    explain = lrp.relevance(apply(in_fori), lrp.CPLRP())
    found = explain(P, X, target=1)
    step = lambda h, w: jnp.tanh(h @ P["w1"]) * w  # noqa: E731
    # Multipliers: a product with its gate held, tanh(u) / u, and LRP-0.
    weights = jax.nn.softmax(X @ P["w0"], -1)
    states = [X @ P["w2"]]
    for _ in range(70):
        states.append(step(states[-1], weights))
    c = jnp.broadcast_to(P["w5"][:, 1], states[-1].shape)
    for h in reversed(states[:-1]):
        u = h @ P["w1"]
        c = ((c * weights) * jnp.tanh(u) / u) @ P["w1"].T
    expected = X * (c @ P["w2"].T)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12 * np.abs(expected).max())


def test_turns_that_a_composite_tells_apart_are_different_layers() -> None:
    composite = lrp.Composite([(lrp.first(lrp.Linear), lrp.Flat()), (lrp.Linear, lrp.Epsilon())])

    def apply(loop: Any) -> Any:
        return lambda p, x: loop(lambda h: jax.nn.relu(h @ p["w0"] + p["b0"]), x, 3) @ p["w5"]

    found, expected = (
        lrp.relevance(apply(loop), composite)(P, X, target=1) for loop in (in_scan, in_python)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    rules = [x.rule for x in lrp.plan(apply(in_scan), composite)(P, X).layers if "w0" in x.path]
    assert rules == ["Flat()", "Epsilon()", "Epsilon()"]
    assert len(lrp.plan(apply(in_scan), lrp.Epsilon())(P, X).layers) == 3  # none is told apart


# -- what is known beside numbers ----------------------------------------------------------------


def test_a_layer_across_a_border_is_one_layer_of_the_plan() -> None:
    def apply(p: Any, x: Any) -> Any:
        h = checkpoint(lambda p, x: x @ p["w0"], p, x) + p["b0"]
        return branch(lambda p, h: jax.nn.relu(h) @ p["w1"], p, h) + p["b1"]

    layers = lrp.plan(apply, lrp.Epsilon())(P, X).layers
    named = {x.path: x.weights for x in layers if x.kind <= lrp.Dense}
    assert named["w0"] == ("w0", "b0")
    assert named["w1"] == ("w1", "b1")


def printed(y: Any) -> Any:
    jax.debug.callback(lambda _: None, y)
    return y


HANDED_ON: dict[str, Callable[[Any], Any]] = {
    "a barrier": lax.optimization_barrier,
    "a barrier of two": lambda y: lax.optimization_barrier((y, jnp.ones(2)))[0],
    "its device": jax.device_put,
    "a name": lambda y: checkpoint_name(y, "y"),
    "a print": printed,
    "its precision": lambda y: lax.reduce_precision(y, 11, 52),
}


def around(h: Any, on: Callable[[Any], Any]) -> list[Any]:
    """Pieces that are put together over what only hands numbers on."""
    u = on(h).reshape(EXAMPLES, 2, 2)
    rows = on(jnp.exp(on(u.reshape(EXAMPLES, -1))))
    shares = on(on(jax.nn.softmax(h))[:, :2])
    return [
        jnp.squeeze(on(jax.nn.relu(on(h[:, None]))), 1),
        (jnp.exp(u) / on(rows.sum(-1))[:, None, None]).reshape(h.shape),
        on(jnp.cumprod(h, 1)) * jnp.tanh(h),
        on(shares) / on(shares.sum(-1, keepdims=True)),
        on(-on(jnp.concatenate([-h[:, :1], on(-h[:, 1:])], 1))),
        on(h * jax.lax.rsqrt((on(h) ** 2).mean(-1, keepdims=True)))[:, ::-1] * P["s"],
    ]


@pytest.mark.parametrize("composite", ["AttnLRP", "EpsilonPlus"])
@pytest.mark.parametrize("name", HANDED_ON)
def test_what_only_hands_numbers_on_changes_nothing(name: str, composite: str) -> None:
    def explained(on: Callable[[Any], Any]) -> Any:
        def apply(p: Any, x: Any) -> Any:
            pieces = around(x @ p["w0"] + p["b0"], on)
            return sum((y @ p["w1"][: y.shape[-1]] for y in pieces), 0.0)

        return lrp.relevance(apply, getattr(lrp, composite)())(P, X, target=1)

    np.testing.assert_allclose(explained(HANDED_ON[name]), explained(lambda y: y), 1e-9, 1e-12)


def test_signs_cross_borders() -> None:
    def apply(p: Any, x: Any) -> Any:
        h = jax.nn.relu(x @ p["w0"])
        h = in_scan(lambda h: jax.nn.relu(h @ p["w1"]), h, 5)
        h = lax.cond(p["s"][0] > 0, lambda h: jax.nn.relu(h @ p["w2"]), lambda h: h, h)
        return h @ p["w5"]

    frame = Explained(apply, lrp.Epsilon(), 1, False).prepare((P, X), {})[0].frame
    known = {step.name: step.nonnegative for step in frame.layers() if step.kind == "Dense"}
    assert known == {"w0": False, "w1": True, "w2": True, "w5": True}


def test_a_loop_that_is_too_long_to_unroll_is_warned_of() -> None:
    def apply(p: Any, x: Any) -> Any:
        h = in_fori(lambda h: jnp.tanh(h + p["b0"]) @ p["w0"], x @ p["w1"], 65)
        return h + p["b1"]

    (warning,) = lrp.plan(apply, lrp.Epsilon())(P, X).warnings
    assert "border of the loop" in warning
    assert "test_borders.py" in warning


def test_while_loops_whose_count_is_in_the_code_are_loops() -> None:
    def apply(p: Any, x: Any) -> Any:
        def turn(carry: Any) -> Any:
            step, h = carry
            return step * 2, jnp.tanh(h @ p["w0"] + p["b0"])

        return lax.while_loop(lambda carry: carry[0] < 10, turn, (1, x))[1]

    def unrolled(p: Any, x: Any) -> Any:
        return in_python(lambda h: jnp.tanh(h @ p["w0"] + p["b0"]), x, 4)

    assert_equal(explained(apply, X), explained(unrolled, X))


def test_a_while_loop_whose_count_is_an_argument_is_refused() -> None:
    def apply(p: Any, x: Any) -> Any:
        return lax.fori_loop(0, p["n"], lambda _, h: jnp.tanh(h @ p["w0"]), x)

    with pytest.raises(lrp.UnsupportedOperation, match=r"while.*numbers in the code.*scan"):
        lrp.plan(apply, lrp.Epsilon())({**P, "n": jnp.asarray(3)}, X)


def test_steps_of_a_checkpoint_are_computed_again() -> None:
    """Also those of a layer that ends outside of it, and not what stands outside."""

    def block(p: Any, h: Any) -> Any:
        return h + jax.checkpoint(lambda h: jnp.tanh(h @ p["w0"]) @ p["w1"])(h)

    def apply(p: Any, x: Any) -> Any:
        h = jax.checkpoint(lambda h: block(p, block(p, h)))(x)
        return jnp.tanh(jax.checkpoint(lambda h: h @ p["w2"])(h) + p["b0"]) @ p["w5"]

    def shape(frame: Frame) -> list[Any]:
        return [shape(step.frames[0]) if step.frames else step.kind for step in frame.steps]

    frame = Explained(apply, lrp.Epsilon(), 1, False).prepare((P, X), {})[0].frame
    steps = [s for s in shape(frame) if s]
    inner = ["Dense", "Activation", "Dense"]
    assert steps == [[inner, "Merge", inner, "Merge"], ["Dense"], "Activation", "Dense"]


@pytest.mark.parametrize("query", ["ledger", "hidden", "parameters"])
def test_queries_see_through_borders(query: str) -> None:
    def apply(border: Any) -> Any:
        def f(p: Any, x: Any) -> Any:
            h = border(lambda p, x: x @ p["w0"], p, x) + p["b0"]
            return border(lambda p, h: jax.nn.relu(h) @ p["w1"], p, h) + p["b1"]

        return f

    def answer(border: Any) -> Any:
        f, rule = apply(border), lrp.Epsilon(0.1)
        if query == "ledger":
            ledger = lrp.conservation(f, rule)(P, X)
            return ledger.rows
        if query == "hidden":
            return lrp.layer_relevances(f, rule)(P, X)
        return lrp.parameter_relevance(f, rule)(P, X)

    found, expected = answer(checkpoint), answer(plain)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
