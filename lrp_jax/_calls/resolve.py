"""Which layer of an analysed function gets which rule of a composite, and why.

Shapes alone decide. The plan is what a user sees of it.
"""

import dataclasses
import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import kinds
from .._analysis import compat
from .._analysis.compat import is_literal
from .._layers import suspects
from .._layers.flows import flow_to_layers, held_inputs
from .._layers.step import Frame, Step, UnsupportedOperation, Way
from .._reading.torn import torn_layers
from ..composites import Composite
from ..kinds import KINDS, BatchNorm, Bias, Called, Glob, Kind, Linear, Match, globs, parts
from ..plan import Layer, Plan
from ..rules.base import Rule


@dataclass(frozen=True, eq=False)
class Resolved:
    """A plan with the steps it speaks of.

    Attributes:
        plan: what the user sees.
        entries: for each layer, the index of its rule among `composite.rules`.
        indices: for each layer, its number in the plan.
        steps: the layers in order of execution.
        mistakes: those of the plan's warnings that every explanation repeats.
        held: the inputs of steps that are constants because of what is held before them.
        by_turn: whether an entry asks for a layer's place that differs from turn to turn of a loop.
    """

    plan: Plan
    entries: Mapping[Step, int]
    indices: Mapping[Step, int]
    steps: tuple[Step, ...]
    mistakes: tuple[str, ...]
    held: Mapping[Step, frozenset[int]]
    by_turn: bool


def resolve(
    frame: Frame,
    composite: Composite,
    anonymous: Sequence[Any] = (),
    suspected: Sequence[str] = (),
) -> Resolved:
    """Give every layer of a frame its rule.

    Args:
        frame: the analysed function.
        composite: the rules.
        anonymous: shapes of arrays that were closed over.
        suspected: mistakes of the function that no layer tells.

    Raises:
        TypeError: where an entry speaks only of layers that its rule cannot serve.
        ValueError: for batch norm in training mode, and for rules that do not fit their layer.
        UnsupportedOperation: for a called function that no entry serves.
    """
    steps = tuple(frame.layers())
    indices = {step: i for i, step in enumerate(steps)}
    for step in steps:
        _refuse_training_mode(step, frame)
    flows = flow_to_layers(frame, indices)
    above = [flow.met - {index} for index, flow in enumerate(flows)]
    layers = _layers(steps, above, [flow.last for flow in flows])
    repeated = {i: flow.early or frozenset() for i, flow in enumerate(flows) if i in flow.met}
    differs = any(kinds.differs_by_turn(spec, repeated, layers) for spec, _ in composite.entries)
    entries, shadowed, mistakes, unmatched = _choose(layers, composite)
    pairs = (*composite.entries, *composite.base)
    _check_rules(steps, layers, entries, pairs)
    shown = []
    for layer, entry in zip(layers, entries, strict=True):
        chosen = "base" if entry is not None and entry >= len(composite.entries) else ""
        unruled = "sum of features" if layer.kind <= kinds.Embedding else "winner takes all"
        rule = unruled if entry is None else repr(pairs[entry][1])
        if composite.gradient and (entry is None or chosen):
            rule, chosen = "gradient", "base"
        shown.append(
            dataclasses.replace(
                layer,
                rule=rule,
                chosen_by=chosen or (repr(pairs[entry][0]) if entry is not None else ""),
            )
        )
    if suspects.ends_in_softmax(frame):
        mistakes.append(SOFTMAX)
    if not any(frame.outputs):
        mistakes.append(NOTHING_ARRIVES)
    by_step = {step: e for step, e in zip(steps, entries, strict=True) if e is not None}
    held = held_inputs(frame, {s for s, e in by_step.items() if pairs[e][1].way is Way.NOTHING})
    idle = {step for step, constants in held.items() if len(constants) == len(step.inputs)}
    mistakes += [*torn_layers(frame), *suspected]
    unknown = _unrecognised(frame, layers, composite.entries, idle)
    if not composite.gradient:
        unknown += _standing_alone(frame, idle, spoken=bool(unknown))
    mistakes += unknown
    warnings = [*mistakes, *shadowed]
    if anonymous:
        warnings.append(
            f"the function closes over {len(anonymous)} arrays (shapes "
            f"{', '.join(map(str, anonymous[:3]))}{', ...' if len(anonymous) > 3 else ''}). Layers "
            "with them have no names, and beside weights in the arguments they are no layers with "
            "weights but merges. Pass the parameters, or the whole model, as an argument: "
            "lrp.relevance(lambda model, x: model(x), ...)(model, x)."
        )
    plan = Plan(tuple(shown), tuple(warnings), tuple(unmatched))
    return Resolved(plan, by_step, indices, steps, tuple(mistakes), held, differs)


SOFTMAX = (
    "the function ends in a softmax: its outputs compete, so each one's relevance speaks of all "
    "classes. Explain the logits: return what enters the softmax (for a class against the others, "
    "see lrp_jax.targets.contrast)."
)


NOTHING_ARRIVES = (
    "no output depends on the explained argument by a way of floating-point numbers: all relevance "
    "is zero. Is argnums right, and does jax.lax.stop_gradient cut the way?"
)

DIVIDED = (
    "the quotient at {} divides by a sum over explained values that is neither a softmax's nor a "
    "statistic of what it divides, so a share of relevance goes through the divisor. Put "
    "jax.lax.stop_gradient around the divisor to make it a constant, or name the function around "
    "it with lrp.as_layer and an entry (lrp.call(name), ...)."
)

EXPONENTIAL = (
    "`{}` at {} is an exponential on the way of relevance that belongs to no known layer: it is "
    "explained as a function of what it is given, as any activation. Is it a piece of a softmax, "
    "write that as jax.nn has it; else name the function around it with lrp.as_layer and an entry "
    "(lrp.call(name), ...)."
)

_LAYERS_OF = (
    (kinds.Softmax, "softmaxes", "exponential", suspects.EXPONENTIALS),
    (kinds.Normalization, "norms", "root", suspects.SQUARE_ROOTS),
)


def _standing_alone(frame: Frame, idle: Collection[Step], spoken: bool) -> list[str]:
    """Quotients that are pieces of nothing that is known; else exponentials, where they are not
    spoken of."""
    quotient = suspects.divided_by_sum(frame, idle)
    if quotient is not None:
        return [DIVIDED.format(quotient.source)]
    eqn = None if spoken else suspects.lone_exponential(frame, idle)
    return [] if eqn is None else [EXPONENTIAL.format(eqn.primitive, compat.source_line(eqn))]


def _unrecognised(
    frame: Frame,
    layers: Sequence[Layer],
    entries: Sequence[tuple[Match, Rule]],
    idle: Collection[Step],
) -> list[str]:
    """Entries for softmaxes or norms that match nothing where there are exponentials or roots."""
    found = []
    for kind, label, operation, primitives in _LAYERS_OF:
        named = [
            (spec, rule)
            for spec, rule in entries
            if any(isinstance(p, Kind) and p.basic & kind.basic for p in parts(spec))
            and not any(spec.matches(x, layers) for x in layers)
        ]
        eqn = suspects.lone(frame, primitives, idle) if named else None
        if eqn is not None:
            found.append(
                f"({named[0][0]!r}, {named[0][1]!r}) speaks of {label}, and there is none, but "
                f"`{eqn.primitive}` at {compat.source_line(eqn)} is an {operation} on the way of "
                "relevance that belongs to no known layer. Write it as jax.nn has it, or name the "
                "function around it with lrp.as_layer and an entry (lrp.call(name), ...).".replace(
                    "an root", "a root"
                )
            )
    return found


def _check_rules(
    steps: Sequence[Step],
    layers: Sequence[Layer],
    entries: Sequence[int | None],
    pairs: Sequence[tuple[Match, Rule]],
) -> None:
    """Refuse, before anything runs, what a rule cannot do at a layer that it serves."""
    for step, layer, entry in zip(steps, layers, entries, strict=True):
        place = f"{layer.path} ({layer.source})"
        if entry is not None:
            try:
                step.check(pairs[entry][1])
            except (ValueError, UnsupportedOperation) as error:
                raise type(error)(f"{place}: {error}") from error
        elif layer.kind <= kinds.Call and not pairs[0][1].gradient:
            raise UnsupportedOperation(
                f"{place}: the composite names this function with lrp.call, which keeps it whole, "
                "but no entry serves it here: add one that does."
            )


def _refuse_training_mode(step: Step, frame: Frame) -> None:
    if not step.mixes_examples:
        return
    batch = step.inputs[0].aval.shape[0]
    outputs = [a.aval.shape for a in frame.outvars if not is_literal(a)]
    if any(shape and shape[0] == batch for shape in outputs):
        raise ValueError(
            f"{step.name or 'a normalisation'} ({step.source}) takes its statistics over the "
            "batch: batch norm in training mode mixes examples. Explain the model in inference "
            "mode (use_running_average=True, train=False, or model.eval()). If the first axis is "
            "no batch, as in one series over time, explain a batch of one: jax.vmap(f) of x[None]."
        )


def _layers(
    steps: Sequence[Step], above: Sequence[frozenset[int]], parents: Sequence[frozenset[int]]
) -> list[Layer]:
    below: list[set[int]] = [set() for _ in steps]
    for index, ancestors in enumerate(above):
        for ancestor in ancestors:
            below[ancestor].add(index)
    heights: list[int] = []
    for index, step in enumerate(steps):
        tallest = max((heights[a] for a in above[index] if a < index), default=0)
        heights.append(tallest + int(KINDS[step.kind] <= Linear))
    top = max(heights, default=0)
    names = _paths(steps)
    return [
        Layer(
            index=index,
            path=names[index][1],
            name=names[index][0],
            kind=KINDS[step.kind],
            inputs=tuple(v.aval.shape for v in step.inputs),
            output=step.outputs[0].aval.shape,
            weights=step.weights,
            rule="",
            chosen_by="",
            depth=(max(heights[index], 1) - 1) / (top - 1) if top > 1 else 0.0,
            above=above[index],
            below=frozenset(below[index]),
            parents=tuple(sorted(parents[index])),
            source=step.source,
        )
        for index, step in enumerate(steps)
    ]


def _paths(steps: Sequence[Step]) -> list[tuple[str, str]]:
    """Names without the scope that all share and no weights have, and unique paths."""
    scopes = [s.name.split("/") for s in steps if not _owns_weights(s)]
    shared = (
        scopes[0][0]
        if scopes and all(len(p) > 1 and p[0] == scopes[0][0] for p in scopes)
        else None
    )
    if any(s.name.partition("/")[0] == shared for s in steps if _owns_weights(s)):
        shared = None
    leaves: dict[str, set[str]] = {}  # of several weights in one block, each names its layer
    for step in filter(_owns_weights, steps):
        leaves.setdefault(step.name, set()).add(step.weights[0])
    seen: dict[str, int] = {}
    found = []
    for step in steps:
        name = step.name
        if not _owns_weights(step) and shared is not None:
            name = name.partition("/")[2]
        elif _owns_weights(step) and len(leaves[name]) > 1:
            name = step.weights[0]
        count = seen[name] = seen.get(name, -1) + 1
        found.append((name, name if count == 0 else f"{name}:{count}"))
    return found


def _owns_weights(step: Step) -> bool:
    return step.named_by_weights and bool(step.weights) and not step.name.endswith(step.kind)


def _choose(
    layers: Sequence[Layer], composite: Composite
) -> tuple[list[int | None], list[str], list[str], list[str]]:
    """Each layer's entry, and which entries are shadowed, misspelled, or without any layer."""
    pairs = (*composite.entries, *composite.base)
    matched = [[spec.matches(x, layers) for x in layers] for spec, _ in pairs]
    chosen: list[int | None] = []
    for layer in layers:
        candidates = (
            entry
            for entry, (_, rule) in enumerate(pairs)
            if matched[entry][layer.index] and _serves(rule, layer)
        )
        chosen.append(next(candidates, None))
    shadowed, misspelled, unmatched = [], [], []
    for entry, (spec, rule) in enumerate(composite.entries):
        hits = [x for x in layers if matched[entry][x.index]]
        misspelled += [
            f"{glob!r} in the entry ({spec!r}, {rule!r}) matches no layer.{_nearest(glob, layers)}"
            for glob in globs(spec)
            if glob is not spec and not any(glob.matches(x, layers) for x in layers)
        ]
        able = [x for x in hits if _serves(rule, x)]
        if hits and not able:
            raise TypeError(
                f"the entry ({spec!r}, {rule!r}) speaks of {_listing(hits)}, which {rule!r} cannot "
                f"serve: it serves {rule.serves.label}"
                + (" with input and output of one shape." if rule.way is Way.UNCHANGED else ".")
            )
        if not hits and not isinstance(spec, Glob | Called):
            if entry < len(composite.entries) - composite.usual:
                unmatched.append(f"({spec!r}, {rule!r})")
        elif not hits:
            near = _nearest(spec, layers) if isinstance(spec, Glob) else _UNCALLED
            misspelled.append(f"({spec!r}, {rule!r}) matches no layer.{near}")
        elif entry not in chosen:
            shadowed.append(f"({spec!r}, {rule!r}) is shadowed by earlier entries.")
    return chosen, shadowed, misspelled, unmatched


def _serves(rule: Rule, layer: Layer) -> bool:
    by_contributions = rule.way is Way.CONTRIBUTIONS  # there are none of a called function
    if not layer.kind <= rule.serves or (by_contributions and layer.kind <= KINDS["Call"]):
        return False
    keeps_shape = all(shape == layer.output for shape in layer.inputs)
    return keeps_shape or rule.way is not Way.UNCHANGED or layer.kind <= BatchNorm | Bias


def _listing(layers: Sequence[Layer]) -> str:
    named = [f"{x.path} ({x.kind.label})" for x in layers[:3]]
    return ", ".join(named) + (", ..." if len(layers) > 3 else "")


_UNCALLED = (
    " No function of such a name is called on the way of relevance: see lrp.as_layer, which gives "
    "one a name."
)


def _nearest(spec: Glob, layers: Sequence[Layer]) -> str:
    near = difflib.get_close_matches(spec.pattern, [x.path for x in layers], n=3, cutoff=0.3)
    return f" The nearest names are {', '.join(near)}." if near else ""
