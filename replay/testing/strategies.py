"""Hypothesis strategies for sessions: contexts, requests, the acts of callers and readers, and outcomes of batches.

The rules that hold here:

* A strategy makes only values that a runtime can be given: those that the header allows, and outcomes of a batch that
  an engine can report. The kernel decides what follows from them.

This module needs Hypothesis, which reenact does not depend on: install it where you test. For example, this tests a
policy by which the shortest prompt of a priority comes first, while everything else is unchanged::

    @given(header=headers(), data=st.data())
    def test_the_shortest_prompt_comes_first(header, data):
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
"""

from typing import Final, Literal, TypeVar

from attrs import evolve as changed
from hypothesis import strategies as st

from reenact.actors import events as e
from reenact.actors.errors import Failure
from reenact.actors.header import ContextFacts
from reenact.actors.inputs import Input
from reenact.actors.options import Options
from reenact.replay.testing.kernel import CheckedKernel, Submission, context_of, decoded, header_of, left_undone, sample
from reenact.runtime.engine.protocol import refused
from reenact.runtime.engine.row_numbers import Numbers, packed, row_with

T = TypeVar("T")

N_CTX: Final = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 32, 100, 512)
N_SLOTS: Final = (1, 1, 2, 2, 2, 3, 3, 4, 8)
"""A value that is listed more than once comes more often, here and below."""

MOST_BATCHES_A_CONTEXT: Final = 32
"""The most batches that a context of inputs takes, so that an example takes milliseconds; or as many as it has inputs,
if it has fewer."""

ENDLESS_N_CTX: Final = 6
"""The largest context in which a request may set no limit of its own: it generates ten times as much."""

PIECES: Final = (
    *(b"a", b"b", b"c", b"ab", b" word", b"<", b"/s>", b"x</s>", b""),
    *("é".encode(), "€".encode(), "😀".encode(), b"\xc3", b"\xa9", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0", b"\xff"),
)
"""Parts of the stop strings below, characters, halves of characters, and bytes that are never part of one."""

ROWS: Final[Numbers] = {row_with(numbers): numbers for numbers in (packed((one, 0.5)) for one in (0.25, 0.5, 0.75))}
"""The rows of numbers that prompts have, with their numbers: two each, as in a `ScriptedEngine`."""

_ROW, _OTHER_ROW, _THIRD_ROW = ROWS

TAILS: Final[tuple[tuple[Input, ...], ...]] = (
    (),
    (500,),
    (500, 501),
    (500, _ROW),
    (_ROW, _OTHER_ROW),
    (_THIRD_ROW, 500),
)
"""Ends of prompts: tokens, and rows of numbers in their place."""

STOPS: Final = ((), (), (), ("</s>",), ("ab", "é"), ("bb", "</s>", "c"))

FAR: Final = 1e6
"""The seconds of a deadline: it comes when a test gives it, and not by the time of the facts."""

VECTORS: Final = ((3.0, 4.0), (3.0, 4.0), (0.0, 0.0), (1e300, -1e300), ())
"""The vectors of pooled texts: empty if the model returns a NaN."""


def weighted(*strategies: tuple[int, st.SearchStrategy[T]]) -> st.SearchStrategy[T]:
    """Return values of these strategies, each in proportion to its weight.

    ``st.one_of`` cannot do this: it counts a strategy that is listed twice once, and flattens a ``one_of`` among its
    arguments.

    Args:
        strategies: Each strategy with its weight, a whole number from 1 on. Values shrink towards those of the first.

    Raises:
        ValueError: A weight is less than 1, or there is no strategy.

    Example::

        BATCHES = weighted((9, st.just("done")), (1, st.sampled_from(["no room", "failed"])))
    """
    if not strategies or min(weight for weight, _ in strategies) < 1:
        raise ValueError("weighted: expected strategies, each with a weight from 1 on")
    which = [i for i, (weight, _) in enumerate(strategies) for _ in range(weight)]
    return st.sampled_from(which).flatmap(lambda i: strategies[i][1])


# ---------------------------------------------------------------- headers


@st.composite
def contexts(draw: st.DrawFn, *, pooling: bool = False) -> ContextFacts:
    """Return contexts, tiny and large: of one cell and of hundreds, of one slot and of several.

    A batch has at least a row for each slot, and at most whole prompts. A slot has exactly as many cells as may be
    used, or as many as an engine pads them to.

    Args:
        draw: Supplied by Hypothesis.
        pooling: Whether the model embeds instead of generating.

    Example::

        @given(context=contexts())
        def test_a_batch_has_a_row_for_each_slot(context):
            assert context.n_batch >= context.n_slots
    """
    n_slots, n_ctx = draw(st.sampled_from(N_SLOTS)), draw(st.sampled_from(N_CTX))
    least = max(n_slots, n_ctx // MOST_BATCHES_A_CONTEXT)
    n_batch = draw(st.sampled_from(sorted({least, least + 1, least + 4, max(least, n_ctx), max(least, 2 * n_ctx)})))
    return context_of(
        n_slots=n_slots,
        n_ctx=n_ctx,
        n_ctx_seq=draw(st.sampled_from([n_ctx, -(-n_ctx // 256) * 256])),
        n_batch=n_batch,
        shift=draw(st.sampled_from(["move", "evaluate"])),
        pooling="mean" if pooling else "none",
        alone=draw(st.booleans()) if pooling else True,
    )


def headers(*, pooling: bool = False) -> st.SearchStrategy[e.SessionOpened]:
    """Return headers of sessions in these contexts, in which no request may wait, or some.

    Args:
        pooling: Whether the model embeds instead of generating.

    Example::

        @given(header=headers())
        def test_a_session_opens(header):
            assert [header] == [record.event for record in CheckedKernel(header).records]
    """
    return st.builds(header_of, contexts(pooling=pooling), max_waiting=st.sampled_from([0, 1, 2, 9, 9, 9]))


# ---------------------------------------------------------------- callers and readers


def submissions(context: ContextFacts) -> st.SearchStrategy[Submission]:
    """Return requests: prompts of any length that matters in this context, with any options that actors use.

    Prompts are empty, or shorter or longer than a batch or the context; many have a beginning in common. A request
    without a limit of its own is made only where ten contexts are few tokens. The request is for a text, or for a
    vector if the model is an embedding model.

    Args:
        context: The context of the session.

    Example::

        @given(data=st.data(), header=headers())
        def test_a_request_is_answered(data, header):
            session = CheckedKernel(header)
            session.submit(data.draw(submissions(header.context)))
    """
    return _submissions(context.n_ctx, min(context.n_batch, 2 * context.n_ctx), embedding=context.pooling != "none")


@st.composite
def _submissions(draw: st.DrawFn, n_ctx: int, n_batch: int, *, embedding: bool) -> Submission:
    lengths = [0, 1, 2, 3, 3, 5, 5, 8, n_batch, n_batch + 1, n_ctx - 1, n_ctx, n_ctx, n_ctx + 1, 2 * n_ctx + 1]
    family, length = draw(st.sampled_from([100, 100, 100, 10_000])), draw(st.sampled_from(lengths))
    # Every input of a pooled text is a token.
    tail = draw(st.sampled_from(TAILS[:3] if embedding else ((), (), *TAILS)))
    limits = [0, 1, 2, 3, 9, 9, 20, 20, *([-1, -1, -1] if n_ctx <= ENDLESS_N_CTX else [])]
    options = Options(
        seed=1,
        num_predict=draw(st.sampled_from(limits)),
        num_keep=draw(st.sampled_from([4, 4, 0, 2, n_ctx, -1])),
        stop=draw(st.sampled_from(STOPS)),
        shift=draw(st.sampled_from([True, True, True, False])),
        truncate=draw(st.sampled_from([True, True, True, False])),
        priority=draw(st.sampled_from([0, 0, 1, 2, -1])),
        deadline=draw(st.sampled_from([None, FAR])),
        dimensions=draw(st.sampled_from([None, 1, 2])) if embedding else None,
    )
    prompt = (*range(family, family + length), *tail)
    return Submission(prompt=prompt, bos_added=draw(st.booleans()), options=options, embedding=embedding)


_REFUSED: Final = e.RequestRefused(
    request_id=None, failure=Failure(kind="invalid_request", field="top_k", reason="below 0")
)


def facts(session: CheckedKernel) -> st.SearchStrategy[e.GivenEvent]:
    """Return facts about requests that were received, including ended ones, or the refusal of another request.

    A prompt is tokenized at last, or cannot be; a reader pauses, perhaps for too long, or resumes; a caller cancels its
    request; a deadline comes, if there is one.

    Args:
        session: The session; at least one request was given by `CheckedKernel.submit`.

    Raises:
        ValueError: No request was given.

    Example::

        session.give(data.draw(facts(session)))
    """
    if not session.submissions:
        raise ValueError("facts: no request came yet by submit()")
    came, untokenized = session.submissions.keys(), [one for one in session.untokenized if one in session.submissions]
    live, late = sorted(came & session.live), sorted(came - session.live)
    happening = [(weight, _of_readers(session, numbers)) for weight, numbers in ((6, live), (1, late)) if numbers]
    happening.append((1, st.just(_REFUSED)))
    if untokenized:
        happening.append((4, st.sampled_from(untokenized).flatmap(lambda number: _of_prompts(session, number))))
    return weighted(*happening)


def _of_readers(session: CheckedKernel, numbers: list[int]) -> st.SearchStrategy[e.GivenEvent]:
    kinds = [*[e.ReaderPaused] * 2, *[e.ReaderResumed] * 2, e.PauseExpired, e.CancelRequested]
    acts = [kind(sequence=number) for kind in kinds for number in numbers]
    timed = [number for number in numbers if session.submissions[number].options.deadline is not None]
    return st.sampled_from([*acts, *(e.DeadlineExpired(sequence=number) for number in timed)])


def _of_prompts(session: CheckedKernel, number: int) -> st.SearchStrategy[e.GivenEvent]:
    tokenized = session.submissions[number].tokenized(number)
    failed = e.TokenizeFailed(sequence=number, error="OSError")
    return st.sampled_from([*[tokenized] * 7, failed])


# ---------------------------------------------------------------- the engine


def samples(sequence: int, index: int) -> st.SearchStrategy[e.Sample]:
    """Return possible samples for a sequence: any bytes, an end of the text, or a fault in place of a token.

    Args:
        sequence: The sequence.
        index: Of the token among those of the sequence.

    Example::

        @given(one=samples(3, 0))
        def test_a_fault_has_no_token(one):
            assert (one.token == -1) == (one.fault is not None)
    """
    pieces = weighted((4, st.sampled_from(PIECES)), (1, st.binary(max_size=4)))
    token = st.builds(sample, st.just(sequence), st.just(index), token=st.integers(3, 40), piece=pieces)
    eog = st.just(e.Sample(sequence=sequence, index=index, token=2, eog=True))
    faults: list[Literal["nan", "grammar", "cost", "engine"]] = ["nan", "grammar", "cost", "engine"]
    faulty = st.sampled_from([e.Sample(sequence=sequence, index=index, token=-1, fault=fault) for fault in faults])
    return weighted((6, token), (1, eog), (1, faulty))


def vectors(sequence: int) -> st.SearchStrategy[e.Vector]:
    """Return possible vectors of a sequence's text: numbers of any size, or none.

    Args:
        sequence: The sequence.

    Example::

        @given(one=vectors(3))
        def test_a_vector_has_two_numbers_or_none(one):
            assert len(one.values) in {0, 2}
    """
    return st.builds(e.Vector, sequence=st.just(sequence), values=st.sampled_from(VECTORS), crc32=st.just(0))


def done(planned: e.BatchPlanned) -> st.SearchStrategy[e.BatchDecoded]:
    """Return outcomes of a batch that is done: all rows are in cells, and anything is drawn or pooled.

    Args:
        planned: The batch.

    Example::

        session.give(data.draw(done(session.in_flight)))
    """
    each = [samples(part.sequence, part.draw) for part in planned.parts if part.draw is not None]
    pooled = [vectors(part.sequence) for part in planned.parts if part.pools]
    return st.builds(
        lambda drawn, vectors: changed(decoded(planned, *drawn), vectors=vectors),
        st.tuples(*each),
        st.tuples(*pooled),
    )


def undone(planned: e.BatchPlanned, code: int | None = None) -> st.SearchStrategy[e.BatchDecoded]:
    """Return outcomes of a batch that is not done.

    If it was ended early (2) or failed (below -1), any number of each sequence's rows may be in cells, and otherwise
    none. An invalid batch (-1) may report where cells end, or nothing, because it never came to the engine.

    Args:
        planned: The batch.
        code: The return value of ``llama_decode``, which is not 0; by default any such code.

    Raises:
        ValueError: The code is that of a batch that is done.

    Example::

        if session.aborting:
            session.give(data.draw(undone(session.in_flight, code=2)))
    """
    if code is None:
        return st.sampled_from([e.NO_ROOM, e.ABORTED, e.INVALID, -2, -3]).flatmap(lambda one: undone(planned, one))
    if code == e.DONE:
        raise ValueError(f"code {code}: such a batch is done, see done()")
    in_part = code == e.ABORTED or code < e.INVALID
    rows = st.tuples(*(st.integers(0, len(part.inputs)) if in_part else st.just(0) for part in planned.parts))
    reported = rows.map(lambda counts: left_undone(planned, code, counts))
    return st.one_of(reported, st.just(refused(planned))) if code == e.INVALID else reported


def outcomes(session: CheckedKernel) -> st.SearchStrategy[e.BatchDecoded]:
    """Return possible outcomes of the batch in flight.

    Mostly it is done; it is ended early, above all if that was requested; or there is no room, it is invalid, or it
    fails. Faults of the engine as a whole are yours to give: `EngineFailed`, `CellsLost`.

    Args:
        session: The session.

    Raises:
        ValueError: No batch is in flight.

    Example::

        if session.in_flight is not None:
            session.give(data.draw(outcomes(session)))
    """
    planned = session.in_flight
    if planned is None:
        raise ValueError("outcomes: no batch is in flight")
    aborted = [(6, undone(planned, e.ABORTED))] if session.aborting else []
    return weighted((6, done(planned)), *aborted, (1, undone(planned)))
