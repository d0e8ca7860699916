"""Settings of every test: float64 in tests, a user's defaults in the examples of docstrings."""

import os
from collections import Counter
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

# The longest tables of tests: a quick run takes one row of so many, the others are marked slow
# (`pytest -m slow` runs these, `pytest -m ""` all).
LONG = {
    "test_a_checkpointed_model_is_the_model": 3,
    "test_a_function_that_negates_turns_no_neuron_around": 3,
    "test_a_grouped_product_has_the_weights_of_each_row_s_group": 3,
    "test_a_norm_however_it_is_written": 2,
    "test_a_quantised_network_is_explained_as_the_float_network": 3,
    "test_a_softmax_however_it_is_written": 2,
    "test_chains_before_a_contraction": 3,
    "test_equal_functions_have_one_relevance": 8,
    "test_every_other_composite": 4,
    "test_every_query_under_jit_and_vmap_ties_in_with_the_ledger": 4,
    "test_every_rule_below_every_other": 3,
    "test_every_rule_matches_the_oracle": 5,
    "test_gamma_in_patch_embedding_and_mlp": 3,
    "test_gradient_of_relevance": 8,
    "test_half_precision": 3,
    "test_jit_of_vmap_and_second_call": 6,
    "test_logits_masked_with_minus_infinity": 3,
    "test_lrp_0_is_gradient_times_input_where_all_is_piecewise_linear": 5,
    "test_network_is_the_same": 3,
    "test_networks_without_suspicions_pass": 3,
    "test_output_is_kept_and_relevance_is_finite": 6,
    "test_queries_under_strict_promotion": 4,
    "test_random_networks_have_twins": 2,
    "test_relevance_equals_zennit": 8,
    "test_relevance_in_float32": 3,
    "test_relevance_of_embeddings": 3,
    "test_saturated_gates_are_finite": 4,
    "test_settings_change_nothing": 3,
    "test_single_precision_is_precise": 3,
    "test_the_ledger_ties_in_with_relevance_and_layers": 4,
    "test_the_numbers_are_those_of_the_function": 4,
    "test_transformations_change_nothing": 3,
    "test_values_are_those_of_the_users_integers": 3,
    "test_way_of_writing_makes_no_difference": 6,
}

# Scripts that need other frameworks.
collect_ignore_glob = ["tests/reference/generate_*.py"]


@pytest.fixture(autouse=True)
def _precision_of_docstrings(request: pytest.FixtureRequest) -> Iterator[None]:
    with jax.enable_x64(not isinstance(request.node, pytest.DoctestItem)):
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rows: Counter[str] = Counter()
    for item in items:
        name = getattr(item, "originalname", "")
        if rows[name] % LONG.get(name, 1):
            item.add_marker(pytest.mark.slow)
        rows[name] += 1
