"""Signals under their relevance, curves of flipping, and the results of a study."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..evaluation.flipping import Curves, interval
from .tools import COLOURS, Scale, bound, by_name, colormap, distinct, new_axes


def time_series(
    signal: Any,
    relevance: Any,
    ax: Any = None,
    *,
    scale: Scale = "max",
    cmap: Any = "relevance",
    times: Any = None,
) -> Any:
    """A signal's curve on a ground coloured by its relevance.

    Args:
      signal: `(steps,)`, or `(steps, channels)`, drawn one below the other.
      relevance: of the same shape.
      ax, scale, cmap: as `heatmap`; all channels share the scale.
      times: where the steps lie, `(steps,)`, evenly spaced; 0, 1, ... if not given.

    Returns:
      The axes.
    """
    signal, relevance = np.asarray(signal, float), np.asarray(relevance, float)
    if signal.shape != relevance.shape or signal.ndim not in (1, 2):
        raise ValueError(
            "signal and relevance need one shape (steps,) or (steps, channels), got "
            f"{signal.shape} and {relevance.shape}"
        )
    ax = new_axes(ax, (6, 2))
    signal, relevance = signal.reshape(len(signal), -1), relevance.reshape(len(signal), -1)
    times = np.arange(len(signal)) if times is None else np.asarray(times)
    if times.shape != signal.shape[:1]:
        raise ValueError(f"times has the shape {times.shape} for {len(signal)} steps")
    limit, half = bound(relevance, scale), (times[1] - times[0]) / 2 if len(times) > 1 else 0.5
    for i, channel in enumerate(signal.T):
        low, high = channel.min(), channel.max()
        middle = (low + high) / 2
        line = -i + (channel - middle) / ((high - low) or 1) * 0.8
        extent = (times[0] - half, times[-1] + half, -i - 0.5, -i + 0.5)
        ground = {"extent": extent, "aspect": "auto", "interpolation": "nearest"}
        ax.imshow(relevance[None, :, i], colormap(cmap), vmin=-limit, vmax=limit, **ground)
        # A pale rim keeps the line readable on the darkest relevance.
        ax.plot(times, line, color="white", linewidth=2.4)
        ax.plot(times, line, color="black", linewidth=1)
    ax.set_xlim(times[0] - half, times[-1] + half)
    ax.set_ylim(-signal.shape[1] + 0.5, 0.5)
    ax.set_yticks([])
    ax.set_xlabel("time")
    return ax


def curves(
    curves: Mapping[str, Curves], ax: Any = None, *, level: float = 0.95, score: str = "score"
) -> Any:
    """Flipping curves: the mean over examples, in a band of its bootstrap interval.

    Args:
      curves: by name what `pixel_flipping` returns.
      ax: as `heatmap`.
      level: of the bands.
      score: what the vertical axis shows.

    Returns:
      The axes.

    Raises:
      TypeError: for anything but curves by name.
    """
    by_name(curves, "curves", '{"LRP": what pixel_flipping returned}')
    if wrong := [type(c).__name__ for c in curves.values() if not hasattr(c, "score")]:
        raise TypeError(f"curves are what pixel_flipping returned, got {', '.join(wrong)}")
    outside = len(curves) > 3  # then there is no room for their names between them
    ax = new_axes(ax, (6, 3) if outside else (4.5, 3))
    styles = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
    colours = distinct(len(curves))
    for i, (name, curve) in enumerate(curves.items()):
        fraction, values = np.asarray(curve.fraction), np.asarray(curve.score, float)
        low, high = interval(values, level)
        style, colour = styles[i % len(styles)], colours[i]
        ax.plot(fraction, values.mean(0), linestyle=style, color=colour, label=name)
        ax.fill_between(fraction, low, high, color=colour, alpha=0.2, linewidth=0)
    ax.set_xlabel("fraction removed")
    ax.set_ylabel(score)
    ax.set_xlim(0, 1)
    beside = {"loc": "upper left", "bbox_to_anchor": (1, 1), "frameon": False}
    ax.legend(**(beside if outside else {"framealpha": 0.7, "edgecolor": "none"}))
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def surface(table: Any, metric: str, method: str, ax: Any = None, *, best: str = "min") -> Any:
    """Contours of a metric's mean over a method's grid of two parameters, the best one marked.

    Args:
      table: what `lrp_jax.evaluation.study` returns.
      metric, method: names of the study.
      ax: as `heatmap`.
      best: `"min"` or `"max"`.

    Returns:
      The axes; parameters are on logarithmic scales (with room for 0 where it is among them).
    """
    if not hasattr(table, "surface"):
        raise TypeError(f"a table is what a study returned, got {type(table).__name__}")
    axes, means = table.surface(metric, method)
    if len(axes) != 2 or min(means.shape) < 2:
        raise ValueError(f"contours need a grid of two parameters, got {dict(axes)}")
    ax = new_axes(ax, (4.5, 3.4))
    (y_name, y), (x_name, x) = axes.items()
    drawn = ax.contourf(x, y, means, levels=12, cmap="cividis")
    ax.contour(x, y, means, levels=12, colors="white", linewidths=0.4)
    place = np.unravel_index((np.argmin if best == "min" else np.argmax)(means), means.shape)
    star = {"color": "#ef7d4b", "markeredgecolor": "white", "markersize": 14, "clip_on": False}
    ax.plot(x[place[1]], y[place[0]], "*", **star)
    for values, set_scale in ((x, ax.set_xscale), (y, ax.set_yscale)):
        positive = values[values > 0]
        if len(positive) > 1 and positive[-1] / positive[0] > 10:
            set_scale("symlog", linthresh=positive[0], linscale=0.5)
    ax.set_xlabel(x_name)
    ax.set_ylabel(y_name)
    bar = ax.figure.colorbar(drawn, ax=ax, label=metric)
    bar.outline.set_linewidth(0.5)
    return ax


def ranking(ranks: Sequence[Any], ax: Any = None, *, metric: str = "mean") -> Any:
    """The candidates of a study with their intervals, the best on top.

    Filled points are not significantly behind the best.

    Args:
      ranks: what `Table.ranking` returns, or the first of it.
      ax: as `heatmap`.
      metric: the name of the horizontal axis.

    Returns:
      The axes.
    """
    if not ranks or not all(hasattr(rank, "behind") for rank in ranks):
        raise TypeError("ranks are what Table.ranking(metric) returned, got none")
    ax = new_axes(ax, (5, 0.3 * len(ranks) + 0.8))
    for i, rank in enumerate(ranks):
        tie = rank.behind[0] <= 0 <= rank.behind[1]
        ax.plot(rank.interval, (i, i), color=COLOURS[0], linewidth=1.5)
        inner = COLOURS[0] if tie else "white"
        ax.plot(rank.mean, i, "o", color=COLOURS[0], markerfacecolor=inner, markersize=5)
    names = [", ".join([r.method, *(f"{n} {v:.3g}" for n, v in r.point.items())]) for r in ranks]
    ax.set_yticks(range(len(ranks)), names)
    ax.set_ylim(len(ranks) - 0.5, -0.5)
    ax.set_xlabel(metric)
    ax.spines[["top", "right"]].set_visible(False)
    return ax
