"""Explanations that look at a model's layers."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .. import composites, rules
from .._calls.explained import Explained
from .._calls.looked_up import PLAIN
from .._propagation.loop import key
from ..questions import patching, sites
from ..targets import scoring
from ..transform import relevance
from .gradients import Explanation


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
        scoring.require_one(target)
        x = scoring.require_array(scoring.pick(args, argnums), "grad_cam")
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
        _require_maps(maps, scoring.pick(args, argnums))

        def model(maps: Array) -> Any:
            return head(*scoring.replace(args, argnums, maps), **kwargs)

        changed = scoring.replace(args, argnums, maps)
        weights = scoring.weights(model(maps), target, partial(head, **kwargs), changed, argnums)
        return maps, scoring.gradient(model, maps, weights)

    return look


def _at_layer(f: Callable[..., Any], layer: Any, argnums: int) -> Any:
    """The output of a layer in a call, and the gradient of the score there."""
    explained = Explained(f, PLAIN, argnums, has_aux=False)

    def look(args: tuple[Any, ...], kwargs: dict[str, Any], target: Any) -> tuple[Array, Array]:
        call, leaves = explained.prepare(args, kwargs)

        def evaluate(begin: Any, composite: Any, leaves: Any, target: Any) -> Any:
            site = sites.one(call, layer, begin.form)
            if site.loops:
                raise ValueError(f"{sites.path_of(call, site)} lies in a loop: it has many maps")
            _require_maps(site.step.outputs[0].aval, scoring.pick(args, argnums))
            name = key("out", site.index)
            taps = {name: site.probe(site.step.outputs[0])}
            output, values, pullback = sites.pull_taps(
                call, begin.form, composite, leaves, taps, frozenset({site.index})
            )
            weights = scoring.weights(output, target)
            return values[name], pullback(weights, sites.zeros_like(values))[1][name]

        return explained.run(call, "grad_cam", evaluate, leaves, target)

    return look


def attribution_patching(f: Callable[..., Any], layers: Any = "*", **options: Any) -> Explanation:
    """The effect of patching units of hidden layers, estimated by the gradient.

        effect(u) = (u_clean - u_corrupted) dscore/du   in the run on the corrupted input

    Args:
      f: function `(*args) -> output`.
      layers: which layers, as in `lrp_jax.patching`.
      **options: `argnums`, `axes` and `has_aux` of `lrp_jax.patching`.

    Returns:
      A function `(*args, corrupted, target=None) -> {path: effect}`, as `lrp_jax.patching`.

    Source: Nanda, "Attribution patching", 2023.

    >>> f = lambda w, x: jax.nn.relu(x @ w["a"]) @ w["b"]
    >>> w = {"a": jnp.eye(2), "b": jnp.ones((2, 1))}
    >>> x = jnp.array([[1.0, 2.0]])
    >>> print(attribution_patching(f, "ReLU")(w, x, x + 1)["ReLU"])
    [[-1. -1.]]
    """
    return patching(f, PLAIN, layers, **options)


def guided_backprop(
    f: Callable[..., Any], argnums: Any = 1, *, has_aux: bool = False
) -> Explanation:
    """Gradients that pass a relu only where they are positive: `R_in = [x > 0] [R > 0] R`.

    Args, Returns: as `gradient`.

    Source: Springenberg et al., "Striving for Simplicity", 2014.
    """
    return relevance(f, composites.guided_backprop(), argnums=argnums, has_aux=has_aux)


def lrp0(f: Callable[..., Any], argnums: Any = 1, *, has_aux: bool = False) -> Explanation:
    """LRP with the basic rule in every layer: `R_i = x_i sum_j w_ij R_j / z_j`.

    Args, Returns: as `gradient`.

    Source: Bach et al., "On Pixel-Wise Explanations", PLoS ONE 2015.
    """
    return relevance(f, rules.Zero(), argnums=argnums, has_aux=has_aux)
