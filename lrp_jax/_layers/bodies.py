"""Bodies of control flow: loops, branches, shards. Each is entered and built again."""

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._analysis import compat, primitives as prim
from .._analysis.compat import Equation, Var, is_literal
from .._analysis.graph import is_complex
from .._analysis.ids import is_integer
from .._analysis.primitives import Family, family
from .._analysis.signs import is_nonnegative, nonnegative_results
from .._analysis.trace import evaluate_inlined, inline
from .carriers import explained, plain
from .known_inside import with_known
from .product import gate_rank
from .reading import Reading
from .step import Backward, Frame, Step, UnsupportedOperation, Visit

Inside = Callable[..., tuple[list[Any], dict[str, Any]]]


class Border(NamedTuple):
    """What is known of the operands and results of an equation with a body.

    Attributes:
        explained: which operands carry relevance.
        names: tree paths of the operands.
        signs: which operands are known to be non-negative.
        wanted: which results carry relevance on.
        gates: how much each operand looks like a gate.
    """

    explained: Sequence[bool]
    names: Sequence[str]
    signs: Sequence[bool]
    wanted: Sequence[bool]
    gates: Sequence[int]


@dataclass(frozen=True, eq=False, kw_only=True)
class Body(Step):
    """An equation with bodies, each a frame."""

    @property
    def eqn(self) -> Equation:
        return self.eqns[0]

    @classmethod
    def recognise(cls, reading: Reading, var: Var) -> Step | None:  # type: ignore[override]
        graph, eqn = reading.graph, reading.graph.maker[var]
        if family(eqn.primitive) is not Family.CONTROL:
            return None
        if eqn.primitive is prim.WHILE:
            raise UnsupportedOperation(
                f"{reading.refusal(eqn)} A while loop whose count does not follow from "
                "numbers in the code has no reverse pass: use jax.lax.scan, or jax.lax.fori_loop "
                "with static bounds, which is a scan."
            )
        body = _BODIES.get(eqn.primitive, Shards)
        inputs = [eqn.invars[i] for i in graph.explained_operands(eqn)]
        turns = (eqn.params["length"],) if body is Loop else ()
        frames = cls.inside(reading, eqn)
        return reading.step(body, [eqn], inputs, eqn.outvars, frames=frames, turns=turns)

    @classmethod
    def read_in_order(cls, reading: Reading) -> None:
        """Read all bodies, the first one first: what is known crosses them one at a time."""
        for eqn in reading.graph.eqns:
            if _is_read(eqn) and reading.graph.is_live(eqn):
                cls.inside(reading, eqn)

    @classmethod
    def inside(cls, reading: Reading, eqn: Equation) -> tuple[Frame, ...]:
        """The bodies of an equation as frames, with what is known at its border."""
        if id(eqn) not in reading.bodies:
            live, names = reading.graph.live, reading.names
            explained = reading.graph.explained_flags(eqn)
            pairs = list(zip(eqn.invars, explained, strict=True))
            border = Border(
                explained,
                [names.get(a, "") if not is_literal(a) else "" for a in eqn.invars],
                [is_nonnegative(a, reading.nonnegative) for a in eqn.invars],
                [v in live for v in eqn.outvars],
                [gate_rank(reading, a) if flag else 0 for a, flag in pairs],
            )
            body = _BODIES.get(eqn.primitive, Shards)
            reading.bodies[id(eqn)] = body.analysed(reading, eqn, border)
        return reading.bodies[id(eqn)]

    @classmethod
    def gate_of(cls, reading: Reading, var: Var) -> int | None:
        eqn = reading.graph.maker[var]
        if not _is_read(eqn):
            return None
        index = list(eqn.outvars).index(var)
        frames = [f for f in cls.inside(reading, eqn) if f.outputs[index]]
        return min((f.gates[index] for f in frames), default=0)

    @classmethod
    def analysed(cls, reading: Reading, eqn: Equation, border: Border) -> tuple[Frame, ...]:
        """The bodies of an equation as frames, with what is known at its border."""
        raise NotImplementedError

    def arguments(self) -> Sequence[Any]:
        """The operands that the bodies read, in order."""
        return list(self.eqn.invars)

    def results(self) -> Sequence[Any]:
        """What the bodies make, in order."""
        return list(self.eqn.outvars)

    def forms_below(
        self, rules: Mapping[Step, Any] | None, arriving: Sequence[str], assign: Any
    ) -> tuple[dict[Var, str], tuple[Any, ...]]:
        by_var = dict(zip(self.outputs, arriving, strict=True))
        outs = [by_var.get(v, "C") for v in self.results()]
        demanded, inner = self._forms(rules, outs, assign)
        around = [*self.arguments(), *self.results()]
        found: dict[Var, str] = {}
        for atom, form in zip(around, [*demanded, *inner[0].outputs], strict=True):
            if not is_literal(atom) and found.get(atom) != "R":
                found[atom] = form
        return found, inner

    def _forms(
        self, rules: Mapping[Step, Any] | None, outs: list[str], assign: Any
    ) -> tuple[Sequence[str], tuple[Any, ...]]:
        """The form that every operand has, and the forms inside."""
        found = [assign(frame, rules, outs) for frame in self.frames]
        joint = [_joint(column) for column in zip(*(f.inputs for f in found), strict=True)]
        if len(found) > 1:
            found = [assign(frame, rules, outs, joint) for frame in self.frames]
        return joint, tuple(found)

    def backward(self, rule: Any, out: str) -> Backward:
        return Backward(out, self._rebuilt)

    def _rebuilt(self, visit: Visit) -> list[Any]:
        evaluation = visit.evaluation
        forms = evaluation.forms.bodies[self]
        values = [
            evaluation.read(a, f) for a, f in zip(self.arguments(), forms[0].inputs, strict=True)
        ]
        bodies = [evaluation.inside(frame, f) for frame, f in zip(self.frames, forms, strict=True)]
        outs, exposed = self.call(evaluation, bodies, values, evaluation.taps_inside(self))
        evaluation.exposed.update(exposed)
        kept = zip(self.results(), outs, strict=True)
        return [y for v, y in kept if not compat.is_dropped(v)]

    def call(
        self, evaluation: Any, bodies: list[Inside], values: list[Any], taps: dict[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """The equation built again around other bodies, with JAX's public function."""
        raise NotImplementedError

    def follow(self, inputs: list[Any], through: Callable[[Frame, list[Any]], list[Any]]) -> Any:
        return through(self.frames[0], inputs)


class Branches(Body):
    """`jax.lax.cond`, `jax.lax.switch`."""

    @classmethod
    def analysed(cls, reading: Reading, eqn: Equation, border: Border) -> tuple[Frame, ...]:
        explained, names, signs, wanted, gates = border
        return tuple(
            reading.analyse(
                with_known(inline(compat.closed(b), reading.calls), eqn.invars[1:], reading.graph),
                explained[1:],
                names[1:],
                signs[1:],
                wanted,
                gates[1:],
            )
            for b in eqn.params["branches"]
        )

    def arguments(self) -> Sequence[Any]:
        return list(self.eqn.invars[1:])

    def call(self, evaluation: Any, bodies: Any, values: Any, taps: Any) -> Any:
        columns = zip(*(frame.outputs for frame in self.frames), strict=True)
        wanted = [any(column) for column in columns]
        integers = [is_integer(v) and f for v, f in zip(self.eqn.outvars, wanted, strict=True)]

        def alike(branch: Inside) -> Inside:  # integers explained in one are so in all
            def body(values: Any, taps: Any) -> tuple[list[Any], dict[str, Any]]:
                outs, exposed = branch(values, taps)
                return _integers(outs, integers, evaluation), exposed

            return body

        bodies = [alike(branch) for branch in bodies]
        if evaluation.program.exposed:
            bodies = _alike(bodies, values, taps)
        index = evaluation.read(self.eqn.invars[0], "").astype(jnp.int32)
        return jax.lax.switch(index, bodies, values, taps)

    def follow(self, inputs: list[Any], through: Callable[[Frame, list[Any]], list[Any]]) -> Any:
        branches = [through(frame, inputs) for frame in self.frames]
        return [functools.reduce(operator.or_, column) for column in zip(*branches, strict=True)]


class Loop(Body):
    """`jax.lax.scan`: what a step explains, the next step's carry brings in."""

    @classmethod
    def analysed(cls, reading: Reading, eqn: Equation, border: Border) -> tuple[Frame, ...]:
        constants, carries = compat.scan_arity(eqn)
        body = inline(compat.closed(eqn.params["jaxpr"]), reading.calls)
        body = with_known(body, eqn.invars[:constants], reading.graph)
        explained, wanted, gates = map(list, (border.explained, border.wanted, border.gates))
        carry = slice(constants, constants + carries)
        signs = list(border.signs)
        known = {a for a, flag in zip(eqn.invars, signs, strict=True) if flag and not is_literal(a)}
        kept = nonnegative_results(eqn, lambda a: is_nonnegative(a, known))
        signs[carry] = kept[:carries]
        while True:  # grow both ends to a fixed point
            frame = reading.analyse(body, explained, border.names, signs, wanted, gates)
            made = frame.outvars[:carries]
            reached = [not is_literal(a) and a in frame.reached for a in made]
            flows_in = [v in frame.live for v in frame.invars[carry]]
            grown_in = [a or b for a, b in zip(explained[carry], reached, strict=True)]
            grown_out = [
                a or (b and c) for a, b, c in zip(wanted[:carries], flows_in, reached, strict=True)
            ]
            alike = [a if a == b else 0 for a, b in zip(gates[carry], frame.gates, strict=False)]
            if (grown_in, grown_out, alike) == (explained[carry], wanted[:carries], gates[carry]):
                return (frame,)
            explained[carry], wanted[:carries], gates[carry] = grown_in, grown_out, alike

    def _forms(
        self, rules: Mapping[Step, Any] | None, outs: list[str], assign: Any
    ) -> tuple[Sequence[str], tuple[Any, ...]]:
        constants, carries = compat.scan_arity(self.eqn)
        (frame,) = self.frames
        carry = slice(constants, constants + carries)
        held = outs[:carries]
        while True:  # a carry has one form for all steps
            inner = assign(frame, rules, [*held, *outs[carries:]])
            grown = [_joint(pair) for pair in zip(held, inner.inputs[carry], strict=True)]
            if grown == held:
                break
            held = grown
        wanted = list(inner.inputs)
        wanted[carry] = held
        inner = assign(frame, rules, [*held, *outs[carries:]], wanted)
        return inner.inputs, (inner,)

    def call(self, evaluation: Any, bodies: Any, values: Any, taps: Any) -> Any:
        n_constants, n_carries = compat.scan_arity(self.eqn)
        constants, values = values[:n_constants], values[n_constants:]

        (frame,) = self.frames
        carried = frame.invars[n_constants : n_constants + n_carries]
        integers = [
            is_integer(v) and (v in frame.live or wanted)
            for v, wanted in zip(carried, frame.outputs, strict=False)
        ]

        def alike(carry: list[Any]) -> list[Any]:  # explained in all steps or in none
            return _integers(carry, integers, evaluation)

        def body(carry: list[Any], sliced: Any) -> tuple[list[Any], Any]:
            xs, taps = sliced
            outs, exposed = bodies[0]([*constants, *carry, *xs], taps)
            return alike(outs[:n_carries]), (outs[n_carries:], exposed)

        params = {name: self.eqn.params[name] for name in ("length", "reverse", "unroll")}
        last, (ys, exposed) = jax.lax.scan(
            body, alike(values[:n_carries]), (values[n_carries:], taps), **params
        )
        return [*last, *ys], exposed

    def follow(self, inputs: list[Any], through: Callable[[Frame, list[Any]], list[Any]]) -> Any:
        constants, carries = compat.scan_arity(self.eqn)
        outs = through(self.frames[0], inputs)
        for i in range(carries):  # what one step met, the next step's carry has met
            inputs[constants + i] = inputs[constants + i] | outs[i]
        return through(self.frames[0], inputs)


class Shards(Body):
    """`jax.shard_map`."""

    @classmethod
    def analysed(cls, reading: Reading, eqn: Equation, border: Border) -> tuple[Frame, ...]:
        # Calls are inlined where the axes of the devices have their names.
        body = compat.closed(eqn.params["jaxpr"])
        mapped = jax.shard_map(
            lambda *values: tuple(evaluate_inlined(body, values, reading.calls)),
            **compat.shard_map_arguments(eqn),
        )
        avals = [jax.ShapeDtypeStruct(a.aval.shape, a.aval.dtype) for a in eqn.invars]
        (outer,) = jax.make_jaxpr(mapped)(*avals).eqns
        try:
            return (reading.analyse(compat.closed(outer.params["jaxpr"]), *border),)
        except (NameError, ValueError) as error:  # written anew where axes have no names
            raise UnsupportedOperation(
                f"{reading.refusal(eqn)} Inside of it stands a layer that is written in pieces, "
                "and devices speak there. Write the layer as jax.nn has it, or put shard_map "
                "around the explanation."
            ) from error

    def call(self, evaluation: Any, bodies: Any, values: Any, taps: Any) -> Any:
        if taps:
            raise NotImplementedError(
                "layers inside shard_map cannot be observed: their arrays lie on many devices. Ask "
                "for layers outside of it, or put shard_map around the explanation."
            )
        mapped = jax.shard_map(
            lambda *v: tuple(bodies[0](v, {})[0]), **compat.shard_map_arguments(self.eqn)
        )
        return list(mapped(*values)), {}


_BODIES: dict[Any, type[Body]] = {
    prim.SCAN: Loop, prim.COND: Branches,
}  # fmt: skip


def _integers(values: list[Any], flags: Sequence[bool], evaluation: Any) -> list[Any]:
    """Results with those explained that are flagged."""
    dtype = evaluation.program.carrier
    return [explained(y, dtype) if f else plain(y) for y, f in zip(values, flags, strict=True)]


def _is_read(eqn: Equation) -> bool:
    """Whether an equation has bodies of real numbers; others may be part of one linear map."""
    controls = family(eqn.primitive) is Family.CONTROL and eqn.primitive is not prim.WHILE
    return controls and not any(map(is_complex, (*eqn.invars, *eqn.outvars)))


def _joint(forms: Sequence[str]) -> str:
    return "R" if "R" in forms else "C"


def _alike(branches: Sequence[Inside], values: Any, taps: Any) -> list[Inside]:
    """Branches that expose the same names: the layers of another branch are zeros."""
    shapes: dict[str, Any] = {}
    for branch in branches:
        shapes.update(jax.eval_shape(branch, values, taps)[1])

    def completed(branch: Inside) -> Inside:
        def body(values: Any, taps: Any) -> tuple[list[Any], dict[str, Any]]:
            outs, exposed = branch(values, taps)
            zeros = {n: jnp.zeros(s.shape, s.dtype) for n, s in shapes.items() if n not in exposed}
            return outs, exposed | zeros

        return body

    return [completed(branch) for branch in branches]
