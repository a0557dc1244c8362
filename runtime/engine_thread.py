"""Where an engine's calls are made.

`ComputeThread` is one thread for each runtime, started before the model is loaded, for all calls of its engine but
`Engine.compile`, which has a thread of its own beside it:
llama.cpp gives every OS thread that decodes a team of OpenMP threads of its own, so calls must not move between
threads (docs/llama-cpp.md section 4), and ``trio.to_thread.run_sync`` does not promise a fixed one. A call that is
being made cannot be cancelled: whoever waits for it waits until it is done, or leaves it behind where it may.

`InPlace` is for engines that do not compute: the call is made where it is asked for, so that time can be virtual.
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
    """Makes calls one at a time, in the order in which they are asked for."""

    async def run(self, call: Callable[[*Ts], T], *args: *Ts, may_leave: bool = False) -> T:
        """Make a call and wait for what it returns or raises.

        Args:
            call: What to call.
            *args: What with.
            may_leave: Whether a caller that is cancelled leaves at once. Nobody hears of the call then, and if its turn
                has not come it is not made.
        """

    async def finish(self, last: Callable[[], None]) -> None:
        """Make a last call, whatever happens meanwhile, and no more."""


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
    """The calling task itself; others get a turn before each call."""

    async def run(self, call: Callable[[*Ts], T], *args: *Ts, may_leave: bool = False) -> T:  # noqa: ARG002  # it may
        """Make a call here."""
        await trio.lowlevel.checkpoint()
        return call(*args)

    async def finish(self, last: Callable[[], None]) -> None:
        """Make a last call; nobody gets a turn before it."""
        last()
        await trio.lowlevel.cancel_shielded_checkpoint()
