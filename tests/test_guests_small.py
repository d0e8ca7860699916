"""Pieces of models that others wrote, against oracles that know nothing of the library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lrp_jax as lrp
from lrp_jax.testing import ExplicitLayer, assert_close, oracle, signed_start

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


# -- One function in two spellings ----------------------------------------------------------------

P: dict[str, Any] = {
    "a": {"k": _draw(6, 6, seed=10), "b": _draw(6, seed=11)},
    "b": {"k": _draw(6, 6, seed=12)},
    "q": {"k": _draw(6, 6, seed=13)},
    "scale": _draw(6, seed=14),
    "heads": _draw(2, seed=15),
    "table": _draw(4, 6, seed=16),
}
X = _draw(4, 6, seed=17)
COMPOSITES: dict[str, Any] = {
    "attn": lrp.AttnLRP(),
    "cp": lrp.CPLRP(),
    "zplus": lrp.ZPlus(),
    "alphabeta": lrp.Composite(
        [(lrp.first(lrp.Linear), lrp.WSquare()), (lrp.Linear, lrp.AlphaBeta())]
    ),
}
Network = Callable[[Any, jax.Array], jax.Array]


def _kinds(apply: Network, x: jax.Array = X) -> list[str]:
    return [layer.kind.label for layer in lrp.plan(apply, lrp.Zero())(P, x).layers]


def _times(spelling: str, h: jax.Array, s: jax.Array) -> jax.Array:
    """`h * s` along the last axis."""
    return h * s if spelling == "*" else jnp.einsum("...d,d->...d", h, s)


def _attention(spelling: str) -> Network:
    def apply(p: Any, x: jax.Array) -> jax.Array:
        q, k, v = ((x @ p[n]["k"]).reshape(4, 2, 3) for n in "abq")
        weights = jax.nn.softmax(jnp.einsum("qhd,khd->hqk", q, k))
        if spelling == "*":
            weights = weights * p["heads"][:, None, None]
        else:
            weights = jnp.einsum("...hqk,h->...hqk", weights, p["heads"])
        return jnp.einsum("hqk,khd->qhd", weights, v).reshape(4, 6) @ p["q"]["k"]

    return apply


def _rotated(spelling: str) -> Network:
    def apply(p: Any, x: jax.Array) -> jax.Array:
        h = x @ p["a"]["k"]
        turned = jnp.concatenate([-h[:, 3:], h[:, :3]], -1)
        if spelling == "*":
            h = h * jnp.cos(p["table"]) + turned * jnp.sin(p["table"])
        else:
            h = jnp.einsum("td,td->td", h, jnp.cos(p["table"])) + jnp.einsum(
                "td,td->td", turned, jnp.sin(p["table"])
            )
        return h @ p["b"]["k"]

    return apply


def _scaled_norm(spelling: str) -> Network:
    def apply(p: Any, x: jax.Array) -> jax.Array:
        h = x @ p["a"]["k"] + p["a"]["b"]
        h = h * jax.lax.rsqrt((h * h).mean(-1, keepdims=True) + 1e-6)
        return _times(spelling, h, p["scale"]) @ p["b"]["k"]

    return apply


def _layer_scale(spelling: str) -> Network:
    return lambda p, x: (x + _times(spelling, x @ p["a"]["k"], p["scale"])) @ p["b"]["k"]


def _scaled_activation(spelling: str) -> Network:
    return lambda p, x: _times(spelling, jnp.tanh(x @ p["a"]["k"]), p["scale"]) @ p["b"]["k"]


def _outer(spelling: str) -> Network:
    def apply(p: Any, x: jax.Array) -> jax.Array:
        h = x @ p["a"]["k"]
        wide = (
            h[..., None] * p["heads"] if spelling == "*" else jnp.einsum("td,h->tdh", h, p["heads"])
        )
        return wide.reshape(4, 12) @ jnp.concatenate([p["b"]["k"], p["q"]["k"]])

    return apply


SPELLINGS = [_attention, _rotated, _scaled_norm, _layer_scale, _scaled_activation, _outer]


@pytest.mark.parametrize("network", SPELLINGS, ids=lambda n: n.__name__.strip("_"))
def test_a_contraction_that_contracts_nothing_is_a_product(network: Any) -> None:
    product, contraction = network("*"), network("einsum")
    assert _kinds(product) == _kinds(contraction)
    for name, composite in COMPOSITES.items():
        expected, found = (
            lrp.relevance(f, composite)(P, X, target=1) for f in (product, contraction)
        )
        assert_close(found, expected, 1e-9, name)


def test_contractions_that_contract_nothing_keep_their_values() -> None:
    shapes = {
        "i,j->ij": ((3,), (4,)), "bij,b->bij": ((2, 3, 4), (2,)), "b,bij->bji": ((2,), (2, 3, 4)),
        "bi,bj->jbi": ((2, 3), (2, 4)), "ibc,dcb->cidb": ((2, 3, 4), (5, 4, 3)),
    }  # fmt: skip
    for spec, (a, b) in shapes.items():
        left, right = _draw(*a, seed=1), _draw(*b, seed=2)

        def apply(right: jax.Array, left: jax.Array, spec: str = spec) -> jax.Array:
            return jnp.einsum(spec, left, right)

        output, relevance = lrp.value_and_relevance(apply, lrp.Zero())(
            right, left, target=lambda y: y
        )
        np.testing.assert_allclose(output, apply(right, left), rtol=1e-15)
        np.testing.assert_allclose(relevance.sum(), output.sum(), rtol=1e-12)


TWO = jnp.asarray(2.0)
TWICE: dict[str, Network] = {
    "a number": lambda p, x: x * 2.0,
    "a half": lambda p, x: x / 0.5,
    "a root": lambda p, x: x * jnp.sqrt(jnp.asarray(4.0)),
    "an array made before": lambda p, x: x * TWO,
    "an array of one number": lambda p, x: x * np.asarray([2.0]),
    "a filled array": lambda p, x: x * jnp.full_like(x, 2.0),
    "a scalar parameter": lambda p, x: x * p["two"],
    "a parameter of one number": lambda p, x: x * p["two"].reshape(1, 1),
}


def _block(p: Any, h: jax.Array) -> jax.Array:
    return (h + jnp.tanh(h @ p["a"]["k"])) @ p["b"]["k"]


SCALED: dict[str, Callable[[Network], Network]] = {
    "positions": lambda twice: lambda p, x: _block(p, twice(p, x) + p["table"]),
    "positions before": lambda twice: lambda p, x: _block(p, twice(p, x + p["table"] / 2)),
    "after an activation": lambda twice: (
        lambda p, x: (twice(p, jnp.tanh(x)) @ p["a"]["k"].T + p["a"]["b"]) @ p["b"]["k"]
    ),
    "scores": lambda twice: (
        lambda p, x: jax.nn.softmax(twice(p, x @ x.T) + p["table"][:, :4]) @ (x @ p["b"]["k"])
    ),
}


@pytest.mark.parametrize("network", SCALED)
def test_a_scale_by_one_number_is_no_layer(network: str) -> None:
    p = {**P, "two": TWO}
    wanted = SCALED[network](TWICE["a number"])
    kinds = [layer.kind.label for layer in lrp.plan(wanted, lrp.Zero())(p, X).layers]
    assert "BatchNorm" not in kinds
    assert kinds.count("Bias") == (network != "after an activation")
    composite = COMPOSITES["alphabeta"]
    expected = lrp.relevance(wanted, composite)(p, X, target=1)
    for spelling, twice in TWICE.items():
        apply = SCALED[network](twice)
        assert [layer.kind.label for layer in lrp.plan(apply, lrp.Zero())(p, X).layers] == kinds
        found = lrp.relevance(apply, composite)(p, X, target=1)
        assert_close(found, expected, 1e-9, spelling)


POLYNOMIALS: dict[str, Network] = {
    "a number": lambda _, u: [jnp.ones_like(u), u, 2 * u * u - 1.0],
    "a filled array": lambda _, u: [jnp.ones_like(u), u, 2 * u * u - jnp.ones_like(u)],
    "a part of one": lambda _, u: [jnp.ones_like(u), u, 2 * u * u - jnp.ones((4, 6))[::-1, 2:]],
    "a scaled part of one": lambda _, u: [
        jnp.ones_like(u), u, 2 * u * u - 0.5 * jnp.full((4, 6), 2.0)[:, 2:]
    ],
    "what was there before": lambda _, u: _recurrence(u),
}  # fmt: skip


def _recurrence(u: jax.Array) -> list[jax.Array]:
    """Chebyshev's polynomials, each set in an array of ones and read there again."""
    t = jnp.ones((*u.shape, 3)).at[..., 1].set(u)
    t = t.at[..., 2].set(2 * u * t[..., 1] - t[..., 0])
    return [t[..., i] for i in range(3)]


@pytest.mark.parametrize("spelling", POLYNOMIALS)
def test_a_number_is_one_wherever_in_the_code_it_is_read(spelling: str) -> None:
    x = np.linspace(-1, 1, 16).reshape(4, 4)

    def network(make: Network) -> Network:
        return lambda p, x: jnp.stack(make(p, jnp.tanh(x)), -1).reshape(4, -1) @ p["w"]

    p = {"w": np.sin(np.arange(36.0)).reshape(12, 3)}
    wanted, apply = (network(POLYNOMIALS[name]) for name in ("a number", spelling))
    assert "Bias" not in {layer.kind.label for layer in lrp.plan(apply, lrp.Zero())(p, x).layers}
    expected = lrp.relevance(wanted, lrp.AttnLRP())(p, x, target=1)
    assert_close(lrp.relevance(apply, lrp.AttnLRP())(p, x, target=1), expected, 1e-9)


def test_a_scaled_shift_is_the_shift_of_a_smaller_number() -> None:
    before, after = (
        lrp.relevance(SCALED[name](TWICE["a number"]), lrp.AlphaBeta())(P, X, target=1)
        for name in ("positions before", "positions")
    )
    assert_close(before, after, 1e-9)


def test_a_scale_along_an_axis_makes_a_batch_norm_of_a_shift() -> None:
    plan = lrp.plan(lambda p, x: x * p["scale"] + p["a"]["b"], lrp.Zero())(P, X)
    assert [layer.kind.label for layer in plan.layers] == ["BatchNorm"]


def test_a_bias_is_called_by_what_it_adds() -> None:
    plan = lrp.plan(lambda p, x: x * p["two"] + p["table"], lrp.Zero())({**P, "two": TWO}, X)
    assert [layer.name for layer in plan.layers] == ["table"]


def test_numbers_that_are_computed_are_numbers_of_the_code() -> None:
    """1 - z is a function of z, a mean has a known sign, a rectifier a zero."""

    def apply(p: Any, x: jax.Array, zero: Any, one: Any, n: Any) -> jax.Array:
        h = jnp.maximum(x @ p["a"]["k"], zero) * (one - jax.nn.sigmoid(x))
        return (h @ p["b"]["k"]).sum(0) * (one / n)

    def written(p: Any, x: jax.Array) -> jax.Array:
        return apply(p, x, 0.0, 1.0, 4.0)

    def computed(p: Any, x: jax.Array) -> jax.Array:
        one = jnp.exp(jnp.asarray(0.0))
        zeros = jnp.zeros((4, 6))
        return apply(p, x, zeros, jnp.ones((1, 1)), jnp.sqrt(16.0) * one)

    assert _kinds(written) == _kinds(computed)
    expected, found = (lrp.relevance(f, lrp.ZPlus())(P, X, target=1) for f in (written, computed))
    assert_close(found, expected, 1e-9)


# -- Constants that are no weights ----------------------------------------------------------------

GREY = np.array([[0.3], [0.6], [0.1]])
FLAT_FIRST = lrp.Composite([(lrp.first(lrp.Linear), lrp.Flat()), (lrp.Linear, lrp.ZPlus())])


def _conv(h: jax.Array, kernel: jax.Array) -> jax.Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(h, kernel, (1, 1), "SAME", dimension_numbers=numbers)


def _unet(p: Any, x: jax.Array) -> jax.Array:
    grey = jax.image.resize(x, (1, 6, 6, 3), "bilinear") @ GREY
    h = jax.nn.relu(_conv(grey, p["first"]))
    h = jax.image.resize(h, (1, 12, 12, 2), "bilinear")
    return _conv(h, p["second"]).mean((1, 2))


UNET = {"first": _draw(3, 3, 1, 2, seed=1), "second": _draw(3, 3, 2, 3, seed=2)}
IMAGE = jax.nn.relu(_draw(1, 4, 4, 3, seed=3))


AROUND = {"plain": lambda f: f, "checkpoint": jax.checkpoint, "jit": jax.jit}


@pytest.mark.parametrize("around", AROUND)
def test_constants_of_the_code_are_no_weights(around: str) -> None:
    plan = lrp.plan(AROUND[around](_unet), FLAT_FIRST)(UNET, IMAGE)
    found = {layer.path: (layer.kind.label, layer.rule) for layer in plan.layers}
    assert found["first"] == ("Conv", "Flat()")
    assert found["second"] == ("Conv", "ZPlus()")
    assert [kind for kind, _ in found.values()].count("Merge") == 5


def test_a_fixed_map_shares_in_proportion() -> None:
    """Under a merge's rule a resize, a bank of filters, is LRP's formula for its matrix."""

    def apply(p: Any, x: jax.Array) -> jax.Array:
        return jax.nn.relu(jax.image.resize(x, (2, 9), "linear") @ p)

    p, x = _draw(9, 4, seed=1), _draw(2, 5, seed=2)
    found = lrp.relevance(apply, lrp.ZPlus())(p, x, target=lambda y: y)
    row = jnp.eye(5)
    matrix = np.asarray(jnp.concatenate([jax.image.resize(r[None], (1, 9), "linear") for r in row]))
    h = np.asarray(x) @ matrix
    y = np.maximum(h @ np.asarray(p), 0)
    parts = np.maximum(h[:, :, None] * np.asarray(p)[None], 0)  # z+ ...
    below = (parts / (parts.sum(1, keepdims=True) + 1e-6) * y[:, None]).sum(-1)
    s = below / (h + np.where(h >= 0, 1e-6, -1e-6))  # ... and what the sum as it stands divides by
    assert_close(found, np.asarray(x) * (s @ matrix.T), 1e-9)


def test_signs_of_a_fixed_map() -> None:
    """A rule with signs serves a merge that is a weighted sum as it serves a layer with weights."""
    bank, x = np.asarray(_draw(6, 3, seed=1)), _draw(2, 6, seed=2)
    p = _draw(3, 3, seed=3)

    def closed(p: Any, x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ bank) @ p

    def passed(p: Any, x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ p["bank"]) @ p["p"]

    merges = lrp.Composite([(lrp.Merge, lrp.ZPlus()), (lrp.Linear, lrp.Zero())])
    layers = lrp.Composite([("bank", lrp.ZPlus()), (lrp.Linear, lrp.Zero())])
    found = lrp.relevance(closed, merges)(p, x, target=1)
    both = {"bank": jnp.asarray(bank), "p": p}
    assert_close(found, lrp.relevance(passed, layers)(both, x, target=1), 1e-9)


def test_a_model_that_is_closed_over_has_layers() -> None:
    def closed(_: Any, x: jax.Array) -> jax.Array:
        return _unet(UNET, x)

    kinds = [layer.kind.label for layer in lrp.plan(closed, FLAT_FIRST)(None, IMAGE).layers]
    assert kinds.count("Conv") == 2
    assert kinds.count("Merge") == 4  # the resizes are computed from nothing
    expected = lrp.relevance(_unet, lrp.ZPlus())(UNET, IMAGE, target=1)
    composite = lrp.Composite([(lrp.Conv, lrp.ZPlus()), (lrp.Dense, lrp.Norm())])
    assert_close(lrp.relevance(closed, composite)(None, IMAGE, target=1), expected, 1e-9)


def test_weights_of_a_loop_come_from_arguments() -> None:
    bank = _draw(4, 4, seed=1)

    def apply(p: Any, x: jax.Array) -> jax.Array:
        def step(h: jax.Array, w: jax.Array) -> tuple[jax.Array, None]:
            return jnp.tanh(h @ w) @ bank, None

        return jax.lax.scan(step, x, p)[0]

    plan = lrp.plan(apply, lrp.Zero())(_draw(3, 4, 4), _draw(2, 4))
    assert [layer.kind.label for layer in plan.layers] == ["Dense", "Activation", "Merge"]


# -- Products over an axis, soft maxima so far, linear systems, pools with gaps ------------------


def _of(operation: Callable[[jax.Array], jax.Array], x: jax.Array, *entries: Any) -> jax.Array:
    """Relevance through one operation, from a start that is its value."""
    composite = lrp.Composite([*entries, (lrp.Linear, lrp.Zero())])
    return lrp.relevance(lambda _, x: operation(x), composite)(None, x, target=lambda y: y)


F = _draw(2, 5, seed=20).at[1, 2].set(0.0)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_cumulative_product_shares_among_the_factors_so_far(reverse: bool) -> None:
    turn = slice(None, None, -1 if reverse else 1)
    values = np.cumprod(np.asarray(F)[:, turn], 1)
    shares = np.where(np.asarray(F)[:, turn] == 0, 0, values / np.arange(1, 6))
    later = np.cumsum(shares[:, ::-1], 1)[:, ::-1]
    later = np.where(np.asarray(F)[:, turn] == 0, 0, later)
    found = _of(lambda x: jax.lax.cumprod(x, 1, reverse=reverse), F)
    assert_close(found, later[:, turn], 1e-9)


def test_a_product_over_axes_shares_in_equal_parts() -> None:
    x = _draw(2, 3, 4, seed=21)
    values = np.prod(np.asarray(x), (0, 2))
    found = _of(lambda x: jnp.prod(x, (0, 2)), x)
    assert_close(found, np.broadcast_to(values[None, :, None] / 8, x.shape), 1e-9)
    pair = x[0, :2]
    written = _of(lambda x: x[0] * x[1], pair, (lrp.Product, lrp.Gate(signal=1)))
    assert_close(_of(lambda x: x.prod(0), pair, (lrp.Product, lrp.Gate(signal=1))), written, 1e-9)
    with pytest.raises(ValueError, match="cumulative product"):
        _of(lambda x: jnp.cumprod(x, 0), pair, (lrp.Product, lrp.Gate(signal=1)))


def test_a_soft_maximum_so_far_is_that_of_what_came() -> None:
    def written(x: jax.Array) -> jax.Array:
        return jnp.stack([jax.nn.logsumexp(x[:, : i + 1], 1) for i in range(5)], 1)

    found, expected = (_of(f, F) for f in (lambda x: jax.lax.cumlogsumexp(x, 1), written))
    assert_close(found, expected, 1e-9)


A = _draw(5, 5, seed=22) + 5 * jnp.eye(5)
SYSTEMS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "solve": jnp.linalg.solve,
    "triangular": jax.scipy.linalg.solve_triangular,
    "cholesky": lambda a, b: jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(a @ a.T), True), b),
    "tridiagonal": lambda a, b: jax.lax.linalg.tridiagonal_solve(a[0] / 9, a[1] + 3, a[2] / 9, b),
    "conjugate gradients": lambda a, b: jax.scipy.sparse.linalg.cg(lambda v: a @ (a.T @ v), b)[0],
}  # fmt: skip


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_solution_is_linear_in_its_right_hand_side(system: str) -> None:
    b, rule = F.T[:, :1], lrp.Epsilon(0.01)
    apply = SYSTEMS[system]
    matrix = np.stack([np.asarray(apply(A, e[:, None]))[:, 0] for e in jnp.eye(5)])
    composite = lrp.Composite([(lrp.Merge, rule)])
    start = signed_start(apply, A, b)
    found = lrp.relevance(apply, composite)(A, b, target=lambda _: start)
    if system == "cholesky":  # one system after the other
        inner = np.linalg.inv(np.linalg.cholesky(np.asarray(A @ A.T))).T
        middle = oracle(rule, inner.T, np.zeros(5), np.asarray(b).T @ inner, start)
        expected = oracle(rule, inner, np.zeros(5), b, middle)
    else:
        expected = oracle(rule, matrix, np.zeros(5), b, start)
    assert_close(found, expected, 1e-9)
    with pytest.raises(lrp.UnsupportedOperation, match="matrix"):
        lrp.plan(lambda b, a: apply(a, b), lrp.Zero())(b, A)


def test_a_linear_system_has_no_signs() -> None:
    composite = lrp.Composite([(lrp.Merge, lrp.ZPlus())])
    with pytest.raises(lrp.UnsupportedOperation, match=r"linear system.*Norm\(\)"):
        lrp.relevance(jnp.linalg.solve, composite)(A, F.T)


@pytest.mark.parametrize("largest", [True, False], ids=["max", "min"])
@pytest.mark.parametrize("base", [1, 2])
def test_pools_with_gaps_give_all_to_the_winner(base: int, largest: bool) -> None:
    x = _draw(2, 9, seed=23)
    sign = 1 if largest else -1
    window = dict(
        window_dimensions=(1, 3), window_strides=(1, 2), padding=((0, 0), (2, 1)),
        base_dilation=(1, base), window_dilation=(1, 2),
    )  # fmt: skip

    def pool(x: jax.Array) -> jax.Array:
        reduce = jax.lax.max if largest else jax.lax.min
        return jax.lax.reduce_window(x, -sign * jnp.inf, reduce, **window)

    y = np.asarray(pool(x))
    expected = np.zeros(x.shape)
    for row, column in np.ndindex(*y.shape):
        places = [(2 * column + 2 * k - 2) / base for k in range(3)]
        inside = [int(p) for p in places if p == int(p) and 0 <= p < 9]
        if inside:
            winner = max(inside, key=lambda p: sign * float(x[row, p]))
            expected[row, winner] += y[row, column]
    start = jnp.where(jnp.isfinite(y), y, 0)
    found = lrp.relevance(lambda _, x: pool(x), lrp.Zero())(None, x, target=lambda _: start)
    assert_close(found, expected, 1e-9)


# -- Loops of known bound -------------------------------------------------------------------------


def _relaxed(p: Any, h: jax.Array) -> jax.Array:
    return h + 0.5 * jnp.tanh(h @ p["b"]["k"])


LOOPS: dict[str, Any] = {
    "counter": lambda p, x: jax.lax.while_loop(
        lambda c: c[0] < 3, lambda c: (c[0] + 1, _relaxed(p, c[1])), (0, x)
    )[1],
    "down": lambda p, x: jax.lax.while_loop(
        lambda c: jnp.greater(c[1], 0), lambda c: (_relaxed(p, c[0]), c[1] - 2), (x, 6)
    )[0],
    "inclusive": lambda p, x: jax.lax.while_loop(
        lambda c: c[0] <= 7, lambda c: (c[0] + 3, _relaxed(p, c[1])), (1, x)
    )[1],
    "until it is large": lambda p, x: jax.lax.while_loop(
        lambda c: (c[0] < 9) & (c[2] < 3.0) & (jnp.abs(c[1]).max() < 1e6),
        lambda c: (c[0] + 1, _relaxed(p, c[1]), c[2] + 1.0),
        (0, x, 0.0),
    )[1],
}  # fmt: skip


@pytest.mark.parametrize("loop", LOOPS)
def test_a_loop_of_known_bound_is_its_turns(loop: str) -> None:
    def turns(p: Any, x: jax.Array) -> jax.Array:
        for _ in range(3):
            x = _relaxed(p, x)
        return x @ p["a"]["k"]

    def looped(p: Any, x: jax.Array) -> jax.Array:
        return LOOPS[loop](p, x) @ p["a"]["k"]

    explain = lrp.value_and_relevance(looped, lrp.Gamma(0.2))
    (value, found), expected = (
        explain(P, X, target=1),
        lrp.relevance(turns, lrp.Gamma(0.2))(P, X, target=1),
    )
    np.testing.assert_allclose(value, looped(P, X), rtol=1e-12)
    assert_close(found, expected, 1e-9)


@pytest.mark.parametrize("limit", ["argument", "nothing", "too far"])
def test_a_loop_without_a_bound_is_refused(limit: str) -> None:
    def apply(n: jax.Array, x: jax.Array) -> jax.Array:
        if limit == "argument":
            return jax.lax.fori_loop(0, n, lambda i, h: h * 0.5, x)
        far = {"nothing": lambda c: c[1].max() > 1, "too far": lambda c: c[0] < 10**6}[limit]
        return jax.lax.while_loop(far, lambda c: (c[0] + 1, c[1] * 0.5), (0, x))[1]

    with pytest.raises(lrp.UnsupportedOperation, match="`while`"):
        lrp.plan(apply, lrp.Zero())(jnp.asarray(3), X)


def test_a_bounded_loop_stays_in_its_checkpoint() -> None:
    """What lies inside of a checkpoint is computed again on the way back, loops too."""

    def apply(w: Any, x: jax.Array) -> jax.Array:
        def loop(x: jax.Array) -> jax.Array:
            return jax.lax.while_loop(
                lambda c: (c[0] < 4) & (jnp.abs(c[1]).max() < 1e6),
                lambda c: (c[0] + 1, jax.nn.relu(c[1] @ w)),
                (0, x),
            )[1]

        return jax.checkpoint(loop)(x) @ w

    explain = lrp.relevance(apply, lrp.Epsilon())
    name = jax.make_jaxpr(jax.checkpoint(jnp.sin))(1.0).eqns[0].primitive.name
    assert f"{name}[" in str(jax.make_jaxpr(explain)(jnp.eye(3), jnp.ones((2, 3))))
