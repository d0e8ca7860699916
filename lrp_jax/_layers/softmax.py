"""Softmaxes: a quotient of `exp(u)` by its own sum; and logarithms of such sums."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from .._analysis import compat, primitives as prim
from .._analysis.compat import Equation, Var, is_literal
from .._analysis.factors import STABILISER, constant
from .._analysis.graph import Graph
from .._analysis.primitives import Family, family, is_reduction
from .arithmetic import held, of_one
from .reading import Reading
from .step import SOFTMAX, Backward, Found, Step, Way

_SEGMENTS = compat.primitive("scatter_max")
_SUMS = (Family.SUM, Family.SCATTER_SUM)
_MOVES = (Family.STRUCTURAL, Family.NEUTRAL)


@dataclass(frozen=True, eq=False, kw_only=True)
class Softmax(Step):
    """A softmax, or the logarithm of a sum of exponentials."""

    @classmethod
    def search(cls, graph: Graph, known: Any) -> Mapping[Var, Found]:
        found: dict[Var, Found] = {}
        for eqn in graph.eqns:
            operands = graph.explained_operands(eqn)
            divides = eqn.primitive is prim.DIV and operands == [0, 1]
            if not (divides or eqn.primitive is prim.LOG) or not graph.is_live(eqn):
                continue
            total = _walk(graph, eqn.invars[-1], lambda e: family(e.primitive) in _SUMS)
            if total is None:
                continue
            summed = total.invars[graph.explained_operands(total)[0]]
            if divides and not _same(graph, eqn.invars[0], summed):
                continue
            exponential = _walk(graph, summed, lambda e: e.primitive is prim.EXP, adds=not divides)
            if exponential is None:
                continue
            out, logits = eqn.outvars[0], exponential.invars[0]
            if divides:
                logits = unshifted(graph, logits)
            else:
                logits = _without_maximum(graph, logits)
                out = _shifted_back(graph, out, logits)
            _, outside = graph.between(out, [logits])
            if not outside:
                found[out] = Found(root=logits, gate=SOFTMAX if divides else 0)
        return found

    @classmethod
    def recognise(cls, reading: Reading, var: Var) -> Self | None:
        found = reading.found.get(var)
        if found is None or found.takes_affine:
            return None
        eqns, _ = reading.graph.between(var, [found.root])
        divides = reading.graph.maker[var].primitive is prim.DIV
        kind = "Softmax" if divides else "LogSumExp"
        return reading.step(cls, eqns, [found.root], [var], kind)

    def backward(self, rule: Any, out: str) -> Backward:
        return of_one(rule)

    def gradient_shares(self, rule: Any) -> Sequence[Any] | None:
        if rule.way in (Way.NOTHING, Way.UNCHANGED):
            return None
        return [0.0 if of_one(rule).outputs is held else 1.0]


def _shifted_back(graph: Graph, logarithm: Var, logits: Var) -> Var:
    """The logarithm of a sum of exponentials after the maximum was added again."""
    reader = graph.readers[logarithm][0]
    if not graph.read_once(logarithm) or reader is None or reader.primitive not in prim.ADD:
        return logarithm
    added = [a for a in reader.invars if a is not logarithm]
    shifted: Var = reader.outvars[0]
    return shifted if any(_is_maximum(graph, a, logits) for a in added) else logarithm


def _without_maximum(graph: Graph, logits: Var) -> Var:
    """The logits before their maximum was subtracted."""
    above = graph.maker.get(logits)
    if above is None or above.primitive is not prim.SUB or is_literal(above.invars[0]):
        return logits
    before: Var = above.invars[0]
    return before if _is_maximum(graph, above.invars[1], before) else logits


def unshifted(graph: Graph, logits: Var) -> Var:
    """The logits before numbers and their maximum were subtracted."""
    above = graph.maker.get(logits)
    if above is None:
        return logits
    operands = graph.explained_operands(above)
    if above.primitive in prim.ADD and len(operands) == 1:  # of a shift that was negated
        shift = above.invars[1 - operands[0]]
        maker = None if is_literal(shift) else graph.maker.get(shift)
        negated = maker is not None and maker.primitive is prim.NEG
        return above.invars[operands[0]] if negated else logits
    if above.primitive is not prim.SUB:
        return logits
    if operands == [0]:
        before = above.invars[0]
        return unshifted(graph, before) if is_literal(above.invars[1]) else before
    return _without_maximum(graph, logits)  # that was not detached


def _is_maximum(graph: Graph, atom: Any, of: Var) -> bool:
    """Whether something is a variable reduced over axes or segments, perhaps masked, spread out."""
    todo = [(atom, False)]
    while todo:
        atom, reduced = todo.pop()
        if reduced and atom is of:
            return True
        maker = None if is_literal(atom) else graph.maker.get(atom)
        if maker is None:
            continue
        reduces = is_reduction(maker) or maker.primitive is _SEGMENTS
        passes = family(maker.primitive) in (*_MOVES, Family.WINNER, Family.DETACH)
        if reduces or passes or maker.primitive is prim.SELECT:
            todo += [(a, reduced or reduces) for a in maker.invars]
    return False


def _walk(
    graph: Graph, var: Var, wanted: Callable[[Equation], bool], adds: bool = True
) -> Equation | None:
    """The nearest wanted equation above `var`, through moves and constant factors, and what
    constants are added to: only next to nothing, unless it `adds`."""
    while not is_literal(var):
        eqn = graph.maker.get(var)
        if eqn is None:
            return None
        if wanted(eqn):
            return eqn
        operands = graph.explained_operands(eqn)
        passes = family(eqn.primitive) in (*_MOVES, Family.AFFINE, Family.WINNER)
        passes = passes or eqn.primitive is prim.ABS
        if eqn.primitive in prim.SUMS and not adds:
            numbers = (constant(graph, a) for i, a in enumerate(eqn.invars) if i not in operands)
            passes = all(number is not None and abs(number) < STABILISER for number in numbers)
        if not passes or (operands != [0] and (len(operands) != 1 or eqn.primitive is prim.DIV)):
            return None
        var = eqn.invars[operands[0]]
    return None


def _same(graph: Graph, a: Var, b: Var) -> bool:
    """Whether two variables are the same numbers up to casts and reshapes."""

    def origin(var: Var) -> Var:
        eqn = graph.maker.get(var)
        while eqn is not None and prim.changes_no_number(eqn.primitive):
            var = eqn.invars[0]
            eqn = graph.maker.get(var)
        return var

    return origin(a) is origin(b)
