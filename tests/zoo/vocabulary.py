"""Everyday operations beyond stacked layers: norms, gates, routing, comparisons, weighted sums."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from ._model import model, models_of
from .feedforward import body, flat
from .plain import dense, plain

# Normalisation ------------------------------------------------------------------------------------


@model("linen", "normalization", "gradient")
@body(2, 4, 6)
def norms_linen(x):
    x = nn.LayerNorm()(nn.Dense(6)(x))
    x = nn.RMSNorm()(nn.Dense(6)(nn.relu(x)))
    x = nn.LayerNorm(use_fast_variance=False, use_bias=False)(nn.Dense(6)(nn.relu(x)))
    x = nn.LayerNorm(use_scale=False)(nn.Dense(6)(nn.relu(x)))
    return nn.Dense(4)(x.mean(1))


@model("linen", "normalization", "conv", "gradient")
@body(2, 6, 6, 2)
def norms_of_images(x):
    x = nn.relu(nn.GroupNorm(num_groups=2)(nn.Conv(4, (3, 3))(x)))
    x = nn.relu(nn.InstanceNorm()(nn.Conv(4, (3, 3))(x)))
    return nn.Dense(4)(x.mean((1, 2)))


@model("linen", "normalization")
@body(3, 5)
def weight_norm(x):
    return nn.Dense(4)(nn.relu(nn.WeightNorm(nn.Dense(6))(x)))


@model("plain", "normalization")
@plain(3, 5, widths=(5, 6, 6, 6, 4))
def norms_by_hand(p, x):
    x = dense(p, "0", x)
    x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
    x = dense(p, "1", x)
    x = x / jnp.linalg.norm(x, axis=-1, keepdims=True)
    x = dense(p, "2", x)
    x = p["2_b"] * x * lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6)
    return dense(p, "3", x)


@model("plain", "normalization", "bilinear")
@plain(3, 4, 5, widths=(5, 6, 4))
def cosine_similarity(p, x):
    x = dense(p, "0", x)
    x = x / jnp.linalg.norm(x, axis=-1, keepdims=True)
    return jnp.einsum("bid,bjd->bij", x, x)[:, 0]


# Products -----------------------------------------------------------------------------------------


@model("plain", "bilinear", "gradient")
@plain(3, 5, widths=(5, 8, 4, 4))
def gated(p, x):
    """SwiGLU, GEGLU and GLU one after another."""
    gate, up = jnp.split(dense(p, "0", x), 2, axis=-1)
    x = jax.nn.glu(jnp.concatenate([jax.nn.silu(gate) * up, jax.nn.gelu(gate) * up], axis=-1))
    return dense(p, "1", jnp.concatenate([x, x], axis=-1)) + dense(p, "2", x)


@model("linen", "bilinear", "conv")
@body(2, 6, 6, 3)
def squeeze_and_excite(x):
    x = nn.relu(nn.Conv(4, (3, 3))(x))
    scale = nn.sigmoid(nn.Dense(4)(nn.relu(nn.Dense(3)(x.mean((1, 2))))))
    return nn.Dense(4)(flat(x * scale[:, None, None, :]))


@model("plain", "bilinear")
@plain(3, 5, widths=(5, 5, 5, 4))
def highway(p, x):
    gate = jax.nn.sigmoid(dense(p, "0", x))
    return dense(p, "2", gate * jnp.tanh(dense(p, "1", x)) + (1 - gate) * x)


@model("plain", "bilinear", "routing")
@plain(4, 5, widths=(5, 3, 6, 6, 4))
def mixture_of_experts(p, x):
    """The two likeliest of three experts, weighted by their probabilities."""
    weights, chosen = lax.top_k(jax.nn.softmax(dense(p, "0", x)), 2)
    route = (jax.nn.one_hot(chosen, 3, dtype=x.dtype) * weights[..., None]).sum(1)
    kernels = jnp.stack([p["2_w"], p["2_w"].T, -p["2_w"]])
    experts = jnp.einsum("bf,efg->beg", jnp.pad(x, ((0, 0), (0, 1))), kernels)
    return dense(p, "3", jnp.einsum("be,beg->bg", route, jax.nn.relu(experts)))


@model("linen", "attention", "gradient")
@body(2, 4, 6)
def attention_linen(x):
    mask = nn.make_causal_mask(jnp.ones(x.shape[:2]))
    x = x + nn.MultiHeadDotProductAttention(2, qkv_features=6)(x, mask=mask)
    x = x + nn.MultiHeadDotProductAttention(2)(x[:, ::-1], x)
    return nn.Dense(4)(x[:, -1])


@model("plain", "attention")
@plain(2, 4, 6, widths=(6, 6, 6, 4))
def attention_functional(p, x):
    """Grouped queries, a causal mask, then linear attention."""
    queries = dense(p, "0", x).reshape(x.shape[0], 4, 3, 2)
    keys = dense(p, "1", x)[..., :2].reshape(x.shape[0], 4, 1, 2)
    values = dense(p, "1", x)[..., 2:4].reshape(x.shape[0], 4, 1, 2)
    x = jax.nn.dot_product_attention(queries, keys, values, is_causal=True)
    x = x.reshape(x.shape[0], 4, 6)
    context = jnp.einsum("btd,bte->bde", jax.nn.elu(x) + 1, x)
    total = jnp.einsum("btd,bd->bt", jax.nn.elu(x) + 1, (jax.nn.elu(x) + 1).sum(1))
    return dense(p, "2", jnp.einsum("btd,bde->bte", jax.nn.elu(x) + 1, context) / total[..., None])[
        :, 0
    ]


@model("plain", "attention")
@plain(2, 4, 6, widths=(6, 6, 4))
def masked_softmax(p, x):
    """Masks of every spelling: where with -inf, a huge negative number, added."""
    scores = jnp.einsum("bid,bjd->bij", dense(p, "0", x), x)
    mask = jnp.tril(jnp.ones((4, 4), bool))
    causal = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), axis=-1)
    huge = jax.nn.softmax(jnp.where(mask, scores, -1e9), axis=-1)
    added = jnp.exp(jax.nn.log_softmax(scores / 0.7 + jnp.where(mask, 0.0, -1e9), axis=-1))
    keyed = jax.nn.softmax(scores, axis=-1, where=mask)
    return dense(p, "1", ((causal + huge + added + keyed) @ x)[:, -1])


EDGES = ((0, 1, 2, 3, 0, 2), (1, 2, 0, 0, 2, 1))


@model("plain", "attention", "routing")
@plain(2, 4, 5, widths=(5, 5, 5, 4))
def graph_attention(p, x):
    """Messages along edges, weighted by a softmax over the edges that reach a node."""
    senders, receivers = (jnp.array(ends) for ends in EDGES)

    def layer(h):  # of one graph
        h = dense(p, "0", h)
        logits = jax.nn.leaky_relu((h[senders] + h[receivers]) @ p["1_b"])
        logits = logits - jax.ops.segment_max(logits, receivers, 4)[receivers]
        weights = jnp.exp(logits)
        weights = weights / (jax.ops.segment_sum(weights, receivers, 4)[receivers] + 1e-9)
        return jax.ops.segment_sum(weights[:, None] * h[senders], receivers, 4)

    return dense(p, "2", jax.nn.elu(jax.vmap(layer)(x)).mean(1))


@model("plain", "calls")
@plain(3, 5)
def observed(p, x):
    """Values are looked at on the way, as with `jax.debug.print`."""
    hidden = dense(p, "0", x)
    jax.debug.callback(lambda *values: None, hidden, hidden.mean())
    return dense(p, "1", jax.nn.relu(hidden))


# Complex numbers and groups of rows ---------------------------------------------------------------


def at_least_single(x):
    """Fourier transforms know no half precision."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


@model("plain", "complex", "gradient")
@plain(2, 4, 6, widths=(6, 6, 4))
def fourier_mixing(p, x):
    """FNet: tokens are mixed by the real part of a Fourier transform."""
    x = x + jnp.fft.fft2(at_least_single(x)).real.astype(x.dtype) / 5
    return dense(p, "1", jax.nn.gelu(dense(p, "0", x)).mean(1))


@model("plain", "complex")
@plain(2, 6, 3, widths=(3, 4, 4, 4, 4))
def fourier_operator(p, x):
    """A Fourier neural operator: complex weights for the lowest frequencies, beside a skip line."""
    x = dense(p, "0", x)
    kernel = lax.complex(*(at_least_single(p[name]) for name in ("1_w", "2_w")))
    low = jnp.einsum("bki,io->bko", jnp.fft.rfft(at_least_single(x), axis=1)[:, :3], kernel)
    low = jnp.fft.irfft(jnp.pad(low, ((0, 0), (0, 1), (0, 0))), axis=1).astype(x.dtype)
    return dense(p, "3", jax.nn.relu(low + dense(p, "1", x)).mean(1))


def modes(p):
    decay = jnp.exp(-0.1 - jnp.abs(at_least_single(p["1_b"])))
    return decay * jnp.exp(1j * at_least_single(p["0_b"]))


@model("plain", "complex", "recurrent")
@plain(2, 4, 3, widths=(3, 5, 5, 4))
def state_space(p, x):
    """Complex modes by an associative scan, as in S5 and LRU."""
    driven = at_least_single(x) @ p["0_w"].astype(modes(p).dtype)
    kept = jnp.broadcast_to(modes(p), driven.shape)
    step = lambda a, b: (a[0] * b[0], a[1] * b[0] + b[1])  # noqa: E731
    states = lax.associative_scan(step, (kept, driven), axis=1)[1]
    return dense(p, "2", jax.nn.gelu(dense(p, "1", states.real.astype(x.dtype)))[:, -1])


@model("plain", "complex", "recurrent")
@plain(2, 4, 3, widths=(3, 5, 5, 4))
def state_space_in_steps(p, x):
    """The same with a loop over time whose state is complex."""
    driven = at_least_single(x) @ p["0_w"].astype(modes(p).dtype)

    def step(state, drive):
        state = modes(p) * state + drive
        return state, 2 * state.real - state.imag

    _, states = lax.scan(step, jnp.zeros_like(driven[:, 0]), jnp.swapaxes(driven, 0, 1))
    return dense(p, "2", jax.nn.gelu(dense(p, "1", states[-1].astype(x.dtype))))


@model("plain", "complex")
@plain(2, 6, widths=(4, 5, 4))
def spectrum(p, x):
    """Magnitudes of a Fourier transform."""
    magnitudes = jnp.abs(jnp.fft.rfft(at_least_single(x))).astype(x.dtype)
    return dense(p, "1", jax.nn.relu(dense(p, "0", magnitudes)))


@model("plain", "routing", "not_mapped")  # JAX has no vmap of such products yet
@plain(3, 4, 5, widths=(5, 2, 5, 5, 4))
def grouped_experts(p, x):
    """Rows sorted by their expert, multiplied group by group, and put back."""
    rows = x.reshape(-1, 5)
    chosen = jnp.argmax(dense(p, "0", rows), axis=-1)
    order = jnp.argsort(chosen)
    kernels = jnp.stack([p["2_w"], -p["2_w"].T])
    made = lax.ragged_dot(rows[order], kernels, jnp.bincount(chosen, length=2))
    rows = jax.nn.relu(made[jnp.argsort(order)]) + rows
    return dense(p, "3", rows.reshape(x.shape).mean(1))


# Choices and reductions ---------------------------------------------------------------------------


@model("plain", "choice", "gradient")
@plain(3, 5, widths=(5, 6, 6, 4))
def choices(p, x):
    a, b = dense(p, "0", x), dense(p, "0", x[:, ::-1])
    x = jnp.maximum(a, b) - jnp.minimum(a, 0.5 * b)
    return dense(p, "2", jnp.abs(dense(p, "1", jnp.clip(x, -1, 2))))


@model("plain", "choice")
@plain(3, 5, widths=(5, 6, 6, 4))
def sorting(p, x):
    x = jnp.sort(dense(p, "0", x), axis=-1)
    best, _ = lax.top_k(dense(p, "1", x), 6)
    return dense(p, "2", best)


@model("plain", "reduction")
@plain(3, 5, widths=(5, 6, 4))
def reductions(p, x):
    x = dense(p, "0", x).reshape(x.shape[0], 3, 2)
    parts = [jax.nn.logsumexp(x, axis=1), x.sum(1), x.max(1)]
    return dense(p, "1", jnp.concatenate(parts, axis=-1))


@model("plain", "reduction")
@plain(2, 4, 6, widths=(6, 6, 4))
def weighted_sum(p, x):
    """Attention pooling: one softmax weight for every position."""
    weights = jax.nn.softmax(dense(p, "0", x).sum(-1), axis=-1)
    return dense(p, "1", jnp.einsum("bt,btd->bd", weights, x))


MODELS = models_of(globals())
