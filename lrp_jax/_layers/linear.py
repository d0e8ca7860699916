"""What all linear layers share: what a rule is given, and the backward pass around it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .alike import once
from .arithmetic import UNCHANGED, divide, made_once, relevance_of, share_out, times_value
from .step import Backward, Place, Step, Visit, Way


class LinearLayer:
    """What a rule is given: sums of contributions at the output of a linear layer.

    Attributes:
        relevance: R_j, in at least float32.
        value: z_j as it is, which decides the signs.
        output: z_j as the bias policy sees it.
        bias: b_j as the bias policy sees it (0.0 where there is none).
        only_positive: whether outputs <= 0 carry no relevance.
    """

    relevance: jax.Array
    value: jax.Array
    output: jax.Array
    bias: Any
    only_positive: bool
    positive: Any
    negative: Any
    absorbed: list[tuple[jax.Array, jax.Array]]

    def divide(self, relevance: Any, value: Any, epsilon: Any) -> jax.Array:
        """R / S(z), keeping account of what the stabiliser and zero denominators take."""
        share = divide(relevance, value, epsilon)
        passed = jnp.where(share == 0, 0, value * share)  # a masked logit is -inf
        self.absorbed.append((relevance, relevance - passed))
        return share

    def losses(self) -> tuple[jax.Array, jax.Array]:
        """What stabilisers absorbed, and what met a denominator that is exactly zero."""
        zero = jnp.zeros((), self.relevance.dtype)
        stabilized, dropped = zero, self.relevance.sum()
        for given, lost in self.absorbed:
            dropped = dropped - jnp.sum(given)
            dead = given == lost
            stabilized = stabilized + jnp.sum(jnp.where(dead, 0, lost))
            dropped = dropped + jnp.sum(jnp.where(dead, lost, 0))
        return stabilized, dropped if self.absorbed else zero

    def own_bias(self) -> jax.Array:
        """What the bias takes of rules that make relevance by themselves, summed."""
        return jnp.zeros((), self.relevance.dtype)

    def parameters(self, asked: str, terms: Sequence[Any] | None) -> dict[Any, Any] | None:
        """The cotangents of the parameters by variable, where they are asked for (`Visit`)."""
        return None


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Linear(Step):
    """A layer that is linear in its explained inputs, up to a bias."""

    def view(
        self, place: Place, xs: Sequence[Any], constants: Sequence[Any], y: jax.Array,
        relevance: jax.Array, bias: str,
    ) -> Any:  # fmt: skip
        """The layer at one input, as a rule sees it."""
        raise NotImplementedError

    def backward(self, rule: Any, out: str) -> Backward:
        if rule.way is Way.UNCHANGED:
            return UNCHANGED
        return Backward("R" if rule.makes_relevance else "C", self._outputs)

    def _outputs(self, visit: Visit) -> list[Any]:
        rule = visit.rule
        absorbs = getattr(rule, "bias", "absorb") == "absorb"
        # Where the layer's own gradient serves, nothing is better; a parameter too gets its
        # multiplier from it.
        if rule.way is Way.PROPORTION and absorbs and visit.probe is None:
            (y,) = visit.as_it_is()
            y = made_once(y) if len(self.inputs) > 1 else y
            return [share_out(y, rule.divisor, visit.place.out)]
        return [_shared(self, visit)]


def _shared(step: Linear, visit: Visit) -> jax.Array:
    """The output of a linear layer whose rule has its own backward pass.

    The cotangent of `absorbed` reports what was absorbed: by the bias, by stabilisers, by zero
    denominators.
    """

    place = visit.place

    @jax.custom_vjp
    def layer(xs: Any, constants: Any, rule: Any, absorbed: Any) -> jax.Array:
        return place.native(*xs, *constants)[0]

    def forward(xs: Any, constants: Any, rule: Any, absorbed: Any) -> tuple[jax.Array, Any]:
        (y,) = place.native(*xs, *constants)
        return y, (xs, constants, rule, y, absorbed)

    def backward(saved: Any, cotangent: jax.Array) -> tuple[Any, ...]:
        results, parameters, report = once(_way_back, place)(saved, cotangent)
        return results, _cotangents(parameters, saved[1]), None, report

    layer.defvjp(forward, backward)
    return layer(tuple(visit.inputs), tuple(visit.constants), visit.rule, visit.probe)


def _way_back(place: Place, saved: Any, cotangent: jax.Array) -> tuple[Any, Any, Any]:
    """What comes back to the inputs; to those constants that are parameters; what was absorbed."""
    xs, constants, rule, y, absorbed = saved
    step = place.step
    relevance = relevance_of(cotangent, y, place.out)
    view = step.view(place, xs, constants, y, relevance, getattr(rule, "bias", "absorb"))
    by_bias: Any = jnp.zeros((), view.relevance.dtype)
    terms = None
    if rule.way is Way.OWN:
        result = rule.input_relevance(view)
        by_bias = view.own_bias()
    else:
        terms = rule.checked_terms(view)
        result = view.multiplier(terms)
        if rule.makes_relevance:
            results = result if isinstance(result, tuple) else (result,)
            result = tuple(times_value(c, x) for c, x in zip(results, xs, strict=True))
        has_bias = not isinstance(view.bias, float)
        if has_bias and rule.makes_relevance:
            share = view.bias_share(terms)
            result = (result[0] + view.spread_evenly(share),)
            by_bias = jnp.sum(view.kept(share))
        elif has_bias and absorbed is not None:
            by_bias = jnp.sum(view.bias_share(terms))
    results = result if isinstance(result, tuple) else (result,)
    results = tuple(r.astype(x.dtype) for r, x in zip(results, xs, strict=True))
    found = view.parameters(place.parameters, terms) if place.parameters else None
    parameters = found and tuple(
        found[v].astype(c.dtype) if v in found else None
        for v, c in zip(step.constants, constants, strict=True)
    )
    report = None
    if absorbed is not None:
        report = jnp.stack([by_bias, *view.losses()]).astype(absorbed.dtype)
    return results, parameters, report


def _cotangents(found: Sequence[Any] | None, constants: Sequence[Any]) -> Any:
    if found is None:
        return None
    pairs = zip(found, constants, strict=True)
    return tuple(_no_cotangent(c) if r is None else r for r, c in pairs)


def _no_cotangent(value: Any) -> Any:
    if jnp.issubdtype(jnp.result_type(value), jnp.inexact):
        return jnp.zeros_like(value)
    return np.zeros(jnp.shape(value), jax.dtypes.float0)
