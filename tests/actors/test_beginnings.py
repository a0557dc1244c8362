"""The sequences that wait until another one has evaluated the beginning of their prompt, and those that do not."""

from itertools import repeat

import pytest

from reenact.actors import events as e
from tests.helpers.driver import Driver

ENDLESS = repeat(b"a")
COMMON = range(100, 132)
"""What prompts begin with; it takes four batches of eight rows."""


def filling(**header: int) -> Driver:
    """Return a driver whose sequence 1 has the first of five batches of its prompt in flight."""
    driver = Driver(**{"n_slots": 3, "n_batch": 8} | header)
    driver.submit(script=ENDLESS, prompt=(*COMMON, *range(140, 148)), num_predict=3)
    return driver


def rows(driver: Driver) -> dict[int, int]:
    """Return how many rows each sequence has in the batch in flight."""
    assert driver.planned is not None
    return {part.sequence: len(part.inputs) for part in driver.planned.parts}


def test_a_prompt_waits_for_its_beginning_and_forks_it() -> None:
    """A slot stays free for it while the other prompt is evaluated as far as both are alike; then it is a fork."""
    driver = filling()
    second = driver.submit(b"x", prompt=(*COMMON, 7))
    for _ in range(3):
        driver.step()
        assert {1: 8} == rows(driver)
    driver.step()
    assert {1: 7, second: 1} == rows(driver)
    assert [e.SlotAssigned(sequence=second, slot=1, reused=32, source=0)] == driver.events(e.SlotAssigned)[1:]
    driver.run()
    assert ("aaa", "x") == (driver.text(1), driver.text(second))


def test_everybody_who_begins_alike_forks_at_once() -> None:
    """All that wait for the same beginning fork it when it is there."""
    driver = filling(n_slots=4)
    others = [driver.submit(b"x", prompt=(*COMMON, number)) for number in range(3)]
    for _ in range(4):
        driver.step()
    assert [32, 32, 32] == [driver.reused(number) for number in others]
    assert {1, *others} == rows(driver).keys()


def test_a_slot_is_kept_free_for_who_waits() -> None:
    """A later request gets a slot meanwhile if more than one is free, and not the one that is kept."""
    driver = filling()
    second = driver.submit(b"x", prompt=(*COMMON, 7))
    third, fourth = (driver.submit(b"x", script=ENDLESS, prompt=9, num_predict=9) for _ in range(2))
    driver.step()
    assert {1, third} == rows(driver).keys()
    while second not in rows(driver):
        driver.step()
        assert fourth not in rows(driver)
    # A batch for the last two would be one in which it evaluates two itself.
    assert 30 == driver.reused(second)
    driver.run()
    assert "xaaaaaaaa" == driver.text(fourth)


def test_a_short_beginning_is_not_waited_for() -> None:
    """Where it would evaluate more in a batch than the wait saves, it begins at once."""
    driver = filling()
    second = driver.submit(prompt=(*range(100, 111), *range(20)))
    driver.step()
    assert (8, {1: 4, second: 4}) == (driver.reused(second), rows(driver))


def test_who_generates_is_not_waited_for() -> None:
    """What a sequence will generate is no beginning to wait for, even where another prompt contains it already."""
    driver = Driver(n_slots=3, n_batch=8)
    driver.submit(script=ENDLESS, prompt=4)
    driver.step()
    second = driver.submit(prompt=(*range(100, 104), 1000, 1001, 1002, 1003, 7))
    driver.step()
    assert (5, 4) == (driver.reused(second), rows(driver)[second])


@pytest.mark.parametrize("end", [Driver.cancel, Driver.expire])
def test_who_waits_goes_on_if_the_other_leaves(end: object) -> None:
    """What was evaluated of the beginning is taken over, and the rest evaluated."""
    driver = filling()
    second = driver.submit(b"x", prompt=(*COMMON, 7))
    driver.step()
    end(driver, 1)  # type: ignore[operator]  # one of the driver's methods
    driver.step()
    assert (16, {second: 8}) == (driver.reused(second), rows(driver))


@pytest.mark.parametrize("code", [1, -1, -2])
def test_who_waits_goes_on_if_the_batch_fails(code: int) -> None:
    """Where the other one fails, the prompt is evaluated from its beginning on."""
    driver = filling()
    second = driver.submit(b"x", prompt=(*COMMON, 7))
    driver.step(code=code)
    assert (0, {second: 8}) == (driver.reused(second), rows(driver))
    driver.run()
    assert "x" == driver.text(second)


def test_who_waits_goes_on_if_the_other_makes_room() -> None:
    """A beginning whose sequence is preempted is not waited for any more."""
    driver = filling(n_slots=2)
    second = driver.submit(b"x", prompt=(*COMMON, 7))
    driver.step()
    others = [driver.submit(b"y", b"y", prompt=3, priority=1) for _ in range(2)]
    driver.step()
    assert [1] == [event.sequence for event in driver.events(e.SequencePreempted)]
    assert set(others) == rows(driver).keys()
    driver.run()
    assert ["aaa", "x", "yy", "yy"] == [driver.text(number) for number in (1, second, *others)]
