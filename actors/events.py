"""Everything that can happen in a session, as frozen values.

A *given* event is a fact from outside; a replay takes it from the log. A *derived* event is what an actor decided; a
replay decides it again and compares. `reenact.actors.routing` says which is which, whose state it changes and who
hears of it. No class here may be renamed in the log: the names in the routing table are the log's.

Sequences count from 1 in the order of arrival, slots and batches from 0. Positions and lengths are in cells of the
KV cache, one per evaluated input. Bytes are UTF-8 unless a model made them otherwise.
"""

from typing import Literal

from attrs import frozen

from reenact.actors.options import Options

FinishReason = Literal["stop", "length", "context_full", "cancelled", "error"]
FailureKind = Literal["invalid_request", "overloaded", "sequence_failed", "engine_broken", "internal_error"]

# ---------------------------------------------------------------- values inside events


@frozen(kw_only=True)
class ModelFacts:
    """Which weights: a replay that computes needs the same ones."""

    name: str
    size: int
    """Bytes."""
    sha256: str
    description: str


@frozen(kw_only=True)
class EngineFacts:
    """What computes: program, build and machine."""

    name: str
    versions: dict[str, str]
    system_info: str


@frozen(kw_only=True)
class ContextFacts:
    """The context's parameters: as read back where the engine tells them, else as given to it."""

    n_slots: int
    """Sequences evaluated together (llama.cpp's ``n_seq_max``)."""
    n_ctx: int
    """Cells one sequence may use, as asked; the actors enforce it."""
    n_ctx_seq: int
    """Cells one sequence has in the engine, which pads."""
    n_batch: int
    """Rows of one batch at most."""
    n_ubatch: int
    n_threads: int
    type_k: str
    type_v: str
    flash_attn: str
    kv_unified: bool


@frozen(kw_only=True)
class Limits:
    """The limits of this session that its opener could set."""

    max_waiting: int
    max_reader_lag: int


@frozen(kw_only=True)
class Part:
    """Rows of one sequence in a batch: ``tokens`` at positions ``position``, ``position + 1``, ..."""

    sequence: int
    slot: int
    position: int
    tokens: tuple[int, ...]
    draw: int | None
    """The index of the token to be sampled from the last row's logits; None where its logits are not needed."""


@frozen(kw_only=True)
class Sample:
    """What was drawn from one row of logits."""

    sequence: int
    token: int
    piece: bytes = b""
    """The token's bytes; they can end in the middle of a character. Empty for an end-of-generation token."""
    eog: bool = False
    nan: bool = False
    """The logits held a NaN: there is no token (-1)."""
    logits_crc32: int = 0
    """CRC-32 of the row of logits as it lies in memory."""


@frozen(kw_only=True)
class Failure:
    """Why a sequence ended with ``error``; `reenact.actors.errors.error_of` makes the exception."""

    kind: FailureKind
    field: str = ""
    """The argument that is wrong, where the caller is at fault."""
    reason: str


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
    """What was done in one of several possible ways, by name: schedule, slots, cache, draws."""
    rules: dict[str, int]
    """A flag for each rule that changed since the first release; under it old logs keep the old rule."""
    determinism: str
    """What a probe of this model, build and machine found; "not probed" is an answer."""


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
    options: Options


@frozen(kw_only=True)
class PromptTokenized:
    """The prompt's tokens, special tokens parsed."""

    sequence: int
    tokens: tuple[int, ...]
    bos_added: bool


@frozen(kw_only=True)
class TokenizeFailed:
    """The engine raised while it tokenised the prompt."""

    sequence: int
    error: str


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
    error: Failure | None


# ---------------------------------------------------------------- batcher


@frozen(kw_only=True)
class RequestQueued:
    """A request waits for a slot."""

    sequence: int
    n_ahead: int


@frozen(kw_only=True)
class RequestRejected:
    """A request cannot be served: as many wait as may, or the engine is broken."""

    sequence: int
    failure: Failure


@frozen(kw_only=True)
class RequestWithdrawn:
    """A waiting request ended before it had a slot."""

    sequence: int


@frozen(kw_only=True)
class InputQueued:
    """A sequence wants these inputs evaluated, and then the token with index ``draw`` sampled."""

    sequence: int
    tokens: tuple[int, ...]
    draw: int


@frozen(kw_only=True)
class SlotAssigned:
    """A waiting sequence got a slot."""

    sequence: int
    slot: int


@frozen(kw_only=True)
class BatchPlanned:
    """What the engine is to do in one step: first empty slots, then decode, then draw."""

    batch: int
    clears: tuple[int, ...]
    """Slots whose cells are removed first."""
    parts: tuple[Part, ...]
    """Ascending by slot (llama.cpp computes ascending ids together, docs/llama-cpp.md section 3)."""


@frozen(kw_only=True)
class BatchDecoded:
    """What the engine did."""

    batch: int
    code: int
    """``llama_decode``'s: 0 done, 1 no room, 2 aborted, -1 invalid batch, below -1 failed."""
    samples: tuple[Sample, ...]
    """One for each part with a draw, in the order of the parts; none unless ``code`` is 0."""
    positions: tuple[tuple[int, int], ...]
    """(slot, last position in its cells, -1 for none) for each slot of the batch."""


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
class TokenDropped:
    """A token was sampled for a sequence that had ended meanwhile."""

    sequence: int
    index: int
    token: int


@frozen(kw_only=True)
class SlotReleased:
    """A sequence ended and its slot is free; ``length`` cells hold its inputs, and rows in flight come on top."""

    sequence: int
    slot: int
    length: int


GivenEvent = (
    SessionOpened
    | SessionClosed
    | RequestReceived
    | PromptTokenized
    | TokenizeFailed
    | CancelRequested
    | ReaderPaused
    | ReaderResumed
    | BatchDecoded
    | EngineFailed
)
SequenceEvent = TokenEmitted | StopMatched | EogSampled | SequencePaused | SequenceResumed | SequenceFinished
BatcherEvent = (
    RequestQueued
    | RequestRejected
    | RequestWithdrawn
    | InputQueued
    | SlotAssigned
    | BatchPlanned
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
    record after which everybody had had his say."""
