"""Bugs planted by somebody who had not seen the tests: each replaces one function of the program.

Most of them need company or bad luck to show: a fork of a fork, a preemption, a reader who lags, a write that is cut
short.
"""

import os
from collections.abc import Iterator
from typing import Any, Final

import trio
from attrs import evolve as changed

from reenact.actors import events as e
from reenact.actors.errors import LogBroken
from reenact.actors.inputs import NONE, kind_of
from reenact.actors.routing import ROUTES, Role
from reenact.actors.schedule import Run
from reenact.actors.slots import Slot
from tests.mutants.change import Planted


def part_gone_out(_original: Any) -> Any:
    """Let a token of which a part went out count with all its bytes as held."""

    def still_held(held_by: tuple[int, ...], used: int) -> tuple[int, ...]:
        rest = list(held_by)
        while rest and used >= rest[0]:
            used -= rest.pop(0)
        return tuple(rest)

    return still_held


def resumed_in_a_full_context(original: Any) -> Any:
    """Let a sequence whose reader goes on queue its token without a look at the context."""

    def decide(state: Any, event: e.Event) -> list[e.Event]:
        follows: list[e.Event] = original(state, event)
        if isinstance(event, e.ReaderResumed) and follows:
            token = e.InputQueued(sequence=state.sequence, inputs=(state.last_token,), wants=e.Draw(state.n_sampled))
            return [follows[0], token]
        return follows

    return decide


def latest_copy_first(original: Any) -> Any:
    """Let the copy that is asked for last be made first."""

    def assigned(state: Any, event: e.SlotAssigned) -> Any:
        after = original(state, event)
        return after if event.source is None else changed(after, copies=(*after.copies[-1:], *after.copies[:-1]))

    return assigned


def used_by_prompts_alone(original: Any) -> Any:
    """Let a slot count as used in a batch only where it has rows of a prompt."""

    def planned(state: Any, event: e.BatchPlanned) -> Any:
        after = original(state, event)
        slots = list(after.slots)
        for part in event.parts:
            if part.draw:
                slots[part.slot] = changed(slots[part.slot], used=state.slots[part.slot].used)
        return changed(after, slots=tuple(slots))

    return planned


def drawn_at_the_end_of_a_kind(original: Any) -> Any:
    """Let a token be drawn after the last row of each kind, not of the prompt."""

    def part(run: Run, n_rows: int) -> e.Part:
        made: e.Part = original(run, n_rows)
        end = run.position + n_rows
        following = run.work.inputs[end : end + 1]
        ends = bool(following) and kind_of(following[0]) != run.key.kind
        return changed(made, wants=run.work.wants) if ends else made

    return part


def assigned_for_the_first_time(original: Any) -> Any:
    """Let a sequence that gets a slot again be counted as one that gets its first."""

    def of_scheduling(self: Any, event: e.Event, t: int) -> None:
        if isinstance(event, e.SlotAssigned):
            self.timelines[event.sequence].assigned = None
        original(self, event, t)

    return of_scheduling


def everybody_with_a_slot(original: Any) -> Any:
    """Let only sequences with a slot hear of what concerns all."""

    def receivers(self: Any, event: e.Event) -> Iterator[int | Role]:
        if Role.EVERY_SEQUENCE in ROUTES[type(event)].receivers:
            holders = {slot.sequence for slot in self.state.batcher.slots}
            yield from (receiver for receiver in original(self, event) if receiver in holders)
        else:
            yield from original(self, event)

    return receivers


def caught_up_late(_original: Any) -> Any:
    """Let a reader have caught up when fewer chunks are left than half of what it may leave, not as many."""

    def caught_up(self: Any) -> bool:
        if not self._paused or self.ended or self._unread() >= self._max_lag // 2:
            return False
        self._paused = False
        return True

    return caught_up


def still_reading(_original: Any) -> Any:
    """Let a read that is cancelled leave its mark on the stream."""

    async def anext_(self: Any) -> Any:
        if self._reading:
            raise trio.BusyResourceError("another task reads this stream")
        self._reading = True
        try:
            chunk = await self._live.chunks.receive()
        except trio.EndOfChannel:
            self._reading = False
            self._live.raise_if_failed()
            raise StopAsyncIteration from None
        self._reading = False
        if self._live.caught_up():
            self._on_caught_up(self.sequence)
        return chunk

    return anext_


def bos_of_this_text_alone(original: Any) -> Any:
    """Let a chat that goes on be asked for without the BOS that it began with."""

    async def tokenize(self: Any, live: Any, pieces: Any, *, grammar: str | None, bos_added: bool = False) -> None:
        del bos_added
        await original(self, live, pieces, grammar=grammar)

    return tokenize


def one_write(_original: Any) -> Any:
    """Let a write of a part of the lines pass for a write of them all."""

    def write(self: Any, data: bytes) -> None:
        if self._file is None:
            raise LogBroken(f"{self._path}: {self._what} is closed")
        try:
            self.n_bytes += os.write(self._file, data)
        except OSError as error:
            self.close()
            raise LogBroken(f"{self._path}: {self._what} cannot be written: {error.strerror}") from error

    return write


def removed_only_if_counted(_original: Any) -> Any:
    """Let a slot whose cells' contents are unknown have as many as were counted before."""

    def unknown(slot: Slot) -> Slot:
        return changed(slot, cells=NONE, pure=None, gap=None)

    return unknown


BLIND: Final[tuple[Planted, ...]] = (
    Planted(
        name="a token of which a part went out is still held whole",
        says="What a token still holds is not lessened by the part of it that went out. So the counts drift, and "
        "where a stop string cuts the text several tokens later (two of them in the held text, or a stop string "
        "that begins like itself), the caller gets too few tokens, and the slot keeps too few inputs; and a "
        "token that ends in the middle of a character comes with a later chunk than its text.",
        target="reenact.actors.text:still_held",
        broken=part_gone_out,
    ),
    Planted(
        name="a reader who goes on in a full context gets no shift",
        says="A sequence that was paused just when its context was full queues its next token without a shift first. "
        "It has one input more than n_ctx, and the shift that comes a token later drops more.",
        target="reenact.actors.sequence:decide",
        broken=resumed_in_a_full_context,
    ),
    Planted(
        name="copies are made in the wrong order",
        says="Of two forks before one batch the later one is copied first. If it copies from the slot that the "
        "earlier one fills, it gets what was in there before: somebody else's cells, or none.",
        target="reenact.actors.batcher:_assigned",
        broken=latest_copy_first,
    ),
    Planted(
        name="generating is no use of a slot",
        says="A slot counts as used when its prompt was evaluated, not when its last token was. So the slot that is "
        "taken is not the one used least recently, but that of the longest answer, and who goes on from it has "
        "lost his prefix.",
        target="reenact.actors.batcher:_planned",
        broken=used_by_prompts_alone,
    ),
    Planted(
        name="unknown cells of a fresh slot are not removed",
        says="After a batch that failed in a slot where no cells were counted yet, what the engine kept of it is not "
        "removed. The next request in this slot fails with an internal error that is none of its own.",
        target="reenact.actors.slots:unknown",
        broken=removed_only_if_counted,
    ),
    Planted(
        name="a token is drawn in the middle of a prompt of two kinds",
        says="The last row of one kind is taken for the last row of the prompt. A prompt of texts and rows has its "
        "first token drawn before the rest of it was evaluated.",
        target="reenact.actors.schedule:_part",
        broken=drawn_at_the_end_of_a_kind,
    ),
    Planted(
        name="a sequence that was preempted is counted as a new one",
        says="When it gets a slot again, its prompt counts twice, its time in the queue goes on to there (so that "
        "the prefill took less than no time), and its cached tokens are those of its second slot, which may be "
        "more than its prompt has.",
        target="reenact.actors.metrics:Metrics._of_scheduling",
        broken=assigned_for_the_first_time,
    ),
    Planted(
        name="those who wait do not hear that the engine failed",
        says="An engine that raises ends the sequences that have a slot. Whoever waits for one is not told, and "
        "waits for ever.",
        target="reenact.actors.kernel:Kernel._receivers",
        broken=everybody_with_a_slot,
    ),
    Planted(
        name="a reader catches up only below half of what he may leave",
        says="With max_reader_lag 1 nothing is less than half of it: a reader who was paused once is never resumed, "
        "and waits for ever. With other limits he goes on a chunk later than he may.",
        target="reenact.runtime.request:Request.caught_up",
        broken=caught_up_late,
    ),
    Planted(
        name="a read that was cancelled goes on for ever",
        says="A reader who gives up a read after a while, and reads again, is told that another task reads the stream.",
        target="reenact.runtime.stream:Stream.__anext__",
        broken=still_reading,
    ),
    Planted(
        name="a chat that goes on has no BOS",
        says="The tokens that a chat keeps begin with BOS, but the second turn does not say so. One input less of it "
        "is kept when its context is full, and in the log it has none; every turn after that has lost it as "
        "well.",
        target="reenact.runtime.session:Session.tokenize",
        broken=bos_of_this_text_alone,
    ),
    Planted(
        name="half a write is a whole one",
        says="Where the system takes only a part of what is written to the log (a disk that is nearly full, a "
        "signal), the rest is never written, and the log is corrupt from there on.",
        target="reenact.runtime.log.own_file:OwnFile.write",
        broken=one_write,
    ),
)
"""The bugs; each is one function of actors/ or runtime/, replaced."""
