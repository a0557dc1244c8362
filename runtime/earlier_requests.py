"""Restores the requests of a session that another process left: what their callers had not read is theirs to ask for.

The rules that hold here:

* A request has no reader until a caller asks for it by its number or id, and it goes on without one.
* A caller gives the count of tokens that it has; it gets the chunks from that token on, and then the rest.
* Requests that have ended are kept as well, the latest `MOST_ENDED` of them, until a caller asks for them.
"""

from collections.abc import Mapping
from typing import Final

from reenact.actors import events as e
from reenact.actors.errors import InvalidRequest, shown
from reenact.actors.inputs import Row, rows_of
from reenact.actors.metrics import Timeline, times
from reenact.runtime.request import Request

MOST_ENDED: Final = 1024


class EarlierRequests:
    """The requests of earlier processes, restored from the records of a log."""

    def __init__(self) -> None:
        self.live: dict[int, Request] = {}
        self.received: dict[int, e.RequestReceived] = {}
        """The facts by which those that are live were asked."""
        self.rows: dict[int, tuple[Row, ...]] = {}
        """The rows in their prompts."""
        self._unclaimed: dict[int, Request] = {}
        self._ended: list[int] = []

    def add(self, event: e.Event, t: int, timelines: Mapping[int, Timeline]) -> None:
        """Add a record of an earlier process.

        Args:
            event: The event.
            t: When it happened, in nanoseconds since the session opened.
            timelines: The times of the events of each request.
        """
        match event:
            case e.RequestReceived():
                self.live[event.sequence] = self._unclaimed[event.sequence] = Request(event)
                self.received[event.sequence] = event
            case e.BatchDecoded():
                for sample in event.samples:
                    if sample.sequence in self.live:
                        self.live[sample.sequence].sampled(sample)
            case e.SequenceFinished():
                timeline = timelines[event.sequence]
                self.live.pop(event.sequence).finish(event, timeline, times(timeline, t))
                del self.received[event.sequence]
                self.rows.pop(event.sequence, None)
                self._keep(event.sequence)
            case e.PromptTokenized() | e.TokenEmitted() | e.StopMatched() | e.EmbeddingComputed() if (
                event.sequence in self.live
            ):
                self.live[event.sequence].carry_out(event)
                if isinstance(event, e.PromptTokenized) and (rows := tuple(rows_of(event.inputs))):
                    self.rows[event.sequence] = rows
            case _:
                pass

    def _keep(self, sequence: int) -> None:
        self._ended.append(sequence)
        if len(self._ended) > MOST_ENDED:
            self._unclaimed.pop(self._ended.pop(0), None)

    def named(self, name: int | str) -> list[Request]:
        """Return the requests with this number or id that no caller has asked for, the latest first."""
        return [one for one in reversed(self._unclaimed.values()) if name in (one.sequence, one.request_id)]

    def claim(self, name: int | str, from_token: int, max_lag: int) -> Request:
        """Give a request to its reader.

        Args:
            name: The number or id of the request.
            from_token: The count of tokens that the reader has already.
            max_lag: The most chunks that the reader may leave unread.

        Raises:
            InvalidRequest: There is no such request, or no chunk begins with that token.
        """
        found = self.named(name)
        if not found:
            reason = f"no request {shown(name)} from before the session was resumed waits for a reader"
            raise InvalidRequest("request", reason)
        live = found[0]
        live.read_from(from_token, max_lag)
        del self._unclaimed[live.sequence]
        return live

    async def all_ended(self) -> None:
        """Wait until all of them have ended."""
        for one in list(self._unclaimed.values()):
            await one.over.wait()
