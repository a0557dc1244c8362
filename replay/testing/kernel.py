"""A kernel for tests of policies and logs: every rule is checked after every fact.

The rules that hold here:

* All rules are checked on all records of a fact before the next fact is given. A violation is an `AssertionError` that
  names the rule, the record, and the actual value.
* Everything known of a session is read from its records alone.
* A policy that never comes to an end is treated like one that raises: the rule "actors" reports it.

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

`reenact.replay.testing.strategies` makes such sessions at random, and `reenact.replay.testing.liveness` bounds how
soon they end. `reenact.replay.check_log` checks your own log against the same rules.
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
from reenact.replay.check.rules import RULES
from reenact.replay.check.runner import Checks
from reenact.runtime.engine.driver import Driver
from reenact.runtime.engine.protocol import Loaded
from reenact.runtime.engine.session_header import session_header

FACT_TIME: Final = 1_000_000
"""The nanoseconds from one fact to the next, by default."""


# ---------------------------------------------------------------- facts for a kernel


def header_of(context: ContextFacts, *, max_waiting: int) -> e.SessionOpened:
    """Return the header of a session without an engine.

    Args:
        context: The context.
        max_waiting: How many requests may wait for a slot.
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
    """Return a context without an engine; `reenact.actors.header.ContextFacts` documents the parameters."""
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
    """A request, and the tokens of its prompt."""

    prompt: tuple[Input, ...]
    bos_added: bool
    options: Options
    embedding: bool = False
    """Whether a vector is wanted instead of a text."""

    def received(self, number: int) -> e.RequestReceived:
        """Return the fact that the request was received."""
        return e.RequestReceived(
            sequence=number,
            request_id=None,
            prompt="...",
            options=self.options,
            embedding=self.embedding,
            continues=None,
        )

    def tokenized(self, number: int) -> e.PromptTokenized:
        """Return the fact that its prompt was tokenized."""
        return e.PromptTokenized(sequence=number, inputs=self.prompt, bos_added=self.bos_added, grammar=None)


def sample(sequence: int, index: int, *, token: int = 7, piece: bytes = b"z") -> e.Sample:
    """Return a token that was drawn for a sequence; by default one that no strategy has in a stop string."""
    return e.Sample(sequence=sequence, index=index, token=token, piece=piece)


def decoded(planned: e.BatchPlanned, *drawn: e.Sample) -> e.BatchDecoded:
    """Return the outcome of a batch that is done.

    Args:
        planned: The batch.
        drawn: A sample for each part with a draw; without any, those that `sample` returns.
    """
    pooled = [part.sequence for part in planned.parts if part.pools]
    return e.BatchDecoded(
        batch=planned.batch,
        code=e.DONE,
        samples=drawn or tuple(sample(part.sequence, part.draw) for part in planned.parts if part.draw is not None),
        vectors=tuple(e.Vector(sequence=number, values=(3.0, 4.0), crc32=0) for number in pooled),
        positions=tuple(
            (part.slot, -1 if part.pools else part.position + len(part.inputs) - 1) for part in planned.parts
        ),
    )


def left_undone(planned: e.BatchPlanned, code: int, counts: Sequence[int]) -> e.BatchDecoded:
    """Return the outcome of a batch that is not done.

    Args:
        planned: The batch.
        code: The return value of ``llama_decode``, which is not 0.
        counts: How many rows of each part are in cells. A pooled text leaves none.

    Raises:
        ValueError: The code is that of a batch that is done.
    """
    if code == e.DONE:
        raise ValueError(f"code {code}: such a batch is done, see decoded()")
    positions = tuple(
        (part.slot, -1 if part.pools else part.position + count - 1)
        for part, count in zip(planned.parts, counts, strict=True)
    )
    return e.BatchDecoded(batch=planned.batch, code=code, samples=(), vectors=(), positions=positions)


# ---------------------------------------------------------------- a kernel under all rules


class CheckedKernel:
    """A session whose every record is checked against the rules.

    Args:
        header: The session's first record.
        rules: The names of the rules, as in `reenact.replay.check.rules.RULES`; None for all. Our own policy is in
            "queue", "places", "digest", "turns", "aborts" and "shifts": leave out those that your policy breaks.

    Raises:
        KeyError: A name is not that of a rule.
        InternalError: No session can have such a header.
    """

    def __init__(self, header: e.SessionOpened, *, rules: Collection[str] | None = None) -> None:
        self._driver = Driver()
        self.kernel = self._driver.kernel
        self.context = header.context
        self.records: list[e.Record] = []
        self.submissions: dict[int, Submission] = {}
        """All requests that were given by `submit`."""
        self.untokenized: list[int] = []
        """The requests whose prompts are not tokenized yet, including those that have ended."""
        self.live: set[int] = set()
        """The requests that have not ended."""
        self.sound = True
        """Whether nothing was raised yet."""
        self._checks = Checks(rules)
        self._t = 0
        self.give(header)

    @property
    def in_flight(self) -> e.BatchPlanned | None:
        """The batch whose outcome is due."""
        return self._driver.planned

    @property
    def aborting(self) -> bool:
        """Whether that batch is to end early."""
        return self._driver.aborting

    def give(self, fact: e.GivenEvent, *, t: int | None = None) -> list[e.Record]:
        """Give the kernel a fact and check all that follows against the rules.

        Args:
            fact: The fact.
            t: When it happens, in nanoseconds since the session opened; by default shortly after the last one.

        Returns:
            The fact's record, and all that follow from it.

        Raises:
            AssertionError: A rule is broken; the error names the rule, the record, and the actual value. Or the fact
            has consequences without end. InternalError: The fact is impossible: it is out of turn, or not the outcome
            of the planned batch.
        """
        # This is False while the kernel works, because the kernel itself may raise.
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
        """Give a request and return its number; its prompt is not tokenized yet.

        Raises:
            ValueError: A text is wanted from an embedding model, or the other way round.
        """
        if submission.embedding != (self.context.pooling != "none"):
            wanted = "a vector" if submission.embedding else "a text"
            raise ValueError(f"embedding: {wanted} is wanted where pooling is {self.context.pooling!r}")
        number = self.kernel.n_requests + 1
        self.submissions[number] = submission
        self.give(submission.received(number))
        return number

    def tokenize(self, number: int) -> None:
        """Give the tokens of a request's prompt.

        Raises:
            ValueError: They were already given, or no request with this number was given by `submit`.
        """
        if number not in self.untokenized or number not in self.submissions:
            raise ValueError(f"the prompt of request {number} is not waiting to be tokenized")
        self.give(self.submissions[number].tokenized(number))

    def close(self) -> None:
        """Close the session once all requests have ended; its digest is compared with the fold."""
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
        values = f"expected {violation.expected}, actual {violation.actual}"
        return f"{violation.rule}: record {violation.n}, {name}: {values}. The rule: {RULES[violation.rule].says}"
