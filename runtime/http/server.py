"""Runs the server: hypercorn on trio, over a socket that this module makes.

The rules that hold here:

* The kernel closes the connection of a client that reads nothing for `STALLED_SECONDS` (``TCP_USER_TIMEOUT``, on
  Linux). Hypercorn shields its sending, and would wait for such a client for ever, even at the end
  (docs/decisions/http.md).
* After SIGTERM or Ctrl-C there are no new connections, and current answers have a grace time; then everything is
  cancelled and the logs are closed. A second signal ends the grace time.
"""

import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, cast

import trio
from attrs import frozen
from hypercorn.config import Config
from hypercorn.trio import serve as hypercorn_serve
from starlette.types import ASGIApp

from reenact.runtime.http.application import app
from reenact.runtime.http.on_demand import ModelsOnDemand, ServedModel, Warn

GRACE_SECONDS: Final = 5.0
"""The time that current answers have when the server ends."""
STALLED_SECONDS: Final = 6
"""The time for which a client may read none of the bytes that were sent."""
IDLE_SECONDS: Final = 30.0
"""The time that a connection may be without a request, or with half a head: hypercorn has one limit for both."""

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
        if sys.platform == "linux":
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_SECONDS * 1000)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


async def serve(
    serving: Serving, listener: socket.socket, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve until SIGTERM or Ctrl-C; it must run in the main thread, which receives signals."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
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
        listener: A socket that listens; hypercorn closes it.
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
        application = app(models, origins=serving.origins, keys=serving.keys)

        async def answer_all(*, task_status: trio.TaskStatus[list[str]]) -> None:
            await answer(application, listener, ending, task_status=task_status)
            nursery.cancel_scope.cancel()

        await nursery.start(answer_all)
        task_status.started()


async def answer(
    application: ASGIApp,
    listener: socket.socket,
    ending: trio.Event,
    *,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer requests with an application until ``ending`` is set and current answers have had their grace time.

    Args:
        application: The application.
        listener: A socket that listens; hypercorn closes it.
        ending: Set when no more requests are taken.
        task_status: Started once requests are answered.
    """
    await hypercorn_serve(
        cast("Any", application), _config(listener), shutdown_trigger=ending.wait, mode="asgi", task_status=task_status
    )


@asynccontextmanager
async def _held(serving: Serving) -> AsyncIterator[ModelsOnDemand]:
    """Open a nursery for the models; leaving the block closes all of them."""
    async with trio.open_nursery() as nursery:
        yield ModelsOnDemand(nursery, serving.served, keep_alive=serving.keep_alive, warn=serving.warn)
        nursery.cancel_scope.cancel()


def _config(listener: socket.socket) -> Config:
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.graceful_timeout = GRACE_SECONDS
    config.keep_alive_timeout = cast("int", IDLE_SECONDS)
    config.include_server_header = False
    config.loglevel = "ERROR"
    return config


def run(serving: Serving, listener: socket.socket) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises:
        OSError: The socket cannot be served.
    """
    with suppress(KeyboardInterrupt):  # It came before trio received signals, or after.
        trio.run(serve, serving, listener)
