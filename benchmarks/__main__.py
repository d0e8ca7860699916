"""Measure everything that is installed, side by side.

    python -m benchmarks                        everything; an hour on two cores
    python -m benchmarks --quick                a look, under three minutes
    python -m benchmarks --only "VGG16:1,4"     one network, two batch sizes
    python -m benchmarks --device               a GPU or TPU, under ten minutes; writes a profile
    python -m benchmarks --compare              what became slower since the ratios that are kept

Writes `results.json`, `results.md` and `results.png` to a folder (`--out`); with `--keep` also the
ratios of this run to `benchmarks/ratios.json`, which `--compare` reads.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
from pathlib import Path

QUICK = {"MLP": (8,), "MNIST CNN": (8,), "ViT-Ti/16": (1,)}
# Large enough to keep an accelerator busy.
DEVICE = {"VGG16": (8,), "ResNet-18": (32,), "ViT-Ti/16": (32,), "Llama, 6 layers": (16,)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Formatter)
    parser.add_argument("--quick", action="store_true", help="few small networks, few rounds")
    parser.add_argument("--device", action="store_true", help="the cases for accelerators")
    parser.add_argument("--keep", action="store_true", help="keep the ratios of this run")
    parser.add_argument("--compare", action="store_true", help="with the ratios that are kept")
    parser.add_argument("--only", action="append", metavar="NETWORK[:BATCH,...]")
    parser.add_argument("--systems", default="*", metavar="GLOB", help="which to run")
    parser.add_argument("--seconds", type=float, default=30.0, help="of rounds for each case")
    parser.add_argument("--threads", type=int, default=0, help="processor cores; 0: all")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"))
    options = parser.parse_args()
    threads = use_cores(options.threads)  # before a framework counts them

    import jax

    from . import contestants, report, torch_systems, torch_transformers
    from .measure import check_same, peak_memory, race
    from .networks import NETWORKS

    cases = dict.fromkeys(NETWORKS, (1, 8, 32))
    if options.quick or options.compare or options.keep:
        cases = QUICK
    if options.device:
        cases = DEVICE
        if jax.default_backend() == "cpu":
            print("JAX sees no accelerator here: these are a processor's numbers.")
    if options.only:
        cases = dict(_case(text) for text in options.only)
    if unknown := cases.keys() - NETWORKS.keys():
        parser.error(f"unknown networks {sorted(unknown)}; there are {', '.join(NETWORKS)}")
    short = options.quick or options.device or options.compare or options.keep
    seconds = 5.0 if short else options.seconds
    described, rows = report.machine(threads), []
    for name, sizes in cases.items():
        network = NETWORKS[name]
        params = network.init(jax.random.key(0))
        for size in sizes:
            builds = contestants.systems(name, network, size, params)
            builds |= torch_systems.systems(network, size, params, threads)
            builds |= torch_transformers.systems(name, network, size, params, threads)
            racing = [
                build()
                for system, build in builds.items()
                if system == contestants.FLOOR or fnmatch.fnmatch(system, options.systems)
            ]
            check_same(racing)
            race(racing, seconds, fewest=3, most=200)
            for contestant in racing:
                contestant.facts["process_bytes"] = peak_memory(contestant)
            if options.device:
                with jax.profiler.trace(str(options.out / "profile")):
                    for contestant in racing:
                        with jax.profiler.TraceAnnotation(f"{name}, {size}: {contestant.name}"):
                            contestant.call(0)
            rows += report.records(name, size, racing)
            report.write(options.out, described, rows)
            print(report.markdown(described, rows[-len(racing) :]).split("\n\n", 2)[2], flush=True)
    if options.compare:
        print(report.slower(rows))
    if options.keep:
        report.keep(described, rows)


class _Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    pass


def _case(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.partition(":")
    return name, tuple(int(size) for size in sizes.split(",")) if sizes else (1, 8, 32)


def use_cores(count: int) -> int:
    """Keep this process to some cores; every framework then starts that many threads."""
    if not hasattr(os, "sched_setaffinity"):  # only Linux can
        return os.cpu_count() or 1
    allowed = sorted(os.sched_getaffinity(0))
    chosen = allowed[:count] if count else allowed
    os.sched_setaffinity(0, chosen)
    return len(chosen)


if __name__ == "__main__":
    main()
