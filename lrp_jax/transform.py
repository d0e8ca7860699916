"""The front door: `lrp_transform`, `relevance`, `value_and_relevance`, `plan`."""

import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _hints, targets
from ._blocks import analyse
from ._compat import open_jaxpr
from ._examples import Reading, reading, settled
from ._forms import Forms, assign
from ._interpreter import Program, Taps, run
from ._layers import Frame
from ._trace import Static, Traced, is_array, path_name, trace
from .composites import Composite, as_composite
from .plan import Plan, Resolved, resolve

ArgNums = int | Sequence[int]


@dataclass(frozen=True, eq=False)
class Call:
    """One kind of call of an explained function: its plan and how to evaluate it.

    Attributes:
        traced: the function as a jaxpr.
        frame: its layers.
        resolved: which rule each layer has.
        composite: the rules (their numbers may be replaced by traced ones).
        explained: positions of the explained leaves among all array leaves.
        reading: what the axis of an output with one axis holds.
    """

    traced: Traced
    frame: Frame
    resolved: Resolved
    composite: Composite
    explained: tuple[int, ...]
    reading: Reading

    def forms(self, output: str) -> Forms:
        """The forms of relevance, given what arrives at the outputs: "R" or "C"."""
        rules = self.composite.rules
        chosen = {step: rules[entry] for step, entry in self.resolved.entries.items()}
        outputs = [output] * len(self.frame.outputs)
        if self.composite.gradient:
            return assign(self.frame, {}, ["C"] * len(outputs))
        demanded = ["R" if flag else "" for flag in self.traced.explained]
        return assign(self.frame, chosen, outputs, demanded)

    def evaluate(
        self,
        form: str,
        composite: Composite,
        leaves: Sequence[Any],
        taps: Taps | None = None,
        exposed: frozenset[int] = frozenset(),
        parameters: str = "",
        stopped: frozenset[int] = frozenset(),
    ) -> tuple[Any, Any, Taps]:
        """The output, the auxiliary output and the exposed layers; the vjp is the explanation."""
        program = Program(
            self.resolved.entries,
            self.composite.gradient,
            self.resolved.indices,
            exposed,
            parameters,
            stopped,
        )
        outs, exposures = run(
            self.frame, self.forms(form), program, composite.rules, leaves, taps or {}
        )
        n = self.traced.outputs
        output = jax.tree.unflatten(self.traced.out_tree, outs[:n])
        aux_tree = self.traced.aux_tree
        aux = None if aux_tree is None else jax.tree.unflatten(aux_tree, outs[n:])
        return output, aux, exposures

    @property
    def output_shapes(self) -> Any:
        """Shapes and dtypes of the output."""
        avals = [atom.aval for atom in self.frame.outvars[: self.traced.outputs]]
        shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals]
        return jax.tree.unflatten(self.traced.out_tree, shapes)

    def with_explained(self, leaves: Sequence[Any], explained: Sequence[Any]) -> list[Any]:
        """The leaves with other values of the explained ones."""
        merged = list(leaves)
        for position, value in zip(self.explained, explained, strict=True):
            merged[position] = value
        return merged

    def pulled(
        self, form: str, composite: Composite, leaves: Sequence[Any]
    ) -> tuple[Any, Callable[[Any], list[Any]], Any]:
        """Output, pullback to the explained leaves, auxiliary output."""

        def explain(explained: list[Any]) -> tuple[Any, Any]:
            merged = self.with_explained(leaves, explained)
            return self.evaluate(form, composite, merged)[:2]

        explained = [leaves[i] for i in self.explained]
        output, pullback, aux = jax.vjp(explain, explained, has_aux=True)
        return output, jax.tree_util.Partial(_first, pullback), aux


@dataclass(frozen=True)
class Start:
    """What starts a backward pass: relevance ("R"), or the weights of the outputs ("C").

    Attributes:
        form: the form of the seed.
    """

    form: str

    def seed(self, output: Any, target: Any) -> Any:
        """The cotangent of the output."""
        return (targets.weighting if self.form == "C" else targets.start)(output, target)


class Explained:
    """A function and a composite, analysed once for each kind of call.

    Args:
        apply_fn: the user's function.
        composite: a composite or a rule.
        argnums: the explained positional arguments.
        has_aux: whether the function returns `(output, aux)`.
    """

    def __init__(
        self, apply_fn: Callable[..., Any], composite: Any, argnums: ArgNums, has_aux: bool
    ) -> None:
        if not callable(apply_fn):
            raise TypeError(
                f"the first argument is the function to explain, got {type(apply_fn).__name__}. "
                "For a model object write lambda model, x: model(x) and pass it the model."
            )
        self.apply_fn = apply_fn
        self.composite = as_composite(composite)
        self.argnums = _argnums(argnums)
        self.single = isinstance(argnums, int | np.integer)
        self.has_aux = has_aux
        self._calls: dict[Any, Call] = {}
        self._compiled: dict[Any, Callable[..., Any]] = {}
        self._lock = threading.RLock()

    def prepare(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Call, list[Any]]:
        """The analysed call for these arguments, and their array leaves."""
        try:
            args, numbers = self._check(args)
        except TypeError as error:
            _hints.add_to(error, self.apply_fn, self.argnums, args, kwargs)
            raise
        paths, tree = jax.tree_util.tree_flatten_with_path((args, kwargs))
        explained_leaf = [_is_explained(path, numbers) for path, _ in paths]
        leaves = [value for _, value in paths if is_array(value)]
        static = tuple(None if is_array(value) else Static(value) for _, value in paths)
        mask = tuple(is_array(value) for _, value in paths)
        key = (tree, static, tuple(_aval_key(v) for v in leaves))
        with self._lock:
            call = self._calls.get(key)
            if call is None:
                call = self._analyse(paths, tree, mask, explained_leaf, leaves)
                if not call.traced.jaxpr.consts:
                    self._calls[key] = call
        return call, leaves

    def _check(self, args: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        for number in self.argnums:
            if not -len(args) <= number < len(args):
                raise ValueError(
                    f"argnums={number} is out of range: the call has {len(args)} positional "
                    "arguments (argnums counts them from 0, as in jax.grad; the default is 1, "
                    "for apply_fn(params, x)). Pass the parameters, or the model, as an argument: "
                    "relevance(lambda model, x: model(x), composite)(model, x). A class to explain "
                    "is the call's target: (params, x, target=...)."
                )
        numbers = tuple(n % len(args) for n in self.argnums)
        converted = list(args)
        for number in numbers:
            converted[number] = jax.tree.map(partial(_explained_leaf, number), args[number])
        return tuple(converted), numbers

    def _analyse(
        self,
        paths: Any,
        tree: Any,
        mask: tuple[bool, ...],
        explained: list[bool],
        leaves: list[Any],
    ) -> Call:
        fixed = [value for (_, value), dynamic in zip(paths, mask, strict=True) if not dynamic]

        def rebuild(values: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
            dynamic, static = iter(values), iter(fixed)
            merged = [next(dynamic) if flag else next(static) for flag in mask]
            return jax.tree.unflatten(tree, merged)

        flags = [e for e, dynamic in zip(explained, mask, strict=True) if dynamic]
        names = [
            "" if e else path_name(path[2:] or path)
            for (path, _), e, dynamic in zip(paths, explained, mask, strict=True)
            if dynamic
        ]
        try:
            traced = trace(self.apply_fn, leaves, rebuild, flags, names, self.has_aux)
        except Exception as error:
            args, kwargs = jax.tree.unflatten(tree, [value for _, value in paths])
            _hints.add_to(error, self.apply_fn, self.argnums, args, kwargs)
            raise
        outputs = [i < traced.outputs for i in range(len(open_jaxpr(traced.jaxpr).outvars))]
        frame = analyse(traced.jaxpr, flags, names, outputs=outputs)
        resolved = resolve(frame, self.composite, traced.anonymous)
        positions = tuple(i for i, flag in enumerate(flags) if flag)

        def output_of(values: Sequence[Any]) -> Any:
            args, kwargs = rebuild(values)
            result = self.apply_fn(*args, **kwargs)
            return result[0] if self.has_aux else result

        avals = [atom.aval for atom in frame.outvars[: traced.outputs]]
        read = reading(output_of, leaves, flags, jax.tree.unflatten(traced.out_tree, avals))
        return Call(traced, frame, resolved, self.composite, positions, read)

    def compiled(
        self, call: Call, purpose: Any, function: Callable[..., Any]
    ) -> Callable[..., Any]:
        """`function` under `jit`, once for each call and purpose."""
        key = (call, purpose)
        with self._lock:
            if key not in self._compiled:
                if call.traced.jaxpr.consts:  # a fresh call each time: do not keep it alive
                    return jax.jit(function)
                self._compiled[key] = jax.jit(function)
            return self._compiled[key]

    def run(
        self, call: Call, purpose: Any, function: Callable[..., Any], leaves: Any, target: Any,
        *more: Any,
    ) -> Any:  # fmt: skip
        """`function(start, composite, leaves, target, *more)`, compiled once where it can be."""
        targets.check(call.output_shapes, target)
        target, note = settled(call.output_shapes, target, call.reading)
        for text in [*call.resolved.mistakes, *filter(None, [note])]:
            warnings.warn(text, stacklevel=3)
        # The helpers of `targets` are callables too, but their arrays are operands like any other.
        leaves_of_target = jax.tree.leaves(target)
        plain = next((leaf for leaf in leaves_of_target if callable(leaf)), None)
        weighted = plain is None and targets.is_weighting(target)
        start = Start("C" if weighted and not self.composite.gradient else "R")

        def explain(composite: Composite, leaves: Any, target: Any, *more: Any) -> Any:
            if targets.is_each(target):
                return target.over(lambda one: function(start, composite, leaves, one, *more))
            return function(start, composite, leaves, target, *more)

        if plain is None:
            target = jax.tree.map(jnp.asarray, target)
            compiled = self.compiled(call, (purpose, start), explain)
            return compiled(self.composite, leaves, target, *more)

        def with_target(composite: Composite, leaves: Any, *more: Any) -> Any:
            return explain(composite, leaves, target, *more)

        compiled = self.compiled(call, (purpose, Static(target)), with_target)
        return compiled(self.composite, leaves, *more)

    def leaves_of(self, args: tuple[Any, ...], kwargs: dict[str, Any], number: int) -> list[int]:
        """Positions of one argument's leaves among all array leaves."""
        if not 0 <= number < len(args):
            raise ValueError(f"params_argnum={number} is out of range: {len(args)} arguments.")
        args, _ = self._check(args)
        paths, _ = jax.tree_util.tree_flatten_with_path((args, kwargs))
        arrays = [path for path, value in paths if is_array(value)]
        return [i for i, path in enumerate(arrays) if _is_explained(path, (number,))]

    @staticmethod
    def rebuild(argument: Any, values: Sequence[Any]) -> Any:
        """An argument with other arrays, its other leaves as they are."""
        leaves, tree = jax.tree.flatten(argument)
        new = iter(values)
        return jax.tree.unflatten(tree, [next(new) if is_array(x) else x for x in leaves])

    def rebuild_explained(self, args: tuple[Any, ...], values: Sequence[Any]) -> Any:
        """Relevances in the structure of the explained arguments."""
        numbers = [n % len(args) for n in self.argnums]
        tree = jax.tree.structure([args[n] for n in numbers])
        found = jax.tree.unflatten(tree, values)
        return found[0] if self.single else tuple(found)


def _argnums(argnums: ArgNums) -> tuple[int, ...]:
    numbers = tuple(argnums) if isinstance(argnums, tuple | list) else (argnums,)
    if not numbers or not all(isinstance(n, int | np.integer) for n in numbers):
        raise TypeError(f"argnums is an int or a tuple of ints, got {argnums!r}.")
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"argnums={argnums!r} names an argument twice.")
    return tuple(int(n) for n in numbers)


def _is_explained(path: Any, numbers: Sequence[int]) -> bool:
    return path[0].idx == 0 and len(path) > 1 and path[1].idx in numbers


def _explained_leaf(number: int, leaf: Any) -> Any:
    value = leaf if is_array(leaf) else np.asarray(leaf) if np.isscalar(leaf) else leaf
    dtype = getattr(value, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        written = isinstance(leaf, bool | int)  # an int written in Python, perhaps in a list
        shown = f"dtype {dtype}" if dtype is not None and not written else type(leaf).__name__
        raise TypeError(
            f"argument {number} is explained and must hold floating-point arrays, got {shown}. "
            "Cast images with x.astype(jnp.float32); for token ids explain the embeddings: split "
            "the model after its embedding and pass the embedded tokens."
        )
    return jnp.asarray(value) if isinstance(value, np.ndarray | np.generic) else value


def _first(pullback: Callable[[Any], tuple[Any]], cotangent: Any) -> Any:
    return pullback(cotangent)[0]


def _aval_key(value: Any) -> Any:
    return (np.shape(value), str(value.dtype), bool(getattr(value, "weak_type", False)))


@_hints.no_target
def lrp_transform(
    apply_fn: Callable[..., Any], composite: Any, argnums: ArgNums = 1, *, has_aux: bool = False
) -> Callable[..., Any]:
    """A function with the same values whose vjp carries relevance instead of gradients.

    `jax.vjp(lambda x: lrp_apply(params, x), x)` gives the outputs and a pullback from the relevance
    of the outputs, R_j, to the relevance of the inputs, R_i. Only `argnums` are explained; every
    other argument is a constant of the explanation, with zero cotangent.

    Args:
        apply_fn: `apply_fn(params_or_model, x, *more, **static)`, any JAX function.
        composite: a `Composite`, or one rule for every layer with weights.
        argnums: the explained positional arguments, as in `jax.grad`.
        has_aux: whether `apply_fn` returns `(output, aux)`.

    Returns:
        A function with the signature and the values of `apply_fn`.

    Raises:
        TypeError: for explained arguments that are not floating point.
        ValueError: for `argnums` out of range.
        lrp_jax.UnsupportedOperation: for an operation without a rule, by name and line.

    Example:
        >>> import jax, jax.numpy as jnp, lrp_jax as lrp
        >>> f = lambda w, x: jax.nn.relu(x @ w)
        >>> g = lrp.lrp_transform(f, lrp.Epsilon())
        >>> w, x = jnp.array([[1.0], [2.0]]), jnp.array([[1.0, 3.0]])
        >>> y, pullback = jax.vjp(lambda x: g(w, x), x)
        >>> print(pullback(y)[0].round(2))
        [[1. 6.]]

    Source: Bach et al. 2015.
    """
    explained = Explained(apply_fn, composite, argnums, has_aux)

    def lrp_apply(*args: Any, **kwargs: Any) -> Any:
        call, leaves = explained.prepare(args, kwargs)

        # Constants have no cotangent, but the pullback depends on them: it is differentiable again.
        @jax.custom_vjp
        def evaluate(composite: Composite, leaves: Sequence[Any]) -> tuple[Any, Any]:
            return call.evaluate("R", composite, leaves)[:2]

        def forward(composite: Composite, leaves: Sequence[Any]) -> tuple[Any, Any]:
            output, pullback, aux = call.pulled("R", composite, leaves)
            return (output, aux), pullback

        def backward(pullback: Any, cotangents: Any) -> tuple[Any, Any]:
            found = dict(zip(call.explained, pullback(cotangents[0]), strict=True))
            return None, [found.get(i) for i in range(len(call.traced.explained))]

        evaluate.defvjp(forward, backward)
        compiled = explained.compiled(call, "transform", evaluate)
        output, aux = compiled(explained.composite, leaves)
        return (output, aux) if has_aux else output

    return lrp_apply


@_hints.no_target
def value_and_relevance(
    apply_fn: Callable[..., Any], composite: Any, argnums: ArgNums = 1, *, has_aux: bool = False
) -> Callable[..., Any]:
    """A function from a call of `apply_fn` to its output and the relevance of its inputs.

    Args:
        apply_fn: `apply_fn(params_or_model, x, *more, **static)`, any JAX function.
        composite: a `Composite`, or one rule for every layer with weights.
        argnums: the explained positional arguments, as in `jax.grad`.
        has_aux: whether `apply_fn` returns `(output, aux)`; then so does the result.

    Returns:
        A function of the arguments of `apply_fn` and `target=None` (see `lrp_jax.targets`), to
        `(output, relevance)`; relevance has the structure of the explained arguments.

    Raises:
        TypeError, ValueError: as `lrp_transform`, and for a target that does not fit.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> f = lambda w, x: x @ w
        >>> out, r = lrp.value_and_relevance(f, lrp.Zero())(jnp.eye(2), jnp.array([[1.0, 3.0]]))
        >>> print(out, r)
        [[1. 3.]] [[0. 3.]]
    """
    explained = Explained(apply_fn, composite, argnums, has_aux)

    def explain(*args: Any, target: Any = None, **kwargs: Any) -> Any:
        call, leaves = explained.prepare(args, kwargs)

        def evaluate(start: Start, composite: Composite, leaves: Sequence[Any], target: Any) -> Any:
            output, pullback, aux = call.pulled(start.form, composite, leaves)
            return output, pullback(start.seed(output, target)), aux

        output, found, aux = explained.run(call, "relevance", evaluate, leaves, target)
        relevances = explained.rebuild_explained(args, found)
        return ((output, aux), relevances) if has_aux else (output, relevances)

    return explain


@_hints.no_target
def relevance(
    apply_fn: Callable[..., Any], composite: Any, argnums: ArgNums = 1, *, has_aux: bool = False
) -> Callable[..., Any]:
    """A function from a call of `apply_fn` to the relevance of its inputs; mirrors `jax.grad`.

    Args:
        apply_fn: `apply_fn(params_or_model, x, *more, **static)`, any JAX function.
        composite: a `Composite`, or one rule for every layer with weights.
        argnums: the explained positional arguments, as in `jax.grad`.
        has_aux: whether `apply_fn` returns `(output, aux)`; then the result is `(relevance, aux)`.

    Returns:
        A function of the arguments of `apply_fn` and `target=None` (see `lrp_jax.targets`), to the
        relevance of the explained arguments, in their structure, shapes and dtypes.

    Raises:
        TypeError, ValueError: as `lrp_transform`, and for a target that does not fit.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> explain = lrp.relevance(lambda w, x: x @ w, lrp.ZPlus())
        >>> print(explain(jnp.array([[1.0], [-1.0]]), jnp.array([[3.0, 1.0]])).round(3))
        [[2. 0.]]

    Source: Bach et al. 2015.
    """
    explain = value_and_relevance(apply_fn, composite, argnums, has_aux=has_aux)

    def relevance_of(*args: Any, target: Any = None, **kwargs: Any) -> Any:
        output, found = explain(*args, target=target, **kwargs)
        return (found, output[1]) if has_aux else found

    return relevance_of


@_hints.no_target
def plan(
    apply_fn: Callable[..., Any], composite: Any, argnums: ArgNums = 1, *, has_aux: bool = False
) -> Callable[..., Plan]:
    """A function from a call of `apply_fn` to the plan: which layer gets which rule, and why.

    Args:
        apply_fn: `apply_fn(params_or_model, x, *more, **static)`, any JAX function.
        composite: a `Composite`, or one rule for every layer with weights.
        argnums: the explained positional arguments, as in `jax.grad`.
        has_aux: whether `apply_fn` returns `(output, aux)`.

    Returns:
        A function of the arguments of `apply_fn` to a `Plan`; no arrays are computed.

    Raises:
        TypeError, ValueError: as `lrp_transform`.
    """
    explained = Explained(apply_fn, composite, argnums, has_aux)

    def plan_of(*args: Any, **kwargs: Any) -> Plan:
        return explained.prepare(args, kwargs)[0].resolved.plan

    return plan_of
