"""Which bytes tell the type of a file? Magika's published classifier, right and wrong decisions.

    pip install onnx
    pip install --no-deps magika==1.0.3    # the weights alone, without a runtime for them
    python examples/explain_file.py                       # files of this Python installation
    python examples/explain_file.py --folder ~/projects --each 100

Classifies files whose endings tell their types, and prints how often the network is right. Of the
decision that it is surest of, right and wrong, the bytes that made it are shown; for a wrong one
also those that spoke for it rather than for the truth. Then bytes become padding, those of most
relevance first, beside chance and gradients (integrated ones start at padding, by which all are
judged here). Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import sysconfig
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from magika_net import END, PADDING, Classifier, load, seen
from tqdm import tqdm

import lrp_jax as lrp
from lrp_jax import baselines, plot, targets
from lrp_jax.evaluation import area, fills, interval, pixel_flipping

ENDINGS = {".py": "python", ".pyi": "python", ".c": "c", ".h": "c", ".css": "css", ".csv": "csv",
           ".html": "html", ".js": "javascript", ".json": "json", ".md": "markdown", ".png": "png",
           ".rst": "rst", ".sh": "shell", ".so": "elf", ".svg": "svg", ".toml": "toml",
           ".txt": "txt", ".xml": "xml", ".yaml": "yaml", ".yml": "yaml"}  # fmt: skip
LEAST = 64
"""Smaller files are mostly padding."""
SHOWN = 400
"""Bytes of a file that are printed, around the strongest one."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    library = Path(sysconfig.get_paths()["stdlib"])
    parser.add_argument("--folder", type=Path, default=library, help="with labelled files")
    parser.add_argument("--each", type=int, default=40, help="files of each ending")
    parser.add_argument("--flipped", type=int, default=32, help="files whose bytes are flipped")
    parser.add_argument("--out", type=Path, default=Path("explained_file"), help="a folder")
    options = parser.parse_args(arguments)

    network = load()
    paths = list(labelled(options.folder, options.each))
    if not paths:
        parser.error(f"there are no files with a known ending in {options.folder}")
    ids = np.stack([seen(path.read_bytes()) for path in paths])
    truth = np.array([network.types.index(ENDINGS[path.suffix]) for path in paths])
    logits = np.asarray(jax.lax.map(
        lambda one: network.apply(network.variables, one[None])[0], jnp.asarray(ids), batch_size=32
    ))  # fmt: skip
    chosen = logits.argmax(-1)
    report(paths, chosen == truth, chosen, network)

    explain = jax.jit(lrp.relevance(network.apply, lrp.AttnLRP()))
    margin = logits.max(-1) - np.partition(logits, -2, -1)[:, -2]
    pages = []
    for right in (True, False):
        found = np.flatnonzero((chosen == truth) == right)
        if not len(found):
            continue
        i = found[margin[found].argmax()]
        name, true = network.types[chosen[i]], network.types[truth[i]]
        said = f"{paths[i].name} is {name}" + ("" if right else f", and not {true}")
        relevance = explain(network.variables, ids[i : i + 1], target=int(chosen[i]))
        pages += shown(f"{said}: why {name}", ids[i], np.asarray(relevance)[0])
        if not right:
            against = targets.contrast(int(chosen[i]), int(truth[i]))
            relevance = explain(network.variables, ids[i : i + 1], target=against)
            pages += shown(
                f"{said}: why rather {name} than {true}", ids[i], np.asarray(relevance)[0]
            )

    options.out.mkdir(parents=True, exist_ok=True)
    page = '<!doctype html><meta charset="utf-8"><title>Bytes</title>'
    page += '<body style="max-width:60em;margin:2em auto;font-family:monospace;'
    page += 'overflow-wrap:anywhere">' + "".join(pages)
    (options.out / "bytes.html").write_text(page, encoding="utf-8")
    rng = np.random.default_rng(0)
    few = rng.permutation(np.flatnonzero(chosen == truth))[: options.flipped]
    curves = flipped(network, jnp.asarray(ids[few]), chosen[few])
    axes = plot.curves(curves, score="logit")
    axes.figure.savefig(options.out / "flipping.png", bbox_inches="tight", dpi=150)
    plt.close(axes.figure)
    print(f"written: bytes.html and flipping.png in {options.out}")


def labelled(folder: Path, each: int) -> Iterator[Path]:
    """Files whose ending is known, at most so many of each, in the order of their names."""
    count: defaultdict[str, int] = defaultdict(int)
    for path in sorted(folder.rglob("*")):
        wanted = path.suffix in ENDINGS and count[path.suffix] < each and path.is_file()
        if wanted and path.stat().st_size >= LEAST:
            count[path.suffix] += 1
            yield path


def report(paths: list[Path], right: np.ndarray, chosen: np.ndarray, network: Classifier) -> None:
    """Print how often each ending is recognised, and what it is taken for otherwise."""
    print(f"right: {right.sum()} of {len(paths)} files")
    for ending in dict.fromkeys(path.suffix for path in paths):
        mine = np.array([path.suffix == ending for path in paths])
        others = sorted({network.types[i] for i in chosen[mine & ~right]})
        taken = f", else {', '.join(others)}" if others else ""
        print(f"  {ending:6} {right[mine].sum():3} of {mine.sum():3}{taken}")


def shown(title: str, ids: np.ndarray, relevance: np.ndarray) -> list[str]:
    """Print the bytes around the strongest one, and return both ends of the file as HTML."""
    letters = [
        "" if i == PADDING else chr(i) if 32 <= i < 127 or i in (9, 10) else "·" for i in ids
    ]
    strongest = int(np.abs(relevance).argmax())
    low = max(0, min(strongest - SHOWN // 2, len(ids) - SHOWN))
    print(f"\n{title} (the first bytes hold {relevance[:END].sum():.3g}, "
          f"the last {relevance[END:].sum():.3g})")  # fmt: skip
    some = slice(low, low + SHOWN)
    print(plot.text_terminal(letters[some], relevance[some]))
    scale = float(np.abs(relevance).max())
    parts = [f"<h2>{title}</h2>"]
    for name, end in (("first", slice(0, END)), ("last", slice(END, None))):
        parts.append(f"<h3>the {name} bytes</h3>")
        parts.append(plot.text_html(letters[end], relevance[end], scale=scale))
    return parts


def flipped(network: Classifier, ids: jax.Array, target: np.ndarray) -> dict[str, Any]:
    """Curves of the chosen logit while bytes become padding, and the area under each, printed."""
    embedding = network.variables["params"]["bytes"]["embedding"]

    def of_rows(variables: Any, rows: jax.Array) -> Any:
        # What looks up the table is the one part that a gradient does not pass.
        return network.apply(variables, rows, method="of_rows")

    def of_numbers(way: Callable[..., Any], **more: Any) -> Callable[..., Any]:
        explain = way(of_rows, **more)
        return lambda ids, target: explain(
            network.variables, embedding[ids], target=target
        ).sum(-1)  # fmt: skip

    def of_ids(composite: lrp.Composite) -> Callable[..., Any]:
        explain = lrp.relevance(network.apply, composite)
        return lambda ids, target: explain(network.variables, ids, target=target)

    padding = embedding[PADDING]
    ways = {
        "AttnLRP": of_ids(lrp.AttnLRP()),
        "EpsilonPlus": of_ids(lrp.EpsilonPlus()),
        "input x gradient": of_numbers(baselines.input_x_gradient),
        "integrated gradients": of_numbers(
            baselines.integrated_gradients, baseline=padding, steps=16, chunk=1
        ),
        "random": of_numbers(baselines.random, key=jax.random.key(0)),
    }
    flip = pixel_flipping(
        network.apply, fill=fills.constant(PADDING), steps=24, schedule="quadratic"
    )
    found = {}
    for name, explain in tqdm(ways.items(), desc="flipping", unit="way"):
        relevance = jax.jit(explain)(ids, target)
        found[name] = flip(network.variables, ids, relevance=relevance, target=target)
    areas = {name: np.asarray(area(curves)) for name, curves in found.items()}
    print(f"\nlogit on average while bytes are flipped, {len(ids)} files (less is better)")
    for name, one in sorted(areas.items(), key=lambda item: item[1].mean()):
        low, high = interval(one)
        print(f"  {name:20} {one.mean():7.3f}  ({low:.3f} to {high:.3f})")
    return found


if __name__ == "__main__":
    main()
