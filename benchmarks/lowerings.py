"""Every lowering against XLA's own operation: `python -m benchmarks.lowerings`.

Run it on the processor: elsewhere the lowerings are not used, and both columns are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lrp_jax._propagation.lowerings import lowering

from .measure import Contestant, of_jax, race, spread

Function = Callable[..., jax.Array]


def _pool(window: int, stride: int, pad: int) -> Function:
    sizes, strides = (1, window, window, 1), (1, stride, stride, 1)
    padding = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    return lambda x: lax.reduce_window(x, -jnp.inf, lax.max, sizes, strides, padding)


def _conv(stride: int, padding: str, groups: int = 1) -> Function:
    numbers = ("NHWC", "HWIO", "NHWC")
    return lambda x, w: lax.conv_general_dilated(
        x, w, (stride, stride), padding, dimension_numbers=numbers, feature_group_count=groups
    )


CASES: dict[str, tuple[Function, tuple[tuple[int, ...], ...]]] = {
    "max pool 2x2, 32x28x28x64": (_pool(2, 2, 0), ((32, 28, 28, 64),)),
    "max pool 2x2, 1x224x224x64": (_pool(2, 2, 0), ((1, 224, 224, 64),)),
    "max pool 3x3 / 2, 1x112x112x64": (_pool(3, 2, 1), ((1, 112, 112, 64),)),
    "patches 16x16, 1x224x224x3": (_conv(16, "VALID"), ((1, 224, 224, 3), (16, 16, 3, 192))),
    "depthwise 3x3, 8x28x28x256": (_conv(1, "SAME", 256), ((8, 28, 28, 256), (3, 3, 1, 256))),
    "depthwise 5x5 / 2, 1x56x56x144": (_conv(2, "SAME", 144), ((1, 56, 56, 144), (5, 5, 1, 144))),
}


def _both(name: str) -> list[Contestant]:
    """The operation and its input's cotangent, as XLA has them and as lowered."""
    native, shapes = CASES[name]
    operands = [jax.random.normal(jax.random.key(i), s) for i, s in enumerate(shapes)]
    ours = lowering(jax.make_jaxpr(native)(*operands).eqns[-1])
    assert ours is not None, f"{name} has no lowering"

    def there_and_back(function: Function) -> Callable[..., Any]:
        def run(rest: Any, x: jax.Array) -> Any:
            y, pullback = jax.vjp(lambda v: function(v, *rest), x)
            return y, pullback(y)[0]

        return run

    batches = [(operands[0] + shift,) for shift in (0.0, 0.1, 0.2)]
    return [
        of_jax(label, there_and_back(function), operands[1:], batches, "")
        for label, function in (("XLA", native), ("lowered", ours))
    ]


def main() -> None:
    print("| there and back | XLA ms | lowered ms | times faster |\n|---|---|---|---|")
    for name in CASES:
        racing = _both(name)
        race(racing, seconds=3.0, fewest=5, most=100)
        (before, _), (after, _) = (spread(c.cpu_seconds) for c in racing)
        print(f"| {name} | {1e3 * before:.2f} | {1e3 * after:.2f} | {before / after:.1f} |")


if __name__ == "__main__":
    main()
