"""Sends the response to one request, with its headers and its line in the access log.

The rules that hold here:

* One task makes an answer, from its first token to its last byte. A second task waits for the client to hang up, and
  then cancels the answer at any stage: in the queue, in a prefill, in the stream.
* The head is not sent before there is something to send. So a failure before the first token has its real status, in a
  stream too.
* Each response names its request and its recording: ``x-request-id``, and once they are known ``x-reenact-session`` and
  ``x-reenact-sequence``.
"""

import re
import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import orjson
import structlog
import trio
from attrs import Factory, define
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reenact.actors.errors import InvalidRequest, ReenactError
from reenact.actors.options import check_traceparent
from reenact.runtime.terminal import visible

JSON: Final = "application/json"
PLAIN: Final = "text/plain"
NDJSON: Final = "application/x-ndjson"
SSE: Final = "text/event-stream"

REQUEST_ID: Final = "x-request-id"
SESSION: Final = "x-reenact-session"
SEQUENCE: Final = "x-reenact-sequence"
TRACEPARENT: Final = "traceparent"

_TRACE: Final = "reenact.trace"
_USABLE_ID: Final = re.compile(r"(?!-)[!-~]{1,128}")
"""A client's id that is valid in a header and on a command line, where it is no flag; any other one is replaced."""
_MOST_SEQUENCES: Final = 64
"""The most sequence numbers in a header; an embedding call has one for each text."""
_HUNG_UP: Final = 499
"""The status in the access log if the client left before there was a head; nginx's number."""


@define
class Trace:
    """The known facts about one request."""

    request_id: str
    traceparent: str | None = None
    session: str | None = None
    sequences: list[int] = Factory(list)
    finish_reason: str | None = None
    status: int = _HUNG_UP

    def recorded(self, session: str, sequences: Iterable[int]) -> None:
        """Note the session and the sequences of the recording."""
        self.session = session
        self.sequences = list(sequences)

    def names(self) -> dict[str, Any]:
        """Return the caller's names for the request, as arguments for a runtime."""
        return {"request_id": self.request_id, "traceparent": self.traceparent}

    def headers(self) -> dict[str, str]:
        """Return the response headers for it."""
        told = {REQUEST_ID: self.request_id}
        if self.session is not None:
            told[SESSION] = self.session
        if self.sequences:
            told[SEQUENCE] = ",".join(map(str, self.sequences[:_MOST_SEQUENCES]))
        return told


def new_request_id() -> str:
    """Return an id for a request that has none of its own."""
    return f"req-{secrets.token_hex(8)}"


def trace_of(scope: Scope) -> Trace:
    """Return the trace of a request."""
    trace: Trace = scope[_TRACE]
    return trace


class Tracing:
    """The outermost layer of the application: gives each request an id, and writes a line for it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        asked = headers.get(REQUEST_ID, "")
        name = asked if _USABLE_ID.fullmatch(asked) else new_request_id()
        trace = Trace(name, _traceparent(headers.getlist(TRACEPARENT)))
        scope[_TRACE] = trace

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                trace.status = message["status"]
                MutableHeaders(scope=message).update(trace.headers())
            await send(message)

        begun = trio.current_time()
        try:
            await self._app(scope, receive, sending)
        finally:
            _tell(scope, trace, trio.current_time() - begun)


def _traceparent(given: list[str]) -> str | None:
    """Return a request's place in a trace; W3C Trace Context wants a wrong one ignored, and so are several."""
    try:
        return check_traceparent(given[0].strip()) if len(given) == 1 else None
    except InvalidRequest:
        return None


def _tell(scope: Scope, trace: Trace, seconds: float) -> None:
    """Write the line of an access, if structlog is configured; unprintable characters of the client are escaped."""
    if structlog.is_configured():
        structlog.get_logger("reenact.http").info(
            "HTTP",
            method=visible(scope["method"]),
            path=visible(scope["path"]),
            status=trace.status,
            seconds=round(seconds, 3),
            request_id=trace.request_id,
            session=trace.session,
            sequence=",".join(map(str, trace.sequences)) or None,
            finish_reason=trace.finish_reason,
        )


class Outgoing:
    """A response that is being sent, whole or in parts."""

    def __init__(self, trace: Trace, send: Send) -> None:
        self.trace = trace
        self._send = send
        self._started = False
        self._ending = False

    async def whole(self, value: Any) -> None:
        """Send a value as JSON."""
        body = orjson.dumps(value, option=orjson.OPT_UTC_Z)
        await self._start(JSON, [("content-length", str(len(body)))])
        self._ending = True
        await self._send({"type": "http.response.body", "body": body})

    async def part(self, kind: str, body: bytes) -> None:
        """Send a part of a stream, and the head before the first one."""
        if not self._started:
            await self._start(kind, [("cache-control", "no-cache")])
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self) -> None:
        """End a stream."""
        self._ending = True
        await self._send({"type": "http.response.body", "body": b""})

    @property
    def ending(self) -> bool:
        """Whether the last part is being sent."""
        return self._ending

    @property
    def started(self) -> bool:
        """Whether the head was sent."""
        return self._started

    async def _start(self, kind: str, headers: list[tuple[str, str]]) -> None:
        self._started = True
        told = [(name.encode(), value.encode()) for name, value in [("content-type", kind), *headers]]
        await self._send({"type": "http.response.start", "status": 200, "headers": told})


Answering = Callable[[Outgoing], Awaitable[None]]


class Reply(Response):
    """An answer that is made while it is sent.

    Args:
        work: The function that makes and sends it.
        failed: The function that makes an error the last part of a stream; None if the answer is not a stream.
        kind: The content type of a stream.
    """

    def __init__(
        self, work: Answering, *, kind: str = JSON, failed: Callable[[Exception], bytes] | None = None
    ) -> None:
        super().__init__()
        self._work = work
        self._kind = kind
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; an error before the head is raised, and the caller answers it."""
        out = Outgoing(trace_of(scope), send)
        error: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_hang_up, receive, out, nursery.cancel_scope)
            try:
                await self._work(out)
            except (ReenactError, trio.ClosedResourceError) as raised:
                error = raised  # A nursery would wrap it in a group.
            if error is not None and out.started and self._failed is not None:
                await out.part(self._kind, self._failed(error))
                await out.end()
                error = None
            nursery.cancel_scope.cancel()
        if error is not None:
            raise error


async def _hang_up(receive: Receive, out: Outgoing, scope: trio.CancelScope) -> None:
    """Cancel ``scope`` when the client is gone.

    Hypercorn reports that while it sends the last part, too; cancelling it then would leave the connection open.
    """
    while (await receive())["type"] != "http.disconnect":
        pass
    if not out.ending:
        scope.cancel()
