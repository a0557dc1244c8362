"""A server on a loopback port, with scripted models, in the test's own loop."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from attrs import frozen

from reenact.runtime import ScriptedEngine
from reenact.runtime.engine.protocol import Engine
from reenact.runtime.engine.scripted import Scripts
from reenact.runtime.http.on_demand import ServedModel
from reenact.runtime.http.server import Serving, listening, serve_until
from reenact.runtime.model_store import StoredModel


@frozen
class Server:
    """A server that answers."""

    url: str
    port: int
    ask_to_end: Callable[[], None]
    ended: trio.Event
    warnings: list[str]


async def until(true: Callable[[], bool], *, seconds: float = 20.0, pause: float = 0.01) -> None:
    """Wait for what a server does in its own time."""
    with trio.fail_after(seconds):
        while not true():  # noqa: ASYNC110  # a log grows; nobody says so
            await trio.sleep(pause)


async def post(port: int, path: str, body: dict[str, Any]) -> trio.SocketStream:
    """Send a request, and return the connection on which the answer comes."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    raw = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(raw)}\r\n\r\n"
    await stream.send_all(head.encode() + raw)
    return stream


def served_model(
    name: str, folder: Path | None, engine: Callable[[], Engine], *, n_ctx: int = 2048, **settings: Any
) -> ServedModel:
    """Return a model that is opened on an engine."""
    stored = StoredModel(name=f"{name}:latest", path=Path(name), store="installed")
    return ServedModel(stored=stored, n_ctx=n_ctx, log_folder=folder, settings=settings, engine=engine)


def scripted(
    name: str, folder: Path | None, scripts: Scripts = (), *, settings: dict[str, Any] | None = None, **named: Any
) -> ServedModel:
    """Return a model that plays, with settings of `open_runtime`."""
    return served_model(name, folder, lambda: ScriptedEngine(scripts, **named), **(settings or {}))


class _AnyText(dict[str, tuple[float, ...]]):
    """Has a vector for whatever it is asked."""

    def __contains__(self, text: object) -> bool:
        return True

    def __missing__(self, text: str) -> tuple[float, ...]:
        return (float(len(text)), 1.0)


def embedding_engine() -> ScriptedEngine:
    """Return an engine that has a vector for any text."""
    engine = ScriptedEngine(vectors={"x": [1.0, 1.0]})
    engine._vectors = _AnyText()
    return engine


@asynccontextmanager
async def serving(*served: ServedModel, keep_alive: float = 300.0) -> AsyncIterator[Server]:
    """Serve models until the block is left; they are asked to end then, and awaited."""
    listener = listening("127.0.0.1", 0)
    port = listener.getsockname()[1]
    send, receive = trio.open_memory_channel[None](2)
    warnings: list[str] = []
    ended = trio.Event()
    asked = Serving(served=served, keep_alive=keep_alive, origins=(), keys=(), warn=warnings.append)

    async def serve(*, task_status: trio.TaskStatus[None]) -> None:
        await serve_until(asked, listener, receive.receive, task_status=task_status)
        ended.set()

    async with trio.open_nursery() as nursery, send, receive:
        await nursery.start(serve)
        yield Server(f"http://127.0.0.1:{port}", port, lambda: send.send_nowait(None), ended, warnings)
        if not ended.is_set():
            send.send_nowait(None)
            await ended.wait()
