"""Hypothesis strategies of sessions: contexts, requests, what callers and readers do, and what becomes of a batch.

The rules that hold here:

* A strategy makes what a runtime can be given, and nothing else: values that the header allows, and outcomes of a batch
  that an engine can report. What comes of them is the kernel's to decide.

This module needs Hypothesis, which is no dependency of reenact: install it where you test. A policy is tested so; here
of one priority the shortest prompt comes first, and everything else is as it was::

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
from reenact.actors.inputs import Input, Row
from reenact.actors.options import Options
from reenact.replay.testing.kernel import CheckedKernel, Submission, context_of, decoded, header_of, left_undone, sample
from reenact.runtime.engine.protocol import refused

T = TypeVar("T")

N_CTX: Final = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 32, 100, 512)
N_SLOTS: Final = (1, 1, 2, 2, 2, 3, 3, 4, 8)
"""What stands here more than once comes more often, here and below."""

MOST_BATCHES_A_CONTEXT: Final = 32
"""Batches that a context of inputs takes at most, so that an example takes milliseconds; or as many as it has inputs,
where it has fewer."""

ENDLESS_N_CTX: Final = 6
"""The largest context in which a request may set no limit of its own: it generates ten times as much."""

PIECES: Final = (
    *(b"a", b"b", b"c", b"ab", b" word", b"<", b"/s>", b"x</s>", b""),
    *("é".encode(), "€".encode(), "😀".encode(), b"\xc3", b"\xa9", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0", b"\xff"),
)
"""Parts of the stop strings below, characters, halves of them, and bytes that never become one."""

TAILS: Final[tuple[tuple[Input, ...], ...]] = (
    (),
    (500,),
    (500, 501),
    (500, Row("a" * 64)),
    (Row("a" * 64), Row("b" * 64)),
    (Row("c" * 64), 500),
)
"""Ends of prompts: tokens, and rows of numbers in their place."""

STOPS: Final = ((), (), (), ("</s>",), ("ab", "é"), ("bb", "</s>", "c"))

FAR: Final = 1e6
"""Seconds of a deadline: it comes when a test gives it, and not by the time of the facts."""

VECTORS: Final = ((3.0, 4.0), (3.0, 4.0), (0.0, 0.0), (1e300, -1e300), ())
"""What a text is pooled to: nothing where the model gives a NaN."""


def weighted(*strategies: tuple[int, st.SearchStrategy[T]]) -> st.SearchStrategy[T]:
    """Return values of these strategies, of each as often as its weight says.

    ``st.one_of`` does not: it takes a strategy that stands in it twice for one, and those of a ``one_of`` in it for as
    many.

    Args:
        strategies: Each with its weight, a whole number from 1 on. Values are reduced to those of the first.

    Raises:
        ValueError: A weight is less, or there is no strategy.

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

    A batch has a row for each slot at least, and for whole prompts at most. A slot has as many cells as may be used, or
    as many more as an engine pads them to.

    Args:
        draw: Hypothesis gives it.
        pooling: For a model of embeddings, not one that generates.

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
    """Return headers of sessions in these contexts, in which nobody may wait, or some.

    Args:
        pooling: For a model of embeddings, not one that generates.

    Example::

        @given(header=headers())
        def test_a_session_opens(header):
            assert [header] == [record.event for record in CheckedKernel(header).records]
    """
    return st.builds(header_of, contexts(pooling=pooling), max_waiting=st.sampled_from([0, 1, 2, 9, 9, 9]))


# ---------------------------------------------------------------- callers and readers


def submissions(context: ContextFacts) -> st.SearchStrategy[Submission]:
    """Return requests: prompts of any length that matters in this context, with any options that actors look at.

    Prompts are empty, or shorter or longer than a batch or the context; many have a beginning in common. A request
    without a limit of its own is only made where ten contexts are few tokens. What is wanted is a text, or a vector
    where the model is one for them.

    Args:
        context: Of the session.

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
    # Of a text that is pooled every input is a token.
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
    """Return facts that may happen to a request that came, also to one that has ended; or another one is refused.

    Its prompt is tokenised at last, or cannot be; its reader stops, for too long perhaps, or goes on; its caller
    leaves; its deadline comes, if it has one.

    Args:
        session: The session; its requests came by `CheckedKernel.submit`, one at least.

    Raises:
        ValueError: None came.

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
    said = [kind(sequence=number) for kind in kinds for number in numbers]
    timed = [number for number in numbers if session.submissions[number].options.deadline is not None]
    return st.sampled_from([*said, *(e.DeadlineExpired(sequence=number) for number in timed)])


def _of_prompts(session: CheckedKernel, number: int) -> st.SearchStrategy[e.GivenEvent]:
    tokenized = session.submissions[number].tokenized(number)
    failed = e.TokenizeFailed(sequence=number, error="OSError")
    return st.sampled_from([*[tokenized] * 7, failed])


# ---------------------------------------------------------------- the engine


def samples(sequence: int) -> st.SearchStrategy[e.Sample]:
    """Return what may be drawn for a sequence: any bytes, an end of the text, or a fault in place of a token.

    Args:
        sequence: The sequence.

    Example::

        @given(one=samples(3))
        def test_a_fault_has_no_token(one):
            assert (one.token == -1) == (one.fault is not None)
    """
    pieces = weighted((4, st.sampled_from(PIECES)), (1, st.binary(max_size=4)))
    said = st.builds(sample, st.just(sequence), token=st.integers(3, 40), piece=pieces)
    eog = st.just(e.Sample(sequence=sequence, token=2, eog=True))
    faults: list[Literal["nan", "grammar", "cost", "engine"]] = ["nan", "grammar", "cost", "engine"]
    faulty = st.sampled_from([e.Sample(sequence=sequence, token=-1, fault=fault) for fault in faults])
    return weighted((6, said), (1, eog), (1, faulty))


def vectors(sequence: int) -> st.SearchStrategy[e.Vector]:
    """Return what the text of a sequence may be pooled to, numbers of any size or none.

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
    each = [samples(part.sequence) for part in planned.parts if part.draw is not None]
    pooled = [vectors(part.sequence) for part in planned.parts if part.pool]
    return st.builds(
        lambda drawn, vectors: changed(decoded(planned, *drawn), vectors=vectors),
        st.tuples(*each),
        st.tuples(*pooled),
    )


def undone(planned: e.BatchPlanned, code: int | None = None) -> st.SearchStrategy[e.BatchDecoded]:
    """Return outcomes of a batch that is not done.

    Where it was ended early (2) or failed (below -1), any of each sequence's rows may be in cells; else none is. Of one
    that is invalid (-1) it may be told where cells end, or nothing, because it never came to the engine.

    Args:
        planned: The batch.
        code: What ``llama_decode`` returned, but 0; unless given, any code.

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
    told = rows.map(lambda counts: left_undone(planned, code, counts))
    return st.one_of(told, st.just(refused(planned))) if code == e.INVALID else told


def outcomes(session: CheckedKernel) -> st.SearchStrategy[e.BatchDecoded]:
    """Return what may become of the batch in flight.

    It is done, more often than not; ended early, mostly where that was asked for; or there is no room, it is invalid,
    or it fails. What befalls the engine as a whole is yours to give: `EngineFailed`, `CellsLost`.

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
