"""Is everything in order: versions, devices, what is installed, and a short test of the numbers."""

import importlib.metadata
import platform
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import rules
from ..transform import relevance

OPTIONAL = {
    "flax": "Linen and NNX models",
    "equinox": "Equinox models",
    "dm-haiku": "Haiku models",
    "matplotlib": "pictures (lrp_jax.plot)",
    "tqdm": "progress bars",
    "h5py": "data sets in HDF5 (explain_dataset)",
    "safetensors": "checkpoints in .safetensors",
    "pillow": "images on the command line",
    "pandas": "studies as data frames",
    "quantus": "metrics of Quantus",
}
"""Packages that the library works without, and what each serves."""

# A network of 3, 4 and 2 units with a relu between, and the relevance of its first output (7) by
# the formulas of each rule, computed with NumPy alone.
X = np.array([[1.0, -2.0, 3.0]])
HIDDEN = np.array([[1, -1, 2, 0], [2, 1, -1, 1], [1, 2, -1, -2]]), np.array([1, 0, -1, 2])
OUTPUT = np.array([[1, -1], [2, 1], [-1, 2], [1, 1]])
KNOWN = {
    rules.Epsilon(): (-1.0, -7.999994, 14.999991),
    rules.Gamma(): (-0.777778, -4.444443, 11.666662),
    rules.ZPlus(): (0.2, 0.0, 6.599998),
    rules.AlphaBeta(): (-3.199998, -9.999995, 26.399992),
}


def report() -> Iterator[str]:
    """The lines of the report, the self-test last.

    Raises:
        ArithmeticError: where a number of the self-test is wrong.
    """
    core = ("lrp_jax", "jax", "jaxlib", "numpy")
    yield f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    yield ", ".join(f"{name} {_version(name) or 'not installed'}" for name in core)
    for device in jax.devices():
        yield f"device {device.id}: {device.platform} ({device.device_kind})"
    yield f"float64 is {'on' if jax.config.read('jax_enable_x64') else 'off'}"
    width = max(map(len, OPTIONAL))
    for name, use in OPTIONAL.items():
        yield f"  {name:{width}}  {_version(name) or 'not installed':13}  {use}"
    start = time.perf_counter()
    check()
    seconds = time.perf_counter() - start
    yield f"self-test: {len(KNOWN)} rules give the known numbers ({seconds:.1f} s)"


def check() -> None:
    """Compare explanations with known numbers.

    Raises:
        ArithmeticError: naming the rule, what it gave and what it should.
    """

    def network(p: Any, x: jax.Array) -> jax.Array:
        (w, b), v = p
        return jax.nn.relu(x @ w + b) @ v

    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (HIDDEN, OUTPUT))
    with jax.default_matmul_precision("highest"):
        for rule, known in KNOWN.items():
            explain = jax.jit(relevance(network, rule))
            found = np.asarray(explain(params, jnp.asarray(X, jnp.float32), target=0))[0]
            if not np.allclose(found, known, rtol=1e-4, atol=1e-4):
                raise ArithmeticError(f"{rule!r} gives {found.tolist()}, not {list(known)}.")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
