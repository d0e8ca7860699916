"""Rows that tables do not have, asked for by explained ids: JAX reads others without a word."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np

from .._analysis import compat, primitives as prim
from .._analysis.compat import Equation, Var
from .._layers.step import Frame
from .._warnings import warn

UNKNOWN = (
    "{} has {} rows and is asked for row {}: JAX reads another one in its place, or NaN. Are the "
    "ids those of another tokenizer or marks of padding, or is a text longer than its positions?"
)
FROM_THE_END = (
    "{} is asked for row {}, which JAX counts from the end of its {} rows. Is it a mark of padding?"
)


class Asked(NamedTuple):
    """Rows that a lookup asks for.

    Attributes:
        name: of the table.
        indices: where the rows are, along the last axis if `part` says at which entry.
        part: that entry, or None.
        rows: how many there are.
        last: the last that may be asked for.
    """

    name: str
    indices: Var
    part: int | None
    rows: int
    last: int

    @classmethod
    def by(cls, eqn: Equation, name: str) -> Iterator["Asked"]:
        """All that an equation asks for, but where the code says what stands for missing rows."""
        table, indices, *more = eqn.invars
        shape, sizes = table.aval.shape, eqn.params["slice_sizes"]
        numbers, filled = eqn.params.get("dimension_numbers"), eqn.params.get("fill_value")
        axes = range(len(shape)) if numbers is None else numbers.start_index_map
        for i, axis in enumerate(axes if filled is None or np.isnan(filled) else ()):
            var = [indices, *more][i] if numbers is None else indices
            if not compat.is_literal(var):
                last = shape[axis] - sizes[axis]
                yield cls(name, var, None if numbers is None else i, shape[axis], last)


class Rows:
    """Which rows of constant tables a call asks for, by explained ids and by numbers of the code.

    One-hot vectors ask for none: outside of a table they are zeros.

    Args:
        frame: the analysed function.
        ids: the positions of explained integers among its inputs.
        names: of its inputs.
    """

    def __init__(self, frame: Frame, ids: Collection[int], names: Sequence[str]) -> None:
        self._frame = frame
        jaxpr = compat.open_jaxpr(frame.jaxpr)
        makers = compat.makers(jaxpr)
        places = {var: i for i, var in enumerate(jaxpr.invars)}
        self._asked = []
        for eqn in jaxpr.eqns:
            if eqn.primitive not in _READS or eqn.invars[0] in frame.reached:
                continue
            table = (names[places[v]] for v in _sources(eqn.invars[0], makers) if v in places)
            for asked in Asked.by(eqn, next(table, "") or "a table"):
                if all(places.get(v) in (None, *ids) for v in _sources(asked.indices, makers)):
                    self._asked.append(asked)

    def warn_of_unknown(self, leaves: Sequence[Any]) -> None:
        """Warn of those that there are not, where the ids can be read."""
        if not self._asked:
            return
        needed, constants, read = self._program
        given = [*constants, *(leaves[i] for i in needed)]
        if any(isinstance(leaf, jax.core.Tracer) for leaf in given):
            return
        with jax.ensure_compile_time_eval():  # around it another function may be traced
            values = [np.asarray(value) for value in read(*given)]
        for asked, at, before in zip(self._asked, values[::2], values[1::2], strict=True):
            at = at if asked.part is None else at[..., asked.part]
            outside = at[(at < 0) | (at > asked.last)]
            negative = before.min(initial=0)
            if outside.size:
                warn(UNKNOWN.format(asked.name, asked.rows, negative or outside[0]))
            elif negative:
                warn(FROM_THE_END.format(asked.name, negative, asked.rows))

    @cached_property
    def _program(self) -> Any:
        """The inputs and constants that indices are made of, and a function to the indices."""
        closed = self._frame.jaxpr
        eqns, makers = compat.open_jaxpr(closed).eqns, compat.makers(compat.open_jaxpr(closed))
        counted = [_before_counting_on(asked.indices, makers) for asked in self._asked]
        outputs = [v for a, c in zip(self._asked, counted, strict=True) for v in (a.indices, c)]
        read = compat.without_unused(compat.with_equations(closed, eqns, outputs))
        jaxpr = compat.open_jaxpr(read)
        used = {a for eqn in jaxpr.eqns for a in eqn.invars if not compat.is_literal(a)}
        used.update(outputs)
        needed = [i for i, var in enumerate(jaxpr.invars) if var in used]
        constants = {v: c for v, c in zip(jaxpr.constvars, read.consts, strict=True) if v in used}
        operands = [*constants, *(jaxpr.invars[i] for i in needed)]
        function = compat.as_function(read, jaxpr.eqns, operands, jaxpr.outvars)
        return needed, [*constants.values()], jax.jit(function)


def _sources(var: Any, makers: Mapping[Var, Equation]) -> set[Var]:
    """The inputs and constants that a variable is made of."""
    todo, seen, found = [var], set[Var](), set[Var]()
    while todo:
        var = todo.pop()
        if compat.is_literal(var) or var in seen:
            continue
        seen.add(var)
        eqn = makers.get(var)
        if eqn is None:
            found.add(var)
        else:
            todo += eqn.invars
    return found


def _before_counting_on(indices: Var, makers: Mapping[Var, Equation]) -> Var:
    """What indices are before JAX adds the number of rows to negative ones."""
    var = indices
    while (eqn := makers.get(var)) is not None:
        operands = [a for a in eqn.invars if not compat.is_literal(a)]
        if eqn.primitive is prim.SELECT and len(operands) == 3:
            condition, one, other = operands
            compared, added = makers.get(condition), makers.get(other)
            if compared is None or compared.primitive not in _LESS or added is None:
                return indices
            return one if one in compared.invars and one in added.invars else indices
        if len(operands) != 1:
            break
        var = operands[0]
    return indices


_LESS, _READS = compat.primitives("lt"), compat.primitives("gather dynamic_slice")
