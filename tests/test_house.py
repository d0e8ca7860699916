"""The house: imports run downwards, files are short, a family of layers is known in one place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import lrp_jax
from lrp_jax._reading.reader import FAMILIES

PACKAGE = Path(lrp_jax.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
FLOORS = (
    ("__main__", "cli"),
    ("__init__", "_former_paths"),
    ("evaluation", "plot", "testing"),
    ("baselines",),
    ("questions", "datasets", "prepared"),
    ("transform",),
    ("_calls",),
    ("targets", "plan"),
    ("composites",),
    ("rules",),
    ("kinds",),
    ("_propagation",),
    ("_reading",),
    ("_reading.products",),
    ("_reading.softmaxes",),
    ("_reading.equations",),
    ("_layers",),
    ("_analysis", "_elsewhere", "_files", "_tables", "_warnings"),
)
"""From the roof down: a file imports from its own floor and from those below."""


def module_of(file: Path) -> tuple[str, ...]:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts


def imports_of(file: Path) -> Iterator[tuple[ast.AST, tuple[str, ...]]]:
    """Every import of the package's own modules, as the module's parts."""
    modules = {module_of(f) for f in FILES}
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        place = file.relative_to(PACKAGE).parts[: -node.level]
        base = (*place, *(node.module.split(".") if node.module else ()))
        for alias in node.names:
            target = (*base, alias.name)
            yield node, target if target in modules else base


def floor(module: tuple[str, ...]) -> int:
    """That of its folder, or of the folder around it."""
    folders = {".".join(module[: n + 1]): n for n in range(len(module))}
    found = {
        folders[name]: i for i, names in enumerate(FLOORS) for name in names if name in folders
    }
    return found[max(found)]


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_run_downwards(file: Path) -> None:
    here = module_of(file)
    for _, target in imports_of(file):
        assert floor(target) >= floor(here), f"{here} imports {target}"


def test_there_is_no_circle() -> None:
    below = {module_of(f): {target for _, target in imports_of(f)} for f in FILES}
    while below:
        leaves = {m for m, targets in below.items() if not targets & (below.keys() - {m})}
        assert leaves, f"these import each other: {sorted(below)}"
        below = {m: targets for m, targets in below.items() if m not in leaves}


def test_nothing_of_the_package_is_imported_inside_of_a_function() -> None:
    for file in FILES:
        tree = ast.parse(file.read_text())
        top = {id(node) for node in tree.body}
        inner = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level]
        assert all(id(node) in top for node in inner), file


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_files_are_short(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 450


def test_only_its_own_file_asks_whether_a_step_is_of_a_family() -> None:
    names = {family.__name__: family.__module__.split(".", 1)[1] for family in FAMILIES}
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance"):
                continue
            asked = {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
            for name in asked & names.keys():
                assert names[name] == ".".join(module_of(file)), f"{file} asks for {name}"


def test_there_is_one_list_of_families() -> None:
    names = {family.__name__ for family in FAMILIES}
    for file in (f for folder in ("_layers", "_reading") for f in (PACKAGE / folder).rglob("*.py")):
        if file.name == "reader.py":
            continue
        used = {n.id for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Name)}
        assert len(used & names) <= 2, f"{file} names {sorted(used & names)}"
