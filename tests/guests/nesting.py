"""What stands elsewhere in an equal function: factors after sums, scales before concatenations.

A product is of all its factors, so what a sum or matrix product does not run over stands beside it:
`(g a) @ b` is `g (a @ b)`. What scales and shifts layers side by side belongs to each of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from .oracle import (
    AFFINE,
    CASTS,
    CONTRACTIONS,
    FUNCTIONS,
    SHAPE,
    Facts,
    contracts,
    is_scale_or_shift,
)
from .tape import Const, Node, Tape, Value, pruned


def factored(tape: Tape) -> Tape:
    """The same function with such factors after sums."""
    facts, nodes = Facts(tape), list[Node]()
    for node in tape.nodes:
        nodes += _with_factors_after(node, facts) or [node]
    return pruned(tape.x, tape.output, nodes, tape.lookups)


def apart(tape: Tape) -> Tape:
    """The same function, what scales and shifts contractions side by side before they are joined:
    a batch norm behind two convolutions belongs to both of them."""
    nodes = list[Node]()
    for node in tape.nodes:
        nodes += _part_by_part(node) or [node]
    return pruned(tape.x, tape.output, nodes, tape.lookups)


def _part_by_part(node: Node) -> list[Node] | None:
    joined = node.inputs[0].maker if is_scale_or_shift(node) else None
    if joined is None or joined.name != "concatenate" or len(node.inputs[0].readers) > 1:
        return None
    if not all(isinstance(o, Value) and _is_contraction(o) for o in joined.operands):
        return None
    made, parts, start = list[Node](), list[Value](), 0
    axis, whole = joined.params["dimension"], node.out.value.shape
    for part in joined.inputs:
        size = part.value.shape[axis]
        cut = slice(start, start := start + size)
        operands = [
            part if isinstance(o, Value)
            else replace(o, value=_cut(jnp.broadcast_to(o.value, whole), cut, axis))
            for o in node.operands
        ]  # fmt: skip
        own = Value(node.apply(*(o.value for o in operands))[0])
        own.maker = Node(node.name, operands, node.apply, node.params, [own])
        made.append(own.maker)
        parts.append(own)
    made.append(Node(joined.name, [*parts], joined.apply, joined.params, [node.out]))
    node.out.maker = made[-1]
    return made


def _cut(value: Any, where: slice, axis: int) -> Any:
    return value[(slice(None),) * axis + (where,)]


def _is_contraction(value: Value) -> bool:
    """Whether a value is a contraction, scaled and shifted or not."""
    node = value.maker
    while node is not None and is_scale_or_shift(node):
        node = node.inputs[0].maker
    return node is not None and node.name in CONTRACTIONS and len(node.inputs) == 1


def _with_factors_after(node: Node, facts: Facts) -> list[Node] | None:
    if node.name not in ("dot_general", "reduce_sum") or node in facts.means:
        return None
    if len(node.inputs) < 2 and not _is_multiplied(node.out, facts):
        return None
    made: list[Node] = []
    operands, after = list(node.operands), list[Value]()
    for i, operand in enumerate(node.operands):
        if isinstance(operand, Const):
            continue
        bound, places = _axes(node, i)
        inner, outer = _split(operand, bound, facts, made)
        if not (inner and outer and bound):
            continue
        whole = functools.partial(jnp.broadcast_to, shape=operand.value.shape)
        product = functools.reduce(lambda a, b: _made(made, "mul", jnp.multiply, a, b), inner)
        operands[i] = _made(made, "reshape", whole, product)
        beside = functools.partial(_beside, places=places, ndim=node.out.value.ndim)
        after += [_made(made, "reshape", beside, g) for g in outer]
    if not after:
        return None
    result = _made(made, node.name, lambda *v: node.apply(*v)[0], *operands, params=node.params)
    for g in after:
        result = _made(made, "mul", jnp.multiply, result, g)
    last = result.maker
    assert last is not None
    last.outs = [node.out]
    node.out.maker = last
    return made


def _made(
    nodes: list[Node], name: str, function: Callable[..., Any], *operands: Any, params: Any = None
) -> Value:
    made = Value(function(*(o.value for o in operands)))
    made.maker = Node(name, list(operands), lambda *v: [function(*v)], params or {}, [made])
    nodes.append(made.maker)
    return made


def _is_multiplied(value: Value, facts: Facts) -> bool:
    """Whether somebody multiplies a value with another one."""
    return any(
        facts.is_product(r) and r.name in ("mul", "div")
        if len(r.inputs) > 1
        else (r.name in SHAPE | CASTS or (r.name in ("mul", "div", "neg") and is_scale_or_shift(r)))
        and _is_multiplied(r.out, facts)
        for r in value.readers
        if isinstance(r, Node)
    )


def _axes(node: Node, position: int) -> tuple[list[int], dict[int, int]]:
    """The axes of an operand that are summed over, and where the others are in the result."""
    shape = np.shape(node.operands[position].value)
    if node.name == "reduce_sum":
        summed = list(node.params["axes"])
        rest = [i for i in range(len(shape)) if i not in summed]
        return [i for i in summed if shape[i] > 1], {a: i for i, a in enumerate(rest)}
    contracted, batch = node.params["dimension_numbers"]
    own = [*contracted[position], *batch[position]]
    free = [[i for i in range(np.ndim(o.value)) if i not in (*contracted[k], *batch[k])]
            for k, o in enumerate(node.operands)]  # fmt: skip
    first = len(batch[0]) + (len(free[0]) if position else 0)
    places = {a: i for i, a in enumerate(batch[position])}
    places.update({a: first + i for i, a in enumerate(free[position])})
    assert len(own) + len(free[position]) == len(shape)
    return [i for i in contracted[position] if shape[i] > 1], places


def _beside(value: Any, places: dict[int, int], ndim: int) -> Any:
    """A factor that is the same along the other axes, with its axes where the result has them."""
    for axis in sorted(set(range(value.ndim)) - set(places), reverse=True):
        value = jnp.take(value, 0, axis)
    order = [places[a] for a in sorted(places)]
    value = jnp.transpose(value, np.argsort(order))
    return jnp.expand_dims(value, [i for i in range(ndim) if i not in order])


def _split(
    value: Value, bound: Sequence[int], facts: Facts, nodes: list[Node]
) -> tuple[list[Value], list[Value]]:
    """The factors of a value that a sum over some of its axes runs over, and the others."""
    node = value.maker
    if node is not None and node.name in CASTS:
        return _split(node.inputs[0], bound, facts, nodes)
    if node is not None and node.name == "transpose":
        order = node.params["permutation"]
        inner, outer = _split(node.inputs[0], [order[b] for b in bound], facts, nodes)
        turn = functools.partial(jnp.transpose, axes=order)
        turned = [[_made(nodes, "transpose", turn, v, params=node.params) for v in vs]
                  for vs in (inner, outer)]  # fmt: skip
        return (turned[0], turned[1]) if outer else ([value], [])
    if node is not None and node.name in ("mul", "div") and facts.is_product(node):
        above, other = node.inputs
        if node.name == "div":
            other = _made(nodes, "div", jnp.divide, Const(jnp.ones(()), 1.0), other)
        both = [_split(v, bound, facts, nodes) for v in (above, other)]
        return [*both[0][0], *both[1][0]], [*both[0][1], *both[1][1]]
    if node is not None and node.name == "dot_general" and not contracts(node):
        if not facts.is_product(node):
            return [value], []
        factors: tuple[list[Value], list[Value]] = [], []
        for i, operand in enumerate(node.inputs):
            _, places = _axes(node, i)
            own = [a for a, place in places.items() if place in bound]
            found = _split(operand, own, facts, nodes) if own else ([], [operand])
            spread = functools.partial(_beside, places=places, ndim=value.value.ndim)
            for side, several in zip(factors, found, strict=True):
                side.extend(_made(nodes, "reshape", spread, v) for v in several)
        return factors if factors[1] else ([value], [])
    if node is not None and node.name in ("mul", "neg") and is_scale_or_shift(node):
        inner, outer = _split(node.inputs[0], bound, facts, nodes)
        if inner and outer:
            scale = node.constants[0] if node.constants else Const(-1.0, -1.0)
            inner[0] = _made(nodes, "mul", jnp.multiply, inner[0], scale)
            return inner, outer
        return [value], []
    outside = bool(bound) and all(_is_repeated(value, axis) for axis in bound)
    return ([], [value]) if outside else ([value], [])


def _is_repeated(operand: Value | Const, axis: int) -> bool:
    """Whether a value is the same along an axis, for it was spread out along it."""
    if isinstance(operand, Const):
        return operand.number is not None or axis in operand.repeated
    node = operand.maker
    if node is None:
        return False
    if node.name == "broadcast_in_dim":
        to = list(node.params["broadcast_dimensions"])
        if axis not in to:
            return True
        own = to.index(axis)
        return node.inputs[0].value.shape[own] == 1 or _is_repeated(node.inputs[0], own)
    if node.name == "transpose":
        return _is_repeated(node.inputs[0], node.params["permutation"][axis])
    if node.name in AFFINE | CASTS | FUNCTIONS:
        return all(np.ndim(o.value) == 0 or _is_repeated(o, axis) for o in node.operands)
    return False
