"""Rules of functions that are not linear: activations, normalisations, softmaxes, products."""

from dataclasses import dataclass
from typing import Any

from .. import kinds
from .._layers.step import Way
from .base import Number, Rule, is_number, show


@dataclass(frozen=True, eq=False, repr=False)
class Pass(Rule):
    """Hands relevance on unchanged: R_i = R_i (elementwise layers, stand-alone batch norms, calls).

    Source: Bach et al. 2015 for activations.
    """

    serves = (
        kinds.Activation | kinds.BatchNorm | kinds.Bias | kinds.Normalization | kinds.Softmax
        | kinds.Linear | kinds.Call
    )  # fmt: skip
    way = Way.UNCHANGED
    makes_relevance = True


@dataclass(frozen=True, eq=False, repr=False)
class Identity(Rule):
    """The identity rule: activations hand relevance on; a norm's statistics are constants.

    Source: Achtibat et al. 2024 (AttnLRP), section 3.2; Ali et al. 2022.
    """

    serves = kinds.Activation | kinds.Normalization
    way = Way.IDENTITY


@dataclass(frozen=True, eq=False, repr=False)
class Taylor(Rule):
    """First order around zero with everything live; for a softmax R_i = x_i (R_i - s_i sum_j R_j).

    Source: Achtibat et al. 2024 (AttnLRP), proposition 3.1.
    """

    serves = (
        kinds.Activation | kinds.Softmax | kinds.LogSumExp | kinds.Normalization | kinds.Bilinear
    )
    way = Way.FUNCTION


@dataclass(frozen=True, eq=False, repr=False)
class Uniform(Rule):
    """An equal share of a product's relevance to each of its factors: half of two, a third of 3.

    However the product is written: (x1 x2) x3 and x1 (x2 x3) have three factors.

    Source: Achtibat et al. 2024 (AttnLRP), section 3.3.
    """

    serves = kinds.Bilinear
    way = Way.FUNCTION

    def shares(self, operands: int, gates: frozenset[int]) -> tuple[float, ...]:
        return (1 / operands,) * operands


@dataclass(frozen=True, eq=False, repr=False)
class Gate(Rule):
    """All of a product's relevance to the signal, none to the gate; a softmax only gates.

    The gate is the factor that comes from a softmax, else from a sigmoid, else from another
    activation; where neither or both do, each factor gets half. Of more than two factors, those
    that look least like a gate share it equally. `signal` says it instead.

    Args:
        signal: the factor of a product that takes all, counted from 0 in the order of the plan's
            inputs; None (the default) finds it. Softmaxes and activations have one operand, which
            only gates.

    Raises:
        TypeError: for a signal that is no int.
        ValueError: for a signal below 0, and when the plan is made, for one that no factor has.

    Example:
        >>> import lrp_jax as lrp
        >>> lrp.Gate(signal=0)
        Gate(signal=0)

    Source: Arras et al. 2017 (LSTM); Ali et al. 2022 (CP-LRP).
    """

    signal: int | None = None
    serves = kinds.Bilinear | kinds.Softmax | kinds.LogSumExp | kinds.Activation
    way = Way.FUNCTION

    def __post_init__(self) -> None:
        if self.signal is None:
            return
        if not isinstance(self.signal, int) or isinstance(self.signal, bool):
            raise TypeError(f"Gate(signal={self.signal!r}): it is the number of a factor, an int.")
        if self.signal < 0:
            raise ValueError(f"Gate(signal={self.signal}): factors are counted from 0.")

    def shares(self, operands: int, gates: frozenset[int]) -> tuple[float, ...]:
        if self.signal is not None and operands > 1:
            if self.signal >= operands:
                raise ValueError(
                    f"Gate(signal={self.signal}): a product here has the factors 0 to "
                    f"{operands - 1}, in the order of the plan's inputs."
                )
            return tuple(float(i == self.signal) for i in range(operands))
        signals = operands - len(gates)
        if operands > 1 and signals == 0:
            return (1 / operands,) * operands
        return tuple(0.0 if i in gates else 1 / signals for i in range(operands))


@dataclass(frozen=True, eq=False, repr=False)
class Hold(Rule):
    """What the layer makes is a constant of the explanation: R_i = 0, for any kind of layer.

    The rule's `jax.lax.stop_gradient`, where the code cannot be changed: a product with it gives
    all to its other factors. What arrives is lost, and the ledger reports it in the column `rule`.

    Example:
        >>> import jax, jax.numpy as jnp, lrp_jax as lrp
        >>> f = lambda w, x: x @ w["a"] + jnp.tanh(x @ w["b"])
        >>> w = {"a": jnp.eye(2), "b": jnp.ones((2, 2))}
        >>> composite = lrp.Composite([(lrp.Linear, lrp.Zero()), (lrp.Activation, lrp.Hold())])
        >>> print(lrp.relevance(f, composite)(w, jnp.array([[1.0, 3.0]]), target=1))
        [[0. 3.]]

    Source: as `jax.lax.stop_gradient`; Ali et al. 2022 hold attention weights so.
    """

    serves = kinds.Anything
    way = Way.NOTHING


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Weighted(Rule):
    """Shares of a called function's own vjp: c_i = weight_i (dy/dx_i)^T c_y, with R = x c.

    What runs is the function's own backward pass, as it is in training. For attention (q, k, v),
    weights 1/4, 1/4, 1/2 are AttnLRP through all three, 0, 0, 1 is CP-LRP. Weights of operands
    that add up to one conserve relevance where the function is linear in each of them.

    Args:
        *weights: one for each explained operand of the call, in the order of its operands (arrays
            that the function closes over come first); none at all is the gradient as it is for
            every operand, LRP-0 of a linear kernel.

    Raises:
        TypeError: for weights that are no numbers.
        ValueError: when the plan is made, for a number of weights that is not that of the explained
            operands.

    Example:
        >>> import lrp_jax as lrp
        >>> lrp.Weighted(0.25, 0.25, 0.5)
        Weighted(0.25, 0.25, 0.5)

    Source: Achtibat et al. 2024 (AttnLRP), section 3.3; Ali et al. 2022 (CP-LRP).
    """

    weights: tuple[Number, ...] = ()
    serves = kinds.Call
    way = Way.FUNCTION

    def __init__(self, *weights: Number) -> None:
        for weight in weights:
            if not is_number(weight):
                raise TypeError(
                    f"Weighted(..., {weight!r}): it takes one number for each explained operand, "
                    "as in lrp.Weighted(0.25, 0.25, 0.5)."
                )
        object.__setattr__(self, "weights", weights)

    def shares(self, operands: int, gates: frozenset[int]) -> tuple[Any, ...] | None:
        return self.weights or None

    def __repr__(self) -> str:
        return f"Weighted({', '.join(map(show, self.weights))})"
