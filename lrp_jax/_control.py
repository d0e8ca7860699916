"""The bodies of control flow as frames: `remat`, `scan`, `cond`, `shard_map`."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from . import _compat
from . import _primitives as prim
from ._compat import Equation
from ._trace import evaluate_inlined


def bodies(
    eqn: Equation,
    explained: Sequence[bool],
    wanted: Sequence[bool],
    names: Sequence[str],
    signs: Sequence[bool],
    analyse: Callable[..., Any],
    inline: Callable[[Any], Any],
    refusal: Callable[[Equation], str],
) -> tuple[Any, ...]:
    """Analyse every body of an equation with the knowledge of its caller.

    Args:
        eqn: an equation of the family `CONTROL`.
        explained: which operands carry relevance.
        wanted: which results carry relevance on.
        names: tree paths of the operands.
        signs: which operands are known to be non-negative.
        analyse: `_blocks.analyse`.
        inline: `_trace.inline`.
        refusal: writes the message for what cannot be served.
    """
    primitive = eqn.primitive
    if primitive is prim.WHILE:
        from ._layers import UnsupportedOperation

        raise UnsupportedOperation(
            refusal(eqn)
            + " A while loop has no reverse pass: use jax.lax.scan, or jax.lax.fori_loop with "
            "static bounds, which is a scan."
        )
    if primitive is prim.SCAN:
        return (_scan_body(eqn, explained, wanted, names, signs, analyse, inline),)
    if primitive is prim.COND:
        return tuple(
            analyse(inline(_compat.closed(b)), explained[1:], names[1:], signs[1:], wanted)
            for b in eqn.params["branches"]
        )
    body = _compat.closed(eqn.params["jaxpr"])
    if primitive is prim.REMAT:
        return (analyse(inline(body), explained, names, signs, wanted),)
    return (analyse(_inlined_on_devices(eqn, body), explained, names, signs, wanted),)


def _inlined_on_devices(eqn: Equation, body: Any) -> Any:
    """The body of a `shard_map` with its calls inlined, traced where its axes have their names."""
    mapped = jax.shard_map(
        lambda *values: tuple(evaluate_inlined(body, values)), **_compat.shard_map_arguments(eqn)
    )
    avals = [jax.ShapeDtypeStruct(a.aval.shape, a.aval.dtype) for a in eqn.invars]
    (outer,) = jax.make_jaxpr(mapped)(*avals).eqns
    return _compat.closed(outer.params["jaxpr"])


def _scan_body(
    eqn: Equation,
    explained: Sequence[bool],
    wanted: Sequence[bool],
    names: Sequence[str],
    signs: Sequence[bool],
    analyse: Callable[..., Any],
    inline: Callable[[Any], Any],
) -> Any:
    constants, carries = _compat.scan_arity(eqn)
    body = inline(_compat.closed(eqn.params["jaxpr"]))
    explained, wanted, signs = list(explained), list(wanted), list(signs)
    carry = slice(constants, constants + carries)
    signs[carry] = [False] * carries
    # What a step explains, the next step's carry brings in: grow both ends to a fixed point.
    while True:
        frame = analyse(body, explained, names, signs, wanted)
        reached = [a in frame.reached for a in frame.outvars[:carries]]
        flows_in = [v in frame.live for v in frame.invars[carry]]
        grown_in = [a or b for a, b in zip(explained[carry], reached, strict=True)]
        grown_out = [
            a or (b and c) for a, b, c in zip(wanted[:carries], flows_in, reached, strict=True)
        ]
        if grown_in == explained[carry] and grown_out == wanted[:carries]:
            return frame
        explained[carry], wanted[:carries] = grown_in, grown_out
