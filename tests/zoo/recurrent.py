"""Recurrent networks and control flow."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from ._model import Parts, model, models_of, normal
from .feedforward import body
from .frameworks import nnx_parts
from .plain import dense, plain

# Linen and NNX ------------------------------------------------------------------------------------


@model("linen", "recurrent", "gradient")
@body(2, 4, 3)
def lstm_linen(x):
    return nn.Dense(3)(nn.RNN(nn.OptimizedLSTMCell(5, param_dtype=x.dtype))(x)[:, -1])


@model("linen", "recurrent")
@body(2, 4, 3)
def lstm_plain_cell(x):
    return nn.Dense(3)(nn.RNN(nn.LSTMCell(5, param_dtype=x.dtype))(x)[:, -1])


@model("linen", "recurrent", "gradient")
@body(2, 4, 3)
def gru_linen(x):
    return nn.Dense(3)(nn.RNN(nn.GRUCell(5, param_dtype=x.dtype))(x)[:, -1])


@model("linen", "recurrent")
@body(2, 4, 3)
def simple_rnn(x):
    return nn.Dense(3)(nn.RNN(nn.SimpleCell(5, param_dtype=x.dtype))(x).mean(1))


@model("linen", "recurrent")
@body(2, 4, 3)
def bidirectional(x):
    forward, backward = (
        nn.RNN(nn.SimpleCell(4, param_dtype=x.dtype)),
        nn.RNN(nn.GRUCell(4, param_dtype=x.dtype)),
    )
    return nn.Dense(3)(nn.Bidirectional(forward, backward)(x)[:, 0])


class LstmNnx(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.rnn = nnx.RNN(nnx.OptimizedLSTMCell(3, 5, rngs=rngs))
        self.head = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        start = (jnp.zeros((x.shape[0], 5), x.dtype),) * 2
        return self.head(self.rnn(x, initial_carry=start)[:, -1])


class GruNnx(nnx.Module):
    """The cell is called step by step, without a scan."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.cell = nnx.GRUCell(3, 5, rngs=rngs)
        self.head = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        state = jnp.zeros((x.shape[0], 5), x.dtype)
        for step in range(x.shape[1]):
            state, _ = self.cell(state, x[:, step])
        return self.head(state)


@model("nnx", "recurrent")
def lstm_nnx(rng):
    return nnx_parts(LstmNnx, rng, 2, 4, 3)


@model("nnx", "recurrent")
def gru_nnx(rng):
    return nnx_parts(GruNnx, rng, 2, 4, 3)


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x: Array, _: Any) -> tuple[Array, None]:
        return nn.relu(nn.Dense(5)(x)) + x, None


@model("linen", "controlflow", "piecewise_linear")
@body(3, 5)
def linen_scan(x):
    """A stack of layers as `nn.scan` over their weights."""
    layers = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
    x, _ = layers()(x, None)
    return nn.Dense(4)(x)


# By hand ------------------------------------------------------------------------------------------


@model("plain", "recurrent", "gradient")
def scan_by_hand(rng):
    """A tanh cell that also writes an output at every step."""
    params = {
        "inner": normal(rng, 5, 5, scale=0.4),
        "input": normal(rng, 3, 5, scale=0.6),
        "bias": normal(rng, 5, scale=0.3),
        "head": normal(rng, 5, 4),
    }

    def apply(p, x):
        def step(state, frame):
            state = jnp.tanh(state @ p["inner"] + frame @ p["input"] + p["bias"])
            return state, state @ p["head"]

        start = jnp.zeros((x.shape[0], 5), x.dtype)
        last, logits = lax.scan(step, start, x.swapaxes(0, 1), reverse=True)
        return logits.mean(0) + last @ p["head"]

    return Parts(apply, params, normal(rng, 2, 4, 3))


@model("plain", "controlflow", "piecewise_linear", "gradient")
@plain(3, 5, widths=(5, 5, 4))
def scan_checkpointed(p, x):
    layers = jnp.stack([p["0_w"], p["0_w"].T])
    step = jax.checkpoint(lambda x, w: (x + jax.nn.relu(x @ w + p["0_b"]), None))
    return dense(p, "1", lax.scan(step, x, layers)[0])


@model("plain", "controlflow", "piecewise_linear")
@plain(3, 5, widths=(5, 5, 4))
def fori_static(p, x):
    x = lax.fori_loop(0, 3, lambda i, x: jax.nn.relu(dense(p, "0", x)) + x, x)
    return dense(p, "1", x)


@model("plain", "controlflow", "piecewise_linear")
@plain(3, 5, widths=(5, 5, 5, 4))
def fori_indexed(p, x):
    """The counter picks the weights of each turn."""
    weights = jnp.stack([p["0_w"], p["1_w"]])
    x = lax.fori_loop(0, 2, lambda i, x: jax.nn.relu(x @ weights[i]) + x, x)
    return dense(p, "2", x)


@model("plain", "controlflow", "piecewise_linear", "gradient")
@plain(3, 5, widths=(5, 6, 4))
def conditional(p, x):
    hidden = lax.cond(
        p["0_b"][0] > 0,
        lambda x: jax.nn.relu(dense(p, "0", x)),
        lambda x: jax.nn.relu(-dense(p, "0", x)),
        x,
    )
    return dense(p, "1", hidden)


@model("plain", "controlflow", "piecewise_linear")
@plain(3, 5, widths=(5, 6, 4))
def switch(p, x):
    branches = [
        lambda x: jax.nn.relu(dense(p, "0", x)),
        lambda x: dense(p, "0", jax.nn.relu(x)),
        lambda x: x @ p["0_w"],
    ]
    return dense(p, "1", lax.switch(jnp.argmax(p["0_b"][:3]), branches, x))


@model("plain", "controlflow", "piecewise_linear", "batched_predicate")
@plain(3, 5, widths=(5, 6, 4))
def conditional_on_input(p, x):
    """Which branch runs depends on the explained value; the choice itself gets no relevance."""

    def single(x):
        return lax.cond(
            x.sum() > 0, lambda x: jax.nn.relu(dense(p, "0", x)), lambda x: x @ p["0_w"], x
        )

    return dense(p, "1", lax.map(single, x))


MODELS = models_of(globals())
