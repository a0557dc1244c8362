"""What holds where several want the same, in situations that random sessions seldom come to: all rules, every time."""

from typing import Any, Literal

from hypothesis import strategies as st

from reenact.actors import events as e
from reenact.actors.options import Options
from reenact.replay.testing.kernel import CheckedKernel, Submission, context_of, decoded, header_of
from reenact.replay.testing.liveness import end_all
from reenact.replay.testing.strategies import undone
from tests.helpers.properties import holds_for

SHIFTS: st.SearchStrategy[Literal["move", "evaluate"]] = st.sampled_from(["move", "evaluate"])


def opened(n_slots: int, n_batch: int, shift: Literal["move", "evaluate"]) -> CheckedKernel:
    """Open a session in which nine may wait."""
    context = context_of(n_slots=n_slots, n_ctx=64, n_ctx_seq=64, n_batch=n_batch, shift=shift)
    return CheckedKernel(header_of(context, max_waiting=9))


def asked(session: CheckedKernel, n_prompt: int, *, own: tuple[int, ...] = (), **options: Any) -> int:
    """Let a request come whose prompt is tokenized at once, and return its number.

    Args:
        session: The session.
        n_prompt: Tokens that all prompts begin with.
        own: The tokens behind them.
        options: Of the request.
    """
    prompt = (*range(100, 100 + n_prompt), *own)
    submission = Submission(prompt=prompt, bos_added=False, options=Options(seed=1, **options))
    number = session.submit(submission)
    session.tokenize(number)
    return number


def done(session: CheckedKernel, n_batches: int) -> None:
    """Let batches come to their end."""
    for _ in range(n_batches):
        if session.in_flight is not None:
            session.give(decoded(session.in_flight))


@holds_for(
    examples=30,
    n_slots=st.integers(1, 4),
    n_later=st.integers(1, 3),
    n_before=st.integers(1, 4),
    n_between=st.integers(3, 8),
    shift=SHIFTS,
)
def test_who_reads_on_takes_nobodys_slot(
    *, n_slots: int, n_later: int, n_before: int, n_between: int, shift: Literal["move", "evaluate"]
) -> None:
    """A sequence that made room while its reader paused waits like all of its priority, though it came first."""
    session = opened(n_slots, 2 * n_slots, shift)
    youngest = [asked(session, 3, num_predict=30) for _ in range(n_slots)][-1]
    done(session, n_before)
    session.give(e.ReaderPaused(sequence=youngest))
    done(session, 2)
    asked(session, 2, num_predict=1, priority=1)
    for _ in range(n_later):
        asked(session, 2, num_predict=20)
    done(session, n_between)
    session.give(e.ReaderResumed(sequence=youngest))
    done(session, 4)
    end_all(session)
    session.close()


@holds_for(examples=30, n_leaving=st.integers(2, 4), rows=st.integers(2, 6), shift=SHIFTS, data=st.data())
def test_who_leaves_ends_one_batch_of_two(
    *, n_leaving: int, rows: int, shift: Literal["move", "evaluate"], data: st.DataObject
) -> None:
    """However many leave in their prefills one after the other, of two batches in a row one comes to its end."""
    session = opened(n_leaving + 1, (n_leaving + 1) * rows, shift)
    asked(session, 1, num_predict=40)
    done(session, 1)
    leaving = [asked(session, 60, num_predict=2) for _ in range(n_leaving)]
    done(session, 1)
    for number in leaving:
        session.give(e.CancelRequested(sequence=number))
        if session.in_flight is not None:
            planned = session.in_flight
            session.give(data.draw(undone(planned, e.ABORTED)) if session.aborting else decoded(planned))
    end_all(session)
    session.close()


@holds_for(
    examples=30,
    n_slots=st.integers(2, 4),
    n_common=st.integers(16, 40),
    n_waiting=st.integers(1, 2),
    strangers=st.lists(st.integers(0, 2), min_size=1, max_size=6),
    shift=SHIFTS,
)
def test_who_waits_for_a_beginning_finds_a_slot(
    *, n_slots: int, n_common: int, n_waiting: int, strangers: list[int], shift: Literal["move", "evaluate"]
) -> None:
    """Others take the slots beside those kept for a sequence that waits for a beginning of its prompt."""
    session = opened(n_slots, 2 * n_slots, shift)
    asked(session, n_common, own=(1, 2, 3), num_predict=2)
    for number in range(n_waiting):
        asked(session, n_common, own=(10 + number,), num_predict=2)
    for n_batches in strangers:
        asked(session, 0, own=(50, 51), num_predict=3)
        done(session, n_batches)
    end_all(session)
    session.close()
