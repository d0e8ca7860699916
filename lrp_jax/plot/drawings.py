"""Drawings for pages, as SVG: how concepts hand relevance on, and where it goes on its way."""

import html
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._tables import counted
from ..questions.concepts import ConceptGraph
from ..questions.ledger import COLUMNS, Ledger
from .pages import Section, level, number
from .tools import bound

_LEFT, _WIDE, _HIGH = 170, 74, 84  # of a graph: names of layers, and the place of a concept
_WIDEST, _SHORE, _OUT = 120, 20, 210  # of a river: its width, its left shore, its branches' ends
_LETTERS = 24  # of a layer's name; the last ones tell it from others


def concepts(graph: ConceptGraph, *, example: int = 0, k: int = 5) -> Section:
    """The strongest concepts of each layer and what they hand on, to click through.

    Args:
      graph: what `lrp_jax.questions.concept_graph(...)(...)` returns; the output's side is on top.
      example: which example.
      k: how many concepts of each layer, ordered by their relevance.

    Returns:
      A section for `lrp_jax.plot.page`.
    """
    chosen = graph.strongest(example, k)
    scores = [np.asarray(s[example])[u] for s, u in zip(graph.scores, chosen, strict=True)]
    names = [
        [f"unit {unit} of {path}" for unit in units]
        for path, units in zip(graph.layers, chosen, strict=True)
    ]
    edges = [
        (row, i, j, float(amount), bound(flow))
        for row, every in enumerate(graph.edges)
        for flow in [np.asarray(every[example])[np.ix_(chosen[row], chosen[row + 1])]]
        for (i, j), amount in np.ndenumerate(flow)
    ]
    lines = "".join(
        f"<tr><td>{html.escape(names[row][i])} to {html.escape(names[row + 1][j])}</td>"
        f"<td>{number(amount)}</td></tr>"
        for row, i, j, amount, _ in edges
    )
    width, height = _LEFT + _WIDE * max(map(len, chosen)), _HIGH * len(chosen)

    def body(name: str) -> str:
        drawn = [
            _edge(name, (row, i), (row + 1, j), amount / limit)
            + _title(f"{names[row][i]} to {names[row + 1][j]}: {number(amount)}")
            + "</line>"
            for row, i, j, amount, limit in edges
        ]
        for row, values in enumerate(scores):
            layer = graph.layers[row]
            label = html.escape(layer if len(layer) <= _LETTERS else f"…{layer[1 - _LETTERS :]}")
            drawn.append(f'<text x="0" y="{_place(row, 0)[1] + 4:g}">{label}</text>')
            drawn += [
                _node(name, (row, i), str(chosen[row][i]), level(value / bound(values)))
                + _title(f"{names[row][i]}: {number(float(value))}")
                + "</g>"
                for i, value in enumerate(values)
            ]
        return (
            f'<figure><svg class="graph" viewBox="0 0 {width} {height}" width="{width}" '
            f'role="group" aria-label="concepts and what they hand on">{"".join(drawn)}</svg>'
            "<output></output><figcaption>Choose a concept to see what it gets and gives."
            "</figcaption></figure>\n<details><summary>the numbers</summary>"
            f'<table class="sums"><tbody>{lines}</tbody></table></details>'
        )

    return Section(body)


def _place(row: int, i: int) -> tuple[float, float]:
    return _LEFT + _WIDE * (i + 0.5), _HIGH * (row + 0.5)


def _edge(name: str, upper: tuple[int, int], lower: tuple[int, int], share: float) -> str:
    (x, y), (to, below) = _place(*upper), _place(*lower)
    size = min(abs(share), 1)
    return (
        f'<line class="edge {"n" if share < 0 else "p"}" x1="{x:g}" y1="{y:g}" x2="{to:g}" '
        f'y2="{below:g}" stroke-width="{0.5 + 6 * size:.1f}" stroke-opacity="{size:.2f}" '
        f'data-from="{_id(name, upper)}" data-to="{_id(name, lower)}">'
    )


def _node(name: str, at: tuple[int, int], label: str, colour: str) -> str:
    x, y = _place(*at)
    return (
        f'<g class="node v {colour}" id="{_id(name, at)}" role="button" aria-pressed="false" '
        f'tabindex="0"><rect x="{x - 26:g}" y="{y - 15:g}" width="52" height="30" rx="15"></rect>'
        f'<text x="{x:g}" y="{y + 4:g}" text-anchor="middle">{label}</text>'
    )


def _id(name: str, at: tuple[int, int]) -> str:
    return f"{name}n{at[0]}.{at[1]}"


def _title(text: str) -> str:
    return f"<title>{html.escape(text)}</title>"


def flow(passed: Ledger | Mapping[str, Any], *, top: int = 12) -> Section:
    """Where relevance went on its way from the output to the input, as a river with branches.

    Args:
      passed: what `lrp_jax.conservation(...)(...)` returns; or by the names of places, from the
        output to the input, the relevance that is there, such as the sums of
        `lrp_jax.token_layers`: what is lost is then told of the place behind the loss.
      top: how many layers, those that took or made most, have a line of their own.

    Returns:
      A section for `lrp_jax.plot.page`.
    """
    if isinstance(passed, Ledger):
        start, received = float(passed.start), float(passed.received)
        constants = ("constants outside of layers", float(passed.elsewhere))
        rows, table = [*_grouped(_taken(passed), start, top), constants], passed._repr_html_() or ""
    else:
        names, there = list(passed), np.array([float(np.sum(v)) for v in passed.values()])
        if len(there) < 2:
            raise ValueError(f"a flow needs two places, there are {names}")
        start, received = there[0], there[-1]
        between = zip(names[1:], (-np.diff(there)).tolist(), strict=True)
        rows, table = _grouped(list(between), start, top), _sums(passed)
    left = start - np.cumsum([0.0, *(taken for _, taken in rows)])
    scale = _WIDEST / (np.abs(left).max() or 1.0)
    drawn, y, wide = [f'<text x="20" y="20">the output gives {number(start)}</text>'], 30.0, 0
    for i, (name, taken) in enumerate(rows):
        size = number(abs(taken)).lstrip("+") if scale * abs(taken) > 1e-3 else "0"
        told = f"{'+' if taken < 0 else '-'} {size}  {name}"
        high = max(40.0, scale * abs(taken) + 16)
        wide = max(wide, _OUT + 20 + 7 * len(told))
        drawn.append(_reach(y, high, scale * left[i], scale * left[i + 1]))
        drawn.append(f'<text x="{_OUT + 8}" y="{y + high / 2 + 4:.1f}">{html.escape(told)}</text>')
        y += high
    drawn.append(f'<text x="20" y="{y + 20:.1f}">the input gets {number(received)}</text>')
    picture = (
        f'<figure><svg viewBox="0 0 {wide} {y + 30:.0f}" width="{wide}" role="img" aria-label="of '
        f'{number(start)} the input gets {number(received)}">{"".join(drawn)}</svg></figure>\n'
    )
    return Section(lambda name: picture + table)


def _sums(passed: Mapping[str, Any]) -> str:
    lines = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{number(float(np.sum(value)))}</td></tr>"
        for name, value in passed.items()
    )
    return (
        "<details><summary>the relevance at each place</summary>"
        f'<table class="sums"><tbody>{lines}</tbody></table></details>'
    )


def _reach(y: float, high: float, above: float, below: float) -> str:
    """A piece of the river, and the branch that leaves or joins it, as wide as what it carries."""
    taken, a, b = above - below, abs(above), abs(below)
    shore = 0.0 if above * below < 0 else min(a, b)  # of the other sign, nothing is left of it
    side = "river minus" if above < 0 else "river"
    shape = f"M{_SHORE} {y:.1f}h{shore:.1f}v{high:.1f}H{_SHORE}z"
    piece = f'<path class="{side}" d="{shape}"/>' if shore else ""
    if abs(taken) < 0.4:
        return piece
    leaves = above * taken > 0
    start, bend = (y, 1) if leaves else (y + high, -1)
    inner, outer = _SHORE + shore, _SHORE + (a if leaves else b)
    near, far = (y + high / 2 - bend * end * abs(taken) / 2 for end in (1, -1))
    branch = (
        f"M{inner:.1f} {start:.1f}H{outer:.1f}Q{outer:.1f} {near:.1f} {_OUT} {near:.1f}"
        f"V{far:.1f}Q{inner:.1f} {far:.1f} {inner:.1f} {start:.1f}z"
    )
    return f'{piece}<g class="v {"n5" if taken < 0 else "p5"}"><path d="{branch}"/></g>'


def _taken(ledger: Ledger) -> list[tuple[str, float]]:
    """What each layer took, from the output on, and by what most."""
    lost = np.asarray(ledger.table, float)[::-1, 2:]
    causes = [_CAUSES[COLUMNS[2 + cause]] for cause in np.abs(lost).argmax(1)]
    return [
        (name + cause, float(taken))
        for name, cause, taken in zip(ledger.layers[::-1], causes, lost.sum(1), strict=True)
    ]


def _grouped(taken: list[tuple[str, float]], start: float, top: int) -> list[tuple[str, float]]:
    """The largest losses; the small ones before them, where they add up to something, are one line.

    What adds up to nothing is counted with the small ones that follow.
    """
    sums = np.array([amount for _, amount in taken])
    least = 1e-3 * max(abs(start), *np.abs(sums), 0)
    strongest = np.argsort(-np.abs(sums))[:top]
    rows: list[tuple[str, float]] = []
    others: list[float] = []
    for i, (name, amount) in enumerate(taken):
        if i not in strongest or abs(amount) <= least:
            others.append(amount)
            continue
        if abs(sum(others)) > least:
            rows.append((counted(len(others), "other layer"), sum(others)))
            others = []
        rows.append((name, amount))
    return [*rows, (counted(len(others), "other layer"), sum(others))] if others else rows


_CAUSES = {
    "bias": ", by the bias",
    "stabiliser": ", by the stabiliser",
    "dropped": ", dropped",
    "rule": ", by the rule",
}
