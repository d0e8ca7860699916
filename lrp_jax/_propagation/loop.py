"""The only loop over steps: the user's computation, every layer with its rule's backward pass."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .._analysis import compat
from .._analysis.compat import Var, is_literal
from .._analysis.graph import is_float
from .._analysis.ids import is_integer
from .._layers.alike import Unknown, described
from .._layers.arithmetic import hold, modified_gradient, tap, to_multiplier, to_relevance
from .._layers.carriers import explained, on_carrier, plain, travels_to
from .._layers.step import Backward, Frame, Place, Step, Visit, Way
from . import lowerings
from .forms import Forms
from .repeats import Block, blocks


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
        carrier: the dtype of the relevance of explained integers.
        held: the inputs of steps that are constants because of what is held before them.
    """

    entries: Mapping[Step, int]
    gradient: bool
    indices: Mapping[Step, int] = field(default_factory=dict)
    exposed: frozenset[int] = frozenset()
    parameters: str = ""
    stopped: frozenset[int] = frozenset()
    carrier: Any = None
    held: Mapping[Step, frozenset[int]] = field(default_factory=dict)


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
        taps: zeros whose cotangents report what comes back, and what is put into outputs of
            layers, by key (see `key`).

    Returns:
        The values of the outputs, and those of the exposed layers by key.
    """
    return Evaluation(frame, forms, program, rules, taps).run(values)


def key(place: str, index: int, operand: int = 0) -> str:
    """The name of a tap: at a layer's "out", at an operand "in", or its "bias"; and of a pair
    (where, value) that is put into its output, "patch"."""
    return f"{place}:{index}:{operand}"


class Evaluation:
    """One evaluation of a frame: the values that there are, and what was exposed."""

    def __init__(
        self, frame: Frame, forms: Forms, program: Program, rules: Sequence[Any], taps: Taps
    ) -> None:
        self.frame, self.forms, self.program = frame, forms, program
        self.rules, self.taps = rules, taps
        # Backward passes that are kept hold on to no array of the function.
        self.part = partial(lowerings.as_function, compat.part(frame.jaxpr, (), (), ()))
        self.env: dict[Var, Any] = {}
        self.exposed: Taps = {}

    def run(self, values: Sequence[Any]) -> tuple[list[Any], Taps]:
        frame, forms = self.frame, self.forms
        jaxpr = compat.open_jaxpr(frame.jaxpr)
        self.env.update(zip(jaxpr.constvars, frame.jaxpr.consts, strict=True))
        for var, value, leaving in zip(jaxpr.invars, values, forms.inputs, strict=True):
            if is_integer(var):
                self.env[var] = self._integers(value, var in frame.live)
                continue
            multiplies_out = leaving == "R" and forms.of.get(var) == "C" and var in frame.live
            if multiplies_out and not self.program.gradient:
                value = to_relevance(value)
            self.env[var] = value
        kept = {a for a in frame.outvars if not is_literal(a)}
        traced: dict[Any, Callable[..., list[Any]]] = {}
        for block in blocks(frame.steps, [self._told(step) for step in frame.steps], kept):
            if block.key is None:
                self._go_through(block.steps)
            else:
                once = traced.setdefault(block.key, jax.jit(partial(self._inside_block, block)))
                made = once(self.rules, [self.env[v] for v in block.reads])
                self.env.update(zip(block.makes, made, strict=True))
            for var in block.dead:
                self.env.pop(var, None)
        outs = [
            self._integers(self.read(atom, form), flag)
            if is_integer(atom)
            else self.read(atom, form if flag else "")
            for atom, form, flag in zip(frame.outvars, forms.outputs, frame.outputs, strict=True)
        ]
        return outs, self.exposed

    def _go_through(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self.env.update(zip(step.outputs, self._execute(step), strict=True))

    def _inside_block(self, block: Block, rules: Sequence[Any], values: list[Any]) -> list[Any]:
        """What a block makes, as a function of all that it needs."""
        inside = Evaluation(self.frame, self.forms, self.program, rules, {})
        inside.env.update(zip(block.reads, values, strict=True))
        inside._go_through(block.steps)
        return [inside.env[v] for v in block.makes]

    def _told(self, step: Step) -> tuple[Any, Sequence[Var]]:
        """What a step computes here, the same for all that compute the same, and its variables.

        Where something is reported of single layers, or put into them, each is told apart."""
        program, of = self.program, self.forms.of
        if self.taps or program.exposed or program.stopped or step.frames:
            return object(), ()
        try:
            key, variables = described([*step.inputs, *step.constants], step)
        except Unknown:
            return object(), ()
        forms = tuple((of.get(v), v in self.frame.live) for v in variables)
        return (key, forms, program.entries.get(step), program.held.get(step)), variables

    def read(self, atom: Any, form: str) -> Any:
        """The value of an operand for a reader that hands back relevance in `form`."""
        if is_literal(atom):
            return atom.val
        value = self.env[atom]
        if is_integer(atom):
            return self._integers(value, bool(form) and atom in self.frame.live)
        if form == "C" and self.forms.of.get(atom) == "R" and not self.program.gradient:
            return to_relevance(value)
        return value

    def _integers(self, value: Any, carries: bool) -> Any:
        return explained(value, self.program.carrier) if carries else plain(value)

    def _execute(self, step: Step) -> list[Any]:
        program, out = self.program, self.forms.at(step)
        entry, index = program.entries.get(step), program.indices.get(step)
        rule = None if entry is None else self.rules[entry]
        if not program.gradient or step.frames:
            backward = step.way_back(rule, out)
        elif rule is not None and rule.gradient:
            backward = Backward(out, modified_gradient)
        else:
            backward = step.in_gradient(out)
        inputs: list[Any] = []
        if not step.frames:  # a body reads what each of its operands demands
            inputs = [self.read(v, backward.makes) for v in step.inputs]
        if index is not None:
            inputs = [self._tapped(key("in", index, i), x) for i, x in enumerate(inputs)]
        exposed, held = index in program.exposed, program.held.get(step, frozenset())
        place = Place(step, out, exposed, program.parameters, self.part, held)
        probe = None if index is None else self.taps.get(key("bias", index))
        visit = Visit(place, rule, inputs, self._constants(step, rule), probe, self)
        outputs = backward.outputs(visit)
        if out == "R" and backward.multiplies:
            outputs = [
                to_multiplier(y) if is_float(v) else y
                for v, y in zip(step.outputs, outputs, strict=True)
            ]
        if index is None:
            return outputs
        patch = self.taps.get(key("patch", index))
        if patch is not None:
            where, value = patch
            outputs = [jnp.where(where, value, outputs[0]), *outputs[1:]]
        if index in program.stopped:
            outputs = [
                hold(y) if is_float(v) else y for v, y in zip(step.outputs, outputs, strict=True)
            ]
        outputs = [self._tapped(key("out", index, i), y) for i, y in enumerate(outputs)]
        if index in program.exposed:
            self.exposed[key("out", index)] = outputs[0]
            self.exposed.update({key("in", index, i): travels_to(x) for i, x in enumerate(inputs)})
        return outputs

    def _constants(self, step: Step, rule: Any) -> list[Any]:
        values = [plain(self.env[v]) for v in step.constants]
        own = rule is not None and rule.way is Way.OWN
        if self.program.parameters != "zeros" or not step.inputs or own:
            return values
        # These layers send nothing through a weight that is zero.
        return [hold(c) if jnp.issubdtype(c.dtype, jnp.inexact) else c for c in values]

    def _tapped(self, name: str, value: Any) -> Any:
        probe = self.taps.get(name)
        if probe is None:
            return value
        return on_carrier(lambda x: tap(x, probe.astype(x.dtype)), value)

    # -- what bodies ask for --------------------------------------------------------------------

    def inside(self, frame: Frame, forms: Forms) -> Callable[..., tuple[list[Any], Taps]]:
        """A frame inside as a function of (values, taps) to (outputs, exposed values)."""
        program, rules = self.program, self.rules
        return lambda values, taps: run(frame, forms, program, rules, values, taps)

    def taps_inside(self, step: Step) -> Taps:
        """The taps of the layers inside of a step."""
        indices = self.program.indices
        inside = {str(indices[s]) for f in step.frames for s in f.layers() if s in indices}
        return {name: probe for name, probe in self.taps.items() if name.split(":")[1] in inside}
