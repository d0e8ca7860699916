"""Train an LSTM on a task whose answer is known, and check that its explanation is that answer.

    python examples/explain_rnn.py

At each of 20 steps the network sees a number and a mark; the answer is the sum of the two marked
numbers, so each of them is responsible for exactly its own value and all others for nothing. The
script fails if the relevance says otherwise. (The task is Hochreiter and Schmidhuber's adding
problem; checking explanations on sums is due to Arras et al., "Evaluating Recurrent Neural Network
Explanations", BlackboxNLP 2019.)
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import trange

import lrp_jax as lrp

STEPS = 20
FEATURES = 16
BATCH = 256
PEAK_LEARNING_RATE = 2e-2
# All relevance of a gated product goes to the signal, none to the gate.
COMPOSITE = lrp.Composite([(lrp.Bilinear, lrp.Gate()), (lrp.Linear, lrp.Epsilon(1e-3))])
SHOWN = 4


class Adder(nn.Module):
    """Sequences of shape (n, 20, 2), number and mark, to sums of shape (n, 1)."""

    @nn.compact
    def __call__(self, sequences: jax.Array) -> jax.Array:
        states: Any = nn.RNN(nn.OptimizedLSTMCell(FEATURES))(sequences)
        return nn.Dense(1)(states[:, -1])


def make_task(key: jax.Array, count: int = BATCH) -> tuple[jax.Array, jax.Array]:
    """Return sequences and the sums of their two marked numbers."""
    number_key, mark_key = jax.random.split(key)
    numbers = jax.random.uniform(number_key, (count, STEPS), minval=-1.0, maxval=1.0)
    order = jnp.argsort(jax.random.uniform(mark_key, (count, STEPS)))
    marks = (order < 2).astype(numbers.dtype)
    return jnp.stack([numbers, marks], -1), (numbers * marks).sum(-1, keepdims=True)


def train(steps: int, seed: int) -> Any:
    """Return the parameters of a trained `Adder`."""
    network = Adder()
    schedule = optax.cosine_onecycle_schedule(steps, PEAK_LEARNING_RATE)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))

    @jax.jit
    def step(parameters: Any, state: Any, key: jax.Array) -> Any:
        def loss(parameters: Any) -> jax.Array:
            sequences, sums = make_task(key)
            outputs: Any = network.apply(parameters, sequences)
            return jnp.square(outputs - sums).mean()

        value, gradient = jax.value_and_grad(loss)(parameters)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(parameters, updates), state, value

    start_key, key = jax.random.split(jax.random.key(seed))
    parameters = network.init(start_key, make_task(key)[0])
    state = optimizer.init(parameters)
    with trange(steps, desc="training") as progress:
        for index in progress:
            parameters, state, value = step(parameters, state, jax.random.fold_in(key, index))
            if index % 100 == 99:
                progress.set_postfix(error=f"{value**0.5:.3f}")
    return parameters


@dataclass(frozen=True)
class Verdict:
    """How well relevance fits the known answer.

    `error` is the root mean square of what the network's sum misses, `on_marked` the share of all
    absolute relevance that lies on the two marked steps, `correlation` that of a marked step's
    relevance with its number.
    """

    error: float
    on_marked: float
    correlation: float

    def problems(self) -> list[str]:
        """Return what is not as the task demands."""
        demands = {
            f"the network misses the sum by {self.error:.3f}": self.error < 0.05,
            f"only {self.on_marked:.0%} of the relevance is on marked steps": self.on_marked > 0.7,
            f"relevance and number correlate by {self.correlation:.3f}": self.correlation > 0.95,
        }
        return [problem for problem, met in demands.items() if not met]


def judge(
    sequences: np.ndarray, sums: np.ndarray, outputs: np.ndarray, relevance: np.ndarray
) -> Verdict:
    """Compare the relevance of each step, shape (n, 20), with the known answer."""
    numbers, marked = sequences[..., 0], sequences[..., 1] == 1
    return Verdict(
        error=float(np.sqrt(np.square(outputs - sums).mean())),
        on_marked=float(np.abs(relevance[marked]).sum() / np.abs(relevance).sum()),
        correlation=float(np.corrcoef(relevance[marked], numbers[marked])[0, 1]),
    )


def draw(path: Path, sequences: np.ndarray, outputs: np.ndarray, relevance: np.ndarray) -> None:
    """Write a figure: some sequences with their relevance, and relevance against number."""
    import matplotlib.pyplot as plt

    numbers, marked = sequences[..., 0], sequences[..., 1] == 1
    figure, axes = plt.subplot_mosaic(
        [[f"{row}", "all"] for row in range(SHOWN)],
        figsize=(9, 5.5),
        width_ratios=[3, 2],
        layout="constrained",
    )
    steps = np.arange(STEPS)
    for row in range(SHOWN):
        axis = axes[f"{row}"]
        axis.bar(steps, numbers[row], color="0.88", label="number")
        axis.bar(steps, relevance[row], width=0.4, color="#8b1a00", label="relevance")
        axis.plot(
            steps[marked[row]], [1.25, 1.25], "v", color="black", markersize=5, label="marked"
        )
        axis.axhline(0, color="black", linewidth=0.5)
        axis.set(ylim=(-1.15, 1.5), xticks=[], yticks=[-1, 0, 1])
        axis.set_title(f"answer {outputs[row, 0]:+.2f}", loc="right", fontsize=9, pad=2)
    last = axes[f"{SHOWN - 1}"]
    last.set_xticks(steps[::5])
    last.set_xlabel("step")
    figure.legend(*last.get_legend_handles_labels(), loc="outside lower left", ncols=3)
    scatter = axes["all"]
    scatter.plot([-1, 1], [-1, 1], color="0.7", linewidth=1)
    scatter.plot(numbers[~marked], relevance[~marked], ".", color="0.6", ms=2, label="not marked")
    scatter.plot(numbers[marked], relevance[marked], ".", color="#8b1a00", ms=3, label="marked")
    scatter.set(xlabel="number", ylabel="relevance", aspect="equal")
    scatter.legend(loc="upper left", markerscale=3)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2500, help="of training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("explained_rnn"), help="a folder")
    options = parser.parse_args(arguments)

    parameters = train(options.steps, options.seed)
    sequences, sums = make_task(jax.random.key(options.seed + 1), 500)
    explain = jax.jit(lrp.value_and_relevance(Adder().apply, COMPOSITE))
    outputs, relevances = map(np.asarray, explain(parameters, sequences, target=0))
    relevance = relevances.sum(-1)
    print(lrp.plan(Adder().apply, COMPOSITE)(parameters, sequences))

    options.out.mkdir(parents=True, exist_ok=True)
    draw(options.out / "relevances.png", np.asarray(sequences), outputs, relevance)
    print(f"written: relevances.png in {options.out}")
    verdict = judge(np.asarray(sequences), np.asarray(sums), outputs, relevance)
    print(verdict)
    if problems := verdict.problems():
        raise SystemExit("the explanation is not the known answer: " + "; ".join(problems))


if __name__ == "__main__":
    main()
