"""Pictures of relevance, worth printing.

The functions that draw need `matplotlib` (an extra), take an `ax` to draw on, and return it;
`rgb` and the functions for text in HTML and terminals need NumPy alone. Signed relevance is
always drawn with zero in the middle of the colours, so that white (or black) means none.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import colormaps
from ._plot_graph import concept_graph as concept_graph
from ._plot_graph import ledger as ledger
from ._plot_graph import plan as plan
from ._plot_text import text as text
from ._plot_text import text_html as text_html
from ._plot_text import text_terminal as text_terminal
from ._plot_tools import bound as bound
from ._plot_tools import colormap as colormap
from ._plot_tools import map_of, new_axes, pyplot, unit
from .flipping import Curves, interval
from .references import receptive_window

Scale = float | str


def rgb(relevance: Any, *, scale: Scale = "max", cmap: str = "relevance") -> np.ndarray:
    """A heatmap as a plain array of colours.

    Args:
      relevance: `(height, width)`, `(height, width, channels)` (channels are summed), or a batch
        of the latter; each picture is scaled on its own.
      scale: what is drawn in the last colour, see `bound`.
      cmap: a name of `lrp_jax.colormaps`.

    Returns:
      uint8 array `(height, width, 3)`, or a batch of these. Zero maps have the middle colour
      everywhere, NaN and infinities are grey.

    >>> rgb(np.array([[-1.0, 0.0, 1.0]])).tolist()
    [[[8, 48, 107], [255, 255, 255], [139, 26, 0]]]
    """
    relevance = np.asarray(relevance)
    if relevance.ndim == 4:
        return np.stack([rgb(r, scale=scale, cmap=cmap) for r in relevance])
    values = map_of(relevance)
    return colormaps.colours(unit(values, bound(values, scale)), cmap)


def heatmap(
    relevance: Any,
    ax: Any = None,
    *,
    scale: Scale = "max",
    cmap: Any = "relevance",
    image: Any = None,
    colorbar: bool = False,
    title: str | None = None,
) -> Any:
    """Draw relevance, symmetric around zero.

    Args:
      relevance: `(height, width)`, or `(height, width, channels)`: channels are summed.
      ax: matplotlib axes, new ones if not given.
      scale: what is drawn in the last colour, see `bound`.
      cmap: a name of `lrp_jax.colormaps` or of matplotlib, or a matplotlib colour map.
      image: the picture explained; it is shown in grey where there is no relevance (`overlay`).
      colorbar: whether to draw one.
      title: above the picture.

    Returns:
      The axes.
    """
    ax = new_axes(ax, (3, 3))
    values = map_of(relevance)
    limit = bound(values, scale)
    shown = np.where(np.isfinite(values), values, np.nan)
    colours = colormap(cmap)
    # Pixels stay squares at any resolution: nothing is smeared over the pattern.
    if image is None:
        drawn = ax.imshow(shown, cmap=colours, vmin=-limit, vmax=limit, interpolation="nearest")
    else:
        ax.imshow(_overlay(image, shown, limit, colours), interpolation="nearest")
        drawn = pyplot().cm.ScalarMappable(pyplot().Normalize(-limit, limit), colours)
    ax.set_xticks([])
    ax.set_yticks([])
    if title is not None:
        ax.set_title(title)
    if colorbar:
        bar = ax.figure.colorbar(drawn, ax=ax, fraction=0.046, pad=0.04)
        bar.ax.tick_params(labelsize="small")
        bar.ax.locator_params(nbins=5)
        bar.outline.set_linewidth(0.5)
    return ax


def overlay(
    image: Any, relevance: Any, *, scale: Scale = "max", cmap: Any = "relevance"
) -> np.ndarray:
    """The picture in grey, coloured where it is relevant: `(height, width, 3)` from 0 to 1.

    The more relevant a pixel, the less of the grey picture shows through.

    Args:
      image: `(height, width)` or `(height, width, 1 or 3)`; its extremes become dark and light.
      relevance, scale, cmap: as `heatmap`.

    Returns:
      The colours, floats.
    """
    values = map_of(relevance)
    return _overlay(image, values, bound(values, scale), colormap(cmap))


def grid(
    images: Any,
    relevances: Mapping[str, Any],
    *,
    labels: Sequence[str] | None = None,
    scale: Scale = "max",
    cmap: Any = "relevance",
    colorbars: bool = False,
    size: float = 1.6,
) -> Any:
    """Rows of examples: the input, then one heatmap for each method.

    Args:
      images: `(batch, height, width)` or `(batch, height, width, channels)`, or `None` for none.
      relevances: by the name of a method the relevance of the batch.
      labels: a name for each row.
      scale, cmap: as `heatmap`; every picture has its own scale.
      colorbars: whether to draw one for each picture.
      size: of one picture, in inches.

    Returns:
      The figure.
    """
    columns = [] if images is None else [("input", np.asarray(images))]
    columns += [(name, np.asarray(r)) for name, r in relevances.items()]
    if not columns or len({len(c) for _, c in columns}) != 1:
        raise ValueError(
            "grid needs the same number of examples everywhere, got "
            f"{ {name: c.shape for name, c in columns} }"
        )
    rows = len(columns[0][1])
    if labels is not None and len(labels) != rows:
        raise ValueError(f"{len(labels)} labels for {rows} rows")
    figure, axes = pyplot().subplots(
        rows,
        len(columns),
        figsize=(size * len(columns) * (1.25 if colorbars else 1) + 0.3, size * rows + 0.3),
        squeeze=False,
        layout="compressed",
    )
    figure.get_layout_engine().set(w_pad=0.12 if colorbars else 0.04)
    for j, (name, pictures) in enumerate(columns):
        for i in range(rows):
            ax = axes[i, j]
            if j == 0 and images is not None:
                _show(ax, pictures[i])
            else:
                heatmap(pictures[i], ax, scale=scale, cmap=cmap, colorbar=colorbars)
            if i == 0:
                ax.set_title(name, fontsize="medium")
            if j == 0 and labels is not None:
                ax.set_ylabel(labels[i], rotation=0, ha="right", va="center")
    return figure


def gallery(
    images: Mapping[str, Any],
    relevances: Mapping[str, Any] | None = None,
    *,
    fraction: float = 0.9,
    scale: Scale = "max",
    cmap: Any = "relevance",
    size: float = 1.1,
) -> Any:
    """Reference samples of concepts: a row for each concept, the best example first.

    Args:
      images: by the name of a concept its examples, `(k, height, width)` or
        `(k, height, width, channels)`.
      relevances: by the same names their relevance through the concept, of the same shapes; the
        pictures are then cropped to the square that holds `fraction` of it and coloured by it.
      fraction: see `lrp_jax.concepts.receptive_window`; 1 crops what has no relevance at all.
      scale, cmap: as `heatmap`; every picture has its own scale.
      size: of one picture, in inches.

    Returns:
      The figure.
    """
    if not images or (relevances is not None and set(relevances) != set(images)):
        raise ValueError(
            f"a gallery needs examples and their relevance by the same names, got {list(images)} "
            f"and {list(relevances or {})}"
        )
    columns = max(len(examples) for examples in images.values())
    figure, axes = pyplot().subplots(
        len(images),
        columns,
        figsize=(size * columns + 0.6, size * len(images) + 0.1),
        squeeze=False,
        layout="compressed",
    )
    for row, (name, examples) in zip(axes, images.items(), strict=True):
        for ax in row:
            ax.set_xticks([])
            ax.set_yticks([])
            ax.spines[:].set_visible(False)
        for i, (ax, image) in enumerate(zip(row, np.asarray(examples), strict=False)):
            if relevances is None:
                _show(ax, image)
                continue
            relevance = np.asarray(relevances[name][i])
            window = receptive_window(relevance, fraction)
            heatmap(relevance[window], ax, scale=scale, cmap=cmap, image=image[window])
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize="small")
    return figure


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
    limit, half = bound(relevance, scale), (times[1] - times[0]) / 2 if len(times) > 1 else 0.5
    for i, channel in enumerate(signal.T):
        low, high = channel.min(), channel.max()
        middle = (low + high) / 2
        line = -i + (channel - middle) / ((high - low) or 1) * 0.8
        extent = (times[0] - half, times[-1] + half, -i - 0.5, -i + 0.5)
        ax.imshow(
            relevance[None, :, i],
            cmap=colormap(cmap),
            vmin=-limit,
            vmax=limit,
            extent=extent,
            aspect="auto",
            interpolation="nearest",
        )
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
    """
    outside = len(curves) > 3  # then there is no room for their names between them
    ax = new_axes(ax, (6, 3) if outside else (4.5, 3))
    styles = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
    for i, (name, curve) in enumerate(curves.items()):
        fraction, values = np.asarray(curve.fraction), np.asarray(curve.score, float)
        low, high = interval(values, level)
        (line,) = ax.plot(
            fraction,
            values.mean(0),
            linestyle=styles[i % len(styles)],
            color=_colour(i),
            label=name,
        )
        ax.fill_between(fraction, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    ax.set_xlabel("fraction removed")
    ax.set_ylabel(score)
    ax.set_xlim(0, 1)
    beside = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if outside else {}
    ax.legend(framealpha=0.7, edgecolor="none", **beside)
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
    axes, means = table.surface(metric, method)
    if len(axes) != 2 or min(means.shape) < 2:
        raise ValueError(f"contours need a grid of two parameters, got {dict(axes)}")
    ax = new_axes(ax, (4.5, 3.4))
    (y_name, y), (x_name, x) = axes.items()
    drawn = ax.contourf(x, y, means, levels=12, cmap="cividis")
    ax.contour(x, y, means, levels=12, colors="white", linewidths=0.4)
    place = np.unravel_index((np.argmin if best == "min" else np.argmax)(means), means.shape)
    ax.plot(
        x[place[1]],
        y[place[0]],
        "*",
        color="#ef7d4b",
        markeredgecolor="white",
        markersize=14,
        clip_on=False,
    )
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
    ax = new_axes(ax, (5, 0.3 * len(ranks) + 0.8))
    for i, rank in enumerate(ranks):
        tie = rank.behind[0] <= 0 <= rank.behind[1]
        ax.plot(rank.interval, (i, i), color=_colour(0), linewidth=1.5)
        ax.plot(
            rank.mean,
            i,
            "o",
            color=_colour(0),
            markerfacecolor=_colour(0) if tie else "white",
            markersize=5,
        )
    names = [", ".join([r.method, *(f"{n} {v:.3g}" for n, v in r.point.items())]) for r in ranks]
    ax.set_yticks(range(len(ranks)), names)
    ax.set_ylim(len(ranks) - 0.5, -0.5)
    ax.set_xlabel(metric)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _overlay(image: Any, values: np.ndarray, limit: float, colours: Any) -> np.ndarray:
    grey = _grey(image)
    if grey.shape != values.shape:
        raise ValueError(f"image and relevance have the sizes {grey.shape} and {values.shape}")
    known = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    strength = np.clip(np.abs(known) / limit, 0, 1)[..., None] ** 0.5
    # Half the contrast is left to the picture, or dark pixels would read as relevance.
    ground = np.repeat(0.35 + 0.6 * grey[..., None], 3, -1)
    result: np.ndarray = (1 - strength) * ground + strength * colours(unit(known, limit))[..., :3]
    return result


def _grey(image: Any) -> np.ndarray:
    image = np.asarray(image, float)
    image = image.mean(-1) if image.ndim == 3 else image
    low, high = image.min(), image.max()
    result: np.ndarray = (image - low) / ((high - low) or 1)
    return result


def _show(ax: Any, image: np.ndarray) -> None:
    image = np.asarray(image, float)
    low, high = image.min(), image.max()
    image = (image - low) / ((high - low) or 1)
    if image.ndim == 3 and image.shape[-1] not in (3, 4):
        image = image.mean(-1)
    ax.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])


def _colour(i: int) -> str:
    """Okabe and Ito's colours, which all readers tell apart."""
    palette = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
    return palette[i % len(palette)]
