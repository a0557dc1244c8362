"""Whatever callers, readers and the engine do, in whatever order: every rule holds, and all that was admitted ends."""

from collections.abc import Callable
from typing import Any, ClassVar, Final, get_args

import pytest
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
from reenact.actors.header import ContextFacts
from reenact.actors.limits import NUM_PREDICT_CONTEXTS
from reenact.replay.testing import (
    PIECES,
    CheckedKernel,
    Submission,
    decoded,
    done,
    headers,
    outcomes,
    sample,
    submissions,
    undone,
)
from tests.breaking import found
from tests.support import FRESH_SEED, FRESH_SEED_NAME, at_most, holds_for

EXAMPLES: Final = 120
"""Of each kind, fixed and fresh."""
STEPS: Final = 50
"""Rules of an example, at most."""
RECORDS_BEFORE_THE_WORST: Final = 200
"""After the engine has failed nothing happens any more; so it does not fail at once."""

COMMON: Final = settings(
    max_examples=at_most(EXAMPLES),
    stateful_step_count=STEPS,
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
PLANTED: Final = settings(COMMON, derandomize=True, phases=[Phase.generate], report_multiple_bugs=False)
"""What is wrong on purpose is to be found, not to be reduced."""


def rows_left(context: ContextFacts, submission: Submission, n_sampled: int) -> tuple[int, int]:
    """Return how many rows a request has evaluated at most until it ends, and how many tokens it draws at most.

    It may have to begin anew, so all its inputs are counted: those of its prompt and of what it said, of which a
    context holds ``n_ctx`` and one more can wait. Each of its tokens but the last is one more row. Whenever they come
    to more than the context holds, a shift drops some, and where cells are not moved, those behind the gap are
    evaluated again.

    Args:
        context: Of the session.
        submission: The request.
        n_sampled: Tokens that it has drawn.
    """
    options, n_prompt = submission.options, len(submission.prompt)
    limit = options.num_predict if options.num_predict >= 0 else NUM_PREDICT_CONTEXTS * context.n_ctx
    n_draws = limit - n_sampled
    n_rows = min(n_prompt + n_sampled, context.n_ctx + 1) + n_draws - 1
    wanted = n_prompt if options.num_keep < 0 else options.num_keep
    keep = min(wanted + submission.bos_added, context.n_ctx - 1)
    discard = max((context.n_ctx - keep) // 2, 1)
    n_shifts = -(-max(n_rows - context.n_ctx, 0) // discard)
    again = context.n_ctx - keep - discard if context.shift == "evaluate" else 0
    return n_rows + n_shifts * again, n_draws


def most_steps(context: ContextFacts, left: list[tuple[int, int]]) -> int:
    """Return how many batches all these requests take at most, if nobody else comes and nothing fails.

    One batch may be in flight, and be worth nothing to them. After it slots are given out until nobody who waits has a
    higher priority than one who has a slot, and nobody comes who has: so nobody is preempted from here on.

    A batch is full, or it has all rows that anybody wants who has a slot:

    * Each full one evaluates ``n_batch`` of the rows that are left.
    * In each of the others everybody who has a slot draws a token. While somebody waits, that is ``n_slots`` of the
      draws that are left. When nobody waits, it is one of each that is left, also of the one that draws most.

    Args:
        context: Of the session.
        left: The rows and the draws of each, as `rows_left` counts them.
    """
    rows, draws = [n_rows for n_rows, _ in left], [n_draws for _, n_draws in left]
    return 1 + sum(rows) // context.n_batch + sum(draws) // context.n_slots + max(draws, default=0)


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
        self.untokenized: list[int] = []

    @property
    def planned(self) -> e.BatchPlanned:
        """The batch in flight."""
        assert self.session.in_flight is not None
        return self.session.in_flight

    def in_flight(self) -> bool:
        """Return whether a batch is."""
        return self.session.in_flight is not None

    def somebody(self) -> bool:
        """Return whether anybody has not ended."""
        return bool(self.session.live)

    # ------------------------------------------------------------ callers and readers

    @rule(target=requests, data=st.data())
    def submit(self, data: st.DataObject) -> int:
        number = self.session.submit(data.draw(submissions(self.session.context)))
        self.untokenized.append(number)
        return number

    @rule(target=requests, data=st.data())
    def submit_and_tokenize(self, data: st.DataObject) -> MultipleResults[int]:
        numbers = []
        for submission in data.draw(st.lists(submissions(self.session.context), min_size=1, max_size=4)):
            numbers.append(self.session.submit(submission))
            self.session.tokenize(numbers[-1])
        return multiple(*numbers)

    @precondition(lambda self: self.untokenized)
    @rule(data=st.data())
    def tokenize(self, data: st.DataObject) -> None:
        self.session.tokenize(self._no_longer_untokenized(data))

    @precondition(lambda self: self.untokenized)
    @rule(data=st.data())
    def fail_to_tokenize(self, data: st.DataObject) -> None:
        self.session.give(e.TokenizeFailed(sequence=self._no_longer_untokenized(data), error="OSError"))

    def _no_longer_untokenized(self, data: st.DataObject) -> int:
        number = data.draw(st.sampled_from(self.untokenized))
        self.untokenized.remove(number)
        return number

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
    def resume(self, data: st.DataObject) -> None:
        self.session.give(e.ReaderResumed(sequence=self._live(data)))

    @rule(number=requests, late=st.sampled_from([e.DeadlineExpired, e.CancelRequested, e.ReaderPaused]))
    def come_late(self, number: int, late: Callable[..., e.GivenEvent]) -> None:
        if number not in self.session.live:
            self.session.give(late(sequence=number))

    def _live(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.session.live)))

    # ------------------------------------------------------------ the engine

    @precondition(in_flight)
    @rule(pieces=st.lists(st.sampled_from(PIECES), min_size=1, max_size=12))
    def say(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            if self.session.in_flight is not None:
                draws = [part.sequence for part in self.planned.parts if part.draw is not None]
                self.session.give(decoded(self.planned, *(sample(number, piece=piece) for number in draws)))

    @precondition(in_flight)
    @rule(data=st.data())
    def decode(self, data: st.DataObject) -> None:
        self.session.give(data.draw(done(self.planned)))

    @precondition(in_flight)
    @rule(data=st.data())
    def decode_somehow(self, data: st.DataObject) -> None:
        self.session.give(data.draw(outcomes(self.planned)))

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
        """Let faults stop and everybody read on: all that was admitted ends, in as many batches as it may take."""
        session: CheckedKernel | None = getattr(self, "session", None)
        if session is None or not session.sound:
            return
        for number in self.untokenized:
            session.tokenize(number)
        for number in sorted(session.live):
            session.give(e.ReaderResumed(sequence=number))
        self.finish(session)
        session.close()
        self.met.update(type(record.event) for record in session.records)

    def finish(self, session: CheckedKernel) -> None:
        """Decode until everybody has ended."""
        said = [record.event.sequence for record in session.records if isinstance(record.event, e.TokenEmitted)]
        left = [rows_left(session.context, session.submissions[number], said.count(number)) for number in session.live]
        most = most_steps(session.context, left)
        n_steps = 0
        while session.in_flight is not None:
            n_steps += 1
            assert n_steps <= most, f"{sorted(session.live)} have not ended after {most} batches"
            session.give(decoded(session.in_flight))
        assert session.live == set(), f"no batch is planned, and {sorted(session.live)} have not ended"


@holds_for(examples=60, header=headers(), data=st.data())
def test_the_rules_hold(header: e.SessionOpened, data: st.DataObject) -> None:
    """The example of `reenact.replay.testing`, word for word: what a user writes holds for our own policy."""
    session = CheckedKernel(header)
    for submission in data.draw(st.lists(submissions(header.context), max_size=5)):
        session.tokenize(session.submit(submission))
    for _ in range(20):
        if session.in_flight is not None:
            session.give(data.draw(outcomes(session.in_flight)))


def one_each(wanted: list[int], _budget: int) -> list[int]:
    """Share rows out so that batches are not used up."""
    return [1] * len(wanted)


def as_if_done(original: Any) -> Any:
    """Take every row for evaluated, whatever came of its batch."""
    return lambda slot, part, _, *, code: original(slot, part, part.position + len(part.inputs) - 1, code=code)


@pytest.mark.parametrize(
    ("target", "broken", "complaint"),
    [
        ("reenact.actors.batcher:decoded", as_if_done, r"(?m)^positions: record \d+, BatchPlanned: expected "),
        ("reenact.actors.schedule:share_rows", lambda _: one_each, "have not ended after "),
        ("reenact.actors.batcher:turn", lambda _: lambda work: -work.sequence, r"(?m)^queue: record \d+, "),
        (
            "reenact.actors.batcher:choose",
            lambda _: None,
            r"(?m)^actors: record \d+, ActorFailed: expected batcher decides, actual it raised TypeError",
        ),
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


def test_all_rules_hold_and_everybody_ends_in_fixed_examples() -> None:
    """Every rule holds after every fact, and all that was admitted ends in time; events of every kind are met.

    No text is pooled, no actor raises, and a fork is no business of a kernel.
    """
    KernelMachine.met.clear()
    run_state_machine_as_test(KernelMachine, settings=settings(COMMON, derandomize=True))
    left_out = {e.EmbeddingComputed, e.SequenceForked, e.ActorFailed}
    assert {*get_args(e.GivenEvent), *get_args(e.DerivedEvent)} - left_out == KernelMachine.met


def test_all_rules_hold_and_everybody_ends_in_fresh_examples() -> None:
    """The same, in examples that are others in every run."""
    try:
        run_state_machine_as_test(FreshMachine, settings=COMMON)
    except BaseException as error:
        error.add_note(f"Run these examples again with {FRESH_SEED_NAME}={FRESH_SEED}")
        raise
