"""Slots, the waiting requests and the plan of each batch."""

from itertools import repeat
from typing import Any

import pytest
from attrs import evolve as changed

from reenact.actors import batcher as b
from reenact.actors import events as e
from reenact.actors.errors import Failure, InternalError
from reenact.actors.kernel import Kernel
from tests.helpers.driver import Driver
from tests.helpers.header import opened

ENDLESS = repeat(b"a")


def planned(driver: Driver) -> list[tuple[int, int, int, int | None]]:
    """Return sequence, first position, number of rows and draw of each part of the batch in flight."""
    assert driver.planned is not None
    return [(part.sequence, part.position, len(part.inputs), part.draw) for part in driver.planned.parts]


def assigned(driver: Driver) -> list[tuple[int, int]]:
    """Return the slots that were assigned so far, each with its sequence, in order."""
    return [(event.sequence, event.slot) for event in driver.events(e.SlotAssigned)]


def together(driver: Driver, sequences: list[int]) -> None:
    """Tokenize the first one last, so that all of them start in the same batch."""
    for sequence in reversed(sequences):
        driver.tokenize(sequence)


def test_the_third_request_waits_for_one_of_two_slots() -> None:
    """With 2 slots the third request starts when one of the first two ends, in its slot."""
    driver = Driver(n_slots=2)
    together(driver, [driver.receive(b"a", b"b", b"c"), driver.receive(b"d"), driver.receive(b"e")])
    driver.step()
    assert [(1, 0), (2, 1)] == assigned(driver)
    driver.step()
    assert [(1, 0), (2, 1), (3, 1)] == assigned(driver)
    assert [(1, 4, 1, 2), (3, 0, 3, 0)] == planned(driver)
    driver.run()
    assert ["abc", "d", "e"] == [driver.text(sequence) for sequence in (1, 2, 3)]


def test_a_slot_is_trimmed_before_its_next_sequence() -> None:
    """What its next sequence cannot use is removed in the batch with that one's first rows, and only there."""
    driver = Driver(n_slots=1)
    for piece in (b"a", b"b"):
        driver.submit(piece)
    driver.run()
    trim = e.Trim(slot=0, length=0)
    assert [(), (), (trim,), ()] == [plan.trims for plan in driver.events(e.BatchPlanned)]
    assert [200, 201, 202, 2000] == driver.cells[0]


def test_a_long_prompt_goes_in_chunks() -> None:
    """A prompt longer than a batch advances batch by batch, and logits are asked for in its last row only."""
    driver = Driver(n_batch=4)
    driver.submit(prompt=10)
    plans = []
    while driver.planned is not None:
        plans += planned(driver)
        driver.step()
    assert [(1, 0, 4, None), (1, 4, 4, None), (1, 8, 2, 0)] == plans
    assert list(range(100, 110)) == driver.cells[0]


def test_a_generating_sequence_does_not_wait_for_a_prompt() -> None:
    """A sequence that generates has a row in every batch; another's prompt gets the rest."""
    driver = Driver(n_batch=4)
    driver.submit(script=ENDLESS, num_predict=5)
    driver.submit(prompt=8)
    driver.step()
    assert [(1, 3, 1, 1), (2, 0, 3, None)] == planned(driver)
    driver.step()
    assert [(1, 4, 1, 2), (2, 3, 3, None)] == planned(driver)


def test_prompts_advance_together() -> None:
    """Prompts share the rows of a batch, so that every prompt advances in each."""
    driver = Driver(n_slots=3, n_batch=6)
    together(driver, [driver.receive(prompt=1), driver.receive(prompt=20), driver.receive(prompt=20)])
    assert [(1, 0, 1, 0), (2, 0, 3, None), (3, 0, 2, None)] == planned(driver)
    driver.step()
    assert [(2, 3, 3, None), (3, 2, 3, None)] == planned(driver)


def test_rows_go_by_slot_and_the_lowest_free_slot_is_given() -> None:
    """A batch is ascending by slot, whichever request came first."""
    driver = Driver(n_slots=3)
    together(driver, [driver.receive(script=ENDLESS) for _ in range(3)])
    driver.cancel(2)
    driver.cancel(1)
    for _ in range(2):
        driver.submit(script=ENDLESS)
    driver.step()
    assert [4, 5, 3] == driver.holders()
    assert [4, 5, 3] == [sequence for sequence, *_ in planned(driver)]


def test_requests_are_served_in_the_order_of_their_arrival() -> None:
    """A request that is tokenized sooner does not overtake an earlier one."""
    driver = Driver(n_slots=1)
    first = driver.receive(b"a")
    second = driver.submit(b"b")
    assert driver.planned is None
    driver.tokenize(first)
    driver.run()
    assert [(first, 0), (second, 0)] == assigned(driver)


def test_nobody_overtakes_even_where_slots_are_free() -> None:
    """A free slot is kept for the request whose turn it is."""
    driver = Driver(n_slots=2)
    first = driver.submit(script=ENDLESS)
    second = driver.receive(b"b")
    third = driver.submit(script=ENDLESS)
    driver.step()
    assert [first, None] == driver.holders()
    driver.cancel(second)
    driver.step()
    assert [first, third] == driver.holders()


def test_a_full_queue_refuses_at_once() -> None:
    """As many requests wait as may; the next one is refused at once, and no other notices."""
    driver = Driver(n_slots=1, max_waiting=1)
    numbers = [driver.submit(b"a") for _ in range(3)]
    reason = "1 requests may wait for a slot, and so many do; try again later"
    failure = Failure(kind="overloaded", reason=reason)
    assert failure == driver.failure(numbers[2])
    assert [e.RequestRejected(sequence=3, failure=failure)] == driver.events(e.RequestRejected)
    driver.run()
    assert ["a", "a", ""] == [driver.text(number) for number in numbers]


def test_a_full_queue_lets_in_who_goes_first() -> None:
    """Where all slots have sequences of its own priority, a request takes the place of the last in turn."""
    driver = Driver(n_slots=1, max_waiting=2)
    driver.submit(b"a", b"a", priority=1)
    low, lowest, youngest = (driver.submit(b"b", priority=priority) for priority in (0, -1, -1))
    high = driver.submit(b"c", priority=1)
    (displaced,) = driver.events(e.RequestDisplaced)
    assert (lowest, high) == (displaced.sequence, displaced.by)
    assert "2 requests may wait for a slot, and so many do: one with priority 1 goes" in driver.failure(lowest).reason
    assert ["overloaded", "overloaded"] == [driver.failure(number).kind for number in (lowest, youngest)]
    driver.run()
    assert ["aa", "b", "c"] == [driver.text(number) for number in (1, low, high)]


def test_who_leaves_for_another_is_the_youngest_of_the_lowest() -> None:
    """Of those that wait with the lowest priority the one that came last leaves, also while it is tokenized."""
    driver = Driver(n_slots=1, max_waiting=3)
    driver.submit(b"a", priority=2)
    for _ in range(3):
        driver.receive(b"b")
    driver.receive(b"c", priority=1)
    assert [4] == [displaced.sequence for displaced in driver.events(e.RequestDisplaced)]
    driver.receive(b"c")
    assert [6] == [rejected.sequence for rejected in driver.events(e.RequestRejected)]


def test_who_takes_a_slot_at_once_needs_no_place() -> None:
    """A request for which a lower priority makes room comes into a full queue, and none leaves for it."""
    driver = Driver(n_slots=2, max_waiting=1)
    low = [driver.submit(b"a", b"b") for _ in range(2)]
    driver.step()
    low.append(driver.submit(b"a", b"b"))
    high = [driver.submit(b"c", priority=1) for _ in range(4)]
    assert [high[-1]] == [rejected.sequence for rejected in driver.events(e.RequestRejected)]
    assert [low[-1]] == [displaced.sequence for displaced in driver.events(e.RequestDisplaced)]
    driver.run()
    assert ["ab", "ab", "", "c", "c", "c", ""] == [driver.text(number) for number in (*low, *high)]


def test_free_slots_do_not_count_as_waiting() -> None:
    """With no room to wait, as many requests as there are free slots are still taken before they are tokenized."""
    driver = Driver(n_slots=2, max_waiting=0)
    numbers = [driver.receive(b"a") for _ in range(3)]
    assert [3] == [rejected.sequence for rejected in driver.events(e.RequestRejected)]
    for number in numbers:
        driver.tokenize(number)
    driver.run()
    assert ["a", "a", ""] == [driver.text(number) for number in numbers]


def test_room_in_the_queue_comes_back() -> None:
    """A request that leaves the queue makes room for another one."""
    driver = Driver(n_slots=1, max_waiting=1)
    for _ in range(2):
        driver.submit(b"a")
    driver.cancel(2)
    driver.submit(b"b")
    driver.run()
    assert ("b", []) == (driver.text(3), driver.events(e.RequestRejected))


def test_one_batch_is_in_flight() -> None:
    """While a batch is in flight no other one is planned, whatever comes."""
    driver = Driver(n_slots=2)
    driver.submit(b"a")
    driver.submit(b"b")
    assert [0] == [plan.batch for plan in driver.events(e.BatchPlanned)]
    driver.step()
    assert [0, 1] == [plan.batch for plan in driver.events(e.BatchPlanned)]


def test_nothing_is_planned_in_flight_or_after_the_engine_failed() -> None:
    """With inputs queued, a plan is made if no batch is in flight and the engine works, and only then."""
    state = b.opened(opened())
    for event in (
        e.RequestQueued(sequence=1, priority=0, n_ahead=0),
        e.InputQueued(sequence=1, inputs=(1, 2), wants=e.Draw(0)),
        e.SlotAssigned(sequence=1, slot=0, reused=0, source=None),
    ):
        state = b.evolve(state, event)
    assert [e.BatchPlanned] == [type(event) for event in b.proceed(state)]
    (planned,) = b.proceed(state)
    assert [] == b.proceed(b.evolve(state, planned))
    assert [] == b.proceed(b.evolve(state, e.EngineFailed(error="...")))


def test_a_plan_names_the_fact_that_led_to_it() -> None:
    """The cause of a plan is the given record after which every actor had decided."""
    driver = Driver()
    number = driver.receive(b"a")
    driver.tokenize(number)
    tokenized, plan = (
        next(record for record in driver.records if isinstance(record.event, kind))
        for kind in (e.PromptTokenized, e.BatchPlanned)
    )
    assert tokenized.n == plan.cause


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"batch": 7}, "batch 7 was decoded and is not in flight"),
        ({"positions": ((0, 3),)}, r"the last positions are \[\(0, 3\)\], and by the plan \[\(0, 2\)\]"),
        ({"positions": ()}, r"the last positions are \[\], and"),
        ({"positions": ((1, 2),), "code": -2, "samples": ()}, "positions of slots that are not in it"),
        ({"samples": ()}, "sampled for other sequences, or other tokens, than planned"),
        ({"samples": (e.Sample(sequence=1, index=1, token=7),)}, "sampled for other sequences, or other tokens, than"),
        ({"code": 1}, "sampled for other sequences, or other tokens, than planned"),
        ({"vectors": (e.Vector(sequence=1, values=(1.0,), crc32=0),)}, "pooled for other sequences than planned"),
    ],
)
def test_an_outcome_that_is_not_the_plans_is_refused(wrong: dict[str, Any], reason: str) -> None:
    """What contradicts the batch in flight is no fact: the kernel raises, and no actor has heard of it."""
    driver = Driver()
    driver.submit(b"a")
    before = driver.kernel.state, driver.kernel.digest()
    right = e.BatchDecoded(
        batch=0, code=0, samples=(e.Sample(sequence=1, index=0, token=7),), vectors=(), positions=((0, 2),)
    )
    with pytest.raises(InternalError, match=reason):
        driver.kernel.handle(changed(right, **wrong))
    assert before == (driver.kernel.state, driver.kernel.digest())


def test_a_batch_is_decoded_once() -> None:
    """The same outcome a second time is refused."""
    driver = Driver()
    driver.submit(b"a")
    decoded = driver.decoded()
    driver.pause(1)
    driver.give(decoded)
    with pytest.raises(InternalError, match="not in flight"):
        driver.kernel.handle(decoded)


def test_a_batch_has_a_row_for_every_slot() -> None:
    """A session whose batches have fewer rows than it has slots cannot be opened: a sequence would be skipped."""
    with pytest.raises(InternalError, match="has none for some of 4 slots"):
        Kernel().handle(opened(n_slots=4, n_batch=3))


def test_the_batcher_does_not_take_foreign_events() -> None:
    """An event that is another's neither changes the Batcher nor is decided on."""
    state = b.opened(opened())
    with pytest.raises(InternalError, match="SequencePaused is not an event of the Batcher"):
        b.evolve(state, e.SequencePaused(sequence=1))
    with pytest.raises(InternalError, match="does not listen to SequencePaused"):
        b.decide(state, e.SequencePaused(sequence=1))
