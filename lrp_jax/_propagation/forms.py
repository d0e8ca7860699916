"""In which form relevance travels at every variable: as itself ("R") or as a multiplier ("C").

R = x * c. Almost every rule makes c; those that do not (flat, w^2, z^B, a plain pass) make R, and
then the variable below is carried as R too. The decision is made once, from the outputs to the
inputs, before any value is known. With modified gradients there is only the gradient.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._analysis.compat import Var, is_literal
from .._layers.step import Frame, Step


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

    def at(self, step: Step) -> str:
        """The form of what arrives at a step's outputs, one for all of them."""
        return "R" if "R" in [self.of.get(v, "C") for v in step.outputs] else "C"


def assign(
    frame: Frame,
    rules: Mapping[Step, Any] | None,
    outputs: Sequence[str],
    inputs: Sequence[str] | None = None,
) -> Forms:
    """Decide the form of every variable of a frame.

    Args:
        frame: the frame.
        rules: the rule of each layer; None for modified gradients.
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
        around, bodies[step] = step.forms_below(rules, arriving, assign)
        for var, form in around.items():
            demand(var, form)
    invars = frame.invars
    wanted = list(inputs or [""] * len(invars))
    leaving = tuple(w or forms.get(v, "C") for v, w in zip(invars, wanted, strict=True))
    return Forms(forms, leaving, tuple(outputs), bodies)
