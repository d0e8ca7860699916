"""From a function call to one flat jaxpr with named constants.

`trace` runs the user's function once on shapes. The result is flat: every call that is only a call
(`jit`, and custom derivatives around whole layers) is inlined, so that a layer may be spread over
functions in any way. Elementwise functions with a custom derivative (`jax.nn.relu`) stay whole:
their derivative is part of their meaning. Called functions that a composite names stay whole too:
every `jit` that is left in a flat jaxpr is one of them. Of several spellings of one operation there
is one left (`spelling`).
"""

import contextlib
import fnmatch
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import compat, foreign, opening
from .compat import Var
from .primitives import BROADCAST, POINTWISE, SELECT, Family, family
from .spelling import respelled


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


def is_named(eqn: compat.Equation, calls: Sequence[str]) -> bool:
    """Whether an equation calls a function whose name matches one of some globs."""
    if not calls or family(eqn.primitive) is Family.CONTROL:
        return False
    name = compat.called_name(eqn)
    return bool(name) and any(fnmatch.fnmatchcase(name, glob) for glob in calls)


def _body_to_inline(eqn: compat.Equation, calls: Sequence[str]) -> Any | None:
    if is_named(eqn, calls):
        return None
    body = compat.plain_call(eqn)
    if body is None:
        body = compat.custom_call(eqn)
        if body is not None and is_pointwise(body):
            return None
    return foreign.of_numbers(eqn) if body is None else body


@contextlib.contextmanager
def scopes(names: Sequence[str]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(jax.named_scope(name))
        yield


@contextlib.contextmanager
def in_place_of(eqn: compat.Equation) -> Iterator[None]:
    """Around what is traced instead of an equation: its scopes and marks, and the line it is of."""
    line = compat.source_line(eqn)
    with scopes([*compat.around(eqn), *([compat.CALLED_AT + line] if line else [])]):
        yield


def _is_whole(eqn: compat.Equation, calls: Sequence[str]) -> bool:
    """Whether an equation is a named call that is no `jit` yet."""
    return compat.plain_call(eqn) is None and is_named(eqn, calls)


def _alone(jaxpr: Any, eqn: compat.Equation) -> Callable[..., list[Any]]:
    """An equation as a function of its operands."""
    own, invars = compat.by_position(eqn)
    return compat.as_function(jaxpr, [own], invars, compat.kept(eqn.outvars))


def _as_jit(whole: Callable[..., list[Any]], eqn: compat.Equation) -> Callable[..., list[Any]]:
    """A called function as a `jit` of its name, whatever it was called by."""

    def layer(*values: Any) -> list[Any]:
        return whole(*values)

    layer.__name__ = compat.called_name(eqn)
    return jax.jit(layer)


def _call_site(eqn: compat.Equation, body: Any) -> list[str]:
    """Scopes that say who called, where the equations inside do not know."""
    line = compat.source_line(eqn)
    inside = compat.open_jaxpr(body).eqns
    lost = any(not compat.source_line(inner) for inner in inside)
    scopes = [compat.CALLED_AT + line] if line and lost else []
    name = compat.called_name(eqn)
    if name and _holds_unknown(body):
        custom = compat.custom_call(eqn) is not None
        scopes.append((compat.PART_OF_CUSTOM if custom else compat.PART_OF) + name)
    return scopes


def _holds_unknown(closed_jaxpr: Any) -> bool:
    """Whether a body, or a call in it, has an operation that no rule knows."""
    for eqn in compat.open_jaxpr(closed_jaxpr).eqns:
        body = compat.plain_call(eqn) or compat.custom_call(eqn)
        if _holds_unknown(body) if body is not None else family(eqn.primitive) is None:
            return True
    return False


def evaluate_inlined(
    closed_jaxpr: Any, values: Sequence[Any], calls: Sequence[str] = ()
) -> list[Any]:
    """Evaluate a jaxpr with its calls replaced by their bodies.

    Args:
        closed_jaxpr: the jaxpr.
        values: of its inputs.
        calls: globs of the names of called functions that stay whole.
    """
    jaxpr = compat.open_jaxpr(closed_jaxpr)
    env: dict[Var, Any] = dict(zip(jaxpr.constvars, closed_jaxpr.consts, strict=True))
    env.update(zip(jaxpr.invars, values, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if compat.is_literal(atom) else env[atom]

    for is_call, group in itertools.groupby(jaxpr.eqns, lambda eqn: _changes(eqn, calls)):
        if not is_call:
            env.update(compat.evaluate(jaxpr, list(group), env))
            continue
        for eqn in group:
            operands = [read(atom) for atom in eqn.invars]
            if _is_otherwise(eqn, calls):
                made = _otherwise(jaxpr, eqn, operands, calls)
                env.update(zip(compat.kept(eqn.outvars), made, strict=True))
                continue
            body = _body_to_inline(eqn, calls)
            with scopes([*compat.around(eqn), *_call_site(eqn, body)]):
                made = evaluate_inlined(body, operands, calls)
            env.update(zip(eqn.outvars, made, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _is_otherwise(eqn: compat.Equation, calls: Sequence[str]) -> bool:
    """Whether something else than a body stands in an equation's place."""
    return opening.opens(eqn) or _is_whole(eqn, calls) or respelled(eqn) is not None


def _otherwise(
    jaxpr: Any, eqn: compat.Equation, operands: Sequence[Any], calls: Sequence[str]
) -> list[Any]:
    """What can be read of the results of such an equation."""
    if opening.opens(eqn):
        with scopes(compat.around(eqn)):
            results = opening.opened(
                eqn, operands, lambda body, values: evaluate_inlined(body, values, calls)
            )
        if results is None:
            return _alone(jaxpr, eqn)(*operands)
    else:
        with in_place_of(eqn):
            if _is_whole(eqn, calls):
                return _as_jit(_alone(jaxpr, eqn), eqn)(*operands)
            in_other_words = respelled(eqn)
            assert in_other_words is not None, "asked in `_is_otherwise`"
            results = in_other_words(*operands)
    pairs = zip(eqn.outvars, results, strict=True)
    return [value for var, value in pairs if not compat.is_dropped(var)]


def _changes(eqn: compat.Equation, calls: Sequence[str]) -> bool:
    return _is_otherwise(eqn, calls) or _body_to_inline(eqn, calls) is not None


def inline(closed_jaxpr: Any, calls: Sequence[str] = ()) -> Any:
    """The same function as one flat closed jaxpr: calls inlined, every variable its own.

    Equations are taken as they are, and only traced where something else stands in their place.

    Args:
        closed_jaxpr: the function.
        calls: globs of the names of called functions that stay whole.
    """
    jaxpr = compat.open_jaxpr(closed_jaxpr)
    if not any(_changes(e, calls) or compat.folded(e) is not None for e in jaxpr.eqns):
        return closed_jaxpr
    constants: dict[Var, Any] = {}
    first: dict[int, Var] = {}  # of the variables of one constant, by its `id`
    eqns: list[compat.Equation] = []

    def write(body: Any, operands: Sequence[Any], around: Sequence[str], flat: bool) -> list[Any]:
        """The equations of a body for some operands; and its results."""
        inner = compat.open_jaxpr(body)
        names: dict[Var, Any] = dict(zip(inner.invars, operands, strict=True))
        for var, value in zip(inner.constvars, body.consts, strict=True):
            names[var] = first.setdefault(id(value), var)
            constants.setdefault(names[var], value)

        def now(atom: Any) -> Any:
            return atom if compat.is_literal(atom) else names.get(atom, atom)

        for eqn in inner.eqns:
            given = [now(a) for a in eqn.invars]
            if flat or not _changes(eqn, calls):
                outvars, made = eqn.outvars, list(map(compat.renewed, eqn.outvars))
                copy = eqn.replace(invars=given, outvars=made)
                if (number := compat.folded(copy)) is not None:
                    made = [number]
                else:
                    eqns.append(compat.within(copy, around))
            elif _is_otherwise(eqn, calls):
                other = _traced(inner, eqn, given, constants, calls)
                outvars, made = compat.kept(eqn.outvars), write(*other, around, True)
            else:
                called = _body_to_inline(eqn, calls)
                inside = [*around, *compat.around(eqn), *_call_site(eqn, called)]
                outvars, made = eqn.outvars, write(called, given, inside, False)
            names.update(zip(outvars, made, strict=True))
        return [now(a) for a in inner.outvars]

    outvars = write(closed_jaxpr, jaxpr.invars, [], False)
    return compat.rewritten(closed_jaxpr, constants, outvars, eqns)


def _traced(
    jaxpr: Any,
    eqn: compat.Equation,
    operands: Sequence[Any],
    constants: Mapping[Var, Any],
    calls: Sequence[str],
) -> tuple[Any, list[Var]]:
    """What stands in the place of an equation, and what it reads: numbers that are known are."""
    variables = [a for a in operands if not compat.is_literal(a) and a not in constants]

    def function(*values: Any) -> list[Any]:
        given = {**constants, **dict(zip(variables, values, strict=True))}
        known = [a.val if compat.is_literal(a) else given[a] for a in operands]
        return _otherwise(jaxpr, eqn, known, calls)

    return compat.traced_on(function, variables), variables


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
    calls: Sequence[str] = (),
) -> Traced:
    """Trace `function` once on the shapes of `leaves`.

    Args:
        function: the user's apply function.
        leaves: the array leaves of the call.
        rebuild: from leaves back to `(args, kwargs)`.
        explained: which leaves are explained.
        names: tree paths of the leaves.
        has_aux: whether the function returns `(output, aux)`.
        calls: globs of the names of called functions that stay whole.
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
        jaxpr=compat.without_unused(inline(closed_jaxpr, calls)),
        explained=tuple(explained),
        names=tuple(names),
        out_tree=out_tree,
        outputs=outputs,
        aux_tree=aux_tree if has_aux else None,
        anonymous=tuple(np.shape(c) for c in closed_jaxpr.consts if np.ndim(c) > 1),
    )
