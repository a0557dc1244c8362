"""Prints the state of every actor at a record, so that it answers "it hangs": the page of ``replay state``.

The rules that hold here:

* The answer comes first: which sequence waits for what. The state from which it follows comes below.
* A record is always named by its number, so that ``replay show LOG N`` can follow.
"""

from collections.abc import Iterator
from typing import Final

from reenact.actors import events as e
from reenact.actors.batcher import Batcher
from reenact.actors.sequence import Sequence
from reenact.actors.slots import NEVER, Slot, Work
from reenact.replay.fold import Moment, wall_clock
from reenact.replay.look.waits import Wait, holding_up, waits_at
from reenact.replay.render.endings import end_notes
from reenact.replay.render.events import phrase
from reenact.replay.render.values import count, named, piece, plain, sequences
from reenact.runtime.log.reader import Entry
from reenact.runtime.terminal import Spans

_MAX_WAITING: Final = 20
"""How many waiting requests are listed one by one; the rest are counted."""

_MAX_HOLDING_UP: Final = 4
"""How many of the final causes of waiting the summary names."""


def page(moment: Moment) -> Iterator[Spans]:
    """Return the lines that describe a moment."""
    waits = waits_at(moment)
    yield from _heading(moment)
    yield from _titled("what each sequence waits for", _who_waits(moment, waits))
    if moment.state.batcher is not None:
        yield from _titled("batcher", _batcher(moment, moment.state.batcher))
        yield from _titled("slots", _slots(moment, moment.state.batcher))
    yield from _titled("sequences", _sequences(moment, waits))


def _titled(name: str, lines: Iterator[Spans]) -> Iterator[Spans]:
    yield []
    yield [(name, "bold")]
    yield from lines


def _since(moment: Moment, entry: Entry | None) -> str:
    """Return the record since which something is so, and the time since then."""
    if entry is None:
        return ""
    return f"since record {entry.record.n} ({(moment.at.t - entry.t) / 1e9:.3f} s)"


def _heading(moment: Moment) -> Iterator[Spans]:
    session, at = moment.state.session, moment.at
    if session is not None:
        clock = f"{wall_clock(session, at.t):%Y-%m-%d %H:%M:%S.%f}"[:-3]
        when = f", {at.t / 1e9:.3f} s after session {plain(session.session)} opened, at {clock} UTC"
        yield [(f"record {at.record.n}", "bold"), (when, "")]
    yield [(f"  {phrase(at.record.event)}", "")]
    if not moment.settled:
        yield [("  in the middle: the next record follows from the same fact", "dim")]
    if moment.following is None and not moment.state.closed:
        for note in end_notes(at.record.n + 1, closed=False, n_torn=moment.torn):
            yield [(f"  {note}", "yellow")]
    for actor in moment.state.failed:
        yield [(f"  actor failed, and decides nothing any more: {plain(actor)}", "red")]


def _who_waits(moment: Moment, waits: list[Wait]) -> Iterator[Spans]:
    groups: dict[str, list[Wait]] = {}
    for wait in waits:
        if wait.on is not None:
            groups.setdefault(wait.on, []).append(wait)
    if not groups:
        yield [("  no sequence waits", "")]
        return
    rows = [(sequences([wait.sequence for wait in group]), on, group[0].since) for on, group in groups.items()]
    wide = max(len(waiting) for waiting, _, _ in rows)
    for waiting, on, since in rows:
        yield [(f"  {waiting:<{wide}}", ""), ("  ->  ", "dim"), (on, "yellow"), (f"  {_since(moment, since)}", "dim")]
    if any(wait.behind for wait in waits):
        names = holding_up(waits)
        more = len(names) - _MAX_HOLDING_UP
        named = "; ".join(names[:_MAX_HOLDING_UP]) + (f"; and {more} more" if more > 0 else "")
        yield [(f"  {'in the end':<{wide}}", "bold"), ("  ->  ", "dim"), (named, "bold yellow")]


def _batcher(moment: Moment, batcher: Batcher) -> Iterator[Spans]:
    yield [(f"  {_last_batch(moment, batcher)}", "")]
    if batcher.broken:
        failed = moment.mark(0, e.EngineFailed)
        yield [(f"  the engine is broken {_since(moment, failed)}: nothing is planned any more", "red")]
    if batcher.copies:
        copies = ", ".join(f"{copy.source} to {copy.slot}" for copy in batcher.copies)
        yield [(f"  to be copied before the next rows: slot {copies}", "")]
    if not batcher.waiting:
        yield [(f"  the queue is empty; {batcher.max_waiting} may wait", "")]
        return
    n_preempted = sum(work.preempted for work in batcher.waiting)
    size = f"{len(batcher.waiting) - n_preempted} of at most {batcher.max_waiting}"
    size += f", and {n_preempted} preempted" if n_preempted else ""
    shown = ", ".join(_waiting(work) for work in batcher.waiting[:_MAX_WAITING])
    n_more = len(batcher.waiting) - _MAX_WAITING
    more = f" and {n_more:,} more" if n_more > 0 else ""
    noun = "sequence" if len(batcher.waiting) == 1 else "sequences"
    yield [(f"  in the queue, {size}: {noun} {shown}{more}", "")]


def _waiting(work: Work) -> str:
    """Return a waiting sequence with its particulars."""
    notes = [f"priority {work.priority}"] if work.priority else []
    notes += ["preempted"] if work.preempted else []
    if not work.inputs:
        notes.append("being tokenized")
    elif work.kept_back:
        notes.append("its reader has paused")
    return f"{work.sequence}" + (f" ({', '.join(notes)})" if notes else "")


def _last_batch(moment: Moment, batcher: Batcher) -> str:
    if batcher.flight is None:
        return "no batch has been planned"
    plan = batcher.flight.plan
    n_rows = sum(len(part.inputs) for part in plan.parts)
    what = f"{count(n_rows, 'row')} of {sequences([part.sequence for part in plan.parts])}"
    if batcher.in_flight is not None:
        since = _since(moment, moment.mark(0, e.BatchPlanned))
        early = ", and is to end early" if batcher.flight.stage == "aborting" else ""
        last = "" if moment.following is not None else "; the engine still has it, or the process died in it"
        return f"batch {plan.batch} is in flight {since}{early}: {what}{last}"
    since = _since(moment, moment.mark(0, e.BatchDecoded, e.EngineFailed))
    return f"nothing is in flight {since}; the last was batch {plan.batch}: {what}"


def _slots(moment: Moment, batcher: Batcher) -> Iterator[Spans]:
    session = moment.state.session
    n_ctx = 0 if session is None else session.context.n_ctx
    for number, slot in enumerate(batcher.slots):
        yield [(f"  slot {number}  {_slot(batcher, number, slot, n_ctx)}", "" if slot.sequence is not None else "dim")]


def _slot(batcher: Batcher, number: int, slot: Slot, n_ctx: int) -> str:
    cells = f"{len(slot.cells):,} of {n_ctx:,} cells"
    in_flight = () if batcher.in_flight is None else batcher.in_flight.parts
    n_rows = sum(len(part.inputs) for part in in_flight if part.slot == number)
    if slot.work is None:
        kept = " kept" if len(slot.cells) else ""
        parts = ["free", cells + kept, f"last used in batch {slot.used}" if slot.used != NEVER else "never used"]
    else:
        parts = [f"sequence {slot.sequence}", cells]
    parts += [f"{n_rows:,} in flight"] if n_rows else []
    if slot.work is not None:
        # Rows in flight are queued until they come back.
        parts.append(f"{count(slot.queued - n_rows, 'input')} queued")
        parts += [f"to be trimmed from {count(slot.n_cells, 'cell')}"] if slot.has_excess else []
    parts += [f"only the first {slot.pure:,} of use to others"] if slot.pure is not None else []
    parts += [f"to be shifted by {slot.gap.discard:,} after the first {slot.gap.keep:,}"] if slot.gap else []
    return ", ".join(parts)


def _sequences(moment: Moment, waits: list[Wait]) -> Iterator[Spans]:
    n_requests = moment.state.n_requests
    n_before = n_requests - len(waits)
    if n_before or not waits:
        ended = f"{count(n_requests, 'request')} came so far; {n_before:,} ended before"
        came = ended if n_requests else "none came yet"
        yield [(f"  {came}", "dim")]
    states = {state.sequence: state for state in moment.state.sequences}
    for wait in waits:
        state = states[wait.sequence]
        yield [
            (f"  sequence {wait.sequence}{named(state.request_id)}: ", "bold"),
            (wait.phase, "" if wait.on is None else "yellow"),
            (f"  {_since(moment, wait.since)}", "dim"),
        ]
        if wait.on is not None:
            yield [(f"    waits for {wait.on}", "")]
        yield [(f"    {_knows(moment, state)}", "")]


def _knows(moment: Moment, state: Sequence) -> str:
    limit = "" if state.options.num_predict < 0 else f" of at most {state.options.num_predict:,}"
    parts = ["prompt not tokenized yet" if state.n_prompt is None else count(state.n_prompt, "prompt token")]
    parts.append("for an embedding" if state.embedding else f"{state.n_sampled:,} sampled{limit}")
    parts += [f"priority {state.options.priority}"] if state.options.priority else []
    if state.held:
        parts.append(f"{piece(state.held)} held back")
    if state.finish_reason is not None:
        return ", ".join(parts)
    if state.options.deadline is not None:
        parts.append(_deadline(moment, state.sequence, state.options.deadline))
    if state.reader_paused and not state.paused:
        paused = moment.mark(state.sequence, e.ReaderPaused)
        where = "" if paused is None else f" at record {paused.record.n}"
        parts.append(f"its reader paused{where}: it pauses after its next token")
    return ", ".join(parts)


def _deadline(moment: Moment, sequence: int, after: float) -> str:
    """Return the time of a sequence's deadline, seen from the shown record."""
    received = moment.mark(sequence, e.RequestReceived)
    if received is None:
        return f"deadline {after:g} s after it came"
    left = after - (moment.at.t - received.t) / 1e9
    return f"its deadline is in {left:.3f} s" if left >= 0 else f"its deadline was {-left:.3f} s ago"
