"""Complex numbers between real ones: one linear map, or an error that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array, lax

import lrp_jax as lrp

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((3, 6)))
W = jnp.asarray(RNG.standard_normal((6, 4)) + 1j * RNG.standard_normal((6, 4)))
MODES = jnp.asarray(0.8 * np.exp(1j * np.linspace(-1, 1, 6)))

EXACT = lrp.Composite([(lrp.Linear | lrp.Merge, lrp.Zero())])
Function = Callable[[Any, Array], Array]


def scanned(p: Array, x: Array) -> Array:
    """h_t = modes h_(t-1) + x_t, over the six numbers of an example."""

    def step(h: Array, t: Array) -> tuple[Array, Array]:
        h = MODES * h + t[:, None]
        return h, (h @ p).real

    return (
        lax.scan(step, jnp.zeros((len(x), 6), complex), x.T)[1].swapaxes(0, 1).reshape(len(x), -1)
    )


def together(a: Any, b: Any) -> Any:
    return a[0] * b[0], a[1] * b[0] + b[1]


ONE_MAP: dict[str, Function] = {
    "real part": lambda p, x: jnp.fft.fft(x).real,
    "imaginary part": lambda p, x: (x @ p).imag,
    "filter": lambda p, x: jnp.fft.irfft(jnp.fft.rfft(x) * MODES[:4], 6),
    "choice": lambda p, x: jnp.where(np.arange(4) > 1, x @ p, -1j * (x @ p)).real,
    "associative scan": lambda p, x: (
        lax.associative_scan(together, (jnp.broadcast_to(MODES, x.shape), x + 0j), axis=1)[1].real
    ),
    "checkpoint": lambda p, x: jax.checkpoint(lambda x: jnp.fft.fft(x))(x).real,
    "a choice of numbers": lambda p, x: ((x @ p) * jnp.where(jnp.arange(4) > 1, 2 + 0j, 0j)).real,
    "two parts of one number": lambda p, x: (lax.complex(x, 2 * x) * (1 - 2j) / 3).real,
}
SEVERAL: dict[str, Function] = {
    "scan": scanned,
    "both parts": lambda p, x: jnp.concatenate([(x @ p).real, (x @ p).imag], -1),
    "difference of parts": lambda p, x: (lambda u: u.real - 2 * u.imag)(jnp.conj(x @ p)),
    "two maps": lambda p, x: (jnp.fft.fft((x @ p).real) * 1j).real,
}


def jacobian(function: Function) -> np.ndarray:
    return np.asarray(jax.jacobian(lambda x: function(W, x[None])[0])(X[0]))


@pytest.mark.parametrize("name", [*ONE_MAP, *SEVERAL])
def test_lrp_0_is_gradient_times_input(name: str) -> None:
    function = {**ONE_MAP, **SEVERAL}[name]
    y = np.asarray(function(W, X))
    weighting = np.cos(np.arange(y.size)).reshape(y.shape)
    found = lrp.relevance(function, EXACT)(W, X, target=weighting)
    np.testing.assert_allclose(found, X * (weighting @ jacobian(function)), atol=1e-9)


@pytest.mark.parametrize("name", ONE_MAP)
def test_a_map_shares_in_proportion_to_its_contributions(name: str) -> None:
    function = ONE_MAP[name]
    y = np.asarray(function(W, X))
    start = np.cos(np.arange(y.size)).reshape(y.shape)
    found = lrp.relevance(function, lrp.Composite([(lrp.Merge, lrp.Norm(0.1))]))(
        W, X, target=lambda _: start
    )
    shares = start / (y + np.where(y < 0, -0.1, 0.1))
    np.testing.assert_allclose(found, X * (shares @ jacobian(function)), rtol=1e-9, atol=1e-12)


def test_a_magnitude_is_conserved() -> None:
    """|u| grows in proportion to x: sum_i x_i d|u_j| / dx_i = |u_j|."""
    explain = lrp.value_and_relevance(lambda p, x: jnp.abs(x @ p), EXACT)
    output, found = explain(W, X, target=np.ones((3, 4)))
    np.testing.assert_allclose(found.sum(1), output.sum(1), rtol=1e-9)


def test_relevance_of_complex_weights() -> None:
    def network(p: Any, x: Array) -> Array:
        return jax.nn.relu((x @ p[0]).real) @ p[1]

    params = (W, jnp.asarray(RNG.standard_normal((4, 2))))
    found = lrp.parameter_relevance(network, EXACT)(params, X, target=1)
    assert found[0].dtype == float
    for relevance in found:
        np.testing.assert_allclose(relevance.sum(), network(params, X)[:, 1].sum(), rtol=1e-9)


BIASES: dict[str, Function] = {
    "of a product": lambda p, x: (x @ p + MODES[:4]).real,
    "of a magnitude": lambda p, x: jnp.abs(x @ p + MODES[:4]),
    "in a scan": lambda p, x: lax.scan(
        lambda h, t: ((h * MODES + 1 + t[:, None]), (h * MODES).real), jnp.zeros((3, 6)) + 0j, x.T
    )[1][-1],
}


@pytest.mark.parametrize("name", BIASES)
def test_a_complex_bias_absorbs(name: str) -> None:
    function = BIASES[name]
    start = np.cos(np.arange(function(W, X).size)).reshape(3, -1)
    explain = lambda f, rule: f(function, lrp.Composite([(lrp.Merge, rule)]))(  # noqa: E731
        W, X, target=lambda _: start
    )
    y, linear = jax.jvp(lambda x: function(W, x), (X,), (X,))
    ledger = explain(lrp.conservation, lrp.Zero())
    np.testing.assert_allclose(
        ledger.rows[ledger.layers[0]]["bias"], (start * (1 - linear / y)).sum()
    )
    np.testing.assert_allclose(explain(lrp.relevance, lrp.Zero()).sum(), (start * linear / y).sum())
    ignored = explain(lrp.relevance, lrp.Zero(bias="ignore"))
    np.testing.assert_allclose(ignored.sum(), start.sum())
    with pytest.raises(lrp.UnsupportedOperation, match="count of inputs"):
        explain(lrp.relevance, lrp.Zero(bias="distribute"))


def test_the_ledger_sees_the_map() -> None:
    ledger = lrp.conservation(ONE_MAP["filter"], lrp.Epsilon())(None, X, target=1)
    assert ledger.kinds == ("Merge",)
    np.testing.assert_allclose(ledger.received, ledger.start, rtol=1e-5)


REFUSED: dict[str, tuple[Function, str]] = {
    "a function of complex numbers": (lambda p, x: jnp.exp(x @ p).real, "`exp`"),
    "a product of two": (lambda p, x: ((x @ p) * jnp.conj(x @ p)).real, "`mul`"),
    "a quotient of two": (lambda p, x: ((x @ p) / (x @ p + 1)).real, "`div`"),
    "complex outputs": (lambda p, x: x @ p, "`dot_general`"),
    "a branch between them": (
        lambda p, x: lax.cond(x.sum() > 0, jnp.fft.fft, lambda x: 1j * x, x).real,
        "`cond`",
    ),
    "a loop that is not linear": (
        lambda p, x: lax.scan(lambda h, t: (h * h + t[:, None], h.real), x + 0j, x.T)[1][-1],
        "complex128",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_everything_else_is_refused(name: str) -> None:
    function, what = REFUSED[name]
    with pytest.raises(lrp.UnsupportedOperation, match=what) as caught:
        lrp.plan(function, lrp.Epsilon())(W, X)
    assert "real and imaginary parts as two" in str(caught.value)


@pytest.mark.parametrize("rule", [lrp.ZPlus(), lrp.Gamma(), lrp.AlphaBeta(), lrp.Flat()], ids=repr)
def test_rules_of_single_contributions_are_refused(rule: lrp.Rule) -> None:
    explain = lrp.relevance(ONE_MAP["imaginary part"], lrp.Composite([(lrp.Merge, rule)]))
    with pytest.raises(lrp.UnsupportedOperation, match=r"Merge .*test_complex.*give it Norm\(\)"):
        explain(W, X)


def test_complex_inputs_are_refused() -> None:
    with pytest.raises(TypeError, match="complex128"):
        lrp.relevance(lambda p, x: (x @ p).real, lrp.Epsilon())(W, X + 0j)
