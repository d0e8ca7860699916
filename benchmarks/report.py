"""Records of a run as JSON, as Markdown tables and as a figure."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from .contestants import FLOOR
from .measure import Contestant, spread

Record = dict[str, Any]


def machine(threads: int) -> Record:
    """What the numbers were measured on."""
    versions = {}
    for package in ("jax", "jaxlib", "flax", "numpy", "torch", "zennit", "captum", "lxt"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "device": jax.devices()[0].device_kind,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "versions": versions,
    }


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def records(network: str, batch: int, contestants: Sequence[Contestant]) -> list[Record]:
    """One record a contestant: seconds, spread, ratios to the gradient round by round."""
    floor = next(c for c in contestants if c.name == FLOOR)
    rows = []
    for c in contestants:
        ratios = [a / b for a, b in zip(c.seconds, floor.seconds, strict=True)]
        cpu = [a / b for a, b in zip(c.cpu_seconds, floor.cpu_seconds, strict=True)]
        temporary = c.facts.get("temporary_bytes")
        rows.append(
            {
                "network": network,
                "batch": batch,
                "system": c.name,
                "rounds": len(c.seconds),
                "seconds": spread(c.seconds)[0],
                "seconds_spread": spread(c.seconds)[1],
                "ratio": spread(ratios)[0],
                "ratio_spread": spread(ratios)[1],
                "cpu_ratio": spread(cpu)[0],
                "cpu_ratio_spread": spread(cpu)[1],
                "memory_ratio": _quotient(temporary, floor.facts["temporary_bytes"]),
                "process_ratio": _quotient(c.facts["process_bytes"], floor.facts["process_bytes"]),
                **c.facts,
            }
        )
    return rows


def _quotient(a: float | None, b: float) -> float | None:
    return None if a is None or not b else a / b


def markdown(described: Record, rows: Sequence[Record]) -> str:
    """A table for every network and batch."""
    versions = ", ".join(f"{name} {version}" for name, version in described["versions"].items())
    lines = [
        f"{described['processor']}, {described['cores']} cores, {described['threads']} used; "
        f"device {described['device']}; Python {described['python']}, {versions}.",
        "",
        "`x grad` is the median over rounds of the ratio to `jax.grad` in the same round, ± half "
        "of the interquartile range; `cpu` the same for processor time; `temp` is XLA's own "
        "analysis of temporary memory, and the ratio of it; `process` how far one call raises the "
        "memory of the process.",
    ]
    for network, batch in dict.fromkeys((r["network"], r["batch"]) for r in rows):
        lines += [
            "",
            f"### {network}, batch {batch}",
            "",
            "| | ms | x grad | cpu | temp MiB | x grad | process MiB | trace s | compile s |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for r in rows:
            if (r["network"], r["batch"]) == (network, batch):
                lines.append(_line(r))
    return "\n".join(lines) + "\n"


def _line(r: Record) -> str:
    mebibytes = r.get("temporary_bytes")
    cells = [
        r["system"],
        f"{1e3 * r['seconds']:.2f}",
        f"{r['ratio']:.2f} ± {r['ratio_spread']:.2f}",
        f"{r['cpu_ratio']:.2f} ± {r['cpu_ratio_spread']:.2f}",
        _number(None if mebibytes is None else mebibytes / 2**20, ".1f"),
        _number(r["memory_ratio"], ".2f"),
        _number(r["process_bytes"] / 2**20, ".1f"),
        _number(r.get("trace_seconds"), ".2f"),
        _number(r.get("compile_seconds"), ".1f"),
    ]
    return "| " + " | ".join(cells) + " |"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def figure(rows: Sequence[Record], path: Path) -> None:
    """Bars: the price of every explanation in gradients, this library's in red."""
    import matplotlib.pyplot as plt

    cases = list(dict.fromkeys((r["network"], r["batch"]) for r in rows))
    chosen = [[r for r in rows if (r["network"], r["batch"]) == case] for case in cases]
    columns = min(len(cases), 3)
    lines = -(-len(cases) // columns)
    height = 0.6 + 0.2 * max(len(part) for part in chosen)
    figure, axes = plt.subplots(
        lines, columns, figsize=(4 * columns, height * lines), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(cases) :]:
        axis.remove()
    for axis, case, part in zip(axes.flat, cases, chosen, strict=False):
        names = [r["system"] for r in part]
        others = ("torch", "zennit", "captum", "LXT", "autolrp")
        colours = [
            "0.6" if n.startswith(FLOOR) else "0.8" if n.startswith(others) else "tab:red"
            for n in names
        ]
        ratios, spreads = [r["cpu_ratio"] for r in part], [r["cpu_ratio_spread"] for r in part]
        bars = axis.barh(names, ratios, xerr=spreads, color=colours, error_kw={"linewidth": 0.8})
        axis.bar_label(bars, [f"{v:.2f}" for v in ratios], padding=4, fontsize=7)
        axis.axvline(1, color="0.3", linewidth=0.8)
        axis.margins(x=0.15)
        axis.invert_yaxis()
        axis.set_title(f"{case[0]}, batch {case[1]}", fontsize=9)
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("processor time in gradients (jax.grad = 1)", fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def write(folder: Path, described: Record, rows: Sequence[Record]) -> None:
    """`results.json`, `results.md` and `results.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {"machine": described, "records": list(rows)}
    (folder / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / "results.md").write_text(markdown(described, rows))
    figure(rows, folder / "results.png")


RATIOS = Path(__file__).with_name("ratios.json")


def keep(described: Record, rows: Sequence[Record]) -> None:
    """Ratios to the gradient, and their spread, for `slower` to compare with."""
    ratios = {_case(r): [round(r["cpu_ratio"], 3), round(r["cpu_ratio_spread"], 3)] for r in rows}
    kept = {"machine": described, "ratios": ratios}
    RATIOS.write_text(json.dumps(kept, indent=1) + "\n")


def slower(rows: Sequence[Record], kept: dict[str, Any] | None = None) -> str:
    """Which explanations cost more gradients than those that were kept, beyond the noise.

    Noise is twice the spread of both runs, and a twentieth: two quiet runs differ by that.
    """
    if kept is None and not RATIOS.exists():
        return f"No ratios are kept in {RATIOS.name}: run with --keep on a quiet machine first."
    ratios = (kept or json.loads(RATIOS.read_text()))["ratios"]
    known = [r for r in rows if _case(r) in ratios]
    lines = []
    for r in known:
        before, spread_before = ratios[_case(r)]
        noise = 2 * (spread_before + r["cpu_ratio_spread"]) + 0.05 * before
        if r["cpu_ratio"] > before + noise:
            lines.append(f"{_case(r)}: {r['cpu_ratio']:.2f} gradients, {before:.2f} before")
    return "\n".join(lines) or f"Nothing became slower than the noise, of {len(known)} kept."


def _case(row: Record) -> str:
    return f"{row['network']}:{row['batch']} {row['system']}"


def main() -> None:
    """Join the results of several runs, and draw some of them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("results", nargs="+", type=Path, help="results.json of earlier runs")
    parser.add_argument("--only", action="append", metavar="NETWORK:BATCH", help="to draw")
    parser.add_argument("--without", action="append", default=[], metavar="SYSTEM")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"))
    options = parser.parse_args()
    found = [json.loads(path.read_text()) for path in options.results]
    rows = [row for result in found for row in result["records"]]
    write(options.out, found[0]["machine"], rows)
    drawn = [
        row
        for row in rows
        if row["system"] not in options.without
        and (options.only is None or f"{row['network']}:{row['batch']}" in options.only)
    ]
    figure(drawn, options.out / "results.png")


if __name__ == "__main__":
    main()
