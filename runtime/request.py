"""Holds a request that has not ended: the chunks on the way to its caller, and then its result.

The rules that hold here:

* The buffer of chunks has no limit of its own. Instead, the session pauses the sequence when more than ``max_lag``
  chunks are unread.
* A token is released with the chunk that completes its text. A token cut by a stop string is never released.
* What is released goes to the reader at once, or by way of an outbox, which waits for the disk. A chunk in the outbox
  counts as unread, so a slow disk pauses a sequence as a slow reader does.
"""

import math
from contextlib import suppress
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING

import trio

from reenact.actors import events as e
from reenact.actors.errors import InvalidRequest, error_of
from reenact.actors.metrics import Timeline, Times
from reenact.runtime.results import Chunk, Completion, Embedding, Logprob

if TYPE_CHECKING:
    from reenact.actors.inputs import Input
    from reenact.runtime.outbox import Outbox

Output = e.PromptTokenized | e.TokenEmitted | e.StopMatched | e.EmbeddingComputed
"""The events that a request carries out."""


class Request:
    """One request."""

    def __init__(self, request: e.RequestReceived, max_lag: float = math.inf, outbox: "Outbox | None" = None) -> None:
        self.sequence = request.sequence
        self.request_id = request.request_id
        self.options = request.options
        self.prompt = request.prompt
        self.embedding = request.embedding
        self._n_left_out = request.left_out
        self.inputs: tuple[Input, ...] = ()
        """The inputs of the whole prompt."""
        self.bos_added = False
        self.samples: list[e.Sample] = []
        """The tokens of the text, perhaps with some at the end that a stop string cut, and without an end-of-generation
        token."""
        self.ended = False
        """Whether it has finished, so that nothing more will be released."""
        self.result: Completion | Embedding | None = None
        """The result, once the reader may have it."""
        self.outbox = outbox
        """The way of what is released; None for at once."""
        self._n_held = 0
        """The count of chunks in the outbox."""
        self.reported = False
        """Whether its error was raised to the caller."""
        self.over = trio.Event()
        """Set once the reader has been given all chunks."""
        self.deadline = trio.CancelScope()
        self.pause = trio.CancelScope()
        """The time that its sequence may keep its slot while it is paused."""
        self._max_lag = max_lag
        self._paused = False
        self._error: Exception | None = None
        self._sampled: list[int] = []
        self._texts: list[str] = []
        self._cut = ""
        """The text before a stop string that was not released yet."""
        self._n_sent = 0
        self._embedding: tuple[float, ...] = ()
        self._send, self.chunks = trio.open_memory_channel[Chunk](math.inf)

    def sampled(self, sample: e.Sample) -> None:
        """Take a token that was drawn."""
        if sample.fault is None and not sample.eog:
            self.samples.append(sample)
            self._sampled.append(sample.token)

    def carry_out(self, event: Output) -> bool:
        """Carry out an event of this sequence, which the journal already contains.

        Returns:
            Whether the reader now lags too far behind.
        """
        match event:
            case e.PromptTokenized():
                self.inputs, self.bos_added = event.inputs, event.bos_added
            case e.TokenEmitted():
                self._release(event.text, event.index + 1 - len(event.held_by))
            case e.StopMatched():
                self._cut = event.text  # `SequenceFinished` follows, with the count of its tokens.
            case e.EmbeddingComputed():
                self._embedding = event.embedding
        if self._paused or self._unread() < self._max_lag:
            return False
        self._paused = True
        return True

    def read_from(self, token: int, max_lag: int) -> None:
        """Give the request a reader, which has the first ``token`` tokens of its text already.

        Raises:
            InvalidRequest: No chunk begins with that token; the error gives the nearest ones.
        """
        chunks: list[Chunk] = []
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                chunks.append(self.chunks.receive_nowait())
        begins = [0, *accumulate(len(chunk.tokens) for chunk in chunks)]
        self._refill(chunks[begins.index(token) :] if token in begins else chunks)
        if token not in begins:
            near = [*[one for one in begins if one < token][-1:], *[one for one in begins if one > token][:1]]
            reason = f"no chunk begins with token {token}: give {' or '.join(map(str, near))}"
            raise InvalidRequest("from_token", reason)
        self._max_lag, self._paused = max_lag, False

    def _refill(self, chunks: list[Chunk]) -> None:
        """Have these chunks, and no others, wait for the reader."""
        over = self.over.is_set()
        self._send, self.chunks = trio.open_memory_channel[Chunk](math.inf)
        for chunk in chunks:
            self._send.send_nowait(chunk)
        if over:
            self._send.close()

    def caught_up(self) -> bool:
        """Return whether a reader that lagged too far behind has read enough."""
        if not self._paused or self.ended or self._unread() > self._max_lag // 2:
            return False
        self._paused = False
        return True

    def finish(self, event: e.SequenceFinished, timeline: Timeline, times: Times) -> None:
        """Release the last text, and make the result."""
        matched = event.stop is not None
        n_visible = len(self.samples) - matched - event.n_hidden
        self._release(self._cut if matched else event.text, n_visible, last=True)
        if event.error is not None:
            self._error = error_of(event.error)
        self._end()
        result: Completion | Embedding
        if self.embedding:
            result = Embedding(
                sequence=self.sequence,
                embedding=self._embedding,
                n_prompt=event.n_prompt,
                n_truncated=timeline.n_truncated,
                times=times,
            )
        else:
            result = Completion(
                sequence=self.sequence,
                request_id=self.request_id,
                text="".join(self._texts),
                tokens=tuple(self._sampled[:n_visible]),
                logprobs=self._logprobs(0, n_visible),
                finish_reason=event.finish_reason,
                stop=event.stop,
                seed=self.options.seed,
                n_prompt=event.n_prompt,
                n_cached=timeline.n_cached,
                n_truncated=timeline.n_truncated,
                n_left_out=self._n_left_out,
                n_sampled=event.n_sampled,
                n_shifts=timeline.n_shifts,
                times=times,
            )
        if self.outbox is None:
            self._deliver_end(result)
        else:
            self.outbox.put(self, partial(self._deliver_end, result))

    def end_with(self, error: Exception) -> None:
        """Set the error that the reader gets when the sequence ends."""
        self._error = error

    def _end(self) -> None:
        self.ended = True
        self.deadline.cancel()
        self.pause.cancel()

    def _deliver_end(self, result: Completion | Embedding) -> None:
        self.result = result
        self.close()

    def close(self) -> None:
        """End the reader's iteration, whatever is still in the outbox."""
        self._end()
        self._send.close()
        self.over.set()

    def raise_if_failed(self) -> None:
        """Raise the request's error, if there is one."""
        if self._error is not None:
            self.reported = True
            raise self._error

    def _release(self, text: str, n_visible: int, *, last: bool = False) -> None:
        """Release text, with those of the first ``n_visible`` tokens that were not released before.

        Tokens without text wait for text, or for the end.
        """
        if not text and not (last and n_visible > self._n_sent):
            return
        self._texts.append(text)
        tokens = tuple(self._sampled[self._n_sent : n_visible])
        chunk = Chunk(text=text, tokens=tokens, logprobs=self._logprobs(self._n_sent, n_visible))
        if self.outbox is None:
            self._send.send_nowait(chunk)
        else:
            self._n_held += 1
            self.outbox.put(self, partial(self._deliver, chunk))
        self._n_sent = max(self._n_sent, n_visible)

    def _deliver(self, chunk: Chunk) -> None:
        self._n_held -= 1
        self._send.send_nowait(chunk)

    def _logprobs(self, start: int, end: int) -> tuple[Logprob, ...]:
        return tuple(
            Logprob(token=sample.token, piece=sample.piece, logprob=sample.logprob, top=sample.top)
            for sample in self.samples[start:end]
            if sample.logprob is not None
        )

    def _unread(self) -> int:
        return self._n_held + self._send.statistics().current_buffer_used
