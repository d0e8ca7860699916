"""Neural operators, and networks of splines and polynomials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .families_equinox import case
from .guest import ATTENTION, Case, Guest, drawn, filled


def key() -> Any:
    return jax.random.PRNGKey(0)


def mean(net: Any, x: Any) -> Any:
    """Of a field, what each channel is on average."""
    return net(x).mean(-1)


def fourier() -> Case:
    from norax.models import FNO

    def net() -> Any:
        return FNO(key(), 2, 3, (3,), width=4, depth=2)

    return case(net, drawn("fno", 1, 8, 2), lambda net, x: net(x).mean(0), "fno")


def pde(name: str, *, size: int = 8, **options: Any) -> Callable[[], Case]:
    def build() -> Case:
        import pdequinox.arch as arch

        def net() -> Any:
            return getattr(arch, name)(1, 2, 3, key=key(), **options)

        return case(net, drawn(name, 1, 2, size), mean, name)

    return build


def kan(kind: str, **options: Any) -> Callable[[], Case]:
    def build() -> Case:
        from flax import nnx
        from jaxkan.models.KAN import KAN

        net = KAN([4, 5, 3], kind, options or None, 0)
        shape, params, rest = nnx.split(net, nnx.Param, ...)
        rest = jax.tree.map(lambda v: v.astype(jnp.float64) if v.dtype == jnp.float32 else v, rest)
        x = 0.5 * jnp.tanh(drawn(kind, 2, 4))
        return Case(lambda p, x: nnx.merge(shape, p, rest)(x), filled(params, kind), x)

    return build


def neojax(model: str, *options: Any, **more: Any) -> Callable[[], Case]:
    def build() -> Case:
        import neojax.models

        net = getattr(neojax.models, model)(key(), 2, 3, 4, *options, **more)
        return case(net, drawn(model, 1, 2, 8), mean, model)

    return build


def branch_and_trunk() -> Case:
    import equinox as eqx
    from neojax.models import DeepONet

    places = drawn("places", 3, 2)
    net = DeepONet(*(eqx.nn.MLP(n, 5, 6, 1, key=key()) for n in (4, 2)))

    def run(net: Any, x: Any) -> Any:
        return jax.vmap(lambda place: net(x, place))(places)

    return case(net, drawn("deeponet", 2, 4), run, "deeponet")


TWO = dict(composites=ATTENTION[:2])
FAMILIES: tuple[Guest, ...] = (
    Guest("norax FNO", "norax", fourier, **TWO),
    Guest(
        "PDEquinox FNO",
        "pdequinox",
        pde("ClassicFNO", hidden_channels=4, num_modes=3, num_blocks=2),
        **TWO,
    ),
    Guest("PDEquinox ConvNet", "pdequinox", pde("ConvNet", hidden_channels=4, depth=2), **TWO),
    Guest(
        "PDEquinox modern ResNet",
        "pdequinox",
        pde("ModernResNet", hidden_channels=4, num_blocks=2),
        **TWO,
    ),
    Guest(
        "PDEquinox dilated ResNet",
        "pdequinox",
        pde("DilatedResNet", hidden_channels=4, num_blocks=1, dilation_rates=(1, 2)),
        **TWO,
    ),
    Guest(
        "PDEquinox U-Net", "pdequinox", pde("ClassicUNet", hidden_channels=4, num_levels=2), **TWO
    ),
    Guest(
        "PDEquinox modern U-Net",
        "pdequinox",
        pde("ModernUNet", hidden_channels=4, num_levels=2, num_blocks=1),
        **TWO,
    ),
    Guest("neojax FNO", "neojax-operators", neojax("FNO", 2, (3,)), **TWO),
    Guest(
        "neojax TFNO",
        "neojax-operators",
        neojax("FNO", 2, (3,), factorization="tucker", ranks=2),
        **TWO,
    ),
    Guest(
        "neojax U-NO",
        "neojax-operators",
        neojax("UNO", [4, 4], [[3], [3]], [[0.5], [2]], n_fno_layers=2),
        **TWO,
    ),
    Guest("neojax DeepONet", "neojax-operators", branch_and_trunk),
    Guest("jaxKAN spline", "jaxkan", kan("base", k=3, G=3), **TWO),
    Guest("jaxKAN Chebyshev", "jaxkan", kan("chebyshev", D=3), **TWO),
    Guest("jaxKAN Fourier", "jaxkan", kan("fourier", D=3), **TWO),
    Guest("jaxKAN RBF", "jaxkan", kan("rbf", D=3), **TWO),
)
