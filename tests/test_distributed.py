"""Two processes, joined by `jax.distributed` on the loopback: the numbers of one device."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAM = """
import re, sys
import jax, jax.numpy as jnp, numpy as np
import lrp_jax as lrp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

address, process, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.config.update("jax_enable_x64", True)
jax.distributed.initialize(
    address, 2, process, coordinator_bind_address=address, initialization_timeout=40
)
assert (jax.process_count(), jax.device_count(), jax.local_device_count()) == (2, 8, 4)

rng = np.random.default_rng(0)
w = {
    "conv": rng.normal(size=(3, 3, 2, 8)) / 4, "a": rng.normal(size=(8, 16)) / 3,
    "c": rng.normal(size=16) / 3, "b": rng.normal(size=(16, 4)) / 4,
}
images = rng.normal(size=(16, 6, 6, 2))


def apply(w, x):
    x = jax.lax.conv_general_dilated(
        x, w["conv"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = jax.nn.relu(x).mean((1, 2))
    return jax.nn.relu(x @ w["a"] + w["c"]) @ w["b"]


def collectives(program):
    names = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")
    return {n: len(re.findall(rf" {n}(-start)?\\(", program)) for n in names}


def globally(value, *spec):
    sharding = NamedSharding(mesh, P(*spec))
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


# Its share of the batches, each process by itself.
batches = [images[i : i + 3] for i in range(0, 16, 3)]
local = jax.jit(lambda x: lrp.relevance(apply, lrp.EpsilonPlus())(w, x))
found = lrp.explain_dataset(local, batches[process::2], progress=False)
np.save(f"{folder}/share-{process}.npy", found)
if process == 0:
    np.save(f"{folder}/whole.npy", local(images))

# One batch over all devices of both processes.
mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))
x = globally(images, "data")
copied = {n: globally(v) for n, v in w.items()}
specs = {"conv": (), "a": (None, "model"), "c": ("model",), "b": ("model", None)}
split = {n: globally(v, *specs[n]) for n, v in w.items()}
for name, rule in {
    "plus": lrp.EpsilonPlus(), "gamma": lrp.Gamma(), "flat": lrp.EpsilonPlusFlat(),
    "box": lrp.EpsilonGammaBox(low=-4.0, high=4.0),
}.items():
    explain = jax.jit(lambda w, x: lrp.relevance(apply, rule)(w, x, target=1))
    gradient = jax.jit(jax.grad(lambda x, w: apply(w, x)[:, 1].sum()))
    expected = np.asarray(explain(w, images))
    for placed, weights in {"copied": copied, "split": split}.items():
        relevance = explain(weights, x)
        for shard in relevance.addressable_shards:
            one = expected[shard.index]
            np.testing.assert_allclose(shard.data, one, atol=1e-9 * np.abs(expected).max())
        ours = collectives(explain.lower(weights, x).compile().as_text())
        theirs = collectives(gradient.lower(x, weights).compile().as_text())
        for kind in ("all-gather", "all-to-all", "collective-permute"):
            assert ours[kind] <= theirs[kind], (name, placed, ours, theirs)
        if placed == "copied":  # every example is explained by itself
            assert not any(ours.values()), (name, ours)

# A result that no process holds as a whole has to be said.
try:
    lrp.explain_dataset(lambda _: explain(copied, x), [images], progress=False)
except ValueError as error:
    assert "several processes" in str(error)
else:
    raise AssertionError("a result of several processes was taken")

try:
    import h5py
except ImportError:
    pass
else:
    path = lrp.explain_dataset(local, batches[process::2], path=f"{folder}/all.h5", progress=False)
    assert path.name == f"all-{process}-of-2.h5"
    with h5py.File(path) as file:
        stored = np.moveaxis(file["attribution"][:], 1, -1)
    np.testing.assert_array_equal(stored, found)
print("process", process, "is done")
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the two processes wrote."""
    folder = tmp_path_factory.mktemp("processes")
    flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    address = f"127.0.0.1:{free_port()}"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, address, str(process), str(folder)],
            env=environment,
            cwd=Path(__file__).parent.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    try:
        done = [process.communicate(timeout=240) for process in running]
    finally:
        for process in running:
            process.kill()
    for number, (process, (said, errors)) in enumerate(zip(running, done, strict=True)):
        assert process.returncode == 0, errors[-3000:]
        assert said.splitlines()[-1] == f"process {number} is done"
    return folder


def test_shares_of_two_processes_are_the_whole(folder: Path) -> None:
    whole = np.load(folder / "whole.npy")
    batches = [np.arange(i, min(i + 3, 16)) for i in range(0, 16, 3)]
    for process in range(2):
        mine = np.concatenate(batches[process::2])
        share = np.load(folder / f"share-{process}.npy")
        np.testing.assert_allclose(share, whole[mine], rtol=1e-9, atol=1e-12)
