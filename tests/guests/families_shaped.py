"""Networks made so that what they compute has a shape: hyperbolic, monotone, convex, symmetric."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .families_collections import nnx_model
from .families_equinox import case
from .guest import ATTENTION, Case, Guest, drawn, filled


def linen(model: Any, x: Any, name: str) -> Case:
    """A Linen model, its output with classes last."""
    shapes = jax.eval_shape(lambda x: model.init(jax.random.PRNGKey(0), x), x)

    def function(params: Any, x: Any) -> Any:
        return jnp.real(model.apply(params, x)).reshape(len(x), -1)

    return Case(function, filled(shapes, name), x)


def lifted(x: Any) -> Any:
    """On the hyperboloid."""
    return jnp.concatenate([jnp.sqrt(1 + (x**2).sum(-1, keepdims=True)), x], -1)


def lorentz_attention(kind: str) -> Callable[[], Case]:
    def build() -> Case:
        import hyperbolix.nn_layers as layers
        from flax import nnx

        model = getattr(layers, kind)(
            5, 5, num_heads=2, rngs=nnx.Rngs(0), param_dtype=jnp.float64
        )  # fmt: skip
        return nnx_model(model, kind, drawn(kind, 1, 4, 4), lambda m, x: m(lifted(x))[:, -1])

    return build


def lorentz_layers() -> Case:
    from flax import nnx
    from hyperbolix.manifolds import Hyperboloid
    from hyperbolix.nn_layers import FGGLinear, HypLinearHyperboloidFHCNN, HypRegressionHyperboloid

    space = Hyperboloid(jnp.float64)
    usual: dict[str, Any] = dict(rngs=nnx.Rngs(0), param_dtype=jnp.float64)
    model = nnx.Sequential(
        HypLinearHyperboloidFHCNN(space, 5, 6, activation=jax.nn.relu, **usual),
        FGGLinear(6, 5, activation=jax.nn.relu, **usual),
        HypRegressionHyperboloid(space, 5, 3, **usual),
    )
    return nnx_model(model, "lorentz", drawn("lorentz", 2, 4), lambda m, x: m(lifted(x)))


def monotone() -> Case:
    from flax import nnx
    from mononet.jax import MonoLinear, MonoResidual

    rngs = nnx.Rngs(0)
    model = nnx.Sequential(
        MonoLinear(4, 6, activation="elu", rngs=rngs),
        MonoResidual(6, 6, activation="elu", rngs=rngs),
        MonoLinear(6, 3, rngs=rngs),
    )
    return nnx_model(model, "monotone", drawn("monotone", 2, 4), lambda m, x: m(x))


def convex() -> Case:
    from ott.neural.networks.icnn import ICNN

    return linen(ICNN(4, [6, 5]), drawn("icnn", 2, 4), "icnn")


def spins(kind: str, size: int = 6, **options: Any) -> Callable[[], Case]:
    """A neural quantum state: the logarithm of an amplitude."""

    def build() -> Case:
        import netket

        known = dict(
            symmetries=lambda: netket.graph.Chain(size),
            hilbert=lambda: netket.hilbert.Spin(0.5, N=size),
        )
        made = {k: known[k]() if v is None else v for k, v in options.items()}
        model = getattr(netket.models, kind)(param_dtype=float, **made)
        return linen(model, jnp.sign(drawn(kind, 2, size)), kind)

    return build


def world_model() -> Case:
    from xwm.nn import Transformer

    model = Transformer(8, 2, 2, key=jax.random.PRNGKey(0), qk_norm=True, layer_scale=0.1)
    return case(model, drawn("xwm", 1, 5, 8), lambda net, x: net(x).mean(0), "xwm")


TWO = dict(composites=ATTENTION[:2])
FAMILIES: tuple[Guest, ...] = (
    Guest("Hyperbolix Lorentz network", "hyperbolix", lorentz_layers),
    Guest(
        "Hyperbolix softmax attention",
        "hyperbolix",
        lorentz_attention("HyperbolicSoftmaxAttention"),
    ),
    Guest("mononet", "mononet", monotone),
    Guest("OTT input convex network", "ott-jax", convex, **TWO),
    Guest("NetKet RBM", "netket", spins("RBM", alpha=2)),
    Guest("NetKet RBM with phases", "netket", spins("RBMModPhase", alpha=1)),
    Guest("NetKet Jastrow", "netket", spins("Jastrow")),
    Guest("NetKet MLP", "netket", spins("MLP", hidden_dims_alpha=(2,))),
    Guest(
        "NetKet autoregressive network",
        "netket",
        spins("ARNNDense", 5, hilbert=None, layers=2, features=4),
    ),
    Guest(
        "NetKet GCNN",
        "netket",
        spins("GCNN", symmetries=None, layers=2, features=(3, 2), mode="fft"),
    ),
    Guest("xwm transformer", "xwm", world_model),
)

APART: tuple[Guest, ...] = (
    Guest(
        "Hyperbolix linear attention", "hyperbolix", lorentz_attention("HyperbolicLinearAttention")
    ),
    Guest("Hyperbolix full attention", "hyperbolix", lorentz_attention("HyperbolicFullAttention")),
)
"""Not among the families: relevance is another one than the oracle's."""
