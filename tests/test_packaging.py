"""What is installed: public names, the version, and an import that brings nothing else along."""

from __future__ import annotations

import importlib.metadata
import runpy
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

import lrp_jax as lrp
from lrp_jax._former_paths import FORMER

ROOT = Path(__file__).parents[1]

TRANSFORMS = ["as_layer", "lrp_transform", "relevance", "value_and_relevance", "plan"]
QUERIES = [
    "layer_relevances",
    "conservation",
    "concept_relevance",
    "parameter_relevance",
    "relevance_matrix",
]
RULES = [
    "AlphaBeta",
    "BetaSmooth",
    "DeconvNet",
    "Epsilon",
    "Flat",
    "Gamma",
    "Gate",
    "GuidedBackprop",
    "Hold",
    "Identity",
    "Norm",
    "Pass",
    "Relative",
    "Taylor",
    "Uniform",
    "WSquare",
    "Weighted",
    "ZBox",
    "ZPlus",
    "Zero",
]
COMPOSITES = [
    "AttnLRP",
    "CPLRP",
    "Composite",
    "DeepTaylor",
    "EpsilonAlpha2Beta1",
    "EpsilonAlpha2Beta1Flat",
    "EpsilonGammaBox",
    "EpsilonPlus",
    "EpsilonPlusFlat",
    "ExcitationBackprop",
    "LRPOverview",
]
MATCHES = [
    "Activation",
    "AvgPool",
    "Bilinear",
    "Conv",
    "Dense",
    "Merge",
    "Normalization",
    "Softmax",
    "call",
    "depth",
    "first",
    "last",
]


@pytest.mark.parametrize("name", [*TRANSFORMS, *QUERIES, *RULES, *COMPOSITES, *MATCHES])
def test_public_name_is_documented(name: str) -> None:
    assert getattr(lrp, name).__doc__


@pytest.mark.parametrize("name", ["guided_backprop", "deconvnet", "beta_smooth"])
def test_modified_gradients_are_in_composites(name: str) -> None:
    assert getattr(lrp.composites, name).__doc__


def test_version_is_that_of_the_distribution() -> None:
    assert lrp.__version__ == importlib.metadata.version("lrp_jax")


def test_changelog_and_citation_know_the_version() -> None:
    assert f"## {lrp.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {lrp.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_package_is_marked_as_typed() -> None:
    assert files("lrp_jax").joinpath("py.typed").is_file()


def test_what_users_write_in_types_runs_too() -> None:
    """Its types are checked beside those of the package, by mypy and by pyright."""
    runpy.run_path(str(ROOT / "tests" / "typed" / "user.py"), run_name="__main__")


def test_import_brings_only_core_dependencies() -> None:
    """A user without the extras can import the package; one who has them does not pay for them."""
    code = """
import sys, jax, numpy
before = {*sys.modules}
import lrp_jax
print(*{*sys.modules} - before)
"""
    imported = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    packages = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names
    assert packages <= {"lrp_jax", "jax", "jaxlib", "numpy"}


def test_import_brings_nothing_but_jax_and_numpy() -> None:
    """What takes time to import (matplotlib, flax, optax) waits for the call that needs it."""
    code = """
import sys
import jax, jax.numpy, numpy
before = {name.partition(".")[0] for name in sys.modules}
import lrp_jax
after = {name.partition(".")[0] for name in sys.modules}
print(*sorted(after - before - sys.stdlib_module_names))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["lrp_jax"]


def test_import_is_quick_beside_that_of_jax() -> None:
    """Counted in calls of Python functions, which no other work on a machine changes."""
    code = """
import cProfile, pstats
import numpy
def calls(name):
    profile = cProfile.Profile()
    profile.enable()
    __import__(name)
    profile.disable()
    return pstats.Stats(profile).total_calls
print(1 / calls("jax.numpy") * calls("lrp_jax"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # 0.22 beside JAX 0.9, 0.14 beside 0.12: each file is some 200 calls, each dataclass as many
    assert float(done.stdout) < 0.25


def test_former_paths_are_the_modules_themselves() -> None:
    code = f"""
import importlib, sys
import lrp_jax
from lrp_jax import _former_paths
_former_paths.install()
assert [type(f).__module__ for f in sys.meta_path].count("lrp_jax._former_paths") == 1
assert not any(name.startswith("lrp_jax.evaluation") for name in sys.modules)
for former, now in {FORMER!r}.items():
    name = former.removeprefix("lrp_jax.")
    found = {{}}
    exec(f"import {{former}} as module; from lrp_jax import {{name}}", found)
    wanted = importlib.import_module(now)
    assert found["module"] is found[name] is getattr(lrp_jax, name) is wanted, former
    assert sys.modules[former] is wanted and wanted.__name__ == wanted.__spec__.name == now, former
assert not hasattr(lrp_jax, "never_was")
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize("former", FORMER)
def test_former_path_is_an_attribute_of_the_package(former: str) -> None:
    """As it was for the modules that the package itself imports."""
    assert getattr(lrp, former.removeprefix("lrp_jax.")).__name__ == FORMER[former]


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("concepts", "References Subspaces concept_graph concept_relevance concept_scores "
                     "receptive_window reference_relevance reference_samples ConceptGraph"),
        ("metrics", "completeness complexity faithfulness_correlation infidelity pearson "
                    "pointing_game relevance_mass_accuracy relevance_rank_accuracy sensitivity_n "
                    "sparseness spearman"),
        ("queries", "bilrp layer_relevances parameter_relevance relevance_matrix"),
    ],
)  # fmt: skip
def test_former_modules_that_were_split_have_all_their_names(module: str, names: str) -> None:
    assert [n for n in names.split() if not hasattr(getattr(lrp, module), n)] == []


def test_lower_bounds_are_the_tested_ones() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    bounds = {
        name: version
        for requirement in [
            *project["dependencies"],
            *extras["examples"],
            *extras["plot"],
            *extras["test"],
        ]
        for name, operator, version in [requirement.partition(">=")]
        if operator
    }
    lines = (ROOT / ".ci" / "oldest.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert bounds.items() <= pins.items()
