"""Pages in one file: HTML that is opened, sent and printed without a network or a server.

Numbers can be read without a script; it adds sliders, arrow keys and what is under the pointer.
Sign is told by stripes, dots and dashes as well as by colour, on light and on dark grounds.
"""

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from . import colormaps
from .tokens import hexadecimal, ink_on
from .tools import by_name

LEVELS = 10
"""How many colours a sign has."""


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
      body: a function from a name that nothing else on the page has to HTML.
      choices: how many things there are to choose from.
    """

    body: Callable[[str], str]
    choices: int = 0


@dataclass(frozen=True)
class Page:
    """A page; shows itself in a notebook.

    Attributes:
      title: its title.
      html: the whole file.
    """

    title: str
    html: str

    def save(self, path: str | Path) -> Path:
        """Write the page to a file.

        Args:
          path: of the file; its folder must exist.

        Returns:
          The path.
        """
        path = Path(path)
        path.write_text(self.html, encoding="utf-8")
        return path

    def __repr__(self) -> str:
        return f"Page({self.title!r}, {len(self.html.encode()) / 1000:.0f} kB)"

    def _repr_html_(self) -> str:
        return (
            f'<iframe title="{html.escape(self.title)}" srcdoc="{html.escape(self.html)}" '
            'style="width:100%;height:40em;border:1px solid #8a8a8a"></iframe>'
        )


def page(title: str, sections: Mapping[str, Section | str]) -> Page:
    """A page in one file, of sections with headings.

    Args:
      title: of the page.
      sections: by their headings, what `lrp_jax.plot.sections` makes, or text, whose paragraphs are
        parted by empty lines.

    Returns:
      A `Page`: `.save(path)` writes it.

    >>> from lrp_jax.plot import sections
    >>> made = page("Two words", {"Sums": sections.matrix([[1.0, -2.0]], ["cat"], ["the", "a"])})
    >>> made.html.count("<td"), "://" in made.html
    (2, False)
    """
    by_name(sections, "the sections of a page", '{"heading": sections.matrix(...) or a text}')
    if wrong := [h for h, part in sections.items() if not isinstance(part, Section | str)]:
        raise TypeError(f"{wrong[0]!r} is made by lrp_jax.plot.sections, or is a text")
    made = {
        heading: Section(_paragraphs(part)) if isinstance(part, str) else part
        for heading, part in sections.items()
    }
    parts = "\n".join(
        f"<section><h2>{html.escape(heading)}</h2>\n{part.body(f's{number}')}</section>"
        for number, (heading, part) in enumerate(made.items())
    )
    most = max((part.choices for part in made.values()), default=0)
    chosen = "".join(f".choose:has(.r{i}:checked) .q{i}{{display:block}}\n" for i in range(most))
    folder = files(__package__)
    style, script = ((folder / f"page.{end}").read_text("utf-8") for end in ("css", "js"))
    return Page(
        title,
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_ALLOWED}">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{style}{_colours()}{chosen}</style>\n"
        f"<h1>{html.escape(title)}</h1>\n{parts}\n<script>\n{script}</script>\n</html>\n",
    )


# Browsers hold the page to it: nothing is asked of any network.
_ALLOWED = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)


def level(share: float) -> str:
    """The class of the colour for relevance from -1 to 1; `x` for what is not finite."""
    if not np.isfinite(share):
        return "x"
    size = min(LEVELS, int(np.ceil(LEVELS * abs(share) - 0.5)))
    return "z" if size <= 0 else f"{'p' if share > 0 else 'n'}{size}"


def number(value: float) -> str:
    """Three digits and a sign."""
    return f"{value:+.3g}" if value else "0"


def _paragraphs(text: str) -> Callable[[str], str]:
    found = "".join(f"<p>{html.escape(part)}</p>\n" for part in text.split("\n\n"))
    return lambda name: found


def _colours() -> str:
    light, dark = (_levels(name) for name in ("relevance", "relevance_dark"))
    return f"{light}@media (prefers-color-scheme: dark) {{\n{dark}}}\n"


def _levels(cmap: str) -> str:
    """A rule for each class that `level` names: ground, ink, and the colour of lines."""
    shares = np.arange(-LEVELS, LEVELS + 1) / LEVELS
    backs = [*colormaps.colours(shares / 2 + 0.5, cmap), np.array(colormaps.MISSING)]
    rules = [
        f".{name}{{--b:{hexadecimal(back)};--i:{hexadecimal(ink_on(back))}}}\n"
        for name, back in zip([*map(level, shares), "x"], backs, strict=True)
    ]
    rules.append(".z{--b:var(--ground);--i:var(--ink)}\n")  # nothing is no colour
    ends = {"n": backs[round(0.4 * LEVELS)], "p": backs[round(1.6 * LEVELS)]}
    rules += [f".edge.{sign}{{--e:{hexadecimal(back)}}}\n" for sign, back in ends.items()]
    return "".join(rules)
