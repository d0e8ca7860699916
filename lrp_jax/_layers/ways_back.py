"""Ways back through a contraction that look at no contributions, and ways to its parameters."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .._analysis.compat import is_literal
from .._analysis.primitives import Family, family
from .arithmetic import at_least_float32, divide
from .chains import SHIFTING, run_chain
from .contraction_map import Contracted, filled_like
from .contributions import Contributions
from .terms import Term, even_and_odd, shared_alike, total_of


class ContractionLayer(Contributions):
    """One contraction with weights at one input, as a rule sees it.

    Attributes:
        through_weights: what passes each weight, of rules that make relevance by themselves.
        through_bias: what the bias of each output absorbs of it.
    """

    through_weights: Callable[[], jax.Array]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.through_bias: Any = self.bias * 0.0

    def flat_relevance(self, stabilizer: Any) -> jax.Array:
        """Flat: R_j / S(n_j) to every real input."""
        share = self.divide(self.relevance, self._count, stabilizer)
        real = self._before(filled_like(self.x, 1), "structural")
        ones = filled_like(self._weight, 1)
        self.through_weights = lambda: self._through(real, ones, share, "structural")
        return self._even(share)

    def squared_relevance(self, stabilizer: Any, bias_policy: str) -> jax.Array:
        """w^2: in proportion to squared weights."""
        w2 = self._weight * self._weight
        scale = self._before(filled_like(self.x, 1), "squared")
        bias = self.bias * self.bias
        share = self.divide(self.relevance, self.forward(scale, w2, "squared") + bias, stabilizer)
        relevance = scale * self.backward(share, w2, "squared").astype(scale.dtype)
        relevance = self._through_before(relevance, "structural")
        self.through_weights = lambda: self._through(scale, w2, share, "squared")
        self.through_bias = share * bias
        if bias_policy == "distribute":
            relevance = relevance + self.spread_evenly(self.through_bias)
            self.through_bias = self.kept(self.through_bias)
        return relevance

    def box_relevance(self, low: Any, high: Any, stabilizer: Any) -> jax.Array:
        """z^B: contributions measured from the corner of the box that lowers the output most."""
        a, b = (_broadcast_bound(v, self.x, self._of) for v in (low, high))
        a, b = self._before(a, "linear"), self._before(b, "linear")
        low, high = jnp.minimum(a, b), jnp.maximum(a, b)
        w, size = self._weight, jnp.abs(self._weight)
        # l w+ + h w- = ((l + h) w + (l - h) |w|) / 2
        corner = self.forward(low + high, w, "linear") + self.forward(low - high, size, "absolute")
        share = self.divide(self.relevance, self._linear_output - corner / 2, stabilizer)
        even, odd = self.backward(share, w, "linear"), self.backward(share, size, "absolute")
        relevance = self._u * even - ((low + high) * even + (low - high) * odd) / 2
        self.through_weights = lambda: (
            self._through(self._u - (low + high) / 2, w, share, "linear")
            - self._through(
                jnp.broadcast_to((low - high) / 2, self._u.shape), size, share, "absolute"
            )
        )
        return self._through_before(relevance, "structural")

    def _through(self, u: jax.Array, w: jax.Array, share: jax.Array, mode: str) -> jax.Array:
        """What passes through each weight of `forward(u, w, mode)`."""
        z, back = jax.vjp(lambda v: self.forward(u, v, mode), w)
        return w * back(share.astype(z.dtype))[0]

    def own_multipliers(self) -> tuple[jax.Array, jax.Array]:
        """c of every weight and of every output's bias, of rules that make relevance themselves."""
        weights = divide(self.through_weights(), self._weight, 0.0)
        return weights, divide(self.through_bias, self.bias, 0.0)

    def through_zeros(self) -> tuple[jax.Array, jax.Array]:
        """Relevance through weights that are zero, of rules that do not look at weights."""
        through = self.through_weights()
        return jnp.where(self._weight == 0, through, 0), jnp.zeros_like(self.through_bias)

    def weight_multiplier(self, terms: Sequence[Term]) -> jax.Array:
        """c of every weight, with R_ij = w_ij c_ij the contributions sent through it."""
        w = self._weight

        def pull(u: jax.Array, share: jax.Array, mode: str) -> jax.Array:
            z, back = jax.vjp(lambda v: self.forward(u, v, mode), w)
            return back(share.astype(z.dtype))[0]

        even, odd = even_and_odd(terms)
        c = pull(self._u, even, "linear")
        if shared_alike(terms) is not None:
            return c
        return c + jnp.sign(w) * pull(jnp.abs(self._u), odd, "absolute")

    def bias_multiplier(self, terms: Sequence[Term]) -> jax.Array:
        """c of every output's bias, with R = b c what it absorbed."""
        up = total_of([t.share * t.positive for t in terms])
        down = total_of([t.share * t.negative for t in terms])
        return jnp.where(self.bias > 0, up, down)

    def bias_back(self, share: jax.Array) -> dict[Any, jax.Array]:
        """Multipliers of the constants that are added after the contraction."""
        after = self._of.after
        shifting = (e for e in after.eqns if e.primitive in SHIFTING)
        on_the_way = {after.start, *(v for e in after.eqns for v in e.outvars)}
        added = dict.fromkeys(
            a for e in shifting for a in e.invars if not is_literal(a) and a not in on_the_way
        )
        zeros = jnp.zeros(after.start.aval.shape, after.start.aval.dtype)

        def shifted(*values: jax.Array) -> jax.Array:
            new = dict(zip(added, values, strict=True))
            read = lambda a: new[a] if not is_literal(a) and a in new else self._read(a)  # noqa: E731
            return at_least_float32(run_chain(after, zeros, read, "zero"))

        z, back = jax.vjp(shifted, *(self._read(a) for a in added))
        return dict(zip(added, back(share.astype(z.dtype)), strict=True))

    def own_bias(self) -> jax.Array:
        return super().own_bias() + jnp.sum(self.through_bias)

    def parameters(self, asked: str, terms: Sequence[Term] | None) -> dict[Any, Any] | None:
        if terms is None:
            weight, bias = self.through_zeros() if asked == "zeros" else self.own_multipliers()
        elif asked == "multipliers":
            weight, bias = self.weight_multiplier(terms), self.bias_multiplier(terms)
        else:
            return None
        found = {} if isinstance(self.bias, float) else self.bias_back(bias)
        return {**found, self._of.weight: weight}


def _broadcast_bound(bound: Any, x: jax.Array, of: Contracted) -> jax.Array:
    """A bound as an input of the contraction, once for all examples where it is the same."""
    bound = jnp.asarray(bound, x.dtype)
    shape = list(x.shape)
    if not of.before.eqns and all(family(e.primitive) is Family.AFFINE for e in of.after.eqns):
        own = (1,) * (x.ndim - bound.ndim) + bound.shape
        for axis in of.example_axes(x.ndim):
            shape[axis] = own[axis]
    try:
        jnp.broadcast_to(bound, x.shape)
        return jnp.broadcast_to(bound, shape)
    except (ValueError, IndexError):
        raise ValueError(
            f"ZBox bounds of shape {bound.shape} do not broadcast against the layer's input of "
            f"shape {x.shape}: give scalars, or arrays that broadcast from the right (for channels "
            "that are not last, of shape (channels, 1, 1))."
        ) from None
