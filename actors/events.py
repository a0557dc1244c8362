"""Defines all events of a session, as frozen values.

A *given* event is a fact from outside; a replay takes it from the log. A *derived* event is an actor's decision; a
replay makes it again and compares. The table in `reenact.actors.routing` holds the origin, the owner and the receivers
of each event, and its name in the log, which may not change. The two events of a batch, and the values in them, are
defined in `reenact.actors.batch` and exported here, too.

Sequences are numbered from 1 in the order of arrival, slots and batches from 0. Positions and lengths are in cells of
the KV cache, one for each evaluated input. Bytes are UTF-8 unless a model produced others.
"""

from typing import Literal

from attrs import field, frozen

from reenact.actors.batch import (
    ABORTED,
    DONE,
    INVALID,
    NO_ROOM,
    BatchDecoded,
    BatchKey,
    BatchPlanned,
    Copy,
    Draw,
    Likely,
    Operation,
    Outcome,
    Part,
    Pool,
    Sample,
    Shift,
    Trim,
    Vector,
    Wants,
)
from reenact.actors.errors import Failure
from reenact.actors.header import ContextFacts, DeterminismFacts, Durability, EngineFacts, Limits, ModelFacts, Parent
from reenact.actors.inputs import Input
from reenact.actors.options import Options

FinishReason = Literal["stop", "length", "context_full", "cancelled", "deadline", "error"]

# ---------------------------------------------------------------- session


@frozen(kw_only=True)
class SessionOpened:
    """Record 0, which holds everything that a re-execution depends on."""

    format: int
    """The version of the lines: envelope, checksum, encoding."""
    schema: int
    """The version of the events and states."""
    session: str
    opened_at: str
    """The wall clock's time, in UTC and RFC 3339."""
    reenact: str
    python: str
    platform: str
    engine: EngineFacts
    model: ModelFacts
    context: ContextFacts
    limits: Limits
    policies: dict[str, str]
    """The choices among several possible ways, by name: schedule, slots, draws, logits_hash."""
    rules: dict[str, int]
    """A flag for each rule that changed since the first release; old logs keep the old rule by it."""
    determinism: DeterminismFacts
    parent: Parent | None
    """The session that it was forked from; None for a session that a runtime opened."""
    durability: Durability = field(default="process", repr=False)
    """The durability of the log. No state depends on it, so it is not in their digest, which is made of their repr."""
    redacted: bool = field(default=False, repr=False)
    """Whether texts and tokens were replaced (`replay redact`), so that nothing of it can be computed. It is not part
    of the state's digest, so that those of other logs stay."""


@frozen(kw_only=True)
class SessionResumed:
    """Another process goes on with a session that was not closed, on the same machine; `CellsLost` follows."""

    resumed_at: str
    """The wall clock's time, in UTC and RFC 3339. Times of records count on from the last one before."""
    reenact: str
    python: str
    platform: str
    durability: Durability | None = None
    """The durability of the log from here on; None if it stays as it was."""


@frozen(kw_only=True)
class SessionClosed:
    """The last record; without it the session crashed."""

    digest: str
    """The digest of the state that is folded from all previous records."""


@frozen(kw_only=True)
class ActorFailed:
    """An actor raised, and decides nothing more."""

    failed: str
    error: str


# ---------------------------------------------------------------- sequence


@frozen(kw_only=True)
class RequestReceived:
    """A caller asks for a completion."""

    sequence: int
    request_id: str | None
    """The caller's name for the request."""
    prompt: str
    """The text, with U+FFFC in place of rows that the caller gave."""
    options: Options
    embedding: bool
    """Whether a vector is wanted and not a text."""
    continues: int | None
    """The sequence whose chat it extends; the tokens of that sequence stay the same."""
    said: tuple[tuple[int, int], ...] | None = None
    """Of a chat, the runs of characters in which no special token is parsed, as (begin, end); None if it is no chat."""
    left_out: int = 0
    """The count of messages of its chat that the context cannot hold; the prompt lacks them, or the beginning of the
    last one."""
    traceparent: str | None = None
    """The caller's place in a distributed trace, as W3C Trace Context writes it."""


@frozen(kw_only=True)
class RequestRefused:
    """A request was impossible, or could not be prepared. It never had a number."""

    request_id: str | None
    """The caller's name for the request, if it can be recorded."""
    failure: Failure
    """The reason. The prompt is not recorded."""


@frozen(kw_only=True)
class PromptTokenized:
    """The prompt was tokenized, with its special tokens parsed."""

    sequence: int
    inputs: tuple[Input, ...]
    bos_added: bool
    grammar: str | None
    """The grammar in force, in GBNF: as given, or converted from the format."""


@frozen(kw_only=True)
class TokenizeFailed:
    """The engine raised while it tokenized the prompt."""

    sequence: int
    error: str


@frozen(kw_only=True)
class DeadlineExpired:
    """The caller's deadline for the request has passed."""

    sequence: int


@frozen(kw_only=True)
class CancelRequested:
    """The caller left."""

    sequence: int


@frozen(kw_only=True)
class ReaderPaused:
    """The caller has more unread chunks than the limit allows."""

    sequence: int


@frozen(kw_only=True)
class ReaderResumed:
    """The caller has read them."""

    sequence: int


@frozen(kw_only=True)
class PauseExpired:
    """The caller has read nothing for as long as a paused sequence may keep its slot."""

    sequence: int


@frozen(kw_only=True)
class SequenceForked:
    """The session was forked, and this sequence continues in the child with these options."""

    sequence: int
    options: Options


@frozen(kw_only=True)
class PromptTruncated:
    """The prompt is longer than the context: ``discard`` inputs from ``keep`` on are left out."""

    sequence: int
    keep: int
    discard: int


@frozen(kw_only=True)
class ContextShifted:
    """The context is full: ``discard`` inputs from ``keep`` on are dropped, and those behind them move down."""

    sequence: int
    keep: int
    discard: int


@frozen(kw_only=True)
class TokenEmitted:
    """A sampled token became part of the text."""

    sequence: int
    index: int
    """The index of the token among the sequence's sampled tokens, from 0."""
    token: int
    text: str
    """The text that goes out to the caller now; empty while all of it is held."""
    held: bytes = b""
    """The bytes that are held back now: the beginning of a stop string or of a character."""
    held_by: tuple[int, ...] = ()
    """The count of these bytes that each of the last tokens brought, oldest first."""


@frozen(kw_only=True)
class StopMatched:
    """A sampled token completed a stop string. Its text from the stop string on never goes out."""

    sequence: int
    index: int
    token: int
    stop: str
    text: str
    """The text before the stop string that had not gone out."""


@frozen(kw_only=True)
class EogSampled:
    """The model ended the text: the token is counted, but neither emitted nor decoded."""

    sequence: int
    index: int
    token: int


@frozen(kw_only=True)
class EmbeddingComputed:
    """The vector of a text was computed, with as many dimensions as were requested, and of length 1 or 0."""

    sequence: int
    embedding: tuple[float, ...]


@frozen(kw_only=True)
class SequencePaused:
    """The sequence keeps its next input back until its reader continues."""

    sequence: int


@frozen(kw_only=True)
class SequenceResumed:
    """The reader continues, and so does the sequence."""

    sequence: int


@frozen(kw_only=True)
class SequenceFinished:
    """A request ended; every request ends exactly once."""

    sequence: int
    finish_reason: FinishReason
    stop: str | None
    """The stop string that ended it; None for an end-of-generation token and every other reason."""
    text: str
    """The held text that goes out at the end."""
    n_prompt: int
    """The count of tokens in the prompt."""
    n_sampled: int
    """The count of sampled tokens, the end-of-generation token included."""
    n_hidden: int
    """The count of evaluated tokens that are not wholly part of the text, because a stop string cut it."""
    error: Failure | None


# ---------------------------------------------------------------- batcher


@frozen(kw_only=True)
class RequestQueued:
    """A request waits for a slot."""

    sequence: int
    priority: int
    n_ahead: int


@frozen(kw_only=True)
class RequestRejected:
    """A request cannot be served: the queue is full, or the engine is broken."""

    sequence: int
    failure: Failure


@frozen(kw_only=True)
class RequestDisplaced:
    """A waiting request leaves a full queue for one that is served before it."""

    sequence: int
    by: int
    """The request that takes its place."""
    failure: Failure


@frozen(kw_only=True)
class RequestWithdrawn:
    """A waiting request ended."""

    sequence: int


@frozen(kw_only=True)
class InputQueued:
    """A sequence wants these inputs evaluated after its others, and an outcome of them."""

    sequence: int
    inputs: tuple[Input, ...]
    wants: Draw | Pool


@frozen(kw_only=True)
class InputsDropped:
    """The context of a sequence was shifted, and the Batcher drops the same inputs."""

    sequence: int
    keep: int
    discard: int


@frozen(kw_only=True)
class SlotAssigned:
    """A waiting sequence got a slot."""

    sequence: int
    slot: int
    reused: int
    """The count of its first inputs that are in cells already: in the slot itself, or in the one that is copied."""
    source: int | None
    """The slot that is copied (a fork); None without a copy."""


@frozen(kw_only=True)
class SequencePreempted:
    """A sequence lost its slot to one of a higher priority. It waits again, and its inputs are evaluated again.

    This does not change its text, unless its context was shifted by moving cells.
    """

    sequence: int
    slot: int
    by: int
    """The sequence of the higher priority."""


@frozen(kw_only=True)
class SlotYielded:
    """A sequence gave up its slot because its reader was paused for too long. It waits again, and continues later.

    As with `SequencePreempted`, this does not change its text, with the same exception.
    """

    sequence: int
    slot: int


@frozen(kw_only=True)
class AbortRequested:
    """A sequence ended while its prefill was in flight, and the batch is to end early."""

    batch: int
    sequence: int


@frozen(kw_only=True)
class BatchFailed:
    """A batch failed, and its sequences end."""

    batch: int
    sequences: tuple[int, ...]
    failure: Failure


@frozen(kw_only=True)
class EngineFailed:
    """The engine raised in a step, and can evaluate nothing more."""

    error: str

    @property
    def failure(self) -> Failure:
        """The failure with which all sequences end and later requests are rejected."""
        return Failure(kind="engine_broken", reason=f"the engine failed: {self.error}")


@frozen(kw_only=True)
class CellsLost:
    """The engine has a new context: its cells are empty, and a batch that was in flight has no outcome."""


@frozen(kw_only=True)
class TokenDropped:
    """A token was sampled for a sequence that had already ended."""

    sequence: int
    index: int
    token: int


@frozen(kw_only=True)
class SlotReleased:
    """A sequence ended, and its slot is free.

    ``length`` cells hold inputs that another sequence may reuse; rows in flight will be added to them.
    """

    sequence: int
    slot: int
    length: int


GivenEvent = (
    SessionOpened
    | SessionResumed
    | SessionClosed
    | RequestReceived
    | RequestRefused
    | PromptTokenized
    | TokenizeFailed
    | CancelRequested
    | DeadlineExpired
    | ReaderPaused
    | ReaderResumed
    | PauseExpired
    | BatchDecoded
    | EngineFailed
    | SequenceForked
    | CellsLost
)
SequenceEvent = (
    PromptTruncated
    | ContextShifted
    | TokenEmitted
    | StopMatched
    | EogSampled
    | EmbeddingComputed
    | SequencePaused
    | SequenceResumed
    | SequenceFinished
)
BatcherEvent = (
    RequestQueued
    | RequestRejected
    | RequestDisplaced
    | RequestWithdrawn
    | InputQueued
    | InputsDropped
    | SlotAssigned
    | SequencePreempted
    | SlotYielded
    | BatchPlanned
    | AbortRequested
    | BatchFailed
    | TokenDropped
    | SlotReleased
)
DerivedEvent = SequenceEvent | BatcherEvent | ActorFailed
Event = GivenEvent | DerivedEvent


@frozen
class Record:
    """One line of the log, without the time and the checksum, which the journal adds."""

    n: int
    """The number of the record, from 0 without gaps."""
    event: Event
    cause: int | None
    """For a derived event, the ``n`` of the record that it follows from; for an assigned slot or a plan, that of the
    given record after which no actor had anything left to decide."""
