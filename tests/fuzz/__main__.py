"""`python -m tests.fuzz --seed S --count N`: random networks, from seeds S to S + N - 1."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
import traceback

# Compiling is nearly all of the time.
FLAGS = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join([*FLAGS, os.environ.get("XLA_FLAGS", "")])

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

jax.config.update("jax_enable_x64", True)

from .checks import NAMES, TARGETS, check  # noqa: E402
from .networks import Program, draw  # noqa: E402
from .shrink import shrink  # noqa: E402
from .twins import Different, check_twins, failure_like  # noqa: E402

FORGET = 100
"""Compiled programs are dropped after so many networks: no two are alike."""


def compilers() -> list[dict[str, bool] | None]:
    """Compiler options to try in turn: XLA's older code generator, where there is one, takes half
    of the time, and is wrong now and then."""
    older = {"xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(jnp.sin, compiler_options=older).lower(1.0).compile()
    except jax.errors.JaxRuntimeError:
        return [None]
    return [older, None]


COMPILERS = compilers()


def failure(program: Program) -> Exception | None:
    """What is wrong with a program, if anything, and whatever compiles it."""
    found: Exception | None = None
    for options in COMPILERS:
        try:
            check(program, options)
            return None
        except Exception as error:
            found = error
    return found


def twins_failure(program: Program, count: int) -> Exception | None:
    """What is wrong with a program's twins, if anything."""
    try:
        check_twins(program, count)
    except Exception as error:
        return error
    return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=1000, help="how many networks")
    parser.add_argument("--length", type=int, default=6, help="operations and blocks in a row")
    parser.add_argument("--twins", type=int, default=0, help="rewritten twins of every network")
    parser.add_argument("--only-twins", action="store_true", help="and nothing else of them")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at a finding")
    parser.add_argument("--no-shrink", action="store_true", help="show findings as they were drawn")
    options = parser.parse_args()
    gc.set_threshold(50_000, 20, 100)  # tracing makes many small objects that live on
    begin, findings, done = time.perf_counter(), 0, 0
    for number in range(options.count):
        if time.perf_counter() - begin > 60 * options.minutes:
            break
        done += 1
        seed = options.seed + number
        program = draw(seed, len(NAMES), len(TARGETS), options.length)
        error = None if options.only_twins else failure(program)
        again = failure
        if error is None and options.twins:
            error = twins_failure(program, options.twins)
            again = failure_like(error) if isinstance(error, Different) else again
        if error is not None:
            findings += 1
            smaller, error = (
                (program, error) if options.no_shrink else shrink(program, error, again)
            )
            print(f"\nseed {seed}: {type(error).__name__}: {error}")
            print(f"    {smaller!r}")
            print(f"    composite {NAMES[smaller.composite % len(NAMES)]!r}", flush=True)
            traceback.print_tb(error.__traceback__, -3, sys.stdout)
            if not options.keep_going:
                return 1
        if number % FORGET == FORGET - 1:
            jax.clear_caches()
            spent = time.perf_counter() - begin
            print(
                f"{number + 1} networks, {findings} findings, {spent / (number + 1):.2f} s each",
                flush=True,
            )
    print(f"{done} networks from seed {options.seed}: {findings} findings")
    return int(findings > 0)


if __name__ == "__main__":
    sys.exit(main())
