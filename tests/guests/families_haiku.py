"""Haiku: `hk.nets`, its recurrent cores and the transformer of its examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .guest import IMAGES, Case, Guest, drawn, filled

PACKAGE = "dm-haiku"


def transformed(forward: Callable[..., Any], x: Any, name: str, *, trained: bool = False) -> Case:
    """A Haiku function, of an input and whether it trains if it has `trained` averages."""
    import haiku as hk

    net = hk.without_apply_rng(hk.transform_with_state(forward))
    mode = [True] if trained else []
    params, state = jax.eval_shape(lambda rng, x: net.init(rng, x, *mode), jax.random.PRNGKey(0), x)

    def average(path: Any, value: Any) -> Any:
        place = jax.tree_util.keystr(path)
        drew = drawn(name + place, *value.shape)
        return 0.5 + jnp.abs(drew) if "var_ema" in place else 0.4 * drew

    state = jax.tree_util.tree_map_with_path(average, state)
    mode = [False] if trained else []
    return Case(lambda params, x: net.apply(params, state, x, *mode)[0], filled(params, name), x)


def resnet(depth: str, bottleneck: bool, v2: bool) -> Callable[[], Case]:
    def build() -> Case:
        import haiku as hk

        def forward(x: Any, training: bool) -> Any:
            net = hk.nets.ResNet(
                (1, 1, 1, 1), 3, bottleneck=bottleneck, resnet_v2=v2,
                channels_per_group=(8, 8, 16, 16), use_projection=(True,) * 4,
            )  # fmt: skip
            return net(x, is_training=training)

        return transformed(forward, drawn(depth, 1, 32, 32, 3), depth, trained=True)

    return build


def mobilenet() -> Case:
    import haiku as hk

    def forward(x: Any, training: bool) -> Any:
        net = hk.nets.MobileNetV1((1, 2), (8, 8), num_classes=3)
        return net(x, is_training=training)

    return transformed(forward, drawn("mobile", 1, 16, 16, 3), "mobile", trained=True)


def vqvae() -> Case:
    import haiku as hk

    def forward(x: Any) -> Any:
        h = hk.Conv2D(8, 4, 2)(x)
        h = hk.Conv2D(4, 3, 1)(jax.nn.relu(h))
        h = hk.nets.VectorQuantizer(4, 6, 0.25)(h, is_training=False)["quantize"]
        h = hk.Conv2DTranspose(6, 4, 2)(h)
        return hk.Linear(3)(hk.Flatten()(jax.nn.relu(h)))

    return transformed(forward, drawn("vq", 1, 8, 8, 2), "vq")


def autoencoder() -> Case:
    import haiku as hk

    def forward(x: Any) -> Any:
        h = jax.nn.relu(hk.Conv2D(6, 3, 2)(x))
        h = jax.nn.relu(hk.Conv2DTranspose(4, 3, 2)(h))
        h = jax.nn.relu(hk.DepthwiseConv2D(2, 3)(h))
        return hk.Linear(3)(hk.avg_pool(h, 2, 2, "VALID").reshape(x.shape[0], -1))

    return transformed(forward, drawn("auto", 1, 8, 8, 2), "auto")


def recurrent(core: str, **options: Any) -> Callable[[], Case]:
    def build() -> Case:
        import haiku as hk

        def forward(x: Any) -> Any:
            made = getattr(hk, core)(5, **options)
            unrolled, _ = hk.dynamic_unroll(
                made, jnp.swapaxes(x, 0, 1), made.initial_state(x.shape[0])
            )
            return hk.Linear(3)(unrolled[-1])

        return transformed(forward, drawn(core, 2, 4, 3), core)

    return build


def deep_recurrent() -> Case:
    import haiku as hk

    def forward(x: Any) -> Any:
        core = hk.DeepRNN([hk.LSTM(5), jax.nn.tanh, hk.GRU(4)])
        unrolled, _ = hk.static_unroll(core, jnp.swapaxes(x, 0, 1), core.initial_state(x.shape[0]))
        return hk.Linear(3)(unrolled[-1])

    return transformed(forward, drawn("deep", 2, 3, 3), "deep")


def transformer() -> Case:
    """The one of Haiku's examples: pre-norm, causal, with learned positions."""
    import haiku as hk

    def forward(x: Any) -> Any:
        size = x.shape[-1]
        positions = hk.get_parameter("positions", x.shape[1:], init=jnp.zeros)
        h = x + positions
        mask = jnp.tril(jnp.ones((1, 1, x.shape[1], x.shape[1])))
        for _ in range(2):
            norm = hk.LayerNorm(-1, True, True)
            made = hk.MultiHeadAttention(2, size // 2, model_size=size, w_init_scale=1.0)
            a = norm(h)
            h = h + made(a, a, a, mask=mask)
            block = hk.Sequential([hk.Linear(2 * size), jax.nn.gelu, hk.Linear(size)])
            h = h + block(hk.LayerNorm(-1, True, True)(h))
        return hk.Linear(3)(hk.LayerNorm(-1, True, True)(h)[:, -1])

    return transformed(forward, drawn("transformer", 2, 4, 8), "transformer")


def guest(name: str, build: Callable[[], Case], **more: Any) -> Guest:
    return Guest(f"Haiku {name}", PACKAGE, build, **more)


FAMILIES: tuple[Guest, ...] = (
    guest("ResNet-18", resnet("18", False, False), composites=IMAGES),
    guest("ResNet-50", resnet("50", True, False), composites=IMAGES),
    guest("ResNet-50 v2", resnet("50v2", True, True), composites=IMAGES),
    guest("MobileNetV1", mobilenet, composites=IMAGES),
    guest("VQ-VAE", vqvae, composites=("LRP-0",)),
    guest("autoencoder", autoencoder, composites=IMAGES),
    guest("LSTM", recurrent("LSTM"), loops=True),
    guest("GRU", recurrent("GRU"), loops=True),
    guest("vanilla RNN", recurrent("VanillaRNN"), loops=True),
    # A number is added to one part of what its packed layers make: the plan has the parts.
    guest("deep RNN", deep_recurrent, loops=True),
    guest("transformer", transformer),
)
