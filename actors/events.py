"""Everything that can happen in a session, as frozen values.

A *given* event is a fact from outside; a replay takes it from the log. A *derived* event is what an actor decided; a
replay decides it again and compares. `reenact.actors.routing` says which is which, whose state it changes and who
hears of it. No class here may be renamed in the log: the names in the routing table are the log's. The two events of a
batch, and the values in them, are in `reenact.actors.batch` and have their names here, too.

Sequences count from 1 in the order of arrival, slots and batches from 0. Positions and lengths are in cells of the
KV cache, one per evaluated input. Bytes are UTF-8 unless a model made them otherwise.
"""

from typing import Literal

from attrs import frozen

from reenact.actors.batch import (
    ABORTED,
    DONE,
    INVALID,
    NO_ROOM,
    BatchDecoded,
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
from reenact.actors.header import ContextFacts, DeterminismFacts, EngineFacts, Limits, ModelFacts, Parent
from reenact.actors.inputs import Input
from reenact.actors.options import Options

FinishReason = Literal["stop", "length", "context_full", "cancelled", "deadline", "error"]

# ---------------------------------------------------------------- session


@frozen(kw_only=True)
class SessionOpened:
    """Record 0: everything that a re-execution depends on."""

    format: int
    """Of the lines: envelope, checksum, encoding."""
    schema: int
    """Of the events and states."""
    session: str
    opened_at: str
    """Wall clock, RFC 3339, UTC."""
    reenact: str
    python: str
    platform: str
    engine: EngineFacts
    model: ModelFacts
    context: ContextFacts
    limits: Limits
    policies: dict[str, str]
    """What was done in one of several possible ways, by name: schedule, slots, draws, logits_hash."""
    rules: dict[str, int]
    """A flag for each rule that changed since the first release; under it old logs keep the old rule."""
    determinism: DeterminismFacts
    parent: Parent | None
    """Where it was forked from; None for a session that a runtime opened."""


@frozen(kw_only=True)
class SessionClosed:
    """The last record; without it the session crashed."""

    digest: str
    """Of the state folded from all records before this one."""


@frozen(kw_only=True)
class ActorFailed:
    """An actor raised. It decides nothing from here on."""

    failed: str
    error: str


# ---------------------------------------------------------------- sequence


@frozen(kw_only=True)
class RequestReceived:
    """A caller asks for a completion."""

    sequence: int
    request_id: str | None
    """What the caller calls it."""
    prompt: str
    """The text; U+FFFC stands for rows that the caller gave."""
    options: Options
    embedding: bool
    """A vector is wanted, not a text."""
    continues: int | None
    """The sequence whose chat it extends: that one's tokens are kept as they were."""
    left_out: int = 0
    """Messages of its chat that the context does not hold; the prompt is without them, or without the beginning of the
    last one."""


@frozen(kw_only=True)
class RequestRefused:
    """A caller asked for something that cannot be, or that could not be made ready. It never had a number."""

    request_id: str | None
    """What the caller calls it, if that can be recorded."""
    failure: Failure
    """Why. The prompt is not kept."""


@frozen(kw_only=True)
class PromptTokenized:
    """The prompt's inputs, special tokens parsed."""

    sequence: int
    inputs: tuple[Input, ...]
    bos_added: bool
    grammar: str | None
    """The grammar in force, in GBNF: as given, or converted from the format."""


@frozen(kw_only=True)
class TokenizeFailed:
    """The engine raised while it tokenised the prompt."""

    sequence: int
    error: str


@frozen(kw_only=True)
class DeadlineExpired:
    """The time that the caller gave is over."""

    sequence: int


@frozen(kw_only=True)
class CancelRequested:
    """The caller left."""

    sequence: int


@frozen(kw_only=True)
class ReaderPaused:
    """The caller has more unread chunks than a reader may leave."""

    sequence: int


@frozen(kw_only=True)
class ReaderResumed:
    """The caller has read them."""

    sequence: int


@frozen(kw_only=True)
class PauseExpired:
    """The caller has not read on for as long as a paused sequence may keep its slot."""

    sequence: int


@frozen(kw_only=True)
class SequenceForked:
    """The session was forked, and this sequence goes on in the child with these options."""

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
    """Of the token among the sequence's sampled tokens, from 0."""
    token: int
    text: str
    """What goes out to the caller now; empty while everything is held."""
    held: bytes = b""
    """What is held back after it: the beginning of a stop string or of a character."""
    held_by: tuple[int, ...] = ()
    """How many of these bytes each of the last tokens brought, oldest first."""


@frozen(kw_only=True)
class StopMatched:
    """A sampled token completed a stop string. What it holds from the stop string on never goes out."""

    sequence: int
    index: int
    token: int
    stop: str
    text: str
    """What stood before the stop string and had not gone out."""


@frozen(kw_only=True)
class EogSampled:
    """The model ended the text: the token is counted, not emitted and not decoded."""

    sequence: int
    index: int
    token: int


@frozen(kw_only=True)
class EmbeddingComputed:
    """The vector of a text: so many dimensions as were asked for, of length 1 or 0."""

    sequence: int
    embedding: tuple[float, ...]


@frozen(kw_only=True)
class SequencePaused:
    """The sequence keeps its next input back until its reader goes on."""

    sequence: int


@frozen(kw_only=True)
class SequenceResumed:
    """The reader goes on, and so does the sequence."""

    sequence: int


@frozen(kw_only=True)
class SequenceFinished:
    """The end of a request; every request has exactly one."""

    sequence: int
    finish_reason: FinishReason
    stop: str | None
    """Which stop string ended it; None for an end-of-generation token and every other reason."""
    text: str
    """Held text that goes out at the end."""
    n_prompt: int
    """Tokens of the prompt."""
    n_sampled: int
    """Tokens sampled, the end-of-generation token included."""
    n_hidden: int
    """Evaluated tokens that are not, or not wholly, part of the text, because a stop string cut it."""
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
    """A request cannot be served: as many wait as may, or the engine is broken."""

    sequence: int
    failure: Failure


@frozen(kw_only=True)
class RequestDisplaced:
    """A waiting request leaves a full queue for one that is served before it."""

    sequence: int
    by: int
    """The request that it had to leave for."""
    failure: Failure


@frozen(kw_only=True)
class RequestWithdrawn:
    """A waiting request ended."""

    sequence: int


@frozen(kw_only=True)
class InputQueued:
    """A sequence wants these inputs evaluated behind those it has, and what comes of them."""

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
    """Its first inputs that are in cells already: in the slot itself, or in the one that is copied."""
    source: int | None
    """The slot that is copied: a fork. None where there is none."""


@frozen(kw_only=True)
class SequencePreempted:
    """A sequence lost its slot to one of a higher priority. It waits again, and what it has is evaluated again.

    Its text is what it would have been, unless its context was shifted by moving cells.
    """

    sequence: int
    slot: int
    by: int
    """The sequence that it had to make room for."""


@frozen(kw_only=True)
class SlotYielded:
    """A sequence gave up its slot because its reader has not read on for too long. It waits again, and goes on later.

    What holds of its text after `SequencePreempted` holds here too.
    """

    sequence: int
    slot: int


@frozen(kw_only=True)
class AbortRequested:
    """A sequence ended with a prefill in flight, which is not worth waiting for."""

    batch: int
    sequence: int


@frozen(kw_only=True)
class BatchFailed:
    """The batch cannot be built on: its sequences end."""

    batch: int
    sequences: tuple[int, ...]
    failure: Failure


@frozen(kw_only=True)
class EngineFailed:
    """The engine raised in a step: nothing can be evaluated any more."""

    error: str

    @property
    def failure(self) -> Failure:
        """Why everybody ends, and nobody is admitted any more."""
        return Failure(kind="engine_broken", reason=f"the engine failed: {self.error}")


@frozen(kw_only=True)
class CellsLost:
    """The engine's context is a new one: its cells are empty, and a batch that was in flight never came back."""


@frozen(kw_only=True)
class TokenDropped:
    """A token was sampled for a sequence that had ended meanwhile."""

    sequence: int
    index: int
    token: int


@frozen(kw_only=True)
class SlotReleased:
    """A sequence ended and its slot is free.

    ``length`` cells hold inputs that another may reuse; rows in flight come on top.
    """

    sequence: int
    slot: int
    length: int


GivenEvent = (
    SessionOpened
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
    """One line of the log, without what the journal adds (time and checksum)."""

    n: int
    """Dense, from 0."""
    event: Event
    cause: int | None
    """For a derived event the ``n`` of the record it follows from; for a slot given out and for a plan, of the given
    record after which nobody had anything left to decide."""
