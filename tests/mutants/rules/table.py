"""Every rule of docs/runner-semantics.md that a test can hold: how it is broken, and which tests notice.

`make rules` breaks one after the other (``tests/mutants/rules/__main__.py``). To add one, quote the rule from the
document, name a function that it rests on, and write what breaks that rule and no other. A test of a real model is
named by its whole node id.
"""

from typing import Final

import trio
from attrs import evolve as changed

from reenact.actors import events as e
from reenact.actors.inputs import NONE
from reenact.actors.schedule import ROUND
from reenact.actors.slots import NEVER, Slot
from tests.mutants.change import Rule, always, answered, asked
from tests.mutants.rules import broken

ADMISSION: Final = [
    Rule(
        "Admission: a prompt has inputs",
        "No inputs: error.",
        "reenact.actors.sequence:_begin",
        lambda original: lambda state, event: original(state, event if event.inputs else changed(event, inputs=(1,))),
        (
            "test_sequence::test_a_prompt_without_tokens_is_refused",
            "test_embedding::test_a_text_without_tokens_is_an_error",
        ),
    ),
    Rule(
        "Admission: num_keep negative",
        "negative means the whole prompt and no more",
        "reenact.actors.window:num_kept",
        broken.kept(num_keep=lambda asked_for, _: max(asked_for, 0)),
        ("test_window::test_a_bos_is_kept_besides", "test_window::test_truncation_keeps_the_beginning_and_the_end"),
    ),
    Rule(
        "Admission: num_keep and BOS",
        "add 1 if BOS was added",
        "reenact.actors.window:num_kept",
        broken.kept(bos_added=lambda *_: False),
        ("test_window::test_a_bos_is_kept_besides", "test_window::test_truncation_keeps_the_beginning_and_the_end"),
    ),
    Rule(
        "Admission: num_keep at most",
        "then at most `n_ctx - 1`",
        "reenact.actors.window:num_kept",
        broken.kept(n_ctx=lambda _, n_ctx: n_ctx + 1),
        ("test_window::test_one_cell_at_least_is_not_kept", "test_shift::test_all_but_one_cell_may_be_kept"),
    ),
    Rule(
        "Admission: truncation",
        "Prompt longer than `n_ctx`",
        "reenact.actors.window:truncated",
        lambda original: lambda n_prompt, n_ctx: original(n_prompt, n_ctx - 1),
        (
            "test_window::test_a_prompt_is_truncated_to_the_context",
            "test_window::test_a_prompt_that_fits_is_not_truncated",
        ),
    ),
    Rule(
        "Admission: truncate false",
        "with `truncate` false an error that names both numbers",
        "reenact.actors.sequence:_begin",
        broken.with_options(truncate=True),
        (
            "test_window::test_who_forbids_truncation_is_told_both_numbers",
            "test_embedding::test_who_forbids_truncation_is_told",
        ),
    ),
    Rule(
        "Admission: what truncation keeps",
        "keep the first `num_keep` inputs and the last `n_ctx - num_keep`",
        "reenact.actors.window:num_kept",
        always(0),
        ("test_window::test_truncation_keeps_the_beginning_and_the_end",),
    ),
    Rule(
        "Admission: truncation is told",
        "recorded as an event and visible in the result",
        "reenact.actors.sequence:_begin",
        broken.without(e.PromptTruncated),
        ("test_window::test_truncation_is_recorded", "test_metrics::test_shifts_and_truncation_are_counted"),
    ),
    Rule(
        "Admission: first come",
        "Waiting requests queue first come",
        "reenact.actors.batcher:turn",
        lambda _original: lambda work: (-work.priority, -work.sequence),
        (
            "test_batcher::test_requests_are_served_in_the_order_of_their_arrival",
            "test_priorities::test_a_higher_priority_is_admitted_first",
        ),
    ),
    Rule(
        "Admission: nobody overtakes",
        "in the order of `RequestReceived`, however long tokenizing takes",
        "reenact.actors.batcher:_in_turn",
        lambda _original: broken.overtaking,
        (
            "test_batcher::test_nobody_overtakes_even_where_slots_are_free",
            "test_priorities::test_a_request_that_is_tokenized_late_keeps_its_place",
        ),
    ),
    Rule(
        "Admission: the queue is bounded",
        "The queue is bounded, and a full queue is an immediate, typed error",
        "reenact.actors.batcher:_admit",
        broken.with_state(max_waiting=10**6),
        ("test_batcher::test_a_full_queue_refuses_at_once",),
    ),
    Rule(
        "Admission: who goes first is let in",
        "If a request comes that would be served before one that waits, the last in turn leaves the queue",
        "reenact.actors.batcher:_admit",
        broken.refused_when_full,
        (
            "test_batcher::test_a_full_queue_lets_in_who_goes_first",
            "test_batcher::test_who_leaves_for_another_is_the_youngest_of_the_lowest",
        ),
    ),
    Rule(
        "Admission: who takes no place",
        "A request that gets a slot at once, a free one or that of a lower priority, takes no place in the queue.",
        "reenact.actors.batcher:_places",
        lambda _original: lambda _state, waiting: [work for work in waiting if not work.preempted],
        (
            "test_batcher::test_who_takes_a_slot_at_once_needs_no_place",
            "test_batcher::test_free_slots_do_not_count_as_waiting",
        ),
    ),
    Rule(
        "Admission: who had a slot",
        "wait for one again take no place either, up to as many as there are slots; any more of them do",
        "reenact.actors.batcher:_excess",
        broken.had_a_slot_for_nothing,
        (
            "test_pauses::test_stalled_readers_fill_the_queue",
            "test_priorities::test_those_that_were_preempted_fill_the_queue",
        ),
    ),
]

SLOTS: Final = [
    Rule(
        "Slots and prefix reuse: slots remember",
        "A slot remembers the inputs in its cells, also after its sequence has ended.",
        "reenact.actors.batcher:_freed",
        answered(lambda slot: changed(slot, cells=NONE)),
        (
            "test_prefix::test_the_same_prompt_evaluates_one_input",
            "test_prefix::test_a_conversation_grows",
            "test_prefix::test_cells_are_kept_after_an_eog",
            "test_prefix::test_cells_are_kept_after_num_predict",
            "test_prefix::test_cells_are_kept_after_a_full_context",
            "test_prefix::test_cells_are_kept_after_a_sequences_own_fault",
        ),
    ),
    Rule(
        "Slots and prefix reuse: taking over",
        "may take over a free slot whose cells it mostly reuses (at least half of them)",
        "reenact.actors.slots:takes_over",
        lambda _original: lambda work, slot: work.inputs.common(slot.reusable) > 0,
        ("test_slots::test_a_slot_is_taken_over_if_half_of_it_is_reused",),
    ),
    Rule(
        "Slots and prefix reuse: busy slots",
        "may take over a free slot",
        "reenact.actors.slots:choose",
        asked(broken.busy_is_free),
        (
            "test_slots::test_a_busy_slot_is_not_taken_over",
            "test_batcher::test_the_third_request_waits_for_one_of_two_slots",
        ),
    ),
    Rule(
        "Slots and prefix reuse: what saves most",
        "Of all these it gets what saves most",
        "reenact.actors.slots:choose",
        lambda _original: broken.first_of_all,
        ("test_slots::test_the_slot_of_which_most_is_reused_is_taken_over",),
    ),
    Rule(
        "Slots and prefix reuse: no case hides another",
        "No case hides another.",
        "reenact.actors.slots:choose",
        broken.taken_over_first,
        ("test_slots::test_a_few_cells_in_a_free_slot_hide_no_beginning_in_a_busy_one",),
    ),
    Rule(
        "Slots and prefix reuse: forks",
        "there it may fork the common prefix of any slot, free or busy",
        "reenact.actors.slots:copied",
        always(10**9),
        (
            "test_slots::test_a_common_beginning_is_forked_from_a_free_slot",
            "test_slots::test_a_common_beginning_is_forked_from_a_busy_slot",
            "test_prefix::test_a_fork_copies_a_busy_slot",
            "test_prefix::test_a_fork_of_a_fork",
        ),
    ),
    Rule(
        "Slots and prefix reuse: what a copy costs",
        "less those that the copy costs, by the cells that are in use",
        "reenact.actors.slots:copied",
        lambda _original: lambda _n_cells, n_ctx_seq: n_ctx_seq,
        (
            "test_slots::test_a_fork_saves_more_than_its_copy_costs",
            "test_slots::test_of_several_sources_the_copy_that_saves_most_is_made",
        ),
    ),
    Rule(
        "Slots and prefix reuse: empty slots",
        "or go into an empty slot",
        "reenact.actors.slots:recency",
        lambda _original: lambda slot: slot.used if len(slot.reusable) else 10**9,
        (
            "test_slots::test_an_empty_slot_comes_before_a_used_one",
            "test_slots::test_a_slot_whose_cells_are_of_no_use_is_empty",
        ),
    ),
    Rule(
        "Slots and prefix reuse: beginnings are waited for",
        "a sequence whose turn it is waits, with a slot kept free for it, and then forks that beginning",
        "reenact.actors.schedule:awaited",
        always(None),
        (
            "test_beginnings::test_a_prompt_waits_for_its_beginning_and_forks_it",
            "test_beginnings::test_everybody_who_begins_alike_forks_at_once",
        ),
    ),
    Rule(
        "Slots and prefix reuse: a slot is kept free",
        "waits, with a slot kept free for it",
        "reenact.actors.batcher:_assign",
        lambda _original: broken.no_slot_kept,
        ("test_beginnings::test_a_slot_is_kept_free_for_who_waits",),
    ),
    Rule(
        "Slots and prefix reuse: how long a beginning is waited for",
        "It waits only if the fork saves at least as many rows as it could evaluate itself",
        "reenact.actors.schedule:awaited",
        asked(lambda inputs, choice, slots, _n_batch, n_ctx_seq: (inputs, choice, slots, len(slots), n_ctx_seq)),
        ("test_beginnings::test_a_short_beginning_is_not_waited_for",),
    ),
    Rule(
        "Slots and prefix reuse: least recently used",
        "only then into the least recently used one, by step number, never by the clock",
        "reenact.actors.slots:recency",
        lambda _original: lambda slot: 10**6 - slot.used if len(slot.reusable) else NEVER,
        (
            "test_slots::test_then_comes_the_least_recently_used_slot",
            "test_prefix::test_the_least_recently_used_slot_is_given_by_batches",
        ),
    ),
    Rule(
        "Slots and prefix reuse: equal inputs",
        "the embedding rows equal as a whole",
        "reenact.actors.inputs:Inputs.common",
        broken.by_first_digits,
        ("test_inputs::test_the_common_beginning", "test_prefix::test_rows_of_numbers_are_reused"),
    ),
    Rule(
        "Slots and prefix reuse: one input is evaluated",
        "At least one input is always evaluated, so a full hit re-evaluates its last.",
        "reenact.actors.slots:choose",
        asked(lambda work, *others: (changed(work, inputs=work.inputs.then([-99])), *others)),
        ("test_slots::test_one_input_at_least_is_evaluated",),
    ),
    Rule(
        "Slots and prefix reuse: after a successful decode",
        "KV is accounted for only after a successful decode.",
        "reenact.actors.slots:decoded",
        broken.as_if_done,
        (
            "test_prefix::test_no_cells_are_kept_after_a_decode_that_failed",
            "test_slots::test_cells_of_a_failed_decode_are_of_no_use",
        ),
    ),
    Rule(
        "Slots and prefix reuse: not in flight",
        "KV is accounted for only after a successful decode.",
        "reenact.actors.batcher:_planned",
        broken.counted_when_planned,
        ("test_prefix::test_cells_are_not_counted_in_flight",),
    ),
]

BATCH: Final = [
    Rule(
        "Batch: one kind",
        "A batch holds tokens or embeddings, never both",
        "reenact.actors.inputs:kind_of",
        always("token"),
        ("test_inputs::test_a_token_is_not_a_row", "test_kinds::test_a_prompt_of_both_kinds_is_cut_where_they_change"),
    ),
    Rule(
        "Batch: kinds take turns",
        "the keys take turns in a fixed round",
        "reenact.actors.schedule:turn_of",
        lambda _original: lambda keys, _last: min(keys, key=ROUND.index),
        ("test_kinds::test_the_kinds_take_turns",),
    ),
    Rule(
        "Batch: who generates goes first",
        "A sequence that generates gets its row in every batch of its kind, and never waits for another's prompt",
        "reenact.actors.schedule:share_rows",
        lambda _original: broken.prompts_first,
        ("test_batcher::test_a_generating_sequence_does_not_wait_for_a_prompt",),
    ),
    Rule(
        "Batch: every prompt advances",
        "prompts share the rest of the step's row budget, in turns, so that every prompt advances",
        "reenact.actors.schedule:share_rows",
        lambda _original: broken.first_rows,
        ("test_batcher::test_prompts_advance_together", "test_schedule::test_rows_are_shared_evenly"),
    ),
    Rule(
        "Batch: logits",
        "Logits are asked for only in a sequence's last row.",
        "reenact.actors.schedule:_part",
        answered(lambda part: changed(part, wants=part.wants or e.Draw(0))),
        ("test_batcher::test_a_long_prompt_goes_in_chunks",),
    ),
]

SHIFT: Final = [
    Rule(
        "Context shift: half of what is not kept",
        "`discard = max(max((n_ctx - keep) / 2, 1) - (n_ctx - length), 0)` in whole numbers",
        "reenact.actors.window:discarded",
        lambda _original: lambda n_ctx, keep, length: max(max((n_ctx - keep + 1) // 2, 1) - (n_ctx - length), 0),
        ("test_window::test_a_shift_drops_half_of_what_is_not_kept",),
    ),
    Rule(
        "Context shift: one at least",
        "`discard = max(max((n_ctx - keep) / 2, 1) - (n_ctx - length), 0)` in whole numbers",
        "reenact.actors.window:discarded",
        lambda _original: lambda n_ctx, keep, length: max((n_ctx - keep) // 2 - (n_ctx - length), 0),
        ("test_window::test_a_shift_drops_half_of_what_is_not_kept",),
    ),
    Rule(
        "Context shift: what is free counts",
        "`discard = max(max((n_ctx - keep) / 2, 1) - (n_ctx - length), 0)` in whole numbers",
        "reenact.actors.window:discarded",
        lambda _original: lambda n_ctx, keep, _length: max((n_ctx - keep) // 2, 1),
        ("test_window::test_a_shift_drops_half_of_what_is_not_kept",),
    ),
    Rule(
        "Context shift: when",
        "When the next input would not fit",
        "reenact.actors.sequence:_queue",
        broken.longer_if_full,
        (
            "test_shift::test_a_shift_comes_when_the_ninth_entry_is_needed",
            "test_shift::test_inputs_are_evaluated_again",
        ),
    ),
    Rule(
        "Context shift: moving",
        "cells `[keep, keep + discard)` go, the rest moves down",
        "reenact.actors.batcher:_shortened",
        broken.with_shift("evaluate"),
        ("test_shift::test_cells_are_moved",),
    ),
    Rule(
        "Context shift: evaluating again",
        "clear the slot and evaluate the kept inputs again",
        "reenact.actors.batcher:_shortened",
        broken.with_shift("move"),
        ("test_shift::test_inputs_are_evaluated_again", "test_shift::test_what_is_evaluated_again_goes_in_chunks"),
    ),
    Rule(
        "Context shift: moved cells are nobody else's",
        "where results must not depend on the schedule",
        "reenact.actors.slots:Slot.reusable",
        lambda _original: lambda slot: slot.cells,
        ("test_shift::test_moved_cells_are_not_reused", "test_slots::test_cells_that_were_moved_are_nobody_elses"),
    ),
    Rule(
        "Context shift: shift false",
        "With `shift` false the sequence ends with reason `context_full`",
        "reenact.actors.sequence:_go_on",
        broken.with_options(shift=True),
        (
            "test_shift::test_without_shift_a_full_context_is_the_end",
            "test_sequence::test_a_full_context_ends_the_text",
        ),
    ),
    Rule(
        "Sampling: EOG",
        "An end-of-generation token ends the sequence: not emitted, not decoded, counted.",
        "reenact.actors.sequence:_take",
        asked(lambda state, sample: (state, changed(sample, eog=False))),
        ("test_sequence::test_an_eog_token_ends_the_text", "test_sequence::test_an_eog_token_at_once_is_an_empty_text"),
    ),
]

TEXT: Final = [
    Rule(
        "Text: characters",
        "Text goes out only at a character boundary",
        "reenact.actors.text:assemble",
        lambda _original: broken.piece_by_piece,
        (
            "test_text::test_an_incomplete_character_is_held",
            "test_sequence::test_a_character_in_four_pieces_is_one_chunk",
        ),
    ),
    Rule(
        "Text: invalid bytes",
        "bytes that can never become valid are replaced by U+FFFD",
        "reenact.actors.text:assemble",
        broken.until_invalid,
        ("test_text::test_bytes_that_cannot_become_valid_are_replaced",),
    ),
    Rule(
        "Text: hold",
        "If the pending text ends with the beginning of a stop string, hold it",
        "reenact.actors.text:_beginning_of_stop",
        always(0),
        (
            "test_text::test_the_beginning_of_a_stop_string_is_held",
            "test_sequence::test_a_stop_string_in_many_pieces_never_leaves",
            "test_sequence::test_what_was_held_in_vain_goes_out_in_one_chunk",
        ),
    ),
    Rule(
        "Text: cut",
        "when a stop string is complete, cut before it, emit the rest, end",
        "reenact.actors.text:first_stop",
        always(None),
        (
            "test_text::test_a_stop_string_cuts_the_text",
            "test_sequence::test_text_before_a_stop_string_goes_out_with_it",
        ),
    ),
    Rule(
        "Text: the first to be complete",
        "the stop whose last byte comes first wins",
        "reenact.actors.text:first_stop",
        lambda _original: broken.stop_of_the_list,
        ("test_text::test_a_stop_string_cuts_the_text",),
    ),
    Rule(
        "Text: then the earlier start",
        "then the one that starts earlier",
        "reenact.actors.text:first_stop",
        lambda _original: broken.last_start,
        ("test_text::test_a_stop_string_cuts_the_text",),
    ),
    Rule(
        "Text: held text at the end",
        "When a sequence ends for any other reason, held text goes out first.",
        "reenact.actors.text:release",
        always(""),
        (
            "test_sequence::test_held_text_goes_out_at_the_end",
            "test_sequence::test_held_text_goes_out_when_the_context_is_full",
            "test_kernel::test_cancel_while_text_is_held",
            "test_kernel::test_a_deadline_ends_the_text",
            "test_faults::test_nan_concerns_one_sequence",
        ),
    ),
    Rule(
        "Text: empty stop strings",
        "An empty stop string is an error.",
        "reenact.actors.options:Options.__init__",
        broken.empty_stops_forgotten,
        ("test_options::test_a_wrong_value_is_refused_by_name",),
    ),
    Rule(
        "After a stop string: what is visible stays",
        "The slot keeps the evaluated inputs whose pieces are wholly part of the visible text.",
        "reenact.actors.text:hidden",
        always(0),
        (
            "test_prefix::test_after_a_stop_string_what_is_visible_is_kept",
            "test_text::test_a_token_that_is_cut_anywhere_is_hidden",
        ),
    ),
]

ENDS: Final = [
    Rule(
        "Ends: a deadline counts from when it is asked",
        "A deadline counts from when the request is asked for",
        "reenact.runtime.session:_due",
        lambda original: lambda options, _since: original(options, trio.current_time()),
        ("tests/runtime/test_requests.py::test_a_deadline_counts_the_check_of_a_grammar",),
    ),
    Rule(
        "Ends: exactly one",
        "Exactly one of: `stop` (with `eog` or which string), `length` (`num_predict`)",
        "reenact.actors.sequence:decide",
        broken.with_state(finish_reason=None),
        ("test_sequence::test_an_ended_sequence_decides_nothing",),
    ),
    Rule(
        "Ends: num_predict",
        "`length` (`num_predict`)",
        "reenact.actors.sequence:num_predicted",
        always(10**9),
        ("test_sequence::test_num_predict_ends_the_text", "test_prefix::test_cells_are_kept_after_num_predict"),
    ),
    Rule(
        "Ends: num_predict 0",
        "`num_predict` 0 ends at once with no text",
        "reenact.actors.sequence:_begin",
        broken.with_options(num_predict=1),
        ("test_sequence::test_num_predict_0_ends_at_once",),
    ),
    Rule(
        "Ends: num_predict -1",
        "`length` (`num_predict`)",
        "reenact.actors.sequence:num_predicted",
        lambda _original: lambda num_predict, n_ctx: num_predict if num_predict >= 0 else 9 * n_ctx,
        ("test_shift::test_a_request_without_a_limit_generates_ten_contexts",),
    ),
    Rule(
        "Ends: deadline",
        "`deadline`",
        "reenact.actors.sequence:decide",
        broken.deaf_to(e.DeadlineExpired),
        ("test_kernel::test_a_deadline_ends_the_text", "test_kernel::test_a_deadline_of_who_waits"),
    ),
    Rule(
        "Cancelling: between any two decodes",
        "Takes effect between any two decodes",
        "reenact.actors.sequence:decide",
        broken.deaf_to(e.CancelRequested),
        (
            "test_kernel::test_cancel_while_queued",
            "test_kernel::test_cancel_before_the_prompt_is_tokenized",
            "test_kernel::test_cancel_while_generating",
        ),
    ),
    Rule(
        "Cancelling: inside a prefill",
        "inside a long prefill",
        "reenact.actors.batcher:_abort",
        always([]),
        ("test_abort::test_a_prefill_that_nobody_waits_for_is_aborted",),
    ),
    Rule(
        "Cancelling: the prefix stays",
        "what was prefilled stays as a reusable prefix",
        "reenact.actors.batcher:_freed",
        answered(lambda slot: changed(slot, cells=NONE)),
        (
            "test_prefix::test_cells_are_kept_after_a_cancel_in_prefill",
            "test_prefix::test_cells_are_kept_after_a_cancel_while_generating",
            "test_prefix::test_cells_are_kept_after_a_cancel_while_text_is_held",
        ),
    ),
    Rule(
        "Cancelling: after an abort",
        "Takes effect between any two decodes and inside a long prefill",
        "reenact.actors.slots:decoded",
        broken.all_that_was_reached,
        (
            "test_slots::test_after_an_abort_the_last_input_is_evaluated_again",
            "test_abort::test_after_an_abort_the_last_input_is_evaluated_again",
        ),
    ),
    Rule(
        "Cancelling: a stalled reader",
        "A reader that stops reading pauses only its own sequence",
        "reenact.actors.sequence:_go_on",
        broken.with_state(reader_paused=False),
        ("test_kernel::test_a_paused_reader_stops_nobody_else",),
    ),
    Rule(
        "Cancelling: a slot is given up",
        "Paused for longer than `max_pause`, it gives up its slot",
        "reenact.actors.batcher:_yield",
        always([]),
        (
            "test_pauses::test_who_is_paused_for_too_long_gives_up_the_slot",
            "test_pauses::test_two_stalled_readers_do_not_stop_two_slots",
        ),
    ),
    Rule(
        "Cancelling: goes on with the same text",
        "goes on with the same text when its reader does",
        "reenact.actors.batcher:_freed",
        lambda _original: lambda slot: Slot(used=slot.used),
        ("test_pauses::test_who_is_paused_for_too_long_gives_up_the_slot",),
    ),
    Rule(
        "Cancelling: nobody else's",
        "and holds up nobody else",
        "reenact.actors.batcher:_in_turn",
        broken.unread,
        ("test_priorities::test_a_paused_sequence_that_made_room_holds_nobody_up",),
    ),
]

FAULTS: Final = [
    Rule(
        "Faults: a decode that failed",
        "a code below -1 all sequences of the batch",
        "reenact.actors.batcher:_commit",
        broken.without(e.BatchFailed),
        ("test_abort::test_an_abort_excuses_no_other_code",),
    ),
    Rule(
        "Faults: the others",
        "leaves the others untouched",
        "reenact.actors.batcher:_commit",
        broken.everybody_fails,
        ("test_faults::test_a_failed_decode_ends_the_sequences_of_its_batch",),
    ),
    Rule(
        "Faults: NaN",
        "NaN logits or a bad grammar concern one sequence",
        "reenact.actors.sequence:_take",
        asked(lambda state, sample: (state, changed(sample, fault=None))),
        ("test_faults::test_nan_concerns_one_sequence", "test_faults::test_a_grammars_dead_end_concerns_one_sequence"),
    ),
    Rule(
        "Faults: an engine without a token",
        "If the engine has no token or no vector for a request, only that request fails, with the engine's own message",
        "reenact.actors.sequence:_take",
        asked(lambda state, sample: (state, changed(sample, reason=None))),
        ("test_faults::test_an_engine_without_a_token_concerns_one_sequence",),
    ),
    Rule(
        "Faults: codes 1 and -1",
        "code 1 (no room) or -1 (invalid batch) means that our picture of the cells is wrong",
        "reenact.actors.batch:failure",
        answered(lambda failure: changed(failure, kind="sequence_failed")),
        ("test_faults::test_a_failed_decode_ends_the_sequences_of_its_batch",),
    ),
    Rule(
        "Faults: an abort unasked",
        "A decode fault ends the sequences concerned with a typed error",
        "reenact.actors.batcher:_commit",
        broken.with_flight(stage="aborted"),
        ("test_faults::test_a_failed_decode_ends_the_sequences_of_its_batch",),
    ),
    Rule(
        "Faults: an abort asked for",
        "leaves the others untouched",
        "reenact.actors.batcher:_commit",
        broken.with_flight(stage="landed"),
        ("test_abort::test_after_an_abort_the_others_go_on",),
    ),
    Rule(
        "Faults: positions",
        "our picture of the cells is wrong",
        "reenact.actors.batch:contradiction",
        always(None),
        ("test_batcher::test_an_outcome_that_is_not_the_plans_is_refused",),
    ),
    Rule(
        "Faults: priorities",
        "serves priorities only",
        "reenact.actors.batcher:_admit",
        answered(
            lambda events: [changed(one, priority=0) if isinstance(one, e.RequestQueued) else one for one in events]
        ),
        (
            "test_priorities::test_a_higher_priority_is_admitted_first",
            "test_priorities::test_the_youngest_of_a_lower_priority_makes_room",
        ),
    ),
    Rule(
        "Faults: preempting the youngest",
        "the youngest of a lower priority",
        "reenact.actors.batcher:preempted",
        lambda _original: broken.oldest,
        (
            "test_priorities::test_the_youngest_of_a_lower_priority_makes_room",
            "test_priorities::test_who_is_chosen_to_make_room",
        ),
    ),
    Rule(
        "Faults: nobody of an equal priority",
        "of a lower priority",
        "reenact.actors.batcher:preempted",
        asked(lambda work, slots: (changed(work, priority=work.priority + 1), slots)),
        ("test_priorities::test_who_is_chosen_to_make_room",),
    ),
    Rule(
        "Faults: outside the limit",
        "the preempted waits again (see Admission)",
        "reenact.actors.batcher:_admit",
        broken.preempted_counted,
        ("test_priorities::test_who_made_room_waits_outside_the_limit",),
    ),
    Rule(
        "Faults: evaluated again",
        "and is evaluated again",
        "reenact.actors.batcher:_assigned",
        broken.as_evaluated,
        (
            "test_priorities::test_what_was_preempted_is_evaluated_again",
            "test_priorities::test_who_made_room_goes_on_as_if_nothing_had_been",
        ),
    ),
]

EMBEDDINGS: Final = [
    Rule(
        "Embeddings: normalized",
        "Pooled, L2-normalized",
        "reenact.actors.sequence:normalized",
        lambda _original: lambda values, dimensions: values[:dimensions],
        ("test_embedding::test_a_vector_has_length_1", "test_embedding::test_a_text_becomes_a_vector"),
    ),
    Rule(
        "Embeddings: zeros",
        "a zero vector stays zero",
        "reenact.actors.sequence:normalized",
        answered(lambda values: values if any(values) else (1.0, *values[1:])),
        ("test_embedding::test_a_vector_has_length_1",),
    ),
    Rule(
        "Embeddings: NaN",
        "NaN or infinity is an error",
        "reenact.actors.sequence:_pool",
        asked(lambda state, vector: (state, changed(vector, values=vector.values or (1.0,)))),
        ("test_embedding::test_a_vector_with_nan_is_an_error",),
    ),
    Rule(
        "Embeddings: dimensions",
        "optional first `dimensions` values, normalized again",
        "reenact.actors.sequence:normalized",
        lambda original: lambda values, dimensions: original(values, None)[:dimensions],
        (
            "test_embedding::test_a_vector_is_cut_to_the_dimensions_asked_for",
            "test_embedding::test_a_vector_has_length_1",
        ),
    ),
    Rule(
        "Embeddings: too long",
        "Too long: truncate, or an error if told not to.",
        "reenact.actors.window:num_kept",
        broken.kept(num_keep=lambda asked_for, _: max(asked_for, 0)),
        ("test_embedding::test_a_text_is_never_chunked", "test_embedding::test_num_keep_does_not_matter_to_a_vector"),
    ),
    Rule(
        "Embeddings: never chunked",
        "A model that attends both ways is never chunked",
        "reenact.actors.sequence:received",
        lambda original: lambda request, context: changed(original(request, context), n_ctx=context.n_ctx),
        ("test_embedding::test_a_text_is_never_chunked",),
    ),
    Rule(
        "Embeddings: one text a decode",
        "where results must not depend on neighbours it gets one text a decode",
        "reenact.actors.schedule:fitting",
        lambda original: lambda runs, n_batch, *, alone: original(runs, n_batch, alone=alone and False),
        ("test_embedding::test_one_text_a_batch_where_neighbours_matter",),
    ),
    Rule(
        "Embeddings: several texts a decode",
        "where results must not depend on neighbours",
        "reenact.actors.schedule:fitting",
        lambda original: lambda runs, n_batch, *, alone: original(runs, n_batch, alone=alone or True),
        ("test_embedding::test_several_texts_a_batch_where_they_do_not",),
    ),
    Rule(
        "Embeddings: no cells",
        "Pooled",
        "reenact.actors.slots:decoded",
        broken.pooled_cells,
        ("test_embedding::test_a_text_finds_and_leaves_no_cells",),
    ),
]

RESULT: Final = [
    Rule(
        "Result: how it ended",
        "Text, tokens, finish reason, seed, prompt tokens",
        "reenact.actors.sequence:_finished",
        answered(lambda end: changed(end, n_prompt=0)),
        ("test_sequence::test_an_eog_token_ends_the_text", "test_window::test_truncation_is_recorded"),
    ),
    Rule(
        "Result: the prefix cache",
        "(in all, and from the prefix cache)",
        "reenact.actors.metrics:Metrics._of_scheduling",
        lambda original: (
            lambda self, event, t: original(
                self, changed(event, reused=0) if isinstance(event, e.SlotAssigned) else event, t
            )
        ),
        ("test_metrics::test_reuse_is_counted",),
    ),
    Rule(
        "Result: times",
        "times for queueing, prefill, first token and generation",
        "reenact.actors.metrics:Metrics._decoded",
        asked(lambda self, event, _t: (self, event, 0)),
        ("test_metrics::test_the_times_of_a_request",),
    ),
    Rule(
        "Result: truncated and shifted",
        "what was truncated, how many shifts",
        "reenact.actors.metrics:Metrics._of_scheduling",
        lambda original: (
            lambda self, event, t: (
                None if isinstance(event, e.PromptTruncated | e.ContextShifted) else original(self, event, t)
            )
        ),
        ("test_metrics::test_shifts_and_truncation_are_counted",),
    ),
]

CASES: Final = [
    Rule(
        "Case: shift amounts",
        "(2048, 5, 2048 -> 1021), (2048, 2047, 2048 -> 1), (2048, 0, 2048 -> 1024)",
        "reenact.actors.window:discarded",
        answered(lambda discard: max(discard - 1, 0)),
        ("test_window::test_a_shift_drops_half_of_what_is_not_kept",),
    ),
    Rule(
        "Case: truncation",
        "10 inputs into 8",
        "reenact.actors.window:truncated",
        answered(lambda discard: discard and discard + 1),
        ("test_window::test_truncation_keeps_the_beginning_and_the_end",),
    ),
    Rule(
        "Case: common prefix",
        "[1 2 3] and [1 2 3] -> 3",
        "reenact.actors.inputs:Inputs.common",
        answered(lambda common: max(common - 1, 0)),
        ("test_inputs::test_the_common_beginning",),
    ),
    Rule(
        "Case: stops",
        "Stops (pieces / stop -> text)",
        "reenact.actors.text:first_stop",
        answered(lambda match: match and (match[0] + 1, match[1])),
        ("test_text::test_a_stop_string_cuts_the_text",),
    ),
    Rule(
        "Case: hold",
        "`Hello</p` releases",
        "reenact.actors.text:_beginning_of_stop",
        answered(lambda length: length + 1),
        ("test_text::test_the_beginning_of_a_stop_string_is_held",),
    ),
    Rule(
        "Case: UTF-8",
        "C2; E0; E0 A0; F0; F0 92; F0 92 8A hold.",
        "reenact.actors.text:assemble",
        lambda _original: broken.piece_by_piece,
        ("test_text::test_an_incomplete_character_is_held", "test_text::test_a_complete_character_goes_out"),
    ),
    Rule(
        "Case: an end of its own",
        '"ab", `stop`/eog, 3 prompt, 3 sampled, 2 emitted, slot holds 5',
        "reenact.actors.sequence:_finished",
        answered(lambda end: changed(end, n_sampled=end.n_sampled - 1)),
        ("test_sequence::test_an_eog_token_ends_the_text",),
    ),
    Rule(
        "Case: num_predict 2",
        '"ab", `length`; slot holds prompt + a',
        "reenact.actors.batcher:_let_go",
        answered(broken.released_empty),
        ("test_prefix::test_cells_are_kept_after_num_predict", "test_prefix::test_cells_are_kept_after_an_eog"),
    ),
    Rule(
        "Case: a stop string in pieces",
        '"x"; nothing from `<` on ever leaves',
        "reenact.actors.text:_beginning_of_stop",
        always(0),
        ("test_sequence::test_a_stop_string_in_many_pieces_never_leaves",),
    ),
    Rule(
        "Case: held in vain",
        '"x", then "<p" in one chunk after the third token',
        "reenact.actors.text:assemble",
        asked(lambda _held, _held_by, piece, stops: (b"", (), piece, stops)),
        ("test_sequence::test_what_was_held_in_vain_goes_out_in_one_chunk",),
    ),
    Rule(
        "Case: a character in four pieces",
        "one chunk, the 4-byte character, after the fourth",
        "reenact.actors.text:assemble",
        asked(lambda _held, _held_by, piece, stops: (b"", (), piece, stops)),
        ("test_sequence::test_a_character_in_four_pieces_is_one_chunk",),
    ),
    Rule(
        "Case: the ninth entry",
        "shift when the ninth entry is needed: discard 2; then every 2 tokens",
        "reenact.actors.window:discarded",
        always(1),
        ("test_shift::test_a_shift_comes_when_the_ninth_entry_is_needed",),
    ),
    Rule(
        "Case: shift false",
        "ends `context_full`",
        "reenact.actors.sequence:_go_on",
        answered(broken.ends_with_length),
        (
            "test_shift::test_without_shift_a_full_context_is_the_end",
            "test_sequence::test_a_full_context_ends_the_text",
        ),
    ),
    Rule(
        "Case: three requests",
        "the third starts when one ends",
        "reenact.actors.batcher:_let_go",
        broken.without(e.SlotReleased),
        ("test_batcher::test_the_third_request_waits_for_one_of_two_slots",),
    ),
    Rule(
        "Case: the same prompt twice",
        "the second evaluates one input",
        "reenact.actors.slots:choose",
        lambda _original: broken.first_of_all,
        ("test_prefix::test_the_same_prompt_evaluates_one_input",),
    ),
    Rule(
        "Case: a conversation",
        "the prefix is the old prompt and the generated text",
        "reenact.actors.batcher:_freed",
        answered(lambda slot: changed(slot, cells=slot.cells.first(3))),
        ("test_prefix::test_a_conversation_grows",),
    ),
    Rule(
        "Case: cancel",
        "slot free afterwards, others' output unchanged",
        "reenact.actors.batcher:_let_go",
        broken.without(e.SlotReleased, e.RequestWithdrawn),
        (
            "test_kernel::test_cancel_while_queued",
            "test_kernel::test_cancel_in_prefill",
            "test_kernel::test_cancel_while_generating",
            "test_kernel::test_cancel_while_text_is_held",
        ),
    ),
    Rule(
        "Case: a consumer that never reads",
        "the others go on",
        "reenact.actors.batcher:proceed",
        broken.all_or_none,
        ("test_kernel::test_a_paused_reader_stops_nobody_else",),
    ),
    Rule(
        "Case: faults",
        "only the sequences concerned end, each with a typed error",
        "reenact.actors.sequence:failed",
        answered(lambda end: changed(end, error=None)),
        (
            "test_faults::test_a_failed_decode_ends_the_sequences_of_its_batch",
            "test_faults::test_nan_concerns_one_sequence",
            "test_faults::test_a_grammars_dead_end_concerns_one_sequence",
        ),
    ),
]

SHELL_AND_ENGINE: Final = [
    Rule(
        "Admission: special tokens",
        "Tokenize with special tokens parsed and BOS added if the vocabulary wants it.",
        "reenact.runtime.llama.engine:LlamaEngine.tokenize",
        lambda original: lambda self, text, *, after=0: original(self, text, after=after),
        ("tests/runtime/llama/test_engine.py::test_special_tokens_are_added_where_they_are_wanted",),
    ),
    Rule(
        "Admission: a text that goes on",
        "a text that goes on from rows or from any other token of a chat has none",
        "reenact.runtime.llama.vocabulary:Vocabulary._going_on",
        lambda _original: lambda self, text, *, parsed: self._tokens(text, special=False, parsed=parsed),
        ("tests/runtime/llama/test_vocabulary.py::test_a_chat_that_goes_on_is_the_chat_afresh",),
    ),
    Rule(
        "Admission: behind a special token",
        "also where a chat goes on from such a token",
        "reenact.runtime.llama.vocabulary:Vocabulary._is_special",
        always(value=False),
        ("tests/runtime/llama/test_vocabulary.py::test_a_chat_goes_on_from_a_special_token",),
    ),
    Rule(
        "Admission: texts of a list",
        "Texts of a list that follow one another are one text.",
        "reenact.runtime.runtime:pieces_of",
        lambda _original: lambda prompt, _context: [prompt] if isinstance(prompt, str) else list(prompt),
        ("tests/runtime/llama/test_vocabulary.py::test_texts_of_a_list_are_one_text",),
    ),
    Rule(
        "Chats: text of messages is text",
        "special tokens are parsed where the template wrote them, and nowhere else",
        "reenact.runtime.llama.template:said_runs",
        always(()),
        ("tests/model/test_chat.py::test_a_message_cannot_close_its_own_turn",),
    ),
    Rule(
        "Chats: whatever is done with it",
        "whatever the template does with the text",
        "reenact.runtime.llama.template:of_a_message",
        lambda _original: broken.only_noticed,
        ("tests/runtime/llama/test_template.py::test_special_tokens_are_the_templates_own",),
    ),
    Rule(
        "Chats: user-defined markers",
        "those that the template writes as markers are kept from being found in messages",
        "reenact.runtime.llama.template:_written",
        always(""),
        ("tests/runtime/llama/test_vocabulary.py::test_user_defined_markers_are_the_templates_own",),
    ),
    Rule(
        "Chats: hidden text",
        "a message with the text of a special token is an error",
        "reenact.runtime.llama.template:_texts",
        always(()),
        ("tests/runtime/llama/test_template.py::test_a_template_that_hides_whose_text_is_whose",),
    ),
    Rule(
        "Chats: whole messages",
        "A chat that does not fit loses whole messages, oldest first",
        "reenact.runtime.fitting:units",
        always([]),
        (
            "tests/runtime/test_fitting.py::test_what_goes_together",
            "tests/runtime/test_fitting.py::test_a_chat_that_grows_loses_its_oldest_messages",
        ),
    ),
    Rule(
        "Chats: what stays",
        "system messages and the last message stay",
        "reenact.runtime.fitting:_groups",
        lambda original: lambda messages, places, role: [*original(messages, places, role), []],
        ("tests/runtime/test_fitting.py::test_what_stays_is_a_chat",),
    ),
    Rule(
        "Chats: what goes together",
        "a question goes with all that answers",
        "reenact.runtime.fitting:_groups",
        lambda original: lambda messages, places, _role: original(messages, places, None),
        ("tests/runtime/test_fitting.py::test_what_goes_together",),
    ),
    Rule(
        "Chats: the same ones",
        "the one that the largest power of two divides is taken",
        "reenact.runtime.fitting:roundest",
        lambda _original: lambda low, _high: low,
        ("tests/runtime/test_fitting.py::test_turns_after_a_cut_begin_alike",),
    ),
    Rule(
        "Chats: nothing else matters",
        "What goes follows from the messages and the options alone",
        "reenact.runtime.runtime:fit",
        broken.less_room_for_who_comes_again,
        ("tests/runtime/test_fitting.py::test_a_chat_that_goes_on_loses_what_it_would_lose_afresh",),
    ),
    Rule(
        "Chats: the end of the last message",
        "Where what must stay does not fit, the last message loses its beginning",
        "reenact.runtime.fitting:_Fitting.left",
        lambda original: lambda self, n_steps: original(self, min(n_steps, len(self._units))),
        ("tests/runtime/test_fitting.py::test_a_last_message_that_does_not_fit_keeps_its_end",),
    ),
    Rule(
        "Chats: the system part",
        "Where the caller gives no `num_keep`, it is what comes before the first message that is no system message",
        "reenact.runtime.fitting:_n_leading",
        lambda _original: broken.nothing_leads,
        ("tests/runtime/test_fitting.py::test_a_long_answer_keeps_the_system_message",),
    ),
    Rule(
        "Chats: truncate false",
        "With `truncate` false",
        "reenact.runtime.runtime:fit",
        lambda original: (
            lambda session, chats, messages, options, **asked: original(
                session, chats, messages, changed(options, truncate=True), **asked
            )
        ),
        ("tests/runtime/test_fitting.py::test_who_forbids_truncation_is_told",),
    ),
    Rule(
        "Text: special tokens",
        "The piece of a special token that ends nothing is its text",
        "reenact.runtime.llama.sampler:piece_of",
        lambda original: lambda vocabulary, token, *, special: original(vocabulary, token, special=special and False),
        ("tests/model/test_chat.py::test_a_special_token_is_part_of_the_text",),
    ),
    Rule(
        "Admission: the penalty window",
        "The penalty window sees the prompt's tokens.",
        "reenact.runtime.llama.sampler:_window",
        asked(lambda drawing, length: (changed(drawing, prompt=()), length)),
        ("tests/runtime/llama/test_sampler.py::test_the_window_is_exactly_as_long_as_asked",),
    ),
    Rule(
        "Sampling: its own row",
        "From the sequence's own row",
        "reenact.runtime.llama.sampler:Sampler.draw",
        broken.first_row,
        ("tests/runtime/engine/test_engines.py::test_company_and_slot_change_nothing[llama]",),
    ),
    Rule(
        "Sampling: its own chain",
        "with the chain of its options",
        "reenact.runtime.llama.sampler:Sampler._chain",
        asked(lambda self, options: (self, changed(options, typical_p=1.0))),
        (
            "tests/runtime/llama/test_sampler.py::test_typical_p_leaves_out_the_likeliest_token_where_it_says_too_little",
        ),
    ),
    Rule(
        "Sampling: the draw",
        "the draw depends on the seed and the token's index only",
        "reenact.runtime.engine.draw_key:draw_key",
        lambda original: lambda seed, _index, attempt=0: original(seed, 0, attempt),
        ("tests/runtime/llama/test_sampler.py::test_a_draw_depends_on_seed_and_index_only",),
    ),
    Rule(
        "Sampling: the grammar",
        "A grammar is tested on the sampled token first.",
        "reenact.runtime.llama.sampler:Sampler._token",
        asked(lambda self, row, logits, part, drawing: (self, row, logits, part, changed(drawing, grammar=None))),
        ("tests/runtime/llama/test_sampler.py::test_a_text_has_the_form_of_its_grammar",),
    ),
    Rule(
        "Sampling: whole characters",
        "never bytes that are no UTF-8",
        "reenact.runtime.grammar.automaton:Automaton._add_bytes",
        broken.any_continuation,
        ("tests/runtime/llama/test_grammar_states.py::test_two_bytes_that_begin_no_text_are_refused",),
    ),
    Rule(
        "Sampling: what a grammar costs",
        "that can be followed in too many ways ends its sequence",
        "reenact.runtime.llama.grammar_states:TokenWork.take",
        always(None),
        ("tests/runtime/llama/test_sampler.py::test_a_grammar_with_too_many_readings_is_given_up",),
    ),
    Rule(
        "Sampling: what fits a schema",
        "A schema is either refused, with the place and the cure, or each text that ends fits it.",
        "reenact.runtime.grammar.ranges:numbers",
        answered(lambda found: found or '""'),
        ("tests/runtime/grammar/test_json_schema.py::test_what_cannot_be_kept_is_refused",),
    ),
    Rule(
        "Cancelling: inside a long prefill",
        "Takes effect between any two decodes and inside a long prefill",
        "reenact.runtime.llama.abort:AbortFlag.ask",
        always(value=None),
        ("tests/runtime/llama/test_engine.py::test_a_long_prefill_stops_soon",),
    ),
    Rule(
        "Cancelling: readers",
        "A reader that stops reading pauses only its own sequence after a bounded number of chunks",
        "reenact.runtime.request:Request._unread",
        always(value=0),
        ("tests/runtime/test_runtime.py::test_a_reader_who_stops_pauses_only_himself",),
    ),
    Rule(
        "Result: tokens",
        "Text, tokens, finish reason, seed",
        "reenact.runtime.request:Request.finish",
        lambda original: lambda self, event, *rest: original(self, changed(event, n_hidden=0), *rest),
        ("tests/runtime/test_requests.py::test_tokens_that_a_stop_string_cut_are_not_told",),
    ),
]

LOG: Final = [
    Rule(
        "Log: refused requests",
        "A request that is refused before it has a number is a fact",
        "reenact.runtime.session:Session._refuse",
        always(value=None),
        (
            "tests/runtime/test_requests.py::test_a_refused_request_is_a_fact",
            "tests/runtime/test_requests.py::test_a_grammar_that_cannot_be_checked_is_a_fact",
        ),
    ),
    Rule(
        "Log: what a value raised",
        "the record holds only its type",
        "reenact.actors.errors:InvalidRequest.__init__",
        broken.recorded_whole,
        (
            "tests/runtime/test_reading.py::test_what_a_value_raised_is_for_its_caller",
            "tests/runtime/llama/test_template.py::test_what_a_template_says_is_for_its_caller",
        ),
    ),
    Rule(
        "Log: only one writer",
        "A session is the only writer of its log",
        "reenact.runtime.log.own_file:OwnFile._touched",
        always(value=None),
        (
            "tests/runtime/log/test_writer.py::test_what_others_do_to_a_log_is_noticed",
            "tests/runtime/test_runtime.py::test_a_log_that_is_deleted_ends_everybody",
        ),
    ),
    Rule(
        "Log: an empty file",
        "An empty file is taken over, unless another session holds it",
        "reenact.runtime.log.own_file:held",
        always(value=True),
        ("tests/runtime/log/test_writer.py::test_an_empty_file_of_another_session_is_not",),
    ),
    Rule(
        "Log: settings",
        "or the log is corrupt",
        "reenact.runtime.log.reader:beyond",
        # Without any test of the slots a header takes all memory.
        answered(lambda wrong: wrong if wrong and wrong.startswith("n_slots") else None),
        ("tests/replay/test_hostile.py::test_settings_that_no_session_has",),
    ),
    Rule(
        "Log: nothing raw",
        "it reaches a terminal escaped",
        "reenact.runtime.terminal:visible",
        lambda _original: str,
        (
            "tests/replay/cli/test_visible.py::test_a_line_is_a_line",
            "tests/replay/cli/test_visible.py::test_errors_are_told_on_one_line",
            "tests/replay/cli/test_visible.py::test_all_that_cannot_be_seen_is_escaped",
        ),
    ),
]

RULES: Final = [
    *ADMISSION,
    *SLOTS,
    *BATCH,
    *SHIFT,
    *TEXT,
    *ENDS,
    *FAULTS,
    *EMBEDDINGS,
    *RESULT,
    *SHELL_AND_ENGINE,
    *LOG,
    *CASES,
]
