"""The plan as a graph, and the ledger as bars."""

from collections.abc import Mapping
from typing import Any

from ._plot_tools import new_axes

# Okabe and Ito's colours, pale enough for black text.
_KIND_COLOURS = ("#cfe6f5", "#fde3cc", "#d0ece2", "#f3dde9", "#fbf3c4", "#e4e4e4", "#ddf1fb")


def plan(plan: Any, ax: Any = None, *, relevance: Mapping[str, float] | None = None) -> Any:
    """The layers of a plan as a graph, input at the top: kind, path and rule in each box.

    Args:
      plan: what `lrp_jax.plan(...)(...)` returns.
      ax: matplotlib axes, new ones of the needed size if not given.
      relevance: by path the relevance at a layer's output; the lines from there are as wide as
        its size.

    Returns:
      The axes.
    """
    layers = plan.layers
    if not layers:
        raise ValueError("the plan has no layers")
    parents = {layer.index: _direct(layer, layers) for layer in layers}
    row: dict[int, int] = {}
    for layer in layers:
        row[layer.index] = 1 + max((row[p] for p in parents[layer.index]), default=-1)
    column = _columns(layers, parents, row)
    width, height = max(column.values()) + 1, max(row.values()) + 1
    ax = new_axes(ax, (2.9 * width, 0.72 * height))
    size = {path: abs(float(r)) for path, r in (relevance or {}).items()}
    widest = max(size.values(), default=0) or 1.0
    kinds = list(dict.fromkeys(layer.kind.label for layer in layers))
    for layer in layers:
        x, y = column[layer.index], row[layer.index]
        for p in parents[layer.index]:
            source = layers[[one.index for one in layers].index(p)].path
            ax.annotate(
                "",
                xy=(x, y - 0.3),
                xytext=(column[p], row[p] + 0.3),
                arrowprops={
                    "arrowstyle": "-",
                    "color": "#7f7f7f" if relevance is None else "#d55e00",
                    "linewidth": 1 if relevance is None else 0.3 + 5 * size.get(source, 0) / widest,
                    "shrinkA": 0,
                    "shrinkB": 0,
                },
            )
        colour = _KIND_COLOURS[kinds.index(layer.kind.label) % len(_KIND_COLOURS)]
        box = {
            "boxstyle": "round,pad=0.35",
            "facecolor": colour,
            "edgecolor": "#7f7f7f",
            "linewidth": 0.6,
        }
        ax.text(
            x,
            y,
            f"{_short(layer.path)}\n{layer.kind.label}: {_short(layer.rule)}",
            ha="center",
            va="center",
            fontsize=7,
            color="black",
            bbox=box,
        )
    ax.set_xlim(-0.55, width - 0.45)
    ax.set_ylim(height - 0.5, -0.5)
    ax.axis("off")
    return ax


def _direct(layer: Any, layers: Any) -> list[int]:
    """The layers right above: those above that are above no other one above."""
    above = {one.index: one for one in layers if one.index in layer.above}
    hidden = {n for one in above.values() for n in one.above}
    return [n for n in above if n not in hidden]


def _columns(layers: Any, parents: dict[int, list[int]], row: dict[int, int]) -> dict[int, int]:
    """A column for each layer: that of its first parent where it is free, else the next."""
    taken: set[tuple[int, int]] = set()
    column: dict[int, int] = {}
    for layer in layers:
        wanted = min((column[p] for p in parents[layer.index]), default=0)
        while (row[layer.index], wanted) in taken:
            wanted += 1
        taken.add((row[layer.index], wanted))
        column[layer.index] = wanted
    return column


def _short(name: str, length: int = 30) -> str:
    return name if len(name) <= length else "..." + name[3 - length :]
