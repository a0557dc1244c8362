"""Each event as one short phrase for people.

The rules that hold here:

* A phrase stands on one line, whatever the event holds. Text is shown as Python shows a string, so that spaces,
  newlines and what would move a terminal's cursor are visible.
* What is long is cut, and says how long it is; `fields_of` shows one record whole.
* A batch concerns many sequences. Where only some are asked for, its phrase speaks of these alone.
"""

import json
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final, assert_never

import attrs

from reenact.actors import events as e
from reenact.actors.options import Options
from reenact.runtime.codec import ENVELOPE, Fields

_MAX_TOKENS: Final = 8
"""Tokens of a list that are shown; the rest are counted."""

_MAX_TEXT: Final = 80
"""Characters of a text that are shown; a terminal's width."""

_SequenceOwn = (
    e.RequestReceived
    | e.PromptTokenized
    | e.TokenizeFailed
    | e.CancelRequested
    | e.ReaderPaused
    | e.ReaderResumed
    | e.SequenceEvent
)


def phrase(event: e.Event, only: Collection[int] = ()) -> str:
    """Say what happened.

    Args:
        event: The event.
        only: The sequences that matter; all where it is empty.
    """
    match event:
        case e.SessionOpened() | e.SessionClosed() | e.ActorFailed() | e.EngineFailed():
            return _of_session(event)
        case (
            e.RequestReceived()
            | e.PromptTokenized()
            | e.TokenizeFailed()
            | e.CancelRequested()
            | e.ReaderPaused()
            | e.ReaderResumed()
            | e.TokenEmitted()
            | e.StopMatched()
            | e.EogSampled()
            | e.SequencePaused()
            | e.SequenceResumed()
            | e.SequenceFinished()
        ):
            return _of_sequence(event)
        case e.RequestQueued():
            return f"request queued: sequence {event.sequence}, {event.n_ahead} ahead of it"
        case e.RequestRejected():
            return f"request rejected: sequence {event.sequence}, {event.failure.reason}"
        case e.RequestWithdrawn():
            return f"request withdrawn: sequence {event.sequence}"
        case e.InputQueued():
            return f"input queued: sequence {event.sequence}, {tokens(event.tokens)}, then draws token {event.draw}"
        case e.SlotAssigned():
            return f"slot {event.slot} assigned to sequence {event.sequence}"
        case e.BatchPlanned():
            return f"batch {event.batch} planned: {_planned(event, only)}"
        case e.BatchDecoded():
            return f"batch {event.batch} decoded: {_decoded(event, only)}"
        case e.BatchFailed():
            which = sequences([k for k in event.sequences if not only or k in only])
            return f"batch {event.batch} failed: {which}: {failure(event.failure)}"
        case e.TokenDropped():
            return f"token {event.index} dropped (id {event.token}): sequence {event.sequence} has ended"
        case e.SlotReleased():
            return f"slot {event.slot} released by sequence {event.sequence}, with {count(event.length, 'cell')}"
        case _:
            assert_never(event)


def _of_session(event: e.SessionOpened | e.SessionClosed | e.ActorFailed | e.EngineFailed) -> str:
    match event:
        case e.SessionOpened():
            context = event.context
            sizes = (
                f"{count(context.n_slots, 'slot')} of {count(context.n_ctx, 'cell')},"
                f" at most {count(context.n_batch, 'row')} a batch"
            )
            return (
                f"session {plain(event.session)} opened at {plain(event.opened_at)}: reenact {plain(event.reenact)},"
                f" engine {plain(event.engine.name)}, model {plain(event.model.name)}, {sizes}"
            )
        case e.SessionClosed():
            return f"session closed, with digest {plain(event.digest)}"
        case e.ActorFailed():
            return f"actor failed: {plain(event.failed)}: {plain(event.error)}"
        case e.EngineFailed():
            return f"engine failed: {plain(event.error)}"
        case _:
            assert_never(event)


def _of_sequence(event: _SequenceOwn) -> str:
    match event:
        case e.RequestReceived():
            named = "" if event.request_id is None else f" as {plain(event.request_id)}"
            return f"request received{named}: {text(event.prompt)}, {_options(event.options)}"
        case e.PromptTokenized():
            return f"prompt tokenised: {tokens(event.tokens)}{', BOS added' if event.bos_added else ''}"
        case e.TokenizeFailed():
            return f"tokenising failed: {plain(event.error)}"
        case e.CancelRequested():
            return "cancel requested"
        case e.ReaderPaused():
            return "reader paused"
        case e.ReaderResumed():
            return "reader resumed"
        case e.TokenEmitted():
            held = f", {piece(event.held)} held" if event.held else ""
            return f"token {event.index} emitted (id {event.token}): {text(event.text)}{held}"
        case e.StopMatched():
            before = f", {text(event.text)} before it" if event.text else ""
            return f"stop matched by token {event.index} (id {event.token}): {text(event.stop)}{before}"
        case e.EogSampled():
            return f"EOG sampled as token {event.index} (id {event.token})"
        case e.SequencePaused():
            return "sequence paused until its reader resumes"
        case e.SequenceResumed():
            return "sequence resumed"
        case e.SequenceFinished():
            return f"sequence finished: {ending(event)}, {event.n_prompt} prompt tokens, {event.n_sampled} sampled"
        case _:
            assert_never(event)


def ending(event: e.SequenceFinished) -> str:
    """Say how a sequence ended."""
    parts: list[str] = [event.finish_reason]
    if event.stop is not None:
        parts.append(f"at {text(event.stop)}")
    if event.error is not None:
        parts.append(f"({failure(event.error)})")
    if event.text:
        parts.append(f"with {text(event.text)} released")
    return " ".join(parts)


def failure(failed: e.Failure) -> str:
    """Say what went wrong."""
    where = f"{failed.field}: " if failed.field else ""
    return plain(f"{failed.kind}: {where}{failed.reason}")


def _planned(event: e.BatchPlanned, only: Collection[int]) -> str:
    n_rows = count(sum(len(part.tokens) for part in event.parts), "row")
    if only:
        mine = [
            f"{len(part.tokens)} of sequence {part.sequence} from position {part.position}"
            f" in slot {part.slot}, {draws(part)}"
            for part in event.parts
            if part.sequence in only
        ]
        return f"{n_rows}: {'; '.join(mine)}"
    one_each = [part.sequence for part in event.parts if len(part.tokens) == 1 and part.draw is not None]
    by_part = [f"{'1 each' if len(one_each) > 1 else '1'} of {sequences(one_each)}"] if one_each else []
    by_part += [
        f"{len(part.tokens)} of sequence {part.sequence}{'' if part.draw is not None else ' (more of it to come)'}"
        for part in event.parts
        if part.sequence not in one_each
    ]
    cleared = f"; cleared first: {slots(event.clears)}" if event.clears else ""
    return f"{n_rows}: {'; '.join(by_part)}{cleared}"


def draws(part: e.Part) -> str:
    """Say what comes of a sequence's rows in a batch."""
    return "more of its prompt to come" if part.draw is None else f"then draws token {part.draw}"


def _decoded(event: e.BatchDecoded, only: Collection[int]) -> str:
    samples = [sample for sample in event.samples if not only or sample.sequence in only]
    code = "" if event.code == 0 else f"llama_decode returned {event.code}; "
    if not samples:
        return f"{code}nothing drawn"
    return code + ", ".join(f"sequence {sample.sequence} {_sample(sample)}" for sample in samples)


def _sample(sample: e.Sample) -> str:
    if sample.nan:
        return "NaN in the logits"
    return "EOG" if sample.eog else piece(sample.piece)


def _options(options: Options) -> str:
    """Return the seed, and every option that is not at its default."""
    return ", ".join(
        f"{a.name} {list(options.stop) if a.name == 'stop' else getattr(options, a.name)}"
        for a in attrs.fields(Options)
        if a.default is attrs.NOTHING or getattr(options, a.name) != a.default
    )


def tokens(ids: tuple[int, ...]) -> str:
    """Return token ids as a list with its length, cut where it is long."""
    shown = ", ".join(map(str, ids[:_MAX_TOKENS]))
    return f"{count(len(ids), 'token')} [{shown}{', …' if len(ids) > _MAX_TOKENS else ''}]"


def text(value: str) -> str:
    """Return a text with its spaces and newlines visible, cut where it is long."""
    if len(value) <= _MAX_TEXT:
        return repr(value)
    return f"{value[:_MAX_TEXT]!r}… ({len(value):,} characters)"


def piece(value: bytes) -> str:
    """Return bytes as text where they are, and as bytes where not."""
    try:
        return text(value.decode())
    except UnicodeDecodeError:
        return repr(value)


def plain(value: str) -> str:
    """Return a text as it is where it fits on a line, and with its escapes where not."""
    return value if value.isprintable() else repr(value)


def count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural where that is due."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def sequences(numbers: Collection[int]) -> str:
    """Return the names of sequences, ascending; three neighbours or more as a range."""
    return f"sequence{'' if len(numbers) == 1 else 's'} {_ranges(numbers)}"


def slots(numbers: Collection[int]) -> str:
    """Return the names of slots, likewise."""
    return f"slot{'' if len(numbers) == 1 else 's'} {_ranges(numbers)}"


def _ranges(numbers: Collection[int]) -> str:
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if run[2:] else ", ".join(map(str, run)) for run in runs)


def fields_of(fields: Fields) -> Iterator[tuple[str, str]]:
    """Return every field of a line's event with its path, whole."""
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
