"""A graph as the families of layers read it: cores of layers, and the chains beside them."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from .._analysis import compat, primitives as prim
from .._analysis.compat import Equation, Var, is_literal
from .._analysis.facts import dominators, names_of, nonnegative_variables, sources
from .._analysis.graph import Graph, is_complex, is_float
from .._analysis.monomials import Monomials
from .._analysis.places import CUTS
from .._analysis.primitives import Family, family
from .._analysis.states import states_in_sums
from .._analysis.trace import layer_name
from .._analysis.weights import weights_of
from .chains import pads_with_zeros
from .step import Found, Frame, Step

AnyStep = TypeVar("AnyStep", bound=Step)


class Core(NamedTuple):
    """What makes a variable before affine equations follow: an equation, or a layer found whole."""

    eqn: Equation
    layer: type[Step] | Found

    @property
    def takes_affine(self) -> bool:
        return self.layer.takes_affine


class Tail(NamedTuple):
    """Affine equations that nobody else reads, from `start` on, and the core before them."""

    chain: list[Equation]
    start: Var
    core: Core | None


class Reading:
    """A flat jaxpr with what is known of it, for the families of layers.

    Args:
        closed_jaxpr: a jaxpr without plain calls (`trace.inline`).
        explained: which inputs are explained.
        names: tree paths of the inputs.
        nonnegative: which inputs are known to be non-negative.
        outputs: which outputs carry relevance (default: every explained one).
        families: the families of layers, in the order in which they are asked.
        analyse: the analysis of a body, with the same arguments as this.
        gates: for each input, how much it looks like a gate.
        calls: globs of the names of called functions that stay whole.
        closed_over: whether arrays that come from no argument are weights.
    """

    def __init__(
        self,
        closed_jaxpr: Any,
        explained: tuple[bool, ...],
        names: Iterable[str],
        nonnegative: Iterable[bool] | None,
        outputs: Iterable[bool] | None,
        families: Sequence[type[Step]],
        analyse: Callable[..., Frame],
        gates: Iterable[int] | None = None,
        calls: tuple[str, ...] = (),
        closed_over: bool = True,
    ) -> None:
        self.graph = Graph(closed_jaxpr, explained, None if outputs is None else tuple(outputs))
        self.names = names_of(self.graph, names)
        self.weights = weights_of(self.graph, self.names, closed_over)
        self.states = states_in_sums(self.graph, self.weights)
        self.dominator = dominators(self.graph, self.states)
        signs = tuple(nonnegative or ())
        self.nonnegative = (
            nonnegative_variables(self.graph, signs)
            if any(signs)
            else self.graph.once(nonnegative_variables)
        )
        self.explained, self.analyse = explained, analyse
        self.bodies: dict[int, tuple[Frame, ...]] = {}
        invars = compat.open_jaxpr(closed_jaxpr).invars
        self.gates = dict(zip(invars, gates or [0] * len(invars), strict=True))
        self.calls = calls
        self._families = families
        self.found: dict[Var, Found] = {}
        for layer in families:
            self.found.update(layer.search(self.graph, self.dominator.keys() | self.found.keys()))
        self.monomials = Monomials(self.graph, self.dominator, self.found)

    # -- chains of affine equations -------------------------------------------------------------

    def chain_up(self, var: Var, padded: bool = False) -> tuple[list[Equation], Var]:
        """Affine and structural equations that lead to `var` and that nobody else reads."""
        chain: list[Equation] = []
        current = var
        while True:
            eqn = self.graph.maker.get(current)
            links = eqn is not None and current not in self.found and self.is_link(eqn)
            if eqn is None or not (links or (padded and pads_with_zeros(eqn))):
                return chain, current
            chain.insert(0, eqn)
            current = eqn.invars[self.graph.explained_operands(eqn)[0]]
            if not self.graph.read_once(current):
                return chain, current

    def is_link(self, eqn: Equation) -> bool:
        """Whether the equation is affine or only changes the shape of its one explained operand."""
        operands = self.graph.explained_operands(eqn)
        if len(operands) != 1 or len(eqn.outvars) != 1 or eqn.outvars[0] in self.states:
            return False
        if is_complex(eqn.invars[operands[0]]) or not is_float(eqn.invars[operands[0]]):
            return False
        if prim.changes_no_number(eqn.primitive):
            return True
        if prim.is_psum(eqn.primitive):  # completes a contraction whose terms lie on many devices
            maker = self.graph.maker.get(eqn.invars[0])
            return maker is not None and family(maker.primitive) is Family.CONTRACTION
        if family(eqn.primitive) is not Family.AFFINE or self._switches(eqn, operands[0]):
            return False
        return not (eqn.primitive is prim.DIV and operands[0] == 1)

    def _switches(self, eqn: Equation, position: int) -> bool:
        """Whether a value is scaled by what its own number is: u times (u > 0)."""
        if eqn.primitive not in (prim.MUL, prim.DIV) or eqn.outvars[0] not in self.dominator:
            return False
        found = sources(eqn.invars[1 - position], self.graph)
        own = self._elementwise_of(eqn.invars[position])
        return bool(found) and all(own & self._elementwise_of(v) for v in found)

    def _elementwise_of(self, var: Var) -> set[Var]:
        """A variable and all that it is an elementwise function of."""
        found = {var}
        while var in self.dominator:
            var = self.dominator[var]
            found.add(var)
        return found

    def core(self, var: Var) -> Core | None:
        """The core of a layer that makes `var`, or None."""
        eqn = self.graph.maker.get(var)
        if eqn is None:
            return None
        found = self.found.get(var)
        if found is not None:
            return Core(eqn, found) if found.takes_affine else None
        layer = next((layer for layer in self._families if layer.is_core(self, eqn)), None)
        return None if layer is None else Core(eqn, layer)

    def behind(self, var: Var) -> Core | None:
        """The core of a layer of which `var` is all or a part, scaled or shifted perhaps."""
        while (core := self.core(var)) is None:
            eqn = self.graph.maker.get(var)
            if (
                eqn is None
                or eqn.primitive not in CUTS
                or self.graph.explained_operands(eqn) != [0]
            ):
                return None
            var = self.chain_up(eqn.invars[0])[1]
        return core

    def tail(self, var: Var) -> Tail | None:
        """The affine equations that end at `var`; a trailing reshape alone belongs to nobody."""
        if self._tail[0] is not var:  # the families ask for one variable in turn
            self._tail = (var, self._tail_of(var))
        return self._tail[1]

    _tail: tuple[Var | None, Tail | None] = (None, None)

    def _tail_of(self, var: Var) -> Tail | None:
        eqn = self.graph.maker[var]
        ends = family(eqn.primitive) is Family.AFFINE or prim.is_psum(eqn.primitive)
        if self.is_link(eqn) and not ends:
            return None
        chain, start = self.chain_up(var)
        # Where someone reads the layer's output before the chain, the chain stands alone.
        alone = bool(chain) and not self.graph.read_once(start)
        return Tail(chain, start, None if alone else self.core(start))

    def gate_of(self, var: Var) -> int | None:
        """How much an input, or what a body makes, looks like a gate; None for anything else."""
        if var not in self.graph.maker:
            return self.gates.get(var, 0)
        ranks = (layer.gate_of(self, var) for layer in self._families)
        return next((rank for rank in ranks if rank is not None), None)

    # -- steps ----------------------------------------------------------------------------------

    def step(
        self,
        layer: type[AnyStep],
        eqns: Sequence[Equation],
        inputs: Iterable[Var],
        outputs: Iterable[Var],
        kind: str = "",
        core: Equation | None = None,
        called: str = "",
        **own: Any,
    ) -> AnyStep:
        """A step of a family, with its constants, its name and the line that wrote it.

        Without weights that name it, a step is called by its scope and `called`, or its kind.
        """
        inputs = tuple(dict.fromkeys(inputs))
        made = {v for eqn in eqns for v in eqn.outvars}
        constants = dict.fromkeys(
            a
            for eqn in eqns
            for a in eqn.invars
            if not is_literal(a) and a not in made and a not in inputs
        )
        weights = tuple(dict.fromkeys(self.names[c] for c in constants if c in self.names))
        outputs = tuple(v for v in outputs if not compat.is_dropped(v))
        if weights and kind and layer.named_by_weights:
            operands = core.invars if core is not None else ()
            of_core = [self.names[a] for a in operands if not is_literal(a) and a in self.names]
            weights = tuple(dict.fromkeys((*of_core, *weights)))
            name = layer_name(weights[0])
        else:
            name = "/".join((*compat.scope(core or eqns[-1]), called or kind))
        return layer(
            eqns=tuple(eqns),
            inputs=inputs,
            constants=tuple(constants),
            outputs=outputs,
            position=max((self.graph.position[v] for v in outputs), default=-1),
            kind=kind,
            name=name,
            weights=weights,
            source=compat.source_line(core or eqns[-1]),
            nonnegative=len(inputs) > 0 and all(v in self.nonnegative for v in inputs),
            **own,
        )

    def refusal(self, eqn: Equation) -> str:
        """The message for an equation through which no rule carries relevance."""
        return refusal(eqn)


def refusal(eqn: Equation) -> str:
    """The message for an equation through which no rule carries relevance."""
    place = "/".join(compat.scope(eqn)) or "the function"
    shapes = ", ".join(str(a.aval) for a in eqn.invars)
    around = compat.function_around(eqn)
    named = (
        f"name the function around it as one layer with an entry "
        f'(lrp.call("{around}"), lrp.Weighted(...))'
        if around
        else "make the function around it one layer (lrp.as_layer) that an entry names"
    )
    return (
        f"no rule carries relevance through `{eqn.primitive}` ({shapes}) in {place}, "
        f"written at {compat.source_line(eqn)}. Compute it from other operations, {named}, or "
        "put jax.lax.stop_gradient around it to make it a constant of the explanation."
    )
