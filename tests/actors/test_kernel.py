"""The kernel: cancelling, pausing, what is refused, and the fold."""

from itertools import repeat

import pytest
from attrs import evolve as changed

from reenact.actors import events as e
from reenact.actors.errors import Failure, InternalError
from reenact.actors.kernel import Kernel, State
from reenact.actors.options import Options
from reenact.actors.sequence import Sequence
from tests.helpers.driver import Driver, assert_all_well, beside_another
from tests.helpers.header import opened

ENDLESS = repeat(b"a")


def test_cancel_while_queued() -> None:
    """A request that is cancelled while it waits is withdrawn: it never had a slot."""
    driver = Driver(n_slots=1)
    driver.submit(b"a", b"b")
    waiting = driver.submit(b"c")
    driver.cancel(waiting)
    driver.run()
    assert ("cancelled", 3, 0) == (
        driver.end(waiting).finish_reason,
        driver.end(waiting).n_prompt,
        driver.end(waiting).n_sampled,
    )
    assert [e.RequestWithdrawn(sequence=waiting)] == driver.events(e.RequestWithdrawn)
    assert [1] == [event.sequence for event in driver.events(e.SlotAssigned)]
    assert "ab" == driver.text(1)


def test_cancel_before_the_prompt_is_tokenized() -> None:
    """The tokens of a prompt whose request has ended change nothing."""
    driver = Driver()
    number = driver.receive(b"a")
    driver.cancel(number)
    driver.tokenize(number)
    assert ("cancelled", 0, None) == (driver.end(number).finish_reason, driver.end(number).n_prompt, driver.planned)


def test_cancel_in_prefill() -> None:
    """A cancel takes effect inside a long prefill, and the slot is free afterwards."""
    driver = beside_another()
    long = driver.submit(b"x", prompt=40)
    driver.step()
    driver.step()
    driver.cancel(long)
    assert "cancelled" == driver.end(long).finish_reason
    assert [] == driver.events(e.TokenDropped)
    assert_all_well(driver)


def test_cancel_while_generating() -> None:
    """What a sequence said before the cancel is its text; the token in flight is dropped and accounted for."""
    driver = beside_another()
    number = driver.submit(b"x", b"y", b"z")
    driver.step()
    driver.step()
    driver.step()
    driver.cancel(number)
    assert ("cancelled", "xy") == (driver.end(number).finish_reason, driver.text(number))
    driver.step()
    assert [e.TokenDropped(sequence=number, index=2, token=2002)] == driver.events(e.TokenDropped)
    assert_all_well(driver)


def test_cancel_while_text_is_held() -> None:
    """What was held for a stop string goes out with the end."""
    driver = beside_another()
    number = driver.submit(b"x<", b"<", b"/", stop=["</s>"])
    driver.step()
    driver.step()
    driver.cancel(number)
    assert ["x", "<"] == driver.chunks(number)
    assert_all_well(driver)


@pytest.mark.parametrize(("n_steps", "text"), [(0, ""), (1, ""), (2, "x"), (3, "xy<")])
def test_a_deadline_ends_the_text(n_steps: int, text: str) -> None:
    """When the time is over the sequence ends with `deadline` and with what it has, held text too."""
    driver = beside_another()
    number = driver.submit(b"x", b"y<", b"z", stop=["</s>"])
    for _ in range(n_steps):
        driver.step()
    driver.expire(number)
    ended = driver.end(number)
    assert ("deadline", None) == (ended.finish_reason, ended.error)
    assert text == driver.text(number)
    assert_all_well(driver)


def test_a_deadline_of_who_waits() -> None:
    """The time that a request waits counts too: it ends without having had a slot."""
    driver = Driver(n_slots=1)
    driver.submit(b"a", b"b")
    waiting, late = driver.submit(b"c"), driver.receive(b"d")
    driver.expire(waiting)
    driver.expire(late)
    driver.run()
    assert ["stop", "deadline", "deadline"] == [driver.end(number).finish_reason for number in (1, waiting, late)]
    assert [1] == [event.sequence for event in driver.events(e.SlotAssigned)]


def test_cancel_twice_and_after_the_end() -> None:
    """A late cancel is recorded and changes nothing."""
    driver = Driver()
    number = driver.submit()
    driver.run()
    assert [1, 1] == [len(driver.give(e.CancelRequested(sequence=number))) for _ in range(2)]
    assert "stop" == driver.end(number).finish_reason


def test_the_end_in_a_batch_with_a_waiting_request() -> None:
    """A slot that is cancelled in flight goes to the next request only after the batch, and is emptied then."""
    driver = Driver(n_slots=1)
    first, second = driver.submit(script=ENDLESS), driver.submit(b"b")
    driver.step()
    driver.cancel(first)
    assert [None] == driver.holders()
    driver.step()
    assert [second] == driver.holders()
    driver.run()
    assert "b" == driver.text(second)
    assert [200, 201, 202, 2000] == driver.cells[0]


def test_a_paused_reader_stops_nobody_else() -> None:
    """A sequence whose reader does not read has no rows; the others go on to their ends."""
    driver = beside_another()
    number = driver.submit(b"x", b"y", b"z")
    driver.step()
    driver.pause(number)
    driver.run()
    assert ("bcdef", "x") == (driver.text(1), driver.text(number))
    assert [number] == [event.sequence for event in driver.events(e.SequencePaused)]
    driver.resume(number)
    driver.run()
    assert ("xyz", "stop") == (driver.text(number), driver.end(number).finish_reason)
    assert [number] == [event.sequence for event in driver.events(e.SequenceResumed)]


def test_a_pause_that_is_over_before_the_token_changes_nothing() -> None:
    """A reader that catches up while the batch is in flight costs its sequence no step."""
    driver = Driver()
    number = driver.submit(b"x", b"y")
    driver.step()
    driver.pause(number)
    driver.resume(number)
    driver.run()
    assert ("xy", []) == (driver.text(number), driver.events(e.SequencePaused, e.SequenceResumed))


def test_a_paused_sequence_can_be_cancelled() -> None:
    """A paused sequence ends like any other, and does not come back."""
    driver = Driver()
    number = driver.submit(script=ENDLESS)
    driver.pause(number)
    driver.run()
    driver.cancel(number)
    driver.resume(number)
    assert ("cancelled", [None, None], None) == (driver.end(number).finish_reason, driver.holders(), driver.planned)


REQUEST = e.RequestReceived(
    sequence=1, request_id=None, prompt="", options=Options(seed=1), embedding=False, continues=None
)


@pytest.mark.parametrize(
    ("before", "given"),
    [
        ([], REQUEST),
        ([], e.SessionClosed(digest="")),
        ([opened()], opened()),
        ([opened()], e.SlotAssigned(sequence=1, slot=0, reused=0, source=None)),
        ([opened()], e.CancelRequested(sequence=1)),
        ([opened()], e.PromptTokenized(sequence=0, inputs=(1,), bos_added=False, grammar=None)),
        ([opened(), REQUEST], REQUEST),
        ([opened()], changed(REQUEST, sequence=2)),
        ([opened(), REQUEST], e.ReaderPaused(sequence=2)),
        ([opened(), e.SessionClosed(digest="")], REQUEST),
        ([opened(), e.SessionClosed(digest="")], e.SessionClosed(digest="")),
    ],
)
def test_what_cannot_be_is_refused(before: list[e.GivenEvent], given: e.GivenEvent) -> None:
    """A fact out of turn, a derived event or an unknown number raises, changes no state and takes no number."""
    kernel = Kernel()
    n = sum(len(kernel.handle(event)) for event in before)
    state, digest = kernel.state, kernel.digest()
    with pytest.raises(InternalError):
        kernel.handle(given)
    assert (state, digest) == (kernel.state, kernel.digest())
    if not kernel.state.closed and before:
        assert n == kernel.handle(e.EngineFailed(error=""))[0].n


def test_records_are_dense_and_name_their_cause() -> None:
    """Records count from 0; a given one has no cause, and a derived one's cause comes before it."""
    driver = beside_another()
    driver.run()
    assert list(range(len(driver.records))) == [record.n for record in driver.records]
    caused = [(record.cause, record.n) for record in driver.records if record.cause is not None]
    assert all(cause < n for cause, n in caused)
    given = (e.SessionOpened, e.RequestReceived, e.PromptTokenized, e.BatchDecoded)
    assert len(driver.events(*given)) == len(driver.records) - len(caused)


def test_the_fold_knows_what_deciding_knew() -> None:
    """At every record, in the middle of a fact too, the fold of the records gives the state that deciding had."""
    driver = beside_another()
    number = driver.submit(b"x<", b"y", b"z", stop=["</s>"])
    driver.step()
    driver.pause(number)
    driver.step()
    driver.step(nan=frozenset({1}))
    driver.resume(number)
    driver.submit(prompt=99, truncate=False)
    driver.cancel(number)
    driver.run()
    kernel = Kernel()
    for moment in driver.kernel.moments:
        kernel.fold(moment.record)
        assert moment.state == kernel.state
    assert driver.kernel.digest() == kernel.digest()


def test_the_fold_takes_records_in_order() -> None:
    """A record that is not the next one is refused."""
    with pytest.raises(InternalError, match="record 1 where 0 comes next"):
        Kernel().fold(e.Record(1, opened(), None))


def test_ended_sequences_are_forgotten_and_stay_in_the_digest() -> None:
    """The state holds living sequences only, and the digest tells apart what the ended ones did."""
    driver, other = Driver(), Driver()
    driver.submit(b"a")
    other.submit(b"a", b"b")
    for one in (driver, other):
        one.run()
        one.cancel(1)
    assert () == driver.kernel.state.sequences
    assert driver.kernel.digest() != other.kernel.digest()


def test_a_sequence_is_in_the_state_until_the_fact_after_its_end() -> None:
    """A sequence that has ended is forgotten with the next fact, not with the records that follow its end."""
    driver = Driver()
    driver.submit(b"a")
    assert [1] == [one.sequence for one in driver.kernel.live]
    driver.run()
    assert [] == driver.kernel.live
    assert [e.SequenceFinished, e.SlotReleased] == [type(record.event) for record in driver.records[-2:]]
    state = driver.kernel.state
    assert (["stop"], 1) == ([one.finish_reason for one in state.sequences], state.n_requests)
    driver.cancel(1)
    assert () == driver.kernel.state.sequences


def test_a_kernel_begins_with_nothing() -> None:
    """Before the session opens there is no actor, no request and no failure."""
    expected = State(session=None, closed=False, batcher=None, sequences=(), failed=(), n_requests=0)
    assert repr(expected) == repr(Kernel().state)


def test_a_digest_tells_states_apart() -> None:
    """A digest is 32 hexadecimal digits, the same for the same state and another one for every other."""
    driver, other = Driver(), Driver()
    opened_only = driver.kernel.digest()
    assert opened_only == other.kernel.digest()
    assert (32, set()) == (len(opened_only), set(opened_only) - set("0123456789abcdef"))
    driver.receive(b"a")
    assert opened_only != driver.kernel.digest()


def test_a_request_becomes_a_sequence() -> None:
    """What a Sequence knows at first is what was asked, and how long its context is."""
    kernel = Kernel()
    kernel.handle(opened(n_ctx=64, n_batch=32))
    kernel.handle(changed(REQUEST, request_id="mine"))
    assert (Sequence(sequence=1, request_id="mine", n_ctx=64, options=Options(seed=1)),) == kernel.state.sequences


def test_the_first_token_can_be_dropped() -> None:
    """A request that leaves while its whole prompt is evaluated drops the token with index 0."""
    driver = Driver()
    number = driver.submit(b"a", prompt=1)
    driver.cancel(number)
    driver.step()
    assert [e.TokenDropped(sequence=number, index=0, token=1000)] == driver.events(e.TokenDropped)


@pytest.mark.parametrize(
    "given",
    [
        e.RequestRefused(request_id=None, failure=Failure(kind="invalid_request", reason="so")),
        e.SessionResumed(resumed_at="2026-01-01T00:00:00Z", reenact="0", python="3", platform="none"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_a_fact_of_the_session_alone_changes_no_state(given: e.GivenEvent) -> None:
    """Nothing follows from a request without a number, nor from another process as such, and every state stays."""
    driver = Driver()
    driver.submit(b"a")
    before = driver.kernel.state
    assert [given] == [record.event for record in driver.give(given)]
    assert before == driver.kernel.state
