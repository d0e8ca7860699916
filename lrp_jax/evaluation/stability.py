"""Metrics that explain again: under small changes of the input, and for another class.

They take the explanation: `max_sensitivity(explain)(params, x, target=t)`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ..targets import scoring, starts
from .correlations import flat, key_or_default, pearson, ratio


def max_sensitivity(
    explain: Callable[..., Any],
    argnums: int = 1,
    *,
    radius: float = 0.2,
    samples: int = 10,
    chunk: int = 1,
) -> Callable[..., Array]:
    """How much an explanation changes, at worst, under small changes of the input.

        max_d |R(x + d) - R(x)| / |R(x)|,   d uniform in [-radius, radius], Euclidean norms

    Give a target: with `None` the class explained may change with the input.

    Args:
      explain: a function `(*args, target=...) -> R`, as `relevance` makes.
      argnums: the argument perturbed, an array.
      radius: of the changes.
      samples: their number.
      chunk: how many are explained together.

    Returns:
      A function `(*args, target=None, key=None) -> (batch,)`.

    Raises:
      ValueError: for a radius or a number of samples that is not positive.

    Source: Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019.

    >>> explain = lambda w, x, target=None: x * w.T
    >>> bool(max_sensitivity(explain)(jnp.ones((2, 1)), jnp.ones((1, 2)))[0] < 0.2)
    True
    """

    scoring.require_positive("samples", samples)
    if not radius > 0:
        raise ValueError(f"radius={radius!r}: the changes of the input need one above 0")
    explain = scoring.explaining(explain, "max_sensitivity")

    @jax.jit
    def run(args: tuple[Any, ...], target: Any, key: Array) -> Array:
        x = scoring.require_array(scoring.pick(args, argnums), "max_sensitivity")
        remedy = "it has no meaning for token ids: explain their embeddings"
        scoring.require_floats(x, "max_sensitivity", remedy)
        first = flat(explain(*args, target=target))

        def change(key: Array) -> Array:
            near = x + jax.random.uniform(key, x.shape, x.dtype, -radius, radius)
            again = flat(explain(*scoring.replace(args, argnums, near), target=target))
            return ratio(jnp.linalg.norm(again - first, axis=-1), jnp.linalg.norm(first, axis=-1))

        keys = jax.random.split(key, samples)
        return jax.lax.map(change, keys, batch_size=min(chunk, samples)).max(0)

    def evaluate(*args: Any, target: Any = None, key: Array | None = None) -> Array:
        return run(args, scoring.as_argument(target), key_or_default(key))

    return evaluate


def random_logit(
    explain: Callable[..., Any], classes: int, *, similarity: Callable[..., Array] | None = None
) -> Callable[..., Array]:
    """How similar the explanation of a class is to that of another, random one: lower is better.

    Args:
      explain: a function `(*args, target=...) -> R`, as `relevance` makes.
      classes: the number of classes, at least two.
      similarity: a function of two arrays `(batch, elements)`, `pearson` by default.

    Returns:
      A function `(*args, target, key=None) -> (batch,)` for class indices `target`.

    Source: Sixt et al., "When Explanations Lie", ICML 2020.

    >>> explain = lambda w, x, target: x * w[:, target].T
    >>> random_logit(explain, 2)(jnp.eye(2), jnp.ones((1, 2)), target=jnp.array([0])).round(4)
    Array([-1.], dtype=float32)
    """
    if classes < 2:
        raise ValueError(f"another class is needed, got classes={classes}")
    explain = scoring.explaining(explain, "random_logit")
    alike = pearson if similarity is None else similarity

    @jax.jit
    def run(args: tuple[Any, ...], target: Array, key: Array) -> Array:
        other = (target + jax.random.randint(key, target.shape, 1, classes)) % classes
        with starts.asked() as checked:
            first, second = (flat(explain(*args, target=t)) for t in (target, other))
        wrong = [y.shape for y, _ in checked if starts.is_array(y) and y.shape[-1] != classes]
        if wrong:
            raise ValueError(
                f"classes={classes}, and the explained output has the shape {wrong[0]}"
            )
        return alike(first, second)

    def evaluate(*args: Any, target: Any, key: Array | None = None) -> Array:
        target = jnp.asarray(target)
        starts.check(jax.ShapeDtypeStruct((*target.shape, classes), jnp.float32), target)
        return run(args, target, key_or_default(key))

    evaluate.__qualname__ = "random_logit(explain, classes)"
    return evaluate
