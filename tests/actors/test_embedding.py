"""Requests that want a vector: pooled whole, normalized, cut."""

import math

import pytest

from reenact.actors import events as e
from reenact.actors.errors import Failure
from reenact.actors.sequence import normalized
from tests.helpers.driver import Driver


def pooling(*, alone: bool = True, **header: int) -> Driver:
    """Return a driver whose model pools."""
    return Driver(pooling="mean", alone=alone, **header)


def embed(driver: Driver, prompt: int = 3, **asked: int) -> int:
    """Ask for the vector of a text."""
    return driver.submit(prompt=prompt, embedding=True, **asked)


def embeddings(driver: Driver) -> list[tuple[float, ...]]:
    """Return the vectors that went out."""
    return [computed.embedding for computed in driver.events(e.EmbeddingComputed)]


@pytest.mark.parametrize(
    ("values", "dimensions", "expected"),
    [
        ((3.0, 4.0), None, (0.6, 0.8)),
        ((0.0, 0.0), None, (0.0, 0.0)),
        ((3.0, 4.0, 12.0), 2, (0.6, 0.8)),
        ((0.0, 0.0, 12.0), 2, (0.0, 0.0)),
        ((3.0, 4.0), 9, (0.6, 0.8)),
        ((-2.0,), None, (-1.0,)),
    ],
)
def test_a_vector_has_length_1(values: tuple[float, ...], dimensions: int | None, expected: tuple[float, ...]) -> None:
    """The first values that were asked for are divided by their own length; zeros stay zeros."""
    assert expected == normalized(values, dimensions)


def test_a_vector_of_huge_values_has_length_1() -> None:
    """Values whose squares would overflow are normalized like any other."""
    assert math.isclose(1.0, math.hypot(*normalized((1e200, -1e200, 1e-200), None)))


def test_a_text_becomes_a_vector() -> None:
    """A text is evaluated in one batch, whole, without a draw; its vector goes out, and the request ends."""
    driver = pooling()
    number = embed(driver)
    assert driver.planned is not None
    expected = e.Part(sequence=number, slot=0, position=0, inputs=(100, 101, 102), wants=e.Pool())
    assert (expected,) == driver.planned.parts
    driver.run()
    assert [(0.6, 0.8)] == embeddings(driver)
    end = driver.end(number)
    assert ("stop", None, "", 3, 0) == (end.finish_reason, end.stop, end.text, end.n_prompt, end.n_sampled)
    assert [None, None] == driver.holders()


def test_a_vector_is_cut_to_the_dimensions_asked_for() -> None:
    """The first `dimensions` values, normalized again."""
    driver = pooling()
    embed(driver, dimensions=2)
    driver.step(vector=(3.0, 4.0, 12.0))
    assert [(0.6, 0.8)] == embeddings(driver)


def test_a_vector_with_nan_is_an_error() -> None:
    """A vector with a value that is NaN or infinite ends its request, and no other."""
    driver = pooling()
    numbers = [embed(driver), embed(driver)]
    driver.step(vector=())
    driver.run()
    reason = "the embedding has a value that is NaN or infinite"
    assert Failure(kind="sequence_failed", reason=reason) == driver.failure(numbers[0])
    assert ([(0.6, 0.8)], "stop") == (embeddings(driver), driver.end(numbers[1]).finish_reason)


def test_a_text_is_never_chunked() -> None:
    """A text that is longer than a batch is truncated to it: all but what does not fit, and the last token."""
    driver = pooling(n_batch=8, n_ctx=64)
    number = embed(driver, prompt=12)
    assert [e.PromptTruncated(sequence=number, keep=7, discard=4)] == driver.events(e.PromptTruncated)
    assert driver.planned is not None
    assert (*range(100, 107), 111) == driver.planned.parts[0].inputs
    driver.run()
    assert (12, 1) == (driver.end(number).n_prompt, len(driver.events(e.BatchPlanned)))


def test_num_keep_does_not_matter_to_a_vector() -> None:
    """What truncation keeps of a text that is pooled does not depend on an option for contexts that are full."""
    driver = pooling(n_ctx=8)
    embed(driver, prompt=12, num_keep=0)
    assert driver.planned is not None
    assert (*range(100, 107), 111) == driver.planned.parts[0].inputs


def test_who_forbids_truncation_is_told() -> None:
    """With `truncate` false a text that is too long is the caller's error; it names the texts and both numbers."""
    driver = pooling(n_batch=8, n_ctx=64)
    number = embed(driver, prompt=9, truncate=False)
    reason = "it has 9 tokens, and the context of a sequence (n_ctx) holds 8"
    assert Failure(kind="invalid_request", field="texts", reason=reason) == driver.failure(number)


def test_a_text_without_tokens_is_an_error() -> None:
    """There is nothing to pool."""
    driver = pooling()
    number = embed(driver, prompt=0)
    assert Failure(kind="invalid_request", field="texts", reason="it has no tokens") == driver.failure(number)


def ready(*, alone: bool, prompts: tuple[int, ...], n_batch: int = 32) -> list[list[int]]:
    """Return the sequences of each batch that pools these texts."""
    driver = pooling(alone=alone, n_slots=4, n_batch=n_batch)
    numbers = [driver.receive(prompt=prompt, embedding=True) for prompt in prompts]
    for number in reversed(numbers):
        driver.tokenize(number)
    driver.run()
    return [[part.sequence for part in plan.parts] for plan in driver.events(e.BatchPlanned)]


def test_one_text_a_batch_where_neighbours_matter() -> None:
    """Where a vector would change with its neighbours, a text has a batch of its own, first come first served."""
    assert [[1], [2], [3]] == ready(alone=True, prompts=(3, 3, 3))


def test_several_texts_a_batch_where_they_do_not() -> None:
    """Where the schedule may matter, as many whole texts go in a batch as fit, first come first served."""
    assert [[1, 2, 3]] == ready(alone=False, prompts=(3, 3, 3))
    assert [[1, 2], [3]] == ready(alone=False, prompts=(4, 4, 4), n_batch=8)
    assert [[1], [2, 3]] == ready(alone=False, prompts=(6, 4, 1), n_batch=8)


def test_a_text_finds_and_leaves_no_cells() -> None:
    """A text is pooled from all its rows: nothing is reused, and nothing is left to reuse."""
    driver = pooling(n_slots=1)
    embed(driver)
    driver.run()
    again = driver.submit(prompt=range(100, 103), embedding=True)
    driver.run()
    assert (0, [0], []) == (
        driver.reused(again),
        driver.lengths(),
        [plan.trims for plan in driver.events(e.BatchPlanned) if plan.trims],
    )


@pytest.mark.parametrize("leave", [Driver.cancel, Driver.expire])
def test_a_vector_that_nobody_waits_for_is_dropped(leave: object) -> None:
    """A text whose caller left while it was pooled gives no vector, and the next one is served."""
    driver = pooling(n_slots=1)
    number = embed(driver)
    leave(driver, number)  # type: ignore[operator]  # one of the driver's methods
    driver.step()
    embed(driver)
    driver.run()
    assert [2] == [computed.sequence for computed in driver.events(e.EmbeddingComputed)]
