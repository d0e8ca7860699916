"""Equinox: its layers put together, and networks out of its manual."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .guest import IMAGES, Case, Guest, drawn, filled

PACKAGE = "equinox"


def case(
    model: Any,
    x: Any,
    run: Callable[[Any, Any], Any] | None = None,
    name: str = "",
    mapped: bool = True,
) -> Case:
    """An Equinox model of one example, for a batch.

    Args:
        model: a module, or a function that makes it.
        x: a batch.
        run: how the module is called on one example; as it is by default.
        name: gives the seed of its weights.
        mapped: whether it is mapped over the batch, and not called on the only example.
    """
    import equinox as eqx

    if not isinstance(model, eqx.Module) and callable(model):
        model = described(model)
    model = eqx.nn.inference_mode(model)
    arrays, static = eqx.partition(model, is_number)
    run = run or (lambda model, x: model(x))

    def function(params: Any, x: Any) -> Any:
        whole = eqx.combine(params, static)
        return jax.vmap(lambda one: run(whole, one))(x) if mapped else run(whole, x[0])[None]

    return Case(function, filled(arrays, name or type(model).__name__), x)


def is_number(leaf: Any) -> bool:
    return jnp.issubdtype(getattr(leaf, "dtype", int), jnp.inexact)


def described(make: Callable[[], Any]) -> Any:
    """What a function makes, with shapes for numbers: nothing is computed if that is enough."""
    import equinox as eqx

    shapes = eqx.filter_eval_shape(make)
    leaves = jax.tree.leaves(shapes)
    floats = (jnp.issubdtype(getattr(v, "dtype", float), jnp.floating) for v in leaves)
    return shapes if all(floats) else make()


def key() -> Any:
    return jax.random.PRNGKey(0)


def mlp() -> Case:
    import equinox as eqx

    model = eqx.nn.MLP(6, 3, 8, 2, key=key())
    return case(model, drawn("mlp", 2, 6))


def gated_mlp() -> Case:
    import equinox as eqx

    model = eqx.nn.MLP(6, 3, 8, 2, activation=jax.nn.gelu, key=key())
    return case(model, drawn("gelu", 2, 6), name="gelu")


def convolutions() -> Case:
    import equinox as eqx

    k = jax.random.split(key(), 3)
    model = eqx.nn.Sequential([
        eqx.nn.Conv2d(2, 6, 3, key=k[0]),
        eqx.nn.Lambda(jax.nn.relu),
        eqx.nn.MaxPool2d(2, 2),
        eqx.nn.Conv2d(6, 8, 3, stride=2, padding=1, key=k[1]),
        eqx.nn.Lambda(jax.nn.relu),
        eqx.nn.AdaptiveAvgPool2d(2),
        eqx.nn.Lambda(jnp.ravel),
        eqx.nn.Linear(32, 3, key=k[2]),
    ])  # fmt: skip
    return case(model, drawn("conv", 2, 2, 12, 12), name="conv")


def transposed() -> Case:
    import equinox as eqx

    k = jax.random.split(key(), 4)
    model = eqx.nn.Sequential([
        eqx.nn.Conv1d(2, 6, 4, stride=2, padding=1, key=k[0]),
        eqx.nn.Lambda(jax.nn.relu),
        eqx.nn.ConvTranspose1d(6, 4, 4, stride=2, padding=1, key=k[1]),
        eqx.nn.Lambda(jax.nn.leaky_relu),
        eqx.nn.AvgPool1d(2, 2),
        eqx.nn.Lambda(jnp.ravel),
        eqx.nn.Linear(16, 3, key=k[2]),
    ])  # fmt: skip
    return case(model, drawn("transposed", 2, 2, 8), name="transposed")


def normalised(norm: Callable[[], Any]) -> Callable[[], Case]:
    def build() -> Case:
        import equinox as eqx

        k = jax.random.split(key(), 3)
        model = eqx.nn.Sequential([
            eqx.nn.Conv2d(2, 8, 3, padding=1, key=k[0]),
            norm(),
            eqx.nn.Lambda(jax.nn.silu),
            eqx.nn.Conv2d(8, 8, 3, padding=1, groups=2, key=k[1]),
            eqx.nn.Lambda(lambda x: x.mean((1, 2))),
            eqx.nn.Linear(8, 3, key=k[2]),
        ])  # fmt: skip
        return case(model, drawn("normalised", 2, 2, 6, 6), name="normalised")

    return build


def group_norm() -> Any:
    import equinox as eqx

    return eqx.nn.GroupNorm(4, 8)


def instance_norm() -> Any:
    import equinox as eqx

    return eqx.nn.GroupNorm(8, 8)


def batch_norm() -> Case:
    import equinox as eqx

    class Net(eqx.Module):
        first: Any
        norm: Any
        second: Any

        def __call__(self, x: Any, state: Any) -> Any:
            h, _ = self.norm(self.first(x), state)
            return self.second(jax.nn.relu(h).mean((1, 2)))

    k = jax.random.split(key(), 2)
    norm = eqx.nn.BatchNorm(8, "batch", mode="ema")
    net = Net(eqx.nn.Conv2d(2, 8, 3, key=k[0]), norm, eqx.nn.Linear(8, 3, key=k[1]))
    net, state = eqx.nn.make_with_state(lambda: net)()
    averages = (drawn("mean", 8), 0.5 + jnp.abs(drawn("variance", 8)))
    state = state.set(net.norm.ema_state_index, averages)
    state = state.set(net.norm.ema_first_time_index, jnp.array(False))
    whole, x = eqx.nn.inference_mode(net), drawn("batch", 2, 2, 8, 8)
    arrays, static = eqx.partition(whole, eqx.is_inexact_array)

    def function(params: Any, x: Any) -> Any:
        model = eqx.combine(params, static)
        return jax.vmap(lambda one: model(one, state), axis_name="batch")(x)

    return Case(function, filled(arrays, "batch norm"), x)


def recurrent(cell: str) -> Callable[[], Case]:
    def build() -> Case:
        import equinox as eqx

        k = jax.random.split(key(), 2)
        net = (getattr(eqx.nn, cell)(3, 5, key=k[0]), eqx.nn.Linear(5, 3, key=k[1]))

        def run(net: Any, xs: Any) -> Any:
            step, head = net
            zero = jnp.zeros(5)
            start = (zero, zero) if cell == "LSTMCell" else zero
            end, _ = jax.lax.scan(lambda h, x: (step(x, h), None), start, xs)
            return head(end[0] if cell == "LSTMCell" else end)

        return case(net, drawn(cell, 2, 4, 3), run, cell)

    return build


def attention(rotary: bool = False, heads: dict[str, Any] | None = None) -> Callable[[], Case]:
    def build() -> Case:
        import equinox as eqx

        k = jax.random.split(key(), 4)
        size = 8

        class Block(eqx.Module):
            attention: Any
            norm1: Any
            norm2: Any
            mlp: Any
            head: Any
            rope: Any

            def __call__(self, x: Any) -> Any:
                h = jax.vmap(self.norm1)(x)

                def rotated(q: Any, k: Any, v: Any) -> Any:
                    turn = jax.vmap(self.rope, in_axes=1, out_axes=1)
                    return turn(q), turn(k), v

                x = x + self.attention(h, h, h, process_heads=rotated if rotary else None)
                x = x + jax.vmap(self.mlp)(jax.vmap(self.norm2)(x))
                return self.head(x.mean(0))

        block = Block(
            eqx.nn.MultiheadAttention(2, size, use_query_bias=True, use_output_bias=True, key=k[0]),
            eqx.nn.LayerNorm(size),
            eqx.nn.RMSNorm(size),
            eqx.nn.MLP(size, size, 12, 1, activation=jax.nn.gelu, key=k[1]),
            eqx.nn.Linear(size, 3, key=k[2]),
            eqx.nn.RotaryPositionalEmbedding(size // 2) if rotary else None,
        )
        return case(block, drawn("attention", 2, 5, size), name="attention")

    return build


def mixer() -> Case:
    """MLP-Mixer as in the manual's example of diffusion."""
    import equinox as eqx

    class MixerBlock(eqx.Module):
        patches: Any
        hidden: Any
        norm1: Any
        norm2: Any

        def __call__(self, y: Any) -> Any:
            y = y + jax.vmap(self.patches)(self.norm1(y))
            y = y.T
            return (y + jax.vmap(self.hidden)(self.norm2(y))).T

    class Mixer(eqx.Module):
        inwards: Any
        outwards: Any
        blocks: Any
        norm: Any

        def __call__(self, y: Any) -> Any:
            y = self.inwards(y)
            hidden, height, width = y.shape
            y = y.reshape(hidden, height * width)
            for block in self.blocks:
                y = block(y)
            y = self.norm(y).reshape(hidden, height, width)
            return self.outwards(y).mean((1, 2))

    k = jax.random.split(key(), 6)
    blocks = [
        MixerBlock(
            eqx.nn.MLP(4, 4, 8, 1, key=k[i]),
            eqx.nn.MLP(6, 6, 8, 1, key=k[i + 2]),
            eqx.nn.LayerNorm((6, 4)),
            eqx.nn.LayerNorm((4, 6)),
        )
        for i in range(2)
    ]
    net = Mixer(
        eqx.nn.Conv2d(2, 6, 3, stride=3, key=k[4]),
        eqx.nn.ConvTranspose2d(6, 3, 3, stride=3, key=k[5]),
        blocks,
        eqx.nn.LayerNorm((6, 4)),
    )
    return case(net, drawn("mixer", 2, 2, 6, 6))


def guest(name: str, build: Callable[[], Case], **more: Any) -> Guest:
    return Guest(f"Equinox {name}", PACKAGE, build, **more)


FAMILIES: tuple[Guest, ...] = (
    guest("MLP", mlp, composites=IMAGES[:3]),
    guest("MLP (GELU)", gated_mlp, composites=("LRP-0", "z+", "EpsilonPlus")),
    guest("CNN", convolutions, composites=IMAGES),
    guest("CNN with BatchNorm", batch_norm, composites=IMAGES),
    guest("CNN with GroupNorm", normalised(group_norm)),
    guest("CNN with InstanceNorm", normalised(instance_norm)),
    guest("transposed CNN", transposed, composites=("LRP-0", "z+", "EpsilonPlus")),
    guest("LSTM", recurrent("LSTMCell"), loops=True),
    guest("GRU", recurrent("GRUCell"), loops=True),
    guest("transformer block", attention()),
    guest("transformer block with RoPE", attention(rotary=True)),
    guest("MLP-Mixer", mixer),
)
