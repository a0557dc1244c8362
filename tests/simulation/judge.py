"""What must hold of a simulated session, found out from its log and from what its callers got.

The rules that hold here:

* The log replays the same, keeps every rule of ``replay check``, and is closed unless it could not be written.
* Every request ended once for its caller, as the log says; it was recorded as he asked it, and what he got is what the
  log says, as a whole and chunk by chunk.
* Every text is what its sequence's inputs alone lead to (`alone`): that is told by the rules of
  docs/runner-semantics.md section 2, without actors, batches and slots.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import frozen

from reenact.actors import events as e
from reenact.actors.inputs import Input
from reenact.actors.metrics import Times
from reenact.replay import replay_log
from reenact.replay.check.report import check_log
from reenact.replay.look.texts import SequenceText, Texts
from reenact.runtime import Completion
from reenact.runtime.engine.scripted import PIECES, Special, drawn, row_of
from reenact.runtime.log.reader import LogFile, entries
from reenact.runtime.log.rows import rows_path
from tests.simulation.world import BOS, ROW_IN_TEXT, End, Ran

_LEFT = {"left", "cancelled"}
"""Ends that a caller made himself; the sequence may have come to its own end just before."""
_ERRORS: Final = {
    "invalid_request": "InvalidRequest",
    "overloaded": "Overloaded",
    "sequence_failed": "SequenceFailed",
    "engine_broken": "EngineBroken",
    "internal_error": "InternalError",
}
"""What a caller is told, by what the log says."""
_A_MOMENT: Final = 1e-6
"""Seconds by which times may differ that are rounded."""

_FIRST_TOKEN: Final = 257
"""Of the pieces, in a `ScriptedEngine`."""


@frozen(kw_only=True)
class Alone:
    """What a request leads to that has a context for itself."""

    text: str
    n_sampled: int
    tokens: tuple[int, ...]
    """Those that are wholly in the text."""
    ended_by: tuple[str | None, str | None]
    """The reason and the stop string; None where it was not over."""


@frozen(kw_only=True)
class Read:
    """What there is in a log."""

    told: dict[str, SequenceText]
    """Each sequence, by the name of its request."""
    inputs: dict[int, tuple[Input, ...]]
    """Of the prompts."""
    bos_added: dict[int, bool]
    """Whether the log says that a prompt begins with a BOS."""
    reused: dict[int, int]
    """How many of them were in cells when the sequence first got a slot."""
    n_shifts: Counter[int]
    """Of each sequence."""
    times: dict[int, list[int]]
    """When each sequence came, was late if it was, and ended, in nanoseconds."""
    n_ctx: int
    closed: bool
    unsure: frozenset[int]
    """Sequences whose end may not have been told: it stands in the fact at which the log broke off."""
    kinds: Counter[str]
    """How many records there are of each type."""


def read(path: Path) -> Read:
    """Read a log."""
    texts, inputs, kinds, n_ctx = Texts(), {}, Counter[str](), 0
    bos_added: dict[int, bool] = {}
    reused: dict[int, int] = {}
    times: dict[int, list[int]] = {}
    n_shifts = Counter[int]()
    last_ended: set[int] = set()
    with LogFile(path) as log:
        for entry in entries(log):
            event = entry.record.event
            kinds[type(event).__name__] += 1
            texts.add(entry)
            if entry.record.cause is None:
                last_ended.clear()
            match event:
                case e.SequenceFinished():
                    last_ended.add(event.sequence)
                case e.PromptTokenized():
                    inputs[event.sequence] = event.inputs
                    bos_added[event.sequence] = event.bos_added
                case e.SlotAssigned():
                    reused.setdefault(event.sequence, event.reused)
                case e.ContextShifted():
                    n_shifts[event.sequence] += 1
                case e.SessionOpened():
                    n_ctx = event.context.n_ctx
                case _:
                    pass
            if isinstance(event, e.RequestReceived | e.DeadlineExpired | e.SequenceFinished):
                times.setdefault(event.sequence, []).append(entry.t)
    told = {str(told.request.request_id): told for told in texts.all()}
    closed = bool(kinds["SessionClosed"])
    unsure = frozenset(() if closed else last_ended)
    return Read(
        told=told,
        inputs=inputs,
        bos_added=bos_added,
        reused=reused,
        n_shifts=n_shifts,
        times=times,
        n_ctx=n_ctx,
        closed=closed,
        unsure=unsure,
        kinds=kinds,
    )


def alone(request: e.RequestReceived, prompt: tuple[Input, ...], n_ctx: int, n_tokens: int) -> Alone:
    """Generate what a request leads to, ``n_tokens`` tokens at most; held text goes out at the end."""
    options = request.options
    keep = min(len(prompt) if options.num_keep < 0 else options.num_keep + (prompt[:1] == (BOS,)), n_ctx - 1)
    inputs = [*prompt[:keep], *prompt[keep + max(len(prompt) - n_ctx, 0) :]]
    most = 10 * n_ctx if options.num_predict < 0 else options.num_predict
    data, index = b"", 0
    tokens: list[int] = []
    ends: list[int] = []
    reason: str | None = "length" if most == 0 else None
    stop: str | None = None
    while reason is None and index < n_tokens:
        piece = drawn(PIECES, row_of(inputs), index, options)
        index += 1
        if isinstance(piece, Special):
            reason = "stop"
            break
        data += _as_bytes(piece)
        tokens.append(_FIRST_TOKEN + PIECES.index(piece))
        ends.append(len(data))
        found = [(data.find(one.encode()) + len(one.encode()), data.find(one.encode()), one) for one in options.stop]
        matched = min((one for one in found if one[1] >= 0), default=None)
        if matched is not None:
            data, stop, reason = data[: matched[1]], matched[2], "stop"
            break
        inputs.append(tokens[-1])
        if index == most:
            reason = "length"
        elif len(inputs) > n_ctx and not options.shift:
            reason = "context_full"
        elif len(inputs) > n_ctx:
            del inputs[keep : keep + max((n_ctx - keep) // 2, 1)]
    return Alone(
        text=data.decode(errors="replace"),
        n_sampled=index,
        tokens=tuple(token for token, end in zip(tokens, ends, strict=True) if end <= len(data)),
        ended_by=(reason, stop),
    )


def _as_bytes(piece: str | bytes) -> bytes:
    return piece.encode() if isinstance(piece, str) else piece


def bytes_of(one: Input) -> bytes:
    """Return what an input of a prompt stands for."""
    if not isinstance(one, int):
        return ROW_IN_TEXT.encode()
    if one < _FIRST_TOKEN:
        return bytes([one])
    piece = PIECES[one - _FIRST_TOKEN]
    return b"" if isinstance(piece, Special) else _as_bytes(piece)


def complaints(ran: Ran) -> Iterator[str]:
    """Say what does not hold of a session, a line each."""
    yield from ran.amiss
    verdict = replay_log(ran.log)
    if verdict.verdict != "same":
        yield "\n".join(verdict.lines())
    checked = check_log(ran.log)
    if checked.outcome != "holds":
        yield "\n".join(checked.lines())
    if verdict.error is not None or checked.outcome in {"corrupt", "unreadable", "not comparable"}:
        return
    found = read(ran.log)
    n_bytes = sum(path.stat().st_size for path in (ran.log, rows_path(ran.log)) if path.exists())
    if found.closed != (ran.sky.room is None or n_bytes < ran.sky.room):
        yield f"the log is {'closed' if found.closed else 'not closed'}, and there was room for {ran.sky.room} bytes"
    for name in sorted(ran.ends.keys() | found.told.keys()):
        ends = ran.ends.get(name, [])
        if len(ends) != 1:
            yield f"{name} ended {len(ends)} times"
        for end in ends:
            yield from (f"{name}: {what}" for what in _of_its_end(end, found.told.get(name), found))
    for name, told in found.told.items():
        yield from (f"{name}: {what}" for what in _of_its_text(told, found))
        for end in ran.ends.get(name, []):
            yield from (f"{name}: {what}" for what in _of_its_time(end, told, found, ran.jumped))


def _of_its_end(end: End, told: SequenceText | None, found: Read) -> Iterator[str]:
    """Say what its caller got that the log does not say."""
    finished = None if told is None else told.end
    if told is None:
        allowed = {*_LEFT, "ClosedResourceError", "LogBroken"}
        if end.chat and not end.options.get("truncate", True):
            allowed.add("InvalidRequest")  # It is longer than the context.
    elif finished is None:
        allowed = {*_LEFT, "LogBroken"}
    elif finished.error is not None:
        allowed = {*_LEFT, _ERRORS[finished.error.kind]}
    elif finished.finish_reason == "cancelled":
        allowed = {*_LEFT, "ClosedResourceError"}
    else:
        allowed = {*_LEFT, "read"}
    if found.closed:
        allowed.discard("LogBroken")
    elif told is not None and told.request.sequence in found.unsure:
        allowed.add("LogBroken")
    if end.how not in allowed:
        yield f"its caller got {end.how}, expected one of {', '.join(sorted(allowed))}"
    if told is not None:
        yield from _as_asked(end, told)
    if end.completion is None or told is None or finished is None:
        if end.how == "read":
            yield "it was read to its end, and there is none"
        return
    yield from _of_what_it_got(end.completion, told, finished, found)
    yield from _of_its_chunks(end, end.completion)


def _as_asked(end: End, told: SequenceText) -> Iterator[str]:
    """Say what was recorded otherwise than it was asked."""
    request = told.request
    asked_for = end.prompts[min(request.left_out, len(end.prompts) - 1)]
    is_cut = end.chat and request.left_out == len(end.prompts)
    left = asked_for
    if is_cut:
        role, _, content = asked_for.partition(": ")
        left = f"{role}: {content[len(asked_for) - len(request.prompt) :]}"
    if left != request.prompt:
        yield f"it asked {asked_for!r}, and {request.prompt!r} is recorded"
    if (request.left_out - is_cut) % 2:
        yield f"{request.left_out} messages are left out, so its chat begins with an answer"
    for name, value in end.options.items():
        asked = tuple(value) if isinstance(value, list) else value
        recorded = getattr(request.options, name)
        if asked != recorded and not (name == "seed" and asked is None):
            yield f"{name} {asked!r} was asked for, and {recorded!r} is recorded"


def _of_what_it_got(got: Completion, told: SequenceText, finished: e.SequenceFinished, found: Read) -> Iterator[str]:
    """Say what of a completion the log does not say."""
    number, options = told.request.sequence, told.request.options
    prompt = found.inputs.get(number, ())
    truncated = max(len(prompt) - found.n_ctx, 0) if options.truncate else 0
    tokens = alone(told.request, prompt, found.n_ctx, told.n_sampled).tokens if prompt else ()
    due = {
        "text": told.text,
        "tokens": tokens,
        "finish_reason": finished.finish_reason,
        "stop": finished.stop,
        "seed": options.seed,
        "n_prompt": len(prompt),
        "n_cached": found.reused.get(number, 0),
        "n_truncated": truncated,
        "n_left_out": told.request.left_out,
        "n_sampled": told.n_sampled,
        "n_shifts": found.n_shifts[number],
    }
    for name, expected in due.items():
        if expected != getattr(got, name):
            yield f"its caller got {name} {getattr(got, name)!r}, by the log it is {expected!r}"
    if [one.token for one in got.logprobs] != list(tokens if options.logprobs else ()):
        yield f"its caller got log-probabilities of {[one.token for one in got.logprobs]}, and {tokens} are its tokens"
    yield from _of_its_times(got.times)


def _of_its_times(times: Times) -> Iterator[str]:
    """Say where times cannot be."""
    queued, prefill, first_token = times.queued, times.prefill, times.first_token
    if any(time is not None and time < 0 for time in (queued, prefill, first_token, times.generation, times.total)):
        yield f"something took less than no time: {times}"
    if queued is None or prefill is None or first_token is None:
        return
    if abs(queued + prefill - first_token) > _A_MOMENT:
        yield f"until its first token it was queued, and then filled in, and that is another time: {times}"


def _of_its_chunks(end: End, got: Completion) -> Iterator[str]:
    """Say where what was read, chunk by chunk, is not the completion, or not its beginning."""
    if end.chunks is None:
        return
    text = "".join(chunk.text for chunk in end.chunks)
    tokens = tuple(token for chunk in end.chunks for token in chunk.tokens)
    logprobs = tuple(one for chunk in end.chunks for one in chunk.logprobs)
    if end.how == "read":
        whole = (text, tokens, logprobs) == (got.text, got.tokens, got.logprobs)
    else:
        whole = got.text.startswith(text) and got.tokens[: len(tokens)] == tokens
    if not whole:
        yield f"it was read as {(text, tokens)}, and is {(got.text, got.tokens)}"


def _of_its_time(end: End, told: SequenceText, found: Read, jumped: float) -> Iterator[str]:
    """Say where a deadline came too soon or too late after it was asked for; the clock may have jumped over it."""
    came, *later = found.times[told.request.sequence]
    deadline = told.request.options.deadline
    if deadline is None or not later:
        return
    took = later[-1] / 1e9 - end.asked
    if told.end is not None and told.end.finish_reason == "deadline" and took < deadline - _A_MOMENT:
        yield f"its deadline came after {took} seconds, and {deadline} were asked for"
    if took > max(deadline, came / 1e9 - end.asked) + jumped + _A_MOMENT:  # It may come before the request is ready.
        yield f"it ended after {took} seconds, and {deadline} were asked for"


def _of_its_text(told: SequenceText, found: Read) -> Iterator[str]:
    """Say what of its text does not follow from its inputs alone."""
    prompt = found.inputs.get(told.request.sequence)
    if prompt is None:
        if told.text:
            yield f"it said {told.text!r}, and its prompt was not tokenized"
        return
    begins = prompt[:1] == (BOS,)
    if begins != found.bos_added[told.request.sequence]:
        yield f"its inputs begin with {prompt[:1]}, and the log says of a BOS: {not begins}"
    expected = alone(told.request, prompt, found.n_ctx, told.n_sampled)
    stands_for = b"".join(map(bytes_of, prompt[begins:]))
    if stands_for != told.request.prompt.encode():
        yield f"its inputs stand for {stands_for!r}, and its prompt is {told.request.prompt!r}"
    if told.end is None:
        if not expected.text.startswith(told.text):
            yield f"alone it says {expected.text!r}, here it said {told.text!r}"
        return
    if (expected.text, expected.n_sampled) != (told.text, told.n_sampled):
        yield f"alone it says {expected.text!r} ({expected.n_sampled}), here {told.text!r} ({told.n_sampled})"
    ended_by = (told.end.finish_reason, told.end.stop)
    if ended_by[0] in {"stop", "length", "context_full"} and expected.ended_by != ended_by:
        yield f"alone it ends by {expected.ended_by}, here by {ended_by}"
