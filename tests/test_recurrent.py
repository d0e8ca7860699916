r"""Recurrent nets and control flow: LSTM and GRU against references written out step by step.

The source is Arras et al. 2017, "Explaining Recurrent Neural Network Predictions in Sentiment
Analysis". For one step of an LSTM,

    z = [x, h] W + b,   i, f, g, o = sigmoid(z_i), sigmoid(z_f), tanh(z_g), sigmoid(z_o)
    c' = f c + i g,     h' = o tanh(c')

relevance goes back as

    R(c') = R'(c') + R(h')
    R(c) = f c R(c') / S(c'),  R(g) = i g R(c') / S(c')
    R([x, h]_k) = [x, h]_k sum_j W_kj R(g_j) / S(z_g,j)    over the columns of W that make g

(products: the gates o, f and i get nothing; tanh hands on unchanged; sums: by contribution)
with S(z) = z + epsilon sign(z) and sign(0) = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array, lax
from numpy.testing import assert_allclose
from zoo import ZOO

import lrp_jax as lrp

FEATURES, UNITS, CLASSES, STEPS, BATCH = 3, 5, 4, 6, 2


@pytest.fixture(scope="module", autouse=True)
def _compile_quickly() -> Iterator[None]:
    """Tiny arrays: compiling is nearly all of the time, and optimising gains nothing."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def stable(z: Any, epsilon: float) -> Any:
    return z + np.where(z < 0, -epsilon, epsilon)


def sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def arras_lstm(params: Any, x: np.ndarray, target: int, epsilon: float) -> np.ndarray:
    """Relevance of one sequence x (step, feature) for a logit read off the last hidden state."""
    kernel, bias, head, head_bias = (
        np.asarray(params[k]) for k in ("kernel", "bias", "head", "head_bias")
    )
    c, h, steps = np.zeros(UNITS), np.zeros(UNITS), []
    for frame in x:
        joined = np.concatenate([frame, h])
        z_i, z_f, z_g, z_o = np.split(joined @ kernel + bias, 4)
        kept, written = sigmoid(z_f) * c, sigmoid(z_i) * np.tanh(z_g)
        c = kept + written
        h = sigmoid(z_o) * np.tanh(c)
        steps.append((joined, z_g, kept, written, c))

    logit = h @ head[:, target] + head_bias[target]
    r_h = h * head[:, target] * logit / stable(logit, epsilon)
    r_c, relevance = np.zeros(UNITS), np.zeros_like(x)
    to_g = kernel[:, 2 * UNITS : 3 * UNITS]
    for t in reversed(range(len(x))):
        joined, z_g, kept, written, c = steps[t]
        r_c = r_c + r_h
        r_g = written * r_c / stable(c, epsilon)
        r_c = kept * r_c / stable(c, epsilon)
        r_joined = joined * (to_g @ (r_g / stable(z_g, epsilon)))
        relevance[t], r_h = r_joined[:FEATURES], r_joined[FEATURES:]
    return relevance


def lstm_step(params: Any, state: tuple[Array, Array], x: Array) -> tuple[Array, Array]:
    c, h = state
    z = jnp.concatenate([x, h], axis=-1) @ params["kernel"] + params["bias"]
    i, f, g, o = jnp.split(z, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return c, jax.nn.sigmoid(o) * jnp.tanh(c)


def start(x: Array) -> tuple[Array, Array]:
    return (jnp.zeros((x.shape[0], UNITS), x.dtype),) * 2


def head(params: Any, h: Array) -> Array:
    return h @ params["head"] + params["head_bias"]


def lstm_scan(params: Any, x: Array) -> Array:
    state, _ = lax.scan(
        lambda s, frame: (lstm_step(params, s, frame), None), start(x), x.swapaxes(0, 1)
    )
    return head(params, state[1])


def lstm_scan_checkpointed(params: Any, x: Array) -> Array:
    step = jax.checkpoint(lambda s, frame: (lstm_step(params, s, frame), None))
    return head(params, lax.scan(step, start(x), x.swapaxes(0, 1))[0][1])


def lstm_scan_unrolled(params: Any, x: Array) -> Array:
    step = lambda s, frame: (lstm_step(params, s, frame), None)  # noqa: E731
    return head(params, lax.scan(step, start(x), x.swapaxes(0, 1), unroll=3)[0][1])


def lstm_loop(params: Any, x: Array) -> Array:
    state = start(x)
    for t in range(x.shape[1]):
        state = lstm_step(params, state, x[:, t])
    return head(params, state[1])


def lstm_fori(params: Any, x: Array) -> Array:
    state = lax.fori_loop(0, x.shape[1], lambda t, s: lstm_step(params, s, x[:, t]), start(x))
    return head(params, state[1])


FORMS = [lstm_scan, lstm_scan_checkpointed, lstm_scan_unrolled, lstm_loop, lstm_fori]


@pytest.fixture(scope="module")
def params() -> Any:
    rng = np.random.default_rng(3)
    shapes = {
        "kernel": (FEATURES + UNITS, 4 * UNITS),
        "bias": (4 * UNITS,),
        "head": (UNITS, CLASSES),
        "head_bias": (CLASSES,),
    }
    return {name: jnp.asarray(0.7 * rng.standard_normal(shape)) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def x() -> Array:
    return jnp.asarray(np.random.default_rng(4).standard_normal((BATCH, STEPS, FEATURES)))


def gated(epsilon: float) -> lrp.Composite:
    """All to the signal, as Arras et al., and epsilon everywhere else."""
    return lrp.Composite(
        [
            (lrp.Bilinear, lrp.Gate()),
            (lrp.Dense, lrp.Epsilon(epsilon)),
            (lrp.Merge, lrp.Norm(stabilizer=epsilon)),
        ]
    )


def close(actual: Any, expected: Any, tolerance: float = 1e-10) -> None:
    assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


# LSTM ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [1e-6, 1e-3, 0.1])
def test_lstm_follows_arras(params: Any, x: Array, epsilon: float) -> None:
    expected = np.stack([arras_lstm(params, row, 1, epsilon) for row in np.asarray(x)])
    close(lrp.relevance(lstm_scan, gated(epsilon))(params, x, target=1), expected)


@pytest.mark.parametrize("form", FORMS[1:], ids=lambda f: f.__name__)
def test_forms_of_a_loop_agree(form: Callable[..., Array], params: Any, x: Array) -> None:
    expected = lrp.relevance(lstm_scan, gated(1e-3))(params, x, target=1)
    close(lrp.relevance(form, gated(1e-3))(params, x, target=1), expected)


def test_lstm_without_biases_conserves(params: Any, x: Array) -> None:
    params = params | {name: jnp.zeros_like(params[name]) for name in ("bias", "head_bias")}
    logits, relevance = lrp.value_and_relevance(lstm_scan, gated(1e-14))(params, x, target=2)
    assert_allclose(relevance.sum((1, 2)), logits[:, 2], rtol=1e-9)


def test_what_only_opens_gates_gets_nothing(params: Any, x: Array) -> None:
    """A feature that the signal does not read has relevance zero, though the output needs it."""
    kernel = params["kernel"].at[0, 2 * UNITS : 3 * UNITS].set(0.0)
    changed = params | {"kernel": kernel}
    relevance = lrp.relevance(lstm_scan, gated(1e-6))(changed, x, target=1)
    assert (relevance[..., 0] == 0).all()
    assert (jnp.abs(relevance[..., 1:]).sum((1, 2)) > 1e-3).all()
    gradient = jax.grad(lambda x: lstm_scan(changed, x)[:, 1].sum())(x)
    assert (jnp.abs(gradient[..., 0]) > 1e-6).any()


def test_half_to_the_gates_is_another_answer(params: Any, x: Array) -> None:
    half = gated(1e-6).override((lrp.Bilinear, lrp.Uniform()))
    relevance = lrp.relevance(lstm_scan, half)(params, x, target=1)
    reference = lrp.relevance(lstm_scan, gated(1e-6))(params, x, target=1)
    assert jnp.isfinite(relevance).all()
    assert jnp.abs(relevance - reference).max() > 1e-2 * jnp.abs(reference).max()


class LinenLstm(nn.Module):
    cell: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        cell = self.cell(UNITS, param_dtype=x.dtype, name="cell")
        return nn.Dense(CLASSES, name="head")(nn.RNN(cell)(x)[:, -1])


def linen_variables(params: Any) -> Any:
    """The parameters of the hand-written cell in the tree of Linen's cells."""
    read, recur = params["kernel"][:FEATURES], params["kernel"][FEATURES:]
    cell = {}
    for name, columns in zip("ifgo", jnp.split(jnp.arange(4 * UNITS), 4), strict=True):
        cell[f"i{name}"] = {"kernel": read[:, columns]}
        cell[f"h{name}"] = {"kernel": recur[:, columns], "bias": params["bias"][columns]}
    return {
        "params": {"cell": cell, "head": {"kernel": params["head"], "bias": params["head_bias"]}}
    }


@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.OptimizedLSTMCell])
def test_linen_lstm_follows_arras(cell: Any, params: Any, x: Array) -> None:
    """Linen adds what two layers make of x and h: its stabilisers sit elsewhere, so none here."""
    composite = gated(1e-6).override((lrp.Dense | lrp.Merge | lrp.Bias, lrp.Zero()))
    variables = linen_variables(params)
    assert_allclose(LinenLstm(cell).apply(variables, x), lstm_scan(params, x), rtol=1e-12)
    expected = np.stack([arras_lstm(params, row, 1, 0.0) for row in np.asarray(x)])
    close(lrp.relevance(LinenLstm(cell).apply, composite)(variables, x, target=1), expected, 1e-8)


# GRU ----------------------------------------------------------------------------------------------


class LinenGru(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        cell = nn.GRUCell(UNITS, param_dtype=x.dtype, name="cell")
        return nn.Dense(CLASSES, use_bias=False, name="head")(nn.RNN(cell)(x)[:, -1])


def arras_gru(variables: Any, x: np.ndarray, target: int) -> np.ndarray:
    """The same principle for n = tanh(a + r m), h' = (1 - z) n + z h: z gets nothing, and r where m
    carries relevance.

    Here a = x W_n + b_n and m = h U_n + u_n; their sum shares by contribution. No stabilisers.
    """
    cell = jax.tree.map(np.asarray, variables["params"]["cell"])
    out = np.asarray(variables["params"]["head"]["kernel"])[:, target]
    h, steps = np.zeros(UNITS), []
    for frame in x:
        r = sigmoid(frame @ cell["ir"]["kernel"] + cell["ir"]["bias"] + h @ cell["hr"]["kernel"])
        z = sigmoid(frame @ cell["iz"]["kernel"] + cell["iz"]["bias"] + h @ cell["hz"]["kernel"])
        m = h @ cell["hn"]["kernel"] + cell["hn"]["bias"]
        total = frame @ cell["in"]["kernel"] + cell["in"]["bias"] + r * m
        new = (1 - z) * np.tanh(total) + z * h
        steps.append((frame, h, r, z, m, total, new))
        h = new
    relevance, r_h = np.zeros_like(x), h * out
    for t in reversed(range(len(x))):
        frame, h, r, z, m, total, new = steps[t]
        share = r_h / new
        multiplier = (1 - z) * np.tanh(total) * share / total
        relevance[t] = frame * (cell["in"]["kernel"] @ multiplier)
        if t == 0:  # m is a constant, as h is: what r m brings is r's, which reads the frame alone
            z_r = frame @ cell["ir"]["kernel"] + cell["ir"]["bias"]
            relevance[t] += frame * (cell["ir"]["kernel"] @ (r * m * multiplier / z_r))
        r_h = z * h * share + h * (cell["hn"]["kernel"] @ (r * multiplier))
    return relevance


def test_gru_gives_all_to_the_signal(x: Array) -> None:
    rng = np.random.default_rng(5)
    shapes = jax.eval_shape(LinenGru().init, jax.random.key(0), x)
    variables = jax.tree.map(lambda s: jnp.asarray(0.7 * rng.standard_normal(s.shape)), shapes)
    composite = gated(1e-6).override((lrp.Dense | lrp.Merge | lrp.Bias, lrp.Zero()))
    expected = np.stack([arras_gru(variables, row, 1) for row in np.asarray(x)])
    close(lrp.relevance(LinenGru().apply, composite)(variables, x, target=1), expected, 1e-8)


# Simple nets --------------------------------------------------------------------------------------


def test_simple_rnn_is_gradient_times_input_through_tanh_by_its_secant(x: Array) -> None:
    """Without gates there is no choice: LRP-0 and tanh(z) / z is all there is to it."""
    apply, params, _ = ZOO["scan_by_hand"].build()

    def secant(z: Array) -> Array:
        return z * lax.stop_gradient(jnp.tanh(z) / z)

    def edited(x: Array) -> Array:
        state, total = jnp.zeros((BATCH, UNITS)), jnp.zeros((BATCH, CLASSES))
        for t in reversed(range(STEPS)):
            state = secant(state @ params["inner"] + x[:, t] @ params["input"] + params["bias"])
            total = total + state @ params["head"] / STEPS
        return total + state @ params["head"]

    expected = x * jax.grad(lambda x: edited(x)[:, 3].sum())(x)
    close(lrp.relevance(apply, lrp.AttnLRP())(params, x, target=3), expected)


@pytest.mark.parametrize("name", ["lstm_linen", "gru_linen", "simple_rnn", "bidirectional"])
def test_saturated_gates_are_finite(name: str) -> None:
    apply, params, x = ZOO[name].build(jnp.float32)
    for composite in (gated(1e-6), lrp.AttnLRP(), lrp.EpsilonPlus()):
        for inputs in (1e4 * x, 0 * x):
            assert jnp.isfinite(lrp.relevance(apply, composite)(params, inputs)).all()


# Control flow -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_condition_is_the_branch_it_takes(sign: float) -> None:
    apply, params, x = ZOO["conditional"].build()
    params = params | {"0_b": params["0_b"].at[0].set(sign)}

    def taken(p: Any, x: Array) -> Array:
        return jax.nn.relu(sign * (x @ p["0_w"] + p["0_b"])) @ p["1_w"] + p["1_b"]

    for composite in (lrp.Epsilon(0.1), lrp.ZPlus(), lrp.Gamma(0.3)):
        expected = lrp.relevance(taken, composite)(params, x)
        close(lrp.relevance(apply, composite)(params, x), expected)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_switch_is_the_branch_it_takes(index: int) -> None:
    apply, params, x = ZOO["switch"].build()
    params = params | {"0_b": params["0_b"].at[:3].set(jnp.arange(3) == index)}

    def taken(p: Any, x: Array) -> Array:
        hidden = (
            lambda x: jax.nn.relu(x @ p["0_w"] + p["0_b"]),
            lambda x: jax.nn.relu(x) @ p["0_w"] + p["0_b"],
            lambda x: x @ p["0_w"],
        )[index](x)
        return hidden @ p["1_w"] + p["1_b"]

    for composite in (lrp.Epsilon(0.1), lrp.ZPlus()):
        expected = lrp.relevance(taken, composite)(params, x)
        close(lrp.relevance(apply, composite)(params, x), expected)


@pytest.mark.parametrize("composite", [lrp.Epsilon(0.1), lrp.ZPlus(), lrp.WSquare(), lrp.AttnLRP()])
def test_a_scan_over_layers_is_the_loop(composite: Any) -> None:
    apply, params, x = ZOO["scan_checkpointed"].build()

    def loop(p: Any, x: Array) -> Array:
        for kernel in (p["0_w"], p["0_w"].T):
            x = x + jax.nn.relu(x @ kernel + p["0_b"])
        return x @ p["1_w"] + p["1_b"]

    expected = lrp.relevance(loop, composite)(params, x)
    close(lrp.relevance(apply, composite)(params, x), expected)


def test_a_while_loop_on_the_way_is_refused() -> None:
    def apply(p: Array, x: Array) -> Array:
        return lax.while_loop(lambda x: jnp.abs(x).sum() > 1, lambda x: x @ p * 0.5, x)

    with pytest.raises(Exception, match=r"while.*scan|scan.*while") as error:
        lrp.relevance(apply, lrp.Epsilon())(jnp.eye(3), jnp.ones((2, 3)))
    assert "test_recurrent.py" in str(error.value)


def test_a_while_loop_beside_the_way_is_welcome() -> None:
    def apply(p: Array, x: Array) -> Array:
        steps = lax.while_loop(lambda n: n < 3, lambda n: n + 1, 0)
        return x @ (p * steps)

    x = jnp.arange(6.0).reshape(2, 3)
    close(
        lrp.relevance(apply, lrp.Zero())(jnp.eye(3), x, target=1),
        jnp.zeros((2, 3)).at[:, 1].set(3 * x[:, 1]),
    )


@pytest.mark.parametrize("turns", [4, 100])
def test_a_state_that_moves_towards_another_runs_as_a_loop(turns: int) -> None:
    """As the gated mean that it is: no layer lies on the border of a turn."""

    def cell(gated: bool) -> Any:
        def turn(h: Any, row: Any, w: Any) -> Any:
            z, n = jax.nn.sigmoid(row @ w[0] + h @ w[1]), jnp.tanh(row @ w[2])
            return ((1 - z) * n + z * h if gated else n + z * (h - n)), None

        def f(w: Any, x: Any) -> Any:
            return jax.lax.scan(lambda h, row: turn(h, row, w), jnp.zeros(3), x)[0]

        return f

    w, x = jax.random.normal(jax.random.key(0), (3, 3, 3)), jnp.ones((turns, 3))
    one, other = (lrp.plan(cell(gated), lrp.AttnLRP())(w, x) for gated in (True, False))
    assert [layer.kind for layer in one.layers] == [layer.kind for layer in other.layers]
    assert not other.warnings


def test_a_loop_that_keeps_the_last_is_it() -> None:
    def last(w: Any, x: Any) -> Any:
        return jax.lax.scan(lambda kept, row: (row, None), x[0], x)[0] @ w

    w, x = jnp.ones((3, 2)), jax.random.normal(jax.random.key(0), (4, 3))
    relevance = lrp.relevance(last, lrp.Epsilon())(w, x, target=0)
    np.testing.assert_allclose(
        relevance, lrp.relevance(lambda w, x: x[-1] @ w, lrp.Epsilon())(w, x, target=0), rtol=1e-6
    )
