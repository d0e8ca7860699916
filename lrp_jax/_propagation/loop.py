"""The only loop over steps: the user's computation, every layer with its rule's backward pass."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax.numpy as jnp

from .._analysis import compat
from .._analysis.compat import Equation, Var, is_literal
from .._layers.arithmetic import hold, modified_gradient, tap, to_multiplier, to_relevance
from .._layers.step import Backward, Frame, Step, Way
from . import lowerings
from .forms import Forms


@dataclass(frozen=True, eq=False)
class Program:
    """What evaluation needs to know; nothing in it is an array.

    Attributes:
        entries: for each layer, the index of its rule.
        gradient: whether the explanation is a modified gradient.
        indices: for each layer, its number in the plan.
        exposed: numbers of the layers whose outputs are results too.
        parameters: whether the cotangents of constants are the "multipliers" of the parameters, or
            the relevance that goes through "zeros" among them.
        stopped: numbers of the layers that hand no relevance on.
    """

    entries: Mapping[Step, int]
    gradient: bool
    indices: Mapping[Step, int] = field(default_factory=dict)
    exposed: frozenset[int] = frozenset()
    parameters: str = ""
    stopped: frozenset[int] = frozenset()


Taps = dict[str, Any]


def run(
    frame: Frame,
    forms: Forms,
    program: Program,
    rules: Sequence[Any],
    values: Sequence[Any],
    taps: Taps,
) -> tuple[list[Any], Taps]:
    """Evaluate a frame so that its vjp is the explanation.

    Args:
        frame: the steps.
        forms: the form of relevance at each variable.
        program: which rule each layer has.
        rules: the rules, their numbers possibly traced.
        values: values of the frame's inputs.
        taps: zeros whose cotangents report what comes back, by key (see `key`).

    Returns:
        The values of the outputs, and those of the exposed layers by key.
    """
    return Evaluation(frame, forms, program, rules, taps).run(values)


def key(place: str, index: int, operand: int = 0) -> str:
    """The name of a tap: at a layer's "out", at an operand "in", or its "bias"."""
    return f"{place}:{index}:{operand}"


class Evaluation:
    """One evaluation of a frame: the values that there are, and what was exposed."""

    def __init__(
        self, frame: Frame, forms: Forms, program: Program, rules: Sequence[Any], taps: Taps
    ) -> None:
        self.frame, self.forms, self.program = frame, forms, program
        self.rules, self.taps = rules, taps
        self.env: dict[Var, Any] = {}
        self.exposed: Taps = {}

    def run(self, values: Sequence[Any]) -> tuple[list[Any], Taps]:
        frame, forms = self.frame, self.forms
        jaxpr = compat.open_jaxpr(frame.jaxpr)
        self.env.update(zip(jaxpr.constvars, frame.jaxpr.consts, strict=True))
        for var, value, leaving in zip(jaxpr.invars, values, forms.inputs, strict=True):
            multiplies_out = leaving == "R" and forms.of.get(var) == "C" and var in frame.live
            if multiplies_out and not self.program.gradient:
                value = to_relevance(value)
            self.env[var] = value
        last_use = self._last_use()
        for number, step in enumerate(frame.steps):
            self.env.update(zip(step.outputs, self._execute(step), strict=True))
            for var in last_use.get(number, ()):
                self.env.pop(var, None)
        outs = [
            self.read(atom, form if flag else "")
            for atom, form, flag in zip(frame.outvars, forms.outputs, frame.outputs, strict=True)
        ]
        return outs, self.exposed

    def _last_use(self) -> dict[int, list[Var]]:
        last: dict[Var, int] = {}
        for number, step in enumerate(self.frame.steps):
            for var in (*step.inputs, *step.constants):
                last[var] = number
        kept = {a for a in self.frame.outvars if not is_literal(a)}
        dead: dict[int, list[Var]] = {}
        for var, number in last.items():
            if var not in kept:
                dead.setdefault(number, []).append(var)
        return dead

    def read(self, atom: Any, form: str) -> Any:
        """The value of an operand for a reader that hands back relevance in `form`."""
        if is_literal(atom):
            return atom.val
        value = self.env[atom]
        if form == "C" and self.forms.of.get(atom) == "R" and not self.program.gradient:
            return to_relevance(value)
        return value

    def _execute(self, step: Step) -> list[Any]:
        visit = StepVisit(self, step)
        outputs = visit.backward.outputs(visit)
        if visit.out == "R" and visit.backward.multiplies:
            outputs = [to_multiplier(y) for y in outputs]
        index = visit.index
        if index is None:
            return outputs
        if index in self.program.stopped:
            outputs = [hold(y) for y in outputs]
        outputs = [self.tapped(key("out", index, i), y) for i, y in enumerate(outputs)]
        if index in self.program.exposed:
            self.exposed[key("out", index)] = outputs[0]
            self.exposed.update({key("in", index, i): x for i, x in enumerate(visit.inputs)})
        return outputs

    def tapped(self, name: str, value: Any) -> Any:
        probe = self.taps.get(name)
        return value if probe is None else tap(value, probe)


class StepVisit:
    """What a step's backward pass may use of an evaluation (see `_layers.step.Visit`)."""

    def __init__(self, evaluation: Evaluation, step: Step) -> None:
        program = evaluation.program
        self._evaluation, self.step = evaluation, step
        entry = program.entries.get(step)
        self.rule = None if entry is None else evaluation.rules[entry]
        self.out = evaluation.forms.at(step)
        self.index = program.indices.get(step)
        self.parameters = program.parameters
        self.exposed = self.index in program.exposed
        self.exposing = bool(program.exposed)
        if not program.gradient or step.frames:
            self.backward = step.backward(self.rule, self.out)
        elif self.rule is not None and self.rule.gradient:
            self.backward = Backward(self.out, modified_gradient)
        else:
            self.backward = Step.backward(step, None, self.out)

    @cached_property
    def inputs(self) -> list[Any]:
        values = [self.read(v, self.backward.makes) for v in self.step.inputs]
        if self.index is None:
            return values
        names = (key("in", self.index, i) for i in range(len(values)))
        return list(map(self._evaluation.tapped, names, values))

    @cached_property
    def constants(self) -> list[Any]:
        values = [self._evaluation.env[v] for v in self.step.constants]
        own = self.rule is not None and self.rule.way is Way.OWN
        if self.parameters != "zeros" or not self.step.inputs or own:
            return values
        # These layers send nothing through a weight that is zero.
        return [hold(c) if jnp.issubdtype(c.dtype, jnp.inexact) else c for c in values]

    @property
    def probe(self) -> Any:
        return None if self.index is None else self._evaluation.taps.get(key("bias", self.index))

    @cached_property
    def native(self) -> Callable[..., list[Any]]:
        step = self.step
        return self.part(step.eqns, [*step.inputs, *step.constants], step.outputs)

    def part(
        self, eqns: Sequence[Equation], invars: Sequence[Var], outvars: Sequence[Any]
    ) -> Callable[..., list[Any]]:
        return lowerings.as_function(self._evaluation.frame.jaxpr, eqns, invars, outvars)

    def read(self, atom: Any, form: str) -> Any:
        return self._evaluation.read(atom, form)

    @property
    def forms(self) -> tuple[Forms, ...]:
        return self._evaluation.forms.bodies[self.step]

    @cached_property
    def taps(self) -> Taps:
        indices = self._evaluation.program.indices
        inside = {str(indices[s]) for f in self.step.frames for s in f.layers() if s in indices}
        taps = self._evaluation.taps
        return {name: probe for name, probe in taps.items() if name.split(":")[1] in inside}

    def bodies(self) -> list[Callable[..., tuple[list[Any], Taps]]]:
        program, rules = self._evaluation.program, self._evaluation.rules

        def inside(frame: Frame, forms: Forms) -> Callable[..., tuple[list[Any], Taps]]:
            return lambda values, taps: run(frame, forms, program, rules, values, taps)

        return [inside(f, g) for f, g in zip(self.step.frames, self.forms, strict=True)]

    def expose(self, values: Mapping[str, Any]) -> None:
        self._evaluation.exposed.update(values)
