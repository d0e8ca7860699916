"""A function as a tape: every primitive that its explained argument passes, with its values.

Calls are entered, loops run turn by turn and branches are taken, so a tape is a plain list. It
knows primitives only and nothing of the library under test.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal


def names(text: str) -> frozenset[str]:
    """The words of a line."""
    return frozenset(text.split())


CALLS = names(
    "jit pjit closed_call core_call custom_jvp_call custom_vjp_call custom_vjp_call_jaxpr remat "
    "remat2 checkpoint custom_lin"
)
WRITTEN = names("maybe_set vprim")
"""Equinox's: what they do is written in the primitives of JAX."""
COMPARISONS = names("eq ne lt le gt ge and or not xor is_finite reduce_and reduce_or")
CONSTANT = names("stop_gradient argmax argmin")
"""What these make is no way for relevance."""


@dataclass(frozen=True, eq=False)
class Const:
    """A value that does not depend on the explained argument as a number.

    Attributes:
        value: the array.
        number: the one number that all of it is, where the code says so.
        weights: whether an argument went into it.
        touched: whether a comparison of explained numbers went into it.
        origin: for token ids, the place of the argument that each was moved from.
        repeated: axes along which the code repeats it.
    """

    value: Any
    number: float | None = None
    weights: bool = False
    touched: bool = False
    origin: Any = None
    repeated: frozenset[int] = frozenset()


@dataclass(eq=False)
class Value:
    """A number that carries relevance: what a node makes, or an input (`maker` is None).

    Attributes:
        value: the array.
        maker: what makes it.
        readers: what reads it.
        depends: which of its numbers the explained argument reaches; None: all.
    """

    value: Any
    maker: Node | None = None
    readers: list[Any] = field(default_factory=list)
    depends: Any = None

    def __hash__(self) -> int:
        return id(self)


@dataclass(eq=False)
class Node:
    """One primitive: its operands, explained ones (`Value`) and constants, and what it makes."""

    name: str
    operands: list[Value | Const]
    apply: Callable[..., Any]
    params: dict[str, Any]
    outs: list[Value] = field(default_factory=list)

    def __hash__(self) -> int:
        return id(self)

    @property
    def inputs(self) -> list[Value]:
        return [o for o in self.operands if isinstance(o, Value)]

    @property
    def constants(self) -> list[Const]:
        return [o for o in self.operands if isinstance(o, Const)]

    @property
    def out(self) -> Value:
        return self.outs[0]

    def of_inputs(self, *values: Any) -> Any:
        """The primitive as a function of its explained operands."""
        given = iter(values)
        return self.apply(
            *(next(given) if isinstance(o, Value) else o.value for o in self.operands)
        )


@dataclass(eq=False)
class Tape:
    """The nodes of a function in order.

    Attributes:
        x: the explained argument.
        output: the output.
        nodes: what leads from one to the other.
        lookups: for token ids, each table's rows, the places of the ids that chose them, and which
            axes of the rows are a table's.
    """

    x: Any
    output: Value
    nodes: list[Node]
    lookups: list[tuple[Value, Any, tuple[int, ...]]]


def _mask(argument: Value | Const) -> Any:
    """Which numbers of an operand the explained argument reaches."""
    shape = np.shape(argument.value)
    if isinstance(argument, Const):
        return np.zeros(shape, bool)
    return np.ones(shape, bool) if argument.depends is None else argument.depends


class Recorder:
    """Runs jaxprs and writes down what touches the explained argument."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.lookups: list[tuple[Value, Any, tuple[int, ...]]] = []
        self.known: dict[Any, tuple[list[Any], list[Any]]] = {}

    def run(self, jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
        env: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
        env.update(zip(jaxpr.invars, args, strict=True))

        def read(atom: Any) -> Any:
            if not isinstance(atom, Literal):
                return env[atom]
            real = np.ndim(atom.val) == 0 and not np.iscomplexobj(atom.val)
            number = float(atom.val) if real else None
            return Const(np.asarray(atom.val, atom.aval.dtype), number)

        for eqn in jaxpr.eqns:
            made = self.equation(eqn, [read(a) for a in eqn.invars])
            env.update(zip(eqn.outvars, made, strict=True))
        return [read(a) for a in jaxpr.outvars]

    def closed(self, closed: Any, args: Sequence[Any]) -> list[Any]:
        consts = [Const(c) for c in getattr(closed, "consts", ())]
        return self.run(getattr(closed, "jaxpr", closed), consts, args)

    def equation(self, eqn: Any, args: list[Any]) -> list[Any]:
        name, params = eqn.primitive.name, eqn.params
        if name in CALLS:
            body = next(params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in params)
            return self.closed(body, args)
        if name in WRITTEN:
            written = functools.partial(eqn.primitive.impl, **params)
            return self.closed(jax.make_jaxpr(written)(*(a.value for a in args)), args)
        if name == "scan":
            return self.scan(params, args)
        if name == "while":
            return self.loop(params, args)
        if name == "cond":
            return self.closed(params["branches"][int(args[0].value)], args[1:])

        def apply(*values: Any) -> Any:
            found = eqn.primitive.bind(*values, **params)
            return found if eqn.primitive.multiple_results else [found]

        # What is computed twice is one value.
        same = (name, str(params), *(self.same(a) for a in args))
        if same not in self.known:
            self.known[same] = self.primitive(name, params, apply, args), args
        return self.known[same][0]

    @staticmethod
    def _repeated(name: str, params: Any, args: list[Any], values: list[Any]) -> frozenset[int]:
        """The axes along which a broadcast repeats a constant."""
        if name != "broadcast_in_dim":
            return frozenset()
        to, shape = params["broadcast_dimensions"], np.shape(args[0].value)
        before = getattr(args[0], "repeated", frozenset())
        own = {int(to[i]) for i, n in enumerate(shape) if n > 1 and i not in before}
        return frozenset(range(values[0].ndim)) - own

    @staticmethod
    def same(argument: Value | Const) -> Any:
        """What two operands have in common that are one: the object, or a number of the code."""
        number = None if isinstance(argument, Value) else argument.number
        return id(argument) if number is None else (number, str(jnp.asarray(argument.value).aval))

    def primitive(
        self, name: str, params: Any, apply: Callable[..., Any], args: list[Any]
    ) -> list[Any]:
        name = "select_n" if name == "select_if_vmap" else name  # Equinox's
        values = apply(*(a.value for a in args))
        explained = [a for a in args if isinstance(a, Value)]
        touched = bool(explained) or any(a.touched for a in args if isinstance(a, Const))
        weights = any(a.weights for a in args if isinstance(a, Const))
        if name in COMPARISONS or name in CONSTANT or not explained:
            numbers = [getattr(a, "number", None) for a in args]
            number = self._number(name, apply, args, numbers, values)
            origin = self._moved(name, apply, args, values)
            row = self._looked_up(name, params, args, values)
            if row is not None:
                return [row]
            repeated = self._repeated(name, params, args, values)
            return [Const(v, number, weights, touched, origin, repeated) for v in values]
        depends = self._depends(name, params, apply, args, values)
        if depends is not None and not depends.any():  # a class token of what it was joined with
            return [Const(values[0], weights=True)]
        node = Node(name, args, apply, params)
        for v in values:
            is_way = jnp.issubdtype(v.dtype, jnp.inexact)
            node.outs.append(Value(v, node if is_way else None, depends=depends))
        for a in explained:
            a.readers.append(node)
        self.nodes.append(node)
        return [
            o if jnp.issubdtype(o.value.dtype, jnp.inexact) else Const(o.value, touched=True)
            for o in node.outs
        ]

    @staticmethod
    def _number(name: str, apply: Any, args: Any, numbers: list[Any], values: Any) -> float | None:
        """The number of the code that a constant is, whatever the code does to fill it."""
        if len(values) != 1 or not args or any(n is None for n in numbers):
            return None
        if not jnp.issubdtype(values[0].dtype, jnp.floating):
            return None
        if name in ("broadcast_in_dim", "reshape", "squeeze", "convert_element_type", "copy"):
            return numbers[0]
        if all(np.ndim(a.value) == 0 for a in args):
            with jax.ensure_compile_time_eval():
                scalars = (np.asarray(n, a.value.dtype) for n, a in zip(numbers, args, strict=True))
                return float(apply(*scalars)[0])
        return None

    # -- numbers that the explained argument does not reach -------------------------------------

    PLACES = names("slice concatenate reshape transpose squeeze broadcast_in_dim rev pad")
    POINTWISE = names(
        "add sub mul div neg max min exp log tanh logistic sqrt rsqrt square integer_pow abs erf "
        "convert_element_type copy add_any"
    )

    def _depends(
        self, name: str, params: Any, apply: Callable[..., Any], args: list[Any], values: Any
    ) -> Any:
        """Which numbers of what a primitive makes depend on the explained ones; None: all."""
        joins = name in ("concatenate", "pad") and any(isinstance(a, Const) for a in args)
        if not joins and all(getattr(a, "depends", None) is None for a in args):
            return None
        masks = [_mask(a) for a in args]
        if name in self.POINTWISE:
            found = np.broadcast_to(np.any(np.broadcast_arrays(*masks), 0), values[0].shape)
        elif name.startswith("reduce_") and "axes" in params:
            found = masks[0].any(tuple(params["axes"]))
        elif name in self.PLACES or name == "dot_general":
            with jax.ensure_compile_time_eval():
                found = np.zeros(values[0].shape, bool)
                for i in [None] if name in self.PLACES else range(len(args)):
                    given = [m if i in (None, j) else np.ones_like(m) for j, m in enumerate(masks)]
                    numbers = (
                        jnp.asarray(g, a.value.dtype) for g, a in zip(given, args, strict=True)
                    )
                    found = found | (np.asarray(apply(*numbers)[0]) > 0)
        else:
            return None
        return None if found.all() else found

    # -- token ids: where each came from --------------------------------------------------------

    MOVES = names("reshape broadcast_in_dim squeeze slice concatenate transpose rev scatter")
    KEEPS = names("add sub convert_element_type select_n copy clamp max min")

    def _moved(self, name: str, apply: Any, args: list[Any], values: Any) -> Any:
        origins = [a.origin for a in args if isinstance(a, Const)]
        if len(values) != 1 or not any(o is not None for o in origins):
            return None
        if name in self.KEEPS:
            origin = next(o for o in origins if o is not None)
            return origin if origin.shape == values[0].shape else None
        if name not in self.MOVES:
            return None
        nowhere = [np.full(a.value.shape, -1) if a.origin is None else a.origin for a in args]
        if name == "scatter":
            nowhere[1] = args[1].value
        with jax.ensure_compile_time_eval():
            return np.asarray(apply(*map(jnp.asarray, nowhere))[0])

    def _looked_up(self, name: str, params: Any, args: list[Any], values: Any) -> Value | None:
        if name != "gather" or args[1].origin is None:
            return None
        origin = args[1].origin
        row = Value(values[0])
        features = tuple(params["dimension_numbers"].offset_dims)
        self.lookups.append((row, origin.reshape(origin.shape[:-1]), features))
        return row

    # -- control flow ---------------------------------------------------------------------------

    def scan(self, params: Any, args: list[Any]) -> list[Any]:
        if "num_consts" in params:
            constants, carries = params["num_consts"], params["num_carry"]
        else:
            constants, carries = (len(part) for part in params["ft_in"].unpack()[:2])
        fixed, carry, xs = args[:constants], args[constants : constants + carries], args[
            constants + carries :
        ]  # fmt: skip
        turns = range(params["length"])
        rows: list[list[Any]] = []
        for i in reversed(turns) if params["reverse"] else turns:
            entry = [self.move("slice", lambda v, i=i: v[i], [x]) for x in xs]
            out = self.closed(params["jaxpr"], [*fixed, *carry, *entry])
            carry = out[:carries]
            rows.append(out[carries:])
        if params["reverse"]:
            rows.reverse()
        stacked = [
            self.move("concatenate", lambda *v: jnp.stack(v), [*c]) for c in zip(*rows, strict=True)
        ]
        return [*carry, *stacked]

    def move(self, name: str, function: Callable[..., Any], args: list[Any]) -> Any:
        return self.primitive(name, {}, lambda *values: [function(*values)], args)[0]

    def loop(self, params: Any, args: list[Any]) -> list[Any]:
        a, b = params["cond_nconsts"], params["body_nconsts"]
        for_cond, for_body, carry = args[:a], args[a : a + b], args[a + b :]
        while bool(self.closed(params["cond_jaxpr"], [*for_cond, *carry])[0].value):
            carry = self.closed(params["body_jaxpr"], [*for_body, *carry])
        return list(carry)


def record(function: Callable[..., Any], params: Any, x: Any) -> Tape:
    """The tape of `function(params, x)`, explained by `x`: numbers, or ids that look up tables.

    Args:
        function: of parameters and input, with one array as its output.
        params: any tree of arrays.
        x: an array.
    """
    leaves = jax.tree.leaves(params)
    closed = jax.make_jaxpr(function)(params, x)
    recorder = Recorder()
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.integer):
        entry: Any = Const(x, origin=np.arange(x.size).reshape(x.shape))
    else:
        entry = Value(x)
    given = [*(Const(jnp.asarray(leaf), weights=True) for leaf in leaves), entry]
    (output,) = recorder.closed(closed, given)
    assert isinstance(output, Value), "the output does not depend on the explained argument"
    return pruned(entry, output, recorder.nodes, recorder.lookups)


def pruned(x: Any, output: Value, nodes: Sequence[Node], lookups: Sequence[Any]) -> Tape:
    """The tape of what leads to the output, all readers known."""
    live: set[Value] = {output}
    found: list[Node] = []
    for node in reversed(nodes):
        if not live.isdisjoint(node.outs):
            found.append(node)
            live.update(node.inputs)
    for node in found:
        for v in (*node.inputs, *node.outs):
            v.readers = []
    for node in reversed(found):
        for v in node.inputs:
            v.readers.append(node)
    output.readers.append(None)
    return Tape(x, output, found[::-1], [one for one in lookups if one[0] in live])
