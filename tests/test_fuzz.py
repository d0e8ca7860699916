"""Random networks: some with fixed seeds, and those that once had a finding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest
from fuzz.checks import NAMES, TARGETS, Finding, check
from fuzz.networks import Op, Program, draw
from fuzz.shrink import shrink

import lrp_jax as lrp

ROOT = Path(__file__).parents[1]


def test_random_networks() -> None:
    """A process of its own, with compiler settings that suit thousands of programs."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--seed", "0", "--count", "12", "--keep-going"],
        env={**environment, "PYTHONWARNINGS": "default"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert done.stdout.endswith("12 networks from seed 0: 0 findings\n")


def kept(composite: str, *ops: Op, seed: int = 0, kind: str = "vector", dtype: str = "float64",
         target: int = 1) -> Program:  # fmt: skip
    """A program that once failed; an even seed asks for the ledger, 1 modulo 4 for `vmap`."""
    return Program(seed, kind, dtype, NAMES.index(composite), target, ops)


IN_TWO_PIECES = "a move that is made twice in a branch"
FOUND = {
    # What was absorbed was reported as float64 by one branch only.
    "the ledger of branches in two precisions": kept(
        "Flat",
        Op("branch", 16, 8, 18, 0, (Op("softmax", 1, 16, 13), Op("dense", 21, 21, 10, 4))),
        Op("conv", 9, 8, 17),
        seed=100480,
        kind="image",
        dtype="float32",
        target=3,
    ),
    # The bias of a dense layer written as products and a sum was taken for an activation.
    "a number subtracted from a sum": kept("AttnLRP", Op("dense", 0, 12, 17), seed=10136, target=0),
    # `switch` got branches with different results where layers inside of them were observed.
    "the ledger of a branch": kept("AlphaBeta", Op("branch", 0, 0, 0, 0, (Op("dense"),))),
    # 0 * -inf in the accounts of masked logits.
    "the ledger of logits masked by a choice": kept(
        "Epsilon, ignore", Op("attention", 0, 1, 1), seed=2
    ),
    # -inf / -inf at a mask that is added: relevance was NaN under every rule of a bias.
    "logits masked by a sum": kept("EpsilonPlus", Op("attention", 0, 4, 0), seed=1),
    # JAX's derivative of `min` divided 0 by 0 where its operand was computed twice.
    "the smallest number of a convolution": kept(
        "Norm", Op("conv", 0, 0, 7), Op("reduce", 9), seed=10048, target=0
    ),
    # Nothing times the infinite derivative of a root at zero, on the way to a held statistic.
    "the norm of a row of zeros": kept(
        "Relative", Op("activation"), Op("norm", 13), seed=3002316, kind="sequence", target=0
    ),
    # What a bias could give to no input was in no account.
    "outputs that see no input": kept(
        "WSquare, distribute",
        Op("pool"),
        Op("shape"),
        Op("conv", 0, 0, 9),
        seed=3002360,
        kind="image",
        target=0,
    ),
    # Contributions of each sign were a difference of sums, in neurons of few inputs too.
    "a scale for every position in single precision": kept(
        "ZPlus, ignore",
        Op("conv", 15, 17, 17),
        Op("shape", 16, 20, 13, 2),
        Op("dense", 11, 4, 21, 1),
        Op("recurrent", 12, 10),
        seed=10680,
        kind="sequence",
        dtype="float32",
    ),
    "the ledger of logits masked by a sum": kept("EpsilonPlus", Op("attention", 0, 4, 1), seed=2),
    # What a constant among complex numbers absorbs was in no account.
    "a complex bias": kept("ZPlus", Op("spectral", 9), seed=6101044, target=0),
    # A move was taken for an equal one before it, which nobody could read.
    IN_TWO_PIECES: kept(
        "WSquare, distribute",
        Op("branch", 19, 0, 0, 0, (Op("add"), Op("branch", 0, 0, 0, 0, (Op("pool"),)))),
        seed=1000348,
        target=2,
    ),
    # Nothing to mend: activations of 1e13 have relevance of 1e47 here, which float64 shows.
    "relevance too large for its dtype": kept(
        "ZBox",
        Op("loop", 0, 0, 0, 0, (Op("bilinear", 11), Op("bilinear", 15))),
        Op("attention", 6, 6, 9),
        seed=5000081,
        dtype="bfloat16",
        target=0,
    ),
}


WARNED = pytest.mark.filterwarnings("ignore:a layer lies on the border:UserWarning")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[WARNED] if n == IN_TWO_PIECES else []) for n in FOUND]
)
def test_what_was_found_is_mended(name: str) -> None:
    check(FOUND[name])


def test_a_program_is_its_own_description() -> None:
    for seed in range(50):
        program = draw(seed, len(NAMES), len(TARGETS))
        assert eval(repr(program), {"Program": Program, "Op": Op}) == program
        assert draw(seed, len(NAMES), len(TARGETS)) == program


def test_findings_are_made_small() -> None:
    """A failure that needs one operation with one number ends as that."""

    def failure(program: Program) -> Exception | None:
        wanted = any(o.name == "conv" and o.b == 5 for o in program.ops)
        return Finding("an odd convolution") if wanted else None

    ops = (Op("dense", 3), Op("jit", 1, 2, 3, 1, (Op("conv", 7, 5, 9),)), Op("relu", 2))
    program = kept("Flat", *ops, kind="image", dtype="bfloat16", target=3)
    inside = program.ops[1].inside
    assert inside
    program = Program(1, "image", "bfloat16", 2, 3, (*ops, *inside))
    error = failure(program)
    assert error is not None
    smaller, _ = shrink(program, error, failure)
    assert smaller == Program(1, "vector", "float64", 2, 0, (Op("conv", 0, 5),))


def test_a_wrong_rule_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks see a rule that makes relevance that it cannot account for."""
    program = kept("Gamma", Op("dense", 0, 0, 1), Op("relu"), seed=4)
    check(program)
    right = lrp.Gamma.terms

    def terms(self: lrp.Gamma, layer: Any) -> list[lrp.Term]:
        return [lrp.Term(2 * t.share, t.positive, t.negative) for t in right(self, layer)]

    monkeypatch.setattr(lrp.Gamma, "terms", terms)
    jax.clear_caches()  # what is traced for a rule is kept
    with pytest.raises(Finding, match="not accounted for"):
        check(program)
    jax.clear_caches()
