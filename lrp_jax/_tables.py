"""Tables that fit a terminal, and the same tables for a notebook.

The pages need no script and no network, follow the colours of the page around them (light or
dark), and say everything in text: a bar or a tint behind a number only repeats the number.
"""

import html
import os
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np


@dataclass(frozen=True)
class Table:
    """Rows of text under a header.

    Attributes:
        header: the names of the columns.
        rows: one cell for each column.
        numbers: positions of the columns that hold numbers.
        keep: how many columns at the left are shortened last, and from their beginnings.
        notes: lines below.
        tints: for each row the name that gives it a colour; empty for none.
        bars: for each row and column of numbers a length from -1 to 1; empty for none.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()
    keep: int = 1
    notes: tuple[str, ...] = ()
    tints: tuple[str, ...] = ()
    bars: tuple[tuple[float, ...], ...] = ()

    def text(self, width: int | None = None) -> str:
        """The table in columns.

        Args:
            width: characters that a line may have. Longer cells have an ellipsis; where that is not
                enough, columns of text are left out, the last first. Numbers are whole.
        """
        whole = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        widths = dict(enumerate(whole))
        if width is not None:
            self._fit(widths, width)
        rule = tuple("-" * widths.get(i, 0) for i in range(len(whole)))
        lines = [
            "  ".join(self._cell(row[i], i, size) for i, size in widths.items()).rstrip()
            for row in (self.header, rule, *self.rows)
        ]
        notes = [line for note in self.notes for line in _lines(note, width)]
        return "\n".join([*lines, *notes])

    def _fit(self, widths: dict[int, int], width: int) -> None:
        """Make columns of text narrower, the widest first, and leave out what is too much."""
        beside = [i for i in widths if i >= self.keep and i not in self.numbers]
        kept = [i for i in range(self.keep) if i not in self.numbers]

        def spare() -> int:
            return width - sum(widths.values()) - 2 * (len(widths) - 1)

        for columns, least in ((beside, _NARROWEST), (kept, _NARROWEST_KEPT)):
            while columns and spare() < 0:
                widest = max(columns, key=widths.__getitem__)
                if widths[widest] <= least:
                    break
                widths[widest] -= 1
        while beside and spare() < 0:
            del widths[beside.pop()]

    def _cell(self, cell: str, column: int, size: int) -> str:
        if column in self.numbers:
            return cell.rjust(size)
        if len(cell) > size:
            cell = f"…{cell[1 - size :]}" if column < self.keep else f"{cell[: size - 1]}…"
        return cell[:size].ljust(size)

    def page(self, title: str) -> str:
        """The table as HTML, folded where it is long.

        Args:
            title: the line that stays where it is folded.
        """
        head = "".join(f"<th {self._side(i)}>{_safe(h)}</th>" for i, h in enumerate(self.header))
        body = "".join(self._row(i, row) for i, row in enumerate(self.rows))
        notes = "".join(f"<div style='margin-top:.3em'>{_safe(note)}</div>" for note in self.notes)
        opened = " open" if len(self.rows) <= _FOLDED_FROM else ""
        return (
            f"<details{opened} style='font-size:.9em'>"
            f"<summary style='cursor:pointer'>{_safe(title)}</summary>"
            "<div style='overflow-x:auto'><table style='border-collapse:collapse;"
            "color:inherit;background:none'>"
            f"<thead><tr style='border-bottom:1px solid currentColor'>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table></div>{notes}</details>"
        )

    def _row(self, index: int, row: tuple[str, ...]) -> str:
        tint = f"background:{_tint(self.tints[index])}" if self.tints else "background:none"
        cells = "".join(
            f"<td {self._side(i, self._bar(index, i))}>{_safe(cell)}</td>"
            for i, cell in enumerate(row)
        )
        return f"<tr style='{tint}'>{cells}</tr>"

    def _bar(self, row: int, column: int) -> str:
        length = self.bars[row][column] if self.bars else 0.0
        if not length:
            return ""
        colour = "rgba(200,60,50,.3)" if length > 0 else "rgba(50,110,200,.3)"
        end = f"{100 * min(abs(length), 1):.0f}%"
        return f";background:linear-gradient(to left,{colour} {end},transparent {end})"

    def _side(self, column: int, more: str = "") -> str:
        side = "right" if column in self.numbers else "left"
        return f"style='text-align:{side};padding:.15em .6em;white-space:nowrap{more}'"


_NARROWEST, _NARROWEST_KEPT, _FOLDED_FROM = 8, 20, 40


class Shown:
    """What shows itself as a table, in a terminal of any width and in a notebook."""

    def _table(self) -> Table:
        raise NotImplementedError

    def _title(self) -> str:
        return type(self).__name__

    def _shown(self) -> Table | None:
        """The table; none while it is traced, or where `vmap` has put other axes in front."""
        leaves = [leaf for leaf in jax.tree.leaves(self) if leaf is not self]
        arrays = all(isinstance(leaf, np.ndarray | jax.Array) for leaf in leaves)
        if not arrays or any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return None
        try:
            return self._table()
        except (IndexError, TypeError, ValueError):
            return None

    def __repr__(self) -> str:
        table = self._shown()
        if table is not None:
            return table.text(terminal_width())
        leaves = (
            f"{leaf.dtype}{list(leaf.shape)}" if hasattr(leaf, "dtype") else str(leaf)
            for leaf in jax.tree.leaves(self)
        )
        return f"{type(self).__name__}({', '.join(leaves)})"

    def _repr_html_(self) -> str | None:
        table = self._shown()
        return None if table is None else table.page(self._title())


def arrays(named: Mapping[str, Any]) -> Table:
    """Arrays by their shapes and their numbers from the least to the largest."""
    found = {name: np.asarray(value, float) for name, value in named.items()}
    rows = tuple(
        (name, str(a.shape), *(f"{of(a):.4g}" for of in (np.min, np.mean, np.max)))
        for name, a in found.items()
    )
    return Table(("", "shape", "least", "mean", "largest"), rows, frozenset({2, 3, 4}))


def strongest(values: Any, names: Sequence[str], top: int = 5) -> str:
    """The names of the largest sizes among some numbers that are not zero, with the numbers."""
    values = np.asarray(values)
    best = [i for i in np.argsort(-np.abs(values))[:top] if values[i]]
    return ", ".join(f"{names[i]} ({values[i]:.3g})" for i in best)


def terminal_width() -> int | None:
    """The characters of a line of the terminal that is printed to; None where there is none."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError, AttributeError):
        return None


def brief(code: str) -> str:
    """The code of a rule with its arrays by their shapes alone, `array(3,)`."""
    return _ARRAY.sub(lambda found: f"array{_shape(found[1])}", code)


def _shape(text: str) -> str:
    """The shape of an array from its printed numbers, as far as they are all there."""
    if "..." in text:
        return "(...)"
    depth = len(text) - len(text.lstrip("["))
    counts, level, shape = [0] * depth, -1, [0] * depth
    for sign in text:
        if sign == "[":
            level += 1
            counts[level] = 1
        elif sign == "]":
            shape[level] = counts[level]
            level -= 1
        elif sign == ",":
            counts[level] += 1
    return f"({', '.join(map(str, shape))}{',' if depth == 1 else ''})"


_ARRAY = re.compile(r"np\.array\((\[[^()]*\])\)")


def _lines(note: str, width: int | None) -> list[str]:
    if width is None:
        return [note]
    return textwrap.wrap(note, max(width, 20), subsequent_indent="  ", break_on_hyphens=False)


def _safe(text: str) -> str:
    return html.escape(text)


def _tint(name: str) -> str:
    """A faint colour of a name's own, that leaves the text readable on light and dark."""
    if not name:
        return "none"
    return f"hsla({sum(map(ord, name)) * 47 % 360},60%,50%,.12)"


def counted(number: int, one: str, many: str = "") -> str:
    """`1 layer`, `2 layers`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def shares_of_largest(rows: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    """Every number as a share of the largest size among all of them that are finite."""
    finite = [abs(v) for row in rows for v in row if abs(v) < float("inf")]
    largest = max(finite, default=0.0) or 1.0
    return tuple(tuple(v / largest if abs(v) < float("inf") else 0.0 for v in r) for r in rows)
