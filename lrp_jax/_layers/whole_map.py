"""Linear maps that are known as a whole: their matrix is never written out."""

from collections.abc import Sequence
from typing import Any, NoReturn

import jax

from .arithmetic import at_least_float32
from .step import UnsupportedOperation
from .sums import SumLayer
from .terms import Term, total_of


class WholeMap(SumLayer):
    """A map whose single weights are not known: it has no contributions of one sign."""

    what: str

    def shift(self, bias_policy: str) -> None:
        """Tell the constants that are added on the way from what is linear."""
        _, linear = jax.jvp(self._function, self.xs, self.xs)
        if bias_policy == "ignore":
            self.output = at_least_float32(linear)
        else:
            self.bias = self.value - linear

    def bias_share(self, terms: Sequence[Term]) -> jax.Array:
        share: jax.Array = total_of([t.share * t.positive for t in terms])
        return share * self.bias

    def _refuse(self, *_: Any) -> NoReturn:
        raise UnsupportedOperation(
            f"{self.what} has no contributions of one sign or count of inputs, which its rule asks "
            "for: give it Norm(), Epsilon() or Zero()."
        )

    positive = negative = property(_refuse)  # type: ignore[assignment]
    _by_sign = flat_relevance = spread_evenly = _refuse  # type: ignore[assignment]
