"""Softmaxes, masked or not, and logarithms of their sums."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .group import BY_SIGN, EXACT, SUMS, Group, Params, hold

MASK = np.tril(np.ones((3, 3), bool))


def logits(p: Params, h: Array) -> Array:
    return h @ p["kernel"]


def e_of(s: Array) -> Array:
    return jnp.exp(s)


def total(e: Array) -> Array:
    return e.sum(-1, keepdims=True)


def written_out(s: Array) -> Array:
    e = jnp.exp(s)
    return e / e.sum(-1, keepdims=True)


def shifted(s: Array) -> Array:
    e = jnp.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def shifted_held(s: Array) -> Array:
    e = jnp.exp(s - lax.stop_gradient(s.max(-1, keepdims=True)))
    return e / e.sum(-1, keepdims=True)


def times_reciprocal(s: Array) -> Array:
    e = jnp.exp(s - s.max(-1, keepdims=True))
    return e * (1 / e.sum(-1, keepdims=True))


def base_two(s: Array) -> Array:
    e = jnp.exp2(s * np.log2(np.e))
    return e / e.sum(-1, keepdims=True)


def base_two_throughout(s: Array) -> Array:
    s = s * np.log2(np.e)
    return jnp.exp2(s - jnp.log2(jnp.exp2(s).sum(-1, keepdims=True)))


def scaled_logarithm(s: Array) -> Array:
    return jnp.exp(s - 4 * (jax.nn.logsumexp(s, -1, keepdims=True) / 4))


def in_units_of_two(s: Array) -> Array:
    return jnp.exp2(jax.nn.log_softmax(s) / np.log(2))


def power_of_a_warmer_one(s: Array) -> Array:
    warm = jax.nn.softmax(s / 3) ** 3
    return warm / warm.sum(-1, keepdims=True)


def twice_normalised(s: Array) -> Array:
    first = jax.nn.softmax(s, -1)
    return first / first.sum(-1, keepdims=True)


def with_zeros(s: Array) -> Array:
    e = 1.0 * jnp.exp(s - 0.0)
    e = e + jnp.zeros(s.shape[-1])
    return e * (1 / (e + 0.0).sum(-1, keepdims=True) + 0.0) / 1.0


def beside_zeros(s: Array) -> Array:
    e = jnp.exp(s) + jnp.zeros(s.shape[-1])
    return e / e.sum(-1, keepdims=True)


def gradient(s: Array) -> Array:
    return jax.grad(lambda s: jax.nn.logsumexp(s, -1).sum())(s)


def gradient_of_negative(s: Array) -> Array:
    return -jax.vmap(jax.vmap(jax.grad(lambda s: -jax.nn.logsumexp(s))))(s)


def pulled_back(s: Array) -> Array:
    """By reverse mode, of a log-sum-exp that is written out."""
    y, back = jax.vjp(lambda s: jnp.log(jnp.exp(s).sum(-1)), s)
    return back(jnp.ones_like(y))[0]


def by_dot(s: Array) -> Array:
    e = jnp.exp(s)
    return e / (e @ jnp.ones((s.shape[-1], 1)))


def by_einsum(s: Array) -> Array:
    e = jnp.exp(s)
    return e / jnp.einsum("...i->...", e)[..., None]


def by_power(s: Array) -> Array:
    e = jnp.exp(s)
    return e * total(e) ** -1.0


def by_differences(s: Array) -> Array:
    return 1 / jnp.exp(s[..., None, :] - s[..., :, None]).sum(-1)


def transposed(s: Array) -> Array:
    return jnp.moveaxis(jax.nn.softmax(jnp.moveaxis(s, -1, 0), 0), 0, -1)


def each_row(s: Array) -> Array:
    return jax.vmap(jax.vmap(jax.nn.softmax))(s)


def mapped(s: Array) -> Array:
    return lax.map(lambda row: shifted(row), s)


SPELLED = {
    "jax.nn": jax.nn.softmax,
    "written out": written_out,
    "shifted": shifted,
    "shifted by a held maximum": shifted_held,
    "shifted by a number": lambda s: written_out(s - 1.5),
    "shifted by its mean": lambda s: written_out(s - s.mean(-1, keepdims=True)),
    "times the reciprocal": times_reciprocal,
    "times a power": by_power,
    "base two": base_two,
    "base two throughout": base_two_throughout,
    "a scaled logarithm": scaled_logarithm,
    "log_softmax in units of two": in_units_of_two,
    "a power of a warmer one": power_of_a_warmer_one,
    "a power of e": lambda s: np.e**s / (np.e**s).sum(-1, keepdims=True),
    "exp of log_softmax": lambda s: jnp.exp(jax.nn.log_softmax(s, -1)),
    "exp of a difference": lambda s: jnp.exp(s - jax.nn.logsumexp(s, -1, keepdims=True)),
    "normalised twice": twice_normalised,
    "with zeros and ones": with_zeros,
    "beside zeros": beside_zeros,
    "gradient of a log-sum-exp": gradient,
    "gradient of a negative one": gradient_of_negative,
    "pulled back": pulled_back,
    "sum as a dot": by_dot,
    "sum as an einsum": by_einsum,
    "sum of differences": by_differences,
    "another axis": transposed,
    "vmap of vectors": each_row,
    "lax.map": mapped,
    "checkpoint": jax.checkpoint(shifted),
    "jit": jax.jit(shifted),
}


def masked_sum(s: Array) -> Array:
    e = jnp.exp(s) * MASK
    return e / e.sum(-1, keepdims=True)


def masked_shifted(s: Array) -> Array:
    s = jnp.where(MASK, s, -jnp.inf)
    e = jnp.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def masked_after(s: Array) -> Array:
    a = jax.nn.softmax(s, -1) * MASK
    return a / a.sum(-1, keepdims=True)


def masked_log(s: Array) -> Array:
    s = jnp.where(MASK, s, -1e30)
    return jnp.where(MASK, jnp.exp(s - jax.nn.logsumexp(s, -1, keepdims=True)), 0)


MASKED = {
    "jnp.where": lambda s: jax.nn.softmax(jnp.where(MASK, s, -jnp.inf), -1),
    "where=": lambda s: jax.nn.softmax(s, -1, where=MASK),
    "a large number": lambda s: jax.nn.softmax(jnp.where(MASK, s, -1e30), -1),
    "the smallest number": lambda s: jax.nn.softmax(jnp.where(MASK, s, jnp.finfo(s.dtype).min), -1),
    "added": lambda s: jax.nn.softmax(s + jnp.where(MASK, 0.0, -1e30), -1),
    "added infinity": lambda s: jax.nn.softmax(s + jnp.where(MASK, 0.0, -jnp.inf), -1),
    "exponentials times a mask": masked_sum,
    "exponentials chosen": lambda s: (
        jnp.where(MASK, jnp.exp(s), 0) / jnp.where(MASK, jnp.exp(s), 0).sum(-1, keepdims=True)
    ),
    "shifted by hand": masked_shifted,
    "normalised again": masked_after,
    "logarithm": masked_log,
    "sum with where=": lambda s: (
        jnp.where(MASK, jnp.exp(s), 0) / jnp.exp(s).sum(-1, keepdims=True, where=MASK)
    ),
    "log_softmax where=": lambda s: jnp.where(
        MASK, jnp.exp(jax.nn.log_softmax(s, -1, where=MASK)), 0
    ),
    "a triangle": lambda s: jnp.tril(jnp.exp(s)) / jnp.tril(jnp.exp(s)).sum(-1, keepdims=True),
}

SCALED = {
    "divided": lambda s: jax.nn.softmax(s / 2, -1),
    "multiplied": lambda s: jax.nn.softmax(0.5 * s, -1),
    "by a root": lambda s: jax.nn.softmax(s / jnp.sqrt(4.0), -1),
    "root of exponentials": lambda s: (
        jnp.sqrt(jnp.exp(s)) / jnp.sqrt(jnp.exp(s)).sum(-1, keepdims=True)
    ),
    "sharpened": lambda s: (
        jax.nn.softmax(s, -1) ** 0.5 / (jax.nn.softmax(s, -1) ** 0.5).sum(-1, keepdims=True)
    ),
    "times the reciprocal": lambda s: times_reciprocal(s * 0.5),
    "log_softmax": lambda s: jnp.exp(jax.nn.log_softmax(s / 2)),
    "negated": lambda s: jax.nn.softmax(-(s / -2), -1),
}

PRIOR = {
    "added logarithm": lambda p, s: jax.nn.softmax(s + p["prior"], -1),
    "times": lambda p, s: (
        jnp.exp(p["prior"]) * jnp.exp(s) / (jnp.exp(p["prior"]) * jnp.exp(s)).sum(-1, keepdims=True)
    ),
    "sum as a dot": lambda p, s: (
        jnp.exp(s) * jnp.exp(p["prior"]) / (jnp.exp(s) @ jnp.exp(p["prior"]))[..., None]
    ),
    "softmax normalised again": lambda p, s: (
        (jax.nn.softmax(s, -1) * jnp.exp(p["prior"]))
        / (jax.nn.softmax(s, -1) * jnp.exp(p["prior"])).sum(-1, keepdims=True)
    ),
    "softmax times softmax": lambda p, s: (
        (jax.nn.softmax(s, -1) * jax.nn.softmax(p["prior"]))
        / (jax.nn.softmax(s, -1) * jax.nn.softmax(p["prior"])).sum(-1, keepdims=True)
    ),
    "logsumexp with weights": lambda p, s: jnp.exp(
        s + p["prior"] - jax.nn.logsumexp(s, -1, b=jnp.exp(p["prior"]), keepdims=True)
    ),
}

TWO_AXES = {
    "axes": lambda s: jax.nn.softmax(s, (-2, -1)),
    "flat": lambda s: jax.nn.softmax(s.reshape(2, -1), -1).reshape(s.shape),
    "written out": lambda s: jnp.exp(s) / jnp.exp(s).sum((-2, -1), keepdims=True),
    "sums in turn": lambda s: jnp.exp(s) / jnp.exp(s).sum(-1, keepdims=True).sum(-2, keepdims=True),
    "of rows, of the whole": lambda s: (
        jax.nn.softmax(s, -1) * jax.nn.softmax(jax.nn.logsumexp(s, -1), -1)[..., None]
    ),
    "logarithm": lambda s: jnp.exp(s - jax.nn.logsumexp(s, (-2, -1), keepdims=True)),
    "einsum": lambda s: jnp.exp(s) / jnp.einsum("bij->b", jnp.exp(s))[:, None, None],
}

LOGARITHM = {
    "jax.nn": lambda s: jax.nn.log_softmax(s, -1),
    "difference": lambda s: s - jax.nn.logsumexp(s, -1, keepdims=True),
    "log of the sum": lambda s: s - jnp.log(jnp.exp(s).sum(-1, keepdims=True)),
    "log of softmax": lambda s: jnp.log(jax.nn.softmax(s, -1)),
    "log of a quotient": lambda s: jnp.log(jnp.exp(s) / jnp.exp(s).sum(-1, keepdims=True)),
    "shifted": lambda s: (
        (s - s.max(-1, keepdims=True))
        - jnp.log(jnp.exp(s - s.max(-1, keepdims=True)).sum(-1, keepdims=True))
    ),
    "negated": lambda s: -(jax.nn.logsumexp(s, -1, keepdims=True) - s),
    "vmap": lambda s: jax.vmap(jax.nn.log_softmax)(s),
    "of shifted logits": lambda s: jax.nn.log_softmax(s + 1.5, -1),
    "difference of shifted logits": lambda s: s - 2 - jax.nn.logsumexp(s - 2, -1, keepdims=True),
    "a number in the logarithm": lambda s: (
        s + 1 - jnp.log(np.e * jnp.exp(s).sum(-1, keepdims=True))
    ),
}


def column(s: Array, i: int) -> Array:
    return jnp.exp(s[..., i]) / jnp.exp(s).sum(-1)


PART = {
    "of the softmax": lambda s: jax.nn.softmax(s, -1)[..., :2],
    "of the exponentials": lambda s: e_of(s)[..., :2] / total(e_of(s)),
    "of the logits": lambda s: jnp.exp(s[..., :2]) / total(e_of(s)),
    "shifted": lambda s: (lambda z: jnp.exp(z[..., :2]) / total(jnp.exp(z)))(
        s - s.max(-1, keepdims=True)
    ),
    "columns": lambda s: jnp.stack([column(s, 0), column(s, 1)], -1),
    "split": lambda s: jnp.split(e_of(s), (2,), -1)[0] / total(e_of(s)),
}

LOGARITHM_OF_ONE = {
    "jax.nn": lambda s: jax.nn.log_softmax(s, -1)[..., 1],
    "difference": lambda s: s[..., 1] - jax.nn.logsumexp(s, -1),
    "log of one": lambda s: jnp.log(jax.nn.softmax(s, -1)[..., 1]),
    "log of all": lambda s: jnp.log(jax.nn.softmax(s, -1))[..., 1],
    "log of a quotient": lambda s: jnp.log(column(s, 1)),
    "log of both": lambda s: jnp.log(jnp.exp(s[..., 1])) - jnp.log(jnp.exp(s).sum(-1)),
    "shifted": lambda s: (lambda z: z[..., 1] - jnp.log(jnp.exp(z).sum(-1)))(
        s - s.max(-1, keepdims=True)
    ),
    "of differences": lambda s: -jax.nn.logsumexp(s - s[..., 1:2], -1),
}


HIDDEN = np.arange(5) != 3

MASKED_LOGARITHM = {
    "log_softmax": lambda s: jax.nn.log_softmax(jnp.where(HIDDEN, s, -jnp.inf), -1)[..., 1],
    "where=": lambda s: jnp.log(jax.nn.softmax(s, -1, where=HIDDEN)[..., 1]),
    "logits chosen": lambda s: jnp.log(jax.nn.softmax(jnp.where(HIDDEN, s, -jnp.inf), -1)[..., 1]),
    "log of all": lambda s: jnp.log(jax.nn.softmax(jnp.where(HIDDEN, s, -jnp.inf), -1))[..., 1],
    "logsumexp": lambda s: s[..., 1] - jax.nn.logsumexp(s, -1, where=HIDDEN),
    "exponentials": lambda s: (lambda e: jnp.log(e[..., 1] / e.sum(-1)))(
        jnp.exp(s) * HIDDEN.astype(float)
    ),
}


def running(s: Array) -> Array:
    y = s[..., 0]
    for i in range(1, s.shape[-1]):
        y = jnp.logaddexp(y, s[..., i])
    return y


LOG_SUM = {
    "jax.nn": lambda s: jax.nn.logsumexp(s, -1),
    "log of the sum": lambda s: jnp.log(jnp.exp(s).sum(-1)),
    "shifted": lambda s: s.max(-1) + jnp.log(jnp.exp(s - s.max(-1, keepdims=True)).sum(-1)),
    "maximum last": lambda s: jnp.log(jnp.exp(s - s.max(-1, keepdims=True)).sum(-1)) + s.max(-1),
    "log of a dot": lambda s: jnp.log(jnp.exp(s) @ jnp.ones(s.shape[-1])),
    "logaddexp": running,
    "minus the log of 1/x": lambda s: -jnp.log(1 / jnp.exp(s).sum(-1)),
    "log of a mean": lambda s: jnp.log(jnp.exp(s).mean(-1)) + np.log(s.shape[-1]),
    "from log_softmax": lambda s: (s - jax.nn.log_softmax(s, -1))[..., 0],
    "two halves": lambda s: jnp.log(
        jnp.exp(jax.nn.logsumexp(s[..., :2], -1)) + jnp.exp(jax.nn.logsumexp(s[..., 2:], -1))
    ),
}

SOFT_MAXIMUM = {
    "divided": lambda s: jax.nn.logsumexp(2 * s, -1) / 2,
    "multiplied": lambda s: 0.5 * jax.nn.logsumexp(s * 2, -1),
    "log of the sum": lambda s: jnp.log(jnp.exp(2 * s).sum(-1)) / 2,
    "log of squares": lambda s: jnp.log((jnp.exp(s) ** 2).sum(-1)) / 2,
    "log of a root": lambda s: jnp.log(jnp.sqrt(jnp.exp(2 * s).sum(-1))),
    "shifted": lambda s: (
        s.max(-1) + jnp.log(jnp.exp(2 * (s - s.max(-1, keepdims=True))).sum(-1)) / 2
    ),
}

MINIMUM = {
    "negated": lambda s: jax.nn.softmax(-s, -1),
    "written out": lambda s: jnp.exp(-s) / jnp.exp(-s).sum(-1, keepdims=True),
    "reciprocals": lambda s: (1 / jnp.exp(s)) / (1 / jnp.exp(s)).sum(-1, keepdims=True),
    "shifted": lambda s: shifted(-s),
    "subtracted": lambda s: jax.nn.softmax(1 - s, -1),
    "times -1": lambda s: jax.nn.softmax(s * -1.0, -1),
    "log_softmax": lambda s: jnp.exp(jax.nn.log_softmax(-s, -1)),
}


def of(spelled: dict) -> dict:  # type: ignore[type-arg]
    """Spellings as functions of the logits."""
    return {name: (lambda p, h, f=f: f(logits(p, h))) for name, f in spelled.items()}


def also(spelled: dict) -> dict:  # type: ignore[type-arg]
    return {name: (lambda p, h, f=f: f(p, logits(p, h))) for name, f in spelled.items()}


def live(spelled: dict):  # type: ignore[type-arg,no-untyped-def]
    """First order: a logarithm of a sum of exponentials is no gate."""
    f = next(iter(spelled.values()))
    return lambda p, h, gates: f(logits(p, h))


def held(spelled: dict):  # type: ignore[type-arg,no-untyped-def]
    """First order under AttnLRP, nothing under CP-LRP."""
    f = next(iter(spelled.values()))
    return lambda p, h, gates: hold(f(logits(p, h))) if gates else f(logits(p, h))


SQUARE, WIDE = {"kernel": (4, 3)}, {"kernel": (4, 5)}
GROUPS = (
    Group("softmax", of(SPELLED), WIDE, held(SPELLED), SUMS),
    Group("softmax with a mask", of(MASKED), SQUARE, held(MASKED), SUMS),
    Group("softmax of scaled logits", of(SCALED), WIDE, held(SCALED), EXACT),
    Group(
        "softmax with a prior",
        also(PRIOR),
        {"kernel": (4, 5), "prior": (5,)},
        lambda p, h, gates: (
            hold(jax.nn.softmax(logits(p, h) + p["prior"]))
            if gates
            else jax.nn.softmax(logits(p, h) + p["prior"])
        ),
        EXACT,
    ),
    Group("softmax over two axes", of(TWO_AXES), WIDE, held(TWO_AXES), SUMS),
    Group("softmax of negated logits", of(MINIMUM), WIDE, held(MINIMUM), EXACT),
    Group(
        "log_softmax",
        of(LOGARITHM),
        WIDE,
        live(LOGARITHM),
        EXACT,
    ),
    Group("a part of a softmax", of(PART), WIDE, held(PART), SUMS),
    Group(
        "log_softmax of one",
        of(LOGARITHM_OF_ONE),
        WIDE,
        live(LOGARITHM_OF_ONE),
        BY_SIGN,
        rounding=3e-8,
    ),
    Group(
        "log_softmax with a mask",
        of(MASKED_LOGARITHM),
        WIDE,
        live(MASKED_LOGARITHM),
        BY_SIGN,
        rounding=1e-7,
    ),
    Group("logsumexp", of(LOG_SUM), WIDE, live(LOG_SUM), SUMS),
    Group("soft maximum", of(SOFT_MAXIMUM), WIDE, live(SOFT_MAXIMUM), EXACT),
)
