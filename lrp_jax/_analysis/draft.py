"""A function while it is written otherwise: what it computes, and what of it is explained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any

from . import compat
from .compat import Equation
from .graph import Graph
from .otherwise import Read, computed_otherwise


@dataclasses.dataclass(frozen=True, eq=False)
class Draft:
    """A function while it is written otherwise.

    Attributes:
        closed: it, as a flat jaxpr.
        explained: for each input whether it is explained.
        outputs: for each output whether it is explained; None: all of them.
        calls: globs of the names of called functions that stay whole.
    """

    closed: Any
    explained: tuple[bool, ...]
    outputs: tuple[bool, ...] | None
    calls: tuple[str, ...] = ()

    @property
    def eqns(self) -> list[Equation]:
        """The equations, in order."""
        eqns: list[Equation] = compat.open_jaxpr(self.closed).eqns
        return eqns

    @cached_property
    def graph(self) -> Graph:
        """Who makes and who reads what."""
        return Graph(self.closed, self.explained, self.outputs)

    def written(self, closed: Any) -> Draft:
        """The same function in another writing, an equal jaxpr."""
        return self if closed is self.closed else dataclasses.replace(self, closed=closed)

    def otherwise(
        self, is_other: Callable[[Equation], bool], way: Callable[[Equation, Read], Any]
    ) -> Draft:
        """The same function with some equations in another way (see `computed_otherwise`)."""
        return self.written(computed_otherwise(self.closed, is_other, way))
