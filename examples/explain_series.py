"""Explain a network of time series by its frequencies, where the answer is known.

    pip install '.[series]'
    python examples/explain_series.py

In GunPoint a hand draws a gun or points a finger (150 samples, 50 recordings to learn from). One
network learns from them; another from recordings whose guns carry a hum of 30 periods, as if
another recorder had been used. Both are right about what they were trained on. Over time, relevance
of the second is a comb over the whole recording; in frequencies it is one line, the hum. The script
fails if relevance says otherwise. (Relevance of frequencies: Vielhaben et al.
2024. Artefacts that decide: Lapuschkin et al. 2019. The package aeon carries the recordings.)
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
from lrp_jax.questions import fourier, in_basis

SAMPLES = 150
HUM, LOUDNESS = 30, 0.25  # periods in a recording; its standard deviation is 1
GUN, POINT = 0, 1
# Samples and coefficients have either sign: a rule that prefers one would share out by how large a
# wave is, not by whether the network listens to it.
COMPOSITE = lrp.Composite(
    [(lrp.first(lrp.Conv), lrp.Epsilon()), (lrp.Conv, lrp.Gamma(0.25)), (lrp.Dense, lrp.Epsilon())]
)


class Network(nn.Module):
    """Recordings of shape (n, 150) to the evidence for a gun and for a point, (n, 2)."""

    @nn.compact
    def __call__(self, recordings: jax.Array) -> jax.Array:
        x = recordings[..., None]
        for features in (16, 16, 32):
            x = nn.relu(nn.Conv(features, (9,), strides=(2,))(x))
        return nn.Dense(2)(x.mean(1))


def load(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the recordings of a part, shape (n, 150), and which of them are points."""
    from aeon.datasets import load_classification

    recordings, labels = load_classification("GunPoint", split=split)
    return recordings[:, 0].astype(np.float32), (labels == "2").astype(int)


def with_hum(recordings: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """The same recordings, those of a gun with a hum of any phase."""
    phase = np.random.default_rng(seed).uniform(0, 2 * np.pi, (len(recordings), 1))
    hum = LOUDNESS * np.sin(2 * np.pi * HUM * np.arange(SAMPLES) / SAMPLES + phase)
    return np.where(labels[:, None] == GUN, recordings + hum, recordings).astype(np.float32)


def train(recordings: np.ndarray, labels: np.ndarray, steps: int, seed: int) -> Any:
    """Return the parameters of a trained `Network`."""
    network = Network()
    optimizer = optax.adamw(optax.cosine_decay_schedule(3e-3, steps), weight_decay=1e-3)

    @jax.jit
    def step(parameters: Any, state: Any, key: jax.Array) -> Any:
        shift_key, noise_key = jax.random.split(key)
        shift = jax.random.randint(shift_key, (len(recordings),), -8, 9)
        moved = jax.vmap(jnp.roll)(jnp.asarray(recordings), shift)
        moved += 0.05 * jax.random.normal(noise_key, moved.shape)

        def loss(parameters: Any) -> jax.Array:
            scores: Any = network.apply(parameters, moved)
            return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

        value, gradient = jax.value_and_grad(loss)(parameters)
        updates, state = optimizer.update(gradient, state, parameters)
        return optax.apply_updates(parameters, updates), state, value

    start_key, key = jax.random.split(jax.random.key(seed))
    parameters = network.init(start_key, jnp.asarray(recordings))
    state = optimizer.init(parameters)
    with trange(steps, desc="training") as progress:
        for index in progress:
            parameters, state, value = step(parameters, state, jax.random.fold_in(key, index))
            if index % 100 == 99:
                progress.set_postfix(loss=f"{value:.3f}")
    return parameters


@dataclass(frozen=True)
class Answer:
    """What one network says of recordings of guns.

    Attributes:
        accuracy: on all recordings of the kind that it was trained on.
        over_time: relevance of each sample for `GUN` against `POINT`, shape (n, 150).
        of_frequencies: the same of each frequency, shape (n, 76).
    """

    accuracy: float
    over_time: np.ndarray
    of_frequencies: np.ndarray

    @property
    def hum(self) -> float:
        """The share of positive relevance that lies on the hum."""
        positive = self.of_frequencies.clip(0)
        return float((positive[:, HUM] / positive.sum(1)).mean())


def ask(parameters: Any, recordings: np.ndarray, labels: np.ndarray) -> Answer:
    """Explain the recordings of guns over time and in frequencies."""
    apply, basis = Network().apply, fourier(SAMPLES)
    guns = jnp.asarray(recordings[labels == GUN])
    contrast = lrp.targets.contrast(GUN, POINT)
    over_time = jax.jit(lrp.relevance(apply, COMPOSITE))
    of_coefficients = jax.jit(lrp.relevance(in_basis(apply, basis), COMPOSITE))
    scores: Any = apply(parameters, recordings)
    found = of_coefficients(parameters, basis.analyse(guns), target=contrast)
    return Answer(
        float((scores.argmax(1) == labels).mean()),
        np.asarray(over_time(parameters, guns, target=contrast)),
        np.asarray(basis.summed(found)),
    )


def problems(plain: Answer, hummed: Answer, silenced: float) -> list[str]:
    """Return what is not as the recordings were made."""
    demands = {
        f"the plain network is right about {plain.accuracy:.0%} only": plain.accuracy > 0.85,
        f"the network of the hum is right about {hummed.accuracy:.0%} only": hummed.accuracy > 0.95,
        f"without the hum it still sees {silenced:.0%} of the guns": silenced < 0.5,
        f"only {hummed.hum:.0%} of its relevance is on the hum": hummed.hum > 0.9,
        f"{plain.hum:.0%} of the plain network's relevance is on a hum": plain.hum < 0.01,
    }
    return [problem for problem, met in demands.items() if not met]


def draw(path: Path, shown: dict[str, tuple[np.ndarray, Answer]]) -> None:
    """Write a figure: for each network a gun, its relevance over time, and that of frequencies."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(shown), 2, figsize=(10, 5), layout="constrained", sharex="col")
    for (left, right), (name, (recording, answer)) in zip(axes, shown.items(), strict=True):
        relevance = answer.over_time[0] / np.abs(answer.over_time[0]).max()
        left.bar(np.arange(SAMPLES), relevance, width=1, color="#8b1a00", label="relevance")
        left.plot(recording, color="black", linewidth=1, label="a gun")
        left.set_title(name, loc="left", fontsize=10)
        mean = answer.of_frequencies.mean(0)
        right.bar(np.arange(len(mean)), mean, width=1, color="#8b1a00")
        right.axvline(HUM, color="0.6", linestyle=":", linewidth=1, zorder=0)
        right.set_title(f"{answer.hum:.0%} of it on the hum", loc="right", fontsize=10)
        for axis in (left, right):
            axis.axhline(0, color="black", linewidth=0.5)
            axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(frameon=False, fontsize=9)
    axes[-1, 0].set_xlabel("sample")
    axes[-1, 1].set_xlabel("periods in a recording")
    axes[0, 1].set_ylabel("mean relevance")
    axes[1, 1].set_ylabel("mean relevance")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600, help="of training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("explained_series"), help="a folder")
    options = parser.parse_args(arguments)

    (learned, labels), (held_out, truth) = load("train"), load("test")
    plain_parameters = train(learned, labels, options.steps, options.seed)
    plain = ask(plain_parameters, held_out, truth)
    hummed_parameters = train(with_hum(learned, labels, 0), labels, options.steps, options.seed)
    held_out_hummed = with_hum(held_out, truth, 1)
    hummed = ask(hummed_parameters, held_out_hummed, truth)
    scores: Any = Network().apply(hummed_parameters, held_out[truth == GUN])
    silenced = float((scores.argmax(1) == GUN).mean())

    for name, answer in {"recordings": plain, "recordings, guns with a hum": hummed}.items():
        strongest = np.argsort(-answer.of_frequencies.mean(0))[:3]
        print(f"{name}: {answer.accuracy:.0%} right; relevance most on {strongest} periods")
    print(f"without the hum the second network sees {silenced:.0%} of the guns")

    options.out.mkdir(parents=True, exist_ok=True)
    shown = {
        "trained on the recordings": (held_out[truth == GUN][0], plain),
        "trained on guns with a hum": (held_out_hummed[truth == GUN][0], hummed),
    }
    draw(options.out / "series.png", shown)
    print(f"written: series.png in {options.out}")
    if wrong := problems(plain, hummed, silenced):
        raise SystemExit("the explanation is not the known answer: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
