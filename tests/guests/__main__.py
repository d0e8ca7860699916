"""`python -m tests.guests [--published] [NAME ...]`: examines guests, and writes `docs/guests.md`.

What was found of the others is kept in `found.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict
from queue import Empty, Queue
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Compiling is nearly all of the time.
FLAGS = ("--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1")
os.environ["XLA_FLAGS"] = " ".join((*FLAGS, os.environ.get("XLA_FLAGS", "")))

from .page import keep  # noqa: E402

SECONDS = 1500
"""A guest that takes longer has hung; a large one takes minutes where a machine is shared."""
MARK = "REPORT "


def work(names: list[str]) -> None:
    """Examine guests in this process, a line for each."""
    import warnings

    warnings.simplefilter("ignore")
    import jax

    jax.config.update("jax_enable_x64", True)
    from .guest import examine
    from .house import GUESTS

    for name in names:
        try:
            report = asdict(examine(GUESTS[name], priced=not GUESTS[name].published))
        except Exception as error:
            report = failed(name, f"{type(error).__name__}: {str(error)[:300]}")
        print(MARK + json.dumps(report), flush=True)
        jax.clear_caches()


def failed(name: str, why: str) -> dict[str, Any]:
    return dict(name=name, package="", version="", recognised={}, differences={}, cost=0.0,
                first=0.0, failures=[why])  # fmt: skip


def examine_all(names: list[str]) -> list[dict[str, Any]]:
    """Reports of all guests; one that hangs or dies takes no other along."""
    reports: list[dict[str, Any]] = []
    todo = list(names)
    while todo:
        command = [sys.executable, "-W", "ignore", "-m", "tests.guests", "--work", *todo]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        lines: Queue[str | None] = Queue()

        def read(stream: Any = worker.stdout, lines: Queue[str | None] = lines) -> None:
            for line in stream:
                lines.put(line)
            lines.put(None)

        threading.Thread(target=read, daemon=True).start()
        while todo:
            try:
                line = lines.get(timeout=SECONDS)
            except Empty:
                line = None
            if line is None:
                worker.kill()
                reports.append(failed(todo.pop(0), "no answer"))
                told(reports[-1])
                break
            if line.startswith(MARK):
                reports.append(json.loads(line[len(MARK) :]))
                todo.remove(reports[-1]["name"])
                told(reports[-1])
        worker.wait()
    return reports


def told(report: dict[str, Any]) -> None:
    """Print a report and keep it."""
    keep(report)
    worst = max(report["differences"].values(), default=float("nan"))
    print(f"{report['name']:24} {worst:8.1e} cost {report['cost']:.2f} first {report['first']:.2f}")
    for failure in report["failures"]:
        print(f"    {failure}")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.guests", description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of names of guests or packages")
    parser.add_argument(
        "--published", action="store_true", help="those of published width and depth, and no others"
    )
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.names)
        return 0
    from .house import GUESTS

    wanted = [
        name
        for name, guest in GUESTS.items()
        if guest.published == options.published
        and (
            not options.names
            or any(n.lower() in f"{name} {guest.package}".lower() for n in options.names)
        )
    ]
    reports = examine_all(wanted)
    bad = sum(bool(r["failures"]) for r in reports)
    print(f"{len(reports)} guests, {bad} of them with failures")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
