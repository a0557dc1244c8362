"""What users are promised of a real model, and the tests of this folder that `make test` runs for it.

The other tests here are marked `long`: they hold the same with more settings, models and logs, in `make test-all`.
"""

from typing import Final

CLAIMS: Final[dict[str, tuple[str, ...]]] = {
    "A request's tokens and bits do not depend on its company, on how its prompt is cut or on who leaves.": (
        "test_smollm2.py::test_eight_at_once_with_one_cancelled_and_one_unread",
        "test_smollm2.py::test_logits_do_not_depend_on_the_schedule",
    ),
    "Seeds, temperature and stop strings do what they do in llama.cpp.": (
        "test_smollm2.py::test_a_seed_repeats_a_text_and_another_does_not",
        "test_smollm2.py::test_greedy_ignores_the_seed",
        "test_smollm2.py::test_a_stop_string_across_tokens",
    ),
    "A grammar or a schema constrains a text, a context is shifted, and what was evaluated before is reused.": (
        "test_scenarios.py::test_a_scenario[grammar]",
        "test_scenarios.py::test_a_scenario[shift_moving]",
        "test_scenarios.py::test_a_scenario[reuse]",
    ),
    "A chat goes on from the cells of its last turn, and a message cannot close its own turn.": (
        "test_scenarios.py::test_a_scenario[chat]",
        "test_chat.py::test_a_message_cannot_close_its_own_turn",
    ),
    "A cancel ends a prefill, a deadline ends a sequence, and priority is served first.": (
        "test_scenarios.py::test_a_scenario[cancel_in_prefill]",
        "test_scenarios.py::test_a_scenario[deadline]",
        "test_scenarios.py::test_a_scenario[preemption]",
    ),
    "Texts become vectors.": ("test_scenarios.py::test_a_scenario[embeddings]",),
    "A log computes to the same bits again, as a whole and each sequence alone; a difference is found and named.": (
        "test_compute.py::test_a_golden_log_computes_the_same[company-compute_log]",
        "test_compute.py::test_a_golden_log_computes_the_same[company-all_alone]",
        "test_compute.py::test_a_golden_log_computes_the_same[embeddings-compute_log]",
        "test_compute.py::test_the_command",
        "test_compute.py::test_a_difference_by_the_command",
        "test_compute.py::test_what_cannot_be_compared",
    ),
    "A request that is extracted computes to the bits that it had in company.": (
        "test_extract.py::test_it_computes_to_the_bits_of_its_company[story]",
    ),
    "The cause of a difference is named.": (
        "test_causes.py::test_the_cause_is_named_where_only_the_data_tell[an_edited_token]",
        "test_causes.py::test_the_cause_is_named_where_only_the_data_tell[another_option]",
    ),
    "A fork goes on as its parent did, or with other options as if it had had them, its company untouched.": (
        "test_fork.py::test_a_fork_without_changes[between two tokens]",
        "test_fork.py::test_one_with_other_options[changes1]",
    ),
}
"""By claim, as pytest names them from this folder on."""
