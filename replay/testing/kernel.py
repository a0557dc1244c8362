"""For tests of policies and logs: a kernel that every rule is held against, and what it can be given.

The rules that hold here:

* All rules are held against all records of a fact before the next fact is given. A violation is an `AssertionError`
  that names the rule, the record, and what stands there.
* What is known of a session is read from its records alone.
* A policy that goes round in circles ends as one that raises: the rule "actors" tells so.

A session without an engine, fact by fact::

    def test_two_share_a_slot():
        context = context_of(n_slots=1, n_ctx=16, n_ctx_seq=16, n_batch=8, shift="evaluate")
        session = CheckedKernel(header_of(context, max_waiting=1))
        for prompt in [(5, 6, 7), (5, 6)]:
            options = Options(seed=1, num_predict=2)
            session.tokenize(session.submit(Submission(prompt=prompt, bos_added=False, options=options)))
        while session.in_flight is not None:
            session.give(decoded(session.in_flight))
        session.close()

`reenact.replay.testing.strategies` makes such sessions at random, and `reenact.replay.testing.liveness` says how soon
they end. A log of your own is held against the same rules by `reenact.replay.check_log`.
"""

from collections.abc import Collection, Sequence
from typing import Final, Literal

from attrs import evolve as changed
from attrs import frozen

from reenact.actors import events as e
from reenact.actors.header import ContextFacts, DeterminismFacts, EngineFacts, Limits, ModelFacts, Numerics
from reenact.actors.inputs import Input
from reenact.actors.limits import MAX_READER_LAG
from reenact.actors.options import Options
from reenact.replay.check.rule import Violation
from reenact.replay.check.runner import RULES, Checks
from reenact.runtime.engine.driver import Driver
from reenact.runtime.engine.protocol import Loaded
from reenact.runtime.engine.session_header import session_header

FACT_TIME: Final = 1_000_000
"""Nanoseconds from one fact to the next, where nobody says when it happened."""


# ---------------------------------------------------------------- what a kernel can be given


def header_of(context: ContextFacts, *, max_waiting: int) -> e.SessionOpened:
    """Return the header of a session without an engine.

    Args:
        context: The context.
        max_waiting: Requests that may wait for a slot.
    """
    loaded = Loaded(
        engine=EngineFacts(name="random", versions={}, system_info="", cpu="", library_sha256=""),
        model=ModelFacts(name="random", size=0, sha256="", description=""),
        context=context,
        determinism=DeterminismFacts(asked="auto", policy="schedule-independent", reason="", probe={}),
        policies={},
    )
    limits = Limits(max_waiting=max_waiting, max_reader_lag=MAX_READER_LAG)
    header = session_header(loaded, session="test", opened_at="2026-01-01T00:00:00Z", limits=limits, policies={})
    return changed(header, reenact="0", python="3", platform="none")  # The same on every machine.


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


def sample(sequence: int, *, token: int = 7, piece: bytes = b"z") -> e.Sample:
    """Return a token that was drawn for a sequence; unless told otherwise one that no strategy has in a stop string."""
    return e.Sample(sequence=sequence, token=token, piece=piece)


def decoded(planned: e.BatchPlanned, *drawn: e.Sample) -> e.BatchDecoded:
    """Return the outcome of a batch that is done.

    Args:
        planned: The batch.
        drawn: For each part with a draw; none for those that `sample` gives.
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


def left_undone(planned: e.BatchPlanned, code: int, counts: Sequence[int]) -> e.BatchDecoded:
    """Return the outcome of a batch that is not done.

    Args:
        planned: The batch.
        code: What ``llama_decode`` returned: not 0.
        counts: How many rows of each part are in cells. What is pooled leaves none.

    Raises:
        ValueError: The code is that of a batch that is done.
    """
    if code == e.DONE:
        raise ValueError(f"code {code}: such a batch is done, see decoded()")
    positions = tuple(
        (part.slot, -1 if part.pool else part.position + count - 1)
        for part, count in zip(planned.parts, counts, strict=True)
    )
    return e.BatchDecoded(batch=planned.batch, code=code, samples=(), vectors=(), positions=positions)


# ---------------------------------------------------------------- a kernel under all rules


class CheckedKernel:
    """A session whose every record is held against the rules.

    Args:
        header: Its first record.
        rules: The names of the rules, as in `reenact.replay.check.runner.RULES`; None for all. Our own policy is in
            "queue", "places", "digest", "turns", "aborts" and "shifts": leave out what another one decides otherwise.

    Raises:
        KeyError: There is no rule of such a name.
        InternalError: No session can have such a header.
    """

    def __init__(self, header: e.SessionOpened, *, rules: Collection[str] | None = None) -> None:
        self._driver = Driver()
        self.kernel = self._driver.kernel
        self.context = header.context
        self.records: list[e.Record] = []
        self.submissions: dict[int, Submission] = {}
        """All requests that came by `submit`."""
        self.untokenized: list[int] = []
        """Requests whose prompts are not tokenised yet, also where they have ended."""
        self.live: set[int] = set()
        """Requests that have not ended."""
        self.sound = True
        """Nothing was raised yet."""
        self._checks = Checks(rules)
        self._t = 0
        self.give(header)

    @property
    def in_flight(self) -> e.BatchPlanned | None:
        """The batch whose outcome is due."""
        return self._driver.planned

    @property
    def aborting(self) -> bool:
        """Whether it is to end early."""
        return self._driver.aborting

    def give(self, fact: e.GivenEvent, *, t: int | None = None) -> list[e.Record]:
        """Give the kernel a fact and hold all that follows against the rules.

        Args:
            fact: The fact.
            t: When it happens, in nanoseconds since the session opened; a moment after the last one unless given.

        Returns:
            Its record, and all that follow from it.

        Raises:
            AssertionError: A rule does not hold; it names the rule, the record, and what stands there. Or the fact has
                consequences without end.
            InternalError: The fact cannot be: out of turn, or not what was planned.
        """
        # Until all has gone well: the kernel itself may raise.
        sound, self.sound = self.sound, False
        self._t = self._t + FACT_TIME if t is None else t
        worked = self._driver.give(fact)
        if worked.error is not None:
            raise worked.error
        records = worked.records
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
        """Give a request and return its number; its prompt is not tokenised yet.

        Raises:
            ValueError: A text is wanted of a model for vectors, or the other way round.
        """
        if submission.embedding != (self.context.pooling != "none"):
            wanted = "a vector" if submission.embedding else "a text"
            raise ValueError(f"embedding: {wanted} is wanted where pooling is {self.context.pooling!r}")
        number = self.kernel.n_requests + 1
        self.submissions[number] = submission
        self.give(submission.received(number))
        return number

    def tokenize(self, number: int) -> None:
        """Say what the prompt of a request is tokenised to.

        Raises:
            ValueError: It is already, or no request with this number came by `submit`.
        """
        if number not in self.untokenized or number not in self.submissions:
            raise ValueError(f"the prompt of request {number} is not one to be tokenised")
        self.give(self.submissions[number].tokenized(number))

    def close(self) -> None:
        """Close the session, where all requests have ended; its digest is compared with the fold."""
        self.give(e.SessionClosed(digest=self.kernel.digest()))

    def _follow(self, event: e.Event) -> None:
        match event:
            case e.RequestReceived(sequence=number):
                self.live.add(number)
                self.untokenized.append(number)
            case e.PromptTokenized(sequence=number) | e.TokenizeFailed(sequence=number) if number in self.untokenized:
                self.untokenized.remove(number)
            case e.SequenceFinished(sequence=number):
                self.live.discard(number)
            case _:
                pass

    def _complaint(self, violation: Violation) -> str:
        name = next((type(one.event).__name__ for one in self.records if one.n == violation.n), "none")
        told = f"expected {violation.expected}, actual {violation.actual}"
        return f"{violation.rule}: record {violation.n}, {name}: {told}. The rule: {RULES[violation.rule].says}"
