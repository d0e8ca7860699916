"""One function, one relevance: however a product, softmax, mean or norm is written.

The oracle of a row is the first way to write it, and for products the hand.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

import lrp_jax as lrp

KEYS = jax.random.split(jax.random.key(0), 8)


def _normal(number: int, *shape: int) -> Array:
    return jax.random.normal(KEYS[number], shape, jnp.float64)


X = _normal(0, 2, 4, 6)
PARAMS = {n: _normal(1 + i, 6, 6) for i, n in enumerate("qkv")} | {"o": _normal(4, 6, 3)}
MASK = jnp.tril(jnp.ones((4, 4), bool))
HEADS = jnp.array([0.5, 2.0])
Apply = Callable[[Any, Array], Array]

RULES: dict[str, Any] = {
    "Epsilon": lrp.Epsilon(1e-2), "AttnLRP": lrp.AttnLRP(), "CPLRP": lrp.CPLRP(),
}  # fmt: skip
OTHERS: dict[str, Any] = {
    "Zero": lrp.Zero(), "Gamma": lrp.Gamma(0.3), "ZPlus": lrp.ZPlus(), "AlphaBeta": lrp.AlphaBeta(),
}  # fmt: skip


def _explained(apply: Apply, rules: dict[str, Any], params: Any, x: Array) -> dict[str, Any]:
    def all_rules(params: Any, x: Array) -> dict[str, Array]:
        explain = functools.partial(lrp.relevance, apply)
        return {n: explain(rule)(params, x, target=lambda y: y) for n, rule in rules.items()}

    return dict(jax.jit(all_rules)(params, x))


def _agrees(
    one: Apply, other: Apply, params: Any, x: Array, rules: dict[str, Any], close: float = 1e-9
) -> None:
    wanted = _first(one, tuple(rules), params, x)
    found = _explained(other, rules, params, x)
    for name, relevance in found.items():
        scale = np.abs(wanted[name]).max()
        np.testing.assert_allclose(relevance, wanted[name], atol=close * scale, err_msg=name)


_CACHE: dict[Any, dict[str, Any]] = {}


def _first(apply: Apply, names: tuple[str, ...], params: Any, x: Array) -> dict[str, Any]:
    if (apply, names) not in _CACHE:
        _CACHE[apply, names] = _explained(apply, {n: ALL[n] for n in names}, params, x)
    return _CACHE[apply, names]


ALL = RULES | OTHERS


# -- products -----------------------------------------------------------------------------------

THREE = {"a": jnp.array([2.0]), "b": jnp.array([3.0]), "c": jnp.array([5.0])}


def _factors(apply: Callable[..., Array], rule: Any) -> list[float]:
    explain = lrp.relevance(lambda _, x: apply(x["a"], x["b"], x["c"]), rule)
    return [float(r[0]) for r in explain(None, THREE, target=lambda y: y).values()]


PRODUCTS: dict[str, tuple[Callable[..., Array], list[float]]] = {
    "(ab)c": (lambda a, b, c: (a * b) * c, [10, 10, 10]),
    "a(bc)": (lambda a, b, c: a * (b * c), [10, 10, 10]),
    "(ac)b": (lambda a, b, c: (a * c) * b, [10, 10, 10]),
    "einsum": (lambda a, b, c: jnp.einsum("i,i,i->i", a, b, c), [10, 10, 10]),
    "-a(b2)c": (lambda a, b, c: -a * (b * 2) * c, [-20, -20, -20]),
    "(ab)a": (lambda a, b, c: (a * b) * a, [6, 6, 0]),
    "a(ab)": (lambda a, b, c: a * (a * b), [6, 6, 0]),
    "(aa)b": (lambda a, b, c: (a * a) * b, [6, 6, 0]),
    "aab/c": (lambda a, b, c: a * (b / c) * a, [0.8, 0.8, 0.8]),
    "ab/c": (lambda a, b, c: a * b / c, [0.4, 0.4, 0.4]),
    "a/(c/b)": (lambda a, b, c: a / (c / b), [0.4, 0.4, 0.4]),
    "(1/c)(ab)": (lambda a, b, c: (1 / c) * (a * b), [0.4, 0.4, 0.4]),
    "acb/a": (lambda a, b, c: a * c * (b / a), [0, 7.5, 7.5]),
    "(abc)/b": (lambda a, b, c: (a * b) * c / b, [5, 0, 5]),
    "aaa": (lambda a, b, c: (a * a) * a, [8, 0, 0]),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_every_factor_gets_an_equal_share(name: str) -> None:
    apply, wanted = PRODUCTS[name]
    np.testing.assert_allclose(_factors(apply, lrp.AttnLRP()), wanted, rtol=1e-12)


SIGMOID, TANH = (float(f(5.0)) for f in (jax.nn.sigmoid, np.tanh))
GATED: dict[str, tuple[Callable[..., Array], list[float]]] = {
    "(ab)s": (lambda a, b, c: (a * b) * jax.nn.sigmoid(c), [3 * SIGMOID, 3 * SIGMOID, 0]),
    "a(bs)": (lambda a, b, c: a * (b * jax.nn.sigmoid(c)), [3 * SIGMOID, 3 * SIGMOID, 0]),
    "two gates": (
        lambda a, b, c: (jax.nn.sigmoid(c) * a) * jnp.tanh(b),
        [2 * SIGMOID * float(np.tanh(3.0)), 0, 0],
    ),
    "gates so far": (
        lambda a, b, c: a * jnp.cumprod(jax.nn.sigmoid(jnp.stack([b, c])), 0)[-1],
        [2 * SIGMOID * float(jax.nn.sigmoid(3.0)), 0, 0],
    ),
    "all gates": (
        lambda a, b, c: (jnp.tanh(c) * jnp.tanh(a)) * jnp.tanh(b),
        [float(np.tanh(2.0) * np.tanh(3.0) * TANH / 3)] * 3,
    ),
}


@pytest.mark.parametrize("name", GATED)
def test_gates_among_many_factors_get_nothing(name: str) -> None:
    apply, wanted = GATED[name]
    composite = lrp.Composite([(lrp.Bilinear, lrp.Gate()), (lrp.Linear, lrp.Zero())])
    np.testing.assert_allclose(_factors(apply, composite), wanted, rtol=1e-12)


FUNCTIONS: dict[str, Callable[[Array, Array], Array]] = {
    "silu": lambda v, g: v * g * jax.nn.sigmoid(g),
    "silu first": lambda v, g: jax.nn.sigmoid(g) * v * g,
    "gelu": lambda v, g: v * 0.5 * g * (1 + jnp.tanh(0.8 * g * (1 + 0.04 * g**2))),
    "two at once": lambda v, g: v * g * jax.nn.sigmoid(g) * jnp.tanh(g),
}


@pytest.mark.parametrize("sizes", [(3,), (3, 2)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_example_is_explained_as_it_is_among_others(name: str, sizes: tuple[int, ...]) -> None:
    def apply(params: Any, x: Array) -> Array:
        v, g = jnp.split(x @ params["in"], 2, -1)
        return FUNCTIONS[name](v, g) @ params["out"]

    keys = jax.random.split(jax.random.key(0), 3)
    shapes = {"in": (4, 6), "out": (3, 2)}
    params = {
        name: jax.random.normal(k, s) for k, (name, s) in zip(keys, shapes.items(), strict=False)
    }
    x = jax.random.normal(keys[2], (*sizes, 4))
    for rule in RULES.values():
        explain = lrp.relevance(apply, rule)
        together, alone = (explain(params, some, target=1) for some in (x, x[:1]))
        np.testing.assert_allclose(alone, together[:1], rtol=1e-9)


def test_the_signal_is_counted_among_all_factors() -> None:
    composite = lrp.Composite([(lrp.Bilinear, lrp.Gate(signal=2)), (lrp.Linear, lrp.Zero())])
    assert _factors(lambda a, b, c: a * (b * c), composite) == [0, 0, 30]
    composite = lrp.Composite([(lrp.Bilinear, lrp.Gate(signal=3)), (lrp.Linear, lrp.Zero())])
    with pytest.raises(ValueError, match="factors 0 to 2"):
        _factors(lambda a, b, c: a * (b * c), composite)


# -- softmaxes and weighted means ---------------------------------------------------------------


def _attention(mix: Callable[[Array, Array], Array]) -> Apply:
    """Two heads of attention; `mix(logits, values)` is what differs."""

    def apply(w: Any, x: Array) -> Array:
        q, k, v = ((x @ w[n]).reshape(2, 4, 2, 3) for n in "qkv")
        s = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(3.0)
        return jnp.asarray(mix(s, v).reshape(2, 4, 6) @ w["o"])

    return apply


def _by(weights: Callable[[Array], Array]) -> Apply:
    return _attention(lambda s, v: jnp.einsum("bhqk,bkhd->bqhd", weights(s), v))


def _of_exp(weights: Callable[[Array], Array]) -> Apply:
    return _by(lambda s: weights(jnp.exp(s)))


def _total(e: Array) -> Array:
    return e.sum(-1, keepdims=True)


def _by_reciprocal(e: Array) -> Array:
    return e * (1 / _total(e))


def _largest(s: Array) -> Array:
    return s.max(-1, keepdims=True)


def _detached(s: Array) -> Array:
    return jax.lax.stop_gradient(_largest(s))


def _mean(s: Array, v: Array, shift: Any = 0.0, rest: Any = 0.0) -> Array:
    e = jnp.exp(s - shift)
    return jnp.einsum("bhqk,bkhd->bqhd", e, v) / (rest + _total(e)).transpose(0, 2, 1, 3)


def _mean_by_blocks(s: Array, v: Array, ends: tuple[int, ...] = (2, 4)) -> Array:
    largest: Any = None
    total: Any = 0.0
    out: Any = 0.0
    start = 0
    for end in ends:
        logits, values = s[..., start:end], v[:, start:end]
        new = logits.max(-1) if largest is None else jnp.maximum(largest, logits.max(-1))
        e = jnp.exp(logits - new[..., None])
        part = jnp.einsum("bhqk,bkhd->bhqd", e, values)
        if largest is None:
            total, out = e.sum(-1), part
        else:
            shrink = jnp.exp(largest - new)
            total, out = total * shrink + e.sum(-1), out * shrink[..., None] + part
        largest, start = new, end
    return (out / total[..., None]).transpose(0, 2, 1, 3)


SOFTMAX: dict[str, dict[str, Apply]] = {
    "softmax": {
        "jax.nn": _by(jax.nn.softmax),
        "exp of log_softmax": _by(lambda s: jnp.exp(jax.nn.log_softmax(s))),
        "logsumexp": _by(lambda s: jnp.exp(s - jax.nn.logsumexp(s, -1, keepdims=True))),
        "times 1 / sum": _of_exp(lambda e: _by_reciprocal(e)),
        "times reciprocal": _of_exp(lambda e: e * jnp.reciprocal(_total(e))),
        "times a power": _of_exp(lambda e: e**1 * _total(e) ** -1),
        "by ones": _of_exp(lambda e: e / (e @ jnp.ones((4, 1)))),
        "by einsum": _of_exp(lambda e: e / jnp.einsum("bhqk->bhq", e)[..., None]),
        "by mean": _of_exp(lambda e: e / e.mean(-1, keepdims=True) / 4),
        "shifted": _by(lambda s: jnp.exp(s - _largest(s)) / _total(jnp.exp(s - _largest(s)))),
        "detached": _by(lambda s: _by_reciprocal(jnp.exp(s - _detached(s)))),
        "exp2": _by(lambda s: jnp.exp2(s * np.log2(np.e)) / _total(jnp.exp2(s * np.log2(np.e)))),
        "again": _by(lambda s: jax.nn.softmax(s) / _total(jax.nn.softmax(s))),
        "mean after": _attention(_mean),
        "shifted mean": _attention(lambda s, v: _mean(s, v, _largest(s))),
        "detached mean": _attention(lambda s, v: _mean(s, v, _detached(s))),
        "roots": _attention(
            lambda s, v: jnp.einsum("bhqk,bhqk,bkhd->bqhd", jnp.exp(s / 2), jnp.exp(s / 2), v)
            * (1 / _total(jnp.exp(s)).transpose(0, 2, 1, 3))
        ),
        "blocks": _attention(_mean_by_blocks),
        "uneven blocks": _attention(lambda s, v: _mean_by_blocks(s, v, (1, 3, 4))),
    },
    "masked": {
        "-inf": _by(lambda s: jax.nn.softmax(jnp.where(MASK, s, -jnp.inf))),
        "where=": _by(lambda s: jax.nn.softmax(s, where=MASK)),
        "-1e30": _by(lambda s: jax.nn.softmax(jnp.where(MASK, s, -1e30))),
        "added": _by(lambda s: jnp.exp(jax.nn.log_softmax(s + jnp.where(MASK, 0.0, -1e30)))),
        "multiplied": _of_exp(lambda e: e * MASK / _total(e * MASK)),
        "sum where": _of_exp(
            lambda e: jnp.where(MASK, e / e.sum(-1, keepdims=True, where=MASK), 0)
        ),
        "renormalised": _by(lambda s: jax.nn.softmax(s) * MASK / _total(jax.nn.softmax(s) * MASK)),
        "mean": _attention(lambda s, v: _mean(jnp.where(MASK, s, -jnp.inf), v, _detached(s))),
        "blocks": _attention(lambda s, v: _mean_by_blocks(jnp.where(MASK, s, -1e30), v)),
    },
    "one more logit": {
        "concatenated": _by(
            lambda s: jax.nn.softmax(jnp.concatenate([s, jnp.zeros((2, 2, 4, 1))], -1))[..., :-1]
        ),
        "1 +": _of_exp(lambda e: e / (1 + _total(e))),
        "shifted": _by(
            lambda s: jnp.exp(s - _largest(s))
            / (jnp.exp(-_largest(s)) + _total(jnp.exp(s - _largest(s))))
        ),
        "mean": _attention(lambda s, v: _mean(s, v, rest=1.0)),
    },
    "heads": {
        "times": _by(lambda s: jax.nn.softmax(s) * HEADS[:, None, None]),
        "einsum": _by(lambda s: jnp.einsum("...hqk,h->...hqk", jax.nn.softmax(s), HEADS)),
        "one einsum": _attention(
            lambda s, v: jnp.einsum("bhqk,h,bkhd->bqhd", jax.nn.softmax(s), HEADS, v)
        ),
        "after": _attention(lambda s, v: _mean(s, v) * HEADS[:, None]),
    },
}  # fmt: skip
WAYS = [(kind, name) for kind, ways in SOFTMAX.items() for name in ways]


@pytest.mark.parametrize(("kind", "name"), WAYS, ids=lambda v: v)
def test_a_softmax_however_it_is_written(kind: str, name: str) -> None:
    rules = RULES if kind == "heads" else {n: RULES[n] for n in ("Epsilon", "AttnLRP")}
    # An added mask is a bias, whose rule has a stabiliser of 1e-6.
    close = 1e-6 if (kind, name) == ("masked", "added") else 1e-9
    _agrees(next(iter(SOFTMAX[kind].values())), SOFTMAX[kind][name], PARAMS, X, rules, close)


@pytest.mark.parametrize("name", ["logsumexp", "shifted mean", "blocks"])
def test_a_softmax_under_rules_that_tell_signs_apart(name: str) -> None:
    _agrees(SOFTMAX["softmax"]["jax.nn"], SOFTMAX["softmax"][name], PARAMS, X, OTHERS)


@pytest.mark.parametrize("name", ["logsumexp", "shifted mean", "uneven blocks"])
def test_values_stay_those_of_the_code(name: str) -> None:
    apply = SOFTMAX["softmax"][name]
    found = jax.jit(lrp.lrp_transform(apply, lrp.AttnLRP()))(PARAMS, X)
    assert (found == jax.jit(apply)(PARAMS, X)).all()


def test_the_mean_is_named_as_its_parts() -> None:
    apply = SOFTMAX["softmax"]["blocks"]
    kinds = [layer.kind.label for layer in lrp.plan(apply, lrp.AttnLRP())(PARAMS, X).layers]
    first = SOFTMAX["softmax"]["jax.nn"]
    named = [layer.kind.label for layer in lrp.plan(first, lrp.AttnLRP())(PARAMS, X).layers]
    assert sorted(kinds) == sorted(named)


def test_explanations_can_be_differentiated() -> None:
    def total(apply: Apply) -> Any:
        explain = lrp.relevance(apply, lrp.AttnLRP())
        return jax.jit(jax.grad(lambda x: (explain(PARAMS, x, target=lambda y: y) ** 2).sum()))(X)

    wanted, found = (total(SOFTMAX["softmax"][n]) for n in ("jax.nn", "shifted mean"))
    np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=1e-9 * np.abs(wanted).max())


def test_logits_that_would_overflow() -> None:
    apply = lambda w, x: jnp.exp(jax.nn.log_softmax(1e4 * x @ w["q"])) @ w["q"]  # noqa: E731
    same = lambda w, x: jax.nn.softmax(1e4 * x @ w["q"]) @ w["q"]  # noqa: E731
    _agrees(same, apply, PARAMS, X, RULES)


# -- norms and gates ----------------------------------------------------------------------------

ROW, SQUARE = _normal(5, 3, 4), _normal(6, 4, 4)
BAND = jnp.eye(4) + jnp.eye(4, k=1) + jnp.eye(4, k=-1)
Way = Callable[[Array, Array], Array]


def _length(h: Array) -> Array:
    return jnp.sqrt((h * h).sum(-1, keepdims=True))


def _rms(h: Array) -> Array:
    return jax.lax.rsqrt((h**2).mean(-1, keepdims=True) + 1e-3)


def _window(s: Array) -> Array:
    padded = jnp.pad(s, ((0, 0), (1, 1)))
    return padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]


NORMS: dict[str, list[Way]] = {
    "cosine": [
        lambda w, h: (h / _length(h)) @ (w / _length(w.ravel())),
        lambda w, h: (h @ w) / (_length(h) * _length(w.ravel())),
        lambda w, h: (h @ w) / jnp.linalg.norm(h, axis=-1, keepdims=True) / _length(w.ravel()),
        lambda w, h: h / jnp.sqrt(jnp.einsum("bi,bi->b", h, h))[:, None] @ w / _length(w.ravel()),
        lambda w, h: h @ w / jnp.sqrt(jax.vmap(jnp.vdot)(h, h))[:, None] / _length(w.ravel()),
        lambda w, h: h @ (w / _length(w.ravel())) / (jnp.sum(h**2, -1) ** 0.5)[:, None],
    ],
    "cosine of two": [
        lambda w, h: (h @ w / _length(h @ w)) @ (h / _length(h)).T,
        lambda w, h: ((h @ w) @ h.T) / (_length(h @ w) * _length(h).T),
        lambda w, h: jnp.einsum("bi,ci->bc", h @ w, h) / _length(h @ w) / _length(h)[:, 0],
    ],
    "rms": [
        lambda w, h: (h * _rms(h)) @ w,
        lambda w, h: (h @ w) * _rms(h),
        lambda w, h: (h @ w) / jnp.sqrt((h**2).mean(-1, keepdims=True) + 1e-3),
        lambda w, h: (h @ w) * jax.lax.rsqrt(jnp.einsum("bi,bi->b", h, h) / 4 + 1e-3)[:, None],
    ],
    "rms with weights": [
        lambda w, h: (h * w[0] * _rms(h)) @ w,
        lambda w, h: (h * _rms(h) * w[0]) @ w,
        lambda w, h: ((h * w[0]) @ w) * _rms(h),
    ],
    "rms and a gate": [
        lambda w, h: (h * _rms(h)) * (h @ w),
        lambda w, h: (h * (h @ w)) * _rms(h),
        lambda w, h: h * ((h @ w) * _rms(h)),
    ],
    "layer norm": [
        lambda w, h: (lambda c: (c * _rms(c)) @ w)(h - h.mean(-1, keepdims=True)),
        lambda w, h: (lambda c: (c @ w) * _rms(c))(h - h.mean(-1, keepdims=True)),
        lambda w, h: (h - h.mean(-1, keepdims=True)) * _rms(h - h.mean(-1, keepdims=True)) @ w,
    ],
    "share": [
        lambda w, h: (jax.nn.relu(h) / (jax.nn.relu(h).sum(-1, keepdims=True) + 0.1)) @ w,
        lambda w, h: (jax.nn.relu(h) @ w) / (jax.nn.relu(h).sum(-1, keepdims=True) + 0.1),
        lambda w, h: (lambda r: r * (1 / (r @ jnp.ones((4, 1)) + 0.1)))(jax.nn.relu(h)) @ w,
    ],
    "local response": [
        lambda w, h: (h / (1 + _window(h * h)) ** 0.75) @ w,
        lambda w, h: (h * (1 + (h * h) @ BAND) ** -0.75) @ w,
        lambda w, h: h / (1 + jax.lax.reduce_window(h**2, 0.0, jax.lax.add, (1, 3), (1, 1), "SAME"))
        ** 0.75 @ w,
    ],
    "divisive": [
        lambda w, h: (h / (1 + (h**2) @ jnp.abs(w))) @ w,
        lambda w, h: (h * (1 / (1 + jnp.einsum("bi,ij->bj", h * h, jnp.abs(w))))) @ w,
    ],
    "of exponentials": [
        lambda w, h: (jnp.exp(h) / _length(jnp.exp(h))) @ w,
        lambda w, h: (jnp.exp(h) @ w) / _length(jnp.exp(h)),
    ],
    "silu": [
        lambda w, h: (jax.nn.silu(h @ w) * h) @ w,
        lambda w, h: (lambda u: (u * h) * jax.nn.sigmoid(u))(h @ w) @ w,
        lambda w, h: (lambda u: u * (h * jax.nn.sigmoid(u)))(h @ w) @ w,
        lambda w, h: (lambda u: u * h / (1 + jnp.exp(-u)))(h @ w) @ w,
    ],
    "squeeze and excite": [
        lambda w, h: (h * jax.nn.sigmoid(h.mean(-1, keepdims=True) @ w[:1])) @ w,
        lambda w, h: (h / (1 + jnp.exp(-h.mean(-1, keepdims=True) @ w[:1]))) @ w,
        lambda w, h: (h * (1 / (1 + jnp.exp(-h.mean(-1, keepdims=True) @ w[:1])))) @ w,
    ],
}  # fmt: skip


@functools.cache
def _between(kind: str, number: int) -> Apply:
    """A way between layers with weights."""
    way = NORMS[kind][number]
    return lambda w, x: way(w[0], x @ w[1] + 0.1)


@pytest.mark.parametrize(
    ("kind", "number"),
    [(kind, i) for kind, ways in NORMS.items() for i in range(1, len(ways))],
    ids=str,
)
def test_a_norm_however_it_is_written(kind: str, number: int) -> None:
    # An exponential that is no softmax is warned of where an entry speaks of softmaxes.
    rules = RULES if kind != "of exponentials" else {"Epsilon": RULES["Epsilon"]}
    _agrees(_between(kind, 0), _between(kind, number), (SQUARE, SQUARE[::-1]), ROW, rules)


@pytest.mark.parametrize("kind", ["rms", "share"])
def test_a_norm_under_rules_that_tell_signs_apart(kind: str) -> None:
    _agrees(_between(kind, 0), _between(kind, 1), (SQUARE, SQUARE[::-1]), ROW, OTHERS)


# -- functions whose code negates what enters them ------------------------------------------------

NEGATED: dict[str, tuple[Any, Any]] = {
    "sigmoid": (jax.nn.sigmoid, lambda u: 1 / (1 + jnp.exp(-u))),
    "tanh": (jnp.tanh, lambda u: -jnp.tanh(-u)),
    "relu": (jax.nn.relu, lambda u: -jnp.minimum(-u, 0)),
    "log_sigmoid": (jax.nn.log_sigmoid, lambda u: -jax.nn.softplus(-u)),
}


@pytest.mark.parametrize("name", NEGATED)
@pytest.mark.parametrize("rule", [lrp.ZPlus(), lrp.AlphaBeta(), lrp.Gamma(0.5), lrp.Epsilon(0.1)])
def test_a_function_that_negates_turns_no_neuron_around(name: str, rule: Any) -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    w = {
        "a": jax.random.normal(keys[0], (4, 5), jnp.float64),
        "b": jnp.linspace(-0.2, 0.2, 5),
        "c": jax.random.normal(keys[1], (5, 3), jnp.float64),
    }
    x = jax.random.normal(keys[2], (2, 4), jnp.float64)
    one, other = (
        lrp.relevance(lambda w, x, f=f: f(x @ w["a"] + w["b"]) @ w["c"], rule)(w, x, target=1)
        for f in NEGATED[name]
    )
    np.testing.assert_allclose(one, other, atol=1e-9 * float(jnp.abs(one).max()))


def test_a_scan_over_blocks_of_keys_is_one_softmax() -> None:
    """As code for long contexts has it: a maximum, a denominator and a numerator are carried."""

    def attend(p: Any, x: Array, blocks: int) -> Array:
        q, k, v = (x @ p[n] for n in "qkv")

        def turn(carry: Any, block: Any) -> tuple[Any, None]:
            top, below, above = carry
            s = jnp.einsum("bqd,bkd->bqk", q, block[0])
            higher = jnp.maximum(top, s.max(-1))
            old, e = jnp.exp(top - higher), jnp.exp(s - higher[..., None])
            below = below * old + e.sum(-1)
            above = above * old[..., None] + jnp.einsum("bqk,bkd->bqd", e, block[1])
            return (higher, below, above), None

        split = [jnp.swapaxes(z.reshape(len(z), blocks, -1, z.shape[-1]), 0, 1) for z in (k, v)]
        start = (jnp.full(q.shape[:2], -1e30), jnp.zeros(q.shape[:2]), jnp.zeros_like(v))
        _, below, above = jax.lax.scan(turn, start, tuple(split))[0]
        return (above / below[..., None]) @ p["o"]

    def plain(p: Any, x: Array) -> Array:
        q, k, v = (x @ p[n] for n in "qkv")
        return jax.nn.softmax(jnp.einsum("bqd,bkd->bqk", q, k)) @ v @ p["o"]

    params = {n: w / 3 for n, w in PARAMS.items()}
    # Where a block is one key its maximum is the key's logit, and sums with stabilisers are left.
    exact = {n: RULES[n] for n in ("AttnLRP", "CPLRP")}
    for blocks, rules in ((2, RULES), (4, exact)):
        _agrees(plain, functools.partial(attend, blocks=blocks), params, X, rules)
