"""`python -m tests.spellings [--composites A B] [--after FRONT ...] [--before BACK ...] [--one]
[--unbatched WAY] [GROUP ...]`: who deviates from the standard."""

from __future__ import annotations

import argparse
import os
import sys
import time

FLAGS = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join([*FLAGS, os.environ.get("XLA_FLAGS", "")])

import jax  # noqa: E402

jax.config.update("jax_enable_x64", True)

from . import GROUPS  # noqa: E402
from .checks import (  # noqa: E402
    COMPOSITES,
    KNOWN,
    WAYS,
    Outcome,
    different_values,
    known,
    of_one,
    outcomes,
    without_batch,
)  # fmt: skip
from .surroundings import BACKS, BETWEEN_LAYERS, FRONTS, Place  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.spellings", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help="default: all of them")
    parser.add_argument("--composites", nargs="+", default=list(COMPOSITES), choices=COMPOSITES)
    parser.add_argument("--all", action="store_true", help="print also what agrees")
    parser.add_argument("--values", action="store_true", help="only compare values")
    parser.add_argument("--list", action="store_true", help="only name the groups")
    parser.add_argument(
        "--strict", action="store_true", help="what is listed as known and agrees is an error too"
    )
    parser.add_argument(
        "--after", nargs="+", default=["dense"], choices=FRONTS, help="what stands before them"
    )
    parser.add_argument(
        "--before", nargs="+", default=["nothing"], choices=BACKS, help="what stands after them"
    )
    parser.add_argument("--one", action="store_true", help="of a batch of one example")
    parser.add_argument("--unbatched", choices=WAYS, help="functions of one example, without axis")
    parser.add_argument("--keep", action="store_true", help="write what deviates to known.txt")
    options = parser.parse_args()
    unknown = [name for name in options.groups if name not in GROUPS]
    if unknown:
        parser.error(f"no group {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    chosen = [GROUPS[name] for name in options.groups or GROUPS]
    if options.one:
        chosen = [group for group in map(of_one, chosen) if len(group.spellings) > 1]
    if options.list:
        for group in chosen:
            print(f"{group.name}: {', '.join(group.spellings)}")
        return 0
    begin, listed, found = time.perf_counter(), known(), []
    wrong = 0
    for group in chosen:
        different = {} if options.unbatched else different_values(group)
        wrong += len(different)
        for name, away in different.items():
            print(f"{group.name} | {name} | is another function | {away:.2g}", flush=True)
        fronts = options.after if group.entry else ["dense"]
        asked = [(f, b) for f in fronts for b in options.before]
        for front, back, one in (
            (before, after, outcome)
            for before, after in (() if options.values else asked)
            for outcome in (
                without_batch(group, options.unbatched, options.composites)
                if options.unbatched
                else outcomes(group, options.composites, place(before, after))
            )
        ):
            found.append(one)
            shown = options.all or one.refused or not one.agrees
            if shown:
                mark = " (known)" if key(one) in listed else ""
                where = "" if front == "dense" else f" | after {front}"
                where += "" if back == "nothing" else f" | before {back}"
                print(f"{one.group} | {one.spelling} | {one.composite}{where} | {str(one)[:300]}"
                      f"{mark}", flush=True)  # fmt: skip
    deviating = [one for one in found if not one.agrees]
    new = [one for one in deviating if key(one) not in listed]
    mended = [one for one in found if one.agrees and key(one) in listed]
    print(
        f"{len(chosen)} groups, {sum(len(g.spellings) for g in chosen)} spellings, {len(found)} "
        f"explanations: {len(found) - len(deviating)} agree ({sum(o.refused for o in found)} of "
        f"them refused), {len(deviating)} deviate ({len(new)} of them not known, "
        f"{sum(o.warned for o in deviating)} warned), {len(mended)} known ones agree now; "
        f"{time.perf_counter() - begin:.0f} s"
    )
    for one in mended if options.strict else ():
        print(f"listed as known, but agrees: {one.group} | {one.spelling} | {one.composite}")
    if options.keep:
        keep(deviating, options, listed)
    return int(bool(wrong or new or (options.strict and mended)))


def place(front: str, back: str) -> Place:
    usual = (front, back) == ("dense", "nothing")
    return BETWEEN_LAYERS if usual else Place(FRONTS[front], BACKS[back])


def key(one: Outcome) -> tuple[str, str, str]:
    return one.group, one.spelling, one.composite


def keep(deviating: list[Outcome], options: argparse.Namespace, listed: frozenset) -> None:  # type: ignore[type-arg]
    """Write what deviates in place of what was listed for the same groups and composites."""
    asked = set(options.groups or GROUPS)
    kept = {k for k in listed if k[0] not in asked or k[2] not in options.composites}
    kept |= {key(one) for one in deviating}
    lines = ["# What is known to deviate: group | spelling | composites"]
    for name, group in GROUPS.items():
        for spelling in group.spellings:
            bad = [c for c in COMPOSITES if (name, spelling, c) in kept]
            if bad:
                lines.append(f"{name} | {spelling} | {' '.join(bad)}")
    KNOWN.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
