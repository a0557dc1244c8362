"""What must hold of a simulated session, found out from its log and from what its callers got.

The rules that hold here:

* The log replays the same, keeps every rule of ``replay check``, and is closed unless it could not be written.
* Every request ended once for its caller, as the log says.
* Every text is what its sequence's inputs alone lead to (`alone`): that is told by the rules of
  docs/runner-semantics.md section 2, without actors, batches and slots.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import frozen

from reenact.actors import events as e
from reenact.actors.errors import error_of
from reenact.actors.inputs import Input
from reenact.replay import replay_log
from reenact.replay.checked import check_log
from reenact.replay.fold import entries
from reenact.replay.texts import Texts, Told
from reenact.runtime.journal import LogFile
from reenact.runtime.scripted import PIECES, Special, drawn, row_of
from tests.simulation.world import End, Ran

_LEFT = {"left", "cancelled"}
"""Ends that a caller made himself; the sequence may have come to its own end just before."""

_FIRST_TOKEN: Final = 257
"""Of the pieces, in a `ScriptedEngine`."""


@frozen(kw_only=True)
class Alone:
    """What a request leads to that has a context for itself."""

    text: str
    n_sampled: int
    ended_by: tuple[str | None, str | None]
    """The reason and the stop string; None where it was not over."""


@frozen(kw_only=True)
class Read:
    """What there is in a log."""

    told: dict[str, Told]
    """Each sequence, by the name of its request."""
    inputs: dict[int, tuple[Input, ...]]
    """Of the prompts."""
    n_ctx: int
    closed: bool
    unsure: frozenset[int]
    """Sequences whose end may not have been told: it stands in the fact at which the log broke off."""
    kinds: Counter[str]
    """How many records there are of each type."""


def read(path: Path) -> Read:
    """Read a log."""
    texts, inputs, kinds, n_ctx = Texts(), {}, Counter[str](), 0
    last_ended: set[int] = set()
    with LogFile(path) as log:
        for entry in entries(log):
            event = entry.record.event
            kinds[type(event).__name__] += 1
            texts.add(entry)
            if entry.record.cause is None:
                last_ended.clear()
            if isinstance(event, e.SequenceFinished):
                last_ended.add(event.sequence)
            if isinstance(event, e.PromptTokenized):
                inputs[event.sequence] = event.inputs
            elif isinstance(event, e.SessionOpened):
                n_ctx = event.context.n_ctx
    told = {str(told.request.request_id): told for told in texts.all()}
    closed = bool(kinds["SessionClosed"])
    unsure = frozenset(() if closed else last_ended)
    return Read(told=told, inputs=inputs, n_ctx=n_ctx, closed=closed, unsure=unsure, kinds=kinds)


def alone(request: e.RequestReceived, prompt: tuple[Input, ...], n_ctx: int, n_tokens: int) -> Alone:
    """Generate what a request leads to, ``n_tokens`` tokens at most; held text goes out at the end."""
    options = request.options
    keep = min(len(prompt) if options.num_keep < 0 else options.num_keep, n_ctx - 1)
    inputs = [*prompt[:keep], *prompt[keep + max(len(prompt) - n_ctx, 0) :]]
    most = 10 * n_ctx if options.num_predict < 0 else options.num_predict
    data, index = b"", 0
    reason: str | None = "length" if most == 0 else None
    stop: str | None = None
    while reason is None and index < n_tokens:
        piece = drawn(PIECES, row_of(inputs), index, options)
        index += 1
        if isinstance(piece, Special):
            reason = "stop"
            break
        data += piece.encode() if isinstance(piece, str) else piece
        found = [(data.find(one.encode()) + len(one.encode()), data.find(one.encode()), one) for one in options.stop]
        matched = min((one for one in found if one[1] >= 0), default=None)
        if matched is not None:
            data, stop, reason = data[: matched[1]], matched[2], "stop"
            break
        inputs.append(_FIRST_TOKEN + PIECES.index(piece))
        if index == most:
            reason = "length"
        elif len(inputs) > n_ctx and not options.shift:
            reason = "context_full"
        elif len(inputs) > n_ctx:
            del inputs[keep : keep + max((n_ctx - keep) // 2, 1)]
    return Alone(text=data.decode(errors="replace"), n_sampled=index, ended_by=(reason, stop))


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
    if found.closed != (ran.sky.room is None or ran.log.stat().st_size < ran.sky.room):
        yield f"the log is {'closed' if found.closed else 'not closed'}, and there was room for {ran.sky.room} bytes"
    for name in sorted(ran.ends.keys() | found.told.keys()):
        ends = ran.ends.get(name, [])
        if len(ends) != 1:
            yield f"{name} ended {len(ends)} times"
        for end in ends:
            yield from (f"{name}: {what}" for what in _of_its_end(end, found.told.get(name), found))
    for name, told in found.told.items():
        yield from (f"{name}: {what}" for what in _of_its_text(told, found))


def _of_its_end(end: End, told: Told | None, found: Read) -> Iterator[str]:
    """Say what its caller got that the log does not say."""
    finished = None if told is None else told.end
    if told is None:
        allowed = {*_LEFT, "ClosedResourceError", "LogBroken"}
    elif finished is None:
        allowed = {*_LEFT, "LogBroken"}
    elif finished.error is not None:
        allowed = {*_LEFT, type(error_of(finished.error)).__name__}
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
    if end.completion is None or told is None or finished is None:
        if end.how == "read":
            yield "it was read to its end, and there is none"
        return
    got = (end.completion.text, end.completion.finish_reason, end.completion.stop)
    if got != (told.text, finished.finish_reason, finished.stop):
        yield f"its caller got {got}, the log has {(told.text, finished.finish_reason, finished.stop)}"


def _of_its_text(told: Told, found: Read) -> Iterator[str]:
    """Say what of its text does not follow from its inputs alone."""
    prompt = found.inputs.get(told.request.sequence)
    if prompt is None:
        if told.text:
            yield f"it said {told.text!r}, and its prompt was not tokenised"
        return
    expected = alone(told.request, prompt, found.n_ctx, told.n_sampled)
    if told.end is None:
        if not expected.text.startswith(told.text):
            yield f"alone it says {expected.text!r}, here it said {told.text!r}"
        return
    if (expected.text, expected.n_sampled) != (told.text, told.n_sampled):
        yield f"alone it says {expected.text!r} ({expected.n_sampled}), here {told.text!r} ({told.n_sampled})"
    ended_by = (told.end.finish_reason, told.end.stop)
    if ended_by[0] in {"stop", "length", "context_full"} and expected.ended_by != ended_by:
        yield f"alone it ends by {expected.ended_by}, here by {ended_by}"
