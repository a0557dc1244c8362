"""The Python packages `ollama` and `openai` where something goes wrong, or their caller does not wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import ollama
import openai
import pytest
import trio

from tests.helpers.clients import ask_ollama, ask_openai, served
from tests.helpers.http import CHAT
from tests.helpers.serving import Server, post
from tests.helpers.sessions import read_fields

MESSAGES: Any = CHAT


@asynccontextmanager
async def full(server: Server) -> AsyncIterator[None]:
    """Keep the only slot of the slow model busy, and its queue full."""
    connection = await post(server.port, "/api/generate", {"model": "slow", "prompt": "x"})
    assert (await connection.receive_some()).startswith(b"HTTP/1.1 200")
    yield
    await connection.aclose()


def ends(folder: Path) -> list[str]:
    """Return the ends of the slow model's sequences so far."""
    records = [fields for log in folder.glob("*-slow-*.jsonl.zst") for fields in read_fields(log)]
    return [fields["finish_reason"] for fields in records if fields["type"] == "SequenceFinished"]


async def ended(folder: Path) -> list[str]:
    """Wait until a sequence of the slow model has ended."""
    with trio.fail_after(20):
        while not ends(folder):  # noqa: ASYNC110  # a log grows; nobody says so
            await trio.sleep(0.01)
    return ends(folder)


async def test_ollama_has_no_second_try(tmp_path: Path) -> None:
    """A full queue is a `ResponseError` with 503: this client leaves another try to its caller."""
    async with served(tmp_path) as server, full(server):
        with pytest.raises(ollama.ResponseError) as raised:
            await ask_ollama(server, lambda client: client.generate("slow", "y"))
    assert 503 == raised.value.status_code


async def test_ollama_raises_in_a_stream(tmp_path: Path) -> None:
    """A sequence that fails behind its first token is a `ResponseError` behind that token."""
    found: list[str] = []
    async with served(tmp_path) as server:

        def call(client: ollama.Client) -> None:
            found.extend(part.response or "" for part in client.generate("broken", "x", stream=True))

        with pytest.raises(ollama.ResponseError, match="NaN"):
            await ask_ollama(server, call)
        with pytest.raises(ollama.ResponseError) as raised:
            await ask_ollama(server, lambda client: client.generate("broken", "x"))
    assert (["Hel"], 500) == (found, raised.value.status_code)


async def test_openai_raises_in_a_stream(tmp_path: Path) -> None:
    """The same is an `APIError` of the other client; without a stream it is an `InternalServerError`."""
    found: list[str | None] = []
    async with served(tmp_path) as server:

        def call(client: openai.OpenAI) -> None:
            chunks = client.chat.completions.create(model="broken", messages=MESSAGES, stream=True)
            found.extend(chunk.choices[0].delta.content for chunk in chunks)

        with pytest.raises(openai.APIError, match="NaN"):
            await ask_openai(server, call)
        with pytest.raises(openai.InternalServerError):
            await ask_openai(
                server,
                lambda client: client.chat.completions.create(model="broken", messages=MESSAGES),
                max_retries=0,
            )
    assert ["", "Hel"] == found


async def test_ollama_leaves_a_stream(tmp_path: Path) -> None:
    """A caller that closes the stream cancels the sequence."""
    async with served(tmp_path) as server:

        def call(client: ollama.Client) -> None:
            parts: Any = client.generate("slow", "x", stream=True)
            next(parts)
            parts.close()

        await ask_ollama(server, call)
        assert ["cancelled"] == await ended(tmp_path)


async def test_openai_leaves_a_stream(tmp_path: Path) -> None:
    """The same with `close`, and with a timeout that ends a call without a stream."""
    async with served(tmp_path) as server:

        def call(client: openai.OpenAI) -> None:
            chunks = client.chat.completions.create(model="slow", messages=MESSAGES, stream=True)
            next(chunks)
            chunks.close()

        await ask_openai(server, call)
        assert ["cancelled"] == await ended(tmp_path)
        with pytest.raises(openai.APITimeoutError):
            await ask_openai(
                server, lambda client: client.completions.create(model="slow", prompt="x"), timeout=0.3, max_retries=0
            )
        with trio.fail_after(20):
            while len(ends(tmp_path)) < 2:  # noqa: ASYNC110  # as above
                await trio.sleep(0.01)
        assert ["cancelled", "cancelled"] == ends(tmp_path)


async def test_ollama_on_asyncio(tmp_path: Path) -> None:
    """`AsyncClient`, whole and streamed, two calls beside one another."""

    async def ask(url: str) -> tuple[str, str]:
        client = ollama.AsyncClient(url)

        async def whole() -> str:
            return (await client.chat("hello", CHAT)).message.content or ""

        async def streamed() -> str:
            parts = await client.chat("hello", CHAT, stream=True)
            return "".join([part.message.content or "" async for part in parts])

        found = await asyncio.gather(whole(), streamed())
        await client._client.aclose()
        return found[0], found[1]

    async with served(tmp_path) as server:
        found = await trio.to_thread.run_sync(lambda: asyncio.run(ask(server.url)))
    assert ("Hello", "Hello") == found


async def test_openai_on_asyncio(tmp_path: Path) -> None:
    """`AsyncOpenAI`, whole and streamed, two calls beside one another."""

    async def ask(url: str) -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any") as client:

            async def whole() -> str:
                answer = await client.chat.completions.create(model="hello", messages=MESSAGES)
                return answer.choices[0].message.content or ""

            async def streamed() -> str:
                chunks = await client.chat.completions.create(model="hello", messages=MESSAGES, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

            found = await asyncio.gather(whole(), streamed())
        return found[0], found[1]

    async with served(tmp_path) as server:
        found = await trio.to_thread.run_sync(lambda: asyncio.run(ask(server.url)))
    assert ("Hello", "Hello") == found
