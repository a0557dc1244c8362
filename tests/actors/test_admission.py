"""The obstacles of a waiting sequence: another one's prompt, the tokenizer, the turn of others, or all slots taken."""

import pytest

from reenact.actors import batcher as b
from reenact.actors import events as e
from reenact.actors.admission import NextSlots, Obstacle, ahead_of, next_slots, obstacle
from tests.helpers.header import opened


def after(*events: e.Event, n_slots: int = 1, n_batch: int = 4) -> b.Batcher:
    """Return the Batcher's state after some of its events."""
    state = b.opened(opened(n_slots=n_slots, n_batch=n_batch))
    for event in events:
        state = b.evolve(state, event)
    return state


def queued(sequence: int, *, priority: int = 0) -> e.Event:
    """Return the event that puts a sequence into the queue."""
    return e.RequestQueued(sequence=sequence, priority=priority, n_ahead=0)


def inputs(sequence: int, *prompt: int) -> e.Event:
    """Return the event that gives a sequence its prompt."""
    return e.InputQueued(sequence=sequence, inputs=prompt, wants=e.Draw(0))


def in_slot(sequence: int, *prompt: int, slot: int = 0, priority: int = 0) -> tuple[e.Event, ...]:
    """Return the events by which a sequence comes into a slot."""
    assigned = e.SlotAssigned(sequence=sequence, slot=slot, reused=0, source=None)
    return queued(sequence, priority=priority), inputs(sequence, *prompt), assigned


def planned(state: b.Batcher) -> b.Batcher:
    """Return the state with the next batch in flight."""
    (plan,) = b.proceed(state)
    assert isinstance(plan, e.BatchPlanned)
    return b.evolve(state, plan)


def kept(state: b.Batcher, sequence: int) -> tuple[Obstacle, tuple[int, ...]]:
    """Return the obstacle of a waiting sequence, and the sequences behind which it waits."""
    work = next(one for one in state.waiting if one.sequence == sequence)
    return obstacle(state, next_slots(state).after, work)


def test_slots_are_assigned_as_if_the_batch_were_back() -> None:
    """Behind a batch in flight the waiting sequences get the free slots, and nothing is planned for them."""
    state = planned(after(*in_slot(1, 1, 2), n_slots=3))
    for event in (queued(2), inputs(2, 3), queued(3), inputs(3, 4), queued(4), inputs(4, 5)):
        state = b.evolve(state, event)
    found = next_slots(state)
    assert {2: None, 3: None} == found.losers
    assert [1, 2, 3] == [slot.sequence for slot in found.after.slots]
    assert (None, state.flight and state.flight.plan) == (
        found.after.in_flight,
        found.after.flight and found.after.flight.plan,
    )


def test_a_lower_priority_loses_its_slot() -> None:
    """The sequence that makes room is named for the one that gets the slot, and for no later one."""
    state = after(*in_slot(1, 1, 2), queued(2, priority=1), inputs(2, 3), n_slots=1)
    assert {2: 1} == next_slots(state).losers
    two = after(*in_slot(1, 1, 2), queued(2, priority=2), inputs(2, 3), queued(3, priority=1), inputs(3, 4), n_slots=2)
    assert {2: None, 3: 1} == next_slots(two).losers


def test_nothing_to_assign() -> None:
    """Where nothing waits the state stays as it is."""
    state = after(n_slots=2)
    assert NextSlots(state, {}) == next_slots(state)


def test_all_slots_are_taken() -> None:
    """A sequence waits behind all holders of slots."""
    state = after(*in_slot(1, 1, 2), *in_slot(2, 3, 4, slot=1), queued(3), inputs(3, 5), n_slots=2)
    assert ("slot", (1, 2)) == kept(state, 3)


def test_a_prompt_that_begins_alike_goes_first() -> None:
    """With a slot free, a sequence waits for the beginning that another one evaluates."""
    common = range(40)
    state = after(*in_slot(1, *common, 98), queued(2), inputs(2, *common, 99), n_slots=2, n_batch=8)
    assert ("prompt", (1,)) == kept(state, 2)


@pytest.mark.parametrize("priority", [0, 1])
def test_a_prompt_that_is_being_tokenized_goes_first(priority: int) -> None:
    """A sequence without inputs keeps its turn where a slot is free for it, or a lower priority has one."""
    state = after(queued(1), queued(2), inputs(2, 5), n_slots=1)
    assert ("tokenizer", (1,)) == kept(state, 2)
    busy = after(*in_slot(1, 1, 2), queued(2, priority=priority), queued(3), inputs(3, 5), n_slots=1)
    assert (("tokenizer", (2,)) if priority else ("slot", (1,))) == kept(busy, 3)


def test_others_have_their_turn() -> None:
    """With one slot free for two sequences, the second waits for the turn of the first."""
    state = after(queued(1), inputs(1, 1), queued(2), inputs(2, 5), n_slots=1)
    assert ("turn", (1,)) == kept(state, 2)


def test_a_paused_reader_is_not_ahead() -> None:
    """A sequence that is kept back by its reader is passed over; the others go in their turn."""
    taken = e.BatchPlanned(batch=0, parts=(e.Part(sequence=1, slot=0, position=0, inputs=(1,), wants=e.Draw(0)),))
    sample = e.Sample(sequence=1, index=0, token=7)
    back = e.BatchDecoded(batch=0, code=e.DONE, samples=(sample,), positions=((0, 0),))
    state = after(*in_slot(1, 1), taken, back, e.SlotYielded(sequence=1, slot=0), queued(2), inputs(2, 5), queued(3))
    (_, second, third) = state.waiting
    assert [[], [2]] == [[one.sequence for one in ahead_of(state, work)] for work in (second, third)]
