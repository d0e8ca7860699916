"""Draw the pictures of the gallery: `python docs/make_gallery.py`, about two minutes.

The notebooks of `examples/notebooks` and a page train the models; their code is run as it is, and
what it leaves behind is drawn twice, for a light and for a dark page. Needs the extra `examples`.
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import jax
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import lrp_jax as lrp
from lrp_jax import plot
from lrp_jax.questions import concept_graph, ensemble_relevance

DOCS = Path(__file__).resolve().parent
PICTURES = DOCS / "pictures"
NOTEBOOKS = DOCS.parent / "examples" / "notebooks"
COLOURS = 256  # of a picture's palette: a third of the bytes

Names = dict[str, Any]
Draw = Callable[[Names, str], Any]


def run(notebook: str) -> Names:
    """The names that the code cells of a notebook leave behind."""
    names: Names = {"__name__": "__main__"}
    for cell in json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), notebook, "exec"), names)
    plt.close("all")
    return names


def run_page(name: str) -> Names:
    """The names that the code of a page leaves behind."""
    names: Names = {"__name__": "__main__"}
    text = (DOCS / f"{name}.md").read_text()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for code in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            exec(compile(code, name, "exec"), names)
    plt.close("all")
    return names


def bars(n: Names, cmap: str) -> Any:
    return plot.grid(n["x"][:3], n["maps"], cmap=cmap, size=1.2)


def composites(n: Names, cmap: str) -> Any:
    return plot.grid(n["x"], n["maps"], labels=[str(c) for c in n["y"]], cmap=cmap, size=1.4)


def questions(n: Names, cmap: str) -> Any:
    return plot.grid(n["four"], n["answers"], cmap=cmap)


def overlays(n: Names, cmap: str) -> Any:
    figure, axes = plt.subplots(1, 4, figsize=(6.4, 1.7), layout="compressed")
    for ax, image, relevance in zip(axes, n["x"], n["maps"]["EpsilonPlus"], strict=True):
        plot.heatmap(relevance, ax, image=image, cmap=cmap)
    return figure


def channels(n: Names, cmap: str) -> Any:
    shown = {f"channel {c}": n["through"][i] for i, c in enumerate(n["strongest"])}
    return plot.grid(n["x"], shown, cmap=cmap, size=1.4)


def concepts(n: Names, cmap: str) -> Any:
    follow = concept_graph(n["net"].apply, lrp.EpsilonPlus(), ["Conv_0", "Conv_1"])
    graph = follow(n["variables"], n["x"][:1], target=n["y"][:1])
    return plot.concept_graph(graph, k=6, cmap=cmap).figure


def curves(n: Names, cmap: str) -> Any:
    return plot.curves(n["curves"], score="logit of the digit's class").figure


def ledger(n: Names, cmap: str) -> Any:
    explain = lrp.conservation(n["net"].apply, lrp.EpsilonPlus())
    return plot.ledger(explain(n["variables"], n["x"], target=n["y"])).figure


def uncertainty(n: Names, cmap: str) -> Any:
    """Twenty networks around the trained one: a digit's pixels, and its columns."""
    random = np.random.default_rng(0)

    def around(weights: Any) -> Any:
        return weights + 0.5 * np.std(weights) * random.normal(size=(20, *weights.shape))

    members = jax.tree.map(around, n["variables"])
    explain = ensemble_relevance(n["net"].apply, lrp.EpsilonGammaBox(low=0.0, high=1.0))
    one = explain(members, n["x"][1:2], target=n["y"][1:2]).members[:, 0]
    figure, axes = plt.subplots(
        1, 3, figsize=(8, 2.2), layout="constrained", width_ratios=(1, 1, 2)
    )
    plot.heatmap(one.mean(0), axes[0], cmap=cmap, title="mean")
    plot.uncertainty(one, axes[1], cmap=cmap).set_title("where they agree")
    plot.uncertainty(one.sum((1, 3)), axes[2], cmap=cmap).set_title("columns")
    return figure


def plan(n: Names, cmap: str) -> Any:
    one = n["Block"](32, n["nnx"].Rngs(0))
    found = lrp.plan(lambda model, x: model(x), lrp.AttnLRP())(one, n["embedded"][:1])
    return plot.plan(found).figure


def words(n: Names, cmap: str) -> Any:
    rows = [3, 4, 5]
    figure, axes = plt.subplots(len(rows), 1, figsize=(8.8, 0.9))
    for ax, i in zip(axes, rows, strict=True):
        tokens = [" " + n["WORDS"][t] for t in n["tokens"][i]]
        relevance = np.asarray(n["explain"](n["model"], n["embedded"], target=n["target"]).sum(-1))
        plot.text(tokens, relevance[i], ax, cmap=cmap)
    return figure


GALLERY: dict[str, tuple[str, Draw]] = {
    "bars": ("ten-minutes", bars),
    "composites": ("mnist", composites),
    "questions": ("mnist", questions),
    "overlays": ("mnist", overlays),
    "channels": ("mnist", channels),
    "concepts": ("mnist", concepts),
    "curves": ("mnist", curves),
    "ledger": ("mnist", ledger),
    "uncertainty": ("mnist", uncertainty),
    "plan": ("transformer", plan),
    "words": ("transformer", words),
}


def save(figure: Any, path: Path) -> None:
    """The figure with a transparent ground, in a palette of few colours."""
    figure.savefig(path, dpi=140, transparent=True, bbox_inches="tight", pad_inches=0.05)
    plt.close(figure)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGBA"))
    # The commonest colours as they are, so that what is told apart by its colour stays so.
    found, place, count = np.unique(
        pixels.reshape(-1, 4), axis=0, return_inverse=True, return_counts=True
    )
    kept = found[np.argsort(-count)[:COLOURS]]
    nearest = [int(((kept.astype(int) - colour) ** 2).sum(1).argmin()) for colour in found]
    small = Image.fromarray(np.array(nearest, np.uint8)[place].reshape(pixels.shape[:2]), "P")
    small.putpalette(kept.ravel().tolist(), "RGBA")
    small.save(path, optimize=True)


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    made = {notebook: run(notebook) for notebook in ("mnist", "transformer")}
    made["ten-minutes"] = run_page("ten-minutes")
    for theme, style, cmap in (
        ("light", "default", "relevance"),
        ("dark", "dark_background", "relevance_dark"),
    ):
        with plt.style.context(style):
            for name, (notebook, draw) in GALLERY.items():
                save(draw(made[notebook], cmap), PICTURES / f"{name}-{theme}.png")
    size = sum(path.stat().st_size for path in PICTURES.iterdir())
    print(f"{2 * len(GALLERY)} pictures, {size // 1000} kB, in {PICTURES.name}")


if __name__ == "__main__":
    main()
