"""Blocks that a network repeats: each is traced once, whatever the depth of the network.

A transformer of twelve layers is one layer twelve times. Tracing, differentiating and transposing
an operation takes Python a thousand times as long as calling a function that is traced already, and
compilers inline these.
"""

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from .._analysis.compat import Var
from .._layers.step import Step

_WORTH = 8
"""So many steps fewer have to be traced for a block to be a function of its own."""


class Block(NamedTuple):
    """Steps that follow each other.

    Attributes:
        steps: in order.
        reads: what they need of what is made before them.
        makes: what is read after them.
        dead: what nobody reads after them.
        key: the same for blocks that compute the same; None for a single step.
    """

    steps: Sequence[Step]
    reads: Sequence[Var]
    makes: Sequence[Var]
    dead: Sequence[Var]
    key: Any


def blocks(
    steps: Sequence[Step], told: Sequence[tuple[Any, Sequence[Var]]], kept: Collection[Var]
) -> Iterator[Block]:
    """Steps as blocks that come again, and alone in between.

    Args:
        steps: in order.
        told: for each what it computes, the same for equals, and its variables in order.
        kept: what is read after all of them.
    """
    last = {v: n for n, step in enumerate(steps) for v in (*step.inputs, *step.constants)}
    last.update(dict.fromkeys(kept, len(steps)))
    dead: dict[int, list[Var]] = {}
    for var, number in last.items():
        dead.setdefault(number, []).append(var)

    kinds: dict[Any, int] = {}
    keys = [kinds.setdefault(key, len(kinds)) for key, _ in told]

    def block(piece: range) -> Block:
        own = [steps[n] for n in piece]
        made = dict.fromkeys(v for step in own for v in step.outputs)
        read = dict.fromkeys(v for step in own for v in (*step.inputs, *step.constants))
        makes = [v for v in made if last.get(v, -1) >= piece.stop]
        numbers: dict[Var, int] = {}
        wires = [*(v for n in piece for v in told[n][1]), *makes]
        key = *keys[piece.start : piece.stop], *(numbers.setdefault(v, len(numbers)) for v in wires)
        reads = [v for v in read if v not in made]
        return Block(own, reads, makes, [v for n in piece for v in dead.get(n, ())], key)

    found = [(piece, block(piece)) for piece in _pieces(keys)]
    often = Counter(whole.key for _, whole in found)
    for piece, whole in found:
        if often[whole.key] > 1 and len(piece) > 1:
            yield whole
        else:
            for n in piece:
                step = steps[n]
                yield Block([step], [], step.outputs, dead.get(n, ()), None)


def _pieces(keys: Sequence[int]) -> list[range]:
    """Positions of a sequence, cut where what it repeats begins anew."""
    found: list[range] = []
    todo = [range(len(keys))]
    while todo:
        piece = todo.pop()
        start, period, times = _longest(keys[piece.start : piece.stop])
        if period * (times - 1) < _WORTH:
            found.append(piece)
            continue
        starts = [piece.start + start + i * period for i in range(times + 1)]
        found += map(range, starts, starts[1:])
        todo += [range(piece.start, starts[0]), range(starts[-1], piece.stop)]
    return sorted(found, key=lambda piece: piece.start)


def _longest(keys: Sequence[int]) -> tuple[int, int, int]:
    """Where the repetition that covers most begins, how long one turn of it is, and how often."""
    last: dict[int, int] = {}
    periods = set[int]()
    for position, key in enumerate(keys):
        periods.add(position - last.get(key, position))
        last[key] = position
    best, saved = (0, 1, 1), 0
    for period in sorted(periods - {0}):
        equal = map(int.__eq__, keys, keys[period:])
        for same, group in itertools.groupby(enumerate(equal), lambda pair: pair[1]):
            run = [position for position, _ in group]
            turns = len(run) // period
            if same and turns * period > saved:
                best, saved = (run[0], period, turns + 1), turns * period
    return best
