"""An application that is asked without a socket: by httpx, or by a client that hangs up."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import trio
from starlette.types import ASGIApp, Message

from reenact.runtime import Runtime
from reenact.runtime.http import app

CHAT = [{"role": "user", "content": "x"}]


@asynccontextmanager
async def client(runtime: Runtime, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Serve a runtime as the model "m"."""
    async with client_of(app({"m": runtime}, **settings)) as asking:
        yield asking


@asynccontextmanager
async def client_of(application: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    """Ask an application; what it raises beyond its responses comes here."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://localhost") as asking:
        yield asking


def lines(response: httpx.Response) -> list[dict[str, Any]]:
    """Return the parts of an NDJSON stream."""
    return [orjson.loads(line) for line in response.content.splitlines()]


def events(response: httpx.Response) -> list[dict[str, Any]]:
    """Return the events of a stream of OpenAI's, which ends as it should."""
    *before, last, nothing = response.text.split("\n\n")
    assert ("data: [DONE]", "") == (last, nothing)
    return [orjson.loads(one.removeprefix("data: ")) for one in before]


class Caller:
    """A client that can hang up.

    Args:
        application: What it asks.
        path: Where.
        body: What.
        headers: More headers.
    """

    def __init__(
        self, application: ASGIApp, path: str, body: dict[str, Any], *, headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        self._application = application
        self._path = path
        self._body: bytes | None = orjson.dumps(body)
        self._headers = headers
        self._gone = trio.Event()
        self.started = trio.Event()
        self.received: list[Message] = []

    async def __call__(self) -> None:
        """Ask, until it is answered or hangs up."""
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": self._path,
            "raw_path": self._path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": [(b"host", b"localhost"), *self._headers],
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
        }
        await self._application(scope, self._receive, self._send)

    @property
    def kept_body(self) -> bool:
        """Whether nobody asked for the body."""
        return self._body is not None

    def hang_up(self) -> None:
        """Leave."""
        self._gone.set()

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.received.append(message)
        if message["type"] == "http.response.body":
            self.started.set()
