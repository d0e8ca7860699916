"""Many devices: sharded data and weights, and layers in `shard_map`, equal to one device."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from lrp_jax._analysis import compat

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
import lrp_jax as lrp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

jax.config.update("jax_enable_x64", True)
mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))
keys = jax.random.split(jax.random.key(0), 5)
shapes = {"a": (6, 8), "c": (8,), "b": (8, 4), "e": (4,)}
w = {n: jax.random.normal(k, s) for k, (n, s) in zip(keys, shapes.items())}
x = jax.random.normal(keys[4], (4, 6))


def plain(w, x):
    return jax.nn.relu(x @ w["a"] + w["c"]) @ w["b"] + w["e"]


specs = {"a": P(None, "model"), "c": P("model"), "b": P("model", None), "e": P()}


def body(w, x):
    return jax.lax.psum(jax.nn.relu(x @ w["a"] + w["c"]) @ w["b"], "model") + w["e"]


def mapped(w, x):
    spread = jax.shard_map(
        body, mesh=mesh, in_specs=(specs, P("data")), out_specs=P("data")
    )
    return spread(w, x)


sharded = {n: jax.device_put(v, NamedSharding(mesh, specs[n])) for n, v in w.items()}
batch = jax.device_put(x, NamedSharding(mesh, P("data", None)))
for rule in (lrp.Epsilon(), lrp.Gamma(), lrp.ZPlus(), lrp.AlphaBeta(), lrp.Flat(), lrp.WSquare()):
    one = lrp.relevance(plain, rule)(w, x)
    assert float(jnp.abs(one).max()) > 0
    for name, found in {
        "sharded batch": lrp.relevance(plain, rule)(w, batch),
        "sharded weights": lrp.relevance(plain, rule)(sharded, batch),
        "shard_map": lrp.relevance(mapped, rule)(w, x),
    }.items():
        np.testing.assert_allclose(found, one, atol=1e-9 * float(jnp.abs(one).max()), err_msg=name)

explain = jax.jit(lambda w, x: lrp.relevance(plain, lrp.ZPlus())(w, x, target=1))
gradient = jax.jit(jax.grad(lambda x, w: plain(w, x)[:, 1].sum()))
ours = explain.lower(sharded, batch).compile().as_text().count("all-gather(")
theirs = gradient.lower(batch, sharded).compile().as_text().count("all-gather(")
assert ours <= theirs, (ours, theirs)
print("equal on", jax.device_count(), "devices")
"""


@pytest.mark.parametrize("devices", [4])
def test_many_devices_equal_one(devices: int) -> None:
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == f"equal on {devices} devices"


def test_a_program_may_be_in_a_mesh_of_its_own() -> None:
    mesh = jax.make_mesh((1,), ("own",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh):
        found = compat.unnamed_primitives.__wrapped__()
    assert found == compat.unnamed_primitives()
