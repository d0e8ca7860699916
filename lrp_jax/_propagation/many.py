"""One question of many items, some of them at a time."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .._analysis import compat
from .._analysis.compat import Var, is_literal
from .inlining import inlined
from .sparse import without_zeros
from .split import split

_NUMBERS = 2**20
"""What an array of one chunk may hold: 4 MiB of float32 stay near a processor's cores, and keep an
accelerator busy."""


def over(function: Callable[[Any], Any], items: Any, chunk: int | None = None) -> Any:
    """`jax.vmap(function)(items)`, a chunk at a time.

    What no item changes (denominators, modified weights, the winners of pools) is computed once,
    before the first chunk. Of arrays that are zero but at one index only what is there is computed.

    Args:
        function: of one item; it may close over traced arrays.
        items: a pytree of arrays, the items leading.
        chunk: how many items at a time, at most (default: as many as leave the largest array that
            depends on them at 4 MiB).
    """
    rows, tree = jax.tree.flatten(jax.tree.map(jnp.asarray, items))
    count = len(rows[0])
    shapes = [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in rows]
    trees: list[Any] = []

    def one(*leaves: jax.Array) -> list[Any]:
        found, made = jax.tree.flatten(function(jax.tree.unflatten(tree, leaves)))
        trees.append(made)
        return found

    closed = jax.make_jaxpr(one)(*shapes)
    known = list(closed.consts)
    operands = [*map(jax.typeof, known), *shapes]
    closed = jax.make_jaxpr(
        lambda *values: without_zeros(closed, values[len(known) :], values[: len(known)])
    )(*operands)
    varies = [i >= len(known) for i in range(len(operands))]
    chunk = chunk or max(1, _NUMBERS // _largest(closed, varies))
    if chunk >= count:
        program = partial(jax.core.eval_jaxpr, compat.open_jaxpr(closed), closed.consts)
        made = jax.vmap(lambda *row: program(*known, *row))(*rows)
        return jax.tree.unflatten(trees[0], made)
    flat = jax.make_jaxpr(lambda *values: inlined(closed, values))(*operands)
    parts = split(flat, [not v for v in varies])
    once = parts.once(*known)
    rounds = -(-count // chunk)
    size = -(-count // rounds)

    def in_rounds(x: jax.Array) -> jax.Array:
        filled = jnp.concatenate([x, jnp.repeat(x[-1:], rounds * size - count, axis=0)])
        return filled.reshape(rounds, size, *x.shape[1:])

    def of_round(rows: list[Any]) -> list[Any]:
        return jax.vmap(lambda *row: parts.rest(once, list(row)))(*rows)

    made = jax.lax.map(of_round, [*map(in_rounds, rows)])
    return jax.tree.unflatten(trees[0], [x.reshape(-1, *x.shape[2:])[:count] for x in made])


def _largest(closed: Any, varies: Sequence[bool]) -> int:
    """How many numbers the largest array has that depends on inputs that vary."""
    jaxpr = compat.open_jaxpr(closed)
    reached: set[Var] = {v for v, flag in zip(jaxpr.invars, varies, strict=True) if flag}
    sizes = [1]
    for eqn in jaxpr.eqns:
        flags = [not is_literal(a) and a in reached for a in eqn.invars]
        if any(flags):
            body = compat.plain_call(eqn)
            own = (v.aval.size for v in eqn.outvars)
            sizes.append(max(own, default=1) if body is None else _largest(body, flags))
            reached.update(eqn.outvars)
    return max(sizes)
