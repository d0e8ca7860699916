"""What depends on explained numbers, by floats and by integers that carry them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import compat, primitives as prim
from .compat import Equation, Var, is_literal
from .ids import CONVERT, is_float, is_integer, values_of
from .primitives import Family, family

_LIKE_FLOATS = compat.primitives("add add_jaxvals sub mul neg abs square integer_pow max min clamp")
_MOVES = (Family.STRUCTURAL, Family.NEUTRAL, Family.CONTRACTION, Family.SUM, Family.SCATTER_SUM)


def acts_as_on_floats(eqn: Equation) -> bool:
    """Whether an equation of integers computes what it would of the same numbers in float."""
    return family(eqn.primitive) in _MOVES or eqn.primitive in _LIKE_FLOATS


@dataclass(frozen=True, eq=False)
class Flow:
    """What depends on the explained numbers, by floats and by integers that carry them.

    Attributes:
        reached: floats.
        carried: integers made by casts, products, sums.
        lost: what nobody understands, with the equation that made it so.
    """

    reached: set[Var]
    carried: set[Var] = field(default_factory=set)
    lost: dict[Var, Equation] = field(default_factory=dict)

    def follow(self, eqns: Iterable[Equation], undetached: Iterable[Equation] = ()) -> "Flow":
        """What follows from some equations, in order."""
        through = {id(eqn) for eqn in undetached}
        for eqn in eqns:
            if family(eqn.primitive) is not Family.DETACH or id(eqn) in through:
                self._through(eqn)
        return self

    def _through(self, eqn: Equation) -> None:
        operands = [eqn.invars[i] for i in values_of(eqn) if not is_literal(eqn.invars[i])]
        entered = bodies(eqn)
        if entered:
            for body in entered:
                self._through_body(eqn, operands, body)
            return
        makes = [v for v in eqn.outvars if is_float(v)]
        integers = [v for v in eqn.outvars if is_integer(v)]
        source = next((self.lost[a] for a in operands if a in self.lost), None)
        if source is not None:
            self.lost.update(dict.fromkeys([*makes, *integers], source))
        elif any(a in self.carried for a in operands):
            if acts_as_on_floats(eqn):
                self.carried.update(integers)
            else:
                self.lost.update(dict.fromkeys([*makes, *integers], eqn))
        elif any(a in self.reached for a in operands) and eqn.primitive is CONVERT:
            self.carried.update(integers)
        if any(a in self.reached or a in self.carried or a in self.lost for a in operands):
            self.reached.update(makes)

    def _through_body(self, eqn: Equation, operands: list[Any], body: Any) -> None:
        """Into a body go floats; integers that carry relevance cross no border."""
        values = [eqn.invars[i] for i in values_of(eqn)]
        jaxpr = compat.open_jaxpr(body)
        floats = [not is_literal(a) and a in self.reached for a in values]
        integers = [not is_literal(a) and (a in self.carried or a in self.lost) for a in values]
        inside = _inside(eqn, body, floats, integers)
        of_integers = _inside(eqn, body, [False] * len(floats), integers)
        for var, atom in zip(eqn.outvars, jaxpr.outvars, strict=False):
            if is_literal(atom):
                continue
            crosses = is_integer(var) and (atom in inside.carried or atom in inside.lost)
            if crosses or atom in of_integers.reached:
                self.lost[var] = eqn
            if atom in inside.reached and is_float(var):
                self.reached.add(var)

    def live(self, eqns: Sequence[Equation], wanted: set[Var]) -> set[Var]:
        """Those of the variables through which relevance of `wanted` comes."""
        known = self.reached | self.carried | self.lost.keys()
        live = wanted & known
        for eqn in reversed(eqns):
            if any(v in live for v in eqn.outvars):
                operands = (eqn.invars[i] for i in values_of(eqn))
                live.update(a for a in operands if not is_literal(a) and a in known)
        return live


def casts_to_integers(eqn: Equation) -> bool:
    """Whether an equation makes integers of floats."""
    return eqn.primitive is CONVERT and is_float(eqn.invars[0]) and is_integer(eqn.outvars[0])


def bodies(eqn: Equation) -> list[Any]:
    """The bodies that numbers pass: of calls, loops and branches."""
    body = compat.plain_call(eqn)
    if body is None:
        body = compat.custom_call(eqn)
    if body is not None:
        return [body]
    if family(eqn.primitive) is not Family.CONTROL or eqn.primitive is prim.WHILE:
        return []
    if eqn.primitive is prim.COND:
        return [compat.closed(b) for b in eqn.params["branches"]]
    return [compat.closed(eqn.params["jaxpr"])]


def _inside(eqn: Equation, body: Any, floats: list[bool], integers: list[bool]) -> Flow:
    jaxpr = compat.open_jaxpr(body)
    constants, carries = compat.scan_arity(eqn) if eqn.primitive is prim.SCAN else (0, 0)
    while True:  # what one step makes, the next step's carry brings in
        flow = Flow(
            {v for v, flag in zip(jaxpr.invars, floats, strict=False) if flag},
            {v for v, flag in zip(jaxpr.invars, integers, strict=False) if flag},
        ).follow(jaxpr.eqns)
        grown = False
        for i, atom in enumerate(jaxpr.outvars[:carries]):
            if is_literal(atom):
                continue
            for flags, found in (
                (floats, flow.reached),
                (integers, flow.carried | flow.lost.keys()),
            ):
                if atom in found and not flags[constants + i]:
                    flags[constants + i] = grown = True
        if not grown:
            return flow


def casts_inside(jaxpr: Any) -> bool:
    """Whether a body makes integers of floats, also in bodies of its own."""
    return any(
        casts_to_integers(eqn) or any(casts_inside(compat.open_jaxpr(b)) for b in bodies(eqn))
        for eqn in jaxpr.eqns
    )
