"""The operations of random networks: `(state, x, a, b, c) -> y`, valid for every x and number.

x has the batch in front and one to three more axes. A number means itself modulo the choices there
are, so that every program is a network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax


class Weights:
    """Parameters by name: made while the network is traced for the first time, then read."""

    def __init__(self, given: dict[str, Any] | None, seed: int, dtype: Any) -> None:
        self.given, self.seed, self.dtype = given, seed, dtype
        self.made: dict[str, np.ndarray] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}

    def __call__(self, what: str, *shape: int, fan_in: int = 1, reuse: bool = False) -> Any:
        name = f"{len(self.shapes)}_{what}"
        if reuse:
            same = [n for n, s in self.shapes.items() if s == shape and n.endswith(f"_{what}")]
            name = same[-1] if same else name
        self.shapes[name] = shape
        if self.given is not None:
            return self.given[name]
        if name not in self.made:
            self.made[name] = self.constant(name, shape) / np.sqrt(fan_in)
        return jnp.asarray(self.made[name], self.dtype)

    def constant(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        number = int(name.split("_")[0])
        return np.random.default_rng((self.seed, number)).standard_normal(shape)


@dataclass
class State:
    """Values so far, and what has been done to them."""

    values: list[Array]
    weights: Weights

    def pick(self, number: int) -> Array:
        return self.values[-1 - number % len(self.values)]

    def alike(self, x: Array, number: int) -> Array:
        """Another value of the shape of x, or x in another order."""
        same = [v for v in self.values if v.shape == x.shape and v is not x]
        return same[number % len(same)] if same else jnp.flip(x, -1)


Operation = Callable[[State, Array, int, int, int], Array]
OPS: dict[str, Operation] = {}


def op(function: Operation) -> Operation:
    OPS[function.__name__.rstrip("_")] = function
    return function


@op
def dense(s: State, x: Array, a: int, b: int, c: int) -> Array:
    n, m = x.shape[-1], (4, 6)[a % 2]
    w = s.weights("kernel", n, m, fan_in=n, reuse=b % 4 == 1)
    forms: list[Callable[[], Array]] = [
        lambda: x @ w,
        lambda: jnp.einsum("...i,ij->...j", x, w),
        lambda: jnp.moveaxis(jnp.tensordot(w, x, ((0,), (x.ndim - 1,))), 0, -1),
        lambda: jnp.einsum("...i,ihd->...hd", x, w.reshape(n, 2, m // 2)).reshape(*x.shape[:-1], m),
        lambda: (x[..., None, :] * w.T).sum(-1),
        lambda: x @ (w / jnp.linalg.norm(w, axis=0)),
        lambda: x @ jnp.concatenate([w[:, :2], s.weights("more", n, m - 2, fan_in=n)], 1),
        lambda: (x @ w) * 0.5,
    ]
    y = forms[b % len(forms)]()
    return y if c % 3 == 0 else y + 0.3 * s.weights("bias", m) if c % 3 == 1 else y - 0.25


@op
def conv(s: State, x: Array, a: int, b: int, c: int) -> Array:
    if x.ndim == 2:
        x = x[:, :, None]
    space = x.ndim - 2
    n, m = x.shape[-1], (4, 6)[a % 2]
    groups = 2 if n % 2 == 0 and c % 3 == 2 else 1
    size = min(1 + b % 3, *x.shape[1:-1])
    w = s.weights(f"kernel{size}", *(size,) * space, n // groups, m, fan_in=size**space * n)
    letters = "HW"[:space]
    many = min(x.shape[1:-1]) > 2
    upsampled = c % 5 == 4 and max(x.shape[1:-1]) < 6
    wide = [(int(size > 1), 0)] * space  # every output sees some input
    y = lax.conv_general_dilated(
        x,
        w,
        window_strides=(1 + (a // 2 % 2 if many else 0),) * space,
        padding=wide if upsampled else ("SAME", "VALID", wide)[b // 3 % 3],
        rhs_dilation=(2 if size == 2 and c % 4 == 1 and many else 1,) * space,
        lhs_dilation=(1 + upsampled,) * space,
        dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
        feature_group_count=groups,
    )
    return y + 0.3 * s.weights("bias", m) if c % 2 else y


@op
def norm(s: State, x: Array, a: int, b: int, c: int) -> Array:
    n = x.shape[-1]
    scale, bias = 1 + 0.3 * s.weights("scale", n), 0.3 * s.weights("bias", n)
    if a % 5 == 0:
        x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
    elif a % 5 == 1:
        x = x * lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6)
    elif a % 5 == 2:
        variance = jnp.square(s.weights("var", n)) + 0.5
        x = (x - s.weights("mean", n)) / jnp.sqrt(variance + 1e-5)
    elif a % 5 == 3:
        x = x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-3)
    else:
        axes = tuple(range(1, x.ndim))
        x = jax.nn.standardize(x, axis=axes, epsilon=1e-4)
    return (x * scale + bias, x * scale, x + bias, x)[b % 4]


ACTIVATIONS: tuple[Callable[[Array], Array], ...] = (
    jax.nn.relu,
    jax.nn.gelu,
    jax.nn.silu,
    jnp.tanh,
    jax.nn.sigmoid,
    jax.nn.elu,
    jax.nn.softplus,
    lambda x: jax.nn.gelu(x, approximate=False),
    lambda x: jnp.where(x > 0, x, 0.1 * x),
    lambda x: jnp.maximum(x, 0),
    lambda x: (x + jnp.abs(x)) / 2,
    lambda x: x * jax.nn.sigmoid(1.7 * x),
    lambda x: x * jnp.clip(x + 3, 0, 6) / 6,
    lambda x: jnp.clip(x, -1.0, 2.0),
    lambda x: x**2,
    lambda x: x**3 / (1 + x**2),
    lambda x: jnp.exp(-x * x),
    lambda x: jnp.sqrt(jnp.abs(x) + 0.1),
    lambda x: jnp.log1p(jnp.abs(x)),
    lambda x: jnp.sin(x) + x,
    lambda x: jnp.sign(x) * jnp.square(x),
    lambda x: x * jnp.tanh(jax.nn.softplus(x)),
    lambda x: jnp.abs(x),
    jax.nn.relu6,
)


@op
def activation(s: State, x: Array, a: int, b: int, c: int) -> Array:
    return ACTIVATIONS[a % len(ACTIVATIONS)](x)


@op
def relu(s: State, x: Array, a: int, b: int, c: int) -> Array:
    """Piecewise linear without a shift."""
    return (ACTIVATIONS[0], ACTIVATIONS[8], ACTIVATIONS[9], ACTIVATIONS[10])[a % 4](x)


@op
def add(s: State, x: Array, a: int, b: int, c: int) -> Array:
    other = s.alike(x, a)
    if b % 3 == 1:
        other = other.mean(-1, keepdims=True)
    elif b % 3 == 2 and x.ndim > 2:
        other = other[:, :1]
    return (x + other, x - other, 0.5 * x + other, x + other + x)[c % 4]


@op
def concat(s: State, x: Array, a: int, b: int, c: int) -> Array:
    axis = -1 if a % 2 or x.ndim == 2 else 1
    y = jnp.concatenate([x, s.alike(x, b)], axis)
    return y[..., 1:] if c % 2 and axis == -1 else y


@op
def halves(s: State, x: Array, a: int, b: int, c: int) -> Array:
    if x.shape[-1] % 2:
        x = x[..., :-1] if x.shape[-1] > 1 else jnp.concatenate([x, x], -1)
    left, right = jnp.split(x, 2, -1)
    return (left + right, left * jax.nn.sigmoid(right), jnp.maximum(left, right), right)[a % 4]


@op
def product(s: State, x: Array, a: int, b: int, c: int) -> Array:
    other = s.alike(x, b)
    gates = [lambda v: v, jax.nn.sigmoid, jax.nn.silu, jnp.tanh, lambda v: jax.nn.softmax(v, -1)]
    gate = gates[a % 5](other)
    if c % 4 == 1:
        gate = gate.mean(-1, keepdims=True)
    if c % 4 == 2:
        return gate * x + (1 - gate) * other
    return x / (1 + jnp.abs(other)) if c % 4 == 3 else x * gate


@op
def pool(s: State, x: Array, a: int, b: int, c: int) -> Array:
    if x.ndim == 2:
        return x.reshape(x.shape[0], -1, 1).mean(-1)
    axes = tuple(range(1, x.ndim - 1))
    if a % 4 == 0:
        return x.mean(axes)
    if a % 4 == 1:
        return x.max(axes)
    size = min(2 + b % 2, *x.shape[1:-1])
    window = (1, *(size,) * len(axes), 1)
    strides = (1, *(1 + c % 2,) * len(axes), 1)
    padding = ("VALID", "SAME")[b // 2 % 2]
    if a % 4 == 2:
        low = np.asarray(-np.inf, x.dtype)
        return lax.reduce_window(x, low, lax.max, window, strides, padding)
    total = lax.reduce_window(x, np.zeros((), x.dtype), lax.add, window, strides, padding)
    return total / size ** len(axes)


@op
def reduce(s: State, x: Array, a: int, b: int, c: int) -> Array:
    axis = 1 + b % (x.ndim - 1) if x.ndim > 2 else 1
    reductions: list[Callable[..., Array]] = [
        jnp.mean, jnp.sum, jnp.max, jnp.min, jax.nn.logsumexp, jnp.var,
    ]  # fmt: skip
    y = reductions[a % len(reductions)](x, axis=axis, keepdims=x.ndim == 2)
    return y if y.ndim > 1 else y[:, None]


@op
def attention(s: State, x: Array, a: int, b: int, c: int) -> Array:
    x = as_sequence(x)
    t, n = x.shape[1:]
    q, k, v = (x @ s.weights("kernel", n, 4, fan_in=n, reuse=c % 3 == 2) for _ in range(3))
    heads = (lambda z: z.reshape(z.shape[0], t, 2, 2)) if a % 2 else (lambda z: z[:, :, None])
    scores = jnp.einsum("bihd,bjhd->bhij", heads(q), heads(k)) / 2.0
    mask = jnp.tril(jnp.ones((t, t), bool))
    if b % 6 == 1:
        scores = jnp.where(mask, scores, -jnp.inf)
    elif b % 6 == 2:
        scores = scores + jnp.where(mask, 0.0, -1e9).astype(x.dtype)
    elif b % 6 == 3:
        scores = jnp.where(mask, scores, jnp.finfo(x.dtype).min)
    elif b % 6 == 4:
        scores = scores + jnp.where(mask, 0.0, -jnp.inf).astype(x.dtype)
    elif b % 6 == 5:
        scores = scores + s.weights("relative", t, t)
    weights = jax.nn.softmax(scores, -1)
    if c % 2:
        weights = jnp.exp(jax.nn.log_softmax(scores, -1))
    y = jnp.einsum("bhij,bjhd->bihd", weights, heads(v)).reshape(x.shape[0], t, 4)
    return y @ s.weights("kernel", 4, n, fan_in=4) + (x if a // 2 % 2 else 0)


@op
def move(s: State, x: Array, a: int, b: int, c: int) -> Array:
    """Numbers that only change their places."""
    n = x.shape[-1]
    index = np.arange(n)[:: 1 + b % 2] if c % 2 else np.random.default_rng(b).permutation(n)
    moves: list[Callable[[], Array]] = [
        lambda: jnp.flip(x, -1),
        lambda: jnp.roll(x, 1, -1),
        lambda: x[..., index],
        lambda: jnp.take(x, jnp.asarray(index), axis=-1),
        lambda: x[:, ::2] if x.ndim > 2 else x[:, ::-1],
        lambda: jnp.swapaxes(x, 1, 2) if x.ndim > 2 else x,
        lambda: lax.dynamic_slice_in_dim(x, 1, max(n - 1, 1), x.ndim - 1) if n > 1 else x,
        lambda: jnp.repeat(x, 2, -1)[..., : n + 1],
        lambda: jnp.tile(x, 2)[..., 1:],
        lambda: jnp.stack([x, jnp.flip(x, -1)], 1)[:, b % 2],
        lambda: jnp.take_along_axis(x, np.broadcast_to(index, (*x.shape[:-1], len(index))), -1),
        lambda: jnp.moveaxis(jnp.moveaxis(x, -1, 0), 0, -1),
    ]  # fmt: skip
    return moves[a % len(moves)]()


@op
def choose(s: State, x: Array, a: int, b: int, c: int) -> Array:
    """What is chosen by the values themselves."""
    n = x.shape[-1]
    if a % 4 == 0:
        return jnp.sort(x, -1)
    if a % 4 == 1:
        return lax.top_k(x, max(1, n - 1))[0]
    if a % 4 == 2:
        return jnp.where(x > s.alike(x, b), x, s.alike(x, b))
    return lax.cummax(x, axis=x.ndim - 1)


@op
def mask(s: State, x: Array, a: int, b: int, c: int) -> Array:
    keep = np.random.default_rng(b).random(x.shape[1:]) > 0.3
    other = s.alike(x, c)
    masks: list[Callable[[], Array]] = [
        lambda: jnp.where(keep, x, 0),
        lambda: x * jnp.asarray(keep, x.dtype),
        lambda: jnp.where(keep, x, other),
        lambda: jnp.where(keep, x, 1.0),
        lambda: jnp.pad(x, ((0, 0), *(((1, 0),) * (x.ndim - 1)))),
        lambda: x.at[..., 0].set(0.5),
        lambda: x.at[..., 0].add(x[..., -1]),
        lambda: lax.dynamic_update_slice_in_dim(x, 2 * x[..., :1], 0, x.ndim - 1),
    ]
    return masks[a % len(masks)]()


@op
def constant(s: State, x: Array, a: int, b: int, c: int) -> Array:
    """Numbers that are no parameters, or that stand beside the values."""
    n = x.shape[-1]
    closed = jnp.asarray(s.weights.constant(f"{b}_", (n,)), x.dtype)
    constants: list[Callable[[], Array]] = [
        lambda: x + closed,
        lambda: x * closed,
        lambda: x + 0.3 * s.weights("position", *x.shape[1:]),
        lambda: x + lax.stop_gradient(jnp.flip(x, -1)),
        lambda: jnp.concatenate([x, jnp.broadcast_to(closed, x.shape)], -1)[..., : n + 1],
        lambda: x @ jnp.outer(closed, jnp.ones(4, x.dtype)),
        lambda: x * s.weights("gain", n),
        lambda: jnp.cumsum(x, -1),
    ]
    return constants[a % len(constants)]()


@op
def scalar(s: State, x: Array, a: int, b: int, c: int) -> Array:
    return (2 * x, x / 3, -x, 1 - x, x + 1, x * 1e-3, x - 0.5, x / s.weights("divisor"))[a % 8]


@op
def shape(s: State, x: Array, a: int, b: int, c: int) -> Array:
    if a % 3 == 0:
        return x.reshape(x.shape[0], -1)
    return as_sequence(x) if a % 3 == 1 or x.ndim > 3 else x[:, None]


@op
def softmax(s: State, x: Array, a: int, b: int, c: int) -> Array:
    functions: list[Callable[..., Array]] = [jax.nn.softmax, jax.nn.log_softmax]
    if a % 3 == 2:
        e = jnp.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)
    return functions[a % 3](x, axis=-1)


@op
def bilinear(s: State, x: Array, a: int, b: int, c: int) -> Array:
    x = as_sequence(x)
    if a % 2:
        return jnp.einsum("bif,bjf->bij", x, x) @ x / x.shape[1]
    return jnp.einsum("bif,bjf->bij", x, jnp.tanh(x))


@op
def recurrent(s: State, x: Array, a: int, b: int, c: int) -> Array:
    x = as_sequence(x)
    n = x.shape[-1]
    w, u = s.weights("kernel", n, 4, fan_in=n), s.weights("kernel", 4, 4, fan_in=8)
    bias = 0.3 * s.weights("bias", 4)

    def tick(h: Array, t: Array) -> tuple[Array, Array]:
        h = (jnp.tanh if b % 2 else jax.nn.relu)(t @ w + h @ u + (bias if c % 2 else 0))
        return h, h

    start = jnp.zeros((x.shape[0], 4), x.dtype)
    last, every = lax.scan(tick, start, jnp.swapaxes(x, 0, 1), reverse=c // 2 % 2 == 1)
    return last if a % 2 else jnp.swapaxes(every, 0, 1)


@op
def spectral(s: State, x: Array, a: int, b: int, c: int) -> Array:
    """From real numbers to real numbers by way of complex ones."""
    n, given = x.shape[-1], x.dtype
    x = x.astype(jnp.promote_types(given, jnp.float32))
    pair = (s.weights("kernel", n, 4, fan_in=2 * n).astype(x.dtype) for _ in range(2))
    kernel = lax.complex(*pair)
    modes = lax.complex(jnp.full(n, 0.8, x.dtype), jnp.linspace(-0.5, 0.5, n, dtype=x.dtype))

    def scanned() -> Array:
        step = lambda h, t: (modes * h + t, (h * modes + t).real)  # noqa: E731
        start = jnp.zeros(x.shape[:1] + x.shape[2:], modes.dtype)
        return jnp.swapaxes(lax.scan(step, start, jnp.swapaxes(x, 0, 1))[1], 0, 1)

    def together(p: Any, q: Any) -> Any:
        return p[0] * q[0], p[1] * q[0] + q[1]

    forms: list[Callable[[], Array]] = [
        lambda: jnp.fft.fft(x).real,
        lambda: jnp.fft.irfft(jnp.fft.rfft(x) * modes[: n // 2 + 1], n),
        lambda: jnp.abs(jnp.fft.rfft(x) + kernel[0, 0]),
        lambda: (x @ kernel).imag,
        lambda: jnp.concatenate([(x * modes).real, (x * modes).imag], -1),
        lambda: scanned() if x.ndim > 2 else jnp.fft.fft(x).imag,
        lambda: lax.associative_scan(
            together, (jnp.broadcast_to(modes, x.shape), x.astype(modes.dtype)), axis=1
        )[1].real if x.ndim > 2 else (x @ kernel).real,
    ]  # fmt: skip
    return forms[a % len(forms)]().astype(given)


@op
def grouped(s: State, x: Array, a: int, b: int, c: int) -> Array:
    """Rows at some positions have other weights than those at others."""
    n = x.shape[-1]
    rows = as_sequence(x)
    many, t = rows.shape[:2]
    kernels = s.weights("kernel", 2, rows.shape[-1], 4, fan_in=n)
    sizes = jnp.asarray([(t // 2) * many, (t - t // 2) * many])
    y = lax.ragged_dot(jnp.swapaxes(rows, 0, 1).reshape(many * t, -1), kernels, sizes)
    y = jnp.swapaxes(y.reshape(t, many, 4), 0, 1)
    return y + 0.3 * s.weights("bias", 4) if c % 2 else y


@op
def cast(s: State, x: Array, a: int, b: int, c: int) -> Array:
    return x.astype((jnp.float32, jnp.bfloat16)[a % 2]).astype(x.dtype)


def as_sequence(x: Array) -> Array:
    if x.ndim > 2:
        return x.reshape(x.shape[0], -1, x.shape[-1])
    return x.reshape(x.shape[0], 2, -1) if x.shape[-1] % 2 == 0 else x[:, None]
