"""What the analysis finds: layers and the pieces between them. Frozen records, no arrays."""

from dataclasses import dataclass, field
from typing import Any

from . import _compat
from ._compat import Equation, Var
from .kinds import Kind


class UnsupportedOperation(NotImplementedError):
    """An operation between input and output through which relevance has no rule."""


@dataclass(frozen=True, eq=False)
class Chain:
    """Equations that map one variable to another, each affine or structural in it."""

    eqns: tuple[Equation, ...]
    start: Var
    end: Var
    scales: bool  # whether anything multiplies

    def __bool__(self) -> bool:
        return bool(self.eqns)


@dataclass(frozen=True, eq=False)
class Contraction:
    """`after(contract(before(x), w))`: one linear map with its weights and biases."""

    before: Chain
    eqn: Equation
    position: int  # which operand of the contraction is explained
    after: Chain
    features: tuple[int, int] | None = None  # an output axis that one axis of the weights makes
    feature_scales: bool = False  # whether the scales after it vary along that axis alone


@dataclass(frozen=True, eq=False)
class Sum:
    """A fixed sum of explained numbers, with the division that makes it a mean."""

    eqns: tuple[Equation, ...]
    signs: tuple[int, ...] | None  # of every operand; None for a map of complex numbers
    turns: bool = False  # whether the division may change the sign
    shifted: bool = False  # whether complex constants may be added on the way


@dataclass(frozen=True, eq=False)
class Pointwise:
    """An elementwise function of one explained variable."""

    eqns: tuple[Equation, ...]
    zero_at_zero: bool  # f(0) = 0 whatever the constants are
    relu: bool


@dataclass(frozen=True, eq=False)
class Shift:
    """A stand-alone affine function, number by number: a batch norm or a bias."""

    chain: Chain


@dataclass(frozen=True, eq=False)
class Held:
    """Equations followed natively, the operand `position` of `product` held constant."""

    eqns: tuple[Equation, ...]
    product: Equation | None
    position: int
    batch_axis: bool = False  # whether the statistics mix examples


@dataclass(frozen=True, eq=False)
class Product:
    """A product, or quotient, of two explained values."""

    eqn: Equation
    gate: int | None  # the operand that gates, where one does


@dataclass(frozen=True, eq=False)
class Native:
    """Equations that move numbers without mixing them."""

    eqns: tuple[Equation, ...]


@dataclass(frozen=True, eq=False)
class Body:
    """An equation with bodies: `remat`, `scan`, `cond`, `shard_map`."""

    eqn: Equation
    frames: tuple["Frame", ...]
    explained: tuple[bool, ...]  # of the equation's operands


@dataclass(frozen=True, eq=False)
class Step:
    """One piece of the computation: what it reads, what it makes, what it is."""

    what: Any
    inputs: tuple[Var, ...]
    constants: tuple[Var, ...]
    outputs: tuple[Var, ...]
    position: int  # of its last equation
    kind: Kind | None = None  # None: no rule applies
    name: str = ""
    weights: tuple[str, ...] = ()
    source: str = ""
    nonnegative: bool = False  # its explained input is known to be >= 0
    before_relu: bool = False  # every reader of its output is a relu


@dataclass(frozen=True, eq=False)
class Frame:
    """A jaxpr as steps in order of execution.

    Attributes:
        jaxpr: the closed flat jaxpr.
        steps: the pieces on the way of relevance and, between them, constant equations.
        explained: for each input, whether relevance flows to it.
        outputs: for each output, whether relevance comes from it.
    """

    jaxpr: Any
    steps: tuple[Step, ...]
    explained: tuple[bool, ...]
    outputs: tuple[bool, ...]
    live: frozenset[Var] = field(repr=False)
    reached: frozenset[Var] = field(repr=False)

    @property
    def invars(self) -> list[Var]:
        return list(_compat.open_jaxpr(self.jaxpr).invars)

    @property
    def outvars(self) -> list[Any]:
        return list(_compat.open_jaxpr(self.jaxpr).outvars)
