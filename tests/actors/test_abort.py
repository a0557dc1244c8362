"""Ending a batch early, because a sequence that ended has a long prefill in it."""

from itertools import repeat

import pytest

from reenact.actors import events as e
from tests.helpers.driver import Driver

ENDLESS = repeat(b"a")


def beside_a_prefill() -> Driver:
    """Return a driver in whose batch in flight sequence 1 has one row and sequence 2 a chunk of its prompt."""
    driver = Driver(n_batch=8)
    driver.submit(b"b", b"c", b"d")
    driver.submit(prompt=40)
    driver.step()
    assert driver.planned is not None
    assert [1, 7] == [len(part.inputs) for part in driver.planned.parts]
    return driver


@pytest.mark.parametrize("leave", [Driver.cancel, Driver.expire])
def test_a_prefill_that_nobody_waits_for_is_aborted(leave: object) -> None:
    """When a sequence with several rows in flight ends, the batch is to end early."""
    driver = beside_a_prefill()
    leave(driver, 2)  # type: ignore[operator]  # one of the driver's methods
    assert [e.AbortRequested(batch=1, sequence=2)] == driver.events(e.AbortRequested)


def test_a_single_row_is_waited_for() -> None:
    """A row of a sequence that generates is not worth an abort: the batch goes on for the others."""
    driver = beside_a_prefill()
    driver.cancel(1)
    assert [] == driver.events(e.AbortRequested)


def test_who_has_no_rows_in_flight_aborts_nothing() -> None:
    """A sequence that is paused, or waits, has nothing in the batch that could end."""
    driver = Driver(n_slots=2, n_batch=8)
    paused = driver.submit(b"b", b"c")
    driver.pause(paused)
    driver.step()
    driver.submit(prompt=40)
    waiting = driver.submit(prompt=40)
    driver.cancel(waiting)
    driver.cancel(paused)
    assert [] == driver.events(e.AbortRequested)


def test_a_batch_is_aborted_once() -> None:
    """The second prefill that ends in the same batch asks for nothing more."""
    driver = Driver(n_slots=3, n_batch=9)
    for _ in range(3):
        driver.submit(prompt=40)
    driver.step()
    driver.cancel(1)
    driver.cancel(2)
    assert [e.AbortRequested(batch=1, sequence=1)] == driver.events(e.AbortRequested)


@pytest.mark.parametrize("rows", [0, 1, 4, 8])
def test_after_an_abort_the_others_go_on(rows: int) -> None:
    """However many rows were evaluated, the others get their whole text; none ends with an error."""
    driver = beside_a_prefill()
    driver.cancel(2)
    driver.step(code=2, rows=rows)
    assert [] == driver.events(e.BatchFailed)
    driver.run()
    assert ("bcd", "stop", [None, None]) == (driver.text(1), driver.end(1).finish_reason, driver.holders())


def test_after_an_abort_the_last_input_is_evaluated_again() -> None:
    """Logits are gone with an aborted decode: the row whose token is wanted is taken out and evaluated again."""
    driver = beside_a_prefill()
    driver.cancel(2)
    driver.step(code=2, rows=3)
    plan = driver.events(e.BatchPlanned)[-1]
    assert (e.Trim(slot=0, length=3),) == plan.trims
    assert [(1, 3, (1000,), 1)] == [(part.sequence, part.position, part.inputs, part.draw) for part in plan.parts]


def test_a_row_that_was_not_reached_is_not_trimmed() -> None:
    """Where an abort came before a sequence's rows, they are planned again as they were."""
    driver = beside_a_prefill()
    driver.cancel(2)
    driver.step(code=2, rows=0)
    plan = driver.events(e.BatchPlanned)[-1]
    assert ((), [(3, (1000,))]) == (plan.trims, [(part.position, part.inputs) for part in plan.parts])


def test_another_prefill_goes_on_where_the_abort_left_it() -> None:
    """What was evaluated of another's prompt before the abort is not evaluated again."""
    driver = Driver(n_slots=2, n_batch=8)
    driver.submit(prompt=20)
    driver.submit(prompt=20)
    driver.step()
    driver.cancel(2)
    driver.step(code=2, rows=3)
    plan = driver.events(e.BatchPlanned)[-1]
    assert [(1, 11, 8)] == [(part.sequence, part.position, len(part.inputs)) for part in plan.parts]


def test_what_was_prefilled_before_an_abort_is_reused() -> None:
    """The rows that an aborted decode evaluated for a sequence that ended stay as a prefix for another."""
    driver = beside_a_prefill()
    driver.cancel(2)
    driver.step(code=2, rows=5)
    number = driver.submit(prompt=range(200, 240))
    driver.run()
    assert 4 == driver.reused(number)


def test_an_abort_can_come_too_late() -> None:
    """A batch that was done before it was to end early counts like any other."""
    driver = beside_a_prefill()
    driver.cancel(2)
    driver.step()
    driver.run()
    assert ("bcd", []) == (driver.text(1), driver.events(e.BatchFailed))


def test_an_abort_that_nobody_asked_for_is_a_failure() -> None:
    """Code 2 without an `AbortRequested` ends the sequences of the batch."""
    driver = beside_a_prefill()
    driver.step(code=2)
    reason = "llama_decode returned 2"
    assert [reason, reason] == [driver.failure(number).reason for number in (1, 2)]


def test_an_abort_is_asked_for_one_batch() -> None:
    """The batch after one that was aborted is not to end early."""
    driver = beside_a_prefill()
    driver.cancel(2)
    driver.step(code=2)
    driver.step(code=2)
    assert "sequence_failed" == driver.failure(1).kind


@pytest.mark.parametrize("code", [1, -1, -2])
def test_an_abort_excuses_no_other_code(code: int) -> None:
    """A batch that was to end early and failed in another way has failed."""
    driver = beside_a_prefill()
    driver.cancel(2)
    driver.step(code=code)
    assert ("error", 1) == (driver.end(1).finish_reason, len(driver.events(e.BatchFailed)))


def test_cancels_do_not_starve_the_others() -> None:
    """Though in every batch some sequence leaves a prefill, one that generates comes to its end."""
    driver = Driver(n_slots=3, n_batch=8)
    driver.submit(script=[b"a"] * 10)
    leavers = [driver.submit(prompt=50) for _ in range(2)]
    driver.step()
    n_batches = 0
    while driver.holders()[0] == 1:
        driver.cancel(leavers.pop(0))
        leavers.append(driver.submit(prompt=50))
        aborted = [event.batch for event in driver.events(e.AbortRequested)][-1:]
        assert driver.planned is not None
        driver.step(code=2 if [driver.planned.batch] == aborted else 0)
        n_batches += 1
    assert "a" * 10 == driver.text(1)
    assert (n_batches // 2, True) == (len(driver.events(e.AbortRequested)), n_batches > 10)


def test_a_batch_of_nobody_else_is_aborted_always() -> None:
    """Two batches in a row are aborted if only those who left were in the second."""
    driver = Driver(n_slots=1, n_batch=8)
    for _ in range(2):
        driver.cancel(driver.submit(prompt=20))
        driver.step(code=2)
    assert 2 == len(driver.events(e.AbortRequested))


def test_a_batch_that_is_lost_is_not_completed() -> None:
    """If the cells are lost after an aborted batch, the next batch is completed all the same."""
    driver = Driver(n_slots=3, n_batch=9)
    for _ in range(3):
        driver.submit(prompt=40)
    driver.step()
    driver.cancel(1)
    driver.step(code=2)
    driver.planned, driver.cells = None, [[] for _ in driver.cells]
    driver.give(e.CellsLost())
    driver.cancel(2)
    assert [1] == [event.batch for event in driver.events(e.AbortRequested)]


def test_two_rows_are_not_waited_for() -> None:
    """A batch that evaluates two rows of a request that has left is aborted; one with a single row is not worth it."""
    driver = Driver()
    driver.cancel(driver.submit(prompt=2))
    assert [e.AbortRequested(batch=0, sequence=1)] == driver.events(e.AbortRequested)
    other = Driver()
    other.cancel(other.submit(prompt=1))
    assert [] == other.events(e.AbortRequested)
