"""In which form relevance travels at every variable: as itself ("R") or as a multiplier ("C").

R = x * c. Almost every rule makes c; those that do not (flat, w^2, z^B, a plain pass) make R, and
then the variable below is carried as R too. The decision is made once, from the outputs to the
inputs, before any value is known. With modified gradients ("G") there is only the gradient.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import _compat
from . import _primitives as prim
from ._compat import Var, is_literal
from ._layers import Body, Contraction, Frame, Held, Pointwise, Product, Shift, Step, Sum
from ._rule import Rule
from .rules import Identity, Pass, Taylor


@dataclass(frozen=True, eq=False)
class Forms:
    """The forms of one frame.

    Attributes:
        of: form of each explained variable.
        inputs: form in which each input must leave the frame.
        outputs: form of what arrives at each output.
        bodies: forms of the frames inside, by step.
    """

    of: Mapping[Var, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    bodies: Mapping[Step, tuple["Forms", ...]] = field(repr=False)


def made_form(step: Step, rule: Rule | None, out: str) -> str:
    """The form of what a step's backward pass makes for its inputs."""
    what = step.what
    if isinstance(what, Contraction | Sum):
        return "R" if rule is not None and rule.makes_relevance else "C"
    if isinstance(what, Shift):
        if step.kind is None:
            return out
        return "R" if isinstance(rule, Pass) else "C"
    if isinstance(what, Pointwise):
        if isinstance(rule, Pass | Identity):
            return "C" if out == "C" and what.zero_at_zero else "R"
        return "C"
    if isinstance(what, Held):
        return "R" if isinstance(rule, Pass) else "C"
    if isinstance(what, Product):
        return "C"
    return out  # numbers only move


def needs_multiplier(step: Step, rule: Rule | None) -> bool:
    """Whether a step's backward pass reads multipliers only."""
    what = step.what
    if isinstance(what, Held):
        return not isinstance(rule, Pass)
    if isinstance(what, Pointwise):
        return isinstance(rule, Taylor)
    return isinstance(what, Product)


def assign(
    frame: Frame,
    rules: Mapping[Step, Rule],
    outputs: Sequence[str],
    inputs: Sequence[str] | None = None,
) -> Forms:
    """Decide the form of every variable of a frame.

    Args:
        frame: the frame.
        rules: the rule of each layer.
        outputs: form of what arrives at each output.
        inputs: form demanded of each input ("" for no demand).
    """
    forms: dict[Var, str] = {}
    bodies: dict[Step, tuple[Forms, ...]] = {}

    def demand(var: Any, form: str) -> None:
        if not is_literal(var) and var in frame.live and forms.get(var) != "R":
            forms[var] = form

    for atom, form, flag in zip(frame.outvars, outputs, frame.outputs, strict=True):
        if flag:
            demand(atom, form)
    for step in reversed(frame.steps):
        arriving = [forms.get(v, "C") for v in step.outputs]
        out = "R" if "R" in arriving else "C"
        if isinstance(step.what, Body):
            made, inner = _body_forms(step, step.what, rules, arriving)
            bodies[step] = inner
            for var, form in made.items():
                demand(var, form)
            continue
        for var in step.outputs:  # a piece with several outputs has one form for all
            demand(var, out)
        made_here = made_form(step, rules.get(step), out)
        for var in step.inputs:
            demand(var, made_here)
    invars = frame.invars
    wanted = list(inputs or [""] * len(invars))
    leaving = tuple(w or forms.get(v, "C") for v, w in zip(invars, wanted, strict=True))
    return Forms(forms, leaving, tuple(outputs), bodies)


def _body_forms(
    step: Step, body: Body, rules: Mapping[Step, Rule], arriving: Sequence[str]
) -> tuple[dict[Var, str], tuple[Forms, ...]]:
    eqn = body.eqn
    by_var = dict(zip(step.outputs, arriving, strict=True))
    outs = [by_var.get(v, "C") for v in eqn.outvars]
    if eqn.primitive is prim.SCAN:
        inner, ins = _scan_forms(body, rules, outs)
        return _by_operand(eqn.invars, ins), (inner,)
    operands = eqn.invars[1:] if eqn.primitive is prim.COND else eqn.invars
    found = [assign(frame, rules, outs) for frame in body.frames]
    joint = [
        "R" if "R" in column else "C" for column in zip(*(f.inputs for f in found), strict=True)
    ]
    if len(found) > 1:
        found = [assign(frame, rules, outs, joint) for frame in body.frames]
    return _by_operand(operands, joint), tuple(found)


def _by_operand(operands: Sequence[Any], forms: Sequence[str]) -> dict[Var, str]:
    found: dict[Var, str] = {}
    for atom, form in zip(operands, forms, strict=True):
        if not is_literal(atom) and found.get(atom) != "R":
            found[atom] = form
    return found


def _scan_forms(
    body: Body, rules: Mapping[Step, Rule], outs: list[str]
) -> tuple[Forms, tuple[str, ...]]:
    constants, carries = _compat.scan_arity(body.eqn)
    (frame,) = body.frames
    carry = slice(constants, constants + carries)
    held = outs[:carries]
    while True:  # a carry has one form for all steps
        inner = assign(frame, rules, [*held, *outs[carries:]])
        grown = [
            "R" if "R" in pair else "C" for pair in zip(held, inner.inputs[carry], strict=True)
        ]
        if grown == held:
            break
        held = grown
    wanted = list(inner.inputs)
    wanted[carry] = held
    inner = assign(frame, rules, [*held, *outs[carries:]], wanted)
    return inner, inner.inputs
