"""Scales and shifts past a move of numbers: they belong to the contraction or norm before it.

`concatenate([x @ a, x @ b]) + bias` is `concatenate([x @ a + bias_a, x @ b + bias_b])`: where every
number of a result is one number of what contractions or norms make, constants go back the way of
the move.
"""

import itertools
from collections.abc import Callable, Collection, Container, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, Var, is_literal
from ..._analysis.graph import Graph
from ..._analysis.indices import known_in
from ..._analysis.places import itself, made_by
from ..._analysis.primitives import Family, family

Read = Callable[[Any], Any]
_SLICE = compat.primitive("slice")
_GATHER = compat.primitive("gather")
_CUTS = compat.primitives("slice rev concatenate gather")
_MOVES = _CUTS | prim.SHAPE_ONLY
_AFFINE = (*prim.SUMS, prim.MUL, prim.DIV, prim.NEG)


def past_moves(
    eqn: Equation, graph: Graph, norms: Collection[Var], roots: Container[Var]
) -> Callable[[Read], Any] | None:
    """How the last of some scales and shifts past a move is computed before it; None where an
    equation is no such thing.

    Args:
        eqn: the equation.
        graph: its graph.
        norms: what norms make.
        roots: what layers are functions of, whatever they do with it.
    """
    if not is_affine(eqn, graph):
        return None
    out = eqn.outvars[0]
    if _goes_on(out, graph, roots):
        return None
    found = _way_up(out, graph, norms)
    if found is None:
        return None
    starts, path = found
    first_cut = next((i for i, e in enumerate(path) if e.primitive in _CUTS), len(path))
    if not any(e.primitive in _AFFINE for e in path[first_cut:]):
        return None

    def way(read: Read) -> Any:
        values = {v: read(v) for v in starts}
        for e in path:
            if e.primitive in _AFFINE:
                mine = _above(e, starts, path, graph)
                values.update(_applied(e, {v: values[v] for v in mine}, path, graph, read))
        (result,) = _moved([out], path, graph, values, read)
        return result

    return way


def _goes_on(var: Var, graph: Graph, roots: Container[Var]) -> bool:
    """Whether scales or shifts follow, perhaps after moves."""
    while var not in roots and graph.read_once(var):
        reader = next(r for r in graph.readers[var] if r is not None and graph.is_live(r))
        if is_affine(reader, graph):
            return True
        if not _moves_all(reader, graph):
            return False
        var = reader.outvars[0]
    return False


def _way_up(
    out: Var, graph: Graph, norms: Collection[Var]
) -> tuple[list[Var], list[Equation]] | None:
    """What a value is moved from, contractions and norms, and the equations between, in order."""
    starts: list[Var] = []
    path: list[Equation] = []
    todo = [out]
    while todo:
        var = todo.pop()
        maker = graph.maker.get(var)
        if maker is None or (var is not out and not goes_one_way(var, graph)):
            return None
        operands = graph.explained_operands(maker)
        contracts = family(maker.primitive) is Family.CONTRACTION and len(operands) == 1
        if contracts or var in norms:
            starts.append(var)
        elif is_affine(maker, graph) or _moves_all(maker, graph):
            path.append(maker)
            todo += [maker.invars[i] for i in operands]
        else:
            return None
    starts, path = list(dict.fromkeys(starts)), list(dict.fromkeys(path))
    for var in starts + [v for e in path for v in e.outvars if v is not out]:
        if sum(e in path for e in graph.readers[var]) < len(_live_readers(var, graph)):
            return None
    return starts, sorted(path, key=lambda e: graph.position[e.outvars[0]])


def _live_readers(var: Var, graph: Graph) -> list[Equation | None]:
    return [e for e in graph.readers[var] if e is None or graph.is_live(e)]


def goes_one_way(var: Var, graph: Graph) -> bool:
    """Whether each number of a variable is read once: the variable as a whole, or parts of it that
    do not overlap."""
    if graph.read_once(var):
        return sum(a is var for e in _live_readers(var, graph) if e for a in e.invars) == 1
    parts = [e.params for e in _live_readers(var, graph) if e is not None and e.primitive is _SLICE]
    if len(parts) < len(_live_readers(var, graph)) or any(p["strides"] for p in parts):
        return False
    boxes = [tuple(zip(p["start_indices"], p["limit_indices"], strict=True)) for p in parts]
    return all(
        any(high <= other or end <= low for (low, high), (other, end) in zip(one, two, strict=True))
        for one, two in itertools.combinations(boxes, 2)
    )


def is_affine(eqn: Equation, graph: Graph) -> bool:
    """Whether an equation scales or shifts one explained value by constants, in its place."""
    operands = graph.explained_operands(eqn)
    if eqn.primitive not in _AFFINE or len(operands) != 1:
        return False
    divides = eqn.primitive is prim.DIV and operands == [1]
    return not divides and eqn.invars[operands[0]].aval == eqn.outvars[0].aval


def _moves_all(eqn: Equation, graph: Graph) -> bool:
    """Whether an equation moves explained numbers, each to one place at most."""
    if eqn.primitive is prim.KEEP:
        return True
    if eqn.primitive is _GATHER and graph.explained_operands(eqn) == [0]:
        place = made_by(eqn, known_in(graph), itself)
        rows = [(axis, [*row]) for axis, row in place.axes] if place else [(None, [0, 0])]
        return all(
            len(row) == 1 if axis is None else -1 not in row and len({*row}) == len(row)
            for axis, row in rows
        )
    if eqn.primitive not in _MOVES or len(graph.explained_operands(eqn)) < len(eqn.invars):
        return False
    same = eqn.primitive is not prim.BROADCAST
    return same or eqn.invars[0].aval.size == eqn.outvars[0].aval.size


def _above(
    eqn: Equation, starts: Sequence[Var], path: Sequence[Equation], graph: Graph
) -> list[Var]:
    """The starts that an equation depends on."""
    made = {e.outvars[0]: e for e in path}
    todo, found = [eqn.invars[i] for i in graph.explained_operands(eqn)], set[Var]()
    while todo:
        var = todo.pop()
        if var in made:
            todo += [made[var].invars[i] for i in graph.explained_operands(made[var])]
        else:
            found.add(var)
    return [v for v in starts if v in found]


def _moved(
    wanted: Sequence[Any],
    path: Sequence[Equation],
    graph: Graph,
    values: dict[Var, Any],
    read: Read,
) -> list[Any]:
    """Variables of a path, given its starts, without what scales and shifts."""
    env = dict(values)
    for e in path:
        operands = [e.invars[i] for i in graph.explained_operands(e)]
        if all(a in env for a in operands):
            as_it_is = e.primitive in (*_AFFINE, prim.KEEP)
            xs = [env[a] if a in operands else read(a) for a in ([] if as_it_is else e.invars)]
            env[e.outvars[0]] = env[operands[0]] if as_it_is else compat.applied(e, *xs)
    return [env[v] for v in wanted]


def _applied(
    eqn: Equation, values: dict[Var, Any], path: Sequence[Equation], graph: Graph, read: Read
) -> dict[Var, Any]:
    """Some starts with a scale or shift that an equation has further down."""
    (position,) = graph.explained_operands(eqn)
    target, aval = eqn.invars[position], eqn.outvars[0].aval

    def there(*ys: Any) -> Any:
        return _moved([target], path, graph, dict(zip(values, ys, strict=True)), read)[0]

    if eqn.primitive is prim.NEG and aval.size == sum(y.size for y in values.values()):
        return {v: -y for v, y in values.items()}
    back = jax.linear_transpose(there, *values.values())
    turns, operand = eqn.primitive is prim.NEG, -1.0  # of a part
    if not turns:
        operand = eqn.invars[1 - position]
        operand = operand.val if is_literal(operand) else read(operand)
    constants = back(jnp.broadcast_to(jnp.asarray(operand, aval.dtype), aval.shape))
    if turns or eqn.primitive in (prim.MUL, prim.DIV):  # what is cut off keeps its scale
        kept = back(jnp.ones(aval.shape, aval.dtype))
        constants = [jnp.where(k == 0, 1, c) for c, k in zip(constants, kept, strict=True)]
    pairs = zip(values.items(), constants, strict=True)
    if turns:
        return {v: y * c for (v, y), c in pairs}
    return {v: compat.applied(eqn, *((y, c) if position == 0 else (c, y))) for (v, y), c in pairs}
