"""Makes an engine's calls, in a thread of its own or in place.

`ComputeThread` is one thread for each runtime, started before the model is loaded, for all calls of its engine except
`Engine.compile`, which has a second such thread. llama.cpp gives every OS thread that decodes a team of OpenMP threads,
so calls must not move between threads (docs/llama-cpp.md section 4), and ``trio.to_thread.run_sync`` does not promise
a fixed thread. A call in progress cannot be cancelled: its caller waits for its end, or leaves it behind if allowed.

`InPlace` is for engines that do not compute: it makes the call in the calling task, so that time can be virtual.
"""

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Protocol, TypeVar, TypeVarTuple

import outcome
import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Compute(Protocol):
    """Makes calls one at a time, in the order of the requests for them."""

    async def run(self, call: Callable[[*Ts], T], *args: *Ts, may_leave: bool = False) -> T:
        """Make a call, wait for it, and return or raise its result.

        Args:
            call: The function to call.
            *args: Its arguments.
            may_leave: Whether a caller that is cancelled leaves at once. Then the result is dropped, and a call that
                has not begun is not made.
        """

    async def finish(self, last: Callable[[], None]) -> None:
        """Make a last call, even if the caller is cancelled, and no more after it."""


class ComputeThread:
    """One OS thread with a queue of calls."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # A daemon, so that a program that dies without leaving its runtime does not hang in a decode.
        self._thread = Thread(target=self._work, name="reenact compute", daemon=True)
        self._thread.start()

    async def run(self, call: Callable[[*Ts], T], *args: *Ts, may_leave: bool = False) -> T:
        """Make a call in the thread."""
        task = trio.lowlevel.current_task()
        trio_token = trio.lowlevel.current_trio_token()
        left = False

        def make() -> None:
            if not left:
                made = outcome.capture(call, *args)
                trio_token.run_sync_soon(answer, made)

        def answer(made: outcome.Outcome[T]) -> None:
            if not left:
                trio.lowlevel.reschedule(task, made)

        def abort(_: object) -> trio.lowlevel.Abort:
            nonlocal left
            left = may_leave
            return trio.lowlevel.Abort.SUCCEEDED if may_leave else trio.lowlevel.Abort.FAILED

        self._calls.put(make)
        returned: T = await trio.lowlevel.wait_task_rescheduled(abort)
        return returned

    async def finish(self, last: Callable[[], None]) -> None:
        """Make a last call and end the thread."""
        try:
            with trio.CancelScope(shield=True):
                await self.run(last)
        finally:
            self._calls.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (make := self._calls.get()) is not None:
            make()


class InPlace:
    """Makes calls in the calling task; other tasks get a turn before each call."""

    async def run(self, call: Callable[[*Ts], T], *args: *Ts, may_leave: bool = False) -> T:  # noqa: ARG002  # it may
        """Make a call here."""
        await trio.lowlevel.checkpoint()
        return call(*args)

    async def finish(self, last: Callable[[], None]) -> None:
        """Make a last call; no other task gets a turn before it."""
        last()
        await trio.lowlevel.cancel_shielded_checkpoint()
