"""`docs/guests.md`, from reports."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HEAD = """\
# Models that others wrote

Published models, built small with random weights and held against an oracle that knows nothing of
the library: it walks the primitives of the function, holds the statistics of norms, shares products
among their factors, hands relevance through elementwise functions and takes the derivative of what
is left, times the input; for CNNs it sums contributions of each sign. The outputs are unchanged and
the ledger of every one adds up. What has to be refused is refused by name, before anything runs.

- *recognised as*: layers of the plan, where they have a rule of their own
- *equal to*: composites under which relevance is the oracle's, and the largest difference, as a
  fraction of the largest relevance
- *cost*: operations of an explanation, for each of the gradient
- *first call*: processor time to trace, lower and compile one, for each of the gradient's

All of them by one command, in an environment made by `pip install '.[guests]'`:

```bash
python -m tests.guests
python -m tests.guests --published    # Keras' applications of published width and depth
```
"""
FOOT = """
## Not in the tables

- Mamba-3: relevance is another one than the oracle's, by 0.5 % of the largest under AttnLRP. It
  contracts four factors at once, and which of them are paired first is not settled.
- Equimo's ReduceFormer: by 23 % of the largest under AttnLRP. It divides by the product of two sums
  with one stabiliser, and one of them is above the line too; without the stabiliser both cancel.
- Linear and full attention of Hyperbolix: by 1 % and by a quarter of the largest. The first scales
  `h ** 2` by a norm of `h` over one of `h ** 2`, and which of them are held is not settled; in the
  other, products of each head are multiplied further behind a stack of heads, which here is one
  product for each head, and two, one in the other, to the oracle.
- Layers of Hyperbolix on the Poincare ball: under AttnLRP relevance is another one than the
  oracle's, by 0.1 % of the largest. A bias added there reads a product of a norm's parts several
  times, and which of them are one factor is not settled.
"""
SHOWN = ("Conv", "ConvTranspose", "Dense", "MatMul", "Attention", "Product", "Softmax",
         "Normalization", "BatchNorm", "MaxPool", "AvgPool")  # fmt: skip

FOUND = Path(__file__).with_name("found.json")
PAGE = Path(__file__).parents[2] / "docs" / "guests.md"


def keep(report: dict[str, Any]) -> None:
    """Put a report in the place of the last one of that guest, and write the page.

    Args:
        report: of one guest.
    """
    known = json.loads(FOUND.read_text()) if FOUND.exists() else []
    reports = {r["name"]: r for r in known} | {report["name"]: report}
    ordered = sorted(reports.values(), key=lambda r: (r["package"], r["name"]))
    FOUND.write_text("[\n" + ",\n".join(map(json.dumps, ordered)) + "\n]\n")
    write(PAGE, ordered)


def write(path: Path, reports: Sequence[dict[str, Any]]) -> None:
    """Write the page.

    Args:
        path: of the page.
        reports: of all guests.
    """
    lines = [HEAD]
    packages = dict.fromkeys((r["package"], r["version"]) for r in reports)
    for package, version in packages:
        lines += ["", f"## {package} {version}" if package else "## Without an answer", ""]
        lines.append("| family | recognised as | equal to | cost | first call |")
        lines.append("|---|---|---|---|---|")
        lines += [_row(r) for r in reports if r["package"] == package]
    path.write_text("\n".join(lines) + "\n" + FOOT)


def _row(report: dict[str, Any]) -> str:
    kinds = report["recognised"]
    recognised = ", ".join(f"{kinds[k]} {k}" for k in SHOWN if kinds.get(k))
    differences = report["differences"]
    equal = ", ".join(differences) + f": {max(differences.values(), default=float('nan')):.0e}"
    if report.get("explained"):
        equal += f"; explained under {', '.join(report['explained'])}"
    if report.get("refused"):
        equal = f"refused by the plan: {report['refused']}"
    if report["failures"]:
        equal = "; ".join(report["failures"]).replace("|", "/").replace("\n", " ")
    prices = f"{report['cost']:.2f} | {report['first']:.1f}" if report["cost"] else " | "
    return f"| {report['name']} | {recognised} | {equal} | {prices} |"
