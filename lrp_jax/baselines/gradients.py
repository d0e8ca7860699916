"""Gradients of the explained score, at the input and around it; the call form of all baselines.

    explain = gradient(apply_fn)
    explain(params, x, target=labels)

The quantity explained is the score `sum(w * output)` with the weights of the target
(`lrp_jax.targets`), fixed at the unperturbed input: the class of `target=None` does not change
along a path or under noise. For a target that is a callable the weights are `target(output) /
output`, 0 where the output is 0.

The first axis of inputs and outputs is the batch. Copies of the input (noise, path steps,
windows) are evaluated together by `vmap`; `chunk=` bounds how many at a time, and with it the
memory.

Explained integers, such as token ids, are explained at the vectors that they look up, summed over
features; occlusion puts another id in their place.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .._calls import hints
from .._calls.arguments import argument_numbers
from .._calls.looked_up import Embedded, holds_integers
from ..targets import scoring

Explanation = Callable[..., Any]
Back = Callable[[Any], Any]


def gradient(f: Callable[..., Any], argnums: Any = 1, *, has_aux: bool = False) -> Explanation:
    """The gradient of the explained score.

        R_i = sum_j w_j dy_j/dx_i

    Args:
      f: function `(*args, **kwargs) -> output`.
      argnums: the explained arguments, an int or a tuple as in `jax.grad`.
      has_aux: whether `f` returns `(output, aux)`; the explanation then returns `(R, aux)`.

    Returns:
      A function `(*args, target=None, **kwargs) -> R` of the explained arguments' structure.

    Source: Simonyan et al., "Deep Inside Convolutional Networks", 2013.

    >>> f = lambda w, x: x @ w
    >>> gradient(f)(jnp.array([[1.0], [-2.0]]), jnp.array([[3.0, 1.0]]))
    Array([[ 1., -2.]], dtype=float32)
    """
    return explanation(scoring.gradient, f, argnums, has_aux)


def input_x_gradient(
    f: Callable[..., Any], argnums: Any = 1, *, has_aux: bool = False
) -> Explanation:
    """The gradient times the input: `R_i = x_i sum_j w_j dy_j/dx_i`.

    Args, Returns: as `gradient`.

    Source: Shrikumar et al., "Not Just a Black Box", 2016.

    >>> f = lambda w, x: x @ w
    >>> input_x_gradient(f)(jnp.array([[1.0], [-2.0]]), jnp.array([[3.0, 1.0]]))
    Array([[ 3., -2.]], dtype=float32)
    """

    def rule(model: Callable[[Any], Any], x: Any, weights: Any) -> Any:
        return jax.tree.map(jnp.multiply, x, scoring.gradient(model, x, weights))

    return explanation(rule, f, argnums, has_aux)


def smoothgrad(
    f: Callable[..., Any],
    argnums: Any = 1,
    *,
    key: Array,
    noise_level: float = 0.1,
    samples: int = 20,
    chunk: int | None = None,
    has_aux: bool = False,
) -> Explanation:
    """The mean gradient over noisy copies of the input; the last of them is the input itself.

        R = mean_k grad(x + sigma e_k),   e_k ~ N(0, 1),   sigma = noise_level (max x - min x)

    The range is that of each example, the order of sampling that of zennit. The same key draws
    the same noise in every call.

    Args:
      f, argnums, has_aux: as `gradient`.
      key: a JAX random key.
      noise_level: standard deviation relative to the range of each example.
      samples: number of copies, the clean one included.
      chunk: how many copies are evaluated together; `None` is all of them.

    Returns:
      A function as `gradient` returns.

    Source: Smilkov et al., "SmoothGrad: removing noise by adding noise", 2017.

    >>> f = lambda w, x: x @ w
    >>> explain = smoothgrad(f, key=jax.random.key(0))
    >>> explain(jnp.array([[1.0], [-2.0]]), jnp.array([[3.0, 1.0]])).round(4)
    Array([[ 1., -2.]], dtype=float32)
    """
    scoring.require_positive("samples", samples)
    if noise_level < 0:
        raise ValueError(f"noise_level={noise_level}: it is at least 0")
    scoring.require_key(key)

    def noisy(key: Array, x: Array, scale: Array) -> Array:
        axes = tuple(range(1, x.ndim)) if x.ndim > 1 else None
        sigma = noise_level * (x.max(axes, keepdims=True) - x.min(axes, keepdims=True))
        return x + scale * sigma * jax.random.normal(key, x.shape, x.dtype)

    def rule(model: Callable[[Any], Any], x: Any, weights: Any) -> Any:
        leaves, tree = jax.tree.flatten(x)

        def one(sample: tuple[Array, Array]) -> Any:
            sample_key, scale = sample
            keys = jax.random.split(sample_key, len(leaves))
            copies = [noisy(k, leaf, scale) for k, leaf in zip(keys, leaves, strict=True)]
            return scoring.gradient(model, jax.tree.unflatten(tree, copies), weights)

        scales = jnp.ones(samples, leaves[0].dtype).at[-1].set(0)
        total = scoring.sum_of(one, (jax.random.split(key, samples), scales), samples, chunk)
        return jax.tree.map(lambda r: r / samples, total)

    return explanation(rule, f, argnums, has_aux)


def integrated_gradients(
    f: Callable[..., Any],
    argnums: Any = 1,
    *,
    baseline: Any = None,
    steps: int = 20,
    quadrature: str = "gauss",
    chunk: int | None = None,
    gap: bool = False,
    has_aux: bool = False,
) -> Explanation:
    """Gradients integrated on the straight path from a baseline to the input.

        R_i = (x_i - b_i) int_0^1 d score(b + t (x - b)) / dx_i dt

    Args:
      f, argnums, has_aux: as `gradient`.
      baseline: a number, an array (or a pytree of arrays) that broadcasts to the input, a
        function of the input, or `None` for zeros.
      steps: number of points of the path.
      quadrature: `"gauss"` (Gauss-Legendre, exact to polynomials of degree 2 steps - 1) or
        `"right"` (the right Riemann sum of zennit).
      chunk: how many points are evaluated together; `None` is all of them.
      gap: whether to return `(R, gap)` with the completeness gap of each example,
        `sum_i R_i - (score(x) - score(b))`.

    Returns:
      A function as `gradient` returns.

    Source: Sundararajan et al., "Axiomatic Attribution for Deep Networks", ICML 2017.

    >>> f = lambda _, x: (x ** 2).sum(-1, keepdims=True)
    >>> integrated_gradients(f)(None, jnp.array([[3.0, 1.0]])).round(4)
    Array([[9., 1.]], dtype=float32)
    """
    scoring.require_positive("steps", steps)
    if quadrature == "gauss":
        nodes, measure = np.polynomial.legendre.leggauss(steps)
        points, measure = (nodes + 1) / 2, measure / 2
    elif quadrature == "right":
        points, measure = np.arange(1, steps + 1) / steps, np.full(steps, 1 / steps)
    else:
        raise ValueError(f'quadrature is "gauss" or "right", not {quadrature!r}')

    def rule(model: Callable[[Any], Any], x: Any, weights: Any, back: Back) -> Any:
        start = scoring.baseline(baseline, x)
        way = jax.tree.map(jnp.subtract, x, start)
        dtype = jax.tree.leaves(x)[0].dtype

        def one(step: tuple[Array, Array]) -> Any:
            point, weight = step
            place = jax.tree.map(lambda b, w: b + point * w, start, way)
            return jax.tree.map(lambda g: weight * g, scoring.gradient(model, place, weights))

        path = (jnp.asarray(points, dtype), jnp.asarray(measure, dtype))
        relevance = jax.tree.map(jnp.multiply, way, scoring.sum_of(one, path, steps, chunk))
        if not gap:
            return back(relevance)
        difference = scoring.score(model(x), weights) - scoring.score(model(start), weights)
        rest = scoring.sum_examples(relevance, difference.shape) - difference
        return back(relevance), rest

    return with_way_back(rule, f, argnums, has_aux)


def explanation(
    rule: Callable[..., Any],
    f: Callable[..., Any],
    argnums: Any,
    has_aux: bool,
    blind: bool = False,
) -> Explanation:
    """The form of `relevance` for a rule `(model of the explained arguments, these, weights)`.

    Of explained integers the model is a function of the vectors that they look up, and what the
    rule makes is summed over features; a rule that is `blind` gets the integers.
    """
    return with_way_back(
        lambda model, x, weights, back: back(rule(model, x, weights)), f, argnums, has_aux, blind
    )


def with_way_back(
    rule: Callable[..., Any],
    f: Callable[..., Any],
    argnums: Any,
    has_aux: bool,
    blind: bool = False,
) -> Explanation:
    """As `explanation`, for a rule that is also given the way back to the explained arguments."""
    embedded = functools.cache(lambda: Embedded(f, argnums, has_aux))
    numbers = argument_numbers(argnums)

    def explain(*args: Any, target: Any = None, **kwargs: Any) -> Any:
        x = scoring.pick(args, argnums)

        def call(*args: Any) -> Any:
            return f(*args, **kwargs)[0] if has_aux else f(*args, **kwargs)

        if holds_integers(x) and not blind:
            looked_up = embedded()(args, kwargs)
            x, model, back = looked_up.values, looked_up.model, looked_up.back
            output, aux = looked_up.output, looked_up.aux
        else:
            x = jax.tree.map(jnp.asarray if blind else scoring.floating, x)
            try:
                found = f(*scoring.replace(args, argnums, x), **kwargs)
            except Exception as error:
                hints.add_to(error, f, numbers, args, kwargs)
                raise
            output, aux = found if has_aux else (found, None)

            def model(x: Any) -> Any:
                return call(*scoring.replace(args, argnums, x))

            def back(relevance: Any) -> Any:
                return relevance

        weights = scoring.weights(output, target, call, args, argnums)
        relevance = rule(model, x, weights, back)
        return (relevance, aux) if has_aux else relevance

    return explain
