"""State spaces, recurrences and differential equations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .families_equinox import case
from .guest import Case, Guest, drawn, filled, ids


def key() -> Any:
    return jax.random.PRNGKey(0)


def linax(model: str) -> Callable[[], Case]:
    def build() -> Case:
        import equinox as eqx
        import linax.models as models
        from linax.encoder import LinearEncoderConfig
        from linax.heads.classification import ClassificationHeadConfig

        made = getattr(models, f"{model}Config")(
            num_blocks=2,
            encoder_config=LinearEncoderConfig(in_features=3, out_features=8),
            head_config=ClassificationHeadConfig(out_features=3),
        )
        net = made.build(key=key())
        state = eqx.nn.State(net)
        for block in net.blocks:  # statistics of batch norms, as after training
            norm = block.norm
            averages = (drawn("mean", 8), 0.5 + jnp.abs(drawn("variance", 8)))
            state = state.set(norm.ema_state_index, averages)
            state = state.set(norm.ema_first_time_index, jnp.array(False))
        made = case(net, drawn(model, 1, 6, 3), lambda net, x: net(x, state, key())[0], model)
        # The output is the logarithm of a probability: of a certain one it is 0.
        head = eqx.tree_at(
            lambda p: p.head.linear.weight, made.params, replace_fn=lambda w: w / 1e3
        )
        return made._replace(params=head)

    return build


def discretax(module: str, model: str, **options: Any) -> Callable[[], Case]:
    def build() -> Case:
        import importlib

        import equinox as eqx

        made = getattr(importlib.import_module(f"discretax.models.{module}"), model)
        net = made(key(), hidden_dim=8, num_blocks=2, **options)
        state = eqx.nn.State(net)
        return case(net, drawn(model, 1, 8, 8), lambda net, x: net(x, state, key())[0][-1], model)

    return build


def mamba(package: str, version: str, **options: Any) -> Callable[[], Case]:
    """The logits of the next token."""

    def build() -> Case:
        import importlib

        from flax import nnx

        package_ = importlib.import_module(package)
        config = getattr(package_, f"{version}Config")(
            vocab_size=20, hidden_size=16, num_hidden_layers=2, chunk_size=4, **options
        )
        model = getattr(package_, f"{version}ForCausalLM")(config, rngs=nnx.Rngs(0))
        graph, params, rest = nnx.split(model, nnx.Param, ...)
        params = jax.tree.map(lambda p: p.astype(jnp.float64), params)

        def function(params: Any, x: Any) -> Any:
            out = nnx.merge(graph, params, rest)(x)
            return (out["logits"] if isinstance(out, dict) else out.logits)[:, -1]

        return Case(function, filled(params, version), ids(version, 1, 8, size=20))

    return build


def ode(
    solver: str, *, adaptive: bool, adjoint: str = "RecursiveCheckpointAdjoint", **options: Any
) -> Callable[[], Case]:
    """A neural ODE: an MLP says how the state moves; a head reads the last one."""

    def build() -> Case:
        import diffrax
        import equinox as eqx

        k = jax.random.split(key(), 2)
        net = (
            eqx.nn.MLP(4, 4, 6, 1, activation=jnp.tanh, key=k[0]),
            eqx.nn.Linear(4, 3, key=k[1]),
        )
        controller = diffrax.PIDController(1e-3, 1e-4) if adaptive else diffrax.ConstantStepSize()

        def run(net: Any, x: Any) -> Any:
            field, head = net
            found = diffrax.diffeqsolve(
                diffrax.ODETerm(lambda t, y, args: field(y)), getattr(diffrax, solver)(),
                0.0, 1.0, 0.25, x, stepsize_controller=controller, max_steps=8,
                adjoint=getattr(diffrax, adjoint)(**options), throw=False,
            )  # fmt: skip
            return head(found.ys[-1])

        return case(net, drawn(solver, 1, 4), run, solver)

    return build


def memory(name: str) -> Callable[[], Case]:
    """A recurrence of memax, by an associative scan where it has one."""

    def build() -> Case:
        from memax.equinox.train_utils import get_residual_memory_model

        net = get_residual_memory_model(name, 3, 9, 3, num_layers=1, key=key())
        start = jnp.array([True] + [False] * 5)
        wide = {"float32": jnp.float64, "complex64": jnp.complex128}

        def run(net: Any, x: Any) -> Any:
            state = jax.tree.map(
                lambda v: v.astype(wide.get(str(v.dtype), v.dtype)), net.initialize_carry()
            )
            return net(state, (x, start))[1][-1]

        return case(net, drawn(f"memory {name}", 1, 6, 3), run, f"memory {name}")

    return build


SOLVE = "no rule carries relevance through `custom_linear_solve`"
MEMORIES = [
    "NMax",
    "FART",
    "FWP",
    "DeltaNet",
    "DeltaProduct",
    "GDN",
    "FFM",
    "S6",
    "LRU",
    "LinearRNN",
    "Elman",
    "GRU",
    "MGU",
    "LSTM",
    "Stack",
    "Attention",
    "Attention-ALiBi",
]
FAMILIES: tuple[Guest, ...] = (
    Guest("discretax LRU", "discretax", discretax("lru", "LRU", state_dim=4), loops=True),
    Guest("discretax S5", "discretax", discretax("s5", "S5", state_dim=4), loops=True),
    Guest("discretax LinOSS", "discretax", discretax("linoss", "LinOSS", state_dim=4), loops=True),
    Guest(
        "Mamba-2",
        "mamba2-jax",
        mamba("mamba2_jax", "Mamba2", state_size=4, head_dim=8),
        loops=True,
        tolerance=1e-6,
    ),
    Guest(
        "discretax DeltaNet",
        "discretax",
        discretax("deltanet", "DeltaNet", n_heads=2, chunk_size=4),
        loops=True,
    ),
    Guest("linax LRU", "linax", linax("LRU"), loops=True),
    Guest("linax S5", "linax", linax("S5"), loops=True),
    Guest("linax LinOSS", "linax", linax("LinOSS"), loops=True),
    *(
        Guest(f"memax {name}", "memax", memory(name), loops=True, tolerance=1e-7)
        for name in MEMORIES
    ),
    Guest("memax Spherical", "memax", memory("Spherical"), refused=SOLVE),
    Guest("diffrax neural ODE, Euler", "diffrax", ode("Euler", adaptive=False), loops=True),
    Guest("diffrax neural ODE, Tsit5", "diffrax", ode("Tsit5", adaptive=True), loops=True),
    Guest(
        "diffrax neural ODE, Tsit5 in a bounded scan",
        "diffrax",
        ode("Tsit5", adaptive=True, adjoint="DirectAdjoint"),
        loops=True,
    ),
)

APART: tuple[Guest, ...] = (
    Guest(
        "Mamba-3", "mamba3-jax", mamba("mamba3_jax", "Mamba3", state_size=4, head_dim=8), loops=True
    ),
)
"""Not among the families yet: relevance is another one than the oracle's."""
