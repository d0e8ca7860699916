"""Coloured tokens: in HTML, in a terminal, in LaTeX, in a figure."""

import html
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from . import colormaps
from .pieces import clean
from .tools import Scale, bound, pyplot, unit


def text_html(
    tokens: Sequence[str], relevance: Any, *, scale: Scale = "max", cmap: str = "relevance"
) -> str:
    """Tokens on the colours of their relevance, as HTML that stands on its own.

    Args:
      tokens: strings, with their spaces or with a tokenizer's marks (see `clean`); `words` joins
        them and their relevance.
      relevance: `(tokens,)`, or `(tokens, features)`: features are summed.
      scale: as `lrp_jax.plot.heatmap`.
      cmap: a name of `lrp_jax.plot.colormaps`.

    Returns:
      One `<span>` for each token in a `<p>`; the relevance is the tooltip.

    >>> text_html(["a<", " b"], np.array([1.0, 0.0]))[:72]
    '<p style="line-height:1.8"><span title="1" style="background:#8b1a00;col'
    """
    spans = [
        f'<span title="{value:.3g}" style="background:{hexadecimal(back)};color:{hexadecimal(ink)};'
        f'white-space:pre-wrap;padding:0.15em 0">{html.escape(token)}</span>'
        for token, value, back, ink in _coloured(tokens, relevance, scale, cmap)
    ]
    return '<p style="line-height:1.8">' + "".join(spans) + "</p>"


def text_terminal(
    tokens: Sequence[str], relevance: Any, *, scale: Scale = "max", cmap: str = "relevance"
) -> str:
    """Tokens on the colours of their relevance, for a terminal of 24 bit colour.

    Args, Returns: as `text_html`.

    >>> text_terminal(["a"], np.array([0.0]))
    '\\x1b[48;2;255;255;255m\\x1b[38;2;0;0;0ma\\x1b[0m'
    """
    return "".join(
        f"\x1b[48;2;{';'.join(map(str, back))}m\x1b[38;2;{';'.join(map(str, ink))}m{token}\x1b[0m"
        for token, _, back, ink in _coloured(tokens, relevance, scale, cmap)
    )


def text_latex(
    tokens: Sequence[str], relevance: Any, *, scale: Scale = "max", cmap: str = "relevance"
) -> str:
    r"""Tokens on the colours of their relevance, for LaTeX with the package xcolor.

    Args, Returns: as `text_html`; line breaks are allowed between tokens.

    >>> print(text_latex(["5%"], np.array([0.0])).rpartition("}{")[2])
    \strut 5\%}}}
    """
    boxes = [
        f"\\colorbox[HTML]{{{hexadecimal(back)[1:].upper()}}}"
        f"{{\\textcolor[HTML]{{{hexadecimal(ink)[1:].upper()}}}{{\\strut {_latex(token)}}}}}"
        for token, _, back, ink in _coloured(tokens, relevance, scale, cmap)
    ]
    return "{\\setlength{\\fboxsep}{0pt}" + "\\allowbreak ".join(boxes) + "}"


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", " ": r"\ ", "\n": r"\ ",
} | {letter: "\\" + letter for letter in "&%$#_"}  # fmt: skip


def _latex(token: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in token)


def text(
    tokens: Sequence[str],
    relevance: Any,
    ax: Any = None,
    *,
    scale: Scale = "max",
    cmap: str = "relevance",
    width: float = 6.0,
    fontsize: float = 10,
) -> Any:
    """Tokens on the colours of their relevance, as a figure of vector text, broken into lines.

    Args:
      tokens, relevance, scale, cmap: as `text_html`.
      ax: matplotlib axes, new ones of the needed height if not given.
      width: of new axes, in inches.
      fontsize: in points.

    Returns:
      The axes.
    """
    coloured = _coloured(tokens, relevance, scale, cmap)
    if ax is not None:
        width = ax.get_position().width * ax.figure.get_size_inches()[0]
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(family="monospace", size=fontsize)
    step = TextPath((0, 0), "m" * 100, prop=font).get_extents().width / 100 / 72
    columns, line, column, places = int(width / step), 0, 0, []
    for token, *_ in coloured:
        length = len(token.replace("\n", "")) or 1
        if (column and column + length > columns) or token.startswith("\n"):
            line, column = line + 1, 0
        places.append((line, column))
        column += length
    height = 1.7 * fontsize / 72
    if ax is None:
        figure = pyplot().figure(figsize=(width, height * (line + 1)))
        ax = figure.add_axes((0, 0, 1, 1))
    ax.set_xlim(0, columns)
    ax.set_ylim(line + 1, 0)
    ax.axis("off")
    from matplotlib.patches import Rectangle

    for (token, _, back, ink), (row, left) in zip(coloured, places, strict=True):
        shown = token.replace("\n", "") or " "
        box = Rectangle(
            (left, row + 0.08), len(shown), 0.84, facecolor=hexadecimal(back), linewidth=0
        )
        ax.add_patch(box)
        ax.text(
            left,
            row + 0.5,
            shown,
            color=hexadecimal(ink),
            fontproperties=font,
            va="center_baseline",
        )
    return ax


def _coloured(
    tokens: Sequence[str], relevance: Any, scale: Scale, cmap: str
) -> list[tuple[str, float, tuple[int, ...], tuple[int, ...]]]:
    """Each token with its relevance, the colour behind it, and the ink that reads better."""
    values = np.asarray(relevance, float)
    values = values.sum(-1) if values.ndim == 2 else values
    if values.shape != (len(tokens),):
        raise ValueError(
            f"{len(tokens)} tokens need as many relevances, got the shape {values.shape}"
        )
    tokens = clean(tokens)
    backs = colormaps.colours(unit(values, bound(values, scale)), cmap)
    return [
        (token, float(value), tuple(int(c) for c in back), ink_on(back))
        for token, value, back in zip(tokens, values, backs, strict=True)
    ]


def ink_on(ground: np.ndarray) -> tuple[int, int, int]:
    """Black or white, whichever reads better on a colour."""
    return (0, 0, 0) if _luminance(ground) > 0.18 else (255, 255, 255)


def _luminance(colour: np.ndarray) -> float:
    """Of sRGB, relative to white (WCAG 2)."""
    part = np.asarray(colour) / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def hexadecimal(colour: Iterable[int]) -> str:
    """A colour as HTML writes it."""
    return "#" + "".join(f"{c:02x}" for c in colour)
