"""Products over an axis, in full or so far, and soft maxima so far."""

import math
from dataclasses import dataclass
from typing import Any, Self

import jax.numpy as jnp

from .._analysis import primitives as prim
from .._analysis.compat import Equation, Var
from .._analysis.primitives import Family, family
from .arithmetic import of_one, weigh
from .reading import Reading
from .step import Backward, Step, Visit

_KINDS: dict[Any, str] = {Family.PRODUCT: "Product", Family.LOGSUMEXP: "LogSumExp"}


@dataclass(frozen=True, eq=False, kw_only=True)
class Accumulation(Step):
    """One number of many along an axis, each of which is a factor, or a soft maximum of them."""

    @property
    def eqn(self) -> Equation:
        return self.eqns[0]

    @classmethod
    def recognise(cls, reading: Reading, var: Var) -> Self | None:
        eqn = reading.graph.maker[var]
        kind = _KINDS.get(family(eqn.primitive))
        return None if kind is None else reading.step(cls, [eqn], [eqn.invars[0]], [var], kind)

    @property
    def _so_far(self) -> bool:
        return self.eqn.primitive is not prim.REDUCE_PROD

    @property
    def _factors(self) -> int:
        shape, params = self.inputs[0].aval.shape, self.eqn.params
        axes = [params["axis"]] if self._so_far else params["axes"]
        return math.prod(shape[i] for i in axes)

    def check(self, rule: Any) -> None:
        if self.kind != "Product":
            return
        shares = rule.shares(self._factors, frozenset())
        if self._so_far and shares and len(set(shares)) > 1:
            raise ValueError(
                f"{rule!r} gives one factor more than another, and a cumulative product has other "
                "factors at every place: give it Uniform()."
            )

    def backward(self, rule: Any, out: str) -> Backward:
        if self.kind != "Product":
            return of_one(rule)
        return Backward("C", self._shared, True)

    def _shared(self, visit: Visit) -> list[Any]:
        shares = visit.rule.shares(self._factors, frozenset())
        (x,) = visit.inputs
        if shares is None:
            return visit.as_it_is()
        if self._so_far:  # of n factors each has 1 / n
            (y,) = visit.as_it_is()
            shape = [-1 if i == self.eqn.params["axis"] else 1 for i in range(y.ndim)]
            count = jnp.arange(1, self._factors + 1, dtype=y.dtype)
            count = count[::-1] if self.eqn.params["reverse"] else count
            return [weigh(y, 1 / count.reshape(shape))]
        axes = self.eqn.params["axes"]
        if len(set(shares)) == 1:
            (y,) = visit.as_it_is()
            return [weigh(y, shares[0])] if shares else [y]
        shape = [n if i in axes else 1 for i, n in enumerate(x.shape)]
        x = weigh(x, jnp.asarray(shares, x.dtype).reshape(shape))
        return visit.place.native(x, *visit.constants)
