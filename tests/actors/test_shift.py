"""What happens when a context is full: moving cells, evaluating again, or the end."""

from itertools import repeat

import pytest

from reenact.actors import events as e
from reenact.actors.limits import NUM_PREDICT_CONTEXTS
from tests.helpers.driver import Driver

ENDLESS = repeat(b"a")


def full(**header: object) -> Driver:
    """Return a driver in which sequence 1 keeps 3 of 8 cells and has just sampled the token that has none."""
    driver = Driver(**{"n_ctx": 8, "n_slots": 1, **header})
    driver.submit(script=ENDLESS, prompt=6, num_keep=3, num_predict=9)
    for _ in range(3):
        driver.step()
    return driver


def sizes(driver: Driver) -> list[tuple[int, int]]:
    """Return the first position and the number of rows of each batch so far."""
    return [(part.position, len(part.inputs)) for plan in driver.events(e.BatchPlanned) for part in plan.parts]


def test_a_shift_comes_when_the_ninth_entry_is_needed() -> None:
    """In 8 cells with 3 kept the ninth entry drops 2 inputs behind the kept ones, and then every second one does."""
    driver = full()
    assert [e.ContextShifted(sequence=1, keep=3, discard=2)] == driver.events(e.ContextShifted)
    driver.run()
    assert [e.ContextShifted(sequence=1, keep=3, discard=2)] * 3 == driver.events(e.ContextShifted)
    shifts = (e.ContextShifted, e.TokenEmitted)
    kinds = ["s" if isinstance(event, e.ContextShifted) else "t" for event in driver.events(*shifts)]
    assert "ttt s tt s tt s tt".replace(" ", "") == "".join(kinds)
    assert ("a" * 9, "length") == (driver.text(1), driver.end(1).finish_reason)


def test_cells_are_moved() -> None:
    """Where the model can shift, the engine moves the cells in the next batch, and one row is evaluated."""
    driver = full(shift="move")
    plan = driver.events(e.BatchPlanned)[-1]
    assert (e.Shift(slot=0, keep=3, discard=2),) == plan.shifts
    driver.step()
    assert [100, 101, 102, 105, 1000, 1001, 1002] == driver.cells[0]
    driver.run()
    assert [(0, 6), (6, 1), (7, 1), (6, 1), (7, 1), (6, 1), (7, 1), (6, 1), (7, 1)] == sizes(driver)
    assert 3 == sum(len(plan.shifts) for plan in driver.events(e.BatchPlanned))


def test_inputs_are_evaluated_again() -> None:
    """Where results must not depend on the schedule, all behind the kept inputs is evaluated again, and none moved."""
    driver = full(shift="evaluate")
    plan = driver.events(e.BatchPlanned)[-1]
    assert ((), (e.Trim(slot=0, length=3),)) == (plan.shifts, plan.trims)
    driver.step()
    assert [100, 101, 102, 105, 1000, 1001, 1002] == driver.cells[0]
    driver.run()
    assert [(0, 6), (6, 1), (7, 1), (3, 4), (7, 1), (3, 4), (7, 1), (3, 4), (7, 1)] == sizes(driver)


def test_what_is_evaluated_again_goes_in_chunks() -> None:
    """Rows that a shift costs share the budget like a prompt's, and the token is sampled after the last of them."""
    driver = full(n_batch=3)
    driver.run()
    assert [(0, 3), (3, 3), (6, 1), (7, 1), (3, 3), (6, 1)] == sizes(driver)[:6]
    assert [None, 0, 1, 2, None, 3] == [plan.parts[0].draw for plan in driver.events(e.BatchPlanned)][:6]
    assert "a" * 9 == driver.text(1)


def test_without_shift_a_full_context_is_the_end() -> None:
    """With `shift` false the text ends with `context_full` when the ninth entry is needed."""
    driver = Driver(n_ctx=8)
    number = driver.submit(script=ENDLESS, prompt=6, num_keep=3, shift=False)
    driver.run()
    assert ("aaa", "context_full", 3) == (
        driver.text(number),
        driver.end(number).finish_reason,
        driver.end(number).n_sampled,
    )
    assert [] == driver.events(e.ContextShifted)


def test_a_token_that_ends_the_text_needs_no_shift() -> None:
    """A token after which nothing is evaluated needs no cell: no shift precedes the end."""
    driver = Driver(n_ctx=8)
    driver.submit(script=ENDLESS, prompt=8, num_predict=1)
    driver.submit(prompt=8)
    driver.run()
    assert ([], ["length", "stop"]) == (
        driver.events(e.ContextShifted),
        [driver.end(number).finish_reason for number in (1, 2)],
    )


@pytest.mark.parametrize("shift", ["move", "evaluate"])
def test_a_prompt_that_fills_the_context_is_shifted_at_once(shift: str) -> None:
    """A prompt of `n_ctx` inputs gives one token, and the second one makes room."""
    driver = Driver(n_ctx=8, shift=shift)
    driver.submit(script=ENDLESS, prompt=8, num_keep=0, num_predict=3)
    driver.step()
    assert [e.ContextShifted(sequence=1, keep=0, discard=4)] == driver.events(e.ContextShifted)
    driver.run()
    assert ("aaa", [104, 105, 106, 107, 1000, 1001]) == (driver.text(1), driver.cells[0])


def test_all_but_one_cell_may_be_kept() -> None:
    """Where the whole prompt is kept and fills the context, each further token takes the place of the one before."""
    driver = Driver(n_ctx=8, shift="move")
    driver.submit(script=ENDLESS, prompt=8, num_keep=-1, num_predict=4)
    driver.run()
    assert [e.ContextShifted(sequence=1, keep=7, discard=1)] * 3 == driver.events(e.ContextShifted)
    assert [*range(100, 107), 1002] == driver.cells[0]


def test_moved_cells_are_not_reused() -> None:
    """After cells were moved only the kept ones are a function of their inputs: no other sequence gets the rest."""
    driver = full(shift="move")
    driver.run()
    assert [3] == driver.lengths()
    number = driver.submit(prompt=driver.cells[0])
    driver.run()
    assert 3 == driver.reused(number)


def test_a_released_slot_says_how_much_of_it_is_of_use() -> None:
    """Cells that were moved do not count when a slot is released: its length is what another may have."""
    driver = full(shift="move")
    driver.run()
    assert [e.SlotReleased(sequence=1, slot=0, length=3)] == driver.events(e.SlotReleased)


def test_a_stop_string_longer_than_the_context() -> None:
    """Where hidden tokens outnumber the cells, because shifts dropped some of them, the slot is of no use."""
    driver = Driver(n_ctx=6, n_slots=1)
    driver.submit(*(bytes([byte]) for byte in b"abcdefgh"), num_keep=2, stop=["abcdefgh"])
    driver.run()
    assert ("", "abcdefgh", 7) == (driver.text(1), driver.end(1).stop, driver.end(1).n_hidden)
    assert [e.SlotReleased(sequence=1, slot=0, length=0)] == driver.events(e.SlotReleased)


def test_cells_that_were_evaluated_again_are_reused() -> None:
    """After a shift that evaluated all again, every cell is a function of its inputs: another one may have them."""
    driver = full(shift="evaluate")
    driver.run()
    cells = list(driver.cells[0])
    number = driver.submit(prompt=cells)
    driver.run()
    assert len(cells) - 1 == driver.reused(number)


@pytest.mark.parametrize("shift", ["move", "evaluate"])
def test_a_paused_reader_defers_the_shift(shift: str) -> None:
    """A sequence that is paused with a full context makes room when its reader goes on, in flight too."""
    driver = Driver(n_ctx=8, shift=shift)
    number = driver.submit(script=ENDLESS, prompt=8, num_keep=0, num_predict=3)
    driver.pause(number)
    driver.step()
    driver.submit(b"b", b"c")
    assert [] == driver.events(e.ContextShifted)
    driver.resume(number)
    assert 1 == len(driver.events(e.ContextShifted))
    driver.run()
    assert ("aaa", "bc") == (driver.text(number), driver.text(2))


def test_a_sequence_that_is_shifted_disturbs_nobody() -> None:
    """Rows that a shift costs come on top of the others' rows: a sequence that generates has one in every batch."""
    driver = Driver(n_ctx=8, n_batch=4)
    driver.submit(script=ENDLESS, prompt=6, num_keep=3, num_predict=20)
    driver.submit(script=repeat(b"b"), prompt=1, num_predict=6, shift=False)
    driver.run()
    rows = [len(part.inputs) for plan in driver.events(e.BatchPlanned) for part in plan.parts if part.sequence == 2]
    assert ([1] * 6, "bbbbbb", "a" * 20) == (rows, driver.text(2), driver.text(1))


def test_a_request_without_a_limit_generates_ten_contexts() -> None:
    """With `num_predict` -1 a text that has no end of its own ends with `length` after ten times `n_ctx` tokens."""
    driver = Driver(n_ctx=8)
    number = driver.submit(script=ENDLESS)
    driver.run()
    assert (10, "length", 80) == (
        NUM_PREDICT_CONTEXTS,
        driver.end(number).finish_reason,
        driver.end(number).n_sampled,
    )
