"""Heatmaps of images: alone, over the picture, in a grid of methods, of references of concepts."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..questions.references import receptive_window
from . import colormaps
from .tools import (
    Scale,
    bound,
    by_name,
    colormap,
    map_of,
    new_axes,
    pyplot,
    refuse_channels_in_front,
    unit,
)


def rgb(relevance: Any, *, scale: Scale = "max", cmap: str = "relevance") -> np.ndarray:
    """A heatmap as a plain array of colours.

    Args:
      relevance: `(height, width)`, `(height, width, channels)` (channels are summed), or a batch
        of the latter; each picture is scaled on its own.
      scale: what is drawn in the last colour, see `bound`.
      cmap: a name of `lrp_jax.plot.colormaps`.

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
      cmap: a name of `lrp_jax.plot.colormaps` or of matplotlib, or a matplotlib colour map.
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
    ax.set(xticks=[], yticks=[])
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
    relevances: Any,
    *,
    labels: Sequence[str] | None = None,
    overlaid: bool = False,
    scale: Scale = "max",
    cmap: Any = "relevance",
    colorbars: bool = False,
    size: float = 1.6,
) -> Any:
    """Rows of examples: the input, then one heatmap for each method.

    Args:
      images: `(batch, height, width)` or `(batch, height, width, channels)`, or `None` for none;
        of one picture `(height, width)` or `(height, width, 1, 3 or 4)`.
      relevances: by the name of a method the relevance of the batch; or that of one method.
      labels: a name for each row.
      overlaid: whether each heatmap lies over its picture (`overlay`).
      scale, cmap: as `heatmap`; every picture has its own scale.
      colorbars: whether to draw one for each picture.
      size: of one picture, in inches.

    Returns:
      The figure.
    """
    if isinstance(images, Mapping):
        raise TypeError(
            "grid takes the images first, then relevance by name: grid(x, {name: relevance})"
        )
    if not isinstance(relevances, Mapping):
        relevances = {"relevance": relevances}
    if overlaid and images is None:
        raise ValueError("overlaid heatmaps need the images that they lie over")
    images = None if images is None else _pictures(images)
    columns = [] if images is None else [("input", images)]
    columns += [(name, _pictures(r)) for name, r in relevances.items()]
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
                below = images[i] if overlaid else None
                heatmap(pictures[i], ax, scale=scale, cmap=cmap, image=below, colorbar=colorbars)
            if i == 0:
                _title(ax, name, size)
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
      fraction: see `lrp_jax.questions.receptive_window`; 1 crops what has no relevance at all.
      scale, cmap: as `heatmap`; every picture has its own scale.
      size: of one picture, in inches.

    Returns:
      The figure.
    """
    by_name(images, "the examples of concepts", '{"concept 3": x[best]}')
    if not all(map(len, images.values())):
        raise ValueError("a gallery needs at least one example of each concept")
    if relevances is not None and set(relevances) != set(images):
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
            ax.set(xticks=[], yticks=[])
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


def _overlay(image: Any, values: np.ndarray, limit: float, colours: Any) -> np.ndarray:
    ground = grey(image)
    if ground.shape != values.shape:
        raise ValueError(f"image and relevance have the sizes {ground.shape} and {values.shape}")
    known = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    strength = np.clip(np.abs(known) / limit, 0, 1)[..., None] ** 0.5
    # Half the contrast is left to the picture, or dark pixels would read as relevance.
    faint = np.repeat(0.35 + 0.6 * ground[..., None], 3, -1)
    return (1 - strength) * faint + strength * colours(unit(known, limit))[..., :3]


def grey(image: Any) -> np.ndarray:
    """An image `(height, width)` or `(height, width, channels)` in grey, from 0 to 1."""
    image = np.asarray(image, float)
    return _stretched(image.mean(-1) if image.ndim == 3 else image)


def _stretched(image: np.ndarray) -> np.ndarray:
    low, high = image.min(), image.max()
    return (image - low) / ((high - low) or 1)


def _pictures(given: Any) -> np.ndarray:
    """A batch of pictures; one picture is a batch of itself."""
    pictures = np.asarray(given)
    # A batch of pictures as narrow as a channel axis would be one of strips.
    narrow = pictures.ndim == 3 and pictures.shape[-1] in (1, 3, 4) and pictures.shape[1] > 4
    if pictures.ndim == 2 or narrow:
        pictures = pictures[None]
    if pictures.ndim not in (3, 4):
        raise ValueError(
            "grid takes pictures (batch, height, width) or (batch, height, width, channels), and "
            f"relevance of the same, by name where it is of several methods; got {pictures.shape}"
        )
    return pictures


def _title(ax: Any, text: Any, width: float) -> None:
    """A title in lines that are not wider than so many inches, in smaller letters if need be."""
    wrap = textwrap.TextWrapper(max(int(12 * width), 1), break_long_words=False).wrap
    lines = [line for part in str(text).split("\n") for line in wrap(part)]
    longest = max(map(len, lines), default=1)
    ax.set_title("\n".join(lines), fontsize=min(10, 120 * width / longest))


def _show(ax: Any, image: np.ndarray) -> None:
    image = _stretched(np.asarray(image, float))
    refuse_channels_in_front(image)
    if image.ndim == 3 and image.shape[-1] not in (3, 4):
        image = image.mean(-1)
    ax.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
