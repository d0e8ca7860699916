"""Proof tools for people who write rules: a slow oracle and three assertions.

The oracle sees a layer as an explicit matrix and a rule as a formula for a single neuron. It shares
nothing with the propagation it checks: no tracing, no gradients of modified weights, one neuron
after the other, NumPy float64.

Enable 64-bit numbers (``jax.config.update("jax_enable_x64", True)``) before comparing to the
default tolerance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import rules
from .rules.base import Rule
from .transform import relevance as _relevance

Array = NDArray[np.float64]


class Neuron(NamedTuple):
    """One output of an affine layer.

    Attributes:
        x: the inputs of the layer, ``(inputs,)``.
        w: their weights, ``(inputs,)``.
        b: the bias, zero where the rule ignores it.
        z: the value, with the bias in any case.
        connected: ``(inputs,)``, true for the inputs that the neuron really has.
    """

    x: Array
    w: Array
    b: float
    z: float
    connected: NDArray[np.bool_]


Formula = Callable[[Any, Neuron], tuple[Array, float]]
"""``formula(rule, neuron)``: what inputs and bias receive when the neuron has relevance one."""


def explicit_matrix(layer: Callable[[jax.Array], jax.Array], x: ArrayLike) -> tuple[Array, Array]:
    """Write an affine layer as ``x @ matrix + bias``.

    Args:
        layer: a function of one array that is affine in it.
        x: any array of the layer's input shape; its values do not matter.

    Returns:
        ``(matrix, bias)`` of shapes ``(inputs, outputs)`` and ``(outputs,)``, both sides flattened.

    Example:
        >>> matrix, bias = explicit_matrix(lambda x: 2.0 * x + 1.0, np.zeros(2))
        >>> matrix.tolist(), bias.tolist()
        ([[2.0, 0.0], [0.0, 2.0]], [1.0, 1.0])
    """
    zero = jnp.zeros(np.shape(x), jnp.result_type(float))
    bias = np.asarray(jax.jit(layer)(zero), np.float64).ravel()
    outputs_first = np.asarray(jax.jit(jax.jacfwd(layer))(zero), np.float64)
    return outputs_first.reshape(bias.size, zero.size).T, bias


def oracle(
    rule: Rule,
    matrix: ArrayLike,
    bias: ArrayLike,
    x: ArrayLike,
    relevance: ArrayLike,
    connected: ArrayLike | None = None,
    formula: Formula | None = None,
) -> Array:
    r"""Propagate relevance through ``x @ matrix + bias``, neuron by neuron.

    .. math:: R_i = \sum_j \text{share}_{ij} R_j

    with the rule's policy for the bias: ``"ignore"`` sets it to zero in all sums,
    ``"absorb"`` loses its share, and ``"distribute"`` gives its share in equal parts to the real
    inputs of the neuron.

    Args:
        rule: the rule.
        matrix: weights, ``(inputs, outputs)``.
        bias: ``(outputs,)``.
        x: input of a single example, any shape with as many entries as the matrix has rows.
        relevance: relevance of the outputs, any shape with as many entries as the matrix has
            columns.
        connected: ``(inputs, outputs)``, true where the layer has a weight (padding has none); by
            default where the matrix is not zero.
        formula: the rule for one neuron; by default the one known for the class of ``rule``.

    Returns:
        The relevance of the inputs, shaped like ``x``.

    Raises:
        TypeError: when ``rule`` has no known formula and none is given.

    Example:
        >>> from lrp_jax import Epsilon
        >>> oracle(Epsilon(0.0), [[1.0], [2.0]], [1.0], [1.0, 1.0], [4.0]).tolist()
        [1.0, 2.0]
    """
    shares = formula or FORMULAS.get(type(rule))
    if shares is None:
        known = ", ".join(sorted(known.__name__ for known in FORMULAS))
        raise TypeError(
            f"the oracle has no formula for {rule!r} (known: {known}); "
            "pass formula=, the shares of one neuron"
        )
    x, matrix, relevance = (np.asarray(a, np.float64) for a in (x, matrix, relevance))
    bias = np.asarray(bias, np.float64)
    connected = matrix != 0 if connected is None else np.asarray(connected, bool)
    policy = getattr(rule, "bias", "absorb")
    if isinstance(rule, rules.ZBox):  # one pair of bounds for each input
        low, high = (np.broadcast_to(bound, x.shape).ravel() for bound in (rule.low, rule.high))
        rule = dataclasses.replace(rule, low=low, high=high)
    result = np.zeros(x.size)
    for j, relevance_j in enumerate(relevance.ravel()):
        real = connected[:, j]
        bias_j = 0.0 if policy == "ignore" else float(bias[j])
        z = float(x.ravel() @ matrix[:, j] + bias[j])
        to_inputs, to_bias = shares(rule, Neuron(x.ravel(), matrix[:, j], bias_j, z, real))
        result += relevance_j * to_inputs
        if policy == "distribute" and real.any():
            result += relevance_j * to_bias * real / real.sum()
    return result.reshape(x.shape)


def assert_matches_oracle(
    rule: Rule,
    apply_fn: Callable[..., Any],
    params: Any,
    x: ArrayLike,
    *,
    formula: Formula | None = None,
    tol: float = 1e-9,
    seed: int = 0,
) -> None:
    """Check a rule on a model of one affine layer against the oracle, from a start of both signs.

    Args:
        rule: the rule under test.
        apply_fn: ``apply_fn(params, x)``, a single layer that is affine in ``x`` and treats the
            examples of a batch one by one.
        params: its parameters; they are also replaced by ones, which tells padding from inputs.
        x: a batch, ``(batch, ...)``.
        formula: the rule for one neuron, for a rule that the oracle does not know.
        tol: largest difference, relative to the largest relevance.
        seed: of the start.

    Raises:
        AssertionError: when they differ, with both and where.

    Example:
        >>> from lrp_jax import Epsilon
        >>> w, x = jnp.ones((3, 2)), jnp.arange(6.0).reshape(2, 3)
        >>> assert_matches_oracle(Epsilon(), lambda w, x: x @ w, w, x, tol=1e-5)
    """
    x = jnp.asarray(x)
    start = signed_start(apply_fn, params, x, seed=seed)
    actual = _relevance(apply_fn, rule)(params, x, target=lambda _: start)
    expected = ExplicitLayer.of(apply_fn, params, x).propagate(rule, x, start, formula)
    assert_close(actual, expected, tol, f"{rule!r} and the oracle differ")


class ExplicitLayer(NamedTuple):
    """A model of one affine layer, written out.

    Attributes:
        matrix: ``(inputs, outputs)``.
        bias: ``(outputs,)``.
        connected: ``(inputs, outputs)``, true where the layer has a weight; padding has none.
    """

    matrix: Array
    bias: Array
    connected: NDArray[np.bool_]

    @classmethod
    def of(cls, apply_fn: Callable[..., Any], params: Any, x: ArrayLike) -> ExplicitLayer:
        """Write out ``apply_fn(params, x)`` for one example of the batch ``x``.

        Weights of ones tell which inputs a neuron is connected to.

        Raises:
            ValueError: when it is not affine in ``x`` or mixes the examples.
        """
        x = np.asarray(x)
        example = x[:1]
        ones = jax.tree.map(jnp.ones_like, params)
        matrix, bias = explicit_matrix(lambda x: apply_fn(params, x), example)
        connected, _ = explicit_matrix(lambda x: apply_fn(ones, x), example)
        rows = np.asarray(apply_fn(params, x)).reshape(len(x), -1)
        if not np.allclose(rows, x.reshape(len(x), -1) @ matrix + bias, 1e-4, 1e-4):
            raise ValueError("apply_fn is not one affine layer that takes the examples one by one")
        return cls(matrix, bias, connected != 0)

    def propagate(
        self, rule: Rule, x: ArrayLike, relevance: ArrayLike, formula: Formula | None = None
    ) -> Array:
        """Apply the oracle to every example of a batch ``x``; the result is shaped like it.

        Example:
            >>> from lrp_jax import WSquare
            >>> x = np.ones((1, 2))
            >>> layer = ExplicitLayer.of(lambda w, x: x @ w, jnp.eye(2), x)
            >>> layer.propagate(WSquare(0.0), x, [[3.0, 4.0]]).tolist()
            [[3.0, 4.0]]
        """
        examples = zip(np.asarray(x), np.asarray(relevance), strict=True)
        return np.stack(
            [
                oracle(rule, self.matrix, self.bias, one, start, self.connected, formula)
                for one, start in examples
            ]
        )


def signed_start(apply_fn: Callable[..., Any], *args: Any, seed: int = 0) -> jax.Array:
    """Draw a start of both signs, shaped like ``apply_fn(*args)``.

    Args:
        apply_fn: the model; it is not run.
        *args: its arguments.
        seed: of the draw.

    Returns:
        Normal numbers in the shape and dtype of the output.

    Example:
        >>> signed_start(lambda w, x: x @ w, np.ones((3, 2)), np.ones((4, 3))).shape
        (4, 2)
    """
    output = jax.eval_shape(apply_fn, *args)
    return jnp.asarray(np.random.default_rng(seed).normal(size=output.shape), output.dtype)


def assert_conserves(
    explain: Callable[..., Any], *args: Any, start: ArrayLike, tol: float = 1e-6
) -> None:
    """Check that the relevances of the inputs add up to the start.

    Args:
        explain: what ``lrp_jax.relevance`` returns.
        *args: its arguments.
        start: relevance of the output.
        tol: largest difference of the sums, relative to the largest entry of the start.

    Raises:
        AssertionError: when the sums differ, with both.

    Example:
        >>> from lrp_jax import Zero, relevance
        >>> explain = relevance(lambda w, x: x @ w, Zero())
        >>> assert_conserves(explain, jnp.ones((2, 3)), jnp.ones((1, 2)), start=jnp.ones((1, 3)))
    """
    start = jnp.asarray(start)
    explained = explain(*args, target=lambda _: start)
    received = sum(float(np.asarray(leaf, np.float64).sum()) for leaf in jax.tree.leaves(explained))
    given = float(np.asarray(start, np.float64).sum())
    if not abs(received - given) <= tol * float(np.max(np.abs(start))):
        raise AssertionError(
            f"relevance is not conserved: {given:.12g} was given, {received:.12g} arrived"
        )


def assert_linear(
    explain: Callable[..., Any], *args: Any, starts: tuple[ArrayLike, ArrayLike], tol: float = 1e-9
) -> None:
    """Check that the explanation is linear in its start.

    Args:
        explain: what ``lrp_jax.relevance`` returns.
        *args: its arguments.
        starts: two relevances of the output.
        tol: largest difference, relative to the largest relevance.

    Raises:
        AssertionError: when ``explain(2 a - 3 b)`` is not ``2 explain(a) - 3 explain(b)``.

    Example:
        >>> from lrp_jax import Gamma, relevance
        >>> explain = relevance(lambda w, x: x @ w, Gamma())
        >>> w, x = jnp.ones((2, 1)), jnp.ones((1, 2))
        >>> assert_linear(explain, w, x, starts=([[1.0]], [[5.0]]), tol=1e-5)
    """
    first, second = (jnp.asarray(start) for start in starts)
    of_first, of_second, of_both = (
        explain(*args, target=lambda _, start=start: start)
        for start in (first, second, 2 * first - 3 * second)
    )
    sums = jax.tree.map(lambda a, b: 2 * a - 3 * b, of_first, of_second)
    for actual, expected in zip(jax.tree.leaves(of_both), jax.tree.leaves(sums), strict=True):
        assert_close(actual, expected, tol, "the explanation is not linear in its start")


def assert_close(actual: ArrayLike, expected: ArrayLike, tol: float, what: str = "") -> None:
    """Compare two relevances relative to the largest entry of the second.

    Args:
        actual: what was computed.
        expected: what it should be, same shape.
        tol: largest difference, relative to the largest expected entry.
        what: start of the message.

    Raises:
        AssertionError: when shapes or numbers differ.

    Example:
        >>> assert_close(np.array([1.0, 2.0]), np.array([1.0, 2.0 + 1e-12]), 1e-9)
    """
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    largest = float(np.max(np.abs(expected), initial=0.0))
    np.testing.assert_allclose(
        actual, expected, rtol=0, atol=tol * largest, err_msg=what, strict=True
    )


# The formulas, one neuron at a time.


def _epsilon(rule: Any, neuron: Neuron) -> tuple[Array, float]:
    x, w, b, _, _ = neuron
    return _split(x * w, b, rule.epsilon)


def _zero(rule: Any, neuron: Neuron) -> tuple[Array, float]:
    x, w, b, _, _ = neuron
    return _split(x * w, b, 0.0)


def _norm(rule: Any, neuron: Neuron) -> tuple[Array, float]:
    x, w, b, _, _ = neuron
    return _split(x * w, b, rule.stabilizer)


def _gamma(rule: Any, neuron: Neuron) -> tuple[Array, float]:
    x, w, b, z, _ = neuron
    if z > 0:
        of_positive_x = w + rule.gamma * _positive(w)
        of_negative_x = w + rule.gamma * _negative(w)
        of_bias = b + rule.gamma * _positive(b)
    elif z < 0:
        of_positive_x = w + rule.gamma * _negative(w)
        of_negative_x = w + rule.gamma * _positive(w)
        of_bias = b + rule.gamma * _negative(b)
    else:
        return np.zeros_like(x), 0.0
    contributions = _positive(x) * of_positive_x + _negative(x) * of_negative_x
    return _split(contributions, of_bias, rule.stabilizer)


def _zplus(rule: Any, neuron: Neuron) -> tuple[Array, float]:
    x, w, b, _, _ = neuron
    return _split(_positive(x * w), _positive(b), rule.stabilizer)


def _alpha_beta(rule: Any, neuron: Neuron) -> tuple[Array, float]:
    x, w, b, _, _ = neuron
    excited, excited_bias = _split(_positive(x * w), _positive(b), rule.stabilizer)
    inhibited, inhibited_bias = _split(_negative(x * w), _negative(b), rule.stabilizer)
    return (
        rule.alpha * excited - rule.beta * inhibited,
        rule.alpha * excited_bias - rule.beta * inhibited_bias,
    )


def _zbox(rule: Any, neuron: Neuron) -> tuple[Array, float]:
    x, w, _, _, _ = neuron
    contributions = x * w - rule.low * _positive(w) - rule.high * _negative(w)
    return _split(contributions, 0.0, rule.stabilizer)


def _wsquare(rule: Any, neuron: Neuron) -> tuple[Array, float]:
    return _split(neuron.w**2, neuron.b**2, rule.stabilizer)


def _flat(rule: Any, neuron: Neuron) -> tuple[Array, float]:
    return _split(neuron.connected.astype(np.float64), 0.0, rule.stabilizer)


def _relative(rule: Any, neuron: Neuron) -> tuple[Array, float]:
    return neuron.x * neuron.w, neuron.b


FORMULAS: dict[type, Formula] = {
    rules.Epsilon: _epsilon,
    rules.Zero: _zero,
    rules.Norm: _norm,
    rules.Gamma: _gamma,
    rules.ZPlus: _zplus,
    rules.AlphaBeta: _alpha_beta,
    rules.ZBox: _zbox,
    rules.WSquare: _wsquare,
    rules.Flat: _flat,
    rules.Relative: _relative,
}
"""The formulas the oracle knows, by class of rule."""


def _split(contributions: Array, of_bias: float, stabilizer: float) -> tuple[Array, float]:
    """Each contribution as a fraction of the stabilised sum of all; nothing where that is zero."""
    z = contributions.sum() + of_bias
    z += stabilizer if z >= 0 else -stabilizer
    return (contributions / z, of_bias / z) if z != 0 else (np.zeros_like(contributions), 0.0)


def _positive(value: Any) -> Any:
    return np.maximum(value, 0.0)


def _negative(value: Any) -> Any:
    return np.minimum(value, 0.0)
