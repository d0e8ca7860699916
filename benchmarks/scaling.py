"""How the price of an explanation grows: with batch, depth, resolution and number of targets.

    python -m benchmarks.scaling [--seconds 5] [--threads 1]

Writes `scaling.json`, `scaling.md` and `scaling.png` to a folder (`--out`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .__main__ import use_cores

AXES: dict[str, Sequence[int]] = {
    "batch": (1, 4, 16, 64),
    "depth": (2, 4, 8, 16),
    "resolution": (16, 32, 64, 128),
    "targets": (1, 2, 4, 8, 16),
}
"""What is varied; all else stays at 4 examples, 4 convolutions of 32 channels, 32 x 32 pixels and
1 target.
"""

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of rounds for each point")
    parser.add_argument("--threads", type=int, default=0, help="processor cores; 0: all")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"))
    options = parser.parse_args()
    threads = use_cores(options.threads)

    from . import report

    rows = [
        row for axis, values in AXES.items() for n in values for row in _point(axis, n, options)
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    described = {"machine": report.machine(threads), "records": rows}
    (options.out / "scaling.json").write_text(json.dumps(described, indent=1) + "\n")
    table = markdown(rows)
    (options.out / "scaling.md").write_text(table)
    figure(rows, options.out / "scaling.png")
    print(table)


def _point(axis: str, n: int, options: Any) -> list[Row]:
    """One explanation of each kind, and the gradient, at one value of one axis."""
    import jax
    import jax.numpy as jnp

    import lrp_jax as lrp

    from .measure import of_jax, race, spread
    from .networks import chain

    sizes = {"batch": 4, "depth": 4, "resolution": 32, "targets": 1, axis: n}
    side, count = sizes["resolution"], sizes["targets"]
    layers = [layer for _ in range(sizes["depth"]) for layer in (("conv", 32), ("relu",))]
    network = chain((side, side, 3), [*layers, ("flatten",), ("dense", 16)], "conv")
    params = network.init(jax.random.key(0))
    batches = [
        (jax.random.normal(jax.random.key(i), (sizes["batch"], *network.shape)),) for i in range(3)
    ]
    starts = jnp.eye(16)[:count, None]

    def pulled(apply: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        def run(params: Any, x: jax.Array) -> jax.Array:
            y, pullback = jax.vjp(lambda x: apply(params, x), x)
            return jax.vmap(lambda start: pullback(start * jnp.ones_like(y))[0])(starts)

        return run

    functions = {"jax.grad": pulled(network.apply)}
    for name, composite in (("Epsilon", lrp.Epsilon()), ("EpsilonPlus", lrp.EpsilonPlus())):
        functions[name] = pulled(lrp.lrp_transform(network.apply, composite))
    racing = [of_jax(name, f, params, batches, "") for name, f in functions.items()]
    race(racing, options.seconds, fewest=3, most=100)
    floor = racing[0].cpu_seconds
    return [
        {
            "axis": axis,
            "value": n,
            "system": c.name,
            "seconds": spread(c.cpu_seconds)[0],
            "ratio": spread([a / b for a, b in zip(c.cpu_seconds, floor, strict=True)])[0],
            "temporary_bytes": c.facts["temporary_bytes"],
        }
        for c in racing
    ]


def markdown(rows: Sequence[Row]) -> str:
    """A table for every axis: milliseconds of processor time, and the ratio to the gradient."""
    lines = []
    systems = list(dict.fromkeys(r["system"] for r in rows))
    for axis in AXES:
        lines += [
            "",
            f"| {axis} | " + " | ".join(systems) + " |",
            "|---" * (1 + len(systems)) + "|",
        ]
        for value in dict.fromkeys(r["value"] for r in rows if r["axis"] == axis):
            cells = [
                f"{1e3 * r['seconds']:.1f} ms, {r['ratio']:.2f}"
                for r in rows
                if (r["axis"], r["value"]) == (axis, value)
            ]
            lines.append(f"| {value} | " + " | ".join(cells) + " |")
    return "\n".join(lines[1:]) + "\n"


def figure(rows: Sequence[Row], path: Path) -> None:
    """A curve for each system, a panel for each axis."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(AXES), figsize=(3 * len(AXES), 2.8), layout="constrained")
    for panel, axis in zip(axes, AXES, strict=True):
        for system, colour in (("jax.grad", "0.5"), ("Epsilon", "C0"), ("EpsilonPlus", "C3")):
            chosen = [r for r in rows if (r["axis"], r["system"]) == (axis, system)]
            times = [1e3 * r["seconds"] for r in chosen]
            panel.loglog([r["value"] for r in chosen], times, "o-", color=colour, label=system)
        panel.set_xlabel(axis)
        panel.set_xticks(AXES[axis], [str(v) for v in AXES[axis]])
        panel.minorticks_off()
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("processor time (ms)")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
