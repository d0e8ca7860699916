"""Walks through the nodes of layers, side by side or on the picture of their graph."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .tokens import hexadecimal, ink_on
from .tools import bound, colormap, is_dark, new_axes


def walks(
    nodes: Any,
    relevance: Any,
    ax: Any = None,
    *,
    labels: Sequence[str] | None = None,
    layers: Sequence[str] | None = None,
    positions: Any = None,
    edges: Iterable[tuple[int, int]] = (),
    of_nodes: Any = None,
    cmap: Any = "relevance",
) -> Any:
    """Walks as lines from layer to layer, or on a graph whose nodes have places.

    A line has the colour of the walk's sign; the stronger it is, the wider and the less faint.

    Args:
      nodes: `(walks, layers)`, as `lrp_jax.strongest_walks` finds them for one example.
      relevance: `(walks,)`.
      ax: matplotlib axes, new ones of the needed size if not given.
      labels: what each node is called, such as its token; its number if not given.
      layers: what each layer is called, in the order of a walk, the first at the bottom.
      positions: `(nodes, 2)`, where the nodes of a graph lie. A walk that stays at a node is a
        circle around it.
      edges: pairs of nodes that the graph joins.
      of_nodes: `(nodes,)`, relevance that colours the nodes of the graph.
      cmap: as `heatmap`.

    Returns:
      The axes.
    """
    nodes, relevance = np.asarray(nodes), np.asarray(relevance, float)
    if nodes.ndim != 2 or relevance.shape != nodes.shape[:1]:
        raise ValueError(
            f"walks (walks, layers) and relevance (walks,), got {nodes.shape} and {relevance.shape}"
        )
    strength, colours = np.abs(relevance) / bound(relevance), colormap(cmap)
    order = np.argsort(strength)  # the strongest on top
    looks = [
        {
            "color": colours(0.5 + 0.35 * np.sign(relevance[i])),
            "alpha": 0.2 + 0.7 * strength[i],
            "linewidth": 0.5 + 2.5 * strength[i],
            "solid_joinstyle": "round",
            "solid_capstyle": "round",
        }
        for i in order
    ]
    if positions is not None:
        return _on_graph(
            nodes[order], looks, ax, labels, np.asarray(positions, float), edges, of_nodes, colours
        )
    names = [str(n) for n in range(nodes.max() + 1)] if labels is None else list(labels)
    ax = new_axes(ax, (0.5 * len(names) + 1.2, 0.8 * nodes.shape[1] + 0.6))
    height = np.arange(nodes.shape[1])
    for i, look in zip(order, looks, strict=True):
        # Walks through the same nodes lie beside each other.
        ax.plot(nodes[i] + 0.4 * ((i + 0.5) / len(nodes) - 0.5), height, **look)
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(height, layers or [str(n) for n in height])
    ax.set_xlim(-0.5, len(names) - 0.5)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return ax


def _on_graph(
    walks: np.ndarray, looks: list[dict[str, Any]], ax: Any, labels: Sequence[str] | None,
    places: np.ndarray, edges: Iterable[tuple[int, int]], of_nodes: Any, colours: Any,
) -> Any:  # fmt: skip
    """Walks, the strongest last, over the nodes and edges of a graph."""
    names = [str(n) for n in range(len(places))] if labels is None else list(labels)
    wide, high = np.ptp(places, 0) + 1e-9
    ax = new_axes(ax, (6, 6 * min(1.5, max(0.3, high / wide))))
    ends = np.array([*edges], int).reshape(-1, 2)
    steps = np.linalg.norm(places[ends[:, 0]] - places[ends[:, 1]], axis=1)
    unit = float(np.median(steps)) if len(steps) else wide / 4
    for a, b in ends:
        ax.plot(*places[[a, b]].T, color="#9f9f9f", linewidth=1.2, zorder=1)
    turn = np.linspace(0, 2 * np.pi, 40)
    for rank, (walk, look) in enumerate(zip(walks, looks, strict=True)):
        # Each walk has its own way past the middle of its nodes, so that none hides another.
        share = (rank + 1) / len(walks)
        way = places[walk] + 0.13 * unit * share * np.array(
            [np.cos(2.4 * rank), np.sin(2.4 * rank)]
        )
        ax.plot(*way.T, **look, zorder=2)
        for here in walk[1:][np.diff(walk) == 0]:
            round_ = (0.2 + 0.15 * share) * unit * np.array([np.cos(turn), np.sin(turn)])
            ax.plot(*(places[here, :, None] + round_), **look, zorder=2)
    plain, ground = ("white", "black") if is_dark(ax) else ("black", "white")
    if of_nodes is None:
        grounds = [ground] * len(places)
        box = {"boxstyle": "circle,pad=0.15", "edgecolor": "none", "alpha": 0.7}
    else:
        values = np.asarray(of_nodes, float)
        grounds = colours(values / bound(values) / 2 + 0.5)
        box = {"boxstyle": "circle,pad=0.4", "edgecolor": "#7f7f7f", "linewidth": 0.8}
    for (x, y), name, ground in zip(places, names, grounds, strict=True):
        ink = plain if of_nodes is None else hexadecimal(ink_on(255 * np.array(ground[:3])))
        look = {"ha": "center", "va": "center", "fontsize": "small", "zorder": 3}
        ax.text(x, y, name, color=ink, bbox=box | {"fc": ground}, **look)
    ax.set_xlim(places[:, 0].min() - 0.5 * unit, places[:, 0].max() + 0.5 * unit)
    ax.set_ylim(places[:, 1].min() - 0.5 * unit, places[:, 1].max() + 0.5 * unit)
    ax.set_aspect("equal")
    ax.axis("off")
    return ax
