"""Ways to write an equation otherwise: each gives the same values, to rounding.

An identity is `(site, *operands) -> results`, or None where it has nothing to say. What it needs to
know of values (that they are positive, that a branch is taken) it reads off an example.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


@dataclass(frozen=True, eq=False)
class Site:
    """One equation of a network.

    Attributes:
        eqn: the equation.
        values: of its operands, in an example.
        explained: which operands depend on the input.
        results: its values.
        as_it_is: the equation as a function of its operands.
        feeds: names of the primitives that read its result.
    """

    eqn: Any
    values: Sequence[np.ndarray]
    explained: Sequence[bool]
    results: Sequence[np.ndarray]
    as_it_is: Callable[..., list[Any]]
    feeds: Sequence[str]

    def positive(self, number: int) -> bool:
        return bool(np.all(self.values[number] > 1e-3))

    def nonzero(self, number: int) -> bool:
        return bool(np.all(np.abs(self.values[number]) > 1e-3))

    @property
    def ndim(self) -> int:
        return self.results[0].ndim

    @property
    def params(self) -> dict[str, Any]:
        params: dict[str, Any] = self.eqn.params
        return params


Rewrite = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Identity:
    """An identity of one equation.

    Attributes:
        name: of it.
        primitives: names of the primitives that it speaks of; none: of every one with one result.
        rewrite: see above.
        exact: whether only rules that are linear in contributions see no difference, because
            layers are cut otherwise.
    """

    name: str
    primitives: tuple[str, ...]
    rewrite: Rewrite
    exact: bool = False


IDENTITIES: dict[str, Identity] = {}


def identity(name: str, *primitives: str, exact: bool = False) -> Callable[[Rewrite], Rewrite]:
    def keep(rewrite: Rewrite) -> Rewrite:
        assert name not in IDENTITIES
        IDENTITIES[name] = Identity(name, primitives, rewrite, exact)
        return rewrite

    return keep


def simply(name: str, primitive: str, f: Callable[..., Any], exact: bool = False) -> None:
    """An identity that holds for any operands."""
    identity(name, *primitive.split(), exact=exact)(lambda site, *operands: f(*operands))


# -- sums and products ----------------------------------------------------------------------------

simply("x y = y x", "mul", lambda x, y: y * x)
simply("x y = -(-x y)", "mul", lambda x, y: -(-x * y))
simply("x y = (2 x) (y / 2)", "mul", lambda x, y: (2 * x) * (y / 2))
simply("x + y = y + x", "add", lambda x, y: y + x)
simply("x + y = x - (-y)", "add", lambda x, y: x - (-y))
simply("x + y = 2 (x / 2 + y / 2)", "add", lambda x, y: 2 * (x / 2 + y / 2), exact=True)
simply("x - y = x + (-y)", "sub", lambda x, y: x + (-y))
simply("x - y = -(y - x)", "sub", lambda x, y: -(y - x))
simply("-x = x (-1)", "neg", lambda x: x * -1.0)
simply("-x = x / (-1)", "neg", lambda x: x / -1.0)
simply("x / y = x (1 / y)", "div", lambda x, y: x * (1 / y))
simply("x / y = x y^-1", "div", lambda x, y: x * y**-1.0)
simply("x / y = -x / -y", "div", lambda x, y: -x / -y)
simply("x / y = 2 x / (2 y)", "div", lambda x, y: (2 * x) / (y * 2))


@identity("x y = x / (1 / y)", "mul")
def _(site: Site, x: Any, y: Any) -> Any:
    return x / (1 / y) if site.nonzero(1) else None


@identity("x y = exp(log x + log y)", "mul", exact=True)
def _(site: Site, x: Any, y: Any) -> Any:
    if not (site.positive(0) and site.positive(1) and all(site.explained)):
        return None
    return jnp.exp(jnp.log(x) + jnp.log(y))


@identity("x / y = exp(log x - log y)", "div", exact=True)
def _(site: Site, x: Any, y: Any) -> Any:
    if not (site.positive(0) and site.positive(1) and all(site.explained)):
        return None
    return jnp.exp(jnp.log(x) - jnp.log(y))


@identity("x y = einsum", "mul")
def _(site: Site, x: Any, y: Any) -> Any:
    if site.values[0].shape != site.values[1].shape or not site.ndim:
        return None
    letters = "abcdefgh"[: site.ndim]
    return jnp.einsum(f"{letters},{letters}->{letters}", x, y)


# -- elementwise functions ------------------------------------------------------------------------

simply("tanh = 2 sigmoid(2 x) - 1", "tanh", lambda x: 2 * jax.nn.sigmoid(2 * x) - 1)
simply("tanh is odd", "tanh", lambda x: -jnp.tanh(-x))
simply("sigmoid = 1 / (1 + exp(-x))", "logistic", lambda x: 1 / (1 + jnp.exp(-x)))
simply("sigmoid = (1 + tanh(x / 2)) / 2", "logistic", lambda x: (1 + jnp.tanh(x / 2)) / 2)
simply("sigmoid = 1 - sigmoid(-x)", "logistic", lambda x: 1 - jax.nn.sigmoid(-x))
simply("exp = 1 / exp(-x)", "exp", lambda x: 1 / jnp.exp(-x))
simply("exp = exp(x / 2)^2", "exp", lambda x: jnp.exp(x / 2) ** 2)
simply("exp = exp2", "exp", lambda x: jnp.exp2(x * np.log2(np.e)))
simply("exp(x) = exp(x - 1) e", "exp", lambda x: jnp.exp(x - 1) * np.e)
simply("log = -log(1 / x)", "log", lambda x: -jnp.log(1 / x))
simply("log = 2 log(sqrt x)", "log", lambda x: 2 * jnp.log(jnp.sqrt(x)))
simply("sqrt = x^0.5", "sqrt", lambda x: x**0.5)
simply("rsqrt = 1 / sqrt", "rsqrt", lambda x: 1 / jnp.sqrt(x))
simply("rsqrt = x^-0.5", "rsqrt", lambda x: x**-0.5)
simply("square = x x", "square", lambda x: x * x)
simply("square = x^2.0", "square", lambda x: jnp.abs(x) ** 2.0)
simply("|x| = max(x, -x)", "abs", lambda x: jnp.maximum(x, -x))
simply("|x| = where(x > 0, x, -x)", "abs", lambda x: jnp.where(x > 0, x, -x))
simply("max(x, y) = max(y, x)", "max", lambda x, y: jnp.maximum(y, x))
simply("max = -min(-x, -y)", "max", lambda x, y: -jnp.minimum(-x, -y))
simply("max = where(x > y, x, y)", "max", lambda x, y: jnp.where(x > y, x, y))
simply("min = -max(-x, -y)", "min", lambda x, y: -jnp.maximum(-x, -y))


@identity("x^n = x x^(n - 1)", "integer_pow")
def _(site: Site, x: Any) -> Any:
    n = site.params["y"]
    return x * x ** (n - 1) if n > 1 else None


@identity("x^n = x x ... x", "integer_pow")
def _(site: Site, x: Any) -> Any:
    n = site.params["y"]
    y = x
    for _ in range(abs(n) - 1):
        y = y * x
    return (y if n > 0 else 1 / y) if n and abs(n) < 8 else None


def is_relu(site: Site) -> bool:
    if site.eqn.primitive.name == "max":
        return site.values[1].ndim == 0 and float(site.values[1]) == 0.0
    x, y = site.values[0], site.results[0]
    return len(site.values) == 1 and bool((x < 0).any()) and np.array_equal(np.maximum(x, 0), y)


for _name, _relu in {
    "relu = max(x, 0)": lambda x: jnp.maximum(x, 0),
    "relu = where(x > 0, x, 0)": lambda x: jnp.where(x > 0, x, 0),
    "relu = (x + |x|) / 2": lambda x: (x + jnp.abs(x)) / 2,
    "relu = x (x > 0)": lambda x: x * (x > 0),
    "relu = jax.nn.relu": jax.nn.relu,
    "relu = x - min(x, 0)": lambda x: x - jnp.minimum(x, 0),
}.items():
    identity(_name, "custom_jvp_call", "max")(
        lambda site, x, *zero, f=_relu: f(x) if is_relu(site) else None
    )


@identity("where(c, x, y) = where(not c, y, x)", "select_n")
def _(site: Site, which: Any, *cases: Any) -> Any:
    if len(cases) != 2 or site.values[0].dtype != bool:
        return None
    return lax.select_n(~which, *cases[::-1])


@identity("where = masks added", "select_n", exact=True)
def _(site: Site, which: Any, *cases: Any) -> Any:
    if len(cases) != 2 or site.values[0].dtype != bool or site.explained[0]:
        return None
    if not all(
        e or not np.any(v) for e, v in zip(site.explained[1:], site.values[1:], strict=True)
    ):
        return None  # a number beside a mask is a shift, which stands alone
    return cases[0] * ~which + cases[1] * which


@identity("exp(x - max) = exp(x - max - 1) inside of a softmax", "sub")
def _(site: Site, x: Any, shift: Any) -> Any:
    return x - (shift + 1.0) if set(site.feeds) == {"exp"} else None


# -- contractions ---------------------------------------------------------------------------------


def _contracted(site: Site) -> Any:
    (a, b), batch = site.params["dimension_numbers"]
    return tuple(a), tuple(b), tuple(batch[0]), tuple(batch[1])


def _dot(site: Site, x: Any, y: Any) -> Any:
    return site.as_it_is(x, y)[0]


def on_products(name: str, exact: bool = False) -> Callable[[Rewrite], Rewrite]:
    return identity(name, "dot_general", "conv_general_dilated", exact=exact)


@on_products("x w = -(x (-w))")
def _(site: Site, x: Any, w: Any) -> Any:
    return -_dot(site, x, -w)


@on_products("x w = (x (2 w)) / 2")
def _(site: Site, x: Any, w: Any) -> Any:
    return _dot(site, x, 2 * w) / 2


@on_products("x w = 2 ((x / 2) w)", exact=True)  # a scale between two layers belongs to the first
def _(site: Site, x: Any, w: Any) -> Any:
    return 2 * _dot(site, x / 2, w)


@on_products("x w = x (w - v) + x v", exact=True)
def _(site: Site, x: Any, w: Any) -> Any:
    if all(site.explained):
        return None
    if site.explained[1]:
        return _dot(site, x - 0.25, w) + _dot(site, jnp.full_like(x, 0.25), w)
    return _dot(site, x, w - 0.25) + _dot(site, x, jnp.full_like(w, 0.25))


@identity("x w = the other order, transposed", "dot_general")
def _(site: Site, x: Any, w: Any) -> Any:
    a, b, m, n = _contracted(site)
    y = lax.dot_general(w, x, ((b, a), (n, m)))
    rank_x, rank_w = x.ndim - len(a) - len(m), w.ndim - len(b) - len(n)
    batch = tuple(range(len(m)))
    rest = tuple(range(len(m) + rank_w, y.ndim)) + tuple(range(len(m), len(m) + rank_w))
    assert len(rest) == rank_x + rank_w
    return jnp.transpose(y, batch + rest)


@identity("x w = einsum", "dot_general")
def _(site: Site, x: Any, w: Any) -> Any:
    a, b, m, n = _contracted(site)
    names = iter("abcdefghijklmnopqrstuvwxyz")
    of_x = [next(names) for _ in range(x.ndim)]
    of_w = [""] * w.ndim
    for i, j in zip((*a, *m), (*b, *n), strict=True):
        of_w[j] = of_x[i]
    of_w = [letter or next(names) for letter in of_w]
    free = [c for i, c in enumerate(of_x) if i not in (*a, *m)]
    free += [c for i, c in enumerate(of_w) if i not in (*b, *n)]
    out = [of_x[i] for i in m] + free
    return jnp.einsum(f"{''.join(of_x)},{''.join(of_w)}->{''.join(out)}", x, w)


@identity("x w = halves added", "dot_general", exact=True)
def _(site: Site, x: Any, w: Any) -> Any:
    a, b, _, _ = _contracted(site)
    if not a or x.shape[a[0]] < 2:
        return None
    half = x.shape[a[0]] // 2
    parts = [
        _dot(site, lax.slice_in_dim(x, *s, axis=a[0]), lax.slice_in_dim(w, *s, axis=b[0]))
        for s in ((0, half), (half, x.shape[a[0]]))
    ]
    return parts[0] + parts[1]


@identity("x w = zeros padded", "dot_general")
def _(site: Site, x: Any, w: Any) -> Any:
    a, b, _, _ = _contracted(site)
    if not a:
        return None
    wide = lambda z, axis: jnp.pad(z, [(0, int(i == axis)) for i in range(z.ndim)])  # noqa: E731
    return _dot(site, wide(x, a[0]), wide(w, b[0]))


@identity("x w = the contracted numbers in another order", "dot_general")
def _(site: Site, x: Any, w: Any) -> Any:
    a, b, _, _ = _contracted(site)
    return _dot(site, jnp.flip(x, a[0]), jnp.flip(w, b[0])) if a else None


@identity("x w = columns beside each other", "dot_general")
def _(site: Site, x: Any, w: Any) -> Any:
    _, b, _, n = _contracted(site)
    free = [i for i in range(w.ndim) if i not in (*b, *n)]
    if not free or w.shape[free[-1]] < 2:
        return None
    parts = [
        _dot(site, x, lax.slice_in_dim(w, i, j, axis=free[-1]))
        for i, j in ((0, 1), (1, w.shape[free[-1]]))
    ]
    return jnp.concatenate(parts, -1)


@identity("x w = multiplied and summed", "dot_general", exact=True)
def _(site: Site, x: Any, w: Any) -> Any:
    a, b, m, _ = _contracted(site)
    if m or len(a) != 1:
        return None
    x, w = jnp.moveaxis(x, a[0], -1), jnp.moveaxis(w, b[0], -1)
    return (x.reshape(*x.shape[:-1], *(1,) * (w.ndim - 1), -1) * w).sum(-1)


@identity("a padded convolution = a pad and a convolution", "conv_general_dilated")
def _(site: Site, x: Any, w: Any) -> Any:
    p = site.params
    if any(d != 1 for d in p["lhs_dilation"]) or not any(map(any, p["padding"])):
        return None
    spec = p["dimension_numbers"].lhs_spec
    widths = [(0, 0)] * x.ndim
    for axis, pair in zip(spec[2:], p["padding"], strict=True):
        widths[axis] = pair
    if any(n < 0 for pair in widths for n in pair):
        return None
    given = {k: v for k, v in p.items() if k in (
        "window_strides", "lhs_dilation", "rhs_dilation", "dimension_numbers",
        "feature_group_count", "batch_group_count",
    )}  # fmt: skip
    return lax.conv_general_dilated(jnp.pad(x, widths), w, padding=[(0, 0)] * (x.ndim - 2), **given)


@identity("a convolution = channels beside each other", "conv_general_dilated")
def _(site: Site, x: Any, w: Any) -> Any:
    p = site.params
    axis, out = p["dimension_numbers"].rhs_spec[0], p["dimension_numbers"].out_spec[1]
    if p["feature_group_count"] != 1 or p["batch_group_count"] != 1 or w.shape[axis] < 2:
        return None
    pairs = ((0, 1), (1, w.shape[axis]))
    parts = [_dot(site, x, lax.slice_in_dim(w, *pair, axis=axis)) for pair in pairs]
    return jnp.concatenate(parts, out)
