"""Loops whose turns are alike.

A state that begins as a constant carries relevance in all other turns. Where it meets a value of
the input in a product, all relevance is that value's in the first turn and is shared in the others,
so the first turn stands apart; a sum gives the same in both. What a loop only counts is computed by
a loop of its own, so that a loop that carries nothing else is a map.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._analysis import compat, primitives as prim
from ..._analysis.compat import Equation, is_literal
from ..._analysis.draft import Draft
from ..._analysis.factors import constant
from ..._analysis.graph import Graph
from ..._analysis.numbers import is_at_hand
from ..._analysis.splice import splice
from ..._analysis.trace import evaluate_inlined, in_place_of, inline, scopes

_PRODUCTS = {prim.MUL, prim.DOT, prim.CONV}
_SUMS = {*prim.SUMS, prim.SELECT, *compat.primitives("concatenate dynamic_update_slice")}
_MOVES = {
    *prim.SHAPE_ONLY, prim.REDUCE_SUM, prim.NEG, *prim.SUMS,
    *compat.primitives("slice dynamic_slice concatenate convert_element_type"),
}  # fmt: skip
"""What makes zeros of zeros."""

Written = Callable[..., list[Any]]
"""From the operands of an equation to its results."""


def with_like_turns(draft: Draft) -> Draft:
    """The same function with loops all of whose turns carry relevance in the same values.

    A state that reads another one may be a constant for two turns, and so on.
    """
    while any(eqn.primitive is prim.SCAN for eqn in draft.eqns):
        graph, calls = draft.graph, draft.calls
        loops = (eqn for eqn in graph.eqns if eqn.primitive is prim.SCAN)
        others = {id(eqn): other for eqn in loops if (other := _other(eqn, graph, calls))}
        if not others:
            break
        # A loop of one turn is its turn.
        spliced = inline(splice(graph.closed, others), calls)
        draft = draft.written(compat.without_unused(spliced))
    return draft


def _other(eqn: Equation, graph: Graph, calls: Sequence[str]) -> Written | None:
    """A loop written otherwise, or None."""
    carried = graph.carried(eqn) if eqn.params["length"] > 1 else []
    if any(later and not first for first, later in carried):
        return _first_apart(eqn, calls) if _first_differs(eqn, carried, graph, calls) else None
    results = len(eqn.outvars) > compat.scan_arity(eqn)[1]  # of the turns, beside the last state
    if carried and results and not any(later for _, later in carried):
        return _as_map(eqn)
    return None


def _first_differs(
    eqn: Equation, carried: Sequence[tuple[bool, bool]], graph: Graph, calls: Sequence[str]
) -> bool:
    """Whether in the first turn something is the only operand that carries relevance of what is no
    sum. A product with zero is zero in that turn, and has no relevance to share."""
    constants, carries = compat.scan_arity(eqn)
    carry = slice(constants, constants + carries)
    body = inline(compat.closed(eqn.params["jaxpr"]), calls)
    given = graph.explained_flags(eqn)
    later = list(given)
    later[carry] = [ever for _, ever in carried]
    turns = [Graph(body, tuple(flags), None) for flags in (given, later)]
    first, other = (turn.reached for turn in turns)
    invars = compat.open_jaxpr(body).invars[carry]
    zero = {v for v, begun in zip(invars, eqn.invars[carry], strict=True) if _is_zero(begun, graph)}
    for inner in turns[1].eqns:
        atoms = [a for a in inner.invars if not is_literal(a)]
        zeros = [a.val == 0 if is_literal(a) else a in zero for a in inner.invars]
        if (inner.primitive in _PRODUCTS and any(zeros)) or (
            inner.primitive in _MOVES and all(zeros)
        ):
            zero.update(inner.outvars)
        elif inner.primitive in _SUMS or not first.intersection(atoms):
            continue
        elif any(a in other and a not in first for a in atoms):
            return True
    return False


def _is_zero(atom: Any, graph: Graph) -> bool:
    """Whether an operand is known to be zero everywhere."""
    if not is_literal(atom) and atom in graph.jaxpr.constvars:
        value = graph.closed.consts[graph.jaxpr.constvars.index(atom)]
        return is_at_hand(value) and not np.any(np.asarray(value))
    return constant(graph, atom) == 0


def _first_apart(eqn: Equation, calls: Sequence[str]) -> Written:
    """The first turn of a loop, and a loop of the others."""
    length, backwards = eqn.params["length"], eqn.params["reverse"]
    constants, carries = compat.scan_arity(eqn)
    held = constants + carries
    body = compat.closed(eqn.params["jaxpr"])
    first, others = (length - 1, slice(length - 1)) if backwards else (0, slice(1, None))

    def written(*operands: Any) -> list[Any]:
        xs = operands[held:]
        with scopes(compat.marks(eqn)):  # the scopes of all turns, for one name
            outs = evaluate_inlined(body, [*operands[:held], *(x[first] for x in xs)], calls)
        with in_place_of(eqn):
            again = [*operands[:constants], *outs[:carries], *(x[others] for x in xs)]
            rest = eqn.primitive.bind(*again, **eqn.params | {"length": length - 1})
            pairs = (
                (jnp.expand_dims(y, 0), ys)
                for y, ys in zip(outs[carries:], rest[carries:], strict=True)
            )
            made = [jnp.concatenate(pair[::-1] if backwards else pair) for pair in pairs]
        return [*rest[:carries], *made]

    return written


def _as_map(eqn: Equation) -> Written:
    """A loop that computes what the turns begin with, and a loop that carries nothing."""
    constants, carries = compat.scan_arity(eqn)
    held = constants + carries
    body = compat.closed(eqn.params["jaxpr"])
    jaxpr = compat.open_jaxpr(body)
    whole = compat.as_function(jaxpr, jaxpr.eqns, [*jaxpr.constvars, *jaxpr.invars], jaxpr.outvars)
    params = {name: eqn.params[name] for name in ("length", "reverse", "unroll")}

    def written(*operands: Any) -> list[Any]:
        def turn(carry: list[Any], xs: list[Any]) -> list[Any]:
            return whole(*body.consts, *operands[:constants], *carry, *xs)

        xs = list(operands[held:])
        with in_place_of(eqn):
            last, begun = jax.lax.scan(
                lambda carry, xs: (turn(carry, xs)[:carries], carry),
                list(operands[constants:held]), xs, **params,
            )  # fmt: skip
            _, ys = jax.lax.scan(
                lambda _, given: (None, turn(*given)[carries:]), None, (begun, xs), **params
            )
        return [*last, *ys]

    return written
