"""Directions of a layer that carry relevance, learned from data, as concepts (PRCA and DRSA).

Source: Chormai et al. 2024, "Disentangled Explanations of Neural Network Predictions by Finding
Relevant Subspaces".
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._calls.arguments import ArgNums
from .._calls.call import Start
from .._calls.explained import Explained
from .._calls.hints import no_target
from ..composites import Composite
from ..datasets import require
from ..targets import scoring
from .flow import Flow, Subspaces, key_of, unit_axis
from .sites import one


@no_target
def prca(
    apply_fn: Callable[..., Any],
    composite: Any,
    layer: Any,
    rank: int,
    argnums: ArgNums = 1,
    *,
    axis: int | None = None,
) -> Callable[..., Subspaces]:
    """A function from data to the subspace of a layer that carries most relevance (PRCA).

        U = argmax E[(U' a)' (U' c)]:   the first eigenvectors of E[a c' + c a']

    with a the values of a layer's units, c their multipliers (relevance is R = a * c), the mean
    over examples and positions, and U orthonormal. Principal components keep the variance of a;
    these keep what the explained output is made of.

    Args:
        apply_fn: the function to explain.
        composite: a composite, or one rule for every layer with weights.
        layer: a path glob or another match of one layer.
        rank: the dimension of the subspace.
        argnums: the explained positional arguments.
        axis: the axis of the layer's units (default: the features).

    Returns:
        A function of `(params, batches)` to `Subspaces` of one concept, the directions of most
        relevance first. A batch is an array of inputs, or a tuple `(inputs, target)`.

    Raises:
        ValueError: for a layer that is not there or not one, a rank that the layer does not have,
            no batches, or a modified gradient, which has no multipliers.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> f = lambda w, x: (x @ w["a"]) @ w["b"]
        >>> w = {"a": jnp.eye(2), "b": jnp.array([[2.0], [0.0]])}  # listens to the first unit
        >>> x = jnp.array([[1.0, 5.0], [1.0, -5.0]])
        >>> found = lrp.questions.prca(f, lrp.Zero(), "a", 1)(w, [x])
        >>> print(jnp.abs(found.bases[0]))
        [[1.]
         [0.]]

    Source: Chormai et al. 2024.
    """
    pairs = _pairs(apply_fn, composite, layer, argnums, axis)

    def learn(params: Any, batches: Iterable[Any]) -> Subspaces:
        found = [_relevant_covariance(*pairs(params, batch)) for batch in batches]
        _require_rank(found, 1, rank)
        return Subspaces(_principal(jnp.stack(found).sum(0), rank)[None])

    return learn


@no_target
def drsa(
    apply_fn: Callable[..., Any],
    composite: Any,
    layer: Any,
    count: int,
    rank: int,
    argnums: ArgNums = 1,
    *,
    axis: int | None = None,
    samples: int | None = None,
    steps: int = 300,
    learning_rate: float = 0.02,
    restarts: int = 4,
    key: jax.Array | None = None,
) -> Callable[..., Subspaces]:
    """A function from data to disentangled subspaces of a layer that carry relevance (DRSA).

        U = argmax M_k^(1/2) M_n^2 relu(a_n' U_k U_k' c_n),   [U_1, ..., U_count] orthonormal

    with a and c as in `prca`, and M^p the mean of powers, (mean of r^p)^(1/p): that over examples
    and positions, p = 2, likes relevance that is strong in few of them; that over subspaces,
    p = 1/2, likes no subspace to stay empty. The PRCA subspace of rank `count * rank` is turned
    (directions that carry no relevance in the mean would only add noise): by Adam along the
    rotations, first to subspaces of rank one; those that are relevant together are put together,
    and turned on. The best of several starts is kept. Needs `optax`.

    Args:
        apply_fn, composite, layer, argnums, axis: as `prca`.
        count: how many subspaces.
        rank: the dimension of each; together at most as many as the layer has units.
        samples: of each batch so many (a, c), drawn at random, to bound memory (default: all).
        steps: how many steps of Adam, twice.
        learning_rate: their size.
        restarts: how many starts are tried.
        key: what starts and samples are drawn with; `jax.random.key(0)` if not given.

    Returns:
        A function as `prca` returns, to `Subspaces` of `count` concepts, that of most relevance
        first. They lie at right angles, so relevances through them add up to that through their
        sum.

    Raises:
        ValueError: as `prca`.

    Example:
        >>> import jax.numpy as jnp, lrp_jax as lrp
        >>> f = lambda w, x: jnp.maximum(x @ w["a"], 0) @ w["b"]
        >>> w = {"a": jnp.eye(3), "b": jnp.array([[2.0], [1.0], [0.0]])}
        >>> one_speaks = jnp.array([[1.0, 0.0, 9.0], [0.0, 1.0, 9.0]])
        >>> x = jnp.concatenate([one_speaks, one_speaks * jnp.array([1.0, 1.0, -1.0])])
        >>> found = lrp.questions.drsa(f, lrp.Zero(), "a", count=2, rank=1)(w, [x])
        >>> print(jnp.abs(found.bases[..., 0]).round(2))
        [[1. 0. 0.]
         [0. 1. 0.]]

    Source: Chormai et al. 2024.
    """
    pairs = _pairs(apply_fn, composite, layer, argnums, axis)
    if key is not None:
        scoring.require_key(key)
    first, second = jax.random.split(jax.random.key(0) if key is None else key)

    def learn(params: Any, batches: Iterable[Any]) -> Subspaces:
        found = []
        for number, batch in enumerate(batches):
            a, c = pairs(params, batch)
            if samples is not None and samples < len(a):
                drawn = jax.random.fold_in(first, number)
                chosen = jax.random.choice(drawn, len(a), (samples,), replace=False)
                a, c = a[chosen], c[chosen]
            found.append((a, c))
        _require_rank([a.T for a, _ in found], count, rank)
        a, c = (jnp.concatenate(parts) for parts in zip(*found, strict=True))
        starts = jax.random.split(second, restarts)
        return Subspaces(_disentangled(a, c, count, rank, steps, learning_rate, starts))

    return learn


@partial(jax.jit, static_argnames=("count", "rank", "steps", "learning_rate"))
def _disentangled(
    a: jax.Array, c: jax.Array, count: int, rank: int, steps: int, learning_rate: float,
    starts: jax.Array,
) -> jax.Array:  # fmt: skip
    """The subspaces (count, units, rank) that maximise the objective of DRSA."""
    optax = require("optax", "DRSA")
    optimizer = optax.adam(learning_rate)

    def relevances(u: jax.Array, a: jax.Array, c: jax.Array, rank: int) -> jax.Array:
        return ((a @ u) * (c @ u)).reshape(len(a), -1, rank).sum(-1)

    def objective(u: jax.Array, a: jax.Array, c: jax.Array, rank: int) -> jax.Array:
        positive = jax.nn.relu(relevances(u, a, c, rank))
        # The root has no slope at zero, where a subspace is empty.
        of_subspaces = jnp.sqrt((positive**2).mean(0) + 1e-12)
        return jnp.sqrt(of_subspaces).mean() ** 2

    def ascend(u: jax.Array, a: jax.Array, c: jax.Array, rank: int) -> jax.Array:
        def step(state: Any, _: None) -> tuple[Any, None]:
            u, moments = state
            slope = jax.grad(objective)(u, a, c, rank)
            # Adam scales each number by itself: what leaves the rotations must be gone before.
            slope -= u @ (u.T @ slope + slope.T @ u) / 2
            change, moments = optimizer.update(-slope, moments, u)
            left, _values, right = jnp.linalg.svd(u + change)
            return (left @ right, moments), None

        return jax.lax.scan(step, (u, optimizer.init(u)), length=steps)[0][0]

    principal = _principal(_relevant_covariance(a, c), count * rank)
    a, c = a @ principal, c @ principal
    scale = jnp.abs((a * c).sum(-1)).mean()
    c = c / jnp.where(scale > 0, scale, 1)

    def from_start(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        u = ascend(jax.random.orthogonal(key, count * rank, dtype=a.dtype), a, c, 1)
        u = u[:, _together(relevances(u, a, c, 1), count, rank)]
        u = ascend(u, a, c, rank)
        return u, objective(u, a, c, rank)

    found, reached = jax.vmap(from_start)(starts)
    u = found[reached.argmax()]
    order = jnp.argsort(-relevances(u, a, c, rank).mean(0))
    return jnp.moveaxis((principal @ u).reshape(-1, count, rank), 1, 0)[order]


def _together(relevance: jax.Array, count: int, rank: int) -> jax.Array:
    """The order of directions that puts those side by side that are relevant in the same places."""
    positive = jax.nn.relu(relevance)
    length = jnp.linalg.norm(positive, axis=0) + 1e-12
    alike = (positive / length).T @ (positive / length)
    free, order = jnp.ones(len(alike), bool), []
    for _ in range(count):
        first = jnp.where(free, length, -1).argmax()
        chosen = jax.lax.top_k(jnp.where(free, alike[first], -1), rank)[1]
        order.append(chosen)
        free = free.at[chosen].set(False)
    return jnp.concatenate(order)


def _pairs(
    apply_fn: Callable[..., Any], composite: Any, layer: Any, argnums: ArgNums, axis: int | None
) -> Callable[[Any, Any], tuple[jax.Array, jax.Array]]:
    """A function of parameters and a batch to values and multipliers, each (positions, units)."""
    explained = Explained(apply_fn, composite, argnums, has_aux=False)
    if explained.composite.gradient:
        raise ValueError("modified gradients have no multipliers: relevance is not a * c.")

    def pairs(params: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        x, target = batch if isinstance(batch, tuple) else (batch, None)
        call, leaves = explained.prepare((params, x), {})
        site = one(call, layer)

        def evaluate(begin: Start, composite: Composite, leaves: Any, target: Any) -> Any:
            flow = Flow(call, begin, composite, leaves, target, [site], axis)
            name, units = key_of(site), unit_axis(site, axis)
            both = flow.values[name], flow.multipliers(site, flow.arrived[name])
            size = flow.values[name].shape[units]
            return tuple(jnp.moveaxis(part, units, -1).reshape(-1, size) for part in both)

        return explained.run(call, "values and multipliers", evaluate, leaves, target)

    return pairs


def _relevant_covariance(a: jax.Array, c: jax.Array) -> jax.Array:
    product = a.T @ c
    return product + product.T


def _principal(covariance: jax.Array, rank: int) -> jax.Array:
    """The eigenvectors of the largest eigenvalues, the largest first."""
    return jnp.linalg.eigh(covariance)[1][:, ::-1][:, :rank]


def _require_rank(found: list[jax.Array], count: int, rank: int) -> None:
    if not found:
        raise ValueError("subspaces are learned from at least one batch.")
    units = np.shape(found[0])[0]
    if not (count >= 1 and rank >= 1 and count * rank <= units):
        raise ValueError(f"{count} subspaces of rank {rank} do not fit a layer of {units} units.")
