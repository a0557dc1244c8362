"""What becomes of a slot whose sequence waits for its reader for too long."""

from itertools import repeat

from reenact.actors import events as e
from tests.helpers.driver import Driver

ENDLESS = repeat(b"a")


def stalled(**header: int) -> Driver:
    """Return a driver of one slot whose sequence 1 is paused after two tokens, and has three to go."""
    driver = Driver(**{"n_slots": 1} | header)
    driver.submit(script=ENDLESS, num_predict=5)
    driver.step()
    driver.pause(1)
    driver.step()
    assert driver.planned is None
    return driver


def test_who_is_paused_for_too_long_gives_up_the_slot() -> None:
    """Others are served meanwhile, and when its reader goes on the sequence says what it would have said."""
    driver = stalled()
    second = driver.submit(b"x", b"y")
    assert driver.planned is None
    driver.stall(1)
    assert [e.SlotYielded(sequence=1, slot=0)] == driver.events(e.SlotYielded)
    driver.run()
    assert ("xy", [None]) == (driver.text(second), driver.holders())
    driver.resume(1)
    driver.run()
    assert ("aaaaa", "length") == (driver.text(1), driver.end(1).finish_reason)


def test_a_slot_that_nobody_wanted_is_taken_over_again() -> None:
    """Where no other sequence had the slot, only the token that was kept back is evaluated."""
    driver = stalled()
    driver.stall(1)
    before = driver.n_evaluated
    driver.resume(1)
    assert driver.planned is not None
    assert [(4, (1001,))] == [(part.position, part.inputs) for part in driver.planned.parts]
    driver.run()
    assert 3 == driver.n_evaluated - before


def test_two_stalled_readers_do_not_stop_two_slots() -> None:
    """With both slots given up, others have them; and both go on when their readers do."""
    driver = Driver(n_slots=2)
    for _ in range(2):
        driver.submit(script=ENDLESS, num_predict=5)
    for _ in range(2):
        driver.step()
        for number in (1, 2):
            driver.pause(number)
    others = [driver.submit(b"x") for _ in range(3)]
    driver.stall(1)
    driver.stall(2)
    driver.run()
    assert ["x", "x", "x"] == [driver.text(number) for number in others]
    driver.resume(2)
    driver.resume(1)
    driver.run()
    assert ["aaaaa", "aaaaa"] == [driver.text(1), driver.text(2)]


def test_who_gave_up_a_slot_takes_no_place_in_the_queue() -> None:
    """It waits outside of the queue's limit, as a sequence that was preempted does."""
    driver = stalled(max_waiting=0)
    driver.stall(1)
    second = driver.submit(b"x", b"y")
    third = driver.submit(b"z")
    driver.run()
    assert ("xy", "overloaded") == (driver.text(second), driver.failure(third).kind)


def test_stalled_readers_fill_the_queue() -> None:
    """As many as there are slots take no place; when the others fill the queue, the next request is refused."""
    driver = Driver(n_slots=1, max_waiting=1)
    for number in (1, 2, 3):
        driver.submit(script=ENDLESS, num_predict=5)
        driver.step()
        driver.pause(number)
        driver.step()
        driver.stall(number)
    refused = driver.submit(b"x")
    assert ([None], "overloaded") == (driver.holders(), driver.failure(refused).kind)
    driver.cancel(2)
    taken = driver.submit(b"y")
    driver.run()
    assert "y" == driver.text(taken)


def test_who_is_not_paused_keeps_the_slot() -> None:
    """A time that is over for a sequence that goes on, waits, or has ended changes nothing."""
    driver = Driver(n_slots=1)
    driver.submit(script=ENDLESS, num_predict=3)
    waiting = driver.submit(b"x")
    driver.stall(1)
    driver.stall(waiting)
    driver.pause(1)
    driver.stall(1)
    driver.run()
    driver.resume(1)
    driver.stall(1)
    driver.run()
    driver.stall(1)
    assert ([], "aaa", "x") == (driver.events(e.SlotYielded), driver.text(1), driver.text(waiting))


def test_who_was_preempted_has_no_slot_to_give_up() -> None:
    """A paused sequence that made room for a higher priority waits already."""
    driver = stalled()
    high = driver.submit(b"x", priority=1)
    driver.stall(1)
    driver.run()
    driver.resume(1)
    driver.run()
    assert ([], "x", "aaaaa") == (driver.events(e.SlotYielded), driver.text(high), driver.text(1))


def test_a_slot_is_given_up_while_others_are_in_flight() -> None:
    """It is free at once, and given out when the batch comes back."""
    driver = Driver(n_slots=2)
    driver.submit(script=ENDLESS, num_predict=5)
    driver.submit(script=ENDLESS, num_predict=20)
    driver.pause(1)
    driver.step()
    third = driver.submit(b"x")
    driver.stall(1)
    assert [None, 2] == driver.holders()
    driver.step()
    assert [third, 2] == driver.holders()


def test_a_deadline_and_a_cancel_end_who_gave_up_the_slot() -> None:
    """It ends in the queue like any other that waits."""
    for end, reason in ((Driver.expire, "deadline"), (Driver.cancel, "cancelled")):
        driver = stalled()
        driver.stall(1)
        end(driver, 1)
        assert (reason, "aa") == (driver.end(1).finish_reason, driver.text(1))
