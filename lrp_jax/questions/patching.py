"""What it would change to put a unit's value from one run of a function into another run.

Measured (activation patching), or estimated for all units at once from the multipliers of an
explanation: relevance patching, and with gradients attribution patching.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import targets
from .._calls.arguments import ArgNums
from .._calls.call import Call, Start
from .._calls.explained import Explained
from .._calls.hints import no_target
from .._calls.looked_up import PLAIN
from .._layers.arithmetic import divide, to_multiplier_value
from .._propagation.loop import Taps, key
from .._tables import counted
from ..composites import Composite
from ..rules.base import Rule
from ..targets import scoring
from .sites import Site, path_of, pull_taps, select, zeros_like


@no_target
def patching(
    apply_fn: Callable[..., Any],
    composite: Any,
    layers: Any = "*",
    argnums: ArgNums = 1,
    *,
    axes: Sequence[int] | None = None,
    to: Any = None,
    has_aux: bool = False,
) -> Callable[..., dict[str, Any]]:
    """A function to the estimated effect of patching every unit of hidden layers (RelP).

        effect(u) = (u_clean - u_corrupted) c_u,   c_u = R_u / u in the run on the corrupted input

    That is how much the explained score of the corrupted run would rise if the unit u had its value
    of the clean run. It takes two forward passes and one backward pass for all units of all layers.
    In a piecewise linear function under LRP-0 the multiplier c_u is the gradient, and the estimate
    exact while nothing leaves its linear region. Multipliers are known of units that are zero too,
    except below rules that make relevance and no multipliers (Flat, w^2, z-box, a lone Pass).

    With `to`, of edges: the effect of a unit's value of the clean run where one other layer reads
    it, and nobody else. The multiplier is then the part of c_u that the input of that layer sends,
    by ways that pass no other layer of `layers` or `to`. It takes a backward pass more for each.

    Args:
        apply_fn: the function.
        composite: a composite, or one rule for every layer with weights; for plain attribution
            patching see `lrp_jax.baselines.attribution_patching`.
        layers: which layers: a path glob, a kind, another match, or a list of these.
        argnums: the explained positional arguments, which differ between the runs.
        axes: the axes of a layer's output that its units lie on (in a loop its turns lead); what
            lies along the other ones is one unit. None is all axes, a unit for every number.
        to: the layers that edges lead to, any match; None asks for units as a whole.
        has_aux: whether `apply_fn` returns `(output, aux)`.

    Returns:
        A function of the arguments of `apply_fn`, of the corrupted explained argument (a tuple of
        them, where `argnums` is one) after them, and of `target=None`, to `{path: effect}`, or of
        edges to `{path: {path of the layer that reads: effect}}`. A target that depends on the
        output, such as None, is that of the clean run.

    Raises:
        ValueError: where no layer matches, with the names that there are; for arguments of
            different shapes; for edges that begin or end in a loop.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> f = lambda w, x: (x @ w["a"]) @ w["b"]
        >>> w = {"a": jnp.eye(2), "b": jnp.array([[1.0], [3.0]])}
        >>> clean, corrupted = jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 1.0]])
        >>> print(lrp.patching(f, lrp.Zero(), "a")(w, clean, corrupted)["a"])
        [[1. 3.]]
        >>> print(lrp.patching(f, lrp.Zero(), "a", to="b")(w, clean, corrupted)["a"]["b"])
        [[1. 3.]]

    Source: Jafari et al. 2025, "RelP: Faithful and efficient circuit discovery via relevance
    patching"; Nanda 2023, "Attribution patching"; of edges Syed et al. 2023, "Attribution Patching
    Outperforms Automated Circuit Discovery".
    """
    explained = Explained(apply_fn, composite, argnums, has_aux)

    def effects(*args: Any, target: Any = None, **kwargs: Any) -> dict[str, Any]:
        call, clean, corrupted = _two_runs(explained, args, kwargs)

        def evaluate(
            begin: Start, composite: Composite, clean: Any, target: Any, corrupted: Any
        ) -> Any:
            chosen = select(call, layers, "C")
            ends = [] if to is None else select(call, to, "C")
            output, wanted = _values(call, composite, clean, chosen)
            weights = _weights(output, target)
            taps = {key("out", s.index): s.probe(s.step.outputs[0]) for s in chosen}
            exposed = frozenset(s.index for s in chosen)

            def effect(site: Site, values: Taps, found: Taps) -> jax.Array:
                name = key("out", site.index)
                c, value = found[name], values[name]
                if site.output_form == "R" and not call.composite.gradient:
                    c = to_multiplier_value(c, value)
                change = (wanted[name] - value) * c
                kept = _axes_of(axes, change.ndim)
                return change.sum([a for a in range(change.ndim) if a not in kept])

            if to is None:
                _, values, pullback = pull_taps(call, "C", composite, corrupted, taps, exposed)
                _, found = pullback(weights, zeros_like(values))
                return {path_of(call, s): effect(s, values, found) for s in chosen}
            values, sent = _sent_by(call, composite, corrupted, weights, taps, chosen, ends)
            above = call.resolved.plan.layers
            if not any(s.index in above[e.index].above for s in chosen for e in ends):
                raise ValueError(
                    "edges lead towards the output, and none of to= ("
                    f"{', '.join(path_of(call, e) for e in ends[:6])}) reads what "
                    f"{', '.join(path_of(call, s) for s in chosen[:6])} makes."
                )
            return {
                path_of(call, s): {
                    path_of(call, end): effect(s, values, sent[end])
                    for end in ends
                    if s.index in above[end.index].above
                }
                for s in chosen
            }

        return explained.run(call, "patching", evaluate, clean, target, corrupted)

    return effects


@no_target
def activation_patching(
    apply_fn: Callable[..., Any],
    layers: Any = "*",
    argnums: ArgNums = 1,
    *,
    axes: Sequence[int] | None = None,
    chunk: int = 32,
    has_aux: bool = False,
) -> Callable[..., dict[str, Any]]:
    """A function to the measured effect of patching every unit of hidden layers.

        effect(u) = score(corrupted, with u as in the clean run) - score(corrupted)

    The score is the sum over outputs of the target's weights times the output. It takes a forward
    pass for every unit. Examples of a batch are units of their own; to patch a unit in all of them
    together, map the function over examples: `jax.vmap(measure, (None, 0, 0))`. Layers asked for
    together are one compiled program; where there are few of many units, asked for one by one they
    take less time, as what lies in front of a layer is then computed once for all of its units.

    Args:
        apply_fn, layers, argnums, axes, has_aux: as `patching`.
        chunk: how many forward passes are computed together.

    Returns:
        A function as `patching` returns, to the effects of the same layers.

    Raises:
        ValueError: as `patching`.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> f = lambda w, x: (x @ w["a"]) @ w["b"]
        >>> w = {"a": jnp.eye(2), "b": jnp.array([[1.0], [3.0]])}
        >>> clean, corrupted = jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 1.0]])
        >>> print(lrp.activation_patching(f, "a")(w, clean, corrupted)["a"])
        [[1. 3.]]

    Source: Meng et al. 2022, "Locating and editing factual associations in GPT".
    """
    if isinstance(layers, Composite | Rule):
        raise TypeError(
            "activation_patching measures, by no rules: (apply_fn, layers). lrp_jax.patching "
            "estimates, by those of a composite: (apply_fn, composite, layers)."
        )
    explained = Explained(apply_fn, PLAIN, argnums, has_aux)
    scoring.require_positive("chunk", chunk)

    def effects(*args: Any, target: Any = None, **kwargs: Any) -> dict[str, Any]:
        call, clean, corrupted = _two_runs(explained, args, kwargs)

        def evaluate(
            begin: Start, composite: Composite, clean: Any, target: Any, corrupted: Any
        ) -> Any:
            chosen = select(call, layers, "C")
            output, wanted = _values(call, composite, clean, chosen)
            weights = _weights(output, target)

            def score(patches: Taps) -> jax.Array:
                output = call.evaluate("C", composite, corrupted, patches)[0]
                products = jax.tree.map(lambda w, y: jnp.sum(w * y), weights, output)
                return jnp.stack(jax.tree.leaves(products)).sum()

            before = score({})

            values = [wanted[key("out", site.index)] for site in chosen]
            kept = [_axes_of(axes, value.ndim) for value in values]
            shapes = [
                tuple(n if a in axes else 1 for a, n in enumerate(value.shape))
                for value, axes in zip(values, kept, strict=True)
            ]
            ends = np.cumsum([0, *(math.prod(shape) for shape in shapes)])

            # One program for the units of all layers: one for each layer would hold the function
            # as often as there are layers.
            def patched(number: jax.Array) -> jax.Array:
                patches = {}
                for site, value, shape, first in zip(chosen, values, shapes, ends, strict=False):
                    own = jnp.arange(first, first + math.prod(shape)).reshape(shape) == number
                    where = jnp.broadcast_to(own, value.shape)
                    patches[key("patch", site.index)] = (where, value)
                return score(patches) - before

            found = jax.lax.map(patched, jnp.arange(ends[-1]), batch_size=chunk)
            return {
                path_of(call, site): found[first:end].reshape([value.shape[a] for a in axes])
                for site, value, axes, first, end in zip(
                    chosen, values, kept, ends[:-1], ends[1:], strict=True
                )
            }

        return explained.run(call, "activation patching", evaluate, clean, target, corrupted)

    return effects


def _sent_by(
    call: Call, composite: Composite, leaves: Any, weights: Any, taps: Taps,
    chosen: Sequence[Site], ends: Sequence[Site],
) -> tuple[Taps, dict[Site, Taps]]:  # fmt: skip
    """The outputs of layers, and what the inputs of each end send to them by themselves."""
    nodes = [*chosen, *ends]
    if any(site.loops for site in nodes):
        raise ValueError(
            "a layer in a loop is another end of an edge in every turn: write the loop out to ask "
            "for edges."
        )
    exposed = frozenset(site.index for site in nodes)
    inner = {
        key("in", end.index, i): end.probe(v) for end in ends for i, v in enumerate(end.step.inputs)
    }
    # What every end sends to its inputs, with all that arrives there.
    _, values, pullback = pull_taps(call, "C", composite, leaves, inner, exposed)
    _, at_inputs = pullback(weights, zeros_like(values))
    # From there on to the next layers of the two kinds, which hand nothing on.
    output, values, pullback = pull_taps(call, "C", composite, leaves, taps, exposed, exposed)
    nothing, silent = zeros_like(output), zeros_like(values)

    def sent(end: Site) -> Taps:
        own = {name: at_inputs[name] for name in inner if name.startswith(f"in:{end.index}:")}
        found: Taps = pullback(nothing, {**silent, **own})[1]
        return found

    return values, {end: sent(end) for end in ends}


def _two_runs(
    explained: Explained, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Call, list[Any], list[Any]]:
    """The call, and the array leaves of the clean and of the corrupted run."""
    if len(args) < 2:
        raise TypeError("the corrupted input is the last argument: (params, clean, corrupted).")
    *given, corrupted = args
    if any(not -len(given) <= n < len(given) for n in explained.argnums):
        raise TypeError(
            "the corrupted input is the last argument: (params, clean, corrupted). The call has "
            f"{counted(len(args), 'argument')}, and argnums={explained.argnums} names one among "
            "those before it."
        )
    numbers = [n % len(given) for n in explained.argnums]
    others = (corrupted,) if explained.single else tuple(corrupted)
    changed = list(given)
    for number, other in zip(numbers, others, strict=True):
        changed[number] = other
    shapes = [_shapes(run[n] for n in numbers) for run in (given, changed)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "the clean and the corrupted input need one structure, shape and dtype, got "
            f"{shapes[0]} and {shapes[1]}."
        )
    call, clean = explained.prepare(tuple(given), kwargs)
    leaves = explained.prepare(tuple(changed), kwargs)[1]
    call.rows.warn_of_unknown(leaves)
    return call, clean, leaves


def _shapes(arguments: Iterable[Any]) -> Any:
    return [jax.tree.map(lambda a: (np.shape(a), str(jnp.result_type(a))), a) for a in arguments]


def _values(
    call: Call, composite: Composite, leaves: Any, chosen: Sequence[Site]
) -> tuple[Any, Taps]:
    """The output, and the outputs of layers by their key."""
    exposed = frozenset(s.index for s in chosen)
    output, _, values = call.evaluate("C", composite, leaves, exposed=exposed)
    return output, values


def _weights(output: Any, target: Any) -> Any:
    """The weights of the score that a target names."""
    weights = targets.weighting(output, target)
    if weights is None:
        start = targets.start(output, target)
        weights = jax.tree.map(lambda r, y: divide(r, y, 0.0), start, output)
    return weights


def _axes_of(axes: Sequence[int] | None, rank: int) -> list[int]:
    """The axes of units of an output, in order."""
    if axes is None:
        return list(range(rank))
    if isinstance(axes, int):
        raise TypeError(f"axes={axes}: the axes of units are a tuple, ({axes},).")
    if any(not -rank <= a < rank for a in axes):
        raise ValueError(f"axes={tuple(axes)}: a layer has an output with {rank} axes.")
    return sorted({a % rank for a in axes})
