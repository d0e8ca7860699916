"""What a guest is, and everything that has to hold for it."""

from __future__ import annotations

import importlib.metadata
import re
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import lrp_jax as lrp
import lrp_jax.baselines

from . import oracle
from .nesting import apart, factored
from .tape import record


class Case(NamedTuple):
    """A model ready to be explained as `function(params, x)`; the last axis is explained."""

    function: Callable[[Any, Any], Array]
    params: Any
    x: Array


AS_USUAL = {"xla_backend_optimization_level": 3}
"""What is timed is compiled as it is for users, whatever the rest of a run does to be quick."""
LOW, HIGH, SIZE = -3.0, 3.0, 1e-6
LINEAR_AND_NORM = lrp.Linear | lrp.BatchNorm
_E, _Z = oracle.epsilon(SIZE), oracle.alpha_beta(1, 0, SIZE)
_A, _G = oracle.alpha_beta(2, 1, SIZE), oracle.gamma(0.25, SIZE)
COMPOSITES: dict[str, tuple[Any, Any]] = {
    "LRP-0": (lrp.Composite([(LINEAR_AND_NORM, lrp.Zero())]), False),
    "AttnLRP": (lrp.AttnLRP(), False),
    "CP-LRP": (lrp.CPLRP(), True),
    "z+": (lrp.ZPlus(), oracle.Rules(_Z, _Z)),
    "EpsilonPlus": (lrp.EpsilonPlus(), oracle.Rules(_Z, _E)),
    "EpsilonGammaBox": (lrp.EpsilonGammaBox(LOW, HIGH), oracle.Rules(_G, _E, (LOW, HIGH))),
    "EpsilonAlpha2Beta1": (lrp.EpsilonAlpha2Beta1(), oracle.Rules(_A, _E)),
}
"""For each name a composite, and what the oracle has to know to do the same."""
ATTENTION = ("LRP-0", "AttnLRP", "CP-LRP")
IMAGES = ("LRP-0", "z+", "EpsilonPlus", "EpsilonGammaBox", "EpsilonAlpha2Beta1")


@dataclass(frozen=True)
class Guest:
    """A published family of models.

    Attributes:
        name: of the family.
        package: the distribution that it comes from.
        build: makes it small, with random weights; imports the package.
        composites: names of `COMPOSITES` under which it is held against the oracle.
        tolerance: of relevance, as a fraction of the largest; what the model computes in float32
            whatever it is given allows no smaller one.
        loops: whether it has loops, whose layers the plan counts once.
        constants: whether constants outside of layers take relevance (class tokens, masks).
        refused: what the plan says of it, where it has to be refused.
        explained: names of `COMPOSITES` under which it is explained too, without the oracle.
        published: whether it has its published width and depth, and takes long.
    """

    name: str
    package: str
    build: Callable[[], Case]
    composites: tuple[str, ...] = ATTENTION
    tolerance: float = 1e-9
    loops: bool = False
    constants: bool = True
    refused: str = ""
    explained: tuple[str, ...] = ()
    published: bool = False


@dataclass(frozen=True)
class Report:
    """What was found of a guest.

    Attributes:
        recognised: how many layers of each kind the plan has.
        differences: for each composite, how far relevance is from the oracle's, relatively.
        cost: operations of the explanation for each of the gradient.
        first: processor time to trace, lower and compile it for each of the gradient's.
        failures: what does not hold.
        refused: what the plan says of it, if it has to be refused and is.
        explained: the composites that it is explained under without the oracle.
    """

    name: str
    package: str
    version: str
    recognised: dict[str, int]
    differences: dict[str, float]
    cost: float
    first: float
    failures: tuple[str, ...]
    refused: str = ""
    explained: tuple[str, ...] = ()


def examine(guest: Guest, priced: bool = True) -> Report:
    """Everything that has to hold for a guest.

    Args:
        guest: whose package is installed.
        priced: whether to measure what an explanation costs.
    """
    case = guest.build()
    version = importlib.metadata.version(guest.package)
    if guest.refused:
        return _refused(guest, case, version)
    output = jax.jit(case.function)(case.params, case.x)
    target = int(jnp.argmax(output.reshape(-1, output.shape[-1])[0]))
    failures, differences = [], {}
    recognised: Counter[str] = Counter()
    for name in (*guest.explained, *guest.composites):
        try:
            plan = lrp.plan(case.function, COMPOSITES[name][0])(case.params, case.x)
            recognised = Counter(layer.kind.label for layer in plan.layers)
        except Exception as error:
            failures.append(f"{name}: {type(error).__name__}: {str(error)[:300]}")
    found = {} if failures else _found(guest, case, output, target)
    expected = _expected(guest, case, output, target)
    for name in (*guest.explained, *guest.composites) if found else ():
        made, relevance = found[name]
        if not _close(made, output, guest.tolerance):
            failures.append(f"{name}: the output is another one")
        if not (jnp.isfinite(relevance).all() and jnp.any(relevance)):
            failures.append(f"{name}: relevance is not finite, or nothing")
        if name in guest.explained:
            continue
        size = float(jnp.abs(expected[name]).max())
        off = float(jnp.abs(relevance - expected[name]).max())
        differences[name] = off / max(size, 1e-300)
        if not differences[name] <= guest.tolerance or size == 0:
            failures.append(f"{name}: off by {differences[name]:.2g} of {size:.2g}")
    failures += _miscounted(guest, case, recognised)
    if found:
        failures += _ledger(guest, found["ledger"])
    cost = first = 0.0
    if priced:
        cost, first = prices(case, COMPOSITES[guest.composites[-1]][0], target)
    return Report(
        guest.name, guest.package, version, dict(recognised), differences, cost, first,
        tuple(failures), explained=guest.explained,
    )  # fmt: skip


def _refused(guest: Guest, case: Case, version: str) -> Report:
    said, failures = "nothing", []
    try:
        lrp.plan(case.function, COMPOSITES[guest.composites[0]][0])(case.params, case.x)
    except lrp.UnsupportedOperation as error:
        said = str(error)
    if guest.refused not in said:
        failures.append(f"not refused by {guest.refused!r}: the plan says {said[:300]}")
    return Report(
        guest.name, guest.package, version, {}, {}, 0.0, 0.0, tuple(failures), guest.refused
    )


def _found(guest: Guest, case: Case, output: Array, target: int) -> dict[str, Any]:
    """Output and relevance under each composite, and a ledger: one program, quick to compile."""

    def all_of_it(params: Any, x: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in (*guest.explained, *guest.composites):
            explain = lrp.value_and_relevance(case.function, COMPOSITES[name][0])
            found[name] = explain(params, x, target=target)
        ledger = lrp.conservation(case.function, COMPOSITES[guest.composites[-1]][0])
        return {**found, "ledger": ledger(params, x, target=target)}

    return jax.jit(all_of_it)(case.params, case.x)


_NEEDS_VALUES = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)
"""Raised by loops and branches that values decide, and where ids are put in places."""


def _expected(guest: Guest, case: Case, output: Array, target: int) -> dict[str, Any]:
    """What the oracle says."""
    chosen = jnp.zeros_like(output).at[..., target].set(1)

    def walk(params: Any, x: Any) -> dict[str, Any]:
        tape = apart(factored(record(case.function, params, x)))
        found: dict[Any, Any] = {}
        for name in guest.composites:
            how = COMPOSITES[name][1]
            if isinstance(how, oracle.Rules):
                found[name] = oracle.Images(tape, how).run(chosen * output)
            else:
                found[name] = oracle.attention_relevance(tape, chosen, how)
        return found

    try:
        return jax.jit(walk)(case.params, case.x)
    except _NEEDS_VALUES:
        return walk(case.params, case.x)


def _close(a: Array, b: Array, tolerance: float) -> bool:
    return bool(jnp.abs(a - b).max() <= tolerance * jnp.abs(b).max())


def _miscounted(guest: Guest, case: Case, recognised: Counter[str]) -> list[str]:
    if guest.loops or not recognised:
        return []
    found = Counter(recognised)
    found["Conv"] += found.pop("ConvTranspose", 0)
    found["MatMul"] += found.pop("Attention", 0)
    counts: dict[str, Counter[str]] = {}

    def count(params: Any, x: Any) -> None:
        counts["tape"] = oracle.counted(record(case.function, params, x))

    try:
        jax.eval_shape(count, case.params, case.x)
    except _NEEDS_VALUES:
        count(case.params, case.x)
    except Exception as error:
        return [f"counts: {type(error).__name__}: {str(error)[:200]}"]
    return [
        f"{found[kind]} layers of kind {kind} for {number}"
        for kind, number in counts["tape"].items()
        if kind != "Merge" and found[kind] != number
    ]


CONSERVING = ("Dense", "Conv", "ConvTranspose", "MatMul", "AvgPool", "Merge", "Product")


def _ledger(guest: Guest, ledger: Any) -> list[str]:
    name = guest.composites[-1]
    table = np.asarray(ledger.table)
    if not np.isfinite(table).all():
        return ["ledger: not finite"]
    room = max(guest.tolerance, 1e-7) * max(np.abs(table).max(), abs(float(ledger.start)))
    failures = []
    if not guest.constants and abs(float(ledger.elsewhere)) > room * len(table):
        failures.append(
            f"ledger: {float(ledger.elsewhere):.2g} of {float(ledger.start):.2g} elsewhere"
        )
    if name != "EpsilonAlpha2Beta1":
        for path, kind, row in zip(ledger.layers, ledger.kinds, table, strict=True):
            if kind in CONSERVING and abs(row[5]) > room:
                failures.append(f"ledger: {path} loses {row[5]:.2g} by no rule")
    return failures[:3]


def prices(case: Case, composite: Any, target: int) -> tuple[float, float]:
    """Operations, and the time of the first call, of an explanation for each of the gradient."""
    function, params, x = case
    explain = lrp.relevance(function, composite)
    gradient = lrp.baselines.gradient(function)
    found = [
        _first(lambda p, x, how=how: how(p, x, target=target), params, x)
        for how in (explain, gradient)
    ]
    (flops, seconds), (flops_of_gradient, seconds_of_gradient) = found
    return flops / flops_of_gradient, seconds / seconds_of_gradient


def _first(function: Callable[..., Any], params: Any, x: Any) -> tuple[float, float]:
    begin = time.process_time()  # what else the machine does is not counted
    compiled = jax.jit(function).lower(params, x).compile(AS_USUAL)
    seconds = time.process_time() - begin
    cost: Any = compiled.cost_analysis()
    return float((cost[0] if isinstance(cost, list) else cost)["flops"]), seconds


# -- Weights --------------------------------------------------------------------------------------

_FILLINGS: tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...] = (
    (r"var", lambda noise: 0.5 + np.abs(noise)),
    (r"mean", lambda noise: 0.4 * noise),
    (r"(scale|gamma|lambda)$", lambda noise: 1 + 0.3 * noise),
    (r"(norm|ln|bn)[^/]*/weight$", lambda noise: 1 + 0.3 * noise),
    (r"(bias|beta|\bb|offset)$", lambda noise: 0.3 * noise),
    (r"embed|token|position", lambda noise: 0.5 * noise),
)


def filled(params: Any, name: str = "") -> Any:
    """Random numbers for every floating leaf: kernels scaled by their fan-in, and, unlike an
    initialiser, biases, scales and statistics too.

    Args:
        params: a tree of arrays, or of shapes.
        name: gives the seed.
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))

    def leaf(path: Any, value: Any) -> Any:
        if not jnp.issubdtype(getattr(value, "dtype", int), jnp.floating):
            return value
        place = re.sub(r"[^a-z_0-9]+", "/", jax.tree_util.keystr(path).lower()).strip("/")
        noise = rng.standard_normal(value.shape)
        for pattern, fill in _FILLINGS:
            if re.search(pattern, place):
                return jnp.asarray(fill(noise))
        depthwise = len(value.shape) == 4 and value.shape[-1] == 1
        inputs = np.prod(value.shape[: 2 if depthwise else -1])
        return jnp.asarray(noise * np.sqrt(1.5 / max(1, inputs)))

    return jax.tree_util.tree_map_with_path(leaf, params)


def drawn(name: str, *shape: int, scale: float = 1.0) -> Array:
    """A random input."""
    rng = np.random.default_rng(zlib.crc32(name.encode()) + 1)
    return jnp.asarray(scale * rng.standard_normal(shape))


def ids(name: str, *shape: int, size: int, low: int = 3) -> Array:
    """Random token ids, none of the special ones."""
    rng = np.random.default_rng(zlib.crc32(name.encode()) + 1)
    return jnp.asarray(rng.integers(low, size, shape))
