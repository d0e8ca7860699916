"""What the code knows when a function is traced: indices, and zeros."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import compat, primitives as prim
from .compat import Equation, Var, is_literal
from .primitives import Family, family
from .signs import literal_value

MOST = 1 << 16
"""More indices are not looked at."""
_IOTA = compat.primitive("iota")


class Known:
    """What the code knows of the variables of a jaxpr.

    Args:
        maker: the equations that make variables.
        constants: the values of closed-over arrays.
    """

    def __init__(self, maker: Mapping[Var, Equation], constants: Mapping[Var, Any]) -> None:
        self._maker, self._constants = maker, constants
        self._known: dict[Var, np.ndarray | None] = {}

    @classmethod
    def of(cls, closed_jaxpr: Any) -> "Known":
        """What the code knows of the variables of a closed jaxpr."""
        jaxpr = compat.open_jaxpr(closed_jaxpr)
        made = {v: e for e in jaxpr.eqns for v in e.outvars}
        return cls(made, dict(zip(jaxpr.constvars, closed_jaxpr.consts, strict=True)))

    def is_zero(self, atom: Any) -> bool:
        """Whether an operand is nothing but zeros."""
        origin = self._origin(atom)
        return is_literal(origin) and literal_value(origin) == 0

    def at_hand(self, atom: Any) -> np.ndarray | None:
        """The numbers of the code that an operand holds in some shape, none of them computed."""
        origin = self._origin(atom)
        return self.indices(origin) if is_literal(origin) or origin not in self._maker else None

    def _origin(self, atom: Any) -> Any:
        """The operand before its shape or type changed."""
        while not is_literal(atom):
            eqn = self._maker.get(atom)
            if eqn is None or not prim.changes_no_number(eqn.primitive):
                return atom
            atom = eqn.invars[0]
        return atom

    def indices(self, atom: Any) -> np.ndarray | None:
        """Integers that the code knows."""
        if is_literal(atom):
            return np.asarray(atom.val)
        if atom not in self._known:
            self._known[atom] = self._indices(atom)
        return self._known[atom]

    def _indices(self, var: Var) -> np.ndarray | None:
        dtype, eqn = getattr(var.aval, "dtype", None), self._maker.get(var)
        kinds = (np.integer, np.bool_)
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
        operands = [self.indices(a) for a in eqn.invars]
        if any(x is None for x in operands):
            return None
        with jax.ensure_compile_time_eval():
            return np.asarray(compat.applied(eqn, *map(jnp.asarray, operands)))
