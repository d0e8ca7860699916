"""Smaller programs that fail alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from .networks import Op, Program

Failure = Callable[[Program], Exception | None]


def shrink(
    program: Program, error: Exception, failure: Failure, tries: int = 80
) -> tuple[Program, Exception]:
    """The smallest program found whose failure is of the same type, and that failure."""
    while True:
        for smaller in simpler(program):
            tries -= 1
            if tries < 0:
                return program, error
            found = failure(smaller)
            if found is not None and alike(found, error):
                program, error = smaller, found
                break
        else:
            return program, error


def alike(a: Exception, b: Exception) -> bool:
    """Whether two failures say the same up to numbers."""
    return type(a) is type(b) and str(a)[:12] == str(b)[:12]


def simpler(program: Program) -> Iterator[Program]:
    """Programs that are one step simpler, the largest steps first."""
    for ops in simpler_ops(program.ops):
        yield dataclasses.replace(program, ops=ops)
    if program.dtype != "float64":
        yield dataclasses.replace(program, dtype="float64")
    if program.kind != "vector":
        yield dataclasses.replace(program, kind="vector")
    if program.target:
        yield dataclasses.replace(program, target=0)


def simpler_ops(ops: tuple[Op, ...]) -> Iterator[tuple[Op, ...]]:
    for i in range(len(ops)):
        yield ops[:i] + ops[i + 1 :]
    for i, one in enumerate(ops):
        if one.inside:
            yield ops[:i] + one.inside + ops[i + 1 :]
            for inside in simpler_ops(one.inside):
                if inside:
                    yield (*ops[:i], one._replace(inside=inside), *ops[i + 1 :])
        for field in ("of", "c", "b", "a"):
            if getattr(one, field):
                yield (*ops[:i], one._replace(**{field: 0}), *ops[i + 1 :])
