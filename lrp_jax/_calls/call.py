"""One kind of call of an explained function: what is known of it, and how it is evaluated."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from .. import targets
from .._analysis.ids import is_integer
from .._analysis.trace import Traced
from .._layers.carriers import Ids
from .._layers.lookups import carrier_dtype
from .._layers.step import Frame
from .._propagation.forms import Forms, assign
from .._propagation.loop import Program, Taps, run
from ..composites import Composite
from ..targets.examples import Reading
from .resolve import Resolved
from .rows import Rows


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

    @property
    def carrier(self) -> Any:
        """The dtype of the relevance of explained integers."""
        return carrier_dtype(self.frame)

    @property
    def explains_integers(self) -> bool:
        """Whether an explained leaf holds integers."""
        return any(map(is_integer, (self.frame.invars[i] for i in self.explained)))

    @cached_property
    def rows(self) -> Rows:
        """Which rows of tables explained integers, and numbers of the code, ask for."""
        ids = [i for i in self.explained if is_integer(self.frame.invars[i])]
        return Rows(self.frame, ids, self.traced.names)

    def explained_values(self, leaves: Sequence[Any]) -> list[Any]:
        """What relevance travels to: the explained leaves, or zeros beside explained integers."""
        return [
            jnp.zeros(jnp.shape(leaf), self.carrier) if _is_integer(leaf) else leaf
            for leaf in (leaves[i] for i in self.explained)
        ]

    def forms(self, output: str) -> Forms:
        """The forms of relevance, given what arrives at the outputs: "R" or "C"."""
        rules = self.composite.rules
        chosen = {step: rules[entry] for step, entry in self.resolved.entries.items()}
        outputs = [output] * len(self.frame.outputs)
        if self.composite.gradient:
            return assign(self.frame, None, ["C"] * len(outputs))
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
            self.carrier,
            self.resolved.held,
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
            leaf = merged[position]
            merged[position] = Ids(leaf, value) if _is_integer(leaf) else value
        return merged

    def pulled(
        self, form: str, composite: Composite, leaves: Sequence[Any]
    ) -> tuple[Any, Callable[[Any], list[Any]], Any]:
        """Output, pullback to the explained leaves, auxiliary output."""

        def explain(explained: list[Any]) -> tuple[Any, Any]:
            merged = self.with_explained(leaves, explained)
            return self.evaluate(form, composite, merged)[:2]

        explained = self.explained_values(leaves)
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


def _is_integer(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jnp.integer))


def _first(pullback: Callable[[Any], tuple[Any]], cotangent: Any) -> Any:
    return pullback(cotangent)[0]
