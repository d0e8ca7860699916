"""Covering a graph with layers, by dataflow alone.

The walk goes from the outputs to the inputs and covers every variable that is needed with one step
of the first family that recognises itself. Nothing is recognised by the name of a function, and
nothing here sees an array.
"""

import dataclasses
import functools
import heapq
import itertools
from collections.abc import Callable, Iterable
from typing import Any

from .._analysis import compat
from .._analysis.compat import Equation, Var, is_literal
from .._analysis.draft import Draft
from .._analysis.graph import Graph
from .._analysis.weights import are_in_arguments
from .._layers.accumulations import Accumulation
from .._layers.bodies import Body
from .._layers.call import Call
from .._layers.checkpoints import checkpointed
from .._layers.complex_maps import ComplexMap
from .._layers.contraction import Contraction
from .._layers.elementwise import Elementwise
from .._layers.fixed import FixedMap
from .._layers.lookups import Lookup, Moved
from .._layers.moves import Move, with_splits
from .._layers.normalization import Normalization
from .._layers.product import Product, gate_rank
from .._layers.reading import Reading
from .._layers.rolled import Written, rolled
from .._layers.shift import Shift
from .._layers.softmax import Softmax
from .._layers.solves import Solve
from .._layers.step import Frame, Step
from .._layers.sums import Sum
from .equations.loops import with_bounded_loops
from .moved_forms import with_moves
from .normal_form import normal_form
from .simplified import simplified, tidied
from .torn import mended

FAMILIES: tuple[type[Step], ...] = (
    Moved, Lookup, ComplexMap, Body, Call, Softmax, Normalization, FixedMap, Contraction, Sum,
    Shift, Elementwise, Product, Accumulation, Solve, Move,
)  # fmt: skip
"""Every family of layers, in the order in which they are asked; the last one refuses."""


_MOST_MENDED = 16
"""So often a function is written with fewer borders; what is torn then is said."""
_MOST_FORMS = 3
"""So often a normal form is looked for: what is written in it may stand behind a move, make a
product over an axis, or be a softmax, of which there is a logarithm."""
_MOST_MOVES = 4
"""So often what is moved on the way is looked for: one move may stand behind another."""


def analyse(
    closed_jaxpr: Any,
    explained: Iterable[bool],
    names: Iterable[str],
    nonnegative: Iterable[bool] | None = None,
    outputs: Iterable[bool] | None = None,
    gates: Iterable[int] | None = None,
    calls: tuple[str, ...] = (),
    closed_over: bool | None = None,
    unroll: bool = False,
    written: tuple[Written, ...] = (),
    again: int = 0,
) -> Frame:
    """Group the equations of a flat jaxpr into steps (for the arguments see `Reading`).

    Args:
        closed_over: whether closed-over arrays are weights; None: where the arguments have none.
        unroll: whether short loops are written out, as where a rule differs from turn to turn.
        written: the marks of loops that were written out in it.
        again: how often it was written in another way before.

    Raises:
        UnsupportedOperation: naming the operation, the layer, the line and the remedy.
    """
    explained, names = tuple(explained), tuple(names)
    if closed_over is None:
        closed_over = not are_in_arguments(closed_jaxpr, explained, names)
    nonnegative = None if nonnegative is None else tuple(nonnegative)
    outputs = None if outputs is None else tuple(outputs)
    gates = None if gates is None else tuple(gates)
    draft = simplified(Draft(closed_jaxpr, explained, outputs, calls))

    def read(function: Any, bodies: Callable[..., Frame] = analyse) -> Reading:
        """The function, products in their normal form."""
        inside = functools.partial(bodies, calls=calls, closed_over=closed_over, unroll=unroll)

        def reading_of(function: Any) -> Reading:
            return Reading(
                function, explained, names, nonnegative, outputs, FAMILIES, inside, gates, calls,
                closed_over,
            )  # fmt: skip

        written = reading_of(function)
        for _ in range(_MOST_MOVES):
            whole = with_moves(written.graph, written.found, written.monomials, calls)
            if whole is None:
                break
            written = reading_of(whole)
        for _ in range(_MOST_FORMS):
            normal = normal_form(
                written.graph, written.dominator, written.found, written.weights, calls
            )
            if normal is None:
                break
            written = reading_of(normal)
        return written

    def cover(other: Any) -> list[Step]:
        """The layers of an equal function, bodies unread."""
        found = _cover(read(tidied(with_bounded_loops(draft.written(other))).closed, _unread))
        return [found[position] for position in sorted(found)]

    reading = read(draft.closed)
    Body.read_in_order(reading)
    graph = reading.graph
    steps = _readers_of_relu(_with_constants(_cover(reading), reading), graph)
    better = mended(graph, steps, cover, calls, unroll)
    if better.jaxpr is not None and again < _MOST_MENDED:
        return analyse(
            better.jaxpr, explained, names, nonnegative, outputs, gates, calls, closed_over, unroll,
            (*written, *better.written), again + 1,
        )  # fmt: skip
    frame = _frame(reading, better.torn)
    frame = rolled(dataclasses.replace(frame, steps=tuple(steps)), written)
    return checkpointed(dataclasses.replace(frame, steps=tuple(with_splits(frame.steps))))


def _unread(
    closed_jaxpr: Any,
    explained: Iterable[bool],
    names: Iterable[str],
    nonnegative: Iterable[bool] | None = None,
    outputs: Iterable[bool] | None = None,
    gates: Iterable[int] | None = None,
    calls: tuple[str, ...] = (),
    closed_over: bool = False,
    unroll: bool = False,
) -> Frame:
    """A body of which only the border is asked."""
    inside = functools.partial(_unread, calls=calls, closed_over=closed_over)
    outputs = None if outputs is None else tuple(outputs)
    return _frame(
        Reading(
            closed_jaxpr, tuple(explained), names, nonnegative, outputs, FAMILIES, inside, gates,
            calls, closed_over,
        )
    )  # fmt: skip


def _frame(reading: Reading, torn: tuple[str, ...] = ()) -> Frame:
    """What is known of a function without its steps."""
    graph = reading.graph
    pairs = zip(graph.jaxpr.outvars, graph.outputs, strict=True)
    gates = tuple(gate_rank(reading, a) if flag else 0 for a, flag in pairs)
    return Frame(
        graph.closed, (), reading.explained, graph.outputs, graph.live, graph.reached, gates, torn
    )


def _cover(reading: Reading) -> dict[int, Step]:
    """A step for every variable that is needed, by the position of its last equation."""
    graph = reading.graph
    needed = [a for a, flag in zip(graph.jaxpr.outvars, graph.outputs, strict=True) if flag]
    constants = [a for eqn in graph.eqns if not graph.is_live(eqn) for a in eqn.invars]
    read = [a for a in (*constants, *graph.jaxpr.outvars) if not is_literal(a) and a in graph.live]
    steps: dict[int, Step] = {}
    covered: set[Var] = set()
    heap: list[tuple[int, int, Var]] = []
    order = itertools.count()  # decides among variables of one equation
    relevant = set(needed)

    def need(variables: Iterable[Var]) -> None:
        for var in variables:
            heapq.heappush(heap, (-graph.position[var], next(order), var))

    need(dict.fromkeys([*needed, *read]))
    while heap:
        *_, var = heapq.heappop(heap)
        if var in covered or graph.position[var] < 0:
            continue
        if var in relevant:
            step = next(s for s in (layer.recognise(reading, var) for layer in FAMILIES) if s)
            relevant.update(step.inputs)
        else:  # only constants read it, and no relevance comes back
            eqn = graph.maker[var]
            step = reading.step(Move, [eqn], (), eqn.outvars)
        steps[graph.position[var]] = step
        covered.update(step.outputs)
        need(v for v in (*step.inputs, *step.constants) if v in graph.live and v not in covered)
    return steps


def _with_constants(steps: dict[int, Step], reading: Reading) -> list[Step]:
    """The steps in order, with the equations of constants between them."""
    ordered: list[Step] = []
    pending: list[Equation] = []

    def flush() -> None:
        for _, eqns in itertools.groupby(pending, lambda eqn: list(map(id, compat.marks(eqn)))):
            group = list(eqns)
            made = [v for eqn in group for v in eqn.outvars]
            ordered.append(reading.step(Move, group, (), made))
        pending.clear()

    for index, eqn in enumerate(reading.graph.eqns):
        if not reading.graph.is_live(eqn):
            pending.append(eqn)
        if index in steps:
            flush()
            ordered.append(steps[index])
    flush()
    return ordered


def _readers_of_relu(steps: list[Step], graph: Graph) -> list[Step]:
    """Mark layers whose output only relus read: there, negative outputs carry no relevance."""
    readers: dict[Var, list[Step]] = {}
    for step in steps:
        for var in dict.fromkeys((*step.inputs, *step.constants)):
            readers.setdefault(var, []).append(step)
    outvars = {a for a in graph.jaxpr.outvars if not is_literal(a)}

    def only_relus(step: Step) -> bool:
        return all(
            var not in outvars and readers.get(var) and all(r.kind == "ReLU" for r in readers[var])
            for var in step.outputs
        )

    return [
        dataclasses.replace(step, before_relu=True)
        if step.feeds_relu and only_relus(step)
        else step
        for step in steps
    ]
