"""Bugs such as people make, each of which a property test must find: ``make mutants`` plants one after the other.

They are not the rules of the document (`tests.mutants.rules.table`), which unit tests hold: here nobody says which test
is to notice. To add one, name a function, and write what a tired programmer would have written in its place.
"""

from typing import Final

from attrs import evolve as changed

from reenact.actors import events as e
from reenact.actors.slots import NEVER
from tests.mutants.bugs import mistakes
from tests.mutants.change import Planted, always, answered, asked
from tests.mutants.rules import broken

TEXTS: Final = [
    Planted(
        "hold-back lost at EOG",
        "Text that is held back is forgotten when the model ends.",
        "reenact.actors.sequence:_take",
        mistakes.at_the_end(e.EogSampled, text=""),
    ),
    Planted(
        "hold-back lost at the limit",
        "Text that is held back is forgotten when num_predict is reached.",
        "reenact.actors.sequence:_go_on",
        mistakes.at_the_end(e.SequenceFinished, text=""),
    ),
    Planted(
        "stop test before the flush",
        "What was held back before a stop string never goes out.",
        "reenact.actors.text:assemble",
        mistakes.before_the_flush,
    ),
    Planted(
        "stop string in pieces",
        "A stop string that comes in several pieces is not seen.",
        "reenact.actors.text:assemble",
        mistakes.within_a_piece,
    ),
    Planted(
        "hold-back off by one",
        "One byte less is held than may become a stop string.",
        "reenact.actors.text:_beginning_of_stop",
        answered(lambda length: max(length - 1, 0)),
    ),
    Planted(
        "stop strings in the order of the list",
        "Of two stop strings the first of the list wins, also where the other one is complete before it.",
        "reenact.actors.text:first_stop",
        lambda _original: broken.stop_of_the_list,
    ),
    Planted(
        "bytes lost at the end",
        "Half a character at the end of a text is left out.",
        "reenact.actors.text:release",
        lambda _original: lambda held: held.decode("utf-8", "ignore"),
    ),
    Planted(
        "hidden tokens off by one",
        "A slot keeps a token of which a stop string cut a part.",
        "reenact.actors.text:hidden",
        answered(lambda count: max(count - 1, 0)),
    ),
]

SEQUENCES: Final = [
    Planted(
        "limit off by one",
        "A request samples one token more than num_predict.",
        "reenact.actors.sequence:num_predicted",
        answered(lambda limit: limit + 1),
    ),
    Planted(
        "keep off by one",
        "One input less than num_keep is kept, and so no BOS.",
        "reenact.actors.window:num_kept",
        answered(lambda keep: max(keep - 1, 0)),
    ),
    Planted(
        "the whole prompt and one more",
        "Where a BOS was added num_keep -1 keeps an input behind the prompt.",
        "reenact.actors.window:num_kept",
        lambda original: (
            lambda num_keep, n_prompt, n_ctx, *, bos_added: original(
                n_prompt if num_keep < 0 else num_keep, n_prompt, n_ctx, bos_added=bos_added
            )
        ),
    ),
    Planted(
        "questions without their answers",
        "Of a chat that is too long questions are left out, and their answers stay.",
        "reenact.runtime.fitting:units",
        answered(lambda units: [unit[:1] for unit in units]),
    ),
    Planted(
        "the beginning of the last message",
        "Of a last message that is too long the beginning is kept, and not the end.",
        "reenact.runtime.fitting:_Fitting.left",
        mistakes.beginning_of_the_last,
    ),
    Planted(
        "shift of a whole context",
        "A shift drops half of the context, not half of what is not kept.",
        "reenact.actors.window:discarded",
        asked(lambda n_ctx, _keep, length: (n_ctx, 0, length)),
    ),
    Planted(
        "shift one input late",
        "A context is shifted when it holds one input more than there are cells.",
        "reenact.actors.sequence:_queue",
        lambda original: lambda state, *rest, **named: original(changed(state, n_ctx=state.n_ctx + 1), *rest, **named),
    ),
    Planted(
        "truncation of the end",
        "Of a prompt that is too long the beginning is evaluated.",
        "reenact.actors.sequence:_begin",
        mistakes.the_beginning,
    ),
    Planted(
        "reader not waited for",
        "A sequence goes on though its reader does not.",
        "reenact.actors.sequence:_go_on",
        broken.with_state(reader_paused=False),
    ),
    Planted(
        "deadline of a paused sequence ignored",
        "A deadline ends nobody who waits for a reader.",
        "reenact.actors.sequence:decide",
        mistakes.paused_is_not_late,
    ),
    Planted(
        "NaN as an end",
        "A token that cannot be drawn ends the text as if the model had.",
        "reenact.actors.sequence:_take",
        mistakes.nan_is_an_end,
    ),
    Planted(
        "first values forgotten",
        "An embedding is cut to its dimensions, and its length is that of the whole.",
        "reenact.actors.sequence:normalized",
        lambda original: lambda values, dimensions: original(values, None)[:dimensions],
    ),
]

SLOTS: Final = [
    Planted(
        "position after a shift",
        "The rows behind a shift stand one position too far on.",
        "reenact.actors.batcher:_shortened",
        mistakes.after_a_shift,
    ),
    Planted(
        "duplicate emit after a preemption",
        "Who was preempted draws his last token once more.",
        "reenact.actors.batcher:evolve",
        mistakes.drawn_again,
    ),
    Planted(
        "slot kept on cancel",
        "The slot of a request that is cancelled is never free again.",
        "reenact.actors.batcher:_let_go",
        mistakes.kept_on_cancel,
    ),
    Planted(
        "missing removal after an aborted decode",
        "Cells that an aborted decode left stay where the next rows come.",
        "reenact.actors.slots:decoded",
        mistakes.not_removed,
    ),
    Planted(
        "last row of an aborted decode",
        "A row counts as evaluated though its logits are gone.",
        "reenact.actors.slots:decoded",
        broken.all_that_was_reached,
    ),
    Planted(
        "cells counted when planned",
        "Rows are taken for cells before the engine has evaluated them.",
        "reenact.actors.batcher:_planned",
        broken.counted_when_planned,
    ),
    Planted(
        "rows of a failed batch",
        "All rows of a batch are taken for cells, also where it failed.",
        "reenact.actors.slots:decoded",
        broken.as_if_done,
    ),
    Planted(
        "cells of a failed batch",
        "A slot that a batch failed in still waits for its cells to be moved.",
        "reenact.actors.slots:unknown",
        lambda _original: lambda slot: changed(slot, gap=None),
    ),
    Planted(
        "cells that are of no use taken over",
        "A slot is taken over as if all its cells were the prompt's.",
        "reenact.actors.slots:choose",
        mistakes.all_of_use,
    ),
    Planted(
        "taking over before forks",
        "A slot that holds a little of a prompt is taken over, though another one holds nearly all of it.",
        "reenact.actors.slots:choose",
        broken.taken_over_first,
    ),
    Planted(
        "nothing left to evaluate",
        "A prompt that is in cells as a whole is not evaluated at all.",
        "reenact.actors.slots:choose",
        mistakes.not_even_one,
    ),
    Planted(
        "moved cells reused",
        "Cells that a shift moved are offered to others.",
        "reenact.actors.slots:Slot.reusable",
        lambda _original: lambda slot: slot.cells,
    ),
    Planted(
        "latest used slot",
        "Of the free slots the one is taken that was used last.",
        "reenact.actors.slots:recency",
        answered(lambda used: used if used == NEVER else -used),
    ),
    Planted(
        "prefix freed with its parent",
        "A fork finds nothing to copy once the sequence that it is a fork of has ended.",
        "reenact.actors.batcher:_plan",
        mistakes.freed_with_its_parent,
    ),
    Planted(
        "common beginning off by one",
        "Inputs are compared up to the last but one.",
        "reenact.actors.inputs:Inputs.common",
        answered(lambda common: common + 1),
    ),
    Planted(
        "shared beginning overwritten",
        "Who lengthens a list of inputs overwrites what another one appended to it.",
        "reenact.actors.inputs:Inputs.then",
        mistakes.whoever_looks,
    ),
]

SCHEDULE: Final = [
    Planted(
        "unfair order",
        "Who came last is served first.",
        "reenact.actors.batcher:turn",
        lambda _original: lambda work: (-work.priority, -work.sequence),
    ),
    Planted(
        "overtaking",
        "Who is tokenized sooner gets a slot sooner.",
        "reenact.actors.batcher:_in_turn",
        lambda _original: broken.overtaking,
    ),
    Planted(
        "last slot given away",
        "A sequence that waits for the beginning of its prompt finds no slot when that is evaluated.",
        "reenact.actors.batcher:_assign",
        lambda _original: broken.no_slot_kept,
    ),
    Planted(
        "preemption among equals",
        "A sequence makes room for one of its own priority.",
        "reenact.actors.batcher:preempted",
        lambda _original: mistakes.not_lower,
    ),
    Planted(
        "oldest preempted",
        "Of several sequences the oldest makes room.",
        "reenact.actors.batcher:preempted",
        lambda _original: broken.oldest,
    ),
    Planted(
        "queue off by one",
        "One request more waits than may.",
        "reenact.actors.batcher:_admit",
        asked(lambda state, event: (changed(state, max_waiting=state.max_waiting + 1), event)),
    ),
    Planted(
        "full queue closed to everybody",
        "A request that goes before all that wait is refused because they wait.",
        "reenact.actors.batcher:_admit",
        broken.refused_when_full,
    ),
    Planted(
        "stalled readers wait without end",
        "Who had a slot takes no place in the queue, however many do.",
        "reenact.actors.batcher:_excess",
        broken.had_a_slot_for_nothing,
    ),
    Planted(
        "first of the queue displaced",
        "The request that waits longest leaves for one that comes.",
        "reenact.actors.batcher:_admit",
        mistakes.oldest_displaced,
    ),
    Planted(
        "stalled reader keeps the slot",
        "A sequence whose reader has not read on for too long still holds its slot.",
        "reenact.actors.batcher:_yield",
        always([]),
    ),
    Planted(
        "slot given up in flight",
        "A sequence gives up its slot for its reader though it has rows in flight.",
        "reenact.actors.batcher:_yield",
        mistakes.whatever_is_in_flight,
    ),
    Planted(
        "preempted counted in the queue",
        "Requests are refused because of sequences that made room.",
        "reenact.actors.batcher:_admit",
        broken.preempted_counted,
    ),
    Planted(
        "batch over its limit in the last chunk",
        "The last row of a prompt is put into a batch that is full.",
        "reenact.actors.schedule:share_rows",
        mistakes.rest_of_a_prompt,
    ),
    Planted(
        "rows for the first",
        "The first prompt has all the rows that it wants, others one each.",
        "reenact.actors.schedule:share_rows",
        lambda _original: broken.first_rows,
    ),
    Planted(
        "rows of numbers starve",
        "Rows of numbers wait until there are no tokens.",
        "reenact.actors.schedule:turn_of",
        lambda _original: mistakes.one_kind_first,
    ),
    Planted(
        "late token lost",
        "A token that was sampled for a sequence that has ended is not accounted for.",
        "reenact.actors.batcher:_commit",
        broken.without(e.TokenDropped),
    ),
    Planted(
        "failure of a neighbour",
        "A batch that fails ends the sequences of all slots.",
        "reenact.actors.batcher:_commit",
        broken.everybody_fails,
    ),
    Planted(
        "abort that nobody asked for",
        "A decode that ended early by itself passes for one that was asked to.",
        "reenact.actors.batcher:_commit",
        mistakes.asked_for,
    ),
    Planted(
        "abort after an abort",
        "Cancels end one batch after the other, and the others get nowhere.",
        "reenact.actors.batcher:_abort",
        broken.with_flight(spared=False),
    ),
]

SHELL: Final = [
    Planted(
        "error of the wrong type",
        "A caller is told another error than the log.",
        "reenact.actors.errors:error_of",
        lambda original: lambda failure: original(changed(failure, kind="engine_broken")),
    ),
    Planted(
        "end that is not told",
        "A reader takes a text that was cut off for a whole one.",
        "reenact.runtime.request:Request.end_with",
        always(None),
    ),
    Planted(
        "last chunk twice",
        "What goes out at the end goes out twice.",
        "reenact.runtime.request:Request._release",
        mistakes.said_twice,
    ),
    Planted(
        "text before a stop string lost",
        "What stood before a stop string, and had not gone out, never does.",
        "reenact.runtime.request:Request.finish",
        mistakes.cut_lost,
    ),
    Planted(
        "reader never paused",
        "A reader who does not read on is written to without end.",
        "reenact.runtime.request:Request._unread",
        always(0),
    ),
    Planted(
        "reader never resumed",
        "A reader who reads on again gets no more.",
        "reenact.runtime.request:Request.caught_up",
        always(value=False),
    ),
    Planted(
        "full disk passed over",
        "A session goes on whose log cannot be written.",
        "reenact.runtime.log.writer:Journal.append",
        mistakes.swallowed,
    ),
    Planted(
        "deadline of a stalled reader forgotten",
        "Nobody hands over the deadline of a request whose reader lags.",
        "reenact.runtime.session:Session._expire",
        mistakes.no_deadline_while_paused,
    ),
    Planted(
        "pause without an end",
        "Nobody hands over that a reader has not read on for too long.",
        "reenact.runtime.session:Session._pause",
        always(None),
    ),
    Planted(
        "deadline in milliseconds",
        "A deadline comes too soon.",
        "reenact.runtime.session:Session._expire",
        asked(lambda self, live, deadline: (self, live, deadline / 1000)),
    ),
    Planted(
        "chat with one token too many",
        "A chat goes on with a token that is no part of the answer.",
        "reenact.runtime.chats:kept",
        mistakes.one_too_many,
    ),
]

ENGINE: Final = [
    Planted(
        "logits row off by one",
        "A token is drawn from the logits of the sequence before it in the batch.",
        "reenact.runtime.llama.context:Evaluator.step",
        mistakes.row_before,
    ),
    Planted(
        "lost penalty state",
        "Who was preempted has no penalties for what he said before.",
        "reenact.runtime.engine.drawings:Drawings.add",
        mistakes.forgetful,
    ),
    Planted(
        "penalty window of the whole prompt",
        "Draws depend on inputs of the prompt that were left out.",
        "reenact.runtime.engine.drawings:Drawings.add",
        mistakes.seen_before_truncation,
    ),
    Planted(
        "penalty window off by one",
        "The last token is not penalized.",
        "reenact.runtime.llama.sampler:_window",
        lambda original: lambda drawing, length: original(changed(drawing, sampled=drawing.sampled[:-1]), length),
    ),
    Planted(
        "shared generator",
        "The draws of one sequence depend on how many others were made.",
        "reenact.runtime.engine.draw_key:draw_key",
        mistakes.one_for_all,
    ),
    Planted(
        "seed without its index",
        "All tokens of a sequence are drawn with one key.",
        "reenact.runtime.engine.draw_key:draw_key",
        lambda original: lambda seed, _index, attempt=0: original(seed, 0, attempt),
    ),
    Planted(
        "shared chain",
        "Sequences with the same top_k have one temperature.",
        "reenact.runtime.llama.sampler:Sampler._chain",
        mistakes.first_chain,
    ),
    Planted(
        "trims before copies",
        "Cells are removed from a slot before another one is copied to it.",
        "reenact.runtime.llama.context:Evaluator._move_cells",
        mistakes.trimmed_first,
    ),
    Planted(
        "positions of the second sequence",
        "The rows of all but the first sequence in a batch stand one position too far on.",
        "reenact.runtime.llama.batch:Rows.fill",
        mistakes.one_position_on,
    ),
]

GRAMMARS: Final = [
    Planted(
        "any byte goes on with a character",
        "Behind the first byte of a character the bounds of its class are forgotten.",
        "reenact.runtime.grammar.automaton:Automaton._add_bytes",
        broken.any_continuation,
    ),
    Planted(
        "texts that are alike lead to one place",
        "Behind a text that stands twice in a grammar comes what stands behind the first of them.",
        "reenact.runtime.grammar.automaton:Automaton._add_text",
        mistakes.one_end_for_each_text,
    ),
    Planted(
        "rules lead back to the first place",
        "A rule that was gone into at two places leads back to one of them only.",
        "reenact.runtime.llama.grammar_states:GrammarStates._settled",
        mistakes.first_way_back,
    ),
    Planted(
        "a bound that is excluded is included",
        "Numbers may equal their exclusive bounds.",
        "reenact.runtime.grammar.ranges:_may_end",
        always(value=True),
    ),
    Planted(
        "branches by what is not their objects",
        "Branches of a oneOf whose objects are alike are taken to exclude each other.",
        "reenact.runtime.grammar.branches:Branches._differ",
        always(value=True),
    ),
    Planted(
        "a pattern from its beginning",
        "A pattern is matched at the beginning of the string, and not found anywhere in it.",
        "reenact.runtime.grammar.patterns:_Reader.whole",
        mistakes.matched,
    ),
]

PLANTED: Final = [*TEXTS, *SEQUENCES, *SLOTS, *SCHEDULE, *SHELL, *ENGINE, *GRAMMARS]
