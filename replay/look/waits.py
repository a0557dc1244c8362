"""Finds what each sequence is doing at a moment, and what must happen before it goes on.

The rules that hold here:

* A sequence waits for something outside the actors (its reader, the engine, the tokenizer), for other sequences, or for
  nothing: then the next records show how it goes on.
* Everything reported follows from the folded state; "since" is the record that made it so.
* Following the sequences for which a sequence waits leads to something outside: that is the final cause of waiting.
"""

from collections.abc import Iterable

from attrs import frozen

from reenact.actors import batcher as b
from reenact.actors import events as e
from reenact.actors.admission import Obstacle, ahead_of, next_slots, obstacle
from reenact.actors.errors import description
from reenact.actors.routing import BATCHER
from reenact.actors.sequence import Sequence
from reenact.actors.slots import Slot
from reenact.replay.fold import Moment
from reenact.replay.render.events import draws, ending
from reenact.replay.render.values import count, named, sequences
from reenact.runtime.log.reader import Entry


@frozen(kw_only=True)
class Wait:
    """The activity of a sequence, and the reason why it does not go on."""

    sequence: int
    phase: str
    on: str | None = None
    """The thing for which it waits; None if it waits for nothing."""
    behind: tuple[int, ...] = ()
    """The sequences of which one must go on or end first; empty if ``on`` is outside the actors."""
    since: Entry | None = None
    """The record that made it so."""


def waits_at(moment: Moment) -> list[Wait]:
    """Return the activity of each sequence, in the order of their numbers."""
    return [_wait(moment, state) for state in sorted(moment.state.sequences, key=lambda state: state.sequence)]


def holding_up(waits: Iterable[Wait]) -> list[str]:
    """Return the things outside that must act before any sequence goes on."""
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
        part, failed = ("the engine", e.EngineFailed) if batcher.broken else ("the Batcher", e.ActorFailed)
        phase = f"cannot go on: {part} failed, and nothing is planned any more"
        return Wait(sequence=me, phase=phase, on=f"{part}, which failed", since=moment.mark(0, failed))
    for number, slot in enumerate(batcher.slots):
        if slot.sequence == me:
            return _in_slot(moment, batcher, state, number, slot)
    if state.n_prompt is None:
        return Wait(
            sequence=me,
            phase="its prompt is being tokenized",
            on=f"the tokenizer, which has the prompt of sequence {me}",
            since=moment.mark(me, e.RequestReceived),
        )
    return _in_queue(moment, batcher, state)


def _in_slot(moment: Moment, batcher: b.Batcher, state: Sequence, number: int, slot: Slot) -> Wait:
    me, engine = state.sequence, _engine(batcher)
    in_flight = () if batcher.in_flight is None else batcher.in_flight.parts
    for part in in_flight:
        if part.sequence == me:
            phase = f"in the batch in flight: {count(len(part.inputs), 'row')}, {draws(part)}"
            return Wait(sequence=me, phase=phase, on=engine, since=moment.mark(0, e.BatchPlanned))
    if state.paused:
        return _on_reader(moment, state, f"paused in slot {number}")
    if not slot.queued:
        return Wait(sequence=me, phase=_open(moment, "nothing of it is queued or in flight"), since=moment.at)
    queued = f"{count(slot.queued, 'input')} queued in slot {number}"
    since = moment.mark(me, e.SlotAssigned, e.InputQueued)
    if in_flight:
        return Wait(sequence=me, phase=f"{queued} for a batch after the one in flight", on=engine, since=since)
    return Wait(sequence=me, phase=_open(moment, queued), since=since)


def _on_reader(moment: Moment, state: Sequence, phase: str) -> Wait:
    return Wait(
        sequence=state.sequence,
        phase=f"{phase}: its reader has paused",
        on=f"the reader of sequence {state.sequence}{named(state.request_id)}",
        since=moment.mark(state.sequence, e.ReaderPaused),
    )


# ---------------------------------------------------------------- waiting for a slot


def _in_queue(moment: Moment, batcher: b.Batcher, state: Sequence) -> Wait:
    me = state.sequence
    mine = next((work for work in batcher.waiting if work.sequence == me), None)
    if mine is None:
        return Wait(sequence=me, phase=_open(moment, "in no slot and not in the queue"), since=moment.at)
    since = moment.mark(me, *((e.SequencePreempted, e.SlotYielded) if mine.preempted else (e.RequestQueued,)))
    again = " again" if mine.preempted else ""
    if state.paused:
        return _on_reader(moment, state, "without a slot, and passed over for one")
    phase = f"waits for a slot{again}, number {len(ahead_of(batcher, mine)) + 1} in the queue"
    if mine.preempted and since is not None and isinstance(since.record.event, e.SequencePreempted):
        phase = f"preempted by sequence {since.record.event.by}; {phase}"
    if not mine.wants:
        return Wait(sequence=me, phase=_open(moment, phase), since=moment.at)
    try:
        found = next_slots(batcher)
    except Exception as error:  # whatever the actors raise, the fault is in the log
        reason = f"the actors cannot go on from the state after it: {description(error)}"
        raise moment.at.line.corrupt(reason) from error
    if me in found.losers:
        whose = found.losers[me]
        gets = "one is free" if whose is None else f"it takes that of sequence {whose}"
        if batcher.in_flight is not None:
            return Wait(sequence=me, phase=f"{phase}: {gets} after this batch", on=_engine(batcher), since=since)
        return Wait(sequence=me, phase=_open(moment, f"{phase}: {gets}"), since=since)
    kept_by, behind = obstacle(batcher, found.after, mine)
    return Wait(sequence=me, phase=phase, on=_on_obstacle(kept_by, behind), behind=behind, since=since)


def _on_obstacle(kept_by: Obstacle, behind: tuple[int, ...]) -> str:
    """Return the thing for which a sequence without a slot waits, as text."""
    match kept_by:
        case "prompt":
            return f"the prompt of sequence {behind[0]}: it begins alike, and is evaluated first"
        case "tokenizer":
            return f"sequence {behind[0]}: it goes first, and its prompt is being tokenized"
        case "turn":
            return f"a slot: {sequences(behind)} {'goes' if len(behind) == 1 else 'go'} first"
        case "slot":
            taken = "the only one is taken" if len(behind) == 1 else f"all {len(behind)} are taken"
            return f"a slot: {taken} by {sequences(behind)}"


def _engine(batcher: b.Batcher) -> str:
    return "the engine" if batcher.flight is None else f"the engine, which has batch {batcher.flight.plan.batch}"


def _open(moment: Moment, phase: str) -> str:
    """Add how a sequence that waits for nothing goes on."""
    if not moment.settled:
        return f"{phase}; the next records show how it goes on"
    if moment.following is None:
        return f"{phase}, and the log ends before it goes on"
    return f"{phase}, and it waits for nothing"
