"""Random networks: a program of plain tuples, and the function that it means.

A program is data that can be printed, kept in a test and made smaller. Every program is valid: a
number in it means itself modulo the choices there are, so nothing has to be solved for, and a
shorter or simpler program is always a network too (see `operations.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .operations import OPS, State, Weights

BATCH, CLASSES = 3, 3
INPUTS = {"vector": (6,), "sequence": (5, 4), "image": (6, 6, 2)}
DTYPES = ("float64", "float32", "bfloat16")


class Op(NamedTuple):
    """One operation.

    Attributes:
        name: a key of `OPS`, or one of `BLOCKS`.
        a, b, c: free numbers.
        of: which value it reads, counted backwards.
        inside: for a block the operations in it.
    """

    name: str
    a: int = 0
    b: int = 0
    c: int = 0
    of: int = 0
    inside: tuple[Op, ...] = ()

    def __repr__(self) -> str:
        last = f", {self.inside!r}" if self.inside else ""
        return f"Op({self.name!r}, {self.a}, {self.b}, {self.c}, {self.of}{last})"


@dataclass(frozen=True)
class Program:
    """A network and how it is explained.

    Attributes:
        seed: of the numbers of inputs and parameters.
        kind: a key of `INPUTS`.
        dtype: one of `DTYPES`.
        composite: the number of a composite.
        target: the number of a target.
        ops: the operations, before the output layer.
    """

    seed: int
    kind: str
    dtype: str
    composite: int
    target: int
    ops: tuple[Op, ...]


# -- blocks -------------------------------------------------------------------------------------


def block(s: State, x: Array, name: str, a: int, inside: tuple[Op, ...]) -> Array:
    """Operations inside of a call, a loop or a branch."""

    def body(v: Array) -> Array:
        return evaluate(State([v], s.weights), inside)

    def same_shape(v: Array) -> Array:
        y = body(v)
        return (
            y
            if y.shape == v.shape
            else v + y.mean(tuple(range(1, y.ndim))).reshape(-1, *(1,) * (v.ndim - 1))
        )

    if name == "jit":
        return jax.jit(body)(x)
    if name == "remat":
        return jax.checkpoint(body)(x)
    if name == "branch":
        before = dict(s.weights.shapes)
        last = body(x)  # fixes the parameters, which both branches then read
        kept = dict(s.weights.shapes)

        def again(v: Array, sign: float) -> Array:
            s.weights.shapes = dict(before)
            y = body(sign * v)
            s.weights.shapes = dict(kept)
            return y

        which = s.weights("switch") > 0
        y = lax.cond(which, lambda v: again(v, 1.0), lambda v: again(v, -0.5), x)
        return y + last if a % 2 else y
    if name == "loop":
        shapes = dict(s.weights.shapes)
        same_shape(x)
        kept = dict(s.weights.shapes)

        def turn(v: Array, _: Any) -> tuple[Array, None]:
            s.weights.shapes = dict(shapes)
            y = same_shape(v).astype(v.dtype)
            s.weights.shapes = dict(kept)
            return y, None

        return lax.scan(turn, x, None, length=2)[0]
    if name == "each":  # mapped over a hidden axis, in a program of its own
        shapes = dict(s.weights.shapes)
        body(x)
        kept = dict(s.weights.shapes)

        def one(v: Array) -> Array:
            s.weights.shapes = dict(shapes)
            y = body(v[None])[0]
            s.weights.shapes = dict(kept)
            return y

        return jax.vmap(one)(x)
    raise ValueError(name)


BLOCKS = ("jit", "remat", "branch", "loop", "each")


def evaluate(s: State, ops: tuple[Op, ...]) -> Array:
    for name, a, b, c, of, inside in ops:
        x = s.pick(of)
        y = block(s, x, name, a, inside) if name in BLOCKS else OPS[name](s, x, a, b, c)
        if y.size > 130 * y.shape[0]:  # keeps everything tiny
            y = y.reshape(y.shape[0], -1)[:, :24]
        s.values.append(y)
    return s.values[-1]


def function_of(program: Program, made: Weights | None = None) -> Callable[[Any, Array], Array]:
    """`apply(params, x)`; with `made`, a function that makes its parameters there."""

    def apply(params: dict[str, Any], x: Array) -> Array:
        weights = made or Weights(params, program.seed, x.dtype)
        y = evaluate(State([x], weights), program.ops)
        y = y.mean(tuple(range(1, y.ndim - 1)))
        return y @ weights("out", y.shape[-1], CLASSES, fan_in=y.shape[-1])

    return apply


def build(
    program: Program,
) -> tuple[Callable[[Any, Array], Array], dict[str, Array], np.ndarray]:
    """The function of a program, its parameters and a batch of inputs."""
    dtype = jnp.dtype(program.dtype)
    rng = np.random.default_rng((program.seed, 10**6))
    x = rng.standard_normal((BATCH, *INPUTS[program.kind])).astype(dtype)
    weights = Weights(None, program.seed, dtype)
    jax.eval_shape(function_of(program, weights), {}, x)
    params = {name: jnp.asarray(value, dtype) for name, value in weights.made.items()}
    return function_of(program), params, x  # NumPy would make float32 of a bfloat16 times 0.3


# -- drawing programs ---------------------------------------------------------------------------

LINEAR = ("dense", "conv", "relu", "add", "concat", "pool", "move", *BLOCKS)
"""Operations under which LRP-0 is gradient x input."""
EVERYTHING = ("dense", "dense", "conv", "conv", *OPS, *BLOCKS)


def draw(seed: int, composites: int, targets: int, length: int = 6) -> Program:
    """The program of a seed, with at most `length` operations and blocks in a row."""
    rng = np.random.default_rng(seed)
    linear = rng.random() < 0.15
    names = LINEAR if linear else EVERYTHING

    def some(count: int, depth: int, mapped: bool = False) -> tuple[Op, ...]:
        ops = []
        for _ in range(count):
            name = str(rng.choice(names))
            a, b, c = (int(n) for n in rng.integers(0, 24, 3))
            of = int(rng.integers(1, 6)) if rng.random() < 0.2 else 0
            if name in BLOCKS and depth == 2:
                name = "dense"
            if name == "grouped" and mapped:  # JAX has no vmap of such products yet
                name = "dense"
            nested: tuple[Op, ...] = ()
            if name in BLOCKS:
                nested = some(int(rng.integers(1, 4)), depth + 1, mapped or name == "each")
            ops.append(Op(name, a, b, c, of, nested))
        return tuple(ops)

    dtype = str(rng.choice(DTYPES, p=(0.7, 0.15, 0.15)))
    return Program(
        seed=seed,
        kind=str(rng.choice(list(INPUTS))),
        dtype="float64" if linear else dtype,
        composite=int(rng.integers(composites)),
        target=int(rng.integers(targets)),
        ops=some(int(rng.integers(1, length + 1)), 0),
    )


def all_ops(ops: tuple[Op, ...]) -> list[Op]:
    """All operations of a program, those inside of others too."""
    return [*ops, *(inner for o in ops for inner in all_ops(o.inside))]


def is_linear(program: Program) -> bool:
    """Whether LRP-0 is gradient x input."""
    return {o.name for o in all_ops(program.ops)} <= {*LINEAR}


def precision(program: Program) -> str:
    """The least precise dtype in a program."""
    casts = {DTYPES[1 + o.a % 2] for o in all_ops(program.ops) if o.name == "cast"}
    return max([program.dtype, *casts], key=DTYPES.index)
