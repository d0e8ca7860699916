"""The protocol of layers: what every family says of itself. Frozen records, no arrays.

A family is a subclass of `Step` in a file of its own. It recognises itself in a `Reading` of a
graph; the forms and the loop ask for its `backward` pass; the plan and the ledger read its fields.
"""

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Self

import jax

from .._analysis import compat
from .._analysis.compat import Equation, Var

SOFTMAX = 3
"""How much a softmax looks like a gate."""


class UnsupportedOperation(NotImplementedError):
    """An operation between input and output through which relevance has no rule."""


class Way(enum.Enum):
    """What a rule does with a layer: the one thing about a rule that families ask for."""

    CONTRIBUTIONS = "shares relevance among contributions, by `terms`"
    PROPORTION = "shares it in proportion to contributions: the layer's own gradient of R / S(z)"
    OWN = "computes relevance of a layer's input by itself, by `input_relevance`"
    UNCHANGED = "hands relevance on as it is"
    IDENTITY = "is that of f(x) = (f(x) / x) x: the factor, or a statistic, is a constant"
    FUNCTION = "is the function's own gradient, with `shares` of it for its operands"
    NOTHING = "hands nothing on: what the layer makes is a constant of the explanation"


class Backward(NamedTuple):
    """A backward pass: the form that it makes for the inputs, and the outputs that carry it.

    Attributes:
        makes: "R" or "C".
        outputs: from a visit to the values of the step's outputs, whose vjp is the rule.
        multiplies: whether it reads multipliers only.
    """

    makes: str
    outputs: Callable[[Any], list[Any]]
    multiplies: bool = False


class WeightedMean(NamedTuple):
    """A product of weights and values.

    Attributes:
        weights: the input that holds the weights.
        summed: the axes of the weights that are summed over.
        features: the axes of the output that hold features of the values.
    """

    weights: int
    summed: tuple[int, ...]
    features: range


@dataclass(frozen=True, eq=False)
class Place:
    """Where in an evaluation a step stands; it holds no values, so backward passes may keep it.

    Attributes:
        step: the step itself.
        out: the form of what arrives at the outputs.
        exposed: whether a backward pass may start here.
        parameters: what the constants' cotangents are: the "multipliers" of the parameters, the
            relevance that goes through "zeros" among them, or nothing.
        part: from (equations, invars, outvars) to a function, each operation in the form that suits
            the platform.
        held: the positions of inputs that are constants of the explanation.
    """

    step: Any
    out: str
    exposed: bool
    parameters: str
    part: Callable[[Sequence[Equation], Sequence[Var], Sequence[Any]], Callable[..., list[Any]]]
    held: frozenset[int] = frozenset()

    def native(self, *values: Any) -> list[Any]:
        """The step's own computation, from values of its inputs and constants."""
        step = self.step
        return self.part(step.eqns, [*step.inputs, *step.constants], step.outputs)(*values)


@dataclass(frozen=True, eq=False)
class Visit:
    """One evaluation of a step by the loop.

    Attributes:
        place: where it stands.
        rule: its rule, the numbers possibly traced.
        inputs: values of the explained inputs.
        constants: values of the constants.
        probe: zeros whose cotangent reports what biases and stabilisers absorb; or None.
        evaluation: that of the frame around it (`_propagation.loop.Evaluation`).
    """

    place: Place
    rule: Any
    inputs: list[Any]
    constants: list[Any]
    probe: Any
    evaluation: Any

    def as_it_is(self) -> list[Any]:
        """The outputs with the step's own derivative."""
        return self.place.native(*self.inputs, *self.constants)

    def held(self) -> list[Any]:
        """The outputs as constants of the explanation."""
        layer = jax.custom_vjp(self.place.native)
        native = self.place.native
        # A kernel without a derivative serves too, and no zero meets an infinite one.
        layer.defvjp(lambda *v: (native(*v), [None] * len(v)), lambda none, _: tuple(none))
        found: list[Any] = layer(*self.inputs, *self.constants)
        return found


@dataclass(frozen=True, eq=False, kw_only=True)
class Step:
    """One piece of the computation: what it reads, what it makes, and what is particular to it.

    Attributes:
        eqns: its equations, in order.
        inputs: its explained inputs.
        constants: what else it reads.
        outputs: what it makes.
        position: of its last equation.
        kind: the label of its kind; "" where no rule applies.
        name: of its weights, or the scope it is written in.
        weights: tree paths of its parameters.
        source: the line that wrote it.
        nonnegative: whether its explained inputs are known to be >= 0.
        before_relu: whether every reader of its output is a relu.
        frames: the bodies inside.
        turns: the length of the loop that it is, if it is one.
        mixes_examples: whether its statistics run over the leading axis.
    """

    eqns: tuple[Equation, ...]
    inputs: tuple[Var, ...]
    constants: tuple[Var, ...]
    outputs: tuple[Var, ...]
    position: int
    kind: str = ""
    name: str = ""
    weights: tuple[str, ...] = ()
    source: str = ""
    nonnegative: bool = False
    before_relu: bool = False
    frames: tuple["Frame", ...] = ()
    turns: tuple[int, ...] = ()
    mixes_examples: bool = False

    takes_affine: ClassVar[bool] = False  # scales and shifts after its core belong to it
    named_by_weights: ClassVar[bool] = False
    feeds_relu: ClassVar[bool] = False  # it makes use of `before_relu`

    @property
    def rest_is_bias(self) -> bool:
        """Whether what it neither sends on nor reports went to its constants."""
        return False

    @classmethod
    def search(cls, graph: Any, known: Any) -> Mapping[Var, "Found"]:
        """Layers of this family that are recognised by a shape of the whole graph."""
        return {}

    @classmethod
    def is_core(cls, reading: Any, eqn: Equation) -> bool:
        """Whether an equation is the core of such a layer, which affine equations may follow."""
        return False

    @classmethod
    def gate_of(cls, reading: Any, var: Var) -> int | None:
        """How much what a body of this family makes looks like a gate; None for no body."""
        return None

    @classmethod
    def recognise(cls, reading: Any, var: Var) -> Self | None:
        """The step of this family that makes `var`, or None."""
        raise NotImplementedError

    def forms_below(
        self, rules: Mapping["Step", Any] | None, arriving: Sequence[str], assign: Any
    ) -> tuple[dict[Var, str], tuple[Any, ...]]:
        """The form that every variable around the step has, and the forms of frames inside.

        Args:
            rules: the rule of each layer; None for modified gradients.
            arriving: the form of what arrives at each output.
            assign: from a frame, the rules and the forms of its outputs to the forms inside.
        """
        out = "R" if "R" in arriving else "C"  # a piece with several outputs has one form for all
        made = out if rules is None else self.way_back(rules.get(self), out).makes
        return {**dict.fromkeys(self.outputs, out), **dict.fromkeys(self.inputs, made)}, ()

    def way_back(self, rule: Any, out: str) -> Backward:
        """What any rule does to this step, where relevance arrives in the form `out`."""
        if rule is not None and rule.way is Way.NOTHING:
            return Backward("C", Visit.held)
        return self.backward(rule, out)

    def backward(self, rule: Any, out: str) -> Backward:
        """What a rule that hands something on does to this step: what its family says."""
        return Backward(out, Visit.as_it_is)

    def gradient_shares(self, rule: Any) -> Sequence[Any] | None:
        """What each input gets of the step's own derivative, where that is all that the rule does
        with multipliers; None elsewhere."""
        return None

    def in_gradient(self, out: str) -> Backward:
        """What happens to this step in a modified gradient that has no rule for it."""
        return Backward(out, Visit.as_it_is)

    def check(self, rule: Any) -> None:
        """Say, when the plan is made, what a rule that serves this kind cannot do here.

        Raises:
            ValueError, UnsupportedOperation: naming the mistake and the remedy.
        """

    def arguments(self) -> Sequence[Any]:
        """What the bodies of a step read, in order."""
        raise NotImplementedError

    def results(self) -> Sequence[Any]:
        """What the bodies of a step make, in order."""
        raise NotImplementedError

    def follow(self, inputs: list[Any], through: Callable[["Frame", list[Any]], list[Any]]) -> Any:
        """What reaches the results of a body, given what reaches its operands.

        Args:
            inputs: one value for each operand; values are joined by `|`.
            through: from a frame and what reaches its inputs to what reaches its outputs.
        """
        raise NotImplementedError

    def divisors(self) -> tuple[Var, ...]:
        """Explained inputs that divide others."""
        return ()

    def weighted_mean(self) -> "WeightedMean | None":
        """What attention is; None for another layer."""
        return None

    def unit_axis(self) -> int | None:
        """The axis of the output that holds its units; None where nothing tells."""
        return len(self.outputs[0].aval.shape) - 1


@dataclass(frozen=True, eq=False)
class Found:
    """A layer found by a shape of the whole graph, before steps are cut.

    Attributes:
        root: what it is a function of.
        gate: how much it looks like a gate (see `product.gate_rank`); None: as its root does.
    """

    root: Var
    gate: int | None = None
    takes_affine: ClassVar[bool] = False

    @property
    def roots(self) -> tuple[Var, ...]:
        """All that it reads."""
        return (self.root,)


@dataclass(frozen=True, eq=False)
class Frame:
    """A jaxpr as steps in order of execution.

    Attributes:
        jaxpr: the closed flat jaxpr.
        steps: the pieces on the way of relevance and, between them, constant equations.
        explained: for each input, whether relevance flows to it.
        outputs: for each output, whether relevance comes from it.
        gates: for each output, how much it looks like a gate.
        torn: lines of loops and branches whose borders tear layers apart.
    """

    jaxpr: Any
    steps: tuple[Step, ...]
    explained: tuple[bool, ...]
    outputs: tuple[bool, ...]
    live: frozenset[Var] = field(repr=False)
    reached: frozenset[Var] = field(repr=False)
    gates: tuple[int, ...] = ()
    torn: tuple[str, ...] = ()

    @property
    def invars(self) -> list[Var]:
        return list(compat.open_jaxpr(self.jaxpr).invars)

    @property
    def outvars(self) -> list[Any]:
        return list(compat.open_jaxpr(self.jaxpr).outvars)

    def layers(self) -> list[Step]:
        """Every step that a rule can be given to, of the bodies inside too, in order."""
        found: list[Step] = []
        for step in self.steps:
            found += [inner for frame in step.frames for inner in frame.layers()]
            found += [step] if step.kind else []
        return found
