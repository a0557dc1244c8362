"""What a slot holds after each kind of end, shown by what the next request with the same beginning reuses."""

from itertools import repeat

import pytest

from reenact.actors import events as e
from reenact.actors.inputs import Input, Row
from tests.helpers.driver import Driver

SHARED = 64

ENDLESS = repeat(b"a")
PROMPT = (100, 101, 102)
"""Of sequence 1, which samples 1000, 1001, ..."""


def reused(driver: Driver, *prompt: Input) -> int:
    """Return how many inputs of a further request with this prompt were in cells."""
    number = driver.submit(prompt=(*prompt, -1))
    driver.run()
    return driver.reused(number)


def test_the_same_prompt_evaluates_one_input() -> None:
    """The second time all of a prompt is in cells, and its last input alone is evaluated."""
    driver = Driver(n_slots=1)
    driver.submit(prompt=10)
    driver.run()
    before = driver.n_evaluated
    again = driver.submit(b"x", prompt=range(100, 110), num_predict=1)
    driver.run()
    assert (9, 1, "x") == (driver.reused(again), driver.n_evaluated - before, driver.text(again))


def test_a_conversation_grows() -> None:
    """A prompt that goes on from an earlier prompt and its text reuses both."""
    driver = Driver(n_slots=1)
    driver.submit(b"a", b"b")
    driver.run()
    before = driver.n_evaluated
    turn = driver.submit(prompt=(*PROMPT, 1000, 1001, 7, 8))
    driver.run()
    assert (5, 2) == (driver.reused(turn), driver.n_evaluated - before)


def test_what_is_behind_the_common_beginning_is_removed() -> None:
    """A slot that is taken over is trimmed to what is reused, in the batch with the next rows."""
    driver = Driver(n_slots=1)
    driver.submit(prompt=10)
    driver.run()
    driver.submit(prompt=(*range(100, 106), 7))
    plan = driver.events(e.BatchPlanned)[-1]
    assert (e.Trim(slot=0, length=6),) == plan.trims
    assert [(6, (7,))] == [(part.position, part.inputs) for part in plan.parts]


def test_rows_of_numbers_are_reused() -> None:
    """Rows are compared as a whole: a row with one other number is another input."""
    driver = Driver(n_slots=1)
    driver.submit(prompt=(1, Row("ab"), 2))
    driver.run()
    assert 3 == reused(driver, 1, Row("ab"), 2)
    assert 1 == reused(driver, 1, Row("ac"), 2)


def test_a_fork_copies_a_busy_slot() -> None:
    """A long beginning in common with a sequence that still generates is copied, and both go on."""
    driver = Driver(n_ctx=200, n_batch=200)
    driver.submit(script=ENDLESS, prompt=SHARED + 5, num_predict=4)
    driver.step()
    fork = driver.submit(b"x", b"y", prompt=(*range(100, 100 + SHARED), 7))
    driver.step()
    plan = driver.events(e.BatchPlanned)[-1]
    assert ((e.Copy(source=0, slot=1),), (e.Trim(slot=1, length=SHARED),)) == (plan.copies, plan.trims)
    assert SHARED == driver.reused(fork)
    driver.run()
    assert ("aaaa", "xy") == (driver.text(1), driver.text(fork))
    assert [*range(100, 100 + SHARED), 7, 2000, 2001] == driver.cells[1]


def test_a_copy_is_made_once() -> None:
    """The batch after the one with the copy copies nothing."""
    driver = Driver(n_ctx=200, n_batch=200)
    driver.submit(script=ENDLESS, prompt=SHARED + 5, num_predict=4)
    driver.step()
    driver.submit(b"x", b"y", prompt=(*range(100, 100 + SHARED), 7))
    driver.run()
    assert 1 == sum(len(plan.copies) for plan in driver.events(e.BatchPlanned))


def test_a_fork_of_a_fork() -> None:
    """Copies of one batch are made in the order of the slots' assignment, each from what the one before left."""
    driver = Driver(n_slots=3, n_ctx=300, n_batch=300)
    driver.submit(script=ENDLESS, prompt=SHARED + 5, num_predict=9)
    first = driver.submit(b"x", b"y", prompt=(*range(100, 100 + SHARED), 7))
    second = driver.submit(b"z", prompt=(*range(100, 100 + SHARED), 8))
    driver.run()
    assert (SHARED, SHARED) == (driver.reused(first), driver.reused(second))
    assert ("a" * 9, "xy", "z") == (driver.text(1), driver.text(first), driver.text(second))


def test_cells_are_kept_after_an_eog() -> None:
    """After an EOG the slot holds the prompt and the text: 5 for a prompt of 3 and 2 tokens."""
    driver = Driver(n_slots=1)
    driver.submit(b"a", b"b")
    driver.run()
    assert ([5], 5) == (driver.lengths(), reused(driver, *PROMPT, 1000, 1001, 1002))


def test_cells_are_kept_after_num_predict() -> None:
    """The last token of a text that is long enough is not evaluated: the slot holds the prompt and those before it."""
    driver = Driver(n_slots=1)
    driver.submit(b"a", b"b", b"c", num_predict=2)
    driver.run()
    assert ([4], 4) == (driver.lengths(), reused(driver, *PROMPT, 1000, 1001))


def test_cells_are_kept_after_a_full_context() -> None:
    """A sequence whose context is full, and may not be shifted, leaves all of it."""
    driver = Driver(n_slots=1, n_ctx=8)
    driver.submit(script=ENDLESS, shift=False)
    driver.run()
    assert ("context_full", [8]) == (driver.end(1).finish_reason, driver.lengths())
    assert 7 == reused(driver, *PROMPT, 1000, 1001, 1002, 1003)


@pytest.mark.parametrize(
    ("pieces", "length"),
    [
        ((b"x", b"y", b"</s>"), 5),
        ((b"x", b"y", b"<", b"/s", b">"), 5),
        ((b"x", b"y<", b"/s", b">"), 4),
        ((b"x", b"<", b"</s>"), 5),
        ((b"x</s>",), 3),
    ],
)
def test_after_a_stop_string_what_is_visible_is_kept(pieces: tuple[bytes, ...], length: int) -> None:
    """After a stop string the slot holds the inputs whose pieces are wholly visible, and no others."""
    driver = Driver(n_slots=1)
    driver.submit(*pieces, stop=["</s>"])
    driver.run()
    assert [length] == driver.lengths()
    assert length == reused(driver, *PROMPT, *range(1000, 1000 + len(pieces)))


def test_cells_are_kept_after_a_cancel_in_prefill() -> None:
    """What was prefilled when the caller left stays, and so do the rows that were in flight."""
    driver = Driver(n_slots=1, n_batch=4)
    driver.submit(prompt=20)
    driver.step()
    driver.cancel(1)
    assert [e.SlotReleased(sequence=1, slot=0, length=4)] == driver.events(e.SlotReleased)
    driver.step()
    assert 8 == reused(driver, *range(100, 120))


@pytest.mark.parametrize("leave", [Driver.cancel, Driver.expire])
def test_cells_are_kept_after_a_cancel_while_generating(leave: object) -> None:
    """What was evaluated when the caller left, or its time was over, stays; the row in flight does too."""
    driver = Driver(n_slots=1)
    driver.submit(script=ENDLESS)
    driver.step()
    driver.step()
    leave(driver, 1)  # type: ignore[operator]  # one of the driver's methods
    driver.step()
    assert 5 == reused(driver, *PROMPT, 1000, 1001, 1002)


def test_cells_are_kept_after_a_cancel_while_text_is_held() -> None:
    """Held text goes out at a cancel, so the tokens that brought it are visible and stay."""
    driver = Driver(n_slots=1)
    driver.submit(b"x<", b"/", b"s", stop=["</s>"])
    driver.step()
    driver.step()
    driver.cancel(1)
    driver.step()
    assert 5 == reused(driver, *PROMPT, 1000, 1001)


@pytest.mark.parametrize("fault", ["nan", "no_token"])
def test_cells_are_kept_after_a_sequences_own_fault(fault: str) -> None:
    """A NaN in the logits or a grammar's dead end says nothing against the cells: the row itself was evaluated."""
    driver = Driver(n_slots=1)
    driver.submit(script=ENDLESS)
    driver.step()
    driver.step(**{fault: frozenset({1})})
    assert 4 == reused(driver, *PROMPT, 1000)


@pytest.mark.parametrize("code", [1, -1, -2])
def test_no_cells_are_kept_after_a_decode_that_failed(code: int) -> None:
    """Cells count only after a decode that succeeded: after another one the slot is of no use."""
    driver = Driver(n_slots=1)
    driver.submit(script=ENDLESS)
    driver.step()
    driver.step(code=code)
    assert ([0], 0) == (driver.lengths(), reused(driver, *PROMPT, 1000))


def test_cells_are_not_counted_in_flight() -> None:
    """Rows count when their batch comes back, and not when it is planned."""
    driver = Driver(n_slots=1)
    driver.submit(prompt=10)
    assert [0] == driver.lengths()
    driver.step()
    assert [10] == driver.lengths()


def test_a_batch_that_was_refused_has_done_nothing() -> None:
    """Where the engine reports no positions, the copies, trims and shifts of its plan were not done either."""
    driver = Driver(n_slots=1)
    driver.submit(prompt=10)
    driver.run()
    driver.submit(prompt=(*range(100, 106), 7))
    driver.planned = None
    driver.give(e.BatchDecoded(batch=1, code=-1, samples=(), vectors=(), positions=()))
    assert ("internal_error", [0]) == (driver.failure(2).kind, driver.lengths())
    assert 0 == reused(driver, *range(100, 106))


def test_the_least_recently_used_slot_is_given_by_batches() -> None:
    """Recency counts batches: the slot that decoded last is kept, whichever slot was given out first."""
    driver = Driver(n_slots=2)
    driver.submit(script=ENDLESS, num_predict=6)
    driver.submit(b"b")
    driver.run()
    other = driver.submit()
    driver.run()
    assert 1 == next(event.slot for event in driver.events(e.SlotAssigned) if event.sequence == other)
    assert 5 == reused(driver, *PROMPT, 1000, 1001)
