"""What all pictures share: scales, colour maps, axes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..datasets import require
from . import colormaps

Scale = float | str

# Okabe and Ito's colours, which all readers tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")


def distinct(count: int) -> list[Any]:
    """As many colours, no two alike."""
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    return [pyplot().get_cmap("turbo")(x) for x in np.linspace(0.12, 0.88, count)]


def is_dark(ax: Any) -> bool:
    """Whether a picture is drawn on a dark ground."""
    pyplot()
    from matplotlib.colors import to_rgba

    red, green, blue, opaque = to_rgba(ax.get_facecolor())
    return bool(opaque and np.dot((red, green, blue), (0.299, 0.587, 0.114)) < 0.5)


def bound(values: Any, scale: Scale = "max") -> float:
    """The relevance that is drawn in the last colour.

        "max": max |R|,   "mean_cubed": 10 (mean |R|^3)^(1/3),   "p99": the 99th percentile of |R|

    Args:
      values: relevance; what is not finite is left out.
      scale: `"max"`, `"mean_cubed"` (of rodrigobdz/lrp and the LRP tutorial), `"p"` with a
        percentile, or the number itself.

    Returns:
      A positive number: 1 where there is no relevance at all.

    >>> bound(np.array([1.0, -4.0])), bound(np.zeros(3)), bound(np.array([1.0, 3.0]), "p50")
    (4.0, 1.0, 2.0)
    """
    size = np.abs(np.asarray(values, float))
    size = size[np.isfinite(size)]
    largest = float(size.max()) if len(size) else 0.0
    if isinstance(scale, str):
        if scale == "max":
            limit = largest
        elif scale == "mean_cubed":
            # Scaled first: the cubes of small relevance would underflow.
            share = float(np.mean((size / largest) ** 3)) if largest else 0.0
            limit = 10 * largest * share ** (1 / 3)
        elif (
            scale[:1] == "p" and scale[1:].replace(".", "", 1).isdigit() and float(scale[1:]) <= 100
        ):
            limit = float(np.percentile(size, float(scale[1:]))) if len(size) else 0.0
        else:
            raise ValueError(f'scale is "max", "mean_cubed", "p99" or a number, not {scale!r}')
        return limit or largest or 1.0
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")
    return float(scale)


def by_name(found: Any, what: str, remedy: str) -> None:
    """Refuse what is not given by name, and nothing at all."""
    if not isinstance(found, Mapping) or not found:
        shown = "nothing" if isinstance(found, Mapping) else type(found).__name__
        raise TypeError(f"{what} are given by name, {remedy}, got {shown}")


def unit(values: np.ndarray, limit: float) -> np.ndarray:
    """Relevance from -limit to limit as numbers from 0 to 1; what is not finite becomes NaN."""
    values = np.where(np.isfinite(values), values, np.nan)
    return np.clip(values / limit, -1, 1) / 2 + 0.5


def map_of(relevance: Any) -> np.ndarray:
    """Relevance as `(height, width)`: the sum over channels."""
    relevance = np.asarray(relevance, float)
    if relevance.ndim == 3:
        refuse_channels_in_front(relevance)
        relevance = relevance.sum(-1)
    if relevance.ndim != 2:
        raise ValueError(
            "a heatmap needs relevance (height, width) or (height, width, channels), got the shape "
            f"{relevance.shape}"
        )
    return relevance


def refuse_channels_in_front(picture: np.ndarray) -> None:
    """Refuse `(1 or 3, height, width)`, of which a sum over the last axis would be strips."""
    if picture.ndim == 3 and picture.shape[0] in (1, 3) and min(picture.shape[1:]) > 4:
        raise ValueError(
            f"a picture has its channels last, (height, width, channels), got {picture.shape}: "
            "np.moveaxis(picture, 0, -1) puts them there (of a batch of one, picture[0])"
        )


def pyplot() -> Any:
    """`matplotlib.pyplot`, with this library's colour maps registered as `lrp.<name>`."""
    require("matplotlib", "plots")
    import matplotlib
    import matplotlib.pyplot
    from matplotlib.colors import LinearSegmentedColormap

    for name, stops in colormaps.STOPS.items():
        if f"lrp.{name}" not in matplotlib.colormaps:
            made = LinearSegmentedColormap.from_list(
                f"lrp.{name}", [(position, "#" + colour) for position, colour in stops], N=256
            )
            matplotlib.colormaps.register(made.with_extremes(bad="#808080"), name=made.name)
    return matplotlib.pyplot


def colormap(name: Any = "relevance") -> Any:
    """A colour map of matplotlib.

    Args:
      name: of `lrp_jax.plot.colormaps` or of matplotlib; a colour map is itself.

    Returns:
      The colour map.
    """
    plt = pyplot()
    if not isinstance(name, str):
        return name
    return plt.get_cmap(f"lrp.{name}" if name in colormaps.STOPS else name)


def new_axes(ax: Any, size: tuple[float, float]) -> Any:
    """The axes given, or those of a new figure."""
    if ax is not None and not hasattr(ax, "plot"):
        raise TypeError(f"ax is matplotlib's axes, as of plt.subplots(), got {type(ax).__name__}")
    return pyplot().subplots(figsize=size, layout="constrained")[1] if ax is None else ax
