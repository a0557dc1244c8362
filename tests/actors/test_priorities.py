"""The order of the queue, and which sequence makes room for which."""

from itertools import repeat

import pytest
from attrs import evolve as changed

from reenact.actors import events as e
from reenact.actors.batcher import evolve, preempted
from reenact.actors.errors import InternalError
from reenact.actors.slots import Slot, Work
from tests.helpers.driver import Driver

ENDLESS = repeat(b"a")


def served(driver: Driver) -> list[int]:
    """Return the sequences that got a slot so far, in order."""
    return [event.sequence for event in driver.events(e.SlotAssigned)]


def test_a_higher_priority_is_admitted_first() -> None:
    """Requests that wait are served by priority, and among equals first come first served."""
    driver = Driver(n_slots=1)
    driver.submit(b"a", priority=9)
    for priority in (0, 1, 0, 1, -1):
        driver.submit(b"b", priority=priority)
    driver.run()
    assert [1, 3, 5, 2, 4, 6] == served(driver)


def test_who_is_told_how_many_are_before_him() -> None:
    """A request that is queued is told how many get a slot before it."""
    driver = Driver(n_slots=1)
    for priority in (9, 0, 1, 0, 2):
        driver.receive(priority=priority)
    assert [0, 1, 1, 3, 1] == [queued.n_ahead for queued in driver.events(e.RequestQueued)]


def test_a_request_that_is_tokenized_late_keeps_its_place() -> None:
    """None overtakes a request of its own priority that is still being tokenized; a higher priority does."""
    driver = Driver(n_slots=1)
    late = driver.receive(b"a")
    equal = driver.submit(b"b")
    assert [] == served(driver)
    higher = driver.submit(b"c", priority=1)
    assert [higher] == served(driver)
    driver.run()
    assert [higher] == served(driver)
    driver.tokenize(late)
    driver.run()
    assert [higher, late, equal] == served(driver)


def test_the_youngest_of_a_lower_priority_makes_room() -> None:
    """Where no slot is free, the sequence of a lower priority that came last loses its slot."""
    driver = Driver(n_slots=3)
    for priority in (1, 0, 0):
        driver.submit(script=ENDLESS, num_predict=9, priority=priority)
    for _ in range(3):
        driver.step()
    higher = driver.submit(b"x", priority=2)
    assert [] == driver.events(e.SequencePreempted)
    driver.step()
    assert [e.SequencePreempted(sequence=3, slot=2, by=higher)] == driver.events(e.SequencePreempted)
    assert [1, 2, higher] == driver.holders()


def test_one_makes_room_and_not_two() -> None:
    """Among lower priorities it is the lowest: a younger one in between would take that one's slot in turn."""
    driver = Driver(n_slots=2)
    for priority in (0, 1):
        driver.submit(script=ENDLESS, num_predict=9, priority=priority)
    driver.step()
    driver.submit(b"x", priority=2)
    driver.step()
    assert [1] == [event.sequence for event in driver.events(e.SequencePreempted)]


@pytest.mark.parametrize("priority", [0, -1])
def test_nobody_makes_room_for_an_equal(priority: int) -> None:
    """A request of an equal or a lower priority waits for a slot to become free."""
    driver = Driver(n_slots=1)
    driver.submit(script=ENDLESS, num_predict=5)
    driver.submit(b"x", priority=priority)
    driver.run()
    assert ([], [1, 2]) == (driver.events(e.SequencePreempted), served(driver))


@pytest.mark.parametrize(
    ("priorities", "slot"), [((1, 1), None), ((2, 1), None), ((1, 0), 1), ((0, 0, 0), 2), ((-1, 0), 0)]
)
def test_who_is_chosen_to_make_room(priorities: tuple[int, ...], slot: int | None) -> None:
    """For a priority of 1 it is the youngest of the lowest below, and none where all have as much or more."""
    works = [Work(sequence=number, priority=priority) for number, priority in enumerate(priorities)]
    expected = None if slot is None else (slot, works[slot])
    assert expected == preempted(Work(sequence=9, priority=1), tuple(Slot(work=work) for work in works))


def test_a_free_slot_is_taken_before_anybody_loses_his() -> None:
    """While a slot is free, no sequence makes room."""
    driver = Driver(n_slots=2)
    driver.submit(script=ENDLESS, num_predict=5)
    driver.submit(b"x", priority=1)
    driver.run()
    assert [] == driver.events(e.SequencePreempted)


@pytest.mark.parametrize(("n_steps", "shift"), [(1, True), (2, True), (5, True), (8, True), (1, False), (4, False)])
def test_who_made_room_goes_on_as_if_nothing_had_been(n_steps: int, shift: bool) -> None:
    """A sequence that lost its slot says what it says alone; what it has is evaluated again, and nothing twice."""
    alone, driver = Driver(n_slots=1, n_ctx=8), Driver(n_slots=1, n_ctx=8)
    pieces = [b"b", b"<", b"/", b"c", b"\xc3", b"\xa9", b"d", b"e", b"f"]
    for one in (alone, driver):
        one.submit(*pieces, stop=["</s>"], shift=shift)
    alone.run()
    for _ in range(n_steps):
        driver.step()
    higher = driver.submit(b"x", b"y", priority=1)
    driver.run()
    assert (alone.chunks(1), alone.end(1)) == (driver.chunks(1), driver.end(1))
    assert "xy" == driver.text(higher)
    assert 1 == len(driver.events(e.SequencePreempted))
    assert [1, higher, 1] == served(driver)


def test_what_was_preempted_is_evaluated_again() -> None:
    """A sequence that made room has no cells afterwards: its prompt and its text go through the batches again."""
    driver = Driver(n_slots=1)
    driver.submit(b"a", b"b", b"c")
    driver.step()
    driver.step()
    driver.submit(b"x", priority=1)
    driver.run()
    parts = [part for plan in driver.events(e.BatchPlanned) for part in plan.parts if part.sequence == 1]
    assert [(0, 3), (3, 1), (4, 1), (0, 6)] == [(part.position, len(part.inputs)) for part in parts]
    assert (100, 101, 102, 1000, 1001, 1002) == parts[-1].inputs


def test_who_made_room_comes_before_who_came_later() -> None:
    """A sequence that lost its slot has its old place in the queue."""
    driver = Driver(n_slots=1)
    driver.submit(script=ENDLESS, num_predict=5)
    driver.step()
    driver.submit(b"b")
    driver.submit(b"x", priority=1)
    driver.run()
    assert [1, 3, 1, 2] == served(driver)


def test_who_made_room_waits_outside_the_limit() -> None:
    """The queue's limit does not count sequences that lost their slot: as many others may wait as before."""
    driver = Driver(n_slots=1, max_waiting=1)
    driver.submit(script=ENDLESS, num_predict=5)
    driver.step()
    driver.submit(script=ENDLESS, num_predict=9, priority=1)
    driver.step()
    waiting = driver.submit(b"b")
    refused = driver.submit(b"c")
    driver.run()
    assert ("aaaaa", "b", "overloaded") == (driver.text(1), driver.text(waiting), driver.failure(refused).kind)


def test_who_made_room_can_be_cancelled() -> None:
    """A sequence that waits for the second time leaves the queue like any other."""
    driver = Driver(n_slots=1)
    driver.submit(script=ENDLESS)
    driver.step()
    driver.submit(b"x", b"y", priority=1)
    driver.step()
    driver.cancel(1)
    driver.run()
    assert ("cancelled", "aa", "xy") == (driver.end(1).finish_reason, driver.text(1), driver.text(2))
    assert [e.RequestWithdrawn(sequence=1)] == driver.events(e.RequestWithdrawn)


def test_a_paused_sequence_that_made_room_holds_nobody_up() -> None:
    """A sequence without a slot whose reader does not read is passed over until it does."""
    driver = Driver(n_slots=1)
    driver.submit(b"a", b"b")
    driver.pause(1)
    driver.step()
    driver.submit(b"x", priority=1)
    later = driver.submit(b"y")
    driver.run()
    assert ([1, 2, later], "y") == (served(driver), driver.text(later))
    driver.resume(1)
    driver.run()
    assert ("ab", [1, 2, later, 1]) == (driver.text(1), served(driver))


def test_those_that_were_preempted_fill_the_queue() -> None:
    """Where as many wait as may beyond one for each slot, a higher priority is refused, and they go on."""
    driver = Driver(n_slots=1, max_waiting=1)
    for priority in range(5):
        driver.submit(b"a", b"b", priority=priority)
        driver.step()
    assert [5] == [rejected.sequence for rejected in driver.events(e.RequestRejected)]
    driver.run()
    assert ["ab", "ab", "ab", "ab", ""] == [driver.text(number) for number in (1, 2, 3, 4, 5)]


def test_no_more_wait_than_can() -> None:
    """A log in which more wait than any session lets wait is no session's: the state does not grow with it."""
    driver = Driver(n_slots=2)
    assert driver.kernel.state.batcher is not None
    works = tuple(Work(sequence=i, priority=0) for i in range(4102))
    one_more = e.RequestQueued(sequence=4101, priority=0, n_ahead=4101)
    assert works == evolve(changed(driver.kernel.state.batcher, waiting=works[:-1]), one_more).waiting
    with pytest.raises(InternalError, match="4102 sequences wait already"):
        evolve(changed(driver.kernel.state.batcher, waiting=works), changed(one_more, sequence=5000))
