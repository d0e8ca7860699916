"""What a group of spellings is, and the network that its function is a piece of."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from lrp_jax._analysis import compat

from .surroundings import BETWEEN_LAYERS, Place

Params = Mapping[str, Any]
Piece = Callable[[Params, Array], Array]
CLASSES = 3

EXACT = ("Zero", "AttnLRP", "CPLRP")
"""Rules that are linear in contributions: where layers are cut makes no difference to them."""
SUMS = ("Zero", "Epsilon", "AttnLRP", "CPLRP")
"""And where the layers with weights are the same."""
BY_SIGN = (*EXACT, "ZPlus", "Gamma", "AlphaBeta")
"""And where only scales move from one layer to the next, which an epsilon notices."""
ANY_KIND = ("Epsilon", *BY_SIGN)
"""And where a dense layer may be a convolution, to which EpsilonPlus gives another rule."""
EVERY = (*SUMS, "ZPlus", "Gamma", "AlphaBeta", "EpsilonPlus")
"""And where sums are the same too, sign by sign."""


@dataclass(frozen=True, eq=False)
class Group:
    """One function in several spellings, `(params, h) -> y`.

    Attributes:
        name: of the group.
        spellings: by name; the first one is the standard.
        params: shapes of the parameters.
        reference: `(params, h, gates) -> y`, whose gradient times input is relevance under
            AttnLRP, and with `gates` under CP-LRP; None where there is no word on it.
        composites: under which all have one relevance.
        shape: of the input.
        entry: whether a dense layer with a bias makes `h` of the input.
        positive: whether a softplus follows, for functions of positive numbers.
        rounding: how far values may differ (relevance a thousand times as far).
        merged: whether what a spelling computes twice is computed once. Spellings repeat themselves
            to be short; what is written twice on purpose is a group of its own (`twice.py`).
    """

    name: str
    spellings: Mapping[str, Piece]
    params: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    reference: Callable[[Params, Array, bool], Array | None] | None = None
    composites: tuple[str, ...] = EVERY
    shape: tuple[int, ...] = (2, 3, 4)
    entry: bool = True
    positive: bool = False
    rounding: float = 1e-9
    merged: bool = True

    @property
    def standard(self) -> str:
        return next(iter(self.spellings))

    def network(
        self, piece: Piece, *, by_hand: bool = False, place: Place = BETWEEN_LAYERS
    ) -> Piece:
        """A piece between an input layer and an output layer, or in another place."""
        inner = piece if by_hand or not self.merged else merged(piece)
        positive = partial(function, jax.nn.softplus) if by_hand else jax.nn.softplus

        def apply(params: Params, x: Array) -> Array:
            h = place.front(params, x) if self.entry else x
            y = inner(params, positive(h) if self.positive else h)
            batch = x.shape[: x.ndim - len(self.shape) + 1]  # none where one example comes alone
            return place.back(y).reshape(*batch, -1) @ params["out"]

        return apply

    def example(self) -> tuple[dict[str, Array], Array, Array]:
        """Parameters, a batch of inputs, and the weighting of the outputs that is explained."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))

        def draw(*shape: int) -> Array:
            fan_in = int(np.prod(shape[:-1])) or 1
            return jnp.asarray(rng.standard_normal(shape) / np.sqrt(fan_in))

        features = self.shape[-1]
        params = {"entry": draw(features, features), "entry_bias": 0.3 * draw(features)}
        params |= {name: draw(*shape) for name, shape in self.params.items()}
        x = jnp.asarray(rng.standard_normal(self.shape))
        made = jax.eval_shape(self.spellings[self.standard], params, x)
        params["out"] = draw(int(np.prod(made.shape[1:])), CLASSES)
        weighting = jnp.asarray(rng.standard_normal((self.shape[0], CLASSES)))
        return params | {"second": draw(features, features)}, x, weighting


def merged(piece: Piece) -> Piece:
    """A function whose equal equations are one."""

    def apply(params: Params, h: Array) -> Array:
        closed = jax.make_jaxpr(piece)(params, h)
        jaxpr = compat.open_jaxpr(closed)
        known: dict[Any, list[Any]] = {}
        names: dict[Any, Any] = {}
        eqns = []
        for eqn in jaxpr.eqns:
            invars = [a if compat.is_literal(a) else names.get(a, a) for a in eqn.invars]
            operands = [
                (str(a.aval), repr(a.val)) if compat.is_literal(a) else id(a) for a in invars
            ]
            key = (eqn.primitive, *operands, str(eqn.params))
            if key in known:
                names.update(zip(eqn.outvars, known[key], strict=True))
            else:
                known[key] = eqn.outvars
                eqns.append(eqn.replace(invars=invars))
        out = [a if compat.is_literal(a) else names.get(a, a) for a in jaxpr.outvars]
        fewer = jaxpr.replace(eqns=eqns, outvars=out)
        (y,) = jax.core.eval_jaxpr(fewer, closed.consts, *jax.tree.leaves((params, h)))
        return y

    return apply


# -- relevance by hand: what the gradient times the input is to see ------------------------------

hold = lax.stop_gradient


def function(f: Callable[[Array], Array], u: Array) -> Array:
    """f(u) = (f(u) / u) u, the factor a constant: all to u."""
    return u * hold(f(u) / u)


def shares(*factors: Array) -> Array:
    """A product of N factors, 1/N to each."""

    def but(i: int) -> Array:
        others = [hold(f) for j, f in enumerate(factors) if j != i]
        return factors[i] * jnp.prod(jnp.stack(jnp.broadcast_arrays(*others)), 0)

    return sum(but(i) for i in range(len(factors))) / len(factors)  # type: ignore[return-value]


def halves(bilinear: Callable[[Array, Array], Array], a: Array, b: Array) -> Array:
    """A bilinear function, half to each operand."""
    return (bilinear(a, hold(b)) + bilinear(hold(a), b)) / 2


def signal(gate: Array, value: Array, gates: bool) -> Array:
    """A gate times a value: all to the value where gates are held, else half to each."""
    return hold(gate) * value if gates else shares(gate, value)
