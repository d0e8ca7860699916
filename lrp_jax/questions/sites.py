"""The places of a call where relevance can be read, by name, and the pullback to them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .._analysis.graph import is_float
from .._calls.call import Call
from .._layers.step import Frame, Step, Way
from .._propagation.forms import Forms
from .._propagation.loop import Taps
from ..composites import Composite
from ..kinds import match


@dataclass(frozen=True, eq=False)
class Site:
    """Where a layer's relevance can be read.

    Attributes:
        index: the layer's number in the plan.
        step: the layer.
        loops: lengths of the loops around it, which lead its arrays.
        output_form: the form of what arrives at its output.
        input_form: the form of what it sends to its inputs.
        held: whether its rule hands nothing on.
    """

    index: int
    step: Step
    loops: tuple[int, ...]
    output_form: str
    input_form: str
    held: bool

    def probe(self, var: Any) -> jax.Array:
        """Zeros of a variable's shape, one for every turn of the loops."""
        dtype = var.aval.dtype if is_float(var) else None
        return jnp.zeros((*self.loops, *var.aval.shape), dtype)


def sites(call: Call, form: str) -> list[Site]:
    """Every layer of a call with the forms that relevance has around it."""
    return list(_sites(call, call.frame, call.forms(form), ()))


def _sites(call: Call, frame: Frame, forms: Forms, loops: tuple[int, ...]) -> Iterator[Site]:
    rules = call.composite.rules
    for step in frame.steps:
        for body, inside in zip(step.frames, forms.bodies[step], strict=True):
            yield from _sites(call, body, inside, (*loops, *step.turns))
        if step in call.resolved.indices:
            entry = call.resolved.entries.get(step)
            out = forms.at(step)
            rule = None if entry is None else rules[entry]
            made = out if call.composite.gradient else step.way_back(rule, out).makes
            held = rule is not None and rule.way is Way.NOTHING
            yield Site(call.resolved.indices[step], step, loops, out, made, held)


def select(call: Call, spec: Any, form: str) -> list[Site]:
    """The layers that a match, a glob or a predicate speaks of, or any in a list of these.

    Raises:
        ValueError: where there is none, with the names that there are.
    """
    layers = call.resolved.plan.layers
    specs = list(spec) if isinstance(spec, list | tuple) else [spec]
    wanted = set[int]()
    for each in map(match, specs):
        found = {x.index for x in layers if each.matches(x, layers)}
        wanted |= found
        if found:
            continue
        inside = [x.path for x in layers if x.path.startswith(f"{getattr(each, 'pattern', '')}/")]
        names = inside or [x.path for x in layers]
        raise ValueError(
            f"no layer matches {each!r}; {'inside of it' if inside else 'there'} are "
            f"{', '.join(names[:12])}{', and more' if len(names) > 12 else ''}."
        )
    if not specs:
        raise ValueError("layers=[] names no layer.")
    return [site for site in sites(call, form) if site.index in wanted]


def one(call: Call, spec: Any, form: str = "C") -> Site:
    """The one layer that a match speaks of; a layer's whole path always names it alone.

    Raises:
        ValueError: where there is none or more than one, with their names.
    """
    found = select(call, spec, form)
    exact = [site for site in found if path_of(call, site) == spec]
    if len(exact or found) > 1:
        names = ", ".join(path_of(call, site) for site in found[:6])
        raise ValueError(f"{spec!r} matches {len(found)} layers ({names}); name one.")
    return (exact or found)[0]


def path_of(call: Call, site: Site) -> str:
    """The unique path of a layer."""
    return call.resolved.plan.layers[site.index].path


def pull_taps(
    call: Call, form: str, composite: Composite, leaves: Sequence[Any], taps: Taps,
    exposed: frozenset[int], stopped: frozenset[int] = frozenset(),
) -> tuple[Any, Taps, Callable[[Any, Taps], tuple[list[Any], Taps]]]:  # fmt: skip
    """Output, exposed values, and the pullback to the explained leaves and the taps."""

    def explain(explained: list[Any], taps: Taps) -> tuple[Any, Taps]:
        merged = call.with_explained(leaves, explained)
        output, _, exposures = call.evaluate(
            form, composite, merged, taps, exposed, stopped=stopped
        )
        return output, exposures

    explained = call.explained_values(leaves)
    (output, exposures), pullback = jax.vjp(explain, explained, taps)
    return output, exposures, lambda seed, exposed_seed: pullback((seed, exposed_seed))


def zeros_like(tree: Any) -> Any:
    """Zero cotangents for a tree of arrays."""
    return jax.tree.map(jnp.zeros_like, tree)
