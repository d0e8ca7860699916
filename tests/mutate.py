# ruff: noqa: E501 (a table)
"""`python tests/mutate.py`: break each rule's formula in turn; a test has to notice every time.

A mutant is a copy of the package with one piece of text replaced: a sign, a denominator, a bias, a
part of the contributions. For each a few fast tests run on the copy, and at least one has to fail.
It takes about ten seconds of one core for each mutant, so continuous integration only tests that
the table still applies (`tests/test_mutate.py`).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
ORACLE = (
    "tests/test_rules.py",
    "-k",
    "(matches_the_oracle and (dense-bias or matmul-no_bias)) or by_hand or by_proportion",
)
NORMS = ("tests/test_rules.py", "-k", "matches_the_oracle and (norm or scaled or subtracted)")
SUMS = ("tests/test_rules.py", "-k", "pooling or residual or average or stabiliser")
GRADIENTS = ("tests/test_composites.py", "-k", "guided_backprop or deconvnet or beta_smooth")
LEDGER = (
    "tests/test_ledger.py",
    "-k",
    "nothing_is_lost or eats_half or epsilon_of_one or sign_missing or dead_unit",
)
ACCOUNTS = ("tests/test_robustness.py", "-k", "asked_for_an_account")
SIGNED = ("tests/test_rules.py", "-k", "sums_by or equal_shares")
COMPLEX = ("tests/test_complex.py",)
HIDDEN = ("tests/test_rules.py", "-k", "residual or below_every_other")


class Mutant(NamedTuple):
    """One change of the package.

    Attributes:
        file: a module of `lrp_jax`.
        old: text that is there exactly once.
        new: what stands there instead.
        tests: arguments of pytest.
    """

    file: str
    old: str
    new: str
    tests: tuple[str, ...] = ORACLE


MUTANTS = (
    # Epsilon, Norm: what shares of R / S(z) are made from, also where no rule object is asked.
    Mutant("rules/sharing.py", "layer.output, self.epsilon), 1, 1)", "layer.output, -self.epsilon), 1, 1)"),
    Mutant("rules/sharing.py", "layer.output, self.epsilon), 1, 1)", "layer.value, self.epsilon), 1, 1)"),
    Mutant("rules/sharing.py", "layer.output, 0.0), 1, 1)", "layer.output, 1e-3), 1, 1)"),
    Mutant("rules/sharing.py", "layer.output, 0.0), 1, 1)", "-layer.output, 0.0), 1, 1)"),
    Mutant(
        "rules/sharing.py",
        "return [Term(layer.divide(layer.relevance, layer.output, self.stabilizer), 1, 1)]",
        "return [Term(layer.divide(layer.relevance, layer.output, self.stabilizer), 1, 0)]",
        ACCOUNTS,
    ),
    Mutant("_layers/arithmetic.py", "return divide(cotangent, z, epsilon)", "return divide(cotangent, z, 0)"),
    Mutant(
        "_layers/arithmetic.py", "cotangent * divide(z, z, epsilon)", "cotangent * divide(z, z, -epsilon)", HIDDEN
    ),
    # Gamma
    Mutant("rules/sharing.py", "heavy = 1 + self.gamma", "heavy = 1 - self.gamma"),
    Mutant("rules/sharing.py", "z + self.gamma * (sums + bias_part)", "z - self.gamma * (sums + bias_part)"),
    Mutant("rules/sharing.py", "z + self.gamma * (sums + bias_part)", "z + self.gamma * sums"),
    Mutant("rules/sharing.py", "maximum(b, 0), layer.value > 0), heavy, 1)", "maximum(b, 0), layer.value > 0), 1, heavy)"),
    Mutant("rules/sharing.py", "share(layer.positive, jnp.maximum(b, 0)", "share(layer.positive, jnp.minimum(b, 0)"),
    Mutant("rules/sharing.py", "layer.value < 0), 1, heavy)", "layer.value < 0), heavy, heavy)"),
    Mutant("rules/sharing.py", "layer.value < 0), 1, heavy)", "layer.value > 0), 1, heavy)"),
    Mutant("rules/sharing.py", "jnp.minimum(b, 0), layer.value < 0)", "jnp.maximum(b, 0), layer.value < 0)"),
    # ZPlus
    Mutant("rules/sharing.py", "total = layer.positive + jnp.maximum(layer.bias, 0)", "total = layer.positive"),
    Mutant(
        "rules/sharing.py",
        "total = layer.positive + jnp.maximum(layer.bias, 0)",
        "total = layer.positive + layer.bias",
    ),
    Mutant("rules/sharing.py", "layer.relevance, total, self.stabilizer), 1, 0)", "layer.relevance, total, self.stabilizer), 1, 1)"),
    Mutant("rules/sharing.py", "layer.relevance, total, self.stabilizer), 1, 0)", "layer.relevance, total, self.stabilizer), 0, 1)"),
    # AlphaBeta
    Mutant("rules/sharing.py", "layer.negative + jnp.minimum(layer.bias, 0), -self.beta", "layer.negative + jnp.minimum(layer.bias, 0), self.beta"),
    Mutant("rules/sharing.py", "layer.negative + jnp.minimum(layer.bias, 0), -self.beta", "layer.negative, -self.beta"),
    Mutant("rules/sharing.py", "layer.positive + jnp.maximum(layer.bias, 0), self.alpha", "layer.positive, self.alpha"),
    Mutant("rules/sharing.py", "layer.positive + jnp.maximum(layer.bias, 0), self.alpha", "layer.positive + jnp.maximum(layer.bias, 0), self.beta"),
    Mutant("rules/sharing.py", "return [Term(up, 1, 0), Term(down, 0, 1)]", "return [Term(up, 1, 0), Term(down, 1, 0)]"),
    Mutant("rules/sharing.py", "layer.divide(weight * layer.relevance, sums, self.stabilizer)", "layer.divide(weight * layer.relevance, sums, 0.01)"),
    # Relative
    Mutant("rules/sharing.py", "return [Term(layer.relevance, 1, 1)]", "return [Term(-layer.relevance, 1, 1)]", ACCOUNTS),
    # ZBox
    Mutant("_layers/ways_back.py", "self._linear_output - corner / 2, stabilizer", "self._linear_output + corner / 2, stabilizer"),
    Mutant("_layers/ways_back.py", "self._linear_output - corner / 2, stabilizer", "self.value - corner / 2, stabilizer"),
    Mutant("_layers/ways_back.py", "- ((low + high) * even + (low - high) * odd) / 2", "- ((low + high) * even - (low - high) * odd) / 2"),
    Mutant("_layers/ways_back.py", "- ((low + high) * even + (low - high) * odd) / 2", "+ ((low + high) * even + (low - high) * odd) / 2"),
    # WSquare
    Mutant("_layers/ways_back.py", 'self.forward(scale, w2, "squared") + bias, stabilizer', 'self.forward(scale, w2, "squared"), stabilizer'),
    Mutant("_layers/ways_back.py", 'self.forward(scale, w2, "squared") + bias, stabilizer', 'self.forward(scale, w2, "squared") - bias, stabilizer'),
    Mutant("_layers/ways_back.py", "w2 = self._weight * self._weight", "w2 = jnp.abs(self._weight)"),
    Mutant("_layers/ways_back.py", "bias = self.bias * self.bias", "bias = self.bias"),
    # Flat
    Mutant("_layers/ways_back.py", "share = self.divide(self.relevance, self._count, stabilizer)", "share = self.divide(self.relevance, self._count + 1, stabilizer)"),
    Mutant("_layers/contraction_map.py", 'real = self._before(filled_like(self.x, 1), "structural")\n        return', 'real = self._before(filled_like(self.x, 2), "structural")\n        return'),
    # Sums of contributions, denominators, biases
    Mutant("_layers/arithmetic.py", "jnp.where(value >= 0, epsilon, -epsilon)", "jnp.where(value > 0, epsilon, -epsilon)"),
    Mutant("_layers/arithmetic.py", "jnp.where(value >= 0, epsilon, -epsilon)", "epsilon"),
    Mutant("_layers/contraction_map.py", "self.bias = 0.0 if ignored else bias", "self.bias = bias"),
    Mutant("_layers/contraction_map.py", "self.output = z - bias if ignored", "self.output = z if ignored"),
    Mutant("_layers/contributions.py", "above = self.forward(jnp.maximum(self._u, 0), of_positive", "above = self.forward(jnp.abs(self._u), of_positive"),
    Mutant("_layers/contributions.py", "self.forward(jnp.minimum(self._u, 0), of_negative", "self.forward(jnp.minimum(self._u, 0), of_positive"),
    Mutant("_layers/contributions.py", "return self._sum_apart(-1)", "return self._sum_apart(+1)"),
    Mutant("_layers/contributions.py", "jnp.where(self._turned, -t.share, 0)", "jnp.where(self._turned, t.share, 0)", NORMS),
    Mutant("_layers/contributions.py", "jnp.where(self._u > 0, above, jnp.where(self._u < 0, below, 0))", "above"),
    Mutant("_layers/contributions.py", "return total_of([t.share * (t.positive * up + t.negative * down) for t in terms])", "return total_of([t.share * (t.positive * down + t.negative * up) for t in terms])"),
    Mutant("_layers/contraction_map.py", "self._even(divide(share, self._count, 0.0))", "self._even(share)"),
    Mutant("_layers/contributions.py", "sign = jnp.where(scale[index] < 0, -1, 1)", "sign = jnp.where(scale[index] < 0, 1, 1)", NORMS),
    Mutant("_layers/chains.py", "constant = jnp.abs(constant)", "constant = jnp.square(constant)", NORMS),
    Mutant("_layers/chains.py", "return constant - x if flipped else x - constant", "return x - constant", NORMS),
    # Sums of explained values
    Mutant("_layers/sums.py", "jnp.where(s * x > 0, a, jnp.where(s * x < 0, b, 0))", "jnp.where(x > 0, a, jnp.where(x < 0, b, 0))", SIGNED),
    Mutant("_layers/sums.py", "part[sign * s](x, 0)", "part[sign](x, 0)", SIGNED),
    Mutant("_layers/sums.py", "jnp.where(self._counted < 0, swapped, straight)", "straight", SIGNED),
    Mutant("_layers/sums.py", "share = self._by_turn(share, -share)", "", SIGNED),
    Mutant("_layers/sums.py", "tuple(s * r for", "tuple(r for", SIGNED),
    Mutant("_layers/sums.py", "signs=tuple(-1 if", "signs=tuple(1 if", SIGNED),
    Mutant("_layers/complex_maps.py", "return list(operands) == [0]", "return True", COMPLEX),
    Mutant("_layers/arithmetic.py", "return (c * value).real", "return (c * value).imag", COMPLEX),
    # Accounts
    Mutant("_layers/linear.py", "dead = given == lost", "dead = given != lost", LEDGER),
    Mutant("_layers/linear.py", "by_bias = jnp.sum(view.bias_share(terms))", "by_bias = -jnp.sum(view.bias_share(terms))", LEDGER),
    # Modified gradients
    Mutant("rules/gradients.py", "return jnp.where(incoming > 0, gradient, 0)", "return jnp.where(incoming < 0, gradient, 0)", GRADIENTS),
    Mutant("rules/gradients.py", "return jnp.maximum(incoming, 0)", "return jnp.minimum(incoming, 0)", GRADIENTS),
    Mutant("rules/gradients.py", "incoming * jax.nn.sigmoid(self.beta * x)", "incoming * jax.nn.sigmoid(-self.beta * x)", GRADIENTS),
    # Products and multipliers
    Mutant("_layers/arithmetic.py", "halve = on_the_way_back(lambda c, value: c / 2)", "halve = on_the_way_back(lambda c, value: c)", ("tests/test_transformers.py",)),
    Mutant("_layers/arithmetic.py", "negate = on_the_way_back(lambda c, value: -c)", "negate = on_the_way_back(lambda c, value: c)", ("tests/test_robustness.py", "-k", "quotient")),
)  # fmt: skip


def applied(mutant: Mutant, package: Path) -> None:
    """Change a copy of the package.

    Raises:
        ValueError: where the text is not there exactly once.
    """
    file = package / mutant.file
    text = file.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.file} has {mutant.old!r} {text.count(mutant.old)} times")
    file.write_text(text.replace(mutant.old, mutant.new))


def killed(mutant: Mutant | None) -> bool:
    """Whether a test fails on the package with a change (or without one)."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "lrp_jax"
        shutil.copytree(ROOT / "lrp_jax", package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "tests", Path(folder) / "tests")
        for name in ("conftest.py", "pyproject.toml"):
            shutil.copy(ROOT / name, folder)
        if mutant is not None:
            applied(mutant, package)
        tests = ORACLE if mutant is None else mutant.tests
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-qx", "-m", "", "-p", "no:cacheprovider", *tests],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": folder, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
        )
        if done.returncode not in (0, 1):
            raise RuntimeError(f"{mutant}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
        return done.returncode == 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="mutants whose file or text contains this")
    only = parser.parse_args().only or ""
    if killed(None):
        raise RuntimeError("the tests fail without any change")
    survivors = 0
    for mutant in (m for m in MUTANTS if only in m.file + m.old + m.new):
        dead = killed(mutant)
        survivors += not dead
        print(
            f"{'killed  ' if dead else 'SURVIVES'}  {mutant.file:14} {mutant.old}  ->  {mutant.new}",
            flush=True,
        )
    print(f"{survivors} survive")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
