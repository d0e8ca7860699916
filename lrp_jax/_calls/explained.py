"""A function and a composite, analysed and compiled once for each kind of call."""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import targets
from .._analysis.compat import open_jaxpr
from .._analysis.graph import is_float
from .._analysis.trace import Static, is_array, path_name, trace
from .._propagation.many import over
from .._reading.reader import analyse
from .._warnings import warn
from ..composites import Composite, as_composite
from ..plan import refuse_warnings
from ..targets.examples import reading, settled
from . import hints
from .arguments import ArgNums, argument_numbers, belongs_to, checked
from .boxes import outside_of_boxes
from .call import Call, Start
from .draws import drawn
from .resolve import resolve


class Explained:
    """A function and a composite, analysed once for each kind of call.

    Args:
        apply_fn: the user's function.
        composite: a composite or a rule.
        argnums: the explained positional arguments.
        has_aux: whether the function returns `(output, aux)`.
        draws: whether drawn numbers are asked for, as by an expectation over keys.
    """

    def __init__(
        self,
        apply_fn: Callable[..., Any],
        composite: Any,
        argnums: ArgNums,
        has_aux: bool,
        draws: bool = False,
    ) -> None:
        if not callable(apply_fn):
            raise TypeError(
                f"the first argument is the function to explain, got {type(apply_fn).__name__}. "
                + (
                    "Explain its method: relevance(model.apply, composite)(params, x)."
                    if callable(getattr(apply_fn, "apply", None))
                    else "For a model object write lambda model, x: model(x) and pass it the model."
                )
            )
        self.apply_fn = apply_fn
        self.composite = as_composite(composite)
        self.argnums = argument_numbers(argnums)
        self.single = isinstance(argnums, int | np.integer)
        self.has_aux = has_aux
        self.draws = draws
        self._calls: dict[Any, Call] = {}
        self._compiled: dict[Any, Callable[..., Any]] = {}
        self._lock = threading.RLock()

    def prepare(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Call, list[Any]]:
        """The analysed call for these arguments, and their array leaves."""
        try:
            args, numbers = checked(args, self.argnums)
        except (TypeError, ValueError) as error:
            hints.add_to(error, self.apply_fn, self.argnums, args, kwargs)
            raise
        paths, tree = jax.tree_util.tree_flatten_with_path((args, kwargs))
        explained_leaf = [belongs_to(path, numbers) for path, _ in paths]
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
            traced = trace(
                self.apply_fn, leaves, rebuild, flags, names, self.has_aux, self.composite.calls
            )
        except Exception as error:
            args, kwargs = jax.tree.unflatten(tree, [value for _, value in paths])
            hints.add_to(error, self.apply_fn, self.argnums, args, kwargs)
            raise
        atoms = open_jaxpr(traced.jaxpr).outvars
        outputs = [i < traced.outputs and is_float(atom) for i, atom in enumerate(atoms)]
        read = partial(
            analyse, traced.jaxpr, flags, names, outputs=outputs, calls=self.composite.calls
        )
        suspected = () if self.draws else drawn(traced)
        frame = read()
        resolved = resolve(frame, self.composite, traced.anonymous, suspected)
        if resolved.by_turn:
            frame = read(unroll=True)
            resolved = resolve(frame, self.composite, traced.anonymous, suspected)
        if self.composite.strict:
            refuse_warnings(resolved.plan)
        for text in outside_of_boxes(frame, resolved, self.composite, leaves):
            warn(text)
        positions = tuple(i for i, flag in enumerate(flags) if flag)

        def output_of(values: Sequence[Any]) -> Any:
            args, kwargs = rebuild(values)
            result = self.apply_fn(*args, **kwargs)
            return result[0] if self.has_aux else result

        avals = [atom.aval for atom in frame.outvars[: traced.outputs]]
        shown = reading(output_of, leaves, flags, jax.tree.unflatten(traced.out_tree, avals))
        return Call(traced, frame, resolved, self.composite, positions, shown)

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

    def warn_of(self, call: Call, leaves: Sequence[Any]) -> None:
        """What every explanation repeats of what its plan warns of, and what its values tell."""
        for text in call.resolved.mistakes:
            warn(text)
        call.rows.warn_of_unknown(leaves)

    def run(
        self, call: Call, purpose: Any, function: Callable[..., Any], leaves: Any, target: Any,
        *more: Any,
    ) -> Any:  # fmt: skip
        """`function(start, composite, leaves, target, *more)`, compiled once where it can be."""
        targets.check(call.output_shapes, target)
        target, note = settled(call.output_shapes, target, call.reading)
        self.warn_of(call, leaves)
        if note:
            warn(note)
        # The helpers of `targets` are callables too, but their arrays are operands like any other.
        leaves_of_target = jax.tree.leaves(target)
        plain = next((leaf for leaf in leaves_of_target if callable(leaf)), None)
        weighted = plain is None and targets.is_weighting(target)
        start = Start("C" if weighted and not self.composite.gradient else "R")

        def explain(composite: Composite, leaves: Any, target: Any, *more: Any) -> Any:
            if targets.is_each(target):
                return target.over(lambda one: function(start, composite, leaves, one, *more), over)
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
        args, _ = checked(args, self.argnums)
        paths, _ = jax.tree_util.tree_flatten_with_path((args, kwargs))
        arrays = [path for path, value in paths if is_array(value)]
        return [i for i, path in enumerate(arrays) if belongs_to(path, (number,))]

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


def _aval_key(value: Any) -> Any:
    return (np.shape(value), str(value.dtype), bool(getattr(value, "weak_type", False)))
