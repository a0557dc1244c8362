"""The Sequence actor handles one completion request, from its arrival to its one end.

It owns the text and the end of a request, asks the Batcher to evaluate inputs, and turns sampled tokens into text. The
rules (docs/runner-semantics.md section 2, "Admission", "Context shift", "Text", "Ends", "Cancelling", "Embeddings"):

* A sequence has exactly one `SequenceFinished`, and no event after it.
* A sampled token becomes exactly one of `TokenEmitted`, `StopMatched`, `EogSampled`.
* At most one input of a generating sequence is queued; a paused reader keeps it back.
* The inputs of a sequence never exceed the requested ``n_ctx``: a prompt is truncated, a full context is shifted.
"""

import math
from typing import Final

from attrs import evolve as changed
from attrs import frozen

from reenact.actors import events as e
from reenact.actors.errors import Failure, InternalError
from reenact.actors.header import ContextFacts
from reenact.actors.limits import BEYOND_CONTEXT, NUM_PREDICT_CONTEXTS
from reenact.actors.options import Options
from reenact.actors.routing import BATCHER
from reenact.actors.text import assemble, release
from reenact.actors.window import discarded, num_kept, truncated

_FAULTS: Final = {
    "nan": "its logits hold a NaN",
    "grammar": "the grammar allows none",
    "cost": "its grammar can be followed in too many ways",
    "engine": "the engine has none",
}


@frozen(kw_only=True)
class Sequence:
    """The state of a Sequence. It keeps only held-back bytes; the log and the reader have its text."""

    sequence: int
    request_id: str | None
    n_ctx: int
    """The most inputs that it may have; for an embedding no more than a batch holds."""
    options: Options
    embedding: bool = False
    n_prompt: int | None = None
    """The count of inputs in the original prompt; None until it is tokenized."""
    keep: int = 0
    """The count of inputs at the beginning that are never dropped."""
    length: int = 0
    """The count of its inputs: those of the prompt and of emitted tokens, less those that were dropped."""
    n_sampled: int = 0
    last_token: int | None = None
    held: bytes = b""
    held_by: tuple[int, ...] = ()
    reader_paused: bool = False
    paused: bool = False
    """Whether its next input is kept back."""
    finish_reason: e.FinishReason | None = None


def received(request: e.RequestReceived, context: ContextFacts) -> Sequence:
    """Return the state of a sequence that just arrived."""
    return Sequence(
        sequence=request.sequence,
        request_id=request.request_id,
        # A pooled text is never evaluated in chunks.
        n_ctx=min(context.n_ctx, context.n_batch) if request.embedding else context.n_ctx,
        options=request.options,
        embedding=request.embedding,
    )


def refuse(state: Sequence, fact: e.Event) -> str | None:
    """Return the reason why a fact is impossible now; None if it is not."""
    if isinstance(fact, e.PromptTokenized) and state.n_prompt is not None:
        return f"the prompt of sequence {state.sequence} was tokenized before"
    return None


def evolve(state: Sequence, event: e.Event) -> Sequence:
    """Return the state after one of the sequence's own events."""
    match event:
        case e.PromptTokenized():
            n_prompt = len(event.inputs)
            # A pooled text keeps its last token, which ends it; inputs before that one are left out.
            num_keep = -1 if state.embedding else state.options.num_keep
            keep = num_kept(num_keep, n_prompt, state.n_ctx, bos_added=event.bos_added)
            return changed(state, n_prompt=n_prompt, length=n_prompt, keep=keep)
        case e.PromptTruncated() | e.ContextShifted():
            return changed(state, length=state.length - event.discard)
        case e.TokenEmitted():
            return changed(
                state,
                n_sampled=event.index + 1,
                length=state.length + 1,
                last_token=event.token,
                held=event.held,
                held_by=event.held_by,
            )
        case e.StopMatched() | e.EogSampled():
            held = b"" if isinstance(event, e.StopMatched) else state.held
            return changed(state, n_sampled=event.index + 1, last_token=event.token, held=held)
        case e.SequenceForked():
            return changed(state, options=event.options)
        case e.ReaderPaused():
            return changed(state, reader_paused=True)
        case e.ReaderResumed():
            return changed(state, reader_paused=False)
        case e.SequencePaused():
            return changed(state, paused=True)
        case e.SequenceResumed():
            return changed(state, paused=False)
        case e.SequenceFinished():
            return changed(state, finish_reason=event.finish_reason, held=b"", held_by=(), paused=False)
        case e.CancelRequested() | e.DeadlineExpired() | e.PauseExpired() | e.TokenizeFailed() | e.EmbeddingComputed():
            return state
        case _:
            raise InternalError(f"{type(event).__name__} is not an event of a Sequence")


def decide(state: Sequence, event: e.Event) -> list[e.Event]:
    """Return the sequence's decisions on an event that it receives."""
    if state.finish_reason is not None:
        return []
    match event:
        case e.PromptTokenized():
            return _begin(state, event)
        case e.BatchDecoded():
            sampled = [_take(state, sample) for sample in event.samples if sample.sequence == state.sequence]
            pooled = [_pool(state, vector) for vector in event.vectors if vector.sequence == state.sequence]
            return next(iter(sampled + pooled), [])
        case e.ReaderResumed():
            return [e.SequenceResumed(sequence=state.sequence), _queue_last(state)] if state.paused else []
        case e.InputsDropped():
            return [_queue_last(state)]
        case e.CancelRequested():
            return [_finished(state, "cancelled")]
        case e.DeadlineExpired():
            return [_finished(state, "deadline")]
        case e.TokenizeFailed():
            reason = f"the prompt could not be tokenized: {event.error}"
            return [failed(state, Failure(kind="sequence_failed", reason=reason))]
        case e.RequestRejected() | e.RequestDisplaced() | e.BatchFailed() | e.EngineFailed():
            return [failed(state, event.failure)]
        case e.ActorFailed():
            if event.failed != BATCHER:
                return []
            return [failed(state, Failure(kind="internal_error", reason=f"{event.failed} raised {event.error}"))]
        case _:
            raise InternalError(f"a Sequence does not listen to {type(event).__name__}")


def _begin(state: Sequence, event: e.PromptTokenized) -> list[e.Event]:
    inputs = event.inputs
    field = "texts" if state.embedding else "prompt"
    if not inputs:
        return [failed(state, Failure(kind="invalid_request", field=field, reason="it has no tokens"))]
    discard = truncated(len(inputs), state.n_ctx)
    begun: list[e.Event] = []
    if discard:
        if not state.options.truncate:
            reason = f"it has {len(inputs)} tokens, and {BEYOND_CONTEXT} {state.n_ctx}"
            return [failed(state, Failure(kind="invalid_request", field=field, reason=reason))]
        begun.append(e.PromptTruncated(sequence=state.sequence, keep=state.keep, discard=discard))
        inputs = (*inputs[: state.keep], *inputs[state.keep + discard :])
    if state.embedding:
        return [*begun, e.InputQueued(sequence=state.sequence, inputs=inputs, wants=e.Pool())]
    if state.options.num_predict == 0:
        return [*begun, _finished(state, "length")]
    return [*begun, e.InputQueued(sequence=state.sequence, inputs=inputs, wants=e.Draw(0))]


def _pool(state: Sequence, vector: e.Vector) -> list[e.Event]:
    """Make the text's embedding from a vector, and end."""
    if not vector.values:
        reason = vector.reason or "the embedding has a value that is NaN or infinite"
        return [failed(state, Failure(kind="sequence_failed", reason=reason))]
    embedding = normalized(vector.values, state.options.dimensions)
    return [e.EmbeddingComputed(sequence=state.sequence, embedding=embedding), _finished(state, "stop")]


def _take(state: Sequence, sample: e.Sample) -> list[e.Event]:
    """Turn a sampled token into text, and continue or end."""
    index = sample.index
    if sample.fault is not None:
        reason = sample.reason or f"no token {index}: {_FAULTS[sample.fault]}"
        return [failed(state, Failure(kind="sequence_failed", reason=reason))]
    if sample.eog:
        return [
            e.EogSampled(sequence=state.sequence, index=index, token=sample.token),
            _finished(state, "stop", n_sampled=index + 1),
        ]
    assembled = assemble(state.held, state.held_by, sample.piece, state.options.stop)
    if assembled.stop is not None:
        return [
            e.StopMatched(
                sequence=state.sequence, index=index, token=sample.token, stop=assembled.stop, text=assembled.text
            ),
            _finished(state, "stop", stop=assembled.stop, n_sampled=index + 1, n_hidden=assembled.n_hidden, text=""),
        ]
    emitted = e.TokenEmitted(
        sequence=state.sequence,
        index=index,
        token=sample.token,
        text=assembled.text,
        held=assembled.held,
        held_by=assembled.held_by,
    )
    return [emitted, *_go_on(state, emitted)]


def _go_on(state: Sequence, emitted: e.TokenEmitted) -> list[e.Event]:
    """Return the next step after a token that is part of the text; the state is the one before it."""
    n_sampled, length = emitted.index + 1, state.length + 1
    if n_sampled == num_predicted(state.options.num_predict, state.n_ctx):
        return [_finished(state, "length", n_sampled=n_sampled, text=release(emitted.held))]
    if length > state.n_ctx and not state.options.shift:
        return [_finished(state, "context_full", n_sampled=n_sampled, text=release(emitted.held))]
    if state.reader_paused:
        return [e.SequencePaused(sequence=state.sequence)]
    return [_queue(state, emitted.token, n_sampled=n_sampled, length=length)]


def num_predicted(num_predict: int, n_ctx: int) -> int:
    """Return the most tokens that a request samples."""
    return num_predict if num_predict >= 0 else NUM_PREDICT_CONTEXTS * n_ctx


def _queue_last(state: Sequence) -> e.Event:
    """Queue the last token, which was kept back."""
    if state.last_token is None:
        raise InternalError(f"sequence {state.sequence} has sampled no token")
    return _queue(state, state.last_token, n_sampled=state.n_sampled, length=state.length)


def _queue(state: Sequence, token: int, *, n_sampled: int, length: int) -> e.Event:
    """Queue a token; if it would not fit, shift first, and queue it once the Batcher has dropped the inputs.

    Args:
        state: The state of the sequence; only fields that the token does not change count.
        token: The token.
        n_sampled: The count of sampled tokens, with this one.
        length: The count of inputs, with this one.
    """
    if length <= state.n_ctx:
        return e.InputQueued(sequence=state.sequence, inputs=(token,), wants=e.Draw(n_sampled))
    discard = discarded(state.n_ctx, state.keep, length - 1)
    return e.ContextShifted(sequence=state.sequence, keep=state.keep, discard=discard)


def failed(state: Sequence, failure: Failure) -> e.SequenceFinished:
    """Return the end of a sequence that cannot continue."""
    return _finished(state, "error", error=failure)


def _finished(
    state: Sequence,
    finish_reason: e.FinishReason,
    *,
    stop: str | None = None,
    text: str | None = None,
    n_sampled: int | None = None,
    n_hidden: int = 0,
    error: Failure | None = None,
) -> e.SequenceFinished:
    """Return the end of a sequence; by default its held text goes out with it."""
    return e.SequenceFinished(
        sequence=state.sequence,
        finish_reason=finish_reason,
        stop=stop,
        text=release(state.held) if text is None else text,
        n_prompt=state.n_prompt or 0,
        n_sampled=state.n_sampled if n_sampled is None else n_sampled,
        n_hidden=n_hidden,
        error=error,
    )


def normalized(values: tuple[float, ...], dimensions: int | None) -> tuple[float, ...]:
    """Return the first ``dimensions`` values, or all, divided by their Euclidean length."""
    first = values[:dimensions]
    # hypot() is exact or nearly so, and its intermediate values cannot overflow.
    length = math.hypot(*first)
    return tuple(value / length for value in first) if length else first
