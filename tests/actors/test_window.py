"""How much of a context is kept: truncation of prompts and the amounts of a shift, case by case."""

import pytest

from reenact.actors import events as e
from reenact.actors.errors import Failure
from reenact.actors.window import discarded, num_kept, truncated
from tests.helpers.driver import Driver


@pytest.mark.parametrize(
    ("n_ctx", "keep", "length", "discard"),
    [
        (2048, 5, 2048, 1021),
        (2048, 2047, 2048, 1),
        (2048, 0, 2048, 1024),
        (2048, 5, 512, 0),
        (10, 2, 10, 4),
        (8, 3, 8, 2),
        (16, 4, 16, 6),
    ],
)
def test_a_shift_drops_half_of_what_is_not_kept(n_ctx: int, keep: int, length: int, discard: int) -> None:
    """A shift leaves room for half of what is not kept, one input at least; what is free already counts."""
    assert discard == discarded(n_ctx, keep, length)


@pytest.mark.parametrize(
    ("num_keep", "n_prompt", "bos_added", "kept"),
    [(4, 6, False, 4), (4, 6, True, 5), (0, 6, True, 1), (-1, 6, False, 6), (-1, 6, True, 6), (6, 3, False, 6)],
)
def test_a_bos_is_kept_besides(num_keep: int, n_prompt: int, bos_added: bool, kept: int) -> None:
    """What is kept is what was asked, and one more where a BOS was added; negative for the whole prompt and no more."""
    assert kept == num_kept(num_keep, n_prompt, 10, bos_added=bos_added)


@pytest.mark.parametrize(("num_keep", "bos_added"), [(8, False), (7, True), (99, False), (-1, False)])
def test_one_cell_at_least_is_not_kept(num_keep: int, bos_added: bool) -> None:
    """At most `n_ctx` - 1 inputs are kept, so that there is always something to drop."""
    assert 7 == num_kept(num_keep, 99, 8, bos_added=bos_added)


@pytest.mark.parametrize(("n_prompt", "discard"), [(7, 0), (8, 0), (9, 1), (20, 12)])
def test_a_prompt_is_truncated_to_the_context(n_prompt: int, discard: int) -> None:
    """A prompt may fill the context, and loses what is beyond it."""
    assert discard == truncated(n_prompt, 8)


@pytest.mark.parametrize(
    ("num_keep", "bos", "left"),
    [
        (3, False, (0, 1, 2, 5, 6, 7, 8, 9)),
        (4, True, (0, 1, 2, 3, 4, 7, 8, 9)),
        (-1, True, (0, 1, 2, 3, 4, 5, 6, 9)),
        (0, False, (2, 3, 4, 5, 6, 7, 8, 9)),
    ],
)
def test_truncation_keeps_the_beginning_and_the_end(num_keep: int, bos: bool, left: tuple[int, ...]) -> None:
    """Of 10 inputs in 8 cells the first `num_keep` are kept and the last of the rest; only these are evaluated."""
    driver = Driver(n_ctx=8)
    driver.submit(prompt=range(10), num_keep=num_keep, bos=bos)
    driver.run()
    assert list(left) == driver.cells[0]
    assert [e.InputQueued(sequence=1, inputs=left, wants=e.Draw(0))] == driver.events(e.InputQueued)


def test_truncation_is_recorded() -> None:
    """What was left out is an event, and the end still counts the prompt as it was asked."""
    driver = Driver(n_ctx=8)
    number = driver.submit(prompt=10, num_keep=3)
    driver.run()
    assert [e.PromptTruncated(sequence=number, keep=3, discard=2)] == driver.events(e.PromptTruncated)
    assert 10 == driver.end(number).n_prompt


def test_a_prompt_that_fits_is_not_truncated() -> None:
    """A prompt of `n_ctx` inputs is evaluated as it is, even where truncation is forbidden."""
    driver = Driver(n_ctx=8)
    number = driver.submit(b"a", prompt=8, truncate=False, num_predict=1)
    driver.run()
    assert ("length", []) == (driver.end(number).finish_reason, driver.events(e.PromptTruncated))


def test_who_forbids_truncation_is_told_both_numbers() -> None:
    """With `truncate` false a prompt that is too long is the caller's error, and nothing is evaluated."""
    driver = Driver(n_ctx=8)
    number = driver.submit(prompt=10, truncate=False)
    reason = "it has 10 tokens, and the context of a sequence (n_ctx) holds 8"
    assert Failure(kind="invalid_request", field="prompt", reason=reason) == driver.failure(number)
    assert [] == driver.events(e.PromptTruncated, e.BatchPlanned)
