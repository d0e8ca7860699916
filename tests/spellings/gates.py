"""Gates: a value times how much of it passes. Under CP-LRP the value takes all."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

from .group import EXACT, Group, Params, function, signal

sigmoid = jax.nn.sigmoid


def two(p: Params, h: Array) -> tuple[Array, Array]:
    return h @ p["value"], h @ p["gate"]


def on_two(spelled):  # type: ignore[no-untyped-def]
    return {name: (lambda p, h, f=f: f(*two(p, h))) for name, f in spelled.items()}


def gated_by(f):  # type: ignore[no-untyped-def]
    def reference(p: Params, h: Array, gates: bool) -> Array:
        value, gate = two(p, h)
        return signal(function(f, gate), value, gates)

    return reference


GLU = {
    "a sigmoid": lambda a, b: a * sigmoid(b),
    "sigmoid a": lambda a, b: sigmoid(b) * a,
    "divided": lambda a, b: a / (1 + jnp.exp(-b)),
    "tanh": lambda a, b: a * (0.5 * (jnp.tanh(b / 2) + 1)),
    "jax.nn.glu": lambda a, b: jax.nn.glu(jnp.concatenate([a, b], -1)),
    "einsum": lambda a, b: jnp.einsum("btf,btf->btf", a, sigmoid(b)),
    "exp": lambda a, b: a * (jnp.exp(b) / (1 + jnp.exp(b))),
    "gate computed before a scan": lambda a, b: lax.scan(
        lambda c, z: (c, z[0] * z[1]), 0.0, (a, sigmoid(b))
    )[1],
    "gate computed in a scan": lambda a, b: lax.scan(
        lambda c, z: (c, z[0] * sigmoid(z[1])), 0.0, (a, b)
    )[1],
    "gate from a map": lambda a, b: a * lax.map(sigmoid, b),
    "gate from a checkpoint": lambda a, b: a * jax.checkpoint(sigmoid)(b),
    "gate into a checkpoint": lambda a, b: jax.checkpoint(jnp.multiply)(a, sigmoid(b)),
    "gate into a branch": lambda a, b: lax.cond(
        True, lambda a, g: a * g, lambda a, g: a, a, sigmoid(b)
    ),
    "gate from a loop": lambda a, b: a * lax.fori_loop(0, 1, lambda i, z: sigmoid(z), b),
    "the rest of the gate": lambda a, b: a * (1 - sigmoid(-b)),
    "exp of log_sigmoid": lambda a, b: a * jnp.exp(jax.nn.log_sigmoid(b)),
    "product over a stack": lambda a, b: jnp.stack([a, sigmoid(b)]).prod(0),
    "a common factor": lambda a, b: (a + a * jnp.tanh(b / 2)) / 2,
    "interleaved": lambda a, b: (
        jnp.stack([a, sigmoid(b)], -1)[..., 0] * jnp.stack([a, sigmoid(b)], -1)[..., 1]
    ),
}

SWIGLU = {
    "silu": lambda a, b: jax.nn.silu(b) * a,
    "(b a) sigmoid": lambda a, b: (b * a) * sigmoid(b),
    "all but the rest": lambda a, b: b * a - b * a * sigmoid(-b),
    "b (sigmoid a)": lambda a, b: b * (sigmoid(b) * a),
    "divided": lambda a, b: a * (b / (1 + jnp.exp(-b))),
    "swish": lambda a, b: a * jax.nn.swish(b),
    "einsum": lambda a, b: jnp.einsum("btf,btf->btf", jax.nn.silu(b), a),
    "checkpoint": lambda a, b: jax.checkpoint(jax.nn.silu)(b) * a,
    "scan": lambda a, b: lax.scan(lambda c, z: (c, z[0] * z[1]), 0.0, (a, jax.nn.silu(b)))[1],
}

HALVES = {
    "slices": lambda y: jax.nn.silu(y[..., :4]) * y[..., 4:],
    "split": lambda y: (lambda a, b: jax.nn.silu(a) * b)(*jnp.split(y, 2, -1)),
    "written out": lambda y: y[..., :4] * sigmoid(y[..., :4]) * y[..., 4:],
    "dynamic slices": lambda y: (
        lax.dynamic_slice_in_dim(y, 0, 4, -1) * sigmoid(y[..., :4]) * y[..., 4:]
    ),
    "dynamic slice of a slice": lambda y: (
        y[..., 4:] * (y[..., :4] * sigmoid(lax.dynamic_slice(y[:, :, :6], (0, 0, 0), (2, 3, 4))))
    ),
}

GEGLU = {
    "gelu": lambda a, b: a * jax.nn.gelu(b),
    "written out": lambda a, b: (
        a * (0.5 * b * (1 + jnp.tanh(jnp.sqrt(2 / jnp.pi) * (b + 0.044715 * b**3))))
    ),
    "nested otherwise": lambda a, b: (
        0.5 * (a * b) * (1 + jnp.tanh(jnp.sqrt(2 / jnp.pi) * (b + 0.044715 * b**3)))
    ),
    "factor last": lambda a, b: (
        (a * (1 + jnp.tanh(jnp.sqrt(2 / jnp.pi) * (b + 0.044715 * b**3)))) * (b / 2)
    ),
    "sigmoid": lambda a, b: a * b * sigmoid(2 * jnp.sqrt(2 / jnp.pi) * (b + 0.044715 * b * b * b)),
}

REGLU = {
    "relu": lambda a, b: a * jax.nn.relu(b),
    "maximum": lambda a, b: jnp.maximum(b, 0) * a,
    "where": lambda a, b: jnp.where(b > 0, a * b, 0),
    "mask": lambda a, b: a * b * (b > 0),
    "inner where": lambda a, b: a * jnp.where(b > 0, b, 0),
    "absolute": lambda a, b: a * ((b + jnp.abs(b)) / 2),
}

TANH = {
    "tanh": lambda a, b: jnp.tanh(a) * sigmoid(b),
    "sigmoid first": lambda a, b: sigmoid(b) * jnp.tanh(a),
    "divided": lambda a, b: jnp.tanh(a) / (1 + jnp.exp(-b)),
    "sigmoids": lambda a, b: (2 * sigmoid(2 * a) - 1) * sigmoid(b),
    "exponentials": lambda a, b: (1 - jnp.exp(-2 * a)) / (1 + jnp.exp(-2 * a)) * sigmoid(b),
}


def tanh_by_hand(p: Params, h: Array, gates: bool) -> Array:
    a, b = two(p, h)
    return signal(function(sigmoid, b), function(jnp.tanh, a), gates)


# -- channels gated by the whole ------------------------------------------------------------------


def squeezed(p: Params, h: Array) -> Array:
    return sigmoid(jax.nn.relu(h.mean(1) @ p["down"]) @ p["up"])


EXCITATION = {
    "broadcast": lambda p, h: h * squeezed(p, h)[:, None],
    "einsum": lambda p, h: jnp.einsum("btf,bf->btf", h, squeezed(p, h)),
    "gate first": lambda p, h: squeezed(p, h)[:, None, :] * h,
    "keepdims": lambda p, h: (
        h * sigmoid(jax.nn.relu(h.mean(1, keepdims=True) @ p["down"]) @ p["up"])
    ),
    "vmap": lambda p, h: jax.vmap(jnp.multiply, (1, None), 1)(h, squeezed(p, h)),
    "repeated": lambda p, h: h * jnp.repeat(squeezed(p, h)[:, None], h.shape[1], 1),
    "transposed": lambda p, h: jnp.moveaxis(jnp.moveaxis(h, 1, 0) * squeezed(p, h), 0, 1),
}


def excitation_by_hand(p: Params, h: Array, gates: bool) -> Array:
    u = function(jax.nn.relu, h.mean(1) @ p["down"] + 1e-300) @ p["up"]
    return signal(function(sigmoid, u)[:, None] + 0 * h, h, gates)


# -- recurrent cells ------------------------------------------------------------------------------

UNITS = 3


def lstm_step(p: Params, c: Array, h: Array, x: Array) -> tuple[Array, Array]:
    i, f, g, o = jnp.split(x @ p["w"] + h @ p["u"] + p["b"], 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
    return c, sigmoid(o) * jnp.tanh(c)


def start(x: Array) -> tuple[Array, Array]:
    return jnp.zeros((x.shape[0], UNITS)), jnp.zeros((x.shape[0], UNITS))


def lstm_loop(p: Params, x: Array) -> Array:
    c, h = start(x)
    for t in range(x.shape[1]):
        c, h = lstm_step(p, c, h, x[:, t])
    return h


def lstm_scan(p: Params, x: Array) -> Array:
    def turn(carry, row):  # type: ignore[no-untyped-def]
        return lstm_step(p, *carry, row), None

    return lax.scan(turn, start(x), jnp.swapaxes(x, 0, 1))[0][1]


def lstm_inputs_first(p: Params, x: Array) -> Array:
    """The inputs' products for all steps at once."""
    made = jnp.einsum("btf,fg->tbg", x, p["w"])

    def turn(carry, row):  # type: ignore[no-untyped-def]
        c, h = carry
        i, f, g, o = jnp.split(row + h @ p["u"] + p["b"], 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
        return (c, sigmoid(o) * jnp.tanh(c)), None

    return lax.scan(turn, start(x), made)[0][1]


def lstm_one_matrix(p: Params, x: Array) -> Array:
    both = jnp.concatenate([p["w"], p["u"]])
    c, h = start(x)
    for t in range(x.shape[1]):
        z = jnp.concatenate([x[:, t], h], -1) @ both + p["b"]
        i, f, g, o = jnp.split(z, 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
        h = sigmoid(o) * jnp.tanh(c)
    return h


def lstm_fori(p: Params, x: Array) -> Array:
    turn = lambda t, carry: lstm_step(  # noqa: E731
        p, *carry, lax.dynamic_index_in_dim(x, t, 1, keepdims=False)
    )
    return lax.fori_loop(0, x.shape[1], turn, start(x))[1]


def lstm_four(p: Params, x: Array) -> Array:
    parts = [jnp.split(p[n], 4, -1) for n in ("w", "u", "b")]
    c, h = start(x)
    for t in range(x.shape[1]):
        i, f, g, o = (x[:, t] @ w + h @ u + b for w, u, b in zip(*parts, strict=True))
        c = c * sigmoid(f) + jnp.tanh(g) * sigmoid(i)
        h = jnp.tanh(c) * sigmoid(o)
    return h


def lstm_checkpoint(p: Params, x: Array) -> Array:
    c, h = start(x)
    for t in range(x.shape[1]):
        c, h = jax.checkpoint(lstm_step)(p, c, h, x[:, t])
    return h


LSTM = {
    "loop": lstm_loop,
    "scan": lstm_scan,
    "inputs first": lstm_inputs_first,
    "one matrix": lstm_one_matrix,
    "fori_loop": lstm_fori,
    "four matrices": lstm_four,
    "checkpoint": lstm_checkpoint,
    "vmap": lambda p, x: jax.vmap(lambda z: lstm_scan(p, z[None])[0])(x),
}


def lstm_by_hand(p: Params, x: Array, gates: bool) -> Array:
    c, h = start(x)
    for t in range(x.shape[1]):
        i, f, g, o = jnp.split(x[:, t] @ p["w"] + h @ p["u"] + p["b"], 4, -1)
        kept = signal(function(sigmoid, f), c, gates)
        c = kept + signal(function(sigmoid, i), function(jnp.tanh, g), gates)
        h = signal(function(sigmoid, o), function(jnp.tanh, c), gates)
    return h


def gru_step(p: Params, h: Array, x: Array) -> Array:
    r, z = jnp.split(sigmoid(x @ p["w"] + h @ p["u"] + p["b"]), 2, -1)
    n = jnp.tanh(x @ p["wn"] + r * (h @ p["un"]))
    return (1 - z) * n + z * h


def gru_loop(p: Params, x: Array) -> Array:
    h = start(x)[0]
    for t in range(x.shape[1]):
        h = gru_step(p, h, x[:, t])
    return h


def gru_scan(p: Params, x: Array) -> Array:
    turn = lambda h, row: (gru_step(p, h, row), None)  # noqa: E731
    return lax.scan(turn, start(x)[0], jnp.swapaxes(x, 0, 1))[0]


def gru_apart(p: Params, x: Array) -> Array:
    h = start(x)[0]
    for t in range(x.shape[1]):
        r = sigmoid((x[:, t] @ p["w"] + h @ p["u"] + p["b"])[:, :UNITS])
        u = (x[:, t] @ p["w"] + h @ p["u"] + p["b"])[:, UNITS:]
        n = jnp.tanh(x[:, t] @ p["wn"] + (h @ p["un"]) * r)
        h = n * (1 - sigmoid(u)) + h * sigmoid(u)
    return h


def gru_negated(p: Params, x: Array) -> Array:
    """1 - sigmoid(u) is sigmoid(-u)."""
    h = start(x)[0]
    for t in range(x.shape[1]):
        r, u = jnp.split(x[:, t] @ p["w"] + h @ p["u"] + p["b"], 2, -1)
        n = jnp.tanh(x[:, t] @ p["wn"] + sigmoid(r) * (h @ p["un"]))
        h = sigmoid(-u) * n + sigmoid(u) * h
    return h


GRU = {
    "loop": gru_loop,
    "scan": gru_scan,
    "gates apart": gru_apart,
    "sigmoid of -u": gru_negated,
    "unrolled scan": lambda p, x: lax.scan(
        lambda h, row: (gru_step(p, h, row), None), start(x)[0], jnp.swapaxes(x, 0, 1), unroll=2
    )[0],
    "fori_loop": lambda p, x: lax.fori_loop(
        0, x.shape[1], lambda t, h: gru_step(p, h, x[:, t]), start(x)[0]
    ),
    "checkpointed scan": lambda p, x: lax.scan(
        jax.checkpoint(lambda h, row: (gru_step(p, h, row), None)),
        start(x)[0],
        jnp.swapaxes(x, 0, 1),
    )[0],
}


def decays(p: Params, x: Array) -> tuple[Array, Array]:
    return sigmoid(x @ p["decay"]), x @ p["input"]


def linear_loop(p: Params, x: Array) -> Array:
    a, b = decays(p, x)
    h = jnp.zeros_like(b[:, 0])
    for t in range(x.shape[1]):
        h = a[:, t] * h + b[:, t]
    return h


def linear_scan(p: Params, x: Array) -> Array:
    a, b = (jnp.swapaxes(z, 0, 1) for z in decays(p, x))
    turn = lambda h, z: (z[0] * h + z[1], None)  # noqa: E731
    return lax.scan(turn, jnp.zeros_like(b[0]), (a, b))[0]


def linear_scan_inside(p: Params, x: Array) -> Array:
    def turn(h: Array, row: Array) -> tuple[Array, None]:
        return sigmoid(row @ p["decay"]) * h + row @ p["input"], None

    return lax.scan(turn, jnp.zeros((x.shape[0], UNITS)), jnp.swapaxes(x, 0, 1))[0]


def linear_by_hand(p: Params, x: Array, gates: bool) -> Array:
    h = jnp.zeros((x.shape[0], UNITS))
    for t in range(x.shape[1]):
        h = signal(function(sigmoid, x[:, t] @ p["decay"]), h, gates) + x[:, t] @ p["input"]
    return h


RECURRENCE = {
    "loop": linear_loop,
    "scan": linear_scan,
    "scan, gates inside": linear_scan_inside,
    "fori_loop": lambda p, x: lax.fori_loop(
        0,
        x.shape[1],
        lambda t, h: decays(p, x)[0][:, t] * h + decays(p, x)[1][:, t],
        jnp.zeros((x.shape[0], UNITS)),
    ),
    "carried backwards": lambda p, x: linear_scan(p, jnp.flip(jnp.flip(x, 1), 1)),
    "vmap": lambda p, x: jax.vmap(lambda z: linear_scan(p, z[None])[0])(x),
}


# -- mixtures -------------------------------------------------------------------------------------


def experts(p: Params, h: Array) -> tuple[Array, Array]:
    return jax.nn.softmax(h @ p["router"], -1), jnp.einsum("btf,efg->bteg", h, p["experts"])


def experts_by_hand(p: Params, h: Array, gates: bool) -> Array:
    a, y = experts(p, h)
    return signal(jnp.broadcast_to(a[..., None], y.shape), y, gates).sum(-2)


MIXTURE = {
    "einsum": lambda p, h: jnp.einsum("bte,bteg->btg", *experts(p, h)),
    "summed": lambda p, h: (experts(p, h)[0][..., None] * experts(p, h)[1]).sum(-2),
    "one by one": lambda p, h: sum(
        experts(p, h)[0][..., i : i + 1] * (h @ p["experts"][i]) for i in range(2)
    ),
    "dense of weighted inputs": lambda p, h: jnp.einsum(
        "bte,btf,efg->btg", experts(p, h)[0], h, p["experts"]
    ),
    "matmul": lambda p, h: (experts(p, h)[0][..., None, :] @ experts(p, h)[1])[..., 0, :],
    "scan": lambda p, h: lax.scan(
        lambda y, z: (y + z[0][..., None] * (h @ z[1]), None),
        jnp.zeros((*h.shape[:2], 4)),
        (jnp.moveaxis(experts(p, h)[0], -1, 0), p["experts"]),
    )[0],
    "normalised after": lambda p, h: (
        jnp.einsum("bte,bteg->btg", jnp.exp(h @ p["router"]), experts(p, h)[1])
        / jnp.exp(h @ p["router"]).sum(-1, keepdims=True)
    ),
}

PAIR = {"value": (4, 4), "gate": (4, 4)}
LSTM_PARAMS = {"w": (4, 4 * UNITS), "u": (UNITS, 4 * UNITS), "b": (4 * UNITS,)}
GRU_PARAMS = {
    "w": (4, 2 * UNITS), "u": (UNITS, 2 * UNITS), "b": (2 * UNITS,),
    "wn": (4, UNITS), "un": (UNITS, UNITS),
}  # fmt: skip
GROUPS = (
    Group("a sigmoid gate", on_two(GLU), PAIR, gated_by(sigmoid), EXACT),
    Group("a silu gate", on_two(SWIGLU), PAIR, gated_by(jax.nn.silu), EXACT),
    Group(
        "a silu gate of halves",
        {name: (lambda p, h, f=f: f(h @ p["both"])) for name, f in HALVES.items()},
        {"both": (4, 8)},
        lambda p, h, gates: signal(
            function(jax.nn.silu, h @ p["both"][:, :4]), h @ p["both"][:, 4:], gates
        ),
        EXACT,
    ),
    Group("a gelu gate", on_two(GEGLU), PAIR, gated_by(jax.nn.gelu), EXACT),
    Group("a relu gate", on_two(REGLU), PAIR, None, EXACT),
    Group("a gated tanh", on_two(TANH), PAIR, tanh_by_hand, EXACT),
    Group(
        "squeeze and excitation",
        EXCITATION, {"down": (4, 2), "up": (2, 4)}, excitation_by_hand, EXACT,
    ),
    Group("an LSTM", LSTM, LSTM_PARAMS, lstm_by_hand, EXACT),
    Group("a GRU", GRU, GRU_PARAMS, None, EXACT),
    Group(
        "a gated recurrence",
        RECURRENCE, {"decay": (4, UNITS), "input": (4, UNITS)}, linear_by_hand, EXACT,
    ),
    Group(
        "a mixture of experts",
        MIXTURE, {"router": (4, 2), "experts": (2, 4, 4)}, experts_by_hand, EXACT,
    ),
)  # fmt: skip
