"""Chains of affine equations: what they are, and how numbers follow them one by one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .._analysis import compat, primitives as prim
from .._analysis.compat import Equation, Var, is_literal
from .._analysis.graph import Graph
from .._analysis.primitives import Family, family
from .._analysis.signs import literal_value

Read = Callable[[Any], Any]
"""The value of a variable or a literal."""

SHIFTING = prim.SUMS
SCALING = (prim.MUL, prim.DIV, prim.NEG, prim.SUB)


@dataclass(frozen=True, eq=False)
class Chain:
    """Equations that map one variable to another, each affine or structural in it."""

    eqns: tuple[Equation, ...]
    start: Var
    end: Var

    @property
    def scales(self) -> bool:
        """Whether anything multiplies."""
        return any(e.primitive in SCALING for e in self.eqns)

    @property
    def shifts(self) -> bool:
        """Whether anything is added."""
        return any(e.primitive in SHIFTING for e in self.eqns)


def is_literal_link(eqn: Equation) -> bool:
    """Whether an affine equation's constants are numbers written in the code."""
    others = [a for a in eqn.invars if literal_value(a) is not None]
    return len(others) >= len(eqn.invars) - 1


def pads_with_zeros(eqn: Equation) -> bool:
    """Whether an equation surrounds a value with zeros, which are no inputs of a layer after it."""
    return eqn.primitive is _PAD and literal_value(eqn.invars[1]) == 0.0


def is_mean_factor(graph: Graph, eqn: Equation) -> bool:
    """Whether an equation can be the division that makes a sum a mean."""
    if eqn.primitive is prim.KEEP:
        return False  # its value is not that of other operands
    if prim.changes_no_number(eqn.primitive):
        return True
    return eqn.primitive is prim.DIV or (
        eqn.primitive is prim.MUL and scales_by_one_number(graph, eqn)
    )


def scales_by_one_number(graph: Graph, eqn: Equation) -> bool:
    """Whether an equation multiplies or divides everything by the same constant."""
    if eqn.primitive not in (prim.MUL, prim.DIV):
        return eqn.primitive is prim.NEG
    explained = graph.explained_operands(eqn)
    return all(_is_one_number(graph, a) for i, a in enumerate(eqn.invars) if i not in explained)


def _is_one_number(graph: Graph, atom: Any) -> bool:
    """Whether an operand is one number, or an array that is filled with one."""
    while not is_literal(atom) and atom.aval.size != 1:
        eqn = graph.maker.get(atom)
        if eqn is None or not prim.changes_no_number(eqn.primitive):
            return False
        atom = eqn.invars[0]
    return True


def run_chain(chain: Chain, x: jax.Array, read: Read, mode: str) -> jax.Array:
    """Follow `x` through a chain of affine equations.

    Args:
        chain: the equations.
        x: value of the chain's start.
        read: values of the chain's constants.
        mode: "exact"; "linear", without the shifts; "absolute", with |scales|; "squared", with
            squared scales; "structural", without scales; "passing", the same, but nothing where a
            scale is zero; or "zero", exact for an `x` of zeros.
    """
    var = chain.start
    for eqn in chain.eqns:
        position = next(i for i, a in enumerate(eqn.invars) if a is var)
        others = [read(a) for i, a in enumerate(eqn.invars) if i != position]
        x = _link(eqn, position, x, others, mode)
        var = eqn.outvars[0]
    return x


def _link(eqn: Any, position: int, x: jax.Array, others: list[Any], mode: str) -> jax.Array:
    primitive = eqn.primitive
    if family(primitive) is not Family.AFFINE:
        if mode == "zero" and prim.is_psum(primitive):
            return x
        return _bind(eqn, x)
    exact = mode in ("exact", "zero")
    if primitive is prim.NEG:
        return -x if exact or mode == "linear" else x
    (constant,) = others
    shape = eqn.outvars[0].aval.shape
    if primitive in (prim.MUL, prim.DIV):
        if mode in ("structural", "passing"):
            x = jnp.broadcast_to(x, shape)
            passing = mode == "passing" and primitive is prim.MUL and jnp.ndim(constant)
            return jnp.where(constant == 0, jnp.zeros_like(x), x) if passing else x
        if mode == "absolute":
            constant = jnp.abs(constant)
        elif mode == "squared":
            constant = constant * constant
        return x * constant if primitive is prim.MUL else x / constant
    flipped = primitive is prim.SUB and position == 1
    x = jnp.broadcast_to(x, shape)
    if not exact:
        return -x if flipped and mode == "linear" else x
    if primitive is prim.SUB:
        return constant - x if flipped else x - constant
    return x + constant


def _bind(eqn: Any, x: jax.Array) -> jax.Array:
    """An equation of one operand, or a padding, at another value."""
    if eqn.primitive is prim.KEEP:
        return x
    if eqn.primitive is _CONVERT and x.dtype == eqn.outvars[0].aval.dtype:
        return x
    others = [a.val for a in eqn.invars[1:]]  # the zero that pads
    return compat.applied(eqn, x, *others)


_CONVERT = compat.primitive("convert_element_type")
_PAD = compat.primitive("pad")
