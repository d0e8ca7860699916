"""The table of mutants fits the package as it is (to run them: `python tests/mutate.py`)."""

import shutil
from pathlib import Path

import pytest
from mutate import MUTANTS, ROOT, Mutant, applied


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.file}: {m.new}")
def test_a_mutant_applies_and_is_python(mutant: Mutant, tmp_path: Path) -> None:
    (tmp_path / mutant.file).parent.mkdir(exist_ok=True)
    shutil.copy(ROOT / "lrp_jax" / mutant.file, tmp_path / mutant.file)
    before = (tmp_path / mutant.file).read_text()
    applied(mutant, tmp_path)
    after = (tmp_path / mutant.file).read_text()
    compile(after, mutant.file, "exec")
    assert after != before
