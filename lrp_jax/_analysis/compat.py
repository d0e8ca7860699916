"""The one module that may know a JAX version or import `jax.extend`.

Everything the package needs from the inside of JAX passes through here: which equations are calls
and where their bodies are, how many constants and carries a `scan` has, and how a set of equations
becomes a function again. Primitives are compared as objects, never by name: names change.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import jax
from jax.extend import core as _core, source_info_util as _source_info
from jax.extend.core import primitives as P
from jax.interpreters import (
    ad as _ad,
    batching as _batching,
    mlir as _mlir,
    partial_eval as _partial_eval,
)

if TYPE_CHECKING:  # these classes are typed differently from one release to the next
    Var: TypeAlias = Any
    Equation: TypeAlias = Any
else:
    Var, Equation = _core.Var, _core.JaxprEqn
Atom = Any  # Var | Literal

_extend_remat = getattr(P, "remat_p", None)
remat_p = _extend_remat or jax.make_jaxpr(jax.checkpoint(lambda x: x + 1))(0.0).eqns[0].primitive


def _batched_otherwise() -> Any:
    """The primitive of functions that say themselves how they are batched."""
    function = jax.custom_batching.custom_vmap(lambda x: x)
    function.def_vmap(lambda size, batched, x: (x, batched[0]))
    return jax.make_jaxpr(function)(0.0).eqns[0].primitive


_CALLS = {P.jit_p: "jaxpr", P.closed_call_p: "call_jaxpr", _batched_otherwise(): "call"}
_CUSTOM_CALLS = {P.custom_jvp_call_p: "call_jaxpr", P.custom_vjp_call_p: "call_jaxpr"}


def primitive(name: str) -> Any | None:
    """The primitive `name` of this JAX, or None where this release has none of that name."""
    return getattr(P, name + "_p", None) or getattr(jax.lax, name + "_p", None)


def primitives(names: str) -> frozenset[Any]:
    """Those primitives of some names that this JAX has."""
    return frozenset(map(primitive, names.split())) - {None}


def _keep() -> Any:
    """`keep(a, b)` has the value of b and the derivative of a, which is the same function."""
    keep = _core.Primitive("keep")
    keep.def_impl(lambda a, b: b)
    keep.def_abstract_eval(lambda a, b: b)
    _ad.primitive_jvps[keep] = lambda primals, tangents: (keep.bind(*primals), tangents[0])
    _mlir.register_lowering(keep, _mlir.lower_fun(lambda a, b: b, multiple_results=False))

    def batched(operands: Any, axes: Any) -> Any:
        size = next(x.shape[i] for x, i in zip(operands, axes, strict=True) if i is not None)
        moved = [
            jax.numpy.broadcast_to(x, (size, *x.shape))
            if i is None
            else jax.numpy.moveaxis(x, i, 0)
            for x, i in zip(operands, axes, strict=True)
        ]
        return keep.bind(*moved), 0

    _batching.primitive_batchers[keep] = batched
    return keep


keep_p = _keep()


def _statistic() -> Any:
    """`statistic(a)` is a, of which is known that it is made of statistics alone."""
    statistic = _core.Primitive("statistic")
    statistic.def_impl(lambda a: a)
    statistic.def_abstract_eval(lambda a: a)
    _ad.primitive_jvps[statistic] = lambda primals, tangents: (statistic.bind(*primals), *tangents)
    _mlir.register_lowering(statistic, _mlir.lower_fun(lambda a: a, multiple_results=False))
    _batching.primitive_batchers[statistic] = lambda operands, axes: (
        statistic.bind(*operands),
        *axes,
    )
    return statistic


statistic_p = _statistic()

_value_of = _core.Primitive("value_of")
_value_of.def_abstract_eval(lambda *, var: var.aval)


def value_of(var: Var) -> Any:
    """The value that a variable of another jaxpr has, for tracing alone (see `is_value_of`)."""
    return _value_of.bind(var=var)


def is_value_of(eqn: Equation) -> Var | None:
    """The variable whose value an equation stands for, else None."""
    return eqn.params["var"] if eqn.primitive is _value_of else None


@functools.cache
def unnamed_primitives() -> dict[str, Any]:
    """The primitives that no public module names, read off a traced function: those of
    `jax.shard_map` and `jax.lax.ragged_dot`."""
    mesh = jax.sharding.AbstractMesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec

    def body(x: jax.Array, y: jax.Array) -> jax.Array:
        return jax.lax.psum(x + y, "i")

    mapped = jax.shard_map(body, mesh=mesh, in_specs=(spec("i"), spec()), out_specs=spec())
    shapes = (jax.ShapeDtypeStruct((1,), "float32"), jax.ShapeDtypeStruct((1,), "float32"))
    with jax.sharding.use_abstract_mesh(mesh):  # whatever mesh the program is in
        eqn = jax.make_jaxpr(mapped)(*shapes).eqns[-1]
    inside = [inner.primitive for inner in open_jaxpr(eqn.params["jaxpr"]).eqns]
    operands = (((2, 3), "float32"), ((1, 3, 4), "float32"), ((1,), "int32"))
    ragged = jax.make_jaxpr(jax.lax.ragged_dot)(*(jax.ShapeDtypeStruct(*o) for o in operands))
    return {
        "shard_map": eqn.primitive,
        "psum": inside[-1],
        "vary": inside[0],
        "ragged_dot_general": ragged.eqns[-1].primitive,
    }


def shard_map_arguments(eqn: Equation) -> dict[str, Any]:
    """How `jax.shard_map` was called."""
    given = {name: eqn.params[name] for name in ("mesh", "in_specs", "out_specs", "check_vma")}
    axes = eqn.params.get("newly_manual_axes", eqn.params.get("manual_axes"))
    return given if axes is None else {**given, "axis_names": set(axes)}


def closed(jaxpr: Any, consts: Sequence[Any] = ()) -> Any:
    """`jaxpr` with its constants: bodies of `remat` were open before JAX 0.11."""
    closed_jaxpr: Any = getattr(_core, "ClosedJaxpr", None)  # typed in some releases only
    return jaxpr if hasattr(jaxpr, "consts") else closed_jaxpr(jaxpr, consts)


def plain_call(eqn: Equation) -> Any | None:
    """The closed body of a call that is only a call (`jit`), else None."""
    key = _CALLS.get(eqn.primitive)
    return None if key is None else closed(eqn.params[key])


def custom_call(eqn: Equation) -> Any | None:
    """The closed body of a `custom_jvp` or `custom_vjp` function, else None."""
    key = _CUSTOM_CALLS.get(eqn.primitive)
    return None if key is None else closed(eqn.params[key])


def called_name(eqn: Equation) -> str:
    """The name of the function that an equation calls, as its author wrote it, else ""."""
    body = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
    if body is None:
        return ""
    written = getattr(getattr(open_jaxpr(body), "debug_info", None), "func_name", "")
    return eqn.params.get("name") or written or ""


def rewritten(
    closed_jaxpr: Any, constants: Mapping[Var, Any], outvars: Sequence[Atom], eqns: Sequence[Any]
) -> Any:
    """A jaxpr with the same inputs and other constants, equations and outputs."""
    jaxpr = open_jaxpr(closed_jaxpr)
    invars = [*constants, *jaxpr.invars]
    bare = jaxpr.replace(constvars=[], invars=invars, outvars=list(outvars), eqns=list(eqns))
    bare = bare.replace(constvars=list(constants), invars=list(jaxpr.invars))
    as_closed: Any = getattr(_core, "ClosedJaxpr", None)
    return as_closed(bare, list(constants.values()))


def traced_on(function: Callable[..., Any], variables: Iterable[Any]) -> Any:
    """A function as a closed jaxpr, traced on the shapes and types of some variables."""
    avals = [v.aval for v in variables]
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=a.weak_type) for a in avals]
    return jax.make_jaxpr(function)(*shapes)


def by_position(eqn: Equation) -> tuple[Equation, list[Var]]:
    """An equation whose operands are told apart even where they are one variable, and those."""
    avals = [jax.typeof(a.val) if is_literal(a) else a.aval for a in eqn.invars]
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=a.weak_type) for a in avals]
    fresh = open_jaxpr(jax.make_jaxpr(lambda *values: values)(*shapes)).invars
    return eqn.replace(invars=list(fresh)), list(fresh)


def open_jaxpr(closed_jaxpr: Any) -> Any:
    """The equations of a closed jaxpr (itself, where JAX has merged the two classes)."""
    return getattr(closed_jaxpr, "jaxpr", closed_jaxpr)


def scan_arity(eqn: Equation) -> tuple[int, int]:
    """How many constants and how many carries a `scan` equation has."""
    if "ft_in" in eqn.params:  # since JAX 0.11
        constants, carry, _ = eqn.params["ft_in"].unpack()
        return len(constants), len(carry)
    return eqn.params["num_consts"], eqn.params["num_carry"]


def part(
    jaxpr: Any, eqns: Iterable[Equation], invars: Sequence[Var], outvars: Sequence[Atom]
) -> Any:
    """Some equations of a jaxpr as a closed jaxpr without constants."""
    return closed(
        open_jaxpr(jaxpr).replace(
            constvars=[], invars=list(invars), outvars=list(outvars), eqns=list(eqns)
        )
    )


def as_function(
    jaxpr: Any, eqns: Iterable[Equation], invars: Sequence[Var], outvars: Sequence[Atom]
) -> Callable[..., list[Any]]:
    """Some equations of a jaxpr as a function from values of `invars` to those of `outvars`."""
    function = open_jaxpr(part(jaxpr, eqns, invars, outvars))
    return lambda *values: jax.core.eval_jaxpr(function, (), *values)


def applied(eqn: Equation, *operands: Any, **changed: Any) -> Any:
    """What an equation of one result makes of other operands, perhaps with other parameters."""
    found = eqn.primitive.bind(*operands, **{**eqn.params, **changed})
    return found[0] if eqn.primitive.multiple_results else found


def folded(eqn: Equation) -> Any | None:
    """What a copy is of, and the number that a cast of a number of the code is, where JAX computes
    it; else None."""
    if eqn.primitive is P.copy_p:
        return eqn.invars[0]
    if eqn.primitive is not P.convert_element_type_p or not is_literal(eqn.invars[0]):
        return None
    (out,) = open_jaxpr(jax.make_jaxpr(lambda: applied(eqn, eqn.invars[0].val))()).outvars
    return out if is_literal(out) else None


def evaluate(jaxpr: Any, eqns: Sequence[Equation], env: Mapping[Any, Any]) -> dict[Var, Any]:
    """The results of some equations of a jaxpr by variable, their operands' values in `env`."""
    made = {v: None for eqn in eqns for v in eqn.outvars if not is_dropped(v)}
    operands = (a for eqn in eqns for a in eqn.invars if not is_literal(a) and a not in made)
    names = list(dict.fromkeys(operands))
    results = as_function(jaxpr, eqns, names, list(made))(*(env[a] for a in names))
    return dict(zip(made, results, strict=True))


def of_one_device(var: Var) -> Var:
    """A variable of the same shape and type, which says of no device that it has its own."""
    aval = var.aval
    if getattr(aval, "dtype", None) is None:
        return var
    bare = jax.core.ShapedArray(aval.shape, aval.dtype, weak_type=aval.weak_type)
    return _core.Var(bare)


def is_literal(atom: Atom) -> bool:
    """Whether an operand is a constant written into the equation."""
    return isinstance(atom, _core.Literal)


def literal(value: Any, aval: Any) -> Any:
    """A constant that can be written into an equation."""
    return _core.Literal(value, aval)


def makers(jaxpr: Any) -> dict[Var, Equation]:
    """The equation that makes each variable of an open jaxpr."""
    return {v: e for e in jaxpr.eqns for v in e.outvars}


def with_equations(closed_jaxpr: Any, eqns: Sequence[Equation], outvars: Sequence[Atom]) -> Any:
    """A closed jaxpr with other equations between its inputs and its outputs."""
    jaxpr = open_jaxpr(closed_jaxpr)
    changed = jaxpr.replace(eqns=list(eqns), outvars=list(outvars))
    return changed if jaxpr is closed_jaxpr else closed_jaxpr.replace(jaxpr=changed)


def without_unused(closed_jaxpr: Any) -> Any:
    """A closed jaxpr without what no output needs, in its loops and branches too."""
    jaxpr = open_jaxpr(closed_jaxpr)
    kept, _ = _partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), True)
    return with_equations(closed_jaxpr, kept.eqns, kept.outvars)


def is_dropped(var: Var) -> bool:
    """Whether nobody can read the variable (printed as `_`)."""
    return type(var).__name__ == "DropVar"


def kept(variables: Sequence[Var]) -> list[Var]:
    """The variables that can be read."""
    return [v for v in variables if not is_dropped(v)]


def renewed(var: Var) -> Var:
    """Another variable of the same type, where somebody can read it."""
    return var if is_dropped(var) else _core.Var(var.aval)


def source_line(eqn: Equation) -> str:
    """The user's file, line and function that wrote the equation, or called what wrote it."""
    own = _source_info.summarize(eqn.source_info)
    own = "" if own.startswith(_PACKAGE) else own
    callers = [name for name in _scope_names(eqn) if name.startswith(CALLED_AT)]
    return own or (callers[-1].removeprefix(CALLED_AT) if callers else "")


_PACKAGE = str(Path(__file__).parents[1])

CALLED_AT = "called at "
"""Marks a scope that remembers where a function of JAX was called, whose equations have no line."""
PART_OF, PART_OF_CUSTOM = "part of ", "part of custom "
"""Mark scopes that remember the name of a function around what no rule knows, and whether it has a
derivative of its own."""


class Mark(str):
    """A scope that is no name: it remembers where equations come from. Marks are told apart by
    identity."""

    __slots__ = ("__dict__",)


def around(eqn: Equation) -> list[str]:
    """What to enter again where an equation is traced anew: its marks and its named scopes."""
    return [*marks(eqn), *scope(eqn)]


def marked(eqn: Equation, mark: Mark) -> Equation:
    """An equation inside of one more mark."""
    info = eqn.source_info
    return eqn.replace(source_info=info.replace(name_stack=info.name_stack.extend(mark)))


def within(eqn: Equation, names: Sequence[str]) -> Equation:
    """An equation inside of some scopes, the outermost first."""
    if not names:
        return eqn
    info = eqn.source_info
    stack = type(info.name_stack)()
    for name in names:
        stack = stack.extend(name)
    return eqn.replace(source_info=info.replace(name_stack=stack + info.name_stack))


_Kind = TypeVar("_Kind", bound=Mark)


def marks(eqn: Equation) -> tuple[Mark, ...]:
    """The marks around an equation, the outermost first."""
    return marks_of(eqn, Mark)


def marks_of(eqn: Equation, kind: type[_Kind]) -> tuple[_Kind, ...]:
    """The marks of one kind around an equation, the outermost first."""
    return tuple(name for name in _scope_names(eqn) if isinstance(name, kind))


def _scope_names(eqn: Equation) -> tuple[str, ...]:
    stack = getattr(eqn.source_info.name_stack, "stack", ())
    return tuple(item.name for item in stack if type(item).__name__ == "Scope")


def scope(eqn: Equation) -> tuple[str, ...]:
    """The named scopes around an equation, without those that transformations and einsums add."""
    names = (name for name in _scope_names(eqn) if not isinstance(name, Mark))
    marked = (CALLED_AT, PART_OF)
    return tuple(name for name in names if not (name.startswith(marked) or "->" in name))


def function_around(eqn: Equation) -> str:
    """The innermost function with a derivative of its own around an equation, else the innermost
    one, where that was remembered (`PART_OF`)."""
    names = _scope_names(eqn)
    for marker in (PART_OF_CUSTOM, PART_OF):
        found = [name.removeprefix(marker) for name in names if name.startswith(marker)]
        if found:
            return found[-1]
    return ""
