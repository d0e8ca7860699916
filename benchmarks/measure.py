"""Timing contestants against each other: interleaved rounds, medians and spread."""

from __future__ import annotations

import ctypes
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np


@dataclass
class Contestant:
    """One system on one network and batch.

    Attributes:
        name: of the system and its rules.
        call: from the number of a round to a finished explanation, as a NumPy-like array.
        explains: contestants of the same name must give the same numbers; empty: not compared.
        facts: what is known without timing: seconds to trace and compile, bytes.
        seconds: wall-clock time of every round.
        cpu_seconds: processor time of every round, all threads together.
        read: from an explanation to a NumPy array, not timed.
    """

    name: str
    call: Callable[[int], Any]
    explains: str = ""
    facts: dict[str, float] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    read: Callable[[Any], np.ndarray] = np.asarray


def of_jax(
    name: str, function: Callable[..., Any], constants: Any, batches: Sequence[Any], explains: str
) -> Contestant:
    """A JAX function of `(constants, *batch)`, compiled ahead of time.

    Several batches are used in turn, so that no result can be kept from one call to the next.
    """
    start = time.perf_counter()
    traced = jax.jit(function).trace(constants, *batches[0])
    after_trace = time.perf_counter()
    compiled = traced.lower().compile()
    memory = compiled.memory_analysis()
    facts = {
        "trace_seconds": after_trace - start,
        "compile_seconds": time.perf_counter() - after_trace,
        "temporary_bytes": float(memory.temp_size_in_bytes) if memory else float("nan"),
    }

    def call(number: int) -> Any:
        return jax.block_until_ready(compiled(constants, *batches[number % len(batches)]))

    return Contestant(name, call, explains, facts)


def check_same(contestants: Sequence[Contestant], tolerance: float = 0.02) -> None:
    """Refuse to compare the times of different explanations.

    Stabilised divisions amplify rounding in deep float32 networks: two of XLA's own convolutions
    differ by 1e-3. Wrong rules differ by 1e-1 and more.
    """
    reference: dict[str, tuple[str, np.ndarray]] = {}
    for contestant in contestants:
        if not contestant.explains:
            continue
        found = np.asarray(contestant.read(contestant.call(0)), np.float64)
        name, expected = reference.setdefault(contestant.explains, (contestant.name, found))
        error = np.abs(found - expected).sum() / np.abs(expected).sum()
        if not error < tolerance:
            raise AssertionError(
                f"{contestant.name} and {name} explain differently: relative L1 error {error:.2g}"
            )


def race(contestants: Sequence[Contestant], seconds: float, fewest: int, most: int) -> None:
    """Rounds in which each contestant runs once, in a new order every time."""
    order = random.Random(0)
    for contestant in contestants:
        contestant.call(0)
    end = time.perf_counter() + seconds
    number = 0
    while number < fewest or (number < most and time.perf_counter() < end):
        for contestant in order.sample(contestants, len(contestants)):
            cpu, wall = time.process_time(), time.perf_counter()
            contestant.call(number)
            contestant.seconds.append(time.perf_counter() - wall)
            contestant.cpu_seconds.append(time.process_time() - cpu)
        number += 1


def peak_memory(contestant: Contestant) -> float:
    """How far one warm call raises the memory of this process, in bytes (Linux; else not a number).

    What was freed before is given back first, and the kernel's high-water mark is reset.
    """
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if sys.platform != "linux" or not reset.exists():
        return float("nan")

    def read(field: str) -> float:
        line = next(line for line in status.read_text().splitlines() if line.startswith(field))
        return 1024.0 * float(line.split()[1])

    contestant.call(0)
    ctypes.CDLL(None).malloc_trim(0)
    reset.write_text("5")
    before = read("VmRSS:")
    contestant.call(1)
    return read("VmHWM:") - before


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Median and half of the interquartile range."""
    middle = statistics.median(values)
    if len(values) < 3:
        return middle, float("nan")
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, (high - low) / 2
