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
from typing import Final

from attrs import evolve as changed
from attrs import frozen

from reenact.actors import events as e
from reenact.actors.batch import check, failure
from reenact.actors.errors import Failure, InternalError
from reenact.actors.inputs import NONE
from reenact.actors.limits import MOST_WAITING
from reenact.actors.schedule import awaited, generating, pooled
from reenact.actors.slots import Gap, Slot, Work, choose, decoded, unknown

POLICIES: Final = {
    "schedule": "even shares",
    "slots": "fewest rows, a copy counted; beginnings are waited for; least recently used",
}
"""The Batcher's choices among several possible ways, by name; a session's header holds them."""


@frozen(kw_only=True)
class Batcher:
    """The state of the Batcher."""

    n_batch: int
    n_ctx_seq: int
    max_waiting: int
    moves_cells: bool
    """Whether a context is shifted by moving cells; otherwise the inputs behind the gap are evaluated again."""
    pools_alone: bool
    slots: tuple[Slot, ...]
    waiting: tuple[Work, ...] = ()
    """The waiting works, in the order in which they get slots."""
    copies: tuple[e.Copy, ...] = ()
    """The copies to make before the next rows, in this order."""
    plan: e.BatchPlanned | None = None
    """The last planned batch."""
    in_flight: bool = False
    aborting: bool = False
    """Whether the last planned batch is to end early."""
    spared: bool = False
    """Whether the previous batch ended early; then this one does not, unless it holds no other sequence."""
    broken: Failure | None = None
    """The reason why the engine cannot be used any more; then nothing is planned."""


def opened(session: e.SessionOpened) -> Batcher:
    """Return the Batcher's state at the start of a session."""
    context = session.context
    if context.n_batch < context.n_slots:
        raise InternalError(f"a batch of {context.n_batch} rows has none for some of {context.n_slots} slots")
    return Batcher(
        n_batch=context.n_batch,
        n_ctx_seq=context.n_ctx_seq,
        max_waiting=session.limits.max_waiting,
        moves_cells=context.shift == "move",
        pools_alone=context.alone,
        slots=(Slot(),) * context.n_slots,
    )


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
            return changed(state, aborting=True)
        case e.BatchDecoded():
            if state.plan is None or not state.in_flight or event.batch != state.plan.batch:
                raise InternalError(f"batch {event.batch} was decoded and is not in flight")
            check(state.plan, event)
            return _committed(state, event)
        case e.EngineFailed():
            return changed(state, in_flight=False, broken=event.failure)
        case e.CellsLost():
            slots = tuple(changed(slot, cells=NONE, n_cells=0, pure=None, gap=None) for slot in state.slots)
            return changed(state, slots=slots, copies=(), in_flight=False, aborting=False)
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
    if state.in_flight or state.broken is not None:
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
        # A pooled text leaves no cells, and reuses none.
        inputs = NONE if isinstance(work.wants, e.Pool) else work.inputs
        choice = choose(inputs, state.slots, state.n_ctx_seq)
        if choice is not None and awaited(inputs, choice, state.slots, state.n_batch, state.n_ctx_seq) is None:
            slot, reused, source = choice.slot, choice.reused, choice.source
            return [e.SlotAssigned(sequence=work.sequence, slot=slot, reused=reused, source=source)]
    return []


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
    if state.plan is None or not state.in_flight or state.aborting:
        return []
    if state.spared and any(part.sequence != sequence for part in state.plan.parts):
        return []
    if any(part.sequence == sequence and len(part.inputs) > 1 for part in state.plan.parts):
        return [e.AbortRequested(batch=state.plan.batch, sequence=sequence)]
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
        return changed(work, inputs=inputs, wants=event.wants)

    return _reworked(
        state, event.sequence, lambda slot: changed(slot, work=slot.work and lengthened(slot.work)), lengthened
    )


def _shortened(state: Batcher, event: e.InputsDropped) -> Batcher:
    def shortened(work: Work) -> Work:
        return changed(work, inputs=work.inputs.without(event.keep, event.discard))

    def shifted(slot: Slot) -> Slot:
        if slot.work is None:
            return slot
        work = shortened(slot.work)
        if state.moves_cells and len(slot.cells) >= event.keep + event.discard:
            length = len(slot.cells) - event.discard
            pure = event.keep if slot.pure is None else min(event.keep, slot.pure)
            gap = Gap(event.keep, event.discard)
            return changed(slot, work=work, cells=work.inputs.first(length), pure=pure, gap=gap)
        return changed(slot, work=work, cells=work.inputs.first(min(event.keep, len(slot.cells))))

    return _reworked(state, event.sequence, shifted, shortened)


def _reworked(
    state: Batcher, sequence: int, in_slot: Callable[[Slot], Slot], in_queue: Callable[[Work], Work]
) -> Batcher:
    """Change the work of a sequence, in its slot or in the queue."""
    for number, slot in enumerate(state.slots):
        if slot.sequence == sequence:
            return _replaced(state, number, in_slot(slot))
    waiting = tuple(in_queue(work) if work.sequence == sequence else work for work in state.waiting)
    return changed(state, waiting=waiting)


def _replaced(state: Batcher, number: int, slot: Slot) -> Batcher:
    return changed(state, slots=(*state.slots[:number], slot, *state.slots[number + 1 :]))


# ---------------------------------------------------------------- batches


def _plan(state: Batcher) -> list[e.Event]:
    """Plan the next batch, if any slot has inputs queued."""
    # A model either pools or generates, so neither waits for the other.
    parts = pooled(state.slots, state.n_batch, alone=state.pools_alone)
    parts = parts or generating(state.slots, state.n_batch, state.plan)
    if not parts:
        return []
    busy = [(number, slot) for number, slot in enumerate(state.slots) if slot.work is not None]
    planned = e.BatchPlanned(
        batch=0 if state.plan is None else state.plan.batch + 1,
        copies=state.copies,
        trims=tuple(e.Trim(slot=number, length=len(slot.cells)) for number, slot in busy if slot.has_excess),
        shifts=tuple(
            e.Shift(slot=number, keep=slot.gap.keep, discard=slot.gap.discard) for number, slot in busy if slot.gap
        ),
        parts=tuple(parts),
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
    return changed(state, slots=slots, copies=(), plan=event, in_flight=True, aborting=False)


def _committed(state: Batcher, event: e.BatchDecoded) -> Batcher:
    """Update the slots to the cells that the engine reports."""
    planned = state.plan
    slots = list(state.slots)
    if planned is not None:
        positions = dict(event.positions)
        for part in planned.parts:
            slots[part.slot] = decoded(slots[part.slot], part, positions.get(part.slot), code=event.code)
        if not positions:
            # The engine refused the batch, and did no part of the plan.
            for operation in planned.operations:
                slots[operation.slot] = unknown(slots[operation.slot])
    return changed(state, slots=tuple(slots), in_flight=False, spared=event.code == e.ABORTED)


def _commit(state: Batcher, event: e.BatchDecoded) -> list[e.Event]:
    """End the sequences of a failed batch, or account for tokens of sequences that have ended."""
    parts = () if state.plan is None else state.plan.parts
    if event.code != e.DONE and not (event.code == e.ABORTED and state.aborting):
        sequences = tuple(sorted(part.sequence for part in parts))
        return [e.BatchFailed(batch=event.batch, sequences=sequences, failure=failure(event.code))]
    holders = {slot.sequence for slot in state.slots}
    return [
        e.TokenDropped(sequence=sample.sequence, index=sample.index, token=sample.token)
        for sample in event.samples
        if sample.sequence not in holders and sample.fault is None
    ]
