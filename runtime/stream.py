"""Gives a caller its completion as it grows."""

from collections.abc import Callable

import trio

from reenact.runtime.request import Request
from reenact.runtime.results import Chunk, Completion


class Stream:
    """A completion as it grows: iterate over it for its chunks, in one task.

    Iteration ends when the sequence has finished.

    Raises:
        SequenceFailed, EngineBroken, LogBroken, InternalError: While iterating: the sequence failed.
        trio.ClosedResourceError: While iterating: the runtime was left meanwhile.
        trio.BusyResourceError: While iterating: another task reads this stream.
    """

    def __init__(self, live: Request, on_caught_up: Callable[[int], None]) -> None:
        self.sequence = live.sequence
        """The request's number in the session's log."""
        self.request_id = live.request_id
        self.options = live.options
        self.prompt = live.prompt
        """The text of the prompt, as the log has it."""
        self._live = live
        self._on_caught_up = on_caught_up
        self._reading = False

    @property
    def completion(self) -> Completion:
        """The result of the request, once it has ended, even if it was left or failed.

        Raises:
            RuntimeError: It has not ended yet.
            LogBroken, InternalError: The runtime broke before it ended.
        """
        if isinstance(self._live.result, Completion):
            return self._live.result
        if self._live.over.is_set():
            self._live.raise_if_failed()
        raise RuntimeError("the sequence has not ended yet: read the stream to its end, or leave its block")

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> Chunk:
        if self._reading:
            raise trio.BusyResourceError("another task reads this stream")
        self._reading = True
        try:
            chunk = await self._live.chunks.receive()
        except trio.EndOfChannel:
            self._live.raise_if_failed()
            raise StopAsyncIteration from None
        finally:
            self._reading = False
        if self._live.caught_up():
            self._on_caught_up(self.sequence)
        return chunk
