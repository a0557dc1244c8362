"""The Sequence actor: one completion request, from its arrival to its one end.

Owns the text and the end of a request. It asks the Batcher to evaluate inputs and turns sampled tokens into text. The
rules (docs/runner-semantics.md section 2, "Ends", "Text", "Cancelling"):

* Exactly one `SequenceFinished`; nothing follows it.
* A sampled token becomes exactly one of `TokenEmitted`, `StopMatched`, `EogSampled`.
* At most one input of a generating sequence is queued; a paused reader keeps it back.
* The cells of a sequence never exceed ``n_ctx``, as asked.
"""

from attrs import evolve as changed
from attrs import frozen

from reenact.actors import events as e
from reenact.actors.errors import InternalError
from reenact.actors.options import Options
from reenact.actors.routing import BATCHER
from reenact.actors.text import assemble, release


@frozen(kw_only=True)
class Sequence:
    """What a Sequence knows. Its text is in the log and with its reader; only what is held back is kept."""

    sequence: int
    request_id: str | None
    n_ctx: int
    options: Options
    n_prompt: int | None = None
    """None until the prompt is tokenised."""
    n_sampled: int = 0
    last_token: int | None = None
    held: bytes = b""
    reader_paused: bool = False
    paused: bool = False
    """Its next input is kept back."""
    finish_reason: e.FinishReason | None = None


def received(request: e.RequestReceived, n_ctx: int) -> Sequence:
    """Return the state of a sequence that just arrived."""
    return Sequence(sequence=request.sequence, request_id=request.request_id, n_ctx=n_ctx, options=request.options)


def evolve(state: Sequence, event: e.Event) -> Sequence:
    """Return the state after one of the sequence's own events."""
    match event:
        case e.PromptTokenized():
            if state.n_prompt is not None:
                raise InternalError(f"the prompt of sequence {state.sequence} was tokenised before")
            return changed(state, n_prompt=len(event.tokens))
        case e.TokenEmitted():
            return changed(state, n_sampled=event.index + 1, last_token=event.token, held=event.held)
        case e.StopMatched() | e.EogSampled():
            held = b"" if isinstance(event, e.StopMatched) else state.held
            return changed(state, n_sampled=event.index + 1, last_token=event.token, held=held)
        case e.ReaderPaused():
            return changed(state, reader_paused=True)
        case e.ReaderResumed():
            return changed(state, reader_paused=False)
        case e.SequencePaused():
            return changed(state, paused=True)
        case e.SequenceResumed():
            return changed(state, paused=False)
        case e.SequenceFinished():
            return changed(state, finish_reason=event.finish_reason, held=b"", paused=False)
        case e.CancelRequested() | e.TokenizeFailed():
            return state
        case _:
            raise InternalError(f"{type(event).__name__} is not an event of a Sequence")


def decide(state: Sequence, event: e.Event) -> list[e.Event]:
    """Return what follows for this sequence from an event that it hears of."""
    if state.finish_reason is not None:
        return []
    match event:
        case e.PromptTokenized():
            return _begin(state, event)
        case e.BatchDecoded():
            mine = [sample for sample in event.samples if sample.sequence == state.sequence]
            return _take(state, mine[0]) if mine else []
        case e.ReaderResumed():
            if not state.paused or state.last_token is None:
                return []
            return [e.SequenceResumed(sequence=state.sequence), _queue(state, state.last_token, state.n_sampled)]
        case e.CancelRequested():
            return [_finished(state, "cancelled")]
        case e.TokenizeFailed():
            reason = f"the prompt could not be tokenised: {event.error}"
            return [failed(state, e.Failure(kind="sequence_failed", reason=reason))]
        case e.RequestRejected() | e.BatchFailed() | e.EngineFailed():
            return [failed(state, event.failure)]
        case e.ActorFailed():
            if event.failed != BATCHER:
                return []
            return [failed(state, e.Failure(kind="internal_error", reason=f"{event.failed} raised {event.error}"))]
        case _:
            raise InternalError(f"a Sequence does not listen to {type(event).__name__}")


def _begin(state: Sequence, event: e.PromptTokenized) -> list[e.Event]:
    if not event.tokens:
        return [failed(state, e.Failure(kind="invalid_request", field="prompt", reason="it has no tokens"))]
    if len(event.tokens) > state.n_ctx:
        reason = f"it has {len(event.tokens)} tokens, and the context of a sequence (n_ctx) holds {state.n_ctx}"
        return [failed(state, e.Failure(kind="invalid_request", field="prompt", reason=reason))]
    if state.options.num_predict == 0:
        return [_finished(state, "length")]
    return [e.InputQueued(sequence=state.sequence, tokens=event.tokens, draw=0)]


def _take(state: Sequence, sample: e.Sample) -> list[e.Event]:
    """Turn a sampled token into text, and go on or end."""
    index = state.n_sampled
    if sample.nan:
        reason = f"the logits for token {index} hold a NaN"
        return [failed(state, e.Failure(kind="sequence_failed", reason=reason))]
    if sample.eog:
        return [
            e.EogSampled(sequence=state.sequence, index=index, token=sample.token),
            _finished(state, "stop", n_sampled=index + 1, text=release(state.held)),
        ]
    assembled = assemble(state.held, sample.piece, state.options.stop)
    if assembled.stop is not None:
        return [
            e.StopMatched(
                sequence=state.sequence, index=index, token=sample.token, stop=assembled.stop, text=assembled.text
            ),
            _finished(state, "stop", stop=assembled.stop, n_sampled=index + 1, text=""),
        ]
    emitted = e.TokenEmitted(
        sequence=state.sequence, index=index, token=sample.token, text=assembled.text, held=assembled.held
    )
    return [emitted, _go_on(state, emitted)]


def _go_on(state: Sequence, emitted: e.TokenEmitted) -> e.Event:
    """Decide what follows a token that is part of the text."""
    n_sampled = emitted.index + 1
    if n_sampled == state.options.num_predict:
        return _finished(state, "length", n_sampled=n_sampled, text=release(emitted.held))
    # The token would take the cell at this position; positions count from 0.
    position = (state.n_prompt or 0) + emitted.index
    if position >= state.n_ctx:
        return _finished(state, "context_full", n_sampled=n_sampled, text=release(emitted.held))
    if state.reader_paused:
        return e.SequencePaused(sequence=state.sequence)
    return _queue(state, emitted.token, n_sampled)


def _queue(state: Sequence, token: int, draw: int) -> e.InputQueued:
    return e.InputQueued(sequence=state.sequence, tokens=(token,), draw=draw)


def failed(state: Sequence, failure: e.Failure) -> e.SequenceFinished:
    """Return the end of a sequence that cannot go on."""
    return _finished(state, "error", error=failure)


def _finished(
    state: Sequence,
    finish_reason: e.FinishReason,
    *,
    stop: str | None = None,
    text: str | None = None,
    n_sampled: int | None = None,
    error: e.Failure | None = None,
) -> e.SequenceFinished:
    """Return the end; text that is held goes out with it unless the caller of this function says otherwise."""
    return e.SequenceFinished(
        sequence=state.sequence,
        finish_reason=finish_reason,
        stop=stop,
        text=release(state.held) if text is None else text,
        n_prompt=state.n_prompt or 0,
        n_sampled=state.n_sampled if n_sampled is None else n_sampled,
        error=error,
    )
