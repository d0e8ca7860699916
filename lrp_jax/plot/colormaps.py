"""Colours for relevance, with NumPy alone: a map from numbers to red, green and blue.

Positive relevance is warm, negative cold, zero the middle, and a twentieth of the largest can be
told from zero. `relevance` (the default; white in the middle) and `relevance_dark` (black in the
middle, for dark pages) are told apart with every common colour vision deficiency; the other names
are those of zennit.
"""

import numpy as np

Stops = tuple[tuple[float, str], ...]

STOPS: dict[str, Stops] = {
    "relevance": (
        (0.0, "08306b"), (0.25, "4a90c9"), (0.45, "c3dbef"), (0.5, "ffffff"),
        (0.55, "fbd3c0"), (0.75, "ef7d4b"), (1.0, "8b1a00"),
    ),
    "relevance_dark": (
        (0.0, "bfe6ff"), (0.25, "2b7fc4"), (0.45, "123a5c"), (0.5, "000000"),
        (0.55, "54240c"), (0.75, "d3541a"), (1.0, "ffe3a0"),
    ),
    "gray": ((0.0, "000000"), (1.0, "ffffff")),
    "wred": ((0.0, "ffffff"), (1.0, "ff0000")),
    "wblue": ((0.0, "ffffff"), (1.0, "0000ff")),
    "hot": ((0.0, "000000"), (1 / 3, "ff0000"), (2 / 3, "ffff00"), (1.0, "ffffff")),
    "cold": ((0.0, "000000"), (0.5, "0000ff"), (1.0, "00ffff")),
    "coldnhot": (
        (0.0, "00ffff"), (64 / 255, "0000ff"), (128 / 255, "000000"),
        (128 / 255 + 127 / 765, "ff0000"), (128 / 255 + 254 / 765, "ffff00"), (1.0, "ffffff"),
    ),
    "bwr": ((0.0, "0000ff"), (128 / 255, "ffffff"), (1.0, "ff0000")),
    "france": ((0.0, "0055a4"), (128 / 255, "ffffff"), (1.0, "ef4135")),
    "seismic": ((0.0, "0000d0"), (128 / 255, "d0d0d0"), (1.0, "d00000")),
    "coolio": ((0.0, "00d0d0"), (128 / 255, "d0d0d0"), (1.0, "d000d0")),
    "coleus": ((0.0, "00d000"), (128 / 255, "d0d0d0"), (1.0, "d000d0")),
}  # fmt: skip

MISSING = (128, 128, 128)


def colours(values: np.ndarray, name: str = "relevance") -> np.ndarray:
    """Colours of numbers between 0 and 1 (others are clipped), linear between a map's stops.

    Args:
      values: any shape; NaN becomes grey.
      name: a key of `STOPS`.

    Returns:
      uint8 array of the shape of `values` with an axis of red, green and blue behind.

    >>> colours(np.array([0.0, 0.5, 1.0]), "gray").tolist()
    [[0, 0, 0], [128, 128, 128], [255, 255, 255]]
    """
    if name not in STOPS:
        raise ValueError(f"no colour map {name!r}; there are {', '.join(STOPS)}")
    values = np.asarray(values, float)
    positions = [position for position, _ in STOPS[name]]
    levels = np.array([[int(c[i : i + 2], 16) for i in (0, 2, 4)] for _, c in STOPS[name]])
    known = np.nan_to_num(values, nan=0.0)
    rgb = np.stack([np.interp(known, positions, levels[:, i]) for i in range(3)], -1)
    return np.where(np.isnan(values)[..., None], MISSING, np.round(rgb)).astype(np.uint8)
