"""Settings of every test: float64 in tests, a user's defaults in the examples of docstrings."""

import os
import zlib
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

# The longest tables of tests, and how many rows of each a quick run takes, drawn by their names.
# The others are marked slow (`pytest -m slow` runs these, `pytest -m ""` all).
QUICK_ROWS = {
    "test_a_cached_decoder_is_explained_as_the_uncached_one": 2,
    "test_a_cell_has_one_cut_into_layers_in_all_turns": 2,
    "test_a_checkpointed_model_is_the_model": 1,
    "test_a_condition_is_the_branch_it_takes": 1,
    "test_a_contraction_that_contracts_nothing_is_a_product": 3,
    "test_a_function_that_negates_turns_no_neuron_around": 3,
    "test_a_grouped_product_has_the_weights_of_each_row_s_group": 3,
    "test_a_held_factor_leaves_all_to_the_others": 5,
    "test_a_kernel_is_explained_as_if_it_were_written_out": 4,
    "test_a_layer_that_is_asked_for_an_account_does_the_same": 2,
    "test_a_linear_kernel_follows_the_rules_of_linear_layers": 4,
    "test_a_loop_is_its_turns": 5,
    "test_a_loop_of_known_bound_is_its_turns": 2,
    "test_a_loop_that_begins_with_constants_is_its_turns": 4,
    "test_a_module_used_twice": 1,
    "test_a_norm_however_it_is_written": 6,
    "test_a_quantised_network_is_explained_as_the_float_network": 5,
    "test_a_scale_by_one_number_is_no_layer": 2,
    "test_a_scan_over_layers_is_the_loop": 2,
    "test_a_softmax_however_it_is_written": 6,
    "test_a_softmax_under_rules_that_tell_signs_apart": 1,
    "test_a_switch_is_the_branch_it_takes": 1,
    "test_an_activation_hands_on_what_it_gets": 4,
    "test_an_identity_applies_and_keeps_values": 60,
    "test_an_output_that_feeds_a_relu": 1,
    "test_another_study_is_not_continued": 4,
    "test_attention_by_blocks_is_attention": 5,
    "test_baselines_at_the_embedding": 1,
    "test_borders_around_halves_of_a_piece_change_nothing": 5,
    "test_bounds_align_from_the_right": 3,
    "test_calls_inside_of_bodies": 4,
    "test_chains_before_a_contraction": 2,
    "test_code_of_page_runs_and_prints_what_the_page_says": 5,
    "test_concepts_add_up": 2,
    "test_convolutions_are_exact_in_both_operands": 4,
    "test_cp_lrp_conserves_without_biases": 2,
    "test_each_is_every_target_by_itself": 3,
    "test_equal_functions_have_one_relevance": 7,
    "test_every_composite": 4,
    "test_every_other_composite": 4,
    "test_every_query_takes_every_start": 3,
    "test_every_query_under_jit_and_vmap_ties_in_with_the_ledger": 0,
    "test_every_rule_below_every_other": 2,
    "test_every_rule_matches_the_oracle": 4,
    "test_every_walk": 3,
    "test_every_way_to_look_up": 6,
    "test_extreme_inputs_have_finite_relevance": 3,
    "test_finite_numbers_stay_finite": 6,
    "test_float32_is_close_to_float64": 2,
    "test_forms_of_a_loop_agree": 2,
    "test_forward_mode_is_reverse_mode": 2,
    "test_gamma_in_patch_embedding_and_mlp": 1,
    "test_gradient_of_a_pullback": 1,
    "test_gradient_of_relevance": 3,
    "test_half_precision": 1,
    "test_heads_of_every_spelling": 3,
    "test_ids_that_no_table_has": 6,
    "test_in_one_linear_region_the_estimate_is_the_truth": 2,
    "test_jit_of_vmap_and_second_call": 4,
    "test_knowing_the_sign_of_an_input_changes_nothing": 2,
    "test_layers_of_one_kind_and_shape_are_traced_once": 3,
    "test_light_guests": 2,
    "test_linen_lstm_follows_arras": 1,
    "test_logits_masked_with_minus_infinity": 1,
    "test_lrp_0_is_gradient_times_input": 4,
    "test_lrp_0_is_gradient_times_input_where_all_is_piecewise_linear": 5,
    "test_mamba_equals_its_formula": 2,
    "test_many_blocks_are_one_layer": 1,
    "test_max_pool_hands_on_to_the_first_winner": 4,
    "test_network_is_the_same": 4,
    "test_networks_without_suspicions_pass": 6,
    "test_no_weights_are_turned_or_copied_in_the_prepared_program": 1,
    "test_non_negative_inputs_of_other_layers": 2,
    "test_occlusion_as_a_loop_over_windows": 3,
    "test_one_call_form": 4,
    "test_output_is_kept_and_relevance_is_finite": 4,
    "test_parameters_carry_the_contributions_of_their_rule": 4,
    "test_queries_are_sums_over_the_walks_of_which_they_hold": 3,
    "test_queries_under_strict_promotion": 1,
    "test_random_networks_have_twins": 4,
    "test_random_numbers_are_warned_of_and_a_network_that_predicts_is_not": 3,
    "test_reference_agrees_with_lxt": 4,
    "test_reference_computes_the_same_logits": 3,
    "test_reference_conserves_without_biases": 3,
    "test_relevance_equals_zennit": 7,
    "test_relevance_in_float32": 2,
    "test_relevance_is_conserved_with_a_bias": 4,
    "test_relevance_of_coefficients_is_gradient_times_coefficient": 3,
    "test_relevance_of_embeddings": 3,
    "test_same_under_jit_and_vmap": 4,
    "test_saturated_gates_are_finite": 1,
    "test_settings_change_nothing": 2,
    "test_single_precision_is_precise": 6,
    "test_smoothgrad_is_a_mean_over_noise_with_a_clean_last_sample": 1,
    "test_smoothgrad_is_zennits_on_the_same_noise": 1,
    "test_sums_by_the_sign_of_what_is_added": 6,
    "test_the_explanation_is_linear_in_the_start": 4,
    "test_the_ledger_ties_in_with_relevance_and_layers": 2,
    "test_the_numbers_are_those_of_the_function": 1,
    "test_the_numbers_are_those_of_zennit": 3,
    "test_the_order_of_hidden_units_does_not_matter": 4,
    "test_the_relevance_follows_the_order_of_the_inputs": 4,
    "test_the_strongest_walks": 5,
    "test_transformations_change_nothing": 4,
    "test_values_are_those_of_the_users_integers": 4,
    "test_way_of_writing_makes_no_difference": 4,
    "test_what_is_held_is_a_constant": 4,
    "test_what_stands_after_makes_no_difference": 5,
    "test_what_stands_before_makes_no_difference": 8,
    "test_what_was_found_is_mended": 3,
    "test_without_a_stabiliser_it_is_gradient_times_input": 1,
    "test_without_float64": 1,
    "test_zero_and_huge_embeddings_are_finite": 2,
    "test_zero_inputs_and_zero_weights_stay_finite": 4,
}

# Scripts that need other frameworks.
collect_ignore_glob = ["tests/reference/generate_*.py"]


@pytest.fixture(autouse=True)
def _precision_of_docstrings(request: pytest.FixtureRequest) -> Iterator[None]:
    with jax.enable_x64(not isinstance(request.node, pytest.DoctestItem)):
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tables: dict[tuple[str, str], list[pytest.Item]] = {}
    for item in items:
        name = getattr(item, "originalname", "")
        if name in QUICK_ROWS:
            tables.setdefault((item.nodeid.partition("::")[0], name), []).append(item)
    for (_, name), table in tables.items():
        table.sort(key=lambda item: zlib.crc32(item.nodeid.encode()))
        for item in table[QUICK_ROWS[name] :]:
            item.add_marker(pytest.mark.slow)
