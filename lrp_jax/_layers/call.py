"""Called functions as one layer: kernels, callbacks, and what a composite names.

A composite's entry `(lrp.call(glob), rule)` keeps a called function whole; in a flat jaxpr every
`jit` is such a call. What runs backwards is the function's own derivative, at its own operands.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp

from .._analysis import compat
from .._analysis.compat import Var, is_literal
from .arithmetic import hold, weigh
from .linear import Linear
from .reading import Reading
from .step import Backward, Place, UnsupportedOperation, Visit, Way
from .sums import SumLayer, first_of


@dataclass(frozen=True, eq=False, kw_only=True)
class Call(Linear):
    """A call of a function, of which one output carries relevance.

    Attributes:
        function: its name.
        operands: positions of the operands that are explained; one variable may be several.
    """

    function: str
    operands: tuple[int, ...]

    @classmethod
    def recognise(cls, reading: Reading, var: Var) -> Self | None:
        eqn = reading.graph.maker[var]
        if compat.plain_call(eqn) is None:
            return None
        name = compat.called_name(eqn)
        operands = tuple(reading.graph.explained_operands(eqn))
        live = [v for v in eqn.outvars if v in reading.graph.live]
        if len(live) > 1:
            raise UnsupportedOperation(
                f"{len(live)} outputs of the called function `{name}` ({_listed(live)}) carry "
                f"relevance, called at {compat.source_line(eqn)}: as one layer it may have one. "
                "Make the others constants with jax.lax.stop_gradient, or call a function of one "
                "output."
            )
        read = [v for v in eqn.outvars if v in reading.graph.readers and v not in live]
        inputs = [eqn.invars[i] for i in operands]
        return reading.step(
            cls, [eqn], inputs, [*live, *read], "Call", called=name, function=name,
            operands=operands,
        )  # fmt: skip

    def check(self, rule: Any) -> None:
        if rule.way is Way.NOTHING:
            return
        eqn = self.eqns[0]
        there = f"`{self.function}` has {len(self.operands)} explained operands: " + _listed(
            [eqn.invars[i] for i in self.operands]
        )
        if rule.way is not Way.FUNCTION and len(self.operands) != 1:
            raise ValueError(
                f"{rule!r} serves calls of one explained operand, and {there}. Give it "
                "lrp.Weighted(...), one weight for each."
            )
        if rule.way is Way.FUNCTION:
            shares = rule.shares(len(self.operands), frozenset())
            if shares is not None and len(shares) != len(self.operands):
                raise ValueError(f"{rule!r} has {len(shares)} weights, and {there}.")
        if rule.way is Way.UNCHANGED:
            return
        try:
            jax.eval_shape(self._pulled, *(_shape(a) for a in eqn.invars if not is_literal(a)))
        except Exception as error:
            raise UnsupportedOperation(
                f"the called function `{self.function}` ({self.source}) has no derivative, which "
                f"{rule!r} needs: define one with jax.custom_vjp. JAX says: "
                f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
            ) from error

    def _pulled(self, *values: Any) -> Any:
        """The function's own derivative, once."""
        given = iter(values)
        operands = [a.val if is_literal(a) else next(given) for a in self.eqns[0].invars]
        closed: Any = compat.plain_call(self.eqns[0])
        body = compat.open_jaxpr(closed)
        where = list(self.eqns[0].outvars).index(self.outputs[0])

        def function(*explained: Any) -> Any:
            for position, value in zip(self.operands, explained, strict=True):
                operands[position] = value
            return jax.core.eval_jaxpr(body, closed.consts, *operands)[where]

        y, pull = jax.vjp(function, *(operands[i] for i in self.operands))
        return pull(jnp.ones_like(y))

    def view(
        self, place: Place, xs: Sequence[Any], constants: Sequence[Any], y: jax.Array,
        relevance: jax.Array, bias: str,
    ) -> SumLayer:  # fmt: skip
        return SumLayer(partial(first_of, place.native, constants), xs, y, relevance)

    def backward(self, rule: Any, out: str) -> Backward:
        if rule is None or rule.way is Way.FUNCTION:
            return Backward("C", self._weighted, True)
        return super().backward(rule, out)._replace(outputs=partial(self._one, rule, out))

    def _one(self, rule: Any, out: str, visit: Visit) -> list[Any]:
        """The output that carries relevance, and beside it the others."""
        alone = replace(self, outputs=self.outputs[:1])
        found = Linear.backward(alone, rule, out).outputs(
            replace(visit, place=replace(visit.place, step=alone))
        )
        if len(self.outputs) > 1:
            found += visit.place.native(*map(hold, visit.inputs), *visit.constants)[1:]
        return found

    def _weighted(self, visit: Visit) -> list[Any]:
        """The function with its own derivative, a share of it for each explained operand."""
        own, invars = compat.by_position(self.eqns[0])
        values = dict(
            zip((*self.inputs, *self.constants), (*visit.inputs, *visit.constants), strict=True)
        )
        operands = [a.val if is_literal(a) else values[a] for a in self.eqns[0].invars]
        shares = visit.rule.shares(len(self.operands), frozenset())
        for position, share in zip(self.operands, shares or (), strict=shares is not None):
            operands[position] = weigh(operands[position], share)
        return visit.place.part([own], invars, self.outputs)(*operands)


def _listed(atoms: Sequence[Any]) -> str:
    return ", ".join(f"{a.aval.dtype}{list(a.aval.shape)}" for a in atoms)


def _shape(atom: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(atom.aval.shape, atom.aval.dtype)
