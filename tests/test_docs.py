"""The manual is true: its code runs and prints what it says, and nothing public is missing."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import io
import math
import os
import re
import subprocess
import sys
import textwrap
import unicodedata
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import pytest
from jax.extend.core import Primitive, primitives

import lrp_jax as lrp
from lrp_jax.kinds import KINDS
from lrp_jax.rules import RULES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^( *)```(python|text)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """Python code of a page and what the page says it prints (None: nothing is said)."""

    line: int
    code: str
    printed: str | None
    tab: bool = False
    """Whether it stands in a tab, one of several ways to begin."""

    def run(self, page: Path, namespace: dict[str, Any]) -> str:
        """What it prints."""
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile("\n" * (self.line - 1) + self.code, str(page), "exec"), namespace)
        return output.getvalue()


def blocks(page: Path) -> Iterator[Block]:
    """The code blocks of a page; a text block right after one is what it prints."""
    text = page.read_text()
    found = list(FENCE.finditer(text))
    for i, match in enumerate(found):
        if match[2] != "python":
            continue
        printed = None
        if i + 1 < len(found) and found[i + 1][2] == "text":
            between = text[match.end() : found[i + 1].start()]
            printed = None if between.strip() else textwrap.dedent(found[i + 1][3])
        line = text.count("\n", 0, match.start()) + 2
        yield Block(line, textwrap.dedent(match[3]), printed, tab=bool(match[1]))


def words(text: str) -> list[str | float]:
    """Words and numbers of a printed text, without rulers: widths and roundings may differ."""
    found: list[str | float] = []
    for word in re.findall(r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?|[^\s\d]+", text):
        if not set(word) <= {"-"}:
            try:
                found.append(float(word))
            except ValueError:
                found.append(word)
    return found


def same(printed: str, expected: str) -> bool:
    actual, wanted = words(printed), words(expected)
    return len(actual) == len(wanted) and all(
        math.isclose(a, b, rel_tol=1e-2, abs_tol=1e-4)
        if isinstance(a, float) and isinstance(b, float)
        else a == b
        for a, b in zip(actual, wanted, strict=True)
    )


def readings(page: Path) -> Iterator[list[Block]]:
    """The code of a page as it is read: one of its tabs, each with all that stands below them."""
    found = list(blocks(page))
    tabs = [block for block in found if block.tab] or [None]
    for tab in tabs:
        yield [block for block in found if not block.tab or block is tab]


READINGS = [
    pytest.param(
        page, reading, number == 0, id=f"{page.relative_to(ROOT)}{f'-{number}' if number else ''}"
    )
    for page in PAGES
    for number, reading in enumerate(readings(page))
    if reading
]


@pytest.mark.parametrize(("page", "reading", "first"), READINGS)
def test_code_of_page_runs_and_prints_what_the_page_says(
    page: Path, reading: list[Block], first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After another tab than the first, other names are printed."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with jax.enable_x64(False):  # as users have it
        for block in reading:
            printed = block.run(page, namespace)
            if first and block.printed is not None:
                assert same(printed, block.printed), f"{page}:{block.line} prints\n{printed}"


def test_every_tab_is_read_by_itself() -> None:
    assert sum(block.tab for block in blocks(DOCS / "start.md")) == 4
    assert sum(1 for _ in readings(DOCS / "start.md")) == 4


def test_printed_texts_are_compared_by_words_and_numbers() -> None:
    assert same("a  1.000\n---- b [0.5]", "a 1.001\n-- b [0.5]")
    for other in ("a 1.2 b [0.5]", "a 1.0 c [0.5]", "a 1.0 b [0.5] more", ""):
        assert not same("a 1.0 b [0.5]", other)


LINK = re.compile(r"\]\(([^)\s]+)\)")


HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as they stand in addresses."""
    found = HEADING.findall(FENCE.sub("", page.read_text()))
    plain = (unicodedata.normalize("NFKD", h).encode("ascii", "ignore").decode() for h in found)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", h).strip().lower()) for h in plain}


def leads_somewhere(page: Path, link: str) -> bool:
    file, _, anchor = link.partition("#")
    other = page.parent / file if file else page
    return other.exists() and (not anchor or anchor in anchors(other))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_files_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    links = [t for t in LINK.findall(text) if not t.startswith(("http", "mailto:"))]
    links = [t for t in links if not t.endswith(("#only-light", "#only-dark"))]
    assert [t for t in links if not leads_somewhere(page, t)] == []


def test_dead_links_are_found() -> None:
    page = DOCS / "start.md"
    assert leads_somewhere(page, "theory.md#conservation")
    assert leads_somewhere(page, "#draw-it")
    for dead in ("nowhere.md", "theory.md#nowhere", "#nowhere"):
        assert not leads_somewhere(page, dead)


def test_the_index_of_questions_is_one() -> None:
    lines = (DOCS / "how-do-i.md").read_text().splitlines()
    questions = [i for i, line in enumerate(lines) if line.startswith("- ...")]
    assert len(questions) >= 40
    for i in questions:
        assert "](" in " ".join(lines[i : i + 2]), lines[i]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_names_in_the_text_exist(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    for name in re.findall(r"`(?:lrp|lrp_jax)((?:\.\w+)+)", text):
        value: Any = lrp
        for part in name[1:].split("."):
            if not hasattr(value, part) and isinstance(value, ModuleType):
                importlib.import_module(f"{value.__name__}.{part}")
            value = getattr(value, part)


EXTERNAL = re.compile(r"https?://[^\s)`\"'<>]+")


def test_addresses_of_other_sites_are_well_formed() -> None:
    """Whether they answer is not asked: tests run without a network."""
    places = [*PAGES, *(ROOT / "docs").glob("*.py"), *(ROOT / "lrp_jax").rglob("*.py")]
    for place in places:
        for address in EXTERNAL.findall(place.read_text()):
            parts = urllib.parse.urlsplit(address)
            assert parts.scheme == "https", f"{place}: {address}"
            assert re.fullmatch(r"([\w-]+\.)+[a-z]{2,}", parts.netloc), f"{place}: {address}"


def test_the_page_on_many_devices_holds_on_eight(tmp_path: Path) -> None:
    code = "\n".join(block.code for block in blocks(DOCS / "how-to" / "devices.md"))
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nassert devices == 8"],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    printed = "".join(b.printed or "" for b in blocks(DOCS / "how-to" / "devices.md"))
    assert done.stdout.split() == printed.split()


PICTURE = re.compile(r"!\[[^\]]+\]\((pictures/[\w-]+)-(light|dark)\.png#only-\2\)")


def test_every_picture_is_shown_on_both_grounds() -> None:
    pages = (DOCS / name for name in ("gallery.md", "ten-minutes.md"))
    shown = [picture for page in pages for picture in PICTURE.findall(page.read_text())]
    names = {name for name, _ in shown}
    assert sorted(shown) == sorted((n, ground) for n in names for ground in ("light", "dark"))
    files = list((DOCS / "pictures").iterdir())
    assert {f"pictures/{f.stem}" for f in files} == {f"{n}-{ground}" for n, ground in shown}
    assert sum(f.stat().st_size for f in files) < 600_000
    made = re.findall(r'^    "(\w+)": \(', (DOCS / "make_gallery.py").read_text(), re.MULTILINE)
    assert {f"pictures/{n}" for n in made} == names


def test_every_page_is_in_the_table_of_contents() -> None:
    contents = (ROOT / "mkdocs.yml").read_text()
    pages = {str(p.relative_to(DOCS)) for p in DOCS.rglob("*.md")}
    assert pages == set(re.findall(r"[\w/-]+\.md", contents))


# -- the reference ------------------------------------------------------------------------------

WHOLE = (
    "evaluation.fills",
    "evaluation.flipping",
    "evaluation.quantus",
    "plot.colormaps",
    "plot.sections",
)
"""Modules in folders that are used whole; of the others the folder offers what is public."""
MODULES = [
    *(
        f"lrp_jax.{path.stem}"
        for path in sorted((ROOT / "lrp_jax").iterdir())
        if not path.stem.startswith("_")
        and (path.suffix == ".py" or (path / "__init__.py").exists())
    ),
    *(f"lrp_jax.{name}" for name in WHOLE),
]
INTERNAL = {f"lrp_jax.{n}" for n in ("kinds", "plan", "transform")}
USED_BY_NAME = sorted({*MODULES} - INTERNAL)
"""Modules of which users take names; of the others the package offers what they need."""
DIRECTIVE = re.compile(r"^::: ([\w.]+)$(?:\n .*)*", re.MULTILINE)
MEMBERS = re.compile(r"members: \[(.*)\]")


def directives() -> dict[str, set[str] | None]:
    """What the reference shows: modules with their chosen members, or None for all."""
    found: dict[str, set[str] | None] = {}
    for page in (DOCS / "api").glob("*.md"):
        for match in DIRECTIVE.finditer(page.read_text()):
            members = MEMBERS.search(match[0])
            found[match[1]] = set(members[1].split(", ")) if members else None
    return found


def test_the_reference_shows_everything_once_and_under_its_name() -> None:
    text = "\n".join(page.read_text() for page in sorted((DOCS / "api").glob("*.md")))
    shown = DIRECTIVE.findall(text)
    assert len(shown) == len(set(shown))
    for match in DIRECTIVE.finditer(text):
        is_module = importlib.util.find_spec(match[1]) is not None
        assert is_module or "show_root_heading: true" in match[0], match[1]


def public(module: Any) -> dict[str, Any]:
    """Functions and classes of a module; of a package all that it offers."""
    gathers = hasattr(module, "__path__")
    homes = {n: str(getattr(v, "__module__", "")) for n, v in vars(module).items() if callable(v)}
    return {
        name: vars(module)[name]
        for name, home in homes.items()
        if not name.startswith("_")
        and (home.startswith("lrp_jax") if gathers else home == module.__name__)
    }


def is_documented(name: str, value: Any) -> bool:
    text = vars(value).get("__doc__") if isinstance(value, type) else value.__doc__
    return bool(text) and not text.startswith(f"{name}(")  # what dataclasses write is no text


@pytest.mark.parametrize("name", MODULES)
def test_every_public_module_is_in_the_reference(name: str) -> None:
    assert name in directives()


@pytest.mark.parametrize("name", ["lrp_jax", *USED_BY_NAME])
def test_every_public_name_is_documented_and_shown(name: str) -> None:
    shown = directives()
    missing = []
    for public_name, value in public(importlib.import_module(name)).items():
        members = shown.get(value.__module__, set())
        is_shown = members is None or public_name in members or f"lrp_jax.{public_name}" in shown
        if not (is_documented(public_name, value) and is_shown):
            missing.append(public_name)
    assert missing == []


def section(text: str, name: str) -> str:
    found = re.search(rf"^{name}:\n((?:[ \t]+.*\n?|\n)*)", text, re.MULTILINE)
    return found[1] if found else ""


def untold(value: Any) -> list[str]:
    """Parameters without a word in the docstring, and "Returns" where it is missing.

    What returns an object of this package (a composite, a match, a fill) says so by its type, and
    `Args, Returns: as ...` hands on to another docstring.
    """
    text = inspect.getdoc(value) or ""
    if re.search(r"^Args, Returns: as `\w+`", text, re.MULTILINE):
        return []
    told, missing = section(text, "Args"), []
    if isinstance(value, type):
        told += section(text, "Attributes")
    else:
        returned = inspect.get_annotations(value).get("return")
        own = str(getattr(returned, "__module__", returned)).startswith("lrp_jax")
        if not own and returned not in (None, "None") and not re.search(r"^Returns:", text, re.M):
            missing.append("Returns")
    if not (isinstance(value, type) and issubclass(value, Exception)):
        parameters = inspect.signature(value).parameters.values()
        names = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    else:
        names = []
    words = " ".join(re.findall(r"^\s*([\w*, ]+)[:(]", told, re.MULTILINE))
    return [n for n in names if n not in re.findall(r"\w+", words)] + missing


@pytest.mark.parametrize("name", ["lrp_jax", *USED_BY_NAME])
def test_every_parameter_and_result_is_documented(name: str) -> None:
    found = public(importlib.import_module(name)).items()
    assert {n: untold(value) for n, value in found if untold(value)} == {}


def test_a_parameter_that_is_not_documented_is_found() -> None:
    def f(x: int, y: int) -> int:
        """A sum.

        Args:
            x: the first.
        """
        return x + y

    assert untold(f) == ["y", "Returns"]


def test_every_kind_of_layer_is_documented() -> None:
    source = (ROOT / "lrp_jax" / "kinds.py").read_text()
    assert [
        k for k in KINDS if not re.search(rf'^{k}: Kind = _kind\(.*\)\n"""', source, re.MULTILINE)
    ] == []


def test_every_kind_of_layer_and_every_rule_is_in_the_package() -> None:
    assert [name for name in (*KINDS, *RULES) if not hasattr(lrp, name)] == []


def test_what_is_not_documented_is_found() -> None:
    """The checks above can fail."""

    @dataclasses.dataclass
    class Bare:
        x: int

    assert not is_documented("Bare", Bare)
    assert not is_documented("f", lambda: None)
    assert is_documented("plan", lrp.plan)


# -- the table of primitives --------------------------------------------------------------------


def make_primitives() -> Any:
    spec = importlib.util.spec_from_file_location("make_primitives", DOCS / "make_primitives.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_primitives_is_what_the_code_says() -> None:
    assert (DOCS / "primitives.md").read_text() == make_primitives().page()


def test_every_primitive_of_this_jax_is_on_the_page() -> None:
    names = {
        name.removesuffix("_p")
        for name, value in vars(primitives).items()
        if isinstance(value, Primitive)
    }
    assert sorted(names - make_primitives().listed()) == []


def test_no_primitive_has_a_rule_and_a_refusal() -> None:
    made = make_primitives()
    assert made.ruled() & made.refused() == set()


@pytest.mark.parametrize(
    "function",
    [
        lambda w, x: jax.numpy.linalg.qr(x[:, None])[0],
        lambda w, x: jax.numpy.linalg.inv(x.reshape(2, 2)).ravel(),
        lambda w, x: jax.numpy.linalg.cholesky(x.reshape(2, 2)),
        lambda w, x: jax.scipy.special.gammainc(x, 2.0),
        lambda w, x: jax.lax.while_loop(lambda v: v.sum() < 9, lambda v: v + x, x),
    ],
)
def test_what_the_page_says_is_refused_is_refused(function: Any) -> None:
    with pytest.raises(lrp.UnsupportedOperation, match="no rule carries relevance through"):
        lrp.plan(function, lrp.Epsilon())(None, jax.numpy.arange(1.0, 5.0))
