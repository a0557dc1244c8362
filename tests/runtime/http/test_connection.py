"""Connections on a loopback port: HTTP as clients write it, and clients that are slow in every way."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from starlette.types import ASGIApp, Receive, Scope, Send
from trio.testing import MockClock

from reenact.replay import replay_log
from reenact.runtime.http import server as server_module
from reenact.runtime.http.server import GRACE_SECONDS, answer, listening
from tests.helpers.serving import Server, post, scripted, serving, until
from tests.helpers.sessions import read_fields

N_SLOW = 10
RAW = {"model": "m", "prompt": "x", "raw": True}
HALF_HEAD = b"POST /api/generate HTTP/1.1\r\nHost: local"
HALF_BODY = b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{"


@pytest.fixture
def fast_clock() -> MockClock:
    """Return a clock on which 20 seconds pass in one."""
    return MockClock(rate=20)


@pytest.fixture
def slower_clock() -> MockClock:
    """Return a clock on which 4 seconds pass in one, for what the machine itself has a share in."""
    return MockClock(rate=4)


# ---------------------------------------------------------------- slow clients


async def begun(server: Server, *parts: bytes) -> list[trio.SocketStream]:
    """Return connections on each of which a part of a request was sent."""
    streams = []
    for part in parts:
        streams.append(await trio.open_tcp_stream("127.0.0.1", server.port))
        if part:
            await streams[-1].send_all(part)
    return streams


async def rest(stream: trio.SocketStream) -> bytes:
    """Return the bytes that come until the server closes a connection."""
    async with stream:
        return b"".join([part async for part in stream])


@pytest.mark.parametrize(("part", "status"), [(b"", b""), (HALF_HEAD, b""), (HALF_BODY, b"HTTP/1.1 408")])
async def test_half_a_request_is_not_waited_for(fast_clock: MockClock, part: bytes, status: bytes) -> None:
    """A client that sends nothing, half a head or half a body is left; others are answered meanwhile."""
    async with serving(scripted("m", None, ["a"])) as server, httpx.AsyncClient(base_url=server.url) as asking:
        slow = await begun(server, *[part] * N_SLOW)
        assert 200 == (await asking.post("/api/generate", json=RAW)).status_code
        for stream in slow:
            assert status == (await rest(stream))[:12]


LARGE = ["x" * 100_000] * 400


def n_cancelled(log: Path) -> int:
    """Return the count of cancels in a log."""
    return sum(fields["type"] == "CancelRequested" for fields in read_fields(log))


async def test_a_client_that_reads_nothing_is_left(tmp_path: Path, fast_clock: MockClock) -> None:
    """Its sequence is cancelled once it has taken nothing for a while; others are answered meanwhile."""
    settings = {"max_reader_lag": 4, "n_slots": 2 * N_SLOW}
    model = scripted("m", tmp_path, {"x": LARGE, "y": ["a"]}, settings=settings)
    async with serving(model) as server, httpx.AsyncClient(base_url=server.url) as asking:
        slow = [await post(server.port, "/api/generate", RAW) for _ in range(N_SLOW)]
        assert 200 == (await asking.post("/api/generate", json=RAW | {"prompt": "y"})).status_code
        (log,) = tmp_path.glob("*.jsonl.zst")
        await until(lambda: n_cancelled(log) == N_SLOW, seconds=400, pause=2)
        for stream in slow:
            await stream.aclose()
    assert "same" == replay_log(log).verdict


async def test_no_client_holds_up_the_end(tmp_path: Path, slower_clock: MockClock) -> None:
    """Beside clients that are slow in every way, the server ends when its grace time is over, and closes the log."""
    model = scripted("m", tmp_path, LARGE, settings={"max_reader_lag": 4, "n_slots": N_SLOW})
    async with serving(model) as server:
        slow = await begun(server, *[b"", HALF_HEAD, HALF_BODY] * N_SLOW)
        slow += [await post(server.port, "/api/generate", RAW) for _ in range(N_SLOW)]
        await until(lambda: any(tmp_path.glob("*.jsonl.zst")), seconds=400, pause=1)
        asked = trio.current_time()
        server.ask_to_end()
        await server.ended.wait()
        assert trio.current_time() - asked < 3 * GRACE_SECONDS
        for stream in slow:
            await stream.aclose()
    (log,) = tmp_path.glob("*.jsonl.zst")
    assert "SessionClosed" == list(read_fields(log))[-1]["type"]


async def test_a_new_connection_replaces_one_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """When there are as many as there may be, the one that has waited longest for a request is closed."""
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 3)
    async with serving(scripted("m", None, ["a"])) as server:
        slow = await begun(server, HALF_HEAD, HALF_BODY, b"")
        async with httpx.AsyncClient(base_url=server.url) as asking:
            assert 200 == (await asking.post("/api/generate", json=RAW)).status_code
            assert b"" == await rest(slow[0])
            async with httpx.AsyncClient(base_url=server.url) as other:
                assert 200 == (await other.post("/api/generate", json=RAW)).status_code
                assert b"" == await rest(slow[1])
            assert 200 == (await asking.post("/api/generate", json=RAW)).status_code
        await slow[2].aclose()


async def test_where_none_waits_a_new_connection_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets a 503, and once another one has ended, an answer."""
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 2)
    async with serving(scripted("m", None, ["a"] * 10_000, batch_seconds=0.01)) as server:
        busy = [await post(server.port, "/api/generate", RAW) for _ in range(2)]
        for stream in busy:
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        async with httpx.AsyncClient(base_url=server.url) as asking:
            full = await asking.get("/health")
            assert (503, "1", True) == (full.status_code, full.headers["retry-after"], "error" in full.json())
            await busy[0].aclose()
            with trio.fail_after(20):
                while (await asking.get("/health")).status_code == 503:  # noqa: ASYNC110  # nobody says so
                    await trio.sleep(0.01)
        await busy[1].aclose()


# ---------------------------------------------------------------- HTTP


@asynccontextmanager
async def answering(application: ASGIApp, warnings: list[str]) -> AsyncIterator[trio.SocketStream]:
    """Serve an application, and return a connection to it."""
    listener = listening("127.0.0.1", 0)
    port = listener.getsockname()[1]
    ending = trio.Event()

    async def serve(*, task_status: trio.TaskStatus[None]) -> None:
        await answer(application, listener, ending, warn=warnings.append, task_status=task_status)

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            yield stream
        ending.set()


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the request, as it came."""
    body = b""
    while (message := await receive())["more_body"]:
        body += message["body"]
    heard = [scope["method"], scope["path"], scope["query_string"].decode(), body.decode()]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": json.dumps(heard).encode()})


async def asked(*requests: bytes, application: ASGIApp = echo) -> str:
    """Return the answers to requests on one connection, after which it is closed."""
    warnings: list[str] = []
    async with answering(application, warnings) as stream:
        for request in requests:
            await stream.send_all(request)
        with trio.fail_after(60):
            found = await rest(stream)
    assert [] == warnings
    return found.decode()


LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
AS_LAST = '["GET", "/last", "", ""]'


@pytest.mark.parametrize(
    ("request_bytes", "heard"),
    [
        (b"GET /a%20b?c=%20d HTTP/1.1\r\nHost: a\r\n\r\n", '["GET", "/a b", "c=%20d", ""]'),
        (b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", '["POST", "/a", "", "abc"]'),
        (
            b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
            '["POST", "/a", "", "abc"]',
        ),
        (b"GET http://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n", '["GET", "/b", "c", ""]'),
        (b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", '["GET", "/a", "", ""]'),
    ],
)
async def test_a_connection_has_many_requests(request_bytes: bytes, heard: str) -> None:
    """Each request is answered in its turn, also when they come at once."""
    found = await asked(request_bytes + request_bytes, LAST)
    assert (3, 2, 1) == (found.count("HTTP/1.1 200"), found.count(heard), found.count(AS_LAST))


async def test_a_head_only_is_sent_where_it_was_asked_for() -> None:
    """The answer to HEAD has no body."""
    found = await asked(b"HEAD /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert found.startswith("HTTP/1.1 200")
    assert found.endswith("\r\n\r\n")


async def test_an_old_client_is_answered() -> None:
    """To HTTP/1.0 there are no chunks, and the end of the connection ends the answer."""
    found = await asked(b"GET /last HTTP/1.0\r\n\r\n")
    assert ("chunked" in found, True) == (False, found.endswith(AS_LAST))


async def test_a_client_that_waits_to_send_its_body() -> None:
    """A client that expects a 100 gets it before its body is read."""
    warnings: list[str] = []
    async with answering(echo, warnings) as stream:
        await stream.send_all(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 100")
        await stream.send_all(b"x")
        assert b'"x"]' in await stream.receive_some()


@pytest.mark.parametrize(
    ("begun_with", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40_000, "431"),
        (b"nonsense\r\n\r\n", "400"),
        (b"GET / HTTP/1.1\r\n\r\n", "400"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "400"),
    ],
)
async def test_what_is_no_request_is_refused(begun_with: bytes, status: str) -> None:
    """A head that is too long, or is none, is refused with the reason, and its connection is closed."""
    found = await asked(begun_with)
    head, _, body = found.partition("\r\n\r\n")
    assert (f"HTTP/1.1 {status}", ["error"]) == (found[:12], list(json.loads(body)))
    assert re.search(r"\r\nx-request-id: req-[0-9a-f]{16}\r\n", head)


async def early(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer without reading the body."""
    await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"much"})


async def test_an_answer_before_the_end_of_a_body_arrives() -> None:
    """The client may read it, although the rest of its body is not read."""
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n"
    assert (await asked(head + b"x" * 3_000_000, application=early)).endswith("\r\n\r\nmuch")


async def test_an_application_that_raises(fast_clock: MockClock) -> None:
    """The connection ends, there is a warning, and others are served."""
    warnings: list[str] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/bad":
            raise OSError("no such luck")
        await echo(scope, receive, send)

    async with answering(application, warnings) as stream:
        port = stream.socket.getpeername()[1]
        await stream.send_all(b"GET /bad HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"" == await rest(stream)
        async with await trio.open_tcp_stream("127.0.0.1", port) as other:
            await other.send_all(LAST)
            assert AS_LAST.encode() in await rest(other)
    assert ["a request failed: OSError: no such luck"] == warnings


async def test_what_comes_too_early_is_not_piled_up(fast_clock: MockClock) -> None:
    """While a request is answered, only so much of what follows is read."""
    going = trio.Event()

    async def application(_scope: Scope, receive: Receive, _send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        going.set()

    warnings: list[str] = []
    async with answering(application, warnings) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        with trio.move_on_after(10) as limit:
            await stream.send_all(b"x" * 100_000_000)
        assert limit.cancelled_caught
        assert not going.is_set()


async def test_the_end_is_told(fast_clock: MockClock) -> None:
    """An answer that begins when the server is to end says that the connection ends with it."""
    ending = trio.Event()
    listener = listening("127.0.0.1", 0)
    port = listener.getsockname()[1]

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        ending.set()
        await trio.sleep(1)
        await echo(scope, receive, send)

    async def serve(*, task_status: trio.TaskStatus[None]) -> None:
        await answer(application, listener, ending, warn=print, task_status=task_status)

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        found: list[Any] = []
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n")
            found = (await rest(stream)).decode().lower().splitlines()
    assert "connection: close" in found
