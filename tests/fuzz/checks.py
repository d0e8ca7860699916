"""What holds for the explanation of every network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import lrp_jax as lrp

from .networks import BATCH, CLASSES, Program, all_ops, build, is_linear, precision

COMPOSITES: dict[str, Callable[[], Any]] = {
    "Zero": lambda: lrp.Composite(
        [(lrp.Linear | lrp.AvgPool | lrp.Merge | lrp.BatchNorm | lrp.Bias, lrp.Zero())]
    ),
    "Epsilon": lambda: lrp.Epsilon(0.1),
    "Epsilon, distribute": lambda: lrp.Epsilon(0.1, bias="distribute"),
    "Epsilon, ignore": lambda: lrp.Epsilon(0.1, bias="ignore"),
    "Gamma": lambda: lrp.Gamma(0.5),
    "Gamma, distribute": lambda: lrp.Gamma(0.5, stabilizer=0.1, bias="distribute"),
    "ZPlus": lrp.ZPlus,
    "ZPlus, ignore": lambda: lrp.ZPlus(bias="ignore"),
    "AlphaBeta": lrp.AlphaBeta,
    "AlphaBeta, distribute": lambda: lrp.AlphaBeta(1.5, 0.5, bias="distribute"),
    "WSquare": lrp.WSquare,
    "WSquare, distribute": lambda: lrp.WSquare(bias="distribute"),
    "Flat": lrp.Flat,
    "Norm": lambda: lrp.Norm(0.1),
    "Relative": lrp.Relative,
    "ZBox": lambda: lrp.ZBox(-4.0, 4.0),
    "EpsilonPlus": lrp.EpsilonPlus,
    "EpsilonPlusFlat": lrp.EpsilonPlusFlat,
    "EpsilonAlpha2Beta1Flat": lrp.EpsilonAlpha2Beta1Flat,
    "EpsilonGammaBox": lambda: lrp.EpsilonGammaBox(low=-4.0, high=4.0),
    "ExcitationBackprop": lrp.ExcitationBackprop,
    "DeepTaylor": lambda: lrp.DeepTaylor(low=-4.0, high=4.0),
    "LRPOverview": lambda: lrp.LRPOverview(low=-4.0, high=4.0),
    "AttnLRP": lrp.AttnLRP,
    "AttnLRP, gamma": lambda: lrp.AttnLRP(linear=lrp.Gamma(0.05)),
    "CPLRP": lrp.CPLRP,
    "guided_backprop": lrp.composites.guided_backprop,
    "deconvnet": lrp.composites.deconvnet,
    "beta_smooth": lrp.composites.beta_smooth,
    "mixed": lambda: lrp.Composite(
        [
            (lrp.first(lrp.Linear), lrp.WSquare(bias="distribute")),
            (lrp.depth(0.0, 0.4) & lrp.Linear, lrp.AlphaBeta(bias="ignore")),
            (lrp.last(lrp.Linear), lrp.Zero()),
            (lrp.Linear, lrp.Gamma(0.2)),
            (lrp.Merge | lrp.AvgPool, lrp.Flat()),
            (lrp.Activation, lrp.Pass()),
            (lrp.Normalization, lrp.Pass()),
        ]
    ),
    "sums by sign": lambda: lrp.Composite(
        [(lrp.Merge | lrp.AvgPool, lrp.AlphaBeta()), (lrp.Linear, lrp.Gamma(0.2))]
    ),
    "live": lambda: lrp.Composite(
        [
            (lrp.Activation | lrp.Softmax | lrp.Normalization | lrp.Bilinear, lrp.Taylor()),
            (lrp.Linear, lrp.Epsilon(0.1)),
        ]
    ),
}
NAMES = tuple(COMPOSITES)
PARTS_OF_SUMS = ("mixed", "sums by sign")
"""Composites that ask for the single contributions of sums, which complex numbers do not tell."""
GRADIENTS = ("guided_backprop", "deconvnet", "beta_smooth")
TARGETS: dict[str, Any] = {
    "largest": None,
    "class": 1,
    "classes": np.arange(BATCH) % CLASSES,
    "weighting": np.cos(np.arange(BATCH * CLASSES)).reshape(BATCH, CLASSES),
    "start": lambda output: output * jnp.cos(1.0 + jnp.arange(CLASSES)).astype(output.dtype),
}
TOLERANCE = {"float64": 1e-6, "float32": 1e-3, "bfloat16": 0.1}
ROUNDING = {"float64": 1e-10, "float32": 1e-5, "bfloat16": 0.1}


class Finding(AssertionError):
    """A property that does not hold."""


def composite_of(program: Program) -> tuple[str, Any]:
    """The name of a program's composite, and the composite."""
    name = NAMES[program.composite % len(NAMES)]
    if program.composite % 2 and is_linear(program):
        name = "Zero"
    elif name in PARTS_OF_SUMS and any(o.name == "spectral" for o in all_ops(program.ops)):
        name = "Norm"
    return name, COMPOSITES[name]()


def check(program: Program, compiler_options: dict[str, bool] | None = None) -> None:
    """Everything that has to hold for a program.

    Args:
        program: the network, its composite and its target.
        compiler_options: for XLA.

    Raises:
        Finding: naming what does not.
    """
    apply, params, x = build(program)
    name, composite = composite_of(program)
    target = TARGETS[list(TARGETS)[program.target % len(TARGETS)]]
    explain = lrp.value_and_relevance(apply, composite)
    ledger_of: Any = None
    if name not in GRADIENTS and program.seed % 4 == 0:
        ledger_of = lrp.conservation(apply, composite)

    def everything(params: Any, x: Array) -> dict[str, Any]:
        output, relevance = explain(params, x, target=target)
        found = {"plain": apply(params, x), "output": output, "relevance": relevance}
        if ledger_of is not None:
            found["ledger"] = ledger_of(params, x, target=target)
        if program.seed % 8 == 1 and not any(o.name == "grouped" for o in all_ops(program.ops)):
            found["one by one"] = one_by_one(params, x)
        return found

    def one_by_one(params: Any, x: Array) -> Array:
        if callable(target) or target is None or np.ndim(target) == 0:
            given: Any = np.zeros(BATCH)
            make = lambda t: target  # noqa: E731
        else:
            given, make = target, lambda t: t[None]
        single = lambda x, t: explain(params, x[None], target=make(t))[1][0]  # noqa: E731
        return jax.vmap(single)(x, jnp.asarray(given))

    found = jax.jit(everything, compiler_options=compiler_options)(params, x)
    output, relevance = found["output"], found["relevance"]
    tolerance = TOLERANCE[precision(program)]
    if not np.isfinite(found["plain"]).all():
        return
    same("the output is that of the function", output, found["plain"], ROUNDING[precision(program)])
    if relevance.shape != x.shape or relevance.dtype != x.dtype:
        raise Finding(f"relevance is {relevance.dtype}{relevance.shape}")
    if not np.isfinite(relevance).all():
        if not np.isfinite(jax.jit(jax.grad(lambda x: apply(params, x).sum()))(x)).all():
            return  # nor has the function a gradient: XLA's x - max(x) divides 0 by 0
        if is_too_large(program, target):
            return
        raise Finding("relevance is not finite")
    spread = sensitivity(lambda x: explain(params, x, target=target)[1], x, precision(program))
    if "one by one" in found:
        same("each example by itself", found["one by one"], relevance, tolerance, spread)
    elif program.seed % 32 == 3:
        eager = explain(params, x, target=target)[1]
        same("operation by operation", eager, relevance, tolerance, spread)
    if ledger_of is not None:
        check_ledger(found["ledger"], relevance, program, spread)
    if name == "Zero" and is_linear(program):
        expected = gradient_times_input(apply, params, x, target)
        same("LRP-0 is gradient x input", relevance, expected, tolerance, spread)
    if program.seed % 4 == 2:
        check_plan(lrp.plan(apply, composite)(params, x))


def is_too_large(program: Program, target: Any) -> bool:
    """Whether relevance, computed in float64, is not a number of the program's dtype."""
    apply, params, x = build(replace(program, dtype="float64"))
    relevance = lrp.relevance(apply, composite_of(program)[1])(params, x, target=target)
    return bool(np.abs(relevance).max() > float(jnp.finfo(precision(program)).max))


def check_plan(plan: lrp.Plan) -> None:
    """A plan goes to JSON and back, and its layers have names of their own."""
    again = lrp.Plan.from_json(plan.to_json())
    if again != plan or str(again) != str(plan):
        raise Finding("the plan does not round-trip through JSON")
    paths = [layer.path for layer in plan.layers]
    if len({*paths}) < len(paths):
        raise Finding(f"two layers have one path: {paths}")


CONSERVING = ("Epsilon", "Gamma", "ZPlus", "AlphaBeta", "WSquare", "Flat", "Norm")
COUNTED = ("Dense", "Conv", "ConvTranspose", "Linear", "MatMul", "AvgPool", "Merge")


def check_ledger(
    ledger: Any, relevance: Array, program: Program, spread: Callable[[], float]
) -> None:
    """The ledger is finite, ends in the relevance of the input, and no layer loses any unseen."""
    table = np.asarray(ledger.table, np.float64)
    if not np.isfinite(table).all():
        raise Finding(f"the ledger is not finite:\n{ledger}")
    scale = max(np.abs(np.asarray(relevance, np.float64)).sum(), np.abs(table).max(initial=0))
    received = np.asarray(relevance, np.float64).sum()
    tolerance = TOLERANCE[precision(program)]
    room = tolerance * scale + 1e-30
    missing = abs(received - float(ledger.received))
    if missing > room and missing > room + spread():
        raise Finding(f"the ledger received {ledger.received}, the input {received}\n{ledger}")
    if precision(program) != "float64":  # large numbers of both signs make a small sum
        return
    for path, kind, rule, row in zip(ledger.layers, ledger.kinds, ledger.rules, table, strict=True):
        if rule.startswith(CONSERVING) and kind in COUNTED and abs(row[5]) > room:
            raise Finding(f"{path} loses {row[5]} that is not accounted for:\n{ledger}")


def gradient_times_input(apply: Any, params: Any, x: Array, target: Any) -> Array:
    """What LRP-0 of a piecewise linear network is."""
    output, pullback = jax.vjp(jax.jit(lambda x: apply(params, x)), x)
    start = lrp.targets.start(output, target)
    weights = jnp.where(output == 0, 0, start / jnp.where(output == 0, 1, output))
    return x * pullback(weights)[0]


def same(
    what: str,
    actual: Array,
    expected: Array,
    tolerance: float,
    spread: Callable[[], float] = lambda: 0.0,
) -> None:
    """Equal up to a fraction of the largest number, or up to what rounding can do."""
    a, b = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if a.shape != b.shape:
        raise Finding(f"{what}: shape {a.shape} for {b.shape}")
    difference, room = np.abs(a - b).max(initial=0), tolerance * np.abs(b).max(initial=0) + 1e-30
    if not difference <= room and not difference <= room + spread():
        raise Finding(f"{what}: off by {difference:.3g} of {np.abs(b).max():.3g}")


def sensitivity(explain: Callable[[Array], Array], x: Array, dtype: str) -> Callable[[], float]:
    """How far relevance moves when the input changes by a few roundings (for a small denominator
    far, and nothing can be said)."""

    def moved() -> float:
        rng = np.random.default_rng(0)
        size = 4 * float(jnp.finfo(dtype).eps)
        base = np.asarray(explain(x), np.float64)
        changes = (x * (1 + size * rng.standard_normal(x.shape)).astype(x.dtype) for _ in range(6))
        return 100 * max(np.abs(np.asarray(explain(c), np.float64) - base).max() for c in changes)

    return moved
