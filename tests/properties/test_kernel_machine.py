"""Whatever callers, readers and the engine do, in whatever order: every rule holds, and all that was admitted ends."""

from collections.abc import Callable
from typing import Any, ClassVar, Final, get_args

import pytest
from attrs import evolve as changed
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from reenact.actors import events as e
from reenact.actors.errors import Failure
from reenact.replay.testing.kernel import CheckedKernel, decoded, sample
from reenact.replay.testing.liveness import end_all
from reenact.replay.testing.strategies import PIECES, done, headers, submissions, undone
from tests.helpers.properties import FRESH_SEED, FRESH_SEED_NAME, phases, shares
from tests.mutants.change import found

EXAMPLES: Final = 120
"""Of each kind, fixed and fresh; `make test` has a share of them."""
STEPS: Final = 50
"""Rules of an example, at most."""
RECORDS_BEFORE_THE_WORST: Final = 200
"""After the engine has failed nothing happens any more; so it does not fail at once."""

COMMON: Final = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    database=None,
    deadline=None,
    phases=phases(),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
PLANTED: Final = settings(COMMON, derandomize=True, phases=[Phase.generate], report_multiple_bugs=False)
"""What is wrong on purpose is to be found, not to be reduced."""


class KernelMachine(RuleBasedStateMachine):
    """Plays a session; `CheckedKernel` holds every fact's records against all rules."""

    requests = Bundle[int]("requests")
    """All that came, also those that have ended."""

    met: ClassVar[set[type[e.Event]]] = set()
    """Kinds of events that any session had."""
    session: CheckedKernel

    @initialize(header=headers())
    def open(self, header: e.SessionOpened) -> None:
        self.session = CheckedKernel(header)

    @property
    def planned(self) -> e.BatchPlanned:
        """The batch in flight."""
        assert self.session.in_flight is not None
        return self.session.in_flight

    def in_flight(self) -> bool:
        """Return whether a batch is."""
        return self.session.in_flight is not None

    def somebody(self) -> bool:
        """Return whether any request has not ended."""
        return bool(self.session.live)

    # ------------------------------------------------------------ callers and readers

    @rule(target=requests, data=st.data())
    def submit(self, data: st.DataObject) -> int:
        return self.session.submit(data.draw(submissions(self.session.context)))

    @rule(target=requests, data=st.data())
    def submit_and_tokenize(self, data: st.DataObject) -> MultipleResults[int]:
        numbers = []
        for submission in data.draw(st.lists(submissions(self.session.context), min_size=1, max_size=4)):
            numbers.append(self.session.submit(submission))
            self.session.tokenize(numbers[-1])
        return multiple(*numbers)

    @precondition(lambda self: self.session.untokenized)
    @rule(data=st.data())
    def tokenize(self, data: st.DataObject) -> None:
        self.session.tokenize(data.draw(st.sampled_from(self.session.untokenized)))

    @rule()
    def refuse(self) -> None:
        failure = Failure(kind="invalid_request", field="top_k", reason="below 0")
        self.session.give(e.RequestRefused(request_id=None, failure=failure))

    @precondition(lambda self: self.session.untokenized)
    @rule(data=st.data())
    def fail_to_tokenize(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.session.untokenized))
        self.session.give(e.TokenizeFailed(sequence=number, error="OSError"))

    @precondition(somebody)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.session.give(e.CancelRequested(sequence=self._live(data)))

    @precondition(somebody)
    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        number = self._live(data)
        if self.session.submissions[number].options.deadline is not None:
            self.session.give(e.DeadlineExpired(sequence=number))

    @precondition(somebody)
    @rule(data=st.data())
    def pause(self, data: st.DataObject) -> None:
        self.session.give(e.ReaderPaused(sequence=self._live(data)))

    @precondition(somebody)
    @rule(data=st.data())
    def stall(self, data: st.DataObject) -> None:
        """Let a reader stop for longer than a paused sequence keeps its slot."""
        number = self._live(data)
        self.session.give(e.ReaderPaused(sequence=number))
        self._done(2)
        if number in self.session.live:
            self.session.give(e.PauseExpired(sequence=number))

    @precondition(somebody)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        self.session.give(e.ReaderResumed(sequence=self._live(data)))

    @precondition(somebody)
    @rule(target=requests, data=st.data())
    def make_room_for_others(self, data: st.DataObject) -> MultipleResults[int]:
        """Let a reader stop, its sequence make room for one of a higher priority, and then for one of its own."""
        number, numbers = self._live(data), []
        priority = self.session.submissions[number].options.priority
        self.session.give(e.ReaderPaused(sequence=number))
        for wanted in (priority + 1, priority):
            self._done(2)
            drawn = data.draw(submissions(self.session.context))
            options = changed(drawn.options, priority=wanted, num_predict=2 if wanted > priority else 9)
            numbers.append(self.session.submit(changed(drawn, options=options)))
            self.session.tokenize(numbers[-1])
        self._done(6)
        if number in self.session.live:
            self.session.give(e.ReaderResumed(sequence=number))
        return multiple(*numbers)

    def _done(self, n_batches: int) -> None:
        for _ in range(n_batches):
            if self.session.in_flight is not None:
                self.session.give(decoded(self.session.in_flight))

    @rule(number=requests, late=st.sampled_from([e.DeadlineExpired, e.CancelRequested, e.ReaderPaused, e.PauseExpired]))
    def come_late(self, number: int, late: Callable[..., e.GivenEvent]) -> None:
        if number not in self.session.live:
            self.session.give(late(sequence=number))

    def _live(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.session.live)))

    # ------------------------------------------------------------ the engine

    @precondition(in_flight)
    @rule(pieces=st.lists(st.sampled_from(PIECES), min_size=1, max_size=12), ends=st.booleans())
    def say(self, pieces: list[bytes], *, ends: bool) -> None:
        for i, piece in enumerate(pieces):
            if self.session.in_flight is not None:
                draws = [(part.sequence, part.draw) for part in self.planned.parts if part.draw is not None]
                drawn = [sample(number, index, piece=piece) for number, index in draws]
                if drawn and ends and i == len(pieces) - 1:
                    drawn[0] = e.Sample(sequence=draws[0][0], index=draws[0][1], token=2, eog=True)
                self.session.give(decoded(self.planned, *drawn))

    @precondition(in_flight)
    @rule(data=st.data())
    def decode(self, data: st.DataObject) -> None:
        self.session.give(data.draw(done(self.planned)))

    @precondition(in_flight)
    @rule(data=st.data())
    def decode_in_vain(self, data: st.DataObject) -> None:
        self.session.give(data.draw(undone(self.planned)))

    @precondition(in_flight)
    @rule(data=st.data())
    def leave_and_abort(self, data: st.DataObject) -> None:
        number = max(self.planned.parts, key=lambda part: len(part.inputs)).sequence
        self.session.give(e.CancelRequested(sequence=number))
        if self.session.aborting:
            self.session.give(data.draw(undone(self.planned, e.ABORTED)))

    @precondition(lambda self: len(self.session.records) > RECORDS_BEFORE_THE_WORST)
    @rule()
    def lose_cells(self) -> None:
        self.session.give(e.CellsLost())

    @precondition(lambda self: len(self.session.records) > RECORDS_BEFORE_THE_WORST and self.in_flight())
    @rule()
    def fail(self) -> None:
        self.session.give(e.EngineFailed(error="OSError"))

    # ------------------------------------------------------------ the end

    def teardown(self) -> None:
        """Let faults stop: then all ends that was admitted."""
        session: CheckedKernel | None = getattr(self, "session", None)
        if session is None or not session.sound:
            return
        end_all(session)
        session.close()
        self.met.update(type(record.event) for record in session.records)


def one_each(wanted: list[int], _budget: int) -> list[int]:
    """Share rows out so that batches are not used up."""
    return [1] * len(wanted)


def as_if_done(original: Any) -> Any:
    """Take every row for evaluated, whatever came of its batch."""
    return lambda slot, part, _, *, code: original(slot, part, part.position + len(part.inputs) - 1, code=code)


@pytest.mark.parametrize(
    ("target", "broken", "complaint"),
    [
        ("reenact.actors.batcher:decoded", as_if_done, r"(?m)^(positions|kept): record \d+, \w+: expected "),
        ("reenact.actors.schedule:share_rows", lambda _: one_each, "have not ended after "),
        ("reenact.actors.batcher:turn", lambda _: lambda work: -work.sequence, r"(?m)^queue: record \d+, "),
        ("reenact.actors.batcher:choose", lambda _: None, r"(?m)^actors: .* it raised TypeError"),
    ],
    ids=["what is in cells", "how soon all end", "who comes first", "who raises"],
)
def test_what_is_wrong_on_purpose_is_found(
    monkeypatch: pytest.MonkeyPatch, target: str, broken: Any, complaint: str
) -> None:
    """The machine finds an actor that does otherwise; the error names the rule, the record and what stands there."""
    owner, name, original = found(target)
    monkeypatch.setattr(owner, name, broken(original))
    with pytest.raises(AssertionError, match=complaint):
        run_state_machine_as_test(KernelMachine, settings=PLANTED)


@seed(FRESH_SEED)
class FreshMachine(KernelMachine):
    """The same, with examples of this run's own."""


@pytest.mark.parametrize("n_examples", shares(EXAMPLES))
def test_all_rules_hold_and_everybody_ends_in_fixed_examples(n_examples: int) -> None:
    """Every rule holds after every fact, and all that was admitted ends in time; with all examples, every event is met.

    No text is pooled, no actor raises, and forks and resumed sessions are no business of a kernel.
    """
    KernelMachine.met.clear()
    run_state_machine_as_test(KernelMachine, settings=settings(COMMON, max_examples=n_examples, derandomize=True))
    unmet = {*get_args(e.GivenEvent), *get_args(e.DerivedEvent)} - KernelMachine.met
    left_out = {e.EmbeddingComputed, e.SequenceForked, e.SessionResumed, e.ActorFailed}
    assert n_examples < EXAMPLES or left_out == unmet


@pytest.mark.parametrize("n_examples", shares(EXAMPLES))
def test_all_rules_hold_and_everybody_ends_in_fresh_examples(n_examples: int) -> None:
    """The same, in examples that are others in every run."""
    try:
        run_state_machine_as_test(FreshMachine, settings=settings(COMMON, max_examples=n_examples))
    except BaseException as error:
        error.add_note(f"Run these examples again with {FRESH_SEED_NAME}={FRESH_SEED}")
        raise
