"""What `reenact.replay` gives to tests of policies: its examples, what its strategies come to, and its errors."""

import inspect
from collections.abc import Callable
from textwrap import dedent
from types import ModuleType
from typing import Any, Final, get_args

import pytest
from attrs import evolve
from hypothesis import strategies as st

from reenact.actors import events as e
from reenact.actors.errors import InternalError
from reenact.actors.options import Options
from reenact.replay.check.rules import RULES
from reenact.replay.testing import kernel, strategies
from reenact.replay.testing.kernel import CheckedKernel, Submission, context_of, decoded, header_of, left_undone
from reenact.replay.testing.liveness import end_all
from reenact.replay.testing.strategies import facts, headers, outcomes, submissions, undone, weighted
from tests.helpers.properties import exists, holds_for

HEADERS: Final = weighted((2, headers()), (1, headers(pooling=True)))


# ---------------------------------------------------------------- examples


def test_two_share_a_slot() -> None:
    """The example of `reenact.replay.testing.kernel`."""
    context = context_of(n_slots=1, n_ctx=16, n_ctx_seq=16, n_batch=8, shift="evaluate")
    session = CheckedKernel(header_of(context, max_waiting=1))
    for prompt in [(5, 6, 7), (5, 6)]:
        options = Options(seed=1, num_predict=2)
        session.tokenize(session.submit(Submission(prompt=prompt, bos_added=False, options=options)))
    while session.in_flight is not None:
        session.give(decoded(session.in_flight))
    session.close()


def _test_the_shortest_prompt_comes_first(header: e.SessionOpened, data: st.DataObject) -> None:
    """The example of `reenact.replay.testing.strategies`: another policy keeps the rules that are not about it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reenact.actors.batcher.turn", lambda work: (-work.priority, len(work.inputs)))
        session = CheckedKernel(header, rules=RULES.keys() - {"queue", "places", "digest"})
        for _ in range(10):
            number = session.submit(data.draw(submissions(header.context)))
            if data.draw(st.booleans()):
                session.tokenize(number)
            session.give(data.draw(facts(session)))
            for _ in range(3):
                if session.in_flight is not None:
                    session.give(data.draw(outcomes(session)))
        end_all(session)
        session.close()


test_the_shortest_prompt_comes_first = holds_for(examples=40, header=HEADERS, data=st.data())(
    _test_the_shortest_prompt_comes_first
)


@pytest.mark.parametrize(
    ("module", "test"),
    [(kernel, test_two_share_a_slot), (strategies, _test_the_shortest_prompt_comes_first)],
    ids=["testing", "strategies"],
)
def test_the_examples_are_tests(module: ModuleType, test: Callable[..., None]) -> None:
    """What the page of a module shows is a test here, word for word."""
    source = inspect.getsource(test)
    body = dedent(source[source.index('"""\n', source.index('"""') + 3) + 4 :])
    shown = dedent((module.__doc__ or "").partition("::\n")[2])
    shown = dedent(shown.partition("):\n")[2].partition("\n\n`")[0])
    assert body.strip() == shown.strip()


# ---------------------------------------------------------------- what strategies come to


def played(header: e.SessionOpened, draw: Callable[[st.SearchStrategy[Any]], Any]) -> CheckedKernel:
    """Return a session whose facts all come from strategies, and which has ended."""
    session = CheckedKernel(header)
    for _ in range(10):
        number = session.submit(draw(submissions(header.context)))
        if draw(st.booleans()):
            session.tokenize(number)
        session.give(draw(facts(session)))
        for _ in range(3):
            if session.in_flight is not None:
                session.give(draw(outcomes(session)))
    end_all(session)
    session.close()
    return session


@holds_for(examples=40, header=HEADERS, data=st.data())
def test_the_rules_hold(header: e.SessionOpened, data: st.DataObject) -> None:
    """Our own policy keeps all rules, whatever the strategies give, and every request ends in time."""
    played(header, data.draw)


def test_everything_happens() -> None:
    """Among these sessions there are events of every kind.

    No actor raises, and what befalls the engine as a whole is given by hand.
    """
    left_out = {e.ActorFailed, e.CellsLost, e.EngineFailed, e.SequenceForked, e.SessionResumed}
    unmet = {*get_args(e.GivenEvent), *get_args(e.DerivedEvent)} - left_out

    def all_met(session: CheckedKernel) -> bool:
        unmet.difference_update(type(record.event) for record in session.records)
        return not unmet

    sessions = st.composite(lambda draw: played(draw(HEADERS), draw))
    assert exists(sessions(), all_met), unmet


def test_a_weight_is_how_often() -> None:
    """Of a hundred values nine in ten come from the strategy that is nine times as heavy, however many it has."""
    pair = weighted((9, st.integers(0, 99)), (1, st.one_of(st.just(-1), st.just(-2))))
    assert exists(st.lists(pair, min_size=100, max_size=100), lambda drawn: 5 <= sum(one < 0 for one in drawn) <= 15)


# ---------------------------------------------------------------- errors


CONTEXT: Final = context_of(n_slots=1, n_ctx=16, n_ctx_seq=16, n_batch=8, shift="evaluate")
SUBMISSION: Final = Submission(prompt=(5, 6, 7), bos_added=False, options=Options(seed=1, num_predict=2))


@pytest.fixture
def session() -> CheckedKernel:
    """Return a session with a slot for one."""
    return CheckedKernel(header_of(CONTEXT, max_waiting=1))


def test_a_policy_that_goes_round_in_circles(session: CheckedKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error that says what happened last, and not a test that hangs."""
    monkeypatch.setattr("reenact.actors.kernel.MOST_RECORDS", 100)
    monkeypatch.setattr("reenact.actors.batcher.turn", lambda work: (work.sequence,))
    session.tokenize(session.submit(SUBMISSION))
    urgent = evolve(SUBMISSION, options=evolve(SUBMISSION.options, priority=1))
    session.tokenize(session.submit(urgent))
    assert session.in_flight is not None
    with pytest.raises(AssertionError, match="it goes round in circles: 100 records follow from one fact"):
        session.give(decoded(session.in_flight))
    assert not session.sound


def test_what_cannot_be_is_told_of(session: CheckedKernel) -> None:
    """Each misuse is an error that names what is wrong."""
    with pytest.raises(ValueError, match="no request came yet"):
        facts(session)
    with pytest.raises(ValueError, match="no batch is in flight"):
        outcomes(session)
    with pytest.raises(ValueError, match="embedding: a vector is wanted where pooling is 'none'"):
        session.submit(evolve(SUBMISSION, embedding=True))
    number = session.submit(SUBMISSION)
    session.tokenize(number)
    with pytest.raises(ValueError, match="the prompt of request 1 is not waiting to be tokenized"):
        session.tokenize(number)
    assert session.in_flight is not None
    for undo in (lambda planned: left_undone(planned, 0, [1]), lambda planned: undone(planned, 0)):
        with pytest.raises(ValueError, match="code 0: such a batch is done"):
            undo(session.in_flight)
    session.give(SUBMISSION.received(number + 1))
    with pytest.raises(ValueError, match=r"requests \[2\] were not given by submit"):
        end_all(session)


def test_headers_and_rules_that_there_are_not() -> None:
    """A rule must have its name, and a batch a row for each slot."""
    with pytest.raises(KeyError, match="no rule is called 'nope'"):
        CheckedKernel(header_of(CONTEXT, max_waiting=1), rules=["text", "nope"])
    with pytest.raises(InternalError, match="a batch of 1 rows has none for some of 2 slots"):
        CheckedKernel(header_of(evolve(CONTEXT, n_slots=2, n_batch=1), max_waiting=1))


@pytest.mark.parametrize("weights", [[], [0], [1, -1]])
def test_weights(weights: list[int]) -> None:
    """A strategy that never comes, and none at all, are refused at once."""
    with pytest.raises(ValueError, match="a weight from 1 on"):
        weighted(*((weight, st.none()) for weight in weights))
