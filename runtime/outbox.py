"""Holds texts and ends back until the log that holds them is on the disk, for the durability "power".

The rules that hold here:

* Records are carried out as soon as they are written, so the engine computes the next batch while the disk works. Only
  callers wait: for a chunk, and for the end of a request with its result.
* One sync covers everything that was written before it began, however many facts that are; the next one begins after
  it.
* A thread makes the call, except where time may be virtual (`reenact.runtime.engine_thread`).
* After a sync that failed nothing is delivered any more, because it is not known what the disk has.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from reenact.runtime.engine_thread import Compute
from reenact.runtime.log.writer import Journal

if TYPE_CHECKING:
    from reenact.runtime.request import Request


class Outbox:
    """Deliveries that wait for the disk.

    Args:
        journal: The log.
        where: The thread for syncs.
    """

    def __init__(self, journal: Journal, where: Compute) -> None:
        self._journal = journal
        self._where = where
        self._waiting: deque[tuple[Request, Callable[[], None]]] = deque()
        self._send, self._receive = trio.open_memory_channel[None](1)

    def put(self, request: "Request", deliver: Callable[[], None]) -> None:
        """Make a call for a request once everything that was written so far is on the disk."""
        self._waiting.append((request, deliver))

    def written(self) -> None:
        """Take note that there is more to sync."""
        if not self._send.statistics().current_buffer_used and self._send.statistics().open_send_channels:
            self._send.send_nowait(None)

    async def run(self) -> None:
        """Sync and deliver, again and again, until `stop` was called and all was delivered.

        Raises:
            LogBroken: A sync failed.
        """
        async for _ in self._receive:
            await self.sync()

    async def sync(self) -> None:
        """Sync all that was written so far, and make the deliveries that waited for it.

        Raises:
            LogBroken: The log is closed, another process changed it, or it cannot be synced.
        """
        n_due = len(self._waiting)
        await self._where.run(self._journal.syncing())
        for _ in range(min(n_due, len(self._waiting))):
            _, deliver = self._waiting.popleft()
            deliver()

    def stop(self) -> None:
        """Let `run` end after what was written so far."""
        self._send.close()

    def drop(self) -> "list[Request]":
        """Deliver nothing any more, and return the requests that waited for something."""
        waited = list(dict.fromkeys(request for request, _ in self._waiting))
        self._waiting.clear()
        self._send.close()
        return waited
