"""Explanations to compare with: every method of this module has the call form of `relevance`.

    explain = gradient(apply_fn)
    explain(params, x, target=labels)

The quantity explained is the score `sum(w * output)` with the weights of the target
(`lrp_jax.targets`), fixed at the unperturbed input: the class of `target=None` does not change
along a path or under noise. For a target that is a callable the weights are `target(output) /
output`, 0 where the output is 0.

The first axis of inputs and outputs is the batch. Copies of the input (noise, path steps,
windows) are evaluated together by `vmap`; `chunk=` bounds how many at a time, and with it the
memory.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _explained

Array = jax.Array
Explanation = Callable[..., Any]


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

    def rule(model: Callable[[Any], Any], x: Any, weights: Any) -> Any:
        return _explained.gradient(model, x, weights)

    return _explanation(rule, f, argnums, has_aux)


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
        return jax.tree.map(jnp.multiply, x, _explained.gradient(model, x, weights))

    return _explanation(rule, f, argnums, has_aux)


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
    _explained.require_positive("samples", samples)

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
            return _explained.gradient(model, jax.tree.unflatten(tree, copies), weights)

        scales = jnp.ones(samples, leaves[0].dtype).at[-1].set(0)
        total = _explained.sum_of(one, (jax.random.split(key, samples), scales), samples, chunk)
        return jax.tree.map(lambda r: r / samples, total)

    return _explanation(rule, f, argnums, has_aux)


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
    _explained.require_positive("steps", steps)
    if quadrature == "gauss":
        nodes, measure = np.polynomial.legendre.leggauss(steps)
        points, measure = (nodes + 1) / 2, measure / 2
    elif quadrature == "right":
        points, measure = np.arange(1, steps + 1) / steps, np.full(steps, 1 / steps)
    else:
        raise ValueError(f'quadrature is "gauss" or "right", not {quadrature!r}')

    def rule(model: Callable[[Any], Any], x: Any, weights: Any) -> Any:
        start = _explained.baseline(baseline, x)
        way = jax.tree.map(jnp.subtract, x, start)
        dtype = jax.tree.leaves(x)[0].dtype

        def one(step: tuple[Array, Array]) -> Any:
            point, weight = step
            place = jax.tree.map(lambda b, w: b + point * w, start, way)
            return jax.tree.map(lambda g: weight * g, _explained.gradient(model, place, weights))

        path = (jnp.asarray(points, dtype), jnp.asarray(measure, dtype))
        relevance = jax.tree.map(jnp.multiply, way, _explained.sum_of(one, path, steps, chunk))
        if not gap:
            return relevance
        difference = _explained.score(model(x), weights) - _explained.score(model(start), weights)
        return relevance, _explained.sum_examples(relevance, difference.shape) - difference

    return _explanation(rule, f, argnums, has_aux)


def occlusion(
    f: Callable[..., Any],
    argnums: int = 1,
    *,
    window: int | tuple[int, ...] = 8,
    stride: int | tuple[int, ...] | None = None,
    axes: tuple[int, ...] | None = None,
    fill: Any = 0.0,
    keep: bool = False,
    chunk: int | None = 1,
    has_aux: bool = False,
) -> Explanation:
    """How much the score falls when a window of the input is covered.

        R_i = sum over the windows v that hold i of (score(x) - score(x without v)) / |v|

    A window's drop is spread over its elements, so disjoint windows of a linear model add up to
    its score. With `keep=True` everything *outside* the window is covered and each of its
    elements gets the whole score of what is left, as zennit does (its windows cover all channels
    when `window` is an int, and wrap around the border, where these are cut off).

    Args:
      f, has_aux: as `gradient`.
      argnums: the explained argument, an array.
      window: its size along each of `axes`.
      stride: the distance between windows; `None` is the window's size.
      axes: the axes over which the window moves; it covers the others. `None` is all axes but
        the batch and, from three axes on, the last (channels).
      fill: what covers: a number or an array that broadcasts to the input.
      keep: see above.
      chunk: how many windows are evaluated together; `None` is all of them.

    Returns:
      A function as `gradient` returns.

    Source: Zeiler, Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014.

    >>> f = lambda w, x: x @ w
    >>> explain = occlusion(f, window=1)
    >>> explain(jnp.array([[1.0], [-2.0]]), jnp.array([[3.0, 1.0]]))
    Array([[ 3., -2.]], dtype=float32)
    """
    if not isinstance(argnums, int):
        raise TypeError(f"occlusion explains one argument, argnums must be an int, got {argnums!r}")

    def rule(model: Callable[[Any], Any], x: Any, weights: Any) -> Array:
        x = _explained.require_array(x, "occlusion")
        moved = _explained.spatial_axes(x.shape, axes)
        sizes = _explained.per_axis("window", window, moved)
        strides = _explained.per_axis("stride", window if stride is None else stride, moved)
        starts = np.stack(
            np.meshgrid(
                *(np.arange(0, x.shape[a], s) for a, s in zip(moved, strides, strict=True)),
                indexing="ij",
            ),
            -1,
        ).reshape(-1, len(moved))
        cover = jnp.broadcast_to(jnp.asarray(fill, x.dtype), x.shape)
        whole = _explained.score(model(x), weights)

        def one(corner: Array) -> Array:
            inside = jnp.ones((1,) * x.ndim, bool)
            for a, size, first in zip(moved, sizes, corner, strict=True):
                place = jnp.arange(x.shape[a]).reshape([-1 if i == a else 1 for i in range(x.ndim)])
                inside = inside & (place >= first) & (place < first + size)
            covered = jnp.where(inside ^ keep, cover, x)
            score = _explained.score(model(covered), weights)
            elements = inside.sum() * math.prod(
                x.shape[a] for a in range(1, x.ndim) if a not in moved
            )
            value = score if keep else (whole - score) / elements.astype(x.dtype)
            return inside * value.reshape((-1,) + (1,) * (x.ndim - 1)).astype(x.dtype)

        total = _explained.sum_of(one, jnp.asarray(starts), len(starts), chunk)
        return jnp.broadcast_to(total, x.shape)

    return _explanation(rule, f, argnums, has_aux)


def grad_cam(f: Callable[..., Any], layer: Any, argnums: int = 1) -> Explanation:
    """Class activation map by gradients: the channels of a layer weighted by their mean gradient.

        a_k = mean_p dscore/dA_pk,   map_p = max(0, sum_k a_k A_pk)

    The map is resized to the input's grid (linear) and shared equally by its channels.

    Args:
      f: function `(*args, **kwargs) -> output`.
      layer: which layer: a path glob or another match of one layer, as in a composite, or a
        path that `lrp_jax.plan` prints (`"ReLU:2"`; for a convolution that a relu follows, name
        the relu). Its output `A` must be `(batch, *positions, channels)`. For models that have no
        plan it may be a function, the rest of the model, and `f` the model up to the layer:
        `f(*args)` is then `A`, and `layer` called as `f`, but with `A` in the place of the
        explained argument, the output.
      argnums: the explained argument, an array `(batch, *positions, channels)`.

    Returns:
      A function `(*args, target=None, **kwargs) -> R` of the explained argument's shape.

    Raises:
      ValueError: for a layer that there is not, or whose output has other axes than the input.

    Source: Selvaraju et al., "Grad-CAM", ICCV 2017.

    >>> f = lambda w, x: jax.nn.relu(x @ w["a"]).mean((1, 2)) @ w["b"]
    >>> w = {"a": jnp.ones((1, 3)), "b": jnp.ones((3, 2))}
    >>> grad_cam(f, "ReLU")(w, jnp.ones((1, 4, 4, 1))).shape
    (1, 4, 4, 1)
    """
    if not isinstance(argnums, int):
        raise TypeError(f"grad_cam explains one argument, argnums must be an int, got {argnums!r}")
    look = (_at_cut if callable(layer) else _at_layer)(f, layer, argnums)

    def explain(*args: Any, target: Any = None, **kwargs: Any) -> Array:
        x = _explained.require_array(_explained.pick(args, argnums), "grad_cam")
        maps, slopes = look(args, kwargs, target)
        positions = tuple(range(1, maps.ndim - 1))
        cam = jax.nn.relu((slopes.mean(positions, keepdims=True) * maps).sum(-1, keepdims=True))
        cam = jax.image.resize(cam, (*x.shape[:-1], 1), "linear")
        return jnp.broadcast_to(cam / x.shape[-1], x.shape).astype(x.dtype)

    return explain


def _require_maps(maps: Any, x: Any) -> None:
    if len(np.shape(maps)) != len(np.shape(x)) or len(np.shape(x)) < 3:
        raise ValueError(
            "grad_cam needs features and input of the form (batch, *positions, channels), got "
            f"{np.shape(maps)} and {np.shape(x)}"
        )


def _at_cut(features: Callable[..., Array], head: Callable[..., Any], argnums: int) -> Any:
    """What features a call has, and the gradient of the score there."""

    def look(args: tuple[Any, ...], kwargs: dict[str, Any], target: Any) -> tuple[Array, Array]:
        maps = features(*args, **kwargs)
        _require_maps(maps, _explained.pick(args, argnums))

        def model(maps: Array) -> Any:
            return head(*_explained.replace(args, argnums, maps), **kwargs)

        changed = _explained.replace(args, argnums, maps)
        weights = _explained.weights(model(maps), target, partial(head, **kwargs), changed, argnums)
        return maps, _explained.gradient(model, maps, weights)

    return look


def _at_layer(f: Callable[..., Any], layer: Any, argnums: int) -> Any:
    """The output of a layer in a call, and the gradient of the score there."""
    from . import composites, queries, rules, transform
    from ._interpreter import key

    # Rules of modified gradients that serve no layer: every layer has its own gradient.
    plain = composites.Composite([(lambda layer: False, rules.GuidedBackprop())])
    explained = transform.Explained(f, plain, argnums, has_aux=False)

    def look(args: tuple[Any, ...], kwargs: dict[str, Any], target: Any) -> tuple[Array, Array]:
        call, leaves = explained.prepare(args, kwargs)

        def evaluate(begin: Any, composite: Any, leaves: Any, target: Any) -> Any:
            site = queries.one(call, layer, begin.form)
            if site.loops:
                raise ValueError(f"{queries.path_of(call, site)} lies in a loop: it has many maps")
            _require_maps(site.step.outputs[0].aval, _explained.pick(args, argnums))
            name = key("out", site.index)
            taps = {name: site.probe(site.step.outputs[0])}
            output, values, pullback = queries.pull_taps(
                call, begin.form, composite, leaves, taps, frozenset({site.index})
            )
            weights = _explained.weights(output, target)
            return values[name], pullback(weights, queries.zeros_like(values))[1][name]

        result: tuple[Array, Array] = explained.run(call, "grad_cam", evaluate, leaves, target)
        return result

    return look


def guided_backprop(
    f: Callable[..., Any], argnums: Any = 1, *, has_aux: bool = False
) -> Explanation:
    """Gradients that pass a relu only where they are positive: `R_in = [x > 0] [R > 0] R`.

    Args, Returns: as `gradient`.

    Source: Springenberg et al., "Striving for Simplicity", 2014.
    """
    from . import composites, transform

    return transform.relevance(f, composites.guided_backprop(), argnums=argnums, has_aux=has_aux)


def lrp0(f: Callable[..., Any], argnums: Any = 1, *, has_aux: bool = False) -> Explanation:
    """LRP with the basic rule in every layer: `R_i = x_i sum_j w_ij R_j / z_j`.

    Args, Returns: as `gradient`.

    Source: Bach et al., "On Pixel-Wise Explanations", PLoS ONE 2015.
    """
    from . import rules, transform

    return transform.relevance(f, rules.Zero(), argnums=argnums, has_aux=has_aux)


def random(
    f: Callable[..., Any], argnums: Any = 1, *, key: Array, has_aux: bool = False
) -> Explanation:
    """Standard normal noise, which knows nothing of the model: the floor of every comparison.

    The same key draws the same noise in every call of one shape.

    Args:
      f, argnums, has_aux: as `gradient`; `f` is not called.
      key: of the noise.

    Returns: as `gradient`.

    >>> explain = random(lambda w, x: x @ w, key=jax.random.key(0))
    >>> explain(jnp.ones((2, 1)), jnp.ones((1, 2))).shape
    (1, 2)
    """

    def rule(model: Callable[[Any], Any], x: Any, weights: Any) -> Any:
        leaves, tree = jax.tree.flatten(x)
        keys = jax.random.split(key, len(leaves))
        return jax.tree.unflatten(
            tree,
            [
                jax.random.normal(k, leaf.shape, leaf.dtype)
                for k, leaf in zip(keys, leaves, strict=True)
            ],
        )

    return _explanation(rule, f, argnums, has_aux)


def sobel(f: Callable[..., Any], argnums: Any = 1, *, has_aux: bool = False) -> Explanation:
    """The edges of the input, whatever the model: `R = sqrt(G_v^2 + G_h^2)`.

    `G_v` and `G_h` are the 3 x 3 Sobel filters of each channel, the border repeated. An
    explanation that scores no better shows edges, not evidence.

    Args:
      f, has_aux: as `gradient`.
      argnums: images `(batch, height, width, channels)`.

    Returns: as `gradient`.

    Source of the comparison: Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018.

    >>> explain = sobel(lambda w, x: x.mean((1, 2)))
    >>> float(explain(None, jnp.ones((1, 4, 4, 3))).max())
    0.0
    """

    def edges(x: Array) -> Array:
        if x.ndim != 4:
            raise ValueError(f"sobel needs images (batch, height, width, channels), got {x.shape}")
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")

        def smooth(a: Array, axis: int) -> Array:
            size = a.shape[axis]
            part = [jax.lax.slice_in_dim(a, i, size - 2 + i, axis=axis) for i in range(3)]
            return part[0] + 2 * part[1] + part[2]

        def slope(a: Array, axis: int) -> Array:
            size = a.shape[axis]
            return jax.lax.slice_in_dim(a, 2, size, axis=axis) - jax.lax.slice_in_dim(
                a, 0, size - 2, axis=axis
            )

        return jnp.hypot(slope(smooth(x, 2), 1), slope(smooth(x, 1), 2))

    def rule(model: Callable[[Any], Any], x: Any, weights: Any) -> Any:
        return jax.tree.map(edges, x)

    return _explanation(rule, f, argnums, has_aux)


def _explanation(
    rule: Callable[[Callable[[Any], Any], Any, Any], Any],
    f: Callable[..., Any],
    argnums: Any,
    has_aux: bool,
) -> Explanation:
    """Give a rule `(model of the explained arguments, these, weights) -> R` the form of
    `relevance`."""

    def explain(*args: Any, target: Any = None, **kwargs: Any) -> Any:
        x = _explained.pick(args, argnums)

        def run(x: Any) -> Any:
            return f(*_explained.replace(args, argnums, x), **kwargs)

        def model(x: Any) -> Any:
            return run(x)[0] if has_aux else run(x)

        x = jax.tree.map(_explained.floating, x)
        output, aux = run(x) if has_aux else (run(x), None)

        def call(*args: Any) -> Any:
            return f(*args, **kwargs)[0] if has_aux else f(*args, **kwargs)

        weights = _explained.weights(output, target, call, args, argnums)
        relevance = rule(model, x, weights)
        return (relevance, aux) if has_aux else relevance

    return explain
