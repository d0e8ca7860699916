"""Settings of every test: float64 in tests, a user's defaults in the examples of docstrings."""

import os
from collections.abc import Iterator

import hypothesis
import jax
import pytest

os.environ["MPLBACKEND"] = "Agg"
# Compiling is most of the time of the tests. This halves it and leaves the program as it is: only
# the machine code of each operation is optimised less.
os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=0 {os.environ.get('XLA_FLAGS', '')}"
jax.config.update("jax_enable_x64", True)

# Compiling makes the first example of a property slow, and a run must not depend on earlier ones.
hypothesis.settings.register_profile(
    "reproducible",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("reproducible")

# Scripts that need other frameworks.
collect_ignore_glob = ["tests/reference/generate_*.py"]


@pytest.fixture(autouse=True)
def _precision_of_docstrings(request: pytest.FixtureRequest) -> Iterator[None]:
    with jax.enable_x64(not isinstance(request.node, pytest.DoctestItem)):
        yield
