"""Normalizing flows and Bayesian networks."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp

from .families_equinox import case
from .guest import ATTENTION, Case, Guest, drawn, filled

SIZE = 4


def flow(name: str, **options: Any) -> Callable[[], Case]:
    """Of a number's parts, what noise they come from."""

    def build() -> Case:
        import flowjax.flows as flows
        import paramax
        from flowjax.distributions import Normal

        def model() -> Any:
            return getattr(flows, name)(
                jax.random.key(0), base_dist=Normal(jnp.zeros(SIZE)), flow_layers=2, **options
            )

        def run(net: Any, x: Any) -> Any:
            return paramax.unwrap(net).bijection.inverse(x)

        return case(model(), drawn(name, 2, SIZE), run, name)

    return build


def coupling() -> Case:
    """Real NVP: each half is shifted and scaled by a network of the other."""
    import distrax

    def network(params: Any, x: Any) -> Any:
        h = jnp.tanh(x @ params["in"]["w"] + params["in"]["b"])
        y = h @ params["out"]["w"] + params["out"]["b"]
        return y.reshape(*y.shape[:-1], SIZE, 2)

    def bijector(y: Any) -> Any:
        return distrax.ScalarAffine(shift=y[..., 0], log_scale=jnp.tanh(y[..., 1]))

    def function(params: Any, x: Any) -> Any:
        mask = jnp.arange(SIZE) % 2 == 0
        layers = [
            distrax.MaskedCoupling(
                mask=mask if i % 2 else ~mask, bijector=bijector,
                conditioner=lambda v, i=i: network(params[str(i)], v),
            )
            for i in range(2)
        ]  # fmt: skip
        return distrax.Chain(layers).forward(x)

    shapes = {
        str(i): {
            "in": dict(w=jnp.zeros((SIZE, 6)), b=jnp.zeros(6)),
            "out": dict(w=jnp.zeros((6, 2 * SIZE)), b=jnp.zeros(2 * SIZE)),
        }
        for i in range(2)
    }
    return Case(function, filled(shapes, "nvp"), drawn("nvp", 2, SIZE))


def bayesian() -> Case:
    """The network of numpyro's example, at one draw of its weights: the mean that it observes."""
    import numpyro
    import numpyro.distributions as dist
    from numpyro import handlers

    sizes = (SIZE, 6, 6, 3)

    def model(x: Any) -> Any:
        z = x
        for i, (a, b) in enumerate(pairwise(sizes)):
            w = numpyro.sample(f"w{i}", dist.Normal(jnp.zeros((a, b)), jnp.ones((a, b))))
            z = z @ w
            z = jnp.tanh(z) if b != sizes[-1] else z
        precision = numpyro.sample("precision", dist.Gamma(3.0, 1.0))
        numpyro.sample("y", dist.Normal(z, 1.0 / jnp.sqrt(precision)).to_event(1))
        return z

    def function(params: Any, x: Any) -> Any:
        return handlers.substitute(handlers.seed(model, 0), params)(x)

    shapes = {f"w{i}": jnp.zeros(s) for i, s in enumerate(pairwise(sizes))}
    params = filled(shapes, "bnn") | dict(precision=jnp.asarray(1.0))
    return Case(function, params, drawn("bnn", 2, SIZE))


def of_module(framework: str) -> Callable[[], Case]:
    """A network with random weights, by `random_flax_module` and its like."""

    def build() -> Case:
        import equinox as eqx
        import flax.linen as nn
        import numpyro
        import numpyro.distributions as dist
        from numpyro import handlers
        from numpyro.contrib import module

        class Net(nn.Module):
            @nn.compact
            def __call__(self, x: Any) -> Any:
                return nn.Dense(3)(nn.relu(nn.Dense(6)(x)))

        def model(x: Any) -> Any:
            prior = dist.Normal(0.0, 1.0)
            if framework == "Flax":
                net = module.random_flax_module("net", Net(), prior, input_shape=(1, SIZE))
            else:
                mlp = eqx.nn.MLP(SIZE, 3, 6, 1, key=jax.random.PRNGKey(0))
                net = jax.vmap(module.random_eqx_module("net", mlp, prior))
            return numpyro.deterministic("mean", net(x))

        x = drawn(framework, 2, SIZE)
        trace = handlers.trace(handlers.seed(model, 0)).get_trace(x)
        draws = {k: v["value"] for k, v in trace.items() if v["type"] == "sample"}
        given = {k: v["value"] for k, v in trace.items() if v["type"] == "param"}

        def function(params: Any, x: Any) -> Any:
            return handlers.substitute(handlers.seed(model, 0), {**given, **params})(x)

        return Case(function, filled(draws, framework), x)

    return build


TWO = dict(composites=ATTENTION[:2])
LOOPS = dict(composites=ATTENTION[:2], loops=True)
FAMILIES: tuple[Guest, ...] = (
    Guest("FlowJAX coupling flow", "flowjax", flow("coupling_flow", nn_width=6), **LOOPS),
    Guest(
        "FlowJAX masked autoregressive flow",
        "flowjax",
        flow("masked_autoregressive_flow", nn_width=6),
        **LOOPS,
    ),
    Guest(
        "FlowJAX planar flow",
        "flowjax",
        flow("planar_flow", negative_slope=0.1, width_size=6, depth=1),
        **LOOPS,
    ),
    Guest(
        "FlowJAX triangular spline flow",
        "flowjax",
        flow("triangular_spline_flow", knots=4),
        **LOOPS,
    ),
    Guest("distrax Real NVP", "distrax", coupling, **TWO),
    Guest("NumPyro Bayesian network", "numpyro", bayesian, **TWO),
    Guest("NumPyro random Flax module", "numpyro", of_module("Flax"), **TWO),
    Guest("NumPyro random Equinox module", "numpyro", of_module("Equinox"), **TWO),
)
