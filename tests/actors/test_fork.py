"""What a fork gives to the actors: other options, and a context that is a new one."""

from itertools import repeat
from typing import Any

import pytest
from attrs import evolve

from reenact.actors import events as e
from reenact.actors.errors import InternalError
from tests.helpers.driver import Driver

ENDLESS = repeat(b"a")


def lose(driver: Driver) -> None:
    """Give the engine a new context; what it had in flight never comes back."""
    driver.planned, driver.cells = None, [[] for _ in driver.cells]
    driver.give(e.CellsLost())


def fork(driver: Driver, sequence: int, **options: Any) -> list[e.Record]:
    """Let a sequence go on with other options."""
    (state,) = [one for one in driver.kernel.state.sequences if one.sequence == sequence]
    return driver.give(e.SequenceForked(sequence=sequence, options=evolve(state.options, **options)))


def parts(driver: Driver) -> list[tuple[int, int, int, int | None]]:
    """Return of each part in flight the sequence, the position, how many rows, and the draw."""
    assert driver.planned is not None
    return [(part.sequence, part.position, len(part.inputs), part.draw) for part in driver.planned.parts]


# ---------------------------------------------------------------- other options


def test_other_options_alone_change_nothing_yet() -> None:
    """A sequence that goes on with other options decides nothing for that, and neither does the Batcher."""
    driver = Driver()
    driver.submit(script=ENDLESS)
    (record,) = fork(driver, 1, temperature=0.5)
    assert isinstance(record.event, e.SequenceForked)
    assert 0.5 == driver.kernel.state.sequences[0].options.temperature


@pytest.mark.parametrize(
    ("options", "end"),
    [({"num_predict": 4}, ("aaaa", "length", None)), ({"stop": ["aa"]}, ("a", "stop", "aa"))],
)
def test_what_comes_follows_the_other_options(
    options: dict[str, Any], end: tuple[str, e.FinishReason, str | None]
) -> None:
    """A sequence ends by the options that it goes on with; what had gone out stays."""
    driver = Driver()
    driver.submit(script=ENDLESS, num_predict=9)
    driver.step()
    fork(driver, 1, **options)
    driver.run()
    finished = driver.end(1)
    assert end == (driver.text(1), finished.finish_reason, finished.stop)


def test_a_held_beginning_is_looked_at_again() -> None:
    """What was held back for one stop string ends the text where it is one of the others."""
    driver = Driver()
    driver.submit(b"x", b"</", b"p", stop=["</s>"])
    driver.step()
    driver.step()
    fork(driver, 1, stop=("<",))
    driver.run()
    assert ("x", "<", 1) == (driver.text(1), driver.end(1).stop, driver.end(1).n_hidden)


def test_only_the_one_that_is_named() -> None:
    """The others' options stay as they are."""
    driver = Driver()
    for _ in range(2):
        driver.submit(script=ENDLESS, num_predict=3)
    fork(driver, 2, num_predict=1)
    driver.run()
    assert ["aaa", "a"] == [driver.text(1), driver.text(2)]


def test_options_for_nobody() -> None:
    """For a sequence that has ended they are a late fact, and one that never came cannot have any."""
    driver = Driver()
    driver.submit(b"a")
    options = driver.kernel.state.sequences[0].options
    driver.run()
    assert 1 == len(driver.give(e.SequenceForked(sequence=1, options=options)))
    with pytest.raises(InternalError):
        driver.give(e.SequenceForked(sequence=2, options=options))


# ---------------------------------------------------------------- a new context


def test_a_prefill_begins_again() -> None:
    """Rows of a prompt that were evaluated are planned again, in a batch with the next number."""
    driver = Driver(n_batch=8)
    driver.submit(b"b", prompt=20)
    driver.step()
    assert [(1, 8, 8, None)] == parts(driver)
    lose(driver)
    assert [(1, 0, 8, None)] == parts(driver)
    assert driver.planned is not None
    assert 2 == driver.planned.batch
    driver.run()
    assert "b" == driver.text(1)


def test_what_was_generated_is_evaluated_as_a_prompt() -> None:
    """A sequence that generates has all its inputs planned again, and then draws the token that is next."""
    driver = Driver()
    driver.submit(b"b", b"c", b"d")
    driver.step()
    driver.step()
    lose(driver)
    assert [(1, 0, 5, 2)] == parts(driver)
    assert driver.planned is not None
    assert (100, 101, 102, 1000, 1001) == driver.planned.parts[0].inputs
    driver.run()
    assert ["b", "c", "d"] == driver.chunks(1)


def test_a_batch_that_was_in_flight_is_void() -> None:
    """Its outcome is refused, and what it had planned is planned anew."""
    driver = Driver()
    driver.submit(b"b", b"c")
    outcome = driver.decoded()
    lose(driver)
    with pytest.raises(InternalError, match="batch 0 was decoded and is not in flight"):
        driver.give(outcome)
    driver.run()
    assert "bc" == driver.text(1)


def test_with_nobody_in_flight() -> None:
    """Where no sequence wants anything, nothing is planned."""
    driver = Driver()
    lose(driver)
    assert driver.planned is None
    driver.submit(b"b")
    driver.run()
    assert "b" == driver.text(1)


def test_cells_of_free_slots_are_of_no_use() -> None:
    """A prompt that was evaluated before the context was lost is evaluated whole when it comes again."""
    driver = Driver()
    driver.submit(b"b", prompt=[1, 2, 3, 4])
    driver.run()
    lose(driver)
    again = driver.submit(b"b", prompt=[1, 2, 3, 4])
    assert (0, [(again, 0, 4, 0)]) == (driver.reused(again), parts(driver))


def test_a_copy_that_was_due_is_forgotten() -> None:
    """A slot that was to be copied has nothing to copy any more: the prompt is evaluated."""
    driver = Driver(n_batch=64)
    driver.submit(script=ENDLESS, prompt=range(39), num_predict=4)
    driver.step()
    forked = driver.submit(b"c", prompt=range(40))
    driver.step()
    assert driver.planned is not None
    assert [e.Copy(source=0, slot=1)] == list(driver.planned.copies)
    lose(driver)
    assert [] == list(driver.planned.copies)
    assert [(1, 0, 32, None), (2, 0, 32, None)] == parts(driver)
    driver.run()
    assert ["aaaa", "c"] == [driver.text(1), driver.text(forked)]


@pytest.mark.parametrize("shift", ["move", "evaluate"])
def test_after_a_shift(shift: str) -> None:
    """What was dropped stays dropped, nothing is shifted again, and the context is shifted next when it is due."""
    undisturbed, driver = (Driver(n_ctx=8, n_batch=8, shift=shift) for _ in range(2))
    for one in (undisturbed, driver):
        one.submit(script=ENDLESS, prompt=6, num_keep=3, num_predict=9)
    while not driver.events(e.ContextShifted):
        driver.step()
    lose(driver)
    assert driver.planned is not None
    assert ((), ()) == (driver.planned.shifts, driver.planned.trims)
    assert [(1, 0, 7, 3)] == parts(driver)
    assert (100, 101, 102, 105, 1000, 1001, 1002) == driver.planned.parts[0].inputs
    driver.run()
    undisturbed.run()
    assert undisturbed.events(e.ContextShifted) == driver.events(e.ContextShifted)
    assert undisturbed.text(1) == driver.text(1)


def test_a_paused_reader() -> None:
    """A sequence that is paused stays so, and has everything evaluated when its reader goes on."""
    driver = Driver()
    driver.submit(b"b", b"c")
    driver.pause(1)
    driver.step()
    lose(driver)
    assert driver.planned is None
    driver.resume(1)
    assert [(1, 0, 4, 1)] == parts(driver)
    driver.run()
    assert "bc" == driver.text(1)


def test_who_waits_goes_on_waiting() -> None:
    """A request that waits for a slot keeps its place, a preempted one too."""
    driver = Driver(n_slots=1)
    driver.submit(b"l", b"o", b"w")
    driver.step()
    driver.submit(b"h", priority=1)
    driver.submit(b"n")
    driver.step()
    assert [2] == driver.holders()
    lose(driver)
    assert [(2, 0, 3, 0)] == parts(driver)
    driver.run()
    assert ["low", "h", "n"] == [driver.text(sequence) for sequence in (1, 2, 3)]
    assert [2, 1, 3] == [event.sequence for event in driver.events(e.SequenceFinished)]


def test_a_text_that_is_pooled() -> None:
    """A text whose vector is wanted is evaluated again, whole."""
    driver = Driver(pooling="mean")
    driver.submit(embedding=True)
    lose(driver)
    assert driver.planned is not None
    assert [True] == [part.pools for part in driver.planned.parts]
    driver.run()
    assert 1 == len(driver.events(e.EmbeddingComputed))


def test_an_abort_that_was_asked_for_is_void() -> None:
    """A batch that was to end early is over; an abort of the next one without a request for it is a failure."""
    driver = Driver(n_batch=8)
    driver.submit(b"b", prompt=20)
    driver.submit(prompt=20)
    driver.step()
    driver.cancel(2)
    assert 1 == len(driver.events(e.AbortRequested))
    lose(driver)
    driver.step(code=2)
    assert "sequence_failed" == driver.failure(1).kind


def test_a_broken_engine_stays_broken() -> None:
    """A new context does not bring back an engine that failed."""
    driver = Driver()
    driver.give(e.EngineFailed(error="why"))
    lose(driver)
    rejected = driver.receive(b"b")
    assert "engine_broken" == driver.failure(rejected).kind
