"""Tables that fit a terminal, and the same tables for a notebook.

The pages need no script and no network, follow the colours of the page around them (light or
dark), and say everything in text: a bar or a tint behind a number only repeats the number.
"""

import html
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Rows of text under a header.

    Attributes:
        header: the names of the columns.
        rows: one cell for each column.
        numbers: positions of the columns that hold numbers.
        keep: how many columns at the left are never shortened.
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
            width: characters that a line may have; longer cells end in an ellipsis.
        """
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        if width is not None:
            widths = self._fitted(widths, width)
        rule = tuple("-" * w for w in widths)
        lines = [
            "  ".join(
                _cut(cell, w).rjust(w) if i in self.numbers else _cut(cell, w).ljust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in (self.header, rule, *self.rows)
        ]
        return "\n".join([*lines, *self.notes])

    def _fitted(self, widths: list[int], width: int) -> list[int]:
        """Narrower columns of text, the widest first."""
        shrinkable = [i for i in range(self.keep, len(widths)) if i not in self.numbers]
        while sum(widths) + 2 * (len(widths) - 1) > width:
            widest = max(shrinkable, key=lambda i: widths[i], default=None)
            if widest is None or widths[widest] <= _NARROWEST:
                break
            widths[widest] -= 1
        return widths

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


_NARROWEST, _FOLDED_FROM = 8, 40


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


def _cut(cell: str, width: int) -> str:
    return cell if len(cell) <= width else cell[: width - 1] + "…"


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
