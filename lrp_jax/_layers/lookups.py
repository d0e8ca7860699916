"""Explained integers, such as token ids: moved about, and looked up in tables.

    R_id = the sum over features of what arrives at the vector that it looks up

Integers carry relevance itself, never a multiplier. They may be moved, and counted on by constants,
as one index each; whatever else is made of them is a constant, or is refused.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp

from .._analysis import compat, primitives as prim
from .._analysis.compat import Equation, Var, is_literal
from .._analysis.graph import is_float
from .._analysis.ids import OneHot, is_integer, values_of
from .._analysis.primitives import Family, family
from .arithmetic import at_least_float32, relevance_of, to_multiplier_value
from .carriers import Ids, plain
from .reading import Reading
from .step import Backward, Frame, Step, UnsupportedOperation, Visit, Way

_GATHER, _SLICE = (compat.primitive(name) for name in ("gather", "dynamic_slice"))
_JOINED = compat.primitives("concatenate")
_BY_VALUE = compat.primitives(
    """reduce_max reduce_min reduce_window_max reduce_window_min cummax cummin sort top_k
    approx_top_k select_and_gather_add scatter_max scatter_min"""
)
_BY_NUMBER = compat.primitives(
    """add add_jaxvals sub mul neg abs sign rem div max min clamp integer_pow square and or xor not
    shift_left shift_right_logical shift_right_arithmetic population_count clz"""
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Moved(Step):
    """One equation that makes integers of integers, each of one: moves, casts, counting."""

    @classmethod
    def recognise(cls, reading: Reading, var: Var) -> Self | None:
        eqn = reading.graph.maker[var]
        operands = reading.graph.explained_operands(eqn)
        inputs = [eqn.invars[i] for i in operands]
        if family(eqn.primitive) is Family.CONTROL or not (
            is_integer(var) and inputs and all(map(is_integer, inputs))
        ):
            return None
        values = [i for i in operands if i in values_of(eqn)]
        known = _moves(eqn) or (_counts(eqn) and len(set(inputs)) == 1)
        if not known or not values:
            return None
        return reading.step(cls, [eqn], inputs, eqn.outvars)

    def way_back(self, rule: Any, out: str) -> Backward:
        return Backward("R", self._outputs)

    def in_gradient(self, out: str) -> Backward:
        return Backward("R", self._outputs)

    def _outputs(self, visit: Visit) -> list[Any]:
        (eqn,) = self.eqns
        ids = dict(zip(self.inputs, visit.inputs, strict=True))
        made = visit.place.native(*map(plain, visit.inputs), *visit.constants)
        if not _moves(eqn) or family(eqn.primitive) is Family.NEUTRAL:
            (operand,) = set(self.inputs)
            carriers = [ids[operand].carrier]
        else:
            numbers = dict(zip(self.constants, visit.constants, strict=True))
            dtype, values = visit.inputs[0].carrier.dtype, values_of(eqn)

            def operand_of(i: int, atom: Any) -> Any:
                if not is_literal(atom) and atom in ids:
                    return ids[atom].carrier if i in values else ids[atom].numbers
                number = atom.val if is_literal(atom) else numbers[atom]
                return jnp.zeros(jnp.shape(number), dtype) if i in values else number

            params = {**eqn.params, **({"fill_value": 0} if "fill_value" in eqn.params else {})}
            operands = [operand_of(i, atom) for i, atom in enumerate(eqn.invars)]
            found = eqn.primitive.bind(*operands, **params)
            carriers = found if eqn.primitive.multiple_results else [found]
        by_var = dict(zip(eqn.outvars, carriers, strict=True))
        return [Ids(n, by_var[v]) for v, n in zip(self.outputs, made, strict=True)]


@dataclass(frozen=True, eq=False, kw_only=True)
class Lookup(Step):
    """Rows of a table, at explained integers: a gather, or a product with one-hot vectors.

    Attributes:
        reads: the equation that reads the integers; of one-hot vectors the last one.
        hot: the one-hot vectors, where that is how the table is read.
    """

    reads: Equation
    hot: OneHot | None

    named_by_weights = True

    @classmethod
    def recognise(cls, reading: Reading, var: Var) -> Self | None:
        graph, eqn = reading.graph, reading.graph.maker[var]
        operands = graph.explained_operands(eqn)
        inputs = [eqn.invars[i] for i in operands]
        if family(eqn.primitive) is Family.CONTROL:
            return None
        hot = graph.rows_by_one_hot(eqn) or graph.one_hots.get(var)
        if hot is not None:
            eqns = (*hot.eqns, eqn) if eqn not in hot.eqns else hot.eqns
            return reading.step(
                cls, eqns, [hot.source], [var], "Embedding", eqn, reads=eqn, hot=hot
            )  # fmt: skip
        if not any(map(is_integer, inputs)):
            return None
        if eqn.primitive not in (_GATHER, _SLICE) or 0 in operands or len(set(inputs)) != 1:
            raise UnsupportedOperation(_refusal(reading, eqn))
        if eqn.primitive is _GATHER and not _is_one_index(reading, eqn):
            raise UnsupportedOperation(_refusal(reading, eqn))
        kind = "Embedding" if is_float(var) else ""
        return reading.step(cls, [eqn], inputs, [var], kind, eqn, reads=eqn, hot=None)

    def way_back(self, rule: Any, out: str) -> Backward:
        if rule is not None and rule.way is Way.NOTHING:
            return Backward("R", lambda visit: _as_constants(visit))
        return Backward("R", partial(self._outputs, out))

    def in_gradient(self, out: str) -> Backward:
        return Backward("R", partial(self._outputs, "R"))

    def _outputs(self, form: str, visit: Visit) -> list[Any]:
        (y,), (ids,) = _as_constants(visit), visit.inputs
        shape, multiplies = ids.carrier.shape, visit.place.parameters == "multipliers"
        if not is_float(self.outputs[0]):  # a table of integers
            return [Ids(y, _zeros(ids.carrier, y.shape, partial(self._of_ids, shape=shape)))]

        @jax.custom_vjp
        def looked_up(y: jax.Array, carrier: jax.Array) -> jax.Array:
            return y

        def forward(y: jax.Array, carrier: jax.Array) -> tuple[jax.Array, Any]:
            kept = y if form == "C" or multiplies else None
            return y, (kept, jnp.zeros((), carrier.dtype))

        def backward(saved: Any, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
            y, like = saved
            relevance = (
                relevance_of(cotangent, y, "C") if form == "C" else at_least_float32(cotangent)
            )
            if multiplies and form == "R":
                cotangent = to_multiplier_value(cotangent, y)
            return cotangent, self._of_ids(relevance, shape).astype(like.dtype)

        looked_up.defvjp(forward, backward)
        return [looked_up(y, ids.carrier)]

    def _of_ids(self, relevance: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """What arrives at looked-up vectors, for the integers: summed over features."""
        eqn = self.reads
        if self.hot is not None:
            return _spread_back(_at_positions(self.hot, eqn, relevance), self.hot, shape)
        if eqn.primitive is _SLICE:
            return relevance.sum().reshape(shape)
        summed = relevance.sum(eqn.params["dimension_numbers"].offset_dims)
        return jnp.broadcast_to(summed[..., None], shape)  # of several indices one is explained


def carrier_dtype(frame: Frame) -> Any:
    """The dtype of the relevance of explained integers: of what they look up."""
    found = [dtype for step in frame.steps for dtype in _dtypes(step)]
    return jnp.result_type(*found) if found else jnp.zeros(()).dtype


def _dtypes(step: Step) -> list[Any]:
    inner = [d for frame in step.frames for s in frame.steps for d in _dtypes(s)]
    own = isinstance(step, Lookup) and is_float(step.outputs[0])
    return [*inner, step.outputs[0].aval.dtype] if own else inner


def _as_constants(visit: Visit) -> list[Any]:
    return visit.place.native(*map(plain, visit.inputs), *visit.constants)


def _zeros(carrier: jax.Array, shape: tuple[int, ...], back: Any) -> jax.Array:
    """Zeros of another shape; `back` is what their relevance is for the carrier."""

    @jax.custom_vjp
    def zeros(carrier: jax.Array) -> jax.Array:
        return jnp.zeros(shape, carrier.dtype)

    zeros.defvjp(lambda carrier: (zeros(carrier), None), lambda _, cotangent: (back(cotangent),))
    found: jax.Array = zeros(carrier)
    return found


# -- which equations make one integer of one --------------------------------------------------


def _moves(eqn: Equation) -> bool:
    kind = family(eqn.primitive)
    return kind is Family.NEUTRAL or (kind is Family.STRUCTURAL and eqn.primitive not in _BY_VALUE)


def _counts(eqn: Equation) -> bool:
    return eqn.primitive in _BY_NUMBER and all(
        v.aval.shape == eqn.outvars[0].aval.shape
        for v in eqn.invars
        if not is_literal(v) and v.aval.shape != ()
    )


def _is_one_index(reading: Reading, eqn: Equation) -> bool:
    """Whether one number of each index vector of a gather is explained."""
    graph, var = reading.graph, eqn.invars[1]
    if var.aval.shape[-1] == 1:
        return True
    joined = graph.maker.get(var)
    if joined is None or joined.primitive not in _JOINED:
        return False
    parts = [joined.invars[i] for i in graph.explained_operands(joined)]
    last = joined.params["dimension"] == len(var.aval.shape) - 1
    return last and len(parts) == 1 and parts[0].aval.shape[-1] == 1


def _refusal(reading: Reading, eqn: Equation) -> str:
    place = "/".join(compat.scope(eqn)) or "the function"
    shapes = ", ".join(str(a.aval) for a in eqn.invars)
    operation = compat.called_name(eqn) or eqn.primitive
    return (
        f"integers are explained where they look up rows of tables, one each; `{operation}` "
        f"({shapes}) in {place}, written at {compat.source_line(eqn)}, makes numbers of them in "
        "another way. Look the rows up (table[ids], a one-hot product); cast counts and images "
        "with x.astype(jnp.float32) before the call; or put jax.lax.stop_gradient around the "
        "numbers, to make them a constant of the explanation."
    )


# -- one-hot vectors --------------------------------------------------------------------------


def _at_positions(hot: OneHot, eqn: Equation, relevance: jax.Array) -> jax.Array:
    """Relevance of rows, or of one-hot vectors, with one entry on the axis of entries."""
    if eqn.primitive is not prim.DOT:
        return relevance.sum(hot.axis, keepdims=True)
    position = 0 if not is_literal(eqn.invars[0]) and eqn.invars[0] in _made(hot) else 1
    contracted, batch = prim.dot_numbers(eqn)
    rank = len(eqn.invars[position].aval.shape)
    bound = (*batch[position], *contracted[position])
    free = [i for i in range(rank) if i not in bound]
    after_batch = len(batch[0])
    first = after_batch if position == 0 else relevance.ndim - len(free)
    kept = (*range(after_batch), *range(first, first + len(free)))
    summed = relevance.sum([i for i in range(relevance.ndim) if i not in kept])
    order = [*batch[position], *free]  # the axis of the one-hot vectors that each axis is
    summed = jnp.transpose(summed, sorted(range(len(order)), key=lambda i: order[i]))
    return jnp.expand_dims(summed, hot.axis)


def _made(hot: OneHot) -> list[Var]:
    return [v for eqn in hot.eqns for v in eqn.outvars]


def _spread_back(relevance: jax.Array, hot: OneHot, shape: tuple[int, ...]) -> jax.Array:
    """From the shape of the comparison to that of the integers that were spread out for it."""
    gone = [i for i in range(relevance.ndim) if i not in hot.axes]
    wide = [a for a, n in zip(hot.axes, shape, strict=True) if n == 1]
    summed = relevance.sum(wide, keepdims=True).sum(gone)
    return summed.reshape(shape)  # the axes of the integers are in order
