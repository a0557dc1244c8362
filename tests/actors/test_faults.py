"""Faults of a decode, of the logits, of the engine and of an actor: which sequences they concern, and which not."""

from collections.abc import Callable
from itertools import repeat

import pytest

from reenact.actors import batcher as b
from reenact.actors import events as e
from reenact.actors import sequence as s
from reenact.actors.errors import Failure, FailureKind
from tests.helpers.driver import Driver, assert_all_well, beside_another

ENDLESS = repeat(b"a")


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (1, "internal_error", "llama_decode returned 1, no room in the cells"),
        (-1, "internal_error", "llama_decode returned -1, an invalid batch"),
        (2, "sequence_failed", "llama_decode returned 2"),
        (-2, "sequence_failed", "llama_decode returned -2"),
        (-3, "sequence_failed", "llama_decode returned -3"),
    ],
)
def test_a_failed_decode_ends_the_sequences_of_its_batch(code: int, kind: FailureKind, reason: str) -> None:
    """A decode that fails ends the sequences whose rows it had, with a typed error, and no other."""
    driver = Driver(n_slots=3)
    paused = driver.submit(b"p", b"q")
    driver.pause(paused)
    driver.step()
    concerned = [driver.submit(b"a"), driver.submit(b"b")]
    driver.step()
    waiting = driver.submit(b"c")
    driver.step(code=code)
    assert [driver.events(e.BatchDecoded)[-1].batch] == [failed.batch for failed in driver.events(e.BatchFailed)]
    assert [Failure(kind=kind, reason=reason)] * 2 == [driver.failure(sequence) for sequence in concerned]
    assert concerned == [sequence for failed in driver.events(e.BatchFailed) for sequence in failed.sequences]
    driver.resume(paused)
    driver.run()
    assert ["pq", "c"] == [driver.text(paused), driver.text(waiting)]


def assert_ends_alone(fail: Callable[[Driver, frozenset[int]], object], reason: str) -> None:
    """Let a sequence have no second token: what it held goes out, and the others of its batch go on."""
    driver = beside_another()
    number = driver.submit(b"x<", b"y", stop=["</s>"])
    driver.step()
    driver.step()
    fail(driver, frozenset({number}))
    assert Failure(kind="sequence_failed", reason=reason) == driver.failure(number)
    assert (["x", "<"], []) == (driver.chunks(number), driver.events(e.BatchFailed))
    assert_all_well(driver)


def test_nan_concerns_one_sequence() -> None:
    """NaN in one sequence's logits ends it with a typed error; what it held goes out; the batch's others go on."""
    assert_ends_alone(lambda driver, one: driver.step(nan=one), "no token 1: its logits hold a NaN")


def test_a_grammars_dead_end_concerns_one_sequence() -> None:
    """Where the grammar allows no token its sequence ends with a typed error, and the batch's others go on."""
    assert_ends_alone(lambda driver, one: driver.step(no_token=one), "no token 1: the grammar allows none")


def test_an_engine_without_a_token_concerns_one_sequence() -> None:
    """Where the engine has no token its sequence ends with what the engine says, and the batch's others go on."""
    assert_ends_alone(lambda driver, one: driver.step(unknown=one), "there is no script")


def test_what_cannot_be_tokenized_ends_alone() -> None:
    """A prompt that the engine cannot tokenize ends its request, and no other."""
    driver = beside_another()
    number = driver.receive(b"x")
    driver.give(e.TokenizeFailed(sequence=number, error="OSError: no such word"))
    reason = "the prompt could not be tokenized: OSError: no such word"
    assert Failure(kind="sequence_failed", reason=reason) == driver.failure(number)
    assert_all_well(driver)


def test_a_failed_engine_ends_everybody() -> None:
    """Where the engine raised, all requests end, those that wait too, and no batch follows."""
    driver = Driver(n_slots=1)
    numbers = [driver.submit(script=ENDLESS), driver.submit(b"b"), driver.receive(b"c")]
    driver.step()
    driver.planned = None
    driver.give(e.EngineFailed(error="OSError: gone"))
    failure = Failure(kind="engine_broken", reason="the engine failed: OSError: gone")
    assert [failure] * 3 == [driver.failure(number) for number in numbers]
    assert ("a", None, [None]) == (driver.text(numbers[0]), driver.planned, driver.holders())


def test_after_a_failed_engine_requests_are_refused() -> None:
    """A request that comes after the engine failed ends at once, with a typed error."""
    driver = Driver()
    driver.give(e.EngineFailed(error="OSError: gone"))
    number = driver.receive(b"a")
    assert "engine_broken" == driver.failure(number).kind
    driver.tokenize(number)
    assert (1, None) == (len(driver.events(e.SequenceFinished)), driver.planned)


def raising(decide: Callable[..., list[e.Event]], kind: type[e.Event], sequence: int | None) -> Callable[..., object]:
    """Return a `decide` that raises where it hears of ``kind``; of this sequence, if one is named."""

    def decide_or_raise(state: b.Batcher | s.Sequence, event: e.Event) -> list[e.Event]:
        if isinstance(event, kind) and sequence in {None, getattr(state, "sequence", None)}:
            raise ZeroDivisionError("oops")
        return decide(state, event)

    return decide_or_raise


@pytest.mark.parametrize("kind", [e.PromptTokenized, e.BatchDecoded, e.CancelRequested])
def test_a_sequence_that_raises_ends_alone(monkeypatch: pytest.MonkeyPatch, kind: type[e.Event]) -> None:
    """A Sequence that raises is recorded as failed and ends with an internal error; the others do not notice."""
    monkeypatch.setattr(s, "decide", raising(s.decide, kind, 2))
    driver = beside_another()
    number = driver.submit(b"x", b"y")
    driver.step()
    driver.step()
    driver.cancel(number)
    reason = "sequence-2 raised ZeroDivisionError: oops"
    assert Failure(kind="internal_error", reason=reason) == driver.failure(number)
    assert [e.ActorFailed(failed="sequence-2", error="ZeroDivisionError: oops")] == driver.events(e.ActorFailed)
    assert_all_well(driver)


@pytest.mark.parametrize("kind", [e.RequestReceived, e.BatchDecoded, e.SequenceFinished])
def test_a_batcher_that_raises_ends_everybody(monkeypatch: pytest.MonkeyPatch, kind: type[e.Event]) -> None:
    """Without a Batcher nothing can be evaluated: every request ends with an internal error."""
    driver = Driver(n_slots=1)
    driver.submit(b"a")
    driver.submit(b"b")
    driver.step()
    monkeypatch.setattr(b, "decide", raising(b.decide, kind, None))
    driver.receive(b"c")
    driver.run()
    reason = "batcher raised ZeroDivisionError: oops"
    assert [reason] * 2 == [driver.failure(sequence).reason for sequence in (2, 3)]
    assert 3 == len(driver.events(e.SequenceFinished))
    assert ("batcher",) == driver.kernel.state.failed


@pytest.mark.parametrize("function", ["_plan", "_assign", "proceed"])
def test_a_batcher_that_raises_while_planning_ends_everybody(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    """A plan that cannot be made is the Batcher's failure like any other."""

    def oops(_: b.Batcher) -> list[e.Event]:
        raise ZeroDivisionError("oops")

    driver = Driver()
    monkeypatch.setattr(b, function, oops)
    number = driver.submit(b"a")
    assert "internal_error" == driver.failure(number).kind
    assert None is driver.planned


def test_a_batcher_that_goes_round_in_circles_is_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows from one fact has its end: the Batcher fails, every request ends, and none hangs."""
    monkeypatch.setattr("reenact.actors.kernel.MOST_RECORDS", 100)
    monkeypatch.setattr("reenact.actors.batcher.turn", lambda work: (work.sequence,))
    driver = Driver(n_slots=1)
    first, urgent = driver.submit(b"a", b"b"), driver.submit(b"c", priority=1)
    records = driver.step()
    assert ["batcher"] == [event.failed for event in driver.events(e.ActorFailed)]
    assert len(records) < 200
    reason = "batcher raised RuntimeError: it goes round in circles: 100 records follow from one fact"
    assert [reason] * 2 == [driver.failure(number).reason[: len(reason)] for number in (first, urgent)]


@pytest.mark.parametrize(("most", "failed"), [(2, []), (1, ["batcher"])])
def test_as_many_records_may_follow_as_are_allowed(
    monkeypatch: pytest.MonkeyPatch, most: int, failed: list[str]
) -> None:
    """A third record, the plan, may follow the two that tokens lead to before it if two are allowed, and not if one."""
    monkeypatch.setattr("reenact.actors.kernel.MOST_RECORDS", most)
    driver = Driver()
    driver.submit(b"a")
    assert failed == [event.failed for event in driver.events(e.ActorFailed)]
