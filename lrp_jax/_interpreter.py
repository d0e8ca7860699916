"""The only loop over steps: the user's computation, every layer with its rule's backward pass."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from . import _compat, _lowerings
from . import _primitives as prim
from ._compat import Var, is_literal
from ._forms import Forms, made_form, needs_multiplier
from ._layers import Body, Contraction, Frame, Held, Pointwise, Product, Shift, Step, Sum
from ._propagate import (
    activation,
    halve,
    hold,
    linear_layer,
    modified_gradient,
    negate,
    pass_layer,
    share_out,
    shift_layer,
    tap,
    to_multiplier,
    to_relevance,
)  # fmt: skip
from ._rule import Rule
from .rules import Epsilon, Gate, Identity, Norm, Pass, Relative, Uniform, Zero

_PLAIN = {rule.terms for rule in (Epsilon, Zero, Norm, Relative)}


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
    rules: Sequence[Rule],
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
        taps: zeros whose cotangents report what comes back, by key (see `_key`).

    Returns:
        The values of the outputs, and those of the exposed layers by key.
    """
    return _Evaluation(frame, forms, program, rules, taps).run(values)


def key(place: str, index: int, operand: int = 0) -> str:
    """The name of a tap: at a layer's "out", at an operand "in", or its "bias"."""
    return f"{place}:{index}:{operand}"


class _Evaluation:
    def __init__(
        self, frame: Frame, forms: Forms, program: Program, rules: Sequence[Rule], taps: Taps
    ) -> None:
        self.frame, self.forms, self.program = frame, forms, program
        self.rules, self.taps = rules, taps
        self.env: dict[Var, Any] = {}
        self.exposed: Taps = {}

    def run(self, values: Sequence[Any]) -> tuple[list[Any], Taps]:
        frame, forms = self.frame, self.forms
        jaxpr = _compat.open_jaxpr(frame.jaxpr)
        self.env.update(zip(jaxpr.constvars, frame.jaxpr.consts, strict=True))
        for var, value, leaving in zip(jaxpr.invars, values, forms.inputs, strict=True):
            if var in frame.live and leaving == "R" and forms.of.get(var) == "C":
                value = self._boundary(value)
            self.env[var] = value
        last_use = self._last_use()
        for number, step in enumerate(frame.steps):
            self._execute(step)
            for var in last_use.get(number, ()):
                self.env.pop(var, None)
        outs = [
            self._read(atom, form) if flag else self._read(atom)
            for atom, form, flag in zip(frame.outvars, forms.outputs, frame.outputs, strict=True)
        ]
        return outs, self.exposed

    def _boundary(self, value: Any) -> Any:
        return value if self.program.gradient else to_relevance(value)

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

    def _read(self, atom: Any, form: str | None = None) -> Any:
        """The value of an operand for a reader that hands back relevance in `form`."""
        if is_literal(atom):
            return atom.val
        value = self.env[atom]
        if form == "C" and self.forms.of.get(atom) == "R" and not self.program.gradient:
            return to_relevance(value)
        return value

    def _rule(self, step: Step) -> Rule | None:
        entry = self.program.entries.get(step)
        return None if entry is None else self.rules[entry]

    def _execute(self, step: Step) -> None:
        if isinstance(step.what, Body):
            self._bind(step.what.eqn.outvars, self._body(step, step.what))
            return
        rule = self._rule(step)
        arriving = [self.forms.of.get(v, "C") for v in step.outputs]
        out = "R" if "R" in arriving else "C"
        made = made_form(step, rule, out)
        inputs = [self._read(v, made) for v in step.inputs]
        index = self.program.indices.get(step)
        if index is not None:
            inputs = [self._tap(key("in", index, i), value, made) for i, value in enumerate(inputs)]
        constants = [self.env[v] for v in step.constants]
        zeros = self.program.parameters == "zeros" and step.inputs
        if zeros and not hasattr(rule, "input_relevance"):
            # These layers send nothing through a weight that is zero.
            constants = [hold(c) if jnp.issubdtype(c.dtype, jnp.inexact) else c for c in constants]
        outputs = self._outputs(step, rule, out, inputs, constants, index)
        if index is not None:
            if index in self.program.stopped:
                outputs = [hold(y) for y in outputs]
            outputs = [self._tap(key("out", index, i), y, out) for i, y in enumerate(outputs)]
            if index in self.program.exposed:
                self.exposed[key("out", index)] = outputs[0]
                self.exposed.update({key("in", index, i): x for i, x in enumerate(inputs)})
        self._bind(step.outputs, outputs)

    def _bind(self, variables: Sequence[Any], values: Sequence[Any]) -> None:
        for var, value in zip(variables, values, strict=True):
            if not _compat.is_dropped(var):
                self.env[var] = value

    def _tap(self, name: str, value: Any, form: str) -> Any:
        probe = self.taps.get(name)
        return value if probe is None else tap(value, probe)

    def _outputs(
        self, step: Step, rule: Rule | None, out: str, inputs: list[Any], constants: list[Any],
        index: int | None,
    ) -> list[Any]:  # fmt: skip
        native = self._slice(step)
        run_one = _single(native)
        what = step.what
        if self.program.gradient:
            if rule is not None and rule.gradient:
                return [modified_gradient(run_one)(inputs[0], constants, rule)]
            return native(*inputs, *constants)
        if isinstance(what, Contraction | Sum):
            return [self._linear(step, rule, out, inputs, constants, run_one, index)]
        if isinstance(what, Shift):
            if out == "C" and step.kind is None:
                return native(*inputs, *constants)
            if step.kind is None or isinstance(rule, Pass):
                return [shift_layer(step, out, run_one)(inputs[0], constants)]
            (y,) = native(*inputs, *constants)
            return [share_out(y, _known(rule), out)]
        if isinstance(rule, Gate) and not isinstance(what, Product):
            return native(*map(hold, inputs), *constants)
        if isinstance(what, Pointwise) and isinstance(rule, Pass | Identity):
            if out == "C" and what.zero_at_zero:
                return [activation(step, run_one)(inputs[0], constants)]
            return [pass_layer(out, run_one)(inputs[0], constants)]
        if isinstance(what, Held) and isinstance(rule, Pass):
            return [pass_layer(out, run_one)(inputs[0], constants)]
        if isinstance(what, Held):
            outputs = self._held(step, what, rule, inputs, constants)
        elif isinstance(what, Product):
            outputs = [self._product(step, what, rule, inputs, constants)]
        else:
            outputs = native(*inputs, *constants)
        if out == "R" and needs_multiplier(step, rule):
            outputs = [to_multiplier(y) for y in outputs]
        return outputs

    def _slice(self, step: Step) -> Callable[..., list[Any]]:
        eqns = _equations(step)
        invars = [*step.inputs, *step.constants]
        return _lowerings.as_function(self.frame.jaxpr, eqns, invars, step.outputs)

    def _linear(
        self, step: Step, rule: Rule | None, out: str, inputs: list[Any], constants: list[Any],
        run_one: Callable[..., Any], index: int | None,
    ) -> Any:  # fmt: skip
        rule = _known(rule)
        probe = None if index is None else self.taps.get(key("bias", index))
        absorbs = getattr(rule, "bias", "absorb") == "absorb"
        # Where the layer's own gradient serves, nothing is better; a parameter too gets its
        # multiplier from it.
        # (A subclass that shares differently is another rule.)
        plain = type(rule).terms in _PLAIN and not hasattr(rule, "input_relevance")
        if plain and absorbs and probe is None:
            return share_out(run_one(inputs, constants), rule, out)
        if isinstance(rule, Pass):
            return pass_layer(out, run_one)(inputs[0], constants)
        parameters = self.program.parameters
        if index in self.program.exposed:  # what starts here may speak of outputs <= 0 too
            step = dataclasses.replace(step, before_relu=False)
        layer = linear_layer(self.frame.jaxpr, step, out, run_one, probe is not None, parameters)
        return layer(tuple(inputs), tuple(constants), rule, probe)

    def _held(
        self, step: Step, what: Held, rule: Rule | None, inputs: list[Any], constants: list[Any]
    ) -> list[Any]:
        if what.product is None or not isinstance(rule, Identity):
            return self._slice(step)(*inputs, *constants)
        jaxpr, product = self.frame.jaxpr, what.product
        where = what.eqns.index(product)
        before, after = what.eqns[:where], what.eqns[where + 1 :]
        invars = [*step.inputs, *step.constants]
        # Equations may come later than the product and still be read by it only through `after`.
        # The statistic is computed from held inputs, and not held itself: on the way back a zero
        # would meet the derivative of a root, which is infinite at a variance of zero.
        held = [hold(x) for x in inputs]
        factors: list[Any] = []
        for position, atom in enumerate(product.invars):
            given = held if position == what.position else inputs
            factors += _compat.as_function(jaxpr, before, invars, [atom])(*given, *constants)
        y = product.primitive.bind(*factors, **product.params)
        rest = _compat.as_function(
            jaxpr, after, [product.outvars[0], *step.constants], step.outputs
        )
        return rest(y, *constants)

    def _product(
        self, step: Step, what: Product, rule: Rule | None, inputs: list[Any], constants: list[Any]
    ) -> Any:
        eqn = what.eqn
        values = dict(zip((*step.inputs, *step.constants), (*inputs, *constants), strict=True))
        factors = [a.val if is_literal(a) else values[a] for a in eqn.invars]
        if isinstance(rule, Gate) and what.gate is not None:
            factors[what.gate] = hold(factors[what.gate])
        if eqn.primitive is prim.DIV and isinstance(rule, Gate | Uniform):
            factors[1] = negate(factors[1])
        y = eqn.primitive.bind(*factors, **eqn.params)
        halves = isinstance(rule, Uniform) or (isinstance(rule, Gate) and what.gate is None)
        return halve(y) if halves else y

    # -- control flow ---------------------------------------------------------------------------

    def _body(self, step: Step, what: Body) -> list[Any]:
        eqn = what.eqn
        forms = self.forms.bodies[step]
        if eqn.primitive is prim.SCAN:
            return self._scan(what, forms[0])
        operands = eqn.invars
        leaving = forms[0].inputs
        if eqn.primitive is prim.COND:
            leaving = ("", *leaving)
        values = [self._read(a, f) for a, f in zip(operands, leaving, strict=True)]
        if eqn.primitive is prim.COND:
            branches = [self._inside(f, g) for f, g in zip(what.frames, forms, strict=True)]
            taps = self._taps_of(what)
            if self.program.exposed:
                branches = _alike(branches, values[1:], taps)
            index = values[0].astype(jnp.int32)
            outs, exposed = jax.lax.switch(index, branches, values[1:], taps)
        elif eqn.primitive is prim.REMAT:
            body = self._inside(what.frames[0], forms[0])
            body = jax.checkpoint(
                body, prevent_cse=eqn.params["prevent_cse"], policy=eqn.params["policy"]
            )
            outs, exposed = body(values, self._taps_of(what))
        else:
            outs, exposed = self._shard_map(what, forms[0], values)
        self.exposed.update(exposed)
        return outs

    def _inside(self, frame: Frame, forms: Forms) -> Callable[..., tuple[list[Any], Taps]]:
        def body(values: Sequence[Any], taps: Taps) -> tuple[list[Any], Taps]:
            return run(frame, forms, self.program, self.rules, values, taps)

        return body

    def _taps_of(self, what: Body) -> Taps:
        inside = {
            str(self.program.indices[s]) for f in what.frames for s in layers_of(f)
            if s in self.program.indices
        }  # fmt: skip
        return {name: probe for name, probe in self.taps.items() if name.split(":")[1] in inside}

    def _scan(self, what: Body, forms: Forms) -> list[Any]:
        eqn = what.eqn
        n_constants, n_carries = _compat.scan_arity(eqn)
        values = [self._read(a, f) for a, f in zip(eqn.invars, forms.inputs, strict=True)]
        constants = values[:n_constants]
        carry, xs = values[n_constants : n_constants + n_carries], values[n_constants + n_carries :]

        def body(carry: list[Any], sliced: Any) -> tuple[list[Any], Any]:
            xs, taps = sliced
            outs, exposed = run(
                what.frames[0], forms, self.program, self.rules, [*constants, *carry, *xs], taps
            )
            return outs[:n_carries], (outs[n_carries:], exposed)

        carry, (ys, exposed) = jax.lax.scan(
            body,
            carry,
            (xs, self._taps_of(what)),
            length=eqn.params["length"],
            reverse=eqn.params["reverse"],
            unroll=eqn.params["unroll"],
        )
        self.exposed.update(exposed)
        return [*carry, *ys]

    def _shard_map(self, what: Body, forms: Forms, values: list[Any]) -> tuple[list[Any], Taps]:
        if self._taps_of(what):
            raise NotImplementedError(
                "layers inside shard_map cannot be observed: their arrays lie on many devices. Ask "
                "for layers outside of it, or put shard_map around the explanation."
            )
        body = self._inside(what.frames[0], forms)
        mapped = jax.shard_map(
            lambda *v: tuple(body(v, {})[0]), **_compat.shard_map_arguments(what.eqn)
        )
        return list(mapped(*values)), {}


def layers_of(frame: Frame) -> list[Step]:
    """Every step of a frame and of the bodies inside it, in order of execution."""
    found: list[Step] = []
    for step in frame.steps:
        found.append(step)
        if isinstance(step.what, Body):
            for inner in step.what.frames:
                found.extend(layers_of(inner))
    return found


def _alike(branches: Sequence[Callable[..., Any]], values: Any, taps: Taps) -> list[Any]:
    """Branches that expose the same names: the layers of another branch are zeros."""
    shapes: dict[str, Any] = {}
    for branch in branches:
        shapes.update(jax.eval_shape(branch, values, taps)[1])

    def completed(branch: Callable[..., Any]) -> Callable[..., Any]:
        def body(values: Any, taps: Taps) -> tuple[list[Any], Taps]:
            outs, exposed = branch(values, taps)
            zeros = {n: jnp.zeros(s.shape, s.dtype) for n, s in shapes.items() if n not in exposed}
            return outs, exposed | zeros

        return body

    return [completed(branch) for branch in branches]


def _known(rule: Rule | None) -> Rule:
    assert rule is not None, "every linear layer has a rule"
    return rule


def _single(native: Callable[..., list[Any]]) -> Callable[..., Any]:
    return lambda inputs, constants: native(*inputs, *constants)[0]


def _equations(step: Step) -> tuple[Any, ...]:
    what = step.what
    if isinstance(what, Contraction):
        return (*what.before.eqns, what.eqn, *what.after.eqns)
    if isinstance(what, Shift):
        return what.chain.eqns
    if isinstance(what, Product | Body):
        return (what.eqn,)
    return tuple(what.eqns)
