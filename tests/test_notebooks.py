"""The notebooks run from top to bottom, say what they should, and are kept without outputs."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import jax
import matplotlib
import matplotlib.pyplot as plt
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def cells(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["cells"]
    return found


def run(path: Path) -> dict[str, Any]:
    """What the code cells leave behind; they are plain Python, so this needs no kernel."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with jax.enable_x64(False):  # as users have it
        for number, cell in enumerate(cells(path)):
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), f"{path.name}[{number}]", "exec"), namespace)
    return namespace


@pytest.fixture(autouse=True)
def no_windows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    matplotlib.use("Agg")
    monkeypatch.setattr(plt, "show", lambda: None)
    monkeypatch.chdir(tmp_path)
    plt.close("all")  # what other tests of this process left open
    yield
    plt.close("all")


def test_there_are_notebooks() -> None:
    assert {path.stem for path in NOTEBOOKS} >= {"mnist", "transformer"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_plain_python_without_outputs(path: Path) -> None:
    notebook = json.loads(path.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    identities = [cell["id"] for cell in notebook["cells"]]
    assert len(set(identities)) == len(identities)
    assert notebook["cells"][0]["cell_type"] == "markdown"
    for cell in notebook["cells"]:
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
            ast.parse("".join(cell["source"]))  # no magic


@pytest.mark.slow
def test_digits() -> None:
    found = run(FOLDER / "mnist.ipynb")
    assert found["accuracy"] > 0.85
    for name in ("EpsilonGammaBox", "EpsilonPlus", "LRP-0"):
        assert found["area"][name] < 0.5 * found["area"]["random"]
    assert abs(found["ledger"].received / found["ledger"].start - 1) < 0.2
    assert len(plt.get_fignums()) == 4


@pytest.mark.slow
def test_words() -> None:
    found = run(FOLDER / "transformer.ipynb")
    assert found["accuracy"] > 0.75
    shares, words = found["shares"], found["counts"].mean()
    assert shares["AttnLRP"] > 2 * words
    assert shares["AttnLRP"] > shares["gradient x input"]
    assert abs(shares["random"] - words) < 0.1
    assert all(page.startswith("<") for page in found["pages"])
