"""What every layer does: heads by layers, tokens by layers, the strongest neurons."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .pieces import clean
from .tools import Scale, bound, by_name, colormap, is_dark, new_axes

_LETTER = 0.075
"""Inches that a letter of a name takes."""


def matrix(
    relevance: Any,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    ax: Any = None,
    *,
    scale: Scale = "max",
    cmap: Any = "relevance",
) -> Any:
    """A table of relevance as coloured cells, such as a `Generation`: what made each token.

    Args:
      relevance: `(rows, columns)`; NaN is a cell that is not there.
      rows: names, from the top.
      columns: names, or tokens with their tokenizer's marks.
      ax: matplotlib axes, new ones of the needed size if not given.
      scale, cmap: as `heatmap`.

    Returns:
      The axes.
    """
    values = np.asarray(relevance, float)
    named = tuple(
        n if names is None else len(names)
        for n, names in zip(values.shape, (rows, columns), strict=False)
    )
    if values.ndim != 2 or values.shape != named:
        raise ValueError(f"rows and columns are named for {named}, the shape is {values.shape}")
    height, width = values.shape
    shown = [
        name.replace("\n", "\\n").strip() or "␣"
        for name in clean(() if columns is None else columns)
    ]
    turned = max(map(len, shown), default=0) > 2
    beside = _LETTER * max(map(len, () if rows is None else rows), default=0)
    below = _LETTER * max(map(len, shown)) if turned else 0
    ax = new_axes(ax, (1.3 + beside + 0.22 * width, 0.7 + below + 0.22 * height))
    limit = bound(values, scale)
    colours = colormap(cmap).with_extremes(bad=(0, 0, 0, 0))
    cells = np.ma.masked_invalid(values)
    drawn = ax.pcolormesh(cells, cmap=colours, vmin=-limit, vmax=limit)
    ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    ax.tick_params(length=0, labelsize="small")
    ax.spines[:].set_linewidth(0.5)
    ax.set_xticks([])
    ax.set_yticks([])
    if rows is not None:
        ax.set_yticks(np.arange(height) + 0.5, rows)
    if columns is not None:
        ax.set_xticks(np.arange(width) + 0.5, shown, rotation=90 if turned else 0)
    bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.8, aspect=12, pad=0.02)
    bar.ax.tick_params(labelsize="small")
    bar.ax.locator_params(nbins=3)
    bar.outline.set_linewidth(0.5)
    return ax


def heads(
    found: Mapping[str, Any], ax: Any = None, *, scale: Scale = "max", cmap: Any = "relevance"
) -> Any:
    """The heads of every layer, the first layer at the bottom.

    Args:
      found: what `lrp_jax.head_relevance` gives for one example: by layer `(heads,)`, or
        `(layers, heads)` for layers in a loop.
      ax, scale, cmap: as `matrix`.

    Returns:
      The axes.
    """
    rows = list(_rows(found))
    width = max((len(row) for _, row in rows), default=0)
    values = np.full((len(rows), width), np.nan)
    for i, (_, row) in enumerate(rows):
        values[i, : len(row)] = row
    names = [str(i) for i in range(width)]
    ax = matrix(values[::-1], [n for n, _ in rows[::-1]], names, ax, scale=scale, cmap=cmap)
    ax.set_xlabel("head")
    return ax


def token_layers(
    found: Mapping[str, Any],
    tokens: Sequence[str],
    ax: Any = None,
    *,
    scale: Scale = "max",
    cmap: Any = "relevance",
) -> Any:
    """The tokens of every layer, the first layer at the bottom.

    Args:
      found: what `lrp_jax.token_layers` gives for one example: by layer `(tokens,)`, or
        `(layers, tokens)` for layers in a loop.
      tokens: strings, with their spaces or with a tokenizer's marks.
      ax, scale, cmap: as `matrix`.

    Returns:
      The axes.
    """
    rows = list(_rows(found))
    values = np.array([row for _, row in rows])[::-1]
    return matrix(values, [n for n, _ in rows[::-1]], tokens, ax, scale=scale, cmap=cmap)


def neurons(
    found: Mapping[str, Any], ax: Any = None, *, k: int = 20, cmap: Any = "relevance"
) -> Any:
    """The strongest neurons of all layers as bars.

    Args:
      found: what `lrp_jax.neuron_relevance` gives for one example: by layer `(neurons,)`, or
        `(layers, neurons)` for layers in a loop.
      ax: as `matrix`.
      k: how many.
      cmap: its two ends colour the bars.

    Returns:
      The axes.
    """
    rows = list(_rows(found))
    flat = [(float(r), f"{name} · {i}") for name, row in rows for i, r in enumerate(row)]
    best = sorted(flat, key=lambda pair: -abs(pair[0]))[:k]
    ax = new_axes(ax, (5, 0.8 + 0.2 * len(best)))
    values = [value for value, _ in best]
    ends = [colormap(cmap)(x) for x in (0.1, 0.9)]
    ax.barh(range(len(best)), values, 0.7, color=[ends[v > 0] for v in values])
    ax.axvline(0, color="white" if is_dark(ax) else "black", linewidth=0.5)
    ax.set_yticks(range(len(best)), [name for _, name in best])
    ax.set_ylim(len(best) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0, labelsize="small")
    ax.set_xlabel("relevance")
    ax.spines[["top", "right", "left"]].set_visible(False)
    return ax


def _rows(found: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Every layer by its name, those of a loop turn by turn: layers of one loop alternate."""
    by_name(found, "layers", "as head_relevance, token_layers and neuron_relevance return them")
    arrays = {name: np.asarray(value, float) for name, value in found.items()}
    if any(value.ndim not in (1, 2) for value in arrays.values()):
        shapes = {name: value.shape for name, value in arrays.items()}
        raise ValueError(f"the relevance of one example has one axis, or two in a loop: {shapes}")
    waiting: dict[str, np.ndarray] = {}

    def turns() -> Iterator[tuple[str, np.ndarray]]:
        for turn in range(max(map(len, waiting.values()), default=0)):
            for name, value in waiting.items():
                yield f"{name} [{turn}]", value[turn]
        waiting.clear()

    for name, value in arrays.items():
        if value.ndim == 2:
            if waiting and len(value) != len(next(iter(waiting.values()))):
                yield from turns()
            waiting[name] = value
            continue
        yield from turns()
        yield name, value
    yield from turns()
