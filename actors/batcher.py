"""The Batcher actor: owns the slots, the waiting requests and the plan of each batch.

The rules (docs/runner-semantics.md section 2, "Admission", "Batch", "Faults"):

* Requests get slots first come, first served, in the order of `RequestReceived`, however long tokenising takes. The
  number that may wait is bounded; beyond it a request is rejected at once.
* One sequence has one slot until it ends. A slot is emptied before its next sequence's first rows.
* One batch is in flight at a time. Cells count when it comes back, and by what the engine reports.
* Rows go by slot number; the lowest free slot is given out, so that active slots are neighbours.

Plan, execute, commit are three places: `proceed` here, the engine, `evolve` on `BatchDecoded` here.
"""

from typing import Final

from attrs import evolve as changed
from attrs import frozen

from reenact.actors import events as e
from reenact.actors.errors import InternalError
from reenact.actors.schedule import share_rows

POLICIES: Final = {"schedule": "even shares", "slots": "one sequence, lowest free first"}
"""What the Batcher does in one of several possible ways, by name; it stands in a session's header."""


@frozen(kw_only=True)
class Inputs:
    """Inputs to evaluate, and the index of the token to sample after the last of them."""

    tokens: tuple[int, ...] = ()
    draw: int = 0


@frozen(kw_only=True)
class Waiting:
    """A request without a slot. It has no inputs before its prompt is tokenised."""

    sequence: int
    queued: Inputs = Inputs()


@frozen(kw_only=True)
class Slot:
    """One llama.cpp sequence id."""

    sequence: int | None = None
    length: int = 0
    """Cells in use, those of an ended sequence included until the slot is emptied."""
    stale: bool = False
    """Its cells belong to an ended sequence."""
    queued: Inputs = Inputs()


@frozen(kw_only=True)
class Batcher:
    """What the Batcher knows."""

    n_batch: int
    max_waiting: int
    slots: tuple[Slot, ...]
    waiting: tuple[Waiting, ...] = ()
    plan: e.BatchPlanned | None = None
    """The last batch planned."""
    in_flight: bool = False
    broken: e.Failure | None = None
    """Why the engine cannot be used any more; then nothing is planned."""


def opened(session: e.SessionOpened) -> Batcher:
    """Return the Batcher's state at the start of a session."""
    context = session.context
    if context.n_batch < context.n_slots:
        raise InternalError(f"a batch of {context.n_batch} rows has none for some of {context.n_slots} slots")
    return Batcher(n_batch=context.n_batch, max_waiting=session.limits.max_waiting, slots=(Slot(),) * context.n_slots)


def evolve(state: Batcher, event: e.Event) -> Batcher:
    """Return the state after one of the Batcher's own events."""
    match event:
        case e.RequestQueued():
            return changed(state, waiting=(*state.waiting, Waiting(sequence=event.sequence)))
        case e.RequestWithdrawn():
            return changed(state, waiting=tuple(w for w in state.waiting if w.sequence != event.sequence))
        case e.InputQueued():
            return _queue(state, event)
        case e.SlotAssigned():
            waiting = next(w for w in state.waiting if w.sequence == event.sequence)
            slot = changed(state.slots[event.slot], sequence=event.sequence, queued=waiting.queued)
            rest = tuple(w for w in state.waiting if w is not waiting)
            return changed(state, waiting=rest, slots=_replaced(state.slots, event.slot, slot))
        case e.BatchPlanned():
            return _taken(state, event)
        case e.BatchDecoded():
            _check(state, event)
            slots = state.slots
            for number, position in event.positions:
                slots = _replaced(slots, number, changed(slots[number], length=position + 1))
            return changed(state, slots=slots, in_flight=False)
        case e.EngineFailed():
            return changed(state, in_flight=False, broken=event.failure)
        case e.SlotReleased():
            slot = changed(state.slots[event.slot], sequence=None, stale=True, queued=Inputs())
            return changed(state, slots=_replaced(state.slots, event.slot, slot))
        case e.RequestRejected() | e.BatchFailed() | e.TokenDropped():
            return state
        case _:
            raise InternalError(f"{type(event).__name__} is not an event of the Batcher")


def decide(state: Batcher, event: e.Event) -> list[e.Event]:
    """Return what follows for the Batcher from an event that it hears of."""
    match event:
        case e.RequestReceived():
            return [_admit(state, event)]
        case e.BatchDecoded():
            return _commit(state, event)
        case e.SequenceFinished():
            for number, slot in enumerate(state.slots):
                if slot.sequence == event.sequence:
                    return [e.SlotReleased(sequence=event.sequence, slot=number, length=slot.length)]
            if any(w.sequence == event.sequence for w in state.waiting):
                return [e.RequestWithdrawn(sequence=event.sequence)]
            return []
        case _:
            raise InternalError(f"the Batcher does not listen to {type(event).__name__}")


def proceed(state: Batcher) -> list[e.Event]:
    """Return what the Batcher does when everybody has had his say: give out slots, or else plan the next batch."""
    if state.in_flight or state.broken is not None:
        return []
    return _assign(state) or _plan(state)


def _assign(state: Batcher) -> list[e.Event]:
    """Give free slots, lowest first, to the requests that came first.

    A request that is still being tokenised keeps its place: nobody overtakes it.
    """
    free = [number for number, slot in enumerate(state.slots) if slot.sequence is None]
    assigned: list[e.Event] = []
    for number, waiting in zip(free, state.waiting, strict=False):
        if not waiting.queued.tokens:
            break
        assigned.append(e.SlotAssigned(sequence=waiting.sequence, slot=number))
    return assigned


def _plan(state: Batcher) -> list[e.Event]:
    """Plan the next batch, if any slot has inputs queued."""
    ready = [(number, slot) for number, slot in enumerate(state.slots) if slot.queued.tokens]
    if not ready:
        return []
    rows = share_rows([len(slot.queued.tokens) for _, slot in ready], state.n_batch)
    clears: list[int] = []
    parts: list[e.Part] = []
    for (number, slot), n_rows in zip(ready, rows, strict=True):
        if slot.sequence is None:
            raise InternalError(f"slot {number} has inputs and no sequence")
        if slot.stale:
            clears.append(number)
        parts.append(
            e.Part(
                sequence=slot.sequence,
                slot=number,
                position=0 if slot.stale else slot.length,
                tokens=slot.queued.tokens[:n_rows],
                draw=slot.queued.draw if n_rows == len(slot.queued.tokens) else None,
            )
        )
    batch = 0 if state.plan is None else state.plan.batch + 1
    return [e.BatchPlanned(batch=batch, clears=tuple(clears), parts=tuple(parts))]


def _admit(state: Batcher, event: e.RequestReceived) -> e.Event:
    if state.broken is not None:
        return e.RequestRejected(sequence=event.sequence, failure=state.broken)
    n_free = sum(slot.sequence is None for slot in state.slots)
    n_waiting = len(state.waiting)
    if n_waiting >= state.max_waiting + n_free:
        reason = f"{state.max_waiting} requests may wait for a slot, and so many do; try again later"
        return e.RequestRejected(sequence=event.sequence, failure=e.Failure(kind="overloaded", reason=reason))
    return e.RequestQueued(sequence=event.sequence, n_ahead=n_waiting)


def _queue(state: Batcher, event: e.InputQueued) -> Batcher:
    queued = Inputs(tokens=event.tokens, draw=event.draw)
    for number, slot in enumerate(state.slots):
        if slot.sequence == event.sequence:
            return changed(state, slots=_replaced(state.slots, number, changed(slot, queued=queued)))
    return changed(
        state,
        waiting=tuple(changed(w, queued=queued) if w.sequence == event.sequence else w for w in state.waiting),
    )


def _taken(state: Batcher, event: e.BatchPlanned) -> Batcher:
    """Take a plan's inputs out of the queues."""
    slots = state.slots
    for part in event.parts:
        slot = slots[part.slot]
        length = 0 if part.slot in event.clears else slot.length
        queued = changed(slot.queued, tokens=slot.queued.tokens[len(part.tokens) :])
        slots = _replaced(slots, part.slot, changed(slot, length=length, stale=False, queued=queued))
    return changed(state, slots=slots, plan=event, in_flight=True)


def _commit(state: Batcher, event: e.BatchDecoded) -> list[e.Event]:
    """End the sequences of a batch that failed, or account for tokens that nobody waits for any more."""
    parts = () if state.plan is None else state.plan.parts
    if event.code != 0:
        sequences = tuple(sorted(part.sequence for part in parts))
        return [e.BatchFailed(batch=event.batch, sequences=sequences, failure=_failure(event.code))]
    holders = {slot.sequence for slot in state.slots}
    draws = {part.sequence: part.draw or 0 for part in parts}
    return [
        e.TokenDropped(sequence=sample.sequence, index=draws[sample.sequence], token=sample.token)
        for sample in event.samples
        if sample.sequence not in holders and not sample.nan
    ]


def _check(state: Batcher, decoded: e.BatchDecoded) -> None:
    """Refuse an outcome that is none of the batch in flight: then our picture of the cells is wrong."""
    planned = state.plan
    if planned is None or not state.in_flight or decoded.batch != planned.batch:
        raise InternalError(f"batch {decoded.batch} was decoded and is not in flight")
    drawn = tuple(part.sequence for part in planned.parts if part.draw is not None) if decoded.code == 0 else ()
    if tuple(sample.sequence for sample in decoded.samples) != drawn:
        raise InternalError(f"batch {decoded.batch} was sampled for other sequences than planned")
    due = tuple((part.slot, part.position + len(part.tokens) - 1) for part in planned.parts)
    if decoded.code == 0 and decoded.positions != due:
        raise InternalError(f"the last positions are {list(decoded.positions)}, and by the plan {list(due)}")
    if not {slot for slot, _ in decoded.positions} <= {slot for slot, _ in due}:
        raise InternalError(f"batch {decoded.batch} has positions of slots that are not in it")


def _failure(code: int) -> e.Failure:
    """Say whose fault a return code of llama_decode is (docs/runner-semantics.md section 2, "Faults")."""
    if code in {1, -1}:
        # A slot has a stream of its own and the plan is within it: our picture of the cells is wrong.
        meaning = "no room in the cells" if code == 1 else "an invalid batch"
        return e.Failure(kind="internal_error", reason=f"llama_decode returned {code}, {meaning}")
    return e.Failure(kind="sequence_failed", reason=f"llama_decode returned {code}")


def _replaced(slots: tuple[Slot, ...], number: int, slot: Slot) -> tuple[Slot, ...]:
    return (*slots[:number], slot, *slots[number + 1 :])
