"""For tests of policies and logs: sessions at random, and a kernel that every rule is held against.

The rules that hold here:

* A strategy makes what a runtime can be given, and nothing else: values that the header allows, and outcomes of a batch
  that an engine can report. What comes of them is the kernel's to decide.
* All rules are held against all records of a fact before the next fact is given. A violation is an `AssertionError`
  that names the rule, the record, and what stands there.
* What is known of a session is read from its records alone.

This module needs Hypothesis, which is no dependency of reenact: install it where you test. A policy is tested so::

    @given(header=headers(), data=st.data())
    def test_the_rules_hold(header, data):
        session = CheckedKernel(header)
        for submission in data.draw(st.lists(submissions(header.context), max_size=5)):
            session.tokenize(session.submit(submission))
        for _ in range(20):
            if session.in_flight is not None:
                session.give(data.draw(outcomes(session.in_flight)))
"""

from collections.abc import Collection, Sequence
from typing import Final, Literal

from attrs import frozen
from hypothesis import strategies as st

from reenact.actors import events as e
from reenact.actors.header import ContextFacts, DeterminismFacts, EngineFacts, Limits, ModelFacts, Numerics
from reenact.actors.inputs import Input
from reenact.actors.kernel import Kernel
from reenact.actors.limits import MAX_READER_LAG
from reenact.actors.options import Options
from reenact.replay.checking import Violation
from reenact.replay.checks import RULES, Checks
from reenact.runtime.codec import FORMAT, SCHEMA
from reenact.runtime.engine import refused

FACT_TIME: Final = 1_000_000
"""Nanoseconds from one fact to the next, where nobody says when it happened."""

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

STOPS: Final = ((), (), (), ("</s>",), ("ab", "é"), ("bb", "</s>", "c"))


# ---------------------------------------------------------------- headers


def header_of(context: ContextFacts, *, max_waiting: int) -> e.SessionOpened:
    """Return the header of a session without an engine.

    Args:
        context: The context.
        max_waiting: Requests that may wait for a slot.
    """
    return e.SessionOpened(
        format=FORMAT,
        schema=SCHEMA,
        session="test",
        opened_at="2026-01-01T00:00:00Z",
        reenact="0",
        python="3",
        platform="none",
        engine=EngineFacts(name="random", versions={}, system_info="", cpu="", library_sha256=""),
        model=ModelFacts(name="random", size=0, sha256="", description=""),
        context=context,
        limits=Limits(max_waiting=max_waiting, max_reader_lag=MAX_READER_LAG),
        policies={},
        rules={},
        determinism=DeterminismFacts(asked="auto", policy="schedule-independent", reason="", probe={}),
        parent=None,
    )


def context_of(
    *,
    n_slots: int,
    n_ctx: int,
    n_ctx_seq: int,
    n_batch: int,
    shift: Literal["move", "evaluate"],
    pooling: str = "none",
    alone: bool = True,
) -> ContextFacts:
    """Return a context without an engine; `reenact.actors.header.ContextFacts` says what its parameters are."""
    return ContextFacts(
        n_slots=n_slots,
        n_ctx=n_ctx,
        n_ctx_seq=n_ctx_seq,
        n_batch=n_batch,
        n_ubatch=n_batch,
        n_threads=1,
        numerics=Numerics(type_k="f16", type_v="f16", flash_attn="off", repack=False, tiled=False),
        kv_unified=False,
        shift=shift,
        n_embd=0,
        pooling=pooling,
        alone=alone,
        parameters={},
    )


@st.composite
def contexts(draw: st.DrawFn) -> ContextFacts:
    """Return contexts that generate, tiny and large: of one cell and of hundreds, of one slot and of several.

    A batch has a row for each slot at least, and for whole prompts at most. A slot has as many cells as may be used, or
    as many more as an engine pads them to.

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
    )


def headers() -> st.SearchStrategy[e.SessionOpened]:
    """Return headers of sessions in these contexts, in which nobody may wait, or some.

    Example::

        @given(header=headers())
        def test_a_session_opens(header):
            assert [header] == [record.event for record in CheckedKernel(header).records]
    """
    return st.builds(header_of, contexts(), max_waiting=st.sampled_from([0, 1, 2, 9, 9, 9]))


# ---------------------------------------------------------------- requests


@frozen(kw_only=True)
class Submission:
    """A request, and what its prompt is tokenised to."""

    prompt: tuple[Input, ...]
    bos_added: bool
    options: Options
    embedding: bool = False
    """A vector is wanted, not a text."""

    def received(self, number: int) -> e.RequestReceived:
        """Return the fact that it came, as this request."""
        return e.RequestReceived(
            sequence=number,
            request_id=None,
            prompt="...",
            options=self.options,
            embedding=self.embedding,
            continues=None,
        )

    def tokenized(self, number: int) -> e.PromptTokenized:
        """Return the fact that its prompt is tokenised."""
        return e.PromptTokenized(sequence=number, inputs=self.prompt, bos_added=self.bos_added, grammar=None)


def submissions(context: ContextFacts) -> st.SearchStrategy[Submission]:
    """Return requests for a text: prompts of any length that matters in this context, with any options.

    Prompts are empty, or shorter or longer than a batch or the context; many have a beginning in common. A request
    without a limit of its own is only made where ten contexts are few tokens.

    Args:
        context: Of the session.

    Example::

        @given(data=st.data(), header=headers())
        def test_a_request_is_answered(data, header):
            session = CheckedKernel(header)
            session.submit(data.draw(submissions(header.context)))
    """
    return _submissions(context.n_ctx, min(context.n_batch, 2 * context.n_ctx))


@st.composite
def _submissions(draw: st.DrawFn, n_ctx: int, n_batch: int) -> Submission:
    lengths = [0, 1, 2, 3, 3, 5, 5, 8, n_batch, n_batch + 1, n_ctx - 1, n_ctx, n_ctx, n_ctx + 1, 2 * n_ctx + 1]
    family, length = draw(st.sampled_from([100, 100, 100, 10_000])), draw(st.sampled_from(lengths))
    tail = draw(st.sampled_from([(), (), (50,), (50, 51)]))
    limits = [0, 1, 2, 3, 9, 9, 20, 20, *([-1, -1, -1] if n_ctx <= ENDLESS_N_CTX else [])]
    options = Options(
        seed=1,
        num_predict=draw(st.sampled_from(limits)),
        num_keep=draw(st.sampled_from([4, 4, 0, 2, n_ctx, -1])),
        stop=draw(st.sampled_from(STOPS)),
        shift=draw(st.sampled_from([True, True, True, False])),
        truncate=draw(st.sampled_from([True, True, True, False])),
        priority=draw(st.sampled_from([0, 0, 0, 1, 2, -1])),
        deadline=draw(st.sampled_from([None, 1.0])),
    )
    return Submission(prompt=(*range(family, family + length), *tail), bos_added=draw(st.booleans()), options=options)


# ---------------------------------------------------------------- outcomes


def sample(sequence: int, *, token: int = 7, piece: bytes = b"z") -> e.Sample:
    """Return a token that was drawn for a sequence; unless told otherwise one that is in no stop string above."""
    return e.Sample(sequence=sequence, token=token, piece=piece)


def samples(sequence: int) -> st.SearchStrategy[e.Sample]:
    """Return what may be drawn for a sequence: any bytes, an end of the text, or a fault in place of a token.

    Args:
        sequence: The sequence.

    Example::

        @given(one=samples(3))
        def test_a_fault_has_no_token(one):
            assert (one.token == -1) == (one.fault is not None)
    """
    pieces = st.one_of(st.sampled_from(PIECES), st.sampled_from(PIECES), st.binary(max_size=4))
    said = st.builds(sample, st.just(sequence), token=st.integers(3, 40), piece=pieces)
    ended = st.just(e.Sample(sequence=sequence, token=2, eog=True))
    faults: list[Literal["nan", "grammar", "cost"]] = ["nan", "grammar", "cost"]
    faulty = st.sampled_from([e.Sample(sequence=sequence, token=-1, fault=fault) for fault in faults])
    return st.one_of(*[said] * 12, ended, faulty)


def decoded(planned: e.BatchPlanned, *drawn: e.Sample) -> e.BatchDecoded:
    """Return the outcome of a batch that is done.

    Args:
        planned: The batch.
        drawn: For each part with a draw; none for tokens that are in no stop string above.
    """
    pooled = [part.sequence for part in planned.parts if part.pool]
    return e.BatchDecoded(
        batch=planned.batch,
        code=e.DONE,
        samples=drawn or tuple(sample(part.sequence) for part in planned.parts if part.draw is not None),
        vectors=tuple(e.Vector(sequence=number, values=(3.0, 4.0), crc32=0) for number in pooled),
        positions=tuple(
            (part.slot, -1 if part.pool else part.position + len(part.inputs) - 1) for part in planned.parts
        ),
    )


def done(planned: e.BatchPlanned) -> st.SearchStrategy[e.BatchDecoded]:
    """Return outcomes of a batch that is done: all rows are in cells, and anything is drawn.

    Args:
        planned: The batch.

    Example::

        session.give(data.draw(done(session.in_flight)))
    """
    each = [samples(part.sequence) for part in planned.parts if part.draw is not None]
    return st.tuples(*each).map(lambda drawn: decoded(planned, *drawn))


def undone(planned: e.BatchPlanned, code: int) -> st.SearchStrategy[e.BatchDecoded]:
    """Return outcomes of a batch that is not done.

    Where it was ended early (2) or failed (below -1), any of each sequence's rows may be in cells; else none is.

    Args:
        planned: The batch.
        code: What ``llama_decode`` returned.

    Example::

        if session.aborting:
            session.give(data.draw(undone(session.in_flight, code=2)))
    """
    in_part = code == e.ABORTED or code < e.INVALID
    rows = st.tuples(*(st.integers(0, len(part.inputs)) if in_part else st.just(0) for part in planned.parts))
    return rows.map(lambda counts: ended(planned, code, counts))


def ended(planned: e.BatchPlanned, code: int, counts: Sequence[int]) -> e.BatchDecoded:
    """Return the outcome of a batch that is not done.

    Args:
        planned: The batch.
        code: What ``llama_decode`` returned.
        counts: How many rows of each part are in cells.
    """
    positions = tuple((part.slot, part.position + count - 1) for part, count in zip(planned.parts, counts, strict=True))
    return e.BatchDecoded(batch=planned.batch, code=code, samples=(), vectors=(), positions=positions)


def outcomes(planned: e.BatchPlanned) -> st.SearchStrategy[e.BatchDecoded]:
    """Return outcomes of a batch of every kind: done, more often than not; no room, ended early, invalid, failed.

    Args:
        planned: The batch.

    Example::

        session.give(data.draw(outcomes(session.in_flight)))
    """
    codes = e.NO_ROOM, e.ABORTED, e.INVALID, -2, -3
    failing = st.one_of(*(undone(planned, code) for code in codes), st.just(refused(planned)))
    return st.one_of(done(planned), done(planned), failing)


# ---------------------------------------------------------------- a kernel under all rules


class CheckedKernel:
    """A session whose every record is held against the rules.

    Args:
        header: Its first record.
        kernel: Who decides; a `Kernel` unless given. It has had no fact yet.
        rules: The names of the rules, as in `reenact.replay.checks.RULES`; None for all.
    """

    def __init__(
        self, header: e.SessionOpened, *, kernel: Kernel | None = None, rules: Collection[str] | None = None
    ) -> None:
        self.kernel = Kernel() if kernel is None else kernel
        self.context = header.context
        self.records: list[e.Record] = []
        self.submissions: dict[int, Submission] = {}
        """All requests that came by `submit`."""
        self.live: set[int] = set()
        """Requests that have not ended."""
        self.in_flight: e.BatchPlanned | None = None
        """The batch whose outcome is due."""
        self.aborting = False
        """It is to end early."""
        self.sound = True
        """Nothing was raised yet."""
        self._checks = Checks(rules)
        self._t = 0
        self.give(header)

    def give(self, fact: e.GivenEvent, *, t: int | None = None) -> list[e.Record]:
        """Give the kernel a fact and hold all that follows against the rules.

        Args:
            fact: The fact.
            t: When it happens, in nanoseconds since the session opened; a moment after the last one unless given.

        Returns:
            Its record, and all that follow from it.

        Raises:
            AssertionError: A rule does not hold; it names the rule, the record, and what stands there.
        """
        # Until all has gone well: the kernel itself may raise.
        sound, self.sound = self.sound, False
        self._t = self._t + FACT_TIME if t is None else t
        records = self.kernel.handle(fact)
        violations: list[Violation] = []
        for record in records:
            self.records.append(record)
            self._follow(record.event)
            violations += self._checks.add(record, self._t)
        violations += self._checks.end()
        if violations:
            raise AssertionError("\n".join(map(self._complaint, violations)))
        self.sound = sound
        return records

    def submit(self, submission: Submission) -> int:
        """Give a request and return its number; its prompt is not tokenised yet."""
        number = self.kernel.n_requests + 1
        self.submissions[number] = submission
        self.give(submission.received(number))
        return number

    def tokenize(self, number: int) -> None:
        """Say what the prompt of a request is tokenised to."""
        self.give(self.submissions[number].tokenized(number))

    def close(self) -> None:
        """Close the session, where all requests have ended; its digest is compared with the fold."""
        self.give(e.SessionClosed(digest=self.kernel.digest()))

    def _follow(self, event: e.Event) -> None:
        match event:
            case e.RequestReceived(sequence=number):
                self.live.add(number)
            case e.SequenceFinished(sequence=number):
                self.live.discard(number)
            case e.BatchPlanned():
                self.in_flight, self.aborting = event, False
            case e.AbortRequested():
                self.aborting = True
            case e.BatchDecoded() | e.EngineFailed() | e.CellsLost():
                self.in_flight, self.aborting = None, False
            case _:
                pass

    def _complaint(self, violation: Violation) -> str:
        name = next((type(one.event).__name__ for one in self.records if one.n == violation.n), "none")
        told = f"expected {violation.expected}, actual {violation.actual}"
        return f"{violation.rule}: record {violation.n}, {name}: {told}. The rule: {RULES[violation.rule].says}"
