"""Runs the server: takes connections, bounds them, and ends.

The rules that hold here:

* If there are `MAX_CONNECTIONS`, a new one replaces the one that has waited longest for a request or the rest of one;
  if none waits, the new one is turned away.
* After SIGTERM, Ctrl-C or the end of the terminal (SIGHUP) there are no new connections, those that wait are closed,
  and current answers have a grace time. Then the models and their logs are closed, which is an error to those clients
  that still wait, and what does not end by that is cancelled. A second signal ends the grace time.
"""

import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, cast

import trio
from attrs import frozen
from starlette.types import ASGIApp

from reenact.actors.errors import Overloaded, description
from reenact.runtime.http.application import app
from reenact.runtime.http.connection import Connection
from reenact.runtime.http.on_demand import ModelsOnDemand, ServedModel, Warn

GRACE_SECONDS: Final = 5.0
"""The time in which the server ends."""
LAST_SECONDS: Final = 0.5
"""The end of that time, in which answers that have not ended end with an error."""
MAX_CONNECTIONS: Final = 512
"""The most connections: half of the files that a process can usually open."""

_BACKLOG: Final = 128


@frozen(kw_only=True)
class Serving:
    """The served models, and the clients that may use them."""

    served: Sequence[ServedModel]
    keep_alive: float
    origins: Sequence[str]
    keys: Sequence[str]
    warn: Warn
    """Called with each warning."""


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        OSError: The address is not available.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


async def serve(
    serving: Serving, listener: socket.socket, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve until SIGTERM, Ctrl-C or the end of the terminal, in the main thread, which receives signals."""
    ends = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # As under nohup.
        ends.append(signal.SIGHUP)
    with trio.open_signal_receiver(*ends) as signals:
        await serve_until(serving, listener, cast("AsyncIterator[Any]", signals).__anext__, task_status=task_status)


async def serve_until(
    serving: Serving,
    listener: socket.socket,
    asked_to_end: Callable[[], Awaitable[Any]],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until the first signal to end, and stop at once at the second.

    Args:
        serving: The models, and the clients that may use them.
        listener: A socket that listens; it is closed here.
        asked_to_end: Returns at the next signal to end; it is called twice.
        task_status: Started once requests are answered.
    """
    ending = trio.Event()
    async with _held(serving) as models, trio.open_nursery() as nursery:

        async def watch() -> None:
            await asked_to_end()
            ending.set()
            await asked_to_end()
            nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        models.resume()
        application = app(models, origins=serving.origins, keys=serving.keys)

        async def answer_all(*, task_status: trio.TaskStatus[None]) -> None:
            await answer(application, listener, ending, warn=serving.warn, close=models.close, task_status=task_status)
            nursery.cancel_scope.cancel()

        await nursery.start(answer_all)
        task_status.started()


def _nothing() -> None:
    """Do nothing: the answers are cancelled."""


async def answer(
    application: ASGIApp,
    listener: socket.socket,
    ending: trio.Event,
    *,
    warn: Warn,
    close: Callable[[], None] = _nothing,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer requests with an application until ``ending`` is set and current answers have had their grace time.

    Args:
        application: The application.
        listener: A socket that listens; it is closed here.
        ending: Set when no more requests are taken.
        warn: Called with the description of an error that the application did not handle.
        close: Called when the grace time is nearly over; it ends the answers that have not ended.
        task_status: Started once requests are answered.
    """
    taken = _Taken(application, warn)
    async with trio.open_nursery() as nursery:
        async with (
            trio.SocketListener(trio.socket.from_stdlib_socket(listener)) as listening,
            trio.open_nursery() as taking,
        ):
            taking.start_soon(partial(trio.serve_listeners, taken.serve, [listening], handler_nursery=nursery))
            task_status.started()
            await ending.wait()
            taking.cancel_scope.cancel()
        nursery.cancel_scope.deadline = trio.current_time() + GRACE_SECONDS
        taken.end()
        with trio.move_on_after(GRACE_SECONDS - LAST_SECONDS):
            await taken.ended.wait()
        close()


class _Taken:
    """The connections that were taken.

    Args:
        application: The application that answers requests.
        warn: Called with the description of an error that the application did not handle.
    """

    def __init__(self, application: ASGIApp, warn: Warn) -> None:
        self._application = application
        self._warn = warn
        self._open: dict[Connection, None] = {}
        """The connections; of those that wait, the first has waited longest."""
        self._ends = False
        self.ended = trio.Event()
        """Set when the last connection has ended after `end`."""

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve a connection if there is room; the caller closes its stream."""
        one = Connection(stream)
        if len(self._open) >= MAX_CONNECTIONS and not self._makes_room():
            await one.refuse(Overloaded.status, "the server has as many connections as it takes: try again later")
            return
        self._open[one] = None
        try:
            await one.serve(self._application, lambda: self._waits_now(one))
        except Exception as error:  # noqa: BLE001  # an application may raise anything; other connections go on
            self._warn(f"a request failed: {description(error)}")
        finally:
            self._open.pop(one, None)
            if self._ends and not self._open:
                self.ended.set()

    def end(self) -> None:
        """Close the connections that wait; the others end with their answers."""
        self._ends = True
        if not self._open:
            self.ended.set()
        for one in self._open:
            one.is_last = True
            if one.waits:
                one.scope.cancel()

    def _makes_room(self) -> bool:
        """Close the connection that has waited longest; return whether there is one."""
        waiting = next((one for one in self._open if one.waits), None)
        if waiting is None:
            return False
        del self._open[waiting]
        waiting.scope.cancel()
        return True

    def _waits_now(self, one: Connection) -> None:
        """Put a connection behind those that wait already."""
        if self._open.pop(one, one) is None:
            self._open[one] = None


@asynccontextmanager
async def _held(serving: Serving) -> AsyncIterator[ModelsOnDemand]:
    """Open a nursery for the models, beside the block's own tasks; leaving the block closes all of them."""

    async def hold(*, task_status: trio.TaskStatus[ModelsOnDemand]) -> None:
        async with trio.open_nursery() as nursery:
            models = ModelsOnDemand(nursery, serving.served, keep_alive=serving.keep_alive, warn=serving.warn)
            task_status.started(models)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        yield await nursery.start(hold)
        nursery.cancel_scope.cancel()


def run(serving: Serving, listener: socket.socket) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises:
        OSError: The socket cannot be served.
    """
    with suppress(KeyboardInterrupt):  # It came before trio received signals, or after.
        trio.run(serve, serving, listener)
