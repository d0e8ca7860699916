"""What the code knows when a function is traced: indices, and zeros."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import compat, primitives as prim
from .compat import Equation, Var, is_literal
from .graph import Graph
from .primitives import Family, family
from .signs import literal_value

MOST = 1 << 16
"""More indices are not looked at."""
_OF_MASKS = (Family.NEUTRAL, Family.AFFINE, Family.STRUCTURAL)
_IOTA = compat.primitive("iota")


class Known:
    """What the code knows of the variables of a jaxpr.

    Args:
        maker: the equations that make variables.
        constants: the values of closed-over arrays.
    """

    def __init__(self, maker: Mapping[Var, Equation], constants: Mapping[Var, Any]) -> None:
        self.maker, self._constants = maker, constants
        self._known: dict[Var, np.ndarray | None] = {}
        self._floats: dict[Var, np.ndarray | None] = {}

    @classmethod
    def of(cls, closed_jaxpr: Any) -> "Known":
        """What the code knows of the variables of a closed jaxpr."""
        jaxpr = compat.open_jaxpr(closed_jaxpr)
        return cls(
            compat.makers(jaxpr), dict(zip(jaxpr.constvars, closed_jaxpr.consts, strict=True))
        )

    def is_zero(self, atom: Any) -> bool:
        """Whether an operand is nothing but zeros."""
        origin = self._origin(atom)
        return is_literal(origin) and literal_value(origin) == 0

    def is_one(self, atom: Any) -> bool:
        """Whether an operand is nothing but ones."""
        origin = self._origin(atom) if atom is not None else None
        return origin is not None and is_literal(origin) and bool(literal_value(origin) == 1)

    def at_hand(self, atom: Any) -> np.ndarray | None:
        """The numbers of the code that an operand holds in some shape, none of them computed."""
        origin = self._origin(atom)
        return self.indices(origin) if is_literal(origin) or origin not in self.maker else None

    def _origin(self, atom: Any) -> Any:
        """The operand before its shape or type changed."""
        while not is_literal(atom):
            eqn = self.maker.get(atom)
            if eqn is None or not prim.changes_no_number(eqn.primitive):
                return atom
            atom = eqn.invars[0]
        return atom

    def indices(self, atom: Any) -> np.ndarray | None:
        """Integers that the code knows."""
        return self._of_type(atom, self._known, (np.integer, np.bool_))

    def numbers(self, atom: Any) -> np.ndarray | None:
        """Integers that the code knows, and masks of real numbers made of them or at hand."""
        return self._of_type(atom, self._floats, (np.integer, np.bool_, np.floating))

    def along(self, atom: Any) -> tuple[int, np.ndarray] | None:
        """Numbers that the code knows and that differ along one axis: the axis, and those numbers.
        None of anything else."""
        if is_literal(atom) or not atom.aval.shape:
            return None
        eqn = self.maker.get(atom)
        if eqn is not None and eqn.primitive is prim.BROADCAST and not is_literal(eqn.invars[0]):
            inner = self.along(eqn.invars[0])
            return inner and (eqn.params["broadcast_dimensions"][inner[0]], inner[1])
        numbers = self.numbers(atom)
        if numbers is None:
            return None
        firsts = [numbers.take([0], i) if n else numbers for i, n in enumerate(numbers.shape)]
        axes = [i for i, first in enumerate(firsts) if (numbers != first).any()]
        if len(axes) != 1:
            return None
        others = tuple(slice(None) if i == axes[0] else 0 for i in range(numbers.ndim))
        return axes[0], numbers[others]

    def _of_type(
        self, atom: Any, found: dict[Var, np.ndarray | None], kinds: tuple[Any, ...]
    ) -> np.ndarray | None:
        if is_literal(atom):
            return np.asarray(atom.val)
        if atom not in found:
            found[atom] = self._numbers(atom, found, kinds)
        return found[atom]

    def _numbers(
        self, var: Var, found: dict[Var, np.ndarray | None], kinds: tuple[Any, ...]
    ) -> np.ndarray | None:
        dtype, eqn = getattr(var.aval, "dtype", None), self.maker.get(var)
        whole = dtype is not None and any(jnp.issubdtype(dtype, kind) for kind in kinds)
        if not whole or var.aval.size > MOST:
            return None
        if eqn is None:
            value = self._constants.get(var)
            at_hand = value is not None and not isinstance(value, jax.core.Tracer)
            if not at_hand or not getattr(value, "is_fully_addressable", True):
                return None
            return np.asarray(value)
        kind = family(eqn.primitive)
        if len(eqn.outvars) != 1 or (kind is None and eqn.primitive is not _IOTA):
            return None
        if kind is Family.CONTROL or compat.custom_call(eqn) is not None:
            return None
        if jnp.issubdtype(var.aval.dtype, jnp.floating) and kind not in _OF_MASKS:
            return None  # tables of sines and powers are no masks
        operands = [self._of_type(a, found, kinds) for a in eqn.invars]
        if any(x is None for x in operands):
            return None
        with jax.ensure_compile_time_eval():
            return np.asarray(compat.applied(eqn, *map(jnp.asarray, operands)))


def known_in(graph: Graph) -> Known:
    """What the code knows of the variables of a graph, found once."""
    return graph.once(_known)


def _known(graph: Graph) -> Known:
    return Known.of(graph.closed)
