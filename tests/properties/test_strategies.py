"""What `reenact.replay` gives to tests of policies: its examples hold, and its strategies leave nothing out."""

from typing import Final, get_args

from hypothesis import strategies as st

from reenact.actors import events as e
from reenact.actors.options import Options
from reenact.replay.liveness import end_all
from reenact.replay.strategies import facts, headers, outcomes, submissions, weighted
from reenact.replay.testing import CheckedKernel, Submission, context_of, decoded, header_of
from tests.support import exists, holds_for

HEADERS: Final = weighted((2, headers()), (1, headers(pooling=True)))


def test_two_share_a_slot() -> None:
    """The example of `reenact.replay.testing`, word for word."""
    context = context_of(n_slots=1, n_ctx=16, n_ctx_seq=16, n_batch=8, shift="evaluate")
    session = CheckedKernel(header_of(context, max_waiting=1))
    for prompt in [(5, 6, 7), (5, 6)]:
        options = Options(seed=1, num_predict=2)
        session.tokenize(session.submit(Submission(prompt=prompt, bos_added=False, options=options)))
    while session.in_flight is not None:
        session.give(decoded(session.in_flight))
    session.close()


@holds_for(examples=60, header=HEADERS, data=st.data())
def test_the_rules_hold(header: e.SessionOpened, data: st.DataObject) -> None:
    """The example of `reenact.replay.strategies`, word for word: what a user writes holds for our own policy."""
    session = CheckedKernel(header)
    for _ in range(20):
        session.tokenize(session.submit(data.draw(submissions(header.context))))
        session.give(data.draw(facts(session)))
        if session.in_flight is not None:
            session.give(data.draw(outcomes(session.in_flight)))
    end_all(session)


@st.composite
def sessions(draw: st.DrawFn) -> CheckedKernel:
    """Return sessions whose facts all come from strategies, and which end."""
    session = CheckedKernel(draw(HEADERS))
    for _ in range(10):
        number = session.submit(draw(submissions(session.context)))
        if draw(st.booleans()):
            session.tokenize(number)
        session.give(draw(facts(session)))
        for _ in range(3):
            if session.in_flight is not None:
                session.give(draw(outcomes(session.in_flight)))
    end_all(session)
    session.close()
    return session


def test_everything_happens() -> None:
    """Among these sessions there are events of every kind.

    No actor raises, and what befalls the engine as a whole is given by hand.
    """
    left_out = {e.ActorFailed, e.CellsLost, e.EngineFailed, e.SequenceForked}
    unmet = {*get_args(e.GivenEvent), *get_args(e.DerivedEvent)} - left_out

    def all_met(session: CheckedKernel) -> bool:
        unmet.difference_update(type(record.event) for record in session.records)
        return not unmet

    assert exists(sessions(), all_met), unmet
