"""The Batcher actor owns the slots, the waiting requests and the plan of each batch.

The rules (docs/runner-semantics.md section 2, "Admission", "Slots and prefix reuse", "Batch", "Faults"):

* Requests get slots by priority, and among equals first come, first served, in the order of `RequestReceived`, however
  long tokenizing takes. The number that may wait is bounded; beyond it the last in this order is turned away: the new
  request or a waiting one. A request that gets a slot at once does not count.
* If no slot is free, the youngest sequence of the lowest priority makes room for a higher one, and its inputs are
  evaluated again. A sequence whose reader is paused for too long gives up its slot likewise. As many of these as there
  are slots wait outside that bound, and the others within it; none of them is turned away.
* One batch is in flight at a time. Cells count when it comes back, as the engine reports them.
* A cancel ends a prefill in flight early, but never two batches in a row that hold other sequences.

Plan, execute and commit are in three places: `proceed` here, the engine, and `evolve` on `BatchDecoded` here.
`actors/slots.py` chooses the slot of a sequence, `actors/schedule.py` the rows of a batch, and `actors/batch.py`
defines its outcome.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, takewhile
from typing import Final, Literal

from attrs import evolve as changed
from attrs import frozen

from reenact.actors import events as e
from reenact.actors.batch import contradiction, failure
from reenact.actors.errors import Failure, InternalError
from reenact.actors.header import ContextFacts
from reenact.actors.inputs import NONE
from reenact.actors.limits import MOST_WAITING
from reenact.actors.schedule import awaited, next_batch
from reenact.actors.slots import Choice, Slot, Work, choose, decoded, dropped, unknown

POLICIES: Final = {
    "schedule": "even shares",
    "slots": "fewest rows, a copy counted; beginnings are waited for; least recently used",
}
"""The Batcher's choices among several possible ways, by name; a session's header holds them."""


@frozen(kw_only=True)
class Flight:
    """A batch, from its plan until the next one is planned."""

    plan: e.BatchPlanned
    stage: Literal["in flight", "aborting", "landed", "aborted", "stopped", "lost"] = "in flight"
    """Aborting: it was asked to end early. Aborted: it did, as it was asked to. Stopped: it did by itself. Lost: the
    engine or its cells were."""
    spared: bool = False
    """Whether the batch before it ended early; then this one is not aborted, unless it holds no other sequence."""

    @property
    def is_out(self) -> bool:
        """Whether its outcome is still due."""
        return self.stage in {"in flight", "aborting"}


@frozen(kw_only=True)
class Batcher:
    """The state of the Batcher."""

    context: ContextFacts
    max_waiting: int
    slots: tuple[Slot, ...]
    waiting: tuple[Work, ...] = ()
    """The waiting works, in the order in which they get slots."""
    copies: tuple[e.Copy, ...] = ()
    """The copies to make before the next rows, in this order."""
    flight: Flight | None = None
    """The last planned batch."""
    broken: Failure | None = None
    """The reason why the engine cannot be used any more; then nothing is planned."""

    @property
    def in_flight(self) -> e.BatchPlanned | None:
        """The batch whose outcome is due."""
        return self.flight.plan if self.flight is not None and self.flight.is_out else None


def opened(session: e.SessionOpened) -> Batcher:
    """Return the Batcher's state at the start of a session."""
    context = session.context
    return Batcher(context=context, max_waiting=session.limits.max_waiting, slots=(Slot(),) * context.n_slots)


def refuse_context(context: ContextFacts) -> str | None:
    """Return the reason why no session can have a context; None if one can."""
    if context.n_batch < context.n_slots:
        return f"a batch of {context.n_batch} rows has none for some of {context.n_slots} slots"
    return None


def refuse(state: Batcher, fact: e.Event) -> str | None:
    """Return the reason why a fact is impossible now; None if it is not."""
    if not isinstance(fact, e.BatchDecoded):
        return None
    if state.in_flight is None or fact.batch != state.in_flight.batch:
        return f"batch {fact.batch} was decoded and is not in flight"
    return contradiction(state.in_flight, fact)


def evolve(state: Batcher, event: e.Event) -> Batcher:
    """Return the state after one of the Batcher's own events."""
    match event:
        case e.RequestQueued():
            return _waits(state, Work(sequence=event.sequence, priority=event.priority))
        case e.RequestDisplaced() | e.RequestWithdrawn():
            return _left(state, event.sequence)
        case e.InputQueued():
            return _lengthened(state, event)
        case e.InputsDropped():
            return _shortened(state, event)
        case e.SlotAssigned():
            return _assigned(state, event)
        case e.SequencePreempted() | e.SlotYielded():
            work = state.slots[event.slot].work
            if work is None:
                raise InternalError(f"slot {event.slot} has no sequence to preempt")
            freed = _replaced(state, event.slot, _freed(state.slots[event.slot]))
            return _waits(freed, changed(work, preempted=True))
        case e.BatchPlanned():
            return _planned(state, event)
        case e.AbortRequested():
            return changed(state, flight=state.flight and changed(state.flight, stage="aborting"))
        case e.BatchDecoded():
            return _committed(state, event)
        case e.EngineFailed():
            return changed(lost(state), broken=event.failure)
        case e.CellsLost():
            slots = tuple(changed(slot, cells=NONE, n_cells=0, pure=None, gap=None) for slot in state.slots)
            return changed(lost(state), slots=slots, copies=())
        case e.SlotReleased():
            freed_slot = _freed(state.slots[event.slot])
            return _replaced(state, event.slot, changed(freed_slot, cells=freed_slot.cells.first(event.length)))
        case e.RequestRejected() | e.BatchFailed() | e.TokenDropped():
            return state
        case _:
            raise InternalError(f"{type(event).__name__} is not an event of the Batcher")


def decide(state: Batcher, event: e.Event) -> list[e.Event]:
    """Return the Batcher's decisions on an event that it receives."""
    match event:
        case e.RequestReceived():
            return _admit(state, event)
        case e.PauseExpired():
            return _yield(state, event.sequence)
        case e.BatchDecoded():
            return _commit(state, event)
        case e.ContextShifted():
            return [e.InputsDropped(sequence=event.sequence, keep=event.keep, discard=event.discard)]
        case e.SequenceFinished():
            return _let_go(state, event)
        case _:
            raise InternalError(f"the Batcher does not listen to {type(event).__name__}")


def proceed(state: Batcher) -> list[e.Event]:
    """Return the Batcher's next step once no actor has anything left to decide: an assigned slot, or a plan."""
    if state.in_flight is not None or state.broken is not None:
        return []
    return _assign(state) or _plan(state)


# ---------------------------------------------------------------- waiting requests and slots


def _admit(state: Batcher, event: e.RequestReceived) -> list[e.Event]:
    if state.broken is not None:
        return [e.RequestRejected(sequence=event.sequence, failure=state.broken)]
    asked = Work(sequence=event.sequence, priority=event.options.priority)
    queued = e.RequestQueued(sequence=asked.sequence, priority=asked.priority, n_ahead=_place_of(state.waiting, asked))
    last = _excess(state, asked)
    if last is None:
        return [queued]
    reason = f"{state.max_waiting} requests may wait for a slot, and so many do"
    if last is asked:
        failure = Failure(kind="overloaded", reason=f"{reason}; try again later")
        return [e.RequestRejected(sequence=asked.sequence, failure=failure)]
    reason = f"{reason}: one with priority {asked.priority} goes before this one; try again later"
    failure = Failure(kind="overloaded", reason=reason)
    return [e.RequestDisplaced(sequence=last.sequence, by=asked.sequence, failure=failure), queued]


def _excess(state: Batcher, asked: Work) -> Work | None:
    """Return the work that is turned away if a new request would make the queue too long; None if it would not.

    It is the last work in turn, or the new one. A sequence that had a slot before is not turned away; if there are more
    such sequences than slots, the excess takes places in the queue.
    """
    if len(state.waiting) < state.max_waiting:
        return None
    waiting = _with(state.waiting, asked)
    places = _places(state, waiting)
    n_before = sum([work.preempted for work in waiting])
    if len(places) + max(n_before - len(state.slots), 0) <= state.max_waiting:
        return None
    return places[-1] if places else asked


def _places(state: Batcher, waiting: Sequence[Work]) -> list[Work]:
    """Return the works that take a place in the queue: they get no slot at once, and had none before.

    The first works get the free slots, and then the slots of lower priorities, as far as there are any. Behind them,
    only works that had a slot are kept back.
    """
    held = sorted(slot.work.priority for slot in state.slots if slot.work is not None)
    n_free = len(state.slots) - len(held)
    rest = iter(waiting)
    going = islice((work for work in rest if not work.kept_back), len(state.slots))
    first = [
        work
        for number, work in enumerate(going)
        if not work.preempted and number >= n_free + bisect_left(held, work.priority)
    ]
    return first + [work for work in rest if not work.preempted]


def _yield(state: Batcher, sequence: int) -> list[e.Event]:
    """Take the slot of a sequence whose reader is paused; inputs in flight or queued are evaluated first."""
    holders = ((number, slot.work) for number, slot in enumerate(state.slots) if slot.work is not None)
    return [
        e.SlotYielded(sequence=sequence, slot=number)
        for number, work in holders
        if work.sequence == sequence and work.kept_back
    ]


def turn(work: Work) -> tuple[int, int]:
    """Return the sort key of waiting sequences: higher priorities first, and equal ones in the order of arrival."""
    return -work.priority, work.sequence


def _in_turn(state: Batcher) -> Iterator[Work]:
    """Return the sequences that get the next slots.

    A sequence that is still being tokenized keeps its place: no later one overtakes it. One whose reader is paused is
    skipped.
    """
    return takewhile(lambda work: len(work.inputs) > 0, (work for work in state.waiting if not work.kept_back))


def _assign(state: Batcher) -> list[e.Event]:
    """Give or free a slot for the next sequence; one that waits for its beginning keeps a free slot reserved."""
    n_free = sum(slot.work is None for slot in state.slots)
    for n_kept, work in enumerate(_in_turn(state)):
        if n_kept == n_free:
            return _preempt(state, work)
        choice = choose(work, state.slots, state.context.n_ctx_seq)
        if choice is not None and beginning_awaited(state, work, choice) is None:
            slot, reused, source = choice.slot, choice.reused, choice.source
            return [e.SlotAssigned(sequence=work.sequence, slot=slot, reused=reused, source=source)]
    return []


def beginning_awaited(state: Batcher, work: Work, choice: Choice) -> int | None:
    """Return the sequence for whose prompt a waiting one keeps its choice of a slot back; None if for none."""
    return awaited(work, choice, state.slots, state.context.n_batch, state.context.n_ctx_seq)


def _preempt(state: Batcher, work: Work) -> list[e.Event]:
    found = preempted(work, state.slots)
    if found is None:
        return []
    number, other = found
    return [e.SequencePreempted(sequence=other.sequence, slot=number, by=work.sequence)]


def preempted(work: Work, slots: tuple[Slot, ...]) -> tuple[int, Work] | None:
    """Return the work that makes room for ``work``, and its slot: the youngest of the lowest priority below it.

    If a younger work of a priority in between had to make room, it would take the lowest one's slot by the same rule.
    """
    lower = [
        (number, slot.work)
        for number, slot in enumerate(slots)
        if slot.work is not None and slot.work.priority < work.priority
    ]
    return min(lower, key=lambda one: (one[1].priority, -one[1].sequence), default=None)


def _let_go(state: Batcher, event: e.SequenceFinished) -> list[e.Event]:
    """Remove a sequence that has ended from its slot or from the queue."""
    for number, slot in enumerate(state.slots):
        if slot.sequence == event.sequence:
            # A shift may have dropped hidden tokens too.
            length = max(min(len(slot.reusable), len(slot.cells) - event.n_hidden), 0)
            released = e.SlotReleased(sequence=event.sequence, slot=number, length=length)
            return [released, *_abort(state, event.sequence)]
    if any(work.sequence == event.sequence for work in state.waiting):
        return [e.RequestWithdrawn(sequence=event.sequence)]
    return []


def _abort(state: Batcher, sequence: int) -> list[e.Event]:
    """End a batch early if it evaluates several rows of a sequence that has ended.

    Of two batches in a row one is completed, so that any number of cancels only slows the other sequences down.
    """
    flight = state.flight
    if flight is None or flight.stage != "in flight":
        return []
    if flight.spared and any(part.sequence != sequence for part in flight.plan.parts):
        return []
    if any(part.sequence == sequence and len(part.inputs) > 1 for part in flight.plan.parts):
        return [e.AbortRequested(batch=flight.plan.batch, sequence=sequence)]
    return []


def _place_of(waiting: tuple[Work, ...], work: Work) -> int:
    """Return the count of waiting works that are served before ``work``."""
    return bisect_left(waiting, turn(work), key=turn)


def _with(waiting: tuple[Work, ...], work: Work) -> tuple[Work, ...]:
    at = _place_of(waiting, work)
    return (*waiting[:at], work, *waiting[at:])


def _waits(state: Batcher, work: Work) -> Batcher:
    # At most: a full queue, those that had a slot, those that get one at once, and those that lose theirs.
    if len(state.waiting) >= MOST_WAITING + 3 * len(state.slots):
        raise InternalError(f"{len(state.waiting)} sequences wait already, which is more than can")
    return changed(state, waiting=_with(state.waiting, work))


def _left(state: Batcher, sequence: int) -> Batcher:
    return changed(state, waiting=tuple(work for work in state.waiting if work.sequence != sequence))


def _assigned(state: Batcher, event: e.SlotAssigned) -> Batcher:
    work = next(w for w in state.waiting if w.sequence == event.sequence)
    slot = state.slots[event.slot]
    n_cells, copies = slot.n_cells, state.copies
    if event.source is not None:
        n_cells = state.slots[event.source].n_cells
        copies = (*copies, e.Copy(source=event.source, slot=event.slot))
    taken = Slot(
        work=changed(work, preempted=False),
        cells=work.inputs.first(event.reused),
        n_cells=n_cells,
        used=slot.used,
    )
    return _replaced(changed(_left(state, event.sequence), copies=copies), event.slot, taken)


def _freed(slot: Slot) -> Slot:
    """Return a slot without its sequence; the contents of its cells are remembered."""
    return changed(slot, work=None, cells=slot.reusable, gap=None, pure=None)


def _lengthened(state: Batcher, event: e.InputQueued) -> Batcher:
    def lengthened(work: Work) -> Work:
        inputs = work.inputs.then(event.inputs)
        # A pooled text is one run.
        uncut = ((0, len(inputs)),) if isinstance(event.wants, e.Pool) else work.uncut
        return changed(work, inputs=inputs, wants=event.wants, uncut=uncut)

    return _reworked(state, event.sequence, lengthened)


def _shortened(state: Batcher, event: e.InputsDropped) -> Batcher:
    keep, discard, moves = event.keep, event.discard, state.context.shift == "move"

    def shortened(work: Work) -> Work:
        return changed(work, inputs=work.inputs.without(keep, discard))

    for number, slot in enumerate(state.slots):
        if slot.work is not None and slot.sequence == event.sequence:
            return _replaced(state, number, dropped(slot, shortened(slot.work), keep, discard, moves=moves))
    return _reworked(state, event.sequence, shortened)


def _reworked(state: Batcher, sequence: int, change: Callable[[Work], Work]) -> Batcher:
    """Change the work of a sequence, in its slot or in the queue."""
    for number, slot in enumerate(state.slots):
        if slot.work is not None and slot.sequence == sequence:
            return _replaced(state, number, changed(slot, work=change(slot.work)))
    waiting = tuple(change(work) if work.sequence == sequence else work for work in state.waiting)
    return changed(state, waiting=waiting)


def _replaced(state: Batcher, number: int, slot: Slot) -> Batcher:
    return changed(state, slots=(*state.slots[:number], slot, *state.slots[number + 1 :]))


# ---------------------------------------------------------------- batches


def _plan(state: Batcher) -> list[e.Event]:
    """Plan the next batch, if any slot has inputs queued."""
    last = None if state.flight is None else state.flight.plan
    last_key = None if last is None else last.key
    chosen = next_batch(state.slots, state.context.n_batch, last_key, alone=state.context.alone)
    if chosen is None:
        return []
    key, parts = chosen
    busy = [(number, slot) for number, slot in enumerate(state.slots) if slot.work is not None]
    planned = e.BatchPlanned(
        batch=0 if last is None else last.batch + 1,
        key=key,
        copies=state.copies,
        trims=tuple(e.Trim(slot=number, length=len(slot.cells)) for number, slot in busy if slot.has_excess),
        shifts=tuple(
            e.Shift(slot=number, keep=slot.gap.keep, discard=slot.gap.discard) for number, slot in busy if slot.gap
        ),
        parts=parts,
    )
    return [planned]


def _planned(state: Batcher, event: e.BatchPlanned) -> Batcher:
    """Assume that the operations on cells will be done."""
    in_batch = {part.slot for part in event.parts}
    slots = tuple(
        changed(
            slot,
            n_cells=len(slot.cells) if slot.work is not None else slot.n_cells,
            gap=None,
            used=event.batch if number in in_batch else slot.used,
        )
        for number, slot in enumerate(state.slots)
    )
    last = state.flight
    # A batch that was lost was not completed: what held for it holds for the next one.
    spared = last is not None and (last.stage in {"aborted", "stopped"} or (last.stage == "lost" and last.spared))
    return changed(state, slots=slots, copies=(), flight=Flight(plan=event, spared=spared))


def _committed(state: Batcher, event: e.BatchDecoded) -> Batcher:
    """Update the slots to the cells that the engine reports."""
    flight = state.flight
    if flight is None:
        return state
    slots = list(state.slots)
    positions = dict(event.positions)
    for part in flight.plan.parts:
        slots[part.slot] = decoded(slots[part.slot], part, positions.get(part.slot), code=event.code)
    if not positions:
        # The engine refused the batch, and did no part of the plan.
        for operation in flight.plan.operations:
            slots[operation.slot] = unknown(slots[operation.slot])
    early: Literal["aborted", "stopped"] = "aborted" if flight.stage == "aborting" else "stopped"
    stage = early if event.code == e.ABORTED else "landed"
    return changed(state, slots=tuple(slots), flight=changed(flight, stage=stage))


def lost(state: Batcher) -> Batcher:
    """Return the state without a batch in flight; if there was one, its outcome never comes."""
    if state.flight is None or not state.flight.is_out:
        return state
    return changed(state, flight=changed(state.flight, stage="lost"))


def _commit(state: Batcher, event: e.BatchDecoded) -> list[e.Event]:
    """End the sequences of a failed batch, or account for tokens of sequences that have ended."""
    if event.code != e.DONE and state.flight is not None and state.flight.stage != "aborted":
        sequences = tuple(sorted(part.sequence for part in state.flight.plan.parts))
        return [e.BatchFailed(batch=event.batch, sequences=sequences, failure=failure(event.code))]
    holders = {slot.sequence for slot in state.slots}
    return [
        e.TokenDropped(sequence=sample.sequence, index=sample.index, token=sample.token)
        for sample in event.samples
        if sample.sequence not in holders and sample.fault is None
    ]
