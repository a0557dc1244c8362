"""Writes each event as one short phrase for people.

The rules that hold here:

* A phrase is one line, whatever the event contains. Text is shown as Python shows a string, so that spaces, newlines
  and characters that would move a terminal's cursor are visible.
* Long values are cut, with their length; `fields_of` shows one record in full.
* A batch concerns many sequences. If only some are asked for, its phrase covers only these.
"""

import json
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final, assert_never

import attrs

from reenact.actors import events as e
from reenact.actors.options import Options
from reenact.replay.render.values import count, failure, inputs, piece, plain, sequences, text, vector
from reenact.runtime.log.codec import ENVELOPE, Fields

_Session = (
    e.SessionOpened
    | e.SessionResumed
    | e.SessionClosed
    | e.RequestRefused
    | e.ActorFailed
    | e.EngineFailed
    | e.CellsLost
)
_Fact = (
    e.RequestReceived
    | e.PromptTokenized
    | e.TokenizeFailed
    | e.CancelRequested
    | e.DeadlineExpired
    | e.ReaderPaused
    | e.ReaderResumed
    | e.PauseExpired
    | e.SequenceForked
)
_Scheduling = (
    e.RequestQueued
    | e.RequestRejected
    | e.RequestDisplaced
    | e.RequestWithdrawn
    | e.InputQueued
    | e.InputsDropped
    | e.SlotAssigned
    | e.SequencePreempted
    | e.SlotYielded
    | e.AbortRequested
    | e.TokenDropped
    | e.SlotReleased
)
_CODES: Final = {1: " (no room)", 2: " (aborted)", -1: " (invalid batch)"}
"""The meanings of return codes of ``llama_decode``."""


def phrase(event: e.Event, only: Collection[int] = ()) -> str:
    """Return the phrase for an event.

    Args:
        event: The event.
        only: The sequences that matter; all if it is empty.
    """
    match event:
        case e.BatchPlanned():
            return f"batch {event.batch} planned: {_planned(event, only)}"
        case e.BatchDecoded():
            return f"batch {event.batch} decoded: {_decoded(event, only)}"
        case e.BatchFailed():
            which = sequences([k for k in event.sequences if not only or k in only])
            return f"batch {event.batch} failed: {which}: {failure(event.failure)}"
        case (
            e.SessionOpened()
            | e.SessionResumed()
            | e.SessionClosed()
            | e.RequestRefused()
            | e.ActorFailed()
            | e.EngineFailed()
            | e.CellsLost()
        ):
            return _of_session(event)
        case (
            e.RequestReceived()
            | e.PromptTokenized()
            | e.TokenizeFailed()
            | e.CancelRequested()
            | e.DeadlineExpired()
            | e.ReaderPaused()
            | e.ReaderResumed()
            | e.PauseExpired()
            | e.SequenceForked()
        ):
            return _of_request(event)
        case (
            e.RequestQueued()
            | e.RequestRejected()
            | e.RequestDisplaced()
            | e.RequestWithdrawn()
            | e.InputQueued()
            | e.InputsDropped()
            | e.SlotAssigned()
            | e.SequencePreempted()
            | e.SlotYielded()
            | e.AbortRequested()
            | e.TokenDropped()
            | e.SlotReleased()
        ):
            return _of_batcher(event)
        case _:
            return _of_sequence(event)


def _of_session(event: _Session) -> str:
    match event:
        case e.SessionOpened():
            context = event.context
            sizes = (
                f"{count(context.n_slots, 'slot')} of {count(context.n_ctx, 'cell')},"
                f" at most {count(context.n_batch, 'row')} a batch"
            )
            redacted = ", redacted" if event.redacted else ""
            return (
                f"session {plain(event.session)} opened at {plain(event.opened_at)}: reenact {plain(event.reenact)},"
                f" engine {plain(event.engine.name)}, model {plain(event.model.name)}, {sizes},"
                f" {event.determinism.policy}{_durability(event)}{_parent(event)}{redacted}"
            )
        case e.SessionResumed():
            return f"session resumed at {plain(event.resumed_at)}: reenact {plain(event.reenact)}{_durability(event)}"
        case e.SessionClosed():
            return f"session closed, with digest {plain(event.digest)}"
        case e.RequestRefused():
            name = "" if event.request_id is None else f" {text(event.request_id)}"
            return f"request{name} refused: {failure(event.failure)}"
        case e.ActorFailed():
            return f"actor failed: {plain(event.failed)}: {plain(event.error)}"
        case e.EngineFailed():
            return f"engine failed: {plain(event.error)}"
        case e.CellsLost():
            return "cells lost: the context is a new one, and no batch is in flight"
        case _:
            assert_never(event)


def _durability(event: e.SessionOpened | e.SessionResumed) -> str:
    """Return the durability of the log, if it is not the usual one or was changed."""
    usual = "process" if isinstance(event, e.SessionOpened) else None
    return "" if event.durability == usual else f", durability {plain(str(event.durability))}"


def _parent(event: e.SessionOpened) -> str:
    parent = event.parent
    if parent is None:
        return ""
    if parent.sequences:
        return f", {sequences(parent.sequences)} alone of session {plain(parent.session)} before record {parent.n}"
    return f", forked from session {plain(parent.session)} at record {parent.n}"


def _of_request(event: _Fact) -> str:
    match event:
        case e.RequestReceived():
            return _request(event)
        case e.PromptTokenized():
            grammar = "" if event.grammar is None else f", grammar {text(event.grammar)}"
            return f"prompt tokenized: {inputs(event.inputs)}{', BOS added' if event.bos_added else ''}{grammar}"
        case e.TokenizeFailed():
            return f"tokenizing failed: {plain(event.error)}"
        case e.CancelRequested():
            return "cancel requested"
        case e.DeadlineExpired():
            return "deadline expired"
        case e.ReaderPaused():
            return "reader paused"
        case e.ReaderResumed():
            return "reader resumed"
        case e.PauseExpired():
            return "pause expired: the reader has not read on for too long"
        case e.SequenceForked():
            return f"sequence forked: it goes on with {', '.join(options_of(event.options, skip=()))}"
        case _:
            assert_never(event)


def _of_sequence(event: e.SequenceEvent) -> str:
    match event:
        case e.PromptTruncated():
            return f"prompt truncated: {_dropped(event.discard, event.keep, 'left out')}"
        case e.ContextShifted():
            return f"context shifted: {_dropped(event.discard, event.keep, 'dropped')}"
        case e.TokenEmitted():
            held = f", {piece(event.held)} held" if event.held else ""
            return f"token {event.index} emitted (id {event.token}): {text(event.text)}{held}"
        case e.StopMatched():
            before = f", {text(event.text)} before it" if event.text else ""
            return f"stop matched by token {event.index} (id {event.token}): {text(event.stop)}{before}"
        case e.EogSampled():
            return f"EOG sampled as token {event.index} (id {event.token})"
        case e.EmbeddingComputed():
            return f"embedding computed: {vector(event.embedding)}"
        case e.SequencePaused():
            return "sequence paused until its reader resumes"
        case e.SequenceResumed():
            return "sequence resumed"
        case e.SequenceFinished():
            prompt = count(event.n_prompt, "prompt token")
            return f"sequence finished: {ending(event)}, {prompt}, {event.n_sampled:,} sampled"
        case _:
            assert_never(event)


def _of_batcher(event: _Scheduling) -> str:
    match event:
        case e.RequestQueued():
            priority = f" with priority {event.priority}" if event.priority else ""
            return f"request queued: sequence {event.sequence}{priority}, {event.n_ahead} ahead of it"
        case e.RequestRejected():
            return f"request rejected: sequence {event.sequence}, {plain(event.failure.reason)}"
        case e.RequestDisplaced():
            return f"request displaced: sequence {event.sequence} leaves for sequence {event.by}, which goes first"
        case e.RequestWithdrawn():
            return f"request withdrawn: sequence {event.sequence}"
        case e.InputQueued():
            then = f"then draws token {event.wants.index}" if isinstance(event.wants, e.Draw) else "to be pooled"
            return f"input queued: sequence {event.sequence}, {inputs(event.inputs)}, {then}"
        case e.InputsDropped():
            dropped = _dropped(event.discard, event.keep, "forgotten")
            return f"inputs dropped: {dropped} of sequence {event.sequence}"
        case e.SlotAssigned():
            return f"slot {event.slot} assigned to sequence {event.sequence}{_reused(event)}"
        case e.SequencePreempted():
            return f"sequence {event.sequence} preempted: slot {event.slot} is for sequence {event.by}"
        case e.SlotYielded():
            return f"slot {event.slot} given up by sequence {event.sequence} until its reader resumes"
        case e.AbortRequested():
            return f"abort of batch {event.batch} requested: sequence {event.sequence} has ended"
        case e.TokenDropped():
            return f"token {event.index} dropped (id {event.token}): sequence {event.sequence} has ended"
        case e.SlotReleased():
            return f"slot {event.slot} released by sequence {event.sequence}, with {count(event.length, 'cell')}"
        case _:
            assert_never(event)


def _request(event: e.RequestReceived) -> str:
    what = "embedding requested" if event.embedding else "request received"
    name = "" if event.request_id is None else f" as {plain(event.request_id)}"
    chat = "" if event.continues is None else f", continuing sequence {event.continues}"
    cut = f", {count(event.left_out, 'message')} left out" if event.left_out else ""
    options = options_of(event.options, skip={"seed"} if event.embedding else ())
    trace = "" if event.traceparent is None else f", in trace {plain(event.traceparent)}"
    return f"{what}{name}{chat}{cut}{trace}: {', '.join([text(event.prompt), *options])}"


def options_of(options: Options, skip: Collection[str]) -> list[str]:
    """Return the seed, and every option that is not at its default."""
    return [
        f"{a.name} {_option(getattr(options, a.name))}"
        for a in attrs.fields(Options)
        if a.name not in skip and (a.default is attrs.NOTHING or getattr(options, a.name) != a.default)
    ]


def _option(value: object) -> str:
    match value:
        case tuple():
            return repr(list(value))
        case str():
            return text(value)
        case _:
            return str(value)


def ending(event: e.SequenceFinished) -> str:
    """Return the phrase for the end of a sequence."""
    parts: list[str] = [event.finish_reason]
    if event.stop is not None:
        parts.append(f"at {text(event.stop)}")
    if event.error is not None:
        parts.append(f"({failure(event.error)})")
    if event.text:
        parts.append(f"with {text(event.text)} released")
    return " ".join(parts)


def _dropped(discard: int, keep: int, what: str) -> str:
    where = f"after the first {keep:,}" if keep else "from the beginning"
    return f"{count(discard, 'input')} {what} {where}"


def _reused(event: e.SlotAssigned) -> str:
    if event.source is not None:
        return f", {count(event.reused, 'input')} forked from slot {event.source}"
    return f", {count(event.reused, 'input')} reused" if event.reused else ""


# ---------------------------------------------------------------- batches


def _planned(event: e.BatchPlanned, only: Collection[int]) -> str:
    n_rows = count(sum(len(part.inputs) for part in event.parts), "row")
    parts = [part for part in event.parts if not only or part.sequence in only]
    if only:
        rows = [
            f"{len(part.inputs)} of sequence {part.sequence} from position {part.position}"
            f" in slot {part.slot}, {draws(part)}"
            for part in parts
        ]
    else:
        one_each = [part.sequence for part in parts if len(part.inputs) == 1 and part.draw is not None]
        rows = [f"{'1 each' if len(one_each) > 1 else '1'} of {sequences(one_each)}"] if one_each else []
        rows += [
            f"{len(part.inputs)} of sequence {part.sequence}{_purpose(part)}"
            for part in parts
            if part.sequence not in one_each
        ]
    slots = {part.slot for part in parts}
    operations = [each for slot, each in _operations(event) if not only or slot in slots]
    return f"{n_rows}: {'; '.join([*rows, *operations])}"


def draws(part: e.Part) -> str:
    """Return the phrase for the purpose of a sequence's rows in a batch."""
    if part.pools:
        return "then pooled"
    return "more of it to come" if part.draw is None else f"then draws token {part.draw}"


def _purpose(part: e.Part) -> str:
    if part.pools:
        return " (to be pooled)"
    return "" if part.draw is not None else " (more of it to come)"


def _operations(event: e.BatchPlanned) -> Iterator[tuple[int, str]]:
    """Return the operations on cells before the rows: the slot that changes, and the phrase."""
    for operation in event.operations:
        yield operation.slot, operation_phrase(operation)


def operation_phrase(operation: e.Operation) -> str:
    """Return the phrase for an operation on a slot's cells."""
    match operation:
        case e.Copy():
            return f"slot {operation.source} copied to {operation.slot}"
        case e.Trim():
            how = f"trimmed to {count(operation.length, 'cell')}" if operation.length else "emptied"
            return f"slot {operation.slot} {how}"
        case e.Shift():
            return f"slot {operation.slot} shifted by {operation.discard:,} after its first {operation.keep:,}"


def _decoded(event: e.BatchDecoded, only: Collection[int]) -> str:
    outcomes = [(sample.sequence, _sample(sample)) for sample in event.samples]
    outcomes += [(pooled.sequence, _vector(pooled)) for pooled in event.vectors]
    each = [f"sequence {number} {what}" for number, what in outcomes if not only or number in only]
    code = "" if event.code == 0 else f"llama_decode returned {event.code}{_CODES.get(event.code, '')}; "
    return code + (", ".join(each) or "nothing drawn")


def _sample(sample: e.Sample) -> str:
    match sample.fault:
        case "nan":
            return "NaN in the logits"
        case "grammar":
            return "no token that its grammar allows"
        case "cost":
            return "no token, its grammar having too many ways to go on"
        case "engine":
            return "no token that its engine has"
        case None:
            return "EOG" if sample.eog else piece(sample.piece)


def _vector(pooled: e.Vector) -> str:
    if pooled.values:
        return f"pooled to {vector(pooled.values)}"
    return "NaN or infinity in the vector" if pooled.reason is None else "no vector that its engine has"


# ---------------------------------------------------------------- one record, whole


def fields_of(fields: Fields) -> Iterator[tuple[str, str]]:
    """Return every field of a line's event with its path, in full."""
    return _flat("", {name: value for name, value in fields.items() if name not in ENVELOPE})


def _flat(path: str, value: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401  # any JSON
    inner: Iterable[tuple[str, Any]]
    if isinstance(value, dict) and value:
        inner = ((f"{path}.{name}" if path else name, item) for name, item in value.items())
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        inner = ((f"{path}[{i}]", item) for i, item in enumerate(value))
    else:
        yield path, plain(json.dumps(value, ensure_ascii=False))
        return
    for name, item in inner:
        yield from _flat(name, item)
