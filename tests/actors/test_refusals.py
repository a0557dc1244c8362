"""An impossible fact is refused, changes nothing, and leaves no request waiting."""

import pytest

from reenact.actors import batcher as b
from reenact.actors import events as e
from reenact.actors import sequence as s
from reenact.actors.errors import Failure, InternalError
from reenact.actors.kernel import Kernel
from tests.helpers.driver import Driver
from tests.helpers.header import opened


def raises(*_: object) -> list[e.Event]:
    """Be an actor with a bug."""
    raise KeyError("lost")


@pytest.mark.parametrize(
    "given",
    [
        e.CancelRequested(sequence=9),
        e.CancelRequested(sequence=0),
        e.RequestRejected(sequence=1, failure=Failure(kind="overloaded", reason="")),
        e.PromptTokenized(sequence=2, inputs=(1,), bos_added=False, grammar=None),
    ],
)
def test_a_fact_that_cannot_be_changes_nothing(given: e.GivenEvent) -> None:
    """A refused fact leaves state and digest as they were, also right after a sequence has ended."""
    driver = Driver()
    driver.submit()
    driver.run()
    before = driver.kernel.state, driver.kernel.digest()
    with pytest.raises(InternalError):
        driver.kernel.handle(given)
    assert before == (driver.kernel.state, driver.kernel.digest())


def test_a_session_is_open_once_and_for_a_while() -> None:
    """A fact before the session opened, a second opening, and a fact after the end are refused by their names."""
    kernel = Kernel()
    reason = "comes before the session opened, twice, or after it closed"
    for given, follows in (
        (e.CancelRequested(sequence=1), opened()),
        (opened(), e.SessionClosed(digest="")),
        (e.CancelRequested(sequence=1), None),
    ):
        with pytest.raises(InternalError, match=f"{type(given).__name__} {reason}"):
            kernel.handle(given)
        if follows is not None:
            kernel.handle(follows)


def test_a_session_that_cannot_be_is_refused() -> None:
    """A session whose batches have too few rows leaves the kernel as it was: another one can be opened."""
    kernel = Kernel()
    with pytest.raises(InternalError, match="has none for some"):
        kernel.handle(opened(n_slots=4, n_batch=3))
    assert kernel.state.session is None
    kernel.handle(opened())


def test_a_row_for_each_slot_is_enough() -> None:
    """A batch may have as many rows as there are slots."""
    kernel = Kernel()
    kernel.handle(opened(n_slots=4, n_batch=4))
    assert kernel.state.session is not None


def test_a_prompt_is_tokenized_once() -> None:
    """Tokens for a prompt that has some are refused."""
    driver = Driver()
    number = driver.submit(b"a")
    with pytest.raises(InternalError, match="was tokenized before"):
        driver.tokenize(number)


def test_nobody_waits_for_a_batcher_that_is_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the Batcher has raised, a later request is rejected at once."""
    driver = Driver()
    with monkeypatch.context() as patched:
        patched.setattr(b, "decide", raises)
        first = driver.submit(b"a")
    later = driver.submit(b"a")
    assert ["internal_error"] * 2 == [driver.failure(number).kind for number in (first, later)]
    assert "batcher raised KeyError: 'lost'" == driver.failure(later).reason


def test_a_sequence_that_always_raises_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Sequence that raises whatever it hears of still has its end."""
    driver = Driver()
    with monkeypatch.context() as patched:
        patched.setattr(s, "decide", raises)
        number = driver.submit(b"a")
    assert "sequence-1 raised KeyError: 'lost'" == driver.failure(number).reason
    assert [None, None] == driver.holders()


def test_no_token_of_a_nan_is_dropped() -> None:
    """Where a cancelled sequence's logits held a NaN nothing was sampled, and so nothing is dropped."""
    driver = Driver()
    number = driver.submit(b"a")
    driver.cancel(number)
    driver.step(nan=frozenset({number}))
    assert [] == driver.events(e.TokenDropped)


def test_a_batcher_that_raises_while_planning_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it raised is in the log, and in why the request ended."""
    driver = Driver()
    with monkeypatch.context() as patched:
        patched.setattr(b, "proceed", raises)
        number = driver.submit(b"a")
    assert [e.ActorFailed(failed="batcher", error="KeyError: 'lost'")] == driver.events(e.ActorFailed)
    assert "batcher raised KeyError: 'lost'" == driver.failure(number).reason


def test_two_sequences_that_raise_at_once_end_each_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that raise at the same fact each has one end, and is told what it raised itself."""
    driver = Driver()
    numbers = [driver.submit(b"a", b"b"), driver.submit(b"a", b"b")]
    driver.step()
    with monkeypatch.context() as patched:
        patched.setattr(s, "decide", raises)
        driver.step()
    reasons = [f"sequence-{number} raised KeyError: 'lost'" for number in numbers]
    assert reasons == [driver.failure(number).reason for number in numbers]
    assert 2 == len(driver.events(e.ActorFailed))
