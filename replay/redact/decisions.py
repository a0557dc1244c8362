"""Decides for each field of each event what becomes of it in a redacted log.

The rules that hold here:

* Every field of every event, and of every value in one, has a decision; a test goes through all of them, and
  docs/redacted-logs.md has them as a table.
* ``kept``: the value stays. Of a value that has fields itself, these have decisions of their own.
* ``hashed``: a keyed hash takes its place. In a derived record it has the length of what it replaces.
* ``left out``: nothing of it stays; a fixed value takes its place, or none.
* Derived records are never changed: today's actors decide them again, on the redacted facts. They must differ from the
  log's in nothing but fields that are hashed or left out.
"""

from typing import Final, Literal

from attrs import fields, has

from reenact.actors import events as e
from reenact.actors.errors import Failure
from reenact.actors.header import ContextFacts, DeterminismFacts, EngineFacts, Limits, ModelFacts, Numerics, Parent
from reenact.actors.inputs import Row
from reenact.actors.options import Options

Decision = Literal["kept", "hashed", "left out"]


def _kept(names: str, *, hashed: str = "", left_out: str = "") -> dict[str, Decision]:
    """Return the decisions on the fields of a class, by their names."""
    made: dict[str, Decision] = dict.fromkeys(names.split(), "kept")
    return made | dict.fromkeys(hashed.split(), "hashed") | dict.fromkeys(left_out.split(), "left out")


_SEQUENCE: Final = _kept("sequence")

DECISIONS: Final[dict[type, dict[str, Decision]]] = {
    # The session: all that a scheduling bug may depend on, and the machine.
    e.SessionOpened: _kept(
        "format schema session opened_at reenact python platform engine model context limits policies rules"
        " determinism parent durability redacted"
    ),
    EngineFacts: _kept("name versions system_info cpu library_sha256"),
    ModelFacts: _kept("name size sha256 description"),
    ContextFacts: _kept(
        "n_slots n_ctx n_ctx_seq n_batch n_ubatch n_threads numerics kv_unified shift n_embd pooling alone parameters"
    ),
    Numerics: _kept("type_k type_v flash_attn repack tiled"),
    Limits: _kept("max_waiting max_reader_lag max_pause"),
    DeterminismFacts: _kept("asked policy reason probe"),
    Parent: _kept("session n sequences"),
    e.SessionResumed: _kept("resumed_at reenact python platform durability"),
    e.SessionClosed: _kept("", hashed="digest"),
    # An error's message may quote a prompt.
    e.ActorFailed: _kept("failed", left_out="error"),
    e.EngineFailed: _kept("", left_out="error"),
    Failure: _kept("kind field", left_out="reason"),
    # Requests.
    e.RequestReceived: _kept(
        "sequence options embedding continues left_out",
        hashed="request_id prompt",
        left_out=f"{fields(e.RequestReceived).said.name} traceparent",
    ),
    Options: _kept(
        "seed num_predict num_keep temperature top_k top_p min_p typical_p repeat_last_n repeat_penalty"
        " presence_penalty frequency_penalty truncate shift logprobs top_logprobs priority deadline dimensions",
        hashed="stop format grammar",
    ),
    e.RequestRefused: _kept("failure", hashed="request_id"),
    e.PromptTokenized: _kept("sequence bos_added", hashed="inputs grammar"),
    Row: _kept("", hashed="digest"),
    e.TokenizeFailed: _kept("sequence", left_out="error"),
    e.DeadlineExpired: _SEQUENCE,
    e.CancelRequested: _SEQUENCE,
    e.ReaderPaused: _SEQUENCE,
    e.ReaderResumed: _SEQUENCE,
    e.PauseExpired: _SEQUENCE,
    e.SequenceForked: _kept("sequence options"),
    # The decisions of a sequence.
    e.PromptTruncated: _kept("sequence keep discard"),
    e.ContextShifted: _kept("sequence keep discard"),
    e.TokenEmitted: _kept("sequence index held_by", hashed="token text held"),
    e.StopMatched: _kept("sequence index", hashed="token stop text"),
    e.EogSampled: _kept("sequence index", hashed="token"),
    e.EmbeddingComputed: _kept("sequence", left_out="embedding"),
    e.SequencePaused: _SEQUENCE,
    e.SequenceResumed: _SEQUENCE,
    e.SequenceFinished: _kept("sequence finish_reason n_prompt n_sampled n_hidden error", hashed="stop text"),
    # The decisions of the Batcher.
    e.RequestQueued: _kept("sequence priority n_ahead"),
    e.RequestRejected: _kept("sequence failure"),
    e.RequestDisplaced: _kept("sequence by failure"),
    e.RequestWithdrawn: _SEQUENCE,
    e.InputQueued: _kept("sequence wants", hashed="inputs"),
    e.InputsDropped: _kept("sequence keep discard"),
    e.SlotAssigned: _kept("sequence slot reused source"),
    e.SequencePreempted: _kept("sequence slot by"),
    e.SlotYielded: _kept("sequence slot"),
    e.AbortRequested: _kept("batch sequence"),
    e.BatchFailed: _kept("batch sequences failure"),
    e.TokenDropped: _kept("sequence index", hashed="token"),
    e.SlotReleased: _kept("sequence slot length"),
    # Batches. A checksum confirms a guess at a prompt, and so do a probability and a vector.
    e.BatchPlanned: _kept("batch key copies trims shifts parts"),
    e.BatchKey: _kept("kind uncut"),
    e.Copy: _kept("source slot"),
    e.Trim: _kept("slot length"),
    e.Shift: _kept("slot keep discard"),
    e.Part: _kept("sequence slot position wants", hashed="inputs"),
    e.Draw: _kept("index"),
    e.Pool: _kept(""),
    e.BatchDecoded: _kept("batch code samples vectors positions"),
    e.Sample: _kept("sequence index eog fault", hashed="token piece", left_out="reason logits_crc32 logprob top"),
    e.Likely: _kept("", left_out="token piece logprob"),
    e.Vector: _kept("sequence", left_out="values crc32 reason"),
    e.CellsLost: _kept(""),
}
"""The decision on each field, by class and name."""


def difference(recorded: object, redacted: object) -> str | None:
    """Return the field in which two values differ although it is kept, or a hash has another length; None if none.

    Args:
        recorded: A value of a log: an event, or a value in one.
        redacted: The value that takes its place.
    """
    if type(recorded) is not type(redacted):
        return "type"
    if isinstance(recorded, tuple) and isinstance(redacted, tuple):
        if len(recorded) != len(redacted):
            return "length"
        found = (difference(one, other) for one, other in zip(recorded, redacted, strict=True))
        return next((name for name in found if name is not None), None)
    if not has(type(recorded)):
        return None if recorded == redacted else "value"
    for name, decision in DECISIONS[type(recorded)].items():
        one, other = getattr(recorded, name), getattr(redacted, name)
        if decision == "kept" and (inner := difference(one, other)) is not None:
            return name if inner in {"value", "type", "length"} else f"{name}.{inner}"
        if decision == "hashed" and _shape(one) != _shape(other):
            return name
    return None


def _shape(value: object) -> object:
    """Return the properties that a hash shares with the value that it replaces."""
    match value:
        case str():
            return "text", len(value.encode())
        case bytes():
            return "bytes", len(value)
        case tuple():
            return tuple(map(_shape, value))
        case _:
            return type(value).__name__


def decided(kind: type) -> dict[str, Decision]:
    """Return the decision on each field of a class.

    Raises:
        KeyError: The class has a field without a decision.
    """
    return {one.name: DECISIONS[kind][one.name] for one in fields(kind)}
