"""Gives requests that nobody sends to an application, or to a server, and says what is wrong with the answers."""

import math
import re
import traceback
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from time import perf_counter, process_time
from typing import Any, Final
from urllib.parse import unquote

import httpx
import orjson
import trio
from attrs import frozen
from starlette.types import ASGIApp, Message

from reenact.replay import check_log, replay_log
from reenact.runtime import ScriptedEngine, open_runtime
from reenact.runtime.http import app
from tests.helpers.serving import embedding_engine
from tests.runtime.http.mutated import Asked

SECONDS: Final = 5.0
"""An answer that takes longer is a fault, of the CPU in this process; none within four times as long is a hang."""

_STATUSES: Final = {200, 307, 400, 403, 404, 405, 408, 413, 415, 503}
_UNCHANGING: Final = {f"/api/{name}" for name in ("pull", "push", "create", "copy", "delete")}


@frozen
class Answer:
    """The answer to a request."""

    status: int | None
    """None if there was no head."""
    body: bytes
    seconds: float
    """Of the CPU, because other programs may use it too; over a socket, of the clock."""
    raised: str = ""
    """The traceback of what the application raised."""
    below: bool = False
    """Whether the server may have refused it, or waited for its end, before any application saw it."""


@asynccontextmanager
async def application(log: Path) -> AsyncIterator[ASGIApp]:
    """Serve a model that generates, with a log, and one that makes vectors."""
    async with (
        open_runtime(ScriptedEngine(draws_from="history"), log=log, n_ctx=256, n_slots=2) as runtime,
        open_runtime(embedding_engine(), n_ctx=256) as vectors,
    ):
        yield app({"m": runtime, "v": vectors})


async def ask(application: ASGIApp, asked: Asked) -> Answer:
    """Give a request to an application."""
    path, _, query = asked.path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": asked.method,
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "scheme": "http",
        "headers": list(asked.headers),
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
    }
    size = math.ceil(len(asked.body) / asked.n_parts)
    parts = [asked.body[i * size : (i + 1) * size] for i in range(asked.n_parts)][: asked.leaves]
    coming: list[Message] = [
        {"type": "http.request", "body": part, "more_body": i + 1 < asked.n_parts} for i, part in enumerate(parts)
    ]
    received: list[Message] = []
    ended = trio.Event()

    async def receive() -> Message:
        await trio.lowlevel.checkpoint()
        if coming:
            return coming.pop(0)
        if asked.leaves is None:
            await ended.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        await trio.lowlevel.checkpoint()
        received.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            ended.set()

    begun, raised = process_time(), ""
    try:
        with trio.fail_after(4 * SECONDS):
            await application(scope, receive, send)
    except Exception:  # noqa: BLE001  # whatever it is, it is a fault of this request
        raised = traceback.format_exc()
    starts = [one["status"] for one in received if one["type"] == "http.response.start"]
    body = b"".join(one.get("body", b"") for one in received if one["type"] == "http.response.body")
    return Answer(starts[0] if starts else None, body, process_time() - begun, raised)


def faults(asked: Asked, answer: Answer, folder: Path) -> Iterator[str]:
    """Yield the faults of an answer.

    Args:
        asked: The request.
        answer: Its answer.
        folder: The folder of the logs, which no answer may name.
    """
    path, kind = unquote(asked.path.partition("?")[0]), asked.method
    if answer.raised:
        yield answer.raised
    if answer.seconds > (2 * SECONDS if answer.below else SECONDS):
        yield f"{answer.seconds:.1f} s"
    if answer.status is None:
        if asked.leaves is None and not answer.below:
            yield "no answer"
        return
    if answer.below and answer.status in {400, 431, 501} and not answer.body:
        return  # So h11 refuses it.
    if answer.status not in _STATUSES and not (answer.status == 501 and path in _UNCHANGING):
        yield f"status {answer.status}: {answer.body[:300]!r}"
    if b"Traceback" in answer.body or str(folder).encode() in answer.body:
        yield f"it tells of the machine: {answer.body[:300]!r}"
    if answer.status == 200:
        yield from (f"a stream failed: {line!r}" for line in answer.body.splitlines() if _fails(line))
    elif answer.status == 307:
        yield from [] if path.endswith("/") else ["it leads elsewhere"]
    elif kind not in {"HEAD", "OPTIONS"} and not (
        _has_shape(path, answer.body) or (answer.below and _is_error(answer.body))
    ):
        yield f"an error without its shape: {answer.body[:300]!r}"


def _fails(line: bytes) -> bool:
    return line.removeprefix(b"data: ").startswith(b'{"error":')


def _is_error(body: bytes) -> bool:
    """Return whether it is an error of either API: a damaged path may be a path of the other one."""
    return _has_shape("/api/", body) or _has_shape("/v1/", body)


def _has_shape(path: str, body: bytes) -> bool:
    try:
        error: Any = orjson.loads(body)["error"]
        return isinstance(error["message"] if path.startswith("/v1/") else error, str)
    except (ValueError, TypeError, KeyError):
        return False


async def judged(seeded: Iterable[Asked], folder: Path) -> AsyncIterator[tuple[Asked, Answer, list[str]]]:
    """Give requests to one application, one after the other; at the end its log must replay, and break no rule.

    Args:
        seeded: The requests.
        folder: Where its log lies.
    """
    log = folder / "log.jsonl"
    last: Asked | None = None
    async with application(log) as serving:
        for last in seeded:
            answer = await ask(serving, last)
            yield last, answer, list(faults(last, answer, folder))
    if last is not None:
        wrong = [] if (verdict := replay_log(log).verdict) == "same" else [f"its log replays: {verdict}"]
        wrong += [f"its log breaks a rule: {one}" for one in check_log(log).violations]
        yield last, Answer(None, b"", 0.0), wrong


# ---------------------------------------------------------------- over a socket


@frozen
class Sent:
    """The bytes of a request."""

    raw: bytes
    is_whole: bool
    """Whether a server can know that the request has ended."""


def sent(asked: Asked) -> Sent:
    """Return the bytes of a request, its head damaged once in a while."""
    random = Random(asked.seed)  # noqa: S311  # it is to be the same again
    headers = [*asked.headers, (b"connection", b"close")]
    body, is_whole = asked.body, True
    kind = random.random()
    if kind < 0.7:
        headers.append((b"content-length", str(len(body)).encode()))
    elif kind < 0.85:
        headers.append((b"transfer-encoding", b"chunked"))
        size = random.choice((1, 7, 1000))
        pieces = [body[i : i + size] for i in range(0, min(len(body), 500 * size), size)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    else:
        length = random.choice((b"-1", b"x", b"99999999999999999999", str(len(body) + 5).encode(), b"0", b"1, 2"))
        headers.append((b"content-length", length))
        is_whole = False
    lines = [f"{asked.method} {asked.path} HTTP/1.1".encode("latin-1"), *(b"%b: %b" % one for one in headers)]
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    if random.random() < 0.2:
        at = random.randrange(len(head))
        head = head[:at] + random.choice((b"", b"\n", b"\x00", b"\xff", b" ", b":", b"\r\n\r\n")) + head[at + 1 :]
        is_whole = False
    return Sent(head + body, is_whole)


async def ask_by_socket(port: int, asked: Asked) -> Answer:
    """Send a request to a server on this machine, and read its answer; one that is not whole gets little time."""
    sending = sent(asked)
    raw = sending.raw if asked.leaves is None else sending.raw[: len(sending.raw) * asked.leaves // asked.n_parts]
    stays = sending.is_whole and asked.leaves is None
    begun, raised, received = perf_counter(), "", b""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    with trio.move_on_after(4 * SECONDS if stays else 0.1) as scope:
        try:
            await stream.send_all(raw)
            async for part in stream:
                received += part
        except trio.BrokenResourceError:
            pass  # It refused the request before it had read it.
    with trio.CancelScope(shield=True):
        await trio.aclose_forcefully(stream)
    if scope.cancelled_caught and stays:
        raised = "the connection is not closed"
    if scope.cancelled_caught:
        received = b""  # Whatever has come by now may be half of it.
    status, body = _first(received)
    return Answer(status, body, perf_counter() - begun, raised, below=True)


def _first(received: bytes) -> tuple[int | None, bytes]:
    """Return the status and the body of the first answer; a damaged request may be answered as two."""
    while (head := received.partition(b"\r\n\r\n")[0]).startswith(b"HTTP/1.1 100"):
        received = received[len(head) + 4 :]
    if not head.startswith(b"HTTP/1.1 "):
        return None, b""
    found = re.search(rb"(?i)\r\ncontent-length: ([0-9]+)", head)
    return int(head[9:12]), received[len(head) + 4 :][: int(found[1]) if found else None]


async def still_serves(url: str) -> list[str]:
    """Return the fault of a server after all that: it must answer, and hold no request of one that has left."""
    async with httpx.AsyncClient(base_url=url) as asking:
        answered = await asking.post("/api/generate", json={"model": "m", "prompt": "x"})
        with trio.move_on_after(SECONDS):
            while live := (await asking.get("/debug/requests")).json()["requests"]:  # noqa: ASYNC110  # nobody says when it ends
                await trio.sleep(0.05)
    return [*([] if answered.status_code == 200 else [answered.text]), *(f"{one} lives on" for one in live)]
