"""Networks rewritten by identities: what computes the same has the same relevance.

A twin is the flat jaxpr of a network in which some equations are written otherwise
(`identities.py`), take a detour, or stand behind a border (`detours.py`). Its values are those of
the network, and so must its relevance be, under rules that are linear in contributions, and under
all where the cut into layers is the same. A finding is one identity at one equation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

import lrp_jax as lrp
from lrp_jax._analysis import compat

from .checks import TARGETS, TOLERANCE, Finding, same, sensitivity
from .detours import BORDERS
from .identities import IDENTITIES, Site
from .networks import Program, all_ops, build


def linear(rule: lrp.Rule) -> lrp.Composite:
    """A rule for layers with weights, and sums without stabilisers: these act on every sum, and
    sums may be written in many ways."""
    return lrp.Composite(
        [(lrp.Linear, rule), (lrp.Merge | lrp.AvgPool | lrp.Bias, lrp.Norm(stabilizer=0.0))]
    )


EXACT: dict[str, Callable[[], Any]] = {
    "Zero": lrp.Zero, "AttnLRP": lrp.AttnLRP, "CPLRP": lrp.CPLRP,
}  # fmt: skip
EVERY: dict[str, Callable[[], Any]] = {
    **EXACT,
    "Epsilon": lambda: linear(lrp.Epsilon(0.1)),
    "ZPlus": lambda: linear(lrp.ZPlus(stabilizer=0.01)),
    "Gamma": lambda: linear(lrp.Gamma(0.5, stabilizer=0.01)),
    "AlphaBeta": lambda: linear(lrp.AlphaBeta(stabilizer=0.01)),
}
NAMES = (*IDENTITIES, *BORDERS)
KNOWN = Path(__file__).with_name("known_twins.txt")


class Rewriting(NamedTuple):
    """An identity, or a border, and the equations from `start` on and before `stop`."""

    name: str
    start: int
    stop: int


def run(closed: Any, values: Sequence[Any], custom: bool = False) -> list[Any]:
    """The results of a jaxpr, without its plain calls; with `custom`, without those that have
    derivatives of their own too."""
    jaxpr = compat.open_jaxpr(closed)
    env = dict(zip(jaxpr.invars, values, strict=True))
    env.update(zip(jaxpr.constvars, closed.consts, strict=True))
    for eqn in jaxpr.eqns:
        body = compat.plain_call(eqn)
        if body is None and custom:
            body = compat.custom_call(eqn)
        operands = [read(env, a) for a in eqn.invars]
        made = one(eqn)(*operands) if body is None else run(body, operands, custom)
        env.update(zip(eqn.outvars, made, strict=True))
    return [read(env, a) for a in jaxpr.outvars]


def read(env: Mapping[Any, Any], atom: Any) -> Any:
    return atom.val if compat.is_literal(atom) else env[atom]


def one(eqn: Any) -> Callable[..., list[Any]]:
    """An equation as a function of all its operands."""
    if compat.custom_call(eqn) is not None:
        own, invars = compat.by_position(eqn)
        return compat.as_function(jax.make_jaxpr(lambda: ())(), [own], invars, eqn.outvars)

    def function(*operands: Any) -> list[Any]:
        made = eqn.primitive.bind(*operands, **eqn.params)
        return list(made) if eqn.primitive.multiple_results else [made]

    return function


class Network:
    """A function of parameters and inputs as one flat jaxpr, with all values of an example."""

    def __init__(self, apply: Callable[[Any, Array], Array], params: Any, x: Any) -> None:
        leaves, self.tree = jax.tree.flatten((params, x))
        closed = jax.make_jaxpr(apply)(params, x)
        self.closed = jax.make_jaxpr(lambda *v: run(closed, v))(*leaves)
        self.jaxpr = compat.open_jaxpr(self.closed)
        self.values = dict(zip(self.jaxpr.constvars, self.closed.consts, strict=True))
        self.values.update(zip(self.jaxpr.invars, leaves, strict=True))
        self.explained = set(self.jaxpr.invars[-1:])
        self.readers: dict[Any, list[str]] = {}
        for eqn in self.jaxpr.eqns:
            made = one(eqn)(*(read(self.values, a) for a in eqn.invars))
            self.values.update(zip(eqn.outvars, made, strict=True))
            if any(not compat.is_literal(a) and a in self.explained for a in eqn.invars):
                self.explained.update(
                    v for v in eqn.outvars if np.issubdtype(v.aval.dtype, np.floating)
                )
            for a in eqn.invars:
                if not compat.is_literal(a):
                    self.readers.setdefault(a, []).append(eqn.primitive.name)
        needed = {a for a in self.jaxpr.outvars if not compat.is_literal(a)}
        self.live: set[int] = set()
        for i, eqn in reversed(list(enumerate(self.jaxpr.eqns))):
            if needed.intersection(eqn.outvars):
                needed |= {a for a in eqn.invars if not compat.is_literal(a)}
                if self.explained.intersection(eqn.outvars):
                    self.live.add(i)

    def site(self, index: int) -> Site:
        eqn = self.jaxpr.eqns[index]
        return Site(
            eqn=eqn,
            values=[np.asarray(read(self.values, a)) for a in eqn.invars],
            explained=[not compat.is_literal(a) and a in self.explained for a in eqn.invars],
            results=[np.asarray(self.values[v]) for v in eqn.outvars],
            as_it_is=one(eqn),
            feeds=self.readers.get(eqn.outvars[0], []),
        )

    def places(self, name: str) -> list[Rewriting]:
        """Where an identity may apply."""
        if name in BORDERS:
            return [Rewriting(name, i, i + 1) for i in sorted(self.live)]
        return [
            Rewriting(name, i, i + 1)
            for i in sorted(self.live)
            if not IDENTITIES[name].primitives
            or self.jaxpr.eqns[i].primitive.name in IDENTITIES[name].primitives
        ]

    def rewritten(self, rewritings: Sequence[Rewriting]) -> Callable[[Any, Array], Array]:
        """The network with some of its equations written otherwise; `Nothing` is raised when it
        is traced where an identity does not apply."""
        by_start = {r.start: r for r in rewritings}

        def apply(params: Any, x: Array) -> Array:
            env = dict(zip(self.jaxpr.constvars, self.closed.consts, strict=True))
            env.update(zip(self.jaxpr.invars, jax.tree.leaves((params, x)), strict=True))
            index = 0
            while index < len(self.jaxpr.eqns):
                rewriting = by_start.get(index)
                if rewriting is not None and rewriting.name in BORDERS:
                    self.wrapped(rewriting, env)
                    index = rewriting.stop
                    continue
                eqn = self.jaxpr.eqns[index]
                operands = [read(env, a) for a in eqn.invars]
                made = (
                    one(eqn)(*operands)
                    if rewriting is None
                    else self.otherwise(rewriting, operands)
                )
                env.update(zip(eqn.outvars, made, strict=True))
                index += 1
            return read(env, self.jaxpr.outvars[0])

        return apply

    def otherwise(self, rewriting: Rewriting, operands: Sequence[Any]) -> list[Any]:
        """The results of an equation by an identity."""
        site = self.site(rewriting.start)
        made = IDENTITIES[rewriting.name].rewrite(site, *operands)
        if made is None:
            raise Nothing(rewriting.name)
        results = made if isinstance(made, list | tuple) else [made]
        for result, var in zip(results, site.eqn.outvars, strict=True):
            if result.shape != var.aval.shape or result.dtype != var.aval.dtype:
                raise Nothing(f"{rewriting.name} makes {result.dtype}{result.shape}")
        return list(results)

    def wrapped(self, rewriting: Rewriting, env: dict[Any, Any]) -> None:
        """Some equations behind a border."""
        eqns = self.jaxpr.eqns[rewriting.start : rewriting.stop]
        made = {v for eqn in eqns for v in eqn.outvars}
        taken = list(
            dict.fromkeys(
                a for e in eqns for a in e.invars if not compat.is_literal(a) and a not in made
            )
        )
        later = [a for eqn in self.jaxpr.eqns[rewriting.stop :] for a in eqn.invars]
        wanted = {a for a in (*later, *self.jaxpr.outvars) if not compat.is_literal(a)}
        given = [v for eqn in eqns for v in eqn.outvars if v in wanted]

        def body(*values: Any) -> list[Any]:
            inner = dict(zip(taken, values, strict=True))
            for eqn in eqns:
                inner.update(
                    zip(eqn.outvars, one(eqn)(*(read(inner, a) for a in eqn.invars)), strict=True)
                )
            return [inner[v] for v in given]

        results = BORDERS[rewriting.name](body)(*(jax.numpy.asarray(env[a]) for a in taken))
        env.update(zip(given, results, strict=True))


class Different(Finding):
    """A twin whose relevance is not that of its network."""

    def __init__(self, text: str, rewritings: Sequence[Rewriting], composite: str) -> None:
        super().__init__(text)
        self.rewritings, self.composite = rewritings, composite


class Nothing(Exception):
    """An identity does not apply where it was tried."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """One network and its relevance under each composite, computed when it is asked for."""

    network: Network
    params: Any
    x: Any
    target: Any
    apply: Callable[[Any, Array], Array]
    found: dict[str, Array | None]

    @classmethod
    def of(cls, program: Program) -> Comparison:
        apply, params, x = build(program)
        x = jax.numpy.asarray(x)
        target = TARGETS[list(TARGETS)[program.target % len(TARGETS)]]
        return cls(Network(apply, params, x), params, x, target, apply, {})

    def relevance(self, apply: Callable[[Any, Array], Array], composite: str, x: Any) -> Array:
        explain = lrp.relevance(apply, EVERY[composite]())
        closed = jax.make_jaxpr(lambda p, x: explain(p, x, target=self.target))(self.params, x)
        return run(closed, jax.tree.leaves((self.params, x)), custom=True)[0]

    def expected(self, composite: str) -> Array | None:
        """Relevance of the network; None where it has none."""
        if composite not in self.found:
            try:
                relevance = self.relevance(self.apply, composite, self.x)
                usable = bool(np.isfinite(relevance).all())
            except (lrp.UnsupportedOperation, ValueError):
                usable = False
            self.found[composite] = relevance if usable else None
        return self.found[composite]

    def is_equal(self, twin: Callable[[Any, Array], Array]) -> bool:
        """Whether a twin applies, and is the same function."""
        try:
            closed = jax.make_jaxpr(twin)(self.params, self.x)
        except Exception:
            return False
        (actual,) = run(closed, jax.tree.leaves((self.params, self.x)), custom=True)
        (expected,) = (self.network.values[v] for v in self.network.jaxpr.outvars)
        room = 1e-9 * np.abs(expected).max() + 1e-30
        return bool(np.abs(actual - expected).max() <= room)

    def check(self, rewritings: Sequence[Rewriting], composite: str) -> None:
        """A twin has the relevance of the network, or is refused by name.

        Raises:
            Finding: naming the identities, the composite and the equations.
        """
        expected = self.expected(composite)
        if expected is None:
            return
        what = "; ".join(r.name for r in rewritings)
        where = ", ".join(self.network.jaxpr.eqns[r.start].primitive.name for r in rewritings)
        twin = self.network.rewritten(rewritings)
        try:
            actual = self.relevance(twin, composite, self.x)
        except lrp.UnsupportedOperation:
            return
        except Exception as error:
            text = f"{what} at {where}, {composite}: {error!r}"
            raise Different(text, rewritings, composite) from error

        def explain(x: Array) -> Array:
            return self.relevance(self.apply, composite, x)

        spread = sensitivity(explain, self.x, "float64")
        try:
            message = f"{what} at {where}, {composite}"
            same(message, actual, expected, TOLERANCE["float64"], spread)
        except Finding as finding:
            raise Different(str(finding), rewritings, composite) from None

    def checks(self, rewritings: Sequence[Rewriting], composites: Sequence[str]) -> None:
        """`check` under some composites; what several identities do is shrunk to one of them."""
        for composite in composites:
            try:
                self.check(rewritings, composite)
            except Finding:
                for single in rewritings if len(rewritings) > 1 else ():
                    self.check([single], composite)
                raise

    def composites(self, rewritings: Sequence[Rewriting]) -> tuple[str, ...]:
        """Those that see no difference."""
        exact = any(r.name in IDENTITIES and IDENTITIES[r.name].exact for r in rewritings)
        return tuple(EXACT if exact else EVERY)


def is_usable(program: Program) -> bool:
    """Whether rounding leaves the values of twins alike."""
    return program.dtype == "float64" and all(o.name != "cast" for o in all_ops(program.ops))


def draw_twins(
    network: Comparison, rng: np.random.Generator, count: int, names: Sequence[str]
) -> Iterator[list[Rewriting]]:
    """Random twins of a network, of one to three rewritings each."""
    live = sorted(network.network.live)
    if not live:
        return
    tries = 0
    while count and tries < 40:
        tries += 1
        chosen: list[Rewriting] = []
        for name in rng.choice(np.asarray(names), int(rng.integers(1, 4))):
            places = network.network.places(str(name))
            if not places:
                continue
            place = places[int(rng.integers(len(places)))]
            if name in BORDERS:
                stop = min(place.start + int(rng.integers(1, 8)), len(network.network.jaxpr.eqns))
                place = place._replace(stop=stop)
            free = all(place.stop <= r.start or r.stop <= place.start for r in chosen)
            if free and network.is_equal(network.network.rewritten([place])):
                chosen.append(place)
        if chosen:
            count -= 1
            yield chosen


def known() -> frozenset[str]:
    """Identities that are known to make a difference somewhere."""
    lines = KNOWN.read_text().splitlines() if KNOWN.exists() else []
    return frozenset(line for line in lines if line and not line.startswith("#"))


def check_twins(program: Program, count: int, names: Sequence[str] | None = None) -> None:
    """Random twins of a program's network, each under two composites.

    Raises:
        Finding: naming the identity, the equation and the composite.
    """
    if not is_usable(program):
        return
    names = [n for n in NAMES if n not in known()] if names is None else names
    rng = np.random.default_rng((program.seed, 7))
    network = Comparison.of(program)
    for rewritings in draw_twins(network, rng, count, names):
        composites = network.composites(rewritings)
        network.checks(rewritings, list(rng.choice(composites, 2, replace=False)))


def failure_like(found: Different) -> Callable[[Program], Exception | None]:
    """For shrinking: what an identity that made a difference does anywhere in a program."""
    name, composite = found.rewritings[0].name, found.composite

    def failure(program: Program) -> Exception | None:
        try:
            network = Comparison.of(program)
            for place in network.network.places(name)[:40]:
                if network.is_equal(network.network.rewritten([place])):
                    network.check([place], composite)
        except Finding as finding:
            return finding
        return None

    return failure
