"""What a caller holds of a request: its text as it grows, and what came of it.

A `Stream` is read by one task. It buffers chunks without bound, but tells the runtime how far its reader lags, and the
runtime pauses the sequence: that is the bound.
"""

import math
from collections.abc import Callable

import trio
from attrs import frozen

from reenact.actors import events as e
from reenact.actors.errors import error_of


@frozen(kw_only=True)
class Chunk:
    """Text that became final with one token, or with the end."""

    text: str


@frozen(kw_only=True)
class Completion:
    """What came of a request."""

    sequence: int
    """Its number in the session's log."""
    request_id: str | None
    text: str
    tokens: tuple[int, ...]
    """Tokens sampled, without an end-of-generation token."""
    finish_reason: e.FinishReason
    stop: str | None
    """The stop string that ended it; None with reason "stop" means an end-of-generation token."""
    seed: int
    n_prompt: int
    """Tokens of the prompt."""
    n_sampled: int
    """Tokens sampled, an end-of-generation token included."""


class Stream:
    """A completion as it grows: iterate over it for its chunks.

    Iteration ends when the sequence has finished.

    Raises:
        SequenceFailed, EngineBroken, LogBroken, InternalError: While iterating: how the sequence ended.
        trio.ClosedResourceError: While iterating: the runtime was left meanwhile.
        trio.BusyResourceError: While iterating: another task reads this stream.
    """

    def __init__(
        self,
        request: e.RequestReceived,
        max_lag: int,
        on_lag: Callable[[int], None],
        on_caught_up: Callable[[int], None],
    ) -> None:
        self.sequence = request.sequence
        """The request's number in the session's log."""
        self.request_id = request.request_id
        self.options = request.options
        self._max_lag = max_lag
        self._on_lag = on_lag
        self._on_caught_up = on_caught_up
        self._paused = False
        self._reading = False
        self._completion: Completion | None = None
        self._error: Exception | None = None
        self._told = False
        self._texts: list[str] = []
        self._tokens: list[int] = []
        self._send, self._receive = trio.open_memory_channel[Chunk](math.inf)

    @property
    def completion(self) -> Completion:
        """What came of the request, once it has ended: also if it was left or failed.

        Raises:
            RuntimeError: It has not ended yet.
            LogBroken, InternalError: The runtime broke before it ended.
        """
        if self._completion is not None:
            return self._completion
        if self._ended:
            self._raise_if_failed()
        raise RuntimeError("the sequence has not ended yet: read the stream to its end, or leave its block")

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> Chunk:
        if self._reading:
            raise trio.BusyResourceError("another task reads this stream")
        self._reading = True
        try:
            chunk = await self._receive.receive()
        except trio.EndOfChannel:
            self._raise_if_failed()
            raise StopAsyncIteration from None
        finally:
            self._reading = False
        if self._paused and not self._ended and self._unread() <= self._max_lag // 2:
            self._paused = False
            self._on_caught_up(self.sequence)
        return chunk

    # ------------------------------------------------------------ the runtime's to call

    def _carry_out(self, event: e.TokenEmitted | e.StopMatched | e.SequenceFinished) -> None:
        """Release what an event of this sequence releases; the journal is written."""
        if event.text:
            self._texts.append(event.text)
            self._send.send_nowait(Chunk(text=event.text))
        if isinstance(event, e.SequenceFinished):
            self._finish(event)
            return
        self._tokens.append(event.token)
        if not self._paused and self._unread() >= self._max_lag:
            self._paused = True
            self._on_lag(self.sequence)

    def _finish(self, event: e.SequenceFinished) -> None:
        if event.error is not None:
            self._error = error_of(event.error)
        self._completion = Completion(
            sequence=self.sequence,
            request_id=self.request_id,
            text="".join(self._texts),
            tokens=tuple(self._tokens),
            finish_reason=event.finish_reason,
            stop=event.stop,
            seed=self.options.seed,
            n_prompt=event.n_prompt,
            n_sampled=event.n_sampled,
        )
        self._send.close()

    def _end_with(self, error: Exception) -> None:
        """Let the reader have ``error`` when the sequence ends."""
        self._error = error

    def _raise_if_failed(self) -> None:
        """Raise what the reader is to be told, if anything."""
        if self._error is not None:
            self._told = True
            raise self._error

    @property
    def _ended(self) -> bool:
        """Whether nothing comes any more."""
        return self._send.statistics().open_send_channels == 0

    def _unread(self) -> int:
        return self._send.statistics().current_buffer_used
