"""The plan and the flow between concepts as graphs, and the ledger as bars."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._tables import brief
from ..plan import Plan
from .tokens import hexadecimal, ink_on
from .tools import bound, colormap, distinct, is_dark, new_axes

Place = tuple[float, float]

# Pale enough for black text, and dark enough for white text.
_KIND_COLOURS = {
    False: ("#cfe6f5", "#fde3cc", "#d0ece2", "#f3dde9", "#fbf3c4", "#e4e4e4", "#ddf1fb"),
    True: ("#0b3f5f", "#6b3208", "#0c4f3b", "#5a2c48", "#5c4a06", "#3f3f3f", "#1c4a63"),
}
_HATCHES = ("", "///", "...", "xxx")


def plan(plan: Any, ax: Any = None, *, relevance: Mapping[str, Any] | None = None) -> Any:
    """The layers of a plan as a graph, input at the top: kind, path and rule in each box.

    A line joins a layer with each one it reads from; those that pass by others run beside them.

    Args:
      plan: what `lrp_jax.plan(...)(...)` returns.
      ax: matplotlib axes, new ones of the needed size if not given.
      relevance: by path the relevance at a layer's output, or its sum; the lines from there are as
        wide as its size. `"input"` is that of the input.

    Returns:
      The axes.
    """
    if not isinstance(plan, Plan):
        raise TypeError(f"a plan is what lrp_jax.plan returned, got {type(plan).__name__}")
    layers = plan.layers
    if not layers:
        raise ValueError("the plan has no layers")
    read = {layer.index: layer.parents or _direct(layer, layers) for layer in layers}
    # A scan's carry comes from a later layer, too; the picture is that of one step.
    parents = {n: [p for p in found if p < n] or [-1] for n, found in read.items()}
    row = {-1: 0}
    for layer in layers:
        row[layer.index] = 1 + max(row[p] for p in parents[layer.index])
    column = _columns(layers, parents, row)
    edges = [(p, layer.index) for layer in layers for p in parents[layer.index]]
    lanes = _lanes(edges, column, row)
    width = max([*column.values(), *(lane - 0.45 for lane in lanes.values())]) + 1
    height = max(row.values()) + 1
    kinds = list(dict.fromkeys(layer.kind.label for layer in layers))
    boxes = [(-1, "input", -1)]
    for layer in layers:
        text = f"{_short(layer.path)}\n{layer.kind.label}: {_begun(brief(layer.rule))}"
        boxes.append((layer.index, text, kinds.index(layer.kind.label)))
    longest = max(len(line) for _, text, _ in boxes for line in text.split("\n"))
    ax = new_axes(ax, ((0.06 * longest + 0.8) * width, 0.72 * height))
    names = {-1: "input"} | {layer.index: layer.path for layer in layers}
    size = {path: abs(float(np.sum(r))) for path, r in (relevance or {}).items()}
    if unknown := [path for path in size if path not in names.values()]:
        raise ValueError(f"relevance of {unknown[0]!r}: the plan has no layer of that name")
    widest = max(size.values(), default=0) or 1.0
    for p, n in edges:
        wide = 1 if relevance is None else 0.3 + 5 * size.get(names[p], 0) / widest
        colour = "#7f7f7f" if relevance is None else "#d55e00"
        ends = (column[p], row[p]), (column[n], row[n])
        ax.add_patch(_line(*ends, lanes.get((p, n)), colour, wide))
    dark = is_dark(ax)
    grounds, ink = _KIND_COLOURS[dark], "white" if dark else "black"
    for index, text, kind in boxes:
        ground = ("black" if dark else "white") if kind < 0 else grounds[kind % len(grounds)]
        box = _box("round,pad=0.35", ground, 0.6)
        place = {"ha": "center", "va": "center", "fontsize": 7, "color": ink, "bbox": box}
        ax.text(column[index], row[index], text, **place)
    ax.set_xlim(-0.55, width - 0.45)
    ax.set_ylim(height - 0.5, -0.5)
    ax.axis("off")
    return ax


def _line(start: Place, end: Place, lane: float | None, colour: str, width: float) -> Any:
    """From the lower side of a box to the upper side of another one, along a lane if there is."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    # The ends lie behind the boxes, however high these are.
    (x, y), (to, below) = (start[0], start[1] + 0.1), (end[0], end[1] - 0.1)
    if lane is None:
        middle = (y + below) / 2
        points = [(x, y), (x, middle + 0.2), (to, middle - 0.2), (to, below)]
        codes = [Path.MOVETO, *[Path.CURVE4] * 3]
    else:
        points = [(x, y), (x, y + 0.6), (lane, y + 0.3), (lane, y + 0.9), (lane, below - 0.9)]
        points += [(lane, below - 0.3), (to, below - 0.6), (to, below)]
        codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3]
    path = Path(points, codes)
    return PathPatch(path, fill=False, edgecolor=colour, linewidth=width, capstyle="round")


def concept_graph(
    graph: Any, ax: Any = None, *, example: int = 0, k: int = 5, cmap: Any = "relevance"
) -> Any:
    """The strongest concepts of each layer and what they hand on, the output's side on top.

    Args:
      graph: what `lrp_jax.questions.concept_graph(...)(...)` returns.
      ax: matplotlib axes, new ones of the needed size if not given.
      example: which example.
      k: how many concepts of each layer, ordered by their relevance.
      cmap: as `heatmap`. A circle has the colour of its concept's relevance, a line the sign, and
        the strength and width of what flows along it.

    Returns:
      The axes.
    """
    if not hasattr(graph, "strongest"):
        raise TypeError(f"a graph is what concept_graph returned, got {type(graph).__name__}")
    chosen = graph.strongest(example, k)
    scores = [np.asarray(s[example])[u] for s, u in zip(graph.scores, chosen, strict=True)]
    ax = new_axes(ax, (1.1 * max(map(len, chosen)) + 1.2, 1.3 * len(chosen)))
    colours, width = colormap(cmap), max(map(len, chosen))
    places = [np.arange(len(units)) + (width - len(units)) / 2 for units in chosen]
    for row, edges in enumerate(graph.edges):
        flow = np.asarray(edges[example])[np.ix_(chosen[row], chosen[row + 1])]
        limit = bound(flow)
        for (i, j), amount in sorted(np.ndenumerate(flow), key=lambda edge: abs(edge[1])):
            strength = float(np.nan_to_num(np.minimum(abs(amount) / limit, 1)))
            # Little is faint on any background.
            line = {"alpha": strength, "linewidth": 0.3 + 4.5 * strength, "zorder": 1}
            colour = colours(0.5 + 0.3 * np.sign(amount))
            ax.plot((places[row][i], places[row + 1][j]), (row, row + 1), color=colour, **line)
    for row, (units, values) in enumerate(zip(chosen, scores, strict=True)):
        limit = bound(values)
        for place, unit, value in zip(places[row], units, values, strict=True):
            colour = colours(value / limit / 2 + 0.5)
            ink = hexadecimal(ink_on(255 * np.array(colour[:3])))
            box = _box("circle,pad=0.4", colour, 0.8)
            look = {"ha": "center", "va": "center", "fontsize": "small", "bbox": box, "zorder": 2}
            ax.text(place, row, str(unit), color=ink, **look)
    ax.set_yticks(range(len(chosen)), [_short(path) for path in graph.layers])
    ax.set_ylim(len(chosen) - 0.6, -0.4)
    ax.set_xlim(-0.6, width - 0.4)
    ax.set_xticks([])
    ax.tick_params(left=False)
    ax.spines[:].set_visible(False)
    return ax


def ledger(ledger: Any, ax: Any = None) -> Any:
    """Where relevance is lost or made: a bar for each layer, a colour for each cause.

    Args:
      ledger: what `lrp_jax.conservation(...)(...)` returns. What a layer loses to its bias, its
        stabiliser, its rule or drops points right, what it makes out of nothing left.
      ax: matplotlib axes, new ones of the needed size if not given.

    Returns:
      The axes.
    """
    if not hasattr(ledger, "rows"):
        raise TypeError(
            f"a ledger is what lrp_jax.conservation returned, got {type(ledger).__name__}"
        )
    entries = {
        path: {cause: amount for cause, amount in row.items() if cause not in ("in", "out")}
        for path, row in ledger.rows.items()
    }
    if not entries:
        raise ValueError("the ledger has no layers")
    ax = new_axes(ax, (6, 0.28 * len(entries) + 1))
    causes = list(next(iter(entries.values())))
    # Stripes and dots for those who see no difference between green, pink and grey.
    looks = [
        {"color": colour, "hatch": hatch, "edgecolor": ax.get_facecolor(), "linewidth": 0}
        for colour, hatch in zip(distinct(len(causes)), _HATCHES, strict=True)
    ]
    for row, parts in enumerate(entries.values()):
        # Gains and losses grow from zero to their own side, so they never hide each other.
        ends = {1: 0.0, -1: 0.0}
        for cause, amount in parts.items():
            side = 1 if amount >= 0 else -1
            ax.barh(row, amount, 0.7, ends[side], label=cause, **looks[causes.index(cause)])
            ends[side] += amount
    ax.axvline(0, color="#7f7f7f", linewidth=0.8)
    ax.set_yticks(range(len(entries)), [_short(path) for path in entries])
    ax.set_ylim(len(entries) - 0.5, -0.5)
    # Rounding must not look like a loss: the axis shows a hundredth of what there was at least.
    least = max(abs(float(row["in"])) for row in ledger.rows.values()) / 100
    low, high = ax.get_xlim()
    ax.set_xlim(min(low, -least / 10), max(high, least))
    ax.set_xlabel("relevance lost (left of 0: made)")
    handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    ax.legend([handles[c] for c in causes], causes, frameon=False, fontsize="small")
    ax.spines[["top", "right", "left"]].set_visible(False)
    return ax


def _direct(layer: Any, layers: Any) -> list[int]:
    """The layers right above: those above that are above no other one above."""
    above = {one.index: one for one in layers if one.index in layer.above}
    hidden = {n for one in above.values() for n in one.above}
    return [n for n in above if n not in hidden]


def _columns(
    layers: Any, parents: Mapping[int, list[int]], row: Mapping[int, int]
) -> dict[int, int]:
    """A column for each layer: that of its first parent where it is free, else the next."""
    taken = {(0, 0)}
    column = {-1: 0}
    for layer in layers:
        wanted = min(column[p] for p in parents[layer.index])
        while (row[layer.index], wanted) in taken:
            wanted += 1
        taken.add((row[layer.index], wanted))
        column[layer.index] = wanted
    return column


def _lanes(
    edges: list[tuple[int, int]], column: Mapping[int, int], row: Mapping[int, int]
) -> dict[tuple[int, int], float]:
    """Where lines that pass by other rows run: to the right of both ends, each by itself."""
    taken: dict[int, list[list[tuple[int, int]]]] = {}
    found = {}
    for p, n in sorted(edges, key=lambda edge: row[edge[1]] - row[edge[0]]):
        if row[n] - row[p] < 2:
            continue
        beside = max(column[p], column[n])
        lanes = taken.setdefault(beside, [])
        free = (
            i for i, used in enumerate(lanes) if all(b <= row[p] or row[n] <= a for a, b in used)
        )
        lane = next(free, len(lanes))
        if lane == len(lanes):
            lanes.append([])
        lanes[lane].append((row[p], row[n]))
        found[p, n] = beside + 0.42 + 0.05 * lane
    return found


def _box(style: str, colour: Any, width: float) -> dict[str, Any]:
    return {"boxstyle": style, "facecolor": colour, "edgecolor": "#7f7f7f", "linewidth": width}


def _begun(code: str, length: int = 30) -> str:
    return code if len(code) <= length else code[: length - 1] + "…"


def _short(name: str, length: int = 30) -> str:
    return name if len(name) <= length else "..." + name[3 - length :]
