"""Servers for clients that people use, and the clients `ollama` and `openai` called in a thread."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import ollama
import openai
import trio
from pydantic import BaseModel

from reenact.runtime.engine.scripted import NAN
from tests.helpers.serving import Server, scripted, serving


class Person(BaseModel):
    name: str
    age: int


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Server]:
    """Serve a model for a text, for a person as JSON, for a call and for vectors; one that breaks, and a slow one."""
    async with serving(
        scripted("hello", folder, ["Hel", "lo"]),
        scripted("json", folder, ['{"name": "Ann",', ' "age": 7}']),
        scripted("tool", folder, ['{"name": "weather", "arg', 'uments": {"city": "Ro', 'me"}}']),
        scripted("vectors", folder, vectors={"a": [3.0, 4.0], "b": [0.0, 1.0]}),
        scripted("broken", folder, ["Hel", NAN]),
        scripted("slow", folder, ["x"] * 20, batch_seconds=0.05, settings={"n_slots": 1, "max_waiting": 0}),
    ) as server:
        yield server


async def ask_ollama(server: Server, call: Any) -> Any:
    """Call the client in a thread; it is closed behind that."""

    def asked() -> Any:
        with ollama.Client(server.url) as client:
            return call(client)

    return await trio.to_thread.run_sync(asked)


async def ask_openai(server: Server, call: Any, **settings: Any) -> Any:
    """Call the client in a thread; it is closed behind that."""

    def asked() -> Any:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", **settings) as client:
            return call(client)

    return await trio.to_thread.run_sync(asked)
