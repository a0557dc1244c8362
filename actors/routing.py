"""Holds the one table of events, with the origin, the owner and the receivers of each.

The rules that hold here:

* Every event belongs to exactly one actor, its owner: it may change the owner's state and no other. An event that
  one actor decides and another owns is a message: the log is the owner's mailbox.
* Receivers decide in the order of the table; sequences among them in the order of their numbers.
"""

from enum import Enum
from typing import Final

from attrs import frozen

from reenact.actors import events as e


class Origin(Enum):
    """The origin of an event: given from outside, or derived by an actor."""

    GIVEN = "given"
    DERIVED = "derived"


class Role(Enum):
    """An owner or receiver of an event."""

    SESSION = "session"
    BATCHER = "batcher"
    SEQUENCE = "sequence"
    """The sequences that the event names."""
    EVERY_SEQUENCE = "every sequence"


@frozen
class Route:
    """One row of the table."""

    name: str
    """The event's name in the log, which stays when the class is renamed."""
    origin: Origin
    owner: Role
    receivers: tuple[Role, ...] = ()


_GIVEN, _DERIVED = Origin.GIVEN, Origin.DERIVED
_SESSION, _BATCHER, _SEQUENCE, _EVERY_SEQUENCE = Role.SESSION, Role.BATCHER, Role.SEQUENCE, Role.EVERY_SEQUENCE

ROUTES: Final[dict[type[e.Event], Route]] = {
    e.SessionOpened: Route("SessionOpened", _GIVEN, _SESSION),
    e.SessionResumed: Route("SessionResumed", _GIVEN, _SESSION),
    e.SessionClosed: Route("SessionClosed", _GIVEN, _SESSION),
    e.ActorFailed: Route("ActorFailed", _DERIVED, _SESSION, (_EVERY_SEQUENCE,)),
    e.RequestRefused: Route("RequestRefused", _GIVEN, _SESSION),
    e.RequestReceived: Route("RequestReceived", _GIVEN, _SEQUENCE, (_BATCHER,)),
    e.PromptTokenized: Route("PromptTokenized", _GIVEN, _SEQUENCE, (_SEQUENCE,)),
    e.TokenizeFailed: Route("TokenizeFailed", _GIVEN, _SEQUENCE, (_SEQUENCE,)),
    e.CancelRequested: Route("CancelRequested", _GIVEN, _SEQUENCE, (_SEQUENCE,)),
    e.DeadlineExpired: Route("DeadlineExpired", _GIVEN, _SEQUENCE, (_SEQUENCE,)),
    e.ReaderPaused: Route("ReaderPaused", _GIVEN, _SEQUENCE),
    e.ReaderResumed: Route("ReaderResumed", _GIVEN, _SEQUENCE, (_SEQUENCE,)),
    e.PauseExpired: Route("PauseExpired", _GIVEN, _SEQUENCE, (_BATCHER,)),
    e.SequenceForked: Route("SequenceForked", _GIVEN, _SEQUENCE),
    e.PromptTruncated: Route("PromptTruncated", _DERIVED, _SEQUENCE),
    e.ContextShifted: Route("ContextShifted", _DERIVED, _SEQUENCE, (_BATCHER,)),
    e.TokenEmitted: Route("TokenEmitted", _DERIVED, _SEQUENCE),
    e.StopMatched: Route("StopMatched", _DERIVED, _SEQUENCE),
    e.EogSampled: Route("EogSampled", _DERIVED, _SEQUENCE),
    e.EmbeddingComputed: Route("EmbeddingComputed", _DERIVED, _SEQUENCE),
    e.SequencePaused: Route("SequencePaused", _DERIVED, _SEQUENCE),
    e.SequenceResumed: Route("SequenceResumed", _DERIVED, _SEQUENCE),
    e.SequenceFinished: Route("SequenceFinished", _DERIVED, _SEQUENCE, (_BATCHER,)),
    e.RequestQueued: Route("RequestQueued", _DERIVED, _BATCHER),
    e.RequestRejected: Route("RequestRejected", _DERIVED, _BATCHER, (_SEQUENCE,)),
    e.RequestDisplaced: Route("RequestDisplaced", _DERIVED, _BATCHER, (_SEQUENCE,)),
    e.RequestWithdrawn: Route("RequestWithdrawn", _DERIVED, _BATCHER),
    e.InputQueued: Route("InputQueued", _DERIVED, _BATCHER),
    e.InputsDropped: Route("InputsDropped", _DERIVED, _BATCHER, (_SEQUENCE,)),
    e.SlotAssigned: Route("SlotAssigned", _DERIVED, _BATCHER),
    e.SequencePreempted: Route("SequencePreempted", _DERIVED, _BATCHER),
    e.SlotYielded: Route("SlotYielded", _DERIVED, _BATCHER),
    e.BatchPlanned: Route("BatchPlanned", _DERIVED, _BATCHER),
    e.AbortRequested: Route("AbortRequested", _DERIVED, _BATCHER),
    e.BatchDecoded: Route("BatchDecoded", _GIVEN, _BATCHER, (_BATCHER, _SEQUENCE)),
    e.BatchFailed: Route("BatchFailed", _DERIVED, _BATCHER, (_SEQUENCE,)),
    e.EngineFailed: Route("EngineFailed", _GIVEN, _BATCHER, (_EVERY_SEQUENCE,)),
    e.CellsLost: Route("CellsLost", _GIVEN, _BATCHER),
    e.TokenDropped: Route("TokenDropped", _DERIVED, _BATCHER),
    e.SlotReleased: Route("SlotReleased", _DERIVED, _BATCHER),
}

EVENT_TYPES: Final[dict[str, type[e.Event]]] = {route.name: kind for kind, route in ROUTES.items()}


BATCHER: Final = Role.BATCHER.value
"""The Batcher's name in the log."""


def sequence_name(number: int) -> str:
    """Return the name of a sequence in the log."""
    return f"sequence-{number}"


def sequences_of(event: e.Event) -> tuple[int, ...]:
    """Return the numbers of the sequences that ``event`` names, ascending."""
    match event:
        case e.BatchDecoded(samples=samples, vectors=vectors):
            drawn, pooled = {sample.sequence for sample in samples}, {vector.sequence for vector in vectors}
            return tuple(sorted(drawn | pooled))
        case e.BatchFailed(sequences=sequences):
            return sequences
        case e.BatchPlanned(parts=parts):
            return tuple(sorted(part.sequence for part in parts))
        case (
            e.SessionOpened()
            | e.SessionResumed()
            | e.SessionClosed()
            | e.RequestRefused()
            | e.ActorFailed()
            | e.EngineFailed()
            | e.CellsLost()
        ):
            return ()
        case _:
            return (event.sequence,)


def actor_of(event: e.Event) -> str:
    """Return the name of the actor whose state ``event`` changes: "session", "batcher" or "sequence-3"."""
    owner = ROUTES[type(event)].owner
    return sequence_name(sequences_of(event)[0]) if owner is Role.SEQUENCE else owner.value
