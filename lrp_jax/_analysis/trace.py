"""From a function call to one flat jaxpr with named constants.

`trace` runs the user's function once on shapes. The result is flat: every call that is only a call
(`jit`, and custom derivatives around whole layers) is inlined, so that a layer may be spread over
functions in any way. Elementwise functions with a custom derivative (`jax.nn.relu`) stay whole:
their derivative is part of their meaning.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import compat
from .compat import Var
from .primitives import BROADCAST, POINTWISE, SELECT, family


def is_array(leaf: Any) -> bool:
    """Whether a leaf of the arguments is traced; all others (flags, functions) are static."""
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)


class Static:
    """A leaf that is no array, compared by value where it can be and by identity elsewhere."""

    def __init__(self, value: Any) -> None:
        self.value = value
        try:
            self._hash = hash(value)
        except TypeError:
            self._hash = id(value)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, Static) or type(self.value) is not type(other.value):
            return False
        return self.value is other.value or bool(self.value == other.value)


def path_name(path: Sequence[Any]) -> str:
    """The tree path of an argument's leaf as `a/b/c`, without the wrappers of Linen and NNX."""
    name = jax.tree_util.keystr(tuple(path), simple=True, separator="/")
    parts = [part for part in name.split("/") if part]
    if parts and parts[-1] in ("value", "raw_value"):
        parts.pop()
    if len(parts) > 1 and parts[0] == "params":
        parts.pop(0)
    return "/".join(parts)


def layer_name(leaf_name: str) -> str:
    """The layer that owns a parameter: its path without the parameter's own name."""
    head, _, _ = leaf_name.rpartition("/")
    return head or leaf_name


def is_pointwise(closed_jaxpr: Any) -> bool:
    """Whether a body computes one array number by number from operands of the same shape."""
    jaxpr = compat.open_jaxpr(closed_jaxpr)
    if len(jaxpr.outvars) != 1:
        return False
    shape = jaxpr.outvars[0].aval.shape
    if any(var.aval.shape not in ((), shape) for var in jaxpr.invars):
        return False
    for eqn in jaxpr.eqns:
        body = compat.plain_call(eqn) or compat.custom_call(eqn)
        if body is not None:
            if not is_pointwise(body):
                return False
        elif (
            family(eqn.primitive) not in POINTWISE
            and eqn.primitive is not SELECT
            and not (eqn.primitive is BROADCAST and eqn.invars[0].aval.shape == ())
        ):
            return False
    return True


def _body_to_inline(eqn: compat.Equation) -> Any | None:
    body = compat.plain_call(eqn)
    if body is None:
        body = compat.custom_call(eqn)
        if body is not None and is_pointwise(body):
            return None
    return body


@contextlib.contextmanager
def _scopes(names: Sequence[str]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(jax.named_scope(name))
        yield


def _call_site(eqn: compat.Equation, body: Any) -> list[str]:
    """A scope that says who called, where the equations inside do not know."""
    line = compat.source_line(eqn)
    inside = compat.open_jaxpr(body).eqns
    lost = any(not compat.source_line(inner) for inner in inside)
    return [compat.CALLED_AT + line] if line and lost else []


def evaluate_inlined(closed_jaxpr: Any, values: Sequence[Any]) -> list[Any]:
    """Evaluate a jaxpr with its calls replaced by their bodies."""
    jaxpr = compat.open_jaxpr(closed_jaxpr)
    env: dict[Var, Any] = dict(zip(jaxpr.constvars, closed_jaxpr.consts, strict=True))
    env.update(zip(jaxpr.invars, values, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if compat.is_literal(atom) else env[atom]

    for is_call, group in itertools.groupby(
        jaxpr.eqns, lambda eqn: _body_to_inline(eqn) is not None
    ):
        if not is_call:
            env.update(compat.evaluate(jaxpr, list(group), env))
            continue
        for eqn in group:
            body = _body_to_inline(eqn)
            with _scopes([*compat.scope(eqn), *_call_site(eqn, body)]):
                results = evaluate_inlined(body, [read(atom) for atom in eqn.invars])
            env.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def inline(closed_jaxpr: Any) -> Any:
    """The same function as one flat closed jaxpr: calls inlined, every variable its own."""
    jaxpr = compat.open_jaxpr(closed_jaxpr)
    if not any(_body_to_inline(eqn) is not None for eqn in jaxpr.eqns):
        return closed_jaxpr
    avals = [
        jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype, weak_type=v.aval.weak_type)
        for v in jaxpr.invars
    ]
    return jax.make_jaxpr(lambda *values: evaluate_inlined(closed_jaxpr, values))(*avals)


@dataclass(frozen=True, eq=False)
class Traced:
    """A call of the user's function as a flat jaxpr over its array leaves.

    Attributes:
        jaxpr: the closed flat jaxpr; its inputs are the array leaves of the call, in order.
        explained: for each input, whether it belongs to an explained argument.
        names: for each input, its tree path (empty for explained ones).
        out_tree: structure of the output (of the explained part, with `has_aux`).
        outputs: how many of the jaxpr's outputs are explained outputs (the rest are auxiliary).
        aux_tree: structure of the auxiliary output, or None.
        anonymous: whether arrays were closed over by the function, without a name.
    """

    jaxpr: Any
    explained: tuple[bool, ...]
    names: tuple[str, ...]
    out_tree: Any
    outputs: int
    aux_tree: Any | None
    anonymous: tuple[tuple[int, ...], ...]


def trace(
    function: Callable[..., Any],
    leaves: Sequence[Any],
    rebuild: Callable[[Sequence[Any]], tuple[tuple[Any, ...], dict[str, Any]]],
    explained: Sequence[bool],
    names: Sequence[str],
    has_aux: bool,
) -> Traced:
    """Trace `function` once on the shapes of `leaves`.

    Args:
        function: the user's apply function.
        leaves: the array leaves of the call.
        rebuild: from leaves back to `(args, kwargs)`.
        explained: which leaves are explained.
        names: tree paths of the leaves.
        has_aux: whether the function returns `(output, aux)`.
    """
    trees: list[Any] = []

    def flat(*values: Any) -> list[Any]:
        args, kwargs = rebuild(values)
        result = function(*args, **kwargs)
        aux: Any = None
        if has_aux:
            if not isinstance(result, tuple | list) or len(result) != 2:
                raise TypeError(
                    "has_aux=True needs a function that returns a pair (output, aux); "
                    f"this one returned {type(result).__name__}."
                )
            result, aux = result
        out_leaves, out_tree = jax.tree.flatten(result)
        aux_leaves, aux_tree = jax.tree.flatten(aux)
        trees.append((out_tree, len(out_leaves), aux_tree))
        return [jnp.asarray(leaf) for leaf in out_leaves + aux_leaves]

    closed_jaxpr = jax.make_jaxpr(flat)(*leaves)
    out_tree, outputs, aux_tree = trees[-1]
    return Traced(
        jaxpr=inline(closed_jaxpr),
        explained=tuple(explained),
        names=tuple(names),
        out_tree=out_tree,
        outputs=outputs,
        aux_tree=aux_tree if has_aux else None,
        anonymous=tuple(np.shape(c) for c in closed_jaxpr.consts if np.ndim(c) > 1),
    )
