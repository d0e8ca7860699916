"""Relevance by the members of an ensemble: what they agree on, and how far they spread."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .tools import Scale, bound, colormap, map_of, new_axes


def uncertainty(
    members: Any,
    ax: Any = None,
    *,
    level: float = 0.9,
    labels: Sequence[str] | None = None,
    scale: Scale = "max",
    cmap: Any = "relevance",
) -> Any:
    """The mean relevance over members, and where they disagree.

    Features are bars of the mean with the range of the central members; a picture is the heatmap
    of the mean, in which a pixel fades the more members see it with the other sign:

        shown = mean max(0, 2 agreement - 1)

    Args:
      members: relevance of one example by every member: `(members, features)`, or
        `(members, height, width)` with or without channels, which are summed.
      ax: as `heatmap`.
      level: the share of members in the range of a bar.
      labels: a name for each feature.
      scale, cmap: as `heatmap`.

    Returns:
      The axes.

    Raises:
      ValueError: for another shape or level, or labels of another number.
    """
    members = np.asarray(members, float)
    if not 0 < level <= 1:
        raise ValueError(f"level is a share of the members, above 0 and at most 1, got {level}")
    if members.ndim == 2:
        return _bars(members, ax, level, labels, scale, colormap(cmap))
    if members.ndim not in (3, 4) or labels is not None:
        raise ValueError(
            "uncertainty shows (members, features), with labels, or pictures of one example, "
            f"(members, height, width) or with channels, got the shape {members.shape}"
        )
    maps = np.stack([map_of(member) for member in members])
    mean = maps.mean(0)
    agreement = (np.sign(maps) == np.sign(mean)).mean(0)
    limit = bound(mean, scale)
    ax = new_axes(ax, (3, 3))
    shown = mean * np.maximum(2 * agreement - 1, 0)
    ax.imshow(shown, cmap=colormap(cmap), vmin=-limit, vmax=limit, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    return ax


def _bars(
    members: np.ndarray,
    ax: Any,
    level: float,
    labels: Sequence[str] | None,
    scale: Scale,
    colours: Any,
) -> Any:
    count = members.shape[1]
    if labels is not None and len(labels) != count:
        raise ValueError(f"{len(labels)} labels for {count} features")
    mean = members.mean(0)
    low, high = np.quantile(members, [(1 - level) / 2, (1 + level) / 2], axis=0)
    ax = new_axes(ax, (min(max(0.3 * count, 4), 9), 2.5))
    places, limit = np.arange(count), bound(mean, scale)
    shown = np.sign(mean) * np.clip(np.abs(mean) / limit, 0.3, 1)  # small bars are seen as well
    ax.bar(places, mean, color=colours(shown / 2 + 0.5), width=0.8)
    line = ax.xaxis.label.get_color()  # dark on a light page, light on a dark one
    ax.vlines(places, low, high, color=line, linewidth=1 if count <= 40 else 0.5)
    ax.axhline(0, color=line, linewidth=0.5)
    if labels is not None:
        ax.set_xticks(places, labels, rotation=90 if max(map(len, labels)) > 2 else 0)
    ax.set_ylabel(f"relevance, {level:.0%} of members")
    ax.spines[["top", "right"]].set_visible(False)
    return ax
