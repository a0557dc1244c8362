"""What every actor knew at a record, told so that it answers "it hangs".

Owns the page that ``replay state`` prints. The rules that hold here:

* The answer comes first: who waits for whom. What it rests on comes below.
* A record is always named by its number, so that ``replay show LOG N`` can follow.
"""

from collections.abc import Iterator
from typing import Final

from reenact.actors import events as e
from reenact.actors.batcher import Batcher, Slot
from reenact.actors.sequence import Sequence
from reenact.replay.fold import Entry, Moment, wall_clock
from reenact.replay.phrases import count, phrase, piece, plain, sequences
from reenact.replay.terminal import Spans
from reenact.replay.waits import Wait, holding_up, waits_at

_MAX_WAITING: Final = 20
"""Waiting requests that are listed one by one; the rest are counted."""

_MAX_HOLDING_UP: Final = 4
"""Of those who hold things up, how many the summary names."""


def page(moment: Moment) -> Iterator[Spans]:
    """Return the lines that tell a moment."""
    waits = waits_at(moment)
    yield from _heading(moment)
    yield from _titled("who waits for whom", _who_waits(moment, waits))
    if moment.state.batcher is not None:
        yield from _titled("batcher", _batcher(moment, moment.state.batcher))
        yield from _titled("slots", _slots(moment, moment.state.batcher))
    yield from _titled("sequences", _sequences(moment, waits))


def _titled(name: str, lines: Iterator[Spans]) -> Iterator[Spans]:
    yield []
    yield [(name, "bold")]
    yield from lines


def _since(moment: Moment, entry: Entry | None) -> str:
    """Say since which record something is so, and how long that is."""
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
        torn = f", with {moment.torn:,} bytes of a torn line behind it" if moment.torn else ""
        yield [(f"  the last record{torn}: the session still runs, or it crashed here", "yellow")]
    for actor in moment.state.failed:
        yield [(f"  actor failed, and decides nothing any more: {plain(actor)}", "red")]


def _who_waits(moment: Moment, waits: list[Wait]) -> Iterator[Spans]:
    groups: dict[str, list[Wait]] = {}
    for wait in waits:
        if wait.on is not None:
            groups.setdefault(wait.on, []).append(wait)
    if not groups:
        yield [("  nobody waits", "")]
        return
    rows = [(sequences([wait.sequence for wait in group]), on, group[0].since) for on, group in groups.items()]
    wide = max(len(who) for who, _, _ in rows)
    for who, on, since in rows:
        yield [(f"  {who:<{wide}}", ""), ("  ->  ", "dim"), (on, "yellow"), (f"  {_since(moment, since)}", "dim")]
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
    n = len(batcher.waiting)
    if n == 0:
        yield [(f"  the queue is empty; {batcher.max_waiting} may wait", "")]
        return
    shown = [
        str(waiting.sequence) if waiting.queued.tokens else f"{waiting.sequence} (being tokenised)"
        for waiting in batcher.waiting[:_MAX_WAITING]
    ]
    more = f" and {n - _MAX_WAITING:,} more" if n > _MAX_WAITING else ""
    noun = "sequence" if n == 1 else "sequences"
    yield [(f"  in the queue, {n} of at most {batcher.max_waiting}: {noun} {', '.join(shown)}{more}", "")]


def _last_batch(moment: Moment, batcher: Batcher) -> str:
    if batcher.plan is None:
        return "no batch has been planned"
    n_rows = sum(len(part.tokens) for part in batcher.plan.parts)
    what = f"{count(n_rows, 'row')} of {sequences([part.sequence for part in batcher.plan.parts])}"
    if batcher.in_flight:
        since = _since(moment, moment.mark(0, e.BatchPlanned))
        last = "" if moment.following is not None else "; the engine still has it, or the process died in it"
        return f"batch {batcher.plan.batch} is in flight {since}: {what}{last}"
    since = _since(moment, moment.mark(0, e.BatchDecoded, e.EngineFailed))
    return f"nothing is in flight {since}; the last was batch {batcher.plan.batch}: {what}"


def _slots(moment: Moment, batcher: Batcher) -> Iterator[Spans]:
    session = moment.state.session
    n_ctx = 0 if session is None else session.context.n_ctx
    for number, slot in enumerate(batcher.slots):
        yield [(f"  slot {number}  {_slot(batcher, number, slot, n_ctx)}", "" if slot.sequence is not None else "dim")]


def _slot(batcher: Batcher, number: int, slot: Slot, n_ctx: int) -> str:
    parts = ["free" if slot.sequence is None else f"sequence {slot.sequence}", f"{slot.length:,} of {n_ctx:,} cells"]
    if slot.stale and slot.length:
        parts[-1] += " from a sequence that ended"
    if batcher.in_flight and batcher.plan is not None:
        n_rows = sum(len(part.tokens) for part in batcher.plan.parts if part.slot == number)
        parts += [f"{n_rows:,} in flight"] if n_rows else []
    if slot.sequence is not None:
        parts.append(f"{count(len(slot.queued.tokens), 'input')} queued")
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
        named = "" if state.request_id is None else f" ({plain(state.request_id)})"
        yield [
            (f"  sequence {wait.sequence}{named}: ", "bold"),
            (wait.phase, "" if wait.on is None else "yellow"),
            (f"  {_since(moment, wait.since)}", "dim"),
        ]
        if wait.on is not None:
            yield [(f"    waits for {wait.on}", "")]
        yield [(f"    {_knows(moment, state)}", "")]


def _knows(moment: Moment, state: Sequence) -> str:
    limit = "" if state.options.num_predict < 0 else f" of at most {state.options.num_predict:,}"
    parts = [
        "prompt not tokenised yet" if state.n_prompt is None else count(state.n_prompt, "prompt token"),
        f"{state.n_sampled:,} sampled{limit}",
    ]
    if state.held:
        parts.append(f"{piece(state.held)} held back")
    if state.reader_paused and not state.paused and state.finish_reason is None:
        paused = moment.mark(state.sequence, e.ReaderPaused)
        where = "" if paused is None else f" at record {paused.record.n}"
        parts.append(f"its reader paused{where}: it pauses after its next token")
    return ", ".join(parts)
