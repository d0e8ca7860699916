"""What looks like a mistake in an analysed function: told from its steps alone."""

from collections.abc import Collection, Iterator, Mapping

from .._analysis import compat, primitives as prim
from .._analysis.compat import Equation, Var, is_literal
from .._analysis.primitives import Family, family
from .._analysis.signs import is_reciprocal
from .step import Frame, Step

_PASSES = (Family.NEUTRAL, Family.AFFINE)


def ends_in_softmax(frame: Frame) -> bool:
    """Whether an output is a softmax."""
    makers = {var: step for step in frame.steps for var in step.outputs}
    for atom, flag in zip(frame.outvars, frame.outputs, strict=True):
        step = makers.get(atom) if flag else None
        while step is not None and not step.kind and len(step.inputs) == 1:
            step = makers.get(step.inputs[0])
        if step is not None and step.kind == "Softmax":
            return True
    return False


def lone(
    frame: Frame, primitives: frozenset[object], idle: Collection[Step] = ()
) -> Equation | None:
    """An explained function that is one of some primitives, up to a scale and shift: a piece of
    something larger, where a function such as elu or softplus only uses one on its way. Steps that
    are `idle` hand nothing on."""
    return next((eqn for _, eqn, _ in _lone(frame, primitives, idle)), None)


def _lone(
    frame: Frame, primitives: frozenset[object], idle: Collection[Step]
) -> Iterator[tuple[Step, Equation, bool]]:
    """Such functions: the step, the equation, and whether a number is added to it."""
    for step in _all_steps(frame):
        if step.kind != "Activation" or step in idle:
            continue
        made = {var: eqn for eqn in step.eqns for var in eqn.outvars}
        var, adds, less_one = step.outputs[0], False, False
        while (eqn := made.get(var)) is not None:
            if eqn.primitive in primitives:
                if not (less_one and eqn.primitive in EXPONENTIALS):  # expm1 is a function
                    yield step, eqn, adds
                break
            adds = adds or eqn.primitive in prim.SUMS
            less_one = eqn.primitive is prim.SUB and is_literal(eqn.invars[1])
            less_one = less_one and bool(eqn.invars[1].val == 1)
            passes = family(eqn.primitive) in _PASSES or eqn.primitive in prim.SHAPE_ONLY
            operands = [a for a in eqn.invars if not is_literal(a) and a not in step.constants]
            divides = eqn.primitive is prim.DIV and eqn.invars[1] in operands
            if not passes or divides or len(operands) != 1:
                break
            var = operands[0]


def lone_exponential(frame: Frame, idle: Collection[Step] = ()) -> Equation | None:
    """An exponential that is a piece of no layer; None of one that is a softmax's in another
    branch, or a sigmoid's that divides by 1 + exp(u)."""
    softmaxes = (s for s in _all_steps(frame) if s.kind == "Softmax")
    lines = {
        compat.source_line(e) for s in softmaxes for e in s.eqns if e.primitive in EXPONENTIALS
    }
    divisors = {v for s in _all_steps(frame) for v in s.divisors()}
    activations = (s for s in _all_steps(frame) if s.kind == "Activation")
    for s in activations:
        divisors |= {s.inputs[0]} if is_reciprocal(s.eqns, s.inputs[0], s.outputs[0]) else set()
    moved = {v: s.outputs[0] for s in _all_steps(frame) if not s.kind for v in s.inputs}
    for step, eqn, adds in _lone(frame, EXPONENTIALS, idle):
        var = step.outputs[0]
        while var not in divisors and var in moved:
            var = moved[var]
        if compat.source_line(eqn) not in lines and not (adds and var in divisors):
            return eqn
    return None


def divided_by_sum(frame: Frame, idle: Collection[Step] = ()) -> Step | None:
    """A quotient by a sum over explained values that is no statistic of what it divides."""
    found = (_divided_by_sum(inner, idle) for inner in _frames(frame))
    return next(filter(None, found), None)


def _divided_by_sum(frame: Frame, idle: Collection[Step]) -> Step | None:
    makers = {var: step for step in frame.steps for var in step.outputs}
    for step in frame.steps:
        if step not in idle and _is_reciprocal_of_exponentials(step, makers):
            return step
        divisors = (*step.divisors(), *_reciprocals(step, makers))
        todo, seen, adds = [] if step in idle else [*divisors], set[Step](), False
        while todo:
            maker = makers.get(todo.pop())
            if maker is None or maker in seen or maker in idle:
                continue
            seen.add(maker)
            if maker.kind == "Activation":
                if adds and maker.eqns[-1].primitive in EXPONENTIALS:
                    return step
                continue  # another function of one value may be a gate
            adds = adds or maker.kind == "Merge"
            sums = len(maker.inputs) == 1 and maker.kind in ("Merge", "AvgPool")
            if sums or maker.kind in ("MatMul", "Attention"):
                return step
            if maker.kind in ("", "Bias", "BatchNorm", "Merge", "Product"):
                todo += maker.inputs
    return None


def _is_reciprocal_of_exponentials(step: Step, makers: Mapping[Var, Step]) -> bool:
    """Whether a step is one over a sum of exponentials: a probability that is written with no
    exponential above the line, which is recognised of whole softmaxes alone."""
    if step.kind != "Activation" or not is_reciprocal(step.eqns, step.inputs[0], step.outputs[0]):
        return False
    total = _past_moves(step.inputs[0], makers)
    if total is None or total.kind not in ("Merge", "AvgPool") or len(total.inputs) != 1:
        return False
    summed = _past_moves(total.inputs[0], makers)
    exponential = summed is not None and summed.kind == "Activation" and summed.eqns[-1].primitive
    return exponential in EXPONENTIALS


def _past_moves(var: Var, makers: Mapping[Var, Step]) -> Step | None:
    """The layer that makes a variable, before it was moved."""
    maker = makers.get(var)
    while maker is not None and not maker.kind and len(maker.inputs) == 1:
        maker = makers.get(maker.inputs[0])
    return maker


def _reciprocals(step: Step, makers: Mapping[Var, Step]) -> Iterator[Var]:
    """What one is divided by in the factors of a product."""
    todo, seen = [*step.inputs] if step.kind in ("Product", "MatMul") else [], set[Step]()
    while todo:
        maker = makers.get(todo.pop())
        if maker is None or maker in seen:
            continue
        seen.add(maker)
        if not maker.kind:
            todo += maker.inputs
        elif maker.kind == "Activation":
            (start,), (end,) = maker.inputs, maker.outputs
            if is_reciprocal(maker.eqns, start, end):
                yield start


def _frames(frame: Frame) -> Iterator[Frame]:
    yield frame
    for step in frame.steps:
        for inner in step.frames:
            yield from _frames(inner)


def _all_steps(frame: Frame) -> Iterator[Step]:
    for step in frame.steps:
        for inner in step.frames:
            yield from _all_steps(inner)
        yield step


EXPONENTIALS = compat.primitives("exp exp2")
SQUARE_ROOTS = compat.primitives("sqrt rsqrt")
