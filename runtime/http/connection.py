"""Serves requests on one connection: HTTP/1.1 by h11, on trio, for an ASGI application.

The rules that hold here:

* A connection is one task, which can be cancelled at any moment, even while it sends. So no client holds up the end.
* Each wait for a client has a limit: for a request, for the rest of its head, and for the client to take what was sent.
  The application limits the time of a body.
* Once a client is gone, ``receive`` reports it, and sending to it cancels the application.
"""

import math
import os
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate
from typing import Any, Final
from urllib.parse import unquote

import h11
import orjson
import trio
from starlette.types import ASGIApp, Message

from reenact.actors.errors import Overloaded, cut
from reenact.runtime.http.exchange import JSON, REQUEST_ID, new_request_id
from reenact.runtime.http.failures import RETRY_SECONDS

IDLE_SECONDS: Final = 30.0
"""The time that a connection may be without a request."""
HEAD_SECONDS: Final = 10.0
"""The time in which the rest of a head must arrive."""
STALLED_SECONDS: Final = 5.0
"""The time in which a client must take a piece of what was sent."""

_PIECE: Final = 2**16
_MAX_HEAD_BYTES: Final = 2**14
_MAX_REASON: Final = 200
_LINGER_SECONDS: Final = 1.0
"""The time that a client has to read an answer that came before the end of its request."""
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)
_OF_BODIES: Final = (b"content-length", b"transfer-encoding")


class Connection:
    """One connection, and the request on it; it is a task, which can be cancelled at any moment."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.scope = trio.CancelScope()
        self._answering = trio.CancelScope()
        self.waits = True
        """Whether it waits for a request or the rest of one."""
        self.is_last = False
        """Whether no request may follow."""
        self._stream = stream
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)
        self._is_head = False
        self._unsent = b""

    async def serve(self, application: ASGIApp, answered: Callable[[], None]) -> None:
        """Answer requests until the client or the server ends the connection.

        Args:
            application: The application.
            answered: Called after each answer that another request may follow.
        """
        with self.scope:
            while (asked := await self._head()) is not None:
                with self._answering:
                    await application(asked, self.receive, self.send)
                if not self._next_cycle():
                    break
                answered()
            await self._linger()

    async def refuse(self, status: int, reason: str) -> None:
        """Answer a head that cannot be read, or a connection for which there is no room."""
        with suppress(*_GONE), trio.move_on_after(STALLED_SECONDS):
            await self._stream.send_all(_refusal(status, reason))

    async def _head(self) -> dict[str, Any] | None:
        """Wait for a request, and return its scope for ASGI; None if there is none."""
        begun = bool(self._http.trailing_data[0])
        with suppress(*_GONE), trio.move_on_after(HEAD_SECONDS if begun else IDLE_SECONDS) as limit:
            try:
                while (event := self._http.next_event()) is h11.NEED_DATA:
                    self._http.receive_data(await self._stream.receive_some(_MAX_HEAD_BYTES))
                    if not begun:
                        begun, limit.deadline = True, trio.current_time() + HEAD_SECONDS
            except h11.RemoteProtocolError as error:
                why = str(error).partition(": bytearray")[0]
                await self.refuse(error.error_status_hint, f"the request's head cannot be read: {why}")
                return None
            if isinstance(event, h11.Request):
                self._answering, self._is_head = trio.CancelScope(), event.method == b"HEAD"
                self.waits = any(name in _OF_BODIES and value != b"0" for name, value in event.headers)
                return _scope(event, self._stream.socket.getpeername(), self._stream.socket.getsockname())
        return None

    async def receive(self) -> Message:
        """Return the next part of the body; after the last one, wait until the client is gone."""
        with suppress(h11.RemoteProtocolError, *_GONE):
            while True:
                if self._http.they_are_waiting_for_100_continue:
                    await self._write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])))
                event = self._http.next_event()
                if isinstance(event, h11.Data):
                    return {"type": "http.request", "body": bytes(event.data), "more_body": True}
                if isinstance(event, h11.EndOfMessage):
                    self.waits = False
                    return {"type": "http.request", "body": b"", "more_body": False}
                if event is h11.PAUSED and len(self._http.trailing_data[0]) > _PIECE:
                    await trio.sleep_forever()  # Nothing is read beyond the first requests that came too early.
                if not (data := await self._stream.receive_some(_PIECE)):
                    break
                self._http.receive_data(data)
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Send a part of the response, and its head together with the first part."""
        if message["type"] == "http.response.start":
            headers = [*message["headers"], (b"date", formatdate(usegmt=True).encode())]
            headers += [(b"connection", b"close")] if self.is_last else []
            self._unsent = self._http.send(h11.Response(status_code=message["status"], headers=headers)) or b""
            return
        if not self._is_head:
            self._unsent += self._http.send(h11.Data(data=message.get("body", b""))) or b""
        if not message.get("more_body"):
            self._unsent += self._http.send(h11.EndOfMessage()) or b""
        data, self._unsent = self._unsent, b""
        await self._write(data)

    async def _write(self, data: bytes) -> None:
        """Send a part of an answer; if the client is gone, or takes nothing, the answering is cancelled."""
        try:
            # A token nearly always goes out at once, for a third of what trio's way would cost.
            at = self._at_once(data)
            while at < len(data):
                self._answering.deadline = trio.current_time() + STALLED_SECONDS
                await self._stream.send_all(data[at : at + _PIECE])
                at += _PIECE
        except _GONE:
            self._answering.cancel()
        finally:
            self._answering.deadline = math.inf
        await trio.lowlevel.checkpoint_if_cancelled()

    def _at_once(self, data: bytes) -> int:
        """Send as much as the system takes without waiting, and return its length."""
        try:
            return os.write(self._stream.socket.fileno(), data)
        except BlockingIOError:
            return 0

    def _next_cycle(self) -> bool:
        """Return whether the answer is complete and another request may come."""
        with suppress(h11.RemoteProtocolError):  # What has come of the body and was not read is dropped.
            while self._http.their_state is h11.SEND_BODY and self._http.next_event() is not h11.NEED_DATA:
                pass
        if self.is_last or self._http.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            return False
        self._http.start_next_cycle()
        self.waits = True
        return True

    async def _linger(self) -> None:
        """Let the client read what was sent, which closing at once could take from it."""
        with suppress(*_GONE), trio.move_on_after(_LINGER_SECONDS):
            await self._stream.send_eof()
            while await self._stream.receive_some(_PIECE):
                pass


def _refusal(status: int, reason: str) -> bytes:
    """Return a whole response, with the headers of any other and ollama's shape, because the path is not known."""
    body = orjson.dumps({"error": cut(reason, _MAX_REASON)})
    retry = f"retry-after: {RETRY_SECONDS}\r\n" if status == Overloaded.status else ""
    head = f"HTTP/1.1 {status} \r\ncontent-type: {JSON}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{retry}"
    return f"{head}{REQUEST_ID}: {new_request_id()}\r\ndate: {formatdate(usegmt=True)}\r\n\r\n".encode() + body


def _scope(request: h11.Request, client: tuple[Any, ...], server: tuple[Any, ...]) -> dict[str, Any]:
    target = request.target
    if not target.startswith(b"/"):  # The absolute form, with scheme and host.
        target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
    path, _, query = target.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.http_version.decode(),
        "method": request.method.decode(),
        "scheme": "http",
        "path": unquote(path.decode()),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": list(request.headers),
        "client": client[:2],
        "server": server[:2],
    }
