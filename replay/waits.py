"""Who waits for whom: for each sequence what it is doing, and what must happen before it goes on.

The rules that hold here:

* A sequence waits for somebody outside (its reader, the engine, the tokeniser), or for other sequences, or for nobody:
  then the next records show how it goes on.
* Everything that is said follows from the folded state; "since" is the record that made it so.
* Following the sequences that a sequence waits for leads to somebody outside: that is who holds things up.
"""

from collections.abc import Iterable

from attrs import frozen

from reenact.actors import events as e
from reenact.actors.batcher import Batcher, Slot
from reenact.actors.routing import BATCHER
from reenact.actors.sequence import Sequence
from reenact.replay.fold import Entry, Moment
from reenact.replay.phrases import count, draws, ending, plain, sequences


@frozen(kw_only=True)
class Wait:
    """What a sequence is doing, and why it is not going on."""

    sequence: int
    phase: str
    on: str | None = None
    """What it waits for; None where it waits for nobody."""
    behind: tuple[int, ...] = ()
    """The sequences of which one must go on or end first; none where ``on`` is somebody outside."""
    since: Entry | None = None
    """The record that made it so."""


def waits_at(moment: Moment) -> list[Wait]:
    """Return what each sequence is doing, in the order of their numbers."""
    return [_wait(moment, state) for state in sorted(moment.state.sequences, key=lambda state: state.sequence)]


def holding_up(waits: Iterable[Wait]) -> list[str]:
    """Return who outside must act, in the end, before anything goes on."""
    return list(dict.fromkeys(wait.on for wait in waits if wait.on is not None and not wait.behind))


def _wait(moment: Moment, state: Sequence) -> Wait:
    batcher = moment.state.batcher
    me = state.sequence
    if state.finish_reason is not None:
        finished = moment.mark(me, e.SequenceFinished)
        end = None if finished is None else finished.record.event
        how = ending(end) if isinstance(end, e.SequenceFinished) else state.finish_reason
        return Wait(sequence=me, phase=f"ended: {how}", since=finished)
    if moment.state.closed or batcher is None:
        return Wait(sequence=me, phase="left without an end: the session is closed", since=moment.at)
    if batcher.broken or BATCHER in moment.state.failed:
        who, failed = ("the engine", e.EngineFailed) if batcher.broken else ("the Batcher", e.ActorFailed)
        phase = f"cannot go on: {who} failed, and nothing is planned any more"
        return Wait(sequence=me, phase=phase, on=f"{who}, which failed", since=moment.mark(0, failed))
    for number, slot in enumerate(batcher.slots):
        if slot.sequence == me:
            return _in_slot(moment, batcher, state, number, slot)
    if state.n_prompt is None:
        return Wait(
            sequence=me,
            phase="its prompt is being tokenised",
            on=f"the tokeniser, which has the prompt of sequence {me}",
            since=moment.mark(me, e.RequestReceived),
        )
    return _in_queue(moment, batcher, state)


def _in_slot(moment: Moment, batcher: Batcher, state: Sequence, number: int, slot: Slot) -> Wait:
    me, engine = state.sequence, _engine(batcher)
    in_flight = batcher.plan.parts if batcher.in_flight and batcher.plan is not None else ()
    for part in in_flight:
        if part.sequence == me:
            phase = f"in the batch in flight: {count(len(part.tokens), 'row')}, {draws(part)}"
            return Wait(sequence=me, phase=phase, on=engine, since=moment.mark(0, e.BatchPlanned))
    if state.paused:
        phase = f"paused in slot {number}: its reader does not read on"
        since = moment.mark(me, e.ReaderPaused)
        named = "" if state.request_id is None else f" ({plain(state.request_id)})"
        return Wait(sequence=me, phase=phase, on=f"the reader of sequence {me}{named}", since=since)
    if not slot.queued.tokens:
        return Wait(sequence=me, phase=_open(moment, "nothing of it is queued or in flight"), since=moment.at)
    queued = f"{count(len(slot.queued.tokens), 'input')} queued in slot {number}"
    since = moment.mark(me, e.SlotAssigned, e.InputQueued)
    if in_flight:
        return Wait(sequence=me, phase=f"{queued} for the batch after the one in flight", on=engine, since=since)
    return Wait(sequence=me, phase=_open(moment, queued), since=since)


def _in_queue(moment: Moment, batcher: Batcher, state: Sequence) -> Wait:
    me = state.sequence
    queue = [waiting.sequence for waiting in batcher.waiting]
    since = moment.mark(me, e.RequestQueued)
    if me not in queue:
        return Wait(sequence=me, phase=_open(moment, "in no slot and not in the queue"), since=moment.at)
    place = queue.index(me)
    phase = f"waits for a slot, number {place + 1} in the queue"
    holders = tuple(slot.sequence for slot in batcher.slots if slot.sequence is not None)
    n_free = len(batcher.slots) - len(holders)
    if n_free == 0:
        on = f"a slot: {_all_taken(len(holders))} by {sequences(holders)}"
        return Wait(sequence=me, phase=phase, on=on, behind=holders, since=since)
    # A free slot goes to nobody while one who came earlier, and is to have it, has no inputs yet.
    ahead = [w.sequence for w in batcher.waiting[: min(place, n_free)] if not w.queued.tokens]
    if ahead:
        on = f"sequence {ahead[0]}: it came first, and its prompt is being tokenised"
        return Wait(sequence=me, phase=phase, on=on, behind=(ahead[0],), since=since)
    if place >= n_free:
        behind = tuple(queue[:place])
        return Wait(sequence=me, phase=phase, on=f"a slot: {sequences(behind)} came first", behind=behind, since=since)
    if batcher.in_flight:
        return Wait(sequence=me, phase=f"{phase}: one is free after this batch", on=_engine(batcher), since=since)
    return Wait(sequence=me, phase=_open(moment, f"{phase}: one is free"), since=since)


def _engine(batcher: Batcher) -> str:
    return "the engine" if batcher.plan is None else f"the engine, which has batch {batcher.plan.batch}"


def _all_taken(n_slots: int) -> str:
    return "the only one is taken" if n_slots == 1 else f"all {n_slots} are taken"


def _open(moment: Moment, phase: str) -> str:
    """Add what becomes of a sequence that waits for nobody."""
    if not moment.settled:
        return f"{phase}; the next records say how it goes on"
    if moment.following is None:
        return f"{phase}, and the log ends before it goes on"
    return f"{phase}, and it waits for nobody"
