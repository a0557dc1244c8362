"""Replacements that plant a bug, for `tests/mutants/bugs/table.py`: those that take more than a line."""

from collections.abc import Sequence as Items
from itertools import count
from typing import Any

import trio
from attrs import evolve as changed

from reenact.actors import batcher as b
from reenact.actors import events as e
from reenact.actors import sequence as s
from reenact.actors.errors import LogBroken
from reenact.actors.inputs import Input, Inputs
from reenact.actors.schedule import ROUND
from reenact.actors.slots import Choice, Slot, Work
from reenact.actors.text import Assembled, release
from tests.mutants.change import answered


def at_the_end(kind: type[e.Event], **fields: Any) -> Any:
    """Let an end that comes with an event of this kind say something else."""

    def change(events: list[e.Event]) -> list[e.Event]:
        if not any(isinstance(event, kind) for event in events):
            return events
        return [changed(event, **fields) if isinstance(event, e.SequenceFinished) else event for event in events]

    return answered(change)


# ---------------------------------------------------------------- texts and sequences


def within_a_piece(original: Any) -> Any:
    """Look for stop strings in the last piece, and not in what is held."""

    def assemble(held: bytes, held_by: tuple[int, ...], piece: bytes, stops: tuple[str, ...]) -> Assembled:
        found: Assembled = original(held, held_by, piece, stops)
        alone: Assembled = original(b"", (), piece, stops)
        return found if found.stop is None or alone.stop is not None else original(held, held_by, piece, ())

    return assemble


def before_the_flush(original: Any) -> Any:
    """Look for a stop string before what is held has gone out, and forget that."""

    def assemble(held: bytes, held_by: tuple[int, ...], piece: bytes, stops: tuple[str, ...]) -> Assembled:
        found: Assembled = original(held, held_by, piece, stops)
        if found.stop is None:
            return found
        before = (held + piece)[len(held) :].partition(found.stop.encode())[0]
        return changed(found, text=release(before) if found.stop.encode() in piece else "")

    return assemble


def the_beginning(original: Any) -> Any:
    """Truncate a prompt behind its beginning, whatever is to be kept."""

    def begin(state: Any, event: e.PromptTokenized) -> list[e.Event]:
        begun: list[e.Event] = original(state, event)
        return [
            changed(one, inputs=event.inputs[: len(one.inputs)]) if isinstance(one, e.InputQueued) else one
            for one in begun
        ]

    return begin


def nan_is_an_end(original: Any) -> Any:
    """Take a row of logits without a likeliest token for the end of the text."""

    def take(state: Any, sample: e.Sample) -> list[e.Event]:
        return list(original(state, changed(sample, fault=None, eog=True) if sample.fault == "nan" else sample))

    return take


# ---------------------------------------------------------------- the Batcher and its slots


def after_a_shift(original: Any) -> Any:
    """Go on one position too far behind what was dropped."""

    def shortened(state: b.Batcher, event: e.InputsDropped) -> b.Batcher:
        after: b.Batcher = original(state, event)
        slots = tuple(
            changed(slot, cells=slot.work.inputs.first(len(slot.cells) + 1))
            if slot.work is not None and slot.sequence == event.sequence
            else slot
            for slot in after.slots
        )
        return changed(after, slots=slots)

    return shortened


def drawn_again(original: Any) -> Any:
    """Let a preempted sequence begin with the token that was drawn last."""

    def evolve(state: b.Batcher, event: e.Event) -> b.Batcher:
        after: b.Batcher = original(state, event)
        if not isinstance(event, e.SequencePreempted):
            return after
        waiting = tuple(
            changed(work, wants=e.Draw(work.wants.index - 1))
            if work.sequence == event.sequence and isinstance(work.wants, e.Draw) and work.wants.index
            else work
            for work in after.waiting
        )
        return changed(after, waiting=waiting)

    return evolve


def kept_on_cancel(original: Any) -> Any:
    """Release the slot of a sequence that came to its end, and not of one that left."""

    def let_go(state: b.Batcher, event: e.SequenceFinished) -> list[e.Event]:
        events: list[e.Event] = original(state, event)
        left = event.finish_reason == "cancelled"
        return [one for one in events if not (left and isinstance(one, e.SlotReleased))]

    return let_go


def not_removed(original: Any) -> Any:
    """Forget, after an aborted decode, the cells behind those that are of use."""

    def decoded(slot: Slot, part: e.Part, position: int | None, *, code: int) -> Slot:
        after: Slot = original(slot, part, position, code=code)
        return changed(after, n_cells=len(after.cells)) if code == e.ABORTED else after

    return decoded


def not_lower(work: Work, slots: tuple[Slot, ...]) -> tuple[int, Work] | None:
    """Let a sequence make room for one of its own priority that came before it."""
    others = [
        (number, slot.work)
        for number, slot in enumerate(slots)
        if slot.work is not None and (slot.work.priority, -slot.work.sequence) < (work.priority, -work.sequence)
    ]
    return min(others, key=lambda one: (one[1].priority, -one[1].sequence), default=None)


def rest_of_a_prompt(original: Any) -> Any:
    """Give a sequence that lacks one last row that row too, though the batch is full."""

    def share(wanted: list[int], budget: int) -> list[int]:
        rows = original(wanted, budget)
        return [want if want > 1 and want - got == 1 else got for want, got in zip(wanted, rows, strict=True)]

    return share


def freed_with_its_parent(original: Any) -> Any:
    """Copy nothing from a slot whose sequence has ended meanwhile."""

    def plan(state: b.Batcher) -> list[e.Event]:
        there = tuple(copy for copy in state.copies if state.slots[copy.source].work is not None)
        return list(original(changed(state, copies=there)))

    return plan


def all_of_use(original: Any) -> Any:
    """Take over a slot as if all of its cells were of use."""

    def choose(work: Work, slots: Items[Slot], n_ctx_seq: int) -> Choice | None:
        choice: Choice | None = original(work, slots, n_ctx_seq)
        return choice and changed(choice, reused=min(len(work.inputs) - 1, len(slots[choice.slot].cells)))

    return choose


def whatever_is_in_flight(_original: Any) -> Any:
    """Give up the slot of a sequence that goes on."""

    def yielded(state: b.Batcher, sequence: int) -> list[e.Event]:
        holders = [number for number, slot in enumerate(state.slots) if slot.sequence == sequence]
        return [e.SlotYielded(sequence=sequence, slot=number) for number in holders]

    return yielded


def oldest_displaced(original: Any) -> Any:
    """Let the first of those that wait leave for one that comes."""

    def admit(state: b.Batcher, event: e.RequestReceived) -> list[e.Event]:
        first = next((work for work in state.waiting if not work.preempted), None)
        return [
            changed(one, sequence=first.sequence) if isinstance(one, e.RequestDisplaced) and first else one
            for one in original(state, event)
        ]

    return admit


def paused_is_not_late(original: Any) -> Any:
    """Let no deadline end a sequence that waits for a reader."""

    def decide(state: s.Sequence, event: e.Event) -> list[e.Event]:
        if state.paused and isinstance(event, e.DeadlineExpired):
            return []
        follows: list[e.Event] = original(state, event)
        return follows

    return decide


def no_deadline_while_paused(_original: Any) -> Any:
    """Hand over no deadline of a sequence that waits for a reader."""

    async def expire(self: Any, live: Any, deadline: float) -> None:
        with live.deadline:
            await trio.sleep(deadline)
        if not live.ended and not live._paused:
            self.give(e.DeadlineExpired(sequence=live.sequence))

    return expire


def seen_before_truncation(original: Any) -> Any:
    """Let draws depend on all that the prompt was tokenized to."""
    whole: dict[tuple[int, int], tuple[Input, ...]] = {}

    def add(self: Any, event: e.Event) -> None:
        original(self, event)
        if isinstance(event, e.PromptTokenized):
            whole[id(self), event.sequence] = event.inputs
        if isinstance(event, e.InputQueued) and event.wants in {e.Pool(), e.Draw(0)}:
            self._histories[event.sequence].prompt = whole[id(self), event.sequence]

    return add


def not_even_one(original: Any) -> Any:
    """Evaluate nothing of a prompt that is in cells as a whole."""

    def choose(work: Work, slots: Items[Slot], n_ctx_seq: int) -> Choice | None:
        choice: Choice | None = original(work, slots, n_ctx_seq)
        if choice is None:
            return None
        source = slots[choice.slot if choice.source is None else choice.source]
        return changed(choice, reused=work.inputs.common(source.reusable)) if choice.reused else choice

    return choose


def whoever_looks(_original: Any) -> Any:
    """Append to the list that is shared, also where another one has done so before."""

    def then(self: Inputs, more: Any) -> Inputs:
        del self._shared[self._length :]
        self._shared.extend(more)
        return self._view(len(self._shared))

    return then


def one_kind_first(keys: Any, _last: Any) -> Any:
    """Evaluate rows of numbers where there are no tokens."""
    return min(keys, key=ROUND.index)


def asked_for(original: Any) -> Any:
    """Take every decode that ended early for one that was asked to."""
    return lambda state, event: original(
        changed(state, flight=changed(state.flight, stage="aborted")) if event.code == e.ABORTED else state, event
    )


# ---------------------------------------------------------------- the shell


def said_twice(original: Any) -> Any:
    """Let a chunk of text go out, and what was held before it once more."""

    def say(self: Any, text: str, n_visible: int, *, last: bool = False) -> None:
        original(self, text, n_visible, last=last)
        if last and text:
            original(self, text, n_visible, last=last)

    return say


def swallowed(original: Any) -> Any:
    """Go on without a log where it cannot be written."""

    def append(self: Any, records: Any, t: int, numbers: Any = None) -> None:
        try:
            original(self, records, t, numbers)
        except LogBroken:
            self.close()

    return append


def cut_lost(original: Any) -> Any:
    """Forget what stood before a stop string."""

    def finish(self: Any, event: e.SequenceFinished, *rest: Any) -> None:
        self._cut = ""
        original(self, event, *rest)

    return finish


def beginning_of_the_last(original: Any) -> Any:
    """Keep the other end of a message that is cut."""

    def left(self: Any, n_steps: int) -> list[dict[str, str]]:
        messages: list[dict[str, str]] = original(self, n_steps)
        content = vars(self)["_messages"][-1]["content"]
        return [*messages[:-1], {**messages[-1], "content": content[: len(messages[-1]["content"])]}]

    return left


def one_too_many(original: Any) -> Any:
    """Keep one token more of an answer than is text."""

    def kept(pieces: list[bytes], text: str) -> tuple[int, str]:
        n_kept, answer = original(pieces, text)
        return min(n_kept + 1, len(pieces)), answer

    return kept


# ---------------------------------------------------------------- the engine


def row_before(original: Any) -> Any:
    """Draw each token from the row of the sequence before it in the batch."""

    def step(self: Any, planned: e.BatchPlanned, drawings: Any, numbers: Any) -> Any:
        rows: list[int] = []
        draw = self.draws.draw

        def before(row: int, *rest: Any) -> Any:
            rows.append(row)
            return draw(rows[max(len(rows) - 2, 0)], *rest)

        self.draws.draw = before
        try:
            return original(self, planned, drawings, numbers)
        finally:
            del self.draws.draw

    return step


def forgetful(original: Any) -> Any:
    """Forget what was sampled when a sequence makes room: its penalties begin anew."""

    def add(self: Any, event: e.Event) -> None:
        original(self, event)
        if isinstance(event, e.SequencePreempted):
            self._histories[event.sequence].sampled.clear()

    return add


def one_for_all(original: Any) -> Any:
    """Let all sequences draw from one generator."""
    draws = count()
    return lambda seed, _index, attempt=0: original(seed, next(draws), attempt)


def first_chain(original: Any) -> Any:
    """Look for a chain of samplers by ``top_k`` alone."""

    def chain(self: Any, options: Any) -> Any:
        kept = next((chain for key, chain in self._chains.items() if key.top_k == options.top_k), None)
        return original(self, options) if kept is None else kept

    return chain


def trimmed_first(original: Any) -> Any:
    """Remove cells before others are copied to their place."""

    def move_cells(self: Any, planned: e.BatchPlanned) -> None:
        original(self, changed(planned, copies=(), shifts=()))
        original(self, changed(planned, trims=()))

    return move_cells


def one_position_on(original: Any) -> Any:
    """Let the rows of the second sequence in a batch stand one further on."""

    def fill(self: Any, planned: e.BatchPlanned, numbers: Any) -> Any:
        batch = original(self, planned, numbers)
        start = len(planned.parts[0].inputs)
        self._positions[start : sum(len(part.inputs) for part in planned.parts)] += 1
        return batch

    return fill


def one_end_for_each_text(original: Any) -> Any:
    """Let a text lead to where the same text led before."""

    def add(self: Any, node: int, text: bytes, then: int) -> None:
        original(self, node, text, self._texts.setdefault((-1, text), then))

    return add


def first_way_back(original: Any) -> Any:
    """Let a rule lead back to one place."""
    return lambda self, pending, count: original(self, {new: {min(ways)} for new, ways in pending.items()}, count)


def matched(original: Any) -> Any:
    """Look for a pattern at the beginning."""

    def whole(self: Any) -> Any:
        self.pattern = "^" + self.pattern.removeprefix("^")
        return original(self)

    return whole
